"""Selling's decomposition of a diffusion matrix into offsets between the nodes of a lattice.

    D = Σ_k ρ_k e_k e_kᵀ,    ρ_k ≥ 0,    e_k whole numbers, k = 1, 2, 3

A *superbase* is three vectors of whole numbers with v_0 + v_1 + v_2 = 0 and det(v_0, v_1) = ±1. It
is obtuse for D if v_iᵀ D v_j ≤ 0 for every pair; then ρ_k = −v_iᵀ D v_j, and e_k is v_k turned by
90°. Where a pair is acute, (−v_i, v_j, v_i − v_j) is shorter, so that a few such steps end at an
obtuse one. The ρ_k are continuous in D, and e_k is as short as √(ratio of D's eigenvalues).

Second derivatives Σ ρ_k ∂²/∂e_k² taken along the e_k then have no negative weight, whatever the
directions of D's axes: with them an operator is an M-matrix.

Reference:
    Selling 1874, J. reine angew. Math. 77, 143; Fehrenbach and Mirebeau 2014, J. Math. Imaging
    Vis. 49, 123, section 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdegen.fokker_planck.discretization.arrays import Array

Integers = NDArray[np.int64]

_PAIRS = ((1, 2, 0), (2, 0, 1), (0, 1, 2))  # two vectors of a superbase, and the third
_ACUTE = 1e-14  # of the trace: a product that is larger is positive
_MOST = 10_000  # steps; those of a ratio of 10⁶ are some 500


def decomposed(d: Array) -> tuple[Integers, Array]:
    """Return the offsets e_k and their weights ρ_k.

    Args:
        d: D_xx, D_xy and D_yy of positive matrices, in units of the cells, shape (n, 3).

    Returns:
        Offsets, shape (n, 3, 2); of e and −e the one that points to larger x, or to larger y along
        it. Weights ≥ 0, shape (n, 3).
    """
    first, mixed, second = d.T
    base = np.empty((len(d), 3, 2), dtype=np.int64)
    base[:] = (1, 0), (0, 1), (-1, -1)

    def product(i: int, j: int) -> Array:
        (ux, uy), (vx, vy) = base[:, i].T, base[:, j].T
        return np.asarray(first * ux * vx + mixed * (ux * vy + uy * vx) + second * uy * vy)

    for _ in range(_MOST):
        moved = False
        for i, j, k in _PAIRS:
            acute = product(i, j) > _ACUTE * (first + second)
            if acute.any():
                moved = True
                v, w = base[acute, i], base[acute, j]
                base[acute, i], base[acute, k] = -v, v - w
        if not moved:
            break
    weights = np.stack([-product(i, j) for i, j, _ in _PAIRS], 1)  # of the third
    offsets = np.stack([-base[..., 1], base[..., 0]], -1)
    behind = (offsets[..., 0] < 0) | ((offsets[..., 0] == 0) & (offsets[..., 1] < 0))
    offsets[behind] *= -1
    return offsets, np.maximum(weights, 0.0)
