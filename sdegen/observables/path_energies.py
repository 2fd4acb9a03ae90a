"""Energies along a path: those of the potential and of velocities, at the nodes of a run.

What `Work` and `Heat` read. An energy is looked at before the run: it must be finite at the times
of the run, and its differences must be those of the force that moves the trajectories; else work
and heat would be those of other dynamics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.core.shapes import State, as_column
from sdegen.core.slope_checks import check_slope
from sdegen.observables.base import Block
from sdegen.sde.potentials import (
    AnyPotential,
    DrivenPotential,
    FunctionPotential,
    Potential,
    energy_of,
)
from sdegen.sde.processes import Langevin
from sdegen.sde.underdamped import UnderdampedLangevin

_MOST_LOOKS = 33  # times of a run at which an energy is looked at before it
_LATER = 0.6180339887498949  # of a run: no period divides it


class PathEnergies:
    """Energies of the states of a block at its nodes, in double precision.

    Args:
        potential: U.
        block: What is seen.

    Raises:
        ValueError: If the potential has a force alone.
    """

    def __init__(self, potential: AnyPotential, block: Block) -> None:
        if not isinstance(potential, DrivenPotential | _HasEnergy):
            raise ValueError(  # noqa: TRY004, what it lacks is an energy
                f"work and heat are differences of energies, but {type(potential).__name__} has "
                "a force alone; give it energy(x), of shape (batch,)."
            )
        self._potential, self._block = potential, block
        self._place, self._ts = positions_of(block.sde), block.nodes

    def at(self, x: State, i: int) -> Tensor:
        """Return U at nodes[i], shape (rows,)."""
        place = self._place(x)
        energy = energy_of(self._potential, place, self._ts[i])
        if energy.shape != x.shape[:1]:
            raise ValueError(
                f"an energy must have shape (batch,), here ({len(x)},), but that of "
                f"{type(self._potential).__name__} has shape {tuple(energy.shape)}; sum it over "
                "the coordinates, .flatten(1).sum(1)."
            )
        return energy.double()

    def kinetic(self, x: State) -> Tensor:
        """Return m v²/2, shape (rows,); 0 where there are no velocities."""
        sde = self._block.sde
        if isinstance(sde, UnderdampedLangevin):
            return sde.kinetic_energy(x).double()
        return torch.zeros((), dtype=torch.float64, device=x.device)

    def check(self, x: State) -> None:
        """Refuse an energy that is not finite, or not that of its force, before the run."""
        nodes = self._ts
        looks = torch.linspace(0, len(nodes) - 1, min(_MOST_LOOKS, len(nodes))).round().long()
        for i in looks.tolist():
            value = self.at(x[:2], i)
            if not bool(value.isfinite().all()):
                raise ValueError(
                    f"the potential is {value.tolist()} at t = {float(nodes[i]):g}, where the run "
                    "will be: let U(x, t), or its protocol, return finite numbers at all times of "
                    "the run."
                )
        place = self._place(x).detach()
        reach = 0.5 * (0.1 + place.abs().max())
        ends = torch.stack([place.amin(0) - reach, place.amax(0) + reach])
        potential = self._potential
        if isinstance(potential, DrivenPotential):  # what is hidden at first may show later
            _check_force(potential.at(nodes[0]), ends)
            _check_force(potential.at(nodes[int(_LATER * (len(nodes) - 1))]), ends)
        elif not isinstance(potential, FunctionPotential):  # that of a function is checked anyway
            _check_force(potential, ends)


def _check_force(potential: Potential, ends: State) -> None:
    """Refuse an energy whose differences between two states are not those of its force."""
    if isinstance(potential, FunctionPotential):
        potential.check_force(ends)
        return
    check_slope(
        lambda y: as_column(potential.energy(y), y),
        lambda y: -potential.force(y),
        ends,
        name=f"the energy of {type(potential).__name__}",
        cure="Let force(x) return −∇U of what energy(x) returns.",
    )


@runtime_checkable
class _HasEnergy(Protocol):
    """What work and heat need of a potential."""

    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,)."""


def potential_of(sde: SDE) -> AnyPotential | None:
    """Return the potential that is all of the force of an SDE; None where there is no such."""
    if isinstance(sde, Langevin) and type(sde).drift is Langevin.drift:
        return sde.potential
    if isinstance(sde, UnderdampedLangevin) and not sde.own_methods("drift", "force"):
        return sde.potential
    return None


def positions_of(sde: SDE) -> Callable[[State], State]:
    """Return what gives the positions of states: all of them, where there are no velocities."""
    if isinstance(sde, UnderdampedLangevin):
        return sde.position
    return lambda x: x
