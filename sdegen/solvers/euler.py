"""Euler–Maruyama: the update itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdegen.core.accuracy import Orders
from sdegen.core.fixed_steps import Interval, OneStep
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.update import update


@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """Euler's method for SDEs: the update itself. One evaluation a step.

        x' = x + dt f(x, t) + √|dt| g(x, t) z,   z ~ N(0, I)

    with x, f and z of shape (batch, *event).

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Kloeden and Platen 1992, eq. (10.2.4); weak order 1, strong order ½ (1 for additive noise).

    Example:
        >>> decay, x = sg.ItoProcess(lambda x: -x, 1.0), torch.ones(100, 1)
        >>> z = sg.Noise(x, rng=0).normal()
        >>> (end,) = sg.integrate(decay, sg.EulerMaruyama(), x, [0.0, 0.25], sg.Noise(x, rng=0))
        >>> torch.allclose(end, 1 - 0.25 + 0.25**0.5 * z)
        True
    """

    supports_discrete: ClassVar[bool] = True
    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels", "general")
    is_update: ClassVar[bool] = True
    orders: ClassVar[Orders] = Orders(
        flow=1, additive=(1, 1), multiplicative=(1, 0.5), channels=(1, 0.5)
    )
    evaluations: ClassVar[int] = 1
    noise_evaluations: ClassVar[str] = "1"
    stability: ClassVar[float | None] = 2.0
    when: ClassVar[str] = (
        "First of all: it takes all dynamics, boundaries and chains, and errors are proportional "
        "to the step."
    )

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take the update, x + dt f, to which the SDE adds its noise."""
        t, _, dt, root_dt = memory[i]
        after = update(x, sde.drift(x, t), dt)
        if noise is not None:
            after = sde.add_noise(after, x, t, root_dt, noise)
        return after, memory
