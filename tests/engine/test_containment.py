"""Steps at a boundary, against exact laws: bridges, turns, ends that move, ends without noise."""

import dataclasses
import math

import exact
import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.engine import containment

F64 = torch.float64
BM = sg.ItoProcess(lambda x: 0 * x, 1.0)


def column(value, n):
    return torch.full((n, 1), float(value), dtype=F64)


def alive(path):
    """The share of trajectories that nothing has absorbed, and 4 of its standard errors."""
    p = 1 - path.absorbed[-1].double().mean()
    return float(p), 4.42 * math.sqrt(float(p * (1 - p)) / path.absorbed.shape[1])  # alarm 1e-5


# --- the bridge


@pytest.mark.parametrize("steps", [10, 100])
def test_survival_between_absorbing_walls_is_that_of_the_paths(steps):
    right = exact.box_survival(1.0, 0.5, 0.3, 0.2)  # 0.3839
    times = torch.linspace(0, 0.2, steps + 1)
    ends = sg.Absorbing(0.0, 1.0)
    path = sg.simulate(BM, column(0.3, 100_000), times, boundary=ends, rng=1, keep_path=False)
    share, error = alive(path)
    assert abs(share - right) < error  # no bias: the chain of Brownian motion has its law
    inside = (path.final > 0) & (path.final < 1)
    assert torch.equal(inside[:, 0], ~path.absorbed[-1])


def test_the_bridge_is_turned_off_by_name():
    times, x0 = torch.linspace(0, 0.2, 11), column(0.3, 100_000)
    without = sg.Absorbing(0.0, 1.0, bridge=False)
    path = sg.simulate(BM, x0, times, boundary=without, rng=1, keep_path=False)
    assert alive(path)[0] == pytest.approx(0.52, abs=0.01)  # what the chain alone sees


def test_who_meets_no_absorbing_end_keeps_every_bit():
    times, x0 = torch.linspace(0, 1, 51), column(0.0, 500)
    free = sg.simulate(BM, x0, times, rng=3)
    kept = sg.simulate(BM, x0, times, rng=3, boundary=sg.Absorbing(-1.5, 1.5))
    out = kept.absorbed[-1]
    assert 0 < int(out.sum()) < 500
    assert torch.equal(kept.states[:, ~out], free.states[:, ~out])
    for k in range(len(times)):  # who is absorbed stays where the end is
        gone = kept.absorbed[k]
        assert torch.equal(kept.states[k, gone].abs(), torch.full_like(x0[gone], 1.5))
        assert torch.equal(kept.states[k, gone], kept.final[gone])


def test_multiplicative_noise_is_frozen_over_a_step():
    """log X of dX = X dW, absorbed at ½ and 2: a Brownian motion with drift −½ in ± log 2."""
    gbm, t, steps = sg.ItoProcess(lambda x: 0 * x, lambda x: x), 0.3, 60
    n, a = 40_000, math.log(2.0)
    path = sg.simulate(
        gbm, column(1.0, n), torch.linspace(0, t, steps + 1), rng=2, keep_path=False,
        boundary=sg.Absorbing(0.5, 2.0),
    )  # fmt: skip
    # with y = log x: the survival of the fixed box is weighed by Girsanov's exp(−½ y − t/8)
    y = torch.linspace(-a, a, 2001, dtype=F64)
    modes = sum(
        torch.sin(k * math.pi * (y + a) / (2 * a))
        * math.sin(k * math.pi / 2)
        * math.exp(-((k * math.pi / (2 * a)) ** 2) * t / 2)
        for k in range(1, 40)
    )
    right = float(torch.trapezoid(modes / a * (-0.5 * y - t / 8).exp(), y))
    share, error = alive(path)
    assert abs(share - right) < error + 0.5 * t / steps  # and the frozen noise, O(dt)


def test_a_device_that_cannot_sort_out_draws_for_all(monkeypatch):
    monkeypatch.setattr(containment, "_SORTED_OUT", set())
    path = sg.simulate(
        BM, column(0.3, 100_000), torch.linspace(0, 0.2, 11), boundary=sg.Absorbing(0.0, 1.0),
        rng=5, keep_path=False,
    )  # fmt: skip
    share, error = alive(path)
    assert abs(share - exact.box_survival(1.0, 0.5, 0.3, 0.2)) < error


