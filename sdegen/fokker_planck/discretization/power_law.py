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
    octaves = int(min(_MOST_OCTAVES, _LEFT / (q + 1))) + 1
    octaves = min(octaves, most)
    top = 0.5 ** torch.arange(octaves, dtype=torch.float64)[:, None]
    between = top * (0.75 + 0.25 * _GAUSS_NODES)
    weights = 0.25 * top * _GAUSS_WEIGHTS * between**q
    share, rest = _jacobi(q)
    left = 0.5**octaves
    return (
        torch.cat([between.flatten(), left * share]),
        torch.cat([weights.flatten(), left ** (q + 1) * rest]),
    )


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
        w = torch.ones_like(x)
        low, high = self.powers
        if low is not None:
            w = w * ((x - self.x[0]) / self.length) ** low
        if high is not None:
            w = w * ((self.x[-1] - x) / self.length) ** high
        return w

    def smooth(self, p: Float[Tensor, "... nodes"]) -> Float[Tensor, "... nodes"]:
        """Return r at the nodes; at a wall with a power, that of the parabola beside it."""
        inner = p[..., 1:-1] / self.weight(self.x[1:-1])
        ends = []
        for side, q in enumerate(self.powers):
            near = [0, 1, 2] if side == 0 else [-1, -2, -3]
            if q is not None:
                y = self.x[1:-1][near] - self.x[-side]
                at_zero = torch.stack([
                    y[1] * y[2] / ((y[0] - y[1]) * (y[0] - y[2])),
                    y[0] * y[2] / ((y[1] - y[0]) * (y[1] - y[2])),
                    y[0] * y[1] / ((y[2] - y[0]) * (y[2] - y[1])),
                ])  # fmt: skip
                ends.append((inner[..., near] @ at_zero).unsqueeze(-1))
            else:
                wall = p[..., -side].unsqueeze(-1)
                ends.append(wall / self.weight(self.x[-side]))
        return torch.cat([ends[0], inner, ends[1]], -1)

    def nodal(self, r: Float[Tensor, "... nodes"]) -> Float[Tensor, "... nodes"]:
        """Return p at the nodes, ∞ at a wall with q < 0."""
        return r * self.weight(self.x)

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
        for cell, q, is_high in ((0, low, False), (len(h) - 1, high, True)):
            if q is None:
                continue
            wall = float(self.x[-1 if is_high else 0])
            rounding = abs(wall) * float(np.finfo(np.float64).eps) / float(h[cell])
            xi, rule = _octaves(q, int(min(_MOST_OCTAVES, _CLOSE - math.log2(rounding + 1e-306))))
            s = 1 - xi if is_high else xi
            at.append(torch.full((len(xi),), cell))
            shares.append(s)
            scale = h[cell] * (h[cell] / self.length) ** q
            all_weights.append(scale * rule * self._other(self.x[cell] + h[cell] * s, is_high))
        owner, where = torch.cat(at), torch.cat(shares)
        return Points(owner, where, self.x[owner] + where * h[owner], torch.cat(all_weights))

    def integral(self, y: Float[Tensor, "... nodes"]) -> Float[Tensor, ...]:
        """Return ∫ y dx of nodal values w r of any sign, linear in them; walls need no value."""
        r, h, points = self.smooth(y), self.x.diff(), self.points
        secant = r.diff(dim=-1) / h
        left, right = secant[..., :-1], secant[..., 1:]
        middle = right + h[1:] / (h[1:] + h[:-1]) * (left - right)
        first = 2 * secant[..., :1] - middle[..., :1]
        last = 2 * secant[..., -1:] - middle[..., -1:]
        slopes = torch.cat([first, middle, last], -1)
        cell, s = points.cell, points.share
        rest = 1 - s
        value = r[..., cell] * rest**2 * (1 + 2 * s) + r[..., cell + 1] * s**2 * (1 + 2 * rest)
        bend = slopes[..., cell] * rest - slopes[..., cell + 1] * s
        return (value + h[cell] * s * rest * bend) @ points.weight

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
        for wall, q, is_high in ((0, self.powers[0], False), (-1, self.powers[1], True)):
            if q is None:
                continue
            here = (cell == (len(self.x) - 2 if is_high else 0))[..., None]
            xi, rule = _jacobi(q)
            distance = (self.x[wall] - y) if is_high else (y - self.x[wall])
            near = distance * xi
            s = (1 - near / h) if is_high else near / h
            part = distance * (distance / self.length) ** q * rule
            part = torch.where(distance > 0, part, 0.0) * self._other(left + h * s, is_high)
            share, weights = torch.where(here, s, share), torch.where(here, part, weights)
            if is_high:
                sign = torch.where(here, -1.0, sign)
        return share, weights, sign

    def middle(self, cell: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return a place between two of a cell: in that of a wall, halfway in log of distance."""
        between = 0.5 * (low + high)
        for wall, q in zip((0, -1), self.powers, strict=True):
            if q is None:
                continue
            here = cell == (0 if wall == 0 else len(self.x) - 2)
            near, far = (low - self.x[wall]).abs(), (high - self.x[wall]).abs()
            nearest = max(_NEAREST, float(np.finfo(np.float64).eps * self.x[wall].abs()))
            distance = near.clamp(min=nearest).sqrt() * far.clamp(min=nearest).sqrt()
            at = self.x[wall] + (distance if wall == 0 else -distance)
            between = torch.where(here, at, between)
        return between

    def _other(self, x: Tensor, is_high: bool) -> Tensor:
        """Return the factor of w that belongs to the other wall."""
        low, high = self.powers
        if is_high:
            return torch.ones_like(x) if low is None else ((x - self.x[0]) / self.length) ** low
        return torch.ones_like(x) if high is None else ((self.x[-1] - x) / self.length) ** high
