"""The Malliavin weight of Bismut: the path moves along the linearised forward flow.

The field (`base.py`) is v_k = (τ_k/τ_n) Y_k Y_n⁻¹ e, τ the time since the window began, Y_{k+1} =
J_k Y_k the Jacobian of the chain's steps at fixed noise, J = I + h ∇f + √h ∇(M z):

    H = −Y_n⁻ᵀ (1/τ_n) Σ_k [ Y_{k+1}ᵀ M_k⁻ᵀ √h z_k + τ_k Y_kᵀ ∇_x log |det J_k| ]

which of additive noise is −Y⁻ᵀ [(1/w) ∫ Yᵀ G⁻ᵀ dW + ∫ A_s Yᵀ ∇(∇·f) ds]. It holds for every
invertible M(x), commuting or not: the terms of ∂M beside log det J cancel. One recursion carries
it, c_{k+1} = J⁻ᵀ (c_k + τ_k ∇ log |det J|) + √h M⁻ᵀ z, H = −c_n/τ_n.

Each step takes the whole of J, d passes of autograd, and one more for the determinant. Where the
flow contracts, J⁻ᵀ grows, and with it the variance: windows are short, 0.2 to 0.5 of 1/|∇f|.

Reference:
    Bismut 1984; Elworthy and Li 1994, theorem 2.1; in the notation of Malliavin calculus, for
    scores, arXiv:2503.16917.
"""

from __future__ import annotations

import torch

from sdegen.core.shapes import State
from sdegen.score.targets.base import Node, PathStep, Target
from sdegen.score.targets.frames import frame_of

Carried = tuple[State, float]  # c and τ


class ForwardFlow(Target):
    """The target of a field that follows the forward flow; of any invertible noise."""

    def begin(self, node: Node) -> Carried:
        """Return c = 0, of no time."""
        return torch.zeros_like(node.x), 0.0

    def advance(self, memory: Carried, step: PathStep) -> Carried:
        """Return c after a step."""
        c, age = memory
        J, slope = _jacobian(step)
        inner = (c + age * slope).flatten(1)
        moved = torch.linalg.solve(J.mT, inner.unsqueeze(-1)).squeeze(-1).reshape(c.shape)
        kick = step.before.frame.inverse_transposed_times(step.z)
        return moved + step.root * kick, age + step.h

    def value(self, memory: Carried, node: Node) -> State:
        """Return −c/τ."""
        return -memory[0] / memory[1]


def _jacobian(step: PathStep) -> tuple[torch.Tensor, State]:
    """Return J, shape (batch, d, d), and ∇ log |det J|, shape of x, at the noise of a step."""
    sde, t, h = step.sde, step.before.t, step.h
    with torch.enable_grad():
        x = step.before.x.detach().requires_grad_()
        moved = x + h * sde.drift(x, t)
        if sde.noise == "multiplicative":
            moved = moved + step.root * frame_of(sde, x, t).times(step.z)
        rows = [
            torch.autograd.grad(one.sum(), x, create_graph=True)[0].flatten(1)
            for one in moved.flatten(1).unbind(1)
        ]
        J = torch.stack(rows, 1)
        if not J.requires_grad:
            return J.detach(), torch.zeros_like(x)
        size = J[:, 0, 0].abs().log() if J.shape[1] == 1 else torch.linalg.slogdet(J)[1]
        (slope,) = torch.autograd.grad(size.sum(), x, allow_unused=True)
    return J.detach(), torch.zeros_like(x) if slope is None else slope
