"""Advice on linear processes and the moments of chains, followed."""

import math
from dataclasses import dataclass
from unittest import mock

import torch

import sdegen as sg
from sdegen.core.fixed_steps import OneStep
from sdegen.sde import magnus
from tests.cures.common import F64, OU, column, near, simulate

ZERO = torch.tensor(0.0, dtype=F64)
TIMED = sg.LinearSDE(lambda t: [[1.0 + t]], 1.0)


class Cubed(sg.OrnsteinUhlenbeck):
    """A drift of its own."""

    def drift(self, x, t):
        return -(x**3)


class Faster(sg.OrnsteinUhlenbeck):
    """A drift of its own and its transition."""

    def drift(self, x, t):
        return 2 * super().drift(x, t)

    def transition(self, t, s):
        return sg.OrnsteinUhlenbeck(2.0, 0.0, 1.0).transition(t, s)


@dataclass(frozen=True)
class OwnStream(OneStep):
    """A step that draws past `normal`."""

    def step(self, sde, x, i, noise, memory):
        return x + noise.stream.normal(tuple(x.shape), dtype=x.dtype), memory


def fast(t, s):
    """Φ of A(t) = 1 + sin 500 t by few panels."""
    with mock.patch.object(magnus, "_MOST", 60):
        return sg.LinearSDE(lambda u: [[1 + math.sin(500 * u)]], 1.0).transition(t, s)


def at_rest(sde, step=0.1, **options):
    """The variance of a chain at rest."""
    return sg.ChainMoments(sde, 1, **options).stationary(step).covariance


def turned(autonomous=None):
    """The end of ẋ = t."""
    sde = sg.ItoProcess(lambda x, t: t + 0 * x, 0.0, autonomous=autonomous)
    return sg.simulate(sde, torch.zeros(2, 1, dtype=F64), [0.0, 0.5, 1.0]).final


def additive():
    """A g(x, t) of t alone, said to be additive."""
    said = sg.ItoProcess(lambda x: -x, lambda x, t: 1 + 0 * t, noise="additive", autonomous=True)
    near(sg.LinearSDE.of(said, 1).stationary_covariance(), 0.5)


def stratonovich():
    """The same equation, read as it is in the limit, and one whose g is a function of t alone."""
    read = sg.ItoProcess(lambda x: -x, lambda x: x, interpretation="stratonovich")
    pushed = sg.Coloured(read, 0.5).drift(torch.tensor([[2.0, 1.0]], dtype=F64), ZERO)
    near(pushed, [[-2.0 + 2.0, -2.0]])
    timed = sg.ItoProcess(lambda x: -x, lambda x, t: 1 + t + 0 * x, noise="additive")
    near(
        sg.Coloured(timed, 0.5).drift(torch.tensor([[2.0, 1.0]], dtype=F64), ZERO), [[-1.0, -2.0]]
    )


def memory_started():
    """A run of one coordinate with a memory of one number, from start()."""
    sde = sg.GeneralizedLangevin(sg.Quadratic(), sg.PronySeries(1.0, 0.5))
    path = simulate(sde, sde.start(column(0.5), rng=0))
    assert sde.position(path.states).shape == (11, 4, 1)
    sde = sg.Coloured(OU, 0.5)
    near(sde.position(simulate(sde, sde.start(column(0.5), rng=0)).states)[0], column(0.5))


FOLLOWED = {
    "coloured noise of an Itô process": (
        "coloured noise tends to the Stratonovich reading",
        lambda: sg.Coloured(sg.ItoProcess(lambda x: -x, lambda x: x), 0.5),
        stratonovich,
    ),
    "a position in the place of a state": (
        r"pass start\(x0, rng=0\) of x0 with shape \(batch, d\)",
        lambda: simulate(sg.Coloured(OU, 0.5), column(0.5)),
        memory_started,
    ),
    "a linear SDE of multiplicative noise": (
        "a LinearSDE runs forwards with noise that does not depend on x",
        lambda: sg.LinearSDE.of(sg.ItoProcess(lambda x: -x, lambda x, t: 1 + 0 * t), 1),
        additive,
    ),
    "a law at rest of rates of time": (
        "has rates that depend on time, and no stationary law; ask for transition",
        TIMED.stationary_covariance,
        lambda: (
            near(TIMED.transition(0.0, 2.0).matrix, math.exp(-4.0), 1e-10),
            near(sg.LinearSDE([[1.0]], 1.0).stationary_covariance(), 0.5),
        ),
    ),
    "rates that change too fast": (
        "Ask for times that are nearer to each other, such as one at each jump",
        lambda: fast(0.0, 5.0),
        lambda: near(fast(0.0, 0.01).matrix, math.exp(-0.01 - (1 - math.cos(5.0)) / 500), 1e-10),
    ),
    "rates that do not exist at 0": (
        r"; say where it is with time_range=\(low, high\)",
        lambda: sg.LinearSDE(lambda t: [[1 / t]], 1.0),
        lambda: near(
            sg.LinearSDE(lambda t: [[1 / t]], 1.0, time_range=(0.5, 2.0))
            .transition(0.5, 2.0)
            .matrix,
            0.25,
            1e-10,
        ),
    ),
    "a transition of another drift": (
        "and no transition that belongs to it: define transition",
        lambda: Cubed().transition(0.0, 1.0),
        lambda: near(Faster(1.0, 0.0, 1.0).transition(0.0, 1.0).matrix, math.exp(-2.0)),
    ),
    "moments of an adaptive solver": (
        "the moments of a chain need a solver with fixed steps",
        lambda: at_rest(OU, solver=sg.TorchDiffEq()),
        lambda: near(at_rest(OU, solver=sg.EulerMaruyama(substeps=2)), 1 / 1.9),
    ),
    "a chain of dynamics that may change": (
        "does not say that it is the same at every t, and only then a chain comes to rest",
        lambda: at_rest(sg.ItoProcess(lambda x, t: -x, 1.0)),
        lambda: (
            near(at_rest(sg.ItoProcess(lambda x, t: -x, 1.0, autonomous=True)), 1 / 1.9),
            near(
                sg.ChainMoments(sg.ItoProcess(lambda x, t: -x, 1.0), 1)
                .run(0.0, 0.0, torch.linspace(0, 20, 201, dtype=F64))
                .final.covariance,
                1 / 1.9,
            ),
        ),
    ),
    "dynamics that change in time and say that they do not": (
        r"says autonomous = True, but its .* is another at .*; say autonomous=False, or None",
        lambda: turned(autonomous=True),
        lambda: near(turned(autonomous=False), turned()),
    ),
    "a chain that does not come to rest": (
        "Take smaller steps, if the process itself has a stationary law",
        lambda: at_rest(OU, 2.5),
        lambda: near(at_rest(OU, 0.1), 1 / 1.9),
    ),
    "moments of steps that draw elsewhere": (
        "the moments of a chain are built for steps that draw by noise.normal",
        lambda: at_rest(OU, solver=OwnStream()),
        lambda: near(at_rest(OU, solver=sg.EulerMaruyama(substeps=2)), 1 / 1.9),
    ),
}
