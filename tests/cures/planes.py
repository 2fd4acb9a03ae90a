"""Advice on densities in the plane, followed."""

import math
from unittest import mock

import torch

import sdegen as sg
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D
from tests.cures.common import F64, warned
from tests.cures.densities import near

OU2 = sg.ItoProcess(lambda x: -x, 1.0)  # variances of ½
SIDE = sg.Grid(-4.0, 4.0, 40)
PAIR = (SIDE, SIDE)
HALF = [[0.5, 0.0], [0.0, 0.5]]


def plane(sde=OU2, grids=PAIR, boundary=None, **options):
    return FokkerPlanck2D(sde, grids, boundary, **options)


def square(cells, half=4.0):
    return (sg.Grid(-half, half, cells), sg.Grid(-half, half, cells))


def spread(density):
    """The variance of the first coordinate."""
    return density.covariance[0, 0]


def _particle(noise):
    """An underdamped particle with a little noise on its position."""
    return sg.ItoProcess(
        lambda z: torch.stack([z[:, 1], -z[:, 0] - z[:, 1]], 1),
        lambda z: torch.tensor([noise, math.sqrt(2.0)], dtype=F64).expand_as(z),
    )


def _underdamped():
    return sg.UnderdampedLangevin(lambda x: x**2 / 2)


def _wells(height):
    """Two wells with a current between them, no sum of which is known."""

    def force(z):
        x, y = z.unbind(1)
        u_x, u_y = 4 * height * x * (x**2 - 1), 2 * y
        return torch.stack([-u_x + u_y, -u_y - u_x], 1)

    return sg.ItoProcess(force, math.sqrt(2.0))


def _channels(G):
    """A trap under a noise matrix; of constant ones the first coordinate's variance is ½."""
    return sg.ItoProcess(lambda z: -z, G, channels=2 if callable(G) else G.shape[1])


def _ellipse(share):
    """G of two channels, the second weaker and across the first; Σ G_1k² = 1."""
    g = torch.tensor([[1.0, -0.4 * share], [0.4, share]], dtype=F64)
    return g / (1 + (0.4 * share) ** 2) ** 0.5


STATES = torch.tensor([[0.5, -0.5]], dtype=F64)


def _relaxing(times):
    """Densities that come to rest."""
    return plane().solve(plane().gaussian((0.5, 0.0), [[0.3, 0.0], [0.0, 0.3]]), times)


THIN = torch.tensor([[1.0, 0.0], [0.0, 0.01]], dtype=F64)
TURNING = sg.ItoProcess(lambda z, t: -z + torch.stack([torch.cos(t), torch.sin(t)]).to(z), 1.0)
STILL = sg.ItoProcess(lambda z: TURNING.drift(z, torch.tensor(0.0, dtype=F64)), 1.0)
NARROW = sg.ItoProcess(lambda z: -z, 0.1)  # a standard deviation of 0.07
TIGHT = sg.ItoProcess(lambda z: -z, 0.01)
MOVED = [sg.Absorbing(high=lambda t: 4.0 - t), None]

