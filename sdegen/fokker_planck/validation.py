"""The door of the Fokker–Planck solver: what can be known to be wrong is said at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import SupportsFloat, cast

import numpy as np
import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, warn_inaccurate
from sdegen.core.errors import AccuracyWarning, NotNormalizableError, SolverError
from sdegen.core.period import check_period
from sdegen.core.requests import as_times, kind_of
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization import time_dependence as clock
from sdegen.fokker_planck.discretization.cubics import cell_masses
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.poles import Pole
from sdegen.fokker_planck.discretization.power_law import Powers

_EDGE_WARNS, _EDGE_FAILS = 1e-6, 1e-2
_MASS_TOLERANCE = 1e-3
_NONE = (None, None)
REFUSED = 0.1  # an error above which there is no answer
_NEGATIVE = 1e-12  # of the peak: what a start may have by rounding


def check_door(sde: object, grid: object) -> None:
    """Raise if sde is not an SDE, or grid not a grid.

    Raises:
        TypeError: If it is not.
    """
    if isinstance(sde, type) or not (hasattr(sde, "drift") and hasattr(sde, "diffusion")):
        raise TypeError(
            f"sde must be an SDE, but is {kind_of(sde)}; pass sdegen.ItoProcess(drift=…, "
            "diffusion=…), or a process with a name."
        )
    if not hasattr(grid, "nodes"):
        raise TypeError(
            f"grid must be a Grid, but is {type(grid).__name__}; pass Grid(low, high, cells), or "
            "Grid.of(nodes) for nodes of your own."
        )


def as_start(
    p0: Density | SupportsFloat, grid: Grid, powers: Powers = (None, None)
) -> tuple[float | None, Density]:
    """Return a start as a point, if it is a number of any kind, and as a density.

    What is neither is passed on, and refused by `check_start`.

    Args:
        p0: The start.
        grid: The solver's grid.
        powers: Those of the solver's densities at its walls. A start that is infinite at another
            wall, or that no grid as this resolves, starts with the masses that nodes hold.
    """
    if isinstance(p0, Real) or (isinstance(p0, Tensor | np.ndarray) and p0.ndim == 0):
        x0 = float(p0)
        return x0, grid.point(x0)
    if isinstance(p0, Density) and (p0.fine is not None or p0.powers not in (powers, _NONE)):
        return None, p0.lumped()
    return None, cast(Density, p0)


def check_ring(sde: SDE, grid: Grid) -> None:
    """Refuse a grid with periodic ends that is no period of the dynamics.

    Raises:
        ValueError: With both values of the drift or the diffusion, a period apart.
    """
    t = torch.tensor(clock.start(sde), dtype=torch.float64)
    check_period(sde, (0,), grid.low, grid.high, grid.nodes[:1, None], [t])


def check_times(times: Tensor | Sequence[float], sde: SDE) -> Tensor:
    """Return times as a float64 tensor on the CPU, strictly monotone in the SDE's sense of time.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are fewer than two, one is not finite or out of the SDE's range, or
            they run the wrong way.
    """
    ts = as_times(times)
    values = ts.numpy()
    steps, forward = values[1:] - values[:-1], sde.direction > 0
    if (np.minimum.reduce(steps) <= 0) if forward else (np.maximum.reduce(steps) >= 0):
        i = int((steps * sde.direction <= 0).argmax())
        sense = "increasing" if forward else "decreasing, the sense in which this SDE is meant,"
        raise ValueError(
            f"times must be strictly {sense} but times[{i}]={float(ts[i]):g} is followed by "
            f"{float(ts[i + 1]):g}; a density cannot be "
            "carried against its diffusion: build ReverseSDE for the reversed dynamics."
        )
    low, high = sde.time_range
    first, last = float(values[0]), float(values[-1])
    if min(first, last) < low or max(first, last) > high:
        raise ValueError(
            f"times reach from {float(ts.min()):g} to {float(ts.max()):g}, but the SDE is defined "
            f"from {low:g} to {high:g}."
        )
    return ts


def check_start(p0: Density, grid: Grid, *, may_lack: bool) -> Tensor:
    """Return the start's values at the nodes.

    Args:
        p0: The start.
        grid: The solver's grid.
        may_lack: Whether mass may be missing, because a wall absorbs.

    Raises:
        TypeError: If p0 is no density.
        ValueError: If it lives elsewhere, is not finite, negative, without mass or not normalised.
    """
    if not hasattr(type(p0), "cell_masses"):
        raise TypeError(
            f"p0 must be a Density or a number, but is {type(p0).__name__}; pass "
            "grid.gaussian(mean, std), a start x0, or Density(grid.nodes, p)."
        )
    x = grid.nodes
    if p0.x is not x and (p0.x.shape != x.shape or not torch.equal(p0.x.to(x), x)):
        raise ValueError(
            f"p0 lives on {len(p0.x)} nodes from {float(p0.x[0]):g} to {float(p0.x[-1]):g}, the "
            f"solver on {len(x)} from {grid.low:g} to {grid.high:g}; make it with this grid, or "
            "evaluate it there: Density(grid.nodes, p0.at(grid.nodes)).normalized()."
        )
    p = p0.p.to(torch.float64)
    powers = getattr(p0, "powers", (None, None))
    if powers != (None, None):  # what is ∞ there is no unknown
        low, high = (q is not None and q < 0 for q in powers)
        zero = torch.zeros_like(p[:1])
        p = torch.cat([zero if low else p[:1], p[1:-1], zero if high else p[-1:]])
    value = p.detach().numpy()
    least, most = np.minimum.reduce(value), np.maximum.reduce(value)
    if not (math.isfinite(least) and math.isfinite(most)):
        bad = ~np.isfinite(value)
        raise ValueError(
            f"p0 must be finite, but is {value[bad][0]} at x = {float(x[int(bad.argmax())]):g}."
        )
    if least < -_NEGATIVE * max(most, 0.0):
        raise ValueError(
            f"p0 must be ≥ 0, but is {least:g} at x = {float(x[int(value.argmin())]):g}."
        )
    mass = float(grid.weights.numpy() @ value)
    if abs(mass - 1) > _MASS_TOLERANCE:  # of what the grid does not resolve, it is the cubic's
        singular = powers != (None, None)
        mass = float(p0.mass if singular else cell_masses(x.numpy(), value).sum())
    if mass == 0:
        raise ValueError("p0 has no mass: it is zero at every node.")
    if mass > 1 + _MASS_TOLERANCE or (mass < 1 - _MASS_TOLERANCE and not may_lack):
        raise ValueError(f"p0 must have mass 1, but has {mass:.6g}; pass p0.normalized().")
    return p


def check_poles(poles: Sequence[Pole | None], grid: Grid) -> None:
    """Refuse a stationary density that is not integrable at a wall where D = 0.

    Raises:
        NotNormalizableError: If it is not integrable there.
    """
    for side, x, pole in zip(("low", "high"), (grid.low, grid.high), poles, strict=True):
        q = 0.0 if pole is None else pole.stationary_exponent
        if q <= -1:
            raise NotNormalizableError(
                f"there is no stationary density: it grows towards {side} x, like the distance "
                f"from {x:g} to the power {q:.3g}."
            )


def check_confined(
    log_p: Tensor,
    grid: Grid,
    truncated: tuple[bool, bool],
    *,
    lost: str = "there is no stationary density: it",
) -> None:
    """Refuse what has no stationary density beyond the grid, and a grid that cuts one.

    Args:
        log_p: log of the density, its peak 0, shape (nodes,).
        grid: The grid.
        truncated: Which ends only end the grid.
        lost: What there is not if the density grows towards an open end, and that it is this
            which grows.

    Raises:
        NotNormalizableError: If the density grows towards an open end.
        ValueError: If it is above 1e-2 of its peak there; above 1e-6 there is a warning.
    """
    low, in_low, in_high, high = (float(v) for v in log_p.numpy()[[0, 1, -2, -1]])
    rising = []
    for side, end, height, inner, is_open in (
        ("low", grid.low, low, in_low, truncated[0]),
        ("high", grid.high, high, in_high, truncated[1]),
    ):
        if is_open and height > math.log(_EDGE_FAILS) and height >= inner:
            how = "still grows" if height > inner else "does not fall"
            rising.append(
                f"{side} x (at x = {end:g} it is {math.exp(height):.3g} of its peak and {how})"
            )
    if rising:
        raise NotNormalizableError(
            f"{lost} grows towards {' and towards '.join(rising)}. If it turns beyond the grid, "
            "widen the grid; if the wall is real, pass truncation_is_physical=True."
        )
    _judge((math.exp(low) * truncated[0], math.exp(high) * truncated[1]), grid, "")


def check_edges(p: Tensor, times: Tensor, grid: Grid, truncated: tuple[bool, bool]) -> None:
    """Warn of, or refuse, a density in time that leans on a wall that only ends the grid.

    Args:
        p: Values, shape (T, nodes).
        times: Times, shape (T,).
        grid: The grid.
        truncated: Which ends only end the grid.

    Raises:
        ValueError: If it is above 1e-2 of its peak there; above 1e-6 there is a warning.
    """
    if not any(truncated):
        return
    values = p.numpy()
    peak = np.maximum.reduce(values, 1, keepdims=True)
    edges = values[:, :: values.shape[1] - 1]
    if np.count_nonzero(edges > _EDGE_WARNS * peak):
        ratio = edges * truncated / peak
        k = int(ratio.argmax()) // 2
        _judge(tuple(ratio[k].tolist()), grid, f" at t = {float(times[k]):g}")


def check_resolved(path: DensityPath) -> int:
    """Warn of a start so narrow that the grid does not resolve what becomes of it at once.

    A start at a point has moments that are those of the cells until it is some of them wide. A
    layer at a wall, or a kink where the drift jumps, may be as narrow whatever the start.

    Returns:
        Index of the first time after the start at which it is resolved.
    """
    seen = path if path.fine is None else path.fine
    first, last = 1, len(path) - 1
    while first <= last and not seen.at(first).is_resolved:
        first += 1
    if first == 1 or float(seen.p[1].detach().amax()) <= 0:
        return 1
    where = seen.at(first - 1).least_resolved
    text = (
        f"the start is so narrow, or the grid so coarse beside x = {where:g}, that it does not "
        f"resolve the density at t = {float(path.times[1]):g}"
    )
    if first > 2:
        text += f", nor up to t = {float(path.times[first - 1]):g}"
    warnings.warn(
        f"{text}: a cubic through every other node misses those between by more than 2 % of the "
        "peak, and widths and moments are those of the cells. Take more cells there, or look "
        "later.",
        AccuracyWarning,
        stacklevel=3,
    )
    return first


def check_accurate(error: ErrorEstimate, first: int, rtol: float, *, by_number: bool) -> None:
    """Warn of errors in time that exceed what was asked for, and refuses those above 10 %.

    Args:
        error: Errors at each time, shape (T,).
        first: Index of the first time that counts: what is not resolved before is told by itself.
        rtol: Largest error.
        by_number: Whether steps were asked for by number, which are taken whatever they err.

    Raises:
        SolverError: If one is above 10 % and steps were not asked for by number.
    """
    told = {name: torch.as_tensor(values)[first:] for name, values in error.items()}
    if not any(len(values) for values in told.values()):
        return
    later = ErrorEstimate(told, error.method)
    if float(later) > REFUSED and not by_number:
        raise SolverError(
            f"the density is not resolved: its estimated error is {float(later):.2g}, on the "
            "finest cells that can be afforded. Pass a grid with more cells where it is steep, "
            "Grid.of(nodes), or one that ends where the density does."
        )
    cure = (
        "Take more substeps, or steps that choose their length: integrator=None."
        if by_number
        else "Pass a grid with more cells where the density is steep: Grid.of(nodes)."
    )
    warn_inaccurate(later, "the density in time", cure, above=max(rtol, 0.0), stacklevel=4)


def _judge(ratio: tuple[float, float], grid: Grid, when: str) -> None:
    """Judge the densities at both ends against the peak."""
    high, worst = ratio[1] > ratio[0], max(ratio)
    if worst <= _EDGE_WARNS:
        return
    text = (
        f"the density at the {'high' if high else 'low'} end of the grid, x = "
        f"{grid.high if high else grid.low:g}, is {worst:.3g} of its peak{when}: the grid cuts "
        "it. Widen it, or pass truncation_is_physical=True if there is a real wall."
    )
    if worst > _EDGE_FAILS:
        raise ValueError(text)
    warnings.warn(text, UserWarning, stacklevel=5)
