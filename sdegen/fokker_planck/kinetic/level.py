"""A kinetic problem on one grid, with one number of Hermite functions; coarser and finer ones.

The user's nodes of x are those of the splines, and there are as many Hermite functions as v has
cells, up to 128. What tells an error is the same problem with every other node and half as many
functions; a finer one has a node more in every cell and twice as many. All are read at the user's
nodes, at which they are smooth functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.reconstruction import Line
from sdegen.fokker_planck.discretization.refinement import coarsened, halved, positions
from sdegen.fokker_planck.kinetic.hermite import coefficients, hermite
from sdegen.fokker_planck.kinetic.operator import KineticOperator, Particle
from sdegen.fokker_planck.kinetic.splines import Splines

MOST_FUNCTIONS = 128  # of the velocity, on the user's grid
_TAIL, _SHARE = 1e-3, 0.01  # of the peak, and of ∫ p²/w M: what lies below it
_LADDER = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)  # θ/T
Start = PlaneDensity | tuple[float, float]


@dataclass(frozen=True, eq=False)
class Kinetic:
    """A density as its coefficients.

    Args:
        operator: On which spaces.
        h: Its coefficients.
    """

    operator: KineticOperator
    h: Array

    def at(self, x: Array, v: Array) -> Array:
        """Return p at positions and velocities, shape (positions, velocities)."""
        return self.operator.density(self.h, x, v)

    @property
    def mass(self) -> float:
        """∫∫ p."""
        return self.operator.total(self.h)

    @property
    def moments(self) -> tuple[Array, Array]:
        """The mean of (x, v) and their covariance, from the coefficients themselves."""
        operator, splines = self.operator, self.operator.splines
        x, s = splines.points, operator.s
        c = operator.coefficients(self.h, x)[:3] * (splines.weights / self.mass)
        none, one, two = c[0], s * c[1], s**2 * (math.sqrt(2) * c[2] + c[0])
        mean = np.array([none @ x, one.sum()])
        dx = x - mean[0]
        cross = dx @ one
        spread = np.array([[none @ dx**2, cross], [cross, two.sum() - mean[1] ** 2]])
        return mean, spread


class KineticLevel:
    """The problem on one grid.

    Args:
        particle: What moves.
        grid: Nodes of the position.
        count: How many Hermite functions.
        ring: Whether the position is periodic.
    """

    def __init__(self, particle: Particle, grid: Grid, count: int, *, ring: bool) -> None:
        self.particle: Particle = particle
        self.grid: Grid = grid
        self.count: int = count
        self.ring: bool = ring
        self._operators: dict[float, KineticOperator] = {}

    @cached_property
    def coarser(self) -> KineticLevel:
        """The problem on every other node, with half as many functions."""
        count = max(4, self.count // 2)
        return KineticLevel(self.particle, coarsened(self.grid), count, ring=self.ring)

    @cached_property
    def finer(self) -> KineticLevel:
        """The problem with a node more in every cell, and twice as many functions."""
        finer = KineticLevel(self.particle, halved(self.grid), 2 * self.count, ring=self.ring)
        finer.__dict__["coarser"] = self
        return finer

    @property
    def size(self) -> int:
        """How many unknowns it has, about."""
        return self.grid.cells * self.count

    def operator(self, ratio: float = 1.0) -> KineticOperator:
        """Return the operator whose weight has a temperature of θ = ratio T."""
        if ratio not in self._operators:
            splines = Splines(self.grid.nodes.numpy(), self.ring)
            theta = ratio * self.particle.temperature
            self._operators[ratio] = KineticOperator(self.particle, splines, self.count, theta)
        return self._operators[ratio]

    def at_start(self, start: Start, ratio: float, *, thinned: bool = False) -> Kinetic:
        """Return a start as its coefficients.

        Args:
            start: At the user's nodes; or the point of one.
            ratio: θ/T of the weight.
            thinned: Whether every other node of x is read, as a coarser grid has it; sums over
                even nodes of v have no error that half of them would tell.
        """
        operator = self.operator(ratio)
        if isinstance(start, tuple):
            moments = _point(operator, *start)
        else:
            p, x, v = start.p.numpy(), start.x, start.y
            if thinned:
                few = coarsened(Grid.of(x))
                p, x = p[positions(few, Grid.of(x))], few.nodes
            weights = Line.of(Grid.of(v), ring=False).volumes
            c = coefficients(p, v.numpy(), weights, operator.s, self.count)
            points = operator.splines.points
            between = Splines(x.numpy(), self.ring).between(points)
            # of c/√w what is made between nodes is as good in the tails as in the middle
            root, at = (np.sqrt(operator.weight(places)) for places in (x.numpy(), points))
            moments = operator.moments((between @ (c / root).T).T * at)
        return Kinetic(operator, operator.solve_mass(moments))


def ratio_for(level: KineticLevel, start: Start) -> float:
    """Return θ/T for a start: 1 unless it is hotter than the bath.

    Coefficients fall fast where p²/w M has its mass where p has; of a start that is hotter than
    some 1.5 θ it lies in the tails. The smallest θ is taken at which it does not.
    """
    if isinstance(start, tuple):
        return 1.0
    particle = level.particle
    x, v = start.x.numpy(), start.y.numpy()
    energy = particle.energy(x)[:, None] + 0.5 * particle.mass * v[None, :] ** 2
    p = np.abs(start.p.numpy())
    felt = p > 0
    log_p = 2 * np.log(p[felt]) + np.log(start.weights.numpy()[felt])
    energy = energy[felt]
    faint, shares = p[felt] < _TAIL * p.max(), []
    for ratio in _LADDER:
        log = log_p + energy / (ratio * particle.temperature)
        each = np.exp(log - log.max())
        shares.append(float(each[faint].sum() / each.sum()))
        if shares[-1] < _SHARE:
            return ratio
    return _LADDER[int(np.argmin(shares))]


def _point(operator: KineticOperator, x0: float, v0: float) -> Array:
    """Return M h of a unit mass at a point."""
    values, root = hermite(np.array([v0]), operator.s, operator.count)
    c = values[:, 0] / root[0]
    splines, x = operator.splines, np.array([x0])
    even = (splines.even(x) @ sparse.diags_array(operator.even_scale)).toarray()[0]
    odd = (splines.odd(x) @ sparse.diags_array(operator.odd_scale)).toarray()[0]
    return np.concatenate([np.outer(c[::2], even).ravel(), np.outer(c[1::2], odd).ravel()])


def moments_apart(mean: Array, spread: Array, other: Array, its: Array) -> dict[str, float]:
    """Return how far apart moments are, relative to the standard deviations."""
    std = spread.diagonal().clip(0) ** 0.5
    first = abs(mean - other) / (std + 1e-300).clip(abs(mean))
    return {
        "mean": float(first.max()),
        "covariance": float((abs(spread - its) / (std[:, None] * std + 1e-300)).max()),
    }
