"""Labels and summaries of what observables find in an ensemble, or in a path."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.observables.correlation import Correlation
from sdegen.observables.currents import Current
from sdegen.observables.displacement import Displacements
from sdegen.observables.functional_estimate import FunctionalEstimate
from sdegen.observables.histogram import HistogramCounts
from sdegen.observables.moments import MomentEstimate
from sdegen.observables.particles import SystemMean
from sdegen.observables.passages import Passages
from sdegen.observables.residence import Stays
from sdegen.observables.spectrum import Spectrum
from sdegen.plots.results.labelled import (
    OF_RATE,
    OF_TIME,
    OF_X,
    TIME,
    Attribute,
    Labels,
    Variable,
    event_dims,
    labels,
    times_of,
)
from sdegen.plots.results.summaries import Fact, Summary, each, summary

OF_X2, OF_DENSITY = "units of x²", "1/units of x"


@labels.register
def _(result: MomentEstimate) -> Labels:
    """Columns time, coordinate, mean, variance, with errors."""
    dims = (TIME, *event_dims(tuple(result.mean.shape[1:])))
    variables = {
        "mean": Variable(result.mean, dims, "mean", OF_X, result.mean_error),
        "variance": Variable(result.variance, dims, "variance", OF_X2, result.variance_error),
    }
    columns = tuple(variables)
    if result.covariance is not None:
        pair = (TIME, "number", "number_2")
        variables["covariance"] = Variable(
            result.covariance, pair, "covariance of the numbers of a flattened state", OF_X2,
            result.covariance_error,
        )  # fmt: skip
    attrs: dict[str, Attribute] = {"trajectories": result.count}
    return Labels("Moments", variables, times_of(result.times), attrs, columns, drawn=columns)


@summary.register
def _(result: MomentEstimate) -> Summary:
    held, t = labels(result), float(result.times[-1])
    spread = None if result.variance_error is None else result.variance_error[-1]
    facts = each(f"mean at t = {t:g}", result.mean[-1], result.mean_error[-1], OF_X)
    facts += each(f"variance at t = {t:g}", result.variance[-1], spread, OF_X2)
    return Summary(f"Moments of {result.count:,} trajectories", facts, held.attrs)


@labels.register
def _(result: HistogramCounts) -> Labels:
    """Columns time, x (the middle of a bin), density with its error, counts, low, high."""
    dims, edges = (TIME, "x"), result.edges
    variables = {
        "density": Variable(
            result.density, dims, "density p(x)", OF_DENSITY, result.density_error, along="x"
        ),
        "counts": Variable(result.counts, dims, "trajectories in the bin"),
        "low": Variable(edges[:-1], ("x",), "lower edge of the bin", OF_X),
        "high": Variable(edges[1:], ("x",), "upper edge of the bin", OF_X),
    }
    columns = tuple(variables)
    variables["below"] = Variable(result.below, (TIME,), "trajectories below all bins")
    variables["above"] = Variable(result.above, (TIME,), "trajectories above all bins")
    middle = Variable((edges[1:] + edges[:-1]) / 2, ("x",), "position x", OF_X)
    coords = {**times_of(result.times), "x": middle}
    attrs: dict[str, Attribute] = {"trajectories": result.count}
    return Labels("Histogram", variables, coords, attrs, columns, drawn=("density",))


@summary.register
def _(result: HistogramCounts) -> Summary:
    inside, t = int(result.counts[-1].sum()), float(result.times[-1])
    facts = (
        Fact("bins", result.counts.shape[1]),
        Fact(f"in the bins at t = {t:g}, of {result.count:,}", inside),
    )
    return Summary("Histogram", facts, labels(result).attrs)


@labels.register
def _(result: Correlation) -> Labels:
    """Columns lag, coordinate, covariance with its error, coefficient."""
    dims = ("lag", *event_dims(tuple(result.covariance.shape[1:])))
    variables = {
        "covariance": Variable(result.covariance, dims, "correlation C(τ)", OF_X2, result.error),
        "coefficient": Variable(result.coefficient, dims, "coefficient of correlation"),
    }
    attrs: dict[str, Attribute] = {"trajectories": result.count}
    coords = times_of(result.lags, "lag τ", "lag")
    return Labels("Correlation", variables, coords, attrs, drawn=("covariance",))


@summary.register
def _(result: Correlation) -> Summary:
    facts = each("C(0)", result.covariance[0], result.error[0], OF_X2)
    last = float(result.lags[-1])
    facts += each(f"C({last:g})", result.covariance[-1], result.error[-1], OF_X2)
    return Summary("Correlation in time", facts, labels(result).attrs)


@labels.register
def _(result: Displacements) -> Labels:
    """Columns lag, total, spread, with the error of total."""
    along, dims = ("lag",), ("lag", *event_dims(tuple(result.square.shape[1:])))
    variables = {
        "total": Variable(
            result.total, along, "mean-squared displacement", OF_X2, result.total_error
        ),
        "spread": Variable(result.spread, along, "the same around the mean displacement", OF_X2),
    }
    columns = tuple(variables)
    variables |= {
        "square": Variable(
            result.square, dims, "mean square of each coordinate", OF_X2, result.square_error
        ),
        "mean": Variable(result.mean, dims, "mean displacement", OF_X, result.mean_error),
    }
    if result.covariance is not None:
        pair = ("lag", "lag_2")
        variables["covariance"] = Variable(result.covariance, pair, "covariance of totals")
    attrs: dict[str, Attribute] = {"trajectories": result.count, "lost": result.lost}
    coords = times_of(result.lags, "lag τ", "lag")
    return Labels("Displacements", variables, coords, attrs, columns, drawn=("total",), log="xy")


@summary.register
def _(result: Displacements) -> Summary:
    last = float(result.lags[-1])
    facts = each(f"MSD({last:g})", result.total[-1], result.total_error[-1], OF_X2)
    return Summary("Mean-squared displacement", facts, labels(result).attrs)


@labels.register
def _(result: Passages) -> Labels:
    """Columns time, survival with its error, waiting, passed and density since the time before."""
    along = (TIME,)
    first = torch.full((1,), torch.nan, dtype=torch.float64)
    passed = torch.cat([result.count - result.waiting[:1], result.histogram])
    variables = {
        "survival": Variable(
            result.survival, along, "chance not to have passed", "", result.survival_error
        ),
        "waiting": Variable(result.waiting, along, "trajectories that have not passed"),
        "passed": Variable(passed, along, "passages since the time before, or at the start"),
        "density": Variable(
            torch.cat([first, result.density]),
            along,
            "density of the passage time since the time before",
            OF_RATE,
            torch.cat([first, result.density_error]),
        ),
    }
    attrs: dict[str, Attribute] = {"trajectories": result.count, "passed": result.passed}
    return Labels(
        "Passages", variables, times_of(result.times, "time since the start"), attrs,
        drawn=("survival",),
    )  # fmt: skip


@summary.register
def _(result: Passages) -> Summary:
    facts = [Fact(f"passed, of {result.count:,}", result.passed)]
    if result.passed:
        facts.append(Fact("rate of passage", result.rate, result.rate_error, OF_RATE))
    if result.passed == result.count:
        facts.append(Fact("mean passage time", result.mean, result.mean_error, OF_TIME))
    last = result.survival[-1], result.survival_error[-1]
    facts += each(f"survival at t = {float(result.times[-1]):g}", *last)
    return Summary("First passages", tuple(facts), labels(result).attrs)


@labels.register
def _(result: Spectrum) -> Labels:
    """Columns frequency, coordinate, density with its error."""
    dims = ("frequency", *event_dims(tuple(result.density.shape[1:])))
    text = "power spectral density S(f)"
    variables = {
        "density": Variable(result.density, dims, text, "units of x² · time", result.error)
    }
    at = Variable(result.frequencies, ("frequency",), "frequency f", "cycles/unit of time")
    attrs: dict[str, Attribute] = {
        "trajectories": result.count, "segments": result.segments, "lost": result.lost,
    }  # fmt: skip
    return Labels("Power spectrum", variables, {"frequency": at}, attrs, log="xy")


@summary.register
def _(result: Spectrum) -> Summary:
    facts = each("power Σ S(f) Δf", result.power, unit=OF_X2)
    facts += (Fact("frequencies", len(result.frequencies)),)
    return Summary("Power spectrum", facts, labels(result).attrs)


@labels.register
def _(result: Current) -> Labels:
    """Columns interval, x (the middle of a cell), current with its error, begin, end."""
    dims = ("interval", "x")
    variables = {
        "current": Variable(
            result.current, dims, "probability current J", OF_RATE, result.error, along="x"
        ),
        "begin": Variable(result.times[:-1], ("interval",), "begin of the interval", OF_TIME),
        "end": Variable(result.times[1:], ("interval",), "its end", OF_TIME),
    }
    at = Variable(result.x, ("x",), "position x", OF_X)
    return Labels("Current", variables, {"x": at}, {}, drawn=("current",))


@summary.register
def _(result: Current) -> Summary:
    last = result.current[-1]
    k = int(last.abs().argmax())
    name = f"largest current of the last interval, at x = {float(result.x[k]):.3g}"
    facts = each(name, last[k], result.error[-1, k], OF_RATE)
    return Summary("Probability current", facts)


@labels.register
def _(result: FunctionalEstimate) -> Labels:
    """Columns time, mean, variance, with errors."""
    dims = (TIME, *event_dims(tuple(result.mean.shape[1:]), "value"))
    error = (result.variance / result.count).sqrt()
    variables = {
        "mean": Variable(result.mean, dims, "mean of the functional", "", error),
        "variance": Variable(result.variance, dims, "its variance", "", result.variance_error),
    }
    if result.log_exponential is not None:
        text = "log of the mean of e^(−A/T)"
        variables["log_exponential"] = Variable(
            result.log_exponential, (TIME,), text, "", result.log_exponential_error
        )
    if result.effective is not None:
        text = "trajectories of equal weight that would tell as much"
        variables["effective"] = Variable(result.effective, (TIME,), text)
    columns, coords = tuple(variables), times_of(result.times)
    if result.histogram is not None:
        held = labels(result.histogram)
        for name in ("density", "counts", "low", "high"):
            one = held.variables[name]
            shared = tuple("A" if dim == "x" else dim for dim in one.dims)
            unit = "1/units of A" if name == "density" else "units of A"
            variables[name] = Variable(
                one.values,
                shared,
                one.text,
                "" if name == "counts" else unit,
                one.error,
                along="A" if len(shared) > 1 else "",
            )
        coords["A"] = Variable(held.coords["x"].values, ("A",), "value of the functional")
    attrs: dict[str, Attribute] = {"trajectories": result.count}
    if result.temperature is not None:
        attrs["temperature"] = result.temperature
    return Labels("Functional", variables, coords, attrs, columns, drawn=("mean",))


@summary.register
def _(result: FunctionalEstimate) -> Summary:
    t, error = float(result.times[-1]), (result.variance[-1] / result.count).sqrt()
    facts = each(f"mean at t = {t:g}", result.mean[-1], error)
    facts += each(f"variance at t = {t:g}", result.variance[-1], result.variance_error[-1])
    if result.log_exponential is not None and result.log_exponential_error is not None:
        last = result.log_exponential[-1], result.log_exponential_error[-1]
        facts += each(f"log ⟨e^(−A/T)⟩ at t = {t:g}", *last)
    return Summary("Functional of paths", facts, labels(result).attrs)


@labels.register
def _(result: Stays) -> Labels:
    """Columns length (lower edge of a bin), survival with its error, ended, cut, density."""
    bins, edges = ("length",), result.edges
    variables = {
        "survival": Variable(
            result.survival[:-1], bins, "chance to stay longer", "", result.survival_error[:-1]
        ),
        "density": Variable(
            result.density, bins, "density of the length", OF_RATE, result.density_error
        ),
        "ended": Variable(result.ended, bins, "stays that ended in the bin"),
        "cut": Variable(result.cut, bins, "stays that the last time cut off"),
        "high": Variable(edges[1:], bins, "upper edge of the bin", OF_TIME),
    }
    attrs: dict[str, Attribute] = {
        "trajectories": result.count,
        "stays": result.total,
        "longer": result.longer,
        "unbegun": result.unbegun,
    }
    coords = {"length": Variable(edges[:-1], bins, "length of a stay", OF_TIME)}
    return Labels("Stays", variables, coords, attrs, drawn=("survival",))


@summary.register
def _(result: Stays) -> Summary:
    facts = [Fact("stays that ended", result.total)]
    if result.total:
        facts.append(Fact("rate of leaving", result.rate, result.rate_error, OF_RATE))
    return Summary("Residence times", tuple(facts), labels(result).attrs)


@labels.register
def _(result: SystemMean) -> Labels:
    """Columns place (of r or k), average with its error; a number has one row."""
    shape = tuple(result.average.shape)
    dims = event_dims(shape, "place")
    variables = {
        "average": Variable(
            result.average, dims, "mean over times and systems", "", result.average_error
        ),
        "mean": Variable(result.mean, (TIME, *dims), "mean over systems", "", result.mean_error),
    }
    coords = times_of(result.times)
    columns: tuple[str, ...] = ("average",)
    if isinstance(result.at, Tensor) and result.at.ndim == 1:
        coords["place"] = Variable(result.at, ("place",), "distance r, or length of k")
    attrs: dict[str, Attribute] = {"systems": result.count}
    drawn = ("average",) if shape else ("mean",)
    return Labels("Mean over systems", variables, coords, attrs, columns, drawn=drawn)


@summary.register
def _(result: SystemMean) -> Summary:
    facts: tuple[Fact, ...] = (Fact("systems", result.count),)
    if result.average.ndim == 0:
        facts += each("mean over times and systems", result.average, result.average_error)
    return Summary("Mean over systems", facts, labels(result).attrs)