FOLLOWED = {
    "a moving end in the plane": (
        r"is a function of t; ends that move are built for densities on a line",
        lambda: plane(boundary=MOVED),
        lambda: (
            plane(boundary=[sg.Absorbing(high=4.0), None]),
            sg.FokkerPlanck(
                sg.BrownianMotion(), sg.Grid(-4.0, 4.0, 80), sg.Absorbing(-4.0, lambda t: 4.0 - t)
            ).solve(0.0, [0.0, 0.5]),
            sg.simulate(OU2, torch.zeros(4, 2, dtype=F64), [0.0, 0.1, 0.2], rng=0, boundary=MOVED),
        ),
    ),
    "an end elsewhere than the plane's": (
        "the boundary of coordinate {} ends at {}, its grid at {}",
        lambda: plane(boundary=[sg.Reflecting(0.0, 4.0), None]),
        lambda: near(
            plane(OU2, (sg.Grid(0.0, 4.0, 40), SIDE), [sg.Reflecting(0.0, 4.0), None])
            .stationary()
            .mean[0],
            math.pi**-0.5,
        ),
    ),
    "a tolerance in words": (
        "rtol must be a number, but is {}; pass rtol=1e-4",
        lambda: plane().stationary(rtol="fine"),
        lambda: near(spread(plane().stationary(rtol=1e-4)), 0.5, 1e-4),
    ),
    "a tolerance above all": (
        "rtol must lie between 1e-12 and 1",
        lambda: plane().stationary(rtol=2.0),
        lambda: near(spread(plane().stationary(rtol=1e-4)), 0.5, 1e-4),
    ),
    "a covariance that is none": (
        "covariance must be a symmetric, positive 2 × 2 matrix",
        lambda: plane().gaussian((0.0, 0.0), [[1.0, 0.0], [0.5, 1.0]]),
        lambda: near(plane().gaussian((0, 0), [[0.5, 0.2], [0.2, 0.5]]).covariance[0, 1], 0.2),
    ),
    "a Gaussian between the nodes": (
        "the density lies between nodes; pass a wider one, or finer grids",
        lambda: plane().gaussian((0.1, 0.1), [[1e-6, 0.0], [0.0, 1e-6]]),
        lambda: (
            near(plane().gaussian((0.1, 0.1), [[0.1, 0.0], [0.0, 0.1]]).mean[0], 0.1),
            near(_tiny_plane().gaussian((0.1, 0.1), [[1e-6, 0.0], [0.0, 1e-6]]).mean[0], 0.1),
        ),
    ),
    "a start that is none in the plane": (
        "p0 must be a PlaneDensity or a point",
        lambda: plane().solve([[0.0]], [0.0, 0.5]),
        lambda: near(
            spread(plane().solve(plane().gaussian((0.0, 0.0), HALF), [0.0, 0.5])[-1]), 0.5
        ),
    ),
    "a point with three coordinates": (
        "a point has two coordinates, but p0 is {}",
        lambda: plane().solve((0.0, 0.0, 0.0), [0.0, 0.5]),
        lambda: near(spread(plane().solve((0.0, 0.0), [0.0, 0.5])[-1]), 0.5 - 0.5 * math.exp(-1)),
    ),
    "a start on another plane": (
        r"\{\} lives on \{\} nodes \{\} from \{\} to \{\}, the solver on",
        lambda: plane().solve(plane(OU2, square(40, 5.0)).gaussian((0, 0), HALF), [0.0, 0.5]),
        lambda: plane().solve(plane().gaussian((0.0, 0.0), HALF), [0.0, 0.5]),
    ),
    "a density on another plane": (
        "{} must have shape {}, but has {}; make it with this solver's grids",
        lambda: plane().current(plane(OU2, square(20)).gaussian((0, 0), HALF)),
        lambda: plane().current(plane().gaussian((0.0, 0.0), HALF)),
    ),
    "grids of few cells": (
        "half of which tell an error",
        lambda: plane(OU2, square(7)),
        lambda: plane(OU2, square(8)),
    ),
    "no noise on one coordinate": (
        "FokkerPlanck2D needs noise on both coordinates",
        lambda: plane(_particle(0.0), square(20, 6.0)),
        lambda: (
            near(spread(plane(_underdamped(), square(40, 7.0)).stationary()), 1.0, 1e-6),
            [
                near(spread(plane(_particle(e), square(40, 6.0)).stationary()), 1.0, 2e-2)
                for e in (0.05, 0.1)
            ],
            near(_simulated_spread(), 1.0, 0.1),
        ),
    ),
    "a plane that no channel fills": (
        "FokkerPlanck2D needs noise in every direction",
        lambda: plane(_channels(torch.tensor([[1.0], [0.5]], dtype=F64))),
        lambda: [
            near(spread(plane(_channels(_ellipse(e)), square(60)).stationary()), 0.5, 0.02)
            for e in (0.1, 0.2)
        ],
    ),
    "a matrix too long for the cells of a plane": (
        "whose eigenvalues, measured in cells, have a ratio of up to",
        lambda: plane(_channels(THIN)),
        lambda: (
            plane(_channels(THIN), (SIDE, sg.Grid(-0.06, 0.06, 40))).stationary(rtol=0.3),
            plane(_channels(torch.cat([THIN, 0.05 * torch.eye(2, dtype=F64)], 1))),
            sg.simulate(_channels(THIN), torch.zeros(4, 2, dtype=F64), [0.0, 0.1], rng=0),
        ),
    ),
    "a matrix that reaches over few cells of a plane": (
        "couples nodes that are {} cells apart",
        lambda: plane(_channels(_ellipse(0.1)), square(8)),
        lambda: plane(_channels(_ellipse(0.1)), square(12)),
    ),
    "channels between real walls in the compact form": (
        "form = 'compact' has no wall without flux where noises are correlated",
        lambda: plane(_channels(_ellipse(0.5)), form="compact", truncation_is_physical=True),
        lambda: (
            plane(_channels(_ellipse(0.5)), form="lumped", truncation_is_physical=True),
            plane(_channels(_ellipse(0.5)), truncation_is_physical=True),
        ),
    ),
    "a matrix that jumps in the plane": (
        "changes between ({}, {}) and ({}, {}) by what its derivative",
        lambda: plane(_channels(lambda x: _ellipse(0.5) * (1 + (x[:, :1, None] > 0)))),
        lambda: (
            plane(_channels(lambda x: _ellipse(0.5) * (1.5 + 0.5 * torch.tanh(x[:, :1, None])))),
            plane(
                _channels(lambda x: _ellipse(0.5) * (1.5 + 0.5 * torch.tanh(8 * x[:, :1, None]))),
                square(100),
            ),
        ),
    ),
    "a score at another time": (
        "the score is known from t = {} to {}, but was asked for at {}",
        lambda: sg.PlaneScore(_relaxing([0.0, 0.2, 0.4]), [0.0, 0.2, 0.4])(STATES, 0.5),
        lambda: sg.PlaneScore(_relaxing([0.0, 0.2, 0.6]), [0.0, 0.2, 0.6])(STATES, 0.5),
    ),
    "a score without times": (
        "times must be one for each of {} densities",
        lambda: sg.PlaneScore(_relaxing([0.0, 0.2])),
        lambda: sg.PlaneScore(_relaxing([0.0, 0.2]), [0.0, 0.2])(STATES, 0.1),
    ),
    "a score of nothing": (
        "densities must be one at least",
        lambda: sg.PlaneScore([], []),
        lambda: sg.PlaneScore(_relaxing([0.0, 0.2]), [0.0, 0.2]),
    ),
    "a score on two grids": (
        "densities must share their nodes",
        lambda: sg.PlaneScore([plane().stationary(), plane(OU2, square(50)).stationary()], [0, 1]),
        lambda: sg.PlaneScore([plane().stationary(), plane().stationary()], [0, 1]),
    ),
    "a score of a point": (
        "a score needs {} along both; leave out a start at a point",
        lambda: sg.PlaneScore(plane().solve((0.5, 0.0), [0.0, 0.3]), [0.0, 0.3]),
        lambda: (
            sg.PlaneScore(plane().solve((0.5, 0.0), [0.0, 0.3])[1:], [0.3]),
            sg.PlaneScore(_relaxing([0.0, 0.3]), [0.0, 0.3]),
            sg.PlaneScore([plane(OU2, square(200)).gaussian((0, 0), [[1e-2, 0], [0, 1e-2]])]),
        ),
    ),
    "rest of what turns": (
        "so that nothing is at rest",
        lambda: plane(TURNING).stationary(),
        lambda: (
            near(plane(STILL, square(40, 5.0)).stationary().mean[0], 1.0),
            near(
                plane(TURNING, square(40, 5.0)).solve((0.0, 0.0), [0.0, 0.5])[-1].mean[1],
                0.5 * (math.sin(0.5) - math.cos(0.5) + math.exp(-0.5)),
            ),
        ),
    ),
    "weights of wells that are lost": (
        "the density at rest is lost in rounding",
        lambda: plane(_wells(40.0), WELL_GRIDS).stationary(),
        lambda: (
            near(plane(_wells(4.0), WELL_GRIDS).stationary().mean[0], 0.0),
            near(
                plane(_wells(40.0), ONE_WELL, truncation_is_physical=True).stationary().mean[0],
                1.0,
                3e-2,
            ),
        ),
    ),
    "a density between all nodes": (
        "take more cells where the density changes, or a smaller box",
        lambda: plane(TIGHT, square(16, 6.4)).stationary(),
        lambda: near(spread(plane(TIGHT, square(40, 0.04)).stationary()), 5e-5),
    ),
    "coarse grids in the plane": (
        "Pass rtol=1e-4 for a finer grid inside, or finer grids",
        lambda: warned(lambda: plane(NARROW, square(20)).stationary()),
        lambda: (
            near(spread(plane(NARROW, square(80, 0.5)).stationary()), 5e-3),
            near(spread(plane(NARROW, square(40, 0.7)).stationary(rtol=1e-4)), 5e-3),
        ),
    ),
    "an edge of the plane": (
        "the density at an edge of the grid is {} of its peak",
        lambda: plane(OU2, square(20, 1.0)).stationary(),
        lambda: (
            near(spread(plane().stationary()), 0.5),
            plane(OU2, square(20, 1.0), truncation_is_physical=True).stationary(),
        ),
    ),
    "a plane that no step carries": (
        "steps did not carry the density from t",
        lambda: _one_step(lambda: plane(TURNING).solve((0.0, 0.0), [0.0, 3.0])),
        lambda: plane(TURNING, square(40, 5.0)).solve((0.0, 0.0), [0.0, 0.2], rtol=1e-2),
    ),
}

WELL_GRIDS = (sg.Grid(-2.0, 2.0, 80), sg.Grid(-4.0, 4.0, 60))
ONE_WELL = (sg.Grid(0.5, 1.5, 60), sg.Grid(-3.0, 3.0, 40))


def _tiny_plane():
    sides = sg.Grid.sinh(-4.0, 4.0, 60, center=0.1, width=1e-3)
    return plane(OU2, (sides, sides))


def _one_step(call):
    """A call that may take one step."""
    with mock.patch("sdegen.fokker_planck.density2d.transient._MOST_STEPS", 1):
        return call()


def _simulated_spread():
    """The variance of the position, of 2000 particles."""
    x0, times = torch.zeros(2000, 2, dtype=F64), torch.linspace(0.0, 8.0, 161)
    return float(sg.simulate(_particle(0.0), x0, times, rng=0).final[:, 0].var())
