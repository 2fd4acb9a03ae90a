"""Pictures of results that have a drawing of their own, mostly one of `sdegen.plots`.

What has more coordinates than paper is drawn as far as it goes: of states of many coordinates the
mean and spread of the first, or a few pairs of them; of images a sheet.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.trajectory import Trajectory
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.engine.samples import Samples
from sdegen.engine.which_solver import SolverTable
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.questions.passage import PassageTimes
from sdegen.fokker_planck.questions.spectrum import Spectrum
from sdegen.observables.correlation import Correlation
from sdegen.observables.displacement import Displacements
from sdegen.observables.histogram import HistogramCounts
from sdegen.observables.passages import Passages
from sdegen.observables.spectrum import Spectrum as PowerSpectrum
from sdegen.plots import style
from sdegen.plots.density import density_heatmap
from sdegen.plots.fields import phase_space
from sdegen.plots.fokker_planck import first_passage, plane
from sdegen.plots.images import denoising_strip, image_sheet
from sdegen.plots.innovations import innovations
from sdegen.plots.observables import correlation, displacement, power_spectrum, survival
from sdegen.plots.results.drawing import LINES, curve, of_labels, picture
from sdegen.plots.results.labelled import labels
from sdegen.plots.samples import loss_by_level, loss_curve, paths
from sdegen.plots.scores import score_residuals
from sdegen.plots.verification import certificate, error_budget
from sdegen.score.levels import LevelLosses
from sdegen.score.model import ScoreModel
from sdegen.training.result import TrainResult
from sdegen.verification.budget import ErrorBudgets
from sdegen.verification.certificate import Certificate
from sdegen.verification.check import Check, Checked
from sdegen.verification.score_residuals import ScoreResiduals

_TRACKS = 16  # of a page that is small
_DOTS = 2_000  # of a scatter, at most
_PAIRED = 3  # coordinates of states of many
_ARROWS = 15  # of a score along each axis
_SIZE = (5.2, 3.1)

# kinds whose picture is a function of `plots`
for _kind, _drawing in (
    (Correlation, correlation),
    (Displacements, displacement),
    (PowerSpectrum, power_spectrum),
    (Passages, survival),
    (PlaneDensity, plane),
    (TrainResult, loss_curve),
    (LevelLosses, loss_by_level),
    (ScoreResiduals, score_residuals),
    (ErrorBudgets, error_budget),
):
    picture.register(_kind, _drawing)


@picture.register
def _(path: Trajectory) -> Figure:
    """Draw tracks of one or two coordinates, images, or moments in time and pairs at the end."""
    steps, _, *event = path.states.shape
    if path.finite.shape[1] == 0:
        raise ValueError("all trajectories of this run were lost; there is nothing to draw.")
    if path.phase_space:
        return phase_space(path) if event == [2, 1] else _moments(path)
    if _is_image(event):
        return denoising_strip(path) if steps > 1 else _sheet(path.final)
    if steps == 1:
        return _cloud(path.final[~path.nonfinite], "state")
    return paths(path, count=_TRACKS) if event in ([1], [2]) else _moments(path)


def _is_image(event: list[int]) -> bool:
    return len(event) == 3 and event[0] == 1 and min(event[1:]) > 1


def _sheet(images: Tensor) -> Figure:
    some = images[:32]
    return image_sheet({f"{len(some)} of {len(images):,}": some}, rows=4, columns=8)


def _moments(path: Trajectory) -> Figure:
    """Draw mean and standard deviation of the first coordinates in time."""
    states = path.finite.double().flatten(2)
    if len(states) == 1:
        return _cloud(states[0], "state")
    d = states.shape[2]
    mean, spread = states.mean(1), states.std(1, correction=0)
    figure, axes = style.panels("MS", 8.4, 3.0, gap=0.03)
    for letter, values in (("M", mean), ("S", spread)):
        for k in range(min(d, LINES)):
            t, y = style.numbers(path.times), style.numbers(values[:, k])
            axes[letter].plot(t, y, color=style.look(k)[1], lw=style.LINE, label=f"x [{k}]")
        axes[letter].set_xlabel("time t, units of time")
        axes[letter].margins(x=0)
    axes["M"].set_ylabel("mean, units of x")
    axes["S"].set_ylabel("standard deviation, units of x")
    style.legend_on_top(axes["M"])
    style.title(axes["M"], f"{min(d, LINES)} of {d} coordinates" + style.lost(path))
    return figure


def _cloud(states: Tensor, name: str) -> Figure:
    """Draw states as a histogram, or pairs of their first coordinates as dots."""
    flat = style.numbers(states.flatten(1)).astype(float)
    flat = flat[np.isfinite(flat).all(1)]
    d = flat.shape[1]
    if d == 1:
        figure, panel = style.one_panel(*_SIZE)
        height, edges = np.histogram(flat[:, 0], min(style.BINS, max(5, round(len(flat) ** 0.5))),
                                     density=True)  # fmt: skip
        style.bars(panel, height, edges, len(flat))
        style.counting_errors(panel, height, edges, len(flat))
        panel.set(xlabel=f"{name} x, units of x", ylabel="density p(x)")
        style.title(panel, f"{len(flat):,} {name}s")
        return figure
    pairs = [(i, j) for i in range(min(d, _PAIRED)) for j in range(i + 1, min(d, _PAIRED))]
    letters = "ABC"[: len(pairs)]
    figure, axes = style.panels(letters, 3.0 * len(pairs), 3.1, gap=0.03)
    for letter, (i, j) in zip(letters, pairs, strict=True):
        dots = flat[:_DOTS]
        panel = axes[letter]
        panel.plot(dots[:, i], dots[:, j], "o", ms=2, alpha=0.6, mew=0, color=style.BLUE)
        panel.set(xlabel=f"x [{i}]", ylabel=f"x [{j}]")
    shown = f"{len(flat):,} {name}s" if d <= _PAIRED else f"3 of {d} coordinates"
    style.title(axes["A"], shown)
    return figure


@picture.register
def _(result: Samples) -> Figure:
    """Draw samples as a histogram, dots or images."""
    event = list(result.x.shape[1:])
    return _sheet(result.x) if _is_image(event) else _cloud(result.x, "sample")


@picture.register
def _(density: Density) -> Figure:
    """Draw p(x)."""
    figure, panel = style.one_panel(*_SIZE)
    x, p = style.numbers(density.x), style.heights(density.p)
    panel.plot(x, p, color=style.BLUE, lw=style.LINE)
    panel.fill_between(x, p, color=style.BLUE, alpha=0.15, lw=0)
    panel.set(xlim=(x[0], x[-1]), xlabel="position x, units of x")
    panel.set(ylabel="density p(x), 1/units of x")
    panel.set_ylim(bottom=0)
    return figure


@picture.register
def _(path: DensityPath) -> Figure:
    """Draw p(x, t) as colour; of one time alone as a curve."""
    return density_heatmap(path) if len(path) > 1 else picture(path.at(0))


@picture.register
def _(result: Spectrum) -> Figure:
    """Draw rates as heights, with the eigenfunctions on them."""
    figure, panel = style.one_panel(*_SIZE)
    x, rates = style.numbers(result.x), style.numbers(result.rates)
    for n, mode in enumerate(style.numbers(result.densities)):
        colour, swing = style.look(n)[1], 0.42 / float(np.abs(mode).max())
        panel.axhline(n, color=style.GREY, lw=style.HAIR)
        panel.plot(x, n + swing * mode, color=colour, lw=style.LINE)
    panel.set_yticks(range(len(rates)), [f"{rate:.4g}" for rate in rates])
    panel.set(xlabel="position x, units of x", xlim=(x[0], x[-1]))
    panel.set(ylabel="rate λₙ, 1/units of time, with ψₙ(x)")
    panel.grid(visible=False, axis="y")
    return figure


@picture.register
def _(result: PassageTimes) -> Figure:
    """Draw the mean time from each start, with its spread where two moments were asked for."""
    several = len(result.x) > 1
    if several and "std" in labels(result).variables:
        return first_passage(result)
    return of_labels(labels(result))


@picture.register
def _(result: HistogramCounts) -> Figure:
    """Draw the density of the last times, three at most."""
    figure, panel = style.one_panel(*_SIZE)
    middle = style.numbers((result.edges[1:] + result.edges[:-1]) / 2)
    chosen = sorted({0, (len(result.times) - 1) // 2, len(result.times) - 1})
    for i, k in enumerate(chosen):
        t, p, e = float(result.times[k]), result.density[k], result.density_error[k]
        curve(panel, i, middle, style.numbers(p), style.numbers(e), f"t = {t:.3g}")
    top = float(result.density[-1].max())
    if top > 0:  # a start at a point would flatten all others
        panel.set_ylim(0, min(panel.get_ylim()[1], 3 * top))
    panel.set(xlabel="position x, units of x", ylabel="density p(x), 1/units of x")
    style.legend_on_top(panel)
    return figure


@picture.register
def _(table: SolverTable) -> Figure:
    """Draw the weak order of each solver over its cost in a step."""
    held = labels(table)
    order, cost = (
        style.numbers(_tensor(held.variables[name].values))
        for name in ("weak_order", "evaluations")
    )
    places: dict[tuple[float, float], list[str]] = {}
    for row, at in zip(table.rows, zip(cost, order, strict=True), strict=True):
        if all(map(np.isfinite, at)):
            places.setdefault((at[0], at[1]), []).append(row.solver.split("(")[0])
    if not places:
        raise ValueError("no solver of this table declares order and cost; print it.")
    costs = sorted({at[0] for at in places})  # one after the other: names need room
    figure, panel = style.one_panel(1.0 + 1.9 * len(costs), 3.6)
    for (price, height), names in places.items():
        panel.plot(costs.index(price), height, "o", ms=5, color=style.BLUE)
        panel.annotate(
            "\n".join(dict.fromkeys(names)), (costs.index(price), height), xytext=(6, 3),
            textcoords="offset points", fontsize=style.TICK, va="top",
        )  # fmt: skip
    panel.set_xticks(range(len(costs)), [f"{at:g}" for at in costs])
    panel.set(xlim=(-0.3, len(costs) - 0.1), ylim=(0.4, max(order[np.isfinite(order)]) + 0.3))
    panel.set(xlabel="drift evaluations in a step", ylabel="weak order, additive noise")
    return figure


def _tensor(values: object) -> Tensor:
    assert isinstance(values, Tensor)
    return values


@picture.register
def _(result: Certificate) -> Figure:
    """Draw the laws and the trajectories, or the noise of the steps; else the checks alone."""
    if result.steps is not None and result.steps.sample.z.shape[2] > 0:
        return innovations(result)
    if result.law is not None and result.path is not None:
        return certificate(result)
    return _checks(result.checks)


@picture.register
def _(result: Checked) -> Figure:
    """Draw each check's value over its threshold."""
    return _checks(result.checks)


