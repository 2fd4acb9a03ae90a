import functools
import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.exponential import expm_action
from sdegen.fokker_planck.transient import _steps
from tests import exact
from tests.exact import ou_moments, slope

D = 0.6
NOISE = math.sqrt(2 * D)


def constant(v, noise=NOISE):
    return sg.ItoProcess(drift=lambda x: torch.full_like(x, v), diffusion=noise)


def error(sde, grid, law, times, form, **options):
    x = grid.nodes.numpy()
    p0 = sg.Density(grid.nodes, torch.from_numpy(law(x, times[0])))
    path = sg.FokkerPlanck(sde, grid, form=form, **options).solve(p0, times)
    return float(np.abs(path.final.p.numpy() - law(x, times[1])).max())


ABSORBED = functools.partial(exact.absorbed_drift_density, x0=2.0, v=-0.5, d=D)
FALLING = functools.partial(exact.sedimentation_density, x0=2.0, v=0.7, d=D)
CLOSED = functools.partial(exact.box_density, x0=0.6, d=D, length=1.5, absorbing=False)
OPEN = functools.partial(exact.box_density, x0=0.6, d=D, length=1.5, absorbing=True)
GEOMETRIC = functools.partial(exact.geometric_density, x0=1.0, mu=0.1, sigma=0.4)
ROOT = functools.partial(exact.cox_ingersoll_ross_density, x0=1.2, kappa=1.0, theta=1.0, sigma=1.0)
CIR = sg.ItoProcess(drift=lambda x: 1 - x, diffusion=lambda x: x.sqrt())
GBM = sg.ItoProcess(drift=lambda x: 0.1 * x, diffusion=lambda x: 0.4 * x)

