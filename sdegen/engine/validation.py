"""Validation: the arguments of a request are checked here, once, and trusted inside.

What drift and diffusion return is looked at in `callables.py`. Each refusal says what came, what
was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from torch import Tensor

from sdegen.core.brownian import BrownianPath
from sdegen.core.checks import check_flag
from sdegen.core.enclosure import Enclosure
from sdegen.core.jumps import check_no_jumps
from sdegen.core.mirrors import Mirrors, enclosure_for
from sdegen.core.requests import as_time_grid, check_state
from sdegen.core.retired import refuse_walls
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.engine.mirrored import check_mirrors
from sdegen.engine.record import OnNonfinite
from sdegen.observables.functionals import Functional
from sdegen.score.composition import warn_collapse
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.jump_adapted import JumpAdapted
from sdegen.solvers.splitting import BAOAB

_NO_BOUNDARY = (
    ", and what a jump beyond an end does is not said; leave boundary= out, or ask "
    'FokkerPlanck(sde, grid, "absorbing") for densities between absorbing ends.'
)
_EULER = EulerMaruyama()  # made once: a small run is noticed by what it calls
_SLACK = 1e-7  # relative: times that were made in float32 end a rounding beyond the range


@dataclass(frozen=True)
class Request:
    """A request whose arguments fit each other.

    Attributes:
        sde: What moves.
        solver: How it moves.
        x0: States at times[0], shape (batch, *event); of an ensemble a few of them.
        times: Shape (T,), float64, strictly monotone.
        trajectories: How many.
        boundary: What the states are kept inside of, or None.
        on_nonfinite: What becomes of trajectories that are lost.
        interacting: What the user says of it; None is to be found out.
        brownian: The path that the noise comes from, or None.
        functionals: What is added up along each path.
        checkpointed: Whether runs of steps are repeated for gradients, in place of their graph.
    """

    sde: SDE
    solver: Solver
    x0: State
    times: Tensor
    trajectories: int
    boundary: Enclosure | None
    on_nonfinite: OnNonfinite
    interacting: bool | None
    brownian: BrownianPath | None = None
    functionals: tuple[Functional, ...] = ()
    checkpointed: bool = False


def validate_request(
    sde: SDE,
    solver: Solver | None,
    x0: object,
    times: object,
    *,
    boundary: object,
    walls: object,
    on_nonfinite: OnNonfinite,
    interacting: bool | None,
    flags: Mapping[str, object],
    trajectories: int | None = None,
    brownian: object = None,
) -> Request:
    """Return a request in the library's own kinds; refuse what does not fit.

    Args:
        sde: What moves.
        solver: How it moves; None: EulerMaruyama, between jumps JumpAdapted, and BAOAB of
            positions and velocities.
        x0: States at times[0], or a few of those of an ensemble.
        times: Times of the run.
        boundary: What the states are kept inside of, as the user has it.
        walls: Retired.
        on_nonfinite: "raise" or "freeze".
        interacting: True, False, or None.
        flags: Arguments that are True or False, by name.
        trajectories: How many, where they are not the rows of x0.
        brownian: A Brownian path, or None.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit.
    """
    x, ts = check_state(x0), as_time_grid(times)
    if solver is None:
        # a subclass with a drift or a diffusion of its own has no parts that BAOAB knows
        known = isinstance(sde, UnderdampedLangevin) and not sde.own_methods("drift", "diffusion")
        solver = BAOAB() if known else _EULER
        solver = solver if getattr(sde, "jumps", None) is None else JumpAdapted()
    if walls is not None:
        refuse_walls(walls)
    enclosure = None if boundary is None else enclosure_for(sde, boundary, x.shape[1:])
    check_dynamics(sde, solver, ts, enclosure, stacklevel=4)
    if on_nonfinite not in ("raise", "freeze"):
        raise ValueError(f"on_nonfinite must be 'raise' or 'freeze', but is {on_nonfinite!r}.")
    if not (interacting is None or isinstance(interacting, bool)):
        raise TypeError(
            f"interacting must be True, False or None (find out), but is {interacting!r}."
        )
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            check_flag(name, flag)
    count = len(x) if trajectories is None else trajectories
    if sde.trajectories not in (None, count):
        raise ValueError(
            f"the parameters of {type(sde).__name__} have {sde.trajectories} rows for "
            f"{count} trajectories; pass one row for each."
        )
    path = None if brownian is None else _walkable(brownian, solver, ts)
    return Request(sde, solver, x, ts, count, enclosure, on_nonfinite, interacting, path)


def check_dynamics(
    sde: object,
    solver: object,
    times: Tensor,
    boundary: Enclosure | None,
    *,
    stacklevel: int = 3,
) -> None:
    """Refuse dynamics that do not go with the times, the solver, or the boundary.

    Args:
        sde: What moves.
        solver: How it moves.
        times: Shape (T,), float64, strictly monotone.
        boundary: What the states are kept inside of, or None.
        stacklevel: As `warnings.warn` has it; 3 points at the caller's caller.

    Raises:
        TypeError: If sde or solver are something else.
        ValueError: Saying which of them does not fit.
    """
    if not (isinstance(sde, SDE) and isinstance(solver, Solver)):
        _refuse_kinds(sde, solver)
    start, end = float(times[0]), float(times[-1])
    if sde.noise != "none" and (end > start) != (sde.direction == 1):
        _refuse_direction(sde, forwards=end > start)
    low, high = sde.time_range
    start, end = min(start, end), max(start, end)
    if start < low - _SLACK * abs(low) or end > high + _SLACK * abs(high):
        why = ""
        if start <= 0 < low:
            why = "; at t = 0 the score does not exist: end at t_min, as sde.time_grid(steps) does"
        raise ValueError(
            f"times must lie in [{low:g}, {high:g}], where {type(sde).__name__} is defined, but "
            f"span {start:g} … {end:g}{why}."
        )
    nodes = solver.nodes(times)
    solver.check(sde, nodes)
    if sde.is_discrete and not bool(
        (nodes == nodes.round()).all() & (nodes.diff().abs() == 1).all()
    ):
        raise ValueError(
            f"{type(sde).__name__} is a Markov chain on integer times: times must be consecutive "
            "integers and substeps 1, "
            f"but the nodes begin {', '.join(f'{float(t):g}' for t in nodes[:3])}; pass "
            "torch.arange(N + 1.0), or its "
            "flip(0) for the inverse chain."
        )
    if boundary is not None:
        check_no_jumps(sde, "boundary=", _NO_BOUNDARY)
        check_mirrors(sde, Mirrors.of(boundary))
        check_boundary(solver)
    if sde.direction == -1 and not solver.is_stochastic(sde):
        inner = sde.denoising
        if inner is not None and inner.eta == 0:
            warn_collapse(inner.score, stacklevel=stacklevel + 1)


def check_boundary(solver: Solver) -> None:
    """Refuse a solver that keeps no state inside a boundary.

    Raises:
        ValueError: Naming a solver that does.
    """
    if not solver.supports_boundaries:
        raise ValueError(
            f"{type(solver).__name__} cannot keep a state inside a boundary; use "
            "EulerMaruyama(substeps=…)."
        )


def _walkable(brownian: object, solver: Solver, times: Tensor) -> BrownianPath:
    """Return a Brownian path that the steps of a run meet and that the solver can walk.

    Raises:
        TypeError: If brownian is something else.
        ValueError: Naming the solver, or the time that is missing.
    """
    if not isinstance(brownian, BrownianPath):
        raise TypeError(
            f"brownian must be a BrownianPath(rng, times) or None, but is {brownian!r}."
        )
    solver.check_asked("brownian")
    brownian.places(solver.nodes(times))
    return brownian


def _refuse_kinds(sde: object, solver: object) -> NoReturn:
    """Refuse what is no SDE or no solver."""
    if not isinstance(sde, SDE):
        raise TypeError(
            f"sde must be an SDE, but is {type(sde).__name__}; a drift of your own becomes one "
            "with "
            "ItoProcess(drift=f, diffusion=g)."
        )
    kind = solver if isinstance(solver, type) else type(solver)
    if kind.__module__.startswith("sdegen.fokker_planck."):
        raise TypeError(
            f"{kind.__name__} is an integrator of densities, for FokkerPlanck.solve, and "
            "no solver of trajectories. Pass EulerMaruyama(substeps=…) with steps that resolve "
            "the fastest rate, SKROCK(stages=…) for longer ones, or ImplicitEuler() where the "
            "linear part of the drift is known."
        )
    hint = (
        f", such as {solver.__name__}()"
        if isinstance(solver, type) and issubclass(solver, Solver)
        else ""
    )
    raise TypeError(
        f"solver must be a Solver object{hint}, but is {solver!r}; for example "
        "EulerMaruyama(substeps=10)."
    )


def _refuse_direction(sde: SDE, *, forwards: bool) -> NoReturn:
    """Refuse noisy dynamics against their sense of time, which would not be their reversal."""
    name, seen = type(sde).__name__, "increase" if forwards else "decrease"
    if sde.direction == -1:
        raise ValueError(
            f"times {seen}, but {name} is a reverse process, meant for decreasing time: pass "
            "times.flip(0)."
        )
    if sde.is_discrete:
        raise ValueError(
            f"times {seen}, but {name} is a noisy chain meant for increasing time: its inverse is "
            "chain.reverse(score)."
        )
    raise ValueError(
        f"times {seen}, but {name} is a noisy SDE meant for increasing time: running it backwards "
        "is not its time reversal. Build ReverseSDE(sde, score) and run that with decreasing "
        "times."
    )
