"""The walk of a density in time: which steps are taken, and how.

An interval in which drift and diffusion answer alike whenever they are asked is one exponential,
e^{dt M⁻¹K}, cut into pieces where one would lose digits. If they change, collocation at six Radau
points (`collocation.py`, order 11) takes steps that choose their length: a step is two halves,
compared with one that is whole. A start that the grid does not resolve needs what is stiff to be
exact: until it is resolved, and where gradients are wanted, the commutator-free Magnus integrator
of fourth order takes a step dt as two exponentials,

    p ← e^{dt (w₂ L₁ + w₁ L₂)} e^{dt (w₁ L₁ + w₂ L₂)} p,    w = ¼ ± √3/6,    L₁,₂ = L(t + (½ ∓
    √3/6) dt)

where a sum of generators is the generator of the sum of their f and D.

Steps that one grid found right are taken by the next (`Walk`).

Reference:
    Blanes and Moan 2006, Appl. Numer. Math. 56, 1519, eq. (43).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sdegen.core.errors import SolverError
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import Coefficients, one_or_stack
from sdegen.fokker_planck.discretization.collocation import NODES, collocated, walked, workspace
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.operator import Operator
from sdegen.fokker_planck.questions.course import Course, all_inside, inside

_HELD_TO = 10  # the order of collocation that steps are chosen by
_FEW = (0.02, 0.6, 0.98)  # of an interval in which nothing was seen to change
_MANY = 8  # looks, from which on it is read once
_MOST_STEPS = 100_000
_HEAVY, _LIGHT = 0.25 + math.sqrt(3) / 6, 0.25 - math.sqrt(3) / 6
_EARLY, _LATE = 0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6
# v²t/D of one exponential on a ring: beyond it the spectrum leaves the axis (3e-11)
_WINDING = 4.0
_REACH = 10.0  # v²t/D of one exponential that starts far from where the density will be (1e-10)
_AMPLIFIED = math.exp(7.0)  # the amplification that is let pass: 10⁻¹⁴ e⁷ = 10⁻¹¹
_TOO_FAR = math.exp(14.0)  # the amplification beyond which exponentials do not follow each other
_MANY_PIECES = 12.0  # of one exponential each, from which on collocation costs less
_SETTLED = 1e9  # of the fastest rate's times, that steps are taken over
_FAINT = 1e-12  # of the peak: a density below it is not looked at
_RELAXED = 1e-14
_UNCHANGED = 1e-9  # of the peak: what a step of dynamics that changed is not exact to


@dataclass
class Walk:
    """The steps of a run that chose them itself.

    Attributes:
        rough: Whether it met a density that its grid does not resolve: the steps are then its own.
        steps: For each interval that no step crosses an end of, the ends of the steps; one alone
            is a leap, in which nothing changes.
        error: The sum of what the steps err by, relative to the peak.
        pieces: Exponentials that were taken where nothing changes.
    """

    rough: bool = False
    steps: list[list[float]] = field(default_factory=list)
    error: float = 0.0
    pieces: int = 0


class Walker:
    """Walks through a course, with steps that choose their length, or that were found before."""

    def __init__(
        self, generator: Generator, course: Course, tolerance: float, known: Walk | None
    ) -> None:
        self.generator: Generator = generator
        self.course: Course = course
        self.tolerance: float = tolerance
        # steps that were known are repeated by NumPy, which carries no gradient
        anew = known is None or known.rough or torch.is_grad_enabled()
        self.known: Iterator[list[float]] | None = (
            None if known is None or anew else iter(known.steps)
        )
        first, last = course.times[0], course.times[-1]
        self.h: float = min(abs(last - first), course.plain(first, last))
        self._known: tuple[Coefficients, Operator] | None = None

    def path(self, p: Tensor) -> tuple[list[Tensor], Walk]:
        """Return the unknowns at all times, the first included, and the steps that were taken."""
        self.walk: Walk = Walk()
        self._bands = workspace(p.shape[-1])
        kept = [p]
        for (t0, t1), dt in zip(
            itertools.pairwise(self.course.times), steps(self.course.times), strict=True
        ):
            p = kept[-1]
            for a, b in self.course.intervals(t0, t1):
                known = None if self.known is None else next(self.known)
                ends: list[float] = []
                if known in (None, [b]) and self.course.still(a, b):
                    shares = _FEW if self.course.looked(a, b) < _MANY else _FEW[1:2]
                    operator = self._unchanging([a + share * (b - a) for share in shares], a, b)
                    if operator is not None:
                        p = _flow_of(operator, dt if (a, b) == (t0, t1) else abs(b - a), p)
                        ends = [b]
                if not ends:
                    p, ends = self._walked(p, a, b) if known is None else self._again(p, a, known)
                self.walk.steps.append(ends)
            kept.append(p)
        return kept, self.walk

    def _walked(self, p: Tensor, a: float, b: float) -> tuple[Tensor, list[float]]:
        """Take steps of chosen lengths from a to b; return the unknowns and the steps' ends."""
        t, sense, ends, h = a, 1.0 if b > a else -1.0, list[float](), min(self.h, abs(b - a))
        # what the grid does not resolve needs the exponential of what is stiff
        rough = torch.is_grad_enabled() or self._is_rough(p)
        self.walk.rough = self.walk.rough or rough
        for _ in range(_MOST_STEPS):
            left = abs(b - t)
            most = min(h, self.course.longest(t, a, b))
            last = most >= left * (1 - 1e-12)
            step = sense * (left if last else min(most, max(0.5 * left, 0.5 * most)))
            found = (self._by_magnus if rough else self._by_collocation)(p, t, step, a, b)
            if found is None:
                h = 0.25 * abs(step)
                continue
            moved, error, order, exact = found
            if exact and self.course.hides(t, t + step):
                h = 0.25 * abs(step)  # looks between the nodes saw what these did not
                continue
            # the estimate of a high order is held to a lower one, which stiffness leaves of it
            ideal = abs(step) * min(
                3.0, max(0.2, 0.9 * (self.tolerance / max(error, 1e-300)) ** (1 / order))
            )
            if error <= self.tolerance:
                p, t = moved, b if last else t + step
                ends.append(t)
                self.walk.error += error
                rough = torch.is_grad_enabled() or (rough and self._is_rough(p))
                # a step that was cut short says little of the next one
                h = max(ideal, h) if last or exact else ideal
                if last:
                    self.h = h
                    return p, ends
            else:
                h = min(ideal, 0.7 * abs(step))
                if h < 1e-12 * abs(b - a):
                    break
        raise SolverError(
            f"no step at t = {t:g} is short enough for an error below {self.tolerance:g}: does "
            "drift or diffusion jump in time? Pass breakpoints=[…] with that time, "
            "Exponential(substeps=…), or Exponential(tolerance=…) with a larger one."
        )

    def _again(self, p: Tensor, a: float, ends: list[float]) -> tuple[Tensor, list[float]]:
        """Repeat the steps that were right before; return the unknowns and the ends."""
        b, t = ends[-1], a
        for end in ends:
            c = self._read(_halves(t, end - t), a, b)
            if isinstance(c, Operator):
                p = _flow_of(c, abs(end - t), p)
            else:
                for k in (0, 1):
                    half = slice(k * len(NODES), (k + 1) * len(NODES))
                    p = self._collocated(c[0][half], c[1][half], 0.5 * abs(end - t), p)
            t = end
        return p, ends

    def _by_collocation(
        self, p: Tensor, t: float, step: float, a: float, b: float
    ) -> tuple[Tensor, float, int, bool] | None:
        """Take a step as two halves; return also its error, its order, and whether it is exact."""
        c = self._read([*_halves(t, step), *(t + NODES * step)], a, b)
        if isinstance(c, Operator):
            return _flow_of(c, abs(step), p), 0.0, _HELD_TO, True
        s = len(NODES)
        (m1, m2, m3), (k1, k2, k3) = ((v[:s], v[s : 2 * s], v[2 * s :]) for v in c)
        once, h = self._collocated(m3, k3, abs(step), p), 0.5 * abs(step)
        twice = self._collocated(m2, k2, h, self._collocated(m1, k1, h, p))
        return twice, _gap(twice, once) / (2**_HELD_TO / 4), _HELD_TO, False

    def _by_magnus(
        self, p: Tensor, t: float, step: float, a: float, b: float
    ) -> tuple[Tensor, float, int, bool] | None:
        """Take the same step by exponentials; return None where a combined D is negative."""
        once = magnus(self.generator, p, t, step, (a, b))
        half = magnus(self.generator, p, t, step / 2, (a, b)) if once is not None else None
        if once is None or half is None:
            return None
        twice = magnus(self.generator, half, t + step / 2, step / 2, (a, b))
        if twice is None:
            return None
        error = _gap(twice, once) / 15
        exact = error < _UNCHANGED and self.course.hides(t, t + step)
        if exact:  # by far too good for what changes: were all answers alike?
            early, late = (self.generator.coefficients(t + at * step) for at in (_EARLY, _LATE))
            exact = early is late
        return twice, error, 5, exact

    def _collocated(self, mass: Array, rates: Array, h: float, p: Tensor) -> Tensor:
        """Return the unknowns after a step."""
        return torch.from_numpy(collocated(mass, rates, h, p.numpy(), self._bands))

    def _read(self, times: Sequence[float], a: float, b: float) -> Operator | tuple[Array, Array]:
        """Return M and K at times between a and b, or the operator if it is one at all of them."""
        looks = self.course.looks[0] if self.course.looks else None
        c = self.generator.reader.along(all_inside(times, a, b), looks)
        if c.wall_drift.ndim == 1:
            return self.generator.operator_of(c)
        mass, rates = self.generator.bands(c)
        return mass.numpy(), rates.numpy()

    def _unchanging(self, times: Sequence[float], a: float, b: float) -> Operator | None:
        """Return the operator at times between a and b, if it is one at all of them."""
        with torch.no_grad():
            c = one_or_stack([self.generator.coefficients(inside(t, a, b)) for t in times])
        if c.wall_drift.ndim != 1:
            return None
        if not torch.is_grad_enabled():
            return self.generator.operator_of(c)
        if self._known is None or self._known[0] is not c:  # the same that knows its parameters
            self._known = c, self.generator.operator_at(inside(times[0], a, b))
        return self._known[1]

    def _is_rough(self, p: Tensor) -> bool:
        """Return whether the grid does not resolve a density."""
        nodal = self.generator.ends.widen(p.detach())
        return not Density(self.generator.grid.nodes, nodal).is_resolved


