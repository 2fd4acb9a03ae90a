"""Labels and summaries of what simulations, scores and samplers are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.plots.results.labelled import (
    OF_X,
    Attribute,
    Labels,
    Variable,
    event_dims,
    labels,
    number,
    times_of,
)
from sdegen.plots.results.of_learning import LOG_SNR
from sdegen.plots.results.summaries import Fact, Summary, each, in_figures, summary
from sdegen.verification.budget import ErrorBudget, ErrorBudgets
from sdegen.verification.certificate import Certificate
from sdegen.verification.check import Check, Checked
from sdegen.verification.identities.result import Identities
from sdegen.verification.levels.answer import StepBias
from sdegen.verification.path_certificate import PathVerdict
from sdegen.verification.reverse_kernel import ReverseKernel
from sdegen.verification.score_residuals import ScoreResiduals
from sdegen.verification.scores.sampler_errors import SamplerErrors

_SIGNS = {"passed": "✓", "failed": "✗", "not judged": "–"}
_HEAD = ("verdict", "check", "value", "limit", "p-value")


def _numbers(values: Sequence[float | None]) -> Tensor:
    """Return numbers, NaN where there is none."""
    return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)


def _of_checks(checks: Sequence[Check]) -> dict[str, Variable]:
    """Return the columns of checks: name, verdict, value, threshold, …, remark."""
    along = ("check",)
    columns = {
        "name": Variable([c.name for c in checks], along, "what was checked"),
        "verdict": Variable([c.verdict for c in checks], along, "passed, failed or not judged"),
    }
    texts = {
        "value": "what came out",
        "threshold": "the largest value that passes",
        "p_value": "chance of such a value where all is right",
        "false_alarm": "chance that exact input fails",
        "floor": "what exact input shows on average",
        "time": "time that was judged",
    }
    for name, text in texts.items():
        columns[name] = Variable(_numbers([getattr(c, name) for c in checks]), along, text)
    columns["remark"] = Variable([c.remark for c in checks], along, "what is wrong")
    return columns


def _table(checks: Sequence[Check]) -> tuple[tuple[str, ...], ...]:
    """Return checks in words."""
    rows = [
        (
            f"{_SIGNS[c.verdict]} {c.verdict}",
            c.name if c.time is None else f"{c.name}, t = {c.time:g}",
            _short(c.value),
            _short(c.threshold),
            _short(c.p_value),
        )
        for c in checks
    ]
    return (_HEAD, *rows)


@labels.register
def _(result: Checked) -> Labels:
    """Columns check, name, verdict, value, threshold, p_value, false_alarm, floor, time, remark.

    Of whatever consists of checks.
    """
    title = type(result).__name__
    attrs: dict[str, Attribute] = {"passed": "yes" if result.passed else "no"}
    sentence = getattr(result, "summary", "")
    if isinstance(sentence, str) and sentence:
        attrs["sentence"] = sentence
    if isinstance(result, Certificate) and result.path is not None:
        attrs["seed"] = result.path.seed
    elif isinstance(result, ScoreResiduals):
        attrs["seed"] = result.seed
    variables = _of_checks(result.checks)
    return Labels(title, variables, {}, attrs, tuple(variables), drawn=("value",))


def _short(value: float | None) -> str:
    """Return a number in three digits; nothing where there is none."""
    if value is None or math.isnan(value):
        return ""
    return in_figures(float(f"{value:.3g}"))


def _counts(checks: Sequence[Check]) -> str:
    """Return how many of some checks failed, in words."""
    judged = [c for c in checks if c.verdict != "not judged"]
    failed = sum(c.verdict == "failed" for c in judged)
    return f"{failed} of {len(judged)} checks failed" if failed else f"{len(judged)} checks passed"


@summary.register
def _(result: Certificate) -> Summary:
    facts: list[Fact] = []
    if result.path is not None and result.steps is None:
        path = result.path
        facts.append(Fact("trajectories", int((~path.nonfinite).sum())))
        facts.append(Fact("times", f"t = {float(path.times[0]):g} … {float(path.times[-1]):g}"))
    if result.steps is not None:
        facts += _of_steps(result.steps)
    made: dict[str, Attribute] = {} if result.path is None else {"seed": result.path.seed}
    return Summary(
        f"Certificate: {_counts(result.checks)}", tuple(facts), made, result.summary,
        result.passed, _table(result.checks), folded=result.passed,
    )  # fmt: skip


def _of_steps(verdict: PathVerdict) -> list[Fact]:
    """Return what is known of the steps of stored states."""
    states = verdict.states
    facts = [
        Fact("judged", f"{states.shape[1]:,} trajectories, {states.shape[0]:,} frames"),
        Fact("as steps of", verdict.judged_as),
        Fact("least p-value, of all tests", verdict.p_value),
        Fact("chance that right states are refused", verdict.false_alarm),
    ]
    for name, value in (
        ("relative error of the drift that would be seen", verdict.smallest_drift),
        ("relative error of the noise that would be seen", verdict.smallest_noise),
    ):
        if math.isfinite(value):
            facts.append(Fact(name, value))
    return facts


@summary.register
def _(result: PathVerdict) -> Summary:
    title = f"Steps of stored states: {_counts(result.checks)}"
    table = _table(result.checks)
    return Summary(title, tuple(_of_steps(result)), {}, result.summary(), result.passed, table)


@summary.register
def _(result: Identities) -> Summary:
    facts = [Fact("judged", f"{result.states.shape[0]:,} frames"),
             Fact("as steps of", result.judged_as)]  # fmt: skip
    facts += [
        Fact(f"{row.name}; exact: {row.expected:.4g}", row.value, row.standard_error)
        for row in result.biases
    ]
    title = f"Identities: {_counts(result.checks)}"
    return Summary(title, tuple(facts), good=result.passed, table=_table(result.checks))


@labels.register
def _(result: ScoreResiduals) -> Labels:
    """Columns time, residual, factor, curl, equation, squared_residual, squared_score, log_snr.

    The first five have errors beside them.
    """
    along = ("time",)
    pairs = {
        "residual": (result.error, result.error_bars, "|s − s*|/|s*|"),
        "factor": (result.factor, result.factor_bars, "factor c of s ≈ c s*"),
        "curl": (result.curl, result.curl_bars, "curl over the Jacobian"),
        "equation": (result.equation, result.equation_bars, "rest of the Fokker–Planck equation"),
        "squared_residual": (result.squared_error, result.squared_error_bars, "E|s − s*|²"),
    }
    variables = {
        name: Variable(values, along, text, "", bars)
        for name, (values, bars, text) in pairs.items()
    }
    variables["squared_score"] = Variable(result.squared_score, along, "E|s*|²")
    if result.log_snr is not None:
        variables["log_snr"] = Variable(result.log_snr, along, LOG_SNR)
    columns = tuple(variables)
    dims = ("time", *event_dims(tuple(result.by_coordinate.shape[1:])))
    text = "error of each coordinate over its own score"
    variables["by_coordinate"] = Variable(result.by_coordinate, dims, text)
    variables["kl"] = number(result.kl, "what the error costs a sampler", "nats", result.kl_bar)
    attrs: dict[str, Attribute] = {"seed": result.seed, "sentence": result.summary}
    return Labels(
        "Residuals of a score", variables, times_of(result.times), attrs, columns,
        drawn=("residual",),
    )  # fmt: skip


@summary.register
def _(result: ScoreResiduals) -> Summary:
    worst = int(torch.nan_to_num(result.error).argmax())
    name = f"largest error |s − s*|/|s*|, at t = {float(result.times[worst]):.3g}"
    facts = each(name, result.error[worst], result.error_bars[worst])
    facts += (Fact("what the error costs a sampler", result.kl, result.kl_bar, "nats"),)
    title = f"Residuals of a score: {_counts(result.checks)}"
    made: dict[str, Attribute] = {"seed": result.seed}
    table = _table(result.checks)
    return Summary(title, facts, made, result.summary, result.passed, table, folded=True)


@labels.register
def _(result: ErrorBudget) -> Labels:
    """Columns cause, total_variation, wasserstein, kl; the densities are in the data set."""
    rows = (*result.parts, result.whole)
    variables = {
        "total_variation": Variable(
            _numbers([r.total_variation for r in rows]), ("cause",), "total variation"
        ),
        "wasserstein": Variable(
            _numbers([r.wasserstein for r in rows]), ("cause",), "Wasserstein-1", OF_X
        ),
        "kl": Variable(_numbers([r.kl for r in rows]), ("cause",), "Kullback–Leibler", "nats"),
    }
    columns = tuple(variables)
    names = ["data", "stopped early", "mismatched prior", "wrong score", "samples"]
    same = all(torch.equal(d.x, result.densities[0].x) for d in result.densities)
    coords = {"cause": Variable([r.cause for r in rows], ("cause",), "cause")}
    if same:
        p = torch.stack([d.p for d in result.densities])
        variables["p"] = Variable(p, ("law", "x"), "density of each law", f"1/{OF_X}")
        coords["law"] = Variable(names, ("law",), "law")
        coords["x"] = Variable(result.densities[0].x, ("x",), "position x", OF_X)
    attrs: dict[str, Attribute] = {"accuracy": result.accuracy}
    drawn = ("total_variation", "wasserstein")
    return Labels("Error budget", variables, coords, attrs, columns, drawn=drawn, log="y")


@summary.register
def _(result: ErrorBudget) -> Summary:
    rows = (*result.parts, result.whole)
    facts = [Fact(f"{row.cause}, total variation", row.total_variation) for row in rows]
    facts.append(Fact("accuracy of the computation, total variation", result.accuracy))
    head = ("cause", "total variation", f"Wasserstein-1, {OF_X}", "KL, nats")
    table = [
        (r.cause, f"{r.total_variation:.3e}", f"{r.wasserstein:.3e}", f"{r.kl:.3e}") for r in rows
    ]
    return Summary("Error budget of a sampler", tuple(facts), table=(head, *table), folded=True)


@labels.register
def _(result: ErrorBudgets) -> Labels:
    """Columns steps, cause, total_variation, wasserstein, kl."""
    steps = sorted(result)
    budgets = [(*result[n].parts, result[n].whole) for n in steps]
    dims = ("steps", "cause")
    variables = {
        name: Variable(_numbers([getattr(r, name) for row in budgets for r in row])
                       .reshape(len(steps), -1), dims, text, unit)
        for name, text, unit in (
            ("total_variation", "total variation", ""),
            ("wasserstein", "Wasserstein-1", OF_X),
            ("kl", "Kullback–Leibler", "nats"),
        )
    }  # fmt: skip
    variables["accuracy"] = Variable(
        _numbers([result[n].accuracy for n in steps]), ("steps",), "accuracy, total variation"
    )
    coords = {"steps": Variable(torch.tensor(steps), ("steps",), "number of steps N")}
    if budgets:
        coords["cause"] = Variable([r.cause for r in budgets[0]], ("cause",), "cause")
    columns = ("total_variation", "wasserstein", "kl")
    return Labels("Error budgets", variables, coords, {}, columns, drawn=columns, log="xy")


@summary.register
def _(result: ErrorBudgets) -> Summary:
    facts = tuple(
        Fact(f"whole, N = {n:,}, total variation", result[n].whole.total_variation)
        for n in sorted(result)
    )
    return Summary(f"Error budgets of {len(result)} samplers", facts)


@labels.register
def _(result: SamplerErrors) -> Labels:
    """Columns cause, wasserstein, kl, with errors; the samples are in the data set."""
    rows, along = (*result.parts, result.whole), ("cause",)
    variables = {
        "wasserstein": Variable(
            _numbers([r.wasserstein for r in rows]), along, "sliced Wasserstein-1", OF_X,
            _numbers([r.wasserstein_bar for r in rows]),
        ),
        "kl": Variable(
            _numbers([r.kl for r in rows]), along, "Kullback–Leibler", "nats",
            _numbers([r.kl_bar for r in rows]),
        ),
    }  # fmt: skip
    columns = tuple(variables)
    dims = ("sample", *event_dims(tuple(result.samples.shape[1:])))
    variables["samples"] = Variable(result.samples, dims, "sample x", OF_X)
    coords = {"cause": Variable([r.cause for r in rows], along, "cause")}
    attrs: dict[str, Attribute] = {"seed": result.seed}
    return Labels("Errors of a sampler", variables, coords, attrs, columns, drawn=("wasserstein",))


@summary.register
def _(result: SamplerErrors) -> Summary:
    rows = (*result.parts, result.whole)
    facts = [
        Fact(f"{r.cause}, sliced Wasserstein-1", r.wasserstein, r.wasserstein_bar, OF_X)
        for r in rows
    ]
    facts += [Fact(f"{r.cause}, KL", r.kl, r.kl_bar, "nats") for r in rows if r.kl is not None]
    sentence = str(result).splitlines()[-1]
    return Summary("Errors of a sampler", tuple(facts), {"seed": result.seed}, sentence)


@labels.register
def _(result: StepBias) -> Labels:
    """Columns average (its name), bias, with the half width of its interval, at_dt, scale."""
    names, values, errors, averages, scales = [], [], [], [], []
    bias, spread = result.value, result.error
    for name, average in result.average.items():
        several = average.ndim > 0
        names += [f"{name}[{k}]" for k in range(len(average))] if several else [name]
        values.append(bias[name].flatten())
        errors.append(spread[name].flatten())
        averages.append(average.flatten())
        scales.append(result.scale[name].expand(average.shape).flatten())
    along = ("average",)
    variables = {
        "bias": Variable(
            torch.cat(values), along, "bias of the step, A(dt) − A(0)", "", torch.cat(errors),
            "half width of the interval",
        ),
        "at_dt": Variable(torch.cat(averages), along, "average at the step"),
        "scale": Variable(torch.cat(scales), along, "what relative numbers refer to"),
    }  # fmt: skip
    attrs: dict[str, Attribute] = {
        "dt": result.dt,
        "order": result.order,
        "confidence": result.confidence,
        "trajectories": result.trajectories,
        "seed": result.seed,
    }
    coords = {"average": Variable(names, along, "average of")}
    return Labels("Bias of the step", variables, coords, attrs, drawn=("bias",))


@summary.register
def _(result: StepBias) -> Summary:
    held = labels(result)
    bias, at = held.variables["bias"], held.coords["average"].values
    assert isinstance(bias.values, Tensor)
    assert bias.error is not None
    rows = zip(at, bias.values.tolist(), bias.error.tolist(), strict=True)
    facts = tuple(Fact(f"bias of ⟨{name}⟩", value, error) for name, value, error in rows)
    title = f"Bias of the step, dt = {result.dt:g}"
    return Summary(title, facts, held.attrs, " ".join(f"{s}." for s in result.sentence.values()))


@labels.register
def _(result: ReverseKernel) -> Labels:
    """Columns x, masses, mean, variance, skewness, kurtosis, kl, beta, beta_tilde_local."""
    texts = {
        "variance": ("variance of x_{t−dt} given x_t", "units of x²"),
        "beta": ("variance β of the forward step", "units of x²"),
        "beta_tilde_local": ("β̃ of the process linearised at x", "units of x²"),
        "mean": ("mean of x_{t−dt} given x_t", OF_X),
        "masses": ("probability of x", ""),
        "skewness": ("skewness", ""),
        "kurtosis": ("excess kurtosis", ""),
        "kl": ("KL to a Gaussian", "nats"),
    }
    variables = {
        name: Variable(getattr(result, name), ("x",), text, unit)
        for name, (text, unit) in texts.items()
    }
    attrs: dict[str, Attribute] = {"t": result.t, "dt": result.dt}
    coords = {"x": Variable(result.x, ("x",), "x at time t", OF_X)}
    drawn = ("variance", "beta", "beta_tilde_local", "kl")
    return Labels("Reverse kernel", variables, coords, attrs, drawn=drawn)


@summary.register
def _(result: ReverseKernel) -> Summary:
    facts = (
        Fact("KL to a Gaussian, averaged", result.mean_kl, None, "nats"),
        Fact("mean of the variance", result.mean_variance, None, "units of x²"),
        Fact("variance of the mean", result.variance_of_mean, None, "units of x²"),
        Fact("relative error of p_t", in_figures(float(result.error))),
    )
    title = f"Reverse kernel at t = {result.t:g}, dt = {result.dt:g}"
    return Summary(title, facts, {"t": result.t, "dt": result.dt})
