"""Picture: any result as a figure.

A kind of result has its own drawing in `pictures`, mostly one of `sdegen.plots`; of all others the
labels are drawn: curves along the first axis that has places, with their errors, and single
numbers as points.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from functools import singledispatch

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sdegen.plots import style
from sdegen.plots.results.labelled import Labels, Variable, labels
from sdegen.plots.results.tables import Array, array_of

LINES = 6  # of one panel
_PANELS = 6
_BARS = 40  # points with error bars, at most: more have a band
_WIDTH, _HEIGHT = 5.2, 3.1


@singledispatch
def picture(result: object) -> Figure:
    """Draw a result by its labels.

    Raises:
        TypeError: If nothing is known of results of its kind.
        ValueError: If none of its arrays can be drawn.
    """
    return of_labels(labels(result))


def of_labels(held: Labels) -> Figure:
    """Draw the arrays of a result, a panel for each with other axes or units.

    Raises:
        ValueError: If none of them can be drawn.
    """
    names = [name for name in held.drawn or held.variables if _can_be_drawn(held.variables[name])]
    groups: dict[tuple[tuple[str, ...], str], dict[str, Variable]] = {}
    for name in names:
        variable = held.variables[name]
        axis = (variable.along or variable.dims[0],) if variable.dims else ()
        unit = name if held.long else variable.unit  # observables have panels of their own
        groups.setdefault((axis, unit), {})[name] = variable
    if not groups:
        raise ValueError(
            f"there is nothing to draw in this {held.title}; read its numbers, or to_dataframe()."
        )
    shown = list(groups.values())[:_PANELS]
    letters = "ABCDEF"[: len(shown)]
    columns = min(2, len(shown))
    rows = [letters[k : k + columns] for k in range(0, len(letters), columns)]
    rows = [row.ljust(columns, ".") for row in rows]
    figure, axes = style.panels(";".join(rows), _WIDTH * columns, _HEIGHT * len(rows), gap=0.03)
    for letter, variables in zip(letters, shown, strict=True):
        on_panel(axes[letter], held, variables)
        if held.long:
            style.title(axes[letter], next(iter(variables)).replace("_", " "))
    if len(groups) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(groups)} quantities", fontsize=style.LABEL)
    return figure


def _can_be_drawn(variable: Variable) -> bool:
    values = variable.values
    return isinstance(values, Tensor) and not values.is_complex() and values.numel() > 0


def on_panel(panel: Axes, held: Labels, variables: dict[str, Variable]) -> None:
    """Draw variables of one unit on a panel."""
    first = next(iter(variables.values()))
    if all(isinstance(v.values, Tensor) and v.values.numel() == 1 for v in variables.values()):
        _points(panel, variables)
        return
    dim = first.along or first.dims[0]
    at = held.coords.get(dim)
    number = itertools.count()
    for name, variable in variables.items():
        for title, y, error in _lines(name, variable):
            i = next(number)
            if i >= LINES:
                break
            several = len(variables) > 1 or (title != name and not held.long)
            label = title if several else ""
            if at is not None and not isinstance(at.values, Tensor):
                _columns(panel, i, list(at.values), y, error, label)
                if "y" in held.log and (y > 0).any():
                    panel.set_xscale("log")
            else:
                x = np.arange(len(y)) if at is None else array_of(at.values)
                curve(panel, i, x, y, error, label, held.log)
    _named(panel, held, dim, variables, next(number))


def _named(
    panel: Axes, held: Labels, dim: str, variables: dict[str, Variable], lines: int
) -> None:
    """Name the axes, make them logarithmic, and add a legend where there are several curves."""
    at, first = held.coords.get(dim), next(iter(variables.values()))
    words = at is not None and not isinstance(at.values, Tensor)
    along = dim.replace("_", " ") if at is None else at.text
    unit = "" if at is None or not at.unit else f", {at.unit}"
    text = first.text if len(variables) == 1 else held.title
    text += f", {first.unit}" if first.unit else ""
    panel.set(xlabel=text if words else along + unit)
    if not words:
        panel.set_ylabel(textwrap.fill(text, 42))
    if at is None:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not words:
        panel.set(**{f"{name}scale": "log" for name in held.log})
    if lines > LINES:
        style.title(panel, f"{LINES} of {lines} curves")
    if panel.get_legend_handles_labels()[1]:
        style.legend_on_top(panel)
    for name in "xy":
        if getattr(panel, f"get_{name}scale")() == "log":
            style.log_axes(panel, name)


def _lines(name: str, variable: Variable) -> list[tuple[str, Array, Array | None]]:
    """Return the curves along the first axis, one for each place along the others."""
    values = array_of(variable.values).astype(float)
    error = None if variable.error is None else array_of(variable.error).astype(float)
    before = variable.dims.index(variable.along) if variable.along else 0
    last = (-1,) * before
    values, error = values[last], None if error is None else error[last]
    rest = values.shape[1:]
    if not rest:
        return [(name, values, error)]
    lines = []
    for place in itertools.islice(np.ndindex(*rest), 10 * LINES):
        said = ", ".join(map(str, place))
        spread = None if error is None else error[(slice(None), *place)]
        title = name if math.prod(rest) == 1 else f"{name} [{said}]"
        lines.append((title, values[(slice(None), *place)], spread))
    return lines


def curve(
    panel: Axes, i: int, x: Array, y: Array, error: Array | None, label: str, log: str = ""
) -> None:
    """Draw a curve with error bars, or a band where there are many points."""
    marker, colour = style.look(i)
    seen = np.isfinite(y) & ((y > 0) if "y" in log else True) & ((x > 0) if "x" in log else True)
    x, y = x[seen], y[seen]
    if error is None:
        panel.plot(
            x,
            y,
            marker if len(x) <= _BARS else "",
            ls="-",
            ms=3,
            lw=style.LINE,
            color=colour,
            label=label or None,
        )
        return
    bars = np.where(np.isfinite(error[seen]), error[seen], 0.0)
    below = np.minimum(bars, 0.999 * y) if "y" in log else bars
    if len(x) <= _BARS:
        panel.errorbar(
            x,
            y,
            np.stack([below, bars]),
            fmt=marker,
            ms=3.4,
            lw=style.THIN,
            color=colour,
            label=label or "± standard error",
        )
        return
    panel.fill_between(x, y - below, y + bars, color=colour, alpha=0.25, lw=0)
    panel.plot(x, y, lw=style.LINE, color=colour, label=label or "± standard error")


def _columns(
    panel: Axes, i: int, names: list[str], y: Array, error: Array | None, label: str
) -> None:
    """Draw a number for each word."""
    marker, colour = style.look(i)
    rows = np.arange(len(names))[::-1] - 0.12 * i
    panel.errorbar(
        y, rows, xerr=error, fmt=marker, ms=4, lw=style.THIN, color=colour, label=label or None
    )
    panel.set_yticks(np.arange(len(names))[::-1], names, fontsize=style.TICK)
    panel.set_ylim(-0.7, len(names) - 0.3)


def _points(panel: Axes, variables: dict[str, Variable]) -> None:
    """Draw single numbers as points with error bars, one below the other."""
    rows = list(variables.values())[::-1]
    for k, variable in enumerate(rows):
        error = None if variable.error is None else float(array_of(variable.error).item())
        error = error if error is not None and math.isfinite(error) else None
        panel.errorbar(
            array_of(variable.values).item(),
            k,
            xerr=error,
            fmt="o",
            ms=5,
            lw=style.LINE,
            capsize=3,
            color=style.BLUE,
        )
    panel.set_yticks(
        range(len(rows)),
        [textwrap.fill(variable.text, 30) for variable in rows],
        fontsize=style.TICK,
    )
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.set_xlabel(rows[0].unit or "pure number")
    panel.grid(visible=False, axis="y")
