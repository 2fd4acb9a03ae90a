"""Tridiagonal systems, real and complex, in batches, open or closed to a ring; with gradients.

A matrix is three bands, shape (..., 3, n):

    bands[..., 0, i] = A[i, i−1]     bands[..., 1, i] = A[i, i]     bands[..., 2, i] = A[i, i+1]

with indices modulo n. In an open matrix bands[..., 0, 0] and bands[..., 2, n−1] are corners that
do not exist, and are zero. Systems are solved by LAPACK's elimination with partial pivoting, one
after the other: on a CPU that is faster than cyclic reduction. A ring is an open system and a
correction of rank one (Sherman and Morrison). With y = A⁻¹b the gradients are b̄ = A⁻ᴴȳ and Ā =
−b̄ yᴴ on the bands.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdegen.fokker_planck import arrays
from sdegen.fokker_planck.arrays import AnyArray

__all__ = ["eliminate", "multiply", "solve", "transposed"]

Bands = Float[Tensor, "... 3 n"] | Complex[Tensor, "... 3 n"]
Vector = Float[Tensor, "... n"] | Complex[Tensor, "... n"]


def multiply(bands: AnyArray, y: AnyArray) -> AnyArray:
    """A y, shape (..., n), of tensors (..., 3, n) and (..., n), or of arrays."""
    around = arrays.of(y).concatenate([y[..., -1:], y, y[..., :1]], -1)
    lower, diagonal, upper = bands[..., 0, :], bands[..., 1, :], bands[..., 2, :]
    product: AnyArray = lower * around[..., :-2] + diagonal * y + upper * around[..., 2:]
    return product


def transposed(bands: Bands) -> Bands:
    """The bands of Aᵀ."""
    lower, diagonal, upper = bands.unbind(-2)
    return torch.stack([upper.roll(1, -1), diagonal, lower.roll(-1, -1)], -2)


def solve(bands: Bands, rhs: Vector) -> Vector:
    """A⁻¹ rhs; bands and rhs are of one dtype, and their batches broadcast."""
    batch = np.broadcast_shapes(bands.shape[:-2], rhs.shape[:-1])
    bands = bands.expand(*batch, *bands.shape[-2:])
    rhs = rhs.expand(*batch, rhs.shape[-1])
    if torch.is_grad_enabled() and (bands.requires_grad or rhs.requires_grad):
        solved: Tensor = _Solve.apply(bands, rhs)  # type: ignore[no-untyped-call]
        return solved
    return _eliminate(bands, rhs)


class _Context(Protocol):
    """What autograd keeps for the way back."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Solve(torch.autograd.Function):
    """y = A⁻¹ b."""

    @staticmethod
    def forward(ctx: _Context, bands: Tensor, rhs: Tensor) -> Tensor:
        y = _eliminate(bands, rhs)
        ctx.save_for_backward(bands, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        bands, y = ctx.saved_tensors
        grad_rhs = _eliminate(transposed(bands).conj(), grad)
        back = y.conj()
        grad_bands = -grad_rhs[..., None, :] * torch.stack(
            [back.roll(1, -1), back, back.roll(-1, -1)], -2
        )
        return grad_bands, grad_rhs


def _eliminate(bands: Tensor, rhs: Tensor) -> Tensor:
    """System by system."""
    a = bands.detach().resolve_conj().numpy()
    b = rhs.detach().resolve_conj().numpy()
    out = b.copy()
    for index in np.ndindex(b.shape[:-1]):
        out[index] = eliminate(a[index].copy(), out[index])
    return torch.from_numpy(out)


def eliminate(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """One system, open or a ring, by LAPACK's gtsv; a and b are overwritten.

    Args:
        a: Bands, shape (3, n).
        b: Right side, shape (n,), of the dtype of a.

    Returns:
        A⁻¹b, which may lie where b was.
    """
    gtsv = lapack.zgtsv if a.dtype.kind == "c" else lapack.dgtsv
    lower, diagonal, upper = a
    ours = (1, 1, 1, 1)  # all four may be overwritten
    if lower[0] == 0 and upper[-1] == 0:
        solved: NDArray[Any]
        *_, solved, info = gtsv(lower[1:], diagonal, upper[:-1], b, *ours)
        _check(info)
        return solved
    # A = T + u vᵀ, u = (γ, 0, …, A[n−1, 0]), v = (1, 0, …, A[0, n−1]/γ)
    gamma = -diagonal[0]
    corner = lower[0] / gamma
    diagonal[0] -= gamma
    diagonal[-1] -= upper[-1] * corner
    both = np.zeros((len(b), 2), dtype=a.dtype, order="F")
    both[:, 0], both[0, 1], both[-1, 1] = b, gamma, upper[-1]
    *_, y, info = gtsv(lower[1:], diagonal, upper[:-1], both, *ours)
    _check(info)
    v = y[0] + corner * y[-1]
    return np.asarray(y[:, 0] - v[0] / (1 + v[1]) * y[:, 1])


def _check(info: int) -> None:
    """A singular matrix is a mistake of ours: every system here is a shifted generator."""
    assert info == 0, f"tridiagonal elimination met a zero pivot in row {info}"
