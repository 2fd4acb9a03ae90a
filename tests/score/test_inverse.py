"""Linear inverse problems: posteriors in closed form, and what approximations make of them."""

import math

import pytest
import torch

import sdegen as sg

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SDES = [VP, sg.SubVP(sg.LinearBeta(0.1, 20.0)), sg.VE(sg.GeometricSigma(0.05, 8.0))]


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(d=4):
    root = drawn(d, d, seed=1)
    covariance = 0.3 * root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64)
    return sg.GaussianMixture([1.0], drawn(1, d, seed=2), covariances=covariance[None])


A, Y = drawn(2, 4, seed=3), torch.tensor([0.7, -0.4], dtype=torch.float64)
MEASURED = sg.LinearMeasurement(A, Y, noise_std=0.3)
THREE = sg.GaussianMixture(
    [0.2, 0.3, 0.5],
    drawn(3, 4, seed=4),
    covariances=torch.stack([gaussian().covariance * s for s in (0.3, 0.5, 0.2)]),
)


def test_posterior_of_a_gaussian_in_its_other_form():
    """By precisions: Σ' = (Σ⁻¹ + AᵀA/s²)⁻¹, μ' = Σ'(Σ⁻¹μ + Aᵀy/s²)."""
    prior = gaussian()
    found = MEASURED.posterior(prior)
    precision = torch.linalg.inv(prior.covariance)
    covariance = torch.linalg.inv(precision + A.T @ A / 0.09)
    mean = covariance @ (precision @ prior.mean + A.T @ Y / 0.09)
    torch.testing.assert_close(found.mean, mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.covariance, covariance, rtol=1e-10, atol=1e-10)


def test_posterior_of_a_mixture_obeys_bayes():
    """log p(x | y) − log p(x) − log p(y | x) is one number, −log p(y), at every x."""
    x = drawn(200, 4, seed=5)
    found = MEASURED.posterior(THREE)
    evidence = THREE.log_prob(x) + MEASURED.log_prob(x) - found.log_prob(x)
    torch.testing.assert_close(evidence, evidence[:1].expand(200), rtol=0, atol=1e-9)
    covariances = torch.einsum("kij,kj,klj->kil", THREE.axes, THREE.variances, THREE.axes)
    seen = sg.GaussianMixture(
        THREE.weights,
        THREE.means @ A.T,
        covariances=A @ covariances @ A.T + 0.09 * torch.eye(2, dtype=torch.float64),
    )
    assert float(evidence[0]) == pytest.approx(float(seen.log_prob(Y[None])), abs=1e-9)


def test_a_part_that_is_ruled_out():
    """A thousand standard deviations away: weight 0, but no log of it."""
    prior = sg.GaussianMixture([0.5, 0.5], [[0.0], [100.0]], stds=0.1)
    one = sg.LinearMeasurement(torch.ones(1, 1), torch.zeros(1), 0.05)
    found = one.posterior(prior)
    assert float(found.mean) == pytest.approx(0, abs=1e-12)
    assert float(found.covariance) == pytest.approx(1 / (1 / 0.01 + 1 / 0.0025), rel=1e-10)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_tweedie_is_exact_on_gaussians(sde):
    """The score of the noised posterior, at every t, one for all and one for each."""
    prior = gaussian()
    exact = MEASURED.posterior(prior).noised(sde)
    score = MEASURED.posterior_score(sde, prior.noised(sde).score)
    for t in (time(sde.t_min), time(0.3), torch.linspace(0.01, sde.t_max, 30).double()):
        x = exact.sample(30, t, rng=0, dtype=torch.float64)
        torch.testing.assert_close(score(x, t), exact.score(x, t), rtol=1e-7, atol=1e-7)


def test_isotropic_is_exact_on_a_unit_gaussian():
    prior = sg.GaussianMixture([1.0], torch.zeros(1, 4), stds=1.0)
    exact = MEASURED.posterior(prior).noised(VP)
    score = MEASURED.posterior_score(VP, prior.noised(VP).score, "isotropic")
    x = drawn(30, 4)
    for t in (time(0.05), time(0.6)):
        torch.testing.assert_close(score(x, t), exact.score(x, t), rtol=1e-8, atol=1e-8)
    dps = MEASURED.posterior_score(VP, prior.noised(VP).score, "none")
    # without V it is the gradient of log N(y; A x̂_0, s² I), and far from the truth
    y, t = x.clone().requires_grad_(), time(0.6)
    x0 = (y + VP.sigma(t) ** 2 * prior.noised(VP).score(y, t)) / VP.alpha(t)
    (pull,) = torch.autograd.grad(MEASURED.log_prob(x0).sum(), y)
    torch.testing.assert_close(dps(x, t), prior.noised(VP).score(x, t) + pull)
    assert (dps(x, t) - exact.score(x, t)).abs().mean() > 0.1


