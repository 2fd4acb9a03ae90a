"""Bounded features of states, of which the errors of a drift or a noise would be functions.

With u = (x − c)/w of a coordinate, c its median and w the half of its middle 80 %,

    u/√(1 + u²),        (1 − u²)/(1 + u²),        2u/(1 + u²)

are odd, even and odd again. They are bounded, so that no few states decide a sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = ("rises with", "is even in", "bends with")


def standardised(x: Tensor, first: int) -> Tensor:
    """Return u = (x − c)/w of states (F, B, D), with c and w from the first frames."""
    seen = x[:first].flatten(0, 1)
    if len(seen) > 2**16:
        seen = seen[:: -(-len(seen) // 2**16)]
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    low, centre, high = torch.quantile(seen, levels, dim=0)
    width = 0.5 * (high - low)
    # where all begin at one point the first frames have no width: that of all serves
    fallback = x.flatten(0, 1).std(0) if x.shape[0] * x.shape[1] > 1 else torch.ones_like(width)
    width = torch.where(width > 1e-3 * fallback, width, fallback)
    u: Tensor = (x - centre) / torch.where(width > 0, width, 1.0)
    return u


def features_of(u: Tensor) -> Tensor:
    """Return the three features of each coordinate, shape (..., D, 3)."""
    r = 1 / (1 + u.square())
    return torch.stack([u * r.sqrt(), 2 * r - 1, 2 * u * r], -1)
