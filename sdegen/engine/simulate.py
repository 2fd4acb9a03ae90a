"""simulate, the front door: joins an SDE to a solver, runs it in blocks, returns a Trajectory."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.brownian import BrownianPath
from sdegen.core.enclosure import BoundaryLike
from sdegen.core.noise import Rng, seed_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.blocks import solve_blocks
from sdegen.engine.callables import survey, validate_callables
from sdegen.engine.checkpointed import in_checkpointed_runs
from sdegen.engine.memory import check_path
from sdegen.engine.outcome import outcome_of
from sdegen.engine.pool import check_threads
from sdegen.engine.scales import check_end, warn_start
from sdegen.engine.validation import validate_request
from sdegen.engine.watching import with_functionals
from sdegen.observables.functionals import Functional


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
    differentiable: bool | Literal["checkpointed"] = False,
    brownian: BrownianPath | None = None,
    functionals: Sequence[Functional] = (),
) -> Trajectory:
    """Simulate dX = f(X, t) dt + g(X, t) dW from x0 along times.

    Everything runs where x0 lives, in x0's dtype. Times are in the direction of travel: decreasing
    for a `ReverseSDE`.

    Args:
        sde: What moves: a custom drift in `ItoProcess`, a named process, a `ReverseSDE`, a `DDPM`
            chain.
        x0: State at times[0], shape (batch, *event), float32 or float64.
        times: Times that are returned, shape (T,), strictly monotone. A fixed-step solver's
            `substeps` says how finely it walks between them.
        solver: How it moves; EulerMaruyama() unless said, JumpAdapted() for dynamics that jump,
            BAOAB() in a phase space.
        rng: Seed, generator, or None for fresh entropy; the result records the seed.
        boundary: What the states are kept inside of: `Reflecting`, `Absorbing` or `Periodic`, for
            states of several coordinates one for each that needs any, as in {0: Periodic(0, 1)}
            (`sdegen.core.boundary`).
        walls: Retired, an error: write boundary=.
        keep_path: Whether the states at all times are kept, or the last alone.
        on_nonfinite: "raise", or "freeze": go on without the trajectories that were lost, and mark
            them.
        interacting: Whether trajectories depend on each other and must run together; None finds
            out by a probe.
        threads: How many blocks are computed at a time; None takes the cores that the process may
            use. Neither their number nor their order changes a bit of the result. On a GPU one
            is enough.
        progress: Whether a progress bar is shown.
        differentiable: Whether gradients flow through the simulation; it then runs in one piece.
            "checkpointed": in the memory of √N of its N steps, each of which is taken twice
            (`sdegen.engine.checkpointed`), with the same gradients to rounding.
        brownian: The Brownian path that the noise is taken from, in place of rng: two runs with
            one path, at steps of two sizes, differ by the error of the steps alone. Its times must
            have those at which steps begin and end; solvers that take more than one increment a
            step refuse it.
        functionals: What is added up along each path, step by step: Work(), TimeIntegral(h), or
            your own; `Trajectory.functionals` has the values at the times.

    Returns:
        The paths, what they cost, and the seed that gives them again.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit, said before the first step.
        MemoryError: If the path would not fit.
        NonFiniteError: If trajectories explode on the way; `.result` has the path up to there. Of
            a sampler also where what it ends with is finite and far too large for its path.
        Interrupted: On Ctrl-C, after the step has ended; `.result` has the first trajectories, as
            many as are done or, if none is, as far as they went. A second one leaves at once.
        SolverError: If an adaptive solver finds no step that would do; `.result` likewise.

    Example:
        >>> ode = sg.ItoProcess(drift=lambda x: -x, diffusion=0.0)
        >>> sg.simulate(ode, torch.ones(1, 1), [0.0, 0.5, 1.0]).states.flatten()
        tensor([1.0000, 0.5000, 0.2500])
    """
    request = validate_request(
        sde,
        solver,
        x0,
        times,
        boundary=boundary,
        walls=walls,
        on_nonfinite=on_nonfinite,
        interacting=interacting,
        flags={"keep_path": keep_path},
        brownian=brownian,
    )
    gradients = differentiable is not False
    if not isinstance(differentiable, bool):
        request = in_checkpointed_runs(request, differentiable, functionals=bool(functionals))
    x0, ts, reverse = request.x0, request.times, sde.direction == -1
    check_path(x0, len(ts) if keep_path else 1)
    if reverse:
        warn_start(sde, x0, ts[0])
    threads = None if threads is None else check_threads(threads)
    seed = seed_of(rng)
    if not isinstance(functionals, tuple) or functionals:
        request = with_functionals(request, functionals, seed)
    with nullcontext() if gradients else torch.no_grad():
        with torch.no_grad():
            network = validate_callables(
                request, whole=interacting is True, differentiable=gradients
            )
            seen = survey(request, seed=seed, network=network)
        whole = request.solver.requires_full_batch or gradients or seen.together
        solutions, interrupted = solve_blocks(request, whole, seed, keep_path, threads, progress)
    result = outcome_of(
        solutions,
        interrupted,
        ts,
        keep_path=keep_path,
        seed=seed,
        enclosure=request.boundary,
        phase_space=sde.phase_space,
    )
    result = replace(result, step_error=seen.step_error, slope_by=seen.slope_by)
    return check_end(sde, x0, ts, result, on_nonfinite == "freeze") if reverse else result
