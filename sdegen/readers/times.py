"""Times: when stored states were kept, and how far apart."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.checks import check_number
from sdegen.core.requests import as_number, as_time_grid

_EVEN = 1e-6  # of a spacing, by which two may differ
_ROUNDED = 3e-7  # of the largest time, by which times in float32 are rounded
_MOST_CUT = 0.05  # of a spacing, that times of a text may be rounded by
_MOST_ROUNDED = 0.01  # of a spacing: no rounding that is larger is let pass


def uneven_interval(times: Tensor, dt: float) -> int | None:
    """Return the first interval that is not dt, but for the rounding of times; None if all are.

    Args:
        times: Shape (T,), float64.
        dt: What all intervals should be.
    """
    rounding = (_ROUNDED * times.abs().max()).clamp(max=_MOST_ROUNDED * abs(dt))
    apart = ~((times.diff() - dt).abs() <= _EVEN * abs(dt) + rounding)
    return int(apart.nonzero()[0]) if bool(apart.any()) else None


def mean_spacing(times: Tensor) -> float:
    """Return the mean interval of times, negative where they run backwards."""
    return float((times[-1] - times[0]) / (len(times) - 1))


def even_spacing(times: Tensor) -> float:
    """Return the interval of even times.

    Args:
        times: Shape (T,), float64.

    Raises:
        ValueError: If they are not even; naming the interval.
    """
    dt = mean_spacing(times)
    k = uneven_interval(times, dt)
    if k is not None:
        # which of two kinds of interval is the odd one, the mean does not tell: the median does
        usual = float(times.diff().median())
        j = uneven_interval(times, usual)
        k = k if j is None else j
        raise ValueError(
            f"times are not evenly spaced: times[{k + 1}] − times[{k}] = "
            f"{float(times[k + 1] - times[k]):.6g}, and most intervals are {usual:.6g}; take the "
            "part of the states that is, or read each interval of times itself."
        )
    return dt


def times_of(
    count: int,
    dt: object,
    times: object,
    own: Tensor | None,
    *,
    half: float = 0.0,
    where: str = "source",
) -> Tensor:
    """Return the times of frames.

    Args:
        count: How many frames there are.
        dt: Time from one to the next; None where times are known.
        times: Times that were passed, shape (T,), or None.
        own: Times that the source has, shape (T,), or None.
        half: How far these may be from what a text rounded.
        where: What the source is.

    Returns:
        Shape (T,), float64, strictly monotone, on the CPU.

    Raises:
        TypeError: If these are no numbers.
        ValueError: If there are none, they contradict each other, or there is not one of them for
            each frame.
    """
    step = None if dt is None else _step(dt)
    if times is not None:
        grid = as_time_grid(times)
        name, cure = "times", "leave one of them out"
    elif own is not None:
        grid = as_time_grid(own, f"times of {where}")
        name = f"times of {where}"
        cure = "leave dt out, or say the unit of these times, units={'time': …}"
    elif step is not None:
        return step * torch.arange(count, dtype=torch.float64)
    else:
        raise ValueError(
            f"{where} does not say when its states were stored; pass dt=, the time from one frame "
            "to the next, or times=."
        )
    if len(grid) != count:
        raise ValueError(
            f"{name} has {len(grid)} entries, but there are {count} frames; pass one for each "
            "frame, and layout= if time is not the first axis."
        )
    if step is not None and times is None:
        even = grid[0] + step * torch.arange(count, dtype=torch.float64)
        if half <= _MOST_CUT * step and bool(((grid - even).abs() <= 2 * half).all()):
            return even
    k = None if step is None else uneven_interval(grid, step)
    if k is not None:
        raise ValueError(
            f"dt = {step:.6g} contradicts the {name}: from {k} to {k + 1} they advance by "
            f"{float(grid[k + 1] - grid[k]):.6g}; {cure}."
        )
    return grid


def _step(dt: object) -> float:
    """Return dt as a float."""
    step = as_number("dt", dt)
    check_number("dt", step)
    if not 0 < step < float("inf"):
        raise ValueError(
            f"dt must be finite and > 0, but is {step:g}; pass times= where time runs backwards."
        )
    return step


def too_few(count: int) -> str:
    """Return why so few frames are refused."""
    return (
        f"there are {count} frames, and a verdict on steps needs two at least; store more of them."
    )


def snapped(times: Tensor, half: float) -> Tensor:
    """Return times of a text as they were before it rounded them, if they are even but for that.

    Args:
        times: Shape (T,), float64.
        half: Half of a unit of their last digit.
    """
    if len(times) < 2 or half == 0:
        return times
    dt = mean_spacing(times)
    even = times[0] + dt * torch.arange(len(times), dtype=torch.float64)
    known = half <= _MOST_CUT * abs(dt)  # else 0, 1, 2, 4 would be even times that were rounded
    return even if known and bool(((times - even).abs() <= 2 * half).all()) else times


def check_even_steps(steps: Tensor, where: str) -> None:
    """Refuse frames that were not stored every so many steps.

    Args:
        steps: Number of the step of each frame, shape (T,).
        where: What they are of.

    Raises:
        ValueError: Naming the frames.
    """
    gaps = steps.diff()
    usual = gaps.median() if len(gaps) else 1
    apart = (gaps != usual) | (gaps == 0)
    if bool(apart.any()):
        k = int(apart.nonzero()[0])
        raise ValueError(
            f"frames {k} and {k + 1} of {where} are of steps {int(steps[k])} and "
            f"{int(steps[k + 1])}, and most are {int(usual)} steps apart, so that no dt is that "
            "of all; remove frames that were written twice, or pass times=, that of each."
        )
