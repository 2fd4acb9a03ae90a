"""Splitting methods of phase space: each part of a step is solved exactly.

    A    x ← x + dt v                                  free flight
    B    v ← v + dt F(x, t)/m                          a kick
    O    v ← c v + √((1 − c²) T/m) z,  c = e^{−γ dt}   friction and noise, z ~ N(0, I)

are the flows of the three parts of

    dx = v dt,        dv = [F(x, t)/m − γ v] dt + √(2γT/m) dW,

taken in the order of a method's name; a letter that occurs twice takes half of the step. O is
exact also where γ depends on x, which does not move in it. The compositions are symmetric, so that
averages have order 2, and order 2 is all that they have at finite times. At rest BAOAB has more:

- on an oscillator, F = −m ω² x, the variance of x is T/(m ω²) at every step ω dt < 2;
- where friction is high its averages of x are of order 4: for γ → ∞ the term in dt² is 0.

A force is asked once a step. The last kick of a step is at the x of the next one's first, whose
force is kept in the memory, beside the state that it belongs to: where a boundary, or anyone else,
has moved a position in between, it is asked again. A driven force U(x, t) is asked at both ends of
a step, so that the trapezoidal rule in t keeps the order.

**Noise.** O draws one normal for each coordinate; `noise.normal()` has the shape of the state, and
thus two: one for each of two steps of BAOAB, or for both O of a step of OBABO. Where other runs
share the noise of each step (`Noise.shared`: along a Brownian path, in a pilot) BAOAB takes that
of v, z = ΔW/√dt, and OBABO (z_v ± z_x)/√2, whose sum is √2 z_v. Paths are then of strong order 1.

Reference:
    Leimkuhler and Matthews 2013, Appl. Math. Res. Express 2013, 34, for the compositions;
    Leimkuhler, Matthews and Stoltz 2016, IMA J. Numer. Anal. 36, 13, for the errors at rest;
    Bussi and Parrinello 2007, Phys. Rev. E 75, 056707, for OBABO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.fixed_steps import Interval, OneStep, intervals_of, to_floats
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.update import Number, diffuse, update
from sdegen.sde.underdamped import UnderdampedLangevin

_HALF_ROOT = math.sqrt(0.5)


class Kept(NamedTuple):
    """The force at the end of a step.

    Attributes:
        step: Number of the step that begins there.
        state: The state that it belongs to.
        writes: How often that had been written to.
        force: F there.
    """

    step: int
    state: State
    writes: int
    force: Tensor


class SplitMemory(NamedTuple):
    """What a splitting method knows before a step.

    Attributes:
        intervals: (t, s, dt, √|dt|) of each step.
        frictions: c and √((1 − c²) T/m) of O in each step; None where they are not numbers.
        kept: The last force; None before the first step.
        spare: Normals that were drawn and not used.
    """

    intervals: list[Interval]
    frictions: list[tuple[Number, Number]] | None = None
    kept: Kept | None = None
    spare: Tensor | None = None

    def following(self, i: int, after: State, force: Tensor, spare: Tensor | None) -> SplitMemory:
        """Return the memory behind step i, with the force at its end."""
        kept = Kept(i + 1, after, _writes(after), force)
        return SplitMemory(self.intervals, self.frictions, kept, spare)


@dataclass(frozen=True)
class Splitting(OneStep):
    """What splittings that begin and end with a kick, but for O, have in common."""

    orders: ClassVar[Orders] = Orders(flow=2, additive=(2, 1), multiplicative=(2, 1))
    evaluations: ClassVar[int] = 1
    is_counted: ClassVar[bool] = True
    stability: ClassVar[float | None] = 2.0
    _share: ClassVar[float] = 1.0  # of a step that one O takes

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse what is no `UnderdampedLangevin`, and noise against its sense of time."""
        super().check(sde, nodes)
        check_phase_space(self, sde, nodes)

    def begin(self, sde: SDE, nodes: Tensor) -> SplitMemory:
        """Return the intervals, and what friction does in each of them where that is a number."""
        assert isinstance(sde, UnderdampedLangevin)
        intervals = intervals_of(sde, nodes)
        if not (is_number(sde.friction) and is_number(sde.mass)):
            return SplitMemory(intervals)
        c, spread = friction_factors(sde, sde.friction_at(nodes), self._share * nodes.diff())
        return SplitMemory(intervals, list(zip(to_floats(c), to_floats(spread), strict=True)))

    def remember(self, sde: SDE, intervals: list[Interval]) -> SplitMemory:
        """Return the memory of a compiled run."""
        return SplitMemory(intervals)

    def _force(
        self, sde: UnderdampedLangevin, x: State, place: Tensor, i: int, memory: SplitMemory
    ) -> Tensor:
        """Return the force before a step: the one that is kept, if it belongs to this state."""
        kept = memory.kept
        if kept is not None and kept.step == i and kept.writes == _writes(kept.state):
            if kept.state is x:
                return kept.force
            if not torch.compiler.is_compiling() and torch.equal(kept.state[:, 0], place):
                return kept.force
        return sde.force(place, memory.intervals[i][0])

    def _rubbed(
        self,
        sde: UnderdampedLangevin,
        place: Tensor,
        v: Tensor,
        z: Tensor | None,
        i: int,
        memory: SplitMemory,
    ) -> Tensor:
        """Return v after one O: c v + √((1 − c²) T/m) z."""
        if memory.frictions is None:
            dt = self._share * memory.intervals[i][2]
            c, spread = (like(one, v) for one in friction_factors(sde, sde.friction_at(place), dt))
        else:
            c, spread = memory.frictions[i]
        in_place = isinstance(c, float) and not _is_traced()
        return diffuse(v.mul_(c) if in_place else v * c, z, spread)


