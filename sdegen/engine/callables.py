"""Callables: what drift and diffusion show before the first step of a run.

They are evaluated for a few states (`validate_callables`); then, in `survey`, it is found out
whether trajectories depend on each other, and what the steps cost in accuracy (`pilot.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy
from sdegen.core.commutators import check_noise_alone, check_noise_slope
from sdegen.core.evaluation import check_repeatable, refuse_randomness, told_of_graphs, watched
from sdegen.core.jumps import CompoundPoisson
from sdegen.core.noise import Streams
from sdegen.core.noise_structure import (
    NOISE_METHODS,
    check_covariance,
    check_methods,
    check_not_general,
    noise_field,
)
from sdegen.core.period import check_periods
from sdegen.core.rows import (
    CURE,
    check_autonomous,
    check_place,
    check_rows,
    depends_on_batch,
    first_line,
)
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.slope_checks import check_seen
from sdegen.core.solver import Solver
from sdegen.engine.blocks import block_rows
from sdegen.engine.pilot import check_steps
from sdegen.engine.scales import FEWEST, first_rated, warn_score
from sdegen.engine.validation import Request

_FEW = 4  # rows that are asked
_LATER = 0.6180339887498949  # of a run: no period divides it
_CHEAP, _MOST = 2**18, 2**24  # numbers of a batch that cost milliseconds, and at most a second
_MANY_TIMES = 100
_SOME, _MANY_STEPS, _DEAR = 256, 40, 1e-4  # rows; steps, of which two cost 5 %; seconds


def validate_callables(request: Request, *, whole: bool, differentiable: bool = False) -> bool:
    """Evaluate drift and diffusion before the first step, and refuse what does not fit.

    Args:
        request: The request.
        whole: Whether all rows are evaluated, as for trajectories that must not be cut.
        differentiable: Whether gradients are to flow through drift and diffusion.

    Returns:
        Whether drift or diffusion call a network or a score, which is then evaluated once.

    Raises:
        TypeError: If drift or diffusion return no tensor, or one of another dtype or device.
        ValueError: If the drift has another shape, one of them changes its argument or is not
            finite, draws random numbers of its own, or depends on the place of a trajectory in
            the batch; if the diffusion is not of the kind that sde.noise says; or if a
            derivative is not that of its function.
    """
    sde, x0, t, boundary = request.sde, request.x0, request.times[0], request.boundary
    if boundary is not None:
        check_not_general(sde, "boundary=")
        boundary.check_inside(x0, t)
    wrapped = boundary is not None and boundary.wraps
    sde.check_start(x0, boundary.periods() if boundary is not None and wrapped else None, t)
    few, reverse = _FEW, sde.denoising is not None
    if reverse:  # one evaluation, of as many numbers as say something
        few, t = max(few, -(-FEWEST // max(1, x0[0].numel()))), first_rated(sde, request.times)
    rows = x0 if whole else x0[:few]
    full, sde = sde, sde if whole else sde.of_rows(slice(few))
    try:
        f, g, network = _evaluated(sde, rows, t)
    except RuntimeError as error:
        if len(rows) < len(x0) and _takes_all(full, x0, t):
            raise ValueError(
                f"drift or diffusion takes all {len(x0)} rows of x0, but not {len(rows)} of them "
                f"({first_line(error)}). {CURE}"
            ) from error
        raise
    if reverse:
        warn_score(sde, rows, t, f)
    if type(sde).add_noise is not SDE.add_noise:
        check_covariance(sde, rows, t)
    for one in sde.jumps or ():
        if isinstance(one, CompoundPoisson):
            one.check(x0 if not network else rows, t)
    # a score is asked no more than a network: whoever draws samples counts its evaluations
    network = network or reverse
    if boundary is not None and boundary.wraps:
        later = [] if network or sde.autonomous else [torch.lerp(t, request.times[-1], _LATER)]
        check_periods(sde, boundary, rows, [t, *later])
    name, noise_of = noise_field(sde)
    _check_declared(sde, g, noise_of, rows, torch.stack([t, request.times[-1]]))
    if not network:
        # what is the same at every t is asked at another one
        again = t if sde.autonomous is not True else torch.lerp(t, request.times[-1], _LATER)
        for what, first, field in (("drift", f, sde.drift), (name, g, noise_of)):
            second = field(rows.clone(), again)
            if again is not t and not torch.equal(first, second):
                check_repeatable(what, first, field(rows.clone(), t))
                check_autonomous(sde, what, first, second, again)
            else:
                check_repeatable(what, first, second)
        own = [
            name for name in NOISE_METHODS if getattr(type(sde), name) is not getattr(SDE, name)
        ]
        if own and sde.noise_structure != "general":
            check_methods(sde, SDE, own, rows, t)  # type: ignore[type-abstract]
        if not whole:
            check_rows(sde, rows, t)
    if network or whole:  # of which rows are not permuted
        _check_matrix(sde, g, rows, t)
    _check_derivatives(full, request.solver, x0, t, differentiable)
    return network


def _evaluated(sde: SDE, rows: State, t: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Return drift and diffusion at copies of the rows, and whether a network took part.

    Both are finite tensors of x's dtype and device that left x as it was and draw nothing; the
    drift has x's shape, and the diffusion broadcasts to it.
    """
    what, noise_of = noise_field(sde)
    asked, given = what, (rows.clone(), rows.clone())

    def evaluate() -> tuple[object, object]:
        nonlocal asked
        # the noise first: a reverse drift multiplies by it, and a matrix would fail there
        asked = what
        g = noise_of(given[1], t)
        _check_broadcast(what, g, rows)
        asked = "drift"
        return sde.drift(given[0], t), g

    try:
        with told_of_graphs():
            values, network, moved = watched(evaluate, rows.device)
    except Exception as error:
        error.add_note(
            f"in the {asked}, called with {len(rows)} rows of x0 before the first step, at "
            f"t = {float(t):g}. {CURE}"
        )
        raise
    if moved is not None:
        by_drift = watched(lambda: sde.drift(rows.clone(), t), rows.device)[2] is not None
        name = "drift" if by_drift else what
        refuse_randomness(name, f"{moved} moved while it was evaluated")
    f, g = (
        _checked(name, value, x, rows)
        for name, value, x in zip(("drift", what), values, given, strict=True)
    )
    if f.shape != rows.shape:
        raise ValueError(
            f"drift returned shape {tuple(f.shape)} for x of shape {tuple(rows.shape)}; no drift "
            "is "
            f"broadcast in silence. {CURE}"
        )
    for name, value in (("drift", f), (what, g.expand_as(rows))):
        bad = ~torch.isfinite(value).flatten(1).all(1)
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            raise ValueError(
                f"{name} is not finite at t = {float(t):g}: row {i} of x is "
                f"{rows[i].flatten()[:4].tolist()} and {name} gives "
                f"{value[i].flatten()[:4].tolist()}."
            )
    return f, g, network


