"""Labels and summaries of what is measured of series, works and likelihoods."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.diffusion.mismatch import PriorMismatch
from sdegen.diffusion.relaxation import NoisingTime
from sdegen.likelihood.bound_terms import EvidenceBound
from sdegen.likelihood.flow import Likelihood
from sdegen.likelihood.phase_space import PositionBound
from sdegen.measurements.autocorrelation import AutocorrelationTime
from sdegen.measurements.blocking import BlockAverage
from sdegen.measurements.displacement import DiffusionEstimate
from sdegen.measurements.entropy_production import EntropyEstimate
from sdegen.measurements.free_energy import CrooksEstimate, FreeEnergy
from sdegen.measurements.time_average import TimeAverage, TimeCovariance
from sdegen.plots.results.labelled import (
    OF_RATE,
    OF_TIME,
    OF_X,
    SAMPLE,
    Attribute,
    Labels,
    Variable,
    event_dims,
    labels,
    number,
)
from sdegen.plots.results.summaries import Fact, Summary, numbers_of, summary
from sdegen.variational.timed_bound import TimedBound
from sdegen.variational.vae import VariationalBound

NATS = "nats"


@labels.register
def _(result: TimeAverage) -> Labels:
    """Columns coordinate, mean with its error, tau, effective_samples, degrees_of_freedom."""
    dims = event_dims(tuple(result.mean.shape))
    variables = {
        "mean": Variable(result.mean, dims, "time average", "", result.standard_error),
        "tau": Variable(result.tau, dims, "integrated correlation time", OF_TIME),
        "effective_samples": Variable(result.effective_samples, dims, "independent samples"),
        "degrees_of_freedom": Variable(
            result.degrees_of_freedom, dims, "degrees of freedom of its error"
        ),
    }
    attrs: dict[str, Attribute] = {"states": result.count, "trajectories": result.trajectories}
    return Labels("Time average", variables, {}, attrs, drawn=("mean",))


@labels.register
def _(result: TimeCovariance) -> Labels:
    """Columns number, number_2, covariance with its error."""
    pair = ("number", "number_2")
    variables = {
        "covariance": Variable(
            result.covariance, pair, "covariance of the numbers of a flattened state", "",
            result.standard_error,
        ),
        "mean": Variable(result.mean, event_dims(tuple(result.mean.shape)), "mean"),
        "degrees_of_freedom": Variable(
            result.degrees_of_freedom, pair, "degrees of freedom of its error"
        ),
    }  # fmt: skip
    columns = ("covariance", "degrees_of_freedom")
    return Labels("Covariance in time", variables, {}, {}, columns, drawn=("covariance",))


@summary.register
def _(result: TimeCovariance) -> Summary:
    d = len(result.covariance)
    facts = tuple(
        Fact(f"covariance [{i}, {j}]", float(result.covariance[i, j]),
             float(result.standard_error[i, j]))
        for i in range(d) for j in range(i, d)
    )[:10]  # fmt: skip
    return Summary("Covariance in time", facts)


@labels.register
def _(result: AutocorrelationTime) -> Labels:
    """Columns coordinate, tau with its error, window, effective_samples."""
    dims = event_dims(tuple(result.tau.shape))
    variables = {
        "tau": Variable(result.tau, dims, "integrated correlation time", OF_TIME, result.error),
        "window": Variable(result.window, dims, "states that correlations were summed over"),
        "effective_samples": Variable(result.effective_samples, dims, "independent samples"),
    }
    attrs: dict[str, Attribute] = {"states": result.count, "spacing": result.spacing}
    return Labels("Autocorrelation time", variables, {}, attrs, drawn=("tau",))


@labels.register
def _(result: BlockAverage) -> Labels:
    """Columns size, coordinate, error of the mean by blocks of this size, with its own error."""
    dims = event_dims(tuple(result.mean.shape))
    variables = {
        "mean": Variable(result.mean, dims, "average", "", result.standard_error),
        "block": Variable(result.block, dims, "block that was taken", OF_TIME),
        "degrees_of_freedom": Variable(
            result.degrees_of_freedom, dims, "degrees of freedom of its error"
        ),
        "errors": Variable(
            result.errors, ("size", *dims), "standard error by blocks", "", result.scatter
        ),
    }
    coords = {"size": Variable(result.sizes, ("size",), "size of a block", OF_TIME)}
    return Labels("Block average", variables, coords, {}, ("errors",), drawn=("errors",), log="x")


@labels.register
def _(result: DiffusionEstimate) -> Labels:
    """Columns coefficient with its error, offset, low, high: one row."""
    variables = {
        "coefficient": number(
            result.coefficient, "diffusion coefficient D", "units of x²/time", result.error
        ),
        "offset": number(result.offset, "offset of the fit", "units of x²"),
        "low": number(result.low, "first lag of the fit", OF_TIME),
        "high": number(result.high, "last lag of the fit", OF_TIME),
    }
    attrs: dict[str, Attribute] = {"trajectories": result.count}
    return Labels("Diffusion coefficient", variables, {}, attrs, drawn=("coefficient",))


@labels.register
def _(result: EntropyEstimate) -> Labels:
    """Columns sample, each: what it has alone; the rate and its error are in the data set."""
    variables = {
        "rate": number(result.rate, "entropy production", "k_B/time", result.error),
        "each": Variable(result.each, (SAMPLE,), "of each sample, or trajectory"),
    }
    if result.step_error is not None:
        variables["step_error"] = number(
            result.step_error, "difference by half of the times", "k_B/time"
        )
    return Labels("Entropy production", variables, {}, {}, ("each",), drawn=("rate",))


@labels.register
def _(result: FreeEnergy) -> Labels:
    """Columns difference with its error, dissipated, effective: one row."""
    unit = "units of work"
    variables = {
        "difference": number(result.difference, "free-energy difference ΔF", unit, result.error),
        "dissipated": number(result.dissipated, "dissipated work ⟨W⟩ − ΔF", unit),
        "effective": number(result.effective, "works of equal weight that would tell as much"),
    }
    attrs: dict[str, Attribute] = {"works": result.count}
    drawn = ("difference", "dissipated")
    return Labels("Free-energy difference", variables, {}, attrs, drawn=drawn)


@labels.register
def _(result: CrooksEstimate) -> Labels:
    """Columns work, log_ratio with its error; ΔF and the slope are in the data set."""
    unit = "units of work"
    variables = {
        "difference": number(result.difference, "free-energy difference ΔF", unit, result.error),
        "slope": number(result.slope, "slope of log P(W)/P(−W); exact: 1", "", result.slope_error),
        "overlap": number(result.overlap, "overlap of both laws"),
        "log_ratio": Variable(
            result.log_ratio, ("work",), "log P_F(W)/P_B(−W)", "", result.log_ratio_error
        ),
    }
    coords = {"work": Variable(result.work, ("work",), "work W", unit)}
    return Labels(
        "Free-energy difference by both directions", variables, coords, {}, ("log_ratio",),
        drawn=("log_ratio",) if len(result.work) else ("difference",),
    )  # fmt: skip


@labels.register
def _(result: PriorMismatch) -> Labels:
    """Columns kl with its error: one row."""
    text = "KL of the noised data from the prior"
    variables = {"kl": number(result.kl, text, NATS, result.standard_error)}
    return Labels("Prior mismatch", variables, {}, {"method": result.method})


@labels.register
def _(result: NoisingTime) -> Labels:
    """Columns time with its error, kl, tolerance: one row."""
    variables = {
        "time": number(result.time, "noising time", OF_TIME, result.standard_error),
        "kl": number(result.kl, "KL from the prior there", NATS),
        "tolerance": number(result.tolerance, "what was asked for", NATS),
    }
    if result.slowest_rate is not None:
        variables["slowest_rate"] = number(result.slowest_rate, "slowest rate", OF_RATE)
    attrs: dict[str, Attribute] = {"method": result.method}
    return Labels("Noising time", variables, {}, attrs, drawn=("time",))


@labels.register
def _(result: Likelihood) -> Labels:
    """Columns sample, log_prob with its error."""
    dims = (SAMPLE, *event_dims(tuple(result.latent.shape[1:])))
    variables = {
        "log_prob": Variable(result.log_prob, (SAMPLE,), "log p(x)", NATS, result.standard_error),
        "latent": Variable(result.latent, dims, "where the flow carries x", OF_X),
    }
    attrs: dict[str, Attribute] = {"seed": result.seed, "nfe": result.nfe}
    return Labels("Log-likelihood", variables, {}, attrs, ("log_prob",), drawn=("log_prob",))


@labels.register(EvidenceBound)
@labels.register(TimedBound)
@labels.register(VariationalBound)
@labels.register(PositionBound)
def _(result: EvidenceBound | TimedBound | VariationalBound | PositionBound) -> Labels:
    """Columns sample, log_prob with its error, and the terms of one number each."""
    along, title = (SAMPLE,), "Lower bound of log p"
    variables = {
        "log_prob": Variable(
            result.log_prob, along, "bound of log p(x)", NATS, result.standard_error
        )
    }
    texts = {
        "prior": "term of the prior",
        "diffusion": "terms of the diffusion",
        "reconstruction": "term of the reconstruction",
    }
    for name, text in texts.items():
        term = getattr(result, name, None)
        if isinstance(term, Tensor):
            dims = (SAMPLE, "term") if term.ndim == 2 else along
            variables[name] = Variable(term, dims, text, NATS)
    columns = tuple(name for name, one in variables.items() if one.dims == along)
    attrs: dict[str, Attribute] = {"seed": result.seed}
    for name in ("nfe", "importance", "dimensions"):
        if hasattr(result, name):
            attrs[name] = int(getattr(result, name))
    return Labels(title, variables, {}, attrs, columns, drawn=("log_prob",))


@summary.register(Likelihood)
@summary.register(EvidenceBound)
@summary.register(TimedBound)
@summary.register(VariationalBound)
@summary.register(PositionBound)
def _(
    result: Likelihood | EvidenceBound | TimedBound | VariationalBound | PositionBound,
) -> Summary:
    held, values = labels(result), result.log_prob.detach().double()
    n = len(values)
    spread = float(values.std(correction=1)) / n**0.5 if n > 1 else None
    facts = [Fact("mean over the samples", float(values.mean()), spread, NATS)]
    bits = result.bits_per_dim().detach().double()
    error = float(bits.std(correction=1)) / n**0.5 if n > 1 else None
    facts.append(Fact("bits per dimension, unit bins", float(bits.mean()), error))
    errors = result.standard_error.detach()
    if bool(torch.isfinite(errors).all()):
        facts.append(Fact("standard error of one, at most", float(errors.max()), None, NATS))
    for name in ("prior", "diffusion", "reconstruction"):
        term = getattr(result, name, None)
        if isinstance(term, Tensor):
            total = term.detach().double().reshape(n, -1).sum(1)
            facts.append(
                Fact(f"{held.variables[name].text}, mean", float(total.mean()), None, NATS)
            )
    return Summary(f"{held.title} of {n:,} samples", tuple(facts), held.attrs)


@summary.register
def _(result: BlockAverage) -> Summary:
    held = labels(result)
    some = Labels(held.title, {k: v for k, v in held.variables.items() if k != "errors"})
    return Summary(held.title, numbers_of(some))
