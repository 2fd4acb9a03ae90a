"""Metropolis-adjusted Langevin steps: an exact law at any step; what has none is refused."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg

F64 = torch.float64
WELL = sg.DoubleWell()


def _end(sde, solver, steps, dt):
    x0 = torch.zeros(8000, 1, dtype=F64)
    nodes = dt * torch.arange(steps + 1, dtype=F64)
    with torch.no_grad():
        *_, x = sg.integrate(sde, solver, x0, nodes, sg.Noise(x0, rng=3))
    return x[:, 0].sort().values


@pytest.mark.parametrize("potential", [WELL, sg.Quadratic(2.0, 0.3)], ids=["well", "trap"])
def test_the_law_is_exact_at_long_steps(potential):
    """8,000 chains by Kolmogorov and Smirnov, which exceed 0.0276 once in 10⁵ seeds."""
    grid = torch.linspace(-5, 5, 20_001, dtype=F64)
    cdf = potential.log_prob(grid[:, None], 0.5).exp().cumsum(0) * float(grid[1] - grid[0])
    x = _end(sg.Langevin(potential, 0.5), sg.Metropolis(), 120, 0.4)
    exact = torch.from_numpy(np.interp(x.numpy(), grid.numpy(), cdf.numpy()))
    ranks = torch.arange(1, len(x) + 1, dtype=F64) / len(x)
    assert float((ranks - exact).abs().max()) < 0.0276


def test_the_law_of_euler_is_not_at_that_step():
    """Its variance is T/(k (1 − k dt/2)), 1.67 times too large, and not that of Metropolis."""
    sde = sg.Langevin(sg.Quadratic(2.0), 0.5)
    euler, metropolis = (
        _end(sde, s, 120, 0.4).var() for s in (sg.EulerMaruyama(), sg.Metropolis())
    )
    error = 4.4 * math.sqrt(2 / 8000)
    assert abs(float(euler) / (0.25 / 0.6) - 1) < error
    assert abs(float(metropolis) / 0.25 - 1) < error


def test_a_short_step_is_the_update():
    """Almost all are accepted, and then the chain is Euler's, from the same draws."""
    sde, x0 = sg.Langevin(WELL, 0.5), torch.linspace(-1, 1, 50, dtype=F64)[:, None]
    nodes = torch.tensor([0.0, 1e-6], dtype=F64)
    with torch.no_grad():
        (moved,) = sg.integrate(sde, sg.Metropolis(), x0, nodes, sg.Noise(x0, rng=1))
        (update,) = sg.integrate(sde, sg.EulerMaruyama(), x0, nodes, sg.Noise(x0, rng=1))
    torch.testing.assert_close(moved, update, rtol=0, atol=1e-15)


def test_refused_proposals_leave_the_state_and_few_that_are_accepted_are_told():
    sde, x0 = sg.Langevin(lambda x: 50 * x**2), torch.zeros(200, 30, dtype=F64)
    with pytest.warns(sg.AccuracyWarning, match="accepted 0 % of 2000 proposals"):
        path = sg.simulate(sde, x0, torch.linspace(0, 10, 11), solver=sg.Metropolis(), rng=0)
    assert torch.equal(path.states[-1], x0)


def test_what_has_no_energy_or_no_law_is_refused():
    x0, times = torch.zeros(3, 1), [0.0, 1.0]

    def run(sde, **words):
        return sg.simulate(sde, x0, times, solver=sg.Metropolis(), rng=0, **words)

    with pytest.raises(ValueError, match="but the dynamics are OrnsteinUhlenbeck; take Euler"):
        run(sg.OrnsteinUhlenbeck())
    with pytest.raises(ValueError, match="there is none at T = 0"):
        run(sg.Langevin(WELL, 0.0))
    theta = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match="would miss what accepting depends on"):
        run(sg.Langevin(lambda x: theta * x**2), differentiable=True)
    with pytest.raises(ValueError, match="boundar"):
        run(sg.Langevin(WELL), boundary=sg.Reflecting(-1.0, 1.0))
    with pytest.raises(ValueError, match="times decrease"):
        sg.Metropolis().check(sg.Langevin(WELL), torch.tensor([1.0, 0.0]))


def test_detailed_balance_of_a_driven_potential_is_that_of_its_time():
    """The variance of a trap that stiffens is that of its last stiffness, but for a lag of 1/2k².

    4.4 standard errors of a variance, σ² √(2/n): one false alarm in 10⁵ seeds.
    """
    sde = sg.Langevin(lambda x, t: (1 + t) * x**2 / 2)
    x0 = torch.randn(8000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = sg.simulate(
        sde, x0, [0.0, 9.0], solver=sg.Metropolis(substeps=300), keep_path=False, rng=0
    ).states[-1]
    assert abs(10 * float(x.var()) - 1 - 1 / 200) < 4.4 * math.sqrt(2 / 8000) + 1e-3
