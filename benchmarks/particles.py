"""Soft discs in a periodic box: forces by neighbour lists beside a loop over all pairs.

python -m benchmarks.particles [--quick]

Discs at a density of 0.8, T = 1, k = 100, moved by Euler–Maruyama steps of 1e-3, so that lists
grow old and are made again; CPU time per step. The loop asks in torch for the distances of some
particles to all, 2²² at once. Energy and pressure of states are computed again by it.
"""

import argparse
import time

import torch

import sdegen as sg
from benchmarks.record import write

K, DENSITY, DT = 100.0, 0.8, 1e-3


def of_all_pairs(x, box):
    """Force, energy and virial of one system (N, 2), from all distances, rows after rows."""
    force, energy, virial = torch.empty_like(x), 0.0, 0.0
    rows = max(1, 2**22 // len(x))
    for k in range(0, len(x), rows):
        gap = x[k : k + rows, None] - x[None]
        gap -= box * (gap / box).round()
        r = gap.square().sum(-1).sqrt()
        overlap = (1 - r).clamp(min=0)
        overlap[torch.arange(len(r)), torch.arange(k, k + len(r))] = 0.0
        force[k : k + rows] = (K * overlap / r.clamp(min=1e-300))[..., None].mul(gap).sum(1)
        energy += float(overlap.square().sum()) * K / 4
        virial += float((overlap * r).sum()) * K / 2
    return force, energy, virial


def seconds_per_step(force, x, steps):
    """CPU seconds per step, and the state at the end."""
    noise = torch.Generator().manual_seed(0)
    began = time.process_time()
    for _ in range(steps):
        z = torch.randn(x.shape, dtype=x.dtype, generator=noise)
        x = x + DT * force(x) + (2 * DT) ** 0.5 * z
    return (time.process_time() - began) / steps, x


def main(quick=False):
    """Print and record the table."""
    rows = []
    for side in (10, 32) if quick else (10, 32, 100):
        box = side / DENSITY**0.5
        x = torch.cartesian_prod(*[torch.arange(side)] * 2).double()[None] * box / side
        pairs = sg.PairForces(sg.HarmonicRepulsion(K), box=box)
        _, x = seconds_per_step(pairs.force, x, 20 if quick else 200)  # melt
        steps = 20 if quick else 200
        lists, end = seconds_per_step(pairs.force, x, steps)
        loop, _ = seconds_per_step(lambda y, box=box: of_all_pairs(y[0], box)[0][None], x, 2)
        _, energy, virial = of_all_pairs(end[0], box)
        pressure = (side**2 * 1.0 + virial / 2) / box**2
        found = float(pairs.energy(end)), float(pairs.pressure(end, 1.0))
        rows.append(
            {
                "particles": side**2,
                "lists, CPU ms per step": 1000 * lists,
                "all pairs, CPU ms per step": 1000 * loop,
                "ratio": loop / lists,
                "energy, relative difference": abs(found[0] / energy - 1),
                "pressure, relative difference": abs(found[1] / pressure - 1),
            }
        )
        print(rows[-1], flush=True)
    tables = {"soft discs in two dimensions": rows}
    write("particles", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
