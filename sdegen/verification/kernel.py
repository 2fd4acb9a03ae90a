"""The quadrature of Chapman–Kolmogorov on a line.

    p'(y) = ∫ p(x) N(y; m(x), s(x)²) dx

For smooth integrands on nodes of spacing h the trapezoidal rule is exact but for what the
integrand's spectrum holds beyond 2π/h: for a kernel of width w in x, e^{−2π²(w/h)²}, below 10⁻¹³
from w = 1.25 h on. Where the kernel is narrower, the density is interpolated to finer nodes first,
by a spline of degree 7. That spline misses a wave of frequency θπ/h by 2 (θ/(2 − θ))⁸ of its
amplitude; summed over the spectrum of p that says what the interpolation loses, and a density
for which it is too much is refused: it takes about two nodes to its narrowest standard deviation,
and from three on the loss is below 10⁻⁹.

Reference:
    Trefethen and Weideman 2014, SIAM Review 56, theorem 5.1, for the trapezoidal rule; de Boor,
    Höllig and Riemenschneider 1985, for cardinal splines.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

__all__ = ["DEGREE", "REACH", "Line", "interpolation_loss"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Moments = Callable[[Array], tuple[Array, Array]]

_SPACING = 0.8  # of the nodes of a quadrature, in units of the kernel's width: an error of e^{−31}
REACH = 8.5  # half-width of the kernel that is summed, in units of s: what is left out is 2e-17
_FINEST = 512  # nodes between two nodes of the grid, at most
DEGREE = 7
_COARSE = 1e-6  # of the peak: what an interpolation may lose
_ALIVE = 1e-18  # of the peak: below it a density is none
_HELD = 2_000_000  # numbers held at a time
_CUT, _TAPER = 1e-9, 40.0  # an end of the grid counts from here on; I₀(40) = 1.5e16


class Line:
    """Uniform nodes, and what a step does to a density on them.

    Args:
        x: Nodes, shape (n,).
    """

    def __init__(self, x: Array) -> None:
        self.x, self.h = x, float(x[-1] - x[0]) / (len(x) - 1)

    def after(self, p: Array, moments: Moments) -> Array:
        """The density after a step with moments m and s, shape (n,).

        Raises:
            ValueError: If the density is not resolved, the kernel too narrow, noise is there at
                some x and not at others, or a noise-free step is no map.
        """
        alive = np.flatnonzero(p > _ALIVE * p.max())
        if len(alive) == 0:
            return np.zeros_like(p)  # all of it left the grid
        self.check_resolved(p)
        first, last = int(alive[0]), int(alive[-1])
        here = self.alive(p)
        m, s = moments(self.x[here])
        if not s.any():
            # two nodes more: a map that contracts would else cut off a node of the tails each step
            wide = self.alive(p, 2)
            return self.mapped(p, moments(self.x[wide])[0], wide)[0]
        if not (s[alive - first] > 0).all():
            raise ValueError("there is noise at some x and none at others: no density follows.")
        refine = self.refinement(m, s, alive - first)
        if refine == 1:
            return self._scattered(p[here] * self.h, m, s)
        fine = np.linspace(self.x[first], self.x[last], (last - first) * refine + 1)
        weight = make_interp_spline(self.x, p, k=DEGREE)(fine) * (self.h / refine)
        return self._scattered(weight, *moments(fine))

    def from_point(self, x0: float, moments: Moments) -> Array:
        """The density a noisy step after a start at x0: the kernel itself.

        Raises:
            ValueError: If the step has no noise.
        """
        m, s = moments(np.array([x0]))
        if s[0] == 0:
            raise ValueError(
                "there is no noise, so that a start at a point stays a point; pass a density."
            )
        z = (self.x - m[0]) / s[0]
        return np.asarray(np.exp(-0.5 * z * z) / (math.sqrt(2 * math.pi) * s[0]))

    def point_after(self, x0: float, moments: Moments) -> float | None:
        """Where a start at x0 is after a step without noise; None after one with noise."""
        m, s = moments(np.array([x0]))
        return float(m[0]) if s[0] == 0 else None

    def alive(self, p: Array, more: int = 0) -> slice:
        """The nodes from the first to the last at which a density is any, and some more."""
        there = np.flatnonzero(p > _ALIVE * p.max())
        first, last = (int(there[0]), int(there[-1])) if len(there) else (0, len(p) - 1)
        return slice(max(first - more, 0), min(last + more + 1, len(p)))

    def refinement(self, m: Array, s: Array, where: Index | None = None) -> int:
        """How many times finer the nodes must be for a kernel N(y; m, s²) as a function of x.

        Raises:
            ValueError: If that is too many.
        """
        where = np.arange(len(m)) if where is None else where
        # as a function of x the kernel is as wide as s seen through the map
        stretch = np.abs(np.gradient(m, self.h)) if len(m) > 1 else np.ones(1)
        refine = math.ceil(float((self.h * stretch / (_SPACING * s))[where].max()))
        if refine > _FINEST:
            raise ValueError(
                f"the step's noise, of width {float(s[where].min()):.3g}, is too narrow "
                f"for nodes {self.h:.3g} apart; take a finer grid or longer steps."
            )
        return max(refine, 1)

    def check_resolved(self, p: Array) -> None:
        """Refuses a density, or one in each column, that its nodes do not describe."""
        loss = interpolation_loss(p)
        if loss > _COARSE * p.max():
            raise ValueError(
                f"the grid is too coarse: between nodes {self.h:.3g} apart the density is known "
                f"to {loss / p.max():.1g} of its peak, where {_COARSE:g} is asked for; take more "
                "cells."
            )

    def _scattered(self, weight: Array, m: Array, s: Array) -> Array:
        """Σ_i weight_i N(y; m_i, s_i²) at every node y, each kernel as far as it reaches."""
        n = len(self.x)
        out = np.zeros(n)
        keep = (s > 0) & (m + REACH * s > self.x[0]) & (m - REACH * s < self.x[-1])
        weight, m, s = weight[keep], m[keep], s[keep]
        if len(m) == 0:
            return out
        band = min(n, 2 + math.ceil(2 * REACH * float(s.max()) / self.h))
        first = np.ceil((m - REACH * s - self.x[0]) / self.h).astype(np.int64)
        first = np.clip(first, 0, n - band)
        rows = max(1, _HELD // band)
        for k in range(0, len(m), rows):
            some = slice(k, k + rows)
            at = first[some, None] + np.arange(band)
            z = (self.x[at] - m[some, None]) / s[some, None]
            height = weight[some] / (math.sqrt(2 * math.pi) * s[some])
            value = np.exp(-0.5 * z * z) * height[:, None]
            out += np.bincount(at.ravel(), value.ravel(), minlength=n)
        return out

    def mapped(self, p: Array, m: Array, here: slice) -> tuple[Array, Callable[..., Array]]:
        """p(x(y)) |dx/dy| for a noise-free step y = m(x), and x(y) within the image.

        Raises:
            ValueError: If the step is no map.
        """
        x, slope = self.x[here], np.diff(m)
        if not ((slope > 0).all() or (slope < 0).all()):
            raise ValueError(
                "without noise it folds the line over itself: it is too long to be a map; take "
                "shorter steps."
            )
        if slope[0] < 0:
            m, x = m[::-1], x[::-1]
        inverse = make_interp_spline(m, x, k=min(DEGREE, len(m) - 1 - len(m) % 2))
        inside = (self.x >= m[0]) & (self.x <= m[-1])
        y = self.x[inside]
        out = np.zeros_like(p)
        before = make_interp_spline(self.x, p, k=DEGREE)(inverse(y))
        out[inside] = before * np.abs(inverse(y, nu=1))
        return out, inverse


def interpolation_loss(p: Array) -> float:
    """What a spline of degree 7 through nodal values may miss of p between the nodes.

    Args:
        p: Values on uniform nodes, shape (n,), or (n, k) for the worst of k columns.
    """
    if max(p[0].max(), p[-1].max()) > _CUT * p.max():
        # a spline does not mind where the grid ends, but a spectrum would see a jump there
        p = (p.T * np.kaiser(len(p), _TAPER)).T
    amplitude = np.abs(np.fft.rfft(p, axis=0)) * (2 / len(p))
    theta = np.arange(len(amplitude)) * (2 / len(p))
    return float((amplitude.T @ (2 * (theta / (2 - theta)) ** (DEGREE + 1))).max())
