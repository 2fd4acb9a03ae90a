"""The first page of the benchmarks: where sdegen wins and where it loses, on one screen or three.

Every figure is looked up in the JSON of benchmarks/results, none is typed here: `table.py` writes
the page. A ratio on the losing side is set in bold by `ratio`; a sentence that says sdegen is
behind calls `behind`, which fails as soon as the results say otherwise, so that the sentence is
written anew.
"""

import textwrap

from benchmarks.comparisons import (
    best_rates,
    channels,
    densities,
    ensembles,
    exact_scores,
    learned_scores,
    trained_scores,
)
from benchmarks.lookup import (
    behind,
    largest,
    load,
    names,
    number,
    one,
    ratio,
    rows_of,
    smallest,
)

HEAD = """# Benchmarks: where sdegen wins and where it loses

Every benchmark measures sdegen and its peers in one run on one machine: {machine}.
Evaluations are counted, errors are measured against exact answers. No GPU figure exists yet.
Figures on this page and in [`archive/`](archive) are made from `results/*.json` by
`python -m benchmarks.table`; run one benchmark with `python -m benchmarks.NAME` from the project's
root, all with `make bench`. The archive has every row, what was compared, versions and pictures.

**Bold: sdegen is behind.**

| benchmark | question | peers | figure | threads, date |
| --- | --- | --- | --- | --- |
"""


