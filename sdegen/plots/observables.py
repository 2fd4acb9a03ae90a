"""Curves of what is measured along paths: correlations, displacements, spectra, survival.

As in `plots`, nothing is computed here and nothing is shown: a function takes results, one or
several by name, and returns a `Figure`. Error bars are one standard error; exact curves are what
the caller passes, at the same times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.checks import check_count, check_flag
from sdegen.core.requests import as_numbers, check_kind
from sdegen.observables.correlation import Correlation
from sdegen.observables.displacement import Displacements
from sdegen.observables.passages import Passages
from sdegen.observables.spectrum import Spectrum
from sdegen.plots import style

_R = TypeVar("_R")
_BARS = 40  # of a curve, at most: more are a band


def correlation(
    result: Correlation | Mapping[str, Correlation],
    *,
    coordinate: int = 0,
    exact: Tensor | None = None,
) -> Figure:
    """Draw correlations in time, C(τ), with their standard errors.

        C(τ) = ⟨δx(t + τ) δx(t)⟩

    Args:
        result: What `TimeCorrelation` found, or several by name.
        coordinate: Which number of the flattened event.
        exact: C at the lags of the first, shape (K,); or None.

    Returns:
        The figure.

    Example:
        >>> ou, start = sg.OrnsteinUhlenbeck(), sg.GaussianPrior([0.0]).sample(200, rng=0)
        >>> times, asked = torch.linspace(0, 2, 21), [sg.TimeCorrelation()]
        >>> run = sg.run_ensemble(ou, start, times, trajectories=200, observables=asked, rng=0)
        >>> axes = sg.plots.correlation(run.observables["correlation"]).axes[0]
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('lag τ, units of time', 'correlation C(τ), units of x²')
    """
    check_count("coordinate", coordinate, least=0)
    results = _by_name("result", result, Correlation, "what TimeCorrelation() found")
    figure, panel = style.one_panel(6.4, 3.8)
    for i, (name, each) in enumerate(results.items()):
        c, error = (_coordinate(v, coordinate) for v in (each.covariance, each.error))
        _curve(panel, i, name, style.numbers(each.lags), c, error)
    _exact(panel, next(iter(results.values())).lags, exact)
    panel.axhline(0, color=style.GREY, lw=style.THIN)
    panel.set(xlabel="lag τ, units of time", ylabel="correlation C(τ), units of x²")
    panel.margins(x=0.01)
    return _with_legend(figure, panel)


def displacement(
    result: Displacements | Mapping[str, Displacements], *, exact: Tensor | None = None
) -> Figure:
    """Draw mean-squared displacements on logarithmic axes, with their standard errors.

        MSD(τ) = ⟨|x(t + τ) − x(t)|²⟩

    Args:
        result: What `MeanSquaredDisplacement` or `mean_squared_displacement` found, or several by
            name.
        exact: MSD at the lags of the first, shape (K,); or None.

    Returns:
        The figure.

    Example:
        >>> brown, asked = sg.BrownianMotion(), [sg.MeanSquaredDisplacement()]
        >>> start, times = torch.zeros(400, 1), torch.linspace(0, 2, 21)
        >>> run = sg.run_ensemble(brown, start, times, trajectories=400, observables=asked, rng=0)
        >>> axes = sg.plots.displacement(run.observables["displacement"]).axes[0]
        >>> axes.get_xscale(), axes.get_ylabel()
        ('log', 'MSD(τ), units of x²')
    """
    results = _by_name("result", result, Displacements, "what MeanSquaredDisplacement() found")
    figure, panel = style.one_panel(6.4, 4.2)
    for i, (name, each) in enumerate(results.items()):
        lags, total, error = map(style.numbers, (each.lags, each.total, each.total_error))
        _curve(panel, i, name, lags, total, error, log=True)
    _exact(panel, next(iter(results.values())).lags, exact, log=True, across=True)
    panel.set(xlabel="lag τ, units of time", ylabel="MSD(τ), units of x²")
    return _log_log(figure, panel)


def power_spectrum(
    result: Spectrum | Mapping[str, Spectrum],
    *,
    coordinate: int = 0,
    exact: Tensor | None = None,
) -> Figure:
    """Draw power spectral densities on logarithmic axes, with their standard errors.

        S(f) = 2 ∫ C(τ) e^{−2πifτ} dτ,   f > 0

    Args:
        result: What `PowerSpectrum` or `power_spectrum` found, or several by name.
        coordinate: Which number of the flattened event.
        exact: S at the frequencies of the first, shape (F,); or None.

    Returns:
        The figure; f = 0 has no place on it.

    Example:
        >>> ou, start = sg.OrnsteinUhlenbeck(), sg.GaussianPrior([0.0]).sample(200, rng=0)
        >>> times, asked = torch.linspace(0, 3.2, 65), [sg.PowerSpectrum()]
        >>> run = sg.run_ensemble(ou, start, times, trajectories=200, observables=asked, rng=0)
        >>> axes = sg.plots.power_spectrum(run.observables["spectrum"]).axes[0]
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('frequency f, cycles/unit of time', 'density S(f), units of x² · time')
    """
    check_count("coordinate", coordinate, least=0)
    results = _by_name("result", result, Spectrum, "what PowerSpectrum() found")
    figure, panel = style.one_panel(6.4, 4.2)
    for i, (name, each) in enumerate(results.items()):
        s, error = (_coordinate(v, coordinate)[1:] for v in (each.density, each.error))
        _curve(panel, i, name, style.numbers(each.frequencies)[1:], s, error, log=True)
    _exact(panel, next(iter(results.values())).frequencies, exact, log=True, across=True)
    panel.set(xlabel="frequency f, cycles/unit of time", ylabel="density S(f), units of x² · time")
    return _log_log(figure, panel)


def radial_distribution(r: Tensor, g: Tensor, error: Tensor | None = None) -> Figure:
    """Draw a radial distribution function g(r), and the 1 of particles that do not interact.

        g(r) = ρ(r)/ρ,   1 without interaction

    Args:
        r: Distances, shape (shells,).
        g: g at them, likewise.
        error: Its standard error, likewise; or None.

    Returns:
        The figure.

    Example:
        >>> r = torch.tensor([0.5, 1.0, 1.5])
        >>> figure = sg.plots.radial_distribution(r, torch.tensor([0.0, 1.5, 1.0]))
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['no interaction', 'measured']
    """
    parts = {"r": as_numbers("r", r), "g": as_numbers("g", g)}
    if error is not None:
        parts["error"] = as_numbers("error", error)
    shape = tuple(parts["r"].shape)
    for name, values in parts.items():
        if len(shape) != 1 or tuple(values.shape) != shape:
            raise ValueError(
                f"{name} must have one number for each distance, shape (shells,), but has shape "
                f"{tuple(values.shape)} where r has {shape}."
            )
    at, height, bars = (style.numbers(parts.get(k, 0 * parts["r"])) for k in ("r", "g", "error"))
    figure, panel = style.one_panel(6.4, 3.8)
    panel.axhline(1, color=style.INK, lw=style.THIN, ls=style.DASHED, label="no interaction")
    panel.fill_between(at, height - bars, height + bars, color=style.BLUE, alpha=0.3, lw=0)
    name = "measured" if error is None else "measured, ± standard error"
    panel.plot(at, height, color=style.BLUE, lw=style.LINE, label=name)
    panel.set(xlabel="distance r, units of length", ylabel="g(r), over that of no interaction")
    panel.set_ylim(bottom=0)
    panel.margins(x=0.01)
    return _with_legend(figure, panel)


def survival(
    result: Passages | Mapping[str, Passages], *, exact: Tensor | None = None, log: bool = True
) -> Figure:
    """Draw the chance not to have passed yet, with its standard error.

        S(t) = P(τ > t)

    Args:
        result: What `FirstPassage` found, or several by name.
        exact: S at the times of the first, shape (T,); or None.
        log: Whether S has a logarithmic axis, on which a rate is a slope.

    Returns:
        The figure. On a logarithmic axis it ends where the last trajectory passed.

    Example:
        >>> wind = sg.ItoProcess(lambda x: 1 + 0 * x, 0.0)
        >>> asked = sg.FirstPassage(above=0.9, bridge=False)
        >>> start, times = torch.tensor([[0.0], [0.5]]), [0.0, 0.5, 1.0]
        >>> run = sg.run_ensemble(wind, start, times, trajectories=2, observables=[asked])
        >>> axes = sg.plots.survival(run.observables["first_passage"], log=False).axes[0]
        >>> axes.lines[0].get_ydata().tolist()
        [1.0, 0.5, 0.0]
    """
    check_flag("log", log)
    results = _by_name("result", result, Passages, "what FirstPassage() found")
    figure, panel = style.one_panel(6.4, 3.8)
    for i, (name, each) in enumerate(results.items()):
        t, s, error = map(style.numbers, (each.times, each.survival, each.survival_error))
        _curve(panel, i, name, t, s, error, log=log)
    _exact(panel, next(iter(results.values())).times, exact, log=log)
    panel.set(xlabel="time t", ylabel="survival S(t)")
    if log:
        least = 0.7 / max(each.count for each in results.values())
        panel.set(yscale="log", ylim=(max(least, panel.get_ylim()[0]), 1.3))
    else:
        panel.set_ylim(0, 1.05)
    panel.margins(x=0.01)
    return _with_legend(figure, panel, "y" if log else "")


def _by_name(name: str, result: object, kind: type[_R], what: str) -> dict[str, _R]:
    """Return results by their names; one alone has none."""
    if not isinstance(result, Mapping):
        check_kind(name, result, kind, f"a {kind.__name__}, {what}, or several by name")
        return {"": result}  # type: ignore[dict-item]
    if not result:
        raise ValueError(f"{name} must have a result, but is empty; pass {{'name': result}}.")
    for key, each in result.items():
        check_kind(f"{name}[{key!r}]", each, kind, f"a {kind.__name__}, {what}")
    return dict(result)


def _coordinate(values: Tensor, coordinate: int) -> style.Array:
    """Return a coordinate of values of shape (K, *event)."""
    flat = values.reshape(len(values), -1)
    if coordinate >= flat.shape[1]:
        raise ValueError(
            f"coordinate must be below {flat.shape[1]}, the numbers of a state, but is "
            f"{coordinate}."
        )
    return style.numbers(flat[:, coordinate])


def _curve(
    panel: Axes,
    i: int,
    name: str,
    x: style.Array,
    y: style.Array,
    error: style.Array,
    *,
    log: bool = False,
) -> None:
    """Draw a curve with error bars, or with a band where there are many points.

    On a logarithmic axis a bar ends at a thousandth of its point, where it would reach 0.
    """
    marker, colour = style.look(i)
    if log:
        seen = (y > 0) & np.isfinite(y)
        x, y, error = x[seen], y[seen], error[seen]
    error = np.where(np.isfinite(error), error, 0.0)
    below = np.minimum(error, 0.999 * y) if log else error
    label = name or "measured, ± standard error"
    if len(x) <= _BARS:
        panel.errorbar(
            x,
            y,
            np.stack([below, error]),
            fmt=marker,
            ms=3.6,
            lw=style.THIN,
            color=colour,
            label=label,
        )
        return
    panel.fill_between(x, y - below, y + error, color=colour, alpha=0.25, lw=0)
    panel.plot(x, y, color=colour, lw=style.LINE, label=label)


def _exact(
    panel: Axes, x: Tensor, exact: Tensor | None, *, log: bool = False, across: bool = False
) -> None:
    """Draw an exact curve over all others, where it is > 0 and, across, x too."""
    if exact is None:
        return
    values = as_numbers("exact", exact)
    if values.shape != x.shape:
        raise ValueError(
            f"exact must have one number for each point, shape {tuple(x.shape)}, but has shape "
            f"{tuple(values.shape)}."
        )
    at, y = style.numbers(x), style.numbers(values)
    seen = ((y > 0) | (not log)) & ((at > 0) | (not across))
    panel.plot(
        at[seen], y[seen], color=style.INK, lw=style.THIN, ls=style.DASHED, label="exact", zorder=4
    )


def _log_log(figure: Figure, panel: Axes) -> Figure:
    """Make both axes logarithmic, with readable numbers."""
    panel.set(xscale="log", yscale="log")
    return _with_legend(figure, panel, "xy")


def _with_legend(figure: Figure, panel: Axes, log: str = "") -> Figure:
    """Put a legend where it covers nothing, and readable numbers at logarithmic axes."""
    style.legend_on_top(panel)
    style.log_axes(panel, log)
    return figure
