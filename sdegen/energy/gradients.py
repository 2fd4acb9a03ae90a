"""The gradient of log Z by the negative phase, with its standard errors.

    ∂ log Z/∂θ = −E_p ∂U/∂θ

is a mean over samples of the model: what contrastive divergence estimates in each step, and here
once, with its error. Samples must be independent draws of p, such as the ends of chains that were
run apart from each other, long and without an error of the step:

    chains = sg.simulate(sg.Langevin(model), x0, times, solver=sg.Metropolis(substeps=100))
    gradient = log_partition_gradient(model, chains.states[-1])
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.errors import NonFiniteError
from sdegen.core.requests import as_state, check_kind
from sdegen.core.shapes import State
from sdegen.energy.boltzmann import RBM
from sdegen.energy.model import EnergyModel

_AT_ONCE = 1024  # samples whose gradients are held together


@dataclass(frozen=True)
class PartitionGradient:
    """The gradient of log Z, an entry for each weight, by the names of the module's parameters.

        ∂ log Z/∂θ = −E_p ∂U/∂θ

    Attributes:
        value: −mean of ∂U/∂θ over the samples, of the shape of each weight, float64.
        error: Its standard error, entry by entry.

    Example:
        >>> model = sg.EnergyModel(torch.nn.Linear(1, 1, bias=False), base_std=1.0)  # θ x + x²/2
        >>> found = sg.energy.log_partition_gradient(model, torch.tensor([[1.0], [3.0]]))
        >>> found.value["network.weight"].item(), found.error["network.weight"].item()  # −2, √2/√2
        (-2.0, 1.0)
    """

    value: dict[str, Tensor]
    error: dict[str, Tensor]


def log_partition_gradient(model: EnergyModel | RBM, samples: State) -> PartitionGradient:
    """Return ∂ log Z/∂θ = −E_p ∂U/∂θ from independent samples of a model.

    Args:
        model: An `EnergyModel`, or an `RBM`, whose U is the free energy.
        samples: Independent draws of p, shape (n, *event), n ≥ 2.

    Raises:
        TypeError: If model is neither, or samples are no tensor.
        ValueError: If there are fewer than two samples.
        NonFiniteError: If a gradient is not finite.

    Example:
        >>> model = sg.EnergyModel(torch.nn.Linear(1, 1, bias=False), base_std=1.0)  # θ x + x²/2
        >>> _ = model.network.weight.data.fill_(-0.5)  # Z ∝ e^{θ²/2}: ∂ log Z/∂θ = θ
        >>> x = 0.5 + torch.special.ndtri((torch.arange(1000.0) + 0.5) / 1000)  # p = N(½, 1)
        >>> found = sg.energy.log_partition_gradient(model, x[:, None])
        >>> f"{found.value['network.weight'].item():.2f}"
        '-0.50'
    """
    check_kind("model", model, (EnergyModel, RBM), "an EnergyModel or an RBM")
    x = (
        model.checked("samples", samples)
        if isinstance(model, RBM)
        else as_state("samples", samples)
    )
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(
            f"samples must have shape (n, *event) with n ≥ 2, but have shape {tuple(x.shape)}."
        )
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    rest = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    rest |= dict(model.named_buffers())

    def energy(given: dict[str, Tensor], row: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(model, given | rest, (row[None],))
        return value[0]

    slopes = torch.func.vmap(torch.func.grad(energy), in_dims=(None, 0))
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in weights.items()}
    square = {name: one.clone() for name, one in total.items()}
    origin: dict[str, Tensor] = {}
    for first in range(0, len(x), _AT_ONCE):
        rows = x[first : first + _AT_ONCE]
        for name, slope in slopes(weights, rows).items():
            slope = slope.double()
            origin.setdefault(name, slope.mean(0))  # that squares of large means cancel nothing
            total[name] += (slope - origin[name]).sum(0)
            square[name] += (slope - origin[name]).square().sum(0)
    n = len(x)
    value, error = {}, {}
    for name, one in total.items():
        mean = one / n
        value[name] = -(origin[name] + mean)
        error[name] = ((square[name] / n - mean.square()).clamp(min=0) / (n - 1)).sqrt()
        if not bool(value[name].isfinite().all()):
            raise NonFiniteError(f"∂U/∂θ of {name} is not finite at some of {n} samples.")
    return PartitionGradient(value, error)
