"""Potentials: energies U(x) with force −∇U, and the exact Boltzmann density where there is one.

At temperature T the density is e^{−U/T}/Z (k_B = 1). States are (batch, *event); an energy has
shape (batch,).

`GaussianMixture` is the oracle of this library: noised by any GaussianPath it stays a mixture,

    p_t = Σ_k w_k N(α μ_k, α² Σ_k + σ² I)

so that its score, density and samples are known at every t, and a sampler can be judged with no
training.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from sdegen.checks import check_count, check_finite, check_positive
from sdegen.noise import Rng, normal_like, stream
from sdegen.requests import (
    as_number,
    as_numbers,
    as_parameter,
    as_state,
    as_time,
    kind_of,
    value_of,
)
from sdegen.sde.derivatives import as_column, check_slope, gradient_of
from sdegen.sde.linear import GaussianPath, check_gaussian_path
from sdegen.shapes import State, Time, expand

__all__ = [
    "DoubleWell",
    "FunctionPotential",
    "GaussianMixture",
    "NoisedMixture",
    "Potential",
    "Quadratic",
    "as_potential",
]


_Numbers = Tensor | NDArray[np.floating]


class Potential(ABC):
    """An energy landscape U(x), in the units of the temperature (k_B = 1)."""

    @abstractmethod
    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,)."""

    @abstractmethod
    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""


