"""Advice on reversals, boundaries and passages of noise with channels, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, TWO, simulate

G = torch.tensor([[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]], dtype=F64)
CORRELATED = sg.ItoProcess(lambda x: -x, G, channels=3)
ONE_FOR_ALL = sg.ItoProcess(lambda x: 1 - x, lambda x: x[..., None], channels=1)


class Mirror(sg.Reflecting):
    """Mirrors a step where the noise vanishes too."""

    positive_step = False


def mixing(x):
    return 1 + 0.1 * x.flip(1) ** 2


def back(forward, x0=TWO):
    """A reversal from t = 1, which stays finite."""
    reverse = sg.ReverseSDE(forward, lambda x, t: -x)
    end = sg.simulate(reverse, x0, [1.0, 0.5], rng=0).final
    assert bool(end.isfinite().all())


def bounded(boundary, sde=CORRELATED, x0=TWO, low=-5.0):
    end = sg.simulate(sde, x0, [0.0, 0.5], rng=0, boundary=boundary).final
    assert bool((end >= low).all())


def passage(boundary, bridge=True):
    run = sg.run_ensemble(
        CORRELATED,
        TWO,
        [0.0, 0.5],
        trajectories=4,
        observables=[sg.FirstPassage(above=5.0, bridge=bridge)],
        boundary=boundary,
        rng=0,
        progress=False,
    )
    assert int(run.observables["first_passage"].waiting[-1]) == 4


FOLLOWED = {
    "a reverse of noise that mixes coordinates": (
        r"or write it as channels, G = torch.diag_embed\(g\), channels=",
        lambda: back(sg.ItoProcess(torch.sin, mixing)),
        lambda: back(sg.ItoProcess(torch.sin, lambda x: torch.diag_embed(mixing(x)), channels=2)),
    ),
    "a reverse of noise that is hidden": (
        "A reversal needs .*take it out",
        lambda: back(sg.ItoProcess(torch.sin, lambda x: 1 + x.detach().sin() + 0.2 * x)),
        lambda: back(sg.ItoProcess(torch.sin, lambda x: 1 + x.sin() + 0.2 * x)),
    ),
    "a corner of absorbing ends": (
        r"pass Absorbing\(…, bridge=False\), whose error is",
        lambda: bounded(sg.Absorbing(-5.0, 5.0, coordinates="all")),
        lambda: bounded({0: sg.Absorbing(-5.0, 5.0), 1: sg.Absorbing(-5.0, 5.0, bridge=False)}),
    ),
    "an end that sends back and one that absorbs": (
        "use Reflecting or Absorbing alone there",
        lambda: bounded({0: (sg.Reflecting(-5.0), sg.Absorbing(high=5.0))}),
        lambda: bounded({0: sg.Reflecting(-5.0, 5.0)}),
    ),
    "a wall without noise": (
        "pass a subclass of Reflecting with positive_step = False",
        lambda: bounded(sg.Reflecting(0.0, coordinates="all"), ONE_FOR_ALL, TWO + 0.5, 0.0),
        lambda: bounded(Mirror(0.0, coordinates="all"), ONE_FOR_ALL, TWO + 0.5, 0.0),
    ),
    "a passage beside an absorbing end": (
        r"Pass Absorbing\(…, bridge=False\) for those, or FirstPassage",
        lambda: passage({1: sg.Absorbing(-5.0, 5.0)}),
        lambda: [
            passage({1: sg.Absorbing(-5.0, 5.0, bridge=False)}),
            passage({1: sg.Absorbing(-5.0, 5.0)}, bridge=False),
        ],
    ),
    "torchsde and several noises": (
        r"use EulerMaruyama\(\) or TorchSDE\('euler'\)",
        lambda: simulate(
            sg.ItoProcess(torch.sin, lambda x: G * (1 + x[..., None] ** 2), channels=3),
            TWO,
            solver=sg.TorchSDE("milstein"),
        ),
        lambda: simulate(
            sg.ItoProcess(torch.sin, lambda x: G * (1 + x[..., None] ** 2), channels=3),
            TWO,
            solver=sg.TorchSDE("euler"),
        ),
    ),
}
