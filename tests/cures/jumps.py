"""Advice on jumps, followed."""

import math

import torch
from scipy import stats
from torch.distributions import Gamma, Laplace, Normal

import sdegen as sg
from tests.cures.common import BM, CIR, F64, OU, column, near

STILL = sg.ItoProcess(lambda x: torch.zeros_like(x), 0.0)
JUMPS = sg.CompoundPoisson(2.0, Normal(torch.tensor(0.0, dtype=F64), 0.5))
MERTON = sg.JumpDiffusion(BM, JUMPS)
FAR = sg.JumpDiffusion(STILL, sg.AlphaStable(0.1))
MANY = torch.zeros(2000, 1, dtype=F64)
TIMES = torch.linspace(0, 1, 5, dtype=F64)
CLIPPED = sg.CompoundPoisson(lambda x: x[:, 0].abs().clamp(max=2.0), 1.0, bound=2.0)


def run(sde, **options):
    return sg.simulate(sde, MANY, TIMES, rng=0, **options)


def counted(jumps, mean, sde=STILL, x0=0.0):
    """Jumps of size 1 are counted: their mean within five standard errors."""
    x = sg.simulate(sg.JumpDiffusion(sde, jumps), MANY + x0, TIMES, rng=0).final - x0
    assert abs(float(x.mean()) - mean) < 5 * float(x.std()) / math.sqrt(len(x)) + 1e-12


def spreads(sde=MERTON, **options):
    """Var = (σ² + λE Y²) t, within five of its standard errors or so."""
    near(run(sde, **options).final.var(), float(BM.constant_noise) ** 2 + 0.5, 0.15)


def meets_the_same_jumps():
    flow = sg.JumpDiffusion(sg.ItoProcess(lambda x: -x, 0.0), JUMPS)
    one, two = (
        run(flow, solver=sg.JumpAdapted(sg.Heun(substeps=n)), keep_path=False).final
        for n in (20, 40)
    )
    near(one, two, 1e-3)


def passes():
    waits = sg.FirstPassage(above=0.5, bridge=False)
    result = sg.run_ensemble(
        MERTON, column(0.0, 1), TIMES, trajectories=200, observables=[waits], progress=False, rng=0
    )
    assert result.observables


LAPLACE = sg.CompoundPoisson(1.0, Laplace(torch.tensor(0.0, dtype=F64), 0.5))
LINE = sg.JumpDiffusion(OU, LAPLACE)
WIDE = sg.Grid(-10.0, 10.0, 100)


def at_rest(sde=LINE, grid=WIDE, *options):
    return sg.FokkerPlanck(sde, grid, *options).stationary()


def has_the_variance_of_ou():
    """Var = (σ² + λ E s²)/2 of OU with jumps of s, E s² = 2 b²."""
    near(at_rest().variance, 0.5 * (1 + 2 * 0.25), 1e-3)


def inside():
    """Jumps towards 0 stay between reflecting walls."""
    inward = sg.JumpDiffusion(OU, sg.CompoundPoisson(1.0, lambda x, u: -x * u))
    grid = sg.Grid(-1.0, 1.0, 60)
    near(sg.FokkerPlanck(inward, grid, truncation_is_physical=True).stationary().mean + 1, 1.0)


def reset():
    """Injection as a jump is killing and injection."""
    back = sg.JumpDiffusion(BM, sg.CompoundPoisson(2.0, lambda x, u: 0.0 - x))
    near(at_rest(back).variance, 0.5, 5e-3)  # σ²/λ


def average():
    """The mean of a line from 1 is e^{−1}, whatever its symmetric jumps."""
    found = sg.run_ensemble(
        LINE, column(1.0, 1), [0.0, 1.0], trajectories=2000, observables=[sg.Moments()],
        solver=sg.JumpAdapted(sg.Heun(20)), progress=False, rng=0,
    )  # fmt: skip
    near(found.observables["moments"].mean[-1], math.exp(-1), 0.15)


def by_hand(noise):
    solver = sg.JumpAdapted()
    memory = solver.begin(MERTON, TIMES)
    for _ in sg.integrate(MERTON, solver, MANY, TIMES, noise, memory=memory):
        pass


