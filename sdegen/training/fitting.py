"""Fitting: a module trained on data with a loss of its user's.

AdamW, a linear warm-up and half a cosine, gradients cut at a length, and an exponential moving
average of the weights, which is what the module ends with: the loss of one step is noisy however
long one trains, and the average is not.

**The same bits.** Step k draws its rows and noise from the stream (seed, "train", k) and from
nothing else. A run that was killed is resumed from its last checkpoint and ends where an unbroken
run ends, bit for bit, with the same number of threads.

**Ranks.** Under torchrun all ranks train one module together within
`with sg.distributed_context():` (`run.py`), and outside it are refused.

**When to stop.** A module with room for it memorises its data: the loss on other data passes
through a minimum. Give `validation` and keep="best", and the module ends with the averaged weights
that were best there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.core.fingerprint import fingerprint, to_spec
from sdegen.core.noise import Rng, seed_of
from sdegen.core.requests import check_kind
from sdegen.training.callbacks import ProgressBar, StepReport, as_callbacks
from sdegen.training.checkpoints import Checkpoints, Saved
from sdegen.training.config import FitConfig
from sdegen.training.doors import Data, open_source, read_whole
from sdegen.training.loss import Batch, Loss
from sdegen.training.optimizer import (
    OptimizerFactory,
    Pace,
    Schedule,
    make_optimizer,
    optimizer_spec,
)
from sdegen.training.ranks import Group
from sdegen.training.result import TrainResult
from sdegen.training.run import Augment, TrainingRun
from sdegen.training.sources import Source, TensorSource
from sdegen.training.state import restore
from sdegen.training.weights import trained_weights

_EXAMPLES = ("data", "labels", "validation")  # known by digests, which say nothing to a reader


def fit(
    module: nn.Module,
    data: Data,
    loss: Loss,
    config: FitConfig | None = None,
    *,
    rng: Rng = None,
    labels: Tensor | None = None,
    validation: Data | None = None,
    validation_labels: Tensor | None = None,
    augment: Augment | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    optimizer: OptimizerFactory | None = None,
    schedule: Schedule | None = None,
    callbacks: Sequence[Callable[[StepReport], None]] = (),
    spec: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a module in place: make the mean of a loss over the data small.

        L(θ) = (1/n) Σ_i ℓ_θ(row_i, label_i; noise)

    Args:
        module: What is trained; ends with the moving average of its weights, in evaluation mode.
        data: Examples, shape (n, *event), scaled to order one: a tensor or an array; on disk, the
            path of a .npy file, an np.memmap or a zarr.Array; a torch Dataset or DataLoader, which
            gives x or (x, label). See `sdegen.training.sources`.
        loss: What is made small, called with the module, a batch and its random numbers.
        config: How; None is `FitConfig()`.
        rng: Seed, generator or None.
        labels: What belongs to each example, shape (n, …): classes as integers, targets or
            conditions as floats. The loss finds them in `batch.labels`.
        validation: Other examples, shape (m, *event), on which the loss is followed.
        validation_labels: The same for them, shape (m, …).
        augment: augment(rows, stream) returns other rows that are as likely as these, such as
            fresh dequantisation noise; its random numbers come from the stream.
        folder: Where checkpoints go; None keeps none.
        resume: Resume from the newest checkpoint in the folder, if there is one.
        progress: Show a progress bar, with the loss and the rows of a second.
        optimizer: None for AdamW; a class of torch.optim, such as `torch.optim.SGD` or
            `functools.partial(torch.optim.SGD, momentum=0.9)`, or a function of the weights.
        schedule: A function k -> factor of the learning rate of step k, or a scheduler's class,
            such as `functools.partial(StepLR, step_size=100)`; None is a warm-up and half a
            cosine. With a schedule a run may be resumed for more steps than it had, and ends in
            the bits of a run that was that long from the start.
        callbacks: Functions of a `StepReport`, or objects of `sdegen.training.Callback`; see
            there. A folder gets `metrics.jsonl` without them.
        spec: What tells this run from others beside data, seed and config, as JSON, with the loss
            under "loss"; None is the module's class and shapes, and `loss.spec()`.

    Returns:
        The losses, and what it takes to repeat them.

    Raises:
        TypeError: If module is no torch.nn.Module, loss no object of `Loss`, config no
            `FitConfig`, or data are not a floating-point tensor.
        ValueError: If data are empty or not finite, if labels are not one for each row, if the
            loss returns another shape or has no gradient in the weights, if the folder holds
            another run or, without `resume`, any.
        NonFiniteError: If the loss becomes NaN or infinite. The module has the averaged weights of
            the step before, and `.result` the losses so far.
        CheckpointError: If the newest checkpoint is damaged.
        RankError: If ranks that train together were given other data or configurations.
        KeyboardInterrupt: On Ctrl-C, after the step has ended and a checkpoint is saved; a second
            one leaves at once.

    Reference:
        AdamW: Loshchilov and Hutter 2019, algorithm 2, arXiv:1711.05101.

    Example:
        >>> class Square(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return (module(batch.rows) - batch.labels).square().sum(1)
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> line = torch.nn.Linear(1, 1)
        >>> config = sg.FitConfig(steps=300, batch_size=64, learning_rate=0.1, ema_decay=0.9)
        >>> found = sg.fit(line, x, Square(), config, labels=2 * x, rng=0)
        >>> bool((line.weight - 2).abs() < 0.05)
        True
    """
    config = _checked(module, loss, config)
    group = Group.joined()
    source = open_source("data", data, labels, batch_size=config.batch_size)
    _check_memory(source, loss)
    others = None
    if validation is not None:
        others = read_whole("validation", validation, validation_labels)
    _check_validation(source.sample, others, validation_labels, config)
    checkpoints = None if folder is None else Checkpoints(Path(folder))
    saved = _saved(checkpoints, resume)
    seed = int(saved[1]["run"]["seed"]) if saved is not None and rng is None else seed_of(rng)
    seed = group.broadcast_value(seed)
    steps_by = make_optimizer(optimizer, trained_weights(module), config)
    pace = Pace(steps_by, schedule, config)
    run_spec = _run_spec(config, seed, source, others, augment is not None)
    run_spec |= {} if optimizer is None else {"optimizer": optimizer_spec(steps_by)}
    run_spec |= {} if schedule is None else {"schedule": to_spec(schedule)}
    run_spec |= {"module": _described(module), "loss": loss.spec()} if spec is None else spec
    group.check_same({**run_spec, "checkpoint": None if saved is None else saved[1]["step"]})
    follow = as_callbacks(callbacks, None if checkpoints is None else checkpoints.folder)
    run = TrainingRun(
        module,
        source,
        others,
        loss,
        config,
        seed,
        run_spec,
        group=group,
        augment=augment,
        checkpoints=checkpoints,
        optimizer=steps_by,
        pace=pace,
        callbacks=[*follow, ProgressBar(config.steps)] if progress else follow,
    )
    if saved is not None:
        before = saved[1]["run"]
        _check_same_run(before if schedule is None else _lengthened(before, config), run_spec)
        restore(run, *saved)
    with torch.enable_grad():  # what calls it may have switched them off
        return run.run()


