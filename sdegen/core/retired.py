"""Names of version 0.1, which say what to write in their place."""

from __future__ import annotations

from collections.abc import Mapping

_CLASSES = {"absorbing": "Absorbing", "periodic": "Periodic"}


class Walls:
    """The box of version 0.1; it says what to write in its place.

    Args:
        low: Lower end.
        high: Upper end.
        kind: A word, or a pair of words.
        coordinates: "all" for a box around each coordinate.

    Raises:
        TypeError: Always, with the boundary= line.

    Example:
        >>> sg.Walls(0.0, 1.0, "absorbing")
        Traceback (most recent call last):
            ...
        TypeError: Walls is no more: write boundary=Absorbing(0.0, 1.0) in its place.
    """

    def __init__(
        self, low: object, high: object, kind: object = "no-flux", *, coordinates: object = None
    ) -> None:
        lower, upper = kind if isinstance(kind, tuple) and len(kind) == 2 else (kind, kind)
        names = [_CLASSES.get(str(word), "Reflecting") for word in (lower, upper)]
        every = ", coordinates='all'" if coordinates == "all" else ""
        line = f"{names[0]}({low}, {high}{every})"
        if names[0] != names[1]:
            line = f"({names[0]}({low}), {names[1]}(high={high}))"
        raise TypeError(f"Walls is no more: write boundary={line} in its place.")


def refuse_old_methods(kind: type, renamed: Mapping[str, str]) -> None:
    """Refuse a class that defines a method by its name of version 0.1, which nobody would call.

    Args:
        kind: The class.
        renamed: Names of today by those of version 0.1.

    Raises:
        TypeError: With the name of today.
    """
    for before, now in renamed.items():
        if before in vars(kind):
            raise TypeError(
                f"{kind.__name__} defines {before}, which is {now} since version 0.2: call it "
                f"{now}."
            )


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
