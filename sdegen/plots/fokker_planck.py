"""Pictures of what a Fokker–Planck solver finds: rest, spectrum, currents, passages, the plane.

As in `plots`, nothing is computed here and nothing is shown: a function takes results and returns
a `Figure`.
"""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.requests import as_numbers, check_kind
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.questions.circulation import ComplexSpectrum
from sdegen.fokker_planck.questions.passage import PassageTimes
from sdegen.fokker_planck.questions.spectrum import Spectrum
from sdegen.plots import style
from sdegen.plots.ticks import scientific

_ARROWS = 24  # of a current along each axis, at most


def stationary(density: Density, exact: Tensor, *, energy: Tensor | None = None) -> Figure:
    """Draw a stationary density on the exact one, and their difference.

        relative difference = |p/exact − 1|

    Args:
        density: What a solver found.
        exact: The exact density at the same nodes, shape (nodes,).
        energy: U at the nodes, shape (nodes,), drawn above; or None.

    Returns:
        The figure.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> rest = solver.stationary()
        >>> exact = torch.exp(-rest.x.square() / 2) / (2 * torch.pi) ** 0.5
        >>> figure = sg.plots.stationary(rest, exact)
        >>> figure.axes[1].get_ylabel(), bool(figure.axes[1].lines[0].get_ydata().max() < 1e-7)
        ('|p/exact − 1|', True)
    """
    check_kind("density", density, Density, "a Density")
    exact = as_numbers("exact", exact)
    if exact.shape != density.x.shape:
        raise ValueError(
            f"exact must have one number for each node, shape {tuple(density.x.shape)}, but has "
            f"{tuple(exact.shape)}."
        )
    x, p, q = style.numbers(density.x), style.heights(density.p), style.numbers(exact)
    figure, axes = style.panels(
        "AE" if energy is None else "UE;AE", 9.0, 3.4 if energy is None else 4.6
    )
    left, right = axes["A"], axes["E"]
    left.plot(x, q, color=style.ORANGE, lw=3 * style.LINE, alpha=0.6, label="exact")
    left.plot(x, p, color=style.BLUE, lw=style.LINE, label="Fokker–Planck")
    left.set(xlabel="position x", ylabel="stationary density p(x)", xlim=(x[0], x[-1]))
    left.set_ylim(0, 1.05 * float(q[np.isfinite(q)].max()))
    style.legend_on_top(left, 1)
    known = (q > 0) & np.isfinite(p) & np.isfinite(q)
    relative = np.abs(p - q)[known] / q[known]
    right.plot(x[known], np.where(relative > 0, relative, np.nan), ".", ms=3, color=style.BLUE)
    right.set(xlabel="position x", ylabel="|p/exact − 1|", yscale="log", xlim=(x[0], x[-1]))
    style.log_axes(right, "y")
    told = style.error_in_words(density.error, "p", "its peak")
    words = f"largest relative difference {scientific(float(relative.max()))}"
    style.title(right, words + (f"\nestimated {told}" if told else ""))
    if energy is not None:
        _energy(axes["U"], x, style.numbers(energy), q, (float(x[0]), float(x[-1])))
    return figure


def spectrum(
    modes: Spectrum | ComplexSpectrum,
    density: Density,
    *,
    energy: Tensor | None = None,
    count: int | None = None,
) -> Figure:
    """Draw the slowest modes of a diffusion beside its stationary density.

        L ψ_n = −λ_n ψ_n

    Args:
        modes: What `FokkerPlanck.spectrum` found, or `turning_spectrum`, of whose complex modes
            the real part is drawn; on a grid of its own.
        density: The stationary density.
        energy: U at the nodes, shape (nodes,), drawn above the density; or None.
        count: How many modes are drawn; None takes all.

    Returns:
        The figure: on the left the density, under its energy; on the right the eigenfunctions ψ_n,
        each scaled to the same height on a line of its own, with its rate λ_n.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> figure = sg.plots.spectrum(solver.spectrum(3), solver.stationary())
        >>> [text.get_text() for text in figure.axes[1].get_yticklabels()]  # n k
        ['0', '1', '2']
    """
    x, p = style.numbers(density.x), style.heights(density.p)
    at = style.numbers(modes.x)
    rates, psi = style.numbers(modes.rates)[:count], style.numbers(modes.densities.real)[:count]
    height = 3.6 if energy is None else 4.6
    figure, axes = style.panels("PMM" if energy is None else "UMM;PMM", 9.0, height)
    left, right = axes["P"], axes["M"]
    left.plot(x, p, color=style.BLUE, lw=style.LINE)
    left.fill_between(x, p, color=style.BLUE, alpha=0.15, lw=0)
    seen = style.where_seen(x, p)
    left.set(xlim=seen, ylim=(0, 1.08 * float(p.max())))
    left.set(xlabel="position x", ylabel="stationary density p(x)")
    if energy is not None:
        _energy(axes["U"], x, style.numbers(energy), p, seen)
    for n, mode in enumerate(psi):
        colour, swing = style.CYCLE[n % len(style.CYCLE)], 0.42 / float(np.abs(mode).max())
        right.axhline(n, color=style.GREY, lw=style.HAIR)
        right.plot(at, n + swing * mode, color=colour, lw=style.LINE)
        right.fill_between(at, n, n + swing * mode, color=colour, alpha=0.15, lw=0)
    right.set(xlim=seen, ylim=(-0.55, len(rates) - 0.4), xlabel="position x")
    right.set_yticks(range(len(rates)), [f"{rate:.4g}" for rate in rates])
    right.set_ylabel("rate λₙ, 1/time, and its eigenfunction ψₙ(x)")
    right.grid(visible=False, axis="y")
    told = style.error_in_words(modes.error, "rates")
    words = f"relaxation time 1/λ = {modes.relaxation_time:.4g}"
    style.title(right, words + (f", {told}" if told else ""))
    return figure


