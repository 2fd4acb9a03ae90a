"""Statistics of an ensemble at the times of a run: moments, histograms, correlations in time.

Means and co-moments of blocks merge by the differences of their means, and no large numbers are
subtracted: for sets a and b of pairs (x, y), with C = Σ (x − x̄)(y − ȳ) and n = n_a + n_b,

    x̄ = x̄_a + (x̄_b − x̄_a) n_b/n,      C = C_a + C_b + (x̄_b − x̄_a)(ȳ_b − ȳ_a) n_a n_b/n

so that the relative error of a variance stays near the machine's precision times (1 + x̄²/var)^½
log n. Everything is in double precision. Standard errors are those of independent trajectories.

Reference:
    Chan, Golub and LeVeque 1983, The American Statistician 37, 242, eq. (2.1).
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdegen.core.checks import check_count, check_finite
from sdegen.core.shapes import State
from sdegen.observables.base import Accumulator, Block, Observable, Partial

__all__ = [
    "Correlation",
    "Histogram",
    "HistogramCounts",
    "MomentEstimate",
    "Moments",
    "TimeCorrelation",
    "check_bins",
    "coordinate_of",
]

_WIDEST = 64


def coordinate_of(x: State, coordinate: int, name: str) -> Tensor:
    """One coordinate of the flattened event, shape (rows,).

    Raises:
        ValueError: If there is no such coordinate, naming the observable.
    """
    flat = x.flatten(1)
    if not 0 <= coordinate < flat.shape[1]:
        raise ValueError(
            f"observable {name!r} is of coordinate {coordinate}, but an event of shape "
            f"{tuple(x.shape[1:])} has coordinates 0 … {flat.shape[1] - 1}."
        )
    return flat[:, coordinate]


_MOST_BINS = 10**8  # a gigabyte for each of the times


def check_bins(of: str, low: float, high: float, name: str, count: int) -> None:
    """Refuses an interval that is empty, or cut into nothing.

    Args:
        of: What is counted in the bins.
        low: First edge.
        high: Last edge.
        name: What the bins are called.
        count: How many.

    Raises:
        TypeError: If count is no int.
        ValueError: If an edge is not finite, low ≥ high, or count < 1 or too large.
    """
    check_finite("low", low)
    check_finite("high", high)
    check_count(name, count)
    if count > _MOST_BINS:
        raise ValueError(
            f"{name} is {count:.3g}, and each of them is a number at each time: a {of} takes "
            f"{_MOST_BINS:.0e} at most."
        )
    if not low < high:
        raise ValueError(f"a {of} needs low < high, but low = {low:g}, high = {high:g}.")


# --- mean and covariance


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
        """Sums at each time."""
        return _Moments(self.covariance)

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Chan's formula for all times at once."""
        n = left["n"] + right["n"]
        gap, weight = right["mean"] - left["mean"], left["n"] * right["n"] / n
        merged = {
            "n": n,
            "mean": left["mean"] + gap * (right["n"] / n),
            "square": left["square"] + right["square"] + gap**2 * weight,
        }
        if "product" in left:
            flat = gap.flatten(1)
            outer = flat[:, :, None] * flat[:, None, :]
            merged["product"] = left["product"] + right["product"] + outer * weight
        return merged

    def result(self, total: Partial, times: Tensor) -> MomentEstimate:
        """Mean, variance and covariance; those of a single trajectory are NaN."""
        n = int(total["n"])
        less = n - 1 if n > 1 else float("nan")
        product = total["product"] / less if "product" in total else None
        return MomentEstimate(times, n, total["mean"], total["square"] / less, product)


