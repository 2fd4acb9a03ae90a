"""Losses by noise level: of a Gaussian they are known; their picture shows them."""

import pytest
import torch
from torch import nn

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SPREAD = 0.6


class Best(nn.Module):
    """E[ε | x_t] of data N(0, 0.36)."""

    def forward(self, x, t):
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        return sigma * x / (alpha**2 * SPREAD**2 + sigma**2)


def gaussian(n, seed):
    return SPREAD * torch.randn(n, 1, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_the_loss_of_each_level_is_the_variance_that_is_left():
    """α² s²/(α² s² + σ²) of its own data, of others α² σ² … with their spread: 4.4 errors."""
    model = sg.ScoreModel(Best(), VP).train()
    wide = 2 * gaussian(4_000, 1)
    found = sg.loss_by_level(model, gaussian(4_000, 0), wide, levels=8, rng=0)
    assert model.training
    alpha, sigma = VP.alpha(found.times), VP.sigma(found.times)
    left = alpha**2 * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    assert bool(((found.losses - left).abs() <= 4.4 * found.errors).all())
    # ε̂ − ε = c α x0 + (c σ − 1) ε
    c = sigma / (alpha**2 * SPREAD**2 + sigma**2)
    other = (c * alpha * 2 * SPREAD) ** 2 + (c * sigma - 1) ** 2
    assert bool(((found.validation - other).abs() <= 4.4 * found.validation_errors).all())
    torch.testing.assert_close(found.log_snr, 2 * (alpha / sigma).log(), rtol=1e-9, atol=1e-9)
    steps = found.log_snr.diff()
    torch.testing.assert_close(steps, steps.mean().expand(7), rtol=1e-3, atol=0)
    again = sg.loss_by_level(model, gaussian(4_000, 0), levels=8, rng=0)
    assert torch.equal(again.losses, found.losses)
    assert again.validation is None
    figure = sg.plots.loss_by_level(found)
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["data", "validation"]
    assert lines[0].get_xdata() == pytest.approx(found.log_snr.numpy())
    assert lines[1].get_ydata() == pytest.approx(found.validation.numpy())


def test_what_has_no_levels_is_refused():
    model = sg.ScoreModel(Best(), VP)
    with pytest.raises(ValueError, match="data must hold 2 rows or more"):
        sg.loss_by_level(model, gaussian(1, 0))
    with pytest.raises(ValueError, match="levels must be ≥ 2"):
        sg.loss_by_level(model, gaussian(3, 0), levels=1)
    with pytest.raises(ValueError, match="validation_labels were given without validation"):
        sg.loss_by_level(model, gaussian(3, 0), validation_labels=torch.zeros(3).long())
    with pytest.raises(ValueError, match="labels were given, but the Best knows no classes"):
        sg.loss_by_level(model, gaussian(3, 0), labels=torch.zeros(3).long())
