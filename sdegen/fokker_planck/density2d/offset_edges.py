"""Edges between the nodes of the plane along the offsets of D, and how well each conducts.

    c = ½ (V_i ρ_e(x_i) + V_j ρ_e(x_j)),    j = i + e

with ρ_e from `selling`, D in units of the cells at each node, and V = h_x h_y. Along a ring an
edge goes through the seam. At a wall without flux edges that leave the domain are left out, and
those that stay are weighed (`wall_layers`). At an absorbing wall an edge ends where it meets it,
after a share θ of its length, and conducts c/θ: p = 0 there, and the error is of second order.

Reference:
    Gibou, Fedkiw, Cheng and Kang 2002, J. Comput. Phys. 176, 205, section 2, for the shortened
    edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdegen.fokker_planck.density2d.operator import Mesh
from sdegen.fokker_planck.density2d.selling import Integers, decomposed
from sdegen.fokker_planck.density2d.wall_layers import WallLayer
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.reconstruction import Line


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges from a node to another, or to an absorbing wall.

    Args:
        start: Node at which each starts, shape (edges,).
        end: Node at which it ends; −1 is an absorbing wall.
        conductance: c, per time.
        origin: Where it starts, shape (edges, 2), in units of the state.
        way: From there to its end, shape (edges, 2).
    """

    start: Integers
    end: Integers
    conductance: Array
    origin: Array
    way: Array


