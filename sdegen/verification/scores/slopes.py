"""What the slopes of a score say of it: curl, and the score Fokker–Planck equation.

A score is a gradient, so that its Jacobian J is symmetric. With u, v ~ N(0, I)

    E (u·J v − v·J u)² = ‖J − Jᵀ‖²,     E |Jᵀ u|² = ‖J‖²        (Frobenius)

and the share of the antisymmetric part, ‖½ (J − Jᵀ)‖/‖J‖, is 0 of a gradient, to rounding, and 1
of a rotation. How far a score is from its equation, ε of `fp_residual`, is measured in units of
the root of the summed squares of the equation's three terms. Where there are many coordinates the
divergences in it are estimated by signs, two independent ones for each state, whose product has
the mean |ε|².

Reference:
    Hutchinson 1990, Commun. Stat. Simul. Comput. 19, 433; Lai et al. 2023, eq. (8),
    arXiv:2210.04296.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.noise import Stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.slope_checks import check_seen
from sdegen.verification.residual import check_equation, equation_terms

_EXACT = 16  # coordinates up to which divergences are summed one by one


def antisymmetry(
    score: ScoreFn, x: State, t: Tensor, first: int, source: Stream
) -> tuple[Tensor, Tensor]:
    """Return estimates of ‖½ (J − Jᵀ)‖² and ‖J‖² at each state, float64, shapes (n,).

    Args:
        score: Seen by autograd.
        x: States, shape (n, *event).
        t: When, 0-d.
        first: The first of a state's numbers whose score is asked for.
        source: Of the directions.

    Raises:
        ValueError: If autograd does not see how the score depends on x.
    """
    check_seen(lambda y: score(y, t), x[:4], "score")
    directions = source.normal((2, *x.shape), dtype=torch.float64).flatten(2)
    directions[..., :first] = 0
    u, v = directions.reshape(2, *x.shape).to(x)
    with torch.inference_mode(False), torch.enable_grad():
        y = x.detach().clone().requires_grad_()
        s = score(y, t)
        rows = [
            torch.autograd.grad(s, y, side, retain_graph=True, materialize_grads=True)[0]
            for side in (u, v)
        ]
    pulled = torch.stack(rows).flatten(2).double()
    pulled[..., :first] = 0
    w = directions.to(pulled)
    turned = (w[1] * pulled[0]).sum(1) - (w[0] * pulled[1]).sum(1)
    return (0.25 * turned.square()).cpu(), pulled.square().sum(2).mean(0).cpu()


def equation_gap(
    score: ScoreFn, sde: SDE, x: State, t: Tensor, source: Stream
) -> tuple[Tensor, Tensor]:
    """Return |ε|² and the summed squares of the equation's terms at each state, shapes (n,).

    Of many coordinates they are unbiased estimates, which may be negative.

    Args:
        score: Seen by autograd, in x and in t.
        sde: Forward SDE.
        x: States, shape (n, *event).
        t: When, 0-d.
        source: Of the signs.

    Raises:
        ValueError: As `fp_residual` does.
    """
    at = t.to(x)
    check_equation(score, sde, x, at)
    at = at.expand(len(x)) if _takes_times(score, x, at) else at
    if x[0].numel() <= _EXACT:
        terms = equation_terms(score, sde, x, at)
        pairs = [terms, terms]
    else:
        signs = source.normal((2, *x.shape), dtype=torch.float64).sign().to(x)
        pairs = [equation_terms(score, sde, x, at, v) for v in signs]
    gaps = [changing - (spreading - drifting) for changing, spreading, drifting in pairs]
    gap = _dot(gaps[0], gaps[1])
    size = sum((_dot(a, b) for a, b in zip(*pairs, strict=True)), torch.zeros_like(gap))
    return gap, size


def _takes_times(score: ScoreFn, x: State, t: Tensor) -> bool:
    """Return whether a score takes a time for each state, which its user may not have built."""
    rows = x[: x.shape[-1] + 1]  # as many as no axis that a time could meet by mistake
    try:
        with torch.no_grad():
            each, one = score(rows, t.expand(len(rows))), score(rows, t)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    return each.shape == one.shape and torch.allclose(each, one, rtol=1e-4)


def _dot(a: State, b: State) -> Tensor:
    """Return the inner product of two fields at each state, float64, shape (n,)."""
    return (a.double() * b.double()).flatten(1).sum(1).cpu()
