"""Named arrays: files that hold several, of which one is the states and one may be the times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from sdegen.core.requests import kind_of
from sdegen.readers.frames import Frames
from sdegen.readers.request import Found, Request

_TIMES = ("times", "time", "t")


class Named(ABC):
    """Arrays of a file, by name.

    Attributes:
        shapes: Shape of each of them.
    """

    shapes: Mapping[str, tuple[int, ...]]

    @abstractmethod
    def states(self, name: str, layout: object) -> Tensor | Frames:
        """Return an array as (T, batch, *event)."""

    @abstractmethod
    def numbers(self, name: str) -> Tensor:
        """Return an array of numbers in float64."""


def found_in(named: Named, request: Request, where: str) -> Found:
    """Return states, velocities and times of a file of named arrays.

    Args:
        named: Its arrays.
        request: What was said: `key` names the states, and needs not where one array alone can be
            them; `velocities` and `times` may be names too.
        where: The file.

    Raises:
        TypeError: If a name is no text.
        ValueError: If there is no such array, or several could be the states.
    """
    v = request.velocities
    if v is not None and not isinstance(v, str):
        raise TypeError(
            f"velocities must be the name of an array in {where}, but is {kind_of(v)}."
        )
    key = _key_of(named.shapes, request, where)
    for name in (key, v, request.times):
        if isinstance(name, str):
            _check_there(name, named.shapes, where)
    times = request.times if isinstance(request.times, str) else None
    if times is None and request.times is None:
        times = _times_beside(key, named.shapes)
    return Found(
        named.states(key, request.layout),
        None if v is None else named.states(v, request.layout),
        times=None if times is None else named.numbers(times),
        where=where if len(named.shapes) == 1 else f"{where}, {key!r}",
    )


def _key_of(shapes: Mapping[str, tuple[int, ...]], request: Request, where: str) -> str:
    """Return the name of the states."""
    if request.key is not None:
        if not isinstance(request.key, str):
            raise TypeError(
                f"key must be the name of an array in {where}, but is {kind_of(request.key)}."
            )
        return request.key
    others = [n for n in shapes if n.split("/")[-1] not in _TIMES]
    others = [n for n in others if n not in (request.velocities, request.times)]
    if len(others) != 1:
        raise ValueError(
            f"{where} holds {_listed(shapes)}; say which of them are the states, key=…."
        )
    return others[0]


def _check_there(name: str, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Refuse a name that no array has."""
    if name not in shapes:
        raise ValueError(f"{where} holds no {name!r}, but {_listed(shapes)}; pass one of these.")


def _times_beside(key: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the name of times in the same group, if there are some."""
    group = key.rpartition("/")[0]
    names = [f"{group}/{name}" if group else name for name in _TIMES]
    return next((n for n in names if n in shapes and n != key and len(shapes[n]) == 1), None)


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the arrays of a file in words."""
    if not shapes:
        return "no arrays"
    return ", ".join(f"{name!r} of shape {shape}" for name, shape in shapes.items())