PROBLEMS = {
    "absorbed": (-0.5, (0.0, 14.0), ABSORBED, (0.3, 1.3), {"boundary": ("absorbing", "no-flux")}),
    "falling": (-0.7, (0.0, 14.0), FALLING, (0.3, 1.3), {"physical_walls": True}),
    "closed box": (0.0, (0.0, 1.5), CLOSED, (0.03, 0.2), {"physical_walls": True}),
    "open box": (0.0, (0.0, 1.5), OPEN, (0.03, 0.2), {"boundary": "absorbing"}),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_walls_to_their_order(name):
    v, ends, law, times, options = PROBLEMS[name]
    sde = constant(v)
    cells = (100, 200, 400)
    for form, order, most in (("lumped", 2, 1e-3), ("compact", 4, 1e-6)):
        errors = [error(sde, sg.Grid(*ends, n), law, times, form, **options) for n in cells]
        assert abs(slope([1 / n for n in cells], errors) - order) < 0.25
        assert errors[-1] < most


@pytest.mark.parametrize(
    ("sde", "law", "width"), [(GBM, GEOMETRIC, 0.5), (CIR, ROOT, 0.2)], ids=["geometric", "root"]
)
def test_walls_where_the_noise_ends(sde, law, width):
    # even nodes: 1e-5 at 801; nodes that crowd at the wall: fourth order
    assert error(sde, sg.Grid(0.0, 18.0, 800), law, (0.5, 1.5), "compact") < 1e-5
    cells = (100, 200, 400)
    for form, order, most in (("lumped", 2, 1e-3), ("compact", 4, 1e-6)):
        grids = [sg.Grid.sinh(0.0, 18.0, n, width=width) for n in cells]
        errors = [error(sde, grid, law, (0.5, 1.5), form) for grid in grids]
        assert abs(slope([1 / n for n in cells], errors) - order) < 0.2
        assert errors[-1] < most


@pytest.mark.parametrize(
    ("reading", "alpha"), [("ito", 0.0), ("stratonovich", 0.5), ("klimontovich", 1.0)]
)
def test_moments_of_geometric_noise_in_three_readings(reading, alpha):
    mu, sigma, t = 0.1, 0.4, 1.0
    sde = sg.ItoProcess(
        drift=lambda x: mu * x, diffusion=lambda x: sigma * x, interpretation=reading
    )
    grid = sg.Grid.sinh(0.0, 60.0, 800, width=0.5)
    x = grid.nodes.numpy()
    law = functools.partial(exact.geometric_density, x0=1.0, mu=mu, sigma=sigma, alpha=alpha)
    p0 = sg.Density(grid.nodes, torch.from_numpy(law(x, 0.5)))
    density = sg.FokkerPlanck(sde, grid).solve(p0, [0.5, 0.5 + t]).final
    drift = mu + alpha * sigma**2  # E x = x0 e^{(μ + ασ²)t}, E x² = x0² e^{(2μ + (1 + 2α)σ²)t}
    second = 2 * drift + sigma**2
    assert abs(float(density.mean) / math.exp(drift * 1.5) - 1) < 1e-5
    assert abs(float(density.expect(lambda y: y**2)) / math.exp(second * 1.5) - 1) < 1e-5


@pytest.mark.parametrize(
    ("d", "x0", "std"), [(1.0, 10.0, 0.5), (0.01, 2.0, 0.1), (0.01, 4.0, 0.1)]
)
@pytest.mark.parametrize("t", [0.5, 3.0])
def test_a_start_far_out_against_a_strong_force(d, x0, std, t):
    # one exponential would amplify its 10⁻¹⁴ by e^{ΔΦ/2}, up to a density of 3·10⁴
    sde = sg.OrnsteinUhlenbeck(sigma=math.sqrt(2 * d))
    reach = x0 + 10 * std
    grid = sg.Grid(-reach, reach, 1600)
    solver = sg.FokkerPlanck(sde, grid, form="compact")
    p0 = grid.gaussian(x0, std)
    got = solver.solve(p0, [0.0, t]).final.p
    generator = solver._generator
    operator = generator.operator(generator.coefficients(0.0))
    p = p0.p
    for _ in range(400):
        p = expm_action(operator.mass, operator.rates * (t / 400), p)
    peak = float(p.max())
    assert float((got - p).abs().max()) < 1e-9 * peak
    assert float(got.min()) >= 0
    mean, var = ou_moments(1.0, 0.0, math.sqrt(2 * d), x0, std**2, t)
    law = torch.from_numpy(exact.normal_density(grid.nodes.numpy(), mean, var))
    h = float(grid.nodes.diff()[0])
    # the compact form errs by the fourth power of the cell's v h/D
    assert float((got - law).abs().max()) < 1e-3 * (x0 * h / d) ** 4 * peak


def test_an_observation_of_waiting_is_the_same_as_one_leap():
    # e^{sL} e^{tL} = e^{(s+t)L}: outputs on the way change nothing
    grid = sg.Grid(-6.0, 6.0, 300)
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=0.7)
    solver = sg.FokkerPlanck(sde, grid)
    p0 = grid.gaussian(-1.0, 0.2)
    leap = solver.solve(p0, [0.0, 7.0]).final.p
    walk = solver.solve(p0, torch.linspace(0, 7, 41, dtype=torch.float64)).final.p
    assert float((leap - walk).abs().max()) < 1e-10


@pytest.mark.parametrize("boundary", ["no-flux", "periodic"])
def test_a_step_that_is_asked_for_again_is_the_same(boundary):
    # the second time it is factorised: the same arithmetic, in the same order
    sde = sg.ItoProcess(drift=lambda x: 0.3 - torch.sin(x), diffusion=0.9)
    solver = sg.FokkerPlanck(sde, sg.Grid(-math.pi, math.pi, 200), boundary, physical_walls=True)
    p0 = solver.grid.gaussian(0.5, 0.3)
    first, *others = (solver.solve(p0, [0.0, 0.4]).final.p for _ in range(3))
    between = solver.solve(p0, [0.0, 0.3]).final.p
    for again in (*others, solver.solve(p0, [0.0, 0.4]).final.p):
        torch.testing.assert_close(again, first, rtol=0, atol=1e-14 * float(first.max()))
    assert float((between - first).abs().max()) > 1e-3


def test_steps_that_differ_by_the_rounding_of_times_are_one():
    times = torch.linspace(0.1, 10.3, 101, dtype=torch.float64)
    assert len(set(np.diff(times.numpy()))) > 1
    steps = _steps(times)
    assert set(steps) == {(float(times[-1]) - float(times[0])) / 100}
    other = _steps(torch.tensor([3.0, 2.0, 0.999999], dtype=torch.float64))
    assert other == [1.0, 2.0 - 0.999999]


