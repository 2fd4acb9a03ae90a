"""Pictures of densities over time, alone and with the particles that they are the law of.

As in `plots`, nothing is computed here and nothing is shown: a function takes results and returns
a `Figure`, or writes a film.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from sdegen.core.checks import check_count
from sdegen.core.requests import check_kind
from sdegen.core.trajectory import Trajectory
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.plots import style
from sdegen.plots.film import FRAMES, write_film

_EARLY = np.linspace(0, 1, 4) ** 2
_ABOVE = 3.0  # times the median peak: what is higher is cut, and its height is said
_OVERLAP = 2.2  # heights of a ridge that the highest of them takes


def density_and_particles(
    density: DensityPath, path: Trajectory, times: Sequence[float] | None = None
) -> Figure:
    """Draw the Fokker-Planck density over time, and particles under it at some times.

        ∂p/∂t = −(f p)' + (D p)″,   dX = f dt + g dW

    Args:
        density: p(x, t), at times that contain those of the panels.
        path: Trajectories of the same SDE, shape (T, n, 1).
        times: Times of the panels, at most 6; None takes four, denser at the start.

    Returns:
        The figure: the density as colour above, a panel for each time below.

    Raises:
        ValueError: If states are not one-dimensional, a time is not among those of both, or there
            are more than six.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> times = torch.linspace(0, 1, 21)
        >>> path = sg.simulate(ou, torch.zeros(100, 1), times, rng=0)
        >>> figure = sg.plots.density_and_particles(solver.solve(0.0, times), path, [0.5, 1.0])
        >>> [axes.get_title() for axes in figure.axes[1:3]]
        ['t = 0.5', 't = 1']
    """
    check_kind("density", density, DensityPath, "what FokkerPlanck(sde, grid).solve returns")
    check_kind("path", path, Trajectory, "what simulate(sde, x0, times) returns")
    x, particles = style.numbers(density.x), style.line_of(path)
    pairs = _common_times(density, path, times)
    if times is None:
        # quadratic in time: a relaxation is quick at first
        pairs = [pairs[k] for k in np.unique(((len(pairs) - 1) * _EARLY).round().astype(int))]
    if len(pairs) > 6:
        raise ValueError(f"there is room for at most 6 times, but got {len(pairs)}.")
    letters = "ABCDEF"[: len(pairs)]
    figure, axes = style.panels(f"{'T' * len(pairs)};{letters}", 9.0, 5.8)
    _heatmap(figure, axes["T"], density)
    told = style.error_in_words(density.error, "p", "its peak")
    words = "Fokker–Planck density of the SDE" + (f", {told}" if told else "")
    style.title(axes["T"], words + style.lost(path))
    histograms = [style.histogram(particles[j], x) for _, j in pairs]
    curves = [style.heights(density.p[k]) for k, _ in pairs]
    tops = [
        max(float(p.max()), float(height.max()))
        for p, (height, _) in zip(curves, histograms, strict=True)
    ]
    ceiling = 1.08 * _ceiling(tops)
    drawn = zip(letters, pairs, histograms, curves, tops, strict=True)
    for letter, (k, _), (height, edges), p, peak in drawn:
        panel, t = axes[letter], float(density.times[k])
        style.bars(panel, height, edges, particles.shape[1])
        style.counting_errors(panel, height, edges, particles.shape[1])
        panel.plot(x, p, color=style.BLUE, lw=style.LINE, label="Fokker–Planck")
        panel.set(xlim=(x[0], x[-1]), ylim=(0, ceiling), xlabel="position x")
        panel.tick_params(left=letter == "A", labelleft=letter == "A")
        style.title(panel, f"t = {t:.3g}" + (f", up to {peak:.3g}" if peak > ceiling else ""))
        axes["T"].axvline(t, color=style.INK, lw=style.THIN, ls=style.DASHED)
    axes["A"].set_ylabel("density p(x, t)")
    style.legend_below(figure, axes["A"])
    return figure


def density_heatmap(density: DensityPath) -> Figure:
    """Draw p(x, t) as colour over time and position.

        ∂p/∂t = −(f p)' + (D p)″

    Args:
        density: The density at two times or more, p of shape (T, nodes).

    Returns:
        The figure.

    Raises:
        ValueError: If there are fewer than two times.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> figure = sg.plots.density_heatmap(solver.solve(2.0, [0.0, 0.5, 1.0]))
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['position x', 'density p(x, t)']
    """
    figure, panel = style.one_panel(7.0, 3.4)
    _heatmap(figure, panel, density)
    style.title(panel, style.error_in_words(density.error, "p", "its peak"))
    return figure


def density_ridge(density: DensityPath, *, count: int = 12) -> Figure:
    """Draw p(x, t) as a ridge: a curve for each of some times, one behind the other.

        ∂p/∂t = −(f p)' + (D p)″

    Args:
        density: The density at two times or more, p of shape (T, nodes).
        count: How many of its times, at most; evenly chosen, first and last among them.

    Returns:
        The figure. A curve stands on its time, and all have one scale.

    Raises:
        ValueError: If there are fewer than two times.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> figure = sg.plots.density_ridge(solver.solve(2.0, [0.0, 0.5, 1.0]))
        >>> [round(float(line.get_ydata()[0]), 6) for line in figure.axes[0].lines]
        [2.0, 1.0, 0.0]
    """
    check_count("count", count)
    p, x = _rows(density), style.numbers(density.x)
    shown = np.unique(np.linspace(0, len(p) - 1, min(len(p), count)).round().astype(int))
    figure, panel = style.one_panel(6.4, 4.6)
    scale = _OVERLAP / float(p[shown].max())
    for row, k in reversed(list(enumerate(shown))):  # the earliest in front
        colour = style.DENSITY(0.35 + 0.55 * row / max(1, len(shown) - 1))
        height, order = row + scale * p[k], 10.0 - 0.1 * row
        panel.fill_between(x, row, height, color="white", alpha=0.85, lw=0, zorder=order)
        panel.fill_between(x, row, height, color=colour, alpha=0.3, lw=0, zorder=order + 0.02)
        panel.plot(x, height, color=colour, lw=style.LINE, zorder=order + 0.04)
    panel.set_yticks(range(len(shown)), [f"{float(density.times[int(k)]):.3g}" for k in shown])
    top = max(row + scale * float(p[k].max()) for row, k in enumerate(shown))
    panel.set(xlim=(x[0], x[-1]), ylim=(-0.15, top + 0.2))
    panel.set(xlabel="position x", ylabel="time t")
    panel.tick_params(left=False)
    panel.spines["left"].set_visible(False)
    told = style.error_in_words(density.error, "p", "its peak")
    words = f"density p(x, t), highest {float(p[shown].max()):.3g}"
    style.title(panel, words + (f", {told}" if told else ""))
    return figure


def relaxation_gif(
    density: DensityPath, path: Trajectory, file: str | Path, *, fps: int = 15
) -> None:
    """Write a film of the particles relaxing under the Fokker-Planck density.

        frame k = p(·, times[k]) and x_i(times[k])

    Args:
        density: p(x, t).
        path: Trajectories of the same SDE, shape (T, n, 1).
        file: Where the animated GIF goes; its folder must exist. It is written whole or not at
            all.
        fps: Frames in a second; there is one for each time that both have, at most 90.

    Raises:
        ValueError: If states are not one-dimensional, or no time is common to both.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> times = torch.linspace(0, 1, 4)
        >>> path = sg.simulate(ou, torch.zeros(100, 1), times, solver=sg.EulerMaruyama(10), rng=0)
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     film = pathlib.Path(folder) / "film.gif"
        ...     sg.plots.relaxation_gif(solver.solve(0.0, times), path, film)
        ...     with Image.open(film) as frames:
        ...         print(frames.n_frames)
        4
    """
    check_kind("file", file, (str, Path), "the path of a file")
    check_count("fps", fps)
    check_kind("density", density, DensityPath, "a DensityPath, as FokkerPlanck.solve returns it")
    check_kind("path", path, Trajectory, "a Trajectory, as simulate returns it")
    x, particles = style.numbers(density.x), style.line_of(path)
    pairs = _common_times(density, path, None)
    shown = np.linspace(0, len(pairs) - 1, min(len(pairs), FRAMES)).round().astype(int)
    pairs = [pairs[k] for k in shown]  # first and last among them
    histograms = [style.histogram(particles[j], x) for _, j in pairs]
    figure, panel = style.one_panel(6.0, 3.6)
    bars = style.bars(panel, *histograms[0], particles.shape[1])
    (line,) = panel.plot(
        x,
        style.heights(density.p[pairs[0][0]]),
        color=style.BLUE,
        lw=style.LINE,
        label="Fokker–Planck",
    )
    ceiling = 1.08 * max(
        *(float(height.max()) for height, _ in histograms),
        *(float(density.p[k].max()) for k, _ in pairs),
    )
    panel.set(xlim=(x[0], x[-1]), ylim=(0, ceiling))

    def draw(frame: int) -> None:
        k, _ = pairs[frame]
        bars.set_data(*histograms[frame])
        line.set_ydata(style.heights(density.p[k]))
        style.title(panel, f"t = {float(density.times[k]):.2f}" + style.lost(path))

    _labelled(panel)
    write_film(figure, panel, (bars, line), draw, len(pairs), file, fps)


def density_gif(density: DensityPath, file: str | Path, *, fps: int = 15) -> None:
    """Write a film of a density in time, with its start and its end behind it.

        frame k = p(·, times[k])

    Args:
        density: p(x, t) at two times or more, shape (T, nodes).
        file: Where the animated GIF goes; its folder must exist. It is written whole or not at
            all.
        fps: Frames in a second; there is one for each time, at most 90.

    Raises:
        ValueError: If there are fewer than two times.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     film = pathlib.Path(folder) / "film.gif"
        ...     sg.plots.density_gif(solver.solve(2.0, [0.0, 0.5, 1.0]), film)
        ...     with Image.open(film) as frames:
        ...         print(frames.n_frames)
        3
    """
    check_kind("file", file, (str, Path), "the path of a file")
    check_count("fps", fps)
    p, x = _rows(density), style.numbers(density.x)
    shown = np.linspace(0, len(p) - 1, min(len(p), FRAMES)).round().astype(int)
    figure, panel = style.one_panel(6.0, 3.6)
    for k, dashes, name in ((0, style.DOTTED, "start"), (-1, style.DASHED, "end")):
        t = float(density.times[k])
        panel.plot(
            x, p[k], color=style.GREY, lw=style.THIN, ls=dashes, label=f"{name}, t = {t:.3g}"
        )
    (line,) = panel.plot(x, p[0], color=style.BLUE, lw=style.LINE)
    panel.set(xlim=(x[0], x[-1]), ylim=(0, 1.08 * float(p[shown].max())))

    def draw(frame: int) -> None:
        line.set_ydata(p[shown[frame]])
        style.title(panel, f"t = {float(density.times[int(shown[frame])]):.2f}")

    _labelled(panel)
    write_film(figure, panel, (line,), draw, len(shown), file, fps)


def _labelled(panel: Axes) -> None:
    """Say what the axes of a film are."""
    panel.set(xlabel="position x", ylabel="density p(x, t)")
    style.legend_on_top(panel)


def _common_times(
    density: DensityPath, path: Trajectory, times: Sequence[float] | None
) -> list[tuple[int, int]]:
    """Return indices (of the density, of the path) of the times that both have."""
    a, b = style.numbers(density.times), style.numbers(path.times)
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


def _ceiling(peaks: Sequence[float]) -> float:
    """Return how high a scale of several times reaches, without a start at a point."""
    most = _ABOVE * float(np.median(peaks))
    return max(peak for peak in peaks if peak <= most)


def _heatmap(figure: Figure, panel: Axes, density: DensityPath) -> None:
    """Draw p(x, t) as colour."""
    rows = _rows(density)
    ceiling = _ceiling(rows.max(1).tolist())
    t, x = style.numbers(density.times), style.numbers(density.x)
    # half of the colours for the lowest quarter: tails are seen
    image = style.shaded(panel, t, x, rows, PowerNorm(0.5, vmin=0, vmax=ceiling))
    panel.set(xlabel="time t", ylabel="position x")
    extend = "max" if float(rows.max()) > ceiling else "neither"
    style.colorbar(figure, panel, image, "density p(x, t)", aspect=14, extend=extend)


def _rows(density: DensityPath) -> style.Array:
    """Return p at all times; raises if there are fewer than two, or it is no density in time."""
    check_kind("density", density, DensityPath, "a DensityPath, as FokkerPlanck.solve returns it")
    times = len(density.times)
    if times < 2:
        raise ValueError(
            f"a picture over time needs two times or more, but the density has {times}."
        )
    return style.heights(density.p)
