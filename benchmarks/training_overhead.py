"""What `train` costs beside a bare torch loop with the same network.

python -m benchmarks.training_overhead

Both take the same steps on the same data: rows drawn with replacement, a time, ε, the network at
x_t = α x0 + σ ε, the square of ε̂ − ε, AdamW. The **bare** loop does that and no more: it knows
one schedule, and no seed of a step. The **equal** loop does what else `train` does and a user
would write: gradients cut, a warm-up and a cosine, the moving average of the weights, the loss
read at each step. What remains to `train` are random numbers of each step's own, checks of what
is not finite, and the record.

The three take turns, some steps each, and the CPU time of the process is read at the beginning of
every step: in `train` by its schedule, which is asked then. So what comes before the first step is
in no figure, and a machine that does other work slows all three alike. A ratio is the median over
the turns of that of two neighbours, each the median of its steps.
"""

import argparse
import copy
import itertools
import math
import statistics
import time

import torch

import sdegen as sg
from benchmarks.record import write

BATCH, RATE, DECAY, TOTAL = 512, 3e-3, 0.999, 10_000


def rate(k):
    """The factor of the learning rate at step k, and when it was asked for."""
    return min(1, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * k / TOTAL))


class Clock:
    """A schedule that notes the CPU time at which it is asked."""

    def __init__(self):
        self.times = []

    def __call__(self, k):
        self.times.append(time.process_time())
        return rate(k)

    def step(self):
        """The median length of a step in seconds, less the first."""
        return statistics.median(b - a for a, b in itertools.pairwise(self.times[1:]))


def bare(model, data, steps, batch, *, equal):
    """A loop as one writes it for one model: a step of it, in seconds of CPU time."""
    network, clock = copy.deepcopy(model.network).train(), Clock()
    weights = list(network.parameters())
    averaged = [p.detach().clone() for p in weights]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for k in range(steps):
        factor = clock(k)
        x0 = data[torch.randint(len(data), (batch,), generator=generator)]
        t = 1e-3 + (1 - 1e-3) * torch.rand(batch, generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        alpha = torch.exp(-0.25 * 19.9 * t**2 - 0.05 * t).reshape(-1, *[1] * (x0.ndim - 1))
        sigma = (1 - alpha**2).sqrt()
        loss = (network(alpha * x0 + sigma * eps, t) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if equal:
            losses.append(float(loss.detach()))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.param_groups[0]["lr"] = RATE * factor
        optimizer.step()
        if equal:
            with torch.no_grad():
                torch._foreach_lerp_(averaged, weights, 1 - min(DECAY, (1 + k) / (10 + k)))
    return clock.step()


def ours(model, data, steps, batch):
    """The same by `train`."""
    model, clock = copy.deepcopy(model), Clock()
    config = sg.TrainConfig(steps=steps, batch_size=batch, learning_rate=RATE, weighting="simple")
    sg.train(model, data, config, rng=0, schedule=clock)
    return clock.step()


def paired(name, network, data, *, turns, steps, batch=BATCH):
    """One row: CPU time of a step of the three loops, that take turns."""
    model = sg.ScoreModel(network, sg.VP(sg.LinearBeta(0.1, 20.0)))
    loops = {
        "bare loop": lambda n: bare(model, data, n, batch, equal=False),
        "equal loop": lambda n: bare(model, data, n, batch, equal=True),
        "train": lambda n: ours(model, data, n, batch),
    }
    for loop in loops.values():
        loop(4)
    taken = {key: [] for key in loops}
    for _ in range(turns):
        for key, loop in loops.items():
            taken[key].append(loop(steps + 2))
    medians = {key: statistics.median(values) for key, values in taken.items()}

    def over(other):
        pairs = zip(taken["train"], taken[other], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 4)

    return {
        "network": name, "batch": batch, "steps of a turn": steps, "turns": turns,
        **{f"{key}, microseconds a step": round(1e6 * value, 1) for key, value in medians.items()},
        "train over equal loop": over("equal loop"),
        "train over bare loop": over("bare loop"),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def main(quick=False):
    torch.set_num_threads(1)
    plane = sg.data.two_moons(10_000, rng=0)
    vectors = torch.randn(2_000, 64, generator=torch.Generator().manual_seed(0))
    images = vectors.reshape(-1, 1, 8, 8).repeat(1, 1, 2, 2)
    size = {"turns": 2, "steps": 2} if quick else {"turns": 9, "steps": 15}
    rows = [
        paired("MLP of width 128, 2 coordinates", sg.MLP(2, width=128, rng=0), plane, **size),
        paired("MLP of width 256, 64 coordinates", sg.MLP(64, width=256, rng=0), vectors, **size),
        paired("MLP of width 512 and 6 layers, 64 coordinates",
               sg.MLP(64, width=512, depth=6, rng=0), vectors, **size),
        paired("UNet of width 16, images of 16 by 16", sg.UNet(1, width=16, rng=0), images,
               batch=64, **size),
    ]  # fmt: skip
    for row in rows:
        print(row)
    write("training_overhead", {"train beside a loop by hand": rows}, quick)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(parser.parse_args().quick)
