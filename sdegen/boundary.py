"""Boundaries: the ends of the space a coordinate lives in, the same for particles and densities.

    Reflecting(low, high)   what arrives is sent back; probability is kept (Skorokhod reflection)
    Absorbing(low, high)    what arrives stays there for good; probability leaves
    Periodic(low, high)     what leaves at one end comes in at the other

Either end may be left out where only the other is one: `Reflecting(0.0)` keeps a coordinate above
0, `Absorbing(high=1.0)` stops what comes to 1. The ends of `Absorbing` may be functions of t.

A boundary belongs to one coordinate. A state of several has one for each that needs any:

    boundary={0: Periodic(0.0, 2 * pi)}                 coordinate 0 of the flattened event
    boundary={(1, 0): Reflecting(0.0)}                  coordinate [1, 0] of an event of two axes
    boundary=[Periodic(0.0, 2 * pi), None]              one entry for each, None where it is free
    boundary={0: (Reflecting(0.0), Absorbing(high=1.0))}    a lower and an upper end of two kinds

and `coordinates="all"` says that one box is meant for each of them. A trajectory that has met an
absorbing end with any of its coordinates stays where it is with all of them: what is absorbed is
the trajectory.

What a step of the chain does at an end is in `sdegen.solvers.containment`. The words "no-flux",
"absorbing" and "periodic" name the same three where a grid says where the ends are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from sdegen.requests import refuse_lost_gradient
from sdegen.shapes import State

__all__ = [
    "Absorbing",
    "Bound",
    "Boundary",
    "BoundaryLike",
    "Enclosure",
    "End",
    "EndKind",
    "Interval",
    "Periodic",
    "Reflecting",
    "Walls",
    "check_end_kind",
    "enclosure_of",
    "interval_of",
    "of_words",
    "refuse_walls",
    "values_of",
]

Bound = float | Callable[[Any], Any]
EndKind = Literal["no-flux", "absorbing", "periodic"]


def check_end_kind(kind: object, argument: str) -> None:
    """Refuse a word that names no boundary.

    Raises:
        ValueError: Naming the argument, what came, and the words there are.
    """
    if not (isinstance(kind, str) and kind in get_args(EndKind)):
        words = ", ".join(repr(word) for word in get_args(EndKind))
        raise ValueError(f"{argument} must be one of {words}, but is {kind!r}.")


def values_of(bound: Bound, times: Tensor) -> Tensor:
    """Return the values of a bound at times, shape (T,), float64.

    Args:
        bound: A number, or a function of t.
        times: Shape (T,), float64.

    Raises:
        TypeError: If a function returns a tensor whose gradient would be lost.
        ValueError: If a function returns no finite number at some time.
    """
    if not callable(bound):
        return torch.full((len(times),), float(bound), dtype=torch.float64)
    ts = times.detach().to("cpu", torch.float64)
    refuse_lost_gradient("a bound", bound(ts[0]), "the place of a boundary")
    values = _at_once(bound, ts)
    if values is None:
        values = torch.tensor([float(bound(t)) for t in ts.unbind()], dtype=torch.float64)
    bad = ~values.isfinite()
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ValueError(
            f"a bound must be finite at all times, but at t = {float(ts[i]):g} it is "
            f"{float(values[i]):g}."
        )
    return values


def _at_once(bound: Callable[[Any], Any], ts: Tensor) -> Tensor | None:
    """Return the values at all times in one call, where that gives what single calls do."""
    try:
        values = torch.as_tensor(bound(ts), dtype=torch.float64)
        if values.shape != ts.shape:
            return None
        for k in {0, len(ts) // 2, len(ts) - 1}:
            if not math.isclose(float(bound(ts[k])), float(values[k]), rel_tol=1e-12):
                return None
    except (TypeError, ValueError, RuntimeError):
        return None
    return values.detach()


def _number_of(name: str, owner: str, value: object) -> float:
    """Return an end as a number.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        return float(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list | tuple | Tensor | np.ndarray):
        raise TypeError(
            f"{name} of {owner} must be one number, but is {value!r}; for ends of each coordinate "
            f"pass boundary={{0: {owner}(…), 1: {owner}(…)}}."
        )
    if callable(value):
        raise TypeError(
            f"{name} of {owner} must be a number, but is a function; an end that moves absorbs: "
            "pass Absorbing(low, high)."
        )
    raise TypeError(f"{name} of {owner} must be a number, but is {value!r}.")


