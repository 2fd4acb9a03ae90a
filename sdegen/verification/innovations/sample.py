"""What the tests look at: totals over all transitions, and a sample of them in memory.

All transitions are read once, block by block, for sums that cost little: the mean of z, its
square, its product with the pull of the drift, and with the z of the step before. The other tests
look at a sample, all of it where it is small: stretches of frames in a row, of all trajectories or
of some. Which they are does not depend on what is in them.

A transition that is not judged (near an end, or where the noise vanishes) is given a normal drawn
afresh: it says nothing, and every test keeps its law.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sdegen.core.noise import stream
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.innovations.law import Innovations, StepLaw

_SKINNY = 16  # coordinates up to which a product of matrices is the fastest sum
_BLOCK = 2**17  # numbers of a block: what stays in cache
_MOST = 2**21  # numbers of a sample
_LONG = 256  # frames from which it is read by the quick way, where there is one
_EVERY = 8  # blocks of which one has its neighbours multiplied
_REDRAWN = 2**20  # where each transition is redrawn
_FRAMES = 512  # of a stretch, where there are more frames than fit
_STEPWISE = 20_000  # frames that are judged one at a time, where each step has a law of its own


@dataclass
class Totals:
    """Sums over all transitions.

    Attributes:
        count: How many, of each coordinate.
        mean, square, lag: Σ z, Σ z², Σ z z₋₁ of each coordinate, shape (K,).
        pairs: How many products are in `lag`.
        pull, pull_square: Σ z u and Σ u² with the pull u of the drift.
        fresh: How many transitions were not judged.
        equations: Whether there are equations without noise.
        gap: The largest gap of an equation without noise, in units of its rounding.
        gap_at: Where that was: step, trajectory, coordinate.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    square: Tensor = field(default_factory=lambda: torch.zeros(()))
    lag: Tensor = field(default_factory=lambda: torch.zeros(()))
    pairs: int = 0
    pull: float = 0.0
    pull_square: float = 0.0
    fresh: int = 0
    equations: bool = False
    gap: float = 0.0
    gap_at: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Sample:
    """Innovations in memory, in double precision.

    Attributes:
        z: Shape (F, B, K).
        pull: By how many standard deviations the drift moved, (F, B, K).
        x: States before, (F, B, D), flattened.
        steps: Numbers of the steps, (F,).
        trajectories: Their numbers, (B,).
        stretches: Slices of frames that lie in a row.
        log_density: log p(x' | x), (F, B).
        rounding: Error of z by the rounding of states, its largest, in units of z.
        stalled: Share of numbers that did not move at all, and the share that the law expects.
        whole: Whether it is all that there is.
        phase_space: Whether states are positions and velocities.
        past: Innovations of which those of the steps after must be independent, (F, B, K): z
            itself, unless these are redrawn.
    """

    z: Tensor
    pull: Tensor
    x: Tensor
    steps: Tensor
    trajectories: Tensor
    stretches: tuple[slice, ...]
    log_density: Tensor
    rounding: float
    stalled: tuple[float, float]
    whole: bool
    phase_space: bool = False
    past: Tensor | None = None

    @property
    def earlier(self) -> Tensor:
        """What was seen of the steps before, (F, B, K)."""
        return self.z if self.past is None else self.past

    @property
    def progress(self) -> Tensor:
        """Where each frame is in the run, from −1 to 1, shape (F,)."""
        last = max(1, int(self.steps[-1]) - int(self.steps[0]))
        return 2 * (self.steps - self.steps[0]).double() / last - 1


