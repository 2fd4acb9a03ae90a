"""sdegen simulate: trajectories of an SDE."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen import metrics, plots
from sdegen.app.commands.fokker_planck import gaussian_or_point
from sdegen.app.commands.objects import boundary_of, device_of, dtype_of, sde_of, solver_of
from sdegen.app.configs.simulate import SimulateConfig
from sdegen.core.boundary import Boundary
from sdegen.core.enclosure import BoundaryLike
from sdegen.core.errors import Interrupted, NonFiniteError, RankError, SolverError
from sdegen.core.noise import stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.ensemble import run_ensemble
from sdegen.engine.ensemble_result import Ensemble
from sdegen.engine.pool import check_threads
from sdegen.engine.ranks import Ranks, distributed_context
from sdegen.engine.simulate import simulate
from sdegen.engine.starts import Start
from sdegen.engine.store import seed_of_run
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.observables.base import Observable
from sdegen.observables.correlation import TimeCorrelation
from sdegen.observables.currents import ProbabilityCurrent
from sdegen.observables.histogram import Histogram
from sdegen.observables.moments import MomentEstimate, Moments
from sdegen.observables.passages import FirstPassage, Passages
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.storage import save_tensors


def resolved(config: SimulateConfig) -> SimulateConfig:
    """Settle an absolute path of the store; of an ensemble, seed and threads too.

    The seed of a store that is gone on with is the one that it was begun with.
    """
    if not config.is_ensemble:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError(
                "processes that torchrun started share an ensemble: pass --observables or --store."
            )
        return config
    path = None if config.store is None else Path(config.store).absolute()
    seed = seed_of_run(config.seed, path, resume=config.resume)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = check_threads(config.threads, processes=processes)
    store = None if path is None else str(path)
    return dataclasses.replace(config, store=store, seed=seed, threads=threads)


def run(config: SimulateConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Simulate, and write trajectory.safetensors and trajectory.png.

    Returns:
        The metrics.
    """
    if config.is_ensemble:
        return _run_ensemble(config, folder, progress)
    device, dtype = device_of(config.device), dtype_of(config.dtype)
    sde = sde_of(config.sde, config.diffusion, config.interpretation)
    times = torch.linspace(config.t0, config.t1, config.points, dtype=torch.float64)
    density = _density(config, sde, times) if config.fokker_planck else None
    try:
        path = simulate(
            sde,
            _start(config, dtype, device),
            times,
            solver=_solver(config),
            rng=config.seed,
            boundary=_boundary(config),
            keep_path=not config.last_only,
            on_nonfinite=config.on_nonfinite,
            interacting=config.interacting,
            progress=progress,
        )
    except (Interrupted, NonFiniteError) as stop:
        if isinstance(stop.result, Trajectory):
            _save(folder, stop.result)
        raise
    _save(folder, path)
    outcome = _metrics(path)
    if density is not None:
        plots.density_and_particles(density, path).savefig(folder / "trajectory.png")
        last = path.finite[-1]
        outcome["total_variation"] = metrics.total_variation(last, density.final)
        outcome["total_variation_floor"] = metrics.total_variation_floor(density.final, len(last))
    elif config.last_only and path.finite.shape[2:] == (1,):
        x = path.finite[-1, :, 0]
        plots.histogram(x, quantity="position x").savefig(folder / "trajectory.png")
    elif not config.last_only:
        # a track has two coordinates at most; of more the first two are seen
        seen = dataclasses.replace(path, states=path.states[..., :2])
        plots.paths(seen).savefig(folder / "trajectory.png")
    return outcome


def run_worker(config: SimulateConfig) -> None:
    """Compute the share of a rank that writes nothing but blocks."""
    with distributed_context(device_of(config.device)) as ranks:
        _ensemble(config, ranks, progress=False)


