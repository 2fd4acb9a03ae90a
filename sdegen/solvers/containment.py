"""What a step of the chain does at a boundary, and what a block remembers of it.

**Reflecting, periodic.** What a step carries beyond an end is folded back, or wrapped; how often a
coordinate went around is counted, so that the path on the line is known.

**Absorbing.** What a step carries beyond an end stops there. A path that was beyond and back
between two steps is seen by the chain at neither: alone, that absorbs too slowly, by O(√dt).
Given x and y on this side, the path between them is close to a Brownian bridge, which touches an
end that moves from b₀ to b₁ along a straight line with probability

    exp(−2 (b₀ − x)(b₁ − y)/(g² dt)),      g = g(x, t) held over the step

A uniform number of a stream of its own decides, so that trajectories that meet no such end keep
their bits. What is left is the error of the chain, O(dt). A trajectory that is absorbed stays
where the end was at the close of its step.

**Reflecting, where the noise vanishes.** Towards an end at which g = 0, as √x at 0, the spread of
a step exceeds the distance: folded, it would be pushed away, by O(√dt) in the mean. There g² is
proportional to the distance ξ and f to nothing, nearly, and the law of a step of

    dξ = a dt + s √ξ dW    is    ξ' ~ c χ'²(d, λ),    c = s² dt/4,  d = a dt/c,  λ = ξ/c

a noncentral χ², which is positive, has an atom at the end where nothing leads away from it (a = 0)
and none elsewhere. Near such an end it replaces the plain step, with the mean and the variance of
the step,

    m = |x + f dt − b|,    v = ½ (g(x, t)² + g(x + f dt, s)²) dt
    c = v/(2 (m + ξ)),     d = (m − ξ)/c,     λ = ξ/c        (where m < ξ, with ξ = m: d = 0)

so that means are those of the chain, and laws are exact in the limit of a near end. It is drawn
from the boundary's own stream, as 2c times a Gamma variable of shape d/2 + N, N ~ Poisson(λ/2).
Where m > 5√v the plain step is taken.

Reference:
    Gobet 2000, Stochastic Processes and their Applications 87, 167, for the bridge; Glasserman
    2003, Monte Carlo Methods in Financial Engineering, section 3.4.1, for the exact step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from sdegen.boundary import Enclosure, EndKind, Interval, values_of
from sdegen.noise import Noise, RememberedNoise, Stream
from sdegen.sde.base import SDE
from sdegen.shapes import State

__all__ = [
    "Containment",
    "Freezing",
    "absorbed_by_position",
    "contained",
    "contained_by_position",
    "noise_vanishes",
    "rows_nonfinite",
    "steps_alone",
    "where_rows",
]

_NEVER = 40.0  # a chance of e^−40 is not drawn for
_SORTED_OUT = {"cpu"}  # devices on which to draw for few rows costs less than to find them
_FAR = 25.0  # m² over v, beyond which a step does not reach the end
_MOST_JUMPS = 1e6  # of a Poisson variable, where a distance is far beyond a step's reach
_VANISHED = 1e-8  # of g where the states are: below it, at an end, there is no noise


@dataclass(frozen=True)
class _Part:
    """An interval with what its ends are at each node.

    Attributes:
        interval: What bounds the coordinates.
        columns: Which of the flattened event; None is all.
        lows: Lower end at each node, −∞ where there is none.
        highs: Upper end at each node.
        vanishing: Whether the noise vanishes at the lower, and at the upper end.
    """

    interval: Interval
    columns: Tensor | None
    lows: list[float]
    highs: list[float]
    vanishing: tuple[bool, bool]

    def of(self, x: Tensor) -> Tensor:
        """The coordinates of a state, or of what has its shape."""
        return x if self.columns is None else x.flatten(1)[:, self.columns]

    def put(self, x: Tensor, values: Tensor) -> Tensor:
        """The state with other values of these coordinates."""
        if self.columns is None:
            return values
        flat = x.flatten(1).clone()
        flat[:, self.columns] = values.to(flat.dtype)
        return flat.reshape(x.shape)

    def bridges(self, i: int) -> list[tuple[float, float]]:
        """Where the absorbing ends with a bridge are at nodes[i], and at nodes[i + 1]."""
        each = ((self.interval.low, self.lows), (self.interval.high, self.highs))
        return [(at[i], at[i + 1]) for end, at in each if end is not None and end.bridge]

    @property
    def kinds(self) -> tuple[str | None, str | None]:
        """What the two ends do."""
        low, high = self.interval.low, self.interval.high
        return None if low is None else low.kind, None if high is None else high.kind


class Containment:
    """Keeps one block inside a boundary.

    Args:
        enclosure: What bounds the states.
        sde: What moves.
        x0: States at nodes[0], inside.
        nodes: Times at which steps begin and end, shape (steps + 1,).
        uniforms: Stream of the boundary's own; None for no draws of its own.

    Attributes:
        absorbed: Which trajectories are, shape (batch,); None where nothing absorbs.
        asks_noise: Whether `apply` must be told the normal draw of a step, by `RememberedNoise`.
    """

    def __init__(
        self, enclosure: Enclosure, sde: SDE, x0: State, nodes: Tensor, uniforms: Stream | None
    ) -> None:
        self._sde, self._uniforms = sde, uniforms
        self._ts = nodes.unbind()
        self._dts: list[float] = nodes.detach().diff().abs().tolist()
        self._bridged = (
            enclosure.bridged
            and uniforms is not None
            and sde.noise != "none"
            and not sde.is_discrete
        )
        self._parts = [_part(enclosure, k, sde, x0, nodes) for k in range(len(enclosure.parts))]
        sigma = sde.constant_noise
        self._variance = None if sigma is None else torch.tensor(sigma**2, dtype=torch.float64)
        self._periods = enclosure.periods().to(x0.device) if enclosure.periodic else None
        # y − x of all wrapped steps, whole periods but for rounding
        self._carried = torch.zeros_like(x0, dtype=torch.float64) if enclosure.periodic else None
        self._before = self._carried
        self.absorbed = self._starts_absorbed(x0) if enclosure.absorbs else None
        self.asks_noise = any(any(part.vanishing) for part in self._parts)
        if torch.is_grad_enabled():
            self._check_gradients()

    def apply(self, before: State, after: State, i: int, noise: Noise | None) -> State:
        """Bring the states at nodes[i + 1] back inside.

        Args:
            before: States at nodes[i].
            after: Where the step has led.
            i: Number of the step.
            noise: What the step drew from; where `asks_noise` it remembers the normal.

        Returns:
            The states at nodes[i + 1], same shape.
        """
        z = noise.last if isinstance(noise, RememberedNoise) else None
        moved, arrived, self._before = after, None, self._carried
        for part in self._parts:
            x, y = part.of(before), part.of(after)
            if any(part.vanishing) and z is not None:
                y = self._positive(part, i, before, y, z)
            inside, here = self._inside(part, i, before, x, y)
            if here is not None:
                arrived = here if arrived is None else arrived | here
            moved = part.put(moved, inside) if inside is not y or z is not None else moved
        if self.absorbed is None:
            return moved
        moved = where_rows(self.absorbed, before, moved)
        if arrived is not None:
            self.absorbed = self.absorbed | arrived
        return moved

    def _check_gradients(self) -> None:
        """Refuse gradients of what has no derivative along a path.

        Raises:
            ValueError: If an end absorbs, or a reflecting end has no noise.
        """
        if self.absorbed is not None and self._sde.noise != "none":
            raise ValueError(
                "differentiable=True: whether a path meets an absorbing end has no derivative "
                "along it, and the gradient of what is left would be wrong; leave out "
                "differentiable=True, or take that of the density, FokkerPlanck(…).solve(…, "
                "differentiable=True)."
            )
        if self.asks_noise:
            raise ValueError(
                "differentiable=True: the step at a reflecting end without noise is drawn from a "
                "law that gradients do not flow through; leave out differentiable=True, or take "
                "that of the density, FokkerPlanck(…).solve(…, differentiable=True)."
            )

    @property
    def windings(self) -> Tensor | None:
        """How often each coordinate went around, shape of the state, int32; or None."""
        if self._carried is None or self._periods is None:
            return None
        lengths = torch.where(self._periods > 0, self._periods, 1.0)
        return (self._carried / lengths).round().nan_to_num().to(torch.int32)

    def hold(self, rows: Tensor) -> None:
        """Put the turns of a step back for some trajectories, shape (batch,)."""
        if self._carried is not None and self._before is not None:
            self._carried = where_rows(rows, self._before, self._carried)

    def unwrapped(self, x: State) -> State:
        """Return the present states on the line, x + L w, in double precision."""
        windings = self.windings
        if windings is None or self._periods is None:
            return x
        return x.double() + windings * self._periods

    def _starts_absorbed(self, x0: State) -> Tensor:
        """Which trajectories start on an absorbing end."""
        found = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)
        for part in self._parts:
            found |= _at_ends(part.kinds, part.of(x0), part.lows[0], part.highs[0])
        return found

    def _spread(self, part: _Part, i: int, before: State) -> Tensor:
        """½ g² dt of a step, a number or one for each of the part's coordinates."""
        half = self._dts[i] / 2
        if self._variance is not None:
            return half * self._variance
        g = self._sde.diffusion(before, self._ts[i]).detach()
        if g.ndim == 0:
            return half * g.double().square()
        return half * part.of(g.expand_as(before)).double().square()

    def _inside(
        self, part: _Part, i: int, before: State, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The coordinates brought back; which rows have arrived at an absorbing end, if any."""
        unmoved, low, high = y, part.lows[i + 1], part.highs[i + 1]
        if not part.interval.absorbs:
            inside = contained(y, low, high, part.kinds)  # type: ignore[arg-type]
            if part.interval.periodic:
                self._count(part, y, inside)
            return inside, None
        bridged = self._bridged and part.interval.bridged
        # most are inside and far from an end: what is done to the others costs little
        near = (y <= low) | (y >= high)
        spread = self._spread(part, i, before) if bridged else None
        ends = part.bridges(i) if bridged else []
        for at, then in ends:
            assert spread is not None
            near |= ((x - at) * (y - then)).detach() <= _NEVER * spread
        if self.absorbed is not None:
            near &= ~self.absorbed.reshape((-1,) + (1,) * (y.ndim - 1))
        shape, places = y.shape, cast(Tensor | slice, slice(None))
        x, y, near = x.reshape(-1), y.reshape(-1), near.reshape(-1)
        if y.device.type in _SORTED_OUT:  # elsewhere the host would wait to know how many
            places = near.nonzero()[:, 0]
            if len(places) == 0:
                return unmoved, None
        some = contained(y[places], low, high, part.kinds)  # type: ignore[arg-type]
        for at, then in ends:
            assert spread is not None
            product = ((x[places] - at) * (y[places] - then)).detach().double()
            wide = spread if spread.ndim == 0 else spread.reshape(-1)[places]
            touched = (product > 0) & (product <= -self._uniform(product).log() * wide)
            some = torch.where(touched & near[places], then, some)
        inside = y.clone()
        inside[places] = some
        inside = inside.reshape(shape)
        arrived = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        arrived[places] = _at_ends(part.kinds, some[:, None], low, high) & near[places]
        return inside, arrived.reshape(shape).flatten(1).any(1)

    def _count(self, part: _Part, y: Tensor, inside: Tensor) -> None:
        """Add up how far the states were carried back around the period."""
        assert self._carried is not None
        back = (y - inside).detach()
        if part.columns is None:
            self._carried = self._carried + back
        else:
            self._carried = part.put(self._carried, part.of(self._carried) + back)

    def _uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers of the boundary's own stream, in double precision."""
        assert self._uniforms is not None
        generator = self._uniforms.generator(like.device)
        return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=like.device)

    def _positive(self, part: _Part, i: int, before: State, y: Tensor, z: State) -> Tensor:
        """The coordinates, by the positive step where an end without noise is near."""
        dt, low, high = self._dts[i], part.lows[i + 1], part.highs[i + 1]
        g = self._sde.diffusion(before, self._ts[i])
        g_here = part.of(g.expand_as(before))
        middle = y - math.sqrt(dt) * g_here * part.of(z)  # x + f dt
        ahead = part.put(before, middle.clamp(low, high))
        g_there = part.of(self._sde.diffusion(ahead, self._ts[i + 1]).expand_as(before))
        v = 0.5 * dt * (g_here.square() + g_there.square())
        to_low, to_high = middle - low, high - middle
        lower = to_low <= to_high
        if part.vanishing != (True, True):
            lower = torch.full_like(lower, part.vanishing[0])
        m = torch.where(lower, to_low, to_high)
        near = (m <= 0) | (v > m.square() / _FAR)
        if not part.vanishing[0]:
            near &= ~lower
        if not part.vanishing[1]:
            near &= lower
        x = part.of(before)
        start = torch.where(lower, x - low, high - x)
        away = self._distance(m, v, start, near)
        kept = torch.where(lower, low + away, high - away).clamp(low, high)
        return torch.where(near, kept, y)

    def _distance(self, m: Tensor, v: Tensor, start: Tensor, near: Tensor) -> Tensor:
        """Draw distances ≥ 0 of mean m and variance v from distances `start`, where near."""
        assert self._uniforms is not None
        generator = self._uniforms.generator(m.device)
        few = m.device.type in _SORTED_OUT
        m_near, v_near, start = (q[near] if few else q for q in (m, v, start))
        mean = m_near.double().clamp(min=0)
        from_ = torch.minimum(start.double().clamp(min=0), mean)
        c = v_near.double() / (2 * (mean + from_))
        c = torch.where((mean > 0) & (c > 0), c, 1.0)  # no noise, or no way: no spread
        shape = (mean - from_) / (2 * c)
        jumps = torch.poisson((from_ / (2 * c)).clamp(max=_MOST_JUMPS), generator=generator)
        drawn = 2 * c * torch._standard_gamma(shape + jumps, generator=generator)
        drawn = torch.where((shape + jumps > 0) & (mean > 0), drawn, 0.0)
        drawn = torch.where(v_near > 0, drawn, mean).to(m.dtype)
        if not few:
            return drawn
        away = torch.zeros_like(m)
        away[near] = drawn
        return away


