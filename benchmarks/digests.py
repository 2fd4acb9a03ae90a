"""Digests of seeded results: which bits a change moves.

    python -m benchmarks.digests                         # prints one line for each result
    python -m benchmarks.digests --write before.json     # …and stores them
    python -m benchmarks.digests --against before.json   # names those that differ

A digest is the sha256 of a result's numbers. It depends on the processor and on torch's version as
well as on the code, so that two versions of the code are compared on one machine.
"""

import argparse
import hashlib
import json
import math
import sys
import warnings
from pathlib import Path

import torch

import sdegen as sg
from sdegen.diffusion import timesteps

DOUBLE = {"dtype": torch.float64}
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
MULTIPLICATIVE = sg.ItoProcess(lambda x: -x, lambda x: (1 + x**2).sqrt())
STRATONOVICH = sg.ItoProcess(
    lambda x: -x, lambda x: (1 + x**2).sqrt(), interpretation="stratonovich"
)
ODE = sg.ItoProcess(lambda x: x - x**3, 0.0)
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
EDM = sg.EDM()
LAW = sg.GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], stds=[0.2, 0.4])


def _start(n, d=1, at=0.5):
    return torch.full((n, d), at, **DOUBLE)


def _path(sde, solver, *, n=300, x0=None, times=None, **options):
    times = torch.linspace(0, 1, 11) if times is None else times
    start = _start(n) if x0 is None else x0
    return sg.simulate(sde, start, times, solver=solver, rng=3, **options).states


def _sampled(solver, eta, grid=None, sde=VP, **options):
    reverse = sg.ReverseSDE(sde, LAW.noised(sde).score, eta=eta)
    times = sde.time_grid(12) if grid is None else grid(sde, 12)
    x0 = sde.prior((200, 2), rng=1, dtype=torch.float64)
    return sg.simulate(reverse, x0, times, solver=solver, rng=2, **options).states


def _ensemble(observables, **options):
    result = sg.run_ensemble(
        WELL,
        _start(1),
        torch.linspace(0, 2, 5),
        trajectories=70_000,
        solver=sg.EulerMaruyama(substeps=5),
        observables=observables,
        rng=5,
        **options,
    )
    return [vars(v) if hasattr(v, "__dict__") else v for v in result.observables.values()]


def _trained():
    network = sg.MLP(dim=2)
    with torch.no_grad():  # the same weights in every version of the code
        for weights in network.parameters():
            weights.copy_(torch.linspace(-9, 9, weights.numel()).sin().reshape(weights.shape) / 9)
    model = sg.ScoreModel(network, VP, sg.EpsPrediction())
    data = sg.data.two_moons(500, rng=0)
    result = sg.train(model, data, sg.TrainConfig(steps=20), rng=0)
    return [torch.as_tensor(result.losses), model.score(data[:50], torch.tensor(0.5))]


def _chain(variance):
    chain = sg.DDPM.discretize(VP, steps=50)
    k = torch.arange(51.0)
    forward = sg.simulate(chain, LAW.sample(200, rng=0).double(), k, rng=0)
    reverse = chain.reverse(LAW.noised(VP).score, variance)
    return [forward.states, sg.simulate(reverse, forward.final, k.flip(0), rng=1).states]


def _walls(kind):
    box = {"no-flux": sg.Reflecting, "absorbing": sg.Absorbing, "periodic": sg.Periodic}[kind]
    return _path(sg.BrownianMotion(1.0), sg.EulerMaruyama(10), boundary=box(0.0, 1.0))


def _calibrated():
    flow = sg.ReverseSDE(VP, LAW.noised(VP).score, eta=0.0)
    x_t = VP.prior((64, 2), rng=1, dtype=torch.float64)
    return sg.calibrate(flow, sg.ExponentialAdamsMoulton(2), 5, x_t).times


def _counted(sde, solver, **options):
    start = options.pop("x0", _start(300))
    times = options.pop("times", torch.linspace(0, 1, 6))
    path = sg.simulate(sde, start, times, solver=solver, rng=7, **options)
    parts = [path.states, path.nfe, path.nonfinite.double()]
    parts += [v.double() for v in (path.absorbed, path.windings) if v is not None]
    return [*parts, vars(path.step_error) if path.step_error is not None else {}]


