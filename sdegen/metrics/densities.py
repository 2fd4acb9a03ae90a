"""Samples against a density on cells, and how far exact samples would be."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sdegen.core.requests import as_numbers, kind_of, refuse_lost_gradient
from sdegen.metrics.states import Samples, on_line

_MASS_TOLERANCE = 1e-6


@runtime_checkable
class NodalDensity(Protocol):
    """A one-dimensional density on cells: what the metrics need to know of one.

    Example:
        >>> trap = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-8.0, 8.0, cells=100))
        >>> density = trap.stationary()  # N(0, 1), of this kind
        >>> f"{density.cdf(torch.tensor(1.0)):.4f} {density.cell_masses.sum():.4f}"
        '0.8413 1.0000'
    """

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

        TV = ½ Σ_i |n_i/n − m_i|   over the cells and "outside"; between 0 and 1

    Args:
        samples: Shape (n, 1).
        density: Nodes and cell masses.

    Returns:
        The distance. Exact samples show `total_variation_floor(density, n)`, on average.

    Raises:
        ValueError: If samples are not one-dimensional, or not all finite.

    Example:
        >>> trap = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-8.0, 8.0, cells=100))
        >>> rest = trap.stationary()
        >>> f"{sg.metrics.total_variation(torch.full((10, 1), 9.0), rest):.4f}"  # all outside
        '1.0000'
    """
    check_density(density)
    points = on_line(samples, "samples").to(density.x.device)
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

    Example:
        >>> masses = torch.tensor([0.5, 0.5])
        >>> round(sg.metrics.total_variation_floor(masses, 2), 12)  # ½ · |2/2 − ½|
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
    """Return the Kolmogorov-Smirnov distance of samples from a density of mass 1.

        D = sup_x |F_n(x) − F(x)|

    √n times it exceeds 2.470 once in 10⁵ exact sets of samples, 1.949 once in 10³.

    Args:
        samples: Shape (n, 1).
        density: The density, with F = density.cdf.

    Returns:
        The distance, between 1/(2n) and 1.

    Raises:
        ValueError: If samples are not one-dimensional or not all finite, or the density's mass is
            not 1.

    Example:
        >>> trap = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-8.0, 8.0, cells=100))
        >>> rest = trap.stationary()
        >>> f"{sg.metrics.kolmogorov_smirnov(torch.zeros(10, 1), rest):.3f}"  # all at the median
        '0.500'
    """
    points = on_line(samples, "samples").sort().values
    cdf = cdf_at(density, points)
    n = len(points)
    steps = torch.arange(n + 1, dtype=torch.float64, device=cdf.device) / n
    return float(torch.maximum(steps[1:] - cdf, cdf - steps[:-1]).max())


def _with_outside(masses: Tensor) -> Tensor:
    """Return cell masses in float64, and after them the mass missing from 1."""
    refuse_lost_gradient("density", masses, "a distance")
    masses = masses.detach().to(torch.float64)
    outside = 1 - masses.sum()
    are_masses = masses.ndim == 1 and bool((masses >= -_MASS_TOLERANCE).all())
    if not are_masses or outside < -_MASS_TOLERANCE:
        raise ValueError(
            f"cell masses must be ≥ 0, shape (cells,), and sum to at most 1, but have shape "
            f"{tuple(masses.shape)}, minimum {float(masses.min()):g}, sum {float(masses.sum()):g}."
        )
    # a deficit of rounding is not a cell: its square root would show in the floor
    missing = outside if outside > _MASS_TOLERANCE else torch.zeros_like(outside)
    return torch.cat([masses.clamp(min=0), missing.reshape(1)])


def check_density(density: object, expected: str = "density must be a Density") -> None:
    """Raise if density has no nodes and cells."""
    if isinstance(density, type) or not isinstance(density, NodalDensity):
        raise TypeError(
            f"{expected}, such as FokkerPlanck(sde, grid).stationary() returns, but is "
            f"{kind_of(density)}."
        )


def cdf_at(density: NodalDensity, points: Tensor) -> Tensor:
    """Return F at points, of a density that has one."""
    check_density(density)
    missing = float(_with_outside(density.cell_masses)[-1])
    if missing > 0:
        raise ValueError(
            f"the density holds a mass of {1 - missing:.6g}, not 1: it has no distribution "
            "function to compare with; use total_variation, which counts what was absorbed."
        )
    return density.cdf(points.to(density.x.device)).detach().to(torch.float64)
