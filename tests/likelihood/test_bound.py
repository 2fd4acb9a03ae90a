"""Evidence bounds: term by term against KLs of torch, against exact densities and chain laws.

Statistical tests allow 4.42 standard errors: each fails by chance once in 10⁵ seeds.
"""

import math

import numpy as np
import pytest
import torch
from exact import slope
from torch import distributions as dist

import sdegen as sg
from sdegen.likelihood import bound_terms

VP = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
SDES = {
    "VP": VP,
    "SubVP": sg.SubVP(sg.LinearBeta(0.1, 20.0), t_min=1e-2),
    "VE": sg.VE(sg.GeometricSigma(0.05, 8.0), t_min=1e-2),
}


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def grid(sde, steps):
    return sde.time_grid(steps)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def gaussian(sde, mean=0.4, std=0.5):
    """N(0.4, ½²) noised, and its exact log-density at t."""
    law = sg.GaussianMixture([1.0], [mean], stds=std).noised(sde)
    return law, lambda x, t: law.log_prob(x, time(t))


@pytest.fixture
def exact_in_one_dimension(monkeypatch):
    """Every term is quadratic in ε: its mean over ε = ±1 is its expectation."""

    def both_signs(x, samples, source):
        assert samples == 2
        return torch.cat([x, x]), torch.cat([torch.ones_like(x), -torch.ones_like(x)])

    monkeypatch.setattr(bound_terms, "_draws", both_signs)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_every_term_by_torch(monkeypatch, variance):
    """KLs of torch's Gaussians, from q(x_{k−1} | x_k, x) in its textbook form; two dimensions.

    Means over ε and −ε, for which the control variate vanishes if every |ε_i| = 1.
    """
    chain = sg.DDPM([0.2, 0.3, 0.5]).reverse(lambda x, t: -0.7 * x + 0.1 * t, variance)
    x = torch.tensor([[0.3, -1.2], [2.0, 0.1]], dtype=torch.float64)
    signs = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    pairs = torch.cat([signs, -signs])
    monkeypatch.setattr(
        bound_terms, "_draws", lambda x, samples, source: (torch.cat([x, x]), pairs)
    )
    found = sg.elbo(chain, x, samples=2, decoder_std=0.4)
    betas, bars = chain.chain.betas, chain.chain.alpha_bars

    def term(k, eps):
        """L_{k−1} with one ε."""
        now, b = bars[k - 1], betas[k - 1]
        x_k = now.sqrt() * x + (1 - now).sqrt() * eps
        ahead = (x_k + b * (-0.7 * x_k + 0.1 * chain.chain.times[k])) / (1 - b).sqrt()
        if k == 1:
            return -dist.Normal(ahead, 0.4).log_prob(x).sum(1)
        before = bars[k - 2]
        weight_start = before.sqrt() * b / (1 - now)
        weight_now = (1 - b).sqrt() * (1 - before) / (1 - now)
        spread = ((1 - before) / (1 - now) * b).sqrt()
        q = dist.Normal(weight_start * x + weight_now * x_k, spread)
        s = spread if variance == "posterior" else b.sqrt()
        return dist.kl_divergence(q, dist.Normal(ahead, s)).sum(1)

    rows = [found.reconstruction, *found.diffusion.T]
    for k, row in enumerate(rows, start=1):
        expected = 0.5 * (term(k, signs) + term(k, -signs))
        torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-12)
    q = dist.Normal(bars[2].sqrt() * x, (1 - bars[2]).sqrt())
    expected = dist.kl_divergence(q, dist.Normal(torch.zeros(()).double(), 1.0)).sum(1)
    torch.testing.assert_close(found.prior, expected, rtol=1e-12, atol=1e-12)
    total = found.prior + found.diffusion.sum(1) + found.reconstruction
    torch.testing.assert_close(found.log_prob, -total, rtol=1e-12, atol=0)
    assert found.nfe == 6


def test_unit_gaussian_data_show_no_error():
    """The control variate is then the term itself; one draw does not tell."""
    chain = sg.DDPM.discretize(VP, steps=9).reverse(lambda x, t: -x, "beta")
    x = column(1.0, -1.0, 1.0)  # of mean square 1
    assert sg.elbo(chain, x).standard_error.max() < 1e-12
    assert torch.isinf(sg.elbo(chain, x, samples=1).standard_error).all()


