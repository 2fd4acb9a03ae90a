"""Currents, and what they cost.

Between two nodes the current is J = a p_i − b p_{i+1}, constant and exact for the nodal values.
The thermodynamic force integrated over the cell is log(a p_i / b p_{i+1}), so that the entropy
production, in units of k_B per time, is

    σ = ∫ J²/(D p) dx = Σ J log(a p_i / b p_{i+1}) ≥ 0

and vanishes with the current. The free energy of a density, in units of kT above its minimum, is
its distance to the stationary one,

    F = ∫ p log(p/p_st) dx,    dF/dt = −σ  without circulation: Boltzmann's H-theorem.

**Errors.** Where f/D or D change much within a cell, its a and b are made of smaller cells, which
a constant current passes one after the other:

    1/a = Σ_k e^{−(w_1 + … + w_{k−1})}/a_k,    b = a e^{−Σ w}

They are halved until a and b, weighted by the one-way fluxes a p_i and b p_{i+1} over the largest
of these, no longer change; what they still change by, and what the density's own error makes of
it, is the error of the current. That of σ and of F is their distance from those of the density on
halved cells.

Reference:
    Seifert 2012, Rep. Prog. Phys. 75, 126001, eq. (18).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import WARNS, ErrorEstimate, Estimated, EstimatedTensor
from sdegen.core.dissipation import edge_dissipation
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.cubics import integral
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.refinement import bisected, halved, positions
from sdegen.fokker_planck.questions.two_grids import jumped

_TINY = 1e-300
_ROUNDING = 1e-15
_ROUNDS = 64
_NARROWEST = 1e-11  # of the grid: the narrowest cell that is cut in two
_MOST_CELLS, _MOST_TIMES = 2**16, 64  # of the finest grid, or so many times the user's cells
_AIM = 0.25  # of 1e-3: where halving ends, once it began
_REFUSED = 0.1
_LEAST = 1e-3  # of kT: a free energy below it counts as that much
_IDLE = 1e-12  # of the exchange between nodes: an entropy production that is rounding


@torch.no_grad()
def _rates(
    generator: Generator, t: float, p: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    """Return the rates of the user's cells, J = a p_i − b p_{i+1}.

    Args:
        generator: The dynamics on the user's grid.
        t: Their time.
        p: A density at the nodes, whose one-way fluxes weight errors.

    Returns:
        a and b, both of all cells halved that they are made of, and what both miss where f/D
        jumps.

    Raises:
        SolverError: If no grid that can be had resolves them to 10 %.
    """
    grid = generator.grid
    at, most = generator, max(_MOST_CELLS, _MOST_TIMES * grid.cells)
    for k in range(_ROUNDS):
        finer = at.on(halved(at.grid))
        here = at.fluxes(at.coefficients(t))
        flux = finer.fluxes(finer.coefficients(t))
        there = _composed(flux, at.grid, finer.grid)
        a, b = _composed(here, grid, at.grid)
        one_way = torch.maximum(a * p[:-1], b * p[1:])
        weight = one_way / one_way.max().clamp(min=_TINY)
        weight = weight[torch.searchsorted(grid.nodes, at.grid.nodes[1:]) - 1]
        apart = _apart(here.a, there[0]) + _apart(here.b, there[1])
        kept = positions(at.grid, finer.grid).numpy()
        jumps = weight * torch.from_numpy(jumped(here.land, flux.land, kept))
        error = weight * apart + jumps
        worst = float(error.max())
        if worst <= (WARNS if k == 0 else _AIM * WARNS) or at.grid.cells > most:
            break
        wide = at.grid.widths > _NARROWEST * (grid.high - grid.low)
        chosen = (error > _AIM * WARNS) & wide
        if not bool(chosen.any()):
            break  # a jump at a place that no more bits tell
        at = generator.on(bisected(at.grid, chosen))
    if not worst <= _REFUSED:
        where = float(at.grid.nodes[int(error.argmax())])
        raise SolverError(
            f"the cells are too coarse for the current: on {at.grid.cells} of them its estimated "
            f"error is {worst:.2g} of the one-way flux, beside x = {where:g}. Do drift or "
            "diffusion jump there? Pass a grid with nodes there: Grid.of(nodes)."
        )
    finest = at.on(halved(at.grid))
    fine = _composed(finest.fluxes(finest.coefficients(t)), grid, finest.grid)
    return (a, b), fine, float(jumps.max())


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Return by how much rates differ, over the larger; 0 where both are 0."""
    return (one - other).abs() / torch.maximum(one, other).clamp(min=_TINY)


