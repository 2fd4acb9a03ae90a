"""Noise coordinates: the frame M in which one step of Euler's chain has the noise z ~ N(0, I).

    X_{k+1} = X_k + h f(X_k, t_k) + √h M(X_k, t_k) z,        M Mᵀ = G Gᵀ

Diagonal noise is its own frame, M = diag(g). Channels have the Cholesky factor of G Gᵀ, which is
the same noise in law with one number for each coordinate: a target asks for M⁻¹.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sdegen.core.channels import noise_matrix
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time

_SINGULAR = 1e-6  # of the largest strength of noise, below which a direction has none


class Frame(ABC):
    """M at some states, shape (batch, *event) for what it acts on."""

    @abstractmethod
    def times(self, c: State) -> State:
        """Return M c."""

    @abstractmethod
    def transposed_times(self, c: State) -> State:
        """Return Mᵀ c."""

    @abstractmethod
    def inverse_times(self, c: State) -> State:
        """Return M⁻¹ c."""

    @abstractmethod
    def inverse_transposed_times(self, c: State) -> State:
        """Return M⁻ᵀ c."""


class DiagonalFrame(Frame):
    """M = diag(g).

    Args:
        g: Broadcastable to a state, nowhere 0.
    """

    def __init__(self, g: Tensor) -> None:
        self.g = g

    def times(self, c: State) -> State:
        """Return g c."""
        return c * self.g

    def transposed_times(self, c: State) -> State:
        """Return g c."""
        return c * self.g

    def inverse_times(self, c: State) -> State:
        """Return c/g."""
        return c / self.g

    def inverse_transposed_times(self, c: State) -> State:
        """Return c/g."""
        return c / self.g


class MatrixFrame(Frame):
    """M, a lower triangular matrix.

    Args:
        L: Shape (batch or 1, d, d), for events of d numbers.
    """

    def __init__(self, L: Tensor) -> None:
        self.L = L

    def times(self, c: State) -> State:
        """Return L c."""
        return _product(self.L, c)

    def transposed_times(self, c: State) -> State:
        """Return Lᵀ c."""
        return _product(self.L.mT, c)

    def inverse_times(self, c: State) -> State:
        """Return L⁻¹ c."""
        return _solution(self.L, c, upper=False)

    def inverse_transposed_times(self, c: State) -> State:
        """Return L⁻ᵀ c."""
        return _solution(self.L.mT, c, upper=True)


def frame_of(sde: SDE, x: State, t: Time) -> Frame:
    """Return the frame of the noise at some states.

    Args:
        sde: Dynamics whose noise is diagonal or has channels.
        x: States, shape (batch, *event).
        t: Time, 0-d.

    Raises:
        ValueError: If G Gᵀ is singular at one of them.
    """
    if sde.channels is None:
        g = sde.diffusion(x, t).to(x) if sde.constant_noise is None else None
        g = x.new_full((), sde.constant_noise or 0.0) if g is None else g
        if _is_singular(g.detach().abs() if g.ndim else g.detach().abs()[None]):
            raise _singular(sde, t)
        return DiagonalFrame(g)
    G = noise_matrix(sde, x[:1] if sde.noise == "additive" else x, t).to(x)
    L, info = torch.linalg.cholesky_ex(G @ G.mT)
    strengths = L.detach().diagonal(0, 1, 2)
    if bool((info > 0).any()) or _is_singular(strengths):
        raise _singular(sde, t)
    return MatrixFrame(L)


def _is_singular(strengths: Tensor) -> bool:
    """Return whether a direction of a state has hardly any noise beside the others.

    Args:
        strengths: Of each direction, shape (batch, …) or one for all.
    """
    flat = strengths.flatten(1) if strengths.ndim > 1 else strengths[:, None]
    return bool((flat.amin(1) <= _SINGULAR * flat.amax(1)).any())


def _singular(sde: SDE, t: Time) -> ValueError:
    """Return what is said of noise that leaves a direction without any."""
    name = type(sde).__name__
    return ValueError(
        f"the noise of {name} leaves a direction without any at t = {float(t):g}: G Gᵀ is "
        "singular, and a window of a path has no density in its end. A target needs noise in "
        "every coordinate; a linear process has a Gaussian kernel, LinearSDE(A, B), which needs "
        "no target."
    )


def _product(M: Tensor, c: State) -> State:
    """Return M c for matrices (batch or 1, d, d)."""
    flat = c.flatten(1)
    one: Tensor = (
        flat @ M[0].mT if len(M) == 1 else torch.matmul(M, flat.unsqueeze(-1)).squeeze(-1)
    )
    return one.reshape(c.shape)


def _solution(M: Tensor, c: State, *, upper: bool) -> State:
    """Return M⁻¹ c for triangular matrices (batch or 1, d, d)."""
    flat = c.flatten(1)
    if len(M) == 1:
        solved = torch.linalg.solve_triangular(M[0], flat.mT, upper=upper).mT
    else:
        solved = torch.linalg.solve_triangular(M, flat.unsqueeze(-1), upper=upper).squeeze(-1)
    result: State = solved.reshape(c.shape)
    return result
