"""Fokker–Planck: the density of an SDE, from the same drift and diffusion that are simulated.

    p_t = −(f p)_x + (D p)_xx = −J_x,    D = g²/2        (Itô; multiplicative noise of any
    interpretation arrives as Itô)

`FokkerPlanck` puts an SDE on a grid between two walls, and is asked for what a physicist asks:
the density at rest and in time, currents and what they cost, first passages, rates, spectra. The
stationary density is solved for directly; a density in time is carried by an exponential, or by
implicit steps. The operator is compact, of fourth order in the cell, where the density is
resolved by the grid, and lumped, positive and of second order, where it is not.

Assumed: one dimension; D > 0 inside the grid. Said, not hidden: how much of the density leans on
a wall that is not meant to be one.

This file is a façade: every question that is asked of a solver is a method here, with its page,
and is answered in `questions/`; that is why it is long.

What drift and diffusion make of the grid is remembered, and used as long as they do not change.
They may hold parameters that do: before each answer they are evaluated once more, and compared to
the last bit.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Literal, SupportsFloat, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import (
    WARNS,
    ErrorEstimate,
    Estimated,
    EstimatedTensor,
    SlopeBy,
    warn_inaccurate,
)
from sdegen.core.checks import check_count, check_positive, check_word
from sdegen.core.conditions import BoundaryCondition
from sdegen.core.errors import NonFiniteError, NotNormalizableError, SdegenError, SolverError
from sdegen.core.gradients import check_no_gradient
from sdegen.core.reduction import reduced
from sdegen.core.requests import check_function, check_kind, refuse_lost_gradient
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.generator import Frozen, Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundaryLike, boundary_of_grid
from sdegen.fokker_planck.discretization.power_law import Powers, with_poles
from sdegen.fokker_planck.discretization.reader import Reader
from sdegen.fokker_planck.discretization.refinement import coarsened, halved, positions
from sdegen.fokker_planck.questions import currents, jumps, stationary, survival
from sdegen.fokker_planck.questions.circulation import ComplexSpectrum, turning_spectrum
from sdegen.fokker_planck.questions.correlation import correlation
from sdegen.fokker_planck.questions.course import course, warn_isolated
from sdegen.fokker_planck.questions.escape import Escape, escape
from sdegen.fokker_planck.questions.feller import BoundaryClass, classify_boundary
from sdegen.fokker_planck.questions.levels import Found, Levels, Start, found
from sdegen.fokker_planck.questions.moving import MovingEnds, MovingFrame, in_words_of_the_frame
from sdegen.fokker_planck.questions.passage import PassageTimes, passages
from sdegen.fokker_planck.questions.passage_moments import to_be_left
from sdegen.fokker_planck.questions.sources import Killing, Sources, in_time
from sdegen.fokker_planck.questions.spectrum import Spectrum, spectrum
from sdegen.fokker_planck.questions.survival import Law, Survival
from sdegen.fokker_planck.questions.transient import Exponential, Integrator, carried
from sdegen.fokker_planck.questions.transport import Transport, transport
from sdegen.fokker_planck.questions.two_grids import Answer, disagreement
from sdegen.fokker_planck.validation import (
    as_start,
    check_accurate,
    check_confined,
    check_door,
    check_edges,
    check_resolved,
    check_ring,
    check_start,
    check_times,
)

Form = Literal["auto", "compact", "lumped"]
Answered = TypeVar("Answered", bound=Answer)
Known = TypeVar("Known", Estimated, EstimatedTensor)

_FINEST = 6  # times a grid is halved for a tolerance
_MODES = 48  # slow ones, which are what is late
_FEW_CELLS = 32
# of what is refined inside as far as can be afforded, whatever rtol is
_AT_JUMPS = "Pass a grid with nodes where drift or diffusion jump: Grid.of(nodes)."
_WITH_GRADIENT = (
    ", or take that of what has differentiable=True: stationary, solve and first_passage"
)
_FINER = "Pass a grid with more cells where the density is steep, or a density that is smoother."


class FokkerPlanck:
    """The density of a one-dimensional SDE on a grid.

        ∂p/∂t = −∂J/∂x − k p,     J = f p − (D p)′,     D = g²/2

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        grid: Nodes of the density.
        boundary: "no-flux", "absorbing" or "periodic", or a pair (lower, upper); or `Reflecting`,
            `Absorbing` or `Periodic` with the ends of the grid, whose ends are then physical.
        form: "compact" (fourth order), "lumped" (second order, positive), or "auto": compact
            where the density is resolved by the grid, else lumped.
        killing: A death rate k(x) ≥ 0, a number or an elementwise function, in units of 1/time:
            −k p is added to the equation.
        injection: A point, or a density on the grid, where all that is killed or absorbed starts
            anew; None where it is gone.
        truncation_is_physical: Whether walls without flux are part of the problem. If not, they
            only end the grid, and a density that leans on them is an error. A wall where D = 0 is
            always physical.

    Raises:
        TypeError: For an sde or grid of another kind.
        ValueError: For a misspelt wall, a state that is not one-dimensional, a drift or diffusion
            that is not finite, or D = 0 inside the grid.

    Example:
        >>> trap = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-8.0, 8.0, cells=100))
        >>> round(float(trap.stationary().variance), 6)
        1.0
    """

    def __init__(
        self,
        sde: SDE,
        grid: Grid,
        boundary: GridBoundaryLike = "no-flux",
        *,
        form: Form = "auto",
        truncation_is_physical: bool = False,
        killing: Killing | None = None,
        injection: float | Density | None = None,
    ) -> None:
        check_door(sde, grid)
        sde = reduced(sde, "FokkerPlanck")
        self.sde: SDE = sde
        self.grid: Grid = grid
        ends = boundary_of_grid(boundary, grid, physical=truncation_is_physical)
        self.conditions: tuple[BoundaryCondition, BoundaryCondition] = ends.conditions
        self.physical_ends: tuple[bool, bool] = ends.physical
        if self.conditions[0].wraps:
            check_ring(sde, grid)
        check_word("form", form, get_args(Form))
        self.form = form
        self.truncation_is_physical: bool = all(ends.physical)
        self._moving: MovingEnds | None = None
        self._shown = grid  # whose ends a message names
        self._sources = None
        if killing is not None or injection is not None:
            self._sources = Sources(killing, injection)
            self._sources.check(grid)
        self._jumping = None
        self._build(Reader(sde, grid))
        if sde.jumps is not None and self._sources is not None:
            raise ValueError(
                "killing= and injection= are not built for dynamics that jump; leave them out, or "
                "make injection a jump, CompoundPoisson(rate, lambda x, u: x0 - x)."
            )
        self._jumping = jumps.Jumping.of(sde, self._generator, ends.physical)
        if ends.moving != (None, None):
            self._refuse_killing("a density between ends that move")
            self._moving = MovingEnds(ends, grid)
            frame, unit = MovingFrame(sde, self._moving), self._moving.unit()
            with in_words_of_the_frame():
                physical = self.truncation_is_physical
                self._inner = FokkerPlanck(
                    frame, unit, self.conditions, form=form, truncation_is_physical=physical
                )
            self._inner._shown = grid

    # ---- densities ----------------------------------------------------------------------------

    def solve(
        self,
        p0: Density | SupportsFloat,
        times: Tensor | Sequence[float],
        *,
        integrator: Integrator | None = None,
        breakpoints: Sequence[float] = (),
        rtol: float = WARNS,
        differentiable: bool = False,
    ) -> DensityPath:
        """Carry a density through times.

        Args:
            p0: Density at times[0], on the grid's nodes, of mass 1, or less where a wall absorbs;
                a number is a start at that point.
            times: Strictly increasing; decreasing for dynamics that are meant for decreasing
                times (`ReverseSDE`).
            integrator: `Exponential()` if None; `BackwardEuler(substeps)` for steps that are
                positive by construction.
            breakpoints: Times at which drift or diffusion do something sudden. Jumps, and pulses
                that last for a thousandth of the run, are found without; what is shorter is not.
            rtol: Largest error of densities, relative to their peak, and of mass, mean and
                variance; cells that are too coarse for it are halved inside. Without gradients.
            differentiable: Whether gradients flow to the parameters of drift and diffusion, and
                to p0.

        Returns:
            Densities at times with their estimated `error`. Between walls without flux, and on a
            ring, their mass is that of p0.

        Raises:
            ValueError: If times or p0 are refused, or the density leans on a wall that is not
                physical.
            NonFiniteError: If the density became NaN or infinite; `.result` holds the path.
            SolverError: If no grid that is affordable resolves it to 10 %, or no step in time is
                short enough.
        """
        check_positive("rtol", rtol)
        if self._jumping is not None:
            return self._solve_with_jumps(p0, times, integrator, rtol, differentiable)
        if self._sources is not None:
            return self._solve_with_sources(p0, times, integrator, differentiable=differentiable)
        if self._moving is not None:
            path = self._solve_between_moving_ends
            return path(self._moving, p0, times, integrator, breakpoints, rtol, differentiable)
        integrator = integrator or Exponential()
        self._renew()
        ts = check_times(times, self.sde)
        x0, density = as_start(p0, self.grid, self._generator.ends.powers)
        start = check_start(density, self.grid, may_lack=self._absorbs)
        powers = self._generator.ends.powers
        if integrator.lumped_only and self.form == "compact":
            raise ValueError(
                f"{type(integrator).__name__} is positive for the lumped form only; pass "
                "form='lumped' or 'auto'."
            )
        smooth = x0 is None and self._is_smooth(density)
        held = density if start is density.p else replace(density, p=start)
        with _gradients(differentiable):
            plan = course(self._generator.reader, ts, breakpoints)
            warn_isolated(plan)
            begin = Start(held, x0, smooth, self.grid)
            refined = not differentiable
            run = found(self._levels, begin, plan, integrator, rtol=rtol, refined=refined)
        result = self._path(ts, run, density, powers)
        self._check_path(result, run, ts)
        first = 1
        if x0 is not None or not density.is_resolved:
            first = check_resolved(result)
        if run.error is not None and not run.worst <= rtol:
            by_number = integrator.substeps is not None
            check_accurate(run.error, first, rtol, by_number=by_number)
        return result

    def _check_path(self, result: DensityPath, run: Found, times: Tensor) -> None:
        """Refuse densities that are not finite, or that lean on a wall that cuts them off."""
        if not np.isfinite(run.p.detach().numpy().sum()) and not bool(torch.isfinite(run.p).all()):
            bad = int((~torch.isfinite(run.p).all(1)).nonzero()[0])
            raise NonFiniteError(
                f"the density is not finite at t = {float(times[bad]):g}.", result
            )
        seen = result.p.detach()  # what is ∞ is at a wall without noise, which cuts nothing
        bounded = self._generator.ends.powers == (None, None)
        seen = seen if bounded else seen.where(torch.isfinite(seen), 0.0)
        check_edges(seen, times, self._shown, self._truncated)

    def stationary(self, *, rtol: float = WARNS, differentiable: bool = False) -> Density:
        """Return the stationary density, of mass 1.

        Where drift and diffusion take t and the SDE does not say whether they depend on it, they
        are looked at at times from 0 to 16 at which it is defined; `assumed_autonomous` says so.

        Args:
            rtol: Largest error of mass, mean and variance; cells that the grid makes too coarse
                for it are halved inside.
            differentiable: Whether gradients flow to the parameters of drift and diffusion.

        Returns:
            The density with its estimated `error`; between walls without flux it carries no
            current, on a ring a constant one.

        Raises:
            ValueError: If the SDE depends on time, or the density leans on a wall that is not
                physical.
            NotNormalizableError: If mass leaves through an absorbing wall, or the density grows
                towards an end.
            SolverError: If no grid that is affordable resolves it to 10 %.
        """
        check_positive("rtol", rtol)
        sources = self._sources
        if sources is None or sources.injection is None:
            if self._absorbs:
                raise NotNormalizableError(
                    "there is no stationary density: all mass leaves through the absorbing wall "
                    f"(boundary is {self.conditions!r}). If what leaves is put back, pass "
                    "injection=, a point or a density."
                )
            if sources is not None:
                raise NotNormalizableError(
                    "there is no stationary density: all mass is killed. If what dies is put "
                    "back, pass injection=, a point or a density."
                )
        self._renew()
        self._frozen.check("a stationary density")
        if self._jumping is not None:
            return self._rest_with_jumps(self._jumping, rtol, differentiable)
        if not differentiable and rtol in self._at_rest:
            return self._at_rest[rtol]
        rest = stationary.resolved(
            self._generator, rtol, self._truncated, sources, differentiable=differentiable
        )
        rest = replace(rest, slope_by=self._slope_by)
        if not differentiable:
            self._at_rest[rtol] = rest
        return rest

    # ---- currents -----------------------------------------------------------------------------

    def current(self, density: Density, t: float | None = None) -> Float[Tensor, " cells"]:
        """Return J = f p − (D p)′ in every cell, in units of 1/time.

        It is an `EstimatedTensor`: `.error["J"]` is relative to the larger of the largest current
        and the largest one-way flux.

        Args:
            density: A density on the grid.
            t: Time at which drift and diffusion are taken; None for an SDE without time.

        Raises:
            ValueError: If there is no t, and the SDE depends on time.
            SolverError: If no grid that is affordable resolves it to 10 %.
        """
        self._refuse_jumps("a current")
        self._check_given(density, "a current")
        return _warned(currents.current(self._generator, self._time(t), density), "the current")

    def entropy_production(self, density: Density, t: float | None = None) -> Estimated:
        """Return σ = ∫ J²/(D p) dx, in units of k_B per time, a float with its `.error`.

        Args:
            density: A density on the grid.
            t: As in `current`.
        """
        self._refuse_sources("an entropy production")
        self._check_given(density, "an entropy production")
        sigma = currents.entropy_production(self._generator, self._time(t), density)
        return _warned(sigma, "the entropy production")

    def free_energy(self, density: Density) -> Estimated:
        """Return F = ∫ p log(p/p_st) dx, in units of kT above rest; it never grows (H-theorem).

        It is a float with its `.error`, relative to max(F, 1e-3).

        Args:
            density: A density on the grid.
        """
        self._refuse_sources("a free energy")
        self._check_given(density, "a free energy")
        f, relative = currents.free_energy(density, self.stationary())
        error = ErrorEstimate({"value": relative}, "two grids")
        return _warned(Estimated(f, error), "the free energy")

    def free_energies(self, path: DensityPath) -> Float[Tensor, " T"]:
        """Return F along time, of every density of a path, in units of kT above rest.

        The H-theorem: dF/dt = −∫ J²/(D p) dx on a line, whatever the start, so that F falls until
        it is 0. On a ring with a current it falls too, by less than that. It is an
        `EstimatedTensor`: `.error["F"]` is relative to max(F, 1e-3) at each time.

        Args:
            path: Densities on the grid, of an SDE that does not depend on time.
        """
        self._refuse_sources("a free energy")
        self._check_no_gradient("a free energy", path)
        rest = self.stationary()
        each = [currents.free_energy(path.at(k), rest) for k in range(len(path))]
        errors = torch.tensor([relative for _, relative in each], dtype=torch.float64)
        f = torch.stack([f for f, _ in each])
        error = ErrorEstimate({"F": errors}, "two grids")
        return _warned(EstimatedTensor.of(f, error), "the free energies")

    def transport(self, *, rtol: float | None = None) -> Transport:
        """Return velocity and effective diffusion of the unwrapped coordinate of a ring.

        Args:
            rtol: Relative error that grids are refined for; None takes 1e-6, and what is
                affordable.

        Returns:
            Both with their estimated errors, at barriers of any height and for any tilt.

        Raises:
            ValueError: If the walls are not periodic, or the SDE depends on time.
            SolverError: If rtol is not met.
        """
        if not self._generator.ends.ring:
            raise ValueError(
                "velocity and effective diffusion belong to a ring, but boundary is "
                f"{self.conditions!r}; pass 'periodic'."
            )
        self._check_no_gradient("a transport")
        self._check_steady("a transport", rtol)
        return self._marked(transport(self._on, self.grid, rtol), "the transport")

    # ---- leaving ------------------------------------------------------------------------------

    def first_passage(
        self, *, moments: int = 2, rtol: float | None = None, differentiable: bool = False
    ) -> PassageTimes:
        """Return when, and through which wall, a start at each node leaves.

        Args:
            moments: How many moments of the time, ≥ 1.
            rtol: Relative error that grids are refined for; None takes 1e-6, and what is
                affordable.
            differentiable: Whether gradients flow to the parameters of drift and diffusion.

        Returns:
            Moments of the time of first passage, and the chance to leave through the upper wall:
            between two absorbing walls that is the committor; with their estimated errors.

        Raises:
            ValueError: If no wall absorbs, the SDE depends on time, moments is less than 1, or a
                wall that only ends the grid cuts the well that is left.
            NotNormalizableError: If the density without current grows towards such a wall.
            SolverError: If rtol is not met, or a moment is above the largest number.
        """
        passage = self._passages(moments, rtol, differentiable=differentiable)
        return self._marked(passage, "the first passage")

    def _passages(self, moments: int, rtol: float | None, *, differentiable: bool) -> PassageTimes:
        """Return first passages from all nodes."""
        check_count("moments", moments)
        self._check_absorbing("a first passage")
        self._check_steady("a first passage", rtol)
        self._check_cut("no first passage of finite mean")

        def fresh(grid: Grid) -> tuple[Fluxes, BoundaryNodes]:
            generator = self._generator if grid is self.grid else self._generator.on(grid)
            return Frozen(generator).read(fresh=True)[1], generator.ends

        return passages(self._on, self.grid, moments, rtol, fresh if differentiable else None)

    def survival(
        self, x0: float, times: Tensor | Sequence[float], *, rtol: float | None = None
    ) -> Survival:
        """Return the law of the time at which a start at x0 leaves.

        Args:
            x0: The start.
            times: Times since the start, strictly increasing, the first is 0; an SDE that depends
                on time is started at its t = 0.
            rtol: Error of both that grids are refined for; None takes the user's grid.

        Returns:
            The chance to be inside at times, and the density of first passages, with their
            estimated errors.

        Raises:
            ValueError: If no wall absorbs, or times do not start at 0.
            SolverError: If rtol is not met, or rounding leaves nothing of the answer.
        """
        _check_rtol(rtol)
        self._check_absorbing("a survival probability")
        self._check_no_gradient("a survival probability")
        ts = check_times(times, self.sde)
        if float(ts[0]) != 0:
            raise ValueError(
                f"times count from the start, so that times[0] must be 0, but is {float(ts[0]):g}."
            )
        place = x0
        if self._moving is not None:
            self._moving.check(ts)
            place = self._moving.place(x0, 0.0)
        asked = self if self._moving is None else self._inner
        with in_words_of_the_frame() if self._moving is not None else nullcontext():
            found = asked._survival(place, ts, rtol)
        answer = asked._marked(found, "the survival", "Pass rtol=, or more cells.")
        return replace(answer, x0=x0, slope_by=self._slope_by)

    def _survival(self, x0: float, ts: Tensor, rtol: float | None) -> Survival:
        """Return the law of the time at which a start leaves, with its errors."""
        solver, errors = self, list[float]()
        below: tuple[FokkerPlanck, Law] | None = None
        for left in reversed(range(_FINEST)):
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                found, below = solver._compared(x0, ts, below)
            errors.append(float(found.error))
            if rtol is None or errors[-1] <= rtol:
                for one in heard:  # of coarser grids nobody asked
                    warnings.warn(one.message, one.category, stacklevel=3)
                return found
            falls = [after / max(error, 1e-300) for error, after in itertools.pairwise(errors)]
            if len(falls) > 1 and errors[-1] * min(falls) ** left > rtol:
                break  # where drift or diffusion jump an error only halves
            solver = solver._twin(halved(solver.grid)) if left else solver
        raise SolverError(
            f"the survival was not found to rtol = {rtol:g} on {solver.grid.cells} cells: "
            f"its estimated error is {errors[-1]:.2g}. Pass a larger rtol, a grid with "
            "nodes where drift or diffusion jump, or times that are later than the first moments "
            "of a start at a point."
        )

    def _compared(
        self, x0: float, ts: Tensor, below: tuple[FokkerPlanck, Law] | None
    ) -> tuple[Survival, tuple[FokkerPlanck, Law]]:
        """Return the law on this grid, with its distance from that on another one, `below`."""
        here = self._law(x0, ts)
        coarser = self.grid.cells % 2 == 0 and self.grid.cells >= _FEW_CELLS
        if below is not None:
            (other, there), coarser = below, True
        else:
            other = self._twin(coarsened(self.grid) if coarser else halved(self.grid))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is said of it was said of this grid
                there = other._law(x0, ts)
        low, high = (other, self) if coarser else (self, other)
        with torch.no_grad():
            kept = positions(low.grid, high.grid).numpy()
            (rough, _), (flux, ends) = low._on(low.grid), high._on(high.grid)
            jumps, parted = disagreement(rough, flux, ends, kept)
        fourfold = coarser and not parted
        return survival.compared(ts, x0, here, there, fourfold=fourfold, jumps=jumps), (self, here)

    def _law(self, x0: float, ts: Tensor) -> Law:
        """Return the law of the time at which a start leaves, on this grid."""
        with torch.no_grad():
            path = self._on_these_cells(x0, ts)  # what calls this compares grids itself
            generator = self._generator
            operators = [generator.operator_at(t) for t in ts.tolist()]
            if all(operator is operators[0] for operator in operators):
                operators = operators[:1]
            here = survival.law(path, operators, generator.ends, steady=self._is_steady)
            count = min(_MODES, (self.grid.cells - 1) // 4)
            if not (self._is_steady and survival.needs_modes(here) and count > 2):
                return here
            try:
                self._check_cut("no survival that belongs to the line")
                modes = spectrum(self._on, self.grid, count, None)
            except (ValueError, SdegenError):
                return here  # there are none, and rounding is told
            return survival.by_modes(modes, *self._on(self.grid), x0, ts, here)

    def _on_these_cells(self, x0: float, ts: Tensor) -> DensityPath:
        """Carry a point on the user's cells alone, without an error."""
        self._renew()
        first = check_start(self.grid.point(x0), self.grid, may_lack=True)
        plan = course(self._generator.reader, ts)
        warn_isolated(plan)
        sharp = first if self.form == "lumped" else self.grid.sharp_point(x0)
        fallback = self._lumped if self.form == "auto" else None
        p, _, _ = carried(self._generator, first, sharp, plan, Exponential(), fallback)
        path = DensityPath(ts, p, self.grid.nodes, self._generator.ends.powers)
        check_edges(path.p, ts, self._shown, self._truncated)
        check_resolved(path)
        return path

    def _marked(self, answer: Answered, what: str, cure: str = _AT_JUMPS) -> Answered:
        """Warn of an answer's errors, and say in it how the dynamics were read."""
        # PassageTimes.std tells of its own
        told = {name: error for name, error in answer.error.items() if name != "std"}
        warn_inaccurate(ErrorEstimate(told, answer.error.method), what, cure, stacklevel=4)
        assumed = self._frozen.assumed_autonomous and self._is_steady
        return replace(answer, assumed_autonomous=assumed, slope_by=self._slope_by)

    def _check_given(self, density: Density, what: str) -> None:
        """Refuse what is no density, or has a gradient that would be lost."""
        check_kind("density", density, Density, "a Density, such as .stationary() returns")
        self._check_no_gradient(what, density)

    def _check_no_gradient(self, what: str, density: Density | DensityPath | None = None) -> None:
        """Refuse dynamics and a density whose gradients would be lost."""
        if density is not None:
            refuse_lost_gradient("the density", density.p, what, _WITH_GRADIENT)
        t = torch.tensor(self._generator.reader.start, dtype=torch.float64)
        check_no_gradient(self.sde, self.grid.nodes[1:-1:8, None], t, what, _WITH_GRADIENT)

    @property
    def _is_steady(self) -> bool:
        """Whether drift and diffusion do not depend on time."""
        return not self._generator.reader.varies_at_all()

    def _twin(self, grid: Grid) -> FokkerPlanck:
        """Return the same problem on another grid between the same walls."""
        return FokkerPlanck(
            self.sde, grid, self.conditions, form=self.form, truncation_is_physical=True
        )

    def escape(self, *, rtol: float | None = None) -> Escape:
        """Return the rate of escape from the deepest well, beside Kramers' formula.

        Args:
            rtol: Relative error of the rate that grids are refined for; None takes 1e-6, and what
                is affordable.

        Raises:
            ValueError: Unless exactly one wall absorbs, behind a barrier; or if the SDE depends
                on time, or the grid cuts the well.
        """
        if [wall.absorbs for wall in self.conditions].count(True) != 1:
            raise ValueError(
                "an escape needs one absorbing wall and one without flux, but boundary is "
                f"{self.conditions!r}; pass ('no-flux', 'absorbing')."
            )
        self._check_no_gradient("an escape")
        passage = self._passages(1, rtol, differentiable=False)
        to_high = self.conditions[1].absorbs
        found = escape(self.grid.nodes, self._frozen.landscape(), passage, to_high=to_high)
        return self._marked(found, "the escape")

    # ---- relaxation ---------------------------------------------------------------------------

    def spectrum(self, count: int = 6, *, rtol: float | None = None) -> Spectrum:
        """Return the slowest modes, without circulation.

        Args:
            count: How many, 2 at least.
            rtol: Relative error of the rates that grids are refined for; None takes 1e-7, and
                what 40,000 cells give.

        Returns:
            Rates, eigenfunctions of L and of its adjoint, and the relaxation time, with the
            estimated error of the rates.

        Raises:
            ValueError: If count is too small or too large, the SDE depends on time, a current
                runs around a ring, or a wall that only ends the grid cuts the density.
            NotNormalizableError: If the density without current grows towards such a wall.
            SolverError: If a rate is too small for a number, or rtol is not met.
        """
        self._check_modes(count, rtol)
        if self._generator.ends.ring:
            with torch.no_grad():
                lumped = self._lumped.operator(self._frozen.landscape().coefficients)
            if lumped.circulation > 1e-10 * float(lumped.speed.max()):
                raise ValueError(
                    "a current runs around the ring, so that the spectrum is complex; ask for "
                    "turning_spectrum()."
                )
        else:
            self._check_cut("no spectrum that belongs to the line")
        return self._marked(spectrum(self._on, self.grid, count, rtol), "the spectrum")

    def turning_spectrum(self, count: int = 6, *, rtol: float | None = None) -> ComplexSpectrum:
        """Return the modes of a ring nearest to rest, whether or not a current runs around it.

        Args:
            count: How many, 2 at least.
            rtol: Relative error of the rates that grids are refined for; None takes 1e-7, and
                what 12,000 cells give.

        Returns:
            Complex rates with their estimated errors, and eigenfunctions of L.

        Raises:
            ValueError: If the walls are not periodic, count is too small or too large, or the SDE
                depends on time.
            SolverError: If rtol is not met.
        """
        if not self._generator.ends.ring:
            raise ValueError(
                "a spectrum is complex on a ring only, but boundary is "
                f"{self.conditions!r}; ask for spectrum()."
            )
        self._check_modes(count, rtol)
        return self._marked(turning_spectrum(self._on, self.grid, count, rtol), "the spectrum")

    def correlation(
        self,
        f: Callable[[Tensor], Tensor],
        times: Tensor | Sequence[float],
        g: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, " T"]:
        """Return Cov(f(X_0), g(X_t)) of the stationary process.

        Args:
            f: An elementwise function of x.
            times: Strictly increasing, the first is 0.
            g: Another one; None takes f.

        Returns:
            The correlation function at times, an `EstimatedTensor`: `.error["C"]` is relative to
            √(Var f Var g).

        Raises:
            ValueError: As `stationary` does, or if times do not start at 0.
        """
        check_function("f", f, "a function of x, such as lambda x: x")
        if g is not None:
            check_function("g", g, "a function of x, such as lambda x: x, or None for f")
        ts = check_times(times, self.sde)
        if float(ts[0]) != 0:
            raise ValueError(f"times count from 0, but times[0] = {float(ts[0]):g}.")
        self._refuse_sources("a correlation function")
        self._check_no_gradient("a correlation function")
        for name, function in (("f", f), ("g", g)):
            if function is not None:
                refuse_lost_gradient(
                    name, function(self.grid.nodes[1:-1]), "a correlation function"
                )
        covariance = correlation(self._generator, self.stationary(), f, g or f, ts)
        return _warned(covariance, "the correlation function")

    def feller(self) -> tuple[BoundaryClass, BoundaryClass]:
        """Return Feller's class of both ends: of a wall that is physical or has D = 0, else of ∓∞.

        An end of the states that lies beyond the grid, or at which no density has a nodal value,
        is asked for by `classify_boundary(sde, end)`.

        Raises:
            ValueError: If drift or D are no powers beside an end; on a ring, which has none.
        """
        if self._generator.ends.ring:
            raise ValueError("a ring has no ends to classify.")
        self._renew()
        self._frozen.check("Feller's classification")
        low = -math.inf if self._truncated[0] else self.grid.low
        high = math.inf if self._truncated[1] else self.grid.high
        t = self._generator.reader.start
        first = classify_boundary(self.sde, low, inward=1, t=t)
        return first, classify_boundary(self.sde, high, inward=-1, t=t)

    # ---- sinks and sources --------------------------------------------------------------------

    def _solve_with_sources(
        self,
        p0: Density | SupportsFloat,
        times: Tensor | Sequence[float],
        integrator: Integrator | None,
        *,
        differentiable: bool,
    ) -> DensityPath:
        """Return the densities in time with a death rate or an injection."""
        assert self._sources is not None
        what = "a density in time with killing= or injection="
        if integrator is not None and not isinstance(integrator, Exponential):
            raise ValueError(f"{what} is carried by Exponential(), not by {integrator!r}.")
        self._renew()
        self._frozen.check(what)
        ts = check_times(times, self.sde)
        x0, density = as_start(p0, self.grid, self._generator.ends.powers)
        values = check_start(density, self.grid, may_lack=True)

        def start(grid: Grid) -> Tensor:
            if grid is self.grid:
                return values
            return density.at(grid.nodes) if x0 is None else grid.point(x0).p

        with _gradients(differentiable):
            path = in_time(self._sources, self._generator, start, ts, refines=not differentiable)
        check_edges(path.p[1:].detach(), ts[1:], self.grid, self._truncated)
        for k in range(1, len(ts)):
            error = path.at(k).error
            if error is not None:
                warn_inaccurate(error, f"the density at t = {float(ts[k]):g}", _FINER)
        return replace(path, slope_by=self._slope_by)

    def _solve_with_jumps(
        self,
        p0: Density | SupportsFloat,
        times: Tensor | Sequence[float],
        integrator: Integrator | None,
        rtol: float,
        differentiable: bool,
    ) -> DensityPath:
        """Return the densities in time of dynamics that jump."""
        assert self._jumping is not None
        what = "a density in time with jumps"
        if integrator is not None and not isinstance(integrator, Exponential):
            raise ValueError(f"{what} is carried by Exponential(), not by {integrator!r}.")
        if differentiable:
            raise ValueError(
                "a density in time with jumps has no gradients: leave differentiable= out."
            )
        self._renew()
        self._frozen.check(what)
        ts = check_times(times, self.sde)
        x0, density = as_start(p0, self.grid, (None, None))
        values = check_start(density, self.grid, may_lack=self._absorbs)

        def start(grid: Grid) -> Tensor:
            if grid is self.grid:
                return values.detach()
            return density.at(grid.nodes).detach() if x0 is None else grid.point(x0).p

        with torch.no_grad():
            path = jumps.in_time(self._jumping, self._generator, start, x0, ts, rtol)
        check_edges(path.p[1:], ts[1:], self.grid, self._truncated)
        return replace(path, slope_by=self._slope_by)

    def _rest_with_jumps(
        self, jumping: jumps.Jumping, rtol: float, differentiable: bool
    ) -> Density:
        """Return the stationary density of dynamics that jump."""
        if differentiable:
            raise ValueError(
                "a stationary density with jumps has no gradients: leave differentiable= out."
            )
        with torch.no_grad():
            rest = jumps.at_rest(jumping, self._generator, rtol)
            log_p = (rest.p / rest.p.max()).clamp(min=1e-300).log()
        check_confined(log_p, self.grid, self._truncated)
        assumed = self._frozen.assumed_autonomous
        return replace(rest, slope_by=self._slope_by, assumed_autonomous=assumed)

    def _refuse_jumps(self, what: str) -> None:
        """Refuse a question that is not answered where the state jumps."""
        if self._jumping is not None:
            raise ValueError(
                f"{what} is not found for dynamics that jump, whose probability does not flow "
                "from cell to cell; ask for solve() or stationary(), or simulate it."
            )

    def _refuse_sources(self, what: str) -> None:
        """Refuse a question that is not answered between moving ends, or with killing."""
        if self._moving is not None:
            raise ValueError(
                f"{what} is not found between absorbing ends that move; ask for survival() or "
                "solve(), or pass ends that are numbers."
            )
        self._refuse_killing(what)

    def _refuse_killing(self, what: str) -> None:
        """Refuse a question that is not answered with jumps, or killing."""
        self._refuse_jumps(what)
        if self._sources is not None:
            raise ValueError(
                f"{what} is not found with killing= or injection=; ask a solver without them, or "
                "ask this one for stationary() or solve(). The mean life from a start is 1/(what "
                "is lost per time) of stationary(injection=start)."
            )

    # ---- inside -------------------------------------------------------------------------------

    def _build(self, reader: Reader) -> None:
        """Make what drift and diffusion are written as, anew."""
        self._reader = reader
        self._compact = Generator(reader, self.conditions, compact=True)
        self._lumped = self._compact.with_form(compact=False)
        self._generator = self._lumped if self.form == "lumped" else self._compact
        self._frozen = Frozen(self._generator)
        self._at_rest: dict[float, Density] = {}
        self._levels = Levels(self._compact, self._lumped, self.form)
        self.__dict__.pop("_truncated", None)

    def _renew(self) -> None:
        """Forget what was made of drift and diffusion if they have changed since."""
        if self._reader.renewed():
            self._build(self._reader)

    @property
    def _absorbs(self) -> bool:
        """Whether mass leaves through a wall."""
        return any(wall.absorbs for wall in self.conditions)

    @cached_property
    def _truncated(self) -> tuple[bool, bool]:
        """Which ends are walls without flux that only end the grid."""
        ends = zip(
            self.conditions, self.physical_ends, self._generator.ends.exponents, strict=True
        )
        low, high = (wall.reflects and not real and q is None for wall, real, q in ends)
        return low, high

    @cached_property
    def _slope_by(self) -> SlopeBy:
        """How a derivative that drift and diffusion need is found."""
        t = torch.tensor(self._generator.reader.start, dtype=torch.float64)
        return self.sde.slope_by(self.grid.nodes[1:-1:8, None], t)

    def _time(self, t: float | None) -> float:
        """Return the time of drift and diffusion, which an SDE without time need not have."""
        self._renew()
        if t is not None:
            return t
        self._frozen.check("a current without a time")
        return self._generator.reader.start

    def _solve_between_moving_ends(
        self,
        moving: MovingEnds,
        p0: Density | SupportsFloat,
        times: Tensor | Sequence[float],
        integrator: Integrator | None,
        breakpoints: Sequence[float],
        rtol: float,
        differentiable: bool,
    ) -> DensityPath:
        """Carry a density in the coordinate that moves with the ends."""
        ts = check_times(times, self.sde)
        moving.check(ts)
        x0, density = as_start(p0, self.grid, (None, None))
        t, inner = float(ts[0]), self._inner
        if x0 is None:
            check_start(density, self.grid, may_lack=True)
        start = moving.place(x0, t) if x0 is not None else moving.inward(density, inner.grid, t)
        with in_words_of_the_frame():
            path = inner.solve(
                start, ts, integrator=integrator, breakpoints=breakpoints, rtol=rtol,
                differentiable=differentiable,
            )  # fmt: skip
        return replace(moving.outward(path), slope_by=self._slope_by)

    def _on(self, grid: Grid) -> tuple[Fluxes, BoundaryNodes]:
        """Return the fluxes and walls on a grid between the same walls."""
        generator = self._generator if grid is self.grid else self._generator.on(grid)
        return generator.fluxes(generator.coefficients(generator.reader.start)), generator.ends

    def _check_cut(self, what: str) -> None:
        """Refuse a grid that cuts the density without current where it matters to `what`."""
        if not any(self._truncated):
            return
        land = self._frozen.landscape()
        log_m = stationary.on_a_line(land.w)
        if self._absorbs:
            to_high = self.conditions[1].absorbs
            log_m = to_be_left(log_m, land.log_d, self.grid.nodes, to_high=to_high)
        check_confined(
            log_m, self.grid, self._truncated, lost=f"there is {what}: the density without current"
        )

    def _path(self, times: Tensor, run: Found, start: Density, powers: Powers) -> DensityPath:
        """Return the solution at the user's nodes."""
        p, fine = run.p, None
        if powers != (None, None):  # ∞ at walls with a negative power; the start as given
            p = torch.cat([with_poles(p[:1], start.powers), with_poles(p[1:], powers)])
        if run.grid is not self.grid:
            fine = DensityPath(times, p, run.grid.nodes, powers)
            at_nodes = p[:, positions(self.grid, run.grid)]
            p = torch.cat([start.p.detach()[None].to(p), at_nodes[1:]])
        form = "compact" if run.compact else "lumped"
        return DensityPath(
            times, p, self.grid.nodes, powers, fine, told=run.error, form=form,
            slope_by=self._slope_by,
        )  # fmt: skip

    def _is_smooth(self, density: Density) -> bool:
        """Return whether the grid resolves a start, and absorbing walls find nothing there."""
        p = density.p.detach()
        jumps = any(
            wall.absorbs and float(p[end]) > 1e-8 * float(p.max())
            for wall, end in zip(self.conditions, (0, -1), strict=True)
        )
        return not jumps and density.is_resolved

    def _check_modes(self, count: int, rtol: float | None) -> None:
        """Refuse a spectrum of what changes, or of more modes than the grid resolves."""
        self._check_no_gradient("a spectrum")
        self._check_steady("a spectrum", rtol)
        most = (self.grid.cells - 1) // 4
        check_count("count", count)
        if not 2 <= count <= most:
            raise ValueError(
                f"count must lie between 2 and {most}, a quarter of the nodes, but is {count}."
            )

    def _check_steady(self, what: str, rtol: float | None) -> None:
        """Refuse dynamics that change or have sources, for what has a tolerance."""
        _check_rtol(rtol)
        self._refuse_sources(what)
        self._renew()
        self._frozen.check(what)

    def _check_absorbing(self, what: str) -> None:
        """Refuse what needs an absorbing wall."""
        self._refuse_killing(what)
        if not self._absorbs:
            raise ValueError(
                f"{what} needs an absorbing wall, but boundary is {self.conditions!r}; pass "
                "'absorbing' or a pair with one."
            )


def _gradients(differentiable: bool) -> AbstractContextManager[object]:
    """Return the gradients where they were asked for."""
    return nullcontext() if differentiable else torch.no_grad()


def _warned(value: Known, what: str) -> Known:
    """Warn of an error, and return whose it is."""
    warn_inaccurate(value.error, what, _FINER, stacklevel=4)
    return value


def _check_rtol(rtol: float | None) -> None:
    """Refuse a tolerance that is not > 0."""
    if rtol is not None:
        check_positive("rtol", rtol)
