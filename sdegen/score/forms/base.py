"""Form: how a network is asked, and its answer read, for one kind of noising process.

    network output  ──form──►  score = ∇ log p_t(x_t)

A form holds no weights of the network: its methods take the model, whose network, SDE and
parameterization it reads. What a loss asks of a model, states noised from data and the error of a
prediction, it asks of the form too, so that a loss knows no kind of process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.noise import Rng
from sdegen.core.requests import as_state
from sdegen.core.scores import ScoreAt
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.score.parameterization import Estimates, Parameterization

if TYPE_CHECKING:
    from sdegen.score.model import ScoreModel


class Form(ABC):
    """How a network is asked, and its answer read, for one kind of noising process.

    Attributes:
        base: A score that its user gave, to which the network's output is added; None else.
    """

    base: ScoreFn | None = None

    @abstractmethod
    def default(self) -> Parameterization:
        """Return the parameterization of a model that is told none."""

    @abstractmethod
    def check(self, parameterization: Parameterization) -> None:
        """Refuse a parameterization that the process does not allow.

        Raises:
            ValueError: Naming both.
        """

    @abstractmethod
    def times(self) -> tuple[float, float] | None:
        """Return t_min and t_max of the process; None where it has none of its own."""

    @abstractmethod
    def output(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return the raw output of the network, same shape and dtype as x_t."""

    @abstractmethod
    def score(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return ∇ log p_t(x_t), same shape as x_t."""

    @abstractmethod
    def estimates(self, model: ScoreModel, x_t: State, t: Time | float) -> Estimates:
        """Return E[x0 | x_t] and E[ε | x_t].

        Raises:
            ValueError: Where the process has no Gaussian kernel.
        """

    @abstractmethod
    def v(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return E[v | x_t], v = α ε − σ x0.

        Raises:
            ValueError: Where the process has no α and σ.
        """

    @abstractmethod
    def precompute(self, model: ScoreModel, times: Tensor) -> ScoreAt:
        """Return at(x_t, i) = score(x_t, times[i]).

        Args:
            model: Whose score.
            times: Shape (n,), float64, on the CPU.
        """

    @abstractmethod
    def prepare(self, model: ScoreModel, data: State) -> None:
        """Look at what will be learned from, before a training; warn of it, or refuse it.

        Args:
            model: What will be trained.
            data: Examples, or some of them, shape (n, *event).
        """

    def is_prepared(self, model: ScoreModel) -> bool:
        """Return whether the model has all that a score takes beside weights: most have."""
        return True

    def prepare_at(  # noqa: B027, most learn nothing of samples
        self, model: ScoreModel, rows: State, t: Tensor
    ) -> None:
        """Look at samples of p_t that will be learned from, where data are not simulated.

        Args:
            model: What will be trained.
            rows: Samples, shape (n, *event).
            t: The time of each, shape (n,).
        """

    def default_times(self) -> tuple[float, float] | None:
        """Return t_min and t_max where neither the process nor its user says them; None: later.

        Raises:
            ValueError: If they must be said.
        """
        return None

    def state_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a state whose data have the shape `event`."""
        return event

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return the shape of a sample of an MLP of so many numbers."""
        return (numbers,)

    def base_score(self, model: ScoreModel, x_t: State, t: Time) -> State:
        """Return the score that the network's output is added to: 0, of most processes."""
        return torch.zeros_like(x_t)

    def tensors(self, model: ScoreModel) -> dict[str, Tensor]:
        """Return what `save` keeps beside the weights; of most processes, nothing."""
        return {}

    def restore(  # noqa: B027, most keep nothing
        self, model: ScoreModel, tensors: dict[str, Tensor]
    ) -> None:
        """Take back what `tensors` returned."""

    def like_state(self, x0: State) -> Tensor:
        """Return a tensor like the states that data are noised to: x0 itself, of most processes.

        A loss draws ε like it. In phase space data are positions, and have velocities beside them.
        """
        return x0

    @abstractmethod
    def noised(self, model: ScoreModel, x0: Tensor, t: Tensor, eps: State) -> State:
        """Return x_t = Φ x0 + m + L ε, as the loss of a Gaussian kernel draws it.

        Args:
            model: Whose process.
            x0: Data, shape (batch, *event).
            t: Shape (batch,), of x0's dtype and device.
            eps: Standard normals, of the state's shape.
        """

    @abstractmethod
    def error(
        self, model: ScoreModel, x0: Tensor, t: Tensor, eps: State, *, in_output: bool
    ) -> State:
        """Return ε̂(x_t, t) − ε at x_t = `noised`, or the error of the output itself.

        Args:
            model: What is taught.
            x0: Data, shape (batch, *event).
            t: Shape (batch,), of x0's dtype and device.
            eps: Standard normals, of the state's shape.
            in_output: Whether the error is counted in the output of the network, not in ε.
        """

    @abstractmethod
    def prior(
        self, model: ScoreModel, n: int, rng: Rng, dtype: torch.dtype | None, device: torch.device
    ) -> State:
        """Draw n states of the law at t_max, from which samples begin, shape (n, *event)."""


def as_states(x_t: State) -> State:
    """Return states as a tensor with a batch axis, or refuse them."""
    x_t = as_state("x_t", x_t)
    if x_t.ndim < 2:
        raise ValueError(
            f"x_t must have shape (batch, *event), but has shape {tuple(x_t.shape)}; one state is "
            "a batch of one, x_t[None]."
        )
    return x_t


def ask(
    network: torch.nn.Module,
    x_t: State,
    scale: Tensor | float,
    clock: Tensor,
    like: Tensor,
    outputs: int = 1,
) -> Tensor:
    """Return the output of a network at x_t/scale, computed in the dtype and place of `like`.

    Args:
        network: The network.
        x_t: States, shape (batch, *event).
        scale: What they are divided by.
        clock: What the network is told of the time.
        like: A tensor of the network's dtype and device.
        outputs: Numbers that it puts out for each of the state, side by side on the first axis of
            the event.
    """
    # a division by one, too: a network may write to what it is given, and that is not to be x_t
    scaled = cast_like(like, x_t / scale)
    output: Tensor = network(scaled, cast_like(like, clock).expand(len(x_t)))
    if outputs != 1:
        _check_second(output, x_t, outputs)
    elif output.shape != x_t.shape:
        raise ValueError(
            f"the network returned shape {tuple(output.shape)} for a state of shape "
            f"{tuple(x_t.shape)}; they must be equal."
        )
    return cast_like(x_t, output)


def _check_second(output: Tensor, x_t: State, outputs: int) -> None:
    """Refuse an output that has not several numbers for each of the state."""
    expected = (len(x_t), outputs * x_t.shape[1], *x_t.shape[2:])
    if output.shape != expected:
        raise ValueError(
            f"the network returned shape {tuple(output.shape)} for a state of shape "
            f"{tuple(x_t.shape)}, but LearnedVariance reads {expected}: the prediction, and as "
            "many numbers for the variance; make it such as MLP(dim, variance=True)."
        )


def cast_like(like: Tensor, x: Tensor) -> Tensor:
    """Return x in the dtype and place of another; asking first is cheaper where they agree."""
    if x.dtype is like.dtype and x.device == like.device:
        return x
    return x.to(device=like.device, dtype=like.dtype)
