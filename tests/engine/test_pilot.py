"""The pilot: steps that are too large are told before the first one, and adequate ones are not."""

import functools
import itertools
import math
import re
import signal
import warnings

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import Stream, Streams
from sdegen.engine.pilot import check_steps

F64 = torch.float64
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)


def _stiff(z):
    return torch.stack([-1000 * (z[:, 0] - torch.cos(z[:, 1])), -z[:, 1]], 1)


STIFF = sg.ItoProcess(_stiff, 1.0)


def _quietly(*arguments, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return sg.simulate(*arguments, **keywords)


def _said(message):
    """What the message says would do."""
    return int(re.search(r"substeps=(\d+)", str(message))[1])


# --- steps that explode


def _wells():
    return sg.GaussianMixture([1.0], [-1.0], stds=0.2).sample(20_000, rng=0).double()


@pytest.mark.parametrize("steps", [5, 6, 10])
def test_a_finite_answer_that_has_exploded_is_no_answer(steps):
    x0, times = _wells(), torch.linspace(0, 5, steps + 1)
    with pytest.raises(ValueError, match=r"too large.*largest \|x\| by a factor of") as caught:
        sg.simulate(WELL, x0, times, rng=0)
    # and what it advises cures it
    cured = _quietly(WELL, x0, times, solver=sg.EulerMaruyama(_said(caught.value)), rng=0)
    assert 1.5 < float(cured.final.abs().max()) < 4
    with pytest.raises(ValueError, match="too large"):
        sg.run_ensemble(
            WELL, x0, times, trajectories=len(x0), observables=[sg.Moments()], rng=0,
            progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("solver", [sg.EulerMaruyama, sg.Heun, lambda n: sg.TorchSDE("srk", n)])
def test_explicit_steps_of_a_stiff_equation_are_refused_with_steps_that_would_do(solver):
    z0, times = torch.zeros(200, 2, dtype=F64), torch.linspace(0, 0.1, 3)
    with pytest.raises(ValueError, match=r"steps of 0\.01 are too large") as caught:
        sg.simulate(STIFF, z0, times, solver=solver(5), rng=0)
    assert _said(caught.value) >= 5 * 8  # stable below dt = 2/1000
    with warnings.catch_warnings():
        # the first milliseconds, in which x finds its place, are coarse still
        warnings.simplefilter("ignore", sg.AccuracyWarning)
        found = sg.simulate(STIFF, z0, times, solver=solver(_said(caught.value)), rng=0).final
    # slaved: x = cos y, with y = a Brownian motion of t = 0.1, and x's own spread √(1/2000)
    assert abs(float(found[:, 0].mean()) - math.exp(-0.5 * 0.0906)) < 0.02


def test_growth_with_adequate_steps_passes():
    x0 = torch.ones(1000, 1, dtype=F64)
    for noise in (0.0, lambda x: 0.3 * x):
        growth = sg.ItoProcess(lambda x: x, noise)
        end = _quietly(growth, x0, [0.0, 20.0], solver=sg.EulerMaruyama(2000), rng=0).final
        assert 1e8 < float(end.mean()) < 1e9


def test_an_explosion_of_the_equation_itself_is_met_by_the_run():
    blow_up = sg.ItoProcess(lambda x: x**2, 0.0)
    with pytest.raises(sg.NonFiniteError, match="non-finite by"):
        sg.simulate(blow_up, torch.ones(9, 1, dtype=F64), torch.linspace(0, 3, 301))


CUBE = sg.ItoProcess(lambda x: x**3, 0.0)  # from 1 it is 1/√(1 − 2t)


@pytest.mark.parametrize(("solver", "noise"), [
    (sg.EulerMaruyama(), 0.0), (sg.Heun(), 0.05), (sg.TorchSDE("euler"), 0.05),
    (sg.EulerMaruyama(), lambda x: 0.05 * x),
])  # fmt: skip
def test_an_explosion_that_stays_finite_is_told(solver, noise):
    """At t = 1/2; steps of 0.1 had given 1e10 at t = 1, and 3.3 at 0.6, without a word."""
    cube, told = sg.ItoProcess(lambda x: x**3, noise), r"seems to explode before t = (0\.[5-8])"
    x = torch.ones(40, 1, dtype=F64)
    with pytest.warns(sg.AccuracyWarning, match=told):
        sg.simulate(cube, x, torch.linspace(0, 0.6, 7), solver=solver, rng=0)
    with pytest.warns(sg.AccuracyWarning, match=told):
        sg.run_ensemble(
            cube, x[:1], torch.linspace(0, 0.6, 7), trajectories=40, solver=solver, rng=0,
            observables=[sg.Moments()], progress=False,
        )  # fmt: skip


def test_steep_growth_that_ends_before_an_explosion_passes_and_follows_the_formula():
    x = torch.ones(1, 1, dtype=F64)
    end = _quietly(CUBE, x, torch.linspace(0, 0.45, 10), solver=sg.Heun(10)).final
    assert float(end) == pytest.approx(1 / math.sqrt(1 - 0.9), rel=1e-2)
    with pytest.warns(sg.AccuracyWarning, match="explode before t = 1: .*does not settle"):
        sg.simulate(CUBE, x, torch.linspace(0, 1, 2), solver=sg.EulerMaruyama(8))
    # of 3x a step of 0.01 moves the mean by 11 % of the spread, which a pilot at its end would say
    fine = torch.linspace(0, 1, 201)
    for grows in (lambda x: x**1.0, lambda x: 3 * x, lambda x: 0.3 * x**2):
        _quietly(sg.ItoProcess(grows, 0.0), x, torch.linspace(0, 1, 11))
        _quietly(sg.ItoProcess(grows, lambda x: 0.2 * x), x.expand(500, 1), fine, rng=0)


def test_frozen_an_explosion_is_warned_of():
    with pytest.warns(sg.AccuracyWarning, match="are too large"):
        sg.simulate(WELL, _wells(), torch.linspace(0, 5, 6), rng=0, on_nonfinite="freeze")


# --- steps that bias


def test_biased_steps_are_warned_of_with_the_step_that_would_do():
    # the chain's stationary variance is 1/(1 − h/2): h = 1 has 2 for 1, and 1/2 has 4/3
    ou, x0 = (
        sg.OrnsteinUhlenbeck(),
        torch.randn(3000, 1, generator=torch.Generator().manual_seed(0)),
    )
    times = torch.linspace(0, 10, 11)
    with pytest.warns(sg.AccuracyWarning, match=r"standard deviation by .* % .*errors") as told:
        sg.simulate(ou, x0, times, rng=0)
    substeps = _said(told[0].message)
    assert substeps in (2, 4, 8)
    _quietly(ou, x0, times, solver=sg.EulerMaruyama(substeps), rng=0)
    with pytest.warns(sg.AccuracyWarning, match="standard deviation by"):
        sg.run_ensemble(
            ou, lambda rows, rng: torch.randn(rows, 1, generator=rng), times, trajectories=3000,
            observables=[sg.Moments()], rng=0, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("call", ["simulate", "run_ensemble"])
def test_a_warning_points_at_the_line_of_the_call(programs, call):
    more = "" if call == "simulate" else ", trajectories=9, observables=[sg.Moments()]"
    lines = [
        "import warnings, torch, sdegen as sg",
        "with warnings.catch_warnings(record=True) as told:",
        "    warnings.simplefilter('always')",
        f"    sg.{call}(sg.OrnsteinUhlenbeck(), torch.ones(9, 1), [0.0, 1.0], rng=0{more})",
        "print([one.lineno for one in told])",
    ]
    assert programs.run(code="\n".join(lines)) == "[4]\n"


def test_no_warning_where_steps_are_small():
    # 40 seeds of two problems at steps of a relative error of 2 %: none may be warned of
    ou, x0 = sg.OrnsteinUhlenbeck(), torch.zeros(300, 1, dtype=F64)
    g = torch.tensor([0.0, 0.6], dtype=F64)
    phase = sg.ItoProcess(
        lambda z: torch.stack([z[:, 1], -torch.sin(z[:, 0]) - 0.5 * z[:, 1]], 1),
        lambda z, t: g, noise="additive",
    )  # fmt: skip
    for seed in range(20):
        _quietly(ou, x0, torch.linspace(0, 2, 26), rng=seed)
        _quietly(phase, torch.zeros(50, 2, dtype=F64), torch.linspace(0, 6, 121), rng=seed)


def test_a_flow_that_contracts_is_judged_by_the_spread_it_had():
    # at t = 10 Euler has 0.9^100 for e^-10: nothing of the start is left in either
    x0 = torch.randn(100, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    _quietly(sg.ItoProcess(lambda x: -x, 0.0), x0, torch.linspace(0, 10, 101))


# --- within boundaries


def test_reflecting_periodic_and_absorbing_ends_make_no_false_alarm():
    x0 = torch.full((3000, 1), 0.5, dtype=F64)
    times, em = torch.linspace(0, 0.5, 6, dtype=F64), sg.EulerMaruyama(20)
    bm = sg.BrownianMotion(1.0)
    for seed in range(3):
        for boundary in (
            sg.Reflecting(0.0, 1.0),
            sg.Absorbing(0.0, 1.0),
            sg.Absorbing(high=lambda t: 1 + t),
            (sg.Reflecting(0.0), sg.Absorbing(high=1.0)),
        ):
            _quietly(bm, x0, times, solver=em, rng=seed, boundary=boundary)
        ring = sg.ItoProcess(lambda x: torch.sin(2 * math.pi * x), 1.0)
        _quietly(ring, x0, times, solver=em, rng=seed, boundary=sg.Periodic(0.0, 1.0))


@pytest.mark.parametrize("boundary", [sg.Absorbing(-9.0, 9.0), sg.Reflecting(-9.0, 9.0)])
def test_ends_do_not_hide_steps_that_are_too_large(boundary):
    x0 = torch.randn(3000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.warns(sg.AccuracyWarning, match="half of them move the standard deviation"):
        sg.simulate(sg.OrnsteinUhlenbeck(), x0, torch.linspace(0, 6, 6), rng=0, boundary=boundary)


# --- where no pilot is made


def test_seeded_results_keep_their_bits():
    x0 = torch.zeros(100, 1, dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sg.AccuracyWarning)
        for steps in (1, 7, 300):
            path = sg.simulate(WELL, x0, [0.0, 0.3], solver=sg.EulerMaruyama(steps), rng=0)
            x, noise = (
                x0.clone(),
                Streams(0, "dynamics").block(0).normals((100, 1), dtype=F64).each(),
            )
            for _ in range(steps):
                h = 0.3 / steps
                x = x + h * (x - x**3) + 0.7 * h**0.5 * next(noise)
            torch.testing.assert_close(path.final, x, rtol=1e-12, atol=1e-12)


def _pilot(sde, solver, x0, times):
    return check_steps(
        sde, solver, x0, torch.as_tensor(times, dtype=F64), trajectories=len(x0), boundary=None,
        whole=False, noise=Stream(0),
    )  # fmt: skip


def test_chains_samplers_and_dynamics_of_steps_have_no_pilot():
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    x0, grid = torch.zeros(9, 1, dtype=F64), vp.time_grid(5)
    chain = sg.DDPM.discretize(vp, steps=5)
    em = sg.EulerMaruyama()
    assert _pilot(WELL, em, x0, [0.0, 0.1]) is not None
    assert _pilot(chain, em, x0, torch.arange(6.0)) is None
    for eta in (0.0, 1.0):
        assert _pilot(sg.ReverseSDE(vp, lambda x, t: -x, eta), em, x0, grid) is None
    assert _pilot(chain.reverse(lambda x, t: -x), em, x0, torch.arange(5.0, -1, -1)) is None
    network = sg.RateNetwork(torch.eye(1), sigma=0.1)
    assert _pilot(network, em, x0, torch.arange(6.0)) is None  # dt = 1 is a network of its own
    assert _pilot(sg.ItoProcess(lambda x: -x, 0.0), sg.TorchDiffEq(), x0, [0.0, 1.0]) is None


def test_no_network_is_called_for_it():
    layer, calls = torch.nn.Linear(1, 1).double(), []

    def drift(x):
        calls.append(len(x))
        return layer(x) - x

    sg.simulate(sg.ItoProcess(drift, 0.5), torch.zeros(50, 1, dtype=F64), [0.0, 3.0], rng=0)
    assert calls == [4, 50]


def test_what_raises_on_the_way_is_the_runs_to_tell():
    def later(x, t):
        if t > 0.55:
            raise RuntimeError("my own drift")
        return -x

    with pytest.raises(RuntimeError, match="my own drift") as caught:
        sg.simulate(sg.ItoProcess(later, 0.5), torch.zeros(9, 1), torch.linspace(0, 1, 11), rng=0)
    assert caught.value.__notes__ == ["in step 6 of 10, at t = 0.6"]


# --- what is met later


def test_coupling_that_starts_later_is_seen():
    # a mean field that sets in beyond |x| = 0.5, where no displacement of the start reaches
    def drift(x):
        beyond = (x.abs() > 0.5).to(x)
        return 4 + beyond * x.mean(0)

    sde = sg.ItoProcess(drift, 0.5)
    x0, times = torch.zeros(60_000, 1, dtype=F64), torch.linspace(0, 1, 101)
    found = sg.simulate(sde, x0, times, rng=0, keep_path=False).final
    together = sg.simulate(sde, x0, times, rng=0, keep_path=False, interacting=True).final
    assert torch.equal(found, together)


# --- rounding


def test_a_state_that_stalls_is_warned_of():
    creep = sg.ItoProcess(lambda x: 0.001 + 0 * x, 0.0)
    x0, run = torch.full((5, 1), 1000.0), {"solver": sg.EulerMaruyama(5_000)}
    with pytest.warns(sg.AccuracyWarning, match=r"rounding takes .* x = 1000 .*x0\.double\(\)"):
        stalled = sg.simulate(creep, x0, [0.0, 50.0], **run).final
    assert torch.equal(stalled, x0)
    moved = _quietly(creep, x0.double(), [0.0, 50.0], **run).final  # as it says
    torch.testing.assert_close(moved, x0.double() + 0.05, rtol=1e-12, atol=0)
    # noise of the size of the last bit carries small increments through
    dithered = sg.ItoProcess(lambda x: 0.001 + 0 * x, 0.01)
    _quietly(dithered, x0, [0.0, 20.0], solver=sg.EulerMaruyama(2000), rng=0)
    # and what stands still does not stall
    _quietly(sg.ItoProcess(lambda x: 1000 - x, 0.0), x0, [0.0, 1.0], solver=sg.EulerMaruyama(99))


def test_ctrl_c_in_a_pilot_ends_the_run():
    calls = itertools.count()

    def drift(x):
        if len(x) == 256 and next(calls) == 6:  # rows of the pilot, in one of its steps
            signal.raise_signal(signal.SIGINT)
        return -x

    run = functools.partial(sg.simulate, sg.ItoProcess(drift, 1.0), torch.zeros(1000, 1))
    with pytest.raises(sg.Interrupted, match="before the first step"):
        run(torch.linspace(0, 1, 11), rng=0)
