"""A learned variance of a chain: Gaussian data, whose reverse steps are known."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
SDE = sg.VP(sg.LinearBeta(0.1, 20.0))
CHAIN = sg.DDPM.discretize(SDE, 10)
LATE = sg.DDPM.discretize(SDE, times=sg.timesteps.log_snr(SDE, 10))
STDS = torch.tensor([0.4, 1.3], dtype=F64)


def spread(k, chain=CHAIN):
    """Standard deviations of x_k, for data N(0, diag(STDS²))."""
    alpha, sigma = SDE.alpha(chain.times[k]), chain.sigmas[k]
    return (alpha**2 * STDS**2 + sigma**2).sqrt()


def best_std(k, chain=CHAIN):
    """The standard deviation of x_{k−1} given x_k: b_k std(x_{k−1})/std(x_k), by Bayes."""
    return chain.b[k - 1] * spread(k - 1, chain) / spread(k, chain)


class Exact(torch.nn.Module):
    """ε̂ of the data times a factor, and o that says `best_std`, or what it is given."""

    def __init__(self, chain=CHAIN, output=None, factor=1.0):
        super().__init__()
        self.chain, self.output = chain, output
        rows = [self.best_output(k) for k in range(1, 11)]
        self.table = torch.stack([torch.zeros_like(STDS), *rows])
        self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=F64))
        self.other = torch.nn.Parameter(torch.tensor(0.0, dtype=F64))

    def forward(self, x, t):
        alpha, sigma = SDE.alpha(t)[:, None], SDE.sigma(t)[:, None]
        eps = self.factor * sigma * x / (alpha**2 * STDS**2 + sigma**2)
        return torch.cat([eps, self.second(x, t) + self.other], 1)

    def second(self, x, t):
        if self.output is not None:
            return torch.full_like(x, self.output)
        k = (self.chain.times - t[:, None]).abs().argmin(1)
        return self.table[k]

    def best_output(self, k):
        """o of the best variance of step k."""
        b, sigmas = self.chain.b[k - 1], self.chain.sigmas
        low = b * sigmas[k - 1] / sigmas[k]
        if k == 1 and sigmas[0] == 0:  # the posterior of the next step stands in
            low = self.chain.b[1] * sigmas[1] / sigmas[2]
        return 2 * (best_std(k, self.chain) / low).log() / (b / low).log() - 1


def model_of(network):
    return sg.ScoreModel(network, SDE, sg.LearnedVariance())


def points(n=4000, seed=0):
    return STDS * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("chain", [CHAIN, LATE], ids=["from the data", "from t_min"])
def test_the_ends_are_the_two_fixed_variances(chain):
    """At w = 1 and w = 0 steps are those of "beta" and "posterior", to the last bit."""
    x = points(50)
    for output, variance in ((1.0, "beta"), (-1.0, "posterior")):
        model = model_of(Exact(chain, output))
        learned, fixed = (
            chain.reverse(model.score, "learned"),
            chain.reverse(model.score, variance),
        )
        for k in range(1, 11):
            assert torch.equal(learned.drift(x, k), fixed.drift(x, k))
            here, there = learned.diffusion(x, k), fixed.diffusion(x, k)
            torch.testing.assert_close(here, there.expand_as(x), rtol=0, atol=0)
        times, z = torch.arange(11.0).flip(0), SDE.prior((6, 2), rng=1, dtype=F64)
        runs = [sg.simulate(one, z, times, rng=2) for one in (learned, fixed)]
        torch.testing.assert_close(runs[0].final, runs[1].final, rtol=1e-13, atol=1e-13)
        assert runs[0].nfe == runs[1].nfe == 10


def test_a_run_in_blocks_and_threads_is_the_run_of_one():
    model = model_of(sg.MLP(2, width=8, depth=1, variance=True, rng=3))
    torch.nn.init.normal_(
        model.network.leave.weight, std=0.01, generator=torch.Generator().manual_seed(0)
    )
    chain, times = CHAIN.reverse(model.score, "learned"), torch.arange(11.0).flip(0)
    x = SDE.prior((40, 2), rng=1)
    whole = sg.simulate(chain, x, times, rng=2)
    cut = sg.simulate(chain, x, times, rng=2, interacting=False, threads=2)
    torch.testing.assert_close(whole.final, cut.final, rtol=1e-5, atol=1e-5)
    assert whole.nfe == cut.nfe == 10
    x, k = whole.final, torch.tensor(5)  # a state that was moved is another
    chain.drift(x, k)
    x += 1.0
    assert torch.equal(chain.diffusion(x, k), chain.step_std(x, k))


def test_flows_and_other_chains_see_the_mean_alone():
    """A second half changes nothing of what a model without it says."""
    plain = sg.ScoreModel(sg.MLP(3, width=8, depth=1, rng=0), SDE, sg.VPrediction())
    wide = sg.ScoreModel(
        sg.MLP(3, width=8, depth=1, variance=True, rng=0),
        SDE,
        sg.LearnedVariance(sg.VPrediction()),
    )
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(wide.network.leave.weight, std=0.05, generator=generator)
    with torch.no_grad():
        plain.network.leave.weight.copy_(wide.network.leave.weight[:3])
    x = torch.randn(7, 3, generator=generator)
    for name in ("score", "eps", "x0", "v", "output"):
        torch.testing.assert_close(getattr(wide, name)(x, 0.4), getattr(plain, name)(x, 0.4))
    for eta, solver in ((0.0, sg.ExponentialAdams(3, "v")), (1.0, sg.DDIM()), (1.0, sg.SRA())):
        grid = sg.timesteps.log_snr(SDE, 6)
        ends = [
            sg.simulate(sg.ReverseSDE(SDE, m.score, eta), x, grid, solver=solver, rng=0).final
            for m in (plain, wide)
        ]
        torch.testing.assert_close(*ends)
    ends = [sg.log_likelihood(SDE, m.score, x, solver=sg.Heun(4)).log_prob for m in (plain, wide)]
    torch.testing.assert_close(*ends)


def test_images_have_channels_of_variance(tmp_path):
    network = sg.UNet(2, width=8, variance=True, rng=0)
    torch.nn.init.normal_(network.leave.weight, generator=torch.Generator().manual_seed(1))
    model, x = model_of(network), torch.randn(3, 2, 4, 4)
    raw = network(x, torch.full((3,), 0.5))
    score, fraction = model.score.with_fraction(x, 0.5)
    torch.testing.assert_close(fraction, (1 + raw[:, 2:]) / 2)
    torch.testing.assert_close(score, model.score(x, 0.5))
    model.save(tmp_path / "m.safetensors")
    again = sg.ScoreModel.load(tmp_path / "m.safetensors")
    assert again.parameterization == sg.LearnedVariance()
    assert torch.equal(again.score.with_fraction(x, 0.5)[1], fraction)
    plain = sg.ScoreModel(sg.UNet(2, width=8, rng=0), SDE)
    plain.save(tmp_path / "p.safetensors")
    assert b"variance" not in (tmp_path / "p.safetensors").read_bytes()[:2000]


@pytest.mark.parametrize("chain", [CHAIN, LATE], ids=["from the data", "from t_min"])
def test_the_bound_of_the_best_variance_is_the_likelihood(chain):
    """Reverse steps of Gaussian data are Gaussian: nothing is lost but the prior's mismatch.

    Within 4.5 standard errors, a false alarm of 7e-6 each.
    """
    x = points()
    if chain is LATE:
        x = x * SDE.alpha(chain.times[0]) + chain.sigmas[0] * points(len(x), 9) / STDS
    bound = sg.elbo(chain.reverse(model_of(Exact(chain)).score, "learned"), x, rng=0)
    log_p = torch.distributions.Normal(0.0, spread(0, chain)).log_prob(x).sum(1)
    gap = bound.log_prob - log_p
    error = float(gap.std() / math.sqrt(len(x)))
    prior = float(0.5 * (spread(10, chain) ** 2 - 1 - 2 * spread(10, chain).log()).sum())
    assert abs(float(gap.mean()) + prior) < 4.5 * error < 0.03
    for variance in ("beta", "posterior"):
        options = {"decoder_std": float(chain.b[0])} if chain is CHAIN else {}
        other = sg.elbo(chain.reverse(model_of(Exact(chain)).score, variance), x, rng=0, **options)
        assert float(other.log_prob.mean()) < float(bound.log_prob.mean()) - 0.05


def test_the_loss_is_the_bound():
    """Its term "vlb" is what `elbo` says less the prior's, of any mean and variance."""
    x = points()
    model = model_of(Exact(output=0.3, factor=0.8)).eval()
    bound = sg.elbo(CHAIN.reverse(model.score, "learned"), x, samples=8, rng=0)
    expected = -(bound.log_prob + bound.prior) / 2
    loss = sg.HybridLoss(steps=CHAIN, vlb_weight=0.5).prepare(model, sg.training.Batch(x))
    batch = sg.training.Batch(x.repeat(10, 1))
    noise = sg.training.BatchNoise(sg.core.noise.stream(0, "test"), len(batch))
    with torch.no_grad():
        total, terms = loss(model, batch, noise)
    torch.testing.assert_close(total, terms["simple"] + 0.5 * terms["vlb"])
    gap = float(terms["vlb"].mean() - expected.mean())
    error = float(terms["vlb"].std()) / math.sqrt(len(batch)) + float(expected.std()) / 63
    assert abs(gap) < 4.5 * error < 0.2
    # L_simple of ε̂ = f ε*: E‖ε̂ − ε‖² = 1 − (2f − f²) E ε*², ε* = σ x/s², per number
    share = torch.stack([(CHAIN.sigmas[k] / spread(k)).square() for k in range(1, 11)])
    known = float((1 - (2 * 0.8 - 0.8**2) * share).mean())
    error = float(terms["simple"].std()) / math.sqrt(len(batch))
    assert abs(float(terms["simple"].mean()) - known) < 4.5 * error < 0.02


