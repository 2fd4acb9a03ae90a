"""Evaluation: a drift with random numbers of its own is refused before the first step."""

import random

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.evaluation import check_repeatable, watched

F64 = torch.float64
X = torch.zeros(50, 1, dtype=F64)
GRID = sg.Grid(-4.0, 4.0, 60)
OWN = np.random.default_rng(0)
OF_TORCH = torch.Generator().manual_seed(0)

RANDOM = {
    "rare shots": lambda x: -x + torch.poisson(torch.full_like(x, 1e-6)) / 0.01,
    "jumps": lambda x: torch.poisson(torch.full_like(x, 0.02)) / 0.01,
    "numpy": lambda x: -x + float(np.random.normal()),  # noqa: NPY002
    "python": lambda x: -x + random.random(),
    "numpy, a generator of its own": lambda x: -x + OWN.normal(),
    "torch, a generator of its own": lambda x: -x + torch.rand(1, generator=OF_TORCH).to(x),
}


class _Dropout(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.drop = torch.nn.Linear(1, 1).double(), torch.nn.Dropout(0.1)

    def forward(self, x):
        return -x + 0 * self.drop(self.layer(x))


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_of_a_drifts_own_is_refused(name):
    sde = sg.ItoProcess(RANDOM[name], 0.5)
    for run in (
        lambda: sg.simulate(sde, X, [0.0, 0.1], rng=0),
        lambda: sg.simulate(sde, X, [0.0, 0.1], rng=0, interacting=True),
        lambda: sg.run_ensemble(
            sde, X[:1], [0.0, 0.1], trajectories=9, observables=[sg.Moments()], progress=False
        ),
        lambda: sg.FokkerPlanck(sde, GRID),
        lambda: sg.certify(sde, GRID, GRID.gaussian(0.0, 0.5), [0.0, 0.1]),
    ):
        with pytest.raises(ValueError, match=r"drift has randomness of its own.*jumps are not"):
            run()


def test_randomness_in_two_dimensions_and_in_the_noise_is_refused():
    plane = sg.ItoProcess(lambda x: -x + torch.rand_like(x), 0.5)
    with pytest.raises(ValueError, match="drift has randomness of its own"):
        sg.FokkerPlanck2D(plane, (GRID, GRID))
    noisy = sg.ItoProcess(lambda x: -x, lambda x: 1 + torch.rand_like(x))
    with pytest.raises(ValueError, match="diffusion has randomness of its own"):
        sg.simulate(noisy, X, [0.0, 0.1], rng=0)


def test_dropout_is_refused_and_evaluation_mode_cures_it():
    network = _Dropout()
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    grid = vp.time_grid(5)

    def all_of():
        x0 = vp.prior((5, 1), rng=0, dtype=F64)
        sg.simulate(sg.ItoProcess(network, 0.5), X, [0.0, 0.1], rng=0)
        sg.simulate(sg.ReverseSDE(vp, lambda x, t: network(x)), x0, grid, rng=0)
        sg.log_likelihood(vp, lambda x, t: network(x), x0)

    with pytest.raises(ValueError, match=r"torch's global generator moved.*model\.eval\(\)"):
        all_of()
    with pytest.raises(ValueError, match="score has randomness of its own"):
        sg.log_likelihood(vp, lambda x, t: network(x), X)
    network.eval()
    all_of()


def test_a_network_is_known_by_its_parameters_and_evaluated_once():
    layer, calls = torch.nn.Linear(1, 1).double(), []

    def drift(x):
        calls.append(len(x))
        return layer(x) - x

    _, network, moved = watched(lambda: drift(X), X.device)
    assert network
    assert moved is None
    assert not watched(lambda: -X, X.device)[1]
    calls.clear()
    sg.simulate(sg.ItoProcess(drift, 0.5), X, [0.0, 0.1, 0.2], rng=0)
    assert calls == [4, 50, 50]


def test_equal_values_are_repeatable_and_so_is_nan():
    x = torch.tensor([1.0, float("nan"), float("inf")])
    check_repeatable("drift", x, x.clone())
    with pytest.raises(ValueError, match="two evaluations at the same x and t differ"):
        check_repeatable("drift", x, x + 0.1)


def test_a_mean_field_in_two_dimensions_has_no_linear_equation():
    field = sg.ItoProcess(lambda x: x.mean(0) - x, 0.5)
    with pytest.raises(ValueError, match="mean field"):
        sg.FokkerPlanck2D(field, (GRID, GRID))
    matrix = sg.ItoProcess(lambda x: -x, lambda x: torch.eye(2).to(x))
    with pytest.raises(ValueError, match="noise matrix is declared"):
        sg.FokkerPlanck2D(matrix, (GRID, GRID))


def test_parameters_of_trajectories_make_no_single_density():
    sde = sg.ItoProcess(lambda x, k: -k * x, 0.5, parameters={"k": torch.ones(61, 1)})
    for grids in (sg.FokkerPlanck, lambda s, g: sg.FokkerPlanck2D(s, (g, g))):
        with pytest.raises(ValueError, match=r"parameters of 61 trajectories.*FokkerPlanckBatch"):
            grids(sde, GRID)


def test_an_integrator_of_densities_is_no_solver():
    sde = sg.ItoProcess(lambda x: -x, 0.5)
    for solver in (sg.BackwardEuler(100), sg.BackwardEuler, sg.Exponential(5)):
        with pytest.raises(TypeError, match="is an integrator of densities, for FokkerPlanck"):
            sg.simulate(sde, X, [0.0, 0.1], solver=solver)
