"""One-step methods: steps that remember nothing, whose runs can be compiled.

A one-step method is a map from the state at t and one draw to the state at s = t + dt. A run of
them with its noise is then one function of tensors, which `torch.compile` turns into one loop over
the numbers of the state (`compiled.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from sdegen.core.noise import Noise
from sdegen.core.noise_structure import check_diagonal
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import FixedStep, Interval, intervals_of

__all__ = ["OneStep"]


@dataclass(frozen=True)
class OneStep(FixedStep):
    """A solver whose steps remember nothing.

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

    keeps_noise: ClassVar[bool] = False

    compile: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.compile, bool):
            raise TypeError(f"compile must be True or False, but is {self.compile!r}.")

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics that this solver does not solve, or not where it is compiled."""
        super().check(sde, nodes)
        if self.compile:
            check_diagonal(sde, f"{type(self).__name__}(compile=True)")

    def check_brownian(self) -> None:
        """Refuse compiled runs, which make their own normals; each other step takes one."""
        if self.compile:
            raise ValueError(
                f"{type(self).__name__}(compile=True) makes its own normals and cannot walk a "
                "given Brownian path: leave compile out."
            )

    def check_freeze(self) -> None:
        """Refuse compiled runs, which take many steps in one call."""
        if self.compile:
            raise ValueError(
                "on_nonfinite='freeze' looks at every step, and compile=True takes many in one "
                "call: leave one of them out."
            )

    def check_gradients(self) -> None:
        """Refuse compiled runs, through which gradients do not flow."""
        if self.compile:
            raise ValueError(
                "compile=True is for runs without gradients: leave out differentiable=True, or "
                f"take {type(self).__name__}() without compile."
            )

    def begin(self, sde: SDE, nodes: Tensor) -> list[Interval]:
        """Return (t, s, dt, √|dt|) of each step."""
        return intervals_of(sde, nodes)

    @abstractmethod
    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take the step of the interval memory[i], and return the memory as it is.

        In a compiled run dt and √|dt| are 0-d tensors on the state's device.
        """
