"""The door of the plane's solver: starts, walls and edges, and what is refused of them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from sdegen.core.boundary import End
from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import BoundaryLike, enclosure_of
from sdegen.core.errors import NotNormalizableError
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import as_numbers, check_kind, kind_of
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d.channel_fluxes import ChannelGenerator
from sdegen.fokker_planck.density2d.channel_reader import ChannelReader
from sdegen.fokker_planck.density2d.density import PlaneDensity, PlaneForm
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import condition_at

Pair = tuple[BoundaryCondition, BoundaryCondition]
WITH_GRADIENT = (
    ", or take the gradient in one dimension, FokkerPlanck(…).stationary(differentiable=True), or "
    "along paths, simulate(…, differentiable=True)"
)

_EDGE_WARNS, _EDGE_FAILS = 1e-6, 1e-2
_MASS_TOLERANCE = 1e-2
_FEWEST_CELLS = 8
_SAME_PLACE = 1e-9  # of the grid: how far an end may be from it by rounding
_CORRELATED = 1e-9  # D_xy/√(D_xx D_yy): what is less is rounding
_LOOKS = 8  # times of a run at which real walls are looked at
_NEGATIVE = 1e-12  # of the peak: what a start may have by rounding


def walls_of(
    boundary: BoundaryLike | None,
    grids: tuple[Grid, Grid],
    *,
    physical: bool,
    event: tuple[int, ...] = (2,),
) -> tuple[tuple[Pair, Pair], list[bool]]:
    """Return what the ends of both coordinates are, and which of the four only end the grid.

    Args:
        boundary: As `simulate` takes it; None for walls without flux.
        grids: Both grids, whose ends are those of the boundary.
        physical: Whether walls without flux that nobody named are real.
        event: Shape of a state.

    Raises:
        TypeError: If it is no boundary, or an end moves.
        ValueError: If an end lies elsewhere than the grid's.
    """
    enclosure = enclosure_of(boundary, event)
    conditions: list[Pair] = []
    truncated: list[bool] = []
    for axis, grid in enumerate(grids):
        interval = None if enclosure is None else enclosure.of(axis)
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        _check_end(axis, low, grid, grid.low)
        _check_end(axis, high, grid, grid.high)
        conditions.append((condition_at(low), condition_at(high)))
        truncated += [low is None and not physical, high is None and not physical]
    return (conditions[0], conditions[1]), truncated


def form_over(
    form: PlaneForm | None,
    boundary: BoundaryLike | None,
    truncated: Sequence[bool],
    generator: object,
    times: Sequence[float],
) -> PlaneForm | None:
    """Return the form that real walls leave of a matrix at some times; a few are looked at.

    Raises:
        ValueError: If a wall is none for correlated noise, or the form none for a wall.
    """
    if not isinstance(generator, ChannelGenerator):
        return form
    reader, few = generator.reader, [*times[:: max(1, len(times) // _LOOKS)], times[-1]]
    for t in few[:1] if reader.sde.autonomous else few:
        form = form_at_walls(form, truncated, reader, t)
    return form


def form_at_walls(
    form: PlaneForm | None, truncated: Sequence[bool], reader: ChannelReader, time: float
) -> PlaneForm | None:
    """Return the form that is asked for; "lumped" at real walls where noise is correlated.

    Raises:
        ValueError: If the compact one is asked for there.
    """
    lines, ends = reader.lattice.mesh.lines, iter(truncated)
    for axis, line in enumerate(lines):
        for wall, at in zip(line.conditions, (0, -1), strict=True):
            if next(ends) or not wall.reflects:
                continue
            mixed = _correlation(reader, time, axis, at)
            if mixed > _CORRELATED and form == "compact":
                raise ValueError(
                    f"form = 'compact' has no wall without flux where noises are correlated, here "
                    f"by up to {mixed:.3g} at an end of coordinate {axis}; pass form='lumped', "
                    "which is of second order, or leave it out."
                )
            form = "lumped" if mixed > _CORRELATED else form
    return form


def forms_of_currents(
    sde: SDE, form: PlaneForm | None, density: PlaneDensity
) -> tuple[PlaneForm, ...]:
    """Return how currents of a density may be found: of diagonal noise there is one way."""
    if sde.noise_structure == "diagonal":
        return ("compact",)
    return ("lumped",) if "lumped" in (form, density.form) else ("compact", "lumped")


def _correlation(reader: ChannelReader, time: float, axis: int, at: int) -> float:
    """Return the largest |D_xy|/√(D_xx D_yy) at a wall of a coordinate."""
    d = reader.diffusivity(time).reshape(*reader.lattice.shape, 3)
    wall = np.moveaxis(d, axis, 0)[at]
    return float((np.abs(wall[:, 1]) / np.sqrt(wall[:, 0] * wall[:, 2])).max())


def _check_end(axis: int, end: End | None, grid: Grid, at: float) -> None:
    """Refuse an end that moves, or is not the grid's."""
    if end is None:
        return
    if callable(end.at):
        raise TypeError(
            f"an end of coordinate {axis} is a function of t; ends that move are built for "
            "densities on a line, FokkerPlanck, and for simulate. Pass a number."
        )
    if abs(end.at - at) > _SAME_PLACE * (grid.high - grid.low):
        raise ValueError(
            f"the boundary of coordinate {axis} ends at {end.at:g}, its grid at {at:g}; pass "
            f"Grid(low, high, cells) from one end to the other."
        )


