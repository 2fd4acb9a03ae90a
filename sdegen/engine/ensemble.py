"""run_ensemble: any number of trajectories, of which only what is wanted is kept.

An ensemble runs block by block. What a block of trajectories shows goes into observables, and into
a store where there is one; then its states are forgotten. So memory holds a few blocks, whatever
the number of trajectories, and the time is linear in it.

The states are those of `simulate` with the same seed, to the bit. Observables are merged along a
fixed tree over the blocks (`sdegen.observables.base`). Together that makes one result,
whatever the threads, the processes, the order of the blocks, and however often the run was cut
off and gone on with.

Trajectories that are lost (on_nonfinite="freeze") are left out of every observable, at all times;
their number is in the result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from sdegen.engine.plan import EnsembleSpec, error_context
from sdegen.engine.pool import check_threads, map_blocks, progress_bar
from sdegen.engine.ranks import ENDED, Ranks, single_process
from sdegen.engine.records import COUNTS, BlockStatistics, RecordLayout, total_over_ranks
from sdegen.engine.scales import warn_start
from sdegen.engine.starts import Start, example_states, pilot_starts
from sdegen.engine.store import RunStore, refuse_existing, seed_of_run, store_path
from sdegen.engine.store_layout import Layout
from sdegen.engine.validation import Request, validate_request
from sdegen.observables.base import Observable, PairwiseReduction, check_observables
from sdegen.solvers.euler import EulerMaruyama

_FEW = 4  # rows that are asked for a gradient
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
    """Runs an ensemble in blocks, keeping observables of it and, in a store, its states.

    Args:
        sde: What moves.
        x0: States at times[0]: a tensor of shape (trajectories, *event), or (1, *event), where all
            start; or a function x0(rows, rng=generator) that makes the states of a block, shape
            (rows, *event), from the block's own generator and nothing else, such as
            `GaussianMixture(…).sample`. The generator is on the CPU, wherever the states are.
        times: Times at which observables look and states are stored, shape (T,).
        trajectories: How many.
        solver: How it moves; EulerMaruyama() unless said.
        observables: What is accumulated: Moments(), Histogram(…), FirstPassage(…), or your own.
        store: Folder for the states, a Zarr group such as "run.zarr"; needs the extra [io].
        resume: Whether a store that is there is gone on with; there may be none yet.
        keep_path: Whether the states at all times are stored, or the last alone.
        threads: CPU threads; the cores that the process may use, unless said, or its share of
            them among `ranks`.
        rng: Seed, generator, or None for fresh entropy, or for the seed of the store that is gone
            on with.
        boundary: What the states are kept inside of, as `simulate` takes it.
        walls: Retired, an error: write boundary=.
        on_nonfinite: "raise", or "freeze": go on without the trajectories that were lost.
        interacting: Whether trajectories feel each other and must run together; None finds out by
            a probe.
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

    >>> ode = ItoProcess(drift=lambda x: -x, diffusion=0.0)
    >>> times = [0.0, 0.5, 1.0]
    >>> run = run_ensemble(ode, torch.ones(1, 1), times, trajectories=3, observables=[Moments()])
    >>> run.observables["moments"].mean.flatten()
    tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    solver = EulerMaruyama() if solver is None else solver
    ranks = single_process() if ranks is None else ranks
    wanted = check_observables(observables)
    trajectories = _check_request(trajectories, store, resume, wanted)
    threads = check_threads(threads, processes=ranks.here)
    path = store_path(store)
    ranks.check_same(versions())
    seed = ranks.broadcast_value(lambda: seed_of_run(rng, path, resume=resume))
    if isinstance(x0, Tensor) or not callable(x0):
        x0 = check_state(x0)
        refuse_lost_gradient("x0", x0, "an ensemble", _WITH_GRADIENT)
    recorded = torch.is_grad_enabled()
    with torch.no_grad():
        sample = example_states(x0, trajectories, seed)
        probed = x0 if isinstance(x0, Tensor) and len(x0) == trajectories else sample
        request = validate_request(
            sde,
            solver,
            probed,
            times,
            boundary=boundary,
            walls=walls,
            on_nonfinite=on_nonfinite,
            interacting=interacting,
            flags={"keep_path": keep_path},
            trajectories=trajectories,
        )
        together = interacting is True or solver.requires_full_batch
        network = validate_callables(request, whole=together)
        if recorded and not network:
            _check_no_gradient(request, probed if together else probed[:_FEW])
        starts, t = pilot_starts(x0, sample, trajectories, seed), request.times[0]
        if sde.direction == -1:
            warn_start(sde, starts, t)
        check_blocks(trajectories, block_rows(sample))
        seen = Survey(True, slope_by=sde.of_rows(slice(len(sample))).slope_by(sample, t))
        if not solver.requires_full_batch:
            seen = survey(replace(request, x0=starts), seed=seed, network=network)
        spec = _spec(request, seen, x0, sample, wanted, seed, boundary, bool(path), keep_path)
        return _run(spec, ranks, path, resume, threads, progress)


