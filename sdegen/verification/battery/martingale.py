"""Sums Σ φ_k z_k of innovations with what was known before, and their exact law.

φ_k depends on states up to x_k, z_k on what comes after, so that under the law that is believed
the sum is a martingale. Divided by √Σ φ² it is a standard normal where Σ φ² hardly fluctuates: of
many trajectories, or long ones. Of few correlated trajectories it is not: of a random walk it has
the law of Dickey and Fuller. There the clock is changed (Dambis; Dubins and Schwarz): the sum runs
until Σ φ² has come to a level that was fixed beforehand, by the first frames, and if it does not,
fresh noise makes up for the rest. That is a standard normal whatever the dynamics are.

Reference:
    Dubins and Schwarz 1965, PNAS 53, 913; Dickey and Fuller 1979, JASA 74, 427.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MANY = 32  # trajectories from which Σ φ² hardly fluctuates
_PREFIX = 8  # the first of so many parts of a run sets the level, by its second half
_SHORT = 64  # frames below which a run has no first part to speak of


def needs_clock(batch: int) -> bool:
    """Return whether so few trajectories are judged by the changed clock."""
    return batch < _MANY


def prefix_of(frames: int) -> int:
    """Return how many frames set level and scales."""
    return max(1, frames // _PREFIX)


def normal_sums(phi: Tensor, z: Tensor, fresh: torch.Generator) -> Tensor:
    """Return Σ φ z as standard normals, one for each feature, shape (P,).

    Args:
        phi: What was known before each step, shape (F, B, P): a feature of each row.
        z: Innovations, shape (F, B).
        fresh: Draws what makes up for a level that is not reached.
    """
    frames, batch = z.shape
    products = (phi * z[..., None]).sum(1)  # (F, P)
    squares = phi.square().sum(1)
    if not needs_clock(batch) or frames < _SHORT:
        return products.sum(0) / squares.sum(0).clamp(min=1e-300).sqrt()
    first = prefix_of(frames)
    # a run may begin far from where it stays: the second half of the first part is nearer
    level = squares[first // 2 : first].mean(0) * (frames - first)
    clock = squares[first:].cumsum(0)
    before = clock - squares[first:]
    # the last step counts by what is missing to the level: √share of it has that variance
    share = ((level - before) / squares[first:].clamp(min=1e-300)).clamp(0.0, 1.0)
    total = (share.sqrt() * products[first:]).sum(0)
    missing = (level - clock[-1]).clamp(min=0.0)
    draw = torch.randn(len(level), generator=fresh, dtype=torch.float64)
    return (total + missing.sqrt() * draw) / level.clamp(min=1e-300).sqrt()
