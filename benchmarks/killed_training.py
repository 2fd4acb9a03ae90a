"""Trainings that are killed by kill −9 at random moments, and end in the same bits.

python -m benchmarks.killed_training

Each training is killed in a process of its own, resumed, and compared with one that nobody
stopped: all weights, all losses, and the lines of its metrics but for their speed. The moment is
drawn uniformly over the time that the training takes, so that it falls before the first
checkpoint, into a step, or into the writing of a file. Data come in turns from memory, from a
memory-mapped file, from a Dataset that draws, and from a shuffled DataLoader.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import sdegen as sg
from benchmarks.record import write
from sdegen.storage import load_tensors

KINDS = ("tensor", "memory-mapped", "Dataset", "DataLoader")
ROWS = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))


class Noisy(Dataset):
    """Rows with noise from torch's global generator."""

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, i):
        return ROWS[i] + 0.05 * torch.randn(2)


def data(kind, folder):
    """The rows as a kind of data."""
    if kind == "memory-mapped":
        return folder / "rows.npy"
    loader = DataLoader(Noisy(), 24, shuffle=True)
    return {"tensor": ROWS, "Dataset": Noisy(), "DataLoader": loader}[kind]


def train(rows, config, **options):
    """A score of its own, trained."""
    network = sg.MLP(2, width=8, depth=1, rng=0)
    model = sg.ScoreModel(network, sg.VP(sg.LinearBeta(0.1, 20.0)))
    sg.train(model, rows, config, rng=1, **options)
    return model


def start(kind, folder, run, steps):
    """Trains in a child process; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        config = sg.TrainConfig(steps=steps, batch_size=16, checkpoint_every=3, warmup=5)
        lines = [sg.training.JSONLines(every=2)]
        model = train(
            data(kind, folder), config, folder=folder / run, resume=True, callbacks=lines
        )
        model.save(folder / f"{run}.safetensors")
        status = 0
    finally:
        os._exit(status)


def ended(folder, run, steps):
    """What a training ended with."""
    weights, _ = load_tensors(folder / f"{run}.safetensors")
    losses, _ = load_tensors(folder / run / f"step-{steps:08d}.safetensors")
    lines = map(json.loads, (folder / run / "metrics.jsonl").read_text().splitlines())
    told = [{k: v for k, v in line.items() if k != "rows_per_second"} for line in lines]
    return weights | losses, told


def alike(one, other):
    """Whether two ends are the same, bit for bit."""
    same = one[0].keys() == other[0].keys() and one[1] == other[1]
    return same and all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())


def main(quick=False, trials=20, steps=40):
    trials, steps = (3, 12) if quick else (trials, steps)
    torch.set_num_threads(1)
    moments, rows = random.Random(0), []
    # what a first training imports is there before processes are forked
    train(ROWS, sg.TrainConfig(steps=1, batch_size=16))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", ROWS.numpy())
        seconds = {}
        for kind in KINDS[:trials]:
            begin = time.perf_counter()
            assert os.waitpid(start(kind, folder, f"whole {kind}", steps), 0)[1] == 0
            seconds[kind] = time.perf_counter() - begin
        trial = ended_first = 0
        while trial < trials:  # one that had ended before it was killed shows nothing
            kind, run = KINDS[trial % len(KINDS)], f"run {trial} {ended_first}"
            moment = moments.random()
            child = start(kind, folder, run, steps)
            time.sleep(moment * seconds[kind])
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] != signal.SIGKILL:
                ended_first += 1
                continue
            trial += 1
            kept = sorted(path.name[5:13] for path in (folder / run).glob("step-*"))
            assert os.waitpid(start(kind, folder, run, steps), 0)[1] == 0
            rows.append({
                "data": kind, "moment": round(moment, 3),
                "newest checkpoint": int(kept[-1]) if kept else 0, "of steps": steps,
                "same bits": alike(
                    ended(folder, run, steps), ended(folder, f"whole {kind}", steps)
                ),
            })  # fmt: skip
            print(rows[-1], flush=True)
    total = [{
        "trainings killed": trials, "ended before it": ended_first,
        "same bits": sum(row["same bits"] for row in rows),
    }]  # fmt: skip
    print(total[0])
    write("killed_training", {"all": total, "each": rows}, quick)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(parser.parse_args().quick)
