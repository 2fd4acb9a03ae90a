"""The error of the drift, and of the noise, as a function of a coordinate.

Under the law that is believed E[z | x] = 0 and Var[z | x] = 1. A drift that is f + δf moves a step
by dt δf more than is believed, so that

    E[z σ(x) | x]/dt = δf(x),        Var[z | x] − 1 = (σ'/σ)² − 1

to first order in dt, with σ(x) = ∂x'/∂z the noise of a step that is believed, and σ' that of the
simulation. σ(x) is taken from the law of the step itself, by a difference quotient in x'. Both are
averaged over parts of the sample with equally many states, in the order of the coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.innovations.law import StepLaw
from sdegen.verification.innovations.sample import Sample

_PARTS, _LEAST, _FEW = 24, 50, 20  # of a curve; states of a part; states that make no curve
_QUOTIENT = 1e-2  # of the size of a step: what x' is moved by
_SIDE_BY_SIDE = 2048  # coordinates that are moved one by one
_COUPLED = 1e-6  # of the largest: what is no dependence
_AT_ONCE = 2**18  # numbers
_PAIRS = 1024  # of a noise and a coordinate, that are all looked at
# standard deviations, and a factor, by which a noise's own coordinate is preferred
_PREFERRED, _MORE = 6.0, 1.25


class ErrorCurve(NamedTuple):
    """An error as a function of a coordinate; each of shape (parts,), float64.

    Attributes:
        x: Mean of the coordinate in each part.
        error: The error there.
        standard_error: Of the error.
    """

    x: Tensor
    error: Tensor
    standard_error: Tensor


class ErrorCurves:
    """The curves of a sample of innovations.

    Args:
        sample: The innovations.
        states: The stored states that they are from.
        law: The law of the steps, by belief.
        phase_space: Whether a state is positions and velocities.
    """

    def __init__(
        self, sample: Sample, states: StoredStates, law: StepLaw, *, phase_space: bool
    ) -> None:
        self._sample, self._states, self._law = sample, states, law
        self.phase_space = phase_space
        self.noises: int = sample.z.shape[2]
        self.coordinates: int = sample.x.shape[2]

    def drift(self, noise: int, along: int | None = None) -> ErrorCurve:
        """Return the error of the drift; see `PathVerdict.drift_error`."""
        j, k = self._numbers(noise, along)
        return self._means(k, self._scaled[0][..., j])

    def noise(self, noise: int, along: int | None = None) -> ErrorCurve:
        """Return the relative error of the variance; see `PathVerdict.noise_error`."""
        j, k = self._numbers(noise, along)
        return self._means(k, self._sample.z[..., j].square() - 1)

    def mean(self, noise: int, along: int | None = None) -> ErrorCurve:
        """Return the mean of z: the error of the drift in standard deviations of a step."""
        j, k = self._numbers(noise, along)
        return self._means(k, self._sample.z[..., j])

    def believed(self, noise: int, along: int | None = None) -> ErrorCurve:
        """Return the drift that is believed, in the units of `drift`."""
        j, k = self._numbers(noise, along)
        return self._means(k, self._scaled[1][..., j])

    @property
    def has_units(self) -> bool:
        """Whether each noise moves one coordinate, so that σ is one number for each."""
        return self._owners is not None

    @cached_property
    def own(self) -> list[int]:
        """The coordinate that each noise belongs to: in a phase space a position."""
        if self._owners is not None:
            return self._owners
        return [j % self.coordinates for j in range(self.noises)]

    def most_deviating(self, count: int) -> list[tuple[int, int]]:
        """Return pairs of a noise and a coordinate along which it is most in error.

        The coordinate is the noise's own, in a phase space the position or the velocity, unless
        another shows a larger error.

        Args:
            count: How many, at most.
        """
        z, x = self._sample.z.flatten(0, 1), self._sample.x.flatten(0, 1)
        if len(z) < _FEW:
            return []
        mine = [self._own_of(j) for j in range(self.noises)]
        every = self.noises * self.coordinates <= _PAIRS
        scores: dict[tuple[int, int], float] = {}
        for k in range(self.coordinates):
            noises = [j for j in range(self.noises) if every or k in mine[j]]
            for j, score in zip(noises, _scores(x[:, k], z[:, noises]), strict=True):
                scores[j, k] = score - (0 if k in mine[j] else _PREFERRED)
        ranked = sorted(scores, key=lambda pair: -scores[pair])
        chosen: list[tuple[int, int]] = []
        for pair in ranked:
            if len(chosen) < count and all(pair[0] != j for j, _ in chosen):
                chosen.append(pair)
        best = [max(scores[j, k] for k in mine[j]) for j in range(self.noises)]
        for j, k in ranked:  # where there are few noises, what else they are functions of
            seen = k in mine[j] or scores[j, k] > max(_PREFERRED, _MORE * best[j])
            if len(chosen) < count and (j, k) not in chosen and seen:
                chosen.append((j, k))
        return sorted(chosen)

    def _own_of(self, j: int) -> set[int]:
        """Return the coordinates that are a noise's own."""
        half = self.coordinates // 2 if self.phase_space else 0
        return {k for k in (self.own[j], self.own[j] + half) if k < self.coordinates}

    def _numbers(self, noise: int, along: int | None) -> tuple[int, int]:
        """Return the number of a noise and of the coordinate that it is a function of."""
        check_count("coordinate", noise, 0)
        if noise >= self.noises:
            raise ValueError(
                f"coordinate must be one of the {self.noises} that have noise, counted from 0, "
                f"but is {noise}."
            )
        if along is None:
            return noise, self.own[noise]
        check_count("along", along, 0)
        if along >= self.coordinates:
            raise ValueError(
                f"along must be one of the {self.coordinates} coordinates of a state, counted "
                f"from 0, but is {along}."
            )
        return noise, along

    def _means(self, k: int, values: Tensor) -> ErrorCurve:
        """Return means over parts with equally many states, in the order of coordinate k."""
        x, values = self._sample.x[..., k].flatten(), values.flatten()
        known = values.isfinite()
        x, values = x[known], values[known]
        n = len(x)
        if n < _FEW:
            raise ValueError(
                f"path has {n} transitions, too few for a curve: {_FEW} are needed, of one "
                "trajectory or of several."
            )
        parts = _parts_of(n)
        order = x.argsort(stable=True)[: n - n % parts]
        x, values = x[order].reshape(parts, -1), values[order].reshape(parts, -1)
        return ErrorCurve(x.mean(1), values.mean(1), values.std(1) / math.sqrt(values.shape[1]))

    @cached_property
    def _owners(self) -> list[int] | None:
        """Which coordinate each noise moves, by moving them one by one; None if it is several."""
        sample, d = self._sample, self.coordinates
        moved = list(range(d // 2, d) if self.phase_space else range(d))
        if self.noises > len(moved) or self._law.remembers:
            return None
        if d > _SIDE_BY_SIDE:
            return list(range(self.noises)) if self.noises == len(moved) else None
        i, row = int(sample.steps[0]), int(sample.trajectories[0])
        before, after = self._states.block(i, i + 2)[:, row]
        rows = after.flatten().repeat(len(moved) + 1, 1)
        for n, column in enumerate(moved):
            rows[n + 1, column] += self._sizes[column].to(rows)
        z = self._noise(before.expand(len(rows), *before.shape), rows.reshape(-1, *after.shape), i)
        change = (z[1:] - z[0]).abs()  # (moved, noises)
        live = change > _COUPLED * change.amax(0)
        owners: list[int] = change.argmax(0).tolist()
        single = bool((live.sum(0) == 1).all()) and len(set(owners)) == self.noises
        return owners if single else None

    @cached_property
    def _scaled(self) -> tuple[Tensor, Tensor]:
        """z σ/dt and the drift that is believed, of each transition, (F, B, K); NaN: not known."""
        if self._owners is None:
            raise ValueError(
                "the noise mixes coordinates, or positions with velocities, so that the error of "
                "the drift is not one number for each; look at the check 'drift as a function of "
                "the state'."
            )
        sample, states, h = self._sample, self._states, self._sizes
        first = self.coordinates // 2 if self.phase_space else 0
        columns = torch.tensor([owner + first for owner in self._owners])
        move = h.clone()
        move[:first] = 0
        sigmas = []
        for i, x in self._blocks():
            before, after = x[:-1].flatten(0, 1), x[1:].flatten(0, 1)
            step = move.reshape(states.event).to(after)
            up, down = (self._noise(before, after + s * step, i) for s in (1, -1))
            sigma = 2 * h[columns] / (up - down).double()
            sigmas.append(sigma.reshape(len(x) - 1, x.shape[1], -1))
        sigma = torch.cat(sigmas)
        sigma = torch.where(sigma.isfinite(), sigma, math.nan)
        dt = states.times.diff()[sample.steps][:, None, None]
        return sample.z * sigma / dt, sample.pull * sigma / dt

    @cached_property
    def _sizes(self) -> Tensor:
        """By how much each coordinate of x' is moved, shape (D,)."""
        sample = self._sample
        i, frames = int(sample.steps[0]), min(64, len(sample.steps[sample.stretches[0]]))
        x = self._states.block(i, i + frames + 1)[:, sample.trajectories].flatten(2).double()
        step = x.diff(dim=0).square().mean((0, 1)).sqrt()
        return _QUOTIENT * torch.where(step > 0, step, max(float(step.max()), 1e-12))

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of the first step and the states of a block of frames, and one more."""
        sample, states = self._sample, self._states
        size = len(sample.trajectories) * max(1, math.prod(states.event))
        frames = max(1, _AT_ONCE // size) if self._law.alike else 1
        for stretch in sample.stretches:
            steps = sample.steps[stretch]
            start, stop = int(steps[0]), int(steps[-1]) + 1
            for i in range(start, stop, frames):
                yield i, states.block(i, min(i + frames, stop) + 1)[:, sample.trajectories]

    def _noise(self, before: Tensor, after: Tensor, i: int) -> Tensor:
        """Return z of transitions, without coordinates that are held; NaN where there is none."""
        with torch.no_grad():
            z = self._law.innovations(before, after, i).z
        if z.shape[1] == 0:  # the last step of a sampler, beside others that have noise
            return z.new_full((len(z), self.noises), math.nan)
        if z.shape[1] == self.noises or self._states.fixed is None:
            return z
        return z[:, ~self._states.fixed.flatten()]


def _parts_of(n: int) -> int:
    """Return in how many parts n states are averaged."""
    return max(2, min(_PARTS, n // _LEAST))


def _scores(x: Tensor, z: Tensor) -> list[float]:
    """Return how unlikely means and variances in parts are, in standard deviations of χ²."""
    n, width = z.shape
    parts = _parts_of(n)
    z = z[x.argsort(stable=True)[: n - n % parts]].reshape(parts, -1, width)
    size = z.shape[1]
    mean = size * z.mean(1).square().sum(0)
    spread = size / 2 * (z.square().mean(1) - 1).square().sum(0)
    both = torch.stack([mean, spread])
    best: list[float] = ((both - parts) / math.sqrt(2 * parts)).amax(0).tolist()
    return best
