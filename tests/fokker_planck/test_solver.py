import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

import sdegen as sg
from sdegen.fokker_planck.questions.course import Course
from sdegen.fokker_planck.questions.transient import BackwardEuler, Exponential
from tests.exact import ou_moments, slope


def gaussian(x, mean, var):
    return torch.exp(-0.5 * (x - mean) ** 2 / var) / math.sqrt(2 * math.pi * var)


def ou_error(cells, form, *, integrator=None, t=0.5):
    grid = sg.Grid(-10.0, 10.0, cells)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid, form=form)
    path = solver.solve(grid.gaussian(2.0, 0.5), [0.0, t], integrator=integrator, rtol=1.0)
    mean, var = ou_moments(1.0, 0.0, math.sqrt(2), 2.0, 0.25, t)
    return float((path.final.p - gaussian(grid.nodes, mean, var)).abs().max())


WELL = sg.ItoProcess(drift=lambda x, t: x - x**3, diffusion=0.7)


def boltzmann(x, energy, d):
    p = torch.exp(-(energy - energy.min()) / d)
    return p / torch.trapezoid(p, x)


# ---- transient ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "order", "at_400"), [("lumped", 2, 2e-4), ("compact", 4, 1.5e-7)]
)
def test_ou_against_its_exact_law(form, order, at_400):
    errors = [ou_error(n, form) for n in (100, 200, 400)]
    assert abs(slope([1 / 100, 1 / 200, 1 / 400], errors) - order) < 0.2
    assert errors[-1] < at_400


def test_no_step_is_needed_for_any_time():
    # the relaxed density, after a time in which any explicit step would need 10⁹ of them
    grid = sg.Grid(-10.0, 10.0, 400)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    late = solver.solve(grid.gaussian(2.0, 0.5), [0.0, 1e6]).final.p
    assert float((late - solver.stationary().p).abs().max()) < 1e-12


@pytest.mark.slow
def test_implicit_step_keeps_mass_and_sign_over_ten_thousand_steps():
    grid = sg.Grid(-3.0, 3.0, 200)
    times = torch.linspace(0, 100, 11)
    path = sg.FokkerPlanck(WELL, grid).solve(
        grid.gaussian(-1.0, 0.2), times, integrator=BackwardEuler(substeps=1000)
    )
    mass = torch.stack([path.at(k).mass for k in range(len(path))])
    assert float((mass - 1).abs().max()) < 1e-12
    assert float(path.p.min()) >= 0
    relaxed = sg.FokkerPlanck(WELL, grid).stationary().p
    assert float((path.final.p - relaxed).abs().max()) < 1e-3


@pytest.mark.slow
def test_implicit_steps_conserve_the_unrestored_mass():
    # the operator itself, before anything is restored: columns of K sum to zero
    grid = sg.Grid(-3.0, 3.0, 200)
    solver = sg.FokkerPlanck(WELL, grid, form="lumped")
    generator = solver._generator
    operator = generator.operator(generator.coefficients(0.0))
    rates = operator.rates
    columns = rates[1] + rates[0].roll(-1) + rates[2].roll(1)
    assert float(columns.abs().max()) < 1e-12 * float(rates.abs().max())
    p = grid.gaussian(-1.0, 0.2).p
    times = torch.linspace(0, 100, 10_001, dtype=torch.float64)
    unknowns = BackwardEuler().path(generator, p, Course(tuple(times.tolist()), ()))[0]
    total = torch.stack([(operator.mass[1] * q).sum() for q in unknowns])
    assert float((total - 1).abs().max()) < 1e-12
    assert min(float(q.min()) for q in unknowns) >= 0


