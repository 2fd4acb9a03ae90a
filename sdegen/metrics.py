"""Metrics: how far apart two laws are, seen through samples, and how far exact samples would be.

Every distance here has a **floor**: n exact samples are not at distance 0 from their own law. A
number means something only beside it. For the total variation over cells the floor is known
exactly (`total_variation_floor`); for the others it is the distance between two halves of the
data.

Samples are states, shape (n, *event); events are flattened, and everything is computed in float64.
A density is what `FokkerPlanck` returns, or anything with nodes `x`, `cell_masses` and `cdf`. Mass
that its cells do not hold (absorbed at a wall) counts as one more cell, "outside"; so do samples
beyond the nodes or on the very ends, which is where an absorbing wall keeps those that it took.

A sample that is NaN or infinite is refused, never averaged over.
"""

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count, check_positive
from sdegen.core.noise import Rng, Stream, stream
from sdegen.core.requests import as_numbers, as_state, kind_of, refuse_lost_gradient

__all__ = [
    "NodalDensity",
    "bits_per_dim",
    "energy_distance",
    "kolmogorov_smirnov",
    "nearest_distance",
    "sliced_wasserstein",
    "total_variation",
    "total_variation_floor",
    "wasserstein_1d",
]

Samples = Float[Tensor, "_n *_event"]

_CHUNK = 2**22  # numbers held at a time by what compares all pairs or sorts many projections
_MASS_TOLERANCE = 1e-6


@runtime_checkable
class NodalDensity(Protocol):
    """A one-dimensional density on cells: what the metrics need to know of one."""

    @property
    def x(self) -> Tensor:
        """Nodes, increasing, shape (cells + 1,)."""

    @property
    def cell_masses(self) -> Tensor:
        """Probability of each cell, shape (cells,)."""

    def cdf(self, x: Tensor) -> Tensor:
        """Return the probability below each position."""


def total_variation(samples: Samples, density: NodalDensity) -> float:
    """Return the total variation between the samples' histogram and a density, cell by cell.

    ½ Σ_i |n_i/n − m_i|   over the cells and "outside"; between 0 and 1

    Args:
        samples: Shape (n, 1).
        density: Nodes and cell masses.

    Returns:
        The distance. Exact samples show `total_variation_floor(density, n)`, on average.

    Raises:
        ValueError: If samples are not one-dimensional, or not all finite.
    """
    _check_density(density)
    points = _line(samples, "samples").to(density.x.device)
    masses = _with_outside(density.cell_masses)
    cells = len(masses) - 1
    # side "right": a cell has its left end and not its right one
    index = torch.searchsorted(density.x.to(torch.float64), points, right=True) - 1
    inside = (points > density.x[0]) & (points < density.x[-1])
    counts = torch.bincount(torch.where(inside, index, cells), minlength=cells + 1)
    return 0.5 * float((counts.to(torch.float64) / len(points) - masses).abs().sum())


def total_variation_floor(density: NodalDensity | Tensor, n: int) -> float:
    """Return the total variation that n exact, independent samples show on average.

    ½ Σ_i E|B_i/n − m_i|,   B_i ~ Binomial(n, m_i)
    E|B − nm| = 2 (1 − m) k C(n, k) mᵏ (1 − m)^{n−k},   k = ⌊nm⌋ + 1

    Args:
        density: The density, or its cell masses, shape (cells,).
        n: Number of samples, ≥ 1.

    Returns:
        The expectation; for many samples in a cell about Σ_i √(m_i (1 − m_i)/(2πn)).

    Raises:
        ValueError: If n < 1 or a mass is outside [0, 1].

    Reference:
        de Moivre 1730, see Diaconis and Zabell 1991, doi:10.1214/ss/1177011699.

    >>> round(total_variation_floor(torch.tensor([0.5, 0.5]), 2), 12)  # ½ · |2/2 − ½|
    0.25
    """
    if n < 1:
        raise ValueError(f"n must be ≥ 1 samples, but is {n}.")
    if isinstance(density, type) or not isinstance(density, NodalDensity):
        masses = as_numbers("density", density, expected="a Density, or its cell masses")
    else:
        masses = density.cell_masses
    masses = _with_outside(masses)
    # a mass of 0 or 1 has no deviation, and has no logarithm of its own or of the rest
    m = masses[(masses > 0) & (masses < 1)]
    k = (n * m).floor() + 1
    log_choose = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    log_deviation = k.log() + log_choose + k * m.log() + (n - k + 1) * torch.log1p(-m)
    return float(log_deviation.exp().sum()) / n


