"""Residence times: how long a trajectory stays in a region before it leaves.

A path of noise that is at an edge crosses it without end, so that its stays between one edge and
itself have no length: a stay needs two sets. It begins where the trajectory comes into a **core**,
and ends where it leaves a **region** around the core. From the left well of a double well, say,
with core = (−∞, −1) and region = (−∞, 1), stays are the times of first passage from −1 to 1.

Between two steps a Brownian bridge tells whether an edge was touched, as in
`sdegen.observables.passages`, and a stay begins and ends at a uniform moment of its step; what is
left is O(dt²) beside the error of the chain.

**Stays that are cut off.** One that is under way at the first time has no beginning that was seen:
it is left out, counted as `unbegun`, unless `from_start` says that it begins there. One that is
under way at the last time is known to be longer than what was seen of it, and counts until then:
of n_j stays that reach bin j of the histogram d_j end in it and c_j are cut off in it, on average
in its middle, and

    S_{j+1} = S_j (1 − d_j/n_j′),      n_j′ = n_j − c_j/2

is the chance to stay longer than the bin's end (the actuarial form of Kaplan and Meier's
estimate), with Greenwood's error S √(Σ d/(n′(n′ − d))). Where stays have one rate of ending, its
most likely value is the number that ended over the time of all stays. Both take the stays of a
trajectory as independent.

Reference:
    Kaplan and Meier 1958, Journal of the American Statistical Association 53, 457, section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdegen.core.checks import check_count, check_flag, check_positive
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise_structure import check_not_general
from sdegen.core.requests import as_number, kind_of
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, Block, Observable, Partial
from sdegen.observables.coordinates import coordinate_of
from sdegen.observables.passages import NEVER, step_noise, touches

_ROUNDING = 1e-9  # of a bin: a stay that ends at an edge belongs below it


@dataclass(frozen=True, eq=False)
class Stays(Labelled):
    """How long stays were.

    Args:
        edges: Edges of the bins of the length of a stay, in units of time, shape (bins + 1,).
        ended: Stays that ended, by their length, shape (bins,).
        cut: Stays that the last time cut off, by what was seen of them, shape (bins,).
        longer: Stays that were longer than the last edge, ended or not.
        unbegun: Stays under way at the first time, in none of these numbers.
        total: Stays that ended, of any length.
        exposure: Time of all stays, those cut off included.
        count: Trajectories.
        lost: Trajectories of a path that were left out, as they are not finite.
    """

    edges: Float[Tensor, " edges"]
    ended: Int[Tensor, " bins"]
    cut: Int[Tensor, " bins"]
    longer: int
    unbegun: int
    total: int
    exposure: float
    count: int
    lost: int = 0

    @property
    def at_risk(self) -> Float[Tensor, " bins"]:
        """n′: stays that reach a bin, less half of those cut off in it."""
        left = (self.ended + self.cut).flip(0).cumsum(0).flip(0) + self.longer
        return left.double() - self.cut / 2

    @property
    def survival(self) -> Float[Tensor, " edges"]:
        """Chance to stay longer than each edge; NaN from where on no stay tells."""
        return torch.cat([torch.ones(1, dtype=torch.float64), (1 - self._share).cumprod(0)])

    @property
    def survival_error(self) -> Float[Tensor, " edges"]:
        """Its standard error, by Greenwood's formula; 0 where all have ended."""
        error = self.survival[1:] * self._greenwood().cumsum(0).sqrt()
        error = torch.where(self.survival[1:] == 0, 0.0, error)
        return torch.cat([torch.zeros(1, dtype=torch.float64), error])

    @property
    def density(self) -> Float[Tensor, " bins"]:
        """Density of the length of a stay, in units of 1/time, its mean over each bin."""
        return -self.survival.diff() / self.edges.diff()

    @property
    def density_error(self) -> Float[Tensor, " bins"]:
        """Its standard error; where no stay is cut off, √(p(1 − p)/n) over the width of a bin."""
        q, n = self._share, self.at_risk
        before = torch.cat([torch.zeros(1, dtype=torch.float64), self._greenwood().cumsum(0)[:-1]])
        variance = self.survival[:-1].square() * (q * (1 - q) / n + q.square() * before)
        return torch.where(q == 0, 0.0, variance.sqrt()) / self.edges.diff()

    @property
    def rate(self) -> float:
        """Ends per time of stays: the most likely rate where it is one, cut off or not."""
        return self.total / self.exposure if self.exposure > 0 else math.nan

    @property
    def rate_error(self) -> float:
        """Its standard error, rate/√ended."""
        return self.rate / math.sqrt(self.total) if self.total else math.inf

    @property
    def _share(self) -> Tensor:
        """Share of those at risk that end in each bin."""
        return self.ended.double() / self.at_risk

    def _greenwood(self) -> Tensor:
        """d/(n′(n′ − d)) of each bin."""
        return self._share / (self.at_risk - self.ended)


