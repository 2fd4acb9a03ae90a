"""Splitting methods of phase space: each part of a step is solved exactly.

    A   x += dt v                      free flight
    B   v += dt F(x)/m                 a kick
    O   v  = c v + √(1 − c²) √(T/m) z,  c = e^{−γ dt}      friction and noise, an exact draw

The letters are taken in the order of a method's name; those that occur twice go half of the step.

Reference:
    Leimkuhler and Matthews 2013, Applied Mathematics Research eXpress 2013, 34.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.fixed_steps import Interval, OneStep
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.sde.underdamped import UnderdampedLangevin


@dataclass(frozen=True)
class BAOAB(OneStep):
    """Half a kick, half a flight, friction and noise, half a flight, half a kick.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Leimkuhler and Matthews 2013, Applied Mathematics Research eXpress 2013, 34, section 2.
    """

    orders: ClassVar[Orders] = Orders(flow=2, additive=(2, 1), multiplicative=(2, 1))
    evaluations: ClassVar[int] = 2
    noise_evaluations: ClassVar[str] = "1"
    stability: ClassVar[float | None] = None
    when: ClassVar[str] = "Positions and velocities, with noise on velocities alone."

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics that have no velocities."""
        super().check(sde, nodes)
        if not isinstance(sde, UnderdampedLangevin):
            raise ValueError(  # noqa: TRY004, what it lacks is velocities
                f"BAOAB moves positions and velocities, and {type(sde).__name__} is no "
                "UnderdampedLangevin: take EulerMaruyama()."
            )

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take the step of the interval memory[i]."""
        assert isinstance(sde, UnderdampedLangevin)
        t, s, dt, _ = memory[i]
        mass = torch.as_tensor(sde.mass).to(x)
        place, v = x.unbind(1)
        v = v + sde.force(place, t) / mass * (dt / 2)
        place = place + v * (dt / 2)
        decay = torch.exp(-sde.friction_at(place) * abs(dt)).to(x)
        v = decay * v
        if noise is not None:
            spread = (1 - decay.square()) * sde.temperature / mass
            v = v + spread.sqrt() * noise.normal()[:, 1]
        place = place + v * (dt / 2)
        v = v + sde.force(place, s) / mass * (dt / 2)
        return torch.stack([place, v], 1), memory
