"""The reader: drift and diffusion of an SDE on a grid, at one time or along many."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.evaluation import check_repeatable, told_of_graphs
from sdegen.core.rows import check_density_of
from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization import time_dependence as clock
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import (
    GAUSS_NODES,
    Coefficients,
    one_or_stack,
)
from sdegen.fokker_planck.discretization.gaps import missed
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.noise_zeros import check_noise

_AT = GAUSS_NODES.numpy()
_STRIDE = len(GAUSS_NODES) + 1  # of points: a node, and those of its cell
_FEW = 7  # every so many points are asked about alone


class Reader:
    """Reads an SDE on a grid.

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        grid: Where.

    Raises:
        ValueError: If the state is not one-dimensional, a value is not finite, the drift of a
            state depends on the other states of the batch, or D vanishes inside the grid.
        TypeError: If drift or diffusion is not a tensor.
    """

    def __init__(self, sde: SDE, grid: Grid) -> None:
        self.sde: SDE = sde
        self.grid: Grid = grid
        self._x = self._repeated = _points(grid)
        self._moves: bool | None = None
        self._last: _Reading | None = None
        self._read_at = math.nan
        self._seen: list[Tensor] | None = None
        answers = self._check_single(self.start)
        with torch.no_grad():
            sde.check_derivatives(self._x[:: len(self._x) - 1], _clock(self.start))
            self._held = _numbers(sde)
            if self._held is None:
                self._seen = [_own(v) for v in (*answers, *self._asked_later())]

    @cached_property
    def start(self) -> float:
        """A time at which the dynamics are defined."""
        return clock.start(self.sde)

    @property
    def autonomous(self) -> bool:
        """Whether drift and diffusion are known not to depend on time."""
        return bool(self.sde.autonomous)

    def on(self, grid: Grid) -> Reader:
        """Return a reader of the same SDE on another grid between the same walls.

        What was checked of the SDE is not checked again. It does not look for changes of the SDE:
        whoever holds it drops it when this one is `renewed`.
        """
        twin = copy.copy(self)
        twin.grid, twin._last, twin._read_at = grid, None, math.nan
        twin._x = twin._repeated = _points(grid)
        return twin

    def at(self, t: float) -> Coefficients:
        """Return the coefficients at time t: the same object while they keep every bit.

        With gradients they are always new.
        """
        if torch.is_grad_enabled():
            return self._coefficients(*self._evaluate(t), t)
        if self.sde.autonomous:
            t = self.start  # any time would do
        last = self._last
        if last is not None and self._read_at == t:
            return last.coefficients
        self._last, self._read_at = self._reading(*self._evaluate(t), t), t
        return self._last.coefficients

    def _reading(self, f: Tensor, g: Tensor, t: float) -> _Reading:
        """Return what was read at t, made of the last reading as far as it is the same."""
        last = self._last
        one = last is not None and not g.stride(0) and not last.noise.stride(0)
        few = slice(0, 1 if one else None)  # a number for all
        if last is None or not torch.equal(g[few], last.noise[few]):
            made = self._coefficients(f, g, t)
        elif torch.equal(f, last.drift):
            return last
        else:
            made = self._coefficients(f, g, t, last.coefficients)
        if self.sde.autonomous:
            return _Reading(f, g, made)  # which no other reading is compared with
        return _Reading(_own(f), _own(g), made)

    def along(self, times: Sequence[float], looks: clock.Looks | None) -> Coefficients:
        """Return the coefficients at several times, without gradients.

        Args:
            times: Times, shape (T,).
            looks: What was seen at other times of the run, and how to ask about many at once.

        Returns:
            Coefficients with a leading dimension, one row for each time; without it if all are the
            same to the last bit, and then the object that `at` returns.
        """
        if looks is None or looks.shaped is None or len(times) < 2:
            return one_or_stack([self.at(t) for t in times])
        n, count = len(self._x), len(times)
        if self._last is None:
            self.at(times[0])
        assert self._last is not None
        c, noise = self._last.coefficients, self._last.noise[:, 0]
        ts = torch.from_numpy(np.repeat(times, n))
        if len(self._repeated) != count * n:
            self._repeated = self._x.repeat(count, 1)
        f, g = self._asked(self._repeated, looks.shaped(ts))
        f, g = f.view(count, n), g.view(count, n) if g.stride(0) else g[:n].view(1, n)
        still = all(torch.equal(v, v[:1].expand_as(v)) for v in (f[:2], f, g))
        if not g.stride(1) and not noise.stride(0):
            g, noise = g[:, :1], noise[:1]  # numbers for all
        known = bool((g == noise).all())
        if still or not (known and math.isfinite(float(f.sum()))):
            # what is not as it should be is found, and told, by reading it alone
            return one_or_stack([self.at(t) for t in (times[:1] if still else times)])
        f = f if self.sde.direction > 0 else -f
        drift = f[:, 1:].unfold(1, _STRIDE - 1, _STRIDE)
        return Coefficients(drift, c.diffusivity, c.nodal_diffusivity, f[:, :: n - 1])

    def looks(self, first: float, last: float) -> clock.Looks:
        """Look at drift and diffusion at many times between two, at some points of the grid."""
        inner = torch.linspace(0, len(self._x) - 1, clock.POINTS + 2).round().long()[1:-1]
        width = (self.grid.high - self.grid.low) / self.grid.cells
        return clock.look(self._answers, self._x[inner], first, last, width)

    def unread(self) -> None:
        """Forget at what time drift and diffusion were read last.

        Between two runs they may have changed at that time, and at none that `renewed` looks at.
        """
        if not self.sde.autonomous:
            self._read_at = math.nan

    def renewed(self) -> bool:
        """Return whether drift or diffusion have changed since they were read; if so, forget all.

        Of a process of this library that holds numbers alone these are compared; any other is
        evaluated again, at a time at which it is defined and, if it may depend on time, at a
        second one.
        """
        held, seen = _numbers(self.sde), self._seen
        if held is None:
            with torch.no_grad():
                now = [*self._asked(self._x, _clock(self.start)), *self._asked_later()]
            same = seen is not None and all(map(clock.same, now, seen))
            self._seen = seen if same else [_own(v) for v in now]
        else:
            same = held == self._held
        if not same:
            self._held, self._last, self._moves = held, None, None
        return not same

    def _asked_later(self) -> tuple[Tensor, ...]:
        """Return f and g at all points at a second time, if they may depend on time."""
        if self.sde.autonomous:
            return ()
        low, high = clock.span(self.sde)
        return self._asked(self._x, _clock(low + (high - low) * clock.GOLDEN))

    def _coefficients(
        self, f: Tensor, g: Tensor, t: float, like: Coefficients | None = None
    ) -> Coefficients:
        """Return what was read at all points, by cells and nodes; with the D of others, if any."""
        f, g = f[:, 0] if self.sde.direction > 0 else -f[:, 0], g[:, 0]
        drift, walls = f[1:].unfold(0, _STRIDE - 1, _STRIDE), f[:: len(f) - 1]
        beside = partial(self._missed, f.detach(), g.detach(), t)
        if like is not None:
            return Coefficients(drift, like.diffusivity, like.nodal_diffusivity, walls, beside)
        check_noise(self._x, g.detach(), t, lambda x: self._asked(x, _clock(t))[1])
        # one number may stand for all points
        d = g * (0.5 * g) if g.stride(0) else (g[:1] * (0.5 * g[:1])).expand_as(g)
        in_cells = d[1:].unfold(0, _STRIDE - 1, _STRIDE)
        return Coefficients(drift, in_cells, d[::_STRIDE], walls, beside)

    @torch.no_grad()
    def _missed(self, f: Tensor, g: Tensor, t: float, gained: Array) -> Array:
        """Return what ∫ f/D misses beside each node, from f and g at all points."""

        def ratio(f: Tensor, g: Tensor) -> Array:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                values: Array = f.detach().numpy() / (0.5 * g.detach().numpy() ** 2)
            return values

        def ask(places: Array) -> Array:
            f, g = self._asked(torch.from_numpy(places.reshape(-1, 1)), _clock(t))
            return self.sde.direction * ratio(f, g).reshape(places.shape)

        return missed(self.grid.nodes.numpy(), ratio(f[::_STRIDE], g[::_STRIDE]), gained, ask)

    @torch.no_grad()
    def varies_at_all(self) -> bool:
        """Return whether the coefficients change over the times at which the SDE is defined."""
        if self._moves is None:
            self._moves = clock.moves(self.sde, self._answers, self._x)
        return self._moves

    @property
    def assumed_autonomous(self) -> bool:
        """Whether it is an assumption that drift and diffusion do not depend on time."""
        return self.sde.autonomous is None

    def _answers(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and g at states x, as they come; the user's own errors pass with a note."""
        try:
            with told_of_graphs():
                f, g = self.sde.drift(x, t), self.sde.diffusion(x, t)
        # what a second coordinate that is not there is
        except (IndexError, RuntimeError) as error:
            raise ValueError(
                "the Fokker–Planck solver needs a one-dimensional state: for a state of shape "
                f"{tuple(x.shape)} at t = {float(t):g} drift or diffusion raised "
                f"{type(error).__name__}: {error}. Project the dynamics on one coordinate; "
                "for two there is FokkerPlanck2D."
            ) from error
        except Exception as error:
            error.add_note(
                "while the Fokker–Planck solver evaluated drift and diffusion at "
                f"t = {float(t):g} for a one-dimensional state of shape {tuple(x.shape)}; "
                "densities are solved for one dimension."
            )
            raise
        for name, value in (("drift", f), ("diffusion", g)):
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{name} must return a tensor, but returns {type(value).__name__}."
                )
        return f, g

    def _asked(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and g at states x, both of x's shape."""
        return self._shaped(x, *self._answers(x, t))

    @staticmethod
    def _shaped(x: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Answer at states x in x's shape."""
        if f.shape != x.shape or not _broadcasts(g, x):
            raise ValueError(
                "the Fokker–Planck solver needs a one-dimensional state: for a state of shape "
                f"{tuple(x.shape)} the drift has shape {tuple(f.shape)} and the diffusion "
                f"{tuple(g.shape)}; project the dynamics on one coordinate."
            )
        return f.to(torch.float64), g.to(torch.float64).expand_as(x)

    def _evaluate(self, t: float) -> tuple[Tensor, Tensor]:
        """Return f and g at all points, finite."""
        x = self._x
        f, g = self._asked(x, _clock(t))
        for name, value in (("drift", f.detach()), ("diffusion", g.detach())):
            if math.isfinite(float(value.sum())):
                continue  # one pass; a sum that overflows is looked at twice
            bad = ~torch.isfinite(value)
            if bool(bad.any()):
                where = float(x[bad][0])
                raise ValueError(
                    f"the {name} is {float(value[bad][0])} at x = {where:g}, t = {t:g}; "
                    f"the grid [{self.grid.low:g}, {self.grid.high:g}] must lie where drift and "
                    "diffusion are finite."
                )
        return f, g

    @torch.no_grad()
    def _check_single(self, t: float) -> tuple[Tensor, Tensor]:
        """Refuse a drift that is not a function of one state; return f and g at all points."""
        # a state of several coordinates, or a mistake: met again below, with a note
        seen, few = None, slice(None, None, _FEW)
        with suppress(IndexError, RuntimeError, NameError, AttributeError, ArithmeticError):
            # what draws random numbers does so for few states too; coupled ones are seen below
            seen = check_density_of(self.sde, self._x[few], _clock(t))
        f, g = self._evaluate(t)
        x = self._x[few]
        # what was not looked at is a number
        answers = self._answers(x, _clock(t)) if seen is None else [*seen, g[few]][:2]
        f_few, g_few = self._shaped(x, *answers)
        if not torch.is_grad_enabled():
            self._last, self._read_at = self._reading(f, g, t), t
        for name, all_of, some in (("drift", f[few], f_few), ("diffusion", g[few], g_few)):
            if torch.equal(all_of, some):
                continue
            if seen is not None:  # does it differ from itself, or with the others?
                again = self._asked(x.clone(), _clock(t))[0 if name == "drift" else 1]
                check_repeatable(name, some, again)
            tolerance = self._rounding(self._x[few], t)
            atol = tolerance * float(all_of.abs().max() + 1e-300)
            if not torch.allclose(all_of, some, rtol=tolerance, atol=atol):
                raise ValueError(
                    f"the {name} of a state depends on the other states of its batch (a mean "
                    "field); its density obeys a nonlinear equation, which is not solved here."
                )
        return f, g

    def _rounding(self, x: Tensor, t: float) -> float:
        """Return how far two evaluations of the drift may differ, relative to its largest value.

        A network may compute in float32 whatever the state is: the second difference over 1e-6 is
        then its rounding, 1e-7 or so, where that of a drift in float64 is below 1e-11.
        """
        step = 1e-6 * (1 + x.abs())
        f, ahead, behind = (self._asked(y, _clock(t))[0] for y in (x, x + step, x - step))
        noise = float((ahead - 2 * f + behind).abs().median() / (f.abs().max() + 1e-300))
        return min(max(1e-9, 100 * noise), 1e-4)


@dataclass(frozen=True, eq=False)
class _Reading:
    """What was read at a time: f and g at all points, and what was made of them."""

    drift: Tensor
    noise: Tensor
    coefficients: Coefficients


def _points(grid: Grid) -> Float[Tensor, "points 1"]:
    """Return nodes and Gauss points in order, so that a change of sign of g shows."""
    x, points = grid.nodes.numpy(), np.empty(_STRIDE * grid.cells + 1)
    points[::_STRIDE] = x
    h = x[1:] - x[:-1]
    for k, at in enumerate(_AT, 1):  # a loop over cells is fast, one over four points is not
        np.add(x[:-1], h * at, out=points[k::_STRIDE])
    return torch.from_numpy(points[:, None])


def _numbers(sde: SDE) -> tuple[object, ...] | None:
    """Return all that a process of this library holds, if numbers and words; else None."""
    if type(sde).__module__.partition(".")[0] != __name__.partition(".")[0]:
        return None  # its methods may know of anything
    each = [v.item() if isinstance(v, Tensor) and v.ndim == 0 else v for v in vars(sde).values()]
    return tuple(each) if all(isinstance(value, float | int | str) for value in each) else None


def _own(v: Tensor) -> Tensor:
    """Return a copy, since a user's tensor may change; of one number for all, that one."""
    return v.clone() if v.stride(0) else v[:1].clone().expand_as(v)


def _clock(t: float) -> Tensor:
    """Return a time as an SDE is given it."""
    return torch.scalar_tensor(t, dtype=torch.float64)


def _broadcasts(g: Tensor, x: Tensor) -> bool:
    """Return whether g meets x without growing it."""
    if g.ndim == 0 or g.shape == x.shape:
        return True
    try:
        return np.broadcast_shapes(g.shape, x.shape) == tuple(x.shape)
    except ValueError:
        return False
