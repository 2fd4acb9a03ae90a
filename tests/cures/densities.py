"""Advice on densities on a line, followed: grids, walls, starts, sources and questions at rest."""

import itertools
import math
import warnings

import numpy as np
import torch
from scipy.linalg import expm

import sdegen as sg
from sdegen.fokker_planck.discretization.krylov import exponential_action
from sdegen.fokker_planck.questions.feller import classify_boundary
from sdegen.fokker_planck.questions.transient import Exponential
from tests.cures.common import (
    BM,
    BOX,
    CIR,
    F64,
    FLOW,
    GRID,
    OU,
    T,
    column,
    ensemble,
    fp,
    simulate,
    warned,
)

SURVIVED = 1 - math.exp(
    -2 / (math.e - 1)
)  # of dX = −X dt + √X dW from 1, at t = 1: its zero is exit
HALF_ROOT = sg.ItoProcess(lambda x: 0.5 - x, lambda x: x.clamp(min=0).sqrt())  # Gamma at rest
EXIT = sg.ItoProcess(lambda x: -x, lambda x: x.clamp(min=0).sqrt())
PUSHED = sg.ItoProcess(lambda x, t: -x + torch.sin(t), 1.0)
JUMP = sg.ItoProcess(lambda x: -x + 3 * (x > 0.1234567).to(x), 1.0)
SPEED = sg.ItoProcess(lambda x: torch.full_like(x, 1.0), 1e-5)
MEETING = sg.Absorbing(lambda t: t - 1.0, lambda t: 1.0 - t)


def near(value, expected, rtol=1e-3):
    """Assert that a number, or the last of several, is what it should be."""
    value = float(torch.as_tensor(value).detach().reshape(-1)[-1])
    assert abs(value - expected) <= rtol * max(abs(expected), 1e-3), (value, expected)


def carried(p0, times=(0.0, 1.0), sde=OU, grid=GRID, **options):
    """The last density of a run."""
    return fp(sde, grid).solve(p0, list(times), **options).final


