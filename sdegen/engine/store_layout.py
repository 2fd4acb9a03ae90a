"""The layout of a store: its arrays, their room on the disk, and the packages that write them."""

from __future__ import annotations

import asyncio
import errno
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sdegen.core.optional import needed
from sdegen.storage import atomic_write

FORMAT = 3
ATTRIBUTES_KEY = "sdegen"
DIGEST_BYTES = 32
BEFORE = "progress/before"  # where a store that is extended has the former one


@dataclass(frozen=True)
class Layout:
    """The shape of what is stored.

    Attributes:
        times: Times that are stored, shape (T,), float64.
        trajectories: How many.
        rows: Trajectories of a block.
        event: Shape of one state.
        dtype: float32 or float64.
        record: Bytes of a block's record, less its sha256.
    """

    times: Tensor
    trajectories: int
    rows: int
    event: tuple[int, ...]
    dtype: torch.dtype
    record: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.trajectories // self.rows)

    @property
    def block_bytes(self) -> int:
        """Bytes of a full block."""
        numbers = len(self.times) * self.rows * math.prod(self.event)
        return numbers * self.dtype.itemsize + self.record + DIGEST_BYTES


def lay_out(path: Path, about: dict[str, Any], layout: Layout) -> None:
    """Write the metadata, and the times."""
    zarr, files = zarr_package(), whole_files(path)
    group = zarr.create_group(files, attributes={ATTRIBUTES_KEY: {"format": FORMAT} | about})
    group.create_group("progress")
    n, t, event = layout.trajectories, len(layout.times), layout.event
    rows, size = min(layout.rows, n), layout.record + DIGEST_BYTES
    axes = ["coordinate"] if len(event) == 1 else [f"axis_{i}" for i in range(len(event))]
    dtype = "float32" if layout.dtype == torch.float32 else "float64"
    arrays = {  # shape, chunks, names of the axes, dtype, and what stands where nothing is written
        "states": (
            (t, n, *event),
            (t, rows, *event),
            ("time", "trajectory", *axes),
            dtype,
            math.nan,
        ),
        "nonfinite": ((n,), (rows,), ("trajectory",), "bool", False),
        "time": ((t,), (t,), ("time",), "float64", 0.0),
        "progress/records": ((layout.blocks, size), (1, size), ("block", "byte"), "uint8", 0),
    }
    for name, (shape, chunks, names, kind, fill) in arrays.items():
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dimension_names=names,
            dtype=kind,
            fill_value=fill,
            compressors=zarr.codecs.Crc32cCodec(),
            filters=None,
        )
    group["time"][:] = layout.times.numpy()
    with warnings.catch_warnings():  # not in the format's text yet, but what xarray looks for
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(files)


def zarr_package() -> ModuleType:
    """Return zarr, or say how to install it."""
    return needed("zarr", by="store=", extra="io")


def whole_files(path: Path) -> Any:  # noqa: ANN401, a class of a package that may be missing
    """Return a Zarr folder in which every file is whole or absent, also after a power cut."""

    class WholeFiles(zarr_package().storage.LocalStore):  # type: ignore[misc]
        async def set(self, key: str, value: Any) -> None:  # noqa: ANN401, a buffer of Zarr's
            await asyncio.to_thread(self._write, key, value)

        def set_sync(self, key: str, value: Any) -> None:  # noqa: ANN401
            self._write(key, value)

        def _write(self, key: str, value: Any) -> None:  # noqa: ANN401
            file = self.root / key
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, value.to_bytes())

    return WholeFiles(path)


def check_room(path: Path, need: int, instead: str) -> None:
    """Refuse a run for which the disk is too small, before it begins.

    Args:
        path: Folder of the store.
        need: Bytes.
        instead: What to do.

    Raises:
        OSError: With what is needed and what is free.
    """
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            errno.ENOSPC,
            f"the store needs {_size(need)}, but {_size(free)} are free on this disk; {instead}",
            str(path),
        )


@contextmanager
def explained(path: Path, need: Callable[[], int]) -> Iterator[None]:
    """Say what a run needs of a full or read-only disk, and that it can be resumed."""
    try:
        yield
    except OSError as error:
        if str(path) in str(error.strerror or ""):
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}. The run needs {_size(need())} more; what is done stays where it "
            "is, and resume=True goes on",
            str(path),
        ) from error


def _size(count: int) -> str:
    """Return the bytes in words.

    >>> _size(26_214_400)
    '25 MiB'
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
