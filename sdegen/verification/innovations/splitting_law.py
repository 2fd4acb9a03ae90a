"""The law of splitting steps in phase space: positions and velocities, and the noise between them.

A step of BAOAB has one normal for each coordinate, and two numbers of the next state: z is told by
the velocity, and that the position follows from it is an equation without noise. A step of OBABO
has two normals, of which the position tells the first, and then the velocity the second. The
solver itself is asked: positions are affine in the first draw, and where they are known,
velocities are affine in the last.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.core.noise import Given
from sdegen.core.shapes import State
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.splitting import BAOAB, OBABO
from sdegen.verification.innovations.law import Innovations, StepLaw, is_even, log_of_sum, size_of

_HALF_ROOT = math.sqrt(0.5)


class SplittingLaw(StepLaw):
    """The law of BAOAB's or OBABO's steps.

    Args:
        sde: What moves, by belief, with friction and temperature > 0.
        solver: BAOAB() or OBABO().
        nodes: Times of the states, shape (steps + 1,).
    """

    def __init__(self, sde: UnderdampedLangevin, solver: BAOAB | OBABO, nodes: Tensor) -> None:
        solver.check(sde, nodes)
        self.name: str = type(solver).__name__
        self._sde = sde
        self._solver = solver
        self.alike: bool = bool(sde.autonomous) and is_even(nodes)
        self.by_coordinate: bool = isinstance(solver, BAOAB)
        self._memory = solver.begin(sde, nodes[:2] if self.alike else nodes)
        self._two = isinstance(solver, OBABO)

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, 2, *event)."""
        i = 0 if self.alike else i
        none = torch.zeros_like(x[:, 0])
        place, v = after.unbind(1)
        place0, v0 = self._after(x, none, none, i)
        if self._two:
            place1, _ = self._after(x, none + 1, none, i)
            first = (place - place0) / (place1 - place0)
            _, v1 = self._after(x, first, none, i)
            _, v2 = self._after(x, first, none + 1, i)
            second, scales = (v - v1) / (v2 - v1), (place1 - place0, v2 - v1)
            z = torch.cat([first.flatten(1), second.flatten(1)], 1)
            free = x[:, 0] + self._length(i) * x[:, 1]
            pulls = (place0 - free) / scales[0], (v0 - x[:, 1]) / scales[1]
            log_scale = log_of_sum(torch.cat([s.flatten(1) for s in scales], 1))
            return Innovations(z, torch.cat([p.flatten(1) for p in pulls], 1), log_scale)
        place1, _ = self._after(x, none + 1, none, i)
        first = (place - place0) / (place1 - place0)
        # the velocity tells it to more digits: (√dt)³ moves a position, √dt a velocity
        spread = 2 * (place1 - place0) / self._length(i)
        _, v1 = self._after(x, first, none, i)
        z = first + (v - v1) / spread
        place2, _ = self._after(x, z, none, i)
        gap, size = (place - place2).flatten(1), size_of(place, place - x[:, 0]).flatten(1)
        pull = (v0 - x[:, 1]) / spread
        log_scale = log_of_sum(spread.flatten(1))
        return Innovations(z.flatten(1), pull.flatten(1), log_scale, gap, size)

    def _length(self, i: int) -> float:
        """Return the length of step i."""
        return float(self._memory.intervals[i][2])

    def _after(self, x: State, first: Tensor, second: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Return positions and velocities after a step with these draws."""
        if self._two:  # √2 z_v is the sum of both, √2 z_x their difference
            z = torch.stack([first - second, first + second], 1) * _HALF_ROOT
        else:
            z = torch.stack([first, first], 1)
        y = self._solver.step(self._sde, x, i, Given(z), self._memory)[0]
        place, v = y.unbind(1)
        return place, v
