"""The score Fokker–Planck equation: a score that belongs to some initial law satisfies it.

With dX = f dt + G(x, t) dW the logarithm of the density obeys

    ∂_t log p = ½ (∇·(C s) + s·C s) − b·s − ∇·b,    s = ∇ log p,  C = G Gᵀ,  b = f − ½ ∇·C

and its gradient is an equation for s alone,

    ε(x, t) = ∂_t s − ∇[½ (∇·(C s) + s·C s) − b·s − ∇·b] = 0

A score that was learned at each t by itself need not satisfy it; ε, in units of the score over
time, is how far it is from doing so. ε = 0 says that s is the score of *some* law carried by the
SDE, not that it is that of the data.

Reference:
    Lai et al. 2023, FP-Diffusion, eq. (8), arXiv:2210.04296, for a scalar g(t).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise_structure import noise_field
from sdegen.core.requests import as_time, check_function, check_kind, check_state
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.slope_checks import check_seen


def fp_residual(score: ScoreFn, sde: SDE, x: State, t: Time) -> State:
    """Return how far a score is from satisfying the score Fokker–Planck equation.

        ε(x, t) = ∂_t s − ∇[½ (∇·(C s) + s·C s) − b·s − ∇·b],     C = G Gᵀ,  b = f − ½ ∇·C

    Args:
        score: s(x, t), twice differentiable in x and once in t by autograd.
        sde: Forward SDE with noise of any structure; autograd must see G(x, t).
        x: Where, shape (batch, *event); float64 is advised.
        t: When, shape () or (batch,).

    Returns:
        ε, same shape as x.

    Raises:
        TypeError: If x is not a tensor of floats.
        ValueError: If x has no batch axis, if the score, the drift or a multiplicative noise does
            not depend on x in a way that autograd sees, or the score on t; or if a diagonal g
            mixes coordinates.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=2**0.5)
        >>> x = torch.tensor([[1.0]], dtype=torch.float64)
        >>> variance = lambda t: 1 + torch.exp(-2 * t)  # of a start N(0, 2)
        >>> right, wrong = lambda x, t: -x / variance(t), lambda x, t: -x / (2 * variance(t))
        >>> t = torch.tensor(0.5)
        >>> [abs(sg.fp_residual(s, ou, x, t).item()) < 1e-9 for s in (right, wrong)]
        [True, False]
    """
    x = check_state(x, name="x")
    at = as_time(t).detach().to(x)
    check_equation(score, sde, x, at)
    # a time of its own for each state, as an oracle may keep what it knows of one number
    changing, spreading, drifting = equation_terms(score, sde, x, at.expand(len(x)))
    return changing - (spreading - drifting)


def check_equation(score: ScoreFn, sde: SDE, x: State, at: Tensor) -> None:
    """Refuse a score or an SDE for which autograd does not see what the equation asks for."""
    check_kind("sde", sde, SDE, "an SDE, such as VP(LinearBeta(0.1, 20.0))")
    check_function("score", score, "a function (x, t) -> ∇ log p_t(x), such as model.score")
    check_no_jumps(sde, "fp_residual")
    some = at if at.ndim == 0 else at[:4]
    check_seen(lambda z: score(z, some), x[:4], "score")
    check_seen(lambda z: sde.drift(z, some), x[:4], "drift")
    if sde.noise == "multiplicative":
        name, noise_of = noise_field(sde)
        check_seen(lambda z: noise_of(z, some), x[:4], name)


def equation_terms(
    score: ScoreFn, sde: SDE, x: State, t: Tensor, probe: State | None = None
) -> tuple[State, State, State]:
    """Return ∂_t s, ∇ ½ (∇·(C s) + s·C s) and ∇ (b·s + ∇·b), each of x's shape.

    Args:
        score: s(x, t).
        sde: Forward SDE.
        x: Where, shape (batch, *event).
        t: When, of x's dtype, shape () or (batch,).
        probe: v of signs, x's shape, for Hutchinson's ∇·F ≈ v·(∂F/∂x) v, of which the second and
            the third term are unbiased estimates; None: divergences are summed coordinate by
            coordinate, exactly.

    Raises:
        ValueError: If autograd does not see how the score depends on x or t.
    """
    with torch.inference_mode(False), torch.enable_grad():
        y = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        when = t.clone().requires_grad_()
        s, f = score(y, when), sde.drift(y, when)
        if not s.requires_grad:
            raise ValueError(
                "score must be differentiable by autograd, but what it returns has no graph; "
                "compute it from those x and t that it is given, not under no_grad."
            )
        b = f
        if sde.noise == "multiplicative":
            b = f - 0.5 * sde.covariance_divergence(y, when)
        spread, flat = sde.covariance_times(y, when, s, 0.5), s.flatten(1)
        spreading = _divergence(spread, y, probe) + (spread.flatten(1) * flat).sum(1)
        drifting = _divergence(b, y, probe) + (b.flatten(1) * flat).sum(1)
        gradients = [
            torch.autograd.grad(rate.sum(), y, retain_graph=True, materialize_grads=True)[0]
            for rate in (spreading, drifting)
        ]
        return _time_derivative(s, when), gradients[0].detach(), gradients[1].detach()


def _divergence(field: State, y: State, probe: State | None) -> Tensor:
    """Return ∇·F, shape (batch,), exactly or by a probe; 0 where F does not depend on y."""
    if not field.requires_grad:
        return torch.zeros(len(y), dtype=y.dtype, device=y.device)
    if probe is not None:
        (pulled,) = torch.autograd.grad(
            (field * probe).sum(), y, create_graph=True, materialize_grads=True
        )
        return (pulled * probe).flatten(1).sum(1)
    columns = []
    for i in range(field[0].numel()):
        (row,) = torch.autograd.grad(
            field.flatten(1)[:, i].sum(), y, create_graph=True, materialize_grads=True
        )
        columns.append(row.flatten(1)[:, i])
    return torch.stack(columns, 1).sum(1)


def _time_derivative(s: State, when: Tensor) -> State:
    """Return ∂_t s: the derivative by w of the derivative by t of w·s."""
    weights = torch.zeros_like(s, requires_grad=True)
    (rate,) = torch.autograd.grad(
        (weights * s).sum(), when, create_graph=True, retain_graph=True, allow_unused=True
    )
    if rate is None:
        raise ValueError(
            "score does not depend on t by autograd: compute it from the tensor t that it is "
            "given."
        )
    (slope,) = torch.autograd.grad(rate.sum(), weights)
    return slope
