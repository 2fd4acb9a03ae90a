"""A density in time on grids of several levels: what its cells miss, and finer cells for it.

Level 0 is the user's grid, level −1 every other node of it, level 1 has all cells halved, and so
on. At walls without flux that the drift presses on, level 1 has as many more as the layer there
asks for. Where the error is of second order in the cell or higher, a third of the difference of
two levels bounds that of the finer one:

    p − p_h = c hᵖ + …,    |p − p_h| ≈ |p_h − p_2h| / (2ᵖ − 1) ≤ |p_h − p_2h| / 3    for p ≥ 2

A run begins with levels −1 and 0, the former costs half. Where that bound exceeds what is asked
for, or where the compact form rings, levels above follow, up to a number of cells that can be
afforded; what they found is handed back at the user's nodes, and kept as `fine`. Steps in time
that one level found right are taken by the next. A start that level 0 does not resolve is nothing
to compare on coarser cells: it begins with levels 0 and 1.

Steps that were asked for by number are compared with steps that choose their length, on level −1:
there the whole difference is the error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.power_law import Powers, with_poles
from sdegen.fokker_planck.discretization.refinement import among, bisected, coarsened, halved
from sdegen.fokker_planck.questions.course import Course
from sdegen.fokker_planck.questions.transient import Exponential, Integrator, carried
from sdegen.fokker_planck.questions.two_grids import jumped, noise_jumps
from sdegen.fokker_planck.questions.walk import Walk
from sdegen.fokker_planck.validation import REFUSED

_SHARE = 1 / 3  # of the difference of two levels
_FELT = 1e-6  # of the peak, or of all mass
_STEPPED = 0.02  # of what steps say that they err by, which is far below: their order is higher
_FEWEST = 32  # cells that are worth taking every other node of
_MOST, _MOST_IN_TIME = 16_000, 4_000  # cells, without steps in time and with them
_MOST_PIECES = 4_000_000  # cells times exponentials that one time is cut into
_RATHER = 4  # times as many, rather than no answer
_NUMBERS = 8_000_000  # of all densities of a path
_NO_MASS = 1e-6  # a mass below is compared with it
_NOTHING = 1e-10  # of mass
_SMOOTH = 7  # degree of the spline that carries a resolved start to finer cells
_GENTLE = 1.0  # what log p gains over a cell that follows a layer at a wall
_DEEP = 36.0  # by how much it falls over such a layer: e⁻³⁶ = 2e-16
_BISECTIONS = 12  # of cells in it
_ROUNDING = 1e-12  # what is left of a mass and its moments after many outputs


class Levels:
    """The same generators on the grids of all levels, made when they are asked for.

    Args:
        compact: That of level 0, in the compact form.
        lumped: The same in the lumped form.
        form: "compact", "lumped" or "auto".
    """

    def __init__(self, compact: Generator, lumped: Generator, form: str) -> None:
        self._made, self._form = {0: (compact, lumped)}, form

    def __getitem__(self, level: int) -> tuple[Generator, Generator]:
        """Return the compact and the lumped generator of a level."""
        if level not in self._made:
            inner = self[level + 1 if level < 0 else level - 1][0]
            compact = inner.on(_next(inner, level))
            self._made[level] = compact, compact.with_form(compact=False)
        return self._made[level]

    def unread(self) -> None:
        """Forget at what times drift and diffusion were read last."""
        for compact, _ in self._made.values():
            compact.reader.unread()

    def carry(
        self, level: int, start: Start, course: Course, how: Integrator, walk: Walk | None = None
    ) -> Found:
        """Carry a density on one level, by a walk that another has taken where there is one."""
        compact, lumped = self[level]
        auto = self._form == "auto"
        positive = how.lumped_only or self._form == "lumped"
        positive = positive or (auto and not start.smooth and start.x0 is None)
        used = lumped if positive else compact
        first, sharp = start.on(used.grid, level, compact=used.compact)
        fallback = lumped if auto and used.compact else None
        p, carrier, taken = carried(used, first, sharp, course, how, fallback, walk)
        rang = fallback is not None and carrier is not used
        return Found(used.grid, p, carrier.compact, rang, taken, used.ends.powers)


@dataclass(frozen=True, eq=False)
class Start:
    """The start of a run, on any grid.

    Args:
        density: At the nodes of level 0.
        x0: Where all mass is, if it is a point.
        smooth: Whether level 0 resolves it, and finds nothing at a wall that absorbs.
        grid: That of level 0.
    """

    density: Density
    x0: float | None
    smooth: bool
    grid: Grid

    def on(self, grid: Grid, level: int, *, compact: bool) -> tuple[Tensor, Tensor]:
        """Return the nodal values on the grid of a level, and as an operator is to see them."""
        if self.x0 is not None:
            p = self.density.p if level == 0 else grid.point(self.x0).p
            return p, grid.sharp_point(self.x0) if compact else p
        p = self.density.p
        if level < 0:
            p = p.detach()[among(grid, self.grid)]
        elif level > 0:
            p = self._finer(grid)
        if level and self.density.powers == (None, None):
            mass = float(grid.weights.numpy() @ p.numpy())
            whole = float(self.grid.weights.numpy() @ self.density.p.detach().numpy())
            p = p * (whole / mass) if mass > 0 else p
        return p, p

    def _finer(self, grid: Grid) -> Tensor:
        d = self.density
        if not self.smooth or d.fine is not None or d.powers != (None, None):
            p = d.at(grid.nodes).detach()
            return p.where(torch.isfinite(p), 0.0)  # what is ∞ is at a wall that is no unknown
        spline = make_interp_spline(d.x.numpy(), d.p.detach().double().numpy(), k=_SMOOTH)
        return torch.from_numpy(spline(grid.nodes.numpy())).clamp(min=0)


@dataclass(frozen=True, eq=False)
class Found:
    """A density in time on the grid of a level.

    Args:
        grid: The grid.
        p: Nodal values, shape (T, nodes).
        compact: Whether the compact form carried it.
        rang: Whether it was to, and rang.
        walk: Steps in time that were taken.
        powers: q of p ∝ ξ^q at the walls; None where p is smooth.
        error: Estimated errors at each time, shape (T,); None for none.
        worst: The largest of them.
    """

    grid: Grid
    p: Float[Tensor, "T nodes"]
    compact: bool
    rang: bool
    walk: Walk
    powers: Powers = (None, None)
    error: ErrorEstimate | None = None
    worst: float = np.inf

    @cached_property
    def moments(self) -> Array:
        """Mass, mean from the middle of the grid, and variance at each time, shape (3, T)."""
        if self.powers != (None, None):  # a density is a power beside a wall
            x, middle = self.grid.nodes, 0.5 * (self.grid.low + self.grid.high)
            each = [Density(x, p, self.powers) for p in with_poles(self.p.detach(), self.powers)]
            told = [(float(d.mass), float(d.mean) - middle, float(d.variance)) for d in each]
            return np.array(told).T
        moments: Array = (self.p.detach().numpy() @ self.grid.moment_weights.T).T
        mass = np.where(moments[0] > _NOTHING, moments[0], 1.0)
        moments[1:] /= mass
        moments[2] -= moments[1] ** 2
        return moments


def found(
    levels: Levels,
    start: Start,
    course: Course,
    integrator: Integrator,
    *,
    rtol: float,
    refined: bool,
) -> Found:
    """Carry a density through a course, on as fine a level as it takes.

    Args:
        levels: What carries it.
        start: The first density.
        course: Times.
        integrator: How it is carried.
        rtol: Largest error.
        refined: Whether levels above 0 may be taken: without gradients.

    Returns:
        The density on the level that was enough, with its errors.
    """
    levels.unread()
    small = levels[0][0].grid.cells < _FEWEST
    exact = isinstance(integrator, Exponential) and course.steady
    if integrator.substeps is not None and not exact:
        with torch.no_grad():
            other = levels.carry(0 if small else -1, start, course, Exponential())
        best = levels.carry(0, start, course, integrator)
        return _judged(best, other, 1.0, how="steps that choose their length")
    if small or not (start.smooth or start.x0 is not None):
        best, told, level = levels.carry(0, start, course, integrator), None, 0
        if not refined:
            return best
    else:
        with torch.no_grad():
            coarse = levels.carry(-1, start, course, integrator)
        walk = None if coarse.rang else coarse.walk
        best, level = levels.carry(0, start, course, integrator, walk), 0
        told = _judged(best, coarse, *_jumps(levels, 0, course, best))
    most = _MOST if course.steady else _MOST_IN_TIME
    most = min(most, _NUMBERS // len(course.times))
    while refined and (told is None or best.rang or not told.worst <= rtol):
        cells = 2 * best.grid.cells
        more = 1 if told is None or told.worst <= REFUSED else _RATHER
        if told is not None and (
            cells > more * most or cells * best.walk.pieces > more * _MOST_PIECES
        ):
            break
        walk = None if best.rang else best.walk
        finer = levels.carry(level + 1, start, course, integrator, walk)
        jumps = _jumps(levels, level + 1, course, finer)
        told, best, level = _judged(finer, best, *jumps), finer, level + 1
    return best if told is None else told


@torch.no_grad()
def _jumps(levels: Levels, level: int, course: Course, run: Found) -> tuple[float, Array | float]:
    """Return the share of a difference that counts, and what jumps of f/D add at each time.

    Where f/D jumps the order is lost, and two levels may agree by chance. What ∫ f/D misses is
    felt as far as there is mass, or mass has crossed; of a density that is blown across within a
    fraction of its own width less. Where D jumps p does, and all of the difference counts.

    Args:
        levels: All levels.
        level: That of the run.
        course: Times.
        run: What was found on it.
    """
    coarse, fine = levels[level - 1][0], levels[level][0]
    kept = np.arange(fine.grid.cells + 1)[among(coarse.grid, fine.grid)]
    times = course.times
    looks = times[:1] if course.steady else (times[0], 0.5 * (times[0] + times[-1]), times[-1])
    lands = [[g.landscape(g.coefficients(t)) for g in (coarse, fine)] for t in looks]
    missed = np.maximum.reduce([jumped(below, land, kept) for below, land in lands])
    parting = np.logical_or.reduce([noise_jumps(land) for _, land in lands])
    if not parting.any() and (most := float(missed.sum())) <= _ROUNDING:
        return _SHARE, most  # which is felt by no more than all of it
    parted = np.logical_or.reduceat(parting, kept[:-1])
    steep = np.maximum.reduce([np.abs((land.u / land.h).numpy()) for _, land in lands])
    steep = np.maximum.reduceat(steep, kept[:-1])
    p, h = run.p.detach().numpy()[:, kept].clip(0), coarse.grid.widths.numpy()
    p = np.where(np.isfinite(p), p, 0.0)
    peak = np.maximum(p.max(1, keepdims=True), _NO_MASS)
    left = np.cumsum(0.5 * (p[:, 1:] + p[:, :-1]) * h, axis=1)
    right = left[:, -1:] - left
    crossed = np.maximum(np.abs(left - left[0]), np.abs(right - right[0]))
    felt = np.maximum(np.maximum(p[:, 1:], p[:, :-1]) / peak, crossed)
    felt = np.minimum(np.maximum.accumulate(felt, axis=0), 1.0)
    spread = np.sqrt(np.maximum(run.moments[2], 0.0))
    share = 1.0 if float((felt * parted).max()) > _FELT else _SHARE
    return share, (felt * missed / (1 + steep * spread[:, None])).sum(1)


def _judged(
    run: Found, other: Found, share: float, jumps: Array | float = 0.0, how: str = "two grids"
) -> Found:
    """Return the same with its errors, from the level below."""
    p, q = run.p.detach().numpy(), other.p.detach().numpy()
    if run.grid is not other.grid:
        p = p[:, among(other.grid, run.grid)]
    # at a wall without noise a density may be infinite
    low, high = (power is not None for power in run.powers)
    seen = slice(int(low), -1 if high else None)
    peak = run.p.detach().numpy()[:, seen].max(1)
    (mass, mean, variance), gaps = run.moments, np.abs(run.moments - other.moments)
    there = (mass > _NOTHING) & (peak > 0)  # of nothing there is no shape to know
    # what leans on a wall within a cell has no variance there, or by rounding a negative one
    spread = np.where(there, np.maximum(variance, run.grid.narrowest**2 / 12), 1.0)
    mean = np.abs(mean + 0.5 * (run.grid.low + run.grid.high))
    told = np.array(
        [
            np.abs(p - q)[:, seen].max(1) / np.where(there, peak, 1.0),
            gaps[1] / np.maximum(mean, np.sqrt(spread)),
            gaps[2] / spread,
            gaps[0] / np.maximum(mass, _NO_MASS),
        ]
    )
    told[:3, ~there] = 0.0
    told = share * told + (_STEPPED * run.walk.error + jumps + _ROUNDING)
    told[:, 0] = 0.0  # the start is what was given
    worst = float(told.max())
    each = dict(zip(("p", "mean", "variance", "mass"), torch.from_numpy(told), strict=True))
    error = ErrorEstimate(each, how)
    worst = np.inf if np.isnan(worst) else worst
    return replace(run, error=error, worst=worst)


def _next(inner: Generator, level: int) -> Grid:
    """Return the grid of a level, from the generator of that which lies nearer to level 0."""
    if level < 0:
        return coarsened(inner.grid)
    grid = halved(inner.grid)
    if level > 1:
        return grid
    ends = zip(inner.ends.conditions, inner.ends.exponents, strict=True)
    low, high = (kind.reflects and power is None for kind, power in ends)
    for _ in range(_BISECTIONS if low or high else 0):
        at = inner.on(grid)
        u = at.landscape(at.coefficients(at.reader.start)).u.detach()
        chosen = low & _leaning(-u) | high & _leaning(u.flip(-1)).flip(-1)
        if not bool(chosen.any()):
            break
        grid = bisected(grid, chosen)
    return grid


def _leaning(gains: Tensor) -> Tensor:
    """Return which cells are too wide for a density that leans on the first one's wall.

    Args:
        gains: What log p gains over each of them towards the wall.
    """
    below = gains.cumsum(0) - gains
    return (gains > _GENTLE) & ((below < _DEEP).cumprod(0) > 0)