def _gradient(solver, sde=WELL):
    x0 = _start(20).requires_grad_()
    final = _path(sde, solver, x0=x0, differentiable=True)[-1]
    (slope,) = torch.autograd.grad(final.sum(), x0)
    return [final, slope]


def _law(solver, eta, **options):
    flow = sg.ReverseSDE(VP, sg.GaussianMixture([1.0], [0.3], stds=0.5).noised(VP).score, eta=eta)
    grid = sg.Grid(-12.0, 12.0, 600)
    chain = sg.ChainDensity(flow, grid, solver, **options)
    return chain.run(grid.gaussian(0.0, 1.0), VP.time_grid(6)).p


def _calibrated_coefficients():
    flow = sg.ReverseSDE(VP, LAW.noised(VP).score, eta=0.0)
    x_t = VP.prior((64, 2), rng=1, dtype=torch.float64)
    found = sg.calibrate(flow, sg.AngularAdams(2), 5, x_t, rounds=6, free_coefficients=True)
    return [found.times, found.error]


def _brownian():
    times = torch.linspace(0, 1, 41)
    brownian = sg.BrownianPath(3, times)
    return [_path(WELL, sg.EulerMaruyama(k), brownian=brownian) for k in (1, 2, 4)]


def _density(**options):
    grid = sg.Grid(-3.0, 3.0, 200)
    fp = sg.FokkerPlanck(WELL, grid)
    return fp.solve(grid.gaussian(-1.0, 0.2), [0.0, 1.0, 5.0], **options).p


