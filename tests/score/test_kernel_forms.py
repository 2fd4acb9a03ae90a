"""Score models of processes with kernels of modes and matrices: forms, training, files.

Statistical tests have a false-alarm rate of at most 1e-5 each.
"""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
SDES = {
    "OrnsteinUhlenbeck": (sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9), (2,)),
    "symmetric": (sg.LinearSDE([[1.0, 0.4], [0.4, 0.8]], 0.6, [0.5, -0.2]), (2,)),
    "full": (sg.LinearSDE([[1.0, 0.4], [-0.3, 0.8]], 0.6, [0.5, -0.2]), (2,)),
    "damped": (sg.UnderdampedLangevin(sg.Quadratic(4.0), 4.0, 0.7), (2,)),
    "heat": (sg.StochasticHeat((2, 2), 0.7, 0.5), (2, 2)),
    "blurring": (sg.Blurring((2, 2), 3.0), (2, 2)),
}
EVERY = (sg.EpsPrediction(), sg.X0Prediction(), sg.ScorePrediction())
OF_MODES = (sg.VPrediction(), sg.FlowPrediction(), sg.EDMPrediction(1.0))


def model_of(name, how, seed=0):
    """A model in float64 whose network is no zero function."""
    sde, event = SDES[name]
    numbers = torch.zeros(event).numel() * (2 if sde.phase_space else 1)
    network = sg.MLP(numbers, width=16, depth=1, rng=seed).double()
    g = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=g, dtype=F64)
    model = sg.ScoreModel(network, sde, how)
    model.event_shape = event
    return model


