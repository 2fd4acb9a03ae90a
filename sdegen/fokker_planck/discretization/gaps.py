"""What hides between a node and the Gauss point next to it.

Gauss points leave 7 % of a cell unseen at each of its ends. A drift that jumps there jumps at the
node, for all that is read inside of cells, and so it does for every grid that keeps that node:
grids of two finenesses agree, and what they say of their error is far too small. The nodes
themselves are read too. Where f/D there is missed by the polynomial through one cell's points,
and not by that of the cell on the other side, the gap is looked into, at places that crowd
towards the node, and what ∫ f/D misses there is found.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES

_AT = GAUSS_NODES.numpy()
_PLACES = _AT[0] * 2.0 ** (-0.5 * np.arange(41))  # of a cell: in the gap at its left end
_JUMP = 30.0  # times what one side misses, and the other side hides something
_POLE = 3  # nodes that a pole is felt at
_NOTHING = 1e-14  # of ∫ f/D


def _lagrange(places: Array) -> Array:
    """Return the polynomials through the Gauss points at places, shape (places, points)."""
    each = [np.prod([(places - b) / (at - b) for b in _AT if b != at], axis=0) for at in _AT]
    return np.stack(each, -1)


_AT_START, _IN_GAP = _lagrange(np.zeros(1))[0], _lagrange(_PLACES)


def at_ends(inside: Array, at_nodes: Array) -> tuple[Array, Array]:
    """Return what polynomials through the Gauss points miss at both ends of each cell.

    Args:
        inside: Values there, shape (..., cells, points).
        at_nodes: Values at the nodes, shape (..., nodes).
    """
    ahead = inside @ _AT_START - at_nodes[..., :-1]
    return ahead, inside @ _AT_START[::-1] - at_nodes[..., 1:]


def _across(ahead: Array, behind: Array) -> tuple[Array, Array]:
    """Return what is missed of the same two nodes by the cells on their other sides.

    Beside a wall, what the other end of its cell misses is a measure of what is smooth.
    """
    of_left = np.concatenate([behind[..., :1], behind[..., :-1]], -1)
    return of_left, np.concatenate([ahead[..., 1:], ahead[..., -1:]], -1)


def may_hide(inside: Array, at_nodes: Array) -> NDArray[np.bool_]:
    """Return on which of many lines something may hide.

    Args:
        inside: f/D at the Gauss points, shape (lines, cells, points).
        at_nodes: f/D at the nodes, shape (lines, nodes).
    """
    ahead, behind = map(np.abs, at_ends(inside, at_nodes))
    of_left, of_right = _across(ahead, behind)
    return np.asarray(((ahead > _JUMP * of_left) | (behind > _JUMP * of_right)).any(1))


def _hiding(off: Array, other: Array, h: Array) -> NDArray[np.intp]:
    """Return cells whose polynomial misses a node by far more than that of the other side."""
    size = np.abs(off)
    cells = np.flatnonzero((size > _JUMP * np.abs(other)) & (size * h > _NOTHING / _AT[0]))
    return cells[np.isfinite(size[cells])]


@np.errstate(invalid="ignore")  # a wall without noise has an infinite f/D
def missed(nodes: Array, at_nodes: Array, gained: Array, ask: Callable[[Array], Array]) -> Array:
    """Return what ∫ f/D misses beside each node, shape (nodes,).

    Args:
        nodes: Positions.
        at_nodes: f/D there.
        gained: h f/D at the Gauss points of each cell, shape (cells, points).
        ask: f/D at other places.
    """
    h, hidden = nodes[1:] - nodes[:-1], np.zeros(len(nodes))
    of_cells = gained @ _AT_START - at_nodes[:-1] * h, gained @ _AT_START[::-1] - at_nodes[1:] * h
    if not any(np.count_nonzero(np.abs(off) > _NOTHING / _AT[0]) for off in of_cells):
        return hidden
    inside = gained / h[:, None]
    ahead, behind = at_ends(inside, at_nodes)
    of_left, of_right = _across(ahead, behind)
    left, right = (_hiding(off, other, h) for off, other in ((ahead, of_left), (behind, of_right)))
    cells = np.concatenate([left, right])
    if len(cells):
        places = np.repeat([_PLACES, 1 - _PLACES], [len(left), len(right)], 0)
        seen = ask(nodes[cells, None] + h[cells, None] * places)
        smooth = np.concatenate([inside[left], inside[right, ::-1]])
        beside = np.abs(np.trapezoid(seen - smooth @ _IN_GAP.T, _PLACES, axis=-1)) * h[cells]
        beside = np.nan_to_num(beside)
        hidden[left] += beside[: len(left)]
        hidden[right + 1] += beside[len(left) :]
    for wall, near in ((0, slice(None, _POLE)), (-1, slice(-_POLE, None))):
        if not np.isfinite(at_nodes[wall]):
            hidden[near] = 0.0  # no polynomial follows a pole, and its integral is known
    return hidden
