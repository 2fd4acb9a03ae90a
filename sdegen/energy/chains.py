"""Chains: the negative phase of maximum likelihood, begun anew in each step or carried along.

    ∂/∂θ E_data[−log p] = E_data ∂U/∂θ − E_p ∂U/∂θ

The second mean is over samples of the model itself, x̃. A chain of some steps that leaves p
stationary gives them, begun

- at the data, k steps: contrastive divergence, CD-k. It is biased towards the data where k steps
  are few beside what mixing takes;
- where the chain of an earlier step of the training ended: persistent chains. The weights move
  little between two steps, so that chains stay near p, and k may be 1. A share of them begins anew
  in each step, lest all are caught in one mode.

The loss of a row is U(x) − U(x̃), whose gradient is that above. Its value is no likelihood: it
hovers around zero while the model learns, and says nothing of how well it did.

**Resumed.** Persistent chains are part of a checkpoint (`Loss.state`); with the draws of each step
from its own stream a training that was killed ends in the same bits.

Reference:
    Hinton 2002, Neural Computation 14, 1771, eq. (5), for CD; Tieleman 2008, section 2, for
    persistent chains; Du and Mordatch 2019, arXiv:1903.08689, section 3.2, for restarts.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_share
from sdegen.core.errors import NonFiniteError
from sdegen.core.noise import stream
from sdegen.core.shapes import State
from sdegen.training.loss import Batch, BatchNoise, Loss

_MOST_LOST = 0.1  # of the chains of a step


@dataclass
class Carried:
    """What a training knows of its data, and the chains that it carries along.

    Args:
        mean: Of the data, shape (*event,).
        std: Their standard deviation, coordinate by coordinate.
        chains: States, shape (chains, *event); None where chains begin anew in each step.
    """

    mean: Tensor
    std: Tensor
    chains: Tensor | None


@dataclass(frozen=True)
class ChainLoss(Loss):
    """U(data) − U(chains), whatever the model and the step of its chains.

    Args:
        steps: k ≥ 1, of a chain in each step of the training.
        chains: How many chains are carried along, at least as many as the rows of a step; None:
            they begin anew in each step.
        restart: Share of the carried chains that begin anew before each step of the training.

    Raises:
        TypeError: If a number is none.
        ValueError: If it is out of range, or restart is given for chains that are not carried.
    """

    steps: int = 1
    chains: int | None = None
    restart: float = 0.0
    validation_passes: ClassVar[int] = 4
    carried: Carried | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_share("restart", self.restart)
        if self.chains is not None:
            check_count("chains", self.chains)
        elif self.restart:
            raise ValueError(
                f"restart = {self.restart:g} is of chains that are carried along, but chains is "
                "None and all begin anew; pass chains=1024, or leave restart out."
            )

    @abstractmethod
    def check(self, module: nn.Module, rows: State) -> None:
        """Refuse a module, or data, that the chains are not of."""

    @abstractmethod
    def energy(self, module: nn.Module, x: State) -> Tensor:
        """Return U of states, with gradients in the weights, shape (n,)."""

    @abstractmethod
    def advance(self, module: nn.Module, x: State, noise: BatchNoise) -> State:
        """Take k steps of the chains, without gradients."""

    def begin(self, rows: State, noise: BatchNoise, carried: Carried) -> State:
        """Return where chains begin: at the rows of the step."""
        return rows

    def diverged(self, x: State, carried: Carried) -> Tensor:
        """Mark chains that are lost, shape (n,)."""
        return ~x.flatten(1).isfinite().all(1)

    @property
    def cure(self) -> str:
        """What to do where chains diverge."""
        return "their states are not finite."

    def prepare(self, module: nn.Module, batch: Batch) -> Self:
        """Return the loss of one training, whose carried chains begin at rows of the data."""
        self.check(module, batch.rows)
        weight = next(module.parameters())
        rows = batch.rows.to(weight)
        chains = None
        if self.chains is not None:
            draws = stream(0, "chains").generator()
            which = torch.randint(len(rows), (self.chains,), generator=draws)
            chains = rows[which.to(rows.device)].clone()
        std = rows.std(0) if len(rows) > 1 else torch.ones_like(rows[0])
        prepared = copy.copy(self)
        object.__setattr__(prepared, "carried", Carried(rows.mean(0), std, chains))
        return prepared

    def state(self) -> dict[str, Tensor]:
        """Return the chains that are carried along."""
        chains = None if self.carried is None else self.carried.chains
        return {} if chains is None else {"chains": chains}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the chains up again where a checkpoint left them."""
        if self.carried is not None and "chains" in state:
            self.carried.chains = state["chains"].clone()

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return U(x) − U(x̃) of each row, shape (n,), and its terms.

        Raises:
            NonFiniteError: If more than a tenth of the chains diverge.
        """
        ready = self if self.carried is not None else self.prepare(module, batch)
        assert ready.carried is not None
        rows = batch.rows
        # a validation draws anew: it must say the same of the same weights
        follows = module.training and ready.carried.chains is not None
        with torch.no_grad():
            start = ready.begin(rows, noise, ready.carried)
            which = None
            if follows:
                which = ready.chosen(len(rows), noise)
                start = ready.resumed(start, which, noise, ready.carried)
            ends = ready.advance(module, start, noise)
            lost = ready.diverged(ends, ready.carried)
            shape = (-1, *(1,) * (rows.ndim - 1))
            ends = torch.where(lost.view(shape), rows, ends)  # and the row with its chain
            if which is not None and ready.carried.chains is not None:
                ready.carried.chains[which] = ends
        ready.refuse_lost(lost)
        positive, negative = ready.energy(module, rows), ready.energy(module, ends)
        return positive - negative, {
            "energy of data": positive,
            "energy of chains": negative,
            "lost chains": lost.to(positive),
        }

    def chosen(self, n: int, noise: BatchNoise) -> Tensor:
        """Return which of the carried chains take a step, drawn without replacement."""
        assert self.chains is not None
        if n != noise.total:
            raise ValueError(
                f"chains that are carried along belong to one process and to all rows of a step, "
                f"of which this part has {n} of {noise.total}; leave accumulate and ranks out, or "
                "pass chains=None."
            )
        if self.chains < n:
            raise ValueError(
                f"chains = {self.chains} must be at least the rows of a step, {n}; pass more "
                "chains, or a smaller batch_size."
            )
        draws = torch.Generator().manual_seed(noise.seed())
        return torch.randperm(self.chains, generator=draws)[:n]

    def resumed(self, start: State, which: Tensor, noise: BatchNoise, carried: Carried) -> State:
        """Return chains where they ended before, but those that begin anew."""
        assert carried.chains is not None
        x = carried.chains[which.to(carried.chains.device)]
        if not self.restart:
            return x
        anew = (noise.uniform() < self.restart).to(x.device)
        return torch.where(anew.view(-1, *(1,) * (x.ndim - 1)), start, x)

    def refuse_lost(self, lost: Tensor) -> None:
        """Stop where so many chains diverge that the rest says little of the model."""
        count = int(lost.sum())
        if count > _MOST_LOST * len(lost):
            raise NonFiniteError(
                f"{count} of {len(lost)} chains of {type(self).__name__} diverged within "
                f"{self.steps} steps; {self.cure}"
            )

    def spec(self) -> dict[str, Any]:
        """Return what tells the loss from others, less what it carries."""
        bare = copy.copy(self)
        object.__setattr__(bare, "carried", None)
        spec: dict[str, Any] = super(ChainLoss, bare).spec()
        return spec
