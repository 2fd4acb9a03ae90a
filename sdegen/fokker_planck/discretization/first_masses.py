"""A first density as the compact form sees it: by its masses ∫ φ_i p dx.

Beside a wall without flux the compact form takes for granted what holds at every later time, p_x =
(log p_st)′ p, and on a ring that p has no seam. A start need not do so: a Gaussian that a wall
cuts off leans on it with another slope, and on a ring it jumps. The masses M p of the rows there
are then wrong by h²/12 (p_x − (log p_st)′ p), an error of second order of all that follows, which
coarser cells need not show. The unknowns are therefore those whose masses are right,

    M q = b,    b_i = ∫ φ_i p dx,

where b and M p differ in those rows alone. As those of a point, they become a density of fourth
order once it has moved by a few cells.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.discretization import tridiagonal
from sdegen.fokker_planck.discretization.cubics import weights_at_zero
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.generator import Generator

_NOTHING = 1e-11  # of the peak: the rounding of a start
_NEAR = 4  # nodes that a slope at a wall is taken from
_LIMIT = 3.0  # |p′| h ≤ 3 p, as in `Density`


def seen(generator: Generator, p: Float[Tensor, " nodes"], t: float) -> Float[Tensor, " n"]:
    """Return the unknowns whose masses are those of a density.

    Args:
        generator: In the compact form; the unknowns of the lumped one, whose masses are of second
            order anyway, are nodal values.
        p: Nodal values; beside a seam each side has its own.
        t: Their time.
    """
    ends = generator.ends
    q = ends.restrict(p)
    walls = zip(ends.conditions, ends.exponents, strict=True)
    leans = [not wall.absorbs and power is None for wall, power in walls]
    if not (generator.compact and any(leans)) or _is_away(p):
        return q
    x, outside_in = ends.nodes, (p, p.flip(-1))
    rises = [_rise(nodes, y) for nodes, y in zip((x, -x.flip(-1)), outside_in, strict=True)]
    if _is_plain(p, rises, leans, ring=ends.ring):
        return q
    flux, mass = generator.fluxes(generator.coefficients(t)), generator.operator_at(t).mass
    at_walls = [_mass(flux, *wall) for wall in zip((0, -1), outside_in, rises, strict=True)]
    rows, b = tridiagonal.multiply(mass, q), torch.zeros_like(q)
    if ends.ring:
        b[0] = at_walls[0] + at_walls[1] - rows[0]
        b[1] = mass[0, 1] * (p[0] - q[0])
        b[-1] = mass[2, -1] * (p[-1] - q[0])
    else:
        for side, lean, at_wall in zip((0, -1), leans, at_walls, strict=True):
            if lean:
                b[side] = at_wall - rows[side]
    return q + tridiagonal.solve(mass, b)


def _is_away(p: Tensor) -> bool:
    """Return whether mass at either end is so small that a slope limited by it is nothing."""
    values = p.detach().numpy()
    least = _NOTHING / (2 * _LIMIT) * np.maximum.reduce(values)
    return not np.count_nonzero(np.abs(values[:: len(values) - 1]) > least)


def _is_plain(p: Tensor, rises: list[Tensor], leans: list[bool], *, ring: bool) -> bool:
    """Return whether leaning walls have no mass, or the seam has neither jump nor kink."""
    (low, high), (first, last) = p.detach()[[0, -1]], (rise.detach() for rise in rises)
    odd = [low, high, first, last]
    odd = [low - high, first + last] if ring else list(itertools.compress(odd, leans * 2))
    return all(bool(v.abs() <= _NOTHING * p.detach().abs().max()) for v in odd)


def _rise(x: Tensor, p: Tensor) -> Tensor:
    """Return p′ h at the first node, of the cubic through four; no steeper than the limit."""
    y = x[1:_NEAR] - x[0]
    rise = y[0] * ((p[1:_NEAR] - p[0]) @ (weights_at_zero(y) / y))
    most = _LIMIT * p[0].detach().clamp(min=0)
    return torch.minimum(torch.maximum(rise, -most), most)


def _mass(flux: Fluxes, side: int, p: Tensor, rise: Tensor) -> Tensor:
    """Return ∫ φ p over a wall's cell, φ its hat, p the parabola with the slope at the wall."""
    first = 0 if side == 0 else 3
    r0, r1, r2 = flux.hat_moments[first : first + 3, side].unbind()
    return flux.h[side] * (r0 * p[0] + r1 * rise + r2 * (p[1] - p[0] - rise))
