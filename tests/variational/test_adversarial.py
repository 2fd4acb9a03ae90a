"""Critics and generators on the line, where the best critic and the best generator are known."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.training import Batch, BatchNoise
from tests.variational.weights import seeded

F64 = torch.float64
ADAM = functools.partial(torch.optim.Adam, betas=(0.5, 0.9))


class Parabola(nn.Module):
    """D(x) = a + b x + c x²: the form of the log-ratio of two Gaussians."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3, dtype=F64))

    def forward(self, x):
        return torch.cat([x**0, x, x**2], 1) @ self.weights


def _normals(n, mean, std, seed=0):
    return mean + std * stream(seed, "data").normal((n, 1), dtype=F64)


def test_the_best_critic_is_the_logarithm_of_the_ratio_of_densities():
    """N(1, 0.7²) against N(0, 1), which no weight moves: to 0.06 nats over ±2 deviations.

    Of three seeds the worst had 0.022.
    """
    x = _normals(40_000, 1.0, 0.7)
    gan = sg.GAN(nn.Identity(), Parabola(), latents=1)
    config = sg.FitConfig(steps=300, batch_size=2000, learning_rate=0.1, warmup=10, ema_decay=0.99)
    result = sg.fit(gan, x, sg.GANLoss(r1=0.0), config, rng=0)
    points = torch.linspace(-0.4, 2.4, 30, dtype=F64)[:, None]
    p, q = sg.Gaussian([1.0], [0.49]), sg.Gaussian([0.0], [1.0])
    exact = p.log_prob(points) - q.log_prob(points)
    assert float((gan.log_ratio(points) - exact).abs().max()) < 0.06
    # and its loss is log 4 − 2 JSD there
    jsd = sg.variational.jensen_shannon(p, q, grids=sg.Grid(-8.0, 8.0, 800)).value
    best = math.log(4) - 2 * jsd
    assert float(result.logs["critic"][-100:].mean()) == pytest.approx(best, abs=0.02)


def test_a_linear_generator_reaches_mean_and_std_of_a_gaussian():
    """N(2, 0.5²) from N(0, 1): within 0.05 in both; of three seeds the worst had 0.022."""
    x = _normals(4000, 2.0, 0.5)
    gan = sg.GAN(nn.Linear(1, 1).double(), Parabola(), latents=1)
    with torch.no_grad():
        gan.generator.weight.fill_(1.0)
        gan.generator.bias.zero_()
    config = sg.FitConfig(
        steps=1200, batch_size=512, learning_rate=0.05, warmup=10, ema_decay=0.99
    )
    sg.fit(gan, x, sg.GANLoss(r1=1.0), config, rng=0, optimizer=ADAM)
    assert gan.generator.bias.item() == pytest.approx(float(x.mean()), abs=0.05)
    assert abs(gan.generator.weight.item()) == pytest.approx(float(x.std()), abs=0.05)
    drawn = gan.sample(4000, rng=1)
    assert float(drawn.mean()) == pytest.approx(2.0, abs=0.1)
    assert float((gan.log_ratio(x)).abs().max()) < 0.1  # it cannot tell them


def test_one_backward_gives_each_player_the_gradient_of_its_own_loss():
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    gan = sg.GAN(nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), 3)
    gan = seeded(gan.double())
    noise = BatchNoise(stream(0, "test"), 7)
    loss, terms = sg.GANLoss(r1=3.0)(gan, Batch(x), noise)
    z = BatchNoise(stream(0, "test"), 7).normal_like(x.new_empty(7, 3))
    both = torch.autograd.grad(loss.sum(), list(gan.parameters()))
    fake = gan.generator(z)
    softplus = nn.functional.softplus
    generator = softplus(-gan.critic(fake)).sum()
    w1, w2 = gan.critic[0].weight, gan.critic[2].weight
    slope = (w2 * (1 - gan.critic[1](gan.critic[0](x)).square())) @ w1  # by hand
    penalty = 1.5 * slope.square().sum(1)
    critic = softplus(-gan.critic(x)) + softplus(gan.critic(fake.detach()))
    assert torch.allclose(terms["critic"], critic[:, 0] + penalty)
    critic = critic.sum() + penalty.sum()
    mine = torch.autograd.grad(generator, list(gan.generator.parameters()))
    theirs = torch.autograd.grad(critic, list(gan.critic.parameters()), allow_unused=True)
    for found, exact in zip(both, (*mine, *theirs), strict=True):
        assert torch.allclose(found, torch.zeros(()).double() if exact is None else exact)


