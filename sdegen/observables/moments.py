"""Moments of an ensemble at the times of a run: means, covariances and the errors of both.

Means and co-moments of blocks merge by the differences of their means, and no large numbers are
subtracted: for sets a and b of pairs (x, y), with C = Σ (x − x̄)(y − ȳ) and n = n_a + n_b,

    x̄ = x̄_a + (x̄_b − x̄_a) n_b/n,      C = C_a + C_b + (x̄_b − x̄_a)(ȳ_b − ȳ_a) n_a n_b/n

so that the relative error of a variance stays near the machine's precision times (1 + x̄²/var)^½
log n. Everything is in double precision. Standard errors are those of independent trajectories.

That of a variance or covariance is no Gaussian's √(2/n) σ², but comes from fourth moments,

    Var(s_xy) = [μ_22 − (n − 2)/(n − 1) σ_xy² + σ_xx σ_yy/(n − 1)]/n,    μ_22 = ⟨(x − x̄)² (y − ȳ)²⟩

which is exact in the moments of the law and is taken at those of the sample. Sums of third and
fourth order, M_21 = Σ (x − x̄)² (y − ȳ) and M_22, merge likewise: with g and h the differences of
the means of x and y, and C_xx, C_yy, C_xy the co-moments above,

    M_21 = M_21,a + M_21,b + g² h n_a n_b (n_a − n_b)/n² + (h [C_xx]' + 2 g [C_xy]')/n
    M_22 = M_22,a + M_22,b + g² h² n_a n_b (n_a² − n_a n_b + n_b²)/n³
         + (g² [C_yy]" + h² [C_xx]" + 4 g h [C_xy]")/n² + 2 (g [M_12]' + h [M_21]')/n

where [C]' = n_a C_b − n_b C_a and [C]" = n_a² C_b + n_b² C_a.

Reference:
    Chan, Golub and LeVeque 1983, The American Statistician 37, 242, eq. (2.1); Kendall and Stuart
    1977, The Advanced Theory of Statistics I, sec. 13.2, for Var(s_xy) = κ_22/n + (κ_20 κ_02 +
    κ_11²)/(n − 1); Pébay 2008, Sandia report SAND2008-6212, sec. 3, for merges of higher orders.
"""

from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from sdegen.core.central_sums import merged_sums
from sdegen.core.checks import check_flag
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, AtTimes, Block, Observable, Partial, pooled

_WIDEST = 64


