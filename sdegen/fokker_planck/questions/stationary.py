"""The stationary density, solved for and never waited for.

**Between walls without flux** nothing flows: log p_{i+1} = log p_i + w_i, a cumulative sum. The
cost is O(N), and a barrier of any height costs no digits.

**On a ring** a constant current J flows, J = a_i (p_i − e^{−w_i} p_{i+1}). Once around,

    p_i = J S_i / (1 − e^{−W}),    S_i = Σ_{k=0}^{N−1} e^{−(w_i + … + w_{i+k−1})} / a_{i+k},    W
    = Σ w

S_i is a sum of positive terms, hence has all its digits; it is two cumulative sums.

**Its error** is its distance from that of the same problem with all cells halved: of p at the
nodes over the peak, of the distribution function, of the mean over max(|mean|, deviation), of the
variance, and of the entropy. Where the largest is more than is asked for, the cells that are to
blame are halved, and again: those over which the gain w of log p differs from that of their
halves, or whose mass does, both for p given at their nodes. A layer at a wall, or a D that falls
by decades within a cell, thus gets nodes that crowd towards it. The density is then kept on that
finer grid; its values are handed back on the user's.

Reference:
    Risken 1989, The Fokker–Planck Equation, eqs. (5.12) and (11.28); Stratonovich 1967 for the
    ring; Dörfler 1996, SIAM J. Numer. Anal. 33, 1106, for halving those to blame.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdegen.core.accuracy import warn_inaccurate
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.cubics import cell_masses, part_masses
from sdegen.fokker_planck.discretization.fluxes import Fluxes, Landscape, fluxes
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.operator import assemble
from sdegen.fokker_planck.discretization.poles import find_poles
from sdegen.fokker_planck.discretization.power_law import Powers, is_singular, with_poles
from sdegen.fokker_planck.discretization.refinement import bisected, halved, positions
from sdegen.fokker_planck.questions.sources import Sources, at_rest
from sdegen.fokker_planck.validation import check_confined, check_poles

_GENTLE = 0.69  # gain of log p over a cell below which a density at most doubles
_REFUSED = 0.1  # an error that no answer has
_ROUNDS = 64  # of halving: 2⁻⁶⁴ of a cell
_MOST_CELLS, _MOST_TIMES = 2**16, 64  # of the finest grid, or so many times the user's cells
_TINY = 1e-300
_NEGATIVE = 1e-9  # of the peak
_AIM = 0.25  # of what is asked for: where halving ends, once it began
_EACH = 1.0  # of that: what all cells together are let err by


def resolved(
    generator: Generator,
    rtol: float,
    truncated: tuple[bool, bool],
    sources: Sources | None,
    *,
    differentiable: bool,
) -> Density:
    """Return the stationary density of a generator without time, of mass 1.

    Args:
        generator: SDE, grid and walls, none of which absorbs.
        rtol: Largest error of the masses of cells, mean and variance.
        truncated: Which ends only end the grid.
        sources: What is lost and put back, if anything is.
        differentiable: Whether gradients flow to the parameters of drift and diffusion.

    Raises:
        NotNormalizableError: If it grows towards an end.
        ValueError: If it leans on a wall that only ends the grid.
        SolverError: If no grid that can be had resolves it to 10 %.
    """
    grid = generator.grid
    with torch.no_grad():
        first = grid if sources is None else sources.inserted(grid)
        level = _Level(generator if first is grid else generator.on(first), sources, given=True)
        two = _Comparison(level)
        most = max(_MOST_CELLS, _MOST_TIMES * grid.cells)
        for k in range(_ROUNDS):
            if two.error <= (rtol if k == 0 else _AIM * rtol) or two.level.grid.cells > most:
                break
            chosen = two.to_blame(_AIM * rtol)
            if not bool(chosen.any()):
                if sources is None:
                    break
                chosen = ~chosen  # what k and q do to a cell is seen in no cell alone
            two = _Comparison(_Level(generator.on(bisected(two.level.grid, chosen)), sources))
        level = two.level
        if level.land.poles and sources is None:
            check_poles(find_poles(level.land.coefficients, level.grid.nodes), level.grid)
        if not generator.ends.ring:
            check_confined(level.log_p - level.height, level.grid, truncated)
        if not two.error <= _REFUSED:
            raise SolverError(
                f"the cells are too coarse for the stationary density: on {level.grid.cells} of "
                f"them its estimated error is {two.error:.2g}, most of it beside x = "
                f"{two.worst:g}. Do drift or diffusion jump there, or are they noisy? Pass a grid "
                "with nodes there: Grid.of(nodes)."
            )
    density = level.density
    if differentiable:
        land = _landscape(level.generator)
        p = level.generator.ends.filled(_log_density(land, level.generator, sources).exp())
        density = _normalized(p, level.powers, land, level.grid)
    fine = None if level.grid is grid else density
    at_nodes = density.p if fine is None else density.p[positions(grid, level.grid)]
    assumed = generator.reader.assumed_autonomous
    rest = Density(
        grid.nodes, at_nodes, level.powers, fine, two.finer.density, assumed, hidden=two.hidden
    )
    if two.error > rtol and rest.error is not None:
        warn_inaccurate(
            rest.error,
            "the stationary density",
            "Pass a grid with more cells where it is steep: Grid.of(nodes).",
            above=rtol,
            stacklevel=4,
        )
    return rest


class _Level:
    """The stationary density on one grid.

    Args:
        generator: SDE, grid and walls.
        sources: What is lost and put back, if anything is.
        given: Whether the grid is the user's.
    """

    def __init__(
        self, generator: Generator, sources: Sources | None, *, given: bool = False
    ) -> None:
        self.generator, self.sources, self.grid = generator, sources, generator.grid
        self.land = _landscape(generator)
        self.powers = _powers(self.land, self.grid)
        self.log_p = _log_density(self.land, generator, sources)
        p = generator.ends.filled(torch.from_numpy(np.exp(self.log_p.numpy())))
        if given or self.powers != (None, None):
            self.density = _normalized(p, self.powers, self.land, self.grid)
        else:
            masses = cell_masses(self.grid.nodes.numpy(), p.numpy())
            mass = float(masses.sum())
            self.__dict__["masses"] = masses / mass
            self.density = Density(self.grid.nodes, p / mass)

    @cached_property
    def masses(self) -> Array:
        """Probabilities of the cells; of the user's grid they are seldom asked for."""
        masses: Array = self.density.cell_masses.numpy()
        return masses

    @property
    def height(self) -> float:
        """log p at the median where p is infinite at a wall, on the scale where 0 is its peak."""
        if self.powers == (None, None):
            return 0.0
        median = self.density.quantile(0.5)
        return float(self.log_p[int(torch.searchsorted(self.grid.nodes, median))])


