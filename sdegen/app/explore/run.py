"""Run: one setting of the sliders, its particles and their density at the frames of the page.

The particles take the steps of `simulate`, one after the other as the page asks for them: same
start, same seed, same bits. The density is `FokkerPlanck.solve` at the times of all frames, found
at once, so that a frame only looks it up. Both start from one law: particles are its quantiles
at uniform numbers.

Where the state has several coordinates there are particles and their moments, and no density.

The distance of particles to density is Kolmogorov and Smirnov's. Where both are right it has the
mean √(π/2) log 2/√n = 0.869/√n, its floor, and exceeds 1.949/√n once in 1,000 times.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sdegen as sg
from sdegen.app.explore.family import Family
from sdegen.core.noise import stream
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.metrics.densities import kolmogorov_smirnov
from sdegen.observables.passages import step_noise, touches

FLOOR, RARE = math.sqrt(math.pi / 2) * math.log(2), 1.949  # of √n times the distance
BINS, CELLS, FRAMES = 60, 400, 200
_FEW, _FIRST = 256, 100  # trajectories and steps that are taken beforehand, to say what is wrong
_SEEN = 2e-3  # of a density's peak: below it there is nothing to see
SOLVERS = {
    "euler-maruyama": "EulerMaruyama",
    "heun": "Heun",
    "milstein": "Milstein",
    "sra": "SRA",
    "baoab": "BAOAB",
    "obabo": "OBABO",
}


@dataclass(frozen=True)
class Setting:
    """What the page asks for.

    Args:
        parameters: Of the SDE, by name.
        mean: Where the particles start, in every coordinate but velocities, which start about 0.
        std: Standard deviation of their start.
        dt: Step.
        level: Whose passage is watched, on a line.
        particles: How many.
        steps: Of the run, at least.
        seed: Of all random numbers.
        solver: A word of `SOLVERS`, or None for the library's choice.
        ends: Of the grid; None finds them.
    """

    parameters: dict[str, float]
    mean: float = 0.0
    std: float = 0.1
    dt: float = 0.005
    level: float = 0.0
    particles: int = 5000
    steps: int = 1000
    seed: int = 0
    solver: str | None = None
    ends: tuple[float, float] | None = None

    @property
    def stride(self) -> int:
        """Steps from one frame to the next."""
        return -(-self.steps // FRAMES)

    @property
    def frames(self) -> int:
        """Frames after the first."""
        return -(-self.steps // self.stride)

    def times(self) -> Tensor:
        """Return the times at which steps begin and end."""
        steps = self.frames * self.stride
        return torch.linspace(0.0, self.dt * steps, steps + 1, dtype=torch.float64)


class Run:
    """Particles and density of one setting.

    Args:
        family: The SDEs.
        setting: Which of them, and how it is run.

    Raises:
        Exception: What the library, or the user's own code, says of a setting that is not right.
    """

    def __init__(self, family: Family, setting: Setting) -> None:
        self.setting: Setting = setting
        self.sde: SDE = family.make(setting.parameters)
        self.times: Tensor = setting.times()
        self.frame: int = 0
        self.solver: Solver = solver_of(setting, self.sde)
        self.event: tuple[int, ...] = event_of(self.sde, setting.mean)
        self.on_line: bool = self.event == (1,)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            self._begin()
        said = dict.fromkeys(" ".join(str(w.message).split()) for w in heard)
        # the page has a choice of dt, where a program has substeps
        self.notes: list[str] = [
            re.sub(r"substeps=\d+ \((dt = [^)]*)\)", r"\1", text) for text in said
        ]

    def _begin(self) -> None:
        """Find the density at all frames and the start of the particles."""
        setting = self.setting
        if self.on_line:
            self.grid: Grid = grid_of(self.sde, setting)
            self.start: Density = self.grid.point(setting.mean) if setting.std == 0 else (
                self.grid.gaussian(setting.mean, setting.std)
            )  # fmt: skip
            self.fokker_planck: FokkerPlanck = sg.FokkerPlanck(self.sde, self.grid)
        self.x: Tensor = start_of(self)
        # all checks of a simulation, and its estimate of what the steps cost
        sg.simulate(
            self.sde, self.x[:_FEW], self.times[: _FIRST + 1], solver=self.solver,
            rng=setting.seed, keep_path=False, on_nonfinite="freeze", threads=1,
        )  # fmt: skip
        if self.on_line:
            begin: Any = setting.mean if setting.std == 0 else self.start
            self.path: DensityPath = self.fokker_planck.solve(begin, self.times[:: setting.stride])
            self.low: float
            self.high: float
            self.low, self.high = self._view()
            self.level: float = setting.level
            below: Tensor = self.x[:, 0] < self.level
            self.waits: Tensor = below == (setting.mean < self.level)
            self._uniforms = stream(setting.seed, "explored passages").generator()
        self._steps = self._walk()

    def _view(self) -> tuple[float, float]:
        """Return the ends of what is drawn: where a density is seen at any time, or the level."""
        p = self.path.p[1:]
        x = self.grid.nodes[(p > _SEEN * p.amax(1, keepdim=True)).any(0)].tolist()
        margin = 0.05 * (x[-1] - x[0])
        low, high = x[0] - margin, x[-1] + margin
        level = self.setting.level
        return min(low, level - margin), max(high, level + margin)

    def _walk(self) -> Iterator[Tensor]:
        """Return the steps, as `simulate` takes them."""
        sde, x = self.sde, self.x
        noise = None
        if self.solver.is_stochastic(sde):
            noise = sg.Noise(x, rng=self.setting.seed, channels=sde.channels)
        return sg.integrate(sde, self.solver, x, self.times, noise)

    def advance(self, frame: int) -> None:
        """Take the steps up to a frame."""
        with torch.no_grad():
            while self.frame < min(frame, self.setting.frames):
                for i in range(
                    self.frame * self.setting.stride, (self.frame + 1) * self.setting.stride
                ):
                    before = self.x
                    self.x = next(self._steps)
                    if self.on_line:
                        self._watch(i, before[:, 0], self.x[:, 0], before)
                self.frame += 1

    def _watch(self, i: int, x: Tensor, y: Tensor, before: Tensor) -> None:
        """Count who came to the level in a step, between its two ends included."""
        q = (x - self.level) * (y - self.level)
        u = torch.rand(len(q), generator=self._uniforms, dtype=torch.float64)
        dt = float(self.times[i + 1] - self.times[i])
        noise = step_noise(self.sde, 0, before, self.times[i], torch.tensor(dt))  # type: ignore[arg-type]
        self.waits = self.waits & ~touches(q, u, noise)

    @property
    def t(self) -> float:
        """The time of the frame."""
        return float(self.times[self.frame * self.setting.stride])

    @property
    def finite(self) -> Tensor:
        """The states that are finite, shape (particles that are left, *event)."""
        return self.x[self.x.flatten(1).isfinite().all(1)]

    def readings(self) -> dict[str, float]:
        """Return the numbers of a frame, as its page and its program show them."""
        x = self.finite.double().flatten(1)
        n = len(x)
        found = {"t": self.t, "particles": float(n), "lost": float(len(self.x) - n)}
        if n < 2:
            return found
        for j in range(x.shape[1]) if not self.on_line else [0]:
            of = "" if self.on_line else f" of x{j + 1}"
            centred = x[:, j] - x[:, j].mean()
            variance = float(centred.square().sum()) / (n - 1)
            fourth = float(centred.square().square().mean())
            found[f"mean{of}"] = float(x[:, j].mean())
            found[f"mean error{of}"] = math.sqrt(variance / n)
            found[f"variance{of}"] = variance
            found[f"variance error{of}"] = math.sqrt(max(0.0, fourth - variance**2) / n)
        if self.on_line:
            density = self.path.at(self.frame)
            found["exact mean"] = float(density.mean)
            found["exact variance"] = float(density.variance)
            if self.frame or self.setting.std > 0:
                with suppress(ValueError):  # of a density that has lost mass there is none
                    found["distance"] = kolmogorov_smirnov(self.finite, density)
            found["floor"], found["rare"] = FLOOR / math.sqrt(n), RARE / math.sqrt(n)
            found["waiting"] = float(self.waits.double().mean())
        return found

    def picture(self) -> dict[str, Any]:
        """Return what is drawn of a frame: arrays, and the readings."""
        x = self.finite.flatten(1).float().numpy()
        drawn: dict[str, Any] = {"frame": self.frame, "readings": self.readings()}
        if not self.on_line:
            return drawn | {"states": x}
        counts, _ = np.histogram(x[:, 0], np.linspace(self.low, self.high, BINS + 1))
        bars = counts / (max(1, len(self.x)) * (self.high - self.low) / BINS)
        p = self.path.p[self.frame].numpy()
        return drawn | {
            "states": x, "bars": bars.astype(np.float32), "p": p.astype(np.float32)
        }  # fmt: skip


def event_of(sde: sg.SDE, start: float) -> tuple[int, ...]:
    """Return the shape of a state, the first of a few that drift and diffusion take.

    Raises:
        ValueError: If they take none; what they said of a line is its reason.
    """
    shapes = [(2, 1), (2, 2)] if sde.phase_space else [(d,) for d in (1, 2, 3, 4, 6, 8, 10)]
    reason: Exception | None = None
    for shape in shapes:
        x = torch.full((4, *shape), start, dtype=torch.float32)
        try:
            with torch.no_grad():
                sg.simulate(
                    sde, x, [0.0, 1e-6], rng=0, keep_path=False, on_nonfinite="freeze", threads=1
                )
        except Exception as error:
            reason = reason or error
            continue
        return shape
    assert reason is not None
    raise reason


def solver_of(setting: Setting, sde: sg.SDE, substeps: int = 1) -> sg.Solver:
    """Return the solver of a setting, with what `simulate` would choose where none is said."""
    word = setting.solver
    if word is None:
        word = "baoab" if isinstance(sde, sg.UnderdampedLangevin) else "euler-maruyama"
    solver: sg.Solver = getattr(sg, SOLVERS[word])(substeps=substeps)
    return solver


def start_of(run: Run) -> Tensor:
    """Return the states that the particles start from."""
    setting = run.setting
    generator = torch.Generator().manual_seed(setting.seed)
    if not run.on_line:
        z = torch.randn((setting.particles, *run.event), generator=generator)
        x = setting.mean + setting.std * z
        if run.sde.phase_space:
            x[:, 1] -= setting.mean  # velocities start about 0
        return x
    if setting.std == 0:
        return torch.full((setting.particles, 1), setting.mean)
    uniform = torch.rand(setting.particles, generator=generator, dtype=torch.float64)
    return run.start.quantile(uniform).float()[:, None]


def grid_of(sde: sg.SDE, setting: Setting) -> sg.Grid:
    """Return the grid of the density: where it rests, and where it starts.

    Where it never rests its ends are three times as far from the middle as the particles of a
    small run come.
    """
    if setting.ends is not None:
        return sg.Grid(*setting.ends, CELLS)
    try:
        grid = sg.Grid.covering(sde, CELLS, near=None)
    except (ValueError, sg.SdegenError):
        x = setting.mean + setting.std * torch.linspace(-4, 4, _FEW)[:, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run itself says the same
            path = sg.simulate(
                sde, x, setting.times()[:: setting.stride], rng=setting.seed, threads=1,
                solver=solver_of(setting, sde, substeps=setting.stride), on_nonfinite="freeze",
            )  # fmt: skip
        seen = path.finite
        low, high = float(seen.min()), float(seen.max())
        return sg.Grid(2 * low - high, 2 * high - low, CELLS)
    reach = 8 * setting.std
    low, high = min(grid.low, setting.mean - reach), max(grid.high, setting.mean + reach)
    if (low, high) == (grid.low, grid.high):
        return grid
    try:
        wider = sg.Grid(low, high, CELLS)
        sg.FokkerPlanck(sde, wider)
    except ValueError:
        return grid  # it ends where the diffusion does
    return wider
