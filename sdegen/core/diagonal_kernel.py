"""Diagonal kernels: one α, one σ and one shift for each coordinate, or each mode of a basis.

    y = Q x,        y_k(t) | y_k(0) ~ N(α_k(t) y_k(0) + m_k(t), σ_k(t)²)

What is known of numbers α and σ holds in each mode. L is Qᵀ diag(σ) Q, so that ε, the noise in a
state, is white in coordinates as in modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdegen.core.bases import Basis, Coordinates
from sdegen.core.kernel import GaussianKernel, Kernel, quadratic
from sdegen.core.shapes import State, Time

Curve = Callable[[Time], Tensor]


@dataclass(frozen=True)
class DiagonalKernel(GaussianKernel):
    """The Gaussian kernel of a process whose modes move by themselves.

    Attributes:
        alpha: α_k(t), shape (*t.shape, *modes), modes being () or the last axes of an event.
        sigma: σ_k(t), likewise.
        basis: Whose modes.
        shift: m_k(t), likewise; None is 0.
        rest: Mean and standard deviation of each mode at rest; None where it does not come to it.
        slowest: The rate of the slowest mode; None where rates change, or a mode does not decay.
    """

    alpha: Curve
    sigma: Curve
    basis: Basis = field(default_factory=Coordinates)
    shift: Curve | None = None
    rest: tuple[Tensor, Tensor] | None = None
    slowest: float | None = None

    @classmethod
    def of(cls, kernel: Kernel) -> DiagonalKernel:
        """Return a kernel of numbers as a diagonal one."""
        return cls(kernel.alpha, kernel.sigma)

    def coefficients(self, t: Time, x: State) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return α, σ and m, ready to meet the modes of a state x; None is m = 0."""
        shift = None if self.shift is None else meet(self.shift(t), t, x)
        return meet(self.alpha(t), t, x), meet(self.sigma(t), t, x), shift

    def mean(self, x0: State, t: Time) -> State:
        """Return Qᵀ (α Q x0 + m), shape of x0."""
        alpha, _, shift = self.coefficients(t, x0)
        y = alpha * self.basis.to_modes(x0)
        return self.basis.from_modes(y if shift is None else y + shift)

    def spread(self, eps: State, t: Time) -> State:
        """Return Qᵀ σ Q ε, shape of eps."""
        return self.basis.from_modes(meet(self.sigma(t), t, eps) * self.basis.to_modes(eps))

    def whiten(self, deviation: State, t: Time) -> State:
        """Return Qᵀ (Q r)/σ, shape of r."""
        modes = self.basis.to_modes(deviation)
        return self.basis.from_modes(modes / meet(self.sigma(t), t, deviation))

    def pull_back(self, eps: State, t: Time) -> State:
        """Return Qᵀ (Q ε)/σ, shape of eps: L is symmetric."""
        return self.whiten(eps, t)

    def squared_distances(self, x_t: State, t: Tensor, x0: Tensor) -> Tensor:
        """Return ‖L⁻¹ (x_t − Φ x0 − m)‖² of states and starts, shape (batch, n).

        Args:
            x_t: Shape (batch, *event).
            t: Time of each, shape (batch,).
            x0: Shape (n, *event).
        """
        alpha, sigma, shift = self.coefficients(t, x_t.double())
        y, starts = self.basis.to_modes(x_t.double()), self.basis.to_modes(x0.double()).flatten(1)
        white = ((y if shift is None else y - shift) / sigma).flatten(1)
        slope = (alpha / sigma).expand_as(y).flatten(1)
        forms = (white.square().sum(1), slope * white, slope.square())
        return quadratic(*forms, starts, starts.square())

    def end(self, t: float) -> GaussianModes:
        """Return the law at rest, or of X_t from x0 = 0 where it does not come to rest."""
        if self.rest is not None:
            return GaussianModes(*self.rest, self.basis)
        at = torch.tensor(t, dtype=torch.float64)
        mean = torch.zeros_like(at) if self.shift is None else self.shift(at)
        return GaussianModes(mean, self.sigma(at), self.basis)


@dataclass(frozen=True)
class GaussianModes:
    """A Gaussian whose modes are independent.

    Attributes:
        mean: Of each mode, a number or the last axes of an event.
        std: Likewise.
        basis: Whose modes.
    """

    mean: Tensor
    std: Tensor
    basis: Basis

    def draw(self, z: State) -> State:
        """Return states from standard normals z, shape of z."""
        return self.basis.from_modes(self.mean.to(z) + self.std.to(z) * self.basis.to_modes(z))

    def size(self, x: State) -> float:
        """Return the root mean square of states, in standard deviations from the mean."""
        white = (self.basis.to_modes(x) - self.mean.to(x)) / self.std.to(x)
        return float(white.square().mean().sqrt())

    def log_prob(self, x: State) -> Tensor:
        """Return log of the density in nats, shape (batch,)."""
        std = self.std.to(x).expand(x.shape[1:])
        white = (self.basis.to_modes(x) - self.mean.to(x)) / std
        volume = std.log().sum() + 0.5 * x[0].numel() * math.log(2 * math.pi)
        return -0.5 * white.flatten(1).square().sum(1) - volume


def meet(c: Tensor, t: Time, x: State) -> Tensor:
    """Give a coefficient of shape (*t.shape, *modes) the axes and dtype to multiply a state.

    A single number is left as it is, and promotes nothing.
    """
    if c.ndim == 0:
        return c
    if t.ndim:
        modes = c.shape[1:]
        c = c.reshape(len(c), *(1,) * (x.ndim - c.ndim), *modes)
    return c.to(x)