def quietly(call):
    """What a call returns, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


FOLLOWED = {
    # --- grids
    "no grid": (
        r"grid must be a Grid, but is \{\}; pass Grid\(low, high, cells\), or Grid.of",
        lambda: fp(OU, GRID.nodes),
        lambda: (
            near(fp(OU, sg.Grid(-6.0, 6.0, 120)).stationary().variance, 0.5),
            near(fp(OU, sg.Grid.of(GRID.nodes)).stationary().variance, 0.5),
        ),
    ),
    "nodes that stand still": (
        "nodes must be finite and strictly increasing",
        lambda: sg.Grid.of(torch.tensor([0.0, 1.0, 1.0, 2.0, 3.0, 4.0], dtype=F64)),
        lambda: near(
            fp(OU, sg.Grid.of(torch.linspace(-6.0, 6.0, 121, dtype=F64))).stationary().std,
            0.5**0.5,
        ),
    ),
    "a point off the grid": (
        r"\{\} = \{\} lies outside of the grid \[\{\}, \{\}\]; move it",
        lambda: GRID.gaussian(7.0, 0.5),
        lambda: (
            near(GRID.gaussian(3.0, 0.5).mean, 3.0),
            near(sg.Grid(-6.0, 12.0, 180).gaussian(7.0, 0.5).mean, 7.0),
        ),
    ),
    "cells that do not see two narrow wells": (
        "do not resolve the stationary",
        lambda: sg.Grid.covering(FAR_WELLS, 50),
        lambda: [
            near(fp(FAR_WELLS, grid).stationary().expect(lambda x: x**2), FAR_SQUARE)
            for grid in (sg.Grid.covering(FAR_WELLS, 3000), sg.Grid.of(FAR_NODES))
        ],
    ),
    "covering from where nothing lives": (
        "drift and diffusion must be finite and D > 0 at x = {}; pass near=",
        lambda: sg.Grid.covering(SHIFTED),
        lambda: near(fp(SHIFTED, sg.Grid.covering(SHIFTED, near=6.0)).stationary().mean, 6.0),
    ),
    "covering what changes": (
        "a stationary density was to be covered, but drift or diffusion depend on time",
        lambda: sg.Grid.covering(PUSHED),
        lambda: (
            sg.Grid.covering(
                sg.ItoProcess(lambda x: PUSHED.drift(x, torch.tensor(0.0, dtype=F64)), 1.0)
            ),
            near(carried(0.0, sde=PUSHED).mean, 0.5 * (math.sin(1) - math.cos(1) + math.exp(-1))),
        ),
    ),
    "covering what does not fall": (
        "there is no stationary density to cover: towards {} x",
        lambda: sg.Grid.covering(BM),
        lambda: near(carried(0.0, sde=BM).variance, 1.0),
    ),
    "covering what changes between its looks": (
        "there is no stationary density to cover: where it could be followed",
        lambda: sg.Grid.covering(RIPPLED),
        lambda: near(fp(RIPPLED, sg.Grid(-6.0, 6.0, 400)).stationary().std, 0.5**0.5, 1e-2),
    ),
    # --- noise that ends
    "noise that ends inside": (
        r"D = g²/2 must be > 0 inside the grid, but is 0 at x",
        lambda: fp(HALF_ROOT, sg.Grid(-1.0, 8.0, 180)),
        lambda: near(fp(HALF_ROOT, sg.Grid(0.0, 8.0, 160)).stationary().mean, 0.5),
    ),
    "no noise at all": (
        "Without noise a density is carried along a flow: simulate it",
        lambda: fp(FLOW),
        lambda: near(simulate(FLOW, column(2.0), solver=sg.Heun(20)).final, 2 * math.exp(-1)),
    ),
    "a wall without noise that absorbs": (
        "a wall without noise cannot be",
        lambda: fp(CIR, sg.Grid(0.0, 16.0, 160), ("absorbing", "no-flux")),
        lambda: (
            near(fp(CIR, sg.Grid(0.0, 16.0, 160), "no-flux").stationary().mean, 0.5),
            fp(CIR, sg.Grid(0.1, 16.0, 160), ("absorbing", "no-flux")).first_passage(),
        ),
    ),
    "an exit": (
        "by Feller's classification the wall is an exit",
        lambda: fp(EXIT, sg.Grid(0.0, 12.0, 160)),
        lambda: near(
            fp(EXIT, NEAR_ZERO, ("absorbing", "no-flux"))
            .survival(1.0, [0.0, 0.5, 1.0])
            .probability,
            SURVIVED,
            2e-2,
        ),
    ),
    "an end that is a point like others": (
        "pass inward=1 for a lower end, inward=-1",
        lambda: classify_boundary(OU, 0.0),
        lambda: [_equal(classify_boundary(OU, 0.0, inward=side), "regular") for side in (1, -1)],
    ),
    # --- starts
    "a start that is none": (
        r"p0 must be a Density or a number, but is \{\}; pass grid.gaussian\(mean, std\), a start",
        lambda: carried(GRID.nodes),
        lambda: [
            near(carried(p0).mean, math.exp(-1))
            for p0 in (
                GRID.gaussian(1.0, 0.5),
                1.0,
                sg.Density(GRID.nodes, GRID.gaussian(1.0, 0.5).p),
            )
        ],
    ),
    "a start that cells do not show": (
        "Take more cells there, or look later",
        lambda: warned(lambda: carried(0.0, (0.0, 1e-7, 0.5))),
        lambda: (
            near(carried(0.0, (0.0, 0.5)).variance, 0.5 * (1 - math.exp(-1))),
            # a layer at a wall, where no later time helps
            fp(EXIT, NEAR_ZERO, ("absorbing", "no-flux")).solve(1.0, [0.0, 0.5]),
            near(
                carried(0.0, (0.0, 1e-7, 0.5), grid=FINE_AT_ZERO).variance,
                0.5 * (1 - math.exp(-1)),
            ),
        ),
    ),
    "an error that nobody estimated": (
        "the error of this density was not estimated; ask FokkerPlanck",
        lambda: GRID.gaussian(0.0, 1.0).error_of(lambda x: x**2),
        lambda: [_below(fp().stationary().error_of(lambda x: x**2), 1e-6)],
    ),
    "an error of another function": (
        "were estimated, and are in .error; for another, solve with all cells halved",
        lambda: carried(GRID.gaussian(1.0, 0.5)).error_of(torch.cos),
        lambda: (
            _below(float(carried(GRID.gaussian(1.0, 0.5)).error), 1e-3),
            near(_cos(120), _cos(240), 1e-4),
            near(_cos(240), COS),
        ),
    ),
    # --- times
    "a change that is as short as a look": (
        "what is as short elsewhere may be missed",
        lambda: warned(lambda: carried(0.0, (0.0, 21.0), sde=KICKED)),
        lambda: (
            near(carried(0.0, (0.0, 21.0), sde=KICKED, breakpoints=KICKS).mean, KICKED_MEAN),
            near(_in_parts(0.0, (0.0, 10.0, 10.5, 21.0)).mean, KICKED_MEAN),
        ),
    ),
    "a noise that grows in one step": (
        "the diffusion changes by more than a factor of 14",
        lambda: carried(
            sg.Grid(-60.0, 60.0, 600).gaussian(0, 1),
            (0.0, 1.5),
            sde=GROWING,
            grid=sg.Grid(-60.0, 60.0, 600),
            integrator=Exponential(1),
        ),
        lambda: [
            near(
                carried(WIDE.gaussian(0, 1), sde=GROWING, grid=WIDE, integrator=i).variance, GROWN
            )
            for i in (Exponential(40), Exponential())
        ],
    ),
    "a stiff matrix": (
        r"no step is short enough for e\^\(tA\)",
        lambda: exponential_action(STIFF, np.ones(40), 1.0, 1e-9),
        lambda: near(
            exponential_action(STIFF, np.ones(40), 1e-15, 1e-9).max(),
            expm(STIFF * 1e-15).sum(1).max(),
        ),
    ),
    # --- ends that move
    "moving ends that meet": (
        "the absorbing ends meet",
        lambda: fp(BM, sg.Grid(-1.0, 1.0, 100), MEETING).survival(0.0, [0.0, 0.5, 1.0]),
        lambda: fp(BM, sg.Grid(-1.0, 1.0, 100), MEETING).survival(0.0, [0.0, 0.25, 0.5]),
    ),
    "a moving end that leaves its grid": (
        "pass a grid that holds both ends at all times",
        lambda: fp(BM, sg.Grid(-1.0, 1.0, 100), LEAVING).survival(0.0, [0.0, 0.5, 1.0]),
        lambda: near(
            fp(BM, sg.Grid(-8.0, 2.0, 400), LEAVING).survival(0.0, [0.0, 0.5, 1.0]).probability,
            _under_a_line(1.0, 1.0, 1.0),
        ),
    ),
    "moving ends in a family": (
        "an absorbing end that moves is not built for families",
        lambda: sg.FokkerPlanckBatch([BM], sg.Grid(-1.0, 1.0, 100), MEETING),
        lambda: (
            sg.FokkerPlanckBatch([BM], sg.Grid(-1.0, 1.0, 100), sg.Absorbing(-1.0, 1.0)).solve(
                sg.Grid(-1.0, 1.0, 100).gaussian(0.0, 0.2), [0.0, 0.1]
            ),
            simulate(BM, column(0.0), T[:6], boundary=MEETING),
        ),
    ),
    "rest of ends that move": (
        "is not found between absorbing ends that move",
        lambda: fp(BM, sg.Grid(-1.0, 1.0, 100), MEETING).first_passage(),
        lambda: (
            fp(BM, sg.Grid(-1.0, 1.0, 100), MEETING).survival(0.0, [0.0, 0.5]),
            fp(BM, sg.Grid(-1.0, 1.0, 100), MEETING).solve(0.0, [0.0, 0.5]),
            near(
                fp(BM, sg.Grid(-1.0, 1.0, 100), sg.Absorbing(-1.0, 1.0))
                .first_passage()
                .at(0.0)
                .mean,
                1.0,
            ),
        ),
    ),
    # --- families
    "a family whose noise ends": (
        "vanishes at a wall; a family needs D > 0 everywhere",
        lambda: sg.FokkerPlanckBatch([HALF_ROOT], sg.Grid(0.0, 8.0, 160)),
        lambda: near(fp(HALF_ROOT, sg.Grid(0.0, 8.0, 160)).stationary().mean, 0.5),
    ),
    # --- sources
    "rest of what is killed": (
        "there is no stationary density: all mass is killed",
        lambda: fp(BM, killing=1.0).stationary(),
        lambda: (
            near(
                fp(BM, sg.Grid(-20.0, 20.0, 400), killing=1.0, injection=0.0)
                .stationary()
                .variance,
                1.0,
            ),
            fp(OU, killing=1.0, injection=GRID.gaussian(0.0, 1.0)).stationary(),
        ),
    ),
    "nothing to put back": (
        "injection= puts back what is lost, but nothing is",
        lambda: fp(OU, injection=0.0).stationary(),
        lambda: (
            fp(OU, injection=0.0, killing=1.0).stationary(),
            near(fp(BM, BOX, "absorbing", injection=0.5).stationary().mean, 0.5),
        ),
    ),
    "an injection that is none": (
        "injection must be a point x0 or a Density on the grid",
        lambda: fp(OU, killing=1.0, injection="0"),
        lambda: [
            fp(OU, killing=1.0, injection=q).stationary() for q in (0.0, GRID.gaussian(0.0, 1.0))
        ],
    ),
    "an injection on other nodes": (
        "injection lives on other nodes than the solver",
        lambda: fp(OU, killing=1.0, injection=BOX.gaussian(0.5, 0.1)),
        lambda: fp(OU, killing=1.0, injection=GRID.gaussian(0.5, 0.1)).stationary(),
    ),
    "questions beside sources": (
        "is not found with killing= or injection=",
        lambda: fp(BM, BOX, "absorbing", injection=0.3).first_passage(),
        lambda: (
            near(fp(BM, BOX, "absorbing").first_passage().at(0.3).mean, 0.21),
            fp(BM, BOX, "absorbing", injection=0.3).solve(0.3, [0.0, 0.2]),
            near(1 / _lost(fp(BM, BOX, "absorbing", injection=0.3)), 0.21, 1e-2),
        ),
    ),
    # --- leaving
    "a width of one moment": (
        "the standard deviation needs two moments",
        lambda: fp(BM, BOX, "absorbing").first_passage(moments=1).std,
        lambda: near(fp(BM, BOX, "absorbing").first_passage(moments=2).at(0.5).std, 24**-0.5),
    ),
    "a width that is lost": (
        "the standard deviation of the passage is lost in the rounding",
        lambda: fp(SPEED, BOX, "absorbing").first_passage().std,
        lambda: near(_simulated_width(), 1e-5 * 0.5**0.5, 0.1),
    ),
    "what is left after very long": (
        "the chance to be still inside at t = {} is lost",
        lambda: fp(BM, BOX, "absorbing").survival(0.5, [0.0, 1.0, 200.0]),
        lambda: near(
            fp(BM, BOX, "absorbing").survival(0.5, [0.0, 0.5, 1.0]).probability,
            4 / math.pi * math.exp(-(math.pi**2) / 2),
        ),
    ),
}


def _equal(value, expected):
    assert str(getattr(value, "name", value)) == expected, value


def _below(value, limit):
    assert value < limit


def _cos(cells):
    """E cos X at t = 1 of an Ornstein–Uhlenbeck process from N(1, ¼)."""
    grid = sg.Grid(-6.0, 6.0, cells)
    return float(fp(OU, grid).solve(grid.gaussian(1.0, 0.5), [0.0, 1.0]).final.expect(torch.cos))


COS = math.cos(math.exp(-1)) * math.exp(-0.5 * (0.25 * math.exp(-2) + 0.5 * (1 - math.exp(-2))))


def _simulated_width():
    """The standard deviation of the passage of SPEED from ½ to 1, from its survival."""
    times = torch.cat(
        [torch.zeros(1, dtype=F64), 0.5 + torch.linspace(-4e-5, 4e-5, 81, dtype=F64)]
    )
    found = ensemble(sg.FirstPassage(above=1.0), SPEED, times, trajectories=1000)
    passages = found.observables["first_passage"]
    share, at = -passages.survival.diff(), 0.5 * (times[1:] + times[:-1])
    return float((share @ (at - share @ at) ** 2).sqrt())


def _in_parts(p, times):
    """A density that is carried by KICKED, in a run of its own between every two times."""
    for part in itertools.pairwise(times):
        p = carried(p, part, sde=KICKED)
    return p


def _lost(solver):
    """What leaves through both walls per time, at rest."""
    current = solver.current(solver.stationary())
    return float(current[-1] - current[0])


def _under_a_line(height, slope, t):
    """The chance of a Brownian motion from 0 to stay below height + slope·t."""
    phi = torch.special.ndtr
    root = math.sqrt(t)
    up, down = (
        torch.tensor(v / root, dtype=F64) for v in (height + slope * t, slope * t - height)
    )
    return float(phi(up) - math.exp(-2 * height * slope) * phi(down))


# wells of curvature 8 at ±100 and a barrier of 10⁴ or more between them
FAR_WELLS = sg.ItoProcess(lambda x: -4 * x * (x**2 - 1e4) / 1e4, 0.5)
FAR_SQUARE = 1e4 + 0.5 * 0.25 / 8
FAR_NODES = torch.cat(
    [
        torch.linspace(-103, -97, 301, dtype=F64),
        torch.linspace(-97, 97, 400, dtype=F64)[1:-1],
        torch.linspace(97, 103, 301, dtype=F64),
    ]
)
SHIFTED = sg.ItoProcess(lambda x: 6.0 - x, lambda x: (x - 5).clamp(min=0).sqrt())
RIPPLED = sg.ItoProcess(lambda x: -x + 30 * torch.sin(3000 * x), 1.0)
FINE_AT_ZERO = sg.Grid.sinh(-6.0, 6.0, 400, width=1e-3)
APART = 21.0 / 2048  # of the looks at a run of 21
KICKS = [999.8 * APART, 1000.2 * APART]
KICKED = sg.ItoProcess(lambda x, t: -x + 250.0 * ((t > KICKS[0]) & (t < KICKS[1])).to(x), 1.0)
KICKED_MEAN = 250.0 * (math.exp(KICKS[1] - 21.0) - math.exp(KICKS[0] - 21.0))
GROWING = sg.ItoProcess(lambda x: -x, lambda x, t: torch.exp(2 * t) + 0 * x, noise="additive")
WIDE = sg.Grid(-40.0, 40.0, 400)
GROWN = math.exp(-2.0) * (1 + (math.exp(6.0) - 1) / 6)  # v' = −2v + e^{4t}
STIFF = 1e15 * (np.eye(40, k=1) - np.eye(40, k=-1))
LEAVING = sg.Absorbing(high=lambda t: 1.0 + t)
NEAR_ZERO = sg.Grid.sinh(1e-3, 12.0, 400, center=0.0, width=1e-2)
