"""Densities of an SDE that jumps: at rest, and in time.

    p_t = −(f p)_x + (D p)_xx + ∫ λ(x′) w(x − x′ | x′) p(x′) dx′ − λ p

**At rest** one dense linear system gives the density whose mass is 1. **In time** drift and
diffusion, A, and jumps, C, take turns, in Strang's composition

    S(τ) = e^{τC/2} e^{τA} e^{τC/2},

whose error is even in τ: one step, two halves and four quarters are extrapolated to sixth order
and compared, and τ follows from a tolerance. Where jumps do not depend on the state and drift and
diffusion are constant, A and C commute and any τ is exact.

**Ends.** Jumps beyond an absorbing end are gone. What they carry beyond an end that only ends the
grid is put at its last node, and told (`jumped`): mass that would be farther out, or, at rest, the
chance that a jump lands there. Above 1e-6 there is a warning, above 1e-2 an error. What a jump
beyond a real wall does is not said by drift and diffusion, so that such a wall must not be met.

Reference:
    Cont and Voltchkova 2005, SIAM J. Numer. Anal. 43, 1596, for the truncation; Strang 1968,
    ibid. 5, 506.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, warn_inaccurate
from sdegen.core.errors import AccuracyWarning, SolverError
from sdegen.core.jumps import CompoundPoisson
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.first_masses import seen
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.jump_matrix import JumpMatrix, landings
from sdegen.fokker_planck.discretization.refinement import halved, positions

_TOLERANCE = 1e-8  # of the peak, of one step
_MOST_STEPS = 20_000
_MOST_CELLS = 2**10  # of the coarser of two grids: matrices are dense
_NEGATIVE = 1e-6  # of the peak: what a resolved density never goes below zero by
_WARNS, _FAILS = 1e-6, 1e-2
_REFUSED = 0.1
_NO_RATE = 1e-12  # of the largest: what counts as none
_FINER = "Pass a grid with more cells where the density is steep, or a density that is smoother."


@dataclass(frozen=True)
class Jumping:
    """The jump term of a density, and the ends of its grid.

    Args:
        jumps: Compound Poisson processes.
        real: Which ends are walls of the problem.
    """

    jumps: tuple[CompoundPoisson, ...]
    real: tuple[bool, bool]

    @classmethod
    def of(cls, sde: SDE, generator: Generator, real: tuple[bool, bool]) -> Jumping | None:
        """Return the jump term of an SDE, or None.

        Raises:
            ValueError: If jumps are α-stable or depend on time, or the ends are such that a jump
                beyond them has no meaning.
        """
        if sde.jumps is None:
            return None
        name = type(sde).__name__
        if not all(isinstance(one, CompoundPoisson) for one in sde.jumps):
            raise ValueError(
                f"FokkerPlanck takes jumps of CompoundPoisson, but those of {name} are α-stable, "
                "which has a fractional derivative; simulate it."
            )
        jumps = cast(tuple[CompoundPoisson, ...], sde.jumps)
        if not all(one.autonomous for one in jumps):
            raise ValueError(
                f"FokkerPlanck takes jumps that do not depend on time, but rate or sizes of "
                f"{name} take t; freeze the time in them, or simulate it."
            )
        if generator.ends.ring:
            raise ValueError(
                "boundary='periodic' is not built for jumps; pass 'no-flux' or 'absorbing'."
            )
        if generator.ends.exponents != (None, None):
            raise ValueError(
                "jumps are not built beside a wall without noise; end the grid before it, or take "
                "another coordinate, such as log x."
            )
        return cls(jumps, real)

    def matrix(self, generator: Generator) -> JumpMatrix:
        """Return C on the generator's grid.

        Raises:
            ValueError: If jumps go beyond a wall that is real and does not absorb.
        """
        ends = generator.ends
        kinds = [landings(one, ends.nodes) for one in self.jumps]
        for side, is_real, wall in zip((0, -1), self.real, ends.conditions, strict=True):
            beyond = torch.stack([k.rate * (k.high if side else k.low) for k in kinds]).sum(0)
            worst = int(beyond.argmax())
            if (
                is_real
                and not wall.absorbs
                and float(beyond[worst]) > _NO_RATE * float(sum(kind.rate.max() for kind in kinds))
            ):
                raise ValueError(
                    f"jumps go beyond the reflecting wall at x = {float(ends.nodes[side]):g}, at "
                    f"a rate of {float(beyond[worst]):.3g} from x = {float(ends.nodes[worst]):g}, "
                    "and what they do there is not said; pass sizes(x, u) that stay inside, or "
                    "'absorbing'."
                )
        operator = generator.operator_at(generator.reader.start)
        return JumpMatrix(kinds, operator, ends, compact=generator.compact)


def at_rest(jumping: Jumping, generator: Generator, rtol: float) -> Density:
    """Return the stationary density, of mass 1, with that of all cells halved for its error.

    Args:
        jumping: The jump term.
        generator: Drift and diffusion, between walls none of which absorbs.
        rtol: Largest error; cells are halved for it as long as matrices are small.

    Raises:
        ValueError: If the grid cuts what jumps carry beyond it.
        SolverError: If no grid that is affordable resolves it to 10 %.
    """
    grid, at = generator.grid, generator
    (here, cut) = _rest_on(jumping, at)
    while True:
        finer = generator.on(halved(at.grid))
        there, _ = _rest_on(jumping, finer)
        kept = positions(grid, at.grid)
        fine = None if at is generator else here
        rest = Density(grid.nodes, here.p[kept], compared=there, fine=fine, jumped=cut)
        error = rest.error
        assert error is not None
        if float(error) <= rtol or finer.grid.cells > _MOST_CELLS:
            break
        at, (here, cut) = finer, _rest_on(jumping, finer)
    _judge(cut, "at rest, of the jumps", grid)
    if not float(error) <= _REFUSED:
        raise SolverError(
            "the cells are too coarse for the stationary density with jumps: on "
            f"{at.grid.cells} of them its estimated error is {float(error):.2g}. Pass a grid with "
            "more cells where it is steep: Grid.of(nodes)."
        )
    warn_inaccurate(error, "the stationary density", _FINER, above=rtol, stacklevel=4)
    return rest


def _rest_on(jumping: Jumping, generator: Generator) -> tuple[Density, float]:
    """Return the density at rest on one grid, and the chance that a jump lands beyond it."""
    for compact in (True, False) if generator.compact else (False,):
        form = generator.with_form(compact=compact)
        jumps = jumping.matrix(form)
        system = jumps.generator.clone()
        row = len(system) // 2
        system[row] = jumps.mass
        load = torch.zeros(len(system), dtype=system.dtype)
        load[row] = 1.0
        p = torch.linalg.solve(system, load)
        if float(p.min()) >= -_NEGATIVE * float(p.max()):
            break
    else:
        raise SolverError(
            f"the stationary density with jumps is {float(p.min()):.2g} somewhere, which rounding "
            "makes of rates that differ by too many orders; simulate it."
        )
    rate = float(jumps.rate @ (jumps.mass * p))
    cut = float(jumps.cut @ p) / rate if rate > 0 else 0.0
    x = generator.grid.nodes
    return Density(x, form.ends.widen(p.clamp(min=0))).normalized(), cut


def in_time(
    jumping: Jumping,
    generator: Generator,
    start: Callable[[Grid], Tensor],
    x0: float | None,
    times: Float[Tensor, " T"],
    rtol: float,
) -> DensityPath:
    """Return densities at times, with those of all cells halved for their error.

    Args:
        jumping: The jump term.
        generator: Drift and diffusion, which do not depend on time.
        start: Nodal values of the start on a grid.
        x0: Where it is, if it is a point.
        times: Times, the start's first.
        rtol: Largest error; cells are halved for it as long as matrices are small.

    Raises:
        ValueError: If the grid cuts what jumps carry beyond it.
        SolverError: If no step in time is short enough, or the error is above 10 %.
    """
    grid, at = generator.grid, generator
    here = _on_one_grid(jumping, at, start, x0, times)
    while True:
        finer = generator.on(halved(at.grid))
        there = _on_one_grid(jumping, finer, start, x0, times)
        kept = positions(grid, at.grid)
        fine = None if at is generator else here
        each = [replace(here.at(k), compared=there.at(k)).error for k in range(1, len(times))]
        errors = [error for error in each if error is not None]
        worst = max(map(float, errors))
        # the start is given
        told = {
            name: torch.tensor([0.0, *(float(e[name]) for e in errors)], dtype=torch.float64)
            for name in errors[0]
        }
        path = DensityPath(
            times, here.p[:, kept], grid.nodes, fine=fine, form=here.form, jumped=here.jumped,
            told=ErrorEstimate(told, errors[0].method),
        )  # fmt: skip
        if worst <= rtol or finer.grid.cells > _MOST_CELLS:
            break
        at, here = finer, there
    assert here.jumped is not None
    _judge(float(here.jumped[-1]), f"by t = {float(times[-1]):g}, of the mass", grid)
    if not worst <= _REFUSED:
        raise SolverError(
            f"the density with jumps is not resolved: its estimated error is {worst:.2g} on "
            f"{at.grid.cells} cells. Pass a grid with more cells where it is steep, or look later."
        )
    for k, error in enumerate(errors, 1):
        what = f"the density at t = {float(times[k]):g}"
        warn_inaccurate(error, what, _FINER, above=rtol, stacklevel=4)
    return path


def _on_one_grid(
    jumping: Jumping,
    generator: Generator,
    start: Callable[[Grid], Tensor],
    x0: float | None,
    times: Tensor,
) -> DensityPath:
    """Return densities at times on the generator's grid, lumped where compact ones ring."""
    first = start(generator.grid)
    for compact in (True, False) if generator.compact else (False,):
        form = generator.with_form(compact=compact)
        begin = seen(form, first, form.reader.start)
        if compact and x0 is not None:
            begin = form.ends.restrict(generator.grid.sharp_point(x0))
        unknowns, jumped = _carried(jumping.matrix(form), form, begin, times)
        p = torch.stack([first, *map(form.ends.widen, unknowns)])
        low, high = p[1:].amin(-1), p[1:].amax(-1)
        if not compact or bool((low >= -_NEGATIVE * high).all()):
            break
    word = "compact" if compact else "lumped"
    p = p.clamp(min=0)
    return DensityPath(times, p, form.ends.nodes, form=word, jumped=jumped)


