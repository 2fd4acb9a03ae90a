"""The quadrature of Chapman–Kolmogorov on a line.

    p'(y) = ∫ p(x) N(y; m(x), s(x)²) dx

For smooth integrands on nodes of spacing h the trapezoidal rule is exact but for what the
integrand's spectrum holds beyond 2π/h: for a kernel of width w in x, e^{−2π²(w/h)²}, below 10⁻¹³
from w = 1.25 h on. Where the kernel is narrower, the density is interpolated to finer nodes first,
by a spline of degree 7. That spline misses a wave of frequency θπ/h by 2 (θ/(2 − θ))⁸ of its
amplitude; summed over the spectrum of p that says what the interpolation loses, and a density
for which it is too much is refused: it takes about two nodes to its narrowest standard deviation,
and from three on the loss is below 10⁻⁹.

**Walls** end the integral where the density has not, and there the trapezoidal rule is lost. So
the spline is integrated over panels by Gauss's rule of 16 points, each panel as long as five
widths of p N: the kernel's there, and the narrowest of a density that the nodes hold. What the
kernel puts beyond a wall is folded back, wrapped, or gone, as `simulate` does with states; on
nodes that is a sum over images. At an absorbing wall b with a bridge it has the factor

    1 − exp(−2 (b − x)(b − y)/s²)

of the paths that did not touch it on their way from x to y. Noise whose width differs from place
to place is summed over the same panels, which are short only where it is narrow.

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

from sdegen.core.conditions import BoundaryCondition

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
_NARROWEST, _PANEL = 2.5, 5.0  # a density, in nodes; a panel, in widths of what is integrated
_GAUSS_X, _GAUSS_W = np.polynomial.legendre.leggauss(16)
_WIDER = 2.0  # a kernel may be here than there, before panels are shorter than nodes are near
_CUT, _TAPER = 1e-9, 40.0  # an end of the grid counts from here on; I₀(40) = 1.5e16


class TransitionOperator:
    """Uniform nodes, and what a step does to a density on them.

    Args:
        x: Nodes, shape (n,).
        conditions: What the first and the last node do to what meets them; None if they only end
            the line.
        bridged: Which of them absorb what touches them between two steps, too.
    """

    def __init__(
        self,
        x: Array,
        conditions: tuple[BoundaryCondition, BoundaryCondition] | None = None,
        bridged: tuple[bool, bool] = (False, False),
    ) -> None:
        self.x: Array = x
        self.h: float = float(x[-1] - x[0]) / (len(x) - 1)
        self.conditions = conditions
        self.bridges: tuple[float, ...] = tuple(
            float(x[end]) for end, bridge in zip((0, -1), bridged, strict=True) if bridge
        )

    def after(self, p: Array, moments: Moments) -> Array:
        """Return the density after a step with moments m and s, shape (n,).

        Raises:
            ValueError: If the density is not resolved, the kernel too narrow, noise is there at
                some x and not at others, or a noise-free step is not one to one.
        """
        occupied = np.flatnonzero(p > _ALIVE * p.max())
        if len(occupied) == 0:
            return np.zeros_like(p)  # all of it left the grid
        self.check_resolved(p)
        first, last = int(occupied[0]), int(occupied[-1])
        # a density that vanishes at a wall is none there, and has some in the cell beside it
        window = self.support(p, 0 if self.conditions is None else 1)
        m, s = moments(self.x[window])
        if self.conditions is not None:
            self._check_smooth(p)
            if not s.any():
                raise ValueError(
                    "the law between walls is built for steps with noise, and there is none; "
                    "leave the boundary out, and take a grid that the states do not leave."
                )
        if not s.any():
            # two nodes more: a map that contracts would else cut off a node of the tails each step
            wide = self.support(p, 2)
            return self.mapped(p, moments(self.x[wide])[0], wide)[0]
        inner = occupied - window.start
        if not (s[inner] > 0).all():
            raise ValueError("there is noise at some x and none at others: no density follows.")
        refine = self.refinement(m, s, inner)
        uneven = refine > 1 and s[inner].max() > _WIDER * s[inner].min()
        if self.conditions is not None or uneven:
            points, weight = self._panels(window, m, s)
            weight = weight * make_interp_spline(self.x, p, k=DEGREE)(points)
            return self._folded(weight, *moments(points), points)
        if refine == 1:
            return self._scattered(p[window] * self.h, m, s)
        fine = np.linspace(self.x[first], self.x[last], (last - first) * refine + 1)
        weight = make_interp_spline(self.x, p, k=DEGREE)(fine) * (self.h / refine)
        return self._scattered(weight, *moments(fine))

    def from_point(self, x0: float, moments: Moments) -> tuple[Array, float | None]:
        """Return the density after one step from x0, and where the state is if it has no noise."""
        m, s = moments(np.array([x0]))
        if s[0] == 0:
            return np.zeros_like(self.x), float(m[0])
        if self.conditions is not None:
            return self._folded(np.ones(1), m, s, np.array([x0])), None
        return normal(self.x, m, s)[:, 0], None

    def support(self, p: Array, more: int = 0) -> slice:
        """Return the slice from the first to the last node with density, widened by `more`."""
        occupied = np.flatnonzero(p > _ALIVE * p.max())
        first, last = (int(occupied[0]), int(occupied[-1])) if len(occupied) else (0, len(p) - 1)
        return slice(max(first - more, 0), min(last + more + 1, len(p)))

    def refinement(self, m: Array, s: Array | float, where: Index | slice = slice(None)) -> int:
        """Return the factor by which nodes must be refined for N(y; m, s²) as a function of x.

        Raises:
            ValueError: If that is too many.
        """
        s = np.broadcast_to(s, m.shape)
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
        """Refuse a density, or one in each column, that its nodes do not resolve."""
        self._check_loss(p, interpolation_loss(p, cut=self.conditions is not None))

    def _check_loss(self, p: Array, loss: float) -> None:
        """Refuse a density of which an interpolation loses too much."""
        if loss > _COARSE * p.max():
            raise ValueError(
                f"the grid is too coarse: between nodes {self.h:.3g} apart the density is known "
                f"to {loss / p.max():.1g} of its peak, where {_COARSE:g} is asked for; take more "
                "cells."
            )

    def _check_smooth(self, p: Array) -> None:
        """Refuse a density between walls that every other node does not nearly resolve."""
        x, y = self.x, make_interp_spline(self.x[::2], p[::2], k=DEGREE)
        between = slice(1, len(x) - 1 + len(x) % 2, 2)
        self._check_loss(p, float(np.abs(y(x[between]) - p[between]).max()) / 2 ** (DEGREE + 1))

    def _panels(self, window: slice, m: Array, s: Array) -> tuple[Array, Array]:
        """Return points and weights of Gauss's rule from the first to the last node of a slice."""
        x = self.x[window]
        if len(x) == 1:
            return x, np.full(1, self.h)
        stretch = np.maximum(np.abs(np.gradient(m, self.h)), 1e-300)
        narrow = 1 / np.hypot(stretch / s, 1 / (_NARROWEST * self.h))
        # the shortest near by: a panel must not reach from where the noise is wide
        beside = np.minimum(np.append(narrow[1:], narrow[-1]), np.append(narrow[0], narrow[:-1]))
        near = np.maximum(np.minimum(narrow, beside), self.h * _SPACING / _FINEST)
        wanted = np.append(0.0, np.cumsum(0.5 * (1 / near[1:] + 1 / near[:-1])) * self.h / _PANEL)
        ends = np.interp(np.linspace(0, wanted[-1], math.ceil(wanted[-1]) + 1), wanted, x)
        half = 0.5 * np.diff(ends)[:, None]
        points = ends[:-1, None] + half * (1 + _GAUSS_X)
        return points.ravel(), (half * _GAUSS_W).ravel()

    def _folded(self, weight: Array, m: Array, s: Array, start: Array) -> Array:
        """Return Σ_i weight_i N(y; m_i, s_i²) at the nodes, with what the walls send back."""
        if self.conditions is None:
            return self._scattered(weight, m, s)
        n, (low, high) = len(self.x), self.conditions
        if low.absorbs and high.absorbs:
            return self._scattered(weight, m, s, start if self.bridges else None)
        over = max(self.x[0] - (m - REACH * s).min(), (m + REACH * s).max() - self.x[-1], 0.0)
        more = math.ceil(over / self.h)
        j = np.arange(-more, n + more)
        operator = TransitionOperator(self.x[0] + j * self.h)
        operator.bridges = self.bridges
        wide = operator._scattered(weight, m, s, start if self.bridges else None)
        if low.wraps:
            out = np.bincount(j % (n - 1), wide, minlength=n)
            out[-1] = out[0]
            return np.asarray(out)
        if low == high:
            j = j % (2 * (n - 1))
            j = np.minimum(j, 2 * (n - 1) - j)
        else:  # one mirror: what overshoots the other wall stays there
            j = np.abs(j) if low.reflects else n - 1 - np.abs(n - 1 - j)
        inside = (j >= 0) & (j < n)
        out = np.bincount(j[inside], wide[inside], minlength=n)
        # a mirror is its own image
        out[[end for end, wall in ((0, low), (n - 1, high)) if wall.reflects]] *= 2
        return np.asarray(out)

    def _scattered(self, weight: Array, m: Array, s: Array, start: Array | None = None) -> Array:
        """Return Σ_i weight_i N(y; m_i, s_i²) at every node y, each kernel as far as it reaches.

        Args:
            weight: Shape (k,).
            m: Means, shape (k,).
            s: Standard deviations, shape (k,).
            start: Where each comes from, shape (k,), where what touches a wall on the way is
                left out.
        """
        n = len(self.x)
        out = np.zeros(n)
        keep = (s > 0) & (m + REACH * s > self.x[0]) & (m - REACH * s < self.x[-1])
        weight, m, s = weight[keep], m[keep], s[keep]
        start = None if start is None else start[keep]
        if len(m) == 0:
            return out
        if len(m) > 1 and s.max() > _WIDER * s.min():
            # each as far as it reaches, not as far as the widest
            bands = np.floor(np.log2(s / s.min())).astype(np.int64)
            for band in np.unique(bands):
                some = bands == band
                begin = None if start is None else start[some]
                out += self._scattered(weight[some], m[some], s[some], begin)
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
            for wall in self.bridges if start is not None else ():
                begin = start[some, None]  # type: ignore[index]
                gaps = (begin - wall) * (self.x[at] - wall)
                value *= -np.expm1(-2 * np.maximum(gaps, 0.0) / s[some, None] ** 2)
            out += np.bincount(at.ravel(), value.ravel(), minlength=n)
        return out

    def mapped(self, p: Array, m: Array, window: slice) -> tuple[Array, Callable[..., Array]]:
        """Return p(x(y)) |dx/dy| for a noise-free step y = m(x), and x(y) within the image.

        Raises:
            ValueError: If the step is not one to one.
        """
        x, slope = self.x[window], np.diff(m)
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


def interpolation_loss(p: Array, *, cut: bool = False) -> float:
    """Return the loss of a spline of degree 7 through nodal values, between the nodes.

    Args:
        p: Values on uniform nodes, shape (n,), or (n, k) for the worst of k columns.
        cut: Whether p ends at the ends of the grid, as between walls, where it may vanish with a
            slope.
    """
    if cut or max(p[0].max(), p[-1].max()) > _CUT * p.max():
        # a spline does not mind where the grid ends, but a spectrum would see a jump there
        p = (p.T * np.kaiser(len(p), _TAPER)).T
    amplitude = np.abs(np.fft.rfft(p, axis=0)) * (2 / len(p))
    theta = np.arange(len(amplitude)) * (2 / len(p))
    return float((amplitude.T @ (2 * (theta / (2 - theta)) ** (DEGREE + 1))).max())


def normal(y: Array, mean: Array, std: Array | float) -> Array:
    """Return N(y; mean, std²), shape (len(y), len(mean))."""
    z = (y[:, None] - mean[None]) / std
    return np.asarray(np.exp(-0.5 * z * z) / (math.sqrt(2 * math.pi) * std))
