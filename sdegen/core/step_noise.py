"""Noise over known steps: increments, Lévy areas and space-time areas, in the units of time.

    increment(i)          ΔW = W(t_{i+1}) − W(t_i)
    space_time_area(i)    J = ∫ (W(s) − W(t_i)) ds
    space_time_moment(i)  M = ∫ |s − t_i| (W(s) − W(t_i)) ds
    areas(i)              A_kl = ½ ∫ [(W_k − W_k(t_i)) dW_l − (W_l − W_l(t_i)) dW_k]

with integrals over step i, h = |t_{i+1} − t_i| (`levy_areas.py` has their law). A solver that
`needs` them gets them from `integrate` and `simulate`: drawn step by step in a run of its own, or
summed along a `BrownianPath` that runs of other steps walk too.

Areas take more modes the more steps there are, so that a run gives all its nodes at once. Each of
the four is drawn only where it is asked for, from a stream of its own: none changes another, nor
the bits of `normal()`. Steps are asked for in order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from torch import Tensor

from sdegen.core.levy_areas import AreaDraws, Bridges, Draw, joined, modes_of
from sdegen.core.noise import Noise, Stream
from sdegen.core.requests import as_time_grid, check_kind
from sdegen.core.shapes import State
from sdegen.core.update import Number

T = TypeVar("T")


class StepNoise(Noise):
    """The noise of the steps between given nodes.

        ΔW = W(t_{i+1}) − W(t_i) ~ N(0, h),   J = ∫ (W(s) − W(t_i)) ds ~ N(0, h³/3)

    Args:
        noise: What draws, such as `Noise(x, rng=0, channels=3)`.
        nodes: Times at which steps begin and end, shape (steps + 1,), strictly monotone.

    Raises:
        TypeError, ValueError: If noise is no `Noise`, or the nodes are no such times.

    Attributes:
        draws: What is drawn, free of the scale of each step.

    Example:
        >>> noise = sg.StepNoise(sg.Noise(torch.zeros(100_000, 1), rng=0), [0.0, 2.0])
        >>> f"{noise.increment(0).var().item():.1f}, {noise.space_time_area(0).var().item():.1f}"
        '2.0, 2.7'
    """

    shared = True

    def __init__(self, noise: Noise, nodes: Tensor | Sequence[float]) -> None:
        check_kind("noise", noise, Noise, "a Noise, such as Noise(x, rng=0)")
        if not (isinstance(nodes, Tensor) and nodes.requires_grad):  # which flow through lengths
            nodes = as_time_grid(nodes, "nodes")
        self._begin(FreshDraws(noise, len(nodes) - 1), nodes, noise.channels, noise.stream)

    @classmethod
    def of(cls, draws: Draws, nodes: Tensor, channels: int | None, stream: Stream) -> StepNoise:
        """Return the noise of steps whose draws come from elsewhere, as along a Brownian path.

        Args:
            draws: One for each step.
            nodes: Shape (steps + 1,).
            channels: As `Noise` has it.
            stream: What a solver draws from that never calls normal().
        """
        made = cls.__new__(cls)
        made._begin(draws, nodes, channels, stream)
        return made

    def _begin(self, draws: Draws, nodes: Tensor, channels: int | None, stream: Stream) -> None:
        """Hold the draws and the lengths of the steps."""
        self.draws: Draws = draws
        self.channels: int | None = channels
        self.stream: Stream = stream
        self.normal: Callable[[], State] = draws.normal
        self._nodes = nodes
        # with gradients, lengths are 0-d tensors
        lengths = nodes.diff().abs()
        self._lengths: Sequence[Number]
        self._lengths = lengths.unbind() if lengths.requires_grad else lengths.tolist()

    def check_nodes(self, nodes: Tensor) -> None:
        """Raise ValueError if a run has other nodes than this noise."""
        own = self._nodes.detach()
        if len(own) != len(nodes) or not bool(torch.allclose(own, nodes.detach().to(own))):
            raise ValueError(
                f"noise is that of {_named(own)}, but the run has {_named(nodes.detach())}: make "
                "the noise of each run with its own nodes, path.noise(x, nodes)."
            )

    def _length(self, i: int) -> Number:
        """Return |t_{i+1} − t_i|."""
        if not 0 <= i < len(self._lengths):
            raise IndexError(f"step must be in 0 … {len(self._lengths) - 1}, but is {i}.")
        return self._lengths[i]

    def increment(self, i: int) -> Tensor:
        """Return ΔW of step i: like the state, or of shape (batch, channels).

        Raises IndexError if there is no such step, ValueError if a later one has been asked for.
        """
        root = self._length(i) ** 0.5
        return self.draws.z(i) * root

    def space_time_area(self, i: int) -> Tensor:
        """Return J = ∫ (W(s) − W(t_i)) ds of step i, of the increment's shape.

        Var J = h³/3 and Cov(J, ΔW) = h²/2. Raises as `increment` does.
        """
        scale = self._length(i) ** 1.5
        return self.draws.integral(i) * scale

    def space_time_moment(self, i: int) -> Tensor:
        """Return M = ∫ |s − t_i| (W(s) − W(t_i)) ds of step i, of the increment's shape.

        Var M = 2 h⁵/15, Cov(M, ΔW) = h³/3 and Cov(M, J) = 5 h⁴/24. Raises as `increment` does.
        """
        scale = self._length(i) ** 2.5
        return self.draws.moment(i) * scale

    def areas(self, i: int) -> Tensor:
        """Return the Lévy areas of step i, antisymmetric, shape (batch, m, m).

        There are m channels; without, one for each of the state's numbers. Raises as `increment`
        does.
        """
        length = self._length(i)
        return self.draws.areas(i) * length


def _named(nodes: Tensor) -> str:
    """Return how many steps there are, and from when to when."""
    return f"{len(nodes) - 1} steps from t = {float(nodes[0]):g} to {float(nodes[-1]):g}"


def shared(noise: Noise, nodes: Tensor, every: int = 2) -> tuple[StepNoise, StepNoise]:
    """Return the noise of steps and of others `every` times as long, of the same Wiener processes.

    What is drawn for the one is kept for the other: each may be walked first.

    Args:
        noise: What draws for the shorter steps; it must not recycle its memory.
        nodes: Of the shorter steps, shape (every · n + 1,).
        every: How many of them make a longer one.

    >>> short, long = shared(Noise(torch.zeros(3, 1), rng=0), torch.linspace(0, 1, 5))
    >>> parts = short.increment(0) + short.increment(1)
    >>> bool(torch.allclose(long.increment(0), parts))
    True
    """
    fine = FreshDraws(noise, len(nodes) - 1, keep=True)
    lengths = nodes.detach().diff().abs().tolist()
    coarse = JoinedDraws(lambda: fine, lengths, list(range(0, len(nodes), every)))
    return (
        StepNoise.of(fine, nodes, noise.channels, noise.stream),
        StepNoise.of(coarse, nodes[::every], noise.channels, noise.stream),
    )


class Draws(ABC):
    """What `StepNoise` takes for each step, free of the step's scale; steps go in order."""

    normal: Callable[[], Tensor]  # z of the next step

    @abstractmethod
    def z(self, i: int) -> Tensor:
        """Return ΔW/√h of step i."""

    @abstractmethod
    def integral(self, i: int) -> Tensor:
        """Return J/h^{3/2} of step i."""

    @abstractmethod
    def areas(self, i: int) -> Tensor:
        """Return A/h of step i."""

    def moment(self, i: int) -> Tensor:
        """Return M/h^{5/2} of step i."""
        raise NotImplementedError(f"{type(self).__name__} draws no moments M.")


