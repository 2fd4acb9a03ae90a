"""Storage: tensors in files that are whole or not there, and are known to be what was written.

A file is safetensors with one entry of JSON beside the tensors: the caller's metadata, a format
number, and a sha256 of every tensor and of the entry itself. safetensors reads a flipped bit
without a word; here it is refused, and the tensor it sits in is named. Nothing is ever unpickled.

A write goes to a temporary file in the same folder, is synced, and takes its name by a rename,
which a file system does as a whole: after a kill or a full disk the old file is still there,
untouched.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sdegen.core.errors import CheckpointError
from sdegen.core.fingerprint import fingerprint, fingerprint_json

FORMAT = 1
_ENTRY = "sdegen"


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write a file so that at every moment either the old or the new one is there.

    Args:
        path: The file; its folder must exist.
        content: What it shall hold.

    Raises:
        OSError: If the disk is full or the folder cannot be written to. The old file is untouched
            and nothing is left behind.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp's 0600 is for secrets
        Path(temporary).replace(path)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        text = (
            f"{error.strerror}: {len(content):,} bytes were needed, {free:,} are free on this "
            "disk; what was there before is untouched"
        )
        raise OSError(error.errno, text, str(path)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
    _sync_folder(path.parent)


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and their metadata, whole or not at all.

    The same tensors and metadata give the same bytes.

    Args:
        path: The file, usually *.safetensors; its folder must exist.
        tensors: Tensors by name, of any shape, dtype and device.
        metadata: Anything JSON can hold.

    Raises:
        OSError: If it cannot be written; the old file is untouched.
    """
    still = {name: t.detach().cpu().contiguous().clone() for name, t in sorted(tensors.items())}
    entry: dict[str, Any] = {
        "format": FORMAT,
        "metadata": dict(metadata),
        "tensors": {name: fingerprint(tensor) for name, tensor in still.items()},
    }
    entry["sha256"] = fingerprint_json(entry)
    atomic_write(path, save(still, {_ENTRY: json.dumps(entry, sort_keys=True)}))


def load_tensors(
    path: str | Path, kind: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote, and check every bit of it.

    Args:
        path: The file.
        kind: What it should be, as its metadata say; None for anything.

    Returns:
        The tensors by name, on the CPU, and the metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is truncated, damaged, not a file of ours, of a newer format, or of
            another kind. Names the file, and the tensor where it is one.
    """
    path = Path(path)
    with _opened(path) as file:
        text = (file.metadata() or {}).get(_ENTRY)
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, not a mapping
    return tensors, _of_kind(path, kind, _checked(path, text, tensors))


def load_metadata(path: str | Path, kind: str) -> dict[str, Any]:
    """Read the metadata of what `save_tensors` wrote, and no tensor.

    Args:
        path: The file.
        kind: What it should be, as its metadata say.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If its entry is damaged, or it is of another kind.
    """
    path = Path(path)
    with _opened(path) as file:
        text = (file.metadata() or {}).get(_ENTRY)
    return _of_kind(path, kind, _entry(path, text)["metadata"])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file of safetensors, and nothing else."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated, damaged, or not a safetensors file ({error}); files of other "
            "kinds, pickles among them, are never opened."
        ) from error


def _of_kind(path: Path, kind: str | None, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata, unless they are of another kind of file."""
    if kind is not None and metadata.get("kind") != kind:
        raise CheckpointError(f"{path} holds a {metadata.get('kind')}, not a {kind}.")
    return metadata


def _entry(path: Path, text: str | None) -> dict[str, Any]:
    """Return the entry beside the tensors if it is what was written."""
    if text is None:
        raise CheckpointError(
            f"{path} holds tensors, but was not written by sdegen: it has no {_ENTRY!r} entry."
        )
    damaged = f"{path} is damaged in its key"
    try:
        entry = json.loads(text)
        stated = entry.pop("sha256")
        _ = entry["tensors"], entry["metadata"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{damaged} {_ENTRY!r}, which is not readable.") from error
    if isinstance(entry.get("format"), int) and entry["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {entry['format']}, and this version reads up to {FORMAT}; install "
            "a newer sdegen."
        )
    if fingerprint_json(entry) != stated:
        raise CheckpointError(f"{damaged} {_ENTRY!r}: its sha256 is not the one stored.")
    made: dict[str, Any] = entry
    return made


def _checked(path: Path, text: str | None, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the caller's metadata if the file is what was written."""
    entry = _entry(path, text)
    digests = entry["tensors"]
    damaged = f"{path} is damaged in its key"
    if missing := sorted(set(digests) ^ set(tensors)):
        raise CheckpointError(
            f"{path} is damaged: key {missing[0]!r} is stored without its sha256, or is not there."
        )
    for name, tensor in tensors.items():
        if fingerprint(tensor) != digests[name]:
            raise CheckpointError(f"{damaged} {name!r}: its sha256 is not the one stored.")
    metadata: dict[str, Any] = entry["metadata"]
    return metadata


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can sync a folder."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
