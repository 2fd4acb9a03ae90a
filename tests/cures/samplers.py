"""Advice on solvers, samplers and grids of times, followed."""

import torch

import sdegen as sg
from tests.cures.common import (
    BM,
    CIR,
    F64,
    GAUSS,
    OU,
    PROBABILITY_FLOW,
    REVERSE,
    TWO,
    VP,
    column,
    near,
    simulate,
)

MIXING = sg.ItoProcess(lambda x: -x, lambda x: 0.2 * x.flip(1))
DOWN = sg.timesteps.power(VP, 20)
EVEN = VP.time_grid(10)


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


def along(nodes, own):
    """The end of a Brownian motion whose noise was made for some nodes, run along others."""
    path, x = sg.BrownianPath(0, [0.0, 0.5, 1.0]), column(0.0)
    *_, end = sg.integrate(BM, sg.EulerMaruyama(), x, nodes, path.noise(x, own))
    return end


def steps_of():
    """The noise of two steps."""
    return sg.StepNoise(sg.Noise(column(0.0), rng=0), [0.0, 0.5, 1.0])


def grid_of(flow, *pilot, solver):
    """A grid that is made for a flow goes from t_max down to t_min."""
    times = sg.timesteps.auto(flow, 3, *pilot, solver=solver, rng=0)
    near(times[[0, -1]], [VP.t_max, VP.t_min])
    assert bool((times.diff() < 0).all())


def lost_early(x, t):
    """The score, but NaN before t = 0.3."""
    late = torch.where(torch.as_tensor(t) < 0.3, torch.nan, 1.0)
    return GAUSS.score(x, t) * late.reshape(-1, 1)


def sampled(score, solver, times=DOWN, eta=0.0, **options):
    return simulate(sg.ReverseSDE(VP, score, eta), column(1.0), times, solver=solver, **options)


def without_the_lost():
    """What the score returns is looked at: NaN before t = 0.3; or what is lost stays there."""
    assert bool(lost_early(column(1.0), torch.tensor(0.25)).isnan().all())
    frozen = sampled(lost_early, sg.DDIM(), on_nonfinite="freeze")
    assert bool(frozen.nonfinite.all())
    flows(sg.DDIM(), tolerance=0.2)


def falling(steps, **options):
    """ẋ = −x³ from 8."""
    return simulate(sg.ItoProcess(lambda x: -(x**3), 1e-3), column(8.0), solver=steps, **options)


def smaller_steps():
    """x(1) = 8/√(1 + 2 · 8²) by small steps; without those lost nothing is left of it."""
    near(falling(sg.EulerMaruyama(200)).final, 8 / 129**0.5, 1e-2)
    assert bool(falling(sg.EulerMaruyama(), on_nonfinite="freeze").nonfinite.all())


def square_root(**options):
    return simulate(CIR, column(0.5, 2000), solver=sg.EulerMaruyama(10), **options)


def kept_inside():
    """The mean of dX = (½ − X) dt + 1.5 √X dW stays ½."""
    final = square_root(boundary=sg.Reflecting(low=0)).final
    assert abs(float(final.mean()) - 0.5) < 5 * float(final.std()) / 2000**0.5
    assert float(final.min()) >= 0


def chain_to_the_data(times, solver):
    """A chain of Gaussian data ends, denoised, at their standard deviation ½."""
    chain = sg.DDPM.discretize(VP, times=times)
    nodes = torch.arange(len(times) - 1.0, -1, -1)
    x_T = VP.prior((2000, 1), rng=0, dtype=F64)
    final = sg.simulate(chain.reverse(GAUSS.score), x_T, nodes, solver=solver, rng=1).final
    assert abs(float(final.std()) - 0.5) < 0.06


def growing(until, solver):
    """ẋ = x² from 2, which is 2/(1 − 2t) and ends at t = ½."""
    times = torch.linspace(0.0, until, 11, dtype=F64)
    path = simulate(sg.ItoProcess(lambda x: x**2, 0.0), column(2.0), times, solver=solver)
    near(path.final, 2 / (1 - 2 * until), 1e-3)


def running_out(until):
    """ẋ = √x − 2 from ½, which meets 0 at t = 0.3."""
    times = torch.linspace(0.0, until, 11, dtype=F64)
    process = sg.ItoProcess(lambda x: torch.sqrt(x) - 2, 0.0)
    path = simulate(process, column(0.5), times, solver=sg.TorchDiffEq())
    root = path.final.sqrt()
    spent = 2 * (0.5**0.5 - root) + 4 * torch.log((2 - 0.5**0.5) / (2 - root))
    near(-spent, until, 1e-3)


MADE = sg.LinearMultistep(DOWN, sg.AngularAdams(2).coefficients(PROBABILITY_FLOW, DOWN), VP.kernel)


def by_hand(noise):
    return sg.integrate(BM, sg.EulerMaruyama(), column(0.5), [0.0, 0.1], noise)


NOISE_ALONE = sg.VP(sg.ZeroTerminalSNR(sg.LinearBeta(0.1, 20.0)))
NARROW = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(NOISE_ALONE)


