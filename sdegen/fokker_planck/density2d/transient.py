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
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sdegen.core.errors import SolverError
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d.density import PlaneForm
from sdegen.fokker_planck.density2d.operator import Mesh, PlaneCoefficients, PlaneFluxes
from sdegen.fokker_planck.discretization.krylov import exponential_action
from sdegen.fokker_planck.discretization.line_fluxes import LineFluxes
from sdegen.fokker_planck.questions.course import Course, inside

Array = NDArray[np.float64]
Step = tuple[float, float]  # from where, how far


class Way(NamedTuple):
    """How a window of time was walked through; without steps where nothing changes in it."""

    window: tuple[float, float]
    interval: tuple[float, float]
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
_MOST_STEPS = 100_000
_LEAST = 1e-12  # of the run: a step that is shorter is none


class PlaneGenerator:
    """The fluxes of an SDE on a mesh at any time, remembered as long as coefficients stay.

    Args:
        sde: The dynamics.
        mesh: Where they are read.
    """

    def __init__(self, sde: SDE, mesh: Mesh) -> None:
        self.sde, self.mesh = sde, mesh
        self._seen: list[list[tuple[PlaneCoefficients, LineFluxes]]] = [[], []]
        self._made: list[PlaneFluxes] = []
        self._at: dict[float, PlaneFluxes] = {}

    def forget(self) -> None:
        """Forget which times were read: what the SDE holds may have changed."""
        self._at.clear()

    def fluxes(self, time: float) -> PlaneFluxes:
        """Return the fluxes at a time; the same object as long as coefficients are the same."""
        if time in self._at:
            return self._at[time]
        found = self._read(time)
        if len(self._at) >= _REMEMBERED:
            self._at.pop(next(iter(self._at)))
        self._at[time] = found
        return found

    def _read(self, time: float) -> PlaneFluxes:
        """Return the fluxes at a time that was not read."""
        coefficients = self.mesh.read(self.sde, time)
        each: list[LineFluxes] = []
        for axis, seen in enumerate(self._seen):
            known = next((part for c, part in seen if coefficients.equal(c, axis)), None)
            if known is None:
                known = self.mesh.line_fluxes(coefficients, axis)
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
    """Densities at times, at the unknowns, and the way between them.

    Args:
        values: Each of them, shape (unknowns,).
        ways: The windows and steps from each time of the run to the next.
        errors: What the steps up to each of them may have added, over its peak.
    """

    values: list[Array]
    ways: list[list[Way]]
    errors: list[float]


def carried(
    generator: PlaneGenerator, form: PlaneForm, start: Array, plan: Course, *, tolerance: float
) -> PlanePath:
    """Carry a density through times, in steps of its own choice.

    Args:
        generator: What carries it.
        form: Which operator.
        start: At the first of times, shape (unknowns,).
        plan: The times of the run, and what is known of the dynamics between them.
        tolerance: Error allowed in a step, over the peak.

    Raises:
        SolverError: If no step is short enough.
    """
    values, ways, errors = [start], [], [0.0]
    run = abs(plan.times[-1] - plan.times[0])
    h = reach = run
    for t0, t1 in itertools.pairwise(plan.times):
        p, way, error = values[-1], [], errors[-1]
        if plan.steady:
            way.append(Way((t0, t1), (t0, t1), ()))
            error += _SHARE * tolerance
            p = _flow(generator.fluxes(plan.times[0]), form, p, abs(t1 - t0), tolerance)
            ends = []
        else:
            ends = plan.intervals(t0, t1)
        for a, b in ends:
            t = a
            while t != b:
                reach = min(reach, plan.longest(t, a, b))
                last = reach >= abs(b - t) * (1 - 1e-12)
                end = b if last else t + math.copysign(reach, b - t)
                window = _Window(generator, form, (t, end), (a, b))
                if window.still is not None and plan.hides(t, end):
                    reach = 0.25 * abs(end - t)  # looks between the nodes saw what these did not
                    continue
                if window.still is not None:
                    p = _flow(window.still, form, p, abs(end - t), tolerance)
                    way.append(Way((t, end), (a, b), ()))
                    t, reach, error = end, 4 * reach, error + _SHARE * tolerance
                    continue
                miss = window.missed(p)
                if miss > tolerance and reach > _LEAST * run:
                    reach *= min(0.7, max(0.1, 0.9 * (tolerance / miss) ** 0.125))
                    continue
                p, steps, h, missed = _walked(window, p, min(h, abs(end - t)), tolerance)
                way.append(Way((t, end), (a, b), tuple(steps)))
                t, error = end, error + miss + missed
                reach *= min(2.0, 0.9 * (tolerance / max(miss, 1e-300)) ** 0.125)
            h = reach = run  # what comes next has steps of its own
        values.append(p)
        ways.append(way)
        errors.append(error)
    return PlanePath(values, ways, errors)


