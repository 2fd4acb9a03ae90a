"""Energies along a path: those of the potential and of velocities, at the nodes of a run.

What `Work` and `Heat` read. An energy is looked at before the run: it must be finite at the times
of the run, and its differences must be those of the force that moves the trajectories; else work
and heat would be those of other dynamics. A protocol that jumps is told: a step with a jump in it
is taken by the forces of before and after.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sdegen.core.errors import AccuracyWarning
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

_FEWEST = 4  # nodes, from which on a jump is told from a slope
_JUMP, _TINY = 4.0, 1e-9  # of the changes of the steps beside it
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
        values = []
        for i in looks.tolist():
            value = self.at(x[:2], i)
            values.append(value.detach())
            if not bool(value.isfinite().all()):
                raise ValueError(
                    f"the potential is {value.tolist()} at t = {float(nodes[i]):g}, where the run "
                    "will be: let U(x, t), or its protocol, return finite numbers at all times of "
                    "the run."
                )
        if isinstance(self._potential, DrivenPotential) and len(nodes) > _FEWEST:
            self._warn_of_jump(x[:2].detach(), looks.tolist(), values)
        place = self._place(x).detach()
        reach = 0.5 * (0.1 + place.abs().max())
        ends = torch.stack([place.amin(0) - reach, place.amax(0) + reach])
        potential = self._potential
        if isinstance(potential, DrivenPotential):  # what is hidden at first may show later
            _check_force(potential.at(nodes[0]), ends)
            _check_force(potential.at(nodes[int(_LATER * (len(nodes) - 1))]), ends)
        elif not isinstance(potential, FunctionPotential):  # that of a function is checked anyway
            _check_force(potential, ends)

    @torch.no_grad()
    def _warn_of_jump(self, x: State, looks: list[int], values: list[Tensor]) -> None:
        """Warn of a protocol that jumps, by halving where it changes most to a single step."""

        def change(i: int) -> float:
            """How far the step from node i on changes U, 0 beyond the run."""
            inside = 0 <= i < len(self._ts) - 1
            return float((self.at(x, i + 1) - self.at(x, i)).abs().max()) if inside else 0.0

        changes = [float((b - a).abs().max()) for a, b in pairwise(values)]
        k = max(range(len(changes)), key=changes.__getitem__)
        (low, first), (high, last) = zip(looks[k : k + 2], values[k : k + 2], strict=True)
        while high - low > 1:
            middle = (low + high) // 2
            value = self.at(x, middle)
            if float((value - first).abs().max()) > float((last - value).abs().max()):
                high, last = middle, value
            else:
                low, first = middle, value
        if change(low) > _JUMP * max(change(low - 1), change(low + 1), _TINY):
            t, s = float(self._ts[low]), float(self._ts[high])
            warnings.warn(
                f"the potential jumps between t = {t:g} and {s:g}: in that step work and heat are "
                "right to first order in its length alone. Take shorter steps; or end the run "
                "there, begin another, and add U after the jump less U before it to the work.",
                AccuracyWarning,
                stacklevel=2,
            )


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
