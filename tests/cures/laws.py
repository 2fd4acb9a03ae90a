"""Advice on laws of chains, certificates, budgets and residuals, followed."""

import math
import warnings

import torch

import sdegen as sg
from sdegen.verification.chain import ChainDensity
from tests.cures.common import BM, BOX, CIR, F64, FLOW, GAUSS, GRID, OU, VP, T, column
from tests.cures.densities import near

FINE = sg.Grid(-6.0, 6.0, 300)
HALF = GRID.gaussian(0.0, 0.5**0.5)  # of OU at rest
MEAN = 0.9**10  # of OU after ten Euler steps of 0.1, from 1
TURN = sg.ItoProcess(lambda x: 10 * torch.cos(x), 0.0)
STIRRED = sg.KarrasHeun(churn=sg.Churn(amount=5.0))
EDM = sg.EDM()
EDM_FLOW = sg.ReverseSDE(EDM, sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(EDM).score, 0.0)
ROOT = sg.ItoProcess(lambda x: -x, lambda x: (x.clamp(min=0) + 0.1).sqrt())
NAN = sg.ItoProcess(lambda x: -x + 0 * (x + 1).log(), 1.0)
LEFT = 0.79  # of BM between the walls of BOX, about
TWO_TIMES = torch.tensor([0.0, 0.5, 1.0], dtype=F64)
KINK = lambda x, t: torch.where(x < 9, -x, torch.full_like(x, math.nan))  # noqa: E731


def law(p0, times=T, sde=OU, grid=FINE, **options):
    """The last density of a chain."""
    return ChainDensity(sde, grid, **options).run(p0, times).final


def certified(sde=OU, grid=FINE, p0=1.0, times=(0.0, 0.5, 1.0), **options):
    """A certificate, quickly made."""
    given = {"trajectories": 500, "rng": 0, "solver": sg.EulerMaruyama(20)} | options
    return sg.certify(sde, grid, p0, torch.tensor(times, dtype=F64), **given)


def passes(found):
    """Assert that a certificate has no complaint."""
    assert all(check.verdict != "failed" for check in found.checks), found.summary


def complains(found):
    """Raise the summary of a certificate, which is the message."""
    raise ValueError(found.summary)


def budget(score=None, times=None, **options):
    """An error budget of the sampler of a Gaussian."""
    times = VP.time_grid(10) if times is None else times
    return sg.error_budget(VP, GAUSS, score or GAUSS.score, WIDE, times, **options)


def path(grid=FINE, times=TWO_TIMES, **options):
    """A path of OU from 1."""
    return sg.simulate(OU, column(1.0, 500), times, rng=0, solver=sg.EulerMaruyama(20), **options)


WIDE = sg.Grid(-8.0, 8.0, 400)

