"""Atoms: what readers of dumps share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.requests import kind_of
from sdegen.readers.request import Found, Request
from sdegen.readers.rounding import Kept, kept_by, rounding_of
from sdegen.readers.times import snapped

SAME = 1e-12  # of a length, by which boxes of two frames may differ


def take_velocities(request: Request, where: str) -> bool:
    """Return whether velocities of a dump are wanted, where it has some.

    Raises:
        TypeError: If they are said to be anything else.
    """
    if request.velocities is None or request.velocities is False:
        return request.velocities is None
    raise TypeError(
        f"velocities of {where} are those that are written there, and were said to be "
        f"{kind_of(request.velocities)}; leave velocities= out, or pass False for positions alone."
    )


def atoms_found(
    x: NDArray[np.float64],
    v: NDArray[np.float64] | None,
    *,
    kept: tuple[Sequence[Kept], Sequence[Kept]],
    steps: Sequence[int] | None,
    times: Sequence[str] | None,
    periods: NDArray[np.float64] | None,
    wrapped: bool | None,
    fixed: NDArray[np.bool_] | None = None,
    where: str,
) -> Found:
    """Return frames of atoms as one trajectory.

    Args:
        x: Positions, shape (T, atoms, axes).
        v: Velocities, or None.
        kept: What the text kept of both, for each axis.
        steps: Number of the step of each frame, or None.
        times: Time of each frame as it is written, "" where it is not; or None.
        periods: Length of the box along each axis, 0 where it is not periodic; None: no box.
        wrapped: Whether positions were folded into it; None where nobody knows.
        fixed: Which coordinates are held, shape (atoms, axes).
        where: The file.
    """
    rounding, digits = rounding_of([(x, kept[0]), (v, kept[1])])
    known, half = _times(times)
    lengths = None if periods is None or not periods.any() else periods
    return Found(
        torch.from_numpy(x).unsqueeze(1),
        None if v is None else torch.from_numpy(v).unsqueeze(1),
        times=known,
        times_rounding=half,
        steps=None if steps is None else torch.tensor(steps),
        rounding=rounding,
        digits=digits,
        periods=None
        if lengths is None
        else torch.from_numpy(np.broadcast_to(lengths, x.shape[1:]).copy()),
        wrapped=False if lengths is None else wrapped,
        fixed=None if fixed is None or not fixed.any() else torch.from_numpy(fixed),
        where=where,
    )


def _times(texts: Sequence[str] | None) -> tuple[Tensor | None, float]:
    """Return times of frames and their rounding, where all are written."""
    if not texts or not all(texts):
        return None, 0.0
    times = torch.tensor([float(text) for text in texts], dtype=torch.float64)
    half = kept_by(texts).bound(float(times.abs().max()))
    return snapped(times, half), half
