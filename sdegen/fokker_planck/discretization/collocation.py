"""Collocation at Radau points: a long step of M(t) dp/dt = K(t) p, where time matters.

The step from t to t + h goes to the polynomial of degree s that satisfies the equation at s times
t + c_i h. With W = A⁻¹ of the Runge–Kutta matrix its values Y_i there obey

    Σ_j W_ij M_i Y_j − h K_i Y_i = (Σ_j W_ij) M_i p,    p′ = Y_s    (c_s = 1)

one banded system of s unknowns at each node. Of order 2s − 1, and L-stable: what is stiff is
damped, however long the step. Mass is kept in the lumped form, where M does not change.

Where M and K do not change, with the eigenvalues λ_k of W (V its eigenvectors) a step is

    p′ = 2 Re Σ c_k (λ_k M − h K)⁻¹ M p,    c_k = V_sk (V⁻¹ W 1)_k,    Im λ_k > 0

three tridiagonal systems. All λ_k lie on the right, where the inverse of a generator has a 1-norm
of at most 1/Re λ_k, however strong the drift. Some poles of `matrix_exponential.py` lie on the
left, where a strong drift amplifies rounding.

Reference:
    Hairer and Wanner 1996, Solving Ordinary Differential Equations II, section IV.5 (Radau IIA).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor

from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization import tridiagonal

Array = NDArray[Any]

_STAGES = 6
ORDER = 2 * _STAGES - 1
_WIDE = 2 * _STAGES - 1  # bands on either side
_TOLERANCE = 1e-10  # of the peak, of one of the steps that are chosen here
_HELD_TO = 10  # the order that they are chosen by: stiffness leaves less than all of it
_FIRST = 1 / 16  # of the time: the first of them
_MOST_STEPS = 100_000


def _radau() -> tuple[Array, Array]:
    """Return the nodes c and W = A⁻¹ of Radau IIA."""
    basis = np.polynomial.legendre.Legendre.basis
    roots = (basis(_STAGES) - basis(_STAGES - 1)).roots().real
    c = 0.5 * (1 + np.sort(roots))
    c[-1] = 1.0
    powers = np.arange(_STAGES)
    integrals = c[:, None] ** (powers + 1) / (powers + 1)
    return c, np.linalg.inv(integrals @ np.linalg.inv(c[:, None] ** powers))


NODES, _W = _radau()
_W_SUMS, _W_THRICE = _W.sum(1)[:, None], np.tile(_W.T, 3)


def _fractions() -> tuple[Complex[Tensor, " poles"], Complex[Tensor, " poles"]]:
    """Return λ_k and 2 c_k of the eigenvalues above the axis."""
    values, vectors = np.linalg.eig(_W)
    factors = vectors[-1] * np.linalg.solve(vectors, _W.sum(1))
    above = values.imag > 0  # s is even: none is real
    return torch.from_numpy(values[above]), torch.from_numpy(2 * factors[above])


_POLES, _FACTORS = _fractions()


def workspace(nodes: int) -> Array:
    """Return memory for steps on so many unknowns: fetching new pages takes as long as a step."""
    return np.empty((nodes, _STAGES, 3 * _WIDE + 1))


def collocated(mass: Array, rates: Array, h: float, p: Array, bands: Array | None = None) -> Array:
    """Return the unknowns after a step of length h.

    Args:
        mass: Bands of M at the nodes of the step, shape (stages, 3, n), or (3, n) for one M.
        rates: Bands of K there, shape (stages, 3, n).
        h: Length of the step, > 0.
        p: Unknowns before it, shape (n,).
        bands: A `workspace`, which is overwritten; None for a new one.

    Returns:
        Shape (n,).
    """
    s, n, wide = _STAGES, p.shape[-1], _WIDE
    mass = np.broadcast_to(mass, rates.shape)
    load = tridiagonal.multiply(mass, p) * _W_SUMS
    corners = None
    if rates[:, 0, 0].any() or rates[:, 2, -1].any():  # a ring
        corners = _corner(mass, rates, h, 0, 0), _corner(mass, rates, h, 2, -1)
    # LAPACK's banded layout, column by column: a column holds 3 s numbers in a row, and begins
    # one place earlier than that before it
    bands = workspace(n) if bands is None else bands
    bands[:, :, wide : wide + s - 1] = bands[:, :, 1 - s :] = 0.0
    step, number = bands.strides[1], bands.itemsize
    start, node = bands[:, :, 2 * wide - s :], bands.strides[0]
    strided = np.lib.stride_tricks.as_strided
    columns = strided(start, (n, s, 3 * s), (node, step - number, number))
    diagonal = strided(start, (n, s, 3), (node, step, s * number))
    np.multiply(_by_column(mass), _W_THRICE, out=columns)
    rates = h * rates
    diagonal[1:, :, 0] -= rates[:, 2, :-1].T
    diagonal[:, :, 1] -= rates[:, 1].T
    diagonal[:-1, :, 2] -= rates[:, 0, 1:].T
    band_matrix = bands.reshape(n * s, -1).T
    right = load.T.reshape(n * s, 1)
    if corners is None:
        y = _solved(wide, band_matrix, right)
        return np.ascontiguousarray(y.reshape(n, s)[:, -1])
    # a ring is the open system A less the corners: A y = b − e₁ C₁ y_n − e_n C_n y₁
    sides = np.zeros((n * s, 1 + 2 * s))
    sides[:, :1] = right
    sides[:s, 1 : 1 + s], sides[-s:, 1 + s :] = corners
    z = _solved(wide, band_matrix, sides)
    first, last = z[:s], z[-s:]
    ends = np.concatenate([last, first])  # y_n, y₁
    unknown = np.linalg.solve(np.eye(2 * s) + ends[:, 1:], ends[:, 0])
    y = z[:, 0] - z[:, 1:] @ unknown
    return np.ascontiguousarray(y.reshape(n, s)[:, -1])


def walked(
    mass: Float[Tensor, "3 n"], rates: Float[Tensor, "3 n"], dt: float, p: Tensor
) -> tuple[Float[Tensor, " n"], int]:
    """Return e^{dt M⁻¹K} p by steps that choose their length, and how many they were.

    Args:
        mass: Bands of M.
        rates: Bands of K.
        dt: Time, > 0.
        p: Unknowns, which the grid resolves or nearly so: others take many steps.

    Raises:
        SolverError: If 100,000 steps are not enough.
    """
    left, h = dt, _FIRST * dt
    for count in range(1, _MOST_STEPS + 1):
        h = min(h, left)
        with torch.no_grad():
            once = _stepped(mass, rates, h, p)
            twice = _stepped(mass, rates, 0.5 * h, _stepped(mass, rates, 0.5 * h, p))
            peak = twice.abs().max().clamp(min=math.ulp(0.0))
            apart = float((once - twice).abs().max() / peak)
        error = apart / (2**_HELD_TO / 4)
        ideal = h * min(3.0, max(0.2, 0.9 * (_TOLERANCE / max(error, 1e-300)) ** (1 / _HELD_TO)))
        if error <= _TOLERANCE:
            if torch.is_grad_enabled():  # lengths of steps have no gradients
                twice = _stepped(mass, rates, 0.5 * h, _stepped(mass, rates, 0.5 * h, p))
            p, left = twice, left - h
            if left <= 1e-14 * dt:
                return p, count
        h = ideal
    raise SolverError(
        f"{_MOST_STEPS} steps did not carry the density over dt = {dt:g}: {left:.3g} is left. The "
        "drift is strong beside the noise; take shorter times."
    )


def _stepped(mass: Tensor, rates: Tensor, h: float, p: Tensor) -> Tensor:
    """Return one step where M and K do not change."""
    load = tridiagonal.multiply(mass, p)
    systems = _POLES[:, None, None] * mass - h * rates
    return tridiagonal.solve(systems, _FACTORS[:, None] * load).real.sum(0)


def _by_column(bands: Array) -> Array:
    """Return the columns of tridiagonal matrices, downward: shape (n, 1, 3 · stages)."""
    out = np.zeros((bands.shape[-1], 3, bands.shape[0]))
    out[1:, 0] = bands[:, 2, :-1].T
    out[:, 1] = bands[:, 1].T
    out[:-1, 2] = bands[:, 0, 1:].T
    return out.reshape(len(out), 1, -1)


def _corner(mass: Array, rates: Array, h: float, band: int, row: int) -> Array:
    """Return the block of a ring's system beyond its bands, shape (stages, stages)."""
    return np.asarray(_W * mass[:, band, row, None] - h * np.diag(rates[:, band, row]))


def _solved(wide: int, matrix: Array, right: Array) -> Array:
    """Solve a banded system, and overwrite its arrays."""
    *_, y, info = lapack.dgbsv(wide, wide, matrix, right, overwrite_ab=1, overwrite_b=1)
    assert info == 0, f"a collocation system met a zero pivot in row {info}"
    return np.asarray(y)
