"""TrainingRun: what changes from step to step of a training, and how one step is taken.

A step draws its rows and noise from the stream (seed, "train", step) and from nothing else. What
it changes is the weights, their average, the moments of AdamW and the record of losses: all of
that is in a checkpoint, so that a run that was killed continues as if it had not been.

What the module draws itself, as dropout does from torch's global generators, it draws from a
stream (seed, "dropout", step) too: they are set before a step, and put back after it.

**Ranks.** Where `torch.distributed` runs, as inside `distributed_context()`, all ranks train one
module together. They begin with the weights of rank 0; each draws the whole batch of a step and
computes its share of the rows, and their gradients are added up, so that what is learned is what
one process learns, but for rounding and for dropout. Rank 0 alone writes checkpoints.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from sdegen.core.errors import CheckpointError, NonFiniteError
from sdegen.core.interrupt import DeferredInterrupt
from sdegen.core.noise import Stream, Streams
from sdegen.core.shapes import State
from sdegen.training.checkpoints import Checkpoints
from sdegen.training.config import FitConfig
from sdegen.training.loss import Batch, BatchNoise, Loss, read_loss
from sdegen.training.optimizer import autocast, lr_factor, moving_average
from sdegen.training.ranks import Group
from sdegen.training.seeding import seeded
from sdegen.training.sources import Source

Augment = Callable[[State, Stream], State]


@dataclass(frozen=True)
class TrainResult:
    """How a training went. The weights are in the module.

    Attributes:
        losses: Loss of each step done, shape (steps,), float64; of a score, that of ε̂ = 0 is
            about 1.
        validation_steps: Steps after which there was a validation, shape (validations,).
        validation_losses: Loss of the averaged weights there, shape (validations,), float64.
        selected_step: The step whose averaged weights the module has.
        seed: What to pass as rng to get the same bits again.
        logs: Terms that the loss names, by name: their mean in each step, shape (steps,), float64.
    """

    losses: Tensor
    validation_steps: Tensor
    validation_losses: Tensor
    selected_step: int
    seed: int
    logs: dict[str, Tensor] = field(default_factory=dict)


class TrainingRun:
    """One training run.

    Args:
        module: The module, trained in place.
        data: Where its rows come from.
        validation: Other examples, or None.
        loss: What is made small, as `prepare` returned it.
        augment: What makes other rows that are as likely, or None.
        config: How.
        seed: The seed of the run.
        spec: What makes this run this run and no other; JSON.
        checkpoints: Where its checkpoints go, or None.
        group: The ranks that train together.

    Raises:
        ValueError: If the module has nothing to train, or is of half precision.
    """

    def __init__(
        self,
        module: nn.Module,
        data: Source,
        validation: Batch | None,
        loss: Loss,
        augment: Augment | None,
        config: FitConfig,
        seed: int,
        spec: dict[str, Any],
        checkpoints: Checkpoints | None,
        group: Group,
    ) -> None:
        self.parameters = _trained(module)
        self.group = group
        self.group.broadcast_weights(module)
        self.module, self.config, self.augment, self.seed = module, config, augment, seed
        self.spec, self.checkpoints = spec, checkpoints
        data.begin(self.parameters[0], seed)
        self.source, self.device = data, self.parameters[0].device
        self.validation = None if validation is None else _like(validation, self.parameters[0])
        self.loss, self.passes = loss.prepare(module, data.sample), loss.validation_passes
        self.streams = Streams(seed, "train")
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.average = AveragedModel(module, multi_avg_fn=moving_average(config.ema_decay))
        self.best: dict[str, Tensor] = {}
        self.step = 0
        self.losses = torch.zeros(config.steps, dtype=torch.float64)
        self.logs: dict[str, Tensor] = {}
        self.validations: list[tuple[int, float]] = []

    def run(self, progress: bool) -> TrainResult:
        """Take the steps that remain, and leave the averaged weights in the module."""
        config = self.config
        self.module.train()
        bar = _bar(progress, self.step, config.steps)
        try:
            with DeferredInterrupt() as interrupt:
                while self.step < config.steps:
                    loss = self.train_step()
                    last = self.step == config.steps
                    if last or self.step % config.validate_every == 0:
                        self.validate()
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
            self.source.close()
            selected = self._finish()
        return self._result(selected)

    def train_step(self) -> float:
        """Take one step of the optimizer; return the loss."""
        k, config = self.step, self.config
        source = self.streams.block(k)
        mine = self.group.partition(config.batch_size)
        batch = self._drawn(source, mine)
        purpose = f"dropout of rank {self.group.rank}" if self.group.rank else "dropout"
        noise = BatchNoise(source, config.batch_size, mine, steps=(self.streams, k))
        with seeded(self.seed, purpose, k, self.device):
            with autocast(self.device, config.precision):
                returned = self.loss(self.module, batch, noise)
            errors, logs = self._read(returned, batch)
            if not errors.requires_grad:
                raise ValueError(
                    f"the loss {self._name} returned a value without a gradient: call the module "
                    "in it, outside of torch.no_grad() and without .detach()."
                )
            self.optimizer.zero_grad()
            loss = self._mean(errors, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        if len(batch) and all(p.grad is None for p in self.parameters):
            raise ValueError(
                f"the loss {self._name} does not depend on the weights of the "
                f"{type(self.module).__name__}: call the module that it is given."
            )
        value = self.group.sum(float(loss.detach()))
        self._check_finite("the loss", value)
        self.group.add_gradients(self.parameters)
        norm = float(clip_grad_norm_(self.parameters, config.max_grad_norm))
        self._check_finite("the gradient", norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * lr_factor(k, config)
        self.optimizer.step()
        self.average.update_parameters(self.module)
        self._record(value, logs, batch)
        self.step = k + 1
        return value

    @torch.no_grad()
    def validate(self) -> None:
        """Record the loss of the averaged weights on other data, each time with the same draws."""
        if self.validation is None:
            return
        batch = self.validation.repeated(self.passes)
        noise = BatchNoise(Streams(self.seed, "validate").block(0), len(batch))
        self.average.eval()
        with autocast(self.device, self.config.precision):
            returned = self.loss(self.average.module, batch, noise)
        loss = float(self._read(returned, batch)[0].mean())
        self._check_finite("the validation loss", loss)
        if loss < min((value for _, value in self.validations), default=math.inf):
            state = self.average.module.state_dict()
            self.best = {name: tensor.clone() for name, tensor in state.items()}
        self.validations.append((self.step, loss))

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Return to where a checkpoint of this run was written.

        Raises:
            CheckpointError: If its weights do not fit the module.
        """

        def under(part: str) -> dict[str, Tensor]:
            cut = len(part) + 1
            return {name[cut:]: t for name, t in tensors.items() if name.startswith(f"{part}.")}

        try:
            self.module.load_state_dict(under("model"))
            self.average.load_state_dict(under("average"))
        except RuntimeError as error:
            text = f"the checkpoint's weights do not fit the network: {error}"
            raise CheckpointError(text) from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("optimizer").items():
            index, _, moment = name.partition(".")
            state.setdefault(int(index), {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.best = {name: tensor.to(self.device) for name, tensor in under("best").items()}
        self.validations = [(int(step), float(loss)) for step, loss in metadata["looks"]]
        self.step = int(metadata["step"])
        self.source.restore(metadata.get("source", {}))
        self.losses[: self.step] = tensors["losses"]
        for name, values in under("logs").items():
            self.logs[name] = torch.zeros_like(self.losses)
            self.logs[name][: self.step] = values

    def _save(self) -> None:
        """Write a checkpoint."""
        if self.checkpoints is None or self.group.rank:
            return
        tensors = {"losses": self.losses[: self.step]}
        tensors |= {f"model.{name}": t for name, t in self.module.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        tensors |= {f"logs.{name}": t[: self.step] for name, t in self.logs.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        # "looks" is what the files have called validations since their first version
        metadata = {"run": self.spec, "looks": self.validations, "source": self.source.state()}
        self.checkpoints.save(self.step, tensors, metadata)

    def _drawn(self, noise: Stream, mine: slice) -> Batch:
        """Return the rows of a step that this process computes."""
        count = self.config.batch_size
        if self.augment is None:
            return self.source.read(self.step, noise, count, mine)
        # its random numbers are those of the whole batch
        batch = self.source.read(self.step, noise, count, slice(None))
        labels = None if batch.labels is None else batch.labels[mine]
        return Batch(self._augmented(batch.rows, noise)[mine], labels)

    def _augmented(self, rows: Tensor, source: Stream) -> Tensor:
        """Return other rows that are as likely, of the same shape; or the same rows."""
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

    @property
    def _name(self) -> str:
        """The loss, as its user calls it."""
        return str(self.spec["loss"]["class"])

    def _read(self, returned: object, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its named terms, or refuse what a loss may not return."""
        value, logs = read_loss(returned, len(batch), self._name)
        if value.ndim == 0 and self.group.world > 1:
            raise ValueError(
                f"the loss {self._name} returned one number for all rows, which ranks that share "
                f"them cannot add up; return one for each, shape ({len(batch)},)."
            )
        return value, logs

    def _mean(self, errors: Tensor, batch: Batch) -> Tensor:
        """Return this process's part of the mean over all rows of a step."""
        whole = len(batch) == self.config.batch_size
        return errors.mean() if whole else errors.sum() / self.config.batch_size

    def _record(self, value: float, logs: dict[str, Tensor], batch: Batch) -> None:
        """Record the loss of a step, and the terms that it names."""
        self.losses[self.step] = value
        if self.step == 0:
            self.logs = {name: torch.zeros_like(self.losses) for name in logs}
        if set(logs) != set(self.logs):
            raise ValueError(
                f"the loss {self._name} named {sorted(logs)} in step {self.step}, but "
                f"{sorted(self.logs)} before; return the same names in every step."
            )
        for name, term in logs.items():
            mean = self._mean(term.detach().expand(len(batch)), batch)
            self.logs[name][self.step] = self.group.sum(float(mean))

    def _check_finite(self, name: str, value: float) -> None:
        """Stop before a step is taken with what is not a number."""
        if not math.isfinite(value):
            last = float(self.losses[self.step - 1]) if self.step else math.nan
            largest = float(self.source.sample.rows.abs().max())
            raise NonFiniteError(
                f"{name} is {value} in step {self.step}, after a loss of {last:.4g}. Scale the "
                f"data to order one (their largest entry is {largest:.4g}) or lower "
                f"learning_rate = {self.config.learning_rate:g}."
            )

    def _finish(self) -> int:
        """Give the module the averaged weights; return the step they are of."""
        self.module.eval()
        if self.config.keep == "best" and self.best:
            self.module.load_state_dict(self.best)
            return min(self.validations, key=lambda one: one[1])[0]
        if self.step:
            self.module.load_state_dict(self.average.module.state_dict())
        return self.step

    def _result(self, selected: int) -> TrainResult:
        """Return how the training went so far."""
        steps, losses = zip(*self.validations, strict=True) if self.validations else ((), ())
        return TrainResult(
            losses=self.losses[: self.step].clone(),
            validation_steps=torch.tensor(steps, dtype=torch.int64),
            validation_losses=torch.tensor(losses, dtype=torch.float64),
            selected_step=selected,
            seed=self.seed,
            logs={name: values[: self.step].clone() for name, values in self.logs.items()},
        )


def _trained(module: nn.Module) -> list[Tensor]:
    """Return the weights that are trained, or refuse a module that has none."""
    parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the network has no parameters to train.")
    if parameters[0].dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the network's weights are {parameters[0].dtype}, too coarse for the steps of an "
            "optimizer; train it in float32 or float64."
        )
    return parameters


def _like(examples: Batch, weight: Tensor) -> Batch:
    """Return examples where the weights are: rows and targets in their dtype, classes in int64."""
    labels = examples.labels
    if labels is not None:
        dtype = weight.dtype if labels.is_floating_point() else torch.int64
        labels = labels.to(weight.device, dtype)
    return Batch(examples.rows.to(weight), labels)


def _bar(progress: bool, done: int, steps: int) -> "tqdm | None":
    """Return a progress bar, or None."""
    if not progress:
        return None
    return tqdm(initial=done, total=steps, desc="train", unit="step", dynamic_ncols=True)
