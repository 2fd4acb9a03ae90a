"""What a step of the chain does at a boundary, and what a block remembers of it.

**Reflecting, periodic.** What a step carries beyond an end is folded back, or wrapped; how often a
coordinate went around is counted, so that the path on the line is known.

**Absorbing.** What a step carries beyond an end stops there. A path that was beyond and back
between two steps is seen by the chain at neither: alone, that absorbs too slowly, by O(√dt).
Given x and y on this side, the path between them is close to a Brownian bridge, which touches an
end that moves from b₀ to b₁ along a straight line with probability

    exp(−2 (b₀ − x)(b₁ − y)/(g² dt)),      g = g(x, t) held over the step

with g² = (G Gᵀ)_ii of noise with channels, whatever the other coordinates do. A uniform number
of a stream of its own decides, so that trajectories that meet no such end keep their bits. What is
left is the error of the chain, O(dt). A trajectory that is absorbed stays where the end was at the
close of its step.

**Correlated noise.** States are sent back along the conormal (`sdegen.engine.oblique`).

**Reflecting, where the noise vanishes.** There a step is taken that is positive by construction
(`sdegen.engine.positive_step`).

**A phase space.** Reflecting ends reverse velocities, and there are no bridges
(`sdegen.core.mirrors`).

**A boundary of another class** is asked by its `apply`, in each step.

Reference:
    Gobet 2000, Stochastic Processes and their Applications 87, 167, for the bridge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from sdegen.core.boundary import BoundaryStep
from sdegen.core.bounds import values_of
from sdegen.core.channels import deviation, times
from sdegen.core.enclosure import Enclosure, Interval
from sdegen.core.jumps import check_no_jumps
from sdegen.core.mirrors import Mirrors
from sdegen.core.noise import Noise, RememberedNoise, Stream
from sdegen.core.noise_structure import check_not_general
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, as_column
from sdegen.engine.mirrored import check_mirrors, mirrored
from sdegen.engine.oblique import Oblique
from sdegen.engine.positive_step import noise_vanishes, positive_step

_NEVER = 40.0  # a chance of e^−40 is not drawn for
_SORTED_OUT = {"cpu"}  # devices on which to draw for few rows costs less than to find them


_Columns = Tensor | list[int] | None  # of the flattened event; None is all


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
        """Return the coordinates of a state, or of what has its shape."""
        return _coordinates(x, self.columns)

    def put(self, x: Tensor, values: Tensor) -> Tensor:
        """Return the state with other values of these coordinates."""
        return _replaced(x, self.columns, values)

    def bridges(self, i: int) -> list[tuple[float, float]]:
        """Return where the absorbing ends with a bridge are at nodes[i], and at nodes[i + 1]."""
        each = ((self.interval.low, self.lows), (self.interval.high, self.highs))
        return [(at[i], at[i + 1]) for end, at in each if end is not None and end.boundary.bridged]


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
        check_no_jumps(sde, "boundary=", "; leave the boundary out.")
        check_not_general(sde, "boundary=")
        self._sde, self._uniforms = sde, uniforms
        self._ts = nodes.unbind()
        self._dts: list[float] = nodes.detach().diff().abs().tolist()
        noisy = sde.noise != "none" and not sde.is_discrete
        self._bridged = enclosure.bridged and uniforms is not None and noisy
        self._mirrors = Mirrors.of(enclosure)
        check_mirrors(sde, self._mirrors)
        self._parts = [_part(enclosure, k, sde, x0, nodes) for k in range(len(enclosure.parts))]
        self._oblique = None
        if sde.channels is not None and noisy and x0[0].numel() > 1:
            ends = [(part.lows, part.highs) for part in self._parts]
            vanishing = [any(part.vanishing) for part in self._parts]
            self._oblique = Oblique.of(enclosure, sde, ends, vanishing, self._bridged)
            self._oblique.check(x0, nodes[0])
        sigma = sde.constant_noise
        self._variance = None if sigma is None else torch.tensor(sigma**2, dtype=torch.float64)
        self._periods = enclosure.periods().to(x0.device)
        # y − x of all wrapped steps, whole periods but for rounding
        self._carried = torch.zeros_like(x0, dtype=torch.float64) if enclosure.wraps else None
        self._before = self._carried
        self.absorbed = self._starts_absorbed(x0) if enclosure.absorbs else None
        self.asks_noise: bool = any(any(part.vanishing) for part in self._parts)
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
        if self._oblique is not None:
            self._oblique.check(before, self._ts[i])
            after = self._oblique.sent_back(before, after, self._ts[i], i + 1)
        z = noise.last if isinstance(noise, RememberedNoise) else None
        moved, arrived, self._before = after, None, self._carried
        for part in self._parts:
            x, y = part.of(before), part.of(after)
            if any(part.vanishing) and z is not None:
                y = self._positive(part, i, before, y, z)
            inside, at_end = self._inside(part, i, before, x, y)
            if at_end is not None:
                arrived = at_end if arrived is None else arrived | at_end
            moved = part.put(moved, inside) if inside is not y or z is not None else moved
        if self._mirrors is not None:
            moved = self._mirrors.reverse(after, moved)
        if self.absorbed is None:
            return moved
        moved = where_rows(self.absorbed, before, moved)
        if arrived is not None:
            self.absorbed = self.absorbed | arrived
        return moved

    def dynamics(self, sde: SDE) -> SDE:
        """Return what a solver is to move, with mirrors at the walls of a phase space."""
        return mirrored(sde, self._mirrors)

    def _check_gradients(self) -> None:
        """Refuse gradients of what has no derivative along a path.

        Raises:
            ValueError: If an end absorbs, or a reflecting end has no noise.
        """
        if self.absorbed is not None and self._sde.noise != "none":
            raise ValueError(
                "differentiable=True: whether a path meets an absorbing end has no derivative "
                "along it, and the gradient of what is left would be wrong; leave out "
                "differentiable=True (by hand: torch.no_grad()), or take that of the density, "
                "FokkerPlanck(…).solve(…, differentiable=True)."
            )
        if self.asks_noise:
            raise ValueError(
                "differentiable=True: the step at a reflecting end without noise is drawn from a "
                "law that gradients do not flow through; leave out differentiable=True (by hand: "
                "torch.no_grad()), or take that of the density, FokkerPlanck(…).solve(…, "
                "differentiable=True)."
            )

    @property
    def windings(self) -> Tensor | None:
        """How often each coordinate went around, shape of the state, int32; or None."""
        if self._carried is None:
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
        return x if windings is None else x.double() + windings * self._periods

    def _starts_absorbed(self, x0: State) -> Tensor:
        """Return which trajectories start on an absorbing end."""
        ends = [(part.interval, part.of(x0), part.lows[0], part.highs[0]) for part in self._parts]
        return torch.stack([one.arrived(x, low, high) for one, x, low, high in ends]).any(0)

    def _noise(self, part: _Part, x: State, t: Tensor) -> Tensor:
        """Return g or √(G Gᵀ)_ii, a number or one for each of the part's coordinates."""
        g = deviation(self._sde, x, t)
        return g if g.ndim == 0 else part.of(g.expand_as(x))

    def _spread(self, part: _Part, i: int, before: State) -> Tensor:
        """Return ½ g² dt of a step, a number or one for each of the part's coordinates."""
        half = self._dts[i] / 2
        if self._variance is not None:
            return half * self._variance
        return half * self._noise(part, before, self._ts[i]).detach().double().square()

    def _inside(
        self, part: _Part, i: int, before: State, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the coordinates brought back, and which rows reached an absorbing end, if any."""
        if part.interval.absorbs:
            return self._absorbed(part, i, before, x, y)
        if part.interval.by_position:
            inside = part.interval.contain(y, part.lows[i + 1], part.highs[i + 1])
        else:
            inside = part.interval.apply(x, y, self._step(part, i, before))
        if part.interval.wraps:
            assert self._carried is not None
            back = part.of(self._carried) + (y - inside).detach()
            self._carried = part.put(self._carried, back)
        return inside, None

    def _absorbed(
        self, part: _Part, i: int, before: State, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the same between ends of which one absorbs."""
        interval, low, high = part.interval, part.lows[i + 1], part.highs[i + 1]
        bridged = self._bridged and interval.bridged
        # most are inside and far from an end: what is done to the others costs little
        near = (y <= low) | (y >= high)
        if not interval.by_position:
            near = torch.ones_like(near)
        ends = part.bridges(i) if bridged else []
        spread = self._spread(part, i, before) if bridged else torch.empty(())
        for at, then in ends:
            near |= ((x - at) * (y - then)).detach() <= _NEVER * spread
        if self.absorbed is not None:
            near &= ~as_column(self.absorbed, y)
        places = cast(Tensor | slice, slice(None))
        if interval.by_position and y.device.type in _SORTED_OUT:
            places = near.reshape(-1).nonzero()[:, 0]  # elsewhere the host would wait for them
            if len(places) == 0:
                return y, None
        if interval.by_position:
            some = interval.contain(y.reshape(-1)[places], low, high)
        else:
            some = interval.apply(x, y, self._step(part, i, before)).reshape(-1)
        shape, x, y, near = y.shape, x.reshape(-1), y.reshape(-1), near.reshape(-1)
        for at, then in ends:
            product = ((x[places] - at) * (y[places] - then)).detach().double()
            wide = spread if spread.ndim == 0 else spread.reshape(-1)[places]
            touched = (product > 0) & (product <= -self._uniform(product).log() * wide)
            some = torch.where(touched & near[places], then, some)
        inside = y.clone()
        inside[places] = some
        inside = inside.reshape(shape)
        arrived = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        arrived[places] = interval.arrived(some[:, None], low, high) & near[places]
        return inside, arrived.reshape(shape).flatten(1).any(1)

    def _step(self, part: _Part, i: int, before: State) -> BoundaryStep:
        """Return the data of a step for a boundary of another class."""
        t, s, low, high = self._ts[i], self._ts[i + 1], part.lows[i + 1], part.highs[i + 1]
        noise = partial(self._noise, part, before, t)
        return BoundaryStep(t, s, self._dts[i], low, high, noise, self._uniform)

    def _uniform(self, like: Tensor) -> Tensor:
        """Return uniform numbers of the boundary's own stream, in double precision.

        Raises:
            ValueError: If gradients are to flow, or there is no stream.
        """
        if torch.is_grad_enabled() and self._sde.noise != "none":
            raise ValueError(
                "differentiable=True: what a boundary draws has no derivative along a path; leave "
                "out differentiable=True (by hand: torch.no_grad())."
            )
        assert self._uniforms is not None
        generator = self._uniforms.generator(like.device)
        return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=like.device)

    def _positive(self, part: _Part, i: int, before: State, y: Tensor, z: Tensor) -> Tensor:
        """Return the coordinates, by the positive step where an end without noise is near."""
        assert self._uniforms is not None
        t, s, ends = self._ts[i], self._ts[i + 1], (part.lows[i + 1], part.highs[i + 1])
        x, own = part.of(before), self._uniforms.generator(y.device)
        g, root = self._noise(part, before, t).expand_as(x), math.sqrt(self._dts[i])
        if self._sde.channels is None:
            kick = root * g * part.of(z)
        else:
            kick = root * part.of(times(self._sde.diffusion(before, t), z))

        def g_ahead(ahead: Tensor) -> Tensor:
            return self._noise(part, part.put(before, ahead), s).expand_as(x)

        return positive_step(x, y, kick, g, g_ahead, self._dts[i], ends, part.vanishing, own)


