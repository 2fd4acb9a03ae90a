"""Trajectories that are reflected once, and stay there for good.

A step that meets a wall is taken, and folded back as is believed; from then on the coordinate, or
all of the trajectory, does not move. So whether a step has met a wall is told by what follows, and
it is unfolded: in place of the sum of images of the believed law the free density counts where it
went on, and the mirrored one where it froze.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.mirrors import enclosure_for
from sdegen.verification.diagnosis.belief import Belief, ends_of
from sdegen.verification.diagnosis.model import (
    STANDS_STILL,
    TWICE,
    Alternative,
    Fitted,
    gain_of,
    log_normal,
)
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions, evaluate

_AT_LEAST = 3  # trajectories that are frozen


def frozen_alternatives(belief: Belief) -> list[Alternative]:
    """Return trajectories that freeze beside a wall; none without walls that reflect."""
    if belief.ends is None or belief.boundary is None or not belief.folds:
        return []
    words = "trajectories that met a wall were reflected once, and stopped for good"
    return [Alternative("absorbing for reflecting", "boundary", words, _fit, costly=True)]


def _fit(data: Transitions) -> Fitted | None:
    """Unfold the steps before trajectories, or coordinates, that do not move any more."""
    belief = data.belief
    enclosure = enclosure_for(belief.sde, belief.boundary, belief.states.event)
    if enclosure is None:
        return None
    low, high = ends_of(enclosure)
    other = replace(belief, boundary=None)
    free = evaluate(other.law, data, other)
    x, after = data.x.flatten(2).double(), data.after.flatten(2).double()
    if free.z.shape != x.shape:
        return None
    still = x == after
    whole = still.all(2)
    if int(whole.any(0).sum()) >= _AT_LEAST:
        still = whole[..., None].expand(still.shape)
    elif int(still.any(0).sum()) < _AT_LEAST or still.shape[2] == 1:
        return None
    stays, follows = _stays(still, data)
    if stays is None:
        return None
    scale = data.diffusion * data.lengths.sqrt()[:, None, None]
    mirrored = free.z - 2 * (after - _nearest(after, low, high)) / scale.clamp(min=1e-150)
    finite = mirrored.isfinite()
    hit = follows & ~still & finite
    if bool(whole.any()):  # a trajectory freezes by one coordinate: that for which it is likeliest
        score = torch.where(finite, log_normal(mirrored) - log_normal(free.z), -math.inf)
        hit &= torch.nn.functional.one_hot(score.argmax(2), score.shape[2]).bool()
    z = torch.where(hit, mirrored, free.z)
    unit = -math.log(2 * data.resolution) - log_normal(z)
    each = torch.where(still, unit, log_normal(z) - log_normal(free.z))
    fresh = torch.randn(z.shape, generator=data.fresh, dtype=torch.float64)
    evaluation = Evaluation(
        torch.where(still, fresh, z),
        torch.where(still, 0.0, free.pull),
        free.log_p + each.sum(2),
        free.judged & data.base.judged,
        free.log_scale,
        free.gap,
    )
    # whether the last step of a stretch met a wall is not known
    known = torch.ones_like(whole)
    for part in data.stretches:
        known[part.stop - 1] = False
    evaluation = evaluation.within(known, data.fresh)
    return Fitted(gain_of(evaluation, data), lambda: evaluation, excused=(STANDS_STILL, TWICE))


def _stays(still: Tensor, data: Transitions) -> tuple[Tensor | None, Tensor]:
    """Return which numbers stand still, if they do for good, and which from the next step on."""
    follows = torch.zeros_like(still)
    for part in data.stretches:
        row = still[part]
        if bool((row[:-1] & ~row[1:]).any()):
            return None, follows
        follows[part.start : part.stop - 1] = row[1:]
    return still, follows


def _nearest(y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the nearer of both ends of each coordinate; infinite where it has none."""
    return torch.where((y - low).abs() <= (high - y).abs(), low, high)
