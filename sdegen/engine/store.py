"""The store of a run: states and partial results on disk, block by block, to be resumed.

    run.zarr/                a Zarr group, format 3; xarray.open_zarr opens it
        states               (time, trajectory, coordinate), one chunk for each block
        time                 (time)
        nonfinite            (trajectory), which trajectories were lost
        progress/records     (block, byte), what observables gathered in a block
        progress/before      the store as it was, while it is extended (`sdegen.engine.extension`)

The attributes of the group describe the run. A chunk is written to a temporary file, synced and
renamed, so that it is whole or not there, and the record of a block comes last: a block that has
one is done. So after a kill, Ctrl-C or a full disk all that is done is there, and what is missing
is known. A chunk carries a CRC that Zarr checks when it is read, a record its sha256 too; a block
whose record does not fit is computed again.

Two processes that write the same block write the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from sdegen.core.fingerprint import first_difference, in_words
from sdegen.core.noise import Rng, seed_of
from sdegen.engine import store_layout
from sdegen.engine.format_1 import (
    run_spec_of_format_1,
    run_spec_of_format_2,
    without_library_code,
)
from sdegen.engine.store_layout import Layout, zarr_package

# versions of sdegen whose runs this one continues to the same bits
_SAME_BITS = {"0.1.0", "0.2.0"}


class RunStore:
    """A store that is open for writing.

    Args:
        path: Its folder, which is there.
        layout: Shape of what is stored.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path: Path = path
        self._layout = layout
        files = store_layout.whole_files(path)
        group = zarr_package().open_group(files, mode="r+", use_consolidated=False)
        self._states, self._nonfinite = group["states"], group["nonfinite"]
        self._records = group["progress/records"]

    @classmethod
    def create(cls, path: Path, about: dict[str, Any], layout: Layout) -> RunStore:
        """Make a store, whole or not at all.

        Args:
            path: Its folder, which must not be there.
            about: Description of the run.
            layout: Shape of what will be stored.

        Raises:
            OSError: If there is no room, or no right to write; with what is needed.
        """
        fewer = "fewer trajectories"
        if len(layout.times) > 1:
            fewer = f"fewer times (keep_path=False keeps the last), or {fewer}"
        need = layout.blocks * layout.block_bytes
        store_layout.check_room(path, need, f"keep {fewer}")
        with store_layout.explained(path, lambda: need):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{path.name}.", suffix=".tmp", dir=path.parent, ignore_cleanup_errors=True
            ) as private:
                whole = Path(private) / path.name
                whole.mkdir()  # with the usual permissions, which a temporary folder has not
                store_layout.lay_out(whole, about, layout)
                whole.rename(path)
        return cls(path, layout)

    @classmethod
    def open(cls, path: Path, about: dict[str, Any], layout: Layout) -> RunStore:
        """Open the store of the same run.

        Args:
            path: Its folder.
            about: Description of the run that resumes it.
            layout: Shape of what it stores.

        Raises:
            ValueError: If it is no store of ours, or that of another run; with the difference.
            OSError: If there is no room for what is missing, or no right to write.
        """
        stored = description_of(path)
        if stored["format"] == 1:
            about = about | {"run": without_library_code(about["run"])}
        gap = first_difference(stored["run"], about["run"])
        if gap is None:
            check_versions(path, stored, about)
        else:
            _refuse_run(path, stored, about, gap, layout.times)
        store = cls(path, layout)
        stored_bytes = store._records.shape[1] - store_layout.DIGEST_BYTES
        if stored_bytes != layout.record:
            raise ValueError(
                f"{path} holds records of {stored_bytes} bytes, and observables of this version "
                f"gather {layout.record}: they are others than those that the store was begun "
                "with; go on with the version that began it, or begin another store."
            )
        missing = store._missing_bytes()
        if missing and not os.access(path / "states", os.W_OK):
            raise PermissionError(
                errno.EACCES, "the store cannot be written to, and the run is not done", str(path)
            )
        if missing:
            for left in path.rglob(".*.tmp"):  # of a write that was killed
                left.unlink(missing_ok=True)
        # with fewer times or trajectories it would be another run, which this store refuses
        store_layout.check_room(path, missing, "make room, and resume it then")
        return store

    def done(self) -> set[int]:
        """Return the blocks whose record is there."""
        records = (self.path / "progress" / "records" / "c").glob("*/0")
        return {int(file.parent.name) for file in records if file.parent.name.isdigit()}

    def write(self, b: int, states: Tensor, nonfinite: Tensor, record: Tensor) -> None:
        """Write a block; its record last.

        Args:
            b: Number of the block.
            states: Shape (T, rows, *event).
            nonfinite: Shape (rows,).
            record: What observables gathered, shape (bytes,), uint8.

        Raises:
            OSError: If the disk is full; with what is needed.
        """
        where = slice(b * self._layout.rows, b * self._layout.rows + states.shape[1])
        content = record.numpy().tobytes()
        sealed = content + hashlib.sha256(content).digest()
        with store_layout.explained(self.path, self._missing_bytes):
            self._states[:, where] = states.cpu().numpy()
            self._nonfinite[where] = nonfinite.cpu().numpy()
            self._records[b] = np.frombuffer(sealed, dtype=np.uint8)

    def _missing_bytes(self) -> int:
        return (self._layout.blocks - len(self.done())) * self._layout.block_bytes

    def block(self, b: int) -> tuple[Tensor, Tensor]:
        """Return states of a block, shape (T, rows, *event), and which were lost, shape (rows,).

        Raises:
            ValueError, RuntimeError: If a chunk is damaged.
        """
        where = slice(b * self._layout.rows, (b + 1) * self._layout.rows)
        states: Tensor = torch.from_numpy(self._states[:, where])
        nonfinite: Tensor = torch.from_numpy(self._nonfinite[where])
        return states, nonfinite

    def record(self, b: int) -> Tensor | None:
        """Return the record of a block, shape (bytes,), uint8, or None if it is damaged."""
        try:
            sealed: np.ndarray = self._records[b]
        except (ValueError, RuntimeError):  # what Zarr says of a CRC that does not fit
            return None
        record, digest = np.split(sealed, [-store_layout.DIGEST_BYTES])
        same = hashlib.sha256(record.tobytes()).digest() == digest.tobytes()
        return torch.from_numpy(record.copy()) if same else None


