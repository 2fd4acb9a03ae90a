import math

import pytest
import torch
from scipy import special, stats

import sdegen as sg
from tests import exact

WELL = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=0.7)


def washboard(cells, force=0.7, d=0.5):
    sde = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x) + force, diffusion=math.sqrt(2 * d))
    return sg.FokkerPlanck(sde, sg.Grid(0.0, 2 * math.pi, cells), "periodic")


def test_tilted_washboard():
    solver = washboard(256)
    velocity, diffusion = exact.washboard(0.7, 0.5)
    got = solver.transport()
    assert abs(got.velocity / velocity - 1) < 1e-8
    assert abs(got.diffusion / diffusion - 1) < 1e-8
    rest = solver.stationary()
    current = solver.current(rest)
    assert float((current / current.mean() - 1).abs().max()) < 1e-10
    # what the tilt puts in is what is dissipated: σ = F v / D
    assert solver.entropy_production(rest) == pytest.approx(0.7 * velocity / 0.5, rel=1e-8)


def test_free_drift_on_a_ring():
    sde = sg.ItoProcess(drift=lambda x: torch.full_like(x, -1.5), diffusion=0.6)
    got = sg.FokkerPlanck(sde, sg.Grid(0.0, 3.0, 64), "periodic").transport()
    assert got.velocity == pytest.approx(-1.5, rel=1e-12)
    assert got.diffusion == pytest.approx(0.18, rel=1e-12)
    assert got.current == pytest.approx(-0.5, rel=1e-12)


def test_transport_agrees_with_the_spreading_of_a_density():
    # unwrapped: a washboard of many periods, from one of them, by the transient solver
    force, d = 0.7, 0.5
    sde = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x) + force, diffusion=math.sqrt(2 * d))
    grid = sg.Grid(-20 * math.pi, 20 * math.pi, 4000)
    path = sg.FokkerPlanck(sde, grid).solve(grid.gaussian(math.pi / 2, 0.5), [0.0, 60.0, 120.0])
    velocity, diffusion = exact.washboard(0.7, 0.5)
    early, late = path.at(1), path.at(2)
    assert float(late.mean - early.mean) / 60 == pytest.approx(velocity, rel=1e-3)
    assert float(late.variance - early.variance) / 120 == pytest.approx(diffusion, rel=1e-2)


def test_at_equilibrium_nothing_flows():
    for solver in (
        sg.FokkerPlanck(WELL, sg.Grid(-3.0, 3.0, 300)),
        sg.FokkerPlanck(
            sg.ItoProcess(
                drift=lambda x: -torch.sin(x), diffusion=lambda x: 1 + 0.3 * torch.cos(x)
            ),
            sg.Grid(-math.pi, math.pi, 300),
            "periodic",
        ),
    ):
        rest = solver.stationary()
        assert float(solver.current(rest).abs().max()) < 1e-12
        assert abs(solver.entropy_production(rest)) < 1e-12
        assert abs(solver.free_energy(rest)) < 1e-14


def test_current_is_drift_less_diffusion():
    # J = f p − D p′ of a Gaussian in a trap, between two nodes to second order
    grid = sg.Grid(-8.0, 8.0, 800)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    p = grid.gaussian(1.0, 0.7)
    middle = 0.5 * (grid.nodes[1:] + grid.nodes[:-1])
    law = (-middle + (middle - 1.0) / 0.49) * p.at(middle)
    assert float((solver.current(p) - law).abs().max()) < 1e-3


def test_free_energy_only_falls_and_as_fast_as_entropy_is_made():
    grid = sg.Grid(-3.0, 3.0, 300)
    solver = sg.FokkerPlanck(WELL, grid)
    times = torch.linspace(0, 4, 401, dtype=torch.float64)
    path = solver.solve(grid.gaussian(-1.0, 0.2), times)
    free = torch.tensor([solver.free_energy(path.at(k)) for k in range(len(path))])
    assert bool((free.diff() < 0).all())
    for k in (100, 200, 300):
        slope = float(free[k + 1] - free[k - 1]) / 0.02
        assert -slope == pytest.approx(solver.entropy_production(path.at(k)), rel=1e-4)


def test_entropy_of_a_gaussian():
    density = sg.Grid(-10.0, 10.0, 800).gaussian(0.3, 0.8)
    assert float(density.entropy) == pytest.approx(
        0.5 * math.log(2 * math.pi * math.e * 0.64), abs=1e-9
    )


def test_refusals():
    solver = sg.FokkerPlanck(WELL, sg.Grid(-3.0, 3.0, 100))
    with pytest.raises(ValueError, match="belong to a ring, but boundary is"):
        solver.transport()
    driven = sg.FokkerPlanck(
        sg.ItoProcess(drift=lambda x, t: -x + t, diffusion=1.0), sg.Grid(-5.0, 5.0, 100)
    )
    p = driven.grid.gaussian(0.0, 1.0)
    with pytest.raises(ValueError, match="a current without a time was asked for"):
        driven.current(p)
    # J(t) = f(t) p − D p′: a shift of the drift by δt shifts the current by about δt p
    rise = driven.current(p, 1.0) - driven.current(p, 0.0)
    middle = 0.5 * (p.x[1:] + p.x[:-1])
    assert float((rise - p.at(middle)).abs().max()) < 1e-2