def test_samples_of_a_posterior():
    """20,000 samples, mean and covariance; α = 1e-5 each.

    Exact score of the noised posterior of a mixture, its own law at t_max, and Heun's flow.
    """
    n, t = 20_000, time(VP.t_min)
    exact = MEASURED.posterior(THREE).noised(VP)
    x_T = exact.sample(n, time(VP.t_max), rng=0, dtype=torch.float64)
    x = sg.simulate(
        sg.ReverseSDE(VP, exact.score, eta=0.0),
        x_T,
        sg.timesteps.log_snr(VP, 60),
        solver=sg.Heun(),
        keep_path=False,
    ).final
    law = exact.at(float(t))
    z = (x.mean(0) - law.mean) / (law.covariance.diagonal() / n).sqrt()
    assert z.abs().max() < 4.42
    centred = x - law.mean
    products = centred[:, :, None] * centred[:, None, :]
    z = (products.mean(0) - law.covariance) / (products.std(0) / math.sqrt(n))
    assert z.abs().max() < 4.42


def test_gaussian_posterior_from_the_prior_score_alone():
    """What a user with a network has: samples by "tweedie", mean and covariance; α = 1e-5 each."""
    n, prior = 4_000, gaussian()
    score = MEASURED.posterior_score(VP, prior.noised(VP).score)
    x = sg.simulate(
        sg.ReverseSDE(VP, score, eta=0.0),
        VP.prior((n, 4), rng=1, dtype=torch.float64),
        sg.timesteps.log_snr(VP, 60),
        solver=sg.Heun(),
        keep_path=False,
    ).final
    exact = MEASURED.posterior(prior).noised(VP).at(VP.t_min)
    z = (x.mean(0) - exact.mean) / (exact.covariance.diagonal() / n).sqrt()
    assert z.abs().max() < 4.42
    d = exact.covariance.diagonal()
    error = ((exact.covariance**2 + torch.outer(d, d)) / n).sqrt()
    assert ((x.T.cov() - exact.covariance) / error).abs().max() < 4.42


def test_images_and_gradients():
    """Any event shape; a posterior's score has a derivative, so that it has a likelihood."""
    prior = gaussian()

    def score(x, t):
        return prior.noised(VP).score(x.flatten(1), t).reshape(x.shape)

    x = drawn(3, 1, 2, 2)
    found = MEASURED.posterior_score(VP, score)(x, time(0.2))
    flat = MEASURED.posterior_score(VP, prior.noised(VP).score)(x.flatten(1), time(0.2))
    torch.testing.assert_close(found.flatten(1), flat)
    exact = MEASURED.posterior(prior).noised(VP)
    points = exact.sample(5, time(VP.t_min), rng=0, dtype=torch.float64)
    likelihood = sg.log_likelihood(
        VP,
        MEASURED.posterior_score(VP, prior.noised(VP).score),
        points,
        solver=sg.TorchDiffEq(rtol=1e-7, atol=1e-7),
        prior_log_prob=lambda y: exact.log_prob(y, time(VP.t_max)),
    )
    expected = exact.log_prob(points, time(VP.t_min))
    torch.testing.assert_close(likelihood.log_prob, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((A, Y[:1], 0.3), r"must agree, but have shapes \(2, 4\) and \(1,\)"),
        ((A[0], Y, 0.3), r"must agree, but have shapes \(4,\) and \(2,\)"),
        ((A * torch.inf, Y, 0.3), "operator and value must be finite"),
        ((A, Y, 0.0), "noise_std must be finite and > 0, but is 0"),
    ],
)
def test_bad_measurements(as_user, arguments, message):
    with pytest.raises(ValueError, match=message):
        sg.LinearMeasurement(*arguments)


def test_bad_requests(as_user):
    with pytest.raises(ValueError, match="'tweedie' or 'isotropic' or 'none', but is 'dps'"):
        MEASURED.posterior_score(VP, lambda x, t: -x, "dps")
    with pytest.raises(ValueError, match=r"\(2, 4\), but the prior has 1 dimensions"):
        MEASURED.posterior(sg.GaussianMixture([1.0], [0.0], stds=1.0))
    with pytest.raises(ValueError, match=r"for events of 4 numbers, but x has shape \(3, 2\)"):
        MEASURED.posterior_score(VP, lambda x, t: -x)(drawn(3, 2), time(0.1))
    with pytest.raises(ValueError, match="score has no derivative in x"):
        MEASURED.posterior_score(VP, lambda x, t: -x.detach())(drawn(3, 4), time(0.1))


