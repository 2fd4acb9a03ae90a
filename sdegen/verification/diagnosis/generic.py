"""Mistakes of no kind: a drift or a noise that is some other function of state and time.

They are fitted beside the table, with bounded features of the state and waves in time. Where one
of them explains more than every cause, the cause is none of the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from sdegen.verification.battery.features import features_of, standardised
from sdegen.verification.battery.martingale import normal_sums, prefix_of
from sdegen.verification.battery.regressions import size_normals
from sdegen.verification.diagnosis.model import Alternative, Fitted, with_noise
from sdegen.verification.diagnosis.transitions import Transitions
from sdegen.verification.innovations.sample import Sample, bits_of

UNKNOWN = "unknown"
_WAVES = 4
_HARMONICS = 6
_ROUNDS = 8  # of Newton's method for the logarithm of a variance


def generic_alternatives() -> list[Alternative]:
    """Return functions of state and time that are none of the table."""
    return [
        Alternative("drift another function of the state", UNKNOWN,
                    "the drift were another function of the state", _drift(_of_state)),
        Alternative("drift another function of time", UNKNOWN,
                    "the drift were another function of time", _drift(_of_time)),
        Alternative("noise another function of the state", UNKNOWN,
                    "the noise were another function of the state", _noise(_of_state)),
        Alternative("noise another function of time", UNKNOWN,
                    "the noise were another function of time", _noise(_of_time)),
    ]  # fmt: skip


Features = Callable[[Transitions], Tensor | None]


def _of_state(data: Transitions) -> Tensor | None:
    """Return bounded features of the coordinates themselves, shape (F, B, K, P)."""
    if "features" not in data.kept:
        x = data.x.flatten(2).double()
        k, d = data.base.z.shape[2], x.shape[2]
        # by the first states alone: the centre of all of them would be fitted, too
        u = standardised(x, max(1, len(x) // 16))
        features = torch.cat([features_of(u), torch.sin(2 * u)[..., None]], -1)
        if k == d:
            chosen = features
        elif data.belief.sde.phase_space and d == 2 * k:
            chosen = torch.cat([features[:, :, :k], features[:, :, k:]], -1)
        else:
            return None
        data.kept["features"] = chosen
    kept: Tensor = data.kept["features"]
    return kept


def _of_time(data: Transitions) -> Tensor | None:
    """Return waves along the run, shape (F, 1, 1, P)."""
    if len(data.x) < 16:
        return None
    last = max(1, int(data.steps[-1] - data.steps[0]))
    tau = (data.steps - data.steps[0]).double() / last
    waves = [torch.cos(math.pi * (j + 1) * tau) for j in range(_WAVES)]
    return torch.stack(waves, -1)[:, None, None]


def _drift(features: Features) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of a mean of the noise by features."""

    def fit(data: Transitions) -> Fitted | None:
        z, phi = data.base.z, features(data)
        if phi is None or z.shape[2] == 0:
            return None
        phi = phi.expand(*z.shape, phi.shape[-1])
        rows, y = phi[data.base.judged].flatten(0, 1), z[data.base.judged].flatten()
        beta = _solved(rows.T @ rows, rows.T @ y)
        mean = phi @ beta
        gain = float(beta @ (rows.T @ y) - 0.5 * beta @ (rows.T @ rows) @ beta)
        ratio = mean * z - 0.5 * mean.square()
        return Fitted(gain, lambda: with_noise(data, z - mean, ratio), len(beta))

    return fit


def _noise(features: Features) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of log-variances by features and a constant."""

    def fit(data: Transitions) -> Fitted | None:
        z, phi = data.base.z, features(data)
        if phi is None or z.shape[2] == 0:
            return None
        phi = phi.expand(*z.shape, phi.shape[-1])
        phi = torch.cat([torch.ones_like(phi[..., :1]), phi], -1)
        rows, y = phi[data.base.judged].flatten(0, 1), z[data.base.judged].flatten().square()
        beta = torch.zeros(rows.shape[1], dtype=torch.float64)
        beta[0] = y.mean().clamp(min=1e-8).log()
        for _ in range(_ROUNDS):
            weight = y * (-(rows @ beta)).exp()
            step = _solved(rows.T @ (rows * weight[:, None]), rows.T @ (weight - 1))
            beta = beta + step.clamp(-1, 1)
        eta = (phi @ beta).clamp(-18, 18)
        new = z * (-0.5 * eta).exp()
        ratio = 0.5 * z.square() - 0.5 * new.square() - 0.5 * eta
        evaluation = with_noise(data, new, ratio)
        gain = float((evaluation.log_p - data.base.log_p).sum())
        return Fitted(gain, lambda: evaluation, len(beta))

    return fit


def detail_left(sample: Sample, false_alarm: float) -> str:
    """Return what fine features of the state still tell of innovations, or nothing.

    With u of a coordinate as the battery has it and θ = 2 arctan u they are sin jθ and cos jθ: a
    cause that explains the mean of a mistake alone leaves its shape to them. Beside them stand the
    sizes of the noise in each trajectory, which vary as chance has it.

    Args:
        sample: Innovations under a cause.
        false_alarm: Chance that something is found in those of the right one.
    """
    k, d = sample.z.shape[2], sample.x.shape[2]
    if k == 0:
        return ""
    sizes = size_normals(sample.z)
    each = sizes.sum((0, 2)).square() / (sizes.shape[0] * k)
    if stats.chi2.sf(float(each.sum()), len(each)) < false_alarm / 4:
        return "noise of single trajectories"
    if k not in (d, d // 2):
        return ""
    fresh = torch.Generator().manual_seed(bits_of(sample.z[-1]))
    theta = 2 * torch.atan(standardised(sample.x, prefix_of(len(sample.z))))
    parts = [theta] if k == d else [theta[..., :k], theta[..., k:]]
    chance = false_alarm / (4 * _HARMONICS * len(parts))
    for name, w in (("drift", sample.z), ("noise", sizes)):
        for part in parts:
            for j in range(1, _HARMONICS + 1):
                for wave in (torch.sin(j * part), torch.cos(j * part)):
                    sums = normal_sums(wave.flatten(1)[..., None], w.flatten(1), fresh)
                    if 2 * stats.norm.sf(abs(float(sums[0]))) < chance:
                        return f"shape of the {name} as a function of the state"
    return ""


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution of equations that may be singular."""
    size = float(matrix.diagonal().abs().max().clamp(min=1e-300))
    eye = torch.eye(len(right), dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(matrix + 1e-9 * size * eye, right)
    return solution
