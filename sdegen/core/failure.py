"""Failure: how a step says that it has no next state, and in which step a function raised."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Failure:
    """Why a solver that chooses its own steps could not go on.

    Attributes:
        rows: Which trajectories, shape (batch,).
        why: What kept them, and what to do.
        t: The time up to which it was seen.
    """

    rows: Tensor
    why: str
    t: float


class SolverStopped(Exception):
    """Ends a loop whose solver has no next state; its `failure` says why, if it was not Ctrl-C."""


def add_step_note(error: Exception, i: int, nodes: Tensor) -> None:
    """Say in which step a user's drift raised."""
    error.add_note(f"in step {i} of {len(nodes) - 1}, at t = {float(nodes[i]):g}")