def test_implicit_steps_are_second_order_in_the_cell_when_dt_follows_h_squared():
    cells = (40, 80, 160)
    errors = [ou_error(n, "lumped", integrator=BackwardEuler(n**2 // 64)) for n in cells]
    assert abs(slope([1 / n for n in cells], errors) - 2) < 0.2
    assert errors[-1] < 2e-3


def test_implicit_steps_are_first_order_in_time():
    steps = (10, 20, 40)
    grid = sg.Grid(-10.0, 10.0, 200)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid, form="lumped")
    p0 = grid.gaussian(2.0, 0.5)
    exact = solver.solve(p0, [0.0, 0.5], rtol=1.0).final.p
    errors = [
        float(
            (solver.solve(p0, [0.0, 0.5], integrator=BackwardEuler(n), rtol=1.0).final.p - exact)
            .abs()
            .max()
        )
        for n in steps
    ]
    assert abs(slope([1 / n for n in steps], errors) - 1) < 0.1


def test_a_start_at_a_point_rings_nowhere():
    grid = sg.Grid(-10.0, 10.0, 400)
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    # as a density it is a cubic as wide as two cells, which finer cells resolve
    path = solver.solve(grid.point(1.0), torch.tensor([0.0, 1e-6, 1e-3, 0.5]))
    assert path.fine is not None
    assert path.form == "lumped"
    assert float(path.p.min()) >= -1e-12 * float(path.p.max())
    mean, var = ou_moments(1.0, 0.0, math.sqrt(2), 1.0, 0.0, 0.5)
    # second order: h²/12 of the peak's curvature and the like
    assert float((path.final.p - gaussian(grid.nodes, mean, var)).abs().max()) < 2e-4


@pytest.mark.parametrize("form", ["compact", "lumped"])
def test_magnus_steps_for_a_driven_trap(form):
    # dx = (−x + sin 3t) dt + √2 dW: Gaussian, with m' = −m + sin 3t
    sde = sg.ItoProcess(drift=lambda x, t: -x + torch.sin(3 * t), diffusion=math.sqrt(2))
    grid = sg.Grid(-10.0, 10.0, 800)
    p0, t = grid.gaussian(1.0, 0.5), 2.0
    solver = sg.FokkerPlanck(sde, grid, form=form)
    mean = 1.3 * math.exp(-t) + (math.sin(3 * t) - 3 * math.cos(3 * t)) / 10
    var = 1 - 0.75 * math.exp(-2 * t)
    exact = gaussian(grid.nodes, mean, var)
    at_twenty = solver.solve(p0, [0.0, t], integrator=Exponential(20)).final.p
    if form == "lumped":
        assert float((at_twenty - exact).abs().max()) < 5e-5
        return
    fine = solver.solve(p0, [0.0, t], integrator=Exponential(80)).final.p
    errors = [
        float((solver.solve(p0, [0.0, t], integrator=Exponential(n)).final.p - fine).abs().max())
        for n in (5, 10, 20)
    ]
    assert abs(slope([1 / 5, 1 / 10, 1 / 20], errors) - 4) < 0.2
    assert float((at_twenty - exact).abs().max()) < 1e-7


def test_steps_in_time_choose_themselves():
    sde = sg.ItoProcess(drift=lambda x, t: -x + torch.sin(3 * t), diffusion=math.sqrt(2))
    grid = sg.Grid(-10.0, 10.0, 800)
    path = sg.FokkerPlanck(sde, grid).solve(grid.gaussian(1.0, 0.5), [0.0, 1.0, 2.0])
    mean = 1.3 * math.exp(-2) + (math.sin(6) - 3 * math.cos(6)) / 10
    exact = gaussian(grid.nodes, mean, 1 - 0.75 * math.exp(-4))
    assert float((path.final.p - exact).abs().max()) < 2e-8


def test_noising_sde_of_changing_noise_and_its_reversal():
    # VP turns a mixture into a known mixture; the reverse SDE with the exact score turns it back
    sde = sg.VP(sg.LinearBeta(0.1, 10.0))
    mixture = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.5], stds=[0.4, 0.6])
    grid = sg.Grid(-8.0, 8.0, 500)
    x = grid.nodes[:, None]
    noised = mixture.noised(sde)

    def density(t):
        return sg.Density(
            grid.nodes, noised.log_prob(x, torch.tensor(t, dtype=torch.float64)).exp()
        )

    t0, t1 = 0.01, 0.6
    forward = sg.FokkerPlanck(sde, grid).solve(density(t0), [t0, t1])
    assert float((forward.final.p - density(t1).p).abs().max()) < 1e-6
    reverse = sg.FokkerPlanck(sg.ReverseSDE(sde, noised.score), grid)
    back = reverse.solve(density(t1), [t1, t0])
    assert float((back.final.p - density(t0).p).abs().max()) < 1e-6


