"""VAEs against the linear Gaussian model, in which the posterior and log p(x) are known."""

import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.variational import LinearGaussianModel
from tests.variational.weights import seeded

F64 = torch.float64
D, K = 5, 2


class _Linear(nn.Module):
    """An encoder of linear means and constant variances: the form of the exact posterior."""

    def __init__(self):
        super().__init__()
        self.means = nn.Linear(D, K, dtype=F64)
        self.log_variances = nn.Parameter(torch.zeros(K, dtype=F64))

    def forward(self, x):
        return torch.cat([self.means(x), self.log_variances.expand(len(x), -1)], 1)


def _model():
    a = torch.randn(D, K, generator=torch.Generator().manual_seed(3), dtype=F64)
    a = a @ torch.linalg.eigh(a.T @ a)[1]  # orthogonal columns: the posterior is diagonal
    return LinearGaussianModel(a, 0.3, 0.25)


def _exact_vae(model, off=0.0):
    """The VAE whose encoder is the posterior of a linear model, but for a shift of its means."""
    vae = sg.VAE(_Linear(), nn.Linear(K, D, dtype=F64), K, std=0.5, learn_std=False).double()
    zero, posterior = model.posterior(torch.zeros(D, dtype=F64)), model.posterior(torch.eye(D))
    with torch.no_grad():
        vae.decoder.weight.copy_(model.matrix)
        vae.decoder.bias.copy_(model.shift)
        vae.encoder.means.weight.copy_((posterior.mean - zero.mean).T)
        vae.encoder.means.bias.copy_(zero.mean + off)
        vae.encoder.log_variances.copy_(zero.matrix().diagonal().log())
    return vae


def test_at_the_exact_posterior_the_bound_is_log_p_and_has_no_variance_importance_weighted():
    model = _model()
    vae, x = _exact_vae(model), model.evidence.sample(6, rng=0)
    exact = model.evidence.log_prob(x)
    for importance in (2, 8):
        found = vae.bound(x, samples=4, importance=importance, rng=1)
        assert torch.allclose(found.log_prob, exact, atol=1e-10)
        assert float(found.standard_error.max()) < 1e-10
    elbo = vae.bound(x, samples=400, rng=1)
    assert bool(((elbo.log_prob - exact).abs() < 4.4 * elbo.standard_error).all())
    assert torch.allclose(elbo.prior, model.posterior(x).kl(model.prior), atol=1e-10)


def test_the_bounds_are_below_log_p_by_known_amounts_and_rise_with_k():
    """Within 4.4 standard errors: one false alarm in 10⁴ seeds, six points of two bounds."""
    model = _model()
    vae, x = _exact_vae(model, off=0.3), model.evidence.sample(6, rng=0)
    exact = model.evidence.log_prob(x)
    elbo = vae.bound(x, samples=1500, rng=1)
    q = vae.posterior(x)
    terms = model.terms(x, q)
    assert bool(((elbo.log_prob - terms.bound).abs() < 4.4 * elbo.standard_error).all())
    likelihood = -terms.expected_log_likelihood
    assert torch.allclose(elbo.reconstruction, likelihood.detach(), atol=0.2)
    assert torch.allclose(elbo.prior, q.kl(model.prior).detach(), atol=1e-10)
    means = [elbo.log_prob.mean()]
    for importance in (4, 64):
        found = vae.bound(x, samples=1000, importance=importance, rng=1)
        assert bool((found.log_prob < exact + 4.4 * found.standard_error).all())
        means.append(found.log_prob.mean())
    assert means[0] < means[1] < means[2] < exact.mean()
    assert exact.mean() - means[2] < 0.1 * (exact.mean() - means[0])


def test_gradients_of_the_bound_are_those_of_the_closed_form():
    """Each of 34 within 4.9 standard errors of 40 seeds: one false alarm in 1,500."""
    model = _model()
    vae, x = _exact_vae(model, off=0.3), model.evidence.sample(6, rng=0)
    weights = [*vae.encoder.parameters(), *vae.decoder.parameters()]

    def gradient(bound):
        grads = torch.autograd.grad(bound, weights)
        return torch.cat([g.flatten() for g in grads])

    linear = LinearGaussianModel(vae.decoder.weight, vae.decoder.bias, 0.25)
    exact = gradient(linear.terms(x, vae.posterior(x)).bound.sum())
    found = torch.stack(
        [
            gradient(vae.bound(x, samples=25, rng=seed, differentiable=True).log_prob.sum())
            for seed in range(40)
        ]
    )
    error = found.std(0) / math.sqrt(40)
    assert bool(((found.mean(0) - exact).abs() < 4.9 * error + 1e-10).all())
    assert not vae.bound(x, samples=2, rng=0).log_prob.requires_grad


def _ppca(x):
    """The most likely log p(x), a datum, of K factors and isotropic noise."""
    n = len(x)
    values = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / n).flip(0)
    noise = values[K:].mean()
    spectrum = torch.cat([values[:K], noise.expand(D - K)])
    return float(-0.5 * (D * math.log(2 * math.pi) + spectrum.log().sum() + D))


def test_trained_it_is_probabilistic_pca():
    """With learned σ², to 1e-3 nats a datum of the exact maximum of the likelihood."""
    x = _model().evidence.sample(400, rng=5)
    vae = seeded(sg.VAE(_Linear(), nn.Linear(K, D, dtype=F64), K).double())
    config = sg.FitConfig(steps=1000, batch_size=400, learning_rate=0.03, ema_decay=0.99)
    sg.fit(vae, x, sg.VAELoss(), config, rng=0)
    best = _ppca(x)
    with torch.no_grad():
        learned = LinearGaussianModel(vae.decoder.weight, vae.decoder.bias, vae.std.square())
        bound = float(learned.terms(x, vae.posterior(x)).bound.mean())
        likelihood = float(learned.evidence.log_prob(x).mean())
    assert best - 1e-3 < bound <= likelihood <= best