@dataclass(frozen=True)
class BAOAB(Splitting):
    """Half a kick, half a flight, friction and noise, half a flight, half a kick.

        B: v ← v + ½ dt F(x)/m,   A: x ← x + ½ dt v
        O: v ← c v + √((1 − c²) T/m) z,   c = e^{−γ dt}

    One force a step. The default in a phase space. States have shape (batch, 2, *event).

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Leimkuhler and Matthews 2013, Appl. Math. Res. Express 2013, 34, section 2.

    Example:
        >>> spring = sg.UnderdampedLangevin(sg.Quadratic(), friction=0.0, temperature=0.0)
        >>> (end,) = sg.integrate(spring, sg.BAOAB(), spring.state([[1.0]], [[0.0]]), [0.0, 1.0])
        >>> end.flatten().tolist()  # v = −½, x = 1 − ½, v = −½ − ¼
        [0.5, -0.75]
    """

    noise_evaluations: ClassVar[str] = "1; 0 of constant γ"
    when: ClassVar[str] = (
        "Positions and velocities: averages over x of a trajectory at rest, above all; λ is the "
        "frequency ω."
    )

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: SplitMemory
    ) -> tuple[State, SplitMemory]:
        """Take the five parts of a step; the first force is the last one of the step before."""
        assert isinstance(sde, UnderdampedLangevin)
        _, s, dt, _ = memory.intervals[i]
        place, v, both = _copied(sde, x)
        force = self._force(sde, x, place, i, memory)
        z, spare = _one(noise, v, memory.spare)
        kick = like(0.5 * dt / sde.mass, v)
        v = _moved(v, force, kick)
        place = _moved(place, v, 0.5 * dt)
        v = self._rubbed(sde, place, v, z, i, memory)
        place = _moved(place, v, 0.5 * dt)
        force = sde.force(place, s)
        v = _moved(v, force, kick)
        after = _joined(place, v, both)
        return after, memory.following(i, after, force, spare)


@dataclass(frozen=True)
class OBABO(Splitting):
    """Half of friction and noise, half a kick, a flight, half a kick, half of friction and noise.

        O: v ← c v + √((1 − c²) T/m) z,   c = e^{−γ dt/2}
        B: v ← v + ½ dt F(x)/m,   A: x ← x + dt v

    One force a step, and two normals. States have shape (batch, 2, *event).

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Bussi and Parrinello 2007, Phys. Rev. E 75, 056707, eqs. (16)–(18).

    Example:
        >>> log_4 = 1.3862943611198906  # c = ½
        >>> spring = sg.UnderdampedLangevin(sg.Quadratic(), friction=log_4, temperature=0.0)
        >>> (end,) = sg.integrate(spring, sg.OBABO(), spring.state([[1.0]], [[2.0]]), [0.0, 1.0])
        >>> [f"{number:.4f}" for number in end.flatten()]  # v = 1, ½, x = 3/2, v = −¼, −⅛
        ['1.5000', '-0.1250']
    """

    noise_evaluations: ClassVar[str] = "2; 0 of constant γ"
    when: ClassVar[str] = (
        "Positions and velocities, where each step shall be a Verlet step between two of heat: "
        "work and heat are told apart."
    )
    _share: ClassVar[float] = 0.5

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: SplitMemory
    ) -> tuple[State, SplitMemory]:
        """Take the five parts of a step; the first force is the last one of the step before."""
        assert isinstance(sde, UnderdampedLangevin)
        _, s, dt, _ = memory.intervals[i]
        place, v, both = _copied(sde, x)
        force = self._force(sde, x, place, i, memory)
        first, second = _two(noise, v)
        kick = like(0.5 * dt / sde.mass, v)
        v = self._rubbed(sde, place, v, first, i, memory)
        v = _moved(v, force, kick)
        place = _moved(place, v, dt)
        force = sde.force(place, s)
        v = _moved(v, force, kick)
        v = self._rubbed(sde, place, v, second, i, memory)
        after = _joined(place, v, both)
        return after, memory.following(i, after, force, None)