def figures():
    """Yield (benchmark, question, peers, figure), the figures from the results."""
    spent = rows_of("averages", "cost over tolerance")
    slopes = rows_of("averages", "slope of the cost")
    held = rows_of("averages", "intervals")
    yield (
        "averages",
        "what does an average to a tolerance cost, and does its interval hold?",
        "Euler alone, with its bias known beforehand",
        f"cost ∝ tolerance to the power {number(slopes[0]['slope of cost over tolerance'])} "
        f"(double well), {number(slopes[1]['slope of cost over tolerance'])} (geometric Brownian "
        "motion); at 1e-3 "
        + " and ".join(
            f"{ratio(row['times fewer'], 'above')}" for row in spent if row["tolerance"] == 1e-3
        )
        + " times fewer evaluations; "
        + ", ".join(f"{100 * row['inside']:.3g} %" for row in held)
        + " of intervals of 95 % hold",
    )
    ours = rows_of("backends", "cost of a step")
    few, many = (
        one(ours, trajectories=n, method="simulate, EulerMaruyama")["over the plain loop"]
        for n in (100, 100000)
    )
    yield (
        "backends",
        "what does a step of `simulate` cost?",
        "a plain torch loop, torchsde, torchdiffeq",
        f"{ratio(few)} times the plain loop at 100 trajectories, {ratio(many)} at 10⁵; "
        f"torchsde alone {largest(ours, 'over the plain loop'):.3g} at most",
    )
    clean = rows_of("certificates", "certificates of clean")
    planted = rows_of("certificates", "certificates of planted")
    yield (
        "certificates",
        "does `certify` catch faults, and pass what is right?",
        "planted faults",
        f"{sum(row['false alarms'] for row in clean)} false alarms in "
        f"{sum(row['seeds'] for row in clean)} clean runs; "
        f"{sum(row['caught'] for row in planted)} of {sum(row['runs'] for row in planted)} faults "
        f"caught, {sum(row['named'] for row in planted)} named",
    )
    yield (
        "channels",
        "how many steps a second with a matrix of noise?",
        "torch, torchsde, diffrax, jax",
        "; ".join(channels()),
    )
    yield (
        "ensemble",
        "how many Euler steps a second?",
        "torch, torchsde, diffrax, jax, numba",
        "the table below",
    )
    yield (
        "fokker_planck",
        "what does a density cost, and how good is it?",
        "fplanck, py-pde",
        "the table below",
    )
    bars = [r for r in rows_of("error_bars", "intervals") if r["states"] == 20_000]
    inside = {(row["of"], row["by"]): row["inside"] for row in bars}
    yield (
        "error_bars",
        "how often do intervals of time averages hold?",
        "exact AR(1), independent states",
        "of 1,000 intervals of 95 %: "
        + ", ".join(f"{by} {1000 * share:.0f} ({of})" for (of, by), share in inside.items()),
    )
    long = rows_of("identities", "nominal")
    told = [row for row in long if "independent" not in row["identity"]]
    naive = one(long, identity="⟨x²⟩ = T, of independent states")["rejected at 5 %"]
    yield (
        "identities",
        "is one long correlated trajectory judged rightly?",
        "exact Ornstein–Uhlenbeck runs, independent states",
        f"10⁶ states, correlation time 10³: tests at 5 % reject "
        f"{100 * smallest(told, 'rejected at 5 %'):.1f} to "
        f"{100 * largest(told, 'rejected at 5 %'):.1f} % of {told[0]['runs']:,} right runs; as if "
        f"states were independent {100 * naive:.0f} %",
    )
    classes, strange = rows_of("zoo", "classes"), rows_of("zoo", "outside of all classes")
    planted = sum(row["runs"] for row in classes)
    caught = sum(row["caught"] for row in classes)
    named = sum(2 * row["named"] > row["runs"] for row in classes)
    unknown = sum(row["said to be unknown"] for row in strange)
    yield (
        "zoo",
        "are faults of public projects caught in stored states, and named?",
        "mean and variance, Kolmogorov–Smirnov, a kernel Stein test",
        f"{caught} of {planted} plantings in 1 to 100 dimensions are caught; of {len(classes)} "
        f"classes {named} are named first in most of their plantings; faults outside of all "
        f"classes are said to be unknown in {unknown} of {sum(r['runs'] for r in strange)}",
    )
    right = one(rows_of("zoo_clean", "false alarms"), dimension="all")
    yield (
        "zoo_clean",
        "how often are right runs refused?",
        "the stated rate, 1e-3",
        f"{right['false alarms']} of {right['runs']:,} clean twins of the zoo, in 1 to 100 "
        "dimensions",
    )
    least = rows_of("verdicts", "least fault")
    rates = rows_of("verdicts", "speed")
    seen = {
        (row["off by a factor"], row["times what is possible"]): 100 * row["seen"] / row["runs"]
        for row in least
    }
    yield (
        "verdicts",
        "which fault of stored states is seen, and at what speed?",
        "what is possible by Fisher's information; reading the numbers and the drift",
        f"10⁶ steps at a false alarm of 1e-3: 1.25 and 1.5 times what is possible is seen in "
        f"{seen['drift', 1.25]:.0f} and {seen['drift', 1.5]:.0f} % (drift), "
        f"{seen['noise', 1.25]:.0f} and {seen['noise', 1.5]:.0f} % (noise); 10⁸ numbers at "
        f"{smallest(rates, 'share of the rate'):.2f} to {largest(rates, 'share of the rate'):.2f} "
        "of the rate at which they are read and the drift is evaluated",
    )
    steps = rows_of("step_bias", "bias of a step")
    well = one(steps, problem="double well, σ = 1", dt=0.1)
    yield (
        "step_bias",
        "how much of an average is due to the step, and does the interval hold?",
        "exact laws of the chains",
        f"double well, dt = 0.1: {well['inside']} of {well['seeds']} intervals of 95 % hold, each "
        f"{100 * well['half width/bias']:.1f} % of the bias wide on either side, by "
        f"{number(well['CPU s'])} s of one core; over {len(steps)} problems "
        f"{smallest(steps, 'inside')} to {largest(steps, 'inside')} of {well['seeds']} hold",
    )
    discs = rows_of("particles", "soft discs")[-1]
    yield (
        "particles",
        "what do forces between pairs cost?",
        "a loop over all pairs in torch",
        f"{discs['particles']:,} soft discs: {discs['ratio']:.0f} × as fast on one core",
    )
    turnover = rows_of("kinetic", "Kramers")
    beside = [r["standard errors off"] for r in turnover if r["trajectories"] is not None]
    yield (
        "kinetic",
        "what is the rate between two wells, at any friction?",
        "a Galerkin method without a grid, trajectories of BAOAB",
        f"γ from {smallest(turnover, 'γ'):g} to {largest(turnover, 'γ'):g}: off by "
        f"{number(largest(turnover, 'off'))} at most; {len(beside)} rates of 20,000 trajectories "
        f"within {number(max(map(abs, beside)))} standard errors; "
        f"{number(largest(turnover, 'CPU seconds'))} s of CPU at most",
    )
    yield (
        "scores",
        "which loss learns the score of a nonlinear SDE, and how near?",
        "implicit, sliced and one-step denoising score matching",
        learned_scores(),
    )
    asked = rows_of("fokker_planck_accuracy", "asked")
    yield (
        "fokker_planck_accuracy",
        "does the solver keep what it promises?",
        "exact answers",
        f"{sum(row['met'] == 'yes' for row in asked)} of {len(asked)} promises kept",
    )
    costs = rows_of("fokker_planck_costs", "cost of")
    still = [row["ratio"] for row in costs if row["question"] != "driven"]
    driven = [row["ratio"] for row in costs if row["question"] == "driven"]
    yield (
        "fokker_planck_costs",
        "what do estimated errors cost?",
        "sdegen without them",
        f"{ratio(min(still))} to {ratio(max(still))} times the CPU time; driven problems "
        f"{ratio(min(driven))} to {ratio(max(driven))} at the same error",
    )
    large = rows_of("large_ensembles", "one process")
    two = one(rows_of("large_ensembles", "torchrun"), processes=2)
    yield (
        "large_ensembles",
        "do time and memory of an ensemble scale?",
        "itself, 10⁶ to 10⁸ trajectories",
        f"{number(smallest(large, 'million steps a second'))} to "
        f"{number(largest(large, 'million steps a second'))} million steps a second in "
        f"{largest(large, 'peak memory in MiB'):.3g} MiB at most; two processes "
        f"{number(two['against one'])} times one",
    )
    beyond = rows_of("overhead", "simulate beyond")
    yield (
        "overhead",
        "what does `simulate` cost beyond the network?",
        "the network's own time",
        f"{100 * smallest(beyond, 'share beyond the network'):.2g} to "
        f"{100 * largest(beyond, 'share beyond the network'):.2g} % of a run",
    )
    yield from answers_about_errors()


