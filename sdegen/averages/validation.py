"""Validation: what an average is asked for, refused where it does not fit, before any step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

from sdegen.averages.coupling import check_solver, coupling_for
from sdegen.averages.resolution import least_level
from sdegen.averages.sampling import Problem
from sdegen.core.checks import check_flag
from sdegen.core.evaluation import are_alike, check_repeatable
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.gradients import check_no_gradient
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise import Rng, Stream, Streams, seed_of
from sdegen.core.requests import (
    as_number,
    as_numbers,
    check_function,
    check_kind,
    check_state,
    kind_of,
    refuse_lost_gradient,
)
from sdegen.core.rows import depends_on_batch
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.engine.callables import validate_callables
from sdegen.engine.starts import FEW, example_states
from sdegen.engine.validation import validate_request
from sdegen.solvers.euler import EulerMaruyama

_ANSWER = "an average"
_INSTEAD = ", or take that of simulate(…, differentiable=True)"
_ALONE = 1e-6  # relative: f of a row, alone and among others
_NEAR = 0.1  # relative: how far from the starts a run is looked for; not far, where f or g may end


@dataclass(frozen=True)
class Accuracy:
    """What is asked of an interval.

    Attributes:
        tolerance: The most that its half width may be.
        confidence: Probability that it holds the average.
    """

    tolerance: float
    confidence: float

    @property
    def quantile(self) -> float:
        """Standard errors on either side that hold a Gaussian with this probability."""
        return float(scipy.special.ndtri(0.5 + 0.5 * self.confidence))


def accuracy_of(tolerance: object, confidence: object) -> Accuracy:
    """Return what is asked for.

    Raises:
        TypeError: If one of them is no number.
        ValueError: If the tolerance is not > 0, or the confidence not between 0 and 1.
    """
    wanted = as_number("tolerance", tolerance)
    if not 0 < wanted < math.inf:
        raise ValueError(
            f"tolerance must be finite and > 0, the half width that the interval may have, but is "
            f"{wanted:g}; pass a hundredth of the spread of f, which costs some 10⁵ trajectories."
        )
    share = as_number("confidence", confidence)
    if not 0 < share < 1:
        raise ValueError(
            f"confidence must lie between 0 and 1, but is {share:g}; pass confidence=0.95."
        )
    return Accuracy(wanted, share)


def span_of(t: object) -> tuple[float, float]:
    """Return first and last time: from 0 to t where t is a number.

    Raises:
        TypeError: If t is neither a number nor a pair of them.
        ValueError: If it is not finite, or there is no time between them.
    """
    times = as_numbers("t", t, expected="a time, or a pair of the first and the last time")
    pair = torch.stack([torch.zeros_like(times), times]) if times.ndim == 0 else times
    if pair.shape != (2,):
        raise ValueError(
            f"t must be one time, or a pair (first, last), but has shape {tuple(times.shape)}; an "
            "average is of one time: call expectation for each."
        )
    first, last = pair.tolist()
    if not (math.isfinite(first) and math.isfinite(last) and first != last):
        raise ValueError(
            f"t must be finite and another time than that of the start, but goes from {first:g} "
            f"to {last:g}; pass t=1.0, or t=(0.0, 1.0)."
        )
    return first, last


def validate(
    sde: SDE,
    x0: object,
    t: object,
    f: Callable[[State], Tensor],
    *,
    solver: FixedStep | None,
    rng: Rng,
    progress: object,
) -> Problem:
    """Return what is averaged, in the library's own kinds; refuse what does not fit.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit.
    """
    check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g)")
    _check_dynamics(sde)
    check_solver(solver)
    check_function("f", f, "a function of states that returns one number for each, shape (batch,)")
    check_flag("progress", progress)
    span, seed = span_of(t), seed_of(rng)
    if not callable(x0) or isinstance(x0, Tensor):
        x0 = check_state(x0)
        refuse_lost_gradient("x0", x0, _ANSWER, _INSTEAD)
        if len(x0) != 1:
            raise ValueError(
                f"x0 has {len(x0)} rows, but levels draw as many trajectories as they need: pass "
                "one state where all start, shape (1, *event), or a function x0(rows, rng=…) that "
                "draws them, such as x0[torch.randint(len(x0), (rows,), generator=rng)]."
            )
    recorded = torch.is_grad_enabled()
    with torch.no_grad():
        example = example_states(x0, FEW, seed)
        probe = Streams(seed, "probe").block(0)
        apart = apart_from(example, probe)
        request = validate_request(
            sde,
            EulerMaruyama() if solver is None else solver,
            example,
            list(span),
            boundary=None,
            walls=None,
            on_nonfinite="raise",
            interacting=None,
            flags={},
            trajectories=FEW,
        )
        network = validate_callables(request, whole=False)
        if recorded and not network:
            with torch.enable_grad():
                check_no_gradient(sde, example, request.times[0], _ANSWER, _INSTEAD)
        if depends_on_batch(sde, example, request.times, probe, sparing=network):
            raise ValueError(
                f"the trajectories of {type(sde).__name__} depend on each other (a mean field), "
                "and cannot be drawn level by level: run them together, by run_ensemble(…, "
                "observables=[Moments()], interacting=True)."
            )
        check_rows_of(f, example, apart)
        if recorded:
            with torch.enable_grad():
                refuse_lost_gradient("f(x)", f(example.clone()), _ANSWER, _INSTEAD)
        between = [request.times[0], request.times.mean(), request.times[-1]]
        coupling = coupling_for(sde, solver, apart, between)
        least = least_level(sde, example, span)
        return Problem(sde, x0, example, span, Quantity(f), coupling, seed, least)


def _check_dynamics(sde: SDE) -> None:
    """Refuse dynamics that no coupling of steps is built for."""
    name = type(sde).__name__
    check_no_jumps(
        sde,
        "expectation",
        "; take run_ensemble(…, observables=[Moments()], solver=JumpAdapted()).",
    )
    if sde.is_discrete:
        raise ValueError(
            f"{name} is a Markov chain on integer times, whose steps cannot be halved: take "
            "run_ensemble(…, observables=[Moments()])."
        )
    if sde.direction == -1:
        raise ValueError(
            f"{name} is a reverse process, for which levels are not built: take run_ensemble(…, "
            "observables=[Moments()]) at two numbers of steps."
        )
    if sde.trajectories is not None:
        raise ValueError(
            f"{name} has parameters of {sde.trajectories} trajectories, but levels draw as many "
            "as they need: write the parameters of one of them into drift and diffusion."
        )
    if sde.noise_structure == "general":
        raise ValueError(
            f"the noise of {name} is general, of which nobody says how two steps make one: give "
            "it as ItoProcess(f, G, channels=m), or take run_ensemble(…, "
            "observables=[Moments()])."
        )


class Quantity:
    """f of states, one float64 number for each.

    Args:
        function: The user's.
    """

    def __init__(self, function: Callable[[State], Tensor]) -> None:
        self._function = function

    def __call__(self, x: State) -> Tensor:
        """Return f(x), shape (batch,), float64.

        Raises:
            TypeError: If f returns no real tensor.
            ValueError: If it has another shape.
        """
        value: object = self._function(x)
        if not isinstance(value, Tensor) or value.is_complex():
            what = value.dtype if isinstance(value, Tensor) else kind_of(value)
            raise TypeError(
                f"f must return a tensor of real numbers, one for each state, but returned {what}."
            )
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"f must return one number for each state, shape ({len(x)},), but returned shape "
                f"{tuple(value.shape)} for x of shape {tuple(x.shape)}; take a coordinate, as in "
                "lambda x: x[:, 0], or sum over the event, as in lambda x: x.square().sum(1)."
            )
        return value.to(torch.float64)


def apart_from(x: State, noise: Stream) -> State:
    """Return states near some others, all of them apart, as those of a run will be."""
    z = noise.normal(tuple(x.shape), dtype=x.dtype, device=x.device)
    return x + _NEAR * (1 + x.abs()) * z


def check_rows_of(f: Callable[[State], Tensor], x: State, apart: State) -> None:
    """Refuse an f that changes its argument, draws, or looks at other rows.

    Args:
        f: The user's.
        x: A few starts.
        apart: States near them, apart from each other: the starts may be alike.

    Raises:
        ValueError: Saying which.
    """
    quantity, given = Quantity(f), x.clone()
    first = quantity(given)
    if not torch.equal(given, x):
        raise ValueError("f changed x in place; write x = x + … instead of x += … inside it.")
    check_repeatable("f", first, quantity(x.clone()))
    try:
        values, alone = quantity(apart.clone()), quantity(apart[:1].clone())
    except Exception:  # no end of a trajectory need be here: what raises there too says so itself
        return
    if not are_alike(values[:1], alone, _ALONE):
        raise ValueError(
            "f of a state depends on the other states of its batch, such as by their mean; let "
            "it be a function of each row alone: blocks are of any size."
        )
