"""Advice of active matter and of phase spaces, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, near, simulate

SWIMMER = sg.ActiveBrownian(2.0, 0.1, 0.5)
TRAPPED = sg.ActiveBrownian(2.0, 0.1, 0.5, potential=sg.Quadratic())
PLACES = torch.zeros(4, 3, dtype=F64)


FOLLOWED = {
    "an active particle without a heading": (
        r"a state of ActiveBrownian is \(x, y, θ\)",
        lambda: simulate(SWIMMER, torch.zeros(4, 2, dtype=F64)),
        lambda: simulate(SWIMMER, PLACES),
    ),
    "a displacement in a trap": (
        "in closed form is that of a free particle",
        lambda: TRAPPED.mean_squared_displacement(1.0),
        lambda: near(SWIMMER.mean_squared_displacement(1e-9), 4e-10, 1e-14),
    ),
    "a displacement before it began": (
        "t must be ≥ 0, a time since the displacement was 0",
        lambda: SWIMMER.mean_squared_displacement(-1.0),
        lambda: SWIMMER.mean_squared_displacement(torch.tensor(-1.0).abs()),
    ),
}
