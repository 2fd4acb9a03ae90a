"""The gradient of log Z by samples, against that of quadrature and of sums over states."""

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.energy import RBM, EnergyModel, log_partition_gradient

F64 = torch.float64


def _model(d):
    network = nn.Sequential(nn.Linear(d, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    draws = torch.Generator().manual_seed(d)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=draws, dtype=F64)
    return EnergyModel(network, 1.0)


@pytest.mark.parametrize("d", [1, 2])
def test_the_negative_phase_is_the_gradient_of_the_quadrature(d):
    """Each entry within 4.4 standard errors: one false alarm in 10⁵ seeds for each of 19 or 25.

    That of the last bias is exact: ∂U/∂θ = 1.
    """
    model = _model(d)
    grids = (sg.Grid(-7.0, 7.0, 200),) * d
    names, weights = zip(*model.named_parameters(), strict=True)
    exact = dict(zip(names, torch.autograd.grad(model.log_partition(grids), weights), strict=True))
    x0 = torch.randn(4000, d, generator=torch.Generator().manual_seed(0), dtype=F64)
    chains = sg.simulate(
        sg.Langevin(model), x0, [0.0, 8.0], solver=sg.Metropolis(substeps=40), rng=1
    )
    found = log_partition_gradient(model, chains.states[-1])
    for name in names:
        gap = (found.value[name] - exact[name]).abs()
        assert bool((gap <= 4.4 * found.error[name] + 1e-12).all()), name
        assert bool((found.error[name] < 0.05).all())
    assert float(found.value["network.2.bias"]) == -1
    wrong = {name: -one for name, one in found.value.items()}  # a sign is seen
    gaps = [(wrong[n] - exact[n]).abs() > 10 * found.error[n] for n in names]
    assert any(bool(gap.any()) for gap in gaps)


def test_that_of_a_boltzmann_machine_is_that_of_the_sum_over_states():
    """Each entry within 4.4 standard errors: one false alarm in 10⁵ seeds for each of 23."""
    machine = RBM(5, 3, rng=0)
    machine.weight.data *= 100
    exact = torch.autograd.grad(machine.log_partition(), list(machine.parameters()))
    found = log_partition_gradient(machine, machine.sample(4000, 200, rng=0))
    for (name, _), one in zip(machine.named_parameters(), exact, strict=True):
        assert bool(((found.value[name] - one).abs() <= 4.4 * found.error[name]).all()), name


def test_errors_are_those_of_a_mean():
    """∂U/∂k = x²/2 of known samples."""

    class Spring(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = nn.Parameter(torch.ones((), dtype=F64))

        def forward(self, x):
            return 0.5 * self.k * x.square().sum(1)

    x = torch.randn(3000, 1, dtype=F64)  # more than are held together
    found, half = log_partition_gradient(EnergyModel(Spring()), x), 0.5 * x.square()
    assert float(found.value["network.k"]) == pytest.approx(-float(half.mean()), rel=1e-12)
    error = float(half.std()) / 3000**0.5
    assert float(found.error["network.k"]) == pytest.approx(error, rel=1e-9)


def test_what_gives_no_gradient_is_refused():
    with pytest.raises(TypeError, match="model must be an EnergyModel or an RBM"):
        log_partition_gradient(nn.Linear(1, 1), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="n ≥ 2"):
        log_partition_gradient(_model(1), torch.zeros(1, 1, dtype=F64))
    with pytest.raises(sg.NonFiniteError, match="is not finite at some of 3 samples"):
        log_partition_gradient(_model(1), torch.full((3, 1), torch.nan, dtype=F64))
