"""What is asked of a certificate, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_number
from sdegen.core.gradients import check_no_gradient
from sdegen.core.jumps import check_no_jumps
from sdegen.core.reduction import reduced
from sdegen.core.requests import check_kind
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.validation import check_dynamics
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundary
from sdegen.fokker_planck.validation import check_start
from sdegen.sde.potentials import Potential, as_potential
from sdegen.verification.chain import check_uniform, start_point
from sdegen.verification.check import Limits
from sdegen.verification.reference import Energy
from sdegen.verification.trajectory_checks import valid_states


def check_equations(
    equations: tuple[SDE, SDE], solver: Solver, times: Tensor, p0: Density | float, grid: Grid
) -> Density | float:
    """Check equations and start, and return the start, a point as a float.

    Args:
        equations: What the trajectories should follow, and what is simulated.
        solver: How they move.
        times: When they are judged, the first being the start.
        p0: Density on the grid, or a point.
        grid: Where densities are computed.

    Raises:
        TypeError: If one of them is of the wrong kind.
        ValueError: If the start is not one on this grid, or gradients flow through a network.
    """
    for equation in equations:
        check_no_jumps(equation, "certify")
        check_dynamics(equation, solver, times, None)
        reduced(equation, "certify")
    check_kind("grid", grid, Grid, "a Grid, such as Grid(-3.0, 3.0, cells=400)")
    check_uniform(grid)
    point = start_point(p0)
    if point is None:
        check_start(p0, grid, may_lack=False)  # type: ignore[arg-type]
    else:
        grid.point(point)  # says if it lies outside
    for equation in equations:
        check_no_gradient(
            equation, grid.nodes[1:-1:8, None], times[0], "a certificate", networks=True
        )
    return p0 if point is None else point


def as_energy(potential: Energy | Callable[[State], Tensor] | None) -> Energy | None:
    """Return the energy of a potential, or of a function U(x)."""
    if callable(potential) and not isinstance(potential, Potential):
        return as_potential(potential)
    return potential


def check_arguments(
    path: Trajectory | None,
    simulated: SDE | None,
    times: Tensor,
    false_alarm: float,
    trajectories: int,
    limits: Limits,
) -> None:
    """Raise if arguments have wrong types, or contradict each other."""
    check_false_alarm(false_alarm)
    check_count("trajectories", trajectories, 100)
    example = "such as sdegen.verification.check.Limits(step=0.02)"
    check_kind("limits", limits, Limits, f"Limits(…) or None, {example}")
    if path is None:
        return
    check_kind("path", path, Trajectory, "a Trajectory, as simulate returns it")
    if simulated is not None:
        raise ValueError("give simulated, or the path that came of it, one of the two.")
    if path.times.shape != times.shape or not torch.allclose(path.times.double(), times):
        raise ValueError(
            f"path has {len(path.times)} times from {float(path.times[0]):g} to "
            f"{float(path.times[-1]):g}, but {len(times)} from {float(times[0]):g} to "
            f"{float(times[-1]):g} are to be judged; pass times=path.times."
        )
    if path.states.ndim != 3 or path.states.shape[2] != 1:
        raise ValueError(
            "path must hold one-dimensional states, shape (T, batch, 1), but has shape "
            f"{tuple(path.states.shape)}."
        )


def check_false_alarm(false_alarm: float) -> None:
    """Refuse what is no chance."""
    check_number("false_alarm", false_alarm)
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm must lie in (0, 1), but is {false_alarm:g}.")


def check_inside(
    ends: GridBoundary | None, path: Trajectory | None, density: Density | None
) -> None:
    """Refuse a path that leaves the boundary, and an assumed density where mass is absorbed."""
    if ends is None:
        return
    if path is not None:
        low, high = (float(end) for end in valid_states(path).aminmax())
        if low < ends.low or high > ends.high:
            raise ValueError(
                f"path reaches from {low:g} to {high:g}, but boundary is for states between "
                f"{ends.low:g} and {ends.high:g}; simulate it with boundary={ends.boundary!r}, "
                "or leave the boundary out."
            )
    if density is not None and any(ends.absorbs):
        raise ValueError(
            "density must have mass 1, and behind an absorbing wall the law has less; leave it "
            "out, or pass another boundary."
        )
