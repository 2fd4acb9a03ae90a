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
solvers that choose their own steps; nor of noise that is not diagonal. Where ends absorb, the
trajectories that no end has met are looked at.

The same place sees a state that rounds its increments away: x + dt f = x in float32.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.bounds import values_of
from sdegen.core.enclosure import Enclosure
from sdegen.core.errors import AccuracyWarning, Interrupted
from sdegen.core.noise import Normals, Stream
from sdegen.core.onestep import OneStep
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import FixedStep, Solver, refine
from sdegen.engine.record import RunOptions
from sdegen.engine.run import solve
from sdegen.solvers.torch_sde import TorchSDE

__all__ = ["Pilot", "check_steps"]

_ROWS = 256
_FEWEST_ROWS = 8  # whose spread is a scale
_NUMBERS = 2**16  # of all rows, at most
_FIRST = 8  # steps of the first stretch; each is as long as all before it
_FEWEST = 64  # steps of the pilot of a run that is long
_CHEAP = 200  # steps of a run that is walked to its end
_OVERHEAD = 2000  # numbers whose arithmetic costs what calling it does
_SHARE, _SECONDS = 0.05, 0.02
_MOVED = 0.1  # of the standard deviation
_ERRORS = 4.0
_EXPLODES = 10.0
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


@dataclass(frozen=True)
class _Verdict:
    """What halving the steps did, up to a node.

    Attributes:
        node: Which.
        moved: By how much the mean or the standard deviation moved, over the standard deviation.
        errors: By how many standard errors.
        what: What moved.
        ratio: Of the largest |x| at the steps to that at half of them; or its inverse.
    """

    node: int
    moved: float
    errors: float
    what: str
    ratio: float

    @property
    def explodes(self) -> bool:
        """Whether the largest |x| is another."""
        return not self.ratio <= _EXPLODES

    @property
    def is_bad(self) -> bool:
        """Whether the steps are too large."""
        return self.explodes or self.errors > 0


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
    single = _single(sde, solver)
    if single is None:
        return None
    own, x = _few_of(sde, x0, trajectories, whole)
    nodes = solver.nodes(times)
    stride = (len(nodes) - 1) // (len(times) - 1)
    walk = _Walk(own, single, x, nodes, noise, boundary, stride)
    try:
        verdict = walk.go(trajectories, whole)
    except Exception:
        return None  # of the user's own drift: the run meets it again, and says in which step
    if verdict is not None and verdict.explodes:
        _tell(walk, verdict, solver, on_nonfinite, stacklevel + 1)
    elif not walk.judged().ratio <= _SETTLED and _diverges(walk):
        _warn_explosion(walk, stacklevel + 1)
    elif verdict is not None and verdict.is_bad:
        _tell(walk, verdict, solver, on_nonfinite, stacklevel + 1)
    else:
        _check_rounding(walk, stacklevel + 1)
    finite = walk.fine.flatten(1).isfinite().all(1) & walk._alive
    t = walk.nodes[walk.reached]
    return Pilot(own.of_rows(finite), walk.fine[finite], t, _step_error(walk, finite))


def _step_error(walk: _Walk, rows: Tensor) -> ErrorEstimate | None:
    """Return twice what halving the steps did to mean and spread, over the std: weak order 1.

    The largest of all coordinates, with a standard error of the difference.
    """
    c, f = (x[rows].flatten(1).double() for x in (walk.coarse, walk.fine))
    n = len(f)
    if n < _FEWEST_ROWS or walk.reached == 0 or not bool(c.isfinite().all()):
        return None
    c0, f0 = c - c.mean(0), f - f.mean(0)
    scale = f0.square().mean(0).sqrt().clamp(min=1e-300)
    of_mean = (c - f).mean(0).abs() + (c - f).std(0) / math.sqrt(n)
    squares = c0.square() - f0.square()
    of_std = (squares.mean(0).abs() + squares.std(0) / math.sqrt(n)) / (2 * scale)
    told = {"mean": 2 * float((of_mean / scale).max()), "std": 2 * float((of_std / scale).max())}
    t = float(walk.nodes[walk.reached])
    return ErrorEstimate(told, f"half steps up to t = {t:g}")


def _single(sde: SDE, solver: Solver) -> Solver | None:
    """Return the solver with one step between two times; None where there is no pilot."""
    if not sde.halves_steps or sde.is_discrete or sde.denoising is not None:
        return None
    if sde.noise_structure != "diagonal":  # its draws need not be those that two walks share
        return None
    if isinstance(solver, OneStep):
        return replace(solver, substeps=1, compile=False)
    if isinstance(solver, TorchSDE) or (isinstance(solver, FixedStep) and not solver.ends_at_data):
        return replace(solver, substeps=1)
    return None


