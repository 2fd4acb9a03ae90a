"""Training: a score from data by denoising score matching.

AdamW, a linear warm-up and half a cosine, gradients cut at a length, and an exponential moving
average of the weights, which is what the model ends with: the loss of one step is noisy however
long one trains, and the average is not. Its decay starts at (1 + k)/(10 + k), so that it forgets
the first weights.

**The same bits.** Step k draws its rows, times and noise from the stream (seed, "train", k) and
from nothing else. A run that was killed goes on from its last checkpoint and ends where the run
that was never cut ends, bit for bit, with the same number of threads.

**Scale.** Networks are made for data of order one. Data that are more than ten times larger or
smaller than the path and the parameterization expect are told by an `AccuracyWarning` with the
numbers; nothing is scaled in silence.

**Ranks.** Under torchrun all ranks train one model together within `with sg.joined_ranks():`
(`run.py`), and outside it are refused.

**When to stop.** A network with room for it learns the data by heart: the loss on other data
passes through a minimum. Give `validation` and keep="best", and the model ends with the averaged
weights that were best there. The validation loss is taken with the same times and noise at every
look, so that its changes are those of the network.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.core.errors import AccuracyWarning
from sdegen.core.noise import Rng, seed_of
from sdegen.core.requests import as_state, kind_of
from sdegen.score.checkpoints import Checkpoints
from sdegen.score.config import TrainConfig
from sdegen.score.description import describe
from sdegen.score.group import Group
from sdegen.score.model import ScoreModel, check_labels
from sdegen.score.preconditioning import EDMPrediction
from sdegen.score.run import Augment, TrainingRun, TrainResult
from sdegen.storage import fingerprint

__all__ = ["Augment", "TrainResult", "train"]

_EXAMPLES = ("data", "labels", "validation")  # known by digests, which say nothing to a reader
_FAR = 10.0  # times larger or smaller than expected, from which a scale is told


def train(
    model: ScoreModel,
    data: Tensor,
    config: TrainConfig | None = None,
    *,
    rng: Rng = None,
    labels: Tensor | None = None,
    validation: Tensor | None = None,
    validation_labels: Tensor | None = None,
    augment: Augment | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> TrainResult:
    """Learns a score, in place.

    Args:
        model: The model; ends with the moving average of its weights, in evaluation mode.
        data: Examples, shape (n, *event), scaled to order one.
        config: How; None is `TrainConfig()`.
        rng: Seed, generator or None.
        labels: The class of each example, shape (n,), for a network with classes. In a share
            `label_dropout` of the rows it is not told, so that `model.score` is the score of all
            classes together and `model.conditioned(label).score` that of one.
        validation: Other examples, shape (m, *event), on which the loss is followed.
        validation_labels: The same for them, shape (m,).
        augment: augment(rows, stream) returns other rows that are as likely as these, such as
            fresh dequantisation noise; its random numbers come from the stream.
        folder: Where checkpoints go; None keeps none.
        resume: Go on from the newest checkpoint in the folder, if there is one.
        progress: Show a progress bar.

    Returns:
        The losses, and what it takes to repeat them.

    Raises:
        TypeError: If data are not a floating-point tensor.
        ValueError: If data are empty or not finite, if labels are missing, or not those of a
            network's classes, if the folder holds another run or, without
            `resume`, any.
        NonFiniteError: If the loss becomes NaN or infinite. The model has the averaged weights of
            the step before, and `.result` the losses so far.
        CheckpointError: If the newest checkpoint is damaged.
        RankError: If ranks that train together were given other data or configurations.
        KeyboardInterrupt: On Ctrl-C, after the step has ended and a checkpoint is saved; a second
            one leaves at once.

    Reference:
        Song et al. 2021, eq. (7), arXiv:2011.13456; Ho et al. 2020, algorithm 1, arXiv:2006.11239.
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(
            f"model must be a ScoreModel, but is {kind_of(model)}; a network and the SDE that "
            "noises its data make one: ScoreModel(network, VP(LinearBeta(0.1, 20.0)))."
        )
    if not (config is None or isinstance(config, TrainConfig)):
        raise TypeError(f"config must be a TrainConfig or None, but is {kind_of(config)}.")
    config = TrainConfig() if config is None else config
    group = Group.joined()
    model.sde.check_rates()
    data = _check_data("data", data)
    if validation is not None:
        validation = _check_data("validation", validation)
        if validation.shape[1:] != data.shape[1:]:
            raise ValueError(
                f"validation must hold events of shape {tuple(data.shape[1:])} like data, but "
                f"holds {tuple(validation.shape[1:])}."
            )
    elif config.keep == "best":
        raise ValueError(
            "keep='best' asks for the best weights on the validation data, but none were given."
        )
    _check_labels("labels", labels, data, model)
    _check_labels("validation_labels", validation_labels, validation, model)
    if resume and folder is None:
        raise ValueError("resume=True needs the folder to go on from; pass folder=.")
    checkpoints = None if folder is None else Checkpoints(Path(folder))
    saved = None
    if checkpoints is not None and (steps := checkpoints.steps()):
        if not resume:
            raise ValueError(
                f"{folder} already holds a training run (step {steps[-1]}); pass resume=True or "
                "another folder."
            )
        saved = checkpoints.newest()
    seed = int(saved[1]["run"]["seed"]) if saved is not None and rng is None else seed_of(rng)
    seed = group.agreed(seed)
    _warn_scale(data, model)
    identity = _identity(model, data, validation, augment, config, seed)
    if labels is None:
        del identity["config"]["label_dropout"]  # it changes nothing
    else:
        identity["labels"] = fingerprint(labels.long())
    group.check_same({**identity, "checkpoint": None if saved is None else saved[1]["step"]})
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "train needs gradients, which torch.inference_mode() takes away; call it outside."
        )
    run = TrainingRun(
        model,
        data,
        validation,
        augment,
        config,
        seed,
        identity,
        checkpoints,
        labels,
        validation_labels,
        group,
    )
    if saved is not None:
        _check_same_run(_with_defaults(saved[1]["run"]), _with_defaults(identity))
        run.restore(*saved)
    with torch.enable_grad():  # what calls it may have switched them off
        return run.go(progress)


