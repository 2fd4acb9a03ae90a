"""Averages of numbers along stored states, with errors that know how long these remember.

Of many trajectories the means of each are independent numbers, and their scatter is the error,
whatever a trajectory remembers. Of few it comes from the correlations within them (`time_average`)
or, where these sum up to nothing, as of a derivative in time, from blocks (`block_average`). A
long series is first averaged over short pieces, thousands of them: its mean is the same, and what
it remembers for longer than a piece is all that its error is made of.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.errors import AccuracyWarning
from sdegen.measurements.blocking import block_average
from sdegen.measurements.time_average import time_average

_MANY = 64  # trajectories, whose means alone tell the error
_FEWEST = 4  # trajectories whose means tell it at all
_PIECES = 2**13  # of a series, at least, where it is averaged over pieces
_SHORTEST = 8  # frames of a series that has correlations


@dataclass(frozen=True)
class Average:
    """A mean and how well it is known.

    Attributes:
        mean: Of all numbers.
        standard_error: Of that mean; NaN where it is not known.
        freedom: Degrees of freedom of Student's t.
        remark: Why the error is not to be trusted; empty where it is.
    """

    mean: float
    standard_error: float
    freedom: float
    remark: str = ""


def averages_of(series: Tensor) -> list[Average]:
    """Return the average of each quantity of a series.

    Args:
        series: Shape (T, batch, quantities).
    """
    values = in_pieces(series.double())
    return [_average(values[:, :, q]) for q in range(values.shape[2])]


def in_pieces(series: Tensor) -> Tensor:
    """Return a series averaged over pieces, of which there are thousands; or as it is.

    Args:
        series: Shape (T, …); the last frames, fewer than a piece, are left out.
    """
    length = len(series) // _PIECES
    if length < 2:
        return series
    whole = series[: len(series) // length * length]
    return whole.reshape(-1, length, *series.shape[1:]).mean(1)


def _average(values: Tensor) -> Average:
    """Return the average of one quantity, shape (T, batch)."""
    frames, rows = values.shape
    mean = float(values.mean())
    if bool((values == values[:1, :1]).all()):
        return Average(mean, 0.0, math.inf)
    means = values.mean(0)
    by_means = (
        Average(mean, float(means.std()) / math.sqrt(rows), rows - 1.0) if rows > 1 else None
    )
    if by_means is not None and (rows >= _MANY or (frames < _SHORTEST and rows >= _FEWEST)):
        return by_means
    if frames < _SHORTEST:
        return Average(mean, math.nan, 1.0, f"{frames} frames of {rows} trajectories are too few")
    for method in (time_average, block_average):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", AccuracyWarning)
            try:
                found = method(values)
            except ValueError as refused:
                why = str(refused)
                continue
        remark = "; ".join(str(w.message) for w in said)
        return Average(mean, float(found.standard_error), float(found.degrees_of_freedom), remark)
    if by_means is not None and rows >= _FEWEST:
        return by_means
    return Average(mean, math.nan, 1.0, why)


def together(series: Tensor) -> Tensor:
    """Return the average over the last axis, as one quantity, shape (T, batch, 1)."""
    return series.double().mean(-1, keepdim=True)


def spread_columns(count: int, most: int) -> Tensor:
    """Return at most so many of the columns 0 … count − 1, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
