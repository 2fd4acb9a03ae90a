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

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.coefficients import GAUSS_NODES, GAUSS_WEIGHTS, Coefficients

__all__ = ["Fluxes", "Pole", "find_pole", "fluxes"]


def _cumulative() -> Tensor:
    """∫_0^{ξ_j} of the polynomial through the Gauss points, as a matrix."""
    powers = np.arange(len(GAUSS_NODES))
    vandermonde = GAUSS_NODES.numpy()[:, None] ** powers
    integrals = GAUSS_NODES.numpy()[:, None] ** (powers + 1) / (powers + 1)
    return torch.from_numpy(integrals @ np.linalg.inv(vandermonde))


def _derivative_at_start() -> Tensor:
    """d/dξ at 0 of the polynomial through 0 and the Gauss points, as weights of these values."""
    points = np.concatenate([[0.0], GAUSS_NODES.numpy()])
    vandermonde = points[:, None] ** np.arange(len(points))
    return torch.from_numpy(np.linalg.inv(vandermonde)[1].copy())


def _value_at_start() -> Tensor:
    """The value at 0 of the polynomial through the Gauss points, as weights of their values."""
    vandermonde = GAUSS_NODES.numpy()[:, None] ** np.arange(len(GAUSS_NODES))
    return torch.from_numpy(np.linalg.inv(vandermonde)[0].copy())


_CUMULATIVE = _cumulative()
_SLOPE = _derivative_at_start()
_VALUE_AT_START = _value_at_start()
_POWERS = GAUSS_NODES[:, None] ** torch.arange(4)  # 1, ξ, ξ², ξ³


@dataclass(frozen=True, eq=False)
class Fluxes:
    """J = a p_i − b p_{i+1} in every cell, and what the compact scheme wants to know of a cell.

    Args:
        h: Widths, shape (cells,).
        a: Rate from the left node, > 0; 0 in a cell at a wall with D = 0.
        b: Rate from the right node, likewise.
        u: ∫ f/D over the cell.
        w: log(a/b) = u − Δ log D: what log p gains over the cell when nothing flows.
        moments: ⟨ξ⟩, ⟨ξ²⟩, ⟨ξ³⟩ of the scale density in the cell, ξ from 0 to 1, shape (cells, 3).
        hats: The falling hat at the Gauss points, φ′ ∝ s, shape (cells, points).
        log_m: log of the density without current at the Gauss points, over that of the left node.
        wall_slopes: (log p)′ at both walls when nothing flows, shape (2,).
    """

    h: Float[Tensor, " cells"]
    a: Float[Tensor, "... cells"]
    b: Float[Tensor, "... cells"]
    u: Float[Tensor, "... cells"]
    w: Float[Tensor, "... cells"]
    moments: Float[Tensor, "... cells 3"]
    hats: Float[Tensor, "... cells points"]
    log_m: Float[Tensor, "... cells points"]
    wall_slopes: Float[Tensor, "... 2"]


@dataclass(frozen=True, eq=False)
class Pole:
    """f/D ≈ ±ν/ξ at a wall where D ∝ ξ^n.

    Args:
        nu: ν > 0 where the drift points inward.
        order: n.
        at_nodes: log ξ at the nodes; 0 at the wall itself.
        at_points: log ξ at the Gauss points.
        rate: ±h/ξ at the Gauss points, the derivative of log ξ.
        cell: Index of the cell at the wall, 0 or −1.
    """

    nu: Tensor
    order: float
    at_nodes: Tensor
    at_points: Tensor
    rate: Tensor
    cell: int

    @property
    def stationary_exponent(self) -> float:
        """q of a stationary density ∝ ξ^q."""
        return float(self.nu.detach().min()) - self.order

    @property
    def exponent(self) -> float:
        """q of a density on its way: where n ≥ 2 it never arrives at the wall, and is 0 there."""
        return self.stationary_exponent if self.order < 2 else max(1.0, self.stationary_exponent)


