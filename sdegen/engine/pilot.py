"""The pilot of a run: a few trajectories at its steps and at half of them, before its first step.

A step h that is too large gives an answer like any other. What it does shows where the same
Brownian path is walked twice: with z₁, z₂ for two steps of h/2, the step of h takes (z₁ + z₂)/√2.
Both walks then differ by the error of the step, and hardly by chance, so that a few hundred
trajectories see what would take many more.

    moved = |mean(x_h) − mean(x_{h/2})|,  |std(x_h) − std(x_{h/2})|       at the end of the pilot

A warning (`AccuracyWarning`) is given where one of them is above 10 % of the standard deviation
and four standard errors; a `ValueError` where the largest |x| on the way differs by more than ten
times, as it does where steps are unstable. Either names the step that would do, found by halving
on. Growth that the equation itself has is in both walks and passes. A solution that explodes in
finite time, as dX = X³ dt does, has no such step: the largest |x| grows at each halving, though
that of the run may be finite. Where it has not settled, halving on tells it from growth.

The pilot goes as far as costs 5 % of the run, or 20 ms: over all of a short run, over the first
stretch of another. What a step does only later is not seen. It draws from a stream of its own. No
pilot is made of Markov chains, of reverse dynamics, of dynamics that call a network, and of
solvers that choose their own steps; nor of general noise. Jumps at a constant rate
are the same in both walks; none is made where a rate depends on the state, so that one walk may
jump where the other does not, nor of α-stable motions, whose means and spreads say nothing. Where
ends absorb, the trajectories that no end has met are looked at.

In a phase space a method that is no splitting heats, long after a pilot has ended: what it does
to the temperature is told beforehand (`heating.py`).

The same place sees a state that rounds its increments away: x + dt f = x in float32.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.alpha_stable import AlphaStable
from sdegen.core.enclosure import Enclosure
from sdegen.core.errors import AccuracyWarning
from sdegen.core.fixed_steps import FixedStep, OneStep, refine
from sdegen.core.noise import Stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.engine.half_steps import FEWEST_ROWS, MOVED, NUMBERS, HalvedWalk, Verdict
from sdegen.engine.heating import warn_heating
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.splitting import Splitting
from sdegen.solvers.torch_sde import TorchSDE

_ROWS = 256
_HALVINGS, _SEARCHED = 10, 4096  # to find the step that would do
_SETTLED, _SURE = 1.25, 3  # ratio of the largest |x| of a growth that is followed; halvings
_LOST = 0.1  # of an increment, that rounding may take


@dataclass(frozen=True)
class Pilot:
    """Where the pilot ended.

    Attributes:
        sde: The dynamics of the trajectories that it took.
        states: Their states at half the steps, shape (n, *event).
        t: At which time, 0-d.
        error: Of the run's steps, from what halving them did; None where nothing is left to see.
    """

    sde: SDE
    states: State
    t: Tensor
    error: ErrorEstimate | None


def check_steps(
    sde: SDE,
    solver: Solver,
    x0: State,
    times: Tensor,
    *,
    trajectories: int,
    boundary: Enclosure | None,
    whole: bool,
    noise: Stream,
    on_nonfinite: Literal["raise", "freeze"] = "raise",
    stacklevel: int = 3,
) -> Pilot | None:
    """Walk a few trajectories at the steps of a run and at half of them, and judge the steps.

    Args:
        sde: What moves; no network is called.
        solver: How it moves.
        x0: States at times[0], all of them or some that stand for the others.
        times: Shape (T,), float64.
        trajectories: Of the run.
        boundary: What the states are kept inside of.
        whole: Whether trajectories must run together, so that all are walked.
        noise: Stream of the pilot.
        on_nonfinite: "freeze" makes a warning of the error.
        stacklevel: As `warnings.warn` has it; 3 points at the caller's caller.

    Returns:
        Where it ended; None where no pilot was made.

    Raises:
        ValueError: If the steps are unstable, with steps that are not.
        Interrupted: On Ctrl-C.
    """
    if not sde.halves_steps or sde.is_discrete or sde.denoising is not None:
        return None
    if sde.noise_structure == "general":  # its draws need not be those that two walks share
        return None
    if any(isinstance(one, AlphaStable) or one.is_thinned for one in sde.jumps or ()):
        return None
    if isinstance(solver, OneStep):
        solver = replace(solver, compile=False) if solver.compile else solver
    elif not isinstance(solver, TorchSDE | FixedStep) or solver.returns_x0:
        return None
    own, x = _few_of(sde, x0, trajectories, whole)
    nodes = solver.nodes(times)
    stride = (len(nodes) - 1) // (len(times) - 1)
    walk = HalvedWalk(own, solver, x, nodes, noise, boundary, stride)
    try:
        verdict = walk.go(trajectories, whole)
    except Exception:
        return None  # of the user's own drift: the run meets it again, and says in which step
    if verdict is not None and verdict.explodes:
        _tell(walk, verdict, solver, on_nonfinite, stacklevel + 1)
    elif walk.verdict is not None and not walk.verdict.ratio <= _SETTLED and _diverges(walk):
        _warn_explosion(walk, stacklevel + 1)
    elif own.phase_space and _heats(walk, stacklevel + 1):
        pass  # which is said
    elif verdict is not None and verdict.is_bad:
        _tell(walk, verdict, solver, on_nonfinite, stacklevel + 1)
    else:
        _check_rounding(walk, stacklevel + 1)
    finite = walk.fine.flatten(1).isfinite().all(1) & walk.alive
    t = walk.nodes[walk.reached]
    return Pilot(own.of_rows(finite), walk.fine[finite], t, _step_error(walk, finite))


def _heats(walk: HalvedWalk, stacklevel: int) -> bool:
    """Return whether a method that is no splitting heats a phase space, and warn of it."""
    sde, solver = walk.sde, walk.solver
    if not isinstance(sde, UnderdampedLangevin) or isinstance(solver, Splitting):
        return False
    ends = torch.cat([walk.x, walk.fine[walk.fine.flatten(1).isfinite().all(1)]])
    return warn_heating(sde, solver, ends, walk.nodes, stacklevel + 1)


def _step_error(walk: HalvedWalk, rows: Tensor) -> ErrorEstimate | None:
    """Return twice what halving the steps did to mean and spread, over the std: weak order 1.

    The largest of all coordinates, with a standard error of the difference.
    """
    c, f = (x[rows].flatten(1).double() for x in (walk.coarse, walk.fine))
    n = len(f)
    if n < FEWEST_ROWS or walk.reached == 0 or not bool(c.isfinite().all()):
        return None
    c0, f0 = c - c.mean(0), f - f.mean(0)
    scale = f0.square().mean(0).sqrt().clamp(min=1e-300)
    of_mean = (c - f).mean(0).abs() + (c - f).std(0) / math.sqrt(n)
    squares = c0.square() - f0.square()
    of_std = (squares.mean(0).abs() + squares.std(0) / math.sqrt(n)) / (2 * scale)
    told = {"mean": 2 * float((of_mean / scale).max()), "std": 2 * float((of_std / scale).max())}
    t = float(walk.nodes[walk.reached])
    return ErrorEstimate(told, f"half steps up to t = {t:g}")


def _few_of(sde: SDE, x0: State, trajectories: int, whole: bool) -> tuple[SDE, State]:
    """Return the dynamics and the starts of the trajectories that are walked.

    A few hundred, evenly over all of them, and with repetitions where there are fewer and noise.
    """
    if whole:
        return sde, x0
    most = max(16, min(_ROWS, NUMBERS // max(1, x0[0].numel())))
    count = min(most, trajectories) if sde.noise == "none" else most
    spread = torch.arange(count, device=x0.device)
    starts, rows = (
        spread * n // count if n >= count else spread % n for n in (len(x0), trajectories)
    )
    return sde.of_rows(rows), x0[starts]


def _tell(
    walk: HalvedWalk,
    verdict: Verdict,
    solver: Solver,
    on_nonfinite: Literal["raise", "freeze"],
    stacklevel: int,
) -> None:
    """Warn of steps that are too large, or refuse them, with those that would do.

    Raises:
        ValueError: If they are unstable.
    """
    found = _halvings(walk, verdict)
    if verdict.explodes and found is None:
        if not walk.is_lost:  # or the run says where
            _warn_explosion(walk, stacklevel + 1)
        return
    steps = walk.nodes.diff().abs()
    largest = float(steps.max())
    substeps = getattr(solver, "substeps", 1)
    assert found is not None  # it is for all but explosions
    cure = f"substeps={substeps * 2**found} (dt = {largest / 2**found:.3g}) would do there."
    seen = (
        f"{len(walk.x)} pilot trajectories, {verdict.node} of {len(walk.nodes) - 1} steps, up to "
        f"t = {float(walk.nodes[verdict.node]):g}"
    )
    if verdict.explodes:
        text = (
            f"steps of {largest:.3g} are too large for {type(walk.sde).__name__}: half of them "
            f"change the largest |x| by a factor of {verdict.ratio:.2g} ({seen}). {cure}"
        )
        if on_nonfinite == "raise":
            raise ValueError(text)
    else:
        text = (
            f"steps of {largest:.3g} are large for {type(walk.sde).__name__}: half of them move "
            f"{verdict.what} by {100 * verdict.moved:.3g} % of the standard deviation, "
            f"{verdict.errors:.1f} standard errors ({seen}). {cure}"
        )
    warnings.warn(text, AccuracyWarning, stacklevel=stacklevel)


def _halved(walk: HalvedWalk, node: int, sure: int = 0) -> Iterator[tuple[int, HalvedWalk]]:
    """Yield walks up to a node at steps halved once, twice, …, as long as that is cheap.

    Args:
        walk: The walk at the steps of the run.
        node: Where they end.
        sure: How many are yielded whatever they cost.
    """
    nodes, spent = walk.nodes[: node + 1], 0
    for k in range(1, _HALVINGS + 1):
        nodes = refine(nodes, 2)
        spent += 3 * (len(nodes) - 1)
        if spent > _SEARCHED and k > sure:
            return
        stride = walk.stride * 2**k
        yield (
            k,
            HalvedWalk(walk.sde, walk.solver, walk.x, nodes, walk.noise, walk.boundary, stride),
        )


def _halvings(walk: HalvedWalk, verdict: Verdict) -> int | None:
    """Return how often steps must be halved until halving them changes little; None if not found.

    Explosions are looked at over the stretch on which they showed.
    """
    for k, again in _halved(walk, verdict.node):
        if again.suffices():
            return k
    if verdict.explodes:
        return None
    # the error of the step falls at least in proportion to it
    return max(1, math.ceil(math.log2(verdict.moved / MOVED)))


def _diverges(walk: HalvedWalk) -> bool:
    """Return whether the largest |x| grows on however often steps are halved."""
    for _, again in _halved(walk, walk.reached, _SURE):
        if again.stretch(again.last).ratio <= _SETTLED:
            return False
    return not walk.is_lost  # or the run says where


def _warn_explosion(walk: HalvedWalk, stacklevel: int) -> None:
    """Warn of a solution that leaves the numbers in finite time, where the run does not."""
    coarse, fine = walk.largest
    warnings.warn(
        f"{type(walk.sde).__name__} seems to explode before t = "
        f"{float(walk.nodes[walk.reached]):g}: the largest |x| up to there is {coarse:.3g} at the "
        f"steps of this run, {fine:.3g} at half of them, and does not settle however often they "
        "are halved. End the run before that t; where the solution does not explode, take steps "
        "that are shorter still.",
        AccuracyWarning,
        stacklevel=stacklevel,
    )


def _check_rounding(walk: HalvedWalk, stacklevel: int) -> None:
    """Warn where rounding takes most of the increments, at the start or at the pilot's end.

    An increment d of x is rounded to multiples of x's last bit u: without noise of that size a
    d < 5u loses 10 % of itself and a d < u/2 all, in every step to the same side.
    """
    steps = len(walk.nodes) - 1
    dt = float(walk.nodes.diff().abs().mean())
    for x, t in ((walk.x, walk.nodes[0]), (walk.fine, walk.nodes[walk.reached])):
        last_bit = torch.finfo(x.dtype).eps * 0.5 * x.abs()
        drift = dt * walk.sde.drift(x, t).abs()
        g = walk.sde.diffusion(x, t).to(x)
        g = g.abs() if walk.sde.channels is None else g.norm(dim=-1)  # the spread of G z
        noise = dt**0.5 * g.expand_as(x)
        lost = (noise < 0.5 * last_bit) & (drift < 0.5 * last_bit / _LOST)
        shows = (drift * steps > 8 * last_bit) | (noise * steps**0.5 > 8 * last_bit)
        stalled = (lost & shows).flatten(1).any(1)
        if float(stalled.double().mean()) > _LOST:
            i = int(stalled.nonzero()[0])
            k = int((lost & shows).flatten(1)[i].nonzero()[0])
            size = float((drift + noise).flatten(1)[i, k])
            at = float(x.flatten(1)[i, k])
            cure = "float64 states, x0.double()," if x.dtype == torch.float32 else "larger steps"
            warnings.warn(
                f"rounding takes increments away: at x = {at:g} a step of {dt:.3g} adds "
                f"{size:.2g}, and {x.dtype} resolves {float(last_bit.flatten(1)[i, k]) * 2:.2g}; "
                f"pass {cure} or take the large offset out of x.",
                AccuracyWarning,
                stacklevel=stacklevel,
            )
            return
