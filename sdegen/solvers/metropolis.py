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

Reference:
    Roberts and Tweedie 1996, section 1.4.1; Roberts and Rosenthal 1998, for d^{−1/3} and 0.574.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdegen.sde.base import SDE
from sdegen.shapes import ScoreFn, State, Time
from sdegen.solvers.base import Draw, FixedStep, Step
from sdegen.solvers.native import EulerMaruyama
from sdegen.step import update

__all__ = ["MetropolisCorrector", "mala_step"]

LogDensity = Callable[[State, Time], Tensor]


def mala_step(
    x: State, t: Tensor, score: ScoreFn, log_prob: LogDensity, h: Tensor, z: State, u: State
) -> tuple[State, Tensor]:
    """One Metropolis-adjusted Langevin step in p_t.

    Args:
        x: States, shape (batch, *event).
        t: Time, 0-d.
        score: ∇ log p_t(x).
        log_prob: log p_t(x) up to a constant, shape (batch,).
        h: Step size, 0-d, > 0.
        z: Standard normals of x's shape, for the proposal.
        u: Standard normals of x's shape, of which the first of each trajectory decides.

    Returns:
        The next states, and which proposals were accepted, shape (batch,).
    """
    root_two = torch.full_like(h, 2.0).sqrt()
    grad = score(x, t)
    ahead = update(x, grad, root_two, h, z)
    # |x' − x − h score|² = 2h |z|²
    forth = -0.5 * z.flatten(1).square().sum(1)
    back = -(x - update(ahead, score(ahead, t), root_two, h, None)).flatten(1).square().sum(1)
    log_ratio = log_prob(ahead, t) - log_prob(x, t) + back / (4 * h) - forth
    uniform = torch.special.ndtr(u.flatten(1)[:, 0])
    accepted = uniform.log() < log_ratio  # False for a NaN: a proposal that is lost is refused
    return torch.where(accepted.view(-1, *(1,) * (x.ndim - 1)), ahead, x), accepted


@dataclass(frozen=True)
class MetropolisCorrector(FixedStep):
    """A predictor, then Metropolis-adjusted Langevin steps in the marginal that it reached.

    Args:
        log_prob: log p_t(x) up to a constant in x, shape (batch,).
        predictor: Takes the step; EulerMaruyama() unless said.
        corrector_steps: Langevin steps after it, two evaluations of the score each.
        step: h/σ(t)², > 0.

    Raises:
        ValueError: If corrector_steps < 1 or step is not finite and > 0.

    Reference:
        Roberts and Tweedie 1996, section 1.4.1; as a corrector, Du et al. 2023, section 4.3,
        arXiv:2302.11552.
    """

    log_prob: LogDensity
    predictor: FixedStep = field(default_factory=EulerMaruyama)
    corrector_steps: int = 1
    step: float = 0.5
    substeps: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.log_prob):
            raise TypeError(
                "log_prob must be a function (x, t) -> log p_t(x), but is "
                f"{type(self.log_prob).__name__}."
            )
        if self.predictor.substeps != 1:
            raise ValueError(
                f"predictor.substeps must be 1, but is {self.predictor.substeps}: say how many "
                "with substeps= of the corrector itself."
            )
        if self.corrector_steps < 1:
            raise ValueError(f"corrector_steps must be ≥ 1, but is {self.corrector_steps}.")
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step must be finite and > 0, but is {self.step:g}.")

    def draws(self, sde: SDE) -> bool:
        """Always: the corrector does."""
        return True

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuses dynamics without a score and a kernel, and what the predictor refuses."""
        self.predictor.check(sde, nodes)
        if sde.denoising is None or sde.denoising.kernel is None:
            raise ValueError(
                "MetropolisCorrector needs a score and the σ of a kernel: pass "
                f"ReverseSDE(linear_sde, score, eta), not {type(sde).__name__}."
            )

    def stepper(self, sde: SDE, nodes: Tensor) -> Step:
        """One predictor step, then corrector_steps of Metropolis-adjusted Langevin."""
        inner = sde.denoising
        assert inner is not None  # check() saw to it
        assert inner.kernel is not None
        predict, score, ts = self.predictor.stepper(sde, nodes), inner.score, nodes.unbind()
        hs = (self.step * inner.kernel.sigma(nodes).square()).unbind()
        quiet = not self.predictor.draws(sde)

        def step(i: int, x: State, draw: Draw) -> State:
            x = predict(i, x, (lambda: None) if quiet else draw)
            for _ in range(self.corrector_steps):
                z, u = draw(), draw()
                assert z is not None  # draws() saw to it
                assert u is not None
                x, _accepted = mala_step(x, ts[i + 1], score, self.log_prob, hs[i + 1], z, u)
            return x

        return step
