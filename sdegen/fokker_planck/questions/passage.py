"""First passages: when, and through which wall, a diffusion leaves.

From x, the moments of the time τ to an absorbing wall and the chance q to leave through the upper
one obey the backward equation,

    L†T_n = −n T_{n−1},   T_0 = 1;      L†q = 0;      L† = f ∂ + D ∂² = (1/m) ∂ (1/s) ∂

with the scale density s = exp(−∫ f/D) and the speed density m = 1/(sD), both up to a factor.
Tested with the hats of the compact scheme, which are linear in S = ∫s, the left side is exact in
nodal values:

    a_i (T_{i+1} − T_i) + b_{i−1} (T_{i−1} − T_i) = −∫ φ_i (m/m_i) n T_{n−1} dx

and the right side is a smooth integral. It is solved by sums of positive terms in log space, so
that a barrier of forty kT costs no digits: with A the mass of m T_{n−1} on the reflecting side, T
= ∫ s A, and between two absorbing walls Green's function S_i (S_N − S_k)/S_N.

Errors are those of two grids (`two_grids`).

Reference:
    Gardiner 2009, Stochastic Methods, section 5.5; Karlin and Taylor 1981, chapter 15.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, Trust
from sdegen.core.errors import SolverError
from sdegen.core.requests import as_numbers
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.coefficients import (
    GAUSS_NODES,
    GAUSS_WEIGHTS,
    Coefficients,
)
from sdegen.fokker_planck.discretization.cubics import interpolated
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.operator import STEEPEST, wall_weights
from sdegen.fokker_planck.questions.two_grids import Problem, refined

__all__ = ["FirstPassage", "passages", "to_be_left"]

_TINY = 1e-300
_ROUNDING = 1e-15
_REFUSED = 0.1
_FOURTH = 4.0  # a difference of fourth order is 15 times the error, on grids that are fine
_CUBIC_GAIN = 4.0  # what the difference of cubics through all and every other node is to an error


@dataclass(frozen=True, eq=False)
class FirstPassage:
    """When and where a diffusion that starts at x leaves through an absorbing wall.

    Args:
        x: Starts, the nodes of the grid, shape (nodes,).
        moments: E τⁿ for n = 1, 2, …, in units of timeⁿ, shape (orders, nodes).
        to_high: Chance of leaving through the upper wall; 0 or 1 where only one absorbs, shape
            (nodes,). Between two absorbing walls it is the committor.
        error: Estimated relative errors of `moments`, `mean`, `std` and `to_high`, of the shapes
            of these.
        assumed_autonomous: Whether it was assumed that drift and diffusion do not depend on time.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.
    """

    x: Float[Tensor, " nodes"]
    moments: Float[Tensor, "orders nodes"]
    to_high: Float[Tensor, " nodes"]
    error: ErrorEstimate
    assumed_autonomous: bool = False
    slope_by: SlopeBy = "none"

    def trust(self) -> Trust:
        """Return what is known of its errors, a row for each cause."""
        return Trust.on_grid("first passage", self.error, slope_by=self.slope_by)

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

    def at(self, x0: float | Tensor) -> FirstPassage:
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
        return FirstPassage(starts, moments, to_high, error, self.assumed_autonomous)


def _between(
    at_nodes: FirstPassage, starts: Tensor, moments: Tensor, to_high: Tensor
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
    *,
    assumed: bool,
    fresh: Callable[[Grid], tuple[Fluxes, BoundaryNodes]] | None = None,
) -> FirstPassage:
    """Return moments of the exit time and exit probabilities, with their errors.

    Args:
        problem: Fluxes and walls of the SDE on a grid.
        grid: The user's grid.
        orders: How many moments.
        rtol: Relative error that grids are refined for; None takes 1e-6, and what is affordable.
        assumed: Whether it is an assumption that the SDE does not depend on time.
        fresh: The same with gradients; None for none.

    Raises:
        SolverError: If no affordable grid meets rtol, or 10 %; or a moment is not a number.
    """

    def ask(flux: Fluxes, ends: BoundaryNodes) -> dict[str, NDArray[np.float64]]:
        moments, to_high = first_passage(flux, ends, orders)
        _check_numbers(moments, ends.nodes)
        variance = moments[1] - moments[0] ** 2 if orders > 1 else torch.zeros(1)
        asked = {"moments": moments.numpy(), "to_high": to_high.numpy()}
        if orders > 1:
            asked["std"] = variance.clamp(min=0).sqrt().numpy()
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
    return FirstPassage(grid.nodes, moments, to_high, ErrorEstimate(told, "two grids"), assumed)


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


def first_passage(flux: Fluxes, ends: BoundaryNodes, orders: int) -> tuple[Tensor, Tensor]:
    """Return moments of the exit time, shape (orders, nodes), and exit probabilities.

    Args:
        flux: Fluxes of the cells.
        ends: Walls, of which at least one absorbs.
        orders: How many moments.
    """
    c = flux.land.coefficients
    green = _Green(flux, ends)
    nodal, bends = torch.ones_like(green.phi), torch.ones_like(flux.hats)  # T_{n−1}
    moments = []
    for order in range(1, orders + 1):
        right, left = _loads(order * nodal, order * bends, flux, ends)
        pad = torch.nn.functional.pad
        t = green.solve(pad(right, (0, 1)) + pad(left, (1, 0)))
        slopes = _slopes(t, order * nodal, right, left, flux, c, ends)
        t = _at_walls_without_noise(t, slopes, flux.h, ends)
        moments.append(t)
        nodal, bends = t, _cubic(t, slopes, flux.h)
    return torch.stack(moments), green.to_high


def to_be_left(log_m: Tensor, log_d: Tensor, x: Tensor, *, to_high: bool) -> Tensor:
    """Return log m where a time of first passage to one absorbing wall is decided, its peak 0.

    T = ∫ s M dx, M the mass of m on the side away from the wall: what lies beyond the place where
    s M is largest, which is the barrier if there is one, does not count, and is −∞ here.

    Args:
        log_m: log of the density without current, shape (nodes,).
        log_d: log D.
        x: Nodes.
        to_high: Whether the absorbing wall is the upper one.
    """
    if not to_high:
        return to_be_left(log_m.flip(0), log_d.flip(0), -x.flip(0), to_high=True).flip(0)
    # by trapezoids: only the place is asked for
    cell = torch.logaddexp(log_m[1:], log_m[:-1]) + x.diff().log()
    height = torch.logcumsumexp(cell, 0) - (log_m + log_d)[1:]
    decided = log_m[: int(height.argmax()) + 2]
    beyond = log_m.new_full((len(x) - len(decided),), -torch.inf)
    return torch.cat([decided - decided.max(), beyond])


class _Green:
    """Green's function of the backward equation: T_i = Σ_k G_ik m_k r_k, all terms positive."""

    def __init__(self, flux: Fluxes, ends: BoundaryNodes) -> None:
        self.low, self.high = (kind.absorbs for kind in ends.conditions)
        self.inside = ends.kept
        self.phi = torch.nn.functional.pad(flux.w.cumsum(-1), (1, 0))
        self.log_scale = -flux.a.log() - self.phi[:-1]  # log ∫ s over each cell
        self.below = _cumulated(self.log_scale)  # log of S from the lower wall
        self.above = _cumulated(self.log_scale.flip(0)).flip(0)  # log of S to the upper wall

    @property
    def to_high(self) -> Tensor:
        """Chance of leaving through the upper wall."""
        if self.low and self.high:
            return torch.exp(self.below - self.below[-1])
        return torch.full_like(self.phi, float(self.high))

    def solve(self, load: Tensor) -> Tensor:
        """Return T at the nodes for the right side r, both shape (nodes,)."""
        inside = self.inside
        source = load[inside].log() + self.phi[inside]
        if self.low and self.high:
            up = torch.logcumsumexp(source + self.below[inside], 0) + self.above[inside]
            down = _after(source + self.above[inside]) + self.below[inside]
            t = torch.exp(torch.logaddexp(up, down) - self.below[-1])
        elif self.high:
            gathered = torch.logcumsumexp(source, 0) + self.log_scale[inside.start :]
            t = torch.logcumsumexp(gathered.flip(0), 0).flip(0).exp()
        else:
            gathered = torch.logcumsumexp(source.flip(0), 0).flip(0)
            t = torch.logcumsumexp(gathered + self.log_scale[: inside.stop - 1], 0).exp()
        return torch.nn.functional.pad(t, (inside.start, len(load) - inside.stop))


