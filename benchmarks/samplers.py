"""Samplers by number of score evaluations: ours, calibrated ones, and those of three libraries.

python -m benchmarks.samplers

(a) the exact scores of mixtures in 2, 16 and 64 dimensions (`problems.py`): distance to the exact
    probability-flow map, for 1 to 200 evaluations (peers: to 100). Ours are all on one grid rule,
    equal steps in t^{2/5}; each sampler of diffusers, k-diffusion and azula (`peers.py`) is on the
    best of the grids that these libraries offer (uniform in t, uniform in λ, which they call
    exponential or Lu, Karras with ρ = 7) and, in a column of its own, on ours. diffusers' beta
    spacing of σ was always the worst grid, and is left out. Calibrated ones are fitted to a pilot
    batch and judged on the same starts as all others, which they have never seen.
(b) noisy samplers: sliced W2 to exact samples in the plane, and on a line the KL divergence of
    their law, without any sampling, from p at t_min.
(c) two moons and handwritten digits, with scores trained here: distance to data never seen.

Evaluations are counted by the run or by the score that a peer calls. Without the peers' libraries
(extra `benchmarks`) their rows are missing. Two processes, one thread each.
"""

import argparse
import itertools
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor

import torch

import sdegen as sg
from benchmarks import peers
from benchmarks.problems import FAR, SDE, digits_model, mixture, moons_model, problem
from benchmarks.record import RESULTS, write
from sdegen.verification.distances import kullback_leibler

EVALUATIONS = (1, 2, 5, 10, 20, 50, 100, 200)
JUDGED = (5, 10, 20, 50, 100)
STARTS = {2: 1024, FAR: 1024, 16: 384, 64: 256}
PILOT = {2: 512, FAR: 512, 16: 256, 64: 256}
ROUNDS = {5: 12, 10: 10, 20: 8, 50: 4, 100: 3}
THEIRS = 100  # evaluations up to which peers run: 100 samplers on four grids
RULE = "power 5/2"
GRIDS = {
    RULE: sg.timesteps.power,
    "uniform t": sg.timesteps.uniform,
    "uniform λ": sg.timesteps.log_snr,
    "Karras 7": sg.timesteps.karras,
}
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
TWO_STEP = [sg.ExponentialAdams(2, "v"), sg.ExponentialAdamsMoulton(2, "v")]


def told(solver):
    """A solver as one would type it."""
    words = [
        repr(getattr(solver, word)) for word in ("order", "prediction") if hasattr(solver, word)
    ]
    return f"{type(solver).__name__}({', '.join(words)})"


