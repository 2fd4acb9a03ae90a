"""Solvers: how often, and in what arrangement, the update is taken.

A `Solver` carries a block of trajectories along `times`. Most have fixed steps: a `FixedStep` says
with `stepper` how one step goes from nodes[i] to nodes[i + 1], and the only loop is here. It walks
`substeps` equal steps between any two of the times, so that every time is met exactly and no path
is ever interpolated. What a block goes through, lost trajectories included, a `Record` keeps.

Solvers are immutable. What a method remembers between steps lives in the closure that `stepper`
returns, one for a block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.checks import check_count
from sdegen.noise import Stream, normals_like
from sdegen.sde.base import SDE, Counter
from sdegen.shapes import State
from sdegen.solvers.containment import Containment, RememberingDraw
from sdegen.solvers.record import Conditions, Record, Solution, with_cause

__all__ = [
    "Conditions",
    "Draw",
    "FixedStep",
    "Solution",
    "Solver",
    "Step",
    "add_step_note",
    "check_inner",
    "check_predictor",
    "refine",
]

Draw = Callable[[], State | None]
Step = Callable[[int, State, Draw], State]


class Solver(ABC):
    """Carries a block of trajectories along a grid of times.

    Attributes:
        clocks: Kinds of dynamics that it takes: "continuous", and "integer" for Markov chains.
        whole: Whether all trajectories must run together, as where one step size serves them all.
        takes_walls: Whether the state can be kept inside a boundary after each step.
        shows_steps: Whether its states are handed out on the way, to `see` and `watch`.
    """

    clocks: ClassVar[tuple[str, ...]] = ("continuous",)
    whole: ClassVar[bool] = False
    takes_walls: ClassVar[bool] = False
    shows_steps: ClassVar[bool] = False

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuses dynamics that this solver does not solve; called at the door.

        Raises:
            ValueError: Saying what is asked of the dynamics, and what to take instead.
        """
        if sde.clock not in self.clocks:
            raise ValueError(
                f"{type(sde).__name__} is a Markov chain on integer times, and "
                f"{type(self).__name__} solves differential equations: use EulerMaruyama() with "
                "times 0, 1, 2, …"
            )

    def check_brownian(self) -> None:
        """Refuse a Brownian path that is given, where a step takes more than its increment.

        Raises:
            ValueError: With solvers that take one.
        """
        raise ValueError(
            f"{type(self).__name__} cannot walk a given Brownian path: it draws more than one "
            "increment a step, or chooses its own steps. Take EulerMaruyama(substeps=…), "
            "Heun(substeps=…) or TorchSDE('milstein', substeps)."
        )

    def draws(self, sde: SDE) -> bool:
        """Whether a run draws noise: where the dynamics do, or the method adds some of its own."""
        return sde.noise != "none"

    def nodes(self, times: Tensor) -> Tensor:
        """The times at which steps begin and end."""
        return times

    @abstractmethod
    def solve(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        *,
        noise: Stream | None,
        keep_path: bool,
        conditions: Conditions = Conditions(),  # noqa: B008 (it is frozen)
    ) -> Solution:
        """Solves from times[0] to times[-1].

        Args:
            sde: What moves.
            x0: State at times[0], shape (batch, *event).
            times: Shape (T,), float64, strictly monotone.
            noise: Stream that the normals are drawn from, or None for noise-free dynamics.
            keep_path: Whether all T states are kept, or the last one alone.
            conditions: Boundary, who looks on, and what becomes of trajectories that are lost.

        Returns:
            The block as far as it went.
        """


