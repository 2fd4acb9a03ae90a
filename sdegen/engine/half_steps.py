"""Half steps: the two walks of a pilot, at the steps of a run and at half of them.

Both take the same Brownian path: with z₁, z₂ for two steps of h/2, the step of h takes
(z₁ + z₂)/√2. A solver that takes more of the path gets for the step of h what Chen's relation
makes of the two (`core/levy_areas.py`). What halving has done is judged by the moments and by the
largest |x| (`pilot.py` has the page).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from sdegen.core.bounds import values_of
from sdegen.core.enclosure import Enclosure
from sdegen.core.errors import Interrupted
from sdegen.core.fixed_steps import refine
from sdegen.core.noise import Noise, Normals, Stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.step_noise import shared
from sdegen.engine.blocks import solve
from sdegen.engine.record import RunOptions
from sdegen.solvers.torch_sde import TorchSDE

NUMBERS = 2**16  # of all rows, at most
FEWEST_ROWS = 8  # whose spread is a scale
MOVED = 0.1  # of the standard deviation
_FIRST = 8  # steps of the first stretch; each is as long as all before it
_FEWEST = 64  # steps of the pilot of a run that is long
_CHEAP = 200  # steps of a run that is walked to its end
_OVERHEAD = 2000  # numbers whose arithmetic costs what calling it does
_SHARE, _SECONDS = 0.05, 0.02
_ERRORS = 4.0
_EXPLODES = 10.0


@dataclass(frozen=True)
class Verdict:
    """What halving the steps did, up to a node.

    Attributes:
        node: Which.
        moved: By how much the mean or the standard deviation moved, over the standard deviation.
        errors: By how many standard errors.
        what: What moved.
        ratio: Of the largest |x| at the steps to that at half of them; or its inverse.
        explodes: Whether the largest |x| is another.
        is_bad: Whether the steps are too large.
    """

    node: int
    moved: float
    errors: float
    what: str
    ratio: float
    explodes: bool
    is_bad: bool


class HalvedWalk:
    """The two walks of a pilot.

    Args:
        sde: What moves.
        solver: How it moves.
        x: States at nodes[0].
        nodes: Times at which the run's steps begin and end.
        noise: Stream of the pilot.
        boundary: What the states are kept inside of.
        stride: Every so many nodes there is a state that somebody sees.

    Attributes:
        coarse: States at the steps of the run.
        fine: States at half of them.
        alive: Which trajectories no end has absorbed.
        reached: The node at which they are.
        verdict: What halving has done up to there; None before the first step.
        largest: Largest |x| of either walk so far.
        finite: Whether both walks are.
        settled: Whether moments can be judged: after a few steps, or at the end of all. A start
            at one point has at first the spread of a few steps alone, whatever they are.
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
        self.sde: SDE = sde
        self.solver: Solver = solver
        self.x: State = x
        self.nodes: Tensor = nodes
        self.noise: Stream = noise
        self.boundary: Enclosure | None = boundary
        self.stride: int = stride
        self.coarse: State = x
        self.fine: State = x
        self.reached: int = 0
        self.last: int = len(nodes) - 1
        # what goes around is not brought back: its drift is periodic too, and it has a mean and a
        # spread. Nor is what is absorbed: it is left out
        reflecting = self._absorbing = None
        if boundary is not None:
            reflecting = boundary.only(lambda one: not (one.absorbs or one.wraps))
            self._absorbing = boundary.only(lambda one: one.absorbs)
        self._options = RunOptions(reflecting, "raise" if self._absorbing is None else "freeze")
        self.alive: Tensor = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self._scale = torch.zeros(())
        self.largest: tuple[float, ...] = (_largest(x),) * 2
        self.verdict: Verdict | None = None
        self.is_lost: bool = False
        self.finite: bool = True
        self.settled: bool = False

    def go(self, trajectories: int, whole: bool) -> Verdict | None:
        """Walk as far as it is cheap; return the verdict at the end, or where it is a bad one."""
        cost, steps, count = self._cost(), self.last, self.x.numel()
        # how many times as dear a step of the run is
        each = self.x[0].numel()
        more = 1.0 if whole else (trajectories * each + _OVERHEAD) / (count + _OVERHEAD)
        seconds, most = max(_SHARE * cost * steps * more, _SECONDS), steps
        if steps > _CHEAP or count > NUMBERS:
            share = int(_SHARE * steps * more / 3)
            most = min(steps, max(share, _FEWEST) if count <= NUMBERS else share)
        spent, length = 0.0, min(_FIRST, most)
        while self.reached < most and spent + 3 * length * cost <= seconds:
            start = time.thread_time()
            verdict = self.stretch(self._next(length, most))
            spent += time.thread_time() - start
            if self.solver.needs:  # whose steps cost more than what they evaluate
                cost = spent / (3 * self.reached)
                seconds = max(_SHARE * cost * steps * more, _SECONDS)
            if verdict.explodes or not self.finite or (verdict.is_bad and self._seen()):
                return verdict
            length = max(self.reached, 1)
        return self.verdict if self.settled else None

    def _next(self, length: int, most: int) -> int:
        """Return where the next stretch ends: with a state that is seen, where it is that long."""
        end = min(most, self.reached + length)
        seen = end - end % self.stride
        return seen if seen > self.reached else end

    def _seen(self) -> bool:
        """Return whether moments can be judged, and are those of a state that is seen."""
        return self.settled and self.reached % self.stride == 0

    def suffices(self) -> bool:
        """Walk to the end and return whether the steps do everywhere, with a margin."""
        while self.reached < self.last:
            verdict = self.stretch(self._next(max(self.reached, _FIRST), self.last))
            judged = self._seen() or self.reached == self.last
            # or what is advised would be warned of by chance
            moved = judged and self._moved(MOVED / 2, 1.0)[1] > 0
            if verdict.explodes or moved or not self.finite:
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

    def stretch(self, end: int) -> Verdict:
        """Take both walks on to a node."""
        nodes = self.nodes[self.reached : end + 1]
        halves = refine(nodes, 2)
        long: Tensor | Noise | None = None
        short: Tensor | Noise | None = None
        if self.solver.is_stochastic(self.sde):
            x, channels, solver = self.x, self.sde.channels, self.solver
            event = tuple(x.shape) if channels is None else (len(x), channels)
            short = self.noise.normal((len(halves) - 1, *event), dtype=x.dtype, device=x.device)
            if solver.needs or (isinstance(solver, TorchSDE) and solver.takes_integral):
                short, long = shared(_GivenNoise(short, self.noise, channels), halves)
            else:
                long = (short[0::2] + short[1::2]) * 0.5**0.5
        coarse = self._solved(self.coarse, nodes, long)
        fine = self._solved(self.fine, halves, short)
        self.is_lost |= len(coarse) < len(nodes) or not bool(coarse[-1].isfinite().all())
        if self._absorbing is not None:
            self.alive &= _inside(self._absorbing, coarse, nodes)
            self.alive &= _inside(self._absorbing, fine, halves)
        self.largest = (
            max(self.largest[0], _largest(coarse[:, self.alive])),
            max(self.largest[1], _largest(fine[:, self.alive])),
        )
        self.reached = end
        self.settled = end >= min(2 * _FIRST, self.last)
        self.coarse = coarse[-1]
        self.fine = fine[-1]
        both = self.coarse[self.alive].isfinite().all() & self.fine[self.alive].isfinite().all()
        self.finite = bool(both)
        low, high = sorted(self.largest)
        ratio = high / low if low > 0 else (math.inf if high > 0 else 1.0)
        moved, errors, what = self._moved()
        explodes = not ratio <= _EXPLODES
        self.verdict = Verdict(end, moved, errors, what, ratio, explodes, explodes or errors > 0)
        return self.verdict

    def _solved(self, x: State, nodes: Tensor, noise: Tensor | Noise | None) -> Tensor:
        """Return the states at nodes, as far as they are finite."""
        if isinstance(noise, Tensor):
            jumps = self.noise
            if self.sde.jumps is not None:
                # of one key in both walks and another in each stretch: jumps are shared too
                jumps = Stream(self.noise.key ^ (self.reached + 1))
            noise = _GivenNoise(noise, self.noise, self.sde.channels, jumps)
        solved = solve(
            self.sde, self.solver, x, nodes, noise=noise, keep_path=True, options=self._options
        )
        if solved.interrupted_at is not None:  # the solver holds a Ctrl-C until its step has ended
            raise Interrupted("interrupted before the first step.")
        return solved.states

    def _moved(self, allowed: float = MOVED, errors: float = _ERRORS) -> tuple[float, float, str]:
        """Return by how much mean or standard deviation moved, and 0 errors where by little."""
        both = self.coarse.flatten(1).isfinite().all(1) & self.fine.flatten(1).isfinite().all(1)
        both &= self.alive
        c, f = (x[both].flatten(1).double() for x in (self.coarse, self.fine))
        n = len(c)
        if n < FEWEST_ROWS:
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
                where = f" of {_named(k, self.x, self.sde)}" if len(share) > 1 else ""
                worst = (float(share[k]), times, f"the {name}{where}")
        return worst


class _GivenNoise(Noise):
    """Normals that are there already, one for each step; what is drawn beyond them is fresh.

    Args:
        normals: Shape (steps, batch, *event), or (steps, batch, channels).
        beyond: Stream of what is drawn beyond them.
        channels: As `Noise` has it.
        jumps: Stream whose key jumps are found by; None takes `beyond`.
    """

    shared = True

    def __init__(
        self,
        normals: Tensor,
        beyond: Stream,
        channels: int | None,
        jumps: Stream | None = None,
    ) -> None:
        self.stream, self.channels = jumps or beyond, channels
        fresh = Normals(beyond, tuple(normals.shape[1:]), normals.dtype, normals.device)
        self.normal = chain(normals.unbind(), fresh.each()).__next__


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


def _named(k: int, x: State, sde: SDE) -> str:
    """Return what number k of a state is."""
    half = x[0].numel() // 2
    if not sde.phase_space:
        return f"coordinate {k}"
    return f"velocity {k - half}" if k >= half else f"position {k}"


def _largest(states: Tensor) -> float:
    """Return the largest |x|, infinite if one is; NaN is none."""
    if states.numel() == 0:
        return 0.0
    return float(states.detach().abs().nan_to_num(nan=0.0, posinf=math.inf).max())
