"""Ticks and numbers that can be read: logarithmic axes, powers of ten, and errors in words.

An axis over many decades has a tick for each decade, or for each few; one over a decade or two
has 1, 2, 5, 10 …; one over less has even ones. Ticks are chosen when the picture is drawn, so
that they follow a zoom. Ticks without a number between them show that an axis is logarithmic.
"""

from __future__ import annotations

import math

from matplotlib.axis import Axis
from matplotlib.ticker import Formatter, Locator, MaxNLocator, NullFormatter

_FEWEST, _MOST = 3, 6  # ticks with a number
_LEAST, _LARGEST = 1e-3, 1e5  # numbers between them are written without powers of ten
_NARROWEST = 2.0  # an axis whose ends differ by less than this factor is widened to it
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def log_ticks(axis: Axis) -> None:
    """Give a logarithmic axis ticks that can be read; call it when all is drawn."""
    low, high = axis.get_view_interval()
    if high < _NARROWEST * low:
        middle, half = math.sqrt(low * high), math.sqrt(_NARROWEST)
        axis.set_view_interval(middle / half, middle * half, ignore=True)
    axis.set_major_locator(_Labelled())
    axis.set_minor_locator(_Between())
    axis.set_major_formatter(_Plain())
    axis.set_minor_formatter(NullFormatter())


def scientific(value: float, digits: int = 2) -> str:
    """Return a number in plain characters, with a power of ten where it is small or large.

    >>> scientific(0.00012), scientific(-3.14159, 3), scientific(0.0)
    ('1.2·10⁻⁴', '−3.14', '0')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("inf", "∞").replace("-", "−")
    if 10**digits <= abs(value) < _LARGEST:
        return f"{value:,.0f}".replace("-", "−")
    if _LEAST <= abs(value) < 10**digits:
        return f"{value:.{digits}g}".replace("-", "−")
    return _power_of_ten(value, digits)


def _power_of_ten(value: float, digits: int) -> str:
    """Return a number as a mantissa times a power of ten: 1.2·10⁻⁴, or 10⁻⁴ alone."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return power if mantissa == "1" else f"{mantissa}·{power}".replace("-", "−")


def _of_decades(low: float, high: float, subs: tuple[int, ...], stride: int = 1) -> list[float]:
    """Return the products of subs and every stride-th power of ten between two ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [sub * 10.0**k for k in range(first, last + 1) if k % stride == 0 for sub in subs]
    slack = 1e-9
    return [tick for tick in ticks if low * (1 - slack) <= tick <= high * (1 + slack)]


def _chosen(low: float, high: float) -> tuple[list[float], list[float]]:
    """Return ticks with a number, and those without."""
    tens = _of_decades(low, high, (1,))
    stride = max(1, math.ceil(len(tens) / _MOST))
    if len(tens) >= _FEWEST:
        strided = _of_decades(low, high, (1,), stride)
        return strided, _of_decades(low, high, tuple(range(1, 10)) if stride == 1 else (1,))
    for subs in ((1, 2, 5), (1, 2, 3, 5, 7), tuple(range(1, 10))):
        ticks = _of_decades(low, high, subs)
        if len(ticks) >= _FEWEST:
            return ticks, _of_decades(low, high, tuple(range(1, 10)))
    even = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high], []


class _Labelled(Locator):
    """Ticks of a logarithmic axis that have a number."""

    def __call__(self) -> list[float]:
        low, high = sorted(self.axis.get_view_interval())  # type: ignore[union-attr]
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return ticks between two ends > 0."""
        return _chosen(vmin, vmax)[0] if 0 < vmin < vmax < math.inf else []


class _Between(_Labelled):
    """Ticks of a logarithmic axis that have none."""

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return ticks between two ends > 0."""
        return _chosen(vmin, vmax)[1] if 0 < vmin < vmax < math.inf else []


class _Plain(Formatter):
    """Numbers of a logarithmic axis: 0.01, 200, or, where one is smaller or larger, 2·10⁻⁵."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        shown = [float(x), *self.axis.get_majorticklocs()]  # type: ignore[union-attr]
        if min(shown) >= _LEAST * (1 - 1e-9) and max(shown) < _LARGEST:
            return f"{x:,.12g}"
        return _power_of_ten(x, 4)
