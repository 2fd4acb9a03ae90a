"""Boundaries of correlated noise: along which way a state is sent back, and what is refused.

Where the noises of coordinates are correlated, no probability flows through a wall of coordinate i
if states are sent back along the conormal, the column i of C = G Gᵀ:

    x ← x + (x'_i − x_i) C e_i/C_ii        x'_i = 2b − x_i, the mirror image in the wall

In coordinates in which the noise is white that is the plain mirror, so that at one wall with
constant G a step is exact. It stays in the range of G: what all reactions conserve, a wall
conserves. To fold x_i alone would carry states along the wall, and the law would not be that of
`FokkerPlanck2D`. In a corner the walls take turns.

What is coordinate by coordinate alone is refused where these are correlated: bridges at several
absorbing ends, positive steps, and boundaries that see more than where a step led.

Reference:
    Freidlin 1985, Functional Integration and Partial Differential Equations, section 1.6, for the
    conormal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.channels import are_correlated
from sdegen.core.enclosure import Enclosure, Interval
from sdegen.core.sde import SDE
from sdegen.core.shapes import State

_TURNS = 8  # of the walls of a corner; what is outside after them is folded as it is

_Wall = tuple[Interval, tuple[int, ...], Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Oblique:
    """What correlated noise asks of a boundary.

    Attributes:
        sde: Dynamics with channels and several coordinates.
        walls: Intervals that send back by position alone, with their coordinates, and where their
            ends are at each node.
        refused: Coordinates whose noise must not be correlated with others, these, and what to
            say.
    """

    sde: SDE
    walls: tuple[_Wall, ...]
    refused: tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...]

    @classmethod
    def of(
        cls,
        enclosure: Enclosure,
        sde: SDE,
        ends: Sequence[tuple[Sequence[float], Sequence[float]]],
        vanishing: Sequence[bool],
        bridged: bool,
    ) -> Oblique:
        """Return it.

        Args:
            enclosure: What bounds the states.
            sde: What moves.
            ends: Of each part, its lower and upper ends at each node.
            vanishing: Whether a part has an end without noise, where steps are positive.
            bridged: Whether bridges are drawn.
        """
        columns = [enclosure.columns(coordinates) for coordinates, _ in enclosure.parts]
        every = tuple(range(len(enclosure.columns(None))))
        walls, refused = [], []
        name = type(sde).__name__
        for k, (_, part) in enumerate(enclosure.parts):
            kinds = {type(boundary).__name__ for boundary in part.boundaries}
            sends_back = not all(b.absorbs and b.by_position for b in part.boundaries)
            if vanishing[k]:
                told = (
                    f"a reflecting end where the noise vanishes takes a step with a noise of its "
                    f"own, but that of coordinates {columns[k]} of {name} is correlated with "
                    "others; pass a subclass of Reflecting with positive_step = False, which "
                    "mirrors a step, at an error of O(√dt)."
                )
                refused.append((columns[k], every, told))
            elif not part.wraps and sends_back and (part.absorbs or not part.by_position):
                told = (
                    f"{' with '.join(sorted(kinds))} sends coordinates {columns[k]} back one by "
                    f"one, but their noise, of {name}, is correlated with that of others, so that "
                    "the others must move too; use Reflecting or Absorbing alone there."
                )
                refused.append((columns[k], every, told))
            elif not part.wraps and sends_back:
                walls.append((part, columns[k], *ends[k]))
        corner = enclosure.bridged_columns() if bridged else ()
        if len(corner) > 1:
            told = (
                f"coordinates {corner} have absorbing ends, and their noises, of {name}, are "
                "correlated: near a corner the chances to touch one or the other between two "
                "steps are not known; pass Absorbing(…, bridge=False), whose error is O(√dt), for "
                "all of them or for all but one."
            )
            refused.append((corner, corner, told))
        return cls(sde, tuple(walls), tuple(refused))

    def check(self, x: State, t: Tensor) -> None:
        """Refuse what is coordinate by coordinate alone, where noises are correlated.

        Raises:
            ValueError: With what to do.
        """
        for columns, others, told in self.refused:
            if are_correlated(self.sde, x, t, columns, others):
                raise ValueError(told)

    def sent_back(self, before: State, after: State, t: Tensor, i: int) -> State:
        """Return states after a step, what is beyond a wall sent back along the conormal.

        Args:
            before: States before the step, at which the noise is asked.
            after: Where it led.
            t: Its time.
            i: Number of the node at which it ends.
        """
        y, conormals = after.flatten(1), None
        for _ in range(_TURNS):
            still = True
            for part, columns, lows, highs in self.walls:
                for c in columns:
                    shift = part.contain(y[:, c : c + 1], lows[i], highs[i]) - y[:, c : c + 1]
                    if not bool((shift != 0).any()):
                        continue
                    if conormals is None:
                        G = self.sde.diffusion(before, t).flatten(1, -2)
                        conormals = G @ G.mT
                    own = conormals[:, c, c, None]
                    along = torch.where(own > 0, conormals[:, :, c] / own, 0.0)
                    along[:, c] = 1.0
                    y, still = torch.where(shift != 0, y + shift * along, y), False
            if still:
                break
        return y.reshape(after.shape)
