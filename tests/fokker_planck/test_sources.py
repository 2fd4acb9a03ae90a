import math

import numpy as np
import pytest
import torch
from scipy import integrate

import sdegen as sg

FREE = sg.BrownianMotion(1.0)


@pytest.mark.parametrize("cells", [8, 100])
@pytest.mark.parametrize("x0", [0.5, 0.37123])
def test_absorbed_at_zero_and_put_back_inside(x0, cells):
    # p ∝ min(x, x0): a tent, of mean 11/18 for x0 = 1/2
    solver = sg.FokkerPlanck(
        FREE, sg.Grid(0.0, 1.0, cells), ("absorbing", "no-flux"),
        injection=x0, truncation_is_physical=True,
    )  # fmt: skip
    p = solver.stationary()
    mass = x0**2 / 2 + x0 * (1 - x0)
    mean = (x0**3 / 3 + x0 * (1 - x0**2) / 2) / mass
    square = (x0**4 / 4 + x0 * (1 - x0**3) / 3) / mass
    assert abs(float(p.mean) / mean - 1) < 1e-3
    assert abs(float(p.variance) / (square - mean**2) - 1) < 1e-3
    exact = torch.minimum(p.x, torch.full_like(p.x, x0)) / mass
    assert float((p.p - exact).abs().max()) < 2e-3
    if x0 == 0.5:
        assert abs(mean - 11 / 18) < 1e-15
    # what is absorbed in a time is 1/(mean life), and the life is x0 (1 − x0/2) / D, D = 1/2
    j = solver.current(p)
    assert abs(float(-j[0]) * 2 * x0 * (1 - x0 / 2) - 1) < 2e-3


def test_the_old_program_names_what_puts_back():
    solver = sg.FokkerPlanck(FREE, sg.Grid(0.0, 1.0, 100), ("absorbing", "no-flux"))
    with pytest.raises(sg.NotNormalizableError, match=r"all mass leaves.*injection="):
        solver.stationary()
    dying = sg.FokkerPlanck(FREE, sg.Grid(-9.0, 9.0, 100), killing=1.0)
    with pytest.raises(sg.NotNormalizableError, match=r"all mass is killed.*injection="):
        dying.stationary()


@pytest.mark.parametrize("cells", [60, 400])
def test_resetting_at_a_constant_rate(cells):
    # p = (α/2) e^{−α|x − x0|}, α = √(r/D); Evans and Majumdar 2011, eq. (4)
    rate, x0, d = 2.0, 0.3, 0.5
    alpha = math.sqrt(rate / d)
    solver = sg.FokkerPlanck(FREE, sg.Grid(-20.0, 20.0, cells), killing=rate, injection=x0)
    p = solver.stationary()
    exact = 0.5 * alpha * torch.exp(-alpha * (p.x - x0).abs())
    assert float((p.p - exact).abs().max()) < 1e-3 * 0.5 * alpha
    assert abs(float(p.mean) - x0) < 1e-3
    assert abs(float(p.variance) * alpha**2 / 2 - 1) < 1e-3
    # from any start it gets there, and its mass is kept on the way
    path = solver.solve(p0=solver.grid.gaussian(2.0, 1.0), times=[0.0, 0.5, 20.0])
    np.testing.assert_allclose(path.mass, 1.0, atol=2e-3)
    assert abs(float(path.final.variance) / float(p.variance) - 1) < 3e-3
    # E X_t of a free motion that is reset: x0 + (m − x0) e^{−rt}
    assert abs(float(path.mean[1]) - x0 - (2.0 - x0) * math.exp(-1.0)) < 2e-3


