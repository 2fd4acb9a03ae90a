"""Denoising score matching: its minimum, minimiser and times are known for Gaussian data."""

import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.noise import Streams
from sdegen.score.losses import TimeSampler
from sdegen.training import BatchNoise
from tests.score.denoising import denoising_loss

SDES = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "cosine": sg.VP(sg.CosineBeta()),
    "SubVP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(),
}
VP = SDES["VP"]
SPREAD = 0.6


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


class Reads(nn.Module):
    """Puts out what a parameterization must be given for ε̂ = c(t) x_t to be read."""

    def __init__(self, sde, how, c):
        super().__init__()
        self.sde, self.how, self.c = sde, how, c

    def forward(self, x, t):
        alpha, sigma = self.sde.alpha(t)[:, None], self.sde.sigma(t)[:, None]
        x_t = x * (alpha**2 + sigma**2).sqrt()
        eps = self.c(alpha, sigma) * x_t
        return self.how.target((x_t - sigma * eps) / alpha, eps, alpha, sigma)


def best(alpha, sigma):
    """E[ε | x_t] = c x_t for data N(0, SPREAD²)."""
    return sigma / (alpha**2 * SPREAD**2 + sigma**2)


def gaussian(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return SPREAD * torch.randn(n, 1, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", ["VP", "SubVP", "VE"])
def test_the_loss_is_the_same_however_the_output_is_read(name):
    """ε̂ = ½ x_t, through all four readings: the same errors of ε to rounding."""
    sde, x0 = SDES[name], gaussian(200)
    # the middle of the times: at the ends a division by α or σ costs digits, not the formula
    t = torch.linspace(0.1, 0.5, 200, dtype=torch.float64)
    errors = []
    for how in (sg.EpsPrediction(), sg.X0Prediction(), sg.VPrediction(), sg.ScorePrediction()):
        network = Reads(sde, how, lambda alpha, sigma: 0.5)
        errors.append(denoising_loss(sg.ScoreModel(network, sde, how), x0, t, rng=7))
    x_t, eps = sde.perturb(x0, t, rng=7)
    by_hand = (0.5 * x_t - eps).square()[:, 0]
    for found in errors:
        assert torch.allclose(found, by_hand, rtol=1e-9, atol=1e-12)


def test_errors_are_means_over_the_event():
    """ε̂ = 0 leaves ε² of each of 64 numbers: 1, with a standard error √(2/(64 n))."""
    model = sg.ScoreModel(sg.UNet(1, width=8, rng=0), VP)  # untrained: the zero function
    x0 = torch.zeros(500, 1, 8, 8)
    errors = denoising_loss(model, x0, torch.full((500,), 0.3), rng=0).detach()
    assert errors.shape == (500,)
    assert float(errors.mean()) == pytest.approx(1, abs=4.4 * math.sqrt(2 / (64 * 500)))


@pytest.mark.parametrize("t", [0.01, 0.2, 0.9])
def test_the_minimum_is_the_variance_that_is_left(sde, t):
    """Var[ε | x_t] = α² s²/(α² s² + σ²), and (ε − ε̂)² a multiple of χ²₁: error √(2/n)."""
    n = 20_000
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = sde.alpha(time), sde.sigma(time)
    model = sg.ScoreModel(Reads(sde, sg.EpsPrediction(), best), sde)
    errors = denoising_loss(model, gaussian(n), time.expand(n), rng=1)
    left = float(alpha**2 * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2))
    assert float(errors.mean()) == pytest.approx(left, rel=4.4 * math.sqrt(2 / n))


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_minimiser_is_the_linear_score(sde, t):
    """The loss is quadratic in c of ε̂ = c x_t: one Newton step reaches its minimum.

    c* = σ/(α² s² + σ²) with a standard error √(Var[ε|x]/(n Var[x_t])) from regression.
    """
    n = 50_000
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = sde.alpha(time), sde.sigma(time)
    slope = torch.zeros((), dtype=torch.float64, requires_grad=True)
    model = sg.ScoreModel(Reads(sde, sg.EpsPrediction(), lambda *_: slope), sde)
    x0 = gaussian(n)
    loss = denoising_loss(model, x0, time.expand(n), rng=2).mean()
    (gradient,) = torch.autograd.grad(loss, slope, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient, slope)
    found = float(-gradient.detach() / curvature)
    variance = float(alpha**2 * SPREAD**2 + sigma**2)
    left = float(alpha**2) * SPREAD**2 / variance
    error = math.sqrt(left / (n * variance))
    assert found == pytest.approx(float(best(alpha, sigma)), abs=4.4 * error)


def test_simple_times_are_uniform():
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = VP.t_min + (VP.t_max - VP.t_min) * u
    assert torch.allclose(TimeSampler(VP, "simple").quantile(u), expected, rtol=1e-15)


def test_likelihood_times_are_uniform_in_the_noise_to_signal_ratio(sde):
    """To 3e-6 of the range, of which interpolation between 4096 nodes is the cause."""
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    t = TimeSampler(sde, "likelihood").quantile(u)
    level = 2 * (sde.sigma(t) / sde.alpha(t)).log()
    assert t[0].item() == pytest.approx(sde.t_min, rel=1e-12)
    assert t[-1].item() == pytest.approx(sde.t_max, rel=1e-12)
    share = (level - level[0]) / (level[-1] - level[0])
    assert torch.allclose(share, u, rtol=0, atol=3e-6)


def test_the_density_of_likelihood_times_is_the_likelihood_weight(sde):
    """g²/σ² = d log(σ²/α²)/dt, the identity behind it, by autograd."""
    t = torch.linspace(sde.t_min, sde.t_max, 50, dtype=torch.float64, requires_grad=True)
    level = (sde.sigma(t) ** 2 / sde.alpha(t) ** 2).log()
    (rate,) = torch.autograd.grad(level.sum(), t)
    weight = (sde.diffusion_rate(t) / sde.sigma(t)).square().detach()
    assert torch.allclose(rate, weight, rtol=1e-9)


@pytest.mark.parametrize("weighting", ["simple", "likelihood", "flow-matching", "edm"])
def test_times_are_one_in_each_share(weighting):
    """Sorted, the j-th of n lies between the quantiles j/n and (j + 1)/n; offsets differ."""
    sampler, n = TimeSampler(VP, weighting), 16
    edges = sampler.quantile(torch.linspace(0, 1, n + 1, dtype=torch.float64))
    noises = [BatchNoise(Streams(0, "test").block(k), n) for k in range(200)]
    draws = [sampler.quantile(noise.stratified()) for noise in noises]
    for t in draws:
        assert bool((t >= edges[:-1]).all())
        assert bool((t <= edges[1:]).all())
    # the mean of 200 uniform offsets is ½ within 4.4/√(12·200)
    first = torch.stack(draws)[:, 0]
    low, high = edges[0], edges[1]
    if weighting in ("simple", "flow-matching"):
        mean = float(((first - low) / (high - low)).mean())
        assert mean == pytest.approx(0.5, abs=4.4 / math.sqrt(12 * 200))


def test_both_weightings_estimate_their_own_integral():
    """For ε̂ = 0 the error is 1 at every t; for ε̂ = x_t it is (α² s² + (σ − 1)²): a quadrature."""
    n = 40_000
    network = Reads(VP, sg.EpsPrediction(), lambda *_: 1.0)
    model = sg.ScoreModel(network, VP)
    for weighting in ("simple", "likelihood"):
        sampler = TimeSampler(VP, weighting)
        t = sampler.quantile(BatchNoise(Streams(0, "test").block(0), n).stratified())
        errors = denoising_loss(model, gaussian(n, seed=3), t, rng=3)
        u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
        q = sampler.quantile(u)
        exact = (VP.alpha(q) ** 2 * SPREAD**2 + (VP.sigma(q) - 1) ** 2).mean()
        if weighting == "likelihood":  # the same by the weight g²/σ² under dt
            s = torch.logspace(-3, 0, 200_001, dtype=torch.float64)
            weight = (VP.diffusion_rate(s) / VP.sigma(s)).square()
            value = VP.alpha(s) ** 2 * SPREAD**2 + (VP.sigma(s) - 1) ** 2
            direct = torch.trapezoid(weight * value, s) / torch.trapezoid(weight, s)
            assert float(exact) == pytest.approx(float(direct), rel=1e-5)
        standard_error = float(errors.std()) / math.sqrt(n)
        assert float(errors.mean()) == pytest.approx(float(exact), abs=4.4 * standard_error)


def test_edm_times_are_lognormal_in_the_noise(sde):
    """log σ/α ~ N(−1.2, 1.2²) within [t_min, t_max]; interpolated in t between 4096 quantiles."""
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    sampler = TimeSampler(sde, "edm")
    t = sampler.quantile(u)
    normal = torch.distributions.Normal(
        torch.tensor(-1.2, dtype=torch.float64), torch.tensor(1.2, dtype=torch.float64)
    )

    def share(t):
        return normal.cdf((sde.sigma(t) / sde.alpha(t)).log())

    low, high = (share(torch.tensor(end, dtype=torch.float64)) for end in (sde.t_min, sde.t_max))
    assert torch.allclose((share(t) - low) / (high - low), u, rtol=0, atol=1e-6)
    ends = sampler.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == [sde.t_min, sde.t_max]


def test_the_losses_of_flow_matching_and_edm_are_those_of_their_papers():
    """‖û − (ε − x0)‖², and λ(σ) ‖D − x0‖² with λ = (σ² + σ_d²)/(σ σ_d)², of arbitrary networks."""

    class Arbitrary(nn.Module):
        def forward(self, x, clock):
            return torch.sin(2 * x) + clock[:, None].cos() * x

    x0, spread = gaussian(100), 0.6
    flow = sg.ScoreModel(Arbitrary(), SDES["rectified flow"], sg.FlowPrediction())
    t = torch.linspace(0.01, 0.99, 100, dtype=torch.float64)
    x_t, eps = flow.sde.perturb(x0, t, rng=7)
    found = denoising_loss(flow, x0, t, weighting="flow-matching", rng=7)
    velocity = torch.sin(2 * x_t) + t[:, None].cos() * x_t
    assert torch.allclose(found, (velocity - (eps - x0)).square()[:, 0], rtol=1e-9)

    edm = sg.ScoreModel(Arbitrary(), SDES["EDM"], sg.EDMPrediction(spread))
    sigma = torch.logspace(-2, 1.5, 100, dtype=torch.float64)
    x_t, _ = edm.sde.perturb(x0, sigma, rng=7)
    found = denoising_loss(edm, x0, sigma, weighting="edm", rng=7)
    weight = (sigma**2 + spread**2) / (sigma * spread) ** 2
    skip = spread**2 / (sigma**2 + spread**2)
    out, c_in = sigma * spread / (sigma**2 + spread**2).sqrt(), (sigma**2 + spread**2).rsqrt()
    scaled = c_in[:, None] * x_t
    f = torch.sin(2 * scaled) + (sigma.log() / 4).cos()[:, None] * scaled
    denoised = skip[:, None] * x_t + out[:, None] * f
    expected = weight * (denoised - x0).square()[:, 0]
    assert torch.allclose(found, expected, rtol=1e-9)


def test_a_network_of_zeros_costs_one_by_edm_and_the_spread_of_the_velocity_by_flow_matching():
    """E F² = 1 for data of σ_d, E(ε − x0)² = 1 + s²; squares of normals: error √(2/n)."""
    n = 40_000
    network = sg.MLP(1, width=8, rng=0).double()  # untrained: the zero function
    for path, how, weighting, expected in (
        (SDES["EDM"], sg.EDMPrediction(SPREAD), "edm", 1.0),
        (SDES["rectified flow"], sg.FlowPrediction(), "flow-matching", 1 + SPREAD**2),
    ):
        t = TimeSampler(path, weighting).quantile(
            BatchNoise(Streams(0, "test").block(0), n).stratified()
        )
        model = sg.ScoreModel(network, path, how)
        with torch.no_grad():
            errors = denoising_loss(model, gaussian(n), t, weighting=weighting, rng=4)
        assert float(errors.mean()) == pytest.approx(expected, rel=4.4 * math.sqrt(2 / n))


@pytest.mark.parametrize("weighting", ["likelihood", "edm"])
def test_a_path_that_answers_in_single_precision_is_sampled_in_double(weighting):
    class Single(sg.GaussianPath):
        def __init__(self):
            super().__init__(1e-3, 1.0)

        def alpha(self, t):
            return torch.ones_like(torch.as_tensor(t)).float()

        def sigma(self, t):
            return (2 * torch.as_tensor(t)).float()

    u = torch.linspace(0, 1, 5, dtype=torch.float64)
    t = TimeSampler(Single(), weighting).quantile(u)
    if weighting == "likelihood":  # uniform in log σ/α = log 2t: t = t_min^(1 − u)
        torch.testing.assert_close(t, 1e-3 ** (1 - u), rtol=1e-4, atol=0)
    assert t.dtype == torch.float64
    assert bool((t.diff() > 0).all())
