"""Energies of networks: closed forms, the law that is sampled, and what is refused."""

import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.variational import kl_divergence

F64 = torch.float64
LINE = sg.Grid(-9.0, 9.0, 300)


class Spring(nn.Module):
    """½ k |x|², one number for each state."""

    def __init__(self, k=1.5):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=F64))

    def forward(self, x):
        return 0.5 * self.k * x.square().sum(1, keepdim=True)


def perceptron(d, width=8, seed=0):
    network = nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, 1)).double()
    draws = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=draws, dtype=F64)
    return network


@pytest.mark.parametrize("base_std", [None, 0.8])
@pytest.mark.parametrize("d", [1, 2])
def test_log_z_and_its_gradient_are_those_of_a_gaussian(d, base_std):
    model = sg.EnergyModel(Spring(), base_std)
    k = 1.5 + (0 if base_std is None else base_std**-2)
    log_z = model.log_partition(LINE if d == 1 else (sg.Grid(-9.0, 9.0, 120),) * 2)
    assert float(log_z.detach()) == pytest.approx(0.5 * d * math.log(2 * math.pi / k), abs=1e-10)
    log_z.backward()
    assert float(model.network.k.grad) == pytest.approx(-d / (2 * k), abs=1e-10)


def test_a_normalized_energy_is_a_law_with_a_density():
    law = sg.EnergyModel(Spring(), 0.8).normalized(LINE)
    gaussian = sg.Gaussian([0.0], [1 / (1.5 + 0.8**-2)])
    assert abs(kl_divergence(law, gaussian, grids=LINE).value) < 1e-12
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    torch.testing.assert_close(law.log_prob(x).detach(), gaussian.log_prob(x))


def test_the_force_is_minus_the_gradient():
    model, x = sg.EnergyModel(perceptron(2), 1.3), torch.randn(7, 2, dtype=F64)
    step = 1e-6 * torch.eye(2, dtype=F64)
    with torch.no_grad():
        slopes = [(model.energy(x + h) - model.energy(x - h)) / 2e-6 for h in step]
        torch.testing.assert_close(model.force(x), -torch.stack(slopes, 1), rtol=1e-7, atol=1e-8)
        assert torch.equal(model.score(x), model.force(x))
        assert torch.equal(model(x), model.energy(x))


def test_it_is_walked_as_the_potential_that_it_is():
    """To rounding, the paths of Langevin dynamics in ½ k x²."""
    x0, times = torch.linspace(-1, 1, 5, dtype=F64)[:, None], torch.linspace(0, 1, 11)
    for solver in (sg.EulerMaruyama(), sg.Heun(), sg.Metropolis()):
        ours, theirs = (
            sg.simulate(sg.Langevin(u, 0.7), x0, times, solver=solver, rng=2).states
            for u in (sg.EnergyModel(Spring()), sg.Quadratic(1.5))
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_an_ensemble_of_it_is_at_rest_at_the_quadrature():
    """⟨x²⟩ within 4.4 standard errors: one false alarm in 10⁵ seeds."""
    model = sg.EnergyModel(perceptron(1, seed=3), 1.0)
    x, p = LINE.nodes, model.normalized(LINE).log_prob(LINE.nodes[:, None]).exp().detach()
    exact = float(torch.trapezoid(p * x**2, x))
    x0 = torch.randn(8000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    solver = sg.Metropolis(substeps=30)
    end = sg.simulate(sg.Langevin(model), x0, [0.0, 6.0], solver=solver, rng=1, keep_path=False)
    square = end.states[-1].square()
    assert abs(float(square.mean()) - exact) < 4.4 * float(square.std()) / math.sqrt(8000)


def test_single_precision_weights_take_double_states():
    model = sg.EnergyModel(perceptron(1).float(), 1.0)
    x = torch.zeros(3, 1, dtype=F64)
    with torch.no_grad():
        assert model.energy(x).dtype == F64
        assert model.force(x).dtype == F64


def test_a_saved_model_is_the_model(tmp_path):
    model = sg.EnergyModel(perceptron(2), 0.7)
    model.save(tmp_path / "energy.safetensors")
    again = sg.EnergyModel.load(tmp_path / "energy.safetensors", perceptron(2, seed=5))
    x = torch.randn(4, 2, dtype=F64)
    assert torch.equal(again.energy(x), model.energy(x))
    assert again.base_std == 0.7
    assert not again.training
    with pytest.raises(sg.CheckpointError, match=r"key '0\.bias'"):
        sg.EnergyModel.load(tmp_path / "energy.safetensors", perceptron(2, width=9))


def test_a_network_of_several_numbers_is_no_energy():
    model = sg.EnergyModel(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"one number for each state, shape \(5,\) or \(5, 1\)"):
        model.energy(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="but returned a tensor of shape"):
        sg.fit(model, torch.randn(8, 2), sg.ContrastiveDivergence(), sg.FitConfig(steps=1))
    with pytest.raises(ValueError, match="one number for each state"):
        sg.simulate(sg.Langevin(model), torch.zeros(3, 2), [0.0, 0.1], rng=0)
    with pytest.raises(TypeError, match=r"network must be a torch.nn.Module"):
        sg.EnergyModel(lambda x: x.sum(1))
    with pytest.raises(ValueError, match="base_std must be finite and > 0"):
        sg.EnergyModel(Spring(), 0.0)


def test_grids_that_say_nothing_of_log_z_are_refused():
    model = sg.EnergyModel(Spring())
    with pytest.raises(ValueError, match=r"hold 0.* of the mass: it cuts the law off"):
        model.log_partition(sg.Grid(-1.0, 1.0, 50))
    with pytest.raises(ValueError, match="it does not resolve the law; pass more cells"):
        model.log_partition(sg.Grid(-40.0, 40.0, 40))
    with pytest.raises(ValueError, match=r"cuts the law off, or e.* has no finite integral"):
        sg.EnergyModel(perceptron(1)).log_partition(LINE)
    with pytest.raises(ValueError, match="grids must be one or two"):
        model.log_partition([LINE] * 3)
    with pytest.raises(TypeError, match="grids must be a Grid"):
        model.log_partition([-1.0, 1.0])
    with pytest.raises(sg.NonFiniteError, match="the energy is nan at x ="):
        sg.EnergyModel(Spring(math.nan)).log_partition(LINE)