class Gatherer:
    """Reads transitions of stored states under a law.

    Args:
        states: What was stored.
        law: What is believed of its steps.
        most: Numbers of the sample.
    """

    def __init__(self, states: StoredStates, law: StepLaw, most: int = _MOST) -> None:
        self.states: StoredStates = states
        self.law: StepLaw = law
        self.most: int = min(most, _REDRAWN) if law.redraws else most
        self.batch: int
        frames, self.batch, *event = states.shape
        self.steps: int = frames - 1
        self.event: tuple[int, ...] = tuple(event)
        self._seed = bits_of(states.block(0, 2))
        self._fresh = stream(self._seed, "not judged").generator()
        law.calibrate(states, self._seed)
        self._kept = _moving(states)
        self._width = 0  # of the innovations of a step, as far as it is known
        self._precision = states.precision or states.dtype

    def totals(self) -> Totals:
        """Return the sums over all transitions."""
        totals = self._fast_totals()
        if totals is not None:
            return totals
        totals, last, previous = Totals(), -1, None
        for first, z, pull, inner in self._blocks(self._all_frames()):
            _add(totals, first, z, pull, inner, self._precision)
            if previous is not None and first == last:
                totals.lag = totals.lag + _products(previous, z[0])
                totals.pairs += z.shape[1]
            previous, last = z[-1], first + len(z)
        return totals

    def _fast_totals(self) -> Totals | None:
        """Return the sums over transitions whose noise is one number; None for others.

        u² and the products of neighbours are taken of some of the blocks: the first has hardly a
        fluctuation, and the second decides nothing small.
        """
        if not self.law.alike or self._kept is not None or self.states.shape[0] < _LONG:
            return None
        rows, size = self.batch, self.batch * max(1, math.prod(self.event))
        frames, totals, some, square = max(2, _BLOCK // size), Totals(), 0, 0.0
        with torch.no_grad():
            for k, first in enumerate(range(0, self.steps, frames)):
                x = self.states.block(first, min(first + frames, self.steps) + 1, checked=False)
                before, after = (y.reshape(-1, *self.event) for y in (x[:-1], x[1:]))
                parts = self.law.unscaled(before, after, first)
                if parts is None:
                    return None
                left, drift, unit, pull_unit = parts
                along, whole = drift.reshape(-1), left.reshape(-1)
                totals.count += len(left)
                totals.mean = totals.mean + unit * left.sum(0).double()
                totals.square = totals.square + unit**2 * _products(left, left)
                totals.pull += unit * pull_unit * float(torch.dot(whole, along))
                if k % _EVERY == 0:
                    some += len(left)
                    square += pull_unit**2 * float(torch.dot(along, along))
                    if len(left) > rows:
                        lag = unit**2 * _products(left[rows:], left[:-rows])
                        totals.lag, totals.pairs = (
                            totals.lag + lag,
                            totals.pairs + len(left) - rows,
                        )
        if not bool(totals.square.isfinite().all()):
            self.states.check_finite(whole=True)
        totals.pull_square = square * totals.count / some
        return totals

    def redrawn(self, sample: Sample) -> list[list[Sample]]:
        """Return the same transitions, redrawn: a list of samples for each of the ways."""
        return [
            [replace(self.sample((way, turn)), past=sample.z) for turn in range(times)]
            for way, times in enumerate(self.law.redraws)
        ]

    def sample(self, redrawn: tuple[int, int] | None = None) -> Sample:
        """Return the transitions that all tests look at.

        Args:
            redrawn: In which way they are taken anew, and for which time; None: as stored.
        """
        stretches, chosen = self._choice()
        parts: list[tuple[Tensor, ...]] = []
        places, at = [], 0
        rounding = 0.0
        for a, b in stretches:
            for first, z, pull, inner in self._blocks([(a, b)], chosen, redrawn):
                x = self.states.block(first, first + len(z) + 1)[:, chosen]
                flat_x = x.flatten(2)
                rounding = max(rounding, self._rounding(x, inner, z))
                stalled = (flat_x[1:] == flat_x[:-1]).double()
                parts.append(
                    (
                        z.double(),
                        pull.double(),
                        flat_x[:-1].double(),
                        inner.log_density.reshape(z.shape[:2]).double(),
                        torch.arange(first, first + len(z)),
                        stalled.mean().expand(len(z)),
                    )
                )
            places.append(slice(at, at + b - a))
            at += b - a
        z, pull, x, log_p, steps, stalled = (torch.cat(list(p)) for p in zip(*parts, strict=True))
        whole = len(z) == self.steps and len(chosen) == self.batch
        expected = self._expected_stalls(rounding)
        return Sample(
            z, pull, x, steps, chosen, tuple(places), log_p, rounding,
            (float(stalled.mean()), expected), whole, self.states.phase_space,
        )  # fmt: skip

    def _expected_stalls(self, rounding: float) -> float:
        """Return a bound of the share of numbers that stand still since decimals were cut.

        Where none were, it is the step itself that is lost in the digits of the state.
        """
        cut = self.states.digits is not None or bool(
            (torch.as_tensor(self.states.rounding) > 0).any()
        )
        if not cut:
            return 0.0
        return min(1.0, 2 * rounding / math.sqrt(2 * math.pi))

    def _all_frames(self) -> list[tuple[int, int]]:
        if self.law.alike or self.steps <= _STEPWISE:
            return [(0, self.steps)]
        return self._choice()[0]

    def _choice(self) -> tuple[list[tuple[int, int]], Tensor]:
        """Return stretches of steps and the trajectories of the sample."""
        size = max(1, math.prod(self.event))
        batch = self.batch
        if batch * size * min(self.steps, 64) > self.most:
            batch = max(2, self.most // (size * min(self.steps, 64)))
        stride = -(-self.batch // batch)
        chosen = torch.arange(0, self.batch, stride)
        frames = max(16, self.most // (size * len(chosen)))
        if not self.law.alike:
            frames = min(frames, _STEPWISE)
        if frames >= self.steps:
            return [(0, self.steps)], chosen
        if not self.law.starts_anywhere:
            return [(0, frames)], chosen
        count = max(1, frames // _FRAMES)
        long = frames // count
        starts = torch.linspace(0, self.steps - long, count).long().tolist()
        return [(a, a + long) for a in starts], chosen

    def _blocks(
        self,
        stretches: list[tuple[int, int]],
        chosen: Tensor | None = None,
        redrawn: tuple[int, int] | None = None,
    ) -> Iterator[tuple[int, Tensor, Tensor, Innovations]]:
        """Yield (first step, z and pull of shape (F, B, K), innovations) of blocks of frames."""
        rows = self.batch if chosen is None else len(chosen)
        everyone = chosen is None or rows == self.batch
        size = rows * max(1, math.prod(self.event))
        frames = max(1, _BLOCK // size) if self.law.alike else 1
        with torch.no_grad():
            for a, b in stretches:
                memory: object = None
                for first in range(a, b, frames):
                    x = self.states.block(first, min(first + frames, b) + 1)
                    x = x if everyone else x[:, chosen]
                    count = len(x) - 1
                    before = x[:-1].reshape(count * rows, *self.event)
                    after = x[1:].reshape(count * rows, *self.event)
                    if redrawn is not None:
                        way, turn = redrawn
                        draw = turn * self.steps + first  # each block has noise of its own
                        after = self.law.redraw(before, first, way, self._seed, draw)
                    if self.law.remembers:
                        inner, memory = self.law.along(x, first, memory)
                    else:
                        inner = self.law.innovations(before, after, first)
                    inner = self._with_fresh(inner)
                    z, pull = self._widened(inner)
                    z = z.reshape(count, rows, -1)
                    yield first, z, pull.reshape(z.shape), inner

    def _with_fresh(self, inner: Innovations) -> Innovations:
        """Return innovations with normals drawn afresh where they are not judged."""
        if self._kept is not None and inner.z.shape[1] == len(self._kept):
            inner = replace(inner, z=inner.z[:, self._kept], pull=inner.pull[:, self._kept])
        if inner.judged is None:
            return inner
        lost = ~inner.judged
        z, pull = inner.z.clone(), inner.pull.clone()
        z[lost] = torch.randn(
            int(lost.sum()), z.shape[1], generator=self._fresh, dtype=torch.float64
        ).to(z)
        pull[lost] = 0.0
        gap = inner.gap
        if gap is not None:
            gap = torch.where(lost[:, None], 0.0, gap)
        return replace(inner, z=z, pull=pull, gap=gap)

    def _widened(self, inner: Innovations) -> tuple[Tensor, Tensor]:
        """Return z and pull; fresh normals of a step without noise, where others have it."""
        z, pull = inner.z, inner.pull
        if z.shape[1] == 0 and self._width:
            size = (len(z), self._width)
            z = torch.randn(size, generator=self._fresh, dtype=torch.float64).to(z)
            pull = torch.zeros_like(z)
        self._width = z.shape[1]
        return z, pull

    def _rounding(self, x: Tensor, inner: Innovations, z: Tensor) -> float:
        """Return the error of z that the digits of stored states leave, roughly."""
        if z.shape[2] == 0:
            return 0.0
        scale = (inner.log_scale / z.shape[2]).exp()  # the geometric mean of a step's noise
        half = self.states.rounding_at(x[1:]).flatten(2).amax(2).flatten()
        return float((half / scale.clamp(min=1e-300)).quantile(0.5))


def totals_of(sample: Sample) -> Totals:
    """Return the sums over a sample alone."""
    z, past, pull = sample.z, sample.earlier, sample.pull
    frames, batch, _ = z.shape
    totals = Totals(frames * batch, z.flatten(0, 1).sum(0), _products(z, z))
    lag = torch.zeros_like(totals.mean)
    for part in sample.stretches:
        lag = lag + _products(z[part][1:], past[part][:-1])
        totals.pairs += (len(z[part]) - 1) * batch
    totals.lag = lag
    totals.pull, totals.pull_square = float((z * pull).sum()), float(pull.square().sum())
    return totals


def bits_of(x: Tensor) -> int:
    """Return a seed that depends on the bits of numbers, so that the same data give the same."""
    return zlib.crc32(x.detach().cpu().contiguous().numpy().tobytes())


def _moving(states: StoredStates) -> Tensor | None:
    """Return which innovations are not held by a constraint; None: all."""
    fixed = states.fixed
    return None if fixed is None or not bool(fixed.any()) else ~fixed.flatten()


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return Σ a b of each coordinate over all but the last axis, in double precision.

    Blocks are small, so that sums in the numbers' own precision lose nothing that matters.
    """
    a, b = a.flatten(0, -2), b.flatten(0, -2)
    if a.shape[1] == 1:
        return torch.dot(a[:, 0], b[:, 0])[None].double()
    if a.shape[1] <= _SKINNY:
        return (a.T @ b).diagonal().double()
    return (a * b).sum(0).double()


def _add(
    totals: Totals, first: int, z: Tensor, pull: Tensor, inner: Innovations, dtype: torch.dtype
) -> None:
    """Add a block to the totals."""
    rows, along = z.flatten(0, 1), pull.flatten()
    totals.count += len(rows)
    totals.mean = totals.mean + rows.sum(0).double()
    totals.square = totals.square + _products(z, z)
    if len(z) > 1:
        totals.lag = totals.lag + _products(z[1:], z[:-1])
        totals.pairs += (len(z) - 1) * z.shape[1]
    totals.pull += float(torch.dot(rows.flatten(), along))
    totals.pull_square += float(torch.dot(along, along))
    if inner.judged is not None:
        totals.fresh += int((~inner.judged).sum())
    if inner.gap is None or inner.scale is None or inner.gap.numel() == 0:
        return
    totals.equations = True
    ratio = inner.gap.abs() / (torch.finfo(dtype).eps * inner.scale.clamp(min=1e-300))
    ratio = ratio.nan_to_num(nan=math.inf)
    largest = int(ratio.argmax())
    if float(ratio.flatten()[largest]) > totals.gap:
        row, column = divmod(largest, ratio.shape[1])
        step, trajectory = divmod(row, z.shape[1])
        totals.gap = float(ratio.flatten()[largest])
        totals.gap_at = (first + step, trajectory, column)
