"""Fokker–Planck in the plane: stationary and transient densities, and currents that circulate.

    p_t = −∂_x J_x − ∂_y J_y,    J_x = f_x p − ∂_x(D_x p),    diagonal noise, D = g²/2

on a tensor grid with walls without flux. Along every edge of the grid the current is the
exponentially fitted one of a line, so that the operator is an M-matrix: densities are positive
and mass is kept. Second order in the cell. The same problem on every other node gives an error
estimate, and by Richardson's extrapolation a density of fourth order, at rest and in time.

The stationary density is the null vector, by inverse iteration with one sparse factorisation; in
time the exponential is applied by scaled Taylor series. Where drift or diffusion change with time
the operator A is frozen at the middle of each of `substeps` equal steps, which is Magnus's series
cut after its first term: positive, as the exponential of an M-matrix is, and of second order in
the step. Meant for grids of up to some 400² nodes.

What a density costs is the entropy production of its currents, edge by edge,

    σ = ∫ (J_x²/D_x + J_y²/D_y)/p dx dy = Σ J log(a p_i / b p_{i+1}) ≥ 0

in units of k_B per time. At rest it is that of the circulation.

Reference:
    Risken 1989, section 6.1; Al-Mohy and Higham 2011, SIAM J. Sci. Comput. 33, 488, for the
    exponential; Blanes et al. 2009, Phys. Rep. 470, 151, section 2, for Magnus's series; Seifert
    2012, Rep. Prog. Phys. 75, 126001, eq. (18), for σ.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import expm_multiply, splu
from torch import Tensor

from sdegen.checks import check_count
from sdegen.errors import NotNormalizableError
from sdegen.fokker_planck.checks import check_times
from sdegen.fokker_planck.coefficients import GAUSS_NODES, GAUSS_WEIGHTS
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.fluxes import bernoulli
from sdegen.fokker_planck.grid import Grid
from sdegen.fokker_planck.operator import control_volumes
from sdegen.sde.base import SDE
from sdegen.sde.rows import check_density_of

__all__ = ["FokkerPlanck2D", "PlaneDensity"]

_GOLDEN = 0.6180339887498949
_SHIFT = 1e-9  # of the largest rate: how near to 0 the inverse iteration looks for its null vector
_ITERATIONS = 4
_EDGE_WARNS, _EDGE_FAILS = 1e-6, 1e-2
_MASS_TOLERANCE = 1e-2
_NEGATIVE = 1e-12  # of the peak: what a start may have by rounding
_TINY = 1e-300
_SPARSE = 12  # points along each axis that are asked whether drift and diffusion are functions


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
        sde: Dynamics with a state of shape (batch, 2) and diagonal noise.
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
        start = torch.as_tensor(self._rest_time, dtype=torch.float64)
        points = torch.cartesian_prod(x[:: len(x) // _SPARSE + 1], y[:: len(y) // _SPARSE + 1])
        with suppress(IndexError, RuntimeError):  # a state of another size: see below
            check_density_of(sde, points, start)
        self._frozen_rates = self._rates_at(self._rest_time)
        with torch.no_grad():
            at_rest = torch.tensor(self._rest_time, dtype=torch.float64)
            sde.check_derivatives(torch.stack([x[[0, -1]], y[[0, -1]]], 1), at_rest)

    def gaussian(
        self,
        mean: tuple[float, float],
        covariance: Float[Tensor, "2 2"] | Sequence[Sequence[float]],
    ) -> PlaneDensity:
        """N(mean, covariance) at the nodes, of mass 1.

        Args:
            mean: (E X, E Y), inside the grid.
            covariance: Symmetric and positive.

        Raises:
            ValueError: If the mean lies outside, or the covariance is none.
        """
        self._check_inside("mean", mean)
        c = torch.as_tensor(covariance, dtype=torch.float64)
        if c.shape != (2, 2) or not bool(
            c.isfinite().all()
            & torch.isclose(c[0, 1], c[1, 0])
            & (c[0, 0] > 0)
            & (c[0, 0] * c[1, 1] > c[0, 1] ** 2)
        ):
            raise ValueError(
                "covariance must be a symmetric, positive 2 × 2 matrix, but is "
                f"{c.tolist()}; pass [[var_x, cov], [cov, var_y]]."
            )
        x, y = (grid.nodes for grid in self.grids)
        dx, dy = x[:, None] - mean[0], y[None, :] - mean[1]
        inverse = torch.linalg.inv(c)
        square = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
        p = torch.exp(-0.5 * square)
        mass = float((p * self._weights).sum())
        if mass == 0:
            raise ValueError("the density lies between nodes; pass a wider one, or finer grids.")
        return PlaneDensity(x, y, p / mass)

    def point(self, x0: float, y0: float) -> PlaneDensity:
        """A start at a point: mass 1 at the nodes around it, with the right mean.

        Its width is that of a cell; what comes of it is worth something once it is wider.

        Raises:
            ValueError: If the point lies outside the grid.
        """
        self._check_inside("point", (x0, y0))
        parts = []
        for grid, at in zip(self.grids, (x0, y0), strict=True):
            nodes = grid.nodes
            i = int(torch.searchsorted(nodes, at).clamp(1, len(nodes) - 1))
            share = (at - nodes[i - 1]) / (nodes[i] - nodes[i - 1])
            mass = torch.zeros_like(nodes)
            mass[i - 1], mass[i] = 1 - share, share
            parts.append(mass)
        values = torch.outer(*parts) / self._weights
        return PlaneDensity(self.grids[0].nodes, self.grids[1].nodes, values)

    def stationary(self) -> PlaneDensity:
        """The stationary density, of mass 1; whatever current it carries circulates.

        Raises:
            NotNormalizableError: If the density leans on a wall that is not physical by more than
                1e-2 of its peak.
            ValueError: If drift or diffusion depend on time.
        """
        if self._varies(self._rest_time, self._rest_time + _GOLDEN):
            raise ValueError(
                "drift or diffusion depend on time, so that nothing is at rest; carry a density "
                "with solve(p0, times, substeps=…), or freeze the time in the SDE."
            )
        operator = self._operator(self._frozen_rates)
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
        coarse = self._coarse().stationary()
        return _extrapolated(self.stationary(), coarse)

    def solve(
        self,
        p0: PlaneDensity | tuple[float, float],
        times: Tensor | Sequence[float],
        *,
        substeps: int = 16,
    ) -> list[PlaneDensity]:
        """Carries a density through times.

        Args:
            p0: Density at times[0] on this grid, of mass 1; or the point (x, y) of a start.
            times: Strictly increasing; decreasing for dynamics that are meant for decreasing times
                (`ReverseSDE`).
            substeps: Equal steps between two times, of an SDE that depends on time; without a time
                dependence there are no steps, and this is not used.

        Returns:
            The density at each of times.

        Raises:
            TypeError: If p0 is neither a density nor a point.
            ValueError: If times, substeps or p0 are refused, or the density leans on a wall that
                is not physical.
        """
        ts, start = check_times(times, self.sde), self._start(p0)
        check_count("substeps", substeps)
        varies = self._varies(*ts.tolist())
        operator = self._operator(self._rates_at(float(ts[0])))
        mass = (start.p * self._weights).flatten().numpy()
        path = [start]
        for t0, t1 in zip(ts[:-1].tolist(), ts[1:].tolist(), strict=True):
            count = substeps if varies else 1
            dt = (t1 - t0) / count
            for i in range(count):
                if varies:
                    operator = self._operator(self._rates_at(t0 + (i + 0.5) * dt))
                mass = expm_multiply(operator * abs(dt), mass)
            values = torch.from_numpy(mass).reshape(self._weights.shape) / self._weights
            path.append(PlaneDensity(start.x, start.y, values))
            self._check_edges(values)
        return path

    def solve_refined(
        self,
        p0: PlaneDensity | tuple[float, float],
        times: Tensor | Sequence[float],
        *,
        substeps: int = 16,
    ) -> list[PlaneDensity]:
        """Carries a density through times, with Richardson's extrapolation; see `solve`.

        In time, too, where the SDE depends on it: the coarse problem has half the substeps.

        Returns:
            Densities at every other node; the `error` of each is that before the extrapolation,
            and 0 for the start.

        Raises:
            ValueError: As `solve` does, and if a grid has an odd number of cells, or substeps is
                odd where the SDE depends on time.
        """
        coarse = self._coarse()
        check_count("substeps", substeps)
        ts = check_times(times, self.sde)
        if substeps % 2 and self._varies(*ts.tolist()):
            raise ValueError(f"an extrapolation needs even substeps, but they are {substeps}.")
        start, half = self._start(p0), max(substeps // 2, 1)
        seen: PlaneDensity | tuple[float, float]
        if isinstance(p0, tuple):
            seen = p0
        else:
            values = start.p[::2, ::2]
            seen = PlaneDensity(
                coarse.grids[0].nodes,
                coarse.grids[1].nodes,
                values / float((values * coarse._weights).sum()),
            )
        fine, rough = (
            self.solve(start, ts, substeps=substeps),
            coarse.solve(seen, ts, substeps=half),
        )
        first = PlaneDensity(rough[0].x, rough[0].y, start.p[::2, ::2], 0.0)
        return [first, *map(_extrapolated, fine[1:], rough[1:])]

    def entropy_production(
        self, density: PlaneDensity, *, time: float | None = None
    ) -> Float[Tensor, ""]:
        """σ of a density on this grid, in units of k_B per time; 0 in equilibrium.

        Args:
            density: At the nodes of this grid.
            time: When, of an SDE that depends on time; None is its earliest time, or 0.
        """
        total = torch.zeros((), dtype=torch.float64)
        for axis, (a, b) in enumerate(self._rates_of(density, time)):
            other = control_volumes(self.grids[1 - axis].nodes.diff(), ring=False)
            p = density.p.movedim(axis, 0)
            out, back = a.movedim(axis, 0) * p[:-1], b.movedim(axis, 0) * p[1:]
            force = out.clamp(min=_TINY).log() - back.clamp(min=_TINY).log()
            total = total + (((out - back) * force) @ other).sum()
        return total

    def current(
        self, density: PlaneDensity, *, time: float | None = None
    ) -> Float[Tensor, "2 nx ny"]:
        """(J_x, J_y) at the nodes, the mean of the edges that meet there; 0 across walls.

        In the sense of time in which the SDE is meant: a `ReverseSDE` carries it to smaller times.

        Args:
            density: At the nodes of this grid.
            time: When, of an SDE that depends on time; None is its earliest time, or 0.
        """
        parts = []
        for axis, (a, b) in enumerate(self._rates_of(density, time)):
            p = density.p.movedim(axis, 0)
            edge = a.movedim(axis, 0) * p[:-1] - b.movedim(axis, 0) * p[1:]
            zero = torch.zeros_like(edge[:1])
            both = 0.5 * (torch.cat([zero, edge]) + torch.cat([edge, zero]))
            parts.append(both.movedim(0, axis))
        return torch.stack(parts)

    @property
    def _rest_time(self) -> float:
        """The time at which dynamics that do not depend on it are read."""
        return min(max(self.sde.time_range[0], 0.0), self.sde.time_range[1])

    def _rates_of(self, density: PlaneDensity, time: float | None) -> list[tuple[Tensor, Tensor]]:
        """The rates of the edges at a time, for a density that lives on them."""
        if density.p.shape != self._weights.shape:
            raise ValueError(
                f"density must have shape {tuple(self._weights.shape)}, but has "
                f"{tuple(density.p.shape)}; that of refined() lives on every other node."
            )
        return self._frozen_rates if time is None else self._rates_at(time)

    def _rates_at(self, time: float) -> list[tuple[Tensor, Tensor]]:
        """a and b on the edges along each axis, at a time."""
        t = torch.tensor(time, dtype=torch.float64)
        return [self._edge_rates(axis, t) for axis in (0, 1)]

    @torch.no_grad()
    def _varies(self, *times: float) -> bool:
        """Whether drift or diffusion change between times, or between the first and the last."""
        if self.sde.autonomous:
            return False
        first, last = times[0], times[-1]
        probes = {*times[:8], last, first + _GOLDEN * (last - first)}
        x, y = (grid.nodes[::7] for grid in self.grids)
        reads = []
        for time in sorted(probes):
            t = torch.tensor(time, dtype=torch.float64)
            parts = self._read(x, y, 0, t) + self._read(y, x, 1, t)
            reads.append(torch.cat([part.flatten() for part in parts]))
        return any(not torch.equal(read, reads[0]) for read in reads[1:])

    def _coarse(self) -> FokkerPlanck2D:
        """The same problem on every other node."""
        if any(grid.cells % 2 for grid in self.grids):
            raise ValueError(
                "an extrapolation needs even numbers of cells, but the grid has "
                f"{self.grids[0].cells} × {self.grids[1].cells}."
            )
        first, second = (Grid.of(grid.nodes[::2]) for grid in self.grids)
        # its edges are judged on this grid, where tails are nearer to what they should be
        return FokkerPlanck2D(self.sde, (first, second), physical_walls=True)

    def _check_inside(self, name: str, at: tuple[float, float]) -> None:
        """Refuses what lies outside the grid."""
        (a, b), (x, y) = self.grids, at
        if not (a.low <= x <= a.high and b.low <= y <= b.high):
            raise ValueError(
                f"{name} must lie in [{a.low:g}, {a.high:g}] × [{b.low:g}, {b.high:g}], but is "
                f"({x:g}, {y:g})."
            )

    def _start(self, p0: PlaneDensity | tuple[float, float]) -> PlaneDensity:
        """The start on this grid, or a refusal."""
        if isinstance(p0, tuple):
            return self.point(*p0)
        if not hasattr(p0, "marginal"):
            raise TypeError(
                f"p0 must be a PlaneDensity or a point (x, y), but is {type(p0).__name__}; pass "
                "solver.gaussian(mean, covariance)."
            )
        if p0.p.shape != self._weights.shape:
            raise ValueError(
                f"p0 must be ≥ 0 with shape {tuple(self._weights.shape)}, but has shape "
                f"{tuple(p0.p.shape)}."
            )
        for name, came, grid in zip("xy", (p0.x, p0.y), self.grids, strict=True):
            if came.shape != grid.nodes.shape or not torch.equal(came.to(grid.nodes), grid.nodes):
                raise ValueError(
                    f"p0 lives on {len(came)} nodes {name} from {float(came[0]):g} to "
                    f"{float(came[-1]):g}, the solver on {len(grid.nodes)} from {grid.low:g} to "
                    f"{grid.high:g}; make it with this solver's grids."
                )
        p = p0.p.detach().to("cpu", torch.float64)
        if not bool(p.isfinite().all()):
            i, j = (~p.isfinite()).nonzero()[0].tolist()
            raise ValueError(
                f"p0 must be finite, but is {float(p[i, j])} at ({float(p0.x[i]):g}, "
                f"{float(p0.y[j]):g})."
            )
        if float(p.min()) < -_NEGATIVE * max(float(p.max()), 0.0):
            raise ValueError(f"p0 must be ≥ 0, but its lowest value is {float(p.min()):g}.")
        mass = float((p * self._weights).sum())
        if abs(mass - 1) > _MASS_TOLERANCE:
            raise ValueError(f"p0 must have mass 1, but has {mass:.6g}.")
        return PlaneDensity(self.grids[0].nodes, self.grids[1].nodes, p, p0.error)

    @torch.no_grad()
    def _edge_rates(self, axis: int, t: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of J = a p_i − b p_{i+1} on the edges along an axis."""
        along, across = self.grids[axis].nodes, self.grids[1 - axis].nodes
        h = along.diff()
        inner = along[:-1, None] + h[:, None] * GAUSS_NODES
        f, d = self._read(inner.flatten(), across, axis, t)
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
        # carried towards smaller times, what the drift moves goes the other way
        f, d = (
            self.sde.direction * f.double()[:, axis],
            0.5 * g.double().expand_as(state)[:, axis] ** 2,
        )
        if not bool(torch.isfinite(f).all() & (d > 0).all() & torch.isfinite(d).all()):
            raise ValueError(
                "drift must be finite and D > 0 on the grid, but drift reaches from "
                f"{float(f.min()):g} to {float(f.max()):g} and D from "
                f"{float(d.min()):g} to {float(d.max()):g}."
            )
        return f.reshape(first.shape), d.reshape(first.shape)

    def _operator(self, rates: list[tuple[Tensor, Tensor]]) -> sparse.csr_matrix:
        """K V⁻¹, which acts on the masses of the nodes; its columns sum to zero."""
        number = np.arange(self._weights.numel()).reshape(self._weights.shape)
        rows, columns, values = [], [], []
        for axis, (a, b) in enumerate(rates):
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


def _extrapolated(fine: PlaneDensity, coarse: PlaneDensity) -> PlaneDensity:
    """Both of second order in what is halved: of fourth order, at the coarse nodes."""
    p = fine.p[::2, ::2]
    error = float((p - coarse.p).abs().max()) / 3
    return PlaneDensity(coarse.x, coarse.y, (4 * p - coarse.p) / 3, error)
