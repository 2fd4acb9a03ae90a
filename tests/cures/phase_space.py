"""Advice on phase space and driven potentials, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import F64, OU, column, near, simulate

TRAP = sg.UnderdampedLangevin(sg.Quadratic(4.0), 0.5, 0.7, mass=2.0)
ZERO = torch.tensor(0.0, dtype=F64)


def joined():
    """A run from sde.state(x, v)."""
    path = simulate(TRAP, TRAP.state(column(0.5), 0.0), solver=sg.BAOAB())
    near(path.x[0], column(0.5))


class Pushed(sg.UnderdampedLangevin):
    """A particle with a drift of its own, under a force of 1."""

    def drift(self, x, t):
        return super().drift(x, t) + torch.tensor([[0.0], [1.0]]).to(x)


def pushed(solver):
    """A particle that starts at rest, after one step of 0.1."""
    sde = Pushed(lambda x: x**2 / 2, temperature=0.0)
    return sg.simulate(sde, sde.state(column(0.0), 0.0), [0.0, 0.1], solver=solver, rng=0)


def undriven():
    """The same force, with and without a time."""
    with torch.no_grad():
        driven = sg.DrivenPotential(lambda x, t: x**2 / 2 + t).force_at(column(2.0), ZERO)
        near(driven, -2.0)
        near(sg.Langevin(lambda x: x**2 / 2).drift(column(2.0), ZERO), -2.0)


def without_inertia():
    """−∇U as a velocity."""
    sde = sg.Langevin(sg.Quadratic(4.0), temperature=0.7)
    near(sde.drift(column(0.5), ZERO), column(-2.0))


def free_of(**options):
    """A particle that goes on as it does: no friction, no noise."""
    sde = sg.UnderdampedLangevin(lambda x: 0 * x, **options)
    path = simulate(sde, sde.state(column(0.5), 2.0), solver=sg.BAOAB())
    near(path.x[-1], column(0.5) + 2.0 * path.times[-1])


def without_noise():
    """A friction, and nothing that heats."""
    sde = sg.UnderdampedLangevin(sg.Quadratic(4.0), temperature=0.0)
    z = sde.state(column(0.5), 1.0)
    near(sde.drift(z, ZERO)[:, 1], column(-3.0))
    assert not sde.diffusion(z, ZERO).any()


class _Cliff(sg.Potential):
    """U = x²/2 beyond x = −2, where it ends."""

    def energy(self, x):
        return torch.where(x > -2, x**2 / 2, math.inf).sum(1)

    def force(self, x):
        return torch.where(x > -2, -x, math.nan)


GRIDS = sg.Grid(-3.0, 3.0, 64), sg.Grid(-4.5, 4.5, 64)
NARROW = GRIDS[0], sg.Grid(-2.4, 2.4, 40)
DRIVEN = sg.UnderdampedLangevin(lambda x, t: 2 * (x - 0.1 * t) ** 2, 0.5, 0.7, 2.0)


def packet(sde=TRAP, solver=None, grids=GRIDS, times=(0.0, 0.2), std=0.4, at=0.0):
    """The last density of a chain from a Gaussian, whose mass is 1."""
    x, v = (grid.nodes for grid in grids)
    p = torch.outer(torch.exp(-(((x - at) / std) ** 2) / 2), torch.exp(-((v / 0.4) ** 2) / 2))
    start = sg.PlaneDensity(x, v, p)
    start = sg.PlaneDensity(x, v, p / start.mass)
    chain = sg.ChainDensity2D(sde, grids, sg.BAOAB() if solver is None else solver)
    return chain.run(start, times)[-1]


def held(**options):
    """All of it is still there."""
    near(packet(**options).mass, 1.0, 1e-5)


HEAVY = sg.UnderdampedLangevin(sg.Quadratic(), mass=[1.0, 2.0, 3.0])
FOLLOWED = {
    "a particle without inertia": (
        "pass a positive one, or take Langevin",
        lambda: sg.UnderdampedLangevin(sg.Quadratic(4.0), mass=0.0),
        without_inertia,
    ),
    "a friction that heats": (
        "pass the rate at which velocities decay, or 0.0 for Newton's equation",
        lambda: free_of(friction=-0.1),
        lambda: free_of(friction=0.0),
    ),
    "a temperature below 0": (
        "pass it in units of energy, or 0.0 for no noise",
        lambda: sg.UnderdampedLangevin(sg.Quadratic(4.0), temperature=-1.0),
        without_noise,
    ),
    "a law of a chain that is not split": (
        "the law of a chain in phase space is built for BAOAB and OBABO",
        lambda: packet(solver=sg.QUICSORT()),
        lambda: held(solver=sg.BAOAB(substeps=2)),
    ),
    "a driven chain at rest": (
        "a chain comes to rest where noise does",
        lambda: sg.ChainDensity2D(DRIVEN, GRIDS).stationary(0.1),
        lambda: held(sde=DRIVEN),
    ),
    "a chain on a grid where there is no force": (
        "pass a grid of positions on which the potential exists",
        lambda: packet(sde=sg.UnderdampedLangevin(_Cliff())),
        lambda: held(
            sde=sg.UnderdampedLangevin(_Cliff(), temperature=0.1),
            grids=(sg.Grid(-1.9, 3.0, 64), GRIDS[1]),
            std=0.2,
            at=0.5,
        ),
    ),
    "a chain that flies over an edge": (
        "position by free flight. Widen it, or take shorter steps.",
        lambda: packet(at=1.8),
        lambda: held(at=1.8, grids=(sg.Grid(-5.0, 5.0, 100), GRIDS[1])),
    ),
    "a chain that is kicked over an edge": (
        "velocity by the force. Widen it, or take shorter steps.",
        lambda: packet(grids=NARROW, times=[0.0, 1.0]),
        lambda: held(grids=GRIDS, times=[0.0, 1.0]),
    ),
    "a chain on nodes too far apart": (
        "in waves as short as nodes are near. Take more cells.",
        lambda: packet(std=0.08),
        lambda: held(std=0.08, grids=(sg.Grid(-3.0, 3.0, 200), GRIDS[1])),
    ),
    "a mass for each of other coordinates": (
        "must be a number or one for each coordinate of a position",
        lambda: HEAVY.draw_velocities(torch.zeros(4, 2, dtype=F64), rng=0),
        lambda: HEAVY.draw_velocities(torch.zeros(4, 3, dtype=F64), rng=0),
    ),
    "positions alone of a run that has no velocities": (
        "x and v are those of a run in phase space",
        lambda: simulate(OU, column(0.5)).x,
        lambda: near(simulate(OU, column(0.5)).states[0], column(0.5)),
    ),
    "a driven potential that nothing drives": (
        "a driven potential depends on time, but its function takes x alone",
        lambda: sg.DrivenPotential(lambda x: x**2 / 2),
        undriven,
    ),
    "a phase space of three numbers": (
        "a phase space has as many velocities as positions",
        lambda: sg.LinearSDE.of(TRAP, 3),
        lambda: near(sg.LinearSDE.of(TRAP, 2).stationary_covariance().diag(), [0.175, 0.35]),
    ),
    "positions in the place of a state": (
        r"make it by sde.state\(x, v\), with x and v of shape",
        lambda: simulate(TRAP, column(0.5), solver=sg.BAOAB()),
        joined,
    ),
    "a splitting method of a drift of one's own": (
        r"of its own, which it would pass over: take EulerMaruyama\(substeps",
        lambda: pushed(sg.BAOAB()),
        lambda: near(pushed(sg.EulerMaruyama()).v[-1], column(0.1)),
    ),
}
