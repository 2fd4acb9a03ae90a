"""Advice on hierarchies of latent variables, followed."""

import torch

import sdegen as sg
from sdegen.variational import predictor_weights
from tests.cures.densities import near

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
ENDED = sg.VP(sg.ZeroTerminalSNR(sg.LinearBeta(0.1, 20.0)))
MIXTURE = sg.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], stds=0.5)
EXACT = MIXTURE.noised(VP).score
TELLS = sg.ScoreModel(sg.MLP(1, width=4, depth=1, variance=True, rng=0), VP, sg.LearnedVariance())
UP = sg.LinearGaussian([[0.8]], 0.36)
POINTS = torch.zeros(3, 1, dtype=torch.float64)
STEADY = torch.nn.Linear(1, 2).double()
for weights in STEADY.parameters():
    torch.nn.init.zeros_(weights)


def bound(encoder=UP, sizes=(1, 1), **words):
    """The bound of a hierarchy of one level: unit Gaussian data, and the level that they keep."""
    model = sg.HierarchicalVAE([encoder], [UP], sizes)
    return sg.hierarchical_bound(model, POINTS, **words, samples=4, rng=0).log_prob


def weights(sde, score=EXACT, variance="beta"):
    """What errors of x0 count in the bound of a chain."""
    chain = sg.DDPM.discretize(sde, 4).reverse(score, variance)
    return predictor_weights(chain, sg.X0Prediction())


def taught(schedule):
    """A schedule after two steps."""
    config = sg.FitConfig(steps=2, batch_size=4)
    return sg.fit(schedule, torch.zeros(9, 1), sg.ScheduleLoss(VP, EXACT), config, rng=0)


def moved(how):
    """A model of VP on a schedule of its own."""
    model = sg.ScoreModel(sg.MLP(1, width=4, depth=1, rng=0), VP, how)
    return sg.LearnedSchedule.between(VP).rescheduled(model)


FOLLOWED = {
    "a denoising form of a network": (
        "but encoders",
        lambda: bound(STEADY),
        lambda: (bound(STEADY, form="consistency"), bound()),
    ),
    "a decoder's spread beside decoders": (
        "decoder_std is that of a chain; leave it out",
        lambda: bound(decoder_std=0.1),
        lambda: near(bound(analytic=False)[0], sg.Gaussian([0.0]).log_prob(POINTS)[0]),
    ),
    "a hierarchy without levels": (
        "a hierarchy has at least one level",
        lambda: bound(sizes=(1,)),
        lambda: bound(sizes=(1, 1)),
    ),
    "the mean of a step to no signal": (
        "a step that ends without signal, α = 0, has no mean to go back to",
        lambda: sg.MeanPrediction(ENDED, 4),
        lambda: (sg.MeanPrediction(VP, 4), sg.ScoreModel(sg.MLP(1), ENDED, sg.VPrediction())),
    ),
    "weights of a chain that ends without signal": (
        "the last level of this chain has no signal, α = 0, where an error of ε",
        lambda: weights(ENDED),
        lambda: weights(VP),
    ),
    "weights of a variance that is learned": (
        "and an error has no one weight; take",
        lambda: weights(VP, TELLS.score, "learned"),
        lambda: weights(VP, TELLS.score, "beta"),
    ),
    "a schedule beyond its score": (
        "but the score is known from",
        lambda: taught(sg.LearnedSchedule(-20.0, 5.0)),
        lambda: taught(sg.LearnedSchedule.between(VP)),
    ),
    "a schedule of a path that ends without signal": (
        "no signal is left at t_max of this path, where log SNR is −∞",
        lambda: sg.LearnedSchedule.between(ENDED),
        lambda: sg.LearnedSchedule.between(VP),
    ),
    "a model that is told t, on another clock": (
        "is told t, which means another noise level on another clock; take",
        lambda: moved(sg.EpsPrediction()),
        lambda: (moved(sg.EDMPrediction()), moved(sg.FlowPrediction())),
    ),
}
