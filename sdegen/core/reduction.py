"""The reduction on a line: noise of m channels in one coordinate is one noise.

    Σ_k G_1k dW_k = g dW in law,        g = √(Σ_k G_1k²)

Densities and passages of one coordinate are those of the diagonal SDE with this g, exactly, and so
are the laws of chains whose steps add G z. In more coordinates there is no such reduction.
"""

from __future__ import annotations

from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.channels import deviation
from sdegen.core.kernel import Kernel, ReverseStructure
from sdegen.core.noise_structure import check_diagonal
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time


class _OnLine(SDE):
    """The diagonal SDE of the same law as one with channels and one coordinate.

    Args:
        sde: Dynamics with channels.
        name: What reduces it.
    """

    def __init__(self, sde: SDE, name: str) -> None:
        self._sde, self._name = sde, name
        self.noise, self.autonomous, self.direction = sde.noise, sde.autonomous, sde.direction
        self.jumps = sde.jumps

    @property
    def time_range(self) -> tuple[float, float]:
        """Earliest and latest time at which the dynamics are defined."""
        return self._sde.time_range

    @property
    def score_range(self) -> tuple[float, float]:
        """Earliest and latest time at which the score of p_t is asked for."""
        return self._sde.score_range

    @property
    def kernel(self) -> Kernel | None:
        """The Gaussian kernel, where there is one."""
        return self._sde.kernel

    @property
    def denoising(self) -> ReverseStructure | None:
        """The score and η of reverse dynamics; None for forward ones."""
        return self._sde.denoising

    def drift(self, x: State, t: Time) -> State:
        """Return f(x, t)."""
        return self._sde.drift(x, t)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """Return √(Σ_k G_1k²).

        Raises:
            ValueError: If there are several coordinates.
        """
        G = self._sde.diffusion(x, t)
        if G.ndim != x.ndim + 1 or G[0].numel() != self._sde.channels:
            raise ValueError(
                f"{self._name} is for one coordinate, where noise of several channels is one "
                f"noise, but G of {type(self._sde).__name__} has shape {tuple(G.shape)} for x of "
                f"shape {tuple(x.shape)}; of two coordinates take FokkerPlanck2D, of more "
                "run_ensemble."
            )
        return deviation(self._sde, x, t)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Refuse a derivative that is not that of its function."""
        self._sde.check_derivatives(x, t)

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how a derivative that the dynamics need is found at some states."""
        return self._sde.slope_by(x, t)


def reduced(sde: SDE, name: str) -> SDE:
    """Return a diagonal SDE of the same law on a line; one that is diagonal as it is.

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        name: What reads them.

    Raises:
        ValueError: If the noise is general, or states are positions and velocities; and when it
            is read, if there are several coordinates.
    """
    if getattr(sde, "phase_space", False):
        of_one = "ChainDensity2D" if name == "ChainDensity" else "FokkerPlanck2D"
        raise ValueError(
            f"{name} is for one coordinate, but a state of {type(sde).__name__} has positions and "
            f"velocities: of one position take {of_one}(sde, (grid of x, grid of v)), of more "
            "run_ensemble."
        )
    if getattr(sde, "channels", None) is not None:
        return _OnLine(sde, name)
    check_diagonal(sde, name)
    return sde
