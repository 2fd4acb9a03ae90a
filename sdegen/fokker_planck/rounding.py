"""What arithmetic leaves behind in a density that was carried in time, and takes off again.

The rational exponential leaves values of some 10⁻¹³ of the peak below zero, and lets the mass of
a hundred outputs drift by as much. The compact form has no rule of signs: where a density is not
resolved by the grid it rings, and goes below zero by more than that.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck import arrays
from sdegen.fokker_planck.arrays import AnyArray
from sdegen.fokker_planck.density import cell_masses
from sdegen.fokker_planck.grid import Grid

__all__ = ["rings", "without_rounding"]

_ROUNDING = 1e-11  # of the peak: what the rational exponential leaves below zero
_RINGS = 1e-9  # of the peak: what a density that the compact form resolves never goes below by


def rings(p: Float[Tensor, "... nodes"]) -> bool:
    """Whether a density goes below zero by more than rounding."""
    values = p.detach().numpy()
    low, high = np.minimum.reduce(values, -1), np.maximum.reduce(values, -1)
    return bool(np.count_nonzero(low < -_RINGS * high))


def without_rounding(
    p: Float[Tensor, "T *members nodes"], grid: Grid, *, restored: bool
) -> Float[Tensor, "T *members nodes"]:
    """Takes rounding off: tiny negative values, and the drift of a mass that is conserved.

    Args:
        p: Densities at times, the start first.
        grid: Their grid.
        restored: Whether mass is that of the start, as it is where nothing absorbs.

    Returns:
        Densities of the same shape.
    """
    values = p.detach().numpy()
    peak = np.maximum.reduce(values, -1, keepdims=True)
    if not math.isfinite(np.minimum.reduce(values, None) + np.maximum.reduce(peak, None)):
        return p  # which is said elsewhere
    floor, x = -_ROUNDING * peak, grid.nodes
    if p.requires_grad:
        return _trimmed(x, p, torch.from_numpy(floor), restored=restored)
    return torch.from_numpy(_trimmed(x.numpy(), values, floor, restored=restored))


def _trimmed(x: AnyArray, p: AnyArray, floor: AnyArray, *, restored: bool) -> AnyArray:
    """Does it, to tensors or to arrays."""
    trimmed: AnyArray = arrays.of(p).where((p < 0) & (p > floor), 0.0, p)
    if restored:
        mass = cell_masses(x, trimmed).sum(-1)
        trimmed = trimmed * (mass[0] / mass)[..., None]
    return trimmed