@pytest.mark.usefixtures("exact_in_one_dimension")
def test_equality_on_a_gaussian_as_steps_grow():
    """Exact score and p_N: the gap to log p at t_min falls as 1/N, to nothing, for every x."""
    law, log_prob = gaussian(VP)
    x = column(-0.6, 0.4, 1.9)
    steps, gaps = (100, 200, 400, 800), []
    for n in steps:
        chain = sg.DDPM.discretize(VP, times=sg.timesteps.log_snr(VP, n)).reverse(law.score)
        found = sg.elbo(chain, x, prior_log_prob=lambda y: log_prob(y, VP.t_max))
        gaps.append(log_prob(x, VP.t_min) - found.log_prob)
    gaps = torch.stack(gaps)
    for row in gaps.T:
        assert slope(1 / np.array(steps), row) == pytest.approx(1, abs=0.15)
    assert (2 * gaps[-1] - gaps[-2]).abs().max() < 2e-3  # extrapolated to N = ∞


@pytest.mark.usefixtures("exact_in_one_dimension")
def test_equality_at_every_number_of_steps_where_the_chain_is_exact():
    """Data N(0, 1) and variance "beta": every step of the chain is the true inverse."""
    chain = sg.DDPM.discretize(VP, steps=7).reverse(lambda x, t: -x, "beta")
    x = column(-1.0, 0.0, 2.5)
    found = sg.elbo(chain, x)
    expected = dist.Normal(0.0, 1.0).log_prob(x[:, 0])
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SDES)
def test_exact_score_of_a_mixture_stays_below_log_p(name):
    """On average over data; the gap halves with twice the steps: extrapolated, it is nothing."""
    sde = SDES[name]
    law = sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.0, -0.2]], stds=[0.4, 0.6]).noised(sde)
    n = 1_000
    x = law.sample(n, time(sde.t_min), rng=0, dtype=torch.float64)
    exact, prior = law.log_prob(x, time(sde.t_min)), at(law, sde.t_max)
    gaps, errors = [], []
    for steps in (100, 200):
        chain = sg.DDPM.discretize(sde, times=sg.timesteps.log_snr(sde, steps)).reverse(law.score)
        found = sg.elbo(chain, x, samples=4, rng=steps, prior_log_prob=prior)
        gaps.append(float((exact - found.log_prob).mean()))
        errors.append(float((exact - found.log_prob).std()) / math.sqrt(n))
        assert gaps[-1] > -4.42 * errors[-1]
    assert gaps[-1] > 10 * errors[-1]  # it is seen
    assert abs(2 * gaps[1] - gaps[0]) < 0.02 + 4.42 * math.hypot(2 * errors[1], errors[0])
    # what each row says of its own error is what its repetition shows
    again = sg.elbo(chain, x, samples=4, rng=2, prior_log_prob=prior)
    spread = (again.log_prob - found.log_prob).square()
    said = again.standard_error.square() + found.standard_error.square()
    z = (spread - said).mean() / ((spread - said).std() / math.sqrt(n))
    assert abs(float(z)) < 4.42


def at(law, t):
    return lambda y: law.log_prob(y, time(t))


@pytest.fixture(scope="module")
def learned():
    """A small network, taught a mixture on the line for 400 steps."""
    data = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=0.4).sample(4_000, rng=0)
    model = sg.ScoreModel(sg.MLP(1, width=16, depth=1, rng=0), VP)
    sg.train(model, data, sg.TrainConfig(steps=400, batch_size=256, learning_rate=1e-2), rng=0)
    model.double()
    return model


def chain_log_prob(chain, points):
    """log p of a chain at k = 0, by the law of the chain, from N(0, 1) at k = N."""
    nodes = sg.Grid(-7.0, 7.0, cells=560)  # points are nodes
    steps = torch.arange(chain.chain.steps + 1.0).flip(0)
    law = sg.ChainDensity(chain, nodes).run(nodes.gaussian(mean=0.0, std=1.0), steps).final
    return torch.from_numpy(np.interp(points[:, 0], law.x, law.p.log()))


def test_learned_score_stays_below_the_law_of_its_own_chain(learned):
    """At every x, not only on average; and the bound of these 40 steps costs less than 1 nat."""
    with torch.no_grad():
        chain = sg.DDPM.discretize(VP, times=sg.timesteps.log_snr(VP, 40)).reverse(learned.score)
        x = torch.linspace(-2.5, 2.5, 21, dtype=torch.float64)[:, None]
        found = sg.elbo(chain, x, samples=1_000, rng=3)
        exact = chain_log_prob(chain, x)
    gap = exact - found.log_prob
    assert (gap > -4.42 * found.standard_error).all()
    assert (gap > 4.42 * found.standard_error).any()
    assert gap[x[:, 0].abs() < 1.6].max() < 1.0