class FreshDraws(Draws):
    """Drawn step by step: z by a noise's normal(), the others from children of its stream.

    Args:
        noise: What draws z.
        steps: Of the run, which the number of modes of the areas follows from.
        keep: Whether all draws are kept, so that two runs can walk them in any order.
    """

    def __init__(self, noise: Noise, steps: int, *, keep: bool = False) -> None:
        self._kind = _Kept if keep else _InOrder
        self._steps, self._stream = steps, noise.stream
        self._zs: _InOrder[Tensor] = self._kind(noise.normal)
        self.normal: Callable[[], Tensor] = self._zs.next
        self._others: dict[str, _InOrder[Tensor]] = {}
        self._bridges: tuple[AreaDraws, _InOrder[Bridges]] | None = None

    def z(self, i: int) -> Tensor:
        """Return ΔW/√h of step i."""
        return self._zs.at(i)

    def integral(self, i: int) -> Tensor:
        """Return z/2 + η/√12."""
        return 0.5 * self.z(i) + self._eta(i) / math.sqrt(12)

    def moment(self, i: int) -> Tensor:
        """Return z/3 + η/(2√12) − κ/√720."""
        kappa = self._other("space-time moments", i) / math.sqrt(720)
        return self.z(i) / 3 + self._eta(i) / (2 * math.sqrt(12)) - kappa

    def areas(self, i: int) -> Tensor:
        """Return A/h, given z and η."""
        z = self.z(i)
        if self._bridges is None:
            draws = AreaDraws(self._stream, z, modes_of(self._steps))
            self._bridges = draws, self._kind(draws.draw)
        draws, bridges = self._bridges
        return draws.areas(bridges.at(i), z, self._eta(i))

    def draw(self, i: int, what: str) -> Draw:
        """Return z and J of step i, and its "areas" or "moment" if they are asked for."""
        areas = self.areas(i) if what == "areas" else None
        return Draw(
            self.z(i), self.integral(i), areas, self.moment(i) if what == "moment" else None
        )

    def forget(self, before: int) -> None:
        """Drop what is kept of the steps before a number, when both runs have taken them."""
        bridges = None if self._bridges is None else self._bridges[1]
        for kept in (self._zs, bridges, *self._others.values()):
            if isinstance(kept, _Kept):
                kept.forget(before)

    def _eta(self, i: int) -> Tensor:
        """Return η of step i."""
        return self._other("space-time areas", i)

    def _other(self, purpose: str, i: int) -> Tensor:
        """Return normals of step i like z, from a stream of their own for each purpose."""
        if purpose not in self._others:
            z, source = self._zs.at(i), self._stream.child(purpose)
            normals = source.normals(tuple(z.shape), dtype=z.dtype, device=z.device)
            self._others[purpose] = self._kind(normals.each().__next__)
        return self._others[purpose].at(i)