def _checked(module: object, loss: object, config: object) -> FitConfig:
    """Return the configuration, or refuse what is no module, no loss or no configuration."""
    check_kind("module", module, nn.Module, "a torch.nn.Module, such as MLP(dim=2)")
    check_kind("loss", loss, Loss, "an object of a class derived from sdegen.Loss")
    config = FitConfig() if config is None else config
    if type(config) is not FitConfig:
        check_kind("config", config, FitConfig, "a FitConfig or None")
        raise TypeError(
            f"config must be a FitConfig, but is a {type(config).__name__}, which holds more than "
            "a loss of its own would see; pass FitConfig(…), and the rest to the loss."
        )
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "training needs gradients, which torch.inference_mode() takes away; call it outside."
        )
    return config


def _run_spec(
    config: FitConfig, seed: int, source: Source, others: Batch | None, augmented: bool
) -> dict[str, Any]:
    """Return what a run is, whatever is trained, as JSON."""
    spec: dict[str, Any] = {
        # how often it is saved changes nothing
        "config": {k: v for k, v in asdict(config).items() if k != "checkpoint_every"},
        "seed": seed,
        "data": source.spec(),
        "validation": None if others is None else fingerprint(others.rows),
        "augment": augmented,
    }
    if source.labels is not None:
        spec["labels"] = fingerprint(source.labels)
    return spec


