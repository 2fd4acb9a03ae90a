"""The fluxes along the lines of one coordinate of the plane, and their part of the operators.

Both coordinates add to one operator; what one of them adds stays as long as its own drift and
diffusion do.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import Coefficients
from sdegen.fokker_planck.discretization.fluxes import bernoulli, landscape
from sdegen.fokker_planck.discretization.grid import control_volumes
from sdegen.fokker_planck.discretization.reconstruction import Line, combinations, scale_means

Stencil = dict[int, Array]  # for each offset between two unknowns, entries by column


class LineFluxes:
    """J = a p_i − b p_{i+1} in the cells of all lines along one coordinate.

    Args:
        line: The coordinate.
        axis: Which of the two it is.
        shape: Numbers of unknowns along both.
        c: f and D on the lines.
    """

    def __init__(self, line: Line, axis: int, shape: tuple[int, int], c: Coefficients) -> None:
        self.line: Line = line
        self._axis = axis
        self._shape = shape
        land = landscape(c, line.grid.nodes)
        self.gains: np.ndarray = land.w.numpy()
        self.diffusivity: np.ndarray = c.nodal_diffusivity.numpy()
        ratio, self._moments = scale_means(land)
        self.steepest: float = float(land.u.abs().max())
        rate, d = ratio / line.widths, self.diffusivity
        self._a = rate * d[:, :-1] * bernoulli(-land.u).numpy()
        self._b = rate * d[:, 1:] * bernoulli(land.u).numpy()

    @cached_property
    def compact(self) -> Stencil:
        """Entries of the operator of high order."""
        weights = combinations(self.line, self._moments, self.line.face_moments)
        faces: Stencil = {}
        for k, off, run, taken in self.line.runs:
            part = weights[k][:, run]
            for node, rate in ((off, self._a), (off + 1, -self._b)):
                face = faces.setdefault(node, np.zeros_like(rate))
                face[:, run] += part * rate[:, taken]
        return self._entries(faces, self.line.volumes)

    @cached_property
    def lumped(self) -> Stencil:
        """Entries of the M-matrix."""
        volumes = control_volumes(self.line.grid.widths).numpy()
        return self._entries({0: self._a, 1: -self._b}, volumes)

    def currents(self, p: Array) -> Array:
        """Return J at the nodes of the lines, shape (lines, nodes).

        Args:
            p: Density there.
        """
        flux = self._a * p[:, :-1] - self._b * p[:, 1:]
        flux = np.pad(flux, ((0, 0), (1, 1)))  # through a wall there is none
        cells, neighbours = self.line.grid.cells, self.line.neighbours
        taken = neighbours % cells + 1 if self.line.ring else neighbours + 1
        low, high = combinations(self.line, self._moments, self.line.node_moments).swapaxes(0, 1)
        nodal = np.zeros_like(p)
        for first, second, cell in zip(low, high, taken.T, strict=True):
            nodal[:, :-1] += first * flux[:, cell]
            nodal[:, -1] += second[:, -1] * flux[:, cell[-1]]
        return nodal

    def _entries(self, faces: Stencil, volumes: Array) -> Stencil:
        """Return what the currents through the faces do to the unknowns.

        Args:
            faces: Ĵ of every cell, as entries at nodes counted from the cell's own lower one.
            volumes: Of the nodes.
        """
        line, count = self.line, self._shape[self._axis]
        stride = self._shape[1] if self._axis == 0 else 1
        nodes = len(line.grid.nodes)
        rows: Stencil = {}
        for offset, face in faces.items():
            for step, into, gain in ((0, slice(0, -1), -face), (1, slice(1, None), face)):
                part = rows.setdefault(offset - step, np.zeros((len(face), nodes)))
                part[:, into] += gain
        if line.ring:  # both ends are one node: what leaves the last cell enters the first
            volumes = volumes[:-1] + np.pad(volumes[-1:], (0, nodes - 2))
            for part in rows.values():
                part[:, 0] += part[:, -1]
        else:
            volumes = volumes[line.interior]
        entries: Stencil = {}
        for offset, part in rows.items():
            values = part[:, line.interior] / volumes
            for turn, unseen in line.seen_from(offset):
                some = values.copy() if turn or line.ring else values
                some[:, unseen] = 0.0
                flat = (some if self._axis == 1 else some.T).ravel()
                key = (offset - turn * count) * stride
                moved = np.roll(flat, key)  # from rows to columns
                entries[key] = entries[key] + moved if key in entries else moved
        return entries
