"""Walls: the ends of the space a state lives in, the same words for particles and densities.

    "no-flux"      what arrives is sent back; probability is kept (Skorokhod reflection)
    "absorbing"    what arrives stays there for good; probability leaves
    "periodic"     what leaves at one end comes in at the other

`Walls` is what `simulate` takes, the same words are `FokkerPlanck`'s boundary. After each step of
the chain the state is folded back, stopped or wrapped. Between two steps a path may have touched a
wall unseen, so that absorption is too slow by O(√dt): halve dt and compare, or ask the
Fokker–Planck solver.

A trajectory that has met an absorbing wall with any of its coordinates stays where it is with all
of them: what is absorbed is the trajectory.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import torch

from sdegen.shapes import State

__all__ = ["WallKind", "Walls", "check_wall_kind"]

WallKind = Literal["no-flux", "absorbing", "periodic"]


def check_wall_kind(kind: str, argument: str) -> None:
    """Refuses a word that is no wall.

    Raises:
        ValueError: Naming the argument, what came, and the words there are.
    """
    if kind not in get_args(WallKind):
        words = ", ".join(repr(word) for word in get_args(WallKind))
        raise ValueError(f"{argument} must be one of {words}, but is {kind!r}.")


@dataclass(frozen=True)
class Walls:
    """A box [low, high], the same for every coordinate of a state.

    Args:
        low: Lower end, in units of the state.
        high: Upper end.
        kind: What both walls do, or a pair (lower, upper).

    Raises:
        ValueError: If low ≥ high, a word is unknown, or only one wall is periodic.
    """

    low: float
    high: float
    kind: WallKind | tuple[WallKind, WallKind] = "no-flux"

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"walls need low < high, but low = {self.low:g}, high = {self.high:g}."
            )
        for kind in self.kinds:
            check_wall_kind(kind, "kind")
        if "periodic" in self.kinds and self.kinds[0] != self.kinds[1]:
            raise ValueError(f"a periodic wall needs its partner, but kind is {self.kind!r}.")

    @property
    def kinds(self) -> tuple[WallKind, WallKind]:
        """The kind of the lower and of the upper wall."""
        return self.kind if isinstance(self.kind, tuple) else (self.kind, self.kind)

    def contain(self, before: State, after: State) -> State:
        """Brings a state that has just moved back into the box.

        Args:
            before: State before the step; a trajectory that sits on an absorbing wall stays.
            after: State after the step.

        Returns:
            The state in [low, high], same shape.

        >>> Walls(0.0, 1.0).contain(torch.tensor([[0.1]]), torch.tensor([[-0.25]]))
        tensor([[0.2500]])
        """
        if "absorbing" in self.kinds:
            return self._stopped(before, after)
        low, high = self.low, self.high
        if self.kinds[0] == "periodic":
            moved = low + torch.remainder(after - low, high - low)
        else:
            # one fold of the line onto [0, 2L) and one at L handle any overshoot
            folded = torch.remainder(after - low, 2 * (high - low))
            moved = low + torch.minimum(folded, 2 * (high - low) - folded)
        # inside, low + (x − low) would only add rounding, step after step
        return torch.where((after >= low) & (after <= high), after, moved.clamp(low, high))

    def _stopped(self, before: State, after: State) -> State:
        """The state where one wall absorbs, or both do."""
        low, high = self.low, self.high
        # a state that exploded has not arrived: clamped, it would pass for one that did
        moved = torch.where(after.isinf(), torch.nan, after)
        moved = self._meet(moved, self.kinds[0], low, -1.0)
        moved = self._meet(moved, self.kinds[1], high, +1.0)
        moved = moved.clamp(low, high)  # a reflection that overshoots the far wall stops there
        absorbed = torch.zeros_like(after, dtype=torch.bool)
        if self.kinds[0] == "absorbing":
            absorbed |= before <= low
        if self.kinds[1] == "absorbing":
            absorbed |= before >= high
        rows = absorbed.flatten(1).any(1)
        return torch.where(rows.reshape((-1,) + (1,) * (after.ndim - 1)), before, moved)

    @staticmethod
    def _meet(x: State, kind: WallKind, wall: float, outward: float) -> State:
        """Clamps at an absorbing wall, mirrors at a reflecting one."""
        beyond = outward * (x - wall) > 0
        there = torch.full_like(x, wall) if kind == "absorbing" else 2 * wall - x
        return torch.where(beyond, there, x)
