"""Blocks: trajectories are run in blocks of fixed size, each with a random stream of its own.

The stream of a block follows from (seed, block), so that the numbers of a full block depend
neither on how many other blocks there are nor on the order in which they run; only the last may be
smaller. A block is small enough for its state to stay in cache for all its steps: on a CPU that
alone makes a large ensemble twice as fast as one loop over all of it.

Trajectories that feel each other (a mean field) cannot be cut into blocks. `couples` sees that
from outside.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.noise import Stream
from sdegen.sde.base import SDE
from sdegen.shapes import State

__all__ = ["block_rows", "couples"]

_NUMBERS = {"cpu": 2**16}  # numbers in a block; the CPU's stay in a second-level cache
_NUMBERS_ON_DEVICE = 2**24  # what fills a GPU
_DISPLACEMENTS = (1.0, 1e-2, 1e-4)
_FEWEST_ROWS = 256  # networks on large events still get a batch worth having


def block_rows(x0: State) -> int:
    """Trajectories in a block, from the size of an event and the kind of device alone."""
    numbers = _NUMBERS.get(x0.device.type, _NUMBERS_ON_DEVICE)
    return max(_FEWEST_ROWS, numbers // max(1, x0[0].numel()))


def couples(sde: SDE, rows: State, t: Tensor, noise: Stream) -> bool:
    """Whether the drift or the diffusion of one trajectory depends on the others.

    Evaluates a few rows together and one by one. Independent noise is added first, since all
    trajectories may start at one point, where a mean field vanishes. What differs by more than
    rounding is coupled.

    Args:
        sde: What moves.
        rows: A few states, shape (n, *event).
        t: Start time, 0-d.
        noise: Stream for the displacement.
    """
    if len(rows) < 2:
        return False
    z = noise.normal(tuple(rows.shape), dtype=rows.dtype, device=rows.device)
    return any(_couples(field, rows, t, z) for field in (sde.drift, sde.diffusion))


def _couples(field: Callable[[State, Tensor], Tensor], rows: State, t: Tensor, z: State) -> bool:
    """The same for one of the two, with normals z of x's shape."""
    together, x = rows.new_full((), torch.nan), rows
    for scale in _DISPLACEMENTS:
        x = rows + scale * (0.1 + rows.abs().mean()) * z
        together = field(x, t).expand_as(x)
        if bool(together.isfinite().all()):
            break  # a smaller displacement is for fields that live on part of space, such as √x
    apart = torch.cat([field(x[i : i + 1], t).expand_as(x[:1]) for i in range(len(x))])
    tolerance = 1e3 * torch.finfo(x.dtype).eps * together.abs().max()
    return bool(((together - apart).abs() > tolerance).any())
