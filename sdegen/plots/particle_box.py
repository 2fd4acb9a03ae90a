"""Particles in a box, as discs to scale, and as a film.

As in `plots`, nothing is computed here and nothing is shown: a function takes positions and
returns a `Figure`, or writes a film. On a periodic box [0, L) positions are drawn inside of it,
and a disc that reaches over an edge enters at the opposite one. In three dimensions the box is
seen along z: what is deeper is paler, and behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.checks import check_count, check_int, check_positive
from sdegen.core.requests import as_numbers, as_state, check_kind
from sdegen.core.trajectory import Trajectory
from sdegen.plots import style
from sdegen.plots.film import FRAMES, write_film

_PALE = 0.75  # how much of a colour the deepest particle loses
_MARKED = style.RED


def particles(
    positions: Tensor | Trajectory,
    *,
    diameter: float,
    box: float | Sequence[float] | None = None,
    trajectory: int = 0,
    time: int = -1,
) -> Figure:
    """Draw particles as discs to scale, the first one in orange.

        discs |r − r_i| ≤ diameter/2

    Args:
        positions: Of one system, shape (particles, 2) or (particles, 3); or trajectories of
            systems, states (T, batch, particles, dim), or with velocities (T, batch, 2, particles,
            dim).
        diameter: Of a particle, in units of length.
        box: Length of a periodic box, or one for each dimension; None for open space.
        trajectory: Which trajectory is drawn.
        time: Index of the time that is drawn.

    Returns:
        The figure.

    Example:
        >>> places = torch.tensor([[1.0, 1.0], [3.0, 2.0]])
        >>> figure = sg.plots.particles(places, diameter=1.0, box=4.0)
        >>> figure.axes[0].get_title(), [float(end) for end in figure.axes[0].get_xlim()]
        ('2 particles', [0.0, 4.0])
    """
    frames, times = _frames(positions, trajectory)
    if not -len(frames) <= check_int("time", time) < len(frames):
        raise ValueError(f"time must be an index below {len(frames)}, but is {time}.")
    figure, panel, discs, length = _scene(frames, diameter, box)
    _place(discs, frames[time], diameter, length)
    style.title(panel, _words(frames, times, time))
    return figure


def particles_gif(
    path: Trajectory,
    file: str | Path,
    *,
    diameter: float,
    box: float | Sequence[float] | None = None,
    trajectory: int = 0,
    fps: int = 15,
) -> None:
    """Write a film of particles.

        frame k = r_i(times[k])

    Args:
        path: Trajectories of systems, states (T, batch, particles, dim), as `particles` takes
            them.
        file: Where the animated GIF goes; its folder must exist. It is written whole or not at
            all.
        diameter: Of a particle, in units of length.
        box: Length of a periodic box, or one for each dimension; None for open space.
        trajectory: Which trajectory is drawn.
        fps: Frames in a second; there is one for each time, at most 90.

    Example:
        >>> fall = sg.ItoProcess(lambda x: 1 + 0 * x, 0.0)
        >>> path = sg.simulate(fall, torch.zeros(1, 2, 2), [0.0, 0.5, 1.0])
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     film = pathlib.Path(folder) / "film.gif"
        ...     sg.plots.particles_gif(path, film, diameter=0.5, box=2.0)
        ...     with Image.open(film) as frames:
        ...         print(frames.n_frames)
        3
    """
    check_kind("path", path, Trajectory, "a Trajectory, as simulate returns it")
    check_kind("file", file, (str, Path), "the path of a file")
    check_count("fps", fps)
    frames, times = _frames(path, trajectory)
    shown = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES)).round().astype(int)
    figure, panel, discs, length = _scene(frames, diameter, box)

    def draw(frame: int) -> None:
        k = int(shown[frame])
        _place(discs, frames[k], diameter, length)
        style.title(panel, _words(frames, times, k))

    write_film(figure, panel, (discs,), draw, len(shown), file, fps)


def _frames(positions: Tensor | Trajectory, trajectory: int) -> tuple[style.Array, style.Array]:
    """Return positions at all times, shape (T, particles, dim), and the times; none of one."""
    times = np.zeros(0)
    if isinstance(positions, Trajectory):
        check_count("trajectory", trajectory, least=0)
        states, times = positions.states, style.numbers(positions.times)
        if states.ndim == 5 and states.shape[2] == 2:  # positions and velocities
            states = states[:, :, 0]
        if states.ndim > 1 and trajectory >= states.shape[1]:
            raise ValueError(
                f"trajectory must be below {states.shape[1]}, their number, but is {trajectory}."
            )
        chosen = states[:, trajectory] if states.ndim == 4 else states
    else:
        chosen = as_state("positions", positions)[None]
    array = style.numbers(chosen)
    if array.ndim != 3 or array.shape[2] not in (2, 3) or not np.isfinite(array).all():
        raise ValueError(
            "particles are drawn at finite positions of shape (particles, 2) or (particles, 3), "
            f"but these have shape {array.shape[1:]}; choose two of their coordinates."
        )
    return array, times


def _scene(
    frames: style.Array, diameter: float, box: float | Sequence[float] | None
) -> tuple[Figure, Axes, EllipseCollection, style.Array | None]:
    """Return a figure with a box and no discs yet, and the lengths of a periodic box."""
    check_positive("diameter", diameter)
    length = None
    if box is not None:
        values = style.numbers(as_numbers("box", box, expected="a length, or one for each side"))
        if values.size not in (1, frames.shape[2]) or not (values > 0).all():
            raise ValueError(
                f"box must be a length > 0, or {frames.shape[2]} of them, but is {box!r}; pass "
                "box=10.0."
            )
        length = np.broadcast_to(values.astype(float), (frames.shape[2],))
        low, high = np.zeros(2), length[:2]
    else:
        margin = 0.75 * diameter
        low = frames[..., :2].min((0, 1)) - margin
        high = frames[..., :2].max((0, 1)) + margin
    wide, tall = high - low
    scale = 4.6 / max(wide, tall)
    figure, panel = style.one_panel(max(2.4, scale * wide) + 0.8, max(2.0, scale * tall) + 0.8)
    panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    panel.set(xlabel="position x, units of length", ylabel="position y, units of length")
    panel.grid(False)
    if length is not None:
        panel.spines[:].set_visible(True)
        panel.spines[:].set_color(style.GREY)
    discs = EllipseCollection(
        [diameter],
        [diameter],
        [0.0],
        units="xy",
        offsets=np.zeros((1, 2)),
        offset_transform=panel.transData,
        linewidths=0.4,
        edgecolors="white",
    )
    panel.add_collection(discs)
    return figure, panel, discs, length


def _place(
    discs: EllipseCollection, at: style.Array, diameter: float, length: style.Array | None
) -> None:
    """Put the discs where particles are, the images at the edges of a periodic box with them."""
    marked = np.arange(len(at)) == 0
    if length is not None:
        at = at - length * np.floor(at / length)
        at, marked = _with_images(at, marked, diameter / 2, length)
    colours = np.where(marked[:, None], to_rgb(_MARKED), to_rgb(style.BLUE))
    if at.shape[1] == 3:
        depth = (at[:, 2].max() - at[:, 2]) / max(float(np.ptp(at[:, 2])), 1e-12)
        colours = colours + _PALE * depth[:, None] * (1 - colours)
        order = np.argsort(at[:, 2])
    else:
        order = np.argsort(marked, kind="stable")  # the first particle on top
    discs.set_offsets(at[order, :2])
    discs.set(facecolor=colours[order])


def _with_images(
    at: style.Array, marked: style.Array, radius: float, length: style.Array
) -> tuple[style.Array, style.Array]:
    """Return particles and those of their images whose discs reach into the box."""
    places, marks = [at], [marked]
    for shift in itertools.product((-1, 0, 1), repeat=2):
        if shift == (0, 0):
            continue
        moved = at.copy()
        moved[:, :2] += np.array(shift) * length[:2]
        inside = ((moved[:, :2] > -radius) & (moved[:, :2] < length[:2] + radius)).all(1)
        places.append(moved[inside])
        marks.append(marked[inside])
    return np.concatenate(places), np.concatenate(marks)


def _words(frames: style.Array, times: style.Array, k: int) -> str:
    """Return the title of a frame."""
    when = f", t = {float(times[k]):.3g}" if len(times) else ""
    deep = ", pale: far" if frames.shape[2] == 3 else ""
    count = frames.shape[1]
    return f"{count:,} particle{'s' * (count != 1)}{when}{deep}"
