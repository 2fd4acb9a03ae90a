"""Particles: energy and pressure, radial distribution function, with errors.

Of N particles in a box of volume V, each measured of every system by itself:

    U(x), P(x) = N T/V + W/(d V)          of `PairForces`, whose means are energy and pressure
    g(r) = V/(v_r N(N − 1)/2) · (pairs with a distance in the shell)

v_r is the exact volume of the shell between two edges. g counts pairs of N(N − 1)/2, so that it is
1 for particles that do not see each other, whatever N is; with N²/2 in its place it would be
1 − 1/N. At low density it is e^{−U₂/T}. The energies are those of the cut and shifted potential:
no tail beyond the cutoff is added.

Systems are independent trajectories, and errors are the scatter between them over √n: at each time
of the mean over systems, and for the average over times of the averages of single systems, which
holds whatever correlates the times. A run of one system has no such error, it is NaN: pass
`observable.each` of its stored states to `time_average` of the measurements.

Reference:
    Allen and Tildesley 2017, Computer Simulation of Liquids, sections 2.6 and 8.2; Hansen and
    McDonald 2013, Theory of Simple Liquids, eq. (2.5.15).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count, check_int, check_positive
from sdegen.core.requests import check_kind
from sdegen.core.shapes import Numbers, State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, Block, Observable, Partial
from sdegen.observables.path_energies import positions_of
from sdegen.observables.trajectory_means import covariance_of_mean, merge_sums, sums_of
from sdegen.sde.neighbours import (
    Lengths,
    NeighbourLists,
    check_box,
    check_positions,
    lengths_of,
    tree_of,
)
from sdegen.sde.pair_forces import PairForces

_FEW = 300  # particles of which all distances are made; of more a tree counts


@dataclass(frozen=True, eq=False)
class SystemMean(Labelled):
    """Means over systems, at each time and over all times: average = (1/T) Σ_k mean(t_k).

    Args:
        times: From the origin on, shape (T,).
        mean: Mean over systems at each time, shape (T, *shape).
        mean_error: Its standard error; NaN for one system.
        average: Mean over times and systems, shape (*shape).
        average_error: Its standard error, from averages over time of single systems.
        count: Systems.
        at: Distances r, the middles of shells, or lengths of k, the means of shells, shape
            (*shape); None for a number.

    Example:
        >>> class Extent(sg.OfSystems):
        ...     name = "extent"
        ...     def each(self, x):
        ...         return (x - x.mean(1, keepdim=True)).square().sum((1, 2))
        >>> decay = sg.ItoProcess(lambda x: -x, 0.0)
        >>> x0 = torch.tensor([[[0.0], [2.0]]]).repeat(2, 1, 1)
        >>> run = sg.run_ensemble(decay, x0, [0.0, 0.5], trajectories=2, observables=[Extent()])
        >>> found = run.observables["extent"]
        >>> found.mean.tolist(), found.average.item()
        ([2.0, 0.5], 1.25)
    """

    times: Float[Tensor, " T"]
    mean: Float[Tensor, "T *shape"]
    mean_error: Float[Tensor, "T *shape"]
    average: Float[Tensor, "*shape"]
    average_error: Float[Tensor, "*shape"]
    count: int
    at: Float[Tensor, "*shape"] | None = None


@dataclass(frozen=True)
class OfSystems(Observable):
    """What each system has by itself, shape (batch, *shape); the mean over systems and over times.

        average = (1/T) Σ_k (1/n) Σ_systems each(x(t_k))

    Args:
        origin: Index into times of the first that counts.

    Example:
        >>> class Extent(sg.OfSystems):
        ...     name = "extent"
        ...     def each(self, x):
        ...         return (x - x.mean(1, keepdim=True)).square().sum((1, 2))
        >>> Extent().each(torch.tensor([[[0.0], [2.0]]]))  # (0 − 1)² + (2 − 1)²
        tensor([2.])
    """

    origin: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            TypeError: If origin is no int.
            ValueError: If origin is negative.
        """
        if check_int("origin", self.origin) < 0:
            raise ValueError(f"origin must be ≥ 0, but is {self.origin}.")

    @abstractmethod
    def each(self, x: State) -> Tensor:
        """Return the value of each system, shape (batch, *shape).

        Args:
            x: Positions, shape (batch, particles, dim), within a box or not.
        """

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator of sums.

        Raises:
            ValueError: If origin is beyond the times.
        """
        if self.origin >= len(block.times):
            raise ValueError(
                f"origin must be below {len(block.times)}, the number of times, but is "
                f"{self.origin}."
            )
        return _Sums(self, block)

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Merge by Chan's formula."""
        return merge_sums(left, right)

    def result(self, total: Partial, times: Tensor) -> SystemMean:
        """Return means and errors."""
        error = covariance_of_mean(total, "square").sqrt()
        mean = total["mean"]
        return SystemMean(
            times=times[self.origin :],
            mean=mean[:-1],
            mean_error=error[:-1],
            average=mean[-1],
            average_error=error[-1],
            count=int(total["n"]),
            at=self._at(),
        )

    def _at(self) -> Tensor | None:
        """Return where the numbers of one system are."""
        return None


class _Sums(Accumulator):
    """Gathers sums over systems at each time, and the average over time of each system."""

    def __init__(self, observable: OfSystems, block: Block) -> None:
        self._observable, self._positions = observable, positions_of(block.sde)
        self._at_times: list[Partial] = []
        self._total: Tensor | None = None

    def see(self, k: int, x: State) -> None:
        if k < self._observable.origin:
            return
        values = self._observable.each(self._positions(x)).double()
        self._at_times.append(sums_of(values))
        self._total = values if self._total is None else self._total + values

    def partial(self) -> Partial:
        assert self._total is not None
        parts = [*self._at_times, sums_of(self._total / len(self._at_times))]
        stacked = {key: torch.stack([part[key] for part in parts]) for key in ("mean", "square")}
        return {"n": parts[0]["n"]} | stacked