def _cumulated(log_terms: Tensor) -> Tensor:
    """Return log of Σ_{j < i}, one longer than the terms; −∞ first."""
    first = torch.full_like(log_terms[:1], -torch.inf)
    return torch.cat([first, torch.logcumsumexp(log_terms, 0)])


def _after(log_terms: Tensor) -> Tensor:
    """Return log of Σ_{j > i}; −∞ last."""
    return _cumulated(log_terms.flip(0)).flip(0)[1:]


def _loads(
    nodal: Tensor, bends: Tensor, flux: Fluxes, ends: BoundaryNodes
) -> tuple[Tensor, Tensor]:
    """Return ∫ φ (m/m_i) load over each cell, of the hats of its left and of its right node."""
    weights = bends * flux.log_m.exp() * GAUSS_WEIGHTS * flux.h[:, None]
    right = (weights * flux.hats).sum(-1)
    left = (weights * (1 - flux.hats)).sum(-1) * torch.exp(-flux.w)
    # where the hat is too steep for the Gauss points, the integrals for a constant f/D
    steep = flux.u.abs() > STEEPEST
    if bool(steep.any()):
        for_right, for_left = _steep_weights(torch.where(steep, flux.u, STEEPEST))
        rise = nodal.diff()
        right = torch.where(
            steep, flux.h * (for_right[0] * nodal[:-1] + for_right[1] * rise), right
        )
        left = torch.where(steep, flux.h * (for_left[0] * nodal[:-1] + for_left[1] * rise), left)
    q_low, q_high = ends.exponents
    h, zero = flux.h, torch.zeros_like(right[:1])
    if q_low is not None:
        first, second = wall_weights(h[0], h[1], q_low)
        at_wall = first * nodal[1] + second * nodal[2] * torch.exp(flux.w[1])
        left, right = torch.cat([at_wall[None], left[1:]]), torch.cat([zero, right[1:]])
    if q_high is not None:
        first, second = wall_weights(h[-1], h[-2], q_high)
        at_wall = first * nodal[-2] + second * nodal[-3] * torch.exp(-flux.w[-2])
        right, left = torch.cat([right[:-1], at_wall[None]]), torch.cat([left[:-1], zero])
    return right, left


