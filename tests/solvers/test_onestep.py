"""Compiled runs of steps: the steps that they are made of, to rounding."""

import shutil
import subprocess
import sys

import pytest
import torch

import sdegen as sg

F64 = torch.float64
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)
WELL = sg.ItoProcess(lambda x, t: x - x**3 * (1 + 0.1 * t), 0.7)


# the checks of shapes that the suite puts around every function are not for a compiler: a process
# of its own has none
_PRELUDE = """
import torch, sdegen as sg
F64 = torch.float64
well = sg.ItoProcess(lambda x, t: x - x**3 * (1 + 0.1 * t), 0.7)
def close(a, b, atol):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)
def error(kind, call):
    try:
        call()
    except kind as e:
        return str(e)
"""
_STEPS = """
# 70 steps between two times: runs of 7; then 3, all of them kept; a smaller last block
x0 = torch.linspace(-1, 1, 32_768 + 40, dtype=F64)[:, None]
for substeps, times in ((70, [0.0, 0.7, 1.4]), (1, [0.0, 0.1, 0.2, 0.25])):
    for kind in (sg.EulerMaruyama, sg.Heun):
        plain = sg.simulate(well, x0, times, solver=kind(substeps), rng=0)
        fast = sg.simulate(well, x0, times, solver=kind(substeps, compile=True), rng=0)
        assert fast.nfe == plain.nfe
        # rounding of 140 steps, not amplified by more than the well's e^{1.4}
        close(fast.states, plain.states, 140 * 4 * 2.3e-16)
        again = sg.simulate(
            well, x0, times, solver=kind(substeps, compile=True), rng=0, threads=1
        )
        assert torch.equal(again.states, fast.states)
"""
_WALLS = """
fast, walls = sg.EulerMaruyama(5, compile=True), sg.Walls(0.0, 1.0)
x0 = torch.full((50, 2), 0.5, dtype=F64)
sde, times = sg.ItoProcess(lambda x: -x, 1.0), [0.0, 0.2, 0.4]
plain = sg.simulate(sde, x0, times, solver=sg.EulerMaruyama(5), rng=1, walls=walls)
inside = sg.simulate(sde, x0, times, solver=fast, rng=1, walls=walls)
close(inside.states, plain.states, 1e-14)
x0[3] = 1e60
square = sg.ItoProcess(lambda x: x * x, 0.0)
said = error(sg.NonFiniteError, lambda: sg.simulate(square, x0, [0.0, 2.0, 4.0, 6.0], solver=fast))
assert said.startswith("1 of 50 trajectories non-finite by t = "), said
branch = sg.ItoProcess(lambda x: -x if x[0, 0] > -9 else x, 0.5)
ones = torch.ones(3, 1)
said = error(ValueError, lambda: sg.simulate(branch, ones, [0.0, 1.0], solver=fast, rng=0))
assert said.startswith("compile=True: ItoProcess could not be compiled ("), said
"""


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("script", [_STEPS, _WALLS], ids=["steps", "walls and failures"])
def test_compiled_runs_are_the_steps_to_rounding(script):
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_compiled_runs_cannot_do_is_refused(as_user):
    x0, solver = torch.ones(3, 1), sg.EulerMaruyama(compile=True)
    with pytest.raises(ValueError, match=r"runs without gradients: leave out differentiable=True"):
        sg.simulate(WELL, x0, [0.0, 1.0], solver=solver, differentiable=True)
    with pytest.raises(ValueError, match="'freeze' looks at every step, and compile=True takes"):
        sg.simulate(WELL, x0, [0.0, 1.0], solver=solver, on_nonfinite="freeze")
    with pytest.raises(TypeError, match="compile must be True or False, but is 'yes'"):
        sg.EulerMaruyama(compile="yes")


@pytest.mark.gpu
def test_a_step_on_a_gpu_waits_for_nothing():
    nodes = torch.linspace(0, 1, 33, dtype=F64)
    x = torch.zeros(1000, 1, device="cuda")
    step, z = sg.EulerMaruyama().stepper(WELL, nodes), torch.ones_like(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            for i in range(32):
                x = step(i, x, lambda: z)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # z = 1: the Euler steps of dx = f dt + 0.7 dt^{1/2} a step
    y, dt = torch.zeros(1, dtype=F64), 1 / 32
    for t in nodes[:-1]:
        y = y + dt * (y - y**3 * (1 + 0.1 * t)) + 0.7 * dt**0.5
    torch.testing.assert_close(x[:1, 0].double().cpu(), y, rtol=1e-5, atol=0)
