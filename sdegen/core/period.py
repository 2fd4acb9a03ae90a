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
from sdegen.core.enclosure import Enclosure
from sdegen.core.noise_structure import fields_of
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
    flat, columns = x.detach().flatten(1), list(coordinates)
    repeats = -(-_PLACES // len(x))
    place = torch.frac(torch.arange(1, repeats * len(x) + 1, dtype=torch.float64) * GOLDEN)
    here = flat.repeat(repeats, 1)
    here[:, columns] = (low + (high - low) * place).to(here)[:, None]
    there = here.clone()
    there[:, columns] += high - low
    for t in times:
        for name, field in fields_of(sde):
            first, second = (_values(field, y, x, t) for y in (here, there))
            gap = (first - second).abs().nan_to_num(nan=torch.inf)
            scale = float(torch.cat([first, second]).abs().nan_to_num(posinf=0.0).max())
            wrong = (gap > ROUNDED_PERIOD * scale).any(1)
            if int(wrong.sum()) > _JUMPS * len(wrong):
                i, column = divmod(int(gap.argmax()), gap.shape[1])
                a = float(here[i, columns[0]])
                raise ValueError(
                    f"[{low:g}, {high:g}] is no period of the {name}: it is "
                    f"{float(first[i, column]):.6g} at x = {a:.6g} and "
                    f"{float(second[i, column]):.6g} at x = {a + high - low:.6g}, t = "
                    f"{float(t):g}. Pass the ends of its own period; a {name} that is known "
                    "within one alone takes torch.remainder(x - low, high - low) + low in place "
                    "of x."
                )


@torch.no_grad()
def _values(
    field: Callable[[State, Tensor], Tensor], places: Tensor, x: State, t: Tensor
) -> Tensor:
    """Return a field at flat states, asked for as many rows at a time as x has, as flat."""
    parts = (y.reshape(x.shape) for y in torch.split(places, len(x)))
    return torch.cat([field(y, t).flatten(1) for y in parts])


def check_periods(sde: SDE, boundary: Enclosure, rows: State, t: Tensor) -> None:
    """Refuse the periods of a boundary that are not the dynamics' own.

    Args:
        sde: What moves.
        boundary: What the states are kept inside of.
        rows: States.
        t: Time, 0-d.

    Raises:
        ValueError: As `check_period`.
    """
    for coordinates, interval in boundary.parts:
        if interval.wraps:
            low, high = interval.fixed
            check_period(sde, boundary.columns(coordinates), low, high, rows, [t])
