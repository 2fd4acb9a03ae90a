"""Predictor and corrector: a step of any solver, then Langevin steps where it arrived."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.fixed_steps import FixedStep, check_predictor
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.solver import Memory
from sdegen.core.update import diffuse, update
from sdegen.diffusion.samplers.base import Stepped
from sdegen.solvers.euler import EulerMaruyama

_ROOT_TWO = torch.tensor(2.0, dtype=torch.float64).sqrt()


class Corrector(FixedStep):
    """A predictor that takes the step, then a few steps of a corrector where it arrived.

    Attributes:
        predictor: Takes the step.
        corrector_steps: Steps of the corrector after it.
        evaluations_to_correct: Of the score in a step of the corrector.
    """

    predictor: FixedStep
    corrector_steps: int
    evaluations_to_correct: ClassVar[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_predictor(self.predictor)
        check_count("corrector_steps", self.corrector_steps)

    def is_stochastic(self, sde: SDE) -> bool:
        """Return True: the corrector draws noise."""
        return True

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse what a corrector does not take, and all that the predictor refuses."""
        super().check(sde, nodes)
        self.predictor.check(sde, nodes)

    @property
    def evaluations(self) -> int | None:  # type: ignore[override]
        """Of the score in a step: the predictor's, and those of each corrector step."""
        of_predictor = self.predictor.evaluations
        corrections = self.evaluations_to_correct * self.corrector_steps
        return None if of_predictor is None else of_predictor + corrections

    @abstractmethod
    def sizes(self, sde: SDE, nodes: Tensor) -> Sequence[Tensor]:
        """Return what `correct` is told of its step size at each node, 0-d."""

    @abstractmethod
    def correct(self, x: State, t: Tensor, size: Tensor, score: ScoreFn, noise: Noise) -> State:
        """Take one step of the corrector in the marginal at t.

        Args:
            x: State at t.
            t: Time, 0-d.
            size: What `sizes` returned for this node.
            score: ∇ log p_t(x).
            noise: What draws.
        """

    def begin(self, sde: SDE, nodes: Tensor) -> _Corrected:
        """Return the predictor's memory, the times, the score, and the sizes of corrections."""
        inner = sde.denoising
        assert inner is not None  # check() saw to it
        sizes = self.sizes(sde, nodes)
        return _Corrected(self.predictor.begin(sde, nodes), nodes.unbind(), inner.score, sizes)

    def step(self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Corrected) -> Stepped:
        """Take one predictor step, then corrector_steps of the corrector."""
        assert noise is not None  # is_stochastic() saw to it
        heard = noise if self.predictor.is_stochastic(sde) else None
        x, of_predictor = self.predictor.step(sde, x, i, heard, memory.of_predictor)
        t, size = memory.ts[i + 1], memory.sizes[i + 1]
        for _ in range(self.corrector_steps):
            x = self.correct(x, t, size, memory.score, noise)
        return x, memory._replace(of_predictor=of_predictor)


@dataclass(frozen=True)
class PredictorCorrector(Corrector):
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

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> start = sg.GaussianPrior([0.0], 10.0).sample(40_000, rng=0)
        >>> flow = sg.ReverseSDE(path, score, eta=0.0)
        >>> solver = sg.PredictorCorrector(corrector_steps=20, predictor=sg.DDIM())
        >>> for method in (sg.DDIM(), solver):
        ...     end = sg.simulate(flow, start, [3.0, 1.0], solver=method, rng=1).final
        ...     print(f"{end.var():.1f}")  # 1 + t² is exact
        1.6
        2.0
    """

    corrector_steps: int = 1
    snr: float = 0.16
    predictor: FixedStep = field(default_factory=EulerMaruyama, kw_only=True)

    evaluations_to_correct: ClassVar[int] = 1
    when: ClassVar[str] = (
        "Samples of a score whose errors Langevin steps shall correct, at many evaluations."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.snr < 1:
            raise ValueError(f"snr must lie in (0, 1), but is {self.snr:g}.")

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics without a score, and all that the predictor refuses."""
        super().check(sde, nodes)
        if sde.denoising is None:
            raise ValueError(
                "PredictorCorrector needs a score, which its corrector asks: pass "
                f"ReverseSDE(sde, score, eta), not {type(sde).__name__}."
            )
        if sde.phase_space:
            raise ValueError(
                "PredictorCorrector moves along the score of every coordinate, but in phase space "
                "that of velocities alone is learned and asked for: take its predictor, "
                f"{type(self.predictor).__name__}()."
            )

    def sizes(self, sde: SDE, nodes: Tensor) -> Sequence[Tensor]:
        """Return α at each node."""
        assert sde.denoising is not None  # check() saw to it
        kernel = sde.denoising.kernel
        # one by one: many at once are rounded otherwise
        return [kernel.alpha(t) if kernel else torch.ones_like(t) for t in nodes.unbind()]

    def correct(self, x: State, t: Tensor, size: Tensor, score: ScoreFn, noise: Noise) -> State:
        """Take one step of Langevin dynamics, an `update`."""
        z, grad = noise.normal(), score(x, t)
        h = 2 * size**2 * (self.snr * _mean_norm(z) / _mean_norm(grad)) ** 2
        return diffuse(update(x, grad, h), z, h.abs().sqrt(), _ROOT_TWO)


class _Corrected(NamedTuple):
    """The predictor's memory, the times of nodes, the score, and the sizes of corrections."""

    of_predictor: Memory
    ts: Sequence[Tensor]
    score: ScoreFn
    sizes: Sequence[Tensor]


def _mean_norm(x: State) -> Tensor:
    """Return the mean norm of the finite trajectories: a diverged one must not stop all."""
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return torch.where(norms.isfinite(), norms, torch.nan).nanmean()
