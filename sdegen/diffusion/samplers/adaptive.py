"""Adaptive Euler–Heun: each trajectory has its own step size, and its own error test.

Both ends of a step are evaluated, as in `Heun`. What Heun's state differs from Euler's is the
error estimate; per trajectory, with the root mean square over its coordinates,

    E = ‖(x_Heun − x_Euler)/(atol + rtol max(|x|, |x_Heun|))‖,     h ← h min(5, 0.9 E^{−1/2})

A step with E ≤ 1 is taken, with Heun's state. One with E > 1 is halved. The noise of what was
tried must not be thrown away then: rejections depend on it, and fresh draws would favour small
ones. So the Brownian increment is split by a bridge,

    W(h/2) | W(h) ~ N(W(h)/2, h/4),

the first half is tried next, and the second one waits until its turn has come. A trajectory walks
one Brownian path, whatever is rejected on it. (Jolicoeur-Martineau et al. draw afresh after a
rejection, with which the law depends on what the test rejects.)

Where E is not finite it counts as > 1. So that halving ends, also next to a time at which the
score begins to be NaN, a step shorter than a few roundings of t makes a trajectory a lost one.

How many evaluations a run takes is not known beforehand, and whether another is needed has to be
asked of the device after each: unlike fixed steps, this does synchronise with the host. All
trajectories of a block are evaluated together; those that have arrived wait.

References:
    Jolicoeur-Martineau et al. 2021, algorithm 1, arXiv:2105.14080, for the pair and its use on
    reverse SDEs, there with fresh draws; Gaines and Lyons 1997, SIAM J. Appl. Math. 57, section 4,
    for the bridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.failure import Failure
from sdegen.core.noise import Noise, normal_like
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, expand
from sdegen.core.update import diffuse, update
from sdegen.diffusion.samplers.base import DiffusionSolver, Stepped

_SHORTEST = 4  # roundings of t, in the precision in which the score is told it
_GROWTH, _SAFETY = 5.0, 0.9


@dataclass(frozen=True)
class AdaptiveHeun(DiffusionSolver):
    """Euler–Heun with an error test for each trajectory; two evaluations a try.

        E = ‖(x_Heun − x_Euler)/(atol + rtol max(|x|, |x_Heun|))‖ ≤ 1
        h ← h min(5, 0.9 E^{−1/2}) after a step that is taken, h/2 after a refusal

    For reverse dynamics of a Gaussian path, whose score takes one time for each trajectory, shape
    (batch,). The norm is the root mean square over the coordinates of a trajectory.

    Args:
        rtol: Relative tolerance of a step, > 0.
        atol: Absolute tolerance of a step, > 0.

    Raises:
        ValueError: If a tolerance is not finite and > 0.

    Reference:
        Jolicoeur-Martineau et al. 2021, algorithm 1, arXiv:2105.14080, with another noise after a
        rejection.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> end = sg.simulate(flow, x_T, [3.0, 1.0], solver=sg.AdaptiveHeun(1e-4, 1e-4)).final
        >>> f"{end.item():.2f}"  # 10 √(2/10)
        '4.47'
    """

    rtol: float = 1e-2
    atol: float = 1e-2

    chooses_steps: ClassVar[bool] = True
    when: ClassVar[str] = (
        "Samples of a score to a tolerance; each trajectory chooses its steps for itself."
    )
    asks_for: ClassVar[str] = "a score that takes one time for each trajectory"

    def __post_init__(self) -> None:
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory:
        """Return the memory of a run: its times, and no trajectories yet."""
        return _Memory(nodes.tolist())

    def step(self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory) -> Stepped:
        """Go from nodes[i] to nodes[i + 1], in steps that each trajectory chooses for itself."""
        start, end = memory.times[i], memory.times[i + 1]
        run = memory.run
        if run is None:
            run = memory.run = _Run(self, sde, x, memory.times, noise)
        run.x = x
        run.go(start, end)
        if bool(run.lost.any()):
            memory.failure = Failure(run.lost, self._why(run, start, end), end)
        return run.x, memory

    def failure(self, memory: _Memory) -> Failure | None:
        """Return which trajectories found no step that would do."""
        return memory.failure

    def _why(self, run: _Run, start: float, end: float) -> str:
        """Return the message about a block that has lost trajectories."""
        first = int(run.lost.nonzero()[0])
        t, number = float(run.t[first]), f"{int(run.lost.sum())} of {len(run.lost)} trajectories"
        if bool(run.blind[first]):
            return (
                f"{number} could not go on between t = {start:g} and {end:g}: the score or the "
                f"state is not finite next to t = {t:g}, where the first of them stopped, however "
                "short the step. Look at what the network returns there, or end the times before."
            )
        return (
            f"{number} found no step between t = {start:g} and {end:g} that would do at rtol = "
            f"{self.rtol:g} and atol = {self.atol:g}: the first of them stopped at t = {t:g}, "
            "where a step would be too short for the precision of t. Take larger tolerances."
        )


@dataclass
class _Memory:
    """What a run remembers between two times.

    Attributes:
        times: The nodes.
        run: Where the trajectories are, once there are any.
        failure: Which of them were given up, if any.
    """

    times: list[float]
    run: _Run | None = None
    failure: Failure | None = None


class _Run:
    """Where the trajectories of a block are, the steps they try, and the noise that they know."""

    def __init__(
        self, solver: AdaptiveHeun, sde: SDE, x: State, times: list[float], noise: Noise | None
    ) -> None:
        n, device = len(x), x.device
        self.solver: AdaptiveHeun = solver
        self.sde: SDE = sde
        self.noise: Noise | None = noise
        self.x: State = x
        self.t: Tensor = torch.full((n,), times[0], dtype=torch.float64, device=device)
        self.h: Tensor = torch.full_like(self.t, 0.01 * abs(times[-1] - times[0]))
        self.w: Tensor = torch.zeros_like(x)
        self.lost: Tensor = torch.zeros(n, dtype=torch.bool, device=device)
        self.blind: Tensor = self.lost  # whether the last try had no finite error
        # halves that wait: their lengths and increments, one level for each halving
        self.waiting: list[tuple[Tensor, State]] = []
        self.depth: Tensor = torch.zeros(n, dtype=torch.long, device=device)

    def go(self, start: float, end: float) -> None:
        """Take every trajectory from one time to the next."""
        sense, least = (1.0 if end > start else -1.0), 1e-12 * abs(end - start)
        preferred = self.h
        self._begin(torch.minimum(preferred, torch.full_like(self.h, abs(end - start))))
        while True:
            active = ((end - self.t).abs() > least) & ~self.lost
            if not bool(active.any()):  # the host waits for the device here
                break
            self.h = torch.where(active, self.h, 0.0)
            ahead, error = self._attempt(sense, min(start, end), max(start, end))
            taken = active & (error <= 1.0)
            self.x = torch.where(_rows(taken, ahead), ahead, self.x)
            self.t = torch.where(taken, self.t + sense * self.h, self.t)
            self.blind = torch.where(active, error.isinf(), self.blind)
            wish = self.h * (_SAFETY * error.clamp(min=1e-12).rsqrt()).clamp(max=_GROWTH)
            fresh = taken & (self.depth == 0)
            # a step that the end of the interval has cut says nothing against longer ones
            wish = torch.where(self.h < preferred, torch.maximum(wish, preferred), wish)
            refused = active & ~taken
            preferred = torch.where(fresh, wish, preferred)
            preferred = torch.where(refused, torch.minimum(preferred, self.h), preferred)
            left = (end - self.t).abs()
            self._next(refused, taken, torch.minimum(preferred, left), fresh)
        self.t = torch.where(self.lost, self.t, end)
        self.h = preferred

    def _attempt(self, sense: float, low: float, high: float) -> tuple[State, Tensor]:
        """Return Heun's state after the tried step, and its error E."""
        x, w = self.x, self.w
        t, s = self.t, (self.t + sense * self.h).clamp(low, high)
        t, s, dt = t.to(x), s.to(x), expand((sense * self.h).to(x), x)
        f, g = self.sde.drift(x, t), self.sde.diffusion(x, t)
        one = dt.new_ones(())  # w has the length of the step already
        euler = diffuse(update(x, f, dt), w, one, g)
        f = 0.5 * (f + self.sde.drift(euler, s))
        heun = diffuse(update(x, f, dt), w, one, 0.5 * (g + self.sde.diffusion(euler, s)))
        scale = self.solver.atol + self.solver.rtol * torch.maximum(x.abs(), heun.abs())
        error = ((heun - euler) / scale).flatten(1).square().mean(1).sqrt()
        # step sizes are numbers: a gradient of theirs would miss the times and the noise of a step
        error = error.detach()
        return heun, error.to(self.t).nan_to_num(nan=float("inf"), posinf=float("inf"))

    def _begin(self, h: Tensor) -> None:
        """Begin a step of length h for all, with none of its noise drawn."""
        self.h, self.w = h, self._normal() * expand(h.sqrt().to(self.x), self.x)
        self.depth = torch.zeros_like(self.depth)  # what waited was shorter than a rounding

    def _next(self, refused: Tensor, taken: Tensor, wish: Tensor, fresh: Tensor) -> None:
        """Set the next tries: first halves of refused steps, waiting halves, and new steps."""
        z, x = self._normal(), self.x
        half = 0.5 * self.h
        first = 0.5 * self.w + expand((0.5 * self.h.sqrt()).to(x), x) * z
        shortest = _SHORTEST * torch.finfo(x.dtype).eps * self.t.abs()
        self.lost = self.lost | (refused & (half < shortest))
        refused = refused & ~self.lost
        if bool(refused.any()) and len(self.waiting) <= int(self.depth[refused].max()):
            self.waiting.append((torch.zeros_like(self.h), torch.zeros_like(x)))
        h = torch.where(refused, half, torch.where(fresh, wish, self.h))
        w = torch.where(_rows(refused, x), first, self.w)
        w = torch.where(_rows(fresh, x), expand(wish.sqrt().to(x), x) * z, w)
        back = taken & ~fresh
        for level, (length, increment) in enumerate(self.waiting):
            put, get = refused & (self.depth == level), back & (self.depth == level + 1)
            h = torch.where(get, length, h)
            w = torch.where(_rows(get, x), increment, w)
            rest = torch.where(_rows(put, x), self.w - first, increment)
            self.waiting[level] = (torch.where(put, half, length), rest)
        self.depth = self.depth + refused.long() - back.long()
        self.h = h
        self.w = w

    def _normal(self) -> State:
        """Return z ~ N(0, I), or 0 where the noise is off."""
        if self.noise is None:
            return torch.zeros_like(self.x)
        return normal_like(self.x, self.noise.stream)


def _rows(mask: Tensor, x: State) -> Tensor:
    """Return one bool for each trajectory, broadcastable to x."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - 1))
