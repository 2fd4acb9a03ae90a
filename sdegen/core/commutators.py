"""How noise acts on noise: derivatives of the channels along each other, and whether they commute.

    S_ikl = Σ_j G_jk ∂_j G_il        what channel k does to channel l

These stand before the iterated integrals of Itô's formula, I_kl = ½ (ΔW_k ΔW_l − δ_kl h) + A_kl.
The Lévy areas A are antisymmetric: where S_ikl = S_ilk the channels **commute**, the areas drop
out, and increments alone give strong order 1. One channel commutes with itself, noise that does
not depend on the state commutes, and so does diagonal noise whose g_i depends on x_i alone.
Diagonal noise of another kind is a matrix like others here, G_ik = g_i δ_ik.

Reference:
    Kloeden and Platen 1992, Numerical Solution of SDEs, section 10.3, eqs. (10.3.3) and (10.3.13).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.channels import directionals
from sdegen.core.derivatives import (
    GOLDEN,
    MixedNoiseError,
    diffusivity,
    in_double,
    is_per_trajectory,
)
from sdegen.core.noise_structure import check_not_general
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.core.slope_checks import check_alone, check_directional, check_slope, mixes_at

_ROUNDING = {torch.float64: 1e-6}  # relative: of derivatives by two passes, or by differences
_ROUNDING_SINGLE = 1e-4


def own_slope(sde: SDE, x: State, t: Time) -> State | None:
    """Return g ∂g/∂x of diagonal noise, coordinate by coordinate; None where g mixes them.

    It mixes where g_i depends on another x_j, or g is one number for several coordinates.

    Args:
        sde: Dynamics with diagonal noise.
        x: States, shape (batch, *event).
        t: Time.
    """
    if is_per_trajectory(sde.diffusion(x, t), x):
        return None
    try:
        return 0.5 * sde.covariance_divergence(x, t)
    except MixedNoiseError:
        return None


@torch.no_grad()
def mixes(sde: SDE, x: State, t: Time) -> bool:
    """Return whether a g_i of diagonal noise depends on another coordinate than its own.

    By differences beside the states: where all start at one point a slope may be 0 that is not so
    elsewhere, as that of 1 + x² is at 0.

    Args:
        sde: Dynamics with diagonal noise.
        x: States, shape (batch, *event).
        t: Time.
    """
    if x[0].numel() < 2:
        return False
    if is_per_trajectory(sde.diffusion(x, t), x):
        return True

    def g(y: State) -> Tensor:
        return sde.diffusion(y, t)

    wide = in_double(x, g)
    number = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device)
    share = torch.frac(number * GOLDEN).reshape(x.shape).to(wide)
    # away from where coordinates are alike, or 0, where x₁ x₂ shows nothing; on two scales
    steps = (0.1 * wide.abs(), 0.1 * (1 + wide.abs()))
    return any(mixes_at(g, wide + step * share, step) for step in steps)


def noise_on_noise(sde: SDE, x: State, t: Time) -> Tensor:
    """Return S, shape (batch, *event, m, m), the last two for k and l.

    Args:
        sde: Dynamics whose noise is diagonal, with m one for each coordinate, or has channels.
        x: States, shape (batch, *event).
        t: Time.
    """
    check_not_general(sde, "the derivative of noise along noise")

    def matrix(y: State) -> Tensor:
        G = sde.diffusion(y, t).to(y)
        if sde.channels is not None:
            return G.expand(len(y), *G.shape[1:])
        flat = G.expand_as(y).flatten(1)
        return torch.diag_embed(flat).reshape(*y.shape, -1)

    _, along = directionals(matrix, x, lambda G: list(G.unbind(-1)))
    return torch.stack(along, -2)


def commute(S: Tensor) -> bool:
    """Return whether S is symmetric in its channels where it is finite, but for rounding."""
    S = S.detach()
    S = S[S.flatten(1).isfinite().all(1)]
    if len(S) == 0:
        return False
    gap = float((S - S.mT).abs().max())
    return gap <= _ROUNDING.get(S.dtype, _ROUNDING_SINGLE) * float(S.abs().max())


def commutes(sde: SDE, x: State, t: Time) -> bool:
    """Return whether the channels of the noise commute at some states.

    Args:
        sde: Dynamics whose noise is diagonal or has channels.
        x: States, shape (batch, *event); at special ones, such as where G is 0, noise commutes
            that does not elsewhere.
        t: Time.

    Raises:
        ValueError: If the noise is general.

    >>> from sdegen.core.ito_process import ItoProcess
    >>> scalar = ItoProcess(lambda x: -x, lambda x: x[..., None], channels=1)
    >>> commutes(scalar, torch.ones(1, 2), torch.tensor(0.0))
    True
    """
    if sde.noise != "multiplicative" or sde.channels == 1:
        return True
    if sde.noise_structure == "diagonal" and own_slope(sde, x, t) is not None:
        return True
    return commute(noise_on_noise(sde, x, t))


def check_noise_slope(sde: SDE, ends: State, t: Time) -> None:
    """Refuse a derivative of G that is not that of G, before a run that uses it.

    Args:
        sde: Dynamics whose noise is diagonal or has channels.
        ends: Two states, shape (2, *event); compared on the path between them.
        t: Time.

    Raises:
        ValueError: Where the derivatives along the path do not add up to the change of G.
    """
    if sde.noise != "multiplicative":
        return
    t = t.clone() if t.is_inference() else t
    if sde.channels is None and own_slope(sde, ends, t) is not None:
        check_slope(
            diffusivity(lambda y: sde.diffusion(y, t)),
            lambda y: 0.5 * sde.covariance_divergence(y, t),
            ends,
            name="g²/2",
            cure="If a part of g is hidden from autograd (.detach(), no_grad, NumPy), take it "
            "out, or pass diffusion_derivative= of ItoProcess; if g jumps, take EulerMaruyama().",
        )
        return
    check_directional(lambda y: sde.diffusion(y, t), ends)


def check_noise_alone(sde: SDE, orders: Orders, ends: State, t: Time) -> None:
    """Refuse noise that depends on other trajectories, for steps of an order above the update's.

    Args:
        sde: Dynamics.
        orders: Of the solver.
        ends: Two states, shape (2, *event).
        t: Time.

    Raises:
        ValueError: If G is another for a state among others than alone.
    """
    if sde.noise != "multiplicative" or sde.noise_structure == "general":
        return
    known = None if sde.channels is None else orders.channels
    weak, strong = known or orders.multiplicative or (1.0, 0.5)
    if weak > 1 or (strong or 0.0) > 0.5:
        check_alone(lambda y: sde.diffusion(y, t), ends)
