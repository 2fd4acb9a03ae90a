"""What is asked of a verdict on stored states, checked before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.requests import as_number, check_kind
from sdegen.core.rows import first_line
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.readers.stored_states import StoredStates

_FEW = 4  # states at which the drift is asked


def check_equation(sde: SDE) -> None:
    """Refuse what is no SDE.

    Raises:
        TypeError: Saying how a drift becomes one.
    """
    check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g)")


def spacing_of(dt: object, solver: Solver | str) -> float | None:
    """Return the time from one stored state to the next, of a solver with substeps.

    Raises:
        TypeError: If dt is no number, or solver neither a solver nor a word.
    """
    example = "a solver, such as EulerMaruyama(), or a word, such as 'exact'"
    check_kind("solver", solver, (Solver, str), example)
    return None if dt is None else as_number("dt", dt) * int(getattr(solver, "substeps", 1))


def has_velocities(states: StoredStates) -> bool:
    """Return whether states have the shape of positions and velocities."""
    return states.phase_space or (len(states.event) >= 2 and states.event[0] == 2)


def are_positions(sde: SDE, states: StoredStates) -> bool:
    """Return whether states are positions without their velocities; refuse those of another SDE.

    Raises:
        TypeError: If the drift returns no tensor.
        ValueError: If there are velocities, which the SDE has not, or the drift does not take
            states of their shape, or returns another.
    """
    name = type(sde).__name__
    if states.phase_space and not sde.phase_space:
        raise ValueError(
            f"path holds positions and velocities, but {name} moves positions alone; pass the "
            "positions, or an UnderdampedLangevin."
        )
    if sde.phase_space and not has_velocities(states):
        return True
    x, t = states.block(0, 1)[0, :_FEW], states.times[0]
    sde.check_start(x, None, t)
    try:
        with torch.no_grad():
            f = sde.drift(x.clone(), t)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"path has states of shape {states.event}, which the drift of {name} does not take "
            f"({first_line(error)}); pass states of the shape that it takes, or layout= to "
            "read_states if axes are in another order."
        ) from error
    if not isinstance(f, Tensor):
        raise TypeError(
            f"the drift of {name} must return a tensor, but returned {type(f).__name__}; use "
            "torch.full_like(x, c) for a number."
        )
    if f.shape != x.shape:
        raise ValueError(
            f"path has states of shape {states.event}, for which the drift of {name} returned "
            f"shape {tuple(f.shape[1:])}; pass states of the shape that it takes, or layout= to "
            "read_states if axes are in another order."
        )
    return False
