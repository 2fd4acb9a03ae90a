"""Labels and summaries of densities, and of what a Fokker–Planck solver answers.

Estimated errors there are relative; here they stand in the units of their quantities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, largest
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.kinetic.spectrum import KineticSpectrum
from sdegen.fokker_planck.questions.circulation import ComplexSpectrum
from sdegen.fokker_planck.questions.escape import Escape
from sdegen.fokker_planck.questions.passage import PassageTimes
from sdegen.fokker_planck.questions.spectrum import Spectrum
from sdegen.fokker_planck.questions.survival import Survival
from sdegen.fokker_planck.questions.transport import Transport
from sdegen.plots.results.labelled import (
    OF_RATE,
    OF_TIME,
    OF_X,
    TIME,
    Attribute,
    Labels,
    Variable,
    labels,
    number,
    times_of,
)
from sdegen.plots.results.summaries import Fact, Summary, each, of_estimate, summary

ESTIMATED = "estimated error"
_OF_P, _OF_V = "1/units of x", "units of x/time"


def _at_x(x: Tensor, text: str = "position x") -> dict[str, Variable]:
    return {"x": Variable(x, ("x",), text, OF_X)}


@labels.register
def _(density: Density) -> Labels:
    """Columns x, p, cdf."""
    variables = {
        "p": Variable(density.p, ("x",), "density p(x)", _OF_P),
        "cdf": Variable(density.cdf(density.x), ("x",), "probability below x"),
    }
    attrs = _told(density.error) | _slopes(density.slope_by)
    return Labels("Density", variables, _at_x(density.x), attrs, drawn=("p",))


def _told(error: ErrorEstimate | None) -> dict[str, Attribute]:
    """Return how errors were estimated, where they were."""
    return {} if error is None or not len(error) else {"errors": error.method}


def _slopes(slope_by: str) -> dict[str, Attribute]:
    return {"slope_by": slope_by} if slope_by == "differences" else {}


@summary.register
def _(density: Density) -> Summary:
    title = f"Density at {len(density.x):,} nodes, x = {_span(density.x)}"
    return Summary(title, _moments(density), labels(density).attrs)


def _span(values: Tensor) -> str:
    return f"{float(values[0]):g} … {float(values[-1]):g}"


def _moments(density: Density) -> tuple[Fact, ...]:
    mean, std, error = float(density.mean.detach()), float(density.std.detach()), density.error
    off = of_estimate(std, "variance", error, std / 2)  # of the root half as much
    return (
        Fact("mass", float(density.mass.detach())),
        Fact("mean", mean, of_estimate(mean, "mean", error, max(abs(mean), std)), OF_X),
        Fact("standard deviation", std, off, OF_X),
    )


@labels.register
def _(path: DensityPath) -> Labels:
    """Columns time, x, p; mass, mean and variance at each time are in the data set."""
    along = (TIME,)
    variables = {
        "p": Variable(path.p, (TIME, "x"), "density p(x, t)", _OF_P),
        "mass": Variable(path.mass, along, "mass that is there"),
        "mean": Variable(path.mean, along, "mean of it", OF_X),
        "variance": Variable(path.variance, along, "variance of it", "units of x²"),
    }
    if path.jumped is not None:
        variables["jumped"] = Variable(path.jumped, along, "mass that jumped beyond the grid")
    attrs = _told(path.error) | _slopes(path.slope_by)
    if path.form is not None:
        attrs["form"] = path.form
    coords = {**times_of(path.times), **_at_x(path.x)}
    return Labels("Density in time", variables, coords, attrs, ("p",), drawn=("p",))


@summary.register
def _(path: DensityPath) -> Summary:
    title = f"Density at {len(path):,} times and {len(path.x):,} nodes, x = {_span(path.x)}"
    t = f"at t = {float(path.times[-1]):g}"
    last = [Fact(f"{f.name} {t}", f.value, f.error, f.unit) for f in _moments(path.final)]
    facts = (Fact("times", f"t = {_span(path.times)}"), *last)
    attrs = _slopes(path.slope_by) | _told(path.final.error)
    return Summary(title, facts, attrs if path.form is None else attrs | {"form": path.form})


@labels.register
def _(density: PlaneDensity) -> Labels:
    """Columns x, y (v in a phase space), p."""
    second = "v" if density.phase_space else "y"
    unit = _OF_V if density.phase_space else OF_X
    text = "velocity v" if density.phase_space else "position y"
    p = Variable(density.p, ("x", second), f"density p(x, {second})", f"1/({OF_X} · {unit})")
    coords = {**_at_x(density.x), second: Variable(density.y, (second,), text, unit)}
    attrs = _told(density.error) | _slopes(density.slope_by)
    return Labels("Density in the plane", {"p": p}, coords, attrs)


@summary.register
def _(density: PlaneDensity) -> Summary:
    mean, covariance = density.mean.detach(), density.covariance.detach()
    std = covariance.diagonal().sqrt()
    facts = [Fact("mass", float(density.mass.detach()))]
    for k, name in enumerate(("x", "v" if density.phase_space else "y")):
        m, s = float(mean[k]), float(std[k])
        unit = _OF_V if density.phase_space and k else OF_X
        error = of_estimate(m, "mean", density.error, max(abs(m), s))
        facts += [
            Fact(f"mean of {name}", m, error, unit),
            Fact(
                f"standard deviation of {name}",
                s,
                of_estimate(s, "covariance", density.error, s / 2),
                unit,
            ),
        ]
    correlation = float(covariance[0, 1] / (std[0] * std[1]))
    facts.append(
        Fact(
            "correlation", correlation, of_estimate(correlation, "covariance", density.error, 1.0)
        )
    )
    title = f"Density at {len(density.x):,} × {len(density.y):,} nodes of the plane"
    return Summary(title, tuple(facts), labels(density).attrs)


def _error_of(result: object, name: str, values: Tensor) -> Tensor | None:
    """Return the estimated errors of an answer in its own units."""
    error: ErrorEstimate | None = getattr(result, "error", None)
    if error is None or name not in error:
        return None
    relative = torch.as_tensor(error[name], dtype=torch.float64).detach()
    size: Tensor = values.detach().abs().double()
    return (relative * size).expand(values.shape) if relative.ndim <= values.ndim else None


@labels.register
def _(result: Spectrum) -> Labels:
    """Columns mode, rate with its estimated error."""
    variables = {
        "rate": Variable(
            result.rates, ("mode",), "rate λ", OF_RATE, _error_of(result, "rates", result.rates),
            ESTIMATED,
        ),
        "densities": Variable(result.densities, ("mode", "x"), "eigenfunction ψ(x)"),
        "observables": Variable(result.observables, ("mode", "x"), "eigenfunction φ(x)"),
    }  # fmt: skip
    return Labels(
        "Spectrum", variables, _at_x(result.x), _told(result.error), ("rate",), drawn=("rate",)
    )


@labels.register(ComplexSpectrum)
@labels.register(KineticSpectrum)
def _(result: ComplexSpectrum | KineticSpectrum) -> Labels:
    """Columns mode, rate and turning (real and imaginary part of λ), with an estimated error."""
    error = _error_of(result, "rates", result.rates)
    dims = ("mode", "x") if isinstance(result, ComplexSpectrum) else ("mode", "x", "v")
    variables = {
        "rate": Variable(result.rates.real, ("mode",), "decay Re λ", OF_RATE, error, ESTIMATED),
        "turning": Variable(
            result.rates.imag, ("mode",), "turning Im λ", OF_RATE, error, ESTIMATED
        ),
        "densities": Variable(result.densities, dims, "eigenfunction ψ"),
    }
    coords = _at_x(result.x)
    if isinstance(result, KineticSpectrum):
        coords["v"] = Variable(result.v, ("v",), "velocity v", _OF_V)
    columns = ("rate", "turning")
    return Labels("Spectrum", variables, coords, _told(result.error), columns, drawn=columns)


@summary.register(Spectrum)
@summary.register(ComplexSpectrum)
@summary.register(KineticSpectrum)
def _(result: Spectrum | ComplexSpectrum | KineticSpectrum) -> Summary:
    time, error = result.relaxation_time, result.error
    off = of_estimate(time, "relaxation_time", error, abs(time))
    facts = [Fact("relaxation time", time, off, OF_TIME)]
    spread = _error_of(result, "rates", result.rates)
    for k, rate in enumerate(result.rates.tolist()[:6]):
        bar = None if spread is None else float(spread[k])
        facts.append(Fact(f"rate λ [{k}]", complex(rate).real, bar, OF_RATE))
        if complex(rate).imag:
            facts.append(Fact(f"turning Im λ [{k}]", complex(rate).imag, bar, OF_RATE))
    return Summary(f"Spectrum: {len(result.rates)} modes", tuple(facts), _told(error))


@labels.register
def _(result: PassageTimes) -> Labels:
    """Columns x (the start), mean, std (of two moments), to_high, with estimated errors."""
    along = ("x",)

    def told(name: str, values: Tensor, text: str, unit: str = "") -> Variable:
        return Variable(values, along, text, unit, _error_of(result, name, values), ESTIMATED)

    variables = {"mean": told("mean", result.mean, "mean passage time", OF_TIME)}
    attrs = _told(result.error)
    if len(result.moments) > 1:
        try:
            variables["std"] = told("std", result.std, "its standard deviation", OF_TIME)
        except SolverError:  # the mean stands where its spread is refused
            attrs["std"] = "lost in the rounding of the moments"
    variables["to_high"] = told("to_high", result.to_high, "chance to leave at the upper end")
    columns = tuple(variables)
    text = "moments of the passage time, of order 1, 2, …"
    variables["moments"] = Variable(result.moments, ("order", "x"), text)
    return Labels(
        "First passage", variables, _at_x(result.x, "start x"), attrs, columns,
        drawn=("mean", "to_high"),
    )  # fmt: skip


@summary.register
def _(result: PassageTimes) -> Summary:
    longest, mean = int(result.mean.argmax()), result.mean.detach()
    error = _error_of(result, "mean", mean)
    name = f"longest mean passage, from x = {float(result.x[longest]):.3g}"
    facts = each(name, mean[longest], None if error is None else error[longest], OF_TIME)
    title = f"First passage from {len(result.x):,} starts"
    return Summary(title, facts, _told(result.error))


@labels.register
def _(result: Survival) -> Labels:
    """Columns time, probability, density, with estimated errors."""
    off, peak = result.error.get("density"), float(result.density.detach().abs().max())
    error = None if off is None else torch.as_tensor(off, dtype=torch.float64).detach() * peak
    chance = _error_of(result, "probability", result.probability)
    variables = {
        "probability": Variable(
            result.probability, (TIME,), "chance to be inside", "", chance, ESTIMATED
        ),
        "density": Variable(
            result.density, (TIME,), "density of the passage time", OF_RATE,
            None if error is None else error.expand(result.density.shape), ESTIMATED,
        ),
    }  # fmt: skip
    attrs = {"x0": result.x0} | _told(result.error)
    return Labels("Survival", variables, times_of(result.times), attrs)


@summary.register
def _(result: Survival) -> Summary:
    held = labels(result)
    facts = [Fact("start", result.x0, None, OF_X)]
    for name in ("probability", "density"):
        one = held.variables[name]
        assert isinstance(one.values, Tensor)
        spread = None if one.error is None else one.error[-1]
        text = f"{one.text} at t = {float(result.times[-1]):g}"
        facts += each(text, one.values[-1], spread, one.unit)
    return Summary("Survival", tuple(facts), held.attrs)


@labels.register
def _(result: Escape) -> Labels:
    """Columns rate with its estimated error, kramers, well, barrier, height: one row."""
    error = of_estimate(result.rate, "rate", result.error, abs(result.rate))
    variables = {
        "rate": number(result.rate, "escape rate", OF_RATE, error),
        "kramers": number(result.kramers, "Kramers' formula for it", OF_RATE),
        "well": number(result.well, "position of the well", OF_X),
        "barrier": number(result.barrier, "position of the barrier", OF_X),
        "height": number(result.height, "height of the barrier", "kT"),
    }
    drawn = ("rate", "kramers")
    return Labels("Escape from a well", variables, {}, _told(result.error), drawn=drawn)


@labels.register
def _(result: Transport) -> Labels:
    """Columns velocity, diffusion, current, with estimated errors: one row."""
    units = {"velocity": _OF_V, "diffusion": "units of x²/time", "current": OF_RATE}
    texts = {
        "velocity": "mean velocity",
        "diffusion": "effective diffusion coefficient",
        "current": "probability current",
    }
    variables = {}
    for name, text in texts.items():
        value = float(getattr(result, name))
        if name == "diffusion":
            error = of_estimate(value, name, result.error, abs(value))
            variables[name] = number(value, text, units[name], error)
            continue
        variables[name] = number(value, text, units[name])
        if name in result.error:  # of what goes one way alone, where that is more
            told = f"relative error of the {text}"
            variables[f"{name}_relative_error"] = number(largest(result.error[name]), told)
    return Labels(
        "Transport around a ring", variables, {}, _told(result.error),
        drawn=("velocity", "diffusion", "current"),
    )  # fmt: skip