def test_a_flat_prior_needs_no_derivative():
    """A score of 0 is that of a flat law: the posterior of x is y/A to its error bar, noised."""
    one = sg.LinearMeasurement(torch.ones(1, 1), torch.tensor([0.5]), noise_std=0.3)
    score = one.posterior_score(VP, lambda x, t: torch.zeros_like(x))
    exact = sg.GaussianMixture([1.0], [0.5], stds=0.3).noised(VP)
    x, t = drawn(5, 1), time(0.4)
    torch.testing.assert_close(score(x, t), exact.score(x, t))


@pytest.mark.parametrize("covariance", ["tweedie", "isotropic", "none"])
def test_a_measurement_for_each_row_is_that_of_its_row(covariance):
    prior, x = gaussian(), drawn(3, 4, seed=6)
    values = torch.stack([Y, -Y, 2 * Y])
    score = prior.noised(VP).score
    each = sg.LinearMeasurement(A, values, noise_std=0.3)
    found = each.posterior_score(VP, score, covariance)(x, time(0.3))
    for i, y in enumerate(values):
        one = sg.LinearMeasurement(A, y, noise_std=0.3)
        row = x[i : i + 1]
        expected = one.posterior_score(VP, score, covariance)(row, time(0.3))
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(each.log_prob(x)[i], one.log_prob(row)[0])
    with pytest.raises(ValueError, match=r"of 3 trajectories, but a call with 2: .* interacting="):
        each.log_prob(x[:2])
    with pytest.raises(ValueError, match=r"that of one y, but value has shape \(3, 2\)"):
        each.posterior(prior)


def test_a_function_for_a_matrix_is_refused_by_kind(as_user):
    with pytest.raises(
        TypeError, match=r"operator must be a tensor, but is function; pass a function"
    ):
        sg.LinearMeasurement(lambda x: x, Y, noise_std=0.3)
    with pytest.raises(TypeError, match=r"value must be numbers, but is 'seven'"):
        sg.LinearMeasurement(A, "seven", noise_std=0.3)
    made = sg.LinearMeasurement(A.numpy(), [0.7, -0.4], noise_std=0.3)
    assert torch.equal(made.posterior(THREE).means, MEASURED.posterior(THREE).means)


@pytest.mark.parametrize("covariance", ["tweedie", "isotropic", "none"])
def test_states_in_single_precision_meet_a_time_in_double(covariance):
    """`simulate` passes a 0-d float64 t, which promotes nothing; to 1e-4 of the float64 score."""
    score = MEASURED.posterior_score(VP, THREE.noised(VP).score, covariance)
    x = drawn(8, 4, seed=6)
    for t in (time(0.5), time(0.5).expand(8)):
        single = score(x.float(), t)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), score(x, t), rtol=1e-4, atol=1e-4)
    reverse = sg.ReverseSDE(VP, score, eta=0.0)
    x_t = VP.prior((4, 4), rng=1)
    final = sg.simulate(reverse, x_t, VP.time_grid(20), solver=sg.Heun()).final
    assert final.dtype == torch.float32
    exact = sg.simulate(reverse, x_t.double(), VP.time_grid(20), solver=sg.Heun()).final
    torch.testing.assert_close(final.double(), exact, rtol=1e-3, atol=1e-3)


def test_a_jacobian_that_is_no_covariance_is_made_one():
    """V = diag(0.05, −0.3, 0.8): no eigenvalue is known better than to 0.3."""
    t = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = float(VP.alpha(t)), float(VP.sigma(t))
    spread = torch.tensor([0.05, -0.3, 0.8], dtype=torch.float64)
    slope = spread * alpha / sigma**2  # of x̂_0 in x

    def score(x, t):
        return (alpha * slope - 1) * x / sigma**2

    y, s = torch.tensor([0.2, -0.4, 1.0], dtype=torch.float64), 0.1
    measured = sg.LinearMeasurement(torch.eye(3, dtype=torch.float64), y, s)
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    found = measured.posterior_score(VP, score)(x, t) - score(x, t)
    raised = torch.tensor([0.3, 0.3, 0.8], dtype=torch.float64)
    torch.testing.assert_close(found, slope * (y - slope * x) / (s * s + raised))


def test_an_explosion_of_a_sampler_is_an_error():
    """A posterior that pulls too hard had returned 1e14; and on_nonfinite="freeze" marks it."""
    law = sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=1.0).noised(VP)
    flow = sg.ReverseSDE(VP, lambda x, t: law.score(x, t) + 60 * x, eta=0.0)
    x, times = VP.prior((40, 2), rng=0, dtype=torch.float64), VP.time_grid(40)
    with pytest.raises(sg.NonFiniteError, match=r"40 of 40 trajectories have exploded.*can have"):
        sg.simulate(flow, x, times)
    frozen = sg.simulate(flow, x, times, on_nonfinite="freeze")
    assert bool(frozen.nonfinite.all())
