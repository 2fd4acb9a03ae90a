"""The front of the plane's solvers: which of them takes an SDE, and what only one answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from sdegen.core.enclosure import BoundaryLike
from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.sde.underdamped import UnderdampedLangevin

if TYPE_CHECKING:
    from sdegen.fokker_planck.kinetic.spectrum import KineticSpectrum


class PlaneFront:
    """What `FokkerPlanck2D` is made of: a solver of the plane, or of phase space."""

    sde: SDE
    grids: tuple[Grid, Grid]

    def __new__(
        cls,
        sde: SDE,
        grids: tuple[Grid, Grid],
        boundary: BoundaryLike | None = None,
        *,
        form: str = "auto",
        truncation_is_physical: bool = False,
    ) -> Self:
        """Return a solver of phase space for an underdamped particle."""
        del grids, boundary, form, truncation_is_physical
        if isinstance(sde, UnderdampedLangevin):
            # it derives from FokkerPlanck2D, which derives from this class
            from sdegen.fokker_planck.kinetic.solver import KineticFokkerPlanck

            return object.__new__(KineticFokkerPlanck)  # type: ignore[return-value]
        return object.__new__(cls)

    def __getnewargs__(self) -> tuple[SDE, tuple[Grid, Grid]]:
        """Return what a copy is made with."""
        return self.sde, self.grids

    def spectrum(
        self, count: int = 2, *, near: complex = 0.0, rtol: float | None = None
    ) -> KineticSpectrum:
        """Find the slowest modes of an `UnderdampedLangevin`.

        Args:
            count: How many modes, that at rest among them.
            near: The rate near which they are sought, in units of 1/time.
            rtol: Relative error that finer grids are taken for.

        Raises:
            TypeError: If the SDE is another.
        """
        raise TypeError(
            f"the spectrum of {type(self.sde).__name__} in the plane is not built; there is that "
            "of an UnderdampedLangevin in phase space, and on a line that of "
            "FokkerPlanck(sde, grid).spectrum(count)."
        )
