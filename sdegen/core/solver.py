"""Solvers: how often, and in what arrangement, the update is taken; and the loop that takes it.

A `Solver` takes one step at a time. `begin(sde, nodes)` computes what is known before the first
step, its memory; `step(sde, x, i, noise, memory)` carries a block from nodes[i] to nodes[i + 1]
and returns the state there and the memory for the next step. What a method remembers goes in and
out; solvers themselves are immutable. `integrate` is the only loop, and can be held in one's own
hands:

    nodes = torch.linspace(0, 1, 101, dtype=torch.float64)
    for x in integrate(sde, EulerMaruyama(), x, nodes, Noise(x, rng=0)):
        print(x.mean())

`simulate` consumes the same loop, in `engine/blocks.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.boundary import Contained
from sdegen.core.failure import Failure
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise import Noise, RememberedNoise
from sdegen.core.noise_structure import (
    NoiseStructure,
    check_diagonal,
    check_not_general,
    refuse_structure,
)
from sdegen.core.requests import as_time_grid, check_kind, kind_of
from sdegen.core.retired import refuse_old_methods
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.step_noise import StepNoise

Memory = Any  # what a solver's begin() returns and its steps hand on: its own affair
# a path that is given; to go on without the trajectories that were lost; to be differentiated
Asked = Literal["brownian", "freeze", "gradients"]
# what `StepNoise` has of a step
Need = Literal["increments", "space_time_areas", "space_time_moments", "areas"]


class Solver(ABC):
    """Carries a block of trajectories along a grid of times.

        x_{i+1} = step(x_i, noise_i),   x_i ≈ X(nodes[i]), shape (batch, *event)

    Attributes:
        supports_discrete: Whether it takes Markov chains on integer times.
        requires_full_batch: Whether all trajectories must run together, as where one step size
            serves them all.
        supports_boundaries: Whether the state can be kept inside a boundary after each step.
        chooses_steps: Whether it takes steps of its own between two nodes, which nobody sees.
        retains_noise: Whether a step may keep the tensor that noise.normal() returns. If not,
            later draws reuse its memory.
        returns_x0: Whether the last state is an estimate of the data, and no longer one at t.
        is_update: Whether a step is the update itself, with one draw, so that a boundary can tell
            its mean from its noise.
        takes_jumps: Whether it takes dynamics that jump, as `SDE.jumps` has them.
        orders: Orders of convergence; None where they are not declared.
        noise_structures: Structures of noise that it takes, as `SDE.noise_structure` has them.
        needs: What its steps ask of the noise by the number of the step: noise.increment(i),
            .space_time_area(i), .space_time_moment(i), .areas(i), which `integrate` then sees to.
            A solver that calls noise.normal() alone has none.
        evaluations: Of the drift (of the score) in a step; None where they vary.
        noise_evaluations: Of g (of G) in a step, in words.
        stability: The largest λh of a real decay rate λ at which a flow stays bounded; infinite
            where any does; None where it is not declared, or steps are chosen by their error.
        when: When to take it, in a sentence; what `which_solver` shows.

    Example:
        >>> class Midpoint(sg.Solver):
        ...     def begin(self, sde, nodes):
        ...         return nodes
        ...     def step(self, sde, x, i, noise, nodes):
        ...         t, dt = nodes[i], float(nodes[i + 1] - nodes[i])
        ...         middle = sg.update(x, sde.drift(x, t), dt / 2)
        ...         return sg.update(x, sde.drift(middle, t + dt / 2), dt), nodes
        >>> decay = sg.ItoProcess(lambda x: -x, 0.0)
        >>> [x.item() for x in sg.integrate(decay, Midpoint(), torch.ones(1, 1), [0.0, 0.5])]
        [0.625]
    """

    supports_discrete: ClassVar[bool] = False
    requires_full_batch: ClassVar[bool] = False
    supports_boundaries: ClassVar[bool] = False
    chooses_steps: ClassVar[bool] = False
    retains_noise: ClassVar[bool] = True
    returns_x0: ClassVar[bool] = False
    is_update: ClassVar[bool] = False
    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal",)
    needs: ClassVar[tuple[Need, ...]] = ()
    takes_jumps: ClassVar[bool] = False
    orders: ClassVar[Orders | None] = None
    evaluations: ClassVar[int | None] = None
    noise_evaluations: ClassVar[str] = ""
    stability: ClassVar[float | None] = None
    when: ClassVar[str] = ""

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse checks by their names of version 0.1."""
        super().__init_subclass__(**options)
        old = ("check_brownian", "check_freeze", "check_gradients")
        refuse_old_methods(cls, dict.fromkeys(old, "check_asked"))

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Raise ValueError for dynamics that it does not solve, with what to take instead."""
        if sde.is_discrete and not self.supports_discrete:
            raise ValueError(
                f"{type(sde).__name__} is a Markov chain on integer times, and "
                f"{type(self).__name__} solves differential equations: use EulerMaruyama() with "
                "times 0, 1, 2, …"
            )
        if sde.jumps is not None and not self.takes_jumps:
            instead = "; pass solver=JumpAdapted(EulerMaruyama(substeps=…))."
            check_no_jumps(sde, type(self).__name__, instead)
        structure = sde.noise_structure
        if (structure == "channels") != (sde.channels is not None):
            refuse_structure(sde)
        if structure not in self.noise_structures:
            takes_channels = "channels" in self.noise_structures
            (check_not_general if takes_channels else check_diagonal)(sde, type(self).__name__)

    def check_asked(self, asked: Asked) -> None:
        """Raise ValueError where steps do not give what a run asks of them, with a cure."""
        if asked == "brownian" and not self.needs:
            raise ValueError(
                f"{type(self).__name__} cannot walk a given Brownian path: it draws more than one "
                "increment a step, or chooses its own steps. Take EulerMaruyama(substeps=…), "
                "Heun(substeps=…) or TorchSDE('milstein', substeps)."
            )

    def is_stochastic(self, sde: SDE) -> bool:
        """Return whether a run draws noise: of the dynamics, or the method's own."""
        return sde.noise != "none"

    def nodes(self, times: Tensor) -> Tensor:
        """Return the times at which steps begin and end."""
        return times

    @abstractmethod
    def begin(self, sde: SDE, nodes: Tensor) -> Memory:
        """Return what is known before the first step, such as the coefficients of all steps.

        Args:
            sde: What moves.
            nodes: Shape (steps + 1,), float64, on the CPU, strictly monotone.
        """

    @abstractmethod
    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: Memory
    ) -> tuple[State, Memory]:
        """Take the step from nodes[i] to nodes[i + 1].

        Args:
            sde: What moves.
            x: State at nodes[i], shape (batch, *event); it is not written to.
            i: Number of the step.
            noise: What draws; None: the noise is off.
            memory: What `begin` or the step before returned.

        Returns:
            The state at nodes[i + 1], and the memory of the next step.
        """

    def failure(self, memory: Memory) -> Failure | None:
        """Return which trajectories could not go on, and why; None where all could.

        Args:
            memory: What the last step returned.
        """
        return None


