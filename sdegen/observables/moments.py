"""Moments of an ensemble at the times of a run: means, covariances and their standard errors.

Means and co-moments of blocks merge by the differences of their means, and no large numbers are
subtracted: for sets a and b of pairs (x, y), with C = Σ (x − x̄)(y − ȳ) and n = n_a + n_b,

    x̄ = x̄_a + (x̄_b − x̄_a) n_b/n,      C = C_a + C_b + (x̄_b − x̄_a)(ȳ_b − ȳ_a) n_a n_b/n

so that the relative error of a variance stays near the machine's precision times (1 + x̄²/var)^½
log n. Everything is in double precision. Standard errors are those of independent trajectories.

Reference:
    Chan, Golub and LeVeque 1983, The American Statistician 37, 242, eq. (2.1).
"""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.observables.base import Accumulator, AtTimes, Block, Observable, Partial, pooled

_WIDEST = 64


@dataclass(frozen=True, eq=False)
class MomentEstimate:
    """Mean and covariance at each time.

    Args:
        times: Shape (T,).
        count: Trajectories.
        mean: Shape (T, *event).
        variance: Unbiased, shape (T, *event).
        covariance: Unbiased, of the flattened event, shape (T, d, d); None if not asked for.
    """

    times: Float[Tensor, " T"]
    count: int
    mean: Float[Tensor, "T *event"]
    variance: Float[Tensor, "T *event"]
    covariance: Float[Tensor, "T d d"] | None

    @property
    def std(self) -> Float[Tensor, "T *event"]:
        """√variance."""
        return self.variance.sqrt()

    @property
    def mean_error(self) -> Float[Tensor, "T *event"]:
        """Standard error of the mean, √(variance/n)."""
        return (self.variance / self.count).sqrt()


@dataclass(frozen=True)
class Moments(Observable):
    """Mean, variance and covariance at each of the times.

    Args:
        covariance: Whether the whole matrix is accumulated; None for events of at most 64 numbers.
        name: What the result is called.
        unwrapped: Whether a periodic coordinate is taken on the line, with its turns: from one
            start, its variance is then the spread of the displacement.
    """

    covariance: bool | None = None
    name: str = "moments"
    unwrapped: bool = field(default=False, kw_only=True)

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator of sums at each time."""
        return AtTimes(self._sums, counts=True)

    def _sums(self, k: int, x: State) -> Partial:
        x = x.double()
        mean = x.mean(0)
        gap = (x - mean).flatten(1)
        d = gap.shape[1]
        if d > 1 and (d <= _WIDEST if self.covariance is None else self.covariance):
            product = gap.T @ gap
            square = product.diagonal().reshape(mean.shape)
            return {"mean": mean, "square": square, "product": product}
        square = (gap * gap).sum(0).reshape(mean.shape)
        only = {"product": square.reshape(1, 1)} if d == 1 and self.covariance is not False else {}
        return {"mean": mean, "square": square} | only

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge by Chan's formula, all times at once."""
        merged, gap, weight = pooled(left, right)
        merged["square"] = left["square"] + right["square"] + gap**2 * weight
        if "product" in left:
            flat = gap.flatten(1)
            outer = flat[:, :, None] * flat[:, None, :]
            merged["product"] = left["product"] + right["product"] + outer * weight
        return merged

    def result(self, total: Partial, times: Tensor) -> MomentEstimate:
        """Return mean, variance and covariance; those of a single trajectory are NaN."""
        n = int(total["n"])
        less = n - 1 if n > 1 else float("nan")
        product = total["product"] / less if "product" in total else None
        return MomentEstimate(times, n, total["mean"], total["square"] / less, product)