def test_a_chain_and_noise_free_dynamics_draw_no_bridge():
    flow = sg.ItoProcess(lambda x: torch.ones_like(x), 0.0)
    path = sg.simulate(
        flow, column(0.0, 2), torch.linspace(0, 2, 21), boundary=sg.Absorbing(high=1.05)
    )
    assert path.absorbed.sum(1).tolist() == [0] * 11 + [2] * 10
    chain = sg.DDPM.discretize(sg.VP(sg.LinearBeta(0.1, 20.0)), steps=50)
    x0, times = column(0.0, 1000), torch.arange(51.0)
    options = {"rng": 0, "keep_path": False}
    on, off = (
        sg.simulate(chain, x0, times, boundary=sg.Absorbing(-2.0, 2.0, bridge=b), **options)
        for b in (True, False)
    )
    assert torch.equal(on.final, off.final)


def test_compiled_runs_walk_bridges_step_by_step():
    times, x0 = torch.linspace(0, 0.2, 3), column(0.3, 200)
    plain, fast = (
        sg.simulate(BM, x0, times, solver=sg.EulerMaruyama(5, compile=c), rng=0,
                    boundary=sg.Absorbing(0.0, 1.0))
        for c in (False, True)
    )  # fmt: skip
    assert torch.equal(plain.states, fast.states)
    assert torch.equal(plain.absorbed, fast.absorbed)


def test_threads_change_no_bit_of_bridges():
    x0, times = column(0.3, 120_000), torch.linspace(0, 0.2, 6)
    one, two = (
        sg.simulate(BM, x0, times, boundary=sg.Absorbing(0.0, 1.0), rng=7, threads=k)
        for k in (1, 2)
    )
    assert torch.equal(one.states, two.states)


# --- ends that move


@pytest.mark.parametrize("slope", [0.5, -0.4])
def test_survival_under_an_end_that_moves_along_a_line_is_exact_at_any_step(slope):
    n, t, a = 100_000, 1.0, 1.0
    path = sg.simulate(
        BM, column(0.0, n), torch.linspace(0, t, 5), rng=1, keep_path=False,
        boundary=sg.Absorbing(high=lambda s: a + slope * s),
    )  # fmt: skip
    # Siegmund 1985, eq. (3.14): Φ((a + ct)/√t) − e^{−2ac} Φ((ct − a)/√t)
    normal = stats.norm.cdf
    right = normal((a + slope * t) / t**0.5)
    right -= math.exp(-2 * a * slope) * normal((slope * t - a) / t**0.5)
    share, error = alive(path)
    assert abs(share - right) < error


def test_an_absorbed_trajectory_stays_where_the_end_was():
    path = sg.simulate(
        BM, column(0.0, 200), torch.linspace(0, 1, 11), rng=1,
        boundary=sg.Absorbing(high=lambda t: 1.0 - 0.5 * t),
    )  # fmt: skip
    for k in range(1, 11):
        new = path.absorbed[k] & ~path.absorbed[k - 1]
        here = path.states[k, new]
        torch.testing.assert_close(here, torch.full_like(here, 1.0 - 0.05 * k))
        assert torch.equal(here, path.final[new])


def test_ends_that_meet_are_refused():
    with pytest.raises(ValueError, match=r"low < high at all times, but at t = 1 .* end the run"):
        sg.simulate(
            BM, column(0.0, 2), [0.0, 0.5, 1.0], rng=0,
            boundary=sg.Absorbing(lambda t: t - 1.0, lambda t: 1.0 - t),
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"inside the boundary \[−?-?inf, -1\]"):
        sg.simulate(BM, column(0.0, 2), [0.0, 1.0], boundary=sg.Absorbing(high=lambda t: t - 1))


# --- turns


