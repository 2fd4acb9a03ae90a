"""Scores judged on held-out data: exact ones pass, wrong ones are seen, and by how much."""

import math

import pytest
import torch
from scipy.stats import kstest

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.verification.residual import fp_residual
from sdegen.verification.scores.fields import RandomFeatures, controlled, families
from sdegen.verification.scores.noised import Noising, noised_rows
from sdegen.verification.scores.row_statistics import RowMeans
from sdegen.verification.scores.slopes import antisymmetry, equation_gap

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
VE = sg.VE(sg.GeometricSigma(0.01, 5.0))
SUB = sg.SubVP(sg.LinearBeta(0.1, 20.0))
TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)


def mixture(dim, wide=1.0):
    """Three Gaussians; the variances of the first coordinate are `wide` times as large."""
    means = torch.randn(3, dim, generator=torch.Generator().manual_seed(0), dtype=F64)
    variances = torch.tensor([0.3, 0.5, 0.4], dtype=F64)[:, None].square().repeat(1, dim)
    variances[:, 0] *= wide
    return sg.GaussianMixture([0.3, 0.3, 0.4], means, covariances=torch.diag_embed(variances))


LAW = mixture(2).noised(VP)
HELD = mixture(2).sample(1000, rng=1, dtype=F64)


def truth(score, law, t):
    """E|s − s*|² and E|s*|², by 40,000 samples of the exact law."""
    x = law.sample(40_000, t, rng=7, dtype=F64)
    right = law.score(x, t)
    return tuple(float(v.square().sum(1).mean()) for v in (score(x, t) - right, right))


@pytest.mark.parametrize(
    "sde", [VP, *(pytest.param(p, marks=pytest.mark.slow) for p in (VE, SUB))]
)
def test_exact_scores_pass(sde):
    """One of them fails by chance once in 1,000 seeds; the seed is fixed."""
    found = sg.score_residuals(sde, mixture(2).noised(sde).score, HELD, levels=2, rng=0)
    assert found.passed
    assert len(found.checks) == 2 * 10
    assert float(found.curl.max()) < 1e-10
    assert float(found.equation.max()) < 1e-6
    assert bool(((found.factor - 1).abs() < 5 * found.factor_bars).all())
    assert bool((found.squared_error < 5 * found.squared_error_bars + 1e-9).all())
    assert "as far as they can tell" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [10, 100])
def test_exact_scores_pass_in_many_dimensions(dim):
    law = mixture(dim).noised(VP)
    found = sg.score_residuals(VP, law.score, law.mixture.sample(1000, rng=2, dtype=F64), rng=0)
    assert found.passed
    assert float(found.curl.max()) < 1e-10
    assert bool((found.equation < 4 * found.equation_bars + 1e-6).all())


def p_values(dim, runs, rows):
    """p-values of single fields of exact scores, of independent data, by kind."""
    law = mixture(dim).noised(VP)
    noising, t = Noising.of(VP, law.score), torch.tensor(0.2, dtype=F64)
    found = {}
    for run in range(runs):
        data = law.mixture.sample(rows, rng=1000 + run, dtype=F64)
        noised = noised_rows(noising, law.score, data, t, 2, stream(run, "rows"))
        halves = torch.arange(rows)[::2], torch.arange(rows)[1::2]
        values = {}
        for own, others in (halves, halves[::-1]):
            known = noised.x[:, others].flatten(0, 1)
            features = RandomFeatures.draw(dim, stream(run, "features"))
            kinds = families(noised, known.mean(0), known.std(0), features)
            for name, family in kinds.items():
                values.setdefault(name, []).append(controlled(family, others, own)[:, 0])
        for name, parts in values.items():
            p = RowMeans.of(torch.cat(parts)[:, None]).p_value
            found.setdefault(name, []).append(float(p))
    return found


@pytest.mark.parametrize(
    ("dim", "runs"), [(2, 50), *(pytest.param(d, 300, marks=pytest.mark.slow) for d in (2, 10))]
)
def test_p_values_of_exact_scores_are_uniform(dim, runs):
    """Seven kinds of fields; the test of each has a false-alarm rate of 1e-5."""
    for name, p in p_values(dim, runs, 200).items():
        assert kstest(p, "uniform").pvalue > 1e-5, name
        assert min(p) > 1e-6, name


@pytest.mark.slow
def test_false_alarms_of_exact_scores():
    """200 runs at 1e-2 without limits of size: 2 alarms are expected, 11 have a chance of 8e-6."""
    law, limits = mixture(2).noised(VP), sg.ScoreLimits(1e-9, 1e-9, 1e-4)
    alarms = 0
    for run in range(200):
        data = law.mixture.sample(300, rng=5000 + run, dtype=F64)
        found = sg.score_residuals(
            VP, law.score, data, times=[0.1, 0.5], limits=limits, false_alarm=1e-2, rng=run
        )
        alarms += not found.passed
    assert alarms < 11