class JoinedDraws(Draws):
    """Those of steps that span several finer ones, by Chen's relation.

    Each of the four walks the finer steps on its own, so that none of them is kept.

    Args:
        finer: Makes the draws of the finer steps, from the first one on.
        intervals: Lengths of these.
        places: Number of the finer step at which each step begins, and at which the last ends.
    """

    def __init__(
        self, finer: Callable[[], FreshDraws], intervals: list[float], places: list[int]
    ) -> None:
        self._finer, self._intervals, self._places = finer, intervals, places
        self._zs = _InOrder(_sums(finer(), intervals, places).__next__)
        self.normal: Callable[[], Tensor] = self._zs.next
        self._walks: dict[str, _InOrder[Draw]] = {}

    def z(self, i: int) -> Tensor:
        """Return ΔW/√h of step i."""
        return self._zs.at(i)

    def integral(self, i: int) -> Tensor:
        """Return J/h^{3/2} of step i."""
        return self._joined("integral", i).integral

    def areas(self, i: int) -> Tensor:
        """Return A/h of step i."""
        areas = self._joined("areas", i).areas
        assert areas is not None
        return areas

    def moment(self, i: int) -> Tensor:
        """Return M/h^{5/2} of step i."""
        moment = self._joined("moment", i).moment
        assert moment is not None
        return moment

    def _joined(self, what: str, i: int) -> Draw:
        """Return the draw of step i, by a walk of its own for each thing that is asked for."""
        if what not in self._walks:
            draws = _joins(self._finer(), self._intervals, self._places, what)
            self._walks[what] = _InOrder(draws.__next__)
        return self._walks[what].at(i)


# generators that hold no object that holds them: what they drew is freed with the last reference


def _sums(
    finer: FreshDraws, intervals: Sequence[float], places: Sequence[int]
) -> Iterator[Tensor]:
    """Yield z step by step: the weighted sum of those of the finer steps."""
    z, roots = finer.z, [h**0.5 for h in intervals]
    for first, last in pairwise(places):
        if last == first + 1:
            yield z(first)
            continue
        length = math.fsum(intervals[first:last])
        total = z(first) * (roots[first] / length**0.5)
        for j in range(first + 1, last):
            total.add_(z(j), alpha=roots[j] / length**0.5)
        yield total


def _joins(
    finer: FreshDraws, intervals: Sequence[float], places: Sequence[int], what: str
) -> Iterator[Draw]:
    """Yield what is drawn step by step, joined from the finer steps."""
    for first, last in pairwise(places):
        total, length = finer.draw(first, what), intervals[first]
        for j in range(first + 1, last):
            more = length + intervals[j]
            total = joined(total, finer.draw(j, what), length / more)
            length = more
        yield total


class _InOrder(Generic[T]):
    """What is drawn step by step, and asked for by the number of the step.

    Args:
        draw: Draws that of the next step.
    """

    def __init__(self, draw: Callable[[], T]) -> None:
        self._draw, self._i = draw, -1
        self._value: T | None = None

    def next(self) -> T:
        """Return that of the next step."""
        self._i += 1
        self._value = value = self._draw()
        return value

    def at(self, i: int) -> T:
        """Return that of step i; those of steps that nobody asked for are drawn and dropped."""
        if i < self._i:
            raise ValueError(
                f"the noise of step {i} is asked for after that of step {self._i}: steps go in "
                "order; make another noise with the same rng to walk them again."
            )
        while self._i < i:
            self.next()
        assert self._value is not None
        return self._value


class _Kept(_InOrder[T]):
    """What is drawn step by step, and kept: two runs may ask for it, each from the first step."""

    def __init__(self, draw: Callable[[], T]) -> None:
        super().__init__(draw)
        self._values: list[T] = []
        self._first = 0  # the step of the first that is kept

    def next(self) -> T:
        """Return that of the next step of the run that asks for one after the other."""
        self._i += 1
        return self.at(self._i)

    def at(self, i: int) -> T:
        """Return that of step i."""
        while self._first + len(self._values) <= i:
            self._values.append(self._draw())
        return self._values[i - self._first]

    def forget(self, before: int) -> None:
        """Drop those of the steps before a number."""
        del self._values[: before - self._first]
        self._first = max(self._first, before)
