"""Samplers by number of score evaluations, on an exact score and on a trained one.

python -m benchmarks.samplers

(a) a mixture in two dimensions with its exact score, started from the exact law at t_max: sliced
    W2 to exact samples beside its floor, and for noise-free routes the root-mean-square distance
    to the exact probability-flow map;
(b) two moons with a score trained here. Evaluations are counted by the run itself.
"""

import argparse
import time

import torch

import sdegen as sg
from benchmarks.record import write

STEPS = (5, 10, 20, 50, 100, 200)
SAMPLES = 10_000


def routes(sde, score):
    """name: (dynamics of N steps, times of N steps, solver)."""
    reverse, flow = sg.ReverseSDE(sde, score), sg.ReverseSDE(sde, score, eta=0.0)

    def ancestral(n):
        return sg.DDPM.discretize(sde, times=sde.time_grid(n)).reverse(score)

    def integers(n):
        return torch.arange(n, -1, -1.0, dtype=torch.float64)

    return {
        "DDPM ancestral": (ancestral, integers, sg.EulerMaruyama()),
        "reverse SDE, Euler-Maruyama": (lambda n: reverse, sde.time_grid, sg.EulerMaruyama()),
        "reverse SDE, Heun": (lambda n: reverse, sde.time_grid, sg.Heun()),
        "reverse SDE, torchsde euler": (lambda n: reverse, sde.time_grid, sg.TorchSDE("euler")),
        "reverse SDE, torchsde srk": (lambda n: reverse, sde.time_grid, sg.TorchSDE("srk")),
        "reverse SDE, predictor-corrector": (
            lambda n: reverse,
            sde.time_grid,
            sg.PredictorCorrector(),
        ),
        "DDIM, η = 1, log-SNR grid": (
            lambda n: reverse,
            lambda n: sg.timesteps.log_snr(sde, n),
            sg.DDIM(),
        ),
        "flow, Euler": (lambda n: flow, sde.time_grid, sg.EulerMaruyama()),
        "flow, Heun": (lambda n: flow, sde.time_grid, sg.Heun()),
        "flow, Heun, Karras grid": (
            lambda n: flow,
            lambda n: sg.timesteps.karras(sde, n),
            sg.Heun(),
        ),
        "flow, DDIM": (lambda n: flow, sde.time_grid, sg.DDIM()),
        "flow, DDIM, log-SNR grid": (
            lambda n: flow,
            lambda n: sg.timesteps.log_snr(sde, n),
            sg.DDIM(),
        ),
    }


def adaptive(sde, score):
    """Noise-free routes whose evaluations follow from a tolerance."""
    flow = sg.ReverseSDE(sde, score, eta=0.0)
    return {
        f"flow, torchdiffeq dopri5, rtol = atol = {tol:g}": (
            flow,
            sg.TorchDiffEq("dopri5", rtol=tol, atol=tol),
        )
        for tol in (1e-2, 1e-3, 1e-4, 1e-5)
    }


def row(name, steps, dynamics, times, solver, x_T, target, exact):
    """One run: evaluations, seconds, distance to the target and to the exact map of a flow."""
    start = time.perf_counter()
    out = sg.simulate(dynamics, x_T, times, solver=solver, rng=2, keep_path=False)
    seconds = time.perf_counter() - start
    off = (
        (out.final - exact).square().sum(1).mean().sqrt()
        if exact is not None and dynamics.noise == "none"
        else None
    )
    return {
        "route": name, "steps": steps, "nfe": out.nfe, "seconds": round(seconds, 3),
        "sliced W2": float(sg.metrics.sliced_wasserstein(out.final, target)),
        "distance to the exact flow": None if off is None else float(off),
    }  # fmt: skip


def table(sde, score, x_T, target, other, steps):
    """All routes at all step counts, after the floor: exact samples against exact samples."""
    flow = sg.ReverseSDE(sde, score, eta=0.0)
    tight = sg.TorchDiffEq("dopri5", rtol=1e-9, atol=1e-9)
    exact = sg.simulate(flow, x_T, sde.time_grid(1), solver=tight, keep_path=False).final
    rows = [
        {
            "route": "floor: other exact samples",
            "sliced W2": float(sg.metrics.sliced_wasserstein(other, target)),
        }
    ]
    for name, (dynamics, grid, solver) in routes(sde, score).items():
        for n in steps:
            rows.append(row(name, n, dynamics(n), grid(n), solver, x_T, target, exact))
            print(rows[-1], flush=True)
    for name, (dynamics, solver) in adaptive(sde, score).items():
        rows.append(row(name, None, dynamics, sde.time_grid(1), solver, x_T, target, exact))
        print(rows[-1], flush=True)
    return rows


def main(quick=False):
    steps, n = (STEPS[:2], 500) if quick else (STEPS, SAMPLES)
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    mixture = sg.GaussianMixture(
        [0.3, 0.5, 0.2], [[-1.0, 0.0], [1.0, 0.5], [0.0, -1.0]], stds=[0.15, 0.25, 0.1]
    )
    oracle, low = mixture.noised(sde), torch.tensor(sde.t_min, dtype=torch.float64)
    x_T = oracle.sample(
        n, torch.tensor(sde.t_max, dtype=torch.float64), rng=0, dtype=torch.float64
    )
    target, other = (oracle.sample(n, low, rng=seed, dtype=torch.float64) for seed in (10, 11))
    tables = {
        "exact score of a mixture in 2-D": table(sde, oracle.score, x_T, target, other, steps)
    }

    data = sg.data.two_moons(20_000 if not quick else 2 * n, rng=0)
    model = sg.ScoreModel(sg.MLP(dim=2, rng=0), sde, sg.EpsPrediction())
    sg.train(model, data[: len(data) // 2], sg.TrainConfig(steps=50 if quick else 5_000), rng=0)
    target, other = data[len(data) // 2 :][:n], data[: len(data) // 2][:n]
    tables["two moons, trained score"] = table(
        sde, model.score, sde.prior((n, 2), rng=1), target, other, steps
    )
    write("samplers", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(parser.parse_args().quick)
