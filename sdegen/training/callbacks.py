"""Callbacks: what is told of each step, and what follows a training by it.

A callback is a function of a `StepReport`, or an object of a class derived from `Callback`, which
is told of the beginning and the end too. It is called after each step, on rank 0 alone. The step
draws from streams of its own, and is in training mode whatever a callback has switched: so a
callback that only looks changes no bit. One that writes into the weights does.

A folder gets `metrics.jsonl`, one line of JSON every 10 steps, by the callback `JSONLines`, which
may be given in another form. After a kill, a resume takes away the lines beyond its checkpoint, so
that each step is told once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch import Tensor, nn
from tqdm import tqdm

from sdegen.core.checks import check_count
from sdegen.core.optional import needed
from sdegen.core.requests import check_function, kind_of
from sdegen.storage import atomic_write

_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class StepReport:
    """What is told of a step of a training.

    Attributes:
        step: Steps done, this one included.
        steps: How many there will be.
        loss: Of this step.
        losses: Of all steps done, shape (step,), float64.
        logs: Terms that the loss names, of this step.
        gradient_norm: Length of the gradient, before it was cut.
        learning_rate: Of this step; of the first group of weights.
        rows_per_second: Of the last steps, by wall clock.
        validation_loss: Of the validation after this step; None where there was none.
        module: What is trained.
        averaged: The same with the averaged weights, those of this step not yet among them.

    Example:
        >>> class Zero(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return module(batch.rows).square().sum(1)
        >>> line, told = torch.nn.Linear(1, 1, bias=False), []
        >>> _ = line.weight.data.fill_(3.0)
        >>> x, note = torch.ones(4, 1), [told.append]
        >>> _ = sg.fit(line, x, Zero(), sg.FitConfig(1), rng=0, callbacks=note)
        >>> told[0].loss, told[0].gradient_norm  # w² and 2 w at w = 3
        (9.0, 6.0)
    """

    step: int
    steps: int
    loss: float
    losses: Tensor
    logs: Mapping[str, float]
    gradient_norm: float
    learning_rate: float
    rows_per_second: float
    validation_loss: float | None
    module: nn.Module
    averaged: nn.Module


class Callback:
    """What follows a training: called with a `StepReport` after each step, callback(report).

    Example:
        >>> class Every(sg.training.Callback):
        ...     def __call__(self, report):
        ...         print(report.step, "of", report.steps)
        >>> class Zero(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return module(batch.rows).square().sum(1)
        >>> line, config = torch.nn.Linear(1, 1), sg.FitConfig(2)
        >>> _ = sg.fit(line, torch.eye(1), Zero(), config, rng=0, callbacks=[Every()])
        1 of 2
        2 of 2
    """

    def begin(self, step: int, folder: Path | None) -> None:
        """Begin to follow.

        Args:
            step: Steps that are done already, by a run that is resumed.
            folder: The folder of the training, or None.
        """

    def __call__(self, report: StepReport) -> None:
        """Be told of a step."""

    def end(self) -> None:
        """End, however the training has ended."""


class JSONLines(Callback):
    """Lines of JSON, one every so many steps and one for each validation.

    A line has `step`, `loss` (the mean of the last `every` steps), `learning_rate`,
    `gradient_norm`, `rows_per_second`, the loss's own terms under `logs`, and `validation_loss`
    where there was a validation.

    Args:
        path: The file; None is metrics.jsonl in the folder of the training.
        every: Steps between two lines.

    Raises:
        ValueError: If every < 1; or, as a training begins, if neither path nor folder is given.

    Example:
        >>> import json, pathlib, tempfile
        >>> class Zero(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return module(batch.rows).square().sum(1)
        >>> line, config = torch.nn.Linear(1, 1), sg.FitConfig(6)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "metrics.jsonl")
        ...     lines = [sg.training.JSONLines(path, every=2)]
        ...     _ = sg.fit(line, torch.eye(1), Zero(), config, rng=0, callbacks=lines)
        ...     [json.loads(line)["step"] for line in path.read_text().splitlines()]
        [2, 4, 6]
    """

    def __init__(self, path: str | Path | None = None, every: int = 10) -> None:
        check_count("every", every)
        self.path: Path | None = None if path is None else Path(path)
        self.every: int = every
        self._file: IO[str] | None = None

    def begin(self, step: int, folder: Path | None) -> None:
        """Keep the lines of the steps that are done, and take away those of others."""
        path = _in_folder(self.path, folder, _NAME, "JSONLines")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = b"".join(line for line in lines if _step_of(line) <= step)
            atomic_write(path, kept)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, report: StepReport) -> None:
        """Write a line, where one is due."""
        last = report.step == report.steps
        if report.step % self.every and report.validation_loss is None and not last:
            return
        assert self._file is not None
        print(json.dumps(numbers_of(report, self.every)), file=self._file)

    def end(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard(Callback):
    """Scalars for TensorBoard, which needs the extra [tensorboard].

    Args:
        path: Folder of its files; None is `tensorboard` in the folder of the training.
        every: Steps between two points.

    Raises:
        ImportError: If TensorBoard is not installed.
        ValueError: If every < 1; or, as a training begins, if neither path nor folder is given.

    Example:
        >>> import pathlib, tempfile, tensorboard
        >>> class Zero(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return module(batch.rows).square().sum(1)
        >>> line, config = torch.nn.Linear(1, 1), sg.FitConfig(6)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     board = [sg.training.TensorBoard(folder, every=2)]
        ...     _ = sg.fit(line, torch.eye(1), Zero(), config, rng=0, callbacks=board)
        ...     len(list(pathlib.Path(folder).iterdir()))  # a file of events
        1
    """

    def __init__(self, path: str | Path | None = None, every: int = 10) -> None:
        check_count("every", every)
        self.path: Path | None = None if path is None else Path(path)
        self.every: int = every
        self._library = needed("torch.utils.tensorboard", "TensorBoard", extra="tensorboard")
        self._writer: Any = None

    def begin(self, step: int, folder: Path | None) -> None:
        """Open the files; points of steps that are taken again are replaced."""
        path = _in_folder(self.path, folder, "tensorboard", "TensorBoard")
        self._writer = self._library.SummaryWriter(str(path), purge_step=step + 1)

    def __call__(self, report: StepReport) -> None:
        """Add a point to each curve, where one is due."""
        if report.step % self.every and report.validation_loss is None:
            return
        numbers = numbers_of(report, self.every)
        numbers |= {f"logs/{name}": value for name, value in numbers.pop("logs", {}).items()}
        for name, value in numbers.items():
            if name != "step":
                self._writer.add_scalar(name, value, report.step)

    def end(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class ProgressBar(Callback):
    """A bar with the loss and the rows of a second."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._bar: tqdm[Any] | None = None

    def begin(self, step: int, folder: Path | None) -> None:
        """Show it."""
        self._bar = tqdm(
            initial=step, total=self._steps, desc="train", unit="step", dynamic_ncols=True
        )

    def __call__(self, report: StepReport) -> None:
        """Move it on."""
        assert self._bar is not None
        text = {"loss": f"{report.loss:.4f}", "rows/s": f"{report.rows_per_second:.3g}"}
        self._bar.set_postfix(text, refresh=False)
        self._bar.update()

    def end(self) -> None:
        """Leave it as it is."""
        if self._bar is not None:
            self._bar.close()


class Throughput:
    """Rows of a second, of the last steps.

    Args:
        rows: Rows of a step.
    """

    def __init__(self, rows: int) -> None:
        self._rows, self._last, self._seconds = rows, time.perf_counter(), math.nan

    def step(self) -> float:
        """Return the rows of a second, a moving average over about ten steps."""
        now = time.perf_counter()
        taken, self._last = now - self._last, now
        known = not math.isnan(self._seconds)
        self._seconds = 0.9 * self._seconds + 0.1 * taken if known else taken
        return self._rows / max(self._seconds, 1e-9)


def as_callbacks(given: object, folder: Path | None) -> list[Callable[[StepReport], None]]:
    """Return callbacks as a list, and `JSONLines` where there is a folder and none of them.

    Raises:
        TypeError: If one cannot be called.
    """
    if not isinstance(given, Sequence):
        raise TypeError(
            f"callbacks must be a list of functions of a report, or of objects of a class derived "
            f"from sdegen.training.Callback, but is {kind_of(given)}; pass [f]."
        )
    callbacks: list[Callable[[StepReport], None]] = []
    for i, one in enumerate(given):
        check_function(f"callbacks[{i}]", one, "a function of a report, or a Callback")
        callbacks.append(one)
    if folder is not None and not any(isinstance(one, JSONLines) for one in callbacks):
        callbacks.append(JSONLines())
    return callbacks


def numbers_of(report: StepReport, every: int) -> dict[str, Any]:
    """Return the numbers of a report, with the mean of the last losses."""
    numbers: dict[str, Any] = {
        "step": report.step,
        "loss": float(report.losses[-every:].mean()),
        "learning_rate": report.learning_rate,
        "gradient_norm": report.gradient_norm,
        "rows_per_second": round(report.rows_per_second, 1),
    }
    if report.logs:
        numbers["logs"] = dict(report.logs)
    if report.validation_loss is not None:
        numbers["validation_loss"] = report.validation_loss
    return numbers


def _in_folder(path: Path | None, folder: Path | None, name: str, who: str) -> Path:
    """Return a path of its own, or one in the folder of the training."""
    if path is not None:
        return path
    if folder is None:
        raise ValueError(
            f"{who} has no place to write to; pass its path, or folder= to the training."
        )
    return folder / name


def _step_of(line: bytes) -> float:
    """Return the step of a line; ∞ of one that was cut by a kill."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
