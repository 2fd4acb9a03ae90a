"""Zarr: an array, a group of them as xarray writes it, or the store of a run of `run_ensemble`."""

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
from sdegen.readers.layout import TIME, layout_of
from sdegen.readers.named import Named, found_in
from sdegen.readers.request import Found, Request

_RUN = "sdegen"  # attribute of the group that is the store of a run


def of_zarr(path: Path, request: Request) -> Found:
    """Return an array of a Zarr folder, and its times and velocities where they are there.

    Axes that have names, as xarray writes them, need no layout. Of the store of a run the
    trajectories that were lost are left out.

    Raises:
        ImportError: If Zarr is not installed.
        TypeError, ValueError: If it is damaged, of a run that has not ended, or as `found_in`.
    """
    zarr = needed("zarr", by="reading .zarr", extra="io")
    try:
        held = zarr.open(path, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged, or no Zarr folder ({type(error).__name__}: {error}); write it "
            "again."
        ) from error
    if isinstance(held, zarr.Array):
        name = path.name
        return found_in(_Arrays({name: held}), request, str(path))
    arrays = {name: array for name, array in held.members(max_depth=None) if _is_array(array)}
    if _RUN in held.attrs:
        return _of_run(path, held, arrays, request)
    return found_in(_Arrays(arrays), request, str(path))


def _is_array(item: Any) -> bool:  # noqa: ANN401, an array or a group of Zarr's
    return hasattr(item, "shape")


class _Arrays(Named):
    """The arrays of a group, by their paths in it.

    Args:
        arrays: Those of Zarr.
        rows: Indices of the trajectories to keep; None: all.
    """

    def __init__(self, arrays: dict[str, Any], rows: Tensor | None = None) -> None:
        self._arrays, self._rows = arrays, rows
        self.shapes = {name: tuple(array.shape) for name, array in arrays.items()}

    def states(self, name: str, layout: object) -> Tensor | Frames:
        """Return an array as (T, batch, *event)."""
        array = self._arrays[name]
        axes = layout_of(_names(array) if layout is None else layout, self.shapes[name], name)
        if array.nbytes <= IN_MEMORY:
            x = axes.applied(tensor_of(name, array[...]))
            return x if self._rows is None else x[:, self._rows]

        def opened(use: Callable[[Any], Any]) -> Any:  # noqa: ANN401
            return use(array)

        return ChunkedFrames(opened, axes, self._rows)

    def numbers(self, name: str) -> Tensor:
        """Return an array of numbers in float64."""
        return torch.as_tensor(np.asarray(self._arrays[name][...], dtype=np.float64))


def _names(array: Any) -> str | None:  # noqa: ANN401
    """Return the names of axes as a layout, or None where none is called time."""
    named = getattr(array.metadata, "dimension_names", None)  # of format 3
    names = named or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    return ", ".join(map(str, names)) if TIME in names else None


def _of_run(path: Path, group: Any, arrays: dict[str, Any], request: Request) -> Found:  # noqa: ANN401
    """Return the states of a run, less those that were lost.

    Raises:
        ValueError: If blocks are missing, or its boundary is one that was not said.
    """
    records = group["progress/records"]
    if records.nchunks_initialized < records.nchunks:
        raise ValueError(
            f"{path} is of a run that has not ended: {records.nchunks_initialized} of "
            f"{records.nchunks} blocks are there; resume it, run_ensemble(…, resume=True)."
        )
    boundary = group.attrs[_RUN]["run"]["boundary"]
    kind = boundary["class"] if boundary else None
    if kind == "Absorbing":
        raise ValueError(
            f"{path} is of a run with absorbing ends, and what was absorbed no longer follows the "
            "SDE; run it without them."
        )
    if kind == "Periodic" and request.periods is None:
        raise ValueError(
            f"{path} is of a run in a periodic boundary from {boundary['low']:g} to "
            f"{boundary['high']:g}; pass periods=, the length of it for each coordinate."
        )
    kept = torch.from_numpy(~np.asarray(group["nonfinite"][...])).nonzero()[:, 0]
    lost = int(group["nonfinite"].shape[0]) - len(kept)
    if len(kept) == 0:
        raise ValueError(
            f"all {lost} trajectories of {path} were lost; lower dt, or start elsewhere."
        )
    states = {name: arrays[name] for name in ("states", TIME)}
    found = found_in(_Arrays(states, kept if lost else None), request, str(path))
    left_out = f", without {lost} that were lost" if lost else ""
    return Found(found.positions, None, found.times, lost=lost, where=f"{path}{left_out}")
