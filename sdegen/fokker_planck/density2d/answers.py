"""What is asked of dynamics in the plane to see whether, and when, they change in time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization.time_dependence import Answers

_AXES, _DIAGONALS = ((1.0, 0.0), (0.0, 1.0)), ((1.0, 1.0), (1.0, -1.0))
_DIGITS = 2.0**44  # of the noise of a matrix: what its products round is no change


def answers_of(sde: SDE) -> list[Answers]:
    """Return functions that answer with a drift, and with what tells of the noise as a g does.

    Of a matrix G these are the noise along both coordinates, √(G Gᵀ)_xx and √(G Gᵀ)_yy, and along
    both diagonals, which tell D_xy.
    """
    if sde.noise_structure == "diagonal":
        return [_answers(sde, sde.diffusion)]
    return [_answers(sde, _along(sde, ways)) for ways in (_AXES, _DIAGONALS)]


def _answers(sde: SDE, noise: Callable[[Tensor, Tensor], Tensor]) -> Answers:
    """Return f and g at states, at one time or at one for each of them."""

    def answers(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if t.ndim > 1:
            raise TypeError("a time for each of two coordinates is none of theirs.")
        return sde.drift(x, t), noise(x, t)

    return answers


def _along(sde: SDE, ways: tuple[tuple[float, float], ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the strength of the noise along two directions."""

    def noise(x: Tensor, t: Tensor) -> Tensor:
        each = []
        for way in ways:
            e = torch.tensor(way, dtype=x.dtype, device=x.device).expand_as(x)
            each.append((e * sde.covariance_times(x, t, e)).sum(-1))
        share, power = torch.frexp(torch.stack(each, -1).clamp(min=0.0).sqrt())
        return torch.ldexp((share * _DIGITS).round() / _DIGITS, power)

    return noise