class _Moments(Accumulator):
    def __init__(self, covariance: bool | None) -> None:
        self._covariance, self._n = covariance, 0
        self._mean: list[Tensor] = []
        self._square: list[Tensor] = []
        self._product: list[Tensor] = []

    def see(self, k: int, x: State) -> None:
        self._n, x = len(x), x.double()
        mean = x.mean(0)
        self._mean.append(mean)
        gap = (x - mean).flatten(1)
        d = gap.shape[1]
        if d > 1 and (d <= _WIDEST if self._covariance is None else self._covariance):
            product = gap.T @ gap
            self._product.append(product)
            self._square.append(product.diagonal().reshape(mean.shape))
        else:
            self._square.append((gap * gap).sum(0).reshape(mean.shape))
            if d == 1 and self._covariance is not False:
                self._product.append(self._square[-1].reshape(1, 1))

    def partial(self) -> Partial:
        found = {"n": torch.tensor(self._n, dtype=torch.float64)}
        found |= {"mean": torch.stack(self._mean), "square": torch.stack(self._square)}
        return found | ({"product": torch.stack(self._product)} if self._product else {})


# --- histogram and quantiles


@dataclass(frozen=True, eq=False)
class HistogramCounts:
    """Counts in bins at each time.

    Args:
        times: Shape (T,).
        edges: Edges of the bins, shape (bins + 1,).
        counts: Shape (T, bins).
        below: Trajectories under the first edge, shape (T,).
        above: Trajectories at the last edge or beyond it, shape (T,).
    """

    times: Float[Tensor, " T"]
    edges: Float[Tensor, " edges"]
    counts: Int[Tensor, "T bins"]
    below: Int[Tensor, " T"]
    above: Int[Tensor, " T"]

    @property
    def count(self) -> int:
        """Trajectories, with those outside of the bins."""
        return int(self.counts[0].sum() + self.below[0] + self.above[0])

    @property
    def density(self) -> Float[Tensor, "T bins"]:
        """Density, in units of 1/x; its integral is the share of trajectories in the bins."""
        return self.counts.double() / (self.count * self.edges.diff())

    @property
    def density_error(self) -> Float[Tensor, "T bins"]:
        """Standard error of the density, √(p(1 − p)/n) over the width of a bin."""
        share = self.counts.double() / self.count
        return (share * (1 - share) / self.count).sqrt() / self.edges.diff()

    def quantile(self, q: float) -> Float[Tensor, " T"]:
        """The q-quantile at each time, linear inside a bin; wrong by less than one bin.

        Raises:
            ValueError: If q is not in (0, 1), or the quantile lies outside of the bins.
        """
        if not 0 < q < 1:
            raise ValueError(f"q must lie in (0, 1), but is {q:g}.")
        rank = q * self.count
        edges, counts = self.edges, self.counts.double()
        upto = self.below[:, None] + counts.cumsum(1)
        for k in range(len(self.times)):
            if not float(self.below[k]) <= rank <= float(upto[k, -1]):
                raise ValueError(
                    f"the {q:g}-quantile at t = {float(self.times[k]):g} is outside of "
                    f"[{float(edges[0]):g}, {float(edges[-1]):g}]: {int(self.below[k])} of "
                    f"{self.count} trajectories are below and {int(self.above[k])} above; "
                    "widen the histogram."
                )
        ranks = torch.full_like(upto[:, :1], rank)
        j = torch.searchsorted(upto, ranks).clamp(max=counts.shape[1] - 1)
        inside = counts.gather(1, j)
        reached = rank - (upto.gather(1, j) - inside)
        share = torch.where(inside > 0, reached / inside.clamp(min=1), 0.0)
        return (edges[j] + share * (edges[j + 1] - edges[j]))[:, 0]


