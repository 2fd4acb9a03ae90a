"""The integrated autocorrelation time of a series, and its error.

Of a series of n states of each of R trajectories, N = n R, at rest, with autocovariance γ_k and
ρ_k = γ_k/γ_0, Sokal's integrated autocorrelation time is

    τ_int = Δ (½ + Σ_{k≥1} ρ_k),        Var(ȳ) = (2 τ_int/Δ) γ_0/N

N Δ/(2 τ_int) is the number of independent states that know the mean as well. A correlation
e^{−kΔ/τ} gives τ_int = (Δ/2) coth(Δ/2τ) = τ (1 + (Δ/τ)²/12 − …), so that it is the exponential τ
where states are recorded often. (The other convention, 1 + 2 Σ ρ_k, is 2 τ_int/Δ.)

Covariances are taken about the mean over all trajectories, which therefore tells too if these
differ from each other by more than their own fluctuations; a transform of Fourier makes them,
γ_k = Σ y_t y_{t+k}/(n − k). The sum over all k would be noise: it ends at the window M, the
smallest with M ≥ c τ_int(M)/Δ, c = 5, which leaves out e^{−5} of an exponential. A correlation
that oscillates is cut in its first swing, and its τ_int comes out rather too large than too small.
Its error is that of Madras and Sokal, in Wolff's form, which white noise obeys exactly, and the
mean, which was estimated too, costs a factor that is put back:

    std τ_int = τ_int √(2(2M + 1 − 2τ_int/Δ)/N),        τ_int ← τ_int (1 + (2M + 1)/N)

Of 1,000 series of 20,000 states with τ = 50, intervals of 95 % held τ 980 times, and of 2,500
states 962 times (`benchmarks/error_bars.py`).

Reference:
    Sokal 1997, in Functional Integration (Plenum), pp. 131–192, sec. 3; Madras and Sokal 1988,
    J. Stat. Phys. 50, 109, eq. (C.19), and Wolff 2004, Comput. Phys. Commun. 156, 143,
    arXiv:hep-lat/0306017, eq. (42), for the error; eq. (49) for the factor.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from scipy.special import ndtri
from torch import Tensor

from sdegen.core.checks import check_number
from sdegen.core.errors import AccuracyWarning
from sdegen.core.shapes import Times
from sdegen.core.shown import Labelled
from sdegen.measurements.series import AT_ONCE, Series, SeriesLike, series_of

_WINDOW = 5.0  # c
_ENOUGH = 50  # correlation times, of all trajectories together, from which an error is known


@dataclass(frozen=True, eq=False)
class AutocorrelationTime(Labelled):
    """An integrated autocorrelation time, for each quantity of an event.

    Args:
        tau: τ_int, in units of the times, or of states where none were given, shape (*event).
        error: Its standard error, shape (*event).
        window: States that correlations were summed over, M, shape (*event).
        effective_samples: N Δ/(2 τ_int), shape (*event).
        count: States of all trajectories, N.
        spacing: Time from one state to the next, Δ.
    """

    tau: Tensor
    error: Tensor
    window: Tensor
    effective_samples: Tensor
    count: int
    spacing: float

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the interval that holds τ_int with a confidence, symmetric in log τ.

        Args:
            confidence: 0.95 for 95 %.
        """
        factor = torch.exp(normal_quantile(confidence) * self.error / self.tau)
        return self.tau / factor, self.tau * factor


@dataclass(frozen=True)
class LongRun:
    """What the correlations of a series say of its mean, for each quantity.

    Attributes:
        std: √γ_0, shape (quantities,).
        tau: τ_int/Δ; NaN where no window was found.
        width: 2M + 1, states that hang together; float64.
    """

    std: Tensor
    tau: Tensor
    width: Tensor


