"""What estimated errors cost: densities at rest and in time, beside the version without them.

python -m benchmarks.fokker_planck_costs [--base base.json]

CPU time of one thread, the best of several runs, everything made anew in each: the SDE on its
grid, and one answer. The version without estimated errors is not in this repository any more: its
times were taken with this file, on the machine that `BASE` names and in turn with those of this
version, and stand in it: how busy a machine is changes both. `--base` takes others, which this
file writes when it is run with that version on the path.

    rest        dX = (X − X³) dt + √(1 + X²/2) dW on [−8, 8]
    f(x)        an Ornstein–Uhlenbeck process on [−10, 10] from N(2, ¼) to t = ½
    f(x, t)     the same drift, written with a t that it does not use
    driven      dX = (A cos 2πt − X) dt + dW on [−8, 8], A = 5, from N(0, ¼) to t = 1, whose law
                is Gaussian: the time for an error of the density that is not above that of BASE
"""

import argparse
import json
import math
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import sdegen as sg
from benchmarks.record import machine, write

CELLS = (100, 300, 1000, 4000)
DRIVEN = (200, 300, 600)
_PUSH, _TURN = 5.0, 2 * math.pi
BASE = Path(__file__).parent / "results" / "all" / "fokker_planck_costs_base.json"


def best(run, seconds, least=5):
    """CPU seconds, the best of the runs that fit into so many."""
    times, end = [], time.monotonic() + seconds
    while len(times) < least or time.monotonic() < end:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def questions(cells):
    """What is asked on a grid, by name."""
    wide, narrow = sg.Grid(-10.0, 10.0, cells), sg.Grid(-8.0, 8.0, cells)

    def rest():
        well = sg.ItoProcess(lambda x: x - x**3, lambda x: torch.sqrt(1 + 0.5 * x * x))
        sg.FokkerPlanck(well, narrow).stationary()

    def moved(sde):
        sg.FokkerPlanck(sde, wide).solve(wide.gaussian(2.0, 0.5), [0.0, 0.5])

    return {
        "rest": rest,
        "f(x)": lambda: moved(sg.ItoProcess(lambda x: -x, math.sqrt(2))),
        "f(x, t)": lambda: moved(sg.ItoProcess(lambda x, t: -x, math.sqrt(2))),
    }


def driven(cells):
    """The driven density at t = 1, and its largest error over the peak."""
    sde = sg.ItoProcess(lambda x, t: _PUSH * torch.cos(_TURN * t) - x, 1.0)
    grid = sg.Grid(-8.0, 8.0, cells)
    p = sg.FokkerPlanck(sde, grid).solve(grid.gaussian(0.0, 0.5), [0.0, 1.0]).final.p.numpy()
    mean = _PUSH * (1 - math.exp(-1)) / (1 + _TURN**2)
    variance = 0.25 * math.exp(-2) + 0.5 * (1 - math.exp(-2))
    law = np.exp(-0.5 * (grid.nodes.numpy() - mean) ** 2 / variance)
    law /= math.sqrt(2 * math.pi * variance)
    return float(np.abs(p - law).max() / law.max())


def measured(seconds):
    """All times of this version."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cells in CELLS:
            for name, run in questions(cells).items():
                rows.append({"question": name, "cells": cells, "s": best(run, seconds)})
        for cells in DRIVEN:
            error = driven(cells)
            took = best(lambda cells=cells: driven(cells), 0.0, least=3)
            rows.append({"question": "driven", "cells": cells, "s": took, "error": error})
    return rows


def compared(rows, base):
    """Times beside those of the version without errors."""
    before = {(row["question"], row["cells"]): row for row in base}
    now = {(row["question"], row["cells"]): row for row in rows}
    table = []
    for (name, cells), row in now.items():
        then = before[name, cells]
        told = {
            "question": name,
            "cells": cells,
            "ms": 1e3 * row["s"],
            "without errors, ms": 1e3 * then["s"],
            "ratio": row["s"] / then["s"],
        }
        if name == "f(x, t)":
            told["over f(x)"] = row["s"] / now["f(x)", cells]["s"]
        if name == "driven":
            told |= {"error": row["error"], "its error": then["error"]}
        table.append(told)
    return table


def main(quick=False, base=BASE):
    """The table, and where the times without errors are from."""
    torch.set_num_threads(1)
    rows = measured(0.0 if quick else 1.0)
    if not Path(base).exists():
        Path(base).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
        return {"cost of estimated errors": rows}
    stored = json.loads(Path(base).read_text())
    where = ", ".join(f"{key} {value}" for key, value in stored["machine"].items() if value)
    tables = {
        "cost of estimated errors": compared(rows, stored["rows"]),
        "the version without errors was measured on": [{"machine": where}],
    }
    write("fokker_planck_costs", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--base", default=BASE)
    asked = parser.parse_args()
    for title, table in main(asked.quick, asked.base).items():
        print(title)
        for row in table:
            print(row)
