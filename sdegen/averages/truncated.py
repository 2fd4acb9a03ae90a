"""Milstein's method, as far as increments alone say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdegen.core.accuracy import Orders
from sdegen.core.fixed_steps import Interval, OneStep
from sdegen.core.noise import Given, Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.update import update


@dataclass(frozen=True)
class TruncatedMilstein(OneStep):
    """x + dt f + √dt g z + ½ dt g ∂g/∂x (z² − 1)."""

    orders: ClassVar[Orders] = Orders(flow=1, additive=(1, 1), multiplicative=(1, 1))
    evaluations: ClassVar[int] = 1

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take the update, and add what the change of g within the step makes."""
        t, _, dt, root_dt = memory[i]
        after = update(x, sde.drift(x, t), dt)
        if noise is None:
            return after, memory
        z = noise.normal()
        after = sde.add_noise(after, x, t, root_dt, Given(z))
        slope = 0.5 * sde.covariance_divergence(x, t)  # g ∂g/∂x
        return after + (0.5 * dt) * slope * (z * z - 1), memory
