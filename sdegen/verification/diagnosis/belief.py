"""What is believed of stored states, and where its walls are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import Enclosure
from sdegen.core.mirrors import enclosure_for
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.readers.stored_states import StoredStates
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.innovations.choice import law_of
from sdegen.verification.innovations.law import StepLaw

_FEW_STEPS = 192  # that are looked at where each has a law of its own
_STRETCH = 256  # steps in a row, where not all are looked at


@dataclass(frozen=True)
class Belief:
    """What is believed of stored states.

    Attributes:
        sde: What moves.
        solver: How it moves, as `law_of` takes it.
        states: What was stored.
        boundary: What bounds it.
        positions: Whether states of a phase space are positions alone.
    """

    sde: SDE
    solver: Solver | str
    states: StoredStates
    boundary: object = None
    positions: bool = False

    @property
    def by_update(self) -> bool:
        """Whether each step is an update, x + dt f + √|dt| g z."""
        solver = self.solver
        return isinstance(solver, EulerMaruyama) and solver.substeps == 1

    @cached_property
    def law(self) -> StepLaw:
        """The believed law of a step."""
        return self.law_with()

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor] | None:
        """The ends of each coordinate, ∓∞ where there is none; None without walls."""
        if self.boundary is None or self.positions or self.sde.phase_space:
            return None
        enclosure = enclosure_for(self.sde, self.boundary, self.states.event)
        return None if enclosure is None or enclosure.wraps else ends_of(enclosure)

    @cached_property
    def folds(self) -> bool:
        """Whether all walls reflect, so that no state lies on one."""
        enclosure = enclosure_for(self.sde, self.boundary, self.states.event)
        return enclosure is not None and all(
            one.step_law is BoundaryCondition.NO_FLUX
            for _, interval in enclosure.parts
            for one in interval.boundaries
        )

    def law_with(self, sde: SDE | None = None, solver: Solver | str | None = None) -> StepLaw:
        """Return the law of other dynamics, or of another solver, inside the same boundary."""
        return law_of(
            self.sde if sde is None else sde,
            self.solver if solver is None else solver,
            self.states.times,
            self.states.event,
            self.boundary,
            positions=self.positions,
        )


def ends_of(enclosure: Enclosure) -> tuple[Tensor, Tensor]:
    """Return the ends of each coordinate, ∓∞ where there is none."""
    d = math.prod(enclosure.event)
    low = torch.full((d,), -math.inf, dtype=torch.float64)
    high = torch.full((d,), math.inf, dtype=torch.float64)
    for columns, interval in enclosure.parts:
        which = list(enclosure.columns(columns))
        low[which], high[which] = interval.fixed
    return low, high


def choice_of(
    steps: int, batch: int, size: int, most: int, *, alike: bool
) -> tuple[list[tuple[int, int]], Tensor]:
    """Return stretches of steps, the first and the last among them, and trajectories."""
    cap = steps if alike else min(steps, _FEW_STEPS)
    rows = min(batch, max(2, most // (size * min(cap, 64))))
    chosen = torch.arange(0, batch, -(-batch // rows))
    frames = min(cap, max(16, most // (size * len(chosen))))
    if frames >= steps:
        return [(0, steps)], chosen
    count = max(2, min(8, frames // _STRETCH)) if frames >= 32 else 1
    long = frames // count
    starts = torch.linspace(0, steps - long, count).long().tolist()
    return [(a, a + long) for a in starts], chosen
