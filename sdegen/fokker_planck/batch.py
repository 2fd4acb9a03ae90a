"""A family of SDEs on one grid: all their densities at once, with gradients.

An SDE whose drift and diffusion have parameters θ is one member for each θ. No member sees
another: row k is the density that `FokkerPlanck` finds for the k-th SDE, with its error, and the
Jacobian ∂p_k/∂θ_l is zero for k ≠ l. It is what a scan over parameters, or a fit from many
starts, needs.

Assumed, beyond what `FokkerPlanck` asks: D > 0 at the walls too, and one boundary for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import SupportsFloat

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import WARNS, ErrorEstimate, EstimatedTensor
from sdegen.core.errors import NotNormalizableError, SdegenError
from sdegen.core.noise_structure import check_diagonal
from sdegen.core.requests import check_kind
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.batch_readers import Readers
from sdegen.fokker_planck.discretization.fluxes import Landscape
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundaryLike, boundary_of_grid
from sdegen.fokker_planck.questions import stationary
from sdegen.fokker_planck.questions.transient import Integrator
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.fokker_planck.validation import check_ring


class FokkerPlanckBatch:
    """The densities of several one-dimensional SDEs on one grid.

    Args:
        sdes: Dynamics with a state of shape (batch, 1), all of one sense of time.
        grid: Nodes of the densities.
        boundary: As in `FokkerPlanck`.
        truncation_is_physical: Likewise.

    Raises:
        ValueError: If there is no SDE, one is refused as `FokkerPlanck` would, or has D = 0 at a
            wall.

    >>> from sdegen.sde.processes import OrnsteinUhlenbeck
    >>> traps = [OrnsteinUhlenbeck(rate=k) for k in (1.0, 2.0)]
    >>> grid = Grid(-8.0, 8.0, cells=100)
    >>> p = FokkerPlanckBatch(traps, grid).stationary()
    >>> [round(float(Density(grid.nodes, row).variance), 5) for row in p]
    [1.0, 0.5]
    """

    def __init__(
        self,
        sdes: Sequence[SDE],
        grid: Grid,
        boundary: GridBoundaryLike = "no-flux",
        *,
        truncation_is_physical: bool = False,
    ) -> None:
        expected = "a list of SDEs, such as [OrnsteinUhlenbeck(k) for k in rates]"
        check_kind("sdes", sdes, (list, tuple), expected)
        for i, sde in enumerate(sdes):
            check_kind(f"sdes[{i}]", sde, SDE, "an SDE, such as OrnsteinUhlenbeck(1.0)")
            check_diagonal(sde, "FokkerPlanckBatch")
        check_kind("grid", grid, Grid, "a Grid, such as Grid(-3.0, 3.0, cells=200)")
        if not sdes or any(sde.direction != sdes[0].direction for sde in sdes):
            raise ValueError(
                f"a family needs one SDE at least, all of one sense of time, but got {len(sdes)} "
                f"with directions {sorted({sde.direction for sde in sdes})}."
            )
        self.sdes, self.grid, self.truncation_is_physical = (
            tuple(sdes),
            grid,
            truncation_is_physical,
        )
        self._boundary = boundary
        ends = boundary_of_grid(boundary, grid, physical=truncation_is_physical)
        if ends.moving != (None, None):
            raise ValueError(
                "an absorbing end that moves is not built for families of densities; pass a "
                "number, or boundary= of simulate."
            )
        self.conditions, self._physical_ends = ends.conditions, ends.physical
        if self.conditions[0].wraps:
            for sde in sdes:
                check_ring(sde, grid)
        self._build(Readers(sdes, grid))

    def stationary(
        self, *, rtol: float = WARNS, differentiable: bool = False
    ) -> Float[Tensor, "members nodes"]:
        """Return the stationary densities, of mass 1.

        Each is solved for as `FokkerPlanck.stationary` does. They are an `EstimatedTensor`:
        `.error["p"]` is relative to the peak of each.

        Args:
            rtol: Largest error of masses, mean and variance, as there.
            differentiable: Whether gradients flow to the parameters of drift and diffusion.

        Returns:
            Nodal values, a row for each SDE.

        Raises:
            ValueError: If an SDE depends on time, or a density leans on a wall that is not
                physical.
            NotNormalizableError: As `FokkerPlanck.stationary` does.
            SolverError: Likewise.
        """
        if any(wall.absorbs for wall in self.conditions):
            raise NotNormalizableError(
                "there are no stationary densities: all mass leaves through the absorbing wall "
                f"(boundary is {self.conditions!r})."
            )
        self._renew()
        generator = self._compact
        if generator.reader.varies_at_all():
            raise ValueError(
                "stationary densities were asked for, but drift or diffusion depend on time; "
                "freeze the time in the SDEs, or solve from a start."
            )
        land_on = _landscape if differentiable else None
        members = []
        for k, reader in enumerate(self._readers.each):
            alone = Generator(reader, self.conditions, compact=True)
            try:
                members.append(stationary.resolved(alone, rtol, self._truncated, land_on))
            except (SdegenError, ValueError) as error:
                error.add_note(f"while the stationary density of sdes[{k}] was solved for")
                raise
        errors = torch.tensor([float(member.error["p"]) for member in members if member.error])
        return EstimatedTensor.of(
            torch.stack([member.p for member in members]),
            ErrorEstimate({"p": errors.double()}, "two grids"),
        )

    def solve(
        self,
        p0: Density | SupportsFloat,
        times: Tensor | Sequence[float],
        *,
        integrator: Integrator | None = None,
        breakpoints: Sequence[float] = (),
        rtol: float = WARNS,
        differentiable: bool = False,
    ) -> Float[Tensor, "members T nodes"]:
        """Carry one start through times under every SDE.

        Each is carried as `FokkerPlanck.solve` does. They are an `EstimatedTensor`: `.error` holds
        that of p, mean, variance and mass of each at each time, shape (members, T).

        Args:
            p0: As in `FokkerPlanck.solve`, the same for all.
            times: Likewise.
            integrator: Likewise.
            breakpoints: Likewise.
            rtol: Likewise.
            differentiable: Whether gradients flow to the parameters of drift and diffusion, and
                to p0.

        Returns:
            Nodal values at times.

        Raises:
            ValueError: If times or p0 are refused, or a density leans on a wall that is not
                physical.
            NonFiniteError: If a density became NaN or infinite; `.result` holds its path.
            SolverError: As `FokkerPlanck.solve` does.
        """
        paths = []
        for k, member in enumerate(self._members):
            try:
                paths.append(
                    member.solve(
                        p0,
                        times,
                        integrator=integrator,
                        breakpoints=breakpoints,
                        rtol=rtol,
                        differentiable=differentiable,
                    )
                )
            except (SdegenError, ValueError) as error:
                error.add_note(f"while the density of sdes[{k}] was carried")
                raise
        p = torch.stack([path.p for path in paths])
        told = [path.error for path in paths if path.error is not None]
        if len(told) < len(paths):
            return p
        each = {
            name: torch.stack([torch.as_tensor(error[name]) for error in told]) for name in told[0]
        }
        return EstimatedTensor.of(p, ErrorEstimate(each, told[0].method))

    @cached_property
    def _members(self) -> list[FokkerPlanck]:
        """A solver for each."""
        physical = self.truncation_is_physical
        return [
            FokkerPlanck(sde, self.grid, self._boundary, truncation_is_physical=physical)
            for sde in self.sdes
        ]

    def _build(self, readers: Readers) -> None:
        """Make what drifts and diffusions are written as, anew."""
        self._readers = readers
        self._compact = Generator(readers, self.conditions, compact=True)
        with torch.no_grad():
            d = self._compact.coefficients(self._compact.reader.start).nodal_diffusivity
        at_wall = (d[:, [0, -1]] == 0).any(1)
        if bool(at_wall.any()):
            raise ValueError(
                f"the diffusion of sdes[{int(at_wall.nonzero()[0])}] vanishes at a wall; a family "
                "needs D > 0 everywhere: solve these one by one with FokkerPlanck."
            )

    def _renew(self) -> None:
        """Forget what was made of drifts and diffusions if one has changed since."""
        if self._readers.renewed():
            self._build(self._readers)

    @property
    def _truncated(self) -> tuple[bool, bool]:
        """Which ends are walls without flux that only end the grid."""
        low, high = (
            wall.reflects and not real
            for wall, real in zip(self.conditions, self._physical_ends, strict=True)
        )
        return low, high


def _landscape(generator: Generator) -> Landscape:
    """Return the landscape of a generator, with gradients to its parameters."""
    return generator.landscape(generator.coefficients(generator.reader.start))
