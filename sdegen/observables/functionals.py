"""Functionals along a path: numbers that are added up step by step, one for each trajectory.

    A_t = Σ_i a(X_i, X_{i+1}, t_i, t_{i+1})        over the steps up to t

such as ∫ h dt, ∫ h ∘ dX, work, heat, or local time. Each step adds its increment while the run
goes on, so that the states between the times need not be kept. There are three ways to the same
numbers:

    run_ensemble(…, observables=[TimeIntegral(h)])     mean, variance, histogram over trajectories
    simulate(…, functionals=[TimeIntegral(h)])         Trajectory.functionals, shape (T, batch)
    TimeIntegral(h).along(path, sde)                   of a path whose every step is stored

The first two have the same bits for the same seed. Where a boundary is periodic, paths are those
on the line. A trajectory that an absorbing end has stopped adds nothing from the next step on.

One of your own is a subclass of `Functional` with `increments`, which returns what adds up one
block:

    class Length(Functional):                          # of the path in steps, Σ |ΔX|
        name = "length"

        def increments(self, block):
            return Lengths()

    class Lengths(Increments):
        def step(self, i, before, after):              # from nodes[i] to nodes[i + 1]
            return (after - before).abs().flatten(1).sum(1)
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.checks import check_flag, check_positive
from sdegen.core.errors import AccuracyWarning
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_kind, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.trajectory import Trajectory
from sdegen.observables.base import Accumulator, AtTimes, Block, Observable, Partial
from sdegen.observables.coordinates import check_bins
from sdegen.observables.functional_estimate import FunctionalEstimate, ValueSums

_FEWEST = 3  # times, to leave out every second state


class Increments(ABC):
    """What the steps of one block add to a functional, one number for each row, shape (rows, …).

        A_{i+1} = A_i + step(i, X_i, X_{i+1})

    Example:
        >>> class Steps(sg.Increments):
        ...     def step(self, i, before, after):
        ...         return torch.ones(len(after))
        >>> class Count(sg.Functional):
        ...     def increments(self, block):
        ...         return Steps()
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.ones(2, 1)
        >>> times, asked = [0.0, 0.5, 1.0], [Count()]
        >>> run = sg.run_ensemble(decay, x0, times, trajectories=2, observables=asked)
        >>> run.observables["functional"].mean.tolist()
        [0.0, 1.0, 2.0]
    """

    def start(self, x: State) -> Tensor:
        """Take in the states at nodes[0], and return the value there: zeros, shape (rows, …)."""
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)

    @abstractmethod
    def step(self, i: int, before: State, after: State) -> Tensor:
        """Return what the step from nodes[i] to nodes[i + 1] adds, of the shape of `start`.

        Args:
            i: Number of the step; steps come in order, so that what was computed of `after` may
                be kept for the next one. The states themselves must not be kept.
            before: States at nodes[i], shape (rows, *event).
            after: States at nodes[i + 1].
        """


@dataclass(frozen=True)
class Functional(Observable):
    """A number for each trajectory, shape (rows, …), added up over the steps of its path.

        A_t = Σ_i a(X_i, X_{i+1}, t_i, t_{i+1})

    Args:
        name: What the result is called.
        histogram: (low, high, bins), where an ensemble counts the values in equal bins too.
        temperature: T, where an ensemble averages e^{−A/T} too.

    Raises:
        TypeError: If name is no word, histogram no triple of numbers, or temperature no number.
        ValueError: If the bins are empty, or temperature ≤ 0.

    Example:
        >>> class Lengths(sg.Increments):
        ...     def step(self, i, before, after):
        ...         return (after - before).abs().flatten(1).sum(1)
        >>> class Length(sg.Functional):
        ...     def increments(self, block):
        ...         return Lengths()
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.ones(2, 1)
        >>> times, asked = [0.0, 0.5, 1.0], [Length()]
        >>> run = sg.run_ensemble(decay, x0, times, trajectories=2, observables=asked)
        >>> run.observables["functional"].mean.tolist()  # from 1 to ½ and ¼
        [0.0, 0.5, 0.75]
    """

    name: str = field(default="functional", kw_only=True)
    histogram: tuple[float, float, int] | None = field(default=None, kw_only=True)
    temperature: float | None = field(default=None, kw_only=True)
    unwrapped: bool = field(default=True, init=False, repr=False)

    every_step: ClassVar[bool] = True
    # whether values of stored paths at two steps agree in the mean alone
    compares_means: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_kind("name", self.name, str, 'a word, such as name="work"')
        own = type(self).name  # of a subclass that is no dataclass, which its class says
        if self.name == Functional.name and own != self.name:
            object.__setattr__(self, "name", own)
        check_flag("unwrapped", self.unwrapped)
        if self.temperature is not None:
            check_positive("temperature", self.temperature)
        if self.histogram is None:
            return
        if not isinstance(self.histogram, tuple | list) or len(self.histogram) != 3:
            raise TypeError(
                "histogram must be (low, high, bins), such as (-5.0, 5.0, 100), but is "
                f"{kind_of(self.histogram)}."
            )
        low, high, bins = self.histogram
        check_bins("histogram", low, high, "bins", bins)
        object.__setattr__(self, "histogram", (low, high, bins))

    @property
    def sensitivity(self) -> float:
        """What every second state of a stored path may change of a value, of its size."""
        return 0.1

    @abstractmethod
    def increments(self, block: Block) -> Increments:
        """Return what adds up a block; refuse dynamics for which the functional has no meaning."""

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator of sums over the trajectories at each time."""
        return _Running(self, block, ValueSums(self.name, self.histogram, self.temperature).of)

    def begin_paths(self, block: Block) -> Accumulator:
        """Return an accumulator of the value of each trajectory at each time, as "values"."""
        return _Running(self, block, lambda value: {"values": value.clone()})

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge by the differences of means, up to the fourth moment."""
        return ValueSums.merged(left, right)

    def result(self, total: Partial, times: Tensor) -> FunctionalEstimate:
        """Return mean and variance with their errors, and what else was asked for.

        Warns (AccuracyWarning) if a value is not finite, with the time from which on.
        """
        sums = ValueSums(self.name, self.histogram, self.temperature)
        return sums.estimate(total, times)

    def along(self, path: Trajectory, sde: SDE, *, rng: Rng = None) -> Tensor:
        """Return the value along stored paths, each interval of times taken as one step.

        Warns (AccuracyWarning) if the stored states are too far apart: if every second of them
        changes the values by more than a tenth of their size (of an Itô integral, which converges
        more slowly, by three tenths).

        Args:
            path: Paths with their states at all times.
            sde: What moved.
            rng: Seed, for a functional that draws (`LocalTime`).

        Returns:
            Shape (T, batch), float64; NaN for trajectories that were lost.

        Raises:
            TypeError: If path is no Trajectory, or sde no SDE.
            ValueError: If the path has its last states alone, or its turns were not counted.
        """
        check_kind("path", path, Trajectory, "a Trajectory, as simulate returns it")
        check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g)")
        if len(path.times) < 2:
            raise ValueError(
                f"{self.name} is added up over the steps of a path, but this one has its last "
                "states alone; simulate with keep_path=True, or pass "
                f"functionals=[{type(self).__name__}(…)] to simulate."
            )
        seed = seed_of(rng)
        values = self._summed(path, sde, seed, 1)
        if len(path.times) >= _FEWEST:
            self._check_apart(path, values, self._summed(path, sde, seed, 2))
        else:
            warnings.warn(
                f"{self.name} of one interval alone: whether it is short enough is not known; "
                f"store more times, or pass functionals=[{type(self).__name__}(…)] to simulate, "
                "which takes every step.",
                AccuracyWarning,
                stacklevel=2,
            )
        return values

    def _summed(self, path: Trajectory, sde: SDE, seed: int, stride: int) -> Tensor:
        """Return the values along every so manyth state."""
        states = (path.unwrapped if self.unwrapped else path.states)[::stride]
        times = path.times[::stride]
        absorbed = None if path.absorbed is None else path.absorbed[::stride]
        at = 0
        stream = Streams(seed, f"observable {self.name}").block(0)
        gone = (lambda: None) if absorbed is None else (lambda: absorbed[at])
        period = path.periods
        block = Block(sde, times, times, None, stream, gone, period)
        sums = self.begin_paths(block)
        sums.see(0, states[0])
        for i in range(len(times) - 1):
            at = i
            sums.step(i, states[i], states[i + 1])
            sums.see(i + 1, states[i + 1])
        values = sums.partial()["values"]
        return values.masked_fill(path.nonfinite.view(1, -1, *(1,) * (values.ndim - 2)), torch.nan)

    def _check_apart(self, path: Trajectory, fine: Tensor, coarse: Tensor) -> None:
        """Warn where the values of stored states and of every second of them differ."""
        kept = ~path.nonfinite
        last = coarse.detach()[-1, kept]
        gap = last - fine.detach()[::2][len(coarse) - 1, kept]
        moved, size = float(gap.square().mean().sqrt()), float(last.square().mean().sqrt())
        if self.compares_means:
            error = float(gap.std()) / len(gap) ** 0.5 if len(gap) > 1 else torch.inf
            moved = max(abs(float(gap.mean())) - 4 * error, 0.0)
            size = float(last.mean().abs())
        if moved > self.sensitivity * size:
            warnings.warn(
                f"the stored states are too far apart for {self.name}: with every second of them "
                f"it changes by {moved:.2g}, and is {size:.2g} in size; store more times, or pass "
                f"functionals=[{type(self).__name__}(…)] to simulate, which takes every step.",
                AccuracyWarning,
                stacklevel=3,
            )


class _Running(AtTimes):
    """Adds up a functional of one block, and tells its value at each of the times."""

    def __init__(self, about: Functional, block: Block, told: Callable[[Tensor], Partial]) -> None:
        super().__init__()
        self._about, self._told = about, told
        self._increments = about.increments(block)
        self._absorbed = block.absorbed
        self._value = torch.empty(0)

    def measured(self, k: int, x: State) -> Partial:
        if k == 0:
            self._value = self._increments.start(x)
        return self._told(self._value)

    def step(self, i: int, before: State, after: State) -> None:
        added = self._increments.step(i, before, after)
        value, gone = self._value, self._absorbed()
        if added.shape != value.shape:
            name = type(self._increments).__name__
            raise ValueError(
                f"{name}.step must return one increment for each trajectory, shape "
                f"{tuple(value.shape)}, as {name}.start does, but returned shape "
                f"{tuple(added.shape)}."
            )
        if gone is not None:
            added = torch.where(gone.view(-1, *(1,) * (added.ndim - 1)), 0.0, added)
        self._value = value + added if added.requires_grad else value.add_(added)


def check_functionals(functionals: object) -> tuple[Functional, ...]:
    """Return what is added up along each path; refuse other objects and two of one name.

    Raises:
        TypeError: If one is no `Functional`.
        ValueError: If two have one name.
    """
    if not isinstance(functionals, list | tuple):
        raise TypeError(
            f"functionals must be a list of Functionals, but is {kind_of(functionals)}; pass "
            "functionals=[Work(), …]."
        )
    names: set[str] = set()
    for one in functionals:
        if not isinstance(one, Functional):
            also = "; pass it to run_ensemble(…, observables=[…])"
            raise TypeError(
                "functionals must hold Functionals, numbers for each trajectory such as Work(), "
                f"but one is {one!r}{also if isinstance(one, Observable) else ''}."
            )
        if one.name in names:
            raise ValueError(
                f"two functionals are called {one.name!r}; give one of them another name, as in "
                f'{type(one).__name__}(…, name="other").'
            )
        names.add(one.name)
    return tuple(functionals)


def check_value(name: str, value: object, x: State, expected: str) -> Tensor:
    """Return what a function of the user's gave at states; refuse what is no tensor of floats.

    Args:
        name: What it is of, such as "h".
        value: What it returned.
        x: The states.
        expected: The shape that is expected, in words.

    Raises:
        TypeError: If it is no tensor of floats.
        ValueError: If it has not one row for each state.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must return a tensor of floats, {expected}, but {_came(value)}.")
    if value.ndim == 0 or len(value) != len(x):
        raise ValueError(
            f"{name} must return {expected}, but returned shape {tuple(value.shape)} for states "
            f"of shape {tuple(x.shape)}."
        )
    return value


def _came(value: object) -> str:
    kind = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else kind_of(value)
    return f"returned {kind}"
