"""Advice on relatives of the variational autoencoder, followed."""

import torch
from torch import nn

import sdegen as sg

X = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))


def plain():
    """An autoencoder of three numbers and two latents."""
    return sg.Autoencoder(nn.Linear(3, 2), nn.Linear(2, 3), 2)


def coded(count):
    """An autoencoder of so many codes."""
    return sg.VQVAE(nn.Linear(3, 2), nn.Linear(2, 3), count, 2, rng=0)


def game():
    """A generator and its critic."""
    return sg.GAN(nn.Linear(2, 3), nn.Linear(3, 1), 2)


def compared(gan):
    """Distances of samples from the data, after a training without validation."""
    fitted(gan, sg.GANLoss())
    samples = gan.sample(len(X), rng=0)
    assert abs(sg.metrics.mmd(samples, X)) < 2
    assert sg.metrics.energy_distance(samples, X) > 0


def fitted(module, loss, batch_size=8, **options):
    """What is left of two steps of a training."""
    config = sg.FitConfig(steps=2, batch_size=batch_size, warmup=0)
    return sg.fit(module, X, loss, config, rng=0, **options)


FOLLOWED = {
    "a bound of latents without noise": (
        r"an Autoencoder's latents have no noise, so that there is no density q\(z \| x\)",
        lambda: fitted(plain(), sg.VAELoss()),
        lambda: (
            fitted(plain(), sg.MMDLoss()),
            fitted(sg.VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2), sg.VAELoss()),
        ),
    ),
    "more codes than latents": (
        "different latents, fewer than",
        lambda: coded(6).spread(X[:4]),
        lambda: (coded(6).spread(X), coded(4).spread(X[:4])),
    ),
    "a validation of two players": (
        "is a sum over two players, which does not say how near",
        lambda: fitted(game(), sg.GANLoss(), validation=X),
        lambda: compared(game()),
    ),
    "a discrepancy of one row": (
        "the discrepancy is a mean over pairs of a batch, which has one row; take more",
        lambda: fitted(plain(), sg.MMDLoss(), batch_size=1),
        lambda: fitted(plain(), sg.MMDLoss(), batch_size=2),
    ),
}
