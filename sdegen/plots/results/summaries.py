"""Summary: what a result says in a few numbers, each with its error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch

from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, largest
from sdegen.plots.results.labelled import Attribute, Labels, labels
from sdegen.verification.levels.answer import in_digits

_TINY, _DIGITS = 1e-6, 14  # of an error over its value; of a number, sign and point included
MOST = 8  # coordinates of a state that a summary lists


@dataclass(frozen=True)
class Fact:
    """A number with its error, or a word.

    Args:
        name: What it is.
        value: The number.
        error: Its error, in the same unit; None where none is known.
        unit: Its unit.
    """

    name: str
    value: float | str
    error: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return self.value
        return in_figures(self.value, self.error) + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Summary:
    """What a result says.

    Args:
        title: What it is, and of how much.
        facts: Its numbers.
        made: What made it.
        sentence: What it says in words.
        good: Whether what was judged passed; None where nothing was.
        table: A table of words, the first row being its head.
        folded: Whether the table is opened by a click.
    """

    title: str
    facts: tuple[Fact, ...] = ()
    made: Mapping[str, Attribute] = field(default_factory=dict)
    sentence: str = ""
    good: bool | None = None
    table: tuple[tuple[str, ...], ...] = ()
    folded: bool = False


@singledispatch
def summary(result: object) -> Summary:
    """Return what a result says; by its labels, where nothing else is known of its kind."""
    held = labels(result)
    return Summary(held.title, numbers_of(held), held.attrs)


def numbers_of(held: Labels) -> tuple[Fact, ...]:
    """Return the variables that are single numbers, or a few, as facts."""
    facts: list[Fact] = []
    for variable in held.variables.values():
        if isinstance(variable.values, Tensor) and not variable.values.is_complex():
            if not all(dim.startswith(("coordinate", "axis")) for dim in variable.dims):
                continue
            facts += each(variable.text, variable.values, variable.error, variable.unit)
    return tuple(facts)


def each(
    name: str, values: Tensor, errors: Tensor | None = None, unit: str = ""
) -> tuple[Fact, ...]:
    """Return a fact for each number of an event, the first ones where it has many."""
    flat = values.detach().double().flatten().tolist()
    spread = [None] * len(flat) if errors is None else errors.detach().double().flatten().tolist()
    names = [name if values.ndim == 0 or len(flat) == 1 else f"{name} [{k}]" for k in range(MOST)]
    return tuple(
        Fact(title, value, error, unit)
        for title, value, error in zip(names, flat, spread, strict=False)
    )


def of_estimate(
    value: float, name: str, error: ErrorEstimate | None, scale: float
) -> float | None:
    """Return the error of an attribute in its own unit; None where none was estimated."""
    if error is None or name not in error:
        return None
    return largest(error[name]) * scale


def in_figures(value: float, error: float | None = None) -> str:
    """Return a number as far as its error lets it be known, with the error.

    >>> in_figures(0.51234, 0.0021), in_figures(3.2e-7, 1e-8), in_figures(1234.5678)
    ('0.512 ± 0.002', '(3.20 ± 0.10)·10⁻⁷', '1234.57')
    >>> in_figures(2.0, 0.0), in_figures(float("nan"), 1.0), in_figures(12)
    ('2 ± 0', 'nan', '12')
    >>> in_figures(0.5123456789, 4e-9)
    '0.512345679 ± 4·10⁻⁹'
    """
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return f"{value:g}"
    if error is None or math.isnan(error):
        return _scientific(f"{value:.6g}")
    if not (math.isfinite(error) and error > 0):
        return f"{_scientific(f'{value:.6g}')} ± {error:g}".replace("inf", "∞")
    size = max(abs(value), error)
    power = math.floor(math.log10(size))
    if -4 <= power < 6:
        if error < _TINY * size:  # its zeros would be counted
            return f"{in_digits(value, error)[:_DIGITS]} ± {_scientific(f'{error:.0e}')}"
        return f"{_signed(in_digits(value, error))} ± {in_digits(error, error)}"
    factor = 10.0**-power
    value, error = value * factor, error * factor
    shown = _signed(in_digits(value, error))
    return f"({shown} ± {in_digits(error, error)})·10{_raised(power)}"


def _signed(text: str) -> str:
    """Return a number without the sign of 0."""
    return text if text.strip("−0.") else text.lstrip("−")


def _scientific(text: str) -> str:
    mantissa, _, power = text.replace("-", "−").partition("e")
    return mantissa if not power else f"{mantissa}·10{_raised(int(power.replace('−', '-')))}"


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
