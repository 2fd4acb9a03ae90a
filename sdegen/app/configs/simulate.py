"""What sdegen simulate is asked."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import (
    CompiledSolverName,
    Precision,
    Reading,
    SolverName,
    check_boundary,
)
from sdegen.core.checks import check_finite, check_not_negative, check_positive

ObservableName = Literal["moments", "histogram", "correlation", "first-passage", "current"]


@dataclass(frozen=True)
class SimulateConfig(Config):
    """Simulate an SDE from a start along a grid of times.

    Writes trajectory.safetensors (times, states, nonfinite), metrics.json and trajectory.png.

    With --store or --observables it is an ensemble of any size, of which no more than a few blocks
    are in memory: states go to the store, and observables.safetensors is written. Processes that
    torchrun started share it: torchrun --nproc-per-node 4 -m sdegen simulate …

    Args:
        sde: file.py:name or module:name of an SDE, of a function without arguments that returns
            one, or of a drift f(x, t), which then needs --diffusion.
        diffusion: Noise of a plain drift: a number σ ≥ 0, or file.py:name of a g(x, t).
        interpretation: Reading of multiplicative noise, for a plain drift.
        x0: Start, one number for each coordinate.
        x0_std: Standard deviation of Gaussian starts around x0; 0 starts all at x0.
        trajectories: How many.
        t0: First time.
        t1: Last time.
        points: Times that are kept, equally spaced, both ends included.
        solver: How a step is taken; torchsde's by their names, dopri5 for noise-free dynamics
            alone.
        substeps: Steps between two of the times that are kept.
        compile: Compile runs of steps, of euler-maruyama or heun: some 10 s, then many times as
            fast.
        tolerance: Relative and absolute tolerance of dopri5.
        boundary: What the ends of the space do: no-flux, absorbing, periodic, or file.py:Class of
            a boundary of your own; needs --low and --high. Of a state of several coordinates they
            bound --coordinate.
        low: Lower end of the space; with --fokker-planck, of the grid.
        high: Upper end of the space; with --fokker-planck, of the grid.
        last_only: Keep the last states alone.
        fokker_planck: Solve the Fokker-Planck equation too, for one-dimensional SDEs, and draw its
            density over the particles.
        cells: Cells of the Fokker-Planck grid, bins of the comparison, of the histogram and of
            the current.
        observables: What is accumulated over the ensemble. histogram and current need --low and
            --high; first-passage needs --above, --below or --between.
        above: The region of first-passage is x ≥ above.
        below: The region of first-passage is x ≤ below; with --above, either.
        between: The region of first-passage is an interval.
        bridge: Only look at steps; unless said, first passages between two steps are drawn too.
        coordinate: Which coordinate the boundary, histogram, first-passage and current are of,
            from 0.
        interacting: Whether trajectories depend on each other and run together; unless said, a
            probe of the drift finds out.
        store: Folder that the states go to, such as run.zarr; xarray opens it.
        resume: Go on with a store that is there, and compute what is missing.
        on_nonfinite: What to do when a trajectory explodes: stop, or freeze it and go on.
        dtype: Precision of the states.
        device: Where they live: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; unless said, torch's choice, and for an ensemble the cores that the
            process may use, of which processes of torchrun on one machine take a share each.
    """

    sde: str
    diffusion: float | str | None = None
    interpretation: Reading = "ito"
    x0: tuple[float, ...] = (0.0,)
    x0_std: float = 0.0
    trajectories: int = 1_000
    t0: float = 0.0
    t1: float = 1.0
    points: int = 101
    solver: SolverName = "euler-maruyama"
    substeps: int = 1
    compile: bool = False
    tolerance: float = 1e-5
    boundary: str | None = None
    low: float | None = None
    high: float | None = None
    last_only: bool = False
    fokker_planck: bool = False
    cells: int = 200
    observables: Annotated[
        tuple[ObservableName, ...], arg(help_behavior_hint="(default: none)")
    ] = ()
    above: float | None = None
    below: float | None = None
    between: tuple[float, float] | None = None
    bridge: Annotated[bool, arg(help_behavior_hint="(in a config.toml: bridge = false)")] = True
    coordinate: int = 0
    interacting: bool | None = None
    store: str | None = None
    resume: bool = False
    on_nonfinite: Literal["raise", "freeze"] = "raise"
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    @property
    def is_ensemble(self) -> bool:
        """Return whether trajectories are run in blocks that are not kept."""
        return self.store is not None or bool(self.observables)

    @property
    def ends(self) -> tuple[float, float]:
        """Return the ends of the space, of what needs them."""
        assert self.low is not None  # __post_init__ saw to it
        assert self.high is not None
        return self.low, self.high

    def __post_init__(self) -> None:
        if not self.x0:
            raise ValueError(
                "x0 must have one number for each coordinate, but has none; pass --x0 0."
            )
        for value in self.x0:
            check_finite("x0", value)
        self.check_each(check_finite, "t0", "t1")
        if self.t0 == self.t1:
            raise ValueError(f"t1 must differ from t0, but both are {self.t0:g}.")
        check_not_negative("x0_std", self.x0_std)
        self.check_counts({"trajectories": 1, "points": 2, "cells": 4, "substeps": 1})
        check_positive("tolerance", self.tolerance)
        check_boundary(self.boundary)
        unbounded = self.low is None or self.high is None
        if self.boundary is not None and unbounded:
            raise ValueError(
                f"boundary = {self.boundary!r} needs low and high; pass --low and --high."
            )
        if self.fokker_planck and self.last_only:
            raise ValueError("fokker_planck is compared at all times; leave --last-only out.")
        if self.fokker_planck and unbounded:
            raise ValueError(
                "fokker_planck needs low and high, the ends of its grid; pass --low and --high."
            )
        if self.fokker_planck and self.is_ensemble:
            raise ValueError(
                "fokker_planck is compared with trajectories in memory; leave --store and "
                "--observables out."
            )
        if self.resume and self.store is None:
            raise ValueError("resume goes on with a store; pass --store with it.")
        gridded = {"histogram", "current"}.intersection(self.observables)
        if gridded and unbounded:
            raise ValueError(
                f"observables: {min(gridded)} needs low and high; pass --low and --high."
            )
        region = (self.above, self.below, self.between) != (None, None, None)
        if ("first-passage" in self.observables) != region:
            raise ValueError(
                "above and below are the region of first-passage: pass --observables "
                "first-passage with --above, --below or both, or with --between."
            )
        if self.compile and self.solver not in get_args(CompiledSolverName):
            raise ValueError(
                f"compile is for --solver euler-maruyama or heun, but solver = {self.solver!r}."
            )
        if self.coordinate not in range(len(self.x0)):
            raise ValueError(
                f"coordinate must be 0 … {len(self.x0) - 1}, as x0 has {len(self.x0)} numbers, "
                f"but is {self.coordinate}."
            )
        super().__post_init__()
