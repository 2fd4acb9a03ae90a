"""States of few digits: what √dt z adds is lost beside x.

If all stored numbers are numbers of a shorter format, each step was rounded to one of them. The
chance that the believed law gives just these numbers is 2⁻ⁿ for n bits less, and their law is that
of a normal in the interval that is rounded to x',

    P = Φ((x' + ½ u − m)/s) − Φ((x' − ½ u − m)/s)

with a unit u of the last place; a number drawn evenly from this interval makes innovations normal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.model import (
    STANDS_STILL,
    TWICE,
    Alternative,
    Fitted,
    log_normal,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions

_BITS = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
_SHORT = (
    ("states in bfloat16", torch.bfloat16),
    ("states in float16", torch.float16),
    ("states in float32", torch.float32),
)


def rounding_alternatives(belief: Belief) -> list[Alternative]:
    """Return formats that are shorter than that in which states came; none in a phase space."""
    if belief.sde.phase_space:
        return []
    table = []
    for name, dtype in _SHORT:
        if _BITS[dtype] > _BITS.get(belief.states.dtype, 0):
            continue
        words = (
            f"states were kept in {str(dtype).removeprefix('torch.')}, beside which noise is lost"
        )
        table.append(Alternative(name, "rounding", words, _fit(dtype)))
    return table


def _fit(dtype: torch.dtype):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Return the fit of states that are rounded to a format at each step."""

    def fit(data: Transitions) -> Fitted | None:
        base, after = data.base, data.after.flatten(2)
        if base.z.shape[2] != after.shape[2]:
            return None
        if not bool((after.to(dtype).to(after.dtype) == after).all()):
            return None
        scale = data.diffusion * data.lengths.sqrt()[:, None, None]
        y = after.double()
        # numbers are denser on the side of 0 of a power of two
        outer, inner = 0.5 * _unit(y, dtype), 0.5 * _unit(y * (1 - 1e-9), dtype)
        left = torch.where(y > 0, inner, outer) / scale.clamp(min=1e-150)
        right = torch.where(y > 0, outer, inner) / scale.clamp(min=1e-150)
        low, high = torch.special.ndtr(base.z - left), torch.special.ndtr(base.z + right)
        mirrored = torch.special.ndtr(left - base.z) - torch.special.ndtr(-right - base.z)
        mass = torch.where(base.z > 0, mirrored, high - low).clamp(min=1e-300)
        # a density over the unit of the format in which they came
        fine = _unit(after.double(), data.belief.states.dtype)
        gained = mass.log() - (fine / scale.clamp(min=1e-150)).log() - log_normal(base.z)
        u = torch.rand(base.z.shape, generator=data.fresh, dtype=torch.float64)
        share = (low + u * (high - low)).clamp(1e-16, 1 - 1e-16)

        def residual() -> Evaluation:
            return with_noise(data, torch.special.ndtri(share), gained)

        gain = float(torch.where(base.judged[..., None], gained, 0.0).sum())
        if not math.isfinite(gain):
            return None
        return Fitted(gain, residual, excused=(STANDS_STILL, TWICE))

    return fit


def _unit(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a unit in the last place of numbers in a format."""
    tiny = 1e-7 if dtype == torch.float16 else 1e-38
    exponent = x.abs().clamp(min=tiny).log2().floor()
    return torch.exp2(exponent - _BITS[dtype])
