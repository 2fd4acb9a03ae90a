"""Mirrors: the boundaries of a phase space, whose walls reverse velocities.

A state of positions and velocities, (batch, 2, *event), has boundaries of its positions alone, by
the coordinates of x: {0: …}, or {(0, 0): …} of the whole event. At an end of a position

    Reflecting   x is folded back, and v of that coordinate changes sign at each fold
    Periodic     x is wrapped, v is as it was
    Absorbing    the trajectory stops where it arrives, with the v that it had

Velocities have no ends. Between two steps nothing is asked (no bridge): a path is differentiable,
and what is beyond an end and back within one step has gone no further than O(dt^{3/2}).

**A wall within a step.** Elastic reflection is motion on the unfolded line in mirrored dynamics,
F(x) → ± F(folded x), where the velocity counts with the sign of the fold. A solver is handed these
(`Mirrors.fold`), so that a collision amid a step keeps its order, the measure dx dv, and without
force the energy; a force is never asked beyond a wall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NoReturn

import torch
from torch import Tensor

from sdegen.core.boundary import Boundary
from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import Enclosure, enclosure_of
from sdegen.core.folding import folded
from sdegen.core.sde import SDE
from sdegen.core.shapes import State


def enclosure_for(sde: object, boundary: object, event: Sequence[int]) -> Enclosure | None:
    """Return what bounds the states of some dynamics, of a phase space by its positions.

    Args:
        sde: What moves.
        boundary: As `enclosure_of` takes it.
        event: Shape of the event, of a phase space (2, *event).

    Raises:
        TypeError: If something is of another kind.
        ValueError: If a boundary is one of velocities, does not say what becomes of them, or does
            not fit the event.
    """
    event = tuple(event)
    if boundary is None or not (isinstance(sde, SDE) and sde.phase_space):
        return enclosure_of(boundary, event)
    if len(event) < 2 or event[0] != 2:
        return None  # no phase space: the dynamics refuse it
    read = enclosure_of(_of_positions(boundary, event), event[1:])
    if read is None:
        return None
    for _, interval in read.parts:
        for one in interval.boundaries:
            if one.step_law is None:
                raise ValueError(
                    f"{type(one).__name__} does not say what becomes of a velocity; in a phase "
                    "space take Reflecting, Absorbing or Periodic."
                )
    parts = tuple((read.columns(columns), interval) for columns, interval in read.parts)
    return replace(read, event=event, parts=parts, phase_space=True)


def _of_positions(boundary: object, event: tuple[int, ...]) -> object:
    """Return the boundary with the names that coordinates of positions have; refuse velocities."""
    count = prod(event[1:])
    if isinstance(boundary, Mapping):
        return {_position(key, event, count): value for key, value in boundary.items()}
    pair = isinstance(boundary, tuple) and all(isinstance(b, Boundary) for b in boundary)
    if isinstance(boundary, Sequence) and len(boundary) == 2 * count and not (pair and count == 1):
        for k, value in enumerate(boundary[count:], count):
            if value is not None:
                _refuse_velocity(k, count)
        return list(boundary[:count])
    return boundary


def _position(key: object, event: tuple[int, ...], count: int) -> object:
    """Return the name of a coordinate among those of the positions."""
    if isinstance(key, tuple) and len(key) == len(event):
        if key[0] == 0:
            return key[1:]
        if key[0] == 1:
            _refuse_velocity(key, count)
    if isinstance(key, int) and count <= key < 2 * count:
        _refuse_velocity(key, count)
    return key


def _refuse_velocity(key: object, count: int) -> NoReturn:
    """Refuse a boundary of velocities."""
    raise ValueError(
        f"boundary is for coordinate {key!r}, which is a velocity, and velocities have no ends: "
        f"pass boundary={{0: …}} for a position; they are 0 … {count - 1}, and a wall reverses "
        "the velocity of its own."
    )


@dataclass(frozen=True)
class Mirrors:
    """The reflecting walls of a phase space.

    Args:
        walls: What bounds the states, reflecting ends alone.
    """

    walls: Enclosure

    @classmethod
    def of(cls, enclosure: Enclosure) -> Mirrors | None:
        """Return the mirrors of a phase space; None where there are none."""
        if not enclosure.phase_space:
            return None
        walls = enclosure.only(lambda one: one.step_law is BoundaryCondition.NO_FLUX)
        return None if walls is None else cls(walls)

    def fold(self, state: State) -> tuple[State, Tensor]:
        """Return the state behind the walls as it is seen inside, and which numbers are reversed.

        Args:
            state: Positions and velocities, shape (batch, 2, *event).

        Returns:
            Positions between the walls, velocities with their signs; and a bool for each
            coordinate, shape (batch, *event).
        """
        place, reversed_ = self.fold_positions(state[:, 0])
        v = state[:, 1]
        return torch.stack([place, torch.where(reversed_, -v, v)], 1), reversed_

    def fold_positions(self, place: State) -> tuple[State, Tensor]:
        """Return positions between the walls, and which of them an odd number of mirrors shows."""
        flat = place.flatten(1)
        inside, odd = flat.clone(), torch.zeros_like(flat, dtype=torch.bool)
        for coordinates, interval in self.walls.parts:
            columns = list(self.walls.columns(coordinates))
            inside[:, columns], odd[:, columns] = folded(flat[:, columns], *interval.fixed)
        return inside.reshape(place.shape), odd.reshape(place.shape)

    def reverse(self, beyond: State, state: State) -> State:
        """Return a state with the velocities of positions that were beyond a wall reversed.

        Args:
            beyond: Where a step has led.
            state: The same with its positions brought back.
        """
        _, odd = self.fold_positions(beyond[:, 0].detach())
        if not bool(odd.any()):
            return state
        v = state[:, 1]
        return torch.stack([state[:, 0], torch.where(odd, -v, v)], 1)
