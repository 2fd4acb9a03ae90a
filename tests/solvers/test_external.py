import math

import pytest
import torch
import torchsde
from exact import (
    Replay,
    coarsen,
    gaussian_flow,
    geometric_errors,
    linear_chain_moments,
    noised_gaussian,
    slope,
    solved,
    strong_error_ou,
)

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.engine.record import RunOptions
from sdegen.solvers.progress import TRIES, Progress

F64 = torch.float64


def well(noise):
    """A nonlinear SDE on two coordinates, its noise of the given kind."""

    def g(x, t):
        return (0.3 + 0.1 * torch.sin(3 * t)) * (1 + 0.2 * x**2 if noise != "additive" else 1.0)

    return sg.ItoProcess(lambda x, t: x - x**3 + torch.cos(t), g, noise=noise)


# TorchSDE against our own methods and against torchsde itself


@pytest.mark.parametrize("noise", ["additive", "multiplicative"])
@pytest.mark.parametrize("event", [(1,), (2,), (2, 3)])
def test_torchsde_euler_walks_the_path_of_euler_maruyama(noise, event):
    x = stream(0, "x").normal((5, *event), dtype=F64)
    times = torch.tensor([0.0, 0.1, 0.15, 0.4, 1.0], dtype=F64)
    ours = sg.simulate(well(noise), x, times, solver=sg.EulerMaruyama(substeps=5), rng=4)
    theirs = sg.simulate(well(noise), x, times, solver=sg.TorchSDE("euler", substeps=5), rng=4)
    assert float((ours.states - theirs.states).abs().max()) <= 1e-12
    assert ours.nfe == theirs.nfe == 20


def test_torchsde_walks_our_paths_backwards_in_time_and_in_blocks():
    sde, noised = noised_gaussian()
    dynamics = sg.ReverseSDE(sde, noised.score)
    x = sde.prior((2**16 + 100, 1), rng=0, dtype=F64)
    times = sg.timesteps.quadratic(sde, 10)
    for ours, name in ((sg.EulerMaruyama(), "euler"), (sg.Heun(), "heun")):
        a = sg.simulate(dynamics, x, times, solver=ours, rng=1, keep_path=False)
        b = sg.simulate(dynamics, x, times, solver=sg.TorchSDE(name), rng=1, keep_path=False)
        assert float((a.final - b.final).abs().max()) <= 1e-12 * float(a.final.abs().max())


class ReplayedPath(torchsde.BaseBrownian):
    """torchsde's view of given increments on a uniform grid."""

    levy_area_approximation = "none"
    dtype, device, shape = F64, torch.device("cpu"), None

    def __init__(self, increments, h):
        self.increments, self.h = increments, h
        self.shape = increments[0].shape

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        assert float(tb - ta) == self.h
        return self.increments[round(float(ta) / self.h)]

    def __repr__(self):
        return "ReplayedPath"


def test_native_euler_maruyama_against_torchsde_itself_on_the_same_increments():
    class TheirSDE:
        noise_type, sde_type = "diagonal", "ito"
        sde = well("multiplicative")

        def f(self, t, y):
            return self.sde.drift(y, t)

        def g(self, t, y):
            return self.sde.diffusion(y, t)

    steps, h = 64, 2.0**-5
    x = stream(0, "x").normal((7, 2), dtype=F64)
    z = [stream(k, "z").normal((7, 2), dtype=F64) for k in range(steps)]
    times = torch.arange(steps + 1, dtype=F64) * h
    bm = ReplayedPath([math.sqrt(h) * one for one in z], h)
    theirs = torchsde.sdeint(TheirSDE(), x, times, bm=bm, method="euler", dt=h)
    for solver in (sg.EulerMaruyama(), sg.TorchSDE("euler")):
        ours = solved(solver, TheirSDE.sde, x, times, noise=Replay(z), keep_path=True).states
        assert float((ours - theirs).abs().max()) <= 1e-12


def test_torchsde_does_the_same_in_float32(device, dtype):
    x = stream(0, "x").normal((5, 2), dtype=dtype).to(device)
    times = torch.linspace(0, 1, 11)
    for ours, name in ((sg.EulerMaruyama(), "euler"), (sg.Heun(), "heun")):
        a = sg.simulate(well("additive"), x, times, solver=ours, rng=4)
        b = sg.simulate(well("additive"), x, times, solver=sg.TorchSDE(name), rng=4)
        assert b.states.dtype == dtype
        torch.testing.assert_close(a.states, b.states)


