"""Fokker–Planck in the plane: stationary and transient densities, and currents that circulate.

The grid is a tensor grid. The current between nodes is found to high order from exponentially
fitted fluxes (`reconstruction`, `operator`), so that a drift that is no gradient may be strong
beside the noise: there is no numerical diffusion of low order. What rests without a current is
e^{−U/T}, to the quadrature of f/D. At rest a null vector is looked for (`rest`), in time the
exponential of the operator is applied, in Magnus steps where drift or diffusion change with time.

**Errors.** The same problem on every other node is solved as well. Both differ by three times the
error of the finer one where the scheme is of second order, by 15 times where it is of fourth; the
estimate is a seventh of the difference, a third from 1 % on, all of it from 10 % on. Above that
the grid is refined inside. The compact form keeps mass to rounding, and is positive to its
accuracy: what comes out below zero, by less than the estimate, is set to 0.

**Channels.** For a matrix G(x, t) "lumped" is an M-matrix on the offsets of D, and "compact" adds
what crosses (`channel_fluxes`, `channel_compact`). D is elliptic, its eigenvalues, in cells, of a
ratio of up to 1000. Real walls are n·J = 0 (`wall_layers`), as `Reflecting` is in a simulation.

Reference:
    Risken 1989, section 6.1; Seifert 2012, Rep. Prog. Phys. 75, 126001, eq. (18), for σ.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, warn_inaccurate
from sdegen.core.checks import check_count
from sdegen.core.enclosure import BoundaryLike
from sdegen.core.errors import NotNormalizableError, SolverError
from sdegen.core.evaluation import told_of_graphs
from sdegen.core.gradients import check_no_gradient
from sdegen.core.period import check_period
from sdegen.core.requests import refuse_lost_gradient
from sdegen.core.rows import check_density_of
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d import estimates, validation
from sdegen.fokker_planck.density2d.answers import answers_of
from sdegen.fokker_planck.density2d.channel_fluxes import ChannelGenerator
from sdegen.fokker_planck.density2d.channel_gaps import check_divergence
from sdegen.fokker_planck.density2d.density import PlaneDensity, PlaneForm, Solved
from sdegen.fokker_planck.density2d.estimates import COARSE, CURE, Errors
from sdegen.fokker_planck.density2d.front import PlaneFront
from sdegen.fokker_planck.density2d.level import PlaneLevel
from sdegen.fokker_planck.discretization import time_dependence as clock
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.questions.course import Course, course_of, warn_isolated
from sdegen.fokker_planck.validation import check_times

_TIGHT = 1e-6


class FokkerPlanck2D(PlaneFront):
    """The density of a two-dimensional SDE on a tensor grid, p of shape (nx, ny).

        ∂p/∂t = −Σ_i ∂_i (f_i p) + Σ_ij ∂_i ∂_j (D_ij p),     D = G Gᵀ/2

    Args:
        sde: Dynamics of two numbers with diagonal noise or channels; or an `UnderdampedLangevin`.
        grids: The grid of each coordinate.
        boundary: What bounds the coordinates, where the grids end: a `Reflecting`, `Absorbing` or
            `Periodic` for each, such as [Periodic(0.0, 6.28), None] or {0: Absorbing(high=1.0)};
            a coordinate without one has walls without flux, which only end the grid.
        form: "compact" (high order), "lumped" (positive by construction, second order), or "auto":
            compact, and lumped where the grid does not resolve what is asked for, and at real
            walls without flux where channels are correlated.
        truncation_is_physical: Whether the walls are part of the problem; if not, a density that
            leans on them is an error.

    Raises:
        TypeError: If boundary is none.
        ValueError: If the state is not of two numbers, a value is not finite, D is singular or too
            long, G jumps, a boundary ends elsewhere than its grid, or a period is not the drift's.

    Example:
        >>> trap = sg.ItoProcess(lambda x: -x * torch.tensor([1.0, 2.0]).to(x), 1.0)
        >>> rest = sg.FokkerPlanck2D(trap, (sg.Grid(-5.0, 5.0, 40),) * 2).stationary()
        >>> rest.covariance.round(decimals=4)  # D/k of each
        tensor([[0.5000, 0.0000],
                [0.0000, 0.2500]], dtype=torch.float64)
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
        validation.check_door(sde, grids)
        self.sde: SDE = sde
        self.grids: tuple[Grid, Grid] = grids
        self.truncation_is_physical: bool = truncation_is_physical
        self.form = validation.check_form(form)
        conditions, self._truncated = validation.walls_of(
            boundary, grids, physical=truncation_is_physical
        )
        self.conditions: tuple[validation.Pair, validation.Pair] = conditions
        self._walls = boundary, self._truncated
        self._level = PlaneLevel(sde, grids, self.conditions)
        x, y = (grid.nodes for grid in grids)
        start = torch.tensor(self._rest_time, dtype=torch.float64)
        states = self._level.mesh.some_points
        with suppress(IndexError, RuntimeError):  # a state of another size: see below
            check_density_of(sde, states, start)
        with told_of_graphs():
            self._level.generator.fluxes(self._rest_time)
        if isinstance(self._level.generator, ChannelGenerator):
            self._check_channels(self._level.generator)
        for axis, (grid, ring) in enumerate(zip(grids, self._level.rings, strict=True)):
            if ring:
                check_period(sde, [axis], grid.low, grid.high, states, [start])
        with torch.no_grad():
            sde.check_derivatives(torch.stack([x[[0, -1]], y[[0, -1]]], 1), start)
        self._blank = self._level.blank

    def gaussian(
        self,
        mean: tuple[float, float],
        covariance: Float[Tensor, "2 2"] | Sequence[Sequence[float]],
    ) -> PlaneDensity:
        """Return N(mean, covariance) at the nodes, of mass 1.

        Args:
            mean: (E X, E Y), inside the grid.
            covariance: Symmetric and positive.

        Raises:
            ValueError: If the mean lies outside, or the covariance is none.
        """
        return validation.gaussian(self._blank, mean, covariance)

    def point(self, x0: float, y0: float) -> PlaneDensity:
        """Return a start at a point: mass 1 at the nodes around it, with the right mean.

        Its width is that of a cell; what comes of it is worth something once it is wider.

        Raises:
            ValueError: If the point lies outside the grid.
        """
        return validation.point(self._blank, x0, y0)

    def stationary(self, *, rtol: float | None = None) -> PlaneDensity:
        """Solve for the stationary density, of mass 1; whatever current it carries circulates.

        Args:
            rtol: Relative error that is asked for, of its values and moments; the grid is refined
                inside until it is estimated to be below. None refines where it is above 10 %, and
                up to some 200² nodes where it is above 1e-3.

        Returns:
            The density at this grid's nodes, with its `error`.

        Raises:
            NotNormalizableError: If the density leans on a wall that is not physical by more than
                1e-2 of its peak, or all mass leaves through an absorbing one.
            ValueError: If drift or diffusion depend on time.
            SolverError: If the error stays above 10 % on refined grids; `.result` has the density.
        """
        validation.check_rtol(rtol)
        if self._level.absorbs:
            raise NotNormalizableError(
                "there is no stationary density: all mass leaves through the absorbing wall "
                f"(the walls are {self.conditions!r})."
            )
        self._check_no_gradient("a density in the plane")
        level, t = self._fresh(), self._rest_time
        if any(clock.moves(self.sde, a, level.mesh.some_points) for a in answers_of(self.sde)):
            raise ValueError(
                "drift or diffusion depend on time, so that nothing is at rest; carry a density "
                "with solve(p0, times), or freeze the time in the SDE."
            )
        level, solved, error, coarse = estimates.at_rest(level, self.form, t, rtol)
        density = self._handed(level, solved, error, coarse, "two grids")
        if not solved.sure:
            raise SolverError(
                "the density at rest is lost in rounding: the rate at which its parts exchange "
                "mass is below 1e-13 of the fastest, so that their weights are not known. Lower "
                "the barriers, or solve for each well between walls of its own.",
                density,
            )
        self._check_resolved(density, "the stationary density")
        validation.check_edges(density, self._truncated)
        warn_inaccurate(density.error, "the stationary density", CURE)
        return density

    def refined(self) -> PlaneDensity:
        """Solve for the stationary density as `stationary(rtol=1e-6)` does."""
        return self.stationary(rtol=_TIGHT)

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

        Drift and diffusion are read at each step's own nodes, unless the SDE says that they do
        not depend on time, and steps adapt. Before the run they are looked at some thousands of
        times, so that no step is longer than what changes; a change that is shorter than a
        thousandth of the run may be missed, and wants `breakpoints`.

        Args:
            p0: Density at times[0] on this grid, of mass 1; or the point (x, y) of a start.
            times: Strictly increasing; decreasing for dynamics that are meant for decreasing times
                (`ReverseSDE`).
            rtol: Relative error that is asked for, in space and time; the grid is refined inside
                until it is estimated to be below. None refines where it is above 10 %, and steps
                err by less than 1e-6 of the peak.
            substeps: Steps between two times, at the least.
            breakpoints: Times at which drift or diffusion jump or start to change; a step ends at
                each.

        Returns:
            The density at each of times, with its `error`; that of the start is empty.

        Raises:
            TypeError: If p0 is neither a density nor a point.
            ValueError: If times, substeps or p0 are refused.
            NotNormalizableError: If the density leans on a wall that is not physical.
            SolverError: If the error at the end stays above 10 % on a refined grid; `.result`
                holds the densities.
        """
        validation.check_rtol(rtol)
        check_count("substeps", substeps)
        ts = check_times(times, self.sde)
        self._check_no_gradient("a density in the plane", p0)
        self._fresh()
        start = validation.check_start(self._blank, p0, absorbs=self._level.absorbs)
        form, plan = self._form_over(ts.tolist()), self._course(ts, substeps, breakpoints)
        warn_isolated(plan)
        at = p0 if isinstance(p0, tuple) else None
        level, fine, errors, coarse = estimates.in_time(
            self._level, form or "compact", start, at, plan, rtol
        )
        if form is None and not errors[-1]["p"] <= COARSE:
            positive = estimates.in_time(self._level, "lumped", start, at, plan, rtol)
            if not positive[2][-1]["p"] > errors[-1]["p"]:
                level, fine, errors, coarse = positive
        every = slice(None, None, (len(errors) - 1) // (len(ts) - 1))  # substeps lie between
        path = [
            self._handed(level, *each, "two grids, and steps in time")
            for each in zip(fine[every], errors[every], coarse[every], strict=True)
        ]
        path[0] = start
        for t, density in zip(ts[1:].tolist(), path[1:], strict=True):
            validation.check_edges(density, self._truncated, f" at t = {t:g}")
        self._check_resolved(path[-1], f"the density at t = {float(ts[-1]):g}", path)
        worst = max(range(1, len(path)), key=lambda k: float(path[k].error))
        warn_inaccurate(path[worst].error, f"the density at t = {float(ts[worst]):g}", CURE)
        return path

    def solve_refined(
        self,
        p0: PlaneDensity | tuple[float, float],
        times: Tensor | Sequence[float],
        *,
        substeps: int = 1,
    ) -> list[PlaneDensity]:
        """Carry a density through times as `solve(..., rtol=1e-6)` does."""
        return self.solve(p0, times, rtol=_TIGHT, substeps=substeps)

    def entropy_production(
        self, density: PlaneDensity, *, time: float | None = None
    ) -> Float[Tensor, ""]:
        """Return σ = ∫ J·D⁻¹J/p dx dy of a density, in k_B per time; 0 in equilibrium.

        Args:
            density: At the nodes of this grid.
            time: When, of an SDE that depends on time; None is its earliest time, or 0.

        Returns:
            The number, whose `error` tells what every other node makes of it, relative to the
            number or to what diffusion by itself produces; and what is known of the density's.
        """
        self._check_no_gradient("an entropy production", density)
        validation.check_grid("density", density, self._blank)
        t = self._rest_time if time is None else time
        forms = validation.forms_of_currents(self.sde, self.form, density)
        return estimates.entropy_production(self._fresh(), density, t, forms)

    def current(
        self, density: PlaneDensity, *, time: float | None = None
    ) -> Float[Tensor, "2 nx ny"]:
        """Return (J_x, J_y) at the nodes; 0 across walls without flux.

        In the sense of time in which the SDE is meant: a `ReverseSDE` carries it to smaller times.

        Args:
            density: At the nodes of this grid.
            time: When, of an SDE that depends on time; None is its earliest time, or 0.

        Returns:
            The currents, whose `error` tells what every other node makes of them, relative to the
            largest, or to what diffusion by itself carries.
        """
        self._check_no_gradient("a current", density)
        validation.check_grid("density", density, self._blank)
        t = self._rest_time if time is None else time
        forms = validation.forms_of_currents(self.sde, self.form, density)
        return estimates.current(self._fresh(), density, t, forms)

    # ---- inside -------------------------------------------------------------------------------

    @property
    def _rest_time(self) -> float:
        """The time at which dynamics that do not depend on it are read."""
        return min(max(self.sde.time_range[0], 0.0), self.sde.time_range[1])

    @cached_property
    def _slope_by(self) -> SlopeBy:
        """How a derivative that drift and diffusion need is found."""
        t = torch.tensor(self._rest_time, dtype=torch.float64)
        return self.sde.slope_by(self._level.mesh.few_points, t)

    def _check_channels(self, generator: ChannelGenerator) -> None:
        """Refuse a matrix of which a solve would say later what is wrong with it."""
        self._level.coarser.generator.fluxes(self._rest_time)
        check_divergence(generator.reader, self._rest_time)
        self.form = self._form_over([self._rest_time])

    def _form_over(self, times: list[float]) -> PlaneForm | None:
        """Return the form for some times; real walls of a matrix leave one."""
        return validation.form_over(self.form, *self._walls, self._level.generator, times)

    def _fresh(self) -> PlaneLevel:
        """Return the problem on this grid; what the SDE answered before is not relied on."""
        self._level.forget()
        return self._level

    def _check_no_gradient(self, what: str, density: object = None) -> None:
        """Refuse dynamics and a density whose gradients would be lost."""
        if isinstance(density, PlaneDensity):
            refuse_lost_gradient("the density", density.p, what, validation.WITH_GRADIENT)
        t = torch.tensor(self._rest_time, dtype=torch.float64)
        check_no_gradient(self.sde, self._level.mesh.few_points, t, what, validation.WITH_GRADIENT)

    def _course(self, times: Tensor, substeps: int, breakpoints: Sequence[float]) -> Course:
        """Return the times of a run, and what is seen of drift and diffusion between them."""
        mesh = self._level.mesh
        looks: list[clock.Looks] = []
        if not self.sde.autonomous:
            width = min(float(grid.widths.min()) for grid in self.grids)
            first, last = float(times[0]), float(times[-1])
            looks = [
                clock.look(answers, mesh.few_points, first, last, width)
                for answers in answers_of(self.sde)
            ]
            share = torch.linspace(0, 1, substeps + 1, dtype=torch.float64)[:-1]
            between = times[:-1, None] + times.diff()[:, None] * share
            times = torch.cat([between.flatten(), times[-1:]])
        return course_of(times.tolist(), looks, breakpoints)

    def _handed(
        self, level: PlaneLevel, solved: Solved, error: Errors, coarse: Solved, method: str
    ) -> PlaneDensity:
        """Return the density at this grid's nodes, with its errors."""
        below = max(0.0, -float(solved.p.min()) / float(solved.p.max()))
        p = level.seen_at(solved.p, self._level).clamp(min=0.0)
        # what sums over this grid's nodes miss, and what came out below zero
        missed = level.differences(solved, self._level, Solved(p, solved.form))
        all_errors = {name: value + missed.get(name, 0.0) for name, value in error.items()}
        all_errors["p"] = max(error["p"], below)
        known = bool(coarse.p.isfinite().all())
        return replace(
            self._blank,
            p=p,
            error=ErrorEstimate(all_errors, method),
            form=solved.form,
            assumed_autonomous=self.sde.autonomous is None,
            slope_by=self._slope_by,
            compared=level.coarser.density(coarse.p.clamp(min=0.0)) if known else None,
        )

    def _check_resolved(self, density: PlaneDensity, what: str, result: object = None) -> None:
        """Refuse a density that no grid that was tried resolves."""
        error, fluxes = density.error["p"], self._level.generator.fluxes(self._rest_time)
        if not float(error) <= COARSE:
            raise SolverError(
                f"{what} is not resolved: its estimated relative error is {float(error):.2g} "
                f"({density.error.method}), with cells that the drift crosses in "
                f"1/{fluxes.steepest:.3g} of the time that diffusion needs. "
                f"The grid has {self.grids[0].cells} × {self.grids[1].cells} cells and finer ones "
                "did not help; take more cells where the density changes, or a smaller box.",
                density if result is None else result,
            )
