"""Advice on data of a training that are not a tensor, followed."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

import sdegen as sg
from tests.cures.common import told
from tests.cures.fits import FIT, TARGETS, Square
from tests.cures.models import POINTS, in_a_folder


class Pairs(Dataset):
    """The points with their targets; of a function of each."""

    def __init__(self, change=lambda x: x):
        self.change = change

    def __len__(self):
        return len(POINTS)

    def __getitem__(self, i):
        return self.change(POINTS[i]), TARGETS[i]


class Unsized(Dataset):
    """One without a length."""

    def __getitem__(self, i):
        return POINTS[i], TARGETS[i]


class Flow(IterableDataset):
    """The pairs, one after the other, of a function of each."""

    def __init__(self, change=lambda x: x):
        self.change = change

    def __iter__(self):
        return ((self.change(x), y) for x, y in zip(POINTS, TARGETS, strict=True))


def fitted(data, **options):
    """A fit of a line in four steps, of which every loss is a number."""
    line = torch.nn.Linear(1, 1)
    found = sg.fit(line, data, Square(), FIT, rng=0, **options)
    assert bool(found.losses.isfinite().all())
    return found


def own():
    """Noise of a generator of its own."""
    generator = np.random.default_rng(0)
    return lambda x: x + float(generator.standard_normal())


def common(x):
    """Noise of torch's global generator."""
    return x + torch.randn(())


def resumed(make):
    """A fit that is resumed from its second step, by data that are made again."""

    def run(folder):
        config = sg.FitConfig(steps=4, batch_size=8, warmup=1, checkpoint_every=2)
        for _ in range(2):
            sg.fit(
                torch.nn.Linear(1, 1), make(), Square(), config, rng=0, folder=folder, resume=True
            )
            max(folder.glob("*.safetensors")).unlink()

    in_a_folder(run)


def once_other():
    """What gives other noise after its first batch, each time that it is made."""
    made = []

    def make():
        made.append(len(made))
        calls = []

        def change(x):
            calls.append(1)
            return x + (made[-1] if len(calls) > 16 else 0)

        return Flow(change)

    return make


FOLLOWED = {
    "labels beside pairs": (
        r"give them as pairs \(x, label\) from it",
        lambda: fitted(Pairs(), labels=TARGETS),
        lambda: fitted(Pairs()),
    ),
    "a row that was read and is lost": (
        "has rows that are not finite, among them {}; remove",
        lambda: fitted(Pairs(lambda x: x / (x > 0))),
        lambda: fitted(Pairs()),
    ),
    "a data set without a length": (
        r"is a \{\} without __len__; give it one, or derive it from",
        lambda: fitted(Unsized()),
        lambda: (fitted(Pairs()), fitted(Flow())),
    ),
    "a data set that draws from its own": (
        "a run that was killed ends in other bits; draw from torch's",
        lambda: told(lambda: fitted(Pairs(own()))),
        lambda: fitted(Pairs(common)),
    ),
    "a loader that shares already": (
        "has a DistributedSampler, and ranks take their share",
        lambda: fitted(DataLoader(Pairs(), 4, sampler=DistributedSampler(Pairs(), 2, 0))),
        lambda: (fitted(DataLoader(Pairs(), 4)), fitted(Pairs())),
    ),
    "a loader that does not repeat itself": (
        "give a map-style Dataset, whose rows are asked for by number",
        lambda: resumed(once_other()),
        lambda: resumed(Pairs),
    ),
}