FOLLOWED = {
    # --- chains
    "a chain of an adaptive solver": (
        "the law of a chain needs a solver with fixed steps",
        lambda: ChainDensity(OU, FINE, sg.TorchDiffEq()),
        lambda: near(law(1.0, [0.0, 1.0], solver=sg.EulerMaruyama(10)).mean, MEAN),
    ),
    "a chain on uneven nodes": (
        "the law of a chain needs uniform nodes",
        lambda: ChainDensity(OU, sg.Grid.sinh(-6.0, 6.0, 100, width=1.0)),
        lambda: near(law(1.0, grid=sg.Grid(-6.0, 6.0, 300)).mean, MEAN),
    ),
    "a chain with one wall": (
        "the law of a chain between walls needs a fixed one at each end",
        lambda: ChainDensity(BM, BOX, boundary=sg.Reflecting(low=0.0)),
        lambda: near(law(0.5, sde=BM, grid=BOX, boundary=sg.Reflecting(0.0, 1.0)).mean, 0.5),
    ),
    "a chain at a wall without noise": (
        "the noise vanishes at a reflecting wall",
        lambda: ChainDensity(CIR, sg.Grid(0.0, 6.0, 200), boundary="no-flux"),
        lambda: (
            ChainDensity(CIR, sg.Grid(0.1, 6.0, 200), boundary="no-flux"),
            near(sg.FokkerPlanck(CIR, sg.Grid(0.0, 16.0, 160)).stationary().mean, 0.5),
        ),
    ),
    "walls of steps of two parts": (
        "the law between walls is built for steps of one part",
        lambda: ChainDensity(EDM_FLOW, GRID, STIRRED, boundary="no-flux"),
        lambda: (
            ChainDensity(EDM_FLOW, GRID, STIRRED),
            ChainDensity(OU, GRID, sg.EulerMaruyama(), boundary="no-flux"),
        ),
    ),
    "walls of steps without noise": (
        "the law between walls is built for steps with noise, and there is none",
        lambda: law(HALF, sde=FLOW, grid=GRID, boundary="no-flux"),
        lambda: near(law(HALF, sde=FLOW, grid=GRID).std, 0.5**0.5 * MEAN),
    ),
    "a point without noise": (
        "there is no noise, so that a start at a point stays a point; pass a density",
        lambda: law(1.0, sde=FLOW),
        lambda: near(law(FINE.gaussian(1.0, 0.5), sde=FLOW).mean, MEAN),
    ),
    "a chain's start that is none": (
        r"p0 must be a Density or a number, but is \{\}; pass grid.gaussian\(mean, std\), Density",
        lambda: law("here"),
        lambda: [
            near(law(p0).mean, MEAN)
            for p0 in (
                FINE.gaussian(1.0, 0.2),
                sg.Density(FINE.nodes, FINE.gaussian(1.0, 0.2).p),
                1.0,
            )
        ],
    ),
    "a chain's start on other nodes": (
        r"p0 lives on \{\} nodes from \{\} to \{\}, the chain on",
        lambda: law(BOX.gaussian(0.5, 0.1)),
        lambda: near(law(FINE.gaussian(0.5, 0.1)).mean, 0.5 * MEAN),
    ),
    "a chain's drift that does not exist": (
        "choose a grid on which the drift",
        lambda: law(NEAR_ZERO, sde=NAN, grid=FINE),
        lambda: law(
            sg.Grid(-0.9, 9.0, 300).gaussian(4.0, 0.3), [0.0, 0.1], NAN, sg.Grid(-0.9, 9.0, 300)
        ),
    ),
    "a chain's score that does not exist": (
        "is not finite; choose a grid on which it exists",
        lambda: law(
            sg.Grid(-12, 12, 400).gaussian(0.0, 1.4),
            [0.9, 0.6, 0.5],
            sg.ReverseSDE(VP, KINK, 0.0),
            sg.Grid(-12, 12, 400),
            solver=sg.ExponentialAdams(2),
        ),
        lambda: law(
            sg.Grid(-8, 8, 400).gaussian(0.0, 1.0),
            [0.9, 0.6, 0.5],
            sg.ReverseSDE(VP, KINK, 0.0),
            sg.Grid(-8, 8, 400),
            solver=sg.ExponentialAdams(2),
        ),
    ),
    "a chain on a short grid": (
        "the grid cuts it, and what leaves is lost. Widen",
        lambda: law(0.0, TWO_TIMES, grid=sg.Grid(-1.5, 1.5, 200)),
        lambda: near(law(0.0, TWO_TIMES, grid=sg.Grid(-6.0, 6.0, 400)).variance, 0.5 + 0.125),
    ),
    "stirred noise on a short grid": (
        "with the noise that is stirred in",
        lambda: law(_start(6.0), STIR_TIMES, EDM_FLOW, sg.Grid(-6, 6, 400), solver=STIRRED),
        lambda: law(_start(60.0), STIR_TIMES, EDM_FLOW, sg.Grid(-60, 60, 1200), solver=STIRRED),
    ),
    "a narrow start of a chain": (
        r"the grid is too coarse: between nodes \{\} apart",
        lambda: law(GRID.gaussian(0.0, 0.06), grid=GRID),
        lambda: near(
            law(sg.Grid(-6, 6, 1200).gaussian(0.0, 0.06), grid=sg.Grid(-6, 6, 1200)).mean, 0.0
        ),
    ),
    "narrow noise of a chain": (
        "is too narrow for nodes {} apart",
        lambda: law(GRID.gaussian(1.0, 1.0), [0.0, 1e-9], grid=GRID),
        lambda: (
            near(law(GRID.gaussian(1.0, 0.5), [0.0, 1e-2], grid=GRID).mean, 0.99),
            law(THIN.gaussian(0.0, 0.012), [0.0, 1e-9], grid=THIN),
        ),
    ),
    "a step that folds the line": (
        "without noise it folds the line over itself",
        lambda: law(FINE.gaussian(0.0, 1.0), [0.0, 1.0], TURN),
        lambda: law(FINE.gaussian(0.0, 0.5), [0.0, 0.02, 0.04], TURN),
    ),
    # --- what is believed
    "a belief of twice the mass": (
        "density must have mass 1, but has {} {}; divide it by its",
        lambda: certified(density=sg.Density(FINE.nodes, 2 * REST.p)),
        lambda: passes(
            certified(
                p0=REST,
                density=sg.Density(
                    FINE.nodes, 2 * REST.p / sg.Density(FINE.nodes, 2 * REST.p).mass
                ),
            )
        ),
    ),
    "a potential that is none": (
        "potential must have an energy U",
        lambda: certified(potential=3.0),
        lambda: passes(
            certified(WELL, p0=_well_rest(), potential=sg.DoubleWell(), temperature=0.5)
        ),
    ),
    "a path and what made it": (
        "give simulated, or the path that came of it",
        lambda: certified(path=path(), simulated=OU),
        lambda: (passes(certified(path=path())), passes(certified(simulated=OU))),
    ),
    "a path at other times": (
        "pass times=path.times",
        lambda: certified(path=path(times=[0.0, 1.0])),
        lambda: passes(certified(path=path(), times=path().times.tolist())),
    ),
    "a belief behind an absorbing wall": (
        "behind an absorbing wall the law has less",
        lambda: certified(BM, BOX, 0.5, (0.0, 0.05), boundary="absorbing", density=BOX_LAW),
        lambda: (
            passes(certified(BM, BOX, 0.5, (0.0, 0.05), boundary="absorbing")),
            passes(certified(BM, BOX, 0.5, (0.0, 0.6), boundary="no-flux", density=BOX_LAW)),
        ),
    ),
    "a path that leaves its walls": (
        "simulate it with boundary=|leave the boundary out",
        lambda: certified(path=path(), grid=sg.Grid(0.0, 2.0, 200), boundary="no-flux"),
        lambda: (
            passes(certified(path=path())),
            passes(
                certified(
                    path=path(boundary=sg.Reflecting(0.0, 2.0)),
                    grid=sg.Grid(0.0, 2.0, 200),
                    boundary="no-flux",
                )
            ),
        ),
    ),
    "a certificate that has not settled": (
        "the SDE has not settled yet: its relaxation",
        lambda: complains(certified(potential=lambda x: x[:, 0] ** 2 / 2, temperature=0.5)),
        lambda: passes(
            certified(
                times=(0.0, 4.0, 8.0),
                solver=sg.EulerMaruyama(400),
                potential=lambda x: x[:, 0] ** 2 / 2,
                temperature=0.5,
            )
        ),
    ),
    "a certificate on a short grid": (
        r"is too small: widen it towards \{\} x",
        lambda: complains(certified(grid=sg.Grid(-1.0, 2.0, 150))),
        lambda: (
            passes(certified()),
            passes(certified(grid=sg.Grid(-1.0, 2.0, 150), boundary="no-flux")),
        ),
    ),
    "a certificate on few cells": (
        "cells is too coarse for the density: take more",
        lambda: complains(_quiet(lambda: certified(OU, sg.Grid(-6, 6, 16), _wide(16)))),
        lambda: passes(certified(OU, sg.Grid(-6, 6, 300), _wide(300))),
    ),
    "a certificate of long steps": (
        "The step is too long: with dt",
        lambda: complains(_quiet(lambda: certified(solver=sg.EulerMaruyama(1)))),
        lambda: passes(certified(solver=sg.EulerMaruyama(20))),
    ),
    "a certificate of what explodes": (
        "trajectories became NaN or infinite: take a shorter step",
        lambda: complains(
            _quiet(lambda: certified(STEEP, STEEP_GRID, 2.9, solver=sg.EulerMaruyama(4)))
        ),
        lambda: passes(certified(STEEP, STEEP_GRID, 1.0, solver=sg.EulerMaruyama(200))),
    ),
    # --- budgets and residuals
    "no runs": (
        "runs is empty; pass a list of times",
        lambda: sg.error_budgets(VP, GAUSS, GAUSS.score, WIDE, []),
        lambda: sg.error_budgets(VP, GAUSS, GAUSS.score, WIDE, [VP.time_grid(10)]),
    ),
    "a law of nothing": (
        "law must know the noised data",
        lambda: sg.error_budget(VP, GAUSS.score, GAUSS.score, WIDE, VP.time_grid(10)),
        lambda: near(budget().parts[2].total_variation, 0.0),
    ),
    "a score in float32": (
        "pass one in float64, or a method of a",
        lambda: budget(lambda x, t: MODEL.score(x, t)),
        lambda: (near(budget(GAUSS.score).parts[2].total_variation, 0.0), budget(MODEL.score)),
    ),
    "a sampler of another score": (
        "sampler must use the score that is judged",
        lambda: budget(times=CHAIN_TIMES, sampler=CHAIN.reverse(lambda x, t: -x)),
        lambda: near(
            budget(times=CHAIN_TIMES, sampler=CHAIN.reverse(GAUSS_SCORE), score=GAUSS_SCORE)
            .parts[2]
            .total_variation,
            0.0,
        ),
    ),
    "a score without noise to judge it by": (
        "a score is judged on data that are noised by a Gaussian kernel",
        lambda: sg.score_residuals(BM_WELL, GAUSS.score, ROWS),
        lambda: passes(sg.score_residuals(VP, GAUSS.score, ROWS, levels=2, rng=0)),
    ),
    "a score judged without times": (
        "is asked: pass times=, or the score of a model.",
        lambda: sg.score_residuals(OU, OU_SCORE, ROWS),
        lambda: passes(sg.score_residuals(OU, OU_SCORE, ROWS, times=[0.2, 0.5], rng=0)),
    ),
    "a residual without a graph": (
        "x and t that it is given, not under no_grad",
        lambda: sg.fp_residual(lambda x, t: torch.zeros_like(x), VP, POINTS, 0.5),
        lambda: [
            near(sg.fp_residual(score, VP, POINTS, 0.5).abs().max(), 0.0, 1e-6)
            for score in (lambda x, t: 0 * x + 0 * t.reshape(-1, 1), GAUSS.score)
        ],
    ),
    "a residual without time": (
        "compute it from the tensor t that it is",
        lambda: sg.fp_residual(lambda x, t: GAUSS.score(x, t.detach()), VP, POINTS, 0.5),
        lambda: near(sg.fp_residual(GAUSS.score, VP, POINTS, 0.5).abs().max(), 0.0, 1e-6),
    ),
}

