"""The text of a LAMMPS dump: its frames, as they are written, with atoms sorted by id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdegen.readers.rounding import is_number


@dataclass(frozen=True)
class DumpFrame:
    """One frame.

    Attributes:
        step: Its time step.
        time: Its time as it is written, or "".
        units: Name of the units, or "".
        bounds: Ends of the box along each axis, shape (3, 2).
        periodic: Which axes are periodic.
        names: Of the columns.
        rows: Cells of each atom, sorted by id.
        ids: Of the atoms, sorted; () where none are written.
        line: Number of the line of its first atom.
    """

    step: int
    time: str
    units: str
    bounds: NDArray[np.float64]
    periodic: tuple[bool, ...]
    names: tuple[str, ...]
    rows: list[list[str]]
    ids: tuple[int, ...]
    line: int

    def texts(self, name: str) -> list[str]:
        """Return the cells of a column."""
        j = self.names.index(name)
        return [row[j] for row in self.rows]

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a column as numbers.

        Raises:
            ValueError: If a cell is none; naming the frame's step.
        """
        try:
            return np.array(self.texts(name), dtype=np.float64)
        except ValueError as error:
            raise ValueError(
                f"column {name} of step {self.step}, from line {self.line} on, is not numbers "
                f"alone ({error}); write it again."
            ) from None


class _Lines:
    """Lines of a text, counted."""

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self.path, self.number, self._lines = path, 0, lines

    def next(self) -> str | None:
        """Return the next line, or None at the end."""
        line = next(self._lines, None)
        self.number += line is not None
        return None if line is None else line.strip()

    def of_frame(self) -> str:
        """Return the next line of a frame.

        Raises:
            ValueError: If the text ends.
        """
        line = self.next()
        if line is None:
            raise ValueError(
                f"the last frame of {self.path} is cut off after line {self.number}, as in a run "
                "that was killed; remove that frame."
            )
        return line


def dump_frames(path: Path) -> Iterator[DumpFrame]:
    """Read the frames of a dump, one after the other.

    Raises:
        ValueError: If the text is no dump of atoms, is cut off, or its box is tilted.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = _Lines(path, file)
        units, title = "", lines.next()
        while title is not None:
            if title == "ITEM: UNITS":
                units = lines.of_frame()
            elif title in ("ITEM: TIME", "ITEM: TIMESTEP"):
                yield _frame(lines, title, units)
            elif title:
                raise ValueError(_no_dump(lines, title))
            title = lines.next()


def _frame(lines: _Lines, title: str, units: str) -> DumpFrame:
    """Return the frame that begins with a title."""
    step = count = bounds = None
    time, periodic = "", tuple([False] * 3)
    while not title.startswith("ITEM: ATOMS"):
        if title == "ITEM: TIMESTEP":
            step = _int(lines)
        elif title == "ITEM: TIME":
            time = lines.of_frame()
            if not is_number(time):
                raise ValueError(_no_dump(lines, time))
        elif title == "ITEM: UNITS":
            units = lines.of_frame()
        elif title == "ITEM: NUMBER OF ATOMS":
            count = _int(lines)
        elif title.startswith("ITEM: BOX BOUNDS"):
            bounds, periodic = _box(lines, title)
        else:
            raise ValueError(_no_dump(lines, title))
        title = lines.of_frame()
    if step is None or count is None or bounds is None:
        raise ValueError(_no_dump(lines, title))
    names, line = tuple(title.split()[2:]), lines.number + 1
    rows = []
    for _ in range(count):
        row = lines.of_frame().split()
        if len(row) != len(names):
            raise ValueError(
                f"line {lines.number} of {lines.path} has {len(row)} cells, but a frame names "
                f"{len(names)} columns, {' '.join(names)}; remove the frame if it is cut off."
            )
        rows.append(row)
    ids: tuple[int, ...] = ()
    if "id" in names:
        j = names.index("id")
        try:
            rows.sort(key=lambda row: int(row[j]))
        except ValueError:
            raise ValueError(_no_dump(lines, title)) from None
        ids = tuple(int(row[j]) for row in rows)
    return DumpFrame(step, time, units, bounds, periodic, names, rows, ids, line)


def _int(lines: _Lines) -> int:
    """Return the number in the next line."""
    text = lines.of_frame()
    try:
        return int(text)
    except ValueError:
        raise ValueError(_no_dump(lines, text)) from None


def _box(lines: _Lines, title: str) -> tuple[NDArray[np.float64], tuple[bool, ...]]:
    """Return the ends of the box, and which axes are periodic.

    Raises:
        ValueError: If it is tilted.
    """
    words = title.split()[3:]
    try:
        rows = np.array([lines.of_frame().split() for _ in range(3)], dtype=np.float64)
    except ValueError:
        raise ValueError(_no_dump(lines, title)) from None
    if "abc" in words or (rows.shape[1] > 2 and rows[:, 2:].any()):
        raise ValueError(
            f"the box of {lines.path} is tilted (line {lines.number}), and periods are those of a "
            "box with right angles; run it in one."
        )
    ends = [word for word in words if len(word) == 2]
    periodic = tuple(word == "pp" for word in ends) if len(ends) == 3 else (False,) * 3
    return rows[:, :2], periodic


def _no_dump(lines: _Lines, text: str) -> str:
    """Return why a line is refused."""
    return (
        f"line {lines.number} of {lines.path} is {text[:40]!r}, which is not what stands there in "
        "a text dump of LAMMPS; say what the file is, format=…, or write dump atom or dump custom."
    )