def store_path(store: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder that `store=` names, or None.

    Raises:
        TypeError: If it is no path.
    """
    if store is None:
        return None
    if not isinstance(store, str | os.PathLike):
        raise TypeError(
            f'store must be the path of a folder, such as "run.zarr", but is {store!r}.'
        )
    return Path(store)


def seed_of_run(rng: Rng, path: Path | None, *, resume: bool) -> int:
    """Return the requested seed, or that of the store that is resumed."""
    if rng is None and resume and path is not None and path.exists():
        return int(description_of(path)["run"]["seed"])
    return seed_of(rng)


def description_of(path: Path) -> dict[str, Any]:
    """Return the description of the run in a store.

    Raises:
        ValueError: If it is no store of ours, or of a newer format.
    """
    try:
        attributes = zarr_package().open_group(path, mode="r", use_consolidated=False).attrs
        about = dict(attributes[store_layout.ATTRIBUTES_KEY])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is there, but is no store of a run ({type(error).__name__}); take another "
            "name."
        ) from error
    if about["format"] > store_layout.FORMAT:
        raise ValueError(
            f"{path} has format {about['format']}, and this version reads up to "
            f"{store_layout.FORMAT}; install a newer sdegen."
        )
    if about["format"] == 1:
        about["run"] = run_spec_of_format_1(about["run"])
    if about["format"] == 2:
        about["run"] = run_spec_of_format_2(about["run"])
    return about


def check_versions(path: Path, stored: dict[str, Any], about: dict[str, Any]) -> None:
    """Refuse other versions, or another processor, than those that began a store.

    Args:
        path: The store.
        stored: Its description.
        about: That of the run that goes on with it.

    Raises:
        ValueError: With the difference.
    """
    versions, now = stored["versions"], about["versions"]
    if versions["sdegen"] in _SAME_BITS:
        versions = versions | {"sdegen": now["sdegen"]}
    gap = first_difference(versions, now)
    if gap is not None:
        raise ValueError(
            f"{path} holds another run: {in_words(*gap)}; go on with the versions and the kind of "
            "processor that it was begun with, or begin another store."
        )


def _refuse_run(
    path: Path,
    stored: dict[str, Any],
    about: dict[str, Any],
    gap: tuple[tuple[str, ...], str],
    times: Tensor,
) -> NoReturn:
    """Refuse another run than the one that is stored.

    Raises:
        ValueError: With the difference, and what to do.
    """
    where, words = gap[0], in_words(*gap)
    before, now = stored["versions"]["sdegen"], about["versions"]["sdegen"]
    if before != now:
        hint = f"go on with sdegen {before}, which began it, or begin another store"
        words = f"this is sdegen {now}, and {words}"
    else:
        hint = "take another store, or the arguments of that run"
        if _is_longer(stored["run"], about["run"]):
            hint = f"extend=True takes it on to more; else {hint}"
        if where[0] == "times":
            words = _times_apart(path, stored["run"], about["run"], times)
        elif _keeps_count(stored["run"], where):
            hint += "; if they are those, what counts its calls must be made anew"
    raise ValueError(f"{path} holds another run: {words}; {hint}.")


def _is_longer(run: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether another run has more times or trajectories, and no fewer of either."""
    sizes = [(r["trajectories"], r["times"]["count"]) for r in (run, other)]
    return sizes[0] != sizes[1] and all(a <= b for a, b in zip(*sizes, strict=True))


def _keeps_count(run: Any, where: tuple[str, ...]) -> bool:  # noqa: ANN401, JSON
    """Return whether the difference is in an object of a user's class, which may change."""
    for key in where[:-1]:
        run = run[key]
    return where[0] in ("sde", "x0") and "members" in run and where[-1] != "members"


def _times_apart(path: Path, run: dict[str, Any], other: dict[str, Any], times: Tensor) -> str:
    """Return how the times of two runs differ: their ends, their number, or one in between.

    Args:
        path: The store of the one.
        run: Its description.
        other: That of the other.
        times: The times that the other would store.
    """
    stored = torch.full((1,), float("nan"), dtype=torch.float64)
    with suppress(KeyError, ValueError, RuntimeError):  # a damaged array tells nothing
        group = zarr_package().open_group(path, mode="r", use_consolidated=False)
        stored = torch.from_numpy(group["time"][:])
    gaps = []
    count, other_count = run["times"]["count"], other["times"]["count"]
    if run["keep_path"] and other["keep_path"] and stored[0] != times[0]:
        gaps.append(f"begin at {stored[0]:.6g} there and {times[0]:.6g} here")
    if stored[-1] != times[-1]:
        gaps.append(f"end at {stored[-1]:.6g} there and {times[-1]:.6g} here")
    if count != other_count:
        gaps.append(f"are {count} there and {other_count} here")
    if not gaps and stored.shape == times.shape and bool((stored != times).any()):
        k = int((stored != times).nonzero()[0])
        return f"times[{k}] is {stored[k]:.6g} there and {times[k]:.6g} here"
    return f"times {', '.join(gaps) or 'between the first and the last are others'}"
