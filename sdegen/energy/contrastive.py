"""Contrastive divergence of an energy: its negative phase is Langevin dynamics in the energy.

    x ← x − h ∇U(x) + √(2hT) z,      z ~ N(0, I)

is `integrate(Langevin(model, T), EulerMaruyama(), …)`: the update that samples a model trains it.
Steps of h leave a law stationary that is wrong by O(h ∇²U), and the weights make up for it: what
is learned is then right for the chain, and wrong by as much as a density.
`metropolis=True` takes that error away.

**Annealed.** With hottest = T₁ > 1 a chain begins at T₁ and cools down to T = 1 in equal ratios,
T_j = T₁^{1 − j/(k − 1)}: it crosses what barriers there are before it settles.

**Diverged.** A chain that is not finite, or farther from the mean of the data than 1000 times
their spread, is counted ("lost chains" of the result's logs) and left out with its row; more than
a tenth of them stop the training.

Reference:
    As of `chains.py`; Nijkamp et al. 2019, arXiv:1904.09770, eq. (5), for chains from noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_flag, check_number, check_positive, check_word
from sdegen.core.noise import Noise
from sdegen.core.requests import check_kind
from sdegen.core.shapes import State
from sdegen.core.solver import Solver, integrate
from sdegen.energy.chains import Carried, ChainLoss
from sdegen.energy.model import EnergyModel
from sdegen.sde.processes import Langevin
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.metropolis import Metropolis
from sdegen.training.loss import BatchNoise

Start = Literal["data", "noise"]

_FAR = 1e3  # times the spread of the data


@dataclass(frozen=True)
class ContrastiveDivergence(ChainLoss):
    """Maximum likelihood of an `EnergyModel`, by Langevin chains: CD-k, or persistent ones.

        ∇_θ L = E_data ∇_θ U − E_chains ∇_θ U,     chains of shape (chains, *event)

    Args:
        steps: k ≥ 1, of a chain in each step of the training.
        chains: How many chains are carried along, at least as many as the rows of a step; None:
            they begin anew in each step.
        restart: Share of the carried chains that begin anew before each step of the training.
        step_size: h > 0, of a Langevin step, in units of x² (k_B T = mobility = 1).
        start: Where chains begin (anew): at the "data", or in "noise", a Gaussian with mean and
            spread of the data. Carried chains are at the data at first.
        metropolis: Whether steps are accepted or refused, which makes p stationary at any h.
        hottest: T₁ ≥ 1, the temperature at which a chain begins.

    Raises:
        TypeError: If a number is none; if it is asked for a module that is no `EnergyModel`.
        ValueError: If a number is out of range, or restart is given for chains that are not
            carried.

    Example:
        >>> model = sg.EnergyModel(torch.nn.Linear(1, 1, bias=False))  # U = 2 x
        >>> _ = model.network.weight.data.fill_(2.0)
        >>> loss = sg.ContrastiveDivergence(steps=10, step_size=0.01)
        >>> losses = sg.fit(model, torch.eye(2, 1), loss, sg.FitConfig(1, 4096), rng=0).losses
        >>> f"{losses.item():.1f}"  # U falls by k h |∇U|² = 10 · 0.01 · 2²
        '0.4'
    """

    steps: int = 10
    step_size: float = field(default=0.01, kw_only=True)
    start: Start = field(default="data", kw_only=True)
    metropolis: bool = field(default=False, kw_only=True)
    hottest: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("step_size", self.step_size)
        check_word("start", self.start, get_args(Start))
        check_flag("metropolis", self.metropolis)
        check_number("hottest", self.hottest)
        if not 1 <= self.hottest < float("inf"):
            raise ValueError(f"hottest must be ≥ 1, where chains end, but is {self.hottest:g}.")

    def check(self, module: nn.Module, rows: State) -> None:
        """Refuse a module that is no `EnergyModel`, and one that returns no energies."""
        check_kind("module", module, EnergyModel, "an EnergyModel(network)")
        with torch.no_grad():
            cast(EnergyModel, module).energy(rows[:2].to(next(module.parameters())))

    def energy(self, module: nn.Module, x: State) -> Tensor:
        """Return U of states, shape (n,)."""
        return cast(EnergyModel, module).energy(x)

    def begin(self, rows: State, noise: BatchNoise, carried: Carried) -> State:
        """Return where chains begin: at the rows of the step, or in noise."""
        if self.start == "data":
            return rows
        return carried.mean + carried.std * noise.normal_like(rows)

    def advance(self, module: nn.Module, x: State, noise: BatchNoise) -> State:
        """Take k Langevin steps in the energy."""
        model = cast(EnergyModel, module)
        solver: Solver = Metropolis() if self.metropolis else EulerMaruyama()
        nodes = self.step_size * torch.arange(self.steps + 1, dtype=torch.float64)
        draws = _RowNoise(x, noise)
        if self.hottest == 1:
            return _last(Langevin(model), solver, x, nodes, draws)
        for j in range(self.steps):
            share = j / (self.steps - 1) if self.steps > 1 else 1.0
            sde = Langevin(model, float(self.hottest) ** (1 - share))
            x = _last(sde, solver, x, nodes[j : j + 2], draws)
        return x

    def diverged(self, x: State, carried: Carried) -> Tensor:
        """Mark chains that are not finite, or far beyond the data, shape (n,)."""
        away = (x - carried.mean).flatten(1).square().sum(1).sqrt()
        reach = carried.std.square().sum().sqrt()
        reach = torch.where(reach > 0, reach, 1.0)  # data that are all the same have no spread
        return ~(away <= _FAR * reach)  # True of a NaN

    @property
    def cure(self) -> str:
        """What to do where chains diverge."""
        return (
            f"lower step_size = {self.step_size:g}, pass metropolis=True, or give the model a "
            "base_std, where its energy does not confine."
        )


class _RowNoise(Noise):
    """The noise of chains, one for each row of a batch: ranks draw what one process draws."""

    def __init__(self, x: State, noise: BatchNoise) -> None:
        self.channels = None
        self.normal = lambda: noise.normal_like(x)


def _last(sde: Langevin, solver: Solver, x: State, nodes: Tensor, noise: Noise) -> State:
    """Return the last state of the steps of a solver."""
    for state in integrate(sde, solver, x, nodes, noise):
        x = state
    return x
