"""Extended XYZ, read by ASE: positions, velocities, the box, and constraints.

    4
    Lattice="10 0 0 0 10 0 0 0 10" Properties=species:S:1:pos:R:3:vel:R:3 time=0.5 pbc="T T T"
    Ar  0.0  0.0  0.0  …

Atoms have no numbers of their own, so that they must stand in the same order in each frame; an
integer column `id` sorts them. Velocities are a column vel, velo, velocities or v, in units of the
file, or momenta, which ASE divides by its masses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdegen.core.optional import needed
from sdegen.readers.atoms import SAME, atoms_found, take_velocities
from sdegen.readers.request import Found, Request
from sdegen.readers.rounding import Kept, Sample, kept_by

_VELOCITIES = ("vel", "velo", "velocities", "v")
_PROPERTIES = re.compile(r'Properties="?([^"\s]+)', re.I)


def of_xyz(path: Path, request: Request) -> Found:
    """Return positions, and velocities if they are there, of an extended XYZ file.

    Args:
        path: The file.
        request: What was said; `velocities=False` leaves them out.

    Raises:
        ImportError: If ASE is not installed.
        ValueError: If ASE cannot read it; if a frame has other atoms than the first, or some of
            them elsewhere; if the box is tilted, or changes.
    """
    wanted = take_velocities(request, str(path))
    frames = _frames(path)
    first = frames[0]
    column = next(
        (n for n in _VELOCITIES if np.shape(first.arrays.get(n)) == (len(first), 3)), None
    )
    momenta = column is None and "momenta" in first.arrays
    orders = [_order(frame, first, k, path) for k, frame in enumerate(frames)]
    x = np.stack([f.positions[order] for f, order in zip(frames, orders, strict=True)])
    v = None
    if wanted and (column or momenta):
        v = np.stack(
            [
                (f.get_velocities() if momenta else f.arrays[column])[order]
                for f, order in zip(frames, orders, strict=True)
            ]
        )
    texts = _texts(path, {"pos"} | ({column} if column else set()))
    kept_v = [kept_by(t) for t in texts[column]] if column and v is not None else []
    if momenta and v is not None:
        kept_v = [Kept()] * 3  # of momenta, over masses: not decimals of the text
    fixed = np.zeros(x.shape[1:], dtype=bool)
    for constraint in first.constraints:
        held = getattr(constraint, "mask", np.ones(3, dtype=bool))  # of FixCartesian alone
        fixed[np.ix_(np.atleast_1d(constraint.index), np.flatnonzero(held))] = True
    return atoms_found(
        x,
        v,
        kept=([kept_by(t) for t in texts["pos"]], kept_v),
        steps=_ints(frames, "step"),
        times=_times(frames),
        periods=_periods(frames, path),
        wrapped=None,
        fixed=fixed[orders[0]],
        where=str(path),
    )


def _frames(path: Path) -> list[Any]:
    """Return the frames of a file as ASE's Atoms.

    Raises:
        ValueError: If ASE cannot read it, with what it says.
    """
    needed("ase", "reading .xyz", extra="trajectories")
    io = needed("ase.io", "reading .xyz", extra="trajectories")
    try:
        frames: list[Any] = list(io.iread(str(path), index=":", format="extxyz"))
    except Exception as error:  # ASE raises many kinds
        raise ValueError(
            f"{path} is damaged, cut off, or no extended XYZ ({type(error).__name__}: {error}); "
            "write it again, species as chemical symbols."
        ) from error
    if not frames:
        raise ValueError(f"{path} has no frames; write it again.")
    return frames


def _order(frame: Any, first: Any, k: int, path: Path) -> NDArray[Any]:  # noqa: ANN401, Atoms
    """Return the order of atoms of a frame that is that of all.

    Raises:
        ValueError: If its atoms are others than those of the first.
    """
    if len(frame) != len(first):
        raise ValueError(
            f"frame {k} of {path} has {len(frame)} atoms, but frame 0 has {len(first)}; write "
            "atoms that stay."
        )
    if "id" in first.arrays:
        if sorted(frame.arrays.get("id", ())) != sorted(first.arrays["id"]):
            raise ValueError(
                f"frame {k} of {path} has other atom ids than frame 0; write atoms that stay."
            )
        return np.argsort(frame.arrays["id"], kind="stable")
    if (frame.numbers != first.numbers).any():
        i = int((frame.numbers != first.numbers).argmax())
        raise ValueError(
            f"atom {i} of {path} is {first.symbols[i]} in frame 0 and {frame.symbols[i]} in frame "
            f"{k}: atoms were reordered; write them in one order, or a column id:I:1."
        )
    return np.arange(len(first))


def _periods(frames: list[Any], path: Path) -> NDArray[np.float64] | None:
    """Return the length of the box along each axis, 0 where it is not periodic.

    Raises:
        ValueError: If it is tilted, or changes.
    """
    first = frames[0]
    if not first.pbc.any():
        return None
    cell = np.asarray(first.cell)
    if (first.pbc & (np.diag(cell) == 0)).any():
        raise ValueError(
            f"{path} is periodic, pbc, in a box without lengths; write Lattice= into its comments."
        )
    if (cell - np.diag(np.diag(cell))).any():
        raise ValueError(
            f"the box of {path} is tilted, and periods are those of a box with right angles; "
            'unwrap positions, and write them with pbc="F F F".'
        )
    for k, frame in enumerate(frames):
        same = np.allclose(np.asarray(frame.cell), cell, rtol=SAME, atol=0)
        if not same or (frame.pbc != first.pbc).any():
            raise ValueError(
                f"the box of {path} changes in frame {k}, and an SDE has fixed periods; run it at "
                "constant volume."
            )
    return np.where(first.pbc, np.diag(cell), 0.0)


def _ints(frames: list[Any], name: str) -> list[int] | None:
    """Return an entry of the comment of each frame; None where it is not an integer in all."""
    values = [frame.info.get(name) for frame in frames]
    if not all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values):
        return None
    return [int(v) for v in values]


def _times(frames: list[Any]) -> list[str] | None:
    """Return the times in the comments of frames, as they are written shortest."""
    values = [frame.info.get("time") for frame in frames]
    if not all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values):
        return None
    return [repr(float(v)) for v in values]


def _texts(path: Path, names: set[str]) -> dict[str, list[list[str]]]:
    """Return a sample of columns as they are written, for each of three axes."""
    found = {name: [Sample(), Sample(), Sample()] for name in names}
    with path.open(encoding="utf-8", errors="replace") as file:
        for comment, rows in _raw(file):
            at, place = 0, {}
            said = _PROPERTIES.search(comment)
            fields = (said.group(1) if said else "species:S:1:pos:R:3").split(":")
            for name, width in zip(fields[::3], fields[2::3], strict=True):
                place[name], at = at, at + int(width)
            for name in names & set(place):
                for axis, sample in enumerate(found[name]):
                    sample.add([row[place[name] + axis] for row in rows])
    return {name: [sample.texts for sample in samples] for name, samples in found.items()}


def _raw(lines: Iterator[str]) -> Iterator[tuple[str, list[list[str]]]]:
    """Return the comment and the cells of each frame of a file that ASE has read."""
    for head in lines:
        if head.strip():
            comment = next(lines)
            yield comment, [next(lines).split() for _ in range(int(head.split()[0]))]
