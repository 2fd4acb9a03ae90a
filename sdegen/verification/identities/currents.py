"""Currents of pairs: detailed balance, and how far from it dynamics are.

    J_ab(τ) = ⟨a(t) b(t + τ) − ε_a ε_b b(t) a(t + τ)⟩

with ε = −1 for what changes sign when time runs backwards, a velocity. In equilibrium J = 0 for
every pair, whatever the step of time τ. Of linear dynamics at rest with ⟨δx(t + τ) δx(t)ᵀ⟩ = M C,

    J_ij = (M C)_ji − ε_i ε_j (M C)_ij  →  τ (A C − C Aᵀ)_ij        ε = 1, τ → 0

which is exact on the chain that a solver makes of them, so that there a current that is not this
one is a mistake.

Reference:
    Onsager 1931, Phys. Rev. 37, 405; Casimir 1945, Rev. Mod. Phys. 17, 343, for ε; Battle et al.
    2016, Science 352, 604, for currents of pairs of coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from sdegen.verification.identities.averages import averages_of, spread_columns
from sdegen.verification.identities.bias import Bias
from sdegen.verification.identities.ends import Ends, functions_of
from sdegen.verification.identities.excerpt import Excerpt
from sdegen.verification.identities.linear import LinearChain

_FEATURES = 6  # of positions, and as many of velocities
_FORGOTTEN = 0.6  # the correlation that is left after τ
_EACH = 6  # pairs that are told one by one
_SHORTEST = 8  # of the frames: so many τ there are at least


@dataclass(frozen=True)
class Feature:
    """A number of each state.

    Attributes:
        name: What it is.
        values: Shape (F, batch), less their mean.
        parity: −1 where it changes sign when time runs backwards.
        column: The coordinate, where it is one; else None.
    """

    name: str
    values: Tensor
    parity: int
    column: int | None


def features_of(
    excerpt: Excerpt, ends: Ends, labels: Sequence[str], positions: int
) -> list[Feature]:
    """Return the features of states whose currents are looked at.

    Args:
        excerpt: The states.
        ends: Of their numbers.
        labels: What these are called.
        positions: How many of them are positions; the rest are velocities.
    """
    x = excerpt.flat
    found: list[Feature] = []
    for phi in functions_of(ends):
        lonely = int((ends.moving & ends.free).sum()) == 1 and x.shape[2] == 1
        if phi.power == 2 and not (lonely or bool(ends.walled[phi.columns].any())):
            continue
        values = phi.value(x)
        for which in (phi.columns < positions, phi.columns >= positions):
            some = which.nonzero()[:, 0]
            for c in some[spread_columns(len(some), _FEATURES)].tolist() if len(some) else []:
                column = int(phi.columns[c])
                series = values[..., c]
                if float(series.std()) == 0:
                    continue
                name = labels[column] if phi.power == 1 else f"{phi.name} of {labels[column]}"
                parity = 1 if column < positions else -1
                linear = column if phi.power == 1 else None
                found.append(Feature(name, series - series.mean(), parity, linear))
    return found


def lag_of(features: Sequence[Feature]) -> int:
    """Return the frames in which features forget a part of what they were."""
    frames = len(features[0].values)
    longest = max(1, frames // _SHORTEST)
    lag = 1
    while 2 * lag <= longest:
        left = [_correlation(feature.values, lag) for feature in features]
        if min(left) < _FORGOTTEN:
            break
        lag *= 2
    return lag


def _correlation(y: Tensor, lag: int) -> float:
    return float((y[lag:] * y[:-lag]).mean() / y.square().mean())


def current_rows(
    features: Sequence[Feature], lag: int, steps: int, chain: LinearChain | None
) -> list[Bias]:
    """Return the current of each pair of features; of many, of the one that is furthest off.

    Args:
        features: Two at least.
        lag: τ, in frames of the excerpt.
        steps: τ, in stored steps.
        chain: The law of linear dynamics at rest; None: detailed balance is expected.
    """
    pairs = list(combinations(features, 2))
    if chain is not None:
        pairs = [(a, b) for a, b in pairs if a.column is not None and b.column is not None]
    if not pairs:
        return []
    cross = None
    if chain is not None and chain.rest is not None:
        cross = chain.over(steps).matrix @ chain.rest.covariance
    rows = []
    for a, b in pairs:
        sign = a.parity * b.parity
        series = a.values[:-lag] * b.values[lag:] - sign * b.values[:-lag] * a.values[lag:]
        expected = 0.0
        if cross is not None and a.column is not None and b.column is not None:
            i, j = a.column, b.column
            expected = float(cross[j, i] - sign * cross[i, j])
        scale = float(a.values.square().mean().sqrt() * b.values.square().mean().sqrt())
        average = averages_of(series[..., None])[0]
        name = f"the current of {a.name} and {b.name}"
        rows.append(Bias.of(name, average, expected, scale))
    if len(rows) <= _EACH:
        return rows
    known = [row for row in rows if not math.isnan(row.p_value)]
    if not known:
        return rows[:1]
    worst = min(known, key=lambda row: row.p_value)
    name = f"{worst.name}, the furthest of {len(known)},"
    return [
        Bias(
            name, worst.value, worst.expected, worst.standard_error, worst.freedom, worst.scale,
            len(known), worst.remark, worst.skewness,
        )
    ]  # fmt: skip
