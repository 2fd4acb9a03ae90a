"""Steps of torchsde on the clock of our steps, and the Brownian motion that it is given.

It is apart from `TorchSDE`, so that torchsde is loaded where a step of it is taken.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torchsde
from torch import Tensor
from torchsde._core.base_sde import ForwardSDE
from torchsde._core.methods import select

from sdegen.core.channels import times
from sdegen.core.commutators import mixes, own_slope
from sdegen.core.derivatives import with_slope
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.step_noise import StepNoise

_FIXED = {"dt": 1.0, "adaptive": False, "rtol": 0.0, "atol": 0.0, "dt_min": 0.0}
_SEPARATE = ("milstein", "srk")  # whose steps differentiate g_i by x_i alone


class TorchSteps:
    """An SDE on the clock of its steps as torchsde wants it: flat states, f and g of (u, y).

    Args:
        sde: What moves.
        nodes: Times at which steps begin and end, shape (steps + 1,).
        method: Of torchsde.
        stratonovich: Whether it solves the Stratonovich equation.
    """

    def __init__(self, sde: SDE, nodes: Tensor, method: str, *, stratonovich: bool) -> None:
        self.sde_type = "stratonovich" if stratonovich else "ito"
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
