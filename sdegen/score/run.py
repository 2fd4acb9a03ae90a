"""TrainingRun: what changes from step to step of a training, and how one step is taken.

A step draws its rows, times and noise from the stream (seed, "train", step) and from nothing else.
What it changes is the weights, their average, the moments of AdamW and the record of losses: all
of that is in a checkpoint, so that a run that was killed goes on as if it had not been.

What the network draws itself, as dropout does from torch's global generators, it draws from a
stream (seed, "dropout", step) too: they are set before a step, and put back after it.

**Autocast.** torch keeps the weights that it has cast until the outermost autocast is left. Around
a whole training these would be the weights of the first step for ever, so that a step neither
reads nor fills that store, whoever has switched autocast on.

**Ranks.** Where `torch.distributed` runs, as inside `joined_ranks()`, all ranks train one model
together. They begin with the weights of rank 0; each draws the whole batch of a step and computes
its share of the rows, and their gradients are added up, so that what is learned is what one
process learns, but for rounding and for dropout. Rank 0 alone writes checkpoints.

The average is w̄ ← d w̄ + (1 − d) w with d = min(ema_decay, (1 + k)/(10 + k)) after step k: it
remembers about the last tenth of a young run, and forgets the first weights.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from sdegen.core.errors import CheckpointError, NonFiniteError
from sdegen.core.interrupt import HeldInterrupt
from sdegen.core.noise import Stream, Streams
from sdegen.core.shapes import State
from sdegen.score.checkpoints import Checkpoints
from sdegen.score.config import TrainConfig
from sdegen.score.group import Group
from sdegen.score.losses import TimeSampler, denoising_errors
from sdegen.score.model import ScoreModel

__all__ = ["Augment", "TrainResult", "TrainingRun"]

Augment = Callable[[State, Stream], State]
_Tensors = tuple[Tensor, ...] | list[Tensor]

_VALIDATION_PASSES = 8  # each row of the validation data meets this many times and noises


@dataclass(frozen=True)
class TrainResult:
    """How a training went. The weights are in the model.

    Attributes:
        losses: Loss of each step done, shape (steps,), float64; that of ε̂ = 0 is about 1.
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


