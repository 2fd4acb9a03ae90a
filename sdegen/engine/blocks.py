"""Blocks: trajectories are run in blocks of fixed size, each with a random stream of its own.

The stream of a block follows from (seed, block), so that the numbers of a full block depend
neither on how many other blocks there are nor on the order in which they run; only the last may be
smaller, and is then reproducible for the same number of trajectories. A block is small enough for
its state to stay in cache for all its steps, which a loop over all of a large ensemble never has.

That the bits are the same holds on one type of device and for one way to take the steps: compiled
runs (`EulerMaruyama(compile=True)`) round otherwise than steps one by one.

Trajectories that depend on each other (a mean field) cannot be cut into blocks: see
`sdegen.core.rows`.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from sdegen.core.brownian import BrownianPath
from sdegen.core.failure import SolverStopped, add_step_note
from sdegen.core.fixed_steps import OneStep
from sdegen.core.interrupt import DeferredInterrupt
from sdegen.core.noise import Noise, Stream, Streams
from sdegen.core.noise_structure import check_not_general, fields_of
from sdegen.core.scores import CallCounter
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver, integrate
from sdegen.engine.causes import with_cause, without_bound
from sdegen.engine.checkpointed import CheckpointedRuns, RepeatableNoise
from sdegen.engine.compiled import CompiledRuns
from sdegen.engine.containment import Containment, absorbed_by_position, steps_alone
from sdegen.engine.freezing import Freezing
from sdegen.engine.pool import map_blocks, progress_bar
from sdegen.engine.record import RunMonitor, RunOptions, Solution
from sdegen.engine.validation import Request
from sdegen.engine.watching import PathWatch

# numbers in a block: on a CPU what stays, with the intermediate results of a step, in a
# second-level cache; with fewer, threads wait for each other's turn with the interpreter. No power
# of two: ensembles are powers of ten, and their last block shall not leave threads without work
_NUMBERS = {"cpu": 50_000}
_NUMBERS_ON_DEVICE = 2**24  # what fills a GPU
_STREAMS = 2**32  # see `Streams.block`
_FAR = 1e3  # times as far as the start: from there a state is lost by its steps
_FEWEST_ROWS = 256  # networks on large events still get a batch worth having


def block_rows(x0: State) -> int:
    """Return trajectories in a block, from the size of an event and the kind of device alone."""
    numbers = _NUMBERS.get(x0.device.type, _NUMBERS_ON_DEVICE)
    return max(_FEWEST_ROWS, numbers // max(1, x0[0].numel()))


def check_blocks(trajectories: int, rows: int) -> None:
    """Refuse more blocks than there are streams of random numbers.

    Args:
        trajectories: How many are asked for.
        rows: Trajectories of a block.

    Raises:
        ValueError: With the most that there can be.
    """
    if trajectories > rows * _STREAMS:
        raise ValueError(
            f"trajectories must be ≤ {rows * _STREAMS:.3g}, the {_STREAMS} blocks of {rows} that "
            f"have random numbers of their own, but is {trajectories:.3g}; run some with another "
            "rng."
        )


def solve_blocks(
    request: Request, whole: bool, seed: int, keep_path: bool, threads: int | None, progress: bool
) -> tuple[list[Solution], bool]:
    """Solve all blocks of a request, up to the first that fails, or to Ctrl-C.

    Args:
        request: What is run.
        whole: Whether all trajectories are one block.
        seed: Of the run.
        keep_path: Whether all states are kept, or the last ones alone.
        threads: How many blocks are computed at a time; None takes the cores there are.
        progress: Whether a progress bar is shown.

    Returns:
        The blocks that were begun, and whether a Ctrl-C came.
    """
    sde, x0, ts = request.sde, request.x0, request.times
    rows = len(x0) if whole else block_rows(x0)
    blocks = [slice(i, i + rows) for i in range(0, len(x0), rows)]
    solutions: list[Solution] = []
    total = len(blocks) * (len(ts) - 1) if progress else None
    with progress_bar(total, "simulate") as on_progress, DeferredInterrupt() as interrupt:
        options = RunOptions(
            request.boundary,
            request.on_nonfinite,
            on_progress,
            checkpointed=request.checkpointed,
        )

        def solve(b: int) -> Solution:
            of_block = sde if len(blocks) == 1 else sde.of_rows(blocks[b])
            watch = PathWatch(request, seed, b, of_block) if request.functionals else None
            solution = solve_block(
                of_block,
                request.solver,
                x0[blocks[b]],
                ts,
                block=b,
                seed=seed,
                keep_path=keep_path,
                options=options if watch is None else watch.options(x0[blocks[b]], options),
                brownian=request.brownian,
            )
            return solution if watch is None else watch.joined(solution, keep_path)

        threads = 1 if x0.is_cuda else threads
        results = map_blocks(solve, range(len(blocks)), threads=threads, interrupt=interrupt)
        # a KeyboardInterrupt is a second Ctrl-C, or somebody else's handler
        with suppress(KeyboardInterrupt), closing(results):
            for _, solution in results:
                solutions.append(solution)
                if solution.failed_at is not None:
                    break
    return solutions, interrupt.pending or len(solutions) < len(blocks)


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
    """Carry one block along the times, with the stream (seed, "dynamics", block).

    Everything has been checked at the door; what gradients are recorded is the caller's choice.

    Args:
        sde: What moves.
        solver: How it moves.
        x0: The block's states at times[0], shape (rows, *event).
        times: Shape (T,), float64, on the CPU.
        block: Number of the block, 0 ≤ block < 2³².
        seed: Seed of the run.
        keep_path: Whether all T states are kept, or the last one alone.
        options: As `solve` takes them.
        brownian: The path that the noise comes from, in place of the stream.

    Returns:
        The block as far as it went: `failed_at` and `interrupted_at` say whether to the end.
    """
    nodes = solver.nodes(times)

    def walk(options: RunOptions, keep_path: bool) -> Solution:
        noise: Stream | Noise | None = None
        if solver.is_stochastic(sde):
            noise = Streams(seed, "dynamics").block(block)
            if brownian is not None:
                noise = brownian.noise(x0, nodes, channels=sde.channels, block=block)
        uniforms: Stream | None = None
        if options.boundary is not None:
            # of its own, so that a trajectory that meets no absorbing end keeps its bits
            uniforms = Streams(seed, "boundary").block(block)
        return solve(
            sde,
            solver,
            x0,
            nodes,
            noise=noise,
            keep_path=keep_path,
            stride=(len(nodes) - 1) // (len(times) - 1),
            options=options,
            uniforms=uniforms,
        )

    solution = walk(options, keep_path)
    lost = solution.failed_at is not None and solution.why is None and solution.cause is None
    if not lost or not _repeats(sde, solver):
        return solution
    cause = _where_lost(sde, x0, nodes, walk, options)
    if cause is None and sde.jumps is not None:
        return without_bound(solution, sde)
    return replace(solution, cause=cause)


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
        for name, field in fields_of(sde):
            value = field(before, nodes[i])
            bad = lost & ~value.isfinite().flatten(1).all(1)
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                cause.append(
                    f"The {name} is {value[row].flatten()[:4].tolist()} at t = "
                    f"{float(nodes[i]):g} and x = {before[row].flatten()[:4].tolist()}"
                )
                break
        raise _Found

    quiet = replace(options, on_progress=None, on_output=None, on_step=watch, checkpointed=False)
    with suppress(Exception):  # the run has failed already, and that is what is to be told
        walk(quiet, False)
    return cause[0] if cause else None


def solve(
    sde: SDE,
    solver: Solver,
    x0: State,
    nodes: Tensor,
    *,
    noise: Stream | Noise | None,
    keep_path: bool,
    stride: int = 1,
    options: RunOptions = RunOptions(),  # noqa: B008 (it is frozen)
    uniforms: Stream | None = None,
) -> Solution:
    """Carry a block from nodes[0] to nodes[-1].

    Args:
        sde: What moves.
        solver: How it moves; it has checked the dynamics.
        x0: State at nodes[0], shape (batch, *event).
        nodes: Times at which steps begin and end, float64, strictly monotone.
        noise: What normals are drawn from, or None for noise-free dynamics.
        keep_path: Whether states are kept, or the last one alone.
        stride: Every so many nodes there is a state that is kept, or seen.
        options: Boundary, who looks on, and what becomes of trajectories that are lost.
        uniforms: Stream that bridges at absorbing ends are drawn from.

    Returns:
        The block as far as it went.

    Raises:
        ValueError: If on_nonfinite is "freeze" and the solver cannot go on without some; if runs
            are compiled, and the drift does not compile or gradients are asked for.
    """
    if isinstance(noise, Stream) and options.checkpointed:
        noise = RepeatableNoise(x0, noise, sde.channels)
    if isinstance(noise, Stream):
        recycled = not (solver.retains_noise or torch.is_grad_enabled())
        noise = Noise(x0, noise, recycled=recycled, channels=sde.channels)
    one_step = solver if isinstance(solver, OneStep) else None
    if one_step and one_step.compile and _compiles(sde, one_step, x0, nodes[0], options):
        return _compiled(sde, one_step, x0, nodes, stride, noise, keep_path, options)
    inside = freezing = None
    if options.boundary is not None:
        inside = Containment(options.boundary, sde, x0, nodes, uniforms)
        if options.on_containment is not None:
            options.on_containment(inside)
    if options.on_nonfinite == "freeze":
        solver.check_asked("freeze")
        freezing = Freezing(x0, inside)
    moving = sde if inside is None else inside.dynamics(sde)
    monitor = RunMonitor(x0, nodes, stride, keep_path, options, inside, freezing)
    steps: Sequence[int] = range(len(nodes))
    each, brings_back = solver, freezing or inside
    if options.checkpointed:
        runs = CheckpointedRuns(solver, nodes, stride if keep_path else len(nodes) - 1, inside)
        each, steps, brings_back = runs, runs.positions, None
    # to count calls costs a small ensemble a hundredth; where a step is known to make so many, not
    if one_step and one_step.evaluations is not None and not one_step.is_counted:
        _watched(moving, each, nodes, steps, noise, monitor, brings_back)
        nfe = one_step.evaluations * monitor.reached
    else:
        counter = CallCounter()
        counted = moving.with_counter(counter)
        _watched(counted, each, nodes, steps, noise, monitor, brings_back)
        nfe = counter.calls
    solution = monitor.solution(nfe)
    return solution if monitor.suspect_steps is None else with_cause(solution, sde, monitor, nodes)


def _watched(
    sde: SDE,
    solver: Solver,
    nodes: Tensor,
    positions: Sequence[int],
    noise: Noise | None,
    monitor: RunMonitor,
    boundary: Containment | Freezing | None,
) -> None:
    """Run the loop, and record states where the monitor asks for them.

    Args:
        sde: What moves.
        solver: How it moves.
        nodes: Times at which steps begin and end, in the monitor's numbers.
        positions: Which of them the solver goes to, the first and the last among them.
        noise: What is drawn from.
        monitor: What watches.
        boundary: What brings states back after each step.
    """
    shown = nodes if len(positions) == len(nodes) else nodes[list(positions)]
    memory = solver.begin(sde, shown)
    states = integrate(sde, solver, monitor.x, shown, noise, boundary, memory=memory)
    with DeferredInterrupt() as interrupt:
        interrupted = monitor.interrupted = interrupt.pending_fn()
        k, x = 0, monitor.x
        while not monitor.stopped:
            # steps that nobody looks at are taken in a row
            last = bisect_left(positions, monitor.next_checkpoint(positions[k]))
            try:
                for k, x in enumerate(islice(states, last - k), k + 1):  # noqa: B007, B020
                    if interrupted():
                        break
            except SolverStopped:
                monitor.fail(solver.failure(memory))
                break
            except Exception as error:
                add_step_note(error, positions[k], nodes)
                raise
            failure = solver.failure(memory) if solver.chooses_steps else None
            if failure is not None and not isinstance(boundary, Freezing):
                monitor.fail(failure)
                break
            if failure is not None:
                monitor.give_up(failure.rows)
            monitor.record(positions[k], x)


def _compiles(sde: SDE, solver: OneStep, x0: State, t: Tensor, options: RunOptions) -> bool:
    """Return whether steps are taken in compiled runs; refuse what does not go with them."""
    check_not_general(sde, f"{type(solver).__name__}(compile=True)")
    if options.boundary is not None and steps_alone(options.boundary, sde, x0, t):
        return False
    if torch.is_grad_enabled():
        solver.check_asked("gradients")
    if options.on_nonfinite == "freeze":
        solver.check_asked("freeze")
    return True


def _compiled(
    sde: SDE,
    solver: OneStep,
    x0: State,
    nodes: Tensor,
    stride: int,
    noise: Noise | None,
    keep_path: bool,
    options: RunOptions,
) -> Solution:
    """Carry a block in compiled runs; a boundary acts within them."""
    boundary = options.boundary
    seen = keep_path or options.on_output is not None or options.on_progress is not None
    # how far apart the states are that somebody wants to see
    apart = stride if seen else len(nodes) - 1
    apart = 1 if options.on_step is not None else apart
    runs = CompiledRuns(solver, sde, x0, nodes, boundary, apart, noise)
    monitor = RunMonitor(x0, nodes, stride, keep_path, options)
    _watched(sde, runs, nodes, runs.positions, noise, monitor, None)
    solution = monitor.solution(runs.cost * monitor.reached)
    if boundary is None or not boundary.absorbs:
        return solution
    absorbed = [absorbed_by_position(boundary, states) for states in solution.states]
    return replace(solution, absorbed=torch.stack(absorbed))
