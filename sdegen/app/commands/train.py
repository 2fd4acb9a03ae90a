"""sdegen train: the score of data under a noising SDE."""

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

from torch import nn

from sdegen import plots
from sdegen.app.commands.datasets import training_data
from sdegen.app.commands.objects import device_of, dtype_of
from sdegen.app.configs.train import TrainRunConfig
from sdegen.app.runs import MODEL
from sdegen.core.errors import NonFiniteError
from sdegen.diffusion import schedules
from sdegen.diffusion.gaussian_path import VE, VP, GaussianPath, SubVP
from sdegen.diffusion.paths import EDM, RectifiedFlow
from sdegen.score import parameterization, preconditioning
from sdegen.score.config import TrainConfig
from sdegen.score.model import ScoreModel
from sdegen.score.networks import MLP, UNet
from sdegen.score.training import train
from sdegen.storage import save_tensors
from sdegen.training.result import TrainResult


def resolved(config: TrainRunConfig) -> TrainRunConfig:
    """Settle the size of the network."""
    kind, depth = (MLP, "depth") if config.network == "mlp" else (UNet, "levels")
    defaults = inspect.signature(kind).parameters
    return dataclasses.replace(
        config,
        width=config.width or defaults["width"].default,
        depth=config.depth or defaults[depth].default,
    )


def run(config: TrainRunConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Train, and write model.safetensors, losses.safetensors and losses.png.

    Checkpoints go to the folder `checkpoints`; where there are some, the run goes on from the
    newest.

    Returns:
        The metrics.
    """
    device, dtype = device_of(config.device), dtype_of(config.dtype)
    assert config.seed is not None  # it is resolved
    sets = training_data(
        config.data,
        samples=config.samples,
        validation=config.validation,
        seed=config.seed,
        dtype=dtype,
        device=device,
    )
    event = tuple(sets.train.shape[1:])
    labels = validation_labels = None
    classes = 0
    if config.classes:
        if sets.labels is None:
            raise ValueError(
                f"classes: {config.data} has no labels; leave --classes out, or pass "
                "--data digits, the named data that have some."
            )
        labels, validation_labels = sets.labels, sets.validation_labels
        classes = int(labels.max()) + 1
    network = _network(config, event, classes).to(device=device, dtype=dtype)
    model = ScoreModel(network, _noising(config), _parameterization(config))
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    try:
        result = train(
            model,
            sets.train,
            TrainConfig(**{name: getattr(config, name) for name in names}),
            rng=config.seed,
            labels=labels,
            validation=sets.validation,
            validation_labels=validation_labels,
            augment=sets.augment,
            folder=folder / "checkpoints",
            resume=True,
            progress=progress,
        )
    except NonFiniteError as stop:
        if isinstance(stop.result, TrainResult):
            _save_losses(folder, stop.result)
        raise
    model.save(folder / MODEL)
    _save_losses(folder, result)
    plots.loss_curve(result).savefig(folder / "losses.png")
    validated = result.validation_losses
    tail = result.losses[-max(1, len(result.losses) // 20) :]
    return {
        "rows": len(sets.train),
        "event_shape": list(event),
        "classes": classes,
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": len(result.losses),
        "loss": float(tail.mean()),
        "validation_loss": float(validated.min()) if len(validated) else None,
        "selected_step": result.selected_step,
        "seed": result.seed,
    }


def _network(config: TrainRunConfig, event: tuple[int, ...], classes: int) -> nn.Module:
    """Make the network, of the size of the data and with as many classes."""
    assert config.width is not None  # it is resolved
    assert config.depth is not None
    if config.network == "mlp":
        return MLP(math.prod(event), config.width, config.depth, classes=classes, rng=config.seed)
    if len(event) != 3:
        raise ValueError(
            "network = 'unet' takes images of shape (channels, height, width), but a row of "
            f"{config.data} has shape {event}; use --network mlp."
        )
    return UNet(event[0], config.width, config.depth, classes=classes, rng=config.seed)


def _noising(config: TrainRunConfig) -> GaussianPath:
    """Return the noising SDE."""
    if config.family == "ve":
        return VE(schedules.GeometricSigma(config.sigma_min, config.sigma_max))
    if config.family == "edm":
        return EDM(t_min=config.sigma_min, t_max=config.sigma_max)
    if config.family == "rectified-flow":
        return RectifiedFlow()
    rates: dict[str, schedules.BetaSchedule] = {
        "linear": schedules.LinearBeta(config.beta_min, config.beta_max),
        "quadratic": schedules.QuadraticBeta(config.beta_min, config.beta_max),
        "constant": schedules.ConstantBeta(config.beta_min),
        "cosine": schedules.CosineBeta(),
    }
    return {"vp": VP, "subvp": SubVP}[config.family](rates[config.schedule])


def _parameterization(config: TrainRunConfig) -> parameterization.Parameterization:
    """Return the parameterization of the network's output."""
    if config.parameterization == "edm":
        return preconditioning.EDMPrediction(config.sigma_data)
    kinds: dict[str, type[parameterization.Parameterization]] = {
        "eps": parameterization.EpsPrediction,
        "x0": parameterization.X0Prediction,
        "v": parameterization.VPrediction,
        "score": parameterization.ScorePrediction,
        "flow": preconditioning.FlowPrediction,
    }
    return kinds[config.parameterization]()


def _save_losses(folder: Path, result: TrainResult) -> None:
    tensors = {
        "losses": result.losses,
        "validation_steps": result.validation_steps,
        "validation_losses": result.validation_losses,
    }
    save_tensors(
        folder / "losses.safetensors", tensors, {"kind": "TrainResult", "seed": result.seed}
    )