def kolmogorov_smirnov(samples: Samples, density: NodalDensity) -> float:
    """Return the Kolmogorov-Smirnov distance sup_x |F_n(x) − F(x)|; the density has mass 1.

    √n times it exceeds 2.470 once in 10⁵ exact sets of samples, 1.949 once in 10³.

    Args:
        samples: Shape (n, 1).
        density: The density, with F = density.cdf.

    Returns:
        The distance, between 1/(2n) and 1.

    Raises:
        ValueError: If samples are not one-dimensional or not all finite, or the density's mass is
            not 1.
    """
    points = _line(samples, "samples").sort().values
    cdf = _cdf(density, points)
    n = len(points)
    steps = torch.arange(n + 1, dtype=torch.float64, device=cdf.device) / n
    return float(torch.maximum(steps[1:] - cdf, cdf - steps[:-1]).max())


def wasserstein_1d(x: Samples, y: Samples | NodalDensity) -> float:
    """Return the Wasserstein-1 distance on the line, W1 = ∫ |F_x − F_y| dx.

    Args:
        x: Samples, shape (n, 1).
        y: Other samples, shape (m, 1), or a density of mass 1, whose F is taken as linear between
            neighbours among nodes and samples.

    Returns:
        The distance, in units of x.

    Raises:
        ValueError: If samples are not one-dimensional or not all finite, or the density's mass is
            not 1.
    """
    a = _line(x, "x").sort().values
    if isinstance(y, Tensor | np.ndarray | list | tuple):
        b = _line(y, "y").to(a.device).sort().values
        knots = torch.cat([a, b]).sort().values
        other = _empirical_cdf(b, knots)
        left, right = other[:-1], other[:-1]
    else:
        _check_density(y, "y must be samples of shape (m, 1), or a Density")
        a = a.to(y.x.device)
        knots = torch.cat([a, y.x.to(torch.float64)]).sort().values
        other = _cdf(y, knots)
        left, right = other[:-1], other[1:]
    steps = _empirical_cdf(a, knots)[:-1]
    # between two knots F_x is constant and F_y linear: d goes from p to q, and ∫|d| has a kink
    # where it changes sign
    p, q = left - steps, right - steps
    crossing = p * q < 0
    straight = 0.5 * (p + q).abs()
    kinked = 0.5 * (p * p + q * q) / torch.where(crossing, (p - q).abs(), torch.ones_like(p))
    return float((torch.where(crossing, kinked, straight) * knots.diff()).sum())


def sliced_wasserstein(x: Samples, y: Samples, *, projections: int = 128, rng: Rng = 0) -> float:
    """Return the sliced Wasserstein-2 distance, the root mean square of W2 over random directions.

    SW2² = E_θ W2(θ·X, θ·Y)²,   θ uniform on the sphere of the flattened event

    Directions come in orthonormal frames, in the plane evenly spaced: each is uniform, and a shift
    by δ gives |δ|/√d without error when the number of projections is a multiple of d.

    Args:
        x: Samples, shape (n, *event).
        y: Samples, shape (m, *event); n and m may differ.
        projections: Number of directions.
        rng: Seed of the directions. It is fixed by default, so that numbers can be
            compared: the same directions judge every sampler.

    Returns:
        The distance, in units of x.

    Raises:
        ImportError: If POT is not installed.
        ValueError: If events differ, samples are not all finite, or projections < 1.

    Reference:
        Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3.
    """
    try:
        import ot
    except ImportError as error:
        raise ImportError(
            "sliced_wasserstein needs POT; pip install 'sdegen[metrics]'."
        ) from error
    a, b = _pair(x, y)
    if projections < 1:
        raise ValueError(f"projections must be ≥ 1, but is {projections}.")
    directions = _directions(a.shape[1], projections, stream(rng, "projections")).numpy()
    rows, others = a.cpu().numpy(), b.cpu().numpy()  # POT is faster on arrays than on tensors
    square, together = 0.0, max(1, _CHUNK // (len(a) + len(b)))
    for first in range(0, projections, together):
        some = directions[:, first : first + together]
        distance = ot.sliced_wasserstein_distance(rows, others, p=2, projections=some)
        square += float(distance) ** 2 * some.shape[1]
    return math.sqrt(square / projections)


def energy_distance(x: Samples, y: Samples) -> float:
    """Return Székely and Rizzo's energy distance 2 E|X − Y| − E|X − X′| − E|Y − Y′|, V-statistic.

    Not its root: for one-dimensional samples it is the square of what
    `scipy.stats.energy_distance` returns. The means
    run over all pairs, a sample with itself too, so that it is ≥ 0, and 0 only between equal
    samples; n and m exact samples of one law are on average (1/n + 1/m) E|X − X′| apart.
    On the line it is 2 ∫ (F_x − F_y)² dx, exact by sorting, in O(n log n); above, the n m
    distances are summed in blocks of bounded memory.

    Args:
        x: Samples, shape (n, *event).
        y: Samples, shape (m, *event).

    Returns:
        The distance, in units of x.

    Raises:
        ValueError: If events differ or samples are not all finite.

    Reference:
        Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.
    """
    a, b = _pair(x, y)
    if a.shape[1] == 1:
        first, other = a[:, 0].sort().values, b[:, 0].sort().values
        knots = torch.cat([first, other]).sort().values
        gap = _empirical_cdf(first, knots) - _empirical_cdf(other, knots)
        return 2 * float((gap[:-1].square() * knots.diff()).sum())
    distance = 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b)
    return max(distance, 0.0)  # rounding may take 0 below itself


