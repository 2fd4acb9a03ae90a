"""Normals of probabilities, with all digits in both tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_density(z: Tensor) -> Tensor:
    """Return log φ(z)."""
    return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)


def lower_tail(x: Tensor) -> Tensor:
    """Return Φ(x) with all digits of its lower tail, where torch's ndtr is 0 from −8.3 on.

    >>> float(lower_tail(torch.tensor(-9.0).double()))  # doctest: +ELLIPSIS
    1.128588405953...e-19
    """
    tail: Tensor = 0.5 * torch.special.erfc(-math.sqrt(0.5) * x)
    return tail


def normal_between(low: Tensor, high: Tensor) -> Tensor:
    """Return Φ⁻¹(Φ(high) − Φ(low)), low ≤ high, from the smaller of the tails.

    >>> low, high = torch.tensor([-1e3]).double(), torch.tensor([1.5]).double()
    >>> round(float(normal_between(low, high)), 12)
    1.5
    """
    flip = low > 0  # both in the upper tail
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    inside = lower_tail(b) - lower_tail(a)
    outside = lower_tail(-high) + lower_tail(low)  # 1 − inside, without 1
    return normal_of(inside, outside)


def normal_of(under: Tensor, over: Tensor) -> Tensor:
    """Return z with Φ(z) = under, 1 − Φ(z) = over, both given since one loses its digits."""
    lower = under <= over
    tail = torch.where(lower, under, over).clamp(1e-300, 0.5)
    z = torch.special.ndtri(tail)
    return torch.where(lower, z, -z)
