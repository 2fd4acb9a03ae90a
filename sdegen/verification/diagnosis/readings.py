"""Solvers that read multiplicative noise in the middle of a step: what is Itô is moved by them.

    x̃ = x + dt f(x) + √dt g(x) z
    x' = x + dt f̄ + √dt ½ [g(x) + g(x̃)] z

with f̄ = f(x) (Euler–Heun) or the mean of both ends (Heun). They solve Stratonovich's equation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdegen.core.fixed_steps import Interval, OneStep
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.update import diffuse, update
from sdegen.verification.diagnosis.transitions import Belief
from sdegen.verification.innovations.implicit_law import ImplicitLaw
from sdegen.verification.innovations.law import StepLaw


@dataclass(frozen=True)
class MidpointNoise(OneStep):
    """Euler–Heun, or Heun's method of multiplicative noise.

    Args:
        both: Whether the drift is averaged too.
    """

    both: bool = False

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Predict with the update, then average g over the step."""
        t, s, dt, root_dt = memory[i]
        assert noise is not None
        f, g, z = sde.drift(x, t), sde.diffusion(x, t), noise.normal()
        ahead = update(x, f, dt) + root_dt * g * z
        f = 0.5 * (f + sde.drift(ahead, s)) if self.both else f
        return diffuse(update(x, f, dt), z, root_dt, 0.5 * (g + sde.diffusion(ahead, s))), memory


def reading_laws(belief: Belief) -> list[tuple[str, str, Callable[[], StepLaw]]]:
    """Return the laws of steps that average g."""
    times = belief.states.times

    def law(both: bool) -> Callable[[], StepLaw]:
        return lambda: ImplicitLaw(belief.sde, MidpointNoise(both=both), times)

    words = "the noise were read in the middle of a step, by {}, as Stratonovich has it"
    return [
        ("Stratonovich for Itô", words.format("Euler–Heun steps"), law(False)),
        ("Stratonovich for Itô", words.format("Heun's steps"), law(True)),
    ]
