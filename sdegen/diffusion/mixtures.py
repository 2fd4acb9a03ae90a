"""Gaussian mixtures: the oracle of this library.

Noised along any Gaussian path a mixture stays one,

    p_t = Σ_k w_k N(α μ_k, α² Σ_k + σ² I)

so that its score, density and samples are known at every t, and a sampler can be judged with no
training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, normal_like, stream
from sdegen.core.requests import as_numbers, as_state, as_time
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time, expand
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.diffusion.kernel_mixtures import KernelMixture
from sdegen.sde.potentials import Potential

_ROUNDING = 1e-14  # relative to the largest covariance


class GaussianMixture(Potential):
    """A Gaussian mixture: a law whose density, score and samples are known, noised or not.

        p(x) = Σ_k w_k N(x; μ_k, Σ_k),   U = −log p

    Args:
        weights: w_k > 0, shape (K,); normalised here.
        means: μ_k, shape (K, d); (K,) is read as (K, 1).
        stds: Isotropic standard deviations, a number or shape (K,). Give this or covariances.
        covariances: Σ_k, shape (K, d, d), symmetric positive definite.

    Raises:
        ValueError: If shapes disagree, weights or stds are not positive, or a covariance is not
            symmetric and positive definite.

    Example:
        >>> law = sg.GaussianMixture([0.5, 0.5], [-1.0, 1.0], stds=0.5)
        >>> x = torch.tensor([[0.0], [5.0]])
        >>> [f"{score:.2f}" for score in law.force(x).flatten()]  # at 5: −(5 − 1)/0.5²
        ['0.00', '-16.00']
    """

    def __init__(
        self,
        weights: ArrayLike,
        means: ArrayLike,
        *,
        stds: ArrayLike | None = None,
        covariances: ArrayLike | None = None,
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
        self.weights: Tensor = w / w.sum()
        self.means: Tensor = mu
        self.variances: Tensor = variances
        self.axes: Tensor = axes
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
        between = centred[:, :, None] * centred[:, None, :]
        return torch.einsum("k,kij->ij", self.weights, c + between)

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

    @overload
    def noised(self, sde: GaussianPath) -> NoisedMixture: ...  # type: ignore[overload-overlap]
    @overload
    def noised(self, sde: SDE) -> KernelMixture: ...
    def noised(self, sde: SDE) -> NoisedMixture | KernelMixture:
        """Return this mixture on a Gaussian path: exact score, density and samples at every t.

        Of another process with a Gaussian kernel, states have its event, such as a field's; in
        phase space the mixture is that of positions.
        """
        other = isinstance(sde, SDE) and not isinstance(sde, GaussianPath)
        if other and sde.noise_kernel is not None:
            return KernelMixture(self, sde)
        return NoisedMixture(self, check_gaussian_path(sde))

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
        deviation = x[:, None] - alpha * self.means.to(x)
        if not self._aligned:
            deviation = torch.einsum("nkd,kdi->nki", deviation, self.axes.to(x))
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
        self.mixture: GaussianMixture = mixture
        self.sde: GaussianPath = sde

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
        """Return the law of X_t, a mixture again."""
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

    def x0(self, x: State, t: Time | float) -> State:
        """Return E[x0 | x_t = x] by Tweedie's formula, shape of x; where α = 0, the mean.

        Args:
            x: States, shape (batch, d).
            t: Time, shape () or (batch,).
        """
        x = self.law._states(x)
        alpha, sigma = self.law._kernel(x, t)
        mixture = self.law.mixture
        mean = (mixture.weights @ mixture.means).to(x)
        denoised = (x + sigma**2 * self(x, t)) / torch.where(alpha == 0, 1.0, alpha)
        return torch.where(alpha == 0, mean, denoised)

    @property
    def sde(self) -> GaussianPath:
        """The process that it is the score of."""
        return self.law.sde

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample, (d,)."""
        return self.law.event_shape


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
    rounding = _ROUNDING * float(c.abs().max())  # a product Φ C Φᵀ leaves as much beside a 0
    if not bool(c.isfinite().all()) or not torch.allclose(c, c.mT, rtol=1e-8, atol=rounding):
        raise ValueError("covariances must be finite and symmetric.")
    c = 0.5 * (c + c.mT)
    variances, axes = c.diagonal(dim1=1, dim2=2), torch.eye(d, dtype=torch.float64).expand_as(c)
    if not torch.equal(c, torch.diag_embed(variances)):
        variances, axes = torch.linalg.eigh(c)
    if not bool((variances > 0).all()):
        raise ValueError(
            f"every spread must be > 0, but the smallest variance is {float(variances.min()):g}."
        )
    return variances, axes
