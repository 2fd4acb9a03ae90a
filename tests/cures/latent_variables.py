"""Advice on Gaussians, divergences and models with latent variables, followed."""

import torch
from torch import nn

import sdegen as sg
from sdegen.variational import ConditionalLikelihood, MixtureOfExperts, VAELoss, kl_divergence
from tests.cures.densities import near

P, Q = sg.Gaussian([0.0], [1.0]), sg.Gaussian([1.0], [1.0])
PAIR = sg.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], stds=1.0)
LINE = sg.Grid(-12.0, 12.0, 400)
DENSITY = sg.Density(LINE.nodes, P.log_prob(LINE.nodes[:, None]).exp())
NAMELESS = type("Flat", (), {"log_prob": lambda self, x: Q.log_prob(x)})()


def plane(cells, spread):
    """A Gaussian on nodes in the plane."""
    x = sg.Grid(-9.0, 9.0, cells).nodes
    p = sg.Gaussian([0.0, 0.0], spread).log_prob(torch.cartesian_prod(x, x)).exp()
    return sg.PlaneDensity(x, x, p.reshape(len(x), len(x)))


def binary(likelihood="bernoulli", **options):
    """A VAE of three pixels."""
    return sg.VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2, likelihood=likelihood, **options)


def fitted(module, loss, x, **options):
    """What is left of one step of a training."""
    config = sg.FitConfig(steps=1, batch_size=4, warmup=0)
    return sg.fit(module, x, loss, config, rng=0, **options)


GREY = torch.linspace(0.0, 1.0, 24).reshape(8, 3)
PAIRS = MixtureOfExperts(
    nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (2, 1))), 2
)

FOLLOWED = {
    "grey pixels of a Bernoulli decoder": (
        "must be 0 or 1 for Bernoulli pixels",
        lambda: fitted(binary(), VAELoss(), GREY),
        lambda: (
            fitted(binary(), VAELoss(), (GREY > 0.5).to(GREY.dtype)),
            fitted(binary("gaussian"), VAELoss(), GREY),
        ),
    ),
    "a weight of a KL that is not there": (
        "beta weighs the KL of the ELBO, which the importance-weighted bound",
        lambda: VAELoss(beta=2.0, importance=4),
        lambda: (
            fitted(binary("gaussian"), VAELoss(importance=4), GREY),
            fitted(binary("gaussian"), VAELoss(beta=2.0), GREY),
        ),
    ),
    "experts without y": (
        "the likelihood of y given x needs y, floats of shape",
        lambda: fitted(PAIRS, ConditionalLikelihood(), GREY),
        lambda: fitted(PAIRS, ConditionalLikelihood(), GREY, labels=GREY[:, :1]),
    ),
    "a law of which all is known": (
        "no coordinate is left where all are known; leave one out",
        lambda: sg.Gaussian([0.0, 0.0]).condition([0, 1], [1.0, 1.0]),
        lambda: near(sg.Gaussian([0.0, 0.0]).condition([0], [1.0]).mean, 0.0),
    ),
    "a divergence by two routes": (
        "give grids or samples, one of the two",
        lambda: kl_divergence(P, Q, grids=LINE, samples=100),
        lambda: near(kl_divergence(P, Q, grids=LINE).value, 0.5),
    ),
    "samples of a law that has none": (
        r"must have log_prob\(x\) and sample\(n, rng=…\) for a mean over samples",
        lambda: kl_divergence(NAMELESS, P, samples=100),
        lambda: near(kl_divergence(NAMELESS, P, grids=LINE).value, 0.5),
    ),
    "nodes beside nodes": (
        "a Density brings its own nodes; leave grids out",
        lambda: kl_divergence(DENSITY, Q, grids=LINE),
        lambda: near(kl_divergence(DENSITY, Q).value, 0.5),
    ),
    "a divergence without a closed form": (
        "there is no closed form; pass grids",
        lambda: kl_divergence(PAIR, Q),
        lambda: near(
            kl_divergence(PAIR, Q, grids=LINE).value,
            kl_divergence(PAIR, Q, samples=100_000, rng=0).value,
            rtol=0.05,
        ),
    ),
    "a quadrature in three dimensions": (
        "grids must be one or two, but are",
        lambda: kl_divergence(PAIR, Q, grids=(LINE, LINE, LINE)),
        lambda: near(
            kl_divergence(
                sg.Gaussian([0.0] * 3), sg.Gaussian([1.0] * 3), samples=100_000, rng=0
            ).value,
            1.5,
            rtol=0.05,
        ),
    ),
    "nodes beside those of a plane": (
        "a PlaneDensity brings its own nodes; leave grids out",
        lambda: kl_divergence(plane(60, 1.0), plane(60, 2.0), grids=LINE),
        lambda: near(
            kl_divergence(plane(60, 1.0), plane(60, 2.0)).value,
            sg.Gaussian([0.0, 0.0], 1.0).kl(sg.Gaussian([0.0, 0.0], 2.0)),
        ),
    ),
    "two planes of other nodes": (
        "two densities in the plane must have the same nodes, but these differ; solve both",
        lambda: kl_divergence(plane(60, 1.0), plane(80, 2.0)),
        lambda: near(
            kl_divergence(plane(80, 1.0), plane(80, 2.0)).value,
            sg.Gaussian([0.0, 0.0], 1.0).kl(sg.Gaussian([0.0, 0.0], 2.0)),
        ),
    ),
    "a grid that cuts a law off": (
        r"it cuts the law off, does not resolve it, or \{\} is not normalised; pass wider",
        lambda: kl_divergence(P, Q, grids=sg.Grid(-1.0, 1.0, 50)),
        lambda: near(kl_divergence(P, Q, grids=LINE).value, 0.5),
    ),
}
