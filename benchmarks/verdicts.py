"""Verdicts on stored states: the least fault that is seen, and how fast innovations are read.

python -m benchmarks.verdicts

*Least fault.* One trajectory of a million steps of Ornstein-Uhlenbeck's chain, whose drift or
noise is off by a factor, judged at a false alarm of 1e-3. What is possible is
(z₀.₉₉₉₅ + z₀.₉)/√I: I = N h E(f/g)² for the drift, and 2 N for the standard deviation of the
noise. "seen" is how often a fault of so many times that is refused.

*Speed.* A hundred million numbers of a double well: the sums of innovations that decide on drift
and noise, beside reading the numbers and evaluating the drift, block by block in the same blocks.
Single precision and double, the best of each in turn.
"""

import argparse
import math
import time

import numpy as np
import torch
from scipy import signal, stats

import sdegen as sg
from benchmarks.record import write
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.innovations import sample
from sdegen.verification.innovations.choice import law_of

STEPS, RUNS, H = 1_000_000, 100, 0.01
TIMES_POSSIBLE = (1.0, 1.25, 1.5)
NUMBERS, BATCH, ROUNDS = 100_000_000, 10_000, 5
ALPHA = 1e-3


def chain(rate, sigma, steps, rng):
    """A trajectory of x ← x − h rate x + √h sigma z from about its law at rest."""
    z = rng.standard_normal(steps + 1) * math.sqrt(H) * sigma
    z[0] = rng.standard_normal() / math.sqrt(2 * rate)
    x = signal.lfilter([1.0], [1.0, rate * H - 1.0], z)
    return torch.from_numpy(x)[:, None, None]


def least_fault(steps, runs):
    """How often faults of so many times what is possible are seen."""
    sde, rng = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0), np.random.default_rng(1)
    chance = stats.norm.isf(ALPHA / 2) + stats.norm.ppf(0.9)
    of = {
        "drift": chance / math.sqrt(steps * H / (2 - H)),
        "noise": chance / math.sqrt(2 * steps),
    }
    rows = []
    for what in ("nothing", "drift", "noise"):
        for times in TIMES_POSSIBLE if what != "nothing" else (0.0,):
            fault = 1 + times * of.get(what, 0.0)
            rate, sigma = fault if what == "drift" else 1.0, fault if what == "noise" else 1.0
            began, seen = time.process_time(), 0
            for _ in range(runs):
                path = chain(rate, sigma, steps, rng)
                verdict = sg.certify(sde, path=path, dt=H, false_alarm=ALPHA)
                seen += not verdict.passed
            rows.append(
                {
                    "off by a factor": what,
                    "factor": float(fault),
                    "times what is possible": times,
                    "runs": runs,
                    "seen": seen,
                    "CPU seconds each": (time.process_time() - began) / runs,
                }
            )
            print(rows[-1], flush=True)
    return rows


def speed(numbers, rounds):
    """How fast the sums of innovations are, beside reading the numbers and the drift."""
    rows = []
    for dtype in (torch.float32, torch.float64):
        frames = numbers // BATCH + 1
        generator = torch.Generator().manual_seed(0)
        states = torch.empty(frames, BATCH, 1, dtype=dtype).normal_(generator=generator)
        times = torch.arange(frames, dtype=torch.float64) * H
        sde = sg.ItoProcess(lambda x, t: x - x**3, 0.7, autonomous=True)
        stored = StoredStates(times, states)
        gatherer = sample.Gatherer(stored, law_of(sde, sg.EulerMaruyama(), times, (1,)))
        block = max(2, sample._BLOCK // BATCH)

        def read_and_drift(states=states, sde=sde, t=times[0], block=block):
            with torch.no_grad():
                for first in range(0, len(states) - 1, block):
                    x = states[first : first + block]
                    x.sum()
                    sde.drift(x, t)

        least = {}
        for _ in range(rounds):
            for name, work in (("read", read_and_drift), ("sums", gatherer.totals)):
                began = time.perf_counter()
                work()
                least[name] = min(least.get(name, math.inf), time.perf_counter() - began)
        rows.append(
            {
                "numbers": numbers,
                "dtype": str(dtype).removeprefix("torch."),
                "read and drift, s": least["read"],
                "innovations, s": least["sums"],
                "share of the rate": least["read"] / least["sums"],
            }
        )
        print(rows[-1], flush=True)
    return rows


def main(quick=False):
    tables = {
        "least fault": least_fault(20_000 if quick else STEPS, 2 if quick else RUNS),
        "speed of innovations": speed(400_000 if quick else NUMBERS, 1 if quick else ROUNDS),
    }
    write("verdicts", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a rehearsal that writes nothing")
    main(parser.parse_args().quick)
