"""What sdegen explore is asked."""

from dataclasses import dataclass
from typing import Literal

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import check_ends
from sdegen.core.checks import check_finite, check_not_negative, check_positive

LARGEST_RUN = 50_000  # numbers of a block, so that all particles have one random stream
ExploredSolver = Literal["euler-maruyama", "heun", "milstein", "sra", "baoab", "obabo"]


@dataclass(frozen=True)
class ExploreConfig(Config):
    """Explore an SDE on a page of this machine: sliders, particles and density in time.

    Serves the page on 127.0.0.1 until Ctrl-C, and opens it in a browser. Programs that the page
    saves are kept in the folder of the run, which is taken away again if there are none.

    Args:
        sde: file.py:name or module:name of an SDE, or of a function that returns one, whose float
            parameters become sliders; a double well unless said. It needs no flag:
            sdegen explore well.py:well.
        particles: Particles that move.
        steps: Steps of one run.
        dt: Step at first, in units of time; the page has a slider for it.
        mean: Where the particles start, at first.
        std: Standard deviation of the Gaussian that they start from; 0 is a point.
        level: Whose first passage is watched, at first.
        low: Lower end of the density's grid; found unless said, with --high.
        high: Upper end of the density's grid.
        solver: How the particles move; the library's choice unless said.
        seed: Seed of all random numbers.
        port: Of the page; a free one unless said.
        no_browser: Print the address alone, and open no browser.
    """

    sde: str | None = None
    particles: int = 5000
    steps: int = 2000
    dt: float = 0.005
    mean: float = -1.0
    std: float = 0.1
    level: float = 0.0
    low: float | None = None
    high: float | None = None
    solver: ExploredSolver | None = None
    seed: int = 0
    port: int | None = None
    no_browser: bool = False

    def __post_init__(self) -> None:
        self.check_counts({"particles": 2, "steps": 1, "port": 1})
        self.check_each(check_finite, "mean", "level", "low", "high")
        check_positive("dt", self.dt)
        check_not_negative("std", self.std)
        if self.particles > LARGEST_RUN:
            raise ValueError(
                f"particles must be ≤ {LARGEST_RUN}, to be drawn live, but is {self.particles}; "
                "save a program, and let it simulate more."
            )
        if self.port is not None and self.port > 65535:
            raise ValueError(f"port must be ≤ 65535, but is {self.port}.")
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high end one grid: pass both, or none.")
        if self.low is not None and self.high is not None:
            check_ends(self.low, self.high)
        super().__post_init__()
