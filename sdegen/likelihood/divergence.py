"""Divergences of a flow, added up along its paths: exact, or by Hutchinson's estimate.

    ∇·F = Σ_i e_iᵀ (∂F/∂x) e_i = E vᵀ (∂F/∂x) v,        E vvᵀ = I

The sum over the d unit vectors is exact. It costs as much as d further evaluations of the score,
made together; right up to some hundred dimensions. The mean over random v costs one for each. A v
is held fixed for the whole solve, so that an estimate is an ODE like any other, and each has a sum
ℓ of its own: their spread tells the error.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from sdegen.noise import Stream
from sdegen.sde.base import SDE, Counter
from sdegen.shapes import State, Time

__all__ = ["FlowWithDivergence", "Hutchinson"]

# numbers that are pulled back together: of more, a CPU's cache no longer holds the layers between
_NUMBERS = {"cpu": 2**16}
_NUMBERS_ON_DEVICE = 2**21


@dataclass(frozen=True)
class Hutchinson:
    """An unbiased estimate of a divergence, E vᵀ(∂F/∂x)v over random v with E vvᵀ = I.

    With S the symmetric part of ∂F/∂x, one probe has variance 2 Σ_ij S_ij² ("gaussian") or
    2 Σ_{i≠j} S_ij² ("rademacher").

    Args:
        probes: Number of v for each x; one says nothing about its own error.
        noise: Law of v: "gaussian", or "rademacher", signs, of smaller variance.

    Raises:
        TypeError: If probes is no int.
        ValueError: If probes < 1 or the noise is misspelt.

    Reference:
        Hutchinson 1989, doi:10.1080/03610918908812806; Grathwohl et al. 2019, section
        3.1, arXiv:1810.01367.
    """

    probes: int = 1
    noise: Literal["gaussian", "rademacher"] = "rademacher"

    def __post_init__(self) -> None:
        if isinstance(self.probes, bool) or not isinstance(self.probes, int):
            raise TypeError(f"probes must be an int, but is {type(self.probes).__name__}.")
        if self.probes < 1:
            raise ValueError(f"probes must be ≥ 1, but is {self.probes}.")
        if self.noise not in ("gaussian", "rademacher"):
            raise ValueError(f"noise must be 'gaussian' or 'rademacher', but is {self.noise!r}.")

    def draw(self, x: State, source: Stream) -> Tensor:
        """Draws v for flat states x (batch, d), shape (probes, batch, d)."""
        v = source.normal((self.probes, *x.shape), dtype=x.dtype, device=x.device)
        return torch.where(v < 0, -1.0, 1.0).to(v) if self.noise == "rademacher" else v


class FlowWithDivergence(SDE):
    """A noise-free flow and the divergence that it meets, as one flow of the state (x, ℓ).

    dx/dt = F(x, t),   dℓ_k/dt = v_kᵀ (∂F/∂x) v_k,   or their sum over k in one ℓ

    Args:
        flow: F, noise-free dynamics that move every trajectory by itself.
        event: Shape of one x, of d numbers.
        probes: v_k, shape (K, batch, d), or (K, 1, d) where all trajectories share them.
        summed: Whether the K terms make one ℓ. With the d unit vectors that is the divergence.

    Reference:
        Chen et al. 2018, theorem 1, arXiv:1806.07366; Song et al. 2021, eq. (39),
        arXiv:2011.13456, for the flow of a diffusion.
    """

    noise = "none"

    def __init__(self, flow: SDE, event: torch.Size, probes: Tensor, *, summed: bool) -> None:
        self.flow, self.event, self.probes, self.summed = flow, event, probes, summed

    @property
    def time_range(self) -> tuple[float, float]:
        """That of the flow."""
        return self.flow.time_range

    def drift(self, x: State, t: Time) -> State:
        """(F, ∇·F), flat: shape (batch, d + 1), or (batch, d + K) if the terms are not summed."""
        # simulate runs without gradients, and its caller perhaps in inference mode
        with torch.inference_mode(False), torch.enable_grad():
            y = x[:, : self.probes.shape[-1]].detach().clone().requires_grad_()
            f = self.flow.drift(y.reshape(-1, *self.event), t).flatten(1)
            terms = self._quadratic_forms(f, y)
        divergence = terms.sum(0, keepdim=True) if self.summed else terms
        return torch.cat([f.detach(), divergence.T], dim=1)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """0."""
        return x.new_zeros(())

    def counted(self, counter: Counter) -> Self:
        """The same dynamics, whose calls of the score `counter` counts."""
        twin = copy.copy(self)
        twin.flow = self.flow.counted(counter)
        return twin

    def _quadratic_forms(self, f: Tensor, y: Tensor) -> Tensor:
        """v_kᵀ (∂f/∂y) v_k, shape (K, batch)."""
        together = max(1, _NUMBERS.get(y.device.type, _NUMBERS_ON_DEVICE) // y.numel())
        parts = []
        for k in range(0, len(self.probes), together):
            v = self.probes[k : k + together].expand(-1, *y.shape)
            parts.append((v * _pulled_back(f, y, v)).sum(2))
        return torch.cat(parts)


def _pulled_back(f: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """vᵀ ∂f/∂y for each of many v, shape (K, batch, d)."""
    if len(v) > 1:
        try:
            (pulled,) = torch.autograd.grad(f, y, v, retain_graph=True, is_grads_batched=True)
        except RuntimeError:
            pass  # an operation of the score has no batched derivative: one v at a time
        else:
            return pulled
    return torch.stack([torch.autograd.grad(f, y, one, retain_graph=True)[0] for one in v])
