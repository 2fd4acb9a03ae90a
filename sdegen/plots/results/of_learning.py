"""Labels and summaries of what is learned: trainings, losses by noise level, models."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sdegen.plots.results.labelled import Attribute, Labels, Variable, labels, times_of
from sdegen.plots.results.summaries import Fact, Summary, summary
from sdegen.score.levels import LevelLosses
from sdegen.score.model import ScoreModel
from sdegen.training.result import TrainResult

LOG_SNR = "log SNR = log α²/σ²"


@labels.register
def _(result: TrainResult) -> Labels:
    """Columns step, loss, validation_loss (NaN where there was none), terms of the loss."""
    steps = len(result.losses)
    along = ("step",)
    validation = torch.full((steps,), torch.nan, dtype=torch.float64)
    seen = (result.validation_steps >= 1) & (result.validation_steps <= steps)
    validation[result.validation_steps[seen] - 1] = result.validation_losses[seen].double()
    variables = {
        "loss": Variable(result.losses, along, "loss of the step"),
        "validation_loss": Variable(validation, along, "loss of validation after the step"),
    }
    variables |= {
        name: Variable(values, along, f"mean of the term {name!r} in the step")
        for name, values in result.logs.items()
    }
    at = Variable(torch.arange(1, steps + 1), along, "training step")
    attrs: dict[str, Attribute] = {"seed": result.seed, "selected_step": result.selected_step}
    return Labels("Training", variables, {"step": at}, attrs)


@summary.register
def _(result: TrainResult) -> Summary:
    steps = len(result.losses)
    last = result.losses[-max(1, steps // 10) :].double()
    error = float(last.std(correction=1)) / math.sqrt(len(last)) if len(last) > 1 else None
    facts = [
        Fact("steps", steps),
        Fact(f"loss, mean of the last {len(last):,} steps", float(last.mean()), error),
    ]
    if len(result.validation_losses):
        best = float(result.validation_losses.min())
        facts.append(Fact("validation loss, least", best))
        facts.append(Fact("validation loss, last", float(result.validation_losses[-1])))
    facts.append(Fact("weights kept of step", result.selected_step))
    return Summary(f"Training of {steps:,} steps", tuple(facts), {"seed": result.seed})


@labels.register
def _(result: LevelLosses) -> Labels:
    """Columns time, loss, validation, with errors, log_snr."""
    along = ("time",)
    text = "loss E ‖ε̂ − ε‖²/d"
    variables = {"loss": Variable(result.losses, along, text, "", result.errors)}
    if result.validation is not None:
        variables["validation"] = Variable(
            result.validation, along, f"{text} of other data", "", result.validation_errors
        )
    drawn = tuple(variables)
    if result.log_snr is not None:
        variables["log_snr"] = Variable(result.log_snr, along, LOG_SNR)
    return Labels("Loss by noise level", variables, times_of(result.times), {}, drawn=drawn)


@summary.register
def _(result: LevelLosses) -> Summary:
    facts = []
    for name, losses, errors in (
        ("mean loss", result.losses, result.errors),
        ("mean loss of other data", result.validation, result.validation_errors),
    ):
        if losses is not None and errors is not None:
            error = float(errors.square().sum().sqrt()) / len(errors)
            facts.append(Fact(f"{name} over {len(losses)} levels", float(losses.mean()), error))
    return Summary("Loss by noise level", tuple(facts))


@summary.register
def _(model: ScoreModel) -> Summary:
    weights = sum(p.numel() for p in model.network.parameters())
    facts = [
        Fact("network", f"{type(model.network).__name__}, {weights:,} weights"),
        Fact("process", _in_words(model.sde)),
        Fact("the network predicts", type(model.parameterization).__name__),
    ]
    if model.times is not None:
        low, high = model.times
        facts.append(Fact("times", f"t = {low:g} … {high:g}"))
    shape = "not known before training" if model.event_shape is None else str(model.event_shape)
    facts.append(Fact("shape of a sample", shape))
    if model.labels is not None:
        facts.append(Fact("told labels of shape", str(tuple(model.labels.shape))))
    if model.unreached is not None:
        facts.append(Fact("KL from the prior, not reached", model.unreached, None, "nats"))
    return Summary("Score model", tuple(facts), {"dtype": _dtype_of(model.network)})


def _dtype_of(network: nn.Module) -> str:
    first = next(network.parameters(), None)
    return "none" if first is None else str(first.dtype).removeprefix("torch.")


def _in_words(value: object) -> str:
    """Return a process by its class, and the class of its schedule."""
    schedule = getattr(value, "beta", None)
    kind = type(value).__name__
    if schedule is None or isinstance(schedule, Tensor | int | float):
        return kind
    return f"{kind} ({type(schedule).__name__})"
