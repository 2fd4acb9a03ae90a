"""Potentials: energies U(x) with force −∇U, and the exact Boltzmann density where there is one.

At temperature T the density is e^{−U/T}/Z (k_B = 1). States are (batch, *event); an energy has
shape (batch,).

`GaussianMixture` is the oracle of this library: noised by any LinearSDE it stays a mixture,

    p_t = Σ_k w_k N(α μ_k, α² Σ_k + σ² I)

so that its score, density and samples are known at every t, and a sampler can be judged with no
training.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from scipy import special
from torch import Tensor

from sdegen.checks import check_positive
from sdegen.noise import Rng, normal_like, stream
from sdegen.sde.linear import LinearSDE
from sdegen.shapes import State, Time, expand

__all__ = ["DoubleWell", "GaussianMixture", "NoisedMixture", "Potential", "Quadratic"]


class Potential(ABC):
    """An energy landscape U(x), in the units of the temperature (k_B = 1)."""

    @abstractmethod
    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,)."""

    @abstractmethod
    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""


class Quadratic(Potential):
    """U(x) = ½ k |x − μ|², the harmonic trap.

    Args:
        stiffness: k > 0.
        center: μ, the same for every coordinate.
    """

    def __init__(self, stiffness: float = 1.0, center: float = 0.0) -> None:
        if not 0 < stiffness < math.inf:
            raise ValueError(f"stiffness must be finite and > 0 to confine, but is {stiffness:g}.")
        self.stiffness, self.center = float(stiffness), float(center)

    def energy(self, x: State) -> Tensor:
        """½ k |x − μ|², shape (batch,)."""
        return 0.5 * self.stiffness * (x - self.center).flatten(1).square().sum(1)

    def force(self, x: State) -> State:
        """−k (x − μ)."""
        return -self.stiffness * (x - self.center)

    def log_prob(self, x: State, temperature: float = 1.0) -> Tensor:
        """log of N(x; μ, T/k), shape (batch,)."""
        check_positive("temperature", temperature)
        d = x[0].numel()
        log_z = 0.5 * d * math.log(2 * math.pi * temperature / self.stiffness)
        return -self.energy(x) / temperature - log_z


class DoubleWell(Potential):
    """U(x) = Σ_i (a x_i⁴ − b x_i²): wells at ±√(b/2a), a barrier b²/4a between them.

    Args:
        quartic: a > 0.
        quadratic: b > 0.
    """

    def __init__(self, quartic: float = 0.25, quadratic: float = 0.5) -> None:
        if not (quartic > 0 and quadratic > 0):
            raise ValueError(
                f"a double well needs a, b > 0, but a = {quartic:g}, b = {quadratic:g}."
            )
        self.quartic, self.quadratic = float(quartic), float(quadratic)

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
        """
        check_positive("temperature", temperature)
        a, b = self.quartic, self.quadratic
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
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Sequence[float]] | Sequence[float],
        *,
        stds: Tensor | Sequence[float] | float | None = None,
        covariances: Tensor | None = None,
    ) -> None:
        w = torch.as_tensor(weights, dtype=torch.float64, device="cpu")
        mu = torch.as_tensor(means, dtype=torch.float64, device="cpu")
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
            variances, axes = _isotropic(torch.as_tensor(stds, dtype=torch.float64), k, d)
        else:
            variances, axes = _principal(torch.as_tensor(covariances, dtype=torch.float64), k, d)
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
        dtype = dtype or torch.get_default_dtype()
        source = stream(rng, "mixture")
        which = torch.multinomial(self.weights, n, replacement=True, generator=source.generator())
        z = source.normal((n, self.dim), dtype=torch.float64) * self.variances[which].sqrt()
        x = self.means[which] + torch.einsum("nij,nj->ni", self.axes[which], z)
        return x.to(device=device, dtype=dtype)

    def noised(self, sde: LinearSDE) -> "NoisedMixture":
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

    def __init__(self, mixture: GaussianMixture, sde: LinearSDE) -> None:
        self.mixture, self.sde = mixture, sde

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample, (d,)."""
        return (self.mixture.dim,)

    def score(self, x: State, t: Time) -> State:
        """∇ log p_t(x), same shape as x; a ScoreFn."""
        return self.mixture._score(x, *self._kernel(x, t))

    def log_prob(self, x: State, t: Time) -> Tensor:
        """log p_t(x) in nats, shape (batch,)."""
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
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = self.sde.alpha(time), self.sde.sigma(time)
        m = self.mixture
        variances = alpha**2 * m.variances + sigma**2
        covariances = torch.einsum("kij,kj,klj->kil", m.axes, variances, m.axes)
        return GaussianMixture(m.weights, alpha * m.means, covariances=covariances)

    def _kernel(self, x: State, t: Time) -> tuple[Tensor, Tensor]:
        """α(t) and σ(t), shape () or (batch, 1), in x's dtype and on its device."""
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        return alpha.to(x), sigma.to(x)


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