def check_form(form: object) -> PlaneForm | None:
    """Return the form that is asked for; None for "auto".

    Raises:
        ValueError: If it is another word.
    """
    if form not in ("auto", "compact", "lumped"):
        raise ValueError(f"form must be one of 'auto', 'compact', 'lumped', but is {form!r}.")
    return None if form == "auto" else cast(PlaneForm, form)


def check_rtol(rtol: object) -> None:
    """Refuse what is no relative error.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it does not lie between 1e-12 and 1.
    """
    if rtol is None:
        return
    if isinstance(rtol, bool) or not isinstance(rtol, int | float):
        raise TypeError(f"rtol must be a number, but is {type(rtol).__name__}; pass rtol=1e-4.")
    if not 1e-12 <= rtol < 1:
        raise ValueError(f"rtol must lie between 1e-12 and 1, but is {rtol:g}; pass rtol=1e-4.")


def gaussian(
    blank: PlaneDensity, mean: tuple[float, float], covariance: Tensor | Sequence[Sequence[float]]
) -> PlaneDensity:
    """Return N(mean, covariance) at the nodes of a density, of mass 1.

    Raises:
        ValueError: If the mean lies outside, or the covariance is none.
    """
    _check_inside("mean", blank, mean)
    c = as_numbers("covariance", covariance, expected="a matrix [[var_x, cov], [cov, var_y]]")
    if c.shape != (2, 2) or not bool(
        c.isfinite().all()
        & torch.isclose(c[0, 1], c[1, 0])
        & (c[0, 0] > 0)
        & (c[0, 0] * c[1, 1] > c[0, 1] ** 2)
    ):
        raise ValueError(
            f"covariance must be a symmetric, positive 2 × 2 matrix, but is {c.tolist()}; pass "
            "[[var_x, cov], [cov, var_y]]."
        )
    inverse, p = torch.linalg.inv(c), torch.zeros_like(blank.p)
    turns = [  # on a ring it goes around
        [k * float(nodes[-1] - nodes[0]) for k in ((-2, -1, 0, 1, 2) if ring else (0,))]
        for nodes, ring in zip((blank.x, blank.y), blank.rings, strict=True)
    ]
    for first, second in itertools.product(*turns):
        dx, dy = blank.x[:, None] - mean[0] + first, blank.y[None, :] - mean[1] + second
        square = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
        p += torch.exp(-0.5 * square)
    shape = _joined(replace(blank, p=p))
    mass = float(shape.mass)
    if mass == 0:
        raise ValueError("the density lies between nodes; pass a wider one, or finer grids.")
    return replace(shape, p=shape.p / mass)


def point(blank: PlaneDensity, x0: float, y0: float) -> PlaneDensity:
    """Return a unit mass at a point as four nodes around it have it, with the right mean.

    Raises:
        ValueError: If the point lies outside the grid.
    """
    _check_inside("point", blank, (x0, y0))
    parts = []
    for nodes, at in zip((blank.x, blank.y), (x0, y0), strict=True):
        i = int(torch.searchsorted(nodes, at).clamp(1, len(nodes) - 1))
        share = (at - nodes[i - 1]) / (nodes[i] - nodes[i - 1])
        mass = torch.zeros_like(nodes)
        mass[i - 1], mass[i] = 1 - share, share
        parts.append(mass)
    return _joined(replace(blank, p=torch.outer(*parts) / blank.weights))


def check_start(
    blank: PlaneDensity, p0: PlaneDensity | tuple[float, float], *, absorbs: bool
) -> PlaneDensity:
    """Return the start at the nodes of a density.

    Args:
        blank: A density of the solver.
        p0: The start, or the point of one.
        absorbs: Whether mass may be missing.

    Raises:
        TypeError: If it is neither.
        ValueError: If it lives elsewhere, is not finite, negative, or of another mass.
    """
    if isinstance(p0, tuple):
        if len(p0) != 2:
            raise ValueError(f"a point has two coordinates, but p0 is {p0!r}; pass (x, y).")
        return point(blank, *map(float, p0))
    if not isinstance(p0, PlaneDensity):
        raise TypeError(
            f"p0 must be a PlaneDensity or a point (x, y), but is {type(p0).__name__}; pass "
            "solver.gaussian(mean, covariance)."
        )
    check_grid("p0", p0, blank)
    p = p0.p.detach().to("cpu", torch.float64)
    if not bool(p.isfinite().all()):
        i, j = (~p.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"p0 must be finite, but is {float(p[i, j])} at ({float(p0.x[i]):g}, "
            f"{float(p0.y[j]):g})."
        )
    if float(p.min()) < -_NEGATIVE * max(float(p.max()), 0.0):
        raise ValueError(f"p0 must be ≥ 0, but its lowest value is {float(p.min()):g}.")
    start = _joined(replace(blank, p=p))
    mass = float(start.mass)
    if mass > 1 + _MASS_TOLERANCE or (mass < 1 - _MASS_TOLERANCE and not absorbs) or mass <= 0:
        raise ValueError(f"p0 must have mass 1, but has {mass:.6g}.")
    return start


