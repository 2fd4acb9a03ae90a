"""Codebooks against k-means, and the gradients that the three terms should have."""

import math

import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.training import Batch, BatchNoise
from tests.variational.weights import seeded

F64 = torch.float64


def _clusters(k=5, each=40):
    """Points around k corners of a circle of radius 3, with a spread of 0.15."""
    angle = 2 * math.pi * torch.arange(k, dtype=F64) / k
    centres = 3 * torch.stack([angle.cos(), angle.sin()], 1)
    noise = stream(0, "clusters").normal((k * each, 2), dtype=F64)
    return centres.repeat_interleave(each, 0) + 0.15 * noise


def test_on_well_separated_clusters_the_codes_are_the_centres_of_k_means():
    """To 0.02, where a centre's own standard error is 0.024; and all of them are in use."""
    x = _clusters()
    model = sg.VQVAE(nn.Identity(), nn.Identity(), 5, 2, rng=0).double()
    model.spread(x)
    assert model.perplexity(x) == pytest.approx(5, abs=1e-9)  # one in each from the start
    config = sg.FitConfig(steps=300, batch_size=200, learning_rate=0.02, warmup=10, ema_decay=0.98)
    sg.fit(model, x, sg.VQLoss(), config, rng=0)
    centres = torch.from_numpy(KMeans(5, n_init=3, random_state=0).fit(x.numpy()).cluster_centers_)
    gap, mine = torch.cdist(centres, model.codes.detach()).min(1)
    assert sorted(mine.tolist()) == list(range(5))
    assert float(gap.max()) < 0.02
    assert model.perplexity(x) == pytest.approx(5, abs=1e-9)
    assert torch.equal(model.reconstruct(x), model.codes.detach()[model.indices(x)])
    drawn = model.sample(2000, rng=1)
    shares = torch.bincount(model.indices(drawn), minlength=5) / 2000
    assert float((shares - 0.2).abs().max()) < 5 * math.sqrt(0.16 / 2000)  # 3e-6 alarms


def test_gradients_pass_straight_through_and_each_term_moves_its_own():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = seeded(sg.VQVAE(nn.Linear(3, 8), nn.Linear(8, 3), 4, 8, std=0.7, rng=0).double())
    loss, terms = sg.VQLoss(0.3)(model, Batch(x), BatchNoise(stream(0, "test"), 6))
    with torch.no_grad():
        code = model.codes[model.nearest(model.encode(x))]
    z = model.encode(x)
    square = (z - code).square().sum(1)
    for name in ("codebook", "commitment"):
        assert torch.allclose(terms[name], square)
    code.requires_grad_()
    plain = ((x - model.decoder(code)).square().sum(1) / (2 * 0.49)).sum()
    (into_code,) = torch.autograd.grad(plain, code)
    by_hand = torch.autograd.grad(
        z, model.encoder.weight, into_code + 0.6 * (z - code).detach(), retain_graph=True
    )
    found = torch.autograd.grad(loss.sum(), model.encoder.weight, retain_graph=True)
    assert torch.allclose(found[0], by_hand[0])
    (moved,) = torch.autograd.grad(loss.sum(), model.codes)
    exact = torch.zeros_like(moved).index_add_(0, model.nearest(z), 2 * (code - z).detach())
    assert torch.allclose(moved, exact)


def test_events_with_several_codes_and_bernoulli_pixels():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Unflatten(1, (3, 2)))
    decoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Unflatten(1, (2, 2)))
    model = seeded(sg.VQVAE(encoder, decoder, 5, 2, positions=(3,), likelihood="bernoulli", rng=0))
    x = (torch.rand(9, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    indices = model.indices(x)
    assert indices.shape == (9, 3)
    by_hand = (model.encode(x)[:, :, None] - model.codes).norm(dim=3).argmin(2)
    assert torch.equal(indices, by_hand)
    logits = decoder(model.codes[indices])
    exact = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    _, terms = sg.VQLoss()(model, Batch(x), BatchNoise(stream(0, "test"), 9))
    assert torch.allclose(terms["reconstruction"], exact.flatten(1).sum(1).double(), atol=1e-5)
    assert torch.allclose(model.reconstruct(x), logits.sigmoid())
    assert model.sample(4, rng=0).shape == (4, 2, 2)
    with pytest.raises(ValueError, match="must be 0 or 1 for Bernoulli pixels"):
        sg.fit(model, 0.5 * x, sg.VQLoss(), sg.FitConfig(steps=1, batch_size=4))
    with pytest.raises(ValueError, match=r"indices must each be in 0 … 4"):
        model.decode(torch.full((1, 3), 5))
    with pytest.raises(ValueError, match="encoder must return shape"):
        sg.VQVAE(nn.Linear(3, 3), decoder, 5, 2).indices(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="fewer than 5 codes"):
        model.spread(torch.zeros(1, 2, 2))