def _steep_weights(u: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return ∫ ξᵏ φ m dξ, k = 0, 1, of the falling hat over m_i and the rising one over m_{i+1}.

    Args:
        u: Constant f/D times the width of the cell; |u| is not small.
    """
    v = u.abs()
    q = torch.exp(-v)
    near, far = 1 / (1 - q) - 1 / v, 1 / v - q / (1 - q)
    near_first = (0.5 - 1 / v + (1 - q) / v**2) / (1 - q)
    far_first = (1 / v - (1 - q) / v**2 - 0.5 * q) / (1 - q)
    up = u > 0  # else the cell is read from its other end
    right = torch.where(up, near, far), torch.where(up, near_first, far - far_first)
    left = torch.where(up, far, near), torch.where(up, far_first, near - near_first)
    return right, left


def _slopes(
    t: Tensor,
    load: Tensor,
    right: Tensor,
    left: Tensor,
    flux: Fluxes,
    c: Coefficients,
    ends: BoundaryNodes,
) -> tuple[Tensor, Tensor]:
    """Return T′ at the left and at the right node of each cell, exact but for the quadrature."""
    d = torch.where(c.nodal_diffusivity > 0, c.nodal_diffusivity, 1.0)
    at_left = (flux.a * t.diff() + right) / d[:-1]
    at_right = (flux.b * t.diff() - left) / d[1:]
    q_low, q_high = ends.exponents
    if q_low is not None:  # where D = 0: f T′ = −load
        wall = (-load[1] / c.wall_drift[0])[None]
        at_left, at_right = torch.cat([wall, at_left[1:]]), torch.cat([at_left[1:2], at_right[1:]])
    if q_high is not None:
        wall = (-load[-2] / c.wall_drift[1])[None]
        at_left, at_right = (
            torch.cat([at_left[:-1], at_right[-2:-1]]),
            torch.cat([at_right[:-1], wall]),
        )
    return at_left, at_right


def _at_walls_without_noise(
    t: Tensor, slopes: tuple[Tensor, Tensor], h: Tensor, ends: BoundaryNodes
) -> Tensor:
    """Return T at a wall that is no unknown, from its neighbour and the slopes."""
    q_low, q_high = ends.exponents
    rise = 0.5 * h * (slopes[0] + slopes[1])
    if q_low is not None:
        t = torch.cat([(t[1] - rise[0])[None], t[1:]])
    if q_high is not None:
        t = torch.cat([t[:-1], (t[-2] + rise[-1])[None]])
    return t


def _cubic(t: Tensor, slopes: tuple[Tensor, Tensor], h: Tensor) -> Tensor:
    """Return T at the Gauss points of each cell, from values and slopes at its nodes."""
    s = GAUSS_NODES
    rest = 1 - s
    value = t[:-1, None] * rest**2 * (1 + 2 * s) + t[1:, None] * s**2 * (1 + 2 * rest)
    bend = slopes[0][:, None] * s * rest**2 - slopes[1][:, None] * s**2 * rest
    return value + h[:, None] * bend
