"""Time averages of a series and their errors, from how long its states remember each other.

    ȳ = Σ y/N,      Var(ȳ) = (2 τ_int/Δ) γ_0/N,      ȳ ± t_ν √Var(ȳ),      ν = N/(2M + 1)

Naive errors √(γ_0/N) of correlated states are too small by √(2 τ_int/Δ). Here τ_int comes from the
series itself (`sdegen.measurements.autocorrelation`), with window M: a variance that is known from
so many pieces of 2M + 1 states has ν degrees of freedom, and Student's t the right quantile. Of R
trajectories the means are R independent numbers, which tell the error too, with R − 1 degrees of
freedom. Where they scatter by more than the correlations within trajectories say (Fisher's F at a
level of 1e-4), or where a trajectory is too short for a window, the error is theirs.

A variance or covariance is the average of (y_i − ȳ_i)(y_j − ȳ_j), a series of its own with a
correlation time of its own (τ/2 for a Gaussian process with e^{−t/τ}), and its error comes from
there: from fourth moments, with no word of Gaussians. The mean is one of the same series, so that
a factor is put back,

    C_ij = Σ (y_i − ȳ_i)(y_j − ȳ_j)/N · 1/(1 − (τ_i + τ_j)/(N Δ))

which is exact where i = j. Intervals of a variance are symmetric in its logarithm. Of 1,000
Gaussian series with τ = 50 of 20,000 states, intervals of 95 % held the mean 955 times and the
variance 949 times (`benchmarks/error_bars.py`); with 100 correlation times in place of 400 it is
957 and 918 times.

Reference:
    Sokal 1997, in Functional Integration (Plenum), pp. 131–192, sec. 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy import special
from torch import Tensor

from sdegen.core.errors import AccuracyWarning
from sdegen.core.shapes import Times
from sdegen.core.shown import Labelled
from sdegen.measurements.autocorrelation import (
    LongRun,
    check_confidence,
    check_found,
    long_run,
    warn_short,
)
from sdegen.measurements.series import Series, SeriesLike, series_of

_APART = 1e-4  # the chance of trajectories of one law to be told apart
_WIDEST = 64  # components of which all covariances are asked


@dataclass(frozen=True, eq=False)
class TimeAverage(Labelled):
    """An average of a correlated series, for each quantity of an event.

    Args:
        mean: ȳ, shape (*event).
        standard_error: Its standard error, shape (*event).
        degrees_of_freedom: How well that is known: those of Student's t, shape (*event).
        tau: The τ_int that the error stands for, in units of the times, or of states.
        effective_samples: N Δ/(2 τ_int), shape (*event).
        by_trajectories: Whether the error is that of the means of trajectories, shape (*event).
        count: States of all trajectories, N.
        trajectories: How many trajectories there are.
    """

    mean: Tensor
    standard_error: Tensor
    degrees_of_freedom: Tensor
    tau: Tensor
    effective_samples: Tensor
    by_trajectories: Tensor
    count: int
    trajectories: int

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the ends of the interval that holds the true average with a confidence."""
        return student_interval(
            self.mean, self.standard_error, self.degrees_of_freedom, confidence
        )


