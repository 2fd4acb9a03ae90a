"""An SDE whose drift and diffusion do not depend on time, read off once.

Density at rest, currents, first passages and spectra belong to one pair f(x), D(x). Both are read
when they are first needed, and remembered with what follows from them, until the solver finds
that they have changed. With gradients they are read anew.
"""

from __future__ import annotations

from functools import cached_property

import torch

from sdegen.fokker_planck.discretization.coefficients import Coefficients
from sdegen.fokker_planck.discretization.fluxes import Fluxes, Landscape, fluxes
from sdegen.fokker_planck.discretization.generator import Generator


class Frozen:
    """Coefficients, landscape and fluxes without time.

    Args:
        generator: The SDE on a grid.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def check(self, what: str) -> None:
        """Refuse an SDE that depends on time.

        Args:
            what: What was asked for.

        Raises:
            ValueError: If drift or diffusion depend on time.
        """
        if self._varies:
            raise ValueError(
                f"{what} was asked for, but drift or diffusion depend on time; freeze the time in "
                "the SDE, or solve from a start."
            )

    @property
    def assumed_autonomous(self) -> bool:
        """Whether it is an assumption that drift and diffusion do not depend on time.

        Then they take t, and answered alike at the times that were looked at; the SDE says neither
        that they depend on it nor that they do not.
        """
        return self._generator.reader.assumed_autonomous

    def landscape(self, *, fresh: bool = False) -> Landscape:
        """Return f/D, integrated over the cells; a fresh one knows its parameters."""
        return self._generator.landscape(self._coefficients()) if fresh else self._land

    def read(self, *, fresh: bool = False) -> tuple[Coefficients, Fluxes]:
        """Return the coefficients and their fluxes; fresh ones know their parameters."""
        land = self.landscape(fresh=fresh)
        return land.coefficients, fluxes(land)

    def _coefficients(self) -> Coefficients:
        return self._generator.coefficients(self._generator.reader.start)

    @cached_property
    def _varies(self) -> bool:
        return self._generator.reader.varies_at_all()

    @cached_property
    def _land(self) -> Landscape:
        with torch.no_grad():
            return self._generator.landscape(self._coefficients())