def _checks(checks: tuple[Check, ...]) -> Figure:
    """Draw p-values of checks beside the chance of a false alarm, or values over thresholds."""
    judged = [c for c in checks if c.verdict != "not judged"]
    if not judged:
        raise ValueError("no check of this result was judged; print it to read why.")
    figure, panel = style.one_panel(6.4, max(1.6, 0.3 * len(judged) + 0.9))
    for row, check in enumerate(judged[::-1]):
        colour = style.GREEN if check.verdict == "passed" else style.RED
        if check.threshold > 0:
            ratio = min(max(check.value / check.threshold, 1e-4), 1e4)
        elif check.p_value is not None and check.false_alarm > 0:
            ratio = min(max(check.false_alarm / max(check.p_value, 1e-300), 1e-4), 1e4)
        else:
            ratio = 1e-4 if check.verdict == "passed" else 1e4
        panel.barh(row, ratio - 1e-4, left=1e-4, height=0.6, color=colour)
    panel.axvline(1.0, color=style.INK, lw=style.THIN, ls=style.DASHED)
    names = [c.name if c.time is None else f"{c.name}, t = {c.time:.3g}" for c in judged]
    panel.set_yticks(range(len(judged)), names[::-1], fontsize=style.TICK)
    panel.set(xscale="log", xlim=(1e-4, 1e4))
    style.log_axes(panel, "x")
    panel.set_ylabel("check")
    panel.set_xlabel("value over its threshold, or false-alarm rate over p-value")
    panel.grid(visible=False, axis="y")
    failed = sum(c.verdict == "failed" for c in judged)
    style.title(panel, f"{failed} of {len(judged)} checks failed")
    return figure