def test_noise_that_grows_more_than_fourteenfold_in_a_step():
    sde = sg.ItoProcess(
        drift=lambda x: -x, diffusion=lambda x, t: torch.exp(2 * t) + 0 * x, noise="additive"
    )
    grid = sg.Grid(-60.0, 60.0, 600)
    p0 = grid.gaussian(0.0, 1.0)
    with pytest.raises(sg.SolverError, match="more than a factor of 14 in the step from t = 0"):
        sg.FokkerPlanck(sde, grid).solve(
            p0, [0.0, 1.5], integrator=sg.fokker_planck.transient.Exponential(1)
        )
    final = sg.FokkerPlanck(sde, grid).solve(p0, [0.0, 1.0]).final
    # v' = −2v + e^{4t}
    var = math.exp(-2.0) * (1 + (math.exp(6.0) - 1) / 6)
    assert abs(float(final.variance) / var - 1) < 1e-5


# ---- starts at a point ------------------------------------------------------------------------


@pytest.mark.parametrize("x0", [1.0, 1.234])
@pytest.mark.parametrize("width", [None, 2.0])
def test_a_point_start_is_fourth_order_in_the_compact_form(x0, width):
    errors = []
    cells = (100, 200, 400)
    for n in cells:
        grid = (
            sg.Grid(-10.0, 10.0, n) if width is None else sg.Grid.sinh(-10.0, 10.0, n, width=width)
        )
        path = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid).solve(x0, [0.0, 0.5])
        mean, var = ou_moments(1.0, 0.0, math.sqrt(2), x0, 0.0, 0.5)
        law = exact.normal_density(grid.nodes.numpy(), mean, var)
        errors.append(float(np.abs(path.final.p.numpy() - law).max()))
        assert float(path.p.min()) >= 0
        assert abs(float(path.final.mass) - 1) < 1e-11
    assert abs(slope([1 / n for n in cells], errors) - 4) < 0.2
    assert errors[-1] < 2e-7


def test_a_point_start_that_the_grid_cannot_see_falls_back_to_the_positive_form():
    grid = sg.Grid(-10.0, 10.0, 400)
    times = [0.0, 1e-6, 1e-3, 0.5]
    unresolved = "does not resolve the density at t = 1e-06"
    with pytest.warns(UserWarning, match=unresolved):
        auto = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid).solve(1.0, times)
    with pytest.warns(UserWarning, match=unresolved):
        lumped = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid, form="lumped").solve(1.0, times)
    assert torch.equal(auto.p, lumped.p)
    assert float(auto.p.min()) >= -1e-12 * float(auto.p.max())
    mean, var = ou_moments(1.0, 0.0, math.sqrt(2), 1.0, 0.0, 0.5)
    law = exact.normal_density(grid.nodes.numpy(), mean, var)
    assert float(np.abs(auto.final.p.numpy() - law).max()) < 2e-4


@pytest.mark.parametrize("form", ["compact", "lumped"])
@pytest.mark.parametrize("boundary", ["no-flux", "periodic"])
def test_mass_is_kept_where_nothing_absorbs(form, boundary):
    # leaning on walls, on sinh nodes, over a hundred outputs
    sde = sg.ItoProcess(
        drift=lambda x: 1 - 0.5 * torch.sin(x), diffusion=lambda x: 1 + 0.2 * torch.cos(x)
    )
    grid = sg.Grid.sinh(-math.pi, math.pi, 300, width=1.0)
    solver = sg.FokkerPlanck(sde, grid, boundary, form=form, physical_walls=True)
    path = solver.solve(grid.gaussian(0.3, 0.3), torch.linspace(0, 100, 101, dtype=torch.float64))
    mass = torch.stack([path.at(k).mass for k in range(len(path))])
    assert float((mass - 1).abs().max()) < 1e-11
    rest = solver.stationary().p
    assert float((path.final.p - rest).abs().max()) < 1e-8
