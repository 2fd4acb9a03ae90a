"""Fault hypotheses: trajectories do not follow the law of an SDE; which near law do they follow?

The mistakes that are made most often, each as dynamics whose chain has a law of its own: a drift
of the wrong sign or a factor of 2, a factor of 2 in g², another interpretation, a step ten
times too long or too short. A hypothesis fits if no test tells the trajectories from its law. At
equilibrium several may: twice the drift and half of g² have the same stationary density.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from sdegen.core.errors import SdegenError
from sdegen.core.fixed_steps import FixedStep, refine
from sdegen.core.shapes import State
from sdegen.verification.diagnosis.altered import AlteredSDE
from sdegen.verification.problem import Problem
from sdegen.verification.sampling import sampling_checks

_FITS = 1e-3  # the smallest p-value of a hypothesis that is named
_FEWEST = 100  # samples inside the grid, below which nothing is said


def matching_hypotheses(samples: State, problem: Problem) -> list[str]:
    """Name the mistakes whose law the samples follow at the last time, the likeliest first.

    Args:
        samples: States at the last time, shape (n, 1).
        problem: What they should follow, and do not, by a solver with fixed steps.
    """
    matches = []
    # what left the grid does not come back, so that what is left has the law that is left
    grid = problem.grid
    inside = samples[(samples[:, 0] > grid.low) & (samples[:, 0] < grid.high)]
    if len(inside) < _FEWEST:
        return []
    for name, hypothesis in _fault_hypotheses(problem):
        try:
            law = hypothesis.chain_law().final
            checks = sampling_checks(inside, law, false_alarm=_FITS)
        except (ValueError, SdegenError):
            continue  # it has no law on this grid
        if all(check.verdict == "passed" for check in checks):
            matches.append((min(check.p_value or 0.0 for check in checks), name))
    return [name for _, name in sorted(matches, reverse=True)]


def _fault_hypotheses(problem: Problem) -> Iterator[tuple[str, Problem]]:
    """Yield the name of each mistake, and what solves it."""
    sde, solver, times = problem.sde, problem.solver, problem.times
    assert isinstance(solver, FixedStep)  # its chain has a law
    if sde.is_discrete:
        return
    gaps, once = times.diff().abs(), problem
    if gaps.max() < gaps.min() * (1 + 1e-6):
        whole = replace(solver, substeps=solver.substeps * len(gaps))
        once = replace(problem, solver=whole, times=times[[0, -1]])
    factors = [
        ("the drift has the wrong sign", -1.0, 1.0, 0.0),
        ("the drift is twice what it should be", 2.0, 1.0, 0.0),
        ("the drift is half of what it should be", 0.5, 1.0, 0.0),
        ("g² is half of what it should be", 1.0, math.sqrt(0.5), 0.0),
        ("g² is twice what it should be", 1.0, math.sqrt(2.0), 0.0),
    ]
    if sde.noise == "multiplicative":
        factors += [
            ("the noise is read half a step too early (Itô for Stratonovich)", 1, 1, -0.5),
            ("the noise is read half a step too late (Stratonovich for Itô)", 1, 1, 0.5),
            ("the noise is read a step too early (Itô for Klimontovich)", 1, 1, -1.0),
            ("the noise is read a step too late (Klimontovich for Itô)", 1, 1, 1.0),
        ]
    for name, drift, noise, interpretation in factors:
        yield name, replace(once, sde=AlteredSDE(sde, drift, noise, interpretation))
    nodes, one = solver.nodes(times), replace(problem, solver=replace(solver, substeps=1))
    if (len(nodes) - 1) % 10 == 0:
        yield "the step is ten times too long", replace(one, times=nodes[::10])
    yield "the step is ten times too short", replace(one, times=refine(nodes, 10))