def from_noise_alone(solver=None, times=None, score=NARROW.score):
    """The flow of Gaussian data from where no signal is left."""
    times = NOISE_ALONE.time_grid(200) if times is None else times
    flow, x_T = sg.ReverseSDE(NOISE_ALONE, score, 0.0), NOISE_ALONE.prior((4, 1), rng=0, dtype=F64)
    near(sg.simulate(flow, x_T, times, solver=solver).final, 0.5 * x_T, 0.05)


def chain_from_noise_alone(score=NARROW.score):
    chain = sg.DDPM.discretize(NOISE_ALONE, 100).reverse(score)
    x_T = NOISE_ALONE.prior((2000, 1), rng=0, dtype=F64)
    path = sg.simulate(chain, x_T, torch.arange(101.0).flip(0), rng=1, keep_path=False)
    assert abs(float(path.final.std()) - 0.5) < 0.06
    return chain


def bounded_from_noise_alone():
    x = NARROW.mixture.sample(200, rng=0, dtype=F64)
    chain = sg.DDPM.discretize(NOISE_ALONE, 100).reverse(NARROW.score, "beta")
    gap = sg.elbo(chain, x, rng=0).log_prob - NARROW.mixture.log_prob(x)
    assert -0.3 < float(gap.mean()) < 0.0


def read_by(how, weighting="flow-matching", times="importance"):
    """A training where no signal is left."""
    model = sg.ScoreModel(sg.MLP(1, width=4, depth=1, rng=0), NOISE_ALONE, how)
    data, few = torch.linspace(-1.0, 1.0, 32)[:, None], sg.TrainConfig(steps=3, batch_size=8)
    loss = sg.DenoisingLoss(weighting, times=times)
    assert bool(sg.train(model, data, few, loss=loss, rng=0).losses.isfinite().all())


