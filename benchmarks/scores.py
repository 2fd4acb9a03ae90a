"""Scores of noising processes, learned by every route in equal CPU seconds, beside the true ones.

    python -m benchmarks.scores [--seconds 30] [--longest 360] [--problem NAME] [--route NAME]
                                [--seed 0] [--only paths | generation | entropy]

One network for all routes of a problem, one optimizer, the defaults of `ScoreModel` and
`TrainConfig`; the number of steps is what a pilot says that the CPU seconds allow, of one thread
(`time.process_time`), with everything that a route computes: its simulations, targets and
derivatives. Errors are relative, weighted by p_t, at t = 0.2, 0.5, 1, 2 (`score_problems.py`).

Routes: transition matching with the target that it chooses by itself, and with each of its
targets by name: Malliavin weights, the linearised kernel of a window (local denoising), and one
Euler step (one-step denoising); implicit and sliced score matching on states of simulated paths;
denoising with the Gaussian kernel, where there is one, and the same with stable targets, of which
a step has 256 rows, as their noise is small, where other routes have 1,024.
"""

import argparse
import math
import time
import warnings

import torch

import sdegen as sg
from benchmarks import score_dissipation, score_paths
from benchmarks.lookup import load
from benchmarks.record import write
from benchmarks.score_problems import PROBLEMS, TIMES

STARTS = 100_000  # states of p_0 that paths begin from
PATHS, READS, STEP = 20_000, 39, 0.01  # of states of p_t for implicit and sliced matching
T_MIN = 0.1
PILOT, BLOCK = 16, 256  # least steps, and those of a block of paths at 1,024 rows of a step
ROUTES = {
    "transition matching": lambda: sg.TransitionMatching(),
    "Malliavin": lambda: sg.TransitionMatching("malliavin"),
    "local denoising": lambda: sg.TransitionMatching("linearised"),
    "one-step denoising": lambda: sg.TransitionMatching("one-step"),
    "implicit": lambda: sg.ImplicitLoss(at="labels"),
    "sliced": lambda: sg.SlicedLoss(at="labels"),
    "denoising by the kernel": lambda: sg.DenoisingLoss(),
    "denoising, stable targets": lambda: sg.StableTargetLoss(),
}
KERNEL = ("denoising by the kernel", "denoising, stable targets")
ROWS = {"denoising, stable targets": 256}  # of a step, in the place of the problem's
SHORT, LONG = "equal seconds", "the best route, longer"
ENTROPY = "entropy production from a learned score"
OF_PATHS = "double well, from 20,000 paths"
MADE = "double well, data from its reversal"
WHOLE = {  # tables that are of one problem, and made as a whole
    "paths": (OF_PATHS, score_paths.of_paths),
    "generation": (MADE, score_paths.of_generation),
    "entropy": (ENTROPY, score_dissipation.rows),
}


def model_of(problem, seed=0):
    """Return the network that every route of a problem trains."""
    width, depth = problem.network
    network = sg.MLP(problem.dim, width, depth, rng=seed)
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


def spent(problem, route, steps, rng=0, marks=None):
    """Return a model trained for a number of steps, and the CPU seconds that it took.

    `marks` is given the CPU seconds after each step.
    """
    began, model, loss = time.process_time(), model_of(problem, rng), ROUTES[route]()
    batch = ROWS.get(route, problem.batch)
    watch = [] if marks is None else [lambda report: marks.append(time.process_time() - began)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sg.AccuracyWarning)  # of scales: these are as they are
        if isinstance(loss, sg.ImplicitLoss):
            x, t = states_in_time(problem)
            model.form.prepare(model, problem.start.sample(STARTS, rng=1, dtype=torch.float32))
            how = config(steps, batch, sg.FitConfig)
            sg.fit(model, x, loss, how, labels=t, rng=rng, callbacks=watch)
        else:
            data = problem.start.sample(STARTS, rng=1, dtype=torch.float32)
            sg.train(model, data, config(steps, batch), loss=loss, rng=rng, callbacks=watch)
    return model, time.process_time() - began


def steps_for(problem, route, seconds):
    """Return how many steps fit into CPU seconds, by a pilot of a block of steps and one more."""
    marks = []
    spent(problem, route, BLOCK + 1, marks=marks)
    each = (marks[-1] - marks[0]) / BLOCK  # with one simulation of a block
    return max(PILOT, math.floor((seconds - marks[0]) / each))


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
        "seed": rng,
    }
    print(line, flush=True)
    return line


def refused(problem, route):
    """Return why a route has no line in a problem, or None."""
    if route == "local denoising" and problem.sde.noise == "multiplicative":
        return "a Gaussian kernel is one of additive noise"
    if route in KERNEL and not isinstance(problem.sde, sg.LinearSDE):
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
        if title in (OF_PATHS, MADE, ENTROPY):
            out[title] = rows
            continue
        new = {_key(line) for line in rows}
        old = [r for r in out.get(title, []) if _key(r) not in new]
        out[title] = sorted(old + rows, key=_order)
    return out


def _key(line):
    """Return what two lines share of which one replaces the other."""
    return line.get("problem"), line.get("route"), line.get("seed", 0)


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


def kept(tables, quick):
    """Write tables beside what earlier runs measured, whatever ends the rest of this one."""
    if not quick:
        write("scores", merged({title: rows for title, rows in tables.items() if rows}), quick)


def best_known(problem):
    """Return the route that was nearest in the seconds of all."""
    lines = [r for r in load("scores")["tables"][SHORT] if r["problem"] == problem.name]
    return min(lines, key=lambda line: line["worst"])["route"]


def main(quick=False, seconds=30.0, longest=360.0, only=None, routes=None, seed=0, table=None):
    """Print and record the tables; in a quick run a few seconds of one problem.

    Args:
        quick: Whether this is a rehearsal.
        seconds: CPU seconds of a route; 0 leaves them out.
        longest: Of the best route, or of those that are named; 0 leaves it out.
        only: One problem.
        routes: Some routes.
        seed: Of the trainings.
        table: One of WHOLE, and nothing else.
    """
    torch.set_num_threads(1)
    tables = {}
    if table is None:
        names = ["double well"] if quick else ([only] if only else list(PROBLEMS))
        problems = [PROBLEMS[name] for name in names]
        asked = list(ROUTES) if routes is None else routes
        seconds, longest = (1.0, 0.0) if quick else (seconds, longest)
        tables = {"truths": judges(problems), SHORT: [], LONG: []}
        for problem in problems:
            for route in asked:
                if seconds > 0 and refused(problem, route) is None:
                    tables[SHORT].append(row(problem, route, seconds, seed))
                    kept(tables, quick)
            if longest > 0:
                best = best_known(problem) if routes is None else routes[0]
                tables[LONG].append(row(problem, best, longest, seed))
            kept(tables, quick)
    if routes is None and only is None:
        for name in WHOLE if table is None else [table]:
            title, make = WHOLE[name]
            tables[title] = make(quick)
            kept({title: tables[title]}, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--longest", type=float, default=360.0)
    parser.add_argument("--problem")
    parser.add_argument("--route", action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(WHOLE))
    given = parser.parse_args()
    main(
        given.quick,
        given.seconds,
        given.longest,
        given.problem,
        given.route,
        given.seed,
        given.only,
    )
