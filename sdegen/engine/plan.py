"""The spec of an ensemble: all that a block needs to know, and how one is computed.

It is made once, before the first step, and is the same on every thread and in every process. A
block's start, its noise and the random numbers of its observables follow from the seed and its
number.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.core.enclosure import BoundaryLike
from sdegen.core.errors import NonFiniteError, SdegenError, SolverError
from sdegen.core.fingerprint import to_spec
from sdegen.core.sde import SDE
from sdegen.engine.blocks import solve_block
from sdegen.engine.callables import Survey
from sdegen.engine.memory import check_bytes
from sdegen.engine.record import RunOptions, Solution
from sdegen.engine.records import COUNTS, BlockStatistics, RecordLayout, counted
from sdegen.engine.scales import exploded
from sdegen.engine.starts import FEW, Start, made_of
from sdegen.engine.validation import Request
from sdegen.engine.watching import Watch, check_steps, error_context, try_out
from sdegen.observables.base import Accumulator, Observable, Partial

_HELD = 8  # states of a block that are alive during a step
_AHEAD = 2  # blocks for each thread that wait to be taken


@dataclass(frozen=True, eq=False)
class EnsembleSpec:
    """What is computed.

    Attributes:
        request: SDE, solver, times and the rest, validated; its x0 stands for all starts.
        survey: What is known of the run before its first step.
        x0: Where all start, a row for each, or a function that makes the starts of a block.
        observables: What is accumulated.
        rows: Trajectories of a block.
        seed: Seed of the run.
        boundary: What the state is kept inside of, as it was passed.
        store: Where states are stored, or None.
        keep_path: Whether those at all times are, or the last alone.
    """

    request: Request
    survey: Survey
    x0: Start
    observables: tuple[Observable, ...]
    rows: int
    seed: int
    boundary: BoundaryLike | None
    store: Path | None
    keep_path: bool

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.request.trajectories // self.rows)

    @property
    def times(self) -> Tensor:
        """Times of the run, shape (T,), float64."""
        return self.request.times

    def run_spec(self) -> dict[str, Any]:
        """Return what the bits of the run follow from, but for versions, as JSON."""
        request, few = self.request, self.request.x0
        start = self.x0 if isinstance(self.x0, Tensor) else to_spec(self.x0)
        return {
            "seed": self.seed,
            "trajectories": request.trajectories,
            "rows": self.rows,
            "dtype": str(few.dtype),
            "device": few.device.type,
            "event": list(few.shape[1:]),
            "times": to_spec(self.times) | {"count": len(self.times)},
            "keep_path": self.keep_path,
            "on_nonfinite": request.on_nonfinite,
            "sde": to_spec(request.sde),
            "solver": to_spec(request.solver),
            "boundary": to_spec(self.boundary),
            "x0": to_spec(start),
            "observables": {o.name: to_spec(o) for o in self.observables},
        }

    def start(self, b: int) -> Tensor:
        """Return the states of a block at times[0]."""
        first, trajectories = b * self.rows, self.request.trajectories
        rows = min(self.rows, trajectories - first)
        if isinstance(self.x0, Tensor):
            if len(self.x0) > 1:
                return self.x0[first : first + rows]
            # a view of one row would be written to in place, or read with a stride of 0
            return self.x0.expand(rows, *self.x0.shape[1:]).contiguous()
        x, few = made_of(self.x0, rows, self.seed, "start", b), self.request.x0
        if (x.shape[1:], x.dtype, x.device) != (few.shape[1:], few.dtype, few.device):
            raise ValueError(
                f"x0({rows}, rng=…) returned shape {tuple(x.shape)}, {x.dtype}, on {x.device}, "
                f"but x0({len(few)}, rng=…) shape {tuple(few.shape)}, {few.dtype}, on "
                f"{few.device}."
            )
        if self.request.boundary is not None:
            name = f"what x0({rows}, rng=…) returned"
            self.request.boundary.check_inside(x, self.times[0], name)
        return x

    def run_block(
        self, b: int, layout: RecordLayout, on_progress: Callable[[], None] | None
    ) -> tuple[Solution, BlockStatistics | None]:
        """Compute a block; its statistics are None if it did not come to its end."""
        x0 = self.start(b)
        solution, statistics = self._observed(b, x0, None, on_progress)
        if self._ended(solution):
            solution = self.judged(b, x0, solution)
        if not self._ended(solution):
            return solution, None
        diverged = int(solution.nonfinite.sum())
        if diverged and self.observables:
            # once more without them: what they did on the way is no part of the answer
            again = replace(self, store=None)
            _, statistics = again._observed(b, x0, ~solution.nonfinite, None)
        if diverged < len(x0):
            layout.check(statistics, b)
        else:
            statistics = layout.unpack(torch.zeros(layout.size, dtype=torch.uint8))
        statistics[COUNTS] = counted(trajectories=len(x0), nonfinite=diverged, nfe=solution.nfe)
        if self.store is None:  # states that nobody asked for are not held
            solution = replace(solution, states=solution.states[:0].clone())
        return solution, statistics

    def _ended(self, solution: Solution) -> bool:
        """Return whether a block has come to the last time."""
        cut = solution.interrupted_at not in (None, float(self.times[-1]))
        return solution.failed_at is None and not cut

    def judged(self, b: int, x0: Tensor, solution: Solution) -> Solution:
        """Return a block with trajectories diverged that have exploded and are finite."""
        diverged, words = exploded(
            self.dynamics(b), x0, self.times, solution.states[-1], solution.nonfinite
        )
        if words is None:
            return solution
        marked = replace(solution, nonfinite=solution.nonfinite | diverged)
        if self.request.on_nonfinite == "freeze":
            return marked
        return replace(marked, failed_at=float(self.times[-1]), exploded=words)

    def _observed(
        self, b: int, x0: Tensor, rows: Tensor | None, on_progress: Callable[[], None] | None
    ) -> tuple[Solution, BlockStatistics]:
        """Return a block, and what its observables gathered of some rows; None is of all."""
        sde, request = self.dynamics(b), self.request
        sde_of_rows = sde if rows is None else sde.of_rows(rows)
        watch = Watch(request, self.seed, b, rows)
        for o in self.observables:
            watch.watching.append((o, o.begin(watch.block(o, sde_of_rows))))
        seen = bool(self.observables) and (rows is None or bool(rows.any()))
        options = RunOptions(request.boundary, request.on_nonfinite, on_progress)
        if seen:
            options = watch.options(x0, options)
        solver, keep = request.solver, self.store is not None and self.keep_path
        solution = solve_block(
            sde, solver, x0, self.times, block=b, seed=self.seed, keep_path=keep, options=options
        )
        if not seen or not self._ended(solution):
            return solution, {}
        return solution, {o.name: partial_of(o, accumulator) for o, accumulator in watch.watching}

    def dynamics(self, b: int) -> SDE:
        """Return what moves in a block."""
        return self.request.sde.of_rows(slice(b * self.rows, (b + 1) * self.rows))

    def record_layout(self) -> RecordLayout:
        """Return the layout of the records, from what two and three trajectories show.

        Raises:
            ValueError: If an observable needs steps that the solver does not show, or its shapes
                depend on the number of trajectories.
            MemoryError: If even this does not fit.
        """
        try:
            two, three = (self._statistics_of_few(count) for count in (2, 3))
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            first = str(error).partition("\n")[0]
            raise MemoryError(
                f"what the observables gather does not fit ({first}): fewer times, or fewer bins."
            ) from error
        layout = RecordLayout(self.observables, two, three)
        for o in self.observables:
            # a slip would show after the whole run alone; that three are too few is none
            with error_context(o.name), suppress(ArithmeticError, ValueError, RuntimeError):
                o.result(three[o.name], self.times)
        return layout

    def _statistics_of_few(self, count: int) -> BlockStatistics:
        """Return what is gathered of a few trajectories that stay where they are."""
        starts = self.request.x0[:FEW]
        few = torch.arange(count, device=starts.device) % len(starts)
        x, sde = starts[few], self.request.sde.of_rows(few)
        statistics = {COUNTS: counted(trajectories=count, nonfinite=0, nfe=0)}
        for o in self.observables:
            check_steps(o, self.request.solver, self.request.boundary)
            with error_context(o.name):
                accumulator = o.begin(Watch(self.request, self.seed, 0).block(o, sde))
                try_out(o, accumulator, x, len(self.times))
            statistics[o.name] = partial_of(o, accumulator)
        return statistics

    def failure(self, b: int, solution: Solution) -> SdegenError | None:
        """Return the error of a block that could not go on."""
        if solution.failed_at is None:
            return None
        if solution.why is not None:
            return SolverError(solution.why)
        if solution.exploded is not None:
            return NonFiniteError(f"In block {b}, {solution.exploded}")
        diverged = int(solution.nonfinite.sum())
        return NonFiniteError(
            f"{diverged} of {len(solution.nonfinite)} trajectories of block {b} non-finite by "
            f"t = {solution.failed_at:g}. {solution.advice}"
        )

    def check_memory(self, record: int, threads: int, processes: int) -> None:
        """Refuse a run whose blocks would not fit.

        Args:
            record: Bytes of what a block gathers.
            threads: Of each process.
            processes: How many share this memory.

        Raises:
            MemoryError: With the sizes and what to do.
        """
        solver, x0 = self.request.solver, self.request.x0
        stored = self.store is not None
        state = self.rows * x0[0].nbytes
        path = state * len(self.times)
        collecting = sum(
            o.holds_states or type(o).begin is Observable.begin for o in self.observables
        )
        paths = collecting + int(stored and self.keep_path)
        working = _HELD * state + 2 * paths * path
        waiting = record + (path if self.keep_path else state) * stored
        at_once, processes = min(threads, self.blocks), min(processes, self.blocks)
        need = at_once * working + min(_AHEAD * threads, self.blocks) * waiting
        need = processes * (need + self.blocks.bit_length() * record)
        at = f"trajectories at {len(self.times)} times"
        what = f"{at_once} blocks of {self.rows} {at}"
        if self.survey.together:
            why = "they depend on each other (interacting)"
            if solver.requires_full_batch:
                why = f"{type(solver).__name__} takes one step for all"
            what = f"{self.rows} {at}, which run together, as {why},"
        if processes > 1:
            what = f"{processes} processes with {what}"
        saves = {  # what is asked to change must make the need less
            "fewer threads": at_once > 1,
            "fewer processes": processes > 1,
            "fewer times": paths > 0 or record > 0,
            "keep_path=False": stored and self.keep_path and len(self.times) > 1,
            "fewer trajectories": self.survey.together or self.blocks == 1,
        }
        instead = " or ".join(name for name, does in saves.items() if does) or "smaller states"
        check_bytes(need, x0.device, what, instead)


def partial_of(observable: Observable, accumulator: Accumulator) -> Partial:
    """Return what an accumulator gathered, on the CPU."""
    with error_context(observable.name):
        partial: object = accumulator.partial()
        if not isinstance(partial, dict):
            return partial  # type: ignore[return-value]  # refused with a message by the layout
        return {
            key: value.detach().cpu().clone() if isinstance(value, Tensor) else value
            for key, value in partial.items()
        }