@dataclass(frozen=True)
class FixedStep(Solver):
    """A solver with steps that are known beforehand.

    Args:
        substeps: Equal steps between any two of the times.

    Attributes:
        keeps_noise: Whether a step may hold on to what draw() gave it. Where it may not, the same
            memory serves again, some steps later.
        ends_at_data: Whether the last state is an estimate of the data, and no longer one at t.
        is_update: Whether a step is the update itself, x + dt f + √|dt| g z with one draw, so
            that a boundary can tell its mean from its noise.

    Raises:
        TypeError: If substeps is no int.
        ValueError: If substeps < 1.
    """

    substeps: int = 1

    takes_walls: ClassVar[bool] = True
    shows_steps: ClassVar[bool] = True
    keeps_noise: ClassVar[bool] = True
    ends_at_data: ClassVar[bool] = False
    is_update: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count("substeps", self.substeps)

    @abstractmethod
    def stepper(self, sde: SDE, nodes: Tensor) -> Step:
        """The step of this method, step(i, x, draw): the state at nodes[i + 1] from x at nodes[i].

        Args:
            sde: What moves.
            nodes: Shape (steps + 1,), float64, on the CPU.

        Returns:
            step; its draw() gives a fresh z ~ N(0, I) with x's shape, or None: the noise is off.
        """

    def stages(self, sde: SDE, nodes: Tensor) -> tuple[Step, ...]:
        """The step in parts, taken one after the other, each affine in its draw where it can be.

        Args:
            sde: What moves.
            nodes: As for `stepper`.
        """
        return (self.stepper(sde, nodes),)

    def nodes(self, times: Tensor) -> Tensor:
        """times, with substeps − 1 more between any two."""
        return refine(times, self.substeps)

    def solve(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        *,
        noise: Stream | None,
        keep_path: bool,
        conditions: Conditions = Conditions(),  # noqa: B008 (it is frozen)
    ) -> Solution:
        """Takes the steps, one after the other; see `Solver.solve`."""
        nodes = self.nodes(times)
        counter = Counter()
        step = self.stepper(sde.counted(counter), nodes)
        draw: Draw = _no_noise
        if noise is not None:
            recycled = not (self.keeps_noise or torch.is_grad_enabled())
            draw = normals_like(x0, noise).each(recycled=recycled).__next__
        x, i, inside, last = x0, 0, None, RememberingDraw(draw)
        if conditions.boundary is not None:
            inside = Containment(conditions.boundary, sde, x0, nodes, conditions.uniforms)
            draw = last if inside.asks_noise and self.is_update else draw
            if conditions.on_containment is not None:
                conditions.on_containment(inside)
        with Record(x0, nodes, self.substeps, keep_path, conditions, inside) as record:
            interrupted = record.interrupted
            while not record.stopped:
                # steps that nobody looks at are taken in a row
                for i in range(i, record.next_look(i)):  # noqa: B020 (goes on from where it was)
                    try:
                        after = step(i, x, draw)
                    except Exception as error:
                        add_step_note(error, i, nodes)
                        raise
                    x = after if inside is None else inside.contain(i, x, after, last.last)
                    if interrupted():
                        break
                i += 1
                x = record.reach(i, x)
        solution = record.solution(counter.calls)
        return solution if record.suspects is None else with_cause(solution, sde, record, nodes)


def _no_noise() -> None:
    """What noise-free dynamics draw."""


def add_step_note(error: Exception, i: int, nodes: Tensor) -> None:
    """Says in which step a user's drift raised."""
    error.add_note(f"in step {i} of {len(nodes) - 1}, at t = {float(nodes[i]):g}")


def check_inner(name: str, solver: object) -> None:
    """Refuses what cannot take the steps within another solver.

    Args:
        name: What the other one calls it.
        solver: What is to take them.

    Raises:
        TypeError: If it is no solver of fixed steps, such as a class that was not called.
        ValueError: If its last state is no longer one at t.
    """
    if isinstance(solver, type):
        raise TypeError(f"{name} must be a solver, but is the class: pass {solver.__name__}().")
    if not isinstance(solver, FixedStep):
        raise TypeError(
            f"{name} must be a solver of fixed steps, such as DDIM(), but is {solver!r}."
        )
    if solver.ends_at_data:
        raise ValueError(
            f"{name} must end with a state at t, which {type(solver).__name__} replaces by an "
            "estimate of the data: pass the solver within it, and let it be the outermost."
        )


def check_predictor(predictor: object) -> None:
    """Refuses a predictor that is none, or has substeps.

    Raises:
        TypeError: If it is no solver of fixed steps.
        ValueError: If it has substeps, or ends with a denoised state.
    """
    check_inner("predictor", predictor)
    substeps = getattr(predictor, "substeps", 1)
    if substeps != 1:
        raise ValueError(
            f"predictor.substeps must be 1, but is {substeps}: say how many with substeps= of the "
            "corrector itself."
        )


def refine(times: Tensor, substeps: int) -> Tensor:
    """Puts substeps − 1 equally spaced nodes between any two times, t0 + i (t1 − t0)/n in float64.

    >>> refine(torch.tensor([0.0, 1.0, 3.0]), 2).tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    times = times.to(torch.float64)
    fraction = torch.arange(substeps, dtype=torch.float64) / substeps
    inner = times[:-1, None] + fraction * times.diff()[:, None]
    return torch.cat([inner.flatten(), times[-1:]])
