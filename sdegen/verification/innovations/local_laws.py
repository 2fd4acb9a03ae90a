"""Approximate laws of transitions over a time h: Gaussians whose moments are found at each state.

They need no derivatives, slopes are differences over what noise does in the step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.verification.innovations.law import Innovations, StepLaw, flat, is_even, log_of_sum

_TERMS = 5  # of the series in h
_LONGEST = 1.2  # h |J| of a step that is judged


class LocalLaw(StepLaw):
    """The law of an equation made linear at each state, as the page of `redrawn_law` has it.

    Args:
        sde: What moves, with noise in all directions.
        nodes: Times of the states, shape (steps + 1,).
    """

    name = "the equation made linear at each state"

    def __init__(self, sde: SDE, nodes: Tensor) -> None:
        self._sde, self._nodes = sde, nodes
        self.alike: bool = bool(sde.autonomous) and is_even(nodes)

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        i = 0 if self.alike else i
        t, s = self._nodes[i], self._nodes[i + 1]
        sense, h, middle = math.copysign(1.0, float(s - t)), float((s - t).abs()), 0.5 * (t + s)
        moved, y = _without_noise(self._sde, x, t, s)
        square = covariance_matrix(self._sde, y, middle).double()
        slopes, bend = self._expanded(y, middle, square.diagonal(dim1=1, dim2=2), h)
        slopes = sense * slopes
        shift = 0.25 * sense * h * h * bend
        moved = moved.reshape(len(x), -1).double() + shift
        spread, factor = square * h, h
        term = square.expand(len(x), *square.shape[1:])
        for n in range(1, _TERMS):
            half = slopes @ term
            term = half + half.mT
            factor *= h / (n + 1)
            spread = spread + factor * term
        lower, info = torch.linalg.cholesky_ex(spread)
        variances = spread.diagonal(dim1=1, dim2=2)
        # where a step bends more than it spreads, or forgets most of x, no line is a law
        judged = (info == 0) & (h * slopes.abs().amax((1, 2)) <= _LONGEST)
        judged &= (shift.square() <= variances).all(1)
        some = None if bool(judged.all()) else judged
        if some is not None:
            plain, _ = torch.linalg.cholesky_ex(square * h)
            lower = torch.where(judged[:, None, None], lower, plain)
        rows = x.reshape(len(x), -1)
        step = (after.reshape(rows.shape) - rows).double()
        both = torch.stack([step - moved, moved], -1)
        z, pull = torch.linalg.solve_triangular(lower, both, upper=False).unbind(-1)
        log_scale = log_of_sum(lower.diagonal(dim1=1, dim2=2))
        return Innovations(z.to(x), pull.to(x), log_scale, judged=some)

    def _expanded(self, x: State, t: Tensor, squares: Tensor, h: float) -> tuple[Tensor, Tensor]:
        """Return the slopes J of f, shape (n, d, d), and Σ_i Q_ii ∂_i² f."""
        f = self._drift(x, t)
        columns, bend = [], torch.zeros_like(f)
        for k in range(f.shape[1]):
            # the step of a difference is what noise does, so that it sees what the state sees
            noise = (squares[:, k] * h).sqrt().expand(len(x))
            size = torch.where(noise > 0, noise, 1e-6 + h * f[:, k].abs())
            by = torch.zeros_like(f)
            by[:, k] = size
            by = by.reshape(x.shape).to(x)
            up, down = self._drift(x + by, t), self._drift(x - by, t)
            columns.append((up - down) / (2 * size[:, None]))
            bend = bend + (up + down - 2 * f) * (squares[:, k] / size.square())[:, None]
        return torch.stack(columns, -1), bend

    def _drift(self, x: State, t: Tensor) -> Tensor:
        return self._sde.drift(x, t).reshape(len(x), -1).double()


class PairedLaw(StepLaw):
    """What steps in phase space add to the equation without noise, in units of its noise.

    Positions first, then velocities: not yet whitened, since both have their noise in common.

    Args:
        sde: What moves, in a phase space.
        nodes: Times of the states, shape (steps + 1,).
    """

    name = "positions and velocities in pairs"

    def __init__(self, sde: SDE, nodes: Tensor) -> None:
        self._sde, self._nodes = sde, nodes
        self.alike: bool = bool(sde.autonomous) and is_even(nodes)

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, 2, *event)."""
        i = 0 if self.alike else i
        t, s = self._nodes[i], self._nodes[i + 1]
        h = float(s - t)
        moved, _ = _without_noise(self._sde, x, t, s)
        g = flat(self._sde.diffusion(x, t), x).chunk(2, 1)[1]
        judged = (g > 0).all(1)
        size = torch.where(g > 0, g, 1.0) * math.sqrt(abs(h))
        scale = torch.cat([abs(h) * size, size], 1)
        z = (after - x - moved).flatten(1) / scale
        # free flight is no drift that could be too strong
        force = moved.clone()
        force[:, 0] -= h * x[:, 1]
        pull = force.flatten(1) / scale
        mask = None if bool(judged.all()) else judged
        return Innovations(z, pull, log_of_sum(scale), judged=mask)


def _without_noise(sde: SDE, x: State, t: Tensor, s: Tensor) -> tuple[State, State]:
    """Return how far the drift moves x from t to s, by a Runge–Kutta step, and where it is midway.

    Reference:
        Kutta 1901, Z. Math. Phys. 46, 435: the classical method of order 4.
    """
    h, middle = float(s - t), 0.5 * (t + s)
    first = sde.drift(x, t)
    second = sde.drift(x + 0.5 * h * first, middle)
    y = x + 0.5 * h * second
    third = sde.drift(y, middle)
    last = sde.drift(x + h * third, s)
    return h * (first + 2 * second + 2 * third + last) / 6, y
