"""Correlations of the stationary process, Cov(f(X_0), g(X_t)).

    C(t) = ∫ g e^{tL} (f − E f) p_st dx

What is carried in time is (f − E f) p_st, with E f the mean of the scheme itself, so that nothing
of it rests. Where the stationary density needs a finer grid than the user's, it is carried there;
and the error is the difference to that with all cells halved, over √(Var f Var g). While that is
above 1e-3 all cells are halved.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import WARNS, ErrorEstimate, EstimatedTensor
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.cubics import integral
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.power_law import PowerLaw
from sdegen.fokker_planck.discretization.refinement import halved
from sdegen.fokker_planck.questions.course import Course
from sdegen.fokker_planck.questions.currents import finite
from sdegen.fokker_planck.questions.transient import Exponential

Function = Callable[[Tensor], Tensor]

_MOST_CELLS = 2**14
_ROUNDING = 1e-13


@torch.no_grad()
def correlation(
    generator: Generator, rest: Density, f: Function, g: Function, times: Float[Tensor, " T"]
) -> EstimatedTensor:
    """Return Cov(f(X_0), g(X_t)) at times, with its error "C".

    Args:
        generator: The dynamics, which do not depend on time.
        rest: Their stationary density.
        f: An elementwise function.
        g: Another one.
        times: Times, the first is 0.
    """
    scale = float((_spread(rest, f) * _spread(rest, g)).sqrt())
    at = generator if rest.fine is None else generator.on(Grid.of(rest.fine.x))
    here = _on_one_grid(at, rest, f, g, times)
    while True:
        finer = generator.on(halved(at.grid))
        there = _on_one_grid(finer, rest, f, g, times)
        land = finer.landscape(finer.coefficients(finer.reader.start))
        error = float((here - there).abs().max()) / max(scale, 1e-300) + _ROUNDING
        error += rest.hidden + float(land.beside.sum())
        if error <= WARNS or finer.grid.cells > _MOST_CELLS:
            break
        at, here = finer, there
    return EstimatedTensor.of(here, ErrorEstimate({"C": error}, "two grids"))


def _spread(rest: Density, f: Function) -> Tensor:
    """Return the variance of f at rest."""
    mean = rest.expect(f)
    return rest.expect(lambda x: (f(x) - mean) ** 2)


def _on_one_grid(
    generator: Generator, rest: Density, f: Function, g: Function, times: Tensor
) -> Tensor:
    """Return the correlation on the generator's grid."""
    ends, x = generator.ends, generator.grid.nodes
    p = rest.compared.at(x) if rest.compared is not None else rest.at(x)
    p = ends.restrict(finite(p))
    operator = generator.operator_at(generator.reader.start)
    lower, diagonal, upper = operator.mass
    held = lower.roll(-1) + diagonal + upper.roll(1)  # the mass that a unit at a node has
    early = ends.restrict(finite(f(x)))
    mean = (held * p) @ early / (held @ p)
    path, _ = Exponential().path(generator, (early - mean) * p, Course(tuple(times.tolist()), ()))
    moved = finite(g(x)) * ends.widen(torch.stack(path))
    if ends.powers == (None, None):
        return integral(x, moved)
    return PowerLaw(x, ends.powers).integral(moved)
