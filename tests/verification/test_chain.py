"""The law of a chain against problem 2, exact moments, and a quadrature of another make."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact import affine_run_moments, linear_chain_moments, noised_gaussian, normal_density
from scipy import integrate

import sdegen as sg
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import Given
from sdegen.core.update import update
from sdegen.verification.chain import ChainDensity
from sdegen.verification.kernel import interpolation_loss
from sdegen.verification.sampling import sampling_checks


def worst(law, mean, var):
    """Largest distance of a nodal density to a normal one."""
    return float(np.abs(law.p.numpy() - normal_density(law.x.numpy(), mean, var)).max())


@pytest.mark.parametrize(("eps", "cells"), [(1e-3, 300), (1e-2, 400), (0.1, 400)])
def test_euler_maruyama_on_ou_has_the_law_of_the_discrete_update(eps, cells):
    """Problem 2: mean aⁿ x0, variance a²ⁿ v0 + σ²ε (1 − a²ⁿ)/(1 − a²), a = 1 − kε."""
    k, sigma, mean, std, n = 1.5, 0.8, 1.0, 0.5, round(1 / eps)
    ou = sg.OrnsteinUhlenbeck(k, 0.0, sigma)
    grid = sg.Grid(-7.0, 7.0, cells=cells)
    chain = ChainDensity(ou, grid, sg.EulerMaruyama(substeps=n))
    law = chain.run(grid.gaussian(mean, std), [0.0, 1.0]).final
    a = 1 - k * eps
    var = a ** (2 * n) * std**2 + sigma**2 * eps * (1 - a ** (2 * n)) / (1 - a * a)
    assert worst(law, a**n * mean, var) < 1e-10
    # and the SDE's own law is not that of the chain: the bias is seen
    decay = math.exp(-k)
    continuous = std**2 * decay**2 + sigma**2 / (2 * k) * (1 - decay**2)
    assert worst(law, mean * decay, continuous) > 0.02 * eps


def test_a_start_at_a_point_is_the_kernel_and_then_problem_2():
    ou = sg.OrnsteinUhlenbeck(1.0, 0.0, math.sqrt(2))
    grid = sg.Grid(-9.0, 9.0, cells=400)
    path = ChainDensity(ou, grid).run(1.3, torch.linspace(0, 1, 11, dtype=torch.float64))
    assert float(path.at(0).mean) == pytest.approx(1.3, abs=0.01)
    for n in (1, 4, 10):
        var = 0.2 * (1 - 0.9 ** (2 * n)) / (1 - 0.81)
        assert worst(path.at(n), 0.9**n * 1.3, var) < 1e-12


SDE, NOISED = noised_gaussian(mean=1.0, std=0.5)
CHAIN = sg.DDPM.discretize(SDE, steps=25)
BACK = torch.arange(26.0, dtype=torch.float64).flip(0)
SAMPLERS = {
    "reverse SDE": (sg.ReverseSDE(SDE, NOISED.score), sg.EulerMaruyama(), SDE.time_grid(40)),
    "eta 0.3": (sg.ReverseSDE(SDE, NOISED.score, 0.3), sg.EulerMaruyama(), SDE.time_grid(40)),
    "DDIM, eta 1": (sg.ReverseSDE(SDE, NOISED.score), sg.DDIM(), SDE.time_grid(20)),
    "DDIM, eta 0.5": (sg.ReverseSDE(SDE, NOISED.score, 0.5), sg.DDIM(), SDE.time_grid(20)),
    "DDIM, eta 0": (sg.ReverseSDE(SDE, NOISED.score, 0.0), sg.DDIM(), SDE.time_grid(20)),
    "flow, Heun": (sg.ReverseSDE(SDE, NOISED.score, 0.0), sg.Heun(), SDE.time_grid(20)),
    "flow, Euler": (sg.ReverseSDE(SDE, NOISED.score, 0.0), sg.EulerMaruyama(), SDE.time_grid(20)),
    "DDPM, posterior": (CHAIN.reverse(NOISED.score), sg.EulerMaruyama(), BACK),
    "DDPM, beta": (CHAIN.reverse(NOISED.score, "beta"), sg.EulerMaruyama(), BACK),
}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_with_an_exact_gaussian_score_end_in_the_gaussian_of_their_moments(name):
    dynamics, solver, times = SAMPLERS[name]
    grid = sg.Grid(-9.0, 9.0, cells=500)
    law = ChainDensity(dynamics, grid, solver).run(grid.gaussian(0.0, 1.0), times)
    moments = linear_chain_moments(solver, dynamics, times, 0.0, 1.0)
    for k in (1, len(times) // 2, -1):
        assert worst(law.at(k), *moments[k].tolist()) < 1e-10


FLOW = sg.ReverseSDE(SDE, NOISED.score, 0.0)
COMPOSED = {
    "Heun, churned": (FLOW, sg.KarrasHeun(churn=sg.Churn(5.0))),
    "Heun, churned in between": (FLOW, sg.KarrasHeun(churn=sg.Churn(40.0, 0.1, 5.0, 1.05))),
    "DPM-2, churned": (FLOW, sg.DPM2(churn=sg.Churn(3.0))),
    "Euler-Maruyama, denoised": (
        sg.ReverseSDE(SDE, NOISED.score),
        sg.FinalDenoising(sg.EulerMaruyama()),
    ),
    "DDIM, denoised": (FLOW, sg.FinalDenoising(sg.DDIM())),
    "two steps back, denoised": (FLOW, sg.FinalDenoising(sg.ExponentialAdams(order=2))),
    "churned and denoised": (FLOW, sg.FinalDenoising(sg.KarrasHeun(churn=sg.Churn(5.0)))),
}


@pytest.mark.parametrize("name", list(COMPOSED))
def test_steps_that_are_compositions_have_the_moments_of_the_run(name):
    """With an exact Gaussian score a run is affine in its start and its draws."""
    dynamics, solver = COMPOSED[name]
    times, grid = SDE.time_grid(12), sg.Grid(-12.0, 12.0, cells=660)  # √2 as wide when stirred
    law = ChainDensity(dynamics, grid, solver).run(grid.gaussian(0.0, 1.0), times)
    mean, var = affine_run_moments(solver, dynamics, times, 0.0, 1.0).tolist()
    assert worst(law.final, mean, var) < 1e-10
    # what is composed is seen: neither churn nor the denoising leaves the law as it is
    plain = {"churn": sg.Churn()} if hasattr(solver, "churn") else {}
    other = replace(solver, **plain) if plain else solver.solver
    left = affine_run_moments(other, dynamics, times, 0.0, 1.0).tolist()
    assert worst(law.final, *left) > 1e-4


def test_a_start_at_a_point_is_stirred_before_it_flows():
    solver = sg.KarrasHeun(churn=sg.Churn(5.0))
    times, grid = SDE.time_grid(6), sg.Grid(-9.0, 9.0, cells=900)
    law = ChainDensity(FLOW, grid, solver).run(0.3, times).final
    moments = affine_run_moments(solver, FLOW, times, 0.3, 0.0)
    assert worst(law, *moments.tolist()) < 1e-9


@pytest.mark.parametrize(
    "solver",
    [sg.KarrasHeun(churn=sg.Churn(5.0)), sg.DPM2(churn=sg.Churn(40.0, 0.05, 3.0, 1.02))],
)
def test_churned_samples_of_a_mixture_follow_the_law_of_their_chain(solver):
    """10⁵ of them, five tests with a false-alarm rate of 1e-5 each."""
    dynamics, grid = sg.ReverseSDE(VP, mixture_score, 0.0), sg.Grid(-8.0, 8.0, cells=600)
    times = VP.time_grid(6)
    law = ChainDensity(dynamics, grid, solver).run(grid.gaussian(0.0, 1.0), times).final
    x0 = VP.prior((100_000, 1), rng=1, dtype=torch.float64)
    end = sg.simulate(dynamics, x0, times, solver=solver, rng=2, keep_path=False).final
    checks = sampling_checks(end, law, false_alarm=1e-5)
    assert all(check.verdict == "passed" for check in checks)
    still = replace(solver, churn=sg.Churn())
    unstirred = ChainDensity(dynamics, grid, still).run(grid.gaussian(0.0, 1.0), times).final
    seen = sampling_checks(end, unstirred, false_alarm=1e-5)
    assert all(check.verdict == "failed" for check in seen[:3])


def test_a_grid_that_cuts_the_stirred_density_is_refused():
    # at t = 0.8 the state has width 1, and √2 when noise is stirred in
    grid = sg.Grid(-6.0, 6.0, cells=400)
    chain = ChainDensity(FLOW, grid, sg.KarrasHeun(churn=sg.Churn(5.0)))
    with pytest.raises(
        ValueError, match=r"stirred in, the density at an end of the grid \[-6, 6\]"
    ):
        chain.run(grid.gaussian(0.0, 1.0), [0.8, 0.4, 0.1])


def test_the_parts_of_a_step_are_the_step():
    solver, times = sg.KarrasHeun(churn=sg.Churn(5.0)), VP.time_grid(6)
    dynamics = sg.ReverseSDE(VP, mixture_score, 0.0)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    noise = Given(torch.full_like(x, 0.7))
    for i in range(6):
        found = x
        for part in solver.parts():
            found, _ = part.step(dynamics, found, i, noise, part.begin(dynamics, times))
        whole, _ = solver.step(dynamics, x, i, noise, solver.begin(dynamics, times))
        torch.testing.assert_close(found, whole)


def test_the_forward_chain_of_ddpm_is_the_kernel_of_its_sde():
    grid = sg.Grid(-9.0, 9.0, cells=600)
    law = ChainDensity(CHAIN, grid).run(grid.gaussian(1.0, 0.25), torch.arange(26.0))
    for k in (1, 10, 25):
        t = CHAIN.times[k]
        alpha, sigma = float(SDE.alpha(t)), float(SDE.sigma(t))
        assert worst(law.at(k), alpha, (0.25 * alpha) ** 2 + sigma**2) < 1e-11


def test_multiplicative_noise_against_adaptive_quadrature():
    """Two steps from a point: p(y) = ∫ N(x; m(x0), s(x0)²) N(y; m(x), s(x)²) dx."""
    dt, x0 = 0.1, 0.4
    sde = sg.ItoProcess(lambda x: x - x**3, lambda x: 0.5 + 0.3 * torch.sin(x))

    def kernel(y, x):
        m, s = x + dt * (x - x**3), math.sqrt(dt) * (0.5 + 0.3 * math.sin(x))
        return math.exp(-0.5 * ((y - m) / s) ** 2) / (math.sqrt(2 * math.pi) * s)

    law = ChainDensity(sde, sg.Grid(-2.0, 3.0, cells=500)).run(x0, [0.0, dt, 2 * dt]).final
    for i in (180, 240, 290):
        y = float(law.x[i])

        def both(x, y=y):
            return kernel(x, x0) * kernel(y, x)

        exact = integrate.quad(both, -2, 3, epsabs=1e-13, epsrel=1e-13, limit=200)[0]
        assert float(law.p[i]) == pytest.approx(exact, abs=1e-11)


def test_a_map_that_turns_the_line_round_is_still_a_map():
    """Euler on x' = −3x with dt = 1: x ← −2x."""
    grid = sg.Grid(-9.0, 9.0, cells=600)
    ode = sg.ItoProcess(lambda x: -3 * x, 0.0)
    law = ChainDensity(ode, grid).run(grid.gaussian(0.5, 0.4), [0.0, 1.0]).final
    assert worst(law, -1.0, 0.64) < 1e-10