GAUSS_SCORE = GAUSS.score
ROWS = GAUSS.mixture.sample(200, rng=0, dtype=F64)
OU_SCORE = GAUSS.mixture.noised(OU).score
BM_WELL = sg.Langevin(sg.DoubleWell(), 1.0)
POINTS = torch.linspace(-1.0, 1.0, 5, dtype=F64)[:, None]
CHAIN = sg.DDPM.discretize(VP, steps=10)
CHAIN_TIMES = torch.arange(10.0, -1.0, -1.0)


class Learned(torch.nn.Module):
    """A score that computes in the precision of its parameter."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1))

    def score(self, x, t):
        return (self.one * GAUSS.score(x.to(self.one), t.to(self.one))).to(x)


MODEL = Learned()
REST = FINE.gaussian(0.0, 0.5**0.5)
BOX_LAW = sg.Density(BOX.nodes, torch.ones_like(BOX.nodes))
NEAR_ZERO = FINE.gaussian(0.0, 1.0)
THIN = sg.Grid(-0.1, 0.1, 4000)
STIR_TIMES = [3.0, 1.0, 0.5]
WELL = sg.Langevin(sg.DoubleWell(), temperature=0.5)
STEEP = sg.ItoProcess(lambda x: -(x**5), 1.0)
STEEP_GRID = sg.Grid(-3.0, 3.0, 300)


def _start(half):
    cells = 400 if half < 10 else 1200
    return sg.Grid(-half, half, cells).gaussian(0.0, 1.0 if half < 10 else 3.0)


def _wide(cells):
    return sg.Grid(-6.0, 6.0, cells).gaussian(1.0, 0.6)


def _well_rest():
    grid = sg.FokkerPlanck(WELL, FINE)
    return grid.stationary()


def _quiet(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()