@dataclass(frozen=True)
class End:
    """What bounds one coordinate on one side.

    Attributes:
        kind: "no-flux", "absorbing" or "periodic".
        at: Where, a number or a function of t.
        bridge: Whether paths that touch an absorbing end between two steps are absorbed too.
    """

    kind: EndKind
    at: Bound
    bridge: bool = False


@dataclass(frozen=True)
class Interval:
    """What bounds one coordinate: a lower and an upper end, None where it is free.

    Raises:
        ValueError: If low ≥ high.
    """

    low: End | None
    high: End | None

    def __post_init__(self) -> None:
        kinds = [None if end is None else end.kind for end in (self.low, self.high)]
        assert "periodic" not in kinds or kinds[0] == kinds[1]  # as Periodic has them
        if self.low is None or self.high is None:
            return
        low, high = self.low.at, self.high.at
        if not (callable(low) or callable(high)) and not low < high:
            raise ValueError(f"a boundary needs low < high, but low = {low:g}, high = {high:g}.")

    @property
    def ends(self) -> tuple[End, ...]:
        """Those that there are."""
        return tuple(end for end in (self.low, self.high) if end is not None)

    @property
    def periodic(self) -> bool:
        """Whether its ends are one place."""
        return self.low is not None and self.low.kind == "periodic"

    @property
    def absorbs(self) -> bool:
        """Whether one of its ends absorbs."""
        return any(end.kind == "absorbing" for end in self.ends)

    @property
    def bridged(self) -> bool:
        """Whether one of its ends absorbs between two steps too."""
        return any(end.kind == "absorbing" and end.bridge for end in self.ends)

    @property
    def fixed(self) -> tuple[float, float]:
        """Where the ends of one that does not move are, ∓∞ where there is none."""
        low = -math.inf if self.low is None else cast(float, self.low.at)
        high = math.inf if self.high is None else cast(float, self.high.at)
        return low, high

    @property
    def moves(self) -> bool:
        """Whether one of its ends is a function of t."""
        return any(callable(end.at) for end in self.ends)

    def __str__(self) -> str:
        low, high = (
            "−∞" if end is None and first else "∞" if end is None else _said(end.at)
            for first, end in ((True, self.low), (False, self.high))
        )
        return f"[{low}, {high}]"


def _said(bound: Bound) -> str:
    return "b(t)" if callable(bound) else f"{bound:g}"


@dataclass(frozen=True)
class Boundary:
    """What happens at the ends of a coordinate: `Reflecting`, `Absorbing` or `Periodic`.

    Args:
        low: Lower end, in units of the state; −∞ where there is none.
        high: Upper end; ∞ where there is none.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    Raises:
        TypeError: If an end is no number.
        ValueError: If low ≥ high, there is no end at all, or coordinates is another word.
    """

    low: Bound = -math.inf
    high: Bound = math.inf
    coordinates: Literal["all"] | None = field(default=None, kw_only=True)

    kind: ClassVar[EndKind] = "no-flux"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if type(self) is Boundary:
            raise TypeError(
                "Boundary is what the three have in common; pass Reflecting(low, high), "
                "Absorbing(low, high) or Periodic(low, high)."
            )
        for end in ("low", "high"):
            object.__setattr__(self, end, self._bound(end, getattr(self, end)))
        if self.coordinates not in (None, "all"):
            raise ValueError(
                f"coordinates must be None or 'all', but is {self.coordinates!r}; for some of "
                f"them pass boundary={{0: {name}(…)}}."
            )
        low, high = self.low, self.high
        if callable(low) or callable(high):
            return
        if not low < high:
            raise ValueError(f"{name} needs low < high, but low = {low:g}, high = {high:g}.")
        if math.isinf(low) and math.isinf(high):
            raise ValueError(f"{name} has no end; pass {name}(0.0) or {name}(high=1.0).")

    def _bound(self, end: str, value: object) -> Bound:
        """Return an end as a number, or as the function of t that it may be."""
        return _number_of(end, type(self).__name__, value)

    @property
    def ends(self) -> tuple[End | None, End | None]:
        """The lower and the upper end, None where there is none."""
        low, high = (
            End(self.kind, at, bridge=self._bridged) if callable(at) or math.isfinite(at) else None
            for at in (self.low, self.high)
        )
        return low, high

    @property
    def _bridged(self) -> bool:
        return False


