"""Two evaluations a step on the clock r = σ/α: Heun and DPM-2, with churn or ancestral noise.

In y = x/α the probability flow is dy = ε(y, r) dr: nothing is left of the schedule but its clock.
Two points of a step give order 2,

    Heun     y_s = ŷ + ½ (r_s − r̂) (ε(ŷ, r̂) + ε(y', r_s)),     y' = ŷ + (r_s − r̂) ε(ŷ, r̂)
    DPM-2    y_s = ŷ + (r_s − r̂) ε(y', √(r̂ r_s)),               y' = ŷ + (√(r̂ r_s) − r̂) ε(ŷ, r̂)

**Noise** enters beside the flow, so that marginals stay exact where the flow is. Churn goes back
a little first: r̂ = (1 + γ) r and ŷ = y + S_noise √(r̂² − r²) z. Ancestral steps go further and come
back: the flow runs down to r_d, and y_s takes on √(r_s² − r_d²) z. Both leave the law of y at
r_s as it was, whatever the step; what is wrong with it is the flow's error alone, of order 2.

A step evaluates twice. So one step, two times, costs two evaluations; for a single evaluation take
DDIM, which is the step that both begin with.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.checks import check_not_negative, check_positive
from sdegen.core.fixed_steps import FixedStep, SplitStep, to_floats
from sdegen.core.kernel import Kernel
from sdegen.core.noise import Noise
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.update import diffuse, update
from sdegen.diffusion.samplers.base import DiffusionSolver, Stepped

_LARGEST_GAMMA = math.sqrt(2) - 1  # of γ: no more noise than there is signal of it


@dataclass(frozen=True)
class Churn:
    """How much noise is stirred in before a step, in y = x/α on the clock r = σ/α.

        r̂ = (1 + γ) r,   ŷ = y + scale √(r̂² − r²) z
        γ = min(amount/N, √2 − 1) while low ≤ r ≤ high, else 0

    The r of N steps have shape (N,).

    Args:
        amount: S_churn ≥ 0 of N steps.
        low: S_tmin, the smallest r = σ/α that is stirred.
        high: S_tmax, the largest.
        scale: S_noise > 0; a little above 1 makes up for what a network loses of the variance.

    Raises:
        TypeError: If one of them is not a number.
        ValueError: If a number is out of range.

    Reference:
        Karras et al. 2022, algorithm 2, arXiv:2206.00364.

    Example:
        >>> sg.Churn(amount=1.0, low=1.0).gammas(torch.tensor([4.0, 2.0, 1.0, 0.5])).tolist()
        [0.25, 0.25, 0.25, 0.0]
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("amount", "low", "high", "scale"):
            if not isinstance(value := getattr(self, name), int | float):
                raise TypeError(f"{name} must be a number, but is {value!r}.")
        check_not_negative("amount", self.amount)
        if not 0 <= self.low < self.high:
            raise ValueError(f"0 ≤ low < high is asked, but they are {self.low:g}, {self.high:g}.")
        check_positive("scale", self.scale)

    def gammas(self, r: Tensor) -> Tensor:
        """Return γ of the steps that begin at r, shape of r."""
        gamma = min(self.amount / len(r), _LARGEST_GAMMA)
        return gamma * ((r >= self.low) & (r <= self.high)).to(r)