def _normalised():
    """A GAN whose critic has layers of norm 1."""
    critic = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1))
    gan = seeded(sg.GAN(nn.Linear(3, 2), critic, 3))
    for i in (0, 2):
        spectral_norm(critic[i])
        for vector in critic[i].parametrizations.weight[0].buffers():
            vector.fill_(len(vector) ** -0.5)  # it begins from torch's global numbers
    return gan, sg.GANLoss(r1=0.0)


def _judged():
    """An adversarial autoencoder with another prior."""
    prior = sg.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], stds=0.3)
    vae = sg.VAE(nn.Linear(2, 2), nn.Linear(1, 2), 1, prior=prior)
    return seeded(sg.AdversarialAutoencoder(vae, nn.Linear(1, 1))), sg.AdversarialLoss()


def _learned():
    """A VAE-GAN."""
    parts = nn.Linear(2, 2), nn.Linear(1, 2), nn.Linear(2, 3), nn.Linear(3, 1)
    return seeded(sg.VAEGAN(*parts, latents=1)), sg.VAEGANLoss()


@pytest.mark.parametrize("game", [_normalised, _judged, _learned])
def test_a_game_resumes_to_the_same_bits(game, tmp_path):
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    config = sg.FitConfig(steps=30, batch_size=16, checkpoint_every=10)

    def stop(report):
        if report.step == 20:
            raise InterruptedError

    def trained(**options):
        module, loss = game()
        sg.fit(module, x, loss, config, rng=1, optimizer=ADAM, **options)
        return module.state_dict()

    whole = trained()
    with pytest.raises(InterruptedError):
        trained(callbacks=[stop], folder=tmp_path)
    resumed = trained(folder=tmp_path, resume=True)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    begun = game()[0].state_dict()
    moved = [name for name in whole if not torch.equal(begun[name], whole[name])]
    fixed = {"autoencoder.log_std"} & set(whole)
    assert set(whole) - set(moved) <= fixed


def test_spectral_normalisation_holds_in_a_game():
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    gan, loss = _normalised()
    sg.fit(gan, x, loss, sg.FitConfig(steps=30, batch_size=16), rng=1, optimizer=ADAM)
    for i in (0, 2):
        size = torch.linalg.matrix_norm(gan.critic[i].weight.detach(), 2)
        assert float(size) == pytest.approx(1, abs=0.05)


def test_parts_of_a_step_add_up():
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    ends = []
    for parts in (1, 3):
        gan = seeded(sg.GAN(nn.Linear(3, 2), nn.Linear(2, 1), 3).double())
        config = sg.FitConfig(steps=20, batch_size=16, accumulate=parts)
        sg.fit(gan, x, sg.GANLoss(), config, rng=1)
        ends.append(torch.cat([p.flatten() for p in gan.parameters()]))
    assert torch.allclose(ends[0], ends[1], atol=1e-12)


def test_a_critic_of_latents_moves_the_encoder_to_the_prior():
    """X ~ N(2, 0.6²), one linear latent, prior N(1, 2²): mean and std of z within 0.2 and 0.15.

    Of three seeds the worst had 0.05 and 0.03.
    """
    x = _normals(4000, 2.0, 0.6)
    model = sg.Autoencoder(
        nn.Linear(1, 1),
        nn.Linear(1, 1),
        1,
        std=0.5,
        prior=sg.GaussianMixture([1.0], [[1.0]], stds=2.0),
    ).double()
    with torch.no_grad():
        for layer in (model.encoder, model.decoder):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    both = sg.AdversarialAutoencoder(model, Parabola())
    config = sg.FitConfig(steps=700, batch_size=256, learning_rate=0.03, warmup=10, ema_decay=0.98)
    sg.fit(both, x, sg.AdversarialLoss(3.0, r1=0.3), config, rng=0, optimizer=ADAM)
    with torch.no_grad():
        z = model.encode(x)
        gap = (x - model.decode(z)).square().mean().sqrt()
    assert float(z.mean()) == pytest.approx(1.0, abs=0.2)
    assert float(z.std()) == pytest.approx(2.0, abs=0.15)
    assert float(gap) < 0.05
    assert float(both.log_ratio(z).abs().mean()) < 0.1  # it can hardly tell them


