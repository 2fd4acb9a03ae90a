"""Configs: what a command is asked to do, in plain numbers and words.

One frozen, flat dataclass for each command. Its fields are the command's flags and the keys of its
config.toml; its docstring is the help. Nothing here imports torch, so that help is instant. Only
what changes the results is here: where they go is said beside it, in `Output`. The library never
sees a config; `sdegen.commands` turns one into calls.

An SDE, a diffusion or a data set of one's own is named `file.py:name` or `module:name`. No string
is ever evaluated.
"""

import math
from dataclasses import dataclass
from typing import Literal

from sdegen.score.config import TrainConfig

__all__ = [
    "Config",
    "DemoConfig",
    "FokkerPlanckConfig",
    "LikelihoodConfig",
    "Output",
    "SampleConfig",
    "SimulateConfig",
    "TrainRunConfig",
    "VerifyConfig",
]

Precision = Literal["float32", "float64"]
Reading = Literal["ito", "stratonovich", "klimontovich"]
Wall = Literal["no-flux", "absorbing", "periodic"]
ObservableName = Literal["moments", "histogram", "correlation", "first-passage", "current"]
NoisySolverName = Literal[
    "euler-maruyama",
    "heun",
    "torchsde-euler",
    "torchsde-milstein",
    "torchsde-srk",
    "torchsde-heun",
]
SolverName = Literal[NoisySolverName, "dopri5"]
Route = Literal[
    "ddpm",
    "sde",
    "sde-torchsde",
    "sde-adams",
    "sde-dpmpp",
    "flow-heun",
    "flow-ddim",
    "flow-adams",
    "flow-dpmpp",
    "flow-dopri5",
]

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Output:
    """Where the results go.

    Args:
        out: Folder of the run; runs/<command>-<UTC time> unless said.
        overwrite: Replace an earlier run in that folder.
    """

    out: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class SimulateConfig:
    """Simulates an SDE from a start along a grid of times.

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
        tolerance: Relative and absolute tolerance of dopri5.
        walls: What the ends of the space do; needs --low and --high.
        low: Lower end of the space; with --fokker-planck, of the grid.
        high: Upper end of the space; with --fokker-planck, of the grid.
        last_only: Keep the last states alone.
        fokker_planck: Solve the Fokker-Planck equation too, for one-dimensional SDEs, and draw its
            density over the particles.
        cells: Cells of the Fokker-Planck grid, bins of the comparison, of the histogram and of
            the current.
        observables: What is accumulated over the ensemble. histogram and current need --low and
            --high; first-passage needs --above or --below.
        above: The region of first-passage is x ≥ above.
        below: The region of first-passage is x ≤ below; with --above, either.
        store: Folder that the states go to, such as run.zarr; xarray opens it.
        resume: Go on with a store that is there, and compute what is missing.
        on_nonfinite: What to do when a trajectory explodes: stop, or freeze it and go on.
        dtype: Precision of the states.
        device: Where they live: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
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
    tolerance: float = 1e-5
    walls: Wall | None = None
    low: float | None = None
    high: float | None = None
    last_only: bool = False
    fokker_planck: bool = False
    cells: int = 200
    observables: tuple[ObservableName, ...] = ()
    above: float | None = None
    below: float | None = None
    store: str | None = None
    resume: bool = False
    on_nonfinite: Literal["raise", "freeze"] = "raise"
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    @property
    def is_ensemble(self) -> bool:
        """Whether trajectories are run in blocks that are not kept."""
        return self.store is not None or bool(self.observables)

    def __post_init__(self) -> None:
        if not self.x0:
            raise ValueError(
                "x0 must have one number for each coordinate, but has none; pass --x0 0."
            )
        for value in self.x0:
            _finite("x0", value)
        _finite("t0", self.t0)
        _finite("t1", self.t1)
        if self.t0 == self.t1:
            raise ValueError(f"t1 must differ from t0, but both are {self.t0:g}.")
        _at_least("x0_std", self.x0_std, 0)
        _at_least("trajectories", self.trajectories, 1)
        _at_least("points", self.points, 2)
        _at_least("cells", self.cells, 4)
        _at_least("substeps", self.substeps, 1)
        _positive("tolerance", self.tolerance)
        if self.walls is not None and (self.low is None or self.high is None):
            raise ValueError(f"walls = {self.walls!r} need low and high; pass --low and --high.")
        if self.fokker_planck and self.last_only:
            raise ValueError("fokker_planck is compared at all times; leave --last-only out.")
        if self.fokker_planck and (self.low is None or self.high is None):
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
        if gridded and (self.low is None or self.high is None):
            raise ValueError(
                f"observables: {min(gridded)} needs low and high; pass --low and --high."
            )
        if ("first-passage" in self.observables) == (self.above is None and self.below is None):
            raise ValueError(
                "above and below are the region of first-passage: pass --observables "
                "first-passage with --above, --below or both."
            )
        _seed(self.seed)
        _threads(self.threads)


@dataclass(frozen=True)
class FokkerPlanckConfig:
    """Solves the Fokker-Planck equation of a one-dimensional SDE.

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
        physical_walls: The no-flux walls are part of the problem, and do not only end the grid.
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
    boundary: Wall = "no-flux"
    physical_walls: bool = False
    mean: float = 0.0
    std: float = 0.1
    t0: float = 0.0
    t1: float = 1.0
    points: int = 11
    stationary: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "mean", "t0", "t1"):
            _finite(name, getattr(self, name))
        if self.low >= self.high:
            raise ValueError(f"low must be below high = {self.high:g}, but is {self.low:g}.")
        if not self.low <= self.mean <= self.high:
            raise ValueError(
                f"mean must lie in [low, high] = [{self.low:g}, {self.high:g}], but is "
                f"{self.mean:g}."
            )
        if self.t0 >= self.t1:
            raise ValueError(f"t1 must exceed t0 = {self.t0:g}, but is {self.t1:g}.")
        _at_least("cells", self.cells, 4)
        _at_least("std", self.std, 0)
        _at_least("points", self.points, 2)
        _threads(self.threads)


