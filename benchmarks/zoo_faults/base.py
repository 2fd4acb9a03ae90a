"""What a planted fault is: where it shipped, its class, and a simulation that has it.

A fault is planted by `plant(dim, rng, size)`: NumPy alone takes the steps, and what comes back are
its states beside the SDE and the solver that its author believed in. With `faulty=False` the same
code takes the believed steps: the clean twin, which the tests compare with sdegen's own solver.

Faults with one and the same law of the steps are one class; `CLASSES` declares them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SIZE, STEPS = 300_000, 200  # numbers of a run, and its steps
LEAST = 8  # trajectories at least
ALL = (1, 2, 3, 10, 100)

CLASSES = {
    "noise: variance halved": "T, D or g² is half of what is believed",
    "noise: variance doubled": "T, D or g² is twice what is believed, g is √2 g",
    "noise: amplitude doubled": "g is twice what is believed",
    "noise: dt for √dt": "g dt z in place of g √dt z",
    "noise: √dt left out": "g z in place of g √dt z",
    "noise: variance for standard deviation": "g² dt z in place of g √dt z",
    "noise missing": "z is computed and not added",
    "noise missing in a coordinate": "some coordinates get none",
    "noise where there is none": "a deterministic direction, or flow, is given noise",
    "noise uniform": "uniform, of the right mean and variance",
    "noise uniform on [0, 1)": "uniform, of mean ½ and variance 1/12",
    "noise a product of normals": "z z′ in place of z",
    "noise shared between coordinates": "two coordinates get one z",
    "noise shared between trajectories": "two trajectories get one z",
    "noise shared between trajectories, shifted in time": "one has another's earlier z",
    "noise reused in every step": "one z for all steps",
    "noise replayed after a restart": "the z of a first part of the run, again",
    "step: dt left out": "both dt and √dt are 1",
    "step: nothing moves": "dt is 0",
    "step: the last one left out": "the last state is the one before",
    "state forgotten": "a step begins at 0, not at the last state",
    "drift missing": "f is not added",
    "drift: constant part missing": "f(x) − f(0) in place of f(x)",
    "drift: sign of the score": "f + g² score in a reverse drift",
    "drift: score halved": "½ g² score in a reverse drift whose noise is g",
    "drift: that of the noise missing": "Itô's steps for an equation in another interpretation",
    "schedule: held at its start": "coefficients of t = 0 for all t",
    "schedule: one step off": "α and σ of the neighbouring step",
    "schedule: α for ᾱ": "the factor of one step for the product of all",
    "schedule: rounded": "ᾱ in half precision",
    "reversed time": "coefficients and score of T − t",
    "posterior: β for its variance": "b_k for b_k σ_{k−1}/σ_k",
    "mass missing in the force": "F in place of F/m",
    "mass: 1/m for 1/√m in the noise": "√(2γT dt)/m z in place of √(2γT dt/m) z",
    "friction doubled": "2 γ in friction and noise",
    "friction halved": "γ/2 in friction and noise",
    "stale force": "the force of an earlier position",
    "wall: clipped for reflected": "what arrives is put on the wall",
    "wall: absorbed for reflected": "what arrives stays for good",
    "periodic box: image of another coordinate": "y is moved by the box when x is",
    "periodic box: minimum image missing": "pairs interact inside the box alone",
    "state: rounded": "each state is rounded to half precision before the next step",
    "outside": "none of these",
}


@dataclass(frozen=True)
class Planted:
    """A run, beside what its author believes it to be.

    Attributes:
        sde: The SDE that is believed, an object of sdegen.
        solver: The solver that is believed.
        times: Of the states, shape (T,), float64.
        states: Of the run, shape (T, batch, *event), float64.
        boundary: Which is believed; None: none.
        gap: Steps after which states of a run at rest are nearly independent; None: the law
            changes, and the last states alone are compared.
        score: ∇ log p of the last states, if they are believed to be at rest or at the data: an
            array (n, numbers) to one of the same shape; None where none is known.
    """

    sde: Any
    solver: Any
    times: torch.Tensor
    states: torch.Tensor
    boundary: Any = None
    gap: int | None = None
    score: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def dt(self) -> float:
        """Spacing of the times, negative if they decrease; raises ValueError if it varies."""
        steps = self.times.diff()
        if not torch.allclose(steps, steps[:1]):
            raise ValueError("the times are not evenly spaced.")
        return float(steps[0])


@dataclass(frozen=True)
class Run:
    """What a simulation is asked for.

    Attributes:
        dim: Numbers of a state, or of a position.
        rng: What starts, and faults of their own, draw from.
        size: Numbers of all states together, about.
        faulty: Whether it has the fault.
        normal: normal(shape) draws the normals of a step.
    """

    dim: int
    rng: np.random.Generator
    size: int
    faulty: bool
    normal: Callable[[tuple[int, ...]], np.ndarray]

    def batch(self, steps: int, numbers: int | None = None) -> int:
        """Return how many trajectories of so many steps make the size."""
        return max(LEAST, self.size // ((steps + 1) * (numbers or self.dim)))


@dataclass(frozen=True)
class Fault:
    """A fault that shipped, or a strange one.

    Attributes:
        name: Its name here.
        klass: One of `CLASSES`.
        sentence: What it was.
        build: Simulates a `Run`.
        dims: Dimensions in which it makes sense.
        project: Repository, owner/name; "" for strange ones.
        issue: Number of the issue or pull request there.
        checked: Whether the thread was read and says so.
    """

    name: str
    klass: str
    sentence: str
    build: Callable[[Run], Planted]
    dims: tuple[int, ...] = ALL
    project: str = ""
    issue: int | None = None
    checked: bool = False

    def __post_init__(self) -> None:
        if self.klass not in CLASSES:
            raise ValueError(f"{self.name}: {self.klass!r} is no class.")

    def plant(
        self,
        dim: int,
        rng: np.random.Generator | int,
        size: int = SIZE,
        *,
        faulty: bool = True,
        normal: Callable[[tuple[int, ...]], np.ndarray] | None = None,
    ) -> Planted:
        """Return a run with the fault, or with faulty=False its clean twin.

        Args:
            dim: One of `dims`.
            rng: A generator or a seed.
            size: Numbers of all states together, about.
            faulty: Whether it has the fault.
            normal: Draws the normals of each step, for a twin that is compared; rng's by default.
        """
        if dim not in self.dims:
            raise ValueError(f"{self.name} is planted in {self.dims} dimensions, not in {dim}.")
        rng = np.random.default_rng(rng)
        return self.build(Run(dim, rng, size, faulty, normal or rng.standard_normal))


def planted(klass, sentence, *, dims=ALL, project="", issue=None, checked=False):
    """Make a fault of a function that simulates it, and keep it in the list of its module."""

    def make(build):
        fault = Fault(build.__name__, klass, sentence, build, tuple(dims), project, issue, checked)
        build.__globals__.setdefault("FAULTS", []).append(fault)
        return fault

    return make


def walk(x, steps, step):
    """Return the states of step(k, x), k = 0 … steps − 1, from x on, as a tensor."""
    states = np.empty((steps + 1, *x.shape))
    states[0] = x
    for k in range(steps):
        states[k + 1] = x = step(k, x)
    return torch.from_numpy(states)


def grid(steps, dt):
    """Return the times 0, dt, … as a tensor."""
    return torch.arange(steps + 1, dtype=torch.float64) * dt
