"""Labelled arrays: those of xarray, whose axes have names and whose times may be coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.core.requests import kind_of
from sdegen.readers.arrays import tensor_of
from sdegen.readers.frames import IN_MEMORY, ChunkedFrames, Frames
from sdegen.readers.layout import TIME, Layout, layout_of
from sdegen.readers.request import Found, Request


def is_labelled(value: object) -> bool:
    """Return whether a value is a DataArray of xarray, which need not be installed."""
    return type(value).__module__.startswith("xarray.") and hasattr(value, "coords")


def of_labelled(array: Any, request: Request) -> Found:  # noqa: ANN401, of a package that may be missing
    """Return what is in a DataArray: states, and times and names where it has coordinates of them.

    Args:
        array: Dimensions "time", "batch" or "trajectory", and those of a state, in any order.
        request: What was said; its layout holds in place of the names of dimensions.

    Raises:
        TypeError: If it is a Dataset, or its times or velocities are no floats.
        ValueError: If no dimension is time.
    """
    if not hasattr(array, "dims") or hasattr(array, "data_vars"):
        held = ", ".join(map(repr, getattr(array, "data_vars", ())))
        raise TypeError(
            f"source is {kind_of(array)} of {held}; pass one of its arrays, dataset['states']."
        )
    names = [str(name) for name in array.dims]
    if request.layout is None and TIME not in names:
        raise ValueError(
            f"the dimensions of the array are {', '.join(map(repr, names))}, and none is 'time'; "
            "name them by layout=, such as 'time, batch, coordinate', or by array.rename."
        )
    said = ", ".join(names) if request.layout is None else request.layout
    layout = layout_of(said, tuple(array.shape))
    v: Any = request.velocities
    if v is not None:
        if not is_labelled(v) or tuple(v.dims) != tuple(array.dims):
            raise TypeError(
                f"velocities must be a DataArray of the dimensions of positions, {tuple(names)}, "
                f"but is {kind_of(v)}."
            )
        v = _states(v, layout)
    columns: tuple[str, ...] = ()
    last = array.dims[layout.event[0]] if len(layout.event) == 1 else None
    if last in array.coords:
        columns = tuple(str(name) for name in np.asarray(array.coords[last]))
    return Found(
        _states(array, layout),
        v,
        times=_times(array, layout),
        columns=columns,
        where=f"an xarray.DataArray of shape {tuple(array.shape)}",
    )


def _states(array: Any, layout: Layout) -> Tensor | Frames:  # noqa: ANN401
    if array.nbytes <= IN_MEMORY:
        return layout.applied(tensor_of("states", np.asarray(array)))
    return ChunkedFrames(lambda use: use(array), layout)


def _times(array: Any, layout: Layout) -> Tensor | None:  # noqa: ANN401
    """Return the coordinates of time as float64; None where there are none, or other times count.

    Raises:
        TypeError: If they are dates.
    """
    name = array.dims[layout.time]
    if name not in array.coords:
        return None
    values = np.asarray(array.coords[name])
    if values.dtype.kind not in "iuf":
        raise TypeError(
            f"the coordinates of {name!r} have dtype {values.dtype}, which are no times of an "
            "SDE; replace them, array.assign_coords(time=…), by numbers in its unit of time."
        )
    return torch.from_numpy(values.astype(np.float64))
