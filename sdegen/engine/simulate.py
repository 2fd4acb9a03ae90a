"""simulate, the front door: joins an SDE to a solver, runs it in blocks, returns a Trajectory."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sdegen.core.brownian import BrownianPath
from sdegen.core.checks import check_flag
from sdegen.core.enclosure import BoundaryLike, Enclosure, enclosure_of
from sdegen.core.errors import Interrupted, NonFiniteError, SdegenError, SolverError
from sdegen.core.interrupt import HeldInterrupt
from sdegen.core.noise import Rng, seed_of
from sdegen.core.retired import refuse_walls
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.blocks import block_rows, check_interacting, solve_block, survey
from sdegen.engine.door import (
    check_brownian,
    check_derivatives,
    check_dynamics,
    check_memory,
    check_state,
    check_times,
    check_trajectories,
    probe,
)
from sdegen.engine.pool import check_threads, over_blocks
from sdegen.engine.record import RunOptions, Solution
from sdegen.engine.scales import check_end, warn_start
from sdegen.solvers.euler import EulerMaruyama

__all__ = ["simulate"]

_FEW = 4  # rows of the start at which a derivative is looked for


def simulate(
    sde: SDE,
    x0: State,
    times: Tensor | NDArray[np.floating] | Sequence[float],
    *,
    solver: Solver | None = None,
    rng: Rng = None,
    boundary: BoundaryLike | None = None,
    walls: object = None,
    keep_path: bool = True,
    on_nonfinite: Literal["raise", "freeze"] = "raise",
    interacting: bool | None = None,
    threads: int | None = None,
    progress: bool = False,
    differentiable: bool = False,
    brownian: BrownianPath | None = None,
) -> Trajectory:
    """Simulates dX = f(X, t) dt + g(X, t) dW from x0 along times.

    Everything runs where x0 lives, in x0's dtype. Times are in the direction of travel: decreasing
    for a `ReverseSDE`.

    Args:
        sde: What moves: a custom drift in `ItoProcess`, a named process, a `ReverseSDE`, a `DDPM`
            chain.
        x0: State at times[0], shape (batch, *event), float32 or float64.
        times: Times that are returned, shape (T,), strictly monotone. A fixed-step solver's
            `substeps` says how finely it walks between them.
        solver: How it moves; EulerMaruyama() unless said.
        rng: Seed, generator, or None for fresh entropy; the result records the seed.
        boundary: What the states are kept inside of: `Reflecting`, `Absorbing` or `Periodic`, for
            states of several coordinates one for each that needs any, as in {0: Periodic(0, 1)}
            (`sdegen.core.boundary`).
        walls: Retired, an error: write boundary=.
        keep_path: Whether the states at all times are kept, or the last alone.
        on_nonfinite: "raise", or "freeze": go on without the trajectories that were lost, and mark
            them.
        interacting: Whether trajectories feel each other and must run together; None finds out by
            a probe.
        threads: How many blocks are computed at a time; None takes the cores that the process may
            use. Neither their number nor their order changes a bit of the result. On a GPU one
            is enough.
        progress: Whether a progress bar is shown.
        differentiable: Whether gradients flow through the simulation; it then runs in one piece.
        brownian: The Brownian path that the noise is taken from, in place of rng: two runs with
            one path, at steps of two sizes, differ by the error of the steps alone. Its times must
            have those at which steps begin and end; solvers that take more than one increment a
            step refuse it.

    Returns:
        The paths, what they cost, and the seed that gives them again.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit, said before the first step.
        MemoryError: If the path would not fit.
        NonFiniteError: If trajectories explode on the way; `.result` has the path up to there. Of
            a sampler also where what it ends with is finite and far too large for its path.
        Interrupted: On Ctrl-C, after the step has ended; `.result` has the trajectories that are
            done or, if none is, the first ones as far as they went. A second one leaves at once.
        SolverError: If an adaptive solver finds no step that would do; `.result` likewise.

    >>> ode = ItoProcess(drift=lambda x: -x, diffusion=0.0)
    >>> simulate(ode, torch.ones(1, 1), [0.0, 0.5, 1.0]).states.flatten()
    tensor([1.0000, 0.5000, 0.2500])
    """
    solver = EulerMaruyama() if solver is None else solver
    x0, ts = check_state(x0), check_times(times)
    refuse_walls(walls)
    enclosure = enclosure_of(boundary, x0.shape[1:])
    check_dynamics(sde, solver, ts, enclosure)
    if on_nonfinite not in ("raise", "freeze"):
        raise ValueError(f"on_nonfinite must be 'raise' or 'freeze', but is {on_nonfinite!r}.")
    check_interacting(interacting)
    check_flag("keep_path", keep_path)
    check_flag("differentiable", differentiable)
    check_trajectories(sde, len(x0))
    check_brownian(brownian, solver, ts)
    check_memory(x0, len(ts) if keep_path else 1)
    warn_start(sde, x0, ts[0])
    threads = check_threads(threads)
    seed = seed_of(rng)

    with nullcontext() if differentiable else torch.no_grad():
        with torch.no_grad():
            network = probe(sde, x0, ts[0], enclosure, whole=interacting is True)
            check_derivatives(sde, x0, ts[0], differentiable=differentiable)
            found = survey(
                sde,
                solver,
                x0,
                ts,
                trajectories=len(x0),
                seed=seed,
                boundary=enclosure,
                interacting=interacting,
                network=network,
                on_nonfinite=on_nonfinite,
            )
            whole = solver.whole or differentiable or found.together
            rows = len(x0) if whole else block_rows(x0)
            blocks = [slice(i, i + rows) for i in range(0, len(x0), rows)]
        one_at_a_time = threading.Lock()
        with tqdm(
            total=len(blocks) * (len(ts) - 1), disable=not progress, unit="step", desc="simulate"
        ) as bar:

            def tick() -> None:
                with one_at_a_time:
                    bar.update()

            options = RunOptions(enclosure, on_nonfinite, tick if progress else None)
            solutions, interrupted = _solutions(
                lambda b: solve_block(
                    sde if len(blocks) == 1 else sde.of_rows(blocks[b]),
                    solver,
                    x0[blocks[b]],
                    ts,
                    block=b,
                    seed=seed,
                    keep_path=keep_path,
                    options=options,
                    brownian=brownian,
                ),
                range(len(blocks)),
                threads=1 if x0.is_cuda else threads,
            )
    failed_at = solutions[-1].failed_at if solutions else None
    if failed_at is not None:
        raise _failure(solutions, ts, keep_path, seed, failed_at, enclosure)
    if interrupted:
        raise _interruption(solutions, ts, keep_path, seed, enclosure)
    result = _joined(solutions, ts if keep_path else ts[-1:], seed, enclosure)
    result = replace(
        result,
        step_error=found.step_error,
        slope_by=sde.of_rows(slice(_FEW)).slope_by(x0[:_FEW].detach(), ts[0]),
    )
    return check_end(sde, x0, ts, result, on_nonfinite == "freeze")


def _solutions(
    solve: Callable[[int], Solution], blocks: range, *, threads: int
) -> tuple[list[Solution], bool]:
    """Solves the blocks, up to the first that fails or to Ctrl-C; and whether that came."""
    solutions: list[Solution] = []
    with HeldInterrupt() as interrupt:
        results = over_blocks(solve, blocks, threads=threads, interrupt=interrupt)
        # a KeyboardInterrupt is a second Ctrl-C, or somebody else's handler
        with suppress(KeyboardInterrupt), closing(results):
            for _, solution in results:
                solutions.append(solution)
                if solution.failed_at is not None:
                    break
    return solutions, interrupt.pending or len(solutions) < len(blocks)


def _joined(
    solutions: list[Solution], times: Tensor, seed: int, enclosure: Enclosure | None
) -> Trajectory:
    """One trajectory from the blocks."""
    reached = min(len(s.states) for s in solutions)
    states = _together([s.states for s in solutions], reached)
    assert states is not None
    nonfinite = torch.cat([s.nonfinite for s in solutions])
    return Trajectory(
        times[:reached],
        states,
        max(s.nfe for s in solutions),
        seed,
        nonfinite,
        absorbed=_together([s.absorbed for s in solutions], reached),
        windings=_together([s.windings for s in solutions], reached),
        periods=enclosure.periods() if enclosure is not None and enclosure.wraps else None,
    )


def _together(parts: list[Tensor | None], reached: int) -> Tensor | None:
    """What the blocks have, shape (reached, batch, …); None where they have none."""
    if len(parts) == 1:
        return parts[0]
    have = [part[:reached] for part in parts if part is not None]
    return torch.cat(have, 1) if len(have) == len(parts) else None


def _failure(
    solutions: list[Solution],
    times: Tensor,
    keep_path: bool,
    seed: int,
    failed_at: float,
    enclosure: Enclosure | None,
) -> SdegenError:
    """The error, with the path up to the last time at which all was finite."""
    last = solutions[-1]
    lost, seen = int(last.nonfinite.sum()), sum(len(s.nonfinite) for s in solutions)
    finite = last.states.flatten(1).isfinite().all(1)
    good = int(finite.long().cumprod(0).sum())

    def upto(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:good]

    kept = [
        replace(s, states=s.states[:good], absorbed=upto(s.absorbed), windings=upto(s.windings))
        for s in solutions
    ]
    seen_finite = last.states[last.states.isfinite()].abs()
    largest = "none on record is finite"
    if len(seen_finite):
        largest = f"the largest finite value on record is {float(seen_finite.max()):.3g}"
    message = (
        f"{lost} of {seen} trajectories non-finite by t = {failed_at:g}; {largest}. {last.advice}"
    )
    # without the path, what there is belongs to no time that was asked for
    result = _joined(kept, times, seed, enclosure) if keep_path and good > 0 else None
    return NonFiniteError(message, result) if last.why is None else SolverError(last.why, result)


def _interruption(
    solutions: list[Solution],
    times: Tensor,
    keep_path: bool,
    seed: int,
    enclosure: Enclosure | None,
) -> Interrupted:
    """Ctrl-C, with the blocks that are done, or else with the first one as far as it went."""
    end = float(times[-1])
    done = [s for s in solutions if s.interrupted_at is None or s.interrupted_at == end]
    if not done and keep_path:
        done = solutions[:1]
    if not done:
        return Interrupted("interrupted before any trajectory was done.")
    result = _joined(done, times if keep_path else times[-1:], seed, enclosure)
    reached = float(result.times[-1])
    message = f"interrupted: {len(result.nonfinite)} trajectories are done up to t = {reached:g}."
    return Interrupted(message, result)
