"""Reverse kernels against laws that are known: Gaussians, mixtures, small steps."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.ConstantBeta(1.0, t_max=5.0))
MIXTURE = sg.GaussianMixture([0.3, 0.7], [-1.0, 0.8], stds=[0.3, 0.5])
WELL = sg.ItoProcess(lambda x: x - x**3, 1.0, autonomous=True)


@pytest.mark.parametrize(
    "sde",
    [
        VP,
        sg.VE(sg.GeometricSigma(0.01, 5.0)),
        sg.OrnsteinUhlenbeck(1.3, 0.4, 0.8),
        sg.BrownianMotion(0.7),
        sg.LinearSDE(lambda t: [[1 + t]], 0.9, lambda t: [torch.cos(t)], time_range=(0.0, 3.0)),
    ],
    ids=["VP", "VE", "OU", "Brownian", "of time"],
)
def test_of_a_gaussian_it_is_gaussian(sde):
    t, dt, mean, std = 0.8, 0.3, 0.5, 0.6
    q = sg.reverse_kernel(sde, sg.GaussianMixture([1.0], [mean], stds=std), t, dt)
    until, step = sde.transition(0.0, t - dt), sde.transition(t - dt, t)
    phi, shift, spread = (float(v) for v in (step.matrix, step.shift, step.covariance))
    before = sde.moments(mean, std**2, [0.0, t - dt]).final
    m, v = float(before.mean), float(before.covariance)
    gain = phi * v / (phi**2 * v + spread)
    expected = m + gain * (q.x - phi * m - shift)
    assert float((q.mean - expected).abs().max()) < 1e-7
    assert float((q.variance / (v * (1 - gain * phi)) - 1).abs().max()) < 1e-7
    assert q.mean_kl < 1e-11
    assert q.mean_variance + q.variance_of_mean == pytest.approx(v, rel=1e-10)
    assert q.total_variance == pytest.approx(v, rel=1e-10)
    assert float((q.beta - spread).abs().max()) == 0
    # of a point, what DDPM's smaller variance assumes
    point = sg.reverse_kernel(sde, 0.2, t, dt)
    assert point.beta_tilde == q.beta_tilde
    assert float((point.variance / q.beta_tilde - 1).abs().max()) < 1e-7
    assert until.covariance > 0


def posterior_moments(mixture, t, dt, x):
    """Mean, variance, skewness and kurtosis of q(x_{t−dt} | x_t): an explicit mixture."""
    before = mixture.noised(VP).at(t - dt)
    step = VP.transition(t - dt, t)
    phi, spread = float(step.matrix), float(step.covariance)
    m, v = before.means[:, 0], before.variances[:, 0]
    seen = phi**2 * v + spread
    log_w = before.weights.log() - 0.5 * (x[:, None] - phi * m) ** 2 / seen - 0.5 * seen.log()
    w = torch.softmax(log_w, 1)
    means, variances = m + phi * v / seen * (x[:, None] - phi * m), v * spread / seen
    mean = (w * means).sum(1)
    off = means - mean[:, None]
    second = (w * (variances + off**2)).sum(1)
    third = (w * (3 * off * variances + off**3)).sum(1)
    fourth = (w * (3 * variances**2 + 6 * off**2 * variances + off**4)).sum(1)
    return mean, second, third / second**1.5, fourth / second**2 - 3


@pytest.mark.parametrize("dt", [0.005, 0.1, 0.5])
def test_of_a_mixture_it_is_the_posterior_mixture(dt):
    q = sg.reverse_kernel(VP, MIXTURE, 1.0, dt)
    mean, variance, skewness, kurtosis = posterior_moments(MIXTURE, 1.0, dt, q.x)
    assert float((q.mean - mean).abs().max()) < 1e-7
    assert float((q.variance / variance - 1).abs().max()) < 1e-6
    assert float((q.skewness - skewness).abs().max()) < 1e-6
    assert float((q.kurtosis - kurtosis).abs().max()) < 1e-5
    # total variance, within x_0 and between: β̃ and what is left of x_0
    beta = 1 - math.exp(-dt)
    assert float((q.beta / beta - 1).abs().max()) < 1e-12
    assert q.beta_tilde == pytest.approx(beta * (1 - math.exp(dt - 1)) / (1 - math.exp(-1.0)))
    assert q.beta_tilde < float(q.variance.min())
    assert q.kl_with(q.variance) == pytest.approx(q.mean_kl, rel=1e-9)
    assert min(q.kl_with(q.beta), q.kl_with(q.beta_tilde)) > q.mean_kl


def test_propagated_kernels_are_the_exact_ones():
    trap = sg.ItoProcess(lambda x: -0.5 * x, 1.0, autonomous=True)  # VP, as a drift of one's own
    q = sg.reverse_kernel(trap, MIXTURE, 1.0, 0.1, grid=sg.Grid(-6.0, 6.0, 10))
    mean, variance, skewness, kurtosis = posterior_moments(MIXTURE, 1.0, 0.1, q.x)
    assert float((q.mean - mean).abs().max()) < 1e-6
    assert float((q.variance / variance - 1).abs().max()) < 1e-5
    assert float(q.masses @ (q.skewness - skewness).abs()) < 1e-6
    assert float(q.masses @ (q.kurtosis - kurtosis).abs()) < 1e-5
    assert float(q.error) < 1e-8
    assert q.beta_tilde is None
    exact = sg.reverse_kernel(VP, MIXTURE, 1.0, 0.1)
    assert float((q.beta_tilde_local / exact.beta_tilde - 1).abs().max()) < 1e-9
    assert bool((exact.beta_tilde_local == exact.beta_tilde).all())
    assert float((q.beta / (1 - math.exp(-0.1)) - 1).abs().max()) < 1e-7


@pytest.mark.parametrize(
    ("drift", "noise"),
    [(lambda x: x - x**3, lambda x: 1 + 0 * x), (lambda x: -x, lambda x: 1 + 0.2 * x.sin())],
    ids=["nonlinear drift", "multiplicative noise"],
)
def test_of_a_point_the_linearised_smaller_variance_is_the_true_one_at_small_times(drift, noise):
    """β̃ of nonlinear noising depends on x_0: linearised at x_t it is q's of a point, as t → 0."""
    sde = sg.ItoProcess(drift, noise, autonomous=True)
    off = []
    for t in (0.08, 0.02):
        width = 8 * math.sqrt(t)
        q = sg.reverse_kernel(sde, 0.5, t, t / 4, grid=sg.Grid(0.5 - width, 0.5 + width, 40))
        assert q.beta_tilde is None
        ratio = q.variance / q.beta_tilde_local - 1
        off.append(float((q.masses @ ratio.square()).sqrt()))
        assert q.kl_with(q.beta_tilde_local) < 0.1 * q.kl_with(q.beta)
    # of order t of the drift, √t of g′
    power = math.log(off[0] / off[1]) / math.log(4)
    assert power > 0.45
    assert off[1] < 0.03


