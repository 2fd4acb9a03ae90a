"""Observables: what is accumulated over an ensemble while it runs, block by block.

An observable turns each block of trajectories into a **partial**, a few tensors whose shapes do
not depend on the block, and says how two partials merge. Partials are merged in one fixed binary
tree over the blocks, (0, 1), (2, 3), …, then pairs of those: the same sums in the same order
whichever thread, process or machine computed a block, and whenever. So an observable of an
ensemble is as reproducible as its states, to the bit, and a run that was cut off ends in the bits
of one that was not. The tree also keeps rounding at O(log n) where one long sum has O(n).

Partials are in double precision, whatever the states are in.

One of your own is a subclass of `Observable` with `measure` and `result`, and `merge` where adding
is not what is meant:

    class Highest(Observable):
        name = "highest"

        def measure(self, states, times):               # of one block, (T, rows, *event)
            return {"highest": states.amax((0, 1))}

        def merge(self, left, right):
            return {"highest": torch.maximum(left["highest"], right["highest"])}

        def result(self, total, times):
            return total["highest"]

It sees the block's states at the times of the run; on a periodic boundary those within the
period, or with `unwrapped = True` those on the line. One that shall not hold them, or that needs
every step between them (`every_step = True`), has an `Accumulator` of its own and returns it from
`begin`.

What a partial is made of must be known before the run. So each observable is tried first: begun
twice, it sees a few states at all times and, where it asks for steps, one step after the first
time. The shapes of its partial may depend neither on how many trajectories there are nor on how
many steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from sdegen.core.enclosure import Enclosure
from sdegen.core.noise import Stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State

Partial = dict[str, Tensor]

_V = TypeVar("_V")


def _nobody() -> None:
    """Return that no trajectory has been stopped."""


@dataclass(frozen=True)
class Block:
    """What an observable may know of the block that it is about to see: x(t_k), t_k = times[k].

    Attributes:
        sde: What moves.
        times: Times at which the states are seen, shape (T,), float64.
        nodes: Times at which steps begin and end, shape (steps + 1,), float64; the same as times
            for an observable that does not ask for every step.
        boundary: What the states are kept inside of, or None.
        stream: Random numbers of the observable's own, the same for a block in every run of a
            seed.
        absorbed: Returns which trajectories an absorbing end had stopped before the present step,
            shape (rows,), or None where none has.
        periods: Period of each coordinate, shape (*event,), 0 where it is not periodic; None
            where none is.

    Example:
        >>> class Span(sg.Functional):
        ...     def increments(self, block):
        ...         span = float(block.nodes[-1] - block.nodes[0])
        ...         class Share(sg.Increments):
        ...             def step(self, i, before, after):
        ...                 dt = float(block.nodes[i + 1] - block.nodes[i])
        ...                 return torch.full((len(after),), dt / span)
        ...         return Share()
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.ones(2, 1)
        >>> run = sg.run_ensemble(decay, x0, [0.0, 1.0, 4.0], trajectories=2, observables=[Span()])
        >>> run.observables["functional"].mean.tolist()  # the share of the time that has passed
        [0.0, 0.25, 1.0]
    """

    sde: SDE
    times: Tensor
    nodes: Tensor
    boundary: Enclosure | None
    stream: Stream
    absorbed: Callable[[], Tensor | None] = _nobody
    periods: Tensor | None = None


class Accumulator(ABC):
    """Gathers one observable of one block on its way: states (rows, *event), time after time.

        partial = Σ_k a(x(t_k), t_k)

    Example:
        >>> class Sum(sg.Accumulator):
        ...     total = 0.0
        ...     def see(self, k, x):
        ...         self.total = self.total + x.double().sum()
        ...     def partial(self):
        ...         return {"sum": self.total}
        >>> class Total(sg.Observable):
        ...     name = "total"
        ...     def begin(self, block):
        ...         return Sum()
        ...     def result(self, total, times):
        ...         return total["sum"]
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.ones(3, 1)
        >>> run = sg.run_ensemble(decay, x0, [0.0, 0.5], trajectories=3, observables=[Total()])
        >>> run.observables["total"].item()  # 3 (1 + ½)
        4.5
    """

    @abstractmethod
    def see(self, k: int, x: State) -> None:
        """Take in the states at times[k], k = 0, 1, …, T − 1. x must not be kept."""

    def step(self, i: int, before: State, after: State) -> None:
        """Take in the step from nodes[i] to nodes[i + 1], where `every_step` asks for it.

        Called for each i in order, between the calls of `see` for the times before and after it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step.")

    @abstractmethod
    def partial(self) -> Partial:
        """Return the block's contribution; called once, at the end."""