def test_along_a_path_a_trap_does_what_its_law_says():
    # dX = −X dt + √2 dW from N(2, ¼): m = 2 e^{−t}, v = 1 − ¾ e^{−2t}
    grid = sg.Grid(-10.0, 10.0, 800)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    times = torch.linspace(0, 3, 7, dtype=torch.float64)
    path = solver.solve(grid.gaussian(2.0, 0.5), times)
    m, v = 2 * torch.exp(-times), 1 - 0.75 * torch.exp(-2 * times)
    z = stats.norm.ppf(0.9)
    free_energy = 0.5 * (v + m**2 - 1 - v.log())
    for got, law in (
        (path.mass, torch.ones_like(m)),
        (path.mean, m),
        (path.variance, v),
        (path.std, v.sqrt()),
        (path.expect(torch.square), v + m**2),
        (path.entropy, 0.5 * torch.log(2 * math.pi * math.e * v)),
        (path.quantile(0.9), m + z * v.sqrt()),
        (path.cdf(torch.tensor(1.0)), torch.special.ndtr((1 - m) / v.sqrt())),
        (solver.free_energies(path), free_energy),
    ):
        assert got.shape == (7,)
        assert float((got - law).abs().max()) < 1e-6
    assert path.quantile(torch.tensor([0.1, 0.5])).shape == (7, 2)
    # the H-theorem: what F loses is the entropy that is produced
    loss = m**2 + (1 - v) ** 2 / v
    made = torch.tensor([solver.entropy_production(path.at(k)) for k in range(7)])
    assert float((made - loss).abs().max()) < 1e-3


def test_the_mass_of_a_path_falls_at_an_absorbing_wall():
    # −x₀ under its mirror image: the chance to be inside is erf(x₀/√(4Dt))
    grid = sg.Grid(0.0, 20.0, 1600)
    path = sg.FokkerPlanck(sg.BrownianMotion(), grid, ("absorbing", "no-flux")).solve(
        2.0, [0.0, 1.0, 4.0]
    )
    inside = torch.erf(2 / torch.sqrt(2 * path.times))
    assert float((path.mass - inside).abs().max()) < 1e-6
    # the cdf reaches the mass, not 1
    torch.testing.assert_close(path.cdf(torch.tensor(20.0)), path.mass, rtol=1e-12, atol=0)


@pytest.mark.parametrize("cells", [12, 40])
def test_a_washboard_on_coarse_cells_is_refined_inside(cells):
    solver = washboard(cells, d=0.2)
    velocity, _ = exact.washboard(0.7, 0.2)
    rest = solver.stationary()
    j = solver.current(rest)
    assert float((2 * math.pi * j / velocity - 1).abs().max()) < 2e-3
    sigma = solver.entropy_production(rest)
    assert abs(sigma / (0.7 * velocity / 0.2) - 1) < 2e-3
    assert 3 * float(sigma.error) > abs(sigma / (0.7 * velocity / 0.2) - 1)
    assert float(j.error) < 1e-3


def test_no_current_runs_in_a_layer_that_is_thinner_than_a_cell():
    # noise that falls by decades within a cell: what flows both ways balances to rounding
    sde = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * torch.sqrt(1e-5 + x))
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 14.0, 28), truncation_is_physical=True)
    rest = solver.stationary()
    j = solver.current(rest)
    assert float(j.error) < 1e-3
    assert float(j.abs().max()) < 2e-3  # of a one-way flux of order 1
    assert abs(solver.free_energy(rest)) < 1e-12


def test_what_flows_beside_a_wall_where_the_density_is_infinite():
    # dX = (θ − X) dt + σ√X dW, 2θ < σ²: J = ∫_x^∞ ∂_t p between two rest states of other θ
    sde = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt())
    other = sg.ItoProcess(lambda x: 0.6 - x, lambda x: 1.5 * x.sqrt())
    grid = sg.Grid(0.0, 40.0, 1600)
    solver = sg.FokkerPlanck(sde, grid)
    p = sg.FokkerPlanck(other, grid).stationary()
    # J = (f − f′) p = −0.1 p, p ∝ x^{0.6·8/9 − 1} e^{−x/1.125}
    j = solver.current(p)
    middle = 0.5 * (grid.nodes[1:] + grid.nodes[:-1])
    some = (middle > 0.5) & (middle < 10)
    assert float((j / (-0.1 * p.at(middle)) - 1)[some].abs().max()) < 1e-3
    assert float(j[0]) == 0  # through the wall's cell nothing flows
    a, b = 0.6 * 8 / 9, 0.5 * 8 / 9
    free = special.gammaln(b) - special.gammaln(a) + (a - b) * special.digamma(a)
    assert solver.free_energy(p) == pytest.approx(free, rel=1e-3)


def test_free_energies_keep_gradients_and_errors():
    grid = sg.Grid(-3.0, 3.0, 200)
    solver = sg.FokkerPlanck(WELL, grid)
    path = solver.solve(grid.gaussian(-1.0, 0.3), [0.0, 0.5, 1.0])
    free = solver.free_energies(path)
    assert float(free.error) < 1e-3
    assert solver.free_energy(path.at(1)) == pytest.approx(float(free[1]), rel=1e-12)


def test_a_density_that_the_grid_does_not_resolve_has_no_exact_entropy_production():
    grid = sg.Grid(-3.0, 3.0, 60)
    solver = sg.FokkerPlanck(WELL, grid)
    with pytest.warns(sg.AccuracyWarning, match="the entropy production: the estimated relative"):
        assert float(solver.entropy_production(grid.gaussian(0.0, 0.1)).error) > 1e-3