def test_the_loss_of_an_adversarial_autoencoder_is_its_three_terms():
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = sg.AdversarialAutoencoder(sg.VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2), nn.Linear(2, 1))
    model = seeded(model.double())
    vae, critic = model.autoencoder, model.critic
    loss, _ = sg.AdversarialLoss(2.5, r1=0.4)(model, Batch(x), BatchNoise(stream(0, "test"), 7))
    noise, q = BatchNoise(stream(0, "test"), 7), vae.posterior(x)
    z = q.mean + q.covariance.sqrt() * noise.normal_like(q.mean)
    prior, softplus = noise.normal_like(z), nn.functional.softplus
    autoencoder = -vae.log_prob_given(x, z) + 2.5 * softplus(-critic(z))[:, 0]
    told = softplus(-critic(prior)) + softplus(critic(z.detach()))
    told = told[:, 0] + 0.2 * critic.weight.square().sum()
    assert torch.allclose(loss, autoencoder + told)
    found = torch.autograd.grad(loss.sum(), list(model.parameters()))
    mine = torch.autograd.grad(autoencoder.sum(), list(vae.parameters()))
    theirs = torch.autograd.grad(told.sum(), list(critic.parameters()))
    names = [name for name, _ in model.named_parameters()]
    assert names == [f"autoencoder.{n}" for n, _ in vae.named_parameters()] + [
        "critic.weight",
        "critic.bias",
    ]
    for a, b in zip(found, (*mine, *theirs), strict=True):
        assert torch.allclose(a, b)


def _vae_gan(features=2):
    parts = nn.Linear(3, 4), nn.Linear(2, 3), nn.Linear(3, features), nn.Linear(features, 1)
    return seeded(sg.VAEGAN(*parts, latents=2).double())


def test_with_features_that_are_x_a_vae_gan_is_a_vae():
    """The head is 0, f = x: gradients of encoder and decoder are those of the ELBO at std = 1."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = _vae_gan(3)
    with torch.no_grad():
        model.critic[0].weight.copy_(torch.eye(3))
        model.critic[0].bias.zero_()
        model.critic[1].weight.zero_()
        model.critic[1].bias.zero_()
    vae = sg.VAE(model.encoder, model.decoder, 2, learn_std=False)
    found, terms = sg.VAEGANLoss()(model, Batch(x), BatchNoise(stream(0, "test"), 7))
    exact, parts = sg.VAELoss()(vae, Batch(x), BatchNoise(stream(0, "test"), 7))
    assert torch.allclose(terms["kl"], parts["kl"])
    constant = 1.5 * math.log(2 * math.pi)
    players = 3 * math.log(2.0)  # of a critic that says ½ to all: 2 log 2 and log 2
    assert torch.allclose(found - players, exact - constant)
    weights = [*model.encoder.parameters(), *model.decoder.parameters()]
    for a, b in zip(
        torch.autograd.grad(found.sum(), weights),
        torch.autograd.grad(exact.sum(), weights),
        strict=True,
    ):
        assert torch.allclose(a, b)


def test_each_part_of_a_vae_gan_learns_from_its_own_terms():
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = _vae_gan()
    loss, _ = sg.VAEGANLoss(2.0, r1=0.5)(model, Batch(x), BatchNoise(stream(0, "test"), 7))
    noise, q = BatchNoise(stream(0, "test"), 7), model.posterior(x)
    z = q.mean + q.covariance.sqrt() * noise.normal_like(q.mean)
    other = noise.normal_like(z)
    softplus, d = nn.functional.softplus, model.critic
    vae = (q.kl(sg.Gaussian(torch.zeros(7, 2), torch.ones(7, 2)))).sum()
    apart = 0.5 * (d[0](x) - d[0](model.decoder(z))).square().sum()
    fakes = [model.decoder(z), model.decoder(other)]
    said = sum(softplus(-d(fake)).sum() for fake in fakes)  # weight 2 of their mean
    told = softplus(-d(x)).sum() + 0.5 * sum(softplus(d(fake.detach())).sum() for fake in fakes)
    told = told + 7 * 0.25 * (d[1].weight @ d[0].weight).square().sum()
    assert torch.allclose(loss.sum(), vae + apart + said + told)
    expected = {
        "encoder": (model.encoder, vae + apart),
        "decoder": (model.decoder, apart + said),
        "critic": (model.critic, told),
    }
    for part, value in expected.values():
        found = torch.autograd.grad(loss.sum(), list(part.parameters()), retain_graph=True)
        exact = torch.autograd.grad(value, list(part.parameters()), retain_graph=True)
        for a, b in zip(found, exact, strict=True):
            assert torch.allclose(a, b)


def test_a_validation_and_other_shapes_are_refused():
    x = torch.randn(8, 2)
    config = sg.FitConfig(steps=1, batch_size=4)
    with pytest.raises(ValueError, match="GANLoss is a sum over two players"):
        sg.fit(sg.GAN(nn.Linear(1, 2), nn.Linear(2, 1), 1), x, sg.GANLoss(), config, validation=x)
    with pytest.raises(ValueError, match="generator must return x's shape"):
        sg.fit(sg.GAN(nn.Linear(1, 1), nn.Linear(2, 1), 1), x, sg.GANLoss(), config)
    with pytest.raises(ValueError, match="critic must return one logit for each row"):
        sg.fit(sg.GAN(nn.Linear(1, 2), nn.Linear(2, 2), 1), x, sg.GANLoss(), config)