@dataclass(frozen=True)
class TrainRunConfig(TrainConfig):
    """Learns the score of data under a noising SDE.

    Writes model.safetensors, losses.safetensors, metrics.json, losses.png and, on the way,
    checkpoints, from which
    --resume FOLDER goes on to the same bits.

    Args:
        data: two_moons, eight_gaussians, swiss_roll, checkerboard, digits; or a file: .npy,
            .safetensors with one tensor, or file.py:name of a tensor or of a function that returns
            one. Shape (n, *event), scaled to order one.
        samples: Points drawn from a planar set.
        validation: Rows set aside, or drawn besides, on which the loss is followed; 0 follows
            none.
        family: The noising SDE.
        schedule: How fast VP and sub-VP noise; the others have one of their own.
        beta_min: β at t = 0 of the linear and quadratic schedules; the rate of the constant one.
        beta_max: β at t = 1 of the linear and quadratic schedules.
        sigma_min: Noise scale of VE's start, smallest noise of EDM.
        sigma_max: Noise scale of VE's end, largest noise of EDM.
        network: An MLP for vectors, a U-Net for images of shape (channels, height, width).
        width: Units of a hidden layer, or channels of the U-Net's first level; the network's own
            default unless said.
        depth: Residual blocks of the MLP, or levels of the U-Net; the network's own default unless
            said.
        parameterization: What the network predicts; flow goes with the rectified flow and
            --weighting flow-matching, edm with EDM and --weighting edm.
        sigma_data: Standard deviation of the data, for the network of EDM.
        classes: Tell the network the labels of the data (of the named data, the digits have some),
            so that sdegen sample --label can ask for one class.
        dtype: Precision of the network.
        device: Where it is trained: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
    """

    data: str = "two_moons"
    samples: int = 10_000
    validation: int = 0
    family: Literal["vp", "subvp", "ve", "rectified-flow", "edm"] = "vp"
    schedule: Literal["linear", "constant", "quadratic", "cosine"] = "linear"
    beta_min: float = 0.1
    beta_max: float = 20.0
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    network: Literal["mlp", "unet"] = "mlp"
    width: int | None = None
    depth: int | None = None
    parameterization: Literal["eps", "x0", "v", "score", "flow", "edm"] = "eps"
    sigma_data: float = 0.5
    classes: bool = False
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("samples", self.samples, 1)
        _at_least("validation", self.validation, 0)
        if self.width is not None:
            _at_least("width", self.width, 1)
        if self.depth is not None:
            _at_least("depth", self.depth, 1)
        if self.keep == "best" and self.validation == 0:
            raise ValueError(
                "keep = 'best' asks for the best weights on validation data; pass --validation, "
                "say 1000."
            )
        for name in ("beta_min", "beta_max", "sigma_min", "sigma_max", "sigma_data"):
            _positive(name, getattr(self, name))
        _seed(self.seed)
        _threads(self.threads)