def _check_no_gradient(request: Request, x: Tensor) -> None:
    """Refuse drift and diffusion whose gradient, at some states, an ensemble would lose."""
    sde, t = request.sde.of_rows(slice(len(x))), request.times[0]
    with torch.enable_grad():
        check_no_gradient(sde, x, t, "an ensemble", _WITH_GRADIENT)


def _spec(
    request: Request,
    seen: Survey,
    x0: Start,
    sample: Tensor,
    observables: tuple[Observable, ...],
    seed: int,
    boundary: BoundaryLike | None,
    stored: bool,
    keep_path: bool,
) -> EnsembleSpec:
    """Return what is computed, from a request that was validated and surveyed."""
    rows = request.trajectories
    return EnsembleSpec(
        sde=request.sde,
        solver=request.solver,
        x0=x0,
        times=request.times,
        observables=observables,
        trajectories=request.trajectories,
        rows=rows if seen.together else min(block_rows(sample), rows),
        whole=seen.together,
        seed=seed,
        boundary=boundary,
        enclosure=request.boundary,
        on_nonfinite=request.on_nonfinite,
        sample=sample,
        stored=stored,
        keep_path=keep_path,
        step_error=seen.step_error,
        slope_by=seen.slope_by,
    )


def _run(
    plan: EnsembleSpec,
    ranks: Ranks,
    path: Path | None,
    resume: bool,
    threads: int,
    progress: bool,
) -> Ensemble:
    """Run an ensemble that fits into memory, with its store if it has one."""
    is_cuda = plan.sample.is_cuda
    threads, processes = (1, 1) if is_cuda else (threads, ranks.here)  # each has a GPU of its own
    plan.check_memory(0, threads, processes)
    template = plan.template()
    plan.check_memory(template.size, threads, processes)
    opened = _opened(plan, template, ranks, path, resume)
    return _carried_out(plan, template, opened, ranks, threads, progress)


