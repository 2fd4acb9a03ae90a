"""Mirrored dynamics: what a solver moves where a wall reflects velocities (`core/mirrors.py`)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from sdegen.core.mirrors import Mirrors
from sdegen.core.scores import CallCounter
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.sde.underdamped import UnderdampedLangevin


def check_mirrors(sde: SDE, mirrors: Mirrors | None) -> None:
    """Refuse walls that reverse the velocities of dynamics that are not known beyond them.

    Raises:
        ValueError: If there are mirrors, and the dynamics are no `UnderdampedLangevin`.
    """
    if mirrors is not None and not isinstance(sde, UnderdampedLangevin):
        raise ValueError(
            f"a Reflecting end of a phase space is for UnderdampedLangevin, whose force is "
            f"mirrored at it, but the dynamics are {type(sde).__name__}; keep positions inside "
            "by the potential, such as lambda x: x**8."
        )


def mirrored(sde: SDE, mirrors: Mirrors | None) -> SDE:
    """Return the dynamics on the line that the walls unfold; the same where there are none.

    Args:
        sde: What moves between the walls.
        mirrors: The walls.
    """
    if mirrors is None or isinstance(sde, _Mirrored):
        return sde
    assert isinstance(sde, UnderdampedLangevin)
    return _Mirrored(sde, mirrors)


class _Mirrored(UnderdampedLangevin):
    """Dynamics in phase space that see themselves in mirrors."""

    def __init__(self, sde: UnderdampedLangevin, mirrors: Mirrors) -> None:
        own = vars(_Mirrored)  # a force that is counted is an attribute of the object
        self.__dict__.update({name: it for name, it in vars(sde).items() if name not in own})
        self.noise, self.autonomous = sde.noise, sde.autonomous
        self._sde, self._mirrors = sde, mirrors

    def with_counter(self, counter: CallCounter) -> Self:
        """Return a copy whose calls are counted by `counter`."""
        return type(self)(self._sde.with_counter(counter), self._mirrors)

    def own_methods(self, *names: str) -> list[str]:
        """Return which methods the dynamics inside have made their own."""
        return self._sde.own_methods(*names)

    def force(self, x: State, t: Time) -> State:
        """± F(x folded), shape of x."""
        place, odd = self._mirrors.fold_positions(x)
        force = self._sde.force(place, t)
        return torch.where(odd, -force, force)

    def friction_at(self, x: State) -> Tensor:
        """γ(x folded)."""
        if not callable(self.friction):
            return self._sde.friction_at(x)
        return self._sde.friction_at(self._mirrors.fold_positions(x)[0])

    def drift(self, x: State, t: Time) -> State:
        """Return the drift of the state inside, with its signs."""
        state, odd = self._mirrors.fold(x)
        drift = self._sde.drift(state, t)
        return torch.where(odd[:, None], -drift, drift)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """Return that of the state inside: the noise is symmetric."""
        return self._sde.diffusion(self._mirrors.fold(x)[0], t)
