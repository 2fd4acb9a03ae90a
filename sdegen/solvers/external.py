"""torchsde and torchdiffeq as solvers: their methods, behind the same door as our own.

**torchsde** integrates dy = f du + g dW forwards on its own clock. Here that clock counts steps:
u runs from 0 to N in float64 with dt = 1, and between u = i and i + 1

    f_u = h_i f(x, t),   g_u = √|h_i| g(x, t),   t = t_i + (u − i) h_i,   h_i = t_{i+1} − t_i

so that any grid, a decreasing one included, is met exactly and nothing is interpolated. Which step
is being taken is known from the noise that torchsde asks for, never from u: at a node u belongs
to two steps. The noise is ours, z ~ N(0, I) for each step from the block's own stream, so that
`TorchSDE("euler")` walks the path of `EulerMaruyama()`. "srk" also takes the time integral of the
Brownian motion over a step, from a second normal.

**torchdiffeq** solves noise-free dynamics with steps of its own choice, one for all trajectories.
It is made to stop at every time (`step_t`): otherwise it steps past the last time and
interpolates back, and asks for the score below t_min.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torchdiffeq
import torchsde
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS  # what the installed version has

from sdegen.interrupt import HeldInterrupt
from sdegen.noise import Stream, normals_like
from sdegen.sde.base import SDE, Counter
from sdegen.shapes import State
from sdegen.solvers.base import (
    OnNonfinite,
    Record,
    See,
    Solution,
    Solver,
    Watch,
    add_step_note,
    check_substeps,
    refine,
)
from sdegen.walls import Walls

__all__ = ["TorchDiffEq", "TorchSDE"]

_READING = {
    "euler": "ito",
    "milstein": "ito",
    "srk": "ito",
    "heun": "stratonovich",
    "midpoint": "stratonovich",
}
_ADAPTIVE = ("dopri5", "dopri8", "tsit5", "bosh3", "fehlberg2", "adaptive_heun")

# Steps grow at most by this factor. torchdiffeq's own is 10: after a step of 1 that was cut at a
# time, one of 10 may end on the next by itself; it then looks for no further time, and runs past
# the last.
_GROWTH = 9.8765432101234567


@dataclass(frozen=True)
class TorchSDE(Solver):
    """A method of torchsde with fixed steps.

    | method     | evaluations a step | strong order for additive, multiplicative noise |
    | ---------- | ------------------ | ----------------------------------------------- |
    | "euler"    | 1                  | 1, ½                                            |
    | "milstein" | 1                  | 1, 1                                            |
    | "srk"      | 3, 10              | 1½, 1½                                          |
    | "heun"     | 2                  | 1, refused: it solves the Stratonovich equation |
    | "midpoint" | 2                  | 1, refused                                      |

    Args:
        method: One of these.
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If substeps is no int.
        ValueError: If the method is not one of these, or substeps < 1.

    Reference:
        Li, Wong, Chen and Duvenaud 2020, arXiv:2001.01328 (torchsde); for "srk", Rößler 2010,
        SIAM J. Numer. Anal. 48, 922: SRA1 for additive noise, SRID2 else.
    """

    shows_steps: ClassVar[bool] = True

    method: str = "srk"
    substeps: int = 1

    def __post_init__(self) -> None:
        if self.method not in _READING:
            hint = " (it diverges on reverse SDEs)" if self.method == "reversible_heun" else ""
            raise ValueError(
                f"method must be one of {_listed(list(_READING))}, but is {self.method!r}{hint}."
            )
        check_substeps(self.substeps)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuses noise-free dynamics, and multiplicative noise for Stratonovich methods."""
        super().check(sde, nodes)
        if sde.noise == "none":
            raise ValueError(
                f"TorchSDE solves noisy equations, but {type(sde).__name__} is noise-free here: "
                "use Heun() or TorchDiffEq('dopri5')."
            )
        if sde.noise == "multiplicative" and _READING[self.method] == "stratonovich":
            raise ValueError(
                f"TorchSDE({self.method!r}) solves the Stratonovich equation, but with g(x, t) "
                "the dynamics are Itô here: use TorchSDE('milstein') or TorchSDE('srk'), or "
                "noise='additive' if g depends on t alone."
            )

    def nodes(self, times: Tensor) -> Tensor:
        """The times, with substeps − 1 nodes more between any two."""
        return refine(times, self.substeps)

    def solve(
        self,
        sde: SDE,
        x0: State,
        times: Tensor,
        *,
        noise: Stream | None,
        keep_path: bool,
        walls: Walls | None = None,
        on_nonfinite: OnNonfinite = "raise",
        tick: Callable[[], None] | None = None,
        see: See | None = None,
        watch: Watch | None = None,
    ) -> Solution:
        """Solves with one call of `torchsde.sdeint`; see `Solver.solve`."""
        assert noise is not None  # check() saw to it
        assert walls is None  # the door saw to it
        nodes = self.nodes(times)
        counter = Counter()
        record = Record(x0, nodes, self.substeps, keep_path, on_nonfinite, tick, see, watch)
        kind: type[_Steps] = _DiagonalSteps
        if self.method == "srk" and sde.noise == "additive":
            kind = _AdditiveSteps
        steps = kind(sde.counted(counter), nodes, record, _READING[self.method])
        flat = x0.flatten(1)
        increments = _Increments(flat, noise, steps)
        clock = torch.tensor([0.0, len(nodes) - 1], dtype=torch.float64)
        try:
            with record:
                ys = torchsde.sdeint(steps, flat, clock, bm=increments, method=self.method, dt=1.0)
                steps.enter(len(nodes) - 1, ys[-1])
        except _Lost:
            pass
        except Exception as error:
            add_step_note(error, max(steps.step, 0), nodes)
            raise
        return record.solution(counter.calls)


