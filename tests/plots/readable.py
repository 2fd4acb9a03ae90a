"""What a picture must be to be read: labelled, within its edges, with nothing on anything else."""

import itertools
import math

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from sdegen.plots import style

SIZES = {style.LABEL, style.TICK, style.LEGEND, style.NOTE}

# severity 1.0 of Machado, Oliveira and Fernandes 2009, for linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lab(colour, deficiency="none"):
    """Return CIE L*a*b* (D65) of a colour as it is seen."""
    s = np.array(to_rgb(colour))
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    linear = np.clip(DEFICIENCIES[deficiency] @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = to_xyz @ linear / (to_xyz @ np.ones(3))
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def faults(figure):
    """Return what is wrong with a figure, in words; nothing if it can be read."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in _texts(figure) if text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    found = [f"{name!r} has {text.get_fontsize()} points" for text, (name, _) in
             zip(texts, boxes, strict=True) if text.get_fontsize() not in SIZES]  # fmt: skip
    page = figure.bbox.padded(1)
    for name, box in boxes:
        if not (page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1)):
            found.append(f"{name!r} is beyond the edge")
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if min(wide, high) >= 1:
            found.append(f"{one!r} overlaps {other!r}")
    for axes in figure.axes:
        found += _unlabelled(axes)
    return found + list(_covered(figure, canvas))


def _ticks(axis):
    """Return the labels of ticks that are seen."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    for tick in axis.get_major_ticks() + axis.get_minor_ticks():
        if low - slack <= tick.get_loc() <= high + slack:
            for label in (tick.label1, tick.label2):
                if label.get_visible() and label.get_text().strip():
                    yield label


def _texts(figure):
    """Return all texts of a figure."""
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        for axis in (axes.xaxis, axes.yaxis):
            yield from _ticks(axis)
            yield axis.get_offset_text()
        if axes.get_legend():
            yield from axes.get_legend().get_texts()
    for legend in figure.legends:
        yield from legend.get_texts()


def _unlabelled(axes):
    """Return what is not said of the axes of a panel."""
    name = axes.get_label()
    for letter, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        numbers = list(_ticks(axis))
        if not numbers:
            continue  # an image, or an axis that shares those of its neighbour
        if not axis.label.get_text().strip():
            yield f"{letter} of panel {name!r} has numbers and no label"
        if axis.get_scale() == "log" and len(numbers) < 2:
            yield f"{letter} of panel {name!r} is logarithmic and has {len(numbers)} numbers"


def _covered(figure, canvas):
    """Return the legends that lie on data: without them there is something where they are."""
    legends = [(axes, axes.get_legend()) for axes in figure.axes if axes.get_legend()]
    if not legends:
        return
    boxes = [legend.get_window_extent() for _, legend in legends]
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")
    kept = []
    for axes, legend in legends:
        grids = [line for axis in (axes.xaxis, axes.yaxis) for line in axis.get_gridlines()]
        kept += [(artist, artist.get_visible()) for artist in (legend, *grids)]
    for artist, _ in kept:
        artist.set_visible(False)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    for artist, visible in kept:
        artist.set_visible(visible)
    figure.set_layout_engine(layout)
    for (axes, _), box in zip(legends, boxes, strict=True):
        top = len(pixels) - math.ceil(box.y1)
        part = pixels[top : len(pixels) - math.floor(box.y0), int(box.x0) : math.ceil(box.x1)]
        if (part < 240).any():
            yield f"the legend of panel {axes.get_label()!r} lies on data"
