"""The expansion of an average in the step, from averages at h, h/2 and h/4.

Of a method of weak order p the bias of an average A(h) is a power series, whose first two terms
follow from the two differences of three levels:

    A(sh) − A(0) = α sᵖ + β sᵖ⁺¹ + γ sᵖ⁺² + …
    D₁ = A(h) − A(h/2) = α (1 − a) + β (1 − b) + …            a = 2⁻ᵖ, b = a/2, c = a/4
    D₂ = A(h/2) − A(h/4) = α a (1 − a) + β b (1 − b) + …

    α = (D₂ − b D₁)/((1 − a)(a − b)),      β = (a D₁ − D₂)/((1 − b)(a − b))

For p = 1 the bias at h is ⅔ D₁ + 8⁄3 D₂: it takes little more than the differences themselves.

**What is left.** The term γ moves α and β, and what remains of it at sh is

    T(s) γ,    T(s) = (1 − c)/(a − b) [(c − b)/(1 − a) sᵖ + (a − c)/(1 − b) sᵖ⁺¹] − sᵖ⁺²

with T(1) = −⅛ for p = 1 and −0.018 for p = 2. γ is not measured. Where the terms fall it is at
most as large as β, and where β is the larger of the two it is taken to grow as they do:
|γ| ≤ |β| max(1, |β/α|).

**A lower order.** Where differences fall by less than the order says, D₂/D₁ > 2⁻ᵖ, two
explanations fit three levels: a second term of the other sign, and an order that is lower than the
declared one, as at some boundaries or for a drift that is not smooth. By the second the bias is
that of a geometric series,

    A(sh) − A(0) = (D₁ + D₂/(1 − r)) s^q,        r = D₂/D₁ = 2^{−q},  q ≥ ½

(Aitken's extrapolation). Neither answer is better than the other, and the error reaches beyond
the second by half of their distance.

Reference:
    Talay and Tubaro 1990, Stoch. Anal. Appl. 8, 483, theorem 1, for the expansion at a time;
    Talay 1990, Stochastics 29, 13, for averages at rest; Aitken 1926, Proc. R. Soc. Edinburgh 46,
    289, for the geometric series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

_LOWEST_ORDER = 0.5
_RESOLVED = 2.0  # standard errors from which a difference says something of the order
_SURE, _MUCH = 4.0, 0.1  # standard errors, and part of the bias, from which an order is doubted
_BEYOND = 1.5  # of the distance of two answers
_STEEPEST = 4.0  # β/α beyond which nothing is concluded from it


@dataclass(frozen=True)
class Expansion:
    """Differences of averages between three levels, and the bias that follows.

    Attributes:
        order: p, the weak order that the solver declares.
        mean: (D₁, D₂), shape (2, k), float64.
        covariance: Of these two means, shape (2, 2, k).
        quantile: Standard errors on either side of the mean that hold it as often as was asked.
    """

    order: float
    mean: Tensor
    covariance: Tensor
    quantile: float

    @property
    def coefficients(self) -> tuple[Tensor, Tensor]:
        """α and β, each of shape (k,)."""
        first, second = self.mean
        return _solved(self.order, first, second)

    def value(self, s: float) -> Tensor:
        """Return the bias at the step sh, shape (k,)."""
        first, second = self._weights(s)
        return self.mean[0] * first + self.mean[1] * second

    def standard_error(self, s: float) -> Tensor:
        """Return the standard error of the bias at sh, from sampling alone, shape (k,)."""
        first, second = self._weights(s)
        (a, b), (_, c) = self.covariance
        variance = a * first**2 + 2 * b * (first * second) + c * second**2
        error: Tensor = variance.clamp(min=0).sqrt()
        return error

    def remainder(self, s: float) -> Tensor:
        """Return how far the two terms may be off at sh, by the terms after them, shape (k,)."""
        alpha, beta = (term.abs() for term in self.coefficients)
        growth = (beta / alpha.clamp(min=1e-300)).clamp(1.0, _STEEPEST)
        terms = abs(_left(self.order, s)) * beta * growth
        apart = _BEYOND * (self._geometric(s) - self.value(s)).abs()
        return torch.maximum(terms, torch.where(self.falls_slowly, apart, 0.0))

    def error(self, s: float) -> Tensor:
        """Return the half width of the interval at sh, shape (k,)."""
        return self.quantile * self.standard_error(s) + self.remainder(s)

    @property
    def falls_slowly(self) -> Tensor:
        """Whether the differences fall more slowly than the order says, shape (k,)."""
        errors = self.covariance.diagonal().T.clamp(min=0).sqrt()
        resolved = (self.mean.abs() > _RESOLVED * errors).all(0)
        slowly: Tensor = resolved & (self._ratio > 2.0**-self.order)
        return slowly

    @property
    def is_doubtful(self) -> Tensor:
        """Whether they surely do, and the bias is uncertain by more than a tenth, shape (k,)."""
        a = 2.0**-self.order
        (first, both), (_, second) = self.covariance
        error = (second - 2 * a * both + a**2 * first).clamp(min=0).sqrt()
        sure = (self.mean[1] - a * self.mean[0]).abs() > _SURE * error
        unsure = self.remainder(1.0) > _MUCH * self.value(1.0).abs()
        doubtful: Tensor = self.falls_slowly & sure & unsure
        return doubtful

    @property
    def shown_order(self) -> Tensor:
        """q by which the differences fall, 2^{−q} = D₂/D₁, at least ½, shape (k,)."""
        slowest = 2.0**-_LOWEST_ORDER
        return -self._ratio.clamp(2.0 ** -(self.order + 2), slowest).log2()

    @property
    def _ratio(self) -> Tensor:
        """D₂/D₁; 0 where D₁ is."""
        first, second = self.mean
        return torch.where(first != 0, second / torch.where(first != 0, first, 1.0), 0.0)

    def _weights(self, s: float) -> tuple[float, float]:
        """Return what D₁ and D₂ are multiplied by."""
        one, none = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        alpha, beta = _solved(self.order, one, none)
        first, second = (alpha * s**self.order + beta * s ** (self.order + 1)).tolist()
        return first, second

    def _geometric(self, s: float) -> Tensor:
        """Return the bias at sh if the differences go on falling as they do."""
        q = self.shown_order
        return (self.mean[0] + self.mean[1] / (1 - torch.exp2(-q))) * torch.exp(q * math.log(s))


def _solved(p: float, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return α and β of two differences."""
    a, b = 2.0**-p, 2.0 ** -(p + 1)
    alpha = (second - b * first) / ((1 - a) * (a - b))
    beta = (a * first - second) / ((1 - b) * (a - b))
    return alpha, beta


def _left(p: float, s: float) -> float:
    """Return T(s), what remains of sᵖ⁺².

    >>> round(_left(1.0, 1.0), 10), round(_left(2.0, 1.0), 4)
    (-0.125, -0.0179)
    """
    c = 2.0 ** -(p + 2)
    first = torch.tensor(1 - c, dtype=torch.float64)
    alpha, beta = _solved(p, first, c * first)
    left: float = float(alpha) * s**p + float(beta) * s ** (p + 1) - s ** (p + 2)
    return left


def student(confidence: float, count: int) -> float:
    """Return the quantile of Student's law for a mean of so many; infinite for one."""
    return float(special.stdtrit(count - 1, 0.5 + 0.5 * confidence)) if count > 1 else math.inf
