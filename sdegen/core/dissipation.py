"""Dissipation: the production of entropy, one formula for densities, samples and paths.

    dX = f dt + g dW (Itô),    D = g gᵀ/2,    σ = ∫ νᵀ D⁻¹ ν p dx ≥ 0,    ν = f − ∇·D − D ∇log p

in units of k_B per time. ν is the velocity of the current J = ν p, and σ = ∫ J·D⁻¹J/p. Noise may
be multiplicative: (∇·D)_i = Σ_j ∂_j D_ij, whatever the interpretation in which g was read. On a
grid, where J is a flux F through the edge between two nodes and A the force along it, σ = Σ F A.

**What time reversal turns around.** Velocities change their sign, x → εx with ε = ±1, and only the
irreversible part of the drift makes entropy:

    f_irr(x) = ½ [f(x) + ε f(εx)],    ν = f_irr − ∇·D − D ∇log p

Of dx = v dt, dv = (F/m − γv) dt + √(2γT/m) dW that is ν = (0, −γ(v + (T/m) ∂_v log p)), and
σ = (mγ/T) ∫ (v + (T/m) ∂_v log p)² p, whatever the force: 0 for e^{−E/T}. A coordinate without
noise is allowed where ν is 0 there; elsewhere σ is infinite, and is refused.

**Along a path** the medium takes up

    Δs_m = ∫ D⁻¹(f_irr − ∇·D) ∘ (dX − f_rev dt),    f_rev = f − f_irr

in Stratonovich's sense. Where ∇·f_rev = 0, the whole Δs = Δs_m − Δ log p has ⟨Δs⟩ = ∫ σ dt and
⟨exp(−Δs)⟩ = 1.

Reference:
    Seifert 2012, Rep. Prog. Phys. 75, 126001, eq. (18); Spinney and Ford 2012, Phys. Rev. E 85,
    051113, for variables that are odd under time reversal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time

_SINGULAR = 1e-11  # smallest eigenvalue of D with ones on its diagonal
_STILL = {torch.float32: 1e-4, torch.float64: 1e-9}  # of the largest velocity: rounding


def dissipation(velocity: Tensor, diffusivity: Tensor) -> Tensor:
    """Return νᵀ D⁻¹ ν, shape (…).

    Args:
        velocity: ν, or a current, shape (…, d).
        diffusivity: D, shape (…, d) where it is diagonal, (…, d, d) else.

    Raises:
        ValueError: If D is singular where ν is not 0.

    >>> dissipation(torch.tensor([3.0, 0.0]), torch.tensor([0.5, 0.0]))
    tensor(18.)
    """
    return (velocity * inverse_times(diffusivity, velocity)).sum(-1)


def edge_dissipation(flux: Tensor, force: Tensor) -> float:
    """Return Σ F A over edges: F what flows along each, A = log(there/back) of one-way fluxes."""
    return float((flux * force).sum())


def inverse_times(diffusivity: Tensor, velocity: Tensor) -> Tensor:
    """Return D⁻¹ν, shape (…, d), 0 in coordinates where neither moves.

    Args:
        diffusivity: D, shape (…, d) where it is diagonal, (…, d, d) else.
        velocity: ν, shape (…, d).

    Raises:
        ValueError: If D is singular where ν is not 0.
    """
    is_diagonal = diffusivity.ndim == velocity.ndim
    own = diffusivity if is_diagonal else diffusivity.diagonal(dim1=-2, dim2=-1)
    still = (own <= 0).expand_as(velocity)
    most = _STILL.get(velocity.dtype, 1e-4) * float(velocity.abs().max()) if len(velocity) else 0.0
    moves = still & (velocity.abs() > most)
    if bool(moves.any()):
        where = int(moves.flatten(0, -2).any(0).nonzero()[0, 0])
        raise ValueError(
            f"entropy production needs noise where something moves, but coordinate {where} has "
            f"D = 0 and a velocity of up to {float(velocity[..., where].abs().max()):.3g} that "
            "time reversal does not turn around: σ is infinite. Give it noise, or say with odd= "
            "which coordinates are velocities, as UnderdampedLangevin does by itself."
        )
    if is_diagonal:
        return torch.where(still, 0.0, velocity / torch.where(still, 1.0, own))
    _check_regular(diffusivity, own)
    filled = diffusivity + torch.diag_embed((own <= 0).to(diffusivity))
    moving = torch.where(still, 0.0, velocity).unsqueeze(-1)
    force: Tensor = torch.linalg.solve(filled, moving)
    return force.squeeze(-1)


def _check_regular(diffusivity: Tensor, own: Tensor) -> None:
    """Refuse a matrix that is singular beside the coordinates without any noise."""
    root = torch.where(own > 0, own, 1.0).sqrt()
    scaled = diffusivity / (root.unsqueeze(-1) * root.unsqueeze(-2))
    scaled = scaled + torch.diag_embed((own <= 0).to(scaled))
    smallest = float(torch.linalg.eigvalsh(scaled.double()).min())
    if smallest <= (_SINGULAR if diffusivity.dtype == torch.float64 else 1e-5):
        raise ValueError(
            "entropy production needs D = G Gᵀ/2 that can be inverted, but the smallest "
            f"eigenvalue of the noises' correlations is {smallest:.3g}: some direction has no "
            "noise, and along it σ is infinite or not seen. Add a channel that moves it."
        )


def diffusivity_of(sde: SDE, x: State, t: Time) -> Tensor:
    """Return D = g gᵀ/2: shape (batch or 1, d) of diagonal noise, (batch or 1, d, d) else.

    Args:
        sde: Dynamics.
        x: States, shape (batch, *event), of d numbers each.
        t: Time.
    """
    some = x[:1] if sde.noise != "multiplicative" and t.ndim == 0 else x
    if sde.noise_structure == "diagonal":
        return sde.diffusion(some, t).to(x).expand_as(some).flatten(1).square() / 2
    return covariance_matrix(sde, some, t) / 2


def reversed_in_time(x: State, odd: tuple[int, ...]) -> State:
    """Return x with the sign of its odd coordinates changed.

    Args:
        x: States, shape (batch, *event).
        odd: Which numbers of the flattened event are odd.
    """
    if not odd:
        return x
    sign = torch.ones_like(x[0]).flatten()
    sign[list(odd)] = -1.0
    return x * sign.reshape(x.shape[1:])


def parts_of_drift(
    sde: SDE, x: State, t: Time, odd: tuple[int, ...] = ()
) -> tuple[State, State | None]:
    """Return f_irr − ∇·D, which makes entropy, and f_rev; None where no coordinate is odd.

    Args:
        sde: Dynamics; one that runs towards smaller times is read in its own sense of time.
        x: States, shape (batch, *event).
        t: Time.
        odd: Which numbers of the flattened event are odd under time reversal.
    """
    drift, reversible = sde.direction * sde.drift(x, t), None
    if odd:
        turned = sde.direction * sde.drift(reversed_in_time(x, odd), t)
        irreversible = 0.5 * (drift + reversed_in_time(turned, odd))
        drift, reversible = irreversible, drift - irreversible
    if sde.noise == "multiplicative":
        drift = drift - 0.5 * sde.covariance_divergence(x, t)
    return drift, reversible


def local_production(
    sde: SDE, x: State, t: Time, score: State, odd: tuple[int, ...] = ()
) -> Tensor:
    """Return νᵀ D⁻¹ ν at each state, shape (batch,); its mean over p is σ.

    Args:
        sde: Dynamics.
        x: States, shape (batch, *event).
        t: Time.
        score: ∇log p at them, like x.
        odd: Which numbers of the flattened event are odd under time reversal.

    Raises:
        ValueError: If D is singular where ν is not 0.
    """
    drift, _ = parts_of_drift(sde, x, t, odd)
    velocity = drift - 0.5 * sde.covariance_times(x, t, score)
    return dissipation(velocity.flatten(1), diffusivity_of(sde, x, t))


def medium_force(
    sde: SDE, x: State, t: Time, odd: tuple[int, ...] = ()
) -> tuple[State, State | None]:
    """Return h = D⁻¹(f_irr − ∇·D), like x, and f_rev: Δs_m = ∫ h ∘ (dX − f_rev dt).

    Args:
        sde: Dynamics.
        x: States, shape (batch, *event).
        t: Time.
        odd: Which numbers of the flattened event are odd under time reversal.

    Raises:
        ValueError: If D is singular where something moves.
    """
    drift, reversible = parts_of_drift(sde, x, t, odd)
    force = inverse_times(diffusivity_of(sde, x, t), drift.flatten(1))
    return force.reshape(x.shape), reversible
