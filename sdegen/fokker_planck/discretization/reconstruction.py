"""The current of a line between its nodes, of high order, from the fluxes of its cells.

An exponentially fitted flux of a cell is a mean of the current J in it, exactly,

    F = a p_i − b p_{i+1} = ⟨J⟩,    ⟨y⟩ = ∫ s y dx / ∫ s dx,    s = exp(−∫ f/D)

On a line at rest J is constant, and F is all there is to know. Where a current turns in the plane
it is not: at a cell Péclet number u = ∫ f/D the mean sits (coth u/2 − 2/u) h/2 off the middle of
the cell, and taking F for J there is the numerical diffusion of first order that exponential
fitting is known for. Here J is the polynomial of degree 4 whose means in five neighbouring cells
are their F, whatever u; a wall without flux counts as a cell, J = 0. What is wanted of J is a
combination Ĵ of the five F. Where all F vanish, as in every density at rest whose current
vanishes, Ĵ does too: e^{−U/T} stays exact, to the quadrature of f/D.

**Conservation.** Ĵ at the faces of the cells is such that (Ĵ_{i+½} − Ĵ_{i−½})/V_i is J′ at node
i, to sixth order inside, second at the last four nodes before a wall, where V_i are the weights
of a quadrature of fourth order: what leaves a node enters the next one, and Σ V_i p_i is kept.

No M-matrix comes of it: positivity is to the accuracy of the density, and where that is to be
had by construction the fluxes F themselves are used, of second order.

Reference:
    Shu 1998, ICASE 97-65, eqs. (2.7)-(2.11), for Ĵ from point values; Strand 1994, J. Comput.
    Phys. 110, 47, for the rows at walls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sdegen.core.conditions import BoundaryCondition
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES
from sdegen.fokker_planck.discretization.fluxes import Landscape
from sdegen.fokker_planck.discretization.grid import Grid

_CELLS = 5  # whose fluxes are combined
_INNER = np.array([1, -8, 37, 37, -8, 1]) / 60  # Ĵ from J at three nodes on either side
# from the first four or five nodes, in the first three cells at a wall; then the fourth order's
_AT_WALL = (
    np.array([48, 59, -8, -3]) / 96,
    np.array([-11, 59, 51, -3]) / 96,
    np.array([-3, 0, 51, 56, -8]) / 96,
    np.array([0, 0, -8, 56, 56, -8]) / 96,
)
_FEWEST = 2 * len(_AT_WALL)  # cells, for the two walls' rows not to meet
_SERIES = 4.0  # |u| below which moments are found from the highest down
_HIGHEST = 26
_LARGEST = 600.0  # exponent: a cell in which s changes by more is not resolved
_STEEP = 18.0  # |u| beyond which s falls between ten Gauss points


_nodes, _weights = np.polynomial.legendre.leggauss(10)
_POINTS, _WEIGHTS = 0.5 * (1 + _nodes), 0.5 * _weights  # on [0, 1]
_POWERS = _POINTS ** np.arange(_CELLS)[:, None]
_LAGUERRE_POINTS, _LAGUERRE_WEIGHTS = np.polynomial.laguerre.laggauss(10)
_COEFFICIENTS = np.linalg.inv(np.vander(GAUSS_NODES.numpy(), increasing=True))  # of the cubic
_RISE = (_POINTS[:, None] ** np.arange(1, 5) / np.arange(1, 5)) @ _COEFFICIENTS  # its integral
_AT_LOW, _AT_HIGH = _COEFFICIENTS[0], _COEFFICIENTS.sum(0)


@dataclass(frozen=True)
class Line:
    """A coordinate of the plane: its grid and what its two ends are.

    Args:
        grid: The nodes.
        conditions: What the lower and the upper end are.
    """

    grid: Grid
    conditions: tuple[BoundaryCondition, BoundaryCondition]

    @classmethod
    def of(cls, grid: Grid, *, ring: bool) -> Line:
        """Return a ring, or a line between walls without flux."""
        return cls(grid, (BoundaryCondition.PERIODIC if ring else BoundaryCondition.NO_FLUX,) * 2)

    @property
    def ring(self) -> bool:
        """Whether the ends are one node."""
        return self.conditions[0].wraps

    @cached_property
    def unknowns(self) -> NDArray[np.int64]:
        """The unknown at each node; −1 where an absorbing wall leaves none, shape (nodes,)."""
        number = np.full(self.grid.cells + 1, -1)
        number[self.interior] = np.arange(len(number[self.interior]))
        if self.ring:
            number[-1] = 0
        return number

    @cached_property
    def interior(self) -> slice:
        """The nodes that hold the unknowns."""
        low, high = self.conditions
        return slice(int(low.absorbs), None if high.reflects else -1)

    @cached_property
    def faces(self) -> tuple[NDArray[np.int64], Array]:
        """Which nodes Ĵ of each cell is made from, and their weights, shapes (cells, 6)."""
        cells = self.grid.cells
        nodes = np.arange(cells)[:, None] + np.arange(-2, 4)
        weights = np.tile(_INNER, (cells, 1))
        if self.ring and cells >= 6:
            return nodes, weights
        if cells < _FEWEST:
            nodes, weights = np.arange(cells)[:, None] + np.arange(6), np.zeros((cells, 6))
            weights[:, :2] = 0.5
        else:
            for k, row in enumerate(_AT_WALL):
                padded = np.pad(row, (0, 6 - len(row)))
                nodes[k], weights[k] = np.arange(6), padded
                nodes[cells - 1 - k], weights[cells - 1 - k] = cells - np.arange(6), padded
        return np.where(weights == 0, np.arange(cells)[:, None], nodes), weights

    @cached_property
    def volumes(self) -> Array:
        """V of each node, shape (nodes,); at the two ends of a ring half of their one node's."""
        nodes, weights = self.faces
        at = (weights * self._positions(nodes)).sum(1)
        x = self.grid.nodes.numpy()
        inner = np.diff(at)
        if self.ring:
            end = 0.5 * (at[0] - (at[-1] - (x[-1] - x[0])))
            return np.concatenate([[end], inner, [end]])
        return np.concatenate([[at[0] - x[0]], inner, [x[-1] - at[-1]]])

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """The cells whose fluxes are combined, shape (cells, 5): −1 and `cells` are walls."""
        cells = self.grid.cells
        if self.ring:
            count = _CELLS if cells >= 6 else 3
            return np.arange(cells)[:, None] + np.arange(count) - count // 2
        low, high = (int(wall.reflects) for wall in self.conditions)
        first, last = -low, cells - 1 + high
        count = min(_CELLS, last - first + 1)
        start = np.clip(np.arange(cells) - count // 2, first, last - count + 1)
        return start[:, None] + np.arange(count)

    @cached_property
    def runs(self) -> list[tuple[int, int, slice, slice | NDArray[np.int64]]]:
        """Which neighbour, how far off, for which cells, and where its flux is."""
        cells, runs = self.grid.cells, []
        for k, neighbour in enumerate(self.neighbours.T):
            off = neighbour - np.arange(cells)
            inside = self.ring | ((neighbour >= 0) & (neighbour < cells))
            for d in np.unique(off[inside]).tolist():
                at = np.flatnonzero((off == d) & inside)
                low, high = int(at[0]), int(at[-1]) + 1  # an interval: clipped numbers grow
                taken = neighbour[at] % cells if self.ring else slice(low + d, high + d)
                runs.append((k, d, slice(low, high), taken))
        return runs

    def seen_from(self, offset: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Return, for each turn, which unknowns have no unknown at an offset from them."""
        nodes = len(self.grid.nodes)
        at = np.arange(nodes)[self.interior]
        column, count = at + offset, len(at)
        if self.ring:
            turns = [(turn, column // count != turn) for turn in (-1, 0, 1)]
            return [(turn, np.flatnonzero(lost)) for turn, lost in turns if not lost.all()]
        outside = (column < 0) | (column >= nodes)
        lost = outside | (self.unknowns[np.clip(column, 0, nodes - 1)] < 0)
        return [(0, np.flatnonzero(lost))]

    @cached_property
    def face_moments(self) -> Array:
        """Ĵ of (z^m), z = (x − x̄)/h of each cell, shape (5, cells)."""
        nodes, weights = self.faces
        z = (self._positions(nodes) - self.middles[:, None]) / self.widths[:, None]
        return np.stack([(weights * z**m).sum(1) for m in range(self.neighbours.shape[1])])

    @cached_property
    def node_moments(self) -> Array:
        """z^m of the lower node of each cell, and of the upper, shape (5, 2, cells)."""
        x = self.grid.nodes.numpy()
        z = (np.stack([x[:-1], x[1:]]) - self.middles) / self.widths
        return np.stack([z**m for m in range(self.neighbours.shape[1])])

    @cached_property
    def widths(self) -> Array:
        """Widths of the cells."""
        return self.grid.widths.numpy()

    @cached_property
    def middles(self) -> Array:
        """Middles of the cells."""
        x: Array = self.grid.nodes.numpy()
        return 0.5 * (x[:-1] + x[1:])

    def _positions(self, nodes: NDArray[np.int64]) -> Array:
        """Return where nodes are, of a ring beyond its ends too."""
        x, cells = self.grid.nodes.numpy(), self.grid.cells
        if not self.ring:
            return x[nodes]
        turns, rest = np.divmod(nodes, cells)
        return np.asarray(x[rest] + turns * (x[-1] - x[0]))

    @cached_property
    def binomials(self) -> Array:
        """Coefficients of ξ^j in z^m of each neighbour, ξ its own coordinate from 0 to 1."""
        count = self.neighbours.shape[1]
        coefficients = np.zeros((count, count, count, self.grid.cells))
        for k in range(count):
            at, width = self._starts(self.neighbours[:, k])
            z, scale = (at - self.middles) / self.widths, width / self.widths
            for m in range(count):
                for j in range(m + 1):
                    coefficients[k, m, j] = math.comb(m, j) * z ** (m - j) * scale**j
        return coefficients

    def _starts(self, cells: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return where cells begin, and how wide they are; a wall is a cell without width."""
        x, count = self.grid.nodes.numpy(), self.grid.cells
        if self.ring:
            return self._positions(cells), self.widths[cells % count]
        inside = np.clip(cells, 0, count - 1)
        return x[np.clip(cells, 0, count)], np.where(cells == inside, self.widths[inside], 0.0)


def combinations(line: Line, moments: Array, wanted: Array) -> Array:
    """Return the weights of the neighbours' fluxes in what is wanted of J.

    Args:
        line: The coordinate.
        moments: ⟨ξ^m⟩ of every cell, from `scale_means`, shape (5, lines, cells).
        wanted: What is wanted, of z^m, shape (5, cells), or (5, kinds, cells) for several.

    Returns:
        Weights, shape (5, lines, cells) or (5, kinds, lines, cells); the first axis are the
        neighbours.
    """
    cells, count = line.grid.cells, line.neighbours.shape[1]
    matrix = np.empty((count, count, *moments.shape[1:]))
    for k, binomials in enumerate(line.binomials):
        neighbour = line.neighbours[:, k]
        mean = moments[:, :, neighbour % cells if line.ring else np.clip(neighbour, 0, cells - 1)]
        for m in range(count):  # of (z + scale ξ)^m; ⟨1⟩ = 1
            row = matrix[m, k]
            row[:] = binomials[m, 0]
            for j in range(1, m + 1):
                row += binomials[m, j] * mean[j]
    right = np.repeat(wanted[..., None, :], moments.shape[1], axis=-2)
    # without pivots: means of increasing places are a totally positive matrix
    for i in range(count):
        for m in range(i + 1, count):
            factor = matrix[m, i] / matrix[i, i]
            matrix[m, i + 1 :] -= factor * matrix[i, i + 1 :]
            right[m] -= factor * right[i]
    for i in reversed(range(count)):
        for m in range(i + 1, count):
            right[i] -= matrix[i, m] * right[m]
        right[i] /= matrix[i, i]
    return right


def scale_means(land: Landscape) -> tuple[Array, Array]:
    """Return how far s is from an exponential, and ⟨ξ^m⟩, in each cell.

    f/D is the cubic through four Gauss points. With it s is integrated at ten; where it is so
    steep, |u| > 18, that it falls between them, at Laguerre's points from its higher end. What is
    the mean f/D's alone is integrated exactly.

    Args:
        land: f/D on the lines.

    Returns:
        ∫ e^{−uξ} dξ / ∫ s dξ, s = 1 at the lower node, shape (lines, cells); and the moments for
        m = 0 … 4, ξ from 0 to 1, shape (5, lines, cells).
    """
    u, regular = land.u.detach().numpy(), land.regular.detach().numpy()
    excess = regular @ _RISE.T - u[..., None] * _POINTS  # of −log s over uξ
    line = -u[..., None] * _POINTS
    line -= line.max(-1, keepdims=True)
    weighed = np.exp(line) * _WEIGHTS
    line_total = weighed.sum(-1)
    top = (line - excess).max(-1, keepdims=True)
    bent = np.exp(line - excess - top) * _WEIGHTS
    total = bent.sum(-1)
    ratio = line_total / total * np.exp(-np.clip(top[..., 0], -_LARGEST, _LARGEST))
    means = _exponential_moments(u)
    change = bent / total[..., None] - weighed / line_total[..., None]
    means += np.moveaxis(change @ _POWERS.T, -1, 0)
    low, high = regular @ _AT_LOW, -(regular @ _AT_HIGH)  # how steep s falls from each end
    for steep, mirrored in ((np.minimum(u, low), False), (np.minimum(-u, high), True)):
        some = np.nonzero((2 * steep > np.abs(u)) & (np.abs(u) > _STEEP))
        if len(some[0]):
            own = _steep_means(np.abs(u[some]), regular[some], mirrored=mirrored)
            ratio[some], means[:, some[0], some[1]] = own
    return ratio, means


def _steep_means(u: Array, regular: Array, *, mirrored: bool) -> tuple[Array, Array]:
    """Return `scale_means` for cells in which s falls from one end, like e^{−u·distance}.

    Args:
        u: |∫ f/D|, shape (n,).
        regular: f/D at the Gauss points, times the width, shape (n, 4).
        mirrored: Whether it is the upper end.
    """
    rise = (-regular[:, ::-1] if mirrored else regular) @ _COEFFICIENTS.T  # of ξ⁰ … ξ³
    at = np.minimum(_LAGUERRE_POINTS / u[:, None], 1.0)
    powers = at[..., None] ** np.arange(1, 5)
    excess = (powers * (rise / np.arange(1, 5))[:, None, :]).sum(-1) - u[:, None] * at
    bent = np.exp(np.minimum(-excess, _LARGEST)) * _LAGUERRE_WEIGHTS
    total = bent.sum(-1)
    means = np.stack([(bent * at**m).sum(-1) / total for m in range(_CELLS)])
    # both exponentials are counted from the lower node; from the upper one s/e^{−uξ} is the same
    return 1 / total, _mirrored(means) if mirrored else means


def _exponential_moments(u: Array) -> Array:
    """Return ∫ ξ^m e^{−uξ} dξ / ∫ e^{−uξ} dξ for m = 0 … 4, for any u."""
    w = np.abs(u)
    # I_{m−1} = (w I_m + e^{−w})/m shrinks what is wrong at the top, for a small w
    small = np.minimum(w, _SERIES)
    edge = np.exp(-small)
    integral, low = edge / (_HIGHEST + 1), np.empty((_CELLS, *u.shape))
    for m in range(_HIGHEST, 0, -1):
        integral = (small * integral + edge) / m
        if m <= _CELLS:
            low[m - 1] = integral
    # and I_m = (m I_{m−1} − e^{−w})/w for a large one
    large = np.maximum(w, _SERIES)
    high = [(1 - np.exp(-large)) / large]
    for m in range(1, _CELLS):
        high.append((m * high[-1] - np.exp(-large)) / large)
    means = np.where(w < _SERIES, low, high)
    means /= means[0].copy()
    return np.where(u >= 0, means, _mirrored(means))


def _mirrored(means: Array) -> Array:
    """Return ⟨(1 − ξ)^m⟩ from ⟨ξ^m⟩."""
    terms = [[(-1) ** j * math.comb(m, j) * means[j] for j in range(m + 1)] for m in range(_CELLS)]
    return np.stack([sum(each) for each in terms])
