"""Runs fplanck by itself, in an environment of its own, which has numpy < 2 and neither torch nor
sdegen.

PYTHON benchmarks/fplanck_peer.py 500 1000 …       one line of JSON for each number of nodes

dX = −X dt + √2 dW on [−10, 10] in its SI units: kT = 1, drag 1, U = x²/2, reflecting walls. Times
are those of one thread, the best of as many runs as fit in a second.
"""

import json
import sys
import time

import fplanck
import numpy as np
from scipy.constants import k

LENGTH, T = 20.0, 0.5


def normal(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def best(run):
    """Seconds of one thread, and what came out."""
    seconds, result, end = np.inf, None, time.monotonic() + 1
    while True:
        began = time.thread_time()
        result = run()
        seconds = min(seconds, time.thread_time() - began)
        if time.monotonic() > end:
            return seconds, result


def start(x):
    return normal(x, 2.0, 0.25)


def build(nodes):
    return fplanck.fokker_planck(
        temperature=1 / k,
        drag=1.0,
        extent=LENGTH,
        resolution=LENGTH / nodes,
        potential=lambda x: 0.5 * x**2,
        boundary=fplanck.boundary.reflecting,
    )


for nodes in map(int, sys.argv[1:]):
    building, solver = best(lambda nodes=nodes: build(nodes))
    running, p = best(lambda solver=solver: solver.propagate(start, T))
    resting, rest = best(solver.steady_state)
    x = solver.axes[0]
    h = x[1] - x[0]
    exact = normal(x, 2 * np.exp(-T), 1 - 0.75 * np.exp(-2 * T))
    row = {
        "nodes": len(x),
        "build": building,
        "transient": running,
        "stationary": resting,
        "error": float(np.abs(p / h - exact).max()),
        "stationary error": float(np.abs(rest / rest.sum() / h - normal(x, 0.0, 1.0)).max()),
    }
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()