class FunctionPotential(Potential):
    """U(x) from a function of your own; its force is found by autograd, or else by differences.

    Args:
        function: U of states (batch, *event): one energy for each, shape (batch,), or x's shape,
            of which the coordinates are summed. In torch; of a function that autograd does not
            see, such as a table by NumPy, the force is a finite difference.
    """

    def __init__(self, function: Callable[[State], Tensor]) -> None:
        self.function = function

    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,).

        Raises:
            TypeError: If the function returns no numbers.
            ValueError: If it returns neither one for each state nor one for each coordinate.
        """
        value: object = self.function(x)
        if not isinstance(value, Tensor):
            value = as_numbers("what the potential U(x) returns", value).to(x)
        if value.shape == x.shape[:1]:
            return value
        if value.shape == x.shape or (value.ndim == x.ndim and value.shape[0] == len(x)):
            return value.flatten(1).sum(1)
        raise ValueError(
            f"a potential must return one energy for each state, shape ({len(x)},), or x's shape "
            f"{tuple(x.shape)}, but returned shape {tuple(value.shape)}; sum over the coordinates "
            "alone, such as (x**4 / 4).sum(1)."
        )

    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""
        return -gradient_of(self.energy, x)

    def of_columns(self, x: State) -> Tensor:
        """U(x), one number for each state, shape (batch, 1, …)."""
        return as_column(self.energy(x), x)

    def check_force(self, ends: State) -> None:
        """Compare the force with differences of U on the way between two states.

        Raises:
            ValueError: If they are not the same, such as where U is hidden from autograd in part.
        """
        check_slope(
            self.of_columns,
            lambda y: gradient_of(self.energy, y),
            ends,
            name="the potential U(x)",
            cure="If a part of it is hidden from autograd (.detach(), no_grad, NumPy), take that "
            "out or hide all of it; if it jumps, make it continuous.",
        )


@runtime_checkable
class _HasForce(Protocol):
    """What Langevin dynamics need of a potential."""

    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""


def as_potential(potential: object) -> Potential:
    """Return a potential, made of a function U(x) where it is one.

    Raises:
        TypeError: If it is neither.

    >>> as_potential(lambda x: x**2 / 2).energy(torch.tensor([[3.0]]))
    tensor([4.5000])
    """
    if isinstance(potential, Potential):
        return potential
    if isinstance(potential, type):
        raise TypeError(
            f"potential must be an object, but is the class {potential.__name__}: pass "
            f"{potential.__name__}()."
        )
    if isinstance(potential, _HasForce):
        return potential  # type: ignore[return-value]  # all that is asked of it
    if callable(potential):
        return FunctionPotential(potential)
    raise TypeError(
        "potential must be a Potential such as DoubleWell(), or a function U(x) such as "
        f"lambda x: x**4 / 4, but is {kind_of(potential)}."
    )


class Quadratic(Potential):
    """U(x) = ½ k |x − μ|², the harmonic trap.

    Args:
        stiffness: k > 0.
        center: μ, the same for every coordinate.
    """

    def __init__(self, stiffness: float | Tensor = 1.0, center: float | Tensor = 0.0) -> None:
        self.stiffness = as_parameter("stiffness", stiffness)
        self.center = as_parameter("center", center)
        k = value_of(self.stiffness)
        if not 0 < k < math.inf:
            raise ValueError(f"stiffness must be finite and > 0 to confine, but is {k:g}.")
        check_finite("center", value_of(self.center))

    def energy(self, x: State) -> Tensor:
        """½ k |x − μ|², shape (batch,)."""
        return 0.5 * self.stiffness * (x - self.center).flatten(1).square().sum(1)

    def force(self, x: State) -> State:
        """−k (x − μ)."""
        return -self.stiffness * (x - self.center)

    def log_prob(self, x: State, temperature: float = 1.0) -> Tensor:
        """log of N(x; μ, T/k), shape (batch,)."""
        x = _batch(x)
        check_positive("temperature", temperature)
        ratio = 2 * math.pi * temperature / self.stiffness
        log_ratio = ratio.log() if isinstance(ratio, Tensor) else math.log(ratio)
        return -self.energy(x) / temperature - 0.5 * x[0].numel() * log_ratio


class DoubleWell(Potential):
    """U(x) = Σ_i (a x_i⁴ − b x_i²): wells at ±√(b/2a), a barrier b²/4a between them.

    Args:
        quartic: a > 0.
        quadratic: b > 0.
    """

    def __init__(self, quartic: float | Tensor = 0.25, quadratic: float | Tensor = 0.5) -> None:
        self.quartic = as_parameter("quartic", quartic)
        self.quadratic = as_parameter("quadratic", quadratic)
        a, b = value_of(self.quartic), value_of(self.quadratic)
        if not (0 < a < math.inf and 0 < b < math.inf):
            raise ValueError(f"a double well needs a, b > 0, finite, but a = {a:g}, b = {b:g}.")

    def energy(self, x: State) -> Tensor:
        """Σ_i (a x_i⁴ − b x_i²), shape (batch,)."""
        square = x.flatten(1).square()
        return (square * (self.quartic * square - self.quadratic)).sum(1)

    def force(self, x: State) -> State:
        """−4 a x³ + 2 b x."""
        return x * (2 * self.quadratic - 4 * self.quartic * x.square())

    def log_prob(self, x: State, temperature: float = 1.0) -> Tensor:
        """log(e^{−U/T}/Z), shape (batch,).

        Z = (π/2) √(b/2a) e^z [I_{−¼}(z) + I_{¼}(z)] for each coordinate, z = b²/8aT.

        Raises:
            TypeError: If a or b is a tensor that requires grad, of which log Z would lose it.
        """
        x = _batch(x)
        check_positive("temperature", temperature)
        cure = "energy(x) keeps it, or pass its value, .item(), to DoubleWell"
        a = as_number("quartic", self.quartic, cure=cure)
        b = as_number("quadratic", self.quadratic, cure=cure)
        z = b * b / (8 * a * temperature)
        # ive(ν, z) = I_ν(z) e^{−z}: no barrier overflows
        bessel = float(special.ive(-0.25, z) + special.ive(0.25, z))
        log_z = math.log(0.5 * math.pi * math.sqrt(b / (2 * a)) * bessel) + 2 * z
        return -self.energy(x) / temperature - x[0].numel() * log_z


class GaussianMixture(Potential):
    """p(x) = Σ_k w_k N(μ_k, Σ_k), with U = −log p.

    Args:
        weights: w_k > 0, shape (K,); normalised here.
        means: μ_k, shape (K, d); (K,) is read as (K, 1).
        stds: Isotropic standard deviations, a number or shape (K,). Give this or covariances.
        covariances: Σ_k, shape (K, d, d), symmetric positive definite.

    Raises:
        ValueError: If shapes disagree, weights or stds are not positive, or a covariance is not
            symmetric and positive definite.

    >>> GaussianMixture([1.0], [[0.0]], stds=1.0).force(torch.tensor([[2.0]]))
    tensor([[-2.]])
    """

    def __init__(
        self,
        weights: _Numbers | Sequence[float],
        means: _Numbers | Sequence[Sequence[float]] | Sequence[float],
        *,
        stds: _Numbers | Sequence[float] | float | None = None,
        covariances: _Numbers | Sequence[Sequence[Sequence[float]]] | None = None,
    ) -> None:
        w = as_numbers("weights", weights, expected="a list of numbers w_k > 0").cpu()
        mu = as_numbers("means", means, expected="a list of means, shape (K, d)").cpu()
        mu = mu[:, None] if mu.ndim == 1 else mu
        if w.ndim != 1 or mu.ndim != 2 or len(w) != len(mu) or mu.numel() == 0:
            raise ValueError(
                "weights (K,) and means (K, d) must agree, but have shapes "
                f"{tuple(w.shape)} and {tuple(mu.shape)}."
            )
        if not bool(((w > 0) & w.isfinite()).all()):
            raise ValueError(f"weights must be finite and > 0, but are {w.tolist()}.")
        if not bool(mu.isfinite().all()):
            raise ValueError(f"means must be finite, but are {mu.tolist()}.")
        if (stds is None) == (covariances is None):
            raise ValueError("give either stds or covariances, one of the two.")
        k, d = mu.shape
        if covariances is None:
            variances, axes = _isotropic(as_numbers("stds", stds, expected="a number or K"), k, d)
        else:
            c = as_numbers("covariances", covariances, expected="K matrices, shape (K, d, d)")
            variances, axes = _principal(c, k, d)
        self.weights, self.means = w / w.sum(), mu
        self.variances, self.axes = variances, axes  # Σ_k = Q diag(v) Qᵀ
        # Q = I, as where nothing is correlated: d² K multiplications less
        self._aligned = bool((axes == torch.eye(d, dtype=torch.float64)).all())

    @property
    def dim(self) -> int:
        """d."""
        return self.means.shape[1]

    @property
    def mean(self) -> Tensor:
        """E x, shape (d,), float64."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Cov x, shape (d, d), float64."""
        c = torch.einsum("kij,kj,klj->kil", self.axes, self.variances, self.axes)
        centred = self.means - self.mean
        return torch.einsum(
            "k,kij->ij", self.weights, c + centred[:, :, None] * centred[:, None, :]
        )

    def energy(self, x: State) -> Tensor:
        """U(x) = −log p(x), shape (batch,)."""
        return -self.log_prob(x)

    def force(self, x: State) -> State:
        """−∇U = ∇ log p, same shape as x."""
        return self._score(x, x.new_ones(()), x.new_zeros(()))

    def log_prob(self, x: State) -> Tensor:
        """log p(x), shape (batch,)."""
        return torch.logsumexp(self._component_log_prob(x, x.new_ones(()), x.new_zeros(())), 1)

    def sample(
        self,
        n: int,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draws n independent samples, shape (n, d)."""
        check_count("n", n)
        dtype = dtype or torch.get_default_dtype()
        source = stream(rng, "mixture")
        which = torch.multinomial(self.weights, n, replacement=True, generator=source.generator())
        z = source.normal((n, self.dim), dtype=torch.float64) * self.variances[which].sqrt()
        x = self.means[which] + torch.einsum("nij,nj->ni", self.axes[which], z)
        return x.to(device=device, dtype=dtype)

    def noised(self, sde: GaussianPath) -> NoisedMixture:
        """This mixture under a linear SDE: its exact score, density and samples at every t."""
        return NoisedMixture(self, sde)

    def _moments(self, x: State, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Deviations from each α μ_k along its axes, variances there, and log-weights.

        Args:
            x: Shape (batch, d).
            alpha: α, shape () or (batch, 1).
            sigma: σ, shape () or (batch, 1).

        Returns:
            Shapes (batch, K, d) twice, and (K,).
        """
        alpha, sigma = alpha[..., None], sigma[..., None]
        centred = x[:, None] - alpha * self.means.to(x)
        deviation = (
            centred if self._aligned else torch.einsum("nkd,kdi->nki", centred, self.axes.to(x))
        )
        variance = alpha**2 * self.variances.to(x) + sigma**2
        return deviation, variance.expand_as(deviation), self.weights.log().to(x)

    def _component_log_prob(self, x: State, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log w_k + log N(x; α μ_k, α² Σ_k + σ² I), shape (batch, K)."""
        deviation, variance, log_w = self._moments(x, alpha, sigma)
        terms = deviation.square() / variance + (2 * math.pi * variance).log()
        return log_w - 0.5 * terms.sum(2)

    def _score(self, x: State, alpha: Tensor, sigma: Tensor) -> State:
        """∇ log p, shape (batch, d): responsibilities times −C_k⁻¹ (x − α μ_k)."""
        deviation, variance, _ = self._moments(x, alpha, sigma)
        responsibility = torch.softmax(self._component_log_prob(x, alpha, sigma), 1)
        pull = -(responsibility[:, :, None] * deviation / variance)
        return pull.sum(1) if self._aligned else torch.einsum("nki,kdi->nd", pull, self.axes.to(x))


class NoisedMixture:
    """A Gaussian mixture under a linear SDE, exact at every t: Σ_k w_k N(α μ_k, α² Σ_k + σ² I).

    Args:
        mixture: The law of X_0.
        sde: What noises it.
    """

    def __init__(self, mixture: GaussianMixture, sde: GaussianPath) -> None:
        check_gaussian_path(sde)
        self.mixture, self.sde = mixture, sde

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample, (d,)."""
        return (self.mixture.dim,)

    @property
    def score(self) -> MixtureScore:
        """∇ log p_t, called with x and t; it has x's shape."""
        return MixtureScore(self)

    def log_prob(self, x: State, t: Time | float) -> Tensor:
        """log p_t(x) in nats, shape (batch,)."""
        x = self._states(x)
        return torch.logsumexp(self.mixture._component_log_prob(x, *self._kernel(x, t)), 1)

    def sample(
        self,
        n: int,
        t: Time,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draws n samples of X_t, shape (n, d); t has shape () or (n,)."""
        source = stream(rng, "noised mixture")
        x0 = self.mixture.sample(n, rng=source.generator(), dtype=dtype, device=device)
        alpha, sigma = self._kernel(x0, t)
        return alpha * x0 + sigma * normal_like(x0, source)

    def at(self, t: float) -> GaussianMixture:
        """The law of X_t, a mixture again."""
        time = as_time(t)
        alpha, sigma = self.sde.alpha(time), self.sde.sigma(time)
        m = self.mixture
        variances = alpha**2 * m.variances + sigma**2
        covariances = torch.einsum("kij,kj,klj->kil", m.axes, variances, m.axes)
        return GaussianMixture(m.weights, alpha * m.means, covariances=covariances)

    def _states(self, x: State) -> State:
        """Return states of the mixture's dimension, or refuse them."""
        x = as_state("x", x)
        if x.ndim != 2 or x.shape[1] != self.mixture.dim:
            raise ValueError(
                f"x must have shape (batch, {self.mixture.dim}), as the mixture has it, but has "
                f"shape {tuple(x.shape)}."
            )
        return x

    def _kernel(self, x: State, t: Time | float) -> tuple[Tensor, Tensor]:
        """α(t) and σ(t), shape () or (batch, 1), in x's dtype and on its device."""
        t = as_time(t)
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        return alpha.to(x), sigma.to(x)


@dataclass(frozen=True)
class MixtureScore:
    """The exact score of a noised mixture, as `NoisedMixture.score` returns it.

    Args:
        law: Whose score.
    """

    law: NoisedMixture

    def __call__(self, x: State, t: Time | float) -> State:
        """∇ log p_t(x), same shape as x."""
        x = self.law._states(x)
        return self.law.mixture._score(x, *self.law._kernel(x, t))

    @property
    def sde(self) -> GaussianPath:
        """The process that it is the score of."""
        return self.law.sde

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample, (d,)."""
        return self.law.event_shape


def _batch(x: State) -> State:
    """Return states as a tensor with a batch axis, or refuse them."""
    x = as_state("x", x)
    if x.ndim < 2:
        raise ValueError(
            f"x must have shape (batch, *event), but has shape {tuple(x.shape)}; one-dimensional "
            "physics is (batch, 1): pass x[:, None]."
        )
    return x


def _isotropic(stds: Tensor, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Variances (K, d) and axes (K, d, d) of isotropic components."""
    if stds.ndim > 1 or (stds.ndim == 1 and len(stds) != k):
        raise ValueError(f"stds must be a number or have shape ({k},), not {tuple(stds.shape)}.")
    if not bool(((stds > 0) & stds.isfinite()).all()):
        raise ValueError(f"stds must be finite and > 0, but are {stds.tolist()}.")
    variances = stds.cpu().square().expand(k)[:, None].expand(k, d)
    return variances, torch.eye(d, dtype=torch.float64).expand(k, d, d)


def _principal(covariances: Tensor, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Variances (K, d) along the principal axes, and the axes (K, d, d) in columns."""
    c = covariances.cpu()
    if c.shape != (k, d, d):
        raise ValueError(f"covariances must have shape {(k, d, d)}, but have {tuple(c.shape)}.")
    if not bool(c.isfinite().all()) or not torch.allclose(c, c.mT, rtol=1e-8, atol=0.0):
        raise ValueError("covariances must be finite and symmetric.")
    if torch.equal(c, torch.diag_embed(c.diagonal(dim1=1, dim2=2))):
        variances, axes = (
            c.diagonal(dim1=1, dim2=2),
            torch.eye(d, dtype=torch.float64).expand_as(c),
        )
    else:
        variances, axes = torch.linalg.eigh(c)
    if not bool((variances > 0).all()):
        raise ValueError(
            f"every spread must be > 0, but the smallest variance is {float(variances.min()):g}."
        )
    return variances, axes
