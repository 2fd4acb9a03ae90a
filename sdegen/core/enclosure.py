"""Enclosures: the boundaries that a request names, read for the coordinates of a state.

boundary    Reflecting(0.0)      (Reflecting(0.0), Absorbing(high=1.0))      {0: …, 2: …}
Interval    what bounds one coordinate: a boundary, or a lower and an upper one
Enclosure   what bounds a state: an interval for each set of coordinates that has one
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import cast

import numpy as np
import torch
from torch import Tensor

from sdegen.core.boundary import Boundary, BoundaryStep, End, PositionBoundary
from sdegen.core.bounds import Bound, values_of
from sdegen.core.shapes import State

One = Boundary | tuple[Boundary, Boundary]
BoundaryLike = One | Mapping[int | tuple[int, ...], One] | Sequence[One | None]


@dataclass(frozen=True)
class Interval:
    """What bounds one coordinate.

    Args:
        boundaries: A boundary with all ends there are, or a lower and an upper one with one each.

    Raises:
        ValueError: If low ≥ high.
    """

    boundaries: tuple[Boundary, ...]

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not (callable(low) or callable(high)) and not low < high:
            raise ValueError(f"a boundary needs low < high, but low = {low:g}, high = {high:g}.")

    @cached_property
    def low(self) -> End | None:
        """The lower end, None where it is free."""
        return self.boundaries[0].ends[0]

    @cached_property
    def high(self) -> End | None:
        """The upper end, None where it is free."""
        return self.boundaries[-1].ends[1]

    @property
    def wraps(self) -> bool:
        """Whether its ends are one place."""
        return self.boundaries[0].wraps

    @property
    def absorbs(self) -> bool:
        """Whether one of its ends absorbs."""
        return any(boundary.absorbs for boundary in self.boundaries)

    @property
    def bridged(self) -> bool:
        """Whether one of its ends absorbs between two steps too."""
        return any(boundary.bridged for boundary in self.boundaries)

    @property
    def by_position(self) -> bool:
        """Whether it asks of a step where it led, and nothing else."""
        return all(boundary.by_position for boundary in self.boundaries)

    @property
    def bounds(self) -> tuple[Bound, Bound]:
        """Where the ends are, ∓∞ where there is none."""
        return self.boundaries[0].low, self.boundaries[-1].high

    @property
    def fixed(self) -> tuple[float, float]:
        """Where the ends of one that does not move are, ∓∞ where there is none."""
        return cast(tuple[float, float], self.bounds)

    @property
    def moves(self) -> bool:
        """Whether one of its ends is a function of t."""
        return any(map(callable, self.bounds))

    def only(self, keep: Callable[[Boundary], bool]) -> Interval | None:
        """Return what is left of it where some boundaries are left out, None for nothing."""
        kept = tuple(boundary for boundary in self.boundaries if keep(boundary))
        return Interval(kept) if kept else None

    def contain(self, x: Tensor, low: float, high: float) -> Tensor:
        """Bring numbers back inside by their places; ends as they are, ∓∞ where there is none."""
        boundaries = cast(tuple[PositionBoundary, ...], self.boundaries)
        if len(boundaries) == 1:
            return boundaries[0].contain(x, low, high)
        x = boundaries[0].contain(x, low, math.inf)
        # a reflection that overshoots the far wall stops there
        return boundaries[1].contain(x, -math.inf, high).clamp(low, high)

    def apply(self, before: Tensor, after: Tensor, step: BoundaryStep) -> Tensor:
        """Bring coordinates back inside, one end after the other where they are of two kinds."""
        if len(self.boundaries) == 1:
            return _applied(self.boundaries[0], before, after, step)
        lower, upper = self.boundaries
        after = _applied(lower, before, after, replace(step, high=math.inf))
        after = _applied(upper, before, after, replace(step, low=-math.inf))
        return after.clamp(step.low, step.high)

    def arrived(self, x: Tensor, low: float, high: float) -> Tensor:
        """Return which rows have a number on an absorbing end or beyond it, shape (batch,)."""
        reached = torch.zeros_like(x, dtype=torch.bool)
        if self.boundaries[0].absorbs and math.isfinite(low):
            reached = reached | (x <= low)
        if self.boundaries[-1].absorbs and math.isfinite(high):
            reached = reached | (x >= high)
        return reached.flatten(1).any(1)

    def __str__(self) -> str:
        words = {-math.inf: "−∞", math.inf: "∞"}
        low, high = ("b(t)" if callable(at) else words.get(at, f"{at:g}") for at in self.bounds)
        return f"[{low}, {high}]"


def _applied(boundary: Boundary, before: Tensor, after: Tensor, step: BoundaryStep) -> Tensor:
    """Return what a boundary makes of a step; what was not finite has not come back.

    Raises:
        TypeError: If it returns no tensor like the coordinates.
        ValueError: If it leaves numbers outside.
    """
    inside = boundary.apply(before, after, step)
    name = type(boundary).__name__
    if not isinstance(inside, Tensor) or inside.shape != after.shape:
        shape = tuple(inside.shape) if isinstance(inside, Tensor) else type(inside).__name__
        raise TypeError(
            f"{name}.apply returned {shape} for coordinates of shape {tuple(after.shape)}; return "
            "a tensor like after."
        )
    inside = torch.where(after.isfinite(), inside, torch.nan).to(after.dtype)
    outside = (inside < step.low) | (inside > step.high)
    if bool(outside.any()):
        raise ValueError(
            f"{name}.apply left x = {float(inside[outside][0]):g} outside [{step.low:g}, "
            f"{step.high:g}]; bring back all that is outside, with .clamp(step.low, step.high) at "
            "the end."
        )
    return inside


@dataclass(frozen=True)
class Enclosure:
    """What bounds the coordinates of a state, one interval for each set of them.

    Attributes:
        event: Shape of the event.
        parts: Pairs (coordinates of the flattened event, interval); None is all of them.
        phase_space: Whether they are positions, beside velocities (`sdegen.core.mirrors`).
    """

    event: tuple[int, ...]
    parts: tuple[tuple[tuple[int, ...] | None, Interval], ...]
    phase_space: bool = False

    @property
    def absorbs(self) -> bool:
        """Whether a trajectory may end at it."""
        return any(interval.absorbs for _, interval in self.parts)

    @property
    def wraps(self) -> bool:
        """Whether a coordinate goes around."""
        return any(interval.wraps for _, interval in self.parts)

    @property
    def bridged(self) -> bool:
        """Whether what happens between two steps is asked; not where paths are differentiable."""
        return not self.phase_space and any(interval.bridged for _, interval in self.parts)

    def only(self, keep: Callable[[Boundary], bool]) -> Enclosure | None:
        """Return what is left where some boundaries are left out, None for nothing."""
        parts = ((coordinates, interval.only(keep)) for coordinates, interval in self.parts)
        kept = tuple((coordinates, left) for coordinates, left in parts if left is not None)
        return replace(self, parts=kept) if kept else None

    def of(self, coordinate: int) -> Interval | None:
        """Return what bounds one coordinate of the flattened event, None where it is free."""
        for coordinates, interval in self.parts:
            if coordinates is None or coordinate in coordinates:
                return interval
        return None

    def columns(self, coordinates: tuple[int, ...] | None) -> tuple[int, ...]:
        """Return the coordinates of a part, all of them where it has None."""
        return tuple(range(math.prod(self.event))) if coordinates is None else coordinates

    def bridged_columns(self) -> tuple[int, ...]:
        """Return the coordinates of the flattened event that have an end with a bridge."""
        of = (self.columns(coordinates) for coordinates, part in self.parts if part.bridged)
        return tuple(sorted(column for columns in of for column in columns))

    def periods(self) -> Tensor:
        """Return the period of each coordinate, shape (*event,), float64; 0 for none."""
        lengths = torch.zeros(math.prod(self.event), dtype=torch.float64)
        for coordinates, interval in self.parts:
            if interval.wraps:
                low, high = interval.fixed
                lengths[list(self.columns(coordinates))] = high - low
        return lengths.reshape(self.event)

    def check_inside(self, x: State, t: Tensor, name: str = "x0") -> None:
        """Refuse states that do not lie inside.

        Args:
            x: Shape (batch, *event).
            t: Time of the states, 0-d.
            name: What the caller calls them.

        Raises:
            ValueError: Naming the coordinate, where it must lie, and what it spans.
        """
        flat = x.flatten(1)
        for coordinates, interval in self.parts:
            some = flat if coordinates is None else flat[:, list(coordinates)]
            low, high = (float(values_of(at, t[None])[0]) for at in interval.bounds)
            if not bool(((some >= low) & (some <= high)).all()):
                which = "" if flat.shape[1] == 1 else f" in coordinates {coordinates or 'all'}"
                raise ValueError(
                    f"{name} must start inside the boundary [{low:g}, {high:g}]{which}, but spans "
                    f"{float(some.min()):g} … {float(some.max()):g}; start it inside, or move "
                    "the boundary."
                )


def interval_of(boundary: object) -> Interval:
    """Return what bounds one coordinate.

    Args:
        boundary: A boundary, or a pair (lower, upper) of which each has one end.

    Raises:
        TypeError: If it is neither.
        ValueError: If a pair has an end twice, or only one end is periodic.
    """
    if isinstance(boundary, Boundary):
        return Interval((boundary,))
    if isinstance(boundary, tuple) and len(boundary) == 2:
        lower, upper = boundary
        if isinstance(lower, Boundary) and isinstance(upper, Boundary):
            below, above = lower.ends, upper.ends
            if None in (below[0], above[1]) or (below[1], above[0]) != (None, None):
                raise ValueError(
                    f"a pair (lower, upper) has one end each, but is ({lower!r}, {upper!r}); pass "
                    "such as (Reflecting(0.0), Absorbing(high=1.0))."
                )
            if type(lower) is type(upper):  # of one kind: one box
                both = replace(lower, high=upper.high)
                if both == replace(upper, low=lower.low):
                    return Interval((both,))
            return Interval((lower, upper))
    if any(isinstance(b, str) for b in (boundary if isinstance(boundary, tuple) else [boundary])):
        raise TypeError(
            f"boundary is {boundary!r}, and a word does not say where its ends are; pass "
            "Reflecting(low, high), Absorbing(low, high) or Periodic(low, high)."
        )
    raise TypeError(
        "the boundary of a coordinate must be Reflecting(low, high), Absorbing(low, high), "
        f"Periodic(low, high), or a pair (lower, upper) of them, but is {boundary!r}."
    )


def enclosure_of(boundary: object, event: Sequence[int]) -> Enclosure | None:
    """Return what bounds a state of a given event, None where nothing does.

    Args:
        boundary: A boundary, a pair of them, a mapping from coordinates to either,
            or a sequence with an entry for each coordinate; None for none.
        event: Shape of the event.

    Raises:
        TypeError: If something is of another kind.
        ValueError: If one box is passed for a state of several coordinates
            without coordinates="all", or a coordinate is none of the event's.
    """
    event = tuple(event)
    if boundary is None:
        return None
    count = math.prod(event)
    whole = isinstance(boundary, Boundary | str) or (
        isinstance(boundary, tuple)
        and len(boundary) == 2
        and (count == 1 or any(isinstance(b, str) for b in boundary))
        and not any(b is None for b in boundary)
    )
    if whole:
        interval = interval_of(boundary)
        named = isinstance(boundary, Boundary) and boundary.coordinates == "all"
        if count > 1 and not named:
            raise ValueError(
                f"one box {interval} for {count} coordinates would bound each of them; pass "
                f"boundary={{0: {type(interval.boundaries[0]).__name__}(…)}} for coordinate 0 "
                "alone, or say coordinates='all' in the box where each is meant."
            )
        return Enclosure(event, ((None, interval),))
    return Enclosure(event, _parts(boundary, event, count))


def _parts(
    boundary: object, event: tuple[int, ...], count: int
) -> tuple[tuple[tuple[int, ...], Interval], ...]:
    """Return the intervals of a mapping or a sequence, coordinates of one interval together."""
    if isinstance(boundary, Mapping):
        entries = [(_coordinate(key, event, count), value) for key, value in boundary.items()]
        if not entries:
            raise ValueError("boundary is empty; pass boundary=None where nothing is bounded.")
    elif isinstance(boundary, Sequence):
        if len(boundary) != count:
            raise ValueError(
                f"a boundary for each coordinate needs {count} of them, None where one is free, "
                f"but has {len(boundary)}; pass boundary={{0: …}} for some."
            )
        entries = list(enumerate(boundary))
    else:
        raise TypeError(
            "boundary must be Reflecting(low, high), Absorbing(low, high) or Periodic(low, high), "
            "a mapping from coordinates to them, a list with one for each coordinate, or None, "
            f"but is {boundary!r}."
        )
    sets: dict[Interval, list[int]] = {}
    for coordinate, value in entries:
        if value is not None:
            sets.setdefault(interval_of(value), []).append(coordinate)
    return tuple((tuple(sorted(which)), interval) for interval, which in sets.items())


def _coordinate(key: object, event: tuple[int, ...], count: int) -> int:
    """Return the place of a coordinate in the flattened event."""
    place: int | None = None
    if isinstance(key, Integral) and not isinstance(key, bool):
        place = int(key) if 0 <= int(key) < count else None
    elif isinstance(key, tuple) and len(key) == len(event):
        inside = all(
            isinstance(k, Integral) and 0 <= int(k) < n for k, n in zip(key, event, strict=True)
        )
        place = int(np.ravel_multi_index(key, event)) if inside else None
    if place is None:
        raise ValueError(
            f"boundary is for coordinate {key!r}, but an event of shape {event} has coordinates "
            f"0 … {count - 1}, or tuples of {len(event)} indices; pass one of these."
        )
    return place
