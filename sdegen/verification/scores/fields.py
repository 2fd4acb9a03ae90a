"""Fields h(x) with closed divergence, and what each says of a score by Stein's identity.

    E[s*·h + ∇·h] = 0,      E[h·(s* + L⁻ᵀε)] = 0,      s* = ∇ log p_t

The first is Stein's identity, the second that of denoising. They differ by h·L⁻ᵀε − ∇·h, whose
mean is 0 whatever the score is: a control variate. Each row's number is

    u + λ w,    u = s·h + ∇·h,    w = h·L⁻ᵀε − ∇·h,    λ = −cov(u, w)/var(w)

with λ from other rows, so that E(u + λw) = E[(s − s*)·h] is known with the smaller error of either
identity, or a still smaller one: Stein's where there is little noise, denoising where there is
much.

By Cauchy and Schwarz every field bounds the error from below,

    |E (s − s*)·h| ≤ √(E|h|²) √(E|s − s*|²)

and a field of one coordinate, or along one direction, bounds that part of it.

Reference:
    Stein 1981, Ann. Statist. 9, 1135, lemma 2; Vincent 2011, Neural Comput. 23, 1661, eq. (11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.noise import Stream
from sdegen.verification.scores.noised import NoisedRows

_RANDOM = 32  # random features
_EVEN = 1.5  # frequency of the cosine of a coordinate, in units of its spread


class Family(NamedTuple):
    """What fields of one kind say, averaged over the copies of each row.

    Attributes:
        u: s·h + ∇·h, shape (n, m).
        w: h·L⁻ᵀε − ∇·h, of mean 0, likewise; None where it is 0 in each pair.
        square: |h|², likewise.
    """

    u: Tensor
    w: Tensor | None
    square: Tensor


@dataclass(frozen=True)
class RandomFeatures:
    """Fields a cos(ω·y + b) along random directions, y being standardised.

    Attributes:
        directions: Unit vectors a, shape (m, d).
        frequencies: ω, shape (m, d).
        phases: b, shape (m,).
    """

    directions: Tensor
    frequencies: Tensor
    phases: Tensor

    @classmethod
    def draw(cls, d: int, source: Stream, count: int = _RANDOM) -> RandomFeatures:
        """Draw fields for d coordinates: ω·y is of order 1."""
        a, omega = source.normal((2, count, d), dtype=torch.float64)
        phases = source.normal((count,), dtype=torch.float64) * torch.pi
        return cls(a / a.norm(dim=1, keepdim=True), omega / d**0.5, phases)


def families(
    rows: NoisedRows, centre: Tensor, scale: Tensor, features: RandomFeatures
) -> dict[str, Family]:
    """Return what the fields of each kind say of every row.

    Args:
        rows: At one level.
        centre: About which coordinates are standardised, shape (d,), from other rows.
        scale: Their spread, shape (d,), > 0.
        features: The random ones.
    """
    sums: dict[str, Family] = {}
    for x, s, g in zip(rows.x, rows.s, rows.pulled, strict=True):
        for name, family in _of_copy(x - centre, s, g, scale, features):
            before = sums.get(name)
            sums[name] = family if before is None else _added(before, family)
    copies = len(rows.x)
    return {
        name: Family(u / copies, None if w is None else w / copies, square / copies)
        for name, (u, w, square) in sums.items()
    }


def _added(one: Family, other: Family) -> Family:
    """Return the sum of what fields say."""
    w = None if one.w is None or other.w is None else one.w + other.w
    return Family(one.u + other.u, w, one.square + other.square)


def _of_copy(
    off: Tensor, s: Tensor, g: Tensor, scale: Tensor, features: RandomFeatures
) -> list[tuple[str, Family]]:
    """Return u, w and |h|² of each kind of field at one copy of the rows, shapes (n, m)."""
    d, y = off.shape[1], off / scale

    def along(h: Tensor, slope: Tensor) -> Family:
        """Fields of one coordinate each, h_i(x_i) e_i."""
        return Family(s * h + slope, g * h - slope, h.square())

    def joined(h: Tensor, slope: float) -> Family:
        """One field of all coordinates."""
        stein = (s * h).sum(1) + slope
        control = (g * h).sum(1) - slope
        return Family(stein[:, None], control[:, None], h.square().sum(1)[:, None])

    bent = torch.tanh(y)
    angle = y @ features.frequencies.T + features.phases
    wave = torch.cos(angle)
    a = features.directions
    slope = -torch.sin(angle) * (a * features.frequencies / scale).sum(1)
    waves = Family((s @ a.T) * wave + slope, (g @ a.T) * wave - slope, wave.square())
    own = Family((s * (s + g)).sum(1)[:, None], None, s.square().sum(1)[:, None])
    return [
        ("size of x", joined(off, float(d))),
        ("factor", own),
        ("offset", Family(s, None, torch.ones_like(s))),
        ("coordinate, x", along(y, (1 / scale).expand_as(y))),
        ("coordinate, tanh x", along(bent, (1 - bent.square()) / scale)),
        ("coordinate, cos x", along(torch.cos(_EVEN * y), -_EVEN * torch.sin(_EVEN * y) / scale)),
        ("random fields", waves),
    ]


def controlled(family: Family, others: Tensor, own: Tensor) -> Tensor:
    """Return u + λ w of some rows, λ from others; shape (rows, m).

    Args:
        family: Of all rows.
        others: Indices of the rows that λ is from.
        own: Indices of the rows that are asked for.
    """
    if family.w is None:
        return family.u[own]
    u, w = family.u[others], family.w[others]
    u, w = u - u.mean(0), w - w.mean(0)
    variance = w.square().sum(0)
    share = -(u * w).sum(0) / torch.where(variance > 0, variance, 1.0)
    return family.u[own] + share * family.w[own]
