"""Power spectra of trajectories by Welch's method.

A trajectory at times of equal steps dt is cut into segments of L states that overlap; each has its
mean taken off and a window w put on, and the squares of their transforms are averaged:

    S(f) = (2 dt/Σ w²) ⟨|Σ_k w_k x_k e^{−2πi f k dt}|²⟩,      f = j/(L dt), j = 0 … L/2

S is the one-sided density in frequency, in units of x²/Hz where times are in seconds: twice the
two-sided one but at f = 0 and at the highest f = 1/(2 dt), with Σ_j S(f_j)/(L dt) = Var x. In
angular frequency ω = 2πf it is S(ω) = S(f)/2π, in units of x² s. An Ornstein–Uhlenbeck process of
rate k has S(f) = 4 D/(k² + (2πf)²); what lies beyond the highest frequency is folded back.

S is that of one coordinate's fluctuations around the mean of a segment, so that the first
frequencies, within the width of the window, are too low. A process that is not stationary has no
spectrum; an absorbed trajectory stands still, and is refused.

Errors come from the spread between trajectories; the overlap of segments of one trajectory, which
shares numbers between them, is of no matter to that.

Reference:
    Welch 1967, IEEE Transactions on Audio and Electroacoustics 15, 70.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy import signal
from torch import Tensor

from sdegen.core.checks import check_count, check_flag, check_number
from sdegen.core.requests import kind_of
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, Block, Observable, Partial
from sdegen.observables.path_states import PathStates, uniform_step
from sdegen.observables.trajectory_means import covariance_of_mean, merge_sums, sums_of

_SEGMENTS = 8  # that overlap by halves, where no length is given


@dataclass(frozen=True, eq=False)
class Spectrum(Labelled):
    """Power spectral density of each coordinate, one-sided, with errors between trajectories.

    Args:
        frequencies: f = 0 … 1/(2 dt), in cycles per unit of time, shape (F,).
        density: S(f), in units of x² times time (x²/Hz), shape (F, *event).
        error: Its standard error, likewise.
        count: Trajectories, or parts of them.
        segments: Segments of each.
        lost: Trajectories of a path that were left out, as they are not finite.
    """

    frequencies: Float[Tensor, " F"]
    density: Float[Tensor, "F *event"]
    error: Float[Tensor, "F *event"]
    count: int
    segments: int
    lost: int = 0

    @property
    def omega(self) -> Float[Tensor, " F"]:
        """Angular frequencies ω = 2πf."""
        return 2 * math.pi * self.frequencies

    @property
    def angular_density(self) -> Float[Tensor, "F *event"]:
        """S(ω) = S(f)/2π, whose integral over ω > 0 is the variance."""
        return self.density / (2 * math.pi)

    @property
    def power(self) -> Float[Tensor, " *event"]:
        """Σ S(f) Δf: the variance around the mean of a segment, as the window weighs it."""
        return self.density.sum(0) * float(self.frequencies[1])


@dataclass(frozen=True)
class PowerSpectrum(Observable):
    """Power spectral density of each coordinate, over times of equal steps, in x² times time.

        S(f) = (2 dt/Σ w²) ⟨|Σ_k w_k x_k e^{−2πi f k dt}|²⟩,     shape (frequencies, *event)

    The states of a block at all times are held.

    Args:
        segment: L, states in a segment; None cuts a trajectory into 8 that overlap by halves.
        overlap: Share of a segment that the next one has too, in [0, 1).
        window: Name of a window of scipy.signal.get_window, or a name with parameters.
        detrend: Whether the mean of each segment is taken off.
        name: What the result is called.
        unwrapped: Whether a periodic coordinate is taken on the line, with its turns.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a segment is too short, the overlap out of range, or the window not known.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> times = torch.arange(0, 51.2, 0.1)
        >>> x0 = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)) / 2**0.5
        >>> asked = [sg.PowerSpectrum(detrend=False)]
        >>> run = sg.run_ensemble(ou, x0, times, trajectories=200, observables=asked, rng=0)
        >>> found = run.observables["spectrum"]
        >>> f"{found.frequencies[-1]:.1f}"  # 1/(2 dt)
        '5.0'
        >>> f"{(found.density.sum() * found.frequencies[1]).item():.1f}"  # ∫ S df = Var x = ½
        '0.5'
    """

    segment: int | None = None
    overlap: float = 0.5
    window: str | tuple[str | float, ...] = "hann"
    detrend: bool = True
    name: str = "spectrum"
    unwrapped: bool = field(default=False, kw_only=True)

    holds_states: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.segment is not None:
            check_count("segment", self.segment, least=4)
        check_number("overlap", self.overlap)
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must lie in [0, 1), but is {self.overlap:g}.")
        check_flag("detrend", self.detrend)
        check_flag("unwrapped", self.unwrapped)
        if not isinstance(self.window, str | tuple):
            raise TypeError(
                "window must be a name such as 'hann', or a name with parameters such as "
                f"('kaiser', 8.0), but is {kind_of(self.window)}."
            )
        try:
            signal.get_window(self.window, 8)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"window = {self.window!r} is none of scipy.signal.get_window ({error}); pass "
                "'hann', 'boxcar', or a name with its parameters, ('kaiser', 8.0)."
            ) from None

    def length(self, states: int) -> int:
        """Return L for trajectories of so many states.

        Raises:
            ValueError: If a segment is longer than they are, or they are too few.
        """
        length = max(4, 2 * states // (_SEGMENTS + 1)) if self.segment is None else self.segment
        if length > states:
            raise ValueError(
                f"a segment of {length} states is longer than a trajectory, or a part of one, of "
                f"{states}; take more times, or a shorter segment ≥ 4."
            )
        return length

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator that holds the states until the end of the block.

        Raises:
            ValueError: If a boundary absorbs: a trajectory that stands still has no spectrum.
        """
        if block.boundary is not None and block.boundary.absorbs:
            raise ValueError(
                f"observable {self.name!r} is of a stationary process, and absorbed trajectories "
                "stand still; drop the absorbing boundary."
            )
        return PathStates(self, block)

    def measure(self, states: State, times: Tensor) -> Partial:
        """Return sums over trajectories of the density of each.

        Args:
            states: Shape (T, rows, *event).
            times: Shape (T,).
        """
        dt = uniform_step(times, "a spectrum needs one sampling rate")
        length = self.length(len(times))
        # of a trajectory that is being lost, whose numbers are left out afterwards
        with np.errstate(over="ignore", invalid="ignore"):
            _, density = signal.welch(
                states.double().cpu().numpy(),
                fs=1 / dt,
                window=self.window,
                nperseg=length,
                noverlap=self._shared(length),
                detrend="constant" if self.detrend else False,
                axis=0,
            )
        return sums_of(torch.from_numpy(density).transpose(0, 1))

    def _shared(self, length: int) -> int:
        """Return states that a segment shares with the next."""
        return min(int(self.overlap * length), length - 1)

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge by Chan's formula."""
        return merge_sums(left, right)

    def result(self, total: Partial, times: Tensor) -> Spectrum:
        """Return density and error, which is NaN for a single trajectory."""
        dt, length = uniform_step(times, ""), self.length(len(times))
        return Spectrum(
            frequencies=torch.arange(length // 2 + 1, dtype=torch.float64) / (length * dt),
            density=total["mean"],
            error=covariance_of_mean(total, "square").sqrt(),
            count=int(total["n"]),
            segments=1 + (len(times) - length) // (length - self._shared(length)),
        )
