"""The times of an SDE: where to read it if it knows none, and whether it does.

Whether drift or diffusion depend on time the SDE says itself, `autonomous`. Where it does not, an
answer at rest is given if they answered alike at some times from 0 to 16 at which it is defined;
that this is an assumption is said in the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.sde.base import SDE

__all__ = ["GOLDEN", "LATEST", "Answers", "moves", "same", "span", "start", "varies"]

Answers = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

LATEST = 16.0  # the last time that is looked at where no run says which
GOLDEN = 0.6180339887498949
_TIMES = 32
_POINTS = 500


def start(sde: SDE) -> float:
    """A time at which the dynamics are defined."""
    low, high = sde.time_range
    return low if low > -math.inf else min(0.0, high)


def span(sde: SDE) -> tuple[float, float]:
    """The times at which a dependence on time is looked for where there is no run."""
    low, high = sde.time_range
    return max(low, min(0.0, high)), min(high, max(0.0, low) + LATEST)


def moves(sde: SDE, answers: Answers, x: Tensor) -> bool:
    """Whether drift or diffusion depend on time: as the SDE says, or as they answer.

    Args:
        sde: What may say it.
        answers: Its f and g at states and a time.
        x: States, shape (batch, 1), of which some are asked about.
    """
    if sde.autonomous is not None:
        return not sde.autonomous
    return varies(answers, x, torch.linspace(*span(sde), 4, dtype=torch.float64))


@torch.no_grad()
def varies(answers: Answers, x: Tensor, times: Tensor) -> bool:
    """Whether what drift and diffusion answer changes over times, or between them.

    Args:
        answers: f and g at states and a time.
        x: States, shape (batch, 1), of which some are asked about.
        times: Times, shape (T,), of which some are asked at.
    """
    ts, last = times.tolist(), len(times) - 1
    count = min(last, _TIMES - 1)
    picked = [ts[k * last // count] for k in range(count + 1)]
    between = [a + GOLDEN * (b - a) for a, b in itertools.pairwise(picked)]
    early = picked[0] + (picked[-1] - picked[0]) * GOLDEN**3
    some = x[:: max(1, len(x) // _POINTS)]
    clock = torch.tensor([*picked, *between, early], dtype=torch.float64).unbind()
    first = answers(some, clock[0])
    return any(not all(map(same, answers(some, t), first)) for t in clock[1:])


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two answers are one, to the last bit."""
    return a is b or (a.dtype == b.dtype and torch.equal(a, b))
