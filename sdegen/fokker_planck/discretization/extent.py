"""Where a stationary density lives: how far out it has to be followed before nothing is left.

log p(x) = ∫ f/D dx − log D, up to a constant, is integrated outward on points that move apart
geometrically, and again on points that are even over what was found. It is followed until it has
fallen by 40 below its peak and stays there, or until the noise ends. Simpson's rule integrates it,
and its distance from that of Gauss, two points in each interval, says whether points are near
enough to each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid

from sdegen.core.errors import NotNormalizableError
from sdegen.core.jumps import check_no_jumps
from sdegen.core.reduction import reduced
from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization import time_dependence as clock
from sdegen.fokker_planck.discretization.arrays import Array

_FALL = 40.0
_PASSES = 8
_AT_END = 1e-3  # of the density's extent: as near as this to where the noise ends is there
_NEAREST, _FARTHEST = 1e-9, 1e8
_POINTS = 1500  # of each of three spacings, on each side
_BISECTIONS = 60
_GAUSS = 0.5 / 3**0.5  # of an interval, from its middle to the points of Gauss
_COARSE = 0.1  # of log p: what two rules of fourth order may differ by
_HIGH, _STEEP = 2.0, 5.0  # of log p: within the one of its peak a step may be the other (0.3 %)
_BEYOND = 1.05  # of what was found: how far it is looked at again
_MISSED = 0.1  # of the mass: by how much nodes may be wrong about it


@dataclass(frozen=True)
class Extent:
    """Where a stationary density lives.

    Args:
        low: Its lower end.
        high: Its upper end.
        center: Its median.
        width: Half of the distance between its quartiles.
        x: Points.
        log_p: Its log there, the peak 0.
    """

    low: float
    high: float
    center: float
    width: float
    x: Array
    log_p: Array

    def is_seen_by(self, nodes: Array) -> bool:
        """Return whether its mass, by trapezoids on the nodes, is that by those on its own points.

        Points of its own that are too far apart for a second peak count as nodes that are. A cell
        at whose wall the density is highest is left out: its integral is known by its power.
        """
        first, last = self.log_p.argmax() == 0, self.log_p.argmax() == len(self.x) - 1
        nodes = nodes[int(first) : len(nodes) - int(last)]
        inside = self.x[(self.x > nodes[0]) & (self.x < nodes[-1])]
        x = np.concatenate([nodes[:1], inside, nodes[-1:]])
        whole = np.exp(np.interp(x, self.x, self.log_p))
        high = np.maximum(self.log_p[1:], self.log_p[:-1]) > -_HIGH
        if np.abs(np.diff(self.log_p))[high].max() > _STEEP:
            return False
        p = np.exp(np.interp(nodes, self.x, self.log_p))
        mass, seen = np.trapezoid(whole, x), np.trapezoid(p, nodes)
        return bool(abs(seen - mass) < _MISSED * mass)


def extent(sde: SDE, near: float | None) -> Extent:
    """Find where a stationary density lives.

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        near: A point where the process lives; None takes 0, 1 or ½.

    Returns:
        Its ends, its middle, and itself.

    Raises:
        NotNormalizableError: If the density does not fall, or not where it can be followed.
        ValueError: If drift or diffusion depend on time or are not finite at the point, or there
            is no noise.
    """
    check_no_jumps(sde, "Grid.covering")
    sde = reduced(sde, "Grid.covering")
    starts = [near] if near is not None else [0.0, 1.0, 0.5]
    start = next((x for x in starts if _lives(sde, x)), None)
    if start is None:
        raise ValueError(
            f"drift and diffusion must be finite and D > 0 at x = {starts[0]:g}; pass near=, a "
            "point where the process lives."
        )
    _check_still(sde, start)
    reaches = (1.0, 1.0)
    for attempt in range(_PASSES):
        # points lie closest at the start, and evenly over what was found: go to the peak and look
        # again
        below, log_below, errors_below, low = _outward(sde, start, -1.0, reaches[0])
        above, log_above, errors_above, high = _outward(sde, start, 1.0, reaches[1])
        x = np.concatenate([below[::-1], above[1:]])
        log_p = np.concatenate([log_below[::-1], log_above[1:]])
        errors = np.concatenate([errors_below[::-1], errors_above])
        log_p -= log_p.max()
        start, before = _middle(x, log_p, (low, high)), start
        # of a density that is infinite at an end no peak is known: it falls from its middle
        alive = np.flatnonzero(log_p > min(float(np.interp(start, x, log_p)), 0.0) - _FALL)
        reaches = start - float(x[alive[0]]), float(x[alive[-1]]) - start
        if start == before and attempt > 0:
            break
    ends, first, last = [], int(alive[0]), int(alive[-1])
    reach = _AT_END * float(x[last] - x[first])
    for side, index, at_end in (("low", first - 1, low), ("high", last + 1, high)):
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
    _check_followed(x, errors, alive)
    quarter, middle, three = _quantiles(x, log_p, [0.25, 0.5, 0.75])
    return Extent(ends[0], ends[1], middle, (three - quarter) / 2, x, log_p)


def _middle(x: Array, log_p: Array, ends: tuple[float | None, float | None]) -> float:
    """Return the peak, or the median if noise ends at the peak: there p may be infinite."""
    peak = int(log_p.argmax())
    if (peak > 0 or ends[0] is None) and (peak < len(x) - 1 or ends[1] is None):
        return float(x[peak])
    return _quantiles(x, log_p, [0.5])[0]


def _quantiles(x: Array, log_p: Array, levels: list[float]) -> list[float]:
    """Return quantiles, by trapezoids on the points."""
    mass = cumulative_trapezoid(np.exp(log_p), x, initial=0)
    quantiles: list[float] = np.interp(np.multiply(levels, mass[-1]), mass, x).tolist()
    return quantiles


def _check_still(sde: SDE, x: float) -> None:
    """Refuse what depends on time."""
    state = x + torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)[:, None]
    if clock.moves(sde, lambda y, t: (sde.drift(y, t), sde.diffusion(y, t)), state):
        raise ValueError(
            "a stationary density was to be covered, but drift or diffusion depend on time; "
            "freeze the time in the SDE, or give the ends of the grid: Grid(low, high, cells)."
        )


def _check_followed(x: Array, errors: Array, alive: NDArray[np.intp]) -> None:
    """Refuse an integral of f/D, up to where nothing is left, on points too far apart."""
    first, last = max(int(alive[0]) - 1, 0), int(alive[-1]) + 1  # the fall itself too
    if errors[first:last].sum() <= _COARSE:
        return
    worst = first + int(errors[first:last].argmax())
    raise NotNormalizableError(
        "there is no stationary density to cover: where it could be followed it has not fallen "
        f"by e^-{_FALL:g} of its peak. Between x = {x[worst]:g} and {x[worst + 1]:g} drift or "
        "diffusion change faster than the points at which they were asked for; give the grid "
        "yourself: Grid(low, high, cells)."
    )


def _lives(sde: SDE, x: float) -> bool:
    """Return whether drift and diffusion are finite at x, and there is noise."""
    return bool(_alive(*_read(sde, np.array([x]))).all())


def _alive(f: Array, d: Array) -> NDArray[np.bool_]:
    """Return where f and D are finite, and there is noise."""
    return np.isfinite(f) & np.isfinite(d) & (d > 0)


def _read(sde: SDE, x: Array) -> tuple[Array, Array]:
    """Return f and D at points."""
    state = torch.from_numpy(x)[:, None]
    with torch.no_grad():
        time = torch.tensor(clock.start(sde), dtype=torch.float64)
        f = sde.drift(state, time).double()[:, 0] * sde.direction
        g = sde.diffusion(state, time).double().expand_as(state)[:, 0]
    return f.numpy(), (0.5 * g**2).numpy()


def _outward(
    sde: SDE, start: float, sense: float, reach: float
) -> tuple[Array, Array, Array, float | None]:
    """Return one side of a start, on points that are even within reach.

    Returns:
        Points, the start first, and log p there, up to a constant; between two points each, by
        how much two rules for log p differ; and the end of the state space, if it is met.
    """
    near, beyond = np.geomspace(_NEAREST, 1, _POINTS), np.geomspace(1, _FARTHEST, _POINTS)
    even = np.linspace(0, _BEYOND * reach, _POINTS)
    far = np.unique(np.concatenate([[0.0], near, even, beyond]))
    x = start + sense * far
    f, d = _read(sde, x)
    dead = ~_alive(f, d)
    end = None
    if dead.any():
        first = int(dead.argmax())
        inside, outside = float(x[first - 1]), float(x[first])
        for _ in range(_BISECTIONS):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if _lives(sde, middle) else (inside, middle)
        end = round(outside, 12)  # a round number if one fits
        if not np.isfinite(_read(sde, np.array([end]))).all():
            end = inside
        # closer and closer to where the noise ends
        gap = max(abs(float(x[first - 1]) - end), 1e-300)
        x = np.concatenate([x[:first], end - sense * gap * np.geomspace(0.9, 1e-6, 200)])
        f, d = _read(sde, x)
        alive = _alive(f, d)
        x, f, d = x[alive], f[alive], d[alive]
    h = np.diff(x)
    centers = 0.5 * (x[1:] + x[:-1])
    with np.errstate(all="ignore"):
        slope = f / d
        places = (centers, centers - _GAUSS * h, centers + _GAUSS * h)
        mean, left, right = (np.divide(*_read(sde, at)) for at in places)
        simpson = (slope[1:] + slope[:-1] + 4 * mean) * h / 6
        errors = np.nan_to_num(abs(0.5 * (left + right) * h - simpson), nan=np.inf)
        rise = np.concatenate([[0.0], np.cumsum(simpson)])
        log_p = np.nan_to_num(rise - np.log(d), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    return x, np.maximum(log_p, -1e300), errors, end
