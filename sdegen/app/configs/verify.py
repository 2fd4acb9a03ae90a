"""What sdegen verify is asked."""

from dataclasses import dataclass

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import NoisySolverName, Reading, check_ends, check_increasing
from sdegen.core.checks import check_finite, check_not_negative, check_positive


@dataclass(frozen=True)
class VerifyConfig(Config):
    """Certify a simulation against what is assumed of it.

    Simulates a one-dimensional SDE, and compares its trajectories with the law of their chain,
    that law with the density of the SDE, and this density with what is believed. Writes
    certificate.json, certificate.html, certificate.png, certificate.safetensors (x, times, law,
    density, states) and metrics.json. Exit status 1 if a check failed. Of a file of stored states,
    sdegen verify FILE --sde file.py:name is verify-states.

    Args:
        sde: file.py:name or module:name of an SDE, of a function without arguments that returns
            one, or of a drift f(x, t), which then needs --diffusion.
        potential: file.py:name of a function U(x), or of a Potential, if e^(−U/T) is believed to
            be the stationary density.
        temperature: T of that density.
        density: file.py:name of a function p(x), or of a Density, if it is believed to be the
            density at the last time.
        diffusion: Noise of a plain drift: a number σ ≥ 0, or file.py:name of a g(x, t).
        interpretation: Reading of multiplicative noise, for a plain drift.
        low: Lower end of the grid; found from the stationary density unless said.
        high: Upper end of the grid; found from the stationary density unless said.
        cells: Cells of the grid.
        mean: Mean of the Gaussian that trajectories start from.
        std: Its standard deviation; 0 starts all at the mean.
        t0: First time.
        t1: Last time.
        points: Times that are judged, equally spaced, both ends included.
        solver: How a step is taken; torchsde's by their names.
        substeps: Steps between two of the times.
        trajectories: How many.
        false_alarm: Chance that an exact simulation is refused.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
    """

    sde: str
    potential: str | None = None
    temperature: float = 1.0
    density: str | None = None
    diffusion: float | str | None = None
    interpretation: Reading = "ito"
    low: float | None = None
    high: float | None = None
    cells: int = 400
    mean: float = 0.0
    std: float = 0.1
    t0: float = 0.0
    t1: float = 10.0
    points: int = 3
    solver: NoisySolverName = "euler-maruyama"
    substeps: int = 500
    trajectories: int = 10_000
    false_alarm: float = 1e-5
    seed: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        self.check_each(check_finite, "mean", "t0", "t1", "low", "high")
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high go together; pass both, or neither.")
        if self.low is not None and self.high is not None:
            check_ends(self.low, self.high)
        check_increasing(self.t0, self.t1)
        check_positive("temperature", self.temperature)
        check_not_negative("std", self.std)
        self.check_counts({"cells": 4, "points": 2, "substeps": 1, "trajectories": 100})
        if not 0 < self.false_alarm < 1:
            raise ValueError(f"false_alarm must lie in (0, 1), but is {self.false_alarm:g}.")
        super().__post_init__()
