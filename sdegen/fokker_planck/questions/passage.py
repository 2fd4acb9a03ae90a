"""First passages: when, and through which wall, a diffusion leaves.

From x, the moments of the time τ to an absorbing wall and the chance q to leave through the upper
one obey the backward equation,

    L†T_n = −n T_{n−1},   T_0 = 1;      L†q = 0;      L† = f ∂ + D ∂² = (1/m) ∂ (1/s) ∂

with the scale density s = exp(−∫ f/D) and the speed density m = 1/(sD), both up to a factor. How
it is solved is told in `passage_moments`.

Errors are those of two grids (`two_grids`).

Reference:
    Gardiner 2009, Stochastic Methods, section 5.5; Karlin and Taylor 1981, chapter 15.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.errors import SolverError
from sdegen.core.requests import as_numbers
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.cubics import interpolated
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.questions.passage_moments import first_passage
from sdegen.fokker_planck.questions.two_grids import Answer, Problem, refined

_TINY = 1e-300
_ROUNDING = 1e-15
_REFUSED = 0.1
_FOURTH = 4.0  # a difference of fourth order is 15 times the error, on grids that are fine
_CUBIC_GAIN = 4.0  # what the difference of cubics through all and every other node is to an error


@dataclass(frozen=True, eq=False)
class PassageTimes(Answer):
    """When and where a diffusion that starts at x leaves through an absorbing wall.

    Args:
        x: Starts, the nodes of the grid, shape (nodes,).
        moments: E τⁿ for n = 1, 2, …, in units of timeⁿ, shape (orders, nodes).
        to_high: Chance of leaving through the upper wall; 0 or 1 where only one absorbs, shape
            (nodes,). Between two absorbing walls it is the committor.
        error: Estimated relative errors of `moments`, `mean`, `std` and `to_high`, of the shapes
            of these.
    """

    x: Float[Tensor, " nodes"]
    moments: Float[Tensor, "orders nodes"]
    to_high: Float[Tensor, " nodes"]
    _title = "first passage"

    @property
    def mean(self) -> Float[Tensor, " nodes"]:
        """E τ from each node."""
        return self.moments[0]

    @property
    def std(self) -> Float[Tensor, " nodes"]:
        """√Var τ from each node.

        Raises:
            ValueError: If only the first moment was asked for.
            SolverError: If the passage is so sharp that the moments do not know its width.
        """
        if len(self.moments) < 2:
            raise ValueError(
                "the standard deviation needs two moments, but one was asked for; pass moments=2."
            )
        error = self.error["std"]
        assert isinstance(error, Tensor)
        if float(error.max()) > _REFUSED:
            where = float(self.x[int(error.argmax())])
            raise SolverError(
                "the standard deviation of the passage is lost in the rounding of its moments: "
                f"from x = {where:g} it is off by {float(error.max()):.2g} of itself. Simulate "
                "passages so sharp: run_ensemble(…, observables=[FirstPassage(…)]), with times "
                "close to each other around the mean, and read `survival`."
            )
        return (self.moments[1] - self.moments[0] ** 2).clamp(min=0).sqrt()

    def at(self, x0: float | Tensor) -> PassageTimes:
        """Return the same from other starts than the nodes, of third order in the cell.

        Args:
            x0: One start, or several, shape (starts,).

        Raises:
            ValueError: If one lies outside of the grid.
        """
        starts = as_numbers("x0", x0, expected="one start, or several").to(self.x).reshape(-1)
        low, high = float(self.x[0]), float(self.x[-1])
        outside = ~((starts >= low) & (starts <= high))
        if bool(outside.any()):
            raise ValueError(
                f"x0 = {float(starts[outside][0]):g} lies outside of the grid [{low:g}, {high:g}]."
            )
        moments, to_high = (interpolated(self.x, y, starts) for y in (self.moments, self.to_high))
        error = _between(self, starts, moments.detach(), to_high.detach())
        return replace(self, x=starts, moments=moments, to_high=to_high, error=error)


def _between(
    at_nodes: PassageTimes, starts: Tensor, moments: Tensor, to_high: Tensor
) -> ErrorEstimate:
    """Return errors between nodes: those at nodes, and of the cubic through every other one."""
    x, told = at_nodes.x, {}
    for name, values, there in (
        ("moments", at_nodes.moments.detach(), moments),
        ("to_high", at_nodes.to_high.detach(), to_high),
    ):
        error = at_nodes.error[name]
        assert isinstance(error, Tensor)
        cell = (torch.searchsorted(x, starts.contiguous(), right=True) - 1).clamp(0, len(x) - 2)
        found = torch.maximum(error[..., cell], error[..., cell + 1])
        if len(x) % 2 and len(x) >= 9:
            rough = interpolated(x[::2].contiguous(), values[..., ::2], starts)
            on_node = (starts == x[cell]) | (starts == x[cell + 1])
            off = (rough - there).abs() / there.abs().clamp(min=_TINY) / _CUBIC_GAIN
            found = found + torch.where(on_node, 0.0, off)
        told[name] = found
    told["mean"] = told["moments"][0]
    if len(moments) > 1:
        told["std"] = _of_std(moments, told["moments"])
    return ErrorEstimate(told, "two grids")


def _of_std(moments: Tensor, error: Tensor) -> Tensor:
    """Return the relative error of √(m₂ − m₁²) that those of m₁ and m₂ can make."""
    first, second = moments[0] ** 2, moments[1]
    variance = (second - first).clamp(min=0)
    lost = (second * error[1] + 2 * first * error[0] + _ROUNDING * second) / 2
    return torch.where(second > 0, lost / variance.clamp(min=_TINY), 0.0)


def passages(
    problem: Problem,
    grid: Grid,
    orders: int,
    rtol: float | None,
    fresh: Callable[[Grid], tuple[Fluxes, BoundaryNodes]] | None = None,
) -> PassageTimes:
    """Return moments of the exit time and exit probabilities, with their errors.

    Args:
        problem: Fluxes and walls of the SDE on a grid.
        grid: The user's grid.
        orders: How many moments.
        rtol: Relative error that grids are refined for; None takes 1e-6, and what is affordable.
        fresh: The same with gradients; None for none.

    Raises:
        SolverError: If no affordable grid meets rtol, or 10 %; or a moment is not a number.
    """

    def ask(flux: Fluxes, ends: BoundaryNodes) -> dict[str, Array]:
        moments, to_high = first_passage(flux, ends, orders)
        _check_numbers(moments, ends.nodes)
        asked = {"moments": moments.numpy(), "to_high": to_high.numpy()}
        if orders > 1:
            asked["std"] = (moments[1] - moments[0] ** 2).clamp(min=0).sqrt().numpy()
        return asked

    with torch.no_grad():
        found = refined(
            problem, grid, ask, rtol, "the first passage", spared=("std",), most=_FOURTH
        )
        told: dict[str, float | Tensor] = {k: torch.from_numpy(e) for k, e in found.errors.items()}
        moments, to_high = (torch.from_numpy(found.values[k]) for k in ("moments", "to_high"))
        told["mean"] = torch.from_numpy(found.errors["moments"][0])
        if orders > 1:
            variance = (moments[1] - moments[0] ** 2).clamp(min=_TINY)
            least = found.errors["moments"].min()  # which rounding leaves everywhere
            told["std"] = torch.from_numpy(found.errors["std"]) + torch.where(
                moments[1] > 0, least * moments[1] / variance, 0.0
            )
    if fresh is not None:
        at, ends = fresh(found.grid)
        moments, to_high = (y[..., :: found.step] for y in first_passage(at, ends, orders))
    return PassageTimes(grid.nodes, moments, to_high, error=ErrorEstimate(told, "two grids"))


def _check_numbers(moments: Tensor, nodes: Tensor) -> None:
    """Refuse moments that are above the largest number.

    Raises:
        SolverError: If one is.
    """
    lost = ~torch.isfinite(moments)
    if bool(lost.any()):
        order = int(lost.any(1).nonzero()[0]) + 1
        where = float(nodes[lost[order - 1]][0])
        cure = (
            f"Ask for the first {order - 1} of them: moments={order - 1}."
            if order > 1
            else "the barrier is above 700 kT, and never crossed."
        )
        raise SolverError(
            f"moment {order} of the passage time from x = {where:g} is above 1e308, the largest "
            f"number. {cure}"
        )
