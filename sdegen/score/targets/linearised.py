"""The linearised kernel: the score of a Gaussian that the drift's linear part makes of a window.

    p(x_t | x_s) ≈ N(m, Σ),     H = −Σ⁻¹ (X_t − m)
    m_{k+1} = m_k + h (f + ∇f (m_k − x_s) + (t_k − s) c),     c = ½ Σ_ij (M Mᵀ)_ij ∂_i ∂_j f
    Σ_{k+1} = (I + h ∇f) Σ_k (I + h ∇f)ᵀ + h M Mᵀ

f, ∇f and c are those at x_s, where the window begins; c, which no linear drift has, is how noise
and curvature move the mean. H takes 2 d passes of autograd a window, and none a step. It is
**approximate**: beyond the mean, what the curvature of f does within the window is missing; noise
is additive. Measured on f = x − x³, D = ½, 20,000 paths, windows of 0.18: the root mean square
error of a learned score is 0.13, and without c 0.24; of 0.09 it is 0.07.

Reference:
    Shoji and Ozaki 1998, Stoch. Anal. Appl. 16, 733; local denoising, arXiv:2407.07998.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.score.targets.base import Node, PathStep, Target

# x_s, ∇f, f, c; the time since s, m − x_s and Σ
Carried = tuple[Tensor, Tensor, Tensor, Tensor, float, Tensor, Tensor] | None


class LinearisedKernel(Target):
    """The target of a Gaussian kernel whose drift is linear about the window's beginning."""

    def begin(self, node: Node) -> Carried:
        """Return nothing: f is known where a step begins."""
        return None

    def advance(self, memory: Carried, step: PathStep) -> Carried:
        """Return mean and covariance after a step."""
        h = step.h
        if memory is None:
            x = step.before.x.flatten(1)
            J = _slopes(step)
            f = step.slopes.value.flatten(1)
            memory = x, J, f, _bend(step), 0.0, torch.zeros_like(x), torch.zeros_like(J)
        x, J, f, c, age, m, cov = memory
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        m = m + h * (f + (J @ m.unsqueeze(-1)).squeeze(-1) + age * c)
        F = eye + h * J
        one, t = step.before.x[:1], step.before.t
        noise = [step.sde.covariance_times(one, t, e.reshape(one.shape)).flatten() for e in eye]
        cov = F @ cov @ F.mT + h * torch.stack(noise)
        return x, J, f, c, age + h, m, cov

    def value(self, memory: Carried, node: Node) -> State:
        """Return −Σ⁻¹ (X_t − m)."""
        assert memory is not None
        x, _, _, _, _, m, cov = memory
        rest = (node.x.flatten(1) - x - m).unsqueeze(-1)
        solved: State = torch.linalg.solve(cov, rest).squeeze(-1).reshape(node.x.shape)
        return -solved


def _slopes(step: PathStep) -> Tensor:
    """Return ∇f where a step begins, shape (batch, d, d)."""
    x = step.before.x
    eye = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    rows = [step.slopes.pull(e.reshape(x.shape[1:]).expand_as(x)).flatten(1) for e in eye]
    return torch.stack(rows, 1)


def _bend(step: PathStep) -> Tensor:
    """Return ½ Σ_ij (M Mᵀ)_ij ∂_i ∂_j f where a step begins, shape (batch, d)."""
    x = step.before.x
    eye = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    columns = [step.before.frame.times(e.reshape(x.shape[1:]).expand_as(x)) for e in eye]
    bends = torch.stack([step.slopes.curve(v).flatten(1) for v in columns])
    return 0.5 * bends.sum(0)
