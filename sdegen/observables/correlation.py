"""Correlations in time of an ensemble, merged as the co-moments of `moments` are."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count, check_flag
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, AtTimes, Block, Observable, Partial, pooled


@dataclass(frozen=True, eq=False)
class Correlation(Labelled):
    """C(τ) = Cov(X_s, X_{s+τ}) for each coordinate, over the ensemble.

    Args:
        lags: τ, shape (K,).
        covariance: C(τ), unbiased, shape (K, *event).
        error: Its standard error, shape (K, *event).
        coefficient: C(τ)/√(Var X_s Var X_{s+τ}), shape (K, *event); NaN where all X_s are equal.
        count: Trajectories.
    """

    lags: Float[Tensor, " K"]
    covariance: Float[Tensor, "K *event"]
    error: Float[Tensor, "K *event"]
    coefficient: Float[Tensor, "K *event"]
    count: int


@dataclass(frozen=True)
class TimeCorrelation(Observable):
    """Correlation of each coordinate at one time with itself at later times, shape (K, *event).

        C(τ) = Cov(X_s, X_{s+τ}),     ρ(τ) = C(τ)/√(Var X_s Var X_{s+τ})

    Args:
        origin: Index into times of s; the lags are times[origin:] − times[origin].
        name: What the result is called.
        unwrapped: Whether a periodic coordinate is taken on the line, with its turns.

    Raises:
        TypeError: If origin is no int, or unwrapped neither True nor False.
        ValueError: If origin is negative.

    Example:
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.tensor([[1.0], [3.0]])
        >>> asked = [sg.TimeCorrelation()]
        >>> run = sg.run_ensemble(decay, x0, [0.0, 0.5, 1.0], trajectories=2, observables=asked)
        >>> run.observables["correlation"].covariance.flatten().tolist()  # 2, times ½ and ¼
        [2.0, 1.0, 0.5]
    """

    origin: int = 0
    name: str = "correlation"
    unwrapped: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_count("origin", self.origin, least=0)
        check_flag("unwrapped", self.unwrapped)

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator of products at each later time."""
        if self.origin >= len(block.times):
            raise ValueError(
                f"origin must be below {len(block.times)}, the number of times, but is "
                f"{self.origin}."
            )
        start: Tensor | None = None  # the states at the origin, less their mean

        def products(k: int, x: State) -> Partial:
            nonlocal start
            if k < self.origin:
                return {}
            x = x.double()
            mean = x.mean(0)
            gap = x - mean
            start = gap if start is None else start
            pairs = gap * start
            return {
                "mean": mean,
                "square": (gap * gap).sum(0),
                "product": pairs.sum(0),
                "spread": (pairs - pairs.mean(0)).square_().sum(0),
            }

        return AtTimes(products, counts=True)

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge by Chan's formula, means, squares and products, and the spread of products."""
        merged, gap, weight = pooled(left, right)
        between = right["product"] / right["n"] - left["product"] / left["n"]
        added = {"square": gap**2, "product": gap * gap[:1], "spread": between**2}
        return merged | {key: left[key] + right[key] + add * weight for key, add in added.items()}

    def result(self, total: Partial, times: Tensor) -> Correlation:
        """Return covariance, error and coefficient; those of a single trajectory are NaN."""
        n = int(total["n"])
        less = n - 1 if n > 1 else float("nan")
        later = times[self.origin :]
        square, product = total["square"], total["product"]
        return Correlation(
            lags=(later - later[0]).abs(),
            covariance=product / less,
            error=(total["spread"] / (n * less)).sqrt(),
            coefficient=product / (square[:1] * square).sqrt(),
            count=n,
        )
