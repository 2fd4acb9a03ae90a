"""Scores of noising processes, learned by every route in equal CPU seconds, beside the true ones.

    python -m benchmarks.scores [--seconds 60] [--longest 360] [--problem NAME] [--route NAME]

One network for all routes of a problem, one optimizer, the defaults of `ScoreModel` and
`TrainConfig`; the number of steps is what a pilot says that the CPU seconds allow, of one thread
(`time.process_time`), with everything that a route computes: its simulations, targets and
derivatives. Errors are relative, weighted by p_t, at t = 0.2, 0.5, 1, 2 (`score_problems.py`).

Routes: transition matching with the target that it chooses by itself, and with each of its
targets by name: Malliavin weights, the linearised kernel of a window (local denoising), and one
Euler step (one-step denoising); implicit and sliced score matching on states of simulated paths;
denoising with the Gaussian kernel, where there is one.
"""

import argparse
import math
import time
import warnings

import torch

import sdegen as sg
from benchmarks import score_dissipation
from benchmarks.lookup import load
from benchmarks.record import RESULTS, write
from benchmarks.score_problems import PROBLEMS, TIMES

STARTS = 100_000  # states of p_0 that paths begin from
PATHS, READS, STEP = 20_000, 39, 0.01  # of states of p_t for implicit and sliced matching
T_MIN = 0.1
PILOT, BLOCK = 16, 128  # steps of a pilot, and of a block of paths at 1,024 rows of a step
ROUTES = {
    "transition matching": lambda: sg.TransitionMatching(),
    "Malliavin": lambda: sg.TransitionMatching("malliavin"),
    "local denoising": lambda: sg.TransitionMatching("linearised"),
    "one-step denoising": lambda: sg.TransitionMatching("one-step"),
    "implicit": lambda: sg.ImplicitLoss(at="labels"),
    "sliced": lambda: sg.SlicedLoss(at="labels"),
    "denoising by the kernel": lambda: sg.DenoisingLoss(),
}
SHORT, LONG = "equal seconds", "the best route, longer"
ENTROPY = "entropy production from a learned score"


def model_of(problem):
    """Return the network that every route of a problem trains."""
    width, depth = problem.network
    network = sg.MLP(problem.dim, width, depth, rng=0)
    return sg.ScoreModel(network, problem.sde, times=(T_MIN, TIMES[-1]))


