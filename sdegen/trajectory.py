"""Trajectory: what a simulation returns, always the same thing.

Paths are time-first. `times` are the times that were asked for, however finely a solver walked
between them.
"""

from dataclasses import dataclass

from torch import Tensor

from sdegen.shapes import State

__all__ = ["Trajectory"]


@dataclass(frozen=True)
class Trajectory:
    """The paths of a simulation, and what it takes to judge and to repeat them.

    Attributes:
        times: Times of the states, shape (T,), float64, in the direction of travel.
        states: States, shape (T, batch, *event); T = 1, the last, with keep_path=False.
        nfe: Evaluations of the drift (of the score, for reverse dynamics) that one trajectory
            took.
        seed: What to pass as rng to get the same bits again.
        nonfinite: Which trajectories were lost, shape (batch,). All False unless
            on_nonfinite="freeze"; a lost one stays where it last was finite.
    """

    times: Tensor
    states: Tensor
    nfe: int
    seed: int
    nonfinite: Tensor

    @property
    def final(self) -> State:
        """The last states, shape (batch, *event)."""
        return self.states[-1]

    @property
    def finite(self) -> Tensor:
        """The states of the trajectories that were not lost, shape (T, kept, *event)."""
        return self.states[:, ~self.nonfinite]
