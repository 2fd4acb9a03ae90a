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
third condition. For f = 0 this is Numerov's (1, 10, 1)/12; for a drift that is strong beside the
noise the hat is 1 in the cell upstream, and the row its balance: nothing is smeared out, however
large |u|. The row of a wall whose cell has |u| > 3 is lumped: no parabola follows what leans on
a wall within a cell.

An absorbing wall is a node with p = 0, left out; a periodic grid counts its two ends as one node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.discretization import arrays
from sdegen.fokker_planck.discretization.arrays import AnyArray, Array
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, GAUSS_WEIGHTS
from sdegen.fokker_planck.discretization.fluxes import STEEPEST, Fluxes
from sdegen.fokker_planck.discretization.grid import control_volumes
from sdegen.fokker_planck.discretization.matrix_exponential import Systems, expm_action
from sdegen.fokker_planck.discretization.power_law import PowerLaw
from sdegen.fokker_planck.discretization.tridiagonal import Factors

_LARGEST_EXPONENT = 700.0  # whose exponential is still a number


@dataclass(frozen=True, eq=False)
class Operator:
    """M dp/dt = K p for the unknowns of a grid.

    Args:
        mass: Bands of M, shape (3, n).
        rates: Bands of K, shape (3, n).
        phi: log of the density without current, of a ring less its tilt, shape (n,).
        speed: D (log p)′² of that density beside each unknown, a rate, shape (n,).
        circulation: Rate at which probability drifts around a ring, v²/D; 0 on a line.
    """

    mass: Float[Tensor, "... 3 n"]
    rates: Float[Tensor, "... 3 n"]
    phi: Float[Tensor, "... n"]
    speed: Float[Tensor, "... n"]
    circulation: float
    _last: dict[float, list[Factors] | None] = field(default_factory=dict, repr=False)

    @cached_property
    def amplification(self) -> Array:
        """e^{½(max Φ − Φ)}, what becomes of an error beside an unknown, shape (n,)."""
        phi = self.phi.detach().numpy()
        half = 0.5 * (np.maximum.reduce(phi, -1, keepdims=True) - phi)
        return np.asarray(np.exp(np.minimum(half, _LARGEST_EXPONENT)))

    @cached_property
    def _systems(self) -> Systems:
        """The systems of its exponential, where there are no gradients."""
        return Systems(self.mass.detach().numpy(), self.rates.detach().numpy())

    def moved(self, p: Tensor, dt: float) -> Float[Tensor, "... n"]:
        """Return e^{dt M⁻¹K} p.

        A step that is asked for a second time in a row is factorised, and remembered: that costs
        a third more once, and from then on half as much.

        Args:
            p: Unknowns, shape (n,).
            dt: Time, > 0.
        """
        if torch.is_grad_enabled() and (self.rates.requires_grad or p.requires_grad):
            return expm_action(self.mass, self.rates * dt, p)
        if dt not in self._last:
            self._last.clear()
            self._last[dt] = None
        elif self._last[dt] is None:
            self._last[dt] = self._systems.factors(dt)
        start, factors = p.detach().numpy(), self._last[dt]
        return torch.from_numpy(self._systems.action(start, dt, factors=factors))


def assemble(flux: Fluxes, ends: BoundaryNodes, *, compact: bool) -> Operator:
    """Build the operator.

    Args:
        flux: Fluxes of all cells.
        ends: Walls.
        compact: The compact mass matrix, or the lumped one.

    Returns:
        The operator of the unknowns that `ends` leaves.
    """
    mass, rates = bands(flux, ends, compact=compact)
    phi, speed, circulation = _landscape(flux, ring=ends.ring)
    return Operator(mass, rates, ends.restrict(phi), ends.restrict(speed), circulation)


def bands(
    flux: Fluxes, ends: BoundaryNodes, *, compact: bool
) -> tuple[Float[Tensor, "... 3 n"], Float[Tensor, "... 3 n"]]:
    """Return M and K alone; arguments as `assemble`'s."""
    return _ring(flux, compact=compact) if ends.ring else _line(flux, ends, compact=compact)


