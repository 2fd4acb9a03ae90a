"""Boundaries: the ends of the space a coordinate lives in, the same for particles and densities.

    Reflecting(low, high)   what arrives is sent back; probability is kept (Skorokhod reflection)
    Absorbing(low, high)    what arrives stays there for good; probability leaves
    Periodic(low, high)     what leaves at one end comes in at the other

Either end may be left out where only the other is one: `Reflecting(0.0)` keeps a coordinate above
0, `Absorbing(high=1.0)` stops what comes to 1. The ends of `Absorbing` may be functions of t.

A boundary belongs to one coordinate. A state of several has one for each that needs any:

    boundary={0: Periodic(0.0, 2 * pi)}                 coordinate 0 of the flattened event
    boundary={(1, 0): Reflecting(0.0)}                  coordinate [1, 0] of an event of two axes
    boundary=[Periodic(0.0, 2 * pi), None]              one entry for each, None where it is free
    boundary={0: (Reflecting(0.0), Absorbing(high=1.0))}    a lower and an upper end of two kinds

and `coordinates="all"` says that one box is meant for each of them. A trajectory that has met an
absorbing end with any of its coordinates stays where it is with all of them: what is absorbed is
the trajectory. In a phase space the coordinates are those of the positions
(`sdegen.core.mirrors`).

**A class of your own** says what it does to a step (`apply`), and declares what others ask of it.
Simulations take it as it is. What needs the law of its steps, or of the density in the limit of
short ones, asks for `step_law` and `condition`, and refuses a class that declares none.

What a step of the chain does at an end is in `sdegen.engine.containment`, how the boundaries of
several coordinates are read in `sdegen.core.enclosure`. The words of
`boundary_words.py` name the same three where a grid says where the ends are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from sdegen.core.bounds import Bound, number_of
from sdegen.core.conditions import BoundaryCondition
from sdegen.core.folding import folded
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State


@dataclass(frozen=True)
class BoundaryStep:
    """What a boundary may know of the step that it acts on.

        x' = boundary.apply(x, x + dt f + √|dt| g z, step),   dt = |s − t|

    Attributes:
        t: Time before the step, 0-d.
        s: Time after it.
        dt: |s − t|.
        low: Lower end at s; −∞ where there is none.
        high: Upper end at s; ∞ where there is none.
        diffusion: diffusion() is g at the state before the step, shape () or that of the
            coordinates; of noise with channels √(G Gᵀ)_ii, that of each coordinate by itself.
        uniform: uniform(like) draws numbers from [0, 1), float64, of the boundary's own stream.

    Example:
        >>> t, s = torch.tensor(0.0), torch.tensor(0.1)
        >>> step = sg.BoundaryStep(t, s, 0.1, 0.0, 1.0, lambda: torch.tensor(1.0), torch.rand_like)
        >>> sg.Reflecting(0.0, 1.0).apply(torch.tensor([0.75]), torch.tensor([1.25]), step)
        tensor([0.7500])
    """

    t: Tensor
    s: Tensor
    dt: float
    low: float
    high: float
    diffusion: Callable[[], Tensor]
    uniform: Callable[[Tensor], Tensor]


@runtime_checkable
class Contained(Protocol):
    """What brings the states of one run back inside a boundary; `contain` makes one.

    Attributes:
        asks_noise: Whether `apply` must be told the normal draw of a step, by `RememberedNoise`.
    """

    asks_noise: bool

    def apply(self, before: State, after: State, i: int, noise: Noise | None) -> State:
        """Return the states at nodes[i + 1].

        Args:
            before: States at nodes[i].
            after: Where the step has led.
            i: Number of the step.
            noise: What the step drew from.
        """

    def dynamics(self, sde: SDE) -> SDE:
        """Return what a solver is to move, in the place of some dynamics."""


@dataclass(frozen=True)
class Boundary(ABC):
    """What happens at the ends of a coordinate; `Reflecting`, `Absorbing`, `Periodic` are ones.

        x' = apply(x, x + dt f + √|dt| g z)  ∈  [low, high]

    A class of your own defines `apply`, or is a `PositionBoundary` and defines `contain`. It
    inherits from one of these two: who overrides what `Reflecting` does has another boundary.

    Args:
        low: Lower end, in units of the state; −∞ where there is none.
        high: Upper end; ∞ where there is none.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    Attributes:
        condition: What the density satisfies in the limit of short steps; None where that is none
            of those that a grid knows.
        step_law: The condition whose image sum is the law of one step of any length: a Gaussian
            folded back, cut off, or wrapped; None where it is none of these.
        absorbs: Whether a trajectory is over once it sits on an end, or beyond.
        wraps: Whether both ends are one place; turns are then counted.
        by_position: Whether where a coordinate comes to depends on where the step led alone.
        may_move: Whether an end may be a function of t.
        positive_step: Whether a step is replaced by one that stays on this side by construction
            where the noise vanishes at an end (`sdegen.engine.positive_step`).

    Raises:
        TypeError: If an end is no number, or a class declares what contradicts itself.
        ValueError: If low ≥ high, there is no end at all, or coordinates is another word.

    Example:
        >>> class Stopping(sg.Boundary):
        ...     def apply(self, before, after, step):  # both like the state, shape (batch, d)
        ...         return after.clamp(step.low, step.high)
        >>> fall = sg.ItoProcess(lambda x: -1 - 0 * x, 0.0)
        >>> fallen = sg.simulate(fall, torch.ones(1, 1), [0.0, 0.5, 2.0], boundary=Stopping(0.0))
        >>> fallen.states.flatten().tolist()
        [1.0, 0.5, 0.0]
    """

    low: Bound = -math.inf
    high: Bound = math.inf
    coordinates: Literal["all"] | None = field(default=None, kw_only=True)

    condition: ClassVar[BoundaryCondition | None] = None
    step_law: ClassVar[BoundaryCondition | None] = None
    absorbs: ClassVar[bool] = False
    wraps: ClassVar[bool] = False
    by_position: ClassVar[bool] = False
    may_move: ClassVar[bool] = False
    positive_step: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in {"apply", "contain"} & set(vars(cls)):
            inherited = getattr(super(cls, cls), name, None)
            if not getattr(inherited, "__isabstractmethod__", inherited is None):
                raise TypeError(
                    f"{cls.__name__} overrides {name} of another boundary, whose law others rely "
                    "on; derive it from Boundary, and declare what it is."
                )
        for law in (cls.condition, cls.step_law):
            if law is not None and (law.absorbs, law.wraps) != (cls.absorbs, cls.wraps):
                raise TypeError(
                    f"{cls.__name__} declares {law!r}, but absorbs = {cls.absorbs} and wraps = "
                    f"{cls.wraps}; {law!r} has absorbs = {law.absorbs}, wraps = {law.wraps}."
                )

    def __post_init__(self) -> None:
        name = type(self).__name__
        for end in ("low", "high"):
            at = getattr(self, end)
            if not (self.may_move and callable(at)):  # a function of t is left as it is
                object.__setattr__(self, end, number_of(end, name, at))
        if self.coordinates not in (None, "all"):
            raise ValueError(
                f"coordinates must be None or 'all', but is {self.coordinates!r}; for some of "
                f"them pass boundary={{0: {name}(…)}}."
            )
        low, high = self.low, self.high
        if callable(low) or callable(high):
            return
        if not low < high:
            raise ValueError(f"{name} needs low < high, but low = {low:g}, high = {high:g}.")
        if math.isinf(low) and math.isinf(high):
            raise ValueError(f"{name} has no end; pass {name}(0.0) or {name}(high=1.0).")
        if self.wraps and not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"a period has two ends, but low = {low:g}, high = {high:g}; pass "
                f"{name}(low, low + period)."
            )

    @abstractmethod
    def apply(self, before: Tensor, after: Tensor, step: BoundaryStep) -> Tensor:
        """Bring back inside what has just moved.

        Args:
            before: The coordinates before the step: like the state, or shape (batch, coordinates)
                where the boundary is one of some of them.
            after: Where the step led.
            step: What else is known of it.

        Returns:
            The coordinates after the step, in [low, high], a new tensor of the same shape.
        """

    @property
    def bridged(self) -> bool:
        """Whether paths that touch an end between two steps are absorbed too."""
        return False

    @property
    def ends(self) -> tuple[End | None, End | None]:
        """The lower and the upper end, None where there is none."""
        low, high = (
            End(self, at) if callable(at) or math.isfinite(at) else None
            for at in (self.low, self.high)
        )
        return low, high


@dataclass(frozen=True)
class End:
    """What bounds one coordinate on one side.

    Attributes:
        boundary: Whose end it is.
        at: Where, a number or a function of t.
    """

    boundary: Boundary
    at: Bound


@dataclass(frozen=True)
class PositionBoundary(Boundary):
    """A boundary that asks of a step where it led, and nothing else.

        x' = contain(x + dt f + √|dt| g z, low, high)

    Args:
        low: Lower end; −∞ for none.
        high: Upper end; ∞ for none.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    Example:
        >>> class Stopping(sg.PositionBoundary):
        ...     def contain(self, x, low, high):  # x of any shape
        ...         return x.clamp(low, high)
        >>> Stopping(0.0, 1.0).contain(torch.tensor([-0.25, 0.5]), 0.0, 1.0).tolist()
        [0.0, 0.5]
    """

    by_position: ClassVar[bool] = True

    @abstractmethod
    def contain(self, x: Tensor, low: float, high: float) -> Tensor:
        """Bring numbers back inside, each by itself.

        Args:
            x: Where a step has led, any shape.
            low: Lower end, −∞ where there is none.
            high: Upper end, ∞ where there is none.

        Returns:
            The place in [low, high], same shape; what is infinite or NaN does not become finite.
        """

    def apply(self, before: Tensor, after: Tensor, step: BoundaryStep) -> Tensor:
        """Bring back inside what has just moved, by its place alone."""
        return self.contain(after, step.low, step.high)


@dataclass(frozen=True)
class Reflecting(PositionBoundary):
    """What arrives is sent back; probability is kept.

        J = 0 at an end;   x' = low + |x − low| of a step that ends below it

    Where the noise vanishes at an end, as √x does at 0, folding would push trajectories away; a
    step that keeps to this side is taken instead (`sdegen.engine.positive_step`). Where noise is
    correlated with that of other coordinates, these move too (`sdegen.engine.oblique`).

    Args:
        low: Lower end; −∞ for none.
        high: Upper end; ∞ for none.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    Example:
        >>> moved = torch.tensor([-0.25, 0.5, 1.25])  # any shape
        >>> sg.Reflecting(0.0, 1.0).contain(moved, 0.0, 1.0).tolist()
        [0.25, 0.5, 0.75]
    """

    condition: ClassVar[BoundaryCondition] = BoundaryCondition.NO_FLUX
    step_law: ClassVar[BoundaryCondition] = BoundaryCondition.NO_FLUX
    positive_step: ClassVar[bool] = True

    def contain(self, x: Tensor, low: float, high: float) -> Tensor:
        """Mirror at the ends, as often as it takes."""
        return folded(x, low, high)[0]


@dataclass(frozen=True)
class Absorbing(PositionBoundary):
    """What arrives stays there for good; probability leaves.

        p = 0 at an end;   P(a bridge from x to x' touches b) = exp(−2 (b − x)(b − x')/(g² dt))

    Args:
        low: Lower end, a number or a function of t; −∞ for none.
        high: Upper end, likewise; ∞ for none.
        bridge: Whether paths that touch an end between two steps, where the chain does not see
            it, are absorbed too.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    Example:
        >>> moved = torch.tensor([-0.25, 0.5, 1.25])  # any shape
        >>> sg.Absorbing(0.0, 1.0).contain(moved, 0.0, 1.0).tolist()
        [0.0, 0.5, 1.0]
    """

    bridge: bool = field(default=True, kw_only=True)

    condition: ClassVar[BoundaryCondition] = BoundaryCondition.ABSORBING
    step_law: ClassVar[BoundaryCondition] = BoundaryCondition.ABSORBING
    absorbs: ClassVar[bool] = True
    may_move: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.bridge, bool):
            raise TypeError(f"bridge must be True or False, but is {self.bridge!r}.")

    @property
    def bridged(self) -> bool:
        """Whether paths that touch an end between two steps are absorbed too."""
        return self.bridge

    def contain(self, x: Tensor, low: float, high: float) -> Tensor:
        """Stop at the ends."""
        # a state that exploded has not arrived: clamped, it would pass for one that did
        x = torch.where(x.isinf(), torch.nan, x)
        if math.isfinite(low):
            x = torch.where(x < low, torch.full_like(x, low), x)
        if math.isfinite(high):
            x = torch.where(x > high, torch.full_like(x, high), x)
        return x.clamp(low, high)


@dataclass(frozen=True)
class Periodic(PositionBoundary):
    """What leaves at one end comes in at the other: [low, high] is one period of the dynamics.

        x' = low + (x − low) mod L,   p(low) = p(high),   J(low) = J(high)

    Args:
        low: Lower end.
        high: Upper end, low + L.
        coordinates: "all" where one box is meant for each coordinate of a state of several.

    Example:
        >>> moved = torch.tensor([-0.25, 0.5, 1.25])  # any shape
        >>> sg.Periodic(0.0, 1.0).contain(moved, 0.0, 1.0).tolist()
        [0.75, 0.5, 0.25]
    """

    condition: ClassVar[BoundaryCondition] = BoundaryCondition.PERIODIC
    step_law: ClassVar[BoundaryCondition] = BoundaryCondition.PERIODIC
    wraps: ClassVar[bool] = True

    def contain(self, x: Tensor, low: float, high: float) -> Tensor:
        """Wrap around."""
        moved = (low + torch.remainder(x - low, high - low)).clamp(low, high)
        # inside low + (x − low) would add rounding, step after step
        return torch.where((x >= low) & (x <= high), x, moved)
