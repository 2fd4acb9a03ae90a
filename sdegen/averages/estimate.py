"""The estimate of an average as it grows: which level is begun with, sampled, and added next."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sdegen.averages.allocation import (
    Error,
    decay,
    error_of,
    first_level,
    least_cost,
    targets,
    variances,
)
from sdegen.averages.result import Expectation
from sdegen.averages.sampling import Level, Problem, Sampler, Samples
from sdegen.averages.statistics import Statistics
from sdegen.averages.validation import Accuracy
from sdegen.core.errors import AccuracyWarning, NonFiniteError, SolverError

_PILOT = 256  # samples of a level that show its mean and variance for the first time
_PILOT_OF_FINER = 64  # of levels added later, whose variance the coarser ones bound from below
_GROWTH = 8  # times as many samples of a level, at most, before its variance is looked at again
_SHARE = 0.15  # of the tolerance, for the bias, where the levels allow it
_FINEST = 22  # 2²² steps
_IN_VAIN = 6  # levels after which f is as wide as before, and no nearer to the coarser one
_STEPS_TO_STAY = 16  # 2¹⁶ steps, by which trajectories must be finite
_FAR = 10.0  # times farther out than any end of finer steps: exploded
_ROUNDINGS = 100.0  # of f in the state's dtype: what a tolerance must be above
_OF_STEPS = 2.0  # the same over √steps: each step rounds, and finer levels then differ more
_SLOW = 0.9  # a variance that falls more slowly than dt to this power is told of
_UNSEEN = 16_384  # samples of the first level where f has shown one value alone
_EARLIER = "Take an earlier t, or a drift that brings trajectories back."


class Cut(Exception):
    """Ends an estimate on Ctrl-C; never seen outside."""


class Estimate:
    """What is known of an average.

    Args:
        sampler: Draws samples of levels.
        problem: What is averaged.
        wanted: What is asked of the interval.
        on_plan: Called with the drift evaluations that are expected from here on.

    Attributes:
        first: Number of the first level, 2^first steps.
        last: That of the finest.
        begun: Whether the pilot is over.
    """

    def __init__(
        self,
        sampler: Sampler,
        problem: Problem,
        wanted: Accuracy,
        on_plan: Callable[[float], None],
    ) -> None:
        self._sampler, self._problem, self._wanted = sampler, problem, wanted
        self._on_plan = on_plan
        self.first: int = 0
        self.last: int = 0
        self.begun: bool = False

    def run(self) -> None:
        """Sample until the interval is as narrow as was asked."""
        self._begin(max(self._pilot(), self._problem.least))
        if (unknown := self._below_rounding(self.last)) is not None:
            raise ValueError(unknown)
        while True:
            if (finer := self._exploded()) is not None:
                self._begin(finer)
                continue
            if (more := self._unseen()) > 0:
                self._draw({_alone(self.first): more})
                continue
            error = self._error()
            if self._half_width(error) <= self._wanted.tolerance:
                break
            self._advance(error)
        self._warn_slow()
        self._warn_one_value()

    def result(self) -> Expectation:
        """Return the average as it is known now."""
        error, levels, shown = self._error(), self._levels(), self._shown()
        counts = [s.value.count for s in shown]
        costs = [n * self._sampler.cost(level) for n, level in zip(counts, levels, strict=True)]

        def numbers(values: Iterable[float]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.float64)

        return Expectation(
            mean=math.fsum(s.value.mean for s in shown),
            half_width=self._half_width(error),
            confidence=self._wanted.confidence,
            standard_error=error.standard_error,
            bias=error.bias,
            steps=torch.tensor([level.steps for level in levels]),
            samples=torch.tensor(counts),
            means=numbers(s.value.mean for s in shown),
            variances=numbers(s.value.variance for s in shown),
            costs=torch.tensor(costs),
            evaluations=self._sampler.evaluations,
            variance_order=decay(shown[1:])[0],
            weak_order=error.order,
            coupling=self._problem.coupling.name,
            seed=self._problem.seed,
        )

    def reached(self) -> str:
        """Return how wide the interval is, in words."""
        if not self.begun:
            return "and no level is known yet"
        return (
            f"and the half width is {self._half_width(self._error()):.2g}, above the tolerance "
            f"{self._wanted.tolerance:g}"
        )

    def _pilot(self) -> int:
        """Return the number of the level to begin with."""
        in_vain = 0
        for top in range(1, _FINEST + 1):
            self._draw({_pair(top): _PILOT})
            pairs = [self._sampler.levels[_pair(k)] for k in range(1, top + 1)]
            costs = [
                (self._sampler.cost(_alone(k - 1)), self._sampler.cost(_pair(k)))
                for k in range(1, top + 1)
            ]
            s = first_level(pairs, costs)
            if s <= top - 2:
                return s
            lost = pairs[-1].lost_fine
            if lost and top >= _STEPS_TO_STAY:
                break
            in_vain = in_vain + 1 if _is_settled(pairs[-1]) else 0
            if in_vain > _IN_VAIN:
                return top - _IN_VAIN
        raise NonFiniteError(
            f"{pairs[-1].lost_fine} of {_PILOT} trajectories are not finite after 2**{top} steps, "
            f"as after fewer: the solution may explode before t. {_EARLIER}"
        )

    def _begin(self, first: int) -> None:
        """Begin with a level, and two finer ones at least."""
        self.first = first
        self.last = max(self.last, first + 2)
        self.begun = False
        if self.last > _FINEST:
            raise NonFiniteError(
                f"trajectories are lost or far out after 2**{first - 1} steps too. {_EARLIER}"
            )
        fresh = [level for level in self._levels() if level not in self._sampler.levels]
        self._draw(dict.fromkeys(fresh, _PILOT))
        self.begun = True

    def _exploded(self) -> int | None:
        """Return a finer level to begin with where steps of the first ones explode; else None."""
        samples = self._shown()
        for i, s in reversed(list(enumerate(samples))):
            if s.lost_fine:
                return self.first + i + 1
            if s.lost_coarse:
                return self.first + i
        alone, pair = samples[0], samples[1]
        farthest = _FAR * pair.fine.largest
        lonely = alone.value.largest > farthest and _is_of_one(alone.value)
        if pair.fine.variance > 0 and (lonely or pair.coarse.largest > farthest):
            return self.first + 1
        return None

    def _unseen(self) -> int:
        """Return how many more samples may show that f is not one number, where it seems so."""
        if not self._is_one_value():
            return 0
        count = self._sampler.levels[_alone(self.first)].value.count
        return min(_UNSEEN, _GROWTH * count) - count

    def _is_one_value(self) -> bool:
        """Return whether f of random states is one number, as far as it was looked at."""
        return self._sampler.is_random and all(s.fine.variance == 0 for s in self._shown())

    def _advance(self, error: Error) -> None:
        """Draw the samples that are missing, or begin a finer level."""
        tolerance, z = self._wanted.tolerance, self._wanted.quantile
        if error.sure_bias > 0.5 * tolerance:
            return self._refine()
        if self._fill((tolerance - min(error.bias, _SHARE * tolerance)) / z):
            return None
        # the bias is more than its share
        if error.sure_bias < 0.5 * error.bias:  # as far as few samples tell: more of them
            level = self._levels()[error.bias_from]
            self._draw({level: self._sampler.levels[level].value.count})
            return None
        # whichever is cheaper, more samples or a finer level
        shown, costs = self._shown(), self._costs()
        v = variances(shown)
        stay = finer = math.inf
        if error.bias < tolerance:
            stay = least_cost(v, costs, (tolerance - error.bias) / z)
        left = error.bias / 2**error.order
        if left < tolerance:
            next_v = v[-1] * 2 ** -max(0.0, min(4.0, decay(shown[1:])[0]))
            cost = self._sampler.cost(_pair(self.last + 1))
            finer = least_cost([*v, next_v], [*costs, cost], (tolerance - left) / z)
        if stay > finer or error.bias >= tolerance:
            return self._refine()
        self._fill((tolerance - error.bias) / z)
        return None

    def _fill(self, standard_error: float) -> bool:
        """Draw what is missing to a standard error; return False if nothing is."""
        levels, shown = self._levels(), self._shown()
        wanted = targets(variances(shown), self._costs(), standard_error)
        more: dict[Level, int] = {}
        left = 0.0
        for level, s, n in zip(levels, shown, wanted, strict=True):
            if n > s.value.count:
                more[level] = min(n, _GROWTH * s.value.count) - s.value.count
                left += (n - s.value.count) * self._sampler.cost(level)
        self._on_plan(left)
        if more:
            self._draw(more)
        return bool(more)

    def _refine(self) -> None:
        """Add a finer level."""
        if self.last >= _FINEST:
            raise SolverError(
                f"the bias is {self._error().bias:.2g} at 2**{_FINEST} steps, and the tolerance "
                f"{self._wanted.tolerance:g}: ask for a larger tolerance, or an earlier t.",
                self.result(),
            )
        if (unknown := self._below_rounding(self.last + 1)) is not None:
            raise SolverError(unknown, self.result())
        finest = _pair(self.last + 1)
        if finest not in self._sampler.levels:
            self._draw({finest: _PILOT_OF_FINER})
        self.last += 1

    def _draw(self, wanted: dict[Level, int]) -> None:
        """Draw samples; leave on Ctrl-C."""
        if not self._sampler.draw(list(wanted.items())):
            raise Cut

    def _levels(self) -> list[Level]:
        """Return the levels of the estimate."""
        return [_alone(self.first), *map(_pair, range(self.first + 1, self.last + 1))]

    def _shown(self) -> list[Samples]:
        """Return what they have shown."""
        return [self._sampler.levels[level] for level in self._levels()]

    def _costs(self) -> list[float]:
        """Return the drift evaluations of a sample of each."""
        return [self._sampler.cost(level) for level in self._levels()]

    def _error(self) -> Error:
        """Return what is known of the error."""
        return error_of(self._shown(), self._problem.coupling.order)

    def _half_width(self, error: Error) -> float:
        """Return that of the interval."""
        return self._wanted.quantile * error.standard_error + error.bias

    def _below_rounding(self, level: int) -> str | None:
        """Return why the dtype of the states does not resolve the tolerance; None if it does.

        Args:
            level: Number of the finest level, of 2^level steps.
        """
        dtype, f = self._problem.example.dtype, self._shown()[-1].fine
        size = math.sqrt(f.variance + f.mean**2)
        roundings = max(_ROUNDINGS, _OF_STEPS * 2 ** (level / 2))
        least = roundings * torch.finfo(dtype).eps * size
        if self._wanted.tolerance >= least:
            return None
        known = (
            f"tolerance is {self._wanted.tolerance:g}, but f is of size {size:.3g}, which {dtype} "
            f"knows to about {least:.1g} after 2**{level} steps"
        )
        if dtype == torch.float64:
            return f"{known}: ask for a larger tolerance."
        return f"{known}: pass x0.double(), or ask for a larger tolerance."

    def _warn_one_value(self) -> None:
        """Warn where all samples of f are one number: it may be rarely another one."""
        if not self._is_one_value():
            return
        shown = self._shown()[0].value
        warnings.warn(
            f"f is {shown.mean:g} at the ends of all {shown.count} trajectories: what happens to "
            "fewer of them was not seen, and is not in the half width. If f is a condition that "
            "rarely holds, take a smooth f in its place, which is not flat where they end.",
            AccuracyWarning,
            stacklevel=4,
        )

    def _warn_slow(self) -> None:
        """Warn where the variance falls more slowly than the cost of a step grows."""
        slope, error = decay(self._shown()[1:])
        if slope + 2 * error < _SLOW:
            warnings.warn(
                f"the variance of f between {2**self.last} and {2 ** (self.last - 1)} steps falls "
                f"as dt^{slope:.2f} ± {error:.2f}, more slowly than steps grow in number: the "
                "interval holds, but costs more than tolerance⁻². Take an f without jumps, such "
                "as a smoothed one, or an earlier t where trajectories part exponentially.",
                AccuracyWarning,
                stacklevel=4,
            )


def _alone(number: int) -> Level:
    """Return the level of 2^number steps, sampled alone."""
    return Level(2**number, paired=False)


def _pair(number: int) -> Level:
    """Return the differences of 2^number and half as many steps."""
    return Level(2**number, paired=True)


def _is_settled(pair: Samples) -> bool:
    """Return whether f is as wide after a number of steps as after half as many."""
    widths = pair.coarse.variance, pair.fine.variance
    return not pair.lost_fine and max(widths) <= 2 * min(widths)


def _is_of_one(s: Statistics) -> bool:
    """Return whether one sample makes most of a variance."""
    return s.kurtosis > 0.5 * s.count
