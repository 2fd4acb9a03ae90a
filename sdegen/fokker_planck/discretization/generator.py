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
            c = self.coefficients(self.reader.start)
            poles = find_poles(c, self.grid.nodes)
            low, high = (None if pole is None else pole.exponent for pole in poles)
            return BoundaryNodes(self.conditions, (low, high), self.grid.nodes)
