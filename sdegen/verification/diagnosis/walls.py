"""Walls that are missing, shifted or of another kind; periods of another length.

A state that lies on an end to all digits, or that leaves the box, has no density under reflection,
so that a few of them decide. Laws with ends at other places are reflected at the extremes of all
states that were stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.boundary import Boundary, Periodic, Reflecting
from sdegen.core.enclosure import Enclosure
from sdegen.core.mirrors import enclosure_for
from sdegen.verification.diagnosis.belief import Belief, ends_of
from sdegen.verification.diagnosis.model import (
    STANDS_STILL,
    TWICE,
    Alternative,
    Fitted,
    fitted_law,
    gain_of,
    log_normal,
)
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions, evaluate

_KIND = "boundary"
_MOST = 64  # coordinates, each of which gets ends of its own
_NEVER = -40.0


def wall_alternatives(belief: Belief) -> list[Alternative]:
    """Return mistakes of boundaries."""
    if belief.sde.phase_space or belief.sde.noise_structure != "diagonal":
        return []
    table: list[Alternative] = []
    extremes = Alternative("walls shifted", _KIND, "", _moved_walls, costly=True)
    if belief.boundary is None:
        words = "states were reflected at walls that are not believed"
        return [Alternative("walls not believed", _KIND, words, _moved_walls, costly=True)]
    enclosure = enclosure_for(belief.sde, belief.boundary, belief.states.event)
    if enclosure is None:
        return []
    if enclosure.wraps:
        return _periods(belief, enclosure)
    low, high = ends_of(enclosure)
    nowhere = torch.full_like(low, math.inf)
    table += [
        _inside(belief, "walls ignored", "there were no walls", None),
        Alternative("clipped at the walls", _KIND, "states beyond a wall were put on it, not "
                    "reflected", _clipped(low, high), costly=True),
        extremes,
    ]  # fmt: skip
    if bool((low.isfinite() & high.isfinite()).any()):
        name = "reflected at one end only"
        words = "states were reflected at the {} end alone"
        table += [
            _inside(belief, name, words.format("lower"), reflecting(low, nowhere)),
            _inside(belief, name, words.format("upper"), reflecting(-nowhere, high)),
            _inside(belief, "periodic for reflecting", "states came in at the other end, where "
                    "they should be reflected", _mapped(low, high, Periodic)),
        ]  # fmt: skip
    if not enclosure.absorbs:
        words = "trajectories stopped at a wall, where they should be reflected"
        stopped = _clipped(low, high, stops=True)
        table.append(Alternative("absorbing for reflecting", _KIND, words, stopped, costly=True))
    else:
        words = "states were reflected, where they should be absorbed"
        table.append(_inside(belief, "reflecting for absorbing", words, reflecting(low, high)))
    return table


def _inside(belief: Belief, name: str, words: str, boundary: object) -> Alternative:
    """Return the alternative of another boundary."""
    other = replace(belief, boundary=boundary)

    def fit(data: Transitions) -> Fitted | None:
        return fitted_law(other.law, data, belief=other)

    return Alternative(name, _KIND, words, fit, costly=True)


def reflecting(low: Tensor, high: Tensor) -> dict[int, Boundary]:
    """Return reflection at the ends of each coordinate."""
    return _mapped(low, high, Reflecting)


def _mapped(low: Tensor, high: Tensor, kind: type[Reflecting | Periodic]) -> dict[int, Boundary]:
    """Return a boundary for each coordinate that has an end."""
    return {
        i: kind(float(a), float(b))
        for i, (a, b) in enumerate(zip(low, high, strict=True))
        if math.isfinite(a) or math.isfinite(b)
    }


def _extremes(data: Transitions) -> tuple[Tensor, Tensor]:
    """Return the extremes of all states that were stored, of each coordinate."""
    states = data.belief.states
    frames = states.shape[0]
    width = max(1, 2**20 // math.prod(states.shape[1:]))
    lows, highs = [], []
    for a in range(0, frames, width):
        rows = states.block(a, min(a + width, frames)).flatten(0, 1).flatten(1)
        lows.append(rows.amin(0))
        highs.append(rows.amax(0))
    return torch.stack(lows).amin(0).double(), torch.stack(highs).amax(0).double()


def _moved_walls(data: Transitions) -> Fitted | None:
    """Fit reflection at the extremes, of each coordinate or of all together."""
    if math.prod(data.event) > _MOST:
        return None
    low, high = _extremes(data)
    if bool((high <= low).any()):
        return None
    belief = data.belief
    if belief.boundary is not None:
        enclosure = enclosure_for(belief.sde, belief.boundary, belief.states.event)
        assert enclosure is not None
        first, last = ends_of(enclosure)
        low = torch.where(first.isfinite(), low, first)
        high = torch.where(last.isfinite(), high, last)
    spread = (high - low).abs()
    same = bool((low - low.amin()).abs().max() <= 0.02 * spread.min()) and len(low) > 1
    if same:
        low, high = low.amin().expand(len(low)), high.amax().expand(len(high))
    spread = 1e-7 * (high - low)  # no state lies on a wall
    other = replace(belief, boundary=reflecting(low - spread, high + spread))
    words = f"walls stood near {float(low[0]):.4g} and {float(high[0]):.4g}"
    count = 2 if same else 2 * len(low)
    value = float(high[0])
    return fitted_law(other.law, data, parameters=count, value=value, words=words, belief=other)


def _clipped(
    low: Tensor, high: Tensor, *, stops: bool = False
) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of steps that are cut off at walls, an atom on each of them.

    Args:
        low: Lower ends.
        high: Upper ends.
        stops: Whether a coordinate, or all of a trajectory, stays on a wall that it has touched.
    """

    def fit(data: Transitions) -> Fitted | None:
        other = replace(data.belief, boundary=None)
        free = evaluate(other.law, data, other)
        x, after = data.x.flatten(2).double(), data.after.flatten(2).double()
        z, scale = free.z, data.diffusion * data.lengths.sqrt()[:, None, None]
        at_low, at_high = after == low, after == high
        wall = at_low | at_high
        if not bool(wall.any()):
            return None
        outside = (after < low) | (after > high)
        # the mass of an atom, as a density over the rounding of a state
        unit = -math.log(2 * data.resolution) - log_normal(z)
        tail = torch.where(at_low, torch.special.log_ndtr(z), torch.special.log_ndtr(-z))
        each = torch.where(wall, tail + unit, torch.where(outside, _NEVER, 0.0))
        below = torch.special.ndtr(z)
        u = torch.rand(z.shape, generator=data.fresh, dtype=torch.float64)
        share = torch.where(at_low, u * below, below + u * (1 - below)).clamp(1e-16, 1 - 1e-16)
        new = torch.where(wall, torch.special.ndtri(share), z)
        touched, still = (x <= low) | (x >= high), x == after
        if stops:
            ended = still & (touched | (still.all(2) & touched.any(2))[..., None])
            each = torch.where(ended, unit, torch.where(touched, _NEVER, each))
            fresh = torch.randn(z.shape, generator=data.fresh, dtype=torch.float64)
            new = torch.where(ended, fresh, new)
        evaluation = Evaluation(
            new,
            torch.where(touched, 0.0, free.pull) if stops else free.pull,
            free.log_p + each.sum(2),
            free.judged & data.base.judged,
            scale.log().sum(2),
            free.gap,
        )
        excused = (STANDS_STILL, TWICE)
        return Fitted(gain_of(evaluation, data), lambda: evaluation, excused=excused)

    return fit


def _periods(belief: Belief, enclosure: Enclosure) -> list[Alternative]:
    """Return periods that are ignored, or of another length."""
    low, high = ends_of(enclosure)

    def fitted(data: Transitions) -> Fitted | None:
        a, b = _extremes(data)
        first, last = float(a.min()), float(b.max())
        ends = (
            torch.where(low.isfinite(), first, low),
            torch.where(high.isfinite(), last, high),
        )
        other = replace(belief, boundary=_mapped(*ends, Periodic))
        words = f"the box were {last - first:.4g} long"
        return fitted_law(
            other.law, data, parameters=1, value=last - first, words=words, belief=other
        )

    words = "states were reflected, where they should come in at the other end"
    return [
        _inside(belief, "period ignored", "coordinates did not go around", None),
        Alternative("box of another length", _KIND, "", fitted, costly=True),
        _inside(belief, "reflecting for periodic", words, reflecting(low, high)),
    ]
