"""Milstein's method: the update with the first of Itô's corrections, of strong order 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.channels import times
from sdegen.core.commutators import commute, noise_on_noise, own_slope
from sdegen.core.fixed_steps import FixedStep, Interval, intervals_of
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Need
from sdegen.core.step_noise import StepNoise
from sdegen.core.update import Number, update


@dataclass(frozen=True)
class _Memory:
    """What a run has found so far.

    Attributes:
        intervals: (t, s, dt, √|dt|) of each step.
        by_coordinate: Whether g_i of diagonal noise has been seen to depend on x_i alone.
        commuting: Whether the channels have been seen to commute.
    """

    intervals: list[Interval]
    by_coordinate: bool
    commuting: bool


@dataclass(frozen=True)
class Milstein(FixedStep):
    """The update with Itô's first correction, of strong order 1 for any noise G(x, t).

        x' = x + dt f(x, t) + G ΔW + Σ_kl (Σ_j G_jk ∂_j G_il) I_kl,
        I_kl = ½ (ΔW_k ΔW_l − δ_kl |dt|) + A_kl

    with G of shape (batch, *event, m) and ΔW of shape (batch, m). For diagonal noise, g_i of x_i
    alone, the correction is ½ g ∂g/∂x (ΔW² − |dt|). The Lévy areas A_kl are drawn where channels
    do not commute, which is looked at in each step until they do not: by ⌈√N⌉ modes in a run of N
    steps, or those of a Brownian path that is given. Derivatives come from autograd, by one pass
    for each channel, or from `diffusion_derivative`. One evaluation a step.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Kloeden and Platen 1992, eq. (10.3.3); weak order 1, strong order 1.

    Example:
        >>> gbm, x = sg.ItoProcess(lambda x: 0 * x, lambda x: x), torch.ones(100, 1)
        >>> z = sg.Noise(x, rng=0).normal()
        >>> (end,) = sg.integrate(gbm, sg.Milstein(), x, [0.0, 0.25], sg.Noise(x, rng=0))
        >>> torch.allclose(end, 1 + 0.5 * z + 0.125 * (z**2 - 1))  # ½ h (z² − 1)
        True
    """

    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels")
    needs: ClassVar[tuple[Need, ...]] = ("increments", "areas")
    orders: ClassVar[Orders] = Orders(
        flow=1, additive=(1, 1), multiplicative=(1, 1), channels=(1, 1)
    )
    evaluations: ClassVar[int] = 1
    noise_evaluations: ClassVar[str] = "1, and its derivative along each column"
    stability: ClassVar[float | None] = 2.0
    when: ClassVar[str] = "Paths to strong order 1 with any noise; multilevel averages."

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory:
        """Return the intervals; nothing has been seen that would not commute."""
        return _Memory(intervals_of(sde, nodes), sde.channels is None, True)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory
    ) -> tuple[State, _Memory]:
        """Take the update with the increment of the step, and correct it."""
        t, _, dt, _ = memory.intervals[i]
        after = update(x, sde.drift(x, t), dt)
        if noise is None:
            return after, memory
        assert isinstance(noise, StepNoise)  # as `needs` has it
        w = noise.increment(i)
        after = after + sde.diffusion_times(x, t, w)
        if sde.noise == "additive":
            return after, memory
        if memory.by_coordinate:
            slope = own_slope(sde, x, t)
            if slope is not None:
                return after + 0.5 * slope * (w.square() - abs(dt)), memory
            memory = replace(memory, by_coordinate=False)
        S = noise_on_noise(sde, x, t)
        if memory.commuting and not commute(S):
            memory = replace(memory, commuting=False)
        areas = None if memory.commuting else noise.areas(i)
        return after + _corrected(S, w.flatten(1), abs(dt), areas), memory


def _corrected(S: Tensor, w: Tensor, h: Number, areas: Tensor | None) -> State:
    """Return Σ_kl S_ikl I_kl, shape (batch, *event)."""
    eye = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
    integrals = 0.5 * (w.unsqueeze(-1) * w.unsqueeze(-2) - h * eye)
    if areas is not None:
        integrals = integrals + areas
    return times(S.flatten(-2), integrals.flatten(1))
