"""A block's run: the loop of a solver, watched, from the first of the times to the last."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from sdegen.core.noise import Noise, RememberedNoise, Stream
from sdegen.core.onestep import OneStep
from sdegen.core.scores import CallCounter
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver, SolverStopped, add_step_note, integrate
from sdegen.engine.causes import with_cause
from sdegen.engine.compiled import CompiledRuns
from sdegen.engine.containment import Containment, absorbed_by_position, steps_alone
from sdegen.engine.record import RunMonitor, RunOptions, Solution
from sdegen.solvers.freezing import Freezing

__all__ = ["solve"]


def solve(
    sde: SDE,
    solver: Solver,
    x0: State,
    times: Tensor,
    *,
    noise: Stream | None,
    keep_path: bool,
    options: RunOptions = RunOptions(),  # noqa: B008 (it is frozen)
    uniforms: Stream | None = None,
) -> Solution:
    """Carry a block from times[0] to times[-1].

    Args:
        sde: What moves.
        solver: How it moves; it has checked the dynamics.
        x0: State at times[0], shape (batch, *event).
        times: Shape (T,), float64, strictly monotone.
        noise: Stream that normals are drawn from, or None for noise-free dynamics.
        keep_path: Whether all T states are kept, or the last one alone.
        options: Boundary, who looks on, and what becomes of trajectories that are lost.
        uniforms: Stream that bridges at absorbing ends are drawn from.

    Returns:
        The block as far as it went.

    Raises:
        ValueError: If on_nonfinite is "freeze" and the solver cannot go on without some; if runs
            are compiled, and the drift does not compile or gradients are asked for.
    """
    drawn = None
    if noise is not None:
        recycled = not (solver.keeps_noise or torch.is_grad_enabled())
        drawn = Noise(x0, noise, recycled=recycled)
    if _compiles(sde, solver, x0, times, options):
        return _compiled(sde, solver, x0, times, drawn, keep_path, options)
    nodes, counter, inside, freezing = solver.nodes(times), CallCounter(), None, None
    if options.boundary is not None:
        inside = Containment(options.boundary, sde, x0, nodes, uniforms)
        if drawn is not None and inside.asks_noise and solver.is_update:
            drawn = RememberedNoise(drawn)
        if options.on_containment is not None:
            options.on_containment(inside)
    if options.on_nonfinite == "freeze":
        solver.check_freeze()
        freezing = Freezing(x0, inside)
    substeps = (len(nodes) - 1) // (len(times) - 1)
    monitor = RunMonitor(x0, nodes, substeps, keep_path, options, inside, freezing)
    # to count calls costs a small ensemble a hundredth; where a step is known to make so many, not
    known = solver.evaluations if isinstance(solver, OneStep) else None
    moving = sde if known is not None else sde.with_counter(counter)
    _watched(moving, solver, nodes, range(len(nodes)), drawn, monitor, freezing or inside)
    solution = monitor.solution(counter.calls if known is None else known * monitor.reached)
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
    with monitor:
        interrupted, k, x = monitor.interrupted, 0, monitor.x
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


def _compiles(sde: SDE, solver: Solver, x0: State, times: Tensor, options: RunOptions) -> bool:
    """Return whether steps are taken in compiled runs; refuse what does not go with them."""
    if not (isinstance(solver, OneStep) and solver.compile):
        return False
    if options.boundary is not None and steps_alone(options.boundary, sde, x0, times[0]):
        return False
    if torch.is_grad_enabled():
        solver.check_gradients()
    if options.on_nonfinite == "freeze":
        solver.check_freeze()
    return True


def _compiled(
    sde: SDE,
    solver: Solver,
    x0: State,
    times: Tensor,
    noise: Noise | None,
    keep_path: bool,
    options: RunOptions,
) -> Solution:
    """Carry a block in compiled runs; a boundary acts within them."""
    assert isinstance(solver, OneStep)  # _compiles() saw to it
    nodes, boundary = solver.nodes(times), options.boundary
    seen = keep_path or options.on_output is not None or options.on_progress is not None
    # how far apart the states are that somebody wants to see
    apart = solver.substeps if seen else len(nodes) - 1
    apart = 1 if options.on_step is not None else apart
    runs = CompiledRuns(solver, sde, x0, nodes, boundary, apart, noise)
    monitor = RunMonitor(x0, nodes, solver.substeps, keep_path, options)
    _watched(sde, runs, nodes, runs.positions, noise, monitor, None)
    solution = monitor.solution(runs.cost * monitor.reached)
    if boundary is None or not boundary.absorbs:
        return solution
    absorbed = [absorbed_by_position(boundary, states) for states in solution.states]
    return replace(solution, absorbed=torch.stack(absorbed))
