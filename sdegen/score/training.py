"""Training: a score from data by denoising score matching.

AdamW, a linear warm-up and half a cosine, gradients cut at a length, and an exponential moving
average of the weights, which is what the model ends with: the loss of one step is noisy however
long one trains, and the average is not. Its decay starts at (1 + k)/(10 + k), so that it forgets
the first weights.

**The same bits.** Step k draws its rows, times and noise from the stream (seed, "train", k) and
from nothing else. A run that was killed goes on from its last checkpoint and ends where the run
that was never cut ends, bit for bit, with the same number of threads.

**When to stop.** A network with room for it learns the data by heart: the loss on other data
passes through a minimum. Give `validation` and keep="best", and the model ends with the averaged
weights that were best there. The validation loss is taken with the same times and noise at every
look, so that its changes are those of the network.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from sdegen.errors import CheckpointError, NonFiniteError
from sdegen.interrupt import HeldInterrupt
from sdegen.noise import Rng, Stream, Streams, seed_of
from sdegen.score.checkpoints import Checkpoints
from sdegen.score.config import TrainConfig
from sdegen.score.description import describe
from sdegen.score.losses import TimeSampler, denoising_errors
from sdegen.score.model import ScoreModel
from sdegen.shapes import State
from sdegen.storage import fingerprint

__all__ = ["Augment", "TrainResult", "train"]

Augment = Callable[[State, Stream], State]
_Tensors = tuple[Tensor, ...] | list[Tensor]

_VALIDATION_PASSES = 8  # each row of the validation data meets this many times and noises


@dataclass(frozen=True)
class TrainResult:
    """How a training went. The weights are in the model.

    Attributes:
        losses: Loss of each step done, shape (steps,), float64; with "simple" weighting 1 is the
            loss of ε̂ = 0.
        validation_steps: Steps after which the validation data were looked at, shape (looks,).
        validation_losses: Loss of the averaged weights there, shape (looks,), float64.
        kept_step: The step whose averaged weights the model has.
        seed: What to pass as rng to get the same bits again.
    """

    losses: Tensor
    validation_steps: Tensor
    validation_losses: Tensor
    kept_step: int
    seed: int


def train(
    model: ScoreModel,
    data: Tensor,
    config: TrainConfig | None = None,
    *,
    rng: Rng = None,
    validation: Tensor | None = None,
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
        validation: Other examples, shape (m, *event), on which the loss is followed.
        augment: augment(rows, stream) returns other rows that are as likely as these, such as
            fresh dequantisation noise; its random numbers come from the stream.
        folder: Where checkpoints go; None keeps none.
        resume: Go on from the newest checkpoint in the folder, if there is one.
        progress: Show a progress bar.

    Returns:
        The losses, and what it takes to repeat them.

    Raises:
        TypeError: If data are not a floating-point tensor.
        ValueError: If data are empty or not finite, if the folder holds another run or, without
            `resume`, any.
        NonFiniteError: If the loss becomes NaN or infinite. The model has the averaged weights of
            the step before, and `.result` the losses so far.
        CheckpointError: If the newest checkpoint is damaged.
        KeyboardInterrupt: On Ctrl-C, after the step has ended and a checkpoint is saved; a second
            one leaves at once.

    Reference:
        Song et al. 2021, eq. (7), arXiv:2011.13456; Ho et al. 2020, algorithm 1, arXiv:2006.11239.
    """
    config = TrainConfig() if config is None else config
    _check_data("data", data)
    if validation is not None:
        _check_data("validation", validation)
        if validation.shape[1:] != data.shape[1:]:
            raise ValueError(
                f"validation must hold events of shape {tuple(data.shape[1:])} like data, but "
                "holds "
                f"{tuple(validation.shape[1:])}."
            )
    elif config.keep == "best":
        raise ValueError(
            "keep='best' asks for the best weights on the validation data, but none were given."
        )
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
    run = _Run(model, data, validation, augment, config, seed, checkpoints)
    if saved is not None:
        run.restore(*saved)
    return run.go(progress)