def test_current_around_a_ring_in_time():
    # a constant drift on a circle carries a wrapped normal along
    v, d, length = 1.5, 0.2, 2 * math.pi
    sde = sg.ItoProcess(drift=lambda x: torch.full_like(x, v), diffusion=math.sqrt(2 * d))
    grid = sg.Grid(0.0, length, 256)

    def wrapped(mean, var):
        return sum(gaussian(grid.nodes, mean + k * length, var) for k in range(-6, 7))

    solver = sg.FokkerPlanck(sde, grid, "periodic")
    path = solver.solve(sg.Density(grid.nodes, wrapped(1.0, 0.05)), [0.0, 0.7, 3.0])
    for k, t in ((1, 0.7), (2, 3.0)):
        exact = wrapped(1.0 + v * t, 0.05 + 2 * d * t)
        assert float((path.p[k] - exact).abs().max()) < 1e-6
    assert float((path.p[:, 0] - path.p[:, -1]).abs().max()) < 1e-14


def test_absorption_in_a_box():
    # sine mode: decays at D π²/L², and takes its mass with it
    d, length, t = 0.3, 2.0, 0.8
    sde = sg.BrownianMotion(math.sqrt(2 * d))
    grid = sg.Grid(0.0, length, 200)
    mode = torch.sin(math.pi * grid.nodes / length) * math.pi / (2 * length)
    path = sg.FokkerPlanck(sde, grid, "absorbing").solve(sg.Density(grid.nodes, mode), [0.0, t])
    decay = math.exp(-d * (math.pi / length) ** 2 * t)
    assert float((path.final.p - decay * mode).abs().max()) < 1e-8
    assert abs(float(path.final.mass) - decay) < 1e-8


# ---- stationary -----------------------------------------------------------------------------


def test_double_well_against_boltzmann():
    grid = sg.Grid(-3.0, 3.0, 200)
    x = grid.nodes
    exact = boltzmann(x, x**4 / 4 - x**2 / 2, 0.245)
    p = sg.FokkerPlanck(WELL, grid).stationary().p
    assert float(torch.trapezoid((p - exact).abs(), x)) < 1e-10


def test_von_mises_on_a_circle_carries_no_current():
    sde = sg.ItoProcess(drift=lambda x: -1.3 * torch.sin(x - 0.4), diffusion=math.sqrt(0.8))
    grid = sg.Grid(-math.pi, math.pi, 300)
    density = sg.FokkerPlanck(sde, grid, "periodic").stationary()
    law = stats.vonmises(1.3 / 0.4, loc=0.4)
    exact = torch.from_numpy(law.pdf(grid.nodes.numpy()))
    assert float(torch.trapezoid((density.p - exact).abs(), grid.nodes)) < 1e-10