def test_many_short_maps_keep_the_tails():
    """200 steps of x ← 0.995 x: a node of the tail that is lost in each would be seen."""
    grid = sg.Grid(-9.0, 9.0, cells=500)
    ode = sg.ItoProcess(lambda x: -x, 0.0)
    chain = ChainDensity(ode, grid, sg.EulerMaruyama(200))
    law = chain.run(grid.gaussian(0.0, 1.0), [0.0, 1.0]).final
    assert worst(law, 0.0, 0.995**400) < 1e-11
    far = normal_density(law.x.numpy(), 0.0, 0.995**400)
    tail = (far > 1e-13) & (far < 1e-9)
    np.testing.assert_allclose(law.p.numpy()[tail], far[tail], rtol=0.05)


MIXTURE = sg.GaussianMixture([0.4, 0.6], [-1.0, 1.0], stds=[0.3, 0.4])
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
ORACLE = MIXTURE.noised(VP)


def mixture_score(x, t):
    """The score of MIXTURE under VP, in one dimension: lighter than that of any dimension."""
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    var = alpha**2 * torch.tensor([[0.09, 0.16]]).double() + sigma**2
    pull = (alpha * torch.tensor([[-1.0, 1.0]]).double() - x) / var
    log_w = torch.tensor([[0.4, 0.6]]).double().log() - 0.5 * var.log()
    return (torch.softmax(log_w - 0.5 * pull**2 * var, 1) * pull).sum(1, keepdim=True)