def _halves(t: float, step: float) -> list[float]:
    """Return the nodes of the two halves of a step."""
    return [*(t + NODES * (0.5 * step)), *(t + 0.5 * step + NODES * (0.5 * step))]


def _gap(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two densities over the peak."""
    x, y = a.detach().numpy(), b.detach().numpy()
    return float(np.abs(x - y).max() / (np.abs(x).max() or 1.0))


def steps(times: Sequence[float]) -> list[float]:
    """Return the lengths of the steps; equal where they differ by the rounding of times alone."""
    if len(times) == 2:
        return [abs(times[1] - times[0])]
    lengths = [abs(after - before) for before, after in itertools.pairwise(times)]
    rounding = 2 * np.finfo(np.float64).eps * max(abs(times[0]), abs(times[-1]))
    if max(lengths) - min(lengths) > rounding:
        return lengths
    return [abs(times[-1] - times[0]) / len(lengths)] * len(lengths)


def _flow_of(operator: Operator, dt: float, p: Tensor) -> Tensor:
    """Return e^{dt M⁻¹K} p."""
    return in_pieces(operator, dt, p)[0]


def in_pieces(operator: Operator, dt: float, p: Tensor) -> tuple[Tensor, int]:
    """Return e^{dt M⁻¹K} p, in pieces where one exponential would lose digits; and how many.

    Where there would be many, or few would do harm, steps of L-stable collocation follow the
    first: by then what is stiff is gone. Their rounding grows with the fastest rate times their
    length, so that of very long times the rest, in which all that is fast is gone too, is one
    exponential.
    """
    left = dt
    for taken in range(1, _MOST_STEPS + 1):
        longest, far = _longest(operator, p.detach())
        piece = min(left, longest)
        moved = operator.moved(p, piece)
        left -= piece
        if left <= 1e-14 * dt:
            return moved, taken
        change = (moved - p).detach().abs().max() / p.detach().abs().max()
        if float(change) < _RELAXED and piece * operator.circulation > _WINDING / 2:
            return moved, taken  # a current that runs in a density that rests
        p = moved
        if far or left > _MANY_PIECES * longest:
            diagonal = operator.rates[..., 1, :] / operator.mass[..., 1, :]
            fastest = float(diagonal.detach().abs().max())
            settled = min(left, _SETTLED / fastest)
            p, more = walked(operator.mass, operator.rates, settled, p)
            if left > settled:
                p, more = operator.moved(p, left - settled), more + 1
            return p, taken + more
    raise AssertionError("pieces that are few came to an end")


def _longest(operator: Operator, p: Tensor) -> tuple[float, bool]:
    """Return the longest time that one exponential carries p, and whether others are to follow.

    In the scalar product of e^{−Φ} the operator is symmetric and errors stay small; at x they are
    amplified by e^{Φ/2}, against a start that is e^{−Φ/2} p. A start far out, against a strong
    force, makes that ratio κ huge. Within v²t/D ≲ 10 of the place where it sits an error does not
    reach across. Where κ is so large that what does would be seen, of all places where there is
    density the fastest counts, and one such time is all that exponentials are trusted with.
    """
    longest = _WINDING / operator.circulation if operator.circulation > 0 else math.inf
    values = p.numpy()
    peak = values.max()
    raised = values * operator.amplification
    if not raised.max() > _AMPLIFIED * peak:  # what is faint too
        return longest, False
    seen = values > _FAINT * peak
    highest = (raised * seen).max()
    if not highest > _AMPLIFIED * peak:
        return longest, False
    speed, far = operator.speed.numpy(), bool(highest > _TOO_FAR * peak)
    if far:
        fastest = np.where(seen, speed, 0.0).max()
    else:
        height = np.log(np.where(seen, values, 1.0)) - 0.5 * operator.phi.detach().numpy()
        fastest = speed[np.where(seen, height, -math.inf).argmax()]
    if fastest > 0:
        longest = min(longest, _REACH / float(fastest))
    return longest, far


def magnus(
    generator: Generator, p: Tensor, t: float, h: float, interval: tuple[float, float]
) -> Tensor | None:
    """Return one step; None where it is so long that a combined D is negative."""
    c1, c2 = (generator.coefficients(inside(t + at * h, *interval)) for at in (_EARLY, _LATE))
    if c1 is c2:
        return _flow_of(generator.operator_of(c1), abs(h), p)
    for first, second in ((_HEAVY, _LIGHT), (_LIGHT, _HEAVY)):
        c = c1.combined(first, c2, second)
        if not (bool((c.diffusivity > 0).all()) and bool((c.nodal_diffusivity >= 0).all())):
            return None
        p = _flow_of(generator.operator(c), abs(h), p)
    return p
