"""Pictures of what held-out data say of a score, in the look of `plots`."""

import textwrap

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.requests import check_kind
from sdegen.plots import style
from sdegen.verification.score_residuals import ScoreResiduals

_LEAST = 1e-5  # what is drawn of a size on a logarithmic axis


def score_residuals(result: ScoreResiduals) -> Figure:
    """Draw the error of a score, its factor, its curl and its equation by noise level.

        error = |s − s*|/|s*|,   s ≈ factor · s*

    Args:
        result: What `sdegen.score_residuals` returned, errors of shape (levels,).

    Returns:
        The figure: the error of the score over its size on the left, with two standard errors, and
        an arrow down from what it is below by them where it is not told from 0; the factor in the
        middle; curl and what is left of the score Fokker–Planck equation on the right; below them
        what is wrong.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> law = sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=0.5).noised(path)
        >>> data = law.mixture.sample(200, rng=0)
        >>> found = sg.score_residuals(path, law.score, data, times=[0.5, 0.9], rng=0)
        >>> figure = sg.plots.score_residuals(found)
        >>> [axes.get_ylabel() for axes in figure.axes][0]
        '|s − s*|/|s*|, ± 2 standard errors'
    """
    check_kind("result", result, ScoreResiduals, "ScoreResiduals, as score_residuals returns them")
    snr = result.log_snr
    level = style.numbers(result.times if snr is None else snr)
    label = "time t" if snr is None else "log SNR = log α²/σ²  (noise to the left)"
    figure, axes = style.panels("EFS", 11.4, 3.7, gap=0.04)
    limits = {check.name: check.threshold for check in result.checks}
    _sizes(axes["E"], level, [("|s − s*|/|s*|", result.error, result.error_bars)])
    factor, bars = style.numbers(result.factor), 2 * style.numbers(result.factor_bars)
    axes["F"].errorbar(
        level, factor, bars, fmt="o", ms=4, lw=style.THIN, color=style.BLUE, capsize=2
    )
    axes["F"].axhline(1.0, color=style.INK, lw=style.THIN, ls=style.DASHED)
    slopes = [
        ("curl", result.curl, result.curl_bars),
        ("Fokker–Planck equation", result.equation, result.equation_bars),
    ]
    _sizes(axes["S"], level, slopes)
    for panel, name in (("E", "score, factor"), ("S", "score, curl")):
        if name in limits:
            axes[panel].axhline(limits[name], color=style.INK, lw=style.THIN, ls=style.DASHED)
    for panel, quantity, title in (
        ("E", "|s − s*|/|s*|", "error of the score over its size, and the limit"),
        ("F", "factor c", "factor c of s ≈ c s*"),
        ("S", "over the size of the slopes", "slopes: what is 0 of an exact score"),
    ):
        axes[panel].set(xlabel=label, ylabel=f"{quantity}, ± 2 standard errors")
        style.title(axes[panel], title)
    style.log_axes(axes["E"], "y")
    style.legend_on_top(axes["S"], 1)
    style.log_axes(axes["S"], "y")
    figure.supxlabel(textwrap.fill(result.summary, 130), fontsize=style.NOTE)
    return figure


def _sizes(panel: Axes, level: style.Array, curves: list[tuple[str, Tensor, Tensor]]) -> None:
    """Draw sizes with their errors on a logarithmic axis; what is below its error as a bound."""
    for i, (name, sizes, errors) in enumerate(curves):
        marker, colour = style.look(i)
        told = torch.nan_to_num(sizes) > torch.nan_to_num(2 * errors)
        value, spread = style.numbers(sizes), 2 * style.numbers(errors)
        seen = style.numbers(told) & (value > _LEAST)
        low = np.maximum(value - spread, _LEAST)
        if seen.any():
            bars = (value[seen] - low[seen], spread[seen])
            panel.errorbar(
                level[seen], value[seen], bars, fmt=marker, ms=4, color=colour, label=name
            )
        below = ~seen & np.isfinite(value)
        bound = np.maximum(value + spread, _LEAST)
        if not below.any():
            continue
        panel.plot(
            level[below],
            bound[below],
            "v",
            ms=5,
            mfc="none",
            color=colour,
            label=None if seen.any() else f"{name}, below",
        )
    panel.set(yscale="log")
