"""Estimates beside what they should be, each in standard errors of its own.

As in `plots`, nothing is computed here but the distance that is drawn, and nothing is shown.
"""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdegen.core.requests import as_number, check_kind
from sdegen.plots import style

_REACH = 3.5  # standard errors that are drawn to both sides, at least


def estimates(
    rows: Mapping[str, tuple[float, float, float]],
    *,
    reference: str = "exact",
    panel: Axes | None = None,
) -> Figure:
    """Draw estimates beside exact values, one row each.

        z = (estimate − exact)/standard error

    Rows of any unit stand side by side, since z has none. Of right estimates one in three has
    |z| > 1, and one in 370 has |z| > 3. The numbers themselves are written beside the rows.

    Args:
        rows: (estimate, its standard error, exact value) by name.
        reference: What the third numbers are.
        panel: Axes of a larger picture to draw on; None makes a figure.

    Returns:
        The figure, or the one of `panel`.

    Raises:
        ValueError: If there is no row, a row has not three numbers, or an error is not > 0.

    Example:
        >>> rows = {"mean": (0.52, 0.02, 0.5), "variance": (0.9, 0.05, 1.0)}
        >>> figure = sg.plots.estimates(rows)  # z = 1 and −2
        >>> figure.axes[0].get_xlabel()
        '(estimate − exact)/standard error'
    """
    found = _checked(rows)
    if panel is None:
        panel = style.one_panel(6.4, 0.9 + 0.42 * len(found))[1]
    else:
        check_kind("panel", panel, Axes, "one of the axes that plots.style.panels returns")
    z = np.array([(value - exact) / error for value, error, exact in found.values()])
    at = np.arange(len(z))[::-1]
    reach = max(_REACH, 1.3 + float(np.abs(z).max()))
    panel.axvspan(-1, 1, color=style.GREY, alpha=0.15, lw=0)
    panel.axvline(0, color=style.INK, lw=style.THIN, ls=style.DASHED)
    panel.errorbar(z, at, xerr=1.0, fmt="o", ms=4, lw=style.LINE, color=style.BLUE)
    panel.set_yticks(at, [f"{name}\n{_written(*row, reference)}" for name, row in found.items()])
    panel.tick_params(axis="y", labelsize=style.TICK)
    panel.set(xlim=(-reach, reach), ylim=(-0.6, len(z) - 0.4))
    panel.set_ylabel("estimate of")
    panel.set_xlabel(f"(estimate − {reference})/standard error")
    panel.grid(visible=False, axis="y")
    return panel.get_figure(root=True)  # type: ignore[return-value]


def _checked(rows: object) -> dict[str, tuple[float, float, float]]:
    """Return the rows as numbers; raises if they are not three each, with an error > 0."""
    check_kind("rows", rows, Mapping, "a mapping of names to (estimate, standard error, exact)")
    if not rows:
        raise ValueError(
            "rows must have an estimate, but is empty; pass "
            "{'name': (estimate, standard error, exact)}."
        )
    found = {}
    for name, row in rows.items():  # type: ignore[attr-defined]
        if not isinstance(row, tuple | list) or len(row) != 3:
            raise ValueError(
                f"rows[{name!r}] must be (estimate, standard error, exact), but is {row!r}; pass "
                "three numbers."
            )
        value, error, exact = (as_number(f"rows[{name!r}]", each) for each in row)
        if not error > 0 or not math.isfinite(error + value + exact):
            raise ValueError(
                f"rows[{name!r}] must be finite with a standard error > 0, but is "
                f"({value:g}, {error:g}, {exact:g}); leave out what has no error."
            )
        found[str(name)] = (value, error, exact)
    return found


def _written(value: float, error: float, exact: float, reference: str) -> str:
    """Return the numbers to two digits of the error."""
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > 5 or max(abs(value), abs(exact)) >= 1e6:
        return f"{value:.4g} ± {error:.2g}, {reference} {exact:.5g}".replace("-", "−")
    text = f"{value:.{digits}f} ± {error:.{digits}f}, {reference} {exact:.{digits}f}"
    return text.replace("-", "−")
