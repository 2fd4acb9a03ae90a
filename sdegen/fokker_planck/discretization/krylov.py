"""e^{tA} v for a large sparse matrix A, by Krylov subspaces.

    e^{τA} v ≈ β V_m e^{τH_m} e_1,    A V_m = V_m H_m + h v_{m+1} e_mᵀ

in steps τ that are as long as the error estimate of the subspace allows. Products with A are all
that is asked of it; of a diffusion their number grows like the root of what a Taylor series needs.

Reference:
    Saad 1992, SIAM J. Numer. Anal. 29, 209, section 5; Sidje 1998, ACM Trans. Math. Softw. 24,
    130, section 3.2, for the steps.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from scipy import sparse
from scipy.linalg import expm

from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization.arrays import Array

Matrix: TypeAlias = Array | sparse.sparray | sparse.spmatrix

_DIMENSION = 30
_LOOKS = (8, 13, 20)  # dimensions at which an error is estimated before
_SAFETY = 0.9
_LEAST = 1e-14  # of the time: a step that is shorter is none
_BREAKDOWN = 1e-14  # of the norm: the subspace holds all that A makes of v


def exponential_action(a: Matrix, v: Array, time: float, tolerance: float) -> Array:
    """Compute e^{time·A} v.

    Args:
        a: The matrix A.
        v: The vector, shape (n,).
        time: How long, ≥ 0.
        tolerance: Error allowed, relative to the norm of v, in all steps together.

    Raises:
        SolverError: If no step is short enough, or a value is not finite.
    """
    size = min(_DIMENSION, len(v))
    basis = np.empty((size + 1, len(v)))
    done, step, w = 0.0, time, v
    allowed = tolerance * float(np.linalg.norm(v))
    while done < time:
        norm = float(np.linalg.norm(w))
        if norm == 0.0:
            return w
        if not math.isfinite(norm):
            raise SolverError(f"the density is not finite at {done:g} after the step began.")
        step = min(step, time - done)
        allowed_rate = allowed / (norm * time)
        space = _Subspace(a, w / norm, basis, step, allowed_rate)
        while True:
            error, order = space.error(step)
            share = max(allowed_rate * step, 1e-300)
            if error <= 1.2 * share:
                break
            step *= min(0.5, max(0.1, _SAFETY * (share / error) ** (1 / order)))
            if not step > _LEAST * time:
                raise SolverError(
                    f"no step is short enough for e^(tA) over t = {time:g}; take shorter times."
                )
        w = norm * space.moved(step)
        done = time if step >= time - done else done + step
        step *= min(4.0, max(0.5, _SAFETY * (share / max(error, 1e-300)) ** (1 / order)))
    return w


class _Subspace:
    """A Krylov subspace, as large as a step asks for.

    Args:
        a: The matrix A.
        v: Its first vector, of norm 1.
        basis: Where its vectors are kept.
        step: How long a step is wanted.
        rate: The error allowed per time.
    """

    def __init__(self, a: Matrix, v: Array, basis: Array, step: float, rate: float) -> None:
        size = len(basis) - 1
        self._basis, self._h = basis, np.zeros((size + 2, size + 2))
        self._dimension, self._next, self._exact = 0, 0.0, False
        basis[0] = v
        for j in range(size):
            w = a @ basis[j]
            length = float(np.linalg.norm(w))
            if j in _LOOKS:
                self._dimension, self._next = j, length
                if self.error(step)[0] <= rate * step:
                    return
            for _ in range(2):  # twice is enough
                share = basis[: j + 1] @ w
                w -= share @ basis[: j + 1]
                self._h[: j + 1, j] += share
            rest = float(np.linalg.norm(w))
            if rest <= _BREAKDOWN * length or j + 1 == len(v):
                self._dimension, self._exact = j + 1, True
                return
            self._h[j + 1, j] = rest
            basis[j + 1] = w / rest
        self._dimension, self._next = size, float(np.linalg.norm(a @ basis[size]))

    def error(self, step: float) -> tuple[float, int]:
        """Estimate the error of a step, and the power of it that it grows with."""
        m = self._dimension
        if self._exact:
            return 0.0, m
        small = self._exponential(step)
        # two terms of the series of what the subspace misses
        first, second = abs(small[m, 0]), abs(small[m + 1, 0] * self._next)
        if first > 10 * second:
            return second, m
        if first > second:
            return first * second / (first - second), m
        return first, max(m - 1, 1)

    def moved(self, step: float) -> Array:
        """Return e^{step·A} v."""
        taken = self._dimension + (0 if self._exact else 1)
        return self._exponential(step)[:taken, 0] @ self._basis[:taken]

    def _exponential(self, step: float) -> Array:
        """Return the exponential of H, with two rows for what it misses."""
        m = self._dimension
        if self._exact:
            h = self._h[:m, :m]
        else:
            h = np.zeros((m + 2, m + 2))
            h[:m, :m], h[m, m - 1], h[m + 1, m] = self._h[:m, :m], self._h[m, m - 1], 1.0
        return np.asarray(expm(step * h))
