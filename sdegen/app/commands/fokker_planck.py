"""sdegen fokker-planck: the density of a one-dimensional SDE."""

from pathlib import Path
from typing import Any

import torch

from sdegen import plots
from sdegen.app.commands.objects import boundary_of, sde_of
from sdegen.app.configs.fokker_planck import FokkerPlanckConfig
from sdegen.core.conditions import BoundaryCondition
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundaryLike
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.storage import save_tensors


def resolved(config: FokkerPlanckConfig) -> FokkerPlanckConfig:
    """Return the config: nothing is left to settle."""
    return config


def run(config: FokkerPlanckConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Solve, and write density.safetensors and density.png.

    Returns:
        The metrics: mass, mean and standard deviation at the last time, and of what is stationary.
    """
    sde = sde_of(config.sde, config.diffusion, config.interpretation)
    grid = Grid(config.low, config.high, config.cells)
    boundary: GridBoundaryLike = boundary_of(config.boundary, config.low, config.high)
    if config.boundary in set(BoundaryCondition):  # then its ends may only end the grid
        boundary = BoundaryCondition(config.boundary)
    physical = config.truncation_is_physical
    solver = FokkerPlanck(sde, grid, boundary, truncation_is_physical=physical)
    times = torch.linspace(config.t0, config.t1, config.points, dtype=torch.float64)
    path = solver.solve(gaussian_or_point(grid, config.mean, config.std), times)
    tensors = {"x": path.x, "times": path.times, "p": path.p}
    metrics: dict[str, Any] = {"t": config.t1} | _moments(path.final)
    if config.stationary:
        still = solver.stationary()
        tensors["stationary"] = still.p
        metrics |= {f"stationary_{name}": value for name, value in _moments(still).items()}
    save_tensors(folder / "density.safetensors", tensors, {"kind": "DensityPath"})
    plots.density_heatmap(path).savefig(folder / "density.png")
    return metrics


def gaussian_or_point(grid: Grid, mean: float, std: float) -> Density:
    """Return a Gaussian or, without width, all mass at one point."""
    return grid.point(mean) if std == 0 else grid.gaussian(mean, std)


def _moments(density: Density) -> dict[str, float]:
    return {"mass": float(density.mass), "mean": float(density.mean), "std": float(density.std)}
