"""Moments of first passages: solved cell by cell, in logarithms.

The moments of the time to an absorbing wall obey L†T_n = −n T_{n−1}, T_0 = 1, with L† = (1/m) ∂
(1/s) ∂. Tested with the hats of the compact scheme, which are linear in S = ∫s, the left side is
exact in nodal values:

    a_i (T_{i+1} − T_i) + b_{i−1} (T_{i−1} − T_i) = −∫ φ_i (m/m_i) n T_{n−1} dx

and the right side is a smooth integral. It is solved by sums of positive terms in log space, so
that a barrier of forty kT costs no digits: with A the mass of m T_{n−1} on the reflecting side, T
= ∫ s A, and between two absorbing walls Green's function S_i (S_N − S_k)/S_N.

Between nodes T is a cubic, whose slopes at the nodes are exact but for that quadrature: the next
moment needs it at the Gauss points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, GAUSS_WEIGHTS
from sdegen.fokker_planck.discretization.fluxes import STEEPEST, Fluxes
from sdegen.fokker_planck.discretization.operator import wall_weights


def first_passage(flux: Fluxes, ends: BoundaryNodes, orders: int) -> tuple[Tensor, Tensor]:
    """Return moments of the exit time, shape (orders, nodes), and exit probabilities.

    Args:
        flux: Fluxes of the cells.
        ends: Walls, of which at least one absorbs.
        orders: How many moments.
    """
    green = _Green(flux, ends)
    nodal, bends = torch.ones_like(green.phi), torch.ones_like(flux.hats)  # T_{n−1}
    moments = []
    for order in range(1, orders + 1):
        right, left = _loads(order * nodal, order * bends, flux, ends)
        pad = torch.nn.functional.pad
        t = green.solve(pad(right, (0, 1)) + pad(left, (1, 0)))
        slopes = _slopes(t, order * nodal, right, left, flux, ends)
        t = _at_walls_without_noise(t, slopes, flux.h, ends)
        moments.append(t)
        nodal, bends = t, _cubic(t, slopes, flux.h)
    return torch.stack(moments), green.to_high


def to_be_left(log_m: Tensor, log_d: Tensor, x: Tensor, *, to_high: bool) -> Tensor:
    """Return log m where a time of first passage to one absorbing wall is decided, its peak 0.

    T = ∫ s M dx, M the mass of m on the side away from the wall: what lies beyond the place where
    s M is largest, which is the barrier if there is one, does not count, and is −∞ here.

    Args:
        log_m: log of the density without current, shape (nodes,).
        log_d: log D.
        x: Nodes.
        to_high: Whether the absorbing wall is the upper one.
    """
    if not to_high:
        return to_be_left(log_m.flip(0), log_d.flip(0), -x.flip(0), to_high=True).flip(0)
    # by trapezoids: only the place is asked for
    cell = torch.logaddexp(log_m[1:], log_m[:-1]) + x.diff().log()
    height = torch.logcumsumexp(cell, 0) - (log_m + log_d)[1:]
    decided = log_m[: int(height.argmax()) + 2]
    beyond = log_m.new_full((len(x) - len(decided),), -torch.inf)
    return torch.cat([decided - decided.max(), beyond])


class _Green:
    """Green's function of the backward equation: T_i = Σ_k G_ik m_k r_k, all terms positive."""

    def __init__(self, flux: Fluxes, ends: BoundaryNodes) -> None:
        self.low, self.high = (kind.absorbs for kind in ends.conditions)
        self.inside = ends.interior
        self.phi = torch.nn.functional.pad(flux.w.cumsum(-1), (1, 0))
        self.log_scale = -flux.a.log() - self.phi[:-1]  # log ∫ s over each cell
        self.below = _cumulated(self.log_scale)  # log of S from the lower wall
        self.above = _cumulated(self.log_scale.flip(0)).flip(0)  # log of S to the upper wall

    @property
    def to_high(self) -> Tensor:
        """Chance of leaving through the upper wall."""
        if self.low and self.high:
            return torch.exp(self.below - self.below[-1])
        return torch.full_like(self.phi, float(self.high))

    def solve(self, load: Tensor) -> Tensor:
        """Return T at the nodes for the right side r, both shape (nodes,)."""
        inside = self.inside
        source = load[inside].log() + self.phi[inside]
        if self.low and self.high:
            up = torch.logcumsumexp(source + self.below[inside], 0) + self.above[inside]
            later = _cumulated((source + self.above[inside]).flip(0)).flip(0)[1:]  # Σ_{j > i}
            down = later + self.below[inside]
            t = torch.exp(torch.logaddexp(up, down) - self.below[-1])
        elif self.high:
            gathered = torch.logcumsumexp(source, 0) + self.log_scale[inside.start :]
            t = torch.logcumsumexp(gathered.flip(0), 0).flip(0).exp()
        else:
            gathered = torch.logcumsumexp(source.flip(0), 0).flip(0)
            t = torch.logcumsumexp(gathered + self.log_scale[: inside.stop - 1], 0).exp()
        return torch.nn.functional.pad(t, (inside.start, len(load) - inside.stop))


