"""Advice of active matter and of phase spaces, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, near, simulate


class Swinging(sg.SDE):
    """An oscillator that says of itself that it has a phase space."""

    phase_space, noise = True, "none"

    def drift(self, x, t):
        return torch.stack([x[:, 1], -x[:, 0]], 1)

    def diffusion(self, x, t):
        return torch.zeros((), dtype=F64)


class Stopping(sg.Boundary):
    """What goes beyond an end stops at it."""

    def apply(self, before, after, step):
        return after.clamp(step.low, step.high)


FALLING = sg.UnderdampedLangevin(lambda x: x)
DROPPED = torch.tensor([[[0.5], [0.0]]], dtype=F64).repeat(4, 1, 1)
INSIDE = sg.UnderdampedLangevin(lambda x: x**8)


def bounded(ends, sde=FALLING):
    """A run that stays above 0."""
    assert float(simulate(sde, DROPPED, boundary=ends).x.min()) >= 0


SWIMMER = sg.ActiveBrownian(2.0, 0.1, 0.5)
TRAPPED = sg.ActiveBrownian(2.0, 0.1, 0.5, potential=sg.Quadratic())
PLACES = torch.zeros(4, 3, dtype=F64)


TRAP = sg.UnderdampedLangevin(sg.Quadratic(2.0), temperature=0.5)
PLANE = (sg.Grid(-3.2, 3.2, 40), sg.Grid(-5.0, 5.0, 40))


FOLLOWED = {
    "positions and velocities on a line": (
        r"but a state of .* has positions and velocities: of one position take FokkerPlanck2D",
        lambda: sg.FokkerPlanck(TRAP, sg.Grid(-3.0, 3.0, 40)),
        lambda: near(sg.FokkerPlanck2D(TRAP, PLANE).stationary().covariance[0][0], 0.25, 1e-2),
    ),
    "coloured noise of positions and velocities": (
        "Coloured joins its noise to a state in a row",
        lambda: sg.Coloured(TRAP, 0.5),
        lambda: sg.GeneralizedLangevin(sg.Quadratic(2.0), sg.PronySeries(1.0, 0.5), 0.5),
    ),
    "a wall of velocities": (
        "which is a velocity, and velocities have no ends",
        lambda: simulate(FALLING, DROPPED, boundary={1: sg.Reflecting(0.0)}),
        lambda: bounded({0: sg.Reflecting(0.0)}),
    ),
    "a boundary that says nothing of velocities": (
        "does not say what becomes of a velocity",
        lambda: simulate(FALLING, DROPPED, boundary=Stopping(0.0)),
        lambda: bounded(sg.Reflecting(0.0)),
    ),
    "a wall for dynamics that are not known beyond it": (
        "a Reflecting end of a phase space is for UnderdampedLangevin",
        lambda: simulate(Swinging(), DROPPED, solver=sg.Heun(), boundary=sg.Reflecting(-1.0)),
        lambda: simulate(INSIDE, DROPPED),
    ),
    "an active particle without a heading": (
        r"a state of ActiveBrownian is \(x, y, θ\)",
        lambda: simulate(SWIMMER, torch.zeros(4, 2, dtype=F64)),
        lambda: simulate(SWIMMER, PLACES),
    ),
    "a displacement in a trap": (
        "in closed form is that of a free particle",
        lambda: TRAPPED.mean_squared_displacement(1.0),
        lambda: near(SWIMMER.mean_squared_displacement(1e-9), 4e-10, 1e-7),
    ),
    "a displacement before it began": (
        "t must be ≥ 0, a time since the displacement was 0",
        lambda: SWIMMER.mean_squared_displacement(-1.0),
        lambda: SWIMMER.mean_squared_displacement(torch.tensor(-1.0).abs()),
    ),
}

# whose text says what to do in other words than those that are looked for
UNSEEN = {"positions and velocities on a line", "a boundary that says nothing of velocities"}
