"""torchsde as a solver: its methods, behind the same door as our own.

torchsde integrates dy = f du + g dW forwards on its own clock. Here that clock counts steps: u
runs from 0 to N in float64 with dt = 1, and between u = i and i + 1

    f_u = h_i f(x, t),   g_u = √|h_i| g(x, t),   t = t_i + (u − i) h_i,   h_i = t_{i+1} − t_i

so that any grid, a decreasing one included, is met exactly and nothing is interpolated. Which step
is being taken is told by the loop, never by u: at a node u belongs to two steps. The noise is
ours, z ~ N(0, I) for each step from the block's own stream, so that `TorchSDE("euler")` walks the
path of `EulerMaruyama()`. "srk" also takes the time integral of the Brownian motion over a step,
from a second normal; along a `BrownianPath`, that of the path.

Noise with channels is torchsde's "additive", "scalar" (m = 1) or "general". The slope of a scalar
noise is found by its difference: the derivative that torchsde takes by default is Σ_j g_j ∂_i g_j
in place of Σ_j g_j ∂_j g_i, another thing in more than one dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torchsde
from torch import Tensor
from torchsde._core.base_sde import ForwardSDE
from torchsde._core.methods import select

from sdegen.core.accuracy import Orders
from sdegen.core.channels import times
from sdegen.core.checks import check_count, check_word
from sdegen.core.commutators import mixes, own_slope
from sdegen.core.derivatives import with_slope
from sdegen.core.fixed_steps import refine
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import is_word
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Asked, Solver
from sdegen.core.step_noise import StepNoise

_FIXED = {"dt": 1.0, "adaptive": False, "rtol": 0.0, "atol": 0.0, "dt_min": 0.0}
_ORDERS = {  # those without one for multiplicative noise solve the Stratonovich equation
    "euler": Orders(flow=None, additive=(1, 1), multiplicative=(1, 0.5), channels=(1, 0.5)),
    "milstein": Orders(flow=None, additive=(1, 1), multiplicative=(1, 1)),
    "srk": Orders(flow=None, additive=(2, 1.5), multiplicative=(1.5, 1.5)),
    "heun": Orders(flow=None, additive=(2, 1), multiplicative=None),
    "midpoint": Orders(flow=None, additive=(2, 1), multiplicative=None),
}
_SEPARATE = ("milstein", "srk")  # whose steps differentiate g_i by x_i alone


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

    Noise with channels: additive takes all of them, one that is multiplicative "euler", and with
    channels = 1 also "milstein" and "srk", of the same orders.

    Args:
        method: One of these.
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If substeps is not an int.
        ValueError: If the method is not one of these, or substeps < 1.

    Reference:
        Li, Wong, Chen and Duvenaud 2020, arXiv:2001.01328 (torchsde); for "srk", Rößler 2010,
        SIAM J. Numer. Anal. 48, 922: SRA1 for additive noise, SRID2 else.
    """

    method: str = "srk"
    substeps: int = 1

    when: ClassVar[str] = (
        "Paths of diagonal noise to strong order 1 (Milstein) or 1½ (srk), by torchsde's methods."
    )

    def __post_init__(self) -> None:
        diverges = is_word(self.method, ["reversible_heun"])
        check_word("method", self.method, _ORDERS, " (it diverges on reverse SDEs)" * diverges)
        check_count("substeps", self.substeps)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse noise-free dynamics, and multiplicative noise for Stratonovich methods."""
        super().check(sde, nodes)
        if sde.noise == "none":
            raise ValueError(
                f"TorchSDE solves noisy equations, but {type(sde).__name__} is noise-free here: "
                "use Heun() or TorchDiffEq('dopri5')."
            )
        several = sde.channels is not None and sde.channels > 1
        if sde.noise == "multiplicative" and several and self.method != "euler":
            raise ValueError(
                f"TorchSDE({self.method!r}) takes multiplicative noise of one Wiener process for "
                f"each coordinate, or of one for all, but {type(sde).__name__} has channels = "
                f"{sde.channels}: use EulerMaruyama() or TorchSDE('euler')."
            )
        if sde.noise == "multiplicative" and self.orders.multiplicative is None:
            raise ValueError(
                f"TorchSDE({self.method!r}) solves the Stratonovich equation, but with g(x, t) "
                "the dynamics are Itô here: use TorchSDE('milstein') or TorchSDE('srk'), or "
                "noise='additive' if g depends on t alone."
            )

    def check_asked(self, asked: Asked) -> None:
        """Refuse nothing: a given path has what "srk" takes beside the increments too."""

    @property
    def takes_integral(self) -> bool:
        """Whether a step takes ∫W du beside the increment: that of a path, where there is one."""
        return self.method == "srk"

    def nodes(self, times: Tensor) -> Tensor:
        """Return the times, with substeps − 1 nodes more between any two."""
        return refine(times, self.substeps)

    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels")

    @property
    def orders(self) -> Orders:  # type: ignore[override]
        """As in the table; weak orders are those of torchsde's documentation."""
        return _ORDERS[self.method]

    def begin(self, sde: SDE, nodes: Tensor) -> _Steps:
        """Return the SDE on the clock of the steps, for torchsde's method to walk on."""
        return _Steps(sde, nodes, self.method)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Steps
    ) -> tuple[State, _Steps]:
        """Take one step of torchsde's method, with the increment that is drawn here."""
        assert noise is not None  # check() saw to it
        return memory.taken(i, x, noise), memory


