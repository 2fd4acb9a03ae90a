"""The generator: an SDE on a grid between two walls, ready to be written as an operator.

One object that the stationary, the transient and the backward problems share: it knows the
dynamics, the grid, the walls, and which form of the operator is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sdegen.core.conditions import BoundaryCondition
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.coefficients import Coefficients
from sdegen.fokker_planck.discretization.fluxes import Fluxes, Landscape, fluxes, landscape
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.operator import Operator, assemble, bands
from sdegen.fokker_planck.discretization.poles import find_poles
from sdegen.fokker_planck.discretization.reader import Reader


@dataclass(frozen=True)
class Generator:
    """p_t = −(f p)_x + (D p)_xx on a grid.

    Args:
        reader: The SDE's coefficients on the grid.
        conditions: Lower and upper wall.
        compact: Form of the operator: compact, or lumped.
    """

    reader: Reader
    conditions: tuple[BoundaryCondition, BoundaryCondition]
    compact: bool
    _last: list[tuple[Coefficients, Operator]] = field(default_factory=list, repr=False)
    _land: list[Landscape] = field(default_factory=list, repr=False)

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.reader.grid

    def with_form(self, *, compact: bool) -> Generator:
        """Return the same generator in another form."""
        twin = Generator(self.reader, self.conditions, compact)
        twin.__dict__["ends"] = self.ends
        return twin

    def on(self, grid: Grid) -> Generator:
        """Return the same generator on another grid between the same walls."""
        twin, known = Generator(self.reader.on(grid), self.conditions, self.compact), self.ends
        if known.exponents == (None, None):  # D > 0 at the same two walls
            twin.__dict__["ends"] = BoundaryNodes(self.conditions, (None, None), grid.nodes)
        return twin

    def coefficients(self, t: float) -> Coefficients:
        """Return f and D at time t."""
        return self.reader.at(t)

    def at_start(self) -> Coefficients:
        """Return f and D at a time at which the dynamics are defined."""
        return self.coefficients(self.reader.start)

    def landscape(self, c: Coefficients) -> Landscape:
        """Return f/D of coefficients, integrated over the cells; cached as `operator_of` is."""
        if torch.is_grad_enabled() or c.drift.ndim > 2:
            return landscape(c, self.grid.nodes)
        if not self._land or self._land[0].coefficients is not c:
            self._land[:] = [landscape(c, self.grid.nodes)]
        return self._land[0]

    def fluxes(self, c: Coefficients) -> Fluxes:
        """Return the fluxes of coefficients."""
        return fluxes(self.landscape(c))

    def operator(self, c: Coefficients) -> Operator:
        """Return the operator of coefficients."""
        return assemble(self.fluxes(c), self.ends, compact=self.compact)

    def bands(self, c: Coefficients) -> tuple[Tensor, Tensor]:
        """Return M and K of coefficients."""
        return bands(self.fluxes(c), self.ends, compact=self.compact)

    def operator_at(self, t: float) -> Operator:
        """Return the operator at time t; `operator_of` says when it is remembered."""
        return self.operator_of(self.coefficients(t))

    def operator_of(self, c: Coefficients) -> Operator:
        """Return the operator of coefficients, remembered without gradients until others come."""
        if torch.is_grad_enabled():
            return self.operator(c)
        if not self._last or self._last[0][0] is not c:
            self._last[:] = [(c, self.operator(c))]
        return self._last[0][1]

    @cached_property
    def ends(self) -> BoundaryNodes:
        """The ends of the grid; a wall that cannot be is refused here."""
        with torch.no_grad():
            poles = find_poles(self.at_start(), self.grid.nodes)
            low, high = (None if pole is None else pole.exponent for pole in poles)
            return BoundaryNodes(self.conditions, (low, high), self.grid.nodes)


class Frozen:
    """Coefficients, landscape and fluxes of an SDE whose drift and diffusion take no time.

    Density at rest, currents, first passages and spectra belong to one pair f(x), D(x). Both are
    read when they are first needed, and remembered with what follows from them, until the solver
    finds that they have changed. With gradients they are read anew.

    Args:
        generator: The SDE on a grid.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def check(self, what: str) -> None:
        """Refuse an SDE that depends on time.

        Args:
            what: What was asked for.

        Raises:
            ValueError: If drift or diffusion depend on time.
        """
        if self._generator.reader.varies_at_all():
            raise ValueError(
                f"{what} was asked for, but drift or diffusion depend on time; freeze the time in "
                "the SDE, or solve from a start."
            )

    @property
    def assumed_autonomous(self) -> bool:
        """Whether it is an assumption that drift and diffusion do not depend on time.

        Then they take t, and answered alike at the times that were looked at; the SDE says neither
        that they depend on it nor that they do not.
        """
        return self._generator.reader.assumed_autonomous

    def landscape(self, *, fresh: bool = False) -> Landscape:
        """Return f/D, integrated over the cells; a fresh one knows its parameters."""
        return self._read() if fresh else self._land

    def read(self, *, fresh: bool = False) -> tuple[Coefficients, Fluxes]:
        """Return the coefficients and their fluxes; fresh ones know their parameters."""
        land = self.landscape(fresh=fresh)
        return land.coefficients, fluxes(land)

    def _read(self) -> Landscape:
        return self._generator.landscape(self._generator.at_start())

    @cached_property
    def _land(self) -> Landscape:
        with torch.no_grad():
            return self._read()
