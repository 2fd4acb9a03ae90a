"""The drift and the diffusion of an SDE, read off at the points that a solver on a grid needs.

dX = f dt + g dW (Itô), D = g²/2: f and D at the Gauss points of each cell, where they are
integrated, D and g's sign at the nodes. Both enter the Fokker–Planck operator linearly, so that a
weighted sum of coefficients at several times is again one: that is what the integrator for
time-dependent problems uses. Dynamics that are meant for decreasing times (`direction` −1) enter
with the sign of their drift turned.

Whether an SDE has changed since it was read, because it holds parameters that were fitted, is
found out by asking it again, at all points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.discretization.arrays import Array

_nodes, _weights = np.polynomial.legendre.leggauss(4)
GAUSS_NODES: Tensor = torch.from_numpy(0.5 * (1 + _nodes))
GAUSS_WEIGHTS: Tensor = torch.from_numpy(0.5 * _weights)
# coefficients, of rising powers, of the polynomial through values at them
GAUSS_POLYNOMIAL: Array = np.linalg.inv(GAUSS_NODES.numpy()[:, None] ** np.arange(4))


@dataclass(frozen=True, eq=False)
class Coefficients:
    """f and D of dX = f dt + √(2D) dW on a grid.

    Args:
        drift: f at the Gauss points, shape (cells, points).
        diffusivity: D at the Gauss points, > 0, same shape.
        nodal_diffusivity: D at the nodes, shape (nodes,); zero at most at a wall.
        wall_drift: f at both walls, shape (2,).
        beside: Returns what ∫ f/D misses beside each node, shape (nodes,), given h f/D at the
            Gauss points; None if nobody knows.
    """

    drift: Float[Tensor, "... cells points"]
    diffusivity: Float[Tensor, "... cells points"]
    nodal_diffusivity: Float[Tensor, "... nodes"]
    wall_drift: Float[Tensor, "... 2"]
    beside: Callable[[Array], Array] | None = None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All that was read."""
        return self.drift, self.diffusivity, self.nodal_diffusivity, self.wall_drift

    def combined(self, weight: float, other: Coefficients, other_weight: float) -> Coefficients:
        """Return weight · self + other_weight · other."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        return _of(weight * own + other_weight * its for own, its in pairs)


def one_or_stack(each: Sequence[Coefficients]) -> Coefficients:
    """Return coefficients side by side, a dimension more in front, or alone if all are one object.

    A D that is the same object in all has no dimension more: it meets the drifts as it is.
    """
    first = each[0]
    if all(c is first for c in each):
        return first
    if any(c.diffusivity is not first.diffusivity for c in each):
        return _of(map(torch.stack, zip(*(c.tensors for c in each), strict=True)))
    drift, walls = torch.stack([c.drift for c in each]), torch.stack([c.wall_drift for c in each])
    return Coefficients(drift, first.diffusivity, first.nodal_diffusivity, walls)


def _of(tensors: Iterable[Tensor]) -> Coefficients:
    """Return coefficients made of their `tensors`."""
    drift, diffusivity, nodal_diffusivity, walls = tensors
    return Coefficients(drift, diffusivity, nodal_diffusivity, walls)
