"""The course of a run over time: the times that are asked for, and where its steps must end.

A step never crosses a time that is asked for, a jump of drift or diffusion that looks have met, or
a breakpoint that was passed. Beside a breakpoint steps begin, and end, a millionth of the run
long: what is too narrow for any look is met there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sdegen.core.errors import AccuracyWarning
from sdegen.fokker_planck.discretization.reader import Reader
from sdegen.fokker_planck.discretization.time_dependence import Looks

_NEAR = 1e-6  # of the run: how long a step beside a breakpoint is
# of an interval: nodes lie so far inside it, lest an end belongs to what comes next
_ASIDE = 1e-12
_ROUNDINGS = 4.0  # of a time: what lies so close to another is that one


@dataclass(frozen=True, eq=False)
class Course:
    """Times of a run, and what is known of the dynamics between them.

    Args:
        times: Times that are asked for, monotone, the start first.
        looks: What was seen of drift and diffusion; none where they are known not to change.
        breakpoints: Times at which something sudden happens, increasing.
    """

    times: tuple[float, ...]
    looks: tuple[Looks, ...]
    breakpoints: tuple[float, ...] = ()

    @property
    def steady(self) -> bool:
        """Whether drift and diffusion are known not to depend on time."""
        return not self.looks

    @property
    def isolated(self) -> float | None:
        """A time near which something was seen that is as narrow as looks are apart, if any.

        Between two breakpoints that are closer than that it is where it was said to be.
        """
        for looks in self.looks:
            t = looks.isolated
            if t is not None:
                apart = float(looks.times[2] - looks.times[0])
                if not any(abs(t - b) < apart for b in self.breakpoints):
                    return t
        return None

    def intervals(self, a: float, b: float, *, jumps: bool = True) -> list[tuple[float, float]]:
        """Return intervals between a and b whose ends no step crosses, in the sense of time."""
        rounding = _ROUNDINGS * np.finfo(np.float64).eps * max(abs(a), abs(b))
        inside = set(self.breakpoints)
        if jumps:
            inside.update(t for looks in self.looks for t in looks.jumps)
        ends = [a]
        for t in sorted((t for t in inside if min(a, b) < t < max(a, b)), reverse=b < a):
            if min(abs(t - ends[-1]), abs(t - b)) > rounding:
                ends.append(t)
        return list(zip(ends, [*ends[1:], b], strict=True))

    def still(self, a: float, b: float) -> bool:
        """Return whether nothing was seen to change between a and b."""
        return all(looks.still(a, b) for looks in self.looks) and not any(
            self._beside(a, b, end) for end in (a, b)
        )

    def hides(self, a: float, b: float) -> bool:
        """Return whether looks between a and b saw a change, and are dense enough to tell.

        A step whose nodes all answer alike has then stepped over it.
        """
        return self.looked(a, b) > 1 and not all(looks.still(a, b) for looks in self.looks)

    def looked(self, a: float, b: float) -> float:
        """Return how many looks lie between a and b."""
        looks = self.looks[0].times
        return abs(b - a) / float(looks[1] - looks[0])

    def longest(self, t: float, a: float, b: float) -> float:
        """Return the longest step from t in the interval from a to b."""
        most = min((looks.longest(t, b) for looks in self.looks), default=abs(b - t))
        near = _NEAR * abs(self.times[-1] - self.times[0])
        for end in (a, b):
            if self._beside(a, b, end):
                share = 1 if end == a else 2
                most = min(most, max(near, abs(t - end) / share))
        return most

    def plain(self, t: float, b: float) -> float:
        """Return how long the first plain interval from t towards b is: a step to begin with."""
        return min((looks.plain(t, b) for looks in self.looks), default=abs(b - t))

    def _beside(self, a: float, b: float, end: float) -> bool:
        """Return whether an end of an interval that holds looks is a breakpoint."""
        if end not in self.breakpoints:
            return False
        apart = min((float(looks.times[1] - looks.times[0]) for looks in self.looks), default=0.0)
        return abs(b - a) > apart


def warn_isolated(plan: Course, *, stacklevel: int = 3) -> None:
    """Warn where drift or diffusion change for so short a time that more of it may be missed."""
    t = plan.isolated
    if t is not None:
        apart = float(plan.looks[0].times[1] - plan.looks[0].times[0])
        warnings.warn(
            f"drift or diffusion change near t = {t:g} for about as long as looks at them are "
            f"apart, {apart:.2g}: what is as short elsewhere may be missed. Pass breakpoints=[…] "
            "with the times at which something begins or ends, or carry the density through that "
            "part in a run of its own, in which looks are closer.",
            AccuracyWarning,
            stacklevel=stacklevel,
        )


def inside(t: float, a: float, b: float) -> float:
    """Return a time moved off the ends of the interval that it belongs to, by next to nothing."""
    return all_inside([t], a, b)[0]


def all_inside(times: Sequence[float], a: float, b: float) -> list[float]:
    """Return the times of one interval, each as `inside` moves it."""
    off = max(_ASIDE * abs(b - a), _ROUNDINGS * np.finfo(np.float64).eps * max(abs(a), abs(b)))
    off = min(off, 0.25 * abs(b - a))
    low, high = min(a, b) + off, max(a, b) - off
    return [min(max(t, low), high) for t in times]


def course(reader: Reader, times: Tensor, breakpoints: Sequence[float] = ()) -> Course:
    """Look at the dynamics over the times of a run.

    Args:
        reader: Of the SDE.
        times: Times that are asked for.
        breakpoints: Times at which drift or diffusion do something sudden.

    Raises:
        ValueError: If a breakpoint is not finite.
    """
    ts = times.tolist()
    reader.unread()
    looks = [] if reader.autonomous else [reader.looks(ts[0], ts[-1])]
    return course_of(ts, looks, breakpoints)


def course_of(
    times: Sequence[float], looks: Sequence[Looks], breakpoints: Sequence[float]
) -> Course:
    """Return the course of what was looked at.

    Args:
        times: Times that are asked for.
        looks: What was seen of drift and diffusion, none where they do not depend on time.
        breakpoints: Times at which they do something sudden.

    Raises:
        ValueError: If a breakpoint is not finite.
    """
    breaks = sorted({float(t) for t in breakpoints})
    if not all(map(math.isfinite, breaks)):
        raise ValueError(f"breakpoints must be finite times, but are {breaks}.")
    return Course(tuple(times), tuple(looks), tuple(breaks))