def test_tilted_ring_against_two_integrals():
    # f = 2 cos x + F on a ring: the exact density is I₋, a quadrature
    force, d, length = 0.7, 0.5, 2 * math.pi
    sde = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x) + force, diffusion=math.sqrt(2 * d))
    grid = sg.Grid(0.0, length, 256)
    p = sg.FokkerPlanck(sde, grid, "periodic").stationary().p

    def v(y):
        return -2 * math.sin(y) - force * y

    def weight(y):
        # Σ over one turn ahead of y: p ∝ ∫_0^L e^{[V(y+z) − V(y)]/D} dz
        return integrate.quad(
            lambda z: math.exp((v(y + z) - v(y)) / d), 0, length, epsabs=0, epsrel=1e-12
        )[0]

    some = [0, 31, 100, 177, 240]
    exact = np.array([weight(float(grid.nodes[i])) for i in some])
    got = p[some].numpy()
    np.testing.assert_allclose(got / got[0], exact / exact[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("reading", "alpha"), [("ito", 0.0), ("stratonovich", 0.5), ("klimontovich", 1.0)]
)
def test_three_readings_of_multiplicative_noise(reading, alpha):
    # stationary density ∝ D^{α−1} e^{∫f/D}, here D = ½(1 + ½ sin x)² and f = −x³
    sde = sg.ItoProcess(
        drift=lambda x: -(x**3), diffusion=lambda x: 1 + 0.5 * torch.sin(x), interpretation=reading
    )
    grid = sg.Grid(-4.0, 4.0, 400)
    p = sg.FokkerPlanck(sde, grid).stationary().p.numpy()
    x = grid.nodes.numpy()
    d = 0.5 * (1 + 0.5 * np.sin(x)) ** 2
    work = [
        integrate.quad(
            lambda y: -(y**3) / (0.5 * (1 + 0.5 * math.sin(y)) ** 2), 0, end, epsabs=1e-13
        )[0]
        for end in x[100:301:40]
    ]
    exact = d[100:301:40] ** (alpha - 1) * np.exp(work)
    got = p[100:301:40]
    np.testing.assert_allclose(got / got[0], exact / exact[0], rtol=1e-10)


def test_a_barrier_of_forty_kt_costs_no_digits():
    d = 0.25 / 40
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(2 * d))
    grid = sg.Grid(-1.8, 1.8, 800)
    log_p = sg.FokkerPlanck(sde, grid).stationary().p.log()
    exact = -(grid.nodes**4 / 4 - grid.nodes**2 / 2) / d
    assert float(((log_p - log_p[400]) - (exact - exact[400])).abs().max()) < 1e-11


def test_quartic_against_its_normalisation():
    a, d = 0.8, 0.3
    sde = sg.ItoProcess(drift=lambda x: -4 * a * x**3, diffusion=math.sqrt(2 * d))
    grid = sg.Grid(-2.6, 2.6, 800)
    z = 2 * special.gamma(1.25) * (a / d) ** -0.25
    exact = torch.exp(-a * grid.nodes**4 / d) / z
    p = sg.FokkerPlanck(sde, grid).stationary().p
    assert float((p - exact).abs().max()) < 1e-11


# ---- what is refused, and why ------------------------------------------------------------------

GRID = sg.Grid(-5.0, 5.0, 100)


class Pair(sg.SDE):
    def drift(self, x, t):
        return torch.cat([x, -x], 1)

    def diffusion(self, x, t):
        return torch.ones(())


OU = sg.OrnsteinUhlenbeck()


def solve(p0=None, times=(0.0, 1.0), sde=OU, **options):
    return sg.FokkerPlanck(sde, GRID, **options).solve(p0 or GRID.gaussian(0.0, 1.0), times)


