"""Noisy samplers on exact scores: sliced W2 to exact samples, and the law itself on a line.

All start from the same exact samples of p at t_max and are judged by the same ones of p at
t_min; ours are tried on two grids (uniform in λ, and the one rule), peers on two of theirs, and
each sampler is shown on its better one. The floor is what other exact samples show. From 50
evaluations on all of ours run, and of each library the three best until then.

On a line nothing is sampled. The law of a chain needs its coefficients, and a peer's are measured
(`peers.coefficients`): each score and each draw of a run is 1 in a row of its own, and what comes
out is solved for A, P, Q and S. What is not a linear method of one evaluation a step that
remembers at most one state shows a residual, and has no row. Methods of one state are on the grid
uniform in λ, those of two on the one rule, whose last steps are longer: a pair of states costs the
square of what one costs, and the more the less noise a step has.
"""

import warnings
from dataclasses import dataclass, field

import torch

import sdegen as sg
from benchmarks import peers
from benchmarks.problems import SDE, mixture
from benchmarks.sampling import (
    EVALUATIONS,
    GRIDS,
    JUDGED,
    NOISY,
    RULE,
    Candidate,
    by_count,
    our_candidate,
    race,
    racing_peers,
    repeated,
    standings,
    told,
)
from sdegen.diffusion.samplers.adams_coefficients import Coefficients
from sdegen.diffusion.samplers.multistep import Multistep
from sdegen.verification.distances import kullback_leibler

__all__ = ["kl_rows", "noisy_rows", "tables"]

OURS = ("uniform λ", RULE)
SAMPLES = {2: 20_000, 16: 10_000, 64: 4_000}
COUNTS = {2: EVALUATIONS[:-1], 16: (5, 10, 20), 64: (5, 10, 20)}
PROJECTIONS = {2: 16, 16: 32, 64: 64}
REPEATS = 5
MEMBERS = [
    *NOISY,
    (1.0, sg.ExponentialAdams(3, "v")),
    (1.0, sg.ExponentialAdamsMoulton(2, "x0")),
    (1.0, sg.ExponentialAdamsMoulton(3, "v")),
    (0.0, sg.AngularAdams(4)),  # noise-free: what the floor is for one that draws nothing
]
ADAPTIVE = tuple(2.0**-k for k in range(12))  # tolerances of AdaptiveHeun


def noisy_rows(dim, quick):
    """Rows of a race in so many dimensions, and what repeats of it show."""
    n = 200 if quick else SAMPLES[dim]
    counts = (5, 20) if quick else COUNTS[dim]
    law = mixture(dim).noised(SDE)
    high, low = (torch.tensor(t, dtype=torch.float64) for t in (SDE.t_max, SDE.t_min))

    def starts(seed):
        return law.sample(n, high, rng=seed, dtype=torch.float64)

    target = law.sample(n, low, rng=10, dtype=torch.float64)

    def distance(x):
        return float(sg.metrics.sliced_wasserstein(x, target, projections=PROJECTIONS[dim]))

    def dynamics(eta):
        return sg.ReverseSDE(SDE, law.score, eta=eta)

    metropolis = sg.MetropolisCorrector(law.log_prob)
    candidates = [
        our_candidate(dynamics, solver, eta, OURS) for eta, solver in [*MEMBERS, (1.0, metropolis)]
    ]
    if not quick:
        candidates.append(_adaptive(dynamics(1.0)))
    candidates += racing_peers(peers.Counted(SDE, law.score), flows=False)
    rows = race(candidates, starts(0), lambda x: {"error": distance(x)}, counts)
    floors = [
        distance(law.sample(n, low, rng=20 + i, dtype=torch.float64)) for i in range(REPEATS)
    ]
    again = repeated(dict.fromkeys(counts, floors), "floor: other exact samples")
    # one sampler's deviations stand for all: what is drawn and judged is the same
    judged = [n for n in counts if n <= JUDGED[-1]]
    runner = candidates[0]
    over = {
        n: [distance(runner.run(RULE, n, 100 + i, starts(100 + i))[0]) for i in range(REPEATS)]
        for n in judged
    }
    again += repeated(over, f"sdegen {runner.name}, {RULE}, {REPEATS} runs")
    return [{"dimensions": dim, **r} for r in rows + again]


def _adaptive(dynamics):
    """AdaptiveHeun at the tolerance whose evaluations come nearest to a budget from below."""
    known = []

    def run(grid, budget, seed, x_T):
        if not known:
            ends = torch.tensor([SDE.t_max, SDE.t_min], dtype=torch.float64)
            for tolerance in ADAPTIVE:
                out = sg.simulate(
                    dynamics, x_T, ends, solver=sg.AdaptiveHeun(tolerance, tolerance),
                    rng=seed + 2, keep_path=False, on_nonfinite="freeze",
                )  # fmt: skip
                known.append((out.final, out.nfe))
                if out.nfe > EVALUATIONS[-1]:
                    break
        fits = [found for found in known if found[1] <= budget]
        return max(fits, key=lambda found: found[1]) if fits else None

    return Candidate("sdegen", "AdaptiveHeun(), η = 1", True, ("its own",), run)


