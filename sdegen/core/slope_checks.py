"""The check of derivatives: slopes against differences, before a run.

The slope is integrated along a path through the states and compared with the differences of the
function itself: Σ|ΔD − D′Δx| ≤ Σ|ΔD|/10. A staircase (a table looked up without interpolation) has
no slope between its steps, and a function of which autograd sees a part has too small a one;
neither passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.channels import directional
from sdegen.core.derivatives import (
    GOLDEN,
    MIXED_DIVERGENCE,
    STEP,
    diffusivity,
    in_double,
    is_per_trajectory,
    value_and_slope,
)
from sdegen.core.shapes import State, Time, Values, as_column

if TYPE_CHECKING:
    from sdegen.core.sde import SDE

_INTERVALS, _FINE = 256, 2**14  # of a path; the second where the first disagrees
_NUMBERS = 2**21  # of a path at once
_CURE = (
    "If a part of G is hidden from autograd (.detach(), no_grad, NumPy), take it out; if G jumps, "
    "make it continuous, such as by interpolation; or add the drift of the interpretation to f "
    "yourself, with interpretation='ito'."
)
_PART = 0.01  # of a variation, along a path or over a short step, that slopes may miss


@torch.no_grad()
def check_slope(function: Values, slope: Values, ends: State, *, name: str, cure: str) -> None:
    """Refuse a slope that is not that of the function; asked in float64 where they take it.

    Args:
        function: Value at states (batch, *event): diagonal, or one for each trajectory.
        slope: Its derivative, x's shape, as a run will use it.
        ends: Two states, shape (2, *event); compared on the path between them.
        name: What is differentiated, such as "g²/2".
        cure: What to do about it.

    Raises:
        ValueError: Where the slopes along the path do not add up to the function's change.
    """

    def both(x: Tensor, middle: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = function(x)
        predicted = (slope(middle) * step).flatten(1)
        if is_per_trajectory(value, x):
            change = value.flatten(1).expand(len(x), 1).diff(dim=0)
            return value, change, predicted.sum(1)[:, None]
        return value, value.expand_as(x).diff(dim=0).flatten(1), predicted

    _refuse_missed(both, in_double(ends, function, slope), ends, name, cure)


@torch.no_grad()
def check_alone(noise: Values, ends: State) -> None:
    """Refuse noise whose G of one trajectory depends on the others, as in a mean field.

    What moves a trajectory by its own Wiener processes alone would miss theirs.

    Args:
        noise: g or G of states (batch, *event).
        ends: Two states, shape (2, *event).

    Raises:
        ValueError: If G is another for a state among others than alone.
    """
    try:
        among, alone = noise(ends), noise(ends[:1])
    except Exception:  # what takes all trajectories alone holds one number for each of them
        return
    if len(among) != len(ends) or among.shape[1:] != alone.shape[1:]:
        return
    gap = (among[:1] - alone).abs().max()
    if bool(gap > 1e3 * torch.finfo(among.dtype).eps * among.abs().max()):
        raise ValueError(
            "the noise of a trajectory depends on the others (a mean field), and derivatives of G "
            "along the noise of all are not built, so that an order would be lost in silence: "
            "take EulerMaruyama(), with interpretation='ito'."
        )


@torch.no_grad()
def check_directional(matrix: Values, ends: State, *, cure: str = _CURE) -> None:
    """Refuse a G whose derivative along a direction is not that of the function.

    Args:
        matrix: G of states (batch, *event), shape (batch or 1, *event, m).
        ends: Two states, shape (2, *event); compared on the path between them.
        cure: What to do about it.

    Raises:
        ValueError: Where the derivatives along the path do not add up to the change of G.
    """
    check_alone(matrix, ends)

    def both(x: Tensor, middle: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = matrix(x)
        value = value.expand(len(x), *value.shape[1:])
        return value, value.diff(dim=0).flatten(1), directional(matrix, middle, step)[1].flatten(1)

    _refuse_missed(both, in_double(ends, matrix), ends, "G", cure)


def check_divergence(sde: SDE, ends: State, t: Time) -> None:
    """Refuse a ∇·(G Gᵀ) that is not that of G, where a reversal needs it.

    Args:
        sde: Dynamics with multiplicative noise, diagonal or of channels.
        ends: Two states, shape (2, *event); compared on the path between them.
        t: Time, 0-d.

    Raises:
        ValueError: If derivatives do not add up to changes, or a diagonal g mixes coordinates.
    """
    t = t.clone() if t.is_inference() else t
    cure = (
        "A reversal needs ∇·(G Gᵀ): if a part of G is hidden from autograd (.detach(), no_grad, "
        "NumPy), take it out; if G jumps, make it continuous, such as by interpolation."
    )
    if sde.channels is not None:
        check_directional(lambda y: sde.diffusion(y, t), ends, cure=cure)
        return
    d = diffusivity(lambda y: sde.diffusion(y, t))
    if mixes_coordinates(d, ends):
        name = type(sde).__name__
        raise ValueError(MIXED_DIVERGENCE.format(name=name, d=ends[0].numel()))
    check_slope(d, lambda y: 0.5 * sde.covariance_divergence(y, t), ends, name="g²/2", cure=cure)


def _refuse_missed(
    both: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    ends: State,
    given: State,
    name: str,
    cure: str,
) -> None:
    """Refuse what misses its change on a coarse path and on a fine one.

    Args:
        both: Of the nodes of a path, the middles and the steps: the value at the nodes, its
            changes over the steps, and those that derivatives predict, shape (steps, numbers).
        ends: Two states, shape (2, *event).
        given: Those as they were given, in their own precision.
        name: What is differentiated.
        cure: What to do about it.
    """
    most = max(2, _NUMBERS // max(1, ends[0].numel()))
    coarse, fine = min(_INTERVALS, most), min(_FINE, most)
    missed = _missed(both, ends, coarse, torch.finfo(given.dtype).eps)
    missed = missed and _missed(both, ends, fine, torch.finfo(ends.dtype).eps)
    if missed is None:
        return
    at, change, sum_of_slopes = missed
    raise ValueError(
        f"the derivative of {name} is not that of the function: over a short way at x = {at:.4g} "
        f"it changes by {change:.4g}, but its derivative adds up to {sum_of_slopes:.4g}. {cure}"
    )


def _missed(
    both: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    ends: State,
    intervals: int,
    eps: float,
) -> tuple[float, float, float] | None:
    """Return where the slopes miss most of the change, with both; None if they add up."""
    share = torch.linspace(0, 1, intervals + 1, dtype=ends.dtype, device=ends.device)
    x = torch.lerp(ends[:1], ends[1:], as_column(share, ends))
    middle, step = 0.5 * (x[1:] + x[:-1]), x[1:] - x[:-1]
    value, change, predicted = both(x, middle, step)
    known = torch.isfinite(change)
    change, predicted = torch.where(known, change, 0.0), torch.where(known, predicted, 0.0)
    gap = torch.where(torch.isfinite(predicted), (change - predicted).abs(), torch.inf)
    largest = torch.where(torch.isfinite(value), value.abs(), 0.0).max()
    rounding = 32 * eps * largest * change.numel()
    if float(gap.sum()) <= _PART * float(change.abs().sum()) + float(rounding):
        return None
    i, j = divmod(int(gap.argmax()), gap.shape[1])
    at = middle.flatten(1)[i, j if middle[0].numel() == gap.shape[1] else 0]
    return float(at), float(change[i, j]), float(predicted[i, j])


@torch.no_grad()
def mixes_coordinates(function: Values, ends: State) -> bool:
    """Return whether a component of a function changes with another coordinate than its own.

    Shifts half of the coordinates at a time, those whose number has a bit set or not: any two
    differ in one of the bits.

    Args:
        function: Value at states (batch, *event), x's shape; one number for each trajectory is
            no mixture.
        ends: Two states, shape (2, *event).
    """
    x = 0.5 * (ends[:1] + ends[1:])
    if is_per_trajectory(function(x), x):
        return False
    return mixes_at(function, x, (0.1 * (ends[1:] - ends[:1])).clamp(min=STEP[torch.float64][1]))


def mixes_at(function: Values, x: State, step: State) -> bool:
    """Return whether `mixes_coordinates` at some states, by steps of a given size; their shape."""
    value, d = function(x), x[0].numel()
    if d < 2:
        return False
    number = torch.arange(d, device=x.device).reshape(x.shape[1:])
    for bit in range((d - 1).bit_length()):
        for parity in (0, 1):
            shifted = (number >> bit) % 2 == parity
            moved = function(torch.where(shifted, x + step, x))
            still = torch.where(shifted, 0.0, (moved - value).expand_as(x).abs())
            scale = value.abs().max() + moved.abs().max()
            if bool((still > 1e3 * torch.finfo(x.dtype).eps * scale).any()):
                return True
    return False


def check_seen(function: Values, x: State, name: str) -> None:
    """Refuse a function that changes with x in a way that autograd does not see.

    Compares one derivative of Σ w_i f_i, in one direction, with its central difference, in float64
    where the function takes it. Differences over the step and over half of it tell how far the
    function is from straight, at a kink for instance; beside four times that, 1 % may be missed.

    Args:
        function: Of states, any shape that broadcasts to theirs.
        x: States, shape (batch, *event).
        name: What the caller calls it.

    Raises:
        ValueError: With both values.
    """
    if torch.is_inference_mode_enabled():
        return  # nothing that is made here could be differentiated; such a run asks for no more
    with torch.no_grad():
        x = in_double(x.detach(), function)
    # longer steps than for a slope: a network may compute in float32 whatever it is given
    relative, least = 2.0**-8 if x.dtype != torch.float64 else 2.0**-10, 2.0**-13
    number = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device)
    # no two weights alike, and none small: a derivative is missed where they are orthogonal to it
    weights, direction = (
        (0.5 + torch.frac(number * k)).reshape(x.shape).to(x.dtype) for k in (GOLDEN, GOLDEN**2)
    )
    # away from where the states are alike, or at a special place such as 0
    x = x + 0.01 * (0.1 + x.abs()) * weights

    def summed(y: State) -> Tensor:
        return (function(y).expand_as(y) * weights).sum()

    with torch.no_grad():
        step = (relative * x.abs()).clamp(min=least) * direction
        longer = 0.5 * float(summed(x + step) - summed(x - step))
        change = float(summed(x + 0.5 * step) - summed(x - 0.5 * step))
        size = float((function(x).expand_as(x).abs() * weights).sum())
        summed_and_slope = value_and_slope(summed, x)
    seen = 0.0 if summed_and_slope is None else float((summed_and_slope[1] * step).sum())
    rounding = 8 * torch.finfo(torch.float32).eps * size
    allowed = _PART * abs(change) + 4 * abs(change - longer) + rounding
    if abs(change - seen) > allowed:  # False for NaN, which others refuse
        raise ValueError(
            f"the {name} changes with x in a way that autograd does not see: over a short step "
            f"a weighted sum of it changes by {change:.4g}, but its derivative gives {seen:.4g}, "
            "so that gradients would be wrong. Take .detach(), no_grad and NumPy out of it."
        )