class Squared(sg.GaussianPath):
    """VP's path with ᾱ = α² in the place of α, and the same σ."""

    def alpha(self, t):
        return VP.alpha(t).square()

    def sigma(self, t):
        return VP.sigma(t)


FAULTS = {
    "factor": lambda x, t: 1.05 * LAW.score(x, t),
    "time": lambda x, t: LAW.score(x, 1.1 * t),
    "rotation": lambda x, t: LAW.score(x, t) + 0.1 * x @ TURN,
    "ᾱ": lambda x, t: mixture(2).noised(Squared()).score(x, t),
    "width": lambda x, t: mixture(2, wide=1.5).noised(VP).score(x, t),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_planted_faults_are_caught_with_their_size(fault):
    """Within four standard errors and the tenth that a fitted correction may miss."""
    score, times = FAULTS[fault], [0.05, 0.3]
    found = sg.score_residuals(VP, score, HELD, times=times, rng=0)
    assert not found.passed
    for i, t in enumerate(found.times):
        square, size = truth(score, LAW, t)
        allowed = 4 * float(found.squared_error_bars[i]) + 0.1 * square
        seen = float(found.squared_error[i])
        assert seen < square + 4 * float(found.squared_error_bars[i])
        assert seen > square - allowed or square < 0.05**2 * size
    if fault == "factor":
        assert "times the true score" in found.summary
        assert abs(float(found.factor[1]) - 1.05) < 4 * float(found.factor_bars[1])
    if fault == "time":
        assert "nearly that of t + 0.0" in found.summary
    assert (float(found.curl.max()) > 0.01) == (fault == "rotation")


def test_a_wrong_coordinate_of_ten_is_named():
    law, wrong = mixture(10).noised(VP), mixture(10, wide=1.5).noised(VP)
    data = law.mixture.sample(1000, rng=3, dtype=F64)
    found = sg.score_residuals(VP, wrong.score, data, times=[0.01, 0.05], rng=0)
    assert not found.passed
    assert "Most of it is in coordinate 0" in found.summary
    assert int(found.by_coordinate[0].argmax()) == 0
    square, _ = truth(wrong.score, law, found.times[0])
    error = float(found.squared_error_bars[0])
    assert abs(float(found.squared_error[0]) - square) < 4 * error + 0.1 * square


def test_an_error_below_the_limit_is_shown_and_passes():
    def score(x, t):
        return 1.005 * LAW.score(x, t)

    found = sg.score_residuals(VP, score, HELD, times=[0.7, 0.9], rng=0)
    assert found.passed
    assert bool(((found.error - 0.005).abs() < 4 * found.error_bars).all())
    assert any("smaller than the limit" in check.remark for check in found.checks)
    strict = sg.score_residuals(
        VP, score, HELD, times=[0.7, 0.9], limits=sg.ScoreLimits(error=1e-3), rng=0
    )
    assert not strict.passed


def test_the_bound_of_girsanov_is_that_of_a_known_error():
    """Data N(0, I) stay so under VP; of s = −1.2 x it is ½ ∫ σ² 0.04 d dλ, λ = log σ²/α²."""
    data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = sg.score_residuals(VP, lambda x, t: -1.2 * x + 0 * t, data, levels=8, rng=0)
    t = torch.linspace(1e-3, 1, 20_001, dtype=F64)
    exact = 0.5 * 0.04 * 2 * float(torch.trapezoid(VP.beta(t), t))
    coarse = VP.sigma(found.times).square() * 0.04
    sums = float(torch.trapezoid(coarse, -found.log_snr))
    assert sums == pytest.approx(exact, rel=0.05)  # what eight levels make of the integral
    assert abs(found.kl - sums) < 4 * found.kl_bar + 0.02 * sums


def test_a_chain_is_asked_at_its_steps():
    chain = sg.DDPM.discretize(VP, 50)
    assert sg.score_residuals(chain, LAW.score, HELD[:300], levels=2, rng=0).passed
    late = sg.score_residuals(
        chain, lambda x, t: LAW.score(x, t + 0.02), HELD, times=[10, 15], rng=0
    )
    assert not late.passed
    assert {c.verdict for c in late.checks if "equation" in c.name} == {"not judged"}


def test_the_velocities_of_a_phase_space_are_judged():
    sde = sg.UnderdampedLangevin(sg.Quadratic())
    law = sg.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], stds=0.3).noised(sde)
    data = law.mixture.sample(500, rng=0, dtype=F64)
    right = sg.score_residuals(sde, law.score, data, times=[0.5, 2.0], rng=0)
    assert right.passed
    assert right.by_coordinate.shape == (2, 1)
    wrong = sg.score_residuals(
        sde, lambda x, t: 1.2 * law.score(x, t), data, times=[0.5, 2.0], rng=0
    )
    assert not wrong.passed
    assert abs(float(wrong.error[1]) - 0.2) < 4 * float(wrong.error_bars[1])