class _Steps:
    """An SDE on the clock of its steps as torchsde wants it: flat states, f and g of (u, y).

    Args:
        sde: What moves.
        nodes: Times at which steps begin and end, shape (steps + 1,).
        method: Of torchsde.
    """

    def __init__(self, sde: SDE, nodes: Tensor, method: str) -> None:
        self.sde_type = "stratonovich" if _ORDERS[method].multiplicative is None else "ito"
        # "srk" has a cheaper form for noise that is said not to depend on the state
        cheaper = method == "srk" and sde.noise == "additive"
        self.noise_type = "additive" if cheaper else "diagonal"
        if sde.channels is not None:
            of_state = "scalar" if sde.channels == 1 else "general"
            self.noise_type = "additive" if sde.noise == "additive" else of_state
        self._sde, self._method, self._channels = sde, method, sde.channels
        self._step = 0
        self._ts, dts = nodes.unbind(), nodes.diff()
        self._dts, self._roots = dts.tolist(), dts.abs().sqrt().tolist()
        self._clock = torch.arange(len(nodes), dtype=torch.float64).unbind()
        # a constant g is expanded once for steps of one length
        self._constant: tuple[float, Tensor] | None = None
        self._shape: torch.Size = torch.Size()
        self._solver: Any = None
        self._flat = False

    def taken(self, i: int, x: State, noise: Noise) -> State:
        """Return the state after step i."""
        if i & (i - 1) == 0:  # now and then: at a special state or time it would not be seen
            self._refuse_mixed(x, self._ts[i])
        if self._solver is None:
            self._shape, self._flat = x.shape, x.ndim == 2
            # sdeint, its public face, would check shapes and copy states anew in each step
            method = select(method=self._method, sde_type=self.sde_type)
            like = x.flatten(1)
            if self._channels is not None:
                like = x.new_empty(len(x), self._channels)
            self._increments = _Increments(like, noise)
            options = {"grad_free": self.noise_type == "scalar"}
            self._solver = method(
                sde=ForwardSDE(self), bm=self._increments, options=options, **_FIXED
            )
        self._step = self._increments.step = i
        self._increments.noise = noise
        y, _ = self._solver.step(self._clock[i], self._clock[i + 1], x.flatten(1), ())
        after: State = y if self._flat else y.reshape(x.shape)
        return after

    def _refuse_mixed(self, x: State, t: Tensor) -> None:
        """Refuse a g_i that depends on other x_j, which would take the order from the method."""
        sde = self._sde
        if sde.noise != "multiplicative" or sde.channels or self._method not in _SEPARATE:
            return
        if mixes(sde, x, t) or own_slope(sde, x, t) is None:
            raise ValueError(
                f"TorchSDE({self._method!r}) needs a g_i(x) that depends on x_i alone, but that "
                f"of {type(sde).__name__} depends on other coordinates, where it would be of "
                "strong order ½: take Milstein(), or DRI1() for averages."
            )

    def f(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the drift on the clock of the steps, flat."""
        drift = torch.mul(self._sde.drift(self._state(y), self._time(u)), self._dts[self._step])
        return drift if self._flat else drift.flatten(1)

    def g(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion, flat; with its derivative where y needs one unseen by autograd.

        Of channels that is a matrix for each state, shape (batch, d, m).
        """
        if self._channels is not None:
            G = torch.mul(self._sde.diffusion(self._state(y), self._time(u)), self._root)
            return G.to(y).flatten(1, -2).expand(len(y), -1, -1)
        if self._sde.noise == "additive" or not (y.requires_grad and torch.is_grad_enabled()):
            return self._g(u, y)
        return with_slope(lambda state: self._g(u, state), y)

    def g_prod(self, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Return the diffusion times v, flat."""
        return self.g(u, y) * v if self._channels is None else times(self.g(u, y), v)

    def _g(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion on the clock of the steps, flat."""
        root, sigma = self._root, self._sde.constant_noise
        if sigma is not None:
            if self._constant is None or self._constant[0] != root:
                self._constant = root, y.new_full((), sigma * root).expand_as(y)
            return self._constant[1]
        x = self._state(y)
        g = torch.mul(self._sde.diffusion(x, self._time(u)), root)
        return g.to(x).expand_as(x).flatten(1)

    @property
    def _root(self) -> float:
        """√|dt| of the present step."""
        root: float = self._roots[self._step]
        return root

    def _state(self, y: Tensor) -> State:
        """Return the state in its own shape."""
        return y if self._flat else y.reshape(self._shape)

    def _time(self, u: Tensor) -> Tensor:
        """Return the time at u in the present step; exact at both ends."""
        part = float(u) - self._step
        if part == 0.0:
            return self._ts[self._step]
        if part == 1.0:
            return self._ts[self._step + 1]
        return torch.add(self._ts[self._step], part * self._dts[self._step])


class _Increments(torchsde.BaseBrownian):  # type: ignore[misc]
    """A Brownian motion on the clock of the steps: hands out fresh increments, in order.

    torchsde's own keeps a tree of the past, which fixed steps never ask for, at 10 ms a step.
    """

    levy_area_approximation = "space-time"
    dtype, device, shape = torch.float64, torch.device("cpu"), torch.Size()  # those of the state

    def __init__(self, like: Tensor, noise: Noise) -> None:
        self.dtype, self.device, self.shape = like.dtype, like.device, like.shape
        self.noise, self.step = noise, 0

    def __call__(
        self, ta: Tensor, tb: Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return W over [ta, ta + 1]; with return_U also ∫(W_u − W_ta) du, W/2 + z/√12."""
        w = self.noise.normal().flatten(1)
        if not return_U:
            return w
        if isinstance(self.noise, StepNoise):
            return w, self.noise.draws.integral(self.step).flatten(1)
        return w, 0.5 * w + self.noise.normal().flatten(1) / math.sqrt(12)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)})"
