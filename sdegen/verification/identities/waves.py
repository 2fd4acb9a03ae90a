"""Waves: cosines of states whose means after a step are known, E cos(k·x′) = cos(k·m) e^{−½ kᵀCk}.

They are bounded, so that no few states decide a sum, and no step is too long for them. Where a
coordinate ends they obey its condition, so that what a step folds or wraps changes nothing: a
whole number of half waves between two reflecting walls, counted from one of them; a crest on a
wall that is alone; whole waves in a period.

Long waves, of the size of what states span, ask what the law at rest is made of. Short waves, of
the size of a step and weighted by cos(k·x − phase) of where it began, ask for the noise of the
step itself: the weighted sum is that of cos k·(x′ − x), where sine and cosine are taken together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.noise import stream
from sdegen.verification.identities.averages import spread_columns
from sdegen.verification.identities.ends import Ends

_COORDINATES = 6  # that have waves of their own
_DIRECTIONS = 4  # random ones, of all free coordinates
_MEDIAN = 0.6745  # of |z|
_QUARTER = math.pi / 2
_FLAT = 1e-12  # below it a coordinate does not vary


@dataclass(frozen=True)
class Waves:
    """cos(k·x − phase), one for each row of k.

    Attributes:
        k: Wave vectors, shape (m, d), float64.
        phase: Shape (m,).
        weighted: Which are weighted by themselves at the beginning of a step, shape (m,), bool.
        names: What each is.
    """

    k: Tensor
    phase: Tensor
    weighted: Tensor
    names: tuple[str, ...]

    def angle(self, x: Tensor) -> Tensor:
        """Return k·x − phase of flat states (n, d), shape (n, m)."""
        return x.double() @ self.k.T - self.phase

    def __call__(self, x: Tensor) -> Tensor:
        """Return the cosines, shape (n, m)."""
        return self.angle(x).cos()

    def weights(self, x: Tensor) -> Tensor:
        """Return what a step from flat states counts by, shape (n, m)."""
        return torch.where(self.weighted, self(x), 1.0)

    def means(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each wave where k·x is normal.

            E cos = e^{−s²/2} cos P,    Var cos = ½ (1 − e^{−s²}) (1 − e^{−s²} cos 2P)

        Args:
            mean: Mean of x, shape (n, d).
            variance: s², that of k·x, shape (n or 1, m).
        """
        P = self.angle(mean)
        damped = (-variance).exp()
        average = damped.sqrt() * P.cos()
        return average, -0.5 * torch.expm1(-variance) * (1 - damped * (2 * P).cos())


Row = tuple[Tensor, float, bool, str]


def waves_of(x: Tensor, after: Tensor, ends: Ends, labels: list[str]) -> Waves:
    """Return the waves by which the steps of states are judged.

    Args:
        x: States that set the lengths of waves, shape (n, D), float64.
        after: Those that followed them.
        ends: Of the coordinates.
        labels: What these are called.
    """
    d = x.shape[1]
    some = x[:: max(1, len(x) // 2**16)]
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    low, centre, high = torch.quantile(some, levels, dim=0)
    scale = x.std(0)
    width = torch.where(high - low > 1e-3 * scale, 0.5 * (high - low), scale)
    varies = ends.moving & (scale > _FLAT * x.abs().amax(0)) & scale.isfinite()
    width = torch.where(varies, width, 1.0)
    step = (after - x).abs().median(0).values / _MEDIAN  # a period does not matter to a median
    rows: list[Row] = []
    for i in _some(varies.nonzero()[:, 0]):
        middle = float(centre[i]), float(width[i])
        rows += _of_coordinate(i, d, ends, middle, float(step[i]), labels[i])
    free = ends.free & ~ends.flips & varies
    if int(free.sum()) > 1:
        rows += _of_directions(free, width, centre)
    vectors = torch.stack([row[0] for row in rows]) if rows else x.new_zeros(0, d)
    phases = torch.tensor([row[1] for row in rows], dtype=torch.float64)
    weighted = torch.tensor([row[2] for row in rows], dtype=torch.bool)
    return Waves(vectors, phases, weighted, tuple(row[3] for row in rows))


def _some(columns: Tensor) -> list[int]:
    """Return a few columns, evenly spread."""
    return [int(c) for c in columns[spread_columns(len(columns), _COORDINATES)]]


def _of_directions(free: Tensor, width: Tensor, centre: Tensor) -> list[Row]:
    """Return waves along random directions of free coordinates."""
    draws = stream(len(free), "directions of waves").generator()
    rows: list[Row] = []
    for j in range(_DIRECTIONS):
        direction = torch.randn(len(free), generator=draws, dtype=torch.float64) * free
        k = direction / direction.norm() / width
        for phase, word in ((0.0, "cosine"), (_QUARTER, "sine")):
            rows.append((k, float(k @ centre) + phase, False, f"{word} of direction {j}"))
    return rows


def _of_coordinate(
    i: int, d: int, ends: Ends, middle: tuple[float, float], step: float, label: str
) -> list[Row]:
    """Return the waves of one coordinate.

    Args:
        i: Its number.
        d: Numbers of a state.
        ends: Of them.
        middle: Of its values, and what they span.
        step: By how much it moves in a step.
        label: What it is called.
    """
    low, high, period = (float(e[i]) for e in (ends.low, ends.high, ends.period))
    centre, width = middle
    one_wall = low if math.isfinite(low) else high

    def row(k: float, origin: float, word: str, *, sine: bool = False, short: bool = False) -> Row:
        vector = torch.zeros(d, dtype=torch.float64)
        vector[i] = k
        name = f"{'short ' if short else ''}{'sine' if sine else 'cosine'}{word} of {label}"
        return vector, k * origin + (_QUARTER if sine else 0.0), short, name

    smallest = max(step, 1e-3 * width)
    if period > 0:
        k = 2 * math.pi / period
        n = max(1, round(1 / (k * smallest)))
        found = [row(m * k, 0.0, f" of {m} turns", sine=s) for m in (1, 2) for s in (False, True)]
        return found + [row(n * k, 0.0, "", sine=s, short=True) for s in (False, True)]
    if math.isfinite(low) and math.isfinite(high):
        k = math.pi / (high - low)
        n = max(1, round(1 / (k * smallest)))
        found = [row(m * k, low, f" of {m} half waves") for m in (1, 2, 3)]
        return [*found, row(n * k, low, "", short=True)]
    if math.isfinite(one_wall) or bool(ends.flips[i]):  # even about a wall, or in a velocity
        origin = one_wall if math.isfinite(one_wall) else 0.0
        found = [row(m / width, origin, f" {m}") for m in (1, 2)]
        return [*found, row(1 / smallest, origin, "", short=True)]
    found = [row(1 / width, centre, "", sine=s) for s in (False, True)]
    found += [row(2 / width, centre, " 2")]
    return found + [row(1 / smallest, centre, "", sine=s, short=True) for s in (False, True)]
