"""Excerpts of stored states, and what an SDE says of them: its drift, and the size of noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.readers.stored_states import StoredStates

MOST = 2**22  # numbers that are held in memory
_STEPWISE = 2_000  # frames, where each is asked for alone: of an SDE that changes in time
_BLOCK = 2**17  # numbers of a block


@dataclass(frozen=True)
class Excerpt:
    """Frames of stored states.

    Attributes:
        x: Shape (F, batch, *event), in the dtype of the states.
        frames: Their numbers, (F,).
        times: Their times, (F,), float64.
    """

    x: Tensor
    frames: Tensor
    times: Tensor

    @property
    def flat(self) -> Tensor:
        """The states, flattened, shape (F, batch, d)."""
        return self.x.flatten(2)


def excerpt_of(
    states: StoredStates, *, in_a_row: bool, autonomous: bool, most: int = MOST
) -> Excerpt:
    """Return frames that fit into memory, all of them where they do.

    Args:
        states: What was stored.
        in_a_row: Whether each frame is followed by the next: then they are the first ones; else
            they are spread evenly over the run.
        autonomous: Whether all frames may be asked for together.
        most: Numbers.
    """
    total, rows = states.shape[0], states.shape[1]
    size = math.prod(states.event)
    keep = torch.arange(0, rows, max(1, -(-rows * size * 16 // most)))  # 16 frames at least
    fit = max(2, most // (size * len(keep)))
    fit = fit if autonomous else min(fit, _STEPWISE)
    stride = 1 if in_a_row else max(1, -(-total // fit))
    frames = torch.arange(0, min(total, fit) if in_a_row else total, stride)
    if stride == 1 and len(keep) == rows:
        x = states.block(0, len(frames))
    else:
        chunk = stride * max(1, fit // 16)
        last = int(frames[-1]) + 1
        parts = [
            states.block(first, min(first + chunk, last))[::stride][:, keep]
            for first in range(0, last, chunk)
        ]
        x = torch.cat(parts)
    return Excerpt(x, frames, states.times[frames])


def field_of(sde: SDE, excerpt: Excerpt, autonomous: bool) -> tuple[Tensor, Tensor]:
    """Return the drift f and the diagonal of G Gᵀ at each state.

    Returns:
        f, shape (F, batch, d), and (G Gᵀ)_ii, broadcastable to it; float64.
    """
    f = asked(excerpt, lambda x, t: sde.drift(x, t), autonomous)
    g = sde.constant_noise
    if sde.noise == "none" or g is not None:
        return f, torch.full((1, 1, 1), 0.0 if g is None else g * g, dtype=torch.float64)
    return f, asked(excerpt, lambda x, t: squares_of(sde, x, t), autonomous)


def squares_of(sde: SDE, x: State, t: Time) -> Tensor:
    """Return (G Gᵀ)_ii at states, shape of x."""
    if sde.noise_structure == "general":
        return covariance_matrix(sde, x, t).diagonal(0, -2, -1).reshape(x.shape)
    g = sde.diffusion(x, t).to(x)
    square = g.square() if sde.channels is None else g.square().sum(-1)
    return square.expand(x.shape)


def asked(
    excerpt: Excerpt, function: Callable[[State, Tensor], Tensor], autonomous: bool
) -> Tensor:
    """Return a function of states and time at each state, flattened, shape (F, batch, d)."""
    x = excerpt.x
    frames, rows = x.shape[:2]
    count = max(1, _BLOCK // max(1, x[0].numel())) if autonomous else 1
    parts = []
    with torch.no_grad():
        for k in range(0, frames, count):
            some = x[k : k + count]
            value = function(some.flatten(0, 1), excerpt.times[k])
            parts.append(value.reshape(len(some), rows, -1).double())
    return torch.cat(parts)


def labels_of(states: StoredStates) -> list[str]:
    """Return what the numbers of a flattened state are called."""
    d = math.prod(states.place)
    names = list(states.columns)
    if len(names) == math.prod(states.event):
        return names
    if len(names) != d:
        names = [f"coordinate {i}" for i in range(d)]
    return (
        [*names, *(f"the velocity of {name}" for name in names)] if states.phase_space else names
    )