class _Lost(Exception):
    """Ends torchsde's loop when trajectories became non-finite; never seen outside."""


class _Steps:
    """An SDE on the clock of its steps as torchsde wants it: flat states, f and g of (u, y).

    Args:
        sde: What moves.
        nodes: Times at which steps begin and end, shape (steps + 1,).
        record: Where the states at nodes go.
        reading: "ito" or "stratonovich".

    Attributes:
        step: Which step is being taken; −1 before the first, while torchsde looks at shapes.
    """

    def __init__(self, sde: SDE, nodes: Tensor, record: Record, reading: str) -> None:
        self.sde_type = reading
        self.step = -1
        self._entered = 0
        self._sde, self._record, self._shape = sde, record, record.x.shape
        self._flat = len(self._shape) == 2
        self._ts, dts = nodes.unbind(), nodes.diff()
        self._dts, self._roots = dts.tolist(), dts.abs().sqrt().tolist()
        # a constant g is expanded once for steps of one length
        self._constant: tuple[float, Tensor] | None = None

    def enter(self, node: int, y: Tensor) -> None:
        """Puts the state at a node on record."""
        self._entered = node
        self._record.reach(node, y if self._flat else y.reshape(self._shape))
        if self._record.stopped:
            raise _Lost

    def f(self, u: Tensor, y: Tensor) -> Tensor:
        """Drift on the clock of the steps, flat."""
        if self.step < 0:
            return y  # any tensor of this shape will do; no evaluation is spent on it
        if self.step > self._entered:
            self.enter(self.step, y)  # every method evaluates f first where its step begins
        drift = torch.mul(self._sde.drift(self._state(y), self._time(u)), self._dts[self.step])
        return drift if self._flat else drift.flatten(1)

    def _g(self, u: Tensor, y: Tensor) -> Tensor:
        """Diffusion on the clock of the steps, flat."""
        root, sigma = self._roots[self.step], self._sde.constant_noise
        if sigma is not None:
            if self._constant is None or self._constant[0] != root:
                self._constant = root, y.new_full((), sigma * root).expand_as(y)
            return self._constant[1]
        x = self._state(y)
        g = torch.mul(self._sde.diffusion(x, self._time(u)), root)
        return g.to(x).expand_as(x).flatten(1)

    def _state(self, y: Tensor) -> State:
        """The state in its own shape, with lost trajectories put back."""
        return self._record.held(y if self._flat else y.reshape(self._shape))

    def _time(self, u: Tensor) -> Tensor:
        """The time at u in the present step; exact at both ends."""
        part = float(u) - self.step
        if part == 0.0:
            return self._ts[self.step]
        if part == 1.0:
            return self._ts[self.step + 1]
        return torch.add(self._ts[self.step], part * self._dts[self.step])


