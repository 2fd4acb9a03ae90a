"""The last step: what becomes of the noise that is left at t_min.

A run that ends at t_min > 0 has, even if it is exact, the law of X at t_min: that of the data
under a noise of relative width ρ = σ/α. `FinalDenoising` replaces the state by

    E[x0 | x_{t_min}] = (x + σ² score)/α        (Tweedie's formula)

for one evaluation more. In a direction in which the data are a point the mean is exact, and the
noise was all error: denoise what lies on a surface or on few values, such as pictures, which are
also judged by measures that see noise where eyes do not. In a direction in which the data are
Gaussian of width s the variance was s² + ρ², in units of α², and becomes s²/(1 + ρ²/s²): the error
turns from +ρ² to about −ρ², and nothing is gained; the flow would have gone half as far. So leave
densities as they are, and compare them with the law at t_min, which is what likelihoods are about.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from sdegen.core.fixed_steps import FixedStep, check_inner
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory, Need
from sdegen.core.update import update
from sdegen.diffusion.ddpm import AncestralChain
from sdegen.diffusion.samplers.base import DiffusionSolver
from sdegen.diffusion.samplers.ddim import DDIM


@dataclass(frozen=True)
class FinalDenoising(DiffusionSolver, FixedStep):
    """Any fixed-step solver, whose last state is denoised: E[x0 | x] in place of x.

        x ← E[x0 | x] = (x + σ² score(x, t))/α at the last time

    The last of the times then belongs to t = 0; N steps cost one evaluation more. States and
    scores have shape (batch, *event).

    Args:
        solver: What takes the steps.

    Raises:
        TypeError: If solver is not a solver of fixed steps.
        ValueError: If it denoises its last state itself.

    Reference:
        Efron 2011 for Tweedie's formula; Song et al. 2021, appendix G, arXiv:2011.13456.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> solver = sg.FinalDenoising(sg.DDIM())
        >>> sg.simulate(flow, x_T, [3.0, 1.0], solver=solver).final.item()  # 4/(1 + 1²)
        2.0
    """

    solver: FixedStep = field(default_factory=DDIM)
    substeps: int = field(default=1, init=False)

    supports_boundaries: ClassVar[bool] = False
    returns_x0: ClassVar[bool] = True
    when: ClassVar[str] = (
        "Samples shall end without the noise of the last time; around any solver."
    )

    def __post_init__(self) -> None:
        check_inner("solver", self.solver)
        object.__setattr__(self, "substeps", self.solver.substeps)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics without a kernel, times that end in noise, and what `solver` refuses.

        Raises:
            ValueError: Saying what to pass.
        """
        if isinstance(sde, AncestralChain):
            raise ValueError(_chain_denoises(sde))  # noqa: TRY004 (what it says is of its times)
        self.solver.check(sde, nodes)
        super().check(sde, nodes)
        if nodes[-1] > nodes[0]:
            raise ValueError(
                f"times end at t = {float(nodes[-1]):g}, in noise, where nothing is to be "
                f"denoised; pass the solver itself, {self.solver!r}."
            )

    def is_stochastic(self, sde: SDE) -> bool:
        """Return whether the solver draws noise."""
        return self.solver.is_stochastic(sde)

    def nodes(self, times: Tensor) -> Tensor:
        """Return the nodes of the solver."""
        return self.solver.nodes(times)

    @property
    def takes_no_signal(self) -> bool:  # type: ignore[override]
        """Whether the solver does."""
        return bool(getattr(self.solver, "takes_no_signal", False))

    @property
    def evaluations(self) -> int | None:  # type: ignore[override]
        """Those of the solver; the last step evaluates once more."""
        return self.solver.evaluations

    @property
    def needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        """Those of the solver."""
        return self.solver.needs

    def begin(self, sde: SDE, nodes: Tensor) -> tuple[Memory, Tensor]:
        """Return the solver's memory, and the times."""
        return self.solver.begin(sde, nodes), nodes

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: tuple[Memory, Tensor]
    ) -> tuple[State, tuple[Memory, Tensor]]:
        """Take the solver's step; after the last one denoise."""
        inner, nodes = memory
        x, inner = self.solver.step(sde, x, i, noise, inner)
        if i == len(nodes) - 2:
            x = self.finalize(sde, x, nodes[-1])
        return x, (inner, nodes)

    def finalize(self, sde: SDE, x: State, t: Tensor) -> State:
        """Return E[x0 | x] by Tweedie's formula, as an update of x/α.

        Args:
            sde: What moves.
            x: State at t.
            t: The last time, 0-d.
        """
        inner, kernel = self.reversal(sde)
        alpha, sigma = kernel.alpha(t), kernel.sigma(t)
        return update(x / alpha, inner.score(x, t), sigma**2 / alpha)


def _chain_denoises(sde: AncestralChain) -> str:
    """Return what to pass instead: the step of a chain that ends at the data is Tweedie's."""
    start = float(sde.chain.times[0])
    if float(sde.chain.sigmas[0]) == 0:
        return (
            "the last step of this chain, from k = 1 to 0, denoises already: it adds no noise and "
            "returns E[x0 | x_1]. Pass its solver itself, EulerMaruyama()."
        )
    return (
        f"this chain ends at t = {start:g}, in noise. A chain whose times begin at 0 ends with "
        "E[x0 | x_1]: pass DDPM.discretize(sde, times=[0, …]) and EulerMaruyama()."
    )
