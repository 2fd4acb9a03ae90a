"""Implicit Euler: steps that a stiff linear part of the drift does not bound.

Where the drift is −L x + r(x, t) with a linear part L whose rates are much larger than those of
all else, the linear part is taken at the end of the step, and the rest and the noise at its
beginning:

    x' = x + h (−L x' + r(x, t)) + √h G(x, t) z
       = x + (1 + h L)⁻¹ [h f(x, t) + √h G(x, t) z]

The matrix is inverted once for each length of a step. A mode of rate λ > 0 is multiplied by
1/(1 + λh), so that steps of any length are stable; what λh ≫ 1 hides are the mode's own
fluctuations, whose variance comes out as

    σ²/2λ · 1/(1 + λh/2)        (right to first order in h; 1/501 of it at λh = 1000)

and not those of what moves slowly. With `theta` = ½ half of the linear part is at either end,

    x' = x + (1 + θ h L)⁻¹ [h f(x, t) + √h G(x, t) z]

and the variance at rest is σ²/2λ whatever the step; a stiff mode then forgets where it started
only slowly, by −1 + 4/λh in a step. The rest r must not be stiff.

Reference:
    Kloeden and Platen 1992, eq. (12.2.8), for the family; drift-implicit in the linear part alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.checks import check_number
from sdegen.core.fixed_steps import FixedStep, Interval, intervals_of
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Asked
from sdegen.core.update import Number

_SAME = 1e-9  # lengths of steps that differ by less share one inverse


class _Memory(NamedTuple):
    """What is known before a step.

    Attributes:
        intervals: Of all steps.
        lengths: Their dt, one number for those that differ by rounding.
        dt: That of the last step; None before the first.
        inverse: (1 + θ dt L)⁻¹ for it.
    """

    intervals: list[Interval]
    lengths: list[Number]
    dt: Number | None = None
    inverse: Tensor | None = None


@dataclass(frozen=True)
class ImplicitEuler(FixedStep):
    """Euler's method with the linear part of the drift at the end of the step. One evaluation.

        x' = x + (1 + θ h L)⁻¹ [h f(x, t) + √h G(x, t) z],        f = −L x + r(x, t)

    The SDE says what L is, by its `linear_part`: `LinearSDE`, `OrnsteinUhlenbeck`, and
    `ItoProcess(f, g, linear_part=L)`; L is a number, or has shape (d,) or (d, d).

    Args:
        substeps: Equal steps between any two of the times.
        theta: θ, ½ … 1. With 1 stiff modes decay at once and have too small a variance; with ½
            the variance of a linear drift with additive noise is exact at rest.

    Raises:
        TypeError: If theta is no number.
        ValueError: If theta is not ½ … 1.

    Reference:
        Kloeden and Platen 1992, eq. (12.2.8); weak order 1, strong order ½ (1 for additive noise).

    Example:
        >>> stiff = sg.ItoProcess(lambda x: -999 * x, 0.0, linear_part=999.0)
        >>> (end,) = sg.integrate(stiff, sg.ImplicitEuler(), torch.ones(1, 1), [0.0, 1.0])
        >>> f"{end.item():.6f}"  # 1/(1 + λh)
        '0.001000'
    """

    theta: float = 1.0

    retains_noise: ClassVar[bool] = False
    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels", "general")
    orders: ClassVar[Orders] = Orders(
        flow=1, additive=(1, 1), multiplicative=(1, 0.5), channels=(1, 0.5)
    )
    evaluations: ClassVar[int] = 1
    noise_evaluations: ClassVar[str] = "1"
    stability: ClassVar[float | None] = torch.inf
    when: ClassVar[str] = (
        "The drift has a stiff linear part that is known, and the rest is not stiff: springs, "
        "discretised diffusion, friction."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("theta", self.theta)
        if not 0.5 <= self.theta <= 1:
            raise ValueError(
                f"theta must be in [0.5, 1], where steps of any length are stable, but is "
                f"{self.theta:g}."
            )

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics without a linear part, and steps in which a mode grows too fast."""
        super().check(sde, nodes)
        if sde.linear_part is None:
            raise ValueError(
                f"ImplicitEuler takes the linear part of the drift at the end of a step, but "
                f"{type(sde).__name__} has none: pass ItoProcess(f, g, linear_part=L) with "
                "f = −L x + …, or take SKROCK(stages=…), which needs to know nothing of the drift."
            )
        L, dts = sde.linear_part.detach(), nodes.detach().diff()
        rates = torch.linalg.eigvals(L).real if L.ndim == 2 else L.flatten()
        ends = torch.stack(rates.aminmax()).cpu().double()
        least = torch.outer(ends, torch.stack(dts.aminmax())).min()
        if not float(least) > -1 / self.theta:
            raise ValueError(
                f"a mode of the linear part of {type(sde).__name__} grows by more than a step "
                f"of ImplicitEuler can follow: λh = {float(least):.3g} must be above "
                f"{-1 / self.theta:.3g}; take shorter steps, ImplicitEuler(substeps=…)."
            )

    def check_asked(self, asked: Asked) -> None:
        """Take all that a run may ask: it draws one increment a step."""

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory:
        """Return the intervals; a matrix is inverted where a step has another length."""
        intervals, lengths = intervals_of(sde, nodes), list[Number]()
        for _, _, dt, _ in intervals:
            # one with a gradient has its own
            same = lengths and isinstance(dt, float) and abs(dt / float(lengths[-1]) - 1) <= _SAME
            lengths.append(lengths[-1] if same else dt)
        return _Memory(intervals, lengths)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory
    ) -> tuple[State, _Memory]:
        """Take Euler's increment, and solve for the end of the step."""
        t, _, dt, root_dt = memory.intervals[i]
        L, length, inverse = sde.linear_part, memory.lengths[i], memory.inverse
        assert L is not None  # check() saw to it
        if inverse is None or memory.dt is not length:
            inverse = _inverse(L, x, self.theta * length, type(sde).__name__)
            memory = memory._replace(dt=length, inverse=inverse)
        moved = dt * sde.drift(x, t)
        if noise is not None:
            moved = sde.add_noise(moved, x, t, root_dt, noise)
        if L.ndim == 2:
            return x + (moved.flatten(1) @ inverse.T).reshape(x.shape), memory
        return x + inverse * moved, memory


def _inverse(L: Tensor, x: State, dt: Number, name: str) -> Tensor:
    """Return (1 + dt L)⁻¹ in x's dtype: a matrix, or what multiplies a state.

    Raises:
        ValueError: If L has not as many rows as a state has numbers.
    """
    d = x[0].numel()
    if L.ndim and len(L) != d:
        raise ValueError(
            f"the linear part of {name} has shape {tuple(L.shape)} for states of {d} numbers; "
            f"pass a number, one for each, ({d},), or a matrix, ({d}, {d})."
        )
    L = L.to(x.device, torch.float64)
    if L.ndim == 2:
        eye = torch.eye(d, dtype=L.dtype, device=L.device)
        matrix: Tensor = torch.linalg.inv(eye + dt * L)
        return matrix.to(x)
    return (1 / (1 + dt * L)).to(x).reshape(x.shape[1:] if L.ndim else ())
