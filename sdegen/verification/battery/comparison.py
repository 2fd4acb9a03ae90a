"""Findings of states beside those of the same transitions, redrawn by the believed simulation.

Where z is nearly normal, and not quite, a statistic S has an expectation of its own, and so have
those of transitions that are redrawn M times from the same states, S_1 … S_M. If the belief is
right, all of them have one law, given the states before, and

    D = (S − mean S_m)/√(1 + 1/M)

is a standard normal as far as S is one, whatever its expectation is.

Of a simulator that is not known there are two beliefs, a coarse and a fine one, and two D: what is
judged is |D| − |D − D'|, never more than the smaller of |D| and |D'|. It is below 0 where the data
are between the two.

Squares, and numbers that are known by p-values alone, are judged from one side; where their
expectation is large, their variance as normals is up to 2, by which D is divided as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy import stats
from torch import Tensor

from sdegen.verification.battery.finding import Finding, of_smallest, place_of

_LEAST = 1e-300  # of a p-value, as a normal


def compared(findings: list[Finding], redrawn: Sequence[Sequence[list[Finding]]]) -> list[Finding]:
    """Return findings as they are beside those of redrawn transitions.

    Args:
        findings: Of the states.
        redrawn: Of each belief, of each time that transitions were redrawn: the same findings.
    """
    return [
        _compared(found, [[others[k] for others in belief] for belief in redrawn])
        for k, found in enumerate(findings)
    ]


def _compared(found: Finding, redrawn: Sequence[Sequence[Finding]]) -> Finding:
    """Return one finding beside its like."""
    two_sided = found.scores is not None
    differences = []
    for same in redrawn:
        centre = torch.stack([_scores(other) for other in same]).mean(0)
        spread = (1 + 1 / len(same)) * (1 if two_sided else 2)
        differences.append((_scores(found) - centre) / math.sqrt(spread))
    first, last = differences[0], differences[-1]
    # of one belief both are one, and nothing is taken off
    beyond = (first.abs() if two_sided else first) - (first - last).abs()
    k = int(beyond.argmax())
    tail = float(stats.norm.sf(float(beyond.flatten()[k])))
    one = min(1.0, 2 * tail) if two_sided else tail
    value, p_value = float(first.flatten()[k]), of_smallest(one, beyond.numel())
    same_place = not two_sided or k == int(_scores(found).abs().argmax())
    where = found.where if same_place else place_of(k, beyond, found.label)
    return replace(found, value=value, p_value=p_value, where=where)


def _scores(found: Finding) -> Tensor:
    """Return what a finding is the largest of, as normals."""
    if found.scores is not None:
        return found.scores
    p = min(max(found.p_value, _LEAST), 1 - 1e-16)
    return torch.tensor([float(stats.norm.isf(p))], dtype=torch.float64)
