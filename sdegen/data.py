"""Data: draws from known planar laws, and handwritten digits, at the scale of an N(0, I) prior.

**Planar sets** are independent draws from a law that is written down, shifted and scaled by the
law's own constants: mean 0 and E|x|²/2 = 1, so that variance-preserving noise keeps their size.
The scale is one number for both coordinates: shapes stay shapes. It comes from the law and not
from the draw, so that two draws are of one law. (scikit-learn's `make_moons` puts its angles on a
regular grid. Two of its sets are closer to each other than independent draws are, and a distance
between a sampler and such a set has no honest floor.)

**Digits** are 1,797 real scans of 8 × 8 pixels with integer values k = 0 … 16. A density for
integers is unbounded, so each pixel is dequantised, v = k + u with u uniform on [0, 1), and
scaled,

    x = 2 v / 17 − 1   in [−1, 1)

A pixel's bin then has width 2/17, and ∫_bin p(x) dx = P(k): by Jensen, −log₂ p(x)/d + log₂(17/2)
is on average an upper bound for the bits per pixel that the model needs for the integers, and
`BIN_WIDTH` is all that it takes to convert.

Reference:
    Theis, van den Oord and Bethge 2016, section 3.1, arXiv:1511.01844 (dequantisation).

Example:
    >>> x = sg.data.checkerboard(20_000, rng=0)
    >>> f"{x.square().sum(1).mean():.1f}"  # E|x|²
    '2.0'
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_not_negative
from sdegen.core.noise import Rng, Stream, seed_of, stream
from sdegen.core.optional import needed
from sdegen.core.shapes import Device, Dtype, State

__all__ = [
    "BIN_WIDTH",
    "LEVELS",
    "Digits",
    "checkerboard",
    "dequantise",
    "digits",
    "eight_gaussians",
    "redequantise",
    "swiss_roll",
    "to_levels",
    "two_moons",
]

LEVELS = 17  # pixel values 0 … 16
BIN_WIDTH = 2 / LEVELS  # width of one pixel value after scaling to [−1, 1)


def two_moons(
    n: int, *, noise: float = 0.05, rng: Rng = None, dtype: Dtype = None, device: Device = "cpu"
) -> State:
    """Draw from two interleaved half circles with Gaussian noise, scaled to mean 0, E|x|² = 2.

    Each moon with probability ½ and the angle θ uniform on [0, π]:

        (cos θ, sin θ)   or   (1 − cos θ, ½ − sin θ)
        mean (½, ¼),   E|x − mean|² = 21/16 − 1/π + 2 noise²

    Args:
        n: Number of points, ≥ 1.
        noise: Standard deviation of the noise, in radii of a moon.
        rng: Seed, generator or None.
        dtype: Defaults to torch's default dtype.
        device: Where the points go; they are drawn on the CPU, the same for every device.

    Returns:
        Points in random order, shape (n, 2).

    Raises:
        TypeError: If n is not an int.
        ValueError: If n < 1 or noise < 0.

    Example:
        >>> x = sg.data.two_moons(20_000, rng=0)
        >>> f"{x.square().sum(1).mean():.1f}"  # after scaling
        '2.0'
    """
    source = _source(n, noise, rng, "two_moons")
    theta, which = math.pi * _uniform(source, n), _uniform(source, n) < 0.5
    x = torch.where(which, theta.cos(), 1 - theta.cos())
    y = torch.where(which, theta.sin(), 0.5 - theta.sin())
    clean = torch.stack([x - 0.5, y - 0.25], 1)
    return _unit(clean, 21 / 16 - 1 / math.pi, noise, source, dtype, device)


def eight_gaussians(
    n: int, *, noise: float = 0.1, rng: Rng = None, dtype: Dtype = None, device: Device = "cpu"
) -> State:
    """Draw from eight equal Gaussians on a circle, scaled to mean 0, E|x|² = 2.

    Args:
        n: Number of points, ≥ 1.
        noise: Standard deviation of each Gaussian, in radii of the circle.
        rng: Seed, generator or None.
        dtype: Defaults to torch's default dtype.
        device: Where the points go.

    Returns:
        Points, shape (n, 2).

    Raises:
        TypeError: If n is not an int.
        ValueError: If n < 1 or noise < 0.

    Example:
        >>> x = sg.data.eight_gaussians(20_000, rng=0)
        >>> f"{x.square().sum(1).mean():.1f}"  # E|x|², whatever the noise
        '2.0'
    """
    source = _source(n, noise, rng, "eight_gaussians")
    theta = (8 * _uniform(source, n)).floor() * (math.pi / 4)
    return _unit(torch.stack([theta.cos(), theta.sin()], 1), 1.0, noise, source, dtype, device)


def swiss_roll(
    n: int, *, noise: float = 0.5, rng: Rng = None, dtype: Dtype = None, device: Device = "cpu"
) -> State:
    """Draw from a planar roll with Gaussian noise, scaled to mean 0, E|x|² = 2.

        (θ cos θ, θ sin θ)   with θ uniform on [3π/2, 9π/2]
        mean (2, 2/3π),   E|x − mean|² = 39π²/4 − 4 − 4/9π² + 2 noise²

    Args:
        n: Number of points, ≥ 1.
        noise: Standard deviation of the noise; neighbouring turns are 2π apart.
        rng: Seed, generator or None.
        dtype: Defaults to torch's default dtype.
        device: Where the points go.

    Returns:
        Points, shape (n, 2).

    Raises:
        TypeError: If n is not an int.
        ValueError: If n < 1 or noise < 0.

    Example:
        >>> x = sg.data.swiss_roll(20_000, rng=0)
        >>> f"{x.square().sum(1).mean():.1f}"  # after scaling
        '2.0'
    """
    source = _source(n, noise, rng, "swiss_roll")
    theta = math.pi * (1.5 + 3 * _uniform(source, n))
    mean_x, mean_y = 2.0, 2 / (3 * math.pi)
    clean = torch.stack([theta * theta.cos() - mean_x, theta * theta.sin() - mean_y], 1)
    variance = 39 * math.pi**2 / 4 - mean_x**2 - mean_y**2
    return _unit(clean, variance, noise, source, dtype, device)


def checkerboard(n: int, *, rng: Rng = None, dtype: Dtype = None, device: Device = "cpu") -> State:
    """Draw uniformly from the eight dark squares of a 4 × 4 board; mean 0, E|x|² = 2.

    The board is [−√3, √3]², the square with indices (i, j) dark if i + j is even; the density
    there is 1/6.

    Args:
        n: Number of points, ≥ 1.
        rng: Seed, generator or None.
        dtype: Defaults to torch's default dtype.
        device: Where the points go.

    Returns:
        Points, shape (n, 2).

    Raises:
        TypeError: If n is not an int.
        ValueError: If n < 1.

    Example:
        >>> x = sg.data.checkerboard(1000, rng=0)
        >>> square = ((x + 3**0.5) / (3**0.5 / 2)).long()
        >>> bool((square.sum(1) % 2 == 0).all())  # dark squares alone
        True
    """
    source = _source(n, 0.0, rng, "checkerboard")
    x, y = 4 * _uniform(source, n), 2 * _uniform(source, n)
    # y runs over the two dark squares of x's column, which are one square apart
    y = y + y.floor() + x.floor() % 2
    return _unit(torch.stack([x - 2, y - 2], 1), 8 / 3, 0.0, source, dtype, device)


@dataclass(frozen=True)
class Digits:
    """Dequantised digits, x = 2 (k + u)/17 − 1, cut into three sets that share no image.

    Attributes:
        train: Images to learn from, shape (n, 1, 8, 8), in [−1, 1).
        validation: Images to choose a sampler and a stopping time on.
        test: Images to judge on, about half of all.
        train_labels: Which digit each of them is, 0 … 9, shape (n,), int64.
        validation_labels: The same for the validation images.
        test_labels: The same for the test images.
        seed: What to pass as rng to get the same sets and the same noise again.
        bin_width: Width of one of the 17 pixel values in these units, 2/17: what
            `metrics.bits_per_dim` asks for.

    Example:
        >>> import sklearn
        >>> digits = sg.data.digits()
        >>> [len(images) for images in (digits.train, digits.validation, digits.test)]
        [718, 180, 899]
        >>> int(sg.data.to_levels(digits.test).max())  # pixel values 0 … 16
        16
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    train_labels: Tensor
    validation_labels: Tensor
    test_labels: Tensor
    seed: int
    bin_width: float = BIN_WIDTH


