"""Advice on boundaries, steps, noise, densities and samplers, followed."""

import math

import torch

import sdegen as sg
from sdegen.verification.chain import ChainDensity
from tests.cures.common import (
    BM,
    BOX,
    CIR,
    F64,
    FLOW,
    GAUSS,
    GRID,
    OU,
    PROBABILITY_FLOW,
    REVERSE,
    RING,
    SINE,
    TIMED,
    TWO,
    VP,
    WELL,
    T,
    column,
    ensemble,
    fp,
    simulate,
    told,
)

_K = torch.tensor(1.0, dtype=F64, requires_grad=True)
HELD = sg.ItoProcess(lambda x: -_K * x, 1.0)


def _force(x):
    y = x.detach().requires_grad_()
    return -torch.autograd.grad((0.5 * y**2).sum(), y)[0]


def _twice(x, t):
    return GAUSS.score(x, t) + GAUSS.score(x, t)


def _train():
    model = sg.ScoreModel(sg.MLP(dim=1, width=8, rng=0), VP)
    return sg.train(
        model, torch.linspace(-1, 1, 8)[:, None], sg.TrainConfig(steps=1, batch_size=4), rng=0
    )


# What is provoked, the start of its text in the source, and the programs: before, and as advised.
UNIT = sg.Grid(0.0, 1.0, 50)


class Rough(sg.Boundary):
    """What arrives is put back anywhere between half its way and all of it."""

    def apply(self, before, after, step):
        end = after.clamp(step.low, step.high)
        back = end + (1 - step.uniform(after) / 2).to(after) * (end - after)
        return back.clamp(step.low, step.high)


class Stopping(sg.PositionBoundary):
    """What arrives stops at the end, and goes on."""

    condition = sg.BoundaryCondition.NO_FLUX

    def contain(self, x, low, high):
        return x.clamp(low, high)


class Folding(sg.PositionBoundary):
    """One fold, of steps that are short beside the box."""

    condition = step_law = sg.BoundaryCondition.NO_FLUX

    def contain(self, x, low, high):
        end = x.clamp(low, high)
        return (2 * end - x).clamp(low, high)


def by_hand(boundary=None):
    noise = sg.Noise(column(0.5), rng=0)
    steps = sg.integrate(BM, sg.EulerMaruyama(), column(0.5), [0.0, 0.1], noise, boundary)
    return list(steps)


