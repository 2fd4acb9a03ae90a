"""Sinks and sources: a death rate k(x), and what is lost put back.

    p_t = −(f p)_x + (D p)_xx − k p + q r(t),    r = ∫ k p dx + what leaves through absorbing walls

`killing` is k, `injection` is where what is lost comes back: at a point, or with the density q. A
particle that is killed or absorbed starts anew, independent of its past; r is the rate of that.

**In the scheme.** The hats of the operator are those of the dynamics without k, so that tested
with them it is

    M p′ = K p − M (k p) + φ(q) r,    φ_i(q) = ∫ φ_i q dx

with the same M and K, and the mass is kept: Σ φ_i(q) = 1. **At rest** p ∝ u with (M k − K) u =
φ(q): u is the density of a life summed over its time, and ∫ u dx the mean life. **In time** the
generator is a tridiagonal one and a matrix of rank one, φ(q) ℓᵀ with ℓ·p the loss; by Sherman and
Morrison each fraction of the exponential is two tridiagonal solves. Its spectrum is complex where
lives are of nearly one length, so that an exponential is compared with two of half the time, and
cut until they agree.

Reference:
    Evans and Majumdar 2011, Phys. Rev. Lett. 106, 160601, eqs. (2) and (4), for resetting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import WARNS
from sdegen.core.checks import check_not_negative
from sdegen.core.errors import SolverError
from sdegen.core.requests import refuse_lost_gradient
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization import tridiagonal
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.first_masses import seen
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.matrix_exponential import renewed_action
from sdegen.fokker_planck.discretization.operator import Operator
from sdegen.fokker_planck.discretization.power_law import with_poles
from sdegen.fokker_planck.discretization.refinement import halved, positions

Killing = float | Callable[[Tensor], Tensor]

_TOLERANCE = 1e-9  # of the peak, of one exponential
_MOST_CUTS, _MOST_PIECES = 30, 10_000
_HALVINGS, _MOST_CELLS = 6, 2**14  # of a density in time that is not resolved
_NEGATIVE = 1e-9  # of the peak: what a resolved density never goes below zero by
_NEAR = 1e-3  # of a cell: a point as near to a node is at it
_NOTHING = 1e-14  # of the largest rate of the grid: what counts as no loss


@dataclass(frozen=True, eq=False)
class Sources:
    """What is lost, and where it comes back.

    Args:
        killing: k ≥ 0, a number or an elementwise function of x, in units of 1/time.
        injection: A point or a density; None where what is lost is gone.

    Raises:
        TypeError: If killing is neither a number nor a function, or injection neither a number
            nor a density.
        ValueError: If k is negative.
    """

    killing: Killing | None = None
    injection: float | Density | None = None

    def __post_init__(self) -> None:
        k = self.killing
        if k is not None and not (isinstance(k, Real) or callable(k)):
            raise TypeError(
                f"killing must be a number or a function k(x), but is {type(k).__name__}."
            )
        if isinstance(k, Real):
            check_not_negative("killing", float(k))
        q = self.injection
        if q is not None and not isinstance(q, Real | Density):
            raise TypeError(
                "injection must be a point x0 or a Density on the grid, but is "
                f"{type(q).__name__}; pass a number, or grid.gaussian(mean, std)."
            )

    def check(self, grid: Grid) -> None:
        """Refuse what does not belong to a grid.

        Raises:
            ValueError: If k is negative or not finite at a node or of another shape, the point
                lies outside, or the density lives on other nodes or has no mass.
        """
        k = self.rate(grid.nodes)
        if not bool(torch.isfinite(k).all()) or not bool((k >= 0).all()):
            bad = int((~(torch.isfinite(k) & (k >= 0))).nonzero()[0])
            raise ValueError(
                f"killing must be finite and ≥ 0, but is {float(k[bad]):g} at x = "
                f"{float(grid.nodes[bad]):g}."
            )
        q = self.injection
        if isinstance(q, Density):
            if q.x.shape != grid.nodes.shape or not torch.equal(q.x, grid.nodes):
                raise ValueError(
                    "injection lives on other nodes than the solver; make it with this grid: "
                    "grid.gaussian(mean, std)."
                )
            if not float(q.mass.detach()) > 0:
                raise ValueError("injection has no mass.")
        elif q is not None and not grid.low < q < grid.high:
            raise ValueError(
                f"injection = {float(q):g} must lie inside of the grid [{grid.low:g}, "
                f"{grid.high:g}]."
            )

    def rate(self, x: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
        """Return k at nodes."""
        if self.killing is None:
            return torch.zeros_like(x)
        if not callable(self.killing):
            return torch.full_like(x, float(self.killing))
        k = torch.as_tensor(self.killing(x), dtype=x.dtype)
        if k.ndim and k.shape != x.shape:
            raise ValueError(
                f"killing must be elementwise, but for x of shape {tuple(x.shape)} it has shape "
                f"{tuple(k.shape)}."
            )
        return k.expand_as(x)

    def inserted(self, grid: Grid) -> Grid:
        """Return the grid with a node at the point of injection, where p has a kink."""
        q = self.injection
        if q is None or isinstance(q, Density):
            return grid
        if float((grid.nodes - float(q)).abs().min()) < _NEAR * float(grid.widths.min()):
            return grid
        point = torch.tensor([float(q)], dtype=torch.float64)
        return Grid.of(torch.cat([grid.nodes, point]).sort().values)

    def killed(self, operator: Operator, ends: BoundaryNodes) -> Operator:
        """Return the operator with its loss, K − M k."""
        if self.killing is None:
            return operator
        k = ends.restrict(self.rate(ends.nodes))
        before, after = k.roll(1, -1), k.roll(-1, -1)
        lost = operator.mass * torch.stack([before, k, after])
        return Operator(
            operator.mass,
            operator.rates - lost,
            operator.phi,
            operator.speed,
            operator.circulation,
        )

    def load(self, operator: Operator, ends: BoundaryNodes) -> Float[Tensor, " n"]:
        """Return φ(q) of the unknowns, of sum 1."""
        x, q = ends.nodes, self.injection
        if isinstance(q, Density):
            refuse_lost_gradient("injection", q.p, "a density")
            values = q.p.detach() if q.x.shape == x.shape else q.at(x).detach()
            load = tridiagonal.multiply(operator.mass, ends.restrict(values))
        else:
            assert q is not None
            i = int(torch.searchsorted(x, torch.tensor(float(q), dtype=x.dtype)).clamp(1)) - 1
            share = (float(q) - float(x[i])) / float(x[i + 1] - x[i])
            at = torch.zeros_like(x)
            at[i], at[i + 1] = 1 - share, share
            if ends.ring:
                at[0] += at[-1]
            load = at[:-1] if ends.ring else at[ends.interior]
        return load / load.sum()


def at_rest(sources: Sources, generator: Generator, operator: Operator) -> Float[Tensor, " n"]:
    """Return the unknowns of the density of a life summed over its time, up to a factor.

    Raises:
        ValueError: If nothing is lost.
    """
    ends = generator.ends
    killed = sources.killed(operator, ends)
    rates = killed.rates.detach()
    lost = rates[0].roll(-1) + rates[1] + rates[2].roll(1)  # of columns
    if float(lost.abs().max()) <= _NOTHING * float(rates.abs().max()):
        raise ValueError(
            "injection= puts back what is lost, but nothing is: no wall absorbs, and killing is "
            "0; pass killing=, or an absorbing wall."
        )
    return tridiagonal.solve(-killed.rates, sources.load(operator, ends).to(killed.rates))


def in_time(
    sources: Sources,
    generator: Generator,
    start: Callable[[Grid], Tensor],
    times: Float[Tensor, " T"],
    *,
    refines: bool,
) -> DensityPath:
    """Return densities at times, with those of all cells halved for their error.

    Args:
        sources: What is lost and put back.
        generator: The dynamics, which do not depend on time.
        start: Nodal values of the start on a grid.
        times: Times, the start's first.
        refines: Whether cells are halved where the error is above 1e-3.

    Raises:
        SolverError: If no cut of a time is short enough.
    """
    grid, at = generator.grid, generator
    here = _on_one_grid(sources, at, start, times)
    for k in range(_HALVINGS):
        finer = generator.on(halved(at.grid))
        with torch.no_grad():
            there = _on_one_grid(sources, finer, start, times)
            land = finer.landscape(finer.coefficients(finer.reader.start))
        kept = positions(grid, at.grid)
        path = DensityPath(
            times, here.p[:, kept], grid.nodes, here.powers, here if k else None, there,
            hidden=float(land.beside.sum()),
        )  # fmt: skip
        after = [path.at(i).error for i in range(1, len(times))]
        small = all(error is None or float(error) <= WARNS for error in after)
        if not refines or small or finer.grid.cells > _MOST_CELLS:
            break
        at, here = finer, there
    return path


def _on_one_grid(
    sources: Sources, generator: Generator, start: Callable[[Grid], Tensor], times: Tensor
) -> DensityPath:
    """Return densities at times on the generator's grid, lumped where compact ones ring."""
    first = start(generator.grid)
    for compact in (True, False) if generator.compact else (False,):
        form = generator if compact == generator.compact else generator.with_form(compact=compact)
        ends = form.ends
        unknowns = _carried(sources, form, seen(form, first, form.reader.start), times)
        p = torch.stack([first, *map(ends.widen, unknowns[1:])])
        low, high = p.detach().amin(-1), p.detach().amax(-1)
        if not compact or bool((low >= -_NEGATIVE * high).all()):
            break
    p = torch.where(p > 0, p, 0.0)
    return DensityPath(
        times, torch.cat([p[:1], with_poles(p[1:], ends.powers)]), ends.nodes, ends.powers
    )


