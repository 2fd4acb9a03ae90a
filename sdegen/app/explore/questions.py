"""Questions: what stands beside the moving picture, exact numbers of the same SDE.

The density at rest, rates of relaxation, first passages to the level; and the chance not to have
been there yet at the times of all frames, which is the mass of a density between the start's side
and an absorbing wall at the level. Each is asked alone: where one has no answer, the library's
reason is shown in its place, and the others stand.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import sdegen as sg
from sdegen.app.explore.run import CELLS, Run
from sdegen.fokker_planck.discretization.grid_boundary import Word

_MODES = 6


def answers(run: Run) -> dict[str, Any]:
    """Return the answers of a run on a line, and under "reasons" why others are missing."""
    found: dict[str, Any] = {"reasons": {}, "notes": []}
    if not run.on_line:
        return found
    questions: dict[str, Callable[[Run], dict[str, Any]]] = {
        "rest": _rest,
        "spectrum": _spectrum,
        "passage": _passage,
        "survival": _survival,
    }
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for name, ask in questions.items():
            try:
                found |= ask(run)
            except (ValueError, sg.SdegenError) as error:
                found["reasons"][name] = " ".join(str(error).split())
    found["notes"] = list(dict.fromkeys(" ".join(str(w.message).split()) for w in heard))
    return found


def _rest(run: Run) -> dict[str, Any]:
    """Return the stationary density and its moments."""
    rest = run.fokker_planck.stationary()
    return {
        "rest": rest.p.numpy().astype(np.float32),
        "rest mean": float(rest.mean),
        "rest variance": float(rest.variance),
    }


def _spectrum(run: Run) -> dict[str, Any]:
    """Return the slowest rates, and their relative error."""
    modes = run.fokker_planck.spectrum(_MODES)
    return {"rates": modes.rates[1:].tolist(), "rates error": _largest(modes.error, "rates")}


def side_of(run: Run) -> tuple[sg.Grid, tuple[Word, Word]]:
    """Return the grid on the start's side of the level, and what its ends do.

    Raises:
        ValueError: If the level is not inside the grid, or at the start.
    """
    level, grid, mean = run.level, run.grid, run.setting.mean
    if not grid.low < level < grid.high or level == mean:
        raise ValueError(
            f"the level must lie within the grid, {grid.low:.3g} to {grid.high:.3g}, and not at "
            f"the start, but is {level:g}; move its slider."
        )
    if mean < level:
        return sg.Grid(grid.low, level, CELLS), ("no-flux", "absorbing")
    return sg.Grid(level, grid.high, CELLS), ("absorbing", "no-flux")


def _passage(run: Run) -> dict[str, Any]:
    """Return the mean first-passage time from the middle of the start, and its relative error."""
    grid, ends = side_of(run)
    passage = sg.FokkerPlanck(run.sde, grid, ends).first_passage(moments=1)
    mean = np.interp(run.setting.mean, passage.x.numpy(), passage.moments[0].numpy())
    return {"passage mean": float(mean), "passage error": _largest(passage.error, "mean")}


def _survival(run: Run) -> dict[str, Any]:
    """Return the chance not to have been at the level by each frame, and its largest error."""
    grid, ends = side_of(run)
    setting = run.setting
    solver = sg.FokkerPlanck(run.sde, grid, ends)
    begin: Any = setting.mean
    share = 1.0
    if setting.std > 0:
        begin = grid.gaussian(setting.mean, setting.std)
        below = float(run.start.cdf(torch.tensor(run.level, dtype=torch.float64)))
        share = below if setting.mean < run.level else 1 - below
    path = solver.solve(begin, run.times[:: setting.stride])
    left = (share * path.mass.numpy()).astype(np.float64)
    return {"survival": left, "survival error": _largest(path.error, "mass")}


def _largest(error: sg.ErrorEstimate | None, name: str) -> float:
    """Return the largest of the errors of a name; NaN where none was estimated."""
    return math.nan if error is None else float(torch.as_tensor(error[name]).max())
