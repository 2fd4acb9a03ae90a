"""Heun's method: the trapezoidal rule on the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.channels import add_times
from sdegen.core.fixed_steps import Interval, OneStep
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.update import Number, diffuse, update


@dataclass(frozen=True)
class Heun(OneStep):
    """The trapezoidal rule on the update, for flows and additive noise. Two evaluations a step.

        x̃ = x + dt f(x, t) + √|dt| g(t) z
        x' = x + ½ dt [f(x, t) + f(x̃, s)] + √|dt| ½ [g(t) + g(s)] z

    with x, f and z of shape (batch, *event). Of channels g is the matrix G, and z has one number
    for each.

    Args:
        substeps: Equal steps between any two of the times.

    Reference:
        Kloeden and Platen 1992, eq. (15.1.1) for additive noise; with z = 0 Heun's explicit
        trapezoidal rule.

    Example:
        >>> decay, x = sg.ItoProcess(lambda x: -x, 1.0), torch.ones(100, 1)
        >>> z = sg.Noise(x, rng=0).normal()
        >>> (end,) = sg.integrate(decay, sg.Heun(), x, [0.0, 0.25], sg.Noise(x, rng=0))
        >>> torch.allclose(end, 1 - 0.125 * (1 + 0.75 + 0.5 * z) + 0.5 * z)  # x̃ = 0.75 + 0.5 z
        True
    """

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse multiplicative noise, which the average would read as Stratonovich."""
        super().check(sde, nodes)
        if sde.noise == "multiplicative":
            raise ValueError(
                "Heun averages g over a step and, with g(x, t), would solve the Stratonovich "
                "equation; dynamics are Itô here: use EulerMaruyama() or TorchSDE('milstein'), or "
                "noise='additive' if g depends on t alone."
            )

    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels")
    orders: ClassVar[Orders] = Orders(flow=2, additive=(2, 1), multiplicative=None)
    evaluations: ClassVar[int] = 2
    noise_evaluations: ClassVar[str] = "2"
    stability: ClassVar[float | None] = 2.0
    when: ClassVar[str] = "Additive noise or none, smooth drift: averages of order 2 at low cost."

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Predict with the update, then take it with the averages; one draw serves both."""
        t, s, dt, root_dt = memory[i]
        f = sde.drift(x, t)
        z, sigma = None if noise is None else noise.normal(), sde.constant_noise
        g = sde.diffusion(x, t) if sigma is None else sigma
        add = diffuse if sde.channels is None else _add_channels
        ahead = add(update(x, f, dt), z, root_dt, g)
        f = 0.5 * (f + sde.drift(ahead, s))
        g = 0.5 * (g + sde.diffusion(ahead, s)) if sigma is None else sigma
        return add(update(x, f, dt), z, root_dt, g), memory


def _add_channels(after: State, z: Tensor | None, root_dt: Number, G: Number) -> State:
    """Return after + √|dt| G z; z is None where the noise is off."""
    if z is None:
        return after
    assert isinstance(G, Tensor)  # of channels a diffusion is a matrix
    return add_times(after, G, z, root_dt)
