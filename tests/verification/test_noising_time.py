"""Noising times and mismatches against closed forms, and the three ways against each other."""

import math

import pytest
import torch
from scipy import optimize

import sdegen as sg

F64 = torch.float64
WELL = sg.ItoProcess(lambda x: x - x**3, 1.0, autonomous=True)  # D = ½
NARROW = sg.GaussianMixture([1.0], [-1.0], stds=0.2)


def gaussian(mean2, variances):
    """KL(N(m, diag v) ‖ N(0, I)) of |m|² and v."""
    return 0.5 * (mean2 + sum(v - 1 - math.log(v) for v in variances))


def test_from_a_point_an_ornstein_uhlenbeck_process_is_exact():
    sde = sg.OrnsteinUhlenbeck(0.7, 0.4, math.sqrt(2 * 0.7))  # at rest N(0.4, 1)
    start = torch.tensor([[2.4, 0.4, -0.6]], dtype=F64)

    def kl(t):
        left = math.exp(-2 * 0.7 * t)
        return gaussian(5.0 * left, [1 - left] * 3)

    found = sg.noising_time(sde, start, tolerance=1e-3)
    expected = optimize.brentq(lambda t: kl(t) - 1e-3, 0.1, 20.0)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert found.slowest_rate == pytest.approx(0.7)
    assert found.kl_at(1.0) == pytest.approx(kl(1.0), rel=1e-10)
    assert found.standard_error == 0
    with pytest.warns(
        sg.AccuracyWarning, match=rf"at t = 1: .*{kl(1.0):.3g} nats.*{expected:.4g}"
    ):
        found.warn_before(1.0)
    found.warn_before(1.01 * expected)


def test_a_gaussian_start_and_a_gaussian_path():
    std = 1.7
    law = sg.GaussianMixture([1.0], [[0.5, -0.3]], stds=std)
    path = sg.VP(sg.LinearBeta(0.1, 20.0))
    found = sg.noising_time(path, law, tolerance=1e-3)
    a = float(path.alpha(found.time)) ** 2
    assert gaussian(0.34 * a, [1 + a * (std**2 - 1)] * 2) == pytest.approx(1e-3, rel=1e-4)
    assert found.slowest_rate is None
    with pytest.raises(ValueError, match=r"t_max = 1: KL.*schedule with more noise"):
        sg.noising_time(sg.VP(sg.ConstantBeta(1.0)), law)
    # in phase space, by the slower of two modes: k = 1, γ = 1 has λ = ½
    spring = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=1.0)
    start = spring.state(torch.full((1, 1), 2.0, dtype=F64), torch.zeros(1, 1, dtype=F64))
    found = sg.noising_time(spring, start)
    law = sg.LinearSDE.of(spring, 2).moments([2.0, 0.0], 0.0, [0.0, found.time]).final
    m, C = law.mean, law.covariance
    exact = 0.5 * float(m @ m + C.trace() - 2 - torch.logdet(C))
    assert exact == pytest.approx(1e-2, rel=1e-4)
    assert found.slowest_rate == pytest.approx(0.5)


def test_of_a_mixture_the_exact_law_is_fokker_planck_s():
    law = sg.GaussianMixture([0.3, 0.7], [-1.5, 1.0], stds=[0.2, 0.4])
    sde = sg.OrnsteinUhlenbeck()
    exact = sg.noising_time(sde, law, tolerance=0.01)
    solved = sg.noising_time(sde, law, tolerance=0.01, grid=sg.Grid(-8.0, 8.0, 400))
    assert solved.slowest_rate == pytest.approx(1.0, rel=1e-6)
    assert abs(exact.time - solved.time) < 4.4 * exact.standard_error + 1e-3
    assert exact.standard_error < 0.01
    data = law.sample(400, rng=0, dtype=F64)
    samples = sg.noising_time(sde, data, tolerance=0.01)
    assert samples.time == pytest.approx(exact.time, rel=0.2)  # what 400 samples tell of a law


def test_a_double_well_s_rate_and_time():
    found = sg.noising_time(WELL, NARROW, tolerance=0.01)
    assert found.slowest_rate == pytest.approx(0.423, abs=5e-4)
    assert found.method == "Fokker–Planck"
    # at the end the divergence falls as e^{−2 λ t}
    late = [found.kl_at(t) for t in (found.time, found.time + 1)]
    assert math.log(late[0] / late[1]) == pytest.approx(2 * found.slowest_rate, rel=0.01)
    grid = sg.Grid.covering(WELL)
    solver = sg.FokkerPlanck(WELL, grid)
    at_two = solver.solve(grid.gaussian(-1.0, 0.2), [0.0, 2.0]).final
    prior = sg.DensityPrior(solver.stationary())
    mismatch = sg.prior_mismatch(at_two, prior)
    assert float(mismatch) == pytest.approx(found.kl_at(2.0), rel=1e-4)
    with pytest.warns(sg.AccuracyWarning, match="has not been reached: KL"):
        sg.prior_mismatch(at_two, prior, tolerance=0.01)