def test_the_curl_of_a_linear_field_is_that_of_its_matrix():
    a = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1), dtype=F64)
    t = torch.tensor(0.5, dtype=F64)
    turned, whole = antisymmetry(lambda x, t: x @ a.T, x, t, 0, stream(0, "curl"))
    for found, matrix in ((turned, 0.5 * (a - a.T)), (whole, a)):
        error = float(found.std()) / math.sqrt(len(x))
        assert abs(float(found.mean()) - float(matrix.square().sum())) < 4.5 * error


def test_an_estimated_gap_of_the_equation_is_the_exact_one():
    """In 20 coordinates by signs, beside the sum over coordinates."""
    law = mixture(20).noised(VP)
    t = torch.tensor(0.2, dtype=F64)
    x = law.sample(200, t, rng=0, dtype=F64)

    def score(x, t):
        return 1.3 * law.score(x, t)

    gap, size = equation_gap(score, VP, x, t, stream(0, "signs"))
    exact = fp_residual(score, VP, x, t).square().sum(1)
    error = float((gap - exact).std()) / math.sqrt(len(x))
    assert abs(float((gap - exact).mean())) < 4.5 * error
    assert float(exact.mean() / size.mean()) > 0.01


@pytest.mark.slow
def test_the_error_of_a_trained_network_is_bounded_from_below():
    """At least two fifths of the squared error are found, and at most all of it."""
    law = sg.GaussianMixture([0.5, 0.5], [[-0.8, -0.3], [0.8, 0.5]], stds=[0.3, 0.5]).noised(VP)
    model = sg.ScoreModel(sg.MLP(2, width=32, depth=2, rng=0), VP)
    sg.train(
        model, law.mixture.sample(4000, rng=5), sg.TrainConfig(steps=1000, batch_size=256), rng=0
    )
    held = law.mixture.sample(4000, rng=6)
    found = sg.score_residuals(VP, model, held, times=[0.1, 0.5, 0.9], rng=0)
    with torch.no_grad():
        squares = [truth(model.score, law, t)[0] for t in found.times]
    for square, seen, bar in zip(
        squares, found.squared_error, found.squared_error_bars, strict=True
    ):
        assert 0.4 * square - 4 * bar < seen < square + 4 * bar
    assert abs(float(found.squared_error[2]) - squares[2]) < 4 * float(found.squared_error_bars[2])


def test_a_model_is_judged_in_evaluation_mode_and_left_as_it_was():
    model = sg.ScoreModel(sg.MLP(2, width=8, depth=1, rng=0), VP)
    model.train()
    found = sg.score_residuals(VP, model, HELD.float(), times=[0.3, 0.6], rng=0)
    assert not found.passed
    assert model.training


def test_what_autograd_does_not_see_is_not_judged():
    found = sg.score_residuals(
        VP, lambda x, t: LAW.score(x.detach(), t), HELD, times=[0.3, 0.6], rng=0
    )
    slopes = [check for check in found.checks if check.p_value is None]
    assert {check.verdict for check in slopes} == {"not judged"}
    assert all("autograd" in check.remark for check in slopes)


def test_what_cannot_be_judged_is_refused():
    def ask(**changed):
        given = {"sde": VP, "score": LAW.score, "data": HELD} | changed
        return sg.score_residuals(**given)

    with pytest.raises(ValueError, match="data must hold 100 rows or more"):
        ask(data=HELD[:50])
    with pytest.raises(ValueError, match="all its rows are the same"):
        ask(data=torch.ones(200, 2, dtype=F64))
    with pytest.raises(ValueError, match=r"times must be times in \[0.001, 1\]"):
        ask(times=[0.0, 0.5])
    with pytest.raises(ValueError, match="two of them are the same"):
        ask(times=[0.5, 0.5])
    with pytest.raises(ValueError, match="steps k, whole numbers"):
        ask(sde=sg.DDPM.discretize(VP, 10), times=[0.5, 2.0])
    with pytest.raises(ValueError, match="has no t_min and t_max of its own"):
        ask(sde=sg.OrnsteinUhlenbeck())
    with pytest.raises(ValueError, match="noised by a Gaussian kernel"):
        ask(sde=sg.ItoProcess(lambda x: -(x**3), 1.0))
    with pytest.raises(ValueError, match="score must return x's shape"):
        ask(score=lambda x, t: x[:, :1])
    with pytest.raises(ValueError, match="score is not finite at t"):
        ask(score=lambda x, t: x / 0)
    with pytest.raises(ValueError, match="false_alarm must lie in"):
        ask(false_alarm=1.5)
    with pytest.raises(ValueError, match="curl must lie in"):
        sg.ScoreLimits(curl=2.0)
