"""torchsde as a solver: its methods, behind the same door as our own.

torchsde integrates dy = f du + g dW forwards on its own clock. Here that clock counts steps: u
runs from 0 to N in float64 with dt = 1, and between u = i and i + 1

    f_u = h_i f(x, t),   g_u = √|h_i| g(x, t),   t = t_i + (u − i) h_i,   h_i = t_{i+1} − t_i

so that any grid, a decreasing one included, is met exactly and nothing is interpolated. Which step
is being taken is known from the noise that torchsde asks for, never from u: at a node u belongs
to two steps. The noise is ours, z ~ N(0, I) for each step from the block's own stream, so that
`TorchSDE("euler")` walks the path of `EulerMaruyama()`. "srk" also takes the time integral of the
Brownian motion over a step, from a second normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torchsde
from torch import Tensor

from sdegen.checks import check_count
from sdegen.noise import Stream, normals_like
from sdegen.requests import is_word
from sdegen.sde.base import SDE, Counter
from sdegen.sde.derivatives import with_slope
from sdegen.shapes import State
from sdegen.solvers.base import (
    Conditions,
    Solution,
    Solver,
    add_step_note,
    refine,
)
from sdegen.solvers.record import Record

__all__ = ["TorchSDE"]

_READING = {
    "euler": "ito",
    "milstein": "ito",
    "srk": "ito",
    "heun": "stratonovich",
    "midpoint": "stratonovich",
}


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
        if not is_word(self.method, _READING):
            hint = (
                " (it diverges on reverse SDEs)"
                if is_word(self.method, ["reversible_heun"])
                else ""
            )
            names = ", ".join(map(repr, _READING))
            raise ValueError(f"method must be one of {names}, but is {self.method!r}{hint}.")
        check_count("substeps", self.substeps)

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

    def check_brownian(self) -> None:
        """Refuse "srk", which takes the integral of the path over a step too (a Lévy area)."""
        if self.method == "srk":
            raise ValueError(
                "TorchSDE('srk') needs ∫W du over each step beside its increment, which a "
                "BrownianPath does not have: take TorchSDE('milstein') or EulerMaruyama()."
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
        conditions: Conditions = Conditions(),  # noqa: B008 (it is frozen)
    ) -> Solution:
        """Solves with one call of `torchsde.sdeint`; see `Solver.solve`."""
        assert noise is not None  # check() saw to it
        assert conditions.boundary is None  # the door saw to it
        nodes = self.nodes(times)
        counter = Counter()
        record = Record(x0, nodes, self.substeps, keep_path, conditions)
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
        """Diffusion, flat; with a derivative, where y asks for one that autograd does not see."""
        if self.step < 0:
            return y
        if self._sde.noise == "additive" or not (y.requires_grad and torch.is_grad_enabled()):
            return self._g(u, y)
        return with_slope(lambda state: self._g(u, state), y)


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
