"""What importing costs: seconds of fresh processes, from the start of Python to its end.

python -m benchmarks.imports [--quick]

Each process is run once before the clock counts, so that bytecode is written and files are in the
disk's cache. The rounds run each process once, in turn; a row has the median over rounds, and the
median of what it takes above the row that it is compared with in the same round. CPU seconds are
those of the operating system for the process, user and system: they say the same on a machine
that is busy with other work, where seconds on the wall do not.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.record import write

ROUNDS = 7
FIRST_USE = (
    "import torch; import sdegen as sg; "
    "sg.simulate(sg.OrnsteinUhlenbeck(), torch.zeros(10, 1), [0.0, 0.1], rng=0)"
)
# process: (arguments of Python, the process above which its seconds are counted)
PROCESSES = {
    "Python alone": (["-c", ""], None),
    "import sdegen": (["-c", "import sdegen"], "Python alone"),
    "sdegen --help": (["-m", "sdegen", "--help"], "Python alone"),
    "import torch": (["-c", "import torch"], "Python alone"),
    "import torch, first sg.simulate": (["-c", FIRST_USE], "import torch"),
}


def seconds(arguments):
    """Wall and CPU seconds of a fresh Python with these arguments; one thread each."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return {"wall": wall, "CPU": used.ru_utime + used.ru_stime}


def costs(rounds):
    """Return a row for each process."""
    for arguments, _ in PROCESSES.values():
        seconds(arguments)
    taken = [
        {name: seconds(arguments) for name, (arguments, _) in PROCESSES.items()}
        for _ in range(rounds)
    ]
    rows = []
    for name, (_, below) in PROCESSES.items():
        row = {"process": name}
        for kind in ("wall", "CPU"):
            row[f"{kind} s"] = statistics.median(one[name][kind] for one in taken)
        row["above"] = below
        for kind in ("wall", "CPU"):
            row[f"{kind} s above it"] = below and statistics.median(
                one[name][kind] - one[below][kind] for one in taken
            )
        rows.append(row)
    return rows


def main(quick=False):
    """Measures, prints and records."""
    torch.set_num_threads(1)  # as the processes have
    title = f"seconds of a fresh process, medians of {ROUNDS}"
    tables = {title: costs(2 if quick else ROUNDS)}
    for row in tables[title]:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    write("imports", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
