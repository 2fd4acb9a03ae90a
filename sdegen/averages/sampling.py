"""Sampling: blocks of trajectories of the levels, on threads, merged in one order.

A level of n steps is sampled alone, Y = f(X_n), or beside the level of n/2 steps on the same
noise, Y = f(X_n) − f(X_{n/2}). Samples come in blocks. Each has a stream of its own, (seed, level,
block), and the blocks are merged in the order of their numbers; what is sampled next follows from
what was merged alone. So no bit depends on the threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.averages.coupling import Coupling, Stop
from sdegen.averages.statistics import Statistics
from sdegen.core.errors import NonFiniteError
from sdegen.core.interrupt import DeferredInterrupt
from sdegen.core.noise import Noise, Streams
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, rows_nonfinite
from sdegen.engine.blocks import block_rows
from sdegen.engine.pool import map_blocks
from sdegen.engine.starts import Start, made_of

_NOTHING = Statistics()
_ROUNDINGS = 16.0  # of the largest f: differences of this size are made by rounding
_ALIKE = 1e-6  # of the spread of f: samples that differ by less are alike

Quantity = Callable[[State], Tensor]


@dataclass(frozen=True)
class Level:
    """What is sampled: f after so many steps, or its difference from half as many.

    Attributes:
        steps: Of the run, or of the finer one.
        paired: Whether a coarse run of half as many steps goes with it.
    """

    steps: int
    paired: bool

    @property
    def purpose(self) -> str:
        """The word that its streams are of."""
        return f"average, {self.steps} {'and half as many ' if self.paired else ''}steps"


@dataclass(frozen=True)
class Samples:
    """What a level has shown so far.

    Attributes:
        value: Of Y, whose mean is the level's part of the average.
        fine: Of f after all steps.
        coarse: Of f after half as many; of none where the level is sampled alone.
        lost_fine: How many finer runs were not finite in the end.
        lost_coarse: How many coarser ones.
        rounding: Size of what rounding makes of a difference.
        blocks: How many were merged.
    """

    value: Statistics = _NOTHING
    fine: Statistics = _NOTHING
    coarse: Statistics = _NOTHING
    lost_fine: int = 0
    lost_coarse: int = 0
    rounding: float = 0.0
    blocks: int = 0

    @property
    def is_alike(self) -> bool:
        """Return whether all samples are one number, but for rounding."""
        least = max(self.rounding**2, _ALIKE**2 * self.fine.variance)
        return self.value.variance <= least

    def merge(self, other: Samples) -> Samples:
        """Return both together."""
        return Samples(
            self.value.merge(other.value),
            self.fine.merge(other.fine),
            self.coarse.merge(other.coarse),
            self.lost_fine + other.lost_fine,
            self.lost_coarse + other.lost_coarse,
            max(self.rounding, other.rounding),
            self.blocks + other.blocks,
        )


@dataclass(frozen=True)
class Problem:
    """What is averaged.

    Attributes:
        sde: What moves.
        x0: Where all start, shape (1, *event), or a function that makes the starts of a block.
        example: A few starts, shape (n, *event).
        span: First and last time.
        quantity: f of states, one float64 number for each.
        coupling: How a level is walked.
        seed: Of the run.
        least: Number of the least level to begin with, by what changes with time.
    """

    sde: SDE
    x0: Start
    example: Tensor
    span: tuple[float, float]
    quantity: Quantity
    coupling: Coupling
    seed: int
    least: int = 0

    @property
    def rows(self) -> int:
        """Trajectories of a block, at most."""
        return block_rows(self.example)

    def nodes(self, steps: int) -> Tensor:
        """Return equally spaced times, shape (steps + 1,), float64."""
        return torch.linspace(*self.span, steps + 1, dtype=torch.float64)

    def block(self, level: Level, b: int, rows: int, stop: Stop) -> Samples:
        """Return what a block shows; nothing useful once `stop` says so."""
        purpose = level.purpose
        if isinstance(self.x0, Tensor):
            # a view of one row would be written to in place, or read with a stride of 0
            x = self.x0.expand(rows, *self.x0.shape[1:]).contiguous()
        else:
            x = made_of(self.x0, rows, self.seed, f"{purpose}, starts", b)
        noise, nodes = None, self.nodes(level.steps)
        if self.coupling.solver.is_stochastic(self.sde):
            noise = Noise(x, Streams(self.seed, purpose).block(b), channels=self.sde.channels)
        if not level.paired:
            value, lost = self._values(self.coupling.single(self.sde, x, nodes, noise, stop))
            of_all = Statistics.of(value)
            return Samples(of_all, of_all, lost_fine=lost, blocks=1)
        fines, end = self.coupling.pair(self.sde, x, nodes, noise, stop)
        values, losses = zip(*map(self._values, fines), strict=True)
        coarse, lost_coarse = self._values(end)
        if sum(losses) or lost_coarse:
            return Samples(lost_fine=sum(losses), lost_coarse=lost_coarse, blocks=1)
        fine = torch.stack(values).mean(0) if len(values) > 1 else values[0]
        of_fine = Statistics.of(fine)
        rounding = _ROUNDINGS * torch.finfo(x.dtype).eps * of_fine.largest
        return Samples(
            Statistics.of(fine - coarse),
            of_fine,
            Statistics.of(coarse),
            rounding=rounding,
            blocks=1,
        )

    def _values(self, x: State) -> tuple[Tensor, int]:
        """Return f of states and 0, or nothing and how many states are not finite."""
        lost = int(rows_nonfinite(x).sum())
        if lost:
            return torch.zeros(0, dtype=torch.float64), lost
        value = self.quantity(x)
        bad = ~value.isfinite()
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise NonFiniteError(
                f"f is {float(value[row])} at x = {x[row].flatten()[:4].tolist()}, the end of a "
                "trajectory: an average of it is not finite; let f return a finite number there."
            )
        return value, 0


class Sampler:
    """Draws samples of levels, and holds what they have shown.

    Args:
        problem: What is averaged.
        threads: How many blocks are computed at a time.
        interrupt: Held by the caller.
        on_progress: Called with the evaluations of each block that is done.

    Attributes:
        levels: What was shown, by level.
        evaluations: Of the drift, of all samples ever drawn.
    """

    def __init__(
        self,
        problem: Problem,
        threads: int,
        interrupt: DeferredInterrupt,
        on_progress: Callable[[int], None],
    ) -> None:
        self._problem, self._threads = problem, threads
        self._interrupt, self._on_progress = interrupt, on_progress
        self.levels: dict[Level, Samples] = {}
        self.evaluations: int = 0

    @property
    def is_random(self) -> bool:
        """Whether starts or noise are drawn."""
        given, solver = self._problem, self._problem.coupling.solver
        return not isinstance(given.x0, Tensor) or solver.is_stochastic(given.sde)

    def cost(self, level: Level) -> int:
        """Return the drift evaluations of one sample."""
        return self._problem.coupling.evaluations(level.steps, paired=level.paired)

    def draw(self, wanted: Sequence[tuple[Level, int]]) -> bool:
        """Draw more samples of some levels; return False if a Ctrl-C came.

        Args:
            wanted: Levels, and how many more of each.
        """
        most, tasks = self._problem.rows, []
        for level, count in wanted:
            b = self.levels.setdefault(level, Samples()).blocks
            for k, first in enumerate(range(0, count, most)):
                tasks.append((level, b + k, min(most, count - first)))

        def work(i: int) -> Samples | None:
            with DeferredInterrupt() as inner, torch.no_grad():
                stop = inner.pending_fn()
                samples = self._problem.block(*tasks[i], stop)
                return None if stop() else samples

        results = map_blocks(
            work, range(len(tasks)), threads=self._threads, interrupt=self._interrupt
        )
        done = 0
        with closing(results):
            for i, samples in results:
                if samples is None:
                    continue  # cut by Ctrl-C
                level, _, rows = tasks[i]
                self.levels[level] = self.levels[level].merge(samples)
                cost = rows * self.cost(level)
                self.evaluations += cost
                self._on_progress(cost)
                done += 1
        return done == len(tasks)