def test_torchsde_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for method in ("euler", "milstein", "srk", "heun", "midpoint"):
        sg.simulate(
            well("additive"), torch.zeros(3, 2), [0.0, 0.5], solver=sg.TorchSDE(method), rng=0
        )
    assert torch.equal(torch.get_rng_state(), before)


def test_torchsde_meets_the_nodes_exactly():
    # t_i + h_i is not t_{i+1} in floating point, and may be below t_min
    seen = []

    def drift(x, t):
        seen.append(float(t))
        return -x

    sde, times = sg.ItoProcess(drift, 1.0), torch.linspace(1, 0.001, 98, dtype=F64).square()
    assert not torch.equal(times[:-1] + times.diff(), times[1:])
    solved(sg.TorchSDE("heun"),
        sde, torch.zeros(1, 1, dtype=F64), times,
        noise=stream(0, "z"), keep_path=False,
    )  # fmt: skip
    assert seen == [
        t for pair in zip(times[:-1].tolist(), times[1:].tolist(), strict=True) for t in pair
    ]


# orders, on the same Brownian path


@pytest.mark.parametrize(
    ("method", "order"), [("euler", 1.0), ("milstein", 1.0), ("heun", 1.0), ("midpoint", 1.0)]
)
def test_strong_order_for_additive_noise(method, order):
    steps = [16, 32, 64, 128]
    errors = [strong_error_ou(sg.TorchSDE(method), n) for n in steps]
    assert slope([1 / n for n in steps], errors) == pytest.approx(order, abs=0.05)


