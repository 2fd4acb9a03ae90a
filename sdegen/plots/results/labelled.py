"""Labels: the arrays of a result, with names for their axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch

import torch
from torch import Tensor

TIME, TRAJECTORY, SAMPLE = "time", "trajectory", "sample"
OF_TIME, OF_X, OF_RATE = "units of time", "units of x", "1/units of time"

Attribute = str | int | float


@dataclass(frozen=True)
class Variable:
    """One array, or a column of words.

    Args:
        values: Numbers of any shape, or one word for each place along a single axis.
        dims: Names of the axes.
        text: What it is.
        unit: Its unit; "" for a pure number.
        error: Its standard error, of the same shape; None where none is known.
        error_text: What the error is.
        along: The axis along which it is drawn; the first one where nothing is said. Of an axis
            before it, such as that of times, the last place is drawn.
    """

    values: Tensor | Sequence[str]
    dims: tuple[str, ...]
    text: str
    unit: str = ""
    error: Tensor | None = None
    error_text: str = "standard error"
    along: str = ""


@dataclass(frozen=True)
class Labels:
    """The labelled arrays of a result.

    Args:
        title: What the result is.
        variables: Its arrays by name.
        coords: Where the places along an axis are, by the name of the axis.
        attrs: What made it.
        columns: Names of the variables that are columns of its table; None takes all.
        long: Whether its table has a row for each number, its quantities having different axes.
        drawn: Names of the variables of its picture, where it has none of its own.
        log: Which axes of that picture are logarithmic: "", "x", "y" or "xy".
    """

    title: str
    variables: Mapping[str, Variable]
    coords: Mapping[str, Variable] = field(default_factory=dict)
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    long: bool = False
    drawn: tuple[str, ...] = ()
    log: str = ""


@singledispatch
def labels(result: object) -> Labels:
    """Return the labelled arrays of a result.

    Raises:
        TypeError: If nothing is known of results of its kind.
    """
    kind = type(result).__name__
    raise TypeError(
        f"no axes are known of {kind}; register a function that names them: "
        f"@sdegen.plots.results.labels.register def _(result: {kind}) -> Labels."
    )


def event_dims(event: Sequence[int], name: str = "coordinate") -> tuple[str, ...]:
    """Return the axes of one state, by the names that a store gives them.

    >>> event_dims((3,)), event_dims(()), event_dims((1, 28, 28))
    (('coordinate',), (), ('axis_0', 'axis_1', 'axis_2'))
    """
    if len(event) <= 1:
        return (name,) * len(event)
    prefix = "" if name == "coordinate" else f"{name}_"
    return tuple(f"{prefix}axis_{i}" for i in range(len(event)))


def times_of(times: Tensor, text: str = "time t", dim: str = TIME) -> dict[str, Variable]:
    """Return the coordinate of times."""
    return {dim: Variable(times, (dim,), text, OF_TIME)}


def number(value: float, text: str, unit: str = "", error: float | None = None) -> Variable:
    """Return a variable without axes."""
    spread = None if error is None else torch.tensor(error, dtype=torch.float64)
    return Variable(torch.tensor(value, dtype=torch.float64), (), text, unit, spread)


def sizes_of(variables: Mapping[str, Variable]) -> dict[str, int]:
    """Return the lengths of all axes, those of the variable with most axes first."""
    sizes: dict[str, int] = {}
    for variable in sorted(variables.values(), key=lambda v: -len(v.dims)):
        held = variable.values
        shape = tuple(held.shape) if isinstance(held, Tensor) else (len(held),)
        sizes |= dict(zip(variable.dims, shape, strict=True)) | sizes
    return sizes
