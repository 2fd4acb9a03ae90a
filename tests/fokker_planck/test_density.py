import math

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.fokker_planck.discretization.cubics import integral, moment_weights
from tests.exact import slope


def normal(cells, std=0.7, mean=0.3):
    grid = sg.Grid(-6.0, 6.0, cells)
    law = stats.norm(mean, std)
    return sg.Density(grid.nodes, torch.from_numpy(law.pdf(grid.nodes.numpy()))), law


def test_cell_masses_and_cdf_are_fourth_order():
    errors, cdf_errors = [], []
    inside = np.linspace(-2.0, 2.5, 77)
    for cells in (50, 100, 200):
        density, law = normal(cells)
        exact = np.diff(law.cdf(density.x.numpy()))
        errors.append(np.abs(density.cell_masses.numpy() - exact).max() * cells)
        cdf = density.cdf(torch.from_numpy(inside)).numpy()
        cdf_errors.append(np.abs(cdf - law.cdf(inside)).max())
    h = [1 / 50, 1 / 100, 1 / 200]
    assert abs(slope(h, errors) - 4) < 0.2
    assert abs(slope(h, cdf_errors) - 4) < 0.3
    assert cdf_errors[-1] < 1e-6


def test_cell_masses_add_up_to_the_cdf():
    density, _ = normal(60)
    below = density.cdf(density.x)
    torch.testing.assert_close(below.diff(), density.cell_masses, rtol=0, atol=1e-15)
    assert float(below[0]) == 0
    assert abs(float(below[-1]) - float(density.mass)) < 1e-15


def test_quantile_inverts_the_cdf_of_a_skewed_density():
    grid = sg.Grid(0.0, 40.0, 400)
    law = stats.gamma(3.0)
    density = sg.Density(grid.nodes, torch.from_numpy(law.pdf(grid.nodes.numpy()))).normalized()
    q = torch.tensor([0.001, 0.2, 0.5, 0.9, 0.999], dtype=torch.float64)
    x = density.quantile(q)
    torch.testing.assert_close(density.cdf(x), q, rtol=0, atol=1e-13)
    # slopes of parabolas err by h² p‴/6, hence F by h⁴ max|p‴|/72 = 4e-6
    np.testing.assert_allclose(law.cdf(x.numpy()), q.numpy(), rtol=0, atol=1e-5)


def test_moments_are_of_what_is_left():
    density, law = normal(400)
    half = sg.Density(density.x, 0.5 * density.p)
    assert abs(float(half.mass) - 0.5) < 1e-12
    assert abs(float(half.mean) - 0.3) < 1e-10
    assert abs(float(half.std) - 0.7) < 1e-7
    assert abs(float(half.quantile(0.5)) - law.median()) < 1e-7
    fourth = half.expect(lambda x: (x - 0.3) ** 4)
    assert abs(float(fourth) - 3 * 0.7**4) < 1e-6


def test_a_spike_stays_positive_and_keeps_its_mass():
    grid = sg.Grid(-1.0, 1.0, 20)
    density = grid.point(0.0)
    assert float(density.cell_masses.min()) == 0
    assert abs(float(density.cell_masses.sum()) - 1) < 1e-15
    assert float(density.at(torch.linspace(-1, 1, 999, dtype=torch.float64)).min()) >= 0
    assert float(density.quantile(0.5)) == pytest.approx(0.0, abs=1e-12)


def test_between_nodes_the_cubic_meets_the_density():
    density, law = normal(200)
    x = np.linspace(-5.9, 5.9, 1003)
    got = density.at(torch.from_numpy(x)).numpy()
    assert np.abs(got - law.pdf(x)).max() < 1e-5
    assert float(density.at(torch.tensor([-7.0, 7.0])).abs().max()) == 0


def test_a_path_hands_out_densities_by_index():
    x = torch.linspace(0, 1, 5, dtype=torch.float64)
    p = torch.stack([torch.ones(5, dtype=torch.float64), 2 * x])
    path = sg.DensityPath(torch.tensor([0.0, 1.0], dtype=torch.float64), p, x)
    assert len(path) == 2
    assert abs(float(path.at(0).mean) - 0.5) < 1e-15
    assert abs(float(path.at(-1).mean) - 2 / 3) < 1e-15
    assert abs(float(path.final.variance) - 1 / 18) < 1e-15


def test_refusals():
    x = torch.linspace(0, 1, 5, dtype=torch.float64)
    with pytest.raises(sg.NotNormalizableError, match="mass 0 cannot be normalised"):
        sg.Density(x, torch.zeros_like(x)).normalized()
    with pytest.raises(ValueError, match=r"q must lie in \[0, 1\]"):
        sg.Density(x, torch.ones_like(x)).quantile(1.5)
    assert math.isfinite(float(sg.Density(x, torch.ones_like(x)).quantile(1.0)))


def test_lumped_values_hold_masses_and_mean_and_are_finite():
    x = torch.linspace(0, 12, 61, dtype=torch.float64)
    law = stats.gamma(0.4, scale=1.0)
    density = sg.Density(x, torch.from_numpy(law.pdf(x.numpy())), (-0.6, None)).normalized()
    lumped = density.lumped()
    assert bool(torch.isfinite(lumped.p).all())
    half = 0.5 * x.diff()
    volumes = torch.nn.functional.pad(half, (1, 0)) + torch.nn.functional.pad(half, (0, 1))
    shares = lumped.p * volumes / (lumped.p @ volumes)
    assert abs(float(shares @ x) - float(density.mean)) < 1e-9
    assert float(lumped.mass) == pytest.approx(1.0, abs=1e-12)


def test_weights_are_those_of_the_integral_of_the_cubic():
    x = torch.cat([torch.linspace(-1, 0, 7), torch.linspace(0.1, 2.0, 9)]).double() ** 3
    weights = moment_weights(x.numpy(), 1)[0]
    for k in range(len(x)):
        y = torch.zeros_like(x)
        y[k] = 1.0
        assert float(weights[k]) == pytest.approx(float(integral(x, y)), abs=1e-14)


def test_a_normalised_density_keeps_the_error_that_its_grids_share():
    # the drift turns at 0.13, within a cell: both grids miss the same
    saw = sg.ItoProcess(lambda x: torch.where(x > 0.13, -1.0, 1.0) * torch.ones_like(x), 0.8)
    rest = sg.FokkerPlanck(saw, sg.Grid(-5.0, 5.0, 90)).stationary()
    assert rest.hidden > 1e-5
    for name, error in rest.error.items():
        assert rest.normalized().error[name] == pytest.approx(error, rel=1e-6)