# --------------------------------------------------------------------------- the law, on a line

LINE = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
KL_COUNTS = (10, 20, 50, 100)
ONE_STEP = [
    (1.0, sg.EulerMaruyama()),
    (1.0, sg.DDIM()),
    (0.5, sg.DDIM()),
    (0.0, sg.DDIM()),
]
TWO_STEP = [
    (1.0, sg.ExponentialAdams(2, "x0")),
    (1.0, sg.ExponentialAdams(2, "x0", "midpoint")),
    (1.0, sg.ExponentialAdams(2, "v")),
    (1.0, sg.ExponentialAdamsMoulton(2, "x0")),
    (1.0, sg.ExponentialAdamsMoulton(2, "v")),
]
PAIRED = (20,)  # evaluations at which the law of a pair of states is computed
CELLS = (1000, 1600)  # for a pair: the fewest that resolve it


@dataclass(frozen=True, eq=False)
class Measured(Multistep):
    """A method by its coefficients, whoever's they are."""

    table: Coefficients
    substeps: int = field(default=1, init=False)

    def coefficients(self, sde, nodes):
        """The table."""
        return self.table


def kl_rows(quick):
    """KL(p at t_min ‖ law of the chain), in nats, on a line, without sampling."""
    law = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=0.25).noised(LINE)
    rows = []

    def line(library, name, eta, grid, counts, solver_of):
        dynamics, found = sg.ReverseSDE(LINE, law.score, eta=eta), {}
        for n in counts:
            times = GRIDS[grid](LINE, n)
            solver = solver_of(times)
            try:
                found[n] = _kl(law, dynamics, solver, times)
            except (ValueError, UserWarning) as error:
                print(f"{library} {name}, {n} on {grid}: {error}", flush=True)
        rows.append(by_count(found, KL_COUNTS, library=library, sampler=name, grid=grid))

    for eta, solver in ONE_STEP:
        counts = (10,) if quick else KL_COUNTS
        line("sdegen", f"{told(solver)}, η = {eta:g}", eta, OURS[0], counts, lambda _, s=solver: s)
    if quick:
        return rows
    for eta, solver in TWO_STEP:
        name = f"{told(solver)}, η = {eta:g}"
        line("sdegen", name, eta, RULE, PAIRED, lambda _, s=solver: s)
    for peer in peers.stochastic():

        def solver_of(times, peer=peer):
            table = peers.coefficients(peer, LINE, times)
            return None if table is None else Measured(table)

        probe = solver_of(GRIDS[OURS[0]](LINE, PAIRED[0]))
        if probe is None:
            continue
        forgets = probe.table.states.shape[1] == 1
        grid, counts = (OURS[0], KL_COUNTS) if forgets else (RULE, PAIRED)
        line(peer.library, peer.name, 1.0, grid, counts, solver_of)
    return rows


def _kl(law, dynamics, solver, times):
    """The divergence of one chain's law from p; an error where no grid holds or resolves it."""
    table = solver.coefficients(dynamics, times) if hasattr(solver, "coefficients") else None
    pair = table is not None and table.states.shape[1] > 1
    half, numbers = (7.0, CELLS) if pair else (8.0, (1600,))
    for cells in numbers:
        grid = sg.Grid(-half, half, cells=cells)
        x = grid.nodes

        def density(t, x=x):
            return sg.Density(x, law.log_prob(x[:, None], torch.tensor(t, dtype=x.dtype)).exp())

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # of a grid that cuts the law
                q = sg.ChainDensity(dynamics, grid, solver).run(density(LINE.t_max), times).final
        except ValueError as error:
            if "too coarse" not in str(error) or cells == numbers[-1]:
                raise
        else:
            return float(kullback_leibler(density(LINE.t_min), q))
    raise AssertionError


def tables(rows, kl):
    """All tables of this part, by title."""
    found = {}
    for dim in dict.fromkeys(r["dimensions"] for r in rows):
        here = [r for r in rows if r["dimensions"] == dim]
        runs, again = [r for r in here if "budget" in r], [r for r in here if "budget" not in r]
        counts = sorted({r["budget"] for r in runs})
        again = [{k: v for k, v in r.items() if k != "dimensions"} for r in again]
        # columns in the order of the others
        heads = [{"library": "", "sampler": r.pop("sampler"), "grid": "", **r} for r in again]
        many = f"{SAMPLES[dim]:,} samples"
        title = f"noisy samplers, {dim} dimensions: sliced W2 of {many}, by evaluations"
        found[title] = heads[:2] + standings(runs, counts, others=99) + heads[2:]
    # one whose last step draws nothing has no density to be known by
    known = [r for r in kl if any(r[str(n)] is not None for n in KL_COUNTS)]
    found["noisy samplers, a line: KL(p at t_min ‖ law), nats, by evaluations"] = known
    return found
