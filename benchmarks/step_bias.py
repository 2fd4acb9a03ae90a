"""The bias of a step: how often its interval of 95 % holds the exact one, and how wide it is.

python -m benchmarks.step_bias

Exact biases: of the double well from the chain's law at rest, the solution of Chapman and
Kolmogorov's equation on Gauss panels, and e^{−2U/σ²}; of linear dynamics from moments in closed
form; of the walk against a wall from its law on such panels, folded at the wall, and e^{−2x}. Each
seed has a path of its own, whose states are the starts.
"""

import argparse
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss

import sdegen as sg
from benchmarks.record import write

F64 = torch.float64
RATE, SIGMA = 1.0, 1.0
SEEDS = 100


def at_rest(step, drift, sigma, low, high, wall=False):
    """Nodes and masses of the law at rest of x' = x + h f + σ √h z, folded at a wall at `low`."""
    nodes, weights = leggauss(16)
    edges = np.linspace(low, high, 81)
    half = (edges[1] - edges[0]) / 2
    x = ((edges[1:] + edges[:-1])[:, None] / 2 + half * nodes).ravel()
    w = np.tile(half * weights, 80)
    mean, width = x + step * drift(x), sigma * math.sqrt(step)

    def normal(y):
        return np.exp(-0.5 * ((y[:, None] - mean) / width) ** 2) / (width * math.sqrt(2 * math.pi))

    kernel = normal(x) + (normal(2 * low - x) if wall else 0)
    system = kernel * w - np.eye(len(x))
    system[-1], right = w, np.zeros(len(x))
    right[-1] = 1.0
    return x, w * np.linalg.solve(system, right)


def well_bias(step, sigma, tilt=0.0, power=2):
    """Exact bias of ⟨x²⟩ or ⟨x⟩ of Euler–Maruyama, U = x⁴/4 − x²/2 − tilt x."""
    # from √(1 + 2/h) on a step of x − x³ leads outwards: what is asked is the law within
    end = min(4.5, 0.9 * math.sqrt(1 + 2 / step))
    x, masses = at_rest(step, lambda x: x - x**3 + tilt, sigma, -end, end)
    fine = np.linspace(-5.0, 5.0, 20_001)
    p = np.exp(-2 * (fine**4 / 4 - fine**2 / 2 - tilt * fine) / sigma**2)
    return float(masses @ x**power - p @ fine**power / p.sum())


def wall_bias(step):
    """Exact bias of ⟨x²⟩ of Euler–Maruyama, drift −1 against a reflecting wall."""
    x, masses = at_rest(step, lambda x: -np.ones_like(x), 1.0, 0.0, 12.0, wall=True)
    return float(masses @ x**2 - 0.5)


def trap_bias(step, solver, place):
    """Exact bias of ⟨x²⟩ or ⟨v²⟩ of a trap in a phase space, k = m = T = 1."""
    trap = sg.UnderdampedLangevin(sg.Quadratic(), 1.0)
    law = sg.ChainMoments(trap, 2, solver).stationary(step)
    return float(law.covariance[place, place]) - 1.0


@dataclass(frozen=True)
class Case:
    """What is asked, and the answer."""

    name: str
    of: str
    sde: Any
    solver: Any
    dt: float
    observable: Any
    exact: float
    start: Any  # of the path, or x0
    t: float | None = None
    boundary: Any = None
    trajectories: int = 1000


def square(x):
    return x[:, 0].square()


def first(x):
    return x[:, 0]


