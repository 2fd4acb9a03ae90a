"""Numbers that were drawn once and used again: equalities that no independent draws have.

Each innovation that equals an earlier one to rounding gains log 1/(2ε) + ½ z² in likelihood, so
that a few of them decide.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdegen.verification.diagnosis.model import LOG_TWO_PI, TWICE, Alternative, Fitted
from sdegen.verification.diagnosis.transitions import Transitions
from sdegen.verification.innovations.sample import Sample

_COARSEST = 0.02
_LARGEST = 12.0  # of a draw: beyond it are states that no draw explains
_SHARE = 0.02  # of the numbers that are copies, at least
_PEAKS = 12  # lags and pairs that are looked at
_ROWS = 400  # trajectories of which all pairs are looked at


@dataclass(frozen=True)
class Copies:
    """Copies among the innovations of a sample.

    Attributes:
        mask: Which numbers are copies of earlier ones, shape (F, B, K).
        sign: +1, or −1 for antithetic ones.
        words: Where they are.
        value: How far apart, or how many.
    """

    mask: Tensor
    sign: float
    words: str
    value: float


def copy_alternatives(sample: Sample) -> list[Alternative]:
    """Return the ways in which numbers are used again, of the innovations of all tests."""
    table = [
        ("the same noise in all coordinates", _coordinates),
        ("the same noise in several trajectories", _trajectories),
        ("noise used again in time", _lags),
        ("noise of one trajectory used later by another", _shifted),
    ]
    return [
        Alternative(name, "memory of the noise", "", _fit(sample, find, False))
        for name, find in table
    ] + [
        Alternative("antithetic noise", "memory of the noise", "", _fit(sample, find, True))
        for _, find in table[:3]
    ]


def _fit(sample: Sample, find, mirrored: bool):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the fit of one kind of copies."""

    def fit(data: Transitions) -> Fitted | None:
        tolerance = data.resolution
        if tolerance > _COARSEST or sample.z.numel() < 32:
            return None
        copies = find(_of_moves(sample), tolerance, -1.0 if mirrored else 1.0)
        if copies is None:
            return None
        z = sample.z[copies.mask]
        share = len(z) / sample.z.numel()
        if share < _SHARE * tolerance / _COARSEST + 1e-6 or len(z) < 4:
            return None
        each = 0.5 * z.square() + 0.5 * LOG_TWO_PI - math.log(2 * tolerance)

        def residual() -> Sample:
            fresh = torch.randn(sample.z.shape, generator=data.fresh, dtype=torch.float64)
            return replace(sample, z=torch.where(copies.mask, fresh, sample.z))

        return Fitted(
            float(each.sum()), residual, 1, 3.0, copies.value, None, copies.words, (TWICE,)
        )

    return fit


def _of_moves(sample: Sample) -> Tensor:
    """Return innovations, 0 where a trajectory stands still: equal for another reason."""
    still = torch.zeros(sample.z.shape[:2], dtype=torch.bool)
    for part in sample.stretches:
        if part.stop - part.start > 1:
            x = sample.x[part]
            rest = (x[1:] == x[:-1]).all(2)
            still[part] = torch.cat([rest, rest[-1:]])
    return torch.where(still[..., None], 0.0, sample.z)


