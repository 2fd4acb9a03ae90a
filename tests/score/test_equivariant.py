"""ParticleNet: its symmetries to rounding, and the score of a Boltzmann law of three particles."""

import pytest
import torch
from torch import nn

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))


def awake(**options):
    """A network whose zero layers are drawn, in float64."""
    network = sg.ParticleNet(8, 2, rng=0, **options).double()
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return network


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("translations", [True, False])
def test_rotations_reflections_orders_and_translations(dim, translations):
    """To 1e-12 in float64; without `translations` a translation does change the output."""
    network = awake(translations=translations)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 4, dim, dtype=F64, generator=generator)
    t = torch.linspace(0.1, 0.9, 5, dtype=F64)
    out = network(x, t)
    assert out.abs().max() > 0.1
    turn, _ = torch.linalg.qr(torch.randn(dim, dim, dtype=F64, generator=generator))
    assert (network(x @ turn, t) - out @ turn).abs().max() < 1e-12
    mirror = turn * torch.where(torch.arange(dim) == 0, -1.0, 1.0)
    assert (network(x @ mirror, t) - out @ mirror).abs().max() < 1e-12
    order = torch.tensor([2, 0, 3, 1])
    assert (network(x[:, order], t) - out[:, order]).abs().max() < 1e-12
    moved = network(x + 1.5, t)
    if translations:
        assert (moved - out).abs().max() < 1e-12
        assert out.sum(1).abs().max() < 1e-12  # and so no force on the centre
    else:
        assert (moved - out).abs().max() > 1e-2
    assert not sg.ParticleNet(8, 2, rng=0)(x.float(), t.float()).any()  # zero before training


def test_it_learns_a_boltzmann_score():
    """Three particles that repel each other in a trap: −∇U at a small noise, from samples."""

    def force(x):
        x = x.detach().requires_grad_()
        apart = (x[:, :, None] - x[:, None]).square().sum(-1)
        pairs = torch.exp(-2 * apart).sum((1, 2)) - 3
        energy = x.square().sum((1, 2)) + 1.5 * pairs  # each pair twice
        return -torch.autograd.grad(energy.sum(), x)[0]

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 3, 2, generator=generator)
    for _ in range(200):
        x = x + 0.01 * force(x) + 0.02**0.5 * torch.randn(x.shape, generator=generator)
    model = sg.ScoreModel(sg.ParticleNet(16, 1, translations=False, rng=0), VP)
    config = sg.TrainConfig(
        steps=400, batch_size=512, learning_rate=1e-2, ema_decay=0.97, warmup=20
    )
    sg.train(model, x, config, rng=0)
    truth = force(x)
    with torch.no_grad():
        learned = model.score(x, torch.tensor(0.02))  # σ = 0.08, beside a spread of 0.8
    size = truth.square().sum()
    line = (truth * x).sum() / x.square().sum() * x  # the best score of a Gaussian
    error, linear = (float(((s - truth).square().sum() / size).sqrt()) for s in (learned, line))
    # 0.17 of 400 steps; 0.10 of 1,500 of twice the width: what is left is of the training
    assert error < 0.2, error
    assert error < 0.3 * linear, linear


def test_states_of_other_shapes_are_refused():
    network = sg.ParticleNet(4, 1, rng=0)
    for shape in ((3, 2), (3, 1, 2)):
        with pytest.raises(ValueError, match=r"takes states \(batch, particles, dim\) of 2 parti"):
            network(torch.zeros(shape), torch.ones(3))
