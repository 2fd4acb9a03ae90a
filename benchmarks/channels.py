"""Noise of channels: million trajectory-steps a second, ours and the peers, in turn in one run.

python -m benchmarks.channels

dX = f(X) dt + G dW in three dimensions with three Wiener processes, f = x − x³, 10⁵ trajectories,
float32, Euler-Maruyama. G is a constant matrix B, or G(x)_ik = B_ik √(1 + x_k²), whose columns do
not commute. Eager runs are compared with eager peers (torchsde, loops of torch), compiled ones
with compiled peers (diffrax, jax, a loop whose step torch.compile has made). diffrax is tried in
two forms, of which the faster counts; jax gets its product written as a sum, which it fuses.

All methods run once in each round, after one run that compiles; a rate is that of the fastest of
the rounds. Rates do not depend on the number of steps, so the slow ones take fewer.
"""

import argparse
import time
import warnings

import torch

from benchmarks.ensemble import CORES, fewer_steps, limit, ours
from benchmarks.ensemble_peers import Problem, peers
from benchmarks.record import write

B = torch.tensor([[0.5, 0.2, -0.3], [-0.2, 0.4, 0.3], [0.1, -0.3, 0.6]])

CONSTANT = Problem(
    "constant G, d = m = 3", 3,
    lambda x: x - x**3, B,
    lambda xp: lambda x: x - x**3,
    lambda xp: lambda x: xp.asarray(B.numpy(), x.dtype),
    channels=3,
)  # fmt: skip
OF_STATE = Problem(
    "G(x), d = m = 3", 3,
    lambda x: x - x**3, lambda x: B.to(x) * torch.sqrt(1 + x * x)[..., None, :],
    lambda xp: lambda x: x - x**3,
    lambda xp: lambda x: xp.asarray(B.numpy(), x.dtype) * xp.sqrt(1 + x * x)[..., None, :],
    channels=3,
)  # fmt: skip

EAGER = ("torch loop", "torch loop in place", "torchsde, times in float64")
COMPILED = (
    "torch loop, torch.compile",
    "diffrax, UnsafeBrownianPath",
    "diffrax, UnsafeBrownianPath, vmap",
    "jax.lax.scan",
)


def methods(problem, n, dtype, *, compiled):
    """{name: (run(steps), "eager" or "compiled")} of ours and of the peers that are installed."""
    runs = {"sdegen": (ours(problem, n, dtype, CORES), "eager")}
    if compiled:
        runs["sdegen, compiled"] = ours(problem, n, dtype, CORES, compiled=True), "compiled"
    theirs = {"eager": EAGER, "compiled": COMPILED if compiled else ()}
    for kind, names in theirs.items():
        for name, run in peers(problem, n, dtype, names).items():
            runs[name] = run, kind
    return runs


def rates(problem, n, *, dtype=torch.float32, rounds=9, seconds=0.4, compiled=True):
    """Rows of one problem: the limit, ours and each peer, by rounds in which each runs once."""
    runs = methods(problem, n, dtype, compiled=compiled)
    steps = {name: _steps(name, run, seconds) for name, (run, _) in runs.items()}
    taken = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, _) in runs.items():
            start = time.perf_counter()
            run(steps[name])
            taken[name].append((time.perf_counter() - start) / steps[name])
    rows = [
        {
            "problem": problem.name,
            "trajectories": n,
            "dtype": str(dtype).removeprefix("torch."),
            "method": name,
            "kind": kind,
            "steps": steps[name],
            "M steps/s": n / min(taken[name]) / 1e6,
            "median of the rounds": n / sorted(taken[name])[rounds // 2] / 1e6,
        }
        for name, (_, kind) in runs.items()
    ]
    most = limit(dtype, CORES, 1 if rounds == 1 else 3, 2 if rounds == 1 else 200)
    for row in rows:
        theirs = [
            other["M steps/s"]
            for other in rows
            if other["kind"] == row["kind"] and not other["method"].startswith("sdegen")
        ]
        row["over the best peer of its kind"] = row["M steps/s"] / max(theirs, default=torch.nan)
        row["over the limit: normals alone"] = row["M steps/s"] * problem.channels / most
        print(row, flush=True)
    return rows


def _steps(name, run, seconds):
    """As many steps as take about so long; a compiled run of ours belongs to its number."""
    if name.startswith("sdegen"):
        return 8 if seconds < 0.1 else 160
    if name.startswith("torchsde"):
        return 4 if seconds < 0.1 else 20
    return fewer_steps(run, 160, seconds)


def main(quick=False):
    torch.set_num_threads(CORES)
    size = {"rounds": 1, "seconds": 0.01, "compiled": False} if quick else {}
    n = 2048 if quick else 10**5
    tables = {
        "three noises in three dimensions, 10⁵ trajectories, float32": [
            row for problem in (CONSTANT, OF_STATE) for row in rates(problem, n, **size)
        ]
    }
    write("channels", tables, quick, ("jax", "diffrax"))
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde by itself warns about its own defaults
        main(parser.parse_args().quick)
