"""Brownian paths: one path at steps of several sizes; strong orders and their limits."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
FINE = torch.linspace(0, 1, 1025, dtype=F64)
ENDS = [0.0, 1.0]


def _walk(sde, solver, path, x0, times=ENDS):
    return sg.simulate(
        sde, x0, times, solver=solver, rng=0, brownian=path, keep_path=False, interacting=False
    ).final


def test_two_step_sizes_walk_one_path():
    ou = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    x0, times = torch.zeros(1000, 1, dtype=F64), torch.linspace(0, 1, 11)
    path = sg.BrownianPath(0, torch.linspace(0, 1, 201))
    a, b = (_walk(ou, sg.EulerMaruyama(n), path, x0, times).flatten() for n in (10, 20))
    assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.999
    # without it the two are unrelated, and what it gives is not those
    c, d = (
        sg.simulate(ou, x0, times, solver=sg.EulerMaruyama(n), rng=0).final.flatten()
        for n in (10, 20)
    )
    assert abs(float(torch.corrcoef(torch.stack([c, d]))[0, 1])) < 0.9
    assert not torch.equal(a, c)


def test_a_path_is_a_brownian_motion():
    # W(1) is the same at any step, has variance 1, and its increments over halves are independent
    x0 = torch.zeros(20_000, 1, dtype=F64)
    path = sg.BrownianPath(3, FINE)
    one = _walk(sg.BrownianMotion(1.0), sg.EulerMaruyama(1), path, x0)
    many = _walk(sg.BrownianMotion(1.0), sg.EulerMaruyama(1024), path, x0)
    torch.testing.assert_close(one, many, rtol=0, atol=1e-12)
    assert abs(float(one.var()) - 1) < 4.42 * math.sqrt(2 / 20_000)
    half = _walk(sg.BrownianMotion(1.0), sg.EulerMaruyama(8), path, x0, [0.0, 0.5])
    rest = _walk(sg.BrownianMotion(1.0), sg.EulerMaruyama(8), path, x0, [0.5, 1.0])
    torch.testing.assert_close(half + rest, one, rtol=0, atol=1e-12)
    halves = torch.stack([half.flatten(), rest.flatten()])
    assert abs(float(torch.corrcoef(halves)[0, 1])) < 4.42 / math.sqrt(20_000)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_bits_do_not_depend_on_blocks_and_threads(dtype):
    x0 = torch.zeros(110_000, 1, dtype=dtype)
    ou, path = sg.OrnsteinUhlenbeck(), sg.BrownianPath(0, torch.linspace(0, 1, 9))
    runs = [
        sg.simulate(ou, x0, ENDS, solver=sg.EulerMaruyama(4), brownian=path, threads=n).final
        for n in (1, 2)
    ]
    assert torch.equal(*runs)
    assert torch.equal(
        runs[0][:50_000],
        sg.simulate(ou, x0[:50_000], ENDS, solver=sg.EulerMaruyama(4), brownian=path, rng=5).final,
    )
    assert not torch.equal(runs[0][:50_000], runs[0][50_000:100_000])
    again = sg.BrownianPath(path.seed, torch.linspace(0, 1, 9))
    assert torch.equal(
        runs[0],
        sg.simulate(ou, x0, ENDS, solver=sg.EulerMaruyama(4), brownian=again).final,
    )


def _errors(sde, make, path, x0, truth, steps):
    return [float((_walk(sde, make(n), path, x0) - truth).square().mean().sqrt()) for n in steps]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "order"),
    [
        (sg.EulerMaruyama, 0.5),
        (lambda n: sg.TorchSDE("euler", n), 0.5),
        (lambda n: sg.TorchSDE("milstein", n), 1.0),
        (lambda n: sg.TorchSDE("srk", n), 1.5),
    ],
)
def test_strong_orders_of_multiplicative_noise(make, order):
    # dX = X/2 dt + X dW/2: X = exp((1/2 − 1/8) + W/2), of the very path
    sde = sg.ItoProcess(lambda x: 0.5 * x, lambda x: 0.5 * x)
    x0, path = torch.ones(4000, 1, dtype=F64), sg.BrownianPath(1, FINE)
    w = _walk(sg.BrownianMotion(1.0), sg.EulerMaruyama(1), path, 0 * x0)
    truth = torch.exp(0.375 + 0.5 * w)
    steps = (16, 64, 256, 1024)
    errors = _errors(sde, make, path, x0, truth, steps)
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert abs(slope - order) < 0.07
    # and the limit is the exact solution
    h = 1 / steps[-1]
    if order >= 1.0:
        assert errors[-1] < h**order
    else:  # σ² √(h/2) √E X² is what Euler lacks: (σ²/2) X (ΔW² − h) in each step
        expected = 0.25 * math.sqrt(h / 2) * math.exp(0.5 * 1.25)
        assert abs(errors[-1] / expected - 1) < 0.15


@pytest.mark.parametrize(("make", "order"), [(sg.EulerMaruyama, 1.0), (sg.Heun, 1.0)])
def test_strong_orders_of_additive_noise(make, order):
    # dX = −X dt + dW with X = ∫ e^{s − 1} dW, up to O(dt) from the fine increments alone
    sde, path = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sg.BrownianPath(2, FINE)
    x0 = torch.zeros(2000, 1, dtype=F64)
    middles = 0.5 * (FINE[1:] + FINE[:-1])
    w = sg.simulate(sg.BrownianMotion(1.0), x0, FINE, brownian=path, rng=0).states
    truth = (torch.exp(middles - 1)[:, None, None] * w.diff(dim=0)).sum(0)
    steps = (4, 16, 64)
    errors = _errors(sde, make, path, x0, truth, steps)
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert abs(slope - order) < 0.1
    assert errors[-1] < 0.5 / 64
    if make is sg.EulerMaruyama:
        # x_n = Σ (1 − h)^{n−1−j} ΔW_j: the error's variance is Σ ∫ ((1 − h)^{n−1−j} − e^{s−1})² ds
        n, h = 64, 1 / 64
        s = (torch.arange(64 * 64, dtype=F64) + 0.5) / (64 * 64)
        weights = (1 - h) ** (n - 1 - (s * n).floor()) - torch.exp(s - 1)
        expected = math.sqrt(float(weights.square().mean()))
        assert abs(errors[-1] / expected - 1) < 4.42 / math.sqrt(2 * 2000)


def test_decreasing_times_walk_a_decreasing_path():
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    reverse = sg.ReverseSDE(vp, lambda x, t: -x)
    grid = vp.time_grid(200)
    path, x0 = sg.BrownianPath(0, grid), vp.prior((500, 1), rng=1, dtype=F64)
    a = _walk(reverse, sg.EulerMaruyama(), path, x0, grid)
    b = _walk(reverse, sg.EulerMaruyama(), path, x0, grid[::2])
    assert float(torch.corrcoef(torch.stack([a, b]).squeeze(-1))[0, 1]) > 0.99


@pytest.mark.parametrize(
    ("solver", "times", "kind", "message"),
    [
        (sg.EulerMaruyama(3), ENDS, ValueError, r"meet at t = 0\.333333, which is not among"),
        (sg.EulerMaruyama(), [0.0, 2.0], ValueError, r"meet at t = 2, which is not among"),
        (sg.EulerMaruyama(compile=True), ENDS, ValueError, r"EulerMaruyama\(compile=True\)"),
    ],
)
def test_what_does_not_walk_the_path_is_refused(solver, times, kind, message):
    path = sg.BrownianPath(0, torch.linspace(0, 1, 11))
    with pytest.raises(kind, match=message):
        sg.simulate(sg.BrownianMotion(), torch.zeros(3, 1), times, solver=solver, brownian=path)


def test_adaptive_and_other_solvers_refuse_by_name():
    flow = sg.ItoProcess(lambda x: -x, 0.0)
    path = sg.BrownianPath(0, torch.linspace(0, 1, 11))
    with pytest.raises(ValueError, match="TorchDiffEq cannot walk a given Brownian path"):
        sg.simulate(flow, torch.zeros(3, 1), ENDS, solver=sg.TorchDiffEq(), brownian=path)
    with pytest.raises(TypeError, match="must be a BrownianPath"):
        sg.simulate(sg.BrownianMotion(), torch.zeros(3, 1), ENDS, brownian=0)
    with pytest.raises(ValueError, match="strictly monotone"):
        sg.BrownianPath(0, [0.0, 0.5, 0.5])
    backwards = sg.BrownianPath(0, torch.linspace(1, 0, 11))
    with pytest.raises(ValueError, match="runs the other way"):
        sg.simulate(sg.BrownianMotion(), torch.zeros(3, 1), ENDS, brownian=backwards)
