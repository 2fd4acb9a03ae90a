"""Sums of a functional over an ensemble: moments up to the fourth, counts, and ⟨e^{−A/T}⟩.

Central sums M_p = Σ (A − Ā)^p of two sets a and b merge by the difference δ of their means,

    M₂ = M₂a + M₂b + δ² n_a n_b/n
    M₃ = M₃a + M₃b + δ³ n_a n_b (n_a − n_b)/n² + 3δ (n_a M₂b − n_b M₂a)/n
    M₄ = M₄a + M₄b + δ⁴ n_a n_b (n_a² − n_a n_b + n_b²)/n³
         + 6δ² (n_a² M₂b + n_b² M₂a)/n² + 4δ (n_a M₃b − n_b M₃a)/n

and give the standard error of a variance, Var s² = (μ₄ − s⁴ (n − 3)/(n − 1))/n, of values of any
law. Averages of e^{−A/T} are kept relative to the largest term, so that none overflows.

Reference:
    Pébay 2008, Sandia report SAND2008-6212, eqs. (1.5) to (1.7), for the merges.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.central_sums import merged_sums
from sdegen.core.errors import AccuracyWarning
from sdegen.core.requests import first_true
from sdegen.core.shown import Labelled
from sdegen.observables.base import Partial, pooled
from sdegen.observables.histogram import HistogramCounts


@dataclass(frozen=True, eq=False)
class FunctionalEstimate(Labelled):
    """What an ensemble tells of a functional A at each time.

    Args:
        times: Shape (T,).
        count: Trajectories.
        mean: ⟨A⟩, shape (T, *value); a value has shape () unless the functional says otherwise.
        variance: Unbiased, shape (T, *value).
        variance_error: Its standard error, for values of any law, shape (T, *value).
        histogram: Counts in bins, with errors; None if not asked for.
        temperature: T of what follows; None if not asked for.
        log_exponential: log ⟨e^{−A/T}⟩, shape (T,); None if not asked for.
        log_exponential_error: Its standard error, shape (T,).
        effective: (Σ w)²/Σ w² of the weights w = e^{−A/T}, shape (T,): as many trajectories of
            equal weight would tell as much. Where it is below 100, few trajectories carry the
            average, and neither it nor its error is to be trusted.
    """

    times: Float[Tensor, " T"]
    count: int
    mean: Float[Tensor, "T *value"]
    variance: Float[Tensor, "T *value"]
    variance_error: Float[Tensor, "T *value"]
    histogram: HistogramCounts | None = None
    temperature: float | None = None
    log_exponential: Float[Tensor, " T"] | None = None
    log_exponential_error: Float[Tensor, " T"] | None = None
    effective: Float[Tensor, " T"] | None = None

    @property
    def mean_error(self) -> Float[Tensor, "T *value"]:
        """Standard error of the mean, √(variance/n)."""
        return (self.variance / self.count).sqrt()

    @property
    def exponential(self) -> Float[Tensor, " T"]:
        """⟨e^{−A/T}⟩."""
        return self._asked(self.log_exponential).exp()

    @property
    def exponential_error(self) -> Float[Tensor, " T"]:
        """Standard error of ⟨e^{−A/T}⟩."""
        return self.exponential * self._asked(self.log_exponential_error)

    def _asked(self, values: Tensor | None) -> Tensor:
        """Return what was asked for; refuse what was not."""
        if values is None:
            raise ValueError("⟨e^{−A/T}⟩ was not gathered; pass temperature=T to the functional.")
        return values


class ValueSums:
    """What a block tells of the values of its trajectories.

    Args:
        name: What the functional is called.
        histogram: (low, high, bins), or None.
        temperature: T, or None.
    """

    def __init__(
        self, name: str, histogram: tuple[float, float, int] | None, temperature: float | None
    ) -> None:
        self._name, self._histogram, self._temperature = name, histogram, temperature

    def of(self, value: Tensor) -> Partial:
        """Return the partial of values, shape (rows, *value), at one time."""
        rows, mean = len(value), value.mean(0)
        gap = value - mean
        square = gap * gap
        sums = {
            "n": torch.tensor(rows, dtype=torch.float64),
            "mean": mean,
            "second": square.sum(0),
            "third": (square * gap).sum(0),
            "fourth": (square * square).sum(0),
        }
        if self._histogram is not None:
            low, high, bins = self._histogram
            place = (self._single(value, "histogram") - low).mul_(bins / (high - low))
            place = place.nan_to_num_(nan=-1.0).clamp_(-1, bins).add_(1).int()
            sums["counts"] = torch.bincount(place, minlength=bins + 2)
        if self._temperature is not None:
            exponent = -self._single(value, "temperature") / self._temperature
            top = exponent.amax()
            weight = (exponent - top).exp()
            sums |= {"top": top, "weight": weight.sum(), "weight2": weight.square().sum()}
        return sums

    def _single(self, value: Tensor, what: str) -> Tensor:
        """Return values of one number each, shape (rows,)."""
        if value[0].numel() != 1:
            raise ValueError(
                f"{what}= is of functionals of one number, but {self._name!r} has values of shape "
                f"{tuple(value.shape[1:])}; leave it out, or take one number at a time."
            )
        return value.reshape(-1).clone()

    @staticmethod
    def merged(left: Partial, right: Partial) -> Partial:
        """Return the partial of two sets of trajectories together, all times at once."""
        a, b = dict(left), dict(right)
        na, nb = _like(a["n"], a["mean"]), _like(b["n"], b["mean"])
        merged, gap, _ = pooled(a | {"n": na}, b | {"n": nb})
        merged["n"] = a["n"] + b["n"]
        sums = [(one["second"], one["third"], one["fourth"]) for one in (a, b)]
        second, third, fourth = merged_sums(na, nb, gap, *sums)
        merged |= {"second": second, "third": third, "fourth": fourth}
        if "counts" in a:
            merged["counts"] = a["counts"] + b["counts"]
        if "top" in a:
            top = torch.maximum(a["top"], b["top"])
            scales = [(one["top"] - top).exp() for one in (a, b)]
            merged["top"] = top
            merged["weight"] = a["weight"] * scales[0] + b["weight"] * scales[1]
            merged["weight2"] = a["weight2"] * scales[0] ** 2 + b["weight2"] * scales[1] ** 2
        return merged

    def estimate(self, total: Partial, times: Tensor) -> FunctionalEstimate:
        """Return what all trajectories tell.

        Warns (AccuracyWarning) if a value is not finite, with the time from which on.
        """
        bad = first_true(~total["mean"].reshape(len(times), -1).isfinite().all(1))
        if bad is not None:
            warnings.warn(
                f"{self._name} is not finite from t = {float(times[bad]):g} on: look at what its "
                "function, potential or protocol returns there, and at the states.",
                AccuracyWarning,
                stacklevel=2,
            )
        n = int(total["n"][0])
        less = n - 1 if n > 1 else float("nan")
        variance, fourth = total["second"] / less, total["fourth"] / n
        spread = fourth - variance.square() * ((n - 3) / less)
        counts = total.get("counts")
        histogram = None
        if counts is not None and self._histogram is not None:
            low, high, bins = self._histogram
            edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
            histogram = HistogramCounts(times, edges, counts[:, 1:-1], counts[:, 0], counts[:, -1])
        log = error = effective = None
        if self._temperature is not None:
            log = total["top"] + (total["weight"] / n).log()
            effective = total["weight"].square() / total["weight2"]
            error = ((n / effective - 1).clamp(min=0) / less).sqrt()
        return FunctionalEstimate(
            times=times,
            count=n,
            mean=total["mean"],
            variance=variance,
            variance_error=(spread.clamp(min=0) / n).sqrt(),
            histogram=histogram,
            temperature=self._temperature,
            log_exponential=log,
            log_exponential_error=error,
            effective=effective,
        )


def _like(n: Tensor, mean: Tensor) -> Tensor:
    """Return counts at each time, shape (T,), with the axes of means, shape (T, *value)."""
    return n.reshape(-1, *(1,) * (mean.ndim - 1))
