"""Watching: who looks at the states of a block, and in what form they are shown.

A `Watch` shows the states at the times, and each step, to the accumulators of observables: as
they are, or on the line where a boundary is periodic and the observable asks for it; those of
some trajectories alone, where others were lost. `PathWatch` gathers functionals along the paths
of `simulate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.enclosure import Enclosure
from sdegen.core.fixed_steps import OneStep
from sdegen.core.noise import Streams
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.engine.containment import Containment
from sdegen.engine.record import RunOptions, Solution
from sdegen.engine.validation import Request
from sdegen.observables.base import Accumulator, Block, Observable
from sdegen.observables.functionals import Functional, check_functionals

_FEW = 2  # rows that a functional is tried on


class Watch:
    """Shows the states of one block to the accumulators of observables.

    Args:
        request: What is run.
        seed: Of the run.
        block: Number of the block.
        rows: Which trajectories are shown; None for all.
    """

    def __init__(
        self, request: Request, seed: int, block: int, rows: Tensor | None = None
    ) -> None:
        self._request, self._seed, self._number, self._rows = request, seed, block, rows
        self._inside: Containment | None = None
        self._gone: Tensor | None = None
        self._line: State | None = None  # the states of the last step on the line
        self.watching: list[tuple[Observable, Accumulator]] = []

    def block(self, observable: Observable, sde: SDE) -> Block:
        """Return what an observable may know of the block."""
        request = self._request
        solver, times, boundary = request.solver, request.times, request.boundary
        stream = Streams(self._seed, f"observable {observable.name}").block(self._number)
        nodes = solver.nodes(times) if observable.every_step else times
        periods = boundary.periods() if boundary is not None and boundary.wraps else None
        return Block(sde, times, nodes, boundary, stream, self._absorbed, periods)

    def options(self, x0: State, options: RunOptions) -> RunOptions:
        """Show the states at times[0]; return options by which a run shows the others."""
        self._show(0, x0)
        self._line = self._of_rows(x0)
        stepping = any(o.every_step for o, _ in self.watching)
        return replace(
            options,
            on_output=self._show,
            on_step=self._step if stepping else None,
            on_containment=self._contain,
        )

    def _contain(self, inside: Containment) -> None:
        if self._inside is None:  # a run that has failed is walked once more
            self._inside, self._gone = inside, inside.absorbed

    def _absorbed(self) -> Tensor | None:
        """Return which of the trajectories were absorbed before the present step."""
        return None if self._gone is None else self._of_rows(self._gone)

    def _of_rows(self, x: Tensor) -> Tensor:
        return x if self._rows is None else x[self._rows]

    def _unwrapped(self, x: Tensor) -> Tensor:
        inside = self._inside
        on_the_line = inside is not None and any(o.unwrapped for o, _ in self.watching)
        return self._of_rows(inside.unwrapped(x) if on_the_line and inside else x)

    def _show(self, k: int, x: State) -> None:
        within, along = self._of_rows(x), self._unwrapped(x)
        for o, accumulator in self.watching:
            with error_context(o.name):
                accumulator.see(k, along if o.unwrapped else within)

    def _step(self, i: int, before: State, after: State) -> None:
        then, now, along = self._of_rows(before), self._of_rows(after), self._unwrapped(after)
        line = self._line
        assert line is not None
        for o, accumulator in self.watching:
            if o.every_step and o.unwrapped:
                accumulator.step(i, line, along)
            elif o.every_step:
                accumulator.step(i, then, now)
        self._line = along
        if self._inside is not None:
            self._gone = self._inside.absorbed


def try_out(observable: Observable, accumulator: Accumulator, x: State, times: int) -> None:
    """Show an accumulator a few states that stay where they are, and one step."""
    accumulator.see(0, x)
    if observable.every_step:
        accumulator.step(0, x, x)
    for k in range(1, times):
        accumulator.see(k, x)


def check_steps(observable: Observable, solver: Solver, enclosure: Enclosure | None) -> None:
    """Refuse an observable of steps that are not shown, or of turns that are not counted."""
    kind = type(solver).__name__
    if observable.every_step and solver.chooses_steps:
        raise ValueError(
            f"observable {observable.name!r} sees every step, and {kind} chooses its own: use "
            "EulerMaruyama(substeps=…) or Heun(substeps=…)."
        )
    compiled = isinstance(solver, OneStep) and solver.compile
    if observable.unwrapped and compiled and enclosure is not None and enclosure.wraps:
        raise ValueError(
            f"observable {observable.name!r} needs the turns around the period, which "
            f"compiled runs do not count; pass {kind} without compile."
        )
    ends = enclosure is not None and enclosure.absorbs
    if isinstance(observable, Functional) and compiled and ends:
        raise ValueError(
            f"{observable.name!r} ends where a trajectory is absorbed, and compiled runs do not "
            f"tell which are; pass {kind} without compile."
        )


class PathWatch(Watch):
    """Gathers the functionals of `simulate` along the paths of one block.

    Args:
        request: What is run; its functionals are gathered.
        seed: Of the run.
        block: Number of the block.
        sde: What moves in it.
    """

    def __init__(self, request: Request, seed: int, block: int, sde: SDE) -> None:
        super().__init__(request, seed, block)
        for one in request.functionals:
            with error_context(one.name):
                self.watching.append((one, one.begin_paths(self.block(one, sde))))

    def joined(self, solution: Solution, keep_path: bool) -> Solution:
        """Return a block with its functionals, those of trajectories that were lost NaN."""
        values = {}
        for o, accumulator in self.watching:
            value = accumulator.partial()["values"][slice(None) if keep_path else slice(-1, None)]
            lost = solution.nonfinite.view(1, -1, *(1,) * (value.ndim - 2))
            values[o.name] = value.masked_fill(lost, torch.nan)
        return replace(solution, functionals=values)


def with_functionals(request: Request, functionals: Sequence[Functional], seed: int) -> Request:
    """Return a request with functionals that go with it; each is tried on a few rows of x0.

    Raises:
        TypeError: If one is no `Functional`.
        ValueError: If one does not go with the dynamics or the solver.
    """
    request = replace(request, functionals=check_functionals(functionals))
    rows = torch.arange(_FEW, device=request.x0.device) % len(request.x0)
    for one in request.functionals:
        check_steps(one, request.solver, request.boundary)
    watch = PathWatch(request, seed, 0, request.sde.of_rows(rows))
    for o, accumulator in watch.watching:
        with error_context(o.name):
            try_out(o, accumulator, request.x0[rows], len(request.times))
    return request


class error_context:
    """Says in which observable an error arose."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"in observable {self._name!r}")