def _few_of(sde: SDE, x0: State, trajectories: int, whole: bool) -> tuple[SDE, State]:
    """Return the dynamics and the starts of the trajectories that are walked.

    A few hundred, evenly over all of them, and with repetitions where there are fewer and noise.
    """
    if whole:
        return sde, x0
    most = max(16, min(_ROWS, _NUMBERS // max(1, x0[0].numel())))
    count = min(most, trajectories) if sde.noise == "none" else most
    spread = torch.arange(count, device=x0.device)
    starts, rows = (
        spread * n // count if n >= count else spread % n for n in (len(x0), trajectories)
    )
    return sde.of_rows(rows), x0[starts]


class _Walk:
    """The two walks of a pilot.

    Attributes:
        stride: Every so many nodes there is a state that somebody sees.
        coarse: States at the steps of the run.
        fine: States at half of them.
        reached: The node at which they are.
        is_lost: Whether the steps of the run had left the finite numbers before it.
    """

    def __init__(
        self,
        sde: SDE,
        solver: Solver,
        x: State,
        nodes: Tensor,
        noise: Stream,
        boundary: Enclosure | None,
        stride: int,
    ) -> None:
        self.sde, self.solver, self.x, self.nodes = sde, solver, x, nodes
        self.stride = stride
        self.coarse = self.fine = x
        self.reached = 0
        self._noise = noise
        self.boundary = boundary
        # what goes around is not brought back: its drift is periodic too, and it has a mean and a
        # spread. Nor is what is absorbed: it is left out
        reflecting = self._absorbing = None
        if boundary is not None:
            reflecting = boundary.only(lambda one: not (one.absorbs or one.wraps))
            self._absorbing = boundary.only(lambda one: one.absorbs)
        self._options = RunOptions(reflecting, "raise" if self._absorbing is None else "freeze")
        self._alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self._scale = torch.zeros(())
        self._largest = [_largest(x), _largest(x)]
        self.is_lost = False

    def go(self, trajectories: int, whole: bool) -> _Verdict | None:
        """Walk as far as it is cheap; the verdict at the end, or where it is a bad one."""
        steps, cost = len(self.nodes) - 1, self._cost()
        run = cost * steps * (1.0 if whole else self._times_more(trajectories))
        least = max(_SHARE * run, _SECONDS)
        most = min(steps, self._most(steps, trajectories, whole))
        verdict, spent = None, 0.0
        length = min(_FIRST, most)
        while self.reached < most and spent + 3 * length * cost <= least:
            start = time.thread_time()
            verdict = self._stretch(self._next(length, most))
            spent += time.thread_time() - start
            if verdict.explodes or not self._finite() or (verdict.is_bad and self._seen()):
                return verdict
            length = max(self.reached, 1)
        return verdict if self._settled() else None

    def _next(self, length: int, most: int) -> int:
        """Return where the next stretch ends: with a state that is seen, where it is that long."""
        end = min(most, self.reached + length)
        seen = end - end % self.stride
        return seen if seen > self.reached else end

    def _settled(self) -> bool:
        """Return whether moments can be judged: after a few steps, or at the end of all.

        A start at one point has at first the spread of a few steps alone, whatever they are.
        """
        return self.reached >= min(2 * _FIRST, len(self.nodes) - 1)

    def _seen(self) -> bool:
        """Return whether moments can be judged, and are those of a state that is seen."""
        return self._settled() and self.reached % self.stride == 0

    def suffices(self) -> bool:
        """Walk to the end and return whether the steps do everywhere, with a margin."""
        last = len(self.nodes) - 1
        while self.reached < last:
            found = self._stretch(self._next(max(self.reached, _FIRST), last))
            judged = self._seen() or self.reached == last
            # or what is advised would be warned of by chance
            moved = judged and self._moved(_MOVED / 2, 1.0)[1] > 0
            if found.explodes or moved or not self._finite():
                return False
        return True

    def _cost(self) -> float:
        """Return the seconds that an evaluation takes."""
        seconds = []
        for _ in range(2):  # the first may warm up
            start = time.thread_time()
            self.sde.drift(self.x, self.nodes[0])
            if self.sde.constant_noise is None:
                self.sde.diffusion(self.x, self.nodes[0])
            seconds.append(time.thread_time() - start)
        return min(seconds)

    def _times_more(self, trajectories: int) -> float:
        """Return how many times as dear a step of the run is."""
        each = self.x[0].numel()
        return (trajectories * each + _OVERHEAD) / (self.x.numel() + _OVERHEAD)

    def _most(self, steps: int, trajectories: int, whole: bool) -> int:
        """Return how many steps cost 5 % of the run, or little."""
        if steps <= _CHEAP and self.x.numel() <= _NUMBERS:
            return steps
        more = 1.0 if whole else self._times_more(trajectories)
        share = int(_SHARE * steps * more / 3)
        return max(share, _FEWEST) if self.x.numel() <= _NUMBERS else share

    def _finite(self) -> bool:
        """Return whether both walks are."""
        alive = self._alive
        return bool(self.coarse[alive].isfinite().all() & self.fine[alive].isfinite().all())

    def _stretch(self, end: int) -> _Verdict:
        """Take both walks on to a node."""
        nodes = self.nodes[self.reached : end + 1]
        halves = refine(nodes, 2)
        normals: Tensor | None = None
        if self.solver.is_stochastic(self.sde):
            shape = (2 * (len(nodes) - 1), *self.x.shape)
            normals = self._noise.normal(shape, dtype=self.x.dtype, device=self.x.device)
        summed = None if normals is None else (normals[0::2] + normals[1::2]) * 0.5**0.5
        coarse = self._solved(self.coarse, nodes, summed)
        fine = self._solved(self.fine, halves, normals)
        self.is_lost |= len(coarse) < len(nodes) or not bool(coarse[-1].isfinite().all())
        if self._absorbing is not None:
            self._alive &= _inside(self._absorbing, coarse, nodes)
            self._alive &= _inside(self._absorbing, fine, halves)
        self._largest = [
            max(largest, _largest(states[:, self._alive]))
            for largest, states in zip(self._largest, (coarse, fine), strict=True)
        ]
        self.reached = end
        self.coarse, self.fine = coarse[-1], fine[-1]
        return self.judged()

    def _solved(self, x: State, nodes: Tensor, normals: Tensor | None) -> Tensor:
        """Return the states at nodes, as far as they are finite."""
        given = None if normals is None else _Given(normals, self._noise)
        solved = solve(
            self.sde, self.solver, x, nodes, noise=given, keep_path=True, options=self._options
        )
        if solved.interrupted_at is not None:  # the solver holds a Ctrl-C until its step has ended
            raise Interrupted("interrupted before the first step.")
        return solved.states

    def judged(self) -> _Verdict:
        """Return what halving the steps has done."""
        low, high = sorted(self._largest)
        ratio = high / low if low > 0 else (math.inf if high > 0 else 1.0)
        moved, errors, what = self._moved()
        return _Verdict(self.reached, moved, errors, what, ratio)

    def _moved(self, allowed: float = _MOVED, errors: float = _ERRORS) -> tuple[float, float, str]:
        """Return by how much mean or standard deviation moved, and 0 errors where by little."""
        both = self.coarse.flatten(1).isfinite().all(1) & self.fine.flatten(1).isfinite().all(1)
        both &= self._alive
        c, f = (x[both].flatten(1).double() for x in (self.coarse, self.fine))
        n = len(c)
        if n < _FEWEST_ROWS:
            return 0.0, 0.0, ""
        c0, f0 = c - c.mean(0), f - f.mean(0)
        std_c, std_f = c0.square().mean(0).sqrt(), f0.square().mean(0).sqrt()
        scale = std_f
        if self.sde.noise == "none":  # where a flow contracts, what is left is no scale
            scale = self._scale = torch.maximum(self._scale.to(scale), std_f)
        kept = scale > 1e-6 * f.abs().mean(0)
        tests = 2 * int(kept.sum())
        if tests == 0:
            return 0.0, 0.0, ""
        gap = c - f
        of_mean = gap.mean(0).abs()
        error_of_mean = gap.std(0) / math.sqrt(n)
        squares = c0.square() - f0.square()
        of_std = (std_c - std_f).abs()
        error_of_std = squares.std(0) / math.sqrt(n) / (std_c + std_f).clamp(min=1e-300)
        # of many coordinates one is four errors off by chance
        needed = math.sqrt(errors**2 + 2 * math.log(max(1.0, tests / 4)))
        worst = (0.0, 0.0, "")
        for name, change, error in (
            ("mean", of_mean, error_of_mean),
            ("standard deviation", of_std, error_of_std),
        ):
            share = torch.where(kept, change / scale, torch.zeros_like(scale))
            sure = share * (change > needed * error)
            k = int(sure.argmax())
            if float(sure[k]) > max(allowed, worst[0]):
                times = float(change[k] / error[k]) if float(error[k]) > 0 else math.inf
                where = f" of coordinate {k}" if len(share) > 1 else ""
                worst = (float(share[k]), times, f"the {name}{where}")
        return worst


class _Given(Stream):
    """A stream that hands out normals that are there already."""

    def __init__(self, normals: Tensor, beyond: Stream) -> None:
        super().__init__(0)
        self._normals, self._beyond = normals, beyond

    def normals(
        self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Normals:
        """Return them step by step."""
        return _GivenNormals(self._normals, self._beyond, shape, dtype, torch.device(device))


class _GivenNormals(Normals):
    """Normals that are there already; what a step draws beyond them is fresh."""

    def __init__(
        self,
        normals: Tensor,
        beyond: Stream,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(beyond, shape, dtype, device)
        self._given = normals.reshape(len(normals), *shape)

    def each(self, *, recycled: bool = False) -> Iterator[Tensor]:
        """Return them, and then fresh ones."""
        yield from self._given.unbind()
        yield from super().each(recycled=False)


def _inside(boundary: Enclosure, states: Tensor, times: Tensor) -> Tensor:
    """Return which rows lay inside at all the times, shape (n,).

    Args:
        boundary: Ends that absorb.
        states: Shape (T, n, *event).
        times: Shape (T,).
    """
    flat = states.flatten(2)
    inside = torch.ones(flat.shape[1], dtype=torch.bool, device=flat.device)
    for coordinates, interval in boundary.parts:
        some = flat[..., list(boundary.columns(coordinates))]
        for end, sign in ((interval.low, 1.0), (interval.high, -1.0)):
            if end is not None:
                at = values_of(end.at, times).to(flat)[:, None, None]
                inside &= (sign * (some - at) > 0).all(2).all(0)
    return inside


def _largest(states: Tensor) -> float:
    """Return the largest |x|, infinite if one is; NaN is none."""
    if states.numel() == 0:
        return 0.0
    return float(states.detach().abs().nan_to_num(nan=0.0, posinf=math.inf).max())


def _tell(
    walk: _Walk,
    verdict: _Verdict,
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
            _warn_explosion(walk, stacklevel)
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
    warnings.warn(text, AccuracyWarning, stacklevel=stacklevel + 1)


def _halvings(walk: _Walk, verdict: _Verdict) -> int | None:
    """Return how often steps must be halved until halving them changes little; None if not found.

    Explosions are looked at over the stretch on which they showed.
    """
    nodes = walk.nodes[: verdict.node + 1]
    noise, boundary = walk._noise, walk.boundary
    spent = 0
    for k in range(1, _HALVINGS + 1):
        nodes = refine(nodes, 2)
        spent += 3 * (len(nodes) - 1)
        if spent > _SEARCHED:
            break
        again = _Walk(walk.sde, walk.solver, walk.x, nodes, noise, boundary, walk.stride * 2**k)
        if again.suffices():
            return k
    if verdict.explodes:
        return None
    # the error of the step falls at least in proportion to it
    return max(1, math.ceil(math.log2(verdict.moved / _MOVED)))


def _diverges(walk: _Walk) -> bool:
    """Return whether the largest |x| grows on however often steps are halved."""
    nodes, spent = walk.nodes[: walk.reached + 1], 0
    for k in range(1, _HALVINGS + 1):
        nodes = refine(nodes, 2)
        spent += 3 * (len(nodes) - 1)
        if spent > _SEARCHED and k > _SURE:
            break
        again = _Walk(
            walk.sde, walk.solver, walk.x, nodes, walk._noise, walk.boundary, walk.stride * 2**k
        )
        if again._stretch(len(nodes) - 1).ratio <= _SETTLED:
            return False
    return not walk.is_lost  # or the run says where


def _warn_explosion(walk: _Walk, stacklevel: int) -> None:
    """Warn of a solution that leaves the numbers in finite time, where the run does not."""
    coarse, fine = walk._largest
    warnings.warn(
        f"{type(walk.sde).__name__} seems to explode before t = "
        f"{float(walk.nodes[walk.reached]):g}: the largest |x| up to there is {coarse:.3g} at the "
        f"steps of this run, {fine:.3g} at half of them, and does not settle however often they "
        "are halved. End the run before that t; where the solution does not explode, take steps "
        "that are shorter still.",
        AccuracyWarning,
        stacklevel=stacklevel + 1,
    )


def _check_rounding(walk: _Walk, stacklevel: int) -> None:
    """Warn where rounding takes most of the increments, at the start or at the pilot's end.

    An increment d of x is rounded to multiples of x's last bit u: without noise of that size a
    d < 5u loses 10 % of itself and a d < u/2 all, in every step to the same side.
    """
    steps = len(walk.nodes) - 1
    dt = float(walk.nodes.diff().abs().mean())
    for x, t in ((walk.x, walk.nodes[0]), (walk.fine, walk.nodes[walk.reached])):
        last_bit = torch.finfo(x.dtype).eps * 0.5 * x.abs()
        drift = dt * walk.sde.drift(x, t).abs()
        noise = dt**0.5 * walk.sde.diffusion(x, t).to(x).abs().expand_as(x)
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
                stacklevel=stacklevel + 1,
            )
            return
