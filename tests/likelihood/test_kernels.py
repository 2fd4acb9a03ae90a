"""Likelihoods under kernels of modes and matrices, and the bound of positions in phase space."""

import itertools
import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64


class Exact:
    """The exact score of a mixture, with times as a model has them."""

    def __init__(self, law, times):
        self.law, self.score_range, self.sde = law, times, law.sde

    def __call__(self, x, t):
        return self.law.score(x, t)


def gaussian(d):
    g = torch.Generator().manual_seed(0)
    root = torch.eye(d, dtype=F64) + 0.3 * torch.randn(d, d, generator=g, dtype=F64)
    return sg.GaussianMixture(
        [1.0], torch.ones(1, d) * 0.4, covariances=0.5 * (root @ root.T)[None]
    )


@pytest.mark.parametrize(
    "sde",
    [
        sg.LinearSDE([[1.0, 0.4], [-0.3, 0.8]], 0.6, [0.5, -0.2]),
        sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9),
        sg.StochasticHeat((2,), 0.4, 1.0),
        sg.Blurring((2,), 3.0),
        sg.UnderdampedLangevin(sg.Quadratic(4.0), 4.0),
    ],
    ids=lambda sde: type(sde).__name__,
)
def test_log_p_of_the_exact_score_is_that_of_p_at_t_min(sde):
    """With the exact law at t_max in the place of the prior."""
    law, end = gaussian(2).noised(sde), 0.4
    x = law.sample(3, 0.1, rng=0, dtype=F64)
    solver = sg.TorchDiffEq("dopri5", rtol=1e-5, atol=1e-6)
    score = Exact(law, (0.1, end))
    found = sg.log_likelihood(
        sde, score, x, solver=solver, prior_log_prob=lambda z: law.log_prob(z, end)
    )
    torch.testing.assert_close(found.log_prob, law.log_prob(x, 0.1), rtol=0, atol=1e-3)


def test_the_bound_of_positions_is_below_log_p_by_what_velocities_know():
    """At t_min p(v | x) is not quite N(0, T/m): the bound misses KL(q ‖ p(v | x)), a number."""
    sde, t_min, n = sg.UnderdampedLangevin(sg.Quadratic(4.0), 4.0), 0.1, 100
    data = sg.GaussianMixture([1.0], [[0.4]], stds=0.5)
    law = data.noised(sde)
    x = torch.tensor([[0.9]], dtype=F64)
    solver = sg.Heun(substeps=60)
    bound = sg.position_bound(sde, Exact(law, (t_min, 6.0)), x, samples=n, solver=solver, rng=0)
    at = law.at(t_min)
    (mx, mv), ((xx, xv), (_, vv)) = at.means[0].tolist(), at.covariance.tolist()
    log_p = -0.5 * ((0.9 - mx) ** 2 / xx + math.log(2 * math.pi * xx))
    mean, variance = mv + xv / xx * (0.9 - mx), vv - xv**2 / xx
    missed = 0.5 * ((1 + mean**2) / variance - 1 + math.log(variance))
    gap = float(bound.log_prob[0]) - (log_p - missed)
    assert missed > 0
    assert abs(gap) < 4.42 * float(bound.standard_error[0]) + 5e-3
    assert bound.log_prob[0] < log_p


def conditional(law, x):
    """Mean and standard deviation of v given x, and log p(x), of a Gaussian law of (x, v)."""
    (mx, mv), ((xx, xv), (_, vv)) = law.means[0].tolist(), law.covariance.tolist()
    log_p = -0.5 * ((x - mx) ** 2 / xx + math.log(2 * math.pi * xx))
    return mv + xv / xx * (x - mx), torch.full_like(x, math.sqrt(vv - xv**2 / xx)), log_p


@pytest.fixture(scope="module")
def damped():
    """A Gaussian's score, positions, and what is true of them at t_min."""
    sde, t_min = sg.UnderdampedLangevin(sg.Quadratic(4.0), 4.0), 0.1
    law = sg.GaussianMixture([1.0], [[0.4]], stds=0.5).noised(sde)
    x = torch.tensor([[0.9], [-0.2]], dtype=F64)
    return sde, Exact(law, (t_min, 6.0)), x, *conditional(law.at(t_min), x)


