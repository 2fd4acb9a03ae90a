"""TimedLoss: what losses of a score share: a weighting, times, and classes that are left out."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast, get_args

from torch import Tensor, nn

from sdegen.core.checks import check_flag, check_share, check_word
from sdegen.core.requests import check_function, check_kind
from sdegen.core.shapes import State
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.config import Weighting
from sdegen.score.learned_variance import LearnedVariance
from sdegen.score.losses.times import StepSampler, TimeSampler, TimeWord
from sdegen.score.losses.weights import SCORE_WORDS, WeightFn, checked, trace_weight
from sdegen.score.model import ScoreModel, with_labels
from sdegen.training.loss import Batch, BatchNoise, Loss

_LATER = {"times": "importance", "stratified": True, "steps": None}  # what version 0.2 had not


@dataclass(frozen=True)
class TimedLoss(Loss):
    """A loss of a score at times of a density.

    Args:
        weighting: Which noise levels count: a word, or w(t), a function of float64 times of shape
            (n,) that returns weights ≥ 0 of the same shape.
        label_dropout: Share of the rows of a step whose label is kept from the network.
        times: From which density times are drawn: "importance", "uniform", "log-snr", or q(t) > 0,
            a function like w.
        stratified: Whether a batch of n has one time in each n-th of the density.
        steps: A DDPM chain whose steps are the times, in the place of [t_min, t_max].

    Raises:
        TypeError: If weighting or times are neither words nor functions, or steps are no chain.
        ValueError: If a word is unknown, or the share is outside [0, 1].
    """

    weighting: Weighting | WeightFn = "likelihood"
    label_dropout: float = 0.1
    times: TimeWord | WeightFn = field(default="importance", kw_only=True)
    stratified: bool = field(default=True, kw_only=True)
    steps: DDPM | None = field(default=None, kw_only=True)
    validation_passes: ClassVar[int] = 8
    teaches_variance: ClassVar[bool] = False
    _times: TimeSampler | StepSampler | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name, words in (("weighting", get_args(Weighting)), ("times", get_args(TimeWord))):
            value = getattr(self, name)
            if isinstance(value, str):
                check_word(name, value, words)
            else:
                what = "w(t)" if name == "weighting" else "q(t)"
                check_function(name, value, f"a word, or a function {what} of times")
        check_share("label_dropout", self.label_dropout)
        check_flag("stratified", self.stratified)
        if self.steps is not None:
            expected = "a DDPM chain, such as DDPM.discretize(sde, steps=1000), or None"
            check_kind("steps", self.steps, DDPM, expected)

    def spec(self) -> dict[str, Any]:
        """Return what tells the loss from others, without options that are as always."""
        spec = super().spec()
        plain = {name: getattr(self, name) == value for name, value in _LATER.items()}
        return {name: value for name, value in spec.items() if not plain.get(name, False)}

    def prepare(self, module: nn.Module, batch: Batch) -> Self:
        """Return the loss with its distribution of times; refuse a module that is no score."""
        prepared = copy.copy(self)
        object.__setattr__(prepared, "_times", self.sampler(module, batch))
        return prepared

    def sampler(self, module: nn.Module, batch: Batch) -> TimeSampler | StepSampler:
        """Return the distribution of times, or refuse a module that is no score.

        Args:
            module: The model.
            batch: Rows, of which one is looked at.

        Raises:
            TypeError: If it is no `ScoreModel`.
            ValueError: If its process has not what the weighting needs.
        """
        model = check_score_model(module)
        if isinstance(model.parameterization, LearnedVariance) and not self.teaches_variance:
            raise ValueError(
                f"{type(self).__name__} would leave the variance of LearnedVariance as it is: "
                "pass loss=HybridLoss(steps=DDPM.discretize(model.sde, steps=1000)), with the "
                "chain that will be sampled."
            )
        if isinstance(model.sde, GaussianPath):
            if model.sde.ends_without_signal:
                self._check_output(model.sde)
            if self.steps is not None:
                return StepSampler(model.sde, self.steps, self.weighting, self.times)
            return TimeSampler(model.sde, self.weighting, self.times)
        return self._of_kernel(model, batch.rows)

    def _check_output(self, sde: GaussianPath) -> None:
        """Refuse errors of ε, and levels of log SNR, where no signal is left at t_max."""
        if self.weighting != "flow-matching":
            raise ValueError(
                f"at t_max = {sde.t_max:g} of this path no signal is left, and an error of ε says "
                f"nothing of x0 there: weighting = {self.weighting!r} would teach nothing. "
                "Pass weighting='flow-matching', which counts the error of the network's own "
                "output, that of v or x0, at all times alike."
            )
        if self.times == "log-snr" and self.steps is None:
            raise ValueError(
                f"times = 'log-snr' has no end at t_max = {sde.t_max:g} of this path, where no "
                "signal is left; take 'importance', 'uniform' or a function q(t)."
            )

    def _of_kernel(self, model: ScoreModel, rows: State) -> TimeSampler:
        """Return the distribution of times of a process whose kernel is not of numbers."""
        name, weighting = type(model.sde).__name__, self.weighting
        if model.sde.noise_kernel is None:
            raise ValueError(
                f"{type(self).__name__} noises data by a Gaussian kernel, which {name} has not; "
                "leave loss out, and train chooses one that simulates, or give samples of p_t to "
                "ImplicitLoss(at=…)."
            )
        if model.times is None:
            raise ValueError(
                f"{name} has no t_min and t_max between which to learn its score; pass "
                "ScoreModel(…, times=(t_min, t_max))."
            )
        if self.steps is not None:
            raise ValueError(f"steps need numbers α and σ, which {name} has not; leave them out.")
        if isinstance(weighting, str) and weighting not in ("simple", *SCORE_WORDS):
            raise ValueError(
                f"weighting = {weighting!r} needs numbers α and σ, which {name} has not; take "
                "'simple', 'likelihood' or a function w(t)."
            )
        if self.times == "log-snr":
            raise ValueError(
                f"times = 'log-snr' needs numbers α and σ, which {name} has not; take "
                "'importance', 'uniform' or a function q(t)."
            )
        if weighting in SCORE_WORDS:
            like = model.form.like_state(rows[:1]).detach().double().cpu()
            weight = trace_weight(model.sde, like)
        elif weighting == "simple":
            weight = _ones
        else:
            weight = checked(cast(WeightFn, weighting))
        return TimeSampler(None, weighting, self.times, weight=weight, span=model.times)

    def draw(
        self, model: ScoreModel, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Draw a time for each row.

        Returns:
            Times, float64 on the CPU, shape (n,); w/(Z q) there, or None where it is 1; and the
            quantiles that the times are.
        """
        times = self.sampler(model, batch) if self._times is None else self._times
        u = noise.stratified() if self.stratified else noise.uniform().double()
        if self.stratified and not model.training:
            # validation rows stand in order, those of a step do not
            u = u[noise.permutation()]
        t = times.quantile(u)
        return t, times.ratio(u, t), u

    def told(self, model: ScoreModel, batch: Batch, noise: BatchNoise) -> ScoreModel:
        """Return the model that knows the labels of a batch, of which a share is left out."""
        if batch.labels is None:
            return model
        labels = batch.labels
        if model.training and not labels.is_floating_point():  # a condition is never left out
            hidden = noise.uniform() < self.label_dropout
            classes = int(cast(Any, model.network).classes)
            labels = labels.masked_fill(hidden.to(labels.device), classes)
        return with_labels(model, labels)


def check_score_model(module: nn.Module) -> ScoreModel:
    """Return a module as the score model that it is, or refuse it.

    Raises:
        TypeError: If it is none.
    """
    check_kind("module", module, ScoreModel, "a ScoreModel, whose SDE adds the noise")
    return cast(ScoreModel, module)


def _ones(t: Tensor) -> Tensor:
    return t.new_ones(t.shape)
