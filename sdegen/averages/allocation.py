"""Allocation: which levels to sample, how often each, and what is known of the error then.

    ⟨f(X_L)⟩ = ⟨f(X_s)⟩ + Σ_{l=s+1…L} ⟨f(X_l) − f(X_{l−1})⟩,        level l: 2^l steps

Samples of the levels are independent: the variance of the estimate is Σ V_l/N_l, its cost
Σ N_l C_l, and the least cost at a standard error e has

    N_l = e⁻² √(V_l/C_l) Σ_k √(V_k C_k),        cost = e⁻² (Σ_k √(V_k C_k))²

What is left is the bias of the finest level. It falls as 2^{−αl} with the weak order α, so that it
is ⟨f(X_L) − f(X_{L−1})⟩/(2^α − 1); the same of the two levels before, carried on to L by 2^{−α},
guards against a difference that is small by chance or by a change of sign. Each enters with one
standard error of its own, and α is what the means show, where they show less than the solver's.

A variance of few samples may be too small: where one trajectory in a thousand makes it, as of an
f that jumps, 256 of them show nothing. Each is taken one standard error larger, and at least as
what the coarser level next to it leaves at the fastest decay that is usual. Where no sample shows
a difference, one in N may be as large as f is wide: V_l = w²/N_l. The square of that width, w² =
⟨d⁴⟩/⟨d²⟩ with d = f − ⟨f⟩, is the largest that any level has shown. It is 1 for a condition that
seldom holds, where var f would be its probability, and 0 where it was never seen to hold.

Reference:
    Giles 2008, Oper. Res. 56, 607, section 5, for N_l, bias and levels; Giles 2015, Acta Numerica
    24, 259, section 3, for kurtosis and the first level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdegen.averages.sampling import Samples

_FASTEST = 8.0  # V_{l−1}/V_l; 4 is that of strong order 1
_SURE = 5.0  # standard errors from which a mean shows a decay
_LEAST_ORDER = 0.3
_SPARE = 1.5  # of the least cost, that a first level with more steps may have


@dataclass(frozen=True)
class Error:
    """What is known of the error of an estimate.

    Attributes:
        standard_error: √(Σ V_l/N_l).
        bias: The most that the finest level is likely to be off.
        sure_bias: The least.
        bias_from: Place of the level that says most of the bias.
        order: The weak order that was used.
    """

    standard_error: float
    bias: float
    sure_bias: float
    bias_from: int
    order: float


def variances(levels: Sequence[Samples]) -> list[float]:
    """Return the variance of each level, none smaller than it may well be.

    Args:
        levels: The first, and the differences of the others.
    """
    cautious: list[float] = []
    wide = max(level.fine.variance * level.fine.kurtosis for level in levels)
    for i, level in enumerate(levels):
        y = level.value
        if wide > 0 and level.is_alike:
            cautious.append(wide / y.count)
            continue
        floor = levels[i - 1].value.variance / _FASTEST if i > 1 else 0.0
        cautious.append(max(y.variance * (1 + y.variance_error), floor))
    return cautious


def error_of(levels: Sequence[Samples], order: float) -> Error:
    """Return standard error and bias of the sum of the levels' means.

    Args:
        levels: The first, and the differences of the others, at least two.
        order: Weak order of the solver.
    """
    each = [v / level.value.count for v, level in zip(variances(levels), levels, strict=True)]
    means = [abs(level.value.mean) for level in levels[1:]]
    errors = [math.sqrt(e) for e in each[1:]]
    alpha = weak_order(means, errors, order)
    left, last = 2**alpha - 1, len(means) - 1
    carried = {k: 2 ** (-alpha * (last - k)) / left for k in range(max(0, last - 2), last + 1)}
    most, level = max(((means[k] + errors[k]) * c, k + 1) for k, c in carried.items())
    least = max(max(0.0, means[k] - 2 * errors[k]) * c for k, c in carried.items())
    return Error(math.sqrt(sum(each)), most, least, level, alpha)


def weak_order(means: Sequence[float], errors: Sequence[float], order: float) -> float:
    """Return the order α that differences show, at most the solver's.

    Args:
        means: |⟨f(X_l) − f(X_{l−1})⟩|, level by level.
        errors: Their standard errors.
        order: That of the solver.

    >>> weak_order([0.4, 0.28, 0.2], [1e-4, 1e-4, 1e-4], 1.0)
    0.5
    """
    shown = [(i, m) for i, (m, e) in enumerate(zip(means, errors, strict=True)) if m > _SURE * e]
    shown = shown[-4:]
    if len(shown) < (2 if order > 1 else 3):
        # more takes a smooth drift and a smooth f: it is to be shown; less where two levels do
        return round(min(order, 1.0, max(_slower(means, errors), _LEAST_ORDER)), 2)
    slope = float(np.polyfit([i for i, _ in shown], [math.log2(m) for _, m in shown], 1)[0])
    return round(min(order, max(-slope, _LEAST_ORDER)), 2)


def _slower(means: Sequence[float], errors: Sequence[float]) -> float:
    """Return the order that the last two differences show, two standard errors above; or ∞."""
    both = list(zip(means, errors, strict=True))[-2:]
    if len(both) < 2 or not all(m > _SURE * e for m, e in both):
        return math.inf
    (first, e), (second, d) = both
    return math.log2(first / second) + 2 * math.hypot(e / first, d / second) / math.log(2)


def targets(v: Sequence[float], costs: Sequence[float], standard_error: float) -> list[int]:
    """Return the number of samples of each level that make a standard error at the least cost.

    >>> targets([1.0, 0.25], [1.0, 4.0], 0.1)
    [200, 50]
    """
    total = sum(math.sqrt(a * c) for a, c in zip(v, costs, strict=True))
    return [
        math.ceil(math.sqrt(a / c) * total / standard_error**2)
        for a, c in zip(v, costs, strict=True)
    ]


def least_cost(v: Sequence[float], costs: Sequence[float], standard_error: float) -> float:
    """Return (Σ √(V C))²/e²."""
    total = sum(math.sqrt(a * c) for a, c in zip(v, costs, strict=True))
    return (total / standard_error) ** 2


def first_level(pairs: Sequence[Samples], costs: Sequence[tuple[float, float]]) -> int:
    """Return with which level to begin, in the numbers of the pairs: pair i is of 2^{i+1} steps.

    The least cost is that of √(V C) of the level alone and of all differences above it. A level of
    more steps is taken where it costs up to 1.5 times that: a drift that grows faster than x makes
    coarse steps explode, once in as many trajectories as no pilot has.

    Args:
        pairs: Samples of a fine and a coarse run, of 2, 4, 8, … steps in the fine one.
        costs: Of a coarse run alone, and of the pair.

    Returns:
        Its number s, 2^s steps; that of the last pair where all differences cost too much.
    """
    roots = [
        math.inf if p.lost_fine or p.lost_coarse else math.sqrt(p.value.variance * c)
        for p, (_, c) in zip(pairs, costs, strict=True)
    ]
    alone = [
        math.inf if p.lost_coarse else math.sqrt(p.coarse.variance * c)
        for p, (c, _) in zip(pairs, costs, strict=True)
    ]
    last = pairs[-1]
    alone.append(
        math.inf
        if last.lost_fine
        else math.sqrt(last.fine.variance * (costs[-1][1] - costs[-1][0]))
    )
    totals = [one + sum(roots[s:]) for s, one in enumerate(alone)]
    least = min(totals)
    if not math.isfinite(least):
        return len(pairs)
    if least == 0:  # nothing is random: all is a question of the bias
        return totals.index(least)
    return max(s for s, total in enumerate(totals) if total**2 <= _SPARE * least**2)


def decay(levels: Sequence[Samples]) -> tuple[float, float]:
    """Return β of V_l ∝ 2^{−βl} and its standard error, from the last differences.

    Args:
        levels: Differences, level by level; those that are rounding show nothing.

    Returns:
        Both; (∞, 0) where fewer than two show a variance.
    """
    shown = [(i, level.value) for i, level in enumerate(levels) if not level.is_alike][-4:]
    if len(shown) < 2:
        return math.inf, 0.0
    i = np.array([float(k) for k, _ in shown])
    y = np.log2([x.variance for _, x in shown])
    e = np.array([x.variance_error / math.log(2) for _, x in shown])
    d = (i - i.mean()) / ((i - i.mean()) ** 2).sum()
    return float(-(d @ y)), float(np.sqrt(((d * e) ** 2).sum()))