@dataclass(frozen=True)
class SampleConfig:
    """Generates samples with a trained model.

    Writes samples.safetensors, metrics.json and samples.png.

    Args:
        model: A model.safetensors, or the run folder of sdegen train that holds it.
        samples: How many.
        route: ddpm (ancestral), sde (Euler-Maruyama), sde-torchsde (its heun), or the probability
            flow by heun, ddim or dopri5; and both, for few steps, by adams (exponential
            multistep, of order 2 for the SDE and 3 for the flow) or dpmpp (DPM-Solver++ 2M).
        steps: Steps of the route; dopri5 chooses its own.
        tolerance: Relative and absolute tolerance of dopri5.
        shape: Shape of one sample; that of the training data unless said.
        label: Class that is asked for, of a model trained with --classes; all of them unless said.
        guidance: w of classifier-free guidance, (1 + w) s(x | label) − w s(x): 0 is the class as
            learned, more overstates it at twice the evaluations.
        data: Data to measure the distance to, named as for sdegen train; those held out from
            training where there are such.
        dtype: Precision of the states.
        device: Where they live: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
    """

    model: str
    samples: int = 1_000
    route: Route = "sde"
    steps: int = 200
    tolerance: float = 1e-5
    shape: tuple[int, ...] | None = None
    label: int | None = None
    guidance: float = 0.0
    data: str | None = None
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        _at_least("samples", self.samples, 1)
        _at_least("steps", self.steps, 1)
        _positive("tolerance", self.tolerance)
        if self.label is not None:
            _at_least("label", self.label, 0)
        _at_least("guidance", self.guidance, -1)
        if self.guidance and self.label is None:
            raise ValueError("guidance overstates a class; say which, --label 3.")
        if self.shape is not None:
            if not self.shape:
                raise ValueError(
                    "shape must have at least one number; pass --shape 2, or --shape 1 8 8."
                )
            for size in self.shape:
                _at_least("shape", size, 1)
        _seed(self.seed)
        _threads(self.threads)


@dataclass(frozen=True)
class LikelihoodConfig:
    """Computes log-likelihoods of data under a trained model, by its probability flow.

    Writes likelihood.safetensors (log_prob, bits_per_dim, standard_error), metrics.json and
    likelihood.png.

    Args:
        model: A model.safetensors, or the run folder of sdegen train that holds it.
        data: Data, named as for sdegen train; those held out from training where there are such.
        samples: Rows that are taken, the first ones; all of a file, and 1,000 of a planar set,
            unless said.
        divergence: Of the flow: exact, or Hutchinson's estimate, for events of many numbers.
        probes: Random vectors of Hutchinson's estimate.
        tolerance: Relative and absolute tolerance of the flow's solver.
        bin_width: Width of one integer value in dequantised data; known for the digits, else 1.
        dtype: Precision of the states.
        device: Where they live: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
    """

    model: str
    data: str
    samples: int | None = None
    divergence: Literal["exact", "hutchinson"] = "exact"
    probes: int = 1
    tolerance: float = 1e-6
    bin_width: float | None = None
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.samples is not None:
            _at_least("samples", self.samples, 1)
        _at_least("probes", self.probes, 1)
        _positive("tolerance", self.tolerance)
        if self.bin_width is not None:
            _positive("bin_width", self.bin_width)
        _seed(self.seed)
        _threads(self.threads)


@dataclass(frozen=True)
class VerifyConfig:
    """Certifies a simulation against what is believed of it.

    Simulates a one-dimensional SDE, and compares its trajectories with the law of their chain,
    that law with the density of the SDE, and this density with what is believed. Writes
    certificate.json, certificate.png, certificate.safetensors (x, times, law, density, states) and
    metrics.json. Exit status 1 if a check failed.

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
        for name in ("mean", "t0", "t1"):
            _finite(name, getattr(self, name))
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high go together; pass both, or neither.")
        if self.low is not None and self.high is not None:
            _finite("low", self.low)
            _finite("high", self.high)
            if self.low >= self.high:
                raise ValueError(f"low must be below high = {self.high:g}, but is {self.low:g}.")
        if self.t0 >= self.t1:
            raise ValueError(f"t1 must exceed t0 = {self.t0:g}, but is {self.t1:g}.")
        _positive("temperature", self.temperature)
        _at_least("cells", self.cells, 4)
        _at_least("std", self.std, 0)
        _at_least("points", self.points, 2)
        _at_least("substeps", self.substeps, 1)
        _at_least("trajectories", self.trajectories, 100)
        if not 0 < self.false_alarm < 1:
            raise ValueError(f"false_alarm must lie in (0, 1), but is {self.false_alarm:g}.")
        _seed(self.seed)
        _threads(self.threads)


@dataclass(frozen=True)
class DemoConfig:
    """Runs the demonstration: particles and densities, digits from noise, DDPM as an SDE.

    Writes report.html, metrics.json and the pictures in it; under five minutes on two CPU cores.

    Args:
        quick: A rehearsal with small numbers, whose claims are not held to.
        seed: Seed of all random numbers.
        threads: CPU threads; torch's choice unless said.
    """

    quick: bool = False
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        _seed(self.seed)
        _threads(self.threads)


Config = (
    SimulateConfig
    | FokkerPlanckConfig
    | TrainRunConfig
    | SampleConfig
    | LikelihoodConfig
    | VerifyConfig
    | DemoConfig
)


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, but is {value:g}.")


def _at_least(name: str, value: float, least: int) -> None:
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be ≥ {least}, but is {value:g}.")


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and > 0, but is {value:g}.")


def _seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed must lie in [0, 2**63), but is {seed}.")


def _threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be ≥ 1, but is {threads}.")