def _part(enclosure: Enclosure, k: int, sde: SDE, x0: State, nodes: Tensor) -> _Part:
    """A part of an enclosure at the nodes of a run."""
    coordinates, interval = enclosure.parts[k]
    columns = None
    if coordinates is not None:
        columns = torch.tensor(coordinates, device=x0.device)
    lows, highs = (
        [far] * len(nodes) if end is None else values_of(end.at, nodes).tolist()
        for end, far in ((interval.low, -math.inf), (interval.high, math.inf))
    )
    if interval.moves and not all(a < b for a, b in zip(lows, highs, strict=True)):
        i = next(i for i, (a, b) in enumerate(zip(lows, highs, strict=True)) if not a < b)
        raise ValueError(
            f"a boundary needs low < high at all times, but at t = {float(nodes[i]):g} low = "
            f"{lows[i]:g}, high = {highs[i]:g}; end the run before they meet."
        )
    return _Part(interval, columns, lows, highs, noise_vanishes(enclosure, k, sde, x0, nodes[0]))


def noise_vanishes(
    enclosure: Enclosure, k: int, sde: SDE, x0: State, t: Tensor
) -> tuple[bool, bool]:
    """Return whether the noise vanishes at the reflecting ends of a part, lower and upper.

    Args:
        enclosure: What bounds the states.
        k: Which of its parts.
        sde: What moves.
        x0: States inside.
        t: When g is asked, 0-d.
    """
    coordinates, interval = enclosure.parts[k]
    if sde.noise != "multiplicative":
        return False, False
    rows = x0.detach()  # all of them: g may hold a parameter for each
    columns = list(enclosure.columns(coordinates))
    with torch.no_grad():
        here = sde.diffusion(rows, t).expand_as(rows).flatten(1)[:, columns].abs()
        found = []
        for end in (interval.low, interval.high):
            if end is None or end.kind != "no-flux" or callable(end.at):
                found.append(False)
                continue
            moved = rows.flatten(1).clone()
            moved[:, columns] = end.at
            g = sde.diffusion(moved.reshape(rows.shape), t).expand_as(rows).flatten(1)
            at_end = g[:, columns].abs()
            found.append(bool((at_end <= _VANISHED * here).all() and (here > 0).any()))
    return found[0], found[1]