def stationary(drift, diffusion=1.0, grid=GRID, boundary="no-flux", **options):
    sde = sg.ItoProcess(drift=drift, diffusion=diffusion)
    return sg.FokkerPlanck(sde, grid, boundary, **options).stationary()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: stationary(lambda x: x),
            sg.NotNormalizableError,
            r"grows towards low x \(at x = -5 .*still grows\) and towards high x",
        ),
        (
            lambda: stationary(lambda x: -(x**2)),
            sg.NotNormalizableError,
            r"grows towards low x \(",
        ),
        (
            lambda: stationary(lambda x: 0 * x),
            sg.NotNormalizableError,
            r"low x \(at x = -5 it is 1 of its peak and does not fall\)",
        ),
        (
            lambda: stationary(lambda x: -x, 3.0),
            ValueError,
            r"low end of the grid, x = -5, is .* of its peak: the grid cuts it",
        ),
        (
            lambda: stationary(lambda x: -x, boundary="absorbing"),
            sg.NotNormalizableError,
            "leaves through the absorbing wall",
        ),
        (lambda: stationary(lambda x, t: -x * (1 + t)), ValueError, "depend on time"),
        (
            lambda: stationary(lambda x: -x, 0.0),
            ValueError,
            r"D = g²/2 must be > 0 inside the grid",
        ),
        (
            lambda: stationary(lambda x: -x, lambda x: x),
            ValueError,
            r"is 0 at x = .*end the grid where the noise ends",
        ),
        (lambda: stationary(lambda x: x.log()), ValueError, r"drift is nan at x = -5, t = 0"),
        (
            lambda: stationary(lambda x: -x, lambda x: (x - 1).sqrt()),
            ValueError,
            "diffusion is nan at x = -5",
        ),
        (lambda: stationary(lambda x: x.mean() - x), ValueError, "mean field"),
        (lambda: sg.FokkerPlanck(Pair(), GRID), ValueError, "one-dimensional state"),
        (lambda: solve(boundary="reflecting"), ValueError, "boundary must be one of 'no-flux'"),
        (
            lambda: solve(boundary=("periodic", "no-flux")),
            ValueError,
            "a periodic wall needs its partner",
        ),
        (lambda: solve(form="fourth"), ValueError, "form must be 'auto' or 'compact' or"),
        (
            lambda: solve(times=[0.0, 2.0, 1.0]),
            ValueError,
            r"strictly increasing but times\[1\]=2 is followed by 1",
        ),
        (lambda: solve(times=[0.0]), ValueError, "at least two times"),
        (lambda: solve(times=[0.0, math.nan]), ValueError, r"times\[1\] = nan"),
        (lambda: solve(times="now"), TypeError, "times must be a tensor or a list of numbers"),
        (
            lambda: solve(sg.Density(GRID.nodes, -GRID.gaussian(0.0, 1.0).p)),
            ValueError,
            r"p0 must be ≥ 0, but is -0.39",
        ),
        (
            lambda: solve(sg.Density(GRID.nodes, torch.zeros_like(GRID.nodes))),
            ValueError,
            "p0 has no mass",
        ),
        (
            lambda: solve(sg.Density(GRID.nodes, 2 * GRID.gaussian(0.0, 1.0).p)),
            ValueError,
            r"p0 must have mass 1, but has 2; pass p0.normalized\(\)",
        ),
        (
            lambda: solve(sg.Grid(-5.0, 5.0, 50).gaussian(0.0, 1.0)),
            ValueError,
            "p0 lives on 51 nodes from -5 to 5, the solver on 101",
        ),
        (lambda: solve(GRID.gaussian(4.0, 1.0)), ValueError, r"high end of the grid.* at t = 0"),
        (
            lambda: sg.FokkerPlanck(OU, GRID, form="compact").solve(
                GRID.gaussian(0.0, 1.0), [0.0, 1.0], integrator=BackwardEuler()
            ),
            ValueError,
            "BackwardEuler is positive for the lumped form only",
        ),
        (lambda: BackwardEuler(0), ValueError, "substeps must be ≥ 1, but is 0"),
        (lambda: Exponential(0), ValueError, "substeps must be ≥ 1, but is 0"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_p0_must_be_a_density():
    with pytest.raises(TypeError, match="p0 must be a Density"):
        sg.FokkerPlanck(OU, GRID).solve(object(), [0.0, 1.0])


def second_coordinate(x):
    return torch.stack([x[:, 1], -x[:, 0]], 1)


@pytest.mark.parametrize(
    ("sde", "cause"),
    [
        (sg.RateNetwork(torch.eye(3, dtype=torch.float64), sigma=1.0), RuntimeError),
        (sg.ItoProcess(drift=second_coordinate, diffusion=1.0), IndexError),
    ],
)
def test_a_state_of_two_dimensions_or_three_is_refused(sde, cause):
    with pytest.raises(ValueError, match=r"needs a one-dimensional state.* raised") as caught:
        sg.FokkerPlanck(sde, GRID)
    assert isinstance(caught.value.__cause__, cause)


def test_a_mistake_in_a_drift_passes_with_a_note():
    def drift(x):
        return x * undefined

    with pytest.raises(NameError) as caught:
        sg.FokkerPlanck(sg.ItoProcess(drift=drift, diffusion=1.0), GRID)
    assert "densities are solved for one dimension" in "".join(caught.value.__notes__)


@pytest.mark.usefixtures("as_user")
def test_what_is_no_sde_and_no_grid_is_refused():
    with pytest.raises(TypeError, match=r"sde must be an SDE, but is a function; pass sdegen"):
        sg.FokkerPlanck(lambda x: -x, GRID)
    with pytest.raises(TypeError, match="grid must be a Grid, but is Tensor; pass Grid"):
        sg.FokkerPlanck(OU, GRID.nodes)
    with pytest.raises(TypeError, match="moments must be an int, but is float"):
        sg.FokkerPlanck(OU, GRID, "absorbing").first_passage(moments=1.5)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("number", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), 0.5])