def test_the_mean_squared_displacement_in_a_periodic_box():
    r = sg.simulate(
        sg.BrownianMotion(1.0), torch.full((20_000, 1), 0.5), [0.0, 1.0, 4.0], rng=0,
        boundary=sg.Periodic(0.0, 1.0), solver=sg.EulerMaruyama(100),
    )  # fmt: skip
    square = (r.unwrapped - r.unwrapped[0]).square().mean((1, 2)).tolist()
    noise = 4.42 * math.sqrt(2 / 20_000)  # alarm 1e-5
    assert square[0] == 0.0
    assert abs(square[1] - 1) < noise
    assert abs(square[2] - 4) < 4 * noise
    assert bool(((r.states >= 0) & (r.states <= 1)).all())
    # and it is the walk on the line, but for rounding
    line = sg.simulate(
        sg.BrownianMotion(1.0), torch.full((20_000, 1), 0.5, dtype=F64), [0.0, 1.0, 4.0], rng=0,
        solver=sg.EulerMaruyama(100),
    )  # fmt: skip
    around = sg.simulate(
        sg.BrownianMotion(1.0), torch.full((20_000, 1), 0.5, dtype=F64), [0.0, 1.0, 4.0], rng=0,
        boundary=sg.Periodic(0.0, 1.0), solver=sg.EulerMaruyama(100),
    )  # fmt: skip
    torch.testing.assert_close(around.unwrapped, line.states, rtol=0, atol=1e-10)


def test_an_underdamped_particle_on_a_ring_keeps_its_velocity():
    g = torch.tensor([0.0, math.sqrt(2 * 0.5 * 0.4)], dtype=F64)
    sde = sg.ItoProcess(
        lambda s: torch.stack([s[:, 1], -torch.sin(s[:, 0]) + 0.3 - 0.5 * s[:, 1]], -1),
        lambda s, t: g.expand_as(s),
        noise="additive",
    )
    x0 = torch.zeros(4000, 2, dtype=F64)
    p = sg.simulate(
        sde, x0, [0.0, 100.0], solver=sg.Heun(1000), rng=0,
        boundary={0: sg.Periodic(0.0, 2 * math.pi)},
    )  # fmt: skip
    assert abs(float(p.final[:, 1].mean()) - 0.0476) < 4.42 * math.sqrt(0.4 / 4000)
    speed = (p.unwrapped[-1, :, 0] - p.unwrapped[0, :, 0]) / 100.0
    # the mean of a path has less noise: its spread is measured, and T⁻¹ of transient is left
    assert abs(float(speed.mean()) - 0.0476) < 4.42 * float(speed.std()) / 4000**0.5 + 0.005
    assert torch.equal(p.unwrapped[:, :, 1], p.states[:, :, 1])


def test_lost_trajectories_keep_their_turns():
    sde = sg.ItoProcess(
        lambda x, t: torch.where(t > 0.55, torch.inf, 7.0) * torch.ones_like(x), 0.0
    )
    path = sg.simulate(
        sde, column(0.5, 3), torch.linspace(0, 1, 11), boundary=sg.Periodic(0.0, 1.0),
        on_nonfinite="freeze",
    )  # fmt: skip
    assert bool(path.nonfinite.all())
    assert float(path.unwrapped[-1, 0]) == pytest.approx(0.5 + 7.0 * 0.6)


def test_turns_that_were_not_counted_are_not_made_up():
    box = sg.Periodic(-1.0, 1.0)
    path = sg.simulate(sg.BrownianMotion(), torch.zeros(8, 1), [0.0, 1.0], rng=0, boundary=box)
    with pytest.raises(ValueError, match=r"around the period were not counted.* without compile"):
        dataclasses.replace(path, windings=None).unwrapped  # noqa: B018
    with pytest.raises(ValueError, match=r"'moments' needs the turns .* without compile"):
        sg.run_ensemble(
            sg.BrownianMotion(), torch.zeros(1, 1), [0.0, 1.0], trajectories=2, rng=0,
            solver=sg.EulerMaruyama(5, compile=True), boundary=box,
            observables=[sg.Moments(unwrapped=True)],
        )  # fmt: skip


# --- reflecting ends without noise

WRIGHT_FISHER = sg.ItoProcess(
    lambda x: (0.5 * (1 - x) - 0.3 * x) / 2, lambda x: (x * (1 - x)).clamp(min=0).sqrt()
)