def current(densities: Mapping[str, Density], currents: Mapping[str, Tensor]) -> Figure:
    """Draw densities, and below them the probability currents that they carry.

        J = f p − (D p)'

    Args:
        densities: Densities on one grid by name, "t = 1" for instance.
        currents: What `FokkerPlanck.current` found of each, shape (cells,), by the same names.

    Returns:
        The figure; the current of a cell is drawn at its middle.

    Raises:
        ValueError: If the names differ.

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-6.0, 6.0, 60)
        >>> solver = sg.FokkerPlanck(ou, grid)
        >>> rest = solver.stationary()
        >>> figure = sg.plots.current({"rest": rest}, {"rest": solver.current(rest)})
        >>> bool(abs(figure.axes[1].lines[0].get_ydata()).max() < 1e-9)  # none flows at rest
        True
    """
    check_kind("densities", densities, Mapping, "a mapping of names to densities")
    check_kind("currents", currents, Mapping, "a mapping of names to currents")
    for name, density in densities.items():
        check_kind(f"densities[{name!r}]", density, Density, "a Density")
    if set(densities) != set(currents):
        raise ValueError(
            f"densities and currents need the same names, but are {sorted(densities)} and "
            f"{sorted(currents)}."
        )
    figure, axes = style.panels("P;J", 7.0, 4.8)
    for i, (name, density) in enumerate(densities.items()):
        x, colour = style.numbers(density.x), style.CYCLE[i % len(style.CYCLE)]
        axes["P"].plot(x, style.heights(density.p), color=colour, lw=style.LINE, label=name)
        middle = 0.5 * (x[1:] + x[:-1])
        axes["J"].plot(middle, style.numbers(currents[name]), color=colour, lw=style.LINE)
        axes["P"].set(xlim=(x[0], x[-1]), ylabel="density p(x)")
        axes["J"].set(xlim=(x[0], x[-1]), xlabel="position x", ylabel="current J(x), 1/time")
    axes["P"].set_ylim(bottom=0)
    axes["P"].tick_params(labelbottom=False)
    axes["J"].axhline(0, color=style.GREY, lw=style.THIN)
    style.legend_on_top(axes["P"])
    return figure


def first_passage(passage: PassageTimes, *, energy: Tensor | None = None) -> Figure:
    """Draw when, and through which wall, a start at x leaves.

        L τ = −1,   L q = 0,   L = f d/dx + D d²/dx²

    Args:
        passage: What `FokkerPlanck.first_passage` found, with two moments.
        energy: U at the nodes, shape (nodes,), drawn above; or None.

    Returns:
        The figure: the mean time with a band of one standard deviation, and between two absorbing
        walls the chance to leave through the upper one, the committor.

    Example:
        >>> brown, grid = sg.BrownianMotion(2**0.5), sg.Grid(0.0, 1.0, 20)
        >>> found = sg.FokkerPlanck(brown, grid, "absorbing").first_passage()
        >>> figure = sg.plots.first_passage(found)
        >>> f"{figure.axes[0].lines[0].get_ydata().max():.3f}"  # x (1 − x)/2 in the middle
        '0.125'
    """
    check_kind("passage", passage, PassageTimes, "PassageTimes, such as .first_passage() returns")
    x, mean, std = (style.numbers(v) for v in (passage.x, passage.mean, passage.std))
    q = style.numbers(passage.to_high)
    two_ways = bool(q.min() < q.max())
    letters = ["U"] * (energy is not None) + ["T"] + ["Q"] * two_ways
    figure, axes = style.panels(";".join(letters), 7.0, 1.0 + 1.7 * len(letters))
    for letter, panel in axes.items():
        panel.set_xlim(x[0], x[-1])
        panel.tick_params(labelbottom=letter == letters[-1])
    axes[letters[-1]].set_xlabel("start x")
    low, high = np.maximum(mean - std, 0), mean + std
    axes["T"].plot(x, mean, color=style.BLUE, lw=style.LINE, label="mean")
    axes["T"].fill_between(
        x, low, high, color=style.BLUE, alpha=0.15, lw=0, label="± standard deviation"
    )
    axes["T"].set(ylabel="first passage τ, time", ylim=(0, 1.05 * float(high.max())))
    style.legend_on_top(axes["T"])
    style.title(axes["T"], style.error_in_words(passage.error, "mean"))
    if two_ways:
        axes["Q"].plot(x, q, color=style.RED, lw=style.LINE)
        axes["Q"].set(ylabel="chance to leave up", ylim=(-0.03, 1.03))
    if energy is not None:
        u = style.numbers(energy)
        axes["U"].plot(x, u, color=style.INK, lw=style.LINE)
        axes["U"].set(ylabel="energy U (k_B = 1)", ylim=_barriers(u, mean))
    return figure