def integrate(
    sde: SDE,
    solver: Solver,
    x: State,
    nodes: Tensor | Sequence[float],
    noise: Noise | None = None,
    boundary: Contained | None = None,
    *,
    memory: Memory = None,
) -> Iterator[State]:
    """Take the steps of a solver, one after the other: the loop that `simulate` runs.

        x_{i+1} = step(x_i, noise_i),   i = 0 … steps − 1

    It checks only that the solver takes the dynamics; `simulate` checks the rest and estimates
    errors. Gradients flow unless `torch.no_grad()` says otherwise.

    Args:
        sde: What moves.
        solver: How it moves. Its `substeps` are not looked at: steps go from node to node.
        x: State at nodes[0], shape (batch, *event).
        nodes: Times at which steps begin and end, shape (steps + 1,), strictly monotone.
        noise: What is drawn from, `Noise(x, rng=…)`; None for dynamics without noise.
        boundary: What brings states back after each step, `contain(boundary, sde, x, nodes)`.
        memory: What to begin with, where `solver.begin` has been called; None calls it.

    Yields:
        The state at nodes[1], nodes[2], …

    Raises:
        TypeError, ValueError: If solver or boundary do not fit, or noise is missing.

    Example:
        >>> decay = sg.ItoProcess(lambda x: -x, 0.0)
        >>> walk = sg.integrate(decay, sg.EulerMaruyama(), torch.ones(1, 1), [0.0, 0.5, 1.0])
        >>> [x.item() for x in walk]  # (1 − ½)ⁱ
        [0.5, 0.25]
    """
    if memory is None:
        if not (isinstance(nodes, Tensor) and nodes.requires_grad):  # gradients flow through steps
            nodes = as_time_grid(nodes, "nodes")
        _check(sde, solver, nodes, noise, boundary)
        sde = sde if boundary is None else boundary.dynamics(sde)
        memory = solver.begin(sde, nodes)
    if boundary is not None and noise is not None and boundary.asks_noise and solver.is_update:
        noise = RememberedNoise(noise)
    if solver.needs and noise is not None and not isinstance(noise, StepNoise):
        noise = StepNoise(noise, nodes)
    step = solver.step
    for i in range(len(nodes) - 1):
        before = x
        x, memory = step(sde, x, i, noise, memory)
        if boundary is not None:
            x = boundary.apply(before, x, i, noise)
        yield x


def _check(sde: SDE, solver: Solver, nodes: Tensor, noise: object, boundary: object) -> None:
    """Refuse dynamics that the solver does not take, noisy ones without noise, a bare boundary."""
    check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g)")
    check_kind("solver", solver, Solver, "a solver, such as EulerMaruyama()")
    solver.check(sde, nodes)
    name = type(solver).__name__
    if noise is None and solver.is_stochastic(sde):
        raise ValueError(
            f"{name} draws noise for this {type(sde).__name__}, but noise is None; pass "
            f"{_noise_for(sde)}."
        )
    if isinstance(noise, Noise) and noise.channels != sde.channels:
        raise ValueError(
            f"noise must draw one number for each Wiener process of {type(sde).__name__}, which "
            f"has channels = {sde.channels}, but draws for channels = {noise.channels}; pass "
            f"{_noise_for(sde)}."
        )
    if isinstance(noise, StepNoise):
        noise.check_nodes(nodes)
    if boundary is not None and not (
        solver.supports_boundaries and isinstance(boundary, Contained)
    ):
        raise TypeError(
            f"boundary must be what contain(boundary, sde, x, nodes) returns, for {name} that "
            f"keeps states inside one, but is {kind_of(boundary)}."
        )


def _noise_for(sde: SDE) -> str:
    """Return how the noise of an SDE is written."""
    return f"Noise(x, rng=0{'' if sde.channels is None else f', channels={sde.channels}'})"
