"""Metropolis-adjusted Langevin: a corrector whose stationary law is exact at any step size.

A Langevin step proposes from x, with score = ∇ log p and z ~ N(0, I),

    x' = x + h score(x) + √(2h) z

and is accepted with probability min(1, a),

    log a = log p(x') − log p(x) + log q(x | x') − log q(x' | x),
    log q(x' | x) = −|x' − x − h score(x)|²/4h,

else x stays. Then p is stationary, whatever h is: the step size buys speed and costs acceptance,
never exactness. For that, h may depend on t alone. It is h = step · σ(t)²: at noise σ the density
bends on the scale σ where the data are sharp. In d dimensions steps of order d^{−1/3} keep the
acceptance near 0.57, where the sampler is fastest.

What it asks for is the density, up to a factor: an exact one, an energy, a product of both.

**What is not finite.** A proposal at which score or density is NaN is refused, as one that is
lost. A score that is not finite where a trajectory *is* loses the trajectory, as in any solver; a
density that is NaN or +∞ there is an error: all proposals would be refused, and nobody would see a
corrector that does nothing. A density of zero, log p = −∞, is left by the first proposal.

Reference:
    Roberts and Tweedie 1996, section 1.4.1; Roberts and Rosenthal 1998, for d^{−1/3} and 0.574.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.errors import NonFiniteError
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import Noise
from sdegen.core.requests import check_function, first_true
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.update import diffuse, update
from sdegen.diffusion.samplers.base import DiffusionSolver
from sdegen.diffusion.samplers.predictor_corrector import Corrector
from sdegen.solvers.euler import EulerMaruyama

LogDensity = Callable[[State, Time], Tensor]


def mala_step(
    x: State, t: Tensor, score: ScoreFn, log_prob: LogDensity, h: Tensor, z: State, u: State
) -> tuple[State, Tensor]:
    """Take one Metropolis-adjusted Langevin step in p_t.

    Args:
        x: States, shape (batch, *event).
        t: Time, 0-d.
        score: ∇ log p_t(x).
        log_prob: log p_t(x) up to a constant, shape (batch,).
        h: Step size, 0-d, > 0.
        z: Standard normals of x's shape, for the proposal.
        u: Standard normals of x's shape, of which the first of each trajectory decides.

    Returns:
        The next states, NaN where the score is not finite at a finite x; and which proposals were
        accepted, shape (batch,).

    Raises:
        ValueError: If log_prob returns another shape.
        NonFiniteError: If log_prob is NaN or +∞ at a finite x whose score is finite.
    """
    root_two = torch.full_like(h, 2.0).sqrt()
    grad, log_p = score(x, t), log_prob(x, t)
    lost = _lost(x, grad, log_p, t)
    ahead = diffuse(update(x, grad, h), z, h.abs().sqrt(), root_two)
    # |x' − x − h score|² = 2h |z|²
    forth = -0.5 * z.flatten(1).square().sum(1)
    back = -(x - update(ahead, score(ahead, t), h)).flatten(1).square().sum(1)
    log_ratio = log_prob(ahead, t) - log_p + back / (4 * h) - forth
    uniform = torch.special.ndtr(u.flatten(1)[:, 0])
    accepted = uniform.log() < log_ratio  # False for a NaN: a proposal that is lost is refused
    shape = (-1, *(1,) * (x.ndim - 1))
    moved = torch.where(accepted.view(shape), ahead, x)
    return torch.where(lost.view(shape), torch.nan, moved), accepted


def _lost(x: State, score: State, log_prob: Tensor, t: Tensor) -> Tensor:
    """Mark trajectories without a finite score, shape (batch,); raises if log_prob is NaN or ∞."""
    if log_prob.shape != x.shape[:1]:
        raise ValueError(
            f"log_prob must return shape ({len(x)},), one number for each state, but returned "
            f"{tuple(log_prob.shape)}."
        )
    lost = ~score.isfinite().flatten(1).all(1)
    bad = (log_prob.isnan() | log_prob.isposinf()) & ~lost & x.isfinite().flatten(1).all(1)
    if (i := first_true(bad)) is not None:
        raise NonFiniteError(
            f"log_prob is {float(log_prob[i]):g} at t = {float(t):g} for {int(bad.sum())} of "
            f"{len(x)} states; the first is row {i}, {x[i].flatten()[:4].tolist()}. It must be "
            "finite, or −∞ where there is no density."
        )
    return lost


@dataclass(frozen=True)
class MetropolisCorrector(DiffusionSolver, Corrector):
    """A predictor, then Metropolis-adjusted Langevin steps in the marginal that it reached.

    Args:
        log_prob: log p_t(x) up to a constant in x, shape (batch,).
        predictor: Takes the step; EulerMaruyama() by default.
        corrector_steps: Langevin steps after it, two evaluations of the score each.
        step_size: h/σ(t)², > 0.

    Raises:
        TypeError: If log_prob is not a function, predictor not a solver of fixed steps, or
            corrector_steps no int.
        ValueError: If corrector_steps < 1, step_size is not finite and > 0, or the predictor has
            substeps or ends with a denoised state.

    Reference:
        Roberts and Tweedie 1996, section 1.4.1; as a corrector, Du et al. 2023, section 4.3,
        arXiv:2302.11552.
    """

    log_prob: LogDensity
    predictor: FixedStep = field(default_factory=EulerMaruyama)
    corrector_steps: int = 1
    step_size: float = 0.5
    substeps: int = field(default=1, kw_only=True)

    asks_for: ClassVar[str] = "a score and the σ of a kernel"
    evaluations_to_correct: ClassVar[int] = 2
    when: ClassVar[str] = (
        "The density itself is known beside its score: corrections without an error of their step."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_function("log_prob", self.log_prob, "a function (x, t) -> log p_t(x)")
        check_positive("step_size", self.step_size)

    def sizes(self, sde: SDE, nodes: Tensor) -> Sequence[Tensor]:
        """Return h at each node."""
        return (self.step_size * self.reversal(sde)[1].sigma(nodes).square()).unbind()

    def correct(self, x: State, t: Tensor, size: Tensor, score: ScoreFn, noise: Noise) -> State:
        """Take one step of Metropolis-adjusted Langevin."""
        z, u = noise.normal(), noise.normal()
        return mala_step(x, t, score, self.log_prob, size, z, u)[0]
