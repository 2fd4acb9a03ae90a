"""Runs of steps whose intermediate results are made twice: gradients in the memory of √N steps.

A graph of N steps holds all that the drift computed in each of them. Here ⌈√N⌉ steps at a time are
one run, of which the first state alone is kept. When gradients come back through a run, its steps
are taken once more, with the numbers that they drew, and their graph lives until it has been used:
√N states and √N steps are held in place of N steps, for one more evaluation of each step. States
that are returned (keep_path=True, at each of the times) are kept beside that.

The noise of a run is repeated from a copy of the state of its random numbers, not kept; so is what
a boundary remembers. The gradients are those of differentiable=True to rounding, in weights, x0
and whatever else the dynamics hold, and can be differentiated again.

**A drift that differentiates**, such as −∇U by autograd, asks its own graph for numbers that the
run has given up; the steps from the beginning of the run are then repeated at once, √N/2 of them
on average at each step. For such a drift it costs that many times as much.

Reference:
    Griewank and Walther 2000, ACM TOMS 26, 19, section 2, with one level of checkpoints; Chen et
    al. 2016, section 4.1, arXiv:1604.06174, for O(√N).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdegen.core.checks import check_word
from sdegen.core.noise import Noise, Stream
from sdegen.core.requests import kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory, Solver
from sdegen.engine.containment import Containment
from sdegen.engine.validation import Request


class RepeatableNoise(Noise):
    """The same normals as `Noise`, from an object whose deep copy goes on with the same ones.

    Args:
        x: State of the block.
        source: Stream of the block.
        channels: As `Noise` has it.
    """

    def __init__(self, x: State, source: Stream, channels: int | None) -> None:
        self.channels: int | None = channels
        self.stream: Stream = source
        shape = tuple(x.shape) if channels is None else (len(x), channels)
        self._normals = source.normals(shape, dtype=x.dtype, device=x.device)
        self.normal: Callable[[], State] = self._next

    def _next(self) -> State:
        return self._normals.take(1)[0]


class CheckpointedRuns(Solver):
    """Takes the steps of another solver, a run of them at a time, each under a checkpoint.

    Args:
        solver: What takes the steps.
        nodes: Times at which its steps begin and end, shape (steps + 1,).
        apart: Every so many nodes there is a state that somebody wants to see.
        boundary: What brings states back after each step.

    Attributes:
        positions: Numbers of the nodes at which runs begin and end.
    """

    def __init__(
        self, solver: Solver, nodes: Tensor, apart: int, boundary: Containment | None
    ) -> None:
        self._solver, self._nodes, self._boundary = solver, nodes, boundary
        steps = len(nodes) - 1
        length = math.isqrt(max(steps - 1, 0)) + 1  # ⌈√steps⌉
        seen = range(0, steps, apart)
        starts = [i for k in seen for i in range(k, min(k + apart, steps), length)]
        self.positions: list[int] = [*starts, steps]
        self._runs = list(pairwise(self.positions))

    def begin(self, sde: SDE, nodes: Tensor) -> Memory:
        """Return what the solver knows before its first step, of all its steps."""
        return self._solver.begin(sde, self._nodes)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: Memory
    ) -> tuple[State, Memory]:
        """Take the steps of run i."""
        first, last = self._runs[i]
        # what is drawn and counted goes on; a repetition starts from copies of how it was
        then = copy.deepcopy(noise), copy.copy(self._boundary)
        began = False

        def run(x: State, memory: Memory) -> tuple[State, Memory]:
            nonlocal began
            draws, boundary = noise, self._boundary
            if began:
                draws, boundary = copy.deepcopy(then[0]), copy.copy(then[1])
            began = True
            for j in range(first, last):
                before = x
                x, memory = self._solver.step(sde, x, j, draws, memory)
                if boundary is not None:
                    x = boundary.apply(before, x, j, draws)
            return x, memory

        # dynamics draw nothing of their own, so that torch's generators need not be kept
        taken: tuple[State, Any] = checkpoint(
            run, x, memory, use_reentrant=False, preserve_rng_state=False
        )
        return taken


def in_checkpointed_runs(request: Request, how: object, *, functionals: bool) -> Request:
    """Return a request whose steps are taken in runs; refuse what cannot be repeated.

    Args:
        request: What is run.
        how: What a user says of gradients, "checkpointed".
        functionals: Whether functionals are to be summed along the paths.

    Raises:
        TypeError: If `how` is no word.
        ValueError: If it is another, if gradients are switched off, or naming what to leave out.
    """
    if not isinstance(how, str):
        raise TypeError(
            f"differentiable must be True, False or 'checkpointed', but is {kind_of(how)}."
        )
    check_word("differentiable", how, ("checkpointed",), ", True or False")
    if not torch.is_grad_enabled():
        raise ValueError(
            "differentiable='checkpointed', but gradients are switched off around the call: take "
            "it out of torch.no_grad() or inference_mode()."
        )
    solver, why = request.solver, None
    if solver.chooses_steps:
        why = "chooses its own steps"
    elif solver.needs or request.sde.jumps is not None:
        why = "draws more for a step than its normals"
    if why is not None:
        raise ValueError(
            f"differentiable='checkpointed' takes known steps twice, with the same normals, but "
            f"{type(solver).__name__} {why}: pass EulerMaruyama(substeps=…), of a flow "
            "Heun(substeps=…); or differentiable=True."
        )
    steps = {
        "functionals=": functionals,
        "brownian=": request.brownian is not None,
        "on_nonfinite='freeze'": request.on_nonfinite == "freeze",
    }
    for name, given in steps.items():
        if given:
            raise ValueError(
                f"{name} does not go with differentiable='checkpointed', whose steps are taken in "
                "runs, and twice: leave it out, or pass differentiable=True."
            )
    return replace(request, checkpointed=True)