def check_grid(name: str, density: PlaneDensity, blank: PlaneDensity) -> None:
    """Raise if a density lives on other nodes than the solver.

    Raises:
        TypeError: If it is no density.
        ValueError: With both shapes, or the nodes that differ.
    """
    check_kind(name, density, PlaneDensity, "a PlaneDensity, such as plane.stationary()")
    if density.p.shape != blank.p.shape:
        raise ValueError(
            f"{name} must have shape {tuple(blank.p.shape)}, but has {tuple(density.p.shape)}; "
            "make it with this solver's grids."
        )
    for axis, came, nodes in zip("xy", (density.x, density.y), (blank.x, blank.y), strict=True):
        if came.shape != nodes.shape or not torch.equal(came.to(nodes), nodes):
            raise ValueError(
                f"{name} lives on {len(came)} nodes {axis} from {float(came[0]):g} to "
                f"{float(came[-1]):g}, the solver on {len(nodes)} from {float(nodes[0]):g} to "
                f"{float(nodes[-1]):g}; make it with this solver's grids."
            )


def check_edges(density: PlaneDensity, truncated: Sequence[bool], when: str = "") -> None:
    """Warn of, or refuse, a density that leans on a wall that only ends the grid.

    Args:
        density: The density.
        truncated: Which ends only end the grid, those of x first.
        when: At what time, in words.

    Raises:
        NotNormalizableError: If it is above 1e-2 of its peak there; above 1e-6 there is a warning.
    """
    p = density.p
    sides = itertools.compress((p[0], p[-1], p[:, 0], p[:, -1]), truncated)
    edge = max((float(side.max()) for side in sides), default=0.0) / float(p.max())
    text = (
        f"the density at an edge of the grid is {edge:.3g} of its peak{when}: the grid cuts it, "
        "or there is no stationary density. Widen the grid, or pass truncation_is_physical=True "
        "if there are real walls."
    )
    if edge > _EDGE_FAILS:
        raise NotNormalizableError(text)
    if edge > _EDGE_WARNS:
        warnings.warn(text, UserWarning, stacklevel=3)


def check_door(sde: object, grids: object) -> None:
    """Raise if sde is not an SDE, or grids not a pair of grids.

    Raises:
        TypeError: If it is not.
        ValueError: If there are not two grids, or one has fewer than 8 cells.
    """
    check_kind("sde", sde, SDE, "an SDE, such as OrnsteinUhlenbeck(1.0)")
    check_no_jumps(sde, "FokkerPlanck2D")
    if not isinstance(grids, list | tuple):
        raise TypeError(
            f"grids must be a pair of grids, (Grid(…), Grid(…)), but is {kind_of(grids)}."
        )
    for i, grid in enumerate(grids):
        check_kind(f"grids[{i}]", grid, Grid, "a Grid, such as Grid(-3.0, 3.0, cells=50)")
    if len(grids) != 2:
        raise ValueError(f"grids must be two, one for each coordinate, but are {len(grids)}.")
    for grid in grids:
        if grid.cells < _FEWEST_CELLS:
            raise ValueError(
                f"grids must have at least {_FEWEST_CELLS} cells, half of which tell an error, "
                f"but one has {grid.cells}; pass Grid(low, high, cells={_FEWEST_CELLS})."
            )


def _joined(density: PlaneDensity) -> PlaneDensity:
    """Return the same density, whose values at the two ends of a ring are one."""
    p = density.p
    for axis, ring in enumerate(density.rings):
        if ring:
            p = p.movedim(axis, 0).clone()
            p[0] = p[-1] = 0.5 * (p[0] + p[-1])
            p = p.movedim(0, axis)
    return replace(density, p=p)


def _check_inside(name: str, blank: PlaneDensity, at: tuple[float, float]) -> None:
    """Refuse what lies outside the grid."""
    pair = as_numbers(name, at, expected="a point, two numbers (x, y)")
    if pair.shape != (2,):
        raise ValueError(f"{name} must be two numbers (x, y), but has shape {tuple(pair.shape)}.")
    (x, y), a, b = pair.tolist(), blank.x, blank.y
    if not (a[0] <= x <= a[-1] and b[0] <= y <= b[-1] and math.isfinite(x + y)):
        raise ValueError(
            f"{name} must lie in [{float(a[0]):g}, {float(a[-1]):g}] × [{float(b[0]):g}, "
            f"{float(b[-1]):g}], but is ({x:g}, {y:g})."
        )