def repeated(
    generator: PlaneGenerator,
    form: PlaneForm,
    start: Array,
    plan: Course,
    ways: list[list[Way]],
    tolerance: float,
) -> list[Array]:
    """Carry a density by windows and steps that were chosen before."""
    values = [start]
    for part in ways:
        p = values[-1]
        for way in part:
            t, end = way.window
            if plan.steady:
                p = _flow(generator.fluxes(plan.times[0]), form, p, abs(end - t), tolerance)
                continue
            window = _Window(generator, form, way.window, way.interval)
            if window.still is not None:
                p = _flow(window.still, form, p, abs(end - t), tolerance)
                continue
            for step in way.steps:
                p = window.moved(p, step, tolerance)
        values.append(p)
    return values


class _Window:
    """The operator between two times.

    Args:
        generator: What reads it.
        form: Which form; the compact one is read at nodes, the lumped one when it is asked for.
        window: The two times.
        interval: Those of the interval that it belongs to, at whose ends something may jump.
    """

    def __init__(
        self,
        generator: PlaneGenerator,
        form: PlaneForm,
        window: tuple[float, float],
        interval: tuple[float, float],
    ) -> None:
        self.begin, self.end = begin, end = window
        self._generator, self._form, self._interval = generator, form, interval
        nodes = begin + 0.5 * (1 + _NODES) * (end - begin)
        nodes[0], nodes[-1] = begin, end
        nodes = np.array([inside(t, *interval) for t in nodes.tolist()])
        read = [generator.fluxes(t) for t in nodes.tolist()]
        self.still = read[0] if all(fluxes is read[0] for fluxes in read) else None
        if self.still is None and form == "compact":
            first = read[0].compact
            self._offsets, self._shape = first.offsets, first.data.shape
            self._data = np.stack([fluxes.compact.data.ravel() for fluxes in read])

    def missed(self, p: Array) -> float:
        """Estimate what the polynomial misses, as a change of p over its peak."""
        if self._form == "lumped":
            return 0.0
        size = max(
            float(np.abs(self._combined(weights) @ p).max()) for weights in _HIGHEST_COEFFICIENTS
        )
        return size * abs(self.end - self.begin) / float(np.abs(p).max())

    def moved(self, p: Array, step: Step, tolerance: float) -> Array:
        """Return p after one step."""
        t, h = step
        if self._form == "lumped":
            middle = inside(t + 0.5 * h, *self._interval)
            return _flow(self._generator.fluxes(middle), "lumped", p, abs(h), tolerance)
        first, second = self._weights(t + _EARLY * h), self._weights(t + _LATE * h)
        for a, b in ((_HEAVY, _LIGHT), (_LIGHT, _HEAVY)):
            mixed = self._combined(a * first + b * second)
            p = exponential_action(mixed, p, abs(h), _SHARE * tolerance)
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
        weights: Array = shares / shares.sum()
        return weights


def _walked(
    window: _Window, p: Array, h: float, tolerance: float
) -> tuple[Array, list[Step], float, float]:
    """Walk through a window in steps of a chosen length.

    Returns:
        The density at its end, the steps, the next step's length, and what they may have missed.
    """
    t, steps, missed, compact = window.begin, [], 0.0, window._form == "compact"
    order = 4 if compact else 2
    while t != window.end:
        left = window.end - t
        ends = h >= abs(left) * (1 - 1e-12)
        step = left if ends else math.copysign(h, left)
        halves: list[Step] = [(t, step / 2), (t + step / 2, step / 2)]
        once, found = window.moved(p, (t, step), tolerance), p
        for half in halves:
            found = window.moved(found, half, tolerance)
        change = (found - once) / (2**order - 1)
        miss = float(np.abs(change).max()) / float(np.abs(found).max())
        ideal = 0.9 * (tolerance / max(miss, 1e-300)) ** (1 / (order + 1))
        if miss > tolerance and abs(step) > _LEAST * abs(window.end):
            h = abs(step) * min(0.7, max(ideal, 0.1))
            continue
        p, t = found, (window.end if ends else t + step)
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


def _flow(fluxes: PlaneFluxes, form: PlaneForm, p: Array, dt: float, tolerance: float) -> Array:
    """Return e^{dt A} p; of the lumped form it is positive, and rounding of a zero is a zero."""
    if form == "compact":
        return exponential_action(fluxes.compact, p, dt, _SHARE * tolerance)
    return np.maximum(exponential_action(fluxes.lumped, p, dt, _SHARE * tolerance), 0.0)