def steps_alone(enclosure: Enclosure, sde: SDE, x0: State, t: Tensor) -> bool:
    """Return whether a boundary must see each step, which compiled runs do not show."""
    return (
        (enclosure.bridged and sde.noise != "none")
        or any(interval.moves for _, interval in enclosure.parts)
        or any(any(noise_vanishes(enclosure, k, sde, x0, t)) for k in range(len(enclosure.parts)))
    )


def contained_by_position(enclosure: Enclosure, before: State, after: State) -> State:
    """Bring states back inside with no memory but their places: fixed ends, without bridges.

    Args:
        enclosure: What bounds the states.
        before: States before the step; a trajectory that sits on an absorbing end stays.
        after: States after the step.
    """
    moved = after
    for coordinates, interval in enclosure.parts:
        low, high = interval.fixed
        kinds = tuple(None if end is None else end.kind for end in (interval.low, interval.high))
        if coordinates is None:
            moved = contained(after, low, high, kinds)  # type: ignore[arg-type]
            continue
        columns, flat = list(coordinates), moved.flatten(1).clone()
        flat[:, columns] = contained(flat[:, columns], low, high, kinds)  # type: ignore[arg-type]
        moved = flat.reshape(after.shape)
    if not enclosure.absorbs:
        return moved
    return where_rows(absorbed_by_position(enclosure, before), before, moved)


