"""Local time: how long a path has been at a level, as a density of occupation.

    L_t(a) = ∫_0^t δ(X_s − a) ds,      ∫_0^t φ(X_s) ds = ∫ φ(a) L_t(a) da

in units of time over length: occupation with respect to dx. It has no width. (Semimartingale
calculus takes occupation with respect to d⟨X⟩ = g² dt, which is g(a)² L_t(a); Tanaka's formula
|X_t − a| = |X_0 − a| + ∫ sgn(X − a) dX + g² L_t(a) has that one. Of Brownian motion that starts
at a, E L_t = √(2t/π)/g.)

A chain is never at a level. Between its states x and y the path is close to a Brownian bridge,
whose local time has a law in closed form: with s = |x − a| + |y − a| and d = |y − x|,

    P(L > l) = exp(−[(s + g² l)² − d²]/(2 g² dt)),      g = g(x, t) held over the step

It is drawn in each step, from random numbers of the functional's own, which leave the paths as
they are. So L_t of Brownian motion has its exact law at any step; of others the error is that of
the chain and of the drift within a step. On a periodic coordinate all images of the level count.

Reference:
    Borodin and Salminen 2002, Handbook of Brownian Motion, eq. 1.3.8 of part II, for the joint
    law of X_t and L_t of Brownian motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.bounds import values_of
from sdegen.core.channels import deviation
from sdegen.core.checks import check_finite, check_int
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise_structure import check_not_general
from sdegen.core.shapes import State
from sdegen.observables.base import Block
from sdegen.observables.coordinates import coordinate_of
from sdegen.observables.functionals import Functional, Increments

_NEVER = 40.0  # a chance of e^−40 is not drawn for
_REACH = 8.0  # standard deviations of a step that a bridge goes
_SORTED_OUT = {"cpu"}  # devices on which to draw for few rows costs less than to find them


@dataclass(frozen=True)
class LocalTime(Functional):
    """The density of occupation of one coordinate with respect to dx, shape (T, rows) of a path.

        L_t(a) = ∫ δ(X_s − a) ds

    Args:
        level: a, in units of the state.
        coordinate: Which number of the flattened event.
        name: What the result is called.
        histogram: (low, high, bins), where an ensemble counts the values too.
        temperature: T, where an ensemble averages e^{−A/T} too.

    Raises:
        TypeError: If level is no number, or coordinate no int.
        ValueError: If level is not finite.

    Example:
        >>> walk, x0 = sg.BrownianMotion(1.0), torch.zeros(20_000, 1)
        >>> asked = [sg.LocalTime(0.0)]
        >>> times = [0.0, 0.5, 1.0]
        >>> run = sg.run_ensemble(walk, x0, times, trajectories=20_000, observables=asked, rng=0)
        >>> f"{run.observables['local_time'].mean[-1]:.2f}"  # √(2t/π) = 0.798
        '0.80'
    """

    level: float
    coordinate: int = 0
    name: str = field(default="local_time", kw_only=True)

    compares_means: ClassVar[bool] = True  # each draws bridges of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("level", self.level)
        check_int("coordinate", self.coordinate)

    def increments(self, block: Block) -> Increments:
        """Return what adds up a block.

        Raises:
            ValueError: If the dynamics jump, are without noise, or a chain on integer times; if
                no noise moves the coordinate, such as a position beside its velocity; or where
                reflecting or absorbing ends bound the coordinate.
        """
        return _AtLevel(self, block)


class _AtLevel(Increments):
    """Draws the local time of a bridge in each step."""

    def __init__(self, about: LocalTime, block: Block) -> None:
        sde, kind = block.sde, type(block.sde).__name__
        why = ", which a Brownian bridge does not have; TimeIntegral of a narrow window does."
        check_no_jumps(sde, "LocalTime", why)
        check_not_general(sde, "LocalTime")
        if sde.noise == "none" or sde.is_discrete:
            raise ValueError(
                f"LocalTime is that of a diffusion, but {kind} "
                f"{'is a chain on integer times' if sde.is_discrete else 'has no noise'}; take "
                "TimeIntegral of a narrow window, lambda x: ((x - a).abs() < w).double()[:, 0] / "
                "(2 * w)."
            )
        self._about, self._block = about, block
        self._dts: list[float] = block.nodes.diff().abs().tolist()
        self._period = 0.0
        if block.periods is not None:
            self._period = float(block.periods.reshape(-1)[about.coordinate])

    def start(self, x: State) -> Tensor:
        about, block = self._about, self._block
        coordinate_of(x, about.coordinate, about.name)
        self._check_noise(x)
        interval = None if block.boundary is None else block.boundary.of(about.coordinate)
        ends = [] if interval is None or interval.wraps else [interval.low, interval.high]
        reach = _REACH * math.sqrt(max(self._dts)) * float(self._strength(0, x).max())
        for end in (end for end in ends if end is not None):
            gap = float((values_of(end.at, block.nodes) - about.level).abs().min())
            if gap < reach:
                raise ValueError(
                    f"level = {about.level:g} is {gap:.3g} from an end of the boundary, where a "
                    f"step of {max(self._dts):.3g} is no free bridge up to {reach:.3g}; take "
                    "shorter steps (substeps=…), or another level."
                )
        return super().start(x)

    def _check_noise(self, x: State) -> None:
        """Refuse a coordinate that no noise moves: a bridge without width is never at a level."""
        sde, looks = self._block.sde, (0, len(self._dts) // 2)
        if sde.noise != "additive" and not sde.phase_space:
            return  # noise may be 0 where it starts
        if all(float(self._strength(i, x).max()) == 0 for i in looks):
            raise ValueError(
                f"LocalTime is that of a coordinate with noise, but coordinate "
                f"{self._about.coordinate} of {type(sde).__name__} has none, as positions beside "
                "velocities; take TimeIntegral of a narrow window, lambda z: ((z.flatten(1)[:, "
                f"{self._about.coordinate}] - a).abs() < w).double() / (2 * w)."
            )

    def _strength(self, i: int, x: State) -> Tensor:
        """Return |g| of the coordinate, a number or one for each trajectory, in double."""
        g = deviation(self._block.sde, x, self._block.nodes[i]).detach().double().abs()
        if g.numel() == 1:
            return g.reshape(())
        return g.expand_as(x).flatten(1)[:, self._about.coordinate]

    def step(self, i: int, before: State, after: State) -> Tensor:
        x, y = (
            state.detach().double().flatten(1)[:, self._about.coordinate]
            for state in (before, after)
        )
        if self._period > 0:  # the image of the level that is nearest to the step
            level = self._about.level + self._period * (
                ((x + y) / 2 - self._about.level).div_(self._period).round_()
            )
            x, y = x - level, y - level
        else:
            x, y = x - self._about.level, y - self._about.level
        square = self._strength(i, before).square()
        spread = 2 * self._dts[i] * square
        excess = (x * y).mul_(4).clamp_(min=0)  # s² − d²
        total = torch.zeros_like(x)
        rows: Tensor | slice = slice(None)
        if x.device.type in _SORTED_OUT:
            rows = (excess < _NEVER * spread).nonzero()[:, 0]
            if len(rows) == 0:
                return total
        s, excess = x[rows].abs() + y[rows].abs(), excess[rows]
        spread, square = (v if v.ndim == 0 else v[rows] for v in (spread, square))
        generator = self._block.stream.generator(x.device)
        u = torch.rand(s.shape, generator=generator, dtype=torch.float64, device=x.device)
        # (s + g² l)² = d² − 2 g² dt log u, less s, without the difference of near numbers
        more = -spread * u.log() - excess
        length = more / ((s * s + more).clamp(min=0).sqrt() + s)
        total[rows] = torch.where(more > 0, length / square.clamp(min=1e-300), 0.0)
        return total
