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

Example:
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    >>> sg.metrics.wasserstein_1d(x, y)  # all is carried over 2
    2.0
"""

from sdegen.metrics.densities import (
    NodalDensity,
    kolmogorov_smirnov,
    total_variation,
    total_variation_floor,
)
from sdegen.metrics.kernels import mmd
from sdegen.metrics.samples import (
    bits_per_dim,
    energy_distance,
    nearest_distance,
    sliced_wasserstein,
    wasserstein_1d,
)

__all__ = [
    "NodalDensity",
    "bits_per_dim",
    "energy_distance",
    "kolmogorov_smirnov",
    "mmd",
    "nearest_distance",
    "sliced_wasserstein",
    "total_variation",
    "total_variation_floor",
    "wasserstein_1d",
]