def test_the_bound_teaches_the_variance_alone():
    model = model_of(Exact(output=0.3, factor=0.8))
    loss = sg.HybridLoss(steps=CHAIN).prepare(model, sg.training.Batch(points(64)))
    noise = sg.training.BatchNoise(sg.core.noise.stream(0, "test"), 64)
    _, terms = loss(model, sg.training.Batch(points(64)), noise)
    network = model.network
    grads = {
        name: torch.autograd.grad(
            term.mean(), [network.factor, network.other], retain_graph=True, allow_unused=True
        )
        for name, term in terms.items()
    }
    assert grads["vlb"][0] is None or float(grads["vlb"][0]) == 0
    assert float(grads["vlb"][1]) != 0
    assert float(grads["simple"][0]) != 0
    assert grads["simple"][1] is None or float(grads["simple"][1]) == 0


def learned(steps, data):
    """A model of the data, trained from its random start."""
    model = model_of(sg.MLP(2, width=32, depth=1, variance=True, rng=0))
    config = sg.TrainConfig(steps=steps, batch_size=256, learning_rate=5e-3)
    loss = sg.HybridLoss(steps=CHAIN, vlb_weight=0.1)
    return model, sg.train(model, data, config, loss=loss, rng=0)


def check_learned(model, data, relative):
    """Learned deviations beside the best ones, and the bound beside those of β and β̃."""
    chain = CHAIN.reverse(model.score, "learned")
    for k in range(1, 11):
        x = (spread(k) * torch.randn(500, 2, generator=torch.Generator().manual_seed(k))).float()
        ratio = chain.step_std(x, k).detach().double().square().mean(0) / best_std(k) ** 2
        assert float((ratio - 1).abs().max()) < relative, (k, ratio)
    x = data[:1000]
    kinds = {"learned": {}, "beta": {}, "posterior": {"decoder_std": float(CHAIN.b[0])}}
    bounds = {
        name: sg.elbo(CHAIN.reverse(model.score, name), x, samples=4, rng=0, **more)
        for name, more in kinds.items()
    }
    means = {name: float(bound.log_prob.mean()) for name, bound in bounds.items()}
    log_p = torch.distributions.Normal(0.0, STDS).log_prob(x.double()).sum(1).mean()
    assert max(means["beta"], means["posterior"]) + 0.1 < means["learned"]
    assert means["learned"] < float(log_p) + 0.02


def test_a_training_comes_near_the_best_variance():
    data = points(20_000).float()
    model, result = learned(500, data)
    check_learned(model, data, 0.12)
    assert set(result.logs) == {"simple", "vlb"}


@pytest.mark.slow
def test_a_longer_training_comes_to_the_best_variance():
    data = points(20_000).float()
    check_learned(learned(4000, data)[0], data, 0.03)
