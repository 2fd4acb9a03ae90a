"""Normals of probabilities, with all digits in both tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_density(z: Tensor) -> Tensor:
    """Return log φ(z)."""
    return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)


def normal_between(low: Tensor, high: Tensor) -> Tensor:
    """Return Φ⁻¹(Φ(high) − Φ(low)), low ≤ high, from the smaller of the tails.

    >>> low, high = torch.tensor([-1e3]).double(), torch.tensor([1.5]).double()
    >>> round(float(normal_between(low, high)), 12)
    1.5
    """
    below = torch.special.ndtr(high) - torch.special.ndtr(low)
    above = torch.special.ndtr(-high) + torch.special.ndtr(low)  # 1 − below, without 1
    return normal_of(below, above)


def normal_of(below: Tensor, above: Tensor) -> Tensor:
    """Return z with Φ(z) = below, 1 − Φ(z) = above, both given since one loses its digits."""
    lower = below <= above
    tail = torch.where(lower, below, above).clamp(1e-300, 0.5)
    z = torch.special.ndtri(tail)
    return torch.where(lower, z, -z)