FOLLOWED = {
    "a density of an α-stable motion": (
        "which has a fractional derivative",
        lambda: at_rest(sg.JumpDiffusion(OU, sg.AlphaStable(1.5))),
        lambda: run(sg.JumpDiffusion(OU, sg.AlphaStable(1.5))),
    ),
    "a density of jumps that depend on time": (
        "FokkerPlanck takes jumps that do not depend on time",
        lambda: at_rest(
            sg.JumpDiffusion(OU, sg.CompoundPoisson(lambda t: 1 + 0 * t, 1.0, bound=2.0))
        ),
        has_the_variance_of_ou,
    ),
    "a density of jumps on a ring": (
        "boundary='periodic' is not built for jumps",
        lambda: at_rest(sg.JumpDiffusion(BM, LAPLACE), WIDE, "periodic"),
        lambda: near(at_rest(LINE, WIDE, "no-flux").mean + 1, 1.0),
    ),
    "a density of jumps beside a wall without noise": (
        "jumps are not built beside a wall without noise",
        lambda: at_rest(sg.JumpDiffusion(CIR, LAPLACE), sg.Grid(0.0, 6.0, 60)),
        has_the_variance_of_ou,
    ),
    "jumps beyond a wall": (
        "jumps go beyond the reflecting wall",
        lambda: sg.FokkerPlanck(LINE, WIDE, truncation_is_physical=True).stationary(),
        inside,
    ),
    "jumps beyond the grid": (
        "and are put at its ends: widen it",
        lambda: at_rest(LINE, sg.Grid(-2.0, 2.0, 60)),
        has_the_variance_of_ou,
    ),
    "jumps and killing": (
        "killing= and injection= are not built for dynamics that jump",
        lambda: sg.FokkerPlanck(LINE, WIDE, killing=2.0, injection=0.0),
        reset,
    ),
    "a gradient of a density at rest with jumps": (
        "with jumps has no gradients",
        lambda: sg.FokkerPlanck(LINE, WIDE).stationary(differentiable=True),
        has_the_variance_of_ou,
    ),
    "what is not asked of jumps": (
        "is not found for dynamics that jump",
        lambda: sg.FokkerPlanck(LINE, WIDE).spectrum(),
        has_the_variance_of_ou,
    ),
    "a rate without a bound": (
        "needs a bound that it never exceeds",
        lambda: sg.CompoundPoisson(lambda x: x[:, 0], 1.0),
        lambda: counted(sg.CompoundPoisson(lambda t: 2 * t, 1.0, bound=2.0), 1.0),
    ),
    "a number with a bound": (
        "bound= goes with a rate that is a function",
        lambda: sg.CompoundPoisson(2.0, 1.0, bound=3.0),
        lambda: counted(sg.CompoundPoisson(2.0, 1.0), 2.0),
    ),
    "a rate of another shape": (
        "rate must return one number for each trajectory",
        lambda: run(sg.JumpDiffusion(STILL, sg.CompoundPoisson(lambda x, t: x * t, 1.0, bound=9))),
        lambda: counted(sg.CompoundPoisson(lambda x, t: 1 + 0 * x[:, 0], 1.0, bound=2.0), 1.0),
    ),
    "a rate above its bound": (
        "thinning would lose jumps",
        lambda: run(sg.JumpDiffusion(STILL, sg.CompoundPoisson(lambda t: 1 + t, 1.0, bound=1.5))),
        lambda: counted(sg.CompoundPoisson(lambda t: 1 + t, 1.0, bound=2.0), 1.5),
    ),
    "one law for two coordinates": (
        "say what jumps; pass one for each coordinate",
        lambda: sg.simulate(MERTON, torch.zeros(4, 2, dtype=F64), TIMES, rng=0),
        lambda: near(
            sg.simulate(
                sg.JumpDiffusion(
                    BM,
                    sg.CompoundPoisson(2.0, Normal(torch.zeros(2), 0.5 * torch.ones(2))),
                ),
                torch.zeros(2000, 2, dtype=F64),
                TIMES,
                rng=0,
            ).final.var(0),
            torch.tensor([1.5, 1.5]),
            0.15,
        ),
    ),
    "sizes without quantiles": (
        "which has no quantile function icdf",
        lambda: sg.CompoundPoisson(1.0, Gamma(2.0, 1.0)),
        lambda: counted(
            sg.CompoundPoisson(1.0, lambda u: torch.as_tensor(stats.gamma.ppf(u, 2.0))), 2.0
        ),
    ),
    "jumps for a solver that takes none": (
        r"; pass solver=JumpAdapted\(EulerMaruyama",
        lambda: run(MERTON, solver=sg.EulerMaruyama(substeps=2)),
        lambda: spreads(solver=sg.JumpAdapted(sg.EulerMaruyama(substeps=2))),
    ),
    "jumps of trajectories that depend on each other": (
        "but a step is split at the jumps of single ones",
        lambda: run(sg.JumpDiffusion(STILL, CLIPPED), interacting=True),
        lambda: counted(CLIPPED, 2.0 * 1.0, x0=5.0),
    ),
    "jumps inside a boundary": (
        "what a jump beyond an end does is not said",
        lambda: run(MERTON, boundary=sg.Absorbing(-1.0, 1.0)),
        spreads,
    ),
    "passages of what jumps": (
        "which a Brownian bridge does not have",
        lambda: sg.run_ensemble(
            MERTON,
            column(0.0, 1),
            TIMES,
            trajectories=200,
            observables=[sg.FirstPassage(above=0.5, bridge=True)],
            progress=False,
        ),
        passes,
    ),
    "an average of what jumps": (
        "run an ensemble in its place",
        lambda: sg.extrapolate(LINE, column(0.0, 1), TIMES, lambda x: x[:, 0], trajectories=99),
        average,
    ),
    "jumps without noise": (
        "JumpAdapted draws jumps, but noise is None",
        lambda: by_hand(None),
        lambda: by_hand(sg.Noise(MANY, rng=0)),
    ),
    "α-stable steps beyond float32": (
        r"pass x0.double\(\) if it is float32",
        lambda: sg.simulate(FAR, torch.zeros(20_000, 1), TIMES, rng=0),
        lambda: sg.simulate(FAR, torch.zeros(20_000, 1).double(), TIMES, rng=0),
    ),
    "no jumps": (
        "jumps is empty",
        lambda: sg.JumpDiffusion(BM, []),
        lambda: spreads(sg.JumpDiffusion(BM, [JUMPS])),
    ),
    "jumps in two places": (
        "pass all jumps in one sequence",
        lambda: sg.JumpDiffusion(sg.JumpDiffusion(STILL, CLIPPED), JUMPS),
        lambda: spreads(sg.JumpDiffusion(BM, [JUMPS, sg.CompoundPoisson(1.0, 0.0)])),
    ),
    "jumps along a given path": (
        "JumpAdapted cannot walk a given Brownian path",
        lambda: run(MERTON, brownian=sg.BrownianPath(0, TIMES)),
        meets_the_same_jumps,
    ),
    "a solver that divides no step": (
        "JumpAdapted divides a step at jumps",
        lambda: sg.JumpAdapted(sg.EulerMaruyama(compile=True)),
        lambda: spreads(solver=sg.JumpAdapted(sg.Heun(substeps=2))),
    ),
}
