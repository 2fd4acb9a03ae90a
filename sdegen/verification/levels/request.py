"""Request: what the bias of a step is asked for, refused where it does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.averages.validation import span_of
from sdegen.core.checks import check_count
from sdegen.core.enclosure import Enclosure
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.gradients import check_no_gradient
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.noise_structure import check_not_general, noise_field
from sdegen.core.requests import (
    as_number,
    check_kind,
    check_state,
    kind_of,
    refuse_lost_gradient,
)
from sdegen.core.rows import depends_on_batch
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.blocks import block_rows
from sdegen.engine.callables import validate_callables
from sdegen.engine.extrapolate import declared_weak_order
from sdegen.engine.starts import FEW, Start, example_states, made_of
from sdegen.engine.validation import Request, validate_request
from sdegen.fokker_planck.discretization import time_dependence
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.levels.quantities import Quantities
from sdegen.verification.levels.walks import Chains

FEWEST, FEWEST_STEPS = 30, 64
FIRST_STEPS, MOST_STEPS = 1000, 16_000
_EVEN = 1e-6  # of a step: by how much the last one may end beside t
_WHAT, _INSTEAD = "the bias of a step", ", or take that of simulate(…, differentiable=True)"


@dataclass(frozen=True)
class Problem:
    """What is asked, in the library's own kinds.

    Attributes:
        chains: What moves.
        order: Weak order that the solver declares.
        starts: Starts, a row for each trajectory, or a function that makes them.
        trajectories: How many.
        span: First and last time of averages at a time; None of averages at rest.
        begin: Time at which chains at rest begin.
        confidence: How often the interval is to hold the bias.
    """

    chains: Chains
    order: float
    starts: Start
    trajectories: int
    span: tuple[float, float] | None
    begin: float
    confidence: float

    @property
    def is_random(self) -> bool:
        """Whether starts or noise are drawn."""
        drawn = self.span is None or not isinstance(self.starts, Tensor)
        return drawn or self.chains.solver.is_stochastic(self.chains.sde)

    @property
    def rows(self) -> int:
        """Trajectories of a block, at most."""
        if isinstance(self.starts, Tensor):
            return block_rows(self.starts)
        return block_rows(example_states(self.starts, FEW, self.chains.seed))

    def nodes(self, steps: int) -> Tensor:
        """Return the nodes of so many steps, shape (steps + 1,), float64."""
        if self.span is not None:
            return torch.linspace(*self.span, steps + 1, dtype=torch.float64)
        return self.begin + self.chains.dt * torch.arange(steps + 1, dtype=torch.float64)

    def block(self, b: int, first: int, rows: int) -> State:
        """Return the starts of a block."""
        if isinstance(self.starts, Tensor):
            return self.starts[first : first + rows].contiguous()
        return made_of(self.starts, rows, self.chains.seed, "step bias, starts", b)


def check_size(trajectories: object, steps: object, confidence: object, at_rest: bool) -> float:
    """Return the confidence; refuse numbers that say nothing.

    Raises:
        TypeError: If one is of the wrong kind.
        ValueError: If there are too few trajectories or steps, or steps are given beside a time.
    """
    check_count("trajectories", trajectories)
    assert isinstance(trajectories, int)
    if trajectories < FEWEST:
        raise ValueError(
            f"trajectories must be ≥ {FEWEST}, of whose spread the sampling error is told, but is "
            f"{trajectories}; pass trajectories=1000."
        )
    if steps is not None:
        check_count("steps", steps, FEWEST_STEPS)
        if not at_rest:
            raise ValueError(
                "steps is how long averages at rest are taken, but t says when the average is "
                "taken; leave one of them out."
            )
    share = as_number("confidence", confidence)
    if not 0 < share < 1:
        raise ValueError(
            f"confidence must lie between 0 and 1, but is {share:g}; pass confidence=0.95."
        )
    return share


def validate(
    sde: SDE,
    observables: object,
    dt: object,
    *,
    path: object,
    x0: object,
    t: object,
    solver: Solver | None,
    boundary: object,
    trajectories: int,
    steps: int | None,
    confidence: float,
    rng: Rng,
) -> Problem:
    """Return what is asked; refuse what does not fit.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit.
    """
    check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g)")
    check_no_jumps(sde, "step_bias")
    check_not_general(sde, "step_bias")
    step, seed = _length(dt), seed_of(rng)
    _check_question(path, x0, t)
    share = check_size(trajectories, steps, confidence, at_rest=path is not None)
    span: tuple[float, float] | None = None
    if path is not None:
        starts: Start = _starts_of(path, trajectories, seed)
    else:
        span = span_of(t)
        _steps_between(span, step)
        starts = _starts_at(x0, trajectories, sde)
        trajectories = len(starts) if isinstance(starts, Tensor) else trajectories
    recorded = torch.is_grad_enabled()
    with torch.no_grad():
        example = example_states(starts, trajectories, seed)[:FEW].clone()
        begin = time_dependence.start(sde) if span is None else span[0]
        times = [begin, begin + FIRST_STEPS * step] if span is None else list(span)
        request = validate_request(
            sde,
            solver,
            example,
            times,
            boundary=boundary,
            walls=None,
            on_nonfinite="raise",
            interacting=None,
            flags={},
            trajectories=len(example),
        )
        order = _order(sde, request.solver, request.boundary)
        network = validate_callables(request, whole=False)
        if recorded and not network:
            with torch.enable_grad():
                check_no_gradient(sde, example, request.times[0], _WHAT, _INSTEAD)
        _check_dynamics(request, seed, network=network, at_rest=span is None)
        quantities = Quantities(observables, example, Streams(seed, "probe").block(1))
        if request.boundary is not None and isinstance(starts, Tensor):
            request.boundary.check_inside(starts, request.times[0])
    assert isinstance(request.solver, FixedStep)
    chains = Chains(sde, request.solver, request.boundary, quantities, step, seed)
    return Problem(chains, order, starts, trajectories, span, begin, share)


def steps_of(problem: Problem) -> int:
    """Return how many steps of dt lead to the time of the average."""
    assert problem.span is not None
    return _steps_between(problem.span, problem.chains.dt)


def _length(dt: object) -> float:
    """Return dt as a number."""
    step = as_number("dt", dt)
    if not 0 < step < math.inf:
        raise ValueError(
            f"dt must be finite and > 0, the step whose bias is asked for, but is {step:g}; pass "
            "the step of the simulation, such as dt=0.01."
        )
    return step


def _steps_between(span: tuple[float, float], step: float) -> int:
    """Return how many steps there are between two times."""
    length = abs(span[1] - span[0])
    count = round(length / step)
    if count < 1 or abs(length / step - count) > _EVEN * max(1, count):
        near = length / max(1, math.ceil(length / step))
        raise ValueError(
            "t must be a whole number of steps after the start, but there are "
            f"{length / step:.6g} of dt = {step:g} in {length:g}; pass dt={near:.12g}, or "
            "another t."
        )
    return count


def _check_question(path: object, x0: object, t: object) -> None:
    """Refuse what is neither a question at rest nor one at a time."""
    if (path is None) == (x0 is None) or (x0 is None) != (t is None):
        raise ValueError(
            "pass either path=, states of a run at rest, for averages at rest, or x0= and t= for "
            "averages at a time, but came with "
            + (
                ", ".join(n for n, v in (("path", path), ("x0", x0), ("t", t)) if v is not None)
                or "none of them"
            )
            + "."
        )


def _starts_of(path: object, trajectories: int, seed: int) -> Tensor:
    """Return states of the later half of a path, one for each trajectory, drawn at random.

    Raises:
        TypeError: If path is neither a trajectory nor states.
        ValueError: If it has no states that are finite, or some that an end has absorbed.
    """
    if isinstance(path, Trajectory):
        if path.absorbed is not None:
            _refuse_absorbing()
        path = path.finite
    if isinstance(path, StoredStates):
        path = path.block(len(path.times) // 2, len(path.times))
    elif isinstance(path, Tensor) and path.ndim >= 3:
        path = path[len(path) // 2 :]
    if not isinstance(path, Tensor) or path.ndim < 3:
        raise TypeError(
            "path must be a Trajectory, as simulate returns it, what read_states returns, or a "
            f"tensor of states, shape (T, batch, *event), but is {kind_of(path)}."
        )
    refuse_lost_gradient("path", path, _WHAT, _INSTEAD)
    states = check_state(path.flatten(0, 1), name="the states of path")
    generator = Streams(seed, "step bias, starts").block(0).generator()
    count = len(states)
    # each state once, before any is taken again
    rounds = -(-trajectories // count)
    picked = [torch.randperm(count, generator=generator) for _ in range(rounds)]
    return states[torch.cat(picked)[:trajectories].to(states.device)]


def _starts_at(x0: object, trajectories: int, sde: SDE) -> Start:
    """Return the function that draws starts, or rows of each given one, equally often."""
    if callable(x0) and not isinstance(x0, Tensor):
        return x0
    starts = check_state(x0)
    refuse_lost_gradient("x0", starts, _WHAT, _INSTEAD)
    # without noise one trajectory of each start says all
    each = 1 if sde.noise == "none" else -(-trajectories // len(starts))
    return starts.repeat(each, *(1,) * (starts.ndim - 1))


def _order(sde: SDE, solver: Solver, enclosure: Enclosure | None) -> float:
    """Return the weak order that a solver declares.

    Raises:
        ValueError: If there is none, the steps cannot be halved, or an end absorbs.
    """
    name = type(solver).__name__
    if sde.is_discrete or not sde.halves_steps:
        raise ValueError(
            f"the steps of {type(sde).__name__} are part of the model: no smaller step of it "
            "exists, and its averages have no bias by the step; leave step_bias out."
        )
    if not isinstance(solver, FixedStep) or solver.chooses_steps or solver.returns_x0:
        raise ValueError(
            f"{name} takes no steps of a length that is given and halved, so that there is no dt "
            "whose bias could be told; pass solver=EulerMaruyama(), or compare two tolerances."
        )
    if solver.substeps != 1:
        raise ValueError(
            f"solver.substeps must be 1, but is {solver.substeps}: dt is the length of a step; "
            f"pass {name}() and dt= of a substep."
        )
    if solver.is_stochastic(sde):
        solver.check_asked("brownian")
    if enclosure is not None and enclosure.only(lambda one: one.absorbs) is not None:
        _refuse_absorbing()
    order = declared_weak_order(sde, solver)
    if order is None:
        raise ValueError(
            f"{name} declares no weak order for {sde.noise} noise like that of "
            f"{type(sde).__name__}, by which its bias falls; pass solver=EulerMaruyama()."
        )
    return order


def _refuse_absorbing() -> None:
    """Refuse ends that absorb."""
    raise ValueError(
        "an end absorbs: what is left at rest is nothing, and at a time the bias of its steps "
        "falls as √dt or dt, by how they meet the end; compare certify(…, boundary=…), which has "
        "the law of the steps there."
    )


def _check_dynamics(request: Request, seed: int, *, network: bool, at_rest: bool) -> None:
    """Refuse trajectories that depend on each other, and dynamics that never rest."""
    sde, x, times = request.sde, request.x0, request.times
    name = type(sde).__name__
    if sde.trajectories is not None:
        raise ValueError(
            f"{name} has parameters of {sde.trajectories} trajectories, each with a bias of its "
            "own: write the parameters of one of them into drift and diffusion."
        )
    probe = Streams(seed, "probe").block(0)
    if depends_on_batch(sde, x, times, probe, sparing=network):
        raise ValueError(
            f"the trajectories of {name} depend on each other (a mean field), so that their "
            "number is part of the law and their spread no error: give all of them as one state, "
            "(1, n, *event), with a drift of the rows of each state."
        )
    if not at_rest:
        return
    if sde.direction == -1:
        _refuse_unrest(name, "runs backwards in time")
    fields = sde.drift, noise_field(sde)[1]
    changes = sde.autonomous is False or (
        sde.autonomous is None
        and time_dependence.varies(
            lambda states, at: (fields[0](states, at), fields[1](states, at)),
            x,
            torch.linspace(float(times[0]), float(times[-1]), 4, dtype=torch.float64),
        )
    )
    if changes:
        _refuse_unrest(name, "changes with time")


def _refuse_unrest(name: str, how: str) -> None:
    """Refuse dynamics that have no state at rest."""
    raise ValueError(
        f"{name} {how} and has no averages at rest: pass x0= and t= in place of path=, for "
        "averages at a time."
    )
