"""Continuous flows: gradients of the likelihood, and two trainings that reach the entropy."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
MIXTURE = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=[0.4, 0.3])


class _Scaled(torch.nn.Module):
    """The exact velocity of N(0, s²) data, by the one weight s."""

    def __init__(self, s):
        super().__init__()
        self.s = torch.nn.Parameter(torch.tensor(s, dtype=F64))

    def forward(self, x, t):
        t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
        alpha, sigma = 1 - t, t
        return x * (sigma - alpha * self.s**2) / (alpha**2 * self.s**2 + sigma**2)


def _model(network):
    return sg.ScoreModel(network, sg.RectifiedFlow(), sg.FlowPrediction())


def test_its_value_and_gradient_are_those_of_a_gaussian():
    """Of data ±1 under N(0, s²): log p = −1/2s² − log s − ½ log 2π, d/ds = 1/s³ − 1/s."""
    model, s = _model(_Scaled(1.7)), 1.7
    data = torch.tensor([[-1.0], [1.0]], dtype=F64)
    seen = []

    class Watched(sg.ContinuousFlowLikelihood):
        def __call__(self, module, batch, noise):
            loss = super().__call__(module, batch, noise)
            if loss.requires_grad:
                seen.append((float(loss.detach().mean()), loss.mean()))
            return loss

    config = sg.FitConfig(steps=1, batch_size=2, learning_rate=1e-3, warmup=0)
    for divergence in ("exact", sg.Hutchinson(1)):  # one probe of one number is exact
        model, seen[:] = _model(_Scaled(s)), []
        loss = Watched(sg.TorchDiffEq(rtol=1e-7, atol=1e-7), divergence)
        result = sg.fit(model, data, loss, config, validation=data, rng=0)
        value = 1 / (2 * s**2) + math.log(s) + 0.5 * math.log(2 * math.pi)
        # the noise of t_min and what is left of the data at t_max make 1e-3
        assert seen[0][0] == pytest.approx(value, abs=3e-3)
        assert float(result.losses[0]) == pytest.approx(seen[0][0], abs=1e-6)
        assert float(model.network.s.detach()) < s  # Adam's first step is down the slope
    x = data.clone()
    found = sg.log_likelihood(model.sde, model.score, x, differentiable=True).log_prob.mean()
    (slope,) = torch.autograd.grad(found, model.network.s)
    now = float(model.network.s.detach())
    assert float(slope) == pytest.approx(1 / now**3 - 1 / now, abs=3e-3)


def _gap(model):
    """KL(mixture ‖ model) on held-out points."""
    points = MIXTURE.sample(2_000, rng=1, dtype=F64)
    found = sg.log_likelihood(model.sde, model.score, points).log_prob
    return float((MIXTURE.log_prob(points) - found).mean())


def test_flow_matching_reaches_the_entropy():
    """KL to a mixture of two, without noise in the update."""
    x = MIXTURE.sample(20_000, rng=0, dtype=torch.float32)
    model = _model(sg.MLP(1, width=32, depth=2, rng=0))
    config = sg.TrainConfig(1000, batch_size=256, learning_rate=5e-3, warmup=50, ema_decay=0.99)
    sg.train(model, x, config, loss="flow-matching", rng=0)
    assert -0.01 < _gap(model) < 0.02
    flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
    times = model.sde.time_grid(50)
    drawn = sg.simulate(flow, model.sde.prior((20_000, 1)), times, solver=sg.Heun(), rng=2).final
    exact = MIXTURE.sample(20_000, rng=3)
    assert sg.metrics.wasserstein_1d(drawn, exact) < 0.05


@pytest.mark.slow
def test_likelihood_reaches_the_entropy():
    x = MIXTURE.sample(20_000, rng=0, dtype=torch.float32)
    model = _model(sg.MLP(1, width=32, depth=2, rng=0))
    config = sg.FitConfig(100, batch_size=256, learning_rate=1e-2, warmup=10, ema_decay=0.95)
    sg.fit(model, x, sg.ContinuousFlowLikelihood(), config, rng=0)
    assert -0.01 < _gap(model) < 0.02


def test_likelihood_reaches_the_entropy_of_a_gaussian():
    """One weight, 25 steps: its least loss is at s = 0.6."""
    x = 0.6 * torch.randn(4_000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = _model(_Scaled(1.0))
    config = sg.FitConfig(25, batch_size=1024, learning_rate=0.05, warmup=0, ema_decay=0.8)
    sg.fit(model, x, sg.ContinuousFlowLikelihood(), config, rng=0)
    lost = math.log(s := float(model.network.s.detach()) / 0.6) + 0.5 / s**2 - 0.5
    assert abs(lost) < 0.02


def test_steps_that_training_exploits_are_refused():
    with pytest.raises(TypeError, match="whose tolerance training cannot make use of"):
        sg.ContinuousFlowLikelihood(sg.Heun(substeps=8))
