"""The spectrum: how fast a density forgets, and in which shapes.

    L ψ_n = −λ_n ψ_n,    L† φ_n = −λ_n φ_n,    ψ_n = φ_n p_st,    ∫ φ_m ψ_n dx = δ_mn

Without a current L is symmetric in the scalar product of 1/p_st, so that its spectrum is real,
and λ_0 = 0 with ψ_0 = p_st, φ_0 = 1 where no wall absorbs; where one does, e^Φ stands for p_st.
1/λ_1 is the relaxation time.

On a line every rate is found by shooting from both ends (`shooting`), on a ring once around
(`cycle`), to all its digits relative to itself: a rate of 10⁻¹⁷ behind a barrier of 40 kT as well
as those of the wells. Each mode is found on every other node and on all of them, and goes on to
finer grids as long as these differ; the error that is told is their difference.

Reference:
    Risken 1989, The Fokker–Planck Equation, section 5.4; Pavliotis 2014, section 4.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.cubics import integral
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.refinement import coarsened, halved
from sdegen.fokker_planck.questions.chains import chain
from sdegen.fokker_planck.questions.cycle import Cycle
from sdegen.fokker_planck.questions.shooting import Shot
from sdegen.fokker_planck.questions.two_grids import MOST_CELLS, Answer, Problem, gain, hidden

Functions = tuple[Tensor, Tensor]  # ψ and φ at nodes

_UPPER = 1e-6  # of the peak of p_st: the last node above it is the upper end, where signs are read
_TARGET = 1e-7  # relative error of a rate that is sought unless rtol says otherwise
_ROUNDING = 1e-12
_SMALLEST = 1e-270  # a rate whose products are still numbers


@dataclass(frozen=True, eq=False)
class Spectrum(Answer):
    """The slowest modes of a diffusion.

    Args:
        x: Nodes, shape (nodes,).
        rates: λ_n ≥ 0, increasing, in units of 1/time, shape (count,).
        densities: ψ_n, shape (count, nodes).
        observables: φ_n, shape (count, nodes); positive at the upper end of p_st.
        error: Estimated relative errors of `rates` and `relaxation_time`.
    """

    x: Float[Tensor, " nodes"]
    rates: Float[Tensor, " count"]
    densities: Float[Tensor, "count nodes"]
    observables: Float[Tensor, "count nodes"]
    _title = "spectrum"

    @property
    def relaxation_time(self) -> float:
        """1/λ of the slowest mode that decays, in units of time."""
        decaying = self.rates[self.rates > 0]
        return float(1 / decaying[0])


@torch.no_grad()
def spectrum(problem: Problem, grid: Grid, count: int, rtol: float | None) -> Spectrum:
    """Return the slowest modes between two walls.

    Args:
        problem: Fluxes and walls of the SDE on a grid.
        grid: The user's grid.
        count: How many modes.
        rtol: Relative error of the rates that grids are refined for; None takes 1e-7.

    Raises:
        SolverError: If a rate is below 1e-270, or no grid within 40,000 cells meets rtol.
    """
    if problem(grid)[1].ring:
        return _of_a_ring(problem, grid, count, rtol)
    levels = _Levels(problem, grid)
    modes = [levels.rest()] if levels.has_rest else []
    for index in range(len(modes), count):
        modes.append(levels.mode(index, count, rtol))
    rates, functions, errors = zip(*modes, strict=True)
    return _answer(grid, np.array(rates), functions, np.array(errors), int(levels.has_rest))


def _answer(
    grid: Grid, rates: Array, functions: Sequence[Functions], errors: Array, slowest: int
) -> Spectrum:
    """Return the spectrum of rates, of ψ and φ at the user's nodes, and of errors."""
    each = torch.from_numpy(errors)
    told = ErrorEstimate({"rates": each, "relaxation_time": float(each[slowest])}, "two grids")
    psi, phi = (torch.stack(values) for values in zip(*functions, strict=True))
    return Spectrum(grid.nodes, torch.from_numpy(rates), psi, phi, error=told)


