"""Distances between two densities on the same nodes, by the trapezoidal rule.

With fixed weights on fixed nodes, total variation and Wasserstein-1 are norms of a difference, so
that the triangle inequality holds to rounding however coarse the grid is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.fokker_planck.density import Density

_KNOWN = 1e-18  # of the peak: below it a computed law is cut off


def total_variation(p: Density, q: Density) -> float:
    """Return ½ ∫ |p − q| dx, between 0 and 1."""
    x, p, q = _shared(p, q)
    return 0.5 * float(torch.trapezoid((p.p - q.p).abs(), x))


def wasserstein(p: Density, q: Density) -> float:
    """Return the Wasserstein-1 distance ∫ |F_p − F_q| dx, in units of x."""
    x, p, q = _shared(p, q)
    gap = torch.cumulative_trapezoid(p.p - q.p, x)
    return float(torch.trapezoid(torch.nn.functional.pad(gap, (1, 0)).abs(), x))


def kullback_leibler(p: Density, q: Density) -> float:
    """Return ∫ p log(p/q) dx in nats, or a lower bound of it.

    A law that was computed is not known below 1e-18 of its peak. Where q is less, it is taken for
    that: if q vanishes where p does not, the divergence is infinite, and what is returned is 41
    times the mass that p has there, about.
    """
    x, p, q = _shared(p, q)
    known = q.p.clamp(min=_KNOWN * float(q.p.max()))
    known_where = p.p > _KNOWN * float(p.p.max())
    ratio = torch.where(known_where, p.p / known, 1.0)
    return float(torch.trapezoid(torch.where(known_where, p.p * ratio.log(), 0.0), x))


def _shared(p: Density, q: Density) -> tuple[Tensor, Density, Density]:
    """Return the common nodes, and both densities with finite values at every wall.

    Raises:
        ValueError: If they are not the same.
    """
    if p.x.shape != q.x.shape or not torch.equal(p.x, q.x):
        raise ValueError(
            f"both densities must live on the same nodes, but one has {len(p.x)} from "
            f"{float(p.x[0]):g} to {float(p.x[-1]):g}, the other {len(q.x)} from "
            f"{float(q.x[0]):g} to {float(q.x[-1]):g}."
        )
    first, second = (d if d.powers == (None, None) else d.lumped() for d in (p, q))
    return p.x, first, second
