"""What happens at the two ends of a grid, as a request names it: by words, or by boundaries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sdegen.core.boundary import Boundary, End
from sdegen.core.boundary_words import of_words
from sdegen.core.bounds import Bound
from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import Interval, interval_of
from sdegen.fokker_planck.discretization.grid import Grid

Word = Literal["no-flux", "absorbing", "periodic"] | BoundaryCondition
GridBoundaryLike = Word | tuple[Word, Word] | Boundary | tuple[Boundary, Boundary]


@dataclass(frozen=True)
class GridBoundary:
    """What happens at the two ends of a grid.

    Attributes:
        interval: The boundary; an end that it leaves out only ends the grid.
        low: Where the lower end is.
        high: Where the upper end is.
        physical: Whether each end is part of the problem, and does not only end the grid.
    """

    interval: Interval
    low: float
    high: float
    physical: tuple[bool, bool]

    @property
    def boundary(self) -> Boundary | tuple[Boundary, Boundary]:
        """As `simulate` takes it."""
        first, last = self.interval.boundaries[0], self.interval.boundaries[-1]
        return first if first is last else (first, last)

    @property
    def conditions(self) -> tuple[BoundaryCondition, BoundaryCondition]:
        """What a density satisfies at the lower and at the upper end.

        Raises:
            ValueError: If a boundary declares none, with its class.
        """
        return condition_at(self.interval.low), condition_at(self.interval.high)

    @property
    def moving(self) -> tuple[Bound | None, Bound | None]:
        """The function of t that each end follows, None where it stays."""
        low, high = (None if e is None or not callable(e.at) else e.at for e in self._ends)
        return low, high

    @property
    def absorbs(self) -> tuple[bool, bool]:
        """Whether particles end at each."""
        low, high = (end is not None and end.boundary.absorbs for end in self._ends)
        return low, high

    @property
    def bridged(self) -> tuple[bool, bool]:
        """Whether particles are absorbed at each between two steps too."""
        low, high = (end is not None and end.boundary.bridged for end in self._ends)
        return low, high

    @property
    def _ends(self) -> tuple[End | None, End | None]:
        return self.interval.low, self.interval.high


def condition_at(end: End | None) -> BoundaryCondition:
    """Return what a density satisfies at an end; where there is none, a grid ends without flux.

    Raises:
        ValueError: If the boundary declares no condition, with its class.
    """
    if end is None:
        return BoundaryCondition.NO_FLUX
    if end.boundary.condition is None:
        name = type(end.boundary).__name__
        raise ValueError(
            f"{name} declares no condition of a density, and without one no Fokker–Planck "
            f"equation is known for it; set condition = BoundaryCondition.NO_FLUX or another in "
            f"{name} if its steps obey that in the limit of short ones, or take simulate or "
            f"run_ensemble, which need none."
        )
    return end.boundary.condition


def boundary_of_grid(boundary: object, grid: Grid, *, physical: bool = False) -> GridBoundary:
    """Read a boundary where a grid says where its ends are.

    Args:
        boundary: A word or a pair (lower, upper) of words; or `Reflecting`, `Absorbing`,
            `Periodic` or another boundary, or a pair of them, whose ends must be those of the
            grid. An end that they leave out only ends the grid.
        grid: The grid.
        physical: Whether walls without flux that are given by words are part of the problem.

    Raises:
        TypeError: If it is none of them.
        ValueError: If a word is unknown, only one wall is periodic, or an end is elsewhere than
            the grid's.
    """
    pair = isinstance(boundary, tuple) and any(isinstance(b, Boundary) for b in boundary)
    if not (pair or isinstance(boundary, Boundary)):
        named = interval_of(of_words(_words(boundary), grid.low, grid.high))
        return GridBoundary(named, grid.low, grid.high, (physical, physical))
    interval = interval_of(boundary)
    for name, end, at in (("low", interval.low, grid.low), ("high", interval.high, grid.high)):
        if end is None or callable(end.at) or math.isclose(end.at, at, rel_tol=1e-12):
            continue
        raise ValueError(
            f"the boundary has its {name} end at {end.at:g}, but the grid at {at:g}; pass "
            f"Grid(…) with {name} = {end.at:g}."
        )
    given = interval.low is not None, interval.high is not None
    return GridBoundary(interval, grid.low, grid.high, given)


def _words(boundary: object) -> tuple[str, str]:
    """Return a word or a pair, as a pair.

    Raises:
        TypeError: If it is neither.
    """
    pair = (boundary, boundary) if isinstance(boundary, str) else boundary
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(
            f"boundary must be a word or a pair (lower, upper), but is {boundary!r}; pass "
            "'no-flux', 'absorbing' or 'periodic', or Reflecting, Absorbing or Periodic with the "
            "ends of the grid, as in Reflecting(low, high)."
        )
    return pair
