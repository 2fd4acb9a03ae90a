"""Extension: a store is taken on to later times, or to more trajectories, to the bits of one run.

A run that is longer is a store of its own, laid out anew, in which the former one lies until all
blocks of the longer run are there:

    run.zarr/progress/before      the store as it was

So a kill at any moment leaves a store that resume=True or extend=True goes on with, and the store
in the end has the files of a run that was asked for all at once, byte by byte. What a block of the
former store still says:

    the same times       a block with as many trajectories is copied: its random numbers follow
                         from the seed and its number. The last block, if it was not full, is
                         computed anew with its new trajectories, and so are its old ones.
    later times          the block goes on from its last states, and observables see the stored
                         ones again. Where its random numbers stand is found by drawing those of
                         the steps that were taken, and forgetting them.

On a CPU a block goes on so if steps remember nothing but the state and draw the same normals each,
or each pair of them does, without a boundary, jumps or a score, and if observables look at the
times alone. That the last stored interval comes out of it with the same bits is checked in each
block. All other blocks are computed from their start: slower, to the same bits.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from sdegen.core.fingerprint import first_difference, in_words, to_spec
from sdegen.core.fixed_steps import OneStep
from sdegen.core.noise import Noise, Streams
from sdegen.core.solver import integrate
from sdegen.engine.blocks import solve
from sdegen.engine.format_1 import without_library_code
from sdegen.engine.plan import EnsembleSpec, partial_of
from sdegen.engine.record import RunOptions, Solution
from sdegen.engine.records import COUNTS, BlockStatistics, RecordLayout, counted
from sdegen.engine.store import RunStore, check_versions, description_of
from sdegen.engine.store_layout import BEFORE, Layout, check_room, lay_out
from sdegen.engine.watching import Watch

_Taken = tuple[Solution, BlockStatistics | None]


def open_extended(path: Path, spec: EnsembleSpec, about: dict[str, Any], layout: Layout) -> None:
    """Make the store of the longer run, with the former one in it, or open it if it is there.

    Args:
        path: The store.
        spec: The longer run.
        about: Its description.
        layout: Shape of what it stores.

    Raises:
        ValueError: If there is no store, or that of another run, with the difference; if the run
            is shorter; if trajectories that depend on each other are to be more.
        OSError: If there is no room.
    """
    if not path.exists():
        raise ValueError(f"{path} is not there to be extended; leave extend out to begin a run.")
    stored = description_of(path)
    if first_difference(stored["run"], about["run"]) is None:  # after a kill, or once more
        RunStore.open(path, about, layout)
        return
    _check_longer(path, stored, spec, about)
    check_room(path, layout.blocks * layout.block_bytes, "make room, and extend it then")
    private = pending(path)
    shutil.rmtree(private, ignore_errors=True)  # laid out by a run that was killed
    private.mkdir()
    lay_out(private, about, layout)
    path.rename(private / BEFORE)
    private.rename(path)


def pending(path: Path) -> Path:
    """Return the folder in which the store of a longer run is laid out."""
    return path.parent / f".{path.name}.extending"


def recover(path: Path) -> None:
    """Put a store in its place that a kill left laid out beside it, the former one in it."""
    private = pending(path)
    if not path.exists() and (private / BEFORE).exists():
        private.rename(path)


def former_of(path: Path, spec: EnsembleSpec, layout: RecordLayout) -> Former | None:
    """Return the former store of one that is being extended; None of any other."""
    before = path / BEFORE
    return Former(before, spec, layout) if before.exists() else None


def end_extension(before: Path) -> None:
    """Forget the former store, when all blocks of the longer run are there."""
    shutil.rmtree(before, ignore_errors=True)


def _check_longer(
    path: Path, stored: dict[str, Any], spec: EnsembleSpec, about: dict[str, Any]
) -> None:
    """Refuse a run that is not the stored one with more trajectories or later times."""
    run, former = dict(about["run"]), stored["run"]
    if (path / BEFORE).exists():
        raise ValueError(
            f"{path} is being extended to another run; end that first, with its arguments and "
            "resume=True."
        )
    check_versions(path, stored, about)
    n, count = former["trajectories"], former["times"]["count"]
    for what, old, new in (
        ("trajectories", n, run["trajectories"]),
        ("times", count, run["times"]["count"]),
    ):
        if new < old:
            raise ValueError(
                f"{path} holds {old} {what}, more than the {new} of this run: extend=True takes a "
                "store on to more; take another store."
            )
    if spec.survey.together and n < run["trajectories"]:
        _refuse(path, "its trajectories depend on each other, so that more of them move otherwise")
    if isinstance(spec.x0, Tensor) and len(spec.x0) > 1:
        run["x0"] = to_spec(spec.x0[:n])
    if n < run["trajectories"]:
        run["sde"] = to_spec(spec.request.sde.of_rows(slice(n)))
        run["rows"] = min(run["rows"], n)
    run["trajectories"] = n
    run["times"] = to_spec(spec.times[:count].clone()) | {"count": count}
    if stored["format"] == 1:
        run = without_library_code(run)
    gap = first_difference(former, run)
    if gap is not None and gap[0][0] == "times":
        raise ValueError(
            f"{path} cannot be taken on to these times: the first {count} must be the stored ones "
            "to the last digit; pass torch.cat([times, later]) with the times of the stored run, "
            "its .times."
        )
    if gap is not None:
        _refuse(path, in_words(*gap))


def _refuse(path: Path, words: str) -> NoReturn:
    raise ValueError(
        f"{path} cannot be taken on to this run: {words}; take another store, or the arguments of "
        "the stored run with later times or more trajectories."
    )


class Former:
    """The store of a run before it was extended.

    Args:
        path: Its folder.
        spec: The longer run.
        layout: Layout of the longer run's records.

    Attributes:
        path: Its folder.
    """

    def __init__(self, path: Path, spec: EnsembleSpec, layout: RecordLayout) -> None:
        run = description_of(path)["run"]
        self.path: Path = path
        self._spec, self._layout = spec, layout
        self._count, self._rows = run["times"]["count"], run["rows"]
        self._trajectories = run["trajectories"]
        kept = spec.times[: self._count] if run["keep_path"] else spec.times[:1]
        few = spec.request.x0
        shape = (tuple(few.shape[1:]), few.dtype, layout.size)
        self._store = RunStore(path, Layout(kept, self._trajectories, self._rows, *shape))
        self._done = self._store.done()
        self._goes_on = _goes_on(spec) and self._count > 1

    def block(self, b: int, on_progress: Callable[[], None] | None) -> _Taken | None:
        """Return a block of the longer run; None where it is to be computed from its start."""
        spec, first = self._spec, b * self._rows
        rows = min(self._rows, self._trajectories - first)
        same = self._rows == spec.rows or b == 0
        if not same or b not in self._done or rows != len(x0 := spec.start(b)):
            return None
        longer = self._count < len(spec.times)
        if longer and not self._goes_on:
            return None
        record, states = self._store.record(b), None
        with suppress(ValueError, RuntimeError):  # a damaged chunk
            states, nonfinite = self._store.block(b)
        if states is None or record is None:
            return None
        if not longer:
            return self._copied(states, nonfinite, record, on_progress)
        return self._carried(b, x0, states, on_progress)

    def _copied(
        self,
        states: Tensor,
        nonfinite: Tensor,
        record: Tensor,
        on_progress: Callable[[], None] | None,
    ) -> _Taken | None:
        """Return a block as it was stored."""
        if len(record) != self._layout.size:
            return None
        statistics = self._layout.unpack(record)
        _advance(on_progress, len(self._spec.times) - 1)
        return Solution(states, int(statistics[COUNTS]["nfe"]), nonfinite), statistics

    def _carried(
        self, b: int, x0: Tensor, states: Tensor, on_progress: Callable[[], None] | None
    ) -> _Taken | None:
        """Return a block that goes on from its last states; None where that would not be sure."""
        spec, last = self._spec, self._count - 1
        request, sde = spec.request, spec.dynamics(b)
        solver = request.solver
        assert isinstance(solver, OneStep)
        assert solver.evaluations is not None
        nodes = solver.nodes(spec.times)
        stride = (len(nodes) - 1) // (len(spec.times) - 1)
        first, noise = last - 1, None
        if solver.is_stochastic(sde):
            draws = _draws(spec, b, states[0])
            while first > 0 and len(draws) == 2 and first * stride % 2:
                first -= 1
            if not draws or (first * stride) % len(draws):
                return None
            noise = _noise_after(spec, b, states[0], sum(draws) * first * stride // len(draws))
        watch = Watch(request, spec.seed, b)
        watch.watching += [(o, o.begin(watch.block(o, sde))) for o in spec.observables]
        show = watch.options(x0, RunOptions()).on_output
        assert show is not None

        def on_output(k: int, x: Tensor) -> None:
            if first + k > last:
                show(first + k, x)
                return
            if 0 in x.stride() or not torch.equal(x, states[first + k]):
                raise _OtherNumbers
            if first + k == last:
                for j in range(1, last + 1):
                    # in the layout of those that are walked, on which the order of sums depends
                    show(
                        j, torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(states[j])
                    )

        options = RunOptions(on_progress=on_progress, on_output=on_output)
        part = nodes[first * stride :]
        try:
            later = solve(
                sde, solver, states[first], part, noise=noise, keep_path=True, stride=stride,
                options=options,
            )  # fmt: skip
        except _OtherNumbers:
            return None
        if later.interrupted_at not in (None, float(spec.times[-1])):
            return later, None
        _advance(on_progress, first)
        nfe = solver.evaluations * first * stride + later.nfe
        whole = torch.cat([states[: first + 1], later.states[1:]])
        solution = replace(later, states=whole, nfe=nfe)
        if later.failed_at is not None or spec.judged(b, states[0], solution) is not solution:
            return None  # computed from its start, it says what went wrong
        statistics = {o.name: partial_of(o, accumulator) for o, accumulator in watch.watching}
        self._layout.check(statistics, b)
        statistics[COUNTS] = counted(trajectories=len(states[0]), nonfinite=0, nfe=nfe)
        return solution, statistics


def _goes_on(spec: EnsembleSpec) -> bool:
    """Return whether blocks go on from states: nothing else is remembered by steps or observers.

    Random numbers are those of normal() alone, which `_draws` finds out.
    """
    request, solver = spec.request, spec.request.solver
    return (
        isinstance(solver, OneStep)
        and not solver.compile
        and solver.evaluations is not None
        and not solver.needs
        and spec.keep_path
        and request.boundary is None
        and request.on_nonfinite == "raise"
        and request.sde.direction == 1
        and request.sde.denoising is None
        and request.sde.jumps is None
        and not request.x0.is_cuda
        and not any(o.every_step for o in spec.observables)
    )


class _OtherNumbers(Exception):
    """A step draws from elsewhere than normal(), or is another; never seen outside."""


class _Untouched:
    """A stream that nobody may draw from."""

    def __getattr__(self, name: str) -> NoReturn:
        raise _OtherNumbers


def _draws(spec: EnsembleSpec, b: int, x: Tensor) -> list[int]:
    """Return how many normals a step draws, or each of two in turn, one of which leaves a spare.

    Empty if steps draw other numbers, or now more and now less.
    """
    solver, sde = spec.request.solver, spec.dynamics(b)
    probe = Noise(x, Streams(spec.seed, "dynamics").block(b), channels=sde.channels)
    draw, drawn = probe.normal, 0

    def normal() -> Tensor:
        nonlocal drawn
        drawn += 1
        return draw()

    probe.normal, probe.stream = normal, _Untouched()  # type: ignore[assignment]
    counts = [0]
    try:
        for _ in integrate(sde, solver, x, solver.nodes(spec.times)[:5], probe):
            counts.append(drawn)
    except _OtherNumbers:
        return []
    draws = [after - before for before, after in pairwise(counts)]
    for turn in (1, 2):
        if len(draws) >= 2 * turn and draws == (draws[:turn] * 4)[: len(draws)]:
            return draws[:turn]
    return []


def _noise_after(spec: EnsembleSpec, b: int, x: Tensor, draws: int) -> Noise:
    """Return the noise of a block where it stands after so many draws."""
    recycled = not spec.request.solver.retains_noise
    stream = Streams(spec.seed, "dynamics").block(b)
    noise = Noise(x, stream, recycled=recycled, channels=spec.request.sde.channels)
    for _ in range(draws):
        noise.normal()
    return noise


def _advance(on_progress: Callable[[], None] | None, times: int) -> None:
    """Show that so many times are there already."""
    for _ in range(times if on_progress is not None else 0):
        assert on_progress is not None
        on_progress()
