"""How near is a learned density to the true one, on points that it has not seen?

python -m benchmarks.held_out

A model learns the score of a mixture in the plane from samples, for a number of CPU seconds, and
its log-likelihood of other samples, by the probability flow, is compared with that of the mixture
itself on the same points. The mean difference is KL(mixture ‖ model) but for a small scatter; it
holds everything: the network, the training, t_min, the mismatch at t_max, the solver. With the
exact score it is what the last three make.
"""

import argparse
import dataclasses
import itertools
import math
import statistics
import time

import torch

import sdegen as sg
from benchmarks.record import write

SECONDS, HELD_OUT = 220.0, 4_000  # of CPU time for a training; points
SDE = sg.VP(sg.LinearBeta(0.1, 20.0))


def eight_gaussians():
    """Eight narrow Gaussians on a circle."""
    angles = torch.arange(8) * (math.pi / 4)
    means = 1.3 * torch.stack([angles.cos(), angles.sin()], 1)
    return sg.GaussianMixture(torch.ones(8) / 8, means, stds=0.12)


def moons():
    """Two half circles that interlock, as 24 Gaussians."""
    angles = torch.linspace(0, math.pi, 12)
    upper = torch.stack([angles.cos() - 0.5, angles.sin() - 0.25], 1)
    means = 1.2 * torch.cat([upper, -upper])
    return sg.GaussianMixture(torch.ones(24) / 24, means, stds=0.12)


MIXTURES = {"eight Gaussians": eight_gaussians, "moons": moons}


def network():
    return sg.MLP(2, width=128, rng=0)


def seconds_a_step(data, config):
    """CPU time of a step: the median of a hundred, as a schedule sees them begin."""
    times = []

    def schedule(k):
        times.append(time.process_time())
        return 1.0

    model = sg.ScoreModel(network(), SDE)
    plain = dataclasses.replace(config(100), warmup=sg.TrainConfig().warmup)
    sg.train(model, data, plain, rng=0, schedule=schedule)
    return statistics.median(b - a for a, b in itertools.pairwise(times))


def divergence(mixture, score, points):
    """Mean and standard error of log p − log q over the points."""
    truth = mixture.log_prob(points)
    gap = truth - sg.log_likelihood(SDE, score, points).log_prob
    return float(gap.mean()), float(gap.std()) / len(points) ** 0.5


def held_out(name, seconds, count):
    """One row: what is lost after so many CPU seconds of training."""
    mixture = MIXTURES[name]()
    data = mixture.sample(100_000, rng=1)
    points = mixture.sample(count, rng=2, dtype=torch.float64)

    def config(steps):
        warmup = min(100, steps // 2)
        return sg.TrainConfig(steps=steps, batch_size=512, learning_rate=3e-3, warmup=warmup)

    steps = max(20, int(seconds / seconds_a_step(data, config)))
    model = sg.ScoreModel(network(), SDE)
    start = time.process_time()
    sg.train(model, data, config(steps), rng=0)
    spent = time.process_time() - start
    lost, error = divergence(mixture, model.score, points)
    exact, _ = divergence(mixture, mixture.noised(SDE).score, points)
    return {
        "mixture": name,
        "CPU seconds of training": round(spent, 1),
        "steps": steps,
        "entropy, nats": round(-float(mixture.log_prob(points).mean()), 4),
        "held-out NLL less entropy, nats": round(lost, 5),
        "its standard error": round(error, 5),
        "with the exact score": round(exact, 6),
        "points": count,
        "threads": torch.get_num_threads(),
    }


def main(quick=False):
    torch.set_num_threads(1)
    seconds, count = (0.5, 200) if quick else (SECONDS, HELD_OUT)
    names = ["eight Gaussians"] if quick else list(MIXTURES)
    rows = []
    for name in names:
        rows.append(held_out(name, seconds, count))
        print(rows[-1], flush=True)
        write("held_out", {"mixtures in the plane": rows}, quick)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(parser.parse_args().quick)