def _of_a_ring(problem: Problem, grid: Grid, count: int, rtol: float | None) -> Spectrum:
    """Return the slowest modes of a ring without a current."""
    step, finer, target = 1, grid, rtol or _TARGET
    if grid.cells % 2 == 0 and grid.cells >= 16 * count:
        step, finer = 0, coarsened(grid)
    chosen, errors = np.zeros(count), np.full(count, np.inf)
    fluxes: tuple[Fluxes, ...] = ()
    guesses: Array | None = None
    before: Array | None = None
    while True:
        flux, ends = problem(finer)
        fluxes = (fluxes[-1] if fluxes else flux, flux)
        cycle = Cycle(fluxes[-1])
        found, log_phi, sign, lost = cycle.modes(cycle.rates(count, guesses))
        rates, guesses = found[:count], found
        if before is not None:
            told = np.abs(rates - before) / np.maximum(rates, _SMALLEST) / gain(*fluxes)
            told += hidden(flux, ends)
            first = ~(errors <= target)  # a rate that was found is not moved by others
            chosen[first] = rates[first]
            errors[first] = np.maximum(told, np.maximum(lost[:count], _ROUNDING))[first]
            if (errors <= np.maximum(target, lost[:count])).all() or 2 * finer.cells > MOST_CELLS:
                break
        before = rates
        step, finer = (2 * step, halved(finer)) if step else (1, grid)
    errors[0] = 0.0
    if rtol is not None and errors.max() > rtol:
        raise _unmet(int(errors.argmax()), rtol, finer.cells, float(errors.max()))
    log_m = torch.from_numpy(cycle.log_m)
    each = [
        _normalized(finer.nodes, log_m, torch.from_numpy(log), torch.from_numpy(plus))
        for log, plus in zip(log_phi[:count], sign[:count], strict=True)
    ]
    return _answer(grid, chosen, [(psi[::step], phi[::step]) for psi, phi in each], errors, 1)


def _unmet(index: int, rtol: float, cells: int, error: float) -> SolverError:
    """Return the refusal of a tolerance."""
    return SolverError(
        f"the rate of mode {index} was not found to rtol = {rtol:g} on {cells} cells: its "
        f"estimated relative error is {error:.2g}. Pass a larger rtol, or a grid with more nodes "
        "where drift or diffusion change abruptly."
    )


def _normalized(x: Tensor, log_m: Tensor, log_phi: Tensor, sign: Tensor) -> Functions:
    """Return ψ and φ, with ∫ φ² p_st dx = 1 and φ > 0 at the upper end of p_st."""
    top, rest_top = float((log_m + 2 * log_phi).max()), float(log_m.max())
    norm = integral(x, torch.exp(log_m + 2 * log_phi - top)).log() + top
    whole = integral(x, torch.exp(log_m - rest_top)).log() + rest_top
    log_phi = log_phi + 0.5 * (whole - norm)
    upper = int((log_m - rest_top > math.log(_UPPER)).nonzero()[-1])
    near = sign[: upper + 1]
    last = near[near != 0][-1]
    return (last * sign * torch.exp(log_phi + log_m - whole), last * sign * torch.exp(log_phi))


class _Levels:
    """One problem on grids of growing fineness, each made when it is first needed."""

    def __init__(self, problem: Problem, grid: Grid) -> None:
        self._problem = problem
        self._user = _Level(problem, grid, 1)
        self._levels = [self._user]
        if grid.cells % 2 == 0 and grid.cells >= 16:
            self._levels.insert(0, _Level(problem, coarsened(grid), 0))

    @property
    def has_rest(self) -> bool:
        """Whether 0 is a rate."""
        return self._user.chain.has_rest

    def rest(self) -> tuple[float, Functions, float]:
        """Return the mode that does not decay, as `mode` does."""
        size = len(self._user.chain.volumes)
        still = Shot(1, 0.0, np.zeros(size), np.ones(size))
        return 0.0, self._user.functions(0.0, still), 0.0

    def mode(self, index: int, count: int, rtol: float | None) -> tuple[float, Functions, float]:
        """Return a rate, its functions, and the estimated relative error of the rate."""
        before: float | None = None
        k = 0 if len(self._levels[0].chain.volumes) >= 6 * count else 1
        while True:
            level = self._level(k)
            guess = before if before is not None else level.guess(index, count)
            rate, shot = level.chain.mode(index, guess)
            if before is not None:
                error = abs(rate - before) / rate / gain(self._levels[k - 1].flux, level.flux)
                error = max(error + level.hidden, _ROUNDING)
                finest = 2 * level.grid.cells > MOST_CELLS
                if level.step > 0 and (error <= (rtol or _TARGET) or finest):
                    if rtol is not None and error > rtol:
                        raise _unmet(index, rtol, level.grid.cells, error)
                    return rate, level.functions(rate, shot), error
            before = rate
            k += 1

    def _level(self, k: int) -> _Level:
        """Return the k-th of them."""
        while k >= len(self._levels):
            last = self._levels[-1]
            self._levels.append(_Level(self._problem, halved(last.grid), 2 * last.step))
        return self._levels[k]


