"""The pool: blocks on threads, their results in order.

torch gives the lock of the interpreter back while it computes, so that a thread for each core does
what as many processes would. Each thread computes one block at a time and alone: torch's own
threads, which would cut every small operation in pieces, stand still, unless there are fewer
blocks than threads.

What a block computes follows from its number alone. The pool adds no order, no sharing and no
randomness, and hands results on in the order of the blocks; hence no bit depends on the threads.
Sums and products of matrices within a drift are the exception where there are fewer blocks than
threads, or all trajectories run together: there torch's own threads share them, and the library
behind them says in which order it sums.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from sdegen.core.interrupt import DeferredInterrupt

R = TypeVar("R")

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_AHEAD = 2  # results for each thread, computed or in computation, that nobody has taken yet


def available_cores() -> int:
    """Return the number of cores that this process may use: bound ones, or a container's share."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or "max": no limit
        return cores


def check_threads(threads: object, *, processes: int = 1) -> int:
    """Return the number of threads to use.

    Args:
        threads: A number ≥ 1, or None for the cores that the process may use.
        processes: How many share those cores.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is below 1.
    """
    if threads is None:
        return max(1, available_cores() // processes)
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer):
        raise TypeError(f"threads must be an int or None, but is {type(threads).__name__}.")
    if threads < 1:
        raise ValueError(
            f"threads must be ≥ 1, but is {threads}; pass None for the cores that the process may "
            "use."
        )
    return int(threads)


def map_blocks(
    work: Callable[[int], R],
    blocks: Sequence[int],
    *,
    threads: int | None,
    interrupt: DeferredInterrupt,
) -> Generator[tuple[int, R], None, None]:
    """Compute work(b) for each b in blocks, on threads, and yield (b, work(b)) in their order.

    At most two results a thread are computed ahead of the one that is taken, which bounds the
    memory. When `interrupt` is pending no further block is begun; those in computation see it by
    a `DeferredInterrupt` of their own, end early, and are still yielded. Whoever leaves the
    iterator early stops the others in the same way.

    Args:
        work: What to do for a block; whether gradients are recorded, autocast and the default
            device are those of the caller.
        blocks: Numbers of the blocks.
        threads: How many are computed at a time; 1 computes on the caller's own thread, and None
            takes the cores that the process may use.
        interrupt: Held by the caller around the whole iteration.

    Yields:
        Number and result of each block that was begun.

    Raises:
        BaseException: What work(b) raised, in the place of b's result, after the others have
            ended.
    """
    if not blocks:
        return
    own = torch.get_num_threads()
    if threads is None:
        threads = 1 if own == len(blocks) == 1 else available_cores()
    workers = min(threads, len(blocks))
    inner = max(1, min(own, threads // len(blocks)))
    if workers > 1:
        yield from WorkerPool(work, blocks, workers, inner, interrupt).results()
        return
    for b in blocks:
        if interrupt.pending:
            return
        with torch_threads(inner):
            result = work(b)
        yield b, result


@contextmanager
def progress_bar(
    total: int | None, title: str, *, on_terminal: bool = False
) -> Iterator[Callable[[], None] | None]:
    """Show a progress bar, and yield what to call after each time of a block.

    Args:
        total: How many times of blocks there are; None shows no bar.
        title: What stands before it.
        on_terminal: Whether it is shown on a terminal alone.
    """
    if total is None:
        yield None
        return
    one_at_a_time, disable = threading.Lock(), None if on_terminal else False
    with tqdm(total=total, disable=disable, unit="step", desc=title) as bar:

        def on_progress() -> None:
            with one_at_a_time:
                bar.update()

        yield None if bar.disable else on_progress


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's own threads for what is inside."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class WorkerPool(Generic[R]):
    """Threads that take blocks in order, and the results that wait to be taken.

    Args:
        work: What to do for a block.
        blocks: Numbers of the blocks.
        workers: How many threads.
        inner: Torch's own threads within each of them.
        interrupt: What ends them.
    """

    def __init__(
        self,
        work: Callable[[int], R],
        blocks: Sequence[int],
        workers: int,
        inner: int,
        interrupt: DeferredInterrupt,
    ) -> None:
        self._work, self._blocks, self._inner = work, blocks, inner
        self._interrupt, self._ahead = interrupt, _AHEAD * workers
        self._begun = self._taken = 0
        self._closed = False
        self._done: dict[int, R | BaseException] = {}
        self._change = threading.Condition()
        self._surroundings = _surroundings()
        # daemons: after a second Ctrl-C nothing waits for a step that takes minutes
        self._threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._run,), daemon=True)
            for _ in range(workers)
        ]

    def results(self) -> Iterator[tuple[int, R]]:
        """Yield the results in order; see `map_blocks`."""
        own, wait = torch.get_num_threads(), True
        for thread in self._threads:
            thread.start()
        try:
            while self._next_is_coming():
                result = self._done.pop(self._taken)
                if isinstance(result, BaseException):
                    raise result
                b = self._blocks[self._taken]
                with self._change:
                    self._taken += 1
                    self._change.notify_all()
                yield b, result
        except KeyboardInterrupt:  # a second one
            wait = False
            raise
        finally:
            with self._change:
                ended = self._taken == len(self._blocks)
                self._closed = True
                self._change.notify_all()
            if not ended:
                self._interrupt.stop()
            if wait:
                for thread in self._threads:
                    thread.join()
            # what a worker set for itself is also what threads not yet begun would start with
            torch.set_num_threads(own)

    def _next_is_coming(self) -> bool:
        """Wait for the next result; return False if its block will not be begun."""
        with self._change:
            while self._taken not in self._done:
                over = self._closed or self._interrupt.pending or self._begun == len(self._blocks)
                if over and self._taken == self._begun:
                    return False
                self._change.wait(0.1)  # a Ctrl-C notifies nobody
            return True

    def _run(self) -> None:
        """Run one block after the other on this thread, until no block is left to begin."""
        torch.set_num_threads(self._inner)
        with self._surroundings():
            while (i := self._begin()) is not None:
                try:
                    result: R | BaseException = self._work(self._blocks[i])
                except BaseException as error:
                    result = error
                with self._change:
                    self._done[i] = result
                    self._closed = self._closed or isinstance(result, BaseException)
                    self._change.notify_all()

    def _begin(self) -> int | None:
        """Return the place of the next block, once it may be begun; None if there is none."""
        with self._change:
            while True:
                if self._closed or self._interrupt.pending or self._begun == len(self._blocks):
                    return None
                if self._begun - self._taken < self._ahead:
                    self._begun += 1
                    return self._begun - 1
                self._change.wait(0.1)


def _surroundings() -> Callable[[], ExitStack]:
    """Return torch's settings of this thread: gradients, autocast, default device."""
    gradients, device = torch.is_grad_enabled(), torch.get_default_device()
    autocasts = [
        (kind, torch.get_autocast_dtype(kind))
        for kind in ("cpu", "cuda")
        if torch.is_autocast_enabled(kind)
    ]

    def there() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.set_grad_enabled(gradients))
        for kind, dtype in autocasts:
            stack.enter_context(torch.autocast(kind, dtype=dtype))
        if device.type != "cpu":
            stack.enter_context(device)
        return stack

    return there
