"""Autoencoders whose latents are matched to the prior by kernels, where the answer is known."""

import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.metrics.kernels import squared_mmd
from sdegen.training import Batch, BatchNoise
from sdegen.variational import VAELoss
from tests.variational.weights import seeded

F64 = torch.float64


def _noise(n, seed=0):
    return BatchNoise(stream(seed, "test"), n)


def _autoencoder(**options):
    return seeded(sg.Autoencoder(nn.Linear(3, 2), nn.Linear(2, 3), 2, **options).double())


@torch.no_grad()
def test_the_loss_is_reconstruction_and_the_discrepancy_of_what_was_drawn():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = _autoencoder(std=0.5)
    loss, terms = sg.MMDLoss(7.0, "gaussian", 0.8)(model, Batch(x), _noise(20))
    z = model.encode(x)
    errors = (x - model.decode(z)).square().sum(1) / 0.5
    constant = 3 * math.log(0.5 * math.sqrt(2 * math.pi))
    assert torch.allclose(terms["reconstruction"], errors.mean() + constant)
    prior = _noise(20).normal_like(z)
    exact = sg.metrics.mmd(z, prior, kernel="gaussian", scale=0.8)
    assert float(terms["discrepancy"]) == pytest.approx(exact, abs=1e-14)
    assert torch.allclose(loss, terms["reconstruction"] + 7 * terms["discrepancy"])


@torch.no_grad()
def test_a_gaussian_encoder_draws_its_latent_and_any_prior_is_matched():
    """At q(z | x) = p(z) for every x, MMD² is 0 in the mean: one false alarm in 10⁶ seeds."""
    x = torch.zeros(50, 1, dtype=F64)
    encoder, decoder = nn.Linear(1, 2, dtype=F64), nn.Linear(1, 1, dtype=F64)
    encoder.weight.zero_()
    encoder.bias.copy_(torch.tensor([1.5, math.log(0.09)]))
    prior = sg.GaussianMixture([1.0], [[1.5]], stds=0.3)
    for law, is_matched in ((prior, True), (None, False)):
        vae = sg.VAE(encoder, decoder, 1, prior=law).double()
        found = torch.stack(
            [
                sg.MMDLoss()(vae, Batch(x), _noise(50, seed))[1]["discrepancy"]
                for seed in range(100)
            ]
        )
        error = float(found.std()) / math.sqrt(len(found))
        assert (abs(float(found.mean())) < 4.9 * error) is is_matched


def test_latents_pass_through_the_flow_of_a_posterior():
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    flow = sg.Flow("real nvp", 2, width=8, rng=0)
    vae = seeded(sg.VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2, flow=flow).double())
    with torch.no_grad():
        _, terms = sg.MMDLoss()(vae, Batch(x), _noise(12))
        noise, q = _noise(12), vae.posterior(x)
        z = vae.draw(q, noise.normal_like(q.mean)[None])[0][0]
        exact = sg.metrics.mmd(z, noise.normal_like(z))
        assert float((z - q.mean).abs().max()) > 0.1
    assert float(terms["discrepancy"]) == pytest.approx(exact, abs=1e-14)
    assert torch.allclose(terms["reconstruction"], -vae.log_prob_given(x, z).mean())


@pytest.mark.parametrize("kernel", ["gaussian", "inverse-multiquadric"])
def test_gradients_are_differences_also_where_two_latents_are_one(kernel):
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    z[1] = z[0]
    prior = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=F64)

    def discrepancy(rows):
        return squared_mmd(rows, prior, kernel, 0.8)

    assert torch.autograd.gradcheck(discrepancy, z.requires_grad_())


def test_trained_the_latents_of_a_gaussian_are_the_prior_and_tell_x():
    """X ~ N(2, 0.6²), one linear latent: z = ±(x − 2)/0.6, and x = 2 ± 0.6 z, to 0.06."""
    x = 2 + 0.6 * stream(0, "data").normal((4000, 1), dtype=F64)
    x = 2 + 0.6 * (x - x.mean()) / x.std()
    model = seeded(sg.Autoencoder(nn.Linear(1, 1), nn.Linear(1, 1), 1).double())
    config = sg.FitConfig(steps=400, batch_size=128, learning_rate=0.05, warmup=20, ema_decay=0.95)
    result = sg.fit(model, x, sg.MMDLoss(20.0), config, rng=0, validation=x[:500])
    with torch.no_grad():
        z = model.encode(x)
        error = float((x - model.decode(z)).square().mean())
        drawn = model.decode(torch.randn(2, 1, dtype=F64))
    assert abs(float(z.mean())) < 0.06
    assert float(z.std()) == pytest.approx(1.0, abs=0.06)
    assert error < 1e-3
    assert drawn.shape == (2, 1)
    floor = 0.5 * math.log(2 * math.pi)
    assert float(result.validation_losses[-1]) == pytest.approx(floor, abs=0.1)


def test_what_is_no_density_and_what_has_no_pairs_is_refused():
    x = torch.randn(8, 3)
    model = sg.Autoencoder(nn.Linear(3, 2), nn.Linear(2, 3), 2)
    for loss in (sg.VAELoss(), VAELoss(importance=2)):
        with pytest.raises(ValueError, match="an Autoencoder's latents have no noise"):
            sg.fit(model, x, loss, sg.FitConfig(steps=1, batch_size=4))
    with pytest.raises(ValueError, match="encoder must return shape"):
        sg.Autoencoder(nn.Linear(3, 4), nn.Linear(2, 3), 2).encode(x)
    config = sg.FitConfig(steps=1, batch_size=4, accumulate=2)
    with pytest.raises(ValueError, match="one number for all rows, which ranks or parts"):
        sg.fit(model, x, sg.MMDLoss(), config)
    with pytest.raises(ValueError, match="has one row; take more"):
        sg.fit(model, x, sg.MMDLoss(), sg.FitConfig(steps=1, batch_size=1))