def _composed(flux: Fluxes, grid: Grid, finer: Grid) -> tuple[Tensor, Tensor]:
    """Return a and b of the cells of a grid from those of a finer one that keeps its nodes."""
    if finer is grid:
        return flux.a, flux.b
    start = positions(grid, finer)
    owner = torch.searchsorted(grid.nodes, finer.nodes[1:]) - 1
    phi = torch.nn.functional.pad(flux.w.cumsum(-1), (1, 0))
    # where a drop is above 700 kT the smaller of both rates is no number, and its log is one
    log_a = torch.where(flux.w < 0, flux.b.log() + flux.w, flux.a.log())
    closed = torch.isneginf(log_a)  # a cell at a wall without noise carries nothing
    term = torch.where(closed, 0.0, phi[start[:-1]][owner] - phi[:-1] - log_a)
    first = start[:-1].numpy()
    top = torch.from_numpy(np.maximum.reduceat(term.numpy(), first))
    total = torch.from_numpy(np.add.reduceat((term - top[owner]).exp().numpy(), first))
    shut = torch.from_numpy(np.maximum.reduceat(closed.double().numpy(), first)) > 0
    log_rate = -top - total.log()
    back = log_rate + phi[start[:-1]] - phi[start[1:]]
    a, b = (torch.where(shut, 0.0, torch.exp(v)) for v in (log_rate, back))
    return a, b


def finite(p: Tensor) -> Tensor:
    """Return nodal values with 0 where they are not finite: at a wall that has no unknown."""
    return torch.where(torch.isfinite(p), p, 0.0)


def _compared(density: Density) -> Tensor:
    """Return the values of a density at its nodes as halved cells give them, if it knows."""
    other = density.compared
    if other is None:
        return finite(density.p.detach())
    return finite(other.p.detach()[torch.searchsorted(other.x, density.x)])


def current(generator: Generator, t: float, density: Density) -> EstimatedTensor:
    """Return J = a p_i − b p_{i+1} in every cell, in units of 1/time, with its error "J".

    The error is relative to the larger of the largest current and the largest one-way flux a p_i.
    """
    p = finite(density.p.detach())
    (a, b), (finer_a, finer_b), jumps = _rates(generator, t, p)
    j = a * p[:-1] - b * p[1:]
    other = _compared(density)
    apart = (j - (finer_a * other[:-1] - finer_b * other[1:])).abs().max()
    scale = torch.maximum(j.abs().max(), (a * p[:-1]).max()).clamp(min=_TINY)
    told = float(apart / scale) + jumps + _ROUNDING
    return EstimatedTensor.of(j, ErrorEstimate({"J": told}, "two grids"))


def entropy_production(generator: Generator, t: float, density: Density) -> Estimated:
    """Return σ in units of k_B per time, with its error; very large where p ends in a step."""
    p = finite(density.p.detach())
    (a, b), _, _ = _rates(generator, t, p)
    sigma = _dissipation(a, b, p)
    finer = generator.on(halved(generator.grid))
    other = density if density.compared is None else density.compared
    at_nodes = finite(other.at(finer.grid.nodes).detach())
    at_nodes[::2] = _compared(density)
    exact = _dissipation(*_rates(finer, t, at_nodes)[0], at_nodes)
    idle = _IDLE * float((a * p[:-1] + b * p[1:]).sum())
    error = abs(sigma - exact) / max(abs(sigma), idle, _TINY) + _ROUNDING
    return Estimated(sigma, ErrorEstimate({"value": error}, "two grids"))


def _dissipation(a: Tensor, b: Tensor, p: Tensor) -> float:
    """Return Σ J log(a p_i / b p_{i+1})."""
    out, back = a * p[:-1], b * p[1:]
    log_ratio = out.clamp(min=_TINY).log() - back.clamp(min=_TINY).log()
    return edge_dissipation(out - back, log_ratio)


def free_energy(p: Density, stationary: Density) -> tuple[Float[Tensor, ""], float]:
    """Return F = ∫ p log(p/p_st) in units of kT, 0 at rest, and its error over max(F, 1e-3)."""
    f = _relative_entropy(p, stationary)
    if stationary.compared is None:
        return f, math.nan
    with torch.no_grad():
        at = stationary.compared
        finer = float(_relative_entropy(_on(p if p.compared is None else p.compared, at.x), at))
        return f, abs(float(f) - finer) / max(abs(float(f)), _LEAST) + _ROUNDING


def _relative_entropy(p: Density, rest: Density) -> Float[Tensor, ""]:
    """Return ∫ p log(p/p_st)."""
    if p.powers == rest.powers == (None, None) and p.fine is None and rest.fine is None:
        some = p.p > 0
        ratio = p.p.clamp(min=_TINY).log() - rest.p.clamp(min=_TINY).log()
        return integral(p.x, p.p * torch.where(some, ratio, 0.0))
    finer = p if rest.fine is None else _on(p, rest.fine.x)

    def log_ratio(x: Tensor) -> Tensor:
        values = finer.at(x)
        ratio = values.clamp(min=_TINY).log() - rest.at(x).clamp(min=_TINY).log()
        return torch.where(values > 0, ratio, 0.0)

    return finer.expect(log_ratio) * finer.mass


def _on(p: Density, x: Tensor) -> Density:
    """Return a density on other nodes."""
    return p if p.x is x else Density(x, p.at(x), p.powers)
