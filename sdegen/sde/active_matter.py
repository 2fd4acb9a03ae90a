"""Active matter: particles that push themselves along a heading, which diffuses and turns.

An active Brownian particle at r = (x, y) with heading θ and e(θ) = (cos θ, sin θ),

    dr = [v e(θ) − ∇U(r)] dt + √(2 D) dW,        dθ = ω dt + √(2 D_r) dW_θ

v is its own speed, D and D_r its diffusion coefficients, ω the rate at which it circles (a chiral
particle, or a torque), U a potential (mobility = 1). The heading keeps its direction for a time
1/D_r. Of a free particle ⟨e(θ_s)·e(θ_t)⟩ = e^{−D_r |t − s|} cos ω(t − s), so that

    ⟨|r(t) − r(0)|²⟩ = 4 D t + 2 v² ∫₀ᵗ (t − s) e^{−D_r s} cos ωs ds
                     = 4 D t + 2 v² Re[(z t − 1 + e^{−zt})/z²],        z = D_r − iω

which is v² t² + 4 D t at first, and 4 D_∞ t in the end, D_∞ = D + v² D_r/(2 (D_r² + ω²)).

**The heading is an angle** beside two places. It may run on the line, or be kept in one turn by
boundary={2: Periodic(0, 2π)}, which leaves the places alone; turns are counted either way
(`Trajectory.unwrapped`).

**Several particles** that feel each other are a state (batch, particles, 3), and U an energy of
their places (batch, particles, 2), such as `PairForces`. What acts on the heading, or pushes
along it, beyond this, is an `ItoProcess` with a drift of one's own.

Reference:
    Howse et al. 2007, Phys. Rev. Lett. 99, 048102, eq. (2), at ω = 0 with 1/D_r their τ_R; van
    Teeffelen and Löwen 2008, Phys. Rev. E 78, 020101, for ω ≠ 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.checks import check_finite, check_not_negative
from sdegen.core.derivatives import is_seen
from sdegen.core.requests import as_parameter, as_time, value_of
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import State, Time
from sdegen.core.update import Number
from sdegen.sde.potentials import FunctionPotential, Potential, as_potential, check_start_of

_SMALL = 0.5  # where (w − 1 + e^{−w})/w² is its series
_TERMS = 17  # all digits of it


class ActiveBrownian(SDE):
    """An active Brownian particle in the plane, which swims along a heading that diffuses.

        dr = [v e(θ) − ∇U] dt + √(2D) dW,   dθ = ω dt + √(2D_r) dW_θ,   e(θ) = (cos θ, sin θ)

    Its state is (x, y, θ), shape (batch, 3), or (batch, particles, 3).

    Args:
        speed: v, of its own; negative pushes backwards.
        translational_diffusion: D ≥ 0 of its place, in units of area per time.
        rotational_diffusion: D_r ≥ 0 of its heading, in units of inverse time.
        angular_velocity: ω, at which it circles, anticlockwise where positive.
        potential: U and its force, a `Potential` or a function of places (batch, 2), or (batch,
            particles, 2), as `Langevin` takes it; None for a free particle.

    Raises:
        TypeError: If one of the numbers is none, or the potential something else.
        ValueError: If a number is out of its range.

    Example:
        >>> swimmer = sg.ActiveBrownian(2.0, 0.1, rotational_diffusion=0.5)
        >>> swimmer.drift(torch.zeros(1, 3), torch.tensor(0.0)).tolist()  # θ = 0
        [[2.0, 0.0, 0.0]]
        >>> f"{swimmer.effective_diffusion:.2f}"  # D + v²/2 D_r
        '4.10'
    """

    autonomous: bool | None = True

    def __init__(
        self,
        speed: Number,
        translational_diffusion: Number = 0.0,
        rotational_diffusion: Number = 1.0,
        *,
        angular_velocity: Number = 0.0,
        potential: Potential | Callable[[State], Tensor] | None = None,
    ) -> None:
        given = {
            "speed": speed,
            "translational_diffusion": translational_diffusion,
            "rotational_diffusion": rotational_diffusion,
            "angular_velocity": angular_velocity,
        }
        read = {name: as_parameter(name, value) for name, value in given.items()}
        self.speed: float | Tensor = read["speed"]
        self.angular_velocity: float | Tensor = read["angular_velocity"]
        self.translational_diffusion: float | Tensor = read["translational_diffusion"]
        self.rotational_diffusion: float | Tensor = read["rotational_diffusion"]
        self.potential: Potential | None = None if potential is None else as_potential(potential)
        for name, value in read.items():
            check = check_not_negative if name.endswith("diffusion") else check_finite
            check(name, value_of(value))
        self._v, self._d, self._turning, self._omega = (
            torch.as_tensor(value, dtype=torch.float64) for value in read.values()
        )
        twice = 2 * torch.stack([self._d, self._d, self._turning])
        # of what is off the gradient is 0, in place of ∞
        self._strengths = torch.where(twice > 0, twice, 1.0).sqrt() * (twice > 0)
        self.noise: NoiseKind = "additive" if bool((twice > 0).any()) else "none"

    def drift(self, x: State, t: Time) -> State:
        """(v cos θ − ∂U/∂x, v sin θ − ∂U/∂y, ω), shape of x."""
        self._check_shape(x)
        heading, v = self.heading(x), self.speed
        turn = torch.zeros_like(heading) + self.angular_velocity
        pushed = torch.stack([v * heading.cos(), v * heading.sin(), turn], -1)
        if self.potential is None:
            return pushed
        force = self.potential.force(self.position(x).contiguous())
        return pushed + torch.nn.functional.pad(force, (0, 1))

    def diffusion(self, x: State, t: Time) -> Tensor:
        """(√(2D), √(2D), √(2D_r)), shape (3,)."""
        self._check_shape(x)
        return self._strengths.to(x)

    def check_start(self, x: State, periods: Tensor | None, t: Time) -> None:
        """Refuse places that the potential refuses to start from, and periods not its own."""
        self._check_shape(x)
        if self.potential is not None:
            of_places = None if periods is None else self.position(periods)
            check_start_of(self.potential, self.position(x), of_places, t)

    def position(self, states: Tensor) -> Tensor:
        """Return the places (x, y) of states of shape (…, 3), a view of shape (…, 2)."""
        return states[..., :2]

    def heading(self, states: Tensor) -> Tensor:
        """Return the headings θ of states of shape (…, 3), a view of shape (…)."""
        return states[..., 2]

    def mean_squared_displacement(self, t: Time | float) -> Tensor:
        """Return ⟨|r(t) − r(0)|²⟩ of a free particle, whatever its heading at 0; shape of t.

        Args:
            t: Times from 0 on, ≥ 0, shape () or (T,).

        Raises:
            ValueError: If there is a potential, of which none is known, or a time is negative.
        """
        if self.potential is not None:
            raise ValueError(
                "the mean-squared displacement in closed form is that of a free particle, but "
                "this ActiveBrownian has a potential; leave the potential out, or average "
                "|r(t) − r(0)|² of simulated trajectories."
            )
        t = as_time(t).to(torch.float64)
        if not bool((t >= 0).all()):
            raise ValueError(
                f"t must be ≥ 0, a time since the displacement was 0, but has {float(t.min()):g}; "
                "pass the lag, t.abs()."
            )
        z = torch.complex(self._turning, -self._omega)
        pushed = 2 * self._v.square() * t.square() * _delayed(z * t).real
        return pushed + 4 * self._d * t

    @property
    def effective_diffusion(self) -> Tensor:
        """D_∞ = D + v² D_r/(2 (D_r² + ω²)), the slope of a quarter of the displacement, 0-d.

        Infinite where nothing turns the heading.
        """
        size = self._turning.square() + self._omega.square()
        if not bool(self._v != 0):
            return self._d
        if not bool(size > 0):
            return torch.full_like(self._d, math.inf)
        return self._d + self._v.square() * self._turning / (2 * size)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the force of a potential that is a function with differences of its energy."""
        if isinstance(self.potential, FunctionPotential):
            self.potential.check_force(self.position(x).contiguous())

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how the force is found at these states, of a potential that is a function."""
        if not isinstance(self.potential, FunctionPotential):
            return "none"
        seen = is_seen(self.potential.of_columns, self.position(x).contiguous())
        return "autograd" if seen else "differences"

    def _check_shape(self, x: State) -> None:
        """Refuse states of another shape."""
        if x.shape[-1] != 3 or x.ndim < 2:
            raise ValueError(
                "a state of ActiveBrownian is (x, y, θ), shape (batch, 3), or (batch, particles, "
                f"3), but x has shape {tuple(x.shape)}; pass x0 of that shape, such as "
                "torch.zeros(1000, 3)."
            )


def _delayed(w: Tensor) -> Tensor:
    """Return (w − 1 + e^{−w})/w², which is ½ at w = 0, of complex numbers."""
    small = w.abs() < _SMALL
    near, far = torch.where(small, w, 0.0), torch.where(small, 1.0, w)
    series = torch.zeros_like(w)
    for k in reversed(range(_TERMS)):
        series = 1 / math.factorial(k + 2) - near * series
    return torch.where(small, series, (far - 1 + torch.exp(-far)) / far.square())