def test_a_constant_death_rate_takes_mass_alone():
    trap = sg.OrnsteinUhlenbeck()
    grid = sg.Grid(-8.0, 8.0, 200)
    p0 = grid.gaussian(1.0, 0.5)
    times = torch.linspace(0, 3, 4, dtype=torch.float64)
    dying = sg.FokkerPlanck(trap, grid, killing=0.7).solve(p0, times)
    living = sg.FokkerPlanck(trap, grid).solve(p0, times)
    np.testing.assert_allclose(dying.mass, torch.exp(-0.7 * times), rtol=1e-5)
    np.testing.assert_allclose(dying.mean, living.mean, atol=1e-5)
    np.testing.assert_allclose(dying.variance, living.variance, rtol=1e-5)


def test_a_quadratic_death_rate_keeps_a_gaussian_gaussian():
    # dX = −X dt + √2 dW killed at rate x²: m′ = −m − 2 m v, v′ = −2 v + 2 − 2 v²,
    # (log M)′ = −(v + m²)
    mean, variance = 1.0, 0.25
    grid = sg.Grid(-8.0, 8.0, 200)
    trap = sg.OrnsteinUhlenbeck()
    path = sg.FokkerPlanck(trap, grid, killing=lambda x: x**2).solve(
        grid.gaussian(mean, variance**0.5), [0.0, 0.4, 1.5]
    )

    def rates(_, y):
        m, v, _ = y
        return [-m - 2 * m * v, -2 * v + 2 - 2 * v * v, -(v + m * m)]

    for k, t in ((1, 0.4), (2, 1.5)):
        ((m, v, log_mass),) = integrate.solve_ivp(
            rates, (0, t), [mean, variance, 0.0], rtol=1e-10, atol=1e-12
        ).y.T[-1:]
        p = path.at(k)
        assert abs(float(p.mean) - m) < 1e-4
        assert abs(float(p.variance) / v - 1) < 1e-4
        assert abs(float(p.mass) / math.exp(log_mass) - 1) < 1e-4


def test_injection_with_a_density_and_a_rate_that_depends_on_x():
    # what is lost equals what comes: with k = x² and q, stationary p obeys ∫ k p = r and
    # d⟨x²⟩/dt = 0: −2⟨x²⟩ + 2 − ⟨x⁴⟩ + r ⟨x²⟩_q = 0
    grid = sg.Grid(-8.0, 8.0, 200)
    q = grid.gaussian(0.5, 0.3)
    trap = sg.OrnsteinUhlenbeck()
    p = sg.FokkerPlanck(trap, grid, killing=lambda x: x**2, injection=q).stationary()
    r = float(p.expect(lambda x: x**2))
    fourth = float(p.expect(lambda x: x**4))
    second_q = float(q.expect(lambda x: x**2))
    assert abs(-2 * r + 2 - fourth + r * second_q) < 1e-4
    assert abs(-float(p.mean) - float(p.expect(lambda x: x**3)) + r * float(q.mean)) < 1e-4


def test_lives_of_nearly_one_length_turn_around_in_time():
    # a strong drift to an absorbing wall, put back at the other end: a ring in effect, whose
    # density turns before it rests, and rests as 1/v
    sde = sg.ItoProcess(lambda x: 1 + 0 * x, math.sqrt(2 * 0.01))
    grid = sg.Grid(-0.4, 1.0, 700)
    solver = sg.FokkerPlanck(
        sde, grid, ("no-flux", "absorbing"), injection=0.0, truncation_is_physical=True
    )
    path = solver.solve(grid.gaussian(0.2, 0.05), [0.0, 0.5, 1.0, 60.0])
    np.testing.assert_allclose(path.mass, 1.0, atol=2e-3)
    # not yet at the wall it is advected: N(0.2 + t, 0.05² + 2 D t)
    assert abs(float(path.mean[1]) - 0.7) < 1e-2
    rest = solver.stationary()
    assert abs(float(path.final.mean) / float(rest.mean) - 1) < 1e-3
    # mean life 1 from 0, and the loss per time is its inverse (Wald: v E τ = 1)
    assert abs(float(solver.current(rest)[-1]) - 1) < 3e-3


