"""Processes with a name: Brownian motion, Ornstein-Uhlenbeck, Langevin, the rate network.

Each is one choice of f and g in the update x + dt f + √|dt| g z.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.checks import check_not_negative
from sdegen.core.kernel import GaussianKernel
from sdegen.core.requests import as_numbers, as_parameter, kind_of, value_of
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import Numbers, State, Time
from sdegen.core.update import Number
from sdegen.sde.kernels import kernel_of_rates, mean_decay
from sdegen.sde.potentials import (
    AnyPotential,
    DrivenPotential,
    Potential,
    as_any_potential,
    check_force_of,
    check_start_of,
    force_by,
    force_of,
)
from sdegen.sde.transitions import LinearProcess, Transition, elapsed

_ROOT_TWO = math.sqrt(2)


class _ConstantNoise(SDE):
    """An SDE with g = σ."""

    def __init__(self, sigma: Number, name: str) -> None:
        sigma = as_parameter(name, sigma)
        value = value_of(sigma)
        check_not_negative(name, value)
        self.noise: NoiseKind = "additive" if value > 0 else "none"
        if isinstance(sigma, Tensor):  # no number: its gradient flows through every step
            self._sigma = sigma
        else:
            self.constant_noise: float | None = sigma
            self._sigma = torch.tensor(sigma, dtype=torch.float64)

    @property
    def sigma(self) -> Number:
        """σ, as it was given."""
        return self._sigma if self.constant_noise is None else self.constant_noise

    def diffusion(self, x: State, t: Time) -> Tensor:
        """g = σ, 0-d."""
        return self._sigma


class BrownianMotion(_ConstantNoise, LinearProcess):
    """Brownian motion: the update without a drift; `sample` draws exact paths.

        dX = σ dW,   X_t | x0 ~ N(x0, σ² t)

    States have shape (batch, *event); all coordinates move alike.

    Args:
        sigma: σ ≥ 0; D = σ²/2, in units of length²/time.

    Raises:
        TypeError: If sigma is no number.
        ValueError: If it is negative or not finite.

    Reference:
        Gardiner 2009, Stochastic Methods, section 3.8.1.

    Example:
        >>> sg.BrownianMotion(2.0).transition(0.0, 3.0).covariance.item()  # σ² t
        12.0
    """

    autonomous: bool | None = True

    def __init__(self, sigma: Number = 1.0) -> None:
        super().__init__(sigma, "sigma")

    @property
    def noise_kernel(self) -> GaussianKernel | None:
        """X_t | X_0 ~ N(X_0, σ² t); None without noise."""
        if self.noise == "none" or not self._moves_as(BrownianMotion):
            return None
        return kernel_of_rates(torch.zeros((), dtype=torch.float64), _as_tensor(self._sigma))

    def drift(self, x: State, t: Time) -> State:
        """0."""
        return torch.zeros_like(x)

    def transition(self, t: Time | float, s: Time | float) -> Transition:
        """Return the law of X_s given X_t, N(X_t, σ² (s − t)).

        Args:
            t: Earlier time, 0-d.
            s: Later time, 0-d.

        Raises:
            ValueError: If s < t.
        """
        variance = _as_tensor(self._sigma).square() * elapsed(t, s)
        return Transition(torch.ones_like(variance), torch.zeros_like(variance), variance)


class OrnsteinUhlenbeck(_ConstantNoise, LinearProcess):
    """An Ornstein–Uhlenbeck process; `sample` draws exact paths.

        dX = −k (X − μ) dt + σ dW
        X_t | x0 ~ N(μ + (x0 − μ) e^{−kt}, (σ²/2k)(1 − e^{−2kt}))

    Its stationary law is N(μ, σ²/2k), its correlation time 1/k. States have shape (batch, *event).

    Args:
        rate: k, in units of inverse time.
        mean: μ, the same for every coordinate.
        sigma: σ ≥ 0.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is not finite, or sigma negative.

    Reference:
        Uhlenbeck and Ornstein 1930; Gardiner 2009, section 4.5.4.

    Example:
        >>> law = sg.OrnsteinUhlenbeck(rate=2.0, mean=0.0, sigma=2.0).transition(0.0, 0.5)
        >>> f"{law.matrix:.4f}, {law.covariance:.4f}"  # e⁻¹ and 1 − e⁻²
        '0.3679, 0.8647'
    """

    autonomous: bool | None = True

    def __init__(self, rate: Number = 1.0, mean: Number = 0.0, sigma: Number = _ROOT_TWO) -> None:
        super().__init__(sigma, "sigma")
        self.rate: float | Tensor = as_parameter("rate", rate)
        self.mean: float | Tensor = as_parameter("mean", mean)
        k, mu = value_of(self.rate), value_of(self.mean)
        if not (math.isfinite(k) and math.isfinite(mu)):
            raise ValueError(f"rate and mean must be finite, but are {k:g} and {mu:g}.")

    @property
    def linear_part(self) -> Tensor:  # type: ignore[override]
        """k, of the drift −k x + k μ."""
        return torch.as_tensor(self.rate, dtype=torch.float64)

    @property
    def noise_kernel(self) -> GaussianKernel | None:
        """α = e^{−kt}, m = μ (1 − α) and σ of the law above; None without noise."""
        if self.noise == "none" or not self._moves_as(OrnsteinUhlenbeck):
            return None
        k = _as_tensor(self.rate)
        return kernel_of_rates(k, _as_tensor(self._sigma), k * self.mean)

    def drift(self, x: State, t: Time) -> State:
        """−k (x − μ)."""
        return -self.rate * (x - self.mean)

    def transition(self, t: Time | float, s: Time | float) -> Transition:
        """Return the law of X_s given X_t, to rounding, whatever the sign of k.

        Args:
            t: Earlier time, 0-d.
            s: Later time, 0-d.

        Raises:
            ValueError: If s < t.
        """
        h = elapsed(t, s)
        kh = _as_tensor(self.rate) * h
        variance = _as_tensor(self._sigma).square() * h * mean_decay(2 * kh)
        return Transition(torch.exp(-kh), -torch.expm1(-kh) * self.mean, variance)


class Langevin(_ConstantNoise):
    """Overdamped Langevin dynamics in a potential.

        dX = −∇U dt + √(2T) dW,   p(x) = e^{−U(x)/T}/Z at rest

    Args:
        potential: U and its force: a `Potential`, or a function U(x) of states (batch, *event),
            whose force is found by autograd. It returns one energy for each state, shape (batch,),
            or x's shape, of which the coordinates are summed: lambda x: x**4 / 4. Driven by a
            protocol it is U(x, t), lambda x, t: (x - t) ** 2 / 2, or a `DrivenPotential`.
        temperature: T ≥ 0, in units of energy (k_B = mobility = 1).

    Raises:
        TypeError: If potential is neither, or temperature no number.
        ValueError: If temperature is negative or not finite.

    Example:
        >>> quartic = sg.Langevin(lambda x: x**4 / 4)
        >>> quartic.drift(torch.tensor([[2.0]]), torch.tensor(0.0)).item()  # −x³
        -8.0
    """

    autonomous: bool | None = True

    def __init__(
        self,
        potential: Potential | DrivenPotential | Callable[..., Tensor],
        temperature: Number = 1.0,
    ) -> None:
        temperature = as_parameter("temperature", temperature)
        check_not_negative("temperature", value_of(temperature))
        twice = 2 * temperature
        sigma = twice.sqrt() if isinstance(twice, Tensor) else math.sqrt(twice)
        super().__init__(sigma, "temperature")
        self.potential: AnyPotential = as_any_potential(potential)
        self.temperature: float | Tensor = temperature
        if isinstance(self.potential, DrivenPotential):
            self.autonomous = False

    def drift(self, x: State, t: Time) -> State:
        """−∇U(x), or −∇U(x, t)."""
        return force_of(self.potential, x, t)

    def check_start(self, x: State, periods: Tensor | None, t: Time) -> None:
        """Refuse what the potential at the first time refuses to start from."""
        check_start_of(self.potential, x, periods, t)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the force of a potential that is a function with differences of its energy."""
        check_force_of(self.potential, x, t)

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how the force is found at these states, of a potential that is a function."""
        return force_by(self.potential, x, t)


class RateNetwork(_ConstantNoise):
    """A noisy rate network: units that leak, and excite or inhibit each other.

        dX = (−X + W φ(X) + I) dt + σ dW

    With dt = 1 the update forgets X_t: x' = W φ(x) + I + σ z, a noisy recurrent network; dt < 1 is
    its leaky form. States have shape (batch, units).

    Args:
        weights: W, shape (units, units).
        inputs: I, shape (units,), or a number.
        sigma: σ ≥ 0.
        activation: φ.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If shapes do not fit, or sigma is negative.

    Reference:
        Sompolinsky, Crisanti and Sommers 1988, eq. (1), with noise.

    Example:
        >>> turn = sg.RateNetwork([[0.0, 1.0], [-1.0, 0.0]], activation=lambda x: x)
        >>> turn.drift(torch.tensor([[1.0, 2.0]]), torch.tensor(0.0)).tolist()  # −x + W x
        [[1.0, -3.0]]
    """

    autonomous: bool | None = True
    halves_steps: ClassVar[bool] = False  # dt = 1 is a network of its own

    def __init__(
        self,
        weights: Numbers,
        inputs: Numbers = 0.0,
        sigma: Number = 0.0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        super().__init__(sigma, "sigma")
        if not isinstance(weights, Tensor):
            weights = as_numbers("weights", weights, expected="a square matrix of numbers")
        if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
            raise ValueError(
                f"weights must be a square matrix, but have shape {tuple(weights.shape)}."
            )
        if not isinstance(inputs, Tensor):
            inputs = as_numbers("inputs", inputs, expected="a number, or one for each unit")
        if inputs.shape not in ((), weights.shape[:1]):
            raise ValueError(
                f"inputs must be a number or have shape ({len(weights)},), one for each unit, but "
                f"have shape {tuple(inputs.shape)}."
            )
        if not callable(activation):
            raise TypeError(
                f"activation must be a function φ(x), but is {kind_of(activation)}; pass "
                "torch.tanh, say."
            )
        self.weights: Tensor = weights
        self.inputs: Tensor = inputs
        self.activation = activation

    def drift(self, x: State, t: Time) -> State:
        """−x + W φ(x) + I, shape (batch, units)."""
        return -x + self.activation(x) @ self.weights.to(x).T + self.inputs.to(x)


def _as_tensor(number: Number) -> Tensor:
    """Return a parameter as a 0-d float64 tensor, with its gradient."""
    return torch.as_tensor(number, dtype=torch.float64)