def _lengthened(run: dict[str, Any], config: FitConfig) -> dict[str, Any]:
    """Return what a run would have been with more steps, which its schedule does not see."""
    steps = max(int(run["config"]["steps"]), config.steps)
    return run | {"config": run["config"] | {"steps": steps}}


def _check_memory(source: Source, loss: Loss) -> None:
    """Refuse rows that are read one by one where a loss needs all of them."""
    if loss.needs_all_rows and not isinstance(source, TensorSource):
        raise ValueError(
            f"the loss {type(loss).__name__} draws from all rows itself, which must be in "
            "memory; pass data as a tensor."
        )


def _check_validation(
    examples: Batch, others: Batch | None, labels: object, config: FitConfig
) -> None:
    """Refuse validation data that do not go with the data, or that are missing."""
    if others is None:
        if config.keep == "best":
            raise ValueError(
                "keep='best' asks for the best weights on the validation data, but none were "
                "given."
            )
        if labels is not None:
            raise ValueError("validation_labels were given without validation; pass both.")
        return
    if others.rows.shape[1:] != examples.rows.shape[1:]:
        raise ValueError(
            f"validation must hold events of shape {tuple(examples.rows.shape[1:])} like data, "
            f"but holds {tuple(others.rows.shape[1:])}."
        )
    mine, theirs = examples.labels, others.labels
    if (mine is None) != (theirs is None):
        there, missing = ("labels", "validation_labels")[:: 1 if theirs is None else -1]
        raise ValueError(f"{there} were given without {missing}; pass both or neither.")
    if mine is not None and theirs is not None and mine.shape[1:] != theirs.shape[1:]:
        raise ValueError(
            f"validation_labels must have shape ({len(others)}, "
            f"{', '.join(map(str, mine.shape[1:]))}) like labels, but have {tuple(theirs.shape)}."
        )


def _saved(checkpoints: Checkpoints | None, resume: bool) -> Saved | None:
    """Return the newest checkpoint, or None; refuse a folder with a run that is not resumed."""
    if checkpoints is None:
        if resume:
            raise ValueError("resume=True needs the folder to go on from; pass folder=.")
        return None
    steps = checkpoints.steps()
    if steps and not resume:
        raise ValueError(
            f"{checkpoints.folder} already holds a training run (step {steps[-1]}); pass "
            "resume=True or another folder."
        )
    return checkpoints.newest()


def _described(module: nn.Module) -> dict[str, Any]:
    """Return the class of a module, and dtype and shape of each of its weights, as JSON."""
    state = {name: f"{t.dtype} {tuple(t.shape)}" for name, t in module.state_dict().items()}
    return {"class": type(module).__qualname__} | state


def _check_same_run(saved: dict[str, Any], given: dict[str, Any], prefix: str = "") -> None:
    """Refuse to resume another run, naming the first thing that differs."""
    # data and labels first: with them the loss says more
    for key in sorted(set(saved) | set(given), key=lambda key: (key not in _EXAMPLES, key)):
        before, now = saved.get(key), given.get(key)
        if isinstance(before, dict) and isinstance(now, dict) and key not in _EXAMPLES:
            _check_same_run(before, now, f"{prefix}{key}.")
        elif before != now:
            difference = f"{prefix}{key} is {before!r} there and {now!r} here"
            cure = f"{difference}; pass what that run was started with"
            if key in _EXAMPLES:
                cure = f"its {key} were others; pass the same"
            elif (prefix, key) == ("config.", "steps"):
                cure = (
                    f"{difference}, and its learning rate follows a cosine that ends there; a run "
                    "that has schedule= can be made longer, this one not: pass its own"
                )
            elif key == "code":
                cure = f"the {prefix}code is another; pass the loss that it was started with"
            raise ValueError(f"the checkpoint is of another run: {cure}, or another folder.")