def test_srk_for_additive_noise_has_strong_order_three_halves():
    # f(x, t) and g(t) nonlinear; the reference is the same scheme, 8 times finer
    source = stream(0, "test paths")
    fine, paths, t_end = 512, 2000, 2.0
    z, u = (source.normal((fine, paths), dtype=F64) for _ in range(2))
    sde = sg.ItoProcess(
        lambda x, t: torch.sin(2 * x) * (1 + 0.5 * torch.cos(t)),
        lambda x, t: 1 + 0.5 * torch.sin(2 * t),
        noise="additive",
    )

    def end(m):
        nodes = torch.linspace(0, t_end, fine // m + 1, dtype=F64)
        draws = [w[:, None] for pair in zip(*coarsen(z, u, m), strict=True) for w in pair]
        x0 = torch.zeros(paths, 1, dtype=F64)
        out = solved(sg.TorchSDE("srk"), sde, x0, nodes, noise=Replay(draws), keep_path=False)
        assert out.nfe == 3 * (len(nodes) - 1)
        return out.states[-1]

    reference = end(1)
    coarsenings = [8, 16, 32, 64]
    errors = [float((end(m) - reference).square().mean().sqrt()) for m in coarsenings]
    assert slope(coarsenings, errors) == pytest.approx(1.5, abs=0.1)


def test_srk_for_additive_noise_has_the_right_limit():
    # on a linear SDE its order is 2, and the limit is known: the exact solution on the same path
    steps = [16, 32, 64, 128]
    errors = [strong_error_ou(sg.TorchSDE("srk"), n, draws=2) for n in steps]
    assert slope([1 / n for n in steps], errors) == pytest.approx(2.0, abs=0.05)
    assert errors[-1] < 2e-5


@pytest.mark.parametrize(
    ("method", "order", "evaluations"), [("euler", 0.5, 1), ("milstein", 1.0, 1), ("srk", 1.5, 10)]
)
def test_strong_order_for_multiplicative_noise(method, order, evaluations):
    # geometric Brownian motion against its solution; 4000 shared paths fix a slope to 0.01
    coarsenings = [4, 8, 16, 32]
    errors = geometric_errors(sg.TorchSDE(method), coarsenings)
    assert slope(coarsenings, errors) == pytest.approx(order, abs=0.1)
    x = torch.ones(1, 1, dtype=F64)
    gbm = sg.ItoProcess(lambda x: 0.5 * x, lambda x: 0.5 * x)
    out = sg.simulate(gbm, x, torch.linspace(0, 1, 5), solver=sg.TorchSDE(method), rng=0)
    assert out.nfe == 4 * evaluations


def test_milstein_with_a_constant_callable_is_euler():
    # declared multiplicative for want of a word; its slope is 0 and must not be missed
    sde = sg.ItoProcess(lambda x, t: -x, lambda x, t: torch.full_like(x, 0.5))
    x, times = torch.zeros(4, 2, dtype=F64), torch.linspace(0, 1, 9)
    a = sg.simulate(sde, x, times, solver=sg.TorchSDE("milstein"), rng=0)
    b = sg.simulate(sde, x, times, solver=sg.EulerMaruyama(), rng=0)
    assert float((a.states - b.states).abs().max()) <= 1e-12


# the reverse VP-SDE with an exact score: std/0.1 of each chain from N(0, 1) at t = 1, no sampling
REVERSE_VP = {
    ("euler", 20): 2.6383, ("euler", 100): 1.0469,
    ("srk diagonal", 20): 0.6661, ("srk diagonal", 100): 0.9722,
    ("srk", 20): 1.5808, ("srk", 100): 1.0185,
    ("heun", 20): 1.1267, ("heun", 100): 1.0006,
    ("midpoint", 20): 0.8227, ("midpoint", 100): 0.9887,
}  # fmt: skip


@pytest.mark.parametrize(("method", "steps"), REVERSE_VP)
def test_what_each_scheme_makes_of_the_reverse_vp_sde(method, steps):
    sde, noised = noised_gaussian(mean=0.0, std=0.1, t_min=1e-5)
    dynamics = sg.ReverseSDE(sde, noised.score)
    if method == "srk diagonal":
        dynamics.noise = "multiplicative"  # what torchsde would choose if it did not know better
    name = method.split()[0]
    draws = 2 if name == "srk" else 1
    chain = linear_chain_moments(
        sg.TorchSDE(name), dynamics, sde.time_grid(steps), 0.0, 1.0, draws=draws
    )
    assert math.sqrt(float(chain[-1, 1])) / 0.1 == pytest.approx(
        REVERSE_VP[method, steps], abs=1e-4
    )


def test_torchsde_gradients():
    # X_N = (1 − kh)^N x0 + noise: d/dk on the same noise, by central differences
    x, times = torch.ones(3, 1, dtype=F64), torch.linspace(0, 1, 9)

    def end(k, method):
        sde = sg.ItoProcess(lambda x, t: -k * x, 0.4)
        return sg.simulate(
            sde, x, times, solver=sg.TorchSDE(method), rng=0, differentiable=True
        ).final.sum()

    for method in ("euler", "srk", "heun"):
        k = torch.tensor(0.7, dtype=F64, requires_grad=True)
        (gradient,) = torch.autograd.grad(end(k, method), k)
        with torch.no_grad():
            numeric = (end(k + 1e-5, method) - end(k - 1e-5, method)) / 2e-5
        assert float(gradient) == pytest.approx(float(numeric), rel=1e-8)


def test_torchsde_refusals():
    with pytest.raises(
        ValueError, match="must be 'euler' or 'milstein' or 'srk' or 'heun' or 'midpoint', "
    ):
        sg.TorchSDE("eulr")
    with pytest.raises(ValueError, match=r"'reversible_heun' \(it diverges on reverse SDEs\)"):
        sg.TorchSDE("reversible_heun")
    x, times = torch.zeros(2, 1), [0.0, 1.0]
    with pytest.raises(ValueError, match=r"noise-free here: use Heun\(\) or TorchDiffEq"):
        sg.simulate(sg.ItoProcess(lambda x: -x, 0.0), x, times, solver=sg.TorchSDE("srk"))
    for method in ("heun", "midpoint"):
        with pytest.raises(ValueError, match="solves the Stratonovich equation"):
            sg.simulate(well("multiplicative"), x, times, solver=sg.TorchSDE(method))


# TorchDiffEq


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"])
def test_torchdiffeq_follows_the_exact_flow(method):
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-2, 3, 6, dtype=F64)[:, None]
    times = torch.tensor([1.0, 0.6, sde.t_min], dtype=F64)
    solver = sg.TorchDiffEq(method, rtol=1e-6, atol=1e-6)
    out = sg.simulate(flow, x, times, solver=solver)
    # fehlberg2's estimate is a first-order one and lets 100 times as much through
    allowed = 1e-3 if method == "fehlberg2" else 1e-5
    for k, t in enumerate(times.tolist()):
        exact = gaussian_flow(noised, x, 1.0, t)
        assert float((out.states[k] - exact).abs().max()) < allowed
    back = sg.simulate(flow, out.final, times.flip(0), solver=solver)
    assert float((back.final - x).abs().max()) < 100 * allowed


