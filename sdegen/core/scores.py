"""Scores: any function (x, t) -> ∇ log p_t(x), and what one may prepare for a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from sdegen.core.shapes import ScoreFn, State, Time

ScoreAt = Callable[[State, int], State]
When = TypeVar("When")  # a time, or the index of one


@runtime_checkable
class PreparedScore(Protocol):
    """A score that knows how to prepare itself for a run: `model.score` does.

    Any function (x, t) -> ∇ log p_t(x) is a score. One that has `precompute` computes there what
    depends on the times alone; one that has `sde` is compared with the process that it is used
    for, and one that has `event_shape` tells the shape of a sample.
    """

    def __call__(self, x: State, t: Time) -> State:
        """∇ log p_t(x), same shape as x."""

    def precompute(self, times: Tensor) -> ScoreAt:
        """Return at(x, i) = score(x, times[i]).

        Args:
            times: Shape (n,), float64, on the CPU.
        """


@runtime_checkable
class RowScore(Protocol):
    """A score that may hold something for each trajectory, such as its label or condition."""

    @property
    def trajectories(self) -> int | None:
        """How many trajectories it holds something for; None: any number."""

    def of_rows(self, rows: slice | Tensor) -> ScoreFn:
        """Return the score of some trajectories: a slice, indices, or booleans."""


@runtime_checkable
class VarianceScore(Protocol):
    """A score whose model may have learned the variance of a reverse step too."""

    @property
    def tells_variance(self) -> bool:
        """Whether it has."""

    def with_fraction(self, x: State, t: Time) -> tuple[State, State]:
        """Return the score, and w of log Σ = w log b² + (1 − w) log b̃², both of x's shape."""


@runtime_checkable
class DenoisingScore(Protocol):
    """A score that tells x0 too, also where no signal is left and the score does not."""

    def x0(self, x: State, t: Time) -> State:
        """Return E[x0 | x_t], same shape as x."""


def check_tells_x0(score: object, name: str) -> None:
    """Refuse a score that tells no x0, in the name of what begins where no signal is left.

    Raises:
        ValueError: With what to pass.
    """
    if getattr(score, "x0", None) is None:
        raise ValueError(
            f"{name} begins where no signal is left, α = 0, and a score does not tell x0 there: "
            "pass one with a method x0(x, t) beside it, such as model.score, or the score of a "
            "GaussianMixture."
        )


def tells_variance(score: object) -> bool:
    """Return whether a score has a learned variance beside it."""
    return isinstance(score, VarianceScore) and score.tells_variance


def trajectories_of(score: object) -> int | None:
    """Return how many trajectories a score holds something for, one row each; None: any number."""
    return score.trajectories if isinstance(score, RowScore) else None


def score_of_rows(score: ScoreFn, rows: slice | Tensor) -> ScoreFn:
    """Return the score of some trajectories: the same where it holds nothing for each."""
    if isinstance(score, RowScore) and score.trajectories is not None:
        return score.of_rows(rows)
    return score


def along(score: ScoreFn, nodes: Tensor) -> ScoreAt:
    """Return a score at the nodes of a run: at(x, i) = score(x, nodes[i]).

    What depends on the times alone is computed here, once, by a `PreparedScore`; any other is
    asked with nodes[i].

    Args:
        score: ∇ log p_t(x).
        nodes: Shape (n,), float64, on the CPU.

    >>> at = along(lambda x, t: -x / t, torch.tensor([0.5, 0.25]))
    >>> at(torch.ones(1, 1), 1)
    tensor([[-4.]])
    """
    if isinstance(score, PreparedScore):
        return score.precompute(nodes)
    ts = nodes.unbind()
    return lambda x, i: score(x, ts[i])


class CallCounter:
    """Counts the calls of a function, so that a reported cost is what really happened."""

    def __init__(self) -> None:
        self.calls = 0

    def wrap_plain(
        self, function: Callable[[State, When], State]
    ) -> Callable[[State, When], State]:
        """Return a function; each call adds one to `calls`."""

        def counted(x: State, t: When) -> State:
            self.calls += 1
            return function(x, t)

        return counted

    def wrap(self, function: Callable[[State, When], State]) -> Callable[[State, When], State]:
        """Return the same function; each call adds one to `calls`."""
        counted = self.wrap_plain(function)
        if isinstance(function, PreparedScore | RowScore | VarianceScore | DenoisingScore):
            return _CountedScore(self, counted, function)  # type: ignore[arg-type, return-value]
        return counted


class _CountedScore:
    """A score that prepares itself, or holds something for each row, whose calls are counted."""

    def __init__(self, counter: CallCounter, counted: ScoreFn, score: ScoreFn) -> None:
        self._counter, self._counted, self._score = counter, counted, score
        if isinstance(score, DenoisingScore):
            self.x0 = counter.wrap_plain(score.x0)

    @property
    def trajectories(self) -> int | None:
        """How many trajectories the score holds something for."""
        return trajectories_of(self._score)

    @property
    def tells_variance(self) -> bool:
        """Whether the score has a learned variance beside it."""
        return tells_variance(self._score)

    def with_fraction(self, x: State, t: Time) -> tuple[State, State]:
        """Return the score and the fraction of a learned variance, by one call that is counted."""
        assert isinstance(self._score, VarianceScore)
        self._counter.calls += 1
        return self._score.with_fraction(x, t)

    def of_rows(self, rows: slice | Tensor) -> ScoreFn:
        """Return the counted score of some trajectories."""
        return self._counter.wrap(score_of_rows(self._score, rows))

    def __call__(self, x: State, t: Time) -> State:
        return self._counted(x, t)

    def precompute(self, times: Tensor) -> ScoreAt:
        """Return the prepared score, whose calls are counted."""
        return self._counter.wrap(along(self._score, times))
