"""Jump-adapted steps: a step in which a trajectory jumps is split at the jump, for it alone.

    x(τ−) ← a step of `solver` from t to τ,    x(τ) = x(τ−) + s(x(τ−), τ, u),    … up to t + dt

Trajectories that do not jump in a step take the step that they would take without jumps, to the
bit. The others are cut out and go from jump to jump, each with a dt of its own, and the noise of
the whole step is divided between the parts as a Brownian bridge divides it: of z for a length r, a
part θr gets √θ z + √(1−θ) ζ, and √(1−θ) z − √θ ζ is left. Jump times carry no error of the step,
and nothing of them depends on it: runs at other steps meet the same jumps, as long as rates do not
depend on the state. Within a split step drift and diffusion are read at the times of the whole
one, which costs no order, since a share of O(dt) of the trajectories is split.

The weak order is that of the solver. An α-stable motion is added after each step, as Euler's
method has it: of weak order 1 whatever the solver.

Reference:
    Platen and Bruti-Liberati 2010, Numerical Solution of SDEs with Jumps in Finance, sections 8.5
    and 11.3; Glasserman and Merener 2004, Proc. R. Soc. A 460, 111, for rates by thinning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, NoReturn

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.alpha_stable import AlphaStable
from sdegen.core.counters import Counters, as_normal
from sdegen.core.fixed_steps import FixedStep, Interval, OneStep, check_inner
from sdegen.core.jumps import CompoundPoisson, continuous_part
from sdegen.core.noise import Given, Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import refuse_lost_gradient
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, as_column
from sdegen.core.solver import Asked
from sdegen.solvers.euler import EulerMaruyama

_WAIT, _CHANCE, _KIND, _FIRST = range(4)  # uniform numbers of a candidate; then sizes and bridge


class Clock(NamedTuple):
    """When trajectories may jump next.

    Attributes:
        due: Times of the next candidates, shape (batch,), float64.
        number: Their numbers, from 1, shape (batch,), int64.
    """

    due: Tensor
    number: Tensor


class Memory(NamedTuple):
    """What is known before a step.

    Attributes:
        intervals: Of the solver.
        times: Where steps begin and end.
        clock: When trajectories may jump next; None before the first step.
    """

    intervals: list[Interval]
    times: list[float]
    clock: Clock | None


@dataclass(frozen=True)
class JumpAdapted(FixedStep):
    """Steps of a solver, split where a trajectory jumps.

        x(τ) = x(τ−) + s(x(τ−), τ, u),   x(τ−) by a step of `solver` from t to τ

    Jump times are those of the process at any step; sizes have x's shape (batch, *event).

    Args:
        solver: What takes the steps between jumps: EulerMaruyama, Heun, or another whose steps
            draw one normal each. Its `substeps` are those of the run.

    Raises:
        TypeError: If solver is not a solver of fixed steps.
        ValueError: If it remembers earlier steps, draws more than one normal a step, or is
            compiled.

    Example:
        >>> counts = sg.JumpDiffusion(sg.BrownianMotion(0.0), sg.CompoundPoisson(3.0, 1.0))
        >>> x, solvers = torch.zeros(50, 1), (sg.EulerMaruyama(), sg.EulerMaruyama(substeps=8))
        >>> one, eight = (
        ...     sg.simulate(counts, x, [0.0, 2.0], solver=sg.JumpAdapted(solver), rng=0).final
        ...     for solver in solvers
        ... )
        >>> one.equal(eight)
        True
    """

    solver: OneStep = field(default_factory=EulerMaruyama)
    substeps: int = field(default=1, init=False)

    supports_boundaries: ClassVar[bool] = False
    retains_noise: ClassVar[bool] = False
    takes_jumps: ClassVar[bool] = True
    when: ClassVar[str] = "Dynamics that jump, `JumpDiffusion`: around the solver of what flows."

    def __post_init__(self) -> None:
        inner, name = check_inner("solver", self.solver), type(self.solver).__name__
        if not isinstance(inner, OneStep):
            _refuse(name, "prepares steps of the lengths of the run")
        if inner.is_counted:
            _refuse(name, "moves a phase space, and remembers the force where its step ended")
        if inner.compile:
            _refuse(f"{name}(compile=True)", "takes many steps in one call")
        try:
            inner.check_asked("brownian")
            several = bool(inner.needs)
        except ValueError:
            several = True
        if several:
            _refuse(name, "draws more than one normal a step, which a jump does not divide")
        object.__setattr__(self, "substeps", inner.substeps)

    @property
    def noise_structures(self) -> tuple[NoiseStructure, ...]:  # type: ignore[override]
        """Those of the solver."""
        return self.solver.noise_structures

    @property
    def orders(self) -> Orders | None:  # type: ignore[override]
        """Those of the solver, for compound Poisson jumps."""
        return self.solver.orders

    @property
    def stability(self) -> float | None:  # type: ignore[override]
        """That of the solver."""
        return self.solver.stability

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse what the solver refuses, and jumps in decreasing time."""
        self.solver.check(continuous_part(sde), nodes)
        super().check(sde, nodes)
        if sde.jumps is not None and float(nodes[-1].detach()) < float(nodes[0].detach()):
            raise ValueError(
                f"times decrease, but {type(sde).__name__} jumps, which is meant for increasing "
                "time; the reversal of jumps is not built."
            )
        refuse_lost_gradient("nodes", nodes, "a run with jumps")

    def check_asked(self, asked: Asked) -> None:
        """Refuse a Brownian path that is given, which has no jumps."""
        if asked == "brownian":
            raise ValueError(
                "JumpAdapted cannot walk a given Brownian path: jumps come from the run's own "
                "stream. Leave brownian= out; runs with one rng meet the same jumps at any steps."
            )
        self.solver.check_asked(asked)

    def is_stochastic(self, sde: SDE) -> bool:
        """Return whether a run draws: noise, or jumps."""
        return sde.jumps is not None or self.solver.is_stochastic(sde)

    def begin(self, sde: SDE, nodes: Tensor) -> Memory:
        """Return the solver's intervals, and the times."""
        return Memory(self.solver.begin(sde, nodes), nodes.tolist(), None)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: Memory
    ) -> tuple[State, Memory]:
        """Take the solver's step, and split it for those that jump."""
        given = z = None
        if noise is not None and self.solver.is_stochastic(sde):
            z = noise.normal()
            given = Given(z)
        after, intervals = self.solver.step(sde, x, i, given, memory.intervals)
        clock = memory.clock
        if sde.jumps is None:
            return after, Memory(intervals, memory.times, clock)
        if noise is None:
            raise ValueError("JumpAdapted draws jumps, but noise is None; pass Noise(x, rng=0).")
        poisson = [one for one in sde.jumps if isinstance(one, CompoundPoisson)]
        if poisson:
            split = _Split(self.solver, sde, poisson, Counters(noise.stream, "jumps"), x, z)
            t, s = memory.times[i : i + 2]
            clock = split.started(memory.times[0]) if clock is None else clock
            after, clock = split.taken(x, after, (t, s), intervals[i], z, clock)
        stable = [one for one in sde.jumps if isinstance(one, AlphaStable)]
        if stable:
            after = after + _increments(stable, Counters(noise.stream, "stable"), x, i, memory)
        return after, Memory(intervals, memory.times, clock)


