"""What a block of trajectories goes through: its conditions, its record, and what came of it.

`Conditions` say what keeps a block, who looks on, and what becomes of trajectories that are lost.
A `Record` holds them to it, step by step, whichever solver takes the steps, and ends as a
`Solution`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor

from sdegen.boundary import Enclosure
from sdegen.interrupt import HeldInterrupt
from sdegen.noise import Stream
from sdegen.sde.base import SDE
from sdegen.shapes import State
from sdegen.solvers.containment import Containment

__all__ = ["Conditions", "OnNonfinite", "Record", "See", "Solution", "Watch", "with_cause"]

See = Callable[[int, State], None]
Watch = Callable[[int, State, State], None]
OnNonfinite = Literal["raise", "freeze"]

# steps to the first check for what is lost, and between any two of a long run. The check costs as
# much as a cheap step, and each that is made too late as much as all steps since the last
_FIRST_CHECK, _CHECK_EVERY = 32, 1024
_REACH = 6.0  # standard deviations of a step that are looked at for an end of the space
_HALVINGS = 40
_COORDINATES = 16  # of a state that are looked at


@dataclass(frozen=True)
class Conditions:
    """On what conditions a block is run.

    Attributes:
        boundary: What the states are kept inside of.
        uniforms: Stream that bridges at absorbing ends are drawn from.
        on_nonfinite: "raise" stops the block where trajectories are lost; "freeze" goes on
            without them.
        tick: Called after each time that is reached.
        see: Called with k and the state at times[k], k ≥ 1, where a solver `shows_steps`. Neither
            it nor watch may keep or change a state.
        watch: Called with i and the states at nodes[i] and nodes[i + 1], for each step, where a
            solver `shows_steps`.
        on_containment: Called before the first step with what keeps the block inside, where
            there is a boundary and a solver `shows_steps`.
    """

    boundary: Enclosure | None = None
    on_nonfinite: OnNonfinite = "raise"
    tick: Callable[[], None] | None = None
    see: See | None = None
    watch: Watch | None = None
    uniforms: Stream | None = None
    on_containment: Callable[[Containment], None] | None = None


@dataclass(frozen=True)
class Solution:
    """What a solver returns for one block.

    Attributes:
        states: Shape (T, batch, *event), T as many as were reached.
        nfe: Evaluations of the drift (of the score, for reverse dynamics).
        nonfinite: Which trajectories were lost, shape (batch,).
        failed_at: Time at which lost trajectories were found and the block stopped, or None.
        why: What kept a solver from going on, where it was not that trajectories were lost.
        cause: What is not finite at finite states too, and so lost trajectories.
        cure: What to pass against it, where that is known.
        interrupted_at: Time up to which the block went before Ctrl-C stopped it, or None.
        absorbed: Which trajectories were absorbed by each of the times, shape (T, batch), or None.
        windings: How often each coordinate went around by then, shape of states, or None.
        exploded: What is said of trajectories that are lost and finite, or None.
    """

    states: Tensor
    nfe: int
    nonfinite: Tensor
    failed_at: float | None = None
    why: str | None = None
    interrupted_at: float | None = None
    cause: str | None = None
    cure: str | None = None
    absorbed: Tensor | None = None
    windings: Tensor | None = None
    exploded: str | None = None

    @property
    def advice(self) -> str:
        """What to do about lost trajectories, and why where it is known."""
        go_on = "on_nonfinite='freeze' to go on without them."
        if self.cure is not None:
            return f"{self.cause}: {self.cure}."
        if self.cause is None:
            return f"Take smaller steps (substeps=…), or {go_on}"
        return f"{self.cause}: look at what it returns there, or pass {go_on}"


class Record:
    """What a block has gone through: its path, what was lost on it, and whether it may go on.

    Ctrl-C is held back in its `with` block, and stops it after the step that is being taken.

    Args:
        x0: State at nodes[0].
        nodes: Times at which steps begin and end, shape (steps + 1,).
        substeps: Every so many nodes one is kept.
        keep_path: Whether states are kept, or the last one alone.
        conditions: Who looks on; "raise" sets `failed_at`, "freeze" holds what is lost where it
            was finite.
        containment: What keeps the block inside a boundary, if anything does.

    Attributes:
        interrupted: Whether the block must end where it is, as a function.
        suspects: The nodes from the last check to the one that found trajectories lost, or None.
        finite: The last state that is known to be finite.
        free: Whether there is no boundary.
    """

    def __init__(
        self,
        x0: State,
        nodes: Tensor,
        substeps: int,
        keep_path: bool,
        conditions: Conditions,
        containment: Containment | None = None,
    ) -> None:
        self.x = self.finite = x0
        self.suspects: range | None = None
        self._reached = 0
        self.failed_at: float | None = None
        self.interrupted_at: float | None = None
        self._interrupt = HeldInterrupt()
        self.interrupted = self._interrupt.watcher()
        self._nodes, self._substeps, self._last = nodes, substeps, len(nodes) - 1
        self._checked, self._due = 0, _FIRST_CHECK
        self._path = [x0] if keep_path else None
        self._freeze = conditions.on_nonfinite == "freeze"
        self._tick, self._see, self._watch = conditions.tick, conditions.see, conditions.watch
        self._sums: list[tuple[int, Tensor]] = []
        self._containment = containment
        self.free = containment is None
        self._counted = [_counts(containment)]
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
            self._reached == self._last
            or self.failed_at is not None
            or self.interrupted_at is not None
        )

    def next_look(self, i: int) -> int:
        """The next node after i whose state must be entered with `reach`."""
        if self._freeze or self._watch is not None:
            return i + 1
        unseen = self._path is None and self._see is None and self._tick is None
        kept = self._last if unseen else (i // self._substeps + 1) * self._substeps
        return min(kept, self._due, self._last)

    def reach(self, i: int, x: State) -> State:
        """Enters the state at nodes[i], and returns it with lost trajectories put back."""
        self._reached = i
        if self._freeze:
            self._lost = self._lost | _rows_nonfinite(x)
        before = self.x
        x = self.x = self.held(x)
        if self._containment is not None:
            self._contain(keep=self._path is not None and i % self._substeps == 0)
        if self._watch is not None:
            self._watch(i - 1, before, x)
        reached = i % self._substeps == 0
        if self._path is not None and reached:
            self._path.append(x)
        if self.interrupted():
            self.interrupted_at = float(self._nodes[i])
        seen = reached and self._see is not None
        ends = seen or self.stopped
        if (ends or i >= self._due) and not self._freeze and self._failed(i, x, now=ends):
            self._lost = _rows_nonfinite(x)
            return x
        if reached and self._see is not None:
            self._see(i // self._substeps, x)
        if reached and self._tick is not None:
            self._tick()
        return x

    def _failed(self, i: int, x: State, *, now: bool) -> bool:
        """Whether trajectories are seen to be lost at nodes[i]; on a GPU, whenever it must be."""
        self._due = i + min(i, _CHECK_EVERY)
        if x.is_cuda and not now:
            # to read the sum would make the host wait for every step that it has sent off
            self._sums.append((i, x.sum()))
            return False
        if _all_finite(x):  # what was lost on the way is so still
            self.finite, self._checked = x, i
            return False
        early = [at for at, total in self._sums if not math.isfinite(float(total))]
        found = min([*early, i])
        self.failed_at = float(self._nodes[found])
        self.suspects = range(self._checked, found + 1)
        return True

    def _contain(self, *, keep: bool) -> None:
        """Takes over the counts of a boundary, those of lost trajectories put back."""
        assert self._containment is not None
        if self._freeze:
            self._containment.hold(self._lost)
        if keep:
            self._counted.append(_counts(self._containment))

    def held(self, x: State) -> State:
        """Puts lost trajectories of x back to where they last were finite."""
        return _where_rows(self._lost, self.x, x) if self._freeze else x

    def solution(self, nfe: int) -> Solution:
        """The block as far as it went."""
        states = self.x[None] if self._path is None else torch.stack(self._path)
        counted = [_counts(self._containment)] if self._path is None else self._counted
        absorbed = [a & ~self._lost for a, _ in counted if a is not None]
        windings = [w for _, w in counted if w is not None]
        return Solution(
            states,
            nfe,
            self._lost,
            self.failed_at,
            interrupted_at=self.interrupted_at,
            absorbed=torch.stack(absorbed) if absorbed else None,
            windings=torch.stack(windings) if windings else None,
        )


def _counts(containment: Containment | None) -> tuple[Tensor | None, Tensor | None]:
    """Who is absorbed, and how often each coordinate went around."""
    return (None, None) if containment is None else (containment.absorbed, containment.windings)


def with_cause(solution: Solution, sde: SDE, record: Record, nodes: Tensor) -> Solution:
    """Looks for an end of the space of f and g, and for a time at which f is not finite.

    A process that lives where x ≥ 0, as one with noise √x, is lost when a step carries it beyond:
    g is not finite on the other side of an end, which is found by halving. Smaller steps do not
    help there, and to go on without what was lost leaves those that kept away from the end.

    States are looked at every few steps only, so that it is not known where the first was lost.
    But a network that returns NaN at some times does so at the last state that was finite, too,
    where it was finite at the first time: a state that has all but exploded is lost at any time.
    """
    assert record.suspects is not None
    if record.free:
        with suppress(Exception):  # the run has failed already, and that is what is to be told
            ended = _end_of_space(solution, sde, record.finite, nodes, record.suspects)
            if ended is not None:
                return ended
    if sde.autonomous:
        return solution  # what is finite at one time is so at all
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


def _end_of_space(
    solution: Solution, sde: SDE, x: State, nodes: Tensor, suspects: range
) -> Solution | None:
    """Looks within reach for an end beyond which drift or diffusion are not finite."""
    t, end = nodes[suspects.start], nodes[min(suspects.stop, len(nodes)) - 1]
    span = float((end - t).abs().clamp(min=float(nodes.diff().abs().max())))
    with torch.no_grad():
        f, g = sde.drift(x, t), sde.diffusion(x, t).expand_as(x)
        reach = (f.abs() * span + _REACH * g.abs() * math.sqrt(span)).flatten(1)
        for name, field in (("diffusion", sde.diffusion), ("drift", sde.drift)):
            ends: dict[int, dict[str, float]] = {}
            for c in range(min(reach.shape[1], _COORDINATES)):
                for side, sense in (("low", -1.0), ("high", 1.0)):
                    at = _edge_of(field, x, t, c, sense * reach[:, c])
                    if at is not None:
                        ends.setdefault(c, {})[side] = at
            if ends:
                said = [f"{side}={at:.6g}" for side, at in next(iter(ends.values())).items()]
                place = " and ".join(f"x = {at:.6g}" for at in next(iter(ends.values())).values())
                c = next(iter(ends))
                kept = f"Reflecting({', '.join(said)})"
                kept = kept if reach.shape[1] == 1 else f"{{{c}: {kept}}}"
                which = "" if reach.shape[1] == 1 else f" in coordinate {c}"
                return replace(
                    solution,
                    cause=f"The {name} is not finite beyond {place}{which}, where steps lead",
                    cure=f"pass boundary={kept} to keep the states there",
                )
    return None


def _edge_of(
    field: Callable[[State, Tensor], Tensor], x: State, t: Tensor, c: int, way: Tensor
) -> float | None:
    """Where a field ceases to be finite on the way of coordinate c, None where it does not."""

    def lost(share: Tensor) -> Tensor:
        y = x.flatten(1).clone()
        y[:, c] = y[:, c] + share * way
        return _rows_nonfinite(field(y.reshape(x.shape), t).expand_as(x))

    low, high = torch.zeros_like(way), torch.ones_like(way)
    rows = lost(high) & ~lost(low) & way.isfinite()
    if not bool(rows.any()):
        return None
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        beyond = lost(middle)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    at = (x.flatten(1)[:, c] + high * way)[rows].double()
    scale = float(way[rows].abs().max())
    if float(at.max() - at.min()) > 1e-3 * scale:
        return None  # no one place: an explosion, not an end
    edge = float(at.median())
    return 0.0 if abs(edge) < 1e-6 * scale else edge


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
