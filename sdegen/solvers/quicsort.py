"""QUICSORT: a method of order 3 for phase space with constant friction, by shifted paths.

Over a step of length h the Wiener process is replaced by a path that jumps by H + 6K, rises in a
straight line by ΔW − 12K, and jumps by 6K − H,

    H = (1/h) ∫ (W − u ΔW/h) du,        K = (1/h²) ∫ (½h − u)(W − u ΔW/h) du,

with W from the step's start on, at times u in it: the path has the increment, the area and the
moment of W, so that it moves positions and velocities to within h^{7/2}. Between the jumps what is
left is an equation without noise, with a constant force s beside F,

    dx = v dt,        dv = [F(x, t)/m − γ v + s] dt,        s = √(2γT/m) (ΔW − 12K)/h,

and is solved by a Runge–Kutta method of order 3 in which friction and s are exact. With
φ₁(a) = (1 − e^{−γa})/γ, φ₂(a) = (γa − 1 + e^{−γa})/γ² and Gauss' points λ = ½ ∓ √3/6 = l, r,

    x₁ = x + φ₁(lh) v + φ₂(lh) s
    x₂ = x + φ₁(rh) v + φ₂(rh) s + h φ₁(h/3) F₁/m
    x' = x + φ₁(h) v + φ₂(h) s + ½h [φ₁(rh) F₁ + φ₁(lh) F₂]/m
    v' = e^{−γh} v + φ₁(h) s + ½h [e^{−γrh} F₁ + e^{−γlh} F₂]/m

with F₁ = F(x₁, t + lh), F₂ = F(x₂, t + rh), v behind the first jump and v' before the last.

Reference:
    Scott, O'Kane, Jelinčič and Foster 2025, arXiv:2508.16485, for the method and its order;
    Foster, Lyons and Oberhauser 2021, arXiv:2101.03446, definition 1.2, for the shifted path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.fixed_steps import FixedStep, Interval, intervals_of, to_floats
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Need
from sdegen.core.step_noise import StepNoise
from sdegen.core.update import Number, diffuse, update
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.splitting import check_phase_space, halves_of, is_number, like, state_of

_LEFT, _RIGHT = 0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6
_SERIES, _TERMS = 0.5, 15  # γa below which φ₂ is summed, to rounding


class _Coefficients(NamedTuple):
    """What friction makes of a step: e^{−γa}, φ₁(a), φ₂(a) at parts of it, by their names."""

    decay_left: Any
    decay_right: Any
    decay: Any
    flight_left: Any
    flight_right: Any
    flight: Any
    flight_third: Any
    pull_left: Any
    pull_right: Any
    pull: Any


@dataclass(frozen=True)
class QUICSORT(FixedStep):
    """Order 3 in phase space, with constant friction. Two forces a step, and three normals.

        x' = x + φ₁(h) v + φ₂(h) s + ½ h [φ₁(rh) F₁ + φ₁(lh) F₂]/m
        v' = e^{−γh} v + φ₁(h) s + ½ h [e^{−γrh} F₁ + e^{−γlh} F₂]/m

    with l, r = ½ ∓ √3/6; the page of the module has φ, s and F. States have shape
    (batch, 2, *event).

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Scott, O'Kane, Jelinčič and Foster 2025, arXiv:2508.16485.

    Example:
        >>> spring = sg.UnderdampedLangevin(sg.Quadratic(), friction=0.0, temperature=0.0)
        >>> start, times = spring.state([[1.0]], [[0.0]]), [0.0, 0.25, 0.5]
        >>> *_, end = sg.integrate(spring, sg.QUICSORT(), start, times)
        >>> [f"{number:.3f}" for number in end.flatten()]  # cos ½ and −sin ½
        ['0.878', '-0.479']
    """

    needs: ClassVar[tuple[Need, ...]] = ("increments", "space_time_areas", "space_time_moments")
    orders: ClassVar[Orders] = Orders(flow=3, additive=(3, 3), multiplicative=None)
    evaluations: ClassVar[int] = 2
    noise_evaluations: ClassVar[str] = "1"
    stability: ClassVar[float | None] = 2.49
    when: ClassVar[str] = (
        "Positions and velocities, smooth forces, friction of no x: paths and averages on the way "
        "to rest."
    )

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse what is no phase space, and friction that depends on x."""
        super().check(sde, nodes)
        check_phase_space(self, sde, nodes)
        varies = callable(getattr(sde, "friction", None))
        if varies:
            raise ValueError(
                "QUICSORT solves a constant friction exactly, but friction is a function γ(x): "
                "take BAOAB(substeps=…)."
            )

    def begin(self, sde: SDE, nodes: Tensor) -> tuple[list[Interval], list[_Coefficients] | None]:
        """Return the intervals, and the coefficients of each where friction is a number."""
        assert isinstance(sde, UnderdampedLangevin)
        intervals = intervals_of(sde, nodes)
        if not is_number(sde.friction):
            return intervals, None
        of_steps = torch.stack([*_coefficients(sde.friction_at(nodes), nodes.diff())], 1)
        return intervals, [_Coefficients(*to_floats(one)) for one in of_steps]

    def step(
        self,
        sde: SDE,
        x: State,
        i: int,
        noise: Noise | None,
        memory: tuple[list[Interval], list[_Coefficients] | None],
    ) -> tuple[State, tuple[list[Interval], list[_Coefficients] | None]]:
        """Jump, take both stages with the force of the straight path, and jump."""
        assert isinstance(sde, UnderdampedLangevin)
        intervals, known = memory
        t, _, h, _ = intervals[i]
        place, v = halves_of(sde, x)
        c = known[i] if known is not None else _coefficients(sde.friction_at(place), h)
        c = _Coefficients(*(like(one, v) for one in c))
        each = like(h / sde.mass, v)
        last: Tensor | None = None
        slope = torch.zeros_like(v)
        if noise is not None:
            first, slope, last = _shifted(sde, noise, i, h, v)
            v = v + first
        # what friction and the straight path make of x at a part of the step
        left = update(place, v, c.flight_left)
        force = sde.force(diffuse(left, slope, c.pull_left), torch.add(t, _LEFT * h)) * each
        right = diffuse(update(place, v, c.flight_right), slope, c.pull_right)
        right = diffuse(right, force, c.flight_third)
        late = sde.force(right, torch.add(t, _RIGHT * h)) * each
        place = diffuse(update(place, v, c.flight), slope, c.pull)
        place = diffuse(diffuse(place, force, 0.5 * c.flight_right), late, 0.5 * c.flight_left)
        v = diffuse(v * c.decay, slope, c.flight)
        v = diffuse(diffuse(v, force, 0.5 * c.decay_right), late, 0.5 * c.decay_left)
        return state_of(place, v if last is None else v + last), memory


