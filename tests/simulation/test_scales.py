"""Scales of starts and of ends: what is told, what passes, and that the advice cures it."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
PATHS = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "sub-VP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "EDM": sg.EDM(),
    "rectified flow": sg.RectifiedFlow(),
}
LAW = sg.GaussianMixture([0.5, 0.5], [[-0.5, 0.0], [0.5, 0.3]], stds=0.2)
every_path = pytest.mark.parametrize("sde", PATHS.values(), ids=PATHS)


@every_path
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_priors_and_noised_data_pass(sde, eta):
    """Of large and small data, at the end of the path and on the way; and flows towards noise."""
    for scale in (0.05, 1.0, 10.0):
        for t in (sde.t_max, sde.t_min + 0.5 * (sde.t_max - sde.t_min)):
            data = scale * LAW.sample(40, rng=0, dtype=F64)
            x = sde.perturb(data, torch.tensor(t, dtype=F64), rng=1)[0]
            dynamics = sg.ReverseSDE(sde, lambda x, t: 0 * x, eta)
            sg.simulate(dynamics, x, [t, 0.999 * t], rng=2)
    flow = sg.ReverseSDE(sde, lambda x, t: 0 * x, eta=0.0)
    sg.simulate(flow, LAW.sample(40, rng=0, dtype=F64), sde.time_grid(8).flip(0))


@pytest.mark.parametrize("name", ["VE", "EDM"])
def test_a_start_of_unit_variance_on_a_path_of_more_is_told(name):
    """It had ended at a standard deviation of 0.0007; from the prior it is right."""
    sde = PATHS[name]
    flow = sg.ReverseSDE(sde, LAW.noised(sde).score, eta=0.0)
    times, solver = sg.timesteps.karras(sde, 40), sg.Heun()
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.warns(sg.AccuracyWarning, match=r"root mean square of 0\.994, but at t = .*alone"):
        sg.simulate(flow, x, times, solver=solver, keep_path=False)
    cured = sg.simulate(flow, sde.prior((500, 2), rng=0, dtype=F64), times, solver=solver)
    std = float(LAW.covariance.diagonal().sum().sqrt())
    # 4.4 standard errors of 1,000 numbers
    found = float((cured.final - cured.final.mean(0)).square().sum(1).mean().sqrt())
    assert found == pytest.approx(std, rel=4.42 / math.sqrt(2 * 1000) + 0.03)


def test_a_start_that_is_too_large_and_the_start_of_a_chain_are_told():
    sde = PATHS["VP"]
    score = LAW.noised(sde).score
    x = sg.EDM().prior((40, 2), rng=0)
    with pytest.warns(sg.AccuracyWarning, match=r"but at t = 1, .* together have about 1: "):
        sg.simulate(sg.ReverseSDE(sde, score), x, sde.time_grid(2), rng=0)
    chain, k = sg.DDPM.discretize(sde, 4), torch.arange(5.0).flip(0)
    with pytest.warns(sg.AccuracyWarning, match=r"root mean square of 0\.0\d+, but at t = 4"):
        sg.simulate(chain.reverse(score), 0.05 * sde.prior((40, 2), rng=0), k, rng=0)
    sg.simulate(chain.reverse(score), sde.prior((40, 2), rng=0), k, rng=0)


def test_an_ensemble_of_samples_is_told_of_starts_that_are_none_of_the_path():
    sde = PATHS["EDM"]
    flow = sg.ReverseSDE(sde, LAW.noised(sde).score, eta=0.0)
    words = {"trajectories": 200, "observables": [sg.Moments()], "rng": 0, "progress": False}
    times = sg.timesteps.karras(sde, 10)
    wrong = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for x0 in (wrong, lambda n, rng: torch.randn(n, 2, generator=rng, dtype=F64)):
        with pytest.warns(sg.AccuracyWarning, match=r"root mean square of .*, but at t = .*alone"):
            sg.run_ensemble(flow, x0, times, **words)
    sg.run_ensemble(flow, sde.prior((200, 2), rng=0, dtype=F64), times, **words)


def _exploding():
    """A flow whose score is ten times too large for one start in four: finite, and far away."""
    sde = PATHS["VP"]
    right = LAW.noised(sde).score

    def score(x, t):
        wrong = x[:, :1] > 0.6
        return torch.where(wrong, 3 * x + 0 * right(x, t), right(x, t))

    return sde, sg.ReverseSDE(sde, score, eta=0.0)


def test_an_explosion_of_an_ensemble_of_samples_is_an_error_as_that_of_simulate(tmp_path):
    sde, flow = _exploding()
    x, times = sde.prior((300, 2), rng=0, dtype=F64), sde.time_grid(20)
    words = {"trajectories": 300, "observables": [sg.Moments()], "rng": 0, "progress": False}
    with pytest.raises(sg.NonFiniteError, match=r"\d+ of 300 trajectories have exploded") as alone:
        sg.simulate(flow, x, times, rng=0)
    with pytest.raises(
        sg.NonFiniteError, match=r"block 0, .*have exploded.* 0 of 1 blocks"
    ) as many:
        sg.run_ensemble(flow, x, times, **words)
    assert str(alone.value) in str(many.value)
    with pytest.raises(sg.NonFiniteError, match="have exploded"):
        sg.run_ensemble(flow, x, times, store=tmp_path / "run.zarr", **words)
    lost = sg.simulate(flow, x, times, rng=0, on_nonfinite="freeze")
    kept = sg.run_ensemble(flow, x, times, on_nonfinite="freeze", **words)
    assert kept.nonfinite == int(lost.nonfinite.sum()) > 0
    mean = lost.finite[-1].mean(0)
    assert torch.allclose(kept.observables["moments"].mean[-1], mean, rtol=1e-10)


@every_path
def test_a_sum_of_scores_is_told_and_one_score_is_not(sde):
    """Of two laws it is twice as steep as noise; it collapses under the flow, without a word."""
    one = LAW.noised(sde).score
    other = sg.GaussianMixture([1.0], [[1.0, 0.0]], stds=0.8).noised(sde).score
    x, times = sde.prior((40, 2), rng=0, dtype=F64), [sde.t_max, 0.999 * sde.t_max]
    for eta in (0.0, 1.0):
        flow = sg.ReverseSDE(sde, lambda x, t: one(x, t) + other(x, t), eta)
        with pytest.warns(
            sg.AccuracyWarning, match=r"the score is (2|1\.9\d*) times that of noise"
        ):
            sg.simulate(flow, x, times, rng=0, on_nonfinite="freeze")
        sg.simulate(sg.ReverseSDE(sde, one, eta), x, times, rng=0)
    guided = sg.ReverseSDE(sde, lambda x, t: 3 * one(x, t) - 2 * other(x, t))
    sg.simulate(guided, x, times, rng=0, on_nonfinite="freeze")