def bound_of(damped, **options):
    sde, score, x = damped[:3]
    solver = sg.TorchDiffEq("dopri5", rtol=1e-6, atol=1e-7)
    return sg.position_bound(sde, score, x, solver=solver, rng=0, **options)


def test_with_more_weights_the_bound_rises_to_log_p(damped):
    """Of q too wide by a half, whose log w has a known mean: −KL(q ‖ p(v | x))."""
    mean, std, log_p = damped[3:]

    def wide(x):
        each = len(x) // 2
        return mean.repeat_interleave(each, 0) + 0.3, 1.5 * std[:1]

    offset = float(0.3 / std[0])
    missed = 0.5 * (1.5**2 + offset**2 - 1 - math.log(1.5**2))
    found = {k: bound_of(damped, importance=k, samples=n, proposal=wide) for k, n in RISING}
    gaps = {k: one.log_prob - log_p[:, 0] for k, one in found.items()}
    errors = {k: one.standard_error for k, one in found.items()}
    assert bool(((gaps[1] + missed).abs() < 4.5 * errors[1] + 5e-3).all())
    for few, many in itertools.pairwise(found):  # with other draws each
        assert bool((gaps[many] > gaps[few] - 4.5 * (errors[many] + errors[few])).all())
        assert bool((gaps[many] < 4.5 * errors[many] + 5e-3).all())
    # Var(w)/(2 K p²), by quadrature over v in units of p(v | x)
    v = torch.linspace(-14, 14, 4001, dtype=F64)
    log_q = -0.5 * ((v - offset) / 1.5).square() - math.log(1.5)
    square = float(torch.trapezoid((-v.square() - log_q).exp(), v)) / math.sqrt(2 * math.pi)
    last = max(found)
    expected = -(square - 1) / (2 * last)
    assert bool(((gaps[last] - expected).abs() < 4.5 * errors[last] + 5e-3 + 2 / last**2).all())
    assert float(gaps[last].mean()) > 0.2 * float(gaps[1].mean())
    assert found[last].importance == last
    assert found[1].nfe * last * RISING[-1][1] == found[last].nfe * RISING[0][1]


RISING = ((1, 200), (4, 60), (16, 30))


def test_with_the_conditional_itself_one_weight_is_exact(damped):
    mean, std, log_p = damped[3:]
    for samples, importance in ((3, 1), (1, 4)):
        each = samples * importance
        exact = bound_of(
            damped,
            samples=samples,
            importance=importance,
            proposal=lambda x, each=each: (mean.repeat_interleave(each, 0), std[:1]),
        )
        torch.testing.assert_close(exact.log_prob, log_p[:, 0], rtol=0, atol=2e-4)
        assert bool((exact.standard_error < 2e-4).all())


def test_what_is_no_proposal_is_refused(damped):
    with pytest.raises(ValueError, match=r"divergence='exact', or importance=1"):
        bound_of(damped, importance=2, divergence=sg.Hutchinson())
    with pytest.raises(TypeError, match="must return two"):
        bound_of(damped, proposal=lambda x: x)
    with pytest.raises(ValueError, match="standard deviations > 0"):
        bound_of(damped, proposal=lambda x: (x, 0 * x))
    with pytest.raises(ValueError, match="broadcasts to positions"):
        bound_of(damped, proposal=lambda x: (torch.zeros(3, 7), torch.ones(1)))


def test_a_process_without_times_asks_for_those_of_a_model():
    with pytest.raises(ValueError, match=r"pass the score of a model, model\.score"):
        sg.log_likelihood(sg.OrnsteinUhlenbeck(), lambda x, t: -x, torch.zeros(2, 1))
    with pytest.raises(TypeError, match="an UnderdampedLangevin, whose x are positions"):
        sg.position_bound(sg.OrnsteinUhlenbeck(), lambda x, t: -x, torch.zeros(2, 1))
