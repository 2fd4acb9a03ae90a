"""Both walks of a pilot take one Brownian path, with the areas that a solver asks for."""

import math
import warnings

import pytest
import torch
from sdes import turning

import sdegen as sg
from sdegen.core.noise import Stream
from sdegen.engine import half_steps
from sdegen.engine.half_steps import HalvedWalk

F64 = torch.float64
BENT = sg.ItoProcess(lambda x: 0.3 * torch.stack([x[:, 1].cos(), x[:, 0].sin()], 1), 0.9)
TURNING = sg.ItoProcess(lambda x: -x, turning, channels=3)


WELL = sg.UnderdampedLangevin(lambda x: x**4 / 4, 0.8)


def _walk(sde, solver, steps, rows=4000):
    nodes = torch.linspace(0, 1, steps + 1, dtype=F64)
    event = (2, 1) if sde.phase_space else (2,)
    x = torch.full((rows, *event), 0.5, dtype=F64)
    walk = HalvedWalk(sde, solver, x, nodes, Stream(0), None, 1)
    with torch.no_grad():
        for end in (steps // 4, steps):  # in stretches, which draw on
            walk.stretch(end)
    return walk


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sde", "solver", "order"),
    [
        (TURNING, sg.EulerMaruyama(), 0.5),
        (TURNING, sg.Milstein(), 1.0),
        (BENT, sg.SRA(), 1.5),
        (BENT, sg.TorchSDE("srk"), 1.5),
        (WELL, sg.BAOAB(), 1.0),
        (WELL, sg.OBABO(), 1.0),
        (WELL, sg.QUICSORT(), 3.0),
    ],
    ids=["Euler", "Milstein", "SRA", "srk", "BAOAB", "OBABO", "QUICSORT"],
)
def test_walks_come_together_at_the_strong_order(sde, solver, order):
    # of areas of their own, Milstein's would at ½, and those of SRA, srk and QUICSORT at 1; of
    # normals that are not those of v, splittings would not come together
    gaps = []
    for steps in (16, 64):
        walk = _walk(sde, solver, steps)
        gaps.append(float((walk.coarse - walk.fine).square().mean().sqrt()))
    assert abs(math.log(gaps[0] / gaps[1]) / math.log(4) - order) < 0.12


def test_two_packages_are_judged_alike():
    walks = [_walk(BENT, solver, 8) for solver in (sg.SRA(), sg.TorchSDE("srk"))]
    torch.testing.assert_close(walks[0].coarse, walks[1].coarse, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(walks[0].fine, walks[1].fine, rtol=1e-12, atol=1e-12)


STIFF = sg.ItoProcess(lambda x: -50 * x, turning, channels=3)


def test_steps_of_channels_are_judged(monkeypatch):
    monkeypatch.setattr(half_steps, "_SECONDS", 60.0)  # of a pilot, on a machine that is busy
    x0 = torch.full((2000, 2), 0.5, dtype=F64)
    with pytest.raises(ValueError, match=r"too large .* change the largest \|x\| by a factor of"):
        sg.simulate(STIFF, x0, torch.linspace(0, 1, 21), rng=0)
    with pytest.warns(sg.AccuracyWarning, match="are large for ItoProcess"):
        sg.simulate(STIFF, x0, torch.linspace(0, 1, 31), rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = sg.simulate(STIFF, x0, torch.linspace(0, 1, 31), solver=sg.EulerMaruyama(32), rng=0)
    assert run.step_error is not None


@pytest.mark.parametrize("solver", [sg.EulerMaruyama(), sg.Milstein()])
def test_a_verdict_on_steps_of_channels(solver):
    for steps, is_bad in ((20, True), (30, True), (160, False)):
        walk = _walk(STIFF, solver, steps, rows=256)
        assert walk.verdict.is_bad is is_bad
        assert walk.verdict.explodes is (steps == 20)
