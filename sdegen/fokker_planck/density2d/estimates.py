"""Estimates of errors in the plane, and grids as fine as they ask for."""

from __future__ import annotations

import numpy as np

from sdegen.core.accuracy import WARNS
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.density2d.density import PlaneDensity, PlaneForm
from sdegen.fokker_planck.density2d.level import PlaneLevel, Solved, graded
from sdegen.fokker_planck.questions.course import Course

CURE = "Pass rtol=1e-4 for a finer grid inside, or finer grids."
COARSE = 0.1  # the estimated error above which a grid is refined
_TOLERANCE = 1e-6  # of the peak, in each step in time
_LUMPED_TOLERANCE = 1e-4
_MOST_MOVED, _MANY_MOVED = 27_000, 22_000  # of a finer grid for a density in time


def budget(error: dict[str, float], rtol: float | None, most: int, many: int) -> int:
    """Return how many nodes a finer grid may have, for these errors; 0 if they suffice."""
    worst = max(error.values())
    if not worst <= COARSE or (rtol is not None and worst > rtol):
        return most
    return many if worst > WARNS else 0


def worst(errors: list[dict[str, float]]) -> dict[str, float]:
    """Return the largest error of each kind, of densities after the start."""
    return {name: max(error[name] for error in errors[1:]) for name in errors[-1]}


def in_time(
    level: PlaneLevel, fine: list[Solved], coarse: list[Solved], misses: list[float], start: float
) -> list[dict[str, float]]:
    """Return the estimated errors of densities in time, from every other node and the steps."""
    found = []
    all_missed = np.add(misses, level.hidden(fine, start)).tolist()
    for solved, other, miss in zip(fine, coarse, all_missed, strict=True):
        error = graded(level.differences(solved, level.coarser, other), solved.form, other.form)
        found.append({name: value + miss for name, value in error.items()})
    return found


def carried(
    usual_level: PlaneLevel,
    form: PlaneForm,
    start: PlaneDensity,
    at: tuple[float, float] | None,
    plan: Course,
    rtol: float | None,
) -> tuple[PlaneLevel, list[Solved], list[dict[str, float]]]:
    """Return the densities in time on the finest grid taken, and their estimated errors.

    Steps are chosen on every other node, where they cost least; finer grids repeat them.
    """
    level, below = usual_level, usual_level.coarser
    usual = _TOLERANCE if form == "compact" else _LUMPED_TOLERANCE
    tolerance = usual if rtol is None else min(usual, rtol / 30)
    try:
        run = below.run(form, below.seen(start, at, form), plan, tolerance)
        coarse = run.solved
        fine = level.repeat(form, level.seen(start, at, form), plan, run, tolerance)
    except SolverError:  # a drift that coarse cells do not follow
        run = level.run(form, level.seen(start, at, form), plan, tolerance)
        fine, coarse = run.solved, [below.unknown(form)] * len(run.solved)
    errors = in_time(level, fine, coarse, run.errors, plan.times[0])
    while level.finer_size <= budget(worst(errors), rtol, _MOST_MOVED, _MANY_MOVED):
        coarse, level = fine, level.finer
        seen = level.seen(start, at, form)
        fine = level.repeat(form, seen, plan, run, tolerance)
        misses = run.errors
        if at is None:  # between the user's nodes a start is what a spline makes of it
            unsaid = level.differences(Solved(seen, form), usual_level, Solved(start.p, form))
            guessed = max(unsaid["mean"], unsaid["covariance"])
            width = float(start.covariance.trace())
            shares = [min(1.0, width / level.spread(solved)) for solved in fine]
            misses = [m + guessed * s for m, s in zip(run.errors, shares, strict=True)]
        errors = in_time(level, fine, coarse, misses, plan.times[0])
    return level, fine, errors


def at_rest(level: PlaneLevel, fine: Solved, coarse: Solved, t: float) -> dict[str, float]:
    """Return the estimated errors of a density at rest, from one on every other node."""
    below = level.coarser
    differences = level.differences(fine, below, coarse)
    (sigma, scale), (other, _) = (level.production(fine.p, t), below.production(coarse.p, t))
    differences["entropy_production"] = abs(sigma - other) / max(abs(sigma), scale, 1e-300)
    (hidden,) = level.hidden([fine], t)
    told = graded(differences, fine.form, coarse.form)
    return {name: error + hidden for name, error in told.items()}
