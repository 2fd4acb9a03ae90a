"""The one-step kernel: the score of the last step of a path.

    H = ∇_x log N(x; X_s + h f, h G Gᵀ) = −(G Gᵀ)⁻¹ (X_t − X_s − h f)/h

G is taken at X_s, on which neither the normalisation nor f at the end depend: the formula is that
of multiplicative noise too. It takes no derivative, and its variance is d/(g² h): the smaller the
step, the noisier.

Reference:
    Vincent 2011, eq. (9), for the transition of one step.
"""

from __future__ import annotations

from typing import ClassVar

from sdegen.core.shapes import State
from sdegen.score.targets.base import Node, PathStep, Target


class OneStepKernel(Target):
    """H = −M⁻ᵀ z/√h of the last step."""

    needs_slopes: ClassVar[bool] = False

    def begin(self, node: Node) -> State | None:
        """Return nothing: there is no step yet."""
        return None

    def advance(self, memory: State | None, step: PathStep) -> State:
        """Return H of the step."""
        return step.before.frame.inverse_transposed_times(step.z) * (-1 / step.root)

    def value(self, memory: State, node: Node) -> State:
        """Return H of the last step."""
        return memory
