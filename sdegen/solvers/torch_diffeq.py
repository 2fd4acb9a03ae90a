"""torchdiffeq as a solver: noise-free dynamics with steps of its own choice.

One step size serves all trajectories. torchdiffeq is made to stop at every time (`step_t`):
otherwise it steps past the last time and interpolates back, and asks for the score below t_min.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchdiffeq._impl.misc import _PerturbFunc
from torchdiffeq._impl.odeint import SOLVERS  # what the installed version has

from sdegen.core.checks import check_positive, check_word
from sdegen.core.failure import Failure, SolverStopped
from sdegen.core.interrupt import is_interrupted
from sdegen.core.noise import Noise
from sdegen.core.requests import is_word
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Asked, Solver
from sdegen.solvers.progress import TRIES, Progress

_ADAPTIVE = ("dopri5", "dopri8", "tsit5", "bosh3", "fehlberg2", "adaptive_heun")

# Steps grow at most by this factor. torchdiffeq's own is 10: after a step of 1 that was cut at a
# time, one of 10 may end on the next by itself; it then looks for no further time, and runs past
# the last.
_GROWTH = 9.8765432101234567


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """An adaptive Runge-Kutta method of torchdiffeq; noise-free dynamics, either sense of time.

        dx/dt = f(x, t),   ‖local error/(atol + rtol |x|)‖ ≤ 1

    Steps are chosen so that the local error, in the root mean square over all trajectories, stays
    below atol + rtol |x|. One step size serves the whole batch: a trajectory's last digits depend
    on its batch mates, and one that explodes stops all.

    States have shape (batch, *event).

    Args:
        method: "dopri5", "dopri8", "bosh3", "fehlberg2" or "adaptive_heun"; also "tsit5" where
            the installed torchdiffeq has it.
        rtol: Relative tolerance, > 0.
        atol: Absolute tolerance, > 0, in units of the state.

    Raises:
        ValueError: If the method is not one of these, or a tolerance is not finite and > 0.

    Reference:
        Chen 2018, github.com/rtqichen/torchdiffeq; for "dopri5", Dormand and Prince 1980.

    Example:
        >>> decay, x = sg.ItoProcess(lambda x: -x, 0.0), torch.ones(1, 1)
        >>> f"{sg.simulate(decay, x, [0.0, 1.0], solver=sg.TorchDiffEq()).final.item():.4f}"  # e⁻¹
        '0.3679'
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5

    requires_full_batch: ClassVar[bool] = True
    chooses_steps: ClassVar[bool] = True
    when: ClassVar[str] = (
        "Dynamics without noise to a tolerance, with one step size for all trajectories."
    )

    def __post_init__(self) -> None:
        available = [name for name in _ADAPTIVE if name in SOLVERS]
        fixed = "; for fixed steps take Heun(substeps=…) or EulerMaruyama(substeps=…)"
        check_word("method", self.method, available, fixed * is_word(self.method, SOLVERS))
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse noisy dynamics."""
        super().check(sde, nodes)
        if sde.noise != "none":
            raise ValueError(
                f"TorchDiffEq solves noise-free dynamics, but {type(sde).__name__} is noisy: take "
                "ReverseSDE(sde, score, eta=0.0), the probability flow, or TorchSDE('srk')."
            )

    def check_asked(self, asked: Asked) -> None:
        """Refuse to continue without some of the trajectories."""
        super().check_asked(asked)
        if asked == "freeze":
            raise ValueError(
                "TorchDiffEq has one step size for all trajectories and cannot go on without "
                "some of them: use Heun(substeps=…) with on_nonfinite='freeze'."
            )

    def begin(self, sde: SDE, nodes: Tensor) -> _Flow:
        """Return dx/dt as torchdiffeq wants it, not begun yet."""
        return _Flow(self, sde, nodes)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Flow
    ) -> tuple[State, _Flow]:
        """Go from nodes[i] to nodes[i + 1], in steps that torchdiffeq chooses.

        Raises:
            SolverStopped: If it finds no step that would do, or on Ctrl-C.
        """
        return memory.go(x, i), memory

    def failure(self, memory: _Flow) -> Failure | None:
        """Return where it could not go on, why, and what to do."""
        if not memory.stuck:
            return None
        lost, largest = memory.lost, f"|x| is up to {memory.largest:.3g}"
        if lost.any():
            what = (
                f"{int(lost.sum())} of {len(lost)} trajectories or their drifts are not finite in "
                f"the step tried from there; {largest}. Solutions may diverge, or a score be "
                "asked too close to t = 0: end before that t"
            )
        elif memory.halted:
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
        why = f"{self.method} could not go on at t = {memory.t:g}: {what}."
        return Failure(lost, why, memory.t)


def _size_of_error(error: Tensor) -> Tensor:
    """Return torchdiffeq's norm, the root mean square, without a gradient.

    Step sizes follow from it. With a gradient of their own they would carry it into the state but
    not into the time at which the drift is asked, which is a number here: of a drift that depends
    on t the derivative was wrong by 2 %. Without, it is that of the steps that were taken.
    """
    return error.detach().abs().pow(2).mean().sqrt()


class _Flow:
    """dx/dt as torchdiffeq wants it, func(t, x), with the callbacks that it looks for.

    One solver of torchdiffeq carries a block along all times, so that its step size and the slope
    at its last state are remembered from one to the next. Its public face, odeint, would begin
    anew at each, with two evaluations more.

    Args:
        solver: Its method and tolerances.
        sde: Noise-free dynamics.
        times: Shape (T,), float64, on the CPU.

    Attributes:
        t: Where the present step begins.
        stuck: Whether no step would do there.
        lost: Trajectories that were not finite, or had a drift that was not, when it got stuck.
        largest: Largest finite |x| there.
        halted: Whether steps went on by next to none, for as long as anybody waits.
    """

    def __init__(self, solver: TorchDiffEq, sde: SDE, times: Tensor) -> None:
        self._solver, self._sde, self._times = solver, sde, times
        self.t: float = float(times[0])
        self.stuck: bool = False
        self.halted: bool = False
        self.largest: float = 0.0
        self.lost: Tensor = torch.zeros(0, dtype=torch.bool)
        self._low, self._high = sorted((float(times[0]), float(times[-1])))
        self._sense = 1.0 if times[-1] > times[0] else -1.0
        self._rungs: Any = None  # torchdiffeq's solver, from the first state on
        self._progress = Progress(self._high - self._low)

    def _begun(self, x: State) -> Any:  # noqa: ANN401 (torchdiffeq has no types)
        """Return the solver of torchdiffeq at the first state; its clock increases."""
        step_t = (self._sense * self._times).to(x.device)
        func = _PerturbFunc(self)  # asks the last stage of a step a rounding before its end
        func.callback_step = self.callback_step
        func.callback_accept_step = func.callback_reject_step = _nothing
        rtol, atol = self._solver.rtol, self._solver.atol
        options = {"step_t": step_t, "ifactor": _GROWTH, "norm": _size_of_error}
        made = SOLVERS[self._solver.method](func=func, y0=x, rtol=rtol, atol=atol, **options)
        made._before_integrate(step_t)
        return made

    def go(self, x: State, i: int) -> State:
        """Return the state at times[i + 1], where a step ends exactly."""
        if self._rungs is None:
            self._rungs = self._begun(x)
        rungs, until = self._rungs, self._rungs.step_t[i + 1]
        if i == len(self._times) - 2:
            reached: State = rungs._advance(until)
        else:
            while until > rungs.rk_state.t1:
                rungs.rk_state = rungs._adaptive_step(rungs.rk_state)
            reached = rungs.rk_state.y1
        self.t = float(self._times[i + 1])
        self._check(reached)
        return reached

    def __call__(self, t: Tensor, x: State) -> State:
        # the look for a first step reaches as far as it likes
        then = (self._sense * t).detach().to("cpu", torch.float64)
        inside = then.clamp(self._low, self._high)
        try:
            self._last = self._sde.drift(x, inside)
        except Exception as error:
            error.add_note(f"at t = {float(inside):g}, in an adaptive step from t = {self.t:g}")
            raise
        return self._last if self._sense > 0 else -self._last

    def callback_step(self, t: Tensor, x: State, dt: Tensor) -> None:
        """Note that a step of size dt > 0 is about to be tried from (t, x)."""
        self.t = self._sense * float(t.detach())
        if not float(t.detach()) + float(dt.detach()) > float(t.detach()):
            self._stop(x)  # the step size underflows: t + dt = t
        self._check(x)
        if self._progress.halts(self.t, self._last):
            self.halted = True
            self._stop(x)
        if is_interrupted():
            raise SolverStopped

    def _check(self, x: State) -> None:
        """Raise at an infinite state: the error relative to it is 0, and the step was accepted."""
        if not torch.isfinite(x.detach()).all():
            self._stop(x)

    def _stop(self, x: State) -> None:
        both = torch.stack([x.detach(), self._last.detach()])
        self.stuck = True
        self.lost = ~torch.isfinite(both).flatten(2).all(2).all(0)
        self.largest = float(torch.nan_to_num(both[0], posinf=0.0, neginf=0.0).abs().max())
        raise SolverStopped


def _nothing(t: Tensor, x: State, dt: Tensor) -> None:
    """Do nothing after a step was taken or refused."""
