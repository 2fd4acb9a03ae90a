"""The law of steps without noise: the next state is a function of the state, to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep, refine
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import integrate
from sdegen.verification.innovations.law import Innovations, StepLaw, is_even, size_of


class StillLaw(StepLaw):
    """The law of a solver's steps, `substeps` from a stored state to the next, without noise.

    Args:
        sde: What moves, by belief.
        solver: How it moves, remembering nothing.
        nodes: Times of the states, shape (steps + 1,).
    """

    by_coordinate = True  # there is no z

    def __init__(self, sde: SDE, solver: FixedStep, nodes: Tensor) -> None:
        self.name: str = type(solver).__name__
        self._sde = sde
        self._solver = solver
        self._nodes = nodes
        self.alike: bool = bool(sde.autonomous) and is_even(nodes)

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return what is left of the equations; x and after have shape (n, *event)."""
        i = 0 if self.alike else i
        nodes = refine(self._nodes[i : i + 2], self._solver.substeps)
        *_, expected = integrate(self._sde, self._solver, x, nodes)
        rows, gap = x.reshape(len(x), -1), (after - expected).reshape(len(x), -1)
        none, zeros = rows[:, :0], torch.zeros(len(x), dtype=torch.float64)
        size = size_of(rows, (expected - x).reshape(rows.shape))
        return Innovations(none, none, zeros, gap, size)
