"""Blocks: trajectories are run in blocks of fixed size, each with a random stream of its own.

The stream of a block follows from (seed, block), so that the numbers of a full block depend neither on how many other blocks
there are nor on the order in which they run; only the last may be smaller. A block is small enough for its state to
stay in cache for all its steps: on a CPU that alone makes a large ensemble twice as fast as one loop over all of it.

Trajectories that feel each other (a mean field) cannot be cut into blocks. `couples` sees that from outside.
"""

import torch

from sdegen.noise import Stream
from sdegen.sde.base import SDE
from sdegen.shapes import State

__all__ = ["block_rows", "couples"]

_NUMBERS = {"cpu": 2**16}  # numbers in a block; the CPU's stay in a second-level cache
_NUMBERS_ON_DEVICE = 2**24  # what fills a GPU
_FEWEST_ROWS = 256  # networks on large events still get a batch worth having


def block_rows(x0: State) -> int:
    """Trajectories in a block, from the size of an event and the kind of device alone."""
    numbers = _NUMBERS.get(x0.device.type, _NUMBERS_ON_DEVICE)
    return max(_FEWEST_ROWS, numbers // max(1, x0[0].numel()))


def couples(sde: SDE, rows: State, t: torch.Tensor, noise: Stream) -> bool:
    """Whether the drift or the diffusion of one trajectory depends on the others.

    Evaluates a few rows together and one by one. Independent noise is added first, since all trajectories may start at
    one point, where a mean field vanishes. What differs by more than rounding is coupled.

    Args:
        sde: What moves.
        rows: A few states, shape (n, *event).
        t: Start time, 0-d.
        noise: Stream for the displacement.
    """
    if len(rows) < 2:
        return False
    x = rows + (0.1 + rows.abs().mean()) * noise.normal(tuple(rows.shape), dtype=rows.dtype).to(rows.device)
    for function in (sde.drift, sde.diffusion):
        together = function(x, t)
        if together.ndim == 0:
            continue
        together = together.expand_as(x)
        apart = torch.cat([function(x[i : i + 1], t).expand_as(x[:1]) for i in range(len(x))])
        tolerance = 1e3 * torch.finfo(x.dtype).eps * together.abs().max()
        if bool(((together - apart).abs() > tolerance).any()):
            return True
    return False
