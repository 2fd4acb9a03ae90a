"""A finding: one statistic of innovations, and the chance that a right simulation shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Finding:
    """One statistic.

    Attributes:
        family: The question that it belongs to; a false-alarm rate is shared between families.
        name: What was looked at.
        value: The statistic, in standard deviations where it is one of normals.
        p_value: Chance of a right simulation to show it or a larger one.
        where: Which coordinate, step or pair shows it most.
        scores: All that it is the largest of, as standard normals with their sign, any shape;
            None: one, that of its p-value.
        label: What an index of them is called.
    """

    family: str
    name: str
    value: float
    p_value: float
    where: str = ""
    scores: Tensor | None = None
    label: str = ""


def of_normals(
    family: str, name: str, values: Tensor, label: str = "", shift: float = 0.0
) -> Finding:
    """Return the finding of the largest of m independent standard normals.

    Args:
        family: The question.
        name: What was looked at.
        values: Any shape.
        label: What an index of it is called, for one that has several.
        shift: By how much each may be off without a mistake, in standard deviations.
    """
    scores = values.double()
    scores = scores.sign() * (scores.abs() - shift).clamp(min=0.0)
    k = int(values.abs().argmax())
    one = float(2 * stats.norm.sf(float(scores.flatten()[k].abs())))
    p_value = of_smallest(one, scores.numel())
    where = place_of(k, scores, label)
    return Finding(
        family, name, float(values.flatten()[k]), p_value, where, scores=scores, label=label
    )


def place_of(k: int, values: Tensor, label: str) -> str:
    """Return which of several values is number k, in words."""
    if values.numel() < 2 or not label:
        return ""
    index = [int(i) for i in torch.unravel_index(torch.tensor(k), values.shape)]
    return f"{label} {', '.join(map(str, index))}"


def of_correlations(family: str, name: str, values: Tensor, n: int, where: str = "") -> Finding:
    """Return the finding of the largest of correlations of vectors of n independent normals.

    r = a·b/(|a| |b|), without a mean: r √(n − 1)/√(1 − r²) has Student's law of n − 1 degrees.

    Args:
        family: The question.
        name: What was looked at.
        values: r, any shape.
        n: Length of the vectors, > 1.
        where: Which is the largest.
    """
    r = float(values.flatten()[int(values.abs().argmax())])
    rest = max(1e-300, (1 - abs(r)) * (1 + abs(r)))
    t = abs(r) * math.sqrt((n - 1) / rest)
    p = of_smallest(float(2 * stats.t.sf(t, n - 1)), values.numel())
    # Wallace: Student's law as normals
    f, squares = n - 1, values.double().square().clamp(max=1 - 1e-15)
    sizes = (8 * f + 1) / (8 * f + 3) * (-f * torch.log1p(-squares)).sqrt()
    return Finding(family, name, r * math.sqrt(n), p, where, scores=values.double().sign() * sizes)


def of_square(family: str, name: str, value: float, freedom: float) -> Finding:
    """Return the finding of a χ² that is too large."""
    return Finding(family, name, value, float(stats.chi2.sf(value, freedom)))


def of_variance(family: str, name: str, squares: Tensor, freedom: int, label: str) -> Finding:
    """Return the finding of sums of squares that should each be χ², too large or too small.

    The statistic is the relative error of the variance in its standard deviations.
    """
    flat = squares.double().flatten()
    # the tails are monotonic, so that the largest and the smallest decide
    high, low = int(flat.argmax()), int(flat.argmin())
    upper = float(2 * stats.chi2.sf(float(flat[high]), freedom))
    lower = float(2 * stats.chi2.cdf(float(flat[low]), freedom))
    k = high if upper <= lower else low
    where = f"{label} {k}" if len(flat) > 1 and label else ""
    value = (float(flat[k]) / freedom - 1) * math.sqrt(freedom / 2)
    # Wilson and Hilferty: as normals, also where p-values are 0
    cube = 2 / (9 * freedom)
    scores = ((squares.double() / freedom).pow(1 / 3) - (1 - cube)) / math.sqrt(cube)
    p_value = of_smallest(min(1.0, upper, lower), len(flat))
    return Finding(family, name, value, p_value, where, scores=scores, label=label)


def of_smallest(p: float, count: float) -> float:
    """Return the chance that the smallest of so many uniform p-values is p or less.

    >>> round(of_smallest(0.01, 2), 4)
    0.0199
    """
    if p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    return -math.expm1(count * math.log1p(-p))


def of_family(findings: Sequence[Finding]) -> Finding:
    """Return the finding of a family that is least likely, with the p-value of the family."""
    least = min(findings, key=lambda f: f.p_value)
    p = combined([finding.p_value for finding in findings])
    return replace(least, p_value=p)


def combined(p_values: Sequence[float]) -> float:
    """Return the p-value of several that may depend on each other, by Cauchy's distribution.

    tan((½ − p)π) of a uniform p has Cauchy's law, and so has the mean of several, independent or
    all the same; of others its tail is that of Cauchy's law, whatever the dependence. A p-value
    near 1, which may come of a bound, is taken as 0.99, so that it undoes nothing.

    Reference:
        Liu and Xie 2020, JASA 115, 393, eq. (1) and theorem 1.

    >>> round(combined([1e-8, 0.5, 0.5, 0.5]) * 1e8, 6)
    4.0
    """
    if min(p_values, default=1.0) < 1e-15:  # tan has no digits left: 1/p is its limit
        inverse = sum(1 / max(p, 1e-300) for p in p_values)
        return len(p_values) / inverse if min(p_values) > 0 else 0.0
    total = sum(math.tan((0.5 - min(p, 0.99)) * math.pi) for p in p_values)
    mean = total / max(1, len(p_values))
    return math.atan2(1.0, mean) / math.pi  # ½ − atan(mean)/π, with all digits in its tail


def families_of(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Return findings by family, in order."""
    families: dict[str, list[Finding]] = {}
    for finding in findings:
        families.setdefault(finding.family, []).append(finding)
    return families