def test_the_lighter_score_is_the_score():
    x, t = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None], torch.tensor(0.3).double()
    torch.testing.assert_close(mixture_score(x, t), ORACLE.score(x, t))


def second_moment_error(name, steps, grid):
    """E x² of what a sampler makes of the exact p_T, less that of the law that it aims at."""
    if name == "Euler-Maruyama":
        dynamics, times, t_end = sg.ReverseSDE(VP, mixture_score), VP.time_grid(steps), VP.t_min
    else:
        dynamics = sg.DDPM.discretize(VP, steps).reverse(mixture_score, name)
        times, t_end = torch.arange(steps + 1.0).flip(0), 0.0
    start = sg.Density(
        grid.nodes,
        ORACLE.log_prob(grid.nodes[:, None], torch.tensor(VP.t_max, dtype=torch.float64)).exp(),
    )
    law = ChainDensity(dynamics, grid).run(start, times).final
    t = torch.tensor(t_end, dtype=torch.float64)
    aim = MIXTURE.covariance + MIXTURE.mean**2 - 1
    return float(law.expect(lambda x: x * x)) - (1 + float(VP.alpha(t) ** 2 * aim))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "order"),
    [("Euler-Maruyama", 300, 1.0), ("beta", 300, 1.0), ("posterior", 500, 0.95)],
)
def test_samplers_have_weak_order_one_on_a_mixture(name, steps, order):
    """The limit is right (the error is small), and halving the step halves it."""
    grid = sg.Grid(-8.0, 8.0, cells=220)
    coarse, fine = (second_moment_error(name, n, grid) for n in (steps, 2 * steps))
    assert abs(fine) < 5e-3
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.05)


