"""What held-out data say of a score at one noise level.

Rows are cut into folds. For each fold the others give the centre and spread of x, the weights of
the control variates and a correction of the score; the rows of the fold then say, each by numbers
of its own, what all of these are worth. So no row judges what it has taught.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.noise import Stream
from sdegen.core.shapes import State
from sdegen.verification.scores.correction import Correction
from sdegen.verification.scores.fields import RandomFeatures, controlled, families
from sdegen.verification.scores.noised import NoisedRows
from sdegen.verification.scores.row_statistics import RowMeans, of_smallest

_FOLDS = 4
_NAMED = 0.9  # of the squared error, from which on one cause is named for it

Weight = Callable[[State], State]  # C v, at the states that are judged


@dataclass(frozen=True)
class FieldFinding:
    """What the fields of one kind say.

    Attributes:
        name: Their kind.
        p_value: Of each field, as the smallest of all of the kind, shape (m,).
        size: The part of the score's size that each field says it is off by, at least, (m,).
    """

    name: str
    p_value: Tensor
    size: Tensor


@dataclass(frozen=True)
class LevelFinding:
    """What rows say of a score at one level.

    Attributes:
        fields: Findings, the last that of the correction.
        squared_error: E|s − s*|², at least: what the correction takes off the loss.
        squared_error_bar: Its standard error.
        by_coordinate: The same of each coordinate, shape (d,).
        squared_score: E|s*|², of the corrected score.
        score_by_coordinate: The same of each coordinate.
        weighted: E (s − s*)·C (s − s*), at least, C = G Gᵀ.
        weighted_bar: Its standard error.
        factor: c of s ≈ c s*: E|s|²/E s·s*.
        factor_bar: Its standard error.
        cause: "factor", "width", "time", or "" where no one of them is nine tenths of the error.
        shift: In units of the time beside, by how much the score is that of another time.
    """

    fields: tuple[FieldFinding, ...]
    squared_error: float
    squared_error_bar: float
    by_coordinate: Tensor
    squared_score: float
    score_by_coordinate: Tensor
    weighted: float
    weighted_bar: float
    factor: float
    factor_bar: float
    cause: str
    shift: float


def find(rows: NoisedRows, weight: Weight, source: Stream) -> LevelFinding:
    """Judge a score at one level.

    Args:
        rows: Held-out data, noised.
        weight: C v of fields at the rows' states, flat, shape (copies, n, d).
        source: Of folds and of random fields.
    """
    n, d = rows.x.shape[1:]
    order = torch.randperm(n, generator=source.generator())
    fold = torch.empty(n, dtype=torch.long)
    fold[order] = torch.arange(n) % _FOLDS
    features = RandomFeatures.draw(d, source)
    correction = torch.zeros_like(rows.x)
    values: dict[str, list[Tensor]] = {}
    squares: dict[str, list[Tensor]] = {}
    for k in range(_FOLDS):
        own, others = (fold == k).nonzero()[:, 0], (fold != k).nonzero()[:, 0]
        known = rows.x[:, others].flatten(0, 1)
        centre, scale = known.mean(0), known.std(0).clamp(min=1e-300)
        found = families(rows, centre, scale, features)
        learned = Correction(rows, others, centre, scale, source.child(f"fold {k}"))
        correction[:, own] = learned.field[:, own]
        for name, family in found.items():
            values.setdefault(name, []).append(controlled(family, others, own))
            squares.setdefault(name, []).append(family.square[own])
    true = rows.s - correction
    means = {name: RowMeans.of(torch.cat(each)) for name, each in values.items()}
    typical = {name: torch.cat(each).mean(0) for name, each in squares.items()}
    along = _along(true, features)
    fields = [
        FieldFinding(
            name,
            of_smallest(m.p_value),
            m.mean.abs() / (typical[name] * along[name]).clamp(min=1e-300).sqrt(),
        )
        for name, m in means.items()
    ]
    return _finding(rows, correction, true, fields, weight, fold)


def _along(true: Tensor, features: RandomFeatures) -> dict[str, Tensor]:
    """Return the mean square of the score along the fields of each kind."""
    each = true.square().mean((0, 1))
    whole = each.sum()[None]
    waves = (true @ features.directions.T).square().mean((0, 1))
    single = ("offset", "coordinate, x", "coordinate, tanh x", "coordinate, cos x")
    return {
        "size of x": whole,
        "factor": whole,
        "random fields": waves,
        **dict.fromkeys(single, each),
    }


def _finding(
    rows: NoisedRows,
    correction: Tensor,
    true: Tensor,
    fields: list[FieldFinding],
    weight: Weight,
    fold: Tensor,
) -> LevelFinding:
    """Return what the correction says, beside what the fields say.

    Each fold has a p-value of its own, given what the others taught. Their sum would not do: two
    folds that teach each other are not independent.
    """
    r = rows.residual
    each = (2 * correction * r - correction.square()).mean(0)  # (n, d)
    squared = RowMeans.of(each.sum(1)[:, None])
    heavy = weight(correction)
    weighted = RowMeans.of((2 * heavy * r - heavy * correction).sum(2).mean(0)[:, None])
    size = float(true.square().sum(2).mean())
    error = float(squared.mean)
    along = (correction * r).sum(2).mean(0)
    chance = min(1.0, _FOLDS * min(_one_sided(along[fold == k]) for k in range(_FOLDS)))
    share = max(error, 0.0) / max(size, 1e-300)
    fields.append(
        FieldFinding(
            "correction",
            torch.tensor([chance], dtype=torch.float64),
            torch.tensor([share**0.5], dtype=torch.float64),
        )
    )
    factor, factor_bar = _factor(rows)
    cause, shift = _cause(rows, error)
    return LevelFinding(
        tuple(fields),
        error,
        float(squared.error),
        each.mean(0),
        size,
        true.square().mean((0, 1)),
        float(weighted.mean),
        float(weighted.error),
        factor,
        factor_bar,
        cause,
        shift,
    )


def _one_sided(values: Tensor) -> float:
    """Return the chance of a mean as large or larger where the expectation is 0, shape (n,)."""
    found = RowMeans.of(values[:, None])
    half = 0.5 * float(found.p_value)
    return half if float(found.mean) > 0 else 1 - half


def _factor(rows: NoisedRows) -> tuple[float, float]:
    """Return c = E|s|²/E s·s*, and its standard error."""
    square = rows.s.square().sum(2).mean(0)
    true = -(rows.s * rows.pulled).sum(2).mean(0)
    c = float(square.mean() / true.mean())
    error = (square - c * true).std() / (len(true) ** 0.5 * true.mean().abs())
    return c, float(error)


def _cause(rows: NoisedRows, squared_error: float) -> tuple[str, float]:
    """Return which one of three fields is most of the error, and α of the time beside."""
    r = rows.residual
    off = rows.x - rows.x.mean((0, 1))
    best, share, shift = "", _NAMED, 0.0
    for name, field in (("factor", rows.s), ("width", off), ("time", rows.beside)):
        fall, size = float((r * field).sum(2).mean()), float(field.square().sum(2).mean())
        if size > 0 and squared_error > 0:
            part = fall * fall / size / squared_error
            if part > share + 0.02 * (best != ""):  # of two that are alike the plainer one
                best, share = name, part
                shift = fall / size if name == "time" else 0.0
    return best, shift
