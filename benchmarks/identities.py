"""Averages of one long correlated trajectory: how often right states are called wrong at 5 %.

python -m benchmarks.identities

Exact Ornstein–Uhlenbeck runs, x_{k+1} = φ x_k + √(1 − φ²) z with φ = e^{−1/1000}: 10⁶ stored
states, correlation time 1000, one trajectory. Rows of `sdegen.identities` of which each is 0 or 1
exactly, and whose p-value is below 0.05 in one run of twenty if its error is right. "Independent
states" is the test that knows nothing of correlations.
"""

import argparse
import math
import time

import numpy as np
import torch
from scipy import stats
from scipy.signal import lfilter

import sdegen as sg
from benchmarks.record import write
from sdegen.verification.identities.ends import ends_of
from sdegen.verification.identities.excerpt import excerpt_of
from sdegen.verification.identities.generator import generator_rows
from sdegen.verification.identities.thermal import thermal_of, thermal_rows

OU = sg.Langevin(sg.Quadratic(1.0), 1.0)


def run(states, tau, seed):
    """A trajectory at rest, shape (states, 1, 1), and its times."""
    phi = math.exp(-1 / tau)
    z = np.random.default_rng(seed).standard_normal(states)
    z[1:] *= math.sqrt(1 - phi**2)
    x = torch.from_numpy(lfilter([1.0], [1.0, -phi], z))
    return sg.StoredStates(torch.arange(states, dtype=torch.float64) / tau, x[:, None, None])


def p_values(states):
    """Yield (name, p) of rows that hold exactly for the process itself."""
    ends, excerpt = ends_of(OU, states, None), excerpt_of(states, in_a_row=False, autonomous=True)
    given = {"at_rest": True, "autonomous": True, "without_squares": False}
    rows = generator_rows(OU, excerpt, ends, ["x"], **given)
    rows += thermal_rows(thermal_of(OU, states), excerpt, ends, ["x"], states)
    for row in rows:
        yield row.name, row.p_value
    x = excerpt.x.flatten()
    off = float((x.square().mean() - 1) / (x.square().std() / math.sqrt(len(x))))
    yield "⟨x²⟩ = T, of independent states", float(2 * stats.norm.sf(abs(off)))


def table(states, tau, repeats):
    """Return a row for each identity."""
    found, began = {}, time.process_time()
    for seed in range(repeats):
        for name, p in p_values(run(states, tau, seed)):
            found.setdefault(name, []).append(p)
    spent = time.process_time() - began
    return [
        {
            "identity": name,
            "states": states,
            "correlation time": tau,
            "runs": repeats,
            "rejected at 5 %": float(np.mean(np.array(p) < 0.05)),
            "rejected at 1 %": float(np.mean(np.array(p) < 0.01)),
            "Kolmogorov–Smirnov p": float(stats.kstest(p, "uniform").pvalue),
            "CPU ms of a run": 1000 * spent / repeats,
        }
        for name, p in found.items()
    ]


def main(quick=False):
    """Print and record the table."""
    rows = table(20_000, 20, 10) if quick else table(10**6, 1000, 2000)
    for row in rows:
        print(row, flush=True)
    tables = {"nominal 5 % tests of one trajectory": rows}
    write("identities", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
