"""Solvers: how often, and in what arrangement, the update is taken.

A `Solver` carries a block of trajectories along `times`. Most have fixed steps: a `FixedStep` says
with `stepper` how one step goes from nodes[i] to nodes[i + 1], and the only loop is here. It walks
`substeps` equal steps between any two of the times, so that every time is met exactly and no path
is ever interpolated. What a block goes through, lost trajectories included, a `Record` keeps.

Solvers are immutable. What a method remembers between steps lives in the closure that `stepper`
returns, one for a block.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from sdegen.interrupt import HeldInterrupt
from sdegen.noise import Stream, normals_like
from sdegen.sde.base import SDE, Counter
from sdegen.shapes import State
from sdegen.walls import Walls

__all__ = [
    "Draw",
    "FixedStep",
    "Record",
    "See",
    "Solution",
    "Solver",
    "Step",
    "Watch",
    "add_step_note",
    "check_inner",
    "check_substeps",
    "refine",
]

Draw = Callable[[], State | None]
Step = Callable[[int, State, Draw], State]
See = Callable[[int, State], None]
Watch = Callable[[int, State, State], None]
OnNonfinite = Literal["raise", "freeze"]

_CHECK_EVERY = 32  # steps; a check of every step costs 30-50 % of a cheap one, of every 32nd 1-3 %


@dataclass(frozen=True)
class Solution:
    """What a solver returns for one block.

    Attributes:
        states: Shape (T, batch, *event), T as many as were reached.
        nfe: Evaluations of the drift (of the score, for reverse dynamics).
        nonfinite: Which trajectories were lost, shape (batch,).
        failed_at: Time at which lost trajectories were found and the block stopped, or None.
        why: What kept a solver from going on, where it was not that trajectories were lost.
        cause: What is not finite at some time at finite states too, and so lost trajectories.
        interrupted_at: Time up to which the block went before Ctrl-C stopped it, or None.
    """

    states: Tensor
    nfe: int
    nonfinite: Tensor
    failed_at: float | None = None
    why: str | None = None
    interrupted_at: float | None = None
    cause: str | None = None

    @property
    def advice(self) -> str:
        """What to do about lost trajectories, and why where it is known."""
        go_on = "on_nonfinite='freeze' to go on without them."
        if self.cause is None:
            return f"Take smaller steps (substeps=…), or {go_on}"
        return f"{self.cause}: look at what it returns there, or pass {go_on}"


class Solver(ABC):
    """Carries a block of trajectories along a grid of times.

    Attributes:
        clocks: Kinds of dynamics that it takes: "continuous", and "integer" for Markov chains.
        whole: Whether all trajectories must run together, as where one step size serves them all.
        takes_walls: Whether the state can be kept in a box after each step.
        shows_steps: Whether its states are handed out on the way, to `see` and `watch`.
    """

    clocks: ClassVar[tuple[str, ...]] = ("continuous",)
    whole: ClassVar[bool] = False
    takes_walls: ClassVar[bool] = False
    shows_steps: ClassVar[bool] = False

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuses dynamics that this solver does not solve; called at the door.

        Raises:
            ValueError: Saying what is asked of the dynamics, and what to take instead.
        """
        if sde.clock not in self.clocks:
            raise ValueError(
                f"{type(sde).__name__} is a Markov chain on integer times, and "
                f"{type(self).__name__} solves differential equations: use EulerMaruyama() with "
                "times 0, 1, 2, …"
            )

    def draws(self, sde: SDE) -> bool:
        """Whether a run draws noise: where the dynamics do, or the method adds some of its own."""
        return sde.noise != "none"

    def nodes(self, times: Tensor) -> Tensor:
        """The times at which steps begin and end."""
        return times

    @abstractmethod
    def solve(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        *,
        noise: Stream | None,
        keep_path: bool,
        walls: Walls | None = None,
        on_nonfinite: OnNonfinite = "raise",
        tick: Callable[[], None] | None = None,
        see: See | None = None,
        watch: Watch | None = None,
    ) -> Solution:
        """Solves from times[0] to times[-1].

        Args:
            sde: What moves.
            x0: State at times[0], shape (batch, *event).
            times: Shape (T,), float64, strictly monotone.
            noise: Stream that the normals are drawn from, or None for noise-free dynamics.
            keep_path: Whether all T states are kept, or the last one alone.
            walls: Box that the state is kept in.
            on_nonfinite: "raise" stops the block; "freeze" goes on without what was lost.
            tick: Called after each time that is reached.
            see: Called with k and the state at times[k], k ≥ 1, where `shows_steps`. Neither it
                nor watch may keep or change a state.
            watch: Called with i and the states at nodes[i] and nodes[i + 1], for each step, where
                `shows_steps`.
        """


