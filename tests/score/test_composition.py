"""Composition: mixtures exact at every t, products exact with a corrector, and how far without.

Statistical tests allow 4.42 standard errors: each fails by chance once in 10⁵ seeds.
"""

import math

import pytest
import torch
from exact import NoisedGaussian, linear_chain_moments

import sdegen as sg

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
LEFT, RIGHT = NoisedGaussian(VP, -1.0, math.sqrt(0.5)), NoisedGaussian(VP, 1.0, 1.0)
BOTH = sg.composition.product([LEFT.score, RIGHT.score])
X = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def product_moments(t, weights=(1.0, 1.0)):
    """Mean and variance of N(m₁, v₁)^{w₁} N(m₂, v₂)^{w₂}, the noised experts at t."""
    moments = [LEFT.moments(t), RIGHT.moments(t)]
    precision = sum(w / v for w, (_, v) in zip(weights, moments, strict=True))
    mean = sum(w * m / v for w, (m, v) in zip(weights, moments, strict=True)) / precision
    return float(mean), float(1 / precision)


@pytest.mark.parametrize("t", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0), (2.0, -0.5)])
def test_product_of_gaussians(t, weights):
    """A Gaussian of the summed precisions."""
    mean, variance = product_moments(t, weights)
    score = sg.composition.product([LEFT.score, RIGHT.score], weights)
    torch.testing.assert_close(score(X, time(t)), (mean - X) / variance, rtol=0, atol=1e-10)


def test_noised_product_is_not_the_product_of_the_noised():
    """Propagated without noise of sampling: with ever finer steps the reverse SDE goes astray.

    (−0.2275, 0.4772²) instead of (−1/3, 1/3), by the chain's own mean and variance.
    """
    start = sg.composition.prior_factor([1.0, 1.0]) ** 2
    reverse = sg.ReverseSDE(VP, BOTH)
    coarse, fine = (
        linear_chain_moments(sg.EulerMaruyama(), reverse, VP.time_grid(n), 0.0, start)[-1]
        for n in (125, 250)
    )
    limit = 2 * fine - coarse
    mean, variance = product_moments(VP.t_min)
    assert (mean, variance) == pytest.approx((-1 / 3, 1 / 3), abs=1e-3)
    assert limit.tolist() == pytest.approx([-0.2274, 0.2274], abs=2e-3)


def test_langevin_corrector_makes_the_product_exact():
    """Mean and variance of 10⁴ samples; without the corrector they are 18 and 22 errors off.

    The corrector's own bias, a factor 1/(1 − snr²) of the variance, is 0.6 % or 0.5 errors.
    """
    n = 10_000
    x_T = sg.composition.prior_factor([1.0, 1.0]) * VP.prior((n, 1), rng=0, dtype=torch.float64)
    mean, variance = product_moments(VP.t_min)

    def errors(solver, steps):
        x = sg.simulate(
            sg.ReverseSDE(VP, BOTH),
            x_T,
            VP.time_grid(steps),
            solver=solver,
            rng=0,
            keep_path=False,
        ).final
        off = float(x.mean()) - mean, float(x.var()) / variance - 1
        return abs(off[0]) / math.sqrt(variance / n), abs(off[1]) / math.sqrt(2 / n)

    corrected = errors(sg.PredictorCorrector(corrector_steps=100, snr=0.08), 50)
    assert max(corrected) < 4.42
    plain = errors(sg.EulerMaruyama(), 500)
    assert min(plain) > 15


def test_metropolis_adjusted_it_needs_fewer_evaluations():
    """The same by Metropolis steps, exact at any step size: 1,230 evaluations, not 5,050."""
    n = 10_000
    x_T = sg.composition.prior_factor([1.0, 1.0]) * VP.prior((n, 1), rng=0, dtype=torch.float64)
    mean, variance = product_moments(VP.t_min)

    def log_prob(x, t):
        moments = [law.moments(t) for law in (LEFT, RIGHT)]
        return sum(-0.5 * (x[:, 0] - m).square() / v for m, v in moments)

    path = sg.simulate(
        sg.ReverseSDE(VP, BOTH),
        x_T,
        sg.timesteps.log_snr(VP, 30),
        solver=sg.MetropolisCorrector(log_prob, corrector_steps=20, step_size=1.0),
        rng=0,
        keep_path=False,
    )
    assert path.nfe == 30 * 41
    x = path.final
    assert abs(float(x.mean()) - mean) < 4.42 * math.sqrt(variance / n)
    assert abs(float(x.var()) / variance - 1) < 4.42 * math.sqrt(2 / n)


