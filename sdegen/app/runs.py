"""Runs: the folder of one run, and what belongs in it.

    runs/simulate-20260102T030405Z/
        config.toml      what was asked for, resolved; `sdegen run config.toml` repeats it
        metrics.json     what came out in numbers, and whether it came to its end
        *.safetensors    the results
        *.png            the pictures

A folder with anything in it is refused; `overwrite` replaces an earlier run, and nothing that is
not one.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CONFIG, METRICS, MODEL = "config.toml", "metrics.json", "model.safetensors"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_WRITTEN = (
    CONFIG,
    METRICS,
    "certificate.json",
    "certificate.html",
    "report.html",
    "*.safetensors",
    "*.png",
    "*.gif",
    "checkpoints/step-*.safetensors",
)


def make_folder(command: str, out: str | None, overwrite: bool) -> Path:
    """Make the folder of a run.

    Args:
        command: The verb, for the default name.
        out: The folder: a path below the current one, or an absolute one; None is
            runs/<command>-<UTC time>.
        overwrite: Remove an earlier run that is there.

    Returns:
        The folder, empty but for files that no run wrote.

    Raises:
        ValueError: If the path leaves the current folder, a name has odd characters, or the folder
            has files in it.
    """
    if out is None:
        return _fresh(Path("runs"), f"{command}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    folder = Path(out)
    for name in folder.parts[-1:] if folder.is_absolute() else folder.parts:
        if name == "..":
            raise ValueError(
                f"out = {out!r} leaves the current folder; give an absolute path if that is meant."
            )
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"out = {out!r} has odd characters in {name!r}; use letters, digits, '-', '_' "
                "and '.', not first a '-' or '.'."
            )
    if not folder.parts:
        raise ValueError(f"out = {out!r} is the current folder; name one inside it.")
    if not folder.is_absolute() and not folder.resolve().is_relative_to(Path.cwd().resolve()):
        raise ValueError(
            f"out = {out!r} leaves the current folder by a link, to {folder.resolve()}; give an "
            "absolute path if that is meant."
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out = {out!r} is a file, not a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise ValueError(
                f"{folder} has files in it; pass --overwrite to replace the run there, or "
                "another --out."
            )
        if not (folder / CONFIG).is_file():
            raise ValueError(
                f"{folder} has files in it but no {CONFIG}, so that it is no earlier run: it is "
                "not overwritten; pass another --out."
            )
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove_if_unused(folder: Path) -> bool:
    """Remove a folder that holds nothing but its config; return whether it did."""
    if not {entry.name for entry in folder.iterdir()} <= {CONFIG}:
        return False
    (folder / CONFIG).unlink(missing_ok=True)
    folder.rmdir()
    return True


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics.json; a number that is not finite becomes null."""
    write_json(folder / METRICS, metrics)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all; a number that is not finite becomes null."""
    from sdegen.storage import atomic_write

    text = json.dumps(_finite(values), indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(path, f"{text}\n".encode())


def _finite(value: object) -> object:
    """Replace every NaN and infinity, which JSON cannot write, by None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def _fresh(parent: Path, name: str) -> Path:
    """Make a new folder; a second run in one second gets a number."""
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise ValueError(f"{parent} has too many runs of this second; pass --out.")


def _clear(folder: Path) -> None:
    """Remove what a run writes, and nothing else."""
    for pattern in _WRITTEN:
        for path in folder.glob(pattern):
            path.unlink()
