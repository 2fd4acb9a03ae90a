"""Pictures of what a simulation or a sampler is worth, in the look of `plots`.

As there, nothing is computed here and nothing is shown: a function takes results and returns a
`Figure`.
"""

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sdegen.core.requests import check_kind
from sdegen.plots import style
from sdegen.plots.innovations import innovations
from sdegen.verification.budget import ErrorBudget
from sdegen.verification.certificate import Certificate

_PASSED, _FAILED = style.GREEN, style.RED
_LEAST, _MOST = 1e-4, 1e4  # of a check's value over its threshold, as far as it is drawn
_NAMED = 8  # numbers of steps that fit on an axis


def certificate(result: Certificate) -> Figure:
    """Draw a certificate: trajectories and their law at the last time, and every check.

        value/threshold ≤ 1 of a check that passes

    One of stored states, without a grid, is drawn by `innovations`.

    Args:
        result: What `certify` returned, with densities of shape (nodes,).

    Returns:
        The figure: densities on the left, each check's value over its threshold on the right, and
        below them what is wrong.

    Raises:
        ValueError: If there is no law in it, as in that of a noising chain.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> options = {"solver": sg.EulerMaruyama(20), "trajectories": 300, "rng": 0}
        >>> result = sg.certify(ou, grid, grid.gaussian(0.0, 0.5), [0.0, 1.0], **options)
        >>> figure = sg.plots.certificate(result)
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('position x', 'density p(x, t)')
    """
    check_kind("result", result, Certificate, "a Certificate")
    if result.steps is not None:
        return innovations(result)
    law, path = result.law, result.path
    if law is None or path is None:
        raise ValueError(
            "there are no densities to draw in this certificate; print it, its checks are numbers."
        )
    judged = [check for check in result.checks if check.verdict != "not judged"]
    height = max(3.6, 0.32 * len(judged) + 1.6)
    figure, axes = style.panels("LLCCC", 11.0, height)
    panel, x = axes["L"], style.numbers(law.x)
    states = path.states[-1, ~path.nonfinite, 0]
    heights, edges = style.histogram(style.numbers(states), x)
    style.bars(panel, heights, edges, len(states))
    style.counting_errors(panel, heights, edges, len(states))
    panel.plot(
        x, style.numbers(law.p[-1]), color=style.BLUE, lw=style.LINE, label="law of the chain"
    )
    if result.density is not None:
        density = style.numbers(result.density.p[-1])
        panel.plot(
            x, density, color=style.INK, lw=style.THIN, ls=style.DASHED, label="Fokker–Planck"
        )
    panel.set(xlim=(x[0], x[-1]), xlabel="position x", ylabel="density p(x, t)")
    style.title(panel, f"t = {float(law.times[-1]):.3g}")
    style.legend_on_top(panel, 1)

    table = axes["C"]
    ratios = [c.value / c.threshold if c.threshold > 0 else _MOST * (c.value > 0) for c in judged]
    rows = np.arange(len(judged))[::-1]
    colours = [_PASSED if check.verdict == "passed" else _FAILED for check in judged]
    # the bar starts at the left end, which a logarithmic axis needs to be told
    drawn = np.clip(ratios, 1.3 * _LEAST, _MOST)
    table.barh(rows, drawn - _LEAST, left=_LEAST, color=colours, height=0.62)
    table.axvline(1.0, color=style.INK, lw=style.THIN, ls=style.DASHED)
    names = [c.name if c.time is None else f"{c.name}, t = {c.time:.3g}" for c in judged]
    table.set_yticks(rows, [textwrap.fill(name, 44) for name in names], fontsize=style.TICK)
    table.set(
        xscale="log", xlim=(_LEAST, _MOST), xlabel="value over its threshold", ylabel="check"
    )
    style.log_axes(table, "x")
    table.grid(visible=False, axis="y")
    style.title(table, f"{len(result.failed)} of {len(judged)} checks failed")
    figure.supxlabel(textwrap.fill(result.summary, 130), fontsize=style.NOTE)
    return figure


def error_budget(budgets: Mapping[int, ErrorBudget]) -> Figure:
    """Draw what each cause costs a sampler against its number of steps.

        ‖p_samples − p_data‖ ≤ Σ_i ‖part i‖

    Args:
        budgets: What `error_budget` returned, by number of steps N.

    Returns:
        The figure: total variation on the left, Wasserstein-1 on the right, with logarithmic axes.
        A part of 0 is not drawn.

    Raises:
        ValueError: If there is none.

    Example:
        >>> x = torch.linspace(-1, 1, 5).double()
        >>> law = sg.Density(x, torch.full((5,), 0.5).double())
        >>> from sdegen.verification.budget import ErrorTerm
        >>> part = ErrorTerm("time discretisation", 0.01, 0.02, 0.0)
        >>> budget = sg.ErrorBudget((part,), ErrorTerm("whole", 0.01, 0.02, 0.0), (law, law), 1e-7)
        >>> figure = sg.plots.error_budget({10: budget})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['total variation, from 0 to 1', 'Wasserstein-1, in units of x']
    """
    check_kind("budgets", budgets, Mapping, "a mapping from N to an ErrorBudget")
    if not budgets:
        raise ValueError("there are no budgets to draw; pass a mapping from N to an ErrorBudget.")
    figure, axes = style.panels("TW", 9.6, 3.8)
    steps = sorted(budgets)
    for letter, quantity, label in (
        ("T", "total_variation", "total variation, from 0 to 1"),
        ("W", "wasserstein", "Wasserstein-1, in units of x"),
    ):
        panel = axes[letter]
        rows = {n: [*budgets[n].parts, budgets[n].whole] for n in steps}
        for i, part in enumerate(rows[steps[0]]):
            curve = [(n, getattr(rows[n][i], quantity)) for n in steps]
            positive = [point for point in curve if point[1] > 0]
            if not positive:
                continue
            n, value = np.array(positive).T
            marker, colour = style.look(i)
            width, colour = (
                (style.LINE, style.INK) if part.cause == "whole" else (style.THIN, colour)
            )
            panel.plot(n, value, marker, ls="-", ms=4.5, lw=width, color=colour, label=part.cause)
        panel.set(xscale="log", yscale="log", xlabel="number of steps N", ylabel=label)
    accuracy = max(budget.accuracy for budget in budgets.values())
    axes["T"].axhline(accuracy, color=style.INK, lw=style.THIN, ls=style.DOTTED, label="accuracy")
    for panel in axes.values():
        style.log_axes(panel)
        if 1 < len(steps) <= _NAMED:
            panel.set_xticks(steps, [f"{n:,}" for n in steps])
            panel.xaxis.set_minor_locator(NullLocator())
    style.legend_below(figure, axes["T"])
    return figure