def test_torchdiffeq_gives_the_same_bits_with_and_without_the_path():
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-2, 3, 6, dtype=F64)[:, None]
    for grid in (sde.time_grid(1), sde.time_grid(6)):
        path = sg.simulate(flow, x, grid, solver=sg.TorchDiffEq())
        last = sg.simulate(flow, x, grid, solver=sg.TorchDiffEq(), keep_path=False)
        assert torch.equal(path.final, last.final)
        assert len(last.states) == 1
        assert path.nfe == last.nfe


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"])
@pytest.mark.parametrize("intervals", [1, 5])
@pytest.mark.parametrize("upwards", [False, True])
def test_torchdiffeq_asks_for_the_score_between_the_times_alone(method, intervals, upwards, dtype):
    sde, noised = noised_gaussian(t_min=0.0123456789)
    seen = []

    def score(x, t):
        seen.append(float(t))
        assert t.dtype == F64
        return noised.score(x, t)

    times = sde.time_grid(intervals)
    times = times.flip(0) if upwards else times
    out = sg.simulate(
        sg.ReverseSDE(sde, score, eta=0.0),
        torch.ones(3, 1, dtype=dtype),
        times,
        solver=sg.TorchDiffEq(method, rtol=1e-3, atol=1e-3),
    )
    assert out.nfe == len(seen) - 1  # the door looks once
    assert min(seen) >= sde.t_min
    assert max(seen) <= sde.t_max


def test_torchdiffeq_stays_inside_when_its_first_step_reaches_far_and_when_it_lands_on_a_time():
    # 1e-6: the look for a first step reaches t = 10⁴. 1e-9: steps of 1 and 10 end on 1 and 11 by
    # themselves, after which torchdiffeq would no longer stop at 12 and 13
    for rate in (1e-6, 1e-9):
        seen = []

        def drift(x, t, rate=rate, seen=seen):
            seen.append(float(t))
            return torch.full_like(x, rate)

        times = torch.tensor([0.0, 1.0, 11.0, 12.0, 13.0], dtype=F64)
        x = torch.ones(1, 1, dtype=F64)
        out = sg.simulate(sg.ItoProcess(drift, 0.0), x, times, solver=sg.TorchDiffEq())
        assert max(seen) <= 13.0
        # after five at the door, the start and the look: a stage at 13 is asked a bit before it,
        # and one beyond would have been moved to 13
        assert max(seen[7:]) < 13.0
        torch.testing.assert_close(out.states.flatten(), 1 + rate * times, rtol=1e-12, atol=0)


def test_torchdiffeq_gradients():
    # x e^{−kT}: d/dk is −T x e^{−kT}
    k = torch.tensor(0.7, dtype=F64, requires_grad=True)
    x = torch.tensor([[2.0]], dtype=F64, requires_grad=True)
    out = sg.simulate(
        sg.ItoProcess(lambda x, t: -k * x, 0.0), x, [0.0, 0.5, 2.0],
        solver=sg.TorchDiffEq(rtol=1e-9, atol=1e-9), differentiable=True,
    )  # fmt: skip
    of_k, of_x = torch.autograd.grad(out.final.sum(), (k, x))
    assert float(of_k) == pytest.approx(-2 * 2 * math.exp(-1.4), rel=1e-7)
    assert float(of_x) == pytest.approx(math.exp(-1.4), rel=1e-7)
    (middle,) = torch.autograd.grad(
        sg.simulate(
            sg.ItoProcess(lambda x, t: -k * x, 0.0), x, [0.0, 0.5, 2.0],
            solver=sg.TorchDiffEq(rtol=1e-9, atol=1e-9), differentiable=True,
        ).states[1].sum(), k,
    )  # fmt: skip
    assert float(middle) == pytest.approx(-0.5 * 2 * math.exp(-0.35), rel=1e-7)