def answers_about_errors():
    """Yield the rows on errors of densities, samplers and chains."""
    inpainted = [r for r in rows_of("posteriors", "posteriors") if "x_1 known" in r["problem"]]
    yield (
        "posteriors",
        "how far are samplers of inverse problems from the exact posterior?",
        "exact samples",
        "a coordinate known, sliced W2 in its standard deviations: "
        + ", ".join(f"{row['method']} {row['sliced W2']:.2g}" for row in inpainted),
    )
    (kills,) = rows_of("killed_training", "all")
    yield (
        "killed_training",
        "does a training that was killed at any moment resume to the same bits?",
        "the training that was not killed",
        f"{kills['same bits']} of {kills['trainings killed']}",
    )
    trainings = rows_of("training_overhead", "train beside a loop by hand")
    yield (
        "training_overhead",
        "what does `train` cost beside a loop by hand?",
        "a bare torch loop, and one with the same clipping, schedule and average",
        "; ".join(
            f"{row['network']}, {row['bare loop, microseconds a step'] / 1e3:.2g} ms a step: "
            f"{_percent(row['train over bare loop'])} over the bare loop, "
            f"{_percent(row['train over equal loop'])} over the equal one"
            for row in trainings
        ),
    )
    held_out = rows_of("held_out", "mixtures in the plane")
    yield (
        "held_out",
        "how near is a learned density to the true one, on unseen points?",
        "the mixture's own density, on the same points",
        "held-out NLL less entropy: "
        + "; ".join(
            f"{row['mixture']} {row['held-out NLL less entropy, nats']:.2g} ± "
            f"{row['its standard error']:.1g} nats after {row['CPU seconds of training']:.3g} s "
            "of one core"
            for row in held_out
        ),
    )
    digits = rows_of("one_data_set_all_models", "digits")
    yield (
        "one_data_set_all_models",
        "what does each kind of model cost, and what does it know of log p?",
        "a Gaussian of the data's covariance, on unseen digits",
        "at least, nats: "
        + ", ".join(
            f"{row['model']} {row['log p of unseen data, nats']:.3g}"
            for row in digits
            if row["it is"] == "bound" or row["model"] == "Gaussian"
        ),
    )
    pulses = rows_of("pulses", "pulses")
    silent = sum(row["wrong without a word"] for row in pulses)
    yield (
        "pulses",
        "are short pulses between two times seen?",
        "exact moments",
        f"{sum(row['right to 1 %'] for row in pulses)} of "
        f"{sum(row['problems'] for row in pulses)} right to 1 %, "
        f"{f'**{silent}**' if silent else '0'} wrong without a warning",
    )
    everything = one(rows_of("random_problems", "random problems: estimated"), stratum="all")
    yield (
        "random_problems",
        "do estimated errors cover the true ones?",
        "exact answers",
        f"{everything['estimate ≥ true/3, %']:.3g} % of {everything['numbers']} numbers covered, "
        f"median of estimate over true error {everything['median of estimate/true']:.3g}; "
        f"{everything['refused']} refused, {everything['above 1 % without a word']} above 1 % "
        "without a warning",
    )
    yield (
        "samplers",
        "how far is a sampler from the exact flow, or from data?",
        "diffusers, k-diffusion, azula",
        "the tables below",
    )
    cells = rows_of("time_grids", "error over")
    yield (
        "time_grids",
        "does one grid rule serve every path?",
        "best peer on its best grid, cell by cell",
        f"ahead in {sum(row['reached'] for row in cells)} of "
        f"{sum(row['cells'] for row in cells)} cells as asked; the table below",
    )
    weak = rows_of("weak_error", "weak error")
    at_end = [row for row in weak if row["N"] == 1000]
    yield (
        "weak_error",
        "which order has the law of a sampler's chain?",
        "theory",
        "local order at N = 1000: "
        + ", ".join(f"{row['sampler']} {row['local order']:.3g}" for row in at_end),
    )
    told = [
        row[f"{kind} agrees"]
        for row in rows_of("solver_costs", "orders")
        for kind in ("strong", "weak")
    ]
    yield (
        "solver_costs",
        "what error has which solver for how many evaluations?",
        "exact solutions; declared orders",
        f"of {len(told)} orders read off {told.count('yes')} are as declared, "
        f"{told.count('more')} higher, {told.count('no')} lower, "
        f"{told.count('not told')} not told from noise",
    )
    started = {row["process"]: row for row in rows_of("imports", "seconds of a fresh process")}
    shown = {
        "import sdegen": "`import sdegen`",
        "sdegen --help": "`sdegen --help`",
        "import torch, first sg.simulate": "the first `sg.simulate`",
    }
    yield (
        "imports",
        "what do an import and a first use cost?",
        "Python alone; `import torch`",
        "CPU s above these: "
        + ", ".join(
            f"{words} {number(started[name]['CPU s above it'])}" for name, words in shown.items()
        )
        + f"; `import torch` itself {number(started['import torch']['CPU s above it'])}",
    )
    opened = rows_of("explore", "first picture, from the start of the process")
    painted = rows_of("explore", "frames that the browser painted")
    yield (
        "explore",
        "how soon is the live page there, and how many frames does it paint?",
        "3 s; 15 frames a second",
        "first picture after "
        + " and ".join(number(row["first picture in s"]) for row in opened)
        + " s; of 5,000 particles "
        + " and ".join(number(row["frames a second"]) for row in painted)
        + " frames a second, browser and server on the same two cores",
    )


