"""Processes with a name: Brownian motion, Ornstein-Uhlenbeck, Langevin, the rate network.

Each is one choice of f and g in the update x + dt f + √|dt| g z.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.checks import check_not_negative
from sdegen.sde.base import SDE
from sdegen.sde.potentials import Potential
from sdegen.shapes import State, Time

__all__ = ["BrownianMotion", "Langevin", "OrnsteinUhlenbeck", "RateNetwork"]


class _ConstantNoise(SDE):
    """An SDE with g = σ."""

    def __init__(self, sigma: float, name: str) -> None:
        check_not_negative(name, sigma)
        self.noise = "additive" if sigma > 0 else "none"
        self.constant_noise = float(sigma)
        self._sigma = torch.tensor(float(sigma), dtype=torch.float64)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        said = next(c for c in cls.__mro__ if issubclass(c, SDE) and "autonomous" in vars(c))
        if cls.drift is not said.drift or cls.diffusion is not said.diffusion:
            cls.autonomous = None  # was said of another drift or diffusion

    def diffusion(self, x: State, t: Time) -> Tensor:
        """g = σ, 0-d."""
        return self._sigma


class BrownianMotion(_ConstantNoise):
    """The update without a drift: dX = σ dW, X_t ~ N(x0, σ² t).

    Args:
        sigma: σ ≥ 0; D = σ²/2.
    """

    autonomous = True

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__(sigma, "sigma")

    def drift(self, x: State, t: Time) -> State:
        """0."""
        return torch.zeros_like(x)


class OrnsteinUhlenbeck(_ConstantNoise):
    """dX = −k (X − μ) dt + σ dW; stationary law N(μ, σ²/2k), correlation time 1/k.

    X_t | x0 ~ N(μ + (x0 − μ) e^{−kt}, (σ²/2k)(1 − e^{−2kt}))

    Args:
        rate: k, in units of inverse time.
        mean: μ, the same for every coordinate.
        sigma: σ ≥ 0.

    Reference:
        Uhlenbeck and Ornstein 1930; Gardiner 2009, section 4.5.4.
    """

    autonomous = True

    def __init__(self, rate: float = 1.0, mean: float = 0.0, sigma: float = math.sqrt(2)) -> None:
        super().__init__(sigma, "sigma")
        if not (math.isfinite(rate) and math.isfinite(mean)):
            raise ValueError(f"rate and mean must be finite, but are {rate:g} and {mean:g}.")
        self.rate, self.mean = float(rate), float(mean)

    def drift(self, x: State, t: Time) -> State:
        """−k (x − μ)."""
        return -self.rate * (x - self.mean)


class Langevin(_ConstantNoise):
    """Overdamped Langevin dynamics, dX = −∇U dt + √(2T) dW; stationary density e^{−U/T}/Z.

    Args:
        potential: U and its force.
        temperature: T ≥ 0, in units of energy (k_B = mobility = 1).
    """

    autonomous = True

    def __init__(self, potential: Potential, temperature: float = 1.0) -> None:
        check_not_negative("temperature", temperature)
        super().__init__(math.sqrt(2 * temperature), "temperature")
        self.potential, self.temperature = potential, float(temperature)

    def drift(self, x: State, t: Time) -> State:
        """−∇U(x)."""
        return self.potential.force(x)


class RateNetwork(_ConstantNoise):
    """A noisy rate network, dX = (−X + W φ(X) + I) dt + σ dW.

    With dt = 1 the update forgets X_t: x' = W φ(x) + I + σ z, a noisy recurrent network; dt < 1 is
    its leaky form.

    Args:
        weights: W, shape (units, units).
        inputs: I, shape (units,), or a number.
        sigma: σ ≥ 0.
        activation: φ.

    Reference:
        Sompolinsky, Crisanti and Sommers 1988, eq. (1), with noise.
    """

    autonomous = True

    def __init__(
        self,
        weights: Tensor,
        inputs: Tensor | float = 0.0,
        sigma: float = 0.0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        super().__init__(sigma, "sigma")
        if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
            raise ValueError(
                f"weights must be a square matrix, but have shape {tuple(weights.shape)}."
            )
        self.weights, self.inputs, self.activation = weights, inputs, activation

    def drift(self, x: State, t: Time) -> State:
        """−x + W φ(x) + I, shape (batch, units)."""
        inputs = self.inputs.to(x) if isinstance(self.inputs, Tensor) else self.inputs
        return -x + self.activation(x) @ self.weights.to(x).T + inputs
