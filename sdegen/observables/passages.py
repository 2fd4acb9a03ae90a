"""First passages of trajectories to a region, those between two steps included.

A chain that is looked at every dt misses the paths that were in the region and back between two
looks, so that it survives too long, by O(√dt). Brownian motion of drift −1 and D = ½ that starts
at 1 and is looked at every 0.01 stays above 0 until t = 1 with probability 0.358, where the exact
one is 0.332. Between two states x and y on one side of an edge e the path is close to a Brownian
bridge, which touches the edge with probability

    exp(−(x − e)(y − e)/(D dt)),      D = g(x, t)²/2

and 1 where the states lie on two sides. Each step a uniform number of the observable's own stream
decides; one for each edge where a path may leave an interval at either. What is left is the error
of the chain itself, O(dt) for Euler-Maruyama.

An edge may be a function of t; over a step it is taken as straight, e₀ to e₁, and the product is
(x − e₀)(y − e₁). Where `simulate` has an absorbing end with a bridge on the same side, it has
decided already whether the path came to its end; given that it did not, an edge before it was
touched with probability (p_e − p_b)/(1 − p_b), so that no passage is drawn for twice.

The passage is counted at the middle of its step. The trajectory goes on as if nothing had
happened; only its first passage counts.

Reference:
    Gobet 2000, Stochastic Processes and their Applications 87, 167, section 2, for the bridge and
    the order of what is left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdegen.core.bounds import Bound, values_of
from sdegen.core.channels import are_correlated, deviation
from sdegen.core.checks import check_count, check_flag
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise_structure import check_not_general
from sdegen.core.requests import as_number, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.observables.base import Accumulator, Block, Observable, Partial
from sdegen.observables.coordinates import coordinate_of

NEVER = 40.0  # a chance of e^−40 is not drawn for
_SORTED_OUT = {"cpu"}  # devices on which to draw for few rows costs less than to find them


def step_noise(sde: SDE, coordinate: int, x: State, t: Tensor, dt: float) -> Tensor:
    """Return D dt of one coordinate, D = g²/2: a number, or one for each trajectory."""
    g = deviation(sde, x, t)
    if g.numel() == 1:
        return dt / 2 * g.reshape(()).double().square()
    return dt / 2 * g.expand_as(x).flatten(1)[:, coordinate].square()


def touches(q: Tensor, u: Tensor, noise: Tensor) -> Tensor:
    """Return whether bridges touch an edge: u < exp(−q/D dt), also for no noise at all.

    Args:
        q: (x − e)(y − e) of the two ends of a step; ≤ 0 where they lie on two sides.
        u: Uniform numbers.
        noise: D dt.
    """
    return q.double() <= -u.log() * noise


@dataclass(frozen=True, eq=False)
class Passages(Labelled):
    """When trajectories first came to a region.

    Args:
        times: Times since the start, |t − times[0]|, shape (T,).
        waiting: Trajectories that have not been there by then, shape (T,).
        count: Trajectories.
        exposure: Sum over trajectories of the time they waited, to the passage or the end.
        first: Sum of the passage times of those that passed.
        second: Sum of their squares.
    """

    times: Float[Tensor, " T"]
    waiting: Int[Tensor, " T"]
    count: int
    exposure: float
    first: float
    second: float

    @property
    def passed(self) -> int:
        """Trajectories that came to the region."""
        return self.count - int(self.waiting[-1])

    @property
    def survival(self) -> Float[Tensor, " T"]:
        """Chance not to have been there yet."""
        return self.waiting.double() / self.count

    @property
    def survival_error(self) -> Float[Tensor, " T"]:
        """Its standard error, √(S(1 − S)/n)."""
        return (self.survival * (1 - self.survival) / self.count).sqrt()

    @property
    def histogram(self) -> Int[Tensor, " intervals"]:
        """Trajectories that passed between each two of the times, shape (T − 1,)."""
        return -self.waiting.diff()

    @property
    def density(self) -> Float[Tensor, " intervals"]:
        """Density of the passage time, its mean over each interval of the times: −ΔS/Δt.

        Its integral is the share that passed; those that started in the region are not in it.
        """
        return self.histogram.double() / (self.count * self.times.diff())

    @property
    def density_error(self) -> Float[Tensor, " intervals"]:
        """Standard error of the density, √(p(1 − p)/n)/Δt with p the share of an interval."""
        share = self.histogram.double() / self.count
        return (share * (1 - share) / self.count).sqrt() / self.times.diff()

    @property
    def rate(self) -> float:
        """Passages per time waited: the most likely rate of an exponential law, cut off or not.

        NaN where all start in the region, so that nobody waited.
        """
        return self.passed / self.exposure if self.exposure > 0 else math.nan

    @property
    def rate_error(self) -> float:
        """Its standard error, rate/√passed."""
        return self.rate / math.sqrt(self.passed) if self.passed else math.inf

    @property
    def mean(self) -> float:
        """Mean time of first passage.

        Raises:
            ValueError: If some have not passed: what they would add is not known.
        """
        if self.passed < self.count:
            raise ValueError(
                f"{self.count - self.passed} of {self.count} trajectories had not passed by "
                f"t = {float(self.times[-1]):g}, so that their mean time is not known; run "
                "longer, or use .rate, which counts the time that they waited."
            )
        return self.first / self.count

    @property
    def mean_error(self) -> float:
        """Standard error of the mean."""
        spread = self.second / self.count - self.mean**2
        return math.sqrt(max(0.0, spread) / self.count)


@dataclass(frozen=True)
class FirstPassage(Observable):
    """The time of first passage of one coordinate to a region.

    The region is x ≥ above, or x ≤ below, or with both what is outside of (below, above): the exit
    from an interval; or it is the interval between[0] ≤ x ≤ between[1], from either side. Those
    that start in it have passed at time 0. It sees every step, so that it needs a solver of fixed
    steps. Where a boundary is periodic the region lies on the line, and turns are counted.

    Args:
        above: Lower end of a region that reaches up to infinity, a number or a function of t.
        below: Upper end of a region that reaches down to minus infinity, likewise.
        between: Both ends of an interval.
        coordinate: Which number of the flattened event.
        bridge: Whether passages between two steps are drawn; without, the chain is only looked at.
        name: What the result is called.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If no region is given, or an empty one.

    Example:
        >>> wind = sg.ItoProcess(lambda x: 0 * x + 1.0, 0.0)
        >>> asked = sg.FirstPassage(above=0.9, bridge=False)
        >>> start, times = torch.tensor([[0.0], [0.5]]), [0.0, 0.5, 1.0, 1.5]
        >>> run = sg.run_ensemble(wind, start, times, trajectories=2, observables=[asked])
        >>> run.observables["first_passage"].survival.tolist()
        [1.0, 0.5, 0.0, 0.0]
    """

    above: Bound | None = None
    below: Bound | None = None
    between: tuple[float, float] | None = None
    coordinate: int = 0
    bridge: bool = True
    name: str = "first_passage"
    unwrapped: bool = field(default=True, init=False, repr=False)

    every_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("coordinate", self.coordinate, least=0)
        check_flag("bridge", self.bridge)
        for side in ("above", "below"):
            edge: object = getattr(self, side)
            if edge is not None and (isinstance(edge, Tensor) or not callable(edge)):
                object.__setattr__(self, side, as_number(side, edge))
        if self.between is not None:
            if not isinstance(self.between, Sequence) or len(self.between) != 2:
                raise TypeError(
                    f"between must be a pair (low, high), but is {kind_of(self.between)}."
                )
            pair = tuple(as_number("between", edge) for edge in self.between)
            object.__setattr__(self, "between", pair)
        if (self.below is None and self.above is None) == (self.between is None):
            raise ValueError(
                "a first passage needs a region: above=…, below=…, both, or between=(low, high), "
                f"but has above = {self.above}, below = {self.below}, between = {self.between}."
            )
        if any(callable(edge) for edge in self.edges):
            return  # where they are is known once the times are
        low_high = [float(cast(float, e)) for e in self.edges]
        if any(not math.isfinite(e) for e in low_high) or sorted(set(low_high)) != low_high:
            raise ValueError(
                "the edges of a region must be finite, below < above, between[0] < between[1], "
                f"but are {low_high}."
            )

    @property
    def edges(self) -> tuple[Bound, ...]:
        """Where the region ends, low to high; a path that comes in crosses one of them."""
        half_lines = tuple(edge for edge in (self.below, self.above) if edge is not None)
        return half_lines if self.between is None else self.between

    def holds(self, x: Tensor, edges: Sequence[float]) -> Tensor:
        """Return whether values lie in the region.

        Args:
            x: Values.
            edges: Where its edges are at the time, in the order of `edges`.
        """
        if self.between is not None:
            return (x >= edges[0]) & (x <= edges[1])
        inside = torch.zeros_like(x, dtype=torch.bool)
        if self.above is not None:
            inside |= x >= edges[-1]
        if self.below is not None:
            inside |= x <= edges[0]
        return inside

    def begin(self, block: Block) -> Accumulator:
        """Return an accumulator that watches each step.

        Raises:
            ValueError: If edges that move meet.
        """
        return _Watch(self, block)

    def result(self, total: Partial, times: Tensor) -> Passages:
        """Return survival and rate."""
        since = (times - times[0]).abs()
        waiting = total["waiting"]
        first, second = float(total["first"]), float(total["second"])
        exposure = first + float(waiting[-1]) * float(since[-1])
        return Passages(since, waiting, int(total["n"]), exposure, first, second)


def _bridged_ends(about: FirstPassage, block: Block) -> list[tuple[bool, list[float]]]:
    """Return the ends whose bridges `simulate` draws: whether an upper one, and where it is."""
    interval = None if block.boundary is None else block.boundary.of(about.coordinate)
    if interval is None or block.sde.noise == "none" or block.sde.is_discrete:
        return []
    return [
        (above, values_of(end.at, block.nodes).tolist())
        for above, end in ((False, interval.low), (True, interval.high))
        if end is not None and end.boundary.bridged
    ]


class _Watch(Accumulator):
    """Watches which trajectories of a block still wait."""

    def __init__(self, about: FirstPassage, block: Block) -> None:
        self._about, self._block = about, block
        if about.bridge:
            why = ", which a Brownian bridge does not have; pass bridge=False, with short steps."
            check_no_jumps(block.sde, "FirstPassage(bridge=True)", why)
            check_not_general(block.sde, "FirstPassage(bridge=True)")
        # what a step needs to know of its times, as plain numbers once and for all
        self._middle = ((block.nodes[1:] + block.nodes[:-1]) / 2 - block.nodes[0]).abs().tolist()
        self._dt: list[float] = block.nodes.diff().abs().tolist()
        values = torch.stack([values_of(edge, block.nodes) for edge in about.edges], 1)
        met = (values.diff(dim=1) <= 0).any(1)
        if bool(met.any()):
            i = int(met.nonzero()[0])
            raise ValueError(
                f"the edges of a region must be below < above at all times, but at t = "
                f"{float(block.nodes[i]):g} they are {values[i].tolist()}; end the run before "
                "they meet."
            )
        self._edges: list[list[float]] = values.tolist()
        self._ends = _bridged_ends(about, block)
        bridged = () if block.boundary is None else block.boundary.bridged_columns()
        # of diagonal noise they are independent
        self._corners = [c for c in bridged if c != about.coordinate] if block.sde.channels else []
        self._waits = torch.empty(0, dtype=torch.bool)
        self._n = 0
        self._waiting: list[Tensor] = []
        self._passed: list[tuple[int, Tensor]] = []

    def see(self, k: int, x: State) -> None:
        if k == 0:
            self._n = len(x)
            column = coordinate_of(x, self._about.coordinate, self._about.name)
            self._waits = ~self._about.holds(column, self._edges[0])
        self._waiting.append(self._waits.sum())

    def step(self, i: int, before: State, after: State) -> None:
        about = self._about
        x = before.flatten(1)[:, about.coordinate]
        y = after.flatten(1)[:, about.coordinate]
        if not about.bridge:
            self._pass(i, self._waits & about.holds(y, self._edges[i + 1]))
            return
        noise = self._noise(i, before)
        reach = NEVER * noise
        pairs = zip(self._edges[i], self._edges[i + 1], strict=True)
        products = [(x - edge).mul_(y - moved) for edge, moved in pairs]
        near = products[0] <= reach
        for product in products[1:]:
            near |= product <= reach
        near &= self._waits
        if x.device.type not in _SORTED_OUT:  # how many they are, the host would have to wait for
            self._pass(i, near & self._touched(i, torch.stack(products, 1), noise, x, y))
            return
        rows = near.nonzero()[:, 0]
        if len(rows) == 0:
            return
        q = torch.stack([product[rows] for product in products], 1)
        wide = noise if noise.ndim == 0 else noise[rows]
        touched = self._touched(i, q, wide, x[rows], y[rows])
        rows = rows[touched]
        self._waits[rows] = False
        self._passed.append((i, torch.tensor(len(rows))))

    def _touched(self, i: int, q: Tensor, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return which paths were at an edge in the step; q = (x − e)(y − e), (rows, edges)."""
        # from outside, who touches the far edge of an interval has touched the near one
        draws = 1 if self._about.between is not None else q.shape[1]
        own = self._block.stream.generator(q.device)
        u = torch.rand((len(q), draws), generator=own, dtype=torch.float64, device=q.device)
        spread = (noise if noise.ndim == 0 else noise[:, None]).double()
        if not self._ends:
            return touches(q, u, spread).any(1)
        chance = (-q.double() / spread).exp().clamp(max=1.0)
        for above, at in self._ends:
            beyond = ((x - at[i]) * (y - at[i + 1])).double().clamp(min=0)[:, None]
            at_end = (-beyond / spread).exp()
            given = ((chance - at_end) / (1 - at_end).clamp(min=1e-300)).clamp(min=0)
            same_side = torch.tensor(self._edges[i], device=x.device) > x[:, None]
            chance = torch.where((same_side == above) & (q > 0), given, chance)
        return ((q <= 0) | (u < chance)).any(1)

    def _pass(self, i: int, passing: Tensor) -> None:
        """Enter who passes in a step, of those who wait."""
        self._waits = self._waits & ~passing
        self._passed.append((i, passing.sum()))

    def _noise(self, i: int, before: State) -> Tensor:
        """Return D dt of this step: a number, or one for each trajectory."""
        sde, t = self._block.sde, self._block.nodes[i]
        if self._corners and are_correlated(
            sde, before, t, [self._about.coordinate], self._corners
        ):
            raise ValueError(
                f"{self._about.name} draws passages of coordinate {self._about.coordinate} "
                f"between two steps, and its noise is correlated with that of {self._corners}, "
                "which have absorbing ends: near a corner the chances are not known. Pass "
                "Absorbing(…, bridge=False) for those, or FirstPassage(…, bridge=False)."
            )
        return step_noise(sde, self._about.coordinate, before, t, self._dt[i])

    def partial(self) -> Partial:
        first = sum(int(count) * self._middle[i] for i, count in self._passed)
        second = sum(int(count) * self._middle[i] ** 2 for i, count in self._passed)
        return {
            "n": torch.tensor(self._n),
            "waiting": torch.stack(self._waiting),
            "first": torch.tensor(first, dtype=torch.float64),
            "second": torch.tensor(second, dtype=torch.float64),
        }
