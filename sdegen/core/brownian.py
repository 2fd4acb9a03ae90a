"""A Brownian path that several runs walk, at steps of different sizes.

    W(t_j) = Σ_{i<j} √(t_{i+1} − t_i) z_i,        z_i ~ N(0, I), one for each interval of `times`

A step from t_a to t_b takes the increment W(t_b) − W(t_a) of the same path, however many of the
intervals it spans, so that two runs differ by the error of their steps alone: their strong
distance, at 10 or at 20 steps, is a number and not noise. So it is with the Lévy areas and the
space-time areas of a step, which `levy_areas.py` sums exactly. The nodes of each run must be among
`times`: what the path does between them is not drawn, but for the areas of the intervals.

    path, x = BrownianPath(0, fine), torch.ones(1000, 2)
    for nodes in (fine, fine[::2], fine[::4]):
        noise = path.noise(x, nodes, channels=3)
        *_, end = integrate(sde, Milstein(), x, nodes, noise)

Each block of trajectories has a path of its own, from the stream (seed, "brownian", block).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.core.noise import Noise, Rng, Streams, seed_of
from sdegen.core.requests import as_time_grid
from sdegen.core.shapes import State, Times
from sdegen.core.step_noise import FreshDraws, JoinedDraws, StepNoise

_NEAR = 1e-3  # of an interval: what rounding of times to float32 may move a node
_ROUNDED = 4e-7


class BrownianPath:
    """A Brownian motion on a grid of times, for `simulate(…, brownian=…)` and `integrate`.

        W(t_j) = Σ_{i<j} √(t_{i+1} − t_i) z_i,   z_i ~ N(0, I)

    Args:
        rng: Seed, generator, or None for fresh entropy.
        times: All times at which steps of any run begin or end, shape (n,), strictly monotone,
            in the direction of travel.

    Attributes:
        seed: What to pass as rng to get the same path again.

    Raises:
        TypeError: If rng or times are of the wrong kind.
        ValueError: If the times are not strictly monotone.

    Example:
        >>> x, path = torch.zeros(4, 1), sg.BrownianPath(0, torch.linspace(0, 1, 101))
        >>> whole, halves = path.noise(x, [0.0, 1.0]), path.noise(x, [0.0, 0.5, 1.0])
        >>> parts = halves.increment(0) + halves.increment(1)
        >>> torch.allclose(whole.increment(0), parts)  # one path, at steps of two sizes
        True
    """

    def __init__(self, rng: Rng, times: Times) -> None:
        self.seed: int = seed_of(rng)
        self.times: Tensor = as_time_grid(times, "times of a BrownianPath")

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

    def noise(
        self,
        x: State,
        nodes: Tensor | Sequence[float],
        *,
        channels: int | None = None,
        block: int = 0,
    ) -> StepNoise:
        """Return the noise of a run's steps along this path, for `integrate`.

        Each step gets the increment, the space-time area and the Lévy areas of the intervals that
        it spans, summed exactly by Chen's relation, so that runs at any steps share them.

        Args:
            x: State of the run, shape (batch, *event).
            nodes: Times at which steps begin and end, shape (steps + 1,), among the path's.
            channels: How many Wiener processes there are, `sde.channels`; None: one for each
                coordinate.
            block: Number of the block of trajectories; each has a path of its own.

        Raises:
            TypeError, ValueError: If the nodes are no times, not among the path's, or the other
                way round.

        Example:
            >>> x, path = torch.zeros(4, 1), BrownianPath(0, torch.linspace(0, 1, 101))
            >>> whole, halves = path.noise(x, [0.0, 1.0]), path.noise(x, [0.0, 0.5, 1.0])
            >>> parts = halves.increment(0) + halves.increment(1)
            >>> bool(torch.allclose(whole.increment(0), parts))
            True
        """
        if not (isinstance(nodes, Tensor) and nodes.requires_grad):
            nodes = as_time_grid(nodes, "nodes")
        source, steps = Streams(self.seed, "brownian"), len(self.times) - 1

        def finer() -> FreshDraws:
            drawn = Noise(x, source.block(block), channels=channels)
            return FreshDraws(drawn, steps)

        intervals, places = self.times.diff().abs().tolist(), self.places(nodes.detach())
        draws = JoinedDraws(finer, intervals, places.tolist())
        return StepNoise.of(draws, nodes, channels, source.block(block).child("steps"))