@dataclass(frozen=True)
class _TwoStage(DiffusionSolver, FixedStep, SplitStep):
    """What Heun and DPM-2 share: the clock, the churn, and the way back to x."""

    churn: Churn = field(default_factory=Churn)
    substeps: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.churn, Churn):
            raise TypeError(
                f"churn must be one such as Churn(amount=5.0), but is {self.churn!r}; for η "
                "take that of the ReverseSDE."
            )

    def is_stochastic(self, sde: SDE) -> bool:
        """Return True for noise-free dynamics, too, where there is churn."""
        return self.churn.amount > 0 or super().is_stochastic(sde)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics other than the ReverseSDE of a GaussianPath, and noise of two kinds.

        Raises:
            ValueError: Saying what to pass.
        """
        super().check(sde, nodes)
        eta = self.reversal(sde)[0].eta
        if eta > 0 and self.churn.amount > 0:
            raise ValueError(
                f"noise of one kind is enough: eta is {eta:g} and churn.amount "
                f"{self.churn.amount:g}; pass eta=0.0 or Churn()."
            )
        if self.churn.amount > 0 and nodes[-1] > nodes[0]:
            raise ValueError("churn goes with decreasing times; pass Churn() to noise data.")

    @abstractmethod
    def _second(self, r: Tensor, end: Tensor) -> Tensor:
        """Return r of the second evaluation in steps from r to end, shape of both."""

    orders: ClassVar[Orders] = Orders(flow=2, additive=(1, 1), multiplicative=None)
    evaluations: ClassVar[int] = 2
    when: ClassVar[str] = (
        "Samples of a score from 20 to 100 evaluations, with noise that is stirred in if wanted."
    )

    _weight: ClassVar[float]  # of the second evaluation; the first has what is left

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory:
        """Return where each step stirs, evaluates and goes, multiplied out."""
        inner, kernel = self.reversal(sde)
        alpha, eta = kernel.alpha(nodes), inner.eta
        r = kernel.sigma(nodes) / alpha
        hot, kicks = self._stirred(kernel, r, sde.time_range[1])
        ends = torch.stack([nodes[0].clamp(min=sde.time_range[1]), nodes[-1]])
        t_hot = torch.where(hot == r[:-1], nodes[:-1], _times_at(kernel, hot, ends))
        # DDIM's η: what is taken out of r² here comes back as noise
        fresh = eta * (r[1:] / hot) * torch.sqrt(((hot - r[1:]) * (hot + r[1:])).clamp(min=0))
        end = torch.sqrt((r[1:] - fresh) * (r[1:] + fresh)) if eta > 0 else r[1:]
        second = self._second(hot, end)
        t_second = torch.where(second == r[1:], nodes[1:], _times_at(kernel, second, nodes))
        score_hot, score_second = inner.along(t_hot), inner.along(t_second)
        alpha_hot, alpha_second = kernel.alpha(t_hot), kernel.alpha(t_second)
        # ε = −σ score: the factor goes with the step
        first, last, w = -kernel.sigma(t_hot), -kernel.sigma(t_second), self._weight
        reach, across = first * (second - hot), (1 - w) * first * (end - hot)
        rest = w * last * (end - hot)
        columns = (1 / alpha[:-1], alpha_hot, reach, across, alpha_second, rest, alpha[1:])
        stirs = [k if k > 0 else None for k in to_floats(kicks)]
        late = to_floats(fresh) if eta > 0 else [None] * len(stirs)
        rows = list(zip(*map(to_floats, columns), stirs, late, strict=True))
        return _Memory(score_hot, score_second, rows)

    def step(self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory) -> Stepped:
        """Stir, evaluate, evaluate, go; and let the noise in that η took out."""
        into, alpha_hot, reach, across, alpha_second, rest, out, kick, late = memory.rows[i]
        y = into * x
        if kick is not None:
            assert noise is not None  # is_stochastic() saw to it
            y = diffuse(y, noise.normal(), kick)
        slope = memory.score_hot(alpha_hot * y, i)
        ahead = update(y, slope, reach)
        y = y if self._weight == 1 else update(y, slope, across)
        slope = memory.score_second(alpha_second * ahead, i)
        after = update(y, slope, rest)
        if late is not None:
            after = diffuse(after, None if noise is None else noise.normal(), late)
        return out * after, memory

    def parts(self) -> tuple[Solver, ...]:
        """Return the stir and the flow; without churn an ancestral step draws at its end."""
        if self.churn.amount == 0:
            return (self,)
        return _Stir(self), _Flow(self)

    def _stirred(self, kernel: Kernel, r: Tensor, latest: float) -> tuple[Tensor, Tensor]:
        """Return r̂ of each step, no later than the latest time, and the width of its stir."""
        most = kernel.sigma(r.new_tensor(latest)) / kernel.alpha(r.new_tensor(latest))
        gamma = self.churn.gammas(r[:-1])
        hot = torch.minimum(r[:-1] * (1 + gamma), torch.maximum(most, r[:-1]))
        return hot, self.churn.scale * torch.sqrt((hot - r[:-1]) * (hot + r[:-1]))


@dataclass(frozen=True)
class KarrasHeun(_TwoStage):
    """Heun's method for dy/dr = ε, with churn: the stochastic sampler of EDM.

        y_s = ŷ + ½ (r_s − r̂) (ε(ŷ, r̂) + ε(y', r_s)),   y' = ŷ + (r_s − r̂) ε(ŷ, r̂)

    with y = x/α of shape (batch, *event), r = σ/α, and ŷ, r̂ those of `Churn`. Two evaluations a
    step.

    Args:
        churn: Noise that is stirred in before each step; none by default.
        substeps: Equal steps between any two of the times.

    Reference:
        Karras et al. 2022, algorithms 1 and 2, arXiv:2206.00364, whose σ is r here. The last step
        ends at the last time, where the score exists, and is like the others.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> end = sg.simulate(flow, x_T, [3.0, 1.0], solver=sg.KarrasHeun()).final
        >>> f"{end.item():.4f}"  # 10 − 2 (3 + 2)/2
        '5.0000'
    """

    # with η > 0 it would evaluate beyond the last time
    largest_eta: ClassVar[float | None] = 0.0
    eta_refusal: ClassVar[str] = (
        "takes its noise from churn, but eta is {eta:g}: pass ReverseSDE(sde, score, eta=0.0), or "
        "use DPM2(), which has an ancestral step of eta up to 1."
    )

    _weight: ClassVar[float] = 0.5

    def _second(self, r: Tensor, end: Tensor) -> Tensor:
        return end


@dataclass(frozen=True)
class DPM2(_TwoStage):
    """The midpoint rule for dy/dr = ε, in log r: DPM-Solver-2, with churn or ancestral steps.

        y_s = ŷ + (r_s − r̂) ε(y', √(r̂ r_s)),   y' = ŷ + (√(r̂ r_s) − r̂) ε(ŷ, r̂)

    with y = x/α of shape (batch, *event), r = σ/α, and ŷ, r̂ those of `Churn`. Two evaluations a
    step. η of the `ReverseSDE` makes the steps ancestral, in the measure of DDIM, 0 ≤ η ≤ 1.

    Args:
        churn: Noise that is stirred in before each step, for η = 0; none by default.
        substeps: Equal steps between any two of the times.

    Reference:
        Lu et al. 2022, algorithm 1 with r₁ = ½, arXiv:2206.00927.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> end = sg.simulate(flow, x_T, [3.0, 1.0], solver=sg.DPM2()).final
        >>> f"{end.item():.4f}"  # one step; the flow itself ends at 10 √(2/10) = 4.4721
        '4.6340'
    """

    largest_eta: ClassVar[float | None] = 1.0

    _weight: ClassVar[float] = 1.0

    def _second(self, r: Tensor, end: Tensor) -> Tensor:
        return torch.sqrt(r * end)


class _Memory(NamedTuple):
    """What is known of the steps of a two-stage method, y = x/α.

    Attributes:
        score_hot: The score at the first evaluation.
        score_second: That at the second.
        rows: For each step 1/α where it begins; α at the first evaluation; the factors of the
            first score on the way to the second evaluation and in the step; α at the second
            evaluation; the factor of the second score; α where the step ends; the width of its
            stir, and that of the noise that η took out, None where there is none.
    """

    score_hot: ScoreAt
    score_second: ScoreAt
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class _Stir(Solver):
    """The stir alone: x + α √(r̂² − r²) S_noise z."""

    whole_step: _TwoStage

    def begin(self, sde: SDE, nodes: Tensor) -> Tensor:
        """Return the width of the stir of each step, in units of x."""
        kernel = self.whole_step.reversal(sde)[1]
        alpha = kernel.alpha(nodes)
        kicks = self.whole_step._stirred(kernel, kernel.sigma(nodes) / alpha, sde.time_range[1])[1]
        return alpha[:-1] * kicks  # the step itself stirs y = x/α

    def step(self, sde: SDE, x: State, i: int, noise: Noise | None, memory: Tensor) -> Stepped:
        """Add the noise."""
        assert noise is not None  # is_stochastic() saw to it
        return diffuse(x, noise.normal(), memory[i]), memory

    def is_stochastic(self, sde: SDE) -> bool:
        """Return True."""
        return True


@dataclass(frozen=True)
class _Flow(Solver):
    """The step after its stir, which draws nothing."""

    whole_step: _TwoStage

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory:
        """Return what the whole step knows."""
        memory = self.whole_step.begin(sde, nodes)
        return memory._replace(rows=[(*row[:-2], None, row[-1]) for row in memory.rows])

    def step(self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory) -> Stepped:
        """Take the step of `whole_step`, without a stir."""
        return self.whole_step.step(sde, x, i, None, memory)

    def is_stochastic(self, sde: SDE) -> bool:
        """Return False."""
        return False


def _times_at(kernel: Kernel, r: Tensor, nodes: Tensor) -> Tensor:
    """Return the times between the first and the last node at which σ/α is r, by bisection."""
    low, high = sorted((float(nodes[0].detach()), float(nodes[-1].detach())))
    times = kernel.time_of_log_nsr(r.detach().log(), low, high)
    if not r.requires_grad:
        return times
    # halving knows no derivative: that of the inverse function, as a Newton step of length 0
    with torch.enable_grad():
        t = times.clone().requires_grad_()
        (pace,) = torch.autograd.grad(kernel.log_ratio(t).sum(), t)
    return times + (r.log() - r.detach().log()) / pace
