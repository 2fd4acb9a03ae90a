"""HDF5: arrays of a file, read a few frames at a time where they are large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.core.optional import needed
from sdegen.readers.arrays import tensor_of
from sdegen.readers.frames import IN_MEMORY, ChunkedFrames, Frames
from sdegen.readers.layout import layout_of
from sdegen.readers.named import Named, found_in
from sdegen.readers.request import Found, Request


def of_hdf5(path: Path, request: Request) -> Found:
    """Return an array of an HDF5 file, and its times and velocities where they are there.

    The file is opened for each block that is read, and closed again.

    Raises:
        ImportError: If h5py is not installed.
        TypeError, ValueError: If it is damaged, or as `found_in`.
    """
    needed("h5py", "reading .h5", extra="trajectories")
    return found_in(_Arrays(path), request, str(path))


class _Arrays(Named):
    """The datasets of an HDF5 file, by their paths in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        h5py = needed("h5py", "reading .h5", extra="trajectories")
        shapes: dict[str, tuple[int, ...]] = {}

        def seen(name: str, item: Any) -> None:  # noqa: ANN401, a group or dataset
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                shapes[name] = item.shape

        self._with(lambda file: file.visititems(seen))
        self.shapes = shapes

    def _with(self, use: Callable[[Any], Any]) -> Any:  # noqa: ANN401, what use returns
        """Return what is made of the open file."""
        h5py = needed("h5py", "reading .h5", extra="trajectories")
        try:
            file = h5py.File(self._path, "r")
        except OSError as error:
            raise ValueError(
                f"{self._path} is damaged, still being written, or no HDF5 file ({error}); "
                "write it again, or wait until it is closed."
            ) from error
        with file:
            return use(file)

    def states(self, name: str, layout: object) -> Tensor | Frames:
        """Return a dataset as (T, batch, *event)."""
        axes = layout_of(layout, self.shapes[name], name)

        def opened(use: Callable[[Any], Any]) -> Any:  # noqa: ANN401
            return self._with(lambda file: use(file[name]))

        if opened(lambda array: array.nbytes) <= IN_MEMORY:
            return axes.applied(tensor_of(name, opened(lambda array: array[...])))
        return ChunkedFrames(opened, axes)

    def numbers(self, name: str) -> Tensor:
        """Return a dataset of numbers in float64."""
        return torch.as_tensor(np.asarray(self._with(lambda file: file[name][...]), np.float64))
