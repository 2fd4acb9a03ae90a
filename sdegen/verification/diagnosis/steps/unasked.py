"""Noise where there is none: equations that are believed to hold exactly, and do so by chance.

A flow, or a coordinate without noise, leaves x' − F(x) = 0. If these gaps are a function of the
state, the equation is another one; if they are not, something random has been added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdegen.verification.diagnosis.model import Alternative, Fitted, log_normal
from sdegen.verification.diagnosis.transitions import Transitions

NAME = "noise where there is none"
_UNITS = 1e3  # of the width of an equation: less is rounding
_PREDICTED = 0.5  # share of the variance of gaps that the state may tell


@dataclass(frozen=True)
class Gaps:
    """What equations without noise leave.

    Attributes:
        gap: Shape (F, B, Q).
        density: Their log-density under the belief, as rounding, shape (F, B).
    """

    gap: Tensor
    density: Tensor


def unasked_alternatives() -> list[Alternative]:
    """Return noise in equations that are believed to have none."""
    words = "noise were added where there is none"
    return [Alternative(NAME, "noise", words, _fit)]


def _gaps(data: Transitions) -> Gaps | None:
    """Return what the equations without noise leave in each transition."""
    law = data.belief.law
    if law.remembers or data.belief.ends is not None:
        return None
    gaps, densities = [], []
    for part, _, _ in data.blocks():
        x, after = data.x[part].flatten(0, 1), data.after[part].flatten(0, 1)
        with torch.no_grad():
            found = law.innovations(x, after, int(data.steps[part.start]))
        if found.gap is None or found.gap.numel() == 0 or found.scale is None:
            return None
        gaps.append(found.gap.double().reshape(*data.x[part].shape[:2], -1))
        density = data.base.log_p[part] - found.log_density.double().reshape(gaps[-1].shape[:2])
        densities.append(density)
    if len({g.shape[2] for g in gaps}) > 1:
        return None
    return Gaps(torch.cat(gaps), torch.cat(densities))


def _fit(data: Transitions) -> Fitted | None:
    """Fit the size of the noise in each equation."""
    found = _gaps(data)
    if found is None or not bool(data.base.judged.all()):
        return None
    gap, k = found.gap, data.base.z.shape[2]
    noisy = gap.abs().amax((0, 1)) > _UNITS * data.width
    if not bool(noisy.any()) or not bool(gap.isfinite().all()):
        return None
    gap = gap[..., noisy]
    if _told_by_state(gap, data) > _PREDICTED:
        return None  # another equation, without noise
    # of a flow nothing tells how the noise goes with time, or what the steps make of it
    by_frame = k == 0
    size = gap.square().mean((1,) if by_frame else (0, 1), keepdim=True).sqrt()
    size = size.clamp(min=data.width)
    new = gap / size
    each = (log_normal(new) - size.log()).sum(2)
    gain = float((each - found.density).sum())
    rest = found.gap[..., ~noisy]
    left = float((rest.abs() / data.width).max()) if rest.numel() else 0.0
    count = int(noisy.sum())
    words = f"noise were added in {count} of {len(noisy)} equations that have none"
    if by_frame:
        words = "noise were added to a motion that has none"
    pull = torch.zeros_like(new)
    base = data.base
    if by_frame:
        new = torch.randn(new.shape, generator=data.fresh, dtype=torch.float64)
    evaluation = replace(
        base, z=torch.cat([base.z, new], 2), pull=torch.cat([base.pull, pull], 2),
        log_p=base.log_p - found.density + each, gap=left,
    )  # fmt: skip
    return Fitted(gain, lambda: evaluation, size.numel(), words=words)


def _told_by_state(gap: Tensor, data: Transitions) -> float:
    """Return the share of the variance of gaps that the state of that step tells, at most."""
    x = data.x.flatten(2).double()
    shares = []
    most = max(1, (x.shape[1] - 4) // 3)  # coordinates, so that most of each frame is not fitted
    columns = x[..., :most]
    for i in torch.linspace(0, len(x) - 1, min(len(x), 16)).long().tolist():
        rows = columns[i]
        spread = rows.std(0).clamp(min=1e-12)
        rows = (rows - rows.mean(0)) / spread
        design = torch.cat([torch.ones_like(rows[:, :1]), rows, rows.tanh()], 1)
        if len(design) <= 2 * design.shape[1]:
            continue
        y = gap[i]
        fitted = design @ torch.linalg.lstsq(design, y, driver="gelsd").solution
        free = len(design) / (len(design) - design.shape[1])
        left = free * (y - fitted).square().mean()
        shares.append(float(1 - left / y.square().mean().clamp(min=1e-300)))
    return sum(shares) / len(shares) if shares else 0.0
