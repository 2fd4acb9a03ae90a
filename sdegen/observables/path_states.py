"""States of whole paths, for what is measured along them, and their times."""

from typing import Protocol

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.requests import kind_of
from sdegen.core.shapes import State
from sdegen.observables.base import AtTimes, Block, Partial

_FLOAT32 = 2.0**-22  # of the times: those of torch.linspace come rounded so
_OFF = 0.01  # of a step


class _Measuring(Protocol):
    def measure(self, states: Tensor, times: Tensor) -> Partial: ...


class PathStates(AtTimes):
    """Holds the states of a block for `measure`.

    Args:
        observable: Whose.
        block: The block.
        positions: Whether in a phase space positions alone are held.
    """

    def __init__(self, observable: _Measuring, block: Block, *, positions: bool = False) -> None:
        super().__init__()
        self._observable, self._times = observable, block.times
        self._phase_space = positions and block.sde.phase_space

    def measured(self, k: int, x: State) -> Partial:
        """Return the positions, which the loop may overwrite otherwise."""
        return {"states": (x[:, 0] if self._phase_space else x).clone()}

    def partial(self) -> Partial:
        """Return what is measured."""
        return self._observable.measure(super().partial()["states"], self._times)


def uniform_step(times: Tensor, why: str, cure: str = "") -> float:
    """Return the step |dt| of times that are equally spaced.

    Args:
        times: Shape (T,).
        why: What needs that.
        cure: What to do instead, if something else than other times would do.

    Raises:
        ValueError: With the shortest and the longest step.
    """
    steps = times.diff().abs()
    dt = float((times[-1] - times[0]).abs()) / len(steps)
    if float((steps - dt).abs().max()) > _rounding(times, dt):
        raise ValueError(
            f"times must be equally spaced, but steps go from {float(steps.min()):g} to "
            f"{float(steps.max()):g}: {why}; pass times=torch.linspace(t_start, t_end, n)"
            f"{', or ' + cure if cure else ''}."
        )
    return dt


def _rounding(times: Tensor, dt: float) -> float:
    """Return what times may be off as they come."""
    return min(_FLOAT32 * float(times.abs().max()) + 1e-9 * dt, _OFF * dt)


def index_of_lags(lags: Tensor, since: Tensor) -> Tensor:
    """Return where among times since the first one lags are, shape (K,).

    Raises:
        ValueError: If one is not there.
    """
    at = torch.searchsorted(since, lags).clamp(max=len(since) - 1)
    before = (at - 1).clamp(min=0)
    at = torch.where((lags - since[before]).abs() < (since[at] - lags).abs(), before, at)
    off = (since[at] - lags).abs() > _rounding(since, float(since.diff().min()))
    if bool(off.any()):
        i = int(off.nonzero()[0])
        raise ValueError(
            f"lags[{i}] = {float(lags[i]):g} is no time between the first and another of the "
            f"times; the nearest is {float(since[at[i]]):g}, the longest {float(since[-1]):g}."
        )
    return at


def chosen(name: str, coordinates: object) -> tuple[int, ...]:
    """Return coordinates as a tuple of ints.

    Raises:
        TypeError: If they are no list of ints.
        ValueError: If there are none, one is negative, or one comes twice.
    """
    if not isinstance(coordinates, list | tuple):
        raise TypeError(
            f"{name} must be a list of ints, but is {kind_of(coordinates)}; pass {name}=[0]."
        )
    for one in coordinates:
        check_count(f"each of {name}", one, least=0)
    if not coordinates or len(set(coordinates)) < len(coordinates):
        raise ValueError(f"{name} must be one or more, each once, but are {list(coordinates)}.")
    return tuple(coordinates)
