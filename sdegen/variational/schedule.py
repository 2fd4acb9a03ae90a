"""A noise schedule that is learned: the clock on which the bound is estimated best.

    γ(t) = −log SNR = log σ²/α²,      γ(0) and γ(1) given,      γ increases

    L = ½ ∫₀¹ γ′(t) E‖ε − ε̂(x_t)‖² dt = ½ ∫ E‖ε − ε̂(x_γ)‖² dγ

In continuous time the bound knows the ends of γ alone. What γ is between them decides which noise
levels a uniform t falls on, and so how one draw of (t, ε) scatters. With p = 1/γ′ the density of
the levels, the second moment of a draw is

    E L² = ¼ ∫ E‖ε − ε̂‖⁴/p dγ  ≥  ¼ (∫ √(E‖ε − ε̂‖⁴) dγ)²,      least for p ∝ √(E‖ε − ε̂‖⁴)

`ScheduleLoss` makes it small. Its gradient is that of p at a level that is held: no derivative of
the score is asked for. γ is a sum of a line and of sigmoids with positive weights, hence monotone.

`VariationalDiffusion` learns a network and its schedule together. Any network that is told the
noise level and not t, such as that of `EDMPrediction`, is moved to the new clock by
`LearnedSchedule.rescheduled(model)`; it may then be trained on, with times uniform there. The
exact score of a mixture is `mixture.noised(schedule.path()).score`.

Reference:
    Kingma et al. 2021, sections 5.1 and 5.2 and appendix I, arXiv:2107.00630.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count
from sdegen.core.requests import as_number, check_function, check_kind
from sdegen.core.shapes import ScoreFn, State, expand
from sdegen.diffusion.gaussian_path import VP, GaussianPath, check_gaussian_path
from sdegen.diffusion.origin import check_origin
from sdegen.diffusion.tables import TabulatedBeta
from sdegen.score.model import ScoreModel
from sdegen.training.loss import Batch, BatchNoise, Loss

_STRAIGHT = 0.05  # weight of each sigmoid beside a line of weight 1, at first


class LearnedSchedule(nn.Module):
    """γ(t) on [0, 1], of any shape of t, increasing between given ends: a line and sigmoids.

        γ(t) = −log SNR = log σ²/α²

    It begins nearly straight.

    Args:
        low: γ(0).
        high: γ(1).
        width: Sigmoids.

    Raises:
        TypeError: If a number is none.
        ValueError: Unless low < high, both finite.

    Example:
        >>> schedule = sg.LearnedSchedule(-9.0, 9.0)
        >>> schedule(torch.tensor([0.0, 1.0])).tolist()
        [-9.0, 9.0]
        >>> t = (torch.arange(1000.0) + 0.5) / 1000
        >>> f"{schedule.rate(t).mean().item():.3f}"  # ∫ γ′ dt = 9 + 9
        '18.000'
    """

    def __init__(self, low: float, high: float, width: int = 24) -> None:
        super().__init__()
        self.low: float = as_number("low", low)
        self.high: float = as_number("high", high)
        if not -float("inf") < self.low < self.high < float("inf"):
            raise ValueError(
                f"low must be below high, both finite, but they are {self.low:g} and "
                f"{self.high:g}."
            )
        check_count("width", width)
        self.centres: nn.Parameter = nn.Parameter(torch.linspace(0, 1, width, dtype=torch.float64))
        self.log_slopes: nn.Parameter = nn.Parameter(
            torch.full((width,), float(width)).double().log()
        )
        self.log_weights: nn.Parameter = nn.Parameter(
            torch.full((width,), _STRAIGHT).double().log()
        )

    @classmethod
    def between(cls, sde: GaussianPath, width: int = 24) -> LearnedSchedule:
        """Return one whose ends are those of a path, at t_min and t_max.

        Args:
            sde: The path.
            width: Sigmoids.

        Raises:
            TypeError: If sde is no `GaussianPath`.
            ValueError: If no signal is left at t_max.
        """
        low, high = _ends(check_gaussian_path(sde))
        return cls(low, high, width)

    def forward(self, t: Tensor) -> Tensor:
        """Return γ(t), float64, shape of t."""
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=self.centres.device)
        first, last = self._raw(ends)
        share = (self._raw(t.double()) - first) / (last - first)
        gamma: Tensor = self.low + (self.high - self.low) * share
        return gamma

    def rate(self, t: Tensor) -> Tensor:
        """Return γ′(t) > 0, float64, shape of t."""
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=self.centres.device)
        first, last = self._raw(ends)
        weights, slopes = self.log_weights.exp(), self.log_slopes.exp()
        bent = torch.sigmoid(slopes * (t.double()[..., None] - self.centres))
        raw = 1 + (weights * slopes * bent * (1 - bent)).sum(-1)
        rate: Tensor = (self.high - self.low) * raw / (last - first)
        return rate

    def path(self, nodes: int = 256) -> VP:
        """Return the path of this clock: a VP-SDE with a table of ᾱ, for every sampler.

        Its t in [t_min, 1], t_min = 1/nodes, runs evenly through [0, 1] here.

        Args:
            nodes: Levels of the table, between which log SNR is a monotone cubic.
        """
        check_count("nodes", nodes, 2)
        with torch.no_grad():
            t = torch.linspace(0, 1, nodes, dtype=torch.float64, device=self.centres.device)
            alpha_bars = torch.sigmoid(-self(t))
        return VP(TabulatedBeta(alpha_bars.cpu()), t_min=1 / nodes)

    def rescheduled(self, model: ScoreModel, nodes: int = 256) -> ScoreModel:
        """Return a model on this clock: the same network, and the same score at each level.

        Args:
            model: Its network is told the noise level, as by `EDMPrediction`, and shared.
            nodes: Of the table of `path`.

        Raises:
            TypeError: If model is no `ScoreModel`, or its SDE no `GaussianPath`.
            ValueError: If its network is told t, of which it would know another level then.
        """
        _check_told_the_level(model)
        moved = ScoreModel(model.network, self.path(nodes), model.parameterization)
        moved.event_shape = model.event_shape
        return moved

    def _raw(self, t: Tensor) -> Tensor:
        """Return γ before it is brought to its ends."""
        slopes = self.log_slopes.exp()
        bent = torch.sigmoid(slopes * (t[..., None] - self.centres))
        return t + (self.log_weights.exp() * bent).sum(-1)


@dataclass(frozen=True)
class ScheduleLoss(Loss):
    """The second moment of the bound's estimate on a schedule, for a score that is known.

        ℓ = (½ γ′(t) ‖ε − ε̂‖²/d)²,     shape (n,)

    Its mean over t and ε is least where uniform t scatter least.

    Args:
        sde: The path that the score is of; its range holds the schedule's.
        score: ∇ log p_t(x) of it, exact or learned; it is not changed.

    Raises:
        TypeError: If an argument is of the wrong kind, or a module is no `LearnedSchedule`.
        ValueError: If the score is of another path, or a schedule goes beyond it.

    Example:
        >>> path = sg.LearnedSchedule(-5.0, 5.0).path()
        >>> loss = sg.ScheduleLoss(path, lambda x, t: -x)  # of data N(0, 1): E ‖ε − ε̂‖² = α²
        >>> x = torch.special.ndtri((torch.arange(1000.0) + 0.5) / 1000)[:, None]
        >>> config, schedule = sg.FitConfig(1, batch_size=16384), sg.LearnedSchedule(-4.0, 4.0)
        >>> result = sg.fit(schedule, x, loss, config, rng=0)
        >>> f"{result.logs['diffusion'].item():.1f}"  # ½ ∫ α² dγ = ½ log (1 + e⁴)/(1 + e⁻⁴)
        '2.0'
    """

    sde: GaussianPath
    score: ScoreFn
    _span: tuple[float, float] = field(init=False, repr=False, default=(0.0, 0.0))

    def __post_init__(self) -> None:
        check_gaussian_path(self.sde)
        check_function("score", self.score, "a function (x, t) -> ∇ log p_t(x)")
        check_origin(self.score, self.sde)
        object.__setattr__(self, "_span", _ends(self.sde))

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no schedule, or one that goes where the score is not known."""
        check_kind("module", module, LearnedSchedule, "a LearnedSchedule(low, high)")
        schedule, (low, high) = cast(LearnedSchedule, module), self._span
        slack = 1e-9 * (high - low)
        if schedule.low < low - slack or schedule.high > high + slack:
            raise ValueError(
                f"the schedule runs from γ = {schedule.low:.4g} to {schedule.high:.4g}, but the "
                f"score is known from {low:.4g} to {high:.4g}; take LearnedSchedule.between(sde)."
            )
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return ℓ of each row, shape (n,), and the estimate of ∫ itself, in nats."""
        schedule, x = cast(LearnedSchedule, module), batch.rows
        with torch.no_grad():
            estimate, ratio = _estimate(schedule, self.sde, self.score, x, noise)
        return (estimate / x[0].numel()).square() * ratio(), {"diffusion": estimate}


class VariationalDiffusion(nn.Module):
    """A score model and its schedule, learned together.

        L = ½ ∫₀¹ γ′(t) E‖ε − ε̂(x_t)‖² dt,     x_t = α x_0 + σ ε of shape (batch, *event)

    The bound teaches the network, its second moment the schedule, from the same draws; in
    continuous time neither is in the other's way.

    Args:
        model: What is trained; its network is told the noise level, as by `EDMPrediction`.
        width: Sigmoids of the schedule.

    Raises:
        TypeError: If model is no `ScoreModel` of a `GaussianPath`.
        ValueError: If its network is told t, or no signal is left at t_max.

    Reference:
        Kingma et al. 2021, section 5.2 and appendix I.2, arXiv:2107.00630.

    Example:
        >>> path = sg.LearnedSchedule(-5.0, 5.0).path()
        >>> model = sg.ScoreModel(sg.MLP(1, width=8, depth=1, rng=0), path, sg.EDMPrediction(1.0))
        >>> schedule = sg.VariationalDiffusion(model).schedule
        >>> [f"{end:.2f}" for end in (schedule.low, schedule.high)]  # γ at t_min and t_max
        ['-5.00', '5.00']
    """

    def __init__(self, model: ScoreModel, width: int = 24) -> None:
        super().__init__()
        _check_told_the_level(model)
        self.model = model
        self.schedule: LearnedSchedule = LearnedSchedule.between(model.path, width)

    def rescheduled(self, nodes: int = 256) -> ScoreModel:
        """Return the model on the clock that was learned with it, as `LearnedSchedule` does."""
        return self.schedule.rescheduled(self.model, nodes)


@dataclass(frozen=True)
class VariationalDiffusionLoss(Loss):
    """The integral of the bound, for the network, and its second moment, for the schedule.

        ℓ = ½ γ′ ‖ε − ε̂‖²/d + (γ′ ‖ε − ε̂‖²/(d (γ(1) − γ(0))))²,     shape (n,)

    Through the first no gradient goes to the schedule, which it does not depend on, through the
    second none to the network.

    Raises:
        TypeError: If a module is no `VariationalDiffusion`.

    Example:
        >>> path = sg.LearnedSchedule(-5.0, 5.0).path()
        >>> model = sg.ScoreModel(sg.MLP(1, width=8, depth=1, rng=0), path, sg.EDMPrediction(1.0))
        >>> x = torch.special.ndtri((torch.arange(1000.0) + 0.5) / 1000)[:, None]  # N(0, 1)
        >>> joint, config = sg.VariationalDiffusion(model), sg.FitConfig(1, batch_size=16384)
        >>> result = sg.fit(joint, x, sg.VariationalDiffusionLoss(), config, rng=0)
        >>> f"{result.logs['diffusion'].item():.1f}"  # untrained, F = 0 is right: ½ ∫ α² dγ = 5/2
        '2.5'
    """

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no `VariationalDiffusion`."""
        check_kind("module", module, VariationalDiffusion, "a VariationalDiffusion(model)")
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return ℓ of each row, shape (n,), and the estimate of the integral, in nats."""
        joint, x = cast(VariationalDiffusion, module), batch.rows
        schedule, model = joint.schedule, joint.model
        estimate, ratio = _estimate(schedule, model.path, model.score, x, noise)
        half, d = 0.5 * (schedule.high - schedule.low), x[0].numel()
        moment = (estimate.detach() / (d * half)).square() * ratio()
        return estimate / d + moment, {"diffusion": estimate, "moment": moment}


def _estimate(
    schedule: LearnedSchedule, sde: GaussianPath, score: ScoreFn, x: State, noise: BatchNoise
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Return ½ γ′ ‖ε − ε̂‖² of each row, and what makes 1/p at its level, relative to now.

    Args:
        schedule: The clock; no gradient goes to it from the first.
        sde: The path that the score is of.
        score: ∇ log p_t(x) of it.
        x: Points, shape (n, *event).
        noise: The random numbers of this step.
    """
    u = noise.stratified().to(x.device)
    with torch.no_grad():
        level, pace = schedule(u), schedule.rate(u)
        t = sde.kernel.time_of_log_nsr(0.5 * level, sde.t_min, sde.t_max)

    def ratio() -> Tensor:
        # the time at which the level that was drawn is reached, as the weights move
        moved = u - (schedule(u) - level) / pace
        return schedule.rate(moved) / pace

    return 0.5 * pace * noise_errors(sde, score, x, noise.normal_like(x), t), ratio


