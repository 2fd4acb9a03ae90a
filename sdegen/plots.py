"""Plots: results as figures, to save.

Nothing is computed here and nothing is shown: a function takes results and returns a `Figure`.
Figures are made without pyplot: none stays behind in a global list, and no backend is chosen for
the user. All have one look, set by `_panels` and the constants below: thin axes, colours that
colour-blind readers can tell apart (Okabe and Ito 2008), axes labelled with symbol and unit. Units
are the reduced ones of the SDE.

Trajectories that were lost are left out of every picture, and their number is written on it.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image
from torch import Tensor

from sdegen.fokker_planck.density import Density, DensityPath
from sdegen.score.training import TrainResult
from sdegen.shapes import State
from sdegen.storage import write_whole
from sdegen.trajectory import Trajectory

__all__ = [
    "convergence",
    "denoising_strip",
    "density_and_particles",
    "density_heatmap",
    "histogram",
    "image_sheet",
    "loss_curve",
    "pareto",
    "paths",
    "relaxation_gif",
    "samples_2d",
    "stationary",
]

_Array = np.ndarray[Any, np.dtype[Any]]
_Curve = Sequence[tuple[float, float]]

_BLUE, _ORANGE, _INK, _GREY = "#0072B2", "#E69F00", "#222222", "#8A8A8A"
_CYCLE = (_BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
_MARKERS = "os^DvPX"
# from paper to ink through blue: where there is no density there is no colour
_SHADES = ["#FFFFFF", "#CFE3F2", "#6FAFDA", _BLUE, "#00263D"]
_DENSITY = LinearSegmentedColormap.from_list("density", _SHADES)
_EARLY = np.linspace(0, 1, 4) ** 2
_DPI = 150
_BINS = 60  # of a histogram, at most
_DOTS = 4_000  # of a scatter, at most
_FRAMES = 90  # of a film, at most


def density_and_particles(
    density: DensityPath, path: Trajectory, times: Sequence[float] | None = None
) -> Figure:
    """Draws the Fokker-Planck density over time, and particles under it at some times.

    Args:
        density: p(x, t), at times that contain those of the panels.
        path: Trajectories of the same SDE, shape (T, n, 1).
        times: Times of the panels, at most 6; None takes four, denser at the start.

    Returns:
        The figure: the density as colour above, a panel for each time below.

    Raises:
        ValueError: If states are not one-dimensional, a time is not among those of both, or there
            are more than six.
    """
    x, particles = _numbers(density.x), _line_of(path)
    pairs = _common_times(density, path, times)
    if times is None:
        # quadratic in time: a relaxation is quick at first
        pairs = [pairs[k] for k in np.unique(((len(pairs) - 1) * _EARLY).round().astype(int))]
    if len(pairs) > 6:
        raise ValueError(f"there is room for at most 6 times, but got {len(pairs)}.")
    letters = "ABCDEF"[: len(pairs)]
    figure, axes = _panels(f"{'T' * len(pairs)};{letters}", 9.0, 5.8)
    _heatmap(figure, axes["T"], density)
    _title(axes["T"], "Fokker–Planck density of the SDE" + _lost(path))
    histograms = [_histogram(particles[j], x) for _, j in pairs]
    curves = [_numbers(density.p[k]) for k, _ in pairs]
    ceiling = 1.08 * max(float(h.max()) for h in [*curves, *(height for height, _ in histograms)])
    for letter, (k, _), (height, edges), p in zip(letters, pairs, histograms, curves, strict=True):
        panel, t = axes[letter], float(density.times[k])
        _bars(panel, height, edges, particles.shape[1])
        panel.plot(x, p, color=_BLUE, lw=1.6, label="Fokker–Planck")
        panel.set(xlim=(x[0], x[-1]), ylim=(0, ceiling), xlabel="position x")
        panel.tick_params(left=letter == "A", labelleft=letter == "A")
        _title(panel, f"t = {t:.3g}")
        axes["T"].axvline(t, color=_INK, lw=0.8, ls=(0, (4, 3)))
    axes["A"].set_ylabel("density p(x, t)")
    _legend_below(figure, axes["A"])
    return figure


def density_heatmap(density: DensityPath) -> Figure:
    """Draws p(x, t) as colour over time and position.

    Args:
        density: The density at two times or more.

    Returns:
        The figure.

    Raises:
        ValueError: If there are fewer than two times.
    """
    figure, axes = _panels("T", 7.0, 3.4)
    _heatmap(figure, axes["T"], density)
    return figure


def stationary(density: Density, exact: Tensor, *, energy: Tensor | None = None) -> Figure:
    """Draws a stationary density on the exact one, and their difference.

    Args:
        density: What a solver found.
        exact: The exact density at the same nodes, shape (nodes,).
        energy: U at the nodes, shape (nodes,), drawn above; or None.

    Returns:
        The figure.
    """
    x, p, q = _numbers(density.x), _numbers(density.p), _numbers(exact)
    figure, axes = _panels(
        "AE" if energy is None else "UE;AE", 9.0, 3.4 if energy is None else 4.6
    )
    left, right = axes["A"], axes["E"]
    left.plot(x, q, color=_ORANGE, lw=5, alpha=0.6, label="exact")
    left.plot(x, p, color=_BLUE, lw=1.4, label="Fokker–Planck")
    left.set(xlabel="position x", ylabel="stationary density p(x)", xlim=(x[0], x[-1]))
    left.set_ylim(0, 1.3 * float(q.max()))
    left.legend(frameon=False, ncols=2, loc="upper center", fontsize=9)
    relative = np.abs(p - q)[q > 0] / q[q > 0]
    right.plot(x[q > 0], np.where(relative > 0, relative, np.nan), ".", ms=3, color=_BLUE)
    right.set(xlabel="position x", ylabel="|p/exact − 1|", yscale="log", xlim=(x[0], x[-1]))
    _title(right, f"largest relative difference {float(relative.max()):.1e}")
    if energy is not None:
        u = _numbers(energy)
        axes["U"].plot(x, u, color=_INK, lw=1.4)
        # walls of a landscape are higher than anything to be seen in it
        seen = u[q > 1e-3 * q.max()]
        margin = 0.08 * float(seen.max() - seen.min()) or 1.0
        axes["U"].set(xlim=(x[0], x[-1]), ylim=(seen.min() - margin, seen.max() + margin))
        axes["U"].set_ylabel("energy U(x)")
        axes["U"].tick_params(labelbottom=False)
    return figure


def relaxation_gif(
    density: DensityPath, path: Trajectory, file: str | Path, *, fps: int = 15
) -> None:
    """Writes a film of the particles relaxing under the Fokker-Planck density.

    Args:
        density: p(x, t).
        path: Trajectories of the same SDE, shape (T, n, 1).
        file: Where the animated GIF goes; its folder must exist. It is written whole or not at
            all.
        fps: Frames in a second; there is one for each time that both have, at most 90.

    Raises:
        ValueError: If states are not one-dimensional, or no time is common to both.
    """
    x, particles = _numbers(density.x), _line_of(path)
    pairs = _common_times(density, path, None)
    shown = np.linspace(0, len(pairs) - 1, min(len(pairs), _FRAMES)).round().astype(int)
    pairs = [pairs[k] for k in shown]  # first and last among them
    histograms = [_histogram(particles[j], x) for _, j in pairs]
    figure, axes = _panels("A", 6.0, 3.6)
    panel = axes["A"]
    bars = _bars(panel, *histograms[0], particles.shape[1])
    (line,) = panel.plot(
        x, _numbers(density.p[pairs[0][0]]), color=_BLUE, lw=1.8, label="Fokker–Planck"
    )
    ceiling = 1.08 * max(
        *(float(height.max()) for height, _ in histograms),
        *(float(density.p[k].max()) for k, _ in pairs),
    )
    panel.set(xlim=(x[0], x[-1]), ylim=(0, ceiling), xlabel="position x", ylabel="density p(x, t)")
    panel.legend(frameon=False, loc="upper right", fontsize=9)
    figure.set_dpi(110)
    canvas: Any = FigureCanvasAgg(figure)
    _title(panel, _lost(path) or " ")
    canvas.draw()
    figure.set_layout_engine("none")  # laid out once: axes that move between frames distract
    # what moves is drawn anew on a still background: three times faster
    moving = (bars, line, panel.title)
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    pictures = []
    for (k, _), (height, edges) in zip(pairs, histograms, strict=True):
        bars.set_data(height, edges)
        line.set_ydata(_numbers(density.p[k]))
        _title(panel, f"t = {float(density.times[k]):.2f}" + _lost(path))
        canvas.restore_region(still)
        for artist in moving:
            panel.draw_artist(artist)
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    # one palette for the whole film, so that nothing flickers
    strip = Image.fromarray(np.concatenate(pictures)).quantize(64, dither=Image.Dither.NONE)
    # paper is the mean of what is nearly white, and should be white
    strip.putpalette([255 if part > 250 else part for part in strip.getpalette() or []])
    tall, wide, _ = pictures[0].shape
    frames = [strip.crop((0, i * tall, wide, (i + 1) * tall)) for i in range(len(pictures))]
    film = io.BytesIO()
    pause = 1_500  # ms on the last frame before it starts again
    durations = [round(1_000 / fps)] * (len(frames) - 1) + [pause]
    frames[0].save(
        film, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    write_whole(file, film.getvalue())


def paths(path: Trajectory, *, count: int = 40) -> Figure:
    """Draws trajectories: x against t on a line, the tracks themselves in the plane.

    Args:
        path: Trajectories, shape (T, n, 1) or (T, n, 2).
        count: How many to draw, the first ones.

    Returns:
        The figure.

    Raises:
        ValueError: If states have more than two coordinates.
    """
    kept = _numbers(path.finite)[:, :count]
    if kept.shape[2:] not in {(1,), (2,)}:
        raise ValueError(
            f"paths draws states with one or two coordinates, but these have shape "
            f"{kept.shape[2:]}; pick two of them."
        )
    figure, axes = _panels("P", *((7.0, 3.4) if kept.shape[2] == 1 else (5.0, 5.0)))
    panel = axes["P"]
    # the first on top of the others, so that one life can be followed
    for i in reversed(range(kept.shape[1])):
        colour, width, alpha = ("#D55E00", 1.3, 1.0) if i == 0 else (_BLUE, 0.6, 0.4)
        if kept.shape[2] == 1:
            panel.plot(_numbers(path.times), kept[:, i, 0], lw=width, alpha=alpha, color=colour)
        else:
            panel.plot(*kept[:, i].T, lw=width, alpha=alpha, color=colour)
            panel.plot(*kept[-1, i], "o", ms=3, color=colour)
    if kept.shape[2] == 1:
        panel.set(xlabel="time t", ylabel="position x")
        panel.margins(x=0)
    else:
        panel.set(xlabel="position x₁", ylabel="position x₂", aspect="equal")
    some = f"{kept.shape[1]} of {len(path.nonfinite):,} trajectories, one of them in red"
    _title(panel, some + _lost(path))
    return figure


def samples_2d(samples: Mapping[str, State], data: State) -> Figure:
    """Draws planar samples beside the data, one panel each, all with the limits of the data.

    Args:
        samples: Samples by the name of the sampler, shape (n, 2).
        data: The data, shape (m, 2).

    Returns:
        The figure.
    """
    panels = {"data": data, **samples}
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    letters = [chr(ord("A") + i) if i < len(panels) else "." for i in range(rows * columns)]
    mosaic = ";".join("".join(letters[i * columns : (i + 1) * columns]) for i in range(rows))
    figure, axes = _panels(mosaic, 2.5 * columns, 2.75 * rows)
    reach = 1.25 * float(data.abs().max())
    for i, (letter, (name, cloud)) in enumerate(zip(letters, panels.items(), strict=False)):
        dots = _numbers(cloud)
        finite = np.isfinite(dots).all(1)
        lost = "" if finite.all() else f"\n{int((~finite).sum())} of {len(dots):,} lost"
        panel, colour = axes[letter], _INK if i == 0 else _BLUE
        panel.plot(
            *dots[finite][:_DOTS].T, ".", ms=1.6, alpha=0.5, color=colour, mew=0, rasterized=True
        )
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        _title(panel, textwrap.fill(name, 28) + lost)
        first, last = i % columns == 0, i + columns >= len(panels)
        panel.tick_params(left=first, labelleft=first, bottom=last, labelbottom=last)
        panel.set(xlabel="x₁" if last else "", ylabel="x₂" if first else "")
    return figure


def image_sheet(images: Mapping[str, State], *, rows: int = 8, columns: int = 8) -> Figure:
    """Draws sheets of images side by side, ink dark on white.

    Args:
        images: Images by the title of their sheet, shape (n, 1, height, width), in [−1, 1].
        rows: Rows of a sheet.
        columns: Columns of a sheet.

    Returns:
        The figure.

    Raises:
        ValueError: If images have another shape.
    """
    letters = "ABCDEF"[: len(images)]
    size = 3.4
    figure, axes = _panels(letters, size * len(images), size * rows / columns + 0.35, gap=0.05)
    for letter, (title, sheet) in zip(letters, images.items(), strict=True):
        tiles = _images(sheet)[: rows * columns]
        _tiles(axes[letter], tiles, rows, columns)
        _title(axes[letter], title)
    return figure


def denoising_strip(path: Trajectory, *, rows: int = 6, columns: int = 10) -> Figure:
    """Draws noise becoming images: a row is one trajectory, a column one time.

    Args:
        path: A run of reverse dynamics that kept its path, shape (T, n, 1, height, width).
        rows: How many trajectories, the first ones.
        columns: How many of the times, denser towards the last, where noise becomes an image.

    Returns:
        The figure.

    Raises:
        ValueError: If states are not images, or the path was not kept.
    """
    if len(path.times) < 2:
        raise ValueError(
            "denoising_strip needs the path, but it has one time; simulate with keep_path=True."
        )
    columns = min(columns, len(path.times))
    left = np.linspace(1, 0, columns) ** 2
    which = ((len(path.times) - 1) * (1 - left)).round().astype(int)
    chosen = path.finite[which.tolist()][:, :rows].transpose(0, 1).flatten(0, 1)
    rows = len(chosen) // columns
    figure, axes = _panels("S", 0.85 * columns, 0.85 * rows + 0.45)
    tiles = _images(chosen)
    _tiles(axes["S"], tiles, rows, columns)
    pitch = tiles.shape[2] + 1
    ticks = pitch * np.arange(columns) + tiles.shape[2] / 2 - 0.5
    axes["S"].set_xticks(ticks, [f"{float(path.times[int(k)]):.2g}" for k in which])
    axes["S"].xaxis.tick_top()
    axes["S"].tick_params(length=0)
    axes["S"].xaxis.set_label_position("top")
    axes["S"].set_xlabel("time t, from noise to data" + _lost(path))
    return figure


def pareto(curves: Mapping[str, _Curve], *, floor: float | None = None, quantity: str) -> Figure:
    """Draws what a sample costs against what it is worth, one line for each route.

    Args:
        curves: (evaluations, distance) pairs by the name of the route.
        floor: Distance of exact samples, or None.
        quantity: What the distance is, for the axis.

    Returns:
        The figure, with both axes logarithmic.
    """
    figure, axes = _panels("P", 7.6, 4.0)
    panel = axes["P"]
    _log_log(panel, curves)
    if floor is not None:
        panel.axhline(floor, color=_INK, lw=1.2, ls=(0, (5, 3)), label="floor: exact samples")
        panel.set_ylim(bottom=min(panel.get_ylim()[0], 0.85 * floor))
    panel.set(xlabel="score evaluations per sample (nfe)", ylabel=quantity)
    _plain_log(panel.xaxis)
    _plain_log(panel.yaxis)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure


def convergence(
    curves: Mapping[str, _Curve],
    *,
    slope: float,
    across: str = "number of steps N",
    quantity: str = "error",
) -> Figure:
    """Draws errors against the number of steps, and a line with the slope they should have.

    Args:
        curves: (steps, error) pairs by name.
        slope: Slope of the line of reference, −1 for first order in 1/N.
        across: What the horizontal axis is.
        quantity: What the error is.

    Returns:
        The figure, with both axes logarithmic.
    """
    figure, axes = _panels("P", 7.6, 4.0)
    panel = axes["P"]
    _log_log(panel, curves)
    points = np.array([point for curve in curves.values() for point in curve], dtype=float)
    ends = np.array([points[:, 0].min(), points[:, 0].max()])
    # just below all curves: the line is there to be compared with, not to cross them
    height = 0.6 * float((points[:, 1] / points[:, 0] ** slope).min())
    text = f"slope {slope:g}".replace("-", "−")
    panel.plot(ends, height * ends**slope, color=_GREY, lw=1.2, ls=(0, (5, 3)), label=text)
    panel.set(xlabel=across, ylabel=quantity)
    _plain_log(panel.xaxis)
    _plain_log(panel.yaxis)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure


def histogram(values: Tensor, *, quantity: str) -> Figure:
    """Draws how often a number occurs, and where its mean is.

    Args:
        values: One number for each sample, shape (n,).
        quantity: What the number is, with its unit, for the axis.

    Returns:
        The figure, a density of area 1.

    Raises:
        ValueError: If values are not one number each, or not all finite.
    """
    if values.ndim != 1 or not bool(values.isfinite().all()):
        raise ValueError(
            f"a histogram needs finite values of shape (n,), but they have shape "
            f"{tuple(values.shape)} and {int((~values.isfinite()).sum())} of them are not finite."
        )
    numbers = _numbers(values).astype(np.float64)
    bins = min(_BINS, max(5, round(math.sqrt(len(numbers)))))
    height, edges = np.histogram(numbers, bins, density=True)
    figure, axes = _panels("H", 6.0, 3.4)
    panel, mean = axes["H"], float(numbers.mean())
    panel.stairs(height, edges, fill=True, color=_ORANGE, alpha=0.5)
    panel.axvline(mean, color=_INK, lw=1.2, ls=(0, (4, 3)))
    panel.set(xlabel=quantity, ylabel="density")
    _title(panel, f"{len(numbers):,} samples, mean {mean:.4g}")
    return figure


def loss_curve(result: TrainResult) -> Figure:
    """Draws the loss of each step, its running mean, and the validation loss.

    Args:
        result: What `train` returned.

    Returns:
        The figure.
    """
    losses = _numbers(result.losses)
    window = max(1, len(losses) // 100)
    mean = np.convolve(losses, np.full(window, 1 / window), "valid")
    steps = np.arange(1, len(losses) + 1)
    figure, axes = _panels("L", 7.0, 3.6)
    panel = axes["L"]
    panel.plot(steps, losses, color=_GREY, lw=0.5, alpha=0.35, label="one step")
    panel.plot(steps[window - 1 :], mean, color=_BLUE, lw=1.5, label=f"mean of {window} steps")
    if len(result.validation_losses):
        looks, seen = _numbers(result.validation_steps), _numbers(result.validation_losses)
        panel.plot(looks, seen, "o-", color="#D55E00", ms=3.5, lw=1.2, label="validation")
    panel.axvline(result.kept_step, color=_INK, lw=1, ls=(0, (4, 3)), label="weights kept")
    panel.set(xlabel="training step", ylabel="loss", yscale="log")
    # the first steps are far above all others, and would flatten them
    low, high = np.quantile(losses, [0.002, 0.99])
    panel.set_ylim(0.9 * low, 1.15 * max(high, mean.max() if len(mean) < 3 else mean[1:].max()))
    _plain_log(panel.yaxis)
    panel.margins(x=0.01)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure


def _panels(
    mosaic: str, width: float, height: float, *, gap: float = 0.02
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with panels named by letters, all dressed alike; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", wspace=gap, hspace=gap)
    axes: dict[str, Axes] = figure.subplot_mosaic(mosaic)
    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(_GREY)
        panel.tick_params(color=_GREY, labelsize=8.5)
        panel.grid(color="#E6E6E6", lw=0.6)
        panel.set_axisbelow(True)
        panel.xaxis.label.set_fontsize(9.5)
        panel.yaxis.label.set_fontsize(9.5)
    return figure, axes


def _title(panel: Axes, text: str) -> None:
    """A title in the size of all others."""
    panel.set_title(text, fontsize=9.5)


def _numbers(values: Tensor) -> _Array:
    """A tensor as an array, wherever it lives."""
    array: _Array = values.detach().cpu().numpy()
    return array


def _lost(path: Trajectory) -> str:
    """What a title says about trajectories that are not in the picture."""
    lost = int(path.nonfinite.sum())
    return f" ({lost:,} of {len(path.nonfinite):,} trajectories lost)" if lost else ""


def _line_of(path: Trajectory) -> _Array:
    """One-dimensional states that were not lost, shape (T, kept)."""
    kept = _numbers(path.finite)
    if kept.shape[2:] != (1,):
        raise ValueError(
            f"a density over x needs states of shape (T, n, 1), but these are {kept.shape}; "
            "use plots.paths or plots.samples_2d."
        )
    return kept[:, :, 0]


def _common_times(
    density: DensityPath, path: Trajectory, times: Sequence[float] | None
) -> list[tuple[int, int]]:
    """Where the times are in both, as indices (of the density, of the path)."""
    a, b = _numbers(density.times), _numbers(path.times)
    tolerance = 1e-6 * max(1.0, float(np.abs(a).max()))
    nearest = [int(np.abs(b - t).argmin()) for t in a]
    common = [(k, j) for k, j in enumerate(nearest) if abs(b[j] - a[k]) <= tolerance]
    if not common:
        raise ValueError(
            f"density and path have no common time: the density's are {a[0]:g} … {a[-1]:g}, the "
            f"path's {b[0]:g} … {b[-1]:g}; give the same times to FokkerPlanck.solve and simulate."
        )
    if times is None:
        return common
    chosen = []
    for t in times:
        k, j = min(common, key=lambda pair: abs(float(a[pair[0]]) - t))
        if abs(a[k] - t) > tolerance:
            raise ValueError(
                f"time {t:g} is not among those of both density and path; the nearest is {a[k]:g}."
            )
        chosen.append((k, j))
    return chosen


def _heatmap(figure: Figure, panel: Axes, density: DensityPath) -> None:
    """p(x, t) as colour."""
    if len(density.times) < 2:
        raise ValueError(
            f"a picture over time needs two times or more, but the density has "
            f"{len(density.times)}."
        )
    image = panel.pcolormesh(
        _numbers(density.times),
        _numbers(density.x),
        _numbers(density.p).T,
        shading="gouraud",
        cmap=_DENSITY,
        norm=PowerNorm(0.5, vmin=0),  # half of the colours for the lowest quarter: tails are seen
        rasterized=True,
    )
    panel.set(xlabel="time t", ylabel="position x")
    panel.grid(False)
    bar = figure.colorbar(image, ax=panel, pad=0.01, aspect=14)
    bar.set_label("density p(x, t)", size=9.5)
    bar.ax.tick_params(labelsize=8.5)
    bar.outline.set_visible(False)


def _histogram(particles: _Array, x: _Array) -> tuple[_Array, _Array]:
    """Heights and edges of a density histogram whose bins are whole cells.

    What is beyond the nodes or on the very ends, where absorbing walls keep it, has no bin, but
    counts in the total.
    """
    edges = np.append(x[: -1 : max(1, math.ceil((len(x) - 1) / _BINS))], x[-1])
    inside = particles[(particles > x[0]) & (particles < x[-1])]
    counts, _ = np.histogram(inside, edges)
    return counts / (len(particles) * np.diff(edges)), edges


def _bars(panel: Axes, height: _Array, edges: _Array, count: int) -> StepPatch:
    """A histogram of so many particles."""
    return panel.stairs(
        height, edges, fill=True, color=_ORANGE, alpha=0.5, label=f"{count:,} particles"
    )


def _legend_below(figure: Figure, panel: Axes) -> None:
    """One legend for all panels, under them."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9
    )