class Observable(ABC):
    """What is wanted of an ensemble: accumulated over blocks, merged in a fixed order.

        result = R(Σ_blocks measure(states, times)),     states of shape (T, rows, *event)

    Attributes:
        name: What the result is called in `Ensemble.observables`; no two of a run may share it.
        every_step: Whether the steps between the times are seen too.
        unwrapped: Whether states are seen on the line where a boundary is periodic, with the turns
            that each coordinate has made. Heat, work and displacements need that.
        holds_states: Whether an accumulator of its own holds the states of a block at all times,
            which the memory of a run is judged by; those of `measure` are counted without.

    Example:
        >>> class Highest(sg.Observable):
        ...     name = "highest"
        ...     def measure(self, states, times):
        ...         return {"highest": states.double().amax((0, 1))}
        ...     def merge(self, left, right):
        ...         return {"highest": torch.maximum(left["highest"], right["highest"])}
        ...     def result(self, total, times):
        ...         return total["highest"]
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.tensor([[1.0], [3.0]])
        >>> run = sg.run_ensemble(decay, x0, [0.0, 0.5], trajectories=2, observables=[Highest()])
        >>> run.observables["highest"].item()
        3.0
    """

    name: str
    unwrapped: bool = False
    every_step: ClassVar[bool] = False
    holds_states: ClassVar[bool] = False

    def begin(self, block: Block) -> Accumulator:
        """Return the accumulator of a block; by default it collects the states for `measure`."""
        return _Collected(self, block.times)

    def measure(self, states: Tensor, times: Tensor) -> Partial:
        """Return the partial of a block.

        Args:
            states: Shape (T, rows, *event); rows differs from block to block, may not show in the
                shape of what is returned, and has none of the trajectories that were lost.
            times: Shape (T,).

        Returns:
            Tensors by name; sums of them over the blocks unless `merge` says otherwise. Those of
            float32 lose digits over many blocks: end them with .double().
        """
        raise NotImplementedError(f"{type(self).__name__} has neither measure nor begin.")

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Return the partial of two sets of trajectories together; by default the sums."""
        return {key: left[key] + right[key] for key in left}

    @abstractmethod
    def result(self, total: Partial, times: Tensor) -> Any:  # noqa: ANN401, the observable's own
        """Return the user's result, from the partial of all trajectories."""


class AtTimes(Accumulator):
    """Gathers some tensors at each of the times, and stacks them along a new first axis.

    Args:
        measure: Returns tensors by name from k and the states at times[k], none at times that do
            not count; None where a subclass defines `measured`.
        counts: Whether the number of trajectories is gathered too, as n.
    """

    def __init__(
        self, measure: Callable[[int, State], Partial] | None = None, *, counts: bool = False
    ) -> None:
        self._measure, self._counts, self._rows = measure, counts, 0
        self._series: dict[str, list[Tensor]] = {}

    def see(self, k: int, x: State) -> None:
        """Take in what is measured of the states at times[k]."""
        self._rows = len(x)
        for key, value in self.measured(k, x).items():
            self._series.setdefault(key, []).append(value)

    def measured(self, k: int, x: State) -> Partial:
        """Return tensors by name, of the states at times[k]."""
        assert self._measure is not None
        return self._measure(k, x)

    def partial(self) -> Partial:
        """Return the stacked tensors."""
        n = {"n": torch.tensor(self._rows, dtype=torch.float64)} if self._counts else {}
        return n | {key: torch.stack(values) for key, values in self._series.items()}


