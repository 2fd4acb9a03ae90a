"""read_states: the one door for stored states of any program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdegen.core.checks import check_flag
from sdegen.core.requests import kind_of
from sdegen.core.shapes import Times
from sdegen.core.trajectory import Trajectory
from sdegen.readers.arrays import is_array, numbers_of, tensor_of
from sdegen.readers.files import of_file
from sdegen.readers.joined import joined
from sdegen.readers.labelled import is_labelled, of_labelled
from sdegen.readers.layout import layout_of
from sdegen.readers.request import Found, Request, settled
from sdegen.readers.stored_states import StoredStates

_SOURCES = (
    "a StoredStates, a Trajectory, an array, the name of a file, or a list of these, one for each "
    "trajectory"
)


def read_states(
    source: Any,  # noqa: ANN401, an array of any library among others
    *,
    dt: float | None = None,
    times: Times | str | None = None,
    layout: str | None = None,
    key: str | None = None,
    columns: Sequence[str] | None = None,
    velocities: Any = None,  # noqa: ANN401, an array like source, names, or False
    phase_space: bool = False,
    periods: Any = None,  # noqa: ANN401, numbers
    wrapped: bool | None = None,
    fixed: Any = None,  # noqa: ANN401, truth values
    centre_removed: bool = False,
    rounding: float | None = None,
    units: Mapping[str, float] | None = None,
    format: str | None = None,
) -> StoredStates:
    """Read stored states of any program, x(t_i) = states[i], for `certify(sde, path=…)`.

    Arrays and .npy files are not copied; .h5 and .zarr files of more than 1 GiB are read a block
    at a time. Half precision, and the decimals or digits that a text kept, are noted as rounding.

    Args:
        source: A `Trajectory`, whose lost trajectories are left out; an array of torch, NumPy,
            JAX or xarray; the name of a file: .npy, .npz, .csv (.tsv, .txt, .dat), .h5 (.hdf5),
            .zarr, also the store of a run of `run_ensemble`, .xyz (.extxyz), .lammpstrj (.dump);
            or a list of these, whose trajectories are put beside each other. A `StoredStates` is
            returned as it is.
        dt: Time from one frame to the next; checked against the times of the source if it has any.
        times: Times of the frames, shape (T,), if dt is not the same for all; or the name of an
            array or column of the file. Those called time, times or t are found.
        layout: Names of the axes of an array in their order, such as "batch, time, coordinate".
            Without it an array is (time,), of one trajectory and coordinate, or (time, batch,
            *event); of two axes they must be named: "time, batch" or "time, coordinate".
        key: Name of the array, in a file of several.
        columns: Names of the columns of a table that are coordinates of one state.
        velocities: Velocities beside the positions of source: an array of the same shape, or the
            name of one in the file, or names of columns. Those of a dump are taken unless False.
        phase_space: Whether each state of an array is positions and velocities, (2, *event).
        periods: Period of each coordinate, a number or shape (*event,), 0 where it has none.
        wrapped: Whether coordinates were folded into their periods; so it is taken to be where
            there are periods, which is no mistake where they were not.
        fixed: Which coordinates are held by constraints, shape (*event,), bool.
        centre_removed: Whether the motion of the centre of mass was taken out.
        rounding: Half of a unit of the last decimal that was kept; found in texts.
        units: How large a unit of the source is in units of the SDE: `{"length": …, "time": …,
            "velocity": …}`, of which those that are left out are 1, and velocity length/time. What
            is said here (dt, times, periods, rounding) is in units of the SDE.
        format: "npy", "npz", "csv", "hdf5", "zarr", "xyz" or "lammps", where the suffix of a file
            does not say it.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a package that reads it is not installed, with what to install.
        TypeError: If source is none of these, or its numbers are integers, complex or objects.
        ValueError: If times are missing, contradict each other or the number of frames; if axes
            are not named where they must be; if numbers are not finite, naming frame, trajectory
            and coordinate; if there are fewer than two frames; if a file is empty, damaged, cut
            off, or of an unknown format; if atoms or the box of a dump change.

    Example:
        >>> import numpy
        >>> array = numpy.arange(6.0).reshape(3, 2)  # three frames of two trajectories
        >>> stored = sg.read_states(array, dt=0.1, layout="time, batch")
        >>> stored.times.tolist(), stored.states[:, 1].flatten().tolist()
        ([0.0, 0.1, 0.2], [1.0, 3.0, 5.0])
    """
    check_flag("phase_space", phase_space)
    check_flag("centre_removed", centre_removed)
    request = Request(
        dt=dt,
        times=times,
        layout=layout,
        key=key,
        columns=columns,
        velocities=velocities,
        phase_space=phase_space,
        periods=periods,
        wrapped=wrapped,
        fixed=fixed,
        centre_removed=centre_removed,
        rounding=rounding,
        units=units,
        format=format,
    )
    stored = _stored(source, request)
    stored.check_finite()
    return stored


def _stored(source: Any, request: Request) -> StoredStates:  # noqa: ANN401
    """Return the states of a source."""
    if isinstance(source, StoredStates):
        request.refuse_said(source)
        return source
    if isinstance(source, Trajectory):
        request.refuse_said(source)
        return _of_trajectory(source)
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError(f"source is an empty list; pass {_SOURCES}.")
        if any(_is_source(one) for one in source):
            return joined([_stored(one, request) for one in source])
        source = numbers_of("source", source, _SOURCES).double()
    return settled(_found(source, request), request)


def _is_source(value: object) -> bool:
    """Return whether a value is a source by itself, not a number or a row of them."""
    return isinstance(value, str | os.PathLike | StoredStates | Trajectory) or is_array(value)


def _found(source: Any, request: Request) -> Found:  # noqa: ANN401
    """Return what is in a source that has to be read."""
    if isinstance(source, str | os.PathLike):
        return of_file(Path(source), request)
    for name in ("key", "columns", "format"):
        if getattr(request, name) is not None:
            raise ValueError(f"{name}= is of files, and source is none; leave it out.")
    if isinstance(request.times, str):
        raise TypeError(
            f"times must be numbers, but is {request.times!r}, and an array has no other beside "
            "it; pass the times."
        )
    if is_labelled(source):
        return of_labelled(source, request)
    if is_array(source):
        return _of_array(source, request)
    raise TypeError(f"source must be {_SOURCES}, but is {kind_of(source)}.")


def _of_array(source: Any, request: Request) -> Found:  # noqa: ANN401
    """Return what is in an array, and in that of velocities beside it."""
    name = type(source).__name__
    states = tensor_of("states", source)
    x = layout_of(request.layout, tuple(states.shape)).applied(states)
    v = None
    if request.velocities is not None:
        if not is_array(request.velocities):
            raise TypeError(
                f"velocities must be an array like that of positions, but is "
                f"{kind_of(request.velocities)}."
            )
        beside = tensor_of("velocities", request.velocities)
        v = layout_of(request.layout, tuple(beside.shape), "velocities").applied(beside)
    kind = {"Tensor": "a tensor", "ndarray": "a NumPy array"}.get(name, f"an array ({name})")
    return Found(x, v, where=f"{kind} of shape {tuple(states.shape)}")


def _of_trajectory(path: Trajectory) -> StoredStates:
    """Return the states of a trajectory of the library, less those that were lost."""
    lost = int(path.nonfinite.sum())
    if lost == len(path.nonfinite):
        raise ValueError(
            f"all {lost} trajectories of the Trajectory were lost, and no state is left to judge; "
            "lower dt, or start elsewhere."
        )
    if path.absorbed is not None and bool(path.absorbed.any()):
        k = int(path.absorbed.any(1).nonzero()[0])
        raise ValueError(
            f"{int(path.absorbed[-1].sum())} trajectories were absorbed, the first by "
            f"t = {float(path.times[k]):g}, and no longer follow the SDE; simulate them without "
            "the absorbing end."
        )
    keep = ~path.nonfinite
    states = path.states[:, keep] if lost else path.states
    periods, wrapped = path.periods, path.periods is not None
    turns = path.windings
    if wrapped and turns is not None and turns.shape == path.states.shape:
        states, wrapped = path.unwrapped[:, keep], False  # turns were counted
    if periods is not None:
        periods = (periods[0] if path.phase_space else periods).double().cpu()
    left_out = f", without {lost} that were lost" if lost else ""
    return StoredStates(
        path.times,
        states,
        precision=path.states.dtype,
        phase_space=path.phase_space,
        periods=periods,
        wrapped=wrapped,
        lost=lost,
        source=f"a Trajectory of {len(keep) - lost} trajectories{left_out}",
    )
