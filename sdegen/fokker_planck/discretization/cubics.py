"""Cubics between nodes: what a function on a line is between them, and integrals of it.

Between nodes x_i and x_{i+1} it is the cubic of Hermite with slopes s_i from the parabola through
three neighbouring nodes: fourth order in the cell. Where such a cubic of a density would dip below
zero (a start at a point, a tail that falls by more than e³ within a cell) slopes are limited to
|s_i| h ≤ 3 p_i, which keeps it positive. The mass of a cell is then

    m_i = h_i (p_i + p_{i+1})/2 − h_i² (s_{i+1} − s_i)/12
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.discretization import arrays
from sdegen.fokker_planck.discretization.arrays import AnyArray, Array

_LIMIT = 3.0  # |s| h ≤ 3 p: the control points of the cubic are then ≥ 0
# ∫ ξᵏ H dξ, k = 0, 1, 2, of the cubics of Hermite for p_i, p_{i+1}, h s_i and h s_{i+1}
_HERMITE = np.array([
    (1 / 2, 3 / 20, 1 / 15),
    (1 / 2, 7 / 20, 4 / 15),
    (1 / 12, 1 / 30, 1 / 60),
    (-1 / 12, -1 / 20, -1 / 30),
])  # fmt: skip


def every_other_missed(x: Array, p: Array) -> tuple[Array, Array]:
    """Return every other node, and by how much a cubic through the rest misses p there."""
    last = len(x) - 1 + len(x) % 2  # an odd number of nodes
    nodes, values = x[:last:2], p[:last:2]
    h = nodes[1:] - nodes[:-1]
    share = (x[1:last:2] - nodes[:-1]) / h
    miss = values_within(h, values, limited_slopes(h, values), share) - p[1:last:2]
    return x[1:last:2], np.abs(miss)


def cell_masses(x: AnyArray, p: AnyArray) -> AnyArray:
    """Return the masses of the cells of one or many densities, shape (..., cells).

    Args:
        x: Nodes, shape (nodes,).
        p: Nodal values ≥ 0, shape (..., nodes), tensors or arrays as the nodes are.
    """
    h = x[1:] - x[:-1]
    return cell_integrals(h, p, limited_slopes(h, p))


def part_masses(x: Array, p: Array, between: Array) -> tuple[Array, Array]:
    """Return the masses of cells, and of the two parts of each, shapes (cells,) and (2 · cells,).

    Args:
        x: Nodes, shape (nodes,).
        p: Nodal values ≥ 0, shape (nodes,).
        between: Where each cell is cut, shape (cells,).
    """
    h = x[1:] - x[:-1]
    slopes = limited_slopes(h, p)
    masses = cell_integrals(h, p, slopes)
    s = (between - x[:-1]) / h
    square = s * s
    cube = square * s
    right = cube * (1 - 0.5 * s)
    up, down = square * (0.5 - s * (2 / 3 - 0.25 * s)), cube * (1 / 3 - 0.25 * s)
    bend = h * (up * slopes[:-1] - down * slopes[1:])
    first = h * ((s - right) * p[:-1] + right * p[1:] + bend)
    return masses, np.stack([first, masses - first], 1).ravel()


def integral(x: Float[Tensor, " nodes"], y: Float[Tensor, "... nodes"]) -> Tensor:
    """Return ∫ y dx of nodal values of any sign, fourth order in the cell, linear in y.

    >>> x = torch.linspace(0, 1, 5, dtype=torch.float64)
    >>> round(float(integral(x, x**2)), 12)
    0.333333333333
    """
    h = x[1:] - x[:-1]
    return cell_integrals(h, y, parabola_slopes(h, y)).sum(-1)


def moment_weights(x: Array, count: int = 3, *, origin: float = 0.0) -> Array:
    """Return weights of ∫ p dx, ∫ y p dx and ∫ y² p dx of the cubics, shape (count, nodes).

    Over a cell of width h from x, with ∫ ξᵏ H dξ of the four cubics H of Hermite by hand.

    Args:
        x: Nodes, shape (nodes,).
        count: How many of the moments, 1 to 3.
        origin: Where y = x − origin is 0.
    """
    h, left_ends = x[1:] - x[:-1], x[:-1] - origin
    powers = np.empty((count, len(h)))
    powers[0] = h
    for k in range(1, count):
        np.multiply(powers[k - 1], h, out=powers[k])
    parts = _HERMITE[:, :count, None] * powers  # of p_i, p_{i+1}, h s_i and h s_{i+1}
    if count > 1:  # from powers of ξ h to those of x + ξ h
        shift = left_ends * parts[:, 0]
        if count > 2:
            parts[:, 2] += left_ends * (2 * parts[:, 1] + shift)
        parts[:, 1] += shift
    left, right, rise, fall = parts
    of_slopes = np.zeros((count, len(x)))
    of_slopes[:, :-1] += h * rise
    of_slopes[:, 1:] += h * fall
    middle = of_slopes[:, 1:-1].copy()
    middle[:, 0] -= of_slopes[:, 0]  # s_0 = 2 σ_0 − s_1, and so at the other end
    middle[:, -1] -= of_slopes[:, -1]
    share = h[1:] / (h[1:] + h[:-1])
    of_secants = np.zeros((count, len(h)))
    of_secants[:, :-1] += share * middle
    of_secants[:, 1:] += (1 - share) * middle
    of_secants[:, 0] += 2 * of_slopes[:, 0]
    of_secants[:, -1] += 2 * of_slopes[:, -1]
    of_secants /= h
    weights = np.zeros((count, len(x)))
    weights[:, 1:] += right + of_secants
    weights[:, :-1] += left - of_secants
    return weights


def interpolated(
    x: Float[Tensor, " nodes"], y: Float[Tensor, "... nodes"], at: Float[Tensor, " points"]
) -> Float[Tensor, "... points"]:
    """Return the cubic of nodal values of any sign, of third order, at points within the nodes.

    >>> x = torch.linspace(0, 1, 5, dtype=torch.float64)
    >>> interpolated(x, x**2, torch.tensor([0.3], dtype=torch.float64))
    tensor([0.0900], dtype=torch.float64)
    """
    h = x[1:] - x[:-1]
    cell = cell_of(x, at)
    return values_at(h, y, cell, (at - x[cell]) / h[cell])


def cell_of(x: Float[Tensor, " nodes"], at: Tensor) -> Tensor:
    """Return the index of the cell that holds each place, one of the outer two beyond them."""
    return (torch.searchsorted(x, at.contiguous(), right=True) - 1).clamp(0, len(x) - 2)


def values_at(h: Tensor, y: Tensor, cell: Tensor, share: Tensor) -> Tensor:
    """Return the cubic of nodal values of any sign, linear in them, at shares of some cells."""
    slopes, rest = parabola_slopes(h, y), 1 - share
    left, right = y[..., cell], y[..., cell + 1]
    ends = left * rest**2 * (1 + 2 * share) + right * share**2 * (1 + 2 * rest)
    bend = slopes[..., cell] * rest - slopes[..., cell + 1] * share
    return ends + h[cell] * share * rest * bend


def cell_integrals(h: AnyArray, y: AnyArray, slopes: AnyArray) -> AnyArray:
    """Return ∫ y dx over each cell, of the cubic with these slopes."""
    bend = slopes[..., 1:] - slopes[..., :-1]
    integrals: AnyArray = 0.5 * h * (y[..., 1:] + y[..., :-1]) - h**2 / 12 * bend
    return integrals


def values_within(h: AnyArray, y: AnyArray, slopes: AnyArray, share: AnyArray) -> AnyArray:
    """Return the cubic at one place in each cell."""
    rest, left, right = 1 - share, y[:-1], y[1:]
    bend = h * (slopes[:-1] * rest - slopes[1:] * share)
    ends = left * rest * (1 + 2 * share) * rest + right * share**2 * (1 + 2 * rest)
    within: AnyArray = ends + share * rest * bend
    return within


def parabola_slopes(h: AnyArray, y: AnyArray) -> AnyArray:
    """Return y′ at the nodes, of the parabola through three neighbours."""
    secant = (y[..., 1:] - y[..., :-1]) / h
    left, right = secant[..., :-1], secant[..., 1:]
    middle = right + h[1:] / (h[1:] + h[:-1]) * (left - right)
    first = 2 * secant[..., :1] - middle[..., :1]
    last = 2 * secant[..., -1:] - middle[..., -1:]
    slopes: AnyArray = arrays.of(y).concatenate([first, middle, last], -1)
    return slopes


def limited_slopes(h: AnyArray, p: AnyArray) -> AnyArray:
    """Return the slopes that keep the cubic between two nodes positive."""
    # a falling slope endangers the cell to the right, a rising one the cell to the left
    of, slopes, most = arrays.of(p), parabola_slopes(h, p), _LIMIT * p.clip(0)
    fall, rise = most[..., :-1] / -h, most[..., 1:] / h
    first = of.maximum(slopes[..., :1], fall[..., :1])
    middle = of.maximum(of.minimum(slopes[..., 1:-1], rise[..., :-1]), fall[..., 1:])
    last = of.minimum(slopes[..., -1:], rise[..., -1:])
    limited: AnyArray = of.concatenate([first, middle, last], -1)
    return limited


def weights_at_zero(y: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
    """Return what values at points weigh in that of the polynomial through them at 0.

    >>> weights_at_zero(torch.tensor([-1.0, 1.0]))
    tensor([0.5000, 0.5000])
    """
    each = range(len(y))
    factors = [torch.stack([y[k] / (y[k] - y[j]) for k in each if k != j]) for j in each]
    return torch.stack([*map(torch.prod, factors)])
