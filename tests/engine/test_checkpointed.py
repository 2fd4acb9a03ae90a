"""Gradients through runs of steps that are repeated: the same numbers, in the memory of √N."""

import copy
import math
import re
import weakref

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sdegen as sg
from sdegen.core.noise import Noise, stream
from sdegen.engine.blocks import solve_block
from sdegen.engine.checkpointed import CheckpointedRuns, RepeatableNoise
from sdegen.engine.record import RunOptions

F64 = torch.float64
NETWORK = sg.MLP(2, width=16, depth=1, rng=0).double()
for parameter in NETWORK.parameters():  # an MLP begins with an output of zero
    parameter.data += 0.1 * torch.sin(torch.arange(parameter.numel())).reshape(parameter.shape)
NEURAL = sg.ItoProcess(lambda x, t: NETWORK(x, t.expand(len(x)).to(x)) - x, 0.5)


def gradients(how, sde=NEURAL, times=(0.0, 1.0), weights=None, **words):
    """Value and gradients of a loss of all states that are kept, in weights and x0."""
    x0 = torch.linspace(-1, 1, 10, dtype=F64).reshape(5, 2).requires_grad_()
    weights = list(NETWORK.parameters()) if weights is None else weights
    path = sg.simulate(sde, x0, list(times), rng=3, differentiable=how, **words)
    loss = path.states.square().mean() + path.states[-1].sin().sum()
    return path, torch.autograd.grad(loss, [x0, *weights])


@pytest.mark.parametrize("keep_path", [True, False])
@pytest.mark.parametrize(
    ("times", "substeps"), [((0.0, 1.0), 1), ((0.0, 1.0), 37), ((0.0, 0.2, 1.0), 10)]
)
def test_paths_and_gradients_are_those_of_the_plain_run(keep_path, times, substeps):
    words = {"solver": sg.EulerMaruyama(substeps), "keep_path": keep_path, "times": times}
    (plain, expected), (path, found) = (gradients(how, **words) for how in (True, "checkpointed"))
    assert torch.equal(path.states.detach(), plain.states.detach())
    assert path.nfe == plain.nfe
    assert path.seed == plain.seed
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert all(bool(g.abs().max() > 0) for g in found)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (16, 1), (300, 50)])
def test_repeatable_noise_is_noise_and_so_is_its_copy(dtype, shape):
    x = torch.zeros(shape, dtype=dtype)
    plain, again = Noise(x, 5), RepeatableNoise(x, stream(5, "dynamics"), None)
    for _ in range(3):
        assert torch.equal(again.normal(), plain.normal())
    twin = copy.deepcopy(again)
    for _ in range(40):
        z = plain.normal()
        assert torch.equal(again.normal(), z)
        assert torch.equal(twin.normal(), z)


def test_a_drift_that_differentiates_keeps_its_noise():
    """−∂U/∂x by autograd asks for the graph of a run within the run; its draws go on."""
    theta = torch.tensor(0.7, dtype=F64, requires_grad=True)
    well = sg.Langevin(lambda x: (theta * x**4 / 4).sum(-1), 0.3)
    words = {"sde": well, "weights": [theta], "solver": sg.EulerMaruyama(13)}
    (plain, expected), (path, found) = (gradients(how, **words) for how in (True, "checkpointed"))
    assert torch.equal(path.states.detach(), plain.states.detach())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("boundary", [sg.Periodic(-1.5, 1.5), sg.Reflecting(-1.2, 1.2)])
