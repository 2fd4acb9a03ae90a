"""Checks of single numbers at the door: what came, what was expected, by the argument's name.

Nothing here imports torch, so that a configuration can be refused before it is loaded.
"""

import math
from collections.abc import Callable, Collection
from numbers import Real
from typing import Any


def check_finite(name: str, value: float) -> None:
    """Refuse ±∞ and NaN.

    Raises:
        TypeError: If it is no number.
        ValueError: Naming the argument.
    """
    _check_number(name, value, "be finite", math.isfinite)


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not finite and > 0.

    Raises:
        TypeError: If it is no number.
        ValueError: Naming the argument.

    >>> check_positive("temperature", 0.0)
    Traceback (most recent call last):
    ...
    ValueError: temperature must be finite and > 0, but is 0.
    """
    _check_number(name, value, "be finite and > 0", lambda v: 0 < v < math.inf)


def check_not_negative(name: str, value: float) -> None:
    """Refuse a number that is not finite and ≥ 0.

    Raises:
        TypeError: If it is no number.
        ValueError: Naming the argument.
    """
    _check_number(name, value, "be finite and ≥ 0", lambda v: 0 <= v < math.inf)


def check_share(name: str, value: float) -> None:
    """Refuse a number outside [0, 1].

    Raises:
        TypeError: If it is no number.
        ValueError: Naming the argument.
    """
    _check_number(name, value, "lie in [0, 1]", lambda v: 0 <= v <= 1)


def check_word(name: str, value: object, words: Collection[str], hint: str = "") -> None:
    """Refuse a value that is none of some words; a hint stands at the end of the message.

    Raises:
        ValueError: Naming the argument and the words.
    """
    if not isinstance(value, str) or value not in words:
        listed = " or ".join(map(repr, words))
        raise ValueError(f"{name} must be {listed}, but is {value!r}{hint}.")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        TypeError: Naming the argument.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, but is {type(value).__name__}.")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse what is no int, or one that is too small.

    Raises:
        TypeError: If it is no int; True and False are none.
        ValueError: If it is below the least.
    """
    if check_int(name, value) < least:
        raise ValueError(f"{name} must be ≥ {least}, but is {value}.")


def check_int(name: str, value: object) -> int:
    """Return an int; refuse anything else.

    Raises:
        TypeError: Naming the argument; True and False are none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, but is {type(value).__name__}.")
    return value


def check_number(name: str, value: object) -> None:
    """Refuse what is no real number.

    Raises:
        TypeError: Naming the argument; True and False are none.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        came = repr(value) if isinstance(value, str | bool) else type(value).__name__
        raise TypeError(f"{name} must be a number, but is {came}.")


def _check_number(name: str, value: float, what: str, holds: Callable[[Any], bool]) -> None:
    """Refuse what is no number, or one of which something does not hold."""
    check_number(name, value)
    if not holds(value):
        raise ValueError(f"{name} must {what}, but is {float(value):g}.")
