"""Ensembles: million trajectory-steps a second, ours and the peers, in turn in one run.

python -m benchmarks.ensemble

What bounds an Euler-Maruyama step on a CPU is drawing its normals. **The limit** is what as many
threads as there are cores draw in blocks of 2¹⁶ normals, float32 by torch, float64 by NumPy's
ziggurat; it is measured next to each problem, and a rate is told as its share of it. Compiled runs
make their normals of integers, faster than torch draws them, and may be above it. A Heun step
draws as often as an Euler step, and a step in d dimensions draws d normals.

The peers are those that are installed; `pip install sdegen[benchmarks]` has all. Every number is
the best of a few runs, after one that compiles. Rates do not depend on the number of steps, so the
slow ones take fewer. torchsde is the exception and takes 100 steps to t = 1; with times in torch's
default dtype its cost is that of a tree refined to the last bit, with times in float64 it is not.
"""

import argparse
import subprocess
import sys
import threading
import time
import warnings

import torch

import sdegen as sg
from benchmarks.ensemble_peers import DT, Problem, peers
from benchmarks.record import write
from benchmarks.timing import best
from sdegen.core.noise import Stream
from sdegen.engine import record
from sdegen.engine.pool import available_cores

CORES = available_cores()
F32, F64 = torch.float32, torch.float64


def _coupled(d):
    """A ring of d coordinates, each drawn to 0 and to its neighbour."""
    return 1.5 * torch.eye(d) - 0.5 * torch.roll(torch.eye(d), 1, 0)


def _ornstein_uhlenbeck(d):
    matrix = _coupled(d)
    both = {dtype: matrix.to(dtype).T.contiguous() for dtype in (F32, F64)}
    array = matrix.numpy()
    return Problem(
        f"OU, {d} dimensions", d,
        lambda x: -(x @ both[x.dtype]), 1.0,
        lambda xp: lambda x: -(x @ xp.asarray(array.T, x.dtype)), lambda xp: lambda x: 1.0,
    )  # fmt: skip


WELL = Problem(
    "double well", 1,
    lambda x: x - x**3, 0.7,
    lambda xp: lambda x: x - x**3, lambda xp: lambda x: 0.7,
    (lambda x: x - x * x * x, lambda x: 0.7),
)  # fmt: skip
MULTIPLICATIVE = Problem(
    "multiplicative noise", 1,
    lambda x: -x, lambda x: 0.5 * torch.sqrt(1 + x * x),
    lambda xp: lambda x: -x, lambda xp: lambda x: 0.5 * xp.sqrt(1 + x * x),
    (lambda x: -x, lambda x: 0.5 * (1 + x * x) ** 0.5),
)  # fmt: skip
HEUN = Problem(
    "double well, Heun", 1,
    WELL.drift, 0.7, WELL.drift_of, WELL.diffusion_of, WELL.scalar, "heun",
)  # fmt: skip


