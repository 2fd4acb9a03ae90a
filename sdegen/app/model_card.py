"""Model card: what a published score model is, on what data, how wrong, and who says so.

Sections of README.md, in this order: the data, the process with its equation, the error with its
error bars, the certificate, three lines that use it, versions. What was not given is said to be
"not stated" or "not measured". Results are printed as `print(result)` has them.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sdegen.core.fingerprint import versions
from sdegen.score.levels import LevelLosses
from sdegen.score.model import ScoreModel
from sdegen.training.config import FitConfig
from sdegen.verification.certificate import Certificate
from sdegen.verification.score_residuals import ScoreResiduals
from sdegen.verification.scores.sampler_errors import SamplerErrors

Error = ScoreResiduals | SamplerErrors | LevelLosses
_SHORT = 8  # numbers of a table that are written out


@dataclass(frozen=True)
class Facts:
    """What is said of a model beside what its file knows; None and () where nothing is."""

    data: str | None
    errors: tuple[Error, ...]
    certificate: Certificate | None
    training: FitConfig | None


def card_text(model: ScoreModel, spec: Mapping[str, Any], facts: Facts) -> str:
    """Return the text of a model card, without its head.

    Args:
        model: The model.
        spec: What its file says that it is made of.
        facts: What else is said of it.
    """
    process, network = type(model.sde).__name__, type(model.network).__name__
    sections = {
        "Data": facts.data or "Not stated.",
        "What it is": _about(model, spec, facts.training),
        "Error": "\n\n".join(map(_error, facts.errors)) or "Not measured.",
        "Certificate": _block(str(facts.certificate)) if facts.certificate else "None.",
        "How to use it": _usage(model, spec),
        "Versions": _versions(),
    }
    head = f"# A score of {process}, learned by {network}\n\n"
    head += "∇ log p_t(x) of noised data, as sdegen reads it."
    return "\n\n".join([head, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def in_words(spec: object) -> str:
    """Return a specification as Python would write it, long tables cut.

    >>> in_words({"class": "VP", "beta": {"class": "ConstantBeta", "beta": 2.0}, "t_min": 0.001})
    'VP(beta=ConstantBeta(beta=2.0), t_min=0.001)'
    """
    if isinstance(spec, Mapping):
        given = (f"{name}={in_words(value)}" for name, value in spec.items() if name != "class")
        return f"{spec['class']}({', '.join(given)})"
    if isinstance(spec, list) and len(spec) > _SHORT:
        return f"[… {len(spec)} entries]"
    return repr(spec)


def _about(model: ScoreModel, spec: Mapping[str, Any], training: FitConfig | None) -> str:
    """Return the section on process, network, parameterization and training."""
    weights = sum(p.numel() for p in model.network.parameters())
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.network.parameters()})
    rows = [
        f"- SDE: `{in_words(spec['sde'])}`",
        f"- Times: {_times(model)}",
        f"- Network: `{in_words(spec['network'])}`, {weights:,} weights, {', '.join(kinds)}",
        f"- Parameterization: `{in_words(spec['parameterization'])}`",
        f"- Shape of one sample: {model.event_shape or 'not stated'}",
    ]
    if model.unreached is not None:
        rows.append(f"- KL(p_T ‖ prior), what noising has not reached: {model.unreached:.3g} nats")
    if model.base is not None:
        rows.append("- The network is added to a base score, which no file keeps")
    told = "not stated" if training is None else f"`{_training(training)}`"
    rows.append(f"- Training: {told}")
    parts = [_equation(part) for part in (model.sde, model.parameterization)]
    return "\n\n".join(["\n".join(rows), *filter(None, parts)])


def _times(model: ScoreModel) -> str:
    """Return the times at which a model may be asked."""
    if model.times is None:
        return "not found yet, as it was not trained"
    return "{:g} ≤ t ≤ {:g}".format(*model.times)


def _training(config: FitConfig) -> str:
    """Return a configuration, of which what is usual is left out but for the number of steps."""
    kind = type(config)
    usual = kind()
    told = {field.name: getattr(config, field.name) for field in fields(config)}
    kept = {k: v for k, v in told.items() if k == "steps" or v != getattr(usual, k)}
    return f"{kind.__name__}({', '.join(f'{k}={v!r}' for k, v in kept.items())})"


def _equation(part: object) -> str:
    """Return what the documentation of a class says that it is, up to its first equation."""
    text = inspect.cleandoc(type(part).__doc__ or "").partition("\n\nArgs:")[0]
    paragraphs = text.split("\n\n")
    shown = [i for i, paragraph in enumerate(paragraphs) if paragraph.startswith("    ")]
    told = paragraphs[: shown[0] + 1] if shown else paragraphs[:1]
    name = f"**{type(part).__name__}**. "
    return "\n\n".join(
        _block(textwrap.dedent(p)) if p.startswith("    ") else (name if not i else "") + p
        for i, p in enumerate(told)
    )


def _error(result: Error) -> str:
    """Return what one result says of the error."""
    if isinstance(result, ScoreResiduals):
        text = "Of the score on data that it has not seen, a lower bound by noise level:"
        return f"{text}\n\n{_block(str(result))}"
    if isinstance(result, SamplerErrors):
        text = "Of samples, by cause: sliced Wasserstein-1 in units of the data, KL in nats:"
        return f"{text}\n\n{_block(str(result))}"
    return f"Loss of denoising, E ‖ε̂ − ε‖²/d ± standard error:\n\n{_levels(result)}"


def _levels(result: LevelLosses) -> str:
    """Return losses by noise level as a table."""
    columns = {"training data": (result.losses, result.errors)}
    if result.validation is not None and result.validation_errors is not None:
        columns["other data"] = (result.validation, result.validation_errors)
    lines = ["| t | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for i, t in enumerate(result.times.tolist()):
        cells = (f"{float(v[i]):.4f} ± {float(e[i]):.4f}" for v, e in columns.values())
        lines.append(f"| {t:.4g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _usage(model: ScoreModel, spec: Mapping[str, Any]) -> str:
    """Return the lines that load a model and ask it for a score."""
    own = [f"{part}=…" for part in spec if "." in spec[part]["class"]]
    own += ["base=…"] if model.base is not None else []
    arguments = ", ".join(['"this folder, or user/name"', *own])
    told = ".conditional(label)" if getattr(model.network, "classes", 0) else ""
    lines = [
        "import sdegen as sg",
        f"model = sg.HubScoreModel.from_pretrained({arguments}).model",
        f"score = model{told}.score(x, t)  # ∇ log p_t(x), x of shape (batch, *event)",
    ]
    after = "\n\nWhat is written … is your own code, and in no file." if own else ""
    return _block("\n".join(lines), "python") + after


def _versions() -> str:
    """Return the versions that wrote the card."""
    told = versions("sdegen", "torch", "huggingface_hub")
    names = ("python", "sdegen", "torch", "huggingface_hub")
    return ", ".join(f"{name} {told[name]}" for name in names) + "."


def _block(text: str, language: str = "text") -> str:
    """Return a block of fixed width."""
    return f"```{language}\n{text}\n```"