def _line(flux: Fluxes, ends: BoundaryNodes, *, compact: bool) -> tuple[Tensor, Tensor]:
    """Return M and K between two walls."""
    rates = _rates(*arrays.bare(flux.a, flux.b))
    if compact:
        mass = _compact_mass(flux, ends)
        steep = np.abs(flux.u.detach().numpy()[..., :: flux.h.shape[0] - 1]) > STEEPEST
        if steep.any():  # no parabola follows what leans on a wall within a cell
            at_wall = torch.zeros(mass[..., :1, :].shape, dtype=torch.bool)
            at_wall[..., 0, :: len(flux.h)] = torch.from_numpy(steep)
            mass = torch.where(at_wall, _lumped(_volumes(flux.h, ends), rates), mass)
        mass = _beside_walls_without_noise(mass, flux, ends)
    else:
        mass = _lumped(_volumes(flux.h, ends), rates)
    interior = ends.interior
    return _cut(mass, interior), _cut(rates, interior)


def _rates(a: AnyArray, b: AnyArray) -> Tensor:
    """Return K of a line, from the rates of its cells."""
    if not isinstance(a, Tensor):
        rates = np.zeros((*a.shape[:-1], 3, a.shape[-1] + 1))
        rates[..., 0, 1:], rates[..., 2, :-1] = a, b
        np.negative(a, out=rates[..., 1, :-1])
        rates[..., 1, 1:] -= b
        return torch.from_numpy(rates)
    nothing = torch.zeros_like(a[..., :1])
    a_left, b_left = torch.cat([nothing, a], -1), torch.cat([nothing, b], -1)
    a_right, b_right = torch.cat([a, nothing], -1), torch.cat([b, nothing], -1)
    return torch.stack([a_left, -(b_left + a_right), b_right], -2)


def _compact_mass(flux: Fluxes, ends: BoundaryNodes) -> Tensor:
    """Return M of a line in the compact form, its walls as if their cells were gentle."""
    known = flux.h, flux.hat_moments, flux.wall_slopes
    plain = ends.powers == (None, None)
    h, moments, slopes = arrays.bare(*known) if plain else known
    low, low_in = _wall_row(h[0], moments[..., :3, 0], slopes[..., 0])
    high, high_in = _wall_row(h[-1], moments[..., 3:, -1], slopes[..., 1])
    lower, diagonal, upper = (
        _compact_rows(h[:-1], h[1:], moments[..., 3:, :-1], moments[..., :3, 1:])
        if plain
        else _power_rows(flux, ends).unbind(-2)
    )
    if isinstance(h, Tensor):
        zero = torch.zeros_like(low)
        rows = (zero, lower, high_in), (low, diagonal, high), (low_in, upper, zero)
        bands = [torch.cat([a[..., None], v, b[..., None]], -1) for a, v, b in rows]
        return torch.stack(bands, -2)
    mass = np.zeros((*lower.shape[:-1], 3, lower.shape[-1] + 2))
    mass[..., 0, 1:-1], mass[..., 1, 1:-1], mass[..., 2, 1:-1] = lower, diagonal, upper
    mass[..., 1, 0], mass[..., 2, 0] = low, low_in
    mass[..., 1, -1], mass[..., 0, -1] = high, high_in
    return torch.from_numpy(mass)


def _beside_walls_without_noise(mass: Tensor, flux: Fluxes, ends: BoundaryNodes) -> Tensor:
    """Return rows next to walls with D = 0: p_t ≈ ξ^q (α + βξ), and the hat is 1 to the wall."""
    if ends.exponents == (None, None):
        return mass
    h = flux.h
    steep = (flux.u.abs() > STEEPEST).reshape(-1, len(h)).any(0)
    low, high = ends.exponents
    if low is not None and not steep[1]:
        row = _power_row(h[0], h[1], low, flux.hats[..., 1, :])
        mass = torch.cat([mass[..., :1], row[..., None], mass[..., 2:]], -1)
    if high is not None and not steep[-2]:
        row = _power_row(h[-1], h[-2], high, 1 - flux.hats[..., -2, :].flip(-1)).flip(-1)
        mass = torch.cat([mass[..., :-2], row[..., None], mass[..., -1:]], -1)
    return mass