def config(steps, batch, kind=sg.TrainConfig):
    """Return how every route is trained: the defaults, for so many steps."""
    return kind(steps=steps, batch_size=batch, warmup=min(100, steps // 10))


def states_in_time(problem, count=PATHS):
    """Return states of simulated paths and the time of each, evenly spaced in √t."""
    roots = torch.linspace(math.sqrt(T_MIN), math.sqrt(TIMES[-1]), READS, dtype=torch.float64)
    times = torch.cat([torch.zeros(1, dtype=torch.float64), roots.square()])
    x0 = problem.start.sample(count, rng=1, dtype=torch.float32)
    solver = sg.EulerMaruyama(substeps=math.ceil(float(times.diff().max()) / STEP))
    path = sg.simulate(problem.sde, x0, times, solver=solver, rng=2, threads=1)
    return path.states[1:].flatten(0, 1), times[1:].float().repeat_interleave(count)


def spent(problem, route, steps, rng=0):
    """Return a model trained for a number of steps, and the CPU seconds that it took."""
    began, model, loss = time.process_time(), model_of(problem), ROUTES[route]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sg.AccuracyWarning)  # of scales: these are as they are
        if isinstance(loss, sg.ImplicitLoss):
            x, t = states_in_time(problem)
            model.form.prepare(model, problem.start.sample(STARTS, rng=1, dtype=torch.float32))
            how = config(steps, problem.batch, sg.FitConfig)
            sg.fit(model, x, loss, how, labels=t, rng=rng)
        else:
            data = problem.start.sample(STARTS, rng=1, dtype=torch.float32)
            sg.train(model, data, config(steps, problem.batch), loss=loss, rng=rng)
    return model, time.process_time() - began


def steps_for(problem, route, seconds):
    """Return how many steps fit into CPU seconds, by two pilots a block of steps apart."""
    spent(problem, route, 2)  # what is made once for a process
    few, many = (spent(problem, route, n)[1] for n in (PILOT, PILOT + BLOCK))
    each = max(many - few, 0.2 * many) / BLOCK
    return max(PILOT, math.floor((seconds - max(few - PILOT * each, 0.0)) / each))


def row(problem, route, seconds, rng=0):
    """Return one line of the table: errors, and what they cost."""
    steps = steps_for(problem, route, seconds)
    model, took = spent(problem, route, steps, rng)
    errors = problem.judge(model.score)
    line = {
        "problem": problem.name,
        "route": route,
        **{f"t = {t:g}": error for t, error in errors.items()},
        "worst": max(errors.values()),
        "asked": problem.goal,
        "CPU seconds": took,
        "steps": steps,
    }
    print(line, flush=True)
    return line


def refused(problem, route):
    """Return why a route has no line in a problem, or None."""
    if route == "denoising by the kernel" and not isinstance(problem.sde, sg.LinearSDE):
        return "no Gaussian kernel"
    return None


def merged(tables):
    """Return tables with the lines of earlier runs that these do not replace."""
    try:
        before = load("scores")["tables"]
    except FileNotFoundError:
        return tables
    out = {title: list(rows) for title, rows in before.items()}
    for title, rows in tables.items():
        if title == ENTROPY:
            out[title] = rows
            continue
        new = {(line.get("problem"), line.get("route")) for line in rows}
        old = [r for r in out.get(title, []) if (r.get("problem"), r.get("route")) not in new]
        out[title] = sorted(old + rows, key=_order)
    return out


def _order(line):
    problems, routes = list(PROBLEMS), list(ROUTES)
    route = line.get("route")
    return problems.index(line["problem"]), routes.index(route) if route in routes else -1


def judges(problems):
    """Return what each truth is, and its estimated error."""
    return [
        {
            "problem": problem.name,
            "process and start": problem.words,
            "error of the truth": max(truth.error for truth in problem.truths()),
        }
        for problem in problems
    ]


def main(quick=False, seconds=60.0, longest=360.0, only=None, routes=None):
    """Print and record the tables; in a quick run a few seconds of one problem."""
    torch.set_num_threads(1)
    names = ["double well"] if quick else ([only] if only else list(PROBLEMS))
    problems = [PROBLEMS[name] for name in names]
    asked = list(ROUTES) if routes is None else routes
    seconds, longest = (1.0, 0.0) if quick else (seconds, longest)
    tables = {"truths": judges(problems), SHORT: [], LONG: []}
    for problem in problems:
        lines = [
            row(problem, route, seconds)
            for route in asked
            if seconds > 0 and refused(problem, route) is None
        ]
        tables[SHORT] += lines
        if longest > 0:
            known = lines or [
                line for line in load("scores")["tables"][SHORT]
                if line["problem"] == problem.name
            ]  # fmt: skip
            best = min(known, key=lambda line: line["worst"])["route"]
            tables[LONG].append(row(problem, best, longest))
        if not quick:  # what is measured is kept, whatever ends the rest
            RESULTS.mkdir(exist_ok=True)
            write("scores", merged({title: rows for title, rows in tables.items() if rows}), quick)
    tables[ENTROPY] = score_dissipation.rows(quick) if routes is None else []
    if tables[ENTROPY] and not quick:
        write("scores", merged({ENTROPY: tables[ENTROPY]}), quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--longest", type=float, default=360.0)
    parser.add_argument("--problem")
    parser.add_argument("--route", action="append")
    given = parser.parse_args()
    main(given.quick, given.seconds, given.longest, given.problem, given.route)