def cases():
    """Yield all of them."""
    euler, one, zero = (
        sg.EulerMaruyama(),
        torch.ones(1, 1, dtype=F64),
        torch.zeros(1, 1, dtype=F64),
    )
    for dt, sigma in ((0.1, 1.0), (0.1, 0.7), (0.15, 1.0), (0.05, 1.0)):
        well = sg.ItoProcess(lambda x: x - x**3, sigma)
        name = f"double well, σ = {sigma:g}"
        yield Case(name, "⟨x²⟩", well, euler, dt, square, well_bias(dt, sigma), one)
    tilted = sg.ItoProcess(lambda x: x - x**3 + 0.1, 0.6)
    exact = well_bias(0.1, 0.6, tilt=0.1, power=1)
    yield Case("tilted double well, σ = 0.6", "⟨x⟩", tilted, euler, 0.1, first, exact, one)
    ou = sg.OrnsteinUhlenbeck(RATE, 0.0, SIGMA)
    for solver, dt in ((euler, 0.1), (sg.Heun(), 0.2)):
        exact = float(sg.ChainMoments(ou, 1, solver).stationary(dt).covariance[0, 0]) - 0.5
        yield Case("Ornstein–Uhlenbeck", "⟨x²⟩", ou, solver, dt, square, exact, zero)
    trap, pair = sg.UnderdampedLangevin(sg.Quadratic(), 1.0), torch.zeros(1, 2, 1, dtype=F64)
    for place, of in enumerate(("⟨x²⟩", "⟨v²⟩")):
        solver = sg.BAOAB()
        yield Case(
            "trap in a phase space",
            of,
            trap,
            solver,
            0.4,
            lambda z, place=place: z[:, place, 0].square(),
            trap_bias(0.4, solver, place),
            pair,
        )
    wall = sg.ItoProcess(lambda x: -torch.ones_like(x), 1.0)
    yield Case(
        "against a reflecting wall",
        "⟨x²⟩",
        wall,
        euler,
        0.1,
        square,
        wall_bias(0.1),
        one / 2,
        boundary=sg.Reflecting(0.0),
    )
    growth = sg.ItoProcess(lambda x: x, lambda x: 0.2 * x)
    yield Case(
        "growth, t = 1",
        "⟨x⟩",
        growth,
        euler,
        0.1,
        first,
        1.1**10 - math.e,
        one,
        t=1.0,
        trajectories=10_000,
    )


def answer(case, seed, trajectories=None, steps=None):
    """What `step_bias` says, and its CPU seconds; those of the path are not its own."""
    given = {"rng": seed, "solver": case.solver, "boundary": case.boundary}
    if case.t is None:
        times = torch.arange(401, dtype=F64) * case.dt
        x0 = case.start.repeat(200, *(1,) * (case.start.ndim - 1))
        asked = {"path": sg.simulate(case.sde, x0, times, **given)}
    else:
        asked = {"x0": case.start, "t": case.t}
    began = time.process_time()
    found = sg.step_bias(
        case.sde,
        {"φ": case.observable},
        dt=case.dt,
        trajectories=trajectories or case.trajectories,
        steps=steps,
        **asked,
        **given,
    )
    return found, time.process_time() - began


def row_of(case, seeds, **size):
    """Ask with many seeds, and count."""
    inside, widths, seconds, ahead, steps, last = 0, [], [], 0, [], []
    for seed in range(seeds):
        found, spent = answer(case, seed, **size)
        value, error = float(found.value["φ"]), float(found.error["φ"])
        inside += abs(value - case.exact) <= error
        ahead += value * case.exact > 0 and abs(value) > error
        widths.append(error)
        seconds.append(spent)
        steps.append(found.steps)
        last.append(float(found.expansions["φ"].remainder(1.0)))
    scale = abs(case.exact) if abs(case.exact) > 1e-9 else None
    return {
        "problem": case.name,
        "of": case.of,
        "solver": type(case.solver).__name__,
        "dt": case.dt,
        "exact bias": case.exact if scale else 0.0,
        "seeds": seeds,
        "inside": inside,
        "told from 0": ahead if scale else None,
        "half width/bias": float(np.mean(widths)) / scale if scale else None,
        "of it the extrapolation": float(np.mean(last) / np.mean(widths)),
        "trajectories": found.trajectories,
        "steps": float(np.mean(steps)),
        "CPU s": float(np.mean(seconds)),
    }


def main(quick=False):
    """Print and record the table."""
    rows, seeds = [], 2 if quick else SEEDS
    size = {"trajectories": 100, "steps": 100} if quick else {}
    for case in cases():
        own = {k: v for k, v in size.items() if case.t is None or k != "steps"}
        with warnings.catch_warnings():
            if quick:  # so few steps forget no start
                warnings.simplefilter("ignore", sg.AccuracyWarning)
            rows.append(row_of(case, seeds, **own))
        print(rows[-1], flush=True)
    tables = {"bias of a step, intervals of 95 %": rows}
    write("step_bias", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
