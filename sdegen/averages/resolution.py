"""Resolution: how many steps it takes to see how drift and noise change with time.

Levels are told from each other by their differences. Where all of them step over a pulse, or in
time with an oscillation, they agree on what is wrong. So what steps see of drift and squared noise
at a few states, the mean over their beginnings, is compared with the mean over places of each of
1024 parts of the run that are in time with nothing: of levels that are begun with, the difference
of both must be of the size that the levels' own differences say.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sdegen.core.errors import AccuracyWarning
from sdegen.core.sde import SDE
from sdegen.core.shapes import State

_MOST = 10  # 2¹⁰ looks at the beginnings of steps
_GOLDEN = 0.6180339887498949
_STATES = 4
_SURE = 2.0  # times the error that differences of levels say
_FAINT = 1e-2  # of how far a value moves with time: what may be missed of its mean
_ROUNDING = 1e-6


def least_level(sde: SDE, x: State, span: tuple[float, float]) -> int:
    """Return the number s of the least level to begin with, 2^s steps, by what changes with time.

    Args:
        sde: What moves.
        x: A few states, shape (batch, *event).
        span: First and last time.

    Warns:
        AccuracyWarning: If more than 2¹⁰ steps are needed to see what changes.
    """
    if sde.autonomous:
        return 0
    places = torch.arange(2**_MOST, dtype=torch.float64)
    values = _looked_at(sde, x[:_STATES], span, places / 2**_MOST)
    apart = (places + (places * _GOLDEN) % 1) / 2**_MOST
    true = _looked_at(sde, x[:_STATES], span, apart)
    moved = true.std(0)
    some = moved > _ROUNDING * true.abs().amax(0)  # NaN is not
    if not bool(some.any()):
        some = values.std(0) > _ROUNDING * values.abs().amax(0)
        if not bool(some.any()):
            return 0
    means = torch.stack([values[:: 2 ** (_MOST - k), some].mean(0) for k in range(_MOST + 1)])
    missed, steps = (means - true[:, some].mean(0)).abs(), means.diff(dim=0).abs()
    least = 0
    for last in range(2, _MOST + 1):
        said = torch.maximum(steps[last - 1], steps[last - 2] / 2)
        if bool((missed[last] > _SURE * said + _FAINT * moved[some]).any()):
            least = last - 1  # the finest of three levels is one more
    if least == _MOST - 1:
        least = _MOST + 1
        warnings.warn(
            f"drift or noise of {type(sde).__name__} change faster than {2**_MOST} steps from t = "
            f"{span[0]:g} to {span[1]:g} see, which levels begin with: what is shorter may be "
            "missed, and is not in the half width. Ask for the average over shorter times.",
            AccuracyWarning,
            stacklevel=4,
        )
    return least


def _looked_at(sde: SDE, x: State, span: tuple[float, float], shares: Tensor) -> Tensor:
    """Return drift and squared noise at times, shape (times, values)."""
    first, last = span
    rows = []
    for t in (first + (last - first) * shares).unbind(0):
        row = [sde.drift(x, t).double().flatten()]
        if sde.noise != "none":
            row.append(sde.diffusion(x, t).double().square().flatten())
        rows.append(torch.cat(row))
    return torch.stack(rows)
