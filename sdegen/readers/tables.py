"""Tables: text with a number in each cell, separated by commas, semicolons, tabs or spaces.

    time,trajectory,x,y
    0.00,0,1.2500,-0.3333
    …

Names of columns are taken from a first line that is not numbers, or from the last line of
comments (#) before the numbers. A column called time or t is the times. A column called
trajectory or batch tells rows of several trajectories apart, each of which has all times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.requests import kind_of
from sdegen.readers.layout import BATCH, layout_of
from sdegen.readers.request import Found, Request
from sdegen.readers.rounding import Kept, is_number, kept_by, rounding_of
from sdegen.readers.times import snapped

_TIMES = ("time", "times", "t")
_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class _Table:
    """Cells of a table.

    Attributes:
        names: Of its columns; () where there are none.
        cells: Rows of texts.
        lines: Number of each row's line in the file.
    """

    names: tuple[str, ...]
    cells: list[list[str]]
    lines: list[int]

    def column(self, j: int) -> list[str]:
        """Return the cells of a column."""
        return [row[j] for row in self.cells]

    def title(self, j: int) -> str:
        """Return the name of a column, or its number."""
        return repr(self.names[j]) if self.names else str(j + 1)


def of_table(path: Path, request: Request) -> Found:
    """Return what is in a table of numbers.

    Args:
        path: The file.
        request: What was said; `columns`, `velocities` (a list) and `times` are names of columns.

    Raises:
        TypeError: If columns are not named by texts.
        ValueError: If a cell is no number, naming the line; if rows have several lengths, or
            trajectories several numbers of rows or other times.
    """
    table = _read(path)
    time, rows = _time_of(table, request, path), _batch_of(table)
    taken = {time, rows}
    v = _chosen(table, request.velocities, "velocities", path)
    x = _chosen(table, request.columns, "columns", path)
    if x is None:
        x = [j for j in range(len(table.cells[0])) if j not in taken | set(v or ())]
    if not x:
        raise ValueError(f"{path} has no column of states; pass columns=, the names of theirs.")
    order, count = _grouped(table, rows, path)
    times, half = _times(table, time, order, count, path)
    positions, kept = _states(table, x, path)
    velocities, kept_v = _states(table, v, path) if v else (None, [])
    rounding, digits = rounding_of([(positions, kept), (velocities, kept_v)])
    named = request.columns is not None or rows is not None or v is not None
    return Found(
        _arranged(positions, order, count, request, named=named),
        None if velocities is None else _arranged(velocities, order, count, request, named=named),
        times=times,
        times_rounding=half,
        rounding=rounding,
        digits=digits,
        columns=tuple(table.names[j] for j in x) if table.names and request.layout is None else (),
        where=str(path),
    )


def _read(path: Path) -> _Table:
    """Return the cells of a table.

    Raises:
        ValueError: If there are no rows, or a row has another number of cells; naming the line.
    """
    names: list[str] = []
    cells: list[list[str]] = []
    lines: list[int] = []
    separator: str | None = None
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}); say what it is, format=….") from error
    for k, line in enumerate(text, 1):
        content = line.strip()
        comment = content.startswith("#")
        content = content.lstrip("#").strip()
        if not content or (comment and cells):
            continue
        if not cells:
            separator = next((s for s in _SEPARATORS if s in content), None)
        row = [cell.strip().strip('"') for cell in content.split(separator)]
        if not cells and (comment or not any(map(is_number, row))):
            names = row
            continue
        cells.append(row)
        lines.append(k)
        if len(row) != len(cells[0]):
            raise ValueError(
                f"line {k} of {path} has {len(row)} cells, but line {lines[0]} has "
                f"{len(cells[0])}; give each row one for each column."
            )
    if not cells:
        raise ValueError(f"{path} has no rows of numbers; write it again.")
    if len(names) != len(cells[0]):
        names = []  # a sentence, not names
    return _Table(tuple(names), cells, lines)


def _floats(table: _Table, j: int, path: Path) -> NDArray[np.float64]:
    """Return a column as numbers.

    Raises:
        ValueError: If a cell is none; naming its line.
    """
    cells = table.column(j)
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        k = next(i for i, cell in enumerate(cells) if not is_number(cell))
        raise ValueError(
            f"line {table.lines[k]} of {path} has {cells[k]!r} in column {table.title(j)}, which "
            "is no number; write a number there, or leave the column out by columns=."
        ) from None


def _named(table: _Table, name: object, argument: str, path: Path) -> int:
    """Return the number of a column that was named."""
    if not isinstance(name, str):
        raise TypeError(
            f"{argument} must be names of columns, a list of texts, but holds {kind_of(name)}."
        )
    if name not in table.names:
        held = ", ".join(map(repr, table.names)) or f"{len(table.cells[0])} columns without names"
        raise ValueError(f"{path} has no column {name!r}, but {held}; pass one of these.")
    return table.names.index(name)


def _chosen(table: _Table, names: object, argument: str, path: Path) -> list[int] | None:
    """Return the numbers of columns that were named; None if none were."""
    if names is None:
        return None
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, Sequence) or not names:
        raise TypeError(
            f"{argument} must be names of columns, a list of texts, but is {kind_of(names)}."
        )
    return [_named(table, name, argument, path) for name in names]


def _time_of(table: _Table, request: Request, path: Path) -> int | None:
    """Return the number of the column of times, or None."""
    if isinstance(request.times, str):
        return _named(table, request.times, "times", path)
    found = [j for j, name in enumerate(table.names) if name.lower() in _TIMES]
    return found[0] if found else None


def _batch_of(table: _Table) -> int | None:
    """Return the number of the column that tells trajectories apart, or None."""
    found = [j for j, name in enumerate(table.names) if name.lower() in BATCH]
    return found[0] if found else None


def _grouped(table: _Table, rows: int | None, path: Path) -> tuple[NDArray[Any], int]:
    """Return the order in which rows of one trajectory follow each other, and how many there are.

    Raises:
        ValueError: If trajectories have several numbers of rows.
    """
    if rows is None:
        return np.arange(len(table.cells)), 1
    labels = np.array(table.column(rows))
    _, first, of, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    if len(set(sizes.tolist())) > 1:
        k = int((sizes != np.median(sizes)).argmax())
        raise ValueError(
            f"trajectory {labels[first[k]]} of {path} has {sizes[k]} rows, and others "
            f"{int(np.median(sizes))}; give each all times, or leave it out."
        )
    # trajectories in the order in which they first appear
    return np.argsort(np.argsort(np.argsort(first))[of], kind="stable"), len(sizes)


def _times(
    table: _Table, time: int | None, order: NDArray[Any], count: int, path: Path
) -> tuple[Tensor | None, float]:
    """Return the times of frames, and their rounding.

    Raises:
        ValueError: If they are not the same for all trajectories.
    """
    if time is None:
        return None, 0.0
    values = _floats(table, time, path)[order].reshape(count, -1)
    apart = (values != values[0]).any(1)
    if apart.any():
        k = int(apart.argmax())
        at = int((values[k] != values[0]).argmax())
        raise ValueError(
            f"trajectories of {path} have other times: time {at} of the first is "
            f"{values[0, at]:g}, and of trajectory {k} {values[k, at]:g}; give each the same "
            "times, sorted."
        )
    kept = kept_by(table.column(time))
    half = kept.bound(float(np.abs(values[0]).max()))
    return snapped(torch.from_numpy(values[0].copy()), half), half


def _states(
    table: _Table, columns: Sequence[int], path: Path
) -> tuple[NDArray[np.float64], list[Kept]]:
    """Return columns as numbers, shape (rows, columns), with what was kept of each."""
    values = np.stack([_floats(table, j, path) for j in columns], 1)
    return values, [kept_by(table.column(j)) for j in columns]


def _arranged(
    values: NDArray[np.float64], order: NDArray[Any], count: int, request: Request, *, named: bool
) -> Tensor:
    """Return columns as (T, batch, *event)."""
    x = torch.from_numpy(values[order])
    if count > 1 and request.layout is not None:
        raise ValueError(
            "a column of the table tells trajectories apart, and its other columns are "
            "coordinates; leave layout= out."
        )
    if count > 1 or (named and request.layout is None):
        return x.reshape(count, -1, x.shape[1]).transpose(0, 1)
    x = x[:, 0] if x.shape[1] == 1 and request.layout is None else x
    return layout_of(request.layout, tuple(x.shape)).applied(x)
