"""A Brownian path that several runs walk, at steps of different sizes.

    W(t_j) = Σ_{i<j} √(t_{i+1} − t_i) z_i,        z_i ~ N(0, I), one for each interval of `times`

A step from t_a to t_b takes the increment W(t_b) − W(t_a) of the same path, however many of the
intervals it spans, so that two runs differ by the error of their steps alone: their strong
distance, at 10 or at 20 steps, is a number and not noise. The nodes of each run must be among
`times`: what the path does between them is not drawn.

Each block of trajectories has a path of its own, from the stream (seed, "brownian", block).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from sdegen.core.noise import Normals, Rng, Stream, Streams, seed_of
from sdegen.core.requests import as_time_grid
from sdegen.core.shapes import Times

_NEAR = 1e-3  # of an interval: what rounding of times to float32 may move a node
_ROUNDED = 4e-7


class BrownianPath:
    """A Brownian motion on a grid of times, for `simulate(…, brownian=…)`.

    Args:
        rng: Seed, generator, or None for fresh entropy.
        times: All times at which steps of any run begin or end, shape (n,), strictly monotone,
            in the direction of travel.

    Attributes:
        seed: What to pass as rng to get the same path again.

    Raises:
        TypeError: If rng or times are of the wrong kind.
        ValueError: If the times are not strictly monotone.

    >>> path = BrownianPath(0, torch.linspace(0, 1, 101))
    >>> path
    BrownianPath(seed=0, 100 intervals from t = 0 to 1)
    """

    def __init__(self, rng: Rng, times: Times) -> None:
        self.seed = seed_of(rng)
        self.times = as_time_grid(times, "times of a BrownianPath")

    def __repr__(self) -> str:
        span = f"t = {float(self.times[0]):g} to {float(self.times[-1]):g}"
        return f"BrownianPath(seed={self.seed}, {len(self.times) - 1} intervals from {span})"

    def places(self, nodes: Tensor) -> Tensor:
        """Return where nodes stand among the times, indices, shape (steps + 1,).

        Args:
            nodes: Times at which steps begin and end, float64.

        Raises:
            ValueError: If one is not among them, or the run goes the other way.
        """
        times, sign = self.times, float(torch.sign(self.times[-1] - self.times[0]))
        after = torch.searchsorted(sign * times, sign * nodes).clamp(max=len(times) - 1)
        before = (after - 1).clamp(min=0)
        nearer = (times[before] - nodes).abs() < (times[after] - nodes).abs()
        nearest = torch.where(nearer, before, after)
        step = times.diff().abs()
        apart = torch.minimum(
            step[(nearest - 1).clamp(min=0)], step[nearest.clamp(max=len(step) - 1)]
        )
        near = torch.maximum(_NEAR * apart, (_ROUNDED * nodes.abs()).minimum(0.1 * apart))
        missing = (times[nearest] - nodes).abs() > near
        if bool(missing.any()):
            t = float(nodes[missing][0])
            raise ValueError(
                f"the steps of this run meet at t = {t:.6g}, which is not among the times of "
                f"{self!r}: pass a BrownianPath whose times have the nodes of every run, such as "
                "those of the finest."
            )
        if bool((nearest.diff() <= 0).any()):
            raise ValueError(
                f"two nodes of this run fall on one time of {self!r}, or it runs the other way: "
                "its times must be as fine as the steps, and in the direction of travel."
            )
        return nearest

    def along(self, nodes: Tensor, block: int) -> Stream:
        """Return the increments of a run's steps, over √dt, as a stream that a solver draws from.

        Args:
            nodes: Times at which steps begin and end, float64.
            block: Number of the block of trajectories.
        """
        source = Streams(self.seed, "brownian").block(block)
        return _Increments(source, self.times.diff().abs(), self.places(nodes))


class _Increments(Stream):
    """The stream of a solver's increments."""

    def __init__(self, source: Stream, intervals: Tensor, places: Tensor) -> None:
        super().__init__(0)
        self._source, self._intervals, self._places = source, intervals, places

    def normals(
        self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Normals:
        """Return one increment for each step, over √dt."""
        drawn = self._source.normals(shape, dtype=dtype, device=device)
        return _Summed(drawn, self._intervals, self._places)


class _Summed(Normals):
    """Normals of steps, each the weighted sum of those of the intervals that it spans."""

    def __init__(self, drawn: Normals, intervals: Tensor, places: Tensor) -> None:
        self._normals, self._places = drawn, places.tolist()
        self._roots, self._intervals = intervals.sqrt().tolist(), intervals.tolist()

    def each(self, *, recycled: bool = False) -> Iterator[Tensor]:
        """Return the normals step by step."""
        draws = self._normals.each(recycled=recycled)
        next(islice(draws, self._places[0], self._places[0]), None)  # those before the start
        for first, last in zip(self._places, self._places[1:], strict=False):
            if last == first + 1:
                yield next(draws)
                continue
            length = math.fsum(self._intervals[first:last])
            total = next(draws) * (self._roots[first] / length**0.5)
            for j in range(first + 1, last):
                total.add_(next(draws), alpha=self._roots[j] / length**0.5)
            yield total