class _Split:
    """One step, split at jumps for those trajectories that jump.

    Args:
        solver: Takes the parts.
        sde: What moves.
        jumps: Its compound Poisson processes.
        counters: What is drawn from.
        x: States of the block.
        z: Normals of the step, or None.
    """

    def __init__(
        self,
        solver: OneStep,
        sde: SDE,
        jumps: list[CompoundPoisson],
        counters: Counters,
        x: State,
        z: Tensor | None,
    ) -> None:
        self.solver, self.sde, self.jumps, self.counters = solver, sde, jumps, counters
        self.bounds = [one.most for one in jumps]
        self.rate = math.fsum(self.bounds)
        self.batch, self.device = len(x), x.device
        self.sizes = x[0].numel()
        self.slots = _FIRST + self.sizes + (0 if z is None else z[0].numel())

    def _uniform(self, rows: Tensor, number: Tensor) -> Tensor:
        """Return the numbers of candidates, shape (n, slots)."""
        slot = torch.arange(self.slots, device=self.device)
        places = rows[:, None] + self.batch * (slot + self.slots * number[:, None])
        return self.counters.uniform(places)

    def _wait(self, drawn: Tensor) -> Tensor:
        """Return how long it is from candidates to the next ones."""
        waits = -drawn[:, _WAIT].log()
        return waits / self.rate if self.rate > 0 else torch.full_like(waits, math.inf)

    def started(self, t: float) -> Clock:
        """Return the clock of a run that begins at t."""
        rows = torch.arange(self.batch, device=self.device)
        before = torch.zeros_like(rows)
        return Clock(t + self._wait(self._uniform(rows, before)), before + 1)

    def taken(
        self,
        x: State,
        after: State,
        ends: tuple[float, float],
        interval: Interval,
        z: Tensor | None,
        clock: Clock,
    ) -> tuple[State, Clock]:
        """Return the states after the step, and the clock.

        Args:
            x: States before it.
            after: Those of trajectories that do not jump.
            ends: Times at which it begins and ends.
            interval: The same as the solver has it.
            z: Normals of the step.
            clock: When trajectories may jump next.
        """
        t, s = ends
        for one in self.jumps:
            if one.is_thinned:  # a bound that does not hold is seen also where no candidate falls
                one.rates(x, torch.tensor(t, dtype=torch.float64))
        rows = (clock.due < s).nonzero()[:, 0]
        if len(rows) == 0:
            return after, clock
        y, due, number = x[rows], clock.due[rows], clock.number[rows]
        left = None if z is None else z[rows]
        now = torch.full_like(due, t)
        due_after, number_after = clock.due.clone(), clock.number.clone()
        while True:
            jumps = due < s
            drawn = self._uniform(rows, number) if bool(jumps.any()) else None
            y, left = self._part(y, now, due.clamp(max=s), s, interval, left, rows, drawn)
            done = ~jumps
            if drawn is None or bool(done.any()):
                some = rows[done]
                after = after.index_copy(0, some, y[done])
                due_after[some], number_after[some] = due[done], number[done]
            if drawn is None:
                return after, Clock(due_after, number_after)
            rows, y, now, drawn = rows[jumps], y[jumps], due[jumps], drawn[jumps]
            left = None if left is None else left[jumps]
            y = self._jump(y, now, drawn)
            due, number = now + self._wait(drawn), number[jumps] + 1

    def _part(
        self,
        y: State,
        now: Tensor,
        end: Tensor,
        s: float,
        interval: Interval,
        z: Tensor | None,
        rows: Tensor,
        drawn: Tensor | None,
    ) -> tuple[State, Tensor | None]:
        """Go from now to an end, and return the normals of what is left until s.

        Nothing is drawn where all go on to s.
        """
        length = end - now
        dt = as_column(length, y).to(y.dtype)
        step = (interval[0], interval[1], dt, dt.sqrt())
        sde, rest_of = self.sde.of_rows(rows), None
        given = None if z is None else Given(z)
        if z is not None and drawn is not None:
            share = (length / (s - now)).clamp(0.0, 1.0)
            some, rest = (as_column(part.sqrt(), z).to(z.dtype) for part in (share, 1 - share))
            zeta = as_normal(drawn[:, _FIRST + self.sizes :]).reshape(z.shape).to(z.dtype)
            given, rest_of = Given(some * z + rest * zeta), rest * z - some * zeta
        return self.solver.step(sde, y, 0, given, [step])[0], rest_of

    def _jump(self, y: State, now: Tensor, drawn: Tensor) -> State:
        """Return the states after their candidates."""
        chance, place = drawn[:, _CHANCE], drawn[:, _KIND] * self.rate
        u = drawn[:, _FIRST : _FIRST + self.sizes].reshape(y.shape)
        low, after = 0.0, y
        for k, one in enumerate(self.jumps):
            high = low + self.bounds[k]
            mine = place >= low
            if k < len(self.jumps) - 1:  # the last takes what rounding leaves
                mine &= place < high
            low = high
            some = mine.nonzero()[:, 0]
            if one.is_thinned and len(some):
                some = some[chance[some] * one.most < one.rates(y[some], now[some])]
            if len(some):
                after = after.index_add(0, some, one.size(y[some], now[some], u[some]))
        return after


def _increments(
    stable: list[AlphaStable], counters: Counters, x: State, i: int, memory: Memory
) -> Tensor:
    """Return what α-stable motions add in a step, shape of x."""
    numbers = torch.arange(x.numel(), device=x.device).reshape(x.shape)
    dt = memory.times[i + 1] - memory.times[i]
    total = torch.zeros_like(x, dtype=torch.float64)
    for k, one in enumerate(stable):
        first = 2 * (i * len(stable) + k)
        angle, wait = (counters.uniform(numbers + x.numel() * (first + j)) for j in (0, 1))
        total += one.increment(dt, angle, wait)
    return total.to(x.dtype)


def _refuse(name: str, why: str) -> NoReturn:
    """Refuse a solver that does not divide a step."""
    raise ValueError(
        f"JumpAdapted divides a step at jumps, but {name} {why}: pass "
        "JumpAdapted(EulerMaruyama(substeps=…)) or JumpAdapted(Heun(substeps=…))."
    )
