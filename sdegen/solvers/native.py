"""The native methods: Euler-Maruyama, Heun, DDIM, and the Langevin predictor-corrector.

Each is an arrangement of `update`. Orders: Euler-Maruyama converges weakly with 1, strongly with ½
(1 where the noise is additive), on an ODE with 1; Heun with 2 on an ODE and on additive noise
weakly with 2 (strongly with 1); DDIM with 1 in its own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import check_count
from sdegen.core.scores import ScoreAt
from sdegen.noise import Noise
from sdegen.sde.base import SDE
from sdegen.shapes import ScoreFn, State
from sdegen.solvers.base import FixedStep, Interval, Memory, Orders, check_predictor
from sdegen.solvers.diffusion import DiffusionSolver
from sdegen.solvers.onestep import OneStep
from sdegen.step import diffuse, to_floats, update

_Coefficients = tuple[Any, Any, Any]  # of x, of the score and of the noise in a step
_ROOT_TWO = torch.tensor(2.0, dtype=torch.float64).sqrt()

__all__ = ["DDIM", "EulerMaruyama", "Heun", "PredictorCorrector"]


@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """The update itself: x + dt f(x, t) + √|dt| g(x, t) z. One evaluation a step.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Kloeden and Platen 1992, eq. (10.2.4); weak order 1, strong order ½ (1 for additive noise).
    """

    supports_discrete: ClassVar[bool] = True
    is_update: ClassVar[bool] = True
    orders: ClassVar[Orders] = Orders(flow=1, additive=(1, 1), multiplicative=(1, 0.5))
    evaluations: ClassVar[int] = 1

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take the update, x + dt f, to which the SDE adds its noise."""
        t, _, dt, root_dt = memory[i]
        after = update(x, sde.drift(x, t), dt)
        if noise is not None:
            after = sde.add_noise(after, x, t, root_dt, noise)
        return after, memory


@dataclass(frozen=True)
class Heun(OneStep):
    """The trapezoidal rule on the update, for flows and additive noise. Two evaluations a step.

    x̃ = x + dt f(x, t) + √|dt| g(t) z
    x' = x + ½ dt [f(x, t) + f(x̃, s)] + √|dt| ½ [g(t) + g(s)] z

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Kloeden and Platen 1992, eq. (15.1.1) for additive noise; with z = 0 Heun's explicit
        trapezoidal rule.
    """

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse multiplicative noise, which the average would read as Stratonovich."""
        super().check(sde, nodes)
        if sde.noise == "multiplicative":
            raise ValueError(
                "Heun averages g over a step and, with g(x, t), would solve the Stratonovich "
                "equation; dynamics are Itô here: use EulerMaruyama() or TorchSDE('milstein'), or "
                "noise='additive' if g depends on t alone."
            )

    orders: ClassVar[Orders] = Orders(flow=2, additive=(2, 1), multiplicative=None)
    evaluations: ClassVar[int] = 2

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Predict with the update, then take it with the averages; one draw serves both."""
        t, s, dt, root_dt = memory[i]
        f = sde.drift(x, t)
        z, sigma = None if noise is None else noise.normal(), sde.constant_noise
        g = sde.diffusion(x, t) if sigma is None else sigma
        ahead = diffuse(update(x, f, dt), z, root_dt, g)
        f = 0.5 * (f + sde.drift(ahead, s))
        g = 0.5 * (g + sde.diffusion(ahead, s)) if sigma is None else sigma
        return diffuse(update(x, f, dt), z, root_dt, g), memory


@dataclass(frozen=True)
class DDIM(DiffusionSolver, FixedStep):
    """Denoising diffusion implicit steps: the update in y = x/α on the clock λ = σ/α.

    y_s = y + (√(λ_s² − η² v) − λ_t) ε̂ + η √v z
    v = (λ_s/λ_t)² (λ_t² − λ_s²),     ε̂ = −σ_t score(x, t)

    η is that of the `ReverseSDE`: 0 is the Euler map of the probability flow in λ, 1 is DDPM's
    ancestral step. The linear part of the dynamics is solved exactly, the score alone is frozen
    over a step: one evaluation.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Song, Meng and Ermon 2021, eqs. (12) and (16), arXiv:2010.02502.
    """

    largest_eta: ClassVar[float | None] = 1.0
    orders: ClassVar[Orders] = Orders(flow=1, additive=(1, 1), multiplicative=None)
    evaluations: ClassVar[int] = 1

    def begin(self, sde: SDE, nodes: Tensor) -> tuple[ScoreAt, list[_Coefficients]]:
        """Multiply out the update in y: x_s = (α_s/α_t) x + α_s (√… − λ_t) ε̂ + α_s η√v z."""
        inner = self.reversal(sde)
        score = inner.along(nodes)
        alpha, sigma = inner.kernel.alpha(nodes), inner.kernel.sigma(nodes)
        lam = sigma / alpha
        now, then = lam[:-1], lam[1:]
        v = (then / now) ** 2 * (now - then) * (now + then)
        # λ_s² − v ≥ 0 but for rounding
        kept = torch.sqrt((then.square() - inner.eta**2 * v).clamp(min=0.0))
        scales = to_floats(alpha[1:] / alpha[:-1])
        weights = to_floats(-alpha[1:] * sigma[:-1] * (kept - now))
        noises = to_floats(alpha[1:] * inner.eta * torch.sqrt(v.abs()))
        return score, list(zip(scales, weights, noises, strict=True))

    def step(
        self,
        sde: SDE,
        x: State,
        i: int,
        noise: Noise | None,
        memory: tuple[ScoreAt, list[_Coefficients]],
    ) -> tuple[State, Memory]:
        """Take the update of the scaled state along the score."""
        score, coefficients = memory
        scale, weight, width = coefficients[i]
        after = update(scale * x, score(x, i), weight)
        return diffuse(after, None if noise is None else noise.normal(), width), memory