class _Level:
    """The problem on one grid.

    Args:
        problem: The SDE between its walls.
        grid: The grid.
        step: The user's nodes are every step-th; 0 where some are not on it.
    """

    def __init__(self, problem: Problem, grid: Grid, step: int) -> None:
        self.grid, self.step = grid, step
        self.flux, self._ends = problem(grid)
        self.chain = chain(self.flux, self._ends)
        self._guesses: Array | None = None

    @cached_property
    def hidden(self) -> float:
        """What every grid with these nodes misses."""
        return hidden(self.flux, self._ends)

    def guess(self, index: int, count: int) -> float:
        """Return the rate of a mode of the lumped chain."""
        rest = int(self.chain.has_rest)
        if self._guesses is None:
            self._guesses = self.chain.first_guesses(count - rest)
        rate = float(self._guesses[index - rest])
        if rate < _SMALLEST:
            raise SolverError(
                f"the rate of mode {index} is below {_SMALLEST:g}, the smallest that is computed: "
                "barriers of more than 600 kT are never crossed. Ask for the modes of each well "
                "on a grid that ends on its barriers."
            )
        return rate

    def functions(self, rate: float, shot: Shot) -> Functions:
        """Return ψ and φ of a shot at the user's nodes."""
        log_phi, sign = self._widened(rate, shot)
        log_m = torch.nn.functional.pad(self.flux.w.cumsum(-1), (1, 0))
        for end, q in zip((0, -1), self._ends.exponents, strict=True):
            if q is not None:
                log_m[end] = -torch.inf
        psi, phi = _normalized(self.grid.nodes, log_m, log_phi, sign)
        if rate == 0:
            phi = torch.ones_like(phi)
        psi = self._ends.filled(psi)
        return psi[:: self.step].clone(), phi[:: self.step].clone()

    def _widened(self, rate: float, shot: Shot) -> tuple[Tensor, Tensor]:
        """Return log |φ| and the sign of φ at all nodes of the grid, from those of the chain."""
        first, size = self.chain.first, len(shot.log_phi)
        before, after = first, len(self.grid.nodes) - first - size
        log_phi = np.pad(shot.log_phi, (before, after), mode="edge")
        sign = np.pad(shot.sign, (before, after), mode="edge")
        flux, (q_low, q_high) = self.flux, self._ends.exponents
        drift = flux.land.coefficients.wall_drift.tolist()
        for end, q, f in ((0, q_low, drift[0]), (-1, q_high, -drift[1])):
            if q is not None and f > 0:  # D = 0 there: f φ′ = −λ φ
                log_phi[end] -= np.log(abs(1 - rate * float(flux.h[end]) / f))
        if before and q_low is None:
            log_phi[:before] = log_phi[first] + _tail(rate, flux, slice(0, before))
        if after and q_high is None:
            log_phi[-after:] = log_phi[-after - 1] + _tail(rate, flux, slice(-after, None))
        return torch.from_numpy(log_phi), torch.from_numpy(sign)


def _tail(rate: float, flux: Fluxes, cells: slice) -> Array:
    """Return log φ in a tail that carries no mass, above its value where the tail begins.

    There J is λ φ times the mass beyond, and φ changes by J/κ over a cell.
    """
    low = cells.start == 0
    w = flux.w.numpy()[cells] if low else -flux.w.numpy()[cells][::-1]
    bond = (flux.a if low else flux.b).numpy()[cells]
    h = flux.h.numpy()[cells]
    if not low:
        bond, h = bond[::-1], h[::-1]
    log_m = np.concatenate([[0.0], np.cumsum(w)[:-1]])
    beyond = np.logaddexp.accumulate(log_m + np.log(h))
    share = rate * np.exp(np.minimum(beyond - log_m, 200.0)) / bond
    rise = np.log1p(np.minimum(share, 1.0))
    total: Array = rise[::-1].cumsum()[::-1]
    return total if low else total[::-1]
