"""Noise of one step that is given: each draw of a solver is a row of numbers that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from sdegen.core.noise import Stream
from sdegen.core.shapes import State
from sdegen.core.step_noise import StepNoise


class GivenDraws(StepNoise):
    """Noise of one step that is linear in given numbers; zeros where they are used up.

    Args:
        numbers: Shape (rows, numbers of all draws).
        channels: Of the SDE.
        shape: Of the draw of one row.
        length: Of the step.

    Attributes:
        drawn: How many numbers were drawn.
    """

    def __init__(
        self, numbers: Tensor, channels: int | None, shape: tuple[int, ...], length: float
    ) -> None:
        self.channels: int | None = channels
        self._numbers = numbers
        self._h = abs(length)
        self._shape, self._width, self._normals = shape, math.prod(shape), 0
        self._places: dict[str, int] = {}
        self.normal: Callable[[], State] = self._next

    @property
    def drawn(self) -> int:
        """How many numbers were drawn."""
        return len(self._places) * self._width

    def _next(self) -> Tensor:
        self._normals += 1
        return self._draw(f"normal {self._normals}")

    def _draw(self, name: str) -> Tensor:
        """Return the draw of a name, which is the same however often it is asked for."""
        first = self._places.setdefault(name, len(self._places)) * self._width
        if first + self._width <= self._numbers.shape[1]:
            drawn = self._numbers[:, first : first + self._width]
            return drawn.reshape(-1, *self._shape)
        return self._numbers.new_zeros(len(self._numbers), *self._shape)

    def increment(self, i: int) -> Tensor:
        """Return ΔW, of the first normal."""
        return self._draw("normal 1") * math.sqrt(self._h)

    def space_time_area(self, i: int) -> Tensor:
        """Return h^{3/2} (z/2 + η/√12)."""
        scale, mean = math.pow(self._h, 1.5), 0.5 * self._draw("normal 1")
        return scale * (mean + self._draw("space-time area") / math.sqrt(12))

    def space_time_moment(self, i: int) -> Tensor:
        """Return h^{5/2} (z/3 + η/(2√12) − κ/√720)."""
        eta = self._draw("space-time area") / (2 * math.sqrt(12))
        kappa = self._draw("space-time moment") / math.sqrt(720)
        return math.pow(self._h, 2.5) * (self._draw("normal 1") / 3 + eta - kappa)

    def areas(self, i: int) -> Tensor:
        """Refuse areas, which are no linear function of normals."""
        raise _foreign("Lévy areas")

    @property
    def stream(self) -> Stream:  # type: ignore[override]
        """Refuse draws that are not those of `normal`."""
        raise _foreign("draws of its own stream")


def _foreign(what: str) -> ValueError:
    """Return the refusal of steps that take more than normals."""
    return ValueError(
        "the moments of a chain are built for steps that draw by noise.normal(), increments and "
        f"space-time areas, not for {what}; pass EulerMaruyama(substeps=…)."
    )