def test_what_an_interpolation_loses_is_not_underestimated():
    """A spline through every other node of a Gaussian, against the nodes between."""
    from scipy.interpolate import make_interp_spline

    for std in (1.5, 2.0, 3.0):  # in units of the coarse spacing
        x = np.arange(-60.0, 60.5, 0.5)
        p = normal_density(x, 0.2, std**2)
        miss = np.abs(make_interp_spline(x[::2], p[::2], k=7)(x[1::2]) - p[1::2]).max()
        assert miss < 1.1 * interpolation_loss(p[::2]) < 100 * miss


def images(y, x0, var, kind):
    """Density of x0 + √var z in [0, 1], folded back, or wrapped."""
    k = np.arange(-8, 9)[:, None]
    if kind == "periodic":
        return normal_density(y + k, x0, var).sum(0)
    return (normal_density(y + 2 * k, x0, var) + normal_density(2 * k - y, x0, var)).sum(0)


@pytest.mark.parametrize("kind", ["no-flux", "periodic"])
def test_between_walls_a_free_chain_is_a_sum_of_images(kind):
    """Folding twice is folding once: five steps of Brownian motion are one of five times dt."""
    grid, bm = sg.Grid(0.0, 1.0, cells=160), sg.BrownianMotion(0.8)
    chain = ChainDensity(bm, grid, sg.EulerMaruyama(substeps=5), boundary=kind)
    law = chain.run(0.3, [0.0, 0.05]).final
    exact = images(law.x.numpy(), 0.3, 0.64 * 0.05, kind)
    np.testing.assert_allclose(law.p.numpy(), exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "kind", ["no-flux", "absorbing", ("no-flux", "absorbing"), ("absorbing", "no-flux")]
)
def test_between_walls_two_steps_are_those_of_adaptive_quadrature(kind):
    """From a point: p(y) = ∫ K(x; x0) K(y; x) dx, K the folded kernel, with a drift at walls."""
    dt, x0, low, high = 0.04, 0.3, *((kind, kind) if isinstance(kind, str) else kind)
    ou = sg.OrnsteinUhlenbeck(1.0, 0.4, 0.9)

    def untouched(y, x, var):
        """The chance that a bridge from x to y has touched no absorbing wall."""
        ends = [wall for wall, word in ((0.0, low), (1.0, high)) if word == "absorbing"]
        chance = 1.0
        for wall in ends:
            chance *= 1 - math.exp(-2 * (wall - x) * (wall - y) / var)
        return chance

    def kernel(y, x):
        m, var = x + dt * (0.4 - x), 0.81 * dt
        every = [y]
        if low == "no-flux":
            every += [-image for image in every]
        if high == "no-flux":
            every += [2 - image for image in every]
        if low == high == "no-flux":
            every = [sign * y + 2 * k for sign in (1, -1) for k in range(-3, 4)]
        return sum(
            float(normal_density(np.array(image), m, var)) * untouched(image, x, var)
            for image in every
        )

    chain = ChainDensity(ou, sg.Grid(0.0, 1.0, cells=200), boundary=kind)
    law = chain.run(x0, [0.0, dt, 2 * dt]).final
    for i in (0, 11, 120, 200):
        y = float(law.x[i])
        exact = integrate.quad(
            lambda x, y=y: kernel(x, x0) * kernel(y, x), 0, 1, epsabs=1e-13, epsrel=1e-13
        )[0]
        assert float(law.p[i]) == pytest.approx(exact, abs=1e-10)
    assert float(law.mass) < 1 - 1e-3 if "absorbing" in (low, high) else float(law.mass) < 1 + 1e-9