@dataclass(frozen=True)
class PredictorCorrector(FixedStep):
    """A predictor, then Langevin steps in the marginal that it reached, as corrector.

    corrector: x ← x + h score(x, s) + √(2h) z,   h = 2 α_s² (r |z|/|score|)²

    |·| is the mean norm of the trajectories of a block that are finite.

    Args:
        substeps: Equal steps between any two of the times.
        corrector_steps: Langevin steps after each predictor step.
        snr: r, the signal-to-noise ratio of a corrector step, in (0, 1).
        predictor: Takes the step, with the noise that η says; EulerMaruyama() by default.

    Raises:
        TypeError: If corrector_steps is not an int, or predictor not a solver of fixed steps.
        ValueError: If a number is out of range, or the predictor has substeps or ends with a
            denoised state.

    Reference:
        Song et al. 2021, algorithms 2, 4 and 5, arXiv:2011.13456.
    """

    corrector_steps: int = 1
    snr: float = 0.16
    predictor: FixedStep = field(default_factory=EulerMaruyama, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_predictor(self.predictor)
        check_count("corrector_steps", self.corrector_steps)
        if not 0 < self.snr < 1:
            raise ValueError(f"snr must lie in (0, 1), but is {self.snr:g}.")

    def is_stochastic(self, sde: SDE) -> bool:
        """Return True: the corrector draws noise."""
        return True

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics without a score, and all that the predictor refuses."""
        super().check(sde, nodes)
        self.predictor.check(sde, nodes)
        if sde.denoising is None:
            raise ValueError(
                "PredictorCorrector needs a score, which its corrector asks: pass "
                f"ReverseSDE(sde, score, eta), not {type(sde).__name__}."
            )

    @property
    def evaluations(self) -> int | None:  # type: ignore[override]
        """Of the score in a step: the predictor's, and one for each corrector step."""
        of_predictor = self.predictor.evaluations
        return None if of_predictor is None else of_predictor + self.corrector_steps

    def begin(self, sde: SDE, nodes: Tensor) -> _Corrected:
        """Return the predictor's memory, the times, and what the corrector asks at them."""
        inner = sde.denoising
        assert inner is not None  # check() saw to it
        alpha = inner.kernel.alpha if inner.kernel else torch.ones_like
        of_predictor = self.predictor.begin(sde, nodes)
        return _Corrected(of_predictor, nodes.unbind(), inner.score, alpha)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Corrected
    ) -> tuple[State, _Corrected]:
        """Take one predictor step, then corrector_steps of Langevin dynamics, each an `update`."""
        assert noise is not None  # is_stochastic() saw to it
        heard = noise if self.predictor.is_stochastic(sde) else None
        x, of_predictor = self.predictor.step(sde, x, i, heard, memory.of_predictor)
        s = memory.ts[i + 1]
        alpha = memory.alpha(s)
        for _ in range(self.corrector_steps):
            z, grad = noise.normal(), memory.score(x, s)
            h = 2 * alpha**2 * (self.snr * _mean_norm(z) / _mean_norm(grad)) ** 2
            x = diffuse(update(x, grad, h), z, h.abs().sqrt(), _ROOT_TWO)
        return x, memory._replace(of_predictor=of_predictor)


class _Corrected(NamedTuple):
    """The predictor's memory, the times of nodes, the score, and α of a time."""

    of_predictor: Memory
    ts: Sequence[Tensor]
    score: ScoreFn
    alpha: Callable[[Tensor], Tensor]


def _mean_norm(x: State) -> Tensor:
    """Return the mean norm of the finite trajectories: a diverged one must not stop all."""
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return torch.where(norms.isfinite(), norms, torch.nan).nanmean()
