"""Joining: sources that hold a trajectory each, or several, as one object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.readers.frames import combined
from sdegen.readers.stored_states import StoredStates


def joined(parts: Sequence[StoredStates]) -> StoredStates:
    """Return the trajectories of several sources beside each other.

    The coarsest rounding of them is that of all.

    Args:
        parts: Their states, at the same times and of the same shape, but for the number of
            trajectories.

    Raises:
        TypeError: If they have several dtypes.
        ValueError: If times, shapes, periods or constraints differ; naming the source.
    """
    first = parts[0]
    for k, part in enumerate(parts):
        _check_like(part, first, k)
    states = combined([p.states for p in parts], lambda xs: torch.cat(list(xs), 1))
    digits = [p.digits for p in parts]
    known = [d for d in digits if d is not None]
    coarsest = max(
        (p.precision or p.states.dtype for p in parts), key=lambda d: torch.finfo(d).eps
    )
    return StoredStates(
        first.times,
        states,
        rounding=_coarsest([p.rounding for p in parts]),
        digits=min(known) if known else None,
        unit=first.unit,
        precision=coarsest,
        phase_space=first.phase_space,
        periods=first.periods,
        wrapped=any(p.wrapped for p in parts),
        fixed=first.fixed,
        centre_removed=any(p.centre_removed for p in parts),
        columns=first.columns,
        lost=sum(p.lost for p in parts),
        source=f"{len(parts)} sources, the first {first.source}",
    )


def _coarsest(values: Sequence[float | Tensor]) -> float | Tensor:
    """Return the largest rounding of each coordinate."""
    if all(isinstance(v, float | int) for v in values):
        return max(float(v) for v in values)
    most = torch.as_tensor(values[0], dtype=torch.float64)
    for value in values[1:]:
        most = torch.maximum(most, torch.as_tensor(value, dtype=torch.float64))
    return most


def _check_like(part: StoredStates, first: StoredStates, k: int) -> None:
    """Refuse a source that is not like the first."""
    name = f"source {k} ({part.source})"
    if (part.event, part.phase_space) != (first.event, first.phase_space):
        raise ValueError(
            f"{name} has states of shape {part.event}, but the first {first.event}; pass those of "
            "one system."
        )
    if part.states.dtype != first.states.dtype:
        raise TypeError(
            f"{name} has dtype {part.states.dtype}, but the first {first.states.dtype}; pass all "
            "in one dtype."
        )
    if len(part.times) != len(first.times):
        raise ValueError(
            f"{name} has {len(part.times)} frames, but the first {len(first.times)}; cut all to "
            "the same times."
        )
    if not torch.allclose(
        part.times, first.times, rtol=1e-9, atol=1e-9 * float(first.times.abs().max())
    ):
        at = int(((part.times - first.times).abs()).argmax())
        raise ValueError(
            f"{name} has time {float(part.times[at]):g} in frame {at}, but the first "
            f"{float(first.times[at]):g}; cut all to the same times."
        )
    for what in ("periods", "fixed", "unit"):
        a, b = getattr(part, what), getattr(first, what)
        if not _same(a, b):
            raise ValueError(f"{name} has other {what} than the first; pass those of one system.")


def _same(a: float | Tensor | None, b: float | Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(torch.as_tensor(a).double(), torch.as_tensor(b).double())
