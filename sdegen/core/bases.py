"""Bases: orthonormal, real, and fast to go to: where a process is diagonal.

    y = Q x,        Q Qᵀ = I,        x = Qᵀ y

A mode is one row of Q. White noise is white in every such basis, so that a process of which each
mode moves by itself, dy_k = −r_k y_k dt + g_k dW_k, is as easy as one number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.shapes import State


class Basis(ABC):
    """A real orthonormal basis of states (batch, *event)."""

    @abstractmethod
    def to_modes(self, x: State) -> State:
        """Return Q x, shape of x."""

    @abstractmethod
    def from_modes(self, y: State) -> State:
        """Return Qᵀ y, shape of y."""


@dataclass(frozen=True)
class Coordinates(Basis):
    """The coordinates themselves, Q = I."""

    def to_modes(self, x: State) -> State:
        """Return x."""
        return x

    def from_modes(self, y: State) -> State:
        """Return y."""
        return y


@dataclass(frozen=True)
class _OfAxes(Basis):
    """A basis that is a product of one for each of the last axes.

    Args:
        dims: How many of the last axes it is of, ≥ 1; what stands before them, such as channels,
            is left alone.
    """

    dims: int = 1

    def __post_init__(self) -> None:
        check_count("dims", self.dims)

    @staticmethod
    @abstractmethod
    def axis(n: int) -> Tensor:
        """Return Q of one axis of n numbers, shape (n, n), float64."""

    @staticmethod
    @abstractmethod
    def eigenvalues(n: int) -> Tensor:
        """Return those of −Δ, Δ x_j = x_{j+1} − 2 x_j + x_{j−1}, of each mode, shape (n,)."""

    def laplacian(self, shape: tuple[int, ...]) -> Tensor:
        """Return the eigenvalues of −Δ, nearest neighbours, of each mode; `shape` of the axes."""
        total = torch.zeros((), dtype=torch.float64)
        for n in shape:
            total = total[..., None] + self.eigenvalues(n)
        return total

    def to_modes(self, x: State) -> State:
        """Return Q x along each of the last axes."""
        for a in range(self.dims):
            x = (x.movedim(-1 - a, -1) @ _matrix(type(self), x, x.shape[-1 - a]).T).movedim(
                -1, -1 - a
            )
        return x

    def from_modes(self, y: State) -> State:
        """Return Qᵀ y along each of the last axes."""
        for a in range(self.dims):
            y = (y.movedim(-1 - a, -1) @ _matrix(type(self), y, y.shape[-1 - a])).movedim(
                -1, -1 - a
            )
        return y


class Cosines(_OfAxes):
    """The discrete cosine transform (DCT-II) of the last axes: walls that let nothing through.

    Q_kj = √((2 − δ_k0)/n) cos(π k (j + ½)/n)

    Reference:
        Strang 1999, SIAM Review 41, 135, section 3.
    """

    @staticmethod
    def axis(n: int) -> Tensor:
        """Return Q of n numbers, shape (n, n)."""
        k = torch.arange(n, dtype=torch.float64)
        rows = torch.cos(math.pi * k[:, None] * (k + 0.5) / n) * math.sqrt(2 / n)
        rows[0] /= math.sqrt(2)
        return rows

    @staticmethod
    def eigenvalues(n: int) -> Tensor:
        """Return 4 sin²(πk/2n)."""
        k = torch.arange(n, dtype=torch.float64)
        return 4 * torch.sin(0.5 * math.pi * k / n).square()


class Waves(_OfAxes):
    """Sines and cosines of a periodic lattice, along the last axes.

    Mode 0 is 1/√n, modes 2q − 1 and 2q are √(2/n) cos and sin of 2πqj/n; of an even n the last one
    is (−1)ʲ/√n.
    """

    @staticmethod
    def axis(n: int) -> Tensor:
        """Return Q of n numbers, shape (n, n)."""
        j = torch.arange(n, dtype=torch.float64)
        rows = [torch.full_like(j, math.sqrt(1 / n))]
        for q in range(1, (n + 1) // 2):
            angle = 2 * math.pi * ((q * j) % n) / n
            rows += [math.sqrt(2 / n) * angle.cos(), math.sqrt(2 / n) * angle.sin()]
        if n % 2 == 0:
            rows.append(math.sqrt(1 / n) * (1 - 2 * (j % 2)))
        return torch.stack(rows)

    @staticmethod
    def eigenvalues(n: int) -> Tensor:
        """Return 4 sin²(πq/n), with q = 0, 1, 1, 2, 2 and so on."""
        q = (torch.arange(n) + 1) // 2
        return 4 * torch.sin(math.pi * q.double() / n).square()


@dataclass(frozen=True, eq=False)
class Eigenvectors(Basis):
    """A basis of one's own, for events whose numbers are read in a row.

    Args:
        rows: Q, shape (d, d).
    """

    rows: Tensor

    def to_modes(self, x: State) -> State:
        """Return Q x."""
        return (x.flatten(1) @ self.rows.T.to(x)).reshape(x.shape)

    def from_modes(self, y: State) -> State:
        """Return Qᵀ y."""
        return (y.flatten(1) @ self.rows.to(y)).reshape(y.shape)


def _matrix(kind: type[_OfAxes], x: Tensor, n: int) -> Tensor:
    """Return Q of one axis in the dtype and place of x."""
    return _made(kind, n, x.dtype, x.device)


@cache
def _made(kind: type[_OfAxes], n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return Q, made once."""
    with torch.inference_mode(False):
        return kind.axis(n).to(device=device, dtype=dtype)
