"""Rounding: how far a stored number may be from the one that was computed.

    half a unit of the last digit that was kept

It is the same for all numbers where a text keeps so many decimals ("%.4f"), goes with the number
where it keeps so many digits ("%g"), and where a float is of fewer bits than it was computed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def decimal_half_digits(x: Tensor, digits: int, unit: Tensor) -> Tensor:
    """Return half a unit of the last of so many significant digits, shape of x.

    Args:
        x: Numbers, float64.
        digits: How many digits are kept, ≥ 1.
        unit: What one unit of the text is, broadcastable to x.
    """
    size = (x / unit).abs()
    # the logarithm of a power of ten may fall short of it by its rounding
    decade = (size.clamp(min=1e-300).log10() + 1e-12).floor()
    half = 0.5 * torch.pow(10.0, decade - (digits - 1)) * unit.abs()
    return torch.where(size > 0, half, 0.0)


def binary_half_digits(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return half a unit of the last bit of a dtype, shape of x.

    Args:
        x: Numbers, float64.
        dtype: That they were kept in.
    """
    kept = torch.finfo(dtype)
    _, exponent = torch.frexp(x)
    half = torch.ldexp(torch.full_like(x, kept.eps / 4), exponent)
    half = torch.where(x == 0, 0.0, half)  # of which frexp says the exponent of 1
    return half.clamp(min=kept.tiny * kept.eps / 2)


_SAMPLE = 4096  # numbers of a column that are looked at
_OF_FRAME = 64  # of these are from one frame
_ALL = 17  # digits that tell one float64 from the next
_FEW = 0.05  # of the numbers may have as many though decimals were cut, as 0.1 + 0.2 has


@dataclass(frozen=True)
class Kept:
    """What a text kept of its numbers.

    Attributes:
        absolute: Half of a unit of the last decimal, 0 where their number is not fixed.
        digits: Significant digits, where their number is fixed; None where all were kept.
    """

    absolute: float = 0.0
    digits: int | None = None

    def bound(self, size: float) -> float:
        """Return the largest rounding of numbers that are no larger than size."""
        if self.digits is None:
            return self.absolute
        top = torch.tensor([size], dtype=torch.float64)
        return max(self.absolute, float(decimal_half_digits(top, self.digits, torch.ones(1))))


class Sample:
    """Numbers as they are written, from all along a file: a start on a lattice has few digits."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, texts: Sequence[str]) -> None:
        """Take some of the numbers of a frame."""
        self.texts += texts[:: -(-len(texts) // _OF_FRAME) or 1]
        if len(self.texts) > 2 * _SAMPLE:
            del self.texts[::2]


def kept_by(texts: Sequence[str]) -> Kept:
    """Return what was kept of numbers, seen in how they are written.

    A number of decimals that most of them have ("%.4f", or round(x, 4)), or a number of digits
    ("%g", "%.6e"), whichever more of them have; nothing was cut where they have 17 digits, as
    Python and NumPy write a float64.

    Args:
        texts: Numbers as they are written, of one quantity.

    >>> kept_by(["0.1250", "-12.5000"])
    Kept(absolute=5e-05, digits=None)
    >>> kept_by(["0.0123457", "-12.3457", "1234.57"])
    Kept(absolute=0.0, digits=6)
    """
    step = -(-len(texts) // _SAMPLE)
    counts = [c for c in map(_digits_and_decimals, texts[::step]) if c is not None]
    long = [c for c in counts if c[0] >= _ALL - 1]
    if len(long) <= _FEW * len(counts):
        counts = [c for c in counts if c[0] < _ALL - 1]
    if not counts:
        return Kept()
    digits, decimals = max(c[0] for c in counts), max(c[1] for c in counts)
    if digits >= _ALL:
        return Kept()
    with_digits = sum(c[0] == digits for c in counts if c[0])
    with_decimals = sum(c[1] == decimals for c in counts)
    if digits == 0 or with_decimals >= with_digits:
        return Kept(absolute=float(f"0.5e{-decimals}"))
    return Kept(digits=digits)


def is_number(text: str) -> bool:
    """Return whether a text is a number; NaN and ∞ are."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _digits_and_decimals(text: str) -> tuple[int, int] | None:
    """Return how many digits and decimals a number is written with; None for NaN and ∞."""
    mantissa, _, exponent = text.strip().lstrip("+-").lower().replace("d", "e").partition("e")
    whole, _, part = mantissa.partition(".")
    if not (whole + part).isdigit():
        return None
    return len((whole + part).lstrip("0")), len(part) - int(exponent or 0)


def rounding_of(
    groups: Sequence[tuple[NDArray[np.float64] | None, Sequence[Kept]]],
) -> tuple[tuple[float | Tensor, float | Tensor], int | None]:
    """Return the rounding of positions and of velocities, and the digits of both.

    Digits hold for all coordinates or for none: where some are cut at decimals, those of the
    others are taken at the largest number.

    Args:
        groups: Positions and velocities, numbers of shape (…, coordinates) or None, each with what
            was kept of a coordinate.
    """
    kept = [k for _, group in groups for k in group]
    digits = [k.digits for k in kept if k.digits is not None]
    if kept and len(digits) == len(kept):
        return (0.0, 0.0), min(digits)
    first, second = (_halves(values, group) for values, group in groups)
    return (first, second), None


def _halves(values: NDArray[np.float64] | None, kept: Sequence[Kept]) -> float | Tensor:
    """Return the rounding of coordinates, shape (coordinates,); a number if all have one."""
    if values is None:
        return 0.0
    flat = np.abs(values).reshape(-1, len(kept))
    sizes = flat.max(0, initial=0.0, where=np.isfinite(flat))
    halves = [k.bound(float(size)) for k, size in zip(kept, sizes, strict=True)]
    return halves[0] if len(set(halves)) == 1 else torch.tensor(halves, dtype=torch.float64)