def _landscape(generator: Generator) -> Landscape:
    """Return the landscape of dynamics without time."""
    return generator.landscape(generator.coefficients(generator.reader.start))


def _log_density(land: Landscape, generator: Generator, sources: Sources | None) -> Tensor:
    """Return log p in a landscape, its largest value 0."""
    ends = generator.ends
    if sources is not None:
        for compact in (True, False):  # the compact form is negative where cells are coarse
            operator = assemble(fluxes(land), ends, compact=compact)
            p = ends.widen(at_rest(sources, generator, operator))
            if not compact or float(p.detach().min()) >= -_NEGATIVE * float(p.detach().max()):
                break
        return (p.clamp(min=0) / p.detach().max()).clamp(min=_TINY).log()
    return on_a_ring(fluxes(land)) if ends.ring else on_a_line(land.w)


class _Comparison:
    """The stationary density on a grid, beside that with all cells halved.

    Args:
        level: On the grid.
    """

    def __init__(self, level: _Level) -> None:
        self.level = level
        self.finer = _Level(level.generator.on(halved(level.grid)), level.sources)
        x, fine, d = level.grid.nodes.numpy(), self.finer.grid.nodes, level.density
        there = self.finer.masses
        if d.powers == (None, None):
            _, self._here = part_masses(x, d.p.numpy(), fine[1::2].numpy())
        else:
            self._here = d.part_masses(fine[1::2]).numpy()
        self._pairs = there[::2] + there[1::2]
        middle = 0.5 * (x[1:] + x[:-1])
        mean = self._pairs @ middle
        variance = self._pairs @ ((middle - mean) ** 2 + (x[1:] - x[:-1]) ** 2 / 12)
        self._mean, self._variance = mean, variance
        off = self._here - there
        nodes = fine.numpy()
        from_mean = 0.5 * (nodes[1:] + nodes[:-1]) - mean
        p, finer = d.p.numpy(), self.finer.density.p.numpy()[::2]
        if d.powers == (None, None):
            apart, peak = np.abs(p - finer).max(), p.max()
        else:
            with np.errstate(invalid="ignore"):  # ∞ − ∞ at a wall
                apart = np.nan_to_num(np.abs(p - finer), nan=0.0).max()
            peak = p[np.isfinite(p)].max()
        self.hidden = float(self._missed @ self._felt) if self._missed.any() else 0.0
        self.error = self.hidden + max(
            float(apart / peak),
            float(np.abs(np.cumsum(off)).max()),
            float(abs(off @ from_mean) / max(abs(mean), variance**0.5)),
            float(abs(off @ from_mean**2) / variance),
            _entropy_gap(self._here, there, nodes[1:] - nodes[:-1]),
        )

    @cached_property
    def _missed(self) -> Array:
        """What log p misses over each cell where f/D jumps beside a node, unseen by both."""
        at = self.finer.land.beside
        cells: Array = np.maximum(np.maximum(at[2::2], at[1::2]), at[:-1:2])
        return cells

    @cached_property
    def _least(self) -> Array:
        """What lies to the one or the other side of each cell, where that is less."""
        weighted = self._pairs * self._far
        below = np.cumsum(weighted)
        least: Array = np.minimum(below, below[-1] - below + weighted)
        return least

    @cached_property
    def _felt(self) -> Array:
        """By how much an error of log p over each cell is felt: by p, or by its moments."""
        p = _heights(self.level.density, 1)
        lower = np.minimum(np.maximum.accumulate(p), np.maximum.accumulate(p[::-1])[::-1])
        felt: Array = np.minimum(np.maximum(lower / p.max(), self._least), 1.0)
        return felt

    @cached_property
    def _far(self) -> Array:
        """How much more a mass counts in each cell: in the variance it is far from the mean."""
        squares = (self.level.grid.nodes.numpy() - self._mean) ** 2 / self._variance
        far: Array = 1 + np.maximum(squares[1:], squares[:-1])
        return far

    @property
    def worst(self) -> float:
        """A node beside the cell that is farthest from its halves."""
        apart = np.abs(self._here - self.finer.masses)
        off = (apart[::2] + apart[1::2]) * self._far + self._missed * self._felt
        return float(self.level.grid.nodes[int(off.argmax())])

    def to_blame(self, rtol: float) -> Bool[Tensor, " cells"]:
        """Return which cells err by more than their part, with p given at their nodes."""
        weighted, least = self._pairs * self._far, self._least
        gains = self.finer.land.w.numpy()
        gain = np.abs(self.level.land.w.numpy() - gains[::2] - gains[1::2])
        gain = np.minimum(np.maximum(gain, self._missed), 1.0)
        here, there = _heights(self.level.density, 1), _heights(self.finer.density, 2)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            apart = np.abs(self._here / here.repeat(2) - self.finer.masses / there.repeat(2))
            off = (apart[::2] + apart[1::2]) * there / self._pairs
            off = np.minimum(np.nan_to_num(off, nan=1.0), 1.0)
        return torch.from_numpy(weighted * off + least * gain > _EACH * rtol / len(off))


