"""ScoreModel: a network, an SDE and a parameterization; together, a score.

    network output  ──parameterization──►  (x0, ε)  ──►  score = −ε/σ,   v = α ε − σ x0

**Scaling.** A network is given x_t/√(α² + σ²) and its output is of order one: for data of unit
variance a plain network sees numbers of unit variance at every t, for VE as well, whose states
reach σ_max. For VP the factor is 1. Scale data to unit variance or to [−1, 1]. A parameterization
may say otherwise, of the scale and of the number that stands for the time.

**Precision.** The network computes in the dtype and on the device of its own parameters,
everything around it in those of x_t, which is also what comes back: a float64 state may meet a
float32 network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from sdegen.core.fixed_steps import to_floats
from sdegen.core.requests import as_state, as_time, kind_of
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time, expand
from sdegen.diffusion.ddpm import DDPM, AncestralChain
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.score import model_checks
from sdegen.score.networks import MLP, ConditionedNetwork
from sdegen.score.parameterization import EpsPrediction, Parameterization, score_of, v_of
from sdegen.score.spec import Spec, class_spec, from_class_spec
from sdegen.storage import load_tensors, save_tensors

_Model = TypeVar("_Model", bound="ScoreModel")


class ScoreModel(nn.Module):
    """A learned score of a noising SDE.

    Args:
        network: Called as network(x, t), x (batch, *event) scaled to order one, t (batch,), or
            what the parameterization tells of t; returns x's shape. One with an attribute
            `classes` > 0 is also called as network(x, t, labels), labels (batch,), where the label
            `classes` stands for none and is what it assumes.
        sde: The SDE whose noise it has learned, or shall learn.
        parameterization: How the network's output is read; None is `EpsPrediction()`.

    Raises:
        TypeError: If the network is no module, is not called as network(x, t), or knows classes
            without taking labels; if the SDE has no Gaussian kernel; or if parameterization is a
            word or a class, with the object that it may stand for.

    Attributes:
        labels: Labels of every call of the network, where `conditional` returned the model.
        event_shape: Shape of one sample: that of the data it was trained on, or (dim,) of an MLP
            that was not trained; None where nothing is known.
    """

    labels: Tensor | None = None
    event_shape: tuple[int, ...] | None = None

    def __init__(
        self,
        network: nn.Module,
        sde: GaussianPath,
        parameterization: Parameterization | None = None,
    ) -> None:
        super().__init__()
        model_checks.check_network(network)
        check_gaussian_path(sde, cure=_cure(sde))
        parameterization = EpsPrediction() if parameterization is None else parameterization
        model_checks.check_parameterization(parameterization)
        self.network, self.sde, self.parameterization = network, sde, parameterization
        if isinstance(network, MLP):
            self.event_shape = (network.dim,)

    def forward(self, x_t: State, t: Time | float) -> State:
        """Return the score: where one is asked for, the model itself is one."""
        return self.score(x_t, t)

    def output(self, x_t: State, t: Time | float) -> State:
        """Return the raw output of the network, x_t being scaled here; x_t's dtype and shape."""
        return self._asked(x_t, t)[0]

    @property
    def score(self) -> ModelScore:
        """∇ log p_t, called with x_t and t > 0, shape () or (batch,); it has x_t's shape."""
        return ModelScore(self)

    def eps(self, x_t: State, t: Time | float) -> State:
        """Return E[ε | x_t], the noise in x_t; same shape as x_t."""
        return self._estimates(x_t, t)[1]

    def x0(self, x_t: State, t: Time | float) -> State:
        """Return E[x0 | x_t], the denoised state; same shape as x_t."""
        return self._estimates(x_t, t)[0]

    def v(self, x_t: State, t: Time | float) -> State:
        """Return E[v | x_t], v = α ε − σ x0; same shape as x_t."""
        return v_of(*self._estimates(x_t, t))

    def conditional(self, labels: int | Tensor) -> Self:
        """Return the model conditional on a class: its `score` is ∇ log p_t(x | label).

        It shares the network, and keeps its labels. With one label for each trajectory,
        `simulate` must be told interacting=True: blocks of trajectories know nothing of labels,
        and a number of labels that is not that of the rows is refused.

        Args:
            labels: A class for all rows; or one for each, shape (batch,), integers.

        Raises:
            TypeError: If labels are not integers.
            ValueError: If the network knows no classes, or not these.
        """
        try:
            given = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"labels must be a class or a tensor of them, integers, but are {kind_of(labels)}."
            ) from None
        model_checks.check_labels("labels", given, self.network)
        return with_labels(self, given.long())

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
        metadata = {"kind": "ScoreModel", **model_spec(self), "event_shape": shape}
        save_tensors(path, self.network.state_dict(), metadata)

    @classmethod
    def load(
        cls,
        path: str | Path,
        network: nn.Module | None = None,
        *,
        sde: GaussianPath | None = None,
        parameterization: Parameterization | None = None,
    ) -> Self:
        """Read a model that `save` wrote; no code in the file is ever run.

        Args:
            path: The file.
            network: A network of the same shapes, to be given the weights; None rebuilds an `MLP`
                or `UNet`, in the dtype of the file.
            sde: Where the SDE is of your own; None rebuilds one of the library's.
            parameterization: The same for the parameterization.

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
        model_checks.check_fit(path, tensors, network.state_dict())
        network.load_state_dict(tensors)
        model = cls(network, sde, parameterization)
        if metadata.get("event_shape") is not None:  # files of before it was written have none
            model.event_shape = tuple(metadata["event_shape"])
        model.eval()
        return model

    def kernel(self, x_t: State, t: Time) -> tuple[Tensor, Tensor]:
        """Return α(t) and σ(t), ready to multiply x_t."""
        if t.ndim:
            t = t.to(x_t.dtype)  # in float64 it would promote the state, which a 0-d t does not
        elif t.device.type == "cpu" and not float(t.detach()) > 0:
            raise ValueError(
                f"the score does not exist at t = {float(t):g}; stop at sde.t_min = "
                f"{self.sde.t_min:g}."
            )
        return expand(self.sde.alpha(t), x_t), expand(self.sde.sigma(t), x_t)

    def _estimates(self, x_t: State, t: Time | float) -> tuple[State, State, Tensor, Tensor]:
        """Return x0, ε, α, σ."""
        output, x_t, alpha, sigma = self._asked(x_t, t)
        return *self.parameterization.decode(output, x_t, alpha, sigma), alpha, sigma

    def _asked(self, x_t: State, t: Time | float) -> tuple[State, State, Tensor, Tensor]:
        """Return the output of the network, which computes in its own precision; x_t, α and σ."""
        x_t, t, how = _states(x_t), as_time(t), self.parameterization
        alpha, sigma = self.kernel(x_t, t)
        if t.ndim:  # in the shape of t; a single number is so already
            clock = how.c_noise(t, alpha.reshape(t.shape), sigma.reshape(t.shape))
        else:
            clock = how.c_noise(t, alpha, sigma)
        like = next(self.network.parameters(), x_t)
        output = _answer(self.network, x_t, how.scale(alpha, sigma), clock, like)
        return output, x_t, alpha, sigma


def model_spec(model: ScoreModel) -> dict[str, Spec]:
    """Return what the network, the SDE and the parameterization of a model are, as JSON."""
    return {
        part: class_spec(getattr(model, part)) for part in ("network", "sde", "parameterization")
    }


def with_labels(model: _Model, labels: Tensor) -> _Model:
    """Return the model with labels for every call, which may be `classes`, for none.

    Args:
        model: The model; the network is shared.
        labels: One for all rows, shape (), or one for each, shape (batch,); int64, checked.
    """
    network = ConditionedNetwork(model.network, labels)
    conditional = type(model)(network, model.sde, model.parameterization)
    conditional.labels, conditional.event_shape = labels, model.event_shape
    return conditional


@dataclass(frozen=True)
class ModelScore:
    """The score of a model, ∇ log p_t(x_t), as `model.score` returns it.

    Args:
        model: Whose score.
    """

    model: ScoreModel

    def __call__(self, x_t: State, t: Time | float) -> State:
        """Return ∇ log p_t(x_t), same shape as x_t; t of shape () or (batch,), > 0."""
        output, x_t, alpha, sigma = self.model._asked(x_t, t)
        return score_of(self.model.parameterization.eps(output, x_t, alpha, sigma), sigma)

    @property
    def sde(self) -> GaussianPath:
        """The process that it is the score of."""
        return self.model.sde

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample, where the model knows it."""
        return self.model.event_shape

    def in_double(self) -> ModelScore:
        """Return the score of a copy of the model in float64, on the CPU."""
        return copy.deepcopy(self.model).to("cpu", torch.float64).score

    def precompute(self, times: Tensor) -> ScoreAt:
        """Return at(x_t, i) = score(x_t, times[i]).

        What depends on the times alone is computed once, before the first call.

        Args:
            times: Shape (n,), float64, on the CPU.
        """
        ts, how, sde = times.unbind(), self.model.parameterization, self.model.sde
        if not bool((times > 0).all()):
            return lambda x_t, i: self(x_t, ts[i])  # which says what is wrong, if asked
        alpha, sigma = sde.alpha(times), sde.sigma(times)
        scales, clocks = to_floats(how.scale(alpha, sigma)), how.c_noise(times, alpha, sigma)
        network = self.model.network
        parameter = next(network.parameters(), None)
        values = (clocks if parameter is None else clocks.to(parameter)).unbind()
        alphas, sigmas, divisors = alpha.unbind(), sigma.unbind(), to_floats(sigma)

        def at(x_t: State, i: int) -> State:
            like = x_t if parameter is None else parameter
            output = _answer(network, x_t, scales[i], values[i], like)
            return score_of(how.eps(output, x_t, alphas[i], sigmas[i]), divisors[i])

        return at


