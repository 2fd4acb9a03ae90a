"""Advice on data of a training that are not a tensor, followed."""

import dataclasses
from functools import partial

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
)

import sdegen as sg
from tests.cures.common import told
from tests.cures.fits import FIT, TARGETS, Square
from tests.cures.models import FEW, POINTS, in_a_folder, network

PLAIN = sg.FitConfig(steps=6, batch_size=8)
BEST = sg.FitConfig(steps=6, batch_size=8, keep="best", validate_every=5)


def constant(k):
    """A rate that stays."""
    return 1.0


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


def simulated():
    """A score of a process without a kernel."""
    return sg.ScoreModel(network(), sg.ItoProcess(lambda x: x - x**3, 1.0), times=(0.05, 1.0))


def taken(config=FIT, folder=None, resume=False, **options):
    """A fit of a line in memory with other steps, of which every loss is a number."""
    found = sg.fit(
        torch.nn.Linear(1, 1), POINTS, Square(), config, rng=0, labels=TARGETS, folder=folder,
        resume=resume, **options,
    )  # fmt: skip
    assert bool(found.losses.isfinite().all())
    return found


def lengthened(longer=PLAIN, first=None, elsewhere=False, **options):
    """A fit of four steps that is resumed for more."""

    def run(folder):
        short = dataclasses.replace(longer, steps=4)
        taken(short, folder / "a", **(options if first is None else first))
        taken(longer, folder / ("b" if elsewhere else "a"), resume=True, **options)

    in_a_folder(run)


class Remembers(torch.optim.SGD):
    """An optimizer that keeps a list."""

    def step(self, closure=None):
        super().step(closure)
        self.state[self.param_groups[0]["params"][0]]["history"] = [1]


FOLLOWED = {
    "callbacks that are no list": (
        r"derived from sdegen.training.Callback, but is \{\}; pass \[f\]",
        lambda: taken(callbacks=len),
        lambda: taken(callbacks=[lambda report: None]),
    ),
    "lines without a place": (
        "has no place to write to; pass its path, or folder=",
        lambda: taken(callbacks=[sg.training.JSONLines()]),
        lambda: in_a_folder(
            lambda folder: (
                taken(callbacks=[sg.training.JSONLines(folder / "m.jsonl")]),
                taken(callbacks=[sg.training.JSONLines()], folder=folder / "run"),
            )
        ),
    ),
    "a cosine that is made longer": (
        "a run that has schedule= can be made longer, this one not",
        lambda: lengthened(),
        lambda: lengthened(schedule=constant),
    ),
    "a longer run with the best weights of a shorter one": (
        "and may have kept those weights as the best; train anew",
        lambda: lengthened(BEST, schedule=constant, validation=POINTS, validation_labels=TARGETS),
        lambda: lengthened(
            BEST, schedule=constant, validation=POINTS, validation_labels=TARGETS, elsewhere=True
        ),
    ),
    "an optimizer of whole data": (
        "take an optimizer for batches, such as torch.optim.AdamW",
        lambda: taken(optimizer=torch.optim.LBFGS),
        lambda: taken(optimizer=torch.optim.AdamW),
    ),
    "an optimizer of other weights": (
        "the optimizer must hold the weights that are trained",
        lambda: taken(optimizer=lambda weights: torch.optim.SGD(weights[:1], lr=0.1)),
        lambda: taken(optimizer=lambda weights: torch.optim.SGD(weights, lr=0.1)),
    ),
    "a decay that is said to another optimizer": (
        r"say it to the optimizer, functools.partial\(torch.optim.SGD, weight_decay",
        lambda: taken(dataclasses.replace(PLAIN, weight_decay=0.1), optimizer=torch.optim.SGD),
        lambda: taken(PLAIN, optimizer=partial(torch.optim.SGD, weight_decay=0.1)),
    ),
    "a rate that is said twice": (
        "optimizer says its own lr, and config asks for",
        lambda: taken(
            dataclasses.replace(PLAIN, learning_rate=0.2),
            optimizer=partial(torch.optim.SGD, lr=0.1),
        ),
        lambda: (
            taken(PLAIN, optimizer=partial(torch.optim.SGD, lr=0.1)),
            taken(dataclasses.replace(PLAIN, learning_rate=0.1), optimizer=torch.optim.SGD),
        ),
    ),
    "a warm-up beside a schedule": (
        "too; say it in the schedule, such as lambda k: min",
        lambda: taken(FIT, schedule=constant),
        lambda: taken(PLAIN, schedule=lambda k: min(1, (k + 1) / 1)),
    ),
    "a schedule of a loss": (
        "ReduceLROnPlateau follows a loss",
        lambda: taken(PLAIN, schedule=torch.optim.lr_scheduler.ReduceLROnPlateau),
        lambda: taken(PLAIN, schedule=partial(torch.optim.lr_scheduler.StepLR, step_size=2)),
    ),
    "an optimizer that remembers what no file holds": (
        "which a checkpoint cannot hold; train without folder=",
        lambda: in_a_folder(lambda folder: taken(folder=folder, optimizer=Remembers)),
        lambda: (
            taken(optimizer=Remembers),
            in_a_folder(lambda folder: taken(folder=folder, optimizer=torch.optim.SGD)),
        ),
    ),
    "paths from data that are read row by row": (
        "draws from all rows itself, which must be in memory",
        lambda: sg.train(simulated(), TensorDataset(POINTS), FEW, rng=0),
        lambda: sg.train(simulated(), POINTS, FEW, rng=0),
    ),
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
