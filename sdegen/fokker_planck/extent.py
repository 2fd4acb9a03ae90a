"""Where a stationary density lives: how far out it has to be followed before nothing is left.

log p(x) = ∫ f/D dx − log D, up to a constant, is integrated outward on points that move apart
geometrically. It is followed until it has fallen by 40 below its peak and stays there, or until
the noise ends.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from sdegen.errors import NotNormalizableError
from sdegen.sde.base import SDE

__all__ = ["extent"]

Array = NDArray[np.float64]

_FALL = 40.0
_PASSES = 8
_AT_END = 1e-3  # of the density's extent: as near as this to where the noise ends is there
_NEAREST, _FARTHEST = 1e-9, 1e8
_POINTS = 1500  # of each of three spacings, on each side
_BISECTIONS = 60


def extent(sde: SDE, near: float | None) -> tuple[float, float, float, float]:
    """The ends of a stationary density, its peak, and its width.

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        near: A point where the process lives; None takes 0, 1 or ½.

    Returns:
        Lower end, upper end, position of the peak, half-width in which half of the mass lies.

    Raises:
        NotNormalizableError: If the density does not fall.
        ValueError: If drift or diffusion are not finite at the point, or there is no noise.
    """
    starts = [near] if near is not None else [0.0, 1.0, 0.5]
    start = next((x for x in starts if _lives(sde, x)), None)
    if start is None:
        raise ValueError(
            f"drift and diffusion must be finite and D > 0 at x = {starts[0]:g}; pass near=, a "
            "point where the process lives."
        )
    for _ in range(_PASSES):  # points lie closest at the start: go to the peak and look again
        sides = [_outward(sde, start, sense) for sense in (-1.0, 1.0)]
        x = np.concatenate([sides[0][0][::-1], sides[1][0][1:]])
        log_p = np.concatenate([sides[0][1][::-1], sides[1][1][1:]])
        log_p -= log_p.max()
        start, before = float(x[log_p.argmax()]), start
        if start == before:
            break
    alive = np.flatnonzero(log_p > -_FALL)
    reach = _AT_END * float(x[alive[-1]] - x[alive[0]])
    ends = []
    for side, index, at_end in (
        ("low", int(alive[0]) - 1, sides[0][2]),
        ("high", int(alive[-1]) + 1, sides[1][2]),
    ):
        inside = 0 <= index < len(x)
        if at_end is not None and (not inside or abs(float(x[index]) - at_end) < reach):
            ends.append(at_end)
        elif inside:
            ends.append(float(x[index]))
        else:
            farthest = float(x[0] if side == "low" else x[-1])
            raise NotNormalizableError(
                f"there is no stationary density to cover: towards {side} x it has not fallen by "
                f"e^-{_FALL:g} of its peak at x = {farthest:g}; give the grid yourself."
            )
    weight = np.exp(log_p)
    mass = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]) * np.diff(x))])
    quarter, three = np.interp([0.25 * mass[-1], 0.75 * mass[-1]], mass, x)
    return ends[0], ends[1], float(np.interp(0.5 * mass[-1], mass, x)), float(three - quarter) / 2


def _lives(sde: SDE, x: float) -> bool:
    """Whether drift and diffusion are finite at x, and there is noise."""
    f, d = _read(sde, np.array([x]))
    return bool(np.isfinite(f[0]) and np.isfinite(d[0]) and d[0] > 0)


def _wall(sde: SDE, inside: float, outside: float) -> float:
    """Where the noise ends, from a point on either side: a round number, if it exists there."""
    round_one = round(outside, 12)
    f, d = _read(sde, np.array([round_one]))
    exists = bool(np.isfinite(f[0]) and np.isfinite(d[0]))
    return round_one if exists else inside


def _read(sde: SDE, x: Array) -> tuple[Array, Array]:
    """f and D at points."""
    low, high = sde.time_range
    t = low if low > -math.inf else min(0.0, high)
    state = torch.from_numpy(x)[:, None]
    with torch.no_grad():
        time = torch.tensor(t, dtype=torch.float64)
        f = sde.drift(state, time).double()[:, 0] * sde.direction
        g = sde.diffusion(state, time).double().expand_as(state)[:, 0]
    return f.numpy(), (0.5 * g**2).numpy()


def _outward(sde: SDE, start: float, sense: float) -> tuple[Array, Array, float | None]:
    """Points to one side, log p there, and the end of the state space if it is met."""
    near, beyond = np.geomspace(_NEAREST, 1, _POINTS), np.geomspace(1, _FARTHEST, _POINTS)
    far = np.unique(np.concatenate([[0.0], near, np.linspace(0, 1, _POINTS), beyond]))
    x = start + sense * far
    f, d = _read(sde, x)
    dead = ~(np.isfinite(f) & np.isfinite(d) & (d > 0))
    end = None
    if dead.any():
        first = int(dead.argmax())
        inside, outside = float(x[first - 1]), float(x[first])
        for _ in range(_BISECTIONS):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if _lives(sde, middle) else (inside, middle)
        end = _wall(sde, inside, outside)
        # closer and closer to where the noise ends
        gap = max(abs(float(x[first - 1]) - end), 1e-300)
        x = np.concatenate([x[:first], end - sense * gap * np.geomspace(0.9, 1e-6, 200)])
        f, d = _read(sde, x)
        alive = np.isfinite(f) & np.isfinite(d) & (d > 0)
        x, f, d = x[alive], f[alive], d[alive]
    with np.errstate(over="ignore", invalid="ignore"):
        slope = f / d
        rise = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(x))])
    log_p = np.nan_to_num(rise - np.log(d), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    return x, np.maximum(log_p, -1e300), end