def test_a_simulation_tells_the_time_with_its_error():
    times = torch.linspace(0.0, 16.0, 33, dtype=F64)
    exact = sg.noising_time(WELL, NARROW, tolerance=0.02)
    found = sg.noising_time(
        WELL, NARROW, tolerance=0.02, times=times, solver=sg.EulerMaruyama(20), rng=1
    )
    assert 0 < found.standard_error < 0.1 * exact.time
    assert abs(found.time - exact.time) < 4.4 * found.standard_error
    assert found.slowest_rate == pytest.approx(exact.slowest_rate, rel=0.15)
    with pytest.raises(sg.SolverError, match=r"not at rest.*longer times"):
        sg.noising_time(WELL, NARROW, times=times / 12, solver=sg.EulerMaruyama(4))


def test_in_the_plane_a_rotation_s_rate_and_time_are_those_of_its_law():
    """−A = ((1, −2), (2, 1)) has the rates 1 ± 2i: KL falls as e^{−2t}, however fast it turns."""
    rotation = sg.LinearSDE([[1.0, -2.0], [2.0, 1.0]], 1.0)
    law = sg.GaussianMixture([1.0], [[1.0, 0.5]], stds=0.3)
    exact = sg.noising_time(rotation, law, tolerance=0.01)
    grid = sg.Grid(-4.5, 4.5, 40)
    found = sg.noising_time(rotation, law, tolerance=0.01, grid=(grid, grid))
    assert found.time == pytest.approx(exact.time, rel=1e-4)
    assert found.slowest_rate == pytest.approx(1.0, rel=1e-3)  # of KL from 1/100 to 1/3000
    for t in (0.5, 1.0, 3.0):
        assert found.kl_at(t) == pytest.approx(exact.kl_at(t), rel=1e-4)
    solver = sg.FokkerPlanck2D(rotation, (grid, grid))
    same = sg.noising_time(rotation, solver.gaussian((1.0, 0.5), [[0.09, 0.0], [0.0, 0.09]]))
    assert same.time == pytest.approx(found.time, rel=1e-5)
    # many points: a share of a cell wider each way
    points = law.sample(400, rng=0, dtype=F64)
    samples = sg.noising_time(rotation, points, grid=(grid, grid))
    assert samples.time == pytest.approx(sg.noising_time(rotation, points).time, rel=0.01)


@pytest.mark.slow
def test_in_phase_space_the_rate_is_that_of_the_position():
    """Of a particle that is overdamped, λ = (γ − √(γ² − 4k))/2 = ½ at γ = 2.5."""
    trap = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=2.5)
    wide = sg.Grid(-5.5, 5.5, 40)
    found = sg.noising_time(
        trap, sg.GaussianMixture([1.0], [[1.0, 0.0]], stds=0.5), grid=(wide, wide)
    )
    assert found.slowest_rate == pytest.approx(0.5, rel=0.02)


@pytest.mark.slow
def test_in_the_plane_a_drift_without_potential_agrees_with_its_autocorrelation():
    def drift(x):  # Maier and Stein 1993
        a, b = x.unbind(1)
        return torch.stack([a - a**3 - 10 * a * b**2, -(1 + a**2) * b], 1)

    sde = sg.ItoProcess(drift, 0.7)
    law = sg.GaussianMixture([1.0], [[-1.0, 0.0]], stds=0.2)
    grids = (sg.Grid(-3.2, 3.2, 56), sg.Grid(-3.2, 3.2, 64))
    exact = sg.noising_time(sde, law, tolerance=0.01, grid=grids)
    times = torch.linspace(0, 16, 41, dtype=F64)
    found = sg.noising_time(sde, law, times=times, solver=sg.EulerMaruyama(16), rng=1)
    assert abs(found.time - exact.time) < 4.4 * found.standard_error
    assert found.slowest_rate == pytest.approx(exact.slowest_rate, rel=0.15)