def _barriers(u: style.Array, mean: style.Array) -> tuple[float, float]:
    """Return limits that show wells, the barriers between them, and the absorbing ends."""
    slope = np.sign(np.diff(u))
    turns = u[1:-1][slope[1:] != slope[:-1]]
    ends = u[[0, -1]][mean[[0, -1]] == 0]
    levels = np.concatenate([[u.min()], turns, ends[: len(turns)]])
    height = float(levels.max() - levels.min())
    if height == 0:
        return float(u.min()) - 1e-9, float(u.max()) + 1e-9
    return float(levels.min()) - 0.15 * height, float(levels.max()) + 0.3 * height


def _width(density: PlaneDensity) -> float:
    """Return how wide a picture of the plane is in inches, 4.6 high, without white margins."""
    if density.phase_space:
        return 5.4
    x, y, p = (style.numbers(v) for v in (density.x, density.y, density.p))
    (left, right), (low, high) = style.where_seen(x, p.max(1)), style.where_seen(y, p.max(0))
    return min(9.0, max(4.2, 1.7 + 3.9 * (right - left) / (high - low)))


def plane(density: PlaneDensity, current: Tensor | None = None) -> Figure:
    """Draw a density of the plane as colour, and its current as arrows.

        J = f p − ∇·(D p)

    Args:
        density: The density.
        current: What `FokkerPlanck2D.current` found, shape (2, nx, ny); or None. Where it is
            below 2 % of its largest no arrow is drawn.

    Returns:
        The figure.

    Example:
        >>> spring, grid = sg.LinearSDE(torch.eye(2), 2**0.5), sg.Grid(-6.0, 6.0, 30)
        >>> rest = sg.FokkerPlanck2D(spring, (grid, grid)).stationary()
        >>> figure = sg.plots.plane(rest)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['position y', 'density p(x, y)']
    """
    check_kind("density", density, PlaneDensity, "a PlaneDensity")
    x, y, p = (style.numbers(v) for v in (density.x, density.y, density.p))
    figure, panel = style.one_panel(_width(density), 4.6)
    image = style.shaded(panel, x, y, p, Normalize(vmin=0))
    second = "v" if density.phase_space else "y"
    style.colorbar(figure, panel, image, f"density p(x, {second})", aspect=20, extend="neither")
    panel.set(xlabel="position x", ylabel="position y", aspect="equal")
    if density.phase_space:
        panel.set(ylabel="velocity v", aspect="auto")
    panel.set(xlim=style.where_seen(x, p.max(1)), ylim=style.where_seen(y, p.max(0)))
    told = style.error_in_words(density.error, "p", "its peak")
    style.title(panel, told)
    if current is not None:
        skips = [max(1, math.ceil(len(nodes) / _ARROWS)) for nodes in (x, y)]
        some = np.s_[skips[0] // 2 :: skips[0], skips[1] // 2 :: skips[1]]
        arrows = [part[some] for part in style.numbers(current)]
        size = np.hypot(*arrows)
        strong = size > 0.02 * size.max()
        at = [part[some][strong] for part in np.meshgrid(x, y, indexing="ij")]
        arrows = [part[strong] for part in arrows]
        # the longest arrow is as long as the gap between two of them
        gap = min(skips[0] * float(x[1] - x[0]), skips[1] * float(y[1] - y[0]))
        scale = float(size.max()) / (0.95 * gap)
        panel.quiver(
            *at, *arrows, color=style.INK, pivot="mid", width=0.004, angles="xy", scale_units="xy",
            scale=scale,
        )  # fmt: skip
        words = f"longest arrow: current {float(size.max()):.3g}, 1/(length · time)"
        style.title(panel, words + (f"\n{told}" if told else ""))
    return figure


def _energy(
    panel: Axes, x: style.Array, u: style.Array, p: style.Array, limits: tuple[float, float]
) -> None:
    """Draw an energy as high as density is visible: walls of a landscape are higher."""
    panel.plot(x, u, color=style.INK, lw=style.LINE)
    seen = u[p > 1e-3 * p[np.isfinite(p)].max()]
    margin = 0.08 * float(seen.max() - seen.min()) or 1.0
    panel.set(xlim=limits, ylim=(seen.min() - margin, seen.max() + margin))
    panel.set_ylabel("energy U (k_B = 1)")
    panel.tick_params(labelbottom=False)