def test_mixture_of_noised_laws_is_the_noised_mixture():
    """To rounding, at every t, one for all and one for each."""
    one = sg.GaussianMixture([0.4, 0.6], [[-2.0, 0.0], [0.0, 1.0]], stds=[0.3, 0.5])
    other = sg.GaussianMixture([1.0], [[2.0, -1.0]], stds=0.7)
    means, weights = torch.cat([one.means, other.means]), [0.3 * 0.4, 0.3 * 0.6, 0.7]
    whole = sg.GaussianMixture(weights, means, stds=[0.3, 0.5, 0.7]).noised(VP)
    parts = [one.noised(VP), other.noised(VP)]
    score = sg.composition.mixture(
        [p.score for p in parts], [p.log_prob for p in parts], [0.3, 0.7]
    )
    x = 1.5 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (time(1e-3), time(0.4), torch.linspace(0.01, 1, 40, dtype=torch.float64)):
        torch.testing.assert_close(score(x, t), whole.score(x, t), rtol=1e-10, atol=1e-10)
    # far away from both, where densities underflow
    far = torch.full((1, 2), 80.0, dtype=torch.float64)
    torch.testing.assert_close(score(far, time(1e-3)), whole.score(far, time(1e-3)))


def test_tempered_gaussian():
    """p^β of N(m, v) is N(m, v/β)."""
    mean, variance = LEFT.moments(0.2)
    score = sg.composition.tempered(LEFT.score, 2.5)
    expected = (mean - X) / (variance / 2.5)
    torch.testing.assert_close(score(X, time(0.2)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("guidance", [-1.0, 0.0, 1.5])
def test_guidance_is_the_score_of_the_overstated_condition(guidance):
    """∇ log [p(x) p(c | x)^{1+w}], differentiated: p of two classes, p(c | x) by Bayes."""
    parts = [
        sg.GaussianMixture([1.0], [m], stds=s).noised(VP) for m, s in ((-1.0, 0.3), (1.0, 0.5))
    ]
    both = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=[0.3, 0.5]).noised(VP)
    t, x = time(0.1), X.clone().requires_grad_()
    log_class = math.log(0.7) + parts[1].log_prob(x, t) - both.log_prob(x, t)
    wanted = both.log_prob(x, t) + (1 + guidance) * log_class
    (expected,) = torch.autograd.grad(wanted.sum(), x)
    score = sg.composition.guided(parts[1].score, both.score, guidance)
    torch.testing.assert_close(score(X, t), expected, rtol=1e-9, atol=1e-9)


def test_compositions_compose():
    twice = sg.composition.product([BOTH, sg.composition.tempered(LEFT.score, 0.5)])
    mean, variance = product_moments(0.3, (1.5, 1.0))
    torch.testing.assert_close(twice(X, time(0.3)), (mean - X) / variance, rtol=0, atol=1e-10)


def test_a_product_is_a_score_for_likelihoods_and_chains():
    """The same numbers as the same score by another name."""
    same = sg.composition.product([sg.composition.tempered(LEFT.score, 0.25)] * 4)
    found, expected = (
        sg.log_likelihood(VP, score, X, solver=sg.Heun(substeps=20)).log_prob
        for score in (same, LEFT.score)
    )
    torch.testing.assert_close(found, expected)
    chain, k = sg.DDPM.discretize(VP, steps=20), torch.arange(21.0).flip(0)
    found, expected = (
        sg.simulate(chain.reverse(score), X, k, rng=0).final for score in (same, LEFT.score)
    )
    torch.testing.assert_close(found, expected)


def normal(x, t):
    return -x


def log_normal(x, t):
    return -0.5 * x.square().sum(1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.product([]), ValueError, "list of at least one function"),
        (lambda c: c.product(normal), ValueError, "list of at least one function"),
        (lambda c: c.product([normal, "s"]), TypeError, r"scores\[1\] must be a function.*is 's'"),
        (lambda c: c.product([normal], [1, 2]), ValueError, "weights must be 1 finite numbers"),
        (lambda c: c.prior_factor([1, -1]), ValueError, "positive sum, but it is 0"),
        (lambda c: c.tempered(normal, 0.0), ValueError, "beta must be finite and > 0, but is 0"),
        (lambda c: c.mixture([normal], []), ValueError, "1 scores and 0 log_densities"),
        (
            lambda c: c.mixture([normal], [log_normal], [-1]),
            ValueError,
            "weights of a mixture must be > 0",
        ),
        (lambda c: c.guided(normal, normal, -2), ValueError, "guidance must be finite and ≥ −1"),
    ],
)
def test_bad_requests(as_user, call, error, message):
    with pytest.raises(error, match=message):
        call(sg.composition)