class _Collected(AtTimes):
    """Holds the states of a block for `measure`."""

    def __init__(self, observable: Observable, times: Tensor) -> None:
        super().__init__(lambda k, x: {"states": x.clone()})  # the loop may reuse x
        self._observable, self._times = observable, times

    def partial(self) -> Partial:
        return self._observable.measure(super().partial()["states"], self._times)


def pooled(left: Partial, right: Partial) -> tuple[Partial, Tensor, Tensor]:
    """Return n and mean of two sets together, and what their other sums need, by Chan's formula.

    Args:
        left: Partial with n and mean.
        right: That of the other set.

    Returns:
        The merged n and mean; the gap between the means; n_a n_b/n, the weight of its square.
    """
    n, gap = left["n"] + right["n"], right["mean"] - left["mean"]
    mean = left["mean"] + gap * (right["n"] / n)
    return {"n": n, "mean": mean}, gap, left["n"] * right["n"] / n


class PairwiseReduction(Generic[_V]):
    """Merges leaves 0 … count − 1 in one binary tree, in whatever order they come.

    Node (level, i) covers the leaves from i 2^level up to (i + 1) 2^level; a node without a right
    sibling goes up as it is. What waits for its sibling is held, O(log count) nodes where leaves
    come in runs.

    Args:
        count: Leaves.
        merge: Merges a node with its right sibling.

    >>> tree = PairwiseReduction(3, lambda left, right: f"({left}{right})")
    >>> for leaf in (2, 0, 1):
    ...     tree.add(0, leaf, "abc"[leaf])
    >>> tree.nodes
    {(2, 0): '((ab)c)'}
    """

    def __init__(self, count: int, merge: Callable[[_V, _V], _V]) -> None:
        self._count, self._merge = count, merge
        self._top = (count - 1).bit_length()
        self.nodes: dict[tuple[int, int], _V] = {}

    def add(self, level: int, index: int, value: _V) -> None:
        """Add a leaf (level 0), or a node that was merged elsewhere."""
        while level < self._top:
            sibling = index ^ 1
            if sibling << level < self._count:
                if (level, sibling) not in self.nodes:
                    break
                other = self.nodes.pop((level, sibling))
                value = self._merge(value, other) if index < sibling else self._merge(other, value)
            level, index = level + 1, index // 2
        self.nodes[level, index] = value

    def total(self) -> _V:
        """Return all that has come, merged from left to right where leaves are missing.

        Raises:
            TypeError: If nothing has come.
        """
        in_order = sorted(self.nodes, key=lambda node: node[1] << node[0])  # by the first leaf
        return reduce(self._merge, (self.nodes[node] for node in in_order))


def check_observables(observables: object) -> tuple[Observable, ...]:
    """Raise if there are other objects than observables, or two of one name.

    Raises:
        TypeError: If one is no `Observable`.
        ValueError: If two have one name, or one has none.
    """
    if isinstance(observables, Observable) or not isinstance(observables, list | tuple):
        raise TypeError(
            "observables must be a list of Observables, but is "
            f"{type(observables).__name__}; pass observables=[Moments(), …]."
        )
    names: set[str] = set()
    for observable in observables:
        if not isinstance(observable, Observable):
            hint = f", such as {observable.__name__}()" if isinstance(observable, type) else ""
            raise TypeError(
                f"observables must hold Observable objects{hint}, but one is {observable!r}; one "
                "of your own is a subclass of Observable."
            )
        if not isinstance(getattr(observable, "name", None), str):
            raise TypeError(
                f'{type(observable).__name__} has no name; say name = "…" in its class.'
            )
        if not observable.name:
            raise ValueError(
                f"{type(observable).__name__} has the name '', but its result must be called "
                'something, as in name="other".'
            )
        if observable.name in names:
            raise ValueError(
                f"two observables are called {observable.name!r}; give one of them another name, "
                f'as in {type(observable).__name__}(…, name="other").'
            )
        names.add(observable.name)
    return tuple(observables)
