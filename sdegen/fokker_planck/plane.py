"""Fokker–Planck in the plane: stationary and transient densities, and currents that circulate.

    p_t = −∂_x J_x − ∂_y J_y,    J_x = f_x p − ∂_x(D_x p),    diagonal noise, D = g²/2

on a tensor grid with walls without flux. Along every edge of the grid the current is the
exponentially fitted one of a line, so that the operator is an M-matrix: densities are positive
and mass is kept. Second order in the cell. The same problem on every other node gives an error
estimate, and by Richardson's extrapolation a density of fourth order.

The stationary density is the null vector, by inverse iteration with one sparse factorisation; in
time the exponential is applied by scaled Taylor series. Meant for grids of up to some 400² nodes.

Reference:
    Risken 1989, section 6.1; Al-Mohy and Higham 2011, SIAM J. Sci. Comput. 33, 488, for the
    exponential.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import expm_multiply, splu
from torch import Tensor

from sdegen.errors import NotNormalizableError
from sdegen.fokker_planck.checks import check_times
from sdegen.fokker_planck.coefficients import GAUSS_NODES, GAUSS_WEIGHTS
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.fluxes import bernoulli
from sdegen.fokker_planck.grid import Grid
from sdegen.fokker_planck.operator import control_volumes
from sdegen.sde.base import SDE

__all__ = ["FokkerPlanck2D", "PlaneDensity"]

_GOLDEN = 0.6180339887498949
_SHIFT = 1e-9  # of the largest rate: how near to 0 the inverse iteration looks for its null vector
_ITERATIONS = 4
_EDGE_WARNS, _EDGE_FAILS = 1e-6, 1e-2
_MASS_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class PlaneDensity:
    """A density at the nodes of a tensor grid.

    Args:
        x: Nodes along the first coordinate, shape (nx,).
        y: Nodes along the second, shape (ny,).
        p: Values, shape (nx, ny).
        error: Estimate of the largest error of p; NaN where none was made.
    """

    x: Float[Tensor, " nx"]
    y: Float[Tensor, " ny"]
    p: Float[Tensor, "nx ny"]
    error: float = float("nan")

    @property
    def weights(self) -> Float[Tensor, "nx ny"]:
        """Area of each node."""
        return torch.outer(
            control_volumes(self.x.diff(), ring=False), control_volumes(self.y.diff(), ring=False)
        )

    @property
    def mass(self) -> Float[Tensor, ""]:
        """∫ p."""
        return (self.p * self.weights).sum()

    @property
    def mean(self) -> Float[Tensor, " 2"]:
        """E (X, Y)."""
        share = self.p * self.weights / self.mass
        return torch.stack([share.sum(1) @ self.x, share.sum(0) @ self.y])

    @property
    def covariance(self) -> Float[Tensor, "2 2"]:
        """Cov (X, Y)."""
        share = self.p * self.weights / self.mass
        dx, dy = self.x - self.mean[0], self.y - self.mean[1]
        xx, yy, xy = share.sum(1) @ dx**2, share.sum(0) @ dy**2, dx @ share @ dy
        return torch.stack([torch.stack([xx, xy]), torch.stack([xy, yy])])

    def marginal(self, axis: int) -> Density:
        """The density of one coordinate, 0 or 1."""
        nodes, other = (self.x, self.y) if axis == 0 else (self.y, self.x)
        return Density(
            nodes, (self.p if axis == 0 else self.p.T) @ control_volumes(other.diff(), ring=False)
        )


class FokkerPlanck2D:
    """The density of a two-dimensional SDE on a tensor grid, between walls without flux.

    Args:
        sde: Dynamics with a state of shape (batch, 2), diagonal noise, without a time dependence.
        grids: The grid of each coordinate.
        physical_walls: Whether the walls are part of the problem; if not, a density that leans on
            them is an error.

    Raises:
        ValueError: If the state is not two-dimensional, a value is not finite, or D = 0 somewhere.
    """

    def __init__(
        self, sde: SDE, grids: tuple[Grid, Grid], *, physical_walls: bool = False
    ) -> None:
        self.sde, self.grids, self.physical_walls = sde, grids, physical_walls
        x, y = (grid.nodes for grid in grids)
        self._weights = torch.outer(
            control_volumes(x.diff(), ring=False), control_volumes(y.diff(), ring=False)
        )
        self._rates = [self._edge_rates(axis) for axis in (0, 1)]

    def stationary(self) -> PlaneDensity:
        """The stationary density, of mass 1; whatever current it carries circulates.

        Raises:
            NotNormalizableError: If the density leans on a wall that is not physical by more than
                1e-2 of its peak.
        """
        operator = self._operator()
        scale = float(abs(operator.diagonal()).max())
        inverse = splu((_SHIFT * scale * sparse.identity(operator.shape[0]) - operator).tocsc())
        p = np.ones(operator.shape[0])
        for _ in range(_ITERATIONS):  # ∫ p over each node's area, the null vector of K/V
            p = inverse.solve(p)
            p /= p.sum()
        values = torch.from_numpy(p).reshape(self._weights.shape) / self._weights
        self._check_edges(values)
        return PlaneDensity(self.grids[0].nodes, self.grids[1].nodes, values)

    def refined(self) -> PlaneDensity:
        """The stationary density by Richardson's extrapolation, with its error estimate.

        Returns:
            The density at every other node; its `error` is that before the extrapolation.

        Raises:
            ValueError: If a grid has an odd number of cells.
        """
        if any(grid.cells % 2 for grid in self.grids):
            raise ValueError(
                "an extrapolation needs even numbers of cells, but the grid has "
                f"{self.grids[0].cells} × {self.grids[1].cells}."
            )
        first, second = (Grid.of(grid.nodes[::2]) for grid in self.grids)
        coarse = FokkerPlanck2D(
            self.sde, (first, second), physical_walls=self.physical_walls
        ).stationary()
        fine = self.stationary().p[::2, ::2]
        p = (4 * fine - coarse.p) / 3
        return PlaneDensity(coarse.x, coarse.y, p, float((fine - coarse.p).abs().max()) / 3)

    def solve(self, p0: PlaneDensity, times: Tensor | Sequence[float]) -> list[PlaneDensity]:
        """Carries a density through times.

        Args:
            p0: Density at times[0] on this grid, of mass 1.
            times: Strictly increasing.

        Returns:
            The density at each of times.

        Raises:
            ValueError: If times or p0 are refused, or the density leans on a wall that is not
                physical.
        """
        ts = check_times(times, self.sde)
        if p0.p.shape != self._weights.shape or bool((p0.p < 0).any()):
            raise ValueError(
                f"p0 must be ≥ 0 with shape {tuple(self._weights.shape)}, but has shape "
                f"{tuple(p0.p.shape)} and lowest value "
                f"{float(p0.p.min()):g}."
            )
        if abs(float(p0.mass) - 1) > _MASS_TOLERANCE:
            raise ValueError(f"p0 must have mass 1, but has {float(p0.mass):.6g}.")
        operator = self._operator()
        mass = (p0.p * self._weights).flatten().numpy()
        path = [p0]
        for dt in ts.diff().abs().tolist():
            mass = expm_multiply(operator * dt, mass)
            values = torch.from_numpy(mass).reshape(self._weights.shape) / self._weights
            path.append(PlaneDensity(p0.x, p0.y, values))
            self._check_edges(values)
        return path

    def current(self, density: PlaneDensity) -> Float[Tensor, "2 nx ny"]:
        """(J_x, J_y) at the nodes, the mean of the edges that meet there; 0 across walls."""
        parts = []
        for axis, (a, b) in enumerate(self._rates):
            p = density.p.movedim(axis, 0)
            edge = a.movedim(axis, 0) * p[:-1] - b.movedim(axis, 0) * p[1:]
            zero = torch.zeros_like(edge[:1])
            both = 0.5 * (torch.cat([zero, edge]) + torch.cat([edge, zero]))
            parts.append(both.movedim(0, axis))
        return torch.stack(parts)

    @torch.no_grad()
    def _edge_rates(self, axis: int) -> tuple[Tensor, Tensor]:
        """a and b of J = a p_i − b p_{i+1} on the edges along an axis."""
        along, across = self.grids[axis].nodes, self.grids[1 - axis].nodes
        h = along.diff()
        inner = along[:-1, None] + h[:, None] * GAUSS_NODES
        t = torch.tensor(max(self.sde.time_range[0], 0.0), dtype=torch.float64)
        f, d = self._read(inner.flatten(), across, axis, t)
        later = self._read(inner.flatten()[::7], across, axis, t + _GOLDEN)
        if not (torch.equal(later[0], f[::7]) and torch.equal(later[1], d[::7])):
            raise ValueError(
                "drift or diffusion depend on time; in the plane only constant ones are solved "
                "for: freeze the time in the SDE."
            )
        u = ((f / d).reshape(len(h), len(GAUSS_NODES), -1) * GAUSS_WEIGHTS[:, None]).sum(1) * h[
            :, None
        ]
        middle = (1 / d).reshape(len(h), len(GAUSS_NODES), -1)
        mean_d = 1 / (middle * GAUSS_WEIGHTS[:, None]).sum(1)
        _, nodal = self._read(along, across, axis, t)
        # a/b = e^u D_i/D_{i+1}, as on a line
        root = (nodal[:-1] / nodal[1:]).sqrt()
        a, b = (
            (mean_d / h[:, None]) * bernoulli(-u) * root,
            (mean_d / h[:, None]) * bernoulli(u) / root,
        )
        return (a, b) if axis == 0 else (a.T, b.T)

    def _read(self, along: Tensor, across: Tensor, axis: int, t: Tensor) -> tuple[Tensor, Tensor]:
        """f and D of one coordinate on points × nodes."""
        first, second = torch.meshgrid(along, across, indexing="ij")
        pair = (first, second) if axis == 0 else (second, first)
        state = torch.stack([part.flatten() for part in pair], 1)
        f, g = self.sde.drift(state, t), self.sde.diffusion(state, t)
        if f.shape != state.shape:
            raise ValueError(
                f"FokkerPlanck2D needs a two-dimensional state: for {tuple(state.shape)} the "
                f"drift has shape {tuple(f.shape)}."
            )
        f, d = f.double()[:, axis], 0.5 * g.double().expand_as(state)[:, axis] ** 2
        if not bool(torch.isfinite(f).all() & (d > 0).all() & torch.isfinite(d).all()):
            raise ValueError(
                "drift must be finite and D > 0 on the grid, but drift reaches from "
                f"{float(f.min()):g} to {float(f.max()):g} and D from "
                f"{float(d.min()):g} to {float(d.max()):g}."
            )
        return f.reshape(first.shape), d.reshape(first.shape)

    def _operator(self) -> sparse.csr_matrix:
        """K V⁻¹, which acts on the masses of the nodes; its columns sum to zero."""
        number = np.arange(self._weights.numel()).reshape(self._weights.shape)
        rows, columns, values = [], [], []
        for axis, (a, b) in enumerate(self._rates):
            other = control_volumes(self.grids[1 - axis].nodes.diff(), ring=False)
            width = (
                other[None, :] if axis == 0 else other[:, None]
            )  # the length that an edge's current crosses
            moved = np.moveaxis(number, axis, 0)
            left, right = (np.moveaxis(part, 0, axis).ravel() for part in (moved[:-1], moved[1:]))
            weights = self._weights.flatten().numpy()
            out = (a * width).flatten().numpy() / weights[left]
            back = (b * width).flatten().numpy() / weights[right]
            rows += [right, left, left, right]
            columns += [left, left, right, right]
            values += [out, -out, back, -back]
        size = number.size
        entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        return sparse.csr_matrix(entries, shape=(size, size))

    def _check_edges(self, p: Tensor) -> None:
        """Warns of, or refuses, a density that leans on a wall."""
        if self.physical_walls:
            return
        edge = max(float(side.max()) for side in (p[0], p[-1], p[:, 0], p[:, -1])) / float(p.max())
        text = (
            f"the density at an edge of the grid is {edge:.3g} of its peak: the grid cuts it, or "
            "there is no stationary density. "
            "Widen the grid, or pass physical_walls=True if there are real walls."
        )
        if edge > _EDGE_FAILS:
            raise NotNormalizableError(text)
        if edge > _EDGE_WARNS:
            warnings.warn(text, UserWarning, stacklevel=3)
