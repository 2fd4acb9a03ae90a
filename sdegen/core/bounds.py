"""Bounds: where an end is, a number or a function of t."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.core.requests import as_number, refuse_lost_gradient

Bound = float | Callable[[Any], Any]


def number_of(name: str, owner: str, value: object) -> float:
    """Return an end as a number.

    Raises:
        TypeError: If it is none, or a tensor whose gradient would be lost.
    """
    if isinstance(value, list | tuple | Tensor | np.ndarray) and np.ndim(value):
        raise TypeError(
            f"{name} of {owner} must be one number, but is {value!r}; for ends of each coordinate "
            f"pass boundary={{0: {owner}(…), 1: {owner}(…)}}."
        )
    if callable(value):
        raise TypeError(
            f"{name} of {owner} must be a number, but is a function; an end that moves absorbs: "
            "pass Absorbing(low, high)."
        )
    return as_number(f"{name} of {owner}", value)


def values_of(bound: Bound, times: Tensor) -> Tensor:
    """Return the values of a bound at times, shape (T,), float64.

    Args:
        bound: A number, or a function of t.
        times: Shape (T,), float64.

    Raises:
        TypeError: If a function takes more than t, returns no number, or a tensor whose gradient
            would be lost.
        ValueError: If a function returns no finite number at some time.
    """
    if not callable(bound):
        return torch.full((len(times),), float(bound), dtype=torch.float64)
    ts = times.detach().to("cpu", torch.float64)
    try:
        refuse_lost_gradient("a bound", first := bound(ts[0]), "the place of a boundary")
        float(first)
    except (TypeError, ValueError, RuntimeError) as error:
        if "requires grad" in str(error):
            raise
        raise TypeError(
            f"a bound must be a number, or a function of t alone that returns one, but at t = "
            f"{float(ts[0]):g} it ends in: {error}; pass lambda t: …."
        ) from error
    values = _at_once(bound, ts)
    if values is None:
        values = torch.tensor([float(bound(t)) for t in ts.unbind()], dtype=torch.float64)
    bad = ~values.isfinite()
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ValueError(
            f"a bound must be finite at all times, but at t = {float(ts[i]):g} it is "
            f"{float(values[i]):g}."
        )
    return values


def _at_once(bound: Callable[[Any], Any], ts: Tensor) -> Tensor | None:
    """Return the values at all times in one call, where that gives what single calls do."""
    try:
        values = torch.as_tensor(bound(ts), dtype=torch.float64)
        if values.shape != ts.shape:
            return None
        for k in {0, len(ts) // 2, len(ts) - 1}:
            if not math.isclose(float(bound(ts[k])), float(values[k]), rel_tol=1e-12):
                return None
    except (TypeError, ValueError, RuntimeError):
        return None
    return values.detach()
