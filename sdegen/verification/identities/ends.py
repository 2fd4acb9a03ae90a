"""Ends: which coordinates of stored states have walls or a period, for functions that obey them.

Integrals of a generator are boundary terms, and vanish for functions that obey the condition of
the ends: a slope of 0 at reflecting walls, a period. Of one coordinate, with walls at a and b,

    free         x, x²
    one wall     (x − a)², which has no slope there
    two walls    cos π(x − a)/(b − a), cos 2π(x − a)/(b − a)
    period L     cos and sin of 2π(x − a)/L
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import Interval
from sdegen.core.mirrors import enclosure_for
from sdegen.core.sde import SDE
from sdegen.readers.stored_states import StoredStates


@dataclass(frozen=True)
class Ends:
    """Where the numbers of a flattened state end; velocities have no ends.

    Attributes:
        low, high: Shape (d,), float64, ±∞ where there is no wall.
        period: Shape (d,), 0 where there is none.
        flips: Which are velocities that a wall reverses, shape (d,), bool.
        moving: Which are not held by a constraint, shape (d,), bool.
    """

    low: Tensor
    high: Tensor
    period: Tensor
    flips: Tensor
    moving: Tensor

    @property
    def walled(self) -> Tensor:
        """Which coordinates have a wall, shape (d,)."""
        return self.low.isfinite() | self.high.isfinite()

    @property
    def free(self) -> Tensor:
        """Which coordinates have neither walls nor a period, shape (d,)."""
        return ~self.walled & (self.period == 0)


def ends_of(sde: SDE, states: StoredStates, boundary: object) -> Ends:
    """Return the ends of stored states.

    Raises:
        ValueError: If an end takes trajectories out, or is neither reflecting nor periodic.
    """
    d, every = math.prod(states.place), math.prod(states.event)
    nowhere = torch.full((every,), math.inf, dtype=torch.float64)
    none, yes = torch.zeros_like(nowhere), torch.ones(every, dtype=torch.bool)
    ends = Ends(-nowhere, nowhere.clone(), none, ~yes, yes)
    if states.periods is not None:
        ends.period[:d] = states.periods.flatten().double()
    if states.fixed is not None:
        ends.moving[:] = ~states.fixed.flatten().repeat(every // d)
    enclosure = None if boundary is None else enclosure_for(sde, boundary, states.event)
    if enclosure is None:
        return ends
    for columns, interval in enclosure.parts:
        which = [c for c in enclosure.columns(columns) if c < d]  # velocities have no ends
        if interval.wraps:
            below, above = interval.fixed
            ends.period[which] = float(above - below)
            continue
        _check_kept(interval)
        below, above = interval.fixed
        ends.low[which], ends.high[which] = float(below), float(above)
        if every > d:
            ends.flips[[c + d for c in which]] = True
    return ends


def _check_kept(interval: Interval) -> None:
    """Refuse ends at which averages have terms of their own."""
    if interval.absorbs:
        raise ValueError(
            "an absorbing end takes trajectories out, and averages over those that are left obey "
            "no identity; judge their steps, certify(sde, path=…, boundary=…)."
        )
    kinds = interval.boundaries
    if any(b.condition is not BoundaryCondition.NO_FLUX for b in kinds):
        names = " and ".join(type(b).__name__ for b in kinds)
        raise ValueError(
            f"averages obey identities between walls that reflect, and with a period, but the "
            f"boundary is {names}; judge the steps, certify(sde, path=…, boundary=…)."
        )


@dataclass(frozen=True)
class Functions:
    """A function φ of each of several coordinates, with its derivatives.

    Attributes:
        name: What it is, of a coordinate x.
        columns: The coordinates, of the flattened state.
        power: 1 or 2 for (x − origin)^power; 0 for cos(wave (x − origin) − phase).
        origin, wave: Shape (columns,).
        phase: 0, or π/2 for a sine.
    """

    name: str
    columns: Tensor
    power: int
    origin: Tensor
    wave: Tensor
    phase: float = 0.0

    def value(self, x: Tensor) -> Tensor:
        """φ of flat states x (…, d), shape (…, columns)."""
        u = x[..., self.columns].double() - self.origin
        return u**self.power if self.power else (self.wave * u - self.phase).cos()

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """φ′ and φ″ at flat states, each of shape (…, columns)."""
        u = x[..., self.columns].double() - self.origin
        if self.power == 1:
            return torch.ones_like(u), torch.zeros_like(u)
        if self.power == 2:
            return 2 * u, torch.full_like(u, 2.0)
        angle = self.wave * u - self.phase
        return -self.wave * angle.sin(), -self.wave.square() * angle.cos()


def functions_of(ends: Ends) -> Iterator[Functions]:
    """Yield functions of one coordinate that obey the condition of its ends."""
    zero = torch.zeros_like(ends.low)
    low, high, period = ends.low, ends.high, ends.period
    around, two = period > 0, low.isfinite() & high.isfinite()
    one = ends.walled & ~two
    wall = torch.where(low.isfinite(), low, high)

    def of(
        name: str, which: Tensor, power: int, origin: Tensor, wave: Tensor, phase: float = 0.0
    ) -> Iterator[Functions]:
        columns = (which & ends.moving).nonzero()[:, 0]
        if len(columns):
            yield Functions(name, columns, power, origin[columns], wave[columns], phase)

    yield from of("x", ends.free & ~ends.flips, 1, zero, zero)
    yield from of("x²", ends.free, 2, zero, zero)
    yield from of("(x − a)²", one & ~around, 2, wall, zero)
    half = math.pi / (high - low)
    yield from of("cos π(x − a)/(b − a)", two & ~around, 0, low, half)
    yield from of("cos 2π(x − a)/(b − a)", two & ~around, 0, low, 2 * half)
    turn = 2 * math.pi / torch.where(around, period, 1.0)
    yield from of("cos 2πx/L", around, 0, zero, turn)
    yield from of("sin 2πx/L", around, 0, zero, turn, math.pi / 2)
