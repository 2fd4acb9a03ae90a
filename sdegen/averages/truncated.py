"""Milstein's method without Lévy areas: all of it that increments alone say.

    x' = x + f h + G ΔW + ½ Σ_jk (∂b_k · b_j) (ΔW_j ΔW_k − δ_jk h)
       = x + f h + √h G z + ½ h [(∂_v G) z − Σ_k ∂_{b_k} b_k],        v = G z,

with b_k the columns of G. Where (∂b_k · b_j) = (∂b_j · b_k), as for scalar and for diagonal noise,
areas drop out, and this is Milstein's method, of strong order 1. Else its strong order is ½, and
two runs that take the increments of each pair of steps in either order make up for the areas in
their mean: the antithetic coupling of Giles and Szpruch.

Reference:
    Giles and Szpruch 2014, Ann. Appl. Probab. 24, 1585, eqs. (2.4) and (2.9); Kloeden and Platen
    1992, section 10.3, for noise that commutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.channels import directionals, times, units
from sdegen.core.derivatives import is_per_trajectory
from sdegen.core.fixed_steps import Interval, OneStep
from sdegen.core.noise import Given, Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.core.update import update

_SAME = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative: derivatives by differences too


@dataclass(frozen=True)
class TruncatedMilstein(OneStep):
    """Milstein's method without Lévy areas. One evaluation of the drift a step.

    Args:
        mixes: Whether g_i of diagonal noise may depend on x_j, j ≠ i: one derivative then becomes
            one for each coordinate.
    """

    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels")
    orders: ClassVar[Orders] = Orders(flow=1, additive=(1, 1), multiplicative=(1, 0.5))
    evaluations: ClassVar[int] = 1

    mixes: bool = False

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take the update, and add what the change of G within the step makes."""
        t, _, dt, root_dt = memory[i]
        after = update(x, sde.drift(x, t), dt)
        if noise is None:
            return after, memory
        z = noise.normal()
        after = sde.add_noise(after, x, t, root_dt, Given(z))
        if sde.noise != "multiplicative":
            return after, memory
        if sde.channels is None and not self.mixes:
            slope = 0.5 * sde.covariance_divergence(x, t)  # g ∂g/∂x
            return after.add_(slope * z.square().sub_(1), alpha=0.5 * dt), memory
        return after.add_(_change(sde, x, t, z), alpha=0.5 * dt), memory


def _change(sde: SDE, x: State, t: Time, z: Tensor) -> State:
    """Return (∂_v G) z − Σ_k ∂_{b_k} b_k, v = G z, shape of x."""
    if sde.channels is None:
        each = units(x)

        def of_diagonal(g: Tensor) -> list[State]:
            return [g * z, *(g * e for e in each)]

        _, slopes = directionals(lambda y: sde.diffusion(y, t).expand_as(y), x, of_diagonal)
        own = sum((s * e for s, e in zip(slopes[1:], each, strict=True)), torch.zeros_like(x))
        return slopes[0] * z - own

    def of_channels(G: Tensor) -> list[State]:
        return [times(G, z), *G.unbind(-1)]

    _, slopes = directionals(lambda y: _of_all(sde, y, t), x, of_channels)
    own = torch.stack([s[..., k] for k, s in enumerate(slopes[1:])]).sum(0)
    return times(slopes[0], z) - own


def _of_all(sde: SDE, x: State, t: Time) -> Tensor:
    """Return G at each state, shape (batch, *event, m)."""
    return sde.diffusion(x, t).expand(*x.shape, -1)


def is_diagonal(sde: SDE, x: State, t: Time) -> bool:
    """Return whether g_i depends on x_i alone, as far as autograd sees it.

    Args:
        sde: Dynamics with diagonal noise.
        x: Some states, apart from each other.
        t: Time.
    """
    if is_per_trajectory(sde.diffusion(x, t), x):
        return False  # one g of all coordinates, and a W for each
    try:
        sde.covariance_divergence(x, t)
    except ValueError:
        return False
    return True


def commutes(sde: SDE, x: State, t: Time) -> bool:
    """Return whether ∂b_k · b_j = ∂b_j · b_k at some states, for all j and k.

    Args:
        sde: Dynamics with multiplicative noise, diagonal or of channels.
        x: Some states, apart from each other.
        t: Time.
    """
    if sde.channels is not None:
        _, slopes = directionals(lambda y: _of_all(sde, y, t), x, lambda G: list(G.unbind(-1)))
        products = torch.stack(slopes, -1).flatten(1, -3)  # (batch, d, k, j)
    else:
        each = units(x)
        _, slopes = directionals(
            lambda y: sde.diffusion(y, t).expand_as(y), x, lambda g: [g * e for e in each]
        )
        # b_k = g_k e_k: component k of ∂_{b_j} g is all there is
        along = torch.stack(slopes, -1).flatten(1, -2)
        products = torch.diag_embed(along.transpose(1, 2)).permute(0, 2, 3, 1)
    products = products[products.flatten(1).isfinite().all(1)]
    if len(products) == 0:
        return False
    gap = (products - products.mT).abs().max()
    return bool(gap <= _SAME.get(x.dtype, 1e-3) * products.abs().max())
