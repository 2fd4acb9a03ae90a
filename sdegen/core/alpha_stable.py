"""α-stable motion: a Lévy process whose increments have tails like |x|^{−1−α}.

    E e^{ik(L(t) − L(0))} = exp(−t ψ(k)),
    ψ(k) = |σk|^α (1 − iβ sign(k) tan(πα/2)),           α ≠ 1
    ψ(k) = |σk| (1 + iβ (2/π) sign(k) log|σk|),         α = 1

An increment over dt is σ dt^{1/α} Z with Z of dt = σ = 1; for α = 1 it is shifted by σβ (2/π) dt
log dt. α = 2 is Brownian motion of variance 2σ²t; below that there is no variance, and for α ≤ 1
no mean. Z comes from a uniform angle V in (−π/2, π/2) and an exponential W:

    Z = (1 + ζ²)^{1/2α} · sin(αV + b)/cos(V)^{1/α} · (cos(V − αV − b)/W)^{(1−α)/α},   α ≠ 1
    ζ = β tan(πα/2),   b = arctan ζ
    Z = (2/π) [(π/2 + βV) tan V − β log((π/2) W cos V/(π/2 + βV))],                   α = 1

Reference:
    Chambers, Mallows and Stuck 1976, J. Am. Stat. Assoc. 71, 340; Weron 1996, Stat. Prob. Lett.
    28, 165, eqs. (3.8) and (3.9), in the parametrisation of Samorodnitsky and Taqqu 1994.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_number, check_positive


@dataclass(frozen=True)
class AlphaStable:
    """The increments of an α-stable motion, independent in each coordinate.

        dX = f dt + dL,   E e^{ik(L(t) − L(0))} = e^{−t ψ(k)}
        ψ(k) = |σk|^α (1 − iβ sign(k) tan(πα/2)) for α ≠ 1

    α = 2 is Brownian motion of variance 2σ²t; α = 1 has another ψ (see the module). `increment`
    takes uniform numbers of any shape, and returns as many.

    Args:
        alpha: Stability, 0 < α ≤ 2.
        scale: σ > 0: L has the width σ t^{1/α}.
        beta: Skewness, −1 ≤ β ≤ 1; it has no effect for α = 2.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is out of range.

    Example:
        >>> k = torch.tensor(2.0, dtype=torch.float64)
        >>> [round(sg.AlphaStable(a, scale=0.3).exponent(k).real.item(), 4) for a in (2, 1.5, 1)]
        [0.36, 0.4648, 0.6]
    """

    alpha: float
    scale: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        if not 0 < self.alpha <= 2:
            raise ValueError(f"alpha must lie in (0, 2], but is {float(self.alpha):g}.")
        check_positive("scale", self.scale)
        check_number("beta", self.beta)
        if not -1 <= self.beta <= 1:
            raise ValueError(f"beta must lie in [-1, 1], but is {float(self.beta):g}.")

    def increment(self, dt: float, angle: Tensor, wait: Tensor) -> Tensor:
        """Return L(t + dt) − L(t), float64.

        Args:
            dt: Length of the step, > 0.
            angle: Uniform numbers in (0, 1), of any shape.
            wait: Others of the same shape.
        """
        alpha, beta = float(self.alpha), float(self.beta)
        v, w = math.pi * (angle - 0.5), -wait.log()
        if alpha == 1:
            half = 0.5 * math.pi
            z = (half + beta * v) * v.tan() - beta * (half * w * v.cos() / (half + beta * v)).log()
            shift = self.scale * beta * dt * math.log(dt)
            return (2 / math.pi) * (self.scale * dt * z + shift)
        skew = beta * math.tan(0.5 * math.pi * alpha)
        b = math.atan(skew)
        size = self.scale * dt ** (1 / alpha) * (1 + skew**2) ** (0.5 / alpha)
        # cos(V − αV − b) is 0 at an end of V where β = ±1: rounding must not make it negative
        tilted = (v - (alpha * v + b)).cos().clamp(min=0)
        z = (alpha * v + b).sin() / v.cos() ** (1 / alpha)
        power = (1 - alpha) / alpha
        step: Tensor = size * z * (tilted / w) ** power
        return step

    def exponent(self, k: Tensor) -> Tensor:
        """Return ψ(k), of which the characteristic function over t is exp(−t ψ(k)), complex128.

        Args:
            k: Wave numbers, of any shape.
        """
        q = self.scale * k.to(torch.float64)
        if self.alpha == 1:
            size = q.abs()
            odd = self.beta * (2 / math.pi) * q * torch.where(size > 0, size, 1.0).log()
            return torch.complex(size, odd)
        size = q.abs() ** self.alpha
        odd = -self.beta * math.tan(0.5 * math.pi * self.alpha) * size * q.sign()
        return torch.complex(size, odd)
