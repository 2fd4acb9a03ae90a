"""The law of the update, x' = x + dt f + √|dt| g z: Euler–Maruyama, and the steps of a chain.

Of diagonal noise z = (x' − x − dt f)/(√|dt| g); of m channels, no more than coordinates, z are the
channels' own normals, (GᵀG)⁻¹Gᵀ of the rest, which lies in their span; of more channels it is the
rest whitened by (G Gᵀ)^{−½}. Coordinates without noise, and directions that no channel moves, are
determined.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.core.fixed_steps import Interval
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.update import update
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.innovations.law import (
    Innovations,
    StepLaw,
    Unscaled,
    flat,
    is_even,
    log_of_sum,
    size_of,
)

_NOTHING = 1e-12  # relative to the largest: a singular value that is rounding


def _constant(rows: int, value: float) -> Tensor:
    """Return one number for all rows, in the memory of one."""
    return torch.tensor(value, dtype=torch.float64).expand(rows)


class UpdateLaw(StepLaw):
    """The law of Euler–Maruyama's steps, of any noise.

    Args:
        sde: What moves, by belief.
        nodes: Times of the states, shape (steps + 1,).
    """

    name = "EulerMaruyama"

    def __init__(self, sde: SDE, nodes: Tensor) -> None:
        self.sde = sde
        self.alike: bool = bool(sde.autonomous) and is_even(nodes) and not sde.is_discrete
        self.by_coordinate: bool = sde.noise_structure == "diagonal"
        steps = nodes[:2] if self.alike else nodes
        self._steps: list[Interval] = EulerMaruyama().begin(sde, steps)

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        short = self.unscaled(x, after, i)
        if short is not None:
            log_scale = _constant(len(x), -short.left.shape[1] * math.log(abs(short.unit)))
            z, pull = short.left.mul_(short.unit), short.drift * short.pull_unit
            return Innovations(z, pull, log_scale)
        t, _, dt, root_dt = self._steps[0 if self.alike else i]
        f = self.sde.drift(x, t)
        left = (after - update(x, f, dt)).reshape(len(x), -1)
        moved = f.reshape(len(x), -1) * dt
        if self.sde.noise == "none":
            return self._determined(x, moved, left)
        if self.sde.noise_structure == "general":
            return _whitened(self._matrix(x, t) * abs(dt), left, moved)
        if self.sde.channels is not None:
            G = self.sde.diffusion(x, t).flatten(1, -2).to(left) * root_dt
            return _of_channels(G, left, moved, x)
        scale = flat(self.sde.diffusion(x, t) * root_dt, x)
        return of_diagonal(scale, left, moved, x)

    def unscaled(self, x: State, after: State, i: int) -> Unscaled | None:
        """Return z and its pull but for their units, where the noise is one number."""
        g = self.sde.constant_noise
        if g is None or g == 0 or self.sde.noise_structure != "diagonal":
            return None
        t, _, dt, root_dt = self._steps[0 if self.alike else i]
        f = self.sde.drift(x, t)
        left = torch.sub(after, x).sub_(f, alpha=dt)  # in place: a pass over memory less
        unit = 1 / (root_dt * g)
        return Unscaled(left.reshape(len(x), -1), f.reshape(len(x), -1), unit, dt * unit)

    def _determined(self, x: State, moved: Tensor, left: Tensor) -> Innovations:
        """Return what is left of steps without noise."""
        none = left[:, :0]
        zeros = torch.zeros(len(x), dtype=torch.float64)
        return Innovations(none, none, zeros, left, size_of(x.reshape(len(x), -1), moved))

    def _matrix(self, x: State, t: Tensor) -> Tensor:
        """Return G Gᵀ, shape (n, d, d), of noise that only its products tell."""
        units = torch.eye(x[0].numel(), dtype=x.dtype)
        columns = [
            self.sde.covariance_times(x, t, e.reshape(x[0].shape).expand(x.shape)) for e in units
        ]
        return torch.stack([column.reshape(len(x), -1) for column in columns], -1)


def of_diagonal(scale: Tensor, left: Tensor, moved: Tensor, x: State) -> Innovations:
    """Return innovations of diagonal noise; coordinates that it does not move are determined.

    Args:
        scale: Standard deviation of each coordinate, shape (n, d).
        left: What a step adds to its mean, shape (n, d).
        moved: What it moves without noise, shape (n, d).
        x: States before it.
    """
    silent = (scale == 0).all(0)
    if not bool(silent.any()):
        if bool((scale == 0).any()):
            return _partly(scale, left, moved)
        return Innovations(left / scale, moved / scale, log_of_sum(scale))
    noisy = ~silent
    size = size_of(x.reshape(len(x), -1), moved)
    inner = _partly(scale[:, noisy], left[:, noisy], moved[:, noisy])
    return Innovations(
        inner.z, inner.pull, inner.log_scale, left[:, silent], size[:, silent], inner.judged
    )


def _partly(scale: Tensor, left: Tensor, moved: Tensor) -> Innovations:
    """Return innovations where noise vanishes at some states: these are not judged."""
    judged = (scale != 0).all(1)
    safe = torch.where(judged[:, None], scale, 1.0)
    mask = None if bool(judged.all()) else judged
    return Innovations(left / safe, moved / safe, log_of_sum(safe), judged=mask)


def _of_channels(G: Tensor, left: Tensor, moved: Tensor, x: State) -> Innovations:
    """Return innovations of channels, with G of a whole step, shape (n or 1, d, m)."""
    d, m = G.shape[-2:]
    if m > d:
        return _whitened(G @ G.mT, left, moved)
    U, s, Vt = torch.linalg.svd(G.double(), full_matrices=True)
    if bool((s <= _NOTHING * s[:, :1]).any()):
        raise ValueError(
            f"the {m} channels of this SDE span less than {m} directions at some states, so that "
            "their normals cannot be told from its steps; leave out channels that repeat others."
        )
    across = left.double()[:, None] @ U[..., :m]  # in the basis of left singular vectors
    z = ((across / s[:, None]) @ Vt)[:, 0]
    pull = (((moved.double()[:, None] @ U[..., :m]) / s[:, None]) @ Vt)[:, 0]
    log_scale = log_of_sum(s).expand(len(x))
    if m == d:
        return Innovations(z, pull, log_scale)
    gap = (left.double()[:, None] @ U[..., m:])[:, 0]
    size = size_of(x.reshape(len(x), -1), moved).double().amax(1, keepdim=True)
    return Innovations(z, pull, log_scale, gap, size.expand(gap.shape))


def _whitened(covariance: Tensor, left: Tensor, moved: Tensor) -> Innovations:
    """Return innovations by the symmetric root of a covariance, shape (n or 1, d, d)."""
    values, vectors = torch.linalg.eigh(covariance.double())
    if bool((values[..., 0] <= _NOTHING * values[..., -1]).any()):
        raise ValueError(
            "the noise of this SDE is singular in a direction that changes from state to state; "
            "write it as channels, G of shape (batch, d, m) with m < d."
        )
    root = (vectors * values.rsqrt()[..., None, :]) @ vectors.mT
    z = (left.double()[:, None] @ root)[:, 0]
    pull = (moved.double()[:, None] @ root)[:, 0]
    return Innovations(z, pull, 0.5 * log_of_sum(values).expand(len(left)))