def _equal(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    """Return which numbers are equal, not 0, and such as noise is."""
    return ((a - b).abs() <= tolerance) & _usual(a, tolerance)


def _usual(z: Tensor, tolerance: float) -> Tensor:
    """Return which numbers are such as noise is, and not 0."""
    size = z.abs()
    return (size > 4 * tolerance) & (size < _LARGEST)


def _coordinates(z: Tensor, tolerance: float, sign: float) -> Copies | None:
    """Look for coordinates that have the noise of an earlier one."""
    k = z.shape[2]
    mask = torch.zeros_like(z, dtype=torch.bool)
    for gap in range(1, k):
        if gap > 64:
            break
        same = _equal(z[..., gap:], sign * z[..., :-gap], tolerance)
        whole = same.double().mean((0, 1)) > 0.5  # by coordinate
        mask[..., gap:] |= same & whole
    count = int((mask.double().mean((0, 1)) > 0.5).sum())
    if count == 0:
        return None
    which = "minus that" if sign < 0 else "that"
    words = f"{count} of {k} coordinates had the noise of another one, {which} of the same step"
    return Copies(mask, sign, words, float(count + 1))


def _trajectories(z: Tensor, tolerance: float, sign: float) -> Copies | None:
    """Look for trajectories that have the noise of an earlier one at the same step."""
    batch = z.shape[1]
    if batch < 2:
        return None
    mask = torch.zeros_like(z, dtype=torch.bool)
    rows = z.permute(1, 0, 2).reshape(batch, -1)[:, :4096]
    if batch <= _ROWS and rows.shape[1] >= 8:
        r = sign * torch.corrcoef(rows)
        pairs = (torch.triu(r, 1) > 0.25).nonzero()
    else:
        # all of one group are compared with its first
        group = _groups((sign * rows[:, 0]).abs(), tolerance)
        first = torch.full((batch,), batch).scatter_reduce(0, group, torch.arange(batch), "amin")
        pairs = torch.stack([first[group], torch.arange(batch)], 1)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        near = (rows[pairs[:, 1]] - sign * rows[pairs[:, 0]]).abs() <= tolerance
        pairs = pairs[near.double().mean(1) > 0.25]
    seen: set[int] = set()
    for a, b in pairs.tolist():
        if b in seen:
            continue
        same = _equal(z[:, b], sign * z[:, a], tolerance)
        if float(same.double().mean()) > 0.02:
            mask[:, b] |= same
            seen.add(b)
    if not seen:
        return None
    which = "minus the noise" if sign < 0 else "the noise"
    words = f"{len(seen)} of {batch} trajectories had {which} of another one"
    return Copies(mask, sign, words, float(len(seen)))


def _lags(z: Tensor, tolerance: float, sign: float) -> Copies | None:
    """Look for numbers that a trajectory has used some steps before."""
    frames = z.shape[0]
    if frames < 8:
        return None
    mask = torch.zeros_like(z, dtype=torch.bool)
    found: list[int] = []
    for lag in _peaks(z, sign):
        same = _equal(z[lag:], sign * z[:-lag], tolerance)
        # of whole steps, in most trajectories
        whole = same.double().mean((1, 2)) > 0.5
        if int(whole.sum()) >= 2:
            mask[lag:] |= same & whole[:, None, None]
            found.append(lag)
    if not found:
        return None
    lag = min(found)
    share = float(mask.double().mean())
    which = "minus numbers" if sign < 0 else "numbers"
    words = f"{100 * share:.3g} % of the noise were {which} used {lag} steps before"
    if lag == 1 and sign > 0:
        each = round(1 / max(1e-9, 1 - share))
        words = f"each number of the noise were used {each} steps in a row"
    return Copies(mask, sign, words, float(lag))


def _peaks(z: Tensor, sign: float) -> list[int]:
    """Return lags of the largest autocorrelations, of all trajectories together."""
    frames = z.shape[0]
    rows = z.flatten(1)
    rows = rows[:, : max(1, 2**20 // frames)]
    power = torch.fft.rfft(rows, 2 * frames, dim=0).abs().square().sum(1)
    correlation = sign * torch.fft.irfft(power, dim=0)[:frames]
    counts = (frames - torch.arange(frames)).double() * rows.shape[1]
    scores = correlation / counts.sqrt()
    scores[0] = -1
    scores[-2:] = -1
    best = scores.topk(min(_PEAKS, frames)).indices.tolist()
    return sorted(int(lag) for lag in best if scores[lag] > 5)


def _shifted(z: Tensor, tolerance: float, sign: float) -> Copies | None:
    """Look for a trajectory that uses the numbers of another one at another step."""
    frames, batch, k = z.shape
    window = max(1, -(-4 // k))
    if frames <= window or batch < 2:
        return None
    keys = torch.cat([z[i : frames - window + 1 + i] for i in range(window)], 2)[..., :8]
    keys = keys.flatten(0, 1)
    # of equal keys all but those of the first step are copies
    group = _groups(keys[:, 0], tolerance)
    frame = torch.arange(len(keys)) // batch
    count = int(group.max()) + 1
    earliest = torch.full((count,), frames).scatter_reduce(0, group, frame, "amin")
    order = torch.argsort(group * frames + frame, stable=True)
    begins = torch.ones(len(order), dtype=torch.bool)
    begins[1:] = group[order][1:] != group[order][:-1]
    origin = order[begins][group]
    near = ((keys - keys[origin]).abs() <= tolerance).all(1) & _usual(keys, tolerance).all(1)
    good = near & (frame > earliest[group]) & (origin % batch != torch.arange(len(keys)) % batch)
    late = good.nonzero()[:, 0]
    if len(late) < 4:
        return None
    mask = torch.zeros_like(z, dtype=torch.bool)
    for i in range(window):
        mask[late // batch + i, late % batch] = True
    apart = frame[late] - frame[origin[late]]
    lag = Counter(apart.tolist()).most_common(1)[0][0]
    words = f"trajectories used noise that another one had used {lag} steps before"
    return Copies(mask, sign, words, float(lag))


def _groups(values: Tensor, tolerance: float) -> Tensor:
    """Return numbers of groups of values that are equal to rounding, in the order of values."""
    ranked, order = values.sort()
    new = torch.zeros(len(values), dtype=torch.long)
    new[1:] = ranked.diff() > tolerance
    group = torch.empty_like(new)
    group[order] = new.cumsum(0)
    return group