def test_a_double_well_is_gaussian_to_third_order_in_the_step():
    start = sg.GaussianMixture([1.0], [0.2], stds=0.5)
    grid = sg.Grid(-3.6, 3.6, 576)
    q = [sg.reverse_kernel(WELL, start, 0.5, dt, grid=grid) for dt in (0.02, 0.01)]
    # b = −f + ∂ log p: its second derivative, from a density that was solved for once more
    p = sg.FokkerPlanck(WELL, grid).solve(sg.Density(grid.nodes, start.log_prob(
        grid.nodes[:, None]).exp()).normalized(), [0.0, 0.5]).final  # fmt: skip
    x, h = p.x, 7.2 / 576
    kept = p.p > 1e-9
    log_p = p.p.clamp(min=1e-300).log()
    third = torch.zeros_like(x)
    third[2:-2] = (log_p[4:] - 2 * log_p[3:-1] + 2 * log_p[1:-3] - log_p[:-4]) / (2 * h**3)
    curved = ((6 * x + third) ** 2 * p.p)[kept].sum() * h
    limits = [12 * one.mean_kl / one.dt**3 / float(curved) for one in q]
    slope = math.log2(q[0].mean_kl / q[1].mean_kl)
    assert slope == pytest.approx(3.0, abs=0.15)
    assert 2 * limits[1] - limits[0] == pytest.approx(1.0, abs=0.03)


