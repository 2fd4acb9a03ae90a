"""Normalizing flows: densities by quadrature, samples by their volume, training to the entropy."""

import copy
import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.variational import Flow, FlowLikelihood, LinearGaussianModel, Perceptron

F64 = torch.float64
NAMES = ("nice", "real nvp", "masked autoregressive", "spline")
CORRELATED = sg.Gaussian([0.5, -0.3], [[1.0, 0.8], [0.8, 1.0]])


def _flow(name, dim=2, **options):
    """A flow that is far from the identity."""
    flow = Flow(name, dim, width=16, rng=1, mean=0.3, std=0.7, **options).double()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.mul_(1.7).add_(0.05)
    return flow


@pytest.mark.parametrize("name", NAMES)
def test_a_density_in_the_plane_integrates_to_one(name):
    flow = _flow(name)
    grid = torch.linspace(-12.0, 12.0, 601, dtype=F64)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        log_p = torch.cat([flow.log_prob(rows) for rows in points.split(200_000)])
    mass = log_p.exp().sum() * (grid[1] - grid[0]) ** 2
    # a spline's density has kinks at its knots
    assert float(mass) == pytest.approx(1.0, abs=1e-3 if name == "spline" else 1e-5)
    spread = log_p[points.square().sum(1) < 4]  # not the normal that the identity would leave
    normal = sg.Gaussian([0.3, 0.3], 0.49).log_prob(points[points.square().sum(1) < 4])
    assert float((spread - normal).abs().max()) > 0.3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dim", "context"), [(1, 0), (1, 2), (3, 0), (3, 2)])
