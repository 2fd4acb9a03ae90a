"""The live page in a headless Chromium: its first picture, frames a second, and their cost.

python -m benchmarks.explore

The clock starts with the process of `sdegen explore`; the first picture is there when the browser
has painted it, and so is a frame (`document.body.dataset.frames`).
CPU seconds are those of all processes, by kind, so that a machine that is busy with other work can
be told from a page that is slow: the load is beside them.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.record import write

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FRAMES = "Number(document.body.dataset.frames || 0)"
PATIENCE = 120_000  # milliseconds


def spent(root):
    """CPU seconds of all processes below one, by what they are."""
    import psutil

    seconds = {"desk": 0.0, "server": 0.0, "browser": 0.0}
    for process in psutil.Process(root).children(recursive=True):
        try:
            words, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        if "run-driver" in words:
            continue
        kind = "browser" if "chrom" in words else "server" if "fork" in words else "desk"
        seconds[kind] += times.user + times.system
    return seconds


def one(particles, seconds):
    """Open the page, watch it for some seconds: a row of the first picture, and one of frames."""
    from playwright.sync_api import sync_playwright

    me, chromium = os.getpid(), shutil.which("chromium") or shutil.which("chromium-browser")
    words = ["explore", "--no-browser", "--particles", str(particles)]
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(PATIENCE)
        before, began = spent(me), time.perf_counter()
        program = subprocess.Popen(
            [sys.executable, "-m", "sdegen", *words], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        try:
            line = program.stdout.readline()
            page.goto(re.search(r"http://\S+", line).group())
            page.wait_for_function(f"{FRAMES} >= 1", polling="raf")
            first, after = time.perf_counter() - began, spent(me)
            load = os.getloadavg()[0]
            picture = {
                "particles": particles,
                "first picture in s": round(first, 2),
                "load": round(load, 1),
                **{f"CPU s of the {k}": round(after[k] - before[k], 2) for k in after},
            }
            page.wait_for_timeout(1000)  # what is asked beside has been answered
            start, before, began = page.evaluate(FRAMES), spent(me), time.perf_counter()
            page.wait_for_timeout(1000 * seconds)
            count, after = page.evaluate(FRAMES) - start, spent(me)
            frames = {
                "particles": particles,
                "frames a second": round(count / (time.perf_counter() - began), 1),
                "load": round(load, 1),
                **{
                    f"CPU ms of the {k}": round(1e3 * (after[k] - before[k]) / count, 1)
                    for k in after
                },
            }
            total = sum(after[k] - before[k] for k in after) / count
            frames["two cores over the CPU of a frame, at most 20"] = round(
                min(20.0, 2 / total), 1
            )
        finally:
            program.send_signal(signal.SIGINT)
            program.wait()
            browser.close()
    return picture, frames


def main(quick=False):
    """Both tables."""
    runs = [one(particles, 2 if quick else 6) for particles in ((500,) if quick else (5000, 5000))]
    tables = {
        "first picture, from the start of the process": [picture for picture, _ in runs],
        "frames that the browser painted": [frames for _, frames in runs],
    }
    write("explore", tables, quick, peers=("bokeh", "playwright"))
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rehearsal with small numbers")
    for title, rows in main(parser.parse_args().quick).items():
        print(title, *rows, sep="\n")
