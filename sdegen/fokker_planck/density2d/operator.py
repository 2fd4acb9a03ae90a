"""The Fokker–Planck operator of the plane, in two forms.

    p_t = −∂_x J_x − ∂_y J_y,    J_x = f_x p − ∂_x(D_x p),    diagonal noise, D = g²/2

on a tensor grid, line by line: each coordinate adds what its current does along its lines.

**Compact.** The current between nodes is reconstructed to high order from the fluxes of five
cells (see `reconstruction`), whatever the cell Péclet number. Mass is kept; densities are
positive to their accuracy. What has no current is at rest, exactly.

**Lumped.** The fluxes of the cells themselves: an M-matrix, so that densities are positive by
construction; of second order, with the numerical diffusion of exponential fitting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization import time_dependence as clock
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, Coefficients
from sdegen.fokker_planck.discretization.gaps import may_hide, missed
from sdegen.fokker_planck.discretization.grid import control_volumes
from sdegen.fokker_planck.discretization.line_fluxes import LineFluxes, Stencil
from sdegen.fokker_planck.discretization.reconstruction import Line


@dataclass(frozen=True, eq=False)
class PlaneCoefficients:
    """f and D along the lines of both coordinates, at one time.

    Args:
        each: Those of each coordinate; the first axis of each tensor are the lines.
        nodal_drift: f of each coordinate at the nodes of its lines.
    """

    each: tuple[Coefficients, Coefficients]
    nodal_drift: tuple[Tensor, Tensor]

    def equal(self, other: PlaneCoefficients, axis: int) -> bool:
        """Return whether those of a coordinate are the same, to the last bit."""
        return all(map(torch.equal, self.each[axis].tensors, other.each[axis].tensors))


class Mesh:
    """The lines of the plane, and its unknowns: the nodes where no wall absorbs, a ring's once.

    Args:
        lines: Both coordinates.
    """

    def __init__(self, lines: tuple[Line, Line]) -> None:
        self.lines = lines

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of unknowns along both coordinates."""
        first, second = (int(line.unknowns.max()) + 1 for line in self.lines)
        return first, second

    @cached_property
    def volumes(self) -> Array:
        """V of every unknown, the area it stands for, shape (unknowns,)."""
        return self._areas([line.volumes for line in self.lines])

    @cached_property
    def lumped_volumes(self) -> Array:
        """The area between the middles of the cells around every unknown, shape (unknowns,)."""
        return self._areas([control_volumes(line.grid.widths).numpy() for line in self.lines])

    def restrict(self, p: Tensor) -> Array:
        """Return the unknowns of values at the nodes, shape (unknowns,)."""
        first, second = (line.interior for line in self.lines)
        return np.ascontiguousarray(p.detach().numpy()[first, second]).ravel()

    def widen(self, unknowns: Array) -> Tensor:
        """Return values at the nodes, shape (nx, ny); 0 at absorbing walls."""
        full = np.zeros([n + 1 for n in self.shape])
        full[:-1, :-1] = unknowns.reshape(self.shape)
        first, second = (line.unknowns for line in self.lines)  # −1 is the row of zeros
        return torch.from_numpy(full[np.ix_(first, second)])

    @cached_property
    def points(self) -> Tensor:
        """Where drift and diffusion are asked for: inside cells along both, and at the nodes."""
        x, y = (line.grid.nodes for line in self.lines)
        inside = [(n[:-1, None] + n.diff()[:, None] * GAUSS_NODES).flatten() for n in (x, y)]
        some_x, some_y = (n[line.interior] for n, line in zip((x, y), self.lines, strict=True))
        pairs = (inside[0], some_y), (some_x, inside[1]), (x, y)
        return torch.cat([torch.cartesian_prod(*pair) for pair in pairs])

    @property
    def some_points(self) -> Tensor:
        """States at nodes, shape (some, 2)."""
        x, y = (line.grid.nodes[::7] for line in self.lines)
        return torch.cartesian_prod(x, y)

    @property
    def few_points(self) -> Tensor:
        """A few states, spread over the grid, shape (few, 2)."""
        at = torch.arange(1, clock.POINTS + 1, dtype=torch.float64)
        shares = (at * clock.GOLDEN) % 1, (at * clock.GOLDEN**2 * 2**0.5) % 1
        ends = [line.grid.nodes[[0, -1]] for line in self.lines]
        return torch.stack(
            [torch.lerp(e[0], e[1], s) for e, s in zip(ends, shares, strict=True)], 1
        )

    @torch.no_grad()
    def read(self, sde: SDE, time: float) -> PlaneCoefficients:
        """Read drift and diffusion at a time.

        Raises:
            ValueError: If the state is not two-dimensional, a value is not finite, or D = 0.
        """
        state, t = self.points, torch.tensor(time, dtype=torch.float64)
        f, g = sde.drift(state, t), sde.diffusion(state, t)
        if f.shape != state.shape:
            raise ValueError(
                f"FokkerPlanck2D needs a two-dimensional state: for {tuple(state.shape)} the "
                f"drift has shape {tuple(f.shape)}."
            )
        # carried towards smaller times, what the drift moves goes the other way
        f, d = sde.direction * f.double(), 0.5 * g.double().expand_as(state) ** 2
        if not bool(torch.isfinite(f).all() & torch.isfinite(d).all()):
            raise ValueError(
                "drift and diffusion must be finite on the grid, but at t = "
                f"{time:g} the drift reaches from {float(f.min()):g} to {float(f.max()):g} and D "
                f"from {float(d.min()):g} to {float(d.max()):g}."
            )
        for axis, name in enumerate("xy"):
            if not bool((d[:, axis] > 0).all()):
                raise ValueError(
                    f"FokkerPlanck2D needs noise on both coordinates, but D = g²/2 of {name} is "
                    f"{float(d[:, axis].min()):g} somewhere on the grid (t = {time:g}). Of a "
                    "position and its velocity pass UnderdampedLangevin(potential, friction, "
                    "temperature), whose kinetic equation is solved; to another coordinate give a "
                    "small noise and see that what you ask for does not depend on it, or take "
                    "simulate."
                )
        (fs, ds), (at_nodes, nodal) = zip(*map(self.along_lines, (f, d)), strict=True)
        nowhere = torch.zeros(2, dtype=torch.float64)  # f at walls where D = 0: there are none
        along_x = Coefficients(fs[0], ds[0], nodal[0], nowhere)
        along_y = Coefficients(fs[1], ds[1], nodal[1], nowhere)
        return PlaneCoefficients((along_x, along_y), at_nodes)

    def along_lines(self, values: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return components of vectors at `points`, each along the lines of its coordinate.

        Args:
            values: Vectors, shape (points, 2).

        Returns:
            Those inside of cells, each of shape (lines, cells, Gauss points), and those at nodes,
            each of shape (lines, nodes).
        """
        (nx, ny), (ux, uy) = [len(line.grid.nodes) for line in self.lines], self.shape
        points = len(GAUSS_NODES)
        parts = [(nx - 1) * points * uy, (ny - 1) * points * ux, nx * ny]
        along_x, along_y, nodes = torch.split(values, parts)
        at_nodes = nodes.reshape(nx, ny, 2)
        interior = [line.interior for line in self.lines]
        first = along_x[:, 0].reshape(nx - 1, points, uy).permute(2, 0, 1)
        second = along_y[:, 1].reshape(ux, ny - 1, points)
        nodal = at_nodes[:, interior[1], 0].T, at_nodes[interior[0], :, 1]
        return (first, second), nodal

    @torch.no_grad()
    def beside(self, c: PlaneCoefficients, axis: int, sde: SDE, time: float) -> Array:
        """Return what ∫ f/D misses beside nodes (`gaps`) along a coordinate, (lines, nodes)."""
        own, across = self.lines[axis], self.lines[1 - axis]
        y, each = across.grid.nodes[across.interior], c.each[axis]
        inside = (each.drift / each.diffusivity).numpy()
        at_nodes = (c.nodal_drift[axis] / each.nodal_diffusivity).numpy()
        t = torch.tensor(time, dtype=torch.float64)

        def ask_on(line: int, places: Array) -> Array:
            along = torch.from_numpy(places.ravel())
            both = (along, y[line].expand_as(along))
            state = torch.stack(both if axis == 0 else both[::-1], -1)
            f, g = sde.drift(state, t), sde.diffusion(state, t).expand_as(state)
            ratio = sde.direction * f[:, axis].double() / (0.5 * g[:, axis].double() ** 2)
            return np.asarray(ratio.numpy().reshape(places.shape))

        return beside(own, inside, at_nodes, ask_on)

    def _areas(self, each: list[Array]) -> Array:
        """Return the products of the weights of both coordinates, at the unknowns."""
        pairs = zip(self.lines, each, strict=True)
        sums = (np.bincount(line.unknowns + 1, weights)[1:] for line, weights in pairs)
        return np.outer(*sums).astype(np.float64).ravel()


class PlaneFluxes:
    """The fluxes of both coordinates, and the operators made of them.

    Args:
        mesh: The lines.
        each: Fluxes along each coordinate.
    """

    def __init__(self, mesh: Mesh, each: tuple[LineFluxes, LineFluxes]) -> None:
        self.mesh: Mesh = mesh
        self.each: tuple[LineFluxes, LineFluxes] = each

    @property
    def steepest(self) -> float:
        """The largest cell Péclet number |f|h/D."""
        return max(part.steepest for part in self.each)

    @property
    def gains(self) -> tuple[Array, Array]:
        """log(a/b) of every cell: of shape (cells, lines) along x, (lines, cells) along y."""
        first, second = (part.gains for part in self.each)
        return first.T, second

    @property
    def diffusivities(self) -> tuple[Array, Array]:
        """D of both coordinates at the nodes, each of shape (nx, ny)."""
        x, y = self.mesh.lines
        first, second = (part.diffusivity for part in self.each)
        return first[y.unknowns].T, second[x.unknowns]

    @cached_property
    def compact(self) -> sparse.dia_matrix:
        """The operator of high order, on the unknowns."""
        return self._matrix(*(part.compact for part in self.each))

    @cached_property
    def lumped(self) -> sparse.dia_matrix:
        """The M-matrix, on the unknowns."""
        return self._matrix(*(part.lumped for part in self.each))

    def currents(self, p: Tensor) -> tuple[Array, Array]:
        """Return J at the nodes, along x and along y, each of shape (nx, ny).

        Args:
            p: Density at the nodes, shape (nx, ny).
        """
        values, (x, y) = p.detach().numpy(), self.mesh.lines
        first = self.each[0].currents(values.T[y.interior])
        second = self.each[1].currents(values[x.interior])
        return _widened(first, y.unknowns).T, _widened(second, x.unknowns)

    def _matrix(self, first: Stencil, second: Stencil) -> sparse.dia_matrix:
        """Return the matrix of both; column j holds at an offset o the entry of row j − o."""
        size = math.prod(self.mesh.shape)
        offsets = sorted({*first, *second})
        data = np.zeros((len(offsets), size))
        for row, offset in zip(data, offsets, strict=True):
            for part in (first, second):
                if offset in part:
                    row += part[offset]
        return sparse.dia_matrix((data, offsets), shape=(size, size))


def beside(
    line: Line, inside: Array, at_nodes: Array, ask_on: Callable[[int, Array], Array]
) -> Array:
    """Return what ∫ f/D misses beside nodes (`gaps`) on all lines, shape (lines, nodes).

    Args:
        line: The coordinate.
        inside: f/D at the Gauss points, shape (lines, cells, points).
        at_nodes: f/D at the nodes, shape (lines, nodes).
        ask_on: f/D on a line, by its number, at other places.
    """
    x, hidden = line.grid.nodes.numpy(), np.zeros_like(at_nodes)
    gained = inside * np.diff(x)[:, None]
    for number in np.flatnonzero(may_hide(inside, at_nodes)):
        ask = partial(ask_on, int(number))
        hidden[number] = missed(x, at_nodes[number], gained[number], ask)
    return hidden


def _widened(lines: Array, unknowns: NDArray[np.int64]) -> Array:
    """Return values on all lines, of those on lines with unknowns; zeros on the others."""
    full = np.zeros((len(lines) + 1, lines.shape[1]))
    full[:-1] = lines
    return full[unknowns]