def nearest_distance(x: Samples, reference: Samples) -> float:
    """Return the mean Euclidean distance of x to the nearest reference sample.

    Small where a model memorised its training data.

    Args:
        x: Samples, shape (n, *event).
        reference: Samples, shape (m, *event), for example the training data.

    Returns:
        The mean distance, in units of x.

    Raises:
        ValueError: If events differ or samples are not all finite.
    """
    a, b = _pair(x, reference, "reference")
    if a.shape[1] == 1:  # the neighbours on both sides, among the sorted
        points, ordered = a[:, 0].contiguous(), b[:, 0].sort().values
        after = torch.searchsorted(ordered, points)
        left, right = (ordered[i.clamp(0, len(ordered) - 1)] for i in (after - 1, after))
        return float(torch.minimum((points - left).abs(), (points - right).abs()).mean())
    nearest = torch.full((len(a),), math.inf, dtype=a.dtype, device=a.device)
    for part in torch.split(b, _CHUNK):
        found = torch.cat([some.amin(1) for some in _distances(a, part)])
        nearest = torch.minimum(nearest, found)
    return float(nearest.mean())


def bits_per_dim(
    log_prob: Float[Tensor, " _n"], dimensions: int, *, bin_width: float = 1.0
) -> Float[Tensor, " _n"]:
    """Return the bits per dimension that a density needs for integers that were dequantised.

    −log p(x)/(d ln 2) − log₂ w   with bins of width w in the units of x

    By Jensen its mean is an upper bound for the bits of the integers themselves. For
    `data.digits`, w = 2/17.

    Args:
        log_prob: log p(x) in nats, shape (n,).
        dimensions: Numbers in an event, d ≥ 1.
        bin_width: Width of one integer value in the units of x, > 0.

    Returns:
        Bits per dimension of each sample, shape (n,).

    Raises:
        ValueError: If dimensions or bin_width is not positive.

    >>> uniform = torch.tensor([64 * math.log(1 / 2)])  # on [−1, 1]⁶⁴, for 16 values
    >>> bits_per_dim(uniform, 64, bin_width=2 / 16)
    tensor([4.])
    """
    log_prob = as_state("log_prob", log_prob)
    check_count("dimensions", dimensions)
    check_positive("bin_width", bin_width)
    return -log_prob / (dimensions * math.log(2)) - math.log2(bin_width)


def _flat(samples: Tensor, name: str) -> Tensor:
    """Return samples as (n, d) in float64; raises if one is not finite."""
    samples = as_state(name, samples)
    if samples.is_complex() or samples.dtype == torch.bool:
        raise TypeError(f"{name} must be numbers, but has dtype {samples.dtype}.")
    if samples.ndim < 2 or len(samples) == 0:
        raise ValueError(
            f"{name} must have shape (n, *event) with n ≥ 1, but has shape "
            f"{tuple(samples.shape)}; numbers on a line are (n, 1)."
        )
    refuse_lost_gradient(name, samples, "a distance")
    flat = samples.detach().to(torch.float64).flatten(1)
    lost = ~flat.isfinite().all(1)
    if lost.any():
        first = int(lost.nonzero()[0])
        raise ValueError(
            f"{int(lost.sum())} of {len(flat)} rows of {name} are NaN or infinite, the first is "
            f"row {first}; a distance cannot count them: report them, and pass path.finite[k]."
        )
    return flat


