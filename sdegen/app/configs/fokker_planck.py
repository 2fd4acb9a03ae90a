"""What sdegen fokker-planck is asked."""

from dataclasses import dataclass

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import Reading, check_boundary, check_ends, check_increasing
from sdegen.core.checks import check_finite, check_not_negative


@dataclass(frozen=True)
class FokkerPlanckConfig(Config):
    """Solve the Fokker-Planck equation of a one-dimensional SDE.

    Writes density.safetensors (x, times, p, and stationary), metrics.json and density.png.

    Args:
        sde: file.py:name or module:name of an SDE, of a function without arguments that returns
            one, or of a drift f(x, t), which then needs --diffusion.
        diffusion: Noise of a plain drift: a number σ > 0, or file.py:name of a g(x, t).
        interpretation: Reading of multiplicative noise, for a plain drift.
        low: Lower end of the grid.
        high: Upper end of the grid.
        cells: Cells of the grid; it has one node more.
        boundary: What both ends do.
        truncation_is_physical: The no-flux walls are part of the problem, and do not only end the
            grid.
        mean: Mean of the Gaussian that the density starts from.
        std: Its standard deviation; 0 puts all of it at the mean.
        t0: First time.
        t1: Last time.
        points: Times that are kept, equally spaced, both ends included.
        stationary: Find the stationary density too.
        threads: CPU threads; torch's choice unless said.
    """

    sde: str
    diffusion: float | str | None = None
    interpretation: Reading = "ito"
    low: float = -5.0
    high: float = 5.0
    cells: int = 400
    boundary: str = "no-flux"
    truncation_is_physical: bool = False
    mean: float = 0.0
    std: float = 0.1
    t0: float = 0.0
    t1: float = 1.0
    points: int = 11
    stationary: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        self.check_each(check_finite, "low", "high", "mean", "t0", "t1")
        check_ends(self.low, self.high)
        check_boundary(self.boundary)
        if not self.low <= self.mean <= self.high:
            raise ValueError(
                f"mean must lie in [low, high] = [{self.low:g}, {self.high:g}], but is "
                f"{self.mean:g}."
            )
        check_increasing(self.t0, self.t1)
        check_not_negative("std", self.std)
        self.check_counts({"cells": 4, "points": 2})
        super().__post_init__()
