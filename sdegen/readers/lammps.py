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
from sdegen.readers.rounding import Kept, kept_by

_AXES = "xyz"
_SAMPLE = 4096  # numbers of a column whose text is looked at


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
    frames = list(dump_frames(path))
    if not frames:
        raise ValueError(f"{path} has no frames; write it again.")
    first = frames[0]
    styles = {j: _style(first.names, axis) for j, axis in enumerate(_AXES)}
    axes = [j for j in range(3) if styles[j]]
    if not axes:
        raise ValueError(
            f"{path} has columns {' '.join(first.names)}, and none of positions; write xu yu zu, "
            "or x y z ix iy iz, into the dump."
        )
    for k, frame in enumerate(frames):
        _check_like(frame, first, k, path)
        for j in axes:
            if first.periodic[j] or "s" in styles[j][0]:
                _check_box(frame, first, k, j, path)
    x = np.stack([np.stack([_position(f, styles[j], j) for j in axes], 1) for f in frames])
    kept = [_kept_of_position(frames, styles[j], j) for j in axes]
    names = [f"v{_AXES[j]}" for j in axes]
    v, kept_v = None, []
    if wanted and all(name in first.names for name in names):
        v = np.stack([np.stack([f.column(name) for name in names], 1) for f in frames])
        kept_v = [kept_by(_sample(frames, name)) for name in names]
    length = first.bounds[:, 1] - first.bounds[:, 0]
    periods = np.array([length[j] if first.periodic[j] else 0.0 for j in axes])
    folded = any(first.periodic[j] and not _on_the_line(styles[j]) for j in axes)
    units = f" in units {first.units}" if first.units else ""
    return atoms_found(
        x,
        v,
        kept=(kept, kept_v),
        steps=[f.step for f in frames],
        times=[f.time for f in frames],
        periods=periods,
        wrapped=folded,
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


def _sample(frames: list[DumpFrame], name: str) -> list[str]:
    """Return texts of a column, from frames all along the file."""
    each = max(1, len(frames) * len(frames[0].rows) // _SAMPLE)
    return [text for frame in frames[::each] for text in frame.texts(name)]


def _kept_of_position(frames: list[DumpFrame], style: tuple[str, ...], j: int) -> Kept:
    """Return what the text kept of positions along an axis.

    Where these are computed from what is written, digits of that are no digits of theirs.
    """
    kept = kept_by(_sample(frames, style[0]))
    if style == (_AXES[j],) or style[0] == f"{_AXES[j]}u":
        return kept
    size = max(float(np.abs(frame.column(style[0])).max()) for frame in frames)
    length = float(frames[0].bounds[j, 1] - frames[0].bounds[j, 0])
    return Kept(absolute=kept.bound(size) * (length if "s" in style[0] else 1.0))


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
