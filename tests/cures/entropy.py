"""Advice on entropy production, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, OU, column, simulate

X = torch.linspace(-1.0, 1.0, 8, dtype=F64).reshape(4, 2)
# an oscillator (x, v): its position has no noise
A = torch.tensor([[0.0, -1.0], [1.0, 0.5]], dtype=F64)
HALF = torch.tensor([0.0, 1.0], dtype=F64)
OSCILLATOR = sg.ItoProcess(lambda x: -x @ A.T, lambda x: HALF.expand_as(x), noise="additive")
UNEVEN = sg.ItoProcess(lambda x: -x, lambda x: 1 + 0.3 * torch.sigmoid(x))
CURVED = sg.ItoProcess(lambda x: -x + 0.4 * x**2, 1.0)


def made(sde=OU, states=X, score=lambda x, t: -x, **options):
    return sg.entropy_production(sde, states, score, **options).rate


def along(path, sde=OU, **options):
    return sg.entropy_production(sde, path, **options).rate


def one(columns):
    return sg.ItoProcess(lambda x: -x, torch.tensor(columns, dtype=F64), channels=2)


def left(boundary):
    """A path towards an end."""
    return along(simulate(sg.ItoProcess(lambda x: 3 + 0 * x, 1.0), boundary=boundary))


FOLLOWED = {
    "entropy production without noise where something moves": (
        "say with odd= which coordinates are velocities",
        lambda: made(OSCILLATOR),
        lambda: made(OSCILLATOR, odd=[1]),
    ),
    "entropy production of noises that are one": (
        "Add a channel that moves it",
        lambda: made(one([[1.0, 0.0], [1.0, 0.0]])),
        lambda: made(one([[1.0, 0.0], [1.0, 1.0]])),
    ),
    "a score along a path": (
        r"log_density=, or its states at one time, path\.states\[k\]",
        lambda: made(states=simulate(OU)),
        lambda: made(states=simulate(OU).states[-1]),
    ),
    "samples without a score": (
        "samples need score=, a function",
        lambda: made(score=None),
        lambda: made(score=lambda x, t: -x),
    ),
    "entropy production of one time": (
        "entropy production needs the path, but it has one time",
        lambda: along(simulate(OU, keep_path=False)),
        lambda: along(simulate(OU, keep_path=True)),
    ),
    "entropy production of what was absorbed": (
        "simulate with a boundary that keeps them",
        lambda: left(sg.Absorbing(high=0.6)),
        lambda: left(sg.Reflecting(high=0.6)),
    ),
    "entropy production of a flow": (
        "take an SDE whose D = g gᵀ/2 can",
        lambda: made(sg.ItoProcess(lambda x: -x, 0.0)),
        lambda: made(sg.ItoProcess(lambda x: -x, 1.0)),
    ),
    "noise that time reversal changes": (
        r"say odd=\(\) if they are none of motion",
        lambda: made(UNEVEN, column(0.5), odd=[0]),
        lambda: made(UNEVEN, column(0.5), odd=()),
    ),
    "a reversible drift that changes volumes": (
        "take the states of one time, with their score",
        lambda: along(simulate(CURVED), CURVED, odd=[0]),
        lambda: made(CURVED, simulate(CURVED).states[-1], odd=[0]),
    ),
}

# whose text says what to do in other words than those that are looked for
UNSEEN = {"samples without a score"}
