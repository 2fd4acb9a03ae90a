"""Absorbing ends that move, at rest in a coordinate that moves with them.

Between ends a(t) and b(t), of which one may stay, y = (x − a)/ℓ with ℓ = b − a runs from 0 to 1,
and

    dY = [f(a + ℓY, t) − a′ − Y ℓ′]/ℓ dt + g(a + ℓY, t)/ℓ dW

is an SDE with coefficients that depend on time between ends that do not move. What leaves there
leaves here: survival and the density of first passages are the same, and p(x) = p(y)/ℓ. An end
that jumps is read as one that moves fast, at the times at which the dynamics are looked at.

Reference:
    Gutiérrez Jáimez, Román Román and Torres Ruiz 1991, J. Appl. Prob. 28, 766, for the
    transformation of moving boundaries to fixed ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.bounds import Bound, values_of
from sdegen.core.errors import SdegenError
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.cubics import interpolated
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundary

_STEP = 1e-6  # of max(1, |t|): over which an end's speed is a difference
_LOOKS = 257  # between the first and the last time, where ends are looked at
_HELD = 256  # times at which motion is remembered
_NARROW = 1e-9  # of the grid: two ends that are nearer have met


class MovingEnds:
    """Two ends, at least one of which moves.

    Args:
        boundary: Their kinds, and what each follows.
        grid: What they move in; an end that does not move is its end.
    """

    def __init__(self, boundary: GridBoundary, grid: Grid) -> None:
        self.grid = grid
        low, high = boundary.moving
        self._low: Bound = grid.low if low is None else low
        self._high: Bound = grid.high if high is None else high
        self._last: dict[float, tuple[float, float, float, float]] = {}

    def at(self, t: float) -> tuple[float, float]:
        """Return a and b at a time."""
        return self.motion(t)[:2]

    def motion(self, t: float) -> tuple[float, float, float, float]:
        """Return a, b, a′ and b′ at a time, the speeds by differences.

        Raises:
            ValueError: If an end is nowhere.
        """
        if t not in self._last:
            if len(self._last) > _HELD:
                self._last.clear()
            low, high = _value(self._low, t), _value(self._high, t)
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError(
                    f"a bound must be finite at all times, but at t = {t:g} the ends are at "
                    f"{low:g} and {high:g}."
                )
            self._last[t] = low, high, _speed(self._low, t), _speed(self._high, t)
        return self._last[t]

    def check(self, times: Tensor) -> None:
        """Refuse ends that meet, or leave the grid, at a time of a run.

        Raises:
            ValueError: Saying when and where.
        """
        between = torch.linspace(float(times[0]), float(times[-1]), _LOOKS, dtype=torch.float64)
        ts = torch.cat([times, between]).sort().values
        low, high = values_of(self._low, ts), values_of(self._high, ts)
        width = self.grid.high - self.grid.low
        met = high - low <= _NARROW * width
        if bool(met.any()):
            i = int(met.nonzero()[0])
            raise ValueError(
                f"the absorbing ends meet: at t = {float(ts[i]):g} they are at {float(low[i]):g} "
                f"and {float(high[i]):g}; end times before that, nothing is left then."
            )
        for name, values, out in (
            ("low", low, low < self.grid.low - _NARROW * width),
            ("high", high, high > self.grid.high + _NARROW * width),
        ):
            if bool(out.any()):
                i = int(out.nonzero()[0])
                raise ValueError(
                    f"the {name} end is at x = {float(values[i]):g} at t = {float(ts[i]):g}, "
                    f"outside of the grid [{self.grid.low:g}, {self.grid.high:g}]; pass a grid "
                    "that holds both ends at all times."
                )

    def unit(self) -> Grid:
        """Return the user's grid from 0 to 1."""
        x = self.grid.nodes
        y = (x - x[0]) / (x[-1] - x[0])
        return Grid(0.0, 1.0, self.grid.cells) if self.grid.even else Grid.of(y)

    def place(self, x0: float, t: float) -> float:
        """Return y of a start.

        Raises:
            ValueError: If it does not lie between the ends.
        """
        low, high = self.at(t)
        if not low < x0 < high:
            raise ValueError(
                f"x0 = {x0:g} does not lie between the ends, which are at {low:g} and {high:g} at "
                f"t = {t:g}."
            )
        return (x0 - low) / (high - low)

    def inward(self, density: Density, unit: Grid, t: float) -> Density:
        """Return a density on the user's grid as one in y; what lies beyond the ends is gone."""
        low, high = self.at(t)
        return Density(unit.nodes, density.at(low + (high - low) * unit.nodes) * (high - low))

    def outward(self, path: DensityPath) -> DensityPath:
        """Return densities in y as those on the user's grid, 0 beyond the ends."""
        x, rows = self.grid.nodes, []
        for t, p in zip(path.times.tolist(), path.p, strict=True):
            low, high = self.at(t)
            y = (x - low) / (high - low)
            inside = (y >= 0) & (y <= 1)
            values = interpolated(path.x, p, y.clamp(0, 1)) / (high - low)
            rows.append(torch.where(inside, values, 0.0).clamp(min=0))
        p = torch.stack(rows)
        return DensityPath(path.times, p, x, told=path.told, form=path.form)


