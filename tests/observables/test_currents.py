"""Probability currents: exact in the washboard and on the way, none in equilibrium."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from scipy import integrate

import sdegen as sg
from sdegen.core.noise import Streams
from sdegen.observables.base import Block

F64 = torch.float64


def exact_velocity(tilt, d):
    """v of dX = (cos 2πx + F) dt + √(2D) dW: D (1 − e^{−F/D})/⟨I₊⟩, L = 1."""

    def v(x):
        return -math.sin(2 * math.pi * x) / (2 * math.pi) - tilt * x

    def i_plus(x):
        return integrate.quad(lambda y: math.exp((v(x) - v(x - y)) / d), 0, 1)[0]

    mean = np.mean([i_plus((k + 0.5) / 64) for k in range(64)])
    return d * (1 - math.exp(-tilt / d)) / mean


def washboard(tilt, *, n=20_000, t=4.0, steps=400):
    """Current over one period of a washboard, after two units of time."""
    d = 0.3
    sde = sg.ItoProcess(lambda x: torch.cos(2 * math.pi * x) + tilt, math.sqrt(2 * d))
    run = sg.run_ensemble(
        sde, lambda rows, rng: torch.rand(rows, 1, generator=rng, dtype=F64), [0.0, 2.0, t],
        trajectories=n, solver=sg.EulerMaruyama(substeps=steps // 2), rng=6, progress=False,
        observables=[sg.ProbabilityCurrent(0.0, 1.0, 10, periodic=True)],
    )  # fmt: skip
    return run.observables["current"], exact_velocity(tilt, d)


def test_the_tilted_washboard(monkeypatch):
    """J = v/L in every cell; 4.9 errors each for ten cells, and O(dt) of the chain."""
    monkeypatch.setattr("sdegen.engine.blocks._NUMBERS", {"cpu": 4096})
    found, exact = washboard(1.5)
    assert exact > 1.0
    assert float(((found.current[1] - exact) / (found.error[1] + 0.003)).abs().max()) < 4.9
    # the error is that of the count of periods: D_eff t
    assert 2e-3 < float(found.error[1].mean()) < 8e-3


def test_equilibrium_has_none(monkeypatch):
    monkeypatch.setattr("sdegen.engine.blocks._NUMBERS", {"cpu": 4096})
    found, _ = washboard(0.0)
    assert float((found.current[1] / found.error[1]).abs().max()) < 4.9


def test_a_line_is_continuity(small_blocks):
    """Between two times J is what the distribution function lost, cell by cell, to rounding."""
    n, times = 3000, [0.0, 0.5, 1.5]
    sde = sg.OrnsteinUhlenbeck(rate=1.0, sigma=0.7)
    x0 = torch.full((1, 1), 1.5, dtype=F64)
    run = sg.run_ensemble(
        sde, x0, times, trajectories=n, observables=[sg.ProbabilityCurrent(-1.0, 2.0, 6)], rng=3,
        solver=sg.EulerMaruyama(substeps=20), progress=False,
    )  # fmt: skip
    found = run.observables["current"]
    states = sg.simulate(
        sde, x0.repeat(n, 1), times, solver=sg.EulerMaruyama(substeps=20), rng=3
    ).states[..., 0]
    torch.testing.assert_close(found.x, torch.linspace(-0.75, 1.75, 6, dtype=F64))
    for k, dt in ((0, 0.5), (1, 1.0)):
        for c, (low, high) in enumerate(zip(found.edges[:-1], found.edges[1:], strict=True)):
            beyond = (states.clamp(low, high) - low) / (high - low)
            each = (beyond[k + 1] - beyond[k]) / dt
            assert float(found.current[k, c]) == pytest.approx(float(each.mean()), abs=1e-12)
            error = float(each.std()) / math.sqrt(n)
            assert float(found.error[k, c]) == pytest.approx(error, rel=0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: sg.ProbabilityCurrent(1.0, 0.0), "a current needs low < high"),
        (lambda: sg.ProbabilityCurrent(0.0, 1.0, 0), "cells must be ≥ 1"),
        (lambda: sg.ProbabilityCurrent(-3.0, math.inf), "high must be finite, but is inf"),
    ],
)  # fmt: skip
def test_refusals(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize(
    "observable",
    [
        sg.ProbabilityCurrent(-1.0, 1.0, 4),
        sg.Moments(),
        sg.Histogram(-1, 1, 4),
        sg.TimeCorrelation(),
    ],
    ids=lambda o: o.name,
)
def test_an_accumulator_is_freed_without_the_garbage_collector(observable):
    """In a long run those of thousands of blocks would wait for it, with all their cells."""
    sde, times = sg.OrnsteinUhlenbeck(), torch.linspace(0, 1, 3, dtype=F64)
    block = Block(sde, times, times, None, Streams(0, "test").block(0))
    gc.disable()
    try:
        accumulator = observable.begin(block)
        for k in range(3):
            accumulator.see(k, torch.full((5, 1), 0.1 * k, dtype=F64))
        accumulator.partial()
        alive = weakref.ref(accumulator)
        del accumulator
        assert alive() is None
    finally:
        gc.enable()
