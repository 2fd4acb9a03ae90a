"""Frozen trajectories: what is no longer finite stays where it last was, and the others go on."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, rows_nonfinite
from sdegen.engine.containment import Containment, where_rows


class Freezing:
    """Holds trajectories that are not finite where they last were; the others go on.

    Args:
        x0: States at nodes[0].
        inside: What else brings states back, if anything does.

    Attributes:
        lost: Which trajectories are held, shape (batch,).
        asks_noise: Whether the boundary does.
    """

    def __init__(self, x0: State, inside: Containment | None) -> None:
        self._inside = inside
        self.asks_noise: bool = inside is not None and inside.asks_noise
        self.lost: Tensor = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)

    def dynamics(self, sde: SDE) -> SDE:
        """Return what a solver is to move."""
        return sde if self._inside is None else self._inside.dynamics(sde)

    def apply(self, before: State, after: State, i: int, noise: Noise | None) -> State:
        """Return the states after a step, with lost trajectories put back."""
        inside = self._inside
        if inside is not None:
            after = inside.apply(before, after, i, noise)
        self.lost = self.lost | rows_nonfinite(after)
        if inside is not None:
            inside.hold(self.lost)
        return where_rows(self.lost, before, after)
