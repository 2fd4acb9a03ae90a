"""Whether a period is the dynamics' own: f(x + L, t) = f(x, t), and g likewise.

A state that leaves a period at one end comes in at the other. That is the motion on the line,
seen modulo L, only where drift and diffusion do not tell x from x + L. A period that is not theirs
makes another drift, with a jump where the ends meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdegen.core.derivatives import GOLDEN
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.tolerances import ROUNDED_PERIOD

_PLACES = 31  # where f(x + L) is compared with f(x): odd, and no fraction of a period
_JUMPS = 0.05  # of the places may lie on a jump of f


def check_period(
    sde: SDE,
    coordinates: Sequence[int],
    low: float,
    high: float,
    x: State,
    times: Sequence[Tensor],
) -> None:
    """Refuse a period that is not that of drift and diffusion.

    Args:
        sde: What moves.
        coordinates: Which of the flattened event have the period.
        low: Where it begins.
        high: Where it ends.
        x: States, whose other coordinates are taken as they are, shape (batch, *event).
        times: When f and g are asked, 0-d each.

    Raises:
        ValueError: With the place of the largest difference, and both values.
    """
    x, columns, n = x.detach(), list(coordinates), len(x)
    for t in times:
        for name, field in (("drift", sde.drift), ("diffusion", sde.diffusion)):
            pairs = [_pair(field, x, t, columns, low, high, k) for k in range(0, _PLACES, n)]
            here, first = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
            second = torch.cat([pair[2] for pair in pairs])
            gap = (first - second).abs().nan_to_num(nan=torch.inf)
            scale = float(torch.cat([first, second]).abs().nan_to_num(posinf=0.0).max())
            wrong = (gap > ROUNDED_PERIOD * scale).any(1)
            if int(wrong.sum()) > _JUMPS * len(wrong):
                i, column = divmod(int(gap.argmax()), gap.shape[1])
                a = float(here[i, columns[0]])
                there = a + high - low
                raise ValueError(
                    f"[{low:g}, {high:g}] is no period of the {name}: it is "
                    f"{float(first[i, column]):.6g} at x = {a:.6g} and "
                    f"{float(second[i, column]):.6g} at x = {there:.6g}, t = {float(t):g}. Pass "
                    f"the ends of its own period; a {name} that is known within one alone takes "
                    f"torch.remainder(x - low, high - low) + low in place of x."
                )


def _pair(
    field: Callable[[State, Tensor], Tensor],
    x: State,
    t: Tensor,
    columns: list[int],
    low: float,
    high: float,
    k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Places in the period, the field there, and one period further, shape (batch, d) each."""
    place = torch.frac(torch.arange(k + 1, k + 1 + len(x), dtype=torch.float64) * GOLDEN)
    here = x.flatten(1).clone()
    here[:, columns] = (low + (high - low) * place).to(here)[:, None]
    there = here.clone()
    there[:, columns] += high - low
    with torch.no_grad():
        first, second = (
            field(y.reshape(x.shape), t).expand_as(x).flatten(1) for y in (here, there)
        )
    return here, first, second
