"""Rounding: how far a stored number may be from the one that was computed.

    half a unit of the last digit that was kept

It is the same for all numbers where a text keeps so many decimals ("%.4f"), goes with the number
where it keeps so many digits ("%g"), and where a float is of fewer bits than it was computed in.
"""

from __future__ import annotations

import torch
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
