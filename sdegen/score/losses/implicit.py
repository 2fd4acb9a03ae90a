"""Implicit and sliced score matching: scores of samples, with no noise to be told.

    J = E_{x ~ p} [½ ‖s(x)‖² + ∇·s(x)] = ½ E ‖s − ∇ log p‖² − ½ E ‖∇ log p‖²

by integration by parts, for a p that falls off at infinity. Nothing but samples of p is asked for:
no kernel, no x0. The price is a divergence, d derivatives of the network, and a loss with no lower
bound on finitely many samples: a network that is free to makes s steep at each of them.

**Sliced** score matching asks for derivatives along random directions v, E v vᵀ = I, alone:

    J = E_v E [vᵀ ∇s v + ½ (vᵀ s)²],        with less variance        E_v E [vᵀ ∇s v + ½ ‖s‖²]

the second being the trace of the Jacobian by Hutchinson's estimate.

**Where the samples come from.** By default rows are data, which the model's process noises as for
`DenoisingLoss`; on a Gaussian path the loss is then

    (1/Z) ∫ w(t) (2 σ(t)²/d) J(t) dt = denoising loss − 1,

since E ‖ε̂ − ε‖²/d = (2 σ²/d) J + 1: both have the same gradient in expectation. With
`at` rows are samples of p_t themselves: a number for the one t of all of them, or "labels", where
`fit` is given the time of each row as its label. The loss is then J, and any SDE will do; the mean
and width of p_t that a process without a kernel scales its network's input by are those of rows.

Reference:
    Hyvärinen 2005, theorem 1, JMLR 6, 695; Song, Garg, Shi and Ermon 2019, eqs. (7) and (8),
    arXiv:1905.07088.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self, cast, get_args

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_flag, check_word
from sdegen.core.requests import as_number, is_word
from sdegen.core.shapes import State, Time
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.config import Weighting
from sdegen.score.losses.timed import TimedLoss, check_score_model
from sdegen.score.losses.times import StepSampler, TimeSampler
from sdegen.score.losses.weights import IN_OUTPUT, WeightFn, checked
from sdegen.score.model import ScoreModel
from sdegen.score.model_checks import check_derivative
from sdegen.training.loss import Batch, BatchNoise

Directions = Literal["rademacher", "gaussian", "sphere"]

_MOST = 64  # numbers of a state, each of which costs one derivative


@dataclass(frozen=True)
class ImplicitLoss(TimedLoss):
    """Implicit score matching, with the exact divergence; s = ∇ log p_t, states (batch, *event).

        J = E [½ ‖s‖² + ∇·s] = ½ E ‖s − ∇ log p‖² − ½ E ‖∇ log p‖²

    Args:
        weighting: Which noise levels count, as `DenoisingLoss` has it, in the error of ε; or w(t),
            a function of times. For a process without α and σ, and with `at`, weights are w(t)
            itself, "simple" being 1.
        label_dropout: Share of the rows of a step whose label is kept from the network.
        at: None, where rows are data, which the process noises; a time t, where they are samples
            of p_t; "labels", where the labels that `fit` is given are the time of each row.
        times: As `DenoisingLoss` has it.
        stratified: The same.
        steps: The same.

    Raises:
        TypeError: If the module is no `ScoreModel`, or `at` is none of these.
        ValueError: If states have more than 64 numbers, labels are not times, or the weighting
            counts errors of an output.

    Reference:
        Hyvärinen 2005, theorem 1, JMLR 6, 695.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])  # variance 5/2
        >>> network = sg.MLP(1, width=4, depth=1, rng=0)
        >>> model = sg.ScoreModel(network, sg.VP(sg.ConstantBeta(2.0)), sg.ScorePrediction())
        >>> _ = network.gate.bias.data.fill_(-0.4)  # a network that is s = −0.4 x
        >>> J = sg.ImplicitLoss(at=0.5).objective(model, x, torch.full((4,), 0.5), None).mean()
        >>> f"{J.item():.3f}"  # ½ · 0.4² · 5/2 − 0.4, the least of all slopes
        '-0.200'
    """

    weighting: Weighting | WeightFn = "simple"
    at: float | Literal["labels"] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.weighting, str) and self.weighting in IN_OUTPUT:
            raise ValueError(
                f"weighting = {self.weighting!r} counts errors of an output, which "
                f"{type(self).__name__} does not see; take 'simple', 'likelihood', 'variational', "
                "'min-snr' or a function w(t)."
            )
        if self.at is None:
            return
        if not is_word(self.at, ("labels",)):
            at = as_number("at", self.at)
            if not 0 < at < float("inf"):
                raise ValueError(f"at must be a time > 0, but is {at:g}.")
        if isinstance(self.weighting, str) and self.weighting != "simple":
            raise ValueError(
                f"weighting = {self.weighting!r} weighs times that are drawn, but at gives them; "
                "take a function w(t), or leave it out."
            )
        if self.steps is not None or self.times != "importance":
            raise ValueError(
                "times are given by at, and none are drawn; leave times and steps out."
            )

    def prepare(self, module: nn.Module, batch: Batch) -> Self:
        """Return the loss with its distribution of times; refuse what does not suit."""
        self._check_size(batch.rows)
        if self.at is None:
            return super().prepare(module, batch)
        model = check_score_model(module)
        if self.at == "labels":
            _check_times(batch.labels)
        if not model.form.is_prepared(model):
            model.form.prepare_at(model, batch.rows, self._given(batch))
        return self

    def sampler(self, module: nn.Module, batch: Batch) -> TimeSampler | StepSampler:
        """Return the distribution of times; refuse words that need the α and σ it has not."""
        model = check_score_model(module)
        word = isinstance(self.weighting, str) and self.weighting != "simple"
        if word and not isinstance(model.sde, GaussianPath):
            raise ValueError(
                f"weighting = {self.weighting!r} needs numbers α and σ, which "
                f"{type(model.sde).__name__} has not; take a function w(t)."
            )
        return super().sampler(model, batch)

    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> Tensor:
        """Return the loss of each row, shape (n,)."""
        model = cast(ScoreModel, module)
        self._check_size(batch.rows)
        if self.at is None:
            t, ratio, _ = self.draw(model, batch, noise)
            model = self.told(model, batch, noise)
            eps = noise.normal_like(model.form.like_state(batch.rows))
            x_t = model.form.noised(model, batch.rows, t.to(batch.rows), eps)
            scale = ratio
            if isinstance(model.sde, GaussianPath):
                sigma = model.sde.sigma(t)
                own = 2 * sigma.square() / x_t[0].numel()
                scale = own if ratio is None else own * ratio
        else:
            x_t = batch.rows
            if self.at == "labels":
                _check_times(batch.labels)
            else:
                model = self.told(model, batch, noise)
            t = self._given(batch)
            scale = None if isinstance(self.weighting, str) else checked(self.weighting)(t)
        value = self.objective(model, x_t, t.to(x_t), noise)
        return value if scale is None else value * scale.to(value)

    def _given(self, batch: Batch) -> Tensor:
        """Return the time of each row, as `at` gives it, float64."""
        if self.at == "labels":
            return cast(Tensor, batch.labels).double().cpu()
        return torch.full((len(batch.rows),), cast(float, self.at), dtype=torch.float64)

    def objective(self, model: ScoreModel, x_t: State, t: Time, noise: BatchNoise) -> Tensor:
        """Return ½ ‖s‖² + ∇·s of each row, shape (n,)."""
        return implicit_objective(model, x_t, t)

    def _check_size(self, rows: State) -> None:
        """Refuse states of too many numbers for an exact divergence."""
        if rows[0].numel() > _MOST:
            raise ValueError(
                f"ImplicitLoss takes one derivative for each number of a state, of at most {_MOST}"
                f", but there are {rows[0].numel()}; take SlicedLoss()."
            )


@dataclass(frozen=True)
class SlicedLoss(ImplicitLoss):
    """Sliced score matching: derivatives along directions v alone, of the states' (batch, *event).

        J = E_v E [vᵀ ∇s v + ½ ‖s‖²],     E v vᵀ = I

    Args:
        weighting: As `ImplicitLoss` has it.
        label_dropout: The same.
        at: The same.
        projections: Directions v for each row.
        variance_reduced: Whether the second term is ½ ‖s‖²; else it is ½ (vᵀ s)².
        directions: Law of v: "rademacher" (±1), "gaussian", or "sphere" (of radius √d).
        times: As `DenoisingLoss` has it.
        stratified: The same.
        steps: The same.

    Raises:
        TypeError: If the module is no `ScoreModel`, or projections are no int.
        ValueError: If projections < 1, or directions are none of these words.

    Reference:
        Song, Garg, Shi and Ermon 2019, eqs. (7) and (8), arXiv:1905.07088.

    Example:
        >>> x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> network = sg.MLP(2, width=4, depth=1, rng=0)
        >>> model = sg.ScoreModel(network, sg.VP(sg.ConstantBeta(2.0)), sg.ScorePrediction())
        >>> _ = network.gate.bias.data.fill_(-1.0)  # a network that is s = −x
        >>> sg.fit(model, x, sg.SlicedLoss(at=0.5), sg.FitConfig(1), rng=0).losses  # ½ · 2 − 2
        tensor([-1.], dtype=torch.float64)
    """

    projections: int = field(default=1, kw_only=True)
    variance_reduced: bool = field(default=True, kw_only=True)
    directions: Directions = field(default="rademacher", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("projections", self.projections)
        check_flag("variance_reduced", self.variance_reduced)
        check_word("directions", self.directions, get_args(Directions))

    def objective(self, model: ScoreModel, x_t: State, t: Time, noise: BatchNoise) -> Tensor:
        """Return vᵀ ∇s v + ½ ‖s‖² of each row, averaged over its directions; shape (n,)."""
        draws = [self._direction(noise.normal_like(x_t)) for _ in range(self.projections)]
        return sliced_objective(model, x_t, t, draws, variance_reduced=self.variance_reduced)

    def _direction(self, z: State) -> State:
        """Return directions made of standard normals, same shape."""
        if self.directions == "rademacher":
            return torch.where(z < 0, -1.0, 1.0).to(z)
        if self.directions == "gaussian":
            return z
        norm: Tensor = torch.linalg.vector_norm(z.flatten(1), dim=1) / z[0].numel() ** 0.5
        return z / norm.reshape(-1, *[1] * (z.ndim - 1))

    def _check_size(self, rows: State) -> None:
        """Take any."""


def implicit_objective(model: ScoreModel, x_t: State, t: Time) -> Tensor:
    """Return ½ ‖s‖² + ∇·s at states x_t, by d derivatives; shape (batch,).

    Args:
        model: Whose score.
        x_t: Shape (batch, *event).
        t: Shape (batch,).

    Raises:
        ValueError: If the score depends on x, but not through autograd.
    """
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        x, s = _score_at(model, x_t, t, "ImplicitLoss")
        flat = s.flatten(1)
        divergence = flat.new_zeros(len(flat))
        for i in range(flat.shape[1]):
            slope = _derivative(flat[:, i].sum(), x, record)
            divergence = divergence + slope.flatten(1)[:, i]
        value = 0.5 * flat.square().sum(1) + divergence
    return value if record else value.detach()


def sliced_objective(
    model: ScoreModel, x_t: State, t: Time, directions: list[State], *, variance_reduced: bool
) -> Tensor:
    """Return vᵀ ∇s v + ½ ‖s‖², or + ½ (vᵀ s)², averaged over directions; shape (batch,).

    Args:
        model: Whose score.
        x_t: Shape (batch, *event).
        t: Shape (batch,).
        directions: v, each of the shape of x_t.
        variance_reduced: Which of the two.

    Raises:
        ValueError: If the score depends on x, but not through autograd.
    """
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        x, s = _score_at(model, x_t, t, "SlicedLoss")
        value = s.new_zeros(len(s))
        for v in directions:
            along = (s * v).flatten(1).sum(1)
            slope = _derivative(along.sum(), x, record)
            square = s.square().flatten(1).sum(1) if variance_reduced else along.square()
            value = value + (slope * v).flatten(1).sum(1) + 0.5 * square
        value = value / len(directions)
    return value if record else value.detach()


def _score_at(model: ScoreModel, x_t: State, t: Time, asked_by: str) -> tuple[State, State]:
    """Return states that record gradients, and the score there."""
    x = x_t.detach().requires_grad_()
    s = model.score(x, t)
    check_derivative(model.score, s, x, t, asked_by)
    return x, s


def _derivative(value: Tensor, x: State, record: bool) -> State:
    """Return the gradient of a number in x; 0 where it does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(
        value, x, create_graph=record, retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(x) if slope is None else slope


def _check_times(labels: Tensor | None) -> None:
    """Refuse labels that are not the time of each row."""
    if labels is None:
        raise ValueError("at = 'labels' reads the time of each row from labels; pass labels=.")
    if labels.ndim != 1 or not labels.is_floating_point() or not bool((labels > 0).all()):
        raise ValueError(
            "at = 'labels' reads the time of each row from labels, which must be floats > 0 of "
            f"shape ({len(labels)},), but are {labels.dtype} of shape {tuple(labels.shape)}"
            f"{'' if labels.is_complex() else f', the least {float(labels.min()):g}'}."
        )
