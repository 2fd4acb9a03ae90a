"""Advice on hierarchies of latent variables, followed."""

import torch

import sdegen as sg
from tests.cures.densities import near

UP = sg.LinearGaussian([[0.8]], 0.36)
POINTS = torch.zeros(3, 1, dtype=torch.float64)
STEADY = torch.nn.Linear(1, 2).double()
for weights in STEADY.parameters():
    torch.nn.init.zeros_(weights)


def bound(encoder=UP, sizes=(1, 1), **words):
    """The bound of a hierarchy of one level: unit Gaussian data, and the level that they keep."""
    model = sg.HierarchicalVAE([encoder], [UP], sizes)
    return sg.hierarchical_bound(model, POINTS, **words, samples=4, rng=0).log_prob


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
}
