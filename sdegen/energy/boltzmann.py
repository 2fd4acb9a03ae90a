"""RBM: a Boltzmann machine of binary units in two layers, without connections within a layer.

    E(v, h) = −b·v − c·h − vᵀ W h,        p(v) = Σ_h e^{−E(v, h)}/Z = e^{−F(v)}/Z

    F(v) = −b·v − Σ_j log(1 + e^{c_j + (vᵀW)_j})

Given one layer, the units of the other are independent, p(h_j = 1 | v) = σ(c_j + (vᵀW)_j). So both
layers are drawn in turn (block Gibbs sampling), which is the chain that trains it
(`GibbsDivergence`) and samples it. With at most 20 units in one layer log Z is a sum over the
states of that layer, exactly; of larger machines it is estimated (`annealing.py`).

Reference:
    Smolensky 1986; Hinton 2012, A practical guide to training restricted Boltzmann machines,
    eqs. (1) to (8) and (25).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_number
from sdegen.core.errors import CheckpointError
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import as_state, check_kind, first_true
from sdegen.core.shapes import State
from sdegen.energy.chains import ChainLoss
from sdegen.score import model_checks
from sdegen.storage import load_tensors, save_tensors
from sdegen.training.loss import BatchNoise

_ENUMERATED = 20  # units of the smaller layer, at most
_AT_ONCE = 2**14  # states that are summed in one call
_SPREAD = 0.01  # of weights at the start


class RBM(nn.Module):
    """A restricted Boltzmann machine of binary units, v of shape (batch, visible).

        E(v, h) = −b·v − c·h − vᵀ W h,     p(v) = Σ_h e^{−E(v, h)}/Z

    Args:
        visible: Units of v, the numbers of one example.
        hidden: Units of h.
        rng: Seed of the weights, generator or None.

    Raises:
        TypeError: If a number of units is no int.
        ValueError: If it is below 1.

    Example:
        >>> machine = sg.RBM(3, 2, rng=0)
        >>> _ = [p.data.zero_() for p in machine.parameters()]
        >>> f"{machine.log_partition().item():.4f}"  # 5 fair coins: 5 log 2
        '3.4657'
        >>> f"{machine.free_energy(torch.zeros(1, 3)).item():.4f}"  # −2 log 2
        '-1.3863'
    """

    def __init__(self, visible: int, hidden: int, *, rng: Rng = None) -> None:
        super().__init__()
        check_count("visible", visible)
        check_count("hidden", hidden)
        draws = stream(rng, "network").normal((visible, hidden))
        self.weight: nn.Parameter = nn.Parameter(_SPREAD * draws)
        self.visible_bias: nn.Parameter = nn.Parameter(torch.zeros(visible))
        self.hidden_bias: nn.Parameter = nn.Parameter(torch.zeros(hidden))

    @property
    def visible(self) -> int:
        """Units of v."""
        return len(self.visible_bias)

    @property
    def hidden(self) -> int:
        """Units of h."""
        return len(self.hidden_bias)

    def forward(self, v: State) -> Tensor:
        """F(v), shape (batch,)."""
        v = v.flatten(1)
        field = self.hidden_bias + v @ self.weight
        return -(v @ self.visible_bias) - nn.functional.softplus(field).sum(1)

    def free_energy(self, v: State) -> Tensor:
        """F(v) = −log Σ_h e^{−E(v, h)}, shape (batch,).

        Raises:
            TypeError: If v is no tensor of states.
            ValueError: If a state has another number of units, or one that is neither 0 nor 1.
        """
        return cast(Tensor, self(self.checked("v", v)))

    def hidden_probability(self, v: State) -> Tensor:
        """p(h_j = 1 | v), shape (batch, hidden)."""
        return (self.hidden_bias + self.checked("v", v) @ self.weight).sigmoid()

    def visible_probability(self, h: Tensor) -> Tensor:
        """p(v_i = 1 | h), shape (batch, visible)."""
        return (self.visible_bias + h.to(self.weight) @ self.weight.T).sigmoid()

    def log_partition(self) -> Tensor:
        """Return log Z by a sum over all states of the smaller layer, 0-d, float64.

        With its gradient in the weights.

        Raises:
            ValueError: If both layers have more than 20 units.
        """
        weight, b, c = (p.double() for p in (self.weight, self.visible_bias, self.hidden_bias))
        if self.visible < self.hidden:
            weight, b, c = weight.T, c, b
        if len(c) > _ENUMERATED:
            raise ValueError(
                f"log Z of {self.visible} and {self.hidden} units is a sum over 2**{len(c)} "
                f"states, and {_ENUMERATED} units are the most; take "
                "annealed_log_partition(machine), which estimates it."
            )
        sums = []
        for first in range(0, 2 ** len(c), _AT_ONCE):
            index = torch.arange(first, min(first + _AT_ONCE, 2 ** len(c)), device=c.device)
            h = ((index[:, None] >> torch.arange(len(c), device=c.device)) & 1).to(c)
            field = nn.functional.softplus(b + h @ weight.T).sum(1)
            sums.append(torch.logsumexp(h @ c + field, 0))
        return torch.logsumexp(torch.stack(sums), 0)

    def log_likelihood(self, v: State, log_partition: float | Tensor | None = None) -> Tensor:
        """Return log p(v) = −F(v) − log Z in nats, shape (batch,), float64.

        Args:
            v: States of zeros and ones, shape (batch, *event).
            log_partition: log Z, where it is known or estimated; None sums it up.

        Raises:
            TypeError: If v is no tensor of states, or log_partition no number.
            ValueError: If v is refused, or log Z not to be summed up.
        """
        if log_partition is None:
            log_partition = self.log_partition()
        elif not (isinstance(log_partition, Tensor) and log_partition.ndim == 0):
            check_number("log_partition", log_partition)
        return -self.free_energy(v).double() - log_partition

    @torch.no_grad()
    def sample(
        self, n: int, steps: int = 1000, *, start: State | None = None, rng: Rng = None
    ) -> State:
        """Draw states by block Gibbs sampling, shape (n, visible), zeros and ones.

        Args:
            n: How many chains.
            steps: Of each chain; both layers are drawn in a step.
            start: Where chains begin, shape (n, *event); None: fair coins.
            rng: Seed, generator or None.

        Raises:
            TypeError: If a number is none.
            ValueError: If n or steps is below 1, or start is refused.
        """
        check_count("n", n)
        check_count("steps", steps)
        draws = stream(rng, "gibbs").generator(self.weight.device)
        if start is None:
            v = coins(torch.full((n, self.visible), 0.5).to(self.weight), draws)
        else:
            v = self.checked("start", start)
            if len(v) != n:
                raise ValueError(
                    f"start must have {n} rows, one for each chain, but has {len(v)}."
                )
        for _ in range(steps):
            h = coins((self.hidden_bias + v @ self.weight).sigmoid(), draws)
            v = coins(self.visible_probability(h), draws)
        return v

    def checked(self, name: str, v: object) -> Tensor:
        """Return states as rows of zeros and ones in the dtype of the weights, or refuse them."""
        v = as_state(name, v)
        if v.ndim < 2 or v[0].numel() != self.visible:
            raise ValueError(
                f"{name} must have shape (batch, {self.visible}), one number for each visible "
                f"unit, or an event of so many, but has shape {tuple(v.shape)}."
            )
        v = v.flatten(1)
        bad = ~((v == 0) | (v == 1)).all(1)
        if (i := first_true(bad)) is not None:
            value = v[i][(v[i] != 0) & (v[i] != 1)][0]
            raise ValueError(
                f"{name} must be 0 or 1, as the units of a Boltzmann machine are, but "
                f"{int(bad.sum())} of {len(v)} rows are not, the first of them row {i} with "
                f"{float(value):g}; pass (x > 0.5).float(), say."
            )
        return v.to(self.weight)

    def save(self, path: str | Path) -> None:
        """Write the weights and the numbers of units.

        Args:
            path: The file, usually *.safetensors; its folder must exist.
        """
        units = {"visible": self.visible, "hidden": self.hidden}
        save_tensors(path, self.state_dict(), {"kind": "RBM", **units})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a machine that `save` wrote, in evaluation mode.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If it is damaged or of another kind.
        """
        tensors, metadata = load_tensors(path, "RBM")
        try:
            machine = cls(metadata["visible"], metadata["hidden"], rng=0)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not say how many units it has.") from error
        machine = machine.to(next(iter(tensors.values())).dtype)
        model_checks.check_fit(path, tensors, machine.state_dict())
        machine.load_state_dict(tensors)
        machine.eval()
        return machine


