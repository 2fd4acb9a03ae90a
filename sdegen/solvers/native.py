"""The native methods: Euler-Maruyama, Heun, DDIM, and the Langevin predictor-corrector.

Each is an arrangement of `update`. Orders: Euler-Maruyama converges weakly with 1, strongly with ½
(1 where the noise is additive), on an ODE with 1; Heun with 2 on an ODE and on additive noise
weakly with 2 (strongly with 1); DDIM with 1 in its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.checks import check_count
from sdegen.sde.base import SDE
from sdegen.shapes import State
from sdegen.solvers.base import Draw, FixedStep, Step, check_predictor
from sdegen.solvers.onestep import Move, Number, OneStep, times_of
from sdegen.step import moved, numbers, update

__all__ = ["DDIM", "EulerMaruyama", "Heun", "PredictorCorrector"]


@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """The update itself: x + dt f(x, t) + √|dt| g(x, t) z. One evaluation a step.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Kloeden and Platen 1992, eq. (10.2.4); weak order 1, strong order ½ (1 for additive noise).
    """

    clocks: ClassVar[tuple[str, ...]] = ("continuous", "integer")
    is_update: ClassVar[bool] = True

    def mover(self, sde: SDE) -> Move:
        """The update, x ← update(x, f, g, dt, z)."""
        drift, diffusion, sigma = sde.drift, sde.diffusion, sde.constant_noise

        def move(
            x: State, t: Tensor, s: Tensor, dt: Number, root: Number, z: State | None
        ) -> State:
            g = diffusion(x, t) if sigma is None else sigma
            return update(x, drift(x, t), g, dt, z, root=root)

        return move

    def stepper(self, sde: SDE, nodes: Tensor) -> Step:
        """One move; where the noise is one number, with √|dt| g multiplied out beforehand."""
        sigma = sde.constant_noise
        if sigma is None or nodes.requires_grad or type(self) is not EulerMaruyama:
            return super().stepper(sde, nodes)
        drift, dts, ts = sde.drift, nodes.diff(), times_of(sde, nodes)
        lengths, scales = numbers(dts), numbers(sigma * dts.abs().sqrt())

        def step(i: int, x: State, draw: Draw) -> State:
            return moved(x, drift(x, ts[i]), lengths[i], draw(), scales[i])

        return step


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
        """Refuses multiplicative noise, which the average would read as Stratonovich."""
        super().check(sde, nodes)
        if sde.noise == "multiplicative":
            raise ValueError(
                "Heun averages g over a step and, with g(x, t), would solve the Stratonovich "
                "equation; dynamics are Itô here: use EulerMaruyama() or TorchSDE('milstein'), or "
                "noise='additive' if g depends on t alone."
            )

    def mover(self, sde: SDE) -> Move:
        """Predict with the update, then take it with the averages."""
        drift, diffusion, sigma = sde.drift, sde.diffusion, sde.constant_noise

        def move(
            x: State, t: Tensor, s: Tensor, dt: Number, root: Number, z: State | None
        ) -> State:
            f = drift(x, t)
            g = diffusion(x, t) if sigma is None else sigma
            ahead = update(x, f, g, dt, z, root=root)
            f = 0.5 * (f + drift(ahead, s))
            g = 0.5 * (g + diffusion(ahead, s)) if sigma is None else sigma
            return update(x, f, g, dt, z, root=root)

        return move


@dataclass(frozen=True)
class DDIM(FixedStep):
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

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuses dynamics other than the ReverseSDE of a LinearSDE, and η > 1."""
        super().check(sde, nodes)
        if sde.denoising is None or sde.denoising.kernel is None:
            raise ValueError(
                "DDIM needs the α and σ of a kernel: pass ReverseSDE(linear_sde, score, eta), "
                f"not {type(sde).__name__}."
            )
        if sde.denoising.eta > 1:
            raise ValueError(f"DDIM needs 0 ≤ eta ≤ 1, but eta is {sde.denoising.eta:g}.")

    def stepper(self, sde: SDE, nodes: Tensor) -> Step:
        """The update in y, multiplied out: x_s = (α_s/α_t) x + α_s (√… − λ_t) ε̂ + α_s η√v z."""
        inner = sde.denoising
        assert inner is not None  # check() saw to it
        assert inner.kernel is not None
        score, eta = inner.along(nodes), inner.eta
        alpha, sigma = inner.kernel.alpha(nodes), inner.kernel.sigma(nodes)
        lam = sigma / alpha
        now, then = lam[:-1], lam[1:]
        v = (then / now) ** 2 * (now - then) * (now + then)
        # λ_s² − v ≥ 0 but for rounding
        kept = torch.sqrt((then.square() - eta**2 * v).clamp(min=0.0))
        scales = numbers(alpha[1:] / alpha[:-1])
        weights = numbers(-alpha[1:] * sigma[:-1] * (kept - now))
        noises = numbers(alpha[1:] * eta * torch.sqrt(v.abs()))
        one = 1.0 if isinstance(weights[0], float) else torch.ones_like(alpha[0])

        def step(i: int, x: State, draw: Draw) -> State:
            return update(scales[i] * x, score(x, i), noises[i], weights[i], draw(), root=one)

        return step


@dataclass(frozen=True)
class PredictorCorrector(FixedStep):
    """A predictor, then Langevin steps in the marginal that it reached, as corrector.

    corrector: x ← x + h score(x, s) + √(2h) z,   h = 2 α_s² (r |z|/|score|)²

    |·| is the mean norm of the trajectories of a block that are finite.

    Args:
        substeps: Equal steps between any two of the times.
        corrector_steps: Langevin steps after each predictor step.
        snr: r, the signal-to-noise ratio of a corrector step, in (0, 1).
        predictor: Takes the step, with the noise that η says; EulerMaruyama() unless said.

    Raises:
        TypeError: If corrector_steps is no int, or predictor no solver of fixed steps.
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

    def draws(self, sde: SDE) -> bool:
        """Always: the corrector does."""
        return True

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuses dynamics without a score, and what the predictor refuses."""
        super().check(sde, nodes)
        self.predictor.check(sde, nodes)
        if sde.denoising is None:
            raise ValueError(
                "PredictorCorrector needs a score, which its corrector asks: pass "
                f"ReverseSDE(sde, score, eta), not {type(sde).__name__}."
            )

    def stepper(self, sde: SDE, nodes: Tensor) -> Step:
        """One predictor step, then corrector_steps of Langevin dynamics, each an `update`."""
        predict, quiet = self.predictor.stepper(sde, nodes), not self.predictor.draws(sde)
        inner = sde.denoising
        assert inner is not None  # check() saw to it
        score, root_two = inner.score, torch.tensor(2.0, dtype=torch.float64).sqrt()
        alpha = inner.kernel.alpha if inner.kernel else torch.ones_like
        ts = nodes.unbind()

        def norm(x: State) -> Tensor:
            norms = torch.linalg.vector_norm(x.flatten(1), dim=1)
            # one lost trajectory must not stop the others: h would be NaN for all of them
            return torch.where(norms.isfinite(), norms, torch.nan).nanmean()

        def step(i: int, x: State, draw: Draw) -> State:
            x, s = predict(i, x, (lambda: None) if quiet else draw), ts[i + 1]
            for _ in range(self.corrector_steps):
                z, grad = draw(), score(x, s)
                assert z is not None  # draws() saw to it
                h = 2 * alpha(s) ** 2 * (self.snr * norm(z) / norm(grad)) ** 2
                x = update(x, grad, root_two, h, z)
            return x

        return step
