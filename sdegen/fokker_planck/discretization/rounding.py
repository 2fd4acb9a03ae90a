"""What arithmetic leaves behind in a density that was carried in time, and takes off again.

The rational exponential leaves values of some 10⁻¹³ of the peak below zero, and lets the mass of
a hundred outputs drift by as much. The compact form has no rule of signs: in far tails, and at
walls, it leaves some 10⁻⁹ of the peak below zero, and where a density is not resolved by the grid
it rings. What tells these apart is the mass below zero, not one value.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.discretization import arrays
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.grid import Grid

_ROUNDING = 1e-11  # of the peak: what the rational exponential leaves below zero
_FAINT = 1e-9  # of the peak: what lies less below zero is not added up
_RINGS = 1e-6  # of the mass: what a density that the compact form resolves never has below zero

Extremes = tuple[Array, Array]


def extremes(p: Float[Tensor, "T nodes"]) -> Extremes:
    """Return the lowest and the highest values of densities; NaN where there is one."""
    values = p.detach().numpy()
    return np.minimum.reduce(values, -1), np.maximum.reduce(values, -1)


def rings(p: Float[Tensor, "T nodes"], span: Extremes, grid: Grid) -> bool:
    """Return whether a density has so much mass below zero that its grid does not resolve it."""
    low, high = span
    if not np.count_nonzero(low < -_FAINT * high):
        return False
    values, weights = p.detach().numpy(), grid.weights.numpy()
    below = np.maximum(-values, 0.0) @ weights
    return bool(np.count_nonzero(below > _RINGS * (values @ weights)))


def without_rounding(
    p: Float[Tensor, "T nodes"],
    span: Extremes,
    grid: Grid,
    *,
    restored: bool,
    positive: bool,
) -> Float[Tensor, "T nodes"]:
    """Remove rounding: tiny negative values, and the drift of a mass that is conserved.

    Args:
        p: Densities at times, the start first.
        span: Their extremes.
        grid: Their grid.
        restored: Whether mass is that of the start, as it is where nothing absorbs.
        positive: Whether all that is negative is taken off, not what is tiny alone.

    Returns:
        Densities of the same shape.
    """
    low, high = span
    if not np.isfinite(low + high).all():
        return p  # which is said elsewhere
    below, (values,) = -_ROUNDING * high, arrays.bare(p)
    if positive or (low > below).all():  # all that is negative is rounding
        trimmed = values.clip(0)
    else:
        floor = arrays.like(values, torch.from_numpy(below[..., None]))
        trimmed = arrays.of(values).where((values < 0) & (values > floor), 0.0, values)
    if restored:
        mass = grid.masses(trimmed)
        trimmed = trimmed * (mass[0] / mass)[..., None]
    return arrays.tensor(trimmed)
