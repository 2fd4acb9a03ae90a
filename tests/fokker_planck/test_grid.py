import math

import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.discretization.cubics import cell_masses


def test_both_walls_are_nodes_and_cells_are_even():
    grid = sg.Grid(-0.3, 0.7, 10)
    assert grid.nodes.dtype == torch.float64
    assert float(grid.nodes[0]) == -0.3
    assert float(grid.nodes[-1]) == 0.7
    torch.testing.assert_close(grid.nodes.diff(), torch.full((10,), 0.1, dtype=torch.float64))


def test_sinh_nodes_are_even_in_asinh():
    grid = sg.Grid.sinh(-50.0, 80.0, 200, center=1.0, width=0.5)
    s = torch.asinh((grid.nodes - 1.0) / 0.5)
    step = (s[-1] - s[0]) / 200
    torch.testing.assert_close(s.diff(), step.expand(200), rtol=1e-10, atol=0)
    assert float(grid.nodes[0]) == -50.0
    assert float(grid.nodes[-1]) == 80.0


def test_gaussian_has_mass_one_and_its_moments():
    grid = sg.Grid(-4.0, 8.0, 120)
    density = grid.gaussian(mean=1.3, std=0.4)
    assert abs(float(density.mass) - 1) < 1e-14
    assert abs(float(density.mean) - 1.3) < 1e-12
    # fourth order in the cell: the curvature of a cubic's error, (h/s)⁴/120 of the variance
    assert abs(float(density.std) - 0.4) < 0.4 * (0.1 / 0.4) ** 4 / 100


def even(cells):
    return sg.Grid(-1.0, 3.0, cells)


@pytest.mark.parametrize(
    "grid", [even(4), even(7), even(8), even(40), sg.Grid.sinh(-1.0, 3.0, 40, width=0.5)]
)
def test_masses_are_those_of_the_cells_where_slopes_are_limited_too(grid):
    # spikes, and values that jump at both walls: most slopes are limited
    generator = torch.Generator().manual_seed(5)
    p = torch.rand(200, grid.cells + 1, generator=generator, dtype=torch.float64) ** 8
    p[::2, 0], p[1::2, -1] = 0.0, 0.0
    spike = torch.eye(grid.cells + 1, dtype=torch.float64)
    for values in (p, spike):
        cells = cell_masses(grid.nodes, values).sum(-1)
        torch.testing.assert_close(grid.masses(values), cells, rtol=1e-14, atol=1e-15)
        bare = torch.from_numpy(grid.masses(values.numpy()))
        torch.testing.assert_close(bare, cells, rtol=1e-14, atol=1e-15)


def test_a_point_between_nodes_keeps_mass_and_mean():
    grid = sg.Grid.sinh(-3.0, 5.0, 40, width=0.3)
    density = grid.point(0.4321)
    assert abs(float(density.mass) - 1) < 1e-14
    assert int((density.p > 0).sum()) == 2
    control = 0.5 * (grid.nodes[2:] - grid.nodes[:-2])
    share = control * density.p[1:-1]
    mean = (share * grid.nodes[1:-1]).sum() / share.sum()
    assert abs(float(mean) - 0.4321) < 1e-14


@pytest.mark.parametrize(
    ("sde", "mean", "std"),
    [
        (sg.OrnsteinUhlenbeck(), 0.0, 1.0),
        (sg.OrnsteinUhlenbeck(mean=20.0), 20.0, 1.0),
        (sg.OrnsteinUhlenbeck(mean=-3.0, sigma=1e-4), -3.0, 1e-4 / math.sqrt(2)),
        (sg.OrnsteinUhlenbeck(rate=1e-4), 0.0, 100.0),
    ],
)
def test_covering_finds_a_gaussian(sde, mean, std):
    grid = sg.Grid.covering(sde, 400)
    assert 8.5 < (mean - grid.low) / std < 10  # e^{−40} lies at 8.94 standard deviations
    assert 8.5 < (grid.high - mean) / std < 10
    density = sg.FokkerPlanck(sde, grid).stationary()
    assert float(density.mean) == pytest.approx(mean, abs=1e-8 * std)
    assert float(density.std) == pytest.approx(std, rel=1e-6)


def test_covering_stops_where_the_noise_ends():
    root = sg.ItoProcess(drift=lambda x: 1 - x, diffusion=lambda x: x.sqrt())
    grid = sg.Grid.covering(root)
    assert grid.low == 0
    assert float(sg.FokkerPlanck(root, grid).stationary().variance) == pytest.approx(0.5, rel=1e-4)
    gene = sg.ItoProcess(
        drift=lambda x: 0.4 - x, diffusion=lambda x: torch.sqrt(0.3 * x * (1 - x))
    )
    grid = sg.Grid.covering(gene)
    assert (grid.low, grid.high) == (0.0, 1.0)


