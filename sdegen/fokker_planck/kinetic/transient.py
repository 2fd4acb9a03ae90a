"""From one density to the next in time: rational steps, which damp what they do not resolve.

    e^z ≈ N(z)/D(z) = Σ_j r_j/(z − p_j),    h ← Σ_j r_j (dt A − p_j M)⁻¹ M h

with N of degree 3 and D of degree 4, Padé's, of seventh order: |N/D| ≤ 1 where Re z ≤ 0, and 0 for
z → ∞. Its poles are two conjugate pairs, so that a step solves two sparse systems, factorised once
for each length of step. Steps are halved until two lengths agree on every other node; below that
they are not seen.

Reference:
    Hairer and Wanner 1996, Solving Ordinary Differential Equations II, section IV.3, eq. (3.30),
    and theorem IV.4.12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.polynomial import Polynomial
from scipy.sparse.linalg import SuperLU, splu

from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.kinetic.level import Kinetic, KineticLevel
from sdegen.fokker_planck.kinetic.operator import KineticOperator

_MOST_STEPS = 20_000
_REMEMBERED = 3  # lengths of a step
_PARTS = 8  # of the shortest gap between two times, of which the others may be multiples
_ROUNDING = 1e-9
_TURN = 1.5  # of a radian: how far the fastest oscillation turns in the longest step
_SEEN = 20.0  # of T: how deep below the lowest energy is felt


def _pade(low: int, high: int) -> tuple[Polynomial, Polynomial]:
    """Return numerator and denominator of e^z, of degrees low and high."""

    def side(degree: int, other: int, sign: int) -> Polynomial:
        total = degree + other
        f = math.factorial
        each = [math.comb(degree, j) * f(total - j) / f(total) for j in range(degree + 1)]
        return Polynomial([float(sign) ** j * share for j, share in enumerate(each)])

    return side(low, high, 1), side(high, low, -1)


_NUMERATOR, _DENOMINATOR = _pade(3, 4)
_ROOTS = [p for p in _DENOMINATOR.roots() if complex(p).imag > 0]
_RESIDUES = [_NUMERATOR(p) / _DENOMINATOR.deriv()(p) for p in _ROOTS]


class Stepper:
    """Steps of any length on one operator.

    Args:
        operator: A and M.
    """

    def __init__(self, operator: KineticOperator) -> None:
        self.operator = operator
        self._made: dict[float, list[SuperLU]] = {}

    def step(self, h: Array, dt: float) -> Array:
        """Return h after a time dt."""
        if dt not in self._made:
            if len(self._made) >= _REMEMBERED:
                self._made.pop(next(iter(self._made)))
            a, m = self.operator.matrix, self.operator.mass
            self._made[dt] = [splu((dt * a - p * m).tocsc()) for p in _ROOTS]
        load = (self.operator.mass @ h).astype(complex)
        parts = zip(_RESIDUES, self._made[dt], strict=True)
        return cast(Array, 2.0 * sum((r * lu.solve(load)).real for r, lu in parts))


def carry(start: Kinetic, times: Sequence[float], longest: float) -> list[Kinetic]:
    """Return the densities at times.

    Args:
        start: At the first of them.
        times: Increasing.
        longest: How long a step may be.

    Raises:
        SolverError: If that is more than 20,000 steps.
    """
    gaps = np.diff(np.asarray(times, dtype=np.float64))
    longest = _common(gaps, longest)
    counts = np.maximum(1, np.ceil(gaps / longest * (1 - _ROUNDING))).astype(int)
    if counts.sum() > _MOST_STEPS:
        raise SolverError(
            f"a density over {float(gaps.sum()):g} units of time takes {counts.sum()} steps of "
            f"{longest:.2g}, more than {_MOST_STEPS}; ask for a shorter time, or for the rates at "
            "which it relaxes: solver.spectrum(count).",
            None,
        )
    stepper, h, path = Stepper(start.operator), start.h, [start]
    for gap, count in zip(gaps.tolist(), counts.tolist(), strict=True):
        dt = float(f"{gap / count:.12g}")  # equal up to rounding are one
        for _ in range(count):
            h = stepper.step(h, dt)
        path.append(Kinetic(start.operator, h))
    return path


def _common(gaps: Array, longest: float) -> float:
    """Return a step of which all gaps are multiples, if there is one near the longest."""
    for parts in range(1, _PARTS + 1):
        base = float(gaps.min()) / parts
        ratios = gaps / base
        if np.abs(ratios - np.round(ratios)).max() < _ROUNDING * float(ratios.max()):
            return base / math.ceil(base / longest * (1 - _ROUNDING))
    return longest


def resolved(
    start: Kinetic,
    times: Sequence[float],
    longest: float,
    apart: Callable[[Kinetic, Kinetic], float],
    tolerance: float,
) -> tuple[float, list[Kinetic], list[float]]:
    """Return a length of step, the densities, and what steps of half the length make of them.

    Args:
        start: At the first time.
        times: Increasing.
        longest: The longest step.
        apart: How far apart two densities are.
        tolerance: How far they may be.
    """
    length, path = longest, carry(start, times, longest)
    while True:
        finer = carry(start, times, length / 2)
        misses = [apart(a, b) for a, b in zip(path, finer, strict=True)]
        if max(misses) <= tolerance:
            return length, path, misses
        length, path = length / 2, finer


def longest_step(level: KineticLevel, times: Sequence[float]) -> float:
    """Return the longest step that turns with the oscillations of the wells.

    Where friction is stronger than they are nothing oscillates, and steps may be longer.
    """
    particle, x = level.particle, level.operator().splines.points
    energy, force = particle.energy(x), particle.force(x)
    felt = energy - energy.min() < _SEEN * particle.temperature
    bend = np.abs(np.gradient(force, x))[felt] / particle.mass
    speed = math.sqrt(particle.temperature / particle.mass)
    across = 2 * math.pi * speed / float(x[-1] - x[0])
    omega = max(math.sqrt(float(bend.max(initial=0.0))), across)
    friction = float(particle.friction(x).min())
    longest = _TURN / omega * max(1.0, friction / omega)
    return min(longest, float(np.diff(times).max()))
