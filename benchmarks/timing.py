"""Wall times of a function that is run again and again, after one run that warms up."""

import time


def walls(run, repeats, wait=lambda: None):
    """Seconds of each run; wait() returns when what was asked of a device is done."""
    run()
    taken = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        taken.append(time.perf_counter() - start)
    return taken


def best(run, repeats):
    """Seconds of the fastest run."""
    return min(walls(run, repeats))