@dataclass(frozen=True)
class FixedStep(Solver):
    """A solver with steps that are known beforehand.

    Args:
        substeps: Equal steps between any two of the times.

    Attributes:
        ends_at_data: Whether the last state is an estimate of the data, and no longer one at t.

    Raises:
        TypeError: If substeps is no int.
        ValueError: If substeps < 1.
    """

    substeps: int = 1

    takes_walls: ClassVar[bool] = True
    shows_steps: ClassVar[bool] = True
    ends_at_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_substeps(self.substeps)

    @abstractmethod
    def stepper(self, sde: SDE, nodes: Tensor) -> Step:
        """The step of this method, step(i, x, draw): the state at nodes[i + 1] from x at nodes[i].

        Args:
            sde: What moves.
            nodes: Shape (steps + 1,), float64, on the CPU.

        Returns:
            step; its draw() gives a fresh z ~ N(0, I) with x's shape, or None: the noise is off.
        """

    def nodes(self, times: Tensor) -> Tensor:
        """times, with substeps − 1 more between any two."""
        return refine(times, self.substeps)

    def solve(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        *,
        noise: Stream | None,
        keep_path: bool,
        walls: Walls | None = None,
        on_nonfinite: OnNonfinite = "raise",
        tick: Callable[[], None] | None = None,
        see: See | None = None,
        watch: Watch | None = None,
    ) -> Solution:
        """Takes the steps, one after the other; see `Solver.solve`."""
        nodes = self.nodes(times)
        counter = Counter()
        step = self.stepper(sde.counted(counter), nodes)
        draw: Draw = _no_noise if noise is None else normals_like(x0, noise).each().__next__
        x, i = x0, 0
        with Record(x0, nodes, self.substeps, keep_path, on_nonfinite, tick, see, watch) as record:
            interrupted = record.interrupted
            while not record.stopped:
                # steps that nobody looks at are taken in a row
                for i in range(i, record.next_look(i)):  # noqa: B020 (goes on from where it was)
                    try:
                        after = step(i, x, draw)
                    except Exception as error:
                        add_step_note(error, i, nodes)
                        raise
                    x = after if walls is None else walls.contain(x, after)
                    if interrupted():
                        break
                i += 1
                x = record.reach(i, x)
        solution = record.solution(counter.calls)
        return solution if record.suspects is None else _with_cause(solution, sde, record, nodes)