def coins(probability: Tensor, draws: torch.Generator) -> Tensor:
    """Draw units that are 1 with a probability, of its shape, dtype and device."""
    like = probability
    uniform = torch.rand(like.shape, generator=draws, dtype=like.dtype, device=like.device)
    return (uniform < probability).to(like)


@dataclass(frozen=True)
class GibbsDivergence(ChainLoss):
    """Maximum likelihood of an `RBM` by block Gibbs chains: CD-k, or persistent ones.

        ∇_θ L = E_data ∇_θ F − E_chains ∇_θ F,     chains of shape (chains, visible)

    Args:
        steps: k ≥ 1, of a chain in each step of the training; both layers are drawn in one.
        chains: How many chains are carried along, at least as many as the rows of a step; None:
            they begin anew at the data in each step.
        restart: Share of the carried chains that begin anew before each step of the training.

    Raises:
        TypeError: If a number is none; if it is asked for a module that is no `RBM`.
        ValueError: If a number is out of range, restart is given for chains that are not carried,
            or data are neither 0 nor 1.

    Reference:
        As of `chains.py`.

    Example:
        >>> machine = sg.RBM(2, 1, rng=0)
        >>> _ = [p.data.zero_() for p in machine.parameters()]
        >>> _ = machine.visible_bias.data.copy_(torch.tensor([3.0, 1.0]).log())  # p(v_1 = 1) = ¾
        >>> loss, data = sg.energy.GibbsDivergence(steps=1), torch.tensor([[1.0, 0.0]])
        >>> losses = sg.fit(machine, data, loss, sg.FitConfig(1, 4096), rng=0).losses
        >>> f"{losses.item():.1f}"  # F(data) − F(chains) = (¾ − 1) log 3
        '-0.3'
    """

    def check(self, module: nn.Module, rows: State) -> None:
        """Refuse a module that is no `RBM`, and data that are neither 0 nor 1."""
        check_kind("module", module, RBM, "an RBM(visible, hidden)")
        cast(RBM, module).checked("data", rows)

    def energy(self, module: nn.Module, x: State) -> Tensor:
        """Return F of states, shape (n,)."""
        return cast(RBM, module).free_energy(x)

    def advance(self, module: nn.Module, x: State, noise: BatchNoise) -> State:
        """Draw both layers k times in turn."""
        machine = cast(RBM, module)
        v = machine.checked("data", x)
        for _ in range(self.steps):
            field = machine.hidden_bias + v @ machine.weight
            h = (torch.special.ndtr(noise.normal_like(field)) < field.sigmoid()).to(v)
            p = machine.visible_probability(h)
            v = (torch.special.ndtr(noise.normal_like(p)) < p).to(v)
        return v.reshape(x.shape)
