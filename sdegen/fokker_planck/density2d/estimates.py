"""Densities, currents and the entropy that these produce, with errors that other grids tell.

The same problem is solved, or the same sum taken, on every other node; densities are solved for on
grids as fine as the errors ask for.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdegen.core.accuracy import WARNS, ErrorEstimate, EstimatedTensor, warn_inaccurate
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.density2d.density import PlaneDensity, PlaneForm, Solved
from sdegen.fokker_planck.density2d.level import LARGEST_SHARE, PlaneLevel, graded
from sdegen.fokker_planck.density2d.transient import Propagator
from sdegen.fokker_planck.questions.course import Course

CURE = "Pass rtol=1e-4 for a finer grid inside, or finer grids."
COARSE = 0.1  # the estimated error above which a grid is refined
_TOLERANCE = 1e-6  # of the peak, in each step in time
_LUMPED_TOLERANCE = 1e-4
_CELLS_OF_THREE, _SECOND_ORDER = 32, 4.0  # where every fourth node is looked at too
# nodes of a finer grid; where an error is small already
_MOST_NODES, _MANY_NODES = 110_000, 45_000
_MOST_MOVED, _MANY_MOVED = 27_000, 22_000  # for a density in time

Errors = dict[str, float]


def at_rest(
    level: PlaneLevel, form: PlaneForm | None, t: float, rtol: float | None
) -> tuple[PlaneLevel, Solved, Errors, Solved]:
    """Return the density at rest on the finest grid taken, its errors, and that of the coarser.

    Args:
        level: The problem on the user's grid.
        form: Which form; None is the compact one, and the lumped one where it is not found.
        t: Time at which drift and diffusion are read.
        rtol: The error that is asked for.
    """
    coarse, found = level.coarser.rest(t, form), None
    while True:
        fine, below = level.rest(t, form), level.coarser
        if found is not None and level.has_channels and fine.form != coarse.form:
            return found  # too large for the form of high order
        differences = level.differences(fine, below, coarse)
        differences["entropy_production"] = _productions_apart(level, fine, coarse, t)
        (hidden,) = level.hidden([fine], t)
        graded_errors = graded(differences, fine.form, coarse.form)
        errors = {name: error + hidden for name, error in graded_errors.items()}
        if not level.finer_size <= budget(errors, rtol, _MOST_NODES, _MANY_NODES):
            return level, fine, errors, coarse
        found = level, fine, errors, coarse
        coarse, level = fine, level.finer


def in_time(
    usual_level: PlaneLevel,
    form: PlaneForm,
    start: PlaneDensity,
    at: tuple[float, float] | None,
    plan: Course,
    rtol: float | None,
) -> tuple[PlaneLevel, list[Solved], list[Errors], list[Solved]]:
    """Return the densities in time on the finest grid taken, their errors, and the coarser ones.

    Steps are chosen on every other node, where they cost least; finer grids repeat them.
    """
    level, below = usual_level, usual_level.coarser
    usual = _TOLERANCE if form == "compact" else _LUMPED_TOLERANCE
    tolerance = usual if rtol is None else min(usual, rtol / 30)
    seen = level.seen(start, at, form)
    propagator = Propagator(level.generator, form, plan, tolerance)
    try:
        coarser = Propagator(below.generator, form, plan, tolerance)
        run = coarser.propagate(below.seen(start, at, form))
        coarse, fine = run.solved, propagator.repeat(seen, run.ways)
    except SolverError:  # a drift that coarse cells do not follow
        run = propagator.propagate(seen)
        coarse, fine = [below.unknown(form)] * len(run.solved), run.solved
    errors = _errors_in_time(level, fine, coarse, run.errors, plan.times[0])
    while level.finer_size <= budget(_worst(errors), rtol, _MOST_MOVED, _MANY_MOVED):
        coarse, level = fine, level.finer
        seen = level.seen(start, at, form)
        fine = Propagator(level.generator, form, plan, tolerance).repeat(seen, run.ways)
        misses = run.errors
        if at is None:  # between the user's nodes a start is what a spline makes of it
            unsaid = level.differences(Solved(seen, form), usual_level, Solved(start.p, form))
            guessed = max(unsaid["mean"], unsaid["covariance"])
            width = float(start.covariance.trace())
            spreads = [float(level.density(solved.p).covariance.trace()) for solved in fine]
            shares = [min(1.0, width / spread) for spread in spreads]
            misses = [m + guessed * s for m, s in zip(misses, shares, strict=True)]
        errors = _errors_in_time(level, fine, coarse, misses, plan.times[0])
    return level, fine, errors, coarse


def _productions_apart(level: PlaneLevel, fine: Solved, coarse: Solved, t: float) -> float:
    """Return how far apart the entropy productions of two grids are, of the forms that have one.

    That of edges is of second order: its difference counts whole, whatever it is divided by.
    """
    both = level.has_channels and "lumped" not in (fine.form, coarse.form)
    each = []
    for form in ("compact", "lumped") if both else (fine.form,):
        sigma, scale = level.production(fine.p, t, form)
        other, _ = level.coarser.production(coarse.p, t, form)
        share = LARGEST_SHARE if both and form == "lumped" else 1.0
        each.append(share * abs(sigma - other) / max(abs(sigma), scale, 1e-300))
    return min(each)


def entropy_production(
    level: PlaneLevel, density: PlaneDensity, t: float, forms: tuple[PlaneForm, ...]
) -> EstimatedTensor:
    """Return ∫ J·D⁻¹J/p, with the error that every other node tells.

    Args:
        level: The problem on the density's grid.
        density: The density.
        t: Time at which drift and diffusion are read.
        forms: How its currents may be found; the one with the smallest error is taken.
    """
    of_density = float(density.error.get("entropy_production", 0.0))
    found, levels = [], [level, level.coarser]
    if level.has_channels and min(grid.cells for grid in level.grids) >= _CELLS_OF_THREE:
        levels.append(level.coarser.coarser)
    for form in forms:
        pairs = [each.production(each.sampled(density), t, form) for each in levels]
        (fine, scale), coarse = pairs[0], pairs[1][0]
        apart = abs(fine - coarse)
        if form == "lumped" and len(pairs) > 2:
            # what the offsets of D miss changes its sign with the cells, so that two grids agree
            apart = max(apart, abs(coarse - pairs[2][0]) / _SECOND_ORDER)
        apart /= max(abs(fine), scale, 1e-300)
        error = graded({"value": apart}, form)["value"]
        found.append((error, torch.tensor(fine, dtype=torch.float64)))
    return _estimated(found, of_density, "the entropy production")


def current(
    level: PlaneLevel, density: PlaneDensity, t: float, forms: tuple[PlaneForm, ...]
) -> EstimatedTensor:
    """Return (J_x, J_y) at the nodes, with the error that every other node tells.

    Args:
        level: The problem on the density's grid.
        density: The density.
        t: Time at which drift and diffusion are read.
        forms: How they may be found; the one with the smallest error is taken.
    """
    sampled, found = level.coarser.sampled(density), []
    for form in forms:
        values, one_way = level.currents(density.p, t, form)
        coarse, _ = level.coarser.currents(sampled, t, form)
        scale = max(float(values.abs().max()), one_way, 1e-300)
        seen = torch.stack([level.seen_at(a, level.coarser) for a in values])
        apart = float((seen - coarse).abs().max()) / scale
        found.append((graded({"value": apart}, form)["value"], values))
    return _estimated(found, 0.0, "the current")


def _estimated(found: list[tuple[float, Tensor]], more: float, what: str) -> EstimatedTensor:
    """Return the value with the smallest error: from how far apart two grids are, and more."""
    of_grid, value = min(found, key=lambda each: each[0])
    error = ErrorEstimate({"value": of_grid + more}, "every other node")
    warn_inaccurate(error, what, CURE, stacklevel=5)
    return EstimatedTensor.of(value, error)


def budget(errors: Errors, rtol: float | None, most: int, many: int) -> int:
    """Return how many nodes a finer grid may have, for these errors; 0 if they suffice."""
    worst = max(errors.values())
    if not worst <= COARSE or (rtol is not None and worst > rtol):
        return most
    return many if worst > WARNS else 0


def _worst(errors: list[Errors]) -> Errors:
    """Return the largest error of each kind, of densities after the start."""
    return {name: max(error[name] for error in errors[1:]) for name in errors[-1]}


def _errors_in_time(
    level: PlaneLevel, fine: list[Solved], coarse: list[Solved], misses: list[float], start: float
) -> list[Errors]:
    """Return the estimated errors of densities in time, from every other node and the steps."""
    each = []
    all_missed = np.add(misses, level.hidden(fine, start)).tolist()
    for solved, other, miss in zip(fine, coarse, all_missed, strict=True):
        error = graded(level.differences(solved, level.coarser, other), solved.form, other.form)
        each.append({name: value + miss for name, value in error.items()})
    return each
