"""The look of all figures: panels, colours, titles, histograms.

Figures are made without pyplot: none stays behind in a global list, and no backend is chosen for
the user; nothing of matplotlib's own settings is changed. All have one look, set by `panels` and
the constants below: thin axes, two sizes of text, three widths of lines, colours that colour-blind
readers can tell apart (Okabe and Ito 2008), axes labelled with symbol and unit, and legends where
no data are. Units are reduced, those of the SDE, with k_B = 1.
"""

import io
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, largest
from sdegen.core.trajectory import Trajectory
from sdegen.plots.ticks import log_ticks, scientific

Array = np.ndarray[Any, np.dtype[Any]]

BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
INK, GREY = "#222222", "#8A8A8A"
CYCLE = (BLUE, RED, GREEN, "#CC79A7", ORANGE, "#56B4E9", INK)
MARKERS = "os^DvPX"
# from paper to ink through blue: where there is no density there is no colour
_SHADES = ["#FFFFFF", "#CFE3F2", "#6FAFDA", BLUE, "#00263D"]
DENSITY = LinearSegmentedColormap.from_list("density", _SHADES)
DPI, _SHOWN = 150, 110  # of a file, and of a notebook
BINS = 60  # of a histogram, at most

LABEL, TICK, LEGEND, NOTE = 9.5, 8.5, 8.5, 8.5  # points; titles are as large as labels
LINE, THIN, HAIR = 1.6, 1.0, 0.6  # points: curves, references, grids
DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))
_ROW = 0.085  # of a panel's height, for a row of a legend, where it is 3.4 inches high