def test_torchdiffeq_says_where_it_got_stuck_and_what_to_try():
    x = torch.tensor([[1.0], [-1.0]], dtype=F64)
    square = sg.ItoProcess(lambda x: x * x, 0.0)  # 1/(1 − t): diverges at t = 1
    message = (
        r"dopri5 could not go on at t = 1(\.0\d*)?: no step that t can resolve meets rtol = 1e-05 "
        r"and atol = 1e-05.*Solutions may diverge.*loosen rtol"
    )
    with pytest.raises(sg.SolverError, match=message) as info:
        sg.simulate(square, x, [0.0, 0.5, 0.75, 2.0], solver=sg.TorchDiffEq())
    reached = info.value.result
    assert reached.times.tolist() == [0.0, 0.5, 0.75]
    expected = torch.tensor([[1.0, -1.0], [2.0, -2 / 3], [4.0, -4 / 7]], dtype=F64)
    torch.testing.assert_close(reached.states[..., 0], expected, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_a_jump_that_holds_trajectories_ends_torchdiffeq_at_tight_tolerances():
    """x' = −sign(x − 0.3) stays at 0.3 once it is there; at tolerances of 1e-12 for hours."""
    held = sg.ItoProcess(lambda x: -torch.sign(x - 0.3), 0.0)
    x = torch.linspace(1.0, 0.31, 16, dtype=F64)[:, None]
    tight = sg.TorchDiffEq("adaptive_heun", rtol=1e-12, atol=1e-12)
    message = r"could not go on at t = 0\.\d*: of 2000 steps most were refused, or met a jump"
    with pytest.raises(sg.SolverError, match=message):
        sg.simulate(held, x, [0.0, 1.0, 2.0], solver=tight)
    for advised, off in ((sg.TorchDiffEq(rtol=1e-3, atol=1e-3), 1e-2), (sg.Heun(200), 1e-2)):
        found = sg.simulate(held, x, [0.0, 1.0, 2.0], solver=advised).final
        torch.testing.assert_close(found, torch.full_like(x, 0.3), rtol=0, atol=off)


@pytest.mark.parametrize(("step", "drift", "halts"), [
    (1e-7, lambda i: math.cos(0.1 * i), False),  # a burst that is followed
    (1e-6, lambda i: (-1.0) ** i, False),  # a stiff drift, at the edge of stability
    (1e-7, lambda i: (-1.0) ** i, True),
    (0.0, lambda i: 1.0, True),
])  # fmt: skip
def test_short_steps_halt_where_they_meet_jumps_and_not_where_they_go_on(step, drift, halts):
    progress = Progress(1.0)
    found = [
        progress.halts(0.5 + step * i, torch.tensor([drift(i)], dtype=F64))
        for i in range(2 * TRIES)
    ]
    assert any(found) is halts


def test_torchdiffeq_says_how_many_are_not_finite():
    x = torch.tensor([[1.0], [-1.0], [2.0]], dtype=F64)
    root = sg.ItoProcess(lambda x, t: torch.sqrt(x + 1.5 - t), 0.0)  # −1 has no root after t = ½
    with pytest.raises(
        sg.SolverError, match=r"1 of 3 trajectories or their drifts are not finite"
    ):
        sg.simulate(root, x, [0.0, 5.0], solver=sg.TorchDiffEq())
    # an overflow that the error estimate does not see
    growth = sg.ItoProcess(lambda x: x, 0.0)
    with pytest.raises(sg.SolverError, match="2 of 3 trajectories"):
        sg.simulate(growth, x.clamp(min=0) * 0.8e308, [0.0, 5.0], solver=sg.TorchDiffEq())


def test_an_assertion_in_a_drift_passes_through_torchdiffeq():
    def drift(x, t):
        assert t < 0.5, "mine"
        return -x

    sde, x = sg.ItoProcess(drift, 0.0), torch.ones(2, 1)
    with pytest.raises(AssertionError, match="mine") as info:
        sg.simulate(sde, x, [0.0, 1.0], solver=sg.TorchDiffEq())
    assert "in an adaptive step from t = " in info.value.__notes__[0]


def test_torchdiffeq_refusals():
    with pytest.raises(ValueError, match=r"method must be 'dopri5' or .*, but is 'dopri6'") as e:
        sg.TorchDiffEq("dopri6")
    for name in ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"):
        assert repr(name) in str(e.value)
    for method in ("euler", "rk4", "midpoint"):
        with pytest.raises(ValueError, match=r"for fixed steps take Heun\(substeps=…\)"):
            sg.TorchDiffEq(method)
    for bad in (0.0, -1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match="rtol must be finite and > 0"):
            sg.TorchDiffEq(rtol=bad)
        with pytest.raises(ValueError, match="atol must be finite and > 0"):
            sg.TorchDiffEq(atol=bad)
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, 0.0)
    x, times = torch.zeros(2, 1), sde.time_grid(1)
    with pytest.raises(ValueError, match=r"ReverseSDE is noisy: take ReverseSDE\(.*eta=0.0\)"):
        sg.simulate(sg.ReverseSDE(sde, noised.score), x, times, solver=sg.TorchDiffEq())
    with pytest.raises(ValueError, match=r"one step size for all.*Heun"):
        sg.simulate(flow, x, times, solver=sg.TorchDiffEq(), on_nonfinite="freeze")


def test_torchdiffeq_ticks_once_for_each_time():
    ticks = []
    ode, times = sg.ItoProcess(lambda x: -x, 0.0), torch.linspace(1, 0, 6, dtype=F64)
    solved(
        sg.TorchDiffEq(),
        ode,
        torch.ones(2, 1),
        times,
        noise=None,
        keep_path=False,
        options=RunOptions(on_progress=lambda: ticks.append(1)),
    )
    assert len(ticks) == 5