def test_mismatches_of_samples():
    n = 4000
    prior = sg.GaussianPrior([0.0, 0.0])
    x = sg.GaussianPrior([0.3, 0.0], [[1.3, 0.2], [0.2, 0.8]]).sample(n, rng=0, dtype=F64)
    exact = 0.5 * (0.09 + 2.1 - 2 - math.log(1.3 * 0.8 - 0.04))
    found = sg.prior_mismatch(x, prior)
    assert abs(found.kl - exact) < 4.4 * found.standard_error + 0.01
    against = sg.SamplePrior(prior.sample(n, rng=1, dtype=F64))
    drawn = sg.prior_mismatch(x, against)
    assert abs(drawn.kl - exact) < 4.4 * drawn.standard_error + 0.01
    # a mixture of the prior's moments, which only its shape betrays
    mixture = sg.GaussianMixture([0.5, 0.5], [-0.9, 0.9], stds=math.sqrt(0.19))
    grid = sg.Grid(-5.0, 5.0, 1000)
    nodes = grid.nodes[:, None]
    p = mixture.log_prob(nodes).exp()
    line = sg.GaussianPrior([0.0])
    exact = float((p * (mixture.log_prob(nodes) - line.log_prob(nodes))).sum() * 0.01)
    found = sg.prior_mismatch(mixture.sample(n, rng=2, dtype=F64), line)
    assert abs(found.kl - exact) < 4.4 * found.standard_error + 0.01
    density = sg.Density(grid.nodes, p).normalized()
    assert sg.prior_mismatch(density, line).kl == pytest.approx(exact, rel=1e-4)
    assert sg.prior_mismatch(density, sg.DensityPrior(density)).kl == pytest.approx(0.0, abs=1e-9)
    wide = torch.randn(n, 8, generator=torch.Generator().manual_seed(3), dtype=F64) * 1.2
    many = sg.prior_mismatch(wide, sg.GaussianPrior(torch.zeros(8)))
    assert "lower bound" in many.method
    assert abs(many.kl - 4 * (0.44 - math.log(1.44))) < 4.4 * many.standard_error


@pytest.mark.parametrize(
    "sde",
    [
        sg.OrnsteinUhlenbeck(-1.0),
        sg.BrownianMotion(),
        sg.ItoProcess(lambda x: x, 1.0, autonomous=True),
        sg.LinearSDE([[0.0, -1.0], [1.0, 0.0]], 1.0),
    ],
    ids=["unstable", "Brownian", "f = +x", "rotation"],
)
def test_what_never_rests_is_refused(sde):
    start = torch.ones(1, 2 if isinstance(sde, sg.LinearSDE) else 1, dtype=F64)
    with pytest.raises(ValueError, match=f"{type(sde).__name__} has no stationary law"):
        sg.noising_time(sde, start)


def test_other_requests_are_refused():
    with pytest.raises(sg.NotNormalizableError):
        sg.noising_time(sg.ItoProcess(torch.sin, 1.0, autonomous=True), 1.0)
    plane = sg.StationarySDE(lambda x: -(x**4).sum(1))
    with pytest.raises(ValueError, match="times are needed"):
        sg.noising_time(plane, torch.zeros(1, 2))
    pair = (sg.Grid(-4.0, 4.0, 20), sg.Grid(-4.0, 4.0, 20))
    turning = sg.LinearSDE([[1.0, -1.0], [1.0, 1.0]], 1.0)
    with pytest.raises(ValueError, match="states of two numbers, but start has 1"):
        sg.noising_time(WELL, 1.0, grid=pair)
    with pytest.raises(ValueError, match="leave times out"):
        sg.noising_time(turning, torch.zeros(1, 2), grid=pair, times=torch.linspace(0, 9, 10))
    with pytest.raises(ValueError, match="a Grid, or a pair of them"):
        sg.noising_time(turning, torch.zeros(1, 2), grid=pair[:1])
    with pytest.raises(sg.SolverError, match="that of the grid in the plane"):
        sg.noising_time(turning, torch.zeros(1, 2), grid=pair, tolerance=1e-7)
    with pytest.raises(ValueError, match="forward SDE"):
        sg.noising_time(sg.DDPM.discretize(sg.VP(sg.LinearBeta(0.1, 20.0)), 4), 1.0)
    with pytest.raises(ValueError, match="beyond the grid"):
        sg.noising_time(WELL, torch.tensor([[9.0], [1.0]]), grid=sg.Grid(-4.0, 4.0, 100))
    with pytest.raises(sg.SolverError, match="larger tolerance"):
        sg.noising_time(WELL, 1.0, tolerance=1e-12)
    with pytest.raises(ValueError, match="several times"):
        sg.prior_mismatch(torch.randn(100, 1).repeat(2, 1), sg.GaussianPrior([0.0]))
    assert sg.prior_mismatch(torch.zeros(200, 1), sg.GaussianPrior([0.0])).kl == math.inf
    grid = sg.Grid(-4.0, 4.0, 100)
    with pytest.raises(TypeError, match="samples of the density"):
        sg.prior_mismatch(grid.gaussian(0.0, 1.0), sg.SamplePrior(torch.randn(9, 1)))
