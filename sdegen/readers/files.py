"""Files: which reader takes which, and those of NumPy, .npy and .npz."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.checks import check_word
from sdegen.core.requests import kind_of
from sdegen.readers.arrays import tensor_of
from sdegen.readers.hdf5 import of_hdf5
from sdegen.readers.lammps import of_lammps
from sdegen.readers.layout import layout_of
from sdegen.readers.named import Named, found_in
from sdegen.readers.request import Found, Request
from sdegen.readers.tables import of_table
from sdegen.readers.xyz import of_xyz
from sdegen.readers.zarr_store import of_zarr


def of_file(path: Path, request: Request) -> Found:
    """Return what is in a file.

    Args:
        path: Its name, whose suffix says its format, unless `request.format` does.
        request: What was said.

    Raises:
        FileNotFoundError: If it is not there.
        ImportError: If a package that reads it is not installed.
        TypeError, ValueError: If it is empty, damaged, of an unknown format, or its content is
            not what `read_states` takes.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file {path} (looked for in {path.absolute().parent}); pass its whole "
            "path."
        )
    name = format_of(path, request)
    if path.is_dir() and name != "zarr":
        raise ValueError(f"{path} is a folder; pass a file, or a list of files.")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: was the run that writes it killed? Write it again.")
    for option in ("key", "columns", "layout", "phase_space", "times"):
        value = getattr(request, option)
        said = (
            isinstance(value, str)
            if option == "times"
            else value is not None and value is not False
        )
        if said and option not in _TAKES[name]:
            raise ValueError(
                f"{option}={value!r} says nothing of a file of format {name!r}; leave it out."
            )
    return _READERS[name](path, request)


def format_of(path: Path, request: Request) -> str:
    """Return the format of a file: what was said, or what its suffix says.

    Raises:
        ValueError: If neither says one that is known.
    """
    if request.format is not None:
        check_word("format", request.format, list(_READERS))
        return str(request.format)
    name = _SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise ValueError(
            f"{path} has a suffix that says no format that is known, which are "
            f"{', '.join(_SUFFIXES)}; say what it is, format='lammps' for example, or convert it."
        )
    return name


def of_npy(path: Path, request: Request) -> Found:
    """Return the array of an .npy file, mapped into memory: pages are read when they are used."""
    array = _mapped(path)
    layout = layout_of(request.layout, array.shape)
    v = None
    if request.velocities is not None:
        other = request.velocities
        if not isinstance(other, str | os.PathLike):
            raise TypeError(
                f"velocities must be the name of an .npy file beside that of positions, but is "
                f"{kind_of(other)}."
            )
        beside = _mapped(Path(other))
        v = layout_of(request.layout, beside.shape, "velocities").applied(
            tensor_of("velocities", beside)
        )
    return Found(layout.applied(tensor_of("states", array)), v, where=str(path))


def _mapped(path: Path) -> NDArray[Any]:
    """Return a mapped array; changes of it would never reach the file."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; pass its whole path.")
    _check_begins(path, b"\x93NUMPY")
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(_unreadable(path, error)) from error
    return array


def _check_begins(path: Path, magic: bytes) -> None:
    """Refuse a file that does not begin as those of its format do."""
    with path.open("rb") as file:
        if file.read(len(magic)) != magic:
            raise ValueError(_unreadable(path, f"it does not begin with {magic!r}"))


def of_npz(path: Path, request: Request) -> Found:
    """Return an array of an .npz file, and its times and velocities where they are there."""
    _check_begins(path, b"PK")
    try:
        # opened here: np.load leaves a file open that it cannot read
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            named = _ArchiveOf({name: _member(archive, name) for name in archive.files})
    except (BadZipFile, ValueError, EOFError, OSError) as error:
        raise ValueError(_unreadable(path, error)) from error
    return found_in(named, request, str(path))


def _member(archive: Any, name: str) -> NDArray[Any] | None:  # noqa: ANN401, an NpzFile
    """Return an array of an archive; None where it is pickled objects, which are never opened."""
    try:
        array: NDArray[Any] = archive[name]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        return None
    return array


class _ArchiveOf(Named):
    """The arrays of an .npz file."""

    def __init__(self, arrays: dict[str, NDArray[Any] | None]) -> None:
        self._arrays = arrays
        self.shapes = {n: () if a is None else a.shape for n, a in arrays.items()}

    def states(self, name: str, layout: object) -> Tensor:
        """Return an array as (T, batch, *event)."""
        array = self._arrays[name]
        if array is None:
            raise TypeError(f"{name!r} holds objects; save an array of float64 in its place.")
        return layout_of(layout, array.shape, name).applied(tensor_of(name, array))

    def numbers(self, name: str) -> Tensor:
        """Return an array of numbers in float64."""
        return torch.as_tensor(np.asarray(self._arrays[name], dtype=np.float64))


def _unreadable(path: Path, error: Exception | str) -> str:
    """Return why a file of NumPy's is refused."""
    if "Python objects" in str(error):
        return (
            f"{path} holds objects, which are never unpickled; save an array of float64, "
            "np.save(name, np.array(…, dtype=float))."
        )
    return f"{path} is damaged, cut off, or no file of NumPy's ({error}); write it again."


_READERS: dict[str, Callable[[Path, Request], Found]] = {
    "npy": of_npy,
    "npz": of_npz,
    "csv": of_table,
    "hdf5": of_hdf5,
    "zarr": of_zarr,
    "xyz": of_xyz,
    "lammps": of_lammps,
}
_NAMED = {"key", "layout", "phase_space", "times"}
_TAKES = {  # what may be said of it
    "npy": {"layout", "phase_space"},
    "npz": _NAMED,
    "csv": {"columns", "layout", "times"},
    "hdf5": _NAMED,
    "zarr": _NAMED,
    "xyz": set[str](),
    "lammps": set[str](),
}
_SUFFIXES = {
    ".npy": "npy",
    ".npz": "npz",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".dat": "csv",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".zarr": "zarr",
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".lammpstrj": "lammps",
    ".dump": "lammps",
}