def overview():
    """Return the table with one row for each benchmark."""
    rows = [
        f"| [{name}](archive/{name}.md) | {question} | {beside} | {figure} | {when(name)} |"
        for name, question, beside, figure in figures()
    ]
    rows.append(
        "| gpu | the same on a GPU: right, fast, never waiting? | a torch loop | not run yet: "
        "it needs a card; `python -m benchmarks.gpu`, under 8 minutes |  |"
    )
    return "\n".join(rows)


def when(name):
    """Return how many threads a benchmark had, and its date."""
    record = load(name)
    return f"{record['machine']['torch threads']}, {record['date']}"


def machine():
    """Return the machine, which all benchmarks share."""
    machines = {
        (record["machine"]["processor"], record["machine"]["cores"], record["machine"]["torch"])
        for record in map(load, names())
    }
    return " and ".join(
        f"{cores} cores of {cpu}, torch {torch}" for cpu, cores, torch in sorted(machines)
    )


SAMPLERS = """
## Samplers: error over that of the best peer, by evaluations

Below 1 sdegen is nearer. Exact scores: root-mean-square distance to the exact probability flow;
the best peer is chosen in each column of all samplers of three libraries, on the best of their
grids, or on ours. Calibrated: nodes and coefficients fitted to the flow by `calibrate`.

{exact}

Trained scores and noise: the best of ours over the best peer. The network's own error is all that
is left of a distance to data from about 20 evaluations on, and one run with noise is known to
about a tenth: the archive has the standard errors.

{trained}
"""

ENSEMBLES = """
## Ensembles: million trajectory-steps a second

Two threads on two cores. In brackets: over the best peer; above 1 sdegen is faster.

{table}
"""

DENSITIES = """
## Fokker–Planck: one density, 1000 nodes, CPU time of one thread

"Anew": one call by a user who has made everything for it. "Stepping alone": the peer's own profile
of its steps, without compilation. In brackets: times ours, anew; below 1 the peer is faster.

{table}

For an error of 1e-7 sdegen takes {ours} ms; peers, extrapolated:
{peers}.
"""


LOSSES = """
## Where sdegen loses, and what to do

{losses}
- **Not measured**: anything on a GPU, or on more than two cores.
"""


