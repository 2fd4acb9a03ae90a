"""The times of an SDE: where to read it if it knows none, and whether it does.

Whether drift or diffusion depend on time the SDE says itself, `autonomous`. Where it does not, an
answer at rest is given if they answered alike at some times from 0 to 16 at which it is defined;
that this is an assumption is said in the result.

**A run over time** reads them at the nodes of its own steps. What happens between the nodes of a
long step it would not see, so that they are first looked at, at a few points, at 2,049 even times
of the run (`look`). From the answers follow

- *jumps*: two neighbouring looks that differ by more than their neighbours do. They are narrowed
  down by bisection, to the last bit of t, and a step ends there;
- *the longest step*: an interval of looks is *plain* if what a polynomial of degree 6 through some
  of them misses, integrated over time, is less than a hundredth of a cell as a displacement. Steps
  are at most twice as long as the plain intervals that they meet.

What is narrower than the distance of two looks may be missed; met by one of them alone, it is
`isolated`, and told.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.derivatives import GOLDEN as GOLDEN
from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization.arrays import Array

Answers = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Shaped = Callable[[Tensor], Tensor]

LATEST = 16.0  # the last time that is looked at where no run says which
_TIMES = 32
_POINTS = 500
POINTS = 8  # of a grid, at which a run is looked at
_INTERVALS = 2048  # between looks: a change that lasts for a thousandth of the run is met twice
_FEWEST = 8  # intervals between looks that are thought of as one
_PLAIN = 1e-2  # of a cell: the displacement that a polynomial through looks may miss
_JUMPS = 3.0  # times the smaller of the changes beside it: what may be a jump
_KEPT = 0.8  # of a jump lies in one half of the interval, however often that is halved
_TINY = 1e-9  # of all change: a smaller jump is none
_AGREES = 1e-10  # answers to many times at once, and to each by itself


def start(sde: SDE) -> float:
    """Return a time at which the dynamics are defined."""
    low, high = sde.time_range
    return low if low > -math.inf else min(0.0, high)


def span(sde: SDE) -> tuple[float, float]:
    """Return the times at which a dependence on time is looked for where there is no run."""
    low, high = sde.time_range
    return max(low, min(0.0, high)), min(high, max(0.0, low) + LATEST)


def moves(sde: SDE, answers: Answers, x: Tensor) -> bool:
    """Return whether drift or diffusion depend on time: as the SDE says, or as they answer.

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
    """Return whether what drift and diffusion answer changes over times, or between them.

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
    """Return whether two answers are one, to the last bit."""
    return a is b or (a.dtype == b.dtype and torch.equal(a, b))


@dataclass(frozen=True, eq=False)
class Looks:
    """What drift and diffusion answered at many times of a run, at a few points.

    Args:
        times: Even times, increasing, shape (looks,).
        values: Answers there, drifts and then g²/2, shape (looks, columns).
        jumps: Times at which they jump, increasing; a jump lies between its time and the number
            just below it.
        bounds: Ends of plain intervals, increasing, the first and the last look among them.
        isolated: A time at which one look alone differs from its neighbours, if there is one.
        shaped: How times must be laid beside states so that many are asked about at once; None
            where that gives other answers than single questions.
        constant: Whether all looks answered alike.
    """

    times: Array
    values: Array
    jumps: tuple[float, ...]
    bounds: Array
    isolated: float | None
    shaped: Shaped | None = None
    constant: bool = False

    def still(self, a: float, b: float) -> bool:
        """Return whether all looks between two times, and the nearest beyond, answered alike."""
        if self.constant:
            return True
        low, high = np.searchsorted(self.times, (min(a, b), max(a, b)))
        some = self.values[low : high + 1] if low < high else self.values[:0]
        return bool((some == some[:1]).all())

    def longest(self, t: float, end: float) -> float:
        """Return the longest step from t towards `end` that no plain interval forbids."""
        most, before = abs(end - t), 0.0
        for a, b in self._met(t, end):
            # a step that goes so far meets an interval of this length
            beyond = abs(a - t) if before else 0.0
            if most <= beyond:
                break
            most = max(min(most, 2 * (b - a)), beyond)
            before = b - a
        return most

    def plain(self, t: float, end: float) -> float:
        """Return the length of the plain interval that a step from t towards `end` meets first."""
        a, b = next(self._met(t, end), (t, end))
        return b - a

    def _met(self, t: float, end: float) -> Iterator[tuple[float, float]]:
        """Yield the plain intervals from t on, each as (near end, far end), lengths positive."""
        # backward they are mirrored, so that distances from t come out the same
        bounds = self.bounds if end > t else 2 * t - self.bounds[::-1]
        first = max(int(np.searchsorted(bounds, t, side="right")) - 1, 0)
        for a, b in itertools.pairwise(bounds[first:]):
            yield float(a), float(b)


@torch.no_grad()
def look(answers: Answers, x: Tensor, first: float, last: float, width: float) -> Looks:
    """Look at drift and diffusion at many times.

    Args:
        answers: f and g at states and a time.
        x: A few states, shape (points, *event).
        first: A time.
        last: Another one.
        width: That of a cell: the displacement that would be seen.
    """
    ask = _Asking(answers, x)
    times = np.linspace(min(first, last), max(first, last), _INTERVALS + 1)
    values = ask(times)
    if (values[1:] == values[:-1]).all():
        return Looks(times, values, (), times[[0, -1]], None, ask.shaped, constant=True)
    drifts = values.shape[1] // 2
    # a displacement in cells, and a variance in tens of square cells
    scale = np.repeat([1 / width, 0.1 / width**2], [drifts, values.shape[1] - drifts])
    changing = (values != values[0]).any(0)
    scale = scale[changing]
    scaled = np.asfortranarray(values[:, changing] * scale)  # for loops over times
    jumps = _jumps(lambda at: ask(at)[:, changing] * scale, times, scaled)
    level = scaled.copy(order="K")
    for before, _, rise in jumps:
        level[times > before] -= rise
    at, isolated = tuple(after for _, after, _ in jumps), _isolated(times, scaled)
    return Looks(times, values, at, _plain(times, level), isolated, ask.shaped)


class _Asking:
    """Asks for f and g²/2 at a few states and many times, shape (times, columns).

    All at once, where that gives what single questions give: states and times are then two
    columns. A function that wants one time is asked for one after the other.
    """

    def __init__(self, answers: Answers, x: Tensor) -> None:
        self._answers, self._x = answers, x
        self.shaped: Shaped | None = None
        self._singles = False

    def __call__(self, times: Array) -> Array:
        ts = torch.from_numpy(np.ascontiguousarray(times))
        if len(ts) < _FEWEST or self._singles:
            return self._singly(ts)
        for shaped in (_column, _row) if self.shaped is None else (self.shaped,):
            at_once = self._many(ts, shaped)
            if at_once is not None and (self.shaped is not None or self._agrees(ts, at_once)):
                self.shaped = shaped
                return at_once
        self._singles, self.shaped = True, None
        return self._singly(ts)

    def _singly(self, ts: Tensor) -> Array:
        each = [self._answers(self._x, t) for t in ts.unbind()]
        f, g = (torch.cat([v.expand_as(self._x) for v in s]) for s in zip(*each, strict=True))
        return self._flat(f, g, len(self._x))

    def _many(self, ts: Tensor, shaped: Shaped) -> Array | None:
        """Answer at all times at once, or None where the function does not take that."""
        n = len(self._x)
        x = self._x.repeat(len(ts), *[1] * (self._x.ndim - 1))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                f, g = self._answers(x, shaped(ts.repeat_interleave(n)))
            return self._flat(f, g, n) if f.shape == x.shape else None
        except Exception:  # whatever a function says of times that it did not expect
            return None

    def _flat(self, f: Tensor, g: Tensor, n: int) -> Array:
        """Return f and g²/2 as rows, one for each time."""
        f = f.double()
        d = (0.5 * g.double() ** 2).expand_as(f)
        return torch.cat([v.reshape(-1, n * f[0].numel()) for v in (f, d)], 1).numpy()

    def _agrees(self, ts: Tensor, at_once: Array) -> bool:
        """Return whether some of them are what single questions give."""
        some = [int(len(ts) * GOLDEN), len(ts) - 1]
        alone, together = self._singly(ts[some]), at_once[some]
        if (alone == together).all():
            return True
        size = np.abs(alone).max(1, keepdims=True) + 1e-300
        return bool((np.abs(together - alone) <= _AGREES * size).all())


def _column(ts: Tensor) -> Tensor:
    """Return the times as a column, which a column of states meets row by row."""
    return ts[:, None]


def _row(ts: Tensor) -> Tensor:
    """Return a time for each state, as a batch of states has them."""
    return ts


def _jumps(
    ask: Callable[[Array], Array], times: Array, values: Array
) -> list[tuple[float, float, Array]]:
    """Return the jumps between looks: the numbers on either side, and the rise.

    A jump keeps its height however often the interval that holds it is halved.
    """
    change = np.abs(np.diff(values, axis=0)).max(1)
    after, before = np.append(change[1:], change[-2:-1]), np.insert(change[:-1], 0, change[1:2])
    usual = np.minimum(after, before)
    where = np.flatnonzero((change > _JUMPS * usual) & (change > _TINY * change.max()))
    low, high, a, b = times[where], times[where + 1], values[where], values[where + 1]
    for _ in range(64):
        middle = 0.5 * (low + high)
        if len(middle) == 0 or ((middle <= low) | (middle >= high)).all():
            break
        v = ask(middle)
        below, above = np.abs(v - a).max(1), np.abs(b - v).max(1)
        tall = np.maximum(below, above) >= _KEPT * np.abs(b - a).max(1)
        left = below >= above
        low, high = np.where(left, low, middle)[tall], np.where(left, middle, high)[tall]
        a, b = np.where(left[:, None], a, v)[tall], np.where(left[:, None], v, b)[tall]
    return [(float(x), float(y), q - p) for x, y, p, q in zip(low, high, a, b, strict=True)]


def _isolated(times: Array, values: Array) -> float | None:
    """Return a time whose look differs from both neighbours, which agree with those beyond."""
    if len(times) < 5:
        return None
    step = np.abs(np.diff(values, axis=0)).max(1)
    spike = np.minimum(step[1:-2], step[2:-1])  # at looks 2 … −3
    beyond = np.maximum(step[:-3], step[3:])
    back = np.abs(values[3:-1] - values[1:-3]).max(1)
    alone = (spike > 10 * np.maximum(beyond, back)) & (spike > 1e-3 * step.max())
    return float(times[2 + int(alone.argmax())]) if alone.any() else None


def _plain(times: Array, values: Array) -> Array:
    """Return the ends of intervals of looks where polynomials through some nearly meet the others.

    Args:
        times: Even times, a power of two of intervals.
        values: In units of a displacement in cells, per time, shape (looks, columns).
    """
    apart = float(times[1] - times[0])
    pending, ends = np.zeros(1, dtype=np.int64), [0, len(times) - 1]
    many = len(times) - 1
    while many > _FEWEST and len(pending):
        nodes, matrix = _interpolation(many)
        pieces = values[pending[:, None] + np.arange(many + 1)]
        missed = np.abs(matrix @ pieces[:, nodes] - pieces).sum(1).max(1) * apart
        bad = pending[~(missed <= _PLAIN)]
        many //= 2
        ends += (bad + many).tolist()
        pending = np.concatenate([bad, bad + many])
    return times[np.unique(ends)]


@cache
def _interpolation(many: int) -> tuple[NDArray[np.int64], Array]:
    """Return which of many + 1 even looks a polynomial goes through, and what it makes of all."""
    at_extrema = 0.5 * many * (1 - np.cos(np.pi * np.arange(7) / 6))
    nodes = np.unique(np.round(at_extrema).astype(np.int64))
    at, apart = np.arange(many + 1)[:, None, None], nodes[:, None] - nodes
    ratio = np.where(apart != 0, (at - nodes) / np.where(apart != 0, apart, 1), 1.0)
    return nodes, ratio.prod(2)