class _Run:
    """One training run: everything that changes from step to step, and how to take a step."""

    def __init__(
        self,
        model: ScoreModel,
        data: Tensor,
        validation: Tensor | None,
        augment: Augment | None,
        config: TrainConfig,
        seed: int,
        checkpoints: Checkpoints | None,
    ) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("the network has no parameters to train.")
        self.identity = _identity(model, data, validation, augment, config, seed)
        like = parameters[0]
        self.model, self.config, self.augment, self.seed = model, config, augment, seed
        self.data = data.to(like)
        self.validation = None if validation is None else validation.to(like)
        self.parameters = parameters
        self.checkpoints = checkpoints
        self.times = TimeSampler(model.sde, config.weighting)
        self.streams = Streams(seed, "train")
        self.optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.average = AveragedModel(model, multi_avg_fn=_average(config.ema_decay))
        self.best: dict[str, Tensor] = {}
        self.step = 0
        self.losses = torch.zeros(config.steps, dtype=torch.float64)
        self.looks: list[tuple[int, float]] = []

    @property
    def _averaged(self) -> ScoreModel:
        """The model with averaged weights."""
        return cast(ScoreModel, self.average.module)

    def go(self, progress: bool) -> TrainResult:
        """Takes the steps that remain, and leaves the averaged weights in the model."""
        config = self.config
        self.model.train()
        bar = _bar(progress, self.step, config.steps)
        try:
            with HeldInterrupt() as interrupt:
                while self.step < config.steps:
                    loss = self._advance()
                    last = self.step == config.steps
                    if self.validation is not None and (
                        last or self.step % config.validate_every == 0
                    ):
                        self._look()
                    if last or interrupt.pending or self.step % config.checkpoint_every == 0:
                        self._save()
                    if bar is not None:
                        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                        bar.update()
                    if interrupt.pending:
                        raise KeyboardInterrupt
        finally:
            if bar is not None:
                bar.close()
            kept = self._finish()
        return self._result(kept)

    def _advance(self) -> float:
        """One step of the optimizer; returns the loss."""
        k, config = self.step, self.config
        source = self.streams.block(k)
        generator = source.generator()
        rows = torch.randint(len(self.data), (config.batch_size,), generator=generator)
        x0 = self.data[rows.to(self.data.device)]
        if self.augment is not None:
            try:
                x0 = self.augment(x0, source)
            except Exception as error:
                error.add_note(f"in step {k} of the training, in augment")
                raise
        t = self.times.draw(config.batch_size, source)
        loss = denoising_errors(self.model, x0, t, rng=generator).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the loss is {value} at step {k}; the last finite one was "
                f"{float(self.losses[k - 1]) if k else math.nan:.4g}. Scale the data to order one "
                "(their largest entry is "
                f"{float(self.data.abs().max()):.4g}) or lower learning_rate = "
                f"{config.learning_rate:g}.",
                self._result(k),
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self.parameters, config.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * _pace(k, config)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.losses[k] = value
        self.step = k + 1
        return value

    @torch.no_grad()
    def _look(self) -> None:
        """The loss of the averaged weights on other data, each time with the same draws."""
        assert self.validation is not None
        source = Streams(self.seed, "validate").block(0)
        x0 = self.validation.repeat_interleave(_VALIDATION_PASSES, 0)
        t = self.times.draw(len(x0), source)
        shuffled = t[torch.randperm(len(t), generator=source.generator())]
        self.average.eval()
        errors = denoising_errors(self._averaged, x0, shuffled, rng=source.generator())
        loss = float(errors.mean())
        if loss < min((value for _, value in self.looks), default=math.inf):
            self.best = {
                name: tensor.clone() for name, tensor in self._averaged.state_dict().items()
            }
        self.looks.append((self.step, loss))

    def _finish(self) -> int:
        """Gives the model the averaged weights; returns the step they are of."""
        self.model.eval()
        if self.config.keep == "best" and self.best:
            self.model.load_state_dict(self.best)
            return min(self.looks, key=lambda look: look[1])[0]
        if self.step:
            self.model.load_state_dict(self._averaged.state_dict())
        return self.step

    def _result(self, kept: int) -> TrainResult:
        return TrainResult(
            losses=self.losses[: self.step].clone(),
            validation_steps=torch.tensor([step for step, _ in self.looks], dtype=torch.int64),
            validation_losses=torch.tensor([loss for _, loss in self.looks], dtype=torch.float64),
            kept_step=kept,
            seed=self.seed,
        )

    def _save(self) -> None:
        """Writes a checkpoint."""
        if self.checkpoints is None:
            return
        tensors = {"losses": self.losses[: self.step]}
        tensors |= {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        self.checkpoints.save(self.step, tensors, {"run": self.identity, "looks": self.looks})

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Goes to where a checkpoint was written.

        Raises:
            ValueError: If it is of another run; names the difference.
        """
        _check_same_run(metadata["run"], self.identity)
        parts: dict[str, dict[str, Tensor]] = {
            "model": {},
            "average": {},
            "best": {},
            "optimizer": {},
        }
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if rest:
                parts[part][rest] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint's weights do not fit the network: {error}"
            ) from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, moment = name.partition(".")
            state.setdefault(int(index), {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        device = self.data.device
        self.best = {name: tensor.to(device) for name, tensor in parts["best"].items()}
        self.looks = [(int(step), float(loss)) for step, loss in metadata["looks"]]
        self.step = int(metadata["step"])
        self.losses[: self.step] = tensors["losses"]


def _pace(step: int, config: TrainConfig) -> float:
    """Learning rate as a share of its largest: a linear warm-up, then half a cosine to zero."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (
        1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup))
    )


def _average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """The moving average w ← w + (1 − d_k)(w_k − w), d_k = min(decay, (1 + k)/(10 + k))."""

    @torch.no_grad()
    def average(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        k = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + k) / (10 + k)))

    return average


def _check_data(name: str, data: Tensor) -> None:
    """Refuses what cannot be learned from."""
    if not isinstance(data, Tensor):
        raise TypeError(
            f"{name} must be a tensor of shape (n, *event), but is {type(data).__name__}."
        )
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
            "them row "
            f"{int(bad.nonzero()[0])}; remove them."
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


def _check_same_run(saved: dict[str, Any], given: dict[str, Any], prefix: str = "") -> None:
    """Refuses to go on with another run, naming the first thing that differs."""
    for key in sorted(set(saved) | set(given)):
        there, here = saved.get(key), given.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            _check_same_run(there, here, f"{prefix}{key}.")
        elif there != here and key in ("data", "validation"):
            raise ValueError(
                f"the checkpoint is of another run: its {key} were others; pass the same, or "
                "another folder."
            )
        elif there != here:
            raise ValueError(
                f"the checkpoint is of another run: {prefix}{key} is {there!r} there and {here!r} "
                "here; pass what that "
                "run was started with, or another folder."
            )


def _bar(progress: bool, done: int, steps: int) -> "tqdm | None":
    """A progress bar, or None."""
    if not progress:
        return None
    return tqdm(initial=done, total=steps, desc="train", unit="step", dynamic_ncols=True)
