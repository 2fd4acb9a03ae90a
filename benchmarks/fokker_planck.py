"""Fokker–Planck against fplanck and py-pde: the same density, what it costs, how good it is.

python -m benchmarks.fokker_planck

dX = −X dt + √2 dW on [−10, 10] from N(2, ¼) to t = ½, whose law is Gaussian. Times are those of
one thread (`time.thread_time`), the best of several runs. The peers are optional. fplanck needs
numpy < 2: give the interpreter of an environment that has it as --fplanck or
SDEGEN_FPLANCK_PYTHON. py-pde is run if it can be imported here.

What is counted. "All anew" is what one call costs a user who has made everything for it: an
equation, its operator, a density. "Again" is the same call on the same objects and for the same
times; of ours the operator and its factors are then known, and what the same solver takes for
times that it has not seen stands in the table of our costs. py-pde writes numba code for an
equation in `eq.solve`, and does so in every call, also in the second on the same objects, unless
scipy's solver or the numpy backend is asked for, which keep what they compiled. Its "stepping
alone" is its own profile of a call without compilation: what a long run of many steps comes to,
and the only time that is taken for the extrapolation to error 1e-7, which is made from the order
and the growth of cost between the two finest grids.

The ways to ask it: `eq.solve(field, T)` as its documentation has it (adaptive steps, tolerance
1e-4), with either backend; adaptive steps whose error is that of the cells; scipy's solver; and
explicit Euler steps of 0.4 h², which nobody but us has tuned and which is the fastest that we
found, with either backend. No progress bar is shown.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import time
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

import sdegen as sg
from benchmarks.record import write

T, MEAN, STD, GOAL = 0.5, 2.0, 0.5, 1e-7
TRAP = sg.OrnsteinUhlenbeck()
_ORDER = 1.8  # of an error that is that of its cells, which is 2 for both peers
PEER = Path(__file__).parent / "fplanck_peer.py"


def law(x):
    mean, variance = MEAN * math.exp(-T), 1 - 0.75 * math.exp(-2 * T)
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def best(run, seconds=1.0, least=5):
    """Seconds of this thread, the best of the runs that fit into so many."""
    times, end = [], time.monotonic() + seconds
    while len(times) < least or time.monotonic() < end:
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return min(times)


def ours(cells, seconds):
    """What each question costs on a grid, from nothing and on a solver that was asked before."""
    grid = sg.Grid(-10.0, 10.0, cells)
    p0 = grid.gaussian(MEAN, STD)
    solver = sg.FokkerPlanck(TRAP, grid)
    error = np.abs(solver.solve(p0, [0.0, T]).final.p.numpy() - law(grid.nodes.numpy())).max()
    rest = solver.stationary().p.numpy()
    exact = np.exp(-(grid.nodes.numpy() ** 2) / 2) / math.sqrt(2 * math.pi)
    other = itertools.count(1)

    def start():
        return sg.Density(grid.nodes, p0.p)  # which knows nothing yet

    def resting():
        solver._at_rest.clear()  # with its error, on a grid that has been read
        solver.stationary()

    def hundred():
        solver.solve(p0, torch.linspace(0, T, 101, dtype=torch.float64))

    def anew():  # a time that was not asked for before
        solver.solve(p0, [0.0, T + 1e-6 * next(other)])

    return {
        "cells": cells,
        "build": best(lambda: sg.FokkerPlanck(TRAP, grid), seconds),
        "build + transient": best(
            lambda: sg.FokkerPlanck(TRAP, grid).solve(start(), [0.0, T]), seconds
        ),
        "transient": best(lambda: solver.solve(p0, [0.0, T]), seconds),
        "transient, new times": best(anew, seconds),
        "transient, one of 100 equal steps": best(hundred, seconds) / 100,
        "build + stationary": best(
            lambda: sg.FokkerPlanck(TRAP, grid).stationary(), seconds
        ),
        "stationary": best(resting, seconds),
        "error": float(error),
        "stationary error": float(np.abs(rest - exact).max()),
    }  # fmt: skip


def enough(seconds):
    """The coarsest grid, by tens of cells, on which our error is below the goal."""
    cells = 300
    while ours(cells, 0.0)["error"] >= GOAL:
        cells += 10
    return ours(cells, seconds)


def fplanck(python, nodes):
    """Rows of fplanck, or none."""
    if not python:
        print("fplanck: skipped; pass --fplanck or set SDEGEN_FPLANCK_PYTHON to an interpreter")
        return []
    done = subprocess.run(
        [python, PEER, *map(str, nodes)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        row["anew"] = row["seconds"] = row["build"] + row["transient"]
        row["again"] = row["transient"]
    return rows


# How py-pde is asked: dt in units of h², options of eq.solve, and on which grids.
NODES = (500, 1000, 2000, 4000)
EULER = {"solver": "euler", "backend": "numba"}
PY_PDE = {
    "eq.solve(field, T)": (None, {}, (1000,)),
    'eq.solve(field, T, backend="numpy")': (None, {"backend": "numpy"}, (1000,)),
    "explicit Euler, dt = 0.4 h²": (0.4, EULER, NODES),
    "explicit Euler, dt = 0.4 h², numpy": (0.4, {**EULER, "backend": "numpy"}, (1000,)),
    "eq.solve(adaptive=True, tolerance=1e-7)": (
        None, {**EULER, "adaptive": True, "tolerance": 1e-7}, NODES,
    ),
    'eq.solve(solver="scipy", rtol=1e-6)': (
        None, {"solver": "scipy", "backend": "numba", "rtol": 1e-6, "atol": 1e-9}, NODES,
    ),
}  # fmt: skip


def py_pde(way):
    """Rows of py-pde asked in one way, or none."""
    if find_spec("pde") is None:
        print("py-pde: skipped; it is not installed in this environment")
        return []
    import pde

    share, options, nodes = PY_PDE[way]
    rows = []
    for n in nodes:
        grid = pde.CartesianGrid([[-10, 10]], n)
        x = grid.axes_coords[0]
        start = np.exp(-((x - MEAN) ** 2) / (2 * STD**2)) / math.sqrt(2 * math.pi * STD**2)
        dt = share and share * (20 / n) ** 2

        def problem(grid=grid, start=start):
            equation = pde.PDE({"p": "laplace(p) + x * d_dx(p) + p"}, bc={"value": 0})
            return equation, pde.ScalarField(grid, start)

        def call(equation, field, dt=dt):
            begun = time.thread_time()
            out, told = equation.solve(field, T, dt=dt, tracker=None, ret_info=True, **options)
            return time.thread_time() - begun, told["controller"]["profiler"]["solver"], out.data

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same = problem()
            calls = [call(*same) for _ in range(3 if n == 1000 else 2)]
            anew = call(*problem())[0] if n == 1000 else None
        rows.append(
            {
                "nodes": n,
                "first": calls[0][0],
                "anew": anew,
                "again": min(cpu for cpu, _, _ in calls[1:]),
                "seconds": min(stepping for _, stepping, _ in calls),
                "error": float(np.abs(calls[-1][2] - law(x)).max()),
            }
        )
        print("py-pde", way, rows[-1], flush=True)
    return rows


def at_goal(rows):
    """Nodes and seconds at which the error would be the goal, and how that was found.

    None where the error does not fall like that of cells: then it is that of a tolerance in time,
    and finer cells do not reach the goal.
    """
    if len(rows) < 2:
        return None
    first, last = rows[-2:]
    finer = math.log(last["nodes"] / first["nodes"])
    order = math.log(first["error"] / last["error"]) / finer
    if order < _ORDER:
        return None
    growth = math.log(last["seconds"] / first["seconds"]) / finer
    ratio = (last["error"] / GOAL) ** (1 / order)
    how = f"extrapolated from N = {first['nodes']} and {last['nodes']}: "
    how += f"error N^-{order:.2f}, cost N^{growth:.2f}"
    return round(last["nodes"] * ratio), last["seconds"] * ratio**growth, how


def milli(seconds):
    return 1e3 * seconds


PER_NODE = (
    "transient", "transient, new times", "transient, one of 100 equal steps", "build + transient",
)  # fmt: skip


def cost(row):
    n = row["cells"]
    per_node = {f"{name}, ns a node": 1e9 * row[name] / n for name in PER_NODE}
    return {
        "cells": n,
        "stationary alone, ms": milli(row["stationary"]),
        "build + stationary, ms": milli(row["build + stationary"]),
        "transient alone, ms": milli(row["transient"]),
        "transient, new times, ms": milli(row["transient, new times"]),
        "build + transient, ms": milli(row["build + transient"]),
        **per_node,
        "error": row["error"],
    }


def at_thousand(solver, nodes, error, anew, again, mine, first=None, steps=None):
    """What a call costs at N = 10³, and how many times what ours does."""
    build, known = mine["build + transient"], mine["transient"]
    return {
        "solver": solver,
        "nodes": nodes,
        "error": error,
        "all anew, ms": milli(anew),
        "times ours": anew / build,
        "again, ms": milli(again),
        "times ours again": again / known,
        "again, times ours anew": again / build,
        "first call, ms": first and milli(first),
        "stepping alone, ms": steps and milli(steps),
        "stepping alone, times ours anew": steps and steps / build,
    }


def main(quick=False, python=None):
    """Prints and records the tables."""
    torch.set_num_threads(1)
    seconds = 0.02 if quick else 1.0
    mine = [ours(cells, seconds) for cells in ((1000,) if quick else (1000, 10_000, 100_000))]
    costs = [cost(row) for row in mine]
    for row in costs:
        print(row, flush=True)
    thousand, finest = mine[0], enough(seconds)
    tables = {"cost of ours": costs}
    peers = {} if quick else {
        "fplanck": fplanck(python, NODES),
        **{f"py-pde {version('py-pde') if find_spec('pde') else ''}, {way}": py_pde(way)
           for way in PY_PDE},
    }  # fmt: skip
    nodes, error = thousand["cells"] + 1, thousand["error"]
    build, known = thousand["build + transient"], thousand["transient"]
    same = [at_thousand("sdegen", nodes, error, build, known, thousand)]
    equal = [
        {
            "solver": "sdegen",
            "nodes": finest["cells"] + 1,
            "ms": milli(finest["build + transient"]),
            "times ours": 1.0,
            "how": f"build + transient, run: error {finest['error']:.2g}",
        }
    ]
    for name, rows in peers.items():
        if not rows:
            continue
        row = next(r for r in rows if r["nodes"] == 1000)
        steps = row["seconds"] if "first" in row else None
        same.append(
            at_thousand(name, 1000, row["error"], row["anew"], row["again"], thousand,
                        row.get("first"), steps)
        )  # fmt: skip
        goal = at_goal(rows)
        if goal is None:
            print(f"{name}: no extrapolation to {GOAL:g}")
        else:
            nodes, cpu, how = goal
            what = "stepping alone" if "first" in row else "build + transient"
            equal.append(
                {
                    "solver": name,
                    "nodes": nodes,
                    "ms": milli(cpu),
                    "times ours": cpu / finest["build + transient"],
                    "how": f"{what}, {how}",
                }
            )
        if len(rows) > 1:
            what = "stepping alone, ms" if "first" in row else "build + transient, ms"
            tables[f"{name} by number of nodes"] = [
                {"nodes": r["nodes"], what: milli(r["seconds"]), "error": r["error"]} for r in rows
            ]
    tables["1000 cells"] = same
    tables["error 1e-7"] = equal
    for row in same + equal:
        print(row, flush=True)
    write("fokker_planck", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal without peers; writes nothing"
    )
    parser.add_argument(
        "--fplanck",
        metavar="PYTHON",
        default=os.environ.get("SDEGEN_FPLANCK_PYTHON"),
        help="an interpreter that has fplanck",
    )
    arguments = parser.parse_args()
    main(arguments.quick, arguments.fplanck)
