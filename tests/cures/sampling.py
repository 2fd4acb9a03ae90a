"""Advice on samplers, their starts, grids and calibration, followed."""

import math
import re

import pytest
import torch

import sdegen as sg
from sdegen.core.shapes import expand
from tests.cures.common import F64, VP, warned
from tests.cures.places import folder, inside, near, ours

# --- samplers

_UNIT = sg.RectifiedFlow()
_UNIT_FLOW = sg.ReverseSDE(_UNIT, lambda x, t: -x / ((1 - t) ** 2 + t**2), eta=0.0)
_X_T = _UNIT.prior((50, 1), rng=0, dtype=F64)
_HIGH = sg.ExponentialAdams(4, "eps")


def _sampled(times, solver, error=None):
    """The flow of unit data is x_T itself, up to 2e-3."""
    x = sg.simulate(_UNIT_FLOW, _X_T, times, solver=solver).final
    if error is not None:
        near(float((x / _X_T).mean()), 1.0, error)


def _until_twice_as_many_change_nothing():
    steps, before, now = 20, None, None
    while before is None or abs(now - before) > 0.02:
        steps, before = 2 * steps, now
        times = sg.timesteps.uniform(_UNIT, steps)
        x = sg.simulate(_UNIT_FLOW, _X_T, times, solver=_HIGH).final
        now = float((x / _X_T).mean())
        before = math.inf if before is None else before
    near(now, 1.0, 0.02)


_Y, _S = 0.8, 0.05
_MEASURED = sg.LinearMeasurement(torch.eye(1, dtype=F64), torch.tensor([_Y], dtype=F64), _S)
_NORMAL = sg.GaussianMixture([1.0], [0.0], stds=1.0).noised(VP)


def _posterior(covariance, steps):
    """The mean of x given y is y/(1 + s²) for unit data; of 50 states, and of these steps."""
    score = _MEASURED.posterior_score(VP, _NORMAL.score, covariance)
    flow, x = sg.ReverseSDE(VP, score, eta=0.0), VP.prior((50, 1), rng=0, dtype=F64)
    x = sg.simulate(flow, x, VP.time_grid(steps), solver=sg.DDIM()).final
    near(float(x.mean()), _Y / (1 + _S**2), 0.01)


def _score(x, t):
    """That of data N(0, 0.5²)."""
    return -x / expand(VP.alpha(t) ** 2 * 0.25 + VP.sigma(t) ** 2, x)


_FLOW = sg.ReverseSDE(VP, _score, eta=0.0)
_TURNED = 0.5  # x_0/x_T of it, up to 2e-4


def _from(x0):
    return sg.simulate(_FLOW, x0, VP.time_grid(200), solver=sg.DDIM(), keep_path=False)


def _of_gauss(path):
    """Data N(0, 0.5²), of 400 states."""
    near(float(path.final.std()), 0.5, 4.4 * 0.5 / math.sqrt(2 * 400) + 0.01)


def _started_on_the_way():
    data = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=F64) * 0.5
    t = torch.tensor(0.5, dtype=F64)
    x = VP.perturb(data, t, rng=1)[0]
    times = torch.linspace(0.5, VP.t_min, 100, dtype=F64)
    _of_gauss(sg.simulate(_FLOW, x, times, solver=sg.DDIM(), keep_path=False))


_START = VP.prior((24, 1), rng=0, dtype=F64)


def _calibrated(dynamics=_FLOW, solver=None, steps=3, x_T=_START, near_to=0.03, **options):
    """It ends nearer to the flow than it began, and near to it."""
    solver = sg.AngularAdams(2) if solver is None else solver
    given = {"rounds": 1, "times": sg.timesteps.power(VP, steps), "reference": sg.Heun(30)}
    found = sg.calibrate(dynamics, solver, steps, x_T, **(given | options))
    assert found.error <= found.error_before
    x = sg.simulate(_FLOW, _START, found.times, solver=found.solver).final
    near(float((x / _START).mean()), _TURNED, near_to)
    return found


def _loaded(solver=None, method=None):
    """Saves a calibration and loads it as it is told."""

    def runs():
        found = _calibrated() if method is None else _nodes(method)
        found.save("c.safetensors")
        there = sg.Calibration.load("c.safetensors", _FLOW, solver=solver)
        assert torch.equal(there.times, found.times)
        return there

    return inside(runs)


def _as_it_says():
    """Takes the solver out of the message."""
    with folder():
        _nodes(sg.Heun()).save("c.safetensors")
        with pytest.raises(sg.CheckpointError) as caught:
            sg.Calibration.load("c.safetensors", _FLOW)
        named = re.search(r"pass solver=(.*)\.$", str(caught.value))[1]
        solver = eval(f"sg.{named}")
        sg.Calibration.load("c.safetensors", _FLOW, solver=solver)


