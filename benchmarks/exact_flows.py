"""Noise-free samplers on exact scores: distance to the exact flow, by number of evaluations.

Ours are all on one grid rule, equal steps in t^{2/5}; each sampler of a peer (`peers.py`) is on
the best of the grids that their libraries offer (uniform in t, uniform in λ, which they call
exponential or Lu, Karras with ρ = 7) and, in a column of its own, on ours. diffusers' beta spacing
of σ was always the worst grid, and is left out. Calibrated ones are fitted to a pilot batch and
judged on the same starts as all others, which they have never seen.
"""

import itertools
import math
import time

import sdegen as sg
from benchmarks import peers
from benchmarks.problems import FAR, SDE, problem
from benchmarks.sampling import (
    EVALUATIONS,
    GRIDS,
    JUDGED,
    RULE,
    best,
    by_count,
    finite,
    found_by,
    score_of_fit,
    told,
    within,
)

__all__ = ["calibrated_row", "costs", "flow_rows", "tables"]

STARTS = {2: 1024, FAR: 1024, 16: 384, 64: 256}
PILOT = {2: 512, FAR: 512, 16: 256, 64: 256}
ROUNDS = {5: 12, 10: 10, 20: 8, 50: 4, 100: 3}
THEIRS = 100  # evaluations up to which peers run: 100 samplers on four grids
MEMBERS = [
    sg.EulerMaruyama(),
    sg.Heun(),
    sg.DDIM(),
    sg.KarrasHeun(),
    sg.DPM2(),
    *(sg.AngularAdams(order) for order in range(1, 7)),
    *(sg.ExponentialAdams(k, kind) for k in (2, 3, 4) for kind in ("eps", "x0", "v")),
    *(sg.ExponentialAdamsMoulton(k, kind) for k in (2, 3, 4) for kind in ("eps", "x0", "v")),
]
CALIBRATED_FROM = sg.AngularAdams(5)


def flow_rows(dim, budget, quick):
    """Every noise-free sampler at one number of evaluations."""
    here = problem(dim, 64 if quick else STARTS[dim])
    rows = []

    def row(library, name, grid, found):
        rows.append(
            {
                "dimensions": dim, "budget": budget, "library": library, "sampler": name,
                "grid": grid, "nfe": None if found is None else found[1],
                "error": None if found is None else finite(here.distance(found[0])),
            }
        )  # fmt: skip

    for solver in MEMBERS:

        def ours(steps, solver=solver):
            times = GRIDS[RULE](SDE, steps)
            out = sg.simulate(
                here.flow, here.x_T, times, solver=solver, keep_path=False, on_nonfinite="freeze"
            )
            return out.final, out.nfe

        row("sdegen", told(solver), RULE, within(budget, ours))
    model = peers.Counted(SDE, here.score)
    for peer in peers.deterministic() if budget <= THEIRS else ():
        for name in GRIDS:
            if name == RULE and budget not in JUDGED:
                continue
            if peer.own_grid and name != "uniform λ":
                continue
            found = found_by(peer, model, here.x_T, name, budget)
            row(peer.library, peer.name, name, found)
    return rows


def calibrated_row(dim, budget, quick):
    """A calibration, what it cost, and its error on the starts of all others."""
    here = problem(dim, 64 if quick else STARTS[dim])
    pilot = here.starts(48 if quick else PILOT[dim], 1)
    begun = time.perf_counter()
    found = sg.calibrate(
        here.flow, CALIBRATED_FROM, budget, pilot,
        reference=sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9),
        rounds=5 if quick else ROUNDS[budget],
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    out = sg.simulate(here.flow, here.x_T, found.times, solver=found.solver, keep_path=False)
    return {
        "dimensions": dim, "budget": budget, "library": "sdegen", "sampler": "calibrated",
        "grid": "calibrated", "nfe": out.nfe, "error": here.distance(out.final),
        "held-out error": found.error, "pilot": found.pilot,
        "evaluations of a pilot state": found.evaluations, "seconds": round(seconds, 1),
    }  # fmt: skip


def tables(rows, dims):
    """All tables of this part, by title."""
    return {
        "distance to the exact flow: ours, the best of all peers, calibrated": summary(rows, dims),
        "what a calibration costs, and when it pays": costs(rows, dims),
        **{f"error by sampler, {where(dim)}": by_sampler(rows, dim) for dim in dims},
    }


def where(dim):
    """A problem's name in a heading."""
    return "far modes in the plane" if dim == FAR else f"{dim} dimensions"


