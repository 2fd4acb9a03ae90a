"""ScoreModel: a network, an SDE and a parameterization; together, a score.

    network output  ──parameterization──►  (x0, ε)  ──►  score = −ε/σ,   v = α ε − σ x0

How they hang together is the model's `form` (`sdegen.score.forms`), found from the SDE.

**Scaling.** A network is given x_t/√(α² + σ²) and its output is of order one: for data of unit
variance a plain network sees numbers of unit variance at every t, for VE as well, whose states
reach σ_max. For VP the factor is 1. Scale data to unit variance or to [−1, 1]. A parameterization
may say otherwise, of the scale and of the number that stands for the time.

**Precision.** The network computes in the dtype and on the device of its own parameters, all
around it in those of x_t, which comes back: a float64 state may meet a float32 network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from sdegen.core.noise import Rng
from sdegen.core.requests import kind_of
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.shown import Shown
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.score import model_checks
from sdegen.score.forms.base import Form
from sdegen.score.forms.choice import form_of
from sdegen.score.forms.scalar import ScalarForm
from sdegen.score.learned_variance import LearnedVariance
from sdegen.score.networks import MLP, ConditionedNetwork
from sdegen.score.parameterization import Parameterization
from sdegen.score.spec import Spec, class_spec, from_class_spec
from sdegen.storage import load_tensors, save_tensors

_OWN = "form."  # before the names of what a form keeps beside the weights
_Model = TypeVar("_Model", bound="ScoreModel")


class ScoreModel(nn.Module, Shown):
    """A learned score of a noising SDE: score = −ε̂/σ, x̂0 = (x_t − σ ε̂)/α by a network's output.

    Args:
        network: Called as network(x, t), x (batch, *event) scaled to order one, t (batch,), or
            what the parameterization tells of t; returns x's shape. One with an attribute
            `classes` > 0 is also called as network(x, t, labels), labels (batch,), where the label
            `classes` stands for none and is what it assumes.
        sde: The SDE whose noise it has learned, or shall learn.
        parameterization: How the network's output is read; None is `EpsPrediction()`.
        times: t_min and t_max, 0 < t_min < t_max: between them the score is learned and asked
            for. None takes those of the SDE; without a Gaussian kernel, training finds them.
        base: A score (x, t), or 0 for none, that the network's output is added to, where the SDE
            has no Gaussian kernel.

    Raises:
        TypeError: If the network is no module, is not called as network(x, t), or knows classes
            without taking labels; if the SDE has no Gaussian kernel; or if parameterization is a
            word or a class, with the object that it may stand for.
        ValueError: If times do not increase, or are not those of an SDE that has its own.

    Attributes:
        tables: What the form keeps beside the weights, as buffers, where the process has no times
            of its own; None before training, or where it keeps nothing.
        labels: Labels of every call of the network, where `conditional` returned the model.
        event_shape: Shape of one sample: that of the data it was trained on, or (dim,) of an MLP
            that was not trained; None where nothing is known.
        unreached: KL(p_T ‖ prior) in nats, where noised data have not reached the prior, or None.

    Example:
        >>> model = sg.ScoreModel(sg.MLP(1, rng=0), sg.VP(sg.ConstantBeta(2.0)))
        >>> x0 = model.x0(torch.tensor([[1.0]]), 0.5)  # untrained, ε̂ = 0: x_t/α, α = e^−½
        >>> f"{x0.item():.4f}"
        '1.6487'
    """

    labels: Tensor | None = None
    unreached: float | None = None
    event_shape: tuple[int, ...] | None = None
    tables: nn.Module | None

    def __init__(
        self,
        network: nn.Module,
        sde: SDE,
        parameterization: Parameterization | None = None,
        *,
        times: tuple[float, float] | None = None,
        base: ScoreFn | Literal[0] | None = None,
    ) -> None:
        super().__init__()
        model_checks.check_network(network)
        self._form = form_of(sde, base)
        parameterization = self.form.default() if parameterization is None else parameterization
        model_checks.check_parameterization(parameterization)
        self.form.check(parameterization)
        self.network: nn.Module = network
        self.sde: SDE = sde
        self.parameterization: Parameterization = parameterization
        checked = model_checks.checked_times(times, self.form.times(), sde)
        if self.form.times() is None:  # what its user says, or it finds, tells it from others
            self.chosen_times: tuple[float, float] | None = checked or self.form.default_times()
            self.given_base, self.tables = base, None
        if isinstance(network, MLP):
            self.event_shape = self.form.event_of(network.dim)

    def forward(self, x_t: State, t: Time | float) -> State:
        """Return the score: where one is asked for, the model itself is one."""
        return self.score(x_t, t)

    def output(self, x_t: State, t: Time | float) -> State:
        """Return the raw output of the network, x_t being scaled here; x_t's dtype and shape."""
        return self.form.output(self, x_t, t)

    @property
    def score(self) -> ModelScore:
        """∇ log p_t, called with x_t and t > 0, shape () or (batch,); it has x_t's shape.

        Raises:
            ValueError: If the network is told a condition, and `conditional` did not tell it.
        """
        model_checks.check_told(self.network)
        return ModelScore(self)

    def eps(self, x_t: State, t: Time | float) -> State:
        """Return E[ε | x_t], the noise in x_t; same shape as x_t."""
        return self.form.estimates(self, x_t, t)[1]

    def x0(self, x_t: State, t: Time | float) -> Tensor:
        """Return E[x0 | x_t], the denoised state; shape of x_t, in phase space of positions."""
        return self.form.estimates(self, x_t, t)[0]

    def v(self, x_t: State, t: Time | float) -> State:
        """Return E[v | x_t], v = α ε − σ x0; same shape as x_t."""
        return self.form.v(self, x_t, t)

    @property
    def form(self) -> Form:
        """How x_t, the network's output and the score hang together for this kind of process."""
        return self._form

    @property
    def times(self) -> tuple[float, float] | None:
        """t_min and t_max; None where neither the SDE nor its user has said them yet."""
        own = self.form.times()
        return self.chosen_times if own is None else own

    @property
    def score_range(self) -> tuple[float, float] | None:
        """The times, under the name by which a process is asked for them."""
        return self.times

    @property
    def base(self) -> ScoreFn | None:
        """The score that the network's output is added to, where it was given one."""
        return self.form.base

    @property
    def path(self) -> GaussianPath:
        """The SDE, where it is a `GaussianPath`: what needs α(t) and σ(t) asks for it.

        Raises:
            TypeError: If it is none.
        """
        return check_gaussian_path(self.sde, name="the SDE of this model")

    def sample_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample.

        Raises:
            ValueError: If it is not known: the model was neither trained nor made with an MLP.
        """
        if self.event_shape is None:
            raise ValueError(
                "the shape of a sample is not known before training; set model.event_shape, such "
                "as (1, 28, 28)."
            )
        return self.event_shape

    def draw_prior(
        self,
        n: int,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draw n states of the prior at t_max, from which samples begin, shape (n, *event)."""
        return self.form.prior(self, n, rng, dtype, torch.device(device))

    def conditional(self, labels: int | Tensor) -> Self:
        """Return the model conditional on a class or condition: `score` is ∇ log p_t(x | label).

        It shares the network, and keeps its labels. With one for each trajectory they go with
        the rows of a run, however it is cut into blocks; another number of rows is refused.

        Args:
            labels: A class for all rows, or one for each, shape (batch,), integers. Of a network
                with conditions numbers or an image, floats: one for all rows, shape
                network.condition_shape, or one for each, (batch, *condition_shape).

        Raises:
            TypeError: If labels are not integers, or conditions not floats.
            ValueError: If the network knows no classes or conditions, or not these.
        """
        try:
            given = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"labels must be a class or a tensor of them, integers, but are {kind_of(labels)}."
            ) from None
        model_checks.check_labels("labels", given, self.network)
        return with_labels(self, given if given.is_floating_point() else given.long())

    def save(self, path: str | Path) -> None:
        """Write the weights, and what the network, the SDE and the parameterization are.

        Safetensors and JSON, written whole or not at all; see `sdegen.storage`.

        Args:
            path: The file, usually *.safetensors; its folder must exist.

        Raises:
            ValueError: If the model is conditional on labels, which a file does not keep.
        """
        if self.labels is not None:
            raise ValueError(
                "this model was told labels with conditional(…), which a file does not keep: save "
                "the model itself, and tell it again when it is loaded."
            )
        shape = None if self.event_shape is None else list(self.event_shape)
        metadata: dict[str, Any] = {"kind": "ScoreModel", **model_spec(self), "event_shape": shape}
        if self.form.times() is None:  # else they are the SDE's
            metadata["times"] = self.times
        if self.base is not None:
            metadata["base"] = True
        if self.unreached is not None:
            metadata["unreached"] = self.unreached
        own = {f"{_OWN}{name}": one for name, one in self.form.tensors(self).items()}
        save_tensors(path, self.network.state_dict() | own, metadata)

    @classmethod
    def load(
        cls,
        path: str | Path,
        network: nn.Module | None = None,
        *,
        sde: SDE | None = None,
        parameterization: Parameterization | None = None,
        base: ScoreFn | Literal[0] | None = None,
    ) -> Self:
        """Read a model that `save` wrote; no code in the file is ever run.

        Args:
            path: The file.
            network: A network of the same shapes, to be given the weights; None rebuilds an `MLP`
                or `UNet`, in the dtype of the file.
            sde: Where the SDE is of your own; None rebuilds one of the library's.
            parameterization: The same for the parameterization.
            base: The score that the network was added to, where the model was made with one.

        Returns:
            The model in evaluation mode, on the CPU or where `network` is.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If it is damaged, of another kind, or the weights do not fit; names
                file and key.
        """
        tensors, metadata = load_tensors(path, "ScoreModel")
        if network is None:
            network = from_class_spec(metadata["network"], f"{path}: its network")
            network = network.to(next(iter(tensors.values())).dtype)
        if sde is None:
            sde = from_class_spec(metadata["sde"], f"{path}: its sde")
        if parameterization is None:
            parameterization = from_class_spec(
                metadata["parameterization"], f"{path}: its parameterization"
            )
        model_checks.check_base(path, bool(metadata.get("base")), base)
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_OWN)}
        model_checks.check_fit(path, tensors, network.state_dict())
        network.load_state_dict(tensors)
        times = None if metadata.get("times") is None else tuple(metadata["times"])
        model = cls(network, sde, parameterization, times=times, base=base)
        model.form.restore(model, {name.removeprefix(_OWN): one for name, one in own.items()})
        if metadata.get("event_shape") is not None:  # files of before it was written have none
            model.event_shape = tuple(metadata["event_shape"])
        model.unreached = metadata.get("unreached")
        return model.eval()