def _part(enclosure: Enclosure, k: int, sde: SDE, x0: State, nodes: Tensor) -> _Part:
    """Return a part of an enclosure at the nodes of a run."""
    coordinates, interval = enclosure.parts[k]
    columns = None if coordinates is None else torch.tensor(coordinates, device=x0.device)
    lows, highs = (
        [far] * len(nodes) if end is None else values_of(end.at, nodes).tolist()
        for end, far in ((interval.low, -math.inf), (interval.high, math.inf))
    )
    for t, low, high in zip(nodes.tolist(), lows, highs, strict=True) if interval.moves else ():
        if not low < high:
            raise ValueError(
                f"a boundary needs low < high at all times, but at t = {t:g} low = "
                f"{low:g}, high = {high:g}; end the run before they meet."
            )
    return _Part(interval, columns, lows, highs, noise_vanishes(enclosure, k, sde, x0, nodes[0]))


def steps_alone(enclosure: Enclosure, sde: SDE, x0: State, t: Tensor) -> bool:
    """Return whether a boundary must see each step, which compiled runs do not show."""
    return (
        (enclosure.bridged and sde.noise != "none")
        or Mirrors.of(enclosure) is not None
        or (sde.channels is not None and not all(part.wraps for _, part in enclosure.parts))
        or not all(interval.by_position for _, interval in enclosure.parts)
        or any(interval.moves for _, interval in enclosure.parts)
        or any(any(noise_vanishes(enclosure, k, sde, x0, t)) for k in range(len(enclosure.parts)))
    )


