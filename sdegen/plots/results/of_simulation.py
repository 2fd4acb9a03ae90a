"""Labels and summaries of what moves: trajectories, ensembles, samples, expectations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.averages.result import Expectation
from sdegen.calibration.result import Calibration
from sdegen.core.trajectory import Trajectory
from sdegen.engine.ensemble_result import Ensemble
from sdegen.engine.extrapolate import Extrapolation
from sdegen.engine.samples import Samples
from sdegen.engine.which_solver import HEADER, SolverTable
from sdegen.plots.results.labelled import (
    OF_TIME,
    OF_X,
    SAMPLE,
    TIME,
    TRAJECTORY,
    Attribute,
    Labels,
    Variable,
    event_dims,
    labels,
    number,
    sizes_of,
    times_of,
)
from sdegen.plots.results.summaries import Fact, Summary, each, numbers_of, summary

_SHARED = (
    TIME,
    "coordinate",
    "number",
    "number_2",
)  # axes that observables of one ensemble have in common


@labels.register
def _(path: Trajectory) -> Labels:
    """Columns time, trajectory, coordinate, states (x and v in a phase space), functionals."""
    event = tuple(path.states.shape[2:])
    along = (TIME, TRAJECTORY)
    variables = {}
    if path.phase_space:
        dims = (*along, *event_dims(event[1:]))
        variables["x"] = Variable(path.x, dims, "position x", OF_X)
        variables["v"] = Variable(path.v, dims, "velocity v", "units of x/time")
    else:
        dims = (*along, *event_dims(event))
        variables["states"] = Variable(path.states, dims, "state x", OF_X)
    for name, values in path.functionals.items():
        variables[name] = Variable(values, along, f"functional {name}")
    columns = tuple(variables)
    if path.absorbed is not None:
        variables["absorbed"] = Variable(path.absorbed, along, "whether it was absorbed by then")
    if path.windings is not None and path.windings.shape == path.states.shape:
        turns = path.windings[:, :, 0] if path.phase_space else path.windings
        variables["windings"] = Variable(turns, dims, "turns around the period")
    if path.periods is not None:
        text = "period, 0 where there is none"
        variables["periods"] = Variable(path.periods, dims[2:], text, OF_X)
    lost = "whether it was lost, and stays where it last was finite"
    variables["nonfinite"] = Variable(path.nonfinite, (TRAJECTORY,), lost)
    columns += tuple(name for name in ("absorbed", "windings", "nonfinite") if name in variables)
    attrs: dict[str, Attribute] = {"seed": path.seed, "nfe": path.nfe}
    return Labels("Trajectory", variables, times_of(path.times), attrs, columns)


@summary.register
def _(path: Trajectory) -> Summary:
    steps, batch, *event = path.states.shape
    last, times = path.finite[-1].double(), path.times.tolist()
    facts = [Fact("times", f"{steps:,} of t = {times[0]:g} … {times[-1]:g}")]
    if n := last.shape[0]:
        mean, spread = last.mean(0), last.std(0, correction=1) if n > 1 else None
        error = None if spread is None else spread / math.sqrt(n)
        facts += each("mean of the last states", mean, error, OF_X)
        if spread is not None:
            facts += each("standard deviation of them", spread, unit=OF_X)
    if lost := int(path.nonfinite.sum()):
        facts.append(Fact("trajectories lost", lost))
    if path.absorbed is not None:
        facts.append(Fact("trajectories absorbed", int(path.absorbed[-1].sum())))
    title = f"{batch:,} trajectories {_of_shape(event)}"
    return Summary(title, tuple(facts), labels(path).attrs)


def _of_shape(event: list[int]) -> str:
    if len(event) == 1:
        return f"of {event[0]} coordinate{'s' if event[0] > 1 else ''}"
    return f"of shape {tuple(event)}"


@labels.register
def _(result: Ensemble) -> Labels:
    """Columns quantity (observable_quantity), the axes, value, error."""
    variables: dict[str, Variable] = {}
    coords: dict[str, Variable] = {}
    sizes: dict[str, int] = {}
    drawn: list[str] = []
    for name, observed in result.observables.items():
        if observed is None:
            continue
        held = _of_observable(name, observed)
        renamed = {
            dim: dim if _is_shared(dim, size, held, sizes, coords) else f"{name}_{dim}"
            for dim, size in sizes_of(held.variables).items()
        }
        sizes |= {renamed[dim]: size for dim, size in sizes_of(held.variables).items()}
        for dim, at in held.coords.items():
            coords.setdefault(renamed[dim], _with_dims(at, (renamed[dim],)))
        for key, variable in held.variables.items():
            dims = tuple(renamed[dim] for dim in variable.dims)
            variables[f"{name}_{key}" if key else name] = _with_dims(variable, dims)
        shown = held.drawn or tuple(held.variables)
        drawn += [f"{name}_{key}" if key else name for key in shown]
    attrs: dict[str, Attribute] = {
        "seed": result.seed,
        "nfe": result.nfe,
        "trajectories": result.trajectories,
        "nonfinite": result.nonfinite,
    }
    if result.store is not None:
        attrs["store"] = str(result.store)
    return Labels("Ensemble", variables, coords, attrs, long=True, drawn=tuple(drawn))


def _of_observable(name: str, observed: object) -> Labels:
    """Return the labels of what one observable found.

    Raises:
        TypeError: If it is no result of the library, and no tensor.
    """
    if isinstance(observed, Tensor):
        dims = tuple(f"axis_{i}" for i in range(observed.ndim))
        return Labels(name, {"": Variable(observed, dims, name)})
    try:
        return labels(observed)
    except TypeError as error:
        raise TypeError(f"the observable {name!r} has no labels: {error}") from error


def _is_shared(
    dim: str, size: int, held: Labels, sizes: dict[str, int], coords: dict[str, Variable]
) -> bool:
    """Return whether an axis is that of other observables: the times of the run, coordinates."""
    if dim not in _SHARED or sizes.get(dim, size) != size:
        return False
    if dim not in held.coords or dim not in coords:
        return dim not in coords
    here, there = held.coords[dim].values, coords[dim].values
    return isinstance(here, Tensor) and isinstance(there, Tensor) and torch.equal(here, there)


def _with_dims(variable: Variable, dims: tuple[str, ...]) -> Variable:
    return Variable(
        variable.values, dims, variable.text, variable.unit, variable.error, variable.error_text,
        dims[variable.dims.index(variable.along)] if variable.along else "",
    )  # fmt: skip


@summary.register
def _(result: Ensemble) -> Summary:
    facts: list[Fact] = []
    for name, observed in result.observables.items():
        if observed is None or isinstance(observed, Tensor):
            words = "no trajectory was left" if observed is None else f"shape {observed.shape}"
            facts.append(Fact(name, words))
            continue
        facts += [
            Fact(f"{name}: {fact.name}", fact.value, fact.error, fact.unit)
            for fact in summary(observed).facts
        ]
    if result.nonfinite:
        facts.append(Fact("trajectories lost", result.nonfinite))
    attrs = {name: value for name, value in labels(result).attrs.items() if name != "nonfinite"}
    title = f"Ensemble: {result.trajectories:,} trajectories, {len(result.times):,} times"
    return Summary(title, tuple(facts), attrs)


@labels.register
def _(result: Samples) -> Labels:
    """Columns sample, coordinate, x."""
    dims = (SAMPLE, *event_dims(tuple(result.x.shape[1:])))
    attrs: dict[str, Attribute] = {
        "solver": repr(result.solver),
        "steps": len(result.times) - 1,
        "eta": result.eta,
        "nfe": result.nfe,
        "seed": result.seed,
    }
    variables = {
        "x": Variable(result.x, dims, "sample x", OF_X),
        "times": Variable(result.times, ("node",), "times of the nodes", OF_TIME),
    }
    return Labels("Samples", variables, {}, attrs, ("x",))


@summary.register
def _(result: Samples) -> Summary:
    n, *event = result.x.shape
    x = result.x.double()
    facts = [
        Fact("from noise to data", f"t = {float(result.times[0]):g} → {float(result.times[-1]):g}")
    ]
    if n > 1 and len(event) == 1:
        spread = x.std(0, correction=1)
        facts += each("mean", x.mean(0), spread / math.sqrt(n), OF_X)
        facts += each("standard deviation", spread, unit=OF_X)
    return Summary(f"{n:,} samples {_of_shape(event)}", tuple(facts), labels(result).attrs)


@labels.register
def _(result: Expectation) -> Labels:
    """Columns level, steps, samples, mean (with its error), variance, cost."""
    level = ("level",)
    error = (result.variances / result.samples).sqrt()
    text = "mean of f at the first level, of differences at the others"
    variables = {
        "steps": Variable(result.steps, level, "steps of the finer run"),
        "samples": Variable(result.samples, level, "samples"),
        "mean": Variable(result.means, level, text, "", error),
        "variance": Variable(result.variances, level, "variance of these"),
        "cost": Variable(result.costs, level, "evaluations of the drift"),
    }
    attrs: dict[str, Attribute] = {
        "mean": result.mean,
        "half_width": result.half_width,
        "confidence": result.confidence,
        "standard_error": result.standard_error,
        "bias": result.bias,
        "evaluations": result.evaluations,
        "coupling": result.coupling,
        "seed": result.seed,
    }
    return Labels("Expectation", variables, {}, attrs)


@summary.register
def _(result: Expectation) -> Summary:
    facts = (
        Fact("⟨f⟩", result.mean, result.half_width),
        Fact("confidence of the interval", result.confidence),
        Fact("standard error", result.standard_error),
        Fact("bias of the steps, at most", result.bias),
        Fact("levels", len(result.steps)),
    )
    made: dict[str, Attribute] = {
        "seed": result.seed, "evaluations": result.evaluations, "coupling": result.coupling,
    }  # fmt: skip
    return Summary("Expectation", facts, made)


@labels.register
def _(result: Extrapolation) -> Labels:
    """Columns coordinate, value, coarse, fine, removed, with errors."""
    dims = event_dims(tuple(result.value.shape))
    variables = {
        "value": Variable(
            result.value, dims, "average without the leading error", "", result.standard_error
        ),
        "coarse": Variable(result.coarse, dims, "average at the steps of the run"),
        "fine": Variable(result.fine, dims, "average at half of them"),
        "removed": Variable(
            result.removed, dims, "error of the fine one by its steps", "", result.removed_error
        ),
        "correlation": Variable(result.correlation, dims, "correlation of both"),
    }
    attrs: dict[str, Attribute] = {
        "seed": result.seed,
        "nfe": result.nfe,
        "trajectories": result.trajectories,
        "order": result.order,
    }
    drawn = ("coarse", "fine", "value")
    return Labels("Extrapolation", variables, {}, attrs, drawn=drawn)


@labels.register
def _(table: SolverTable) -> Labels:
    """Columns as the table is printed, one row for each solver."""
    rows = [row.cells() for row in table.rows]
    stable = [math.nan if row.stability is None else row.stability for row in table.rows]
    cost = [math.nan if row.evaluations is None else row.evaluations for row in table.rows]
    weak = [math.nan if row.orders is None or row.orders.additive is None
            else row.orders.additive[0] for row in table.rows]  # fmt: skip
    numeric = {
        "weak_order": Variable(
            torch.tensor(weak, dtype=torch.float64), ("solver",), "weak order, additive noise"
        ),
        "evaluations": Variable(
            torch.tensor(cost, dtype=torch.float64), ("solver",), "drift evaluations in a step"
        ),
        "stability": Variable(
            torch.tensor(stable, dtype=torch.float64), ("solver",), "largest stable λh"
        ),
    }
    words = {
        name: Variable([row[k] for row in rows], ("solver",), name)
        for k, name in enumerate(HEADER)
        if k > 0
    }
    names = Variable([row[0] for row in rows], ("solver",), "solver")
    return Labels(
        "Solvers", words | numeric, {"solver": names}, drawn=("weak_order", "evaluations")
    )


@summary.register
def _(table: SolverTable) -> Summary:
    rows = tuple(row.cells() for row in table.rows)
    return Summary(f"{len(rows)} solvers", table=(HEADER, *rows))


@labels.register
def _(result: Calibration) -> Labels:
    """Columns node, times."""
    variables = {
        "times": Variable(result.times, ("node",), "time of the node", OF_TIME),
        "error": number(result.error, "distance to the accurate flow, held-out states", OF_X),
        "error_before": number(result.error_before, "distance before calibration", OF_X),
    }
    if result.weights is not None:
        dims = ("kind", "step", "evaluation")
        variables["weights"] = Variable(result.weights, dims, "free coefficients w and u")
    attrs: dict[str, Attribute] = {
        "solver": type(result.solver).__name__,
        "evaluations": result.evaluations,
        "pilot": result.pilot,
    }
    return Labels("Calibration", variables, {}, attrs, ("times",), drawn=("times",))


@summary.register
def _(result: Calibration) -> Summary:
    held = labels(result)
    return Summary(f"Calibration: {len(result.times) - 1} steps", numbers_of(held), held.attrs)