_TWICE = sg.ExponentialAdams(4)


def _nodes(solver, steps=3, **options):
    return _calibrated(solver=solver, steps=steps, free_coefficients=False, **options)


UNSEEN = {"a posterior that explodes"}
"""Rows of a message that another row is of too."""


def _drawn(**words):
    network = sg.MLP(1, width=4, depth=1, rng=0, **words.pop("network", {}))
    return sg.sample(sg.ScoreModel(network, VP), 4, steps=2, rng=0, **words)


_TOLD = torch.tensor([0.5])

FOLLOWED = {
    "labels and a condition": (
        "labels and condition are given",
        lambda: _drawn(network={"conditions": 1}, labels=_TOLD, condition=_TOLD),
        lambda: _drawn(network={"conditions": 1}, condition=_TOLD),
    ),
    "a condition that nobody is told": (
        r"condition is given, but the \{\} is told none",
        lambda: _drawn(network={"classes": 2}, condition=_TOLD),
        lambda: (
            _drawn(network={"classes": 2}, labels=1),
            _drawn(network={"conditions": 1}, condition=_TOLD),
        ),
    ),
    "guidance of a condition": (
        "needs a score without the condition",
        lambda: _drawn(network={"conditions": 1}, condition=_TOLD, guidance=1.0),
        lambda: _drawn(network={"conditions": 1}, condition=_TOLD),
    ),
    # --- starts and ends
    "a sampler that explodes": (
        r"Take a solver of lower order or of prediction 'v'",
        lambda: _sampled(sg.timesteps.uniform(_UNIT, 4), _HIGH),
        lambda: (
            _sampled(sg.timesteps.uniform(_UNIT, 4), sg.ExponentialAdams(2, "eps"), 0.1),
            _sampled(sg.timesteps.uniform(_UNIT, 4), sg.ExponentialAdams(4, "v"), 0.06),
            _sampled(sg.timesteps.auto(_UNIT_FLOW, 4, _X_T[:24], solver=_HIGH), _HIGH, 0.05),
            _until_twice_as_many_change_nothing(),
        ),
    ),
    "a posterior that explodes": (
        r"of a posterior score, covariance='isotropic'",
        lambda: _posterior("none", 30),
        lambda: (_posterior("isotropic", 30), _posterior("none", 240)),
    ),
    "a start that is none of the path": (
        r"start from sde.prior\(shape\), or from sde.perturb",
        ours(lambda: warned(lambda: _from(0.1 * VP.prior((400, 1), rng=0))), sg.AccuracyWarning),
        lambda: (
            _of_gauss(_from(VP.prior((400, 1), rng=0, dtype=F64))),
            _started_on_the_way(),
        ),
    ),
    # --- calibration
    "substeps to calibrate": (
        r"calibrate places every node itself, but solver.substeps is",
        lambda: _nodes(sg.Heun(substeps=2)),
        lambda: near(
            sg.simulate(_FLOW, _START, _nodes(sg.Heun(), 3 * 2).times, solver=sg.Heun()).nfe,
            sg.simulate(_FLOW, _START, VP.time_grid(3), solver=sg.Heun(substeps=2)).nfe,
            0,
        ),
    ),
    "coefficients of a method that has none": (
        "free coefficients need a linear multistep method of one",
        lambda: _calibrated(solver=sg.Heun()),
        lambda: (_calibrated(solver=sg.AngularAdams()), _nodes(sg.Heun())),
    ),
    "coefficients of a method that evaluates twice": (
        r"free coefficients need one evaluation a step, but \{\}",
        lambda: _calibrated(solver=_TWICE),
        lambda: (_calibrated(solver=sg.AngularAdams()), _nodes(_TWICE)),
    ),
    "a pilot batch that is too small": (
        r"x_T has \{\} states, of which every third is held out",
        lambda: _calibrated(x_T=_START[:5]),
        lambda: (_calibrated(x_T=_START[:6]), _calibrated(x_T=VP.prior((300, 1), rng=1))),
    ),
    "a solver for coefficients of its own": (
        r"brings coefficients of its own: load it without solver",
        _loaded(sg.AngularAdams(2)),
        _loaded(),
    ),
    "nodes without their solver": (
        r"has the nodes of \{\}, but solver is \{\}; pass solver",
        _loaded(solver=None, method=sg.Heun()),
        _as_it_says,
    ),
}