def integrated_autocorrelation_time(
    series: SeriesLike, *, times: Times | None = None
) -> AutocorrelationTime:
    """Return τ_int = Δ (½ + Σ ρ_k) of a series, with its error.

    Args:
        series: Shape (T,), or (T, batch, *event), or a `Trajectory`; at rest.
        times: Times of an array, evenly spaced, shape (T,); τ_int is in states without.

    Raises:
        TypeError: If the series is no series of real numbers.
        ValueError: If it is not finite, constant, unevenly spaced, or so short that correlations
            have not decayed within half of it; if it alternates.

    Warns:
        AccuracyWarning: If it holds fewer than 50 correlation times.

    Example:
        >>> x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
        >>> round(float(sg.integrated_autocorrelation_time(x).tau), 1)
        0.5
    """
    numbers = series_of(series, times=times)
    found = long_run(numbers)
    check_found(numbers, found)
    warn_short(numbers, found)
    shaped, count = numbers.shaped, numbers.count
    relative = (2 * (found.width - 2 * found.tau) / count).sqrt()
    return AutocorrelationTime(
        tau=shaped(found.tau * numbers.spacing),
        error=shaped(found.tau * relative * numbers.spacing),
        window=shaped(found.width.long() // 2),
        effective_samples=shaped(count / (2 * found.tau)),
        count=count,
        spacing=numbers.spacing,
    )


def long_run(series: Series) -> LongRun:
    """Return spread, correlation time and window of each quantity."""
    parts = [_long_run(series.fluctuations(part)) for part in series.parts()]
    return LongRun(
        torch.cat([part.std for part in parts]),
        torch.cat([part.tau for part in parts]),
        torch.cat([part.width for part in parts]),
    )


def _long_run(y: Tensor) -> LongRun:
    """Return those of fluctuations, shape (quantities, batch, T)."""
    _, rows, n = y.shape
    scale = y.abs().amax((1, 2))  # neither large nor small units over- or underflow
    gamma = autocovariances(y / scale[:, None, None])
    tau = (gamma / gamma[:, :1]).cumsum(1) - 0.5
    windows = torch.arange(tau.shape[1], device=y.device)
    # of a series that alternates a few states are summed too
    enough = windows >= _WINDOW * tau.clamp(min=0.5)
    window = enough.to(torch.uint8).argmax(1)
    ended = enough.any(1)
    found = tau.gather(1, window[:, None])[:, 0]
    width = 2 * window.double() + 1
    found = found * (1 + width / (n * rows))
    found = torch.where(ended, found, math.nan)
    return LongRun(gamma[:, 0].sqrt() * scale, found, width)


def autocovariances(y: Tensor) -> Tensor:
    """Return Σ y_t y_{t+k}/((n − k) R) of fluctuations y, for k up to n/2.

    Args:
        y: Shape (quantities, batch, T).

    Returns:
        Shape (quantities, T/2 + 1).
    """
    _, rows, n = y.shape
    lags = torch.arange(n // 2 + 1, device=y.device)
    size = 2 ** (n + n // 2).bit_length()  # zeros, so that the end does not meet the start
    power = torch.zeros(len(y), size // 2 + 1, dtype=torch.float64, device=y.device)
    step = max(1, AT_ONCE // (n * len(y)))
    for first in range(0, rows, step):
        transformed = torch.fft.rfft(y[:, first : first + step], size)
        power += (transformed.real.square() + transformed.imag.square()).sum(1)
    gamma: Tensor = torch.fft.irfft(power, size)[:, : len(lags)] / ((n - lags) * rows)
    return gamma


def check_found(series: Series, found: LongRun) -> None:
    """Refuse a correlation that does not decay within the series, or that alternates."""
    endless, negative = found.tau.isnan(), found.tau <= 0
    if bool(endless.any()):
        raise ValueError(
            f"the correlations of a series of {series.length} times have not decayed within half "
            f"of it (quantity {int(endless.nonzero()[0])}): its correlation time is not known "
            "from it; run it longer."
        )
    if bool(negative.any()):
        q = int(negative.nonzero()[0])
        raise ValueError(
            f"the correlations of a series sum up to {float(found.tau[q]):.2g} (quantity {q}), "
            "below 0, as it alternates; take block_average(series), which needs no sum."
        )


def warn_short(series: Series, found: LongRun, stacklevel: int = 3) -> None:
    """Warn of a series of so few correlation times that its errors are hardly known."""
    length = float((series.count / found.tau).nan_to_num(nan=math.inf).min())
    if length < _ENOUGH:
        text = (
            f"the series holds {length:.3g} correlation times, and errors are hardly known from "
            f"fewer than {_ENOUGH}: run it {_ENOUGH / length:.1f} times as long, or take more "
            "trajectories."
        )
        warnings.warn(text, AccuracyWarning, stacklevel=stacklevel)


def normal_quantile(confidence: float) -> float:
    """Return z with P(|Z| < z) = confidence."""
    return float(ndtri(0.5 + check_confidence(confidence) / 2))


def check_confidence(confidence: float) -> float:
    """Return a confidence; refuse what is none.

    Raises:
        TypeError: If it is no number.
        ValueError: If it does not lie between 0 and 1.
    """
    check_number("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence must lie between 0 and 1, but is {confidence:g}; 95 % is 0.95."
        )
    return float(confidence)