@dataclass(frozen=True)
class Reflecting(Boundary):
    """What arrives is sent back; probability is kept.

    A step that ends beyond is folded back. Where the noise vanishes at an end, as √x does at 0,
    folding would push the trajectories away from it; there a step is taken instead that keeps to
    this side by construction (`sdegen.solvers.containment`).

    Args:
        low: Lower end; −∞ for none.
        high: Upper end; ∞ for none.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    >>> Reflecting(0.0)
    Reflecting(low=0.0, high=inf, coordinates=None)
    """

    kind: ClassVar[EndKind] = "no-flux"


@dataclass(frozen=True)
class Absorbing(Boundary):
    """What arrives stays there for good; probability leaves.

    Args:
        low: Lower end, a number or a function of t; −∞ for none.
        high: Upper end, likewise; ∞ for none.
        bridge: Whether paths that touch an end between two steps, where the chain does not see
            it, are absorbed too.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    >>> Absorbing(high=lambda t: 1 + t).low
    -inf
    """

    bridge: bool = field(default=True, kw_only=True)

    kind: ClassVar[EndKind] = "absorbing"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.bridge, bool):
            raise TypeError(f"bridge must be True or False, but is {self.bridge!r}.")

    def _bound(self, end: str, value: object) -> Bound:
        if callable(value) and not isinstance(value, Tensor):
            return value
        return super()._bound(end, value)

    @property
    def _bridged(self) -> bool:
        return self.bridge


@dataclass(frozen=True)
class Periodic(Boundary):
    """What leaves at one end comes in at the other: [low, high] is one period of the dynamics.

    Args:
        low: Lower end.
        high: Upper end, low + L.
        coordinates: "all" where one box is meant for each coordinate of a state of several.
    """

    kind: ClassVar[EndKind] = "periodic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(cast(float, at)) for at in (self.low, self.high)):
            raise ValueError(
                f"a period has two ends, but low = {self.low:g}, high = {self.high:g}; pass "
                "Periodic(low, low + period)."
            )


One = Boundary | tuple[Boundary, Boundary]
BoundaryLike = One | Mapping[int | tuple[int, ...], One] | Sequence[One | None]


_CLASSES: dict[str, type[Boundary]] = {
    kind.kind: kind for kind in (Reflecting, Absorbing, Periodic)
}


def of_words(kinds: EndKind | tuple[EndKind, EndKind], low: Bound, high: Bound) -> One:
    """Return the boundary that words name, where its ends are known.

    Args:
        kinds: A word, or a pair (lower, upper).
        low: Lower end.
        high: Upper end.

    >>> of_words("absorbing", 0.0, 1.0)
    Absorbing(low=0.0, high=1.0, coordinates=None, bridge=True)
    """
    lower, upper = (kinds, kinds) if isinstance(kinds, str) else kinds
    if lower == upper:
        return _CLASSES[lower](low, high)
    return _CLASSES[lower](low), _CLASSES[upper](high=high)


class Walls:
    """The box of version 0.1; it says what to write in its place.

    Args:
        low: Lower end.
        high: Upper end.
        kind: A word, or a pair of words.
        coordinates: "all" for a box around each coordinate.

    Raises:
        TypeError: Always, with the boundary= line.
    """

    def __init__(
        self, low: object, high: object, kind: object = "no-flux", *, coordinates: object = None
    ) -> None:
        lower, upper = kind if isinstance(kind, tuple) and len(kind) == 2 else (kind, kind)
        names = [
            _CLASSES[word].__name__ if isinstance(word, str) and word in _CLASSES else "Reflecting"
            for word in (lower, upper)
        ]
        every = ", coordinates='all'" if coordinates == "all" else ""
        line = f"{names[0]}({low}, {high}{every})"
        if names[0] != names[1]:
            line = f"({names[0]}({low}), {names[1]}(high={high}))"
        raise TypeError(f"Walls is no more: write boundary={line} in its place.")


def refuse_walls(walls: object) -> None:
    """Refuse the argument of version 0.1.

    Raises:
        TypeError: Unless it is None, with the boundary= line.
    """
    if walls is not None:
        raise TypeError(
            f"walls= is no more, but is {walls!r}: write boundary=Reflecting(low, high), "
            "boundary=Absorbing(low, high) or boundary=Periodic(low, high) in its place."
        )


