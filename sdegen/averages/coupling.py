"""Coupling: a fine and a coarse run of one equation that walk on the same noise.

The fine run takes two steps where the coarse one takes a step of twice the length, and its
increment is the sum of theirs:

    √(2h) z = √h z₁ + √h z₂,        z = (z₁ + z₂)/√2

Both end near each other, so that the variance of f(fine) − f(coarse) falls with h: as h² where the
solver has strong order 1 (Euler for additive noise, Milstein), as h for strong order ½.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from sdegen.averages.truncated import TruncatedMilstein
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import Noise
from sdegen.core.requests import kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import integrate
from sdegen.solvers.euler import EulerMaruyama

_HALF_ROOT = 1 / math.sqrt(2)
_CHECKS = 64  # steps between two looks at what is pending

Stop = Callable[[], bool]


class SharedNoise:
    """The normals of a coarse step and of the two fine ones within it.

    Args:
        noise: What draws those of the fine steps; None: the noise is off.

    Attributes:
        fine: Hands out z₁, then z₂.
        coarse: Hands out (z₁ + z₂)/√2.
    """

    def __init__(self, noise: Noise | None) -> None:
        self._noise = noise
        self._drawn: list[State] = []
        self.fine: Noise | None = None
        self.coarse: Noise | None = None
        if noise is not None:
            self.fine, self.coarse = _Handed(self._next), _Handed(self._sum)

    def _next(self) -> State:
        assert self._noise is not None
        if len(self._drawn) == 2:
            self._drawn.clear()
        self._drawn.append(self._noise.normal())
        return self._drawn[-1]

    def _sum(self) -> State:
        first, second = self._drawn
        return (first + second).mul_(_HALF_ROOT)


class _Handed(Noise):
    """Noise whose normals come from a function."""

    def __init__(self, normal: Callable[[], State]) -> None:
        self.normal = normal


@dataclass(frozen=True)
class Coupling:
    """How the runs of a level are walked.

    Args:
        solver: Takes the steps, with one increment each.
        name: In words, for the result.
        order: Weak order of the solver for these dynamics.
    """

    solver: FixedStep
    name: str
    order: float

    def evaluations(self, steps: int, *, paired: bool) -> int:
        """Return the drift evaluations of one trajectory with so many (fine) steps.

        Args:
            steps: Of the run, or of the finer one.
            paired: Whether a coarse run of half as many goes with it.
        """
        each = self.solver.evaluations or 1
        return each * (steps + steps // 2 if paired else steps)

    def single(self, sde: SDE, x: State, nodes: Tensor, noise: Noise | None, stop: Stop) -> State:
        """Return the state at the last node; any state if `stop` says so on the way."""
        return _last(self._walk(sde, x, nodes, noise), x, stop)

    def pair(
        self, sde: SDE, x: State, nodes: Tensor, noise: Noise | None, stop: Stop
    ) -> tuple[State, State]:
        """Return the last states of a fine and a coarse run.

        Args:
            sde: What moves.
            x: States at nodes[0], shape (batch, *event).
            nodes: Those of the fine run, an odd number of them.
            noise: What draws.
            stop: Whether to leave on the way, with any states.
        """
        shared = SharedNoise(noise)
        fine = self._walk(sde, x, nodes, shared.fine)
        coarse = self._walk(sde, x, nodes[::2], shared.coarse)
        ends = x, x
        for i, _ in enumerate(fine):
            after = next(fine)
            ends = after, next(coarse)
            if i % _CHECKS == 0 and stop():
                break
        return ends

    def _walk(
        self, sde: SDE, x: State, nodes: Tensor, noise: Noise | None
    ) -> Iterator[State]:
        memory = self.solver.begin(sde, nodes)
        return integrate(sde, self.solver, x, nodes, noise, memory=memory)


def coupling_for(sde: SDE, solver: object) -> Coupling:
    """Return how levels of some dynamics are coupled.

    Args:
        sde: What moves.
        solver: What takes the steps; None chooses.

    Raises:
        TypeError: If it is no solver of fixed steps.
        ValueError: If it has substeps, or takes more than one increment a step.
    """
    if solver is None:
        if sde.noise != "multiplicative":
            return _coupling(sde, EulerMaruyama())
        return _coupling(sde, TruncatedMilstein())
    if not isinstance(solver, FixedStep):
        hint = f": pass {solver.__name__}()" if isinstance(solver, type) else ""
        raise TypeError(
            "solver must be a solver of fixed steps, such as EulerMaruyama(), or None, which "
            f"chooses, but is {kind_of(solver)}{hint}."
        )
    if solver.substeps != 1:
        raise ValueError(
            f"solver.substeps must be 1, but is {solver.substeps}: the levels are steps of each "
            f"size; leave substeps out of {type(solver).__name__}()."
        )
    solver.check_asked("brownian")
    return _coupling(sde, solver)


def _coupling(sde: SDE, solver: FixedStep) -> Coupling:
    """Return the coupling by increments, with the weak order that the solver declares."""
    order: float | None = 1.0
    if solver.orders is not None:
        if sde.noise == "none":
            order = solver.orders.flow
        else:
            pair = getattr(solver.orders, sde.noise)
            order = 1.0 if pair is None else pair[0]
    return Coupling(solver, f"{type(solver).__name__}, shared increments", order or 1.0)


def _last(states: Iterator[State], x: State, stop: Stop) -> State:
    """Return the last of some states."""
    for i, x in enumerate(states):  # noqa: B007, B020
        if i % _CHECKS == 0 and stop():
            break
    return x
