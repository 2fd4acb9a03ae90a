"""What a picture of innovations shows of their law, their memory, and their independence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.verification.battery.regressions import size_normals
from sdegen.verification.innovations.sample import Sample

_BINS, _ENDS, _FARTHEST = 60, 5.0, 12.0  # of a histogram: bins, its ends, and the farthest end
_LAGS, _PRODUCTS = 50, 20  # steps apart; products of which a correlation is the mean, at least
_GROUPS, _NUMBERS = 50, 40  # groups of steps along the run, and numbers in each
_MATRIX = 100  # rows of a matrix that can be seen


class Histogram(NamedTuple):
    """Density of z.

    Attributes:
        edges: Edges of the bins, shape (bins + 1,).
        density: Density in each, shape (bins,).
        standard_error: Of the density.
        beyond: How many numbers are outside the edges.
    """

    edges: Tensor
    density: Tensor
    standard_error: Tensor
    beyond: int


class Memory(NamedTuple):
    """Correlations of noise with that of earlier steps.

    Attributes:
        lags: Numbers of steps apart, shape (lags,).
        noise: Correlation of z.
        size: Correlation of |z|, turned into a normal.
        standard_error: Of both.
    """

    lags: Tensor
    noise: Tensor
    size: Tensor
    standard_error: Tensor


class AlongRun(NamedTuple):
    """Strength of noise and drift over what is believed, of groups of steps.

    Attributes:
        steps: Mean number of the steps of each group.
        variance: Mean of z², 1 by belief.
        variance_error: Its standard error.
        drift: Factor of the drift, 1 by belief.
        drift_error: Its standard error.
    """

    steps: Tensor
    variance: Tensor
    variance_error: Tensor
    drift: Tensor
    drift_error: Tensor


class Correlations(NamedTuple):
    """Correlations of noise in standard errors, the diagonal left out as NaN.

    Attributes:
        values: Shape (n, n).
        of: "coordinates" or "trajectories".
        numbers: Which they are, shape (n,).
    """

    values: Tensor
    of: str
    numbers: Tensor


def histogram(sample: Sample) -> Histogram:
    """Return the density of all innovations, out to the largest, or to ±12."""
    z = sample.z.flatten()
    end = min(_FARTHEST, max(_ENDS, float(z.abs().max()) * 1.02))
    bins = min(_BINS, max(8, int(2 * len(z) ** (1 / 3))))
    edges = torch.linspace(-end, end, bins + 1, dtype=torch.float64)
    counts = torch.histogram(z.clamp(-end - 1, end + 1), edges)[0]
    total = len(z) * (2 * end / bins)
    beyond = len(z) - int(counts.sum())
    return Histogram(edges, counts / total, counts.clamp(min=1).sqrt() / total, beyond)


def memory(sample: Sample) -> Memory | None:
    """Return correlations up to 50 steps apart; None where too few steps are in a row."""
    both = sample.z, size_normals(sample.z)
    # a variance that is wrong throughout is no memory
    z, size = ((w - w.mean()) / w.std() for w in both)
    rows = []
    for lag in range(1, _LAGS + 1):
        total, count = [0.0, 0.0], 0
        for part in sample.stretches:
            if len(sample.steps[part]) <= lag:
                continue
            for n, w in enumerate((z[part], size[part])):
                total[n] += float((w[lag:] * w[:-lag]).sum())
            count += w[lag:].numel()
        if count >= _PRODUCTS:
            rows.append((lag, total[0] / count, total[1] / count, 1 / math.sqrt(count)))
    if not rows:
        return None
    lags, noise, sizes, errors = torch.tensor(rows, dtype=torch.float64).T
    return Memory(lags, noise, sizes, errors)


def along_run(sample: Sample) -> AlongRun:
    """Return the variance of z, and the factor of the drift, of groups of steps."""
    frames, batch, k = sample.z.shape
    width = max(-(-frames // _GROUPS), min(frames, -(-_NUMBERS // (batch * k))))
    rows = []
    for first in range(0, frames, width):
        part = slice(first, first + width)
        z, pull = sample.z[part], sample.pull[part]
        n, bottom = z.numel(), float(pull.square().sum())
        squares = float(z.square().mean())
        spread = float(z.square().std()) if n > 1 else math.nan
        drift = float((z * pull).sum()) / bottom if bottom else math.nan
        error = math.sqrt(squares / bottom) if bottom else math.nan
        step = float(sample.steps[part].double().mean())
        rows.append((step, squares, spread / math.sqrt(n), 1 + drift, error))
    return AlongRun(*torch.tensor(rows, dtype=torch.float64).T)


def correlations(sample: Sample, *, of: str | None = None) -> Correlations | None:
    """Return correlations between coordinates, or trajectories; None where there are no three.

    Args:
        sample: Innovations.
        of: "coordinates" or "trajectories"; None takes the first of which there are three.
    """
    _, batch, k = sample.z.shape
    if of is None:
        of = "coordinates" if k > 2 else "trajectories"
    count = k if of == "coordinates" else batch
    if count < 3 or sample.z.numel() < 8 * count:
        return None
    chosen = torch.linspace(0, count - 1, min(count, _MATRIX)).round().long()
    if of == "coordinates":
        rows, numbers = sample.z[..., chosen].reshape(-1, len(chosen)), chosen
    else:
        rows = sample.z[:, chosen].permute(0, 2, 1).reshape(-1, len(chosen))
        numbers = sample.trajectories[chosen]
    products = rows.T @ rows / math.sqrt(len(rows))
    return Correlations(products.fill_diagonal_(math.nan), of, numbers)