@dataclass(frozen=True)
class ResidenceTimes(Observable):
    """How long one coordinate stays in a region, from coming into its core until it leaves.

        S_{j+1} = S_j (1 − d_j/n_j′),     rate = stays that ended/time of all stays

    It sees every step, so that it needs a solver of fixed steps. Where a boundary is periodic the
    region lies on the line, and turns are counted.

    Args:
        core: Ends (low, high) of the interval in which a stay begins; −∞ and ∞ are possible.
        region: Ends of the interval whose leaving ends it, around the core; None is the core,
            for paths without noise and for bridge=False.
        longest: Last edge of the histogram; None takes the time of the run.
        bins: Bins of the histogram.
        coordinate: Which number of the flattened event.
        bridge: Whether edges touched between two steps are drawn; without, the chain is only
            looked at.
        from_start: Whether a stay of those that start in the core begins at the first time.
        name: What the result is called.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an interval is empty, or the core does not lie in the region.

    Example:
        >>> wind, times = sg.ItoProcess(lambda x: 0 * x + 1.0, 0.0), [0.5 * k for k in range(11)]
        >>> asked = sg.ResidenceTimes(core=(0.8, 2.3), bridge=False, bins=5)
        >>> x0 = torch.zeros(4, 1)
        >>> run = sg.run_ensemble(wind, x0, times, trajectories=4, observables=[asked])
        >>> stays = run.observables["residence"]
        >>> stays.edges.tolist(), stays.ended.tolist(), f"{stays.rate:.3f}"  # 1/1.5
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0, 4, 0, 0, 0], '0.667')
    """

    core: tuple[float, float]
    region: tuple[float, float] | None = None
    longest: float | None = None
    bins: int = 50
    coordinate: int = 0
    bridge: bool = True
    from_start: bool = False
    name: str = "residence"
    unwrapped: bool = field(default=True, init=False, repr=False)

    every_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "core", _interval("core", self.core))
        region = self.core if self.region is None else _interval("region", self.region)
        object.__setattr__(self, "region", region)
        low, high = self.region_ends
        if not (low <= self.core[0] and self.core[1] <= high):
            raise ValueError(f"region must hold the core {self.core}, but is {region}.")
        if self.longest is not None:
            check_positive("longest", self.longest)
        check_count("bins", self.bins)
        check_count("coordinate", self.coordinate, least=0)
        check_flag("bridge", self.bridge)
        check_flag("from_start", self.from_start)

    @property
    def region_ends(self) -> tuple[float, float]:
        """Ends of the region."""
        assert self.region is not None
        return self.region

    def inside(self, x: Tensor, interval: tuple[float, float]) -> Tensor:
        """Return which values lie in an interval."""
        return (x >= interval[0]) & (x <= interval[1])

    def edges(self, times: Tensor) -> Tensor:
        """Return the edges of the bins."""
        longest = self.longest or float((times[-1] - times[0]).abs())
        return torch.linspace(0, longest, self.bins + 1, dtype=torch.float64)

    def binned(self, lengths: Tensor, edges: Tensor) -> Tensor:
        """Return counts by length, shape (bins + 1,): the last are longer than the last edge."""
        place = (lengths / float(edges[1]) - _ROUNDING).ceil().clamp(1, self.bins + 1) - 1
        return torch.bincount(place.long(), minlength=self.bins + 1)

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator that watches each step.

        Raises:
            ValueError: If a boundary absorbs: an absorbed trajectory stays for ever.
        """
        if block.boundary is not None and block.boundary.absorbs:
            raise ValueError(
                f"observable {self.name!r} does not know stays of absorbed trajectories; drop the "
                "absorbing boundary, or use FirstPassage(…)."
            )
        return _Staying(self, block)

    def result(self, total: Partial, times: Tensor) -> Stays:
        """Return histogram, survival and rate."""
        ended, cut = total["ended"], total["cut"]
        return Stays(
            edges=self.edges(times),
            ended=ended[:-1],
            cut=cut[:-1],
            longer=int(ended[-1] + cut[-1]),
            unbegun=int(total["unbegun"]),
            total=int(ended.sum()),
            exposure=float(total["exposure"]),
            count=int(total["n"]),
        )


def _interval(name: str, ends: object) -> tuple[float, float]:
    """Return both ends of an interval.

    Raises:
        TypeError: If they are no pair of numbers.
        ValueError: If low ≥ high, or one is NaN.
    """
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        raise TypeError(f"{name} must be a pair (low, high), but is {kind_of(ends)}.")
    low, high = (as_number(name, end) for end in ends)
    if not low < high:
        raise ValueError(f"{name} must be a pair low < high, but is ({low:g}, {high:g}).")
    return low, high


class _Staying(Accumulator):
    """Watches who stays in a block, and since when."""

    def __init__(self, about: ResidenceTimes, block: Block) -> None:
        self._about, self._block = about, block
        if about.bridge:
            why = ", which a Brownian bridge does not have; pass bridge=False, with short steps."
            check_no_jumps(block.sde, "ResidenceTimes(bridge=True)", why)
            check_not_general(block.sde, "ResidenceTimes(bridge=True)")
        since = (block.nodes - block.nodes[0]).abs()
        self._end = float(since[-1])
        self._at: list[float] = since.tolist()
        self._dt: list[float] = since.diff().tolist()
        self._bins = about.edges(block.times)
        self._ended = torch.zeros(about.bins + 1, dtype=torch.long)
        self._exposure = torch.zeros((), dtype=torch.float64)
        self._stays = self._counts = torch.empty(0, dtype=torch.bool)
        self._begun = torch.empty(0, dtype=torch.float64)
        self._unbegun = torch.zeros((), dtype=torch.long)

    def see(self, k: int, x: State) -> None:
        if k > 0:
            return
        about = self._about
        column = coordinate_of(x, about.coordinate, about.name)
        if about.bridge:
            self._check_edges(x)
        self._stays = about.inside(column, about.core)
        self._counts = torch.full_like(self._stays, about.from_start)
        self._begun = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        self._unbegun = self._stays.sum() * (not about.from_start)

    def _check_edges(self, x: State) -> None:
        """Refuse a stay that begins and ends at one edge, of a coordinate that noise moves."""
        about = self._about
        pairs = zip(about.core, about.region_ends, strict=True)
        shared = [inner for inner, outer in pairs if inner == outer and math.isfinite(inner)]
        noise = step_noise(self._block.sde, about.coordinate, x, self._block.nodes[0], 1.0)
        if shared and bool((noise > 0).any()):
            raise ValueError(
                f"stays of {about.name!r} begin and end at {shared[0]:g}, and a path of noise "
                "that is there crosses it without end, so that they get the shorter the shorter "
                "the steps are; give a region= that is wider than the core, or pass bridge=False "
                "for stays as they are looked at."
            )

    def step(self, i: int, before: State, after: State) -> None:
        about = self._about
        x = before.flatten(1)[:, about.coordinate]
        y = after.flatten(1)[:, about.coordinate]
        leaves = self._stays & ~about.inside(y, about.region_ends)
        comes = ~self._stays & about.inside(y, about.core)
        if about.bridge:
            noise = step_noise(self._block.sde, about.coordinate, before, self._block.nodes[i],
                               self._dt[i])  # fmt: skip
            leaves |= self._stays & self._touched(x, y, about.region_ends, noise)
            comes |= ~self._stays & self._touched(x, y, about.core, noise)
        rows = (leaves | comes).nonzero()[:, 0]
        if len(rows) == 0:
            return
        moment = torch.full((len(rows),), 0.5, dtype=torch.float64, device=x.device)
        if about.bridge:
            own = self._block.stream.generator(x.device)
            moment.uniform_(generator=own)
        moment = self._at[i] + self._dt[i] * moment
        left = leaves[rows]
        done = left & self._counts[rows]
        lengths = (moment - self._begun[rows])[done].cpu()
        self._ended += about.binned(lengths, self._bins)
        self._exposure += lengths.sum()
        self._stays[rows] = ~left
        self._counts[rows] = True
        self._begun[rows] = moment

    def _touched(
        self, x: Tensor, y: Tensor, interval: tuple[float, float], noise: Tensor
    ) -> Tensor:
        """Return which paths touched an end of an interval between two states."""
        found = torch.zeros_like(self._stays)
        for edge in interval:
            if not math.isfinite(edge):
                continue
            q = (x - edge) * (y - edge)
            rows = (q <= NEVER * noise).nonzero()[:, 0]
            own = self._block.stream.generator(q.device)
            u = torch.rand(len(rows), generator=own, dtype=torch.float64, device=q.device)
            wide = noise if noise.ndim == 0 else noise[rows]
            found[rows] |= touches(q[rows], u, wide)
        return found

    def partial(self) -> Partial:
        cut = (self._end - self._begun)[self._stays & self._counts].cpu()
        return {
            "n": torch.tensor(len(self._stays)),
            "ended": self._ended,
            "cut": self._about.binned(cut, self._bins),
            "unbegun": self._unbegun,
            "exposure": self._exposure + cut.sum(),
        }
