"""Mistakes in one coordinate: drift or noise missing there, or by a factor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.verification.diagnosis.model import (
    LEAST,
    LOG_TWO_PI,
    STANDS_STILL,
    TWICE,
    Alternative,
    Fitted,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions


def coordinate_alternatives() -> list[Alternative]:
    """Return mistakes of one coordinate."""
    drift, noise = "drift of a coordinate by a factor", "noise of a coordinate by a factor"
    table = [
        Alternative("noise missing", "noise", "there were no noise", _all_silent),
        Alternative(
            "noise missing in a coordinate", "noise", "a coordinate had no noise", _some_silent
        ),
        Alternative("noise of a coordinate by a factor", "noise", "", _noise(None), noise),
        Alternative("drift of a coordinate by a factor", "drift", "", _drift(None), drift),
    ]
    for words, factor in (("missing", 0.0), ("of the wrong sign", -1.0), ("twice", 2.0),
                          ("half", 0.5)):  # fmt: skip
        table.append(
            Alternative(f"drift {words} in a coordinate", "drift", "", _drift(factor), drift)
        )
    for words, factor in (("twice", math.sqrt(2.0)), ("half", math.sqrt(0.5)),
                          ("four times", 2.0), ("a quarter", 0.5)):  # fmt: skip
        name = f"noise variance {words} in a coordinate"
        table.append(Alternative(name, "noise", "", _noise(factor), noise))
    return table


def _masked(data: Transitions) -> tuple[Tensor, float]:
    mask = data.base.judged.double()[..., None]
    return data.base.z * mask, float(mask.sum())


def _still(data: Transitions) -> Tensor:
    """Return which coordinates have no noise: z is rounding."""
    z, n = _masked(data)
    width = data.resolution
    if width > 0.05 or n < 8:
        return torch.zeros(z.shape[2], dtype=torch.bool)
    return z.abs().amax((0, 1)) <= width


def _silenced(data: Transitions, silent: Tensor) -> Fitted:
    """Return the alternative that these innovations are rounding."""
    z = data.base.z
    width = data.resolution

    def residual() -> Evaluation:
        fresh = torch.randn(z.shape, generator=data.fresh, dtype=torch.float64)
        each = 0.5 * z.square() + 0.5 * LOG_TWO_PI - math.log(2 * width)
        zero = torch.zeros((), dtype=torch.float64)
        return with_noise(data, torch.where(silent, fresh, z), torch.where(silent, each, zero))

    evaluation = residual()
    gain = float((evaluation.log_p - data.base.log_p).sum())
    which = silent.nonzero()[:, 0].tolist()
    names = ", ".join(map(str, which[:5])) + (", …" if len(which) > 5 else "")
    words = f"there were no noise in coordinate{'s' if len(which) > 1 else ''} {names}"
    return Fitted(
        gain, lambda: evaluation, 0, float(math.log(len(silent))), words=words,
        excused=(STANDS_STILL, TWICE),
    )  # fmt: skip


def _some_silent(data: Transitions) -> Fitted | None:
    silent = _still(data)
    if not bool(silent.any()) or bool(silent.all()):
        return None
    return _silenced(data, silent)


def _all_silent(data: Transitions) -> Fitted | None:
    silent = _still(data)
    if data.base.z.shape[2] == 0 or not bool(silent.all()):
        return None
    fitted = _silenced(data, silent)
    return Fitted(
        fitted.gain, fitted.residual, words="there were no noise", excused=fitted.excused
    )


def _drift(factor: float | None):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Return the fit of the drift of the coordinate that gains most by it."""

    def fit(data: Transitions) -> Fitted | None:
        z, _ = _masked(data)
        u, k = data.base.pull, data.base.z.shape[2]
        if k < 2:
            return None
        zu, uu = (z * u).sum((0, 1)), u.square().sum((0, 1))
        live = uu > 0
        if not bool(live.any()):
            return None
        if factor is None:
            delta = torch.where(live, zu / uu.clamp(min=1e-300), 0.0)
        else:
            delta = torch.full_like(zu, factor - 1)
        gains = delta * zu - 0.5 * delta.square() * uu
        j = int(gains.argmax())
        a, error = float(1 + delta[j]), float(uu[j].clamp(min=1e-300).rsqrt())
        d = float(delta[j])

        def residual() -> Evaluation:
            shifted, ratio = data.base.z.clone(), torch.zeros_like(data.base.z)
            shifted[..., j] -= d * u[..., j]
            ratio[..., j] = d * data.base.z[..., j] * u[..., j] - 0.5 * (d * u[..., j]).square()
            return with_noise(data, shifted, ratio)

        words = f"the drift of coordinate {j} were {a:.3g} times what it should be"
        if factor == 0:
            words = f"coordinate {j} had no drift"
        return Fitted(
            float(gains[j]), residual, int(factor is None), math.log(k), a,
            error if factor is None else None, words,
        )  # fmt: skip

    return fit


def _noise(factor: float | None):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Return the fit of the noise of the coordinate that gains most by it."""

    def fit(data: Transitions) -> Fitted | None:
        z, n = _masked(data)
        k = z.shape[2]
        if k < 2:
            return None
        squares = z.square().sum((0, 1))
        if factor is None:
            c = (squares / n).sqrt().clamp(min=LEAST)
        else:
            c = torch.full_like(squares, factor)
        gains = 0.5 * squares * (1 - c**-2) - n * c.log()
        j = int(gains.argmax())
        c_j = float(c[j])

        def residual() -> Evaluation:
            scaled, ratio = data.base.z.clone(), torch.zeros_like(data.base.z)
            scaled[..., j] /= c_j
            old = data.base.z[..., j]
            ratio[..., j] = 0.5 * old.square() * (1 - c_j**-2) - math.log(c_j)
            return with_noise(data, scaled, ratio)

        words = f"the noise of coordinate {j} were {c_j:.4g} times as strong as is believed"
        return Fitted(
            float(gains[j]), residual, int(factor is None), math.log(k), c_j,
            c_j / math.sqrt(2 * n) if factor is None else None, words,
        )  # fmt: skip

    return fit
