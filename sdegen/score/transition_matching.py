"""Transition matching: the score of any SDE that can be simulated, from its paths.

    L = E_t E ‖ŝ(X_t, t) − H‖²/m₂(t),        ∇ log p_t(x) = E[H | X_t = x]

A Gaussian kernel is not needed: paths are simulated from data, and a *target* H says what a path
tells of the score at its end (`sdegen.score.targets`). All targets have the same expectation,
but for the linearised one; their variance decides how much is learned from a path. Measured on f =
x − x³, D = ½, t = 1, steps of 0.005, beside E s² = 3.7: the variance of H given x is

    "one-step"       200       any noise; no derivative of the drift
    "malliavin"      5.6       window 0.2; any invertible noise
    "linearised"     5         window 0.2; biased by O(window); additive noise
    "reverse-flow"   0.76      the whole path; additive or diagonal noise

**Which one.** With kind=None: "reverse-flow" where noise is additive or diagonal and autograd sees
the drift; "malliavin" where noise is a matrix G(x); "one-step" where the drift is not seen by
autograd. What a kind is not for is refused by name.

**Window.** The time that a target remembers. None is 0.3/|∇f| for "linearised", and else what a
pilot finds, for "malliavin" among 1.2, 0.6 and 0.3 of 1/|∇f|, for "reverse-flow" among 8, 4 and 2
of it and the whole path: that whose E |H − base|² is at no time much larger than the least of all
there. Long windows have less variance where the flow back contracts, and heavy tails where it does
not, as on barriers.

**Steps.** The target is exact for Euler's chain, so that what is learned is the score of the
chain, which is O(h) from that of the SDE: by about h |∇f|/2, 0.5 % at the step of None.

**Blocks.** Paths are simulated in blocks, from data drawn with replacement, and read at random
times, uniform in √t; a block serves for some steps of the optimizer. Its random numbers are
those of the first of these steps, so that a resumed training has the same blocks. m₂(t) = E‖H −
base‖²/d, from the pilot, makes each noise level count alike: the loss of a network that returns 0
is about 1 at every t.

Reference:
    ∇ log p_t as an expectation over paths: arXiv:2503.16917; windows and the linearised kernel:
    arXiv:2407.07998.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, cast, get_args

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_positive, check_share, check_word
from sdegen.core.noise import Stream, stream
from sdegen.core.requests import check_kind
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.score.model import ScoreModel, with_labels
from sdegen.score.paths import Readings, path_nodes, read_times, simulate_paths
from sdegen.score.targets.base import Target
from sdegen.score.targets.choice import (
    TargetKind,
    check_simulable,
    kind_for,
    rate_of,
    target_of,
)
from sdegen.training.loss import Batch, BatchNoise, Loss

_FRESH_READS = 8  # of which a validation takes one for each path
_PILOT, _PILOT_READS, _PILOT_STEP = 2048, 48, 2.0  # paths, readings, and steps beside others
_STEP = 0.01  # of the time in which a drift changes, 1/|∇f|: an error of half a percent
_MOST = 0.01  # of t_max, longest step
_WINDOWS: dict[TargetKind, tuple[float, ...]] = {  # of 1/|∇f|, that a pilot tries
    "one-step": (math.inf,),
    "linearised": (0.3,),
    "malliavin": (1.2, 0.6, 0.3),
    "reverse-flow": (math.inf, 8.0, 4.0, 2.0),
}


@dataclass(frozen=True)
class _Plan:
    """What one training simulates.

    Args:
        sde: What moves.
        target: What is read.
        times: t_min and t_max.
        step: The longest step.
        rows: Data, where paths begin.
        labels: Their classes, or None.
        levels: Times at which m₂ is known, increasing.
        moments: m₂ there.
    """

    sde: SDE
    target: Target
    times: tuple[float, float]
    step: float
    rows: State
    labels: Tensor | None
    levels: Tensor
    moments: Tensor

    def block(self, rows: State, reads: int, source: Stream) -> Readings:
        """Simulate paths from some rows, and read each of them so many times."""
        generator = source.generator()
        shift = float(torch.rand((), generator=generator))
        offset = torch.rand(reads, generator=generator, dtype=torch.float64)
        nodes = path_nodes(*self.times, self.step, shift)
        when = read_times(*self.times, (torch.arange(reads) + offset) / reads)
        return simulate_paths(self.sde, self.target, rows, nodes, when, source)


@dataclass
class _Buffer:
    """The block that serves now.

    Args:
        number: Which it is.
        readings: Its states and targets.
        labels: Of its paths, or None.
    """

    number: int = -1
    readings: Readings | None = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class TransitionMatching(Loss):
    """Learn the score of an SDE without a kernel, from simulated paths X_t, (paths, *event).

        L = E_t E ‖ŝ(X_t, t) − H‖²/m₂(t),     ∇ log p_t(x) = E[H | X_t = x]

    Args:
        kind: The target: "one-step", "linearised", "malliavin" or "reverse-flow"; None is chosen
            by what the SDE is, as on this page.
        window: w > 0, the time that a target remembers, in units of t; None has it found.
        step: h > 0, the longest step of a path, in units of t; None is 0.01/|∇f|.
        paths: Paths of a block.
        reads: Times at which each path is read. Readings of one path tell much of the same: more
            paths tell more, and cost more.
        reuse: How often a reading of a block is seen, in the mean, before the next block.
        label_dropout: Share of the rows of a step whose label is kept from the network.

    Raises:
        TypeError: If it is asked for a module that is no `ScoreModel`, or a number is none.
        ValueError: If a kind is misspelt or not one of the SDE's, if a window is given for
            "one-step", or a number is out of range.

    Example:
        >>> well = sg.ItoProcess(lambda x: x - x**3, 1.0)
        >>> model = sg.ScoreModel(sg.MLP(1, width=16, depth=1, rng=0), well, times=(0.05, 1.0))
        >>> config, loss = sg.TrainConfig(steps=1), sg.TransitionMatching(paths=256, step=0.05)
        >>> losses = sg.train(model, torch.zeros(64, 1), config, loss=loss, rng=0).losses
        >>> f"{losses.item():.1f}"  # untrained, ŝ = 0: E H²/m₂
        '1.0'
    """

    kind: TargetKind | None = None
    window: float | None = None
    step: float | None = None
    paths: int = 8192
    reads: int = 32
    reuse: float = 1.0
    label_dropout: float = 0.1
    needs_all_rows: ClassVar[bool] = True
    validation_passes: ClassVar[int] = 4
    _plan: _Plan | None = field(default=None, init=False, repr=False, compare=False)
    _buffer: _Buffer = field(default_factory=_Buffer, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind is not None:
            check_word("kind", self.kind, get_args(TargetKind))
        for name in ("window", "step"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_count("paths", self.paths)
        check_count("reads", self.reads)
        check_positive("reuse", self.reuse)
        check_share("label_dropout", self.label_dropout)
        if self.kind == "one-step" and self.window is not None:
            raise ValueError(
                f"window = {self.window:g} is given, but kind='one-step' has the last step alone; "
                "leave window out."
            )

    def prepare(self, module: nn.Module, batch: Batch) -> Self:
        """Return the loss with its target, window and step, found by a pilot; or refuse."""
        prepared = copy.copy(self)
        object.__setattr__(prepared, "_plan", self._planned(module, batch))
        object.__setattr__(prepared, "_buffer", _Buffer())
        return prepared

    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> Tensor:
        """Return the loss of each row, shape (n,)."""
        plan = self._planned(module, batch) if self._plan is None else self._plan
        model = cast(ScoreModel, module)
        if module.training:
            t, x, target, labels = self._drawn(plan, noise)
        else:
            t, x, target, labels = _fresh(plan, batch, noise)
        if labels is not None:
            if module.training:
                hidden = noise.uniform().to(labels.device) < self.label_dropout
                labels = labels.masked_fill(hidden, int(cast(Any, model.network).classes))
            model = with_labels(model, labels)
        t = t.to(x)
        error = (model.score(x, t) - target).square().flatten(1).mean(1)
        return error / _between(plan.levels.to(x), plan.moments.to(x), t)

    def _drawn(self, plan: _Plan, noise: BatchNoise) -> tuple[Tensor, State, State, Tensor | None]:
        """Return readings of the block that this step belongs to, drawn with replacement."""
        length = max(1, round(self.paths * self.reads * self.reuse / noise.total))
        number, source = noise.block(length)
        buffer = self._buffer
        if buffer.readings is None or buffer.number != number:
            source = source.child("paths")
            rows = torch.randint(len(plan.rows), (self.paths,), generator=source.generator())
            rows = rows.to(plan.rows.device)
            buffer.labels = None if plan.labels is None else plan.labels[rows]
            buffer.readings = plan.block(plan.rows[rows], self.reads, source)
            buffer.number = number
        readings = buffer.readings
        count = readings.x.shape[0] * self.paths
        which = (noise.uniform().double() * count).long().clamp(max=count - 1)
        when, path = which // self.paths, (which % self.paths).to(readings.x.device)
        on = when.to(readings.x.device)
        labels = None if buffer.labels is None else buffer.labels[path]
        return readings.t[when], readings.x[on, path], readings.target[on, path], labels

    def _planned(self, module: nn.Module, batch: Batch) -> _Plan:
        """Return what is simulated, or refuse a module and a process that it is not for."""
        check_kind("module", module, ScoreModel, "a ScoreModel, whose SDE is simulated")
        model, rows = cast(ScoreModel, module), batch.rows
        sde = model.sde
        check_simulable(sde, "TransitionMatching")
        if not model.form.is_prepared(model):  # `train` does it before, `fit` knows no forms
            model.form.prepare(model, rows)
        times = model_times(model)
        zero = torch.zeros((), dtype=torch.float64)
        source = stream(0, "pilot of a transition matching")
        some = torch.randint(len(rows), (_PILOT,), generator=source.generator()).to(rows.device)
        start = rows[some]
        rate = max(rate_of(sde, start, zero), 1 / times[1])
        kind = kind_for(sde, start, zero) if self.kind is None else self.kind
        step = _step(rate, times[1]) if self.step is None else self.step
        plans: list[tuple[_Plan, Readings]] = []
        for window in self._windows(kind, rate):
            target = target_of(sde, kind, window, start, zero)
            coarse = _PILOT_STEP * step
            blank = _Plan(sde, target, times, coarse, rows, batch.labels, zero[None], zero[None])
            seen = blank.block(start, _PILOT_READS, source.child("pilot"))
            if self.step is None and not plans:
                rate = max(rate, rate_of(sde, seen.x[-1], seen.t[-1]))
                step = _step(rate, times[1])
            plans.append((blank, seen))
        return _best(plans, model, step)

    def _windows(self, kind: TargetKind, rate: float) -> list[float]:
        """Return the windows that a pilot tries."""
        if self.window is not None:
            return [self.window]
        return [w / rate for w in _WINDOWS[kind]]


def model_times(model: ScoreModel) -> tuple[float, float]:
    """Return t_min and t_max of a model, or refuse one that has none.

    Raises:
        ValueError: Saying how to give them.
    """
    if model.times is None:
        raise ValueError(
            f"this {type(model.sde).__name__} says nothing of the times at which its score is "
            "learned; pass them, ScoreModel(network, sde, times=(0.01, 4.0))."
        )
    return model.times


def _step(rate: float, t_max: float) -> float:
    """Return the longest step of a drift that changes at a rate."""
    return min(_STEP / rate, _MOST * t_max)


def _best(plans: list[tuple[_Plan, Readings]], model: ScoreModel, step: float) -> _Plan:
    """Return the plan whose m₂ is the fewest times the least at its worst time, with its m₂."""
    every = []
    for _, seen in plans:
        t, x = seen.t, seen.x
        with torch.no_grad():
            base = model.form.base_score(model, x.flatten(0, 1), t.repeat_interleave(x.shape[1]))
        rest = (seen.target - base.reshape(x.shape)).square().flatten(1).double()
        moments = rest.mean(1).cpu()
        every.append(torch.where(moments.isfinite(), moments, math.inf))
    table = torch.stack(every)
    worst = (table / table.amin(0)).nan_to_num(math.inf, posinf=math.inf).amax(1)
    least = int(worst.argmin())
    if not bool(worst.isfinite().any()):
        raise ValueError(
            f"paths of this {type(model.sde).__name__} are not finite at steps of {step:.3g}; "
            "pass a shorter one, TransitionMatching(step=…), or scale the data."
        )
    plan, seen = plans[least]
    return replace(plan, step=step, levels=seen.t, moments=table[least])


def _fresh(
    plan: _Plan, batch: Batch, noise: BatchNoise
) -> tuple[Tensor, State, State, Tensor | None]:
    """Return one reading of a path from each row, of rows that are not those of the training."""
    seen = plan.block(batch.rows, _FRESH_READS, stream(noise.seed(), "validation paths"))
    when = (torch.arange(len(batch)) * 5) % _FRESH_READS
    path = torch.arange(len(batch), device=batch.rows.device)
    on = when.to(path.device)
    return seen.t[when], seen.x[on, path], seen.target[on, path], batch.labels


def _between(levels: Tensor, values: Tensor, t: Tensor) -> Tensor:
    """Interpolate a table linearly, constant beyond its ends."""
    if len(levels) == 1:
        return values.expand_as(t)
    right = torch.searchsorted(levels, t.contiguous()).clamp(1, len(levels) - 1)
    low, high = levels[right - 1], levels[right]
    share = ((t - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share)
