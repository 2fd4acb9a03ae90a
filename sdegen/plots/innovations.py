"""Pictures of the noise that stored states must have had under the law that is believed.

As in `plots`, nothing is shown: a function takes results and returns a `Figure`. Error bars are
standard errors, shaded bands three of them.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from sdegen.core.requests import check_kind
from sdegen.plots import style
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.certificate import Certificate
from sdegen.verification.path_certificate import PathVerdict
from sdegen.verification.reporting import noise_statistics
from sdegen.verification.reporting.error_curves import ErrorCurve

_MOST = 4  # pairs of a noise and a coordinate
_WIDTH = 12.4
_ROW = 2.5  # inches
_COMPARABLE = 6.0  # a drift that is so much larger than its error is not drawn
_STEADY = 0.25  # standard error of the drift's factor, at most, where it is drawn along the run
_STRONG = 5.0  # standard errors at which a correlation has its full colour
_BAND = 3.0  # standard errors
_WORDS = 150  # letters of a line below the figure
_SIGNED = LinearSegmentedColormap.from_list("signed", [style.BLUE, "#FFFFFF", style.RED])
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def innovations(result: Certificate) -> Figure:
    """Draw what the noise of stored steps says: errors of drift and noise, its law, its memory.

        Z_k = (x_{k+1} − x_k − f dt)/(g √dt) ~ N(0, I)

    The first rows are of the coordinates (at most four) with the largest deviations: by how much
    the drift exceeds the believed one, and the variance of the noise over the believed one, both
    as functions of a coordinate. Below them are the density of all innovations beside that of a
    standard normal, their autocorrelation, the strength of noise and drift along the run, and the
    correlations between coordinates, or trajectories.

    Args:
        result: What `certify(sde, path=…)` returned of states (T, batch, *event).

    Raises:
        ValueError: If it is one on a grid, or its steps have no noise.

    Example:
        >>> ou, euler = sg.OrnsteinUhlenbeck(), sg.EulerMaruyama()
        >>> x0, times = torch.zeros(12, 1).double(), torch.linspace(0, 1, 51)
        >>> path = sg.simulate(ou, x0, times, solver=euler, rng=0)
        >>> figure = sg.plots.innovations(sg.certify(ou, path=path, solver=euler))
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('x', 'error of f')
    """
    check_kind("result", result, Certificate, "a Certificate")
    verdict = result.steps
    if verdict is None:
        raise ValueError(
            "there are no innovations in a certificate on a grid; draw it by plots.certificate."
        )
    if verdict.sample.z.shape[2] == 0:
        raise ValueError(
            "there is no noise in these steps to draw; print the certificate, its checks are "
            "numbers."
        )
    pairs = verdict.curves.most_deviating(_MOST)
    memory = noise_statistics.memory(verdict.sample)
    crossed = noise_statistics.correlations(verdict.sample, of=_most_telling(result))
    last = "HARC" if memory and crossed else "HRC" if crossed else "HAR" if memory else "HR"
    figure, axes = _panels(pairs, last)
    for n, (j, k) in enumerate(pairs):
        _drift(axes[f"d{n}"], verdict, j, k)
        _noise(axes[f"n{n}"], verdict, j, k)
    _density(axes["H"], verdict)
    if memory:
        _memory(axes["A"], memory)
    _along(axes["R"], verdict)
    if crossed:
        _correlations(figure, axes["C"], crossed)
    figure.supxlabel(textwrap.fill(result.summary, _WORDS), fontsize=style.NOTE)
    return figure


def _panels(pairs: Sequence[object], last: str) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure of 12 columns: panels of pairs, d0 … and n0 …, above the others."""
    drifts, noises = ([f"{letter}{n}" for n in range(len(pairs))] for letter in "dn")
    rows = [drifts + noises] if 1 <= len(pairs) <= 2 else [row for row in (drifts, noises) if row]
    grid = [[name for name in row for _ in range(12 // len(row))] for row in [*rows, list(last)]]
    return style.panels(grid, _WIDTH, _ROW * len(grid) + 0.5, gap=0.04)


def _most_telling(result: Certificate) -> str | None:
    """Return whose correlations are drawn: of trajectories, if it is these that depend."""
    failed = {check.name for check in result.failed}
    alone = "correlation between coordinates" not in failed
    return "trajectories" if "independence of trajectories" in failed and alone else None


def _name(states: StoredStates, k: int, *, phase_space: bool) -> str:
    """Return the name of a coordinate: that of its column, or x with its index."""
    event = states.event
    if len(states.columns) == math.prod(event):
        return states.columns[k]
    letter = "x"
    if phase_space:
        half = math.prod(event[1:])
        letter, k, event = "xv"[k // half], k % half, event[1:]
    if math.prod(event) == 1:
        return letter
    if len(event) == 1:
        return letter + str(k).translate(_SUBSCRIPTS)
    return f"{letter}[{', '.join(str(int(i)) for i in np.unravel_index(k, event))}]"


def _drift(panel: Axes, verdict: PathVerdict, j: int, k: int) -> None:
    """Draw the error of the drift along a coordinate."""
    curves = verdict.curves
    has_units = curves.has_units
    curve = (curves.drift if has_units else curves.mean)(j, k)
    _curve(panel, curve, 0.0)
    if has_units:
        believed = curves.believed(j, k)
        largest = float((curve.error.abs() + curve.standard_error).max())
        if float(believed.error.abs().max()) < _COMPARABLE * largest:
            line: dict[str, Any] = {
                "color": style.ORANGE,
                "lw": style.LINE,
                "label": "believed drift",
            }
            panel.plot(style.numbers(believed.x), style.numbers(believed.error), **line)
            style.legend_on_top(panel)
    along, of = (
        _name(verdict.states, n, phase_space=curves.phase_space) for n in (k, _of(verdict, j))
    )
    panel.set(xlabel=along, ylabel="error of f" if has_units else "mean of z, in σ of a step")
    style.title(
        panel, f"drift of {of}: simulated − believed" if has_units else f"drift, noise {j}"
    )


def _of(verdict: PathVerdict, j: int) -> int:
    """Return the coordinate that a noise moves: in a phase space a velocity."""
    curves = verdict.curves
    half = curves.coordinates // 2 if curves.phase_space else 0
    return min(curves.own[j] + half, curves.coordinates - 1)


def _noise(panel: Axes, verdict: PathVerdict, j: int, k: int) -> None:
    """Draw the variance of the noise over the one that is believed, along a coordinate."""
    curves = verdict.curves
    curve = curves.noise(j, k)
    _curve(panel, curve._replace(error=1 + curve.error), 1.0)
    along, of = (
        _name(verdict.states, n, phase_space=curves.phase_space) for n in (k, _of(verdict, j))
    )
    panel.set(xlabel=along, ylabel="variance of z")
    named = f"of {of}: simulated/believed" if curves.has_units else f"{j}: simulated/believed"
    style.title(panel, f"noise {named}")


def _curve(panel: Axes, curve: ErrorCurve, believed: float) -> None:
    """Draw points with error bars, beside the value that is believed."""
    x, y, error = map(style.numbers, curve)
    panel.axhline(believed, color=style.INK, lw=style.THIN, ls=style.DASHED)
    panel.fill_between(
        x, believed - _BAND * error, believed + _BAND * error, color="#EDEDED", lw=0
    )
    panel.errorbar(x, y, error, fmt="o", ms=3.2, lw=0, elinewidth=style.THIN, color=style.BLUE)


def _density(panel: Axes, verdict: PathVerdict) -> None:
    """Draw the density of all innovations, with its tails."""
    found = noise_statistics.histogram(verdict.sample)
    edges, density, error = map(style.numbers, found[:3])
    middle = 0.5 * (edges[1:] + edges[:-1])
    seen = density > 0
    bars: dict[str, Any] = {
        "fmt": "o",
        "ms": 2.6,
        "lw": 0,
        "elinewidth": style.THIN,
        "color": style.BLUE,
    }
    low = np.minimum(error, 0.999 * density)
    panel.errorbar(middle[seen], density[seen], [low[seen], error[seen]], **bars)
    z = np.linspace(edges[0], edges[-1], 400)
    normal = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    panel.plot(z, normal, color=style.INK, lw=style.THIN, ls=style.DASHED, label="N(0, 1)")
    least = 0.3 * float(density[seen].min())
    panel.set(yscale="log", ylim=(least, 2.0), xlim=(edges[0], edges[-1]))
    panel.set(xlabel="z, in σ of a step", ylabel="density of z")
    beyond = f", {found.beyond:,} beyond" if found.beyond else ""
    style.title(panel, f"{verdict.sample.z.numel():,} innovations{beyond}")
    style.legend_on_top(panel)
    style.log_axes(panel, "y")


def _memory(panel: Axes, found: noise_statistics.Memory) -> None:
    """Draw correlations of z and of |z| with those of earlier steps."""
    lags, noise, size, error = map(style.numbers, found)
    panel.fill_between(lags, -_BAND * error, _BAND * error, color="#EDEDED", lw=0)
    panel.axhline(0.0, color=style.INK, lw=style.THIN, ls=style.DASHED)
    for i, (values, label) in enumerate(((noise, "z"), (size, "|z|"))):
        marker, colour = style.look(i)
        panel.plot(lags, values, marker, ms=3.2, color=colour, label=label)
    reach = 1.05 * max(float(np.abs(noise).max()), float(np.abs(size).max()), 4 * float(error[0]))
    panel.set(xlabel="steps apart", ylabel="correlation", ylim=(-reach, reach))
    style.title(panel, "memory")
    style.legend_on_top(panel)


def _along(panel: Axes, verdict: PathVerdict) -> None:
    """Draw the strengths of noise and drift along the run."""
    found = noise_statistics.along_run(verdict.sample)
    steps, variance, error, drift, drift_error = map(style.numbers, found)
    times = style.numbers(verdict.states.times)
    t = np.interp(steps, np.arange(len(times)), times)
    panel.axhline(1.0, color=style.INK, lw=style.THIN, ls=style.DASHED)
    bars: dict[str, Any] = {"lw": 0, "elinewidth": style.THIN, "ms": 3.0}
    panel.errorbar(t, variance, error, fmt="o", color=style.BLUE, label="variance of z", **bars)
    steady = drift_error < _STEADY
    if steady.sum() > len(steady) // 2:
        values = drift[steady], drift_error[steady]
        label = "drift, by a factor"
        panel.errorbar(t[steady], *values, fmt="s", color=style.RED, label=label, **bars)
        style.legend_on_top(panel)
    panel.set(xlabel="time t", ylabel="simulated/believed")
    style.title(panel, "along the run")


def _correlations(figure: Figure, panel: Axes, found: noise_statistics.Correlations) -> None:
    """Draw correlations in standard errors as colours."""
    values = style.numbers(found.values)
    n, numbers = len(values), found.numbers.tolist()
    strongest = max(_STRONG, float(np.nanmax(np.abs(values))))
    edges = np.arange(n + 1) - 0.5
    panel.grid(visible=False)
    image = panel.pcolormesh(edges, edges, values, cmap=_SIGNED, vmin=-strongest, vmax=strongest)
    shown = np.unique(np.linspace(0, n - 1, min(n, 5)).round().astype(int))
    panel.set_xticks(shown, [str(numbers[i]) for i in shown])
    panel.set_yticks(shown, [str(numbers[i]) for i in shown])
    panel.set_box_aspect(1)
    one = found.of.removesuffix("s").replace("trajectorie", "trajectory")
    panel.set(xlabel=one, ylabel=one)
    panel.invert_yaxis()
    style.colorbar(figure, panel, image, "standard errors", aspect=18, extend="neither")
    style.title(panel, f"correlations of {found.of}")