def fluxes(c: Coefficients, nodes: Float[Tensor, " nodes"]) -> Fluxes:
    """The fluxes of coefficients on a grid.

    Args:
        c: f and D.
        nodes: Positions of the nodes.

    Returns:
        The fluxes.
    """
    h = nodes.diff()
    slope = c.drift / c.diffusivity * h[:, None]
    poles = [
        pole for pole in (find_pole(c, nodes, 0), find_pole(c, nodes, -1)) if pole is not None
    ]
    regular = slope
    for pole in poles:
        regular = regular - pole.nu[..., None, None] * pole.rate
    u = regular @ GAUSS_WEIGHTS
    log_s = -(regular @ _CUMULATIVE.T)  # log of the scale density at the Gauss points
    d = c.nodal_diffusivity
    closed = torch.zeros_like(h, dtype=torch.bool)
    for pole in poles:
        nu = pole.nu[..., None]
        u = u + nu * pole.at_nodes.diff()
        log_s = log_s - nu[..., None] * (pole.at_points - pole.at_nodes[:-1, None])
        closed[pole.cell] = True
    if poles:  # a wall's cell carries nothing, and its numbers are never used
        u = torch.where(closed, 0.0, u)
        log_s = torch.where(closed[:, None], 0.0, log_s)
        d = torch.where(d > 0, d, 1.0)
    log_d = d.log()
    w = u - log_d.diff()
    log_line = -u[..., None] * GAUSS_NODES
    log_weights = GAUSS_WEIGHTS.log()
    excess = torch.logsumexp(log_s + log_weights, -1) - torch.logsumexp(log_line + log_weights, -1)
    correction = torch.exp(-excess) / h
    a = d[..., :-1] * _bernoulli(-u) * correction
    b = d[..., 1:] * _bernoulli(u) * correction
    if poles:
        a, b, w = (torch.where(closed, 0.0, v) for v in (a, b, w))
    weights = torch.softmax(log_s + log_weights, -1)
    moments = weights @ _POWERS[:, 1:]
    hats = 1 - (weights / GAUSS_WEIGHTS) @ _CUMULATIVE.T
    log_m = log_d[..., :-1, None] - c.diffusivity.log() - log_s
    slopes = _wall_slopes(c, h, log_d)
    return Fluxes(h, a, b, u, w, moments, hats, log_m, slopes)


def find_pole(c: Coefficients, nodes: Tensor, end: int) -> Pole | None:
    """The pole of f/D at a wall where D = 0.

    Args:
        c: f and D.
        nodes: Positions of the nodes.
        end: 0 for the lower wall, −1 for the upper.

    Returns:
        The pole, or None where D > 0.
    """
    if bool((c.nodal_diffusivity[..., end] > 0).all()):
        return None
    sign = 1.0 if end == 0 else -1.0
    h = nodes.diff()
    points = nodes[:-1, None] + h[:, None] * GAUSS_NODES
    distance, nodal = sign * (points - nodes[end]), sign * (nodes - nodes[end])
    order = list(range(len(GAUSS_NODES))) if end == 0 else list(range(len(GAUSS_NODES)))[::-1]
    near, f, d = distance[end, order], c.drift[..., end, order], c.diffusivity[..., end, order]
    nu = (sign * near * f / d) @ _VALUE_AT_START
    growth = (d[..., 1] / d[..., 0]).detach().log() / (near[1] / near[0]).log()
    power = round(2 * float(growth.min())) / 2
    nodal = torch.where(nodal > 0, nodal, 1.0)
    return Pole(nu, power, nodal.log(), distance.log(), sign * h[:, None] / distance, end)


def _bernoulli(z: Tensor) -> Tensor:
    """z/(e^z − 1), for any z, with a gradient at 0."""
    small = z.abs() < 1e-3
    safe = torch.where(small, 1.0, z)
    series = 1 - z / 2 + z**2 / 12 - z**4 / 720
    return torch.where(small, series, safe / torch.expm1(safe))


def _wall_slopes(c: Coefficients, h: Tensor, log_d: Tensor) -> Tensor:
    """f/D − (log D)′ at both walls."""
    low = torch.cat([log_d[..., :1], c.diffusivity[..., 0, :].log()], -1) @ _SLOPE / h[0]
    high = (
        torch.cat([log_d[..., -1:], c.diffusivity[..., -1, :].flip(-1).log()], -1)
        @ _SLOPE
        / -h[-1]
    )
    return c.wall_drift * torch.exp(-log_d[..., [0, -1]]) - torch.stack([low, high], -1)