def summary(rows, dims):
    """One line for each number of evaluations: ours, the best peer, calibrated."""
    lines = []
    for dim in dims:
        for budget in JUDGED:
            these = [r for r in rows if (r["dimensions"], r["budget"]) == (dim, budget)]
            fitted = best([r for r in these if r["sampler"] == "calibrated"])
            ours = best([r for r in these if r["library"] == "sdegen" and r is not fitted])
            others = [r for r in these if r["library"] != "sdegen"]
            peer = best([r for r in others if r["grid"] != RULE])
            there = best([r for r in others if r["grid"] == RULE])
            if ours is None:
                continue
            line = {"dimensions": dim, "evaluations": budget}
            line |= {"ours, one grid rule": ours["sampler"], "error": ours["error"]}
            if peer is not None:
                name = f"{peer['library']} {peer['sampler']}, {peer['grid']}"
                line |= {
                    "best peer, its own grids": name,
                    "its error": peer["error"],
                    "ours over it": ours["error"] / peer["error"],
                }
            if there is not None:
                line |= {
                    "best peer on our rule": f"{there['library']} {there['sampler']}",
                    "its error there": there["error"],
                    "ours over that": ours["error"] / there["error"],
                }
            if fitted is not None:
                line["calibrated"] = fitted["error"]
                if peer is not None:
                    line["calibrated over best peer"] = fitted["error"] / peer["error"]
            lines.append(line)
    return lines


def costs(rows, dims):
    """What went into each calibration, and after how many samples it is paid back.

    Uncalibrated, our best member reaches the same error with more evaluations: how many is
    interpolated between the numbers that were run, on log-log axes. A pilot state's evaluations
    count three times, since all but the first few are differentiated.
    """
    lines = []
    fitted = [r for r in rows if r["sampler"] == "calibrated"]
    for r in sorted(fitted, key=lambda r: (dims.index(r["dimensions"]), r["budget"])):
        plain = {
            n: best([
                q for q in rows
                if (q["dimensions"], q["budget"], q["library"]) == (r["dimensions"], n, "sdegen")
                and q["sampler"] != "calibrated"
            ])
            for n in EVALUATIONS
        }  # fmt: skip
        known = [(n, q["error"]) for n, q in plain.items() if q is not None]
        alike = _crossing(known, r["error"])
        cost = 3 * r["pilot"] * r["evaluations of a pilot state"]
        lines.append(
            {
                "dimensions": r["dimensions"], "evaluations": r["nfe"], "pilot states": r["pilot"],
                "evaluations of a pilot state": r["evaluations of a pilot state"],
                "seconds": r["seconds"], "held-out error": r["held-out error"],
                "error": r["error"], "uncalibrated, as many for the same": alike,
                "paid back after samples": None if alike is None or alike <= r["nfe"]
                else float(f"{cost / (alike - r['nfe']):.2g}"),
            }
        )  # fmt: skip
    return lines


def _crossing(known, error):
    """The number of evaluations at which errors come down to this one; None if they do not."""
    for (n, high), (m, low) in itertools.pairwise(known):
        if low <= error <= high:
            share = math.log(high / error) / math.log(high / low)
            return round(n * (m / n) ** share, 1)
    return None


def by_sampler(rows, dim, others=3):
    """Errors of all of ours, and of each library's best few, on each sampler's best own grid."""
    lines = []
    for library in ("sdegen", "diffusers", "k-diffusion", "azula"):
        here = [
            r for r in rows
            if r["dimensions"] == dim and r["library"] == library and r["error"] is not None
            and (library == "sdegen" or r["grid"] != RULE)
        ]  # fmt: skip
        table = {}
        for r in here:
            errors = table.setdefault(r["sampler"], {})
            errors[r["budget"]] = min(r["error"], errors.get(r["budget"], math.inf))
        names = list(table)
        counts = sorted({r["budget"] for r in rows if r["dimensions"] == dim})
        if library != "sdegen":
            judged = [n for n in JUDGED if n in counts]
            reached = [e for e in table.values() if set(judged) <= set(e)]
            least = {n: min(e[n] for e in reached) for n in judged} if reached else {}
            # nearest to the library's best over all counts
            names = sorted(
                (name for name in names if set(judged) <= set(table[name])),
                key=lambda name: score_of_fit(table[name], least),
            )[:others]
        lines += [by_count(table[name], counts, library=library, sampler=name) for name in names]
    return lines