class Lattice:
    """The nodes of the plane, a ring's ends being one, and offsets between them.

    Args:
        mesh: The lines.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.shape: tuple[int, ...] = tuple(
            len(line.grid.nodes) - line.ring for line in mesh.lines
        )
        self.spacings: list[Array] = [_spacings(line) for line in mesh.lines]

    @cached_property
    def indices(self) -> tuple[Integers, Integers]:
        """Numbers along both coordinates of every node, each of shape (nodes,)."""
        i, j = np.indices(self.shape).reshape(2, -1)
        return i, j

    @cached_property
    def points(self) -> Array:
        """Places of the nodes, shape (nodes, 2)."""
        return self.placed(*(index.astype(np.float64) for index in self.indices))

    @cached_property
    def unknowns(self) -> Integers:
        """The unknown of each node, −1 at absorbing walls, shape (nodes,)."""
        first, second = (
            line.unknowns[index] for line, index in zip(self.mesh.lines, self.indices, strict=True)
        )
        numbers = first * self.mesh.shape[1] + second
        return np.where((first < 0) | (second < 0), -1, numbers)

    @cached_property
    def steps(self) -> Array:
        """h of both coordinates at every node, shape (nodes, 2)."""
        pairs = zip(self.spacings, self.indices, strict=True)
        return np.stack([h[index] for h, index in pairs], 1)

    def in_cells(self, d: Array) -> Array:
        """Return D at the nodes in units of the cells, shape (nodes, 3)."""
        hx, hy = self.steps.T
        return np.asarray(d / np.stack([hx * hx, hx * hy, hy * hy], 1))

    def placed(self, i: Array, j: Array) -> Array:
        """Return where indices are, whole or not, of a ring beyond its ends too; (n, 2)."""
        each = []
        for line, index in zip(self.mesh.lines, (i, j), strict=True):
            x, cells = line.grid.nodes.numpy(), line.grid.cells
            turns = np.floor(index / cells) if line.ring else 0.0
            at = np.interp(index - turns * cells, np.arange(cells + 1), x)
            each.append(at + turns * (x[-1] - x[0]))
        return np.stack(each, 1)

    def number(self, i: Integers, j: Integers) -> Integers:
        """Return the node at indices, of a ring beyond its ends too."""
        first, second = (
            index % cells if line.ring else index
            for index, line, cells in zip((i, j), self.mesh.lines, self.shape, strict=True)
        )
        return first * self.shape[1] + second

    def widened(self, values: Array) -> Array:
        """Return values at the nodes of the grid, both ends of a ring among them, (nx, ny)."""
        pads = [(0, int(line.ring)) for line in self.mesh.lines]
        return np.pad(values.reshape(self.shape), pads, mode="wrap")

    def within(self, states: Array) -> Array:
        """Return places beyond the seam of a ring as the same places within it."""
        each = []
        for line, at in zip(self.mesh.lines, states.T, strict=True):
            low, high = line.grid.low, line.grid.high
            each.append(low + np.mod(at - low, high - low) if line.ring else at)
        return np.stack(each, 1)

    def edges(self, d: Array) -> Edges:
        """Return the edges of a diffusion matrix.

        Args:
            d: D_xx, D_xy and D_yy at every node, shape (nodes, 3).
        """
        scaled = self.in_cells(d)
        offsets, weights = decomposed(scaled)
        return _Wiring(self, scaled, offsets, weights).edges()


class _Wiring:
    """Half of every edge, as the node at its one end knows it; both halves are added.

    Args:
        lattice: The nodes.
        scaled: D in units of the cells.
        offsets: e_k at each node.
        weights: ρ_k.
    """

    def __init__(self, lattice: Lattice, scaled: Array, offsets: Integers, weights: Array) -> None:
        self._lattice, self._lines = lattice, lattice.mesh.lines
        self._offsets, self._weights, self._scaled = offsets, weights, scaled
        self._inner = np.flatnonzero(lattice.unknowns >= 0)
        self._layers = [self._layers_of(axis) for axis in (0, 1)]
        self._halves: list[tuple[Integers, Integers, Integers]] = []  # start, end, offset
        self._values: list[tuple[Array, Array]] = []  # conductance, share of the offset's length

    def edges(self) -> Edges:
        """Return all edges, each once."""
        for k in range(3):
            self._add(self._offsets[:, k], self._weights[:, k], (True, True))
        for axis in (0, 1):
            lacking = self._lacking(axis)
            if lacking is not None:
                along = np.zeros_like(self._offsets[:, 0])
                along[:, 1 - axis] = 1
                self._add(along, lacking, (axis != 0, axis != 1))
        lattice = self._lattice
        start, end, e = (np.concatenate([h[k] for h in self._halves]) for k in range(3))
        half, length = (np.concatenate([v[k] for v in self._values]) for k in range(2))
        count, reach = len(lattice.unknowns), int(np.abs(e).max()) + 1
        # an absorbed edge is one of its own; others are counted from their lower end
        lower = (e[:, 0] > 0) | ((e[:, 0] == 0) & (e[:, 1] > 0)) | (end < 0)
        first, second = np.where(lower, start, end), np.where(lower, end, start)
        e = np.where(lower[:, None], e, -e)
        code = (e + reach) @ np.array([2 * reach + 1, 1])
        key = (code * count + first) * 2 + (second < 0)
        _, seen, owner = np.unique(key, return_index=True, return_inverse=True)
        conductance: Array = np.bincount(owner.ravel(), half).astype(np.float64)
        i, j = (index[first[seen]].astype(np.float64) for index in lattice.indices)
        origin, share = lattice.placed(i, j), length[seen, None] * e[seen]
        way = lattice.placed(i + share[:, 0], j + share[:, 1]) - origin
        return Edges(first[seen], second[seen], conductance, origin, way)

    def _layers_of(self, axis: int) -> tuple[WallLayer | None, WallLayer | None]:
        """Return the layers at both walls of a coordinate, None where one is not without flux."""
        line, shape = self._lines[axis], self._lattice.shape
        number = np.arange(shape[0] * shape[1]).reshape(shape)
        reach, layers = int(np.abs(self._offsets[..., axis]).max()), []
        for wall, at in zip(line.conditions, (0, -1), strict=True):
            nodes = number.take(at, axis)
            shares = self._weights[nodes] / self._weights[nodes].sum(1, keepdims=True)
            layer = WallLayer.of(self._offsets[nodes][..., axis], shares, reach)
            layers.append(layer if wall.reflects else None)
        return layers[0], layers[1]

    def _lacking(self, axis: int) -> Array | None:
        """Return what layers at the walls of a coordinate lack along them, shape (nodes,)."""
        low, high = self._layers[axis]
        row, place = self._lattice.indices[axis], self._lattice.indices[1 - axis]
        share = np.zeros(len(row))
        for layer, rows in ((low, row), (high, self._lines[axis].grid.cells - row)):
            if layer is not None:
                share += layer.lacking_at(place, rows)
        if not share.any():
            return None
        d, along = self._scaled, np.zeros(len(row))
        for k in range(3):
            along += np.where(self._offsets[:, k, axis] == 0, self._weights[:, k], 0.0)
        through = d[:, 2 * axis]
        return share * np.maximum((d[:, 0] * d[:, 2] - d[:, 1] ** 2) / through - along, 0.0)

    def _add(self, e: Integers, weights: Array, weighed: tuple[bool, bool]) -> None:
        """Add the halves of the edges along an offset of each node, and against it.

        Args:
            e: The offset, shape (nodes, 2).
            weights: ρ, shape (nodes,).
            weighed: Whether the walls of each coordinate weigh them.
        """
        inner = self._inner[weights[self._inner] > 0]
        half = 0.5 * (weights * self._lattice.steps.prod(1))[inner]
        for sign in (1, -1):
            step = sign * e[inner]
            share, absorbed = np.full(len(inner), 2.0), np.zeros(len(inner), dtype=bool)
            target, factor = [], np.ones(len(inner))
            for axis, line in enumerate(self._lines):
                at = self._lattice.indices[axis][inner]
                to = at + step[:, axis]
                met, absorbs = _met(line, at, step[:, axis])
                absorbed = np.where(met == share, absorbed | absorbs, absorbed)
                absorbed = np.where(met < share, absorbs, absorbed)
                share = np.minimum(share, met)
                if weighed[axis]:
                    place = self._lattice.indices[1 - axis][inner]
                    factor *= self._factor(axis, at, to, step[:, axis], place)
                target.append(to % line.grid.cells if line.ring else to)
            inside = share > 1
            absorbed &= ~inside
            number = target[0] * self._lattice.shape[1] + target[1]
            kept = inside | absorbed
            end = np.where(inside, number, -1)[kept]
            length = np.where(inside, 1.0, share)[kept]
            # an absorbed edge has no other end that adds its half
            value = (half * factor * np.where(inside, 1.0, 2.0))[kept] / length
            self._halves.append((inner[kept], end, step[kept]))
            self._values.append((value, length))

    def _factor(
        self, axis: int, at: Integers, to: Integers, step: Integers, place: Integers
    ) -> Array:
        """Return how the walls of a coordinate weigh edges."""
        factor, cells = np.ones(len(at)), self._lines[axis].grid.cells
        low, high = self._layers[axis]
        if low is not None:
            factor *= low.at(place, step, np.maximum(np.minimum(at, to), 0))
        if high is not None:
            factor *= high.at(place, step, np.maximum(cells - np.maximum(at, to), 0))
        return factor


def _met(line: Line, at: Integers, step: Integers) -> tuple[Array, Array]:
    """Return after which share of its way a step meets an end, 3 for never, and if it absorbs."""
    share, absorbs = np.full(len(at), 3.0), np.zeros(len(at), dtype=bool)
    if line.ring:
        return share, absorbs
    far = line.grid.cells - at
    for wall, distance, ahead in (
        (line.conditions[0], at, -step),
        (line.conditions[1], far, step),
    ):
        # an absorbing wall ends what comes to its nodes, one without flux what goes beyond
        meets = (ahead > 0) & (ahead >= distance if wall.absorbs else ahead > distance)
        share = np.where(meets, distance / np.maximum(ahead, 1), share)
        absorbs |= meets & wall.absorbs
    return share, absorbs


def _spacings(line: Line) -> Array:
    """Return h at each node of a line: half of what lies between its neighbours."""
    widths = line.widths
    if line.ring:
        return np.asarray(0.5 * (widths + np.roll(widths, 1)))
    padded = np.concatenate([widths[:1], widths, widths[-1:]])
    return np.asarray(0.5 * (padded[:-1] + padded[1:]))
