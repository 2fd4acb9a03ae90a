"""Sheets of images, pixel by pixel: each is a square of whole pixels of the picture, unsmoothed.

The scale is grey, and stated below the picture: white is −1 or less, black 1 or more.
A figure has the size that its pixels need, so that nothing is resampled when it is saved at its
own resolution.
"""

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.requests import check_kind
from sdegen.core.shapes import State
from sdegen.core.trajectory import Trajectory
from sdegen.plots import style

_WIDTH = 880  # of a picture in pixels, about; a page shows so many without shrinking it
_SCALE = "pixels: white is −1 or less, black 1 or more"
_MARGIN, _GAP, _HEAD, _FOOT, _LINE = 2, 12, 30, 30, 22  # in pixels; a line of text is 22 high


def image_sheet(images: Mapping[str, State], *, rows: int = 8, columns: int = 8) -> Figure:
    """Draw sheets of images side by side, ink dark on white, pixel by pixel.

        black at x = 1, white at x = −1

    Args:
        images: Images by the title of their sheet, shape (n, 1, height, width), in [−1, 1].
        rows: Rows of a sheet, at most.
        columns: Columns of a sheet.

    Returns:
        The figure.

    Raises:
        ValueError: If images have another shape.

    Example:
        >>> images = torch.linspace(-1, 1, 64).reshape(4, 1, 4, 4)
        >>> figure = sg.plots.image_sheet({"ramps": images}, rows=2, columns=2)
        >>> figure.axes[0].images[0].get_clim()  # white at −1, black at 1
        (-1.0, 1.0)
    """
    check_kind("images", images, Mapping, "a mapping of names to images")
    check_count("rows", rows)
    check_count("columns", columns)
    tiles = {title: _images(sheet)[: rows * columns] for title, sheet in images.items()}
    rows = min(rows, max(-(-len(sheet) // columns) for sheet in tiles.values()))
    sheets = {title: _sheet(sheet, rows, columns) for title, sheet in tiles.items()}
    tall, wide = (max(sheet.shape[k] for sheet in sheets.values()) for k in (0, 1))
    scale = max(1, (_WIDTH - _GAP * (len(sheets) - 1)) // (wide * max(2, len(sheets))))
    width = scale * wide
    names = [textwrap.fill(title, max(8, width // 11)) for title in sheets]
    head = _HEAD + _LINE * max(name.count("\n") for name in names)
    least = 2 * _MARGIN + len(_SCALE) * 10
    total = max(least, 2 * _MARGIN + len(sheets) * width + (len(sheets) - 1) * _GAP)
    figure = _figure(total, scale * tall + head + _FOOT)
    for i, (name, sheet) in enumerate(zip(names, sheets.values(), strict=True)):
        panel = _place(figure, sheet, scale, _MARGIN + i * (width + _GAP), _FOOT)
        panel.set_label("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i % 26])
        style.title(panel, name)
    return figure


def denoising_strip(path: Trajectory, *, rows: int = 6, columns: int = 10) -> Figure:
    """Draw noise becoming images: a row is one trajectory, a column one time.

        image in row i, column k = x_i(t_k)

    Args:
        path: A run of reverse dynamics that kept its path, shape (T, n, 1, height, width).
        rows: How many trajectories, the first ones.
        columns: How many of the times, denser towards the last, where noise becomes an image.

    Returns:
        The figure.

    Raises:
        ValueError: If states are not images, or the path was not kept.

    Example:
        >>> path = sg.VP(sg.ConstantBeta(2.0))
        >>> flow = sg.ReverseSDE(path, lambda x, t: -x, eta=0.0)
        >>> noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> run = sg.simulate(flow, noise, path.time_grid(5), solver=sg.DDIM())
        >>> figure = sg.plots.denoising_strip(run, rows=2, columns=3)
        >>> figure.axes[0].get_xlabel()
        'time t, from noise to data'
    """
    check_kind("path", path, Trajectory, "a Trajectory, as simulate returns it")
    check_count("rows", rows)
    check_count("columns", columns)
    if len(path.times) < 2:
        raise ValueError(
            "denoising_strip needs the path, but it has one time; simulate with keep_path=True."
        )
    columns = min(columns, len(path.times))
    left = np.linspace(1, 0, columns) ** 2
    which = ((len(path.times) - 1) * (1 - left)).round().astype(int)
    chosen = path.finite[which.tolist()][:, :rows].transpose(0, 1).flatten(0, 1)
    tiles = _images(chosen)
    sheet = _sheet(tiles, len(chosen) // columns, columns)
    scale = max(1, _WIDTH // sheet.shape[1])
    width = scale * sheet.shape[1]
    head = 2 * _HEAD + 8
    figure = _figure(width + 2 * _MARGIN, scale * sheet.shape[0] + head + _FOOT)
    panel = _place(figure, sheet, scale, _MARGIN, _FOOT)
    panel.set_label("P")
    pitch = tiles.shape[2] + 1
    ticks = pitch * np.arange(columns) + tiles.shape[2] / 2 - 0.5
    panel.set_xticks(ticks, [f"{float(path.times[int(k)]):.2g}" for k in which])
    panel.xaxis.tick_top()
    panel.tick_params(length=0, labelsize=style.TICK)
    panel.xaxis.set_label_position("top")
    panel.set_xlabel("time t, from noise to data" + style.lost(path), fontsize=style.LABEL)
    return figure


def _figure(width: int, height: int) -> Figure:
    """Return a figure of so many pixels, with the scale of grey in words at its foot."""
    figure = Figure(figsize=(width / style.DPI, height / style.DPI), dpi=style.DPI)
    figure.set_facecolor("white")
    figure.text(0.5, 5 / height, _SCALE, ha="center", va="bottom", fontsize=style.NOTE)
    return figure


def _place(figure: Figure, sheet: style.Array, scale: int, left: int, bottom: int) -> Axes:
    """Draw a sheet whose pixels are squares of `scale` pixels of the figure, from a whole one."""
    wide, tall = (round(size * style.DPI) for size in figure.get_size_inches())
    height, width = (scale * size for size in sheet.shape)
    panel = figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))
    panel.imshow(sheet, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    return panel


def _images(states: Tensor) -> style.Array:
    """Return images as (n, height, width)."""
    array = style.numbers(states)
    if array.ndim != 4 or array.shape[1] != 1:
        raise ValueError(
            f"images must have shape (n, 1, height, width), but have {array.shape}; reshape them."
        )
    return array[:, 0]


def _sheet(images: style.Array, rows: int, columns: int) -> style.Array:
    """Return images as one, row by row, a white pixel apart."""
    _, height, width = images.shape
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet
