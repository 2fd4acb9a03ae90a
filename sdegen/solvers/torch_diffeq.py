"""torchdiffeq as a solver: noise-free dynamics with steps of its own choice.

One step size serves all trajectories. torchdiffeq is made to stop at every time (`step_t`):
otherwise it steps past the last time and interpolates back, and asks for the score below t_min.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torchdiffeq
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS  # what the installed version has

from sdegen.checks import check_positive
from sdegen.interrupt import HeldInterrupt
from sdegen.noise import Stream
from sdegen.requests import is_word
from sdegen.sde.base import SDE, Counter
from sdegen.shapes import State
from sdegen.solvers.base import Conditions, Solution, Solver
from sdegen.solvers.progress import TRIES, Progress

__all__ = ["TorchDiffEq"]

_ADAPTIVE = ("dopri5", "dopri8", "tsit5", "bosh3", "fehlberg2", "adaptive_heun")

# Steps grow at most by this factor. torchdiffeq's own is 10: after a step of 1 that was cut at a
# time, one of 10 may end on the next by itself; it then looks for no further time, and runs past
# the last.
_GROWTH = 9.8765432101234567


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """An adaptive Runge-Kutta method of torchdiffeq; noise-free dynamics, either sense of time.

    Steps are chosen so that the local error, in the root mean square over all trajectories, stays
    below atol + rtol |x|. One step size serves the whole batch: a trajectory's last digits depend
    on its batch mates, and one that explodes stops all.

    Args:
        method: "dopri5", "dopri8", "bosh3", "fehlberg2" or "adaptive_heun"; also "tsit5" where
            the installed torchdiffeq has it.
        rtol: Relative tolerance, > 0.
        atol: Absolute tolerance, > 0, in units of the state.

    Raises:
        ValueError: If the method is not one of these, or a tolerance is not finite and > 0.

    Reference:
        Chen 2018, github.com/rtqichen/torchdiffeq; for "dopri5", Dormand and Prince 1980.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5

    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        there = [name for name in _ADAPTIVE if name in SOLVERS]
        if not is_word(self.method, there):
            hint = ""
            if is_word(self.method, SOLVERS):
                hint = "; for fixed steps take Heun(substeps=…) or EulerMaruyama(substeps=…)"
            names = ", ".join(map(repr, there))
            raise ValueError(f"method must be one of {names}, but is {self.method!r}{hint}.")
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuses noisy dynamics."""
        super().check(sde, nodes)
        if sde.noise != "none":
            raise ValueError(
                f"TorchDiffEq solves noise-free dynamics, but {type(sde).__name__} is noisy: take "
                "ReverseSDE(sde, score, eta=0.0), the probability flow, or TorchSDE('srk')."
            )

    def solve(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        *,
        noise: Stream | None,
        keep_path: bool,
        conditions: Conditions = Conditions(),  # noqa: B008 (it is frozen)
    ) -> Solution:
        """Solves with one call of `torchdiffeq.odeint`; see `Solver.solve`.

        Raises:
            ValueError: If on_nonfinite is "freeze".
        """
        assert noise is None  # check() saw to it
        assert conditions.boundary is None  # the door saw to it
        assert conditions.see is None  # whoever asks looks at shows_steps first
        assert conditions.watch is None
        if conditions.on_nonfinite == "freeze":
            raise ValueError(
                "TorchDiffEq has one step size for all trajectories and cannot go on without "
                "some of them: use Heun(substeps=…) with on_nonfinite='freeze'."
            )
        counter = Counter()
        flow = _Flow(sde.counted(counter), x0, times, keep_path, conditions.tick)
        step_t = times.to(x0.device)
        try:
            with flow.interrupt:
                states = torchdiffeq.odeint(
                    flow,
                    x0,
                    step_t[[0, -1]],
                    rtol=self.rtol,
                    atol=self.atol,
                    method=self.method,
                    options={"step_t": step_t, "ifactor": _GROWTH, "norm": _size_of_error},
                )
            flow.finish(states[-1])
        except _Cut:
            return flow.solution(counter.calls)
        except _Stuck:
            return flow.solution(counter.calls, self._why(flow))
        return flow.solution(counter.calls)

    def _why(self, flow: _Flow) -> str:
        """What went wrong where, and what to do."""
        lost, largest = flow.lost, f"|x| is up to {flow.largest:.3g}"
        if lost.any():
            what = (
                f"{int(lost.sum())} of {len(lost)} trajectories or their drifts are not finite in "
                f"the step tried from there; {largest}. Solutions may diverge, or a score be "
                "asked too close to t = 0: end before that t"
            )
        elif flow.halted:
            what = (
                f"of {TRIES} steps most were refused, or met a jump of the drift, at rtol = "
                f"{self.rtol:g} and atol = {self.atol:g}; {largest}. A drift that jumps may hold "
                "trajectories where it does: loosen rtol and atol, or take Heun(substeps=…)"
            )
        else:
            what = (
                f"no step that t can resolve meets rtol = {self.rtol:g} and atol = {self.atol:g}; "
                f"{largest}. Solutions may diverge there, where no step helps: end before that t. "
                "Or the drift may jump: loosen rtol and atol, or take Heun(substeps=…)"
            )
        return f"{self.method} could not go on at t = {flow.t:g}: {what}."


def _size_of_error(error: Tensor) -> Tensor:
    """Return torchdiffeq's norm, the root mean square, without a gradient.

    Step sizes follow from it. With a gradient of their own they would carry it into the state but
    not into the time at which the drift is asked, which is a number here: of a drift that depends
    on t the derivative was wrong by 2 %. Without, it is that of the steps that were taken.
    """
    return error.detach().abs().pow(2).mean().sqrt()


class _Stuck(Exception):
    """Ends torchdiffeq's loop where it would fail a bare assertion; never seen outside."""