def _carried(
    sources: Sources, generator: Generator, p: Float[Tensor, " n"], times: Tensor
) -> list[Tensor]:
    """Return the unknowns at all times, the first included."""
    ends = generator.ends
    operator = generator.operator_at(generator.reader.start)
    killed = sources.killed(operator, ends)
    load = None if sources.injection is None else sources.load(operator, ends)

    def moved(p: Tensor, time: float) -> Tensor:
        if load is None:
            return killed.moved(p, time)
        return renewed_action(killed.mass, killed.rates * time, load, p)

    kept, h = [p], math.inf
    for dt in times.diff().abs().tolist():
        last, h = _in_pieces(moved, kept[-1], dt, h)
        kept.append(last)
    return kept


def _in_pieces(
    moved: Callable[[Tensor, float], Tensor], p: Tensor, dt: float, h: float
) -> tuple[Tensor, float]:
    """Carry p over dt, and return the time that one exponential is thought good for."""
    left = dt
    for _ in range(_MOST_PIECES):
        step = min(left, h)
        once = moved(p, step)
        twice = moved(moved(p, 0.5 * step), 0.5 * step)
        error = float((once - twice).detach().abs().max() / twice.detach().abs().max())
        if not error <= _TOLERANCE:
            h = 0.5 * step
            if h < dt * 0.5**_MOST_CUTS:
                break
            continue
        change = float((twice - p).detach().abs().max() / twice.detach().abs().max())
        p, left = twice, left - step
        h = 2 * step
        # what follows moves it by less in the same time, since errors of a start only decay
        if left <= 1e-14 * dt or change * left <= _TOLERANCE * step:
            return p, h
    raise SolverError(
        f"the exponential with injection did not carry the density over dt = {dt:g}: {left:.3g} "
        f"of it is left, and pieces are {h:.1g} long. Ask stationary() for what it comes to, or "
        "take shorter times."
    )