def test_boundaries_act_in_every_step(boundary):
    ends, theta = {0: boundary, 1: boundary}, torch.tensor(0.7, dtype=F64, requires_grad=True)
    turn = sg.ItoProcess(lambda x: theta * torch.sin(2 * math.pi * x / 3), 1.5)
    words = {
        "sde": turn,
        "weights": [theta],
        "boundary": ends,
        "solver": sg.EulerMaruyama(20),
        "times": (0.0, 1.0, 2.0),
    }
    (plain, expected), (path, found) = (gradients(how, **words) for how in (True, "checkpointed"))
    assert torch.equal(path.states.detach(), plain.states.detach())
    assert float(path.states.detach().abs().max()) < 1.5
    if path.windings is not None:
        assert torch.equal(path.windings, plain.windings)
        assert bool(path.windings.any())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_second_derivatives_and_a_graph_used_twice():
    theta = torch.tensor(0.7, dtype=F64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: -theta * x**3, 0.3)
    x0 = torch.full((4, 1), 0.9, dtype=F64)
    found = []
    for how in (True, "checkpointed"):
        loss = sg.simulate(
            sde, x0, [0.0, 1.0], solver=sg.EulerMaruyama(9), rng=0, differentiable=how
        ).final.sum()
        (first,) = torch.autograd.grad(loss, theta, create_graph=True)
        (second,) = torch.autograd.grad(first, theta, retain_graph=True)
        (again,) = torch.autograd.grad(loss, theta)
        found.append(torch.stack([first.detach(), second, again]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)
    assert float(found[0][0]) == float(found[0][2])


class Live(TorchDispatchMode):
    """Bytes of all tensors that live at a time, at their most."""

    def __init__(self):
        super().__init__()
        self.peak, self._calls = 0, 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._calls += 1
        if self._calls % 50 == 0:
            self._live = {k: v for k, v in self._live.items() if not v[0].expired()}
            self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return made


def test_memory_grows_as_the_root_of_the_number_of_steps():
    """Peaks at N = 9, 36, 144: the ratio of their increments is 4 for N, 2 for √N."""
    x0, theta = torch.zeros(500, 1, dtype=F64), torch.ones((), dtype=F64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: torch.tanh(theta * x).sin() * x, 0.5)

    def peak(how, steps):
        with Live() as live:  # of the steps alone, without what is looked at before them
            block = solve_block(
                sde, sg.EulerMaruyama(steps), x0, torch.tensor([0.0, 1.0], dtype=F64), block=0,
                seed=0, keep_path=False, options=RunOptions(checkpointed=how == "checkpointed"),
            )  # fmt: skip
            block.states.sum().backward()
        return live.peak

    a, b, c = (peak("checkpointed", n) for n in (9, 36, 144))
    assert (c - b) / (b - a) == pytest.approx(2.0, rel=0.15)
    short, long = (peak(True, n) for n in (9, 36))
    assert long / short == pytest.approx(4.0, rel=0.1)
    assert c < 0.5 * long  # with four times the steps


@pytest.mark.parametrize(
    ("steps", "apart", "positions"),
    [(1, 1, [0, 1]), (9, 9, [0, 3, 6, 9]), (10, 10, [0, 4, 8, 10]), (10, 5, [0, 4, 5, 9, 10])],
)
def test_runs_have_the_length_of_the_root_and_end_where_somebody_looks(steps, apart, positions):
    nodes = torch.linspace(0, 1, steps + 1, dtype=F64)
    assert CheckpointedRuns(sg.EulerMaruyama(), nodes, apart, None).positions == positions


def test_nothing_is_held_once_the_gradients_are_there():
    path, _ = gradients("checkpointed", solver=sg.EulerMaruyama(10))
    final = weakref.ref(path.states)
    del path
    assert final() is None


REFUSED = {
    "substeps that are chosen": ({"solver": sg.TorchDiffEq()}, "chooses its own steps"),
    "areas": ({"solver": sg.SRA()}, "draws more for a step than its normals"),
    "functionals": ({"functionals": [sg.TimeIntegral(lambda x: x[:, 0])]}, "functionals= does"),
    "a path": (
        {"brownian": sg.BrownianPath(0, torch.linspace(0, 1, 2, dtype=F64))},
        "brownian= does not go",
    ),
    "freeze": ({"on_nonfinite": "freeze"}, "on_nonfinite='freeze' does not go"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_runs_cannot_repeat_is_refused(what):
    words, told = REFUSED[what]
    sde = sg.ItoProcess(lambda x: -x, 0.0) if what == "substeps that are chosen" else NEURAL
    with pytest.raises(ValueError, match=told):
        gradients("checkpointed", sde=sde, **words)


def test_other_words_and_lost_gradients_are_refused():
    with pytest.raises(ValueError, match="differentiable must be 'checkpointed'"):
        gradients("checkpoints")
    with pytest.raises(TypeError, match="differentiable must be True, False or 'checkpointed'"):
        gradients(1)
    with torch.no_grad(), pytest.raises(ValueError, match="gradients are switched off"):
        gradients("checkpointed")


def test_a_lost_trajectory_is_found_as_in_a_plain_run():
    up = sg.ItoProcess(lambda x: x**3, 0.0)
    told = []
    for how in (True, "checkpointed"):
        with pytest.raises(sg.NonFiniteError) as error:
            sg.simulate(
                up, torch.full((2, 1), 5.0, dtype=F64), [0.0, 1.0],
                solver=sg.EulerMaruyama(40), differentiable=how,
            )  # fmt: skip
        told.append(re.sub(r"by t = [\d.]+", "by t", str(error.value)))
    assert told[0] == told[1]  # but for when it was looked for
