"""Kramers' turnover: the kinetic solver beside a spectral oracle and simulated trajectories.

python -m benchmarks.kinetic

U = x⁴/4 − x²/2, ΔU = 4 T, m = 1; the rate is λ₁, at which two wells exchange mass. The oracle is a
Galerkin method of Hermite functions in both coordinates (`tests/fokker_planck/kramers.py`), of
twice as many as change its rate by less than 1e-5. Trajectories of BAOAB start at rest, and their
rate is −log C(t₂)/C(t₁) over t₂ − t₁, with t₁ = 0.2/λ₁ and t₂ = 1.2/λ₁, C the correlation of x;
its standard error is that of 50 groups of trajectories. dt is 0.1, and 0.2/γ where that is less:
diffusion is too fast by (γ dt)²/12. Where 1/λ₁ is above 5000 none are run.
"""

import argparse
import math
import time

import numpy as np
import torch

import sdegen as sg
from benchmarks.record import write
from tests.fokker_planck import kramers

F64 = torch.float64
FRICTIONS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 50.0)
CELLS, GROUPS = 64, 50
STEP, TURN = 0.1, 0.2  # dt, and the largest γ dt
LONGEST = 5000.0


def wells(friction):
    return sg.UnderdampedLangevin(
        lambda x: x**4 / 4 - x**2 / 2, friction=friction, temperature=kramers.TEMPERATURE
    )


def oracle(friction):
    """The rate, of so many functions that half as many change it by less than 1e-5."""
    last = 0.0
    for velocities in (60, 120, 240, 320):
        positions = 90 if velocities < 240 else 160
        rate = float(kramers.rates(friction, 2, positions=positions, velocities=velocities)[1])
        if abs(rate / last - 1 if last else 1) < 1e-5:
            break
        last = rate
    return rate


def at_rest(sde, count, rng):
    """States of e^{−(U + v²/2)/T}/Z: positions by the inverse of their distribution."""
    x = torch.linspace(-2.1, 2.1, 20_001, dtype=F64)
    p = torch.exp(-(x**4 / 4 - x**2 / 2) / sde.temperature)
    share = torch.cumsum(p, 0) / p.sum()
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(rng), dtype=F64)
    place = torch.from_numpy(np.interp(uniform.numpy(), share.numpy(), x.numpy()))[:, None]
    return sde.state(place, sde.draw_velocities(place, rng))


def simulated(friction, rate, trajectories):
    """The rate of decay of ⟨x(0) x(t)⟩, and its standard error."""
    sde = wells(friction)
    step = min(STEP, TURN / friction)
    times = [0.0, *(step * round(share / rate / step) for share in (0.2, 1.2))]
    start = at_rest(sde, trajectories, 1)
    places = [start[:, 0, 0]]
    for k in (1, 2):  # no more steps in a piece than these
        steps = round((times[k] - times[k - 1]) / step)
        solver = sg.BAOAB(substeps=steps)
        path = sg.simulate(sde, start, times[k - 1 : k + 1], solver=solver, rng=10 + k)
        start = path.final
        places.append(start[:, 0, 0])
    first, second = ((places[0] * places[k]).reshape(GROUPS, -1).mean(1).numpy() for k in (1, 2))
    whole = math.log(first.mean() / second.mean()) / (times[2] - times[1])
    left = np.log((first.sum() - first) / (second.sum() - second)) / (times[2] - times[1])
    error = math.sqrt((GROUPS - 1) / GROUPS * float(((left - left.mean()) ** 2).sum()))
    return whole, error


def main(quick=False):
    """Print and record the table."""
    rows = []
    for friction in (1.0,) if quick else FRICTIONS:
        began = time.process_time()
        grids = sg.Grid(-2.1, 2.1, CELLS), sg.Grid(-2.0, 2.0, CELLS)
        found = sg.FokkerPlanck2D(wells(friction), grids).spectrum(2, rtol=1e-4)
        spent, rate = time.process_time() - began, float(found.rates[1].real)
        began = time.process_time()
        exact = oracle(friction)
        row = {
            "γ": friction,
            "solver": rate,
            "told error": float(found.error["rates"][1]),
            "oracle": exact,
            "off": abs(rate / exact - 1),
            "CPU seconds": spent,
            "CPU seconds of the oracle": time.process_time() - began,
        }
        if 1 / rate < LONGEST:
            began = time.process_time()
            measured, error = simulated(friction, rate, 500 if quick else 20_000)
            row |= {
                "trajectories": measured,
                "standard error": error,
                "standard errors off": (measured - exact) / error,
                "CPU seconds of trajectories": time.process_time() - began,
            }
        else:
            nothing = ("trajectories", "standard error", "standard errors off")
            row |= dict.fromkeys((*nothing, "CPU seconds of trajectories"))
        rows.append(row)
        print(rows[-1], flush=True)
    tables = {"Kramers' turnover, ΔU = 4 T": rows}
    write("kinetic", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
