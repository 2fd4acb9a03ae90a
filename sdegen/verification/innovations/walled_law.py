"""The law of steps inside a boundary.

- *Periodic*: the next state is taken at the image nearest to the one before.
- *Reflecting*, of the update with diagonal noise: what goes beyond an end is folded back, and the
  distribution function of a step is a sum over images,

      P(X' ≤ y) = Σ_j Φ((y + 2jL − m)/s) − Φ((2 low − y + 2jL − m)/s),

  whose normal is the innovation, as good as z for all tests.
- *Elsewhere*: transitions that begin so near to an end that they might reach it are not judged.
  That is decided by the state before the step, so that what is left is as it would be without the
  end.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import Enclosure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.innovations.law import Innovations, StepLaw, flat
from sdegen.verification.innovations.normal import log_density, lower_tail, normal_of
from sdegen.verification.innovations.update_law import UpdateLaw

_REACH = 8.5  # standard deviations of a step: beyond them nothing is
_IMAGES = 3


class WalledLaw(StepLaw):
    """The law of steps that a boundary brings back.

    Args:
        law: That of the steps in free space.
        sde: What moves, by belief.
        enclosure: What bounds the state, as `enclosure_for` has it: in a phase space, positions.
        nodes: Times of the states.

    Raises:
        ValueError: If an end moves.
    """

    def __init__(self, law: StepLaw, sde: SDE, enclosure: Enclosure, nodes: Tensor) -> None:
        self._law, self._sde, self._nodes = law, sde, nodes
        self.name: str = law.name
        self.alike: bool = law.alike
        self.remembers: bool = law.remembers
        self.by_coordinate: bool = law.by_coordinate
        self.starts_anywhere: bool = law.starts_anywhere
        d = math.prod(enclosure.event)
        self._low, self._high = torch.full((d,), -math.inf), torch.full((d,), math.inf)
        self._period = enclosure.periods().flatten()
        self._folded = torch.zeros(d, dtype=torch.bool)
        for columns, interval in enclosure.parts:
            if interval.moves:
                raise ValueError(
                    "the steps of stored states are judged between ends that do not move, but one "
                    "is a function of t; pass trajectories that stay away from it, and "
                    "boundary=None."
                )
            if interval.wraps:
                continue
            which = list(enclosure.columns(columns))
            self._low[which], self._high[which] = interval.fixed
            folds = all(one.step_law is BoundaryCondition.NO_FLUX for one in interval.boundaries)
            self._folded[which] = folds
        self._walled = self._low.isfinite() | self._high.isfinite()
        self._by_images = (
            isinstance(law, UpdateLaw)
            and sde.noise_structure == "diagonal"
            and not sde.phase_space
            and bool((self._folded | ~self._walled).all())
        )

    @property
    def takes_centre(self) -> bool:
        """Whether the motion of a centre can be left out of z."""
        return self._law.takes_centre

    @property
    def redraws(self) -> tuple[int, ...]:
        """How often each transition is redrawn, in each way."""
        return self._law.redraws

    def along(self, x: State, first: int, memory: object) -> tuple[Innovations, object]:
        """Return z of steps in a row, of states on the line."""
        if bool(self._walled.any()):
            raise ValueError(
                f"the steps of {self.name} are judged in a row, and an end that sends states back "
                "breaks it; store positions and velocities of each step, for the solver that "
                "made them."
            )
        if bool((self._period > 0).any()):
            period = self._period[: x[0, 0].numel()].to(x).reshape(x.shape[2:])
            safe = torch.where(period > 0, period, 1.0)
            turns = torch.where(period > 0, (x.diff(dim=0) / safe).round(), 0.0).cumsum(0)
            x = torch.cat([x[:1], x[1:] - turns * period])
        return self._law.along(x, first, memory)

    def calibrate(self, states: StoredStates, seed: int) -> None:
        """Look at the states that will be judged, before they are."""
        self._law.calibrate(states, seed)

    def redraw(self, x: State, i: int, way: int, seed: int, turn: int) -> State:
        """Return states after steps in free space, as those that are judged are taken."""
        return self._law.redraw(x, i, way, seed, turn)

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        then = self._nearest(x, after)
        inner = self._law.innovations(x, then, i)
        if not bool(self._walled.any()):
            return inner
        mean, scale = self._step(x, i)
        low, high = self._low.to(mean), self._high.to(mean)
        reach = _REACH * scale
        near = self._walled & ((mean - reach < low) | (mean + reach > high))
        if not bool(near.any()):
            return inner
        if self._by_images and inner.z.shape == near.shape:
            return self._imaged(inner, then.reshape(len(x), -1), mean, scale, near)
        judged = ~near.any(1)
        return replace(inner, judged=judged if inner.judged is None else judged & inner.judged)

    def _nearest(self, x: State, after: State) -> State:
        """Return the images of next states that are nearest to the states before."""
        if not bool((self._period > 0).any()):
            return after
        period = self._period.to(x).reshape(x.shape[1:])
        safe = torch.where(period > 0, period, 1.0)
        turns = torch.where(period > 0, ((after - x) / safe).round(), 0.0)
        nearest: State = after - turns * period
        return nearest

    def _step(self, x: State, i: int) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the update, shape (n, d), roughly."""
        t, s = self._nodes[0 if self.alike else i], self._nodes[1 if self.alike else i + 1]
        h = float(s - t)
        mean = flat(x + h * self._sde.drift(x, t), x)
        g = self._sde.diffusion(x, t)
        if self._sde.channels is not None:
            g = g.square().sum(-1).sqrt()
        scale = flat(g * math.sqrt(abs(h)), x)
        if self._sde.phase_space:  # a position may be reached by a velocity that noise has changed
            v, spread = x.reshape(len(x), 2, -1)[:, 1], scale.reshape(len(x), 2, -1)[:, 1]
            reach = abs(h) * (0.25 * v.abs() + spread)
            scale = torch.cat([reach, spread], 1)
        return mean, scale

    def _imaged(
        self, inner: Innovations, y: Tensor, mean: Tensor, scale: Tensor, near: Tensor
    ) -> Innovations:
        """Return innovations of folded steps, by images where an end is near."""
        y, mean, scale = y.double(), mean.double(), scale.double()
        low, high = self._low.double(), self._high.double()
        below, above, log_p = _images(y, mean, scale, low, high)
        z = torch.where(near, normal_of(below, above), inner.z.double())
        # log p(x' | x) of each coordinate, so that −½ z² − log_scale is that of the fold
        change = log_density(z) - log_p
        plain = scale.abs().log()
        log_scale = torch.where(near, change, plain).sum(1)
        return replace(inner, z=z.to(inner.z), log_scale=log_scale)


