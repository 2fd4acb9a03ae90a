"""run_ensemble: any number of trajectories, of which only what is wanted is kept.

An ensemble runs block by block. What a block of trajectories shows goes into observables, and into
a store where there is one; then its states are forgotten. So memory holds a few blocks, whatever
the number of trajectories, and the time is linear in it.

The states are those of `simulate` with the same seed, to the bit. Observables are merged along a
fixed tree over the blocks (`sdegen.observables.base`). Together that makes one result,
whatever the threads, the processes, the order of the blocks, and however often the run was cut
off and resumed. A store that is finished can be taken on to later times or more trajectories, to
the bits of a run that was asked for them at once (`sdegen.engine.extension`).

Trajectories that are lost (on_nonfinite="freeze") are left out of every observable, at all times;
their number is in the result.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.checks import check_flag
from sdegen.core.enclosure import BoundaryLike
from sdegen.core.errors import Interrupted, RankError, SdegenError
from sdegen.core.fingerprint import versions
from sdegen.core.gradients import check_no_gradient
from sdegen.core.interrupt import DeferredInterrupt
from sdegen.core.noise import Rng
from sdegen.core.requests import check_state, refuse_lost_gradient
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.engine.blocks import block_rows, check_blocks
from sdegen.engine.callables import Survey, survey, validate_callables
from sdegen.engine.ensemble_result import Ensemble
from sdegen.engine.extension import end_extension, former_of, open_extended, recover
from sdegen.engine.plan import EnsembleSpec
from sdegen.engine.pool import check_threads, map_blocks, progress_bar, torch_threads
from sdegen.engine.ranks import ENDED, Ranks, single_process
from sdegen.engine.records import COUNTS, BlockStatistics, RecordLayout, Tree, total_over_ranks
from sdegen.engine.scales import warn_start
from sdegen.engine.starts import FEW, Start, example_states, pilot_starts
from sdegen.engine.store import RunStore, description_of, seed_of_run, store_path
from sdegen.engine.store_layout import Layout
from sdegen.engine.validation import Request, validate_request
from sdegen.engine.watching import error_context
from sdegen.observables.base import Observable, check_observables

_WITH_GRADIENT = ", or take that of simulate(…, differentiable=True)"


def run_ensemble(
    sde: SDE,
    x0: Start | NDArray[np.floating],
    times: Tensor | NDArray[np.floating] | Sequence[float],
    *,
    trajectories: int,
    solver: Solver | None = None,
    observables: Sequence[Observable] = (),
    store: str | os.PathLike[str] | None = None,
    resume: bool = False,
    extend: bool = False,
    keep_path: bool = True,
    threads: int | None = None,
    rng: Rng = None,
    boundary: BoundaryLike | None = None,
    walls: object = None,
    on_nonfinite: Literal["raise", "freeze"] = "raise",
    interacting: bool | None = None,
    ranks: Ranks | None = None,
    progress: bool = True,
) -> Ensemble:
    """Run an ensemble in blocks, keeping observables of it and, in a store, its states.

        dX = f(X, t) dt + g(X, t) dW,     ⟨A⟩ = Σ_i A(X_i)/n over the trajectories

    Args:
        sde: What moves.
        x0: States at times[0]: a tensor of shape (trajectories, *event), or (1, *event), where all
            start; or a function x0(rows, rng=generator) that makes the states of a block, shape
            (rows, *event), from the block's own generator and nothing else, such as
            `GaussianMixture(…).sample`. The generator is on the CPU, wherever the states are.
        times: Times at which observables look and states are stored, shape (T,).
        trajectories: How many.
        solver: How it moves; EulerMaruyama() unless said, JumpAdapted() for dynamics that jump,
            BAOAB() in a phase space.
        observables: What is accumulated: Moments(), Histogram(…), FirstPassage(…), or your own.
        store: Folder for the states, a Zarr group such as "run.zarr"; needs the extra [io].
        resume: Whether `store` is resumed if it exists; a new run starts otherwise.
        extend: Whether `store` is taken on to this run: that which it holds, with times added at
            the end, more trajectories, or both. What it has is not computed again where that can
            be helped; if the last block was not full, its trajectories are drawn anew.
        keep_path: Whether the states at all times are stored, or the last alone.
        threads: CPU threads; the cores that the process may use, unless said, or its share of
            them among `ranks`.
        rng: Seed, generator, or None for fresh entropy, or for the seed of the store that is
            resumed.
        boundary: What the states are kept inside of, as `simulate` takes it.
        walls: Retired, an error: write boundary=.
        on_nonfinite: "raise", or "freeze": go on without the trajectories that were lost.
        interacting: Whether trajectories depend on each other, as in a mean field, and must run
            together; None finds out by a probe.
        ranks: The processes that share the run, from `distributed_context`; of those that torchrun
            started none may run one without.
        progress: Whether a progress bar is shown on a terminal.

    Returns:
        The observables' results, what they cost, and the seed that gives them again.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit; a store that is of another run, for one.
        MemoryError: If the blocks would not fit.
        OSError: If the store cannot be written: a disk that is full or read-only.
        NonFiniteError: If trajectories explode on the way; of a sampler also where what it ends
            with is finite and far too large for its path.
        SolverError: If an adaptive solver finds no step that would do.
        Interrupted: On Ctrl-C; what is done is in the store, and in `.result` as an `Ensemble` of
            fewer trajectories. `.result` of the other two likewise.
        RankError: If another process of the run died.

    Example:
        >>> ode = sg.ItoProcess(drift=lambda x: -x, diffusion=0.0)
        >>> times = [0.0, 0.5, 1.0]
        >>> start, asked = torch.ones(1, 1), [sg.Moments()]
        >>> run = sg.run_ensemble(ode, start, times, trajectories=3, observables=asked)
        >>> run.observables["moments"].mean.flatten()
        tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    ranks = single_process() if ranks is None else ranks
    wanted = check_observables(observables)
    trajectories = _check_request(trajectories, store, resume, extend, wanted)
    threads = check_threads(threads, processes=ranks.here)
    path = store_path(store)
    ranks.check_same(versions())
    seed = ranks.broadcast_value(lambda: _seed_of(rng, path, resume or extend))
    x0 = _checked_start(x0)
    recorded = torch.is_grad_enabled()
    with torch.no_grad():
        states = example_states(x0, trajectories, seed)
        request = validate_request(
            sde,
            solver,
            states,
            times,
            boundary=boundary,
            walls=walls,
            on_nonfinite=on_nonfinite,
            interacting=interacting,
            flags={"keep_path": keep_path},
            trajectories=trajectories,
        )
        whole = interacting is True or request.solver.requires_full_batch
        network = validate_callables(request, whole=whole)
        if recorded and not network:
            _check_no_gradient(request, states if whole else states[:FEW])
        starts, t = pilot_starts(x0, states, trajectories, seed), request.times[0]
        if sde.direction == -1:
            warn_start(sde, starts, t)
        check_blocks(trajectories, block_rows(states))
        seen = Survey(True, slope_by=sde.of_rows(slice(FEW)).slope_by(states[:FEW], t))
        if not request.solver.requires_full_batch:
            seen = survey(replace(request, x0=starts), seed=seed, network=network)
        rows = trajectories if seen.together else min(block_rows(states), trajectories)
        spec = EnsembleSpec(request, seen, x0, wanted, rows, seed, boundary, path, keep_path)
        return _run(spec, ranks, resume, extend, threads, progress)


