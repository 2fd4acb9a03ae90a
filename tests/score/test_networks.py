"""Networks: their formulas, where their weights come from, and a linear map of pixels learned."""

import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.fingerprint import to_spec
from sdegen.score.layers import TimeFeatures
from sdegen.score.spec import class_spec

MAKE = {
    "MLP": lambda rng: sg.MLP(6, width=32, depth=2, rng=rng),
    "UNet": lambda rng: sg.UNet(2, width=8, levels=2, rng=rng),
}


@pytest.fixture(params=MAKE.values(), ids=MAKE.keys())
def make(request):
    return request.param


def awake(network):
    """The network with its zero layers drawn, so that it is not the zero function."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return network


def event(network):
    return (6,) if isinstance(network, sg.MLP) else (2, 8, 12)


def test_time_features_by_hand():
    t = torch.tensor([1.0, 0.01, 1e-7], dtype=torch.float64)
    found = TimeFeatures()(t)
    assert found.shape == (3, TimeFeatures.size)
    for row, value in zip(found, t.tolist(), strict=True):
        u = (value, max(math.log(max(value, 1e-5)) / math.log(1e-5), 0.0))
        cosines = [math.cos(math.pi * k * a) for a in u for k in range(1, 9)]
        sines = [math.sin(math.pi * k * a) for a in u for k in range(1, 9)]
        assert row.tolist() == pytest.approx([*u, *cosines, *sines], abs=1e-12)


def test_mlp_by_hand():
    network = awake(sg.MLP(3, width=4, depth=2, rng=0)).double()
    x, t = (
        torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64),
        torch.tensor([0.3], dtype=torch.float64),
    )
    w = network.state_dict()

    def linear(name, value):
        return w[f"{name}.weight"] @ value + w[f"{name}.bias"]

    def silu(value):
        return value / (1 + (-value).exp())

    time = TimeFeatures()(t)[0]
    b = linear("shift", time).reshape(3, 4)
    h = silu(linear("enter", x[0]) + b[0])
    h = h + silu(linear("layers.0", h) + b[1])
    h = h + silu(linear("layers.1", h) + b[2])
    expected = linear("leave", h) + linear("gate", time) * x[0]
    assert torch.allclose(network(x, t)[0], expected, rtol=1e-12)


def test_untrained_it_is_the_zero_function(make):
    network = make(0)
    x = torch.randn(3, *event(network), generator=torch.Generator().manual_seed(0))
    assert not network(x, torch.full((3,), 0.5)).any()


def test_weights_come_from_rng_and_from_nothing_else(make):
    before = torch.get_rng_state()
    one = make(1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # whatever torch's generator has been doing
    again, other = make(1).state_dict(), make(2).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["enter.weight"], other["enter.weight"])


def test_the_variance_of_weights_is_one_over_fan_in():
    """Uniform weights: the sample variance of n has a relative standard error √(0.8/n)."""
    network = sg.MLP(2, width=128, rng=0)
    w = network.layers[0].weight.detach()
    assert float(w.var()) * 128 == pytest.approx(1, abs=4.4 * math.sqrt(0.8 / w.numel()))
    conv = sg.UNet(1, width=32, rng=0).down[0].conv1.weight.detach()
    assert float(conv.var()) * 32 * 9 == pytest.approx(1, abs=4.4 * math.sqrt(0.8 / conv.numel()))
    assert not torch.equal(network.layers[0].weight, network.layers[1].weight)


def test_rows_do_not_see_each_other(make):
    network = awake(make(0)).double()
    x = torch.randn(
        4, *event(network), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    together = network(x, t)
    for row in range(4):
        alone = network(x[row : row + 1], t[row : row + 1])
        assert torch.allclose(together[row], alone[0], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(together[0], network(x[:1], t[1:2])[0], rtol=1e-3)  # time matters


def test_one_time_for_all_rows_is_that_time_in_each(make):
    network = awake(make(0)).double()
    x = torch.randn(
        4, *event(network), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    t = torch.tensor(0.3, dtype=torch.float64)
    assert torch.allclose(network(x, t.expand(4)), network(x, t.repeat(4)), rtol=1e-12, atol=1e-14)


def test_every_parameter_is_used(make):
    network = awake(make(0)).double()
    x = torch.randn(
        5, *event(network), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    network(x, torch.rand(5, dtype=torch.float64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-8, name


def test_an_mlp_takes_images_as_flat_states():
    network = awake(sg.MLP(64, width=16, rng=0))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.full((3,), 0.5)
    assert torch.equal(network(x, t), network(x.flatten(1), t).reshape(x.shape))


def test_a_unet_learns_the_linear_denoiser_of_correlated_pixels():
    """Gaussian images with covariance C: E[ε | x] = σ (α² C + σ² I)⁻¹ x mixes neighbouring pixels.

    Without a look at neighbours the error of the best map is 0.135; the exact one makes 0.
    """
    n, sde = 4, sg.VP(sg.LinearBeta(0.1, 20.0))
    place = torch.arange(n, dtype=torch.float64)
    line = torch.exp(-0.5 * ((place[:, None] - place) / 2.0) ** 2)
    covariance = torch.kron(line, line)
    t = torch.tensor(0.25, dtype=torch.float64)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    exact = sigma * torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(n * n))
    marginal = alpha**2 * covariance + sigma**2 * torch.eye(n * n, dtype=torch.float64)
    root = torch.linalg.cholesky(marginal)
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        x = torch.randn(count, n * n, dtype=torch.float64, generator=generator) @ root.T
        return x.float().reshape(count, 1, n, n), (x @ exact).float().reshape(count, 1, n, n)

    network = sg.UNet(1, width=8, levels=2, rng=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    times = t.float().expand(256)
    for _ in range(250):
        x, answer = draw(256)
        loss = (network(x, times) - answer).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, answer = draw(256)
    with torch.no_grad():
        error = float((network(x, times) - answer).square().mean())
    diagonal = float(exact.diagonal().mean())
    alone = float((diagonal * x - answer).square().mean())
    assert error < 0.05 * alone, (error, alone)


@pytest.mark.parametrize(("levels", "shift"), [(1, 1), (2, 2), (3, 4)])
def test_a_circular_unet_commutes_with_translations_of_a_periodic_lattice(levels, shift):
    x = torch.randn(2, 1, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)

    def off(padding):
        network = awake(sg.UNet(1, width=8, levels=levels, padding=padding, rng=0)).double()
        with torch.no_grad():
            moved, out = network(x.roll((shift, -shift), (2, 3)), t), network(x, t)
        return float((moved.roll((-shift, shift), (2, 3)) - out).abs().max() / out.abs().max())

    assert off("circular") < 1e-12
    assert off("zeros") > 1e-2


def test_padding_is_kept_in_files_where_it_is_circular(tmp_path):
    sde, x = sg.StochasticHeat((4, 4)), torch.randn(3, 1, 4, 4)
    spec = {}
    for padding in ("zeros", "circular"):
        network = awake(sg.UNet(1, width=4, levels=2, padding=padding, rng=0))
        model = sg.ScoreModel(network, sde)
        model.save(tmp_path / "m.safetensors")
        again = sg.ScoreModel.load(tmp_path / "m.safetensors")
        assert again.network.padding == padding
        assert torch.equal(again.score(x, 0.5), model.score(x, 0.5))
        spec[padding] = class_spec(network)
    assert spec["circular"] == {**spec["zeros"], "padding": "circular"}
    assert "padding" not in spec["zeros"]  # as files of before have it
    assert to_spec(sg.UNet(rng=0)) != to_spec(sg.UNet(padding="circular", rng=0))
    with pytest.raises(ValueError, match="padding must be 'zeros' or 'circular', but is 'same'"):
        sg.UNet(padding="same")


@pytest.mark.parametrize(("name", "size"), [("dim", 0), ("width", -1), ("depth", 0)])
def test_sizes_below_one_are_refused(name, size):
    with pytest.raises(ValueError, match=f"{name} must be ≥ 1, but is {size}"):
        sg.MLP(**({"dim": 2} | {name: size}))


def test_shapes_that_do_not_fit_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"takes states of 2 numbers.*\(5, 3\).*MLP\(dim=3\)"):
        sg.MLP(2, rng=0)(torch.zeros(5, 3), torch.ones(5))
    with pytest.raises(ValueError, match=r"divisible by 4, but was given \(5, 1, 8, 6\)"):
        sg.UNet(1, width=8, levels=3, rng=0)(torch.zeros(5, 1, 8, 6), torch.ones(5))
    with pytest.raises(ValueError, match="width must be a multiple of 4, but is 10"):
        sg.UNet(1, width=10)