def test_push_is_the_inverse_with_the_volume_that_autograd_finds(name, dim, context):
    flow = _flow(name, dim, context=context)
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(4, dim, generator=generator, dtype=F64)
    told = torch.randn(4, context, generator=generator, dtype=F64) if context else None
    x, volume = (value.detach() for value in flow.push(z, told))
    expected = sg.Gaussian(torch.zeros(dim)).log_prob(z) - volume
    torch.testing.assert_close(flow.log_prob(x, told).detach(), expected, rtol=0, atol=1e-7)
    volumes = volume.tolist()
    for i in range(4):
        told_here = None if told is None else told[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda y, told=told_here: flow.push(y[None], told)[0][0], z[i]
        )
        assert float(jacobian.slogdet()[1]) == pytest.approx(volumes[i], abs=1e-7)
    if context:
        assert float((flow.log_prob(x, -told).detach() - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_trained_on_a_correlated_gaussian_it_reaches_the_entropy(name):
    x = CORRELATED.sample(20_000, rng=0, dtype=torch.float32)
    held_out = CORRELATED.sample(20_000, rng=1, dtype=torch.float32)
    flow = Flow(name, 2, transforms=2, width=16, depth=1, rng=0)
    config = sg.FitConfig(steps=700, batch_size=512, learning_rate=1e-2, warmup=20, ema_decay=0.99)
    sg.fit(flow, x, FlowLikelihood(), config, rng=0)
    # on the same points, so that their scatter of 0.007 nats is left out
    gap = (CORRELATED.log_prob(held_out) - flow.log_prob(held_out)).detach()
    assert -0.005 < float(gap.mean()) < 0.02
    drawn = flow.sample(20_000, rng=2, dtype=F64)
    # 5 standard errors of the covariance, and what the density is off by
    torch.testing.assert_close(drawn.T.cov(), CORRELATED.covariance, rtol=0, atol=0.09)
    torch.testing.assert_close(drawn.mean(0), CORRELATED.mean, rtol=0, atol=0.08)


def test_a_flow_is_told_its_labels():
    """p(x | c) = N(c, 0.1²): the entropy of x given c is log 0.1 + ½ log 2πe."""
    c = torch.randn(8_000, 1, generator=torch.Generator().manual_seed(0))
    x = c + 0.1 * torch.randn(8_000, 1, generator=torch.Generator().manual_seed(1))
    flow = Flow("real nvp", 1, transforms=2, width=16, depth=1, context=1, rng=0)
    config = sg.FitConfig(steps=700, batch_size=512, learning_rate=1e-2, warmup=20, ema_decay=0.99)
    sg.fit(flow, x, FlowLikelihood(), config, labels=c, rng=0)
    exact = sg.Gaussian([0.0], [0.01]).log_prob(x - c)
    assert abs(float((exact - flow.log_prob(x, c).detach()).mean())) < 0.05


def test_numbers_come_from_rng_and_not_from_torchs_generator():
    state = torch.random.get_rng_state()
    first, again, other = (Flow("spline", 3, rng=seed) for seed in (0, 0, 1))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.sample(4, rng=5), again.sample(4, rng=5))
    assert not torch.equal(first.sample(4, rng=5), other.sample(4, rng=5))
    assert not torch.equal(first.sample(4, rng=5), first.sample(4, rng=6))
    assert torch.equal(torch.random.get_rng_state(), state)
    copied = copy.deepcopy(first)
    assert torch.equal(copied.sample(4, rng=5), first.sample(4, rng=5))


def test_the_checks_of_torchs_distributions_stay_on(programs):
    """What zuko's import switches off in the whole process, in a process of its own."""
    code = """
import torch
from sdegen.variational import Flow

Flow("nice", 2, rng=0)
try:
    torch.distributions.Normal(0.0, -1.0)
except ValueError as error:
    print("scale" in str(error))
"""
    assert programs.run(code=code) == "True\n"


def test_as_a_prior_it_learns_the_law_of_the_latents():
    """Without a posterior of its own, log p(x) of a nearly noiseless decoder is the prior's."""
    x = CORRELATED.sample(8_000, rng=0, dtype=torch.float32)
    prior = Flow("real nvp", 2, transforms=2, width=16, depth=1, rng=2)
    encoder = Perceptron(2, 4, width=16, depth=1, rng=0)
    vae = sg.VAE(encoder, nn.Linear(2, 2), 2, std=0.5, prior=prior)
    config = sg.FitConfig(steps=800, batch_size=256, learning_rate=1e-2, warmup=20, ema_decay=0.99)
    sg.fit(vae, x, sg.VAELoss(), config, rng=0)
    held_out = CORRELATED.sample(2_000, rng=1, dtype=torch.float32)
    bound = vae.bound(held_out, samples=8, importance=16, rng=0).log_prob
    gap = (CORRELATED.log_prob(held_out) - bound).mean()
    assert -0.01 < float(gap) < 0.04
    assert vae.sample(3, rng=0).shape == (3, 2)


def test_an_affine_flow_in_the_posterior_gives_the_bound_of_the_gaussian_it_makes():
    """z = A(μ + σ ε) + b with a flow of linear maps: its bound is that of the law it makes.

    Within 4.4 standard errors: one false alarm in 10⁵, of five points.
    """
    model = LinearGaussianModel([[1.0, 0.5], [0.0, 1.0], [0.7, -0.2]], 0.1, 0.3)
    vae = sg.VAE(
        nn.Linear(3, 4, dtype=F64),
        nn.Linear(2, 3, dtype=F64),
        2,
        std=math.sqrt(0.3),
        learn_std=False,
        flow=(flow := Flow("nice", 2, transforms=1, width=4, rng=0).double()),
    ).double()
    with torch.no_grad():
        for weight in flow.transforms.parameters():
            weight.zero_()
        flow.log_scale.copy_(torch.tensor([0.3, -0.2]))
        vae.decoder.weight.copy_(model.matrix)
        vae.decoder.bias.copy_(model.shift)
        vae.encoder.weight[2:] = 0.0
        vae.encoder.bias[2:] = -1.0
    x = model.evidence.sample(5, rng=0)
    found = vae.bound(x, samples=2_000, rng=1)
    q = vae.posterior(x)
    scale = torch.exp(-flow.log_scale.detach())
    made = sg.Gaussian(q.mean.detach() * scale, q.covariance.detach() * scale.square())
    exact = model.terms(x, made).bound
    assert bool(((found.log_prob - exact).abs() < 4.4 * found.standard_error).all())


def test_a_flow_tightens_the_bound_of_a_posterior_that_is_not_diagonal():
    """x = z₁ + z₂ + noise: the posterior is correlated, and 0.59 nats are lost without a flow."""
    model = LinearGaussianModel([[1.0, 1.0]], 0.0, 0.2)
    x = model.evidence.sample(6_000, rng=0).float()
    gaps = {}
    for kind, flow in (
        ("none", None),
        ("flow", Flow("real nvp", 2, transforms=2, width=16, depth=1, context=4, rng=2)),
    ):
        decoder = nn.Linear(2, 1)
        with torch.no_grad():
            decoder.weight.fill_(1.0)
            decoder.bias.zero_()
        decoder.requires_grad_(requires_grad=False)
        vae = sg.VAE(nn.Linear(1, 4), decoder, 2, std=0.2**0.5, learn_std=False, flow=flow)
        config = sg.FitConfig(steps=600, batch_size=256, learning_rate=1e-2, warmup=20)
        sg.fit(vae, x, sg.VAELoss(), config, rng=0)
        points = x[:1000]
        bound = vae.bound(points, samples=64, rng=0).log_prob
        gaps[kind] = float((model.evidence.log_prob(points.double()) - bound).mean())
    lost = 0.5 * (2 * math.log(6.0) - math.log(11.0))  # of the best diagonal q, precision 6
    assert gaps["none"] == pytest.approx(lost, abs=0.03)
    assert -0.01 < gaps["flow"] < 0.1 * lost


def test_a_flow_without_zuko_says_what_to_install(monkeypatch):
    import importlib

    real = importlib.import_module

    def missing(name, *rest):
        if name == "zuko":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"pip install 'sdegen\[flows\]'"):
        Flow("nice", 2)
