"""Exponentially fitted fluxes: what flows through a cell, given the density at its two nodes.

The equation is p_t = −J_x with J = f p − (D p)_x (Itô). With the scale density s = exp(−∫ f/D)
the current is

    J = −(1/s) (s D p)_x

so that a constant current between two nodes is a difference of two nodal values,

    J = a p_i − b p_{i+1},    a = D_i / ∫ (s/s_i) dx,    b = D_{i+1} / ∫ (s/s_{i+1}) dx

Both are positive whatever the drift: the scheme has no cell Péclet number. Where f/D is constant
in the cell, with u = ∫ f/D, this is Scharfetter and Gummel's a = (D/h) B(−u), b = (D/h) B(u),
B(z) = z/(e^z − 1); four Gauss points correct it for what f/D does within the cell. No current
means p_{i+1}/p_i = a/b = e^w, w = u − log(D_{i+1}/D_i): the stationary density to the accuracy of
the quadrature of f/D alone.

**A wall where D = 0** (Cox–Ingersoll–Ross at 0, Wright–Fisher at both ends): with ξ the distance
from it, f/D = ν/ξ + what is regular, and the density is ∝ ξ^q, q = ν − n where D ∝ ξ^n. ν log ξ
is integrated by hand, so that Gauss points see a smooth function in every cell. No current
crosses the cell at such a wall.

Reference:
    Scharfetter and Gummel 1969, IEEE Trans. Electron Devices 16, 64, eq. (A8); Chang and Cooper
    1970, eqs. (14)-(17).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdegen.fokker_planck.discretization import arrays
from sdegen.fokker_planck.discretization.arrays import AnyArray, Array
from sdegen.fokker_planck.discretization.coefficients import (
    GAUSS_NODES,
    GAUSS_POLYNOMIAL,
    GAUSS_WEIGHTS,
    Coefficients,
)
from sdegen.fokker_planck.discretization.poles import Pole, find_poles


def _derivative_at_start() -> Tensor:
    """Return d/dξ at 0 of the polynomial through 0 and the Gauss points, as weights of values."""
    points = np.concatenate([[0.0], GAUSS_NODES.numpy()])
    vandermonde = points[:, None] ** np.arange(len(points))
    return torch.from_numpy(np.linalg.inv(vandermonde)[1].copy())


STEEPEST = 3.0  # |u| of a cell, beyond which hats are too steep for four Gauss points
_UNSEEN = 1e-150  # of the larger end: a mean of s of a cell that Gauss points do not see
# ∫_0^{ξ_j} of the polynomial through the Gauss points
_powers = np.arange(1, len(GAUSS_NODES) + 1)
CUMULATIVE = torch.from_numpy(GAUSS_NODES.numpy()[:, None] ** _powers / _powers @ GAUSS_POLYNOMIAL)
_AT_WALL, *_inside = _derivative_at_start().tolist()
_SLOPES = torch.tensor([_inside, _inside[::-1]], dtype=torch.float64)  # from either wall inward
_INWARD = torch.tensor([1.0, -1.0], dtype=torch.float64)
_ORDERS = torch.arange(1, 4)[:, None]
_HAT_MOMENTS = torch.cat([GAUSS_NODES**_ORDERS / _ORDERS, (1 - GAUSS_NODES) ** _ORDERS / _ORDERS])


@dataclass(frozen=True, eq=False)
class Landscape:
    """What drift and diffusion make of a cell, before any current is thought of.

    Args:
        h: Widths, shape (cells,).
        u: ∫ f/D over the cell.
        w: log(a/b) = u − Δ log D: what log p gains over the cell when nothing flows.
        regular: f/D at the Gauss points less its poles, times the width, shape (cells, points).
        poles: Poles of f/D at walls with D = 0.
        log_d: log D at the nodes; 0 at a wall with D = 0.
        closed: Cells at a wall with D = 0, which carry nothing; None if there are none.
        coefficients: f and D.
    """

    h: Float[Tensor, " cells"]
    u: Float[Tensor, "... cells"]
    w: Float[Tensor, "... cells"]
    regular: Float[Tensor, "... cells points"]
    poles: tuple[Pole, ...]
    log_d: Float[Tensor, "... nodes"]
    closed: Bool[Tensor, " cells"] | None
    coefficients: Coefficients

    @cached_property
    def beside(self) -> Array:
        """What u misses beside each node, whatever the grid, shape (nodes,); see `gaps`."""
        c = self.coefficients
        if c.beside is None:
            return np.zeros(len(self.h) + 1)
        if not self.poles:
            return c.beside(self.regular.detach().numpy())
        with np.errstate(all="ignore"):
            return c.beside((c.drift / c.diffusivity * self.h[:, None]).detach().numpy())

    @cached_property
    def log_s(self) -> Float[Tensor, "... cells points"]:
        """log of the scale density at the Gauss points, over that of the left node."""
        (regular,) = arrays.bare(self.regular)
        log_s = arrays.tensor(-(arrays.like(regular, CUMULATIVE) @ regular.mT).mT)
        for pole in self.poles:
            rise = pole.at_points - pole.at_nodes[:-1, None]
            log_s = log_s - pole.nu[..., None, None] * rise
        # a wall's cell carries nothing, and its numbers are never used
        return log_s if self.closed is None else torch.where(self.closed[:, None], 0.0, log_s)


@dataclass(frozen=True, eq=False)
class Fluxes:
    """J = a p_i − b p_{i+1} in every cell, and what the compact scheme wants to know of a cell.

    Args:
        land: Where it flows.
        a: Rate from the left node, > 0; 0 in a cell at a wall with D = 0.
        b: Rate from the right node, likewise.
        shares: Scale density at the Gauss points, weighted, of sum 1 in a cell, shape (cells,
            points).
        d: The D, constant in the cell, that has the same a at the cell's mean f/D.
    """

    land: Landscape
    a: Float[Tensor, "... cells"]
    b: Float[Tensor, "... cells"]
    shares: Float[Tensor, "... cells points"]
    d: Float[Tensor, "... cells"]

    @property
    def h(self) -> Float[Tensor, " cells"]:
        """Widths."""
        return self.land.h

    @property
    def u(self) -> Float[Tensor, "... cells"]:
        """∫ f/D over the cell."""
        return self.land.u

    @property
    def w(self) -> Float[Tensor, "... cells"]:
        """What log p gains over the cell when nothing flows."""
        return self.land.w

    @cached_property
    def hat_moments(self) -> Float[Tensor, "... 6 cells"]:
        """∫ φ ξᵏ dξ for k = 0, 1, 2, ξ from 0 to 1, of the two hats of a cell.

        By parts it is ⟨ξᵏ⁺¹⟩/(k + 1), the mean that of the scale density. First those of the hat
        that falls from the left node, then those of the other, in 1 − ξ. Where a hat is too steep
        for the Gauss points they are those of a constant f/D.
        """
        (shares,) = arrays.bare(self.shares)
        moments = arrays.tensor(arrays.like(shares, _HAT_MOMENTS) @ shares.mT)
        u = self.u.detach().numpy()
        if max(u.max(), -u.min()) <= STEEPEST:
            return moments
        steep = torch.from_numpy(np.abs(u) > STEEPEST)
        exact = torch.cat([_falling_moments(self.u), _falling_moments(-self.u)], -2)
        return torch.where(steep[..., None, :], exact, moments)

    @property
    def beside(self) -> Array:
        """What u misses beside each node."""
        return self.land.beside

    @cached_property
    def hats(self) -> Float[Tensor, "... cells points"]:
        """The falling hat at the Gauss points, φ′ ∝ s."""
        return 1 - (self.shares / GAUSS_WEIGHTS) @ CUMULATIVE.T

    @cached_property
    def log_m(self) -> Float[Tensor, "... cells points"]:
        """log of the density without current at the Gauss points, over that of the left node."""
        land = self.land
        return land.log_d[..., :-1, None] - land.coefficients.diffusivity.log() - land.log_s

    @cached_property
    def wall_slopes(self) -> Float[Tensor, "... 2"]:
        """(log p)′ = f/D − (log D)′ at both walls when nothing flows, away from them."""
        c = self.land.coefficients
        known = c.diffusivity, c.wall_drift, self.land.log_d, self.h
        diffusivity, wall_drift, log_d, h = arrays.bare(*known)
        of, last = arrays.of(log_d), h.shape[0] - 1
        at_wall = log_d[..., :: last + 1]
        inside = of.log(diffusivity[..., ::last, :]) * arrays.like(log_d, _SLOPES)
        rise = at_wall * _AT_WALL + inside.sum(-1)
        inward = arrays.like(log_d, _INWARD) * wall_drift * of.exp(-at_wall)
        return arrays.tensor(inward - rise / h[::last])


def _falling_moments(u: Tensor) -> Tensor:
    """Return ∫ φ ξᵏ dξ, k = 0, 1, 2, of the hat falling from the left node, f/D constant.

    ⟨ξᵐ⟩ = (m ⟨ξᵐ⁻¹⟩ − r)/u by parts, r = u/(e^u − 1) the weight e^{−uξ} at 1 over its integral.
    """
    safe = torch.where(u.abs() > STEEPEST, u, STEEPEST)
    end = safe / torch.expm1(safe)
    mean, moments = torch.ones_like(safe), []
    for m in (1, 2, 3):
        mean = (m * mean - end) / safe
        moments.append(mean / m)
    return torch.stack(moments, -2)


@np.errstate(all="ignore")  # of what is not finite, others tell
def landscape(c: Coefficients, nodes: Float[Tensor, " nodes"]) -> Landscape:
    """Integrate f/D over the cells of a grid.

    Args:
        c: f and D.
        nodes: Positions of the nodes.

    Returns:
        The landscape.
    """
    poles = tuple(pole for pole in find_poles(c, nodes) if pole is not None)
    read = c.drift, c.diffusivity, c.nodal_diffusivity, nodes
    f, diffusivity, d, x = read if poles else arrays.bare(*read)
    of = arrays.of(f)
    h = x[1:] - x[:-1]
    regular = _by_points(f, diffusivity, h)
    for pole in poles:
        regular = regular - pole.nu[..., None, None] * pole.rate
    u, closed = arrays.like(f, GAUSS_WEIGHTS) @ regular.mT, None
    if poles:
        closed = torch.zeros_like(h, dtype=torch.bool)
        for pole in poles:
            u = u + pole.nu[..., None] * pole.at_nodes.diff()
            closed[pole.cell] = True
        u = torch.where(closed, 0.0, u)
        d = torch.where(d > 0, d, 1.0)
    log_d = of.log(d)
    w = u - (log_d[..., 1:] - log_d[..., :-1])
    if closed is not None:
        w = torch.where(closed, 0.0, w)
    h, u, w, regular, log_d = map(arrays.tensor, (h, u, w, regular, log_d))
    return Landscape(h, u, w, regular, poles, log_d, closed, c)


@np.errstate(all="ignore")  # where e^u is ∞, 1/∞ is right
def fluxes(land: Landscape) -> Fluxes:
    """Return the fluxes over a landscape.

    Args:
        land: The landscape.

    Returns:
        The fluxes.
    """
    known = land.u, land.log_s, land.log_d, land.h
    u, log_s, log_d, h = known if land.poles else arrays.bare(*known)
    of, weights = arrays.of(u), arrays.like(u, GAUSS_WEIGHTS)
    # ∫ s over the cell, and by the same points that of a constant f/D, which is known exactly
    bare = u.detach() if of is torch else u
    size = abs(bare)
    top = (0.5 * (size - bare))[..., None, :]  # the larger end of log s, against overflow
    scale = arrays.exp(log_s.mT - top)  # point by point: a loop over cells is fast
    total = weights @ scale
    points = arrays.like(u, GAUSS_NODES[:, None])
    # which lie symmetrically: with −u less its larger end the sum is that with −|u|
    constant = -u[..., None, :] * points - top if of is torch else size[..., None, :] * -points
    ratio = weights @ arrays.exp(constant)
    if np.count_nonzero(total.detach().numpy() < _UNSEEN if of is torch else total < _UNSEEN):
        # so steep, |u| > 5000, that no Gauss point sees s: that of the larger end stands for all
        unseen = total < _UNSEEN
        total, ratio = (of.where(unseen, 1.0, v) for v in (total, ratio))
    ratio = ratio / total
    nodal = of.exp(log_d)
    d = nodal[..., :-1] * ratio
    ahead, back = bernoullis(u)
    a = d * ahead / h
    b = nodal[..., 1:] * ratio * back / h
    if land.closed is not None:
        a, b = (torch.where(land.closed, 0.0, v) for v in (a, b))
    shares = (scale * (weights[:, None] / total[..., None, :])).mT
    a, b, shares, d = map(arrays.tensor, (a, b, shares, d))
    return Fluxes(land, a, b, shares, d.detach())


def _by_points(f: AnyArray, d: AnyArray, h: AnyArray) -> AnyArray:
    """Return f h/D, (..., cells, points); of arrays point by point, for loops over many cells."""
    if isinstance(f, Tensor):
        return f / d * h[:, None]
    points = f.shape[-1]
    out = np.empty((*np.broadcast_shapes(f.shape[:-2], d.shape[:-2]), points, f.shape[-2]))
    for k in range(points):
        np.divide(f[..., k], d[..., k], out=out[..., k, :])
    out *= h
    return out.mT


def bernoullis(z: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return B(−z) and B(z) of B(z) = z/(e^z − 1), which differ by z; both > 0."""
    if isinstance(z, Tensor) and z.requires_grad:
        return bernoulli(-z), bernoulli(z)
    size = abs(z)
    smaller: AnyArray = bernoulli(size)
    back: AnyArray = smaller + 0.5 * (size - z)
    return smaller + 0.5 * (size + z), back


def bernoulli(z: AnyArray) -> AnyArray:
    """Return z/(e^z − 1), for any z, with a gradient at 0."""
    if not isinstance(z, Tensor):
        zero = z == 0
        safe = np.where(zero, 1.0, z) if np.count_nonzero(zero) else z
        ratio: AnyArray = safe / np.expm1(safe)
        return np.where(zero, 1.0, ratio) if safe is not z else ratio
    if not z.requires_grad:
        return torch.where(z == 0, 1.0, z / torch.expm1(z))
    small = z.abs() < 1e-3
    safe = torch.where(small, 1.0, z)
    series = 1 - z / 2 + z**2 / 12 - z**4 / 720
    return torch.where(small, series, safe / torch.expm1(safe))
