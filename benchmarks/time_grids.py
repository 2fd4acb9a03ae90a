"""One grid for all paths: `timesteps.auto` against the best of all peers, with few evaluations.

python -m benchmarks.time_grids

Six paths, whose noise-to-signal ratios σ/α span other ranges, times the mixtures of `problems.py`
in 2, 16 and 64 dimensions, at two scales of the data: 36 cells, in each of which exact scores are
sampled by the probability flow with 5, 10, 20 and 50 evaluations, from exact samples of p at
t_max. The error is the root-mean-square distance to the exact flow, in units of x/α.

Ours is one stated member for each number of evaluations, on the grid that `timesteps.auto` makes
of 48 pilot states, which are none of the starts; and, for 5 to 20 evaluations, a calibration that
starts there. A peer is every noise-free sampler of diffusers, k-diffusion and azula (`peers.py`)
on the best of the grids that their libraries offer: uniform in t, uniform in λ, Karras.

A peer is given the path by its noise-to-signal ratio alone, on the circle α² + σ² = 1: x/α at
one σ/α is the same on all paths, and that is all that their formulas know of one.
"""

import argparse
import functools
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

import sdegen as sg
from benchmarks import peers
from benchmarks.problems import TIGHT, mixture
from benchmarks.record import write
from benchmarks.sampling import REFUSALS, within

PATHS = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "sub-VP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "cosine VP": sg.VP(sg.CosineBeta()),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "EDM": sg.EDM(),
    "rectified flow": sg.RectifiedFlow(),
}
SCALES = (1.0, 0.25)  # standard deviation of the data
STARTS = {2: 512, 16: 256, 64: 128}
BUDGETS = (5, 10, 20, 50)
PILOT = 48  # states that a grid is made from
# states and rounds of a calibration; with five evaluations in the plane heavy tails need more
EFFORT = {5: (144, 8), 10: (144, 4), 20: (144, 2)}
MORE = {(2, 5): (384, 20)}
ASKED = {5: 1.0, 10: 0.5, 20: 0.25, 50: 0.15}
THEIR_GRIDS = {
    "uniform t": sg.timesteps.uniform,
    "uniform λ": sg.timesteps.log_snr,
    "Karras 7": sg.timesteps.karras,
}


class Circle(sg.GaussianPath):
    """The path α² + σ² = 1 with its own noise-to-signal ratio for a clock: t = σ/α."""

    def alpha(self, t):
        return 1 / torch.sqrt(1 + t * t)

    def sigma(self, t):
        return t / torch.sqrt(1 + t * t)

    def drift_rate(self, t):
        return -t / (1 + t * t)

    def diffusion_rate(self, t):
        return torch.sqrt(2 * t) / (1 + t * t) ** 0.5


class OnCircle(peers.Counted):
    """A score on the circle, in the words of all libraries."""

    def time(self, ratio):
        return ratio.to(torch.float64)


@dataclass(frozen=True)
class Cell:
    """A path and a law: the flow, starts, and where the exact flow takes them, x/α."""

    sde: sg.GaussianPath
    circle: Circle
    law: sg.GaussianMixture
    starts: torch.Tensor
    exact: torch.Tensor

    @property
    def flow(self):
        return sg.ReverseSDE(self.sde, self.law.noised(self.sde).score, eta=0.0)

    def distance(self, y):
        """√(mean |y − exact|²) of x/α; inf if not finite."""
        off = float((y - self.exact).square().sum(1).mean().sqrt())
        return off if math.isfinite(off) else math.inf

    def pilot(self, n, seed=1):
        """Exact samples at t_max, none of them a start."""
        high = torch.tensor(self.sde.t_max, dtype=torch.float64)
        return self.law.noised(self.sde).sample(n, high, rng=seed, dtype=torch.float64)


@functools.cache
def cell(path, dim, scale, starts=None, seed=1000):
    """The cell of a path, a dimension and a scale."""
    sde, unit = PATHS[path], mixture(dim, seed)
    covariances = scale**2 * torch.diag_embed(unit.variances)
    law = sg.GaussianMixture(unit.weights, scale * unit.means, covariances=covariances)
    ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
    low, high = (sde.sigma(ends) / sde.alpha(ends)).tolist()
    circle = Circle(low, high)
    oracle, t = law.noised(circle), torch.tensor(high, dtype=torch.float64)
    x = oracle.sample(starts or STARTS[dim], t, rng=0, dtype=torch.float64)
    flow = sg.ReverseSDE(circle, oracle.score, eta=0.0)
    # equal decades, so that an adaptive solver does not begin with a step across all of them
    grid = sg.timesteps.log_snr(circle, 8)
    end = sg.simulate(flow, x, grid, solver=TIGHT, keep_path=False).final
    return Cell(sde, circle, law, x / circle.alpha(t), end / circle.alpha(grid[-1]))