class TrainingRun:
    """One training run.

    Args:
        model: The model, trained in place.
        data: Examples, found to be usable.
        validation: Other examples, or None.
        augment: What makes other rows that are as likely, or None.
        config: How.
        seed: The seed of the run.
        identity: What makes this run this run and no other; JSON.
        checkpoints: Where its checkpoints go, or None.
        labels: One for each example, or None.
        validation_labels: The same for the other examples.
        group: The ranks that train together; None is this process alone.

    Raises:
        ValueError: If the network has nothing to train, or is of half precision.
    """

    def __init__(
        self,
        model: ScoreModel,
        data: Tensor,
        validation: Tensor | None,
        augment: Augment | None,
        config: TrainConfig,
        seed: int,
        identity: dict[str, Any],
        checkpoints: Checkpoints | None,
        labels: Tensor | None = None,
        validation_labels: Tensor | None = None,
        group: Group | None = None,
    ) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("the network has no parameters to train.")
        like = parameters[0]
        if like.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the network's weights are {like.dtype}, too coarse for the steps of an "
                "optimizer; train it in float32 or float64."
            )
        self.identity = identity
        self.group = Group() if group is None else group
        self.group.same_weights(model)
        self.model, self.config, self.augment, self.seed = model, config, augment, seed
        self.data = data.to(like)
        model.event_shape = tuple(data.shape[1:])
        self.validation = None if validation is None else validation.to(like)
        self.labels = None if labels is None else labels.long().to(like.device)
        self.validation_labels = (
            None if validation_labels is None else validation_labels.long().to(like.device)
        )
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
                    stopped = self.group.any(interrupt.pending)
                    if last or stopped or self.step % config.checkpoint_every == 0:
                        self._save()
                    if bar is not None:
                        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                        bar.update()
                    if stopped:
                        raise KeyboardInterrupt
        except NonFiniteError as error:
            error.result = self._result(self._finish())
            raise
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
        x0 = self._augmented(self.data[rows.to(self.data.device)], source)
        t = self.times.draw(config.batch_size, source)
        model, mine = self.model, self.group.share(config.batch_size)
        if self.labels is not None:
            labels = self.labels[rows.to(self.labels.device)]
            hidden = torch.rand(config.batch_size, generator=generator) < config.label_dropout
            none = int(cast(Any, self.model.network).classes)
            model = model.told(labels.masked_fill(hidden.to(labels.device), none)[mine])
        with self._drawing("dropout", k):
            with self._autocast():
                errors = denoising_errors(
                    model, x0, t, weighting=config.weighting, rng=generator, rows=mine
                )
            share = len(errors) / config.batch_size
            loss = errors.mean() if share == 1 else errors.sum() / config.batch_size
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        value = self.group.total(float(loss.detach()))
        self._check_finite("the loss", value)
        self.group.add_gradients(self.parameters)
        self._check_finite(
            "the gradient", float(clip_grad_norm_(self.parameters, config.max_grad_norm))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * _pace(k, config)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.losses[k] = value
        self.step = k + 1
        return value

    @contextmanager
    def _drawing(self, purpose: str, k: int) -> Iterator[None]:
        """Torch's global generators set by the seed, and put back as they were."""
        name = f"{purpose} of rank {self.group.rank}" if self.group.rank else purpose
        seed = Streams(self.seed, name).block(k).generator().initial_seed()
        device = self.data.device
        generators = [torch.default_generator]
        if device.type == "cuda":
            generators.append(torch.cuda.default_generators[device.index or 0])
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for generator in generators:
                generator.manual_seed(seed)
            yield

    def _autocast(self) -> torch.autocast:
        """The autocast of a step: the configuration's, or that which is on; without its store."""
        kind, bf16 = self.data.device.type, self.config.precision == "bf16"
        return torch.autocast(
            kind,
            dtype=torch.bfloat16 if bf16 else torch.get_autocast_dtype(kind),
            enabled=bf16 or torch.is_autocast_enabled(kind),
            cache_enabled=False,
        )

    def _augmented(self, rows: Tensor, source: Stream) -> Tensor:
        """Other rows that are as likely, of the same shape; or the same rows."""
        if self.augment is None:
            return rows
        try:
            other = self.augment(rows, source)
        except Exception as error:
            error.add_note(f"in step {self.step} of the training, in augment")
            raise
        if other.shape != rows.shape:
            raise ValueError(
                f"augment must return rows of the shape it is given, {tuple(rows.shape)}, but "
                f"returned {tuple(other.shape)}."
            )
        return other

    def _check_finite(self, name: str, value: float) -> None:
        """Stops before a step is taken with what is not a number."""
        if not math.isfinite(value):
            last = float(self.losses[self.step - 1]) if self.step else math.nan
            raise NonFiniteError(
                f"{name} is {value} in step {self.step}, after a loss of {last:.4g}. Scale the "
                f"data to order one (their largest entry is {float(self.data.abs().max()):.4g}) "
                f"or lower learning_rate = {self.config.learning_rate:g}."
            )

    @torch.no_grad()
    def _look(self) -> None:
        """The loss of the averaged weights on other data, each time with the same draws."""
        assert self.validation is not None
        source = Streams(self.seed, "validate").block(0)
        x0 = self.validation.repeat_interleave(_VALIDATION_PASSES, 0)
        t = self.times.draw(len(x0), source)
        shuffled = t[torch.randperm(len(t), generator=source.generator())]
        self.average.eval()
        model = self._averaged
        if self.validation_labels is not None:
            model = model.told(self.validation_labels.repeat_interleave(_VALIDATION_PASSES))
        with self._autocast():
            errors = denoising_errors(
                model, x0, shuffled, weighting=self.config.weighting, rng=source.generator()
            )
        loss = float(errors.mean())
        self._check_finite("the validation loss", loss)
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
        if self.checkpoints is None or self.group.rank:
            return
        tensors = {"losses": self.losses[: self.step]}
        tensors |= {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        self.checkpoints.save(self.step, tensors, {"run": self.identity, "looks": self.looks})

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Goes to where a checkpoint of this run was written.

        Raises:
            CheckpointError: If its weights do not fit the network.
        """
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


def _bar(progress: bool, done: int, steps: int) -> "tqdm | None":
    """A progress bar, or None."""
    if not progress:
        return None
    return tqdm(initial=done, total=steps, desc="train", unit="step", dynamic_ncols=True)
