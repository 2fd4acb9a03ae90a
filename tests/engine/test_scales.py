"""Scales of starts and of ends: what is told, what passes, and that the advice cures it."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.engine.explosion import beyond_data

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
    dynamics = sg.ReverseSDE(sde, score)
    with pytest.warns(sg.AccuracyWarning, match=r"but at t = 1, .* together have about 1: "):
        sg.simulate(dynamics, x, sde.time_grid(2), rng=0, on_nonfinite="freeze")  # they explode
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


def _ends(sde, std, grid, solver):
    """A run of two modes five standard deviations to each side, and whether it was refused."""
    law = sg.GaussianMixture([0.5, 0.5], [[-5 * std, 0.0], [5 * std, 5 * std]], stds=std)
    flow = sg.ReverseSDE(sde, law.noised(sde).score, eta=0.0)
    x = sde.prior((100, 2), rng=0, dtype=F64)
    try:
        run = sg.simulate(flow, x, grid, solver=solver, keep_path=False, rng=0)
    except sg.NonFiniteError as error:
        return error.result, True
    return run, False


@every_path
@pytest.mark.parametrize("std", [0.02, 1.0])
def test_ends_that_no_score_knows_are_an_error_where_the_start_knows_nothing_of_data(sde, std):
    """Ends at 70 standard deviations and more, as five steps of high order leave; right ones pass.

    The data lie within 5 √2 of them, and a few more.
    """
    for solver in (sg.ExponentialAdams(4, "eps"), sg.AngularAdams(4), sg.Heun(), sg.DDIM()):
        for steps in (5, 40):
            run, told = _ends(sde, std, sg.timesteps.uniform(sde, steps), solver)
            size = float(run.final.abs().max()) / std
            assert told if size > 70 else not told or size > 15, (solver, steps, size)


def test_a_rectified_flow_that_ends_far_from_small_data_is_an_error():
    """It had ended at 427, of data of 0.02 about 1, without a word."""
    sde = PATHS["rectified flow"]
    x, grid = sde.prior((48, 1), rng=0, dtype=F64), sg.timesteps.uniform(sde, 5)
    law = sg.GaussianMixture([1.0], [[1.0]], stds=0.02).noised(sde)
    for score in (law.score, lambda x, t: law.score(x, t)):
        flow = sg.ReverseSDE(sde, score, eta=0.0)
        with pytest.raises(sg.NonFiniteError, match=r"\d+ of 48 .*the score knows no data"):
            sg.simulate(flow, x, grid, solver=sg.ExponentialAdams(4, "eps"))
        frozen = sg.simulate(
            flow, x, grid, solver=sg.ExponentialAdams(4, "eps"), on_nonfinite="freeze"
        )
        assert bool(frozen.nonfinite.any())
        with pytest.raises(sg.NonFiniteError, match=r"In block 0, .*the score knows no data"):
            sg.run_ensemble(
                flow,
                x,
                grid,
                trajectories=48,
                observables=[sg.Moments()],
                solver=sg.ExponentialAdams(4, "eps"),
                rng=0,
                progress=False,
            )
        fine = sg.simulate(flow, x, grid, solver=sg.ExponentialAdams(2, "x0", "midpoint"))
        assert float(fine.final.mean()) == pytest.approx(1.0, abs=0.02)


def test_a_posterior_that_leaps_is_an_error_where_its_ends_are_finite():
    """Without a covariance 120 steps had ended at a mean of -372, for 0.8; 160 are right."""
    sde, unit = PATHS["VP"], sg.GaussianMixture([1.0], [0.0], stds=1.0).noised(PATHS["VP"])
    measured = sg.LinearMeasurement(torch.eye(1, dtype=F64), torch.tensor([0.8], dtype=F64), 0.05)
    flow = sg.ReverseSDE(sde, measured.posterior_score(sde, unit.score, "none"), eta=0.0)
    x = sde.prior((20, 1), rng=0, dtype=F64)
    with pytest.raises(sg.NonFiniteError, match="the score knows no data"):
        sg.simulate(flow, x, sde.time_grid(120), solver=sg.DDIM())
    fine = sg.simulate(flow, x, sde.time_grid(160), solver=sg.DDIM()).final
    assert float(fine.mean()) == pytest.approx(0.8, abs=0.01)


def test_data_that_are_large_rare_or_far_from_0_are_no_explosion():
    """Exact samples of laws as wide as a score may know them, given as the end of a run."""
    sde, n = PATHS["VP"], 20_000
    t = torch.tensor(sde.t_min, dtype=F64)
    for law in (
        sg.GaussianMixture([1.0], [[0.0]], stds=50.0),
        sg.GaussianMixture([1.0], [[300.0]], stds=0.02),
        sg.GaussianMixture([0.999, 0.001], [[0.0], [30.0]], stds=0.01),
        sg.GaussianMixture([0.9999, 0.0001], [[0.0], [0.0]], stds=torch.tensor([0.1, 40.0])),
    ):
        noised = law.noised(sde)
        ends = noised.sample(n, t, rng=0, dtype=F64)
        for score in (noised.score, lambda x, t, s=noised.score: s(x, t)):
            assert not beyond_data(sg.ReverseSDE(sde, score), ends, t).any()
        far = torch.tensor([[1e4], [-1e5], [1e7]], dtype=F64)
        lost = beyond_data(sg.ReverseSDE(sde, noised.score), torch.cat([ends, far]), t)
        assert lost.tolist() == n * [False] + 3 * [True]


def test_the_ends_of_a_chain_are_asked_about_too():
    sde = PATHS["VP"]
    chain = sg.DDPM.discretize(sde, 50)
    reverse = chain.reverse(sg.GaussianMixture([1.0], [[0.0]], stds=0.02).noised(sde).score)
    ends = torch.cat([0.02 * torch.ones(5, 1), 3 * torch.ones(2, 1)]).double()
    assert beyond_data(reverse, ends, torch.tensor(0)).tolist() == 5 * [False] + 2 * [True]
    assert not beyond_data(reverse, ends[:5], torch.tensor(0)).any()
