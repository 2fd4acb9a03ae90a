"""Whether innovations remember: of their past, of each other, and of numbers used twice."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.verification.battery.finding import (
    Finding,
    of_correlations,
    of_normals,
    of_smallest,
    of_variance,
)
from sdegen.verification.battery.regressions import size_normals
from sdegen.verification.innovations.sample import Sample, Totals

_LAGS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 25, 32, 50, 64, 100, 128, 200, 250, 256)
_CROSSED = 64  # coordinates of which all pairs are looked at one step apart
_PAIRED = 512  # trajectories of which all pairs are looked at
_KEY = 4  # numbers that name a draw
_NEIGHBOURS = 3  # in order, that are compared


def autocorrelations(sample: Sample, totals: Totals) -> list[Finding]:
    """Return correlations of innovations with those of earlier steps."""
    family = "memory of the noise"
    findings: list[Finding] = []
    if totals.pairs:
        lag = totals.lag / math.sqrt(totals.pairs)
        findings.append(
            of_normals(family, "one step apart, all", lag.sum()[None] / len(lag) ** 0.5)
        )
        if len(lag) > 1:
            findings.append(of_normals(family, "one step apart", lag, "coordinate"))
    z, past = sample.z, sample.earlier
    sizes = size_normals(z), size_normals(past)
    for name, w in (("lags", (z, past)), ("lags of the size of the noise", sizes)):
        lags = [(lag, *pair) for lag in _LAGS if (pair := _lagged(sample, w, lag)) is not None]
        each = [
            of_correlations(family, name, torch.tensor([r]).double(), n, f"{lag} steps apart")
            for lag, r, n in lags
        ]
        if each:
            least = min(each, key=lambda f: f.p_value)
            p = of_smallest(least.p_value, len(each))
            scores = torch.cat([one.scores for one in each if one.scores is not None])
            findings.append(replace(least, p_value=p, scores=scores))
    k = z.shape[2]
    if 1 < k <= _CROSSED:
        total, count = torch.zeros(k, k, dtype=torch.float64), 0
        for part in sample.stretches:
            now, then = z[part][1:].flatten(0, 1), past[part][:-1].flatten(0, 1)
            total, count = total + now.T @ then, count + len(now)
        if count > 100:
            crossed = total / math.sqrt(count)
            found = of_normals(family, "of another coordinate, one step apart", crossed, "pair")
            findings.append(found)
    return findings


def _lagged(sample: Sample, w: tuple[Tensor, Tensor], lag: int) -> tuple[float, int] | None:
    """Return the correlation of w_k and w_{k−lag}, and of how many; None of too few."""
    total = now = then = 0.0
    count = 0
    for part in sample.stretches:
        block, past = w[0][part], w[1][part]
        if len(block) > lag:
            late, early = block[lag:].flatten(), past[:-lag].flatten()
            total += float(torch.dot(late, early))
            now, then = now + float(torch.dot(late, late)), then + float(torch.dot(early, early))
            count += len(late)
    return (total / math.sqrt(now * then), count) if count > 50 else None


def trajectories(sample: Sample) -> list[Finding]:
    """Return correlations of innovations between trajectories at the same step."""
    z = sample.z
    frames, batch, k = z.shape
    if batch < 2:
        return []
    family = "independence of trajectories"
    sums = z.sum(1).square().sum()[None] / batch
    findings = [of_variance(family, "sum over trajectories", sums, frames * k, "")]
    rows = z.permute(1, 0, 2).reshape(batch, -1)
    n = rows.shape[1]
    if n < 8:
        return findings
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)
    if batch <= _PAIRED:
        products = rows @ rows.T
        pairs = torch.triu_indices(batch, batch, 1)
        values, label = products[pairs[0], pairs[1]], pairs
    else:
        far = [2**j for j in range(int(math.log2(batch)))]
        far += [batch // j for j in (2, 3, 4, 8)]
        values = torch.cat([(rows[s:] * rows[:-s]).sum(1) for s in far])
        first = torch.cat([torch.arange(batch - s) for s in far])
        label = torch.stack([first, torch.cat([torch.arange(s, batch) for s in far])])
    worst = int(values.abs().argmax())
    names = sample.trajectories[label[:, worst]].tolist()
    where = f"trajectories {names[0]} and {names[1]}"
    return [*findings, of_correlations(family, "pairs of trajectories", values, n, where)]


def repeats(sample: Sample) -> tuple[int, str]:
    """Return how many draws occur twice, and where first: no independent draws do.

    A draw is named by numbers in a row, of one step or of several, up to their sign.
    """
    z = sample.z
    frames, batch, k = z.shape
    tolerance = max(1e-9, 64 * sample.rounding)
    window = 1 if k >= _KEY else -(-_KEY // k)
    if tolerance > 1e-2 or frames < window or z.numel() < 2 * _KEY:
        return 0, ""
    keys = torch.cat([z[i : frames - window + 1 + i] for i in range(window)], 2)[..., : 2 * _KEY]
    keys = keys.flatten(0, 1)
    keys = keys * keys[:, :1].sign()  # antithetic draws are the same draw
    order = keys[:, 0].argsort()
    ranked = keys[order]
    hits: list[tuple[int, int]] = []
    for s in range(1, _NEIGHBOURS + 1):
        same = ((ranked[s:] - ranked[:-s]).abs() <= tolerance).all(1).nonzero()[:, 0]
        hits += [(int(order[i]), int(order[i + s])) for i in same[:1000].tolist()]
    if not hits:
        return 0, ""
    first = min((min(pair), max(pair)) for pair in hits)
    (f0, b0), (f1, b1) = (divmod(row, batch) for row in first)
    steps, names = sample.steps, sample.trajectories
    where = (
        f"step {int(steps[f0])} of trajectory {int(names[b0])} and step {int(steps[f1])} of "
        f"trajectory {int(names[b1])}"
    )
    return len(hits), where
