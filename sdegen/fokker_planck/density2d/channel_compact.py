"""The operator of high order for a diffusion matrix: lines as of diagonal noise, and what crosses.

    p_t = −∂_x [f_x p − ∂_x(D_xx p)] − ∂_y [f_y p − ∂_y(D_yy p)] + 2 ∂_x ∂_y (D_xy p)

The first two are those of `operator`. In the last one each derivative is that of `reconstruction`:
the one that a current is made with, of sixth order inside; and the one that a current is taken
with, which nothing leaves through a wall. Mass is kept. On walls without flux D_xy is put to 0,
without which what lies at their corners grows; so they are for densities that do not reach them.

No M-matrix comes of it: densities are positive to their accuracy.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from sdegen.fokker_planck.density2d.channel_reader import ChannelReader
from sdegen.fokker_planck.density2d.operator import Mesh, PlaneFluxes
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, Coefficients
from sdegen.fokker_planck.discretization.line_fluxes import LineFluxes
from sdegen.fokker_planck.discretization.reconstruction import Line


class CompactChannels:
    """What the operators of one mesh have in common at all times.

    Args:
        mesh: The lines.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def operator(self, reader: ChannelReader, d: Array, time: float) -> sparse.dia_matrix:
        """Return the operator at a time, on the unknowns; its offsets are always the same.

        Args:
            reader: Of drift and diffusion.
            d: D_xx, D_xy and D_yy at the nodes of the lattice, shape (nodes, 3).
            time: When.
        """
        along = self._lines(reader, time).compact
        mixed = np.zeros(along.shape[0])
        known = reader.lattice.unknowns >= 0
        mixed[reader.lattice.unknowns[known]] = self._away_from_walls(d[:, 1])[known]
        offsets, places = self._places
        data = np.zeros((len(offsets), len(mixed)))
        data[places, self._across.col] = self._across.data * mixed[self._across.col]
        data[np.searchsorted(offsets, along.offsets)] += along.data
        return sparse.dia_matrix((data, offsets), shape=along.shape)

    def _away_from_walls(self, mixed: Array) -> Array:
        """Return D_xy at the nodes, and 0 on walls without flux, at whose corners it lets grow."""
        mesh = self._mesh
        shape = [len(line.grid.nodes) - line.ring for line in mesh.lines]
        kept = mixed.copy().reshape(shape)
        for axis, line in enumerate(mesh.lines):
            for wall, at in zip(line.conditions, (0, -1), strict=True):
                if wall.reflects:
                    kept.swapaxes(0, axis)[at] = 0.0
        return kept.ravel()

    def currents(self, reader: ChannelReader, d: Array, time: float, p: Tensor) -> Array:
        """Return (J_x, J_y) at the nodes, shape (2, nx, ny).

        Args:
            reader: Of drift and diffusion.
            d: D_xx, D_xy and D_yy at the nodes of the lattice, shape (nodes, 3).
            time: When.
            p: Density at the nodes, shape (nx, ny).
        """
        nodal = np.stack(self._lines(reader, time).currents(p))
        lattice, lines = reader.lattice, self._mesh.lines
        product = lattice.widened(d[:, 1]) * p.detach().numpy()
        for axis, line in enumerate(lines):
            _, slope = _derivatives(lines[1 - axis], whole=True)
            once = product[:, :-1] if axis == 0 and lines[1].ring else product
            once = once[:-1] if axis == 1 and lines[0].ring else once
            across = slope @ (once.T if axis == 0 else once)
            if lines[1 - axis].ring:
                across = np.concatenate([across, across[:1]])
            nodal[axis] -= across.T if axis == 0 else across
            for wall, at in zip(line.conditions, (0, -1), strict=True):
                if wall.reflects:
                    nodal[axis].swapaxes(0, axis)[at] = 0.0
        return nodal

    def _lines(self, reader: ChannelReader, time: float) -> PlaneFluxes:
        """Return the fluxes along the lines, of D_xx and D_yy alone."""
        mesh, points = self._mesh, self._mesh.points.numpy()
        own = torch.from_numpy(reader.matrices(points, time)[:, [0, 2]])
        inside_d, nodal_d = mesh.along_lines(own)
        inside_f, _ = mesh.along_lines(torch.from_numpy(reader.drift(points, time)))
        nowhere = torch.zeros(2, dtype=torch.float64)
        each = [Coefficients(*c, nowhere) for c in zip(inside_f, inside_d, nodal_d, strict=True)]
        return self._fluxes(each)

    def _fluxes(self, each: list[Coefficients]) -> PlaneFluxes:
        """Return the fluxes of the coefficients along both coordinates."""
        first, second = (
            LineFluxes(line, axis, self._mesh.shape, each[axis])
            for axis, line in enumerate(self._mesh.lines)
        )
        return PlaneFluxes(self._mesh, (first, second))

    @cached_property
    def _across(self) -> sparse.coo_matrix:
        """2 ∂_x ∂_y, each derivative once of a current and once for one."""
        (div_x, slope_x), (div_y, slope_y) = map(_derivatives, self._mesh.lines)
        both = sparse.kron(div_x, slope_y) + sparse.kron(slope_x, div_y)
        return sparse.coo_matrix(both)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The offsets of all entries, sorted, and which of them those of `_across` have."""
        of_entries = self._across.col - self._across.row
        offsets = np.unique(np.concatenate([of_entries, self._along]))
        return offsets, np.searchsorted(offsets, of_entries)

    @cached_property
    def _along(self) -> NDArray[np.int64]:
        """Offsets of what goes along the lines."""
        each, walls = [], torch.zeros(2, dtype=torch.float64)
        for line, count in zip(self._mesh.lines, self._mesh.shape[::-1], strict=True):
            inside = torch.ones(count, line.grid.cells, len(GAUSS_NODES), dtype=torch.float64)
            nodal = torch.ones(count, len(line.grid.nodes), dtype=torch.float64)
            each.append(Coefficients(inside, inside, nodal, walls))
        return np.asarray(self._fluxes(each).compact.offsets).astype(np.int64)


def _derivatives(
    line: Line, *, whole: bool = False
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return the derivative of a current, which no wall lets through, and that of any values.

    Both are matrices on the unknowns, values at an absorbing wall being 0; or, as a whole, on all
    nodes, of a ring all but the last.
    """
    cells, nodes = line.grid.cells, len(line.grid.nodes)
    at, weights = line.faces
    rows = np.repeat(np.arange(cells), at.shape[1])
    columns = (at % cells if line.ring else at).ravel()
    faces = sparse.csr_matrix((weights.ravel(), (rows, columns)), shape=(cells, nodes))
    steps = np.arange(cells)
    ones = np.ones(cells)
    leave = sparse.csr_matrix((ones, (steps, steps)), shape=(nodes, cells))
    enter = sparse.csr_matrix((ones, (steps + 1, steps)), shape=(nodes, cells))
    current = (leave - enter) @ faces
    ends = sparse.csr_matrix(([-1.0, 1.0], ([0, nodes - 1],) * 2), shape=(nodes, nodes))
    values = current if line.ring else current + ends
    volumes = line.volumes.copy()
    if line.ring:  # both ends are one node
        once = sparse.csr_matrix(
            (np.ones(nodes), (np.arange(nodes) % cells, np.arange(nodes))), shape=(cells, nodes)
        )
        current, values = (once @ each[:, :cells] for each in (current, values))
        volumes = once @ volumes
    kept = np.arange(len(volumes) if whole else nodes)[slice(None) if whole else line.interior]
    scale = sparse.diags(1 / volumes[kept])
    first, second = (scale @ each.tocsr()[kept][:, kept] for each in (current, values))
    return sparse.csr_matrix(first), sparse.csr_matrix(second)
