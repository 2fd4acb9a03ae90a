"""Averages of numbers along stored states, with errors that know how long these remember.

Of many trajectories the means of each are independent numbers, and their scatter is the error,
whatever a trajectory remembers. Of few it comes from the correlations within them (`time_average`)
or, where these sum up to nothing, as of a derivative in time, from blocks (`block_average`). A
long series is first averaged over short pieces, thousands of them: its mean is the same, and what
it remembers for longer than a piece is all that its error is made of.

The ratio of a mean of skewed numbers, such as x², to its error is no Student's t. With the
skewness γ of the mean, as blocks tell it that are as long as the memory,

    h(t) = ((1 + γt/3)³ − 1)/γ + γ/6

is one to a higher order: of 10,000 Gaussian series of 1,000 independent x² a test at 5 % (0.1 %)
rejects 5.3 % (0.19 %) by t, and 5.1 % (0.11 %) by h.

Reference:
    Hall 1992, J. R. Stat. Soc. B 54, 221, eq. (2.4).
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
_BLOCKS = 32  # whose skewness says something
_SHORTEST = 8  # frames of a series that has correlations


@dataclass(frozen=True)
class Average:
    """A mean and how well it is known.

    Attributes:
        mean: Of all numbers.
        standard_error: Of that mean; NaN where it is not known.
        freedom: Degrees of freedom of Student's t.
        remark: Why the error is not to be trusted; empty where it is.
        skewness: γ, that of the law of the mean.
    """

    mean: float
    standard_error: float
    freedom: float
    remark: str = ""
    skewness: float = 0.0


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
    means, by_means = values.mean(0), None
    if rows > 1:
        error = float(means.std()) / math.sqrt(rows)
        by_means = Average(mean, error, rows - 1.0, skewness=skewness_of(means))
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
        error, freedom = float(found.standard_error), float(found.degrees_of_freedom)
        return Average(mean, error, freedom, remark, skewness_of(_blocks(values, freedom)))
    if by_means is not None and rows >= _FEWEST:
        return by_means
    return Average(mean, math.nan, 1.0, why)


def _blocks(values: Tensor, count: float) -> Tensor:
    """Return means of about so many blocks, that do not cross from one trajectory to the next."""
    frames, rows = values.shape
    length = min(frames, max(1, math.ceil(frames * rows / max(1.0, count))))
    return values[: frames // length * length].reshape(-1, length, rows).mean(1).flatten()


def skewness_of(blocks: Tensor) -> float:
    """Return the skewness of the mean of independent numbers; 0 where it is not known."""
    if len(blocks) < _BLOCKS:
        return 0.0
    off = blocks - blocks.mean()
    size = float(off.square().mean())
    return float((off**3).mean()) / size**1.5 / math.sqrt(len(blocks)) if size > 0 else 0.0


def normal_ratio(t: float, skewness: float) -> float:
    """Return h(t), which is Student's where t has a skewed mean; straight on beyond |γt| = 1.

    >>> round(normal_ratio(2.0, 0.1), 3)
    2.153
    """
    if skewness == 0:
        return t
    inner = max(-1.0, min(1.0, skewness * t))
    at_inner = ((1 + inner / 3) ** 3 - 1) / skewness + skewness / 6
    return at_inner + t - inner / skewness


def skewed_ratio(h: float, skewness: float) -> float:
    """Return the t of which h is the normal ratio.

    >>> round(skewed_ratio(normal_ratio(-2.0, 0.1), 0.1), 12)
    -2.0
    """
    if skewness == 0:
        return h
    cube = 1 + skewness * (h - skewness / 6)
    inner = 3 * (math.copysign(abs(cube) ** (1 / 3), cube) - 1)
    if abs(inner) <= 1:
        return inner / skewness
    edge = math.copysign(1.0, inner) / skewness
    return edge + h - normal_ratio(edge, skewness)


def together(series: Tensor) -> Tensor:
    """Return the average over the last axis, as one quantity, shape (T, batch, 1)."""
    return series.double().mean(-1, keepdim=True)


def spread_columns(count: int, most: int) -> Tensor:
    """Return at most so many of the columns 0 … count − 1, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