def test_walls_want_noisy_steps_of_one_part():
    grid = sg.Grid(0.0, 1.0, cells=100)
    with pytest.raises(ValueError, match="between walls is built for steps of one part"):
        ChainDensity(FLOW, grid, sg.KarrasHeun(), boundary="no-flux")
    with pytest.raises(ValueError, match=r"boundary must be one of .* but is 'mirror'"):
        ChainDensity(OU, grid, boundary="mirror")
    flow = ChainDensity(sg.ItoProcess(lambda x: -x, 0.0), grid, boundary="no-flux")
    with pytest.raises(ValueError, match="between walls is built for steps with noise"):
        flow.run(grid.gaussian(0.5, 0.1), TIMES)


def test_noise_that_is_narrow_in_one_place_is_refined_there():
    """Geometric noise, one step: ∫ p(x) N(y; x, (0.3 x)² dt) dx, by another quadrature."""
    sde = sg.ItoProcess(lambda x: 0 * x, lambda x: 0.3 * x)
    grid = sg.Grid(0.01, 6.01, cells=600)
    x = grid.nodes.numpy()
    start = np.exp(-(np.log(x) ** 2) / 0.18) / (x * 0.3 * math.sqrt(2 * math.pi))
    p0 = sg.Density(grid.nodes, torch.from_numpy(start)).normalized()
    law = ChainDensity(sde, grid).run(p0, [0.0, 0.01]).final
    for i in (40, 90, 240):
        y = x[i]

        def integrand(u, y=y):
            p = math.exp(-(math.log(u) ** 2) / 0.18) / (u * 0.3 * math.sqrt(2 * math.pi))
            return p * float(normal_density(np.array(y), u, (0.03 * u) ** 2))

        near = [y * (1 + c * 0.03) for c in (-8, -3, 0, 3, 8)]
        exact = integrate.quad(integrand, near[0], near[-1], points=near[1:-1], epsabs=1e-12)[0]
        assert float(law.p[i]) == pytest.approx(exact, abs=1e-6)


class TwoStep(FixedStep):
    """Adams-Bashforth, which remembers the last drift."""

    def begin(self, sde, nodes):
        return nodes, None

    def step(self, sde, x, i, noise, memory):
        nodes, before = memory
        f, dt = sde.drift(x, nodes[i]), nodes[i + 1] - nodes[i]
        after = update(x, 1.5 * f - 0.5 * (f if before is None else before), dt)
        if noise is not None:
            after = sde.add_noise(after, x, nodes[i], dt.abs().sqrt(), noise)
        return after, (nodes, f)


