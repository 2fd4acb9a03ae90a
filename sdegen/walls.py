"""Walls: the words for what happens at the ends of a space, and a box of them.

    "no-flux"      what arrives is sent back; probability is kept (Skorokhod reflection)
    "absorbing"    what arrives stays there for good; probability leaves
    "periodic"     what leaves at one end comes in at the other

The words are `FokkerPlanck`'s boundary, where the grid says where the ends are. `Walls` is a box
with a word for each end; `Reflecting`, `Absorbing` and `Periodic` of `sdegen.boundary` are the
same three, one coordinate at a time.
"""

from dataclasses import dataclass, field
from math import isinf, isnan
from numbers import Real
from typing import Literal, get_args

import numpy as np
import torch

from sdegen.shapes import State

__all__ = ["WallKind", "Walls", "check_wall_kind", "contained"]

WallKind = Literal["no-flux", "absorbing", "periodic"]


def check_wall_kind(kind: str, argument: str) -> None:
    """Refuses a word that is no wall.

    Raises:
        ValueError: Naming the argument, what came, and the words there are.
    """
    if not (isinstance(kind, str) and kind in get_args(WallKind)):
        words = ", ".join(repr(word) for word in get_args(WallKind))
        raise ValueError(f"{argument} must be one of {words}, but is {kind!r}.")


@dataclass(frozen=True)
class Walls:
    """A box [low, high] for a state of one coordinate, or for each of several.

    Args:
        low: Lower end, in units of the state; −∞ where there is none.
        high: Upper end; ∞ where there is none.
        kind: What both walls do, or a pair (lower, upper).
        coordinates: "all" where the box is meant for each coordinate of a state of several.

    Raises:
        TypeError: If an end is no number.
        ValueError: If low ≥ high, a word is unknown, or only one wall is periodic.
    """

    low: float
    high: float
    kind: WallKind | tuple[WallKind, WallKind] = "no-flux"
    coordinates: Literal["all"] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value: object = getattr(self, name)
            if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
                object.__setattr__(self, name, float(value))
            elif isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(
                    f"{name} of Walls must be one number, but is {value!r}; for ends of each "
                    "coordinate pass boundary={0: Reflecting(…), 1: Reflecting(…)}."
                )
        if isnan(self.low) or isnan(self.high) or not self.low < self.high:
            raise ValueError(
                f"walls need low < high, but low = {self.low:g}, high = {self.high:g}."
            )
        if self.coordinates not in (None, "all"):
            raise ValueError(f"coordinates must be None or 'all', but is {self.coordinates!r}.")
        for kind in self.kinds:
            check_wall_kind(kind, "kind")
        if "periodic" in self.kinds and self.kinds[0] != self.kinds[1]:
            raise ValueError(f"a periodic wall needs its partner, but kind is {self.kind!r}.")
        if isinf(self.low) and isinf(self.high):
            raise ValueError(
                "walls need an end, but low = -inf, high = inf; pass Walls(0.0, inf)."
            )
        if "periodic" in self.kinds and (isinf(self.low) or isinf(self.high)):
            raise ValueError(
                f"a period has two ends, but low = {self.low:g}, high = {self.high:g}; pass "
                "Walls(low, low + period, 'periodic')."
            )

    @property
    def kinds(self) -> tuple[WallKind, WallKind]:
        """The kind of the lower and of the upper wall."""
        return self.kind if isinstance(self.kind, tuple) else (self.kind, self.kind)

    def contain(self, before: State, after: State) -> State:
        """Bring a state that has just moved back into the box.

        Args:
            before: State before the step; a trajectory that sits on an absorbing wall stays.
            after: State after the step.

        Returns:
            The state in [low, high], same shape.

        >>> Walls(0.0, 1.0).contain(torch.tensor([[0.1]]), torch.tensor([[-0.25]]))
        tensor([[0.2500]])
        """
        moved = contained(after, self.low, self.high, self.kinds)
        if "absorbing" not in self.kinds:
            return moved
        absorbed = torch.zeros_like(after, dtype=torch.bool)
        if self.kinds[0] == "absorbing":
            absorbed |= before <= self.low
        if self.kinds[1] == "absorbing":
            absorbed |= before >= self.high
        rows = absorbed.flatten(1).any(1)
        return torch.where(rows.reshape((-1,) + (1,) * (after.ndim - 1)), before, moved)


def contained(
    after: State, low: float, high: float, kinds: tuple[WallKind | None, WallKind | None]
) -> State:
    """Fold back, stop or wrap what has just moved.

    Args:
        after: Where a step has led, any shape.
        low: Lower end, −∞ where there is none.
        high: Upper end, ∞ where there is none.
        kinds: What the ends do.

    Returns:
        The place in [low, high], same shape; what is infinite or NaN does not become finite.
    """
    if "absorbing" in kinds:
        # a state that exploded has not arrived: clamped, it would pass for one that did
        moved = torch.where(after.isinf(), torch.nan, after)
        moved = _met(moved, kinds[0], low, -1.0)
        moved = _met(moved, kinds[1], high, +1.0)
        return moved.clamp(low, high)  # a reflection that overshoots the far wall stops there
    if isinf(low) or isinf(high):
        wall, outward = (low, -1.0) if isinf(high) else (high, 1.0)
        return _met(after, "no-flux", wall, outward)
    if kinds[0] == "periodic":
        moved = low + torch.remainder(after - low, high - low)
    else:
        # one fold of the line onto [0, 2L) and one at L handle any overshoot
        folded = torch.remainder(after - low, 2 * (high - low))
        moved = low + torch.minimum(folded, 2 * (high - low) - folded)
    # inside, low + (x − low) would only add rounding, step after step
    return torch.where((after >= low) & (after <= high), after, moved.clamp(low, high))


def _met(x: State, kind: WallKind | None, wall: float, outward: float) -> State:
    """Clamp at an absorbing wall, mirror at a reflecting one."""
    if kind is None or isinf(wall):
        return x
    beyond = outward * (x - wall) > 0
    there = torch.full_like(x, wall) if kind == "absorbing" else 2 * wall - x
    return torch.where(beyond, there, x)
