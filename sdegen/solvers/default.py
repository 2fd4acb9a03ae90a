"""The default solver: what moves an SDE where no solver is said."""

from __future__ import annotations

from sdegen.core.solver import Solver
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.jump_adapted import JumpAdapted
from sdegen.solvers.splitting import BAOAB

_EULER = EulerMaruyama()  # made once: a small run is noticed by what it calls


def default_solver(sde: object) -> Solver:
    """Return EulerMaruyama; between jumps, if any, JumpAdapted; in a phase space BAOAB."""
    if getattr(sde, "jumps", None) is not None:
        return JumpAdapted()
    return BAOAB() if getattr(sde, "phase_space", False) else _EULER
