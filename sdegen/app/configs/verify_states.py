"""What sdegen verify-states is asked."""

from dataclasses import dataclass
from typing import Literal

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import NoisySolverName, Reading, check_boundary, check_ends
from sdegen.core.checks import check_finite, check_positive

JudgedSolverName = Literal[NoisySolverName, "baoab", "obabo", "exact", "unknown"]


@dataclass(frozen=True)
class VerifyStatesConfig(Config):
    """Judge states that any program stored, by the noise of their steps.

    sdegen verify FILE is the same. Turns the stored steps into the noise that they must have had
    under the equation that is believed, in any dimension, and asks whether it is what it should
    be. Writes certificate.json, certificate.html, certificate.png and metrics.json. Exit status 1
    if a check failed.

    Args:
        states: The file: .npy, .npz, .csv (.tsv, .txt, .dat), .h5 (.hdf5), .zarr, .xyz (.extxyz)
            or .lammpstrj (.dump).
        sde: file.py:name or module:name of the SDE that they should follow, of a function without
            arguments that returns one, or of a drift f(x, t), which then needs --diffusion.
        diffusion: Noise of a plain drift: a number σ ≥ 0, or file.py:name of a g(x, t).
        interpretation: Reading of multiplicative noise, for a plain drift.
        dt: Step of the solver, where the file does not say when states were stored.
        times: Name of the array or column of times, if it is not time, times or t.
        solver: How a step was taken; euler-maruyama, or baoab in a phase space, unless said.
            "exact" are the transitions of a linear process, "unknown" any method.
        substeps: Steps of the solver from one stored state to the next.
        layout: Names of the axes of an array, such as "time, batch, coordinate".
        key: Name of the array, in a file of several; dataset of .h5 and .zarr.
        columns: Names of the columns of a table that are coordinates of one state.
        velocities: Name of the array of velocities beside the positions, or names of columns.
        phase_space: Whether each state of an array is positions and velocities, (2, …).
        format: npy, npz, csv, hdf5, zarr, xyz or lammps, where the suffix does not say it.
        length_unit: How large a unit of length of the file is in units of the SDE.
        time_unit: The same of time.
        periods: Period of each coordinate, 0 where it has none, or one for all.
        boundary: What states were kept inside of: "no-flux" or "periodic", or file.py:Class of a
            boundary of your own.
        coordinate: The coordinate that the boundary is of, from 0; each of them unless said.
        low: Lower end of the boundary.
        high: Upper end of the boundary.
        false_alarm: Chance that a right simulation is refused.
        threads: CPU threads; torch's choice unless said.
    """

    states: str
    sde: str | None = None
    diffusion: float | str | None = None
    interpretation: Reading = "ito"
    dt: float | None = None
    times: str | None = None
    solver: JudgedSolverName | None = None
    substeps: int = 1
    layout: str | None = None
    key: str | None = None
    columns: tuple[str, ...] | None = None
    velocities: tuple[str, ...] | None = None
    phase_space: bool = False
    format: str | None = None
    length_unit: float = 1.0
    time_unit: float = 1.0
    periods: tuple[float, ...] | None = None
    boundary: str | None = None
    coordinate: int | None = None
    low: float | None = None
    high: float | None = None
    false_alarm: float = 1e-3
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.sde is None:
            raise ValueError(
                "the SDE that states should follow is missing; pass --sde file.py:name."
            )
        self.check_each(check_finite, "low", "high")
        self.check_each(check_positive, "dt", "length_unit", "time_unit")
        self.check_counts({"substeps": 1, "coordinate": 0})
        if self.substeps > 1 and self.solver is None:
            raise ValueError("substeps are steps of a solver; pass --solver, say euler-maruyama.")
        if self.solver in ("exact", "unknown") and self.substeps > 1:
            raise ValueError(
                f"solver = {self.solver!r} has no substeps; leave --substeps out, and pass the "
                "--dt of stored states."
            )
        check_boundary(self.boundary)
        ends = (self.low, self.high)
        if (self.boundary is None) != (ends == (None, None)) or ends.count(None) == 1:
            raise ValueError(
                "boundary, low and high go together; pass all three of them, or none."
            )
        if self.coordinate is not None and self.boundary is None:
            raise ValueError(
                "coordinate is that of a boundary; pass --boundary, --low and --high."
            )
        if self.low is not None and self.high is not None:
            check_ends(self.low, self.high)
        if not 0 < self.false_alarm < 1:
            raise ValueError(f"false_alarm must lie in (0, 1), but is {self.false_alarm:g}.")
        super().__post_init__()
