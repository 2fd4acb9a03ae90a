"""The probability current of one coordinate, from the paths.

J(x) is the net number of trajectories that cross x upwards, per time and per trajectory. For paths
on a line it does not matter how they went between two looks: what crosses x an odd number of times
ends on the other side. So from one time to the next

    J(x) = [#(X_{k+1} > x) − #(X_k > x)] / (n (t_{k+1} − t_k))

which is the symmetric estimator ⟨δ(X − x) ∘ dX⟩/dt with the integral done exactly, and has no
error of the step but that of the law of the chain. A cell's value is the mean of J over the cell.
On a circle, a periodic drift on the line, the same counts with all images of x.

The standard error comes from the spread between sets of trajectories, sixteen in each block.

Reference:
    Seifert 2012, Reports on Progress in Physics 75, 126001, section 2.6, for the current as a
    symmetric (Stratonovich) product along the path.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, AtTimes, Block, Observable, Partial, pooled
from sdegen.observables.coordinates import check_bins, coordinate_of

_SETS = 16


@dataclass(frozen=True, eq=False)
class Current(Labelled):
    """Probability current between each two times.

    Args:
        times: Shape (T,).
        edges: Edges of the cells, shape (cells + 1,).
        current: Mean of J over each cell and each interval of times, in units of 1/time, shape
            (T − 1, cells).
        error: Its standard error, shape (T − 1, cells).
    """

    times: Float[Tensor, " T"]
    edges: Float[Tensor, " edges"]
    current: Float[Tensor, "intervals cells"]
    error: Float[Tensor, "intervals cells"]

    @property
    def x(self) -> Float[Tensor, " cells"]:
        """Midpoints of the cells."""
        return (self.edges[1:] + self.edges[:-1]) / 2


@dataclass(frozen=True)
class ProbabilityCurrent(Observable):
    """The current of one coordinate in equal cells, between each two of the times.

        J(x) = [#(X_{k+1} > x) − #(X_k > x)]/(n (t_{k+1} − t_k)),     shape (T − 1, cells)

    Args:
        low: First edge, in units of the state.
        high: Last edge.
        cells: How many.
        periodic: Whether [low, high] is one period of the dynamics: x and x + (high − low) are
            then one place. The trajectories run on the line, or inside a periodic boundary, whose
            turns are counted.
        coordinate: Which number of the flattened event.
        name: What the result is called.

    Raises:
        TypeError: If cells is no int.
        ValueError: If an edge is not finite, low ≥ high, or cells < 1.

    Example:
        >>> wind = sg.ItoProcess(lambda x: 0 * x + 1.0, 0.0)
        >>> asked = [sg.ProbabilityCurrent(0.0, 1.0, 2)]
        >>> start = torch.full((32, 1), 0.25)
        >>> run = sg.run_ensemble(wind, start, [0.0, 0.5], trajectories=32, observables=asked)
        >>> run.observables["current"].current.tolist()  # half of each cell is crossed, once in ½
        [[1.0, 1.0]]
    """

    low: float
    high: float
    cells: int = 50
    periodic: bool = False
    coordinate: int = 0
    name: str = "current"
    unwrapped: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        check_bins("current", self.low, self.high, "cells", self.cells)

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator of counts at each time."""
        return _Crossings(self, block.times)

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge by Chan's formula, for sets of unequal weight."""
        merged, gap, weight = pooled(left, right)
        spread = left["spread"] + right["spread"] + gap**2 * weight
        return merged | {"sets": left["sets"] + right["sets"], "spread": spread}

    def result(self, total: Partial, times: Tensor) -> Current:
        """Return the current and its error, which is NaN for a single trajectory."""
        less = float(total["sets"]) - 1 or float("nan")
        edges = torch.linspace(self.low, self.high, self.cells + 1, dtype=torch.float64)
        error = (total["spread"] / (less * total["n"])).sqrt()
        return Current(times, edges, total["mean"], error)


class _Crossings(AtTimes):
    """Counts how often the trajectories of each set have passed every cell."""

    def __init__(self, about: ProbabilityCurrent, times: Tensor) -> None:
        super().__init__(counts=True)
        self._about, self._dt = about, times.diff().abs().tolist()
        self._sets = self._sizes = self._last = torch.empty(0)

    def measured(self, k: int, x: State) -> Partial:
        """Return the mean current since the time before, and its spread over sets."""
        about = self._about
        # on the CPU, since a GPU adds weights up in an order of its own
        u = coordinate_of(x, about.coordinate, about.name).double().cpu() - about.low
        if k == 0:
            count = min(_SETS, len(u))
            self._sets = torch.arange(len(u)) * count // len(u)
            self._sizes = torch.bincount(self._sets, minlength=count).double()
        last, self._last = self._last, self._passed(u)
        if k == 0:
            return {}
        weight = self._sizes[:, None]
        current = (self._last - last) / (weight * self._dt[k - 1])
        mean = (current * weight).sum(0) / weight.sum()
        return {"mean": mean, "spread": (weight * (current - mean) ** 2).sum(0)}

    def _passed(self, u: Tensor) -> Tensor:
        """Return how often each cell was passed on the way from −∞, or 0, to u: (sets, cells)."""
        about, sets = self._about, len(self._sizes)
        length = about.high - about.low
        turns = torch.floor(u / length) if about.periodic else torch.zeros_like(u)
        rest = (u - turns * length).clamp_(0.0, length) * (about.cells / length)
        cell = rest.floor().clamp_(max=about.cells - 1)
        place = self._sets * about.cells + cell.long()
        size, shape = sets * about.cells, (sets, about.cells)
        inside = torch.bincount(place, minlength=size).reshape(shape).double()
        part = torch.bincount(place, rest - cell, minlength=size).reshape(shape)
        beyond = inside.flip(1).cumsum(1).flip(1) - inside
        around = torch.bincount(self._sets, turns, minlength=sets)[:, None]
        return beyond + part + around

    def partial(self) -> Partial:
        sets = torch.tensor(float(len(self._sizes)), dtype=torch.float64)
        return super().partial() | {"sets": sets}
