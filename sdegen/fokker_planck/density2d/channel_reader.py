"""Drift and a diffusion matrix in the plane, read at nodes and along edges, and what is refused.

    J = f p − ∇·(D p) = D (a p − ∇p),    a = D⁻¹ (f − ∇·D),    D = ½ G Gᵀ

Without a current a = −∇U is the slope of log p. D must be elliptic: in units of the cells, the
larger of its eigenvalues may be up to 1000 times the smaller one.

∇·D is what autograd finds (`channels`); that it is D's is for `channel_gaps` to see.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d.offset_edges import Edges, Lattice
from sdegen.fokker_planck.density2d.selling import decomposed
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, GAUSS_WEIGHTS

MOST_RATIO = 1000.0  # of D's eigenvalues, in units of the cells
_LONGEST = 0.5  # of a grid, every other node's too: offsets that reach further have no edges


class ChannelReader:
    """Reads D at the nodes, and ∫ a along edges.

    Args:
        sde: The dynamics.
        lattice: The nodes.
    """

    def __init__(self, sde: SDE, lattice: Lattice) -> None:
        self.sde: SDE = sde
        self.lattice: Lattice = lattice

    def diffusivity(self, time: float) -> Array:
        """Return D_xx, D_xy and D_yy at the nodes, shape (nodes, 3).

        Raises:
            ValueError: If a value is not finite, or D too anisotropic for the cells.
        """
        d = self.matrices(self.lattice.points, time)
        self._check_elliptic(d, time)
        return d

    def exponents(self, edges: Edges, time: float) -> Array:
        """Return w = ∫ a·dl along edges, from their start, shape (edges,)."""
        points = edges.origin[:, None] + GAUSS_NODES.numpy()[:, None] * edges.way[:, None]
        a = self.slope(points.reshape(-1, 2), time).reshape(points.shape)
        return np.asarray(np.einsum("epi,ei,p->e", a, edges.way, GAUSS_WEIGHTS.numpy()))

    def slope(self, points: Array, time: float) -> Array:
        """Return a at places, shape (n, 2).

        Raises:
            ValueError: If the state is not two-dimensional, a value is not finite, or D singular.
        """
        b = self.drift(points, time) - self.divergence(points, time)
        if not np.isfinite(b).all():
            i = int(np.flatnonzero(~np.isfinite(b).all(1))[0])
            raise ValueError(
                f"drift and ∇·D must be finite on the grid, but f − ∇·D is {b[i].tolist()} at "
                f"({points[i, 0]:g}, {points[i, 1]:g}), t = {time:g}."
            )
        first, mixed, second = self.matrices(points, time).T
        determinant = first * second - mixed**2
        if not (determinant > 0).all():
            self._refuse_singular(points[int(determinant.argmin())], time)
        raised = second * b[:, 0] - mixed * b[:, 1], first * b[:, 1] - mixed * b[:, 0]
        return np.asarray(np.stack(raised, 1) / determinant[:, None])

    @torch.no_grad()
    def drift(self, points: Array, time: float) -> Array:
        """Return f at places, in the sense in which densities are carried, shape (n, 2).

        Raises:
            ValueError: If the state is not two-dimensional.
        """
        states = torch.from_numpy(self.lattice.within(points))
        f = self.sde.drift(states, _at(time))
        if f.shape != states.shape:
            raise ValueError(
                f"FokkerPlanck2D needs a two-dimensional state: for {tuple(states.shape)} the "
                f"drift has shape {tuple(f.shape)}."
            )
        # carried towards smaller times, what the drift moves goes the other way
        return np.asarray(self.sde.direction * f.double().numpy())

    @torch.no_grad()
    def divergence(self, points: Array, time: float) -> Array:
        """Return ∇·D at places, shape (n, 2)."""
        states = torch.from_numpy(self.lattice.within(points))
        divergence = self.sde.covariance_divergence(states, _at(time))
        return np.asarray(0.5 * divergence.double().expand_as(states).numpy())

    @torch.no_grad()
    def matrices(self, points: Array, time: float) -> Array:
        """Return D_xx, D_xy and D_yy at places, shape (n, 3).

        Raises:
            ValueError: If a value is not finite.
        """
        states = torch.from_numpy(self.lattice.within(points))
        d = 0.5 * covariance_matrix(self.sde, states, _at(time)).double().expand(-1, 2, 2)
        if not bool(d.isfinite().all()):
            i = int((~d.isfinite()).flatten(1).any(1).nonzero()[0])
            raise ValueError(
                f"G must be finite on the grid, but D = G Gᵀ/2 is {d[i].tolist()} at "
                f"({points[i, 0]:g}, {points[i, 1]:g}), t = {time:g}."
            )
        return torch.stack([d[:, 0, 0], d[:, 0, 1], d[:, 1, 1]], 1).numpy()

    def _check_elliptic(self, d: Array, time: float) -> None:
        """Refuse a D that is singular, or too anisotropic for the cells or for the grid."""
        scaled = self.lattice.in_cells(d)
        half, off = 0.5 * (scaled[:, 0] + scaled[:, 2]), 0.5 * (scaled[:, 0] - scaled[:, 2])
        spread = np.hypot(off, scaled[:, 1])
        # λ_max/λ_min = (half + spread)²/det
        small = (scaled[:, 0] * scaled[:, 2] - scaled[:, 1] ** 2) / (half + spread)
        bad = ~(small * MOST_RATIO >= half + spread)
        if bad.any():
            i = int(np.where(bad, small / (half + spread), np.inf).argmin())
            at = self.lattice.points[i]
            if not small[i] > 1e-12 * half[i]:
                self._refuse_singular(at, time)
            raise ValueError(
                f"FokkerPlanck2D takes a D = G Gᵀ/2 whose eigenvalues, measured in cells, have a "
                f"ratio of up to {MOST_RATIO:g}, but it is {(half + spread)[i] / small[i]:.3g} at "
                f"({at[0]:g}, {at[1]:g}), t = {time:g}. Choose cells whose sides are nearer to "
                "the shape of D, add a weak noise in the direction that has the least, or take "
                "simulate, which needs no ratio."
            )
        offsets, weights = decomposed(scaled)
        reach = np.abs(offsets * (weights > 0)[..., None]).max((0, 1))
        for axis, line in enumerate(self.lattice.mesh.lines):
            if reach[axis] > _LONGEST * line.grid.cells:
                raise ValueError(
                    f"D = G Gᵀ/2 couples nodes that are {reach[axis]} cells apart along "
                    f"{'xy'[axis]}, and every other node of the grid has {line.grid.cells} cells; "
                    f"pass a grid of at least {4 * reach[axis]} cells."
                )

    def _refuse_singular(self, at: Array, time: float) -> None:
        """Refuse a D without an inverse."""
        raise ValueError(
            f"FokkerPlanck2D needs noise in every direction, but D = G Gᵀ/2 is singular at "
            f"({at[0]:g}, {at[1]:g}), t = {time:g}: no channel moves one direction, as with one "
            "channel alone, or the position of an underdamped particle. That is not built; "
            "add a channel with a weak noise in that direction and see that what you ask for "
            "does not depend on it, or take simulate."
        )


def _at(time: float) -> Tensor:
    """Return a time as SDEs take it."""
    return torch.tensor(time, dtype=torch.float64)
