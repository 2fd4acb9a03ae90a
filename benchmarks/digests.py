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
from sdegen.solvers import timesteps

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
    walls = sg.Walls(0.0, 1.0, kind)
    return _path(sg.BrownianMotion(1.0), sg.EulerMaruyama(10), walls=walls)


def _calibrated():
    flow = sg.ReverseSDE(VP, LAW.noised(VP).score, eta=0.0)
    x_t = VP.prior((64, 2), rng=1, dtype=torch.float64)
    return sg.calibrate(flow, sg.ExponentialAdamsMoulton(2), 5, x_t).times


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
    "calibration": _calibrated,
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
