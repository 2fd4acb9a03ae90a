"""Readers of several SDEs on one grid: a row of coefficients for each."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch

from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization.coefficients import Coefficients, one_or_stack, stack
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.reader import Reader


class Readers:
    """Reads several SDEs on one grid; coefficients get a leading dimension, one row for each.

    Args:
        sdes: Dynamics with a state of shape (batch, 1).
        grid: Where.
    """

    def __init__(self, sdes: Sequence[SDE], grid: Grid) -> None:
        self.grid = grid
        self.each = [Reader(sde, grid) for sde in sdes]
        self._last: tuple[list[Coefficients], Coefficients] | None = None

    @property
    def start(self) -> float:
        """A time at which the dynamics are defined."""
        return max(reader.start for reader in self.each)

    def at(self, t: float) -> Coefficients:
        """Return the coefficients of all at time t, (sdes, …); the same object while equal.

        With gradients they are always new.
        """
        read = [reader.at(t) for reader in self.each]
        if not torch.is_grad_enabled() and self._last is not None:
            before, stacked = self._last
            if all(map(operator.is_, before, read)):
                return stacked
        self._last = read, stack(read)
        return self._last[1]

    def along(self, times: Sequence[float]) -> Coefficients:
        """Return the coefficients of all at several times, (T, sdes, …), or (sdes, …) if equal."""
        return one_or_stack([self.at(t) for t in times])

    @property
    def autonomous(self) -> bool:
        """Whether all of them are known not to depend on time."""
        return all(reader.autonomous for reader in self.each)

    def renewed(self) -> bool:
        """Return whether one has changed since it was read; what is known of it is then void."""
        renewed = [reader.renewed() for reader in self.each]  # each is to look
        return any(renewed)

    def varies_at_all(self) -> bool:
        """Return whether one of them depends on time."""
        return any(reader.varies_at_all() for reader in self.each)

    @property
    def assumed_autonomous(self) -> bool:
        """Whether it is an assumption that none of them depends on time."""
        return any(reader.assumed_autonomous for reader in self.each)
