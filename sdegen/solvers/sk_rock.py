"""SK-ROCK: many cheap stages for one long step, where the drift is stiff and noise is there too.

Euler–Maruyama is stable up to λ h = 2 of the fastest rate λ. A method of s stages whose stability
polynomial is Chebyshev's stays so up to nearly 2 s², for s evaluations of the drift: the cost of a
time falls by s. The noise enters once, in the first stage, where its own polynomial keeps the mean
square bounded as well:

    Q = √h G(x, t) z
    K₀ = x,    K₁ = x + μ₁ h f(x + ν₁ Q, t) + κ₁ Q
    Kᵢ = νᵢ Kᵢ₋₁ + κᵢ Kᵢ₋₂ + μᵢ h f(Kᵢ₋₁),    x' = K_s

    ω₀ = 1 + η/s²,    ω₁ = T_s(ω₀)/T_s'(ω₀),    μ₁ = ω₁/ω₀,    ν₁ = s ω₁/2,    κ₁ = s ω₁/ω₀
    μᵢ = 2 ω₁ Tᵢ₋₁(ω₀)/Tᵢ(ω₀),    νᵢ = 2 ω₀ Tᵢ₋₁(ω₀)/Tᵢ(ω₀),    κᵢ = 1 − νᵢ

with the damping η = 0.05. A flow of rate λ is multiplied by T_s(ω₀ − ω₁ λh)/T_s(ω₀), which stays
below 1/T_s(ω₀) ≈ 0.95 up to λh = (1 + ω₀)/ω₁, about 1.93 s², once it has fallen to it. Rates must
be real, or nearly: what turns fast is left to shorter steps.

Reference:
    Abdulle, Almuslimani and Vilmart 2018, SIAM/ASA J. Uncertain. Quantif. 6, 937, section 3; van
    der Houwen and Sommeijer 1980, Z. Angew. Math. Mech. 60, 479, for flows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.checks import check_count
from sdegen.core.fixed_steps import FixedStep, Interval, intervals_of
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Asked
from sdegen.core.update import update

_DAMPING = 0.05
_MOST = 200  # stages: rounding adds up like their square


class _Stage(NamedTuple):
    """μᵢ, νᵢ and the share cᵢ of the step that has passed after stage i."""

    mu: float
    nu: float
    c: float


@dataclass(frozen=True)
class SKROCK(FixedStep):
    """A stabilised explicit method for stiff drifts with any noise. s evaluations a step.

        K₀ = x,   K₁ = x + μ₁ h f(x + ν₁ Q, t) + κ₁ Q,   Q = √h G(x, t) z
        Kᵢ = νᵢ Kᵢ₋₁ + κᵢ Kᵢ₋₂ + μᵢ h f(Kᵢ₋₁),   x' = K_s

    Stable up to λh = (1 + ω₀)/ω₁ ≈ 1.93 s² for real rates λ; the page of the module has the
    coefficients, of Chebyshev polynomials. All K have x's shape. Modes with λh ≫ 1 are damped and
    their noise with them: at rest they have too small a variance, as those of `ImplicitEuler()`.

    Args:
        substeps: Equal steps between any two of the times.
        stages: s, 1 … 200: at least √(λh/1.9) of the fastest rate λ.

    Raises:
        TypeError: If stages is not an int.
        ValueError: If stages is not 1 … 200.

    Reference:
        Abdulle, Almuslimani and Vilmart 2018, SIAM/ASA J. Uncertain. Quantif. 6, 937, section 3;
        weak order 1, strong order ½ (1 for additive noise).

    Example:
        >>> stiff, x = sg.ItoProcess(lambda x: -100 * x, 0.0), torch.ones(1, 1)
        >>> for solver in (sg.EulerMaruyama(), sg.SKROCK(stages=10)):  # one step of λh = 100
        ...     (end,) = sg.integrate(stiff, solver, x, [0.0, 1.0])
        ...     print(f"{end.item():.2f}")
        -99.00
        -0.90
    """

    stages: int = 10

    retains_noise: ClassVar[bool] = False
    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels", "general")
    orders: ClassVar[Orders] = Orders(
        flow=1, additive=(1, 1), multiplicative=(1, 0.5), channels=(1, 0.5)
    )
    noise_evaluations: ClassVar[str] = "1"
    when: ClassVar[str] = (
        "The drift is stiff with real rates, and has no linear part to be solved for: diffusion "
        "on a fine grid, steep potentials."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("stages", self.stages)
        if self.stages > _MOST:
            raise ValueError(
                f"stages must be ≤ {_MOST}, but is {self.stages}; take shorter steps, "
                "SKROCK(substeps=…)."
            )

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """As many as there are stages."""
        return self.stages

    @property
    def stability(self) -> float:  # type: ignore[override]
        """The largest λh of a real rate, (1 + ω₀)/ω₁."""
        omega_0, omega_1 = _omegas(self.stages)
        return (1 + omega_0) / omega_1

    def check_asked(self, asked: Asked) -> None:
        """Take all that a run may ask: it draws one increment a step."""

    def begin(self, sde: SDE, nodes: Tensor) -> list[Interval]:
        """Return (t, s, dt, √|dt|) of each step."""
        return intervals_of(sde, nodes)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Take the stages; the noise is drawn once, and enters the first of them."""
        t, _, dt, root_dt = memory[i]
        omega_0, omega_1 = _omegas(self.stages)
        first, start = x, x
        if noise is not None:
            q = sde.add_noise(torch.zeros_like(x), x, t, root_dt, noise)
            first = x + 0.5 * self.stages * omega_1 * q
            start = x + (self.stages * omega_1 / omega_0) * q
        before, at = x, update(start, sde.drift(first, t), (omega_1 / omega_0) * dt)
        c = omega_1 / omega_0
        for stage in _stages(self.stages):
            f = sde.drift(at, t + c * dt)
            before, at = at, update(torch.lerp(before, at, stage.nu), f, stage.mu * dt)
            c = stage.c
        return at, memory


def _omegas(stages: int) -> tuple[float, float]:
    """Return ω₀ and ω₁ = T_s(ω₀)/T_s'(ω₀), by T_s(cosh θ) = cosh sθ."""
    omega_0 = 1 + _DAMPING / stages**2
    theta = math.acosh(omega_0)
    return omega_0, math.sinh(theta) / (stages * math.tanh(stages * theta))


def _stages(stages: int) -> list[_Stage]:
    """Return μᵢ, νᵢ and cᵢ of the stages i = 2 … s."""
    omega_0, omega_1 = _omegas(stages)
    before, at = 1.0, omega_0  # T₀ and T₁ at ω₀
    c_before, c = 0.0, omega_1 / omega_0
    made = []
    for _ in range(2, stages + 1):
        before, at = at, 2 * omega_0 * at - before
        nu, mu = 2 * omega_0 * before / at, 2 * omega_1 * before / at
        c_before, c = c, nu * c + (1 - nu) * c_before + mu
        made.append(_Stage(mu, nu, c))
    return made
