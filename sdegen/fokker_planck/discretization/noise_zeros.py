"""Zeros of the noise inside a grid, which no density here passes: found at points and between.

Where |g| falls steeply towards a minimum it may vanish between two points: the minimum is then
looked for, in zooms.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sdegen.fokker_planck.discretization.arrays import Array

_STEEP = 1.2  # |g| falls by as much to the point nearest to a zero of it, be it √, | | or a square
_MINIMA = 8  # how many are looked at
_LOOKS, _ZOOMS = 64, 10  # at so many points at once, and so often: 32¹⁰ times closer
_VANISHED = 1e-6  # of its value beside it: what counts as zero


def check_noise(x: Tensor, g: Tensor, t: float, diffusion: Callable[[Tensor], Tensor]) -> None:
    """Refuse D = 0 inside the grid; at a wall it may be.

    Args:
        x: Points, increasing, shape (points, 1).
        g: The diffusion there, same shape.
        t: The time, for the message.
        diffusion: g at other points, shape (n, 1).

    Raises:
        ValueError: With the place.
    """
    values = (g if g.stride(0) else g[:1]).numpy()  # one number may stand for all
    if len(values) == 1 and values[0]:
        return  # which has no minima
    positive = np.minimum.reduce(values) > 0
    if positive or np.maximum.reduce(values) < 0:
        where = _zero_between(x, values if positive else -values, diffusion)
        if where is not None:
            _refuse(where, t, "between two points")
        return
    if bool((g[1:] * g[:-1] > 0).all()):
        return
    zero = (g == 0)[1:-1] | (g[1:-1] * g[:-2] < 0)
    if bool(zero.any()):
        where, count = float(x[1:-1][zero][0, 0]), int(zero.sum())
        what = f"{count} of {len(zero)} points"
        _refuse(where, t, what, everywhere=count == len(zero))


def _refuse(where: float, t: float, what: str, *, everywhere: bool = False) -> None:
    flow = " Without noise a density is carried along a flow: simulate it." if everywhere else ""
    raise ValueError(
        f"D = g²/2 must be > 0 inside the grid, but is 0 at x = {where:g}, t = {t:g} "
        f"({what}); end the grid where the noise ends: there a wall may have D = 0.{flow}"
    )


@torch.no_grad()
def _zero_between(x: Tensor, g: Array, diffusion: Callable[[Tensor], Tensor]) -> float | None:
    """Return where |g| vanishes between two points, if it does: looked for at steep minima."""
    least = np.flatnonzero((g[1:-1] <= g[:-2]) & (g[1:-1] <= g[2:])) + 1
    steep = np.maximum(g[least - 1], g[least + 1]) > _STEEP * g[least]
    for i in least[steep][:_MINIMA]:
        low, high = float(x[i - 1]), float(x[i + 1])
        for _ in range(_ZOOMS):
            y = torch.linspace(low, high, _LOOKS, dtype=torch.float64)
            near = diffusion(y[:, None]).abs()[:, 0]
            k = int(near.argmin())
            low, high = float(y[max(k - 1, 0)]), float(y[min(k + 1, _LOOKS - 1)])
        if float(near[k]) < _VANISHED * g[i]:
            return float(y[k])
    return None
