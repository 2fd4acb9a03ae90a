import functools
import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.accuracy import ErrorEstimate
from sdegen.fokker_planck.discretization.matrix_exponential import expm_action
from sdegen.fokker_planck.questions.transient import BackwardEuler, Exponential
from sdegen.fokker_planck.questions.walk import steps as steps_of
from sdegen.fokker_planck.validation import check_accurate
from tests import exact
from tests.exact import ou_moments, slope

D = 0.6
NOISE = math.sqrt(2 * D)


def constant(v, noise=NOISE):
    return sg.ItoProcess(drift=lambda x: torch.full_like(x, v), diffusion=noise)


def error(sde, grid, law, times, form, **options):
    x = grid.nodes.numpy()
    p0 = sg.Density(grid.nodes, torch.from_numpy(law(x, times[0])))
    path = sg.FokkerPlanck(sde, grid, form=form, **options).solve(p0, times, rtol=1.0)
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
    "falling": (-0.7, (0.0, 14.0), FALLING, (0.3, 1.3), {"truncation_is_physical": True}),
    "closed box": (0.0, (0.0, 1.5), CLOSED, (0.03, 0.2), {"truncation_is_physical": True}),
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
    solver = sg.FokkerPlanck(
        sde, sg.Grid(-math.pi, math.pi, 200), boundary, truncation_is_physical=True
    )
    p0 = solver.grid.gaussian(0.5, 0.3)
    first, *others = (solver.solve(p0, [0.0, 0.4]).final.p for _ in range(3))
    between = solver.solve(p0, [0.0, 0.3]).final.p
    for again in (*others, solver.solve(p0, [0.0, 0.4]).final.p):
        torch.testing.assert_close(again, first, rtol=0, atol=1e-14 * float(first.max()))
    assert float((between - first).abs().max()) > 1e-3


def test_steps_that_differ_by_the_rounding_of_times_are_one():
    times = torch.linspace(0.1, 10.3, 101, dtype=torch.float64)
    assert len(set(np.diff(times.numpy()))) > 1
    steps = steps_of(times.tolist())
    assert set(steps) == {(float(times[-1]) - float(times[0])) / 100}
    other = steps_of([3.0, 2.0, 0.999999])
    assert other == [1.0, 2.0 - 0.999999]


def test_noise_that_grows_more_than_fourteenfold_in_a_step():
    sde = sg.ItoProcess(
        drift=lambda x: -x, diffusion=lambda x, t: torch.exp(2 * t) + 0 * x, noise="additive"
    )
    grid = sg.Grid(-60.0, 60.0, 600)
    p0 = grid.gaussian(0.0, 1.0)
    with pytest.raises(sg.SolverError, match="more than a factor of 14 in the step from t = 0"):
        sg.FokkerPlanck(sde, grid).solve(p0, [0.0, 1.5], integrator=sg.Exponential(1))
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
    torch.testing.assert_close(
        auto.p[1:], lumped.p[1:], rtol=0, atol=1e-3 * float(auto.p[1].max())
    )
    assert (auto.form, lumped.form) == ("lumped", "lumped")
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
    solver = sg.FokkerPlanck(sde, grid, boundary, form=form, truncation_is_physical=True)
    # rtol: on the cells of the density at rest, not on halves of them
    times = torch.linspace(0, 100, 101, dtype=torch.float64)
    path = solver.solve(grid.gaussian(0.3, 0.3), times, rtol=1e-2)
    mass = torch.stack([path.at(k).mass for k in range(len(path))])
    assert float((mass - 1).abs().max()) < 1e-11
    rest = solver.stationary().p
    assert float((path.final.p - rest).abs().max()) < 1e-8


# ---- strong drifts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v", "high"), [(4.0, 12.0), (5.0, 13.0), (5.0, 17.0), (20.0, 32.0), (40.0, 56.0)]
)
@pytest.mark.parametrize("form", ["auto", "compact"])
def test_a_drifting_gaussian_spreads_by_its_noise_alone(v, high, form):
    # dX = v dt + dW from N(0, ¼): variance 5/4 at t = 1, whatever v h/D is, here up to 8
    grid = sg.Grid(-4.0, high, round((high + 4) / 0.1))
    path = sg.FokkerPlanck(constant(v, 1.0), grid, form=form).solve(
        grid.gaussian(0.0, 0.5), [0.0, 1.0]
    )
    assert float(path.final.variance) == pytest.approx(1.25, rel=1e-4)
    assert float(path.final.mean) == pytest.approx(v, abs=1e-4)


