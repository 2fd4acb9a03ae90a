"""The ends of a grid, as a solver sees them: which nodes are unknowns, and what the others hold.

no-flux      the wall is a node like any other
absorbing    p = 0 there: the node is left out
periodic     both walls are one node
D = 0        no current reaches the wall, and p ∝ ξ^q beside it: the node is left out; q > 0
puts 0 there, q = 0 what a parabola through its neighbours says. For −1 < q < 0
the density is integrable and ∞ there; in what is carried in time 0 stands for it
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.conditions import BoundaryCondition
from sdegen.fokker_planck.discretization.power_law import Powers, is_singular, parabola_at_wall

_FLAT = 1e-6
_NOT_INTEGRABLE = -1 + 1e-6


@dataclass(frozen=True, eq=False)
class BoundaryNodes:
    """Both ends of a grid: the conditions of a density there, and the nodes that hold it.

    Args:
        conditions: Lower and upper wall.
        exponents: q of p ∝ ξ^q where D = 0; None where D > 0.
        nodes: Positions of the nodes.

    Raises:
        ValueError: If the density is not integrable at a wall with D = 0, or such a wall is to
            absorb or to close a ring.
    """

    conditions: tuple[BoundaryCondition, BoundaryCondition]
    exponents: tuple[float | None, float | None]
    nodes: Float[Tensor, " nodes"]

    def __post_init__(self) -> None:
        if self.exponents == (None, None):
            return
        at = self.nodes[[0, -1]].tolist()
        for q, condition, x in zip(self.exponents, self.conditions, at, strict=True):
            if q is None:
                continue
            if not condition.reflects:
                raise ValueError(
                    f"at the wall x = {x:g} the diffusion vanishes, and a wall without noise "
                    f"cannot be {condition!r}; pass 'no-flux', or end the grid before it."
                )
            if q <= _NOT_INTEGRABLE:
                raise ValueError(
                    f"at the wall x = {x:g} the diffusion vanishes and the density grows like the "
                    f"distance to the power {q:.3g}, which is not integrable: by Feller's "
                    "classification the wall is an exit, and all mass that reaches it stays. End "
                    "the grid before it, with an absorbing wall there."
                )

    @cached_property
    def powers(self) -> Powers:
        """Those q with which a density is no smooth function at a wall; None for the others."""
        low, high = (q if is_singular(q) else None for q in self.exponents)
        return low, high

    @property
    def ring(self) -> bool:
        """Whether both walls are one node."""
        return self.conditions[0].wraps

    @cached_property
    def interior(self) -> slice:
        """The nodes of a line that are unknowns."""
        walls = zip(self.conditions, self.exponents, strict=True)
        low, high = (int(wall.absorbs or q is not None) for wall, q in walls)
        return slice(low, self.nodes.shape[0] - high)

    @cached_property
    def whole(self) -> bool:
        """Whether these are all."""
        return bool(self.interior.stop - self.interior.start == self.nodes.shape[0])

    def restrict(self, p: Tensor) -> Tensor:
        """Return the nodal values (..., nodes) → unknowns (..., n)."""
        if self.ring:
            return torch.cat([0.5 * (p[..., :1] + p[..., -1:]), p[..., 1:-1]], -1)
        return p if self.whole else p[..., self.interior]

    def widen(self, p: Tensor) -> Tensor:
        """Return the unknowns (..., n) → nodal values (..., nodes)."""
        if self.ring:
            return torch.cat([p, p[..., :1]], -1)
        if self.whole:
            return p
        beyond = self.interior.start, len(self.nodes) - self.interior.stop
        return self.filled(torch.nn.functional.pad(p, beyond))

    def filled(self, p: Tensor) -> Tensor:
        """Return nodal values with the entries at walls with D = 0 set to those of the density."""
        if self.exponents == (None, None):
            return p
        ends = [p[..., :1], p[..., -1:]]
        for side, q in enumerate(self.exponents):
            if q is not None and abs(q) > _FLAT:
                ends[side] = torch.zeros_like(ends[side])
            elif q is not None:
                ends[side] = parabola_at_wall(self.nodes, p[..., 1:-1], -side)
        return torch.cat([ends[0], p[..., 1:-1], ends[1]], -1)
