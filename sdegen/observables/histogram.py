"""Histograms of an ensemble at the times of a run: counts in bins, and beside them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, AtTimes, Block, Observable, Partial
from sdegen.observables.coordinates import check_bins, coordinate_of


@dataclass(frozen=True, eq=False)
class HistogramCounts(Labelled):
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
        """Return the q-quantile at each time, linear inside a bin; wrong by less than one bin.

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
    """Counts of one coordinate in equal bins, at each of the times, shape (T, bins).

        n_j(t) = #{low + j h ≤ X_t < low + (j + 1) h},     h = (high − low)/bins

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

    Example:
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.tensor([[1.0], [3.0], [3.5]])
        >>> counts = sg.Histogram(0.0, 4.0, bins=4)
        >>> run = sg.run_ensemble(decay, x0, [0.0, 0.5], trajectories=3, observables=[counts])
        >>> run.observables["histogram"].counts.tolist()
        [[0, 1, 0, 2], [1, 2, 0, 0]]
    """

    low: float
    high: float
    bins: int = 100
    coordinate: int = 0
    name: str = "histogram"

    def __post_init__(self) -> None:
        check_bins("histogram", self.low, self.high, "bins", self.bins)

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator of counts at each time."""
        return AtTimes(self._counts)

    def _counts(self, k: int, x: State) -> Partial:
        column = coordinate_of(x, self.coordinate, self.name)
        # one bin at each end for what is outside; with it no place is negative, and to cut off the
        # fraction is to round down
        place = (column - self.low).mul_(self.bins / (self.high - self.low))
        place = place.clamp_(-1, self.bins).add_(1).int()
        return {"counts": torch.bincount(place, minlength=self.bins + 2)}

    def result(self, total: Partial, times: Tensor) -> HistogramCounts:
        """Return the counts, with those outside apart."""
        counts = total["counts"]
        edges = torch.linspace(self.low, self.high, self.bins + 1, dtype=torch.float64)
        return HistogramCounts(times, edges, counts[:, 1:-1], counts[:, 0], counts[:, -1])
