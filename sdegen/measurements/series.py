"""Series: what was recorded at evenly spaced times, of one trajectory or of several.

    y[k, i] = f(X_i(t_k)),      t_k = t_0 + k Δ,   k = 0 … n − 1,   i = 1 … R

It comes as an array of shape (T,), of one trajectory; as one of shape (T, batch, *event), time
first as all paths are; or as a `Trajectory`, with a function of the state. Each number of the
event is a quantity of its own. All numbers are taken in double precision; integers and truth
values are numbers too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.requests import as_numbers, kind_of, refuse_lost_gradient
from sdegen.core.shapes import Times
from sdegen.core.trajectory import Trajectory

SeriesLike = Trajectory | Tensor | NDArray[np.generic] | list[float]
_FEWEST = 8  # states of a trajectory
_EVEN = 1e-6  # by how much of the mean a spacing may differ
_ROUNDED = 3e-7  # of the largest time: what the ends of a step of float32 are rounded by
_MOST_ROUNDED = 0.01  # of the mean: no rounding that is larger is let pass
AT_ONCE = 2**20  # numbers that are transformed together


@dataclass(frozen=True, eq=False)
class Series:
    """Numbers that were checked.

    Attributes:
        values: Shape (quantities, batch, T), float64.
        event: Shape of one value.
        spacing: Time from one to the next; 1 where no times are known.
    """

    values: Tensor
    event: tuple[int, ...]
    spacing: float

    @property
    def length(self) -> int:
        """States of one trajectory, n."""
        return self.values.shape[2]

    @property
    def trajectories(self) -> int:
        """How many trajectories there are, R."""
        return self.values.shape[1]

    @property
    def count(self) -> int:
        """States of all trajectories, N = n R."""
        return self.length * self.trajectories

    def shaped(self, numbers: Tensor) -> Tensor:
        """Return numbers of the quantities, shape (…, quantities), as events."""
        return numbers.reshape((*numbers.shape[:-1], *self.event))

    @property
    def mean(self) -> Tensor:
        """Average over times and trajectories, shape (quantities,)."""
        return self.values.mean((1, 2))

    @property
    def means(self) -> Tensor:
        """Average of each trajectory, shape (quantities, batch)."""
        return self.values.mean(2)

    def parts(self) -> Iterator[slice]:
        """Return the quantities, in groups whose numbers are transformed together."""
        width = max(1, AT_ONCE // self.count)
        for first in range(0, self.values.shape[0], width):
            yield slice(first, first + width)

    def fluctuations(self, part: slice = slice(None)) -> Tensor:
        """Return the numbers less their mean over all trajectories, shape (some, batch, T)."""
        values = self.values[part]
        return values - values.mean((1, 2), keepdim=True)


def series_of(
    series: object,
    function: Callable[[Tensor], Tensor] | None = None,
    times: Times | None = None,
) -> Series:
    """Return the series of what came.

    Args:
        series: A `Trajectory`, or an array of shape (T,) or (T, batch, *event).
        function: f(x) of states x, shape (batch, *event), with a row for each; None: the states.
        times: Times of an array, shape (T,); a `Trajectory` has its own.

    Raises:
        TypeError: If these are other things, or complex.
        ValueError: If numbers are not finite or constant, too few, or not evenly spaced.
    """
    came = series
    if isinstance(series, Trajectory):
        if times is not None:
            raise ValueError("times are those of the Trajectory; leave times= out.")
        came, times = series.states, series.times
    if isinstance(came, Tensor | np.ndarray) and "complex" in str(came.dtype):
        raise TypeError(
            f"series must be real, but is complex ({kind_of(came)}); take its real and imaginary "
            "parts, two series."
        )
    refuse_lost_gradient("series", came, "an average with its error")
    expected = "a Trajectory, or numbers of shape (T,) or (T, batch, *event)"
    values = as_numbers("series", came, expected=expected).detach()
    if values.ndim == 0:
        raise TypeError(f"series must be {expected}, but is one number.")
    values = values[:, None] if values.ndim == 1 else values
    n, rows = values.shape[:2]
    if n < _FEWEST or rows < 1:
        raise ValueError(
            f"series has {n} times of {rows} trajectories, and nothing is known of a correlation "
            f"from fewer than {_FEWEST} times; record more of them."
        )
    if function is not None:
        values = _measured(values, function)
    _check_finite(values)
    event = tuple(values.shape[2:])
    flat = values.reshape(n, rows, -1).permute(2, 1, 0).contiguous()
    _check_varies(flat, event)
    return Series(flat, event, 1.0 if times is None else _spacing(times, n))


def _measured(states: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return f of the states, shape (T, batch, *quantities)."""
    if not callable(function) or isinstance(function, type | Tensor):
        raise TypeError(
            f"function must be a function f(x) of states x, but is {kind_of(function)}."
        )
    n, rows = states.shape[:2]
    flat = states.flatten(0, 1)
    with torch.no_grad():
        made: object = function(flat)
    if not isinstance(made, Tensor) or made.ndim == 0 or len(made) != n * rows:
        raise ValueError(
            f"function(x) must return a row for each of the {n * rows} states x, shape "
            f"{tuple(flat.shape)}, but returned {kind_of(made)}; average over axes behind the "
            "first alone."
        )
    if made.is_complex():
        raise TypeError("function(x) returned complex numbers; return .real and .imag of them.")
    return made.to(torch.float64).reshape(n, rows, *made.shape[1:])


def _check_finite(values: Tensor) -> None:
    """Refuse NaN and ±∞, and say where the first is."""
    bad = ~values.isfinite()
    if bool(bad.any()):
        where = bad.nonzero()[0].tolist()
        rows = f", trajectory {where[1]}" if values.shape[1] > 1 else ""
        place = f", component {where[2:]}" if len(where) > 2 else ""
        raise ValueError(
            f"series has {int(bad.sum())} of {bad.numel()} numbers that are not finite, the first "
            f"at time {where[0]}{rows}{place}; leave these trajectories out, as path.finite does."
        )


def _check_varies(flat: Tensor, event: tuple[int, ...]) -> None:
    """Refuse quantities that never change: they have no correlation time."""
    constant = (flat == flat[:, :1, :1]).flatten(1).all(1)
    if bool(constant.any()):
        q = int(constant.nonzero()[0])
        index = list(np.unravel_index(q, event)) if event else []
        which = f"component {[int(i) for i in index]} of series" if event else "series"
        raise ValueError(
            f"{which} is {float(flat[q, 0, 0]):g} at all {flat.shape[2]} times: what is constant "
            "has no correlation time, and its average no error; leave it out."
        )


def _spacing(times: Times, n: int) -> float:
    """Return the spacing of even times."""
    t = as_numbers("times", times).cpu()
    if t.shape != (n,):
        raise ValueError(
            f"times must have shape ({n},), one for each state, but have {tuple(t.shape)}."
        )
    steps = t.diff()
    mean = (t[-1] - t[0]) / (n - 1)
    rounding = (_ROUNDED * t.abs().max()).clamp(max=_MOST_ROUNDED * mean.abs())
    uneven = ~((steps - mean).abs() <= _EVEN * mean.abs() + rounding)
    if not bool(mean.isfinite()) or float(mean) == 0 or bool(uneven.any()):
        k = int(uneven.nonzero()[0]) if bool(uneven.any()) else 0
        raise ValueError(
            f"times must be evenly spaced, but times[{k + 1}] − times[{k}] = {float(steps[k]):g} "
            f"and the mean spacing is {float(mean):g}; record states at times of "
            "torch.linspace(t_start, t_end, n)."
        )
    return abs(float(mean))