def limit(dtype, threads, repeats=3, draws=200):
    """Million normals a second that so many threads draw in blocks of 2¹⁶."""

    def draw(seed):
        source = Stream(seed)
        for _ in range(draws):
            source.normal((2**16,), dtype=dtype)

    def run():
        workers = [threading.Thread(target=draw, args=(seed,)) for seed in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return threads * draws * 2**16 / best(run, repeats) / 1e6


def ours(problem, n, dtype, threads, *, compiled=False):
    """run(steps) of simulate."""
    sde = sg.ItoProcess(problem.drift, problem.diffusion, channels=problem.channels)
    kind = sg.Heun if problem.method == "heun" else sg.EulerMaruyama
    x0 = torch.zeros(n, problem.dimension, dtype=dtype)

    def run(steps):
        solver = kind(substeps=steps, compile=compiled)
        times = [0.0, steps * DT]
        return sg.simulate(
            sde, x0, times, solver=solver, rng=0, keep_path=False, threads=threads
        ).final

    return run


def fewer_steps(run, steps, seconds):
    """As many steps as take about so long, at most so many."""
    few = min(steps, 8)
    while True:
        run(few)
        start = time.perf_counter()
        run(few)
        taken = time.perf_counter() - start
        if taken > seconds / 10 or few == steps:
            return max(few, min(steps, int(seconds / taken * few)))
        few = min(steps, 8 * few)  # what a call costs must not count


def rates(problem, n, dtype, steps, *, compiled=True, only=None, quick=False):
    """Rows of one problem: the limit, ours, and each peer, one after the other."""
    repeats, seconds = (1, 0.01) if quick else (3, 0.4)
    most = limit(dtype, CORES, repeats, 2 if quick else 200)
    runs = {"sdegen": ours(problem, n, dtype, CORES)}
    if compiled:
        runs["sdegen, compiled"] = ours(problem, n, dtype, CORES, compiled=True)
    runs |= peers(problem, n, dtype, only)
    rows = [_row(problem, n, dtype, "the limit: normals alone", 0, most, None)]
    for name, run in runs.items():
        mine = name.startswith("sdegen")
        # a compiled run belongs to its number of steps
        count = steps if mine else fewer_steps(run, steps, seconds)
        if name.startswith("torchsde"):
            count = min(steps, 100)
        rate = n * count / best(lambda run=run, count=count: run(count), repeats) / 1e6
        rows.append(_row(problem, n, dtype, name, count, rate, rate * problem.dimension / most))
    theirs = max(r["M steps/s"] for r in rows[1:] if not r["method"].startswith("sdegen"))
    for row in rows[1:]:
        row["over the best peer"] = row["M steps/s"] / theirs
        print(row, flush=True)
    return rows


def _row(problem, n, dtype, method, steps, rate, share):
    return {
        "problem": problem.name,
        "trajectories": n,
        "dtype": str(dtype).removeprefix("torch."),
        "method": method,
        "steps": steps or None,
        "M steps/s": rate,
        "over the limit": share,
    }


def guard(quick):
    """What looking for lost trajectories costs: with it, and with a look at the end alone."""
    rows, every = [], (record._FIRST_CHECK, record._CHECK_EVERY)
    for n, steps in ((100, 20_000), (50_000, 512)):
        run, times = ours(WELL, n, F32, 1), {True: [], False: []}
        steps = 64 if quick else steps
        run(steps)
        for _ in range(1 if quick else 9):
            for guarded in (True, False):
                never = 10**9, 10**9
                record._FIRST_CHECK, record._CHECK_EVERY = every if guarded else never
                start = time.perf_counter()
                run(steps)
                times[guarded].append(time.perf_counter() - start)
        record._FIRST_CHECK, record._CHECK_EVERY = every
        cost = min(times[True]) / min(times[False]) - 1
        rows.append({"trajectories": n, "threads": 1, "cost of the guard": cost})
        print(rows[-1], flush=True)
    return rows


def torchsde_steps(quick):
    """Microseconds a step at batch 100: torchsde's Euler as it is, and behind the adaptor."""
    sde, x0 = sg.ItoProcess(WELL.drift, 0.7), torch.zeros(100, 1)
    alone = next(run for name, run in peers(WELL, 100, F32).items() if name.startswith("torchsde"))

    def behind(steps):
        solver = sg.TorchSDE("euler", substeps=steps)
        sg.simulate(sde, x0, [0.0, steps * DT], solver=solver, rng=0, keep_path=False)

    rows = []
    for name, run, steps in (
        ("torchsde alone", alone, 100),
        ("TorchSDE('euler')", behind, 3000),
        ("EulerMaruyama()", ours(WELL, 100, F32, 1), 3000),
    ):
        steps = 4 if quick else steps
        each = best(lambda run=run, steps=steps: run(steps), 1 if quick else 5) / steps
        rows.append({"method": name, "trajectories": 100, "µs a step": each * 1e6})
        print(rows[-1], flush=True)
    return rows


def processes(quick):
    """One process and two, each with one thread, on one ensemble of which only a mean is kept."""
    rows = []
    for count in (1, 2):
        line = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={count}", "-m", "benchmarks.ensemble", "--rank",
        ]  # fmt: skip
        out = subprocess.run(
            line + (["--quick"] if quick else []), capture_output=True, text=True, check=True
        ).stdout
        seconds = float(out.split("seconds:")[1].split()[0])
        rows.append({"processes": count, "threads of each": 1, "seconds": seconds})
        rows[-1]["over one"] = rows[0]["seconds"] / seconds
        print(rows[-1], flush=True)
    return rows


def rank(quick):
    """What a process of `processes` does: the first prints the seconds of the second run."""
    sde, n = sg.ItoProcess(WELL.drift, 0.7), 2**12 if quick else 2**21
    times, solver = [0.0, 0.4], sg.EulerMaruyama(substeps=8 if quick else 400)
    with sg.distributed_context() as ranks:
        for _ in range(2):
            start = time.perf_counter()
            sg.run_ensemble(
                sde, torch.zeros(1, 1), times, trajectories=n, solver=solver,
                observables=[sg.Moments()], threads=1, rng=0, ranks=ranks, progress=False,
            )  # fmt: skip
            taken = time.perf_counter() - start
        if ranks.rank == 0:
            print(f"seconds: {taken:.4f}")


def main(quick=False):
    torch.set_num_threads(CORES)
    small = 256 if quick else None
    fast = ("torch loop", "torch loop in place", "diffrax, UnsafeBrownianPath", "jax.lax.scan")
    if quick:
        fast = ("torch loop",)

    def well(n, dtype, steps, **options):
        return rates(WELL, small or n, dtype, 8 if quick else steps, quick=quick, **options)

    tables = {
        "double well, 10⁶ trajectories × 1000 steps": [
            *well(10**6, F32, 1000, only=(*fast, "numba, parallel")),
            *well(10**6, F64, 1000, only=fast),
        ],
        "double well, fewer trajectories": [
            *well(10**5, F32, 1000, only=fast if quick else None),
            *well(10**4, F32, 4000, compiled=False, only=fast if quick else None),
            *well(100, F32, 100_000, only=fast if quick else None),
        ],
        "other problems, 10⁵ trajectories, float32": [
            row
            for problem in (
                *(_ornstein_uhlenbeck(d) for d in (2, 16, 64)), MULTIPLICATIVE, HEUN
            )
            for row in rates(
                problem, small or 10**5, F32, 8 if quick else max(48, 480 // problem.dimension),
                compiled=not quick, only=fast, quick=quick,
            )
        ],
        "guard against lost trajectories": guard(quick),
        "torchsde's Euler, 100 trajectories": torchsde_steps(quick),
        "processes": processes(quick),
    }  # fmt: skip
    write("ensemble", tables, quick, ("jax", "diffrax", "numba"))
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde by itself warns about its own defaults
        if chosen.rank:
            rank(chosen.quick)
        else:
            main(chosen.quick)
