"""Advice on energies that are sampled and learned, followed."""

import math

import torch

import sdegen as sg
from sdegen.energy import RBM, annealed_log_partition
from tests.cures.common import OU, T, column, near, warned

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


LINE = sg.Grid(-9.0, 9.0, 300)
POINTS = torch.linspace(-1, 1, 64)[:, None]
GREY = torch.tensor([[0.0, 0.3, 1.0]])
SHORT = sg.FitConfig(steps=2, batch_size=16, warmup=1)


def model(base_std=1.0, numbers=1):
    """An energy whose network is linear."""
    return sg.EnergyModel(torch.nn.Linear(1, numbers, bias=False), base_std)


def learn(loss, energy=None, config=SHORT):
    """A short training, which has an end."""
    energy = model() if energy is None else energy
    assert len(sg.fit(energy, POINTS, loss, config, rng=0).losses) == 2


class Stiff(torch.nn.Module):
    """k x⁴, of which long steps run away."""

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.k * (x**4).sum(1)


def heavy():
    """A machine of large weights."""
    machine = RBM(12, 6, rng=0)
    machine.weight.data *= 200
    return machine


def log_z(machine):
    """log Z of what is not summed up, and of what is."""
    near(float(annealed_log_partition(machine, 64, 200, rng=0)), 51 * math.log(2), 0.02)


FOLLOWED = {
    "a network of two energies": (
        "the network of an energy must return one number for each state",
        lambda: model(numbers=2).energy(POINTS),
        lambda: model().energy(POINTS),
    ),
    "a grid that cuts an energy off": (
        "it cuts the law off, or e",
        lambda: model(None).log_partition(LINE),
        lambda: model().log_partition(LINE),
    ),
    "a grid that does not resolve an energy": (
        "it does not resolve the law; pass more cells",
        lambda: model().log_partition(sg.Grid(-40.0, 40.0, 40)),
        lambda: model().log_partition(sg.Grid(-40.0, 40.0, 800)),
    ),
    "restarts of chains that are not carried": (
        "is of chains that are carried along, but chains is None",
        lambda: sg.ContrastiveDivergence(restart=0.1),
        lambda: sg.ContrastiveDivergence(restart=0.1, chains=1024),
    ),
    "fewer chains than rows": (
        "must be at least the rows of a step",
        lambda: learn(sg.ContrastiveDivergence(chains=8)),
        lambda: learn(sg.ContrastiveDivergence(chains=16)),
    ),
    "carried chains of a part of the rows": (
        "belong to one process and to all rows of a step",
        lambda: learn(
            sg.ContrastiveDivergence(chains=16),
            config=sg.FitConfig(steps=2, batch_size=16, accumulate=2),
        ),
        lambda: learn(sg.ContrastiveDivergence(chains=16)),
    ),
    "chains that run away": (
        r"diverged within \{\} steps|lower step_size = ",
        lambda: learn(sg.ContrastiveDivergence(steps=30, step_size=5.0), sg.EnergyModel(Stiff())),
        lambda: (
            learn(sg.ContrastiveDivergence(steps=30, step_size=0.01), sg.EnergyModel(Stiff())),
            learn(
                sg.ContrastiveDivergence(steps=30, step_size=0.5, metropolis=True),
                sg.EnergyModel(Stiff()),
            ),
        ),
    ),
    "grey units": (
        "as the units of a Boltzmann machine are",
        lambda: RBM(3, 2).free_energy(GREY),
        lambda: RBM(3, 2).free_energy((GREY > 0.5).float()),
    ),
    "a sum over too many states": (
        "states, and {} units are the most",
        lambda: RBM(30, 21, rng=0).log_partition(),
        lambda: log_z(RBM(30, 21, rng=0)),
    ),
    "starts of fewer chains": (
        "start must have {} rows, one for each chain",
        lambda: RBM(3, 2).sample(2, start=torch.zeros(1, 3)),
        lambda: RBM(3, 2).sample(1, start=torch.zeros(1, 3)),
    ),
    "few chains that count": (
        "chains count for log Z",
        lambda: warned(lambda: annealed_log_partition(heavy(), 200, 1, rng=0)),
        lambda: warned(lambda: annealed_log_partition(heavy(), 200, 300, rng=0)),
    ),
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
