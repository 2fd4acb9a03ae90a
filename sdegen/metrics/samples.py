"""Two sets of samples, or samples on a line against a density."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count, check_positive
from sdegen.core.noise import Rng, Stream, stream
from sdegen.core.optional import needed
from sdegen.core.requests import as_state
from sdegen.metrics.densities import NodalDensity, cdf_at, check_density
from sdegen.metrics.states import Samples, as_pair, empirical_cdf, on_line

_CHUNK = 2**22  # numbers held at a time by what compares all pairs or sorts many projections


def wasserstein_1d(x: Samples, y: Samples | NodalDensity) -> float:
    """Return the Wasserstein-1 distance on the line.

        W1 = ∫ |F_x − F_y| dx

    Args:
        x: Samples, shape (n, 1).
        y: Other samples, shape (m, 1), or a density of mass 1, whose F is taken as linear between
            neighbours among nodes and samples.

    Returns:
        The distance, in units of x.

    Raises:
        ValueError: If samples are not one-dimensional or not all finite, or the density's mass is
            not 1.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [4.0]])
        >>> sg.metrics.wasserstein_1d(x, y)  # half is carried over 3
        1.5
    """
    a = on_line(x, "x").sort().values
    if isinstance(y, Tensor | np.ndarray | list | tuple):
        b = on_line(y, "y").to(a.device).sort().values
        knots = torch.cat([a, b]).sort().values
        other = empirical_cdf(b, knots)
        left, right = other[:-1], other[:-1]
    else:
        check_density(y, "y must be samples of shape (m, 1), or a Density")
        a = a.to(y.x.device)
        knots = torch.cat([a, y.x.to(torch.float64)]).sort().values
        other = cdf_at(y, knots)
        left, right = other[:-1], other[1:]
    steps = empirical_cdf(a, knots)[:-1]
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

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
        >>> f"{sg.metrics.sliced_wasserstein(x, x + torch.tensor([3.0, 4.0])):.4f}"  # |(3, 4)|/√2
        '3.5355'
    """
    ot = needed("ot", "sliced_wasserstein (by POT)", extra="metrics")
    a, b = as_pair(x, y)
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
    """Return Székely and Rizzo's energy distance, V-statistic.

        D = 2 E|X − Y| − E|X − X′| − E|Y − Y′|

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

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [0.0]])
        >>> sg.metrics.energy_distance(x, y)  # 2 · ½ − ½ − 0
        0.5
    """
    a, b = as_pair(x, y)
    if a.shape[1] == 1:
        first, other = a[:, 0].sort().values, b[:, 0].sort().values
        knots = torch.cat([first, other]).sort().values
        gap = empirical_cdf(first, knots) - empirical_cdf(other, knots)
        return 2 * float((gap[:-1].square() * knots.diff()).sum())
    distance = 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b)
    return max(distance, 0.0)  # rounding may take 0 below itself


def nearest_distance(x: Samples, reference: Samples) -> float:
    """Return the mean Euclidean distance of x to the nearest reference sample.

        d = (1/n) Σ_i min_j |x_i − y_j|

    Small where a model memorised its training data.

    Args:
        x: Samples, shape (n, *event).
        reference: Samples, shape (m, *event), for example the training data.

    Returns:
        The mean distance, in units of x.

    Raises:
        ValueError: If events differ or samples are not all finite.

    Example:
        >>> x, seen = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
        >>> sg.metrics.nearest_distance(x, seen)  # (0 + 1)/2
        0.5
    """
    a, b = as_pair(x, reference, "reference")
    if a.shape[1] == 1:  # the neighbours on both sides, among the sorted
        points, ordered = a[:, 0].contiguous(), b[:, 0].sort().values
        after = torch.searchsorted(ordered, points)
        left, right = (ordered[i.clamp(0, len(ordered) - 1)] for i in (after - 1, after))
        return float(torch.minimum((points - left).abs(), (points - right).abs()).mean())
    nearest = torch.full((len(a),), math.inf, dtype=a.dtype, device=a.device)
    for part in torch.split(b, _CHUNK):
        apart = torch.cat([some.amin(1) for some in distances(a, part)])
        nearest = torch.minimum(nearest, apart)
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

    Example:
        >>> import math
        >>> uniform = torch.tensor([64 * math.log(1 / 2)])  # on [−1, 1]⁶⁴, for 16 values
        >>> sg.metrics.bits_per_dim(uniform, 64, bin_width=2 / 16)
        tensor([4.])
    """
    log_prob = as_state("log_prob", log_prob)
    check_count("dimensions", dimensions)
    check_positive("bin_width", bin_width)
    return -log_prob / (dimensions * math.log(2)) - math.log2(bin_width)


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


def distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yield |a_i − b_j| for some rows i and all j at a time, so that they fit in memory."""
    rows = max(1, _CHUNK // len(b))
    for start in range(0, len(a), rows):
        # by differences: through |a|² + |b|² − 2ab equal samples would be 1e-8 apart
        some = a[start : start + rows]
        yield torch.cdist(some, b, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_distance(a: Tensor, b: Tensor) -> float:
    """Return the mean of |a_i − b_j| over all pairs, in blocks of both."""
    total = sum(float(d.sum()) for part in torch.split(b, _CHUNK) for d in distances(a, part))
    return total / (len(a) * len(b))
