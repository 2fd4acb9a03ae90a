"""Blocks: trajectories are run in blocks of fixed size, each with a random stream of its own.

The stream of a block follows from (seed, block), so that the numbers of a full block depend
neither on how many other blocks there are nor on the order in which they run; only the last may be
smaller, and is then reproducible for the same number of trajectories. A block is small enough for
its state to stay in cache for all its steps, which a loop over all of a large ensemble never has.

That the bits are the same holds on one type of device and for one way to take the steps: compiled
runs (`EulerMaruyama(compile=True)`) round otherwise than steps one by one.

Trajectories that feel each other (a mean field) cannot be cut into blocks: see
`sdegen.core.rows`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.brownian import BrownianPath
from sdegen.core.enclosure import Enclosure
from sdegen.core.noise import Stream, Streams
from sdegen.core.onestep import OneStep
from sdegen.core.rows import check_place, couples, looked_at
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.engine.pilot import check_steps
from sdegen.engine.record import OnNonfinite, RunOptions, Solution
from sdegen.engine.run import solve

__all__ = ["Survey", "block_rows", "check_interacting", "solve_block", "survey"]

# numbers in a block: on a CPU what stays, with the intermediate results of a step, in a
# second-level cache; with fewer, threads wait for each other's turn with the interpreter. No power
# of two: ensembles are powers of ten, and their last block shall not leave threads without work
_NUMBERS = {"cpu": 50_000}
_NUMBERS_ON_DEVICE = 2**24  # what fills a GPU
_FEW = 4  # rows that are asked whether they feel each other
_SOME, _MANY_STEPS, _DEAR = 256, 40, 1e-4  # rows; steps, of which two cost 5 %; seconds
_FAR = 1e3  # times as far as the start: from there a state is lost by its steps
_FEWEST_ROWS = 256  # networks on large events still get a batch worth having


def block_rows(x0: State) -> int:
    """Trajectories in a block, from the size of an event and the kind of device alone."""
    numbers = _NUMBERS.get(x0.device.type, _NUMBERS_ON_DEVICE)
    return max(_FEWEST_ROWS, numbers // max(1, x0[0].numel()))


def solve_block(
    sde: SDE,
    solver: Solver,
    x0: State,
    times: Tensor,
    *,
    block: int,
    seed: int,
    keep_path: bool,
    options: RunOptions = RunOptions(),  # noqa: B008 (it is frozen)
    brownian: BrownianPath | None = None,
) -> Solution:
    """Carries one block along the times, with the stream (seed, "dynamics", block).

    Everything has been checked at the door; what gradients are recorded is the caller's choice.

    Args:
        sde: What moves.
        solver: How it moves.
        x0: The block's states at times[0], shape (rows, *event).
        times: Shape (T,), float64, on the CPU.
        block: Number of the block, 0 ≤ block < 2³².
        seed: Seed of the run.
        keep_path: Whether all T states are kept, or the last one alone.
        options: As `sdegen.engine.run.solve` takes them.
        brownian: The path that the noise comes from, in place of the stream.

    Returns:
        The block as far as it went: `failed_at` and `interrupted_at` say whether to the end.
    """

    def walk(options: RunOptions, keep_path: bool) -> Solution:
        noise: Stream | None = None
        if solver.is_stochastic(sde):
            noise = Streams(seed, "dynamics").block(block)
            if brownian is not None:
                noise = brownian.along(solver.nodes(times), block)
        uniforms: Stream | None = None
        if options.boundary is not None:
            # of its own, so that a trajectory that meets no absorbing end keeps its bits
            uniforms = Streams(seed, "boundary").block(block)
        return solve(
            sde,
            solver,
            x0,
            times,
            noise=noise,
            keep_path=keep_path,
            options=options,
            uniforms=uniforms,
        )

    solution = walk(options, keep_path)
    lost = solution.failed_at is not None and solution.why is None and solution.cause is None
    if not lost or not _repeats(sde, solver):
        return solution
    return replace(solution, cause=_where_lost(sde, x0, solver.nodes(times), walk, options))


def _repeats(sde: SDE, solver: Solver) -> bool:
    """Return whether a block can be walked once more, step by step, to the same bits."""
    compiled = isinstance(solver, OneStep) and solver.compile
    return not solver.chooses_steps and not compiled and sde.denoising is None


class _Found(Exception):
    """Ends a run that has shown what it was repeated for; never seen outside."""


def _where_lost(
    sde: SDE,
    x0: State,
    nodes: Tensor,
    walk: Callable[[RunOptions, bool], Solution],
    options: RunOptions,
) -> str | None:
    """Return where drift or diffusion themselves are not finite, by walking a block once more.

    None where they are: then it is the step that goes too far.
    """
    cause: list[str] = []
    far = _FAR * (1 + float(x0.abs().max()))

    def watch(i: int, before: State, after: State) -> None:
        lost = ~after.isfinite().flatten(1).all(1)
        if not bool(lost.any()):
            return
        lost &= before.flatten(1).abs().amax(1) < far  # else it has all but exploded already
        for name, field in (("drift", sde.drift), ("diffusion", sde.diffusion)):
            value = field(before, nodes[i]).expand_as(before)
            bad = lost & ~value.isfinite().flatten(1).all(1)
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                cause.append(
                    f"The {name} is {value[row].flatten()[:4].tolist()} at t = "
                    f"{float(nodes[i]):g} and x = {before[row].flatten()[:4].tolist()}"
                )
                break
        raise _Found

    quiet = replace(options, on_progress=None, on_output=None, on_step=watch)
    with suppress(Exception):  # the run has failed already, and that is what is to be told
        walk(quiet, False)
    return cause[0] if cause else None


@dataclass(frozen=True)
class Survey:
    """What was found out about a run before its first step.

    Attributes:
        together: Whether trajectories feel each other and must run in one piece.
        step_error: Error of the steps, where a pilot was made.
    """

    together: bool
    step_error: ErrorEstimate | None = None


def survey(
    sde: SDE,
    solver: Solver,
    x0: State,
    times: Tensor,
    *,
    trajectories: int,
    seed: int,
    boundary: Enclosure | None,
    interacting: bool | None,
    network: bool,
    on_nonfinite: OnNonfinite,
    stacklevel: int = 3,
) -> Survey:
    """Return whether trajectories feel each other, and what the steps of the run cost in accuracy.

    Looked for at the start, and where a pilot ends that walks a few of them at the run's steps and
    at half of them; it also judges the steps (`sdegen.engine.pilot`).

    Args:
        sde: What moves.
        solver: How it moves.
        x0: States at times[0], all of them or some that stand for the others.
        times: Shape (T,), float64.
        trajectories: Of the run.
        seed: Of the run.
        boundary: What the states are kept inside of.
        interacting: What the user says of it; None is to be found out.
        network: Whether a network is called, of which no more is asked than must be.
        on_nonfinite: As the run has it.
        stacklevel: As `warnings.warn` has it; 3 points at the caller's caller.

    Raises:
        ValueError: If drift or diffusion depend on the place of a trajectory in the batch, or if
            steps are unstable.
    """
    rows = block_rows(x0)
    if not network and interacting is not True:
        many = looked_at(x0[0].numel(), trajectories, len(times), rows)
        if many > _SOME and len(solver.nodes(times)) < _MANY_STEPS and _is_dear(sde, x0, times[0]):
            many = _SOME
        like = x0[:many]
        if len(x0) < many:
            like = x0[torch.arange(many, device=x0.device) % len(x0)]
        check_place(sde.of_rows(slice(many)), like, times[0])
    together = interacting is True
    if interacting is None and (trajectories > rows or not network):
        few, noise = sde.of_rows(slice(len(x0[:_FEW]))), Streams(seed, "probe").block(0)
        sparing = network or trajectories <= rows
        together = couples(few, x0[:_FEW], times, noise, sparing=sparing)
    if network:
        return Survey(together)
    noise = Streams(seed, "pilot").block(0)
    pilot = check_steps(
        sde,
        solver,
        x0,
        times,
        trajectories=trajectories,
        boundary=boundary,
        whole=together,
        noise=noise,
        on_nonfinite=on_nonfinite,
        stacklevel=stacklevel + 1,
    )
    if pilot is not None and interacting is not True and not together and len(pilot.states) > 1:
        check_place(pilot.sde, pilot.states, pilot.t)
        if interacting is None and trajectories > rows:
            then = pilot.t.expand(1)
            together = couples(pilot.sde, pilot.states, then, noise, sparing=True)
    return Survey(together, None if pilot is None else pilot.error)


def _is_dear(sde: SDE, x0: State, t: Tensor) -> bool:
    """Return whether a drift costs so much that a block of it is not evaluated for a check."""
    few = torch.arange(_SOME, device=x0.device) % len(x0)
    start = time.thread_time()
    sde.of_rows(slice(_SOME)).drift(x0[few], t)
    return time.thread_time() - start > _DEAR


def check_interacting(interacting: object) -> None:
    """Refuses what is neither yes nor no nor None.

    Raises:
        TypeError: If it is anything else.
    """
    if not (interacting is None or isinstance(interacting, bool)):
        raise TypeError(
            f"interacting must be True, False or None (find out), but is {interacting!r}."
        )
