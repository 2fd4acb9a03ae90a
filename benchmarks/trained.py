"""Samplers on trained scores, two moons and handwritten digits: distance to data never seen.

The peers are given the network by `sdegen.adaptors`: diffusers its timesteps and ε, k-diffusion
D(x; σ), azula its denoiser (`peers.Adapted`). All start from the same draws of the prior and are
judged by the same data. Ours are on the one rule, peers on the better of two of their own grids.
From 50 evaluations on the best few run, of ours and of each library, noisy and noise-free apart.

A network has an error of its own, which no sampler takes away and which is soon all that a
distance to data shows. So noise-free samplers are also judged by how far they are from the
flow of this very network, solved accurately: that tells them apart.
"""

import torch

import sdegen as sg
from benchmarks import peers
from benchmarks.problems import SDE, digits_model, moons_model
from benchmarks.sampling import (
    EVALUATIONS,
    JUDGED,
    NOISY,
    RULE,
    by_count,
    finite,
    our_candidate,
    race,
    racing_peers,
    repeated,
    standings,
    told,
)

__all__ = ["digits_rows", "moons_rows", "tables"]

ROUTES = [
    (0.0, sg.DDIM()),
    (0.0, sg.Heun()),
    (0.0, sg.KarrasHeun()),
    (0.0, sg.DPM2()),
    *((0.0, sg.AngularAdams(k)) for k in (1, 2, 3, 4, 5, 6)),
    (0.0, sg.ExponentialAdams(2, "x0")),
    (0.0, sg.ExponentialAdams(2, "x0", "midpoint")),
    (0.0, sg.ExponentialAdams(2, "v")),
    (0.0, sg.ExponentialAdams(3, "x0")),
    (0.0, sg.ExponentialAdamsMoulton(2, "v")),
    (0.0, sg.ExponentialAdamsMoulton(3, "v")),
    *NOISY,
]
FINEST = 1000
RATED = (10, 20, 50)  # evaluations whose best is compared with its own value at FINEST
FITTED = (5, 10)
REPEATS = 5
KEPT = 2  # of each library in the long runs, noisy and noise-free apart
OURS_KEPT = 4
STARTS = {"moons": 4_000, "digits": 450}
TITLES = {
    "moons": "two moons, trained score: sliced W2",
    "digits": "digits, trained score: energy distance",
}


def moons_rows(quick):
    """Two moons: sliced W2 to those never seen."""
    model, seen, unseen = moons_model(50 if quick else 4_000)
    n = 200 if quick else STARTS["moons"]

    def distance(x):
        return float(sg.metrics.sliced_wasserstein(x, unseen[:n], projections=16))

    return _rows(model, (n, 2), distance, distance(seen[:n]), quick)


def digits_rows(quick):
    """Digits: energy distance to images never seen."""
    model, images = digits_model(20 if quick else 2_000, 32 if quick else 512)
    test = images.test[:16] if quick else images.test
    n = len(test) if quick else STARTS["digits"]
    seen = torch.cat([images.train, images.validation])[:n]

    def distance(x):
        return float(sg.metrics.energy_distance(x, test))

    return _rows(model, (n, 1, 8, 8), distance, distance(seen), quick)


def _rows(model, shape, distance, floor, quick):
    """The rows of a race, and lines beside it."""
    counts = (5,) if quick else EVALUATIONS

    def dynamics(eta):
        return sg.ReverseSDE(model.sde, model.score, eta=eta)

    def starts(seed):
        return model.sde.prior(shape, rng=seed, dtype=torch.float64)

    x_T = starts(1)
    exact = _exact(dynamics(0.0), x_T, quick)

    def judge(x):
        off = float((x - exact).flatten(1).square().sum(1).mean().sqrt())
        return {"error": finite(distance(x)), "from the flow": finite(off)}

    ours = [our_candidate(dynamics, solver, eta, (RULE,)) for eta, solver in ROUTES]
    rows = race(ours, x_T, judge, counts, keep_ours=OURS_KEPT)
    rows += race(racing_peers(peers.Adapted(model, shape[1:])), x_T, judge, counts, keep=KEPT)
    lines = [
        by_count(dict.fromkeys(counts, floor), counts, sampler="floor: data learned from"),
        by_count(
            dict.fromkeys(counts, distance(exact)),
            counts,
            sampler="the network's flow, accurately",
        ),
    ]
    start = sg.AngularAdams(2)  # higher orders are unstable on some networks
    pilot = model.sde.prior((24 if quick else 192, *shape[1:]), rng=9, dtype=torch.float64)
    for budget in FITTED[:1] if quick else FITTED:
        made = sg.calibrate(dynamics(0.0), start, budget, pilot, rounds=2 if quick else 5)
        out = sg.simulate(dynamics(0.0), x_T, made.times, solver=made.solver, keep_path=False)
        rows.append(
            {
                "library": "sdegen", "sampler": f"calibrated from {told(start)}", "noisy": False,
                "grid": "calibrated", "budget": budget, "nfe": out.nfe, **judge(out.final),
            }
        )  # fmt: skip
    if quick:
        return rows + lines
    return rows + lines + _beside(rows, ours, starts, distance)


