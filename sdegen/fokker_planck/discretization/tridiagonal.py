"""Tridiagonal systems, real and complex, in batches, open or closed to a ring; with gradients.

A matrix is three bands, shape (..., 3, n):

    bands[..., 0, i] = A[i, i−1]     bands[..., 1, i] = A[i, i]     bands[..., 2, i] = A[i, i+1]

with indices modulo n. In an open matrix bands[..., 0, 0] and bands[..., 2, n−1] are corners that
do not exist, and are zero. Systems are solved by LAPACK's elimination with partial pivoting, row
by row: on a CPU that is faster than cyclic reduction. A ring is an open system and a
correction of rank one (Sherman and Morrison). With y = A⁻¹b the gradients are b̄ = A⁻ᴴȳ and Ā =
−b̄ yᴴ on the bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdegen.fokker_planck.discretization import arrays
from sdegen.fokker_planck.discretization.arrays import AnyArray

Bands = Float[Tensor, "... 3 n"] | Complex[Tensor, "... 3 n"]
Vector = Float[Tensor, "... n"] | Complex[Tensor, "... n"]


def multiply(bands: AnyArray, y: AnyArray) -> AnyArray:
    """Return A y, shape (..., n), of tensors (..., 3, n) and (..., n), or of arrays."""
    around = arrays.of(y).concatenate([y[..., -1:], y, y[..., :1]], -1)
    lower, diagonal, upper = bands[..., 0, :], bands[..., 1, :], bands[..., 2, :]
    product: AnyArray = lower * around[..., :-2] + diagonal * y + upper * around[..., 2:]
    return product


def transposed(bands: Bands) -> Bands:
    """Return the bands of Aᵀ."""
    lower, diagonal, upper = bands.unbind(-2)
    return torch.stack([upper.roll(1, -1), diagonal, lower.roll(-1, -1)], -2)


def neighbours(y: Vector) -> Bands:
    """Return what the bands of a row meet: y_{i−1}, y_i and y_{i+1}."""
    return torch.stack([y.roll(1, -1), y, y.roll(-1, -1)], -2)


def solve(bands: Bands, rhs: Vector) -> Vector:
    """Return A⁻¹ rhs; bands and rhs are of one dtype, and their batches broadcast."""
    batch = np.broadcast_shapes(bands.shape[:-2], rhs.shape[:-1])
    bands = bands.expand(*batch, *bands.shape[-2:])
    rhs = rhs.expand(*batch, rhs.shape[-1])
    if torch.is_grad_enabled() and (bands.requires_grad or rhs.requires_grad):
        solved: Tensor = _Solve.apply(bands, rhs)  # type: ignore[no-untyped-call]
        return solved
    return _eliminate(bands, rhs)


class Context(Protocol):
    """What autograd keeps for the way back."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors."""


class _Solve(torch.autograd.Function):
    """y = A⁻¹ b."""

    @staticmethod
    def forward(ctx: Context, bands: Tensor, rhs: Tensor) -> Tensor:
        y = _eliminate(bands, rhs)
        ctx.save_for_backward(bands, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        bands, y = ctx.saved_tensors
        grad_rhs = _eliminate(transposed(bands).conj(), grad)
        return -grad_rhs[..., None, :] * neighbours(y.conj()), grad_rhs


def _eliminate(bands: Tensor, rhs: Tensor) -> Tensor:
    """Solve a batch of systems as one."""
    a = bands.detach().resolve_conj().numpy()
    b = rhs.detach().resolve_conj().numpy()
    rows = a.shape[-1]
    by_band = np.moveaxis(a.reshape(-1, 3, rows), 1, 0).copy()
    return torch.from_numpy(eliminate(by_band, b.reshape(-1, rows).copy()).reshape(b.shape))


def eliminate(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Solve the systems, open or rings, by one call of LAPACK's gtsv; a and b are overwritten.

    Side by side they are one open system, whose blocks do not touch: the corners between them are
    zero.

    Args:
        a: Bands, shape (3, systems, n), contiguous.
        b: Right sides, shape (systems, n), contiguous, of the dtype of a.

    Returns:
        A⁻¹b of each, which may lie where b was.
    """
    gtsv = lapack.zgtsv if a.dtype.kind == "c" else lapack.dgtsv
    ring = _opened(a)
    lower, diagonal, upper = a.reshape(3, -1)
    load = b.reshape(-1) if ring is None else np.stack([b.reshape(-1), ring.u.reshape(-1)]).T
    ours = (1, 1, 1, 1)  # all four may be overwritten
    *_, solved, info = gtsv(lower[1:], diagonal, upper[:-1], load, *ours)
    _check(info)
    if ring is None:
        return np.asarray(solved).reshape(b.shape)
    y, w = np.asarray(solved).T.reshape(2, *b.shape)
    return ring.closed(y, w)


class Factors:
    """Systems, open or rings, factorised once by LAPACK's gttrf, for many right sides.

    The same arithmetic as that of `eliminate`.

    Args:
        a: Bands, shape (3, systems, n), contiguous; they are overwritten.
    """

    def __init__(self, a: NDArray[Any]) -> None:
        factorize, self._solve = lapack.get_lapack_funcs(("gttrf", "gttrs"), (a,))
        self._ring = _opened(a)
        lower, diagonal, upper = a.reshape(3, -1)
        *self._factors, info = factorize(lower[1:], diagonal, upper[:-1])
        _check(info)
        self._w = None if self._ring is None else self._open(self._ring.u)

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Return A⁻¹b of each, shape (systems, n); b is overwritten."""
        y = self._open(b)
        return y if self._ring is None or self._w is None else self._ring.closed(y, self._w)

    def _open(self, b: NDArray[Any]) -> NDArray[Any]:
        """Solve the open systems for b."""
        solved, info = self._solve(*self._factors, b.reshape(-1), overwrite_b=1)
        _check(info)
        return np.asarray(solved).reshape(b.shape)


@dataclass(frozen=True, eq=False)
class _Ring:
    """Rings A = T + u vᵀ with T open, u = (γ, 0, …, A[n−1, 0]), v = (1, 0, …, corner).

    Args:
        u: Shape (systems, n).
        corner: A[0, n−1]/γ, shape (systems,).
    """

    u: NDArray[Any]
    corner: NDArray[Any]

    def closed(self, y: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
        """Return A⁻¹b from y = T⁻¹b and w = T⁻¹u."""
        of_y, of_w = (v[:, 0] + self.corner * v[:, -1] for v in (y, w))
        return np.asarray(y - (of_y / (1 + of_w))[:, None] * w)


def _opened(a: NDArray[Any]) -> _Ring | None:
    """Open rings in place, T = A − u vᵀ; None where all systems are open."""
    first, last = a[0, :, 0].copy(), a[2, :, -1].copy()
    if np.count_nonzero(first) == 0 == np.count_nonzero(last):
        return None
    u = np.zeros_like(a[1])
    u[:, 0], u[:, -1] = -a[1, :, 0], last
    corner = first / u[:, 0]
    a[1, :, 0] -= u[:, 0]
    a[1, :, -1] -= last * corner
    a[0, :, 0] = a[2, :, -1] = 0
    return _Ring(u, corner)


def _check(info: int) -> None:
    """Raise at a singular matrix, a mistake of ours: every system is a shifted generator."""
    assert info == 0, f"tridiagonal elimination met a zero pivot in row {info}"
