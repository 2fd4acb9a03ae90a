"""EnergyModel: a network as an energy, p(x) ∝ e^{−U(x)}.

    U(x) = u_θ(x) + |x|²/2s²,        score = ∇ log p = −∇U

u_θ is any module of one number for each state. The second term, a Gaussian base, is optional: with
it p has a norm wherever u_θ grows less than quadratically downwards, and chains that leave the
data return. Without one a network that falls off to infinity is no density at all.

The model is a `Potential`: `simulate(Langevin(model), x0, times)` samples it, by the update that
trains it (`contrastive.py`), and `solver=Metropolis()` without an error of the step. In one and
two dimensions log Z = log ∫ e^{−U} dx is an integral on a grid, which makes energies densities.

**Denoising** is the other way to learn an energy, without chains. A module of (x, t) that returns
`Langevin(lambda y: energy(y, t)).drift(x, t)`, which is −∇U with its gradient in the weights, is
the network of a `ScoreModel(network, sde, ScorePrediction())`, and `train` does the rest.

Reference:
    LeCun et al. 2006, A tutorial on energy-based learning, eq. (2); Du and Mordatch 2019,
    arXiv:1903.08689, eq. (1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_positive
from sdegen.core.derivatives import gradient_of
from sdegen.core.requests import as_state, check_kind, kind_of
from sdegen.core.shapes import State
from sdegen.energy.quadrature import Grids, log_integral
from sdegen.score import model_checks
from sdegen.sde.potentials import Potential, as_batch
from sdegen.storage import load_tensors, save_tensors


class EnergyModel(nn.Module, Potential):
    """An energy of a network, and the law p ∝ e^{−U}.

        U(x) = u_θ(x) + |x|²/2s²

    Args:
        network: u_θ: states (batch, *event) → one number for each, shape (batch,) or (batch, 1).
        base_std: s > 0, in units of x, for data of order one; None: no Gaussian base.

    Raises:
        TypeError: If network is no module, or base_std no number.
        ValueError: If base_std is not > 0.

    Example:
        >>> model = sg.EnergyModel(torch.nn.Linear(1, 1, bias=False), base_std=2.0)
        >>> _ = model.network.weight.data.zero_()
        >>> model.energy(torch.tensor([[2.0]])).item()  # 2²/(2 · 2²)
        0.5
        >>> f"{model.log_partition(sg.Grid(-20.0, 20.0, cells=400)).item():.4f}"  # log 2√(2π)
        '1.6121'
    """

    def __init__(self, network: nn.Module, base_std: float | None = None) -> None:
        super().__init__()
        check_kind("network", network, nn.Module, "a torch.nn.Module of one number for each state")
        if base_std is not None:
            check_positive("base_std", base_std)
        self.network: nn.Module = network
        self.base_std: float | None = base_std

    def forward(self, x: State) -> Tensor:
        """U(x), shape (batch,)."""
        return self.energy(x)

    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,), in the dtype of x.

        Raises:
            TypeError: If x is no tensor of states.
            ValueError: If the network does not return one number for each state.
        """
        x = as_batch(as_state("x", x))
        weight = next(itertools.chain(self.network.parameters(), self.network.buffers()), x)
        try:
            value: object = self.network(x.to(weight.dtype))
        except RuntimeError as error:
            raise ValueError(
                f"the network of this energy takes no states of shape {tuple(x.shape)}: {error}"
            ) from error
        if not isinstance(value, Tensor) or value.shape not in ((len(x),), (len(x), 1)):
            raise ValueError(
                f"the network of an energy must return one number for each state, shape "
                f"({len(x)},) or ({len(x)}, 1), but returned {kind_of(value)}; end it with "
                "torch.nn.Linear(width, 1), or sum over the other axes."
            )
        value = value.reshape(len(x)).to(x.dtype)
        if self.base_std is None:
            return value
        return value + x.flatten(1).square().sum(1) / (2 * self.base_std**2)

    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""
        return -gradient_of(self.energy, x)

    def score(self, x: State) -> State:
        """∇ log p(x) = −∇U(x), same shape as x."""
        return self.force(as_state("x", x))

    def log_partition(self, grids: Grids) -> Tensor:
        """Return log Z = log ∫ e^{−U} dx in one or two dimensions, 0-d, with its gradient in θ.

        Args:
            grids: A `Grid`, or a pair of them for the plane.

        Raises:
            TypeError: If grids are none.
            ValueError: If they cut the law off, or do not resolve it.
            NonFiniteError: If U is NaN, or −∞, at a node.
        """
        return log_integral(lambda x: -self.energy(x), grids)

    def normalized(self, grids: Grids) -> NormalizedEnergy:
        """Return the law with its density, log p = −U − log Z; log Z as of `log_partition`."""
        with torch.no_grad():
            return NormalizedEnergy(self, float(self.log_partition(grids)))

    def save(self, path: str | Path) -> None:
        """Write the weights and the base; the network itself is given again to `load`.

        Args:
            path: The file, usually *.safetensors; its folder must exist.
        """
        metadata = {"kind": "EnergyModel", "base_std": self.base_std}
        save_tensors(path, self.network.state_dict(), metadata)

    @classmethod
    def load(cls, path: str | Path, network: nn.Module) -> Self:
        """Read a model that `save` wrote; no code in the file is ever run.

        Args:
            path: The file.
            network: A network of the same shapes, to be given the weights.

        Returns:
            The model in evaluation mode.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If it is damaged, of another kind, or the weights do not fit.
        """
        tensors, metadata = load_tensors(path, "EnergyModel")
        check_kind("network", network, nn.Module, "a torch.nn.Module of one number for each state")
        model_checks.check_fit(path, tensors, network.state_dict())
        network.load_state_dict(tensors)
        base_std: Any = metadata["base_std"]
        model = cls(network, base_std)
        model.eval()
        return model


@dataclass(frozen=True)
class NormalizedEnergy:
    """The law of an energy whose log Z is known: what `kl_divergence` takes.

        log p(x) = −U(x) − log Z,     x of shape (batch, *event)

    Attributes:
        model: The energy.
        log_partition: log Z in nats.

    Example:
        >>> model = sg.EnergyModel(torch.nn.Linear(1, 1, bias=False), base_std=1.0)
        >>> _ = model.network.weight.data.zero_()  # U = x²/2
        >>> law = model.normalized(sg.Grid(-10.0, 10.0, cells=200))
        >>> f"{law.log_prob(torch.zeros(1, 1)).item():.4f}"  # −½ log 2π
        '-0.9189'
    """

    model: EnergyModel
    log_partition: float

    def log_prob(self, x: State) -> Tensor:
        """Return log p(x) = −U(x) − log Z in nats, shape (batch,)."""
        return -self.model.energy(x) - self.log_partition
