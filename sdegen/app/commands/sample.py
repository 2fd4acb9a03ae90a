"""sdegen sample: new data from a trained model, by one of the routes backwards."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen import metrics, plots
from sdegen.app.commands.datasets import held_out
from sdegen.app.commands.models import event_shape, load_model, model_file
from sdegen.app.commands.objects import device_of, dtype_of
from sdegen.app.configs.sample import SampleConfig
from sdegen.core.errors import Interrupted
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.ddim import DDIM
from sdegen.diffusion.samplers.multistep import ExponentialAdams, ExponentialAdamsMoulton
from sdegen.diffusion.timesteps import log_snr, made_for
from sdegen.engine.samples import sample
from sdegen.engine.simulate import simulate
from sdegen.score.composition import guided
from sdegen.score.model import ScoreModel
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.solvers.torch_sde import TorchSDE
from sdegen.storage import save_tensors

_PILOT = 48  # states, of which a grid is made


def resolved(config: SampleConfig) -> SampleConfig:
    """Settle the file of the model, the shape of a sample and the number of steps."""
    file, steps = model_file(config.model), config.steps
    steps = (50 if config.route == "default" else 200) if steps is None else steps
    shape = config.shape or event_shape(file)
    return dataclasses.replace(config, model=file, shape=shape, steps=steps)


def run(config: SampleConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Generate, and write samples.safetensors and samples.png.

    Returns:
        The metrics: what the samples cost and, beside data, how far they are from them.
    """
    device, dtype, seed = device_of(config.device), dtype_of(config.dtype), config.seed
    assert config.shape is not None  # it is resolved
    assert seed is not None
    model = load_model(config.model, dtype, device)
    data = None
    if config.data is not None:
        data = held_out(config.data, samples=None, seed=seed, dtype=dtype, device=device)
        if data.shape[1:] != config.shape:
            raise ValueError(
                f"data = {config.data!r} has rows of shape {tuple(data.shape[1:])}, but shape is "
                f"{config.shape}."
            )
    try:
        x, nfe, more = _drawn(config, model, progress)
    except Interrupted as stop:
        if isinstance(stop.result, Trajectory):
            _save(folder, stop.result.final, stop.result.nfe, seed)
        raise
    _save(folder, x, nfe, seed)
    _picture(x, data, config.route, folder)
    outcome: dict[str, Any] = {"samples": len(x), "route": config.route}
    outcome |= {"nfe": nfe, "seed": seed} | more
    if data is not None:
        outcome |= _distances(x, data)
    return outcome


def _drawn(
    config: SampleConfig, model: ScoreModel, progress: bool
) -> tuple[Tensor, int, dict[str, Any]]:
    """Return samples, evaluations of the score that each took, and what else is to be told."""
    dtype, device, seed = dtype_of(config.dtype), device_of(config.device), config.seed
    assert config.shape is not None  # it is resolved
    if config.route == "default":
        model.event_shape = config.shape
        drawn = sample(
            model,
            config.samples,
            labels=config.label,
            guidance=config.guidance,
            steps=config.steps,
            rng=seed,
            dtype=dtype,
            device=device,
            progress=progress,
        )
        return drawn.x, drawn.nfe, {"how": str(drawn)}
    # beside the samples' own starts: a grid is not to be made for them
    source = stream(seed, "pilot of a grid").generator()
    pilot = model.path.prior((_PILOT, *config.shape), rng=source, dtype=dtype, device=device)
    dynamics, times, solver, cost = _route(config, model.path, _score(config, model), pilot)
    x_T = model.path.prior((config.samples, *config.shape), rng=seed, dtype=dtype, device=device)
    path = simulate(
        dynamics, x_T, times, solver=solver, rng=seed, keep_path=False, progress=progress
    )
    return path.final, path.nfe, {"grid_evaluations": cost} if cost else {}


def _score(config: SampleConfig, model: ScoreModel) -> ScoreFn:
    """Return the score of all classes, of one, or of one with guidance."""
    if config.label is None:
        return model.score
    conditional = model.conditional(config.label).score
    return guided(conditional, model.score, config.guidance) if config.guidance else conditional


def _route(
    config: SampleConfig, sde: GaussianPath, score: ScoreFn, pilot: Tensor
) -> tuple[SDE, Tensor, Solver, int]:
    """Return dynamics, times and solver of a route, and evaluations that its grid has cost."""
    steps = config.steps
    assert steps is not None  # it is resolved
    if config.route == "ddpm":
        chain = DDPM.discretize(sde, steps)
        return chain.reverse(score), torch.arange(steps + 1.0).flip(0), EulerMaruyama(), 0
    solvers: dict[str, Solver] = {
        "sde": EulerMaruyama(),
        "sde-torchsde": TorchSDE("heun"),
        "sde-adams": ExponentialAdamsMoulton(2, "v"),
        "sde-dpmpp": ExponentialAdams(2, "x0", rule="midpoint"),
        "flow-adams": ExponentialAdams(3, "v"),
        "flow-dpmpp": ExponentialAdams(2, "x0", rule="midpoint"),
        "flow-heun": Heun(),
        "flow-ddim": DDIM(),
        "flow-dopri5": TorchDiffEq("dopri5", rtol=config.tolerance, atol=config.tolerance),
    }
    eta = 0.0 if config.route.startswith("flow") else 1.0
    # an adaptive solver stops at every time it is given, and needs the two ends alone
    grid = sde.time_grid(1 if config.route == "flow-dopri5" else steps)
    dynamics, solver = ReverseSDE(sde, score, eta), solvers[config.route]
    if config.route.endswith(("adams", "dpmpp")):
        grid = log_snr(sde, steps)  # their polynomials are in λ
    if eta == 0 and isinstance(solver, FixedStep):
        made = made_for(dynamics, steps, pilot, solver=solver)
        return dynamics, made.times, solver, made.evaluations
    return dynamics, grid, solver, 0


def _save(folder: Path, x: Tensor, nfe: int, seed: int) -> None:
    about = {"kind": "samples", "nfe": nfe, "seed": seed}
    save_tensors(folder / "samples.safetensors", {"samples": x}, about)


def _distances(samples: Tensor, data: Tensor) -> dict[str, float]:
    """Measure distances to the data, and their floor, the distance between two halves."""
    half = len(data) // 2
    distances = {
        "sliced_wasserstein": metrics.sliced_wasserstein(samples, data),
        "energy_distance": metrics.energy_distance(samples, data),
    }
    if half:
        one, other = data[:half], data[half : 2 * half]
        distances["sliced_wasserstein_floor"] = metrics.sliced_wasserstein(one, other)
        distances["energy_distance_floor"] = metrics.energy_distance(one, other)
    return distances


def _picture(samples: Tensor, data: Tensor | None, route: str, folder: Path) -> None:
    """Draw a sheet of images, or a cloud in the plane; other shapes have no picture."""
    shape = tuple(samples.shape[1:])
    if len(shape) == 3 and shape[0] == 1:
        sheets = {route: samples} if data is None else {route: samples, "data": data}
        plots.image_sheet(sheets).savefig(folder / "samples.png")
    elif shape == (2,):
        figure = plots.samples_2d({route: samples}, samples if data is None else data)
        figure.savefig(folder / "samples.png")