def _check_data(name: str, data: object) -> Tensor:
    """Return data as a tensor, or refuse what cannot be learned from."""
    data = as_state(name, data)
    if not data.is_floating_point():
        raise TypeError(
            f"{name} must be floating point, but is {data.dtype}; dequantise integers and scale "
            "them to [-1, 1]."
        )
    if data.ndim < 2 or data.numel() == 0:
        raise ValueError(
            f"{name} must have shape (n, *event) with n ≥ 1, but has shape {tuple(data.shape)}."
        )
    bad = ~data.flatten(1).isfinite().all(1)
    if bool(bad.any()):
        raise ValueError(
            f"{name} has {int(bad.sum())} of {len(data)} rows that are not finite, the first of "
            f"them row {int(bad.nonzero()[0])}; remove them."
        )
    return data


def _warn_scale(data: Tensor, model: ScoreModel) -> None:
    """Warn where data are of another scale than the network expects, or not small beside noise."""
    how, sde = model.parameterization, model.sde
    wanted = how.sigma_data if isinstance(how, EDMPrediction) else 1.0
    flat = data.double()
    mean, std = float(flat.mean()), float((flat - flat.mean(0)).square().mean().sqrt())
    size = float(flat.square().mean().sqrt())
    end = torch.tensor(sde.t_max, dtype=torch.float64)
    signal, noise = float(sde.alpha(end)) * size, float(sde.sigma(end))
    seen = f"data have the mean {mean:.3g} and the standard deviation {std:.3g}"
    cure = f"train on (data - {mean:.3g})/{max(std, 1e-300) / wanted:.3g}, and undo it in samples"
    if size > _FAR * wanted or size < wanted / _FAR:
        text = (
            f"{seen}, but a network of {type(how).__name__} expects about 0 ± {wanted:g}: {cure}."
        )
    elif signal > noise:
        text = (
            f"{seen}, which leaves {signal:.3g} of them in x at t_max = {sde.t_max:g}, not small "
            f"beside its noise of {noise:.3g}, from which samples begin: {cure}, or take a path "
            "with more noise."
        )
    else:
        return
    warnings.warn(text, AccuracyWarning, stacklevel=3)


def _check_labels(
    name: str, labels: Tensor | None, rows: Tensor | None, model: ScoreModel
) -> None:
    """Refuses labels that do not go with the rows or the network, and their absence."""
    classes = int(getattr(model.network, "classes", 0))
    if labels is None:
        if classes and rows is not None:
            raise ValueError(
                f"the network has classes = {classes}, but no {name} were given; pass {name}=, or "
                "make it without classes."
            )
        return
    check_labels(name, labels, model.network)
    count = 0 if rows is None else len(rows)
    if labels.shape != (count,):
        raise ValueError(
            f"{name} must have shape ({count},), one for each row, but have {tuple(labels.shape)}."
        )


def _identity(
    model: ScoreModel,
    data: Tensor,
    validation: Tensor | None,
    augment: Augment | None,
    config: TrainConfig,
    seed: int,
) -> dict[str, Any]:
    """What makes a run this run and no other."""
    settled = dataclasses.asdict(config)
    del settled["checkpoint_every"]  # how often it is saved changes nothing of it
    if config.precision == "full":
        del settled["precision"]  # which files of before there was another do not name
    return {
        "config": settled,
        "seed": seed,
        "network": describe(model.network),
        "sde": describe(model.sde),
        "parameterization": describe(model.parameterization),
        "data": fingerprint(data),
        "validation": None if validation is None else fingerprint(validation),
        "augment": augment is not None,
    }


def _with_defaults(identity: dict[str, Any]) -> dict[str, Any]:
    """The same with what its configuration leaves unsaid, as a user would have to say it."""
    return {**identity, "config": {"precision": "full", **identity["config"]}}


def _check_same_run(saved: dict[str, Any], given: dict[str, Any], prefix: str = "") -> None:
    """Refuses to go on with another run, naming the first thing that differs."""
    # data and labels first: with them the configuration says more
    for key in sorted(set(saved) | set(given), key=lambda key: (key not in _EXAMPLES, key)):
        there, here = saved.get(key), given.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            _check_same_run(there, here, f"{prefix}{key}.")
        elif there != here and key in _EXAMPLES:
            raise ValueError(
                f"the checkpoint is of another run: its {key} were others; pass the same, or "
                "another folder."
            )
        elif there != here:
            raise ValueError(
                f"the checkpoint is of another run: {prefix}{key} is {there!r} there and {here!r} "
                "here; pass what that run was started with, or another folder."
            )
