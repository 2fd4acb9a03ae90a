"""LAMMPS: text dumps, as `dump custom` and `dump atom` write them.

Atoms come in any order, and are sorted by id. Positions along x are the first of these that is
there, and so along y and z:

    xu          on the line
    x, ix       in the box, with the turns around it: x + L ix
    xsu         on the line, as a fraction of the box: x_low + L xsu
    xs, ix      the same in the box, with the turns around it
    x, xs       in the box

A dump knows steps, but times only if it was written with `dump_modify … time yes`, and no units of
an SDE.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdegen.readers.atoms import SAME, atoms_found, take_velocities
from sdegen.readers.lammps_text import DumpFrame, dump_frames
from sdegen.readers.request import Found, Request
from sdegen.readers.rounding import Kept, Sample, kept_by

_AXES = "xyz"


class _Columns:
    """Positions and velocities along some axes, frame by frame, with samples of their text."""

    def __init__(self, first: DumpFrame, path: Path, *, velocities: bool) -> None:
        self.styles = {j: _style(first.names, axis) for j, axis in enumerate(_AXES)}
        self.axes = [j for j in range(3) if self.styles[j]]
        if not self.axes:
            raise ValueError(
                f"{path} has columns {' '.join(first.names)}, and none of positions; write xu yu "
                "zu, or x y z ix iy iz, into the dump."
            )
        self.speeds = [f"v{_AXES[j]}" for j in self.axes]
        if not velocities or not all(name in first.names for name in self.speeds):
            self.speeds = []
        self.positions: list[NDArray[np.float64]] = []
        self.velocities: list[NDArray[np.float64]] = []
        self._names = [self.styles[j][0] for j in self.axes] + self.speeds
        self._texts = {name: Sample() for name in self._names}
        self._largest = dict.fromkeys(self._names, 0.0)

    def add(self, frame: DumpFrame) -> None:
        """Take the numbers of a frame, whose text is then let go."""
        for name in self._names:
            x = np.abs(frame.column(name))
            most = float(x.max(initial=0.0, where=np.isfinite(x)))
            self._largest[name] = max(self._largest[name], most)
            self._texts[name].add(frame.texts(name))
        self.positions.append(
            np.stack([_position(frame, self.styles[j], j) for j in self.axes], 1)
        )
        if self.speeds:
            self.velocities.append(np.stack([frame.column(name) for name in self.speeds], 1))

    def kept(self, first: DumpFrame) -> tuple[list[Kept], list[Kept]]:
        """Return what the text kept of positions and of velocities, along each axis.

        Where positions are computed from what is written, digits of that are no digits of theirs.
        """
        of_positions = []
        for j in self.axes:
            name = self.styles[j][0]
            kept = kept_by(self._texts[name].texts)
            if len(self.styles[j]) == 2 or "s" in name:
                length = float(first.bounds[j, 1] - first.bounds[j, 0]) if "s" in name else 1.0
                kept = Kept(absolute=kept.bound(self._largest[name]) * length)
            of_positions.append(kept)
        return of_positions, [kept_by(self._texts[name].texts) for name in self.speeds]


def of_lammps(path: Path, request: Request) -> Found:
    """Return positions, and velocities if they are there, of a text dump.

    Args:
        path: The file.
        request: What was said; `velocities=False` leaves them out.

    Raises:
        ValueError: If the text is no dump or cut off; if a frame has other atoms or columns than
            the first, or no ids; if the box is tilted, or changes along an axis where it matters.
    """
    wanted = take_velocities(request, str(path))
    first = columns = None
    steps: list[int] = []
    times: list[str] = []
    for k, frame in enumerate(dump_frames(path)):
        if first is None or columns is None:
            first, columns = frame, _Columns(frame, path, velocities=wanted)
        _check_like(frame, first, k, path)
        for j in columns.axes:
            if first.periodic[j] or "s" in columns.styles[j][0]:
                _check_box(frame, first, k, j, path)
        columns.add(frame)
        steps.append(frame.step)
        times.append(frame.time)
    if first is None or columns is None:
        raise ValueError(f"{path} has no frames; write it again.")
    axes, styles = columns.axes, columns.styles
    length = first.bounds[:, 1] - first.bounds[:, 0]
    units = f" in units {first.units}" if first.units else ""
    return atoms_found(
        np.stack(columns.positions),
        np.stack(columns.velocities) if columns.velocities else None,
        kept=columns.kept(first),
        steps=steps,
        times=times,
        periods=np.array([length[j] if first.periodic[j] else 0.0 for j in axes]),
        wrapped=any(first.periodic[j] and not _on_the_line(styles[j]) for j in axes),
        where=f"{path}{units}",
    )


def _style(names: tuple[str, ...], axis: str) -> tuple[str, ...]:
    """Return the columns that positions along an axis are made of; () where there are none."""
    turns = f"i{axis}"
    for columns in ((f"{axis}u",), (axis, turns), (f"{axis}su",), (f"{axis}s", turns)):
        if all(name in names for name in columns):
            return columns
    return next(((n,) for n in (axis, f"{axis}s") if n in names), ())


def _on_the_line(style: tuple[str, ...]) -> bool:
    """Return whether positions are not folded into the box."""
    return len(style) == 2 or style[0].endswith("u")


def _position(frame: DumpFrame, style: tuple[str, ...], j: int) -> NDArray[np.float64]:
    """Return positions along an axis, shape (atoms,)."""
    low, high = frame.bounds[j]
    x = frame.column(style[0])
    if "s" in style[0]:
        x = low + (high - low) * x
    return x if len(style) == 1 else x + (high - low) * frame.column(style[1])


def _check_like(frame: DumpFrame, first: DumpFrame, k: int, path: Path) -> None:
    """Refuse a frame of other atoms or columns than the first."""
    if len(frame.rows) != len(first.rows):
        raise ValueError(
            f"frame {k} of {path} (step {frame.step}) has {len(frame.rows)} atoms, but frame 0 "
            f"has {len(first.rows)}; write a group whose atoms stay, dump … group."
        )
    if frame.names != first.names:
        raise ValueError(
            f"frame {k} of {path} has columns {' '.join(frame.names)}, but frame 0 has "
            f"{' '.join(first.names)}; pass files of one kind, each by itself."
        )
    if not frame.ids and len(frame.rows) > 1:
        raise ValueError(
            f"{path} has no column id, and LAMMPS writes atoms in an order that changes: nobody "
            "knows which is which; write id into the dump."
        )
    if len(set(frame.ids)) < len(frame.ids) or frame.ids != first.ids:
        raise ValueError(
            f"frame {k} of {path} (step {frame.step}) has other atom ids than frame 0, or one "
            "twice; write a group whose atoms stay, dump … group."
        )


def _check_box(frame: DumpFrame, first: DumpFrame, k: int, j: int, path: Path) -> None:
    """Refuse a box that changes, or whose axes are periodic in some frames."""
    same = np.allclose(frame.bounds[j], first.bounds[j], rtol=SAME, atol=0)
    if not same or frame.periodic[j] != first.periodic[j]:
        (a, b), (c, d) = first.bounds[j], frame.bounds[j]
        raise ValueError(
            f"the box of {path} changes along {_AXES[j]}, from [{a:g}, {b:g}] to [{c:g}, {d:g}] "
            f"in frame {k}, and an SDE has fixed periods; run it at constant volume."
        )