def interval_of(boundary: object) -> Interval:
    """Return what bounds one coordinate.

    Args:
        boundary: One of the three classes, or a pair (lower, upper) of which each has one end.

    Raises:
        TypeError: If it is neither.
        ValueError: If a pair has an end twice, or only one end is periodic.
    """
    if isinstance(boundary, Boundary):
        return Interval(*boundary.ends)
    if isinstance(boundary, tuple) and len(boundary) == 2:
        lower, upper = boundary
        if isinstance(lower, Boundary) and isinstance(upper, Boundary):
            below, above = lower.ends, upper.ends
            if None in (below[0], above[1]) or (below[1], above[0]) != (None, None):
                raise ValueError(
                    f"a pair (lower, upper) has one end each, but is ({lower!r}, {upper!r}); pass "
                    "such as (Reflecting(0.0), Absorbing(high=1.0))."
                )
            return Interval(below[0], above[1])
    if isinstance(boundary, str) or (
        isinstance(boundary, tuple) and any(isinstance(b, str) for b in boundary)
    ):
        raise TypeError(
            f"boundary is {boundary!r}, and a word does not say where its ends are; pass "
            "Reflecting(low, high), Absorbing(low, high) or Periodic(low, high)."
        )
    raise TypeError(
        "the boundary of a coordinate must be Reflecting(low, high), Absorbing(low, high), "
        f"Periodic(low, high), or a pair (lower, upper) of them, but is {boundary!r}."
    )


@dataclass(frozen=True)
class Enclosure:
    """What bounds the coordinates of a state, one interval for each set of them.

    Attributes:
        event: Shape of the event.
        parts: Pairs (coordinates of the flattened event, interval); None is all of them.
    """

    event: tuple[int, ...]
    parts: tuple[tuple[tuple[int, ...] | None, Interval], ...]

    @property
    def absorbs(self) -> bool:
        """Whether a trajectory may end at it."""
        return any(interval.absorbs for _, interval in self.parts)

    @property
    def periodic(self) -> bool:
        """Whether a coordinate goes around."""
        return any(interval.periodic for _, interval in self.parts)

    @property
    def bridged(self) -> bool:
        """Whether what happens between two steps is asked."""
        return any(interval.bridged for _, interval in self.parts)

    def of(self, coordinate: int) -> Interval | None:
        """Return what bounds one coordinate of the flattened event, None where it is free."""
        for coordinates, interval in self.parts:
            if coordinates is None or coordinate in coordinates:
                return interval
        return None

    def columns(self, coordinates: tuple[int, ...] | None) -> tuple[int, ...]:
        """Return the coordinates of a part, all of them where it has None."""
        return tuple(range(math.prod(self.event))) if coordinates is None else coordinates

    def periods(self) -> Tensor:
        """Return the period of each coordinate, shape (*event,), float64; 0 for none."""
        lengths = torch.zeros(math.prod(self.event), dtype=torch.float64)
        for coordinates, interval in self.parts:
            if interval.periodic:
                assert interval.low is not None
                assert interval.high is not None
                length = cast(float, interval.high.at) - cast(float, interval.low.at)
                lengths[list(self.columns(coordinates))] = length
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
            low, high = (
                far if end is None else float(values_of(end.at, t[None])[0])
                for end, far in ((interval.low, -math.inf), (interval.high, math.inf))
            )
            if not bool(((some >= low) & (some <= high)).all()):
                which = "" if flat.shape[1] == 1 else f" in coordinates {coordinates or 'all'}"
                raise ValueError(
                    f"{name} must start inside the boundary [{low:g}, {high:g}]{which}, but spans "
                    f"{float(some.min()):g} … {float(some.max()):g}; start it inside, or move "
                    "the boundary."
                )


def enclosure_of(boundary: object, event: Sequence[int]) -> Enclosure | None:
    """Return what bounds a state of a given event, None where nothing does.

    Args:
        boundary: One of the three classes, a pair of them, a mapping from coordinates to either,
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
            kind = next(iter(interval.ends)).kind if interval.ends else "no-flux"
            raise ValueError(
                f"one box {interval} for {count} coordinates would bound each of them; pass "
                f"boundary={{0: {_CLASSES[kind].__name__}(…)}} for coordinate 0 alone, or say "
                "coordinates='all' in the box where each is meant."
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
