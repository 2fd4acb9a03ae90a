"""The double well, D = ½: its score from exactly 20,000 paths, and data from its reversal.

`of_paths`: one block of 20,000 paths, each read at 128 or 512 times, serves for all steps. The
error is the root mean square over p_t, in absolute units, beside the Fokker–Planck equation; at
the worst of t = 0.2, 0.5, 1, 2, and its mean over them. It is learned from 0.1 to 2.5: at the last
of the times that are read less is known. p_0 is that of "double well" in `score_problems.py`.

`of_generation`: the reversed SDE from T = 2, with a score learned from 0.005 on, begun from states
of the learned model's own simulation (`draw_prior`), and from the law at rest, which at T = 2 is
not yet reached. Of both W1 to the exact p_T is known, "start off by"; W1 of what is made to exact
data is asked to be at most 0.03 above it.
"""

import time
import warnings
from dataclasses import dataclass

import torch

import sdegen as sg
from benchmarks.score_problems import F64, PROBLEMS

PATHS, LAST = 20_000, 2.5
# few steps of many rows: the noise of the targets is what is to be averaged
STEPS, BATCH = 400, 8192


@dataclass(frozen=True)
class Setting:
    """How a target is learned.

    Args:
        asked: Root mean square error.
        step: Of a path; None is what the library takes, 0.003.
        reads: Readings of a path; those of one step are independent of one another.
        rate: Learning rate; where targets are mostly noise, steps of Adam are short.
        window: Of a target; None is what a pilot finds.
    """

    asked: float
    step: float | None = None
    reads: int = 128
    rate: float = 2e-3
    window: float | None = None


KINDS = {
    "malliavin": Setting(0.045, rate=8e-3, window=0.3),
    "linearised": Setting(0.06),
    "one-step": Setting(0.10, step=0.01, reads=512, rate=6e-3),
}
SEEDS, LEARNED, MADE, SLACK = 8, 800, 8192, 0.03
T, T_MIN = 2.0, 0.005
WELL = PROBLEMS["double well"]


def trained(loss, seed, times, rows=PATHS, **config):
    """Return a model of the well, and the CPU seconds of its training."""
    began = time.process_time()
    data = WELL.start.sample(rows, rng=100 + seed, dtype=torch.float32)
    model = sg.ScoreModel(sg.MLP(1, *WELL.network, rng=seed), WELL.sde, times=times)
    config = sg.TrainConfig(warmup=min(100, config["steps"] // 10), **config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sg.AccuracyWarning)  # of scales: these are as they are
        sg.train(model, data, config, loss=loss, rng=seed)
    return model, time.process_time() - began


def of_paths(quick=False, seeds=2, kinds=tuple(KINDS)):
    """Return one line for each target and seed."""
    steps, paths, lines = (4, 64, []) if quick else (STEPS, PATHS, [])
    for kind in kinds[: 1 if quick else None]:
        how = KINDS[kind]
        for seed in range(1 if quick else seeds):
            loss = sg.TransitionMatching(
                kind,
                window=how.window,
                step=how.step,
                paths=paths,
                reads=how.reads,
                reuse=2.0 * steps * BATCH / (paths * how.reads) + 1,  # the block never ends
            )
            config = {"steps": steps, "batch_size": BATCH, "learning_rate": how.rate}
            model, took = trained(loss, seed, (0.1, LAST), **config)
            errors = []
            for truth in WELL.truths():
                size = float((truth.weights @ truth.score.square().sum(1)).sqrt())
                errors.append(truth.judge(model.score) * size)
            line = {
                "target": kind,
                "seed": seed,
                "worst RMSE": max(errors),
                "mean RMSE": sum(errors) / len(errors),
                "asked": how.asked,
                "readings": paths * how.reads,
                "rows": steps * BATCH,
                "CPU seconds": took,
            }
            print(line, flush=True)
            lines.append(line)
    return lines


def densities():
    """Return the exact p_0 and p_T of the well, and its law at rest."""
    grid = sg.Grid(-5.0, 5.0, 1600)
    solver = sg.FokkerPlanck(WELL.sde, grid)
    p0 = torch.exp(WELL.start.log_prob(grid.nodes[:, None]))
    start = sg.Density(grid.nodes, p0).normalized()
    path = solver.solve(start, torch.tensor([0.0, T], dtype=F64))
    return start, sg.Density(grid.nodes, path.p[-1]), solver.stationary()


def of_generation(quick=False):
    """Return one line for each seed and start."""
    data, end, rest = densities()
    steps, made, lines = (20, 500, []) if quick else (LEARNED, MADE, [])
    for seed in range(1 if quick else SEEDS):
        model, took = trained(None, seed, (T_MIN, T), 100_000, steps=steps, batch_size=1024)
        starts = {
            "simulated ends": model.draw_prior(made, rng=seed),
            "law at rest": sg.DensityPrior(rest).sample(made, rng=seed).float(),
        }
        for name, start in starts.items():
            back = sg.ReverseSDE(WELL.sde, model.score)
            times = torch.linspace(T**0.5, T_MIN**0.5, 21 if quick else 121).square()
            found = sg.simulate(
                back, start, times, solver=sg.EulerMaruyama(), rng=seed, keep_path=False, threads=1
            ).final
            finite = found.isfinite().all(1)
            off = sg.metrics.wasserstein_1d(start, end)
            line = {
                "start": name,
                "seed": seed,
                "start off by": off,
                "W1 to data": sg.metrics.wasserstein_1d(found[finite], data),
                "asked": off + SLACK,
                "not finite": int((~finite).sum()),
                "steps": steps,
                "CPU seconds": took,
            }
            print(line, flush=True)
            lines.append(line)
    return lines
