"""What arithmetic leaves behind in a density that was carried in time, and takes off again.

The rational exponential leaves values of some 10⁻¹³ of the peak below zero, and lets the mass of
a hundred outputs drift by as much. The compact form has no rule of signs: where a density is not
resolved by the grid it rings, and goes below zero by more than that.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sdegen.fokker_planck import arrays
from sdegen.fokker_planck.arrays import AnyArray
from sdegen.fokker_planck.grid import Grid

__all__ = ["extremes", "rings", "without_rounding"]

_ROUNDING = 1e-11  # of the peak: what the rational exponential leaves below zero
_RINGS = 1e-9  # of the peak: what a density that the compact form resolves never goes below by

Extremes = tuple[NDArray[np.float64], NDArray[np.float64]]


def extremes(p: Float[Tensor, "... nodes"]) -> Extremes:
    """The lowest and the highest values of densities; NaN where there is one."""
    values = p.detach().numpy()
    return np.minimum.reduce(values, -1), np.maximum.reduce(values, -1)


def rings(span: Extremes) -> bool:
    """Whether a density goes below zero by more than rounding."""
    low, high = span
    return bool(np.count_nonzero(low < -_RINGS * high))


def without_rounding(
    p: Float[Tensor, "T *members nodes"], span: Extremes, grid: Grid, *, restored: bool
) -> Float[Tensor, "T *members nodes"]:
    """Takes rounding off: tiny negative values, and the drift of a mass that is conserved.

    Args:
        p: Densities at times, the start first.
        span: Their extremes.
        grid: Their grid.
        restored: Whether mass is that of the start, as it is where nothing absorbs.

    Returns:
        Densities of the same shape.
    """
    low, high = span
    if not np.isfinite(low + high).all():
        return p  # which is said elsewhere
    below = -_ROUNDING * high
    if p.requires_grad:
        floor = None if (low > below).all() else torch.from_numpy(below[..., None])
        return _trimmed(p, floor, grid, restored=restored)
    bare = None if (low > below).all() else below[..., None]
    return torch.from_numpy(_trimmed(p.numpy(), bare, grid, restored=restored))


def _trimmed(p: AnyArray, floor: AnyArray | None, grid: Grid, *, restored: bool) -> AnyArray:
    """Does it, to tensors or to arrays; without a floor all that is negative is rounding."""
    trimmed: AnyArray = (
        p.clip(0) if floor is None else arrays.of(p).where((p < 0) & (p > floor), 0.0, p)
    )
    if restored:
        mass = grid.masses(trimmed)
        trimmed = trimmed * (mass[0] / mass)[..., None]
    return trimmed
