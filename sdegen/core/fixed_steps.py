"""Fixed steps: solvers whose nodes are known beforehand, and steps that remember nothing.

A `FixedStep` walks `substeps` equal steps between any two of the times, so that every time is met
exactly and no path is ever interpolated. A `OneStep` is a map from the state at t and one draw to
the state at s = t + dt. A run of them with its noise is then one function of tensors, which
`torch.compile` turns into one loop over the numbers of the state (`compiled.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Asked, Memory, Solver

Interval = tuple[Tensor, Tensor, Any, Any]  # t, s, dt = s − t, √|dt|


@dataclass(frozen=True)
class FixedStep(Solver):
    """A solver with steps that are known beforehand.

        t_{i,j} = t_i + j (t_{i+1} − t_i)/substeps,   j = 0 … substeps − 1

    Args:
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If substeps is no int.
        ValueError: If substeps < 1.

    Example:
        >>> times = torch.tensor([0.0, 1.0, 3.0])  # shape (n,)
        >>> sg.EulerMaruyama(substeps=2).nodes(times).tolist()
        [0.0, 0.5, 1.0, 2.0, 3.0]
    """

    substeps: int = 1

    supports_boundaries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("substeps", self.substeps)

    def nodes(self, times: Tensor) -> Tensor:
        """Return times, with substeps − 1 more between any two."""
        return refine(times, self.substeps)


@dataclass(frozen=True)
class OneStep(FixedStep):
    """A solver whose steps remember nothing that changes them.

    Attributes:
        is_counted: Whether the evaluations of a run are counted, since one that is remembered
            saves another.

    Args:
        substeps: Equal steps between any two of the times.
        compile: Whether runs of steps are compiled with `torch.compile`, for dynamics that are
            run long enough: it takes a C++ compiler and, for each SDE, 10 to 40 s before the
            first step. On a CPU its paths are others than those of compile=False. A boundary that
            must see each step (bridges at absorbing ends, ends that move or are without noise)
            is walked step by step.

    Raises:
        TypeError: If substeps is no int, or compile no bool.
        ValueError: If substeps < 1.
    """

    retains_noise: ClassVar[bool] = False
    is_counted: ClassVar[bool] = False

    compile: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.compile, bool):
            raise TypeError(f"compile must be True or False, but is {self.compile!r}.")

    def check_asked(self, asked: Asked) -> None:
        """Refuse it of compiled runs, which make their own normals, many steps in one call."""
        name = type(self).__name__
        reasons: dict[Asked, str] = {
            "brownian": f"{name}(compile=True) makes its own normals and cannot walk a given "
            "Brownian path: leave compile out.",
            "freeze": "on_nonfinite='freeze' looks at every step, and compile=True takes many in "
            "one call: leave one of them out.",
            "gradients": "compile=True is for runs without gradients: leave out "
            f"differentiable=True, or take {name}() without compile.",
        }
        if self.compile:
            raise ValueError(reasons[asked])

    def begin(self, sde: SDE, nodes: Tensor) -> Memory:
        """Return (t, s, dt, √|dt|) of each step."""
        return intervals_of(sde, nodes)

    def remember(self, sde: SDE, intervals: list[Interval]) -> Memory:
        """Return what `begin` would, for a compiled run: dt and √|dt| are 0-d tensors there."""
        return intervals

    @abstractmethod
    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: Memory
    ) -> tuple[State, Memory]:
        """Take the step of the interval memory[i], and return the memory as it is.

        In a compiled run dt and √|dt| are 0-d tensors on the state's device.
        """


class SplitStep(ABC):
    """A solver whose step is a composition of steps, each affine in its draw.

    The exact law of a chain is that of its parts, one after the other.
    """

    @abstractmethod
    def parts(self) -> tuple[Solver, ...]:
        """Return solvers whose steps, taken one after the other, are the step."""


def intervals_of(sde: SDE, nodes: Tensor) -> list[Interval]:
    """Return (t, s, dt, √|dt|) of each step: times as 0-d tensors, lengths as numbers.

    Args:
        sde: What moves; of one that is the same at every t the times are one tensor.
        nodes: Shape (steps + 1,), float64, on the CPU; with gradients, lengths are 0-d tensors.
    """
    # a tensor for each of them costs as much as a tenth of a cheap step
    ts = [nodes[0]] * len(nodes) if sde.autonomous else list(nodes.unbind())
    dts = nodes.diff()
    return list(zip(ts[:-1], ts[1:], to_floats(dts), to_floats(dts.abs().sqrt()), strict=True))


def refine(times: Tensor, substeps: int) -> Tensor:
    """Put substeps − 1 equally spaced nodes between any two times, t0 + i (t1 − t0)/n in float64.

    >>> refine(torch.tensor([0.0, 1.0, 3.0]), 2).tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    times = times.to(torch.float64)
    fraction = torch.arange(substeps, dtype=torch.float64) / substeps
    inner = times[:-1, None] + fraction * times.diff()[:, None]
    return torch.cat([inner.flatten(), times[-1:]])


def check_inner(name: str, solver: object) -> FixedStep:
    """Return a solver that can take the steps within another one, or refuse it.

    Args:
        name: What the other one calls it.
        solver: What is to take them.

    Raises:
        TypeError: If it is no solver of fixed steps, such as a class that was not called.
        ValueError: If its last state is no longer one at t.
    """
    if isinstance(solver, type):
        raise TypeError(f"{name} must be a solver, but is the class: pass {solver.__name__}().")
    if not isinstance(solver, FixedStep):
        raise TypeError(
            f"{name} must be a solver of fixed steps, such as DDIM(), but is {solver!r}."
        )
    if solver.returns_x0:
        raise ValueError(
            f"{name} must end with a state at t, which {type(solver).__name__} replaces by an "
            "estimate of the data: pass the solver within it, and let it be the outermost."
        )
    return solver


def check_predictor(predictor: object) -> None:
    """Raise if predictor is not a solver of one step, or has substeps.

    Raises:
        TypeError: If it is no solver of fixed steps.
        ValueError: If it has substeps, asks for the areas of its step, or ends with a denoised
            state.
    """
    inner = check_inner("predictor", predictor)
    substeps = inner.substeps
    if inner.needs:
        raise ValueError(
            f"predictor must draw normals alone, in order with the corrector's, but "
            f"{type(predictor).__name__} asks for {' and '.join(inner.needs)} of its step: pass "
            "EulerMaruyama() or DDIM()."
        )
    if substeps != 1:
        raise ValueError(
            f"predictor.substeps must be 1, but is {substeps}: say how many with substeps= of the "
            "corrector itself."
        )


def to_floats(coefficients: Tensor) -> list[Any]:
    """Return coefficients of a run, one for each step, as `update` is fastest with them.

    Args:
        coefficients: Shape (steps, …), on the CPU.

    Returns:
        Numbers, in lists as deep as the shape; one tensor for each step where they have gradients.
    """
    return list(coefficients.unbind()) if coefficients.requires_grad else coefficients.tolist()