def digits(
    *, validation: int = 180, rng: Rng = 0, dtype: Dtype = None, device: Device = "cpu"
) -> Digits:
    """Load scikit-learn's handwritten digits, dequantised, as train, validation and test sets.

        x = 2 (k + u)/17 − 1,     k = 0 … 16,  u ~ U[0, 1)

    A random half (898) is for training, of which `validation` images are set aside; the other half
    (899) is for tests.

    Args:
        validation: How many images to set aside, between 1 and 897.
        rng: Seed of the split and of the dequantisation. Unlike elsewhere it is fixed by
            default: another seed is another split, and a model trained on one has seen test
            images of the other.
        dtype: Defaults to torch's default dtype.
        device: Where the images go.

    Returns:
        The three sets, images of shape (1, 8, 8).

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If validation leaves no image to train on, or is < 1.

    Reference:
        Alpaydin and Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49.

    Example:
        >>> import sklearn
        >>> digits = sg.data.digits(validation=100)
        >>> len(digits.train), len(digits.validation), len(digits.test)  # 898 − 100, 100, 899
        (798, 100, 899)
        >>> bool(digits.train.min() >= -1), bool(digits.train.max() < 1)
        (True, True)
    """
    scans = needed("sklearn.datasets", "digits", extra="data").load_digits()
    levels = torch.from_numpy(scans.images).to(torch.float64).unsqueeze(1)
    centres = (levels + 0.5) * BIN_WIDTH - 1
    half = len(levels) // 2
    if not 1 <= validation < half:
        raise ValueError(
            f"validation must leave images to train on, 1 ≤ validation < {half}, "
            f"but is {validation}."
        )
    seed = seed_of(rng)
    order = torch.randperm(len(levels), generator=stream(seed, "digits split").generator())
    images = redequantise(centres[order], stream(seed, "dequantise"))
    images = images.to(dtype=dtype or torch.get_default_dtype(), device=device)
    labels = torch.from_numpy(scans.target).long()[order].to(device)
    sizes = [half - validation, validation, len(levels) - half]
    # clones: a slice would be saved and moved with all of the others behind it
    train, set_aside, test = (part.clone() for part in torch.split(images, sizes))
    of_train, of_set_aside, of_test = (part.clone() for part in torch.split(labels, sizes))
    return Digits(train, set_aside, test, of_train, of_set_aside, of_test, seed)