def _pair(x: Tensor, y: Tensor, name: str = "y") -> tuple[Tensor, Tensor]:
    """Return two sets of samples of the same event, flat and on one device."""
    a, b = _flat(x, "x"), _flat(y, name)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x and {name} must have the same event shape, but x has {tuple(x.shape[1:])} and "
            f"{name} {tuple(y.shape[1:])}."
        )
    return a, b.to(a.device)


def _line(samples: Tensor, name: str) -> Tensor:
    """Return the one-dimensional samples as (n,) in float64."""
    flat = _flat(samples, name)
    if flat.shape[1] != 1:
        raise ValueError(
            f"{name} must be one-dimensional, shape (n, 1), but has shape {tuple(samples.shape)}; "
            "use sliced_wasserstein or energy_distance."
        )
    return flat[:, 0].contiguous()


def _with_outside(masses: Tensor) -> Tensor:
    """Return cell masses in float64, and after them the mass missing from 1."""
    refuse_lost_gradient("density", masses, "a distance")
    masses = masses.detach().to(torch.float64)
    outside = 1 - masses.sum()
    if (
        masses.ndim != 1
        or not bool((masses >= -_MASS_TOLERANCE).all())
        or outside < -_MASS_TOLERANCE
    ):
        raise ValueError(
            f"cell masses must be ≥ 0, shape (cells,), and sum to at most 1, but have shape "
            f"{tuple(masses.shape)}, minimum {float(masses.min()):g}, sum {float(masses.sum()):g}."
        )
    # a deficit of rounding is not a cell: its square root would show in the floor
    missing = outside if outside > _MASS_TOLERANCE else torch.zeros_like(outside)
    return torch.cat([masses.clamp(min=0), missing.reshape(1)])


def _check_density(density: object, expected: str = "density must be a Density") -> None:
    """Raise if density has no nodes and cells."""
    if isinstance(density, type) or not isinstance(density, NodalDensity):
        raise TypeError(
            f"{expected}, such as FokkerPlanck(sde, grid).stationary() returns, but is "
            f"{kind_of(density)}."
        )


def _cdf(density: NodalDensity, points: Tensor) -> Tensor:
    """Return F at points, of a density that has one."""
    _check_density(density)
    missing = float(_with_outside(density.cell_masses)[-1])
    if missing > 0:
        raise ValueError(
            f"the density holds a mass of {1 - missing:.6g}, not 1: it has no distribution "
            "function to compare with; use total_variation, which counts what was absorbed."
        )
    return density.cdf(points.to(density.x.device)).detach().to(torch.float64)


def _empirical_cdf(ordered: Tensor, points: Tensor) -> Tensor:
    """Return the share of samples, in order, that are ≤ each point."""
    return torch.searchsorted(ordered, points, right=True).to(torch.float64) / len(ordered)


def _directions(d: int, count: int, source: Stream) -> Tensor:
    """Return `count` directions of R^d, each uniform on the sphere, shape (d, count)."""
    if d == 2:
        # evenly spaced over half a turn from a random start: the mean converges as fast as it can
        start = torch.rand((), generator=source.generator(), dtype=torch.float64)
        angle = (torch.arange(count, dtype=torch.float64) + start) * (math.pi / count)
        return torch.stack([angle.cos(), angle.sin()])
    frames = []
    for first in range(0, count, d):
        gaussian = source.normal((d, min(d, count - first)), dtype=torch.float64)
        # QR's signs are not Haar's, but θ and −θ are one direction
        frames.append(torch.linalg.qr(gaussian).Q)
    return torch.cat(frames, 1)


def _distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yield |a_i − b_j| for some rows i and all j at a time, so that they fit in memory."""
    rows = max(1, _CHUNK // len(b))
    for start in range(0, len(a), rows):
        # by differences: through |a|² + |b|² − 2ab equal samples would be 1e-8 apart
        some = a[start : start + rows]
        yield torch.cdist(some, b, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_distance(a: Tensor, b: Tensor) -> float:
    """Return the mean of |a_i − b_j| over all pairs, in blocks of both."""
    total = sum(
        float(some.sum()) for part in torch.split(b, _CHUNK) for some in _distances(a, part)
    )
    return total / (len(a) * len(b))
