"""Advice on densities in phase space, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64
from tests.cures.densities import near

GRIDS = (sg.Grid(-6.0, 6.0, 36), sg.Grid(-7.0, 7.0, 36))
WIDE = (sg.Grid(-6.0, 8.0, 42), GRIDS[1])
WALL = {0: sg.Absorbing(high=6.0)}
START = torch.tensor(0.0, dtype=F64)
DRIVEN = sg.UnderdampedLangevin(lambda x, t: x**2 / 2 + t * x)
STILL = DRIVEN.potential.at(START)


def leaning(x):
    return x**2 / 2 - 0.3 * x


def particle(**options):
    return sg.UnderdampedLangevin(lambda x: x**2 / 2, **options)


def phase(sde=None, grids=GRIDS, boundary=None):
    return sg.FokkerPlanck2D(sde or particle(), grids, boundary)


class _Forced(sg.UnderdampedLangevin):
    """A particle under a force of 1 that is not of its potential."""

    def force(self, x, t):
        return super().force(x, t) + 1.0


def _tilted():
    """The same force as part of the potential, on a box that is wide enough."""
    return sg.UnderdampedLangevin(lambda x: (x - 1) ** 2 / 2)


def _rests(solver):
    """What is at rest has variances of 1."""
    covariance = solver.stationary().covariance
    near(covariance[0, 0], 1.0, 1e-4)
    near(covariance[1, 1], 1.0, 1e-4)


def _simulated(sde, boundary=None):
    start = torch.zeros(4, 2, 1, dtype=F64)
    return sg.simulate(sde, start, [0.0, 0.1], boundary=boundary, rng=0)


def _slope():
    """The derivative of a final position with respect to a stiffness."""
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    sde = sg.UnderdampedLangevin(lambda x: k * x**2 / 2)
    start = torch.ones(4, 2, 1, dtype=F64)
    path = sg.simulate(sde, start, [0.0, 0.5], differentiable=True, rng=0)
    (slope,) = torch.autograd.grad(path.final[:, 0].sum(), k)
    assert float(slope) < 0


def _learned():
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    return phase(sg.UnderdampedLangevin(lambda x: k * x**2 / 2)).stationary()


class Pushed(sg.UnderdampedLangevin):
    """A push that the potential does not know of."""

    def drift(self, x, t):
        return super().drift(x, t) + torch.tensor([[0.0], [0.3]])


FOLLOWED = {
    "a drift of one's own in phase space": (
        "change these in place of the method, or take simulate",
        lambda: phase(Pushed(lambda x: x**2 / 2)),
        lambda: (
            near(phase(sg.UnderdampedLangevin(leaning)).stationary().mean[0], 0.3, 1e-6),
            _simulated(Pushed(lambda x: x**2 / 2)),
        ),
    ),
    "a potential of time in phase space at rest": (
        "nothing rests in phase space",
        phase(DRIVEN).stationary,
        lambda: _rests(phase(sg.UnderdampedLangevin(STILL))),
    ),
    "a potential of time in phase space": (
        "under a potential that depends on time is not built",
        lambda: phase(DRIVEN).solve((0.0, 0.0), [0.0, 1.0]),
        lambda: (
            _rests(phase(sg.UnderdampedLangevin(STILL))),
            _simulated(DRIVEN),
        ),
    ),
    "a gradient of a density in phase space": (
        r"or take the gradient along paths, simulate\(…, differentiable=True\)",
        _learned,
        _slope,
    ),
    "a density in phase space that is not resolved": (
        "take more cells of both, or a smaller box. A narrow start",
        lambda: phase(grids=(sg.Grid(-7.0, 7.0, 16), sg.Grid(-8.0, 8.0, 16))).solve(
            (2.0, 0.0), [0.0, 0.05]
        ),
        lambda: phase().solve((2.0, 0.0), [0.0, 4.0]),
    ),
    "too many steps in phase space": (
        r"ask for a shorter time, or for the rates at which it relaxes: solver\.spectrum",
        lambda: phase(particle(friction=0.1)).solve((0.0, 0.0), [0.0, 1e6]),
        lambda: near(phase().spectrum(2).rates[1].real, 0.5, 1e-5),
    ),
    "no friction in phase space": (
        "needs friction and temperature > 0",
        lambda: phase(particle(friction=0.0)),
        lambda: _simulated(particle(friction=0.0)),
    ),
    "a force of one's own in phase space": (
        "of its own, which would be passed over: take simulate",
        lambda: phase(_Forced(lambda x: x**2 / 2)),
        lambda: (
            _simulated(_Forced(lambda x: x**2 / 2)),
            near(phase(_tilted(), WIDE).stationary().mean[0], 1.0, 1e-4),
        ),
    ),
    "walls of a velocity": (
        "the velocity of an underdamped particle has no walls",
        lambda: phase(boundary={1: sg.Reflecting(-7.0, 7.0)}),
        lambda: _rests(phase(boundary={0: sg.Reflecting(-6.0, 6.0)})),
    ),
    "an absorbing position": (
        "with an absorbing position is not built",
        lambda: phase(boundary=WALL),
        lambda: (
            _simulated(particle(), WALL),
            near(phase().spectrum(2).rates[1].real, 0.5, 1e-5),
        ),
    ),
    "velocities without 0": (
        "the grid of the velocity must hold v = 0",
        lambda: phase(grids=(GRIDS[0], sg.Grid(1.0, 9.0, 32))),
        lambda: _rests(phase(grids=(GRIDS[0], sg.Grid(-8.0, 8.0, 32)))),
    ),
    "wide cells of velocities": (
        r"cells of the velocity must be narrower than √\(T/m\)",
        lambda: phase(grids=(GRIDS[0], sg.Grid(-8.0, 8.0, 12))),
        lambda: _rests(phase(grids=(GRIDS[0], sg.Grid(-8.0, 8.0, 32)))),
    ),
}
