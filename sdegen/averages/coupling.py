"""Coupling: a fine and a coarse run of one equation that walk on the same noise.

The fine run takes two steps where the coarse one takes a step of twice the length, and its
increment is the sum of theirs:

    √(2h) z = √h z₁ + √h z₂,        z = (z₁ + z₂)/√2

Both end near each other, so that the variance of f(fine) − f(coarse) falls with h: as h² where the
solver has strong order 1 (Euler for additive noise, Milstein), as h for strong order ½. Where
strong order 1 would take Lévy areas, a second fine run takes z₂ before z₁. The areas of the two
cancel, and the mean of f over both is nearer to f(coarse) than either, again as h², if f is smooth
(`shared_noise.py`).

Any coupling gives the right average; a worse one costs more. So whether noise commutes is looked
at at a few states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from sdegen.averages.shared_noise import SharedNoise, without_areas
from sdegen.core.commutators import commutes
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import Noise
from sdegen.core.requests import kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import integrate
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.milstein import Milstein

_CHECKS = 64  # steps between two looks at what is pending

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Coupling:
    """How the runs of a level are walked.

    Args:
        solver: Takes the steps, with one increment each.
        name: In words, for the result.
        order: Weak order of the solver for these dynamics.
        antithetic: Whether a second fine run takes the increments of each pair in the other order.
    """

    solver: FixedStep
    name: str
    order: float
    antithetic: bool = False

    def evaluations(self, steps: int, *, paired: bool) -> int:
        """Return the drift evaluations of one trajectory with so many (fine) steps.

        Args:
            steps: Of the run, or of the finer one.
            paired: Whether a coarse run of half as many goes with it.
        """
        each = self.solver.evaluations or 1
        fine = 2 * steps if self.antithetic else steps
        return each * (fine + steps // 2 if paired else steps)

    def single(self, sde: SDE, x: State, nodes: Tensor, noise: Noise | None, stop: Stop) -> State:
        """Return the state at the last node; any state if `stop` says so on the way."""
        own = None if noise is None else without_areas(noise, nodes)
        return _last(self._walk(sde, x, nodes, own), x, stop)

    def pair(
        self, sde: SDE, x: State, nodes: Tensor, noise: Noise | None, stop: Stop
    ) -> tuple[list[State], State]:
        """Return the last states of the fine runs, one or two of them, and of the coarse one.

        Args:
            sde: What moves.
            x: States at nodes[0], shape (batch, *event).
            nodes: Those of the fine run, an odd number of them.
            noise: What draws.
            stop: Whether to leave on the way, with any states.
        """
        shared = fine = twin = below = None
        if noise is not None:
            integrals = "space_time_areas" in self.solver.needs
            shared = SharedNoise(noise, nodes, integrals=integrals)
            fine, twin, below = shared.fine, shared.twin, shared.coarse
        noises = [fine, twin] if self.antithetic else [fine]
        runs = [self._walk(sde, x, nodes, one) for one in noises]
        coarse = self._walk(sde, x, nodes[::2], below)
        fines, end = [x for _ in runs], x
        for i in range(len(nodes) // 2):
            if shared is not None:
                shared.draw()
            for _ in range(2):
                fines = [next(run) for run in runs]
            end = next(coarse)
            if i % _CHECKS == 0 and stop():
                break
        return fines, end

    def _walk(self, sde: SDE, x: State, nodes: Tensor, noise: Noise | None) -> Iterator[State]:
        memory = self.solver.begin(sde, nodes)
        return integrate(sde, self.solver, x, nodes, noise, memory=memory)


def check_solver(solver: object) -> None:
    """Refuse a solver whose levels cannot share noise; None is one that is chosen.

    Raises:
        TypeError: If it is no solver of fixed steps.
        ValueError: If it has substeps, or takes more of the noise than one increment a step.
    """
    if solver is None:
        return
    if not isinstance(solver, FixedStep):
        raise TypeError(
            "solver must be a solver of fixed steps, such as EulerMaruyama(), or None, which "
            f"chooses, but is {kind_of(solver)}."
        )
    if solver.substeps != 1:
        raise ValueError(
            f"solver.substeps must be 1, but is {solver.substeps}: the levels are steps of each "
            f"size; leave substeps out of {type(solver).__name__}()."
        )
    if "areas" in solver.needs and not isinstance(solver, Milstein):
        raise ValueError(
            f"{type(solver).__name__} takes Lévy areas, which levels do not share: leave solver "
            "out, which takes Milstein() in antithetic pairs where noise does not commute."
        )
    if "space_time_moments" in solver.needs:
        raise ValueError(
            f"{type(solver).__name__} takes moments of the noise over a step, which levels do not "
            "share: pass solver=BAOAB()."
        )
    solver.check_asked("brownian")


def coupling_for(
    sde: SDE, solver: FixedStep | None, states: State, times: Sequence[Tensor]
) -> Coupling:
    """Return how levels of some dynamics are coupled.

    Args:
        sde: What moves.
        solver: What takes the steps; None chooses the coupling of least variance, by how the
            noise depends on the state.
        states: Some states, apart from each other, where the noise is looked at.
        times: Some times, 0-d.
    """
    if solver is None:
        solver = Milstein() if sde.noise == "multiplicative" else EulerMaruyama()
    chosen = _coupling(sde, solver)
    if "areas" not in solver.needs or all(commutes(sde, states, t) for t in times):
        return chosen
    return replace(chosen, name=f"{chosen.name}, antithetic pairs", antithetic=True)


def _coupling(sde: SDE, solver: FixedStep) -> Coupling:
    """Return the coupling by increments, with the weak order that the solver declares."""
    order: float | None = 1.0
    if solver.orders is not None:
        if sde.noise == "none":
            order = solver.orders.flow
        else:
            pair = getattr(solver.orders, sde.noise)
            order = 1.0 if pair is None else pair[0]
    return Coupling(solver, type(solver).__name__, order or 1.0)


def _last(states: Iterator[State], x: State, stop: Stop) -> State:
    """Return the last of some states."""
    for i, x in enumerate(states):  # noqa: B007
        if i % _CHECKS == 0 and stop():
            break
    return x
