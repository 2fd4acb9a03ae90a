"""Metropolis-adjusted Langevin: a corrector whose stationary law is exact at any step size.

The step is that of `sdegen.solvers.metropolis`, in the marginal p_t that a predictor reached. It
leaves p_t stationary whatever its size h is, if h depends on t alone. It is h = step · σ(t)²: at
noise σ the density bends on the scale σ where the data are sharp. In d dimensions steps of order
d^{−1/3} keep the acceptance near 0.57, where the sampler is fastest.

What it asks for is the density, up to a factor: an exact one, an energy, a product of both.

Reference:
    Roberts and Rosenthal 1998, for d^{−1/3} and 0.574.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import Noise
from sdegen.core.requests import check_function
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.diffusion.samplers.base import DiffusionSolver
from sdegen.diffusion.samplers.predictor_corrector import Corrector
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.metropolis import mala_step

LogDensity = Callable[[State, Time], Tensor]


@dataclass(frozen=True)
class MetropolisCorrector(DiffusionSolver, Corrector):
    """A predictor, then Metropolis-adjusted Langevin steps in the marginal that it reached.

        x' = x + h score + √(2h) z with probability min(1, a), else x;   h = step_size σ(t)²
        log a = log p(x') − log p(x) + log q(x | x') − log q(x' | x)

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

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> log_p = lambda x, t: -x.square().sum(1) / (2 * (1 + t**2))
        >>> start = sg.GaussianPrior([0.0], 10.0).sample(40_000, rng=0)
        >>> solver = sg.MetropolisCorrector(log_p, sg.DDIM(), corrector_steps=10)
        >>> flow = sg.ReverseSDE(path, score, eta=0.0)
        >>> for method in (sg.DDIM(), solver):
        ...     end = sg.simulate(flow, start, [3.0, 1.0], solver=method, rng=1).final
        ...     print(f"{end.var():.1f}")  # 1 + t² is exact
        1.6
        2.0
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
