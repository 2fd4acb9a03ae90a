"""Noise that is correlated: in time, between coordinates, between trajectories."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.verification.diagnosis.model import (
    LEAST,
    Alternative,
    Fitted,
    log_normal,
    stretches_of,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions

_ORDERS = (1, 2, 4, 8)
_MOST_COORDINATES = 64  # of which a whole covariance is fitted


def correlation_alternatives() -> list[Alternative]:
    """Return noise that is correlated in one of three ways."""
    return [
        Alternative("noise correlated in time", "memory of the noise", "", _in_time),
        Alternative("noise correlated between coordinates", "noise", "", _between_coordinates),
        Alternative("noise correlated between trajectories", "noise", "", _between_trajectories),
    ]


def _in_time(data: Transitions) -> Fitted | None:
    """Fit z_k = Σ ρ_j z_{k−j} + s ξ of the order that pays."""
    if not bool(data.base.judged.all()) or data.base.z.shape[2] == 0:
        return None
    fits = [_autoregression(data, order) for order in _ORDERS]
    n = data.base.z.numel()
    live = [fit for fit in fits if fit is not None]
    if not live:
        return None
    return max(live, key=lambda fit: fit.gain - 0.5 * fit.parameters * math.log(n))


def _autoregression(data: Transitions, order: int) -> Fitted | None:
    """Fit an autoregression of one order by least squares."""
    z = data.base.z
    rows, targets, places = [], [], []
    for part in stretches_of(data):
        block = z[part]
        if len(block) <= order + 8:
            return None
        past = [block[order - j - 1 : len(block) - j - 1] for j in range(order)]
        rows.append(torch.stack(past, -1).reshape(-1, order))
        targets.append(block[order:].flatten())
        places.append(slice(part.start + order, part.stop))
    if not rows:
        return None
    X, y = torch.cat(rows), torch.cat(targets)
    rho = torch.linalg.lstsq(X.T @ X, (X.T @ y)[:, None]).solution[:, 0]
    rest = y - X @ rho
    # of unit variance at rest, or of unit variance of what is new
    share = float((X @ rho * y).mean() / y.square().mean())
    if not 0 < share < 1 - LEAST:
        return None
    free = float(rest.square().mean().sqrt())
    s = min(math.sqrt(1 - share), 1.0, key=lambda scale: abs(math.log(scale / free)))
    gain = float((0.5 * y.square() - 0.5 * (rest / s).square()).sum()) - len(y) * math.log(s)

    def residual() -> Evaluation:
        new, ratio = z.clone(), torch.zeros_like(z)
        at = 0
        for place in places:
            old = z[place]
            now = (rest[at : at + old.numel()] / s).reshape(old.shape)
            at += old.numel()
            new[place], ratio[place] = now, log_normal(now) - math.log(s) - log_normal(old)
        return with_noise(data, new, ratio)

    first = float(rho[0])
    words = f"the noise remembered its past, z_k = {first:.3g} z_(k−1) + …"
    return Fitted(gain, residual, order, 0.0, first, s / math.sqrt(len(y)), words)


def _between_coordinates(data: Transitions) -> Fitted | None:
    """Fit one correlation for all pairs, or one for each."""
    z = data.base.z
    k = z.shape[2]
    if k < 2:
        return None
    rows = z[data.base.judged]
    n = len(rows)
    if n < 4 * k:
        return None
    C = rows.T @ rows / n
    if not bool((C.diag() > LEAST).all()):
        return None
    trace, total = float(C.diag().sum()), float(C.sum())
    r = max(-0.999 / (k - 1), min(0.9999, (total - trace) / (k * (k - 1))))
    one = (1 - r) * torch.eye(k, dtype=torch.float64) + r
    fits = [(one, 1, r)]
    if k <= _MOST_COORDINATES and n > 10 * k * k:
        R = C / torch.outer(C.diag(), C.diag()).sqrt()  # variances are another mistake
        largest = float((R - torch.eye(k, dtype=torch.float64)).abs().max())
        fits.append((R, k * (k - 1) // 2, largest))
    scored = []
    for matrix, parameters, value in fits:
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) != 0 or float(factor.diag().min()) < 1e-4:
            continue  # the same noise in two coordinates is another mistake
        whitened = torch.linalg.solve_triangular(factor, z.flatten(0, 1).T, upper=False).T
        new = whitened.reshape(z.shape)
        log_det = float(factor.diag().log().sum())
        ratio = log_normal(new) - log_normal(z) - log_det / k
        gain = float(ratio.sum(2)[data.base.judged].sum())
        scored.append((gain - 0.5 * parameters * math.log(n), gain, parameters, value, new, ratio))
    if not scored:
        return None
    _, gain, parameters, value, new, ratio = max(scored, key=lambda s: s[0])
    words = f"the noise were correlated between coordinates, by up to {value:.3g}"
    return Fitted(gain, lambda: with_noise(data, new, ratio), parameters, 0.0, value, None, words)


def _between_trajectories(data: Transitions) -> Fitted | None:
    """Fit one correlation between all trajectories."""
    z = data.base.z
    _, batch, k = z.shape
    if batch < 2 or k == 0 or not bool(data.base.judged.all()):
        return None
    total, squares = z.sum(1), z.square().sum(1)
    mean = float(squares.mean()) / batch
    pairs = float((total.square() - squares).mean()) / (batch * (batch - 1))
    r = pairs / mean if mean > 0 else 0.0
    if not 1e-4 < r < 0.9999:
        return None
    small, large = 1 - r, 1 - r + r * batch
    new = _whitened(z, small, large)
    log_det = 0.5 * ((batch - 1) * math.log(small) + math.log(large))
    ratio = log_normal(new) - log_normal(z) - log_det / batch
    words = f"a share of the noise, correlation {r:.3g}, were the same in all trajectories"
    gain = float(ratio.sum())
    return Fitted(gain, lambda: with_noise(data, new, ratio), 1, 0.0, r, None, words)


def _whitened(z: Tensor, small: float, large: float) -> Tensor:
    """Return the noise of trajectories whitened by the eigenvalues of their covariance."""
    mean = z.mean(1, keepdim=True)
    new: Tensor = (z - mean) / math.sqrt(small) + mean / math.sqrt(large)
    return new
