"""The zoo: faults of public projects, planted anew. Are they caught, and are they named?

python -m benchmarks.zoo                 every fault, in each of its dimensions
python -m benchmarks.zoo --clean 1000    as many right runs, the clean twins in turn

Each run is judged by `certify(sde, path=…)` against what its author believed, at a false alarm of
1e-3 for all tests together. "Named" is the first name of the diagnosis, if it is that of the
fault's class; the classes were declared before, and `WORDS` says how the diagnosis calls them. Of
faults outside of all classes nothing should be named. Beside it is what the usual checks saw of
the same states (`zoo_usual_checks.py`).
"""

import argparse
import time
from collections import defaultdict

import numpy as np
from scipy import stats

import sdegen as sg
from benchmarks.record import write
from benchmarks.zoo_faults import ALL, CLASSES, FAULTS, HISTORICAL, OUTSIDE, SIZE
from benchmarks.zoo_usual_checks import ALPHA, CHECKS, LARGER, usual

# The diagnosis's words for a class. Of several each has the law of the class in its planting.
WORDS: dict[str, tuple[str, ...]] = {
    "noise: variance halved": ("noise variance half",),
    "noise: variance doubled": ("noise variance twice",),
    "noise: amplitude doubled": ("noise variance four times",),
    "noise: dt for √dt": ("noise with dt for √dt",),
    "noise: √dt left out": ("noise not multiplied by √dt",),
    "noise: variance for standard deviation": ("variance for standard deviation",),
    "noise missing": ("noise missing",),
    "noise missing in a coordinate": ("noise missing in a coordinate",),
    "noise where there is none": ("noise where there is none",),
    "noise uniform": ("uniform noise of unit variance",),
    "noise uniform on [0, 1)": ("uniform noise on [0, 1]",),
    "noise a product of normals": ("noise a product of two normals",),
    "noise shared between coordinates": ("the same noise in all coordinates",),
    "noise shared between trajectories": ("the same noise in several trajectories",),
    "noise shared between trajectories, shifted in time": (
        "noise of one trajectory used later by another",
    ),
    "noise reused in every step": ("noise used again in time",),
    "noise replayed after a restart": ("noise used again in time",),
    "step: dt left out": ("dt by a factor",),  # drift by τ and noise by √τ: dt is the 1 of a step
    "step: nothing moves": ("nothing moves",),
    "step: the last one left out": ("last step left out",),
    "state forgotten": ("state forgotten",),
    "drift missing": ("drift missing",),
    "drift: constant part missing": ("a constant added",),
    "drift: sign of the score": ("score of the wrong sign",),
    "drift: score halved": ("score half",),
    "drift: that of the noise missing": ("Itô for Klimontovich", "Itô for Stratonovich"),
    "schedule: held at its start": ("time frozen",),
    "schedule: one step off": ("time off by one",),
    "schedule: α for ᾱ": ("α for ᾱ",),
    "schedule: rounded": ("schedule rounded",),
    "reversed time": ("time reversed",),
    "posterior: β for its variance": ("β for the posterior variance",),
    "mass missing in the force": ("mass missing in the force",),
    "mass: 1/m for 1/√m in the noise": ("noise divided by the mass",),
    "friction doubled": ("friction twice",),
    "friction halved": ("friction half",),
    "stale force": ("stale force",),
    "wall: clipped for reflected": ("clipped at the walls",),
    "wall: absorbed for reflected": ("absorbing for reflecting",),
    "periodic box: image of another coordinate": ("image of another coordinate",),
    "periodic box: minimum image missing": ("minimum image missing",),
    "state: rounded": ("states in float16",),
    "outside": (),
}
SURE = 10.0  # odds from which a wrong name counts


def asked(planted):
    """Return how the times of a run are told: by its step, or one by one."""
    if planted.sde.direction == 1 and planted.sde.autonomous:
        return {"dt": planted.dt}
    return {"times": planted.times}


def judged(planted):
    """Return the certificate of a run, the seconds that it took, and why there is none, if so."""
    began, certificate, refusal = time.perf_counter(), None, None
    try:
        certificate = sg.certify(
            planted.sde,
            path=planted.states,
            solver=planted.solver,
            boundary=planted.boundary,
            false_alarm=ALPHA,
            **asked(planted),
        )
    except (ValueError, ArithmeticError, RuntimeError) as error:
        refusal = f"{type(error).__name__}: {error}"  # shown in the row, and not caught
    return certificate, time.perf_counter() - began, refusal


def diagnosed(certificate):
    """Return the first name that a certificate gives, and its odds; None where it gives none."""
    diagnosis = getattr(certificate, "diagnosis", None)
    if diagnosis is None or diagnosis.named is None:
        return None, None
    return diagnosis.named, float(diagnosis.odds)


def row_of(fault, dim, seed=0, size=SIZE):
    """Plant a fault, and return what is said of it."""
    rng = np.random.default_rng([seed, dim])
    planted = fault.plant(dim, rng, size)
    certificate, seconds, refusal = judged(planted)
    failed = certificate.failed if certificate else ()
    said, odds = diagnosed(certificate)
    right = fault.plant(dim, rng, LARGER * size, faulty=False)
    p_values = usual(planted, right, rng)
    return {
        "fault": fault.name,
        "project": f"{fault.project}#{fault.issue}" if fault.project else None,
        "class": fault.klass,
        "dimension": dim,
        "caught": bool(failed),
        "named": said in WORDS.get(fault.klass, (fault.klass,)),
        "said": said,
        "odds": odds,
        "first test": failed[0].name if failed else refusal,
        "seconds": seconds,
        "numbers": planted.states.numel(),
        **{check: None if p is None else p < ALPHA for check, p in p_values.items()},
    }


