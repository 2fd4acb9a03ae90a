"""A gate that is known is found again."""

import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.variational import ConditionalLikelihood, MixtureOfExperts
from tests.variational.weights import seeded

F64 = torch.float64


def _experts():
    """Two lines, ±(1 + x), and the gate σ(2x − 1)."""
    gate, lines = nn.Linear(1, 2, dtype=F64), nn.Linear(1, 2, dtype=F64)
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[0.0], [2.0]]))
        gate.bias.copy_(torch.tensor([0.0, -1.0]))
        lines.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        lines.bias.copy_(torch.tensor([1.0, -1.0]))
    return MixtureOfExperts(
        gate, nn.Sequential(lines, nn.Unflatten(1, (2, 1))), 2, std=0.3
    ).double()


def test_a_known_gate_is_recovered():
    """4,000 pairs: the gate to 0.03, about twice what its standard error allows."""
    truth = _experts()
    x = 4 * torch.rand(4000, 1, generator=torch.Generator().manual_seed(0), dtype=F64) - 2
    y = truth.sample(x, rng=1)
    gate = seeded(nn.Linear(1, 2, dtype=F64))
    lines = seeded(nn.Linear(1, 2, dtype=F64))
    with torch.no_grad():
        lines.bias.copy_(torch.tensor([0.5, -0.5]))  # which expert is which
    learned = MixtureOfExperts(gate, nn.Sequential(lines, nn.Unflatten(1, (2, 1))), 2).double()
    config = sg.FitConfig(steps=250, batch_size=4000, learning_rate=0.05, ema_decay=0.9, warmup=10)
    sg.fit(learned, x, ConditionalLikelihood(), config, labels=y, rng=0)
    with torch.no_grad():
        apart = (learned.log_gate(x).exp() - truth.log_gate(x).exp()).abs()
        better = float((learned.log_prob(y, x) - truth.log_prob(y, x)).sum())
    assert float(apart.max()) < 0.03
    assert torch.allclose(learned.log_stds.exp(), torch.full((2,), 0.3, dtype=F64), rtol=0.05)
    assert 0 < better < 20  # a maximum of the likelihood of eight numbers: about 4


def test_the_density_is_one_and_its_responsibilities_are_bayes_rule():
    experts, x = _experts(), torch.full((4001, 1), 0.4, dtype=F64)
    y = torch.linspace(-6, 6, 4001, dtype=F64)[:, None]
    with torch.no_grad():
        p = experts.log_prob(y, x).exp()
        assert float(torch.trapezoid(p, y[:, 0])) == pytest.approx(1.0, abs=1e-10)
        share = float(torch.trapezoid(p * experts.responsibilities(y, x)[:, 1], y[:, 0]))
        assert share == pytest.approx(1 / (1 + math.exp(-(2 * 0.4 - 1))), abs=1e-10)
        mean = float(torch.trapezoid(p * y[:, 0], y[:, 0]))
    drawn = experts.sample(x[:1].expand(40_000, 1), rng=0)
    assert abs(float(drawn.mean()) - mean) < 4.4 * float(drawn.std()) / 200


def test_other_shapes_are_named():
    x, y = torch.randn(5, 1), torch.randn(5, 1)
    with pytest.raises(ValueError, match=r"gate must return logits of shape \(5, 2\)"):
        MixtureOfExperts(nn.Linear(1, 3), nn.Linear(1, 2), 2).log_gate(x)
    with pytest.raises(ValueError, match=r"experts must return means of shape \(5, 2, 1\)"):
        MixtureOfExperts(nn.Linear(1, 2), nn.Linear(1, 2), 2).log_prob(y, x)
    with pytest.raises(ValueError, match="pass labels=y"):
        sg.fit(_experts(), x, ConditionalLikelihood(), sg.FitConfig(steps=1, batch_size=2))
