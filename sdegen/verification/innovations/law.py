"""The law of one step, turned round: from two stored states to the noise between them.

A step of a solver is a function of the state and of standard normals,

    x' = F(x, z),        z ~ N(0, I)

and its innovations are z = F⁻¹(x, x'). If trajectories follow the law that is believed, they are
independent standard normals, independent of x, of t, of each other and of the past; each mistake
in drift, noise or step breaks one of these. No density and no reference simulation is needed, and
the number of coordinates does not matter.

What noise does not move is determined: there x' is a function of x and z, and `gap` is what is
left of the equation, which must be rounding.

Reference:
    Rosenblatt 1952, Ann. Math. Stat. 23, 470, for the transform of a chain to independent
    uniforms; Pedersen 1994, Scand. J. Stat. 21, 385, for residuals of diffusions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.readers.stored_states import StoredStates

UNITS = 2.0**14  # units in the last place that a few steps of arithmetic may leave
_TIMES = 1e-6  # relative error of a step by that of stored times


@dataclass(frozen=True)
class Innovations:
    """The noise of transitions, as it must have been under the law that is believed.

    Attributes:
        z: Standard normals, shape (n, k).
        pull: By how many standard deviations the step moves without noise, shape (n, k): a drift
            that is (1 + δ) times as strong moves z by δ pull.
        log_scale: log |det ∂x'/∂z|, shape (n,): log p(x' | x) = −½ |z|² − ½ k log 2π − log_scale.
        gap: What equations without noise leave, in units of the state, shape (n, q); None where
            noise moves all.
        scale: Size of what they were subtracted from, shape (n, q), by `size_of`: a gap is
            rounding if it is some ε of it.
        judged: Which transitions the law knows, shape (n,); None: all. It is decided by what was
            before the step.
    """

    z: Tensor
    pull: Tensor
    log_scale: Tensor
    gap: Tensor | None = None
    scale: Tensor | None = None
    judged: Tensor | None = None

    @property
    def log_density(self) -> Tensor:
        """log p(x' | x) of each transition, shape (n,)."""
        k = self.z.shape[1]
        squares = self.z.double().square().sum(1)
        return -0.5 * squares - 0.5 * k * math.log(2 * math.pi) - self.log_scale


class StepLaw(ABC):
    """The believed law of the steps from one stored state to the next.

    Attributes:
        name: What it is the law of, in words.
        alike: Whether all steps have one law, so that those of many frames are judged at once.
        redraws: Where z is not quite normal, how often each transition is redrawn, in each of the
            ways in which it may have come about; none where the law is exact.
        remembers: Whether a step depends on those before it, so that they are judged in a row, by
            `along`.
        by_coordinate: Whether each z is that of one coordinate, in a phase space of its velocity.
        starts_anywhere: Whether steps in a row may begin with any, or with the first alone.
    """

    name: str
    alike: bool
    remembers: bool = False
    by_coordinate: bool = False
    starts_anywhere: bool = True

    @property
    def takes_centre(self) -> bool:
        """Whether the motion of a centre can be left out of z."""
        return self.by_coordinate

    @property
    def redraws(self) -> tuple[int, ...]:
        """How often each transition is redrawn, in each way."""
        return ()

    @abstractmethod
    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return the noise of transitions.

        Args:
            x: States at times[i], shape (n, *event).
            after: States at times[i + 1].
            i: Number of the step; of steps that are all alike it does not matter.
        """

    def unscaled(self, x: State, after: State, i: int) -> Unscaled | None:
        """Return z and its pull but for their units, where these are two numbers; None elsewhere.

        It spares what reads very many transitions two passes over memory.
        """
        return None

    def along(self, x: State, first: int, memory: object) -> tuple[Innovations, object]:
        """Return the noise of steps in a row, of a law that `remembers`.

        Args:
            x: Frames, shape (F + 1, B, *event): F steps of B trajectories.
            first: Number of the first step.
            memory: What was returned for the steps before; None where a stretch begins.

        Returns:
            Innovations of F·B rows, those of a step together; and the memory.
        """
        raise NotImplementedError

    def calibrate(self, states: StoredStates, seed: int) -> None:  # noqa: B027, most need none
        """Look at the states that will be judged, before they are."""

    def redraw(self, x: State, i: int, way: int, seed: int, turn: int) -> State:
        """Return states after steps that are taken anew, where there are `redraws`.

        Args:
            x: States at times[i], shape (n, *event).
            i: Number of the step.
            way: In which of the ways.
            seed: Seed of all draws.
            turn: Number of the draw; other numbers give other noise.
        """
        raise NotImplementedError


class Unscaled(NamedTuple):
    """Innovations but for their units: z = unit · left, pull = pull_unit · drift.

    Attributes:
        left: What steps add to their means, shape (n, k).
        drift: f, shape (n, k).
        unit: Of z.
        pull_unit: Of the pull.
    """

    left: Tensor
    drift: Tensor
    unit: float
    pull_unit: float


def flat(x: Tensor, like: State) -> Tensor:
    """Return numbers that broadcast to a state as rows, shape (n, d)."""
    if x.shape != like.shape:
        x = x.to(like).expand(like.shape)
    return x.reshape(len(like), -1)


def log_of_sum(scales: Tensor) -> Tensor:
    """Return Σ log |s| over the last axis, in double precision."""
    return scales.abs().double().log().sum(-1)


def is_even(nodes: Tensor) -> bool:
    """Return whether all steps between nodes have one length, but for rounding."""
    gaps, size = nodes.diff(), float(nodes.abs().max())
    return bool((gaps - gaps[0]).abs().max() <= 1e-9 * gaps[0].abs() + 4e-16 * size)


def size_of(x: Tensor, moved: Tensor) -> Tensor:
    """Return the size of an equation x' = x + moved, of which a gap by rounding is some ε.

    A step counts for more than its digits: times are stored to seven of them at least, and a
    mistake changes it by more.

    Args:
        x: States, any shape.
        moved: By how much a step moves them, of their shape.
    """
    slack = _TIMES / (UNITS * torch.finfo(x.dtype).eps)
    size: Tensor = x.abs() + max(1.0, slack) * moved.abs()
    return size


def joined(parts: Sequence[Innovations]) -> Innovations:
    """Return innovations of steps one after the other as those of all."""
    first = parts[0]
    masks = [
        torch.ones(len(p.z), dtype=torch.bool) if p.judged is None else p.judged for p in parts
    ]
    judged = None if all(p.judged is None for p in parts) else torch.cat(masks)
    gaps = [p.gap for p in parts if p.gap is not None]
    sizes = [p.scale for p in parts if p.scale is not None]
    return Innovations(
        torch.cat([p.z for p in parts]),
        torch.cat([p.pull for p in parts]),
        torch.cat([p.log_scale for p in parts]),
        None if first.gap is None else torch.cat(gaps),
        None if first.scale is None else torch.cat(sizes),
        judged,
    )
