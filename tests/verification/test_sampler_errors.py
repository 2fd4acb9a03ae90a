"""Score, step or prior: each planted alone is the one that is named."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.diffusion.mismatch import gaussian_kl
from sdegen.verification.scores.transport import sliced_distance

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SHORT = sg.VP(sg.LinearBeta(0.1, 4.0))
MIXTURE = sg.GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], stds=[0.3, 0.4])
LAW = MIXTURE.noised(VP)
HELD = MIXTURE.sample(1500, rng=1, dtype=F64)


def errors(sde, score, steps, **options):
    """Errors without the residuals of the score, which another test asks for."""
    residuals = sg.score_residuals(sde, score, HELD[:200], levels=2, rng=0)
    times = sde.time_grid(steps)
    return sg.sampler_errors(sde, score, HELD, times, residuals=residuals, rng=0, **options)


def test_long_steps_are_named():
    found = errors(VP, LAW.score, 12)
    assert found.largest == "time discretisation"
    assert "largest: time discretisation" in str(found)
    assert [part.cause for part in found.parts] == [
        "prior mismatch",
        "score error",
        "time discretisation",
    ]


def test_a_wrong_score_is_named_with_girsanov_s_bound():
    def score(x, t):
        return 1.3 * LAW.score(x, t)

    residuals = sg.score_residuals(VP, score, HELD[:300], levels=4, rng=0)
    found = sg.sampler_errors(VP, score, HELD, VP.time_grid(60), residuals=residuals, rng=0)
    assert found.largest == "score error"
    assert found.parts[1].kl == residuals.kl > 0.1
    wide = sg.sampler_errors(
        VP, score, HELD, VP.time_grid(150), eta=1.5, finer=2, residuals=residuals, rng=0
    )
    assert wide.parts[1].kl == pytest.approx(3.25**2 / 9 * residuals.kl)
    assert found.parts[1].kl > 4 * found.parts[1].kl_bar


def test_a_prior_that_is_not_reached_is_named():
    law = MIXTURE.noised(SHORT)
    found = errors(SHORT, law.score, 100)
    assert found.largest == "prior mismatch"
    end = law.at(SHORT.t_max)
    exact = gaussian_kl(end.mean, end.covariance, sg.GaussianPrior([0.0, 0.0]))
    assert abs(found.parts[0].kl - exact) < 4.5 * found.parts[0].kl_bar


def test_an_exact_sampler_has_no_cause():
    found = errors(VP, LAW.score, 60)
    assert found.parts[0].wasserstein < 1e-3
    assert abs(found.parts[1].wasserstein) < 4.5 * found.parts[1].wasserstein_bar
    assert found.parts[0].kl < 1e-3


def test_a_flow_has_no_bound_of_girsanov():
    found = sg.sampler_errors(
        VP, LAW.score, HELD, VP.time_grid(8), eta=0.0, solver=sg.Heun(), rng=0
    )
    assert found.residuals is None
    assert found.parts[1].kl is None
    assert found.largest == "time discretisation"


def test_noise_that_cannot_be_shared_costs_accuracy_alone():
    options = {"solver": sg.DDIM(), "finer": 2}
    found = errors(VP, LAW.score, 20, **options)
    shared = errors(VP, LAW.score, 20, finer=2)
    assert found.parts[2].wasserstein_bar > shared.parts[2].wasserstein_bar


def test_a_sliced_distance_is_that_of_a_shift():
    """Rows that are pairs: along e it is |e·shift|, on average over the plane 2/π of |shift|."""
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    found, error = sliced_distance(x, x + torch.tensor([0.3, 0.0]), stream(0, "axes"))
    assert found == pytest.approx(0.3 * 2 / math.pi, rel=0.1)  # 32 directions
    assert error < 0.01
    line, _ = sliced_distance(x[:, :1], x[:, :1] + 0.3, stream(0, "axes"))
    assert line == pytest.approx(0.3, rel=0.02)


def test_a_sliced_distance_of_one_law_is_zero_within_its_error():
    """40 pairs of independent samples: z-scores have mean 0 and variance 1, each to 1e-5."""
    z = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.randn(2, 300, 3, generator=generator, dtype=F64)
        found, error = sliced_distance(x, y, stream(seed, "axes"))
        z.append(found / error)
    scores = torch.tensor(z)
    assert abs(float(scores.mean())) * math.sqrt(40) < 4.5
    assert float(scores.square().sum()) < 92  # χ² of 40: 1e-5 beyond 92.4


def test_another_shape_of_the_prior_is_refused():
    with pytest.raises(ValueError, match="prior must have states of shape"):
        errors(VP, LAW.score, 5, prior=sg.GaussianPrior([0.0]))
