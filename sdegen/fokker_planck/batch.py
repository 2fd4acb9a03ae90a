"""A family of SDEs on one grid: all their densities at once, with gradients.

An SDE whose drift and diffusion have parameters θ is one member for each θ. No member sees
another: row k is the density that `FokkerPlanck` finds for the k-th SDE, with its error, and the
Jacobian ∂p_k/∂θ_l is zero for k ≠ l. It is what a scan over parameters, or a fit from many
starts, needs.

Assumed, beyond what `FokkerPlanck` asks: D > 0 at the walls too, and one boundary for all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import SupportsFloat, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import WARNS, ErrorEstimate, EstimatedTensor
from sdegen.core.conditions import BoundaryCondition
from sdegen.core.errors import NotNormalizableError, SdegenError
from sdegen.core.jumps import check_no_jumps
from sdegen.core.reduction import reduced
from sdegen.core.requests import check_kind
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundaryLike, boundary_of_grid
from sdegen.fokker_planck.questions.transient import Integrator
from sdegen.fokker_planck.solver import FokkerPlanck

Answer = TypeVar("Answer")


class FokkerPlanckBatch:
    """The densities of several one-dimensional SDEs on one grid.

        ∂p/∂t = −(f p)′ + (D p)″,     D = g²/2

    Args:
        sdes: Dynamics with a state of shape (batch, 1), all of one sense of time.
        grid: Nodes of the densities.
        boundary: As in `FokkerPlanck`.
        truncation_is_physical: Likewise.

    Raises:
        ValueError: If there is no SDE, one is refused as `FokkerPlanck` would, or has D = 0 at a
            wall.

    Example:
        >>> traps = [sg.OrnsteinUhlenbeck(rate=k) for k in (1.0, 2.0)]
        >>> grid = sg.Grid(-8.0, 8.0, cells=100)
        >>> p = sg.FokkerPlanckBatch(traps, grid).stationary()
        >>> [round(float(sg.Density(grid.nodes, row).variance), 5) for row in p]
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
            check_no_jumps(sde, "FokkerPlanckBatch")
        sdes = [reduced(sde, "FokkerPlanckBatch") for sde in sdes]
        check_kind("grid", grid, Grid, "a Grid, such as Grid(-3.0, 3.0, cells=200)")
        if not sdes or any(sde.direction != sdes[0].direction for sde in sdes):
            raise ValueError(
                f"a family needs one SDE at least, all of one sense of time, but got {len(sdes)} "
                f"with directions {sorted({sde.direction for sde in sdes})}."
            )
        self.sdes: tuple[SDE, ...] = tuple(sdes)
        self.grid: Grid = grid
        self.truncation_is_physical = truncation_is_physical
        ends = boundary_of_grid(boundary, grid)
        if ends.moving != (None, None):
            raise ValueError(
                "an absorbing end that moves is not built for families of densities; pass a "
                "number, or boundary= of simulate."
            )
        self.conditions: tuple[BoundaryCondition, BoundaryCondition] = ends.conditions
        self._members = [
            FokkerPlanck(sde, grid, boundary, truncation_is_physical=truncation_is_physical)
            for sde in sdes
        ]
        self._check_noise_at_walls()

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
        members = self._ask_each(
            lambda member: member.stationary(rtol=rtol, differentiable=differentiable),
            "while the stationary density of sdes[{}] was solved for",
        )
        self._check_noise_at_walls()  # parameters may have changed
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
        paths = self._ask_each(
            lambda member: member.solve(
                p0, times, integrator=integrator, breakpoints=breakpoints, rtol=rtol,
                differentiable=differentiable,
            ),
            "while the density of sdes[{}] was carried",
        )  # fmt: skip
        p = torch.stack([path.p for path in paths])
        told = [path.error for path in paths if path.error is not None]
        if len(told) < len(paths):
            return p
        each = {
            name: torch.stack([torch.as_tensor(error[name]) for error in told]) for name in told[0]
        }
        return EstimatedTensor.of(p, ErrorEstimate(each, told[0].method))

    def _ask_each(self, ask: Callable[[FokkerPlanck], Answer], doing: str) -> list[Answer]:
        """Ask the solver of each SDE; an error says of which it is, a warning points outside."""
        answers = []
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for k, member in enumerate(self._members):
                try:
                    answers.append(ask(member))
                except (SdegenError, ValueError) as error:
                    error.add_note(doing.format(k))
                    raise
        for one in heard:
            warnings.warn(one.message, one.category, stacklevel=3)
        return answers

    @torch.no_grad()
    def _check_noise_at_walls(self) -> None:
        """Refuse an SDE with D = 0 at a wall."""
        for k, member in enumerate(self._members):
            generator = member._generator
            d = generator.coefficients(generator.reader.start).nodal_diffusivity
            if bool((d[[0, -1]] == 0).any()):
                raise ValueError(
                    f"the diffusion of sdes[{k}] vanishes at a wall; a family needs D > 0 "
                    "everywhere: solve these one by one with FokkerPlanck."
                )
