"""Figures: what moves on the page, and what stands beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, Span
from bokeh.plotting import figure

# those of `sdegen.plots.style`, which would import matplotlib
BLUE, ORANGE, INK, GREY, RED = "#0072B2", "#E69F00", "#222222", "#8A8A8A", "#D55E00"
GREEN = "#009E73"
Drawn = Any  # figures and arrays: bokeh has no types of ours

_JITTER = 7  # seed of the heights of the dots, which mean nothing


def _figure(width: int, height: int, x: str, y: str, **options: object) -> Drawn:
    """Return an empty figure in the style of the page."""
    made = figure(
        width=width, height=height, x_axis_label=x, y_axis_label=y, tools="",
        toolbar_location=None,        min_border_left=64, min_border_right=12, **options,
    )  # fmt: skip
    made.outline_line_color = None
    made.grid.grid_line_color = "#E6E6E6"
    for axis in made.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "12px"
        axis.major_label_text_font_size = "11px"
        axis.axis_line_color = axis.major_tick_line_color = GREY
        axis.minor_tick_line_color = None
    return made


def _legend(made: Drawn, location: str, columns: int = 1) -> None:
    """Put the legend inside a figure."""
    made.legend.location = location
    made.legend.ncols = columns
    made.legend.label_text_font_size = "11px"
    made.legend.border_line_color = None
    made.legend.background_fill_alpha = 0.75
    made.legend.padding, made.legend.spacing, made.legend.margin = 4, 0, 4


class Line:
    """A line of particles: their histogram and density above, themselves below.

    Args:
        started: What the desk says of a run.
    """

    def __init__(self, started: dict[str, Any]) -> None:
        self.particles: ColumnDataSource = ColumnDataSource({"x": [], "y": []}, name="particles")
        self.bars: ColumnDataSource = ColumnDataSource(
            {"left": [], "right": [], "top": []}, name="bars"
        )
        self.density: ColumnDataSource = ColumnDataSource({"x": [], "p": []}, name="density")
        self.rest: ColumnDataSource = ColumnDataSource({"x": [], "p": []}, name="rest")
        wide = 640
        self.above: Drawn = _figure(
            wide, 300, "", "density p(x, t)", x_range=(0, 1), y_range=(0, 1)
        )
        self.above.quad(
            left="left", right="right", top="top", bottom=0, source=self.bars, line_color=None,
            fill_color=ORANGE, fill_alpha=0.55, legend_label="particles",
        )  # fmt: skip
        self.above.line(
            "x", "p", source=self.density, color=BLUE, line_width=2.5, legend_label="Fokker–Planck"
        )
        self.above.line(
            "x", "p", source=self.rest, color=INK, line_width=1.2, line_dash="dashed",
            legend_label="at rest",
        )  # fmt: skip
        self.level: Span = Span(location=0, dimension="height", line_color=RED, line_dash="dotted")
        self.above.add_layout(self.level)
        self.above.line([np.nan], [np.nan], color=RED, line_dash="dotted", legend_label="level")
        _legend(self.above, "top_right")
        self.above.xaxis.visible = False  # it is that of the figure below
        self.below: Drawn = _figure(
            wide,
            120,
            "position x of each particle",
            "",
            x_range=self.above.x_range,
            y_range=(0, 1),
        )
        self.below.scatter(
            "x", "y", source=self.particles, marker="square", size=2, line_color=None,
            fill_color=ORANGE, fill_alpha=0.6,
        )  # fmt: skip
        self.below.add_layout(self.level.clone())
        self.below.yaxis.major_label_text_font_size = "0px"
        self.below.yaxis.major_tick_line_color = self.below.ygrid.grid_line_color = None
        self.start(started)

    @property
    def roots(self) -> list[Any]:
        """The figures, top to bottom."""
        return [self.above, self.below]

    def start(self, started: dict[str, Any]) -> None:
        """Show a new run."""
        low, high = started["view"]
        self._x = started["x"]
        self._seen = (self._x >= low) & (self._x <= high)
        self._edges = np.linspace(low, high, len(started["picture"]["bars"]) + 1)
        count = len(started["picture"]["states"])
        self._jitter = np.random.default_rng(_JITTER).uniform(0.04, 0.96, count).astype(np.float32)
        self.above.x_range.update(start=low, end=high)
        self.rest.data = {"x": [], "p": []}
        self._top = 0.0
        self.show(started["picture"])

    def mark(self, level: float) -> None:
        """Move the lines of the level."""
        self.level.location = level
        self.below.center[-1].location = level

    def show(self, picture: dict[str, Any]) -> None:
        """Draw a frame."""
        x = picture["states"][:, 0]
        self.particles.data = {"x": x, "y": self._jitter[: len(x)]}
        self.bars.data = {
            "left": self._edges[:-1], "right": self._edges[1:], "top": picture["bars"]
        }  # fmt: skip
        p = picture["p"][self._seen]
        self.density.data = {"x": self._x[self._seen], "p": p}
        self._scale(float(p[np.isfinite(p)].max(initial=1e-9)))

    def at_rest(self, p: Drawn) -> None:
        """Draw the density at rest."""
        self.rest.data = {"x": self._x[self._seen], "p": p[self._seen]}
        self._floor = float(np.max(p[self._seen]))

    def _scale(self, peak: float) -> None:
        """Let the axis follow the peak, in steps, so that it does not tremble."""
        wanted = 1.3 * peak
        if not 0.62 * self._top < wanted <= self._top:
            self._top = 1.15 * wanted
            self.above.y_range.end = self._top


class Plane:
    """Particles of two coordinates, where there are several.

    Args:
        started: What the desk says of a run.
    """

    def __init__(self, started: dict[str, Any]) -> None:
        self.particles: ColumnDataSource = ColumnDataSource({"x": [], "y": []}, name="particles")
        self.axes: tuple[int, int] = (0, 1)
        pair = started["phase space"] and started["picture"]["states"].shape[1] == 2
        across, up = ("x1: position", "x2: velocity") if pair else ("x1", "x2")
        self.plane: Drawn = _figure(640, 430, across, up, x_range=(-1, 1), y_range=(-1, 1))
        self.plane.scatter(
            "x", "y", source=self.particles, marker="square", size=2, line_color=None,
            fill_color=ORANGE, fill_alpha=0.6,
        )  # fmt: skip
        self.start(started)

    @property
    def roots(self) -> list[Any]:
        """The figure."""
        return [self.plane]

    def start(self, started: dict[str, Any]) -> None:
        """Show a new run."""
        self._reach = np.zeros(2)
        self.show(started["picture"])

    def choose(self, axes: tuple[int, int]) -> None:
        """Show two other coordinates, from the next frame on."""
        self.axes = axes
        self._reach = np.zeros(2)
        self.plane.xaxis.axis_label, self.plane.yaxis.axis_label = (f"x{j + 1}" for j in axes)

    def mark(self, level: float) -> None:
        """Do nothing: a level is of a line."""

    def show(self, picture: dict[str, Any]) -> None:
        """Draw a frame."""
        seen = picture["states"][:, list(self.axes)]
        self.particles.data = {"x": seen[:, 0], "y": seen[:, 1]}
        if len(seen):
            reach = np.quantile(np.abs(seen), 0.999, axis=0) * 1.15 + 1e-9
            for k, ends in enumerate((self.plane.x_range, self.plane.y_range)):
                if reach[k] > self._reach[k]:
                    self._reach[k] = 1.25 * reach[k]
                    ends.update(start=-self._reach[k], end=self._reach[k])


class Beside:
    """What stands beside: the distance in time, the chance to wait, and rates of relaxation."""

    def __init__(self) -> None:
        self.distances: ColumnDataSource = ColumnDataSource({"t": [], "d": []}, name="distance")
        self.bands: ColumnDataSource = ColumnDataSource({"t": [], "floor": [], "rare": []})
        self.waiting: ColumnDataSource = ColumnDataSource(
            {"t": [], "s": [], "low": [], "high": []}
        )
        self.survival: ColumnDataSource = ColumnDataSource({"t": [], "s": []})
        self.rates: ColumnDataSource = ColumnDataSource({"k": [], "rate": []})
        self.distance: Drawn = _figure(
            350, 175, "time t", "distance", x_range=(0, 1), y_range=(0, 0.1),
            title="Particles to density (Kolmogorov–Smirnov)",
        )  # fmt: skip
        self.distance.line("t", "d", source=self.distances, color=BLUE, legend_label="distance")
        self.distance.line(
            "t", "floor", source=self.bands, color=INK, line_dash="dashed", legend_label="floor"
        )
        self.distance.line(
            "t", "rare", source=self.bands, color=RED, line_dash="dotted",
            legend_label="1 in 1,000 above",
        )  # fmt: skip
        _legend(self.distance, "top_right", 3)
        self.passage: Drawn = _figure(
            350, 175, "time t", "not there yet", x_range=self.distance.x_range, y_range=(0, 1.05),
            title="First passage to the level",
        )  # fmt: skip
        self.passage.varea(
            "t", "low", "high", source=self.waiting, color=ORANGE, alpha=0.6,
            legend_label="particles ± 2 errors",
        )  # fmt: skip
        self.passage.line("t", "s", source=self.survival, color=BLUE, legend_label="Fokker–Planck")
        _legend(self.passage, "top_right")
        self.relaxation: Drawn = _figure(
            350, 150, "mode k", "rate λ (1/time)", y_range=(0, 1), x_range=(0.5, 5.5),
            title="Spectrum: rates of relaxation",
        )  # fmt: skip
        self.relaxation.segment("k", 0, "k", "rate", source=self.rates, color=GREEN, line_width=2)
        self.relaxation.scatter("k", "rate", source=self.rates, color=GREEN, size=7)
        self.relaxation.xaxis.ticker = [1, 2, 3, 4, 5]
        for made in self.roots:
            made.title.text_font_size, made.title.text_font_style = "12px", "normal"

    @property
    def roots(self) -> list[Any]:
        """The figures, top to bottom."""
        return [self.distance, self.passage, self.relaxation]

    def start(self, started: dict[str, Any]) -> None:
        """Empty them for a new run."""
        end = started["end"]
        self._rows: list[tuple[float, float, float, int]] = []
        self.distance.x_range.update(start=0, end=end)
        self.survival.data = {"t": [], "s": []}
        self.rates.data = {"k": [], "rate": []}
        readings = started["picture"]["readings"]
        self.bands.data = {
            "t": [0, end],
            "floor": [readings.get("floor", np.nan)] * 2,
            "rare": [readings.get("rare", np.nan)] * 2,
        }
        self._top = 2.2 * readings.get("rare", 0.05)
        self.distance.y_range.end = self._top
        self.draw()

    def add(self, readings: dict[str, float]) -> None:
        """Keep the readings of a frame."""
        found = (readings.get(name, np.nan) for name in ("t", "distance", "waiting"))
        self._rows.append((*found, int(readings["particles"])))  # type: ignore[arg-type]

    def draw(self) -> None:
        """Draw what was kept."""
        table = np.array(self._rows, dtype=float).reshape(-1, 4)
        t, d, s, n = table.T
        self.distances.data = {"t": t, "d": d}
        error = 2 * np.sqrt(s * (1 - s) / np.maximum(n, 1))
        self.waiting.data = {"t": t, "s": s, "low": s - error, "high": s + error}
        peak = 1.1 * float(np.nanmax(d)) if np.isfinite(d).any() else 0.0
        if peak > self._top:
            self._top = 1.2 * peak
            self.distance.y_range.end = self._top

    def answer(self, found: dict[str, Any], times: Drawn) -> None:
        """Draw the exact answers."""
        if "survival" in found:
            self.survival.data = {"t": times, "s": found["survival"]}
        if "rates" in found:
            rates = found["rates"]
            self.rates.data = {"k": list(range(1, len(rates) + 1)), "rate": rates}
            self.relaxation.y_range.end = 1.12 * max(rates)
