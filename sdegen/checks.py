"""Checks of single numbers at the door: what came, what was expected, by the argument's name.

Nothing here imports torch, so that a configuration can be refused before it is loaded.
"""

import math

__all__ = ["check_count", "check_finite", "check_not_negative", "check_positive"]


def check_finite(name: str, value: float) -> None:
    """Refuses ±∞ and NaN.

    Raises:
        ValueError: Naming the argument.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, but is {value:g}.")


def check_positive(name: str, value: float) -> None:
    """Refuses a number that is not finite and > 0.

    Raises:
        ValueError: Naming the argument.

    >>> check_positive("temperature", 0.0)
    Traceback (most recent call last):
    ...
    ValueError: temperature must be finite and > 0, but is 0.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and > 0, but is {value:g}.")


def check_not_negative(name: str, value: float) -> None:
    """Refuses a number that is not finite and ≥ 0.

    Raises:
        ValueError: Naming the argument.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and ≥ 0, but is {value:g}.")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuses what is no int, or one that is too small.

    Raises:
        TypeError: If it is no int; True and False are none.
        ValueError: If it is below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, but is {type(value).__name__}.")
    if value < least:
        raise ValueError(f"{name} must be ≥ {least}, but is {value}.")
