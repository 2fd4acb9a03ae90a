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

__all__ = ["at_ends", "missed"]

Array = NDArray[np.float64]

_AT = 0.5 * (1 + np.polynomial.legendre.leggauss(4)[0])
_PLACES = _AT[0] * 2.0 ** (-0.5 * np.arange(41))  # of a cell: in the gap at its left end
_JUMP = 30.0  # times what one side misses, and the other side hides something
_POLE = 3  # nodes that a pole is felt at
_NOTHING = 1e-14  # of ∫ f/D


def _lagrange(places: Array) -> Array:
    """Return the polynomials through the Gauss points at places, shape (places, points)."""
    others = [[a for a in _AT if a != at] for at in _AT]
    each = [
        np.prod([(places - b) / (at - b) for b in rest], axis=0)
        for at, rest in zip(_AT, others, strict=True)
    ]
    return np.stack(each, -1)


_AT_START, _IN_GAP = _lagrange(np.zeros(1))[0], _lagrange(_PLACES)


def at_ends(inside: Array, at_nodes: Array) -> tuple[Array, Array]:
    """Return what polynomials through the Gauss points miss at both ends of each cell.

    Args:
        inside: Values there, shape (cells, points).
        at_nodes: Values at the nodes.
    """
    return inside @ _AT_START - at_nodes[:-1], inside @ _AT_START[::-1] - at_nodes[1:]


@np.errstate(invalid="ignore")  # a wall without noise has an infinite f/D
def missed(nodes: Array, ratio: Array, ask: Callable[[Array], Array]) -> Array:
    """Return what ∫ f/D misses beside each node, shape (nodes,).

    Args:
        nodes: Positions.
        ratio: f/D at every node and the Gauss points of the cell that follows it.
        ask: f/D at other places.
    """
    each = len(_AT) + 1
    at_nodes, inside = ratio[::each], ratio[:-1].reshape(-1, each)[:, 1:]
    h, found = np.diff(nodes), np.zeros(len(nodes))
    ahead, behind = at_ends(inside, at_nodes)
    # beside a wall, what the other end of its cell misses is a measure of what is smooth
    of_left, of_right = np.append(behind[0], behind[:-1]), np.append(ahead[1:], ahead[-1])
    for off, other, turned in ((ahead, of_left, False), (behind, of_right, True)):
        size = np.abs(off)
        hides = size > _JUMP * np.nan_to_num(np.abs(other), nan=np.inf)
        hides &= (size * h * _AT[0] > _NOTHING) & np.isfinite(size)
        cells = np.flatnonzero(hides)
        if not len(cells):
            continue
        places = 1 - _PLACES if turned else _PLACES
        seen = ask(nodes[cells, None] + h[cells, None] * places)
        smooth = inside[cells, ::-1] if turned else inside[cells]
        beside = np.abs(np.trapezoid(seen - smooth @ _IN_GAP.T, _PLACES, axis=-1)) * h[cells]
        found[cells + turned] += np.nan_to_num(beside)
    for wall, near in ((0, slice(None, _POLE)), (-1, slice(-_POLE, None))):
        if not np.isfinite(at_nodes[wall]):
            found[near] = 0.0  # no polynomial follows a pole, and its integral is known
    return found
