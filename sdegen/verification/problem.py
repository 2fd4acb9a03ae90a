"""The problem of a certificate, and its laws at the nodes of a grid.

Where that grid is too coarse for the law of the chain, it is computed on a finer one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization import grid_boundary
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.verification.chain import ChainDensity

_FINER = (1, 4, 16)  # a start at a point is narrow at first
_OWN_CHECK = 1.0  # densities do not refine themselves: the grid has a check of its own


@dataclass(frozen=True)
class Problem:
    """An equation, how it is solved, and where and when its laws are compared.

    Attributes:
        sde: The equation.
        solver: How a step is taken.
        grid: Uniform nodes.
        p0: Density at times[0] on the grid, or a point.
        times: Times from the start on.
        boundary: What walls at the ends of the grid do; None if the state is free.
    """

    sde: SDE
    solver: Solver
    grid: Grid
    p0: Density | float
    times: Tensor
    boundary: grid_boundary.GridBoundaryLike | None

    @cached_property
    def ends(self) -> grid_boundary.GridBoundary | None:
        """The walls at the ends of the grid, None where there are none."""
        if self.boundary is None:
            return None
        return grid_boundary.boundary_of_grid(self.boundary, self.grid, physical=True)

    @property
    def absorbs(self) -> bool:
        """Whether a wall absorbs."""
        return self.ends is not None and any(self.ends.absorbs)

    def chain_law(self) -> DensityPath:
        """Return the law of the chain at the nodes of the grid, however much of it the grid cuts.

        Raises:
            ValueError: As `ChainDensity.run` does; if every grid is too coarse, that of the first.
            TypeError: If the solver has no chain.
        """
        errors: list[ValueError] = []
        for finer in _FINER:
            grid, start = self._refined(finer)
            try:
                chain = ChainDensity(self.sde, grid, self.solver, boundary=self.boundary)  # type: ignore[arg-type]
                path = chain._unjudged(start, self.times)
            except ValueError as error:
                errors.append(error)
                continue
            return DensityPath(path.times, path.p[:, ::finer].contiguous(), self.grid.nodes)
        raise errors[0]

    def density(self, finer: int = 1) -> DensityPath:
        """Return the Fokker–Planck density, on a grid that is finer by a factor."""
        grid, start = self._refined(finer)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # edges are checked
            solver = FokkerPlanck(
                self.sde, grid, self.boundary or "no-flux", truncation_is_physical=True
            )
            return solver.solve(start, self.times, rtol=_OWN_CHECK)

    def _refined(self, finer: int) -> tuple[Grid, Density | float]:
        """Return a finer grid, and the start on it, by a spline of degree 7."""
        if finer == 1:
            return self.grid, self.p0
        grid, p0 = Grid(self.grid.low, self.grid.high, finer * self.grid.cells), self.p0
        if isinstance(p0, int | float):
            return grid, p0
        spline = make_interp_spline(p0.x.numpy(), p0.p.detach().double().numpy(), k=7)
        p = torch.from_numpy(spline(grid.nodes.numpy()))
        return grid, Density(grid.nodes, p.clamp(min=0)).normalized()
