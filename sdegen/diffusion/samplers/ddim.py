"""DDIM: the update in the scaled state, on the clock of the noise-to-signal ratio."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.fixed_steps import FixedStep, to_floats
from sdegen.core.kernel import ReverseStructure
from sdegen.core.noise import Noise
from sdegen.core.scores import DenoisingScore, ScoreAt, check_tells_x0
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory
from sdegen.core.update import diffuse, update
from sdegen.diffusion.samplers.adams_coefficients import Coefficients
from sdegen.diffusion.samplers.base import DiffusionSolver
from sdegen.diffusion.samplers.modal import LEAST_LOG, ModalMemory, begin_modes, step_modes

_Coefficients = tuple[Any, Any, Any]  # of x, of the score and of the noise in a step


@dataclass(frozen=True)
class DDIM(DiffusionSolver, FixedStep):
    """Denoising diffusion implicit steps: the update in y = x/α on the clock λ = σ/α.

        y_s = y + (√(λ_s² − η² v) − λ_t) ε̂ + η √v z
        v = (λ_s/λ_t)² (λ_t² − λ_s²),     ε̂ = −σ_t score(x, t)

    Scores and z have the shape (batch, *event) of x. η is that of the `ReverseSDE`: 0 is the Euler
    map of the probability flow in λ, 1 is DDPM's ancestral step. The linear part of the dynamics
    is solved exactly, the score alone is frozen over a step: one evaluation. Where no signal is
    left, λ_t = ∞ (`ZeroTerminalSNR`), the step is its limit, x_s = α_s x̂0 + σ_s (√(1 − η²) x/σ_t
    + η z), by a score that tells x̂0.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Song, Meng and Ermon 2021, eqs. (12) and (16), arXiv:2010.02502.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> sg.simulate(flow, x_T, [3.0, 1.0], solver=sg.DDIM()).final.item()  # 10 − (3 − 1) 3
        4.0
    """

    takes_modes: ClassVar[bool] = True
    takes_no_signal: ClassVar[bool] = True
    largest_eta: ClassVar[float | None] = 1.0
    orders: ClassVar[Orders] = Orders(flow=1, additive=(1, 1), multiplicative=None)
    evaluations: ClassVar[int] = 1
    when: ClassVar[str] = "Samples of a score at any η from 0 to 1, in some 50 steps or more."

    def begin(self, sde: SDE, nodes: Tensor) -> tuple[ScoreAt, list[_Coefficients]] | ModalMemory:
        """Multiply out the update in y: x_s = (α_s/α_t) x + α_s (√… − λ_t) ε̂ + α_s η√v z."""
        of_modes = None if sde.denoising is None else self.modes(sde.denoising)
        if sde.denoising is not None and of_modes is not None:
            table = _of_modes(of_modes, sde.denoising.eta, nodes)
            return begin_modes(sde.denoising, of_modes, nodes, table)
        inner, kernel = self.reversal(sde)
        alpha, sigma = kernel.alpha(nodes), kernel.sigma(nodes)
        if float(alpha[0].detach()) == 0:
            check_tells_x0(inner.score, "DDIM")
            at, rest = self._begin(inner, nodes[1:], alpha[1:], sigma[1:])
            keep = sigma[1] * (1 - inner.eta**2) ** 0.5 / sigma[0]
            first = to_floats(torch.stack([keep, alpha[1], inner.eta * sigma[1]]))
            score = cast(DenoisingScore, inner.score)
            return lambda x, i: score.x0(x, nodes[0]) if i == 0 else at(x, i - 1), [
                (first[0], first[1], first[2]),
                *rest,
            ]
        return self._begin(inner, nodes, alpha, sigma)

    def _begin(
        self, inner: ReverseStructure, nodes: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[ScoreAt, list[_Coefficients]]:
        """Return the score along the nodes, and coefficients of steps between levels of signal."""
        lam = sigma / alpha
        now, then = lam[:-1], lam[1:]
        v = (then / now) ** 2 * (now - then) * (now + then)
        # λ_s² − v ≥ 0 but for rounding
        residual_std = torch.sqrt((then.square() - inner.eta**2 * v).clamp(min=0.0))
        scales = to_floats(alpha[1:] / alpha[:-1])
        weights = to_floats(-alpha[1:] * sigma[:-1] * (residual_std - now))
        noises = to_floats(alpha[1:] * inner.eta * torch.sqrt(v.abs()))
        return inner.along(nodes), list(zip(scales, weights, noises, strict=True))

    def step(
        self,
        sde: SDE,
        x: State,
        i: int,
        noise: Noise | None,
        memory: tuple[ScoreAt, list[_Coefficients]] | ModalMemory,
    ) -> tuple[State, Memory]:
        """Take the update of the scaled state along the score."""
        if isinstance(memory, ModalMemory):
            return step_modes(x, i, noise, memory)
        score, coefficients = memory
        scale, weight, width = coefficients[i]
        after = update(scale * x, score(x, i), weight)
        return diffuse(after, None if noise is None else noise.normal(), width), memory


def _of_modes(kernel: DiagonalKernel, eta: float, nodes: Tensor) -> Coefficients:
    """Return the update's coefficients in each mode, written so that no λ of a lost mode is asked.

    With ρ = λ_s/λ_t they are α_s/α_t, −σ_t (σ_s √(1 − η² (1 − ρ²)) − (α_s/α_t) σ_t) and
    η σ_s √(1 − ρ²).
    """
    log_alpha = kernel.alpha(nodes).log().clamp(min=LEAST_LOG)
    sigma = kernel.sigma(nodes)
    sigma = sigma.reshape(len(sigma), *(1,) * (log_alpha.ndim - sigma.ndim), *sigma.shape[1:])
    growth = (log_alpha[1:] - log_alpha[:-1]).exp()
    square = (sigma[1:] / sigma[:-1] / growth).square()
    residual_std = sigma[1:] * (1 - eta**2 * (1 - square)).clamp(min=0.0).sqrt()
    weights = -sigma[:-1] * (residual_std - growth * sigma[:-1])
    noises = eta * sigma[1:] * (1 - square).clamp(min=0.0).sqrt()
    return Coefficients(growth, torch.zeros_like(growth)[:, None], weights[:, None], noises)