FOLLOWED = {
    "what divides by the signal": (
        r"\{\} divides by α\(t\), but at t_max = \{\} of this path",
        lambda: from_noise_alone(sg.Heun()),
        lambda: (
            from_noise_alone(sg.DDIM()),
            chain_from_noise_alone(),
            bounded_from_noise_alone(),
        ),
    ),
    "a solver that divides by the signal": (
        r"\{\} divides by α\(t\), but at t = \{\} of this path",
        lambda: from_noise_alone(sg.ExponentialAdams()),
        lambda: (from_noise_alone(sg.DDIM()), chain_from_noise_alone()),
    ),
    "a score that tells no x0": (
        r"\{\} begins where no signal is left",
        lambda: chain_from_noise_alone(lambda x, t: NARROW.score(x, t)),
        lambda: (
            chain_from_noise_alone(),
            sg.DDPM.discretize(NOISE_ALONE, 5).reverse(
                sg.ScoreModel(sg.MLP(1, rng=0), NOISE_ALONE, sg.VPrediction()).score
            ),
        ),
    ),
    "a prediction that tells no x0": (
        r"\{\} tells no x0 at t_max",
        lambda: read_by(sg.EpsPrediction()),
        lambda: [read_by(kind()) for kind in (sg.VPrediction, sg.X0Prediction, sg.FlowPrediction)],
    ),
    "an error of ε without signal": (
        r"Pass weighting='flow-matching', which counts the error",
        lambda: read_by(sg.VPrediction(), "simple"),
        lambda: read_by(sg.VPrediction(), "flow-matching"),
    ),
    "levels without an end": (
        r"times = 'log-snr' has no end at t_max",
        lambda: read_by(sg.VPrediction(), times="log-snr"),
        lambda: [
            read_by(sg.VPrediction(), times=q) for q in ("importance", "uniform", torch.ones_like)
        ],
    ),
    "a schedule that is rescaled twice": (
        "beta is rescaled already",
        lambda: sg.ZeroTerminalSNR(NOISE_ALONE.beta),
        lambda: near(sg.VP(NOISE_ALONE.beta).alpha(torch.tensor(1.0)), 0.0),
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
            REVERSE,
            times=DOWN,
            solver=sg.FinalDenoising(sg.PredictorCorrector(predictor=sg.DDIM())),
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
    "a predictor that asks for areas": (
        "predictor must draw normals alone",
        lambda: simulate(REVERSE, times=EVEN, solver=sg.PredictorCorrector(predictor=sg.SRA())),
        lambda: [
            simulate(REVERSE, times=EVEN, solver=sg.PredictorCorrector(predictor=inner))
            for inner in (sg.EulerMaruyama(), sg.DDIM())
        ],
    ),
    "SRA of multiplicative noise": (
        "SRA solves equations with additive noise",
        lambda: simulate(sg.ItoProcess(lambda x: -x, lambda x: 0.1 * x), solver=sg.SRA()),
        lambda: [
            simulate(sg.ItoProcess(lambda x: -x, lambda x: 0.1 * x), solver=sg.Milstein()),
            simulate(
                sg.ItoProcess(lambda x: -x, lambda x, t: t, noise="additive"), solver=sg.SRA()
            ),
        ],
    ),
    "torchsde's methods and a g that mixes coordinates": (
        "needs a g_i\\(x\\) that depends on x_i alone",
        lambda: simulate(MIXING, TWO, solver=sg.TorchSDE("milstein")),
        lambda: [simulate(MIXING, TWO, solver=one) for one in (sg.Milstein(), sg.DRI1())],
    ),
    "the noise of other steps": (
        "make the noise of each run with its own nodes",
        lambda: along([0.0, 0.5, 1.0], [0.0, 1.0]),
        lambda: near(along([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]), along([0.0, 1.0], [0.0, 1.0])),
    ),
    "noise of a step that is over": (
        "steps go in order; make another noise with the same rng",
        lambda: [(noise := steps_of()).increment(1), noise.increment(0)],
        lambda: near(steps_of().increment(0), steps_of().increment(0)),
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
        "takes its noise from churn, but eta is",
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
            simulate(PROBABILITY_FLOW, column(1.0), DOWN.flip(0), solver=sg.AngularAdams(2)).final,
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
        lambda: sg.LinearMultistep(DOWN[:-1], MADE.table, VP.kernel),
        lambda: flows(sg.LinearMultistep(DOWN, MADE.table, VP.kernel)),
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
        r"compares paths with those of the flow, but \{\} has eta",
        lambda: sg.timesteps.auto(REVERSE, 3, solver=sg.AngularAdams(2)),
        lambda: grid_of(sg.ReverseSDE(VP, GAUSS.score, eta=0.0), solver=sg.AngularAdams(2)),
    ),
    "a grid without a kernel": (
        "needs the α and σ of a kernel: pass the ReverseSDE of a GaussianPath",
        lambda: sg.timesteps.auto(sg.ReverseSDE(OU, lambda x, t: -x, 0.0), 3),
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
        r"compares paths with those of the flow, but \{\} draws noise",
        lambda: sg.timesteps.auto(PROBABILITY_FLOW, 3, solver=sg.KarrasHeun(sg.Churn(5.0))),
        lambda: grid_of(PROBABILITY_FLOW, solver=sg.KarrasHeun()),
    ),
    # --- runs that are lost
    "steps too long": (
        r"Take smaller steps \(substeps=…\), or \{\}",
        lambda: falling(sg.EulerMaruyama()),
        smaller_steps,
    ),
    "a score that is lost": (
        r"look at what it returns there, or pass \{\}",
        lambda: sampled(lost_early, sg.DDIM()),
        without_the_lost,
    ),
    "states beyond the space of a process": (
        r"pass boundary=\{\} to keep the states there",
        square_root,
        kept_inside,
    ),
    "adaptive steps into a lost score": (
        "Look at what the network returns there, or end the times before",
        lambda: sampled(lost_early, sg.AdaptiveHeun(), VP.time_grid(5)),
        lambda: near(
            sampled(lost_early, sg.AdaptiveHeun(), torch.linspace(1.0, 0.35, 6)).final,
            float(carried(0.35)),
            2e-2,
        ),
    ),
    "tolerances below the precision of t": (
        r"found no step between t = \{\} and \{\} that would do at rtol",
        lambda: simulate(REVERSE, column(1.0).float(), EVEN, solver=sg.AdaptiveHeun(1e-9, 1e-9)),
        lambda: flows(sg.AdaptiveHeun(1e-2, 1e-2)),
    ),
    "fixed steps of torchdiffeq": (
        "; for fixed steps take Heun",
        lambda: sg.TorchDiffEq("rk4"),
        lambda: (flows(sg.Heun(substeps=10)), flows(sg.EulerMaruyama(substeps=20))),
    ),
    "a solution that runs out": (
        r"or a score be asked too close to t = 0: end before that t",
        lambda: running_out(1.0),
        lambda: running_out(0.28),
    ),
    "a solution that diverges": (
        r"end before that t. Or the drift may jump: loosen rtol and atol",
        lambda: growing(1.0, sg.TorchDiffEq()),
        lambda: growing(0.45, sg.TorchDiffEq()),
    ),
    "noisy dynamics without noise": (
        r"but noise is None; pass",
        lambda: next(by_hand(None)),
        lambda: next(by_hand(sg.Noise(column(0.5), rng=0))),
    ),
    # --- chains
    "denoising a chain that denoises": (
        "denoises already: it adds no noise and returns",
        lambda: chain_to_the_data(torch.linspace(0, 1, 51), sg.FinalDenoising(sg.EulerMaruyama())),
        lambda: chain_to_the_data(torch.linspace(0, 1, 51), sg.EulerMaruyama()),
    ),
    "denoising a chain that ends in noise": (
        r"A chain whose times begin at 0 ends with",
        lambda: chain_to_the_data(
            torch.linspace(VP.t_min, 1, 51), sg.FinalDenoising(sg.EulerMaruyama())
        ),
        lambda: chain_to_the_data(torch.linspace(0, 1, 51), sg.EulerMaruyama()),
    ),
}