class _DiagonalSteps(_Steps):
    """Noise that torchsde is given as g, number by number."""

    noise_type = "diagonal"

    def g(self, u: Tensor, y: Tensor) -> Tensor:
        """Diffusion, flat."""
        return y if self.step < 0 else self._g(u, y)


class _AdditiveSteps(_Steps):
    """Noise that torchsde is given as a product g v, and takes not to depend on the state."""

    noise_type = "additive"

    def __init__(self, sde: SDE, nodes: Tensor, record: Record, reading: str) -> None:
        super().__init__(sde, nodes, record, reading)
        self._device = record.x.device
        self._before = _generator_state(self._device)

    def g_prod(self, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Diffusion times v, flat."""
        if self.step < 0:
            # to look at shapes, torchsde drew v from the global generator: that is put back
            _set_generator_state(self._device, self._before)
            return v
        return self._g(u, y) * v


class _Increments(torchsde.BaseBrownian):  # type: ignore[misc]
    """A Brownian motion on the clock of the steps: hands out fresh increments, in order.

    torchsde's own keeps a tree of the past, which fixed steps never ask for, at 10 ms a step.
    """

    levy_area_approximation = "space-time"

    def __init__(self, like: Tensor, source: Stream, steps: _Steps) -> None:
        self._like, self._steps = like, steps
        self._draw = normals_like(like, source).each().__next__

    def __call__(
        self, ta: Tensor, tb: Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """W over the step [ta, ta + 1]; with return_U also ∫(W_u − W_ta) du = W/2 + z/√12."""
        self._steps.step = round(float(ta))
        w = self._draw()
        if not return_U:
            return w
        return w, 0.5 * w + self._draw() / math.sqrt(12)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)})"

    @property
    def dtype(self) -> torch.dtype:
        """That of the state."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """That of the state."""
        return self._like.device

    @property
    def shape(self) -> torch.Size:
        """(batch, numbers of an event)."""
        return self._like.shape


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
        if self.method not in there:
            hint = ""
            if self.method in SOLVERS:
                hint = "; for fixed steps take Heun(substeps=…) or EulerMaruyama(substeps=…)"
            raise ValueError(
                f"method must be one of {_listed(there)}, but is {self.method!r}{hint}."
            )
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and > 0, but is {value:g}.")

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
        walls: Walls | None = None,
        on_nonfinite: OnNonfinite = "raise",
        tick: Callable[[], None] | None = None,
        see: See | None = None,
        watch: Watch | None = None,
    ) -> Solution:
        """Solves with one call of `torchdiffeq.odeint`; see `Solver.solve`.

        Raises:
            ValueError: If on_nonfinite is "freeze".
        """
        assert noise is None  # check() saw to it
        assert walls is None  # the door saw to it
        assert see is None  # whoever asks looks at shows_steps first
        assert watch is None
        if on_nonfinite == "freeze":
            raise ValueError(
                "TorchDiffEq has one step size for all trajectories and cannot go on without "
                "some of them: use Heun(substeps=…) with on_nonfinite='freeze'."
            )
        counter = Counter()
        flow = _Flow(sde.counted(counter), x0, times, keep_path, tick)
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
                    options={"step_t": step_t, "ifactor": _GROWTH},
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
        else:
            what = (
                f"no step that t can resolve meets rtol = {self.rtol:g} and atol = {self.atol:g}; "
                f"{largest}. Solutions may diverge there, or the drift jump: end before that t, "
                "loosen rtol and atol, or take Heun(substeps=…)"
            )
        return f"{self.method} could not go on at t = {flow.t:g}: {what}."


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


def _listed(names: list[str]) -> str:
    """Names as a sentence has them."""
    return ", ".join(map(repr, names))


def _generator_state(device: torch.device) -> Tensor:
    """State of torch's global generator on a device."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()


def _set_generator_state(device: torch.device, state: Tensor) -> None:
    """Puts torch's global generator on a device back."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