def _checked_start(x0: Start | NDArray[np.floating]) -> Start:
    """Return starts; refuse a tensor whose gradient an ensemble would lose."""
    if isinstance(x0, Tensor) or not callable(x0):
        x0 = check_state(x0)
        refuse_lost_gradient("x0", x0, "an ensemble", _WITH_GRADIENT)
    return x0


def _seed_of(rng: Rng, path: Path | None, stored: bool) -> int:
    """Return the seed of the run, that of its store where one goes on without a word of it."""
    if path is not None:
        recover(path)
    return seed_of_run(rng, path, resume=stored)


def _check_no_gradient(request: Request, x: Tensor) -> None:
    """Refuse drift and diffusion whose gradient, at some states, an ensemble would lose."""
    sde, t = request.sde.of_rows(slice(len(x))), request.times[0]
    with torch.enable_grad():
        check_no_gradient(sde, x, t, "an ensemble", _WITH_GRADIENT)


def _run(
    spec: EnsembleSpec, ranks: Ranks, resume: bool, extend: bool, threads: int, progress: bool
) -> Ensemble:
    """Compute the blocks that are missing, and put them together."""
    processes = ranks.here
    if spec.request.x0.is_cuda:
        threads = processes = 1  # each has a GPU of its own
    spec.check_memory(0, threads, processes)
    layout = spec.record_layout()
    spec.check_memory(layout.size, threads, processes)
    store = _opened(spec, layout, ranks, resume, extend)
    former = None if store is None else former_of(store.path, spec, layout)
    tree = layout.tree(spec.blocks)
    missing = _missing(spec, layout, store, ranks, tree)
    mine = ranks.partition(missing)
    failure: SdegenError | None = None
    done = 0
    # each block on one core, so that no sum depends on how many there are; whole runs on all
    cores = nullcontext() if spec.survey.together else torch_threads(1)
    total = len(mine) * (len(spec.times) - 1) if progress and ranks.rank == 0 else None
    with (
        DeferredInterrupt() as interrupt,
        cores,
        progress_bar(total, "run_ensemble", on_terminal=True) as on_progress,
    ):
        results = map_blocks(
            lambda b: (
                (former is not None and former.block(b, on_progress))
                or spec.run_block(b, layout, on_progress)
            ),
            mine,
            threads=threads,
            interrupt=interrupt,
        )
        # a KeyboardInterrupt is a second Ctrl-C, or somebody else's handler
        with suppress(KeyboardInterrupt), closing(results):
            for b, (solution, statistics) in results:
                failure = spec.failure(b, solution)
                if failure is not None:
                    break
                if statistics is None:
                    continue  # cut by Ctrl-C
                if store is not None:
                    record = layout.pack(statistics)
                    store.write(b, solution.states, solution.nonfinite, record)
                tree.add(0, b, statistics)
                done += 1
    if failure is None and done == len(mine):
        together = total_over_ranks(tree, layout, ranks, spec.blocks)
        if former is not None and ranks.rank == 0:  # all ranks are done
            end_extension(former.path)
        return _ensemble(spec, together)
    # in a store there are those of the other ranks too
    done = spec.blocks - len(missing) + done if store is None else len(store.done())
    result = _ensemble(spec, tree.total()) if tree.nodes else None
    raise _unfinished(spec, ranks, done, failure, result)


