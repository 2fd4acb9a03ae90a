"""Compiled runs of steps: the steps that they are made of, with the same normals, to rounding."""

import random
import shutil

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import Given, Stream
from sdegen.engine.compiled import _Noise

F64 = torch.float64
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)
WELL = sg.ItoProcess(lambda x, t: x - x**3 * (1 + 0.1 * t), 0.7)


# the checks of shapes that the suite puts around every function are not for a compiler: a process
# of its own has none. A compilation takes seconds, and more with every step of a run: runs are
# short here, and few kinds of them tell all
COMPILED = """
import torch, sdegen as sg
from sdegen.core.noise import Given, Streams, box_muller
from sdegen.core.enclosure import enclosure_of
from sdegen.engine.compiled import _functions
from sdegen.engine.containment import contained_by_position
F64 = torch.float64
well = sg.ItoProcess(lambda x, t: x - x**3 * (1 + 0.1 * t), 0.7)
def close(a, b, atol):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)
def error(kind, call):
    try:
        call()
    except kind as e:
        return str(e)

def one_by_one(kind, x0, times, substeps, block):
    # the same normals, drawn in pairs for steps 2j and 2j + 1
    solver = kind(substeps)
    nodes = solver.nodes(torch.tensor(times, dtype=F64))
    steps, width = len(nodes) - 1, torch.int64 if x0.dtype == F64 else torch.int32
    k = Streams(0, "dynamics").block(block).bits(((steps + 1) // 2, 2, *x0.shape), dtype=width)
    z = [z for pair in k for z in box_muller(pair, x0.dtype)]
    memory, path = solver.begin(well, nodes), [x0]
    for i in range(steps):
        path.append(solver.step(well, path[-1], i, Given(z[i]), memory)[0])
    return torch.stack(path[::substeps])

# runs of at most 8 steps: several between two times, of an odd number of steps, so that some begin
# in the middle of a pair, and a smaller last block; several times in a run; both dtypes
times = [0.0, 0.1, 0.2, 0.25]
for rows, dtype, substeps, kind in (
    (50_000 + 5_000, F64, 7, sg.EulerMaruyama),
    (5_000, torch.float32, 1, sg.EulerMaruyama),
    (5_000, torch.float32, 7, sg.Heun),
):
    x0 = torch.linspace(-1, 1, rows, dtype=F64)[:, None].to(dtype)
    solver = kind(substeps, compile=True)
    parts = x0.split(50_000)
    plain = [one_by_one(kind, part, times, substeps, b) for b, part in enumerate(parts)]
    fast = sg.simulate(well, x0, times, solver=solver, rng=0)
    assert fast.nfe == (2 if kind is sg.Heun else 1) * substeps * 3
    # rounding of each step, not amplified by more than the well's e^{1.4}
    close(fast.states, torch.cat(plain, 1), substeps * 3 * 4 * torch.finfo(dtype).eps)
    before = len(_functions)
    last = sg.simulate(well, x0, times, solver=solver, rng=0, threads=1, keep_path=False)
    if substeps > 1:  # runs from other steps on, by what was compiled
        assert len(_functions) == before
        assert torch.equal(last.final, fast.final)
    else:  # other runs, of other lengths
        assert len(_functions) == before + 1
        close(last.final, fast.final, 39 * 4 * torch.finfo(dtype).eps)

# walls hold: what would be outside is folded back at each step, from the same normals
fast, box = sg.EulerMaruyama(2, compile=True), sg.Reflecting(0.0, 1.0, coordinates="all")
x0 = torch.full((50, 2), 0.5, dtype=F64)
sde = sg.ItoProcess(lambda x: -x, 1.0)
k = Streams(1, "dynamics").block(0).bits((2, 2, *x0.shape), dtype=torch.int64)
x, path, folded = x0, [x0], 0
for z in [z for pair in k for z in box_muller(pair, F64)]:
    after = x - 0.09 * x + 0.3 * z
    x = contained_by_position(enclosure_of(box, (2,)), x, after)
    folded += int((x != after).sum())
    path.append(x)
assert folded > 20
inside = sg.simulate(sde, x0, [0.0, 0.18, 0.36], solver=fast, rng=1, boundary=box)
close(inside.states, torch.stack(path[::2]), 1e-14)

x0[3] = 1e60
square = sg.ItoProcess(lambda x: x * x, 0.0)
said = error(sg.NonFiniteError, lambda: sg.simulate(square, x0, [0.0, 2.0, 4.0], solver=fast))
assert said.startswith("1 of 50 trajectories non-finite by t = "), said
branch = sg.ItoProcess(lambda x: -x if x[0, 0] > -9 else x, 0.5)
ones = torch.ones(3, 1)
said = error(ValueError, lambda: sg.simulate(branch, ones, [0.0, 1.0], solver=fast, rng=0))
assert said.startswith("compile=True: ItoProcess could not be compiled ("), said
"""


@needs_compiler
@pytest.mark.slow
def test_compiled_runs_are_the_steps_to_rounding(programs):
    """Those with walls too; and what is lost or cannot be compiled is told."""
    programs.run(code=COMPILED)


@pytest.mark.parametrize("seed", range(20))
def test_runs_take_one_pair_after_the_other_whatever_their_lengths(seed):
    choose = random.Random(seed)
    rows, length = choose.choice([3, 50, 7000]), choose.choice([2, 8, 128])
    noise = _Noise(torch.zeros(rows, 1), Stream(seed))
    pairs = Stream(seed).bits((200, 2, rows, 1), dtype=torch.int32)
    i = 0
    while i < 256:
        ahead = i % 2
        steps = choose.choice([length - ahead, choose.randint(1, length - ahead)])
        k = noise.take(ahead, steps, length)
        assert len(k) == length // 2
        used = k[: (ahead + steps + 1) // 2]
        assert torch.equal(used, pairs[i // 2 : i // 2 + len(used)])
        i += steps


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
    solver, noise = sg.EulerMaruyama(), Given(torch.ones_like(x))
    memory = solver.begin(WELL, nodes)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            for i in range(32):
                x, memory = solver.step(WELL, x, i, noise, memory)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # z = 1: the Euler steps of dx = f dt + 0.7 dt^{1/2} a step
    y, dt = torch.zeros(1, dtype=F64), 1 / 32
    for t in nodes[:-1]:
        y = y + dt * (y - y**3 * (1 + 0.1 * t)) + 0.7 * dt**0.5
    torch.testing.assert_close(x[:1, 0].double().cpu(), y, rtol=1e-5, atol=0)
