"""Functionals: one number for each trajectory, the same from a run, an ensemble and a path."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.observables.functional_estimate import ValueSums

F64 = torch.float64
TIMES = [0.0, 0.3, 0.5, 1.0]
EULER = sg.EulerMaruyama(substeps=6)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
WANTED = (
    sg.TimeIntegral(lambda x: x.square()[:, 0]),
    sg.StochasticIntegral(lambda x: x**2, "ito", name="ito"),
    sg.StochasticIntegral(lambda x: x**2, "stratonovich"),
    sg.LocalTime(0.2),
    sg.Heat(),
    sg.MediumEntropy(),
)


def column(value, rows):
    return torch.full((rows, 1), value, dtype=F64)


def run(n=1500, wanted=WANTED, times=TIMES, solver=EULER, **options):
    options = {"rng": 3} | options
    return sg.simulate(
        WELL, column(0.5, n), times, solver=solver, functionals=list(wanted), **options
    )


def ensemble(n=1500, wanted=WANTED, sde=WELL, **options):
    return sg.run_ensemble(
        sde, column(0.5, 1), TIMES, trajectories=n, solver=EULER, observables=list(wanted), rng=3,
        progress=False, **options,
    )  # fmt: skip


def test_ensembles_and_trajectories_have_the_same_values(small_blocks):
    path, observed = run(), ensemble().observables
    assert list(path.functionals) == [one.name for one in WANTED]
    for name, values in path.functionals.items():
        assert (values.shape, values.dtype) == ((4, 1500), F64)
        assert not bool(values[0].any())
        found, x = observed[name], values.numpy()
        np.testing.assert_allclose(found.mean, x.mean(1), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(found.variance, x.var(1, ddof=1), rtol=1e-11, atol=1e-18)
        assert torch.equal(found.mean_error, (found.variance / 1500).sqrt())


def test_the_states_are_those_without_functionals():
    bare, path, last = run(wanted=()), run(), run(keep_path=False)
    assert bare.functionals == {}
    assert torch.equal(path.states, bare.states)
    for name, values in last.functionals.items():
        assert torch.equal(values, path.functionals[name][-1:])


def test_a_stored_path_has_the_values_of_its_run():
    times = torch.linspace(0, 1, 101, dtype=F64)
    path = run(n=200, times=times, solver=sg.EulerMaruyama())
    for one in WANTED:
        along = one.along(path, WELL, rng=path.seed)
        torch.testing.assert_close(along, path.functionals[one.name], rtol=1e-12, atol=1e-14)


def test_states_too_far_apart_are_told():
    coarse = run(n=200, times=[0.0, 2.0, 4.0, 6.0], wanted=(), solver=sg.EulerMaruyama(100))
    with pytest.warns(sg.AccuracyWarning, match="too far apart for stochastic_integral: with"):
        sg.StochasticIntegral(lambda x: x**3, "stratonovich").along(coarse, WELL)
    once = run(n=20, times=[0.0, 2.0], wanted=(), solver=sg.EulerMaruyama(100))
    with pytest.warns(sg.AccuracyWarning, match="one interval alone"):
        sg.Heat().along(once, WELL)
    last = run(n=20, wanted=(), keep_path=False)
    with pytest.raises(ValueError, match="simulate with keep_path=True"):
        sg.Heat().along(last, WELL)
    with pytest.raises(TypeError, match="path must be a Trajectory"):
        sg.Heat().along(coarse.states, WELL)


@pytest.mark.parametrize("split", [1, 30, 99])
def test_sums_of_two_sets_are_those_of_all(split):
    x = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=(100, 3)))
    one = ValueSums("a", None, None)
    parts = [{k: v[None] for k, v in one.of(part).items()} for part in (x[:split], x[split:])]
    found, whole = ValueSums.merged(*parts), one.of(x)
    for key, value in whole.items():
        torch.testing.assert_close(found[key][0], value, rtol=1e-11, atol=1e-11)
    moments = stats.moment(x.numpy(), [2, 3, 4])
    for key, moment in zip(("second", "third", "fourth"), moments, strict=True):
        np.testing.assert_allclose(whole[key] / 100, moment, rtol=1e-12)


def test_errors_histogram_and_exponential_average():
    """Of W_t at t = 1, N(0, 1): Var s² = 2/(n − 1), ⟨e^{−A/T}⟩ = e^{1/2T²}."""
    n, T = 20_000, 2.0
    one = sg.StochasticIntegral(
        lambda x: torch.ones_like(x), "ito", histogram=(-3.0, 3.0, 12), temperature=T
    )
    found = ensemble(n, [one], sg.BrownianMotion()).observables["stochastic_integral"]
    path = sg.simulate(sg.BrownianMotion(), column(0.5, n), TIMES, solver=EULER, rng=3)
    x = (path.states[-1] - 0.5)[:, 0].numpy()
    # its relative standard error is √((k − 1)/4n) with μ₈: 1.3 %; alarm beyond 5 of them
    assert float(found.variance_error[-1]) == pytest.approx(math.sqrt(2 / n), rel=0.065)
    assert abs(float(found.variance[-1]) - 1) < 4.42 * float(found.variance_error[-1])
    counts, _ = np.histogram(x, 12, (-3, 3))
    assert found.histogram.counts[-1].tolist() == counts.tolist()
    assert found.histogram.count == n
    weight = np.exp(-x / T)
    assert float(found.exponential[-1]) == pytest.approx(weight.mean(), rel=1e-12)
    assert float(found.exponential_error[-1]) == pytest.approx(
        weight.std(ddof=1) / math.sqrt(n), rel=1e-9
    )
    effective = weight.sum() ** 2 / (weight**2).sum()
    assert float(found.effective[-1]) == pytest.approx(effective, rel=1e-12)
    # false alarm 1e-5
    gap = float(found.exponential[-1]) - math.exp(1 / (2 * T**2))
    assert abs(gap) < 4.42 * float(found.exponential_error[-1])
    with pytest.raises(ValueError, match="pass temperature=T to the functional"):
        _ = ensemble(9, [sg.Heat()]).observables["heat"].exponential


def test_an_exponential_average_overflows_nowhere():
    one = sg.TimeIntegral(lambda x: 3000 + 0 * x[:, 0], temperature=0.5)
    found = ensemble(20, [one]).observables["time_integral"]
    assert float(found.log_exponential[-1]) == pytest.approx(-6000, rel=1e-12)


class Lengths(sg.Increments):
    def step(self, i, before, after):
        return (after - before).abs().flatten(1).sum(1)


class Length(sg.Functional):
    """The recipe of the module."""

    name = "length"

    def increments(self, block):
        return Lengths()


def test_ones_own():
    path = run(n=30, wanted=[Length()], times=torch.linspace(0, 1, 6), solver=sg.EulerMaruyama())
    expected = path.states.diff(dim=0).abs()[..., 0].cumsum(0)
    torch.testing.assert_close(path.functionals["length"][1:], expected)


@dataclass(frozen=True)
class _Wrong(sg.Functional):
    def increments(self, block):
        class Wide(sg.Increments):
            def step(self, i, before, after):
                return after - before

        return Wide()


def test_absorbed_trajectories_add_nothing():
    """∫ dt up to absorption is the time of it, which `absorbed` shows step by step."""
    times = torch.linspace(0, 0.1, 101, dtype=F64)
    ends = sg.Absorbing(0.0, 1.0)
    one = sg.TimeIntegral(lambda x: torch.ones_like(x[:, 0]), name="clock")
    path = sg.simulate(
        sg.BrownianMotion(), torch.linspace(0, 1, 50, dtype=F64)[:, None], times, rng=0,
        boundary=ends, functionals=[one],
    )  # fmt: skip
    before = ~path.absorbed[:-1]
    torch.testing.assert_close(path.functionals["clock"][-1], before.double().sum(0) / 1000)
    assert 0 < int(path.absorbed[-1].sum()) < 50
    torch.testing.assert_close(one.along(path, sg.BrownianMotion()), path.functionals["clock"])
    run_ = sg.run_ensemble(
        sg.BrownianMotion(), torch.linspace(0, 1, 50, dtype=F64)[:, None], times, rng=0,
        trajectories=50, boundary=ends, observables=[one], progress=False,
    )  # fmt: skip
    mean = path.functionals["clock"].mean(1)
    torch.testing.assert_close(run_.observables["clock"].mean, mean)
    with pytest.raises(ValueError, match="EulerMaruyama without compile"):
        sg.simulate(
            sg.BrownianMotion(), column(0.5, 5), times, rng=0, boundary=ends,
            functionals=[one], solver=sg.EulerMaruyama(compile=True),
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore::sdegen.AccuracyWarning")
def test_lost_trajectories_have_no_value():
    cube = sg.ItoProcess(lambda x: x**3, 0.0)
    x0 = torch.tensor([[0.5], [2.0]], dtype=F64)
    one = sg.TimeIntegral(lambda x: x[:, 0])
    path = sg.simulate(
        cube, x0, [0.0, 0.5, 1.0], solver=sg.EulerMaruyama(50), on_nonfinite="freeze",
        functionals=[one],
    )  # fmt: skip
    assert path.nonfinite.tolist() == [False, True]
    values = path.functionals["time_integral"]
    assert bool(values[:, 0].isfinite().all())
    assert bool(values[:, 1].isnan().all())
    found = sg.run_ensemble(
        cube, x0, [0.0, 0.5, 1.0], trajectories=2, solver=sg.EulerMaruyama(50),
        on_nonfinite="freeze", observables=[one], progress=False,
    ).observables["time_integral"]  # fmt: skip
    torch.testing.assert_close(found.mean, values[:, 0])


def test_gradients_flow_through_a_functional():
    # Σ ½ (x_i + x_{i+1}) dt of two Euler steps of dx = −k x dt: x0 dt (½ + (1 − k dt) + ½ (…)²)
    k, dt = torch.tensor(0.5, dtype=F64, requires_grad=True), 0.1
    path = sg.simulate(
        sg.ItoProcess(lambda x: -k * x, 0.0), column(1.0, 2), [0.0, dt, 2 * dt],
        differentiable=True, functionals=[sg.TimeIntegral(lambda x: x[:, 0])],
    )  # fmt: skip
    path.functionals["time_integral"][-1, 0].backward()
    a = 1 - 0.5 * dt
    assert float(k.grad) == pytest.approx(-dt * dt * (1 + a), rel=1e-12)


def test_parameters_of_trajectories_are_those_of_their_block(small_blocks):
    k = torch.linspace(0, 1, 700, dtype=F64)[:, None]
    sde = sg.ItoProcess(lambda x, k: k - x, 0.5, parameters={"k": k})
    times = torch.linspace(0, 1, 41, dtype=F64)
    path = sg.simulate(sde, column(0.0, 700), times, rng=0, functionals=[sg.Heat()])
    torch.testing.assert_close(sg.Heat().along(path, sde), path.functionals["heat"])


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        (sg.Heat(), TypeError, r"must be a list of Functionals, but is a Heat; pass"),
        ([sg.Moments()], TypeError, r"pass it to run_ensemble\(…, observables=\[…\]\)"),
        ([sg.Heat], TypeError, "functionals must hold Functionals"),
        ([sg.Heat(), sg.Heat()], ValueError, "two functionals are called 'heat'; give one"),
        ([_Wrong()], ValueError, r"shape \(2,\), as Wide.start does, but returned shape \(2, 1\)"),
    ],
)
def test_wrong_ones_are_refused(given, kind, told):
    with pytest.raises(kind, match=told):
        sg.simulate(WELL, column(0.5, 3), TIMES, functionals=given)


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: sg.Heat(histogram=3), TypeError, r"must be \(low, high, bins\)"),
        (lambda: sg.Heat(histogram=(1.0, 0.0, 5)), ValueError, "needs low < high"),
        (lambda: sg.Heat(temperature=0.0), ValueError, "temperature must be finite and > 0"),
    ],
)
def test_wrong_words_are_refused(make, kind, told):
    with pytest.raises(kind, match=told):
        make()


def test_solvers_that_choose_their_steps_are_refused():
    ode = sg.ItoProcess(lambda x: -x, 0.0)
    with pytest.raises(ValueError, match=r"TorchDiffEq chooses its own: use EulerMaruyama"):
        sg.simulate(
            ode, column(0.5, 3), TIMES, solver=sg.TorchDiffEq("dopri5"),
            functionals=[sg.TimeIntegral(lambda x: x[:, 0])],
        )  # fmt: skip


def test_a_value_that_is_not_finite_is_told_with_its_time():
    bad = sg.TimeIntegral(lambda x, t: torch.where(t > 0.4, torch.nan, 1.0) + 0 * x[:, 0])
    with pytest.warns(
        sg.AccuracyWarning, match=r"time_integral is not finite from t = 0\.5 on: look at"
    ):
        found = ensemble(20, [bad]).observables["time_integral"]
    assert found.mean.isfinite().tolist() == [True, True, False, False]


def test_a_histogram_of_several_numbers_is_refused():
    several = sg.TimeIntegral(lambda x: torch.cat([x, x], 1), histogram=(0.0, 1.0, 5))
    with pytest.raises(ValueError, match=r"has values of shape \(2,\); leave it out"):
        ensemble(20, [several])
