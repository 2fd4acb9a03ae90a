"""Shared noise: that of a coarse step, and of the two fine ones within it, without Lévy areas.

    z = (z₁ + z₂)/√2,        ΔW = √(2h) z = √h z₁ + √h z₂

The runs go side by side, one coarse step at a time, so that no draw is kept longer. Areas are put
to 0 in all of them: they are then the fine and coarse runs of one chain, whose mean is as near as
that with areas. A twin of the fine run takes z₂ before z₁; its areas are the others' opposites.

Reference:
    Giles and Szpruch 2014, Ann. Appl. Probab. 24, 1585, eqs. (2.4) and (2.9).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from sdegen.core.levy_areas import Draw, joined
from sdegen.core.noise import Noise
from sdegen.core.step_noise import Draws, FreshDraws, StepNoise

_HALF_ROOT = 1 / math.sqrt(2)


class WithoutAreas(Draws):
    """Draws of steps whose areas are 0.

    Args:
        z: Returns ΔW/√h of a step.
        integral: Returns J/h^{3/2} of it.
    """

    def __init__(self, z: Callable[[int], Tensor], integral: Callable[[int], Tensor]) -> None:
        self._z, self._integral, self._next = z, integral, -1
        self.normal: Callable[[], Tensor] = self._normal

    def z(self, i: int) -> Tensor:
        """Return ΔW/√h of step i."""
        return self._z(i)

    def integral(self, i: int) -> Tensor:
        """Return J/h^{3/2} of step i."""
        return self._integral(i)

    def areas(self, i: int) -> Tensor:
        """Return zeros, shape (batch, m, m)."""
        z = self._z(i).flatten(1)
        return z.new_zeros(len(z), z.shape[1], z.shape[1])

    def _normal(self) -> Tensor:
        self._next += 1
        return self._z(self._next)


def without_areas(noise: Noise, nodes: Tensor) -> StepNoise:
    """Return the noise of a run of its own.

    Args:
        noise: What draws.
        nodes: Times at which steps begin and end.
    """
    fresh = FreshDraws(noise, len(nodes) - 1)
    draws = WithoutAreas(fresh.z, fresh.integral)
    return StepNoise.of(draws, nodes, noise.channels, noise.stream)


class SharedNoise:
    """The noise of a fine and a coarse run that go side by side.

    Args:
        noise: What draws that of the fine steps.
        nodes: Times at which these begin and end, an odd number of them.
        integrals: Whether J is drawn too.

    Attributes:
        fine: That of the fine run.
        twin: That of another fine run, which takes the two halves of a step in the other order.
        coarse: That of the coarse run.
    """

    def __init__(self, noise: Noise, nodes: Tensor, *, integrals: bool = False) -> None:
        self._fresh, self._integrals = FreshDraws(noise, len(nodes) - 1), integrals
        self._halves: tuple[Draw, ...] = ()
        self._whole: Draw | None = None
        self._step = 0

        def of(halves: Callable[[int], Draw], nodes: Tensor) -> StepNoise:
            draws = WithoutAreas(lambda i: halves(i).z, lambda i: halves(i).integral)
            return StepNoise.of(draws, nodes, noise.channels, noise.stream)

        self.fine: StepNoise = of(lambda i: self._halves[i % 2], nodes)
        self.twin: StepNoise = of(lambda i: self._halves[1 - i % 2], nodes)
        self.coarse: StepNoise = of(lambda i: self._joined(), nodes[::2])

    def draw(self) -> None:
        """Draw that of the next coarse step."""
        i, self._whole = self._step, None
        self._halves = self._half(i), self._half(i + 1)
        self._step += 2

    def _half(self, i: int) -> Draw:
        """Return what is drawn of a fine step; z in the place of J where nobody asks for it."""
        z = self._fresh.z(i)
        return Draw(z, self._fresh.integral(i) if self._integrals else z)

    def _joined(self) -> Draw:
        """Return what the two make together."""
        first, second = self._halves
        if not self._integrals:
            z = (first.z + second.z).mul_(_HALF_ROOT)
            return Draw(z, z)
        if self._whole is None:
            self._whole = joined(first, second, 0.5)
        return self._whole
