"""Native steps, torchsde and torchdiffeq: time per step and error, in turn in one run.

python -m benchmarks.backends

(a) cost of `simulate` beside the plain loop x = x + dt f(x) + s randn, and of torchsde by itself
    and behind our adaptor: a double well, float32, microseconds a step;
(b) error on a problem with an exact answer: the reverse VP-SDE of Gaussian data of standard
    deviation 0.1, exact score; the standard deviation that comes out over the exact one. The
    Monte-Carlo error of 10⁵ samples is 0.2 %;
(c) noise-free: the probability flow of the same, error of the map, evaluations and time.
"""

import argparse
import statistics
import time
import warnings

import torch
import torchsde

import sdegen as sg
from benchmarks.record import write
from benchmarks.timing import walls


def seconds(run, repeats=5):
    """Median of a few runs after one to warm up."""
    return statistics.median(walls(run, repeats))


class DoubleWellForTorchSDE(torch.nn.Module):
    noise_type, sde_type = "diagonal", "ito"

    def f(self, t, x):
        return x - x**3

    def g(self, t, x):
        return torch.full_like(x, 0.7)


def plain_loop(x, steps, dt, generator):
    """What anybody would write."""
    s = 0.7 * dt**0.5
    with torch.no_grad():
        for _ in range(steps):
            x = x + dt * (x - x**3) + s * torch.randn(x.shape, generator=generator)
    return x


def cost(sizes, steps):
    """(a)"""
    sde = sg.ItoProcess(drift=lambda x, t: x - x**3, diffusion=0.7)
    rows = []
    for n in sizes:
        x0, dt, generator = torch.zeros(n, 1), 1 / steps, torch.Generator().manual_seed(0)
        times = torch.tensor([0.0, 1.0])
        fewer = min(steps, 20)  # torchsde by itself takes 10 ms a step

        def ours(solver, x0=x0, times=times):
            sg.simulate(sde, x0, times, solver=solver, rng=0, keep_path=False)

        def theirs(x0=x0, fewer=fewer):
            ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
            with torch.no_grad():
                torchsde.sdeint(DoubleWellForTorchSDE(), x0, ts, method="euler", dt=1 / fewer)

        loop = seconds(lambda x0=x0, dt=dt, g=generator: plain_loop(x0, steps, dt, g)) / steps
        for name, run, count in (
            ("plain torch loop", None, steps),
            ("simulate, EulerMaruyama", lambda: ours(sg.EulerMaruyama(substeps=steps)), steps),
            ("simulate, Heun", lambda: ours(sg.Heun(substeps=steps)), steps),
            (
                "simulate, TorchSDE euler",
                lambda: ours(sg.TorchSDE("euler", substeps=steps)),
                steps,
            ),
            ("simulate, TorchSDE srk", lambda: ours(sg.TorchSDE("srk", substeps=steps)), steps),
            ("torchsde alone, euler", theirs, fewer),
        ):
            each = loop if run is None else seconds(run) / count
            rows.append(
                {
                    "trajectories": n,
                    "method": name,
                    "µs a step": round(each * 1e6, 1),
                    "over the plain loop": round(each / loop, 3),
                }
            )
            print(rows[-1], flush=True)
    return rows


def reverse_error(n, counts):
    """(b)"""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    oracle = sg.GaussianMixture([1.0], [[0.0]], stds=0.1).noised(sde)
    x_T = oracle.sample(n, torch.tensor(1.0, dtype=torch.float64), rng=0, dtype=torch.float64)
    end = (
        float(
            sde.alpha(torch.tensor(sde.t_min)) ** 2 * 0.01
            + sde.sigma(torch.tensor(sde.t_min)) ** 2
        )
        ** 0.5
    )
    reverse = sg.ReverseSDE(sde, oracle.score)
    rows = []
    for solver in (
        sg.EulerMaruyama(),
        sg.Heun(),
        sg.TorchSDE("euler"),
        sg.TorchSDE("heun"),
        sg.TorchSDE("srk"),
        sg.DDIM(),
    ):
        for steps in counts:
            start = time.perf_counter()
            out = sg.simulate(
                reverse, x_T, sde.time_grid(steps), solver=solver, rng=1, keep_path=False
            )
            took = time.perf_counter() - start
            rows.append(
                {
                    "method": _name(solver),
                    "steps": steps,
                    "nfe": out.nfe,
                    "µs a step": round(took / steps * 1e6, 1),
                    "std over exact": round(float(out.final.std()) / end, 4),
                }
            )
            print(rows[-1], flush=True)
    return rows


def flow_error(n, counts):
    """(c)"""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    oracle = sg.GaussianMixture([1.0], [[0.3]], stds=0.1).noised(sde)
    x_T = oracle.sample(n, torch.tensor(1.0, dtype=torch.float64), rng=0, dtype=torch.float64)
    start_law, end_law = oracle.at(1.0), oracle.at(sde.t_min)
    exact = (
        end_law.mean + (x_T - start_law.mean) * (end_law.covariance / start_law.covariance).sqrt()
    )
    flow, rows = sg.ReverseSDE(sde, oracle.score, eta=0.0), []
    fixed = [
        (solver, steps)
        for solver in (sg.EulerMaruyama(), sg.Heun(), sg.DDIM())
        for steps in counts
    ]
    free = [(sg.TorchDiffEq("dopri5", rtol=tol, atol=tol), 1) for tol in (1e-3, 1e-5, 1e-7)]
    for solver, steps in fixed + free:
        start = time.perf_counter()
        out = sg.simulate(flow, x_T, sde.time_grid(steps), solver=solver, keep_path=False)
        took = time.perf_counter() - start
        rows.append(
            {
                "method": _name(solver),
                "steps": steps,
                "nfe": out.nfe,
                "µs an evaluation": round(took / out.nfe * 1e6, 1),
                "largest error of the map": float((out.final - exact).abs().max()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def _name(solver):
    """A solver's name with what distinguishes it."""
    told = [str(getattr(solver, word)) for word in ("method", "rtol") if hasattr(solver, word)]
    return " ".join([type(solver).__name__, *told])


def main(quick=False):
    torch.set_num_threads(1)  # one thread for all, so that the ratios are of code
    tables = {
        "cost of a step, double well, float32, one thread": cost(
            (100, 10_000, 100_000) if not quick else (100,), 200 if not quick else 10
        ),
        "reverse VP-SDE of Gaussian data, exact score, float64": reverse_error(
            100_000 if not quick else 1000, (20, 100)
        ),
        "probability flow of Gaussian data, exact score, float64": flow_error(
            10_000 if not quick else 100, (20, 100)
        ),
    }
    write("backends", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde by itself warns about its own defaults
        main(parser.parse_args().quick)