def _images(
    y: Tensor, m: Tensor, s: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return P(X' ≤ y), P(X' > y) and log p(y) of a Gaussian folded into [low, high]."""
    two = low.isfinite() & high.isfinite()
    length = torch.where(two, high - low, 0.0)
    up_only = low.isinf()  # mirrored, it is the case of a lower end
    y, m = torch.where(up_only, -y, y), torch.where(up_only, -m, m)
    wall = torch.where(up_only, -high, low)
    wall = torch.where(wall.isfinite(), wall, -1e300)
    cdf = lower_tail
    below, above, density = torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(y)
    for j in range(-_IMAGES, _IMAGES + 1):
        shift = 2 * j * length
        right, left = (y + shift - m) / s, (2 * wall - y + shift - m) / s
        # of one end alone the sum has one term, and 1 − Φ(right) + Φ(left) above
        once = torch.where(two, 1.0, float(j == 0))
        below = below + once * _mass(left, right)
        next_left = torch.where(two, (2 * wall - y + 2 * (j + 1) * length - m) / s, math.inf)
        rest = _mass(right, next_left) + torch.where(two, 0.0, cdf(left))
        above = above + once * rest
        density = density + once * (log_density(left).exp() + log_density(right).exp()) / s
    below, above = below.clamp(0, 1), above.clamp(0, 1)
    below, above = torch.where(up_only, above, below), torch.where(up_only, below, above)
    return below, above, density.clamp(min=1e-300).log()


def _mass(left: Tensor, right: Tensor) -> Tensor:
    """Return Φ(right) − Φ(left), from the tail in which both lie."""
    flip = left > 0
    a, b = torch.where(flip, -right, left), torch.where(flip, -left, right)
    mass: Tensor = lower_tail(b) - lower_tail(a)
    return mass
