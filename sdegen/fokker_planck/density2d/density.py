"""A density in the plane, and its moments."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import NOT_ESTIMATED, ErrorEstimate, SlopeBy, Trust
from sdegen.core.shown import Labelled
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.reconstruction import Line

PlaneForm = Literal["compact", "lumped", "hermite"]


@dataclass(frozen=True, eq=False)
class PlaneDensity(Labelled):
    """A density at the nodes of a tensor grid.

        mass = ∫∫ p dx dy,     mean = ∫∫ (x, y) p dx dy/mass

    Args:
        x: Nodes along the first coordinate, shape (nx,).
        y: Nodes along the second, shape (ny,).
        p: Values, shape (nx, ny).
        error: Estimated relative errors: of "p", over its peak; of "mean", over the standard
            deviation where that is larger; of "covariance", over the standard deviations'
            product; of "mass", over itself, where a wall absorbs. At rest also of
            "entropy_production". Empty where none was made.
        form: What it was solved with: "compact", of high order, "lumped", positive and of
            second order, or "hermite", of the kinetic equation; None where it was not solved for.
        assumed_autonomous: Whether it rests on drift and diffusion not depending on the t that
            they take, because they answered alike at the times that were looked at.
        rings: Which coordinates are periodic, their two ends one place.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.
        compared: The same density as every other node of the grid finds it, which tells an error;
            None where it was not solved for.
        phase_space: Whether the second coordinate is the velocity of the first.

    Example:
        >>> trap = sg.ItoProcess(lambda x: -x, 1.0)
        >>> rest = sg.FokkerPlanck2D(trap, (sg.Grid(-4.0, 4.0, 32),) * 2).stationary()
        >>> f"{rest.mass:.4f} {rest.marginal(0).variance:.3f}"  # 1 and ½
        '1.0000 0.500'
    """

    x: Float[Tensor, " nx"]
    y: Float[Tensor, " ny"]
    p: Float[Tensor, "nx ny"]
    error: ErrorEstimate = field(default_factory=lambda: ErrorEstimate({}, NOT_ESTIMATED))
    form: PlaneForm | None = None
    assumed_autonomous: bool = False
    rings: tuple[bool, bool] = (False, False)
    slope_by: SlopeBy = "none"
    compared: PlaneDensity | None = None
    phase_space: bool = False

    @property
    def keeps(self) -> str:
        """What its form keeps of the exact solution beside mass; "none" of a start.

        "lumped" keeps positivity and linearity. "compact" and "hermite" keep linearity; they are
        positive to the error of "p", and what "compact" finds below 0 is set to 0.
        """
        return {"lumped": "positivity, linearity", None: "none"}.get(self.form, "linearity")

    def trust(self) -> Trust:
        """Return what is known of its errors, a row for each cause."""
        title = "density in phase space" if self.phase_space else "density in the plane"
        told = Trust.on_grid(
            title, self.error or None, step="within that of the grid", slope_by=self.slope_by
        )
        if self.form != "hermite":
            return told
        below = f"linear, and not positive: the lowest value is {float(self.p.min()):.1e}"
        return Trust(title, (*told.rows, ("sign", below)))

    @property
    def weights(self) -> Float[Tensor, "nx ny"]:
        """Area of each node, in a quadrature of fourth order."""
        return torch.outer(*self._weights)

    @property
    def mass(self) -> Float[Tensor, ""]:
        """∫ p."""
        first, second = self._weights
        return first @ self.p @ second

    @property
    def mean(self) -> Float[Tensor, " 2"]:
        """E (X, Y); of a periodic coordinate within its grid."""
        first, second = self._shares
        return torch.stack([first @ self.x, second @ self.y])

    @property
    def covariance(self) -> Float[Tensor, "2 2"]:
        """Cov (X, Y)."""
        (first, second), mean = self._shares, self.mean
        dx, dy = self.x - mean[0], self.y - mean[1]
        across = torch.outer(*self._moment_weights) * self.p / self.mass
        xx, yy, xy = first @ dx**2, second @ dy**2, dx @ across @ dy
        return torch.stack([torch.stack([xx, xy]), torch.stack([xy, yy])])

    def marginal(self, axis: int) -> Density:
        """Return the density of one coordinate, 0 or 1."""
        nodes = self.x if axis == 0 else self.y
        return Density(nodes, (self.p if axis == 0 else self.p.T) @ self._weights[1 - axis])

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        """Weights of the nodes along both coordinates."""
        return self._volumes(self.rings)

    @cached_property
    def _moment_weights(self) -> tuple[Tensor, Tensor]:
        """Weights for what is not periodic: x p has two ends where p has none."""
        return self._volumes((False, False)) if any(self.rings) else self._weights

    def _volumes(self, rings: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
        """Return what the nodes along both coordinates stand for."""
        first, second = (
            torch.from_numpy(Line.of(Grid.of(nodes), ring=ring).volumes)
            for nodes, ring in zip((self.x, self.y), rings, strict=True)
        )
        return first, second

    @property
    def _shares(self) -> tuple[Tensor, Tensor]:
        """Probabilities of the nodes along both coordinates."""
        first, second = self._moment_weights
        share = self.p / self.mass
        return first * (share @ self._weights[1]), second * (self._weights[0] @ share)


@dataclass(frozen=True, eq=False)
class Solved:
    """A density that was solved for.

    Args:
        p: Values at the nodes, shape (nx, ny).
        form: What it was solved with.
        sure: Whether digits sufficed to weigh its parts against each other.
    """

    p: Tensor
    form: PlaneForm
    sure: bool = True