GRID = sg.Grid(-6.0, 6.0, cells=200)
OU = sg.OrnsteinUhlenbeck()
TIMES = [0.0, 0.1, 0.2]


def test_what_has_no_such_law_is_refused_by_name():
    corrected = ChainDensity(SAMPLERS["reverse SDE"][0], GRID, sg.PredictorCorrector())
    with pytest.raises(ValueError, match="PredictorCorrector draws more than one normal a step"):
        corrected.run(GRID.gaussian(0.0, 1.0), SDE.time_grid(5))
    with pytest.raises(ValueError, match="TwoStep remembers earlier steps"):
        ChainDensity(OU, GRID, TwoStep()).run(GRID.gaussian(0.0, 1.0), TIMES)
    with pytest.raises(TypeError, match="solver is TorchDiffEq: what an adaptive one, or"):
        ChainDensity(OU, GRID, sg.TorchDiffEq("dopri5"))
    well = sg.ItoProcess(lambda x: x - x**3, 0.7)
    with pytest.raises(ValueError, match=r"Heun is not affine in .* Heun where there is no"):
        ChainDensity(well, sg.Grid(-3.0, 3.0, 200), sg.Heun()).run(0.0, TIMES)


def test_grids_that_do_not_hold_the_density_are_refused():
    with pytest.raises(ValueError, match="needs uniform nodes"):
        ChainDensity(OU, sg.Grid.sinh(-6.0, 6.0, 100, width=1.0))
    with pytest.raises(
        ValueError, match=r"step 0 of EulerMaruyama, at t = 0: the grid is too coa"
    ):
        ChainDensity(OU, GRID).run(GRID.gaussian(0.0, 0.06), TIMES)
    narrow = sg.Grid(-1.5, 1.5, cells=200)
    with pytest.raises(
        ValueError, match=r"an end of the grid \[-1.5, 1.5\] is 0\.\d+ of its peak"
    ):
        ChainDensity(OU, narrow).run(0.0, [0.0, 0.5, 1.0])
    with pytest.warns(UserWarning, match="the grid cuts it"):
        ChainDensity(sg.OrnsteinUhlenbeck(1.0, 0.0, 0.42), narrow).run(
            0.0, torch.linspace(0, 2, 21)
        )
    with pytest.raises(ValueError, match="too narrow for nodes"):
        ChainDensity(OU, GRID).run(GRID.gaussian(0.0, 1.0), [0.0, 1e-9])


def test_starts_that_are_no_density_are_refused():
    chain = ChainDensity(OU, GRID)
    number = chain.run(1.0, TIMES)
    for start in (np.float32(1.0), torch.tensor(1.0), np.int64(1)):
        torch.testing.assert_close(chain.run(start, TIMES).p, number.p, rtol=0, atol=0)
    with pytest.raises(ValueError, match="p0 must have mass 1, but has 2"):
        chain.run(sg.Density(GRID.nodes, 2 * GRID.gaussian(0.0, 1.0).p), TIMES)
    with pytest.raises(ValueError, match="p0 must be finite and ≥ 0"):
        chain.run(sg.Density(GRID.nodes, -GRID.gaussian(0.0, 1.0).p), TIMES)
    with pytest.raises(ValueError, match="p0 lives on 101 nodes"):
        chain.run(sg.Grid(-6.0, 6.0, 100).gaussian(0.0, 1.0), TIMES)
    with pytest.raises(TypeError, match="p0 must be a Density or a number"):
        chain.run("here", TIMES)
    flow = ChainDensity(sg.ItoProcess(lambda x: -x, 0.0), GRID)
    with pytest.raises(ValueError, match="a start at a point stays a point"):
        flow.run(1.0, TIMES)
    folding = ChainDensity(sg.ItoProcess(lambda x: 10 * torch.cos(x), 0.0), GRID)
    with pytest.raises(ValueError, match="folds the line over itself"):
        folding.run(GRID.gaussian(0.0, 1.0), [0.0, 1.0])