@dataclass(frozen=True, eq=False)
class MomentEstimate(Labelled):
    """Mean and covariance at each time.

    Args:
        times: Shape (T,).
        count: Trajectories.
        mean: Shape (T, *event).
        variance: Unbiased, shape (T, *event).
        covariance: Unbiased, of the flattened event, shape (T, d, d); None if not asked for.
        variance_error: Standard error of the variance, shape (T, *event); None with errors=False.
        covariance_error: That of each covariance, shape (T, d, d); None where one of the two is.
    """

    times: Float[Tensor, " T"]
    count: int
    mean: Float[Tensor, "T *event"]
    variance: Float[Tensor, "T *event"]
    covariance: Float[Tensor, "T d d"] | None
    variance_error: Float[Tensor, "T *event"] | None = None
    covariance_error: Float[Tensor, "T d d"] | None = None

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
    """Mean, variance and covariance at each of the times, shapes (T, *event) and (T, d, d).

        m = Σ x_i/n,     C = Σ (x_i − m)(x_i − m)ᵀ/(n − 1)

    Args:
        covariance: Whether the whole matrix is accumulated; None for events of at most 64 numbers.
        name: What the result is called.
        unwrapped: Whether a periodic coordinate is taken on the line, with its turns: from one
            start, its variance is then the spread of the displacement.
        errors: Whether fourth moments are accumulated too, for the errors of variances and
            covariances. Stores that were begun before there were any have False.

    Example:
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.tensor([[1.0], [3.0]])
        >>> times, asked = [0.0, 0.5], [sg.Moments()]
        >>> run = sg.run_ensemble(decay, x0, times, trajectories=2, observables=asked)
        >>> found = run.observables["moments"]
        >>> found.mean.flatten().tolist(), found.variance.flatten().tolist()  # halved, quartered
        ([2.0, 1.0], [2.0, 0.5])
    """

    covariance: bool | None = None
    name: str = "moments"
    unwrapped: bool = field(default=False, kw_only=True)
    errors: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_flag("errors", self.errors)

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
            sums = {"square": product.diagonal().reshape(mean.shape), "product": product}
            return {"mean": mean} | sums | (_products(gap) if self.errors else {})
        square = (gap * gap).sum(0).reshape(mean.shape)
        only = {"product": square.reshape(1, 1)} if d == 1 and self.covariance is not False else {}
        shape = (1, 1) if only else mean.shape
        high = {name: (gap**p).sum(0).reshape(shape) for name, p in (("third", 3), ("fourth", 4))}
        return {"mean": mean, "square": square} | only | (high if self.errors else {})

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge by the formulas of Chan and Pébay, all times at once."""
        merged, gap, weight = pooled(left, right)
        merged["square"] = left["square"] + right["square"] + gap**2 * weight
        if "product" in left:
            flat = gap.flatten(1)
            outer = flat[:, :, None] * flat[:, None, :]
            merged["product"] = left["product"] + right["product"] + outer * weight
        return merged | (_merged_high(left, right, gap, weight) if self.errors else {})

    def result(self, total: Partial, times: Tensor) -> MomentEstimate:
        """Return mean, variance and covariance; those of a single trajectory are NaN."""
        n = int(total["n"])
        less = n - 1 if n > 1 else float("nan")
        product = total["product"] / less if "product" in total else None
        variance = total["square"] / less
        moments = MomentEstimate(times, n, total["mean"], variance, product)
        if not self.errors:
            return moments
        if product is None:
            error = _error_of(total["fourth"] / n, variance, variance**2, n)
            return replace(moments, variance_error=error)
        spread = product.diagonal(dim1=1, dim2=2)
        both = spread[:, :, None] * spread[:, None, :]
        error = _error_of(total["fourth"] / n, product, both, n)
        diagonal = error.diagonal(dim1=1, dim2=2).reshape(variance.shape)
        return replace(moments, variance_error=diagonal, covariance_error=error)


def _products(gap: Tensor) -> Partial:
    """Return Σ x_i² x_j and Σ x_i² x_j² of distances from the mean, shape (rows, d)."""
    square = gap * gap
    return {"third": square.T @ gap, "fourth": square.T @ square}


def _merged_high(left: Partial, right: Partial, gap: Tensor, weight: Tensor) -> Partial:
    """Return M_21 and M_22 of two sets together, for all pairs or of each number with itself.

    Args:
        left: One set.
        right: The other.
        gap: Difference of the means, shape (T, *event).
        weight: n_a n_b/n.
    """
    a, b = left["n"], right["n"]
    if "product" not in left:
        sums = [(one["square"], one["third"], one["fourth"]) for one in (left, right)]
        _, third, fourth = merged_sums(a, b, gap, *sums)
        return {"third": third, "fourth": fourth}
    n = a + b

    def crossed(name: str, power: int) -> Tensor:
        sign = -1.0 if power == 1 else 1.0
        return (a**power * right[name] + sign * b**power * left[name]) / n**power

    g, h = gap.flatten(1)[:, :, None], gap.flatten(1)[:, None, :]
    first, second = crossed("product", 1), crossed("product", 2)
    odd = crossed("third", 1)
    other = odd.transpose(1, 2)
    diagonals = [c.diagonal(dim1=1, dim2=2) for c in (first, second)]
    xx, xx2, yy2 = diagonals[0][:, :, None], diagonals[1][:, :, None], diagonals[1][:, None, :]
    third = left["third"] + right["third"] + g**2 * h * (weight * (a - b) / n)
    third = third + h * xx + 2 * g * first
    fourth = left["fourth"] + right["fourth"]
    fourth = fourth + (g * h) ** 2 * (weight * (a * a - a * b + b * b) / n**2)
    fourth = fourth + g**2 * yy2 + h**2 * xx2 + 4 * g * h * second + 2 * (g * other + h * odd)
    return {"third": third, "fourth": fourth}


def _error_of(fourth: Tensor, covariance: Tensor, variances: Tensor, n: int) -> Tensor:
    """Return the standard error of covariances.

    Args:
        fourth: μ_22.
        covariance: σ_xy.
        variances: σ_xx σ_yy.
        n: Trajectories; of one it is NaN.
    """
    less = n - 1 if n > 1 else float("nan")
    scatter = fourth - (n - 2) / less * covariance**2 + variances / less
    return (scatter.clamp(min=0) / n).sqrt()  # of two points it is 0, less a rounding
