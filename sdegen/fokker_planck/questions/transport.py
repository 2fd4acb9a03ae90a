"""Transport on a ring: how the unwrapped coordinate drifts and spreads in the long run.

On a ring, a tilted periodic potential for instance, X ≈ v t ± √(2 D_eff t), with

    v = L (1 − e^{−W})/Z,    D_eff = L² ∫ s G N² dx / Z³,    Z = ∫ m G dx
    G(x) = ∫_x^{x+L} s dy,    N(x) = ∫_{x−L}^{x} m dy,    W = ∮ f/D dx

with the speed density m and the scale density s = 1/(D m). All of it are sums of positive terms,
summed in logs: behind a barrier of 40 kT, where p is e^{−40} of its peak on the way, v and D_eff
have all their digits, and v has the sign of the tilt W.

Within a cell G is linear in ∫s and N in ∫m, exactly. What is left is the quadrature of s and m,
and its error is told: it is the difference to a grid of half as many cells.

Reference:
    Reimann et al. 2001, Phys. Rev. Lett. 87, 010602, eq. (5); Stratonovich 1958 for v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, GAUSS_WEIGHTS
from sdegen.fokker_planck.discretization.fluxes import CUMULATIVE, STEEPEST, Fluxes
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.questions.chains import cell_loads
from sdegen.fokker_planck.questions.two_grids import Answer, Problem, refined

_NO_TILT = 1e-17  # of ∮ |f/D|: what is left of no tilt by rounding
_STEEP = 600.0
_LINEAR = 1e-6


@dataclass(frozen=True)
class Transport(Answer):
    """How the unwrapped coordinate of a ring moves, in the long run.

    Args:
        velocity: v = d⟨X⟩/dt.
        diffusion: D_eff = ½ d Var X/dt.
        current: J, in units of 1/time.
        error: Estimated relative errors of these three; those of v and J are relative to what
            goes one way alone, L/Z, where it is more.
    """

    velocity: float
    diffusion: float
    current: float
    _title = "transport around a ring"
    _causes: ClassVar = {"truncation": "none: a ring has no ends"}


@torch.no_grad()
def transport(problem: Problem, grid: Grid, rtol: float | None) -> Transport:
    """Return drift and spreading on a ring.

    Args:
        problem: Fluxes and walls of the SDE on a grid.
        grid: The user's grid, of a ring.
        rtol: Relative error that grids are refined for; None takes 1e-6, and what is affordable.

    Raises:
        SolverError: If no affordable grid meets rtol, or 10 %.
    """
    length = grid.high - grid.low

    def ask(flux: Fluxes, ends: BoundaryNodes) -> dict[str, Array]:
        velocity, diffusion, one_way = _moments(flux, length)
        return {
            "velocity": np.array(velocity),
            "diffusion": np.array(diffusion),
            "scale of velocity": np.array(one_way),
        }

    found = refined(problem, grid, ask, rtol, "the transport")
    velocity, diffusion = float(found.values["velocity"]), float(found.values["diffusion"])
    told: dict[str, float | Tensor] = {name: float(e) for name, e in found.errors.items()}
    told["current"] = told["velocity"]
    error = ErrorEstimate(told, "two grids")
    return Transport(velocity, diffusion, velocity / length, error=error)


def _moments(flux: Fluxes, length: float) -> tuple[float, float, float]:
    """Return velocity, effective diffusion, and the velocity of what goes one way alone.

    Args:
        flux: Fluxes of the cells.
        length: Once around.
    """
    w = flux.w.numpy()
    phi = np.concatenate([[0.0], np.cumsum(w)])
    tilt = math.fsum(flux.u.tolist())  # ∮ (log D)′ = 0
    if abs(tilt) < _NO_TILT * float(flux.u.abs().sum()):
        tilt = 0.0
    right, left = (np.log(load) for load in cell_loads(flux))
    log_mass = np.logaddexp(right + phi[:-1], left + phi[1:])
    log_scale = -phi[:-1] - np.log(flux.a.numpy())
    ahead, behind = _around(log_scale, tilt), _around(log_mass[::-1], tilt)[::-1]
    # of p/m = G/Z, linear in ∫s within a cell: the mass of each cell from its two nodes
    log_z = np.logaddexp.reduce(
        np.logaddexp(right + phi[:-1] + ahead[:-1], left + phi[1:] + ahead[1:])
    )
    # ∫s and ∫m up to a point of a cell over those of all of it, the same rule for both
    fall = flux.shares.numpy() / GAUSS_WEIGHTS.numpy()
    hats = 1 - _within(fall, -flux.u.numpy())
    share = _within(np.exp(flux.log_m.numpy()), flux.u.numpy())
    with np.errstate(divide="ignore"):
        g = np.logaddexp(ahead[:-1, None] + np.log(hats), ahead[1:, None] + np.log1p(-hats))
        n = np.logaddexp(behind[:-1, None] + np.log1p(-share), behind[1:, None] + np.log(share))
        terms = log_scale[:, None] + np.log(flux.shares.numpy()) + g + 2 * n
    log_spread = np.logaddexp.reduce(terms, axis=None)
    velocity = (
        -length * math.expm1(-tilt) * math.exp(-log_z)
        if tilt > -_STEEP
        else (-length * math.exp(-tilt - log_z))
    )
    one_way = length * math.exp(max(0.0, -tilt) - log_z)
    return velocity, length**2 * math.exp(log_spread - 3 * log_z), one_way


def _within(density: Array, gain: Array) -> Array:
    """Return the integral of a density up to the Gauss points of its cells, over that of the cell.

    That of the exponential which gains as much is known, and the rule is for what differs from it.

    Args:
        density: At the Gauss points, shape (cells, points).
        gain: What the exponent gains over each cell, shape (cells,).
    """
    points, weights = GAUSS_NODES.numpy(), GAUSS_WEIGHTS.numpy()
    inner = CUMULATIVE.numpy().T
    total = density @ weights
    share = (density @ inner) / total[:, None]
    z = np.where(np.abs(gain) < _LINEAR, _LINEAR, gain)[:, None]
    line = np.exp(np.clip(z * points, -_STEEP, _STEEP))
    exact = np.expm1(np.clip(z * points, -_STEEP, _STEEP)) / np.expm1(np.clip(z, -_STEEP, _STEEP))
    off = exact - (line @ inner) / (line @ weights)[:, None]
    gentle = np.abs(gain)[:, None] < STEEPEST
    within: Array = (share + np.where(gentle, off, 0.0)).clip(0, 1)
    return within


def _around(log_terms: Array, tilt: float) -> Array:
    """Return log of the sum once around from each node, whose terms fall by e^{−W} after it."""
    ahead = np.logaddexp.accumulate(log_terms[::-1])[::-1]
    before = np.logaddexp.accumulate(log_terms) - tilt
    total: Array = np.concatenate([ahead[:1], np.logaddexp(ahead[1:], before[:-1]), before[-1:]])
    return total