def _power_row(wall: Tensor, cell: Tensor, q: float, hat: Tensor) -> Tensor:
    """Return the row of the first unknown beside a lower wall with D = 0.

    Args:
        wall: Width of the wall's cell.
        cell: Width of the next cell.
        q: p ∝ ξ^q.
        hat: The hat at the Gauss points of that next cell, falling from 1 to 0.
    """
    first, second = wall_weights(wall, cell, q)
    r = 1 + cell / wall
    xi = 1 + GAUSS_NODES * (cell / wall)
    weights = cell * GAUSS_WEIGHTS * xi**q
    first = first + hat @ (weights * (r - xi)) / (r - 1)
    second = second + hat @ (weights * (xi - 1)) / (r - 1) * r**-q
    return torch.stack([torch.zeros_like(second), first, second], -1)


def wall_weights(wall: Tensor, cell: Tensor, q: float) -> tuple[Tensor, Tensor]:
    """Return ∫ ξ^q (α + βξ) over the cell at a wall with D = 0, as weights of the next two nodes.

    Args:
        wall: Width of the wall's cell.
        cell: Width of the next one.
        q: Power, > −1.
    """
    r = 1 + cell / wall
    at_zero, at_one = 1 / (q + 1), 1 / (q + 2)
    return wall * (r * at_zero - at_one) / (r - 1), wall * (at_one - at_zero) / (r - 1) * r**-q


def _landscape(flux: Fluxes, *, ring: bool) -> tuple[Tensor, Tensor, float]:
    """Return log p without current, D (log p)′², and the circulation, for the time integrator."""
    w, h, d = flux.w.detach().numpy(), flux.h.numpy(), flux.d.numpy()
    circulation = 0.0
    if ring:
        tilt = w.sum(-1, keepdims=True) / h.sum()
        circulation = float((d * tilt**2).max())
        w = w - tilt * h
    rate = d * (w / h) ** 2
    phi, speed = np.zeros((2, *w.shape[:-1], w.shape[-1] + 1))
    np.add.accumulate(w, -1, out=phi[..., 1:])
    speed[..., :-1] = rate
    np.maximum(speed[..., 1:], rate, out=speed[..., 1:])
    return torch.from_numpy(phi), torch.from_numpy(speed), circulation


def _volumes(h: Tensor, ends: BoundaryNodes) -> Tensor:
    """Return control volumes of a line; if p ∝ ξ^q beside a wall with D = 0, ∫ ξ^q over ξ_i^q."""
    volumes = control_volumes(h)
    if ends.powers != (None, None):
        x, half = ends.nodes, 0.5 * h[:, None]
        weight, pad = PowerLaw(x, ends.powers).weight, torch.nn.functional.pad
        left = x[:-1, None] + half * GAUSS_NODES
        lower, upper = ((half * GAUSS_WEIGHTS * weight(at)).sum(-1) for at in (left, left + half))
        volumes = (pad(upper, (1, 0)) + pad(lower, (0, 1))) / weight(x)
    low, high = ends.exponents
    if low is not None:  # the wall's cell belongs to the first unknown
        volumes = torch.cat([volumes[:1], _to_wall(h[0], h[1], low)[None], volumes[2:]])
    if high is not None:
        volumes = torch.cat([volumes[:-2], _to_wall(h[-1], h[-2], high)[None], volumes[-1:]])
    return volumes


def _to_wall(wall: Tensor, cell: Tensor, q: float) -> Tensor:
    """Return ∫ (ξ/ξ_1)^q from a wall to the next cell's middle, ξ_1 the wall cell's width."""
    return wall / (q + 1) * (1 + 0.5 * cell / wall) ** (q + 1)


