"""Particles: energy and pressure, radial distribution function, structure factor, with errors.

Of N particles in a box of volume V, each measured of every system by itself:

    U(x), P(x) = N T/V + W/(d V)          of `PairForces`, whose means are energy and pressure
    g(r) = V/(v_r N(N − 1)/2) · (pairs with a distance in the shell)
    S(k) = |Σ_j e^{−i k·x_j}|²/N,         k = 2π (n₁/L₁, …), k ≠ 0, the mean over a shell of |k|

v_r is the exact volume of the shell between two edges. g counts pairs of N(N − 1)/2, so that it is
1 for particles that do not see each other, whatever N is; with N²/2 in its place it would be
1 − 1/N. At low density it is e^{−U₂/T}. S(k) is 1 for an ideal gas, and known at the k of the box
alone. The energies are those of the cut and shifted potential: no tail beyond the cutoff is added.

Systems are independent trajectories, and errors are the scatter between them over √n: at each time
of the mean over systems, and for the average over times of the averages of single systems, which
holds whatever correlates the times. A run of one system has no such error, it is NaN: pass
`observable.each` of its stored states to `time_average` of the measurements.

Reference:
    Allen and Tildesley 2017, Computer Simulation of Liquids, sections 2.6 and 8.2; Hansen and
    McDonald 2013, Theory of Simple Liquids, eqs. (2.5.15) and (4.1.3).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache

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
_MOST_VECTORS = 2**22


@dataclass(frozen=True, eq=False)
class SystemMean(Labelled):
    """Means over systems, at each time and over all times.

    Args:
        times: From the origin on, shape (T,).
        mean: Mean over systems at each time, shape (T, *shape).
        mean_error: Its standard error; NaN for one system.
        average: Mean over times and systems, shape (*shape).
        average_error: Its standard error, from averages over time of single systems.
        count: Systems.
        at: Distances r, the middles of shells, or lengths of k, the means of shells, shape
            (*shape); None for a number.
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
    """What each system has by itself; the mean over systems and over times.

    Args:
        origin: Index into times of the first that counts.
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
    """U(x) of each system, the cut and shifted potential energy of all its particles.

    Args:
        pairs: The forces between the particles, whose energy it is.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If pairs are no `PairForces`.
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
    """P = N T/V + W/(d V) of each system, by the virial W of its pairs.

    Args:
        pairs: The forces between the particles, in a box.
        temperature: T of the ideal part.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If pairs are no `PairForces`.
        ValueError: If temperature ≤ 0.
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
    """g(r), the density of particles around a particle over that of independent ones.

    Args:
        box: Length of the periodic box, or one for each dimension.
        r_max: Last edge, at most half of the box.
        bins: Shells.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If bins is no int, or box no lengths.
        ValueError: If r_max is beyond half of the box, or not positive.
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
        particles, dim, lengths = *x.shape[1:], _lengths(self.box, x)
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


@dataclass(frozen=True)
class StructureFactor(OfSystems):
    """S(k), the power of the density at the wave vectors of the box, averaged over shells.

    Args:
        box: Length of the periodic box for each of its 1 to 3 dimensions, such as (10.0, 10.0).
        k_max: Largest |k|.
        bins: Shells of equal width up to k_max; those without a k of the box are left out.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If bins is no int, or box no lengths.
        ValueError: If no k of the box is within k_max, or they are too many.
    """

    box: Numbers
    k_max: float
    bins: int = 50
    name: str = "structure_factor"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("k_max", self.k_max)
        check_count("bins", self.bins)
        lengths = self._box()
        least = 2 * math.pi / max(lengths)
        if self.k_max < least:
            raise ValueError(
                f"k_max must be at least {least:g}, the smallest k of the box, 2π/L, but is "
                f"{self.k_max:g}."
            )
        count = math.prod(self.k_max * length / math.pi + 1 for length in lengths)
        if count > _MOST_VECTORS:
            raise ValueError(
                f"k_max = {self.k_max:g} has {count:.3g} wave vectors of the box, of at most "
                f"{_MOST_VECTORS}; pass a smaller k_max."
            )

    def _box(self) -> Lengths:
        box = check_box(self.box)
        if not isinstance(box, tuple) or len(box) > 3:
            raise ValueError(
                "box must have a length for each of 1 to 3 dimensions, such as (10.0, 10.0), but "
                f"is {self.box!r}."
            )
        return box

    def each(self, x: State) -> Tensor:
        """Return S(k), shape (batch, shells)."""
        x, lengths = check_positions(x, None), _lengths(self.box, x)
        modes, inside, means, _ = _shells(lengths, self.k_max, self.bins)
        waves = [
            torch.exp(-2j * math.pi / length * x[..., c, None].double() * n.to(x.device))
            for c, (length, n) in enumerate(zip(lengths, modes, strict=True))
        ]
        if len(waves) == 1:
            rho = waves[0].sum(1)
        elif len(waves) == 2:
            rho = waves[0].mT @ waves[1]
        else:
            planes = [(wave[..., None] * waves[1]).mT @ waves[2] for wave in waves[0].unbind(-1)]
            rho = torch.stack(planes, 1)
        power = (rho.real.square() + rho.imag.square()).flatten(1) / x.shape[1]
        return power[:, inside.to(x.device)].cpu() @ means

    def _at(self) -> Tensor:
        return _shells(self._box(), self.k_max, self.bins)[3]


@lru_cache(maxsize=8)
def _shells(
    lengths: Lengths, k_max: float, bins: int
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return wave numbers of each dimension, which of their grid count, means, and mean |k|.

    Of k and −k, which have one power, one counts; the means are a matrix (vectors, shells).
    """
    most = [int(k_max * length / (2 * math.pi)) for length in lengths]
    modes = [torch.arange(-m, m + 1, dtype=torch.float64) for m in most]
    modes[0] = modes[0][most[0] :]
    n = torch.cartesian_prod(*modes).reshape(-1, len(modes))
    k = (2 * math.pi * n / torch.tensor(lengths, dtype=torch.float64)).square().sum(1).sqrt()
    # the first component that is not 0 is positive
    leading = torch.zeros(len(n), dtype=torch.float64)
    for column in n.unbind(1):
        leading = torch.where(leading == 0, column, leading)
    inside = ((leading > 0) & (k <= k_max)).nonzero()[:, 0]
    shell = (k[inside] * (bins / k_max)).long().clamp(max=bins - 1)
    found, place = np.unique(shell.numpy(), return_inverse=True)
    means = torch.zeros(len(inside), len(found), dtype=torch.float64)
    means[torch.arange(len(inside)), torch.from_numpy(place)] = 1.0
    means = means / means.sum(0)
    return modes, inside, means, k[inside] @ means


def _shortest(box: Numbers) -> float:
    """Return the shortest length of a box, or refuse what is none."""
    lengths = check_box(box)
    if lengths is None:
        raise TypeError("box must be a length, or one for each dimension, but is None.")
    return lengths if isinstance(lengths, float) else min(lengths)


def _lengths(box: Numbers, x: State) -> Lengths:
    """Return L of each dimension of positions, or refuse other states."""
    lengths = check_box(box)
    return lengths_of(lengths, check_positions(x, lengths).shape[2])
