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
from sdegen.verification.diagnosis.model import (
    STANDS_STILL,
    TWICE,
    Alternative,
    Fitted,
    fitted_law,
    gain_of,
    log_normal,
    of_law,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Belief, Evaluation, Transitions, evaluate
from sdegen.verification.innovations.law import StepLaw

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
    free = replace(belief, boundary=None)
    if enclosure.wraps:
        return _periods(belief, enclosure)
    low, high = ends_of(enclosure)
    table += [
        of_law("walls ignored", _KIND, "there were no walls", lambda: free.law),
        Alternative("clipped at the walls", _KIND, "states beyond a wall were put on it, not "
                    "reflected", _clipped(low, high), costly=True),
        extremes,
    ]  # fmt: skip
    if bool((low.isfinite() & high.isfinite()).any()):
        for words, ends in (("lower", (low, torch.full_like(high, math.inf))),
                            ("upper", (torch.full_like(low, -math.inf), high))):  # fmt: skip

            def one(ends: tuple[Tensor, Tensor] = ends) -> StepLaw:
                return replace(belief, boundary=reflecting(*ends)).law

            table.append(
                of_law("reflected at one end only", _KIND,
                       f"states were reflected at the {words} end alone", one)
            )  # fmt: skip

        def around() -> StepLaw:
            return replace(belief, boundary=_mapped(low, high, Periodic)).law

        words = "states came in at the other end, where they should be reflected"
        table.append(of_law("periodic for reflecting", _KIND, words, around))
    if not enclosure.absorbs:

        def reflect() -> StepLaw:
            return replace(belief, boundary=reflecting(low, high)).law

        words = "trajectories stopped at a wall, where they should be reflected"
        table.append(Alternative("absorbing for reflecting", _KIND, words, _stopped(low, high)))
    else:
        words = "states were reflected, where they should be absorbed"

        def mirrored() -> StepLaw:
            return replace(belief, boundary=reflecting(low, high)).law

        table.append(of_law("reflecting for absorbing", _KIND, words, mirrored))
    return table


def ends_of(enclosure: Enclosure) -> tuple[Tensor, Tensor]:
    """Return the ends of each coordinate, ∓∞ where there is none."""
    d = math.prod(enclosure.event)
    low = torch.full((d,), -math.inf, dtype=torch.float64)
    high = torch.full((d,), math.inf, dtype=torch.float64)
    for columns, interval in enclosure.parts:
        which = list(enclosure.columns(columns))
        low[which], high[which] = interval.fixed
    return low, high


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
    law = replace(belief, boundary=reflecting(low, high)).law
    words = f"walls stood near {float(low[0]):.4g} and {float(high[0]):.4g}"
    count = 2 if same else 2 * len(low)
    return fitted_law(law, data, parameters=count, value=float(high[0]), words=words)


def _clipped(low: Tensor, high: Tensor) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of steps that are cut off at walls: an atom on each of them."""

    def fit(data: Transitions) -> Fitted | None:
        free = evaluate(replace(data.belief, boundary=None).law, data)
        after = data.after.flatten(2).double()
        z, scale = free.z, data.diffusion * data.lengths.sqrt()[:, None, None]
        at_low, at_high = after == low, after == high
        if not bool((at_low | at_high).any()):
            return None
        outside = (after < low) | (after > high)
        tail = torch.where(at_low, torch.special.log_ndtr(z), torch.special.log_ndtr(-z))
        wall = at_low | at_high
        # the mass of an atom, as a density over the rounding of a state
        atom = tail - math.log(2 * data.resolution) - log_normal(z)
        each = torch.where(wall, atom, torch.where(outside, _NEVER, 0.0))
        log_p = free.log_p + each.sum(2)
        u = torch.rand(z.shape, generator=data.fresh, dtype=torch.float64)
        below = torch.special.ndtr(z)
        share = torch.where(at_low, u * below, below + u * (1 - below)).clamp(1e-16, 1 - 1e-16)
        new = torch.where(wall, torch.special.ndtri(share), z)
        evaluation = Evaluation(
            new, free.pull, log_p, free.judged & data.base.judged, scale.log().sum(2), free.gap
        )
        excused = (STANDS_STILL, TWICE)
        return Fitted(gain_of(evaluation, data), lambda: evaluation, excused=excused)

    return fit


def _stopped(low: Tensor, high: Tensor) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of trajectories that stay where they have touched a wall."""

    def fit(data: Transitions) -> Fitted | None:
        x, after = data.x.flatten(2).double(), data.after.flatten(2).double()
        still = (x == after).all(2)
        ended = still & ((x <= low) | (x >= high)).any(2)
        if not bool(ended.any()):
            return None
        k = data.base.z.shape[2]
        each = 0.5 * data.base.z.square() - math.log(2 * data.resolution)
        ratio = torch.where(ended[..., None], each, 0.0)
        fresh = torch.randn((*x.shape[:2], k), generator=data.fresh, dtype=torch.float64)
        evaluation = with_noise(data, torch.where(ended[..., None], fresh, data.base.z), ratio)
        gain = float((evaluation.log_p - data.base.log_p).sum())
        return Fitted(gain, lambda: evaluation, excused=(STANDS_STILL, TWICE))

    return fit


def _periods(belief: Belief, enclosure: Enclosure) -> list[Alternative]:
    """Return periods that are ignored, or of another length."""
    low, high = ends_of(enclosure)

    def fitted(data: Transitions) -> Fitted | None:
        a, b = _extremes(data)
        first, last = float(a.min()), float(b.max())
        law = replace(belief, boundary=_mapped(
            torch.where(low.isfinite(), first, low), torch.where(high.isfinite(), last, high),
            Periodic)).law  # fmt: skip
        words = f"the box were {last - first:.4g} long"
        return fitted_law(law, data, parameters=1, value=last - first, words=words)

    def reflect() -> StepLaw:
        return replace(belief, boundary=reflecting(low, high)).law

    free = replace(belief, boundary=None)
    return [
        of_law("period ignored", _KIND, "coordinates did not go around", lambda: free.law),
        Alternative("box of another length", _KIND, "", fitted, costly=True),
        of_law("reflecting for periodic", _KIND, "states were reflected, where they should come "
               "in at the other end", reflect),
    ]  # fmt: skip
