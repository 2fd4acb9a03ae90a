"""The plan of an ensemble: all that a block needs to know, and how one is computed.

A plan is made once, before the first step, and is the same on every thread and in every process. A
block's start, its noise and the random numbers of its observables follow from the seed and its
number.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy
from sdegen.core.enclosure import BoundaryLike, Enclosure
from sdegen.core.errors import NonFiniteError, SdegenError, SolverError
from sdegen.core.fingerprint import to_spec
from sdegen.core.fixed_steps import OneStep
from sdegen.core.noise import Streams
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.engine.blocks import solve_block
from sdegen.engine.containment import Containment
from sdegen.engine.memory import check_bytes
from sdegen.engine.record import OnNonfinite, RunOptions, Solution
from sdegen.engine.records import COUNTS, BlockStatistics, RecordLayout, counted
from sdegen.engine.scales import exploded
from sdegen.engine.starts import Start, made_of
from sdegen.observables.base import Accumulator, Block, Observable

_HELD = 8  # states of a block that are alive during a step
_AHEAD = 2  # blocks for each thread that wait to be taken


@dataclass(frozen=True, eq=False)
class EnsembleSpec:
    """What is computed.

    Attributes:
        sde: What moves.
        solver: How it moves.
        x0: Where from.
        times: Shape (T,), float64.
        observables: What is accumulated.
        trajectories: How many.
        rows: Trajectories of a block.
        whole: Whether they must run together.
        seed: Seed of the run.
        boundary: What the state is kept inside of, as it was passed.
        enclosure: The same, for the states of this run.
        on_nonfinite: What to do about trajectories that are lost.
        sample: A few rows of the start.
        stored: Whether states are stored.
        keep_path: Whether those at all times are, or the last alone.
        step_error: Error of the steps, where a pilot was made.
        slope_by: How a derivative that the dynamics need is found.
    """

    sde: SDE
    solver: Solver
    x0: Start
    times: Tensor
    observables: tuple[Observable, ...]
    trajectories: int
    rows: int
    whole: bool
    seed: int
    boundary: BoundaryLike | None
    enclosure: Enclosure | None
    on_nonfinite: OnNonfinite
    sample: Tensor
    stored: bool
    keep_path: bool
    step_error: ErrorEstimate | None = None
    slope_by: SlopeBy = "none"

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.trajectories // self.rows)

    def run_spec(self) -> dict[str, Any]:
        """Return what the bits of the run follow from, but for versions, as JSON."""
        start = self.x0 if isinstance(self.x0, Tensor) else to_spec(self.x0)
        return {
            "seed": self.seed,
            "trajectories": self.trajectories,
            "rows": self.rows,
            "dtype": str(self.sample.dtype),
            "device": self.sample.device.type,
            "event": list(self.sample.shape[1:]),
            "times": to_spec(self.times) | {"count": len(self.times)},
            "keep_path": self.keep_path,
            "on_nonfinite": self.on_nonfinite,
            "sde": to_spec(self.sde),
            "solver": to_spec(self.solver),
            "boundary": to_spec(self.boundary),
            "x0": to_spec(start),
            "observables": {o.name: to_spec(o) for o in self.observables},
        }

    def start(self, b: int) -> Tensor:
        """States of a block at times[0]."""
        first = b * self.rows
        rows = min(self.rows, self.trajectories - first)
        if not isinstance(self.x0, Tensor):
            return self._like_sample(made_of(self.x0, rows, self.seed, "start", b))
        if len(self.x0) == 1:
            # a view of one row would be written to in place, or read with a stride of 0
            return self.x0.expand(rows, *self.x0.shape[1:]).contiguous()
        return self.x0[first : first + rows]

    def _like_sample(self, x: Tensor) -> Tensor:
        like = self.sample
        if (x.shape[1:], x.dtype, x.device) != (like.shape[1:], like.dtype, like.device):
            raise ValueError(
                f"x0({len(x)}, rng=…) returned shape {tuple(x.shape)}, {x.dtype}, on {x.device}, "
                f"but x0({len(like)}, rng=…) shape {tuple(like.shape)}, {like.dtype}, on "
                f"{like.device}."
            )
        if self.enclosure is not None:
            self.enclosure.check_inside(x, self.times[0], f"what x0({len(x)}, rng=…) returned")
        return x

    def run_block(
        self, b: int, template: RecordLayout, on_progress: Callable[[], None] | None
    ) -> tuple[Solution, BlockStatistics | None]:
        """Computes a block; what it gathered is None if it did not come to its end."""
        x0 = self.start(b)
        solution, gathered = self._observed(b, x0, None, on_progress)
        solution = self._judged(b, x0, solution)
        cut = solution.interrupted_at is not None and (
            solution.interrupted_at != float(self.times[-1])
        )
        if solution.failed_at is not None or cut:
            return solution, None
        lost = int(solution.nonfinite.sum())
        if lost and self.observables:
            # once more without them: what they did before they were lost is no part of the answer
            again = replace(self, stored=False)
            _, gathered = again._observed(b, x0, ~solution.nonfinite, None)
        if lost < len(x0):
            template.check(gathered, b)
        else:
            gathered = template.unpack(bytes(template.size))
        gathered[COUNTS] = counted(trajectories=len(x0), nonfinite=lost, nfe=solution.nfe)
        return self._kept(solution), gathered

    def _judged(self, b: int, x0: Tensor, solution: Solution) -> Solution:
        """What came of a block, with trajectories lost that have exploded and are finite."""
        end = float(self.times[-1])
        if solution.failed_at is not None or solution.interrupted_at not in (None, end):
            return solution
        lost, told = exploded(
            self._dynamics(b), x0, self.times, solution.states[-1], solution.nonfinite
        )
        if told is None:
            return solution
        marked = replace(solution, nonfinite=solution.nonfinite | lost)
        if self.on_nonfinite == "freeze":
            return marked
        return replace(marked, failed_at=end, exploded=told)

    def _observed(
        self, b: int, x0: Tensor, rows: Tensor | None, on_progress: Callable[[], None] | None
    ) -> tuple[Solution, BlockStatistics]:
        """A block, and what its observables gathered of some of its rows; None is of all."""
        sde = self._dynamics(b)
        seen_by = sde if rows is None else sde.of_rows(rows)
        accumulators = {o.name: o.begin(self._block(o, b, seen_by)) for o in self.observables}
        stepping = [(accumulators[o.name], o.unwrapped) for o in self.observables if o.every_step]
        on_the_line = {o.name for o in self.observables if o.unwrapped}
        inside: list[Containment] = []
        line = x0  # the states of the last step on the line

        def of_rows(x: Tensor) -> Tensor:
            return x if rows is None else x[rows]

        def unwrapped(x: Tensor) -> Tensor:
            return of_rows(inside[0].unwrapped(x) if inside and on_the_line else x)

        def on_output(k: int, x: Tensor) -> None:
            within, along = of_rows(x), unwrapped(x)
            for name, accumulator in accumulators.items():
                with error_context(name):
                    accumulator.see(k, along if name in on_the_line else within)

        def on_step(i: int, before: Tensor, after: Tensor) -> None:
            nonlocal line
            if i == 0:
                line = of_rows(before)
            then, now, along = of_rows(before), of_rows(after), unwrapped(after)
            for accumulator, is_unwrapped in stepping:
                if is_unwrapped:
                    accumulator.step(i, line, along)
                else:
                    accumulator.step(i, then, now)
            line = along

        seen = bool(accumulators) and (rows is None or bool(rows.any()))
        if seen:
            on_output(0, x0)
        solution = solve_block(
            sde,
            self.solver,
            x0,
            self.times,
            block=b,
            seed=self.seed,
            keep_path=self.stored and self.keep_path,
            options=RunOptions(
                self.enclosure,
                self.on_nonfinite,
                on_progress,
                on_output=on_output if seen else None,
                on_step=on_step if seen and stepping else None,
                on_containment=inside.append,
            ),
        )
        ended = solution.failed_at is None and solution.interrupted_at in (
            None,
            float(self.times[-1]),
        )
        if not seen or not ended:
            return solution, {}
        return solution, {name: _partial(name, a) for name, a in accumulators.items()}

    def _kept(self, solution: Solution) -> Solution:
        """Without the states that nobody asked for, so that they are not held."""
        if self.stored:
            states = solution.states if self.keep_path else solution.states[-1:].clone()
        else:
            states = solution.states[:0].clone()
        return replace(solution, states=states)

    def _dynamics(self, b: int) -> SDE:
        """What moves in a block."""
        return self.sde.of_rows(slice(b * self.rows, (b + 1) * self.rows))

    def _block(self, observable: Observable, b: int, sde: SDE) -> Block:
        stream = Streams(self.seed, f"observable {observable.name}").block(b)
        nodes = self.solver.nodes(self.times) if observable.every_step else self.times
        return Block(sde, self.times, nodes, self.enclosure, stream)

    def template(self) -> RecordLayout:
        """The layout of the records: what observables gather of two and of three trajectories.

        Raises:
            ValueError: If an observable needs steps that the solver does not show, or its shapes
                depend on the number of trajectories.
            MemoryError: If even this does not fit.
        """
        try:
            found = self._found_of_few()
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            first = str(error).partition("\n")[0]
            raise MemoryError(
                f"what the observables gather does not fit ({first}): fewer times, or fewer bins."
            ) from error
        template = RecordLayout(self.observables, *found)
        for o in self.observables:
            # a slip would show after the whole run alone; that three are too few is none
            with error_context(o.name), suppress(ArithmeticError, ValueError, RuntimeError):
                o.result(found[1][o.name], self.times)
        return template

    def _found_of_few(self) -> list[BlockStatistics]:
        """What is gathered of two and of three trajectories."""
        found: list[BlockStatistics] = []
        for count in (2, 3):
            few = torch.arange(count, device=self.sample.device) % len(self.sample)
            x, sde = self.sample[few], self.sde.of_rows(few)
            gathered: BlockStatistics = {COUNTS: counted(trajectories=count, nonfinite=0, nfe=0)}
            for o in self.observables:
                if o.every_step and self.solver.chooses_steps:
                    raise ValueError(
                        f"observable {o.name!r} sees every step, and {type(self.solver).__name__} "
                        "chooses its own: use EulerMaruyama(substeps=…) or Heun(substeps=…)."
                    )
                self._check_turns(o)
                with error_context(o.name):
                    accumulator = o.begin(self._block(o, 0, sde))
                    accumulator.see(0, x)
                    if o.every_step:
                        accumulator.step(0, x, x)
                    for k in range(1, len(self.times)):
                        accumulator.see(k, x)
                gathered[o.name] = _partial(o.name, accumulator)
            found.append(gathered)
        return found

    def _check_turns(self, observable: Observable) -> None:
        """Refuse an observable on the line where turns are not counted."""
        compiled = isinstance(self.solver, OneStep) and self.solver.compile
        around = self.enclosure is not None and self.enclosure.wraps
        if observable.unwrapped and compiled and around:
            raise ValueError(
                f"observable {observable.name!r} needs the turns around the period, which "
                f"compiled runs do not count; pass {type(self.solver).__name__} without compile."
            )

    def failure(self, b: int, solution: Solution) -> SdegenError | None:
        """The error of a block that could not go on."""
        if solution.failed_at is None:
            return None
        if solution.why is not None:
            return SolverError(solution.why)
        if solution.exploded is not None:
            return NonFiniteError(f"In block {b}, {solution.exploded}")
        lost = int(solution.nonfinite.sum())
        return NonFiniteError(
            f"{lost} of {len(solution.nonfinite)} trajectories of block {b} non-finite by "
            f"t = {solution.failed_at:g}. {solution.advice}"
        )

    def check_memory(self, record: int, threads: int, processes: int) -> None:
        """Refuses a run whose blocks would not fit.

        Args:
            record: Bytes of what a block gathers.
            threads: Of each process.
            processes: How many share this memory.

        Raises:
            MemoryError: With the sizes and what to do.
        """
        state = self.rows * self.sample[0].numel() * self.sample.element_size()
        collecting = sum(type(o).begin is Observable.begin for o in self.observables)
        path = state * len(self.times)
        kept = path if self.keep_path else state
        paths = collecting + int(self.stored and self.keep_path)
        working = _HELD * state + 2 * paths * path
        waiting = record + (kept if self.stored else 0)
        at_once = min(threads, self.blocks)
        need = at_once * working + min(_AHEAD * threads, self.blocks) * waiting
        need += self.blocks.bit_length() * record
        processes = min(processes, self.blocks)
        need *= processes
        at = f"trajectories at {len(self.times)} times"
        what = f"{at_once} blocks of {self.rows} {at}"
        if self.whole:
            why = "they feel each other (interacting)"
            if self.solver.requires_full_batch:
                why = f"{type(self.solver).__name__} takes one step for all"
            what = f"{self.rows} {at}, which run together, as {why},"
        if processes > 1:
            what = f"{processes} processes with {what}"
        saves = {  # what is asked to change must make the need less
            "fewer threads": at_once > 1,
            "fewer processes": processes > 1,
            "fewer times": paths > 0 or record > 0,
            "keep_path=False": self.stored and self.keep_path and len(self.times) > 1,
            "fewer trajectories": self.whole or self.blocks == 1,
        }
        instead = " or ".join(name for name, does in saves.items() if does) or "smaller states"
        check_bytes(need, self.sample.device, what, instead)


def _partial(name: str, accumulator: Accumulator) -> dict[str, Tensor]:
    """What an accumulator gathered, on the CPU."""
    with error_context(name):
        found: object = accumulator.partial()
        if not isinstance(found, dict):
            return found  # type: ignore[return-value]  # refused with a message by the template
        return {
            key: value.detach().cpu().clone() if isinstance(value, Tensor) else value
            for key, value in found.items()
        }


class error_context:
    """Says in which observable an error arose."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"in observable {self._name!r}")