def test_any_number_is_a_start(number):
    final = sg.FokkerPlanck(OU, sg.Grid(-8.0, 8.0, 200)).solve(number, [0.0, 1.0]).final
    assert float(final.mean) == pytest.approx(0.5 * math.exp(-1), abs=1e-6)


def test_a_start_too_narrow_for_the_grid_is_warned_of():
    grid = sg.Grid(-8.0, 8.0, 200)  # h = 0.08
    solver = sg.FokkerPlanck(sg.BrownianMotion(math.sqrt(2)), grid)
    # half a cell wide: found on finer cells
    path = solver.solve(0.5, [0.0, 1e-3, 1e-2, 0.1])
    for k, t in enumerate((1e-3, 1e-2, 0.1), start=1):
        assert float(path.variance[k]) == pytest.approx(2 * t, rel=1e-3)
        assert float(path.at(k).mean) == pytest.approx(0.5, abs=1e-6)
    assert float(path.error) < 1e-3
    # on any cells that can be afforded it is a point
    with pytest.warns(sg.AccuracyWarning, match=r"does not resolve the density at t = 1e-09, nor"):
        path = solver.solve(0.5, [0.0, 1e-9, 1e-8, 0.1])
    assert float(path.final.variance) == pytest.approx(0.2, rel=1e-3)
    later = solver.solve(0.5, [0.0, 0.05])
    assert float(later.final.variance) == pytest.approx(0.1, rel=1e-9)


def test_a_density_that_touches_the_edge_is_warned_of():
    with pytest.warns(
        UserWarning, match=r"end of the grid, x = -?5, is 1.49e-05 of its peak: the grid cuts it"
    ):
        stationary(lambda x: -x, 1.5)


def test_a_physical_wall_is_no_cut():
    # −v on [0, L] between walls: e^{−vx/D} leans on the lower one, and should
    grid = sg.Grid(0.0, 5.0, 200)
    p = stationary(lambda x: torch.full_like(x, -1.0), 1.0, grid, truncation_is_physical=True).p
    exact = 2 * torch.exp(-2 * grid.nodes) / (1 - math.exp(-10))
    assert float((p / exact - 1).abs().max()) < 1e-6
    with pytest.raises(sg.NotNormalizableError, match="grows towards low x"):
        stationary(lambda x: torch.full_like(x, -1.0), 1.0, grid)


def test_dynamics_that_know_no_time_are_not_asked_whether_they_change():
    asked = []

    def drift(x):
        asked.append(len(x))
        return -x

    def drift_in_time(x, t):
        return drift(x)

    # once, whether it has changed; who may know the time is asked that twice, and at its times
    for f, once in ((drift, True), (drift_in_time, False)):
        solver = sg.FokkerPlanck(sg.ItoProcess(f, 1.0), sg.Grid(-6.0, 6.0, 100))
        for _ in range(2):  # the first time on coarser cells too
            asked.clear()
            solver.solve(solver.grid.gaussian(0.0, 1.0), [0.0, 0.5])
        assert (len(asked) == 1) is once