def _log_log(panel: Axes, curves: Mapping[str, _Curve]) -> None:
    """One line with markers for each curve, on logarithmic axes with readable numbers."""
    for i, (name, curve) in enumerate(curves.items()):
        a, b = np.array(sorted(curve), dtype=float).T
        marker = _MARKERS[i % len(_MARKERS)]
        panel.plot(a, b, marker, ls="-", ms=5, lw=1.4, color=_CYCLE[i % len(_CYCLE)], label=name)
    panel.set(xscale="log", yscale="log")


def _plain_log(axis: Axis) -> None:
    """Ticks 1, 2, 5, 10 … in plain numbers on a logarithmic axis of a few decades."""
    low, high = axis.get_view_interval()
    if high > 3e3 * low:
        return
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def _images(states: Tensor) -> _Array:
    """Images as (n, height, width)."""
    array = _numbers(states)
    if array.ndim != 4 or array.shape[1] != 1:
        raise ValueError(
            f"images must have shape (n, 1, height, width), but have {array.shape}; reshape them."
        )
    return array[:, 0]


def _tiles(panel: Axes, images: _Array, rows: int, columns: int) -> None:
    """Images as one picture, row by row, a white pixel apart."""
    _, height, width = images.shape
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    panel.imshow(sheet, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.grid(False)
    panel.spines[:].set_visible(False)
