"""The update is the formula, term by term, and promotes nothing."""

import gc
import itertools
import math
import sys
from contextlib import contextmanager

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import Given
from sdegen.core.update import diffuse

F64 = torch.float64


@pytest.mark.parametrize("dt", [0.3, -0.3, 1.0, -1.0])
def test_update_is_the_formula(dt):
    g = torch.Generator().manual_seed(0)
    x, f, z = (torch.randn(5, 3, dtype=F64, generator=g) for _ in range(3))
    diffusion = torch.rand(5, 1, dtype=F64, generator=g)
    t, root = torch.tensor(dt, dtype=F64), math.sqrt(abs(dt))
    kept = x.clone(), f.clone(), z.clone()
    for noise in (0.7, torch.tensor(0.7, dtype=F64), diffusion):
        expected = x + dt * f + root * noise * z
        # numbers, and 0-d tensors
        for step, root_dt in ((dt, root), (t, t.abs().sqrt())):
            moved = diffuse(sg.update(x, f, step), z, root_dt, noise)
            torch.testing.assert_close(moved, expected, rtol=0, atol=4e-16 * 10)
    # a drift that returns its argument, too, leaves it as it was
    torch.testing.assert_close(sg.update(x, x, dt), (1 + dt) * x)
    assert all(torch.equal(a, b) for a, b in zip((x, f, z), kept, strict=True))


@pytest.mark.parametrize("g", [0.7, lambda x: 0.3 + x**2, lambda t: 1 + t])
@pytest.mark.parametrize("dt", [0.3, -0.3])
def test_an_sde_adds_its_own_noise(g, dt):
    sde = sg.ItoProcess(lambda x: -x, g)
    x = torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    z, t, root = torch.flip(x, [0]), torch.tensor(0.2, dtype=F64), math.sqrt(abs(dt))
    expected = x - dt * x + root * sde.diffusion(x, t) * z
    for step, root_dt in ((dt, root), (torch.tensor(dt, dtype=F64),) * 2):
        root_dt = root if step is dt else step.abs().sqrt()
        after = sde.add_noise(sg.update(x, -x, step), x, t, root_dt, Given(z))
        torch.testing.assert_close(after, expected, rtol=0, atol=4e-15)


def test_without_noise_nothing_is_added():
    x, f = torch.tensor([[1.0, 2.0]], dtype=F64), torch.tensor([[4.0, -8.0]], dtype=F64)
    moved = diffuse(sg.update(x, f, 0.25), None, math.nan, math.nan)
    assert torch.equal(moved, torch.tensor([[2.0, 0.0]], dtype=F64))


def test_float64_numbers_promote_no_float32_state(device):
    x = torch.ones(4, 2, dtype=torch.float32, device=device)
    half = torch.tensor(0.5, dtype=F64)  # times and constants live on the CPU in float64
    assert diffuse(sg.update(x, -x, half), x, half, half).dtype == torch.float32


def test_the_loop_in_ones_own_hands_is_simulate():
    """Eight lines: the same bits as `simulate`, with every solver of fixed steps."""
    well = sg.ItoProcess(lambda x: x - x**3, 0.7)
    x0, times = torch.full((50, 1), 0.5, dtype=F64), torch.linspace(0, 1, 21, dtype=F64)
    for solver in (sg.EulerMaruyama(), sg.Heun(), sg.TorchSDE("srk")):
        path = sg.simulate(well, x0, times, solver=solver, rng=3)
        with torch.no_grad():
            steps = sg.integrate(well, solver, x0, times, sg.Noise(x0, rng=3))
            for x, expected in zip(steps, path.states[1:], strict=True):
                assert torch.equal(x, expected)


def test_gradients_flow_through_the_nodes():
    # x' = (1 − t₁)(1 − (1 − t₁)) of dx = −x dt in two Euler steps: dx'/dt₁ = 1 − 2 t₁
    t1 = torch.tensor(0.3, dtype=F64, requires_grad=True)
    nodes = torch.stack([torch.zeros((), dtype=F64), t1, torch.ones((), dtype=F64)])
    ode = sg.ItoProcess(lambda x: -x, 0.0)
    *_, x = sg.integrate(ode, sg.EulerMaruyama(), torch.ones(1, 1, dtype=F64), nodes)
    x.sum().backward()
    torch.testing.assert_close(t1.grad, torch.tensor(0.4, dtype=F64))


SQUARE_ROOT = sg.ItoProcess(lambda x: 0.5 - x, lambda x: x.clamp(min=0).sqrt())


@pytest.mark.parametrize(
    ("sde", "boundary"),
    [
        (sg.BrownianMotion(), sg.Reflecting(0.0, 1.0)),
        (sg.BrownianMotion(), sg.Absorbing(0.0, 1.0)),
        (sg.ItoProcess(lambda x: torch.sin(2 * math.pi * x), 0.7), {0: sg.Periodic(0.0, 1.0)}),
        (SQUARE_ROOT, sg.Reflecting(0.0)),
    ],
    ids=["reflecting", "absorbing", "periodic", "reflecting without noise"],
)
def test_the_loop_in_ones_own_hands_keeps_inside_a_boundary(sde, boundary):
    x0, times = torch.full((200, 1), 0.3, dtype=F64), torch.linspace(0, 1, 21, dtype=F64)
    path = sg.simulate(sde, x0, times, rng=3, boundary=boundary)
    with torch.no_grad():
        inside, noise = sg.contain(boundary, sde, x0, times, rng=3), sg.Noise(x0, rng=3)
        steps = sg.integrate(sde, sg.EulerMaruyama(), x0, times, noise, inside)
        for x, expected in zip(steps, path.states[1:], strict=True):
            assert torch.equal(x, expected)
    for ours, expected in (
        (inside.absorbed, path.absorbed),
        (inside.windings, path.windings),
    ):
        assert expected is None if ours is None else torch.equal(ours, expected[-1])


