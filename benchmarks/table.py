"""Write the pages of the benchmarks from the JSON of benchmarks/results.

    python -m benchmarks.table

README.md is the summary (`summary.py`); archive/NAME.md has every table of one benchmark.
"""

from benchmarks import summary
from benchmarks.lookup import lines, load, names
from benchmarks.record import RESULTS

ARCHIVE = RESULTS.parent / "archive"

# what the tables of a file say together, in words; no numbers that a run would change
NOTES = {
    "ensemble": """**What is compared.** The limit is normals alone: as many threads as cores, in
blocks of 2¹⁶, float32 by torch, float64 by NumPy's ziggurat. A compiled run makes its normals of
integers, faster than either, and may be above it. diffrax is run with one path for all
trajectories, and with a path for each by vmap, as its documentation has it; torchsde with times in
torch's default dtype, as its documentation has it, and with times in float64, which spare it the
refinement of its tree. At 10⁵ and below a plain torch loop has torch's own threads.

**Where we are behind.** 100 trajectories, not compiled: the five operations of torch in a step
take longer than a whole step of jax or numba, and one path of diffrax for all 100 is more than
three times as fast. `compile=True` is for that. At 10⁴ a loop in place is as fast: there is one
block, and one core draws its normals. Of the best peer at 10⁶ a compiled run is ahead by the
factor of two that was the aim, steps one by one are not.

Tests show that states and observables have one sha256 over threads, ranks, orders of the blocks
and fresh processes, and that runs killed at random moments can be resumed to the same bits:
`tests/engine/test_ranks.py`, `test_ensemble.py` and `test_store.py`.
""",
    "imports": """**What is compared.** Fresh processes of Python, whole: `import sdegen` and
`sdegen --help` import nothing heavy and are counted above Python alone; the first `sg.simulate`,
of ten trajectories over one step, above a process that imports torch alone, which it needs.
Bytecode is written and files are in the disk's cache. CPU seconds are those to compare by: seconds
on the wall are longer where the machine has other work.
""",
    "explore": """**What is measured.** `sdegen explore` with its double well in a headless
Chromium on the same machine: seconds from the start of the process to the first painted picture,
and frames that the browser has painted. The page asks for 20 frames a second and no more.
""",
    "large_ensembles": """100 steps, and a mean and a histogram at every tenth: the rates are below
those of `ensemble.md`, which sees the end of 1000 steps alone.
""",
    "averages": """**What is counted.** Evaluations of the drift, those of pilots and of levels
left out included. Euler alone is counted by formula: at n steps it is off by b(n), its
trajectories have the variance v, and n is that for which z² v n/(tolerance − b(n))² is least; it
gets b, v and n for nothing. Exact means: e; of the double well by a spectral solution of the
backward equation; of the Lévy area cosh(1)^{−1/2}. Variances are those of f(fine) − f(coarse) at
64 to 512 steps.
""",
    "error_bars": """**What is counted.** Series x_{k+1} = φ x_k + √(1 − φ²) z, φ = e^{−1/50}, from
fixed seeds; an interval is inside if it holds the exact mean 0, variance 1 or τ_int = 50.00. The
exact standard error of the mean is that of so many states, of the variance Bartlett's. Blocks are
refused where none is long enough.
""",
    "step_bias": """**What is counted.** Intervals of 95 % that hold the exact bias, from fixed
seeds, each with a path and starts of its own, at the default size: chains at dt, dt/2 and dt/4.
"Told from 0" counts those that say that there is a bias, and its sign. A part of the half width is
for what two terms in dt leave of the bias: that is why more than 95 hold. CPU seconds are those of
`step_bias` alone. The bias of ⟨x⟩ in the tilted well is one of the populations of the wells, in
which chains at two steps differ for as long as it takes to cross the barrier: at this size it is
not always told from 0, and `steps=8000` makes the interval a third as wide. At dt = 0.2 a chain of
the double well leaves all bounds now and then, and such a run is refused.
""",
    "zoo": """**What is counted.** Faults that shipped in public projects, planted anew by NumPy
alone in states of some 300,000 numbers; project and issue are in the table. Each is judged against
what its author believed, at a false alarm of 1e-3. "named" is whether the first name of the
diagnosis is that of the class, declared before. The table of causes was written without sight of
the zoo, and named two thirds of the classes then, in two and three dimensions; it was extended by
kinds of mistakes after that. Beside it is what the usual checks say of the same states, at the
same rate: mean and variance, Kolmogorov and Smirnov of each coordinate, a kernel Stein test. The
rows of "shuffled_coordinates" are of a later run: the drift of single steps had been asked of 32
trajectories or more alone.
""",
    "zoo_clean": """**What is counted.** The same programs without their faults, 100,000 numbers
each, every run from a seed of its own: alarms at a rate of 1e-3 for all questions together, and
whether the p-values of each question are uniform.
""",
    "verdicts": """**What is counted.** Faults of one trajectory of Ornstein and Uhlenbeck's chain,
dt = 0.01, from one seed; what is possible is the error that a test of the right factor alone, of a
false alarm of 1e-3, sees nine times in ten. Seconds are of a whole certificate without its
diagnosis where nothing fails. Speed: the sums that decide on drift and noise, on one thread, the
best of five in turn with reading the same blocks and evaluating the drift x − x³.
""",
    "identities": """**What is counted.** x_{k+1} = φ x_k + √(1 − φ²) z, φ = e^{−1/1000}, 10⁶
states of one trajectory from fixed seeds: the process itself, without a step, so that every row is
exact and is rejected in one run of twenty if its error is right. ⟨x²⟩ has a thousand independent
values in a run. CPU time is that of making a run and of all its rows.
""",
    "particles": """**What is counted.** CPU time of one thread and Euler–Maruyama step, forces and
noise. The loop takes all distances of some particles to all at once, as fits the memory. No peer
that makes neighbour lists is among the packages that are compared. Energy and pressure of the last
states are computed again by the loop.
""",
    "kinetic": """**What is counted.** λ₁ of U = x⁴/4 − x²/2, T = 1/16, m = 1, with rtol=1e-4. The
oracle has Hermite functions in both coordinates, of which half as many change its rate by less
than 1e-5. 20,000 trajectories of BAOAB start at rest, dt = 0.1 or 0.2/γ where that is less; their
rate is −log C(t₂)/C(t₁) over t₂ − t₁, t₁ = 0.2/λ₁, t₂ = 1.2/λ₁, with C the correlation of x, its
error that of 50 groups. They are left out where 1/λ₁ is above 5000. Seconds are of a machine with
other work.
""",
    "fokker_planck": """**What is counted.** CPU time of one thread. "All anew": one call by a user
who has made everything for it, an equation, its operator, a density. "Again": the same call on the
same objects, for the same times; ours then knows the operator and the factors of its step, and
what it takes on "new times", with the operator alone known, is in the first table. py-pde's
`eq.solve` writes numba code for the equation in every call, also in the second on the same
objects; scipy's solver and the numpy backend keep what they compiled. "First call" is the first
in this process on that grid, and the very first of all also starts numba. "Stepping alone" is
py-pde's own profile of a call, without compilation: what a long run of many steps comes to. There
ours is ahead by less than in whole calls, and explicit Euler steps tuned by us are the fastest;
their error is that of a scheme of second order. What a peer would need for error 1e-7 is
extrapolated from its stepping alone.
""",
    "fokker_planck_costs": """**What is compared.** CPU time of one thread, all made anew: the
SDE on its grid, and one answer with its error, over the same without errors, in the version before
they were estimated. "over f(x)" is what a t that changes nothing costs. Driven problems are
compared at the same error of the density.
""",
    "pulses": """**What is counted.** Drifts and noise that change in a window of a thousandth to a
fifth of the run, between the two times that are asked for: pulses, switches, bursts and bursts of
noise, from fixed seeds. Right means within 1 % of the exact moments (survival: of the same problem
in three pieces that know no time). A smooth drive is a sum of three sines; each warning there is a
false one.
""",
    "random_problems": """**What is counted.** 510 problems from fixed seeds: 340 on a line or a
ring, 170 in the plane, each asked at rest or in time, for p, mean and variance (covariance). An
estimate is covered if it is at least a third of the true error; errors below 1e-9 are rounding,
covered, and left out of the ratios. "Above 1 % without a word" counts true errors above 1e-2
without an `AccuracyWarning`. Every problem has an answer, so that each refusal is a false one.
""",
    "scores": """**What is compared.** One network, one optimizer and about as many CPU seconds of
one thread for each route, with all that it simulates; what was spent is in its column. Errors are
relative and weighted by p_t. Cells that are not in the table of routes were not measured: the
script takes any budget, problem and route. Truths are of the Fokker–Planck equation, or mixtures
of Gaussians of linear processes, which are exact; "error of the truth" is what half of the cells
tell. Of 20,000 paths errors are root mean squares over p_t, in absolute units, at the worst of the
four times and in the mean over them; p_0 is that of the double well above, one-step denoising has
Euler steps of 0.01, the others 0.003; scales of the network and windows come of pilots of their
own. Generation begins from simulated states (`draw_prior`), and from the law at rest, which is not
reached at T = 2; "start off by" is W1 to p_T, and 0.03 above it is asked of W1 to the data.
Entropy production is of states at rest, 1,000 steps of transition matching. The machine had other
work, so that a second holds fewer steps than on an idle one, for all routes alike.

**Where we are behind.** What is asked of the best routes is met, the 1 % that is aimed at by none.
Of 20,000 paths what is asked is met in the mean over the four times by one-step denoising, and by
one of two seeds of local denoising and of Malliavin weights; not at the worst of them, t = 0.2.
Budgets are of 10 s and of 40 to 240 s, where
60 s and 360 s are allowed, and not every problem has every route. In 10 s transition matching is
behind implicit and sliced matching on Maier–Stein: its pilot and paths in the plane leave it 164
steps, and Malliavin weights 16.
""",
    "one_data_set_all_models": """**What is compared.** Models of about one size, each trained for
some seconds of one thread, which are in its column. log p is of points that no model has seen, in
nats and in the units of the data; "exact" is of the density itself, by quadrature for the energy
and by a solve with tolerances for flows of a differential equation, "bound" is from below, by 64
importance weights for a VAE. Distances are of 2,000 samples to 2,000 unseen points (899 for
digits), beside those of training data, which are the floor. Evaluations are calls of the network,
of a normalizing flow one pass through all its transforms. Where the median is shown, a few points
take the mean of log p far away from it: the flow of the diffusion carries them far out of its
prior; why was not found out, and the bound of the same network has no such points.

**The update with a part taken out.** The four are trained alike, by the energy distance of their
ends to data, through all 100 steps, for 200 steps at the better of two learning rates;
`benchmarks/update_parts.py` has their equations. Without X_t no gradient arrives at the start, so
that the last steps alone are trained; without drift the chains stay a cloud; without noise the
ends are the nearest here, but all variety is that of the start: from one point they are one point.
""",
    "samplers": """**Which sampler for how many evaluations.** On a grid made for the flow and the
solver, `timesteps.auto(flow, steps, solver=solver)`: for a smooth score `AngularAdams(4)` at 5
evaluations, `AngularAdams(6)` from 10 on, with `data_std=` where the data are of another scale
than 1; `timesteps.made_for(flow, steps)` chooses by itself, of these and of solvers that do not
mind a rough score. Its numbers on six paths are in `time_grids.md`. The tables here are of
one path, VP of linear β, and of a rule for it, `timesteps.power`; on other ranges of noise another
rule is the best one. There, for a trained score, `ExponentialAdamsMoulton(2, "v")` was the best at
5, from 10 on `ExponentialAdamsMoulton(3, "v")`, `ExponentialAdams(2, "x0", "midpoint")` or
`AngularAdams(2)`, since high orders are unstable on some networks;
the network's own error is reached at about 20, and from there on evaluations buy nothing. With
noise on a trained score `ExponentialAdams(2, "x0", "midpoint")` at 5, from 10 on order 2 of "v",
`ExponentialAdams` or `ExponentialAdamsMoulton`. With noise on an exact score, η = 1,
`ExponentialAdamsMoulton(2, "v")` on `timesteps.power`, by the law of the chain on a line and by
samples in the plane.
Where very many samples will be drawn from one model in few evaluations, `calibrate`: the table of
costs says what goes in, what comes out, and after how many samples it is paid back. "eps" of
order 3 and 4 is for grids of equal steps in λ: the tables of errors show what it does on others.
Which of ours is DDIM, DPM-Solver, DEIS, UniPC, EDM's sampler or an ancestral one is in the
table of `sdegen/diffusion/samplers/multistep.py`.

**Where we are behind.** With five evaluations on our own grid rule, azula's `vABSampler` of order
3 comes as near as our best member, or nearer, in the plane and in 64 dimensions: where the column
"best peer on our rule" is below ours, a peer would gain by our grid. Of the noisy samplers in the
plane k-diffusion's SDE-DPM-Solver++ is ahead of ours at 2 evaluations; from 50 on all are at the
floor. On digits noisy samplers of peers are ahead of ours from 10 on, by up to three standard
errors of one run at 10 and by one or less after. On two moons,
from 20 evaluations on, azula's zEAB of order 4 and UniPC are nearer to the network's flow than our
best, by more than a factor of two at 50; on digits zEAB is from 50 on, by more. In the distance to
data, where one run's standard error is given below its table, nothing is left of it.
In "far modes" at 5 evaluations the calibrated method misses a fifth of the best peer's error by a
little, and is several times worse than on its held-out states: the few starts that end in another
mode decide, and a pilot batch has fewer.

What was done for the peers stands in `peers.py`: an exact score at any real t, tables in float64,
no clipping, the same end for all, orders and variants as listed there, each on the best of the
grids that the libraries offer. The distance is the root mean square over starts of the Euclidean
distance of whole states. All rows, not the best alone, are in `results/all/samplers.json`.
""",
    "solver_costs": """**What is compared.** The solvers of `which_solver()` that take any
equation, on three whose solution is a formula of the Brownian path; all walk the same paths, and
the formula too. A row's errors have the standard errors of its trajectories, of which there are
the more the fewer the steps. "more" is an order above the declared one, which is the least of all
equations: SRA's is 2 where the drift is linear, DRI1's stages are of order 3 for the drift, and
the others are of a few large steps, where errors still fall faster than in the end. TorchSDE
declares no cost, and is not here.
""",
    "time_grids": """**What is compared.** Six paths, of σ/α from 10⁻⁴ … 10⁻² to 10² … 10³,
times mixtures in 2, 16 and 64 dimensions, times data of standard deviation 1 and 1/4; exact
scores. Ours is the one member that is named for each number of evaluations, with data_std= of the
data, on the grid that `timesteps.made_for` makes of it and 48 pilot states; the best peer is the
best, in each cell by itself, of all samplers of three libraries on all their grids. "Calibrated"
begins there, with 144 states and a few rounds, for 5 evaluations in the plane with 384 and 20.
""",
}


def shown(value):
    """Return a number with three digits; nothing for what does not apply."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(rows):
    """Return rows as a table; columns in the order in which they first appear."""
    if not rows:
        return "None."
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return lines(columns, [[shown(row.get(key)) for key in columns] for row in rows])


def archived(name):
    """Return the page with all tables of one benchmark."""
    record = load(name)
    machine = ", ".join(f"{key} {value}" for key, value in record["machine"].items() if value)
    parts = [f"# {name}\n\n{record['date']}; {machine}.\n\n`python -m benchmarks.{name}`\n"]
    parts += [NOTES[name]] if name in NOTES else []
    pictures = sorted(RESULTS.glob(f"{name}*.png"))
    parts += [f"![{picture.stem}](../results/{picture.name})\n" for picture in pictures]
    parts += [f"## {title}\n\n{markdown(rows)}\n" for title, rows in record["tables"].items()]
    return "\n".join(parts)


def pages():
    """Return {path: text} of every page."""
    archive = {ARCHIVE / f"{name}.md": archived(name) for name in names()}
    return {RESULTS.parent / "README.md": summary.page(), **archive}


def main():
    ARCHIVE.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
