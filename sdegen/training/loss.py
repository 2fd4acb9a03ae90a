"""Loss: what training makes small, an object that its user may write.

    L(θ) = E_{x, z} ℓ(θ; x, z)

A loss is called with the module, a batch of examples x and the random numbers z of this step, and
returns ℓ of each row, shape (n,):

    class Likelihood(Loss):
        def __call__(self, module, batch, noise):
            return 0.5 * (batch.labels - module(batch.rows)).square().sum(1)

It may name terms of itself beside it, return errors, {"kl": kl}, which are recorded for each step.

**Validation** calls the same loss with the averaged weights, in evaluation mode
(`module.training` is False), without gradients, and with the same random numbers each time, so
that its changes are those of the module. A loss that draws is called on each row
`validation_passes` times. One that needs a derivative in x takes it under `torch.enable_grad()`.

**Randomness** comes from `noise`, which is set by (seed, step): a loss that draws from it alone is
resumed to the same bits, and what it carries from step to step it gives in `state`. Ranks that
train together each compute a share of the rows, of which a draw gives them the numbers that one
process would have drawn. So ℓ of a row must not depend on the other rows of its batch where ranks
train together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sdegen.core.fingerprint import to_spec
from sdegen.core.noise import Stream, Streams, seed_of, stream
from sdegen.core.requests import kind_of

LossValue = Tensor | tuple[Tensor, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Batch:
    """The examples that one call of a loss is about: L = (1/n) Σ_i ℓ(row_i, label_i).

    Args:
        rows: Examples, shape (n, *event), in the dtype and on the device of the weights.
        labels: What belongs to each of them: a class, a target or a condition, shape (n, …); None
            where there are none.

    Example:
        >>> batch = sg.training.Batch(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0]))
        >>> batch.cut(slice(1, 3))
        Batch(rows=tensor([[2.],
                [3.]]), labels=tensor([1, 0]))
    """

    rows: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def cut(self, rows: slice) -> Batch:
        """Return some of the rows, with what belongs to them."""
        return Batch(self.rows[rows], None if self.labels is None else self.labels[rows])

    def repeated(self, times: int) -> Batch:
        """Return a batch with each row so many times, one after the other."""
        labels = None if self.labels is None else self.labels.repeat_interleave(times, 0)
        return Batch(self.rows.repeat_interleave(times, 0), labels)


class BatchNoise:
    """The random numbers of one call of a loss: of each row a number, shape (n,), or (n, *event).

        z ~ N(0, I),     u ~ U[0, 1),     stratified: u_i = (i + u)/n

    Draws are made for the whole batch and cut to the rows that this process computes.

    Args:
        source: Where they come from.
        total: Rows of the whole batch.
        rows: Those that this process computes.
        steps: The streams of all steps of the training, and which of them this is; None outside of
            a training.

    Example:
        >>> class Levels(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         u = noise.stratified()
        ...         print((u * len(u)).floor().tolist())  # one in each n-th
        ...         return module(batch.rows).square().sum(1)
        >>> _ = sg.fit(torch.nn.Linear(1, 1), torch.eye(1), Levels(), sg.FitConfig(1, 4), rng=0)
        [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(
        self,
        source: Stream,
        total: int,
        rows: slice = slice(None),
        *,
        steps: tuple[Streams, int] | None = None,
    ) -> None:
        self._generator = source.generator()
        self._total, self._rows, self._steps = total, rows, steps

    @property
    def total(self) -> int:
        """Rows of the whole batch, of all ranks."""
        return self._total

    def block(self, length: int) -> tuple[int, Stream]:
        """Return which block of so many steps this one is in, and a stream of that block.

        What is drawn from it is the same in every step of the block, in a training that was
        resumed within it, and on every rank: for what is made once and serves for many steps.

        Args:
            length: Steps of a block, ≥ 1.

        Raises:
            ValueError: Outside of the steps of a training, as in a validation.
        """
        if self._steps is None:
            raise ValueError("blocks of steps are those of a training; a validation has none.")
        streams, k = self._steps
        first = k // length * length
        return k // length, streams.block(first).child(f"block of {length}")

    def normal_like(self, x: Tensor) -> Tensor:
        """Draw z ~ N(0, I) with the shape, dtype and device of x, whose first axis is the rows."""
        source = stream(self._generator, "perturb")
        shape = (self._total, *x.shape[1:])
        return source.normal(shape, dtype=x.dtype, device=x.device)[self._rows]

    def uniform(self) -> Tensor:
        """Draw one number in [0, 1) for each row; float32 on the CPU, shape (n,)."""
        return torch.rand(self._total, generator=self._generator, dtype=torch.float32)[self._rows]

    def stratified(self) -> Tensor:
        """Draw one number in each n-th of [0, 1), increasing, with one common random offset.

        Rows of a step are drawn at random, so that increasing numbers are independent of them.
        Where rows stand in an order of their own, as in a validation, take them in that of
        `permutation`.

        Returns:
            Shape (n,), float64 on the CPU.
        """
        offset = torch.rand((), generator=self._generator, dtype=torch.float64)
        steps = torch.arange(self._total, dtype=torch.float64)
        return ((steps + offset) / self._total)[self._rows]

    def permutation(self) -> Tensor:
        """Draw an order of the rows, shape (n,), integers on the CPU."""
        count = len(range(self._total)[self._rows])
        return torch.randperm(count, generator=self._generator)

    def seed(self) -> int:
        """Draw what another function takes as `rng`, such as `simulate`; another on each rank."""
        return (seed_of(self._generator) + (self._rows.start or 0)) % 2**63


class Loss(ABC):
    """What training makes small: the mean over rows of what a call returns, shape (n,).

        L(θ) = (1/n) Σ_i ℓ_θ(row_i, label_i; noise)

    Attributes:
        validation_passes: How often each validation row is seen, by other random numbers.
        needs_all_rows: Whether it draws from all rows itself, as `prepare` is given them; these
            must then be in memory.

    Example:
        >>> class Absolute(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return (module(batch.rows) - batch.labels).abs().sum(1)
        >>> line, x = torch.nn.Linear(1, 1, bias=False), torch.ones(8, 1)
        >>> _ = line.weight.data.fill_(1.0)
        >>> sg.fit(line, x, Absolute(), sg.FitConfig(1), labels=4 * x, rng=0).losses  # |1 − 4|
        tensor([3.], dtype=torch.float64)
    """

    validation_passes: ClassVar[int] = 1
    needs_all_rows: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> LossValue:
        """Return the loss of each row, shape (n,), or their mean, shape ().

        Args:
            module: What is trained.
            batch: The rows, and what belongs to each of them.
            noise: The random numbers of this call.

        Returns:
            The loss; or the loss and its terms by name, each of shape (n,) or ().
        """

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Return the loss of one training, with what is computed once; refuse what does not suit.

        Args:
            module: What will be trained.
            batch: All examples, or some of them where they are not in memory.

        Raises:
            TypeError: If the loss is of other modules.
            ValueError: If it is of other data.
        """
        return self

    def state(self) -> dict[str, Tensor]:
        """Return what the loss carries from step to step, such as chains: part of checkpoints."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027, most carry nothing
        """Go on from what `state` returned, after `prepare`, in a training that is resumed."""

    def spec(self) -> dict[str, Any]:
        """Return what tells the loss from others, as JSON: its class, what it holds, its code.

        A training is resumed with the loss that it was started with; this is what is compared.
        """
        spec: dict[str, Any] = to_spec(self)
        return spec


def read_loss(returned: object, rows: int, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what a loss returned as the loss and its named terms, or refuse it.

    Args:
        returned: What came.
        rows: Rows of the batch.
        name: What the loss is called.

    Raises:
        TypeError: If they are not tensors of floats.
        ValueError: If their shape is neither (rows,) nor ().
    """
    value, logs = returned if isinstance(returned, tuple) else (returned, {})
    if not isinstance(logs, Mapping):
        raise TypeError(
            f"the loss {name} must return a tensor, or a tensor and a dict of its terms by name, "
            f"but returned {kind_of(logs)} beside it."
        )
    for what, tensor in (("the loss", value), *logs.items()):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(
                f"{what} that {name} returns must be a tensor of floats, but is {kind_of(tensor)}."
            )
        if tensor.shape not in ((), (rows,)):
            raise ValueError(
                f"{what} that {name} returns must have shape ({rows},), one number for each row, "
                f"or (), their mean, but has {tuple(tensor.shape)}; sum or average over the other "
                "axes, and compare tensors of one shape: (n,) and (n, 1) broadcast to (n, n)."
            )
    return value, dict(logs)
