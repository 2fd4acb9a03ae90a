"""One-step methods, and runs of their steps in one compiled call.

A one-step method is a map (x, t, s, dt, z) ↦ x' from t to s = t + dt that remembers nothing. A run
of them with its noise is then one function of tensors, which `torch.compile` turns into one loop
over the numbers of the state: a small ensemble no longer pays Python for each step, and a large
one no longer carries each intermediate result through the cache.

A run of K steps is compiled once for each SDE object, solver and kind of state, which takes
seconds; the number of trajectories is left open. Where an interval is no multiple of K its last
run is filled up with steps of dt = 0, which leave the state where it is.

The compiled function takes the same normals as the steps one by one, but rounds its own way: the
two agree to rounding, and not to the bit.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from sdegen.noise import Normals, Stream, normals_like
from sdegen.sde.base import SDE, Counter
from sdegen.shapes import State
from sdegen.solvers.base import (
    Draw,
    FixedStep,
    OnNonfinite,
    Record,
    See,
    Solution,
    Step,
    Watch,
    add_step_note,
)
from sdegen.walls import Walls

__all__ = ["Move", "OneStep"]

Number = Tensor | float
Move = Callable[[State, Tensor, Tensor, Number, Number, State | None], State]
_Run = Callable[[State, Tensor, Tensor, Tensor, Tensor | None], list[State]]

_LONG, _SHORT = 128, 8  # steps in a run of a small state, and of one that fills the cache
_SMALL = 2**12
_REMEMBERED = 16  # compiled functions


@dataclass(frozen=True)
class OneStep(FixedStep):
    """A solver whose steps remember nothing.

    Args:
        substeps: Equal steps between any two of the times.
        compile: Whether runs of steps are compiled with `torch.compile`, for dynamics that are
            run long enough: it takes a C++ compiler and, for each SDE, some 10 s before the first
            step. Agrees with compile=False to rounding.

    Raises:
        TypeError: If substeps is no int, or compile no bool.
        ValueError: If substeps < 1.
    """

    compile: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.compile, bool):
            raise TypeError(f"compile must be True or False, but is {self.compile!r}.")

    @abstractmethod
    def mover(self, sde: SDE) -> Move:
        """The step as a function, move(x, t, s, dt, root, z): the state at s = t + dt.

        Args:
            sde: What moves.

        Returns:
            move; dt and root = √|dt| are numbers, or 0-d tensors in a compiled run.
        """

    def stepper(self, sde: SDE, nodes: Tensor) -> Step:
        """One move from nodes[i] to nodes[i + 1]."""
        move, ts, dts = self.mover(sde), nodes.unbind(), nodes.diff()
        lengths, roots = dts.tolist(), dts.abs().sqrt().tolist()

        def step(i: int, x: State, draw: Draw) -> State:
            return move(x, ts[i], ts[i + 1], lengths[i], roots[i], draw())

        return step

    def solve(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        *,
        noise: Stream | None,
        keep_path: bool,
        walls: Walls | None = None,
        on_nonfinite: OnNonfinite = "raise",
        tick: Callable[[], None] | None = None,
        see: See | None = None,
        watch: Watch | None = None,
    ) -> Solution:
        """Takes the steps, one after the other or in compiled runs; see `Solver.solve`.

        Raises:
            ValueError: If runs are compiled, and the drift does not compile, gradients are asked
                for, or on_nonfinite is "freeze".
        """
        if not self.compile:
            return super().solve(
                sde, x0, times, noise=noise, keep_path=keep_path, walls=walls,
                on_nonfinite=on_nonfinite, tick=tick, see=see, watch=watch,
            )  # fmt: skip
        if torch.is_grad_enabled():
            raise ValueError(
                "compile=True is for runs without gradients: leave out differentiable=True, or "
                f"take {type(self).__name__}() without compile."
            )
        if on_nonfinite == "freeze":
            raise ValueError(
                "on_nonfinite='freeze' looks at every step, and compile=True takes many in one "
                "call: leave one of them out."
            )
        nodes = self.nodes(times)
        seen = keep_path or see is not None or tick is not None
        # how far apart the states are that somebody wants to see
        apart = 1 if watch is not None else self.substeps if seen else len(nodes) - 1
        runs = _Runs(self, sde, x0, nodes, walls, apart)
        normals = None if noise is None else normals_like(x0, noise)
        x, i = x0, 0
        with Record(x0, nodes, self.substeps, keep_path, on_nonfinite, tick, see, watch) as record:
            while not record.stopped:
                try:
                    reached = runs.go(i, x, normals)
                except Exception as error:
                    add_step_note(error, i, nodes)
                    raise
                for i, x in reached:
                    record.reach(i, x)
                    if record.stopped:
                        break
        return record.solution(runs.evaluations * i)


class _Runs:
    """The compiled runs of one block.

    Args:
        solver: Whose steps.
        sde: What moves.
        x0: State at nodes[0].
        nodes: Times at which steps begin and end.
        walls: Box that the state is kept in.
        apart: Steps between two states that are to be seen.

    Attributes:
        evaluations: Of the drift, in a step.
    """

    def __init__(
        self, solver: OneStep, sde: SDE, x0: State, nodes: Tensor, walls: Walls | None, apart: int
    ) -> None:
        self._steps, self._apart = len(nodes) - 1, apart
        longest = _LONG if x0.numel() <= _SMALL else _SHORT
        if apart <= longest:
            # runs that show some states on their way
            self._length = min(longest // apart, self._steps // apart) * apart
            self._stride = apart
        else:
            # as few equal runs as there can be from one state that is seen to the next
            self._length = self._stride = -(-apart // -(-apart // longest))
        dts = torch.cat([nodes.diff(), nodes.new_zeros(self._length)])
        # on the state's device and in its dtype, so that a step is one loop over the state
        self._dts = dts.to(x0)
        self._roots = dts.abs().sqrt().to(x0)
        self._ts = torch.cat([nodes, nodes[-1:].expand(self._length)]).to(x0.device)
        z = None
        if sde.noise != "none":
            z = x0.new_zeros((self._length, *x0.shape))
        self._run, self.evaluations = _compiled(
            solver, sde, walls, self._stride, (x0, *self._schedule(0), z)
        )

    def go(self, i: int, x: State, normals: Normals | None) -> list[tuple[int, State]]:
        """Takes the steps of a run from nodes[i]; the states to be seen, and where they are."""
        until = min(self._steps, i + self._length)
        if self._apart > self._length:
            until = min(until, (i // self._apart + 1) * self._apart)
        real, length = until - i, self._length
        # one layout, or each kind would be compiled for itself
        z = None if normals is None else normals.take(real).contiguous()
        ts, dts, roots = self._schedule(i)
        if real < length:
            # steps of dt = 0: x + 0 f + 0 g z
            dts, roots = dts.clone(), roots.clone()
            dts[real:] = 0.0
            roots[real:] = 0.0
            z = None if z is None else torch.cat([z, z.new_zeros(length - real, *z.shape[1:])])
        states = self._run(x, ts, dts, roots, z)
        nodes = [min(i + (k + 1) * self._stride, until) for k in range(len(states))]
        shown = -(-real // self._stride)
        return list(zip(nodes[:shown], states[:shown], strict=True))

    def _schedule(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """Times, steps and their roots of a run from nodes[i]."""
        end = i + self._length
        return self._ts[i : end + 1], self._dts[i:end], self._roots[i:end]


_lock = threading.Lock()
_functions: OrderedDict[tuple[Any, ...], tuple[_Run, int]] = OrderedDict()


def _compiled(
    solver: OneStep, sde: SDE, walls: Walls | None, stride: int, example: tuple[Any, ...]
) -> tuple[_Run, int]:
    """The compiled run, and the evaluations of the drift in a step.

    Args:
        solver: Whose steps.
        sde: What moves.
        walls: Box that the state is kept in.
        stride: Steps between two states that the run shows.
        example: Arguments of the run, to compile it with.
    """
    x, ts, dts, roots, z = example
    key = (solver, sde, walls, stride, len(dts), x.shape[1:], x.dtype, x.device, z is None)
    with _lock:  # other threads wait for the first one to have compiled
        if key not in _functions:
            counter = Counter()
            few = x[:1], ts[0], ts[1], dts[0], roots[0], None if z is None else z[0, :1]
            solver.mover(sde.counted(counter))(*few)
            run = _function(solver.mover(sde), walls, stride)
            torch._dynamo.maybe_mark_dynamic(x, 0)
            if z is not None:
                torch._dynamo.maybe_mark_dynamic(z, 1)
            try:
                run(x, ts, dts, roots, z)
            except Exception as error:
                first = str(error).strip().partition("\n")[0]
                raise ValueError(
                    f"compile=True: {type(sde).__name__} could not be compiled "
                    f"({type(error).__name__}: {first}). It takes a C++ compiler, and a drift and "
                    "a diffusion of torch operations alone, without a branch on their values; "
                    f"{type(solver).__name__}() without compile runs them as they are."
                ) from error
            _functions[key] = run, counter.calls
            while len(_functions) > _REMEMBERED:
                _functions.popitem(last=False)
        _functions.move_to_end(key)
        return _functions[key]


def _function(move: Move, walls: Walls | None, stride: int) -> _Run:
    """A run of steps as one function of tensors, compiled when it is first called."""

    def run(x: State, ts: Tensor, dts: Tensor, roots: Tensor, z: Tensor | None) -> list[State]:
        times, states = ts.unbind(), []
        normals = [None] * len(dts) if z is None else z.unbind()
        for k, (dt, root) in enumerate(zip(dts.unbind(), roots.unbind(), strict=True)):
            after = move(x, times[k], times[k + 1], dt, root, normals[k])
            x = after if walls is None else walls.contain(x, after)
            if (k + 1) % stride == 0:
                states.append(x)
        return states

    # a code object of its own: torch counts the compilations of each, and stops at eight
    own = FunctionType(
        run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__
    )
    # one thread for each block: threads within a loop over a block would only wait for each other
    return torch.compile(own, fullgraph=True, options={"cpp.threads": 1})