@pytest.mark.usefixtures("exact_in_one_dimension")
def test_wrong_score_is_bounded_by_its_chain_and_not_by_its_flow():
    """1.3 × the score of a Gaussian: the chain's law is a Gaussian, known exactly.

    ELBO ≤ log p of the chain at every x; the law of the flow of the same score is lower than the
    bound in the tail, so that a comparison with it would be wrong.
    """
    law, _ = gaussian(VP, mean=0.0, std=0.5)

    def wrong(x, t):
        return 1.3 * law.score(x, t)

    x = column(0.0, 0.5, 1.0, 1.4)
    chain = sg.DDPM.discretize(VP, times=sg.timesteps.log_snr(VP, 150)).reverse(wrong)
    found = sg.elbo(chain, x)
    assert (found.log_prob < chain_log_prob(chain, x) + 1e-6).all()
    flow = sg.log_likelihood(VP, wrong, x, solver=sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9))
    assert (found.log_prob > flow.log_prob).any()


@pytest.mark.parametrize("name", SDES)
def test_continuous_bound_is_log_p_of_a_gaussian(name):
    """Exact score, p_T and decoder: equality at every x, but for the draws; α = 1e-5 each."""
    sde = SDES[name]
    law, log_prob = gaussian(sde)
    noise = sde.sigma(time(sde.t_min)) / sde.alpha(time(sde.t_min))
    decoder = float((1 / 0.25 + 1 / noise**2) ** -0.5)
    x = column(-0.6, 0.4, 1.9)
    found = sg.continuous_elbo(
        sde,
        law.score,
        x,
        samples=200,
        strata=32,
        decoder_std=decoder,
        prior_log_prob=lambda y: log_prob(y, sde.t_max),
        rng=0,
    )
    z = (found.log_prob - dist.Normal(0.4, 0.5).log_prob(x[:, 0])) / found.standard_error
    assert z.abs().max() < 4.42
    assert found.standard_error.max() < 0.1
    assert found.nfe == 6_600
    assert found.diffusion.shape == (3, 32)


@pytest.mark.usefixtures("exact_in_one_dimension")
def test_discrete_bound_tends_to_the_continuous_one_for_a_wrong_score():
    """Sums over steps against the integral, with the same decoder from t_min to 0; order 1.

    Times are still drawn: the error falls as strata^(−3/2).
    """
    law, _ = gaussian(VP)

    def wrong(x, t):
        return 1.3 * law.score(x, t) + 0.2

    x = column(-0.6, 0.4, 1.9)
    fine = sg.continuous_elbo(VP, wrong, x, strata=2_000, rng=0)
    decoder = float(VP.sigma(time(VP.t_min)) / VP.alpha(time(VP.t_min)))
    steps, gaps = (100, 200, 400), []
    for n in steps:
        times = torch.cat([sg.timesteps.log_snr(VP, n), torch.zeros(1, dtype=torch.float64)])
        chain = sg.DDPM.discretize(VP, times=times).reverse(wrong)
        found = sg.elbo(chain, x, decoder_std=decoder)
        torch.testing.assert_close(found.reconstruction, fine.reconstruction)
        torch.testing.assert_close(found.prior, fine.prior)
        gaps.append(fine.log_prob - found.log_prob)
    for row in torch.stack(gaps).T:
        assert slope(1 / np.array(steps), row) == pytest.approx(1, abs=0.15)
    assert (2 * gaps[-1] - gaps[-2]).abs().max() < 5e-3  # extrapolated to N = ∞


def test_continuous_bound_of_a_mixture_stays_below_log_p():
    """σ/α as decoder: the bound loses what the decoder does not know, here less than 0.02 nats."""
    law = sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.0, -0.2]], stds=[0.4, 0.6]).noised(VP)
    x = law.mixture.sample(1_000, rng=0, dtype=torch.float64)
    found = sg.continuous_elbo(
        VP, law.score, x, samples=4, rng=1, prior_log_prob=at(law, VP.t_max)
    )
    gap = law.mixture.log_prob(x) - found.log_prob
    error = float(gap.std()) / math.sqrt(1_000)
    assert -4.42 * error < float(gap.mean()) < 0.02 + 4.42 * error


def test_prior_of_a_chain_is_that_of_its_sde():
    assert sg.DDPM.discretize(SDES["VE"], steps=5).prior_std == SDES["VE"].prior_std
    assert sg.DDPM([0.1]).prior_std == 1.0