def test_multiplicative_noise_is_gaussian_to_first_order():
    noise = sg.ItoProcess(
        lambda x: -x, lambda x: 0.6 + 0.2 * torch.sin(x), noise="multiplicative", autonomous=True
    )
    start = sg.GaussianMixture([1.0], [0.3], stds=0.4)
    grid = sg.Grid(-2.4, 2.8, 10)
    q = [sg.reverse_kernel(noise, start, 0.3, dt, grid=grid) for dt in (0.08, 0.04)]
    limits = []
    for one in q:
        expected = 0.75 * float(one.masses @ (0.2 * one.x.cos()) ** 2)
        limits.append(one.mean_kl / one.dt / expected)
        total = one.mean_variance + one.variance_of_mean
        assert total == pytest.approx(one.total_variance, rel=1e-6)
    assert abs(limits[1] - 1) < abs(limits[0] - 1) < 0.4
    assert 2 * limits[1] - limits[0] == pytest.approx(1.0, abs=0.04)


def test_dynamics_that_change_in_time():
    # VP with β(t) = 0.5 + t, as a drift of one's own
    own = sg.ItoProcess(lambda x, t: -0.5 * (0.5 + t) * x, lambda x, t: (0.5 + t).sqrt())
    path = sg.VP(sg.LinearBeta(0.5, 1.5))
    q = sg.reverse_kernel(own, MIXTURE, 0.9, 0.4, grid=sg.Grid(-5.5, 5.5, 10))
    exact = sg.reverse_kernel(path, MIXTURE, 0.9, 0.4)
    assert q.mean_kl == pytest.approx(exact.mean_kl, rel=1e-4)
    assert q.mean_variance == pytest.approx(exact.mean_variance, rel=1e-6)


@pytest.mark.parametrize(
    ("sde", "law", "t", "dt", "message"),
    [
        (VP, MIXTURE, 1.0, 1.5, r"dt must lie in \(0, t\]"),
        (VP, 0.3, 1.0, 1.0, r"dt must lie in \(0, t\)"),
        (WELL, MIXTURE, 1.0, 0.1, "grid is needed"),
        (sg.ItoProcess(lambda x: -x, 0.0), MIXTURE, 1.0, 0.1, "no noise"),
        (sg.ReverseSDE(VP, MIXTURE.noised(VP).score), MIXTURE, 1.0, 0.1, "forward SDE"),
        (sg.DDPM.discretize(VP, 4), MIXTURE, 1.0, 0.1, "forward SDE"),
        (VP, sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=1.0), 1.0, 0.1, "one dimension"),
        (sg.LinearSDE([[1.0, 0.0], [0.0, 1.0]], 1.0), MIXTURE, 1.0, 0.1, "one dimension"),
    ],
    ids=["late", "point", "grid", "flow", "reverse", "chain", "law of two", "two"],
)
def test_what_has_no_reverse_kernel_is_refused(sde, law, t, dt, message):
    with pytest.raises(ValueError, match=message):
        sg.reverse_kernel(sde, law, t, dt)


def test_noise_that_vanishes_and_steps_that_are_too_short_are_refused():
    root = sg.ItoProcess(lambda x: 1 - x, lambda x: x.clamp(min=0).sqrt(), autonomous=True)
    with pytest.raises(ValueError, match="vanishes"):
        sg.reverse_kernel(root, MIXTURE, 1.0, 0.1, grid=sg.Grid(0.0, 8.0, 100))
    with pytest.raises(sg.SolverError, match="take a longer step"):
        sg.reverse_kernel(VP, MIXTURE, 1.0, 1e-9)
    jumps = sg.JumpDiffusion(sg.OrnsteinUhlenbeck(), sg.CompoundPoisson(1.0, 0.5))
    with pytest.raises(ValueError, match="jump"):
        sg.reverse_kernel(jumps, MIXTURE, 1.0, 0.1)


def test_a_grid_that_is_too_small_is_told_of():
    with pytest.warns(sg.AccuracyWarning, match="Bayes' normaliser"):
        sg.reverse_kernel(VP, MIXTURE, 1.0, 0.1, grid=sg.Grid(-1.0, 1.0, 100))


def test_the_picture_shows_the_numbers():
    row = [sg.reverse_kernel(VP, MIXTURE, 1.0, dt) for dt in (0.2, 0.1)]
    figure = sg.plots.reverse_kernels({"VP": row})
    kl, kurtosis = (panel.lines[0] for panel in figure.axes)
    assert kl.get_xdata().tolist() == [0.1, 0.2]
    assert list(kl.get_ydata()) == [row[1].mean_kl, row[0].mean_kl]
    assert kurtosis.get_ydata()[1] == float(row[0].masses @ row[0].kurtosis.abs())
    with pytest.raises(ValueError, match="no reverse kernels"):
        sg.plots.reverse_kernels({"VP": []})
