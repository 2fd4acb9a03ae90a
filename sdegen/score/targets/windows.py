"""Windows: a target that begins anew every half window, and is read when it is older than that.

Two of them are open at any time, of which the older is read: its age is between w/2 and w, or that
of the path where that is shorter.
"""

from __future__ import annotations

from typing import ClassVar

from sdegen.core.shapes import State
from sdegen.score.targets.base import Memory, Node, PathStep, Target

_ROUNDING = 1e-9  # of a window, by which ages that are added up may miss its half

Open = tuple[Memory, float]  # of a target, and its age


class Windowed(Target):
    """A target of windows of a path.

    Args:
        target: What each window is.
        window: w > 0, its longest age.
    """

    needs_slopes: ClassVar[bool] = True

    def __init__(self, target: Target, window: float) -> None:
        self.target: Target = target
        self.half: float = window / 2

    def begin(self, node: Node) -> list[Open]:
        """Open the first."""
        return [(self.target.begin(node), 0.0)]

    def advance(self, memory: list[Open], step: PathStep) -> list[Open]:
        """Add a step to all that are open; close the older and open another, where it is time."""
        opened = [(self.target.advance(own, step), age + step.h) for own, age in memory]
        if opened[-1][1] >= self.half * (1 - _ROUNDING):
            return [opened[-1], (self.target.begin(step.after), 0.0)]
        return opened

    def value(self, memory: list[Open], node: Node) -> State:
        """Read the older."""
        return self.target.value(memory[0][0], node)