def test_gaussian_prior_two_ways():
    """In closed form, and as a function whose mean is drawn."""
    chain = sg.DDPM.discretize(VP, times=grid(VP, 3)).reverse(lambda x, t: -x)
    x = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    exact = sg.elbo(chain, x, rng=0).prior
    drawn = sg.elbo(chain, x, rng=0, samples=100_000, prior_log_prob=VP.prior_log_prob).prior
    # the variance of log q − log p over ε is below 2 (1 − spread²)² + mean² ≪ 1e-3
    torch.testing.assert_close(drawn, exact, rtol=0, atol=4.42 * math.sqrt(1e-3 / 100_000))


def test_bits_and_seed():
    chain = sg.DDPM.discretize(VP, times=grid(VP, 4)).reverse(lambda x, t: -x)
    x = torch.zeros(2, 1, 2, 2)
    found = sg.elbo(chain, x)
    again = sg.elbo(chain, x, rng=found.seed)
    assert torch.equal(found.log_prob, again.log_prob)
    expected = -found.log_prob / (4 * math.log(2)) - math.log2(0.25)
    torch.testing.assert_close(found.bits_per_dim(0.25), expected)


X = torch.zeros(2, 1)
NORMAL = sg.DDPM.discretize(VP, times=grid(VP, 3)).reverse(lambda x, t: -x)


@pytest.mark.parametrize(
    ("chain", "x", "options", "error", "message"),
    [
        (NORMAL.chain, X, {}, TypeError, r"chain\.reverse\(score\), but was given a DDPM"),
        (sg.DDPM([0.1]).reverse(lambda x, t: -x), X, {}, ValueError, r"has no noise.*=0\.333 "),
        (NORMAL, X * torch.nan, {}, ValueError, "x is not finite in 2 of 2 rows"),
        (NORMAL, X, {"samples": 0}, ValueError, "samples must be ≥ 1, but is 0"),
        (NORMAL, X, {"samples": 1.5}, TypeError, "samples must be an int, but is float"),
        (NORMAL, X, {"decoder_std": -1.0}, ValueError, "decoder_std must be finite and > 0"),
        (NORMAL, X, {"prior_log_prob": lambda y: y}, ValueError, r"must return shape \(4,\)"),
    ],
)
def test_bad_requests(as_user, chain, x, options, error, message):
    with pytest.raises(error, match=message):
        sg.elbo(chain, x, **options)


def test_bad_requests_of_the_continuous_bound(as_user):
    with pytest.raises(ValueError, match="no Gaussian kernel"):
        sg.continuous_elbo(sg.BrownianMotion(), lambda x, t: -x, X)
    with pytest.raises(ValueError, match="steps must be ≥ 1, but is 0"):
        sg.continuous_elbo(VP, lambda x, t: -x, X, strata=0)


def test_a_score_that_fails_names_the_term():
    def lost(x, t):
        return -x if t < 0.5 else x * torch.nan

    chain = sg.DDPM.discretize(VP, times=grid(VP, 4)).reverse(lost)
    with pytest.raises(sg.NonFiniteError, match=r"not finite for 2 of 2 points.*term 0 of diff"):
        sg.elbo(chain, X)


def test_gradients_of_both_bounds_are_central_differences():
    """In x and in what the score −θ x holds, with the same draws; relative 1e-6."""
    x = torch.tensor([[0.3, -0.2], [1.0, 0.4]], dtype=torch.float64)

    def bounds(theta, x, differentiable=None):
        def score(y, t):
            return -theta * y

        chain = sg.DDPM.discretize(VP, times=VP.time_grid(8)).reverse(score, "beta")
        words = {"rng": 0, "differentiable": differentiable}
        return (
            sg.elbo(chain, x, **words).log_prob.sum(),
            sg.continuous_elbo(VP, score, x, strata=4, **words).log_prob.sum(),
        )

    step = 1e-5
    for i in (0, 1):
        theta = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(bounds(theta, x, differentiable=True)[i], theta)
        difference = float(bounds(0.8 + step, x)[i] - bounds(0.8 - step, x)[i]) / (2 * step)
        assert float(slope) == pytest.approx(difference, rel=1e-6)
        y = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(bounds(0.8, y)[i], y)
        shift = torch.zeros_like(x)
        shift[0, 1] = step
        difference = float(bounds(0.8, x + shift)[i] - bounds(0.8, x - shift)[i]) / (2 * step)
        assert float(slope[0, 1]) == pytest.approx(difference, rel=1e-6)
    assert not bounds(theta, x)[0].requires_grad
