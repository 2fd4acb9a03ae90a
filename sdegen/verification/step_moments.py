"""The steps of a one-step method as Gaussian kernels: x → N(m(x), s(x)²).

A step that is affine in its one normal draw z has x' = m(x) + s(x) z. Its answers to z = 0 and
z = 1 give m and s, its answer to z = −2 shows whether it is affine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep, SplitStep
from sdegen.core.noise import Given, Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory, Solver
from sdegen.verification.kernel import Array

Map = Callable[[State, Noise | None], State]  # of a state and the noise of one step


class ChainSteps:
    """The steps of a solver as pairs of functions m and s."""

    def __init__(self, sde: SDE, solver: FixedStep, nodes: Tensor) -> None:
        self.name: str = type(solver).__name__
        self.noisy: bool = solver.is_stochastic(sde)
        self.count: int = len(nodes) - 1
        self._sde = sde
        parts = solver.parts() if isinstance(solver, SplitStep) else (solver,)
        self._parts = [(part, part.begin(sde, nodes)) for part in parts]
        if len(nodes) > 2:
            x = torch.tensor([[-0.5], [0.75]], dtype=torch.float64)
            silent = Given(torch.zeros_like(x)) if self.noisy else None
            check_forgets(sde, solver, nodes, x, silent)

    def at(self, i: int) -> Iterator[StepMoments]:
        """Yield the parts of step i in order."""
        for part, memory in self._parts:

            def step(
                x: State, noise: Noise | None, part: Solver = part, memory: Memory = memory
            ) -> State:
                return part.step(self._sde, x, i, noise, memory)[0]

            yield StepMoments(step, self.name, part.is_stochastic(self._sde))


def check_forgets(
    sde: SDE, solver: FixedStep, nodes: Tensor, x: State, silent: Noise | None
) -> None:
    """Refuse a method that remembers: there step 1 depends on whether step 0 was taken.

    Args:
        sde: What moves.
        solver: How it moves.
        nodes: Three or more.
        x: Two states or more that differ from those of their neighbours.
        silent: Noise that is 0; None where there is none.

    Raises:
        ValueError: Naming the solver.
    """
    with torch.no_grad():
        fresh, _ = solver.step(sde, x, 1, silent, solver.begin(sde, nodes))
        _, memory = solver.step(sde, x + 1, 0, silent, solver.begin(sde, nodes))
        if not torch.equal(solver.step(sde, x, 1, silent, memory)[0], fresh):
            raise ValueError(
                f"{type(solver).__name__} remembers earlier steps and tells no coefficients; the "
                "law of a chain is built for one-step methods, such as EulerMaruyama, Heun and "
                "DDIM, and for linear multistep methods."
            )


class _OneDraw(Noise):
    """Noise whose normal is given, and which a step may draw once."""

    def __init__(self, z: State, name: str) -> None:
        drawn = False

        def normal() -> State:
            nonlocal drawn
            if drawn:
                raise ValueError(
                    f"{name} draws more than one normal a step; the law of a chain is built for "
                    "methods that draw once, such as EulerMaruyama and DDIM."
                )
            drawn = True
            return z

        self.normal = normal


@dataclass(frozen=True)
class StepMoments:
    """m(x) and |s(x)| of one step."""

    step: Map
    name: str
    noisy: bool

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return m and |s| at x, both of x's shape.

        Raises:
            ValueError: If the step is not affine in one draw, or not finite.
        """
        m = self._with(x, 0.0)
        if not self.noisy:
            return m, np.zeros_like(m)
        s = self._with(x, 1.0) - m
        # some points are enough to see whether a draw enters linearly
        few = slice(None, None, max(1, len(x) // 64))
        off = np.abs(self._with(x[few], -2.0) - (m - 2 * s)[few]).max()
        if off > 1e-10 * (np.abs(m).max() + np.abs(s).max()):
            raise ValueError(
                f"{self.name} is not affine in its draw (off by {off:.2g}), so that its law is "
                "not Gaussian; the law of a chain is built for EulerMaruyama and DDIM, and for "
                "Heun where there is no noise."
            )
        # what is left of a noise that cancelled is rounding, not noise
        s[np.abs(s) < 1e-14 * (1 + np.abs(m))] = 0.0
        return m, np.abs(s)

    def _with(self, x: Array, z: float) -> Array:
        """Return the state after the step, with the same draw for all."""
        state = torch.from_numpy(np.ascontiguousarray(x))[:, None]
        noise = _OneDraw(torch.full_like(state, z), self.name) if self.noisy else None
        after = self.step(state, noise)[:, 0].numpy()
        if not np.isfinite(after).all():
            bad = float(x[~np.isfinite(after)][0])
            raise ValueError(
                f"the step from x = {bad:g} is not finite; choose a grid on which the drift "
                "exists."
            )
        return np.array(after, dtype=np.float64)