def within(budget, run):
    """The run of as many steps as a budget of evaluations pays for: run(steps) gives (x, nfe)."""
    steps, most = budget, budget
    while steps >= 1:
        x, nfe = run(steps)
        if nfe <= budget:
            return x, nfe
        # what it costs is known by running it: two a step, or one more for a better start
        most = min(steps - 1, steps * budget // nfe)
        steps = most
    return None


def flow_rows(dim, budget, quick):
    """Every noise-free sampler at one number of evaluations."""
    here = problem(dim, 64 if quick else STARTS[dim])
    rows = []

    def row(library, name, grid, found):
        error = None if found is None else here.distance(found[0])
        rows.append(
            {
                "dimensions": dim, "budget": budget, "library": library, "sampler": name,
                "grid": grid, "nfe": None if found is None else found[1],
                "error": None if error is None or math.isinf(error) else error,
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
        for name, grid in GRIDS.items():
            if name == RULE and (budget not in JUDGED or dim not in (2, 64)):
                continue
            if peer.own_grid and name != "uniform λ":
                continue

            def theirs(steps, peer=peer, grid=grid):
                return peers.run(peer, model, here.x_T, grid(SDE, steps))

            try:
                found = within(budget, theirs)
            except (ValueError, IndexError, TypeError, UnboundLocalError, RuntimeError) as error:
                print(f"{peer.label}, {budget} evaluations: {type(error).__name__}", flush=True)
                found = None
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


def best(rows):
    """The row of the smallest error."""
    return min((r for r in rows if r["error"] is not None), key=lambda r: r["error"], default=None)


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
                }
            if fitted is not None:
                line["calibrated"] = fitted["error"]
                if peer is not None:
                    line["calibrated over best peer"] = fitted["error"] / peer["error"]
            lines.append(line)
    return lines


def costs(rows):
    """What went into each calibration, and after how many samples it is paid back.

    Uncalibrated, our best member reaches the same error with more evaluations: how many is
    interpolated between the numbers that were run, on log-log axes. A pilot state's evaluations
    count three times, since all but the first few are differentiated.
    """
    lines = []
    for r in rows:
        if r["sampler"] != "calibrated":
            continue
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
        if library != "sdegen":
            reached = [e for e in table.values() if set(JUDGED) <= set(e)]
            least = {n: min(e[n] for e in reached) for n in JUDGED} if reached else {}
            # nearest to the library's best over all counts
            names = sorted(
                (name for name in names if set(JUDGED) <= set(table[name])),
                key=lambda name: sum(math.log(table[name][n] / least[n]) for n in JUDGED),
            )[:others]
        lines += [
            {
                "library": library,
                "sampler": name,
                **{str(n): table[name].get(n) for n in EVALUATIONS},
            }
            for name in names
        ]
    return lines


def noisy_rows(quick):
    """(b) sliced W2 in the plane at η = 1; samplers that are noise-free beside them."""
    n = 200 if quick else 4_000
    law = mixture(2).noised(SDE)
    high, low = (torch.tensor(t, dtype=torch.float64) for t in (SDE.t_max, SDE.t_min))
    x_T = law.sample(n, high, rng=0, dtype=torch.float64)
    target, other = (law.sample(n, low, rng=seed, dtype=torch.float64) for seed in (10, 11))

    def distance(x):
        return float(sg.metrics.sliced_wasserstein(x, target))

    rows = [{"library": "", "sampler": "floor: other exact samples", "20": distance(other)}]
    budgets = (5, 20) if quick else (10, 20, 50, 100)
    reverse = sg.ReverseSDE(SDE, law.score)
    members = [
        sg.EulerMaruyama(), sg.DDIM(), sg.ExponentialAdams(2, "x0"), sg.ExponentialAdams(3, "x0"),
        sg.ExponentialAdamsMoulton(2, "x0"), sg.PredictorCorrector(),
    ]  # fmt: skip
    for solver in members:
        line = {"library": "sdegen", "sampler": f"{told(solver)}, η = 1"}
        for budget in budgets:

            def ours(steps, solver=solver):
                out = sg.simulate(
                    reverse, x_T, GRIDS["uniform λ"](SDE, steps), solver=solver, rng=2,
                    keep_path=False,
                )  # fmt: skip
                return out.final, out.nfe

            found = within(budget, ours)
            line[str(budget)] = None if found is None else distance(found[0])
        rows.append(line)
    model = peers.Counted(SDE, law.score)
    for peer in peers.stochastic():
        line = {"library": peer.library, "sampler": peer.name}
        for budget in budgets:

            def theirs(steps, peer=peer):
                return peers.run(peer, model, x_T, GRIDS["uniform λ"](SDE, steps), seed=2)

            found = within(budget, theirs)
            line[str(budget)] = None if found is None else distance(found[0])
        rows.append(line)
    return rows


def kl_rows(quick):
    """(b) KL(p at t_min ‖ law of the chain), in nats, on a line, without sampling.

    One-step methods on the grid uniform in λ, two-step ones on the one rule.
    """
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
    law = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=0.25).noised(sde)
    grid = sg.Grid(-8.0, 8.0, cells=1200 if quick else 1600)
    x = grid.nodes

    def density(t):
        return sg.Density(x, law.log_prob(x[:, None], torch.tensor(t, dtype=x.dtype)).exp())

    p = density(sde.t_min)
    rows = []
    for name, solver, eta in (
        ("EulerMaruyama, η = 1", sg.EulerMaruyama(), 1.0),
        ("DDIM, η = 1", sg.DDIM(), 1.0),
        ("DDIM, η = ½", sg.DDIM(), 0.5),
        ("DDIM, η = 0", sg.DDIM(), 0.0),
    ):
        line = {"sampler": name}
        dynamics = sg.ReverseSDE(sde, law.score, eta=eta)
        for n in (10,) if quick else (10, 20, 50, 100):
            times = sg.timesteps.log_snr(sde, n)
            q = sg.ChainDensity(dynamics, grid, solver).run(density(sde.t_max), times).final
            line[str(n)] = float(kullback_leibler(p, q))
        rows.append(line)
    return rows + [_two_step_kl(sde, law, solver) for solver in ([] if quick else TWO_STEP)]


def _two_step_kl(sde, law, solver):
    """The same for a method that remembers one state, at 20 evaluations, on the one grid rule."""
    grid = sg.Grid(-7.0, 7.0, cells=1000)

    def density(t):
        t = torch.tensor(t, dtype=torch.float64)
        return sg.Density(grid.nodes, law.log_prob(grid.nodes[:, None], t).exp())

    chain = sg.ChainDensity(sg.ReverseSDE(sde, law.score), grid, solver)
    q = chain.run(density(sde.t_max), GRIDS[RULE](sde, 20)).final
    kl = float(kullback_leibler(density(sde.t_min), q))
    return {"sampler": f"{told(solver)}, η = 1, {RULE}", "20": kl}


def moons_rows(quick):
    """(c) two moons: sliced W2 to those never seen, for a trained score."""
    model, seen, unseen = moons_model(50 if quick else 4_000)
    n = 200 if quick else 4_000
    rows = [{"sampler": "floor: the other half of the data", "20": _w2(seen[:n], unseen[:n])}]
    return rows + _trained(model, SDE.prior((n, 2), rng=1), lambda x: _w2(x, unseen[:n]), quick)


def digits_rows(quick):
    """(c) digits: energy distance to images never seen, mean of three sets of samples."""
    model, images = digits_model(20 if quick else 2_000, 32 if quick else 512)
    test = images.test[:100] if quick else images.test
    seen = torch.cat([images.train, images.validation])[: len(test)]

    def energy(x):
        return sg.metrics.energy_distance(x, test)

    rows = [{"sampler": "floor: the images learned from", "20": energy(seen)}]
    sets = 1 if quick else 3
    x_T = SDE.prior((sets * len(test), 1, 8, 8), rng=0)

    def mean(x):
        return sum(energy(part) for part in x.split(len(test))) / sets

    return rows + _trained(model, x_T, mean, quick)


ROUTES = [
    (0.0, sg.DDIM()),
    (0.0, sg.Heun()),
    (0.0, sg.AngularAdams(2)),
    (0.0, sg.AngularAdams(3)),
    (0.0, sg.AngularAdams(5)),
    (0.0, sg.ExponentialAdams(2, "x0")),
    (0.0, sg.ExponentialAdamsMoulton(3, "v")),
    (1.0, sg.EulerMaruyama()),
    (1.0, sg.DDIM()),
    (1.0, sg.ExponentialAdams(2, "x0")),
]
FINEST = 1000


def _trained(model, x_T, distance, quick):
    """Distances of a few of ours on a trained score; to 1000 evaluations those best before."""
    budgets = (5,) if quick else (5, 10, 20, 50)

    def line_of(eta, solver):
        return f"{told(solver)}{', η = 1' * (eta == 1)}"

    def found(eta, solver, budget):
        dynamics = sg.ReverseSDE(model.sde, model.score, eta=eta)

        def run(steps):
            times = sg.timesteps.power(model.sde, steps)
            out = sg.simulate(
                dynamics, x_T, times, solver=solver, rng=2, keep_path=False, on_nonfinite="freeze"
            )
            return out.final, out.nfe

        reached = within(budget, run)
        return None if reached is None else distance(reached[0])

    rows = []
    for eta, solver in ROUTES:
        rows.append({"sampler": line_of(eta, solver)})
        rows[-1] |= {str(budget): found(eta, solver, budget) for budget in budgets}
        print(rows[-1], flush=True)
    start = sg.AngularAdams(2)  # higher orders are unstable on some networks
    line = {"sampler": f"calibrated from {told(start)}"}
    flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
    pilot = model.sde.prior((24 if quick else 192, *x_T.shape[1:]), rng=9, dtype=torch.float64)
    for budget in (5,) if quick else (5, 10):
        made = sg.calibrate(flow, start, budget, pilot, rounds=2 if quick else 5)
        out = sg.simulate(flow, x_T, made.times, solver=made.solver, keep_path=False)
        line[str(budget)] = distance(out.final)
    if quick:
        return [*rows, line]
    ratios = {"sampler": f"best at each, over its own value at {FINEST}"}
    for budget in budgets[1:]:
        n = str(budget)
        i = min(range(len(rows)), key=lambda i, n=n: rows[i][n])
        if str(FINEST) not in rows[i]:
            rows[i][str(FINEST)] = found(*ROUTES[i], FINEST)
        ratios[n] = rows[i][n] / rows[i][str(FINEST)]
    return [*rows, line, ratios]


def _w2(x, y):
    return float(sg.metrics.sliced_wasserstein(x, y))


def _alone(job):
    """One job of a process."""
    torch.set_num_threads(1)
    name, *arguments = job
    begun = time.perf_counter()
    found = {
        "flow": flow_rows, "calibrated": calibrated_row, "noisy": noisy_rows, "kl": kl_rows,
        "moons": moons_rows, "digits": digits_rows,
    }[name](*arguments)  # fmt: skip
    print(f"{name} {arguments}: {time.perf_counter() - begun:.0f} s", flush=True)
    return job, found


def draw(rows, dims):
    """Error against evaluations, one picture for each number of dimensions."""
    for dim in dims:
        here = [r for r in rows if r["dimensions"] == dim and r["error"] is not None]
        curves = {}
        for r in here:
            if r["library"] == "sdegen":
                kind = (
                    "sdegen, calibrated" if r["sampler"] == "calibrated" else "sdegen, best member"
                )
            elif r["grid"] != RULE:
                kind = f"{r['library']}, best sampler"
            else:
                continue
            errors = curves.setdefault(kind, {})
            errors[r["budget"]] = min(r["error"], errors.get(r["budget"], math.inf))
        order = ("sdegen, best member", "sdegen, calibrated")
        lines = {
            name: sorted(curves[name].items())
            for name in sorted(curves, key=lambda name: (name not in order, name))
        }
        figure = sg.plots.pareto(lines, quantity="distance to the exact flow, rms")
        figure.savefig(RESULTS / f"samplers_{str(dim).split(',')[0]}d{'_far' * (dim == FAR)}.png")


def main(quick=False):
    dims = (2,) if quick else (2, 16, 64, FAR)
    budgets = (5,) if quick else EVALUATIONS
    cells = [(dim, n) for dim in dims for n in budgets if dim != FAR or n <= 50]
    jobs = [("calibrated", dim, n, quick) for dim, n in cells if n in JUDGED]
    jobs += [("flow", dim, n, quick) for dim, n in cells]
    # the long ones first
    jobs.sort(key=lambda job: -job[2] * (job[1] if isinstance(job[1], int) else 2))
    jobs = [("digits", quick), ("moons", quick), *jobs, ("noisy", quick), ("kl", quick)]
    if quick:
        done = [_alone(job) for job in jobs]
    else:
        with ProcessPoolExecutor(2) as pool:
            done = list(pool.map(_alone, jobs))
    rows = [r for job, found in done if job[0] == "flow" for r in found]
    rows += [found for job, found in done if job[0] == "calibrated"]
    others = {job[0]: found for job, found in done if job[0] not in ("flow", "calibrated")}
    return report(rows, others, dims, quick)


def report(rows, others, dims, quick):
    """Tables of what was found, written, and drawn."""
    tables = {
        "distance to the exact flow: ours, the best of all peers, calibrated": summary(rows, dims),
        "what a calibration costs, and when it pays": costs(rows),
        **{f"error by sampler, {dim} dimensions": by_sampler(rows, dim) for dim in dims},
        "noisy samplers, 2 dimensions: sliced W2 by evaluations": others["noisy"],
        "noisy samplers, a line: KL(p at t_min ‖ law), nats, by evaluations": others["kl"],
        "two moons, trained score: sliced W2 by evaluations": others["moons"],
        "digits, trained score: energy distance by evaluations": others["digits"],
    }
    tables = {title: lines for title, lines in tables.items() if lines}
    write("samplers", tables, quick)
    if not quick:
        everything = RESULTS / "all"
        everything.mkdir(exist_ok=True)
        (everything / "samplers.json").write_text(
            "[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n"
        )
        draw(rows, dims)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(parser.parse_args().quick)
