"""Routes of Act 2, from noise to digits: DDPM's chain, the reverse SDE, the probability flow."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.diffusion import timesteps
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.ddim import DDIM
from sdegen.engine.simulate import simulate
from sdegen.score.model import ScoreModel
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.solvers.torch_sde import TorchSDE

DDPM_VARIANCE: Literal["posterior"] = "posterior"  # βₖ σₖ₋₁²/σₖ²
_Setup = tuple[SDE, Tensor, Solver]


@dataclass(frozen=True)
class Route:
    """A way from noise to data.

    Attributes:
        name: What it is called in tables.
        setting: How finely it goes, in words.
        setup: The dynamics, times and solver that it is, for a model.
    """

    name: str
    setting: str
    setup: Callable[[ScoreModel], _Setup] = field(repr=False)

    def draw(self, model: ScoreModel, n: int, seed: int, *, keep_path: bool = False) -> Trajectory:
        """Draw n samples of 8 × 8 pixels."""
        dynamics, times, solver = self.setup(model)
        x_T = model.path.prior((n, 1, 8, 8), rng=seed)
        return simulate(dynamics, x_T, times, solver=solver, rng=seed, keep_path=keep_path)


def ancestral(steps: int) -> Route:
    """Return the chain of DDPM itself, whose steps have the variance of the posterior."""

    def setup(model: ScoreModel) -> _Setup:
        chain = DDPM.discretize(model.path, times=timesteps.quadratic(model.path, steps))
        countdown = torch.arange(steps, -1, -1, dtype=torch.float64)
        return chain.reverse(model.score, DDPM_VARIANCE), countdown, EulerMaruyama()

    return Route("DDPM ancestral", f"{steps} steps, {DDPM_VARIANCE} variance", setup)


def reverse(name: str, solver: Solver, steps: int, eta: float) -> Route:
    """Return the reverse SDE, η = 1, or the probability flow, η = 0, in steps of our choice."""

    def setup(model: ScoreModel) -> _Setup:
        dynamics = ReverseSDE(model.path, model.score, eta)
        return dynamics, timesteps.quadratic(model.path, steps), solver

    return Route(name, f"{steps} steps", setup)


reverse_sde: Callable[[int], Route] = partial(
    reverse, "SDE, Euler–Maruyama", EulerMaruyama(), eta=1.0
)
torch_sde: Callable[[int], Route] = partial(reverse, "SDE, torchsde srk", TorchSDE("srk"), eta=1.0)
heun: Callable[[int], Route] = partial(reverse, "flow, Heun", Heun(), eta=0.0)
ddim: Callable[[int], Route] = partial(reverse, "flow, DDIM", DDIM(), eta=0.0)


def dopri5(tolerance: float) -> Route:
    """Return the probability flow, with steps that a tolerance chooses."""

    def setup(model: ScoreModel) -> _Setup:
        dynamics = ReverseSDE(model.path, model.score, eta=0.0)
        solver = TorchDiffEq("dopri5", rtol=tolerance, atol=tolerance)
        return dynamics, model.path.time_grid(1), solver

    return Route("flow, torchdiffeq dopri5", f"tolerance {tolerance:g}", setup)
