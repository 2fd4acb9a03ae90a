"""DRI1: a Runge–Kutta method of weak order 2 for any Itô noise, by columns.

    x' = x + h Σ_i α_i f(H_i) + Σ_k N_k,        h = |dt|,  W_k = √h z_k

Three stages carry the drift, as Kutta's method of order 3 does where there is no noise:

    H₁ = x,   H₂ = x + ½ h f₁ + b₂ Σ_k G_k W_k,   H₃ = x + h (2 f₂ − f₁) + b₃ Σ_k G_k W_k

and each Wiener process asks for its own column G_k at states of its own, five times in a step:

    H±_k = x + c h f₁ ± b √h G_k                   which see G_k ∂G_k, with (W_k² − h)/2
    V±_k = x ± Σ_{l≠k} D_l J_kl/√h                 which see G_l ∂G_k, with J_kl

where D_l is a mean of G_l at x, H⁺_l and H⁻_l. So the cost is linear in the number of processes.
Diagonal noise whose g_i depends on x_i alone is asked three times, all components at once, and
additive noise twice.

**The double integrals.** J_kl stands for ∫∫ dW_l dW_k; in the mean it must be right to second
order together with all others, J_kl J_k'l' among them. With signs χ_k = ±1,

    J_kl = ½ (W_k W_l − s_kl h χ_k χ_l),        s_kl = 1 for k < l, −1 for k > l

has E[J_kl J_k'l'] = 0 for any two different pairs, as the integrals themselves have. With χ_k in
place of χ_k χ_l, J₁₂ and J₁₃ would have covariance h²/4, and the order would drop to 1 for three
processes that do not commute.

The normal z_k gives both W_k and χ_k, the parity of ⌊4 z_k⌋: the sign is independent of all
moments of z_k that matter, to e^{−(4π)²/2} ≈ 10⁻³⁴. So a step draws one normal for each process,
and walks the path of that noise, with strong order ½; 1 where the noise commutes.

Reference:
    Debrabant and Rößler 2009, Appl. Numer. Math. 59, 582, table 2 (DRI1); Milstein and Tretyakov
    2004, Stochastic Numerics for Mathematical Physics, section 2.2, for the products of signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.commutators import mixes
from sdegen.core.fixed_steps import FixedStep, Interval, intervals_of
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time, as_column
from sdegen.core.solver import Asked
from sdegen.core.update import Number, update

_ROOT_6 = math.sqrt(6)
_B2, _B3 = (6 - _ROOT_6) / 10, (3 + 2 * _ROOT_6) / 5  # noise in the stages of the drift
_C, _B = 342 / 491, 3 * math.sqrt(38 / 491)  # of H±
_HERE, _AHEAD = 193 / 684, 491 / 1368  # weights of G_k at x, and at each of H±
_OWN = math.sqrt(491 / 38) / 6  # of the difference over H±
_D_HERE, _D_AHEAD = 214 / 513 * math.sqrt(1105 / 991), 491 / 513 * math.sqrt(221 / 4955)
_BOTH = 4955 / 14144  # of the second difference over V±
_CROSS = math.sqrt(4955 / 221) / 8  # of the difference over V±


class _Memory(NamedTuple):
    """The intervals, and whether diagonal noise has been seen to mix coordinates."""

    intervals: list[Interval]
    is_mixed: bool = False


@dataclass(frozen=True)
class DRI1(FixedStep):
    """A Runge–Kutta method of weak order 2 for any Itô noise; three evaluations a step.

        x' = x + h (f(x) + 4 f(H₂) + f(H₃))/6 + Σ_k N_k
        H₂ = x + ½ h f(x) + b₂ Σ_k G_k W_k,   H₃ = x + h (2 f(H₂) − f(x)) + b₃ Σ_k G_k W_k

    with h = dt, W_k = √h z_k of shape (batch,), and N_k of the page of the module. It asks for 1 +
    4m columns of G for m Wiener processes, through `sde.diffusion_column`; diagonal noise whose
    g_i depends on x_i alone is asked 3 times, additive noise twice.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Debrabant and Rößler 2009, Appl. Numer. Math. 59, 582, table 2, with other variables for
        the double integrals; weak order 2, order 3 on a flow.

    Example:
        >>> decay = sg.ItoProcess(lambda x: -x, 0.0)
        >>> (end,) = sg.integrate(decay, sg.DRI1(), torch.ones(1, 1), [0.0, 0.5])
        >>> f"{end.item():.4f}"  # 1 − h + h²/2 − h³/6
        '0.6042'
    """

    retains_noise: ClassVar[bool] = False
    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels")
    orders: ClassVar[Orders] = Orders(
        flow=3, additive=(2, 1), multiplicative=(2, 1), channels=(2, 0.5)
    )
    evaluations: ClassVar[int] = 3
    noise_evaluations: ClassVar[str] = "1 and 4 of each column; 3 (diagonal); 2 (additive)"
    stability: ClassVar[float | None] = 2.5127453266183286
    when: ClassVar[str] = (
        "Averages and densities are wanted, not paths: smooth drift, any noise, few large steps."
    )

    def check_asked(self, asked: Asked) -> None:
        """Take all that a run may ask: it draws one increment a step."""

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory:
        """Return the intervals."""
        return _Memory(intervals_of(sde, nodes))

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory
    ) -> tuple[State, _Memory]:
        """Take the stages of the drift, and add the noise that the structure of G asks for."""
        t, s, dt, root_dt = memory.intervals[i]
        f = sde.drift(x, t)
        if noise is None:
            middle = sde.drift(update(x, f, 0.5 * dt), t + 0.5 * dt)
            end = sde.drift(update(x, 2 * middle - f, dt), s)
            return update(x, f + 4 * middle + end, dt / 6), memory
        z = noise.normal()
        moved = root_dt * sde.diffusion_times(x, t, z)
        middle = sde.drift(update(x, f, 0.5 * dt) + _B2 * moved, t + 0.5 * dt)
        end = sde.drift(update(x, 2 * middle - f, dt) + _B3 * moved, s)
        after = update(x, f + 4 * middle + end, dt / 6)
        if sde.constant_noise is not None:
            return after + moved, memory
        ahead = t + _C * dt
        if sde.noise == "additive":
            later = root_dt * sde.diffusion_times(x, ahead, z)
            return after + _HERE * moved + 2 * _AHEAD * later, memory
        base = update(x, f, _C * dt)
        if sde.channels is None:
            # now and then: at a special state or time nothing of it may be seen
            if not memory.is_mixed and i & (i - 1) == 0:
                memory = memory._replace(is_mixed=mixes(sde, x, ahead))
            if not memory.is_mixed:
                noise_of = _separate(sde, x, base, t, ahead, root_dt, z)
                return after + root_dt * noise_of, memory
        return after + root_dt * _by_columns(sde, x, base, t, ahead, root_dt, z), memory


def _separate(
    sde: SDE, x: State, base: State, t: Time, ahead: Time, root_dt: Number, z: State
) -> State:
    """Return Σ_k N_k/√h of diagonal noise whose g_i depends on x_i alone; shape of x.

    Args:
        sde: What moves.
        x: State at t.
        base: x + c h f₁.
        t: Time.
        ahead: t + c h.
        root_dt: √h.
        z: Normals of the step, like x.
    """
    g = sde.diffusion(x, t)
    shift = _B * root_dt * g
    plus, minus = sde.diffusion(base + shift, ahead), sde.diffusion(base - shift, ahead)
    mean = _HERE * g + _AHEAD * (plus + minus)
    return mean * z + 0.5 * _OWN * (plus - minus) * (z * z - 1)


def _by_columns(
    sde: SDE, x: State, base: State, t: Time, ahead: Time, root_dt: Number, z: Tensor
) -> State:
    """Return Σ_k N_k/√h, column by column; see `_separate`. z has shape (batch, m)."""
    column, zs = _columns_of(sde, x), [as_column(z_k, x) for z_k in z.flatten(1).unbind(1)]
    shift = _B * root_dt
    here = [column(x, t, k) for k in range(len(zs))]
    ds, total = [], torch.zeros_like(x)
    for k, (g, z_k) in enumerate(zip(here, zs, strict=True)):
        move = shift * g
        plus, minus = column(base + move, ahead, k), column(base - move, ahead, k)
        both = plus + minus
        total = total + (_HERE * g + _AHEAD * both) * z_k
        total = total + (0.5 * _OWN * (plus - minus)) * (z_k * z_k - 1)
        ds.append(_D_HERE * g + _D_AHEAD * both)
    if len(zs) == 1:
        return total
    for k, (g, way) in enumerate(zip(here, _crossed(ds, zs), strict=True)):
        move = root_dt * way
        plus, minus = column(x + move, t, k), column(x - move, t, k)
        total = total + (_BOTH * (plus + minus - 2 * g)) * zs[k] + _CROSS * (plus - minus)
    return total


def _crossed(ds: Sequence[Tensor], zs: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield Σ_{l≠k} D_l J_kl/h for each k, in a time linear in their number.

    Args:
        ds: D_l, each broadcastable to the state.
        zs: z_l, shape (batch, 1, …) each.

    >>> one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    >>> zs = [torch.full((1, 1), 0.1), torch.full((1, 1), 0.3)]  # χ = 1 and −1
    >>> [round(float(way), 3) for way in _crossed([one, zero], zs)]  # J_21
    [0.0, -0.485]
    """
    signs = [1 - 2 * torch.remainder(torch.floor(4 * z), 2) for z in zs]
    weighted = [d * z for d, z in zip(ds, zs, strict=True)]
    signed = [d * sign for d, sign in zip(ds, signs, strict=True)]
    all_weighted, after = torch.stack(weighted).sum(0), torch.stack(signed).sum(0)
    before = torch.zeros_like(after)
    for k, z in enumerate(zs):
        after = after - signed[k]
        yield 0.5 * (z * (all_weighted - weighted[k]) - signs[k] * (after - before))
        before = before + signed[k]


def _columns_of(sde: SDE, x: State) -> Callable[[State, Time, int], State]:
    """Return the columns of G; of diagonal noise g_k along coordinate k."""
    if sde.channels is not None:
        return sde.diffusion_column
    units = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)

    def column(y: State, t: Time, k: int) -> State:
        return sde.diffusion(y, t).to(y) * units[k].reshape(y.shape[1:])

    return column
