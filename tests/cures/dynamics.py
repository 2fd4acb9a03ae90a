"""Advice on processes, potentials and solvers, followed."""

import math

import torch

import sdegen as sg
from sdegen.solvers.multistep import LinearMultistep
from tests.cures.common import (
    BM,
    F64,
    GAUSS,
    GRID,
    OU,
    PROBABILITY_FLOW,
    REVERSE,
    TWO,
    VP,
    column,
    fp,
    simulate,
)

DOWN = sg.timesteps.power(VP, 20)
EVEN = VP.time_grid(10)
RATES = torch.tensor([[0.5], [1.0], [2.0], [4.0]], dtype=F64)


def near(found, expected, tolerance=1e-12):
    """Numbers that agree, relative to the largest."""
    found = torch.as_tensor(found, dtype=F64)
    expected = torch.as_tensor(expected, dtype=F64)
    gap = float((found - expected).abs().max())
    assert gap <= tolerance * float(expected.abs().max()), f"{gap:.3g} off"


def carried(t):
    """What the probability flow of `GAUSS` makes of 1 at t_max."""
    ends = torch.tensor([VP.t_max, t], dtype=F64)
    start, end = (VP.alpha(ends) ** 2 * 0.25 + VP.sigma(ends) ** 2).sqrt()
    return end / start


def flows(solver, times=DOWN, tolerance=2e-2, dynamics=PROBABILITY_FLOW):
    """The flow of Gaussian data is linear: a solver ends where the formula does."""
    path = simulate(dynamics, column(1.0), times, solver=solver)
    near(path.final, float(carried(float(times[-1]))), tolerance)
    return path


def scales_of_two_coordinates():
    """A noise matrix that is diagonal: each coordinate walks its own multiple of one path."""
    scales = torch.tensor([0.5, 2.0], dtype=F64)
    both = sg.ItoProcess(
        lambda x: 0 * x, lambda x, t: torch.tensor([0.5, 2.0]).to(x), noise="additive"
    )
    near(simulate(both, TWO).final, scales * simulate(BM, TWO).final)


def decays(rates, drift, parameters=None):
    """ẋ = −k x ends at e^{−k}."""
    process = sg.ItoProcess(drift, 0.0, parameters=parameters)
    near(simulate(process, column(1.0), solver=sg.Heun(40)).final, torch.exp(-rates), 1e-4)


class WrongRates(sg.VP):
    """Rates of another path than its α and σ."""

    def rate(self, t):
        return 2 * super().rate(t)


class DerivedRates(sg.VP):
    """The same without rates of its own."""

    rate = sg.LinearSDE.rate
    noise_rate = sg.LinearSDE.noise_rate


def derived_rates():
    path = DerivedRates(VP.beta)
    path.check_rates()
    t = torch.tensor([0.1, 0.7], dtype=F64)
    near(path.rate(t), VP.rate(t))
    near(path.noise_rate(t), VP.noise_rate(t))


def gradient_of_a_run(drift):
    """d x(1)/d x(0) of ẋ = −x (1 + x²/10) by Heun, or a refusal."""
    x0 = column(0.5, 1).requires_grad_()
    path = simulate(sg.ItoProcess(drift, 0.0), x0, solver=sg.Heun(4), differentiable=True)
    (slope,) = torch.autograd.grad(path.final.sum(), x0)
    return float(slope)


def seen_by_autograd():
    up, down = (
        simulate(
            sg.ItoProcess(lambda x: -x * (1 + x**2 / 10), 0.0),
            column(0.5 + h, 1),
            solver=sg.Heun(4),
        )
        for h in (1e-4, -1e-4)
    )
    slope = gradient_of_a_run(lambda x: -x * (1 + x**2 / 10))
    near(slope, float((up.final - down.final) / 2e-4), 1e-7)


def score_of_another_path():
    """A model of its own path, and one that is meant to be asked on another."""
    model = sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1, rng=0), VP)
    other = sg.VP(sg.LinearBeta(0.1, 10.0))
    with torch.no_grad():
        near(sg.ReverseSDE(model.sde, model.score).score(column(1.0), 0.5), model(column(1.0), 0.5))
    meant = sg.ReverseSDE(other, lambda x, t: model.score(x, t))
    assert bool(simulate(meant, times=[0.9, 0.5]).final.isfinite().all())


def family_of_parameters():
    """One density for each trajectory: σ²/2k of an Ornstein–Uhlenbeck process."""
    each = [sg.OrnsteinUhlenbeck(float(k)) for k in RATES[1:3]]
    law = sg.FokkerPlanckFamily(each, GRID).stationary()
    near([float(sg.Density(GRID.nodes, p).variance) for p in law], [1.0, 0.5], 1e-3)