@pytest.mark.parametrize("v", [10.0, 40.0])
def test_a_strong_drift_around_a_ring(v):
    d, std, length = 0.5, 0.3, 2 * math.pi
    grid = sg.Grid(0.0, length, 160)

    def wrapped(mean, var):
        x = grid.nodes.numpy()
        images = (exact.normal_density(x, mean + k * length, var) for k in range(-20, 20))
        return torch.from_numpy(sum(images))

    path = sg.FokkerPlanck(constant(v, math.sqrt(2 * d)), grid, "periodic").solve(
        sg.Density(grid.nodes, wrapped(3.0, std**2)), [0.0, 0.05]
    )
    shift = 3.0 + 0.05 * v
    right = wrapped(shift - length * (shift // length), std**2 + 2 * d * 0.05)
    assert float((path.final.p - right).abs().max()) < 1e-3 * float(right.max())


# ---- dynamics that change in time -------------------------------------------------------------


def kicked(push):
    """A trap with a push that depends on time: mean m′ = −m + push, variance as without."""
    return sg.ItoProcess(lambda x, t: -x + push(t), 1.0)


def short_push(t):
    return 5.0 * ((t >= 20.4) & (t < 20.6)).to(torch.float64)


AFTER_PUSH = 5 * (math.exp(-0.4) - math.exp(-0.6))


@pytest.mark.parametrize("count", [2, 22, 211])
def test_a_push_in_a_short_window_is_met_however_few_times_are_asked_for(count):
    grid = sg.Grid(-8.0, 8.0, 200)
    times = torch.linspace(0, 21.0, count, dtype=torch.float64)
    path = sg.FokkerPlanck(kicked(short_push), grid).solve(grid.gaussian(0.0, 0.7), times)
    assert float(path.final.mean) == pytest.approx(AFTER_PUSH, abs=1e-6)
    assert float(path.final.variance) == pytest.approx(0.5, abs=1e-5)


def test_steps_that_were_asked_for_are_taken():
    grid = sg.Grid(-8.0, 8.0, 200)
    solver, p0 = sg.FokkerPlanck(kicked(short_push), grid), grid.gaussian(0.0, 0.7)
    times = torch.linspace(0, 21.0, 211, dtype=torch.float64)
    # the push begins and ends at times: five steps each are of fourth order, and of first
    magnus = solver.solve(p0, times, integrator=Exponential(5)).final.mean
    assert float(magnus) == pytest.approx(AFTER_PUSH, abs=1e-6)
    implicit = solver.solve(p0, times, integrator=BackwardEuler(5), rtol=1.0).final.mean
    assert float(implicit) == pytest.approx(AFTER_PUSH, rel=1e-2)
    # where none of the steps ends at the push it is met to a step's length
    many = solver.solve(p0, [0.0, 21.0], integrator=Exponential(1000), rtol=1.0).final.mean
    assert float(many) == pytest.approx(AFTER_PUSH, rel=5e-3)


def test_a_push_too_short_to_be_seen_is_met_between_breakpoints():
    on, off = 3.14159, 3.1416

    def hidden(t):
        return 1e5 * ((t >= on) & (t < off)).to(torch.float64)

    grid = sg.Grid(-8.0, 8.0, 200)
    solver = sg.FokkerPlanck(kicked(hidden), grid)
    path = solver.solve(grid.gaussian(0.0, 0.7), [0.0, 21.0], breakpoints=[on, off])
    right = 1e5 * (math.exp(-(21 - off)) - math.exp(-(21 - on)))
    assert float(path.final.mean) == pytest.approx(right, abs=1e-7)

    def bell(t):  # as short, and smooth: a breakpoint near its middle is enough
        return 1e5 * torch.exp(-(((t - on) / 1e-5) ** 2))

    solver = sg.FokkerPlanck(kicked(bell), grid)
    path = solver.solve(grid.gaussian(0.0, 0.7), [0.0, 4.0], breakpoints=[on + 1e-6])
    right = math.sqrt(math.pi) * math.exp(-(4.0 - on))
    assert float(path.final.mean) == pytest.approx(right, rel=1e-3)


def test_a_push_as_short_as_looks_are_apart_is_told():
    met = 1000 * 21.0 / 2048

    def narrow(t):
        return 100.0 * ((t - met).abs() < 1e-3).to(torch.float64)

    grid = sg.Grid(-8.0, 8.0, 200)
    solver, p0 = sg.FokkerPlanck(kicked(narrow), grid), grid.gaussian(0.0, 0.7)
    with pytest.warns(sg.AccuracyWarning, match=r"change near t = 10\.25.*breakpoints"):
        path = solver.solve(p0, [0.0, 12.0, 21.0])
    right = 0.2 * math.exp(-(12.0 - met))
    assert float(path.at(1).mean) == pytest.approx(right, rel=1e-4)
    # as told: no warning, and the same
    path = solver.solve(p0, [0.0, 12.0, 21.0], breakpoints=[met - 1e-3, met + 1e-3])
    assert float(path.at(1).mean) == pytest.approx(right, rel=1e-4)


def test_breakpoints_are_finite_and_tolerances_are_shares():
    grid = sg.Grid(-8.0, 8.0, 100)
    solver = sg.FokkerPlanck(kicked(torch.sin), grid)
    with pytest.raises(ValueError, match=r"breakpoints must be finite times, but are \[.*nan"):
        solver.solve(grid.gaussian(0.0, 0.7), [0.0, 1.0], breakpoints=[float("nan")])
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1, but is 0"):
        Exponential(tolerance=0.0)


def test_a_tolerance_is_kept():
    # a driven double well, against itself at a tolerance of 1e-11
    sde = sg.ItoProcess(lambda x, t: 4 * (x - x**3) + 2 * torch.sin(5 * t), 1.0)
    grid = sg.Grid(-3.0, 3.0, 200)
    solver, p0 = sg.FokkerPlanck(sde, grid), grid.gaussian(-1.0, 0.3)

    def after(tolerance):
        return solver.solve(p0, [0.0, 2.0], integrator=Exponential(tolerance=tolerance)).final.p

    fine = after(1e-11)
    for tolerance in (1e-4, 1e-6, 1e-8):
        assert float((after(tolerance) - fine).abs().max()) < 3 * tolerance * float(fine.max())


@pytest.mark.parametrize(("cells", "most"), [(300, 1e-6), (200, 1e-4), (100, 2e-3)])
def test_a_periodically_driven_trap_on_coarse_cells(cells, most):
    w, a = 2 * math.pi, 20.0
    grid = sg.Grid(-8.0, 8.0, cells)
    p = sg.FokkerPlanck(kicked(lambda t: a * torch.cos(w * t)), grid).solve(
        grid.gaussian(0.0, 0.5), [0.0, 1.0]
    )
    variance = 0.25 * math.exp(-2) + 0.5 * (1 - math.exp(-2))
    assert float(p.final.mean) == pytest.approx(a * (1 - math.exp(-1)) / (1 + w * w), abs=most)
    assert float(p.final.variance) == pytest.approx(variance, rel=most)


def test_what_takes_t_and_does_not_change_is_what_takes_none():
    grid = sg.Grid(-5.0, 5.0, 200)
    times = torch.linspace(0, 3, 11, dtype=torch.float64)
    paths = [
        sg.FokkerPlanck(sde, grid).solve(grid.gaussian(0.5, 0.5), times).p
        for sde in (
            sg.ItoProcess(lambda x: -x, 1.0),
            sg.ItoProcess(lambda x, t: -x, 1.0),
            sg.ItoProcess(lambda x, t: -x + torch.sin(t), 1.0, autonomous=True),
        )
    ]
    assert torch.equal(paths[0], paths[1])
    assert torch.equal(paths[0], paths[2])
    # and what is said to change, and does not, is read in time
    said = sg.ItoProcess(lambda x: -x, 1.0, autonomous=False)
    p = sg.FokkerPlanck(said, grid).solve(grid.gaussian(0.5, 0.5), times).p
    assert torch.equal(paths[0], p)


def test_survival_under_a_drift_that_is_switched():
    # free until t = 1, then pushed out: as a start from what is left at t = 1
    push = torch.tensor(3.0, dtype=torch.float64)
    sde = sg.ItoProcess(lambda x, t: torch.where(t < 1.0, 0.0, push) + 0 * x, 1.0)
    grid = sg.Grid(-3.0, 3.0, 300)
    law = sg.FokkerPlanck(sde, grid, "absorbing").survival(0.3, [0.0, 1.0, 1.7])
    early = sg.FokkerPlanck(sg.ItoProcess(lambda x: 0 * x, 1.0), grid, "absorbing").solve(
        0.3, [0.0, 1.0]
    )
    late = sg.FokkerPlanck(sg.ItoProcess(lambda x: 0 * x + 3.0, 1.0), grid, "absorbing").solve(
        early.final, [1.0, 1.7]
    )
    assert float(law.probability[1]) == pytest.approx(float(early.final.mass), rel=1e-6)
    assert float(law.probability[2]) == pytest.approx(float(late.final.mass), rel=1e-6)


def test_a_family_meets_a_push_as_its_members_do():
    grid = sg.Grid(-8.0, 8.0, 200)
    members = [kicked(lambda t, a=a: a * short_push(t)) for a in (0.0, 0.5, 1.0)]
    p = sg.FokkerPlanckBatch(members, grid).solve(grid.gaussian(0.0, 0.7), [0.0, 21.0])
    for k, a in enumerate((0.0, 0.5, 1.0)):
        mean = float(sg.Density(grid.nodes, p[k, -1]).mean)
        assert mean == pytest.approx(a * AFTER_PUSH, abs=1e-6)


# ---- errors that are told ---------------------------------------------------------------------


def test_errors_are_told_at_each_time_and_hold():
    # a narrow start on coarse cells: the error is largest early
    grid = sg.Grid(-10.0, 10.0, 120)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    times = torch.linspace(0, 3, 7, dtype=torch.float64)
    path = solver.solve(grid.gaussian(2.0, 0.4), times, rtol=1.0)
    for k, t in enumerate(times.tolist()[1:], start=1):
        mean, var = ou_moments(1.0, 0.0, math.sqrt(2), 2.0, 0.16, t)
        law = exact.normal_density(grid.nodes.numpy(), mean, var)
        true = float(np.abs(path.p[k].numpy() - law).max()) / float(law.max())
        told = float(path.error["p"][k])
        assert true / 3 < told < 30 * true + 1e-11
        assert abs(float(path.variance[k]) / var - 1) < 3 * float(path.error["variance"][k])
        assert float(path.at(k).error["p"]) == told
    assert set(path.error) == {"p", "mean", "variance", "mass"}
    assert path.form == "compact"
    assert "120 cells, compact" in str(path.trust())


def test_a_tolerance_refines_the_cells_inside():
    grid = sg.Grid(-10.0, 10.0, 100)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    mean, var = ou_moments(1.0, 0.0, math.sqrt(2), 2.0, 0.04, 0.3)
    law = torch.from_numpy(exact.normal_density(grid.nodes.numpy(), mean, var))
    p0 = grid.gaussian(2.0, 0.2)
    for rtol in (1e-3, 1e-5):
        path = solver.solve(p0, [0.0, 0.3], rtol=rtol)
        assert float(path.error) <= rtol
        # what a Gaussian of one cell's width is between its nodes is known to 1e-4
        assert float((path.final.p - law).abs().max()) < max(rtol, 5e-3) * float(law.max())
        assert len(path.fine.x) > 101
        assert path.final.fine is not None


def test_steps_by_number_are_taken_and_told():
    grid = sg.Grid(-10.0, 10.0, 200)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    with pytest.warns(sg.AccuracyWarning, match=r"estimated relative error.*more substeps"):
        path = solver.solve(grid.gaussian(2.0, 0.5), [0.0, 0.5], integrator=BackwardEuler(5))
    mean, var = ou_moments(1.0, 0.0, math.sqrt(2), 2.0, 0.25, 0.5)
    law = exact.normal_density(grid.nodes.numpy(), mean, var)
    true = float(np.abs(path.final.p.numpy() - law).max()) / float(law.max())
    assert float(path.error["p"][1]) == pytest.approx(true, rel=0.05)
    assert path.form == "lumped"


def test_an_error_above_ten_percent_is_no_answer_unless_steps_were_asked_for():
    error = ErrorEstimate({"p": torch.tensor([0.0, 0.3, 0.2])}, "two grids")
    with pytest.raises(sg.SolverError, match=r"not resolved: its estimated error is 0\.3"):
        check_accurate(error, 1, 1e-3, by_number=False)
    with pytest.warns(sg.AccuracyWarning, match=r"error of p is 0\.2 .*more substeps"):
        check_accurate(error, 2, 1e-3, by_number=True)


def test_parameters_between_runs_are_read_anew_at_all_times():
    # a push at times that nothing but a run looks at changes between two runs
    push = [1.0]
    sde = kicked(lambda t: push[0] * short_push(t))
    grid = sg.Grid(-8.0, 8.0, 200)
    solver = sg.FokkerPlanck(sde, grid)
    for push[0] in (1.0, 0.5, 0.0):
        final = solver.solve(grid.gaussian(0.0, 0.7), [0.0, 21.0]).final
        assert float(final.mean) == pytest.approx(push[0] * AFTER_PUSH, abs=1e-6)