def _carried_out(
    plan: EnsembleSpec,
    template: RecordLayout,
    store: RunStore | None,
    ranks: Ranks,
    threads: int,
    progress: bool,
) -> Ensemble:
    """Computes what is missing, and puts it together."""
    tree: PairwiseReduction[BlockStatistics] = PairwiseReduction(plan.blocks, template.merged)
    # rank 0 looks, and tells: for another rank the first blocks might be done already
    known = _known(store, template) if ranks.rank == 0 else {}
    for b, gathered in known.items():
        tree.add(0, b, gathered)
    missing: Sequence[int] = range(plan.blocks)
    if ranks.broadcast_value(lambda: len(known)):
        is_known = torch.zeros(plan.blocks, dtype=torch.uint8)
        is_known[list(known)] = 1
        missing = (ranks.broadcast(is_known) == 0).nonzero()[:, 0].tolist()
    mine = ranks.partition(missing)
    failure: SdegenError | None = None
    shown = progress and ranks.rank == 0
    done = 0
    total = len(mine) * (len(plan.times) - 1) if shown else None
    with (
        DeferredInterrupt() as interrupt,
        _torch_threads(plan),
        progress_bar(total, "run_ensemble", on_terminal=True) as on_progress,
    ):
        results = map_blocks(
            lambda b: plan.run_block(b, template, on_progress),
            mine,
            threads=threads,
            interrupt=interrupt,
        )
        # a KeyboardInterrupt is a second Ctrl-C, or somebody else's handler
        with suppress(KeyboardInterrupt), closing(results):
            for b, (solution, found) in results:
                failure = plan.failure(b, solution)
                if failure is not None:
                    break
                if found is None:
                    continue  # cut by Ctrl-C
                if store is not None:
                    record = template.pack(found)
                    store.write(b, solution.states, solution.nonfinite, record)
                tree.add(0, b, found)
                done += 1
    path = None if store is None else store.path
    if failure is not None or done < len(mine):
        # with what cures a failure the run is another, which this store would refuse
        next_ = "resume=True goes on" if failure is None else "a run that is changed needs another"
        there = "" if path is None else f" They are in {path}: {next_}."
        # in a store there are those of the other ranks too
        count = plan.blocks - len(missing) + done if store is None else len(store.done())
        here = f"rank {ranks.rank} of {ranks.world}: " if ranks.world > 1 else ""
        told = f"{here}{count} of {plan.blocks} blocks are done.{there}"
        result = _ensemble(plan, tree.total(), path) if tree.nodes else None
        if failure is not None:
            raise type(failure)(f"{failure} {told}", result)
        if ranks.ended.is_set():
            raise RankError(f"{ENDED}: {told}", result)
        raise Interrupted(f"interrupted: {told}", result)
    return _ensemble(plan, total_over_ranks(tree, template, ranks, plan.blocks), path)


def _opened(
    plan: EnsembleSpec, template: RecordLayout, ranks: Ranks, path: Path | None, resume: bool
) -> RunStore | None:
    """The store, made or found by rank 0; None without one."""
    if path is None:
        return None
    about = {"run": plan.run_spec(), "versions": versions()}
    kept = plan.times if plan.keep_path else plan.times[-1:]
    event, dtype = tuple(plan.sample.shape[1:]), plan.sample.dtype
    layout = Layout(kept, plan.trajectories, plan.rows, event, dtype, template.size)

    def prepare() -> int:
        if not path.exists():
            RunStore.create(path, about, layout)
        elif resume:
            RunStore.open(path, about, layout)
        else:
            refuse_existing(path)
        return 0

    ranks.broadcast_value(prepare)
    return RunStore(path, layout)


def _known(store: RunStore | None, template: RecordLayout) -> dict[int, BlockStatistics]:
    """What the store has of blocks that are done."""
    if store is None:
        return {}
    records = {b: store.record(b) for b in sorted(store.done())}
    return {b: template.unpack(r) for b, r in records.items() if r is not None}


def _ensemble(plan: EnsembleSpec, total: BlockStatistics, path: Path | None) -> Ensemble:
    """What the user gets of a record."""
    counts = {key: int(value) for key, value in total[COUNTS].items()}
    if plan.observables and counts["nonfinite"] == counts["trajectories"]:
        observed = dict.fromkeys((o.name for o in plan.observables), None)
    else:
        observed = {}
        for o in plan.observables:
            with error_context(o.name):
                observed[o.name] = o.result(total[o.name], plan.times)
    return Ensemble(
        times=plan.times,
        observables=observed,
        trajectories=counts["trajectories"],
        nonfinite=counts["nonfinite"],
        nfe=counts["nfe"],
        seed=plan.seed,
        store=path,
        step_error=plan.step_error,
        slope_by=plan.slope_by,
    )


def _check_request(
    trajectories: object,
    store: object,
    resume: bool,
    observables: Sequence[Observable],
) -> int:
    """The number of trajectories; refuses what makes no run.

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
    return int(trajectories)


@contextmanager
def _torch_threads(plan: EnsembleSpec) -> Iterator[None]:
    """Each block on one core, so that no sum depends on how many there are; whole runs on all."""
    before = torch.get_num_threads()
    if not plan.whole:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