def their_best(here, budget):
    """The best of all peers on the best of its grids: (error, name, grid)."""
    found = [(math.inf, "", "")]
    circle = here.circle
    model = OnCircle(circle, here.law.noised(circle).score)
    x = here.starts * circle.alpha(torch.tensor(circle.t_max, dtype=torch.float64))
    for peer in peers.deterministic():
        for name, rule in THEIR_GRIDS.items():
            if peer.own_grid and name != "uniform λ":
                continue

            def run(steps, peer=peer, rule=rule):
                t = rule(here.sde, steps)
                ratios = here.sde.sigma(t) / here.sde.alpha(t)
                ratios[0], ratios[-1] = circle.t_max, circle.t_min
                return peers.run(peer, model, x, ratios)

            try:
                end = within(budget, run)
            except REFUSALS:
                continue
            if end is not None:
                last = torch.tensor(circle.t_min, dtype=torch.float64)
                error = here.distance(end[0] / circle.alpha(last))
                found.append((error, peer.label, name))
    return min(found)


def member(budget, data_std):
    """Ours: the one stated member for this number of evaluations."""
    return sg.AngularAdams(4 if budget < 10 else 6, data_std=data_std)


def our_error(here, times, solver):
    """Distance of a run of ours to the exact flow, x/α, and its evaluations."""
    ends = torch.tensor([here.sde.t_max, here.sde.t_min], dtype=torch.float64)
    first, last = here.sde.alpha(ends).tolist()
    out = sg.simulate(
        here.flow, first * here.starts, times, solver=solver, keep_path=False,
        on_nonfinite="freeze",
    )  # fmt: skip
    return here.distance(out.final / last), out.nfe


def cell_rows(path, dim, scale, budgets=BUDGETS):
    """A row for each number of evaluations."""
    torch.set_num_threads(1)
    here, rows = cell(path, dim, scale), []
    for budget in budgets:
        peer, name, grid = their_best(here, budget)
        solver = member(budget, scale)
        made = sg.timesteps.made_for(here.flow, budget, here.pilot(PILOT), solver=solver)
        error, nfe = our_error(here, made.times, solver)
        row = {
            "path": path, "dimensions": dim, "scale": scale, "evaluations": budget, "nfe": nfe,
            "best peer": name, "its grid": grid, "its error": peer, "error": error,
            "ours over it": error / peer, "asked": ASKED[budget],
            "evaluations of a pilot state": made.evaluations,
        }  # fmt: skip
        if budget in EFFORT:
            states, rounds = MORE.get((dim, budget), EFFORT[budget])
            fitted = sg.calibrate(
                here.flow, solver, budget, here.pilot(states, 2), rounds=rounds,
                reference=sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9),
            )  # fmt: skip
            row["calibrated"] = our_error(here, fitted.times, fitted.solver)[0]
            row["calibrated over it"] = row["calibrated"] / peer
        rows.append(row)
    return rows


def summary(rows):
    """How many cells reach what is asked, by number of evaluations."""
    lines = []
    for budget in sorted({r["evaluations"] for r in rows}):
        these = [r for r in rows if r["evaluations"] == budget]
        ours = sorted(r["ours over it"] for r in these)
        line = {
            "evaluations": budget,
            "member": f"AngularAdams({member(budget, 1.0).order}, data_std=s)",
            "cells": len(these), "asked": ASKED[budget],
            "reached": sum(value <= ASKED[budget] for value in ours),
            "median": ours[len(ours) // 2],
            "90th percentile": ours[math.ceil(0.9 * len(ours)) - 1],
            "largest": ours[-1],
        }  # fmt: skip
        fitted = [r["calibrated over it"] for r in these if "calibrated over it" in r]
        if fitted:
            line |= {"calibrated ≤ 0.2": sum(v <= 0.2 for v in fitted), "its largest": max(fitted)}
        lines.append(line)
    return lines


def main(quick=False):
    """All cells; the tables of them."""
    paths, dims = (["EDM"], [2]) if quick else (list(PATHS), list(STARTS))
    jobs = [(path, dim, scale) for dim in dims[::-1] for path in paths for scale in SCALES]
    if quick:
        done = [cell_rows(*jobs[0], budgets=(5,))]
    else:
        with ProcessPoolExecutor(2) as pool:
            done = list(pool.map(cell_rows, *zip(*jobs, strict=True)))
    rows = [row for rows in done for row in rows]
    rows.sort(key=lambda r: (r["evaluations"], list(PATHS).index(r["path"]), r["dimensions"]))
    tables = {
        "error over that of the best of all peers on the best of its grids": summary(rows),
        "each cell": rows,
    }
    write("time_grids", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(**vars(parser.parse_args()))
