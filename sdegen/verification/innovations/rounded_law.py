"""The law of states that were rounded when they were stored: texts, half precision.

What was computed is x, what was stored x + r u, with r half of a unit of the last digit that was
kept and u, of each number, uniform in [−1, 1]; dither (`dither.py`) adds another such u, so that
the error is r w of the variance ⅔ r². The noise that a law tells from it is

    z_k = ξ_k + a_k w_k + b_k w_{k+1},        a = r ∂z/∂x,  b = r ∂z/∂x',

its variance is too large by ⅔ (a² + b²), and neighbours anticorrelate, since a is about −b. With
w_k ~ (ŵ, p) given the noise before, and p = ⅔ where nothing is,

    S = 1 + a² p + ⅔ b²,    ν = z − a ŵ,    ŵ' = ⅔ b ν/S,    p' = ⅔ − (⅔ b)²/S

makes ν/√S uncorrelated, with the mean 0 and the variance 1, and normal as far as the noise
outweighs the rounding: for r = 0.4 of the noise of a step its fourth cumulant is −0.009. Beyond
that a step says more of rounding than of noise, and states are refused.

Reference:
    Kalman 1960, J. Basic Eng. 82, 35; Sheppard 1898, Proc. London Math. Soc. 29, 353, for r²/3.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.innovations.dither import were_cut
from sdegen.verification.innovations.law import UNITS, Innovations, StepLaw

_VARIANCE = 2 / 3  # of two uniform errors in [−1, 1]
_NONE = 0.01  # r in units of a step's noise: below it, no number of states tells
_MOST = 0.4
_PILOT = 16  # frames at which r is looked at
_ENOUGH = 0.1  # r that is asked for where it is too large


class _Known(NamedTuple):
    """What is known of the rounding of the last state: ŵ and p, each (B, k)."""

    mean: Tensor
    variance: Tensor


class RoundedLaw(StepLaw):
    """The law of steps between states that were rounded.

    Args:
        law: That of the steps as they were computed, each z of one coordinate.
        states: What was stored, and to how many digits.
    """

    remembers = True

    @property
    def takes_centre(self) -> bool:
        """Yes: each z is that of one coordinate."""
        return True

    def __init__(self, law: StepLaw, states: StoredStates) -> None:
        self._law, self._states = law, states
        self.name: str = f"{law.name}, rounded"
        self.alike: bool = law.alike
        self._eps = torch.finfo(states.precision or states.dtype).eps

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Refuse single steps, of which the rounding is not known."""
        raise NotImplementedError

    def along(self, x: State, first: int, memory: object) -> tuple[Innovations, object]:
        """Return z of the steps between frames x, (F + 1, B, *event), and what is known then."""
        count, rows = len(x) - 1, x.shape[1]
        inner, a, b = shares(self._law, self._states, x, first, self._eps)
        shape = (count, rows, inner.z.shape[1])
        a, b, z = a.reshape(shape), b.reshape(shape), inner.z.reshape(shape).double()
        judged = None if inner.judged is None else inner.judged.reshape(count, rows, 1)
        if isinstance(memory, _Known):
            mean, variance = memory
        else:
            mean, variance = torch.zeros_like(z[0]), torch.full_like(z[0], _VARIANCE)
        white, spread = torch.empty_like(z), torch.empty_like(z)
        for k in range(count):
            share = _VARIANCE * b[k]
            spread[k] = 1 + a[k].square() * variance + share * b[k]
            nu = z[k] - a[k] * mean
            white[k] = nu / spread[k].sqrt()
            gain = share / spread[k]
            mean, variance = gain * nu, _VARIANCE - gain * share
            if judged is not None:  # nothing was learned
                mean = torch.where(judged[k], mean, 0.0)
                variance = torch.where(judged[k], variance, _VARIANCE)
        root = spread.sqrt().reshape(inner.z.shape)
        found = replace(
            inner,
            z=white.reshape(inner.z.shape).to(inner.z),
            pull=inner.pull / root.to(inner.pull),
            log_scale=inner.log_scale + root.log().sum(1),
        )
        return found, _Known(mean, variance)


