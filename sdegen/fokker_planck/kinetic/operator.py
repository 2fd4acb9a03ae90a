"""The kinetic operator in Hermite functions of v and splines of x.

    p_t = −v p_x − (F/m) p_v + γ ∂_v(v p + (T/m) p_v)

With p = w(x) Σ h_n(x, t) ψ_n(v), where ψ_n has a width s = √(θ/m) and w = e^{−U/θ},

    ∂_t h_n = −s √n ∂_x h_{n−1} − s √(n+1) (∂_x + F/θ) h_{n+1} − γ n h_n
              − γ (1 − T/θ) √(n(n−1)) h_{n−2}

and −(∂_x + F/θ) is adjoint to ∂_x in the scalar product of w. Even h_n are in V, odd ones in W
(`splines`), and the equations hold in weak form, in that product, so that for θ = T

    ⟨h, A h⟩_w = −Σ n ⟨h_n, γ h_n⟩_w

holds to rounding: streaming, and the force, dissipate nothing. There is no numerical friction;
what the finite number of functions leaves out is told by half as many. h_0 = 1 is at rest and mass
is kept, both to rounding. Where the natural boundary terms are left out, odd h_n vanish at the
ends in the weak sense, which is p(x, v) = p(x, −v): particles bounce.

The weight need not be that of U: what it leaves of the force, f = F + θ (log w)', goes into the
equations as it is, as a tilt of a ring must, and the ends of a landscape of more than 600 θ.

Reference:
    Risken 1989, section 10.1, eq. (10.21), for the coupled equations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.kinetic.hermite import hermite
from sdegen.fokker_planck.kinetic.splines import Splines

_DEEPEST = 600.0  # of θ: what a weight reaches down
_TILTED = 1e-12  # of the range of U: a drop around a ring that is rounding


@dataclass(frozen=True)
class Particle:
    """What an underdamped particle of one coordinate feels.

    Args:
        energy: U at positions, shape of them.
        force: F = −U'.
        friction: γ.
        temperature: T.
        mass: m.
    """

    energy: Callable[[Array], Array]
    force: Callable[[Array], Array]
    friction: Callable[[Array], Array]
    temperature: float
    mass: float


class KineticOperator:
    """A and its mass matrix, M ∂_t h = A h, on splines and a number of Hermite functions.

    Args:
        particle: What moves.
        splines: The spaces of the position.
        count: How many Hermite functions.
        theta: θ, the temperature of the weight and of the Hermite functions.

    Attributes:
        matrix: A.
        mass: M.
        slowest: The slower of friction and crossing the grid, in units of 1/time.
    """

    def __init__(self, particle: Particle, splines: Splines, count: int, theta: float) -> None:
        self.splines: Splines = splines
        self.count: int = count
        self.theta: float = theta
        self.s: float = float(np.sqrt(theta / particle.mass))
        x, shift = splines.points, splines.nodes
        self._tilt = _tilt(particle, shift) if splines.ring else 0.0
        self._energy = particle.energy
        self._lowest = float(self._landscape(x).min())
        weight, force = self.weight(x), particle.force(x)
        own = np.where(
            self._landscape(x) - self._lowest < _DEEPEST * theta, force - self._tilt, 0.0
        )
        even, odd, slope = splines.even(x), splines.odd(x), splines.slope(x)
        inner = splines.weights * weight
        square = [np.sqrt(b.power(2).T @ inner) for b in (even, odd)]
        self.even_scale: Any
        self.odd_scale: Any
        self.even_scale, self.odd_scale = (1.0 / np.maximum(q, 1e-300) for q in square)
        even, slope = (b @ sparse.diags_array(self.even_scale) for b in (even, slope))
        odd = odd @ sparse.diags_array(self.odd_scale)
        self.masses: Any = inner @ even

        def product(
            left: sparse.csr_array, factor: Array, right: sparse.csr_array
        ) -> sparse.csr_array:
            return sparse.csr_array(left.T @ sparse.diags_array(inner * factor) @ right)

        one, gamma = np.ones(len(x)), particle.friction(x)
        crossing = self.s / float(x[-1] - x[0])
        self.slowest: float = min(float(gamma.mean()), crossing)
        rise = product(odd, one, slope)
        fall = rise + product(odd, own / theta, even)
        rest = product(odd, (force - own) / theta, even)
        self._assemble(
            [product(b, gamma, b) for b in (even, odd)],
            (rise - rest, rise.T, fall, (fall + rest).T),
            1.0 - particle.temperature / theta,
        )
        evens, odds = (count + 1) // 2, count // 2
        self.sizes: tuple[int, int, int, int] = evens, even.shape[1], odds, odd.shape[1]
        self._gram = [product(b, one, b).tocsc() for b in (even, odd)]
        grams = zip((evens, odds), self._gram, strict=True)
        self.mass: sparse.csc_array = sparse.block_diag(
            [sparse.kron(sparse.eye_array(n), gram) for n, gram in grams], format="csc"
        )

    def _assemble(
        self,
        friction: list[sparse.csr_array],
        streaming: tuple[sparse.csr_array, ...],
        hotter: float,
    ) -> None:
        """Make A of the matrices of the position, even functions first."""
        n = np.arange(self.count)
        root = np.sqrt(n)
        lower = sparse.diags_array(root[1:], offsets=-1, shape=(self.count,) * 2).tocsr()
        upper = lower.T.tocsr()
        decay = sparse.diags_array(n.astype(float)) + hotter * (lower @ lower)
        decay = decay.tocsr()
        up, up_t, down, down_t = streaming
        s, e, o = self.s, slice(0, None, 2), slice(1, None, 2)
        self.matrix: sparse.csc_array = sparse.block_array(
            [
                [
                    -sparse.kron(decay[e, e], friction[0]),
                    s * (sparse.kron(lower[e, o], down_t) + sparse.kron(upper[e, o], up_t)),
                ],
                [
                    -s * (sparse.kron(lower[o, e], up) + sparse.kron(upper[o, e], down)),
                    -sparse.kron(decay[o, o], friction[1]),
                ],
            ],
            format="csc",
        )

    def weight(self, x: Array) -> Array:
        """Return w at positions, at most 1."""
        drop = (self._landscape(x) - self._lowest) / self.theta
        return np.asarray(np.exp(-np.clip(drop, None, _DEEPEST)))

    def _landscape(self, x: Array) -> Array:
        """Return U, without the tilt of a ring."""
        return np.asarray(self._energy(x) + self._tilt * (x - self.splines.nodes[0]))

    def coefficients(self, h: Array, x: Array) -> Array:
        """Return w h_n at positions, shape (count, positions)."""
        evens, even_size, odds, odd_size = self.sizes
        values = np.empty((self.count, len(x)), dtype=h.dtype)
        split = evens * even_size
        even = self.splines.even(x) @ sparse.diags_array(self.even_scale)
        odd = self.splines.odd(x) @ sparse.diags_array(self.odd_scale)
        values[::2] = (even @ h[:split].reshape(evens, even_size).T).T
        values[1::2] = (odd @ h[split:].reshape(odds, odd_size).T).T
        return np.asarray(values * self.weight(x))

    def density(self, h: Array, x: Array, v: Array) -> Array:
        """Return p at positions and velocities, shape (positions, velocities)."""
        values, root = hermite(v, self.s, self.count)
        return np.asarray(self.coefficients(h, x).T @ (values * root))

    def moments(self, c: Array) -> Array:
        """Return M h of coefficients c_n at the Gauss points, shape (count, points)."""
        x, weights = self.splines.points, self.splines.weights
        even = self.splines.even(x) @ sparse.diags_array(self.even_scale)
        odd = self.splines.odd(x) @ sparse.diags_array(self.odd_scale)
        parts = [even.T @ (weights * c[::2]).T, odd.T @ (weights * c[1::2]).T]
        return np.concatenate([part.T.ravel() for part in parts])

    def solve_mass(self, moments: Array) -> Array:
        """Return h of M h."""
        evens, even_size, odds, _ = self.sizes
        split, parts = evens * even_size, []
        for rows, count, factors in zip(
            (moments[:split], moments[split:]), (evens, odds), self._factors, strict=True
        ):
            parts.append(factors.solve(rows.reshape(count, -1).T).T.ravel())
        return np.concatenate(parts)

    @cached_property
    def _factors(self) -> list[SuperLU]:
        """Factors of the mass matrices of both spaces."""
        return [splu(gram) for gram in self._gram]

    @property
    def equilibrium(self) -> Array:
        """h of the Boltzmann density of θ, h_0 = 1/∫ w; where it is at rest A h is 0."""
        evens, even_size, odds, odd_size = self.sizes
        h = np.zeros(evens * even_size + odds * odd_size)
        h[:even_size] = 1.0 / self.even_scale  # splines add up to 1
        return np.asarray(h / (self.masses @ h[:even_size]))

    def total(self, h: Array) -> float:
        """Return ∫∫ p."""
        return float(self.masses @ h[: self.sizes[1]])


def _tilt(particle: Particle, nodes: Array) -> float:
    """Return the mean force around a ring."""
    ends = particle.energy(nodes[[0, -1]])
    range_ = float(np.ptp(particle.energy(nodes)))
    drop = float(ends[0] - ends[1])
    return 0.0 if abs(drop) <= _TILTED * range_ else drop / float(nodes[-1] - nodes[0])
