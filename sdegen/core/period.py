"""Whether a period is the dynamics' own: f(x + L, t) = f(x, t), and g likewise.

A state that leaves a period at one end comes in at the other. That is the motion on the line,
seen modulo L, only where drift and diffusion do not tell x from x + L. A period that is not theirs
makes another drift, with a jump where the ends meet. Of several coordinates each goes around by
itself: a spring between two places on a ring, k (x₁ − x₂), has no period.
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
_ROUNDINGS = 64  # of the largest value, that a coordinate may differ by
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
    rows = torch.arange(1, repeats * len(x) + 1, dtype=torch.float64, device=flat.device)
    length, here = high - low, flat.repeat(repeats, 1)
    # moved together: particles keep their distances, and do not meet
    moved = here[:, columns].double() - low + length * torch.frac(rows * GOLDEN)[:, None]
    here[:, columns] = (low + moved.remainder(length)).to(here)
    # a period apart with all of them, and with some: x₁ − x₂ is the same where both are
    some = torch.frac(torch.outer(rows, rows.new_tensor(columns) + 1) * GOLDEN) < 0.5
    apart = some | (rows[:, None] % 2 == 1) | (len(columns) == 1)
    there = here.clone()
    there[:, columns] += (length * apart).to(here)
    for t in times:
        for name, field in fields_of(sde):
            first, second = (_values(field, y, x, t) for y in (here, there))
            gap = (first - second).abs().nan_to_num(nan=torch.inf)
            # of what is finite at neither, nothing is known: the run says where it is lost
            gap[~(first.isfinite() | second.isfinite())] = 0.0
            size = torch.cat([first, second]).abs().nan_to_num(posinf=0.0).amax(0)
            # each coordinate by itself: a fast one hides no other, but for rounding
            rounding = _ROUNDINGS * torch.finfo(size.dtype).eps * size.max()
            allowed = torch.maximum(ROUNDED_PERIOD * size, rounding)
            wrong = (gap > allowed).any(1)
            if int(wrong.sum()) > _JUMPS * len(wrong):
                excess = torch.where(gap > allowed, gap / allowed, 0.0)
                i, column = divmod(int(excess.argmax()), gap.shape[1])
                k = int(apart[i].int().argmax())
                a = float(here[i, columns[k]])
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


def check_periods(sde: SDE, boundary: Enclosure, rows: State, times: Sequence[Tensor]) -> None:
    """Refuse the periods of a boundary that are not the dynamics' own.

    In a phase space they are looked at without velocities too, beside which a force may be small.

    Args:
        sde: What moves.
        boundary: What the states are kept inside of.
        rows: States.
        times: When, 0-d each.

    Raises:
        ValueError: As `check_period`.
    """
    states = [rows]
    if boundary.phase_space:
        states.append(torch.stack([rows[:, 0], torch.zeros_like(rows[:, 1])], 1))
    for coordinates, interval in boundary.parts:
        if interval.wraps:
            low, high = interval.fixed
            for x in states:
                check_period(sde, boundary.columns(coordinates), low, high, x, times)