def dequantise(
    values: Tensor, levels: int = 256, *, rng: Rng = None, dtype: Dtype = None
) -> State:
    """Return integers with uniform noise in their bins, on the scale of a unit prior.

        x = 2 (k + u)/levels − 1   in [−1, 1),   u ~ U[0, 1)

    A bin has width 2/levels, so that `metrics.bits_per_dim(log_prob, d, bin_width=2/levels)` is
    −log₂ p(x)/d + log₂(levels/2): on average an upper bound for the bits of the integers, by
    Jensen, and equal to them where p is constant in every bin.

    Args:
        values: Integers 0 … levels − 1, of an integer dtype, shape (n, *event).
        levels: How many values there are: 256 for 8-bit images, 17 for the digits.
        rng: Seed, generator or None.
        dtype: Of the result; torch's default dtype by default.

    Raises:
        TypeError: If values are not integers.
        ValueError: If one of them is out of range.

    Reference:
        Theis, van den Oord and Bethge 2016, section 3.1, arXiv:1511.01844.

    Example:
        >>> k = torch.tensor([[0, 100, 255]])
        >>> x = sg.data.dequantise(k, rng=0)
        >>> (256 * (x + 1) / 2).floor().int()
        tensor([[  0, 100, 255]], dtype=torch.int32)
    """
    check_count("levels", levels)
    if not isinstance(values, Tensor):
        try:
            values = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"values must be integers, but are of type {type(values).__name__}."
            ) from None
    if values.numel() == 0:
        raise ValueError(f"values are empty: their shape is {tuple(values.shape)}.")
    if values.is_floating_point() or values.dtype == torch.bool:
        raise TypeError(
            f"values must be integers, but have dtype {values.dtype}: what is dequantised "
            "already needs no second noise."
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= levels:
        raise ValueError(
            f"values must lie in 0 … {levels - 1}, but reach from {low} to {high}; pass levels=."
        )
    source = stream(rng, "dequantise")
    u = torch.rand(values.shape, generator=source.generator(), dtype=torch.float64)
    x = (values.to(torch.float64) + u.to(values.device)) * (2 / levels) - 1
    return x.to(dtype or torch.get_default_dtype())


def to_levels(images: State) -> Tensor:
    """Return pixel values that scaled images stand for, k = ⌊17 (x + 1)/2⌋ within 0 … 16.

    Args:
        images: Images as in `Digits`, or as generated, shape (batch, *event).

    Returns:
        Integers of the same shape, int64.

    Example:
        >>> sg.data.to_levels(torch.tensor([[-1.0, 0.0, 0.999, 1.3]]))
        tensor([[ 0,  8, 16, 16]])
    """
    return ((images + 1) / BIN_WIDTH).floor().clamp(0, LEVELS - 1).long()


def redequantise(images: State, source: Stream) -> State:
    """Draw new noise in the bins of the same pixel values; an `augment` for `train`.

        x = 2 (k + u)/17 − 1,     u ~ U[0, 1)

    A model that sees the same noise in every epoch can memorise it, though it is not a property of
    an image.

    Args:
        images: Images as in `Digits`, shape (batch, *event).
        source: Where the noise comes from.

    Returns:
        Images of the same shape.

    Example:
        >>> from sdegen.core.noise import stream
        >>> x = sg.data.dequantise(torch.tensor([[3, 16]]), levels=17, rng=0)
        >>> new = sg.data.redequantise(x, stream(1, "noise"))
        >>> sg.data.to_levels(new), torch.equal(new, x)
        (tensor([[ 3, 16]]), False)
    """
    generator = source.generator(images.device)
    u = torch.rand(images.shape, generator=generator, dtype=images.dtype, device=images.device)
    return (to_levels(images) + u) * BIN_WIDTH - 1


def _source(n: int, noise: float, rng: Rng, purpose: str) -> Stream:
    """Return the stream of one draw; raises if n or noise is unusable."""
    check_count("n", n)
    check_not_negative("noise", noise)
    return stream(rng, purpose)


def _uniform(source: Stream, n: int) -> Tensor:
    """Return uniform numbers on [0, 1), shape (n,), float64 on the CPU."""
    return torch.rand(n, generator=source.generator(), dtype=torch.float64)


def _unit(
    clean: Tensor, variance: float, noise: float, source: Stream, dtype: Dtype, device: Device
) -> Tensor:
    """Add noise to centred points with E|x|² = variance, and scale so that E|x|² = 2."""
    points = clean + noise * source.normal(tuple(clean.shape), dtype=torch.float64)
    scale = math.sqrt(2 / (variance + 2 * noise**2))
    return (scale * points).to(dtype=dtype or torch.get_default_dtype(), device=device)
