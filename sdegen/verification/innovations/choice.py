"""Which law the steps of a solver have."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep, OneStep
from sdegen.core.jumps import check_no_jumps
from sdegen.core.mirrors import enclosure_for
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.splitting import BAOAB, OBABO
from sdegen.verification.given_draws import GivenDraws
from sdegen.verification.innovations.implicit_law import ImplicitLaw
from sdegen.verification.innovations.law import StepLaw
from sdegen.verification.innovations.linear_law import exact_law, strided_law
from sdegen.verification.innovations.positions_law import positions_law
from sdegen.verification.innovations.probed_law import ProbedLaw, RememberingLaw
from sdegen.verification.innovations.redrawn_law import redrawn_law, unknown_law
from sdegen.verification.innovations.splitting_law import SplittingLaw
from sdegen.verification.innovations.still_law import StillLaw
from sdegen.verification.innovations.update_law import UpdateLaw
from sdegen.verification.innovations.walled_law import WalledLaw
from sdegen.verification.step_moments import check_forgets


def law_of(
    sde: SDE,
    solver: Solver | str,
    nodes: Tensor,
    event: tuple[int, ...],
    boundary: object = None,
    *,
    determinant: bool = True,
    positions: bool = False,
    states: State | None = None,
) -> StepLaw:
    """Return the law of the steps between stored states.

    Args:
        sde: What moves, by belief.
        solver: How it moves; "exact": by the transitions of a linear process; "unknown".
        nodes: Times of the states, shape (T,), float64.
        event: Shape of the event.
        boundary: As `simulate` takes it.
        states: Some of them, shape (n, *event), at which a solver can be asked what it does.
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
        law = _free(sde, solver, nodes, event, states, determinant)
    return law if enclosure is None else WalledLaw(law, sde, enclosure, nodes)


def _free(
    sde: SDE,
    solver: Solver | str,
    nodes: Tensor,
    event: tuple[int, ...],
    states: State | None,
    determinant: bool,
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
            "what is common to all methods."
        )
    forgets = _forgets(sde, solver, nodes, states)
    if solver.substeps == 1:
        law = _of_one_step(sde, solver, nodes, states, determinant, forgets=forgets)
        if law is not None:
            return law
    if not forgets:
        raise ValueError(
            f"{name} remembers earlier steps, and its noise cannot be told from the states that "
            f"are stored{' of every few steps' if solver.substeps > 1 else ''}; store every step "
            "of diagonal noise, or pass solver='unknown'."
        )
    if not solver.is_stochastic(sde):
        return StillLaw(sde, solver, nodes)
    if sde.noise == "none":
        raise ValueError(
            f"{name} draws noise of its own beside {type(sde).__name__}, which has none, and what "
            "it draws cannot be told from the states; pass states that were made without it."
        )
    law = strided_law(sde, solver, nodes, event)
    return redrawn_law(sde, solver, nodes, event) if law is None else law


def _named(sde: SDE, solver: str, nodes: Tensor, event: tuple[int, ...]) -> StepLaw:
    """Return the law of states that no solver of the library made."""
    if solver == "exact":
        return exact_law(sde, nodes)
    if solver != "unknown":
        raise ValueError(
            f"solver must be a solver, such as EulerMaruyama(), 'exact' or 'unknown', but is "
            f"{solver!r}."
        )
    if sde.is_discrete or sde.noise == "none":
        what = "is a Markov chain, whose steps are known" if sde.is_discrete else "has no noise"
        raise ValueError(
            f"{type(sde).__name__} {what}, and nothing is left open to judge it by; pass the "
            "solver that made the states, such as EulerMaruyama()."
        )
    return unknown_law(sde, nodes, event)


def _forgets(sde: SDE, solver: FixedStep, nodes: Tensor, states: State | None) -> bool:
    """Return whether the steps of a solver do not depend on those before."""
    if isinstance(solver, OneStep) or len(nodes) < 3 or states is None:
        return True
    x = states[:2] if len(states) > 1 else torch.cat([states, states + 0.25])
    inner = solver.nodes(nodes[:3])
    silent = None
    if solver.is_stochastic(sde):
        shape = tuple(x.shape[1:]) if sde.channels is None else (sde.channels,)
        none = torch.zeros(len(x), 0, dtype=x.dtype)
        silent = GivenDraws(none, sde.channels, shape, float(inner[1] - inner[0]))
    try:
        check_forgets(sde, solver, inner, x, silent)
    except ValueError as refusal:
        return "remembers" not in str(refusal)  # else it draws what is not given here
    return True


def _of_one_step(
    sde: SDE,
    solver: FixedStep,
    nodes: Tensor,
    states: State | None,
    determinant: bool,
    *,
    forgets: bool,
) -> StepLaw | None:
    """Return the law of a step whose noise can be told from it; None where that is not known."""
    if type(solver) is EulerMaruyama:
        return UpdateLaw(sde, nodes)
    if not solver.is_stochastic(sde):
        return None if forgets else RememberingLaw(sde, solver, nodes)
    if isinstance(solver, BAOAB | OBABO) and isinstance(sde, UnderdampedLangevin):
        return SplittingLaw(sde, solver, nodes)
    if sde.channels is not None or sde.noise_structure != "diagonal":
        return None
    law: StepLaw
    if type(solver) is Heun:
        law = ImplicitLaw(sde, solver, nodes, determinant=determinant)
    else:
        law = ProbedLaw(sde, solver, nodes)
    if states is not None and not _takes(law, states, len(nodes) - 1):
        return None
    return law if forgets else RememberingLaw(sde, solver, nodes)


def _takes(law: StepLaw, states: State, steps: int) -> bool:
    """Return whether a law can tell the noise of steps: the first, one midway, the last."""
    try:
        with torch.no_grad():
            for i in (0,) if law.alike else sorted({0, steps // 2, steps - 1}):
                law.innovations(states, states, i)
    except ValueError:
        return False
    return True
