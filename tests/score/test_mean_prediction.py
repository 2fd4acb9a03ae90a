"""The mean of a step back as a parameterization, against Bayes' rule and Gaussian data."""

import pytest
import torch

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
PATHS = [VP, sg.VE(sg.GeometricSigma(0.01, 50.0)), sg.RectifiedFlow()]


@pytest.mark.parametrize("sde", PATHS, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_at_the_levels_of_the_chain_it_is_bayes_mean(sde, steps):
    """x_{k−1} given x_0 and x_k: a product of two Gaussians, weighed by their precisions."""
    how, times = sg.MeanPrediction(sde, steps), torch.arange(1, steps + 1, dtype=F64)
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, 2, generator=g, dtype=F64)
    for t in times * (sde.t_max / steps):
        s = (t - sde.t_max / steps).clamp(min=0.0)
        s = s * (s > 1e-9)  # 0 to the bit
        alpha, sigma, before, spread = sde.alpha(t), sde.sigma(t), sde.alpha(s), sde.sigma(s)
        a = alpha / before
        b2 = sigma**2 - a**2 * spread**2
        wanted = x0
        if float(spread) > 0:
            up = sg.Gaussian(before * x0, float(spread**2))
            seen = sg.Gaussian((alpha * x0 + sigma * eps) / a, float(b2 / a**2))
            wanted = up.product(seen)[0].mean
        found = how.target(x0, eps, alpha, sigma)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        slope = how.d_eps_d_output(alpha, sigma)
        torch.testing.assert_close(slope, -a * sigma / b2, rtol=1e-8, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_between_the_levels_it_is_read_back_too(dtype):
    how, t = sg.MeanPrediction(VP, 20), torch.linspace(1e-3, 1.0, 200, dtype=dtype)[:, None]
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 200, 3, generator=g, dtype=F64).to(dtype)
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    x_t = alpha * x0 + sigma * eps
    output = how.target(x0, eps, alpha, sigma)
    read_x0, read_eps = how.decode(output, x_t, alpha, sigma)
    digits = 1e-11 if dtype == F64 else 1e-3
    assert float((read_eps - eps).abs().max()) < digits
    assert float((alpha * (read_x0 - x0)).abs().max()) < digits
    moved = (how.eps(output + 0.5, x_t, alpha, sigma) - read_eps) / 0.5
    slope = how.d_eps_d_output(alpha, sigma).expand_as(moved)
    torch.testing.assert_close(moved, slope, rtol=1e-3, atol=1e-3)


def test_a_chain_steps_to_what_the_network_puts_out():
    chain = sg.DDPM.discretize(VP, 8)
    net = sg.MLP(dim=2, width=8, depth=1, rng=0).double()
    model = sg.ScoreModel(net, VP, sg.MeanPrediction(VP, 8))
    back = chain.reverse(model.score)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for k in (1, 2, 5, 8):
        t = chain.times[k]
        mean = (x - back.drift(x, torch.tensor(k))).detach()
        torch.testing.assert_close(mean, model.output(x, t).detach(), rtol=0, atol=1e-9)


def test_it_is_trained_saved_and_loaded(tmp_path):
    """Gaussian data: their score is −(x − α m)/(α² s² + σ²); what is left is of 400 steps."""
    g = torch.Generator().manual_seed(0)
    data = 0.3 + 0.8 * torch.randn(4000, 1, generator=g)
    chain = sg.DDPM.discretize(VP, 8)
    model = sg.ScoreModel(sg.MLP(1, width=32, depth=1, rng=0), VP, sg.MeanPrediction(VP, 8))
    config = sg.TrainConfig(steps=400, batch_size=256, ema_decay=0.98, learning_rate=3e-3)
    sg.train(model, data, config, loss=sg.DenoisingLoss(steps=chain), rng=0)
    x = torch.linspace(-1.5, 2.0, 20)[:, None]
    for k in (2, 4, 8):
        t = chain.times[k]
        alpha, sigma = VP.alpha(t), VP.sigma(t)
        exact = -(x - alpha * 0.3) / (alpha**2 * 0.64 + sigma**2)
        error = (sigma * (model.score(x, t).detach() - exact)).square().mean().sqrt()
        assert float(error) < 0.12, k
    model.save(tmp_path / "mean.safetensors")
    loaded = sg.ScoreModel.load(tmp_path / "mean.safetensors")
    assert loaded.parameterization.steps == 8
    assert torch.equal(loaded.score(x, chain.times[3]), model.score(x, chain.times[3]))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(TypeError, match="must be a GaussianPath"):
        sg.MeanPrediction(sg.DDPM([0.1]), 4)
    with pytest.raises(ValueError, match="steps must be"):
        sg.MeanPrediction(VP, 0)
    with pytest.raises(ValueError, match="without signal, α = 0"):
        sg.MeanPrediction(sg.VP(sg.ZeroTerminalSNR(sg.LinearBeta(0.1, 20.0))), 4)
