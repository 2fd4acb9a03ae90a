"""Folding: the place of a coordinate between mirrors, and how often it was seen in one.

A path that runs on beyond a mirror is, seen from inside, the path that is sent back. Between two
ends at a distance L the line is folded with period 2L; what stands in an odd fold is reversed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def folded(x: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return numbers mirrored at the ends, as often as it takes, and which of them an odd number.

    Args:
        x: Where a step has led, any shape.
        low: Lower end, −∞ where there is none.
        high: Upper end, ∞ where there is none; one of them is finite.

    >>> folded(torch.tensor([0.25, 1.25, 2.25]), 0.0, 1.0)
    (tensor([0.2500, 0.7500, 0.2500]), tensor([False,  True, False]))
    """
    if math.isinf(low) or math.isinf(high):
        beyond, wall = (x < low, low) if math.isinf(high) else (x > high, high)
        return torch.where(beyond, 2 * wall - x, x), beyond
    # one fold of the line onto [0, 2L) and one at L handle any overshoot
    inside = (x >= low) & (x <= high)
    along = torch.remainder(x - low, 2 * (high - low))
    back = 2 * (high - low) - along
    place = (low + torch.minimum(along, back)).clamp(low, high)
    # inside low + (x − low) would add rounding, step after step
    return torch.where(inside, x, place), (back < along) & ~inside