def model_spec(model: ScoreModel) -> dict[str, Spec]:
    """Return what the network, the SDE and the parameterization of a model are, as JSON."""
    return {
        part: class_spec(getattr(model, part)) for part in ("network", "sde", "parameterization")
    }


def with_labels(model: _Model, labels: Tensor) -> _Model:
    """Return the model with labels for every call, which may be `classes`, for none.

    Args:
        model: The model; the network is shared, and labels that it was told are forgotten.
        labels: One for all rows, shape (), or one for each, shape (batch,), int64; or conditions,
            floats of shape (*condition_shape,) or (batch, *condition_shape). Checked.
    """
    inner = model.network
    inner = inner.network if isinstance(inner, ConditionedNetwork) else inner
    network = ConditionedNetwork(inner, labels)
    conditional = type(model)(
        network, model.sde, model.parameterization, times=model.times, base=model.base
    )
    conditional.labels, conditional.event_shape = labels, model.event_shape
    conditional.unreached = model.unreached
    if model.form.times() is None:
        conditional.tables = model.tables
    return conditional


@dataclass(frozen=True)
class ModelScore:
    """The score of a model, ∇ log p_t(x_t), as `model.score` returns it."""

    model: ScoreModel

    def __call__(self, x_t: State, t: Time | float) -> State:
        """Return ∇ log p_t(x_t), same shape as x_t; t of shape () or (batch,), > 0."""
        return self.model.form.score(self.model, x_t, t)

    @property
    def sde(self) -> SDE:
        """The process that it is the score of."""
        return self.model.sde

    @property
    def score_range(self) -> tuple[float, float] | None:
        """t_min and t_max of the model."""
        return self.model.times

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """Shape of one state, where the model knows it."""
        event = self.model.event_shape
        return None if event is None else self.model.form.state_shape(event)

    def x0(self, x_t: State, t: Time | float) -> State:
        """Return E[x0 | x_t], same shape as x_t."""
        return self.model.x0(x_t, t)

    @property
    def tells_variance(self) -> bool:
        """Whether the network puts out the variance of a chain's step too."""
        return isinstance(self.model.parameterization, LearnedVariance)

    def with_fraction(self, x_t: State, t: Time | float) -> tuple[State, State]:
        """Return the score and w of log Σ = w log b² + (1 − w) log b̃², of `LearnedVariance`."""
        form = self.model.form
        if not isinstance(form, ScalarForm) or not self.tells_variance:
            raise ValueError(model_checks.TELLS_NO_VARIANCE)
        return form.score_and_fraction(self.model, x_t, t)

    @property
    def unreached(self) -> float | None:
        """KL(p_T ‖ prior) of the model, where the noising has not reached the prior."""
        return self.model.unreached

    @property
    def trajectories(self) -> int | None:
        """How many trajectories there are labels or conditions for; None: any number."""
        network = self.model.network
        return network.rows if isinstance(network, ConditionedNetwork) else None

    def of_rows(self, rows: slice | Tensor) -> ModelScore:
        """Return the score of some trajectories, with their labels or conditions alone."""
        if self.trajectories is None:
            return self
        assert self.model.labels is not None
        index = rows.to(self.model.labels.device) if isinstance(rows, Tensor) else rows
        return with_labels(self.model, self.model.labels[index]).score

    def in_double(self) -> ModelScore:
        """Return the score of a copy of the model in float64, on the CPU."""
        return copy.deepcopy(self.model).to("cpu", torch.float64).score

    def precompute(self, times: Tensor) -> ScoreAt:
        """Return at(x_t, i) = score(x_t, times[i]).

        What depends on the times alone is computed once, before the first call.

        Args:
            times: Shape (n,), float64, on the CPU.
        """
        return self.model.form.precompute(self.model, times)