def walked_by(solver, times=EVEN, dynamics=REVERSE):
    """A given Brownian path, walked by two solvers: their ends are nearly the same numbers."""
    fine = torch.linspace(float(times[0]), float(times[-1]), 10 * 40 + 1, dtype=F64)
    path = sg.BrownianPath(0, fine)
    x0 = VP.prior((50, 1), rng=1, dtype=F64)
    ends = [
        sg.simulate(dynamics, x0, times, solver=one, brownian=path, rng=0).final[:, 0]
        for one in (solver, sg.EulerMaruyama(40))
    ]
    assert float(torch.corrcoef(torch.stack(ends))[0, 1]) > 0.999




def grid_of(flow, *pilot, solver):
    """A grid that is made for a flow goes from t_max down to t_min."""
    times = sg.timesteps.auto(flow, 3, *pilot, solver=solver, rng=0)
    near(times[[0, -1]], [VP.t_max, VP.t_min])
    assert bool((times.diff() < 0).all())


MADE = LinearMultistep(DOWN, sg.AngularAdams(2).coefficients(PROBABILITY_FLOW, DOWN), VP.kernel)

FOLLOWED = {
    # --- processes of one's own
    "a noise matrix": (
        "noise is diagonal, a noise matrix is not built: for one scale per coordinate pass",
        lambda: sg.ItoProcess(lambda x: -x, torch.diag(torch.tensor([0.5, 2.0]))),
        scales_of_two_coordinates,
    ),
    "a parameter that is one number": (
        "but is one number: write it into the function itself",
        lambda: sg.ItoProcess(lambda x, k: -k * x, 0.0, parameters={"k": 0.5}),
        lambda: decays(torch.tensor(0.5), lambda x: -0.5 * x),
    ),
    "a parameter that nobody takes": (
        "but neither drift nor diffusion takes an argument of that name",
        lambda: sg.ItoProcess(lambda x: -x, 0.0, parameters={"k": RATES}),
        lambda: decays(RATES, lambda x, t, k: -k * x, {"k": RATES}),
    ),
    "a slope that nothing needs": (
        "diffusion_derivative goes with a g",
        lambda: sg.ItoProcess(
            lambda x: -x, lambda x: x, diffusion_derivative=lambda x: torch.ones_like(x)
        ),
        lambda: near(
            sg.ItoProcess(lambda x: -x, lambda x: x).drift(column(2.0), torch.tensor(0.0)), -2.0
        ),
    ),
    "a derivative that autograd does not see": (
        "changes with x in a way that autograd does not see",
        lambda: gradient_of_a_run(lambda x: -x * (1 + x.detach() ** 2 / 10)),
        seen_by_autograd,
    ),
    "rates that do not belong": (
        "does not belong to its α and σ",
        lambda: sg.ReverseSDE(WrongRates(VP.beta), GAUSS.score),
        derived_rates,
    ),
    "a potential that is a class": (
        r"potential must be an object, but is the class",
        lambda: sg.Langevin(sg.DoubleWell),
        lambda: near(sg.Langevin(sg.DoubleWell()).drift(column(2.0), torch.tensor(0.0)), -6.0),
    ),
    "two spreads of a mixture": (
        "give either stds or covariances",
        lambda: sg.GaussianMixture([1.0], [[0.0]], stds=0.5, covariances=[[[0.25]]]),
        lambda: near(
            sg.GaussianMixture([1.0], [[0.0]], stds=0.5).log_prob(column(1.0)),
            sg.GaussianMixture([1.0], [[0.0]], covariances=[[[0.25]]]).log_prob(column(1.0)),
        ),
    ),
    "an activation that is a word": (
        "activation must be a function",
        lambda: sg.RateNetwork(torch.eye(2), activation="tanh"),
        lambda: near(
            sg.RateNetwork(torch.eye(2), activation=torch.tanh).drift(
                torch.ones(1, 2, dtype=F64), torch.tensor(0.0)
            ),
            math.tanh(1.0) - 1.0,
        ),
    ),
    "parameters of trajectories in a density": (
        "and each of them has a density of its own",
        lambda: fp(sg.ItoProcess(lambda x, k: -k * x, 1.0, parameters={"k": RATES[:2]})),
        family_of_parameters,
    ),
    # --- chains and tables
    "steps and times of a chain": (
        "give steps, or times of your own",
        lambda: sg.DDPM.discretize(VP, 4, times=[0.0, 0.5, 1.0]),
        lambda: near(
            sg.DDPM.discretize(VP, 4).alpha_bars,
            sg.DDPM.discretize(VP, times=torch.linspace(0, 1, 5)).alpha_bars,
        ),
    ),
    "an SDE in the place of a chain": (
        "chain must be a DDPM chain",
        lambda: sg.AncestralChain(VP, GAUSS.score),
        lambda: near(
            sg.AncestralChain(sg.DDPM.discretize(VP, steps=1000), GAUSS.score).chain.alpha_bars[-1],
            VP.alpha(torch.tensor(1.0, dtype=F64)) ** 2,
        ),
    ),
    "a table that wants a gradient": (
        "alpha_bars is a tensor that requires grad",
        lambda: sg.TabulatedBeta(torch.tensor([0.9, 0.5, 0.1], requires_grad=True)),
        lambda: near(
            sg.TabulatedBeta(torch.tensor([0.9, 0.5, 0.1], requires_grad=True).detach()).integral(
                2 / 3
            ),
            -math.log(0.5),
            1e-6,
        ),
    ),
    "a score of another path": (
        "the score is that of another SDE",
        lambda: sg.ReverseSDE(sg.VP(sg.LinearBeta(0.1, 10.0)), GAUSS.score),
        score_of_another_path,
    ),
    # --- solvers
    "a solver that is a class": (
        r"must be a solver, but is the class",
        lambda: sg.FinalDenoising(sg.DDIM),
        lambda: simulate(PROBABILITY_FLOW, times=DOWN, solver=sg.FinalDenoising(sg.DDIM())),
    ),
    "data within a solver": (
        "and let it be the outermost",
        lambda: sg.PredictorCorrector(predictor=sg.FinalDenoising(sg.DDIM())),
        lambda: simulate(
            REVERSE, times=DOWN, solver=sg.FinalDenoising(sg.PredictorCorrector(predictor=sg.DDIM()))
        ),
    ),
    "substeps of a predictor": (
        "predictor.substeps must be 1",
        lambda: sg.PredictorCorrector(predictor=sg.EulerMaruyama(3)),
        lambda: simulate(
            REVERSE,
            times=DOWN,
            solver=sg.PredictorCorrector(3, predictor=sg.EulerMaruyama()),
        ),
    ),
    "adaptive steps without a score": (
        "AdaptiveHeun asks for one time for each trajectory",
        lambda: simulate(OU, solver=sg.AdaptiveHeun()),
        lambda: flows(sg.AdaptiveHeun(), dynamics=sg.ReverseSDE(VP, GAUSS.score, 0.0)),
    ),
    "a Brownian path of several draws": (
        "cannot walk a given Brownian path: it draws more than one",
        lambda: walked_by(sg.PredictorCorrector()),
        lambda: [
            walked_by(solver)
            for solver in (
                sg.EulerMaruyama(substeps=20),
                sg.Heun(substeps=20),
                sg.TorchSDE("milstein", 20),
            )
        ],
    ),
    "a Brownian path of compiled runs": (
        "makes its own normals and cannot walk a given Brownian path",
        lambda: walked_by(sg.EulerMaruyama(20, compile=True)),
        lambda: walked_by(sg.EulerMaruyama(20)),
    ),
    "a Brownian path and its integral": (
        "needs ∫W du over each step",
        lambda: walked_by(sg.TorchSDE("srk", 20)),
        lambda: [walked_by(s) for s in (sg.TorchSDE("milstein", 20), sg.EulerMaruyama(20))],
    ),
    "freezing in compiled runs": (
        "on_nonfinite='freeze' looks at every step, and compile=True",
        lambda: simulate(OU, solver=sg.EulerMaruyama(compile=True), on_nonfinite="freeze"),
        lambda: simulate(OU, solver=sg.EulerMaruyama(), on_nonfinite="freeze"),
    ),
    "a Stratonovich method with g(x, t)": (
        "solves the Stratonovich equation, but with",
        lambda: simulate(sg.ItoProcess(lambda x: -x, lambda x: x), solver=sg.TorchSDE("heun")),
        lambda: [
            simulate(process, solver=sg.TorchSDE(method))
            for process, method in (
                (sg.ItoProcess(lambda x: -x, lambda x: x), "milstein"),
                (sg.ItoProcess(lambda x: -x, lambda x: x), "srk"),
                (sg.ItoProcess(lambda x: -x, lambda x, t: 1 + t, noise="additive"), "heun"),
            )
        ],
    ),
    # --- samplers
    "churn that is a number": (
        "churn must be one such as Churn",
        lambda: sg.KarrasHeun(0.5),
        lambda: simulate(PROBABILITY_FLOW, times=DOWN, solver=sg.KarrasHeun(sg.Churn(5.0))),
    ),
    "noise of two kinds": (
        "noise of one kind is enough",
        lambda: simulate(REVERSE, times=DOWN, solver=sg.DPM2(sg.Churn(5.0))),
        lambda: (
            simulate(PROBABILITY_FLOW, times=DOWN, solver=sg.DPM2(sg.Churn(5.0))),
            simulate(REVERSE, times=DOWN, solver=sg.DPM2(sg.Churn())),
        ),
    ),
    "churn forwards": (
        "churn goes with decreasing times",
        lambda: simulate(PROBABILITY_FLOW, times=DOWN.flip(0), solver=sg.KarrasHeun(sg.Churn(5))),
        lambda: near(
            simulate(
                PROBABILITY_FLOW, column(1.0), DOWN.flip(0), solver=sg.KarrasHeun(sg.Churn())
            ).final,
            1 / float(carried(VP.t_min)),
            5e-2,
        ),
    ),
    "eta of a churning method": (
        "KarrasHeun takes its noise from churn",
        lambda: simulate(REVERSE, times=DOWN, solver=sg.KarrasHeun()),
        lambda: (
            flows(sg.KarrasHeun(), dynamics=sg.ReverseSDE(VP, GAUSS.score, eta=0.0)),
            simulate(REVERSE, times=DOWN, solver=sg.DPM2()),
        ),
    ),
    "denoising at the end of noising": (
        "in noise, where nothing is to be denoised",
        lambda: simulate(
            PROBABILITY_FLOW, times=DOWN.flip(0), solver=sg.FinalDenoising(sg.AngularAdams(2))
        ),
        lambda: near(
            simulate(
                PROBABILITY_FLOW, column(1.0), DOWN.flip(0), solver=sg.AngularAdams(2)
            ).final,
            1 / float(carried(VP.t_min)),
            5e-2,
        ),
    ),
    "the midpoint of a high order": (
        "rule='midpoint' is of order 2",
        lambda: sg.ExponentialAdams(3, rule="midpoint"),
        lambda: flows(sg.ExponentialAdams(3, rule="exact"), sg.timesteps.log_snr(VP, 20)),
    ),
    "a table of another length": (
        r"the table has \{\} rows",
        lambda: LinearMultistep(DOWN[:-1], MADE.table, VP.kernel),
        lambda: flows(LinearMultistep(DOWN, MADE.table, VP.kernel)),
    ),
    "other steps than a method was made for": (
        "this method was made for {} steps",
        lambda: flows(MADE, VP.time_grid(9)),
        lambda: flows(MADE, MADE.grid),
    ),
    "another grid than a method was made for": (
        "this method was made for another grid",
        lambda: flows(MADE, sg.timesteps.uniform(VP, 20)),
        lambda: flows(MADE, MADE.grid),
    ),
    "another eta than a method was made for": (
        "this method was made for eta",
        lambda: flows(MADE, dynamics=REVERSE),
        lambda: flows(MADE, dynamics=sg.ReverseSDE(VP, GAUSS.score, eta=0.0)),
    ),
    # --- grids of times
    "a grid for noise": (
        "a grid is made for the probability flow",
        lambda: sg.timesteps.auto(REVERSE, 3, solver=sg.AngularAdams(2)),
        lambda: grid_of(sg.ReverseSDE(VP, GAUSS.score, eta=0.0), solver=sg.AngularAdams(2)),
    ),
    "a grid without a kernel": (
        "a grid needs the α and σ of a kernel",
        lambda: sg.timesteps.auto(sg.ReverseSDE(OU, GAUSS.score, 0.0), 3),
        lambda: grid_of(sg.ReverseSDE(VP, GAUSS.score, 0.0), solver=sg.AngularAdams(2)),
    ),
    "a grid for states of no known shape": (
        "the shape of an event is not known of this score",
        lambda: sg.timesteps.auto(sg.ReverseSDE(VP, lambda x, t: GAUSS.score(x, t), 0.0), 3),
        lambda: grid_of(
            sg.ReverseSDE(VP, lambda x, t: -x, 0.0),
            VP.prior((48, 2)),
            solver=sg.AngularAdams(2),
        ),
    ),
    "a grid for a method that draws": (
        "a grid is made for a run without noise",
        lambda: sg.timesteps.auto(PROBABILITY_FLOW, 3, solver=sg.KarrasHeun(sg.Churn(5.0))),
        lambda: grid_of(PROBABILITY_FLOW, solver=sg.KarrasHeun()),
    ),
}
