"""What watches the loop of a block: its options, its monitor, and what came of it.

`RunOptions` say what keeps a block, who looks on, and what becomes of trajectories that are lost.
A `RunMonitor` looks at the states that `integrate` yields, whichever solver takes the steps, keeps
those that are asked for, and ends as a `Solution`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.enclosure import Enclosure
from sdegen.core.failure import Failure
from sdegen.core.shapes import State, rows_nonfinite
from sdegen.engine.containment import Containment
from sdegen.engine.freezing import Freezing

OnOutput = Callable[[int, State], None]
OnStep = Callable[[int, State, State], None]
OnNonfinite = Literal["raise", "freeze"]

# steps to the first check for what is lost, and between any two of a long run. The check costs as
# much as a cheap step, and each that is made too late as much as all steps since the last
_FIRST_CHECK, _CHECK_EVERY = 32, 1024


@dataclass(frozen=True)
class RunOptions:
    """How a block is run.

    Attributes:
        boundary: What the states are kept inside of.
        on_nonfinite: "raise" stops the block where trajectories are lost; "freeze" goes on
            without them.
        on_progress: Called after each time that is reached.
        on_output: Called with k and the state at times[k], k ≥ 1. Neither it nor on_step may keep
            or change a state.
        on_step: Called with i and the states at nodes[i] and nodes[i + 1], for each step.
        on_containment: Called before the first step with what keeps the block inside, where
            there is a boundary.
        checkpointed: Whether runs of steps are repeated for gradients, in place of their graph.
    """

    boundary: Enclosure | None = None
    on_nonfinite: OnNonfinite = "raise"
    on_progress: Callable[[], None] | None = None
    on_output: OnOutput | None = None
    on_step: OnStep | None = None
    on_containment: Callable[[Containment], None] | None = None
    checkpointed: bool = False


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
        functionals: Values of functionals by name, shape (T, batch, …).
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
    functionals: dict[str, Tensor] = field(default_factory=dict)

    @property
    def advice(self) -> str:
        """What to do about lost trajectories, and why where it is known."""
        go_on = "on_nonfinite='freeze' to go on without them."
        if self.cure is not None:
            return f"{self.cause}: {self.cure}."
        if self.cause is None:
            return f"Take smaller steps (substeps=…), or {go_on}"
        return f"{self.cause}: look at what it returns there, or pass {go_on}"


class RunMonitor:
    """What a block has gone through: its path, what was lost on it, and whether it may go on.

    Args:
        x0: State at nodes[0].
        nodes: Times at which steps begin and end, shape (steps + 1,).
        stride: Every so many nodes there is a state that is kept, or seen.
        keep_path: Whether states are kept, or the last one alone.
        options: Who looks on; "raise" sets `failed_at`.
        containment: What keeps the block inside a boundary, if anything does.
        freezing: What holds lost trajectories, where they do not stop the block.

    Attributes:
        reached: The node whose state was recorded last.
        stopped: Whether the block does not go on: it is at its end, or must not.
        interrupted: Whether a Ctrl-C waits, as a function.
        suspect_steps: The nodes from the last check to the one that found trajectories lost, or
            None.
        finite: The last state that is known to be finite.
        free: Whether there is no boundary.
    """

    def __init__(
        self,
        x0: State,
        nodes: Tensor,
        stride: int,
        keep_path: bool,
        options: RunOptions,
        containment: Containment | None = None,
        freezing: Freezing | None = None,
    ) -> None:
        self.x: State = x0
        self.finite: State = x0
        self.suspect_steps: range | None = None
        self.reached: int = 0
        self.failed_at: float | None = None
        self.interrupted_at: float | None = None
        self.stopped: bool = False
        self.interrupted: Callable[[], bool] = bool
        self._nodes, self._stride, self._last = nodes, stride, len(nodes) - 1
        self._checked, self._due = 0, _FIRST_CHECK
        self._path = [x0] if keep_path else None
        self._options, self._containment, self._freezing = options, containment, freezing
        self._sums: list[tuple[int, Tensor]] = []
        self.free: bool = containment is None
        self._absorbed: list[Tensor] = []
        self._windings: list[Tensor] = []
        self._count()
        self._lost = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)
        self._why: str | None = None

    def next_checkpoint(self, i: int) -> int:
        """Return the next node after i whose state must be recorded."""
        options = self._options
        if options.on_step is not None:
            return i + 1
        unseen = self._path is None and options.on_output is None and options.on_progress is None
        kept = self._last if unseen else (i // self._stride + 1) * self._stride
        due = self._last if self._freezing is not None else self._due
        return min(kept, due, self._last)

    def record(self, i: int, x: State) -> None:
        """Record the state at nodes[i]."""
        options, seen = self._options, i % self._stride == 0
        before = self.x
        self.x = x
        self.reached = i
        if options.on_step is not None:
            options.on_step(i - 1, before, x)
        if self._path is not None and seen:
            self._path.append(x)
            self._count()
        if self.interrupted():
            self.interrupted_at = float(self._nodes[i])
        self.stopped = i == self._last or self.interrupted_at is not None
        shown = seen and options.on_output is not None
        if self._freezing is None and (shown or self.stopped or i >= self._due):
            self._check(i, x, now=shown or self.stopped)
            if self.failed_at is not None:
                self._lost, self.stopped = rows_nonfinite(x), True
                return
        if seen and options.on_output is not None:
            options.on_output(i // self._stride, x)
        if seen and options.on_progress is not None:
            options.on_progress()

    def fail(self, failure: Failure | None) -> None:
        """Record that the solver could not continue: why, or a Ctrl-C if there is no failure."""
        self.stopped = True
        if failure is None:
            self.interrupted_at = float(self._nodes[self.reached])
        else:
            self._lost, self._why, self.failed_at = failure.rows, failure.why, failure.t

    def give_up(self, rows: Tensor) -> None:
        """Record trajectories without which the solver continues."""
        self._lost = rows

    def _check(self, i: int, x: State, *, now: bool) -> None:
        """Look for trajectories that are lost at nodes[i]; a GPU is asked when it must be."""
        self._due = i + min(i, _CHECK_EVERY)
        if x.is_cuda and not now:
            # to read the sum would make the host wait for every step that it has sent off
            self._sums.append((i, x.sum()))
            return
        with torch.no_grad():  # one by one where the sum is suspicious
            finite = math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all())
        if finite:  # what was lost on the way is so still
            self.finite = x
            self._checked = i
            return
        early = [at for at, total in self._sums if not math.isfinite(float(total))]
        first = min([*early, i])
        self.failed_at = float(self._nodes[first])
        self.suspect_steps = range(self._checked, first + 1)

    def _count(self) -> None:
        """Record who is absorbed, and how often each coordinate went around."""
        inside = self._containment
        if inside is not None and inside.absorbed is not None:
            self._absorbed.append(inside.absorbed)
        if inside is not None and (windings := inside.windings) is not None:
            self._windings.append(windings)

    def solution(self, nfe: int) -> Solution:
        """Return the block as far as it went."""
        lost = self._lost if self._freezing is None else self._lost | self._freezing.lost
        if self._path is None:
            self._absorbed.clear()
            self._windings.clear()
            self._count()
        absorbed = [rows & ~lost for rows in self._absorbed]
        return Solution(
            self.x[None] if self._path is None else torch.stack(self._path),
            nfe,
            lost,
            self.failed_at,
            self._why,
            interrupted_at=self.interrupted_at,
            absorbed=torch.stack(absorbed) if absorbed else None,
            windings=torch.stack(self._windings) if self._windings else None,
        )
