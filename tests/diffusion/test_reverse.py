"""Reverse dynamics: the whole η family shares the marginals of the forward process."""

import math

import exact
import pytest
import torch

import sdegen as sg
from sdegen.core.scores import CallCounter

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SDES = {
    "VP": VP,
    "SubVP": sg.SubVP(sg.CosineBeta()),
    "VE": sg.VE(sg.GeometricSigma(0.01, 5.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(t_max=5.0),
}
ETAS = [0.0, 0.5, 1.0, 1.7]
MEAN, STD = 0.7, 0.5

every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
every_eta = pytest.mark.parametrize("eta", ETAS)


def _noised(sde):
    return sg.GaussianMixture([1.0], [[MEAN]], stds=STD).noised(sde)


@every_sde
@every_eta
def test_drift_and_diffusion_are_the_formula(sde, eta):
    x, t = torch.tensor([[0.3], [-1.2]], dtype=F64), torch.tensor(0.4, dtype=F64)
    score = _noised(sde).score
    reverse = sg.ReverseSDE(sde, score, eta)
    f, g = sde.drift(x, t), sde.diffusion(x, t)
    expected = f - (1 + eta**2) / 2 * g**2 * score(x, t)
    torch.testing.assert_close(reverse.drift(x, t), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(reverse.diffusion(x, t), eta * g, rtol=0, atol=0)
    assert (reverse.noise, reverse.direction) == ("additive" if eta else "none", -1)


@every_sde
@every_eta
@pytest.mark.parametrize("t", [0.01, 0.3, 0.9])
def test_mean_and_variance_move_as_those_of_the_forward_process(sde, eta, t):
    # of a linear drift A x + c, walked down: dm/dt = A m + c, dv/dt = 2 A v − (η g)²
    time, law = torch.tensor(t, dtype=F64), _noised(sde).at(t)
    m, v = float(law.mean), float(law.covariance)
    reverse = sg.ReverseSDE(sde, _noised(sde).score, eta)
    f = reverse.drift(torch.tensor([[0.0], [1.0]], dtype=F64), time)[:, 0]
    a, c, g = float(f[1] - f[0]), float(f[0]), float(reverse.diffusion(f[:, None], time))
    rate, noise = float(sde.drift_rate(time)), float(sde.diffusion_rate(time))
    assert a * m + c == pytest.approx(rate * m, rel=1e-9, abs=1e-9)
    assert 2 * a * v - g**2 == pytest.approx(2 * rate * v + noise**2, rel=1e-9, abs=1e-9)


@pytest.mark.slow
@every_eta
def test_euler_maruyama_reaches_the_data_to_first_order(eta):
    # exact moments of the chain: the error in mean and variance halves with the step
    reverse, noised, errors = sg.ReverseSDE(VP, _noised(VP).score, eta), _noised(VP), []
    start, end = noised.at(1.0), noised.at(VP.t_min)
    for steps in (400, 800):
        grid = VP.time_grid(steps)
        moments = exact.linear_chain_moments(
            sg.EulerMaruyama(), reverse, grid, float(start.mean), float(start.covariance)
        )
        reached = torch.stack([end.mean[0], end.covariance[0, 0]])
        errors.append((moments[-1] - reached).abs())
    assert float(errors[1].max()) < 0.02
    ratios = (errors[0] / errors[1]).tolist()
    assert ratios == pytest.approx([2.0, 2.0], rel=0.1)


def test_its_times_are_those_at_which_the_score_exists():
    reverse = sg.ReverseSDE(sg.VP(sg.LinearBeta(0.1, 20.0), t_min=0.02), _noised(VP).score)
    assert reverse.time_range == (0.02, 1.0)
    free = sg.ReverseSDE(sg.BrownianMotion(), lambda x, t: -x)
    assert free.time_range == (-math.inf, math.inf)


def test_what_a_sampler_finds_inside():
    score = _noised(VP).score
    inner = sg.ReverseSDE(VP, score, 0.5).denoising
    assert (inner.score, inner.eta) == (score, 0.5)
    assert float(inner.kernel.sigma(torch.tensor(0.3))) == float(VP.sigma(torch.tensor(0.3)))
    assert sg.ReverseSDE(sg.BrownianMotion(), lambda x, t: -x).denoising.kernel is None


def test_calls_of_the_score_are_counted_however_they_come():
    counter, x, t = CallCounter(), torch.ones(2, 1, dtype=F64), torch.tensor(0.5, dtype=F64)
    twin = sg.ReverseSDE(VP, _noised(VP).score).with_counter(counter)
    twin.drift(x, t)
    twin.denoising.score(x, t)
    twin.diffusion(x, t)
    assert counter.calls == 2


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (sg.ItoProcess(lambda x: -x, 0.0), "a noise-free SDE is reversed by running it with decr"),
        (sg.DDPM([0.1, 0.2]), r"DDPM is a Markov chain .* its inverse is chain\.reverse\(score\)"),
        (sg.ReverseSDE(VP, _noised(VP).score), "ReverseSDE is a reverse process already"),
    ],
)
def test_what_has_no_such_reverse_is_refused(forward, message):
    with pytest.raises(ValueError, match=message):
        sg.ReverseSDE(forward, lambda x, t: -x)


@pytest.mark.parametrize("eta", [-0.1, math.inf, math.nan])
def test_eta_must_be_a_number_from_zero_on(eta):
    with pytest.raises(ValueError, match="eta must be finite and ≥ 0, but is"):
        sg.ReverseSDE(VP, lambda x, t: -x, eta)


def test_a_score_is_a_function(as_user):
    with pytest.raises(TypeError, match=r"score must be a function \(x, t\) .* but is 1\.0"):
        sg.ReverseSDE(VP, 1.0)


def test_a_score_is_held_to_the_sde_that_it_belongs_to():
    like = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=5e-3)
    other = sg.SubVP(sg.LinearBeta(0.1, 20.0))
    law, model = _noised(VP), sg.ScoreModel(sg.MLP(1, width=4, rng=0), VP)
    # σ² of sub-VP is the square of VP's; at t = 1 they are 2e-5 apart, in the middle 0.05
    half = torch.tensor(0.5 * (other.t_min + other.t_max), dtype=F64)
    variance = 1 - float(VP.alpha(half)) ** 2
    said = rf"SDE, a VP: at t = .* sigma is {variance**0.5:.6g}, .* this SubVP is {variance:.6g}"
    for score in (law.score, model.score, model):
        sg.ReverseSDE(VP, score)
        sg.ReverseSDE(like, score)
        with pytest.raises(ValueError, match=said):
            sg.ReverseSDE(other, score)
        sg.ReverseSDE(other, lambda x, t, score=score: score(x, t))
    x = torch.zeros(2, 1)
    for use in (sg.log_likelihood, sg.continuous_elbo):
        with pytest.raises(ValueError, match=said):
            use(other, law.score, x)
