"""Laws on the nodes of a grid, computed on a finer one where that grid is too coarse for them."""

from __future__ import annotations

import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundaryLike
from sdegen.verification.chain import ChainDensity

_FINER = (1, 4, 16)  # a start at a point is narrow at first


def chain_law(
    sde: SDE,
    grid: Grid,
    solver: FixedStep,
    p0: Density | float,
    times: Tensor,
    boundary: GridBoundaryLike | None = None,
) -> DensityPath:
    """Return the law of a chain at the nodes of a grid, however much of it the grid cuts.

    Raises:
        ValueError: As `ChainDensity.run` does; if every grid is too coarse, that of the first.
        TypeError: If the solver has no chain.
    """
    errors: list[ValueError] = []
    for finer in _FINER:
        fine = Grid(grid.low, grid.high, finer * grid.cells)
        start = p0 if isinstance(p0, int | float) else refined(p0, fine)
        try:
            path = ChainDensity(sde, fine, solver, boundary=boundary)._unjudged(start, times)
        except ValueError as error:
            errors.append(error)
            continue
        return DensityPath(path.times, path.p[:, ::finer].contiguous(), grid.nodes)
    raise errors[0]


def refined(p0: Density, fine: Grid) -> Density:
    """Return the same density on a finer grid, by a spline of degree 7."""
    if fine.cells == len(p0.x) - 1:
        return p0
    p = make_interp_spline(p0.x.numpy(), p0.p.detach().double().numpy(), k=7)(fine.nodes.numpy())
    return Density(fine.nodes, torch.from_numpy(p).clamp(min=0)).normalized()
