"""Splines in the position: a space of even Hermite coefficients, and one of odd ones.

    V   splines of degree 4 on the nodes of a grid, three times differentiable
    W   splines of degree 3 on the same nodes, the derivatives of V

Derivatives of V are all of W, so that what is differentiated once forward and once back meets no
oscillation between nodes that it does not see. On a ring both are periodic.

Reference:
    de Boor 1978, A Practical Guide to Splines, chapter X, eq. (12), for the derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline

from sdegen.fokker_planck.discretization.arrays import Array

DEGREE = 4  # of V
_POINTS = DEGREE + 4  # of Gauss in each cell
_STENCIL = 8  # nodes that a value between nodes is made from


@dataclass(frozen=True, eq=False)
class Splines:
    """Both spaces on a grid, as sparse matrices of their values at places.

    Args:
        nodes: Increasing, shape (cells + 1,).
        ring: Whether both ends are one place.
    """

    nodes: Array
    ring: bool

    @cached_property
    def points(self) -> Array:
        """Gauss points of all cells, increasing."""
        places, _ = np.polynomial.legendre.leggauss(_POINTS)
        widths = np.diff(self.nodes)[:, None]
        return (self.nodes[:-1, None] + widths * (places + 1) / 2).ravel()

    @cached_property
    def weights(self) -> Array:
        """Their weights in an integral."""
        _, weights = np.polynomial.legendre.leggauss(_POINTS)
        return (np.diff(self.nodes)[:, None] * weights / 2).ravel()

    def even(self, x: Array) -> sparse.csr_array:
        """Return the values of V's functions at places, shape (places, functions)."""
        return self._design(x, DEGREE) @ self._joined(DEGREE)

    def odd(self, x: Array) -> sparse.csr_array:
        """Return the values of W's functions."""
        return self._design(x, DEGREE - 1) @ self._joined(DEGREE - 1)

    def slope(self, x: Array) -> sparse.csr_array:
        """Return the derivatives of V's functions."""
        knots, count = self._knots(DEGREE), len(self.nodes) - 1 + DEGREE
        rise = DEGREE / (knots[DEGREE + 1 : DEGREE + count] - knots[1:count])
        differences = sparse.eye_array(count - 1, count, k=1) - sparse.eye_array(count - 1, count)
        derivative = sparse.diags_array(rise) @ differences @ self._joined(DEGREE)
        return sparse.csr_array(self._design(x, DEGREE - 1) @ derivative)

    def between(self, x: Array) -> sparse.csr_array:
        """Return the matrix of local interpolation of eighth order, from nodes to places.

        What is 0 at eight nodes in a row is 0 between them: tails are not stirred.
        """
        nodes, count = self.nodes, len(self.nodes)
        cell = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, count - 2)
        first = cell - _STENCIL // 2 + 1
        if not self.ring:
            first = np.clip(first, 0, max(0, count - _STENCIL))
        index = first[:, None] + np.arange(min(_STENCIL, count))
        turns, at = np.divmod(index, count - 1) if self.ring else (0 * index, index)
        places = nodes[at] + turns * (nodes[-1] - nodes[0])
        values = np.ones(places.shape)
        for k in range(places.shape[1]):
            for j in set(range(places.shape[1])) - {k}:
                values[:, k] *= (x - places[:, j]) / (places[:, k] - places[:, j])
        rows = np.repeat(np.arange(len(x)), places.shape[1])
        shape = (len(x), count)
        return sparse.csr_array((values.ravel(), (rows, at.ravel())), shape=shape)

    def _knots(self, degree: int) -> Array:
        """Return the knots: repeated at walls, going on around a ring."""
        nodes = self.nodes
        if not self.ring:
            return np.concatenate([[nodes[0]] * degree, nodes, [nodes[-1]] * degree])
        length, cells = nodes[-1] - nodes[0], len(nodes) - 1
        index = np.arange(-degree, cells + degree + 1)
        turns, at = np.divmod(index, cells)
        return np.asarray(nodes[at] + turns * length)

    def _design(self, x: Array, degree: int) -> sparse.csr_array:
        """Return the values of the splines of a degree, before a ring is closed."""
        return sparse.csr_array(BSpline.design_matrix(x, self._knots(degree), degree))

    def _joined(self, degree: int) -> sparse.csr_array:
        """Return the matrix that makes splines of a ring one where they are the same."""
        cells = len(self.nodes) - 1
        count = cells + degree
        if not self.ring:
            return sparse.csr_array(sparse.eye_array(count))
        rows = np.arange(count)
        ones = np.ones(count)
        return sparse.csr_array((ones, (rows, rows % cells)), shape=(count, cells))
