"""Trajectories, samples, losses and curves as figures."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.requests import as_number, as_numbers, as_state, check_kind
from sdegen.core.shapes import State
from sdegen.core.trajectory import Trajectory
from sdegen.plots import style
from sdegen.plots.ticks import scientific
from sdegen.score.levels import LevelLosses
from sdegen.training.result import TrainResult

_Curves = Mapping[str, Sequence[tuple[float, ...]]]

_DOTS = 4_000  # of a scatter, at most


def paths(path: Trajectory, *, count: int = 40) -> Figure:
    """Draw trajectories: x against t on a line, the tracks themselves in the plane.

    Args:
        path: Trajectories, shape (T, n, 1) or (T, n, 2).
        count: How many to draw, the first ones.

    Returns:
        The figure.

    Raises:
        ValueError: If states have more than two coordinates.

    Example:
        >>> rise = sg.ItoProcess(lambda x: 1 + 0 * x, 0.0)
        >>> path = sg.simulate(rise, torch.zeros(3, 1), [0.0, 0.5, 1.0])
        >>> figure = sg.plots.paths(path, count=1)
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [0.0, 0.5, 1.0]
    """
    check_kind("path", path, Trajectory, "a Trajectory, as simulate returns it")
    check_count("count", count)
    states = style.numbers(path.finite)[:, :count]
    if states.shape[2:] not in {(1,), (2,)}:
        raise ValueError(
            "paths draws states with one or two coordinates, but these have shape "
            f"{states.shape[2:]}; pick two of them."
        )
    on_line, times = states.shape[2] == 1, style.numbers(path.times)
    figure, panel = style.one_panel(*((7.0, 3.4) if on_line else (5.0, 5.0)))
    # the first on top of the others, so that one life can be followed
    for i in reversed(range(states.shape[1])):
        colour, width, alpha = (
            (style.RED, style.LINE, 1.0) if i == 0 else (style.BLUE, style.HAIR, 0.4)
        )
        if on_line:
            panel.plot(times, states[:, i, 0], lw=width, alpha=alpha, color=colour)
        else:
            panel.plot(*states[:, i].T, lw=width, alpha=alpha, color=colour)
            panel.plot(*states[-1, i], "o", ms=3, color=colour)
    if on_line:
        panel.set(xlabel="time t", ylabel="position x")
        panel.margins(x=0)
    else:
        panel.set(xlabel="position x₁", ylabel="position x₂", aspect="equal")
    some = f"{states.shape[1]} of {len(path.nonfinite):,} trajectories, one of them in orange"
    style.title(panel, some + style.lost(path))
    return figure


def samples_2d(samples: Mapping[str, State], data: State) -> Figure:
    """Draw planar samples beside the data, one panel each, all with the limits of the data.

    Args:
        samples: Samples by the name of the sampler, shape (n, 2).
        data: The data, shape (m, 2).

    Returns:
        The figure.

    Example:
        >>> data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> figure = sg.plots.samples_2d({"DDIM": torch.zeros(3, 2)}, data)
        >>> [axes.get_title() for axes in figure.axes]
        ['data', 'DDIM']
    """
    check_kind("samples", samples, Mapping, "a mapping of names to samples")
    data = as_state("data", data)
    if data.ndim != 2:
        raise ValueError(f"data must have shape (n, 2), but have {tuple(data.shape)}.")
    panels = {"data": data, **samples}
    columns = 3 if len(panels) in (5, 6) else min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    letters = [chr(ord("A") + i) if i < len(panels) else "." for i in range(rows * columns)]
    mosaic = ";".join("".join(letters[i * columns : (i + 1) * columns]) for i in range(rows))
    # one row alone has no neighbour's margin for its title
    figure, axes = style.panels(mosaic, 2.5 * columns, 2.75 * rows + (0.35 if rows == 1 else 0.0))
    reach = 1.25 * float(data.abs().max())
    for i, (letter, (name, cloud)) in enumerate(zip(letters, panels.items(), strict=False)):
        dots = style.numbers(cloud)
        finite = np.isfinite(dots).all(1)
        lost = "" if finite.all() else f"\n{int((~finite).sum())} of {len(dots):,} lost"
        panel, colour = axes[letter], style.INK if i == 0 else style.BLUE
        panel.plot(
            *dots[finite][:_DOTS].T, ".", ms=1.6, alpha=0.5, color=colour, mew=0, rasterized=True
        )
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        style.title(panel, textwrap.fill(name, 28) + lost)
        first, last = i % columns == 0, i + columns >= len(panels)
        panel.tick_params(left=first, labelleft=first, bottom=last, labelbottom=last)
        panel.set(xlabel="x₁" if last else "", ylabel="x₂" if first else "")
    return figure


def pareto(curves: _Curves, *, floor: float | None = None, quantity: str) -> Figure:
    """Draw the cost of a sample against its error, one line for each route.

    Args:
        curves: By the name of the route, (evaluations, distance), or with a third number, the
            standard error of the distance, which is drawn as a bar.
        floor: Distance of exact samples, or None.
        quantity: What the distance is, for the axis.

    Returns:
        The figure, with both axes logarithmic.

    Example:
        >>> curves = {"DDIM": [(10, 0.2), (20, 0.1)]}
        >>> axes = sg.plots.pareto(curves, floor=0.02, quantity="energy distance").axes[0]
        >>> axes.get_xlabel(), [line.get_label() for line in axes.lines]
        ('score evaluations per sample (nfe)', ['DDIM', 'floor: exact samples'])
    """
    floor = None if floor is None else as_number("floor", floor)
    figure, panel = _log_log(curves)
    if floor is not None:
        panel.axhline(
            floor, color=style.INK, lw=style.THIN, ls=style.DASHED, label="floor: exact samples"
        )
        panel.set_ylim(bottom=min(panel.get_ylim()[0], 0.85 * floor))
    return _labelled(figure, panel, "score evaluations per sample (nfe)", quantity)


def convergence(
    curves: _Curves, *, slope: float, across: str = "number of steps N", quantity: str = "error"
) -> Figure:
    """Draw errors against the number of steps, and a line with the slope they should have.

        error ∝ N^slope

    Args:
        curves: By name, (steps, error), or with a third number, the standard error of the error,
            which is drawn as a bar.
        slope: Slope of the line of reference, −1 for first order in 1/N.
        across: What the horizontal axis is.
        quantity: What the error is.

    Returns:
        The figure, with both axes logarithmic.

    Example:
        >>> figure = sg.plots.convergence({"Euler": [(10, 0.1), (20, 0.05)]}, slope=-1.0)
        >>> line = figure.axes[0].lines[1]
        >>> line.get_label(), f"{line.get_ydata()[1] / line.get_ydata()[0]:.2f}"  # half at 2 N
        ('slope −1', '0.50')
    """
    slope = as_number("slope", slope)
    figure, panel = _log_log(curves)
    points = np.array([point[:2] for curve in curves.values() for point in curve], dtype=float)
    ends = np.array([points[:, 0].min(), points[:, 0].max()])
    # just below all curves: the line is there to be compared with, not to cross them
    height = 0.6 * float((points[:, 1] / points[:, 0] ** slope).min())
    text = f"slope {slope:g}".replace("-", "−")
    panel.plot(
        ends, height * ends**slope, color=style.GREY, lw=style.THIN, ls=style.DASHED, label=text
    )
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, 0.5 * height * float((ends**slope).min())), high)
    return _labelled(figure, panel, across, quantity)


def histogram(values: Tensor, *, quantity: str) -> Figure:
    """Draw how often a number occurs, and where its mean is, with their standard errors.

        mean = (1/n) Σ_i x_i ± s/√n

    Args:
        values: One number for each sample, shape (n,).
        quantity: What the number is, with its unit, for the axis.

    Returns:
        The figure, a density of area 1.

    Raises:
        ValueError: If values are not one number each, or not all finite.

    Example:
        >>> figure = sg.plots.histogram(torch.tensor([0.0, 1.0, 2.0, 3.0]), quantity="x")
        >>> figure.axes[0].get_title()  # s/√n = 1.29/2
        '4 samples, mean 1.5 ± 0.65'
    """
    values = as_numbers("values", values)
    if values.ndim != 1 or not bool(values.isfinite().all()):
        raise ValueError(
            f"a histogram needs finite values of shape (n,), but they have shape "
            f"{tuple(values.shape)} and {int((~values.isfinite()).sum())} of them are not finite."
        )
    numbers = style.numbers(values).astype(np.float64)
    bins = min(style.BINS, max(5, round(math.sqrt(len(numbers)))))
    height, edges = np.histogram(numbers, bins, density=True)
    figure, panel = style.one_panel(6.0, 3.4)
    mean = float(numbers.mean())
    panel.stairs(height, edges, fill=True, color=style.ORANGE, alpha=0.5)
    style.counting_errors(panel, height, edges, len(numbers))
    panel.axvline(mean, color=style.INK, lw=style.THIN, ls=style.DASHED)
    panel.set(xlabel=quantity, ylabel="density p, ± standard error")
    panel.set_ylim(bottom=0)
    told = f"{mean:.4g}".replace("-", "−")
    if len(numbers) > 1:
        told += f" ± {scientific(float(numbers.std(ddof=1)) / math.sqrt(len(numbers)))}"
    style.title(panel, f"{len(numbers):,} samples, mean {told}")
    return figure


def loss_curve(result: TrainResult) -> Figure:
    """Draw the loss of each step, its running mean, and the validation loss.

        losses[k] = (1/n) Σ_i ℓ_i of step k

    Args:
        result: What `train` or `fit` returned, losses of shape (steps,).

    Returns:
        The figure.

    Example:
        >>> losses, validation = torch.tensor([1.0, 0.5]).double(), torch.tensor([0.6]).double()
        >>> result = sg.TrainResult(losses, torch.tensor([2]), validation, 2, 0)
        >>> [line.get_label() for line in sg.plots.loss_curve(result).axes[0].lines]
        ['one step', 'validation', 'weights kept']
    """
    check_kind("result", result, TrainResult, "a TrainResult, as train returns it")
    losses = style.numbers(result.losses)
    window = max(1, len(losses) // 100)
    mean = np.convolve(losses, np.full(window, 1 / window), "valid")
    steps = np.arange(1, len(losses) + 1)
    figure, panel = style.one_panel(7.0, 3.6)
    panel.plot(steps, losses, color=style.GREY, lw=style.HAIR, alpha=0.6, label="one step")
    if window > 1:
        name = f"mean of {window} steps"
        panel.plot(steps[window - 1 :], mean, color=style.BLUE, lw=style.LINE, label=name)
    if len(result.validation_losses):
        curve = map(style.numbers, (result.validation_steps, result.validation_losses))
        panel.plot(*curve, "o-", color=style.RED, ms=3.5, lw=style.THIN, label="validation")
    panel.axvline(
        result.selected_step, color=style.INK, lw=style.THIN, ls=style.DASHED, label="weights kept"
    )
    panel.set(xlabel="training step", ylabel="loss, mean of a batch", yscale="log")
    # the first steps are far above all others, and would flatten them
    low, high = np.quantile(losses, [0.002, 0.99])
    panel.set_ylim(0.9 * low, 1.15 * max(high, mean.max() if len(mean) < 3 else mean[1:].max()))
    style.log_axes(panel, "y")
    panel.margins(x=0.01)
    style.legend_beside(figure)
    return figure


def loss_by_level(result: LevelLosses) -> Figure:
    """Draw the loss of denoising against the noise level, with two standard errors.

        ℓ(t) = E ‖ε̂(x_t, t) − ε‖²/d

    Args:
        result: What `sdegen.loss_by_level` returned, losses of shape (levels,).

    Returns:
        The figure.

    Example:
        >>> levels, errors = torch.tensor([0.1, 0.5, 0.9]), torch.full((3,), 0.01)
        >>> losses, log_snr = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([4.0, 0.0, -4.0])
        >>> found = sg.LevelLosses(levels, losses, errors, None, None, log_snr)
        >>> axes = sg.plots.loss_by_level(found).axes[0]
        >>> [round(float(x), 1) for x in axes.lines[0].get_xdata()]  # log SNR
        [4.0, 0.0, -4.0]
    """
    check_kind("result", result, LevelLosses, "LevelLosses, as loss_by_level returns them")
    snr = result.log_snr
    level = style.numbers(result.times if snr is None else snr)
    figure, panel = style.one_panel(7.0, 3.6)
    curves = [("data", result.losses, result.errors, style.BLUE)]
    if result.validation is not None and result.validation_errors is not None:
        curves.append(("validation", result.validation, result.validation_errors, style.RED))
    for name, losses, errors, color in curves:
        y, spread = style.numbers(losses), 2 * style.numbers(errors)
        panel.fill_between(level, y - spread, y + spread, color=color, alpha=0.2, lw=0)
        panel.plot(level, y, "o-", color=color, ms=3, lw=style.LINE, label=name)
    panel.set(
        xlabel="time t" if snr is None else "log SNR = log α²/σ²  (noise to the left)",
        ylabel="E ‖ε̂ − ε‖²/d, ± 2 standard errors",
    )
    panel.margins(x=0.01)
    style.legend_beside(figure)
    return figure


def _log_log(curves: _Curves) -> tuple[Figure, Axes]:
    """Draw one line with markers for each curve, with bars where errors are known."""
    check_kind("curves", curves, Mapping, "a mapping of names to (x, y)")
    figure, panel = style.one_panel(7.6, 4.0)
    heights = []
    for i, (name, curve) in enumerate(curves.items()):
        lengths = {len(point) for point in curve}
        if lengths not in ({2}, {3}):
            raise ValueError(
                f"curves[{name!r}] must be a list of (x, y), or of (x, y, standard error), but "
                f"has points of {sorted(lengths)} numbers; pass [(10, 0.3), (20, 0.1)]."
            )
        points = np.array(sorted(curve), dtype=float)
        marker, colour = style.look(i)
        look: dict[str, Any] = {"ms": 4.5, "lw": style.LINE, "color": colour, "label": name}
        x, y = points[:, 0], points[:, 1]
        heights.append(y[y > 0])
        if points.shape[1] == 2:
            panel.plot(x, y, marker, ls="-", **look)
        else:
            bars = np.stack([np.minimum(points[:, 2], 0.999 * y), points[:, 2]])
            panel.errorbar(x, y, bars, fmt=f"{marker}-", elinewidth=style.THIN, **look)
    panel.set(xscale="log", yscale="log")
    seen = np.concatenate(heights) if heights else np.ones(1)
    if len(seen):  # a bar that reaches 0 is cut off by the axis
        panel.set_ylim(bottom=max(panel.get_ylim()[0], 0.3 * float(seen.min())))
    return figure, panel


def _labelled(figure: Figure, panel: Axes, across: str, quantity: str) -> Figure:
    """Return what `_log_log` drew, with names and readable numbers at its axes, and a legend."""
    panel.set(xlabel=across, ylabel=quantity)
    style.log_axes(panel)
    style.legend_beside(figure)
    return figure
