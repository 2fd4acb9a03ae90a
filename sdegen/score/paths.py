"""Paths: blocks of simulated paths, and what a target says of the score at times along them.

A block is Euler's chain from data at t = 0 to t_max, all of its paths at the same times. Steps are
h, and shorter towards t = 0, where a score changes as fast as 1/t. The grid of a block is drawn
with the block, so that all times between t_min and t_max are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.noise import Noise, Stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.score.targets.base import Node, Target, take_step
from sdegen.score.targets.frames import frame_of

_GROWTH = 0.1  # of a step beside the time that has passed
_FIRST = 8  # steps before t_min, at least
_SPREAD = 0.25  # by which the steps of blocks differ


@dataclass(frozen=True)
class Readings:
    """States and targets of a block of paths.

    Args:
        t: Times, shape (reads,), float64, on the CPU.
        x: States, shape (reads, paths, *event).
        target: H at them, same shape.
    """

    t: Tensor
    x: Tensor
    target: Tensor


def path_nodes(t_min: float, t_max: float, h: float, shift: float) -> Tensor:
    """Return the times of the steps of a block, from 0 to t_max, float64.

    Args:
        t_min: The first time that is read.
        t_max: The last.
        h: The longest step.
        shift: A number in [0, 1), another for each block.
    """
    h = h * (1 - _SPREAD * shift)
    nodes = [0.0]
    while nodes[-1] < t_max:
        t = nodes[-1]
        nodes.append(t + min(h, max(t_min / _FIRST, _GROWTH * t)))
    grid = torch.tensor(nodes, dtype=torch.float64)
    return grid * (t_max / grid[-1])


def read_times(t_min: float, t_max: float, u: Tensor) -> Tensor:
    """Return the times below which shares u lie: uniform in √t, so that early times are dense."""
    low, high = math.sqrt(t_min), math.sqrt(t_max)
    return (low + (high - low) * u.double()).square()


def simulate_paths(
    sde: SDE, target: Target, x0: State, nodes: Tensor, times: Tensor, source: Stream
) -> Readings:
    """Simulate a block of paths and read the target along them.

    Args:
        sde: What moves.
        target: What is read.
        x0: Data, shape (paths, *event).
        nodes: Times of the steps, shape (steps + 1,), float64, on the CPU.
        times: When it is read, increasing, shape (reads,); at the next node each.
        source: Where random numbers come from.
    """
    where = torch.searchsorted(nodes, times.double()).clamp(1, len(nodes) - 1).tolist()
    noise = Noise(x0, source.child("steps"), channels=sde.channels)
    probes = Noise(x0, source.child("probes"))
    states, values = [], []
    with torch.no_grad():
        node = Node(x0, nodes[0], frame_of(sde, x0, nodes[0]))
        memory = target.begin(node)
        for k in range(max(where)):
            step = take_step(sde, node, nodes[k + 1], noise, probes, slopes=target.needs_slopes)
            memory, node = target.advance(memory, step), step.after
            for _ in range(where.count(k + 1)):
                states.append(node.x)
                values.append(target.value(memory, node))
    return Readings(nodes[torch.tensor(where)], torch.stack(states), torch.stack(values))