@pytest.mark.slow
def test_wright_fisher_between_walls_without_noise():
    n = 50_000
    path = sg.simulate(
        WRIGHT_FISHER, column(0.5, n), [0.0, 6.0], solver=sg.EulerMaruyama(600), rng=0,
        boundary=sg.Reflecting(0.0, 1.0), keep_path=False,
    )  # fmt: skip
    right = 0.625 - 0.125 * math.exp(-0.4 * 6)  # 0.6137
    error = 4.42 * float(path.final.std()) / math.sqrt(n)
    assert abs(float(path.final.mean()) - right) < error + 0.005 * right


def test_wright_fisher_stays_in_its_law_at_rest():
    n, law = 20_000, stats.beta(0.5, 0.3)
    x0 = torch.from_numpy(law.rvs((n, 1), random_state=np.random.default_rng(0)))
    x = sg.simulate(
        WRIGHT_FISHER, x0, [0.0, 2.0], solver=sg.EulerMaruyama(200), rng=1,
        boundary=sg.Reflecting(0.0, 1.0), keep_path=False,
    ).final[:, 0]  # fmt: skip
    d = stats.kstest(x.numpy(), law.cdf).statistic
    assert d < 2.470 / math.sqrt(n) + 0.005  # alarm 1e-5, and the step


@pytest.mark.slow
def test_a_square_root_process_that_reaches_zero():
    """2κθ < σ²: mean ½ at all times, and the noncentral χ² of Cox, Ingersoll and Ross."""
    k, theta, s, n, t = 1.0, 0.5, 1.5, 40_000, 2.0
    cir = sg.ItoProcess(lambda x: k * (theta - x), lambda x: s * x.sqrt())
    for boundary in (sg.Reflecting(0.0), sg.Reflecting(0.0, 100.0)):
        x = sg.simulate(
            cir, column(0.5, n), [0.0, t], solver=sg.EulerMaruyama(200), rng=0,
            boundary=boundary, keep_path=False,
        ).final[:, 0]  # fmt: skip
        assert abs(float(x.mean()) - 0.5) < 4.42 * float(x.std()) / math.sqrt(n) + 0.0025
        c = 2 * k / (s**2 * (1 - math.exp(-k * t)))
        law = stats.ncx2(4 * k * theta / s**2, 2 * c * 0.5 * math.exp(-k * t), scale=1 / (2 * c))
        d = stats.kstest(x.numpy(), law.cdf).statistic
        assert d < 2.470 / math.sqrt(n) + 0.005  # alarm 1e-5, and the step


def test_extinction_has_its_exact_chance():
    """dX = √X dW from 1: P(X_t = 0) = e^{−2/t}, and the mean stays."""
    n, t = 50_000, 1.0
    branching = sg.ItoProcess(lambda x: 0 * x, lambda x: x.sqrt())
    x = sg.simulate(
        branching, column(1.0, n), [0.0, t], solver=sg.EulerMaruyama(50), rng=0,
        boundary=sg.Reflecting(0.0), keep_path=False,
    ).final[:, 0]  # fmt: skip
    p = math.exp(-2 / t)
    assert abs(float((x == 0).double().mean()) - p) < 4.42 * math.sqrt(p / n) + 0.002
    assert abs(float(x.mean()) - 1) < 4.42 * math.sqrt(t / n)


def test_a_single_coordinate_without_noise_at_its_end():
    """The other coordinates go on as they would."""
    two = sg.ItoProcess(
        lambda x: torch.stack([0.5 - x[:, 0], -x[:, 1]], 1),
        lambda x: torch.stack([1.5 * x[:, 0].clamp(min=0).sqrt(), torch.ones_like(x[:, 1])], 1),
    )
    x0 = torch.full((2000, 2), 0.5, dtype=F64)
    options = {"solver": sg.EulerMaruyama(100), "rng": 0, "keep_path": False}
    kept = sg.simulate(two, x0, [0.0, 1.0], boundary={0: sg.Reflecting(0.0)}, **options).final
    free = sg.simulate(two, x0, [0.0, 1.0], **options).final
    assert torch.equal(kept[:, 1], free[:, 1])
    assert float(kept[:, 0].min()) >= 0
    assert abs(float(kept[:, 0].mean()) - 0.5) < 4.42 * 0.75 / math.sqrt(2000)


