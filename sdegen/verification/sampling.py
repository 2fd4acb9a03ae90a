"""Samples against the law that they should have: five tests, each with its false-alarm rate.

With F the law's distribution function, u = F(x) of exact samples is uniform on [0, 1].

- Kolmogorov–Smirnov, sup |F_n − F|: the exact law of the statistic for n samples.
- χ² over B equiprobable bins, B = 2 n^{2/5}: sees what is local.
- Neyman's smooth test, n Σ_j (mean of π_j(u))², j = 1 … 4, with π_j the orthonormal Legendre
  polynomials: χ² with 4 degrees of freedom; sees a shift, a spread, a skewness and a tail before
  the others do.
- Wasserstein-1, ∫|F_n − F| dx. √n times it tends to ∫|B(F)| dx of a Brownian bridge B, of mean
  √(2/π) ∫ √(F(1 − F)) dx, which exceeds its mean by r with chance at most e^{−r²/(2 Var X)}: it is
  a Lipschitz function of a Gaussian process, and no signs φ give ∫ φ B(F) dx a larger variance
  than all plus, Var X.
- Total variation over the same B bins, beside what exact samples show on average. One sample moves
  it by 1/n at most, so that it exceeds its mean by r with chance at most e^{−2nr²}.

The first three have uniform p-values on exact samples, the last two p-values that are bounds.

Of a law that is off by a little, the means of π_j(u) are m_j ≠ 0, and Neyman's statistic is a
non-central χ² with n Σ m_j²: so it is known beforehand what n samples show.

Reference:
    Neyman 1937, doi:10.1080/03461238.1937.10404821; Boucheron, Lugosi and Massart 2013,
    Concentration Inequalities, theorems 5.6 and 6.2; Mann and Wald 1942 for B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import optimize, stats
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.fokker_planck.density import Density
from sdegen.metrics import total_variation_floor, wasserstein_1d
from sdegen.verification.check import Check, Verdict

TESTS = 5
_SMOOTH = 4
_POWER = 0.9


def sampling_checks(
    samples: State, law: Density, *, false_alarm: float, time: float | None = None
) -> tuple[Check, ...]:
    """Test samples against a law.

    Args:
        samples: Shape (n, 1), finite, independent.
        law: The density that they should have.
        false_alarm: Chance of each test to fail on exact samples, at most.
        time: What the checks say about when.

    Returns:
        Kolmogorov–Smirnov, χ², Neyman, Wasserstein and total variation, in this order.
    """
    law = law.normalized()
    x = samples.detach().to(law.x)[:, 0]
    n, u = len(x), law.cdf(x).clamp(0, 1)
    bins = max(4, round(2 * n**0.4))
    counts = torch.bincount((u * bins).long().clamp(max=bins - 1), minlength=bins).double()

    squares = float((counts - n / bins).square().sum()) * bins / n
    cdf = law.cdf(law.x).clamp(0, 1)
    mean_w1 = math.sqrt(2 / math.pi / n) * float(torch.trapezoid((cdf * (1 - cdf)).sqrt(), law.x))
    width_w1 = math.sqrt(float(law.variance) / n)
    mean_tv = total_variation_floor(torch.full((bins,), 1 / bins, dtype=torch.float64), n)
    tv, judge = 0.5 * float((counts / n - 1 / bins).abs().sum()), _Judge(false_alarm, time)
    return (
        judge.exact("Kolmogorov-Smirnov", _kolmogorov(u), stats.kstwo, n),
        judge.exact(f"χ² over {bins} bins", squares, stats.chi2, bins - 1),
        judge.exact("Neyman's smooth test", _neyman(u), stats.chi2, _SMOOTH),
        judge.bounded("Wasserstein-1", wasserstein_1d(x[:, None], law), mean_w1, width_w1),
        judge.bounded("total variation", tv, mean_tv, 0.5 / math.sqrt(n)),
    )


@dataclass(frozen=True)
class _Judge:
    """Verdicts on statistics, exact or bounded."""

    false_alarm: float
    time: float | None

    def exact(self, name: str, value: float, law: stats.rv_continuous, n: int) -> Check:
        """Judge a statistic by its exact law, which has one parameter."""
        threshold, p_value = float(law.isf(self.false_alarm, n)), float(law.sf(value, n))
        verdict: Verdict = "passed" if p_value >= self.false_alarm else "failed"
        return Check(name, value, threshold, verdict, self.false_alarm, p_value, time=self.time)

    def bounded(self, name: str, value: float, floor: float, width: float) -> Check:
        """Judge a distance whose excess over floor is r with chance ≤ e^{−r²/(2 width²)}."""
        excess = min(max(value - floor, 0.0) / width, 50.0)  # e^{−1250} is 0 already
        p_value = math.exp(-0.5 * excess**2)
        threshold = floor + width * math.sqrt(2 * math.log(1 / self.false_alarm))
        verdict: Verdict = "passed" if value <= threshold else "failed"
        return Check(name, value, threshold, verdict, self.false_alarm, p_value, floor, self.time)


def survivors_check(
    left: int, total: int, chance: float, false_alarm: float, time: float | None
) -> Check:
    """Test the number of survivors against the mass of the law: exact, binomial.

    Args:
        left: How many are left.
        total: Of how many.
        chance: The mass of the law.
        false_alarm: Chance to fail on exact samples, at most.
        time: What the check says about when.
    """
    chance = min(max(chance, 0.0), 1.0)
    binomial = stats.binom(total, chance)
    p_value = min(1.0, 2 * min(float(binomial.cdf(left)), float(binomial.sf(left - 1))))
    fewest, most = float(binomial.ppf(false_alarm / 2)), float(binomial.isf(false_alarm / 2))
    farthest = max(chance * total - fewest, most - chance * total)
    return Check(
        "share that no wall has absorbed, less the law's",
        abs(left / total - chance),
        farthest / total,
        "passed" if p_value >= false_alarm else "failed",
        false_alarm,
        p_value,
        time=time,
    )


def smallest_seen(law: Density, n: int, *, false_alarm: float) -> tuple[float, float]:
    """Return the smallest error of mean, and relative error of spread, that n samples show.

    Args:
        law: The density that they are tested against.
        n: How many.
        false_alarm: Of Neyman's smooth test.

    Returns:
        The shift in units of x, and the relative change of the standard deviation, that fail the
        test nine times in ten, to first order in them.
    """
    law = law.normalized()
    x, p = law.x, law.p
    y = 2 * law.cdf(x).clamp(0, 1) - 1
    threshold = float(stats.chi2.isf(false_alarm, _SMOOTH))
    distance = optimize.brentq(
        lambda c: float(stats.ncx2.sf(threshold, _SMOOTH, c)) - _POWER, 1e-3, 1e3 + 10 * threshold
    )
    slopes = [torch.ones_like(y), 3 * y, 7.5 * y**2 - 1.5, 17.5 * y**3 - 7.5 * y]  # P_j'

    def size(move: Tensor) -> float:
        """Return √Σ m_j² of the unit deformation x → x + move, dm_j = ∫ π_j'(u) p² move dx."""
        m = [
            math.sqrt(2 * j + 1) * 2 * float(torch.trapezoid(slope * p**2 * move, x))
            for j, slope in enumerate(slopes, 1)
        ]
        return math.hypot(*m)

    reach = math.sqrt(distance / n)
    return reach / size(torch.ones_like(x)), reach / size(x - law.mean)


def _kolmogorov(u: Tensor) -> float:
    """Return sup |F_n(u) − u|."""
    n, ordered = len(u), u.sort().values
    steps = torch.arange(n + 1, dtype=u.dtype) / n
    return float(torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).max())


def _neyman(u: Tensor) -> float:
    """Return n Σ_j (mean of √(2j + 1) P_j(2u − 1))², j = 1 … 4."""
    y, before, now = 2 * u - 1, torch.ones_like(u), 2 * u - 1
    total = 0.0
    for j in range(1, _SMOOTH + 1):
        total += (2 * j + 1) * float(now.mean()) ** 2
        before, now = now, ((2 * j + 1) * y * now - j * before) / (j + 1)
    return len(u) * total
