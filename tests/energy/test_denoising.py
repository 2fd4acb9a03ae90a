"""Denoising score matching of an energy: a network whose output is −∇U, with the losses of scores.

`Langevin(U).drift` is −∇U with its gradient in the weights, so that an energy U(x, t) becomes a
network of a `ScoreModel` in one line.
"""

import pytest
import torch
from torch import nn

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=0.01)


class Downhill(nn.Module):
    """−∇U of U = x²/2(α² e^θ + σ²): the score of a Gaussian of variance e^θ, noised."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros((), dtype=F64))

    def energy(self, x, t):
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        return (x.square() / (2 * (alpha**2 * self.theta.exp() + sigma**2))).sum(1)

    def forward(self, x, t):
        return sg.Langevin(lambda y: self.energy(y, t.to(y))).drift(x, t)


def test_an_energy_is_learned_by_the_loss_of_scores():
    """The variance that is learned is that of the data, 0.36, and the score follows from it."""
    data = 0.6 * torch.randn(4096, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    network = Downhill()
    model = sg.ScoreModel(network, VP, sg.ScorePrediction())
    config = sg.TrainConfig(steps=150, batch_size=512, learning_rate=0.05, ema_decay=0.95)
    sg.train(model, data, config, loss=sg.DenoisingLoss(), rng=0)
    exact = float(data.square().mean())
    assert float(network.theta.detach().exp()) == pytest.approx(exact, rel=0.1)
    grid = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    t = torch.full((9,), 0.3, dtype=F64)
    with torch.no_grad():
        score = model.score(grid, t)
        variance = VP.alpha(t) ** 2 * network.theta.exp() + VP.sigma(t) ** 2
    torch.testing.assert_close(score, -grid / variance[:, None])