def _check_broadcast(what: str, g: object, rows: State) -> None:
    """Refuse a diffusion that does not broadcast to x; what is no tensor is refused elsewhere."""
    if not isinstance(g, Tensor):
        return
    try:
        g.expand_as(rows)
    except RuntimeError:
        raise ValueError(
            f"{what} returned shape {tuple(g.shape)}, which does not broadcast to x of shape "
            f"{tuple(rows.shape)}; a noise matrix is declared, by channels=m. {CURE}"
        ) from None


def _checked(name: str, value: object, given: State, rows: State) -> Tensor:
    """Return what a field returned, a tensor of x's dtype and device, if it left x as it was."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must return a tensor, but returned {type(value).__name__}; use "
            "torch.full_like(x, c) for a number."
        )
    # a 0-d number promotes nothing, and may come from the CPU
    if value.ndim > 0 and value.dtype != rows.dtype:
        raise TypeError(
            f"{name} returned dtype {value.dtype} for x of dtype {rows.dtype}; end it with "
            ".to(x.dtype)."
        )
    if value.ndim > 0 and value.device != rows.device:
        raise TypeError(
            f"{name} returned a tensor on {value.device} for x on {rows.device}; move its "
            "constants with .to(x.device)."
        )
    if not torch.equal(given, rows):
        raise ValueError(
            f"the {name} changed x in place; write x = x + … instead of x += … inside it."
        )
    return value


def _check_declared(
    sde: SDE, g: Tensor, noise_of: Callable[[State, Tensor], Tensor], rows: State, times: Tensor
) -> None:
    """Refuse a diffusion, g at the rows and the first time, that is not of the kind declared."""
    kind, t = type(sde).__name__, times[0]
    if sde.noise == "additive":
        late = torch.lerp(t, times[-1], _LATER)
        once = sde.constant_noise is not None or sde.is_discrete
        for at in (t,) if once else (t, late):  # noise that vanishes at first may vary later
            if not torch.equal(g if at is t else noise_of(rows, at), noise_of(rows + 1, at)):
                raise ValueError(
                    f"{kind} says noise = 'additive', but its diffusion is another at x + 1 than "
                    f"at x, at t = {float(at):g}; say 'multiplicative'."
                )
    if sde.noise == "none" and bool((g != 0).any()):
        raise ValueError(
            f"{kind} says noise = 'none', but its diffusion is {float(g.abs().max()):g}; "
            "say 'additive' or 'multiplicative'."
        )
    if sde.constant_noise is not None and bool((g != sde.constant_noise).any()):
        raise ValueError(
            f"{kind} says constant_noise = {sde.constant_noise:g}, but its "
            f"diffusion is up to {float(g.abs().max()):g}; say None."
        )


def _check_derivatives(
    sde: SDE, solver: Solver, x0: State, t: Tensor, differentiable: bool
) -> None:
    """Refuse derivatives that are not those of their functions, at states near the start.

    They are compared between two states that span where trajectories from x0 go first.

    Raises:
        ValueError: Naming the function.
    """
    x = x0.detach()
    reach = 0.5 * (0.1 + x.abs().max())
    states = torch.stack([x.amin(0) - reach, x.amax(0) + reach])
    # with parameters of single trajectories, those of one serve all states on the way
    for i in range(1 if sde.trajectories is None else min(2, len(x))):
        one = sde.of_rows(torch.tensor([i], device=x.device))
        one.check_derivatives(states, t)
        if "areas" in solver.needs:  # which stand beside derivatives of the noise
            check_noise_slope(one, states, t)
        elif sde.noise == "multiplicative" and solver.orders is not None:
            check_noise_alone(one, solver.orders, states, t)
    if differentiable:
        sde = sde.of_rows(slice(_FEW))
        check_seen(lambda x: sde.drift(x, t), x0[:_FEW], "drift")
        name, noise_of = noise_field(sde)
        check_seen(lambda x: noise_of(x, t), x0[:_FEW], name)


def _check_matrix(sde: SDE, g: Tensor, rows: State, t: Tensor) -> None:
    """Refuse a noise matrix that fits a batch of d trajectories in d dimensions by accident.

    Raises:
        ValueError: If g is (d, d), and is so for one row less.
    """
    n = len(rows)
    if sde.channels is not None or n < 2 or g.shape != (n, n) or rows.shape != (n, n):
        return
    try:
        fewer = sde.diffusion(rows[1:].clone(), t)
    except Exception:
        return  # what takes all rows alone has one number for each of them
    if fewer.shape == g.shape:
        raise ValueError(
            f"diffusion returned shape {tuple(g.shape)} for {n} and for {n - 1} rows; a noise "
            f"matrix is declared: return it with an axis more, G[None], and pass channels={n}. "
            f"{CURE}"
        )


def _takes_all(sde: SDE, x0: State, t: Tensor) -> bool:
    """Return whether drift and diffusion can be evaluated for all rows at once."""
    try:
        return (
            sde.drift(x0.clone(), t).shape == x0.shape
            and noise_field(sde)[1](x0.clone(), t) is not None
        )
    except Exception:
        return False


def _check_alone(sde: SDE) -> None:
    """Refuse jumps of trajectories that depend on each other: a step is split for some alone."""
    if any(isinstance(one, CompoundPoisson) for one in sde.jumps or ()):
        raise ValueError(
            f"trajectories of this {type(sde).__name__} run together (interacting), but a step is "
            "split at the jumps of single ones, for which drift and diffusion are asked at their "
            "rows alone; write drift, rate and sizes as functions of each row, and leave "
            "interacting= out."
        )


@dataclass(frozen=True)
class Survey:
    """What was found out about a run before its first step.

    Attributes:
        together: Whether trajectories depend on each other and must run in one piece.
        step_error: Error of the steps, where a pilot was made.
        slope_by: How a derivative that the dynamics need is found.
    """

    together: bool
    step_error: ErrorEstimate | None = None
    slope_by: SlopeBy = "none"


def survey(request: Request, *, seed: int, network: bool) -> Survey:
    """Return whether trajectories depend on each other, and what the steps cost in accuracy.

    Looked for at the start, and where a pilot ends that walks a few of them at the run's steps and
    at half of them; it also judges the steps (`sdegen.engine.pilot`).

    Args:
        request: The request; x0 may be some of the states that stand for the others.
        seed: Of the run.
        network: Whether a network is called, of which no more is asked than must be.

    Raises:
        ValueError: If drift or diffusion depend on the place of a trajectory in the batch, or if
            steps are unstable.
    """
    sde, x0, times, interacting = request.sde, request.x0, request.times, request.interacting
    trajectories, solver = request.trajectories, request.solver
    rows = block_rows(x0)
    if interacting is True:
        _check_alone(sde)
    if not network and interacting is not True:
        # all rows where that costs little, as two evaluations do beside a hundred; else a block
        numbers = trajectories * x0[0].numel()
        little = numbers <= _CHEAP or (len(times) > _MANY_TIMES and numbers <= _MOST)
        many = trajectories if little else min(trajectories, rows)
        if many > _SOME and len(solver.nodes(times)) < _MANY_STEPS and _is_dear(sde, x0, times[0]):
            many = _SOME
        like = x0[:many]
        if len(x0) < many:
            like = x0[torch.arange(many, device=x0.device) % len(x0)]
        check_place(sde.of_rows(slice(many)), like, times[0])
    few, together = sde.of_rows(slice(len(x0[:_FEW]))), interacting is True
    if interacting is None and (trajectories > rows or not network):
        noise = Streams(seed, "probe").block(0)
        sparing = network or trajectories <= rows
        together = depends_on_batch(few, x0[:_FEW], times, noise, sparing=sparing)
    if together:
        _check_alone(sde)
    slope_by = few.slope_by(x0[:_FEW].detach(), times[0])
    if network:
        return Survey(together, slope_by=slope_by)
    noise = Streams(seed, "pilot").block(0)
    pilot = check_steps(
        sde,
        solver,
        x0,
        times,
        trajectories=trajectories,
        boundary=request.boundary,
        whole=together,
        noise=noise,
        on_nonfinite=request.on_nonfinite,
        stacklevel=4,
    )
    if pilot is not None and interacting is not True and not together and len(pilot.states) > 1:
        check_place(pilot.sde, pilot.states, pilot.t)
        if interacting is None and trajectories > rows:
            then = pilot.t.expand(1)
            together = depends_on_batch(pilot.sde, pilot.states, then, noise, sparing=True)
            if together:
                _check_alone(sde)
    return Survey(together, None if pilot is None else pilot.error, slope_by)


def _is_dear(sde: SDE, x0: State, t: Tensor) -> bool:
    """Return whether a drift costs so much that a block of it is not evaluated for a check."""
    few = torch.arange(_SOME, device=x0.device) % len(x0)
    start = time.thread_time()
    sde.of_rows(slice(_SOME)).drift(x0[few], t)
    return time.thread_time() - start > _DEAR
