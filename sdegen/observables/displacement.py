"""Mean-squared displacement: how far trajectories have gone after a time.

    Δ_i(τ) = x(s + τ) − x(s),      MSD(τ) = ⟨Σ_i Δ_i(τ)²⟩

over trajectories, from one origin s = times[0] or over all origins of each trajectory. Diffusion
with drift v has MSD = 2 d D τ + |v|² τ², in d dimensions; around a mean displacement that is taken
off, the **spread** Σ Var Δ_i = 2 d D τ is left. On a periodic boundary displacements are those on
the line. An absorbed trajectory stands still from then on, and counts.

Over all origins the squares of one trajectory are summed lag by lag, or, where there are many
lags, by a fast Fourier transform in O(T log T):

    Σ_k |x_{k+m} − x_k|² = Σ_k (|x_k|² + |x_{k+m}|²) − 2 Σ_k x_k x_{k+m}

whose rounding is that of |x|², with x from the mean of the trajectory, where the sum's is that of
the result.

Origins overlap and lags share increments: errors come from the spread between trajectories, each
with its mean over origins, and the covariance of all lags is kept with them.

Reference:
    Kneller, Keiner, Kneller and Schiller 1995, Computer Physics Communications 91, 191, section 3,
    for the transform.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdegen.core.checks import check_flag, check_word
from sdegen.core.requests import as_numbers
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, Block, Observable, Partial
from sdegen.observables.path_states import PathStates, chosen, index_of_lags, uniform_step
from sdegen.observables.trajectory_means import covariance_of_mean, merge_sums, sums_of

_LAGS = 64  # where none are given
_TRANSFORMED = 128  # lags from which a transform is faster
_TOGETHER = 512  # numbers of a trajectory whose covariances are kept
_CHUNK = 2**22  # numbers that are worked on at a time


@dataclass(frozen=True, eq=False)
class Displacements(Labelled):
    """Displacements after each lag, with errors between trajectories.

    Args:
        lags: τ, in units of time, shape (K,).
        total: MSD(τ), summed over coordinates, in units of x², shape (K,).
        total_error: Its standard error, shape (K,).
        square: ⟨Δ_i²⟩ of each coordinate, shape (K, *coordinates).
        square_error: Its standard error, likewise.
        mean: ⟨Δ_i⟩ of each coordinate, likewise.
        mean_error: Its standard error, likewise.
        spread: Σ_i Var Δ_i, without bias, shape (K,): the MSD around the mean displacement.
        covariance: Of `total` between lags, shape (K, K): that of the mean. None where lags and
            coordinates are more than 512 numbers.
        spread_covariance: That of `spread`, likewise.
        count: Trajectories, or parts of them.
        lost: Trajectories of a path that were left out, as they are not finite.
    """

    lags: Float[Tensor, " K"]
    total: Float[Tensor, " K"]
    total_error: Float[Tensor, " K"]
    square: Float[Tensor, "K *coordinates"]
    square_error: Float[Tensor, "K *coordinates"]
    mean: Float[Tensor, "K *coordinates"]
    mean_error: Float[Tensor, "K *coordinates"]
    spread: Float[Tensor, " K"]
    covariance: Float[Tensor, "K K"] | None
    spread_covariance: Float[Tensor, "K K"] | None
    count: int
    lost: int = 0

    @property
    def dimensions(self) -> int:
        """d, the number of coordinates."""
        return max(1, math.prod(self.square.shape[1:]))


def squared_displacements(
    x: Float[Tensor, "T *rest"], steps: Int[Tensor, " K"]
) -> Float[Tensor, "K *rest"]:
    """Return the mean over all origins of |x_{k+m} − x_k|² for lags of m steps.

    >>> squared_displacements(torch.tensor([0.0, 1.0, 3.0]).double(), torch.tensor([1, 2]))
    tensor([2.5000, 9.0000], dtype=torch.float64)
    """
    if len(steps) >= _TRANSFORMED:
        return _transformed(x)[steps]
    return torch.stack([(x[m:] - x[: len(x) - m]).square_().mean(0) for m in steps.tolist()])


def _transformed(x: Tensor) -> Tensor:
    """Return the same at all lags of 0 … T − 1 steps, by a fast Fourier transform."""
    n = len(x)
    x = x - x.mean(0)
    spectrum = torch.fft.rfft(x, 2 * n, dim=0)
    power = spectrum.real.square() + spectrum.imag.square()
    product = torch.fft.irfft(power, 2 * n, dim=0)[:n]
    upto = x.square().cumsum(0)
    # Σ_k |x_k|² over the first n − m and over the last n − m states
    first, last = upto.flip(0), upto[-1:] - torch.cat([torch.zeros_like(upto[:1]), upto[:-1]])
    origins = torch.arange(n, 0, -1, dtype=x.dtype, device=x.device)
    sums: Tensor = first + last - 2 * product
    return sums / origins.reshape(-1, *[1] * (x.ndim - 1))


def mean_displacements(
    x: Float[Tensor, "T *rest"], steps: Int[Tensor, " K"]
) -> Float[Tensor, "K *rest"]:
    """Return the mean over all origins of x_{k+m} − x_k for lags of m steps."""
    return torch.stack([(x[m:] - x[: len(x) - m]).mean(0) for m in steps.tolist()])


@dataclass(frozen=True)
class MeanSquaredDisplacement(Observable):
    """How far trajectories have gone after each lag, on the line where a boundary is periodic.

        MSD(τ) = ⟨Σ_i (x_i(s + τ) − x_i(s))²⟩

    In a phase space it is of positions. The states of a block at all times are held, where they
    are not only looked at from the start.

    Args:
        lags: τ > 0, in units of time; None takes up to 64, evenly spread in log τ, up to a quarter
            of the run over all origins, to its end from the start.
        origins: "all" averages over all origins of a trajectory and needs times of equal steps;
            "start" takes the first time alone.
        coordinates: Which numbers of the flattened event; None takes all. An angle, say, is none
            that positions may be added to.
        particles: Whether an event is (particles, dim), over whose particles is averaged;
            coordinates are then numbers of dim.
        name: What the result is called.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If origins is neither word, or lags are not positive and increasing.

    Example:
        >>> wind, asked = sg.ItoProcess(lambda x: 0 * x + 3.0, 0.0), [sg.MeanSquaredDisplacement()]
        >>> times = [0.0, 1.0, 2.0, 3.0, 4.0]
        >>> x0 = torch.zeros(2, 1)
        >>> run = sg.run_ensemble(wind, x0, times, trajectories=2, observables=asked)
        >>> found = run.observables["displacement"]
        >>> found.lags.tolist(), found.total.tolist()  # (3 τ)²
        ([1.0], [9.0])
    """

    lags: tuple[float, ...] | None = None
    origins: str = "all"
    coordinates: tuple[int, ...] | None = None
    particles: bool = False
    name: str = "displacement"
    unwrapped: bool = field(default=True, init=False, repr=False)

    holds_states: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_word("origins", self.origins, ("all", "start"))
        check_flag("particles", self.particles)
        if self.coordinates is not None:
            object.__setattr__(self, "coordinates", chosen("coordinates", self.coordinates))
        if self.lags is None:
            return
        lags = as_numbers("lags", self.lags, expected="a list of lags in units of time")
        if lags.ndim != 1 or len(lags) == 0:
            raise ValueError(
                "lags must be a list of one lag or more, but has shape "
                f"{tuple(lags.shape)}; pass lags=[0.1, 1.0]."
            )
        if not bool(lags.isfinite().all() & (lags > 0).all() & (lags.diff() > 0).all()):
            raise ValueError(
                f"lags must be finite, > 0 and increasing, but are {lags.tolist()[:8]}."
            )
        object.__setattr__(self, "lags", tuple(lags.tolist()))

    def steps(self, times: Tensor) -> Tensor:
        """Return the lags as numbers of steps, shape (K,).

        Raises:
            ValueError: If a lag is none between two of the times, or, over all origins, times are
                not equally spaced.
        """
        since = (times - times[0]).abs()
        if self.origins == "all":
            uniform_step(times, "all origins need one lag between them", 'pass origins="start"')
        if self.lags is not None:
            return index_of_lags(torch.tensor(self.lags, dtype=torch.float64), since)
        longest = len(times) - 1
        longest = max(1, longest // 4) if self.origins == "all" else longest
        spread = torch.logspace(0, math.log10(longest), _LAGS, dtype=torch.float64)
        return torch.tensor(sorted(set(spread.round().long().tolist())))

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator that holds positions until the end of the block."""
        return PathStates(self, block, positions=True)

    def measure(self, states: State, times: Tensor) -> Partial:
        """Return sums over trajectories of what each has as its mean over origins.

        Args:
            states: Positions on the line, shape (T, rows, *event).
            times: Shape (T,).
        """
        steps, x = self.steps(times), self._coordinates(states)
        size = max(1, _CHUNK // max(1, x[:, 0].numel()))
        parts = [self._of_rows(x[:, i : i + size], steps) for i in range(0, x.shape[1], size)]
        square, mean = (torch.cat(values, 1) for values in zip(*parts, strict=True))
        total = square.flatten(2).sum(2)  # (K, rows)
        sums = {
            f"{key} {name}": value
            for key, values in (("square", square), ("mean", mean), ("total", total))
            for name, value in sums_of(values.transpose(0, 1)).items()
        }
        numbers = total.shape[0] * (1 + square[0, 0].numel())
        if numbers <= _TOGETHER:
            each = torch.cat([total[:, :, None], mean.flatten(2)], 2).transpose(0, 1).flatten(1)
            joint = sums_of(each, together=True)
            sums |= {f"joint {name}": value for name, value in joint.items()}
        return sums

    def _coordinates(self, states: Tensor) -> Tensor:
        """Return (T, rows, *coordinates) in float64, or (T, rows, particles, dim)."""
        states = states[:, :, None] if states.ndim == 2 else states
        if self.particles:
            if states.ndim != 4:
                raise ValueError(
                    f"particles=True of {self.name!r} needs events (particles, dim), but they "
                    f"have shape {tuple(states.shape[2:])}; leave it out."
                )
        elif self.coordinates is not None:
            states = states.flatten(2)
        if self.coordinates is None:
            return states.double()
        count = states.shape[-1]
        if max(self.coordinates) >= count:
            raise ValueError(
                f"coordinates of {self.name!r} are {self.coordinates}, but there are 0 … "
                f"{count - 1}."
            )
        return states[..., list(self.coordinates)].double()

    def _of_rows(self, x: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared and plain displacements of rows, each (K, rows, *coordinates)."""
        if self.origins == "all":
            values = squared_displacements(x, steps), mean_displacements(x, steps)
        else:
            gap = x[steps] - x[0]
            values = gap.square(), gap
        return values if not self.particles else (values[0].mean(2), values[1].mean(2))

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge each set of sums by Chan's formula."""
        merged: Partial = {}
        for key in ("square", "mean", "total", "joint"):
            sides = [_of_key(side, key) for side in (left, right)]
            if sides[0]:
                pair = merge_sums(*sides)
                merged |= {f"{key} {name}": value for name, value in pair.items()}
        return merged

    def result(self, total: Partial, times: Tensor) -> Displacements:
        """Return means and errors; those of a single trajectory are NaN."""
        square, mean, summed, joint = (
            _of_key(total, key) for key in ("square", "mean", "total", "joint")
        )
        drift, drift_variance = mean["mean"], covariance_of_mean(mean, "square")
        # E m̄² is ⟨m⟩² + Var m̄: without the second the spread would be too small
        spread = summed["mean"] - (drift.square() - drift_variance).flatten(1).sum(1)
        covariances: tuple[Tensor | None, Tensor | None] = (None, None)
        if joint:
            covariances = _covariances(covariance_of_mean(joint, "product"), drift.flatten(1))
        since = (times - times[0]).abs()
        return Displacements(
            lags=since[self.steps(times)],
            total=summed["mean"],
            total_error=covariance_of_mean(summed, "square").sqrt(),
            square=square["mean"],
            square_error=covariance_of_mean(square, "square").sqrt(),
            mean=drift,
            mean_error=drift_variance.sqrt(),
            spread=spread,
            covariance=covariances[0],
            spread_covariance=covariances[1],
            count=int(summed["n"]),
        )


def _of_key(partial: Partial, key: str) -> Partial:
    """Return one set of sums of a partial."""
    return {k.removeprefix(f"{key} "): v for k, v in partial.items() if k.startswith(f"{key} ")}


def _covariances(joint: Tensor, drift: Tensor) -> tuple[Tensor, Tensor]:
    """Return the covariances of the total and of the spread between lags.

    Args:
        joint: Covariance of total and mean displacements, (K (1 + d), K (1 + d)).
        drift: Mean displacements m, shape (K, d).
    """
    lags, d = drift.shape
    joint = joint.reshape(lags, 1 + d, lags, 1 + d)
    # to first order the spread moves by δ(total) − 2 m·δm
    slope = torch.cat([torch.ones_like(drift[:, :1]), -2 * drift], 1)
    return joint[:, 0, :, 0], torch.einsum("ka,kalb,lb->kl", slope, joint, slope)
