"""Shooting: a mode of the backward equation, followed through the cells from both ends.

A mode φ and its current obey, with the speed density m and the scale density s,

    J′ = λ m φ,    φ′ = −s J;        J = 0 at a wall without flux, φ = 0 at one that absorbs.

Through a cell both are carried by a matrix of determinant 1 (`chains`),

    φ_{i+1} = A φ_i − B J_i,    J_{i+1} = C φ_i + D J_i

The ratio r = J/(m φ) is what is followed, upward from the lower end and downward from the upper
one: sums and quotients of positive numbers, but for the zeros of φ, so that a rate of 10⁻¹⁷ has as
many digits as one of 1. Where the two meet with a gap γ = r↑ − r↓, the glued function has the
Rayleigh quotient λ − m φ² γ / ∫ m φ² dx, whose error is the square of that of λ. The zeros of
what comes up count the rates below λ (Sturm), so that none is missed and none is taken twice.

Reference:
    Pryce 1993, Numerical Solution of Sturm–Liouville Problems, sections 3.4 and 5.2; Dhillon and
    Parlett 2004, Linear Algebra Appl. 387, 1, for the place where the two meet.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization.arrays import Array

DEEPEST = 600.0  # of log m between two nodes that are kept, so that no number overflows
_ROUNDS = 60
_SAME = 1e-10  # relative; after a step as small as this the next would move the rate by rounding
_ONE = 1e-13  # relative; rates that differ by less cannot be told apart
_HIGH = 12.0  # of a barrier in kT: lower ones split every pair of rates visibly
_TINY = 1e-250  # in place of a zero that is divided by


@dataclass(frozen=True)
class Shot:
    """What both ways make of one λ.

    Args:
        below: How many rates lie below λ, the rate 0 included.
        rate: The Rayleigh quotient of the glued function.
        log_phi: log |φ| at the nodes of the chain, 0 where the ways meet; −∞ at a zero.
        sign: Its sign.
    """

    below: int
    rate: float
    log_phi: Array
    sign: Array

    @property
    def zeros(self) -> int:
        """How often φ changes its sign: n times in the n-th mode, n = 0, 1, 2."""
        return int(np.count_nonzero(self.sign[1:] * self.sign[:-1] < 0))


@dataclass(frozen=True, eq=False)
class Chain:
    """The cells between the first and the last node at which a mode is followed.

    Args:
        first: The node of the grid with which the chain begins.
        absorbs: Whether φ = 0 at its ends.
        series: A, e^{−w} C, B and e^{−w} D of the cells as series in −λ (C without its leading
            λ), shape (4, terms, cells).
        w: What log m gains over each cell.
        volumes: Mass of each node over m there, shape (nodes,).
        bonds: κ/m of each cell from its left and from its right node, shape (2, cells): the rates
            a and b.
        walls: Mass over m of a wall where D = 0, at rest and per φ of the next node but one, of
            both ends.
    """

    first: int
    absorbs: tuple[bool, bool]
    series: Array
    w: Array
    volumes: Array
    bonds: Array
    walls: tuple[tuple[float, float], tuple[float, float]]

    @cached_property
    def log_m(self) -> Array:
        """log m at the nodes, its peak 0."""
        phi = np.concatenate([[0.0], np.cumsum(self.w)])
        return phi - float(phi.max())

    @property
    def has_rest(self) -> bool:
        """Whether 0 is a rate, since nothing absorbs."""
        return not any(self.absorbs)

    def first_guesses(self, count: int) -> Array:
        """Return the slowest rates of the lumped chain, without the 0, to all their digits.

        They are the squares of the singular values of a bidiagonal matrix, which are eigenvalues
        of a tridiagonal one with a zero diagonal; bisection finds these to full relative accuracy.

        Args:
            count: How many.
        """
        low, high = self.absorbs
        v, (a, b) = self.volumes, self.bonds
        links = np.sqrt(np.stack([a / v[:-1], b / v[1:]], 1).ravel())
        links = links[int(low) : len(links) - int(high)]  # node, cell, node, …, from end to end
        size = len(links) + 1
        first = (size + 1) // 2
        sigma = eigvalsh_tridiagonal(
            np.zeros(size),
            links,
            select="i",
            select_range=(first, first + count - 1),
            lapack_driver="stebz",
            tol=np.finfo(float).tiny,
        )
        squares: Array = sigma**2
        return squares

    def mode(self, index: int, guess: float) -> tuple[float, Shot]:
        """Return a rate and its mode.

        Args:
            index: Which, counted with the rate 0 where there is one.
            guess: About its rate, > 0.

        Returns:
            The rate to rounding, and the shot at it.
        """
        low, high, rate = 0.0, math.inf, guess
        shot = self.shot(rate)
        for _ in range(_ROUNDS):
            step = abs(shot.rate - rate)
            if shot.zeros == index and step <= _SAME * rate:
                return shot.rate, shot
            if shot.below <= index:
                low = rate
            else:
                high = rate
            if high < math.inf and high - low <= _ONE * high:
                return rate, self._one_of_several(index, rate)
            if shot.zeros == index and step < 0.5 * rate:
                rate = shot.rate
            elif high == math.inf:
                rate *= 2
            else:
                rate = math.sqrt(low * high) if low > 0 else 0.25 * high
            shot = self.shot(rate)
        return rate, self._one_of_several(index, rate)

    def _one_of_several(self, index: int, rate: float) -> Shot:
        """Return one of several modes of the same rate, which live in wells of their own.

        Behind barriers that split their rates by less than rounding any basis of them will do.

        Raises:
            SolverError: If there are not so many.
        """
        below = self.shot(rate * (1 - 1e-9)).below
        ways = self.ways(rate)
        found = []
        for well in self._wells():
            shot = self._glued(rate, *ways, well)
            if abs(shot.rate - rate) < 1e-7 * rate:
                found.append(shot)
        if not 0 <= index - below < len(found):
            raise SolverError(
                f"mode {index} of the spectrum was not found: near the rate {rate:.3g} there are "
                f"{len(found)} modes that arithmetic in double precision does not tell apart. "
                "Take more cells, or fewer modes, those below that rate."
            )
        return found[index - below]

    def _wells(self) -> list[slice]:
        """Return the nodes between barriers that are high enough to make rates the same."""
        log_m, edges, peak, floor, at = self.log_m, [0], -np.inf, np.inf, 0
        for i, height in enumerate(log_m.tolist()):
            if height > floor + _HIGH and peak > floor + _HIGH:
                edges.append(at)
                peak, floor = height, np.inf
            if height > peak:
                peak, floor = height, np.inf
            if height < floor:
                floor, at = height, i
        edges.append(len(log_m))
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def shot(self, rate: float) -> Shot:
        """Return what both ways make of a λ > 0."""
        return self._glued(rate, *self.ways(rate), slice(None))

    def ways(self, rate: float) -> tuple[Array, Array, Array, Array]:
        """Return r and what φ grows by, upward and downward."""
        cells = self.cells(rate)
        return *self._upward(rate, *cells), *self._downward(rate, *cells)

    def cells(self, rate: float) -> tuple[Array, Array, Array, Array]:
        """Return A, e^{−w} C, B and e^{−w} D at a λ."""
        a, c, b, d = summed(self.series, rate)
        return a, rate * c, b, d

    def _at_wall(self, rate: float, side: int, bond: float, gain: float) -> float:
        """Return the current over m φ that the mass of a wall with D = 0 feeds, at its node."""
        rest, next_one = self.walls[side]
        r = rate * rest
        for _ in range(3 if next_one else 0):
            r = rate * (rest + next_one * gain * (1 - r / bond))
        return r

    def _upward(self, rate: float, a: Array, c: Array, b: Array, d: Array) -> tuple[Array, Array]:
        """Return r at the nodes, and φ_{i+1}/φ_i (1 from a zero), from the lower end."""
        ratios, growth = [], []
        cells = zip(a.tolist(), c.tolist(), b.tolist(), d.tolist(), strict=True)
        if self.absorbs[0]:
            _, _, b0, d0 = next(cells)
            ratios.append(math.inf)
            growth.append(1.0)
            r = -d0 / b0
        else:
            r = self._at_wall(rate, 0, float(self.bonds[0, 0]), math.exp(min(self.w[0], DEEPEST)))
        for a0, c0, b0, d0 in cells:
            ratios.append(r)
            grow = a0 - b0 * r or _TINY
            growth.append(grow)
            r = (c0 + d0 * r) / grow
        ratios.append(r)
        return np.array(ratios), np.array(growth)

    def _downward(
        self, rate: float, a: Array, c: Array, b: Array, d: Array
    ) -> tuple[Array, Array]:
        """Return r at the nodes, and φ_i/φ_{i+1} (1 to a zero), from the upper end."""
        # seen from the right node: what is J/m there is e^w J/m at the left one
        gain = np.exp(self.w)
        cells = zip(
            a[::-1].tolist(),
            (c * gain)[::-1].tolist(),
            b[::-1].tolist(),
            (d * gain)[::-1].tolist(),
            gain[::-1].tolist(),
            strict=True,
        )
        ratios, growth = [], []
        if self.absorbs[1]:
            a0, _, b0, _, _ = next(cells)
            ratios.append(-math.inf)
            growth.append(1.0)
            r = a0 / b0
        else:
            bond, fall = float(self.bonds[1, -1]), math.exp(min(-self.w[-1], DEEPEST))
            r = -self._at_wall(rate, 1, bond, fall)
        for a0, c0, b0, d0, g0 in cells:
            ratios.append(r)
            s = g0 * r
            grow = d0 + b0 * s or _TINY
            growth.append(grow)
            r = (a0 * s - c0) / grow
        ratios.append(r)
        return np.array(ratios)[::-1], np.array(growth)[::-1]

    def _glued(
        self, rate: float, up: Array, grow_up: Array, down: Array, grow_down: Array, well: slice
    ) -> Shot:
        """Glue both where they fit best in a well, and leave nothing outside of it."""
        with np.errstate(invalid="ignore", over="ignore"):
            gap = (up - down) / self.volumes
        gap = np.where(np.isfinite(gap), gap, np.inf)
        meet = (well.start or 0) + int(np.argmin(np.abs(gap[well])))
        with np.errstate(divide="ignore"):
            rise = np.log(np.abs(grow_up[:meet]))[::-1].cumsum()[::-1]
            fall = -np.log(np.abs(grow_down[meet:])).cumsum()
        log_phi = np.concatenate([-rise, [0.0], fall])
        flips = np.concatenate([np.sign(grow_up[:meet]), np.sign(grow_down[meet:])])
        sign = np.concatenate([flips[:meet][::-1].cumprod()[::-1], [1.0], flips[meet:].cumprod()])
        for end in (0, -1):
            if self.absorbs[end]:
                log_phi[end], sign[end] = -np.inf, 0.0
        if well != slice(None):
            beyond = np.ones(len(sign), dtype=bool)
            beyond[well] = False
            log_phi[beyond], sign[beyond] = -np.inf, 0.0
        weight = self.log_m + 2 * log_phi
        top = float(weight.max())
        mass = float(np.exp(weight - top) @ self.volumes)
        move = math.exp(weight[meet] - top) * float(gap[meet] * self.volumes[meet]) / mass
        below = int(np.count_nonzero(grow_up < 0))
        below += int(not self.absorbs[1] and up[-1] > 0)
        return Shot(below, rate - move, log_phi, sign)


def summed(series: Array, rate: float, first: int = 0) -> Array:
    """Return series in −λ from a term on, over (−λ) to that power, with the sign of a + term.

    Args:
        series: Their coefficients, shape (..., terms, cells).
        rate: λ.
        first: The term.
    """
    value: Array = series[..., -1, :]
    for term in range(series.shape[-2] - 2, first - 1, -1):
        value = series[..., term, :] - rate * value
    return value
