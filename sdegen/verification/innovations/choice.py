"""Which law the steps of a solver have."""

from __future__ import annotations

from torch import Tensor

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.jumps import check_no_jumps
from sdegen.core.mirrors import enclosure_for
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.splitting import BAOAB, OBABO
from sdegen.verification.innovations.implicit_law import ImplicitLaw
from sdegen.verification.innovations.law import StepLaw
from sdegen.verification.innovations.linear_law import exact_law, strided_law
from sdegen.verification.innovations.positions_law import positions_law
from sdegen.verification.innovations.probed_law import ProbedLaw
from sdegen.verification.innovations.redrawn_law import redrawn_law, unknown_law
from sdegen.verification.innovations.splitting_law import SplittingLaw
from sdegen.verification.innovations.update_law import UpdateLaw
from sdegen.verification.innovations.walled_law import WalledLaw


def law_of(
    sde: SDE,
    solver: Solver | str,
    nodes: Tensor,
    event: tuple[int, ...],
    boundary: object = None,
    *,
    determinant: bool = True,
    positions: bool = False,
) -> StepLaw:
    """Return the law of the steps between stored states.

    Args:
        sde: What moves, by belief.
        solver: How it moves; "exact": by the transitions of a linear process; "unknown".
        nodes: Times of the states, shape (T,), float64.
        event: Shape of the event.
        boundary: As `simulate` takes it.
        positions: Whether states of a phase space are positions alone.
        determinant: Whether the density of a nonlinear step is wanted, not its noise alone.

    Raises:
        TypeError, ValueError: If the solver does not take the dynamics, or its steps have no law
            that is known.
    """
    check_no_jumps(sde, "certify")
    whole = (2, *event) if positions else event
    enclosure = None if boundary is None else enclosure_for(sde, boundary, whole)
    if positions and isinstance(solver, FixedStep):
        law = positions_law(sde, solver, nodes, event)
    elif positions:
        raise ValueError(
            f"positions alone are judged as steps of a method, but solver is {solver!r}; pass "
            "BAOAB(), OBABO() or EulerMaruyama(), or velocities as well."
        )
    else:
        law = _free(sde, solver, nodes, event, determinant)
    return law if enclosure is None else WalledLaw(law, sde, enclosure, nodes)


def _free(
    sde: SDE, solver: Solver | str, nodes: Tensor, event: tuple[int, ...], determinant: bool
) -> StepLaw:
    """Return the law of steps without a boundary."""
    if isinstance(solver, str):
        return _named(sde, solver, nodes, event)
    solver.check(sde, nodes)
    name = type(solver).__name__
    if not isinstance(solver, FixedStep):
        raise ValueError(  # noqa: TRY004, what solvers refuse is a ValueError
            f"{name} chooses its own steps, so that the law of one is not known; pass the solver "
            "that made the states, such as EulerMaruyama(), or solver='unknown', which judges by "
            "the moments of a short step."
        )
    law = _of_one_step(sde, solver, nodes, determinant) if solver.substeps == 1 else None
    law = strided_law(sde, solver, nodes, event) if law is None else law
    return redrawn_law(sde, solver, nodes, event) if law is None else law


def _named(sde: SDE, solver: str, nodes: Tensor, event: tuple[int, ...]) -> StepLaw:
    """Return the law of states that no solver of the library made."""
    if solver == "exact":
        return exact_law(sde, nodes)
    if solver == "unknown":
        return unknown_law(sde, nodes, event)
    raise ValueError(
        f"solver must be a solver, such as EulerMaruyama(), 'exact' or 'unknown', but is "
        f"{solver!r}."
    )


def _of_one_step(sde: SDE, solver: FixedStep, nodes: Tensor, determinant: bool) -> StepLaw | None:
    """Return the law of a step whose noise can be told from it; None where that is not known."""
    if type(solver) is EulerMaruyama:
        return UpdateLaw(sde, nodes)
    if isinstance(solver, BAOAB | OBABO) and isinstance(sde, UnderdampedLangevin):
        return SplittingLaw(sde, solver, nodes)
    if type(solver) is Heun and sde.channels is None:
        return ImplicitLaw(sde, solver, nodes, determinant=determinant)
    if sde.channels is None and sde.noise_structure == "diagonal":
        return ProbedLaw(sde, solver, nodes)
    return None