@dataclass(frozen=True)
class PairEnergy(OfSystems):
    """The cut and shifted potential energy of all particles of each system, shape (batch,).

        U(x) = Σ_{i<j} [u(r_ij) − u(r_cut)]

    Args:
        pairs: The forces between the particles, whose energy it is.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If pairs are no `PairForces`.

    Example:
        >>> pairs = sg.PairForces(sg.HarmonicRepulsion(2.0, 1.0))
        >>> sg.PairEnergy(pairs).each(torch.tensor([[[0.0], [0.5]]]))
        tensor([0.2500], dtype=torch.float64)
    """

    pairs: PairForces
    name: str = "energy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("pairs", self.pairs, PairForces, "PairForces(potential, …)")

    def each(self, x: State) -> Tensor:
        """Return U(x), shape (batch,)."""
        return self.pairs.energy(check_positions(x, self.pairs.box).double())


@dataclass(frozen=True)
class Pressure(OfSystems):
    """The pressure of each system by the virial W of its pairs, shape (batch,).

        P = N T/V + W/(d V)

    Args:
        pairs: The forces between the particles, in a box.
        temperature: T of the ideal part.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If pairs are no `PairForces`.
        ValueError: If temperature ≤ 0.

    Example:
        >>> pairs = sg.PairForces(sg.HarmonicRepulsion(2.0, 1.0), box=10.0)
        >>> sg.Pressure(pairs, temperature=1.0).each(torch.tensor([[[0.0], [0.5]]]))
        tensor([0.2500], dtype=torch.float64)
    """

    pairs: PairForces
    temperature: float
    name: str = "pressure"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("pairs", self.pairs, PairForces, "PairForces(potential, …)")
        check_positive("temperature", self.temperature)

    def each(self, x: State) -> Tensor:
        """Return P, shape (batch,)."""
        return self.pairs.pressure(check_positions(x, self.pairs.box).double(), self.temperature)


@dataclass(frozen=True)
class RadialDistribution(OfSystems):
    """The density of particles around a particle over that of independent ones, (batch, bins).

        g(r) = V/(v_r N(N − 1)/2) · (pairs with a distance in the shell)

    Args:
        box: Length of the periodic box, or one for each dimension.
        r_max: Last edge, at most half of the box.
        bins: Shells.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If bins is no int, or box no lengths.
        ValueError: If r_max is beyond half of the box, or not positive.

    Example:
        >>> asked = sg.RadialDistribution(box=10.0, r_max=3.0, bins=3)
        >>> asked.each(torch.tensor([[[0.0], [1.5]]]))  # 10/(2 · 1) in the shell from 1 to 2
        tensor([[0., 5., 0.]], dtype=torch.float64)
    """

    box: Numbers
    r_max: float
    bins: int = 100
    name: str = "radial_distribution"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("r_max", self.r_max)
        check_count("bins", self.bins)
        half = _shortest(self.box) / 2
        if self.r_max > half:
            raise ValueError(
                f"r_max must be at most half of the box, {half:g}, since a shell beyond it leaves "
                f"the box, but is {self.r_max:g}; pass r_max={half:g}."
            )

    @property
    def edges(self) -> Tensor:
        """Edges of the shells, shape (bins + 1,), float64."""
        return torch.linspace(0, self.r_max, self.bins + 1, dtype=torch.float64)

    def each(self, x: State) -> Tensor:
        """Return g(r), shape (batch, bins)."""
        x = check_positions(x, None)
        particles, dim, lengths = *x.shape[1:], box_lengths(self.box, x)
        unit = math.pi ** (dim / 2) / math.gamma(dim / 2 + 1)
        shells = unit * (self.edges**dim).diff()
        expected = particles * (particles - 1) / 2 * shells / math.prod(lengths)
        return self._counts(x.detach().double(), lengths).cpu().div(expected)

    def _counts(self, x: Tensor, lengths: Lengths) -> Tensor:
        """Return pairs in each shell, shape (batch, bins), float64."""
        batch, particles, _ = x.shape
        if particles <= _FEW:
            pairs = NeighbourLists(lengths, self.r_max).pairs(x)
            shell = (pairs.distance * (self.bins / self.r_max)).long().clamp(max=self.bins - 1)
            place = pairs.first // particles * self.bins + shell
            return torch.bincount(place, minlength=batch * self.bins).reshape(batch, -1).double()
        edges, counts = self.edges.numpy(), []
        for one in x.cpu().numpy():
            tree = tree_of(one, lengths)
            upto = tree.count_neighbors(tree, edges)  # of both orders, each with itself
            upto[0] = particles
            counts.append(torch.from_numpy(np.diff(upto) / 2))
        return torch.stack(counts)

    def _at(self) -> Tensor:
        edges = self.edges
        return (edges[1:] + edges[:-1]) / 2


def _shortest(box: Numbers) -> float:
    """Return the shortest length of a box, or refuse what is none."""
    lengths = check_box(box)
    if lengths is None:
        raise TypeError("box must be a length, or one for each dimension, but is None.")
    return lengths if isinstance(lengths, float) else min(lengths)


def box_lengths(box: Numbers, x: State) -> Lengths:
    """Return L of each dimension of positions, or refuse other states."""
    lengths = check_box(box)
    return lengths_of(lengths, check_positions(x, lengths).shape[2])