@contextmanager
def in_words_of_the_frame() -> Iterator[None]:
    """Add to an error of what is solved in y what its x is."""
    try:
        yield
    except (SdegenError, ValueError) as error:
        error.add_note(
            "while a density between ends a(t) and b(t) that move was solved for: x in this "
            "message is (x − a)/(b − a), and runs from 0 to 1, unless it is an end of the grid."
        )
        raise


class MovingFrame(SDE):
    """The dynamics of y = (x − a)/(b − a).

    Args:
        sde: Those of x.
        ends: a and b.

    Raises:
        ValueError: If the SDE is meant for decreasing times.
    """

    autonomous: bool | None = False

    def __init__(self, sde: SDE, ends: MovingEnds) -> None:
        if sde.direction < 0:
            raise ValueError(
                "absorbing ends that move are for dynamics that run forward in time; this SDE is "
                "meant for decreasing times."
            )
        self._sde, self._ends = sde, ends

    @property
    def time_range(self) -> tuple[float, float]:
        """Earliest and latest time at which the dynamics are defined."""
        return self._sde.time_range

    direction: Literal[1, -1] = 1

    def drift(self, x: State, t: Time) -> State:
        """Return (f − a′ − y ℓ′)/ℓ."""
        low, high, down, up = self._ends.motion(float(t))
        width = high - low
        f = self._sde.drift(low + width * x, t)
        return (f - down - x * (up - down)) / width

    def diffusion(self, x: State, t: Time) -> Tensor:
        """Return g/ℓ."""
        low, high = self._ends.at(float(t))
        return self._sde.diffusion(low + (high - low) * x, t) / (high - low)


def _speed(bound: Bound, t: float) -> float:
    """Return the derivative of a bound, from ahead where it is not defined behind."""
    if not callable(bound):
        return 0.0
    step = _STEP * max(1.0, abs(t))
    behind, ahead = _value(bound, t - step), _value(bound, t + step)
    if math.isfinite(behind) and math.isfinite(ahead):
        return (ahead - behind) / (2 * step)
    here, sense = _value(bound, t), 1.0 if math.isfinite(ahead) else -1.0
    near, far = _value(bound, t + sense * step), _value(bound, t + 2 * sense * step)
    return sense * (4 * near - 3 * here - far) / (2 * step)


def _value(bound: Bound, t: float) -> float:
    """Return where a bound is; NaN where it is not defined."""
    if not callable(bound):
        return bound
    try:
        return float(bound(torch.tensor(t, dtype=torch.float64)))
    except (ValueError, ArithmeticError):
        return math.nan
