"""sdegen simulate: trajectories of an SDE."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen import metrics, plots
from sdegen.commands.fokker_planck import gaussian_or_point
from sdegen.commands.objects import device_of, dtype_of, sde_of, solver_of
from sdegen.configs import SimulateConfig
from sdegen.errors import Interrupted, NonFiniteError
from sdegen.fokker_planck.density import DensityPath
from sdegen.fokker_planck.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.noise import stream
from sdegen.sde.base import SDE
from sdegen.shapes import State
from sdegen.simulation.simulate import simulate
from sdegen.storage import save_tensors
from sdegen.trajectory import Trajectory
from sdegen.walls import Walls

__all__ = ["resolved", "run"]


def resolved(config: SimulateConfig) -> SimulateConfig:
    """Nothing is left to settle."""
    return config


def run(config: SimulateConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Simulates, and writes trajectory.safetensors and trajectory.png.

    Returns:
        The metrics.
    """
    device, dtype = device_of(config.device), dtype_of(config.dtype)
    sde = sde_of(config.sde, config.diffusion, config.interpretation)
    times = torch.linspace(config.t0, config.t1, config.points, dtype=torch.float64)
    walls = None
    if config.walls is not None:
        assert config.low is not None  # the config saw to it
        assert config.high is not None
        walls = Walls(config.low, config.high, config.walls)
    density = _density(config, sde, times) if config.fokker_planck else None
    try:
        path = simulate(
            sde,
            _start(config, dtype, device),
            times,
            solver=solver_of(config.solver, config.substeps, config.tolerance),
            rng=config.seed,
            walls=walls,
            keep_path=not config.last_only,
            on_nonfinite=config.on_nonfinite,
            progress=progress,
        )
    except (Interrupted, NonFiniteError) as stop:
        if isinstance(stop.result, Trajectory):
            _save(folder, stop.result)
        raise
    _save(folder, path)
    found = _metrics(path)
    if density is not None:
        plots.density_and_particles(density, path).savefig(folder / "trajectory.png")
        found |= _against(path, density)
    elif config.last_only and path.finite.shape[2:] == (1,):
        last = path.finite[-1, :, 0]
        plots.histogram(last, quantity="position x").savefig(folder / "trajectory.png")
    elif not config.last_only:
        # a track has two coordinates at most; of more the first two are seen
        seen = dataclasses.replace(path, states=path.states[..., :2])
        plots.paths(seen).savefig(folder / "trajectory.png")
    return found


def _start(config: SimulateConfig, dtype: torch.dtype, device: torch.device) -> State:
    """x0 and Gaussian starts around it, shape (trajectories, coordinates)."""
    x0 = torch.tensor(config.x0, dtype=dtype, device=device).expand(config.trajectories, -1)
    if config.x0_std == 0:
        return x0.clone()
    z = stream(config.seed, "x0").normal(tuple(x0.shape), dtype=dtype, device=device)
    return x0 + config.x0_std * z


def _density(config: SimulateConfig, sde: SDE, times: Tensor) -> DensityPath:
    """The density of the same SDE from the same start, between the same walls."""
    if len(config.x0) != 1:
        raise ValueError(
            f"fokker_planck is for one-dimensional states, but x0 has {len(config.x0)} "
            "coordinates; leave --fokker-planck out."
        )
    assert config.low is not None  # the config saw to it
    assert config.high is not None
    grid = Grid(config.low, config.high, config.cells)
    boundary = config.walls or "no-flux"
    solver = FokkerPlanck(sde, grid, boundary, physical_walls=config.walls is not None)
    return solver.solve(gaussian_or_point(grid, config.x0[0], config.x0_std), times)


def _against(path: Trajectory, density: DensityPath) -> dict[str, float]:
    """Total variation between particles and density at the end, and what exact samples show."""
    last = path.finite[-1]
    return {
        "total_variation": metrics.total_variation(last, density.final),
        "total_variation_floor": metrics.total_variation_floor(density.final, len(last)),
    }


def _save(folder: Path, path: Trajectory) -> None:
    tensors = {"times": path.times, "states": path.states, "nonfinite": path.nonfinite}
    about = {"kind": "Trajectory", "nfe": path.nfe, "seed": path.seed}
    save_tensors(folder / "trajectory.safetensors", tensors, about)


def _metrics(path: Trajectory) -> dict[str, Any]:
    """What the last states are like, coordinate by coordinate, and what they cost."""
    last = path.finite[-1].flatten(1).double()
    return {
        "t": float(path.times[-1]),
        "trajectories": len(path.nonfinite),
        "nonfinite": int(path.nonfinite.sum()),
        "mean": _numbers(last.mean(0)) if len(last) else [],
        "std": _numbers(last.std(0)) if len(last) > 1 else [],
        "nfe": path.nfe,
        "seed": path.seed,
    }


def _numbers(x: Tensor) -> list[float]:
    return [float(value) for value in x]
