"""From one density of the plane to the next in time.

Where the operator A does not change, p ← e^{dt A} p, without a step. Where it does, it is read at
the nine Chebyshev nodes of a window of time, and taken for the polynomial through them: windows
are as long as the two highest coefficients allow, applied to the density. In a window a step of
the commutator-free Magnus integrator of fourth order,

    p ← e^{dt (w₂ A₁ + w₁ A₂)} e^{dt (w₁ A₁ + w₂ A₂)} p,    w = ¼ ± √3/6,    A₁,₂ at the nodes of
    Gauss

is compared with two of half its length, and steps are as long as a tolerance allows: their
difference over 15 is the error of the two. The lumped form reads A in
the middle of each step and takes e^{dt A}, of second order: positive, as the exponential of an
M-matrix is.

Where drift and diffusion answer as they did, what followed from them is used again.

Reference:
    Blanes and Moan 2006, Appl. Numer. Math. 56, 1519, eq. (43).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse
from torch import Tensor

from sdegen.core.errors import SolverError
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d.channel_fluxes import ChannelFluxes, ChannelGenerator
from sdegen.fokker_planck.density2d.density import PlaneForm, Solved
from sdegen.fokker_planck.density2d.operator import Mesh, PlaneCoefficients, PlaneFluxes
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.krylov import exponential_action
from sdegen.fokker_planck.discretization.line_fluxes import LineFluxes
from sdegen.fokker_planck.questions.course import Course, inside

Span = tuple[float, float]  # from when, until when
Step = tuple[float, float]  # from when, how far


class Way(NamedTuple):
    """How a window of time was walked through; without steps where nothing changes in it."""

    window: Span
    interval: Span
    steps: tuple[Step, ...]


_HEAVY, _LIGHT = 0.25 + math.sqrt(3) / 6, 0.25 - math.sqrt(3) / 6
_EARLY, _LATE = 0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6
_NODES = -np.cos(np.pi * np.arange(9) / 8)  # of a window, from −1 to 1
_BARYCENTRIC = np.array([0.5, -1, 1, -1, 1, -1, 1, -1, 0.5])
_HIGHEST_COEFFICIENTS = [  # of Chebyshev's series: weights of the nodes in the last two of them
    share * np.cos(k * np.arccos(_NODES)) * np.abs(_BARYCENTRIC) / 8
    for k, share in ((7, 2.0), (8, 1.0))
]
_REMEMBERED = 12  # operators: those of a window
_SHARE = 1e-3  # of the tolerance: what an exponential may add
_FAINT = 1e-12  # of the norm: how far tails of a matrix are followed
_MOST_STEPS = 100_000
_LEAST = 1e-12  # of the run: a step that is shorter is none


class PlaneGenerator:
    """The fluxes of an SDE on a mesh at any time, remembered as long as coefficients stay.

    Args:
        sde: The dynamics.
        mesh: Where they are read.
    """

    def __init__(self, sde: SDE, mesh: Mesh) -> None:
        self.sde: SDE = sde
        self.mesh: Mesh = mesh
        self._seen: list[list[tuple[PlaneCoefficients, LineFluxes]]] = [[], []]
        self._made: list[PlaneFluxes] = []
        self._at: dict[float, PlaneFluxes] = {}

    def forget(self) -> None:
        """Forget which times were read: what the SDE holds may have changed."""
        self._at.clear()

    def fluxes(self, time: float) -> PlaneFluxes:
        """Return the fluxes at a time; the same object as long as coefficients are the same."""
        if time not in self._at:
            if len(self._at) >= _REMEMBERED:
                self._at.pop(next(iter(self._at)))
            self._at[time] = self._read(time)
        return self._at[time]

    def _read(self, time: float) -> PlaneFluxes:
        """Return the fluxes at a time that was not read."""
        coefficients = self.mesh.read(self.sde, time)
        each: list[LineFluxes] = []
        for axis, seen in enumerate(self._seen):
            known = next((part for c, part in seen if coefficients.equal(c, axis)), None)
            if known is None:
                line, own = self.mesh.lines[axis], coefficients.each[axis]
                known = LineFluxes(line, axis, self.mesh.shape, own)
                self._seen[axis] = [(coefficients, known), *seen[: _REMEMBERED - 1]]
            each.append(known)
        for made in self._made:
            if all(a is b for a, b in zip(made.each, each, strict=True)):
                return made
        fluxes = PlaneFluxes(self.mesh, (each[0], each[1]))
        self._made = [fluxes, *self._made[: _REMEMBERED - 1]]
        return fluxes


@dataclass(frozen=True, eq=False)
class PlanePath:
    """Densities at times, and the way between them.

    Args:
        solved: Each of them.
        ways: The windows and steps from each time of the run to the next.
        errors: What the steps up to each of them may have added, over its peak.
    """

    solved: list[Solved]
    ways: list[list[Way]]
    errors: list[float]


@dataclass(frozen=True, eq=False)
class Propagator:
    """Carries densities of one grid through the times of a run.

    Args:
        generator: The fluxes on the grid.
        form: Which operator.
        plan: The times of the run, and what is known of the dynamics between them.
        tolerance: Error allowed in a step, over the peak.
    """

    generator: PlaneGenerator | ChannelGenerator
    form: PlaneForm
    plan: Course
    tolerance: float

    def propagate(self, start: Tensor) -> PlanePath:
        """Carry a density, of shape (nx, ny) at the first of times, in steps of its own choice.

        Raises:
            SolverError: If no step is short enough.
        """
        p = self.generator.mesh.restrict(start)
        solved, ways, errors = [self._solved(p)], [], [0.0]
        for t0, t1 in itertools.pairwise(self.plan.times):
            part, error = [], errors[-1]
            if self.plan.steady:
                p = self.flow(self.generator.fluxes(self.plan.times[0]), p, t1 - t0)
                part.append(Way((t0, t1), (t0, t1), ()))
                error += _SHARE * self.tolerance
            for interval in [] if self.plan.steady else self.plan.intervals(t0, t1):
                for after, way, missed, added in self._windows(p, interval, interval):
                    p, error = after, error + missed + added
                    part.append(way)
            solved.append(self._solved(p))
            ways.append(part)
            errors.append(error)
        return PlanePath(solved, ways, errors)

    def repeat(self, start: Tensor, ways: list[list[Way]]) -> list[Solved]:
        """Carry a density by windows and steps that were chosen on another grid."""
        p = self.generator.mesh.restrict(start)
        solved = [self._solved(p)]
        for part in ways:
            for (t, end), interval, steps in part:
                if self.plan.steady:
                    p = self.flow(self.generator.fluxes(self.plan.times[0]), p, end - t)
                    continue
                window = _Window(self, (t, end), interval)
                if window.still is not None:
                    p = self.flow(window.still, p, end - t)
                elif steps:
                    for step in steps:
                        p = window.moved(p, step)
                else:  # nodes of this grid alone see a change
                    *_, (p, _, _, _) = self._windows(p, (t, end), interval)
            solved.append(self._solved(p))
        return solved

    def flow(self, fluxes: PlaneFluxes | ChannelFluxes, p: Array, dt: float) -> Array:
        """Return e^{|dt| A} p; if lumped it is positive, and rounding of a zero is a zero."""
        if self.form == "compact":
            return exponential_action(fluxes.compact, p, abs(dt), _SHARE * self.tolerance)
        share = _SHARE * self.tolerance
        if isinstance(fluxes, ChannelFluxes):
            share = min(share, _FAINT)
        moved = exponential_action(fluxes.lumped, p, abs(dt), share)
        return np.maximum(moved, 0.0)

    def _solved(self, p: Array) -> Solved:
        """Return unknowns as a density at the nodes."""
        return Solved(self.generator.mesh.widen(p), self.form)

    def _windows(
        self, p: Array, span: Span, interval: Span
    ) -> Iterator[tuple[Array, Way, float, float]]:
        """Carry a density through a span in windows of chosen lengths.

        Yields:
            The density at the end of each window, the way through it, and what the polynomial and
            the steps may have added, over the peak.
        """
        (t, last), tolerance = span, self.tolerance
        h = reach = run = abs(self.plan.times[-1] - self.plan.times[0])
        while t != last:
            reach = min(reach, self.plan.longest(t, *interval))
            ends = reach >= abs(last - t) * (1 - 1e-12)
            end = last if ends else t + math.copysign(reach, last - t)
            window = _Window(self, (t, end), interval)
            if window.still is not None and self.plan.hides(t, end):
                reach = 0.25 * abs(end - t)  # looks between the nodes saw what these did not
            elif window.still is not None:
                p = self.flow(window.still, p, end - t)
                yield p, Way((t, end), interval, ()), _SHARE * tolerance, 0.0
                t, reach = end, 4 * reach
            elif (miss := window.missed(p)) > tolerance and reach > _LEAST * run:
                reach *= min(0.7, max(0.1, 0.9 * (tolerance / miss) ** 0.125))
            else:
                p, steps, h, added = self._walked(window, p, min(h, abs(end - t)))
                yield p, Way((t, end), interval, tuple(steps)), miss, added
                t = end
                reach *= min(2.0, 0.9 * (tolerance / max(miss, 1e-300)) ** 0.125)

    def _walked(
        self, window: _Window, p: Array, h: float
    ) -> tuple[Array, list[Step], float, float]:
        """Walk through a window in steps of a chosen length.

        Returns:
            The density at its end, the steps, the next step's length, and what they may have
            missed.
        """
        t, steps, missed, tolerance = window.begin, [], 0.0, self.tolerance
        order = 4 if self.form == "compact" else 2
        while t != window.end:
            left = window.end - t
            ends = h >= abs(left) * (1 - 1e-12)
            step = left if ends else math.copysign(h, left)
            halves: list[Step] = [(t, step / 2), (t + step / 2, step / 2)]
            once, twice = window.moved(p, (t, step)), p
            for half in halves:
                twice = window.moved(twice, half)
            change = (twice - once) / (2**order - 1)
            miss = float(np.abs(change).max()) / float(np.abs(twice).max())
            ideal = 0.9 * (tolerance / max(miss, 1e-300)) ** (1 / (order + 1))
            if miss > tolerance and abs(step) > _LEAST * abs(window.end):
                h = abs(step) * min(0.7, max(ideal, 0.1))
                continue
            p, t = twice, (window.end if ends else t + step)
            steps += halves
            missed += miss
            grown = abs(step) * min(4.0, max(0.5, ideal))
            h = max(h, grown) if ends else grown
            if len(steps) > _MOST_STEPS:
                raise SolverError(
                    f"{_MOST_STEPS} steps did not carry the density from t = {window.begin:g} to "
                    f"{window.end:g}; take a larger rtol, or a shorter run."
                )
        return p, steps, h, missed


class _Window:
    """The operator between two times.

    Args:
        propagator: What reads it: in the compact form at nodes, in the lumped one when it is asked
            for.
        window: The two times.
        interval: Those of the interval that it belongs to, at whose ends something may jump.
    """

    def __init__(self, propagator: Propagator, window: Span, interval: Span) -> None:
        self.begin, self.end = begin, end = window
        self._propagator, self._interval = propagator, interval
        nodes = begin + 0.5 * (1 + _NODES) * (end - begin)
        nodes[0], nodes[-1] = begin, end
        read = [propagator.generator.fluxes(inside(t, *interval)) for t in nodes.tolist()]
        self.still = read[0] if all(fluxes is read[0] for fluxes in read) else None
        if self.still is None and propagator.form == "compact":
            first = read[0].compact
            self._offsets, self._shape = first.offsets, first.data.shape
            self._data = np.stack([fluxes.compact.data.ravel() for fluxes in read])

    def missed(self, p: Array) -> float:
        """Estimate what the polynomial misses, as a change of p over its peak."""
        if self._propagator.form == "lumped":
            return 0.0
        changes = [self._combined(weights) @ p for weights in _HIGHEST_COEFFICIENTS]
        size = max(float(np.abs(change).max()) for change in changes)
        return size * abs(self.end - self.begin) / float(np.abs(p).max())

    def moved(self, p: Array, step: Step) -> Array:
        """Return p after one step."""
        (t, h), propagator = step, self._propagator
        if propagator.form == "lumped":
            middle = inside(t + 0.5 * h, *self._interval)
            return propagator.flow(propagator.generator.fluxes(middle), p, h)
        first, second = self._weights(t + _EARLY * h), self._weights(t + _LATE * h)
        for a, b in ((_HEAVY, _LIGHT), (_LIGHT, _HEAVY)):
            mixed = self._combined(a * first + b * second)
            p = exponential_action(mixed, p, abs(h), _SHARE * propagator.tolerance)
        return p

    def _combined(self, weights: Array) -> sparse.dia_matrix:
        """Return the sum of the operators at the nodes with these weights."""
        data = (weights @ self._data).reshape(self._shape)
        return sparse.dia_matrix((data, self._offsets), shape=(self._shape[1],) * 2)

    def _weights(self, time: float) -> Array:
        """Return the weights of the nodes in the polynomial at a time."""
        off = 2 * (time - self.begin) / (self.end - self.begin) - 1 - _NODES
        if (off == 0).any():
            return np.where(off == 0, 1.0, 0.0)
        shares = _BARYCENTRIC / off
        return np.asarray(shares / shares.sum())
