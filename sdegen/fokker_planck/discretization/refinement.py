"""Finer grids of the same problem, and the way back to the user's nodes.

What a grid does not resolve shows when the same SDE is solved on a finer one. Every grid that is
made here keeps all nodes of the one it is made from, to the last bit, so that values on it are
compared, and handed back, without interpolation:

    halved      a node in every cell: the error of what was found on the coarser grid is their
                difference
    bisected    a node in some cells: where a cell holds what is much narrower than itself
    coarsened   every other node, which costs half of the grid itself

New nodes lie where the spacing stays smooth: on the cubic through four nodes as a function of
their number, and in the middle of the cells of an even grid.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sdegen.fokker_planck.discretization.grid import Grid

_MOST_OFF = 0.25  # of a cell: how far from its middle a new node may lie


def halved(grid: Grid) -> Grid:
    """Return the grid with one more node in every cell; the old ones are `nodes[::2]`.

    >>> halved(Grid(0.0, 2.0, cells=4)).nodes[1::2]
    tensor([0.2500, 0.7500, 1.2500, 1.7500], dtype=torch.float64)
    """
    x, between = grid.nodes, _between(grid)
    finer = torch.empty(2 * len(x) - 1, dtype=x.dtype)
    finer[::2], finer[1::2] = x, between
    # what may have cells of no width is refused by `of`
    return Grid._of_valid(finer) if grid.even else Grid.of(finer)


def bisected(grid: Grid, chosen: Bool[Tensor, " cells"]) -> Grid:
    """Return the grid with one more node in each chosen cell.

    Args:
        grid: The grid.
        chosen: Which cells.
    """
    x = grid.nodes
    return Grid.of(torch.cat([x, (0.5 * (x[:-1] + x[1:]))[chosen]]).sort().values)


def coarsened(grid: Grid) -> Grid:
    """Return every other node of a grid of 8 cells or more.

    Of an odd number of cells one stays as it is: the third from the end, so that the cells at both
    walls are wider, and what happens there differs from what the grid makes of it.

    >>> coarsened(Grid(0.0, 9.0, cells=9)).nodes.tolist()
    [0.0, 2.0, 4.0, 6.0, 7.0, 9.0]
    """
    x = grid.nodes
    if grid.cells % 2:
        return Grid._of_valid(torch.cat([x[:-1:2][:-1], x[-3::2]]))
    coarse = Grid._of_valid(x[::2].contiguous())
    if grid.even:
        coarse.even = True
    return coarse


def positions(grid: Grid, finer: Grid) -> Int[Tensor, " nodes"]:
    """Return where the nodes of a grid are among those of a finer one that keeps them all.

    >>> positions(Grid(0.0, 1.0, cells=4), halved(Grid(0.0, 1.0, cells=4)))
    tensor([0, 2, 4, 6, 8])
    """
    return torch.searchsorted(finer.nodes, grid.nodes)


def among(grid: Grid, finer: Grid) -> slice | Int[Tensor, " nodes"]:
    """Return the same as an index: every other node, where all cells are halved."""
    return slice(None, None, 2) if finer.cells == 2 * grid.cells else positions(grid, finer)


def _between(grid: Grid) -> Float[Tensor, " cells"]:
    """Return a place in each cell that keeps the spacing smooth."""
    x = grid.nodes
    middle = 0.5 * (x[:-1] + x[1:])
    if grid.even:
        return middle
    bend = torch.nn.functional.pad(x.diff(n=2), (1, 1), mode="constant")
    bend[0], bend[-1] = bend[1], bend[-2]  # at the ends that of the parabola through three
    off = -(bend[:-1] + bend[1:]) / 16
    most = _MOST_OFF * grid.widths
    return middle + off.clamp(-most, most)