def _cure(sde: object) -> str:
    """Return what to pass in the place of dynamics without a Gaussian kernel."""
    if isinstance(sde, DDPM | AncestralChain):
        return " A chain has the score of the SDE that it discretises: give the model that SDE."
    if isinstance(sde, ReverseSDE):
        return " A reverse SDE has the score of its forward one: give the model that, sde.forward."
    if isinstance(sde, SDE):
        return (
            " Without a kernel no noise is known to learn from: noise the data by one of these "
            "paths, or derive yours from GaussianPath, with its alpha(t) and sigma(t)."
        )
    return ""


def _states(x_t: State) -> State:
    """Return states as a tensor with a batch axis, or refuse them."""
    x_t = as_state("x_t", x_t)
    if x_t.ndim < 2:
        raise ValueError(
            f"x_t must have shape (batch, *event), but has shape {tuple(x_t.shape)}; one state is "
            "a batch of one, x_t[None]."
        )
    return x_t


def _answer(
    network: nn.Module, x_t: State, scale: Tensor | float, clock: Tensor, like: Tensor
) -> State:
    """Return the output of a network at x_t/scale, computed in the dtype and place of `like`."""
    # a division by one, too: a network may write to what it is given, and that is not to be x_t
    scaled = _as(like, x_t / scale)
    output: Tensor = network(scaled, _as(like, clock).expand(len(x_t)))
    if output.shape != x_t.shape:
        raise ValueError(
            f"the network returned shape {tuple(output.shape)} for a state of shape "
            f"{tuple(x_t.shape)}; they must be equal."
        )
    return _as(x_t, output)


def _as(like: Tensor, x: Tensor) -> Tensor:
    """Return x in the dtype and place of another; asking first is cheaper where they agree."""
    if x.dtype is like.dtype and x.device == like.device:
        return x
    return x.to(device=like.device, dtype=like.dtype)