def test_a_generator_of_scores_is_taken_and_what_is_none_is_refused(as_user):
    x, t = torch.ones(2, 1), torch.tensor(0.5)
    both = sg.composition.product(s for s in (lambda x, t: -x, lambda x, t: 3 - x))
    assert [both(x, t).flatten().tolist() for _ in range(2)] == [[1.0, 1.0]] * 2
    for scores in (3, (), lambda x, t: -x):
        with pytest.raises(ValueError, match="scores must be a list of at least one function"):
            sg.composition.product(scores)


def test_the_flow_of_a_product_warns_and_its_advice_holds():
    """N(−0.5, 0.5²) and N(1, 0.8²): standard deviation 0.424, by the flow 0.003."""
    parts = [
        sg.GaussianMixture([1.0], [m], stds=s).noised(VP) for m, s in ((-0.5, 0.5), (1.0, 0.8))
    ]
    both = sg.composition.product([p.score for p in parts])
    x_T = sg.composition.prior_factor([1.0, 1.0]) * VP.prior((4000, 1), rng=0)
    flow, times = sg.ReverseSDE(VP, both, eta=0.0), VP.time_grid(100)
    with pytest.warns(sg.AccuracyWarning, match=r"eta = 0.*Σ w = 2.*collapses.*Langevin"):
        collapsed = sg.simulate(flow, x_T, times, solver=sg.Heun(), keep_path=False)
    assert float(collapsed.final.std()) < 0.02
    # 1.1 % is a standard error of a standard deviation of 4,000; 0.3 % the corrector's own bias
    corrected = sg.simulate(
        flow, x_T, sg.timesteps.log_snr(VP, 50), rng=0, keep_path=False,
        solver=sg.PredictorCorrector(corrector_steps=60, snr=0.08),
    )  # fmt: skip
    assert float(corrected.final.std()) == pytest.approx(0.424, rel=0.06)
    noisy = sg.simulate(sg.ReverseSDE(VP, both), x_T, times, rng=0, keep_path=False)
    assert 0.3 < float(noisy.final.std()) < 0.42
    with pytest.warns(sg.AccuracyWarning, match="Σ w = 2"):
        sg.log_likelihood(VP, both, X, solver=sg.Heun(substeps=4))


def test_scores_whose_weights_have_sum_one_do_not_warn():
    """Guidance, and the geometric mean of two experts: as noise, each is the prior."""
    x = torch.zeros(2, 1)
    for score in (
        sg.composition.guided(LEFT.score, RIGHT.score, 1.5),
        sg.composition.product([LEFT.score, RIGHT.score], [0.3, 0.7]),
        sg.composition.product([sg.composition.tempered(LEFT.score, 0.25)] * 4),
    ):
        sg.simulate(sg.ReverseSDE(VP, score, eta=0.0), x, VP.time_grid(2))
    cold = sg.composition.tempered(LEFT.score, 0.5)
    with pytest.warns(sg.AccuracyWarning, match=r"Σ w = 0\.5.*spreads"):
        sg.simulate(sg.ReverseSDE(VP, cold, eta=0.0), x, VP.time_grid(2))
