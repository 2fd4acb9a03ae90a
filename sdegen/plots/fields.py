"""Fields over space and time, and densities of positions and velocities.

As in `plots`, nothing is computed here and nothing is shown: a function takes results and returns
a `Figure`.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.requests import as_numbers, as_state, check_kind
from sdegen.core.trajectory import Trajectory
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.plots import style

_CELLS = 60  # of a histogram along each axis, at most
# two hues of one lightness about white, which colour-blind readers tell apart
_SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#00263D", style.BLUE, "#FFFFFF", style.ORANGE, "#6B3A00"]
)


def space_time(
    path: Trajectory, *, places: Tensor | None = None, trajectory: int = 0, quantity: str = "φ"
) -> Figure:
    """Draw a field φ(x, t) as colour over time and place.

    Args:
        path: Trajectories of fields on a line, shape (T, batch, sites), at two times or more.
        places: x of the sites, increasing, shape (sites,); None counts them.
        trajectory: Which trajectory is drawn.
        quantity: What the field is called.

    Returns:
        The figure; a field of both signs is white at 0.

    Example:
        >>> heat, times = sg.StochasticHeat((8,)), torch.linspace(0, 1, 11)
        >>> figure = sg.plots.space_time(sg.simulate(heat, torch.zeros(1, 8), times, rng=0))
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['site', 'φ(x, t)']
    """
    check_kind("path", path, Trajectory, "a Trajectory, as simulate returns it")
    check_count("trajectory", trajectory, least=0)
    shape = tuple(path.states.shape)
    if len(shape) != 3 or shape[0] < 2 or shape[2] < 2 or trajectory >= shape[1]:
        raise ValueError(
            "space_time draws one trajectory of fields, states (T, batch, sites) with two times "
            f"and two sites or more, but states are {shape} and trajectory is {trajectory}; "
            "simulate with keep_path=True."
        )
    field, times = style.numbers(path.states[:, trajectory]), style.numbers(path.times)
    x = np.arange(shape[2]) if places is None else style.numbers(as_numbers("places", places))
    if x.shape != (shape[2],) or not (np.diff(x) > 0).all():
        raise ValueError(
            f"places must be {shape[2]} increasing numbers, one for each site, but have shape "
            f"{x.shape}; pass torch.linspace(low, high, sites)."
        )
    figure, panel = style.one_panel(7.0, 3.6)
    finite = field[np.isfinite(field)]
    most = float(np.abs(finite).max(initial=0.0)) or 1.0
    signed = float(finite.min(initial=0.0)) < 0
    panel.grid(False)
    image = panel.pcolormesh(
        times,
        x,
        field.T,
        shading="nearest",
        cmap=_SIGNED if signed else style.DENSITY,
        norm=Normalize(-most if signed else 0.0, most),
        rasterized=True,
    )
    panel.set(xlabel="time t", ylabel="site" if places is None else "position x")
    style.colorbar(figure, panel, image, f"{quantity}(x, t)", aspect=16, extend="neither")
    return figure


def phase_space(states: PlaneDensity | Tensor | Trajectory) -> Figure:
    """Draw the density of positions and velocities, one of each, as colour.

        ∫ p(x, v) dx dv = 1

    Args:
        states: A density over (x, v); samples, shape (n, 2) or (n, 2, 1); or trajectories of a
            phase space, whose last states are drawn.

    Returns:
        The figure; of samples a histogram.

    Example:
        >>> states = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> figure = sg.plots.phase_space(states)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['velocity v', 'density p(x, v)']
    """
    figure, panel = style.one_panel(5.4, 4.4)
    if isinstance(states, PlaneDensity):
        x, v, p = (style.numbers(part) for part in (states.x, states.y, states.p))
        image = style.shaded(panel, x, v, p, Normalize(vmin=0))
        panel.set(xlim=style.where_seen(x, p.max(1)), ylim=style.where_seen(v, p.max(0)))
    else:
        last = states.finite[-1] if isinstance(states, Trajectory) else as_state("states", states)
        dots = style.numbers(last.flatten(1) if last.ndim > 1 else last).astype(np.float64)
        if dots.ndim != 2 or dots.shape[1] != 2 or not np.isfinite(dots).all() or len(dots) < 2:
            raise ValueError(
                "phase_space draws one position and one velocity of two or more finite samples, "
                f"shape (n, 2), but these have shape {tuple(last.shape)}; choose one coordinate, "
                "states[:, :, 0]."
            )
        cells = int(min(_CELLS, max(10, round(2 * len(dots) ** (1 / 3)))))
        p, x, v = np.histogram2d(dots[:, 0], dots[:, 1], cells, density=True)
        panel.grid(False)
        image = panel.pcolormesh(
            x, v, p.T, cmap=style.DENSITY, norm=Normalize(vmin=0), rasterized=True
        )
        lost = style.lost(states) if isinstance(states, Trajectory) else ""
        style.title(panel, f"{len(dots):,} samples" + lost)
    style.colorbar(figure, panel, image, "density p(x, v)", aspect=20, extend="neither")
    panel.set(xlabel="position x", ylabel="velocity v")
    return figure