@pytest.mark.parametrize(
    "noise",
    [
        lambda x: (x - 0.0123).abs(),
        lambda x: (x - 0.0123).abs().sqrt(),
        lambda x: (x - 0.0123) ** 2,
        lambda x: -(x - 0.0123).abs(),
    ],
)
@pytest.mark.parametrize("cells", [200, 203, 401])
def test_noise_that_vanishes_between_two_points_is_refused(noise, cells):
    sde = sg.ItoProcess(drift=lambda x: -x, diffusion=noise)
    message = r"D = g²/2 must be > 0 inside the grid, but is 0 at x = 0\.0123"
    with pytest.raises(ValueError, match=message):
        sg.FokkerPlanck(sde, sg.Grid(-8.0, 8.0, cells))


def test_noise_with_a_steep_minimum_is_taken():
    # p ∝ e^{∫ f/D}/D with D = ½ (ε² + x²) and f = −x: (ε² + x²)^{−2}, whose variance is ε²
    sde = sg.ItoProcess(drift=lambda x: -x, diffusion=lambda x: (0.01**2 + x**2).sqrt())
    grid = sg.Grid.sinh(-8.0, 8.0, 800, width=0.01)
    assert float(sg.FokkerPlanck(sde, grid).stationary().variance) == pytest.approx(1e-4, rel=2e-3)


# ---- parameters that change -----------------------------------------------------------------


def by_parameter():
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    return sg.ItoProcess(drift=lambda x: -k * x, diffusion=math.sqrt(2)), lambda v: k.data.fill_(v)


def by_closure():
    k = [1.0]
    return (
        sg.ItoProcess(drift=lambda x, t: -k[0] * x, diffusion=math.sqrt(2)),
        lambda v: k.__setitem__(0, v),
    )


def by_attribute():
    sde = sg.OrnsteinUhlenbeck()
    return sde, lambda v: setattr(sde, "rate", v)


def by_noise():
    # the variance is g²/2
    g = torch.tensor(math.sqrt(2), dtype=torch.float64)
    return sg.ItoProcess(drift=lambda x: -x, diffusion=lambda x: g), lambda v: g.fill_(
        math.sqrt(2 / v)
    )


@pytest.mark.parametrize("make", [by_parameter, by_closure, by_attribute, by_noise])
@torch.no_grad()  # some of the answers refuse a parameter whose gradient they would lose
def test_a_parameter_that_changes_is_seen_by_all_answers(make):
    sde, put = make()
    grid = sg.Grid(-8.0, 8.0, 400)
    free = sg.FokkerPlanck(sde, grid)
    leaving = sg.FokkerPlanck(sde, grid, "absorbing")
    family = sg.FokkerPlanckBatch([sde], grid)
    rest = grid.gaussian(0.0, 0.5)
    for k in (1.0, 4.0):
        put(k)
        relaxed = free.stationary()
        assert float(relaxed.variance) == pytest.approx(1 / k, rel=1e-6)
        # two normal densities of variances ¼ and 1/k: Kullback and Leibler
        gap = 0.5 * (k / 4 - 1 - math.log(k / 4))
        assert free.free_energy(rest) == pytest.approx(gap, abs=1e-5)
        assert float(free.solve(rest, [0.0, 30.0]).final.variance) == pytest.approx(
            1 / k, rel=1e-5
        )
        assert free.entropy_production(relaxed) == pytest.approx(0, abs=1e-9)
        by_family = [family.stationary()[0], family.solve(rest, [0.0, 30.0])[0, -1]]
        for p in by_family:
            assert float(sg.Density(grid.nodes, p).variance) == pytest.approx(1 / k, rel=1e-5)
        fresh = sg.FokkerPlanck(sde, grid, "absorbing").first_passage().mean
        torch.testing.assert_close(leaving.first_passage().mean, fresh, rtol=1e-12, atol=0)
    modes = free.spectrum(2).rates
    assert float(modes[1]) == pytest.approx(1.0 if make is by_noise else 4.0, rel=1e-5)


