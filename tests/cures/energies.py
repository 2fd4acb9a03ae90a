"""Advice on energies that are sampled and learned, followed."""

import torch

import sdegen as sg
from tests.cures.common import OU, T, column, warned

WELL = sg.Langevin(sg.DoubleWell(), 0.5)
STEEP = sg.Langevin(lambda x: 50 * x**2)


def walk(sde, solver=None, x0=None, **words):
    """A run by Metropolis, of which something moves."""
    solver = sg.Metropolis() if solver is None else solver
    x0 = column(0.5) if x0 is None else x0
    path = sg.simulate(sde, x0, T, solver=solver, rng=0, **words)
    assert float((path.states[-1] - x0).detach().abs().max()) > 0


def slope():
    """Of a run with a weight in its energy."""
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    return sg.Langevin(lambda x: theta * x**2)


FOLLOWED = {
    "Metropolis without an energy": (
        "Metropolis accepts by an energy",
        lambda: walk(OU),
        lambda: walk(OU, sg.EulerMaruyama(substeps=2)),
    ),
    "Metropolis at no temperature": (
        "there is none at T = 0; take",
        lambda: walk(sg.Langevin(sg.Quadratic(), 0.0)),
        lambda: walk(sg.Langevin(sg.Quadratic(), 0.0), sg.EulerMaruyama(substeps=2)),
    ),
    "gradients through Metropolis": (
        "gradients through Metropolis would miss",
        lambda: walk(slope(), differentiable=True),
        lambda: (
            walk(slope()),
            walk(slope(), sg.EulerMaruyama(substeps=2), differentiable=True),
        ),
    ),
    "Metropolis at steps that are too long": (
        "states hardly move: dt =",
        lambda: warned(lambda: walk(STEEP, x0=torch.zeros(200, 30))),
        lambda: warned(lambda: walk(STEEP, sg.Metropolis(substeps=50), torch.zeros(200, 30))),
    ),
}
