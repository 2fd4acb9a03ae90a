"""Advice on errors of densities on a line, of modes and of passages, followed."""

import math
from unittest import mock

import torch

import sdegen as sg
from sdegen.fokker_planck.questions.transient import Exponential
from tests.cures.common import BM, BOX, F64, GRID, OU, TIMED, fp, warned
from tests.cures.densities import _below, carried, near, quietly

LEFT_OPEN = ("no-flux", "absorbing")
JUMP = 0.123
BENT = sg.ItoProcess(lambda x: -x + 3 * (x > JUMP).to(x), 1.0)
CUSP = sg.ItoProcess(lambda x: torch.where(x < JUMP, 3.0, -3.0), 1.0)
STEEP = sg.ItoProcess(lambda x: torch.where(x < JUMP, 30.0, -30.0), 1.0)
SAW = sg.ItoProcess(lambda x: torch.where((x % 1.0) < 0.3, 4.0, -1.0), 1.0)
TALL = sg.ItoProcess(lambda x: torch.where((x % 1.0) < 0.3, 400.0, -100.0), 1.0)
DEEP = sg.Langevin(sg.DoubleWell(), temperature=2.5e-4)  # a barrier of 1,000 kT


def ring(sde, cells):
    """A ring of length 1."""
    return fp(sde, sg.Grid(0.0, 1.0, cells), "periodic")


