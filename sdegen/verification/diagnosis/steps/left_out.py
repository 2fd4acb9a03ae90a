"""Steps that are left out, or that begin elsewhere than at the last state."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.factors import residual_of
from sdegen.verification.diagnosis.model import (
    LOG_TWO_PI,
    STANDS_STILL,
    TWICE,
    Alternative,
    Fitted,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions

_KIND = "step"


def left_out_alternatives(belief: Belief) -> list[Alternative]:
    """Return steps that are left out, and those that forget the state."""
    table = [
        Alternative("nothing moves", _KIND, "nothing moved at all", _still(_all)),
        Alternative("last step left out", _KIND, "the last step were left out", _still(_last)),
        Alternative("first step left out", _KIND, "the first step were left out", _still(_first)),
        Alternative("steps left out", _KIND, "some steps were left out", _still(_some)),
    ]
    if belief.boundary is None and not belief.sde.phase_space:
        words = "each step began at 0, not at the last state"
        table += [
            Alternative("state forgotten", _KIND, words, _forgotten(keeps_drift=True)),
            Alternative("state forgotten", _KIND, words + ", and without drift",
                        _forgotten(keeps_drift=False)),
        ]  # fmt: skip
    return table


def _all(still: Tensor, _: Transitions) -> Tensor | None:
    return still if bool(still.all()) else None


def _last(still: Tensor, data: Transitions) -> Tensor | None:
    return _only(still, -1, int(data.steps[-1]) == len(data.belief.states.times) - 2)


def _first(still: Tensor, data: Transitions) -> Tensor | None:
    return _only(still, 0, int(data.steps[0]) == 0)


def _only(still: Tensor, which: int, at_the_end: bool) -> Tensor | None:
    """Return the frames that stand still, if that is one frame alone."""
    alone = at_the_end and bool(still[which]) and int(still.sum()) == 1
    return still if alone else None


def _some(still: Tensor, _: Transitions) -> Tensor | None:
    return still if 0 < int(still.sum()) < len(still) else None


def _still(
    chosen: Callable[[Tensor, Transitions], Tensor | None],
) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of frames in which no number moves."""

    def fit(data: Transitions) -> Fitted | None:
        z = data.base.z
        if z.shape[2] == 0 or z[0].numel() < 2:
            return None
        rest = (data.after == data.x).flatten(1).all(1)
        frames = chosen(rest, data)
        if frames is None:
            return None
        mask = frames[:, None, None]
        each = 0.5 * z.square() + 0.5 * LOG_TWO_PI - math.log(2 * data.resolution)
        fresh = torch.randn(z.shape, generator=data.fresh, dtype=torch.float64)
        evaluation = with_noise(
            data, torch.where(mask, fresh, z), torch.where(mask, each, torch.zeros_like(z))
        )
        gain = float((evaluation.log_p - data.base.log_p).sum())
        return Fitted(
            gain, lambda: evaluation, value=float(frames.sum()), excused=(STANDS_STILL, TWICE)
        )

    return fit


def _forgotten(*, keeps_drift: bool) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of steps that begin at 0."""

    def fit(data: Transitions) -> Fitted | None:
        z = data.base.z
        x = data.x.flatten(2).double()
        if z.shape != x.shape or bool((x == 0).all()):
            return None
        scale = data.diffusion * data.lengths.sqrt()[:, None, None]
        shift = -x / scale.clamp(min=1e-150)
        if not keeps_drift:
            shift = shift - data.base.pull
        evaluation: Evaluation = residual_of(data, shift, 2.0, 1.0)
        gain = float((evaluation.log_p - data.base.log_p).sum())
        return Fitted(gain, lambda: evaluation)

    return fit
