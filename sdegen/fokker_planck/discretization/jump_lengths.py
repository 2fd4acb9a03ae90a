"""Laws of jump lengths, as a grid sees them.

    F(z) = P(s ≤ z),        H(z) = ∫_{−∞}^z F dz = E max(z − s, 0)

The share of jumps from x that a hat function between nodes takes is a second difference of H(· −
x), exactly, for a law of any width. F of a `torch.distributions` object is its cdf, and H its
integral by Gauss's rule on fine cells, between them by cubics. A function of uniform numbers is
taken at the points of a double exponential rule, which crowd towards 0 and 1.

Reference:
    Takahasi and Mori 1974, Publ. RIMS 9, 721, for the double exponential rule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, GAUSS_WEIGHTS

POINTS = 2**12  # of the double exponential rule
_REACH = 3.1  # of its variable: 1 − u is then a rounding
_CELLS = 2**16  # of the table of an integral


def uniform_rule() -> tuple[Tensor, Tensor]:
    """Return numbers u in (0, 1) and weights of sum 1, by which E f(u) is a sum."""
    t = torch.linspace(-_REACH, _REACH, POINTS, dtype=torch.float64)
    s = 0.5 * math.pi * t.sinh()
    u = torch.sigmoid(2 * s).clamp(max=1 - 2.0**-53)
    weights = t.cosh() / s.cosh() ** 2
    return u, weights / weights.sum()


class Tabulated:
    """The law of a distribution, its integral by a table.

    Args:
        law: It.
        reach: Largest length that is asked for.
    """

    def __init__(self, law: Distribution, reach: float) -> None:
        self._law = law
        middle = torch.tensor(0.5, dtype=torch.float64)
        self._median = float(law.icdf(middle))
        self._low, self._step = -reach, 2 * reach / _CELLS
        nodes = -reach + self._step * torch.arange(_CELLS + 1, dtype=torch.float64)
        share, weight = (
            torch.as_tensor(each, dtype=torch.float64) for each in (GAUSS_NODES, GAUSS_WEIGHTS)
        )
        inside = nodes[:-1, None] + self._step * share
        parts = self._step * (self.cdf(inside) * weight).sum(1)
        self._value = torch.nn.functional.pad(parts.cumsum(0), (1, 0))
        self._slope = self._step * self.cdf(nodes)

    def cdf(self, z: Tensor) -> Tensor:
        """Return F(z); 0 and 1 beyond the ends of the support."""
        inside = self._law.support.check(z)  # type: ignore[union-attr]
        at = torch.where(inside, z, self._median)
        value = self._law.cdf(at).to(torch.float64)
        return torch.where(inside, value, (z > self._median).to(torch.float64))

    def integral(self, z: Tensor) -> Tensor:
        """Return ∫ F from the lower end of the table, by the cubic with F for its slope."""
        place = ((z - self._low) / self._step).clamp(0, _CELLS)
        k = place.long().clamp(max=_CELLS - 1)
        s = place - k
        rise = self._value[k + 1] - self._value[k]
        m0, m1 = self._slope[k], self._slope[k + 1]
        return self._value[k] + s * (m0 + s * (3 * rise - 2 * m0 - m1 + s * (m0 + m1 - 2 * rise)))
