"""Run the examples whole, and compare what they print with what their headers say.

    python tests/examples_full.py                  all of them, two at a time
    python tests/examples_full.py --update NAME …  some, whose headers then say what was printed

Lines with seconds, or blocks done at an interruption, are compared by their words, all others to
the last digit, but for numbers below 1e-8, which are rounding: every example is seeded. (Trainings
follow the last bit of the processor's arithmetic; on another one they end at other numbers, of the
same size.) examples/full.json gets the CPU seconds of each, with machine, versions and date, and
docs/pictures/examples the pictures of those that the site does not run.
"""

import argparse
import datetime
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from example_files import COST, EXAMPLES, NAMES, ROOT, header, is_long, shape, source
from PIL import Image

PICTURES = ROOT / "docs" / "pictures" / "examples"
MOST = 120_000  # bytes of a picture
PACKAGES = ("sdegen", "torch", "numpy", "scipy", "matplotlib", "diffusers", "torchsde")


def run(name):
    """Run an example in a folder of its own; return what it prints, CPU seconds and its picture.

    What it writes goes with the folder.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *paths])}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.py").write_text(source(name), encoding="utf-8")
        program = subprocess.Popen(
            [sys.executable, "-W", "error", f"{name}.py"],
            cwd=folder, env=os.environ | more, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        printed = program.stdout.read()
        _, status, used = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
        if program.returncode:
            raise RuntimeError(f"{name}.py ended with status {program.returncode}")
        picture = (Path(folder) / f"{name}.png").read_bytes()
    return printed.rstrip("\n"), used.ru_utime + used.ru_stime, picture


def attempt(name):
    """Run an example, or return why it failed, so that the others run all the same."""
    try:
        return run(name)
    except (RuntimeError, OSError) as error:
        return error


def differences(said, printed):
    """Return the lines that are printed and not said: "said | printed"."""
    if shape(said) != shape(printed):
        return [f"{said}\n  |\n{printed}"]
    pairs = zip(said.splitlines(), printed.splitlines(), strict=True)
    rounding, timed = (
        re.compile(r"\d(\.\d+)?e-(09|[1-9]\d)"),
        re.compile(r"\d s\b|blocks are done"),
    )
    return [
        f"{a} | {b}"
        for a, b in pairs
        if rounding.sub("0", a) != rounding.sub("0", b) and not timed.search(a)
    ]


def small(picture):
    """Return a PNG of at most `MOST` bytes: as it is, with fewer colours, or smaller too."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    while len(picture) > MOST:
        for colours in (256, 64):
            held = io.BytesIO()
            image.quantize(colours, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
            picture = held.getvalue()
            if len(picture) <= MOST:
                return picture
        image = image.resize([round(0.9 * side) for side in image.size], Image.Resampling.LANCZOS)
    return picture


def rewrite(name, printed, seconds):
    """Write what was printed, and in how many seconds, into the header of an example."""
    block = "\n".join(f"    {line}".rstrip() for line in header(name).splitlines())
    new = "\n".join(f"    {line}".rstrip() for line in printed.splitlines())
    text = source(name).replace(block, new, 1)
    found = COST.search(text)
    text = text[: found.start(1)] + f"{seconds:.0f}" + text[found.end(1) :]
    (EXAMPLES / f"{name}.py").write_text(text, encoding="utf-8")


def machine():
    """Return the name of the processor, and how many of it."""
    known = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", known.read_text()) if known.exists() else []
    return f"{os.cpu_count()} × {names[0] if names else platform.machine()}"


def record(name, seconds):
    """Write the cost of an example into full.json, beside those of the others."""
    file = EXAMPLES / "full.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found = {package: version(package) for package in PACKAGES}
    costs = known.get("cpu_seconds", {}) | {name: round(seconds, 1)}
    known = {
        "machine": machine(),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "versions": {"python": platform.python_version(), **found},
        "cpu_seconds": dict(sorted(costs.items())),
    }
    text = json.dumps(known, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def main():
    """Run what is asked for; the status is 1 where a header says something else."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="examples; all where none is")
    parser.add_argument("--update", action="store_true", help="let headers say what was printed")
    asked = parser.parse_args()
    # a shell that starts this in the background ignores Ctrl-C for it, which an example presses
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    names, wrong = asked.names or NAMES, []
    with ThreadPoolExecutor(2) as pool:
        for name, result in zip(names, pool.map(attempt, names), strict=True):
            if isinstance(result, Exception):
                sys.stdout.write(f"{result}\n")
                wrong.append(name)
                continue
            printed, seconds, picture = result
            found = differences(header(name), printed)
            sys.stdout.write("\n  ".join([f"{name}: {seconds:.0f} CPU s", *found]) + "\n")
            sys.stdout.flush()
            record(name, seconds)
            if is_long(name):
                PICTURES.mkdir(parents=True, exist_ok=True)
                (PICTURES / f"{name}.png").write_bytes(small(picture))
            if asked.update:
                rewrite(name, printed, seconds)
            elif found:
                wrong.append(name)
    if wrong:
        sys.exit(f"not what the headers say, or failed: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
