"""Samplers by number of score evaluations: ours, calibrated ones, and those of three libraries.

python -m benchmarks.samplers [--only PART …]

(a) the exact scores of mixtures in 2, 16 and 64 dimensions (`problems.py`), 1 to 200 evaluations:
    flow, calibrated   distance to the exact probability-flow map (`exact_flows.py`)
    noisy, kl          sliced W2 of noisy samplers, and the KL divergence of the law of theirs on a
                       line, which is not sampled (`noisy.py`)
(b) scores trained here (`trained.py`):
    moons, digits      distance to data never seen, and to the network's own flow

Evaluations are counted by the run, by the score that a peer calls, or by the network. Without the
peers' libraries (extra `benchmarks`) their rows are missing. Two processes, one thread each. With
--only the named parts are run anew, and the tables are made of them and of what the last runs of
the other parts left in `results/all/samplers.json`.
"""

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

import torch

import sdegen as sg
from benchmarks import exact_flows, noisy, trained
from benchmarks.exact_flows import calibrated_row, flow_rows
from benchmarks.problems import FAR
from benchmarks.record import RESULTS, write
from benchmarks.sampling import EVALUATIONS, JUDGED, RULE

PARTS = {
    "flow": flow_rows,
    "calibrated": calibrated_row,
    "noisy": noisy.noisy_rows,
    "kl": noisy.kl_rows,
    "moons": trained.moons_rows,
    "digits": trained.digits_rows,
}
ALL = RESULTS / "all" / "samplers.json"


def jobs_of(parts, quick):
    """What there is to do, the long ones first."""
    dims = (2,) if quick else (2, 16, 64, FAR)
    budgets = (5,) if quick else EVALUATIONS
    cells = [(dim, n) for dim in dims for n in budgets if dim != FAR or n <= 50]
    cells.sort(key=lambda cell: -cell[1] * (cell[0] if isinstance(cell[0], int) else 2))
    jobs = [("digits", quick), *[("noisy", dim, quick) for dim in dims if dim != FAR]]
    jobs += [("moons", quick), ("kl", quick)]
    jobs += [("calibrated", *cell, quick) for cell in cells if cell[1] in JUDGED]
    jobs += [("flow", *cell, quick) for cell in cells]
    return [job for job in jobs if job[0] in parts]


def _alone(job):
    """One job of a process: its rows, and what it cost."""
    torch.set_num_threads(1)
    name, *arguments = job
    begun = time.process_time()
    found = PARTS[name](*arguments)
    seconds = time.process_time() - begun
    print(f"{name} {arguments}: {seconds:.0f} s", flush=True)
    return found if isinstance(found, list) else [found], seconds


def main(quick=False, only=()):
    """Runs parts, all unless said, and makes the tables of all there are."""
    parts = tuple(only) or tuple(PARTS)
    jobs = jobs_of(parts, quick)
    if quick:
        done = [_alone(job) for job in jobs]
    else:
        with ProcessPoolExecutor(2) as pool:
            done = list(pool.map(_alone, jobs))
    found = {} if quick or not only else json.loads(ALL.read_text())
    for part in parts:
        mine = [d for job, d in zip(jobs, done, strict=True) if job[0] == part]
        found[part] = {
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(sum(seconds for _, seconds in mine)),
            "rows": [r for rows, _ in mine for r in rows],
        }
    return report(found, quick)


def report(found, quick):
    """Tables of what was found, written, and drawn."""
    rows = {part: found[part]["rows"] if part in found else [] for part in PARTS}
    flows = rows["flow"] + rows["calibrated"]
    dims = list(dict.fromkeys(r["dimensions"] for r in flows))
    dims.sort(key=lambda dim: (isinstance(dim, str), dim))
    learned = {part: rows[part] for part in ("moons", "digits") if rows[part]}
    tables = {
        **exact_flows.tables(flows, dims),
        **noisy.tables(rows["noisy"], rows["kl"]),
        **trained.tables(learned),
        "what a run of each part cost": [
            {"part": part, "date": f["date"], "CPU minutes": round(f["seconds"] / 60, 1)}
            for part, f in found.items()
            if f["seconds"]  # 0 where nobody looked
        ],
    }
    tables = {title: lines for title, lines in tables.items() if lines}
    write("samplers", tables, quick)
    if not quick:
        ALL.parent.mkdir(exist_ok=True)
        ALL.write_text(_one_a_line(found))
        draw(rows, dims)
    return tables


def _one_a_line(found):
    """JSON with one row a line."""
    parts = []
    for part, f in found.items():
        head = ", ".join(f"{json.dumps(k)}: {json.dumps(f[k])}" for k in ("date", "seconds"))
        lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in f["rows"])
        parts.append(f'{json.dumps(part)}: {{{head}, "rows": [\n{lines}\n]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def draw(rows, dims):
    """Error against evaluations, one picture for each problem."""
    for dim in dims:
        here = [r for r in rows["flow"] + rows["calibrated"] if r["dimensions"] == dim]
        curves = _curves(here, "error", lambda r: r["library"] == "sdegen" or r["grid"] != RULE)
        name = f"samplers_{str(dim).split(',')[0]}d{'_far' * (dim == FAR)}"
        _save(name, curves, "distance to the exact flow, rms")
    for dim in noisy.SAMPLES:
        here = [r for r in rows["noisy"] if r["dimensions"] == dim]
        if here:
            floor = next(r["20"] for r in here if str(r["sampler"]).startswith("floor"))
            curves = _curves(here, "error", lambda r: r["noisy"])
            _save(f"samplers_{dim}d_noisy", curves, "sliced W2, η = 1", floor)
    for part, quantity in (("moons", "sliced W2"), ("digits", "energy distance")):
        if rows[part]:
            floor = next(r["20"] for r in rows[part] if r["sampler"].startswith("floor"))
            for name, noisy_ones in (
                (f"samplers_{part}", False),
                (f"samplers_{part}_noisy", True),
            ):
                curves = _curves(rows[part], "error", lambda r, of=noisy_ones: r["noisy"] == of)
                told = f"{quantity} to unseen data" + ", noisy" * noisy_ones
                _save(name, curves, told, floor)
            curves = _curves(rows[part], "from the flow", lambda r: not r["noisy"])
            _save(f"samplers_{part}_flow", curves, "distance to the network's flow, rms")


def redraw():
    """Draw the pictures from what is stored."""
    rows = {part: found["rows"] for part, found in json.loads(ALL.read_text()).items()}
    dims = dict.fromkeys(r["dimensions"] for r in rows["flow"] + rows["calibrated"])
    draw({part: [] for part in PARTS} | rows, list(dims))


def _curves(rows, what, wanted):
    """The least error at each count by kind: ours, calibrated, each library."""
    curves = {}
    for r in rows:
        if "budget" not in r or r.get(what) is None or not wanted(r):
            continue
        kind = "sdegen, calibrated" if r["grid"] == "calibrated" else f"{r['library']}, best"
        errors = curves.setdefault(kind, {})
        errors[r["budget"]] = min(r[what], errors.get(r["budget"], math.inf))
    order = ("sdegen, best", "sdegen, calibrated")
    return {
        name: sorted(curves[name].items())
        for name in sorted(curves, key=lambda name: (name not in order, name))
    }


def _save(name, curves, quantity, floor=None):
    """A picture of it."""
    sg.plots.pareto(curves, quantity=quantity, floor=floor).savefig(RESULTS / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    parser.add_argument(
        "--only", nargs="+", default=(), choices=PARTS, help="parts to run; keeps the others"
    )
    main(**vars(parser.parse_args()))