def _run_ensemble(config: SimulateConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Run the ensemble, and write observables.safetensors."""
    with distributed_context(device_of(config.device)) as ranks:
        try:
            ensemble = _ensemble(config, ranks, progress=progress)
        except (Interrupted, NonFiniteError, RankError, SolverError) as stop:
            if isinstance(stop.result, Ensemble):
                _save_observables(folder, stop.result)
            raise
    _save_observables(folder, ensemble)
    return _ensemble_metrics(ensemble)


def _ensemble(config: SimulateConfig, ranks: Ranks, *, progress: bool) -> Ensemble:
    """Run the ensemble that the config describes."""
    device, dtype = device_of(config.device), dtype_of(config.dtype)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", ranks.local % torch.cuda.device_count())
    return run_ensemble(
        sde_of(config.sde, config.diffusion, config.interpretation),
        _starts(config, dtype, device),
        torch.linspace(config.t0, config.t1, config.points, dtype=torch.float64),
        trajectories=config.trajectories,
        solver=_solver(config),
        observables=[_observable(config, name) for name in config.observables],
        store=config.store,
        resume=config.resume,
        keep_path=not config.last_only,
        threads=config.threads,
        rng=config.seed,
        boundary=_boundary(config),
        on_nonfinite=config.on_nonfinite,
        interacting=config.interacting,
        ranks=ranks,
        progress=progress,
    )


def _solver(config: SimulateConfig) -> Solver:
    """Return the solver that the config names, compiled if it asks for that."""
    if config.compile:
        kind = {"euler-maruyama": EulerMaruyama, "heun": Heun}[config.solver]
        return kind(substeps=config.substeps, compile=True)
    return solver_of(config.solver, config.substeps, config.tolerance)


def _starts(config: SimulateConfig, dtype: torch.dtype, device: torch.device) -> Start:
    """Return one row where all start, or a function that makes Gaussian starts of a block."""
    mean, std = torch.tensor([config.x0], dtype=dtype, device=device), config.x0_std
    if std == 0:
        return mean

    def start(rows: int, rng: torch.Generator) -> State:
        z = stream(rng, "x0").normal((rows, mean.shape[1]), dtype=dtype, device=device)
        return mean + std * z

    return start


def _observable(config: SimulateConfig, name: str) -> Observable:
    """Return the observable that a word names."""
    at = config.coordinate
    makers: dict[str, Callable[[], Observable]] = {
        "moments": Moments,
        "histogram": lambda: Histogram(*config.ends, config.cells, at),
        "correlation": TimeCorrelation,
        "first-passage": lambda: FirstPassage(
            config.above, config.below, config.between, at, config.bridge
        ),
        "current": lambda: ProbabilityCurrent(*config.ends, config.cells, coordinate=at),
    }
    return makers[name]()


def _save_observables(folder: Path, ensemble: Ensemble) -> None:
    """Save every number of every result, as observable.field."""
    tensors = {"times": ensemble.times}
    for name, result in ensemble.observables.items():
        for field, value in vars(result).items() if result is not None else ():
            if value is not None:
                tensors[f"{name}.{field}"] = torch.as_tensor(value)
    about = {"kind": "Ensemble", "nfe": ensemble.nfe, "seed": ensemble.seed}
    counts = {"trajectories": ensemble.trajectories, "nonfinite": ensemble.nonfinite}
    save_tensors(folder / "observables.safetensors", tensors, about | counts)


def _ensemble_metrics(ensemble: Ensemble) -> dict[str, Any]:
    """Return the numbers of the last time."""
    outcome: dict[str, Any] = {
        "t": float(ensemble.times[-1]),
        "trajectories": ensemble.trajectories,
        "nonfinite": ensemble.nonfinite,
    }
    for result in ensemble.observables.values():
        if isinstance(result, MomentEstimate):
            outcome["mean"] = result.mean[-1].flatten().tolist()
            outcome["std"] = result.std[-1].flatten().tolist()
        elif isinstance(result, Passages):
            outcome["survival"] = float(result.survival[-1])
            outcome["rate"], outcome["rate_error"] = result.rate, result.rate_error
    return outcome | {"nfe": ensemble.nfe, "seed": ensemble.seed}


def _boundary(config: SimulateConfig) -> BoundaryLike | None:
    """Return the boundary of the coordinate that the config names."""
    boundary = _ends(config)
    if boundary is None or len(config.x0) == 1:
        return boundary
    return {config.coordinate: boundary}


def _ends(config: SimulateConfig) -> Boundary | tuple[Boundary, Boundary] | None:
    """Return the boundary of one coordinate."""
    if config.boundary is None:
        return None
    return boundary_of(config.boundary, *config.ends)


def _start(config: SimulateConfig, dtype: torch.dtype, device: torch.device) -> State:
    """Draw Gaussian starts around x0, shape (trajectories, coordinates)."""
    x0 = torch.tensor(config.x0, dtype=dtype, device=device).expand(config.trajectories, -1)
    if config.x0_std == 0:
        return x0.clone()
    z = stream(config.seed, "x0").normal(tuple(x0.shape), dtype=dtype, device=device)
    return x0 + config.x0_std * z


def _density(config: SimulateConfig, sde: SDE, times: Tensor) -> DensityPath:
    """Solve for the density of the same SDE from the same start, in the same boundary."""
    if len(config.x0) != 1:
        raise ValueError(
            f"fokker_planck is for one-dimensional states, but x0 has {len(config.x0)} "
            "coordinates; leave --fokker-planck out."
        )
    grid = Grid(*config.ends, config.cells)
    solver = FokkerPlanck(sde, grid, _ends(config) or "no-flux")
    return solver.solve(gaussian_or_point(grid, config.x0[0], config.x0_std), times)


def _save(folder: Path, path: Trajectory) -> None:
    tensors = {"times": path.times, "states": path.states, "nonfinite": path.nonfinite}
    about = {"kind": "Trajectory", "nfe": path.nfe, "seed": path.seed}
    save_tensors(folder / "trajectory.safetensors", tensors, about)


def _metrics(path: Trajectory) -> dict[str, Any]:
    """Return moments of the last states by coordinate, and what they cost."""
    last = path.finite[-1].flatten(1).double()
    return {
        "t": float(path.times[-1]),
        "trajectories": len(path.nonfinite),
        "nonfinite": int(path.nonfinite.sum()),
        "mean": last.mean(0).tolist() if len(last) else [],
        "std": last.std(0).tolist() if len(last) > 1 else [],
        "nfe": path.nfe,
        "seed": path.seed,
    }