def test_gradients_flow_through_a_reset_density():
    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    d = rate * 0.25  # α² = r/D = 4 wherever r is: variance 1/2, and D = rate/4
    sde = sg.ItoProcess(lambda x: 0 * x, lambda x: torch.sqrt(2 * d) + 0 * x)
    p = sg.FokkerPlanck(sde, sg.Grid(-12.0, 12.0, 200), killing=2.0, injection=0.0).stationary(
        differentiable=True
    )
    (slope,) = torch.autograd.grad(p.variance, rate)
    # variance 2 D/r_fixed = 2 (rate/4)/2
    assert abs(float(slope) - 0.25) < 1e-3


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda s: s.spectrum(2), "a spectrum"),
        (lambda s: s.first_passage(), "a first passage"),
        (lambda s: s.survival(0.2, [0.0, 1.0]), "a survival probability"),
        (lambda s: s.correlation(lambda x: x, [0.0, 1.0]), "a correlation function"),
        (lambda s: s.free_energy(s.stationary()), "a free energy"),
        (lambda s: s.entropy_production(s.stationary()), "an entropy production"),
    ],
)
def test_other_questions_refuse_by_name(ask, what):
    solver = sg.FokkerPlanck(FREE, sg.Grid(-12.0, 12.0, 100), killing=1.0, injection=0.0)
    with pytest.raises(ValueError, match=rf"{what} is not found with killing= or injection="):
        ask(solver)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"killing": -1.0}, ValueError, "killing must be finite and ≥ 0, but is -1"),
        ({"killing": "fast"}, TypeError, "killing must be a number or a function"),
        ({"killing": lambda x: x}, ValueError, "but is -9 at x = -9"),
        ({"killing": lambda x: x[:3]}, ValueError, "killing must be elementwise"),
        ({"injection": 12.0, "killing": 1.0}, ValueError, "injection = 12 must lie inside"),
        ({"injection": "here"}, TypeError, "injection must be a point x0 or a Density"),
        ({"injection": 0.0}, ValueError, "nothing is"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        sg.FokkerPlanck(FREE, sg.Grid(-9.0, 9.0, 100), **options).stationary()


def test_a_time_dependent_drift_with_sources_is_refused_before_the_first_step():
    sde = sg.ItoProcess(lambda x, t: -x + t, 1.0)
    grid = sg.Grid(-9.0, 9.0, 100)
    solver = sg.FokkerPlanck(sde, grid, killing=1.0)
    with pytest.raises(ValueError, match="a density in time with killing= or injection="):
        solver.solve(grid.gaussian(0.0, 1.0), [0.0, 1.0])
    still = sg.FokkerPlanck(FREE, grid, killing=1.0)
    with pytest.raises(ValueError, match=r"carried by Exponential\(\)"):
        still.solve(grid.gaussian(0.0, 1.0), [0.0, 1.0], integrator=sg.BackwardEuler(3))


def test_a_square_root_process_that_is_killed_as_a_bond_is_priced():
    # Cox, Ingersoll and Ross 1985, eq. (23): E e^{−∫X} = A(t) e^{−B(t) x0}
    kappa, theta, sigma, x0, t = 1.0, 0.5, 0.6, 0.4, 1.0
    sde = sg.ItoProcess(lambda x: kappa * (theta - x), lambda x: sigma * x.sqrt())
    path = sg.FokkerPlanck(sde, sg.Grid(0.0, 6.0, 600), killing=lambda x: x).solve(x0, [0.0, t])
    g = math.sqrt(kappa**2 + 2 * sigma**2)
    below = (g + kappa) * (math.exp(g * t) - 1) + 2 * g
    a = (2 * g * math.exp((g + kappa) * t / 2) / below) ** (2 * kappa * theta / sigma**2)
    b = 2 * (math.exp(g * t) - 1) / below
    assert abs(float(path.final.mass) / (a * math.exp(-b * x0)) - 1) < 1e-3
