"""What all parts of the sampler benchmark share: counts, grids, budgets, names and tables."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

import sdegen as sg
from benchmarks import peers
from benchmarks.problems import SDE

__all__ = [
    "EVALUATIONS",
    "GRIDS",
    "JUDGED",
    "NOISY",
    "RULE",
    "Candidate",
    "best",
    "by_count",
    "finite",
    "found_by",
    "our_candidate",
    "race",
    "racing_peers",
    "repeated",
    "score_of_fit",
    "standings",
    "told",
    "within",
]

EVALUATIONS = (1, 2, 5, 10, 20, 50, 100, 200)
JUDGED = (5, 10, 20, 50, 100)
RULE = "power 5/2"
GRIDS = {
    RULE: sg.timesteps.power,
    "uniform t": sg.timesteps.uniform,
    "uniform λ": sg.timesteps.log_snr,
    "Karras 7": sg.timesteps.karras,
}
NOISY = [  # η and solver: ours with noise, wherever noisy samplers race
    (1.0, sg.EulerMaruyama()),
    (1.0, sg.DDIM()),
    (1.0, sg.ExponentialAdams(2, "x0")),
    (1.0, sg.ExponentialAdams(2, "x0", "midpoint")),
    (1.0, sg.ExponentialAdams(2, "v")),
    (1.0, sg.ExponentialAdams(3, "x0")),
    (1.0, sg.ExponentialAdamsMoulton(2, "v")),
    (1.0, sg.DPM2()),
    # S_churn of EDM's ImageNet recipe; below 97 steps γ is at its bound
    (0.0, sg.KarrasHeun(sg.Churn(40.0))),
    (1.0, sg.PredictorCorrector()),
]
# what a library says to a grid that is too short for one of its samplers
REFUSALS = (ValueError, IndexError, TypeError, UnboundLocalError, RuntimeError, AssertionError)


def told(solver):
    """A solver as one would type it."""
    words = [
        repr(getattr(solver, word)) for word in ("order", "prediction") if hasattr(solver, word)
    ]
    if getattr(solver, "rule", "exact") != "exact":
        words.append(repr(solver.rule))
    if hasattr(solver, "churn") and solver.churn.amount:
        words.append(f"Churn({solver.churn.amount:g})")
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


def found_by(peer, model, x_T, name, budget, seed=0):
    """(x, nfe) of a peer on a grid within a budget; None where it refuses or does not fit."""

    def run(steps):
        return peers.run(peer, model, x_T, GRIDS[name](SDE, steps), seed=seed)

    try:
        return within(budget, run)
    except REFUSALS as error:
        print(f"{peer.label}, {budget} evaluations: {type(error).__name__}", flush=True)
        return None


def best(rows):
    """The row of the smallest error."""
    return min((r for r in rows if r["error"] is not None), key=lambda r: r["error"], default=None)


def score_of_fit(errors, least):
    """How far errors by count are from the least ones, Σ log(error/least) over those of least."""
    return sum(math.log(errors[n] / least[n]) if errors.get(n) else math.inf for n in least)


def by_count(errors, counts, **words):
    """A line of a table: words, then the errors in the order of their counts."""
    return {**words, **{str(n): errors.get(n) for n in counts}}


def finite(error):
    """An error, or None where a run was lost: JSON knows no infinity."""
    return None if error is None or not math.isfinite(error) else error


def all_finite(x):
    """Whether a sample can be judged at all."""
    return bool(torch.isfinite(x).all())


@dataclass(frozen=True)
class Candidate:
    """A sampler in a race.

    Attributes:
        library: Where it is from.
        name: As it would be typed there.
        noisy: Whether it draws.
        grids: Names of the grids that it is tried on.
        run: run(grid, budget, seed): (x, nfe), or None.
    """

    library: str
    name: str
    noisy: bool
    grids: tuple[str, ...]
    run: Callable


OF_PEERS = ("uniform λ", "Karras 7")  # of their grids the two that win; `exact_flows.py` has all
LONG = 50  # evaluations from which on only the grid that was better so far is run, of the best few
KEPT = 3  # of each library, noisy and noise-free ones apart


def racing_peers(model, flows=True):
    """Candidates of all peers that are installed, on their own grids."""
    found = []
    for noisy, these in (
        (False, peers.deterministic() if flows else []),
        (True, peers.stochastic()),
    ):
        for peer in these:

            def run(grid, budget, seed, x_T, peer=peer):
                return found_by(peer, model, x_T, grid, budget, seed)

            grids = OF_PEERS[:1] if peer.own_grid else OF_PEERS
            found.append(Candidate(peer.library, peer.name, noisy, grids, run))
    return found


def our_candidate(dynamics_of, solver, eta, grids):
    """A candidate of ours; dynamics_of(η) is what it solves."""
    dynamics, sde = dynamics_of(eta), dynamics_of(eta).forward
    noisy = solver.is_stochastic(dynamics)

    def run(grid, budget, seed, x_T):
        def steps(n):
            out = sg.simulate(
                dynamics, x_T, GRIDS[grid](sde, n), solver=solver, rng=seed + 2, keep_path=False,
                on_nonfinite="freeze",
            )  # fmt: skip
            return out.final, out.nfe

        return within(budget, steps)

    name = told(solver) + (f", η = {eta:g}" if eta or noisy else "")
    return Candidate("sdegen", name, noisy, grids, run)


def race(candidates, x_T, judge, counts, keep=KEPT, keep_ours=None):
    """Rows of all candidates: every grid up to LONG, then the better one, of the best few.

    Args:
        candidates: Who runs.
        x_T: Starts, the same for all.
        judge: judge(x): numbers by name, among them "error".
        counts: Numbers of evaluations.
        keep: How many of each library, noisy and noise-free apart, run the long ones.
        keep_ours: The same of ours; None is all.
    """
    rows, standing = [], {}

    def runs(who, grid, budget):
        found = who.run(grid, budget, 0, x_T)
        row = {
            "library": who.library, "sampler": who.name, "noisy": who.noisy, "grid": grid,
            "budget": budget, "nfe": None if found is None else found[1], "error": None,
        }  # fmt: skip
        if found is not None and all_finite(found[0]):
            row |= judge(found[0])
        rows.append(row)
        return row["error"]

    short = [n for n in counts if n < LONG]
    weighed = [n for n in short if n >= JUDGED[0]]
    for who in candidates:
        errors = {grid: {n: runs(who, grid, n) for n in short} for grid in who.grids}
        floor = dict.fromkeys(weighed, 1.0)
        grid = min(who.grids, key=lambda grid: score_of_fit(errors[grid], floor))
        standing.setdefault((who.library, who.noisy), []).append(
            (score_of_fit(errors[grid], floor), grid, who)
        )
    for (library, _), group in standing.items():
        kept = keep_ours if library == "sdegen" else keep
        for _, grid, who in sorted(group, key=lambda entry: entry[0])[:kept]:
            for budget in counts:
                if budget >= LONG:
                    runs(who, grid, budget)
    return rows


def standings(rows, counts, what="error", others=KEPT):
    """A table of a race: each sampler on its better grid; of each library the best few."""
    groups = {}
    for r in rows:
        if r.get(what) is not None:
            errors = groups.setdefault((r["library"], r["noisy"]), {})
            errors.setdefault((r["sampler"], r["grid"]), {})[r["budget"]] = r[what]
    weighed = dict.fromkeys([n for n in counts if JUDGED[0] <= n < LONG], 1.0)
    lines = []
    for (library, _), table in groups.items():
        names = {}
        for sampler, grid in sorted(table, key=lambda key: score_of_fit(table[key], weighed)):
            names.setdefault(sampler, grid)  # the better one comes first
        ranked = list(names) if library == "sdegen" else list(names)[:others]
        lines += [
            by_count(
                table[name, names[name]], counts, library=library, sampler=name, grid=names[name]
            )
            for name in ranked
        ]
    return lines


def repeated(distances, name):
    """Mean and standard deviation of one run's distance over several, as two lines."""
    counts = list(distances)
    values = {n: torch.tensor(distances[n], dtype=torch.float64) for n in counts}
    return [
        by_count({n: float(values[n].mean()) for n in counts}, counts, sampler=f"{name}, mean"),
        by_count(
            {n: float(values[n].std()) for n in counts}, counts,
            sampler=f"{name}, standard error of one",
        ),
    ]  # fmt: skip