def _entropy_gap(one: Array, other: Array, h: Array) -> float:
    """Return how far the entropies −Σ m log(m/h) of masses are apart, over max(|S|, 1)."""
    first, second = (float(np.log(np.maximum(m, _TINY) / h) @ m) for m in (one, other))
    return abs(first - second) / max(abs(second), 1.0)


def _heights(density: Density, each: int) -> Array:
    """Return the larger of p at the two nodes of cells, or of `each` cells together."""
    p = density.p.numpy()[::each]
    p = np.where(np.isfinite(p), p, 0.0)
    heights: Array = np.maximum(p[1:], p[:-1])
    return heights


def _powers(land: Landscape, grid: Grid) -> Powers:
    """Return the powers of the stationary density at walls where it is not smooth."""
    if not land.poles:
        return None, None
    low, high = (
        None if pole is None else pole.stationary_exponent
        for pole in find_poles(land.coefficients, grid.nodes)
    )
    return low if is_singular(low) else None, high if is_singular(high) else None


def _normalized(p: Tensor, powers: Powers, land: Landscape, grid: Grid) -> Density:
    """Return the density of nodal values up to a factor, of mass 1."""
    if powers != (None, None):
        return Density(grid.nodes, with_poles(p, powers), powers).normalized()
    if grid.smooth and float(land.w.detach().abs().max()) < _GENTLE:
        return Density(grid.nodes, p / (grid.weights @ p))  # no slope is limited
    return Density(grid.nodes, p).normalized()


@np.errstate(invalid="ignore")  # of what is not finite, others tell
def on_a_line(w: Tensor) -> Float[Tensor, "... nodes"]:
    """Return log p from the gains w of the cells, up to a constant, its largest value 0."""
    if w.requires_grad:
        log_p = torch.nn.functional.pad(w.cumsum(-1), (1, 0))
        return log_p - log_p.detach().amax(-1, keepdim=True)
    sums = np.zeros((*w.shape[:-1], w.shape[-1] + 1))
    np.cumsum(w.numpy(), -1, out=sums[..., 1:])
    sums -= np.maximum.reduce(sums, -1, keepdims=True)
    return torch.from_numpy(sums)


def on_a_ring(flux: Fluxes) -> Float[Tensor, "... nodes"]:
    """Return log p up to a constant, its largest value 0, both ends included."""
    phi = torch.nn.functional.pad(flux.w.cumsum(-1), (1, 0))
    total = phi[..., -1:]
    term = -phi[..., :-1] - flux.a.log()
    ahead = torch.logcumsumexp(term.flip(-1), -1).flip(-1)  # Σ_{j ≥ i}
    before = torch.logcumsumexp(term, -1)[..., :-1] - total  # Σ_{j < i}, one turn later
    log_s = phi[..., :-1] + torch.cat(
        [ahead[..., :1], torch.logaddexp(ahead[..., 1:], before)], -1
    )
    log_s = torch.cat([log_s, log_s[..., :1]], -1)
    return log_s - log_s.detach().amax(-1, keepdim=True)