@picture.register
def _(model: ScoreModel) -> Figure:
    """Draw the score at three times, of one or two coordinates; of others α and σ of its path."""
    if model.times is None:
        raise ValueError("the times of this model are not known before training; train it first.")
    told = model.labels is None and not getattr(model.network, "condition_shape", None)
    if told and model.score.event_shape in ((1,), (2,)):
        return _of_line(model) if model.event_shape == (1,) else _of_plane(model)
    if not isinstance(model.sde, GaussianPath):
        kind = type(model.sde).__name__
        raise ValueError(  # noqa: TRY004, it is the shape that has no picture
            f"a score of {kind} for samples of shape {model.event_shape} has no picture; read "
            "numbers, model.score(x, t)."
        )
    t = torch.linspace(*model.times, 200, dtype=torch.float64)
    figure, panel = style.one_panel(*_SIZE)
    for i, (name, of) in enumerate((("α", model.sde.alpha), ("σ", model.sde.sigma))):
        panel.plot(
            t, style.numbers(of(t)), color=style.look(i)[1], lw=style.LINE, label=f"{name}(t)"
        )
    panel.set(xlabel="time t", ylabel="x_t = α x₀ + σ ε")
    style.legend_on_top(panel)
    return figure


def _shown_times(model: ScoreModel) -> tuple[float, float, float]:
    """Return three times of a model: late, between, and early, where data are nearly clean."""
    assert model.times is not None
    low, high = model.times
    return high, low + 0.4 * (high - low), low + 0.1 * (high - low)


