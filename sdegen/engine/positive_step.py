"""A step that stays positive: at a reflecting end towards which the noise vanishes.

Where g = 0 at an end, as √x at 0, the spread of a step exceeds the distance: folded, a state would
be pushed away, by O(√dt) in the mean. There g² is proportional to the distance ξ and f to nothing,
nearly, and the law of a step of

    dξ = a dt + s √ξ dW    is    ξ' ~ c χ'²(d, λ),    c = s² dt/4,  d = a dt/c,  λ = ξ/c

a noncentral χ², which is positive, has an atom at the end where nothing leads away from it (a = 0)
and none elsewhere. Near such an end it replaces the plain step, with the mean and the variance of
the step,

    m = |x + f dt − b|,    v = ½ (g(x, t)² + g(x + f dt, s)²) dt
    c = v/(2 (m + ξ)),     d = (m − ξ)/c,     λ = ξ/c        (where m < ξ, with ξ = m: d = 0)

so that means are those of the chain, and laws are exact in the limit of a near end. It is drawn
from the boundary's own stream, as 2c times a Gamma variable of shape d/2 + N, N ~ Poisson(λ/2).
Where m > 5√v the plain step is taken.

Reference:
    Glasserman 2003, Monte Carlo Methods in Financial Engineering, section 3.4.1, for the exact
    step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.boundary import End
from sdegen.core.channels import deviation
from sdegen.core.enclosure import Enclosure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State

_SORTED_OUT = {"cpu"}  # devices on which to draw for few rows costs less than to find them
_FAR = 25.0  # m² over v, beyond which a step does not reach the end
_MOST_JUMPS = 1e6  # of a Poisson variable, where a distance is far beyond a step's reach
_VANISHED = 1e-8  # of g where the states are: below it, at an end, there is no noise


def noise_vanishes(
    enclosure: Enclosure, k: int, sde: SDE, x0: State, t: Tensor
) -> tuple[bool, bool]:
    """Return whether the noise vanishes at the reflecting ends of a part, lower and upper.

    Args:
        enclosure: What bounds the states.
        k: Which of its parts.
        sde: What moves.
        x0: States inside.
        t: When g is asked, 0-d.
    """
    coordinates, interval = enclosure.parts[k]
    if sde.noise != "multiplicative" or enclosure.phase_space:  # where no noise moves positions
        return False, False
    rows = x0.detach()  # all of them: g may hold a parameter for each
    columns = list(enclosure.columns(coordinates))

    def noise_at(place: float | None) -> Tensor:
        moved = rows.flatten(1).clone()
        if place is not None:
            moved[:, columns] = place
        g = deviation(sde, moved.reshape(rows.shape), t).expand_as(rows).flatten(1)
        return g[:, columns].abs()

    with torch.no_grad():
        noise = noise_at(None)
        vanishes = []
        for end, other in ((interval.low, interval.high), (interval.high, interval.low)):
            if end is None or not end.boundary.positive_step or callable(end.at):
                vanishes.append(False)
                continue
            seen = noise
            if not bool((noise > 0).any()):  # as where all start at the end itself
                seen = noise_at(_inside(float(end.at), other, low=end is interval.low))
            vanishes.append(
                bool((noise_at(end.at) <= _VANISHED * seen).all() and (seen > 0).any())
            )
    return vanishes[0], vanishes[1]


def _inside(end: float, other: End | None, *, low: bool) -> float:
    """Return a place inside: in the middle of two fixed ends, or beside the only one."""
    if other is not None and not callable(other.at):
        return 0.5 * (end + other.at)
    return end + (1.0 if low else -1.0) * 0.1 * (1 + abs(end))


def positive_step(
    x: Tensor,
    y: Tensor,
    kick: Tensor,
    g: Tensor,
    g_ahead: Callable[[Tensor], Tensor],
    dt: float,
    ends: tuple[float, float],
    vanishing: tuple[bool, bool],
    generator: torch.Generator,
) -> Tensor:
    """Return coordinates after a step, drawn anew where an end without noise is near.

    Args:
        x: Coordinates before the step.
        y: Where it led, same shape.
        kick: Its noise, √dt g z.
        g: Noise at x.
        g_ahead: Noise after the step, at coordinates.
        dt: Length of the step.
        ends: Lower and upper end.
        vanishing: Which of them have no noise; one at least.
        generator: What is drawn from.
    """
    low, high = ends
    middle = y - kick  # x + f dt
    v = 0.5 * dt * (g.square() + g_ahead(middle.clamp(low, high)).square())
    to_low, to_high = middle - low, high - middle
    lower = to_low <= to_high
    if vanishing != (True, True):
        lower = torch.full_like(lower, vanishing[0])
    m = torch.where(lower, to_low, to_high)
    near = (m <= 0) | (v > m.square() / _FAR)
    start = torch.where(lower, x - low, high - x)
    away = _distance(m, v, start, near, generator)
    drawn = torch.where(lower, low + away, high - away).clamp(low, high)
    return torch.where(near, drawn, y)


def _distance(
    m: Tensor, v: Tensor, start: Tensor, near: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw distances ≥ 0 of mean m and variance v from distances `start`, where near."""
    few = m.device.type in _SORTED_OUT
    m_near, v_near, start = (q[near] if few else q for q in (m, v, start))
    mean = m_near.double().clamp(min=0)
    from_ = torch.minimum(start.double().clamp(min=0), mean)
    c = v_near.double() / (2 * (mean + from_))
    c = torch.where((mean > 0) & (c > 0), c, 1.0)  # no noise, or no way: no spread
    shape = (mean - from_) / (2 * c)
    jumps = torch.poisson((from_ / (2 * c)).clamp(max=_MOST_JUMPS), generator=generator)
    drawn = 2 * c * torch._standard_gamma(shape + jumps, generator=generator)
    drawn = torch.where((shape + jumps > 0) & (mean > 0), drawn, 0.0)
    drawn = torch.where(v_near > 0, drawn, mean).to(m.dtype)
    if not few:
        return drawn
    away = torch.zeros_like(m)
    away[near] = drawn
    return away
