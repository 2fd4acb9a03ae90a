"""From one density to the next in time.

**Exponential.** If drift and diffusion do not depend on time, p(t) = e^{tM⁻¹K} p(0) to thirteen
digits, without a step. If they change it takes steps, which choose their length (`walk`) unless
their number is given; those are Magnus steps of fourth order.

**Backward Euler.** (M − dt K) p′ = M p with lumped M: the inverse of an M-matrix, so that p′ ≥ 0
and no mass is lost, whatever dt. First order in dt. It is for who wants that guarantee; no method
of higher order has it for every dt (Bolley and Crouzeix 1978). Crank–Nicolson is not offered:
from a point start it rings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization import first_masses, tridiagonal
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.rounding import extremes, rings, without_rounding
from sdegen.fokker_planck.questions.course import Course, inside
from sdegen.fokker_planck.questions.walk import Walk, Walker, in_pieces, magnus, steps

_TOLERANCE = 1e-6  # of the peak, in each step that is chosen here


@dataclass(frozen=True)
class Exponential:
    """The exponential of the operator; where time matters, steps whose error is estimated.

        p(t) = e^{L t} p(0),     p of shape (nodes,)

    Args:
        substeps: Magnus steps of fourth order between two times, taken whatever their error; None
            takes steps that choose their length. Dynamics that are known not to depend on time
            take none, and this is not used.
        tolerance: By how much a step may err, relative to the peak of the density, > 0.

    Raises:
        ValueError: If substeps is less than 1, or tolerance is not between 0 and 1.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=2**0.5)
        >>> trap = sg.FokkerPlanck(ou, sg.Grid(-8.0, 8.0, cells=100))
        >>> path = trap.solve(2.0, [0.0, 1.0], integrator=sg.Exponential())
        >>> f"{path.final.mean:.4f}"  # 2 e⁻¹ = 0.7358
        '0.7358'
    """

    substeps: int | None = None
    tolerance: float = field(default=_TOLERANCE, kw_only=True)
    lumped_only: ClassVar[bool] = False  # whether its guarantee needs the lumped form

    def __post_init__(self) -> None:
        if self.substeps is not None:
            check_count("substeps", self.substeps)
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, but is {self.tolerance:g}.")

    def path(
        self, generator: Generator, p: Tensor, course: Course, walk: Walk | None = None
    ) -> tuple[list[Tensor], Walk]:
        """Return the unknowns at all times, the first included, and the steps that were taken.

        Args:
            generator: What carries them.
            p: Unknowns at the first time.
            course: Times.
            walk: Steps to take, that were found right on another grid; None finds them.
        """
        if course.steady:
            kept = [p]
            operator, pieces = generator.operator_at(course.times[0]), 0
            for dt in steps(course.times):
                moved, taken = in_pieces(operator, dt, kept[-1])
                kept.append(moved)
                pieces += taken
            return kept, Walk(pieces=pieces)
        if self.substeps is None:
            return Walker(generator, course, self.tolerance, walk).path(p)

        def step(p: Tensor, i: int, h: float, a: float, b: float) -> Tensor:
            t = a + i * h
            moved = magnus(generator, p, t, h, (a, b))
            if moved is None:
                raise SolverError(
                    "the diffusion changes by more than a factor of 14 in the step from t = "
                    f"{t:g}; take more substeps, or leave substeps=None."
                )
            return moved

        return _in_substeps(self.substeps, step, course, p)


@dataclass(frozen=True)
class BackwardEuler:
    """Implicit steps of the lumped form: positive and conservative, first order.

        (1 − Δt L) p_{k+1} = p_k,     p of shape (nodes,)

    Args:
        substeps: Steps between two times.

    Raises:
        ValueError: If substeps is less than 1.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=2**0.5)
        >>> trap = sg.FokkerPlanck(ou, sg.Grid(-8.0, 8.0, cells=800), form="lumped")
        >>> start = trap.grid.gaussian(1.0, 1.0)
        >>> path = trap.solve(start, [0.0, 1.0], integrator=sg.BackwardEuler(substeps=1000))
        >>> f"{path.final.mean:.4f}"  # 1.001⁻¹⁰⁰⁰ = 0.3681, of e⁻¹ = 0.3679
        '0.3681'
    """

    substeps: int = 1
    lumped_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("substeps", self.substeps)

    def path(
        self, generator: Generator, p: Tensor, course: Course, walk: Walk | None = None
    ) -> tuple[list[Tensor], Walk]:
        """Return the unknowns at all times, the first included; it takes no steps but its own."""
        first = generator.operator_at(course.times[0])

        def step(p: Tensor, i: int, h: float, a: float, b: float) -> Tensor:
            end = inside(a + (i + 1) * h, a, b)
            operator = first if course.steady else generator.operator_at(end)
            held = tridiagonal.multiply(operator.mass, p)
            return tridiagonal.solve(operator.mass - abs(h) * operator.rates, held)

        return _in_substeps(self.substeps, step, course, p)


Integrator = Exponential | BackwardEuler


def carried(
    generator: Generator,
    start: Float[Tensor, " nodes"],
    sharp: Float[Tensor, " nodes"],
    course: Course,
    integrator: Integrator,
    fallback: Generator | None,
    walk: Walk | None = None,
) -> tuple[Float[Tensor, "T nodes"], Generator, Walk]:
    """Return the densities at times.

    Args:
        generator: What carries them.
        start: The first of them.
        sharp: How the generator's operator is to see it.
        course: Times, the start's first.
        integrator: How they are carried.
        fallback: What carries them instead, and from `start`, where they go below zero; None to
            leave them as they are.
        walk: Steps that were found right on another grid.

    Returns:
        Nodal values, shape (T, nodes), what carried them, and the steps that were taken.
    """
    q = generator.ends.restrict(sharp)
    if sharp is start:
        q = first_masses.seen(generator, start, course.times[0])
    p, taken = _nodal(generator, start, q, course, integrator, walk)
    span, used = extremes(p), generator
    if fallback is not None and rings(p, span, generator.grid):
        q = fallback.ends.restrict(start)
        p, taken = _nodal(fallback, start, q, course, integrator, walk)
        span, used = extremes(p), fallback
    ends = generator.ends
    restored = ends.powers == (None, None) and not any(end.absorbs for end in ends.conditions)
    p = without_rounding(p, span, generator.grid, restored=restored, positive=fallback is not None)
    return p, used, taken


def _nodal(
    generator: Generator,
    start: Tensor,
    unknowns: Tensor,
    course: Course,
    integrator: Integrator,
    walk: Walk | None,
) -> tuple[Tensor, Walk]:
    """Return the nodal values at all times, of a start with these unknowns."""
    path, taken = integrator.path(generator, unknowns, course, walk)
    return torch.stack([start, *map(generator.ends.widen, path[1:])]), taken


def _in_substeps(
    count: int,
    step: Callable[[Tensor, int, float, float, float], Tensor],
    course: Course,
    p: Tensor,
) -> tuple[list[Tensor], Walk]:
    """Return the unknowns at all times, by steps of one length between two ends of a course."""
    kept = [p]
    for t0, t1 in itertools.pairwise(course.times):
        for a, b in course.intervals(t0, t1, jumps=False):
            for i in range(count):
                p = step(p, i, (b - a) / count, a, b)
        kept.append(p)
    return kept, Walk()
