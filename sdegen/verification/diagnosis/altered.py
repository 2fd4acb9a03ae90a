"""Altered dynamics: the mistakes that are made most often, as SDEs of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.ito_process import ItoProcess
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import State, Time


class AlteredSDE(SDE):
    """a f + r g ∂g/∂x and c g of another SDE, c a number or a function of g.

    Args:
        sde: The other one.
        drift: a.
        noise: c, or what is made of g.
        interpretation: r: ½ is what Stratonovich's reading adds to Itô's.
        retimed: Maps a time to that at which f is asked, and g unless it has its own.
        noise_retimed: Maps a time to that at which g is asked.
    """

    def __init__(
        self,
        sde: SDE,
        drift: float = 1.0,
        noise: float | Callable[[Tensor], Tensor] = 1.0,
        interpretation: float = 0.0,
        retimed: Callable[[Time], Time] | None = None,
        noise_retimed: Callable[[Time], Time] | None = None,
    ) -> None:
        self.sde: SDE = sde
        self.noise: NoiseKind = sde.noise
        self.direction: Literal[1, -1] = sde.direction
        self.autonomous: bool | None = sde.autonomous if retimed is None else None
        self.phase_space: bool = sde.phase_space
        if sde.channels is not None:
            self.channels: int | None = sde.channels
            self.noise_structure: NoiseStructure = sde.noise_structure
        self._drift, self._noise, self._interpretation = drift, noise, interpretation
        self._retimed = retimed
        self._noise_retimed = retimed if noise_retimed is None else noise_retimed
        self._stratonovich = (
            ItoProcess(
                sde.drift, sde.diffusion, interpretation="stratonovich", channels=sde.channels
            )
            if interpretation
            else None
        )

    @property
    def time_range(self) -> tuple[float, float]:
        """Times of the other one."""
        return self.sde.time_range

    def drift(self, x: State, t: Time) -> State:
        """Return a f + r g ∂g/∂x, shape of x."""
        t = t if self._retimed is None else self._retimed(t)
        f = self.sde.drift(x, t)
        if self._stratonovich is None:
            return self._drift * f
        return self._drift * f + 2 * self._interpretation * (self._stratonovich.drift(x, t) - f)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """Return c g, broadcastable to x."""
        t = t if self._noise_retimed is None else self._noise_retimed(t)
        g = self.sde.diffusion(x, t)
        if callable(self._noise):
            return self._noise(g)
        return self._noise * g


def noise_induced_drift(sde: SDE, x: State, t: Time) -> State:
    """Return g ∂g/∂x of diagonal noise: twice what Stratonovich's reading adds."""
    read = ItoProcess(
        sde.drift, sde.diffusion, interpretation="stratonovich", channels=sde.channels
    )
    added: Tensor = 2 * (read.drift(x, t) - sde.drift(x, t))
    return added if isinstance(added, Tensor) else torch.as_tensor(added)