def at_jump(low, high, cells):
    """A grid with a node where the drift jumps."""
    parts = [
        torch.linspace(a, b, cells // 2 + 1, dtype=F64) for a, b in ((low, JUMP), (JUMP, high))
    ]
    return sg.Grid.of(torch.cat([parts[0], parts[1][1:]]))


def _cusp_std(force):
    """The standard deviation of e^{−2F|x − x0|}, whose variance is 1/(2F²)."""
    return 1 / (force * math.sqrt(2))


def _few_exponentials(call):
    """Likewise, of a density that is put back."""
    with mock.patch("sdegen.fokker_planck.questions.sources._MOST_PIECES", 20):
        return call()


FOLLOWED = {
    # --- what is refined inside as far as it goes
    "drift around a ring that jumps": (
        "^Pass a grid with nodes where drift|the transport: .* Pass a grid with nodes where drift",
        lambda: warned(lambda: ring(TALL, 33).transport()),
        lambda: near(ring(TALL, 40).transport().error["velocity"], 0.0, 1e-6),
    ),
    "a tolerance beyond a jump": (
        "was not found to {} on {} cells",
        lambda: fp(CUSP, sg.Grid(-5.0, 1.0, 60), LEFT_OPEN).first_passage(rtol=1e-10),
        lambda: fp(CUSP, at_jump(-5.0, 1.0, 240), LEFT_OPEN).first_passage(rtol=1e-10),
    ),
    "a spectrum beyond a jump": (
        "where drift or diffusion change abruptly",
        lambda: fp(BENT, sg.Grid(-4.0, 7.0, 101)).spectrum(2, rtol=1e-9),
        lambda: near(
            fp(BENT, at_jump(-4.0, 7.0, 100)).spectrum(2, rtol=1e-9).rates,
            fp(BENT, sg.Grid(-4.0, 7.0, 101)).spectrum(2, rtol=1e-3).rates[-1],
        ),
    ),
    "turning modes beyond a jump": (
        "Pass a larger rtol, or a grid with nodes where",
        lambda: ring(SAW, 33).turning_spectrum(3, rtol=1e-7),
        lambda: (
            ring(SAW, 33).turning_spectrum(3, rtol=1e-3),
            ring(SAW, 40).turning_spectrum(3, rtol=1e-7),
        ),
    ),
    "moments above the largest number": (
        r"Ask for the first \{\} of them: moments=\{\}",
        lambda: _over(500.0).first_passage(),
        lambda: near(_over(500.0).first_passage(moments=1).mean.max().log(), 500.0, 2e-2),
    ),
    "modes behind walls that nothing crosses": (
        "barriers of more than 600 kT are never crossed",
        lambda: fp(DEEP, sg.Grid(-1.5, 1.5, 400)).spectrum(2),
        lambda: near(
            fp(DEEP, sg.Grid(0.0, 1.5, 400), truncation_is_physical=True).spectrum(2).rates,
            2.0,
            2e-3,
        ),
    ),
    "modes that coarse cells do not tell apart": (
        "does not tell apart. Take more cells, or fewer modes",
        lambda: fp(SHARP, sg.Grid(-4.0, 4.0, 80)).spectrum(2),
        lambda: near(fp(SHARP, sg.Grid(-4.0, 4.0, 400)).spectrum(2).rates, 450.33),
    ),
    # --- survival
    "a survival on few cells": (
        "Pass rtol=, or more cells",
        lambda: warned(lambda: fp(OFF, sg.Grid(0.0, 1.0, 12), "absorbing").survival(0.5, EARLY)),
        lambda: [
            near(found.probability, _left(EARLY[-1]), 1e-3)
            for found in (
                fp(OFF, sg.Grid(0.0, 1.0, 12), "absorbing").survival(0.5, EARLY, rtol=1e-4),
                fp(OFF, sg.Grid(0.0, 1.0, 96), "absorbing").survival(0.5, EARLY),
            )
        ],
    ),
    "a survival at once": (
        "the survival was not found to rtol",
        lambda: quietly(lambda: fp(BM, BOX, "absorbing").survival(0.5, [0, 1e-4, 1], rtol=1e-8)),
        lambda: (
            fp(BM, BOX, "absorbing").survival(0.5, [0.0, 0.2, 1.0], rtol=1e-6),
            quietly(lambda: fp(BM, BOX, "absorbing").survival(0.5, [0.0, 1e-4, 1.0], rtol=1e-2)),
            fp(CUSP, at_jump(-5.0, 1.0, 400), LEFT_OPEN).survival(0.0, [0.0, 1.0], rtol=1e-4),
        ),
    ),
    "a rate of passages that is lost": (
        "the density of first passages at t = {} is lost in rounding",
        lambda: fp(SHAKEN, TO_TOP, LEFT_OPEN).survival(-1.0, [0.0, 1.0, 2.0]),
        lambda: near(
            fp(FROZEN, TO_TOP, LEFT_OPEN).survival(-1.0, [0.0, 1.0, 2.0]).density
            * fp(FROZEN, TO_TOP, LEFT_OPEN).first_passage().at(-1.0).mean,
            1.0,
            1e-2,
        ),
    ),
    # --- densities at rest and in time
    "a density at rest that ripples": (
        "the stationary density.*Pass a grid with more cells where it is steep",
        lambda: warned(lambda: fp(RIPPLE).stationary(rtol=1e-9)),
        lambda: (
            _below(float(fp(RIPPLE, sg.Grid(-6.0, 6.0, 9000)).stationary(rtol=1e-9).error), 1e-9),
        ),
    ),
    "jumps that cells do not see": (
        "the cells are too coarse for the stationary density",
        lambda: fp(TEETH, TWENTY, truncation_is_physical=True).stationary(),
        lambda: near(fp(TEETH, TEETH_GRID, truncation_is_physical=True).stationary().mass, 1.0),
    ),
    "jumps that cells do not see in a current": (
        "the cells are too coarse for the current",
        lambda: fp(COMB, TWENTY, truncation_is_physical=True).current(TWENTY.gaussian(0.5, 0.1)),
        lambda: fp(COMB, COMB_GRID, truncation_is_physical=True).current(
            COMB_GRID.gaussian(0.5, 0.1)
        ),
    ),
    "an error of steps that no step has": (
        "is short enough for an error below",
        lambda: carried(START, sde=TIMED, integrator=Exponential(tolerance=1e-30)),
        lambda: [
            near(carried(START, sde=TIMED, integrator=integrator).mean, TIMED_MEAN)
            for integrator in (Exponential(substeps=20), Exponential(tolerance=1e-6))
        ],
    ),
    "a kink that no cell holds": (
        "on the finest cells that can be afforded",
        lambda: carried(COARSE.gaussian(0.0, 0.5), (0.0, 0.01, 0.02), KINKED, COARSE),
        lambda: near(
            carried(GRADED.gaussian(0.0, 0.5), (0.0, 0.01, 0.02), KINKED, GRADED).mean, JUMP, 2e-2
        ),
    ),
    "few steps by number": (
        "Take more substeps, or steps that choose their length",
        lambda: warned(lambda: carried(START, integrator=sg.BackwardEuler(5))),
        lambda: (
            near(carried(START, integrator=None).mean, math.exp(-1)),
            near(carried(START, integrator=sg.BackwardEuler(4000)).mean, math.exp(-1), 2e-3),
        ),
    ),
    "a density in time over a jump": (
        "Pass a grid with more cells where the density is steep: Grid",
        lambda: warned(lambda: carried(START, sde=CUSP, rtol=1e-7)),
        lambda: carried(
            at_jump(-6.0, 6.0, 120).gaussian(1.0, 0.5),
            sde=CUSP,
            grid=at_jump(-6.0, 6.0, 120),
            rtol=1e-5,
        ),
    ),
    "a cost on few cells": (
        "Pass a grid with more cells where the density is steep, or a density that is smoother",
        lambda: warned(lambda: _cost(20)),
        lambda: near(_cost(200), 3.445),
    ),
    "what comes back too fast": (
        r"Ask stationary\(\) for what it comes to",
        lambda: _few_exponentials(
            lambda: fp(OU, killing=1e14, injection=0.0).solve(0.0, [0.0, 1.0])
        ),
        lambda: (
            quietly(lambda: fp(OU, killing=1e14, injection=0.0).solve(0.0, [0.0, 1e-8])),
            near(fp(OU, killing=1e14, injection=0.0).stationary().mean, 0.0),
        ),
    ),
    "two coordinates on a line": (
        "Project the dynamics on one coordinate; for two there is|project the dynamics on one",
        lambda: fp(sg.ItoProcess(lambda x: -x @ torch.eye(2, dtype=x.dtype), 1.0)),
        lambda: near(fp(sg.ItoProcess(lambda x: -x, 1.0)).stationary().variance, 0.5),
    ),
}

SHARP = sg.ItoProcess(lambda x: torch.where(x < 0.05, 30.0, -30.0), 1.0)
SHAKEN = sg.ItoProcess(lambda x, t: 25 * (x - x**3) * (1 + 0.1 * torch.sin(t)), 0.5)
FROZEN = sg.ItoProcess(lambda x: 25 * (x - x**3), 0.5)
TO_TOP = sg.Grid(-2.0, 1.0, 150)
TWENTY = sg.Grid(0.0, 1.0, 20)
TEETH = sg.ItoProcess(lambda x: 1e5 * torch.sign(torch.sin(300 * x)), 1.0)
COMB = sg.ItoProcess(lambda x: 1e4 * torch.sign(torch.sin(1000 * x)), 1.0)
TIMED_MEAN = math.exp(-1) + (math.cos(6) + 6 * math.sin(6) - math.exp(-1)) / 37


def _with_jumps(wave):
    """Nodes of TWENTY, and those where sin(k x) changes its sign."""
    jumps = torch.arange(1, int(wave / math.pi) + 1, dtype=F64) * math.pi / wave
    return sg.Grid.of(torch.cat([TWENTY.nodes, jumps]).unique())


TEETH_GRID, COMB_GRID = _with_jumps(300.0), _with_jumps(1000.0)
KINKED = sg.ItoProcess(lambda x: torch.where(x < JUMP, 300.0, -300.0), 1.0)
COARSE = sg.Grid(-6.0, 6.0, 24)
_AWAY = torch.logspace(-5, math.log10(6.0), 300, dtype=F64)
GRADED = sg.Grid.of(torch.cat([JUMP - _AWAY.flip(0), torch.tensor([JUMP]), JUMP + _AWAY]))
START = GRID.gaussian(1.0, 0.5)
OFF = sg.BrownianMotion(1.0)
EARLY = [0.0, 0.05, 0.2]
RIPPLE = sg.ItoProcess(lambda x: -x, lambda x: 1 + 0.5 * torch.sin(200 * x * x))


def _left(t):
    """The chance of a Brownian motion from the middle of a box of length 1 to be in it."""
    return sum(
        4 / math.pi * (-1) ** k / (2 * k + 1) * math.exp(-0.5 * ((2 * k + 1) * math.pi) ** 2 * t)
        for k in range(20)
    )


def _cost(cells):
    """σ of N(1, 0.4²) in OU, where J/p = −x + (x − 1)/(2·0.16): 3.445."""
    grid = sg.Grid(-6.0, 6.0, cells)
    return fp(OU, grid).entropy_production(grid.gaussian(1.0, 0.4))


def _over(height):
    """The escape over a barrier, in kT."""
    sde = sg.ItoProcess(lambda x: x - x**3, math.sqrt(0.5 / height))
    return fp(sde, sg.Grid(-1.5, 1.0, 400), LEFT_OPEN)
