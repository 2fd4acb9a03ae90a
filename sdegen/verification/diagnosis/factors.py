"""Drift, noise and time by a factor, by sums over the innovations alone.

If the drift is a times and the noise c times what is believed, z − (a − 1) u over c is normal,
with the pull u of the drift. Its likelihood needs Σ z², Σ z u and Σ u² of each frame, so that any
number of factors is compared at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from sdegen.verification.diagnosis.model import LEAST, Alternative, Fitted, with_noise
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions

Factor = float | Callable[[Transitions], Tensor]  # or one for each frame
Pull = Callable[[Transitions], Tensor | None]

DRIFT_FACTORS: tuple[tuple[str, str, Factor], ...] = (
    ("drift of the wrong sign", "the drift had the wrong sign", -1.0),
    ("drift missing", "there were no drift", 0.0),
    ("drift twice", "the drift were twice what it should be", 2.0),
    ("drift half", "the drift were half of what it should be", 0.5),
    ("drift √2 times", "the drift were √2 times what it should be", math.sqrt(2.0)),
    ("drift 1/√2 times", "the drift were 1/√2 of what it should be", math.sqrt(0.5)),
    ("drift not multiplied by dt", "the drift were not multiplied by dt", lambda d: 1 / d.lengths),
    (
        "drift with √dt for dt",
        "the drift were multiplied by √dt, not by dt",
        lambda d: d.lengths**-0.5,
    ),
    ("drift multiplied by dt twice", "the drift were multiplied by dt twice", lambda d: d.lengths),
)
NOISE_FACTORS: tuple[tuple[str, str, Factor], ...] = (
    ("noise variance twice", "the noise had twice the variance", math.sqrt(2.0)),
    ("noise variance half", "the noise had half of the variance", math.sqrt(0.5)),
    ("noise variance four times", "the noise were twice as strong, in variance four times", 2.0),
    ("noise variance a quarter", "the noise were half as strong, in variance a quarter", 0.5),
    (
        "noise with dt for √dt",
        "the noise were multiplied by dt, not by √dt",
        lambda d: d.lengths.sqrt(),
    ),
    (
        "noise not multiplied by √dt",
        "the noise were not multiplied by √dt",
        lambda d: d.lengths**-0.5,
    ),
    ("noise variance ten times", "the noise had ten times the variance", math.sqrt(10.0)),
    ("noise variance a tenth", "the noise had a tenth of the variance", math.sqrt(0.1)),
)
TIME_FACTORS: tuple[tuple[str, str, Factor], ...] = (
    ("dt ten times too long", "the step were ten times as long", 10.0),
    ("dt ten times too short", "the step were a tenth as long", 0.1),
    ("dt twice too long", "the step were twice as long", 2.0),
    ("dt twice too short", "the step were half as long", 0.5),
    ("dt a hundred times too long", "the step were a hundred times as long", 100.0),
    ("dt a hundred times too short", "the step were a hundredth as long", 0.01),
    ("dt a thousand times too long", "the step were a thousand times as long", 1000.0),
    ("dt a thousand times too short", "the step were a thousandth as long", 0.001),
)


@dataclass(frozen=True)
class Sums:
    """Σ z², Σ z u, Σ u² and the number of innovations that are judged, of each frame."""

    zz: Tensor
    zu: Tensor
    uu: Tensor
    count: Tensor

    @classmethod
    def of(cls, data: Transitions, u: Tensor) -> Sums:
        """Return the sums with a pull, (F, B, K)."""
        z, mask = data.base.z, data.base.judged.double()[..., None]
        k = z.shape[2]
        return cls(
            (z * z * mask).sum((1, 2)), (z * u * mask).sum((1, 2)), (u * u * mask).sum((1, 2)),
            k * mask.sum((1, 2)),
        )  # fmt: skip

    def gain(self, a: Tensor | float, c: Tensor | float) -> float:
        """Return the gain of a times the drift and c times the noise."""
        a = torch.as_tensor(a, dtype=torch.float64) - 1
        c = torch.as_tensor(c, dtype=torch.float64)
        rest = self.zz - 2 * a * self.zu + a * a * self.uu
        return float((0.5 * self.zz - 0.5 * rest / c.square() - self.count * c.log()).sum())


def drift_and_noise(
    name: str, kind: str, words: str, drift: Factor, noise: Factor, *, family: str = "",
    pull: Pull | None = None,
) -> Alternative:  # fmt: skip
    """Return the alternative of fixed factors of drift and noise."""

    def fit(data: Transitions) -> Fitted | None:
        u = _pull(data, pull)
        if u is None or data.base.z.shape[2] == 0:
            return None
        a, c = at(drift, data), at(noise, data)
        sums = Sums.of(data, u)
        if pull is not None and float(sums.uu.sum()) == 0:
            return None
        value = drift if pull is not None or noise == 1.0 else noise
        return Fitted(
            sums.gain(a, c),
            lambda: residual_of(data, u, a, c),
            value=value if isinstance(value, float) else None,
        )

    return Alternative(name, kind, words, fit, family)


def fitted_drift(
    name: str, kind: str, words: str, *, family: str, pull: Pull | None = None
) -> Alternative:
    """Return the alternative of a drift, or of a part of it, by a factor that is fitted."""

    def fit(data: Transitions) -> Fitted | None:
        u = _pull(data, pull)
        if u is None:
            return None
        sums = Sums.of(data, u)
        square = float(sums.uu.sum())
        if not square > 0:
            return None
        a = 1 + float(sums.zu.sum()) / square
        error = 1 / math.sqrt(square)
        return Fitted(
            sums.gain(a, 1.0), lambda: residual_of(data, u, a, 1.0), 1, 0.0, a, error,
            words.format(a=_with_error(a, error)),
        )  # fmt: skip

    return Alternative(name, kind, words, fit, family)


def fitted_noise(data: Transitions) -> Fitted | None:
    """Fit one factor of all noise."""
    sums = Sums.of(data, data.base.pull)
    n = float(sums.count.sum())
    if n == 0:
        return None
    c = math.sqrt(float(sums.zz.sum()) / n)
    if not c > LEAST:
        return None
    error = c / math.sqrt(2 * n)
    words = (
        f"the noise were {_with_error(c, error)} times as strong as is believed (variance "
        f"{c * c:.4g})"
    )
    return Fitted(
        sums.gain(1.0, c), lambda: residual_of(data, data.base.pull, 1.0, c), 1, 0.0, c, error,
        words,
    )  # fmt: skip


def fitted_time(data: Transitions) -> Fitted | None:
    """Fit one factor of the step, of drift and noise alike."""
    sums = Sums.of(data, data.base.pull)
    if not float(sums.uu.sum()) > 0:
        return None

    def loss(log_tau: float) -> float:
        return -sums.gain(math.exp(log_tau), math.exp(0.5 * log_tau))

    n = float(sums.count.sum())
    start = math.log(max(1e-12, float(sums.zz.sum()) / n))
    with np.errstate(invalid="ignore", divide="ignore"):  # where the loss is flat to rounding
        best = optimize.minimize_scalar(loss, bracket=(start - 0.1, start + 0.1))
    tau = math.exp(float(best.x))
    if not tau > LEAST**2:
        return None
    error = tau * math.sqrt(2 / n)
    return Fitted(
        -float(best.fun), lambda: residual_of(data, data.base.pull, tau, math.sqrt(tau)), 1, 0.0,
        tau, error, f"the step were {_with_error(tau, error)} times as long as is believed",
    )  # fmt: skip


def fitted_both(data: Transitions) -> Fitted | None:
    """Fit a factor of the drift and one of the noise."""
    u = data.base.pull
    sums = Sums.of(data, u)
    square, n = float(sums.uu.sum()), float(sums.count.sum())
    if not square > 0:
        return None
    a = 1 + float(sums.zu.sum()) / square
    rest = float((sums.zz - 2 * (a - 1) * sums.zu + (a - 1) ** 2 * sums.uu).sum())
    c = math.sqrt(max(rest, 1e-300) / n)
    if not c > LEAST:
        return None
    words = (
        f"the drift were {_with_error(a, c / math.sqrt(square))} times and the noise "
        f"{_with_error(c, c / math.sqrt(2 * n))} times as strong as is believed"
    )
    return Fitted(
        sums.gain(a, c),
        lambda: residual_of(data, u, a, c),
        2,
        1.0,
        a,
        c / math.sqrt(square),
        words,
    )


def mean_of_noise(data: Transitions) -> Fitted | None:
    """Fit a mean of the noise: one for all coordinates, or one for each."""
    if data.base.z.shape[2] == 0:
        return None
    mask = data.base.judged.double()[..., None]
    z = data.base.z * mask
    n = float(mask.sum())
    means = z.sum((0, 1)) / n
    k = len(means)
    one = means.mean()
    gain_one, gain_each = 0.5 * n * k * float(one) ** 2, 0.5 * n * float(means.square().sum())
    each = k > 1 and gain_each - 0.5 * k * math.log(n) > gain_one - 0.5 * math.log(n * k)
    mean = means if each else one.expand(k)
    j = int(mean.abs().argmax())
    error = 1 / math.sqrt(n if each else n * k)
    where = f", most in coordinate {j}" if each else ""
    words = (
        f"a constant were added at each step, {_with_error(float(mean[j]), error)} standard "
        f"deviations of the noise{where}"
    )
    log_ratio = data.base.z * mean - 0.5 * mean.square()
    return Fitted(
        gain_each if each else gain_one,
        lambda: with_noise(data, data.base.z - mean, log_ratio),
        k if each else 1, 0.0, float(mean[j]), error, words,
    )  # fmt: skip


def residual_of(data: Transitions, u: Tensor, a: Tensor | float, c: Tensor | float) -> Evaluation:
    """Return innovations of a times the pull u and c times the noise."""
    a = torch.as_tensor(a, dtype=torch.float64)
    c = torch.as_tensor(c, dtype=torch.float64)
    if a.ndim:
        a = a[:, None, None]
    if c.ndim:
        c = c[:, None, None]
    z = (data.base.z - (a - 1) * u) / c
    log_ratio = 0.5 * data.base.z.square() - 0.5 * z.square() - c.log()
    return with_noise(data, z, log_ratio)


def at(factor: Factor, data: Transitions) -> Tensor | float:
    """Return a factor, or one for each frame."""
    return factor if isinstance(factor, float) else factor(data)


def _pull(data: Transitions, pull: Pull | None) -> Tensor | None:
    """Return the pull of a part of the drift, or that of all of it."""
    return data.base.pull if pull is None else pull(data)


def _with_error(value: float, error: float) -> str:
    """Return a number to the digits that are known."""
    digits = max(0, min(6, 1 - math.floor(math.log10(max(error, 1e-12)))))
    return f"{value:.{digits}f} ± {error:.1g}"