class _Cut(Exception):
    """Ends torchdiffeq's loop after Ctrl-C; never seen outside."""


class _Flow:
    """dx/dt as torchdiffeq wants it, func(t, x), with the callbacks that it looks for.

    Args:
        sde: Noise-free dynamics.
        x0: State at times[0].
        times: Shape (T,), float64, on the CPU.
        keep_path: Whether the states at all times are kept, or the last alone.
        tick: Called after each time that is reached.

    Attributes:
        t: Where the present step begins.
        interrupt: A Ctrl-C that is held back until the step has ended.
        lost: Trajectories that were not finite, or had a drift that was not, when it got stuck.
        largest: Largest finite |x| there.
        halted: Whether steps went on by next to none, for as long as anybody waits.
    """

    def __init__(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        keep_path: bool,
        tick: Callable[[], None] | None,
    ) -> None:
        self.t = float(times[0])
        self.interrupt = HeldInterrupt()
        self._interrupted_at: float | None = None
        self.lost = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)
        self.largest = 0.0
        self._sde, self._tick, self._keep_path = sde, tick, keep_path
        self._path, self._times = [x0], times.tolist()
        self._low, self._high = min(self._times), max(self._times)
        self._next = 1
        self._progress, self.halted = Progress(self._high - self._low), False

    def __call__(self, t: Tensor, x: State) -> State:
        # the look for a first step reaches as far as it likes, and t was rounded to x's dtype
        inside = t.detach().to("cpu", torch.float64).clamp(self._low, self._high)
        try:
            self._last = self._sde.drift(x, inside)
        except Exception as error:
            error.add_note(f"at t = {float(inside):g}, in an adaptive step from t = {self.t:g}")
            raise
        return self._last

    def callback_step(self, t: Tensor, x: State, dt: Tensor) -> None:
        """A step of size dt > 0 is about to be tried from (t, x)."""
        self.t = float(t.detach())
        if not self.t - float(dt.detach()) < self.t:
            self._stop(x)  # the step size underflows: t + dt = t
        self._check(x)
        if self._progress.halts(self.t, self._last):
            self.halted = True
            self._stop(x)
        if self.t == self._times[self._next]:  # exactly: a step ends on every time
            self.arrive(x)
        if self.interrupt.pending:
            self._interrupted_at = self._times[self._next - 1]
            raise _Cut

    def finish(self, x: State) -> None:
        """The last time is reached."""
        self.t = self._times[-1]
        self._check(x)
        self.arrive(x)

    def arrive(self, x: State) -> None:
        """Puts the state at the next of the times on record."""
        self._next += 1
        if not self._keep_path:
            self._path.clear()
        self._path.append(x)
        if self._tick is not None:
            self._tick()

    def solution(self, nfe: int, why: str | None = None) -> Solution:
        """The block as far as it went."""
        failed_at = None if why is None else self.t
        return Solution(
            torch.stack(self._path), nfe, self.lost, failed_at, why, self._interrupted_at
        )

    def _check(self, x: State) -> None:
        """An error estimate relative to an infinite state is 0: such a step was accepted."""
        if not torch.isfinite(x.detach()).all():
            self._stop(x)

    def _stop(self, x: State) -> None:
        both = torch.stack([x.detach(), self._last.detach()])
        self.lost = ~torch.isfinite(both).flatten(2).all(2).all(0)
        self.largest = float(torch.nan_to_num(both[0], posinf=0.0, neginf=0.0).abs().max())
        raise _Stuck
