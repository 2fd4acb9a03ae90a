"""Lévy areas of Wiener processes: their law over one step, and how two steps make one.

    A_kl = ½ ∫ (W_k dW_l − W_l dW_k),    J_k = ∫ W_k(s) ds,    both of W from the step's start on

are what a step of strong order 1 (for noise that does not commute) and 1.5 (for additive noise)
takes of W beside its increment ΔW. Over a step h they are kept free of its scale:

    z = ΔW/√h ~ N(0, I),    j = J/h^{3/2} = z/2 + η/√12,  η ~ N(0, I),    a = A/h

so that var J = h³/3 and cov(J, ΔW) = h²/2, for each process. Given z and j, areas are sums over
the Fourier modes of the bridge B(t) = W(t) − t z, with ∫B = H = η/√12:

    B = Σ_r a_r (cos 2πrt − 1) + b_r sin 2πrt,     a_r, b_r ~ N(0, 1/(2π²r²)),    H = −Σ_r a_r
    a_kl = H_k z_l − z_k H_l + π Σ_r r (a_kr b_lr − b_kr a_lr)

The first p modes are drawn, given H. The rest of the sum has variance ρ_p = Σ_{r>p} 1/(2π²r²) and
is drawn as an independent normal for each pair. Variances are exact for each p, given ΔW or not
(h²/4 over all); the distance of the areas from true ones of the same W is at most √m h/(√12 π p)
in the mean square. N steps add up N^½ of them, so that p = ⌈√N⌉ modes leave a distance of the
order of h at the end of a run of N steps, which is that of a method of strong order 1.

**Two steps make one** (Chen's relation): exactly, whatever areas the two have,

    A = A' + A'' + ½ (ΔW'_k ΔW''_l − ΔW'_l ΔW''_k),        J = J' + J'' + h'' ΔW'
    M = M' + M'' + h' J'' + (h' h'' + ½ h''²) ΔW'

**The first moment** M = ∫ s W(s) ds, which a step of strong order 3 in phase space takes beside ΔW
and J, is m = M/h^{5/2} = z/3 + η/(2√12) − κ/√720 with one more κ ~ N(0, I): H and K = κ/√720, the
integrals of the bridge over 1 and over ½ − s, are independent of each other and of z.

Reference:
    Kloeden, Platen and Wright 1992, Stoch. Anal. Appl. 10, 431, for the modes; Mrongowius and
    Rößler 2022, Stoch. Anal. Appl. 40, 397, for the rest; Kastner and Rößler 2023, Numer.
    Algorithms 93, 27, arXiv:2201.08424, compare the distances. Foster, Lyons and Oberhauser 2021,
    arXiv:2101.03446, for K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.noise import Stream

_AT_ONCE = 2**20  # normals of the modes that are held at a time


@dataclass(frozen=True)
class Draw:
    """What is drawn of the Wiener processes over one step, free of the step's scale.

    Attributes:
        z: ΔW/√h, shape (batch, *channels), or with more dimensions in front.
        integral: J/h^{3/2}, shape of z.
        areas: A/h, shape (batch, m, m), m the number of channels; None where nobody asked.
        moment: M/h^{5/2}, shape of z; None where nobody asked.
    """

    z: Tensor
    integral: Tensor
    areas: Tensor | None = None
    moment: Tensor | None = None


def joined(first: Draw, second: Draw, share: float) -> Draw:
    """Return what two steps, one after the other, are as one: Chen's relation.

    Args:
        first: Of the first step.
        second: Of the second step.
        share: h'/(h' + h''), of the first step in the length of both.

    >>> one = Draw(torch.ones(1, 1), 0.5 * torch.ones(1, 1))
    >>> joined(one, one, 0.5).z
    tensor([[1.4142]])
    """
    rest = 1.0 - share
    root, root_rest = math.sqrt(share), math.sqrt(rest)
    z = root * first.z + root_rest * second.z
    integral = (
        share * root * first.integral + rest * root_rest * second.integral + rest * root * first.z
    )
    areas = moment = None
    if first.areas is not None and second.areas is not None:
        flat = first.areas.ndim - 2
        turned = wedge(first.z.flatten(flat), second.z.flatten(flat))
        areas = share * first.areas + rest * second.areas + (0.5 * root * root_rest) * turned
    if first.moment is not None and second.moment is not None:
        moment = share**2 * root * first.moment + rest**2 * root_rest * second.moment
        moment += share * rest * root_rest * second.integral
        moment += root * rest * (share + 0.5 * rest) * first.z
    return Draw(z, integral, areas, moment)


def wedge(u: Tensor, v: Tensor) -> Tensor:
    """Return u_k v_l − v_k u_l, shape (…, m, m), of vectors of shape (…, m)."""
    product = u.unsqueeze(-1) * v.unsqueeze(-2)
    return product - product.transpose(-1, -2)


def modes_of(steps: int) -> int:
    """Return how many modes the areas of a run of so many steps take: ⌈√steps⌉.

    >>> modes_of(100)
    10
    """
    return max(1, math.isqrt(max(steps, 1) - 1) + 1)


@dataclass(frozen=True)
class Bridges:
    """What the areas of one step take beside z and η, all independent of them.

    Attributes:
        loops: Areas of the bridges, as if H were `integral`, shape (batch, m, m).
        integral: The H of the modes that were drawn.
        tilt: What H − integral adds in the areas: its wedge with this.
    """

    loops: Tensor
    integral: Tensor
    tilt: Tensor


class AreaDraws:
    """Draws Lévy areas of one step after the other.

    Args:
        source: Where the modes come from; they are children of it.
        z: Normals of a step, shape (batch, *channels); areas have its dtype and device.
        modes: How many modes are drawn.

    Attributes:
        remainder: ρ_p, the variance of what the drawn modes leave of H, and of an area.
    """

    def __init__(self, source: Stream, z: Tensor, modes: int) -> None:
        self._batch, self._m, self._modes = len(z), z[0].numel(), modes
        self._pairs = torch.triu_indices(self._m, self._m, 1, device=z.device)
        m, n = self._m, self._batch
        self._each = source.child("area modes").normals((2, m, n), dtype=z.dtype, device=z.device)
        rest = (m + self._pairs.shape[1], n)
        self._rest = source.child("area remainders").normals(rest, dtype=z.dtype, device=z.device)
        r = torch.arange(1, modes + 1, dtype=torch.float64)
        # the sum over all r is 1/12
        self.remainder: float = max(0.0, 1 / 12 - float(r.pow(-2).sum()) / (2 * math.pi**2))

    def draw(self) -> Bridges:
        """Draw what the next step takes."""
        m, n, p = self._m, self._batch, self._modes
        at_once = max(1, _AT_ONCE // max(1, 2 * m * n))
        parts = [self._modes_from(r, min(at_once, p - r)) for r in range(0, p, at_once)]
        products, integral, tilt = (torch.stack(each).sum(0) for each in zip(*parts, strict=True))
        (rest,) = self._rest.take(1).unbind()
        root, scale = math.sqrt(self.remainder), 1 / (math.pi * math.sqrt(2))
        loops = (products - products.transpose(0, 1)) / (2 * math.pi)
        first, second = self._pairs
        loops[first, second] += root * rest[m:]
        loops[second, first] -= root * rest[m:]
        integral = root * rest[:m] - scale * integral
        # given H, each α_r moves by −12/(π r √2) (H − integral)
        tilt = (-12 * scale / (2 * math.pi)) * tilt
        return Bridges(loops.permute(2, 0, 1), integral.T, tilt.T)

    def _modes_from(self, start: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return Σ_r α_kr β_lr/r, Σ_r α_r/r and Σ_r β_r/r² of some modes, the batch last."""
        alpha, beta = self._each.take(count).unbind(1)  # shape (count, m, batch)
        r = torch.arange(start + 1, start + count + 1, dtype=torch.float64)
        weight = (1.0 / r).to(alpha)[:, None, None]
        alpha = alpha * weight
        # one product of matrices for each row of a batch would take ten times as long
        products = torch.stack([(one[:, None] * beta).sum(0) for one in alpha.unbind(1)])
        return products, alpha.sum(0), (beta * weight * weight).sum(0)

    def areas(self, drawn: Bridges, z: Tensor, eta: Tensor) -> Tensor:
        """Return the areas over h, shape (batch, m, m), of a step with these z and η."""
        bridge = eta.flatten(1) / math.sqrt(12)  # H
        turned = wedge(bridge, z.flatten(1)) + wedge(bridge - drawn.integral, drawn.tilt)
        return turned + drawn.loops
