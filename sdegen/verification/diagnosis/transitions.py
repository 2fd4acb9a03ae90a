"""Transitions that alternatives are compared on, and what a law makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdegen.core.noise import stream
from sdegen.verification.diagnosis.belief import Belief, choice_of
from sdegen.verification.innovations.law import Innovations, StepLaw, flat
from sdegen.verification.innovations.sample import Sample, bits_of

_AT_ONCE = 2**16  # numbers that a law is asked for together
_IMPOSSIBLE = -1e3  # log-density of states outside of walls
_FLOOR = -1e5  # log-density of what cannot be
_FINEST = 1e-8  # of z: what equality means
_SATURATED = 30.0  # of a normal that a probability tells
_RUNAWAY = 1e4  # standard deviations that a drift moves in a step
_UNITS = 64.0  # of rounding: width of an equation without noise


@dataclass(frozen=True)
class Evaluation:
    """Innovations of transitions under a law.

    Attributes:
        z, pull: Shape (F, B, K), float64; z is drawn afresh where it is not judged.
        log_p: log p(x' | x), shape (F, B); equations without noise count with the width of their
            rounding.
        judged: Which transitions the law knows, shape (F, B).
        log_scale: log |det ∂x'/∂z|, shape (F, B).
        gap: The largest gap of an equation without noise, in units of its rounding.
        impossible: How many transitions no noise explains.
    """

    z: Tensor
    pull: Tensor
    log_p: Tensor
    judged: Tensor
    log_scale: Tensor
    gap: float = 0.0
    impossible: int = 0

    def within(self, mask: Tensor, fresh: torch.Generator) -> Evaluation:
        """Return it with what lies outside a mask, shape (F, B), not judged."""
        if bool((mask | ~self.judged).all()):
            return self
        drawn = torch.randn(self.z.shape, generator=fresh, dtype=torch.float64)
        judged = self.judged & mask
        z = torch.where(judged[..., None], self.z, drawn)
        pull = torch.where(judged[..., None], self.pull, 0.0)
        return replace(self, z=z, pull=pull, judged=judged)


@dataclass(frozen=True)
class Transitions:
    """Transitions in memory.

    Attributes:
        belief: What is believed of them.
        x, after: States before and after, shape (F, B, *event).
        earlier: States one step before x, and x itself where there is none.
        known: Whether there is one, shape (F,).
        steps: Numbers of the steps, shape (F,).
        stretches: Slices of frames that lie in a row.
        trajectories: Numbers of the trajectories, shape (B,).
        kept: What alternatives have computed of them.
    """

    belief: Belief
    x: Tensor
    after: Tensor
    earlier: Tensor
    known: Tensor
    steps: Tensor
    stretches: tuple[slice, ...]
    trajectories: Tensor
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, belief: Belief, most: int) -> Transitions:
        """Return about so many numbers, evenly chosen, the first and the last steps among them."""
        states = belief.states
        frames, batch, *event = states.shape
        stretches, chosen = choice_of(
            frames - 1, batch, max(1, math.prod(event)), most, alike=belief.law.alike
        )
        parts, places, at = [], [], 0
        for a, b in stretches:
            block = states.block(max(a - 1, 0), b + 1)[:, chosen]
            if a == 0:
                block = torch.cat([block[:1], block])
            known = torch.ones(b - a, dtype=torch.bool)
            known[0] = a > 0
            parts.append((block[1:-1], block[2:], block[:-2], known, torch.arange(a, b)))
            places.append(slice(at, at + b - a))
            at += b - a
        x, after, earlier, known, steps = (torch.cat(p) for p in zip(*parts, strict=True))
        return cls(belief, x, after, earlier, known, steps, tuple(places), chosen)

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of an event."""
        return tuple(self.x.shape[2:])

    @property
    def lengths(self) -> Tensor:
        """|dt| of each frame, shape (F,)."""
        return self.belief.states.times.diff().abs()[self.steps]

    @cached_property
    def width(self) -> float:
        """Width of an equation without noise: the rounding of states of the usual size."""
        states = self.belief.states
        size = float(self.x.double().square().mean().sqrt().clamp(min=1e-30))
        eps = torch.finfo(states.precision or states.dtype).eps
        return _UNITS * eps * size + float(torch.as_tensor(states.rounding).max())

    @cached_property
    def resolution(self) -> float:
        """Width of innovations that should be equal, and are to rounding."""
        return max(_FINEST, 16 * self.sample_of(self.base).rounding)

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield frames whose steps have one law, with the times before and after."""
        times, frames = self.belief.states.times, len(self.x)
        width = 1
        if self.belief.law.alike:
            width = max(1, _AT_ONCE // max(1, self.x[0].numel()))
        for a in range(0, frames, width):
            i = int(self.steps[a])
            yield slice(a, min(a + width, frames)), times[i], times[i + 1]

    @cached_property
    def base(self) -> Evaluation:
        """What the believed law makes of them, where the drift does not run away.

        That is decided by the state before a step, and keeps sums of squares to their digits.
        """
        base = evaluate(self.belief.law, self)
        ends = self.belief.ends
        if ends is not None:
            begins_outside = _beyond(self.x, *ends, touching=False)
            base = base.within(~begins_outside, self.fresh)
            # a normal of a probability that is 0 in double precision
            lost = (base.z.abs() > _SATURATED).any(2)
            kept = base.within(~lost, self.fresh)
            count = base.impossible + int(lost.sum())
            base = replace(kept, judged=base.judged, impossible=count)
        runs_away = base.pull.abs().amax(2) > _RUNAWAY if base.pull.shape[2] else None
        if runs_away is None or not bool(runs_away.any()):
            return base
        return base.within(~runs_away, self.fresh)

    @cached_property
    def diffusion(self) -> Tensor:
        """The believed g of each innovation, shape of z."""
        base, belief = self.base, self.belief
        k = base.z.shape[2]
        root = self.lengths.sqrt()[:, None, None]
        plain = belief.sde.noise_structure == "diagonal" and not belief.sde.phase_space
        if belief.by_update and plain and k == math.prod(self.event):
            parts = []
            for part, t, _ in self.blocks():
                x = self.x[part].flatten(0, 1)
                parts.append(flat(belief.sde.diffusion(x, t), x).double())
            return torch.cat(parts).reshape(base.z.shape).abs()
        mean = (base.log_scale / max(1, k)).exp()[..., None]
        return (mean / root).expand_as(base.z)

    @cached_property
    def fresh(self) -> torch.Generator:
        """A source of normals, the same for the same states."""
        return stream(bits_of(self.x[-1]), "diagnosis").generator()

    def few(self, most: int) -> Transitions:
        """Return a part of them, for a first look."""
        frames = len(self.x)
        size = max(1, self.x[0].numel())
        if frames * size <= most:
            return self
        rows = max(2, min(self.x.shape[1], most * self.x.shape[1] // (frames * size)))
        each = list(self.stretches)
        wanted = max(2, most // (rows * max(1, math.prod(self.event))))
        if wanted < frames:
            length = max(2, wanted // len(each))
            each = [slice(s.start, min(s.stop, s.start + length)) for s in each]
            last = self.stretches[-1]
            each.append(slice(max(each[-1].stop, last.stop - 2), last.stop))
        index = torch.cat([torch.arange(s.start, s.stop) for s in each])
        places, at = [], 0
        for s in each:
            places.append(slice(at, at + s.stop - s.start))
            at += s.stop - s.start
        one = self.x.shape[1]
        columns = torch.linspace(0, one - 1, rows).long()
        return replace(
            self,
            x=self.x[index][:, columns],
            after=self.after[index][:, columns],
            earlier=self.earlier[index][:, columns],
            known=self.known[index],
            steps=self.steps[index],
            stretches=tuple(s for s in places if s.stop > s.start),
            trajectories=self.trajectories[columns],
            kept={},
        )

    def redrawn(self, way: int, turn: int) -> Transitions:
        """Return the same steps, taken anew by the law that is believed.

        Args:
            way: In which of its ways.
            turn: Number of the draw.
        """
        law, parts = self.belief.law, []
        for part, _, _ in self.blocks():
            i = int(self.steps[part.start])
            before = self.x[part].flatten(0, 1)
            draw = turn * len(self.belief.states.times) + i
            parts.append(law.redraw(before, i, way, bits_of(self.x[-1]), draw))
        return replace(self, after=torch.cat(parts).reshape(self.x.shape), kept={})

    def sample_of(self, evaluation: Evaluation, *, stalled: bool = True) -> Sample:
        """Return innovations as the battery takes them."""
        x = self.x.flatten(2)
        still = float((self.after.flatten(2) == x).double().mean()) if stalled else 0.0
        scale = torch.ones(())
        if self.base.z.shape[2]:
            scale = self.diffusion.mean(2) * self.lengths.sqrt()[:, None]
        half = self.belief.states.rounding_at(self.after).flatten(2).amax(2)
        rounding = float((half / scale.clamp(min=1e-300)).median())
        return Sample(
            evaluation.z, evaluation.pull, x.double(), self.steps, self.trajectories,
            self.stretches, evaluation.log_p, rounding,
            (still, min(1.0, 2 * rounding / math.sqrt(2 * math.pi))), True,
            self.belief.sde.phase_space and not self.belief.positions,
        )  # fmt: skip


def _beyond(y: Tensor, low: Tensor, high: Tensor, *, touching: bool) -> Tensor:
    """Return which states lie beyond an end, or on it, shape (F, B)."""
    y = y.flatten(2).double()
    if touching:
        return ((y <= low) | (y >= high)).any(2)
    margin = 1e-6 * (1 + low.abs().nan_to_num(posinf=0) + high.abs().nan_to_num(posinf=0))
    return ((y < low - margin) | (y > high + margin)).any(2)


def evaluate(law: StepLaw, data: Transitions, belief: Belief | None = None) -> Evaluation:
    """Return what a law makes of transitions; whatever it refuses is raised.

    Args:
        law: Of a step.
        data: Transitions.
        belief: What bounds the states under it; the walls that are believed unless said.
    """
    belief = data.belief if belief is None else belief
    evaluation = _evaluated(law, data)
    if belief.ends is None:
        return evaluation
    outside = _beyond(data.after, *belief.ends, touching=belief.folds) & evaluation.judged
    if not bool(outside.any()):
        return evaluation
    kept = evaluation.within(~outside, data.fresh)
    # no noise leads there: it counts against all laws with such walls alike
    log_p = torch.where(outside, _IMPOSSIBLE, evaluation.log_p)
    count = int(outside.sum())
    return replace(kept, log_p=log_p, judged=evaluation.judged, impossible=count)


def _evaluated(law: StepLaw, data: Transitions) -> Evaluation:
    """Return what a law makes of transitions, wherever walls are."""
    frames, batch = data.x.shape[:2]
    width = 1 if not law.alike else max(1, _AT_ONCE // max(1, data.x[0].numel()))
    parts = []
    law.calibrate(data.belief.states, bits_of(data.x[-1]))
    with torch.no_grad():
        if law.remembers:
            for part in data.stretches:
                row = torch.cat([data.x[part], data.after[part][-1:]])
                parts.append(law.along(row, int(data.steps[part.start]), None)[0])
            return gathered(parts, data, (frames, batch))
        for a in range(0, frames, width):
            b = min(a + width, frames)
            x, after = data.x[a:b].flatten(0, 1), data.after[a:b].flatten(0, 1)
            parts.append(law.innovations(x, after, int(data.steps[a])))
    return gathered(parts, data, (frames, batch))


def gathered(parts: list[Innovations], data: Transitions, shape: tuple[int, int]) -> Evaluation:
    """Return innovations of blocks as one evaluation."""
    k = max(part.z.shape[1] for part in parts)
    zs, pulls, log_ps, judged, scales, gap = [], [], [], [], [], 0.0
    for part in parts:
        part = _kept(part, data)
        n = len(part.log_scale)
        good = torch.ones(n, dtype=torch.bool) if part.judged is None else part.judged.clone()
        log_p = part.log_density.double()
        z, pull = part.z.double(), part.pull.double().expand(part.z.shape)
        if z.shape[1] < k:  # a step without noise, beside others that have it
            z = torch.randn(n, k, generator=data.fresh, dtype=torch.float64)
            pull = torch.zeros(n, k, dtype=torch.float64)
        if part.gap is not None and part.scale is not None and part.gap.numel():
            density, largest = _of_gap(part, data, good)
            log_p, gap = log_p + density, max(gap, largest)
        bad = ~(z.isfinite().all(1) & log_p.isfinite())
        lost = bad | ~good
        if bool(lost.any()):
            z = z.clone()
            z[~good] = torch.randn(
                int((~good).sum()), z.shape[1], generator=data.fresh, dtype=torch.float64
            )
            z[bad & good] = 40.0
            pull = torch.where(lost[:, None], 0.0, pull)
            log_p = torch.where(bad & good, _FLOOR, log_p)
        zs.append(z)
        pulls.append(pull)
        log_ps.append(log_p)
        judged.append(good)
        scales.append(part.log_scale.double().expand(n))
    whole = [torch.cat(p).reshape(*shape, -1) for p in (zs, pulls)]
    each = [torch.cat(p).reshape(shape) for p in (log_ps, judged, scales)]
    return Evaluation(whole[0], whole[1], each[0], each[1], each[2], gap)


def _kept(part: Innovations, data: Transitions) -> Innovations:
    """Return innovations without those of coordinates that a constraint holds."""
    fixed = data.belief.states.fixed
    if fixed is None or not bool(fixed.any()) or part.z.shape[1] != fixed.numel():
        return part
    kept = ~fixed.flatten()
    return replace(part, z=part.z[:, kept], pull=part.pull[:, kept])


def _of_gap(part: Innovations, data: Transitions, good: Tensor) -> tuple[Tensor, float]:
    """Return the log-density of equations without noise, and the largest gap."""
    assert part.gap is not None
    assert part.scale is not None
    states = data.belief.states
    eps = torch.finfo(states.precision or states.dtype).eps
    rounding = eps * part.scale.double().clamp(min=1e-30)
    allowed = (_UNITS * rounding).clamp(min=data.width)
    # all laws that hold to rounding hold alike, whatever their arithmetic leaves
    beyond = (part.gap.double().abs() / allowed - 1).clamp(min=0)
    density = -(math.log(math.pi * data.width) + torch.log1p(beyond.square())).sum(1)
    units = _UNITS * torch.where(good[:, None], part.gap.double().abs() / allowed, 0.0)
    return density, float(units.nan_to_num(nan=math.inf).max())