def test_the_loop_refuses_a_boundary_that_belongs_to_no_run():
    x = torch.full((2, 1), 0.5, dtype=F64)
    ode, solver, nodes = sg.ItoProcess(lambda x: -x, 0.0), sg.EulerMaruyama(), [0.0, 0.5]
    with pytest.raises(TypeError, match=r"what contain\(boundary, sde, x, nodes\) returns"):
        next(sg.integrate(ode, solver, x, nodes, boundary=sg.Reflecting(0.0)))
    with pytest.raises(ValueError, match="x must start inside the boundary"):
        sg.contain(sg.Reflecting(1.0), ode, x, nodes)
    with pytest.raises(ValueError, match="bounds no coordinate"):
        sg.contain(None, ode, x, nodes)
    with pytest.raises(TypeError, match="sde must be an SDE, such as ItoProcess"):
        sg.contain(sg.Reflecting(0.0), lambda x: -x, x, nodes)
    with pytest.raises(TypeError, match="sde must be an SDE, such as ItoProcess"):
        next(sg.integrate(lambda x: -x, solver, x, nodes))
    with pytest.raises(ValueError, match=r"nodes\[1\]=0.5 is followed by 0.2"):
        next(sg.integrate(ode, solver, x, [0.0, 0.5, 0.2]))


@contextmanager
def _calls():
    """Files and functions of sdegen as they are called, comprehensions left out."""
    called = []

    def profile(frame, event, arg):
        code = frame.f_code
        if event == "call" and "/sdegen/" in code.co_filename and "<" not in code.co_name:
            called.append((code.co_filename, code.co_name))

    gc.collect()  # or iterators that are thrown away meanwhile would be counted
    sys.setprofile(profile)
    try:
        yield called
    finally:
        sys.setprofile(None)


def test_two_steps_are_read_in_few_places():
    """The loop alone calls six functions of five files, update once a step."""
    x, nodes = torch.zeros(10, 1, dtype=F64), torch.tensor([0.0, 0.01, 0.02], dtype=F64)
    well, solver = sg.ItoProcess(lambda x, t: x - x**3, 0.7), sg.EulerMaruyama()
    noise = sg.Noise(x, rng=0)
    noise.normal()  # the first draw makes the memory of many
    steps = sg.integrate(well, solver, x, nodes, noise, memory=solver.begin(well, nodes))
    with _calls() as called:
        for _ in steps:
            pass
    assert len({file for file, _ in called}) <= 5
    assert len(set(called)) <= 6
    assert [name for _, name in called].count("update") == 2


@pytest.mark.usefixtures("as_user")  # wrappers that check shapes would be counted too
def test_a_call_of_simulate_is_read_in_few_places():
    """A ceiling: with all checks and the pilot's eight steps, 22 files and 100 functions."""
    well, x0 = sg.ItoProcess(lambda x: x - x**3, 0.7), torch.full((10, 1), 0.5, dtype=F64)
    sg.simulate(well, x0, [0.0, 0.01, 0.02], rng=0, threads=1)  # what is loaded on first use
    with _calls() as called:
        sg.simulate(well, x0, [0.0, 0.01, 0.02], rng=0, threads=1)
    files = [file for file, _ in called]
    changes = sum(a != b for a, b in itertools.pairwise(files))
    assert len(set(files)) <= 22
    assert len(set(called)) <= 100
    assert changes <= 188


def test_the_loop_refuses_what_the_solver_does():
    x = torch.ones(2, 1, dtype=F64)
    with pytest.raises(ValueError, match="EulerMaruyama draws noise for this BrownianMotion"):
        next(sg.integrate(sg.BrownianMotion(), sg.EulerMaruyama(), x, [0.0, 1.0]))
    noisy = sg.ItoProcess(lambda x: -x, lambda x: 1 + x**2)
    with pytest.raises(ValueError, match="Heun averages g over a step"):
        next(sg.integrate(noisy, sg.Heun(), x, [0.0, 1.0], sg.Noise(x, rng=0)))


def test_one_update_has_the_mean_and_variance_of_the_chain(device):
    # x + dt f + √dt σ z with f = −k x: mean (1 − k dt) x, variance σ² dt, exactly
    n, k, sigma, dt = 40_000, 2.0, 0.7, 0.1
    path = sg.simulate(
        sg.OrnsteinUhlenbeck(rate=k, sigma=sigma),
        torch.full((n, 1), 3.0, dtype=F64, device=device),
        [0.0, dt],
        rng=0,
    )
    mean, variance = (1 - k * dt) * 3.0, sigma**2 * dt
    # both bounds: false alarm 1e-5
    assert abs(float(path.final.mean()) - mean) < 4.42 * math.sqrt(variance / n)
    assert abs(float(path.final.var()) / variance - 1) < 4.42 * math.sqrt(2 / n)