def _nonzero(y: Tensor) -> Tensor:
    """Return y, and 1 where it is 0, so that a branch that is not taken has finite gradients."""
    return torch.where(y == 0, torch.ones_like(y), y)


def _shifted(
    sde: UnderdampedLangevin, noise: Noise, i: int, h: Number, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return √(2γT/m) times the first jump, the slope and the last jump of the path of a step."""
    assert isinstance(noise, StepNoise)  # as `needs` has it
    drawn = noise.increment(i), noise.space_time_area(i), noise.space_time_moment(i)
    w, area, moment = (one[:, 1] for one in drawn)
    bridge = area / h - 0.5 * w  # H
    tilt = 0.5 * bridge - moment / h**2 + w / 3  # K
    g = like((2 * sde.friction_at(v) * sde.temperature / sde.mass).sqrt(), v)
    return g * (bridge + 6 * tilt), g * ((w - 12 * tilt) / h), g * (6 * tilt - bridge)


def _coefficients(rate: Tensor, h: Number) -> _Coefficients:
    """Return the coefficients of steps h, of the shape of γh."""
    parts = [share * h for share in (_LEFT, _RIGHT, 1.0)]
    return _Coefficients(
        *(torch.exp(-rate * a) for a in parts),
        *(_flight(rate, a) for a in (*parts, h / 3)),
        *(_pull(rate, a) for a in parts),
    )


def _flight(rate: Tensor, a: Number) -> Tensor:
    """Return φ₁(a) = (1 − e^{−γa})/γ."""
    y = rate * a
    return a * torch.where(y.abs() < 1e-8, 1 - 0.5 * y, -torch.expm1(-y) / _nonzero(y))


def _pull(rate: Tensor, a: Number) -> Tensor:
    """Return φ₂(a) = (γa − 1 + e^{−γa})/γ², where γa is small by its series."""
    y = rate * a
    series = torch.zeros_like(y)
    for k in range(_TERMS, -1, -1):  # Σ (−y)^k/(k + 2)!
        series = 1 / math.factorial(k + 2) - y * series
    return a * a * torch.where(y.abs() < _SERIES, series, (y + torch.expm1(-y)) / _nonzero(y) ** 2)