def losses():
    """Yield one sentence for each loss, with its figures."""
    rates = dict(best_rates())
    few = rates["double well", 100, "float32"]
    slow = behind(few["sdegen"]["over the best peer"], win="above")
    yield (
        f"**100 trajectories, uncompiled**: {slow} of numba's rate, "
        f"{few['sdegen']['M steps/s'] / few['jax.lax.scan']['M steps/s']:.2g} of jax's, "
        f"{few['sdegen']['M steps/s'] / few['diffrax, UnsafeBrownianPath']['M steps/s']:.2g} of "
        "diffrax's with one path for all; torch's operations take longer than their whole step. "
        "`compile=True` is for that, and takes 10 to 40 s once."
    )
    flow = rows_of("samplers", "distance to the exact flow")
    five = [behind(one(flow, dimensions=d, evaluations=5)["ours over that"]) for d in (2, 64)]
    yield (
        f"**Five evaluations on our own grid rule**: azula's `vABSampler` of order 3 is as near "
        f"or nearer; ours over its error is {five[0]} in the plane, {five[1]} in 64 dimensions."
    )
    yield from losses_on_trained_scores()
    yield from losses_of_calibration(flow)
    yield from losses_of_densities()


def losses_on_trained_scores():
    """Yield where a peer is nearer by more than 5 %, a kind a sentence."""
    trained = rows_of("samplers", "trained scores")
    kinds = {"noisy": "Noisy samplers", "to the network's flow": "The flow of a trained network"}
    for kind, word in kinds.items():
        lost = [
            f"{row['data']} at {row['evaluations']} "
            f"({row[f'{kind}, ours'] / row[f'{kind}, best peer']:.2g}, "
            f"{row[f'{kind}: best peer'].split(',')[0]})"
            for row in trained
            if row[f"{kind}, ours"] > 1.05 * row[f"{kind}, best peer"]
        ]
        yield f"**{word}**: a peer is nearer by more than 5 % on {'; '.join(lost)}."


def losses_of_calibration(flow):
    """Yield what a calibration does not do, or costs."""
    far = one(flow, dimensions="2, far modes", evaluations=5)["calibrated"]
    held = one(
        rows_of("samplers", "what a calibration costs"), dimensions="2, far modes", evaluations=5
    )["held-out error"]
    yield (
        f"**Far modes**: at 5 evaluations a calibrated sampler is {behind(far / held)} times as "
        "wrong as on its held-out states: the few starts that end in another mode decide, and a "
        "pilot batch has fewer."
    )
    pays = rows_of("samplers", "what a calibration costs")
    yield (
        "**A calibration** is paid back only after "
        f"{smallest(pays, 'paid back after samples'):.2g} to "
        f"{largest(pays, 'paid back after samples'):.2g} samples of one model."
    )


def losses_of_densities():
    """Yield what answers of the Fokker–Planck solver lack, or cost."""
    everything = one(rows_of("random_problems", "random problems: estimated"), stratum="all")
    costs = [
        row for row in rows_of("fokker_planck_costs", "cost of") if row["question"] != "driven"
    ]
    yield (
        "**Estimated errors** of densities are pessimistic, "
        f"{behind(everything['median of estimate/true'])} times the true one in the median and "
        f"{everything['95th percentile']:.3g} at the 95th percentile, and make an answer "
        f"{behind(smallest(costs, 'ratio'))} to {largest(costs, 'ratio'):.3g} times as expensive."
    )
    wrong = sum(row["wrong without a word"] for row in rows_of("pulses", "pulses"))
    if wrong:
        yield f"**Pulses**: {wrong} answers are wrong by more than 1 % without a warning."


def page():
    """Return the whole first page."""
    promised = rows_of("fokker_planck", "error 1e-7")
    ours, *theirs = promised
    peers = ";\n".join(f"{row['solver']}, {row['ms']:.3g} ms" for row in theirs)
    return "".join(
        [
            HEAD.format(machine=machine()),
            overview() + "\n",
            SAMPLERS.format(exact=exact_scores(), trained=trained_scores()),
            ENSEMBLES.format(table=ensembles()),
            DENSITIES.format(table=densities(), ours=number(ours["ms"]), peers=peers),
            LOSSES.format(
                losses="\n".join(
                    textwrap.fill(f"- {sentence}", 100, subsequent_indent="  ")
                    for sentence in losses()
                )
            ),
        ]
    )


def _percent(ratio):
    """How much a ratio is above 1; bold from 5 % on."""
    text = f"{100 * (ratio - 1):.2g} %"
    return f"**{text}**" if ratio > 1.05 else text