def _power_rows(flux: Fluxes, ends: BoundaryNodes) -> Tensor:
    """Return ∫ φ_i w ℓ_j dx / w_j, p_t ≈ w times a parabola, (…, 3, rows); see `power_law`."""
    x, h, law = ends.nodes, flux.h, PowerLaw(ends.nodes, ends.powers)
    at = x[:-1, None] + h[:, None] * GAUSS_NODES
    mass = h[:, None] * GAUSS_WEIGHTS * law.weight(at)
    nodes = torch.stack([x[:-2], x[1:-1], x[2:]])
    bands = []
    for j in range(3):
        one, other = (nodes[k][:, None] for k in range(3) if k != j)
        scale = (nodes[j][:, None] - one) * (nodes[j][:, None] - other)
        left, right = ((y - one) * (y - other) / scale for y in (at[:-1], at[1:]))
        rising = ((1 - flux.hats[..., :-1, :]) * mass[:-1] * left).sum(-1)
        falling = (flux.hats[..., 1:, :] * mass[1:] * right).sum(-1)
        weight = law.weight(nodes[j])  # 0 or ∞ at a wall, beside which there is another row
        inside = (weight > 0) & torch.isfinite(weight)
        band = (rising + falling) / torch.where(inside, weight, 1.0)
        bands.append(torch.where(inside & torch.isfinite(band), band, 0.0))
    return torch.stack(bands, -2)


def _ring(flux: Fluxes, *, compact: bool) -> tuple[Tensor, Tensor]:
    """Return M and K on a ring of as many nodes as cells."""
    a_left, b_left = flux.a.roll(1, -1), flux.b.roll(1, -1)
    rates = torch.stack([a_left, -(b_left + flux.a), flux.b], -2)
    if not compact:
        return _lumped(0.5 * (flux.h + flux.h.roll(1)), rates), rates
    falling, rising = flux.hat_moments[..., :3, :], flux.hat_moments[..., 3:, :]
    rows = _compact_rows(flux.h.roll(1), flux.h, rising.roll(1, -1), falling)
    return torch.stack(rows, -2), rates


def _lumped(volumes: Tensor, like: Tensor) -> Tensor:
    """Return the bands of a diagonal matrix."""
    diagonal = volumes.expand_as(like[..., 0, :])
    zero = torch.zeros_like(diagonal)
    return torch.stack([zero, diagonal, zero], -2)


def _compact_rows(
    left: AnyArray, right: AnyArray, rising: AnyArray, falling: AnyArray
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return ∫ φ_i ℓ_j dx, ℓ_j the parabolas through the nodes i−1, i, i+1: bands, (…, rows)."""
    m0, m1, m2 = (rising[..., k, :] for k in range(3))
    r0, r1, r2 = (falling[..., k, :] for k in range(3))
    both = left + right
    one, cross, other = left * left / both, left * right / both, right * right / both
    lower = other * right / left * (r2 - r1) + one * m2 + cross * m1
    upper = one * left / right * (m2 - m1) + other * r2 + cross * r1
    return lower, left * m0 + right * r0 - lower - upper, upper


def _wall_row(h: AnyArray, r: AnyArray, slope: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return the row of a wall without flux: a parabola through two nodes, and (log p)′ at one.

    Args:
        h: Width of the wall's cell.
        r: Moments of its hat, shape (..., 3).
        slope: (log p)′ at the wall, in the direction away from it, shape (...).

    Returns:
        The diagonal, and what stands beside it.
    """
    rise, beside = slope * h, h * r[..., 2]
    return h * (r[..., 0] + rise * r[..., 1]) - (1 + rise) * beside, beside


def _cut(bands: Tensor, interior: slice) -> Tensor:
    """Leave out rows and columns of nodes that are not unknowns."""
    if interior.stop - interior.start == bands.shape[-1]:
        return bands
    rows = bands[..., interior]
    inside = torch.ones_like(rows)
    inside[..., 0, 0] = inside[..., 2, -1] = 0
    return rows * inside
