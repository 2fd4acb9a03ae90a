"""Every weighting with every parameterization, trained to the exact score of a Gaussian."""

import itertools
import math

import pytest
import torch
from torch import nn

import sdegen as sg

F64 = torch.float64
SPREAD = 0.6
# α ≥ 0.28 to the end, so that errors of ε and of an output are of one size
SDE = sg.VP(sg.LinearBeta(0.1, 5.0))
READINGS = {
    "eps": sg.EpsPrediction(),
    "x0": sg.X0Prediction(),
    "v": sg.VPrediction(),
    "score": sg.ScorePrediction(),
    "flow": sg.FlowPrediction(),
    "edm": sg.EDMPrediction(SPREAD),
    "denoiser": sg.DenoiserPrediction(),
}
WEIGHTINGS = ["simple", "likelihood", "variational", "min-snr", "flow-matching", "edm", "own"]
QUICK = list(zip(READINGS, WEIGHTINGS, strict=True))
# errors of the score itself, whose target is ε/σ, are nearly all noise of the smallest σ
NOISE = {("score", "flow-matching"), ("score", "edm")}
PAIRS = set(itertools.product(READINGS, WEIGHTINGS)) - NOISE


def early(t):
    """Weights of a user: early times count."""
    return 0.1 + (1.5 - t) ** 2


class Multiple(nn.Module):
    """What is read as ε̂ = (θ_0 + θ_1 u) c* x_t, u = (4/π) arctan σ/α − 1; θ begins at 0.

    c* x_t is the best ε̂ of N(0, SPREAD²), so that (1, 0) is the exact score.
    """

    def __init__(self, how):
        super().__init__()
        self.how, self.theta = how, nn.Parameter(torch.zeros(2, dtype=F64))

    def ratio(self, clock):
        """σ/α by the number that stands for the time."""
        if isinstance(self.how, sg.FlowPrediction):
            return clock / (1 - clock)
        if isinstance(self.how, sg.EDMPrediction):
            return (4 * clock).exp()
        if isinstance(self.how, sg.DenoiserPrediction):
            return clock
        return SDE.sigma(clock) / SDE.alpha(clock)

    def forward(self, x, clock):
        r = self.ratio(clock)[:, None]
        alpha, sigma = (
            1 / torch.hypot(r, torch.ones_like(r)),
            r / torch.hypot(r, torch.ones_like(r)),
        )
        x_t = x * self.how.scale(alpha, sigma)
        eps = self.multiple(r) * sigma / (alpha**2 * SPREAD**2 + sigma**2) * x_t
        return self.how.target((x_t - sigma * eps) / alpha, eps, alpha, sigma)

    def multiple(self, r):
        """The score over the exact one."""
        u = 4 / math.pi * torch.atan(r) - 1
        return self.theta[0] + self.theta[1] * u


def check_trained(reading, weighting):
    """The relative error of the score after the training, at every level, is ≤ 1e-2."""
    data = SPREAD * (1 - 2.0 * (torch.arange(4096, dtype=F64) % 2))[:, None]
    model = sg.ScoreModel(Multiple(READINGS[reading]), SDE, READINGS[reading])
    loss = sg.DenoisingLoss(early if weighting == "own" else weighting)
    config = sg.TrainConfig(steps=600, batch_size=1024, learning_rate=0.1, ema_decay=0.98)
    sg.train(model, data, config, loss=loss, rng=0)
    t = torch.linspace(SDE.t_min, SDE.t_max, 200, dtype=F64)
    x = torch.full((200, 1), 0.7, dtype=F64)
    exact = -x / (SDE.alpha(t) ** 2 * SPREAD**2 + SDE.sigma(t) ** 2)[:, None]
    off = (model.score(x, t).detach() / exact - 1).abs().max()
    assert float(off) < 1e-2, (reading, weighting, float(off))


@pytest.mark.parametrize(("reading", "weighting"), QUICK)
def test_each_of_them_is_trained_to_the_exact_score(reading, weighting):
    check_trained(reading, weighting)


@pytest.mark.slow
@pytest.mark.parametrize(("reading", "weighting"), sorted(PAIRS - set(QUICK)))
def test_all_pairs_are_trained_to_the_exact_score(reading, weighting):
    check_trained(reading, weighting)
