"""Frames: states that stay where they are stored until some of them are asked for.

A tensor, which may be a view of a memory-mapped file, needs none of this. What HDF5, Zarr and
xarray hold in chunks is read a few frames at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdegen.readers.arrays import tensor_of
from sdegen.readers.layout import Layout


class Frames(ABC):
    """States of shape (T, batch, *event), of which frames are read when they are asked for.

    Attributes:
        shape: (T, batch, *event).
        dtype: Of what `read` returns.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def read(self, first: int, last: int) -> Tensor:
        """Return the frames first … last − 1, shape (last − first, batch, *event)."""


class ChunkedFrames(Frames):
    """Frames of an array that is sliced like one of NumPy's: HDF5, Zarr, xarray.

    Args:
        opened: Calls its argument with the array, which is open meanwhile.
        layout: Which of its axes is which.
        rows: Indices of the trajectories to keep; None: all.
    """

    def __init__(
        self,
        opened: Callable[[Callable[[Any], Any]], Any],
        layout: Layout,
        rows: Tensor | None = None,
    ) -> None:
        self._opened, self._layout, self._rows = opened, layout, rows
        self._count, one = opened(lambda array: (array.shape[layout.time], self._slice(array)))
        self.shape: tuple[int, ...] = (self._count, *one.shape[1:])
        self.dtype: torch.dtype = one.dtype

    def _slice(self, array: Any, first: int = 0, last: int = 1) -> Tensor:  # noqa: ANN401, of HDF5, Zarr or xarray
        where = (slice(None),) * self._layout.time + (slice(first, last),)
        x = self._layout.applied(tensor_of("states", array[where]))
        return x if self._rows is None else x[:, self._rows]

    def read(self, first: int, last: int) -> Tensor:
        """Return the frames first … last − 1."""
        frames: Tensor = self._opened(lambda array: self._slice(array, first, last))
        return frames


class CombinedFrames(Frames):
    """Frames that are made of those of others: joined, stacked or scaled.

    Args:
        parts: Tensors or frames of the same T.
        combine: Makes one tensor of theirs; frame by frame, so that it is asked for a few.
    """

    def __init__(
        self, parts: Sequence[Tensor | Frames], combine: Callable[[Sequence[Tensor]], Tensor]
    ) -> None:
        self._parts, self._combine = list(parts), combine
        one = self.read(0, 1)
        self.shape: tuple[int, ...] = (parts[0].shape[0], *one.shape[1:])
        self.dtype: torch.dtype = one.dtype

    def read(self, first: int, last: int) -> Tensor:
        """Return the frames first … last − 1."""
        return self._combine([frames_of(part, first, last) for part in self._parts])


def frames_of(states: Tensor | Frames, first: int, last: int) -> Tensor:
    """Return frames of a tensor, as a view, or of what is read for it."""
    return states.read(first, last) if isinstance(states, Frames) else states[first:last]


def combined(
    parts: Sequence[Tensor | Frames], combine: Callable[[Sequence[Tensor]], Tensor]
) -> Tensor | Frames:
    """Return what is made of states: a tensor where all are small, else frames.

    Args:
        parts: Tensors or frames of the same T.
        combine: Makes one tensor of theirs, frame by frame.
    """
    size = sum(bytes_of(part) for part in parts)
    if size <= IN_MEMORY and not any(isinstance(part, Frames) for part in parts):
        return combine([part for part in parts if isinstance(part, Tensor)])
    return CombinedFrames(parts, combine)


IN_MEMORY = 2**30  # bytes of states that are read, copied or looked through as a whole


def bytes_of(states: Tensor | Frames) -> int:
    """Return the size of states in bytes."""
    count = states.dtype.itemsize
    for n in states.shape:
        count *= n
    return count