def contained_by_position(enclosure: Enclosure, before: State, after: State) -> State:
    """Bring states back inside by their places alone: fixed ends, without bridges.

    Args:
        enclosure: What bounds the states.
        before: States before the step; a trajectory that sits on an absorbing end stays.
        after: States after the step.
    """
    moved = after
    for coordinates, interval in enclosure.parts:
        columns = None if coordinates is None else list(coordinates)
        inside = interval.contain(_coordinates(moved, columns), *interval.fixed)
        moved = _replaced(moved, columns, inside)
    if not enclosure.absorbs:
        return moved
    return where_rows(absorbed_by_position(enclosure, before), before, moved)


def absorbed_by_position(enclosure: Enclosure, x: State) -> Tensor:
    """Return which trajectories sit on an absorbing end that does not move, shape (batch,)."""
    absorbed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for coordinates, interval in enclosure.parts:
        columns = None if coordinates is None else list(coordinates)
        absorbed = absorbed | interval.arrived(_coordinates(x, columns), *interval.fixed)
    return absorbed


def _coordinates(x: Tensor, columns: _Columns) -> Tensor:
    """Return some coordinates of a state, or of what has its shape."""
    return x if columns is None else x.flatten(1)[:, columns]


def _replaced(x: Tensor, columns: _Columns, values: Tensor) -> Tensor:
    """Return a state with other values of some coordinates."""
    if columns is None:
        return values
    flat = x.flatten(1).clone()
    flat[:, columns] = values.to(flat.dtype)
    return flat.reshape(x.shape)


def where_rows(rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Take x in the given rows, y in the others."""
    return torch.where(as_column(rows, x), x, y)
