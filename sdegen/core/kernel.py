"""Gaussian kernels of linear SDEs, and what a sampler knows of reverse dynamics.

    X_t | X_0 ~ N(Φ(t) X_0 + m(t), L(t) L(t)ᵀ),        x_t = Φ X_0 + m + L ε,        ε ~ N(0, I)

The score of p_t follows from the noise in the state, ∇ log p_t(x_t) = −L⁻ᵀ E[ε | x_t]. For a
`Kernel` Φ = α(t) and L = σ(t) are numbers and m = 0; other kernels have one number for each
coordinate of a basis, or matrices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.scores import ScoreAt, along
from sdegen.core.shapes import ScoreFn, State, Time, expand

_HALVINGS = 80  # of an interval of times: past the last bit of a float64
_SMALL = 1e-3 * 2.0**24  # of numbers whose rounding in float32 is below a thousandth


class GaussianKernel(ABC):
    """The Gaussian kernel X_t | X_0 ~ N(Φ X_0 + m, L Lᵀ) of a linear SDE.

    States have shape (batch, *event), times shape () or (batch,).
    """

    @abstractmethod
    def mean(self, x0: State, t: Time) -> Tensor:
        """Return Φ(t) x0 + m(t), shape of the state that x0 is noised to."""

    @abstractmethod
    def spread(self, eps: State, t: Time) -> State:
        """Return L(t) ε, same shape as eps."""

    @abstractmethod
    def whiten(self, deviation: State, t: Time) -> State:
        """Return L(t)⁻¹ r, the ε of a deviation r = x_t − Φ x0 − m; same shape."""

    @abstractmethod
    def pull_back(self, eps: State, t: Time) -> State:
        """Return L(t)⁻ᵀ ε, same shape as eps: minus the score, where ε = E[ε | x_t]."""


@dataclass(frozen=True)
class Kernel(GaussianKernel):
    """The Gaussian kernel X_t | X_0 ~ N(α(t) X_0, σ(t)² I) of a linear SDE.

    Attributes:
        alpha: α(t), shape of t.
        sigma: σ(t), shape of t.
    """

    alpha: Callable[[Time], Tensor]
    sigma: Callable[[Time], Tensor]

    def mean(self, x0: State, t: Time) -> State:
        """Return α(t) x0, same shape as x0."""
        return expand(self.alpha(t), x0) * x0

    def spread(self, eps: State, t: Time) -> State:
        """Return σ(t) ε, same shape as eps."""
        return expand(self.sigma(t), eps) * eps

    def whiten(self, deviation: State, t: Time) -> State:
        """Return r/σ(t), same shape as r."""
        return deviation / expand(self.sigma(t), deviation)

    def pull_back(self, eps: State, t: Time) -> State:
        """Return ε/σ(t), same shape as eps."""
        return eps / expand(self.sigma(t), eps)

    def log_ratio(self, t: Tensor) -> Tensor:
        """log(σ/α) = −λ, of the noise-to-signal ratio; shape of t."""
        return torch.log(self.sigma(t)) - torch.log(self.alpha(t))

    def time_of_log_nsr(self, log_ratio: Tensor, low: float, high: float) -> Tensor:
        """Return the times in [low, high] at which log(σ/α) takes these values, by bisection.

        Args:
            log_ratio: Values of log(σ/α), which increases in t; float64, any shape.
            low: Earliest time.
            high: Latest time.
        """
        below, above = torch.full_like(log_ratio, low), torch.full_like(log_ratio, high)
        for _ in range(_HALVINGS):
            middle = 0.5 * (below + above)
            less = self.log_ratio(middle) < log_ratio
            below, above = torch.where(less, middle, below), torch.where(less, above, middle)
        return 0.5 * (below + above)


def times_between(kernel: Kernel, log_ratios: Tensor, first: float, last: float) -> Tensor:
    """Return a grid of the times at which log(σ/α) takes these values, both ends met exactly.

    Args:
        kernel: α and σ.
        log_ratios: Values of log(σ/α) in order, float64, shape (n,).
        first: The first of the times.
        last: The last one.
    """
    times = kernel.time_of_log_nsr(log_ratios, min(first, last), max(first, last))
    times[0], times[-1] = first, last
    return times


@dataclass(frozen=True)
class ReverseStructure:
    """What a sampler that looks inside reverse dynamics finds there.

    Attributes:
        score: ∇ log p_t(x).
        eta: η of the family of reverse dynamics: 0 the flow, 1 the reverse SDE.
        kernel: α and σ of the forward SDE, or None where it has none.
        noise_kernel: Its Gaussian kernel of any kind, or None where it is not Gaussian.
    """

    score: ScoreFn
    eta: float
    kernel: Kernel | None
    noise_kernel: GaussianKernel | None = None

    def along(self, nodes: Tensor) -> ScoreAt:
        """Return the score at the nodes of a run, as `along` does."""
        return along(self.score, nodes)


def quadratic(
    constant: Tensor, linear: Tensor, square: Tensor, x: Tensor, products: Tensor
) -> Tensor:
    """Return c − 2 b · x_j + a · p_j ≥ 0 of rows (c, b, a) and points (x_j, p_j), shape (rows, n).

    A squared distance ‖u − A x_j‖², where b = Aᵀ u, a = AᵀA and p_j are the products of numbers of
    x_j. Computed in float32 where that rounds it by less than a thousandth, else in float64.

    Args:
        constant: c = ‖u‖², shape (rows,), float64.
        linear: b, shape (rows, d), float64.
        square: a, shape (rows, m), float64.
        x: Shape (n, d), float64.
        products: Shape (n, m), float64.
    """
    largest = float(constant.max() + square.abs().amax(0) @ products.abs().amax(0))
    dtype = torch.float32 if largest < _SMALL else torch.float64
    terms = (-2 * linear).to(dtype) @ x.T.to(dtype) + square.to(dtype) @ products.T.to(dtype)
    return (constant[:, None].to(dtype) + terms).clamp_min(0.0)