def _check_told_the_level(model: object) -> None:
    """Refuse a model whose network is told t."""
    check_kind("model", model, ScoreModel, "a ScoreModel(network, sde, EDMPrediction())")
    path, how = cast(ScoreModel, model).path, cast(ScoreModel, model).parameterization
    t = torch.linspace(path.t_min, path.t_max, 5, dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    if not torch.equal(how.c_noise(t, alpha, sigma), how.c_noise(t.flip(0), alpha, sigma)):
        raise ValueError(
            f"the network of this {type(how).__name__} is told t, which means another noise level "
            "on another clock; take EDMPrediction() or FlowPrediction(), whose networks are told "
            "the level."
        )


def noise_errors(sde: GaussianPath, score: ScoreFn, x0: State, eps: State, t: Tensor) -> Tensor:
    """Return ‖ε − ε̂(α x0 + σ ε)‖², ε̂ = −σ score, shape (n,), float64.

    Args:
        sde: The path.
        score: ∇ log p_t(x).
        x0: Points, shape (n, *event).
        eps: Their noise, same shape.
        t: Their times, shape (n,).

    Raises:
        ValueError: If the score returns another shape.
    """
    told = t.to(x0)
    alpha, sigma = (expand(one(told.double()), eps.double()) for one in (sde.alpha, sde.sigma))
    state = (alpha * x0 + sigma * eps).to(x0.dtype)
    predicted = score(state, told)
    if predicted.shape != state.shape:
        raise ValueError(
            f"score must return x's shape {tuple(state.shape)}, but returned "
            f"{tuple(predicted.shape)}."
        )
    return (sigma * predicted.double() + eps).square().flatten(1).sum(1)


def _ends(sde: GaussianPath) -> tuple[float, float]:
    """Return γ at t_min and t_max."""
    if sde.ends_without_signal:
        raise ValueError(
            "no signal is left at t_max of this path, where log SNR is −∞; take one that ends "
            "before, such as VP(LinearBeta(0.1, 20.0))."
        )
    t = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
    low, high = (2 * sde.kernel.log_ratio(t)).tolist()
    return low, high
