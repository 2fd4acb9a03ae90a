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
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sdegen.core.errors import NonFiniteError
from sdegen.core.interrupt import DeferredInterrupt
from sdegen.core.noise import Stream, Streams
from sdegen.core.shapes import State
from sdegen.training.callbacks import Callback, StepReport, Throughput
from sdegen.training.checkpoints import Checkpoints
from sdegen.training.config import FitConfig
from sdegen.training.loss import Batch, BatchNoise, Loss, read_loss
from sdegen.training.optimizer import Pace, WeightAverage, autocast, clip_gradients
from sdegen.training.ranks import Group
from sdegen.training.result import TrainResult
from sdegen.training.seeding import seeded
from sdegen.training.sources import Source
from sdegen.training.state import state_of
from sdegen.training.weights import has_lost, like_weights, trained_weights

Augment = Callable[[State, Stream], State]


class TrainingRun:
    """One training run.

    Args:
        module: The module, trained in place.
        data: Where its rows come from.
        validation: Other examples, or None.
        loss: What is made small, as `prepare` returned it.
        config: How.
        seed: The seed of the run.
        spec: What makes this run this run and no other; JSON.
        group: The ranks that train together.
        augment: What makes other rows that are as likely, or None.
        checkpoints: Where its checkpoints go, or None.
        optimizer: What takes the steps, with the weights of the module.
        pace: The learning rate of each step.
        callbacks: What is told of each step.

    Raises:
        ValueError: If the loss does not suit the module.
    """

    def __init__(
        self,
        module: nn.Module,
        data: Source,
        validation: Batch | None,
        loss: Loss,
        config: FitConfig,
        seed: int,
        spec: dict[str, Any],
        *,
        group: Group,
        augment: Augment | None,
        checkpoints: Checkpoints | None,
        optimizer: Optimizer,
        pace: Pace,
        callbacks: Sequence[Callable[[StepReport], None]] = (),
    ) -> None:
        self.parameters: list[Tensor] = trained_weights(module)
        self.group = group
        self.group.broadcast_weights(module)
        self.module: nn.Module = module
        self.config: FitConfig = config
        self.augment: Augment | None = augment
        self.seed: int = seed
        self.spec: dict[str, Any] = spec
        self.checkpoints: Checkpoints | None = checkpoints
        data.begin(self.parameters[0], seed)
        self.source: Source = data
        self.device: torch.device = self.parameters[0].device
        examples = None if validation is None else like_weights(validation, self.parameters[0])
        self.validation: Batch | None = examples
        self.loss: Loss = loss.prepare(module, data.sample)
        self.passes: int = loss.validation_passes
        self.streams: Streams = Streams(seed, "train")
        self.optimizer: Optimizer = optimizer
        self.pace: Pace = pace
        self.average: WeightAverage = WeightAverage(module, config.ema_decay)
        self.best: dict[str, Tensor] = {}
        self.step: int = 0
        self.losses: Tensor = torch.zeros(config.steps, dtype=torch.float64)
        self._losses = self.losses.numpy()  # the same memory, written to in a tenth of the time
        self.logs: dict[str, Tensor] = {}
        self.validations: list[tuple[int, float]] = []
        self.callbacks: list[Callable[[StepReport], None]] = [] if group.rank else list(callbacks)
        self._throughput = Throughput(config.batch_size)
        self._unaveraged = False  # whether the weights of the last step are not in the average

    def run(self) -> TrainResult:
        """Take the steps that remain, and leave the averaged weights in the module."""
        config = self.config
        self.module.train()
        begun: list[Callback] = []
        folder = None if self.checkpoints is None else self.checkpoints.folder
        failed = True
        try:
            for callback in self.callbacks:
                if isinstance(callback, Callback):
                    callback.begin(self.step, folder)
                    begun.append(callback)
            with DeferredInterrupt() as interrupt:
                while self.step < config.steps:
                    loss, norm, rate = self.train_step()
                    last = self.step == config.steps
                    validated = last or self.step % config.validate_every == 0
                    if validated:
                        self.validate()
                    stopped = self.group.any(interrupt.pending)
                    if last or stopped or self.step % config.checkpoint_every == 0:
                        self._save()
                    if self.callbacks:
                        self._report(loss, norm, rate, validated)
                    if stopped:
                        raise KeyboardInterrupt
            failed = False
        except NonFiniteError as error:
            error.result = self._result(self._finish(failed))
            raise
        finally:
            for one in begun:
                one.end()
            self.source.close()
            selected = self._finish(failed)
        return self._result(selected)

    def train_step(self) -> tuple[float, float, float]:
        """Take one step of the optimizer; return loss, length of the gradient, learning rate."""
        k, config = self.step, self.config
        source = self.streams.block(k)
        mine = self.group.partition(config.batch_size)
        batch = self._drawn(source, mine)
        purpose = f"dropout of rank {self.group.rank}" if self.group.rank else "dropout"
        for p in self.parameters:  # as zero_grad() does, without its bookkeeping
            p.grad = None
        with seeded(self.seed, purpose, k, self.device):
            value, logs = self._gradients(batch, source, mine)
        value = self.group.sum(value)
        self._check_finite("the loss", value)
        self.group.add_gradients(self.parameters)
        norm = clip_gradients(self.parameters, config.max_grad_norm)
        self._check_finite("the gradient", norm)
        rate = self.pace.set(k)
        self._settle()
        self.optimizer.step()
        self.pace.stepped()
        self._unaveraged = True
        self._record(value, logs)
        self.step = k + 1
        return value, norm, rate

    def _gradients(
        self, batch: Batch, source: Stream, mine: slice
    ) -> tuple[float, dict[str, float]]:
        """Add up gradients, loss and terms of this process's rows, part by part."""
        rows, parts = range(*mine.indices(self.config.batch_size)), self.config.accumulate
        generator = source.generator()
        state = generator.get_state() if parts > 1 else None
        value, logs = 0.0, dict[str, float]()
        for i in range(parts):
            low, high = len(rows) * i // parts, len(rows) * (i + 1) // parts
            if state is not None:  # each part draws for the whole batch
                generator.set_state(state)
            share = batch if parts == 1 else batch.cut(slice(low, high))
            place = slice(mine.start + low, mine.start + high)
            steps = (self.streams, self.step)
            noise = BatchNoise(source, self.config.batch_size, place, steps=steps)
            with autocast(self.device, self.config.precision):
                returned = self.loss(self.module, share, noise)
            errors, terms = self._read(returned, share)
            if not errors.requires_grad:
                raise ValueError(
                    f"the loss {self._name} returned a value without a gradient: call the module "
                    "in it, outside of torch.no_grad() and without .detach()."
                )
            loss = self._mean(errors, share)
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
            for name, term in terms.items():
                mean = self._mean(term.detach().expand(len(share)), share)
                logs[name] = logs.get(name, 0.0) + float(mean)
        if len(batch) and all(p.grad is None for p in self.parameters):
            raise ValueError(
                f"the loss {self._name} does not depend on the weights of the "
                f"{type(self.module).__name__}: call the module that it is given."
            )
        return value, logs

    @torch.no_grad()
    def validate(self) -> None:
        """Record the loss of the averaged weights on other data, each time with the same draws."""
        if self.validation is None:
            return
        self._check_weights()
        self._settle()
        batch = self.validation.repeated(self.passes)
        noise = BatchNoise(Streams(self.seed, "validate").block(0), len(batch))
        self.average.module.eval()
        with autocast(self.device, self.config.precision):
            returned = self.loss(self.average.module, batch, noise)
        loss = float(self._read(returned, batch)[0].mean())
        self._check_finite("the validation loss", loss)
        if loss < min((value for _, value in self.validations), default=math.inf):
            state = self.average.module.state_dict()
            self.best = {name: tensor.clone() for name, tensor in state.items()}
        self.validations.append((self.step, loss))

    def _save(self) -> None:
        """Write a checkpoint, of weights that are numbers."""
        if self.checkpoints is None:
            return
        self._check_weights()
        self._settle()
        if not self.group.rank:
            self.checkpoints.save(self.step, *state_of(self))

    def _settle(self) -> None:
        """Take the weights of the last step into the average, once its loss was a number."""
        if self._unaveraged:
            self.average.update()
            self._unaveraged = False

    def _report(self, loss: float, norm: float, rate: float, validated: bool) -> None:
        """Tell callbacks of a step; the module is in training mode after it."""
        seen = validated and self.validation is not None
        report = StepReport(
            step=self.step,
            steps=self.config.steps,
            loss=loss,
            losses=self.losses[: self.step],
            logs={name: float(values[self.step - 1]) for name, values in self.logs.items()},
            gradient_norm=norm,
            learning_rate=rate,
            rows_per_second=self._throughput.step(),
            validation_loss=self.validations[-1][1] if seen else None,
            module=self.module,
            averaged=self.average.module,
        )
        for callback in self.callbacks:
            try:
                callback(report)
            except Exception as error:
                error.add_note(f"in a callback, after step {self.step} of the training")
                raise
        if not self.module.training:
            self.module.train()

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
        if value.ndim == 0 and (self.group.world > 1 or self.config.accumulate > 1):
            raise ValueError(
                f"the loss {self._name} returned one number for all rows, which ranks or parts of "
                f"a step that share them cannot add up; return one for each, shape "
                f"({len(batch)},)."
            )
        return value, logs

    def _mean(self, errors: Tensor, batch: Batch) -> Tensor:
        """Return this part of the mean over all rows of a step."""
        whole = len(batch) == self.config.batch_size
        return errors.mean() if whole else errors.sum() / self.config.batch_size

    def _record(self, value: float, logs: dict[str, float]) -> None:
        """Record the loss of a step, and the terms that it names."""
        self._losses[self.step] = value
        if self.step == 0:
            self.logs = {name: torch.zeros_like(self.losses) for name in logs}
        if set(logs) != set(self.logs):
            raise ValueError(
                f"the loss {self._name} named {sorted(logs)} in step {self.step}, but "
                f"{sorted(self.logs)} before; return the same names in every step."
            )
        for name, mean in logs.items():
            self.logs[name][self.step] = self.group.sum(mean)

    def _check_finite(self, name: str, value: float) -> None:
        """Stop before a step is taken with what is not a number."""
        if not math.isfinite(value):
            last = float(self.losses[self.step - 1]) if self.step else math.nan
            largest = float(self.source.sample.rows.abs().max())
            raise NonFiniteError(
                f"{name} is {value} in step {self.step}, after a loss of {last:.4g}. Scale the "
                f"data to order one (their largest entry is {largest:.4g}) or lower "
                f"learning_rate = {self.config.learning_rate:g}.{self._kept}"
            )

    def _check_weights(self) -> None:
        """Stop before weights that are not numbers are kept."""
        for name, p in self.module.named_parameters():
            if not bool(p.isfinite().all()):
                self._check_finite(f"the weight {name}", math.nan)

    @property
    def _kept(self) -> str:
        """Which checkpoint is of weights whose loss was a number, as a sentence."""
        steps = [] if self.checkpoints is None else self.checkpoints.steps()
        good = [step for step in steps if step < self.step]
        if self.checkpoints is None or not good:
            return ""
        return f" The last good checkpoint is {self.checkpoints.path(good[-1])}."

    def _finish(self, failed: bool) -> int:
        """Give the module the averaged weights; return the step they are of."""
        self.module.eval()
        if self._unaveraged and not (failed and has_lost(self.parameters)):
            self._settle()
        if self.config.keep == "best" and self.best:
            self.module.load_state_dict(self.best)
            return min(self.validations, key=lambda one: one[1])[0]
        if self.step:
            self.module.load_state_dict(self.average.module.state_dict())
        return self.step - self._unaveraged

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