def test_covering_a_heavy_tail_crowds_its_nodes():
    sde = sg.ItoProcess(
        drift=lambda x: -0.8 * x, diffusion=lambda x: torch.sqrt(0.64 * (1 + x * x))
    )
    grid = sg.Grid.covering(sde)
    assert float(grid.nodes.diff().max() / grid.nodes.diff().min()) > 100
    assert float(sg.FokkerPlanck(sde, grid).stationary().variance) == pytest.approx(
        2 / 3, rel=1e-4
    )


@pytest.mark.parametrize(
    "drift", [lambda x: 0 * x, lambda x: x, lambda x: torch.full_like(x, -1.0)]
)
def test_nothing_to_cover(drift):
    with pytest.raises(
        sg.NotNormalizableError, match="no stationary density to cover: towards low x"
    ):
        sg.Grid.covering(sg.ItoProcess(drift=drift, diffusion=1.0))


@pytest.mark.parametrize("period", [0.3, 2 * math.pi, 100.0])
def test_a_periodic_force_has_nothing_to_cover(period):
    q = 2 * math.pi / period
    sde = sg.ItoProcess(drift=lambda x: -torch.sin(q * x), diffusion=1.0)
    with pytest.raises(sg.NotNormalizableError, match="no stationary density to cover"):
        sg.Grid.covering(sde)


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_covering_two_wells_far_apart(sigma):
    # wells of curvature 8 at ±100, a barrier of 10⁴ or more between them
    sde = sg.ItoProcess(drift=lambda x: -4 * x * (x**2 - 1e4) / 1e4, diffusion=sigma)
    grid = sg.Grid.covering(sde, 1600)
    density = sg.FokkerPlanck(sde, grid).stationary()
    # Φ reaches 8·10⁴, and is summed over 1600 cells: 10⁻⁷ of the difference of the two
    assert float(density.mean) == pytest.approx(0, abs=1e-4)
    variance = 1e4 + 0.5 * sigma**2 / 8
    assert float(density.expect(lambda x: x**2)) == pytest.approx(variance, rel=1e-4)


def test_covering_wells_too_narrow_for_the_cells_is_refused():
    sde = sg.ItoProcess(drift=lambda x: -4 * x * (x**2 - 1e4) / 1e4, diffusion=0.1)
    with pytest.raises(ValueError, match=r"100 cells from -10.* do not resolve"):
        sg.Grid.covering(sde, 100)


def test_what_depends_on_time_is_not_covered():
    pushed = sg.ItoProcess(drift=lambda x, t: -x + torch.sin(t), diffusion=1.0)
    for sde in (pushed, sg.VP(sg.LinearBeta(0.1, 20.0))):
        with pytest.raises(ValueError, match="depend on time; freeze the time"):
            sg.Grid.covering(sde)


def test_covering_needs_a_living_point():
    sde = sg.ItoProcess(drift=lambda x: -x, diffusion=lambda x: (x - 5).sqrt())
    with pytest.raises(ValueError, match="finite and D > 0 at x = 0; pass near="):
        sg.Grid.covering(sde)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sg.Grid(1.0, -1.0, 10), ValueError, "low < high, but low = 1 and high = -1"),
        (lambda: sg.Grid(0.0, math.inf, 10), ValueError, "finite low < high"),
        (lambda: sg.Grid(0.0, 1.0, 3), ValueError, "cells must be ≥ 4, but is 3"),
        (lambda: sg.Grid(0.0, 1.0, 10).gaussian(2.0, 0.1), ValueError, r"mean = 2 lies outside"),
        (
            lambda: sg.Grid(0.0, 1.0, 10).gaussian(0.5, 0.01),
            ValueError,
            r"at least half a cell, 0.05",
        ),
        (lambda: sg.Grid(0.0, 1.0, 10).point(-1.0), ValueError, "x0 = -1 lies outside"),
        (
            lambda: sg.Grid.sinh(0.0, 1.0, 10, width=0.0),
            ValueError,
            "width must be finite and > 0",
        ),
        (
            lambda: sg.Grid.of(torch.tensor([0.0, 1.0, 1.0, 2.0, 3.0])),
            ValueError,
            r"nodes\[1\] = 1 is followed by 1",
        ),
        (lambda: sg.Grid.of(torch.zeros(3)), ValueError, r"shape \(cells \+ 1,\)"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("theta", [0.5, 0.05, 1.5])
def test_covering_a_process_that_reaches_the_end_of_its_noise(theta):
    # Γ(2θ/σ²): infinite at 0 for 2θ < σ²
    sde = sg.ItoProcess(lambda x: theta - x, lambda x: 1.5 * x.sqrt())
    grid = sg.Grid.covering(sde, 800)
    assert grid.low == 0
    p = sg.FokkerPlanck(sde, grid).stationary()
    assert abs(float(p.mean) - theta) < 1e-3 * max(theta, (theta * 1.125) ** 0.5)
    assert abs(float(p.variance) / (theta * 1.125) - 1) < 1e-3