def _exact(flow, x_T, quick):
    """Where the network's flow takes the starts."""
    solver = sg.TorchDiffEq("dopri5", rtol=1e-3 if quick else 1e-6, atol=1e-3 if quick else 1e-6)
    return sg.simulate(flow, x_T, SDE.time_grid(1), solver=solver, keep_path=False).final


def _beside(rows, ours, starts, distance):
    """The best of ours over its own value at 1000 evaluations, and what repeats of one show."""
    by_name, best, finest = {who.name: who for who in ours}, {}, {}
    for n in RATED:
        here = [
            r for r in rows
            if r["library"] == "sdegen" and r["budget"] == n and r["grid"] == RULE
            and r["error"] is not None
        ]  # fmt: skip
        best[n] = min(here, key=lambda r: r["error"])
    for name in {r["sampler"] for r in best.values()}:
        finest[name] = distance(by_name[name].run(RULE, FINEST, 0, starts(1))[0])
    ratios = {n: r["error"] / finest[r["sampler"]] for n, r in best.items()}
    runner = by_name[best[20]["sampler"]]
    again = {
        n: [distance(runner.run(RULE, n, 100 + i, starts(100 + i))[0]) for i in range(REPEATS)]
        for n in JUDGED[:4]
    }
    return [
        by_count(
            ratios, EVALUATIONS, sampler=f"best of ours at each, over its own value at {FINEST}"
        ),
        *repeated(again, f"sdegen {runner.name}, {REPEATS} runs"),
    ]


def tables(parts):
    """All tables of this part, by title; parts: rows by the name of the data."""
    found = {"trained scores: ours and the best of all peers": _summary(parts)}
    for name, rows in parts.items():
        runs, beside = [r for r in rows if "budget" in r], [r for r in rows if "budget" not in r]
        counts = sorted({r["budget"] for r in runs})
        heads = [{"library": "", "sampler": r.pop("sampler"), "grid": "", **r} for r in
                 (dict(r) for r in beside)]  # fmt: skip
        found[f"{TITLES[name]} to unseen data, by evaluations"] = [
            *heads[:2], *standings(runs, counts), *heads[2:]
        ]  # fmt: skip
        flows = [r for r in runs if not r["noisy"]]
        data = TITLES[name].split(":")[0]
        found[f"{data}: rms distance to the network's own flow, by evaluations"] = standings(
            flows, counts, "from the flow"
        )
    return found


def _summary(parts):
    """For each count the best of ours and of the peers: distance to data, and to the flow."""
    lines = []
    for name, rows in parts.items():
        runs = [r for r in rows if r.get("error") is not None and r["grid"] != "calibrated"]
        for n in sorted({r["budget"] for r in runs}):
            line = {"data": name, "evaluations": n}
            for what, noisy, told_as in (
                ("error", False, "noise-free"),
                ("error", True, "noisy"),
                ("from the flow", False, "to the network's flow"),
            ):
                for side, mine in (("ours", True), ("best peer", False)):
                    here = [
                        r for r in runs
                        if r["budget"] == n and r["noisy"] == noisy
                        and (r["library"] == "sdegen") == mine and r[what] is not None
                    ]  # fmt: skip
                    if here:
                        r = min(here, key=lambda r, what=what: r[what])
                        who = r["sampler"] if mine else f"{r['library']} {r['sampler']}"
                        line |= {f"{told_as}: {side}": who, f"{told_as}, {side}": r[what]}
            lines.append(line)
    return lines