@torch.no_grad()
def test_the_loss_is_the_negative_bound_and_beta_weighs_its_kl():
    model = _model()
    vae, x = _exact_vae(model, off=0.4), model.evidence.sample(20_000, rng=0)
    noise = sg.training.BatchNoise(stream(0, "test"), len(x))
    terms = model.terms(x, vae.posterior(x))
    plain, named = sg.VAELoss()(vae, sg.training.Batch(x), noise)
    error = float(plain.std() / math.sqrt(len(x)))
    assert abs(float((plain + terms.bound).mean())) < 4.4 * error
    assert torch.allclose(named["kl"], terms.prior_kl)
    noise = sg.training.BatchNoise(stream(0, "test"), len(x))
    weighted, _ = sg.VAELoss(beta=3.0)(vae, sg.training.Batch(x), noise)
    assert torch.allclose(weighted, plain + 2.0 * terms.prior_kl)


@torch.no_grad()
def test_a_mixture_and_a_boltzmann_density_are_priors():
    """The ELBO at the prior itself as q, and no information in x, is E log p(x | z): KL is 0."""
    well = sg.FokkerPlanck(sg.Langevin(sg.DoubleWell(), 0.5), sg.Grid(-3, 3, 400)).stationary()
    mixture = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.5)
    boltzmann = sg.DensityPrior(well)
    x = torch.zeros(1, 1, dtype=F64)
    grid = sg.Grid(-3, 3, 400)
    for prior in (mixture, boltzmann):
        encoder, decoder = nn.Linear(1, 2, dtype=F64), nn.Linear(1, 1, dtype=F64)
        with torch.no_grad():
            encoder.weight.zero_()
            encoder.bias.copy_(torch.tensor([0.2, math.log(0.09)]))
        vae = sg.VAE(encoder, decoder, 1, learn_std=False, prior=prior)
        found = vae.bound(x, samples=1000, rng=0)
        exact = sg.variational.kl_divergence(sg.Gaussian([0.2], [0.09]), prior, grids=grid)
        z = sg.Gaussian([0.2], [0.09]).sample(200_000, rng=1)
        assert abs(float(found.prior) - exact.value) < 4.4 * float(
            (vae.posterior(x).log_prob(z) - prior.log_prob(z)).std() / math.sqrt(1000)
        )
        drawn = vae.sample(20_000, rng=2)
        latent = prior.sample(20_000, rng=3, dtype=F64)
        with torch.no_grad():
            means = decoder(latent)
        spread = math.sqrt(float(means.var()) + 1.0)
        assert abs(float(drawn.mean() - means.mean())) < 6.3 * spread / math.sqrt(20_000)
        assert float(drawn.std()) == pytest.approx(spread, rel=0.03)


def test_bernoulli_pixels():
    """Independent pixels: with no information in z the bound is −Σ of binary cross-entropies."""
    x = (torch.rand(2000, 3, 2, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (3, 2)))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    with torch.no_grad():
        for layer in (decoder[0], encoder[1]):
            layer.weight.zero_()
        decoder[0].bias.fill_(math.log(0.3 / 0.7))
        encoder[1].bias.zero_()
    vae = sg.VAE(encoder, decoder, 2, likelihood="bernoulli")
    found = vae.bound(x, samples=2, rng=0)
    ones = x.flatten(1).sum(1).double()
    exact = ones * math.log(0.3) + (6 - ones) * math.log(0.7)
    assert torch.allclose(found.log_prob, exact, atol=1e-5)
    drawn = vae.sample(4000, rng=1)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert abs(float(drawn.mean()) - 0.3) < 4.4 * math.sqrt(0.21 / 24_000)
    with pytest.raises(ValueError, match=r"x must be 0 or 1 for Bernoulli pixels, but is 0\.5"):
        vae.bound(0.5 * torch.ones(2, 3, 2))
    with pytest.raises(ValueError, match="x must be 0 or 1"):
        sg.fit(vae, 0.5 * torch.ones(8, 3, 2), sg.VAELoss(), sg.FitConfig(steps=1, batch_size=4))


def test_bad_networks_are_named():
    x = torch.randn(4, 3)
    wrong = sg.VAE(nn.Linear(3, 3), nn.Linear(2, 3), 2)
    with pytest.raises(ValueError, match=r"encoder must return shape \(4, 4\), means and"):
        wrong.bound(x)
    wrong = sg.VAE(nn.Linear(3, 4), nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match=r"decoder must return x's shape \(4, 3\)"):
        wrong.bound(x)
    with pytest.raises(ValueError, match="leave beta = 1, or importance = 1"):
        sg.VAELoss(beta=2.0, importance=3)


def test_a_training_resumes_to_the_same_bits(tmp_path):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

    def trained(steps, **options):
        vae = seeded(sg.VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2))
        config = sg.FitConfig(steps=40, batch_size=16, checkpoint_every=10)
        loss = sg.VAELoss(importance=3)
        if steps < 40:

            class Cut(Exception):
                pass

            def stop(report):
                if report.step == steps:
                    raise Cut

            with pytest.raises(Cut):
                sg.fit(vae, x, loss, config, rng=1, callbacks=[stop], **options)
            return None
        sg.fit(vae, x, loss, config, rng=1, **options)
        return torch.cat([p.flatten() for p in vae.parameters()])

    whole = trained(40)
    trained(20, folder=tmp_path)
    assert torch.equal(trained(40, folder=tmp_path, resume=True), whole)
