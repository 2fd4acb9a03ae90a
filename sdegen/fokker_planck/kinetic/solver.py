"""The kinetic (Klein–Kramers) equation: densities of position and velocity.

    p_t = −v p_x − (F(x)/m) p_v + ∂_v[γ(x) (v p + (T/m) p_v)]

of an `UnderdampedLangevin` particle of one coordinate, in Hermite functions of v and splines of x
(`operator`). At rest, without a tilt, e^{−(U + m v²/2)/T}/Z is put into the discrete equation, and
handed back if it solves it to rounding; else a null vector is looked for. In time steps are
rational (`transient`), in the spectrum a shift is inverted (`spectrum`).

**Linearity is kept, positivity is not**: a sum of starts gives the sum of the densities, mass is
kept to rounding, streaming dissipates nothing, and values may lie below 0 by what the estimate of
their error says. Nothing is clipped. `PlaneDensity.keeps` says so.

**Starts** that are hotter than the bath, or far up a potential, have no Hermite series of its
temperature T: then functions of a higher one, θ, are taken, which cost accuracy at rest.

**Errors.** The same problem on every other node with half as many functions is solved as well, as
in `FokkerPlanck2D`; moments of the nodes are compared with those of the coefficients.

**Walls.** At reflecting ends, and where a grid only ends, particles bounce, p(x, v) = p(x, −v); an
absorbing end is refused.

Reference:
    Risken 1989, The Fokker–Planck Equation, sections 10.1–10.3; Kramers 1940, Physica 7, 284.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, EstimatedTensor, SlopeBy, warn_inaccurate
from sdegen.core.checks import check_count
from sdegen.core.enclosure import BoundaryLike
from sdegen.core.errors import SolverError
from sdegen.core.gradients import check_no_gradient
from sdegen.core.period import check_period
from sdegen.core.requests import refuse_lost_gradient
from sdegen.core.rows import check_density_of
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d import validation as plane
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density2d.estimates import COARSE, CURE, Errors, budget
from sdegen.fokker_planck.density2d.level import graded
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.refinement import coarsened, positions
from sdegen.fokker_planck.kinetic import currents, validation
from sdegen.fokker_planck.kinetic.level import (
    MOST_FUNCTIONS,
    Kinetic,
    KineticLevel,
    moments_apart,
    ratio_for,
)
from sdegen.fokker_planck.kinetic.operator import Particle
from sdegen.fokker_planck.kinetic.rest import at_rest
from sdegen.fokker_planck.kinetic.spectrum import KineticSpectrum, modes
from sdegen.fokker_planck.kinetic.splines import Splines
from sdegen.fokker_planck.kinetic.transient import carry, longest_step, resolved
from sdegen.fokker_planck.validation import check_times
from sdegen.sde.underdamped import UnderdampedLangevin

_TOLERANCE = 1e-6  # of the peak: what steps may do
_MOST, _MANY = 40_000, 16_000  # unknowns at rest of a finer grid; where an error is small already
_MOST_MOVED, _MANY_MOVED = 16_000, 9_000  # in time


class KineticFokkerPlanck(FokkerPlanck2D):
    """The density of an underdamped particle of one coordinate, on a grid of (x, v).

    `FokkerPlanck2D(sde, (grid_x, grid_v))` makes one of an `UnderdampedLangevin`.

    Args:
        sde: An `UnderdampedLangevin` with states of shape (batch, 2, 1).
        grids: The grid of the position, whose nodes are those of the splines; and that of the
            velocity, which has as many cells as there are Hermite functions, up to 128.
        boundary: What bounds the position where its grid ends: {0: Reflecting(low, high)}, at
            which particles bounce, or {0: Periodic(low, high)}.
        form: "auto"; there is no other.
        truncation_is_physical: Whether the ends of the position are walls.

    Raises:
        ValueError: If there are several coordinates, no friction or temperature, a wall is none
            of these, or cells of the velocity are wider than √(T/m).
    """

    def __init__(
        self,
        sde: SDE,
        grids: tuple[Grid, Grid],
        boundary: BoundaryLike | None = None,
        *,
        form: str = "auto",
        truncation_is_physical: bool = False,
    ) -> None:
        plane.check_door(sde, grids)
        validation.check_form(form)
        validation.check_walls(boundary)
        self.sde: SDE = sde
        self.grids: tuple[Grid, Grid] = grids
        self.truncation_is_physical: bool = truncation_is_physical
        conditions, self._truncated = plane.walls_of(
            boundary, grids, physical=truncation_is_physical, event=validation.EVENT
        )
        self.conditions: tuple[plane.Pair, plane.Pair] = conditions
        self._truncated[2:] = [True, True]  # velocities have no walls
        particle = self._particle()
        for field in (particle.energy, particle.force, particle.friction):
            field(Splines(grids[0].nodes.numpy(), ring=False).points)  # refuses what is not finite
        validation.check_count(grids, (particle.temperature / particle.mass) ** 0.5)
        x, v = (grid.nodes for grid in grids)
        ring = self._ring = conditions[0][0].wraps
        t = torch.tensor(self._rest_time, dtype=torch.float64)
        some = torch.cartesian_prod(x[::7], v[::7])[:, :, None]
        check_density_of(sde, some, t)
        if ring:
            check_period(sde, [0], grids[0].low, grids[0].high, some, [t])
        sde.check_derivatives(torch.stack([x[[0, -1]], v[[0, -1]]], 1)[:, :, None], t)
        self._few = some[:: max(1, len(some) // 16)]
        validation.check_fields(cast(UnderdampedLangevin, sde), particle, self._few, t)
        self._blank = PlaneDensity(
            x, v, torch.zeros(len(x), len(v), dtype=torch.float64), rings=(ring, False),
            phase_space=True,
        )  # fmt: skip

    def stationary(self, *, rtol: float | None = None) -> PlaneDensity:
        """Solve for the stationary density, of mass 1.

        Args:
            rtol: As `FokkerPlanck2D.stationary` takes it.

        Returns:
            The density at the nodes, with its `error`.

        Raises:
            NotNormalizableError: If the density leans on an end that is no wall by more than 1e-2
                of its peak.
            ValueError: If the potential depends on time.
            SolverError: If the error stays above 10 % on finer grids; `.result` has the density.
        """
        plane.check_rtol(rtol)
        self._check_no_gradient("a density in phase space")
        if self.sde.autonomous is False:
            raise ValueError(
                "the potential depends on time, and nothing rests in phase space; freeze the time "
                "in the potential, or simulate."
            )
        level = self._problem()
        coarse = at_rest(level.coarser)
        while True:
            fine = at_rest(level)
            errors = graded(self._apart(fine, coarse), "compact")
            if not level.finer.size <= budget(errors, rtol, _MOST, _MANY):
                break
            coarse, level = fine, level.finer
        density = self._density_of(fine, errors, coarse, "two grids")
        plane.check_edges(density, self._truncated)
        self._judge(density, "the stationary density", density)
        return density

    def solve(
        self,
        p0: PlaneDensity | tuple[float, float],
        times: Tensor | Sequence[float],
        *,
        rtol: float | None = None,
        substeps: int = 1,
        breakpoints: Sequence[float] = (),
    ) -> list[PlaneDensity]:
        """Carry a density through times.

        Args:
            p0: Density at times[0] on this grid, of mass 1; or the point (x, v) of a start.
            times: Strictly increasing.
            rtol: As `FokkerPlanck2D.solve` takes it.
            substeps: Steps between two times, at the least.
            breakpoints: Not needed: nothing changes in time.

        Returns:
            The density at each of times, with its `error`; that of the start is empty.

        Raises:
            TypeError: If p0 is neither a density nor a point.
            ValueError: If times, substeps or p0 are refused, or the potential depends on time.
            NotNormalizableError: If the density leans on an end that is no wall.
            SolverError: If the error at the end stays above 10 % on a finer grid; `.result` holds
                the densities.
        """
        plane.check_rtol(rtol)
        check_count("substeps", substeps)
        ts = check_times(times, self.sde).tolist()
        self._check_no_gradient("a density in phase space", p0)
        self._check_steady()
        start = plane.check_start(self._blank, p0, absorbs=False)
        at = p0 if isinstance(p0, tuple) else start
        level = self._problem()
        ratio = ratio_for(level, at)
        tolerance = _TOLERANCE if rtol is None else min(_TOLERANCE, rtol / 30)
        longest = longest_step(level, ts) / substeps
        below = level.coarser.at_start(at, ratio, thinned=True)
        length, coarse, misses = resolved(below, ts, longest, self._far, tolerance)
        while True:
            fine = carry(level.at_start(at, ratio), ts, length)
            errors = [
                {
                    name: value + miss
                    for name, value in graded(self._apart(*pair), "compact").items()
                }
                for *pair, miss in zip(fine, coarse, misses, strict=True)
            ]
            worst = {name: max(error[name] for error in errors[1:]) for name in errors[0]}
            if not level.finer.size <= budget(worst, rtol, _MOST_MOVED, _MANY_MOVED):
                break
            coarse, level = fine, level.finer
        method = "two grids, and steps in time"
        each = zip(fine, errors, coarse, strict=True)
        path = [self._density_of(p, error, c, method) for p, error, c in each]
        path[0] = start
        for t, density in zip(ts[1:], path[1:], strict=True):
            plane.check_edges(density, self._truncated, f" at t = {t:g}")
        worst_at = max(range(1, len(path)), key=lambda k: float(path[k].error))
        if float(path[-1].error["p"]) > COARSE:
            worst_at = len(path) - 1
        self._judge(path[worst_at], f"the density at t = {ts[worst_at]:g}", path)
        return path

    def spectrum(
        self, count: int = 2, *, near: complex = 0.0, rtol: float | None = None
    ) -> KineticSpectrum:
        """Find the modes whose rates are nearest to a number, with complex rates.

        Nearest to 0 are the slowest where friction is not weak. A pair that turns fast and decays
        slowly, as that of a trap with frequency ω does at γ < ω, is nearest to 1j * ω.

        Args:
            count: How many modes; of those nearest to 0 the mode at rest is one.
            near: The rate near which they are sought, in units of 1/time.
            rtol: Relative error that finer grids are taken for; None takes 1e-6, within some
                30,000 unknowns.

        Raises:
            ValueError: If count is < 1, or the potential depends on time.
            SolverError: If they are not found.
        """
        check_count("count", count)
        plane.check_rtol(rtol)
        self._check_no_gradient("a spectrum")
        self._check_steady()
        rates, found, error = modes(self._problem(), count, complex(near), rtol)
        x, v = self._blank.x, self._blank.y
        shapes = []
        for mode in found:
            psi = mode.at(x.numpy(), v.numpy())
            top = psi.flat[abs(psi).argmax()]
            psi = psi * (abs(top) / top)
            size = float((self._blank.weights.numpy() * abs(psi) ** 2).sum()) ** 0.5
            shapes.append(torch.from_numpy(psi.astype(complex) / size))
        answer = KineticSpectrum(
            x, v, torch.from_numpy(rates.astype(complex)), torch.stack(shapes), error=error,
            slope_by=self._slope_by,
        )  # fmt: skip
        warn_inaccurate(error, "the spectrum", CURE)
        return answer

    def entropy_production(
        self, density: PlaneDensity, *, time: float | None = None
    ) -> Float[Tensor, ""]:
        """Return σ = ∫ m J²/(γ T p) of the irreversible current, in units of k_B per time.

        J = −γ (v p + (T/m) p_v); 0 in equilibrium. At rest it is the work of what drives it, over
        T.

        Args:
            density: At the nodes of this grid.
            time: When the force is read; it does not enter.
        """
        self._check_no_gradient("an entropy production", density)
        plane.check_grid("density", density, self._blank)
        particle = self._particle(time)
        fine, scale = currents.production(particle, density)
        coarse, _ = currents.production(particle, currents.thinned(density))
        apart = abs(fine - coarse) / max(abs(fine), scale, 1e-300)
        of_density = 2 * float(density.error.get("p", 0.0))
        told = {"value": graded({"p": apart}, "compact")["p"] + of_density}
        error = ErrorEstimate(told, "every other node")
        warn_inaccurate(error, "the entropy production", CURE)
        return EstimatedTensor.of(torch.tensor(fine, dtype=torch.float64), error)

    def current(
        self, density: PlaneDensity, *, time: float | None = None
    ) -> Float[Tensor, "2 nx nv"]:
        """Return (J_x, J_v) = (v p, F p/m − γ (v p + (T/m) p_v)) at the nodes.

        Args:
            density: At the nodes of this grid.
            time: When the force is read, of a potential that depends on time; None is 0.
        """
        self._check_no_gradient("a current", density)
        plane.check_grid("density", density, self._blank)
        particle = self._particle(time)
        values = currents.current(particle, density)
        thin = currents.thinned(density)
        coarse = currents.current(particle, thin)
        i, j = (
            positions(Grid.of(few), Grid.of(all_)).numpy()
            for few, all_ in ((thin.x, density.x), (thin.y, density.y))
        )
        scale = max(float(abs(values).max()), 1e-300)
        apart = float(abs(values[:, i][:, :, j] - coarse).max()) / scale
        told = {"value": graded({"p": apart}, "compact")["p"]}
        error = ErrorEstimate(told, "every other node")
        warn_inaccurate(error, "the current", CURE)
        return EstimatedTensor.of(torch.from_numpy(values), error)

    # ---- inside -------------------------------------------------------------------------------

    @property
    def _slope_by(self) -> SlopeBy:
        """How the force is found."""
        return self.sde.slope_by(self._few, torch.tensor(self._rest_time, dtype=torch.float64))

    def _particle(self, time: float | None = None) -> Particle:
        """Return what the SDE says now."""
        t = self._rest_time if time is None else time
        return validation.particle_of(cast(UnderdampedLangevin, self.sde), t)

    def _problem(self) -> KineticLevel:
        """Return the problem on this grid; what the SDE answered before is not relied on."""
        count = min(self.grids[1].cells, MOST_FUNCTIONS)
        return KineticLevel(self._particle(), self.grids[0], count, ring=self._ring)

    def _check_steady(self) -> None:
        """Refuse a potential that depends on time."""
        if self.sde.autonomous is False:
            raise ValueError(
                "a density in phase space under a potential that depends on time is not built; "
                "take simulate or run_ensemble, or freeze the time in the potential."
            )

    def _check_no_gradient(self, what: str, density: object = None) -> None:
        """Refuse dynamics and a density whose gradients would be lost."""
        cure = ", or take the gradient along paths, simulate(…, differentiable=True)"
        if isinstance(density, PlaneDensity):
            refuse_lost_gradient("the density", density.p, what, cure)
        t = torch.tensor(self._rest_time, dtype=torch.float64)
        check_no_gradient(self.sde, self._few, t, what, cure)

    def _apart(self, fine: Kinetic, coarse: Kinetic) -> Errors:
        """Return how far apart two densities are, in the units of an `ErrorEstimate`."""
        nodes = self._blank.x.numpy(), self._blank.y.numpy()
        p, other = fine.at(*nodes), coarse.at(*nodes)
        apart = {"p": float(abs(p - other).max() / p.max())}
        return apart | moments_apart(*fine.moments, *coarse.moments)

    def _far(self, fine: Kinetic, coarse: Kinetic) -> float:
        """Return the largest of these differences."""
        return max(self._apart(fine, coarse).values())

    def _density_of(
        self, solved: Kinetic, error: Errors, coarse: Kinetic, method: str
    ) -> PlaneDensity:
        """Return the density at the nodes, with its errors."""
        x, v = self._blank.x, self._blank.y
        p = torch.from_numpy(solved.at(x.numpy(), v.numpy()))
        below = max(0.0, -float(p.min()) / float(p.max()))
        few = [coarsened(grid).nodes for grid in self.grids]
        other = torch.from_numpy(coarse.at(*(nodes.numpy() for nodes in few)))
        density = replace(
            self._blank,
            p=p,
            form="hermite",
            assumed_autonomous=self.sde.autonomous is None,
            slope_by=self._slope_by,
            compared=replace(self._blank, x=few[0], y=few[1], p=other),
        )
        nodal = density.mean.numpy(), density.covariance.numpy()
        missed = moments_apart(*solved.moments, *nodal)  # what sums over the nodes miss
        errors = {name: value + missed.get(name, 0.0) for name, value in error.items()}
        errors["p"] = max(errors["p"], below)
        return replace(density, error=ErrorEstimate(errors, method))

    def _judge(self, density: PlaneDensity, what: str, result: object) -> None:
        """Warn of an error, or refuse a density that no grid that was tried resolves."""
        error = float(density.error["p"])
        if not error <= COARSE:
            raise SolverError(
                f"{what} is not resolved: its estimated relative error is {error:.2g} "
                f"({density.error.method}). The grid has {self.grids[0].cells} × "
                f"{self.grids[1].cells} cells; take more cells of both, or a smaller box. A "
                "narrow start, or one far up the potential, is resolved once friction and noise "
                "have spread it.",
                result,
            )
        warn_inaccurate(density.error, what, CURE, stacklevel=4)