@pytest.mark.parametrize("how", [*EVERY, *OF_MODES], ids=repr)
@pytest.mark.parametrize("name", SDES)
def test_score_estimates_and_errors_are_of_one_kernel(name, how):
    """score = −L⁻ᵀ ε̂, x_t = Φ x̂0 + m + L ε̂, and the error of a loss is ε̂ − ε."""
    if name in ("full", "damped") and how in OF_MODES:
        with pytest.raises(ValueError, match=r"needs numbers α and σ .* is of matrices: take one"):
            model_of(name, how)
        return
    model = model_of(name, how)
    kernel, form = model.sde.noise_kernel, model.form
    g = torch.Generator().manual_seed(1)
    x0 = torch.randn(6, *SDES[name][1], generator=g, dtype=F64)
    low, high = model.times
    t = low + (0.2 * high - low) * torch.rand(6, generator=g, dtype=F64)
    eps = torch.randn(form.like_state(x0).shape, generator=g, dtype=F64)
    x = form.noised(model, x0, t, eps)
    torch.testing.assert_close(x, kernel.mean(x0, t) + kernel.spread(eps, t))
    there, noise = model.form.estimates(model, x, t)
    torch.testing.assert_close(kernel.mean(there, t) + kernel.spread(noise, t), x)
    error, off = form.error(model, x0, t, eps, in_output=False), noise - eps
    score = -kernel.pull_back(noise, t)
    if model.sde.phase_space:  # of the velocities alone
        off[:, 0], score[:, 0] = 0, 0
    torch.testing.assert_close(error, off, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(model.score(x, t), score, rtol=1e-8, atol=1e-8)
    at = model.score.precompute(t)
    for i in range(2):
        torch.testing.assert_close(at(x, i)[i], score[i], rtol=1e-8, atol=1e-8)
    single = model.score(x.float(), t[0])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single[0].double(), score[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", [*EVERY, *OF_MODES], ids=repr)
def test_a_kernel_of_equal_numbers_is_the_scalar_form_to_rounding(how):
    """Ornstein-Uhlenbeck to N(0, 1) is VP of a constant β: the same outputs, errors and scores."""
    network = model_of("OrnsteinUhlenbeck", EVERY[0]).network
    vp = sg.ScoreModel(network, sg.VP(sg.ConstantBeta(2.0)), how)
    ou = sg.ScoreModel(network, sg.OrnsteinUhlenbeck(1.0), how, times=(1e-3, 1.0))
    g = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 5, 2, generator=g, dtype=F64)
    t = torch.rand(5, generator=g, dtype=F64) + 0.01
    for one in (t, t[0]):
        torch.testing.assert_close(vp.score(x0, one), ou.score(x0, one), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(vp.x0(x0, one), ou.x0(x0, one), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(vp.v(x0, one), ou.v(x0, one), rtol=1e-12, atol=1e-12)
    for in_output in (False, True):
        pair = [m.form.error(m, x0, t, eps, in_output=in_output) for m in (vp, ou)]
        torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SDES)
def test_samples_begin_from_the_law_at_rest(name):
    model = model_of(name, sg.EpsPrediction())
    start = model.draw_prior(40_000, rng=0, dtype=F64)
    sde = model.sde
    x, n = start.flatten(1), len(start)
    if name == "blurring":
        mean, covariance = torch.zeros(4, dtype=F64), torch.eye(4, dtype=F64)
    else:
        linear = sg.LinearSDE.of(sde, x.shape[1])
        mean, covariance = linear.stationary_mean(), linear.stationary_covariance()
    found = (x - mean).T @ (x - mean) / n
    v = covariance.diag()
    spread = ((covariance.square() + v[:, None] * v) / n).sqrt()
    assert float(((found - covariance) / spread).abs().max()) < 5
    assert float(((x.mean(0) - mean) / (v / n).sqrt()).abs().max()) < 5
    law = model.form.prior_law(model)
    exact = torch.distributions.MultivariateNormal(mean, covariance)
    torch.testing.assert_close(law.log_prob(start[:5]), exact.log_prob(x[:5]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", SDES)
def test_a_file_holds_the_process_and_its_times(name, tmp_path):
    model = model_of(name, sg.EpsPrediction())
    if name != "blurring":
        model = sg.ScoreModel(model.network, model.sde, times=(0.01, 3.0))
    model.event_shape = SDES[name][1]
    model.save(tmp_path / "model.safetensors")
    back = sg.ScoreModel.load(tmp_path / "model.safetensors")
    assert type(back.sde) is type(model.sde)
    assert back.times == model.times
    x = model.draw_prior(3, rng=0, dtype=F64)
    assert torch.equal(back.draw_prior(3, rng=0, dtype=F64), x)
    assert torch.equal(back.score(x, 0.5), model.score(x, 0.5))


@pytest.mark.parametrize("name", ["damped", "heat"])
def test_training_on_a_gaussian_finds_its_linear_score(name):
    """Data N(μ, C): the learned score against the exact one, relative L² error over p_t."""
    sde, event = SDES[name]
    d = torch.zeros(event).numel()
    g = torch.Generator().manual_seed(0)
    root = torch.eye(d, dtype=F64) + 0.2 * torch.randn(d, d, generator=g, dtype=F64)
    data = sg.GaussianMixture([1.0], [[0.3] * d], covariances=0.5 * (root @ root.T)[None])
    law = data.noised(sde)
    numbers = d * (2 if sde.phase_space else 1)
    model = sg.ScoreModel(sg.MLP(numbers, width=32, depth=1, rng=0), sde)
    x = data.sample(20_000, rng=1).reshape(-1, *event)
    config = sg.TrainConfig(
        steps=400, batch_size=512, learning_rate=1e-2, ema_decay=0.98, weighting="simple"
    )
    sg.train(model, x, config, rng=2)
    for t in (0.3, 1.0):
        at = law.sample(2_000, t, rng=3)
        exact, learned = law.score(at, t), model.score(at, t).detach()
        if sde.phase_space:
            exact = exact * torch.tensor([0.0, 1.0])[:, None]
        assert float((learned - exact).square().mean() / exact.square().mean()) < 0.07**2  # 0.05


def test_times_come_of_the_slowest_rate_or_are_asked_for():
    model = model_of("OrnsteinUhlenbeck", sg.EpsPrediction())
    low, high = model.times
    assert high == 5 / 1.3
    kernel = model.sde.noise_kernel
    sizes = [float(kernel.sigma(torch.tensor(t, dtype=F64))) for t in (low, high)]
    assert abs(sizes[0] / sizes[1] - 0.01) < 1e-9
    with pytest.raises(ValueError, match="does not say when its noising has ended"):
        sg.ScoreModel(sg.MLP(2, rng=0), sg.BrownianMotion(1.0))
    brown = sg.ScoreModel(sg.MLP(2, rng=0), sg.BrownianMotion(2.0), times=(1e-4, 25.0))
    assert abs(float(brown.draw_prior(40_000, rng=0).std()) / 10 - 1) < 0.02
    short = sg.ScoreModel(sg.MLP(2, rng=0), sg.OrnsteinUhlenbeck(), times=(0.01, 0.5))
    config = sg.TrainConfig(steps=1, weighting="simple")
    data = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) + 1
    rows, left = data.double(), math.exp(-0.5)
    gaussian = (
        sg.GaussianPrior(  # data are Gaussian, so that moments are all: OU at rest is N(0, I)
            left * rows.mean(0),
            left**2 * torch.cov(rows.T, correction=0) + (1 - left**2) * torch.eye(2),
        )
    )
    x = gaussian.sample(100_000, rng=1, dtype=F64)
    each = gaussian.log_prob(x) - sg.GaussianPrior(torch.zeros(2)).log_prob(x)
    with pytest.warns(sg.AccuracyWarning, match=r"at t = 0\.5: KL\(p_T ‖ prior\) = 0\.3\d+ nats"):
        sg.train(short, data, config, rng=0)
    # of the 4096 draws that it is measured by; 1e-5
    assert abs(short.unreached - float(each.mean())) < 4.5 * float(each.std()) / 64
    with pytest.warns(sg.AccuracyWarning, match=r"is up to 0\.3\d+ nats"):
        sg.sample(short, 4, steps=1, rng=0)


def test_a_state_that_is_no_phase_space_is_refused():
    model = model_of("damped", sg.EpsPrediction())
    with pytest.raises(ValueError, match=r"\(batch, 2, \*event\)"):
        model.score(torch.zeros(3, 4), 0.5)
    with pytest.raises(ValueError, match="an even number"):
        sg.ScoreModel(sg.MLP(3, rng=0), model.sde)
    with pytest.raises(ValueError, match="v = α ε − σ x0 needs numbers"):
        model.v(torch.zeros(3, 2, 2), 0.5)
    with pytest.raises(ValueError, match="DenoiserPrediction reads a denoiser of one noise level"):
        model_of("heat", sg.DenoiserPrediction())
