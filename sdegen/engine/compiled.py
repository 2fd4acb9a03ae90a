"""Runs of one-step methods in one compiled call.

A small ensemble no longer pays Python for each step, and a large one no longer carries each
intermediate result through the cache.

A run of K steps is compiled once for each SDE object, solver and kind of state, which takes
seconds; the number of trajectories is left open. Where an interval is no multiple of K its last
run is filled up with steps of dt = 0, which leave the state where it is.

On a CPU the compiled function is passed uniform integers and makes its normals itself, in the same
loop: that is several times as fast as to draw them. Its paths differ from uncompiled ones; their
distribution does not. On a GPU it is passed the normals.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from sdegen.core.enclosure import Enclosure
from sdegen.core.fixed_steps import OneStep
from sdegen.core.noise import Given, Noise, Stream, box_muller, normals_like
from sdegen.core.scores import CallCounter
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.engine.containment import contained_by_position

_Run = Callable[[State, Tensor, Tensor, Tensor, Tensor | None], Sequence[State]]

_LONG, _SHORT = 160, 8  # steps in a run of a small state, and of one that fills the cache
_SMALL = 2**12
_AT_ONCE = 2**16  # integers drawn in one call, or those of one run
_REMEMBERED = 16  # compiled functions


class CompiledRuns(Solver):
    """The compiled runs of one block, as a solver whose steps go from one shown state to the next.

    All have one length. Where fewer steps are left, the others have dt = 0 and leave the state
    where it is. Normals that come in pairs belong to the steps 2j and 2j + 1: where a run begins
    with an odd step, a step of dt = 0 goes ahead of it.

    Args:
        solver: Whose steps.
        sde: What moves.
        x0: State at nodes[0].
        nodes: Times at which steps begin and end.
        boundary: What the states are kept inside of.
        apart: Steps between two states that are to be seen.
        noise: What is drawn from, or None.

    Attributes:
        positions: The nodes at which states are shown, the first and the last among them.
        cost: Evaluations of the drift in a step of the solver.
    """

    def __init__(
        self,
        solver: OneStep,
        sde: SDE,
        x0: State,
        nodes: Tensor,
        boundary: Enclosure | None,
        apart: int,
        noise: Noise | None,
    ) -> None:
        self._steps, self._apart = len(nodes) - 1, apart
        self._columns = sde.channels is not None and x0.device.type == "cpu"
        self._noise = (
            None if noise is None else _Noise(_normal_of(sde, x0), noise.stream, self._columns)
        )
        self._period = 1 if self._noise is None else self._noise.period
        long = max(_SHORT, _LONG // (sde.channels or 1))  # a step is as long as it has channels
        self._length, self._stride = self._lengths(long if x0.numel() <= _SMALL else _SHORT)
        # on the state's device and in its dtype, so that a step is one loop over the state
        dts = torch.cat([nodes.diff(), nodes.new_zeros(self._length)])
        self._dts, self._roots = dts.to(x0), dts.abs().sqrt().to(x0)
        ts = nodes[:1].expand(len(nodes)) if sde.autonomous else nodes
        self._ts = torch.cat([ts, ts[-1:].expand(self._length)]).to(x0.device)
        series = (self._ts, 1), (self._dts, 0), (self._roots, 0)
        self._windows = [self._cut(values, self._length + more) for values, more in series]
        z = None if self._noise is None else self._noise.zeros(self._length)
        example = self._laid_out(x0), *self._schedule(0, 0, self._length), z
        self._compiled = _compiled(solver, sde, boundary, self._stride, example)
        self._run: _Run | None = None
        self.cost: int = self._compiled.evaluations
        self.positions: list[int] = [0]
        while self.positions[-1] < self._steps:
            self.positions += self._shown(self.positions[-1])

    def _laid_out(self, x: State) -> State:
        """Return a state in the order of memory that runs take it in.

        With channels a coordinate is a sum over processes: numbers of one coordinate lie together
        on a CPU, so that the loop goes over trajectories.
        """
        return x.movedim(0, -1).contiguous().movedim(-1, 0) if self._columns else x.contiguous()

    def _cut(self, values: Tensor, width: int) -> Sequence[Tensor]:
        """Return those of each whole run, at least one; one view for all where they are equal."""
        whole = max(1, self._steps // self._length)
        if bool((values[: self._steps] == values[0]).all()):
            return [values[:width]] * whole
        return values.unfold(0, width, self._length)[:whole].unbind()

    def _lengths(self, longest: int) -> tuple[int, int]:
        """Return the steps in a run, and from one state that it shows to the next."""
        apart, period = self._apart, self._period
        several = min(longest // apart, self._steps // apart)
        several -= several * apart % period  # all of them are to begin with an even step
        if several > 1:
            return several * apart, apart
        # as few equal runs as there can be from one state that is seen to the next
        most = apart + apart % period
        length = -(-most // -(-most // longest))
        length += length % period
        return length, length

    def begin(self, sde: SDE, nodes: Tensor) -> list[State]:
        """Return the states that are computed and not yet shown, last first: none."""
        return []

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[State]
    ) -> tuple[State, list[State]]:
        """Go from positions[i] to positions[i + 1]: a run, or a state that the last one showed."""
        memory = memory or self._taken(self.positions[i], x)
        return memory[-1], memory[:-1]

    def _until(self, i: int) -> int:
        """Return the node at which a run from node i ends."""
        until = min(self._steps, i + self._length - i % self._period)
        if self._stride == self._length:
            until = min(until, (i // self._apart + 1) * self._apart)
        return until

    def _shown(self, i: int) -> list[int]:
        """Return the nodes whose states a run from node i shows."""
        until, stride = self._until(i), self._stride
        if stride == self._length:
            return [until]
        return [min(i + (k + 1) * stride, until) for k in range(-(-(until - i) // stride))]

    def _taken(self, i: int, x: State) -> list[State]:
        """Take the steps of a run from node i; the states that it shows, last first."""
        ahead, steps = i % self._period, self._until(i) - i
        z = None if self._noise is None else self._noise.take(ahead, steps, self._length)
        given = self._laid_out(x), *self._schedule(i, ahead, steps), z
        if self._run is None:
            states, self._run = self._compiled.bound(given)
        else:
            states = self._run(*given)
        return [*states[: len(self._shown(i))]][::-1]

    def _schedule(self, i: int, ahead: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return times, steps and roots of a run: `ahead` steps of dt = 0, then those from i."""
        window, offset = divmod(i, self._length)
        if offset == ahead == 0 and steps == self._length:
            all_ts, all_dts, all_roots = self._windows
            return all_ts[window], all_dts[window], all_roots[window]
        end = i + self._length - ahead
        ts = torch.cat([self._ts[i : i + ahead], self._ts[i : end + 1]])
        before, after = self._dts.new_zeros(ahead), self._dts.new_zeros(end - i - steps)
        dts = torch.cat([before, self._dts[i : i + steps], after])
        return ts, dts, torch.cat([before, self._roots[i : i + steps], after])


