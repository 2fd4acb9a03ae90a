"""Which target an SDE has, where nothing is said, and which of them it may have.

    "reverse-flow"   noise is additive, or diagonal g_i(x_i), and autograd sees the drift
    "malliavin"      noise is a matrix G(x), or a g that mixes coordinates; autograd sees the drift
    "one-step"       autograd does not see the drift

The kinds that are not chosen may be asked for, where the dynamics have them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from sdegen.core.derivatives import MixedNoiseError
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise_structure import check_not_general
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.score.targets.base import Target
from sdegen.score.targets.frames import frame_of
from sdegen.score.targets.linearised import LinearisedKernel
from sdegen.score.targets.malliavin import ForwardFlow
from sdegen.score.targets.one_step import OneStepKernel
from sdegen.score.targets.reverse_flow import ReverseFlow
from sdegen.score.targets.slopes import Slopes
from sdegen.score.targets.windows import Windowed

TargetKind = Literal["one-step", "linearised", "malliavin", "reverse-flow"]
_APART = {torch.float32: 0.05, torch.float64: 1e-3}  # of a slope and its difference quotient
_NARROW = 1e-3  # of its size, below which the width of a law is none
_REACH = {torch.float32: 2.0**-7, torch.float64: 2.0**-12}


def check_simulable(sde: SDE, name: str) -> None:
    """Refuse dynamics whose paths have no density that a target could differentiate.

    Args:
        sde: What would be simulated.
        name: What asks.

    Raises:
        ValueError: Naming both.
    """
    kind = type(sde).__name__
    if sde.noise == "none":
        raise ValueError(
            f"{name} learns from noise, but this {kind} has none; give it a diffusion > 0."
        )
    if sde.is_discrete or sde.direction != 1:
        raise ValueError(
            f"{name} is for a forward SDE, whose steps may be made smaller, but {kind} is "
            f"{'a Markov chain' if sde.is_discrete else 'a reverse process'}."
        )
    check_no_jumps(sde, name)
    check_not_general(sde, name)


def kind_for(sde: SDE, x: State, t: torch.Tensor) -> TargetKind:
    """Return the kind of target that an SDE has where nothing is said: the table of this page.

    Args:
        sde: Dynamics that are simulable.
        x: Some states, shape (batch, *event).
        t: Time, 0-d.
    """
    if not _is_seen(sde, x, t):
        return "one-step"
    return "reverse-flow" if _has_coordinates(sde, x, t) else "malliavin"


def target_of(sde: SDE, kind: TargetKind, window: float, x: State, t: torch.Tensor) -> Target:
    """Return a target, or refuse one that the dynamics do not have.

    Args:
        sde: Dynamics that are simulable.
        kind: Which.
        window: w; infinite for whole paths, which "reverse-flow" alone takes.
        x: Some states, shape (batch, *event).
        t: Time, 0-d.

    Raises:
        ValueError: If noise is singular, if a drift is not differentiable where slopes are needed,
            if noise is not what the kind is for.
    """
    frame_of(sde, x, t)
    if kind == "one-step":
        return OneStepKernel()
    if not _is_seen(sde, x, t):
        raise ValueError(
            f"TransitionMatching(kind={kind!r}) takes derivatives of the drift by autograd, which "
            f"does not see that of this {type(sde).__name__}, or not all of it: take .detach(), "
            "no_grad and NumPy out of it, or pass kind='one-step', which needs no derivative."
        )
    if kind == "linearised":
        if sde.noise == "multiplicative":
            raise ValueError(
                "TransitionMatching(kind='linearised') has a Gaussian kernel, of additive noise, "
                f"but the noise of this {type(sde).__name__} is multiplicative; leave kind out, "
                "or pass 'malliavin' or 'one-step'."
            )
        return Windowed(LinearisedKernel(), window)
    if kind == "malliavin":
        return Windowed(ForwardFlow(), window)
    if not _has_coordinates(sde, x, t):
        raise ValueError(
            "TransitionMatching(kind='reverse-flow') is for additive noise, or for a diagonal "
            f"g_i(x_i), but G of this {type(sde).__name__} is a matrix, or mixes coordinates; "
            "leave kind out, or pass 'malliavin' or 'one-step'."
        )
    return ReverseFlow(window)


def rate_of(sde: SDE, x: State, t: torch.Tensor) -> float:
    """Return how fast the drift changes, √(E|∇f ε|²/E|ε|²) over some states, by differences."""
    step = _REACH.get(x.dtype, _REACH[torch.float32])
    size, far = x.std(), x.square().mean().sqrt()
    size = torch.where(size > _NARROW * far, size, far)  # beside x, less would be rounding
    eps = step * size.clamp_min(1e-6) * torch.ones_like(x)
    signs = torch.arange(x.numel(), device=x.device).reshape(x.shape)
    eps = torch.where((signs * 0.6180339887498949) % 1 < 0.5, eps, -eps)
    with torch.no_grad():
        apart = (sde.drift(x + eps, t) - sde.drift(x - eps, t)) / 2
    rate = float(apart.double().square().mean().sqrt() / eps.double().square().mean().sqrt())
    return rate if math.isfinite(rate) else 0.0


def _is_seen(sde: SDE, x: State, t: torch.Tensor) -> bool:
    """Return whether autograd's slope of the drift is that of its differences."""
    x = x[:64]
    step = _REACH.get(x.dtype, _REACH[torch.float32]) * x.std(correction=0).clamp_min(1e-3)
    v = torch.ones_like(x)
    with torch.no_grad():
        quotient = (sde.drift(x + step * v, t) - sde.drift(x - step * v, t)) / (2 * step)
    slope = Slopes(lambda y: sde.drift(y, t), x).push(v)
    size = quotient.abs().mean() + slope.abs().mean()
    rounding = torch.finfo(x.dtype).eps * sde.drift(x, t).detach().abs().mean() / step
    apart = (quotient - slope).abs().median()
    return bool(apart <= _APART.get(x.dtype, 0.05) * size + 10 * rounding)


def _has_coordinates(sde: SDE, x: State, t: torch.Tensor) -> bool:
    """Return whether noise coordinates exist: y with dy = φ dt + dW."""
    if sde.noise == "additive" or x[0].numel() == 1:
        return True
    if sde.channels is not None:
        return False
    try:
        sde.covariance_divergence(x[:2], t)
    except MixedNoiseError:
        return False
    g = sde.diffusion(x[:2], t)
    return g.shape[1:] == x.shape[1:]
