"""Bias: by how much an average of stored states is off from what the SDE itself would have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from sdegen.verification.battery.finding import of_smallest
from sdegen.verification.identities.averages import (
    Average,
    averages_of,
    normal_ratio,
    skewed_ratio,
    spread_columns,
    together,
)

_EACH = 3  # coordinates that are told one by one
_MOST = 64  # of which the one that is furthest off is looked for


@dataclass(frozen=True)
class Bias:
    """An average, what it would be without a step, and how well the difference is known.

    Attributes:
        name: What is averaged.
        value: Its average.
        expected: What the SDE has.
        standard_error: Of the average, with its correlations in time; NaN where it is not known.
        freedom: Degrees of freedom of Student's t.
        scale: What a relative error refers to: `expected` where that is not 0, else the size of
            the terms that cancel.
        count: Of how many averages it is the one that is furthest off.
        remark: Why its error is not to be trusted.
        skewness: That of the law of the average.
    """

    name: str
    value: float
    expected: float
    standard_error: float
    freedom: float
    scale: float
    count: int = 1
    remark: str = ""
    skewness: float = 0.0

    @classmethod
    def of(
        cls, name: str, average: Average, expected: float, scale: float, count: int = 1
    ) -> Bias:
        """Return the row of an average."""
        return cls(
            name,
            average.mean,
            expected,
            average.standard_error,
            average.freedom,
            scale,
            count,
            average.remark,
            average.skewness,
        )

    @property
    def share(self) -> float:
        """The relative error, (value − expected)/scale."""
        return (self.value - self.expected) / self.scale if self.scale else math.nan

    @property
    def p_value(self) -> float:
        """Chance of so large a difference where there is none; NaN where errors are not known."""
        return self.p_beyond(0.0)

    def p_beyond(self, allowed: float) -> float:
        """Return the chance of such a difference where the bias is `allowed`, a share of scale."""
        off = self.value - self.expected
        beyond = abs(off) - allowed * self.scale
        if math.isnan(self.standard_error):
            return math.nan
        if beyond <= 0:
            return 1.0 if allowed else of_smallest(1.0, self.count)
        if self.standard_error == 0:
            return 0.0
        t = normal_ratio(math.copysign(beyond, off) / self.standard_error, self.skewness)
        one = float(2 * stats.t.sf(abs(t), self.freedom))
        return of_smallest(min(1.0, one), self.count)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the ends of Student's interval of the average, for a skewed one."""
        quantile = float(stats.t.ppf(0.5 + confidence / 2, self.freedom))
        low, high = (skewed_ratio(h, self.skewness) for h in (quantile, -quantile))
        return self.value - low * self.standard_error, self.value - high * self.standard_error

    @property
    def sentence(self) -> str:
        """What it is, with the half of its 95 % interval, for what it should be."""
        if math.isnan(self.standard_error):
            why = self.remark.rstrip(".")
            return f"{self.name} is {self.value:.4g} for {self.expected:.4g}, error unknown: {why}"
        low, high = self.interval()
        half = 0.5 * (high - low)
        digits = _digits(half)
        form = ".4g" if digits is None else f".{digits}f"
        value = 0.0 if abs(self.value) < 0.01 * half else self.value
        return f"{self.name} is {value:{form}} ± {half:{form}} for {self.expected:.6g}"

    def __str__(self) -> str:
        return self.sentence


def rows_of(
    name: str, series: Tensor, expected: float, scale: float, labels: Sequence[str]
) -> list[Bias]:
    """Return the rows of a quantity that each of several coordinates has.

    Of few there is one row for each; of more their average, and the one that is furthest off.

    Args:
        name: What it is.
        series: Shape (T, batch, coordinates).
        expected: What each should be.
        scale: What a relative error refers to.
        labels: What the coordinates are called.
    """
    count = series.shape[2]
    if count == 1:
        return [Bias.of(name, averages_of(series)[0], expected, scale)]
    if count <= _EACH:
        return [
            Bias.of(f"{name} of {label}", average, expected, scale)
            for label, average in zip(labels, averages_of(series), strict=True)
        ]
    columns = spread_columns(count, _MOST)
    each = [
        Bias.of(
            f"{name} of {labels[int(c)]}, the furthest of {len(columns)},",
            average,
            expected,
            scale,
            len(columns),
        )
        for c, average in zip(columns, averages_of(series[:, :, columns]), strict=True)
    ]
    whole = Bias.of(f"{name}, all together,", averages_of(together(series))[0], expected, scale)
    known = [row for row in each if not math.isnan(row.p_value)]
    if not known:
        return [whole]
    return [whole, max(known, key=lambda row: _far(row))]


def _far(row: Bias) -> float:
    """Return by how many standard errors a row is off."""
    off = abs(row.value - row.expected)
    if row.standard_error == 0:
        return math.inf if off else 0.0
    return off / row.standard_error


def _digits(half: float) -> int | None:
    """Return the decimals that a number with such an error has; None for general format."""
    if not (0 < half < math.inf):
        return None
    decimals = 1 - math.floor(math.log10(half))
    return decimals if 0 <= decimals <= 8 else None