def _reach(model: ScoreModel, t: float) -> float:
    """Return how far noised data of unit variance reach."""
    if not isinstance(model.sde, GaussianPath):
        return 3.0
    at = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = model.path.alpha(at), model.path.sigma(at)
    return 2.5 * float((alpha**2 + sigma**2).sqrt())


@torch.no_grad()
def _of_line(model: ScoreModel) -> Figure:
    figure, panel = style.one_panel(*_SIZE)
    for i, t in enumerate(_shown_times(model)):
        reach = _reach(model, t)
        x = torch.linspace(-reach, reach, 201)[:, None]
        s = _asked(model, x, t)
        panel.plot(x[:, 0], s[:, 0], color=style.look(i)[1], lw=style.LINE, label=f"t = {t:.3g}")
    panel.set(xlabel="x_t, units of x", ylabel="score, 1/units of x")
    style.legend_on_top(panel)
    return figure


@torch.no_grad()
def _of_plane(model: ScoreModel) -> Figure:
    figure, axes = style.panels("ABC", 8.4, 3.1, gap=0.03)
    for letter, t in zip("ABC", _shown_times(model), strict=True):
        reach = _reach(model, t)
        line = torch.linspace(-reach, reach, _ARROWS)
        x = torch.cartesian_prod(line, line)
        s = _asked(model, x, t)
        size = np.hypot(*s.T)
        panel = axes[letter]
        arrows = panel.quiver(
            *style.numbers(x).T, *(s / np.maximum(size, 1e-12)[:, None]).T, size, width=0.007,
            cmap=style.DENSITY, norm=Normalize(0.0), pivot="mid", angles="xy", scale_units="xy",
            scale=1 / (0.8 * float(line[1] - line[0])),
        )  # fmt: skip

        panel.set(xlabel="x₁, units of x", ylabel="x₂" if letter == "A" else "", aspect="equal")
        style.title(panel, f"t = {t:.3g}")
        bar = figure.colorbar(arrows, ax=panel, location="bottom", aspect=20)
        bar.set_label("size of the score", size=style.LABEL)
        bar.ax.tick_params(labelsize=style.TICK)
    return figure


def _asked(model: ScoreModel, x: Tensor, t: float) -> style.Array:
    """Return the score at states, in evaluation mode, and leave the model as it is."""
    parameter = next(model.network.parameters(), None)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        at = x if parameter is None else x.to(parameter.device)
        return style.numbers(model.score(at, torch.tensor(t, dtype=torch.float64)))
    finally:
        for module, mode in modes:
            module.training = mode
