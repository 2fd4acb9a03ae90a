"""SRA1: a Runge–Kutta method of strong order 3/2 for additive noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.fixed_steps import FixedStep, Interval, intervals_of
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Need
from sdegen.core.step_noise import StepNoise
from sdegen.core.update import update


@dataclass(frozen=True)
class SRA(FixedStep):
    """Rößler's SRA1, of strong order 3/2 for additive noise g(t) or G(t). Two evaluations a step.

        x̃ = x + ¾ dt f(x, t) + ³⁄₂ G(s) J/|dt|
        x' = x + dt [⅓ f(x, t) + ⅔ f(x̃, t + ¾ dt)] + G(s) (ΔW − J/|dt|) + G(t) J/|dt|

    with x of shape (batch, *event), s = t + dt and the space-time area J = ∫ (W − W(t)) du of the
    step. Without noise it is Ralston's method of order 2.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Rößler 2010, SIAM J. Numer. Anal. 48, 922, eq. (6.7) and table 6.2 (SRA1), strong order
        3/2; the weak order 2 is measured in the tests.

    Example:
        >>> decay, x, h = sg.ItoProcess(lambda x: -x, 1.0), torch.ones(100, 1), 0.5
        >>> noise = sg.StepNoise(sg.Noise(x, rng=0), [0.0, h])
        >>> (end,) = sg.integrate(decay, sg.SRA(), x, [0.0, h], noise)
        >>> w, j = noise.increment(0), noise.space_time_area(0)
        >>> torch.allclose(end, 1 - h + h**2 / 2 + w - j)
        True
    """

    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels")
    needs: ClassVar[tuple[Need, ...]] = ("increments", "space_time_areas")
    orders: ClassVar[Orders] = Orders(flow=2, additive=(2, 1.5), multiplicative=None)
    evaluations: ClassVar[int] = 2
    noise_evaluations: ClassVar[str] = "3; 1 of G of no time"
    stability: ClassVar[float | None] = 2.0
    when: ClassVar[str] = "Paths of additive noise, to strong order 1½; averages of order 2."

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse multiplicative noise."""
        super().check(sde, nodes)
        if sde.noise == "multiplicative":
            raise ValueError(
                f"SRA solves equations with additive noise, but that of {type(sde).__name__} is "
                "multiplicative: take Milstein(), or say noise='additive' if G depends on t "
                "alone."
            )

    def begin(self, sde: SDE, nodes: Tensor) -> list[Interval]:
        """Return (t, s, dt, √|dt|) of each step."""
        return intervals_of(sde, nodes)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take both stages with the increment and the space-time area of the step."""
        t, s, dt, _ = memory[i]
        f = sde.drift(x, t)
        ahead, added = update(x, f, 0.75 * dt), None
        if noise is not None:
            assert isinstance(noise, StepNoise)  # as `needs` has it
            w, u = noise.increment(i), noise.space_time_area(i) / abs(dt)
            late = sde.diffusion_times(x, s, u)
            early = late if sde.autonomous else sde.diffusion_times(x, t, u)
            ahead = ahead + 1.5 * late
            added = sde.diffusion_times(x, s, w) - late + early
        f = f / 3 + sde.drift(ahead, torch.add(t, 0.75 * dt)) * (2 / 3)
        after = update(x, f, dt)
        return after if added is None else after + added, memory
