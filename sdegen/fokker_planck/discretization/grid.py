"""The grid: nodes of a density on a line, with any spacing.

    low = x_0 < x_1 < … < x_N = high

A density is known at the nodes, and both walls are nodes. `Grid(low, high, cells)` spaces them
evenly. Where a density has heavy tails or a fine structure at one place, `Grid.sinh` puts the
nodes close together there, and `Grid.of` takes nodes of your own; the fourth order of the compact
scheme holds where the spacing varies smoothly.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count, check_positive
from sdegen.core.requests import as_number, as_numbers
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization import arrays
from sdegen.fokker_planck.discretization.arrays import AnyArray, Array
from sdegen.fokker_planck.discretization.cubics import cell_masses, moment_weights, weights_at_zero
from sdegen.fokker_planck.discretization.extent import extent

_FEWEST_CELLS = 4
_FEW_CELLS = 8  # below them the two ends meet
_AT_END = moment_weights(np.arange(_FEW_CELLS + 1.0))[:, : _FEW_CELLS // 2]  # of even nodes
_HEAVY = 0.1  # of the density's width: an even cell may be as wide


class Grid:
    """Nodes x_i = low + i (high − low)/cells on [low, high].

    Args:
        low: Lower wall, in units of the state.
        high: Upper wall.
        cells: Number of intervals, ≥ 4, of equal width.

    Attributes:
        nodes: Positions, float64, shape (cells + 1,), both walls included.

    Raises:
        ValueError: If low ≥ high, an end is not finite, or there are fewer than 4 cells.

    Example:
        >>> sg.Grid(-1.0, 1.0, cells=4).nodes
        tensor([-1.0000, -0.5000,  0.0000,  0.5000,  1.0000], dtype=torch.float64)
    """

    nodes: Float[Tensor, " nodes"]

    def __init__(self, low: float, high: float, cells: int) -> None:
        _check(low, high, cells)
        share = torch.arange(cells + 1, dtype=torch.float64) / cells
        ends = torch.tensor([float(low), float(high)], dtype=torch.float64)
        self.nodes = torch.lerp(ends[0], ends[1], share)

    @classmethod
    def of(cls, nodes: Tensor) -> Grid:
        """Return a grid of your own nodes, strictly increasing, shape (cells + 1,).

        Raises:
            ValueError: If they are not finite, not strictly increasing, or fewer than 5.
        """
        x = as_numbers("nodes", nodes, expected="numbers x_0 < x_1 < …").detach().cpu().clone()
        if x.ndim != 1 or len(x) <= _FEWEST_CELLS:
            raise ValueError(
                f"nodes must have shape (cells + 1,) with at least {_FEWEST_CELLS} cells, but "
                f"have shape {tuple(x.shape)}."
            )
        wrong = ~(x.diff() > 0)
        if bool(wrong.any()) or not bool(torch.isfinite(x).all()):
            i = int(wrong.double().argmax())
            raise ValueError(
                f"nodes must be finite and strictly increasing, but nodes[{i}] = {float(x[i]):g} "
                f"is followed by {float(x[i + 1]):g}; pass torch.linspace(low, high, cells + 1)."
            )
        return cls._of_valid(x)

    @classmethod
    def _of_valid(cls, nodes: Tensor) -> Grid:
        """Return a grid of nodes that are known to be right, float64 and not to change."""
        grid = cls.__new__(cls)
        grid.nodes = nodes
        return grid

    @classmethod
    def sinh(
        cls, low: float, high: float, cells: int, *, center: float = 0.0, width: float
    ) -> Grid:
        """Return the nodes that are even within `width` of a center, and geometric beyond it.

        x = center + width · sinh(s), s evenly spaced

        Args:
            low: Lower wall.
            high: Upper wall.
            cells: Number of intervals.
            center: Where nodes are closest.
            width: Distance from the center at which the spacing starts to grow, > 0.

        Raises:
            ValueError: As Grid does, and if width is not > 0.
        """
        _check(low, high, cells)
        low, high = as_number("low", low), as_number("high", high)
        center, width = as_number("center", center), as_number("width", width)
        check_positive("width", width)
        s = cls(math.asinh((low - center) / width), math.asinh((high - center) / width), cells)
        x = center + width * torch.sinh(s.nodes)
        x[0], x[-1] = low, high  # the walls are where they were asked for, to the last bit
        return cls.of(x)

    @classmethod
    def covering(cls, sde: SDE, cells: int = 800, *, near: float | None = None) -> Grid:
        """Find where the stationary density of an SDE lives, and put nodes there.

        The ends go outward until log p, from ∫ f/D, has fallen by 40 below its peak: what is left
        out is below 1e-17 of the peak, times the width of the tail. They stop where the diffusion
        vanishes or ends. A density whose tails are so heavy that even nodes would miss its middle
        gets sinh-spaced ones.

        Args:
            sde: Dynamics with a state of shape (batch, 1), without a time dependence.
            cells: Number of intervals.
            near: A point where the process lives; None takes 0, 1 or ½, the first that is one
                of its states.

        Returns:
            The grid.

        Raises:
            NotNormalizableError: If log p has not fallen by 40 within 1e8 of that point, or not
                where f/D can be followed.
            ValueError: If drift or diffusion are not finite at it, or depend on time, or so many
                cells do not resolve what was found.
        """
        law = extent(sde, near)
        grid = even = cls(law.low, law.high, cells)
        if law.high - law.low > _HEAVY * cells * law.width:
            grid = cls.sinh(law.low, law.high, cells, center=law.center, width=law.width)
        # what is fine in two places is missed by nodes that are close together in one
        for choice in (grid, even):
            if law.is_seen_by(choice.nodes.numpy()):
                return choice
        raise ValueError(
            f"{cells} cells from {law.low:g} to {law.high:g} do not resolve the stationary "
            "density: it is narrow in places that lie far apart; pass more cells, or nodes of "
            "your own: Grid.of(nodes)."
        )

    @cached_property
    def widths(self) -> Float[Tensor, " cells"]:
        """Widths of the cells."""
        return self.nodes.diff()

    @cached_property
    def smooth(self) -> bool:
        """Whether a cell is at most twice as wide as its neighbour."""
        ratio = self.widths[1:] / self.widths[:-1]
        return float(ratio.min()) >= 0.5 and float(ratio.max()) <= 2

    @cached_property
    def weights(self) -> Float[Tensor, " nodes"]:
        """Weights of ∫ y dx ≈ Σ w_i y_i, fourth order in the cell: those of `integral`."""
        return torch.from_numpy(self.moment_weights[0])

    @cached_property
    def moment_weights(self) -> Array:
        """Weights of ∫ p dx, ∫ y p dx and ∫ y² p dx, y from the middle, shape (3, nodes).

        They are those of the cubics of `Density`, whose slopes no density that is resolved limits.
        """
        x, origin = self.nodes.numpy(), 0.5 * (self.low + self.high)
        if not self.even or self.cells < _FEW_CELLS:
            return moment_weights(x, origin=origin)
        y = x - origin
        weights = np.empty((3, len(x)))
        weights[0] = h = self._width  # cubics whose slopes are those of parabolas see y² exactly
        np.multiply(y, h, out=weights[1])
        np.multiply(y, weights[1], out=weights[2])
        w0, w1, w2 = _AT_END
        low, high = weights[:, : len(w0)], weights[:, : -len(w0) - 1 : -1]
        for near, wall, inward in ((low, y[0], h), (high, y[-1], -h)):
            near[0] = h * w0
            near[1] = h * (wall * w0 + inward * w1)
            near[2] = h * (wall * (wall * w0 + 2 * inward * w1) + inward * inward * w2)
        return weights

    @cached_property
    def even(self) -> bool:
        """Whether all cells are of one width, up to the rounding of the nodes."""
        x = self.nodes.numpy()
        h = x[1:] - x[:-1]
        rounding = 4 * np.finfo(np.float64).eps * max(abs(x[0]), abs(x[-1]))
        return bool(h.max() - h.min() <= rounding)

    def masses(self, p: AnyArray) -> AnyArray:
        """Return ∫ p dx of one or many densities: the sum of `cell_masses`.

        On even nodes the slope of an inner node counts in two cells with opposite signs, so that
        only those at the ends are left. A limited one, |s| h = 3 p, is steeper than the
        parabola's by (p_2 − 4 p_1 − 3 p_0)/(2h).

        Args:
            p: Nodal values ≥ 0, shape (..., nodes), a tensor or an array.
        """
        total: AnyArray
        last = self.cells
        if not self.even or last < _FEW_CELLS:
            total = cell_masses(arrays.like(p, self.nodes), p).sum(-1)
        else:
            steep = p[..., 2 :: last - 4] - 4 * p[..., 1 :: last - 2] - 3 * p[..., ::last]
            limited = (self._width / 24) * steep.clip(0).sum(-1)
            total = p @ arrays.like(p, self.weights) + limited
        return total

    @cached_property
    def _width(self) -> float:
        """The mean width of the cells."""
        return (self.high - self.low) / self.cells

    @cached_property
    def narrowest(self) -> float:
        """The width of the narrowest cell."""
        return self._width if self.even else float(self.widths.min())

    @cached_property
    def low(self) -> float:
        """Lower wall."""
        return float(self.nodes[0])

    @cached_property
    def high(self) -> float:
        """Upper wall."""
        return float(self.nodes[-1])

    @cached_property
    def cells(self) -> int:
        """Number of intervals."""
        return self.nodes.shape[0] - 1

    def gaussian(self, mean: float, std: float) -> Density:
        """Return the density N(mean, std²) at the nodes, restricted to the grid and of mass 1.

        Raises:
            ValueError: If the mean lies outside of the grid, or std is not at least half a cell
                there.
        """
        x, mean, std = self.nodes, as_number("mean", mean), as_number("std", std)
        self._check_inside(mean, "mean")
        i = self._cell_of(mean)
        width = float(x[i + 1] - x[i])
        if not 0.5 * width <= std < math.inf:
            raise ValueError(
                f"std must be at least half a cell, {0.5 * width:.3g} at x = {mean:g}, but is "
                f"{std:g}; take more cells, or grid.point(mean) for a start at a point."
            )
        return Density(x, torch.exp(-0.5 * ((x - mean) / std) ** 2)).normalized()

    def point(self, x0: float) -> Density:
        """Return a unit mass at x0, which may lie between two nodes: mass 1, mean x0.

        It is a nodal density without width, to start the positive (lumped) form from, whose mean
        is that of the masses of the nodes. Read as a cubic, as `Density` does, its mean is off by
        up to 2.4 % of a cell.

        Raises:
            ValueError: If x0 lies outside of the grid.
        """
        x = self.nodes
        self._check_inside(x0, "x0")
        i = self._cell_of(x0)
        share = (x0 - float(x[i])) / float(x[i + 1] - x[i])
        control = control_volumes(self.widths)
        p = torch.zeros_like(x)
        p[i], p[i + 1] = (1 - share) / control[i], share / control[i + 1]
        return Density(x, p).normalized()

    def sharp_point(self, x0: float) -> Float[Tensor, " nodes"]:
        """Return a unit mass at x0 as nodal values of the compact form: four nodes, three moments.

        They may be negative, and become a density of fourth order once it is a few cells wide.
        Near a wall they are those of `point`.

        Args:
            x0: Where.
        """
        x = self.nodes
        first = self._cell_of(x0) - 1
        if first < 2 or first + 5 >= len(x):
            return self.point(x0).p
        near = torch.arange(first, first + 4)
        # the width of a node's share for a smooth spacing, to fourth order
        width = (8 * (x[near + 1] - x[near - 1]) - (x[near + 2] - x[near - 2])) / 12
        p = torch.zeros_like(x)
        p[near] = weights_at_zero(x[near] - x0) / width
        return p

    def _check_inside(self, x: float, argument: str) -> None:
        x = as_number(argument, x)
        if not self.low <= x <= self.high:
            raise ValueError(
                f"{argument} = {x:g} lies outside of the grid [{self.low:g}, {self.high:g}]; move "
                "it or widen the grid."
            )

    def _cell_of(self, x: float) -> int:
        """Return the index of the cell that holds x."""
        right = int(np.searchsorted(self.nodes.numpy(), x))
        return min(max(right - 1, 0), self.cells - 1)

    def __repr__(self) -> str:
        return f"Grid(low={self.low:g}, high={self.high:g}, cells={self.cells})"


def control_volumes(h: Float[Tensor, " cells"]) -> Float[Tensor, " nodes"]:
    """Return half of the cells, of widths h, on either side of each node."""
    pad = torch.nn.functional.pad
    return 0.5 * (pad(h, (1, 0)) + pad(h, (0, 1)))


def _check(low: float, high: float, cells: int) -> None:
    """Raise if numbers are none of a grid."""
    low, high = as_number("low", low), as_number("high", high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a grid needs finite low < high, but low = {low:g} and high = {high:g}.")
    check_count("cells", cells, _FEWEST_CELLS)
