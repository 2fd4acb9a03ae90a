"""Predictor and corrector: a step of any solver, then Langevin steps where it arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.fixed_steps import FixedStep, check_predictor
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.solver import Memory
from sdegen.core.update import diffuse, update
from sdegen.solvers.euler import EulerMaruyama

_ROOT_TWO = torch.tensor(2.0, dtype=torch.float64).sqrt()


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