def _opened(
    spec: EnsembleSpec, layout: RecordLayout, ranks: Ranks, resume: bool, extend: bool
) -> RunStore | None:
    """Return the store, created or opened by rank 0; None without one."""
    path, few = spec.store, spec.request.x0
    if path is None:
        return None
    about = {"run": spec.run_spec(), "versions": versions()}
    kept = spec.times if spec.keep_path else spec.times[-1:]
    trajectories, event = spec.request.trajectories, tuple(few.shape[1:])
    shape = Layout(kept, trajectories, spec.rows, event, few.dtype, layout.size)

    def prepare() -> int:
        if extend:
            open_extended(path, spec, about, shape)
        elif not path.exists():
            RunStore.create(path, about, shape)
        elif resume:
            RunStore.open(path, about, shape)
        else:
            description_of(path)  # refuses what is no store in words of its own
            raise ValueError(
                f"{path} exists; pass resume=True to go on with it, or another store."
            )
        return 0

    ranks.broadcast_value(prepare)
    return RunStore(path, shape)


def _missing(
    spec: EnsembleSpec, layout: RecordLayout, store: RunStore | None, ranks: Ranks, tree: Tree
) -> Sequence[int]:
    """Return the blocks that are not in the store; those that are join the tree."""
    if store is None:
        return range(spec.blocks)
    is_missing = torch.ones(spec.blocks, dtype=torch.uint8)
    # rank 0 looks, and tells: for another rank the first blocks might be done already
    for b in sorted(store.done()) if ranks.rank == 0 else ():
        if (record := store.record(b)) is not None:
            tree.add(0, b, layout.unpack(record))
            is_missing[b] = 0
    missing: list[int] = ranks.broadcast(is_missing).nonzero()[:, 0].tolist()
    return missing


def _ensemble(spec: EnsembleSpec, total: BlockStatistics) -> Ensemble:
    """Return what the user gets of a record."""
    counts = {key: int(value) for key, value in total[COUNTS].items()}
    observed = dict.fromkeys(o.name for o in spec.observables)
    if counts["nonfinite"] < counts["trajectories"]:
        for o in spec.observables:
            with error_context(o.name):
                observed[o.name] = o.result(total[o.name], spec.times)
    return Ensemble(
        times=spec.times,
        observables=observed,
        seed=spec.seed,
        store=spec.store,
        step_error=spec.survey.step_error,
        slope_by=spec.survey.slope_by,
        **counts,
    )


def _unfinished(
    spec: EnsembleSpec,
    ranks: Ranks,
    done: int,
    failure: SdegenError | None,
    result: Ensemble | None,
) -> BaseException:
    """Return the error of a run that has not come to its end, with what is done."""
    # with what cures a failure the run is another, which this store would refuse
    next_ = "resume=True goes on" if failure is None else "a run that is changed needs another"
    stored = "" if spec.store is None else f" They are in {spec.store}: {next_}."
    rank = f"rank {ranks.rank} of {ranks.world}: " if ranks.world > 1 else ""
    words = f"{rank}{done} of {spec.blocks} blocks are done.{stored}"
    if failure is not None:
        return type(failure)(f"{failure} {words}", result)
    if ranks.ended.is_set():
        return RankError(f"{ENDED}: {words}", result)
    return Interrupted(f"interrupted: {words}", result)


def _check_request(
    trajectories: object,
    store: object,
    resume: bool,
    extend: bool,
    observables: Sequence[Observable],
) -> int:
    """Return the number of trajectories; refuse what makes no run.

    Raises:
        TypeError: If trajectories is no int.
        ValueError: If there are none, nothing would be kept, or words are misspelt.
    """
    if isinstance(trajectories, bool) or not isinstance(trajectories, int | np.integer):
        raise TypeError(
            f"trajectories must be an int, but is {trajectories!r}; a million is 10**6."
        )
    if trajectories < 1:
        raise ValueError(f"trajectories must be ≥ 1, but is {trajectories}.")
    if not observables and store is None:
        raise ValueError(
            'nothing would be kept: pass observables=[Moments()], or store="run.zarr".'
        )
    if resume and store is None:
        raise ValueError('resume=True goes on with a store; pass store="run.zarr" with it.')
    check_flag("extend", extend)
    if extend and store is None:
        raise ValueError('extend=True takes a store on; pass store="run.zarr" with it.')
    return int(trajectories)
