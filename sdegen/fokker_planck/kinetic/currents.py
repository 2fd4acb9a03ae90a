"""Currents of a density in phase space, and the entropy that the irreversible one produces.

    J = (v p, F p/m) + (0, J_irr),    J_irr = −γ (v p + (T/m) p_v) = −γ (T/m) M ∂_v(p/M)

    σ = ∫ m J_irr²/(γ T p) dx dv ≥ 0

M is Maxwell's density of T, so that J_irr is 0 of what rests in equilibrium, to rounding. The
first part is even under time reversal and produces nothing.

Reference:
    Risken 1989, section 6.4; Seifert 2012, Rep. Prog. Phys. 75, 126001.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.interpolate import make_interp_spline

from sdegen.core.dissipation import dissipation
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.refinement import coarsened, positions
from sdegen.fokker_planck.kinetic.operator import Particle

_FAINT = 1e-12  # of the peak: below it a density has no digits
_HIGHEST = 300.0  # of T: kinetic energies beyond have no Maxwell density
_DEGREE = 5


def irreversible(particle: Particle, density: PlaneDensity) -> Array:
    """Return J_irr at the nodes."""
    x, v, p = density.x.numpy(), density.y.numpy(), density.p.detach().numpy()
    width = particle.temperature / particle.mass
    maxwell = np.exp(-np.minimum(0.5 * v**2 / width, _HIGHEST))
    ratio = make_interp_spline(v, p / maxwell, k=_DEGREE, axis=1)
    slope = maxwell * ratio.derivative()(v)
    return np.asarray(-particle.friction(x)[:, None] * width * slope)


def current(particle: Particle, density: PlaneDensity) -> Array:
    """Return (J_x, J_v) at the nodes, shape (2, nx, nv)."""
    x, v, p = density.x.numpy(), density.y.numpy(), density.p.detach().numpy()
    force = particle.force(x)[:, None] / particle.mass
    return np.stack([v * p, force * p + irreversible(particle, density)])


def production(particle: Particle, density: PlaneDensity) -> tuple[float, float]:
    """Return σ, and the rate of friction that it is compared with."""
    p, area = density.p.detach().numpy(), density.weights.numpy()
    gamma = np.broadcast_to(particle.friction(density.x.numpy())[:, None], p.shape)
    felt = (p > _FAINT * p.max()) & (gamma > 0)
    d = gamma[felt] * particle.temperature / particle.mass
    j = irreversible(particle, density)[felt]
    square = dissipation(*(torch.from_numpy(part)[:, None] for part in (j, d))).numpy()
    return float((area[felt] * square / p[felt]).sum()), float((area * gamma * p).sum())


def thinned(density: PlaneDensity) -> PlaneDensity:
    """Return every other node of a density."""
    grids = [Grid.of(nodes) for nodes in (density.x, density.y)]
    few = [coarsened(grid) for grid in grids]
    i, j = map(positions, few, grids)
    return replace(density, x=few[0].nodes, y=few[1].nodes, p=density.p[i][:, j])
