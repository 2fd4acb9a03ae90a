"""Whether steps lead where they should on average: Σ φ(x_{k+1}) − E[φ(x_{k+1}) | x_k], φ a wave.

The terms are martingale differences, uncorrelated in time whatever the dynamics remember, so that
the error of the sum is exact and no bias of a step is in it: what fails is a mistake. Of many
trajectories the sums of m waves are judged together (Hotelling's T²); of few each by the changed
clock of `battery.martingale`, and the largest of them counts.

Reference:
    Hotelling 1931, Ann. Math. Stat. 2, 360; Bibby and Sørensen 1995, Bernoulli 1, 17, for
    martingale estimating functions of discretely observed diffusions.
"""

from __future__ import annotations

import math

import torch
from scipy import stats
from torch import Tensor

from sdegen.core.noise import stream
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.battery.finding import Finding, of_normals
from sdegen.verification.battery.martingale import needs_clock, normal_sums, prefix_of
from sdegen.verification.identities.ends import Ends
from sdegen.verification.identities.steps import StepMeans
from sdegen.verification.identities.waves import Waves, waves_of
from sdegen.verification.innovations.sample import bits_of

_MOST = 2**18  # transitions
_STEPWISE = 2_000  # frames, where each step has a law of its own
_BLOCK = 2**15  # transitions that are taken together
_FEWEST = 5  # transitions for each wave
_PER_WAVE = 10  # of them, from which correlations of waves are known
_ALIKE = 1e-9  # of a correlation matrix: sums that are the same up to this
_ROUNDED = 0.1  # of the standard deviation of a step: rounding that is larger hides it
_FAMILY = "where steps lead, on average over waves"


def step_finding(
    states: StoredStates, means: StepMeans, ends: Ends, labels: list[str]
) -> Finding | str:
    """Return the finding of sums over waves, or why there is none.

    Args:
        states: What was stored.
        means: What steps make of waves.
        ends: Of the coordinates.
        labels: What these are called.
    """
    frames, rows = _choice(states, means)
    few = _few(frames)
    pairs = torch.stack([states.block(int(k), int(k) + 2)[:, rows] for k in few], 1)
    picked = pairs[0]
    before, after = pairs.flatten(3).flatten(1, 2).double()
    waves = waves_of(before, after, ends, labels)
    m = len(waves.phase)
    if m == 0:
        return "no coordinate varies."
    if len(frames) * len(rows) < _FEWEST * m:
        return f"{len(frames) * len(rows)} steps are too few for {m} waves."
    D, V = _gathered(states, means, frames, rows, waves)
    kept = V.sum((0, 1)) > 1e-20 * V.sum((0, 1)).max()
    if not bool(kept.any()):
        return "no noise moves the states."
    half = float(states.rounding_at(picked).flatten(2).mul(waves.k.abs().amax(0)).amax())
    if half > _ROUNDED * float(V[..., kept].mean((0, 1)).max().sqrt()):
        return "the rounding of the stored states hides the noise of a step."
    D, V = D[..., kept], V[..., kept]
    names = [name for name, keep in zip(waves.names, kept.tolist(), strict=True) if keep]
    if needs_clock(len(rows)):
        return _largest(D, V, names, bits_of(picked))
    return _together(D, names)


def _together(D: Tensor, names: list[str]) -> Finding:
    """Return the finding of all sums together, of many trajectories."""
    sums = D.sum(0)  # of each trajectory, which are independent
    total = D.flatten(0, 1)
    n = len(total)
    normals = total.sum(0) / total.square().sum(0).clamp(min=1e-300).sqrt()
    scale = total.square().mean(0).clamp(min=1e-300).sqrt()
    values, vectors = torch.linalg.eigh((total / scale).T @ (total / scale) / n)
    good = values > _ALIKE * values[-1]
    across = (sums.sum(0) / scale) @ vectors[:, good]
    square = float((across.square() / values[good]).sum() / n)
    rank = int(good.sum())
    freedom = n - rank
    p = float(stats.f.sf(square * freedom / (rank * (n - 1)), rank, freedom))
    largest = int(normals.abs().argmax())
    return Finding(_FAMILY, "T²", float(normals[largest]), p, names[largest])


def _largest(D: Tensor, V: Tensor, names: list[str], seed: int) -> Finding:
    """Return the finding of the largest sum, of few trajectories.

    Sums of correlated waves are made independent by what the first part of the run says of their
    correlations, so that they stay martingales. Where it is too short they are left correlated,
    which makes the p-value too large rather than too small.
    """
    fresh = stream(seed, "clock of waves").generator()
    frames, _, m = D.shape
    first = D[: prefix_of(frames)].flatten(0, 1)
    scale = V.mean((0, 1)).sqrt()
    if len(first) >= _PER_WAVE * m:
        whitener = _root_of_inverse((first / scale).T @ (first / scale) / len(first))
        D = (D / scale) @ whitener
        V = D.square()
    each = []
    for q in range(m):
        root = V[..., q].sqrt()
        z = D[..., q] / root.clamp(min=1e-300)
        each.append(normal_sums(root[..., None], torch.where(root > 0, z, 0.0), fresh)[0])
    normals = torch.stack(each)
    found = of_normals(_FAMILY, "largest sum", normals)
    where = names[int(normals.abs().argmax())]
    return Finding(_FAMILY, found.name, found.value, found.p_value, where)


def _root_of_inverse(matrix: Tensor) -> Tensor:
    """Return C^{−½}, symmetric, of a matrix with a unit diagonal; no direction beyond its own."""
    values, vectors = torch.linalg.eigh(matrix)
    safe = values.clamp(min=_ALIKE * float(values[-1]))
    inverse: Tensor = (vectors * safe.rsqrt()) @ vectors.T
    return inverse


def _choice(states: StoredStates, means: StepMeans) -> tuple[Tensor, Tensor]:
    """Return first frames of transitions, evenly spread, and the trajectories."""
    steps, batch = states.shape[0] - 1, states.shape[1]
    size = max(1, math.prod(states.event) // 32)
    most = max(64, _MOST // size)
    rows = torch.arange(0, batch, max(1, -(-batch * min(steps, 16) // most)))
    fit = max(1, most // len(rows))
    fit = fit if means.alike else min(fit, _STEPWISE)
    return torch.arange(0, steps, max(1, -(-steps // fit))), rows


def _few(frames: Tensor) -> Tensor:
    """Return frames that set the lengths of waves: of few trajectories the first ones."""
    first = frames[: max(2, prefix_of(len(frames)))]
    return first[:: max(1, -(-len(first) // 256))]


def _gathered(
    states: StoredStates, means: StepMeans, frames: Tensor, rows: Tensor, waves: Waves
) -> tuple[Tensor, Tensor]:
    """Return differences and their sizes, each of shape (F, B, m)."""
    count = max(1, _BLOCK // len(rows)) if means.alike else 1
    stride = int(frames[1] - frames[0]) if len(frames) > 1 else 1
    differences, sizes = [], []
    with torch.no_grad():
        for k in range(0, len(frames), count):
            some = frames[k : k + count]
            first, last = int(some[0]), int(some[-1])
            x = states.block(first, last + 2)[:, rows]
            before, after = x[:-1:stride], x[1::stride]
            shape = (len(before), len(rows), len(waves.phase))
            before, after = before.flatten(0, 1), after.flatten(0, 1)
            D, V = means.differences(before, after, first, waves)
            weights = waves.weights(before.flatten(1))
            differences.append((weights * D).reshape(shape))
            sizes.append((weights.square() * V).reshape(shape))
    return torch.cat(differences), torch.cat(sizes)