@dataclass(frozen=True, eq=False)
class TimeCovariance(Labelled):
    """Variances and covariances of a correlated series; d numbers of a flattened event.

    Args:
        mean: Shape (*event).
        covariance: Shape (d, d).
        standard_error: Of each covariance, shape (d, d).
        degrees_of_freedom: Those of Student's t, shape (d, d).
    """

    mean: Tensor
    covariance: Tensor
    standard_error: Tensor
    degrees_of_freedom: Tensor

    @property
    def variance(self) -> Tensor:
        """The variances, shape (*event)."""
        return self.covariance.diagonal().reshape(self.mean.shape)

    @property
    def variance_error(self) -> Tensor:
        """Their standard errors, shape (*event)."""
        return self.standard_error.diagonal().reshape(self.mean.shape)

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the ends of the intervals that hold each true covariance with a confidence.

        Those of variances are symmetric in log C: a variance that came out small has a small
        error too.
        """
        low, high = student_interval(
            self.covariance, self.standard_error, self.degrees_of_freedom, confidence
        )
        variance = self.covariance.diagonal()
        factor = torch.exp((high.diagonal() - variance) / variance)
        low.diagonal().copy_(variance / factor)
        high.diagonal().copy_(variance * factor)
        return low, high


def time_average(
    series: SeriesLike,
    function: Callable[[Tensor], Tensor] | None = None,
    *,
    times: Times | None = None,
) -> TimeAverage:
    """Return the average of a series, or of a function of its states, with its error.

        ȳ = Σ y/N,     Var(ȳ) = (2 τ_int/Δ) γ_0/N

    Args:
        series: Shape (T,), or (T, batch, *event), or a `Trajectory`; at rest.
        function: f(x) of states, shape (batch, *event), with a row for each; None: the states.
        times: Times of an array, evenly spaced, shape (T,).

    Raises:
        TypeError: If the series is no series of real numbers.
        ValueError: If it is not finite, constant or unevenly spaced; if one trajectory is too
            short, or alternates.

    Warns:
        AccuracyWarning: If it holds fewer than 50 correlation times, or if its trajectories differ
            by more than they fluctuate.

    Example:
        >>> x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
        >>> low, high = sg.time_average(x).interval()
        >>> bool(low < 0 < high)
        True
    """
    numbers = series_of(series, function, times)
    average, shaped = _average(numbers), numbers.shaped
    return replace(
        average,
        mean=shaped(average.mean),
        standard_error=shaped(average.standard_error),
        degrees_of_freedom=shaped(average.degrees_of_freedom),
        tau=shaped(average.tau),
        effective_samples=shaped(average.effective_samples),
        by_trajectories=shaped(average.by_trajectories),
    )


def time_covariance(
    series: SeriesLike,
    function: Callable[[Tensor], Tensor] | None = None,
    *,
    times: Times | None = None,
) -> TimeCovariance:
    """Return variances and covariances of a series, or of a function of its states, with errors.

        C_ij = Σ (y_i − ȳ_i)(y_j − ȳ_j)/N · 1/(1 − (τ_i + τ_j)/(N Δ))

    Args:
        series: Shape (T,), or (T, batch, *event), or a `Trajectory`; at rest.
        function: f(x) of states, shape (batch, *event), with a row for each; None: the states.
        times: Times of an array, evenly spaced, shape (T,).

    Raises:
        TypeError: If the series is no series of real numbers.
        ValueError: As for `time_average`; if there are more than 64 components.

    Warns:
        AccuracyWarning: As for `time_average`.

    Example:
        >>> z = torch.randn(8192, 1, 2, generator=torch.Generator().manual_seed(0))
        >>> y = torch.stack([z[..., 0], z[..., 0] + z[..., 1]], -1)
        >>> found = sg.time_covariance(y)
        >>> found.covariance.round(decimals=1)
        tensor([[1., 1.],
                [1., 2.]], dtype=torch.float64)
    """
    numbers = series_of(series, function, times)
    d = len(numbers.values)
    if d > _WIDEST:
        raise ValueError(
            f"the covariances of {d} components are {d * d} series; take at most {_WIDEST} of "
            "them, as in function=lambda x: x[:, :3]."
        )
    i, j = torch.triu_indices(d, d)
    y = numbers.fluctuations()
    memory = _resolved(numbers).tau
    products = Series(y[i] * y[j], (len(i),), numbers.spacing)
    average = _average(products)
    factor = 1 / (1 - (memory[i] + memory[j]) / numbers.count)

    def matrix(values: Tensor) -> Tensor:
        full = torch.zeros(d, d, dtype=torch.float64, device=values.device)
        full[i, j] = full[j, i] = values
        return full

    return TimeCovariance(
        mean=numbers.shaped(numbers.mean),
        covariance=matrix(average.mean * factor),
        standard_error=matrix(average.standard_error * factor),
        degrees_of_freedom=matrix(average.degrees_of_freedom),
    )


def _average(series: Series) -> TimeAverage:
    """Return the average of each quantity, shapes (quantities,)."""
    found = _resolved(series)
    warn_short(series, found, stacklevel=4)  # of the caller's caller
    count, rows = series.count, series.trajectories
    mean, means = series.mean, series.means
    error = found.std * (2 * found.tau / count).sqrt()
    freedom = count / found.width
    between = torch.zeros_like(error, dtype=torch.bool)
    if rows > 1:
        spread = means.std(1) / rows**0.5
        ratio = ((spread / error) ** 2).cpu().numpy()
        chance = special.fdtrc(rows - 1, freedom.cpu().numpy(), ratio)
        endless = found.width == 0
        apart = torch.from_numpy(chance).to(error) < _APART / len(error)
        _warn_apart(apart & ~endless, spread / error)
        between = apart | endless
        error = torch.where(between, spread, error)
        freedom = torch.where(between, float(rows - 1), freedom)
    tau = (error / found.std).square() * count / 2
    return TimeAverage(
        mean=mean,
        standard_error=error,
        degrees_of_freedom=freedom,
        tau=tau * series.spacing,
        effective_samples=count / (2 * tau),
        by_trajectories=between,
        count=count,
        trajectories=rows,
    )


def _resolved(series: Series) -> LongRun:
    """Return spread and correlation time of each quantity.

    Where a trajectory is too short for a window, several say by their means how long it is; the
    width is then 0.
    """
    found = long_run(series)
    unknown = ~(found.tau > 0)
    if series.trajectories > 1 and bool(unknown.any()):
        spread = (series.means.std(1) / found.std).square() * series.length / 2
        found = LongRun(
            found.std,
            torch.where(unknown, spread, found.tau),
            torch.where(unknown, 0.0, found.width),
        )
    check_found(series, found)
    return found


def _warn_apart(apart: Tensor, ratio: Tensor) -> None:
    """Warn of trajectories whose means differ by more than they fluctuate."""
    if bool(apart.any()):
        q = int(apart.nonzero()[0])
        text = (
            f"the means of the trajectories scatter {float(ratio[q]):.3g} times as far as "
            f"fluctuations within them tell (quantity {q}): they have not been everywhere, or are "
            "not at rest. The error is that of their scatter; run them longer, or leave the "
            "relaxation out, as in series[k:]."
        )
        warnings.warn(text, AccuracyWarning, stacklevel=4)


def student_interval(
    mean: Tensor, error: Tensor, freedom: Tensor, confidence: float
) -> tuple[Tensor, Tensor]:
    """Return mean ± t_ν · error, with P(|t| < t_ν) = confidence for ν degrees of freedom."""
    level = 0.5 + check_confidence(confidence) / 2
    quantile = special.stdtrit(freedom.cpu().numpy(), level)
    half = error * torch.as_tensor(quantile).to(error)
    return mean - half, mean + half