# --- gradients


def test_gradients_that_would_be_wrong_are_refused():
    x0, times = column(0.5, 4), torch.linspace(0, 1, 5)
    options = {"rng": 0, "differentiable": True}
    with pytest.raises(ValueError, match=r"absorbing end has no derivative along it.* leave out"):
        sg.simulate(BM, x0, times, boundary=sg.Absorbing(0.0), **options)
    with pytest.raises(ValueError, match=r"without noise is drawn from a law .* leave out"):
        sg.simulate(WRIGHT_FISHER, x0, times, boundary=sg.Reflecting(0.0, 1.0), **options)
    # a fold and a turn have their derivative, and a flow into an absorbing end stops there
    k = torch.tensor(0.3, dtype=F64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: k + 0 * x, 1.0)
    for boundary, sign in ((sg.Reflecting(0.0, 9.0), None), (sg.Periodic(0.0, 1.0), 1.0)):
        end = sg.simulate(sde, x0, times, boundary=boundary, **options).final.sum()
        (slope,) = torch.autograd.grad(end, k)
        assert sign is None or float(slope) == pytest.approx(4.0)


# --- what is lost because it left the space of f and g


@pytest.mark.parametrize(
    ("sde", "cure"),
    [
        (sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt()), sg.Reflecting(low=0)),
        (
            sg.ItoProcess(lambda x: 0.5 - x, lambda x: (x * (1 - x)).sqrt()),
            sg.Reflecting(low=0, high=1),
        ),
        (sg.ItoProcess(lambda x: -torch.log(x), 0.7), sg.Reflecting(low=0)),
    ],
)
def test_the_end_of_the_space_is_named_and_keeping_to_it_works(sde, cure):
    x0, times = column(0.5, 500), torch.linspace(0, 2, 21)
    with pytest.raises(sg.NonFiniteError) as caught:
        sg.simulate(sde, x0, times, solver=sg.EulerMaruyama(10), rng=0)
    text = str(caught.value)
    said = text[text.index("boundary=Reflecting(") + len("boundary=") :]
    said = said[: said.index(")") + 1]
    assert eval(said, {"Reflecting": sg.Reflecting}) == cure
    assert "freeze" not in text  # what keeps away from the end is another law
    path = sg.simulate(sde, x0, times, solver=sg.EulerMaruyama(10), rng=0, boundary=cure)
    assert bool(path.states.isfinite().all())


def test_an_explosion_is_no_end_of_a_space():
    wild = sg.ItoProcess(lambda x: x**3, 0.7)
    with pytest.raises(sg.NonFiniteError, match="Take smaller steps"):
        sg.simulate(wild, column(1.5, 50), torch.linspace(0, 2, 21), rng=0)


def test_particles_and_densities_agree_under_a_bound_that_bends():
    """Absorbed at 1 + 0.4 sin 3t, with a drift: the mass of the density is the survival."""
    n, times = 50_000, [0.0, 0.4, 0.8]
    ou = sg.OrnsteinUhlenbeck(1.0, 0.6, 1.0)
    bound = sg.Absorbing(high=lambda t: 1 + 0.4 * torch.sin(3 * torch.as_tensor(t)))
    law = sg.FokkerPlanck(ou, sg.Grid(-5.0, 1.5, 400), bound).solve(0.0, times)
    path = sg.simulate(
        ou, column(0.0, n), times, solver=sg.EulerMaruyama(40), boundary=bound, rng=0
    )
    (found,) = sg.run_ensemble(
        ou, column(0.0, 1), times, trajectories=n, solver=sg.EulerMaruyama(40), rng=1,
        observables=[sg.FirstPassage(above=bound.high)], progress=False,
    ).observables.values()  # fmt: skip
    for k in (1, 2):
        right = float(law.at(k).mass)
        noise = 4.42 * math.sqrt(right * (1 - right) / n) + 0.5 * 0.01  # alarm 1e-5, and the step
        assert abs(float(1 - path.absorbed[k].double().mean()) - right) < noise
        assert abs(float(found.survival[k]) - right) < noise
