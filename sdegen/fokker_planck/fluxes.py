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

__all__ = ["Fluxes", "fluxes"]


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


_CUMULATIVE = _cumulative()
_SLOPE = _derivative_at_start()
_POWERS = GAUSS_NODES[:, None] ** torch.arange(4)  # 1, ξ, ξ², ξ³


@dataclass(frozen=True, eq=False)
class Fluxes:
    """J = a p_i − b p_{i+1} in every cell, and what the compact scheme wants to know of a cell.

    Args:
        h: Widths, shape (cells,).
        a: Rate from the left node, > 0.
        b: Rate from the right node, > 0.
        u: ∫ f/D over the cell.
        w: log(a/b) = u − Δ log D: what log p gains over the cell when nothing flows.
        moments: ⟨ξ⟩, ⟨ξ²⟩, ⟨ξ³⟩ of the scale density in the cell, ξ from 0 to 1, shape (cells, 3).
        wall_slopes: (log p)′ at both walls when nothing flows, shape (2,).
    """

    h: Float[Tensor, " cells"]
    a: Float[Tensor, "*batch cells"]
    b: Float[Tensor, "*batch cells"]
    u: Float[Tensor, "*batch cells"]
    w: Float[Tensor, "*batch cells"]
    moments: Float[Tensor, "*batch cells 3"]
    wall_slopes: Float[Tensor, "*batch 2"]


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
    u = slope @ GAUSS_WEIGHTS
    log_d = c.nodal_diffusivity.log()
    w = u - log_d.diff()
    # log of the scale density at the Gauss points, and beside it that of a constant f/D
    log_s = -(slope @ _CUMULATIVE.T)
    log_line = -u[..., None] * GAUSS_NODES
    log_weights = GAUSS_WEIGHTS.log()
    excess = torch.logsumexp(log_s + log_weights, -1) - torch.logsumexp(log_line + log_weights, -1)
    correction = torch.exp(-excess) / h
    a = c.nodal_diffusivity[..., :-1] * _bernoulli(-u) * correction
    b = c.nodal_diffusivity[..., 1:] * _bernoulli(u) * correction
    weights = torch.softmax(log_s + log_weights, -1)
    return Fluxes(h, a, b, u, w, weights @ _POWERS[:, 1:], _wall_slopes(c, h, log_d))


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
    d = torch.stack([c.nodal_diffusivity[..., 0], c.nodal_diffusivity[..., -1]], -1)
    return c.wall_drift / d - torch.stack([low, high], -1)