def test_a_drift_that_begins_to_change_is_seen():
    push = [0.0]
    sde = sg.ItoProcess(drift=lambda x, t: -x + push[0] * torch.sin(t), diffusion=math.sqrt(2))
    grid = sg.Grid(-10.0, 10.0, 400)
    solver = sg.FokkerPlanck(sde, grid)
    assert float(solver.solve(solver.stationary(), [0.0, 2.0]).final.mean) == pytest.approx(0)
    start, push[0] = solver.stationary(), 1.0
    with pytest.raises(ValueError, match="depend on time"):
        solver.stationary()
    # m′ = −m + sin t
    mean = 0.5 * (math.sin(2) - math.cos(2) + math.exp(-2))
    got = float(solver.solve(start, [0.0, 2.0]).final.mean)
    assert got == pytest.approx(mean, abs=1e-6)


def test_what_has_not_changed_is_not_made_again(monkeypatch):
    asked = []

    def drift(x):
        asked.append(len(x))
        return -x

    monkeypatch.setattr(sg.OrnsteinUhlenbeck, "drift", lambda self, x, t: drift(x))
    grid = sg.Grid(-8.0, 8.0, 100)
    named = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    own = sg.FokkerPlanck(sg.ItoProcess(drift=drift, diffusion=math.sqrt(2)), grid)
    for solver, evaluations in ((named, 0), (own, 1)):
        first = solver.stationary()
        asked.clear()
        assert solver.stationary() is first
        assert len(asked) == evaluations


@pytest.mark.parametrize(("form", "tolerance"), [("auto", 2e-3), ("lumped", 2e-2)])
def test_a_square_root_process_on_its_way_touches_zero(form, tolerance):
    # κ = 1, θ = 0.5, σ = 1.5: noncentral χ² with 4κθ/σ² = 8/9 degrees of freedom, ∞ at 0
    sde = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt())
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 24.0, 800), form=form)
    most = 0.1 if form == "lumped" else 1e-3  # of p beside 0, where it is a power
    path = solver.solve(0.6, [0.0, 1.0, 3.0], rtol=most)
    for k, t in ((1, 1.0), (2, 3.0)):
        c = 2 / (1.5**2 * (1 - math.exp(-t)))
        law = stats.ncx2(8 / 9, 2 * c * 0.6 * math.exp(-t), scale=1 / (2 * c))
        p = path.at(k)
        assert abs(float(p.mean) / law.mean() - 1) < tolerance
        assert abs(float(p.variance) / law.var() - 1) < tolerance
        assert abs(float(p.quantile(0.3)) / law.ppf(0.3) - 1) < 2 * tolerance
        assert float(p.p[0]) == math.inf
    again = solver.solve(
        path.at(1).normalized(), [1.0, 3.0], rtol=most
    ).final  # a start that is ∞ there
    assert abs(float(again.mean) / float(path.final.mean) - 1) < tolerance


@pytest.mark.parametrize(("low", "cells"), [(0.0, 600), (1e-4, 300), (1e-4, 60)])
def test_correlation_of_a_process_whose_density_is_infinite_at_a_wall(low, cells):
    # dX = (θ − X) dt + σ√X dW: Cov(X_0, X_t) = Var X e^{−t}, from 0
    sde = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt())
    solver = sg.FokkerPlanck(sde, sg.Grid(low, 40.0, cells), truncation_is_physical=True)
    got = solver.correlation(lambda x: x, [0.0, 1.0])
    variance = float(solver.stationary().variance)
    assert abs(float(got[0]) / variance - 1) < 2e-3
    if low == 0:
        assert abs(variance / 0.5625 - 1) < 1e-3
        assert abs(float(got[1]) / (0.5625 * math.exp(-1)) - 1) < 2e-3
    assert float(got.error) < 1e-3