def absorbed_by_position(enclosure: Enclosure, x: State) -> Tensor:
    """Return which trajectories sit on an absorbing end that does not move, shape (batch,)."""
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for coordinates, interval in enclosure.parts:
        kinds = tuple(None if end is None else end.kind for end in (interval.low, interval.high))
        some = x if coordinates is None else x.flatten(1)[:, list(coordinates)]
        found = found | _at_ends(kinds, some, *interval.fixed)
    return found


def _at_ends(kinds: tuple[str | None, ...], x: Tensor, low: float, high: float) -> Tensor:
    """Which rows have a coordinate on an absorbing end or beyond it, shape (batch,)."""
    found = torch.zeros_like(x, dtype=torch.bool)
    if kinds[0] == "absorbing":
        found = found | (x <= low)
    if kinds[1] == "absorbing":
        found = found | (x >= high)
    return found.flatten(1).any(1)


def where_rows(rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Takes x in the given rows, y in the others."""
    return torch.where(rows.reshape(rows.shape + (1,) * (x.ndim - 1)), x, y)


def contained(
    after: State, low: float, high: float, kinds: tuple[EndKind | None, EndKind | None]
) -> State:
    """Fold back, stop or wrap what has just moved.

    Args:
        after: Where a step has led, any shape.
        low: Lower end, −∞ where there is none.
        high: Upper end, ∞ where there is none.
        kinds: What the ends do.

    Returns:
        The place in [low, high], same shape; what is infinite or NaN does not become finite.
    """
    if "absorbing" in kinds:
        # a state that exploded has not arrived: clamped, it would pass for one that did
        moved = torch.where(after.isinf(), torch.nan, after)
        moved = _met(moved, kinds[0], low, -1.0)
        moved = _met(moved, kinds[1], high, +1.0)
        return moved.clamp(low, high)  # a reflection that overshoots the far wall stops there
    if math.isinf(low) or math.isinf(high):
        wall, outward = (low, -1.0) if math.isinf(high) else (high, 1.0)
        return _met(after, "no-flux", wall, outward)
    if kinds[0] == "periodic":
        moved = low + torch.remainder(after - low, high - low)
    else:
        # one fold of the line onto [0, 2L) and one at L handle any overshoot
        folded = torch.remainder(after - low, 2 * (high - low))
        moved = low + torch.minimum(folded, 2 * (high - low) - folded)
    # inside, low + (x − low) would only add rounding, step after step
    return torch.where((after >= low) & (after <= high), after, moved.clamp(low, high))


def _met(x: State, kind: EndKind | None, wall: float, outward: float) -> State:
    """Clamp at an absorbing wall, mirror at a reflecting one."""
    if kind is None or math.isinf(wall):
        return x
    beyond = outward * (x - wall) > 0
    there = torch.full_like(x, wall) if kind == "absorbing" else 2 * wall - x
    return torch.where(beyond, there, x)


class Freezing:
    """Holds trajectories that are not finite where they last were; the others go on.

    Args:
        x0: States at nodes[0].
        inside: What else brings states back, if anything does.

    Attributes:
        lost: Which trajectories are held, shape (batch,).
    """

    def __init__(self, x0: State, inside: Containment | None) -> None:
        self._inside = inside
        self.lost = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)

    def apply(self, before: State, after: State, i: int, noise: Noise | None) -> State:
        """Return the states after a step, with lost trajectories put back."""
        inside = self._inside
        if inside is not None:
            after = inside.apply(before, after, i, noise)
        self.lost = self.lost | rows_nonfinite(after)
        if inside is not None:
            inside.hold(self.lost)
        return where_rows(self.lost, before, after)


def rows_nonfinite(x: State) -> Tensor:
    """Return which trajectories have a NaN or an infinity, shape (batch,)."""
    return ~torch.isfinite(x).flatten(1).all(1)
