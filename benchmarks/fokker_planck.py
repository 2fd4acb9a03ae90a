"""Fokker–Planck against fplanck and py-pde: the same density, what it costs, how good it is.

python -m benchmarks.fokker_planck

dX = −X dt + √2 dW on [−10, 10] from N(2, ¼) to t = ½, whose law is Gaussian. Times are those of
one thread (`time.thread_time`), the best of several runs. The peers are optional. fplanck needs
numpy < 2: give the interpreter of an environment that has it as --fplanck or
SDEGEN_FPLANCK_PYTHON. py-pde is run if it can be imported here, in three ways: explicit Euler
steps of 0.4 h², which nobody but us has tuned and which is the fastest that we found; and
`eq.solve` as its documentation has it, with adaptive steps (tolerance 1e-7, so that the error is
that of its cells) and with scipy's solver (rtol 1e-6). Its compilation by numba, which it repeats
for every problem, is told apart. What error 1e-7 would cost them is extrapolated, from the order
and the growth of cost between their two finest grids.
"""

import argparse
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
    land = solver._land

    def start():
        return sg.Density(grid.nodes, p0.p)  # which knows nothing yet

    return {
        "cells": cells,
        "build": best(lambda: sg.FokkerPlanck(TRAP, grid), seconds),
        "build + transient": best(
            lambda: sg.FokkerPlanck(TRAP, grid).solve(start(), [0.0, T]), seconds
        ),
        "transient": best(lambda: solver.solve(p0, [0.0, T]), seconds),
        "build + stationary": best(
            lambda: sg.FokkerPlanck(TRAP, grid).stationary(), seconds
        ),
        "stationary": best(lambda: solver._stationary(land), seconds),
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
    return [{**row, "seconds": row["build"] + row["transient"]} for row in rows]


# How py-pde is asked: dt in units of h², and options of eq.solve.
PY_PDE = {
    "explicit Euler, dt = 0.4 h²": (0.4, {"solver": "euler"}),
    "eq.solve(adaptive=True, tolerance=1e-7)": (
        None,
        {"solver": "euler", "adaptive": True, "tolerance": 1e-7},
    ),
    'eq.solve(solver="scipy", rtol=1e-6)': (
        None,
        {"solver": "scipy", "rtol": 1e-6, "atol": 1e-9},
    ),
}


def py_pde(way, nodes=(500, 1000, 2000, 4000)):
    """Rows of py-pde asked in one way, or none."""
    if find_spec("pde") is None:
        print("py-pde: skipped; it is not installed in this environment")
        return []
    import pde

    share, options = PY_PDE[way]
    rows = []
    for n in nodes:
        grid = pde.CartesianGrid([[-10, 10]], n)
        x = grid.axes_coords[0]
        start = np.exp(-((x - MEAN) ** 2) / (2 * STD**2)) / math.sqrt(2 * math.pi * STD**2)
        equation = pde.PDE({"p": "laplace(p) + x * d_dx(p) + p"}, bc={"value": 0})
        dt = share and share * (20 / n) ** 2
        field = pde.ScalarField(grid, start)

        def solve(until, equation=equation, field=field, dt=dt):
            return equation.solve(
                field, until, dt=dt, tracker=None, backend="numba", ret_info=True, **options
            )

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            begun = time.thread_time()
            solve(1e-9)  # scipy's solver compiles while it runs, so that it is run before
            before = time.thread_time() - begun
            out, told = solve(T)
        spent = told["controller"]["profiler"]
        rows.append(
            {
                "nodes": n,
                "seconds": spent["solver"],
                "compilation": before + spent["compilation"],
                "error": float(np.abs(out.data - law(x)).max()),
            }
        )
        print("py-pde", way, rows[-1], flush=True)
    return rows


def at_goal(rows):
    """Nodes and seconds at which the error would be the goal, and how that was found.

    None where the error does not fall like that of cells: then it is that of a tolerance in time,
    and finer cells do not reach the goal.
    """
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


def cost(row):
    n = row["cells"]
    per_node = {
        f"{name}, ns a node": 1e9 * row[name] / n for name in ("transient", "build + transient")
    }
    return {
        "cells": n,
        "stationary alone, ms": milli(row["stationary"]),
        "build + stationary, ms": milli(row["build + stationary"]),
        "transient alone, ms": milli(row["transient"]),
        "build + transient, ms": milli(row["build + transient"]),
        **per_node,
        "error": row["error"],
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
        "fplanck": fplanck(python, (500, 1000, 2000, 4000)),
        **{f"py-pde, {way}": py_pde(way) for way in PY_PDE},
    }  # fmt: skip
    same = [
        {
            "solver": "sdegen",
            "nodes": 1001,
            "build + transient, ms": milli(thousand["build + transient"]),
            "error": thousand["error"],
            "times ours": 1.0,
        }
    ]
    equal = [
        {
            "solver": "sdegen",
            "nodes": finest["cells"] + 1,
            "build + transient, ms": milli(finest["build + transient"]),
            "times ours": 1.0,
            "how": f"run: error {finest['error']:.2g}",
        }
    ]
    for name, rows in peers.items():
        if not rows:
            continue
        row = next(r for r in rows if r["nodes"] == 1000)
        same.append(
            {
                "solver": name.replace("py-pde", f"py-pde {version('py-pde')}")
                if name.startswith("py-pde")
                else name,
                "nodes": row["nodes"],
                "build + transient, ms": milli(row["seconds"]),
                "error": row["error"],
                "times ours": row["seconds"] / thousand["build + transient"],
                "compilation, ms": milli(row["compilation"]) if "compilation" in row else None,
                "stationary, ms": milli(row["stationary"]) if "stationary" in row else None,
            }
        )
        goal = at_goal(rows)
        if goal is None:
            print(f"{name}: no extrapolation to {GOAL:g}, its tolerance in time shows")
        else:
            nodes, cpu, how = goal
            equal.append(
                {
                    "solver": name,
                    "nodes": nodes,
                    "build + transient, ms": milli(cpu),
                    "times ours": cpu / finest["build + transient"],
                    "how": how,
                }
            )
        tables[f"{name} by number of nodes"] = [
            {
                "nodes": r["nodes"],
                "build + transient, ms": milli(r["seconds"]),
                "error": r["error"],
            }
            for r in rows
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