RESULTS = {
    "simulate, Euler-Maruyama": lambda: _path(WELL, sg.EulerMaruyama(4)),
    "simulate, Euler-Maruyama, float32": lambda: _path(
        WELL, sg.EulerMaruyama(4), x0=_start(300).float()
    ),
    "simulate, several blocks": lambda: _path(WELL, sg.EulerMaruyama(), n=120_000),
    "simulate, two dimensions": lambda: _path(OU, sg.EulerMaruyama(2), x0=_start(300, 2)),
    "simulate, multiplicative": lambda: _path(MULTIPLICATIVE, sg.EulerMaruyama(4)),
    "simulate, Stratonovich": lambda: _path(STRATONOVICH, sg.EulerMaruyama(4)),
    "simulate, Heun": lambda: _path(WELL, sg.Heun(4)),
    "simulate, Heun, ODE": lambda: _path(ODE, sg.Heun(4)),
    "simulate, adaptive Heun": lambda: _sampled(sg.AdaptiveHeun(), 1.0),
    "simulate, torchsde euler": lambda: _path(MULTIPLICATIVE, sg.TorchSDE("euler", 4)),
    "simulate, torchsde milstein": lambda: _path(MULTIPLICATIVE, sg.TorchSDE("milstein", 4)),
    "simulate, torchsde srk": lambda: _path(MULTIPLICATIVE, sg.TorchSDE("srk", 4)),
    "simulate, torchdiffeq dopri5": lambda: _path(ODE, sg.TorchDiffEq("dopri5")),
    "simulate, Langevin": lambda: _path(
        sg.Langevin(sg.DoubleWell(), temperature=0.3), sg.EulerMaruyama(4)
    ),
    "simulate, walls without flux": lambda: _walls("no-flux"),
    "simulate, absorbing walls": lambda: _walls("absorbing"),
    "simulate, periodic walls": lambda: _walls("periodic"),
    "simulate, freeze": lambda: _path(
        sg.ItoProcess(lambda x: x**3, 1.0), sg.EulerMaruyama(), on_nonfinite="freeze"
    ),
    "ensemble, moments": lambda: _ensemble([sg.Moments()]),
    "ensemble, histogram": lambda: _ensemble([sg.Histogram(-2.0, 2.0, 40)]),
    "ensemble, first passage": lambda: _ensemble([sg.FirstPassage(above=0.9)]),
    "ensemble, time correlation": lambda: _ensemble([sg.TimeCorrelation()]),
    "reverse, Euler-Maruyama": lambda: _sampled(sg.EulerMaruyama(), 1.0),
    "reverse, DDIM 0": lambda: _sampled(sg.DDIM(), 0.0),
    "reverse, DDIM 1": lambda: _sampled(sg.DDIM(), 1.0),
    "reverse, Adams-Moulton 3": lambda: _sampled(sg.ExponentialAdamsMoulton(3), 0.0),
    "reverse, Adams-Moulton 2, v, noise": lambda: _sampled(
        sg.ExponentialAdamsMoulton(2, "v"), 1.0
    ),
    "reverse, Adams 2": lambda: _sampled(sg.ExponentialAdams(2), 0.0),
    "reverse, angular": lambda: _sampled(sg.AngularAdams(3), 0.0),
    "reverse, EDM, Karras Heun": lambda: _sampled(sg.KarrasHeun(), 0.0, timesteps.karras, EDM),
    "reverse, EDM, churn": lambda: _sampled(
        sg.KarrasHeun(churn=sg.Churn(20.0)), 0.0, timesteps.karras, EDM
    ),
    "reverse, predictor-corrector": lambda: _sampled(sg.PredictorCorrector(), 1.0),
    "reverse, final denoising": lambda: _sampled(sg.FinalDenoising(sg.EulerMaruyama()), 1.0),
    "DDPM, beta": lambda: _chain("beta"),
    "DDPM, posterior": lambda: _chain("posterior"),
    "prior, VP": lambda: VP.prior((100, 3), rng=0),
    "prior, VE": lambda: sg.VE(sg.GeometricSigma(0.01, 50.0)).prior((100, 3), rng=0),
    "perturb": lambda: VP.perturb(_start(100, 2), torch.tensor(0.3, **DOUBLE), rng=0),
    "data": lambda: [
        sg.data.two_moons(100, rng=0),
        sg.data.eight_gaussians(100, rng=0),
        sg.data.swiss_roll(100, rng=0),
        sg.data.checkerboard(100, rng=0),
    ],
    "mixture": lambda: LAW.sample(100, rng=0),
    "train": _trained,
    "likelihood": lambda: (
        sg.log_likelihood(VP, LAW.noised(VP).score, LAW.sample(20, rng=0).double()).log_prob
    ),
    "likelihood, Hutchinson": lambda: (
        sg.log_likelihood(
            VP,
            LAW.noised(VP).score,
            LAW.sample(20, rng=0).double(),
            divergence=sg.Hutchinson(8),
            rng=0,
        ).log_prob
    ),
    "ELBO of a chain": lambda: vars(
        sg.elbo(
            sg.DDPM.discretize(VP, steps=20).reverse(LAW.noised(VP).score, "beta"),
            LAW.sample(20, rng=0).double(),
            rng=0,
        )
    ),
    "sliced Wasserstein": lambda: torch.tensor(
        sg.metrics.sliced_wasserstein(LAW.sample(200, rng=0), LAW.sample(200, rng=1))
    ),
    "simulate, Heun, float32, two dimensions": lambda: _counted(
        OU, sg.Heun(3), x0=_start(70, 2).float()
    ),
    "simulate, time-dependent": lambda: _counted(
        sg.ItoProcess(lambda x, t: t.cos() - x, lambda x, t: 1 + 0.1 * t * x), sg.EulerMaruyama(3)
    ),
    "simulate, additive of time": lambda: _counted(
        sg.ItoProcess(lambda x, t: t.cos() - x, lambda t: 1 + t), sg.Heun(3)
    ),
    "simulate, parameters": lambda: _counted(
        sg.ItoProcess(
            lambda x, k: -k * x, 0.5, parameters={"k": torch.linspace(1, 2, 300)[:, None]}
        ),
        sg.EulerMaruyama(2),
    ),
    "simulate, torchsde heun": lambda: _counted(WELL, sg.TorchSDE("heun", 3)),
    "simulate, torchsde midpoint": lambda: _counted(WELL, sg.TorchSDE("midpoint", 3)),
    "simulate, torchsde srk, additive": lambda: _counted(WELL, sg.TorchSDE("srk", 3)),
    "simulate, torchsde, two axes": lambda: _counted(
        OU, sg.TorchSDE("srk", 2), x0=torch.full((5, 3, 2), 0.5, **DOUBLE)
    ),
    "simulate, torchsde, freeze": lambda: _counted(
        sg.ItoProcess(lambda x: x**3, lambda x: 1 + 0 * x),
        sg.TorchSDE("euler", 10),
        on_nonfinite="freeze",
    ),
    "simulate, dopri8": lambda: _counted(ODE, sg.TorchDiffEq("dopri8")),
    "simulate, bosh3, backwards": lambda: _counted(
        ODE, sg.TorchDiffEq("bosh3"), times=torch.tensor([1.0, 0.5, 0.1])
    ),
    "simulate, dopri5, driven": lambda: _counted(
        sg.ItoProcess(lambda x, t: (9 * t).cos() - x, 0.0), sg.TorchDiffEq("dopri5", 1e-7, 1e-9)
    ),
    "simulate, compiled": lambda: _counted(
        WELL, sg.EulerMaruyama(6, compile=True), times=torch.linspace(0, 1, 3)
    ),
    "simulate, compiled Heun": lambda: _counted(
        WELL, sg.Heun(6, compile=True), times=torch.linspace(0, 1, 3)
    ),
    "simulate, compiled, box": lambda: _counted(
        WELL,
        sg.EulerMaruyama(5, compile=True),
        times=torch.linspace(0, 1, 3),
        boundary=sg.Reflecting(0.0, 1.0),
    ),
    "simulate, gradients": lambda: [
        _gradient(solver)
        for solver in (
            sg.EulerMaruyama(3),
            sg.Heun(3),
            sg.TorchSDE("srk", 3),
            sg.TorchSDE("euler"),
        )
    ],
    "simulate, gradients, multiplicative": lambda: [
        _gradient(solver, MULTIPLICATIVE)
        for solver in (sg.EulerMaruyama(3), sg.TorchSDE("milstein", 3), sg.TorchSDE("srk", 3))
    ],
    "simulate, gradients, flow": lambda: [
        _gradient(solver, ODE) for solver in (sg.Heun(3), sg.TorchDiffEq("dopri5"))
    ],
    "simulate, Brownian path": _brownian,
    "simulate, periodic, turns": lambda: _counted(
        sg.BrownianMotion(3.0), sg.EulerMaruyama(5), boundary=sg.Periodic(0.0, 1.0)
    ),
    "simulate, absorbing, bridge": lambda: _counted(
        sg.BrownianMotion(1.0), sg.EulerMaruyama(5), boundary=sg.Absorbing(0.0, 1.0)
    ),
    "simulate, absorbing, moving": lambda: _counted(
        sg.BrownianMotion(1.0), sg.EulerMaruyama(5), boundary=sg.Absorbing(high=lambda t: 1 + t)
    ),
    "simulate, square-root noise": lambda: _counted(
        sg.ItoProcess(lambda x: 0.5 - x, lambda x: x.clamp(min=0).sqrt()),
        sg.EulerMaruyama(5),
        boundary=sg.Reflecting(0.0),
    ),
    "simulate, two kinds of ends": lambda: _counted(
        sg.BrownianMotion(1.0),
        sg.EulerMaruyama(5),
        x0=_start(300, 2),
        boundary={0: sg.Reflecting(0.0, 1.0), 1: sg.Periodic(0.0, 2.0)},
    ),
    "simulate, freeze, box": lambda: _counted(
        sg.ItoProcess(lambda x: torch.where(x > 0.99, math.nan, 0 * x), 1.0),
        sg.EulerMaruyama(5),
        boundary=sg.Reflecting(0.0, 1.0),
        on_nonfinite="freeze",
    ),
    "reverse, DPM2": lambda: _sampled(sg.DPM2(), 0.0),
    "reverse, DPM2, ancestral": lambda: _sampled(sg.DPM2(), 1.0),
    "reverse, DPM2, churn": lambda: _sampled(sg.DPM2(churn=sg.Churn(20.0)), 0.0),
    "reverse, Heun": lambda: _sampled(sg.Heun(), 1.0),
    "reverse, torchsde": lambda: _sampled(sg.TorchSDE("srk", 2), 1.0),
    "reverse, dopri5": lambda: _sampled(sg.TorchDiffEq("dopri5"), 0.0),
    "reverse, Adams 4": lambda: _sampled(sg.ExponentialAdams(4, "v"), 0.0),
    "reverse, Adams-Moulton 4, substeps": lambda: _sampled(
        sg.ExponentialAdamsMoulton(4, substeps=2), 0.0
    ),
    "reverse, angular 6": lambda: _sampled(sg.AngularAdams(6, data_std=0.8), 0.0),
    "reverse, Metropolis": lambda: _sampled(
        sg.MetropolisCorrector(LAW.noised(VP).log_prob, corrector_steps=2), 1.0
    ),
    "reverse, Metropolis on DDIM": lambda: _sampled(
        sg.MetropolisCorrector(LAW.noised(VP).log_prob, predictor=sg.DDIM()), 0.0
    ),
    "reverse, predictor-corrector on DDIM": lambda: _sampled(
        sg.PredictorCorrector(predictor=sg.DDIM(), corrector_steps=2), 0.5
    ),
    "reverse, final denoising of Adams": lambda: _sampled(
        sg.FinalDenoising(sg.ExponentialAdams(2)), 0.0
    ),
    "reverse, ensemble": lambda: vars(
        sg.run_ensemble(
            sg.ReverseSDE(VP, LAW.noised(VP).score, eta=1.0),
            VP.prior((1, 2), rng=1, dtype=torch.float64),
            VP.time_grid(8),
            trajectories=500,
            solver=sg.DDIM(),
            observables=[sg.Moments()],
            rng=4,
        ).observables["moments"]
    ),
    "noising through Adams": lambda: _path(
        sg.ReverseSDE(VP, LAW.noised(VP).score, eta=0.0),
        sg.ExponentialAdams(2),
        x0=LAW.sample(50, rng=0).double(),
        times=VP.time_grid(8).flip(0),
    ),
    "law of Euler": lambda: _law(sg.EulerMaruyama(), 1.0),
    "law of DDIM": lambda: _law(sg.DDIM(substeps=2), 0.5),
    "law of Karras Heun, churn": lambda: _law(sg.KarrasHeun(churn=sg.Churn(3.0)), 0.0),
    "law of Adams 2": lambda: _law(sg.ExponentialAdams(2), 1.0),
    "law of Adams-Moulton 3, flow": lambda: _law(sg.ExponentialAdamsMoulton(3), 0.0),
    "law of final denoising": lambda: _law(sg.FinalDenoising(sg.DDIM()), 1.0),
    "made grid": lambda: list(
        vars(timesteps.made_for(sg.ReverseSDE(VP, LAW.noised(VP).score, eta=0.0), 6)).values()
    ),
    "calibration": _calibrated,
    "calibration, free coefficients": _calibrated_coefficients,
    "density": _density,
    "density, backward Euler": lambda: _density(integrator=sg.BackwardEuler(20)),
    "density, stationary": lambda: sg.FokkerPlanck(WELL, sg.Grid(-3.0, 3.0, 200)).stationary().p,
    "density, first passage": lambda: (
        sg.FokkerPlanck(WELL, sg.Grid(-3.0, 1.0, 200), ("no-flux", "absorbing"))
        .first_passage()
        .mean
    ),
    "density, spectrum": lambda: sg.FokkerPlanck(WELL, sg.Grid(-3.0, 3.0, 200)).spectrum(3).rates,
    "density, transport": lambda: vars(
        sg.FokkerPlanck(
            sg.ItoProcess(lambda x: 0.5 - torch.sin(x), 1.0),
            sg.Grid(0.0, 2 * math.pi, 200),
            "periodic",
        ).transport()
    ),
}


def _fed(sha, value):
    """Feeds all numbers of a result to a hash, in order."""
    if isinstance(value, torch.Tensor):
        sha.update(value.detach().contiguous().cpu().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value):
            _fed(sha, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _fed(sha, item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        sha.update(repr(value).encode())


def digest(make):
    """The sha256 of what `make` returns, or the error's kind and text."""
    sha = hashlib.sha256()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _fed(sha, make())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return sha.hexdigest()[:16]


def main():
    """Prints the digests, and what differs from others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: digest(make) for name, make in RESULTS.items()}
    if args.write:
        args.write.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    before = json.loads(args.against.read_text()) if args.against else {}
    for name, value in found.items():
        moved = name in before and before[name] != value
        print(f"{'MOVED ' if moved else ''}{name}: {value}")
    if any(name in before and before[name] != value for name, value in found.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