def of_classes(rows):
    """Return a row for each class: how many of its runs were caught, and named."""
    of = defaultdict(list)
    for row in rows:
        of[row["class"]].append(row)
    return [
        {
            "class": klass,
            "runs": len(of[klass]),
            "caught": sum(row["caught"] for row in of[klass]),
            "named": sum(row["named"] for row in of[klass]),
            "longest, seconds": max(row["seconds"] for row in of[klass]),
        }
        for klass in CLASSES
        if klass in of
    ]


def of_dimensions(rows):
    """Return a row for each dimension: what was caught there, and by whom."""
    return [
        {
            "dimension": dim,
            "faults": len(there),
            "caught": sum(row["caught"] for row in there),
            "named": sum(row["named"] for row in there),
            **{check: sum(bool(row[check]) for row in there) for check in CHECKS},
        }
        for dim in ALL
        if (there := [row for row in rows if row["dimension"] == dim])
    ]


def of_strange(rows):
    """Return a row for each fault outside of all classes."""
    return [
        {
            "fault": fault.name,
            "sentence": fault.sentence,
            "runs": len(there),
            "caught": sum(row["caught"] for row in there),
            "said to be unknown": sum(row["said"] is None for row in there),
            "named wrongly with odds above 10": sum((row["odds"] or 0.0) > SURE for row in there),
        }
        for fault in OUTSIDE
        if (there := [row for row in rows if row["fault"] == fault.name])
    ]


def twins(runs):
    """Yield (fault, dimension, seed) of right runs: all faults in all dimensions, in turn."""
    places = [(fault, dim) for fault in HISTORICAL for dim in fault.dims]
    order = np.random.default_rng(0).permutation(len(places))
    for run in range(runs):
        fault, dim = places[order[run % len(places)]]
        yield fault, dim, 1 + run // len(places)


def false_alarms(runs, size=SIZE):
    """Return the table of false alarms over clean twins, and that of the p-values of each test."""
    rows, refused, alarms, p_values = [], [], defaultdict(list), defaultdict(list)
    began = time.perf_counter()
    for run, (fault, dim, seed) in enumerate(twins(runs)):
        # a seed of its own: two faults of one equation would have one clean twin
        planted = fault.plant(dim, np.random.default_rng([seed, dim, run]), size, faulty=False)
        certificate, _, refusal = judged(planted)
        if certificate is None:
            print(f"refused: {fault.name} in {dim}: {refusal}", flush=True)
            refused.append(fault.name)
            continue
        alarms[dim].append(not certificate.passed)
        for check in certificate.checks:
            if check.p_value is not None:
                p_values[check.name].append(check.p_value)
        for check in certificate.failed:
            print(f"false alarm: {fault.name} in {dim}, seed {seed}: {check}", flush=True)
    for dim in ALL:
        if alarms[dim]:
            rows.append(
                {"dimension": dim, "runs": len(alarms[dim]), "false alarms": sum(alarms[dim])}
            )
    seconds = time.perf_counter() - began
    total = sum(row["false alarms"] for row in rows)
    of_all = {"dimension": "all", "runs": runs - len(refused), "false alarms": total}
    rows.append(of_all | {"refused": len(refused), "seconds": seconds})
    tests = [
        {
            "test": name,
            "p-values": len(values),
            "least": min(values),
            "p of uniform p-values": float(stats.kstest(values, "uniform").pvalue),
        }
        for name, values in sorted(p_values.items())
    ]
    return {"false alarms of right runs": rows, "p-values of right runs": tests}


def shown(rows):
    """Print rows, one a line."""
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))


def main(quick=False, runs=0, only=None, size=SIZE):
    """Judge the faults, or with `runs` that many right runs.

    Args:
        quick: Whether each fault is planted in its first dimension alone, and small.
        runs: Right runs; 0: faults.
        only: A part of the names that are planted; then nothing is written.
        size: Numbers of a run.
    """
    size = SIZE // 10 if quick else size
    if runs:
        tables = false_alarms(runs, size)
        for rows in tables.values():
            shown(rows)
        write("zoo_clean", tables, quick)
        return tables
    rows = []
    for fault in FAULTS:
        for dim in fault.dims[:1] if quick else fault.dims:
            if only is None or only in fault.name:
                rows.append(row_of(fault, dim, size=size))
                line = {k: v for k, v in rows[-1].items() if k not in ("project", "numbers")}
                print("  ".join(str(value) for value in line.values()), flush=True)
    tables = {
        "faults": rows,
        "classes": of_classes([row for row in rows if row["class"] != "outside"]),
        "dimensions": of_dimensions([row for row in rows if row["class"] != "outside"]),
        "outside of all classes": of_strange(rows),
    }
    for title in list(tables)[1:]:
        shown(tables[title])
    write("zoo", tables, quick or only is not None)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clean", type=int, default=0, metavar="RUNS")
    parser.add_argument("--only", metavar="PART")
    parser.add_argument("--size", type=int, default=SIZE)
    given = parser.parse_args()
    main(given.quick, given.clean, given.only, given.size)
