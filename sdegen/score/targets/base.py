"""Target: an estimate of the score at the end of a simulated path, unbiased given that end.

    ∇ log p_t(x) = E[H | X_t = x]

The path is Euler's chain X_{k+1} = X_k + h f + √h M z (`frames.py`), whose steps have a density
in closed form. Move the path along a field v = (v_0, …, v_n), which may depend on the path, with
v_0 = 0 and v_n = e, and integrate by parts in the density of the whole path:

    e · ∇ log p_t(x) = E[ Σ_k ∂_{X_k} · v_k + v · ∇ log p(X_1, …, X_n | X_0) | X_n = x ]

So each field is a target, exact for the chain at any step; that of the SDE is O(h) away, as its
density is. Targets differ in their variance alone, and in the derivatives of f that they take.

A target walks along a path: `advance` adds a step to its memory, and `value` reads H at any time.

Reference:
    Bismut 1984, Large Deviations and the Malliavin Calculus; Elworthy and Li 1994, J. Funct. Anal.
    125, 252, theorem 2.1; on scores, arXiv:2503.16917.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from sdegen.core.noise import Given, Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.core.update import update
from sdegen.score.targets.frames import Frame, MatrixFrame, frame_of
from sdegen.score.targets.slopes import Slopes

Memory = Any


@dataclass(frozen=True)
class Node:
    """A state of a path, with the frame of the noise that leaves it.

    Args:
        x: State, shape (batch, *event).
        t: Time, 0-d, float64.
        frame: M at x and t.
    """

    x: State
    t: Time
    frame: Frame


@dataclass(frozen=True)
class PathStep:
    """One step of Euler's chain, from one node to the next.

    Args:
        sde: What moves.
        before: Where it began.
        after: Where it ended.
        h: Its length in time.
        z: Its noise in the coordinates of the frame, shape of x.
        field: The drift and its slopes where it began; None where the target needs none.
        probe: Independent standard normals, shape of x, for traces by Hutchinson's estimator.
    """

    sde: SDE
    before: Node
    after: Node
    h: float
    z: State
    field: Slopes | None
    probe: State

    @property
    def slopes(self) -> Slopes:
        """The slopes of the drift, of a target that needs them."""
        assert self.field is not None
        return self.field

    @property
    def root(self) -> float:
        """√h."""
        return math.sqrt(self.h)


class Target(ABC):
    """What a path says of the score at its end.

    Attributes:
        needs_slopes: Whether derivatives of the drift are taken, by autograd.
    """

    needs_slopes: ClassVar[bool] = True

    @abstractmethod
    def begin(self, node: Node) -> Memory:
        """Return the memory of a path that begins at a node."""

    @abstractmethod
    def advance(self, memory: Memory, step: PathStep) -> Memory:
        """Return the memory after one more step."""

    @abstractmethod
    def value(self, memory: Memory, node: Node) -> State:
        """Return H at the node that the last step ended at, shape of x; at least one was taken."""


def take_step(
    sde: SDE, node: Node, s: Time, noise: Noise, probes: Noise, *, slopes: bool
) -> PathStep:
    """Take one step of Euler's chain, and return it with its noise.

    Args:
        sde: What moves.
        node: Where the step begins.
        s: When it ends, 0-d, float64.
        noise: What draws z, of the channels of the sde.
        probes: What draws other normals, like the state.
        slopes: Whether the target needs slopes of the drift.
    """
    x, t, h = node.x, node.t, float(s - node.t)
    field = Slopes(lambda y: sde.drift(y, t), x) if slopes else None
    drift = sde.drift(x, t) if field is None else field.value
    drawn = noise.normal()
    after = sde.add_noise(update(x, drift, h), x, t, math.sqrt(h), Given(drawn))
    z = drawn
    if isinstance(node.frame, MatrixFrame):
        z = node.frame.inverse_times(sde.diffusion_times(x, t, drawn))
    end = Node(after, s, node.frame if is_constant(sde) else frame_of(sde, after, s))
    return PathStep(sde, node, end, h, z, field, probes.normal() if slopes else z)


def is_constant(sde: SDE) -> bool:
    """Return whether the noise is the same at all states and times."""
    return sde.constant_noise is not None or (sde.noise == "additive" and bool(sde.autonomous))
