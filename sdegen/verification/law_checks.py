"""Laws of a certificate, of the chain and of the SDE, and checks on them without randomness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdegen.core.errors import SdegenError
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.verification.chain import edge_ratio
from sdegen.verification.check import Check, Limits
from sdegen.verification.distances import total_variation
from sdegen.verification.problem import Problem


@dataclass(frozen=True)
class Laws:
    """The laws that trajectories are compared with.

    Attributes:
        problem: What they are the laws of.
        chain: The exact law of the chain, or None.
        exact: The Fokker–Planck density, or None.
        refined: The same on half the spacing.
        no_chain: Why there is no law of the chain; empty if there is.
        no_density: Why there is no density; empty if there is.
    """

    problem: Problem
    chain: DensityPath | None
    exact: DensityPath | None
    refined: DensityPath | None
    no_chain: str
    no_density: str

    @classmethod
    def of(cls, problem: Problem, tell: Callable[[str], None]) -> Laws:
        """Compute the laws; `tell` is called with what is computed next."""
        chain = exact = fine = None
        no_chain = no_density = ""
        tell("the law of the chain")
        try:
            chain = problem.chain_law()
        except (TypeError, ValueError) as error:
            no_chain = str(error)
        tell("the Fokker–Planck density")
        try:
            exact, fine = problem.density(), problem.density(finer=2)
        except (TypeError, ValueError, SdegenError) as error:
            no_density = str(error)
        return cls(problem, chain, exact, fine, no_chain, no_density)

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


def edge_checks(laws: Laws, limits: Limits) -> list[Check]:
    """Check how much of the law the grid cuts, unless its ends are walls."""
    if laws.problem.boundary is not None:
        return []
    law, grid = laws.law, laws.problem.grid
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


def step_check(laws: Laws, limits: Limits, *, sound: bool) -> Check:
    """Check the bias of the step; `sound` is whether the grid holds the law."""
    name = "total variation between the chain and the SDE"
    chain, exact, problem = laws.chain, laws.exact, laws.problem
    if chain is None or exact is None:
        return Check.skipped(name, limits.step, laws.no_chain or laws.no_density)
    if not sound:
        return Check.skipped(name, limits.step, "the grid cuts the law.")
    bias = max(total_variation(chain.at(k), exact.at(k)) for k in range(1, len(chain)))
    dt = float(problem.solver.nodes(problem.times).diff().abs().max())
    # without bridges, paths that touch a wall between two steps are not absorbed
    unbridged = problem.ends is not None and problem.absorbs and not any(problem.ends.bridged)
    enough = dt * (limits.step / bias) ** (2.0 if unbridged else 1.0) if bias > 0 else dt
    return Check.of_value(
        name,
        bias,
        limits.step,
        f"The step is too long: with dt = {dt:.3g} the law is off by {bias:.2g} in total "
        f"variation, however many trajectories are drawn; the bias falls with "
        f"{'√dt' if unbridged else 'dt'}: take dt ≤ {enough:.2g}.",
    )
