"""The Fokker–Planck operator on a grid: M dp/dt = K p, in two forms.

**Lumped.** The mass of a node is its control volume, M = diag((h_{i−1} + h_i)/2), and K collects
the fluxes, K p = J_{i−½} − J_{i+½}. K has non-negative off-diagonals and columns that sum to
zero: whatever time does, mass is kept, and an implicit step is positive. Second order in the
cell.

**Compact.** Multiply p_t = −J_x by the hat function φ_i that solves the backward equation between
nodes, φ′ ∝ s. Then

    ∫ φ_i p_t dx = J_{i−½} − J_{i+½}

holds exactly, with the same K, and only the left side is approximated: p_t by a parabola through
three nodes, which makes M tridiagonal. Fourth order in the cell, the same exact stationary state.
At a wall without flux the parabola takes what is known there, (p_t)_x = (log p_st)′ p_t, for its
third condition. Rows whose cells have |u| > 3 are lumped: there the hat is too steep for four
Gauss points, and the compact row would lose its sign. For f = 0 this is Numerov's (1, 10, 1)/12.

An absorbing wall is a node with p = 0, left out; a periodic grid counts its two ends as one node.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.fluxes import Fluxes
from sdegen.walls import WallKind

__all__ = ["Operator", "assemble", "control_volumes", "restrict", "widen"]

_STEEPEST = 3.0


@dataclass(frozen=True, eq=False)
class Operator:
    """M dp/dt = K p for the unknowns of a grid.

    Args:
        mass: Bands of M, shape (3, n).
        rates: Bands of K, shape (3, n).
        circulation: Rate at which probability drifts around a ring, v²/D; 0 on a line.
    """

    mass: Float[Tensor, "*batch 3 n"]
    rates: Float[Tensor, "*batch 3 n"]
    circulation: float


def assemble(flux: Fluxes, kinds: tuple[WallKind, WallKind], *, compact: bool) -> Operator:
    """Builds the operator.

    Args:
        flux: Fluxes of all cells.
        kinds: Lower and upper wall.
        compact: The compact mass matrix, or the lumped one.

    Returns:
        The operator of the unknowns that `restrict` leaves.
    """
    if kinds[0] == "periodic":
        return _assemble_ring(flux, compact=compact)
    pad = torch.nn.functional.pad
    a_left, b_left = pad(flux.a, (1, 0)), pad(flux.b, (1, 0))
    a_right, b_right = pad(flux.a, (0, 1)), pad(flux.b, (0, 1))
    rates = torch.stack([a_left, -(b_left + a_right), b_right], -2)
    mass = _lumped(control_volumes(flux.h, ring=False), rates)
    if compact:
        inner = _compact_rows(
            flux.h[:-1], flux.h[1:], flux.moments[..., :-1, :], flux.moments[..., 1:, :]
        )
        low = _wall_row(
            flux.h[0], _right_moments(flux.moments[..., 0, :]), flux.wall_slopes[..., 0]
        )
        high = _wall_row(
            flux.h[-1],
            _right_moments(_mirrored(flux.moments[..., -1, :])),
            -flux.wall_slopes[..., 1],
        ).flip(-1)
        rows = torch.cat([low[..., None], inner, high[..., None]], -1)
        steep = flux.u.abs() > _STEEPEST
        mass = torch.where((pad(steep, (1, 0)) | pad(steep, (0, 1)))[..., None, :], mass, rows)
    first, last = (1 if kinds[0] == "absorbing" else 0), (-1 if kinds[1] == "absorbing" else None)
    return Operator(_cut(mass, first, last), _cut(rates, first, last), 0.0)


def control_volumes(h: Tensor, *, ring: bool) -> Tensor:
    """Half of the cells on either side of each node."""
    if ring:
        return 0.5 * (h + h.roll(1))
    pad = torch.nn.functional.pad
    return 0.5 * (pad(h, (1, 0)) + pad(h, (0, 1)))


def restrict(p: Tensor, kinds: tuple[WallKind, WallKind]) -> Tensor:
    """Nodal values (..., nodes) → unknowns (..., n)."""
    if kinds[0] == "periodic":
        return torch.cat([0.5 * (p[..., :1] + p[..., -1:]), p[..., 1:-1]], -1)
    first, last = (1 if kinds[0] == "absorbing" else 0), (-1 if kinds[1] == "absorbing" else None)
    return p[..., first:last]


def widen(p: Tensor, kinds: tuple[WallKind, WallKind]) -> Tensor:
    """Unknowns (..., n) → nodal values (..., nodes)."""
    if kinds[0] == "periodic":
        return torch.cat([p, p[..., :1]], -1)
    absorbed = (int(kinds[0] == "absorbing"), int(kinds[1] == "absorbing"))
    return torch.nn.functional.pad(p, absorbed)


def _assemble_ring(flux: Fluxes, *, compact: bool) -> Operator:
    """The operator on a ring of as many nodes as cells."""
    a_left, b_left = flux.a.roll(1, -1), flux.b.roll(1, -1)
    rates = torch.stack([a_left, -(b_left + flux.a), flux.b], -2)
    mass = _lumped(control_volumes(flux.h, ring=True), rates)
    if compact:
        rows = _compact_rows(flux.h.roll(1), flux.h, flux.moments.roll(1, -2), flux.moments)
        steep = flux.u.abs() > _STEEPEST
        mass = torch.where((steep | steep.roll(1, -1))[..., None, :], mass, rows)
    length = float(flux.h.sum())
    tilt = float(flux.w.detach().sum(-1).abs().max()) / length
    fastest = float((flux.a * flux.h / _bernoulli_of(flux)).detach().max())
    return Operator(mass, rates, fastest * tilt**2)


def _bernoulli_of(flux: Fluxes) -> Tensor:
    """a h / D of a constant f/D."""
    u = flux.u.detach()
    return torch.where(u.abs() < 1e-8, 1.0, u / -torch.expm1(-u))


def _lumped(volumes: Tensor, like: Tensor) -> Tensor:
    """Bands of a diagonal matrix."""
    diagonal = volumes.expand_as(like[..., 0, :])
    zero = torch.zeros_like(diagonal)
    return torch.stack([zero, diagonal, zero], -2)


def _right_moments(moments: Tensor) -> Tensor:
    """∫ φ ξᵏ dξ, k = 0, 1, 2, of the hat that falls from 1 to 0 over a cell, by parts."""
    return moments / torch.arange(1, 4, dtype=moments.dtype)


def _mirrored(moments: Tensor) -> Tensor:
    """⟨(1−ξ)ᵏ⟩, k = 1, 2, 3."""
    m1, m2, m3 = moments.unbind(-1)
    return torch.stack([1 - m1, 1 - 2 * m1 + m2, 1 - 3 * m1 + 3 * m2 - m3], -1)


def _compact_rows(
    left: Tensor, right: Tensor, moments_left: Tensor, moments_right: Tensor
) -> Tensor:
    """∫ φ_i ℓ_j dx for the parabolas ℓ_j through the nodes i−1, i, i+1, shape (…, 3, rows)."""
    r = _right_moments(moments_right)
    m = _right_moments(_mirrored(moments_left))
    s0 = right * r[..., 0] + left * m[..., 0]
    s1 = right**2 * r[..., 1] - left**2 * m[..., 1]
    s2 = right**3 * r[..., 2] + left**3 * m[..., 2]
    lower = (s2 - right * s1) / (left * (left + right))
    upper = (s2 + left * s1) / (right * (left + right))
    return torch.stack([lower, s0 - lower - upper, upper], -2)


def _wall_row(h: Tensor, r: Tensor, slope: Tensor) -> Tensor:
    """The row of a lower wall without flux: a parabola through two nodes, and (log p)′ at one."""
    upper = h * r[..., 2]
    diagonal = h * r[..., 0] + slope * h**2 * r[..., 1] - (1 + slope * h) * upper
    return torch.stack([torch.zeros_like(upper), diagonal, upper], -1)


def _cut(bands: Tensor, first: int, last: int | None) -> Tensor:
    """Leaves out rows and columns of absorbing walls."""
    kept = bands[..., first:last].clone()
    kept[..., 0, 0] = 0
    kept[..., 2, -1] = 0
    return kept
