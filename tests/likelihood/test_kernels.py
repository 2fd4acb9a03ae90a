"""Likelihoods under kernels of modes and matrices, and the bound of positions in phase space."""

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


def test_a_process_without_times_asks_for_those_of_a_model():
    with pytest.raises(ValueError, match=r"pass the score of a model, model\.score"):
        sg.log_likelihood(sg.OrnsteinUhlenbeck(), lambda x, t: -x, torch.zeros(2, 1))
    with pytest.raises(TypeError, match="an UnderdampedLangevin, whose x are positions"):
        sg.position_bound(sg.OrnsteinUhlenbeck(), lambda x, t: -x, torch.zeros(2, 1))
