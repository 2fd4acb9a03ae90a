"""Mean, variance, correlations and the law of innovations."""

from __future__ import annotations

import math

import torch
from scipy import stats
from torch import Tensor

from sdegen.verification.battery.finding import (
    Finding,
    of_correlations,
    of_normals,
    of_square,
    of_variance,
)
from sdegen.verification.innovations.sample import Sample, Totals

_BINS = 64
_MANY = 1000  # numbers from which skewness and kurtosis have the laws that scipy knows
_PAIRED = 512  # coordinates of which all pairs are correlated
_ROWS = 2**23  # numbers that a covariance takes


def moments(totals: Totals) -> list[Finding]:
    """Return mean and variance of all transitions, of each coordinate and together."""
    n, k = totals.count, len(totals.mean)
    family = "mean of the noise"
    means = totals.mean / math.sqrt(n)
    findings = [of_normals(family, "mean", means, "coordinate")]
    if k > 1:
        findings += [
            of_normals(family, "mean of all coordinates", means.sum()[None] / math.sqrt(k)),
            of_square(family, "means of the coordinates", float(means.square().sum()), k),
        ]
    family = "variance of the noise"
    findings.append(of_variance(family, "variance", totals.square, n, "coordinate"))
    if k > 1:
        whole = totals.square.sum()[None]
        findings.append(of_variance(family, "variance of all coordinates", whole, n * k, ""))
    return findings


def correlations(sample: Sample) -> list[Finding]:
    """Return correlations between the innovations of different coordinates at one step."""
    rows = sample.z.flatten(0, 1)
    k = rows.shape[1]
    if k < 2:
        return []
    rows = rows[: max(2, _ROWS // k)]
    if k > _PAIRED:  # of coordinates that are evenly chosen
        rows = rows[:, torch.linspace(0, k - 1, _PAIRED).long()]
        k = _PAIRED
    n = len(rows)
    unit = rows / rows.norm(dim=0).clamp(min=1e-300)
    products = unit.T @ unit
    pairs = torch.triu_indices(k, k, 1)
    values = products[pairs[0], pairs[1]]
    worst = int(values.abs().argmax())
    family = "correlation between coordinates"
    where = f"coordinates {int(pairs[0, worst])}, {int(pairs[1, worst])}" if k > 2 else ""
    findings = [of_correlations(family, "pairs of coordinates", values, n, where)]
    if k > 2:
        sums = rows.sum(1).square().sum()[None] / k
        findings.append(of_variance(family, "sum of all coordinates", sums, n, ""))
    return findings


def normality(sample: Sample) -> list[Finding]:
    """Return whether innovations are normal: in bins, by their moments, and by their length."""
    family = "law of the noise"
    z = sample.z.flatten()
    n = len(z)
    findings = []
    edges = torch.special.ndtri(torch.arange(1, _BINS, dtype=torch.float64) / _BINS)
    counts = torch.bincount(torch.bucketize(z, edges), minlength=_BINS).double()
    if n >= 5 * _BINS:
        square = float((counts - n / _BINS).square().sum() * _BINS / n)
        findings.append(of_square(family, f"shares of {_BINS} bins", square, _BINS - 1))
    if n >= _MANY:
        for name, test in (("skewness", stats.skewtest), ("kurtosis", stats.kurtosistest)):
            found = test(z.numpy())
            value, p = float(found.statistic), float(found.pvalue)
            findings.append(Finding(family, name, value, p))
    largest = float(z.abs().max())
    one = float(2 * stats.norm.sf(largest))
    beyond = 1.0 if one == 0 and largest < 1 else -math.expm1(n * math.log1p(-min(one, 0.5)))
    findings.append(Finding(family, "largest of all", largest, beyond if one > 0 else 0.0))
    k = sample.z.shape[2]
    if k > 1:
        lengths = sample.z.square().sum(2).flatten()
        u = torch.special.gammainc(torch.tensor(k / 2, dtype=torch.float64), lengths / 2)
        findings.append(_smooth(family, "length of the noise of a step", u))
    return findings


def _smooth(family: str, name: str, u: Tensor) -> Finding:
    """Return Neyman's smooth statistic of numbers that should be uniform."""
    t = 2 * u - 1
    n = len(u)
    basis = (
        math.sqrt(3) * t,
        math.sqrt(5) * (3 * t**2 - 1) / 2,
        math.sqrt(7) * (5 * t**3 - 3 * t) / 2,
        3 * (35 * t**4 - 30 * t**2 + 3) / 8,
    )
    square = sum(float(b.sum()) ** 2 / n for b in basis)
    return of_square(family, name, square, len(basis))
