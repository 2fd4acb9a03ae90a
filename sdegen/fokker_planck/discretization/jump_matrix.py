"""The jump term on a grid: what a jump brings to each node, and what it carries beyond the ends.

    p_t = … + ∫ λ(x′) w(x − x′ | x′) p(x′) dx′ − λ p,        p′ = M⁻¹ K p + C p

The gain at the nodes is (C + λ) p. Two ways lead to it, each of fourth order in the cell where p
is smooth:

    sizes with a density    M₀⁻¹ Σ_j B_ij m_j λ_j p_j,    B_ij = E φ_i(x_j + s)
    points, x + s_q         Σ_j P_ij m_j λ_j p_j/h_i,     P by cubics through four nodes

B is what the hat functions φ_i of the nodes take, a second difference of the integral H of the law
of sizes (`jump_lengths.py`): it is smooth in x_j, so that a sum over nodes is an integral, and M₀,
the (1, 10, 1) h/12 of a grid without drift, brings it to nodal values. A point is not smooth; the
shares of its cubic interpolate p instead. The lumped form takes linear shares in both. Sizes that
depend on the state take the first way; where they have no density at each state, as x → x/2 has
none, they are of second order.

Mass is conserved to rounding: m are the column sums of M, and columns of C are scaled by 1 + O(h⁴)
to this end. What jumps beyond an absorbing end is gone. What jumps beyond an end that only ends
the grid is put at its last node, and its rate is told, since on the line it would be farther out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from sdegen.core.evaluation import are_alike
from sdegen.core.jumps import CompoundPoisson
from sdegen.fokker_planck.discretization import tridiagonal
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.grid import control_volumes
from sdegen.fokker_planck.discretization.jump_lengths import Tabulated, uniform_rule
from sdegen.fokker_planck.discretization.operator import Operator

_AT_ONCE = 2**22  # landing points
_SAME = 1e-9
_ROUNDED = 1e-13  # of the peak: what is left of a series


@dataclass(frozen=True, eq=False)
class Landings:
    """Where jumps of one kind land, from each node of a grid.

    Attributes:
        rate: λ, shape (nodes,).
        shares: B, what nodes take by hats, shape (nodes, nodes), non-negative.
        sharp: P, the same by cubics, of sizes that are points; None of others.
        low: The chance to land below the grid, shape (nodes,).
        high: The same above it.
    """

    rate: Float[Tensor, " nodes"]
    shares: Float[Tensor, "nodes nodes"]
    sharp: Float[Tensor, "nodes nodes"] | None
    low: Float[Tensor, " nodes"]
    high: Float[Tensor, " nodes"]


@torch.no_grad()
def landings(jumps: CompoundPoisson, x: Float[Tensor, " nodes"]) -> Landings:
    """Return where jumps from nodes land.

    Args:
        jumps: One kind of them, which does not depend on time.
        x: Nodes.

    Raises:
        ValueError: If the rate is above its bound or negative at a node, or rate or sizes at one
            node depend on the others.
    """
    zero = torch.zeros((), dtype=x.dtype)
    for name, of in jumps.fields().items():
        if not are_alike(of(x[:, None], zero)[::7], of(x[::7, None], zero), _SAME):
            raise ValueError(
                f"the {name} of jumps at a state depends on the other states of its batch (a mean "
                "field); its density obeys a nonlinear equation, which is not solved here."
            )
    rate = jumps.rates(x[:, None], zero)
    if isinstance(jumps.sizes, Distribution):
        law = Tabulated(jumps.sizes, 1.001 * float(x[-1] - x[0]))
        apart = x[:, None] - x
        mean = law.integral(apart).diff(dim=0) / x.diff()[:, None]  # of F over cells
        first, last = law.cdf(apart[:1]), law.cdf(apart[-1:])
        shares = torch.cat([first, mean, last]).diff(dim=0).clamp(min=0)
        return Landings(rate, shares, None, first[0], 1 - last[0])
    u, weights = uniform_rule() if callable(jumps.sizes) else (zero[None] + 0.5, zero[None] + 1)
    linear, cubic, beyond = [], [], []
    at_once = max(1, _AT_ONCE // len(u))
    for some in (x[k : k + at_once] for k in range(0, len(x), at_once)):
        state = some[:, None].expand(-1, len(u)).reshape(-1, 1)
        sizes = jumps.size(state, zero, u.expand(len(some), -1).reshape(-1, 1))
        ends = (state + sizes).reshape(len(some), len(u))
        linear.append(_shared(ends, weights, x, 2))
        cubic.append(_shared(ends, weights, x, 4) if jumps.is_additive else linear[-1][:0])
        beyond.append(
            torch.stack([(way > 0).to(x) @ weights for way in (x[0] - ends, ends - x[-1])])
        )
    low, high = torch.cat(beyond, 1)
    sharp = torch.cat(cubic).T if jumps.is_additive else None
    return Landings(rate, torch.cat(linear).T, sharp, low, high)


def _shared(ends: Tensor, weights: Tensor, x: Tensor, points: int) -> Tensor:
    """Return what each node takes of ends on the grid, by polynomials through 2 or 4 nodes.

    Args:
        ends: Shape (rows, n).
        weights: Shape (n,).
        x: Nodes.
        points: How many; beside the ends of the grid there are two.
    """
    cell = torch.searchsorted(x, ends.contiguous(), right=True).clamp(1, len(x) - 1) - 1
    inside = (ends >= x[0]) & (ends <= x[-1])
    first = (cell - (points // 2 - 1)).clamp(0, len(x) - points)
    taken = torch.zeros(len(ends), len(x), dtype=x.dtype)
    near = [x[first + a] for a in range(points)]
    for a in range(points):
        share = torch.where(inside, weights.expand_as(ends), 0.0)
        for b in range(points):
            if b != a:
                share = share * (ends - near[b]) / (near[a] - near[b])
        taken.scatter_add_(1, first + a, share)
    return taken


class JumpMatrix:
    """C of the jump term for the unknowns of a grid.

    Args:
        kinds: Where jumps of each kind land.
        operator: M and K of drift and diffusion.
        ends: Walls.
        compact: Form of the operator.
    """

    def __init__(
        self, kinds: list[Landings], operator: Operator, ends: BoundaryNodes, *, compact: bool
    ) -> None:
        inner, kept = ends.interior, [not wall.absorbs for wall in ends.conditions]
        # the mass that the operator keeps: column sums of M
        before, here, after = operator.mass.detach()
        self.mass: Tensor = before.roll(-1) + here + after.roll(1)
        self._operator = operator
        n = len(self.mass)
        self.rate: Tensor
        self.cut: Tensor
        self.rate, self.cut = torch.zeros(2, n, dtype=self.mass.dtype)
        self.matrix: Tensor = torch.zeros(n, n, dtype=self.mass.dtype)
        for kind in kinds:
            shares = kind.sharp if compact and kind.sharp is not None else kind.shares
            shares, rate = shares.clone(), kind.rate[inner]
            for side, beyond, stays in zip((0, -1), (kind.low, kind.high), kept, strict=True):
                if stays:
                    shares[side] += beyond
                    self.cut += beyond[inner] * rate * self.mass
            shares = shares[inner, inner]
            if compact and kind.sharp is None:
                gain = _at_nodes(shares, ends.nodes, inner)
            else:
                gain = shares / _widths(ends.nodes, fine=compact)[inner, None]
            gain = gain * (shares.sum(0) / (self.mass @ gain).clamp(min=1e-300) * self.mass)
            self.matrix += gain * rate - torch.diag(rate)
            self.rate += rate
        self.largest: float = float(self.rate.max())

    def moved(self, p: Tensor, dt: float) -> Tensor:
        """Return e^{dt C} p by Taylor's series, in pieces that it converges fast for."""
        pieces = max(1, int(dt * 2 * self.largest) + 1)
        for _ in range(pieces):
            term, h = p, dt / pieces
            for k in range(1, 40):
                term = (self.matrix @ term) * (h / k)
                p = p + term
                if float(term.abs().max()) <= _ROUNDED * float(p.abs().max()):
                    break
        return p

    @cached_property
    def generator(self) -> Tensor:
        """M (M⁻¹ K + C), dense; its columns sum to minus the rate at which mass leaves."""
        eye = torch.eye(len(self.mass), dtype=self.mass.dtype)
        rates = tridiagonal.multiply(self._operator.rates.detach(), eye).T
        mass = tridiagonal.multiply(self._operator.mass.detach(), eye).T
        total: Tensor = rates + mass @ self.matrix
        return total


def _at_nodes(shares: Tensor, x: Tensor, inner: slice) -> Tensor:
    """Return M₀⁻¹ B, densities at the unknowns of what hats take, to fourth order."""
    h = x.diff()
    left, right = h[:-1], h[1:]
    first = (right.square() - left.square()) / 6
    second = (left**3 + right**3) / 12
    # beside an end of the grid no parabola is known: its row is lumped
    bands = torch.zeros(3, len(x), dtype=x.dtype)
    bands[0, 1:-1] = (second - right * first) / (left * (left + right))
    bands[2, 1:-1] = (second + left * first) / (right * (left + right))
    bands[1] = control_volumes(h) - bands[0] - bands[2]
    bands = bands[:, inner].clone()
    bands[0, 0], bands[2, -1] = 0.0, 0.0
    return tridiagonal.solve(bands, shares.T.contiguous()).T


def _widths(x: Tensor, *, fine: bool) -> Tensor:
    """Return dx/di at nodes, of a smooth spacing to fourth order, or their control volumes."""
    widths = control_volumes(x.diff())
    if fine:
        widths[2:-2] = (8 * (x[3:-1] - x[1:-3]) - (x[4:] - x[:-4])) / 12
    return widths