@dataclass(frozen=True)
class Histogram(Observable):
    """Counts of one coordinate in equal bins, at each of the times.

    What lies on an edge to the rounding of the states' precision may count on either side.

    Args:
        low: First edge, in units of the state.
        high: Last edge.
        bins: How many.
        coordinate: Which number of the flattened event.
        name: What the result is called.

    Raises:
        TypeError: If bins is no int.
        ValueError: If an edge is not finite, low ≥ high, or bins < 1.
    """

    low: float
    high: float
    bins: int = 100
    coordinate: int = 0
    name: str = "histogram"

    def __post_init__(self) -> None:
        check_bins("histogram", self.low, self.high, "bins", self.bins)

    def begin(self, block: Block) -> Accumulator:
        """Counts at each time."""
        return _Histogram(self)

    def result(self, total: Partial, times: Tensor) -> HistogramCounts:
        """The counts, those outside apart."""
        counts = total["counts"]
        edges = torch.linspace(self.low, self.high, self.bins + 1, dtype=torch.float64)
        return HistogramCounts(times, edges, counts[:, 1:-1], counts[:, 0], counts[:, -1])


class _Histogram(Accumulator):
    def __init__(self, about: Histogram) -> None:
        self._about = about
        self._counts: list[Tensor] = []

    def see(self, k: int, x: State) -> None:
        about = self._about
        column = coordinate_of(x, about.coordinate, about.name)
        # one bin at each end for what is outside; with it no place is negative, and to cut off the
        # fraction is to round down
        place = (column - about.low).mul_(about.bins / (about.high - about.low))
        place = place.clamp_(-1, about.bins).add_(1).int()
        self._counts.append(torch.bincount(place, minlength=about.bins + 2))

    def partial(self) -> Partial:
        return {"counts": torch.stack(self._counts)}


# --- correlation in time


@dataclass(frozen=True, eq=False)
class Correlation:
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
    """Correlation of each coordinate at one time with itself at later times of the run.

    Args:
        origin: Index into times of s; the lags are times[origin:] − times[origin].
        name: What the result is called.
        unwrapped: Whether a periodic coordinate is taken on the line, with its turns.

    Raises:
        ValueError: If origin is negative.
    """

    origin: int = 0
    name: str = "correlation"
    unwrapped: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.origin < 0:
            raise ValueError(f"origin must be ≥ 0, but is {self.origin}.")

    def begin(self, block: Block) -> Accumulator:
        """Products at each later time."""
        if self.origin >= len(block.times):
            raise ValueError(
                f"origin must be below {len(block.times)}, the number of times, but is "
                f"{self.origin}."
            )
        return _Correlation(self.origin)

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Chan's formula, for means, squares and products; and for the spread of products."""
        n = left["n"] + right["n"]
        gap, weight = right["mean"] - left["mean"], left["n"] * right["n"] / n
        between = right["product"] / right["n"] - left["product"] / left["n"]
        added = {"square": gap**2, "product": gap * gap[:1], "spread": between**2}
        merged = {"n": n, "mean": left["mean"] + gap * (right["n"] / n)}
        return merged | {key: left[key] + right[key] + add * weight for key, add in added.items()}

    def result(self, total: Partial, times: Tensor) -> Correlation:
        """Covariance, its error, and the coefficient; those of a single trajectory are NaN."""
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


class _Correlation(Accumulator):
    def __init__(self, origin: int) -> None:
        self._origin, self._n = origin, 0
        self._first: Tensor | None = None
        self._sums: dict[str, list[Tensor]] = {
            key: [] for key in ("mean", "square", "product", "spread")
        }

    def see(self, k: int, x: State) -> None:
        if k < self._origin:
            return
        self._n, x = len(x), x.double()
        mean = x.mean(0)
        gap = x - mean
        first = self._first = gap if self._first is None else self._first
        pairs = gap * first
        found = {
            "mean": mean,
            "square": (gap * gap).sum(0),
            "product": pairs.sum(0),
            "spread": (pairs - pairs.mean(0)).square_().sum(0),
        }
        for key, value in found.items():
            self._sums[key].append(value)

    def partial(self) -> Partial:
        n = torch.tensor(self._n, dtype=torch.float64)
        return {"n": n} | {key: torch.stack(values) for key, values in self._sums.items()}