def shares(
    law: StepLaw, states: StoredStates, x: Tensor, first: int, eps: float
) -> tuple[Innovations, Tensor, Tensor]:
    """Return innovations of steps, and by how much rounding moves them: a and b, (n, k).

    The sizes of equations are made such that rounding is none of their units.

    Args:
        law: Of the steps as they were computed.
        states: What was stored.
        x: Frames, (F + 1, B, *event).
        first: Number of the first step.
        eps: Of the precision in units of which equations are judged.
    """
    half = states.rounding_at(x).to(x)
    pushed = half.clone()
    if states.phase_space:  # noise is told by velocities
        pushed[:, :, 0] = 0.0
    before, after = x[:-1].flatten(0, 1), x[1:].flatten(0, 1)
    early, late = pushed[:-1].flatten(0, 1), pushed[1:].flatten(0, 1)
    inner = law.innovations(before, after, first)
    a = (law.innovations(before + early, after, first).z - inner.z).double()
    b = (law.innovations(before, after + late, first).z - inner.z).double()
    if inner.gap is None or inner.scale is None:
        return inner, a, b
    off = torch.zeros_like(inner.gap)
    for j in range(2 if states.phase_space else 1):  # positions, then velocities
        some = torch.zeros_like(half)
        part = (slice(None), slice(None), j) if states.phase_space else ...
        some[part] = half[part]
        for y in (
            law.innovations(before + some[:-1].flatten(0, 1), after, first),
            law.innovations(before, after + some[1:].flatten(0, 1), first),
        ):
            assert y.gap is not None
            off = off + (y.gap - inner.gap).abs()
    return replace(inner, scale=inner.scale + 4 * off / (UNITS * eps)), a, b


def rounded_law(law: StepLaw, states: StoredStates) -> StepLaw:
    """Return a law with the rounding of what was stored in it, where that matters.

    Args:
        law: Of the steps as they were computed.
        states: What was stored.

    Raises:
        ValueError: If too few digits were kept, or the law takes none that were cut.
    """
    if not were_cut(states):
        return law
    size, half, equations = _relative_rounding(law, states)
    if size <= _NONE and not equations:
        return law
    # the noise of a step is half/size
    enough = _ENOUGH if law.by_coordinate else _NONE
    decimals = max(0, math.ceil(-math.log10(2 * enough * half / max(size, 1e-300))))
    cure = f"store them to {decimals} decimals, or in single precision"
    if size > _MOST:
        raise ValueError(
            f"states are stored to ±{half:.2g}, which is {size:.2g} of the noise of a step, and "
            f"steps say more of rounding than of noise; {cure}."
        )
    if not law.by_coordinate:
        raise ValueError(
            f"states are stored to ±{half:.2g}, which is {size:.2g} of the noise of a step, and "
            f"rounding is in the law of single steps with a noise for each coordinate alone, not "
            f"in that of {law.name}; {cure}."
        )
    return RoundedLaw(law, states)


def _relative_rounding(law: StepLaw, states: StoredStates) -> tuple[float, float, bool]:
    """Return half a digit in units of a step's noise, its median; itself; are there equations."""
    steps = states.shape[0] - 1
    sizes, halves, equations = [], [], False
    law.calibrate(states, 0)
    with torch.no_grad():
        for i in sorted(set(torch.linspace(0, steps - 1, min(steps, _PILOT)).long().tolist())):
            x = states.block(i, i + 2)
            half = states.rounding_at(x[1])
            if law.remembers and not law.by_coordinate:
                x = states.block(i, min(i + 4, steps + 1))  # the first may tell nothing yet
                inner, _ = law.along(x, i, None) if law.starts_anywhere or i == 0 else (None, 0)
            else:
                inner = law.innovations(x[0], x[1], i)
            if inner is None:
                continue
            equations = equations or (inner.gap is not None and inner.gap.shape[1] > 0)
            if inner.z.shape[1] == 0:
                continue
            log_scale = inner.log_scale if inner.judged is None else inner.log_scale[inner.judged]
            if len(log_scale):
                one = half[:, 1] if states.phase_space else half
                scale = float((log_scale / inner.z.shape[1]).exp().median())
                sizes.append(float(one.median()) / max(scale, 1e-300))
                halves.append(float(one.median()))
    if not sizes:
        return 0.0, 0.0, equations
    k = sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2]
    return sizes[k], halves[k], equations
