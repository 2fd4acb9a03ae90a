"""Quadrature: log ∫ e^{f(x)} dx on a grid of a line or a plane, with its gradient.

The trapezoidal rule on the nodes: of what falls off within the grid it converges faster than any
power of the step. A grid that cuts the law off is refused, by what its outermost cells hold, and
one that does not resolve it, by what every other node gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdegen.core.errors import NonFiniteError
from sdegen.core.requests import check_kind, first_true
from sdegen.fokker_planck.discretization.grid import Grid

Grids = Grid | Sequence[Grid]

_CUT = 1e-4  # of the mass, in the outermost cells
_COARSE = 1e-3  # nats, between all nodes and every other one


def nodes_of(grids: Grids) -> list[Tensor]:
    """Return the nodes along each coordinate, one or two; or refuse what are no grids.

    Raises:
        TypeError: If one is no `Grid`.
        ValueError: If there are not one or two.
    """
    pair = [grids] if isinstance(grids, Grid) or not isinstance(grids, Sequence) else list(grids)
    for grid in pair:
        check_kind("grids", grid, Grid, "a Grid(low, high, cells), or a pair of them")
    if len(pair) not in (1, 2):
        raise ValueError(
            f"grids must be one or two, as of a line or a plane, but are {len(pair)}."
        )
    return [grid.nodes for grid in pair]


def log_integral(log_density: Callable[[Tensor], Tensor], grids: Grids) -> Tensor:
    """Return log ∫ e^{f} dx, 0-d, float64.

    Args:
        log_density: f of points (n, d), shape (n,).
        grids: A `Grid`, or a pair of them for the plane.

    Raises:
        TypeError: If grids are none.
        ValueError: If they cut the law off, or do not resolve it.
        NonFiniteError: If f is NaN or +∞ at a node.
    """
    lines = nodes_of(grids)
    x = torch.cartesian_prod(*lines)
    x = x[:, None] if x.ndim == 1 else x
    value = log_density(x).double()
    seen = value.detach()
    if (i := first_true(seen.isnan() | seen.isposinf())) is not None:
        raise NonFiniteError(f"the energy is {-float(seen[i]):g} at x = {x[i].tolist()}.")
    shape = [len(line) for line in lines]
    value = value.reshape(shape)
    total = _log_sum(value, lines)
    with torch.no_grad():
        inner = value[(slice(1, -1),) * len(lines)]
        within = _log_sum(inner, [line[1:-1] for line in lines])
        edge = 1 - float((within - total).exp())
        halved = [line[::2] for line in lines]
        coarse = abs(float(_log_sum(value[(slice(None, None, 2),) * len(lines)], halved) - total))
    if not edge < _CUT:
        raise ValueError(
            f"the outermost cells of the grid hold {edge:.2g} of the mass: it cuts the law off, "
            "or e^{−U} has no finite integral; pass a wider grid, or give the model a base_std."
        )
    if not coarse < _COARSE:
        raise ValueError(
            f"every other node of the grid changes log Z by {coarse:.2g} nats: it does not "
            "resolve the law; pass more cells."
        )
    return total


def _log_sum(value: Tensor, lines: list[Tensor]) -> Tensor:
    """Return the log of the integral of e^{value} by the trapezoidal rule."""
    for line in reversed(lines):
        steps = line.diff()
        weights = torch.cat([steps[:1], steps[1:] + steps[:-1], steps[-1:]]) / 2
        value = torch.logsumexp(value + weights.log(), -1)
    return value
