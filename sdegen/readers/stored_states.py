"""StoredStates: states that some program stored, with what is known of how it stored them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_flag
from sdegen.core.requests import as_time_grid, kind_of
from sdegen.readers.arrays import at_least_single, tensor_of
from sdegen.readers.frames import IN_MEMORY, Frames, bytes_of, frames_of
from sdegen.readers.rounding import binary_half_digits, decimal_half_digits
from sdegen.readers.times import even_spacing, too_few

_AT_ONCE = 2**24  # numbers that are looked through together


@dataclass(frozen=True, eq=False)
class StoredStates:
    """States of a simulation by any program, at the times at which it stored them: x(t_i) = x[i].

    Made by `read_states`. In a phase space each frame is positions, then velocities, and `periods`
    and `fixed` are those of one coordinate of the positions.

    Attributes:
        times: Times of the frames, shape (T,), float64, strictly monotone, on the CPU.
        states: Shape (T, batch, *event): a tensor, which may be a view of a file, or `Frames` that
            are read when `block` asks for them.
        rounding: Half of a unit of the last decimal that was kept, a number or broadcastable to
            *event; 0 where decimals were not cut.
        digits: Significant decimal digits that were kept, where a text has a number of these.
        unit: What one unit of the source is in units of the states, in which its digits count; a
            number or broadcastable to *event.
        precision: Coarsest dtype that the states went through; that of states unless said.
        phase_space: Whether a frame is positions and velocities, shape (batch, 2, *event).
        periods: Period of each coordinate, shape of an event (of its positions), 0 where it has
            none; None where none has.
        wrapped: Whether coordinates with a period were folded into one.
        fixed: Which coordinates are held by a constraint, shape of an event (of its positions),
            bool; None where none is.
        centre_removed: Whether the motion of the centre of mass was taken out.
        columns: Names of the coordinates, where the source has names.
        lost: Trajectories of the source that are not here, since they were lost on the way.
        source: Where the states are from, in words.

    Example:
        >>> stored = sg.read_states(torch.tensor([0.0, 1.5, 3.0]), dt=0.5)
        >>> stored.times.tolist(), stored.dt, stored.shape
        ([0.0, 0.5, 1.0], 0.5, (3, 1, 1))
    """

    times: Tensor
    states: Tensor | Frames
    rounding: float | Tensor = 0.0
    digits: int | None = None
    unit: float | Tensor = 1.0
    precision: torch.dtype | None = None
    phase_space: bool = False
    periods: Tensor | None = None
    wrapped: bool = False
    fixed: Tensor | None = None
    centre_removed: bool = False
    columns: tuple[str, ...] = ()
    lost: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("phase_space", "wrapped", "centre_removed"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.states, Frames):
            object.__setattr__(self, "states", tensor_of("states", self.states))
        check_shape(self.shape, phase_space=self.phase_space)
        times = as_time_grid(self.times)
        if len(times) != self.shape[0]:
            raise ValueError(
                f"times has {len(times)} entries, but there are {self.shape[0]} frames; pass one "
                "for each frame."
            )
        object.__setattr__(self, "times", times)
        if self.precision is None:
            object.__setattr__(self, "precision", self.states.dtype)
        elif not isinstance(self.precision, torch.dtype) or not self.precision.is_floating_point:
            raise TypeError(
                f"precision must be a dtype of floats, such as torch.float16, but is "
                f"{kind_of(self.precision)}."
            )
        if self.digits is not None:
            check_count("digits", self.digits)
        self._check_of_event("rounding", self.rounding, self.event)
        self._check_of_event("unit", self.unit, self.event)
        self._check_of_event("periods", self.periods, self.place)
        self._check_of_event("fixed", self.fixed, self.place, dtype=torch.bool)
        if self.wrapped and self.periods is None:
            raise ValueError(
                "wrapped=True says that coordinates were folded into their periods, and none has "
                "one; pass periods=, the length of each."
            )

    def _check_of_event(
        self, name: str, value: object, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> None:
        """Refuse what does not belong to each coordinate, or is negative."""
        if value is None or (name in ("rounding", "unit") and isinstance(value, float | int)):
            value = torch.tensor(0.0 if value is None else float(value))
        elif not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor of shape {shape}, but is {kind_of(value)}.")
        elif dtype is not None and value.dtype != dtype:
            raise TypeError(f"{name} must have dtype {dtype}, but has {value.dtype}.")
        elif not _fits(tuple(value.shape), shape, exact=name in ("periods", "fixed")):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, but that of a coordinate is {shape}."
            )
        if not bool((value.double() >= 0).all() & value.double().isfinite().all()):
            raise ValueError(f"{name} must be finite and ≥ 0.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all states, (T, batch, *event)."""
        return tuple(self.states.shape)

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one state of one trajectory; (2, *place) in a phase space."""
        return self.shape[2:]

    @property
    def place(self) -> tuple[int, ...]:
        """Shape of one position; that of an event, unless states are in a phase space."""
        return self.event[1:] if self.phase_space else self.event

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers of a block: float32 or float64."""
        half = self.states.dtype in (torch.float16, torch.bfloat16)
        return torch.float32 if half else self.states.dtype

    @property
    def dt(self) -> float:
        """Time from one frame to the next; negative where times run backwards.

        Raises ValueError if it is not the same for all.
        """
        return even_spacing(self.times)

    def block(
        self, first: int, last: int, *, unwrapped: bool = False, checked: bool = True
    ) -> Tensor:
        """Return the frames first … last − 1, without reading others.

        Args:
            first: Number of the first frame, ≥ 0.
            last: Number of the frame after the last, ≤ T.
            unwrapped: Whether coordinates with a period are taken on the line, in float64, from
                where they are in the first of these frames. Each is taken to have moved by less
                than half of its period from frame to frame.
            checked: Whether numbers that are not finite are refused.

        Returns:
            Shape (last − first, batch, *event), float32 or float64; a view where nothing had to
            be done, which must not be written to.

        Raises:
            ValueError: If there are no such frames, or a number of theirs is not finite; naming
                frame, trajectory and coordinate.
        """
        check_count("first", first, 0)
        check_count("last", last, 0)
        if not first < last <= self.shape[0]:
            raise ValueError(
                f"frames {first} … {last} − 1 are not there: ask for 0 ≤ first < last ≤ "
                f"{self.shape[0]}."
            )
        x = at_least_single(frames_of(self.states, first, last))
        if checked:
            _check_finite(x, first)
        if unwrapped and self.wrapped and self.periods is not None:
            return _unwrapped(x, self.periods, phase_space=self.phase_space)
        return x.double() if unwrapped else x

    def check_finite(self, *, whole: bool = False) -> None:
        """Look through the states; through those of large files when they are read, by `block`.

        Args:
            whole: Whether those of large files are looked through too.

        Raises:
            ValueError: If a number is not finite; naming frame, trajectory and coordinate.
        """
        if whole or bytes_of(self.states) <= IN_MEMORY:
            frames = max(1, _AT_ONCE // math.prod(self.shape[1:]))
            for first in range(0, self.shape[0], frames):
                self.block(first, min(first + frames, self.shape[0]))

    def rounding_at(self, x: Tensor) -> Tensor:
        """Return how far stored numbers may be from those that were computed.

        The largest of `rounding`, half a unit of the last of `digits`, and half a unit of the last
        bit of `precision`.

        Args:
            x: States, shape (…, *event).

        Returns:
            Half-widths, shape of x, float64.

        Raises:
            TypeError: If x is no array of floats.
            ValueError: If its last axes are not those of an event.
        """
        x = tensor_of("x", x).double()
        if tuple(x.shape[max(0, x.ndim - len(self.event)) :]) != self.event:
            raise ValueError(
                f"x must have shape (…, {', '.join(map(str, self.event))}), but has "
                f"{tuple(x.shape)}."
            )
        half = binary_half_digits(x, self.precision or self.states.dtype)
        half = torch.maximum(half, torch.as_tensor(self.rounding, dtype=torch.float64).to(x))
        if self.digits is None:
            return half
        unit = torch.as_tensor(self.unit, dtype=torch.float64).to(x)
        return torch.maximum(half, decimal_half_digits(x, self.digits, unit))


def check_shape(shape: tuple[int, ...], *, phase_space: bool) -> None:
    """Refuse shapes that hold no states."""
    if len(shape) < 3 + phase_space:
        raise ValueError(
            f"states must have shape (T, batch, {'2, ' if phase_space else ''}*event), but have "
            f"{shape}; read them by read_states, with layout=."
        )
    if shape[0] < 2:
        raise ValueError(too_few(shape[0]))
    if math.prod(shape) == 0:
        raise ValueError(f"states are empty: their shape is {shape}.")
    if phase_space and shape[2] != 2:
        raise ValueError(
            f"states of a phase space are positions and velocities, shape (T, batch, 2, *event), "
            f"but have shape {shape}; pass positions alone, with velocities= beside them."
        )


def _fits(shape: tuple[int, ...], event: tuple[int, ...], *, exact: bool) -> bool:
    """Return whether a shape is that of an event, or is broadcast to it."""
    if exact:
        return shape == event
    pairs = zip(reversed(shape), reversed(event), strict=False)
    return len(shape) <= len(event) and all(a in (1, b) for a, b in pairs)


def _check_finite(x: Tensor, first: int) -> None:
    """Refuse NaN and ±∞, and say where the first is."""
    if bool(x.sum().isfinite()):  # one pass, without a mask: NaN and ∞ survive a sum
        return
    bad = ~x.isfinite()
    if bool(bad.any()):
        frame, row, *place = bad.nonzero()[0].tolist()
        n = int(bad.flatten(2).any(2).any(0).sum())
        coordinate = place[0] if len(place) == 1 else tuple(place)
        raise ValueError(
            f"states are not finite in {n} of {x.shape[1]} trajectories: the first such number is "
            f"{float(x[(frame, row, *place)])} in frame {first + frame}, trajectory {row}, "
            f"coordinate {coordinate}; leave these trajectories out, or end the frames before."
        )


def _unwrapped(x: Tensor, periods: Tensor, *, phase_space: bool) -> Tensor:
    """Return states on the line, from the first frame on."""
    x = x.double().clone()
    place = x[:, :, 0] if phase_space else x
    length = periods.to(x)
    # a period of 0 is none: nothing is divided by it
    turns = torch.where(length > 0, (place.diff(dim=0) / length.clamp(min=1e-300)).round(), 0.0)
    place[1:] -= length * turns.cumsum(0)
    return x
