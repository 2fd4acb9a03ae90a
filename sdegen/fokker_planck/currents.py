"""Currents, and what they cost.

Between two nodes the current is J = a p_i − b p_{i+1}, constant and exact for the nodal values.
The thermodynamic force integrated over the cell is log(a p_i / b p_{i+1}), so that the entropy
production, in units of k_B per time, is

    σ = ∫ J²/(D p) dx = Σ J log(a p_i / b p_{i+1}) ≥ 0

and vanishes with the current. The free energy of a density, in units of kT above its minimum, is
its distance to the stationary one,

    F = ∫ p log(p/p_st) dx,    dF/dt = −σ  without circulation: Boltzmann's H-theorem.

On a ring, a tilted periodic potential for instance, the unwrapped coordinate drifts and spreads:
X ≈ v t ± √(2 D_eff t), with

    v = J L,    D_eff = ∫ D p Y² dx · (L/∫ Y dx)²,    Y(x) = s(x) ∫_{x−L}^{x} m dy

Reference:
    Seifert 2012, Rep. Prog. Phys. 75, 126001, eq. (18); Reimann et al. 2001, Phys. Rev. Lett. 87,
    010602, eq. (5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.coefficients import GAUSS_WEIGHTS, Coefficients
from sdegen.fokker_planck.density import Density, integral
from sdegen.fokker_planck.fluxes import Fluxes

__all__ = ["Transport", "current", "entropy_production", "free_energy", "transport"]

_TINY = 1e-300


@dataclass(frozen=True)
class Transport:
    """How the unwrapped coordinate of a ring moves, in the long run.

    Args:
        velocity: v = d⟨X⟩/dt.
        diffusion: D_eff = ½ d Var X/dt.
        current: J, in units of 1/time.
    """

    velocity: float
    diffusion: float
    current: float


def current(flux: Fluxes, p: Float[Tensor, "... nodes"]) -> Float[Tensor, "... cells"]:
    """J = a p_i − b p_{i+1} in every cell, in units of 1/time."""
    return flux.a * p[..., :-1] - flux.b * p[..., 1:]


def entropy_production(flux: Fluxes, p: Float[Tensor, " nodes"]) -> Float[Tensor, ""]:
    """σ in units of k_B per time; very large, of a density that ends in a step."""
    out, back = flux.a * p[:-1], flux.b * p[1:]
    return ((out - back) * (out.clamp(min=_TINY).log() - back.clamp(min=_TINY).log())).sum()


def free_energy(p: Density, stationary: Density) -> Float[Tensor, ""]:
    """F = ∫ p log(p/p_st) in units of kT; 0 at rest."""
    some = p.p > 0
    ratio = torch.where(
        some, p.p.clamp(min=_TINY).log() - stationary.p.clamp(min=_TINY).log(), 0.0
    )
    return integral(p.x, p.p * ratio)


def transport(
    flux: Fluxes, c: Coefficients, nodes: Float[Tensor, " nodes"], p: Float[Tensor, " nodes"]
) -> Transport:
    """Drift and spreading on a ring.

    Args:
        flux: Fluxes of the cells.
        c: f and D.
        nodes: Positions of the nodes.
        p: The stationary density, of mass 1.

    Returns:
        Velocity and effective diffusion.
    """
    phi = torch.nn.functional.pad(flux.w.cumsum(-1), (1, 0))
    total = phi[-1]
    j = current(flux, p).mean()
    # log ∫ m over each cell, m = e^Φ; then over one period behind each node
    log_mass = (flux.h * (flux.log_m.exp() @ GAUSS_WEIGHTS)).log() + phi[:-1]
    behind = torch.logcumsumexp(log_mass, 0)
    ahead = torch.logcumsumexp(log_mass.flip(0), 0).flip(0) - total  # one period earlier
    period = torch.cat([ahead[:1], torch.logaddexp(behind[:-1], ahead[1:])])
    d = c.nodal_diffusivity
    log_y = period - phi[:-1] - d[:-1].log()
    y = torch.exp(log_y - log_y.max())
    y = torch.cat([y, y[:1]])
    length = nodes[-1] - nodes[0]
    spread = integral(nodes, d * p * y**2) * (length / integral(nodes, y)) ** 2
    return Transport(float(j * length), float(spread), float(j))
