"""Error bars of time averages: how often intervals of 95 % hold what they are said to hold.

python -m benchmarks.error_bars

x_{k+1} = φ x_k + √(1 − φ²) z, φ = e^{−1/50}: mean 0, variance 1, and τ_int = ½ coth(1/100) = 50.00
are exact, as is the variance of the mean of so many states. "Independent states" is the interval
that knows nothing of correlations. Series that are refused as too short are counted, and left out.
"""

import argparse
import math
import time
import warnings
from contextlib import suppress

import numpy as np
import torch
from scipy import stats
from scipy.signal import lfilter

import sdegen as sg
from benchmarks.record import write

TAU = 50
PHI = math.exp(-1 / TAU)
EXACT = 0.5 / math.tanh(0.5 / TAU)
# states of a trajectory, and trajectories
SIZES = ((2_500, 1), (5_000, 1), (20_000, 1), (2_000, 10), (50, 400))


def ar1(n, rows, seed):
    """A series at rest, shape (n, rows)."""
    z = np.random.default_rng(seed).standard_normal((n, rows))
    z[1:] *= math.sqrt(1 - PHI**2)
    return torch.from_numpy(lfilter([1.0], [1.0, -PHI], z, axis=0))


def error_of_mean(n, rows):
    """Exact standard error of the mean."""
    memory = (1 + PHI) / (1 - PHI) - 2 * PHI * (1 - PHI**n) / (n * (1 - PHI) ** 2)
    return math.sqrt(memory / (n * rows))


def intervals(x):
    """Yield (of, by, interval, the truth, standard error, the exact one) of a series."""
    n, rows = x.shape
    exact = error_of_mean(n, rows)
    average = sg.time_average(x)
    yield "mean", "time_average", average.interval(), 0.0, average.standard_error, exact
    with suppress(ValueError):
        blocks = sg.block_average(x)
        yield "mean", "block_average", blocks.interval(), 0.0, blocks.standard_error, exact
    naive = float(x.std()) / math.sqrt(x.numel())
    half = stats.norm.ppf(0.975) * naive
    mean = float(x.mean())
    yield "mean", "independent states", (mean - half, mean + half), 0.0, naive, exact
    found = sg.time_covariance(x)
    low, high = found.interval()
    # Bartlett, of a Gaussian process of n ≫ τ
    known = math.sqrt(2 * 2 * 0.5 / math.tanh(1 / TAU) / x.numel()) if n >= 40 * TAU else math.nan
    yield "variance", "time_covariance", (low[0, 0], high[0, 0]), 1.0, found.variance_error, known
    if n >= 40 * TAU:
        tau = sg.integrated_autocorrelation_time(x)
        yield "τ_int", "its own error", tau.interval(), EXACT, tau.error, math.nan


def main(quick=False):
    """Print and record the table."""
    repeats, rows = 20 if quick else 1000, []
    for n, trajectories in SIZES:
        inside, errors, known, spent = {}, {}, {}, 0.0
        for seed in range(repeats):
            x = ar1(n, trajectories, seed)
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sg.AccuracyWarning)
                measured = list(intervals(x))
            spent += time.process_time() - began
            for of, by, (low, high), truth, error, exact in measured:
                inside.setdefault((of, by), []).append(float(low) <= truth <= float(high))
                errors.setdefault((of, by), []).append(float(error) ** 2)
                known[of, by] = exact
        for (of, by), held in inside.items():
            exact = known[of, by]
            ratio = math.sqrt(np.mean(errors[of, by])) / exact
            rows.append(
                {
                    "of": of,
                    "by": by,
                    "states": n,
                    "trajectories": trajectories,
                    "repeats": repeats,
                    "refused": repeats - len(held),
                    "inside": float(np.mean(held)),
                    "rms standard error/exact": None if math.isnan(exact) else ratio,
                    "CPU ms of all": 1000 * spent / repeats,
                }
            )
            print(rows[-1], flush=True)
    tables = {"intervals of 95 %, AR(1) with τ = 50": rows}
    write("error_bars", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