class Picture(Figure):
    """A figure that a notebook shows, though it was made without pyplot."""

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows; where pyplot has told it how, that goes first."""
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=_SHOWN)
        return drawn.getvalue()


def panels(
    mosaic: str | list[list[str]], width: float, height: float, *, gap: float = 0.02
) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure with panels named by letters or words, all in one style; sizes in inches."""
    figure = Picture(figsize=(width, height), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", wspace=gap, hspace=gap)
    axes: dict[str, Axes] = figure.subplot_mosaic(mosaic)  # type: ignore[arg-type]
    for panel in axes.values():
        panel.set_prop_cycle(color=CYCLE)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(GREY)
        panel.tick_params(color=GREY, labelsize=TICK)
        panel.grid(color="#E6E6E6", lw=HAIR)
        panel.set_axisbelow(True)
        panel.xaxis.label.set_fontsize(LABEL)
        panel.yaxis.label.set_fontsize(LABEL)
    return figure, axes


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one panel."""
    figure, axes = panels("P", width, height)
    return figure, axes["P"]


def look(i: int) -> tuple[str, str]:
    """Return the marker and the colour of the i-th curve of a picture."""
    return MARKERS[i % len(MARKERS)], CYCLE[i % len(CYCLE)]


def title(panel: Axes, text: str) -> None:
    """Set a title in the size of all others."""
    panel.set_title(text, fontsize=LABEL)


def numbers(values: Tensor) -> Array:
    """Return a tensor as an array, whatever its device."""
    array: Array = values.detach().cpu().numpy()
    return array


def heights(p: Tensor) -> Array:
    """Return values of densities, ∞ cut to the largest that is finite."""
    values = numbers(p)
    finite = np.isfinite(values)
    if finite.all():
        return values
    return np.where(finite, values, values[finite].max(initial=0.0))


def lost(path: Trajectory) -> str:
    """Return the words of a title on trajectories that are not in the picture."""
    lost = int(path.nonfinite.sum())
    return f" ({lost:,} of {len(path.nonfinite):,} trajectories lost)" if lost else ""


def line_of(path: Trajectory) -> Array:
    """Return the one-dimensional states of finite trajectories, shape (T, finite)."""
    states = numbers(path.finite)
    if states.shape[2:] != (1,):
        raise ValueError(
            f"a density over x needs states of shape (T, n, 1), but these are {states.shape}; "
            "use plots.paths or plots.samples_2d."
        )
    return states[:, :, 0]


def histogram(particles: Array, x: Array) -> tuple[Array, Array]:
    """Return heights and edges of a density histogram whose bins are whole cells.

    What is beyond the nodes or on the very ends, where absorbing walls keep it, has no bin, but
    counts in the total.
    """
    edges = np.append(x[: -1 : max(1, math.ceil((len(x) - 1) / BINS))], x[-1])
    inside = particles[(particles > x[0]) & (particles < x[-1])]
    counts, _ = np.histogram(inside, edges)
    return counts / (len(particles) * np.diff(edges)), edges


def bars(panel: Axes, height: Array, edges: Array, count: int) -> StepPatch:
    """Draw a histogram of `count` particles."""
    return panel.stairs(
        height, edges, fill=True, color=ORANGE, alpha=0.5, label=f"{count:,} particles"
    )


def counting_errors(panel: Axes, height: Array, edges: Array, count: int) -> None:
    """Draw the standard error of each bar of a density histogram: √(m (1 − m)/n) of its mass m."""
    width = np.diff(edges)
    mass = height * width
    error = np.sqrt(mass * np.clip(1 - mass, 0, 1) / count) / width
    middle, seen = 0.5 * (edges[1:] + edges[:-1]), mass > 0
    low, high = (height - error)[seen], (height + error)[seen]
    panel.vlines(middle[seen], low, high, color=GREY, lw=HAIR)


def shaded(panel: Axes, x: Array, y: Array, p: Array, norm: Normalize) -> QuadMesh:
    """Draw a density over two axes as colour."""
    panel.grid(False)
    return panel.pcolormesh(x, y, p.T, shading="gouraud", cmap=DENSITY, norm=norm, rasterized=True)


def where_seen(x: Array, p: Array) -> tuple[float, float]:
    """Return the interval where a density is above 1e-6 of its peak, and a little more."""
    inside = x[p > 1e-6 * p[np.isfinite(p)].max()]
    margin = 0.03 * float(inside[-1] - inside[0])
    return max(float(x[0]), float(inside[0]) - margin), min(
        float(x[-1]), float(inside[-1]) + margin
    )


def colorbar(
    figure: Figure, panel: Axes, image: QuadMesh, label: str, *, aspect: float, extend: str
) -> None:
    """Put the scale of a picture in colour beside its panel."""
    bar = figure.colorbar(image, ax=panel, pad=0.01, aspect=aspect, extend=extend)
    bar.set_label(label, size=LABEL)
    bar.ax.tick_params(labelsize=TICK, color=GREY)
    bar.outline.set_visible(False)


def legend_below(figure: Figure, panel: Axes) -> None:
    """Put one legend for all panels under them."""
    handles, names = panel.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
        fontsize=LEGEND,
    )


def legend_beside(figure: Figure) -> None:
    """Put one legend for all panels to their right."""
    figure.legend(loc="outside right center", frameon=False, fontsize=LEGEND)


def legend_on_top(panel: Axes, columns: int = 3) -> None:
    """Put a legend into the upper end of a panel, and raise that end, so that it covers nothing.

    Args:
        panel: The panel, when all is drawn and its limits are set.
        columns: How many names a row of it has, at most.
    """
    handles, names = panel.get_legend_handles_labels()
    if not names:
        return
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    height = panel.bbox.height / DPI
    share = min(0.6, 0.03 + _ROW * rows * 3.4 / height)
    low, high = panel.get_ylim()
    if panel.get_yscale() == "log":
        if 0 < low < high:  # not where there is nothing to draw, as of a spectrum of zeros
            panel.set_ylim(low, high * (high / low) ** (share / (1 - share)))
    else:
        panel.set_ylim(low, high + (high - low) * share / (1 - share))
    panel.legend(
        handles, names, loc="upper right", ncols=columns, frameon=False, fontsize=LEGEND,
        borderaxespad=0.2,
    )  # fmt: skip


def log_axes(panel: Axes, which: str = "xy") -> None:
    """Make axes of a panel logarithmic, with ticks that can be read; call it when all is drawn."""
    for name in which:
        panel.set(**{f"{name}scale": "log"})
        log_ticks(getattr(panel, f"{name}axis"))


def error_in_words(error: object, name: str, of: str = "") -> str:
    """Return the words on an estimated error, "error of p ≤ 2·10⁻⁶ of its peak", or nothing.

    Args:
        error: An `ErrorEstimate`, or None where none was made.
        name: The attribute that it is of.
        of: What it is relative to; nothing where that is the value itself.
    """
    if not isinstance(error, ErrorEstimate) or name not in error:
        return ""
    most = largest(error[name])
    if not math.isfinite(most):
        return ""
    told = f"error of {name} ≤ {scientific(most)}"
    return f"{told} of {of}" if of else f"relative {told}"