def _cumulated(log_terms: Tensor) -> Tensor:
    """Return log of Σ_{j < i}, one longer than the terms; −∞ first."""
    first = torch.full_like(log_terms[:1], -torch.inf)
    return torch.cat([first, torch.logcumsumexp(log_terms, 0)])


def _loads(
    nodal: Tensor, bends: Tensor, flux: Fluxes, ends: BoundaryNodes
) -> tuple[Tensor, Tensor]:
    """Return ∫ φ (m/m_i) load over each cell, of the hats of its left and of its right node."""
    h = flux.h
    weights = bends * flux.log_m.exp() * GAUSS_WEIGHTS * h[:, None]
    right = (weights * flux.hats).sum(-1)
    left = (weights * (1 - flux.hats)).sum(-1) * torch.exp(-flux.w)
    # where the hat is too steep for the Gauss points, the integrals for a constant f/D
    steep = flux.u.abs() > STEEPEST
    if bool(steep.any()):
        for_right, for_left = _steep_weights(torch.where(steep, flux.u, STEEPEST))
        rise = nodal.diff()
        right = torch.where(steep, h * (for_right[0] * nodal[:-1] + for_right[1] * rise), right)
        left = torch.where(steep, h * (for_left[0] * nodal[:-1] + for_left[1] * rise), left)
    q_low, q_high = ends.exponents
    zero = torch.zeros_like(right[:1])
    if q_low is not None:
        first, second = wall_weights(h[0], h[1], q_low)
        at_wall = first * nodal[1] + second * nodal[2] * torch.exp(flux.w[1])
        left, right = torch.cat([at_wall[None], left[1:]]), torch.cat([zero, right[1:]])
    if q_high is not None:
        first, second = wall_weights(h[-1], h[-2], q_high)
        at_wall = first * nodal[-2] + second * nodal[-3] * torch.exp(-flux.w[-2])
        right, left = torch.cat([right[:-1], at_wall[None]]), torch.cat([left[:-1], zero])
    return right, left


def _steep_weights(u: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return ∫ ξᵏ φ m dξ, k = 0, 1, of the falling hat over m_i and the rising one over m_{i+1}.

    Args:
        u: Constant f/D times the width of the cell; |u| is not small.
    """
    v = u.abs()
    q = torch.exp(-v)
    near, far = 1 / (1 - q) - 1 / v, 1 / v - q / (1 - q)
    near_first = (0.5 - 1 / v + (1 - q) / v**2) / (1 - q)
    far_first = (1 / v - (1 - q) / v**2 - 0.5 * q) / (1 - q)
    up = u > 0  # else the cell is read from its other end
    right = torch.where(up, near, far), torch.where(up, near_first, far - far_first)
    left = torch.where(up, far, near), torch.where(up, far_first, near - near_first)
    return right, left


def _slopes(
    t: Tensor, load: Tensor, right: Tensor, left: Tensor, flux: Fluxes, ends: BoundaryNodes
) -> tuple[Tensor, Tensor]:
    """Return T′ at the left and at the right node of each cell, exact but for the quadrature."""
    c = flux.land.coefficients
    d = torch.where(c.nodal_diffusivity > 0, c.nodal_diffusivity, 1.0)
    at_left = (flux.a * t.diff() + right) / d[:-1]
    at_right = (flux.b * t.diff() - left) / d[1:]
    q_low, q_high = ends.exponents
    if q_low is not None:  # where D = 0: f T′ = −load
        wall = (-load[1] / c.wall_drift[0])[None]
        at_left, at_right = torch.cat([wall, at_left[1:]]), torch.cat([at_left[1:2], at_right[1:]])
    if q_high is not None:
        wall = (-load[-2] / c.wall_drift[1])[None]
        at_left = torch.cat([at_left[:-1], at_right[-2:-1]])
        at_right = torch.cat([at_right[:-1], wall])
    return at_left, at_right


def _at_walls_without_noise(
    t: Tensor, slopes: tuple[Tensor, Tensor], h: Tensor, ends: BoundaryNodes
) -> Tensor:
    """Return T at a wall that is no unknown, from its neighbour and the slopes."""
    q_low, q_high = ends.exponents
    rise = 0.5 * h * (slopes[0] + slopes[1])
    if q_low is not None:
        t = torch.cat([(t[1] - rise[0])[None], t[1:]])
    if q_high is not None:
        t = torch.cat([t[:-1], (t[-2] + rise[-1])[None]])
    return t


def _cubic(t: Tensor, slopes: tuple[Tensor, Tensor], h: Tensor) -> Tensor:
    """Return T at the Gauss points of each cell, from values and slopes at its nodes."""
    s = GAUSS_NODES
    rest = 1 - s
    value = t[:-1, None] * rest**2 * (1 + 2 * s) + t[1:, None] * s**2 * (1 + 2 * rest)
    bend = slopes[0][:, None] * s * rest**2 - slopes[1][:, None] * s**2 * rest
    return value + h[:, None] * bend
