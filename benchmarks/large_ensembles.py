"""Large ensembles: time and memory of run_ensemble, and two processes against one.

python -m benchmarks.large_ensembles

Double well as a lambda, float32, 100 steps, mean and histogram at ten times; every run is a fresh
process. Time, the median of the runs, should be linear in the trajectories, and memory the same.
The processes of the second table are torchrun's, with one thread each; they share one ensemble,
and the sha256 of its mean and histogram is to be one. CPU seconds are those of all threads: on a
machine that does other things too they tell more than the clock. Every process runs a block on
each of its threads beforehand.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.record import write

PROGRAM = """
import hashlib, resource, sys, time, torch, sdegen as sg
trajectories, threads = int(sys.argv[1]), int(sys.argv[2]) or None
sde = sg.ItoProcess(lambda x: x - x**3, 0.7)
def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime
with sg.distributed_context() as ranks:
    def run(n):
        return sg.run_ensemble(
            sde, torch.full((1, 1), -1.0), torch.linspace(0, 1, 11), trajectories=n, rng=0,
            solver=sg.EulerMaruyama(substeps=10), threads=threads, ranks=ranks, progress=False,
            observables=[sg.Moments(), sg.Histogram(-3, 3, 100)])
    run(10**5)  # imports, memory for a block of each thread, processes that wait for each other
    began = spent()
    found = run(trajectories).observables
    seconds, cpu = (b - a for a, b in zip(began, spent()))
bits = found["moments"].mean.numpy().tobytes() + found["histogram"].counts.numpy().tobytes()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
row = ("row", ranks.rank, seconds, cpu, peak, hashlib.sha256(bits).hexdigest())
sys.stdout.write(" ".join(map(str, row)) + "\\n")  # in one piece, beside other processes
"""
STEPS = 100


def measured(trajectories, *, processes=0, threads=0):
    """Seconds, CPU seconds of all, largest peak in MiB, and the sha256s, of one ensemble."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAM)
        arguments = [str(program), str(trajectories), str(threads)]
        done = subprocess.run(
            [sys.executable, *(torchrun if processes else []), *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    rows = re.findall(r"row \d+ (\S+) (\S+) (\S+) (\w+)", done.stdout)
    seconds, cpu, peaks = ([float(row[k]) for row in rows] for k in range(3))
    return max(seconds), sum(cpu), max(peaks), {row[3] for row in rows}


def sizes(quick):
    """Time and memory over the number of trajectories."""
    round_ = (10**4, 10**5) if quick else (*[10**6] * 3, 10**7)
    order = round_ if quick else (*round_ * 3, 10**8, *round_ * 3)
    runs: dict[int, list] = {}
    for trajectories in order:  # in turn: a machine has slow minutes
        runs.setdefault(trajectories, []).append(measured(trajectories))
    rows = []
    for trajectories, found in sorted(runs.items()):
        seconds, cpu = (median(run[k] for run in found) for k in (0, 1))
        peak = max(run[2] for run in found)
        rows.append(
            {
                "trajectories": trajectories,
                "runs": len(found),
                "seconds": seconds,
                "million steps a second": trajectories * STEPS / seconds / 1e6,
                "CPU ns a step": 1e9 * cpu / trajectories / STEPS,
                "peak memory in MiB": peak,
            }
        )
    return rows


def processes(quick):
    """One process and two, each with one thread, in turn; the best of each."""
    trajectories = 10**5 if quick else 10**7
    found: dict[int, list] = {1: [], 2: []}
    for _ in range(1 if quick else 3):
        for count, done in found.items():
            done.append(measured(trajectories, processes=count, threads=1))
    assert len({bits for runs in found.values() for run in runs for bits in run[3]}) == 1
    best = {count: min(run[0] for run in runs) for count, runs in found.items()}
    return [
        {
            "processes": count,
            "seconds": seconds,
            "million steps a second": trajectories * STEPS / seconds / 1e6,
            "against one": best[1] / seconds,
        }
        for count, seconds in best.items()
    ]


def main(quick=False):
    """Runs both tables; a quick run is a rehearsal and writes nothing."""
    tables = {"one process": sizes(quick), "torchrun, one thread each": processes(quick)}
    write("large_ensembles", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a rehearsal, with small numbers")
    main(parser.parse_args().quick)