FOLLOWED = {
    # --- boundaries
    "one box for several coordinates": (
        r"one box \{\} for \{\} coordinates",
        lambda: simulate(BM, TWO, boundary=sg.Reflecting(-1.0, 1.0)),
        lambda: (
            simulate(BM, TWO, boundary={0: sg.Reflecting(-1.0, 1.0)}),
            simulate(BM, TWO, boundary=sg.Reflecting(-1.0, 1.0, coordinates="all")),
        ),
    ),
    "the box of version 0.1": (
        "Walls is no more: write boundary=",
        lambda: sg.Walls(0.0, 1.0),
        lambda: simulate(BM, boundary=sg.Reflecting(0.0, 1.0)),
    ),
    "the argument of version 0.1": (
        "walls= is no more, but is {}: write boundary=",
        lambda: simulate(BM, walls="absorbing"),
        lambda: simulate(BM, boundary=sg.Absorbing(0.0, 1.0)),
    ),
    "a boundary of steps by hand that bounds nothing": (
        "boundary bounds no coordinate: leave it out",
        lambda: by_hand(sg.contain(None, BM, column(0.5), [0.0, 0.1])),
        lambda: by_hand(),
    ),
    "a word where ends are needed": (
        "boundary is {}, and a word does not say",
        lambda: simulate(BM, boundary="periodic"),
        lambda: simulate(BM, boundary=sg.Periodic(0.0, 1.0)),
    ),
    "a list of ends": (
        r"for ends of each coordinate pass boundary=",
        lambda: sg.Reflecting([0.0, 0.0], [1.0, 2.0]),
        lambda: simulate(BM, TWO, boundary={0: sg.Reflecting(0, 1), 1: sg.Reflecting(0, 2)}),
    ),
    "a reflecting end that moves": (
        "an end that moves absorbs: pass Absorbing",
        lambda: sg.Reflecting(lambda t: -t),
        lambda: simulate(BM, boundary=sg.Absorbing(lambda t: -t)),
    ),
    "no end": (
        r"has no end; pass",
        lambda: sg.Reflecting(-math.inf, math.inf),
        lambda: (simulate(BM, boundary=sg.Reflecting(0.0)), sg.Reflecting(high=1.0)),
    ),
    "half a period": (
        "a period has two ends",
        lambda: sg.Periodic(0.0),
        lambda: simulate(BM, boundary=sg.Periodic(0.0, 0.0 + 1.0)),
    ),
    "one coordinate by name": (
        "coordinates must be None or 'all'",
        lambda: sg.Reflecting(0.0, coordinates=1),
        lambda: simulate(BM, TWO, boundary={1: sg.Reflecting(0.0)}),
    ),
    "a boundary without a condition": (
        "declares no condition of a density",
        lambda: sg.FokkerPlanck(BM, UNIT, Rough(0.0, 1.0)),
        lambda: (
            sg.FokkerPlanck(BM, UNIT, Stopping(0.0, 1.0)),
            simulate(BM, boundary=Rough(0.0, 1.0)),
        ),
    ),
    "a boundary without a law of its steps": (
        "declares no law of its steps",
        lambda: sg.ChainDensity(BM, UNIT, sg.EulerMaruyama(), boundary=Stopping(0.0, 1.0)),
        lambda: (
            sg.ChainDensity(BM, UNIT, sg.EulerMaruyama(), boundary=Folding(0.0, 1.0)),
            sg.FokkerPlanck(BM, UNIT, Stopping(0.0, 1.0)),
        ),
    ),
    "a gradient through what a boundary draws": (
        "what a boundary draws has no derivative",
        lambda: simulate(BM, boundary=Rough(0.0, 1.0), differentiable=True),
        lambda: simulate(BM, boundary=Rough(0.0, 1.0)),
    ),
    "a list of the wrong length": (
        r"a boundary for each coordinate needs|boundary is empty",
        lambda: simulate(BM, TWO, boundary=[sg.Reflecting(0.0)]),
        lambda: simulate(BM, TWO, boundary={0: sg.Reflecting(0.0)}),
    ),
    "a pair with three ends": (
        r"a pair \(lower, upper\) has one end each",
        lambda: simulate(BM, boundary=(sg.Reflecting(0.0, 1.0), sg.Absorbing(high=1.0))),
        lambda: simulate(BM, boundary=(sg.Reflecting(0.0), sg.Absorbing(high=1.0))),
    ),
    "a coordinate that is none": (
        "boundary is for coordinate",
        lambda: simulate(BM, TWO, boundary={2: sg.Reflecting(0.0)}),
        lambda: simulate(BM, TWO, boundary={1: sg.Reflecting(0.0)}),
    ),
    "a start outside": (
        r"must start inside the boundary",
        lambda: simulate(BM, boundary=sg.Reflecting(1.0)),
        lambda: simulate(BM, column(1.5), boundary=sg.Reflecting(1.0)),
    ),
    "ends that meet": (
        r"(a boundary needs low < high|below < above) at all times",
        lambda: simulate(BM, boundary=sg.Absorbing(lambda t: t - 1.0, lambda t: 0.9 - t)),
        lambda: simulate(
            BM, times=T[:8], boundary=sg.Absorbing(lambda t: t - 1.0, lambda t: 0.9 - t)
        ),
    ),
    "a period that is not the drift's own": (
        "is no period of the",
        lambda: simulate(SINE, boundary=sg.Periodic(0.0, 6.0)),
        lambda: (
            simulate(SINE, boundary=sg.Periodic(0.0, 2 * math.pi)),
            simulate(
                sg.ItoProcess(lambda x: 0.3 - torch.sin(torch.remainder(x, 6.0)), 1.0),
                boundary=sg.Periodic(0.0, 6.0),
            ),
        ),
    ),
    "a solver that keeps no boundary": (
        "cannot keep a state inside a boundary",
        lambda: simulate(BM, solver=sg.TorchSDE("srk"), boundary=sg.Reflecting(0.0)),
        lambda: simulate(BM, solver=sg.EulerMaruyama(5), boundary=sg.Reflecting(0.0)),
    ),
    "ends elsewhere than the grid's": (
        "the boundary has its {} end at",
        lambda: fp(BM, BOX, sg.Absorbing(0.0, 2.0)),
        lambda: fp(BM, sg.Grid(0.0, 2.0, 100), sg.Absorbing(0.0, 2.0)).first_passage(),
    ),
    "a boundary that is none": (
        "boundary must be a word or a pair",
        lambda: fp(BM, BOX, 3),
        lambda: (fp(BM, BOX, "absorbing"), fp(BM, BOX, sg.Reflecting(0.0, 1.0))),
    ),
    "gradients where paths end": (
        "whether a path meets an absorbing end has no derivative",
        lambda: simulate(BM, boundary=sg.Absorbing(0.0), differentiable=True),
        lambda: (
            simulate(BM, boundary=sg.Absorbing(0.0)),
            fp(BM, BOX, "absorbing").solve(
                BOX.gaussian(0.5, 0.05), [0.0, 0.1], differentiable=True
            ),
        ),
    ),
    "gradients at an end without noise": (
        "the step at a reflecting end without noise is drawn",
        lambda: simulate(CIR, boundary=sg.Reflecting(0.0), differentiable=True),
        lambda: simulate(CIR, boundary=sg.Reflecting(0.0)),
    ),
    # --- states that are lost
    "square-root noise below zero": (
        "Looked at by hand: Solution.advice",
        lambda: simulate(CIR, column(0.5, 200), solver=sg.EulerMaruyama(10)),
        lambda: simulate(
            CIR, column(0.5, 200), solver=sg.EulerMaruyama(10), boundary=sg.Reflecting(low=0)
        ),
    ),
    # --- dynamics and times
    "a noisy SDE backwards": (
        "running it backwards is not its time reversal",
        lambda: simulate(VP, times=[0.9, 0.1]),
        lambda: simulate(REVERSE, times=torch.linspace(0.9, 0.1, 41)),
    ),
    "a reverse process forwards": (
        "is a reverse process, meant for decreasing time",
        lambda: simulate(REVERSE, times=T[1:]),
        lambda: simulate(REVERSE, times=T[1:].flip(0)),
    ),
    "times that turn round": (
        r"\{\} must be strictly monotone",
        lambda: simulate(BM, times=[0.0, 0.5, 0.2]),
        lambda: simulate(BM, times=torch.linspace(0.0, 0.5, 3)),
    ),
    "a chain between its steps": (
        "is a Markov chain on integer times: times must",
        lambda: simulate(sg.DDPM.discretize(VP, steps=10)),
        lambda: simulate(sg.DDPM.discretize(VP, steps=10), times=torch.arange(11.0)),
    ),
    "a chain under a method for equations": (
        "is a Markov chain on integer times, and",
        lambda: simulate(
            sg.DDPM.discretize(VP, steps=10), times=torch.arange(11.0), solver=sg.Heun()
        ),
        lambda: simulate(
            sg.DDPM.discretize(VP, steps=10), times=torch.arange(11.0), solver=sg.EulerMaruyama()
        ),
    ),
    "states without a batch": (
        r"one-dimensional physics is \(batch, 1\)",
        lambda: sg.simulate(BM, torch.zeros(4), T, rng=0),
        lambda: sg.simulate(BM, torch.zeros(4)[:, None], T, rng=0),
    ),
    "states in half precision": (
        "in which √dt · z is lost",
        lambda: simulate(BM, torch.zeros(4, 1, dtype=torch.float16)),
        lambda: simulate(BM, torch.zeros(4, 1, dtype=torch.float32)),
    ),
    "a drift in place": (
        "changed x in place",
        lambda: simulate(sg.ItoProcess(lambda x: x.mul_(-1.0), 1.0)),
        lambda: simulate(sg.ItoProcess(lambda x: x * -1.0, 1.0)),
    ),
    "a drift of another precision": (
        r"returned dtype \{\} for x of dtype",
        lambda: simulate(sg.ItoProcess(lambda x: -x.float(), 1.0)),
        lambda: simulate(sg.ItoProcess(lambda x: (-x.float()).to(x.dtype), 1.0)),
    ),
    "additive noise that is not": (
        "says noise = 'additive', but its diffusion is another",
        lambda: simulate(sg.ItoProcess(lambda x: -x, lambda x, t: 1 + x, noise="additive")),
        lambda: simulate(sg.ItoProcess(lambda x: -x, lambda x, t: 1 + x, noise="multiplicative")),
    ),
    "Heun with g(x)": (
        "Heun averages g over a step",
        lambda: simulate(sg.ItoProcess(lambda x: -x, lambda x: x), solver=sg.Heun()),
        lambda: (
            simulate(sg.ItoProcess(lambda x: -x, lambda x: x), solver=sg.EulerMaruyama()),
            simulate(
                sg.ItoProcess(lambda x: -x, lambda x, t: 1 + t + 0 * x[:1], noise="additive"),
                solver=sg.Heun(),
            ),
        ),
    ),
    "an adaptive solver with noise": (
        "TorchDiffEq solves noise-free dynamics",
        lambda: simulate(REVERSE, times=[0.9, 0.5], solver=sg.TorchDiffEq()),
        lambda: simulate(PROBABILITY_FLOW, times=[0.9, 0.5], solver=sg.TorchDiffEq()),
    ),
    "torchsde without noise": (
        "TorchSDE solves noisy equations",
        lambda: simulate(FLOW, solver=sg.TorchSDE("srk")),
        lambda: (simulate(FLOW, solver=sg.Heun()), simulate(FLOW, solver=sg.TorchDiffEq())),
    ),
    "freezing with one step size": (
        "TorchDiffEq has one step size for all",
        lambda: simulate(FLOW, solver=sg.TorchDiffEq(), on_nonfinite="freeze"),
        lambda: simulate(FLOW, solver=sg.Heun(4), on_nonfinite="freeze"),
    ),
    "a sampler without a kernel": (
        r"needs \{\}: pass ReverseSDE\(linear_sde, score, eta\), not",
        lambda: simulate(OU, solver=sg.DDIM()),
        lambda: [
            simulate(sg.ReverseSDE(VP, GAUSS.score, 1.0), times=[0.9, 0.5], solver=solver)
            for solver in (sg.DDIM(), sg.AdaptiveHeun())
        ],
    ),
    "a corrector without a score": (
        "PredictorCorrector needs a score",
        lambda: simulate(OU, solver=sg.PredictorCorrector()),
        lambda: simulate(REVERSE, times=[0.9, 0.5], solver=sg.PredictorCorrector()),
    ),
    "a flow method with noise": (
        "is for the probability flow, but eta is",
        lambda: simulate(REVERSE, times=[0.9, 0.5], solver=sg.AngularAdams(2)),
        lambda: simulate(PROBABILITY_FLOW, times=[0.9, 0.5], solver=sg.AngularAdams(2)),
    ),
    "gradients of compiled runs": (
        "compile=True is for runs without gradients",
        lambda: simulate(OU, solver=sg.EulerMaruyama(compile=True), differentiable=True),
        lambda: simulate(OU, solver=sg.EulerMaruyama(), differentiable=True),
    ),
    # --- ensembles
    "two observables of one name": (
        "two observables are called",
        lambda: sg.run_ensemble(
            BM, column(0.5, 1), T, trajectories=4, observables=[sg.Moments(), sg.Moments()]
        ),
        lambda: sg.run_ensemble(
            BM,
            column(0.5, 1),
            T,
            trajectories=4,
            rng=0,
            progress=False,
            observables=[sg.Moments(), sg.Moments(name="other")],
        ),
    ),
    "nothing kept": (
        "nothing would be kept",
        lambda: sg.run_ensemble(BM, column(0.5, 1), T, trajectories=4),
        lambda: ensemble(sg.Moments()),
    ),
    "steps that nobody shows": (
        "sees every step, and",
        lambda: ensemble(sg.FirstPassage(above=2.0), FLOW, solver=sg.TorchDiffEq()),
        lambda: ensemble(sg.FirstPassage(above=2.0), solver=sg.EulerMaruyama(4)),
    ),
    "a mean that is not known": (
        "so that their mean time is not known",
        lambda: ensemble(sg.FirstPassage(above=9.0)).observables["first_passage"].mean,
        lambda: (
            ensemble(sg.FirstPassage(above=9.0)).observables["first_passage"].rate,
            ensemble(sg.FirstPassage(above=0.6), sg.ItoProcess(lambda x: 1 + 0 * x, 0.1))
            .observables["first_passage"]
            .mean,
        ),
    ),
    "a quantile outside": (
        "widen the histogram",
        lambda: ensemble(sg.Histogram(5.0, 6.0)).observables["histogram"].quantile(0.5),
        lambda: ensemble(sg.Histogram(-5.0, 6.0)).observables["histogram"].quantile(0.5),
    ),
    "turns that were not counted": (
        "needs the turns around the period|turns around the period were not counted",
        lambda: ensemble(
            sg.Moments(unwrapped=True),
            boundary=sg.Periodic(0.0, 1.0),
            solver=sg.EulerMaruyama(compile=True),
        ),
        lambda: ensemble(
            sg.Moments(unwrapped=True), boundary=sg.Periodic(0.0, 1.0), solver=sg.EulerMaruyama()
        ),
    ),
    "other rows than trajectories": (
        r"x0 has \{\} rows for \{\} trajectories",
        lambda: sg.run_ensemble(BM, column(0.5, 3), T, trajectories=4, observables=[sg.Moments()]),
        lambda: ensemble(sg.Moments(), trajectories=4),
    ),
    # --- densities
    "no SDE": (
        r"sde must be an SDE, but is \{\}; pass sdegen.ItoProcess",
        lambda: fp(lambda x: -x),
        lambda: fp(sg.ItoProcess(drift=lambda x: -x, diffusion=1.0)).stationary(),
    ),
    "a density backwards": (
        "a density cannot be carried against its diffusion",
        lambda: fp(VP).solve(GRID.gaussian(0.0, 1.0), [0.9, 0.1]),
        lambda: fp(REVERSE).solve(GRID.gaussian(0.0, 1.0), [0.9, 0.5]),
    ),
    "a start of another mass": (
        "p0 must have mass 1, but has",
        lambda: fp().solve(sg.Density(GRID.nodes, 2 * GRID.gaussian(0.0, 1.0).p), [0.0, 0.1]),
        lambda: fp().solve(
            sg.Density(GRID.nodes, 2 * GRID.gaussian(0.0, 1.0).p).normalized(), [0.0, 0.1]
        ),
    ),
    "a start on other nodes": (
        "p0 lives on {} nodes from {} to {}, the solver on",
        lambda: fp().solve(sg.Grid(-6.0, 6.0, 60).gaussian(0.0, 1.0), [0.0, 0.1]),
        lambda: fp().solve(
            sg.Density(
                GRID.nodes, sg.Grid(-6.0, 6.0, 60).gaussian(0.0, 1.0).at(GRID.nodes)
            ).normalized(),
            [0.0, 0.1],
        ),
    ),
    "a start narrower than a cell": (
        "std must be at least half a cell",
        lambda: GRID.gaussian(0.0, 0.01),
        lambda: (sg.Grid(-6.0, 6.0, 2000).gaussian(0.0, 0.01), GRID.point(0.0)),
    ),
    "an edge that cuts": (
        r"\{\} grows towards|the grid cuts it. Widen it|widen the grid; if the wall is real",
        lambda: fp(sg.ItoProcess(lambda x: x, 1.0), sg.Grid(-1.0, 1.0, 50)).stationary(),
        lambda: fp(
            sg.ItoProcess(lambda x: x, 1.0), sg.Grid(-1.0, 1.0, 50), truncation_is_physical=True
        ).stationary(),
    ),
    "velocity off a ring": (
        "velocity and effective diffusion belong to a ring",
        lambda: fp(SINE, RING, truncation_is_physical=True).transport(),
        lambda: fp(SINE, RING, "periodic").transport(),
    ),
    "a complex spectrum": (
        "so that the spectrum is complex; ask for turning_spectrum",
        lambda: fp(SINE, RING, "periodic").spectrum(),
        lambda: fp(SINE, RING, "periodic").turning_spectrum(3),
    ),
    "a real spectrum": (
        "a spectrum is complex on a ring only",
        lambda: fp().turning_spectrum(3),
        lambda: fp().spectrum(3),
    ),
    "passages without an end": (
        "needs an absorbing wall, but boundary is",
        lambda: fp(BM, BOX, truncation_is_physical=True).first_passage(),
        lambda: fp(BM, BOX, "absorbing").first_passage(),
    ),
    "an escape between two ends": (
        "an escape needs one absorbing wall",
        lambda: fp(WELL, sg.Grid(-3.0, 1.0, 200), "absorbing").escape(),
        lambda: fp(WELL, sg.Grid(-3.0, 1.0, 200), ("no-flux", "absorbing")).escape(),
    ),
    "rest of what is absorbed": (
        "there is no stationary density: all mass leaves",
        lambda: fp(BM, BOX, ("absorbing", "no-flux")).stationary(),
        lambda: fp(
            BM, BOX, (sg.Absorbing(0.0), sg.Reflecting(high=1.0)), injection=0.5
        ).stationary(),
    ),
    "rest of what changes": (
        r"was asked for, but drift or diffusion depend on time; freeze",
        lambda: fp(TIMED).stationary(),
        lambda: (
            fp(sg.ItoProcess(lambda x: TIMED.drift(x, torch.tensor(0.3)), 1.0)).stationary(),
            fp(TIMED).solve(GRID.gaussian(0.0, 1.0), [0.0, 0.1]),
        ),
    ),
    "the lumped form": (
        "is positive for the lumped form only",
        lambda: fp(form="compact").solve(
            GRID.gaussian(0.0, 1.0), [0.0, 0.1], integrator=sg.BackwardEuler(5)
        ),
        lambda: fp(form="auto").solve(
            GRID.gaussian(0.0, 1.0), [0.0, 0.1], integrator=sg.BackwardEuler(50)
        ),
    ),
    "two coordinates in two arguments": (
        "a state of two coordinates is one tensor x",
        lambda: sg.ItoProcess(lambda x, y: x - y, 1.0),
        lambda: sg.ItoProcess(lambda x: torch.stack([x[:, 1], -x[:, 0]], 1), 1.0),
    ),
    "a barrier that is not there": (
        "there is no barrier between the well",
        lambda: fp(WELL, sg.Grid(-3.0, -0.5, 200), ("no-flux", "absorbing")).escape(),
        lambda: fp(WELL, sg.Grid(-3.0, 1.0, 200), ("no-flux", "absorbing")).escape(),
    ),
    # --- graphs that are not there, and scores that are none
    "a derivative inside a drift": (
        "drift or diffusion take a derivative by autograd",
        lambda: simulate(sg.ItoProcess(_force, 0.1)),
        lambda: simulate(sg.ItoProcess(torch.enable_grad()(_force), 0.1)),
    ),
    "training in inference mode": (
        "training needs gradients",
        lambda: torch.inference_mode()(_train)(),
        lambda: _train(),
    ),
    "a sum of scores": (
        "where states are noise alone, the score is",
        lambda: told(
            lambda: simulate(sg.ReverseSDE(VP, _twice), VP.prior((40, 1), rng=0), [1.0, 0.99])
        ),
        lambda: simulate(
            sg.ReverseSDE(VP, sg.composition.product([GAUSS.score] * 2)),
            VP.prior((40, 1), rng=0),
            [1.0, 0.99],
            solver=sg.PredictorCorrector(corrector_steps=1),
        ),
    ),
    # --- gradients that an answer would lose
    "a gradient that a number would lose": (
        "is, or depends on, a tensor that requires grad",
        lambda: sg.metrics.wasserstein_1d(column(0.5).requires_grad_(), column(1.0)),
        lambda: sg.metrics.wasserstein_1d(column(0.5).requires_grad_().detach(), column(1.0)),
    ),
    "a gradient of a current": (
        "or take that of what has differentiable=True",
        lambda: fp(HELD, GRID).current(fp(HELD, GRID).stationary()),
        lambda: fp(HELD, GRID).stationary(differentiable=True).variance.backward(),
    ),
    "a gradient in the plane": (
        "or take the gradient in one dimension",
        lambda: sg.FokkerPlanck2D(HELD, (sg.Grid(-4.0, 4.0, 16),) * 2).stationary(),
        lambda: simulate(HELD, TWO, differentiable=True).final.sum().backward(),
    ),
    "a gradient of an ensemble": (
        r"or take that of simulate\(…, differentiable=True\)",
        lambda: ensemble(sg.Moments(), HELD),
        lambda: simulate(HELD, differentiable=True).final.mean().backward(),
    ),
    # --- dynamics of one's own
    "noise that wants a gradient": (
        "diffusion is a tensor that requires grad",
        lambda: sg.ItoProcess(lambda x: -x, torch.tensor(0.5, requires_grad=True)),
        lambda: simulate(
            sg.ItoProcess(
                lambda x: -x, lambda x, t: torch.tensor(0.5, dtype=F64), noise="additive"
            )
        ),
    ),
    "noise that is none": (
        "noise='none' means g = 0",
        lambda: sg.ItoProcess(lambda x: -x, lambda x: x, noise="none"),
        lambda: simulate(sg.ItoProcess(lambda x: -x, 0.0, noise="none")),
    ),
    "time before the state": (
        "time before the state, but is called with",
        lambda: sg.ItoProcess(lambda t, y: -y, 1.0),
        lambda: simulate(sg.ItoProcess(lambda x, t: (lambda t, y: -y)(t, x), 1.0)),
    ),
    # --- laws of chains
    "walls of another solver": (
        "at absorbing walls is built without bridges",
        lambda: ChainDensity(REVERSE, GRID, sg.DDIM(), boundary="absorbing"),
        lambda: ChainDensity(
            REVERSE, GRID, sg.DDIM(), boundary=sg.Absorbing(-6.0, 6.0, bridge=False)
        ),
    ),
    # --- random numbers
    "no seed": (
        "pass rng=0 for a reproducible run",
        lambda: sg.simulate(BM, column(0.0), T, rng="0"),
        lambda: sg.simulate(BM, column(0.0), T, rng=0),
    ),
    "samples in the plane on a line": (
        "use sliced_wasserstein or energy_distance",
        lambda: sg.metrics.wasserstein_1d(TWO, TWO),
        lambda: sg.metrics.energy_distance(TWO, TWO),
    ),
}
