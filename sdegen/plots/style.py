"""The look of all figures: panels, colours, titles, histograms.

Figures are made without pyplot: none stays behind in a global list, and no backend is chosen for
the user. All have one look, set by `panels` and the constants below: thin axes, colours that
colour-blind readers can tell apart (Okabe and Ito 2008), axes labelled with symbol and unit.
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from torch import Tensor

from sdegen.core.trajectory import Trajectory

Array = np.ndarray[Any, np.dtype[Any]]

BLUE, ORANGE, INK, GREY = "#0072B2", "#E69F00", "#222222", "#8A8A8A"
CYCLE = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
MARKERS = "os^DvPX"
# from paper to ink through blue: where there is no density there is no colour
_SHADES = ["#FFFFFF", "#CFE3F2", "#6FAFDA", BLUE, "#00263D"]
DENSITY = LinearSegmentedColormap.from_list("density", _SHADES)
_DPI = 150
BINS = 60  # of a histogram, at most


def panels(
    mosaic: str | list[list[str]], width: float, height: float, *, gap: float = 0.02
) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure with panels named by letters or words, all in one style; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", wspace=gap, hspace=gap)
    axes: dict[str, Axes] = figure.subplot_mosaic(mosaic)  # type: ignore[arg-type]
    for panel in axes.values():
        panel.set_prop_cycle(color=CYCLE)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(GREY)
        panel.tick_params(color=GREY, labelsize=8.5)
        panel.grid(color="#E6E6E6", lw=0.6)
        panel.set_axisbelow(True)
        panel.xaxis.label.set_fontsize(9.5)
        panel.yaxis.label.set_fontsize(9.5)
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
    panel.set_title(text, fontsize=9.5)


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
    bar.set_label(label, size=9.5)
    bar.ax.tick_params(labelsize=8.5)
    bar.outline.set_visible(False)


def legend_below(figure: Figure, panel: Axes, size: float = 9) -> None:
    """Put one legend for all panels under them."""
    handles, names = panel.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=size
    )


def plain_log(axis: Axis) -> None:
    """Set ticks 1, 2, 5, 10 … in plain numbers on a logarithmic axis of a few decades."""
    low, high = axis.get_view_interval()
    if high > 3e3 * low:
        return
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())