class _Noise:
    """The noise of a block as its compiled runs take it.

    On a CPU that is uniform integers, of which the run makes pairs of normals; on another device
    the normals themselves.

    Args:
        x: What has the shape of a normal of the block.
        source: Stream of the block.
        columns: Whether integers of one process are to lie together.

    Attributes:
        period: Steps for which noise is drawn together.
    """

    def __init__(self, x: Tensor, source: Stream, columns: bool = False) -> None:
        self._source, self._like, self._columns = source, x, columns
        self._shape = tuple(x.T.shape) if columns else tuple(x.shape)
        self._integers = torch.int32 if x.dtype == torch.float32 else torch.int64
        self._normals = None if x.device.type == "cpu" else normals_like(x, source)
        self.period = 2 if self._normals is None else 1
        # pairs that were drawn and not used: of whole runs to come, last first, and others
        self._ready: list[Tensor] = []
        self._drawn = torch.empty((0, 2, *self._shape), dtype=self._integers)
        self._ahead = 1  # for how many whole runs they are drawn

    def zeros(self, length: int) -> Tensor:
        """Return arguments of a run of this length, to compile it with."""
        if self._normals is None:
            zeros = torch.zeros((length // 2, 2, *self._shape), dtype=self._integers)
            return zeros.mT if self._columns else zeros
        return self._like.new_zeros((length, *self._shape))

    def take(self, ahead: int, steps: int, length: int) -> Tensor:
        """Return the noise of a run: `ahead` steps whose noise was used, and the next steps.

        Args:
            ahead: 1 if the run begins with the second of a pair, else 0.
            steps: Steps whose noise is to be fresh.
            length: Length of the run.
        """
        if self._normals is not None:
            # one layout, or each kind would be compiled for itself
            return _filled(self._normals.take(steps).contiguous(), length)
        k = self._integers_of(ahead, steps, length)
        return k.mT if self._columns else k

    def _integers_of(self, ahead: int, steps: int, length: int) -> Tensor:
        """Return the integers of a run, as `take` takes it."""
        whole = ahead == 0 and steps == length
        if whole and not self._ready and not len(self._drawn):
            # for a small state those of many runs: a call costs as much as a thousand numbers
            self._ahead = min(2 * self._ahead, max(1, _AT_ONCE // (length * self._like.numel())))
            shape = self._ahead, length // 2, 2, *self._shape
            self._ready = [*self._source.bits(shape, dtype=self._integers).unbind()[::-1]]
        if whole and self._ready:
            return self._ready.pop()
        pairs = (ahead + steps + 1) // 2
        unused = [self._drawn, *self._ready[::-1]]
        missing = max(0, pairs - sum(map(len, unused)))
        fresh = self._source.bits((missing, 2, *self._shape), dtype=self._integers)
        k, self._ready = torch.cat([*unused, fresh]), []
        # of the last pair a half may be unused
        self._drawn = k[pairs - (ahead + steps) % 2 :]
        return _filled(k[:pairs], length // 2)


def _filled(noise: Tensor, length: int) -> Tensor:
    """Return the same, padded with zeros to that length."""
    missing = length - len(noise)
    return torch.cat([noise, noise.new_zeros(missing, *noise.shape[1:])]) if missing else noise


def _normal_of(sde: SDE, x: State) -> Tensor:
    """Return a tensor like the normal of a step."""
    return x if sde.channels is None else x.new_zeros(len(x), sde.channels)


def _normals(sde: SDE, bits: Tensor, dtype: torch.dtype) -> Sequence[Tensor]:
    """Return the normals of two steps, from a pair of integers for each of their numbers."""
    if sde.channels is None:
        return box_muller(bits, dtype)
    # each is asked for by every coordinate: as a view of memory it is made once, not in each loop
    made = box_muller(bits.mT, dtype)
    return [z.as_strided(z.shape, z.stride()).mT for z in made]


class _Compiled:
    """A run of steps as one function of tensors, compiled when it is first called.

    At each call torch asks whether what it has compiled still holds: whether a parameter has been
    replaced, or a number changed. That costs as much as a run of a small ensemble. Nothing changes
    within a block, so that a block asks once, and from then on calls what was compiled.

    Args:
        solver: Whose steps.
        sde: What moves.
        boundary: What the states are kept inside of.
        stride: Steps between two states that the run shows.
        evaluations: Of the drift, in a step.
    """

    def __init__(
        self, solver: OneStep, sde: SDE, boundary: Enclosure | None, stride: int, evaluations: int
    ) -> None:
        def run(
            x: State, ts: Tensor, dts: Tensor, roots: Tensor, noise: Tensor | None
        ) -> list[State]:
            times, states = ts.unbind(), []
            normals: Sequence[Tensor | None] = [None] * len(dts)
            if noise is not None and noise.dtype == x.dtype:
                normals = noise.unbind()
            elif noise is not None:
                normals = [z for pair in noise.unbind() for z in _normals(sde, pair, x.dtype)]
            steps = zip(times[:-1], times[1:], dts.unbind(), roots.unbind(), strict=True)
            memory = solver.remember(sde, list(steps))
            for k, z in enumerate(normals):
                noise_of_step = None if z is None else Given(z)
                after, memory = solver.step(sde, x, k, noise_of_step, memory)
                x = after if boundary is None else contained_by_position(boundary, x, after)
                if (k + 1) % stride == 0:
                    states.append(x)
            return states

        # a code object of its own: torch counts the compilations of each, and stops at eight
        own = FunctionType(
            run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__
        )
        self.evaluations = evaluations
        self._run: _Run = torch.compile(own, fullgraph=True, backend=self._backend)
        self._last = threading.local()

    def _backend(
        self, graph: torch.fx.GraphModule, inputs: list[Tensor]
    ) -> Callable[..., Sequence[State]]:
        from torch._inductor.compile_fx import compile_fx  # seconds that only this needs

        # one thread for each block: threads within a loop over it would wait for each other; and
        # the sizes are those of the example, but for the rows
        patches = {"cpp.threads": 1, "size_asserts": False}
        compiled: Any = compile_fx(graph, inputs, config_patches=patches)

        def noted(*arguments: object) -> Sequence[State]:
            self._last.call = compiled, arguments
            return compiled(*arguments)  # type: ignore[no-any-return]

        return noted

    def bound(self, given: tuple[Any, ...]) -> tuple[Sequence[State], _Run]:
        """Return the states of a run, and the same function for the other runs of the block."""
        states = self._run(*given)
        compiled, arguments = self._last.call
        taken = list(arguments)
        # torch hands on what the loop uses, in an order of its own, and what the drift refers to
        places = [
            (at, k)
            for at, argument in enumerate(taken)
            for k, one in enumerate(given)
            if argument is one and one is not None
        ]

        def again(*given: Tensor | None) -> Sequence[State]:
            for at, k in places:
                taken[at] = given[k]
            return compiled(*taken)  # type: ignore[no-any-return]

        return states, again


_lock = threading.Lock()
_functions: OrderedDict[tuple[Any, ...], _Compiled] = OrderedDict()


def _compiled(
    solver: OneStep, sde: SDE, boundary: Enclosure | None, stride: int, example: tuple[Any, ...]
) -> _Compiled:
    """Return the compiled run.

    Args:
        solver: Whose steps.
        sde: What moves.
        boundary: What the states are kept inside of.
        stride: Steps between two states that the run shows.
        example: Arguments of the run, to compile it with.
    """
    x, ts, dts, roots, noise = example
    key = (solver, sde, boundary, stride, len(dts), x.shape[1:], x.dtype, x.device, noise is None)
    with _lock:  # other threads wait for the first one to have compiled
        if key not in _functions:
            counter = CallCounter()
            drawn = None if noise is None else Given(_normal_of(sde, x[:1]))
            memory = solver.remember(sde, [(ts[0], ts[1], dts[0], roots[0])])
            solver.step(sde.with_counter(counter), x[:1], 0, drawn, memory)
            cost = counter.calls if solver.evaluations is None else solver.evaluations
            function = _Compiled(solver, sde, boundary, stride, cost)
            torch._dynamo.maybe_mark_dynamic(x, 0)
            if noise is not None:
                rows = x.ndim if sde.channels is None else 2  # axes of a normal, its rows first
                torch._dynamo.maybe_mark_dynamic(noise, noise.ndim - rows)
            try:
                function.bound(example)
            except Exception as error:
                # what failed within torch's own layers
                cause = getattr(error, "inner_exception", error)
                first = str(cause).strip().partition("\n")[0]
                raise ValueError(
                    f"compile=True: {type(sde).__name__} could not be compiled "
                    f"({type(cause).__name__}: {first}). It takes a C++ compiler, and a drift and "
                    "a diffusion of torch operations alone, without a branch on their values; "
                    f"{type(solver).__name__}() without compile runs them as they are."
                ) from error
            _functions[key] = function
            while len(_functions) > _REMEMBERED:
                _functions.popitem(last=False)
        _functions.move_to_end(key)
        return _functions[key]
