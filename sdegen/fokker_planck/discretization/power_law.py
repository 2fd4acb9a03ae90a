"""Power laws of a density at walls without noise, and integrals over them.

Where D ∝ ξⁿ vanishes at a wall, ξ the distance from it, a density behaves as ξ^q beside it. For
−1 < q < 0 it is integrable and infinite at the wall; for other q that are no whole numbers it is
finite and not smooth. It is then written as

    p(x) = w(x) r(x),    w(x) = Π ((distance from the wall)/L)^q,    L = high − low

with a smooth r that a cubic in each cell interpolates, and integrals of p f are sums over points
of r f with weights that have w in them. In a wall's cell these points crowd towards the wall,

    ∫_0^1 ξ^q g(ξ) dξ:    Gauss's points in [2^{−k−1}, 2^{−k}], and those of Jacobi in what is left

so that g may be singular there itself, as log x is.

Reference:
    Abramowitz and Stegun 1972, eq. (25.4.33) with weight x^k, for k = q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor

from sdegen.fokker_planck.discretization.cubics import cell_of, values_at

Powers = tuple[float | None, float | None]

_SMOOTH = 3.0  # a power above it is smooth enough for a cubic
_WHOLE = 1e-6  # so near to a whole number it is one
_LEFT = 30.0  # log2 of the share of ∫ ξ^q that is left to the points nearest to the wall
_MOST_OCTAVES = 1000.0  # 2^−1000 is still a number
_ORDER = 8
_NEAREST = 1e-300  # to a wall
_CLOSE = -8.0  # log2 of how near to it, beside its rounding, an octave may end
_GAUSS_NODES, _GAUSS_WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(5))


def is_singular(q: float | None) -> bool:
    """Return whether a density ∝ ξ^q is no smooth function of ξ.

    >>> is_singular(-0.4), is_singular(0.5), is_singular(1.0), is_singular(None)
    (True, True, False, False)
    """
    return q is not None and -1 < q < _SMOOTH and abs(q - round(q)) > _WHOLE


def with_poles(p: Float[Tensor, "... nodes"], powers: Powers) -> Float[Tensor, "... nodes"]:
    """Return nodal values with ∞ at walls with a negative power.

    >>> with_poles(torch.ones(4), (-0.5, 0.5))
    tensor([inf, 1., 1., 1.])
    """
    low, high = (q is not None and q < 0 for q in powers)
    if not (low or high):
        return p
    infinite = torch.full_like(p[..., :1], torch.inf)
    ends = (infinite if low else p[..., :1], infinite if high else p[..., -1:])
    return torch.cat([ends[0], p[..., 1:-1], ends[1]], -1)


@lru_cache(maxsize=64)
def _jacobi(q: float) -> tuple[Tensor, Tensor]:
    """Return points and weights of ∫_0^1 ξ^q g dξ, exact for polynomials of degree 15."""
    nodes, weights = special.roots_jacobi(_ORDER, 0.0, q)
    return torch.from_numpy(0.5 * (1 + nodes)), torch.from_numpy(weights * 0.5 ** (q + 1))


@lru_cache(maxsize=64)
def _octaves(q: float, most: int) -> tuple[Tensor, Tensor]:
    """Return points and weights of ∫_0^1 ξ^q g dξ where g may be singular at 0 itself.

    Args:
        q: The power.
        most: How many octaves there may be before points are at 0 by rounding.
    """
    octaves = min(int(min(_MOST_OCTAVES, _LEFT / (q + 1))) + 1, most)
    top = 0.5 ** torch.arange(octaves, dtype=torch.float64)[:, None]
    between = top * (0.75 + 0.25 * _GAUSS_NODES)
    weights = 0.25 * top * _GAUSS_WEIGHTS * between**q
    share, rest = _jacobi(q)
    left = 0.5**octaves
    points = torch.cat([between.flatten(), left * share])
    return points, torch.cat([weights.flatten(), left ** (q + 1) * rest])


@dataclass(frozen=True, eq=False)
class Points:
    """Points of an integral.

    Args:
        cell: Their cells, shape (points,).
        share: Their shares in [0, 1] of these.
        x: Their positions.
        weight: Their weights, w included.
    """

    cell: Int[Tensor, " points"]
    share: Float[Tensor, " points"]
    x: Float[Tensor, " points"]
    weight: Float[Tensor, " points"]


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """The weight w, and integrals with it.

    Args:
        x: Nodes, shape (nodes,).
        powers: q at the lower and at the upper wall; None where the density is smooth.
    """

    x: Float[Tensor, " nodes"]
    powers: Powers

    @property
    def length(self) -> Float[Tensor, ""]:
        """L."""
        return self.x[-1] - self.x[0]

    def weight(self, x: Tensor) -> Tensor:
        """Return w(x); ∞ at a wall with q < 0."""
        return self._factor(0, x) * self._factor(-1, x)

    def smooth(self, p: Float[Tensor, "... nodes"]) -> Float[Tensor, "... nodes"]:
        """Return r at the nodes; at a wall with a power, that of the parabola beside it."""
        inner = p[..., 1:-1] / self.weight(self.x[1:-1])
        ends = [
            p[..., side].unsqueeze(-1) / self.weight(self.x[side])
            if q is None
            else parabola_at_wall(self.x, inner, side)
            for side, q in zip((0, -1), self.powers, strict=True)
        ]
        return torch.cat([ends[0], inner, ends[1]], -1)

    @cached_property
    def points(self) -> Points:
        """Points of ∫ p f = Σ weight · r f."""
        h = self.x.diff()
        low, high = self.powers
        first, last = int(low is not None), len(h) - int(high is not None)
        cells = torch.arange(first, last)
        share = (0.5 * (1 + _GAUSS_NODES)).expand(len(cells), -1)
        x = self.x[cells, None] + h[cells, None] * share
        weights = self.weight(x) * h[cells, None] * (0.5 * _GAUSS_WEIGHTS)
        at = [cells.repeat_interleave(share.shape[1])]
        shares, all_weights = [share.flatten()], [weights.flatten()]
        for wall, q in zip((0, -1), self.powers, strict=True):
            if q is None:
                continue
            cell = wall % len(h)
            rounding = abs(float(self.x[wall])) * float(np.finfo(np.float64).eps) / float(h[cell])
            xi, rule = _octaves(q, int(min(_MOST_OCTAVES, _CLOSE - math.log2(rounding + 1e-306))))
            s = 1 - xi if wall else xi
            at.append(torch.full((len(xi),), cell))
            shares.append(s)
            scale = h[cell] * (h[cell] / self.length) ** q
            other = self._factor(-1 - wall, self.x[cell] + h[cell] * s)
            all_weights.append(scale * rule * other)
        owner, where = torch.cat(at), torch.cat(shares)
        return Points(owner, where, self.x[owner] + where * h[owner], torch.cat(all_weights))

    def integral(self, y: Float[Tensor, "... nodes"]) -> Float[Tensor, ...]:
        """Return ∫ y dx of nodal values w r of any sign, linear in them; walls need no value."""
        r, points = self.smooth(y), self.points
        return values_at(self.x.diff(), r, points.cell, points.share) @ points.weight

    def within(self, cell: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return shares and weights, shape (*points, order), of ∫ p between a node and y.

        The node is the lower one of the cell; in the cell of an upper wall with a power it is the
        wall, and the sign, shape (*points, 1), is then −1.

        Args:
            cell: Cells, shape (*points,).
            y: Where to, in them, same shape.
        """
        h, y = self.x.diff()[cell][..., None], y[..., None]
        left = self.x[cell][..., None]
        gauss, gauss_weights = np.polynomial.legendre.leggauss(_ORDER)
        share = torch.from_numpy(0.5 * (1 + gauss)) * (y - left) / h
        inside = left + h * share
        weights = self.weight(inside) * (y - left) * torch.from_numpy(0.5 * gauss_weights)
        sign = torch.ones_like(y)
        for wall, q in zip((0, -1), self.powers, strict=True):
            if q is None:
                continue
            at_wall = (cell == wall % (len(self.x) - 1))[..., None]
            xi, rule = _jacobi(q)
            distance = (self.x[wall] - y) if wall else (y - self.x[wall])
            near = distance * xi
            s = (1 - near / h) if wall else near / h
            part = distance * (distance / self.length) ** q * rule
            part = torch.where(distance > 0, part, 0.0) * self._factor(-1 - wall, left + h * s)
            share, weights = torch.where(at_wall, s, share), torch.where(at_wall, part, weights)
            if wall:
                sign = torch.where(at_wall, -1.0, sign)
        return share, weights, sign

    def middle(self, cell: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return a place between two of a cell: in that of a wall, halfway in log of distance."""
        between = 0.5 * (low + high)
        for wall, q in zip((0, -1), self.powers, strict=True):
            if q is None:
                continue
            at_wall = cell == wall % (len(self.x) - 1)
            near, far = (low - self.x[wall]).abs(), (high - self.x[wall]).abs()
            nearest = max(_NEAREST, float(np.finfo(np.float64).eps * self.x[wall].abs()))
            distance = near.clamp(min=nearest).sqrt() * far.clamp(min=nearest).sqrt()
            at = self.x[wall] + (distance if wall == 0 else -distance)
            between = torch.where(at_wall, at, between)
        return between

    def _factor(self, wall: int, x: Tensor) -> Tensor:
        """Return the factor of w that belongs to a wall, 0 or −1; 1 where it has none."""
        q = self.powers[wall]
        distance = x - self.x[0] if wall == 0 else self.x[-1] - x
        return torch.ones_like(x) if q is None else (distance / self.length) ** q


@dataclass(frozen=True, eq=False)
class Interpolant:
    """The cubics of a density, or of its smooth factor where walls have powers.

    Args:
        x: Nodes, shape (nodes,).
        smooth: Values at the nodes, ≥ 0, shape (nodes,).
        slopes: Slopes at the nodes, limited, shape (nodes,).
        law: The powers at the walls, or None.
    """

    x: Float[Tensor, " nodes"]
    smooth: Float[Tensor, " nodes"]
    slopes: Float[Tensor, " nodes"]
    law: PowerLaw | None

    def cell(self, x: Tensor) -> Tensor:
        """Return the index of the cell that holds x."""
        return cell_of(self.x, x)

    def at(self, cell: Tensor, share: Tensor) -> Tensor:
        """Return the cubic at a share in [0, 1] of a cell."""
        c0, c1, c2, c3 = self._bernstein(cell)
        rest = 1 - share
        return c0 * rest**3 + 3 * c1 * share * rest**2 + 3 * c2 * share**2 * rest + c3 * share**3

    def mass(self, cell: Tensor, x: Tensor, cell_masses: Tensor) -> Tensor:
        """Return the mass of a cell from its lower node to x.

        Args:
            cell: Index of the cell.
            x: A point of it, same shape.
            cell_masses: Masses of all cells, shape (cells,).
        """
        if self.law is not None:
            share, weights, sign = self.law.within(cell, x)
            part = (weights * self.at(cell[..., None], share)).sum(-1)
            return torch.where(sign[..., 0] < 0, cell_masses[cell] - part, part)
        h = self.x[cell + 1] - self.x[cell]
        share = (x - self.x[cell]) / h
        c0, c1, c2, c3 = self._bernstein(cell)
        rest = 1 - share
        # the integral of Σ c_k B_k of degree 3 is a sum of B_k of degree 4
        b1, b2, b3, b4 = 4 * share * rest**3, 6 * share**2 * rest**2, 4 * share**3 * rest, share**4
        total = c0 * b1 + (c0 + c1) * b2 + (c0 + c1 + c2) * b3 + (c0 + c1 + c2 + c3) * b4
        return 0.25 * h * total

    def _bernstein(self, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the control points of a cell's cubic; all ≥ 0 where the values are."""
        h = self.x[cell + 1] - self.x[cell]
        left, right = self.smooth[cell], self.smooth[cell + 1]
        return left, left + h * self.slopes[cell] / 3, right - h * self.slopes[cell + 1] / 3, right


def parabola_at_wall(
    x: Float[Tensor, " nodes"], inner: Float[Tensor, "... inside"], wall: int
) -> Float[Tensor, "... 1"]:
    """Return the value at a wall, 0 or −1, of the parabola through its three neighbours.

    Args:
        x: Nodes.
        inner: Values at those between the walls.
        wall: Index of the wall's node.
    """
    near = [0, 1, 2] if wall == 0 else [-1, -2, -3]
    y = x[1:-1][near] - x[wall]
    weights = torch.stack([y[1] * y[2] / ((y[0] - y[1]) * (y[0] - y[2])),
                           y[0] * y[2] / ((y[1] - y[0]) * (y[1] - y[2])),
                           y[0] * y[1] / ((y[2] - y[0]) * (y[2] - y[1]))])  # fmt: skip
    return (inner[..., near] @ weights).unsqueeze(-1)