class Record:
    """What a block has gone through: its path, what was lost on it, and whether it may go on.

    Ctrl-C is held back in its `with` block, and stops it after the step that is being taken.

    Args:
        x0: State at nodes[0].
        nodes: Times at which steps begin and end, shape (steps + 1,).
        substeps: Every so many nodes one is kept.
        keep_path: Whether states are kept, or the last one alone.
        on_nonfinite: "raise" sets `failed_at`; "freeze" holds what is lost where it was finite.
        tick: Called after each kept time.
        see: Called with the number of each kept time but the first, and the state.
        watch: Called with the number of each step, the state before and the state after it.

    Attributes:
        interrupted: Whether the block must end where it is, as a function.
        suspects: The nodes from the last check to the one that found trajectories lost, or None.
        finite: The last state that is known to be finite.
    """

    def __init__(
        self,
        x0: State,
        nodes: Tensor,
        substeps: int,
        keep_path: bool,
        on_nonfinite: OnNonfinite,
        tick: Callable[[], None] | None,
        see: See | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.x = self.finite = x0
        self.suspects: range | None = None
        self._reached = 0
        self.failed_at: float | None = None
        self.interrupted_at: float | None = None
        self._interrupt = HeldInterrupt()
        self.interrupted = self._interrupt.watcher()
        self._nodes, self._substeps = nodes, substeps
        self._path = [x0] if keep_path else None
        self._freeze, self._tick = on_nonfinite == "freeze", tick
        self._see, self._watch = see, watch
        self._sums: list[tuple[int, Tensor]] = []
        self._lost = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)

    def __enter__(self) -> Self:
        self._interrupt.__enter__()
        self.interrupted = self._interrupt.watcher()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._interrupt.__exit__(kind, error, trace)

    @property
    def stopped(self) -> bool:
        """Whether the block does not go on: it is at its end, or must not."""
        return (
            self._reached == len(self._nodes) - 1
            or self.failed_at is not None
            or self.interrupted_at is not None
        )

    def next_look(self, i: int) -> int:
        """The next node after i whose state must be entered with `reach`."""
        if self._freeze or self._watch is not None:
            return i + 1
        kept = (i // self._substeps + 1) * self._substeps
        return min(kept, (i // _CHECK_EVERY + 1) * _CHECK_EVERY, len(self._nodes) - 1)

    def reach(self, i: int, x: State) -> State:
        """Enters the state at nodes[i], and returns it with lost trajectories put back."""
        self._reached = i
        if self._freeze:
            self._lost = self._lost | _rows_nonfinite(x)
        before = self.x
        x = self.x = self.held(x)
        if self._watch is not None:
            self._watch(i - 1, before, x)
        reached = i % self._substeps == 0
        if self._path is not None and reached:
            self._path.append(x)
        if self.interrupted():
            self.interrupted_at = float(self._nodes[i])
        seen = reached and self._see is not None
        due = seen or i % _CHECK_EVERY == 0 or self.stopped
        if due and not self._freeze and self._failed(i, x, now=seen or self.stopped):
            self._lost = _rows_nonfinite(x)
            return x
        if reached and self._see is not None:
            self._see(i // self._substeps, x)
        if reached and self._tick is not None:
            self._tick()
        return x

    def _failed(self, i: int, x: State, *, now: bool) -> bool:
        """Whether trajectories are seen to be lost at nodes[i]; on a GPU, whenever it must be."""
        if x.is_cuda and not now:
            # to read the sum would make the host wait for every step that it has sent off
            self._sums.append((i, x.sum()))
            return False
        if _all_finite(x):  # what was lost on the way is so still
            self.finite = x
            return False
        early = [at for at, total in self._sums if not math.isfinite(float(total))]
        found = min([*early, i])
        self.failed_at = float(self._nodes[found])
        self.suspects = range(max(found - _CHECK_EVERY, 0), found + 1)
        return True

    def held(self, x: State) -> State:
        """Puts lost trajectories of x back to where they last were finite."""
        return _where_rows(self._lost, self.x, x) if self._freeze else x

    def solution(self, nfe: int) -> Solution:
        """The block as far as it went."""
        states = self.x[None] if self._path is None else torch.stack(self._path)
        return Solution(
            states, nfe, self._lost, self.failed_at, interrupted_at=self.interrupted_at
        )


def _with_cause(solution: Solution, sde: SDE, record: Record, nodes: Tensor) -> Solution:
    """Looks for a time at which the score, or the drift, is not finite where states are.

    States are looked at every few steps only, so that it is not known where the first was lost.
    But a network that returns NaN at some times does so at the last state that was finite, too,
    where it was finite at the first time: a state that has all but exploded is lost at any time.
    """
    assert record.suspects is not None
    name = "drift" if sde.denoising is None else "score"
    with suppress(Exception):  # the run has failed already, and that is what is to be told
        exploded = _rows_nonfinite(sde.drift(record.finite, nodes[0]))
        for t in nodes[record.suspects.start : record.suspects.stop].unbind():
            lost = int((_rows_nonfinite(sde.drift(record.finite, t)) & ~exploded).sum())
            if lost > 0:
                cause = (
                    f"The {name} is not finite at t = {float(t):g}, where the states are, for "
                    f"{lost} of {len(record.finite)} of them"
                )
                return replace(solution, cause=cause)
    return solution


def _no_noise() -> None:
    """What noise-free dynamics draw."""


def add_step_note(error: Exception, i: int, nodes: Tensor) -> None:
    """Says in which step a user's drift raised."""
    error.add_note(f"in step {i} of {len(nodes) - 1}, at t = {float(nodes[i]):g}")


def check_inner(name: str, solver: object) -> None:
    """Refuses what cannot take the steps within another solver.

    Args:
        name: What the other one calls it.
        solver: What is to take them.

    Raises:
        TypeError: If it is no solver of fixed steps, such as a class that was not called.
        ValueError: If its last state is no longer one at t.
    """
    if isinstance(solver, type):
        raise TypeError(f"{name} must be a solver, but is the class: pass {solver.__name__}().")
    if not isinstance(solver, FixedStep):
        raise TypeError(
            f"{name} must be a solver of fixed steps, such as DDIM(), but is {solver!r}."
        )
    if solver.ends_at_data:
        raise ValueError(
            f"{name} must end with a state at t, which {type(solver).__name__} replaces by an "
            "estimate of the data: pass the solver within it, and let it be the outermost."
        )


def check_substeps(substeps: object) -> None:
    """Refuses what is no count of steps.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is below 1.
    """
    if isinstance(substeps, bool) or not isinstance(substeps, int):
        raise TypeError(f"substeps must be an int, but is {type(substeps).__name__}.")
    if substeps < 1:
        raise ValueError(f"substeps must be ≥ 1, but is {substeps}.")


def refine(times: Tensor, substeps: int) -> Tensor:
    """Puts substeps − 1 equally spaced nodes between any two times, t0 + i (t1 − t0)/n in float64.

    >>> refine(torch.tensor([0.0, 1.0, 3.0]), 2).tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    times = times.to(torch.float64)
    fraction = torch.arange(substeps, dtype=torch.float64) / substeps
    inner = times[:-1, None] + fraction * times.diff()[:, None]
    return torch.cat([inner.flatten(), times[-1:]])


def _all_finite(x: State) -> bool:
    """Whether every number is finite: by the sum, and one by one where the sum is suspicious."""
    with torch.no_grad():
        return math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all())


def _rows_nonfinite(x: State) -> Tensor:
    """Which trajectories have a NaN or an infinity, shape (batch,)."""
    return ~torch.isfinite(x).flatten(1).all(1)


def _where_rows(rows: Tensor, x: State, y: State) -> State:
    """Takes x in the given rows, y in the others."""
    return torch.where(rows.reshape(rows.shape + (1,) * (x.ndim - 1)), x, y)
