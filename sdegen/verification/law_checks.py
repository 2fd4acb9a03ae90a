"""Laws of a certificate, of the chain and of the SDE, and checks on them without randomness."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sdegen.core.errors import SdegenError
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundary, GridBoundaryLike
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.verification.chain import edge_ratio
from sdegen.verification.check import Check, Limits
from sdegen.verification.distances import total_variation
from sdegen.verification.refined import chain_law, refined

_OWN_CHECK = 1.0  # densities do not refine themselves: the grid has a check of its own


@dataclass(frozen=True)
class Laws:
    """The laws that trajectories are compared with.

    Attributes:
        chain: The exact law of the chain, or None.
        exact: The Fokker–Planck density, or None.
        refined: The same on half the spacing.
        no_chain: Why there is no law of the chain; empty if there is.
        no_density: Why there is no density; empty if there is.
    """

    chain: DensityPath | None
    exact: DensityPath | None
    refined: DensityPath | None
    no_chain: str
    no_density: str

    @classmethod
    def of(
        cls,
        sde: SDE,
        grid: Grid,
        solver: Solver,
        p0: Density | float,
        times: Tensor,
        boundary: GridBoundaryLike | None,
        tell: Callable[[str], None],
    ) -> Laws:
        """Compute the laws; `tell` is called with what is computed next."""
        tell("the law of the chain")
        chain, no_chain = _chain_law(sde, grid, solver, p0, times, boundary)
        tell("the Fokker–Planck density")
        exact, no_density, fine = _density(sde, grid, p0, times, boundary)
        return cls(chain, exact, fine, no_chain, no_density)

    @property
    def law(self) -> DensityPath:
        """The law of the chain where there is one, else that of the SDE.

        Raises:
            ValueError: If there is neither.
        """
        law = self.chain if self.chain is not None else self.exact
        if law is None:
            raise ValueError(
                f"there is no law to compare with: of the chain, since {self.no_chain} Of the "
                f"SDE, since {self.no_density}"
            )
        return law


def _chain_law(
    sde: SDE,
    grid: Grid,
    solver: Solver,
    p0: Density | float,
    times: Tensor,
    boundary: GridBoundaryLike | None,
) -> tuple[DensityPath | None, str]:
    """Return the law of the chain, or why there is none."""
    try:
        return chain_law(sde, grid, solver, p0, times, boundary), ""  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        return None, str(error)


def _density(
    sde: SDE, grid: Grid, p0: Density | float, times: Tensor, boundary: GridBoundaryLike | None
) -> tuple[DensityPath | None, str, DensityPath | None]:
    """Return the Fokker–Planck density, or why there is none, and the same on half the spacing."""
    fine = Grid(grid.low, grid.high, 2 * grid.cells)
    start = p0 if isinstance(p0, int | float) else refined(p0, fine)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the edges have a check of their own
            paths = [
                FokkerPlanck(sde, g, boundary or "no-flux", truncation_is_physical=True).solve(
                    p, times, rtol=_OWN_CHECK
                )
                for g, p in ((grid, p0), (fine, start))
            ]
        return paths[0], "", paths[1]
    except (TypeError, ValueError, SdegenError) as error:
        return None, str(error), None


def edge_checks(
    law: DensityPath, ends: GridBoundary | None, grid: Grid, limits: Limits
) -> list[Check]:
    """Check how much of the law the grid cuts, unless its ends are walls."""
    if ends is not None:
        return []
    ratio = edge_ratio(law)
    high = bool((law.p[:, -1] > law.p[:, 0])[int(ratio.argmax())])
    check = Check.of_value(
        "density at the ends of the grid, of its peak",
        float(ratio.max()),
        limits.edge,
        f"The grid [{grid.low:g}, {grid.high:g}] is too small: widen it towards "
        f"{'high' if high else 'low'} x, or pass boundary=… if its ends are walls.",
    )
    return [check]


def resolution_check(laws: Laws, limits: Limits) -> Check:
    """Check what half the spacing changes."""
    name = "total variation when the grid is refined"
    exact, fine = laws.exact, laws.refined
    if exact is None or fine is None:
        return Check.skipped(name, limits.resolution, laws.no_density)
    change = max(
        total_variation(exact.at(k), Density(exact.x, fine.p[k, ::2]))
        for k in range(1, len(exact))
    )
    return Check.of_value(
        name,
        change,
        limits.resolution,
        f"The grid of {len(exact.x) - 1} cells is too coarse for the density: take more.",
    )


def step_check(
    laws: Laws, solver: Solver, times: Tensor, limits: Limits, *, sound: bool, unbridged: bool
) -> Check:
    """Check the bias of the step; `unbridged` are absorbing walls without bridges."""
    name = "total variation between the chain and the SDE"
    chain, exact = laws.chain, laws.exact
    if chain is None or exact is None:
        return Check.skipped(name, limits.step, laws.no_chain or laws.no_density)
    if not sound:
        return Check.skipped(name, limits.step, "the grid cuts the law.")
    bias = max(total_variation(chain.at(k), exact.at(k)) for k in range(1, len(chain)))
    dt = float(solver.nodes(times).diff().abs().max())
    # without bridges, paths that touch a wall between two steps are not absorbed
    order = 0.5 if unbridged else 1.0
    enough = dt * (limits.step / bias) ** (1 / order) if bias > 0 else dt
    return Check.of_value(
        name,
        bias,
        limits.step,
        f"The step is too long: with dt = {dt:.3g} the law is off by {bias:.2g} in total "
        f"variation, however many trajectories are drawn; the bias falls with "
        f"{'dt' if order == 1 else '√dt'}: take dt ≤ {enough:.2g}.",
    )
