"""Films: frames of a figure as an animated GIF."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sdegen.storage import atomic_write

FRAMES = 90  # of a film, at most


def write_film(
    figure: Figure,
    panel: Axes,
    moving: Sequence[Artist],
    draw: Callable[[int], None],
    count: int,
    file: str | Path,
    fps: int,
) -> None:
    """Write frames as an animated GIF, whole or not at all.

    Args:
        figure: What is drawn; its layout is that of the first frame.
        panel: The panel whose title moves.
        moving: What else moves.
        draw: Sets what moves in a frame, and the title.
        count: Frames.
        file: Where the GIF goes; its folder must exist.
        fps: Frames in a second.
    """
    draw(0)
    figure.set_dpi(110)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # laid out once: axes that move between frames distract
    # what moves is drawn anew on a still background: three times faster
    moving = (*moving, panel.title)
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    pictures = []
    for frame in range(count):
        draw(frame)
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
    pauses = [round(1_000 / fps)] * (len(frames) - 1) + [1_500]  # ms; the last before the start
    frames[0].save(film, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0)
    atomic_write(file, film.getvalue())