def check_phase_space(solver: Solver, sde: SDE, nodes: Tensor) -> None:
    """Refuse what is no `UnderdampedLangevin`, and noise against its sense of time.

    Raises:
        ValueError: With what to take instead.
    """
    name, kind = type(solver).__name__, type(sde).__name__
    if not isinstance(sde, UnderdampedLangevin):
        raise ValueError(  # noqa: TRY004, what solvers refuse is a ValueError
            f"{name} moves positions and velocities, but {kind} is no UnderdampedLangevin: take "
            "EulerMaruyama(substeps=…), or write the dynamics as UnderdampedLangevin(potential, "
            "friction, temperature)."
        )
    own = sde.own_methods("drift", "diffusion")
    if own:
        raise ValueError(
            f"{name} takes the force, friction and temperature of an UnderdampedLangevin, but "
            f"{kind} has a {' and a '.join(own)} of its own, which it would pass over: take "
            "EulerMaruyama(substeps=…), or put what acts into force(x, t) and friction_at(x)."
        )
    if sde.noise != "none" and float(nodes[-1]) < float(nodes[0]):
        raise ValueError(
            f"{name} draws the noise of {kind} forwards in time, but times decrease: pass "
            "increasing times."
        )


def friction_factors(sde: UnderdampedLangevin, rate: Tensor, dt: Number) -> tuple[Tensor, Tensor]:
    """Return c = e^{−γ dt} and √((1 − c²) T/m), of the shape of γ dt or of the mass."""
    exponent = -(rate * dt)
    return exponent.exp(), (-(2 * exponent).expm1() * sde.temperature / sde.mass).sqrt()


def is_number(value: object) -> bool:
    """Return whether a parameter is one number for all trajectories and coordinates."""
    return not (callable(value) or (isinstance(value, Tensor) and value.ndim > 0))


def halves_of(sde: UnderdampedLangevin, x: State) -> tuple[Tensor, Tensor]:
    """Return positions and velocities, each in one piece; refuse what is no phase space."""
    if x.ndim < 3 or x.shape[1] != 2:
        sde.position(x)  # raises
    # of one layout in all steps, since that decides how sums are rounded
    place, v = x.unbind(1)
    return place.contiguous(), v.contiguous()


def state_of(place: Tensor, v: Tensor) -> State:
    """Return the state of positions and velocities: each half lies in one piece."""
    return torch.stack((place, v)).movedim(0, 1)


def like(value: Number, x: Tensor) -> Number:
    """Return one number for each coordinate in the kind of a state; one for all as it is."""
    return value.to(x) if isinstance(value, Tensor) and value.ndim else value


def _writes(x: State) -> int:
    """Return how often a tensor has been written to; 0 where torch does not count."""
    return 0 if torch.compiler.is_compiling() or x.is_inference() else x._version


def _one(
    noise: Noise | None, v: Tensor, spare: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return the normals of one O, and those that are left for the next step."""
    if noise is None:
        return None, None
    if spare is not None:
        return spare, None
    if noise.shared:
        return noise.normal()[:, 1], None
    z, spare = noise.normal().reshape(2, *v.shape).unbind()
    return z, spare


def _two(noise: Noise | None, v: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return the normals of two O, whose sum is √2 times that of v where noise is shared."""
    if noise is None:
        return None, None
    z = noise.normal()
    if not noise.shared:
        first, second = z.reshape(2, *v.shape).unbind()
        return first, second
    other, whole = (_HALF_ROOT * half for half in z.unbind(1))
    return whole + other, whole - other


def _copied(sde: UnderdampedLangevin, x: State) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return copies of positions and velocities, which a step moves in place, and where they lie.

    They are halves of one piece of memory; where a step is traced, nothing is written to.
    """
    place, v = halves_of(sde, x)
    if _is_traced():
        return place, v, ()
    both = torch.stack((place, v))
    place, v = both[0], both[1]
    return place, v, (place, v, both)


def _moved(x: Tensor, along: Tensor, by: Number) -> Tensor:
    """Return x + by · along: in place, unless a step is traced."""
    return update(x, along, by) if _is_traced() else diffuse(x, along, by)


def _is_traced() -> bool:
    """Return whether gradients flow through a step, or it is compiled."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _joined(place: Tensor, v: Tensor, both: tuple[Tensor, ...]) -> State:
    """Return the state: the memory of both halves, unless a coefficient made a tensor anew."""
    if both and place is both[0] and v is both[1]:
        return both[2].movedim(0, 1)
    return state_of(place, v)