def _carried(
    jumps: JumpMatrix, generator: Generator, p: Float[Tensor, " n"], times: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Return the unknowns after the start, and the mass carried beyond ends up to each time."""
    operator = generator.operator_at(generator.reader.start)

    def composed(p: Tensor, dt: float, parts: int) -> Tensor:
        """Return S(dt/parts)^parts p."""
        tau = dt / parts
        p = jumps.moved(p, 0.5 * tau)
        for k in range(parts):
            p = operator.moved(p, tau)
            p = jumps.moved(p, tau if k < parts - 1 else 0.5 * tau)
        return p

    kept, jumped, total, steps = list[Tensor](), [0.0], 0.0, 0
    h = float(times[-1] - times[0])
    for dt in times.diff().tolist():
        left = dt
        while left > 1e-13 * dt:
            step = min(left, h)
            one, two, four = (composed(p, step, parts) for parts in (1, 2, 4))
            rough, fine = (4 * two - one) / 3, (4 * four - two) / 3
            peak = float(fine.abs().max())
            error = float((fine - rough).abs().max()) / (15 * max(peak, 1e-300))
            steps += 1
            if steps > _MOST_STEPS:
                raise SolverError(
                    f"steps of {step:.2g} are too short to carry the density with jumps over dt = "
                    f"{dt:g}; ask stationary() for what it comes to, or take shorter times."
                )
            if not error <= _TOLERANCE:
                h = 0.5 * step
                continue
            after = (16 * fine - rough) / 15
            total += 0.5 * step * float(jumps.cut @ (p + after))
            p, left = after, left - step
            h = step * min(2.0, max(1.0, 0.8 * (_TOLERANCE / max(error, 1e-300)) ** 0.2))
        kept.append(p)
        jumped.append(total)
    return kept, torch.tensor(jumped, dtype=torch.float64)


def _judge(cut: float, what: str, grid: Grid) -> None:
    """Warn of, or refuse, what jumps carry beyond ends that only end the grid."""
    if cut <= _WARNS:
        return
    text = (
        f"{what} {cut:.2g} jump beyond the grid [{grid.low:g}, {grid.high:g}], and are put at its "
        "ends: widen it."
    )
    if cut > _FAILS:
        raise ValueError(text)
    warnings.warn(text, AccuracyWarning, stacklevel=4)
