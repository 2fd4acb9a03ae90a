"""Hermite functions of the velocity, in which friction is diagonal.

    ψ_n(v) = M(v) He_n(v/s)/√n!,    M = e^{−v²/2s²}/√(2π s²),    s² = θ/m

    v ψ_n = s (√(n+1) ψ_{n+1} + √n ψ_{n−1}),    ∂_v ψ_n = −√(n+1) ψ_{n+1}/s

A density p = Σ c_n ψ_n has c_n = ∫ p He_n(v/s)/√n! dv, and Σ c_n² = ∫ p²/M dv: one whose
velocities are as wide as √2 s or wider has no such series, and wants a larger θ.

Reference:
    Risken 1989, The Fokker–Planck Equation, section 10.1, eqs. (10.10)–(10.18).
"""

from __future__ import annotations

import numpy as np

from sdegen.fokker_planck.discretization.arrays import Array

_FAINT = 1e-150  # of M: roots that are divided by


def hermite(v: Array, s: float, count: int) -> tuple[Array, Array]:
    """Return ψ_n/√M at velocities, shape (count, velocities), and √M.

    >>> values, root = hermite(np.array([0.0]), 1.0, 3)
    >>> values[:, 0] / root  # He_n(0)/√n!: 1, 0, −1/√2
    array([ 1.        ,  0.        , -0.70710678])
    """
    z = v / s
    root = np.exp(-0.25 * z**2) / (2 * np.pi * s**2) ** 0.25
    values = np.zeros((count, len(v)))
    values[0] = root
    if count > 1:
        values[1] = z * root
    for n in range(1, count - 1):
        values[n + 1] = (z * values[n] - np.sqrt(n) * values[n - 1]) / np.sqrt(n + 1)
    return values, root


def coefficients(p: Array, v: Array, weights: Array, s: float, count: int) -> Array:
    """Return c_n of densities at velocities, shape (count, places).

    Args:
        p: Values, shape (places, velocities).
        v: Velocities.
        weights: Of an integral over them.
        s: Width of the Maxwell distribution.
        count: How many.
    """
    values, root = hermite(v, s, count)
    felt = root > _FAINT
    return (values * np.where(felt, weights / np.where(felt, root, 1.0), 0.0)) @ p.T
