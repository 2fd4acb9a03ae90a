"""What `train` costs beside a bare torch loop with the same network.

python -m benchmarks.training_overhead

Both take the same steps on the same data: rows drawn with replacement, a time, ε, the network at
x_t = α x0 + σ ε, the square of ε̂ − ε, AdamW. The **bare** loop does that and no more: it knows
one schedule, and no seed of a step. The **equal** loop does what else `train` does and a user
would write: gradients cut, a warm-up and a cosine, the moving average of the weights, the loss
read at each step. What remains to `train` are random numbers of each step's own, checks of what
is not finite, and the record.

The three take turns, some steps each, and the CPU time of the process is counted: a machine that
does other work slows them alike. Ratios are of the medians of the turns, less the time of one step
with all that comes before the first, which a training of thousands of steps does not feel.
"""

import argparse
import copy
import math
import statistics
import time

import torch

import sdegen as sg
from benchmarks.record import write

BATCH, RATE, DECAY = 512, 3e-3, 0.999


def bare(model, data, steps, *, equal):
    """A loop as one writes it for one model: what it took, in seconds of CPU time."""
    network, total = copy.deepcopy(model.network).train(), 10_000
    weights = list(network.parameters())
    averaged = [p.detach().clone() for p in weights]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(0)
    losses = []
    start = time.process_time()
    for k in range(steps):
        x0 = data[torch.randint(len(data), (BATCH,), generator=generator)]
        t = 1e-3 + (1 - 1e-3) * torch.rand(BATCH, generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        alpha = torch.exp(-0.25 * 19.9 * t**2 - 0.05 * t)[:, None]
        sigma = (1 - alpha**2).sqrt()
        loss = (network(alpha * x0 + sigma * eps, t) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if equal:
            losses.append(float(loss.detach()))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            factor = min(1, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * k / total))
            optimizer.param_groups[0]["lr"] = RATE * factor
        optimizer.step()
        if equal:
            with torch.no_grad():
                torch._foreach_lerp_(averaged, weights, 1 - min(DECAY, (1 + k) / (10 + k)))
    return time.process_time() - start


def ours(model, data, steps):
    """The same by `train`: seconds of CPU time."""
    model = copy.deepcopy(model)
    config = sg.TrainConfig(steps=steps, batch_size=BATCH, learning_rate=RATE, weighting="simple")
    start = time.process_time()
    sg.train(model, data, config, rng=0)
    return time.process_time() - start


def paired(name, network, data, *, turns, steps):
    """One row: CPU time of a step of the three loops, that take turns."""
    model = sg.ScoreModel(network, sg.VP(sg.LinearBeta(0.1, 20.0)))
    loops = {
        "bare loop": lambda n: bare(model, data, n, equal=False),
        "equal loop": lambda n: bare(model, data, n, equal=True),
        "train": lambda n: ours(model, data, n),
    }
    for loop in loops.values():
        loop(3)
    taken = {key: [] for key in loops}
    for _ in range(turns):
        for key, loop in loops.items():
            before = loop(1)
            taken[key].append((loop(steps + 1) - before) / steps)
    medians = {key: statistics.median(values) for key, values in taken.items()}
    return {
        "network": name, "batch": BATCH, "steps of a turn": steps, "turns": turns,
        **{f"{key}, microseconds a step": round(1e6 * value, 1) for key, value in medians.items()},
        "train over equal loop": round(medians["train"] / medians["equal loop"], 4),
        "train over bare loop": round(medians["train"] / medians["bare loop"], 4),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def main(quick=False):
    torch.set_num_threads(1)
    plane = sg.data.two_moons(10_000, rng=0)
    images = torch.randn(2_000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    size = {"turns": 2, "steps": 2} if quick else {"turns": 9, "steps": 40}
    rows = [
        paired("MLP of width 128, 2 coordinates", sg.MLP(2, width=128, rng=0), plane, **size),
        paired("MLP of width 256, 64 coordinates", sg.MLP(64, width=256, rng=0),
               images.flatten(1), **size),
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
