"""Mixtures under kernels of modes and matrices: the exact score to judge them by.

p_t = Σ_k w_k N(Φ μ_k + m, Φ Σ_k Φᵀ + L Lᵀ)

as dense matrices of all numbers of a state, in float64: an oracle for tests, not for large fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.kernel import GaussianKernel
from sdegen.core.noise import Rng, normal_like, stream
from sdegen.core.requests import as_state, as_time, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time

if TYPE_CHECKING:
    from sdegen.diffusion.mixtures import GaussianMixture

_Law = tuple[Tensor, Tensor, Tensor]  # means, whitening matrices, log-volumes of components


@dataclass(frozen=True, eq=False)
class KernelMixture:
    """A Gaussian mixture noised by a process with a Gaussian kernel, exact at every t.

    Args:
        mixture: The law of X_0, of the numbers of an event in a row; in phase space of positions.
        sde: What noises it.

    Raises:
        TypeError: If the process has no Gaussian kernel.
    """

    mixture: GaussianMixture
    sde: SDE
    _laws: dict[float, _Law] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.sde, SDE) or self.sde.noise_kernel is None:
            raise TypeError(
                "sde must have a Gaussian kernel, as a GaussianPath, LinearSDE or StochasticHeat "
                f"has, but is {kind_of(self.sde)}."
            )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return self.sde.event_of(self.mixture.dim * (2 if self.sde.phase_space else 1))

    @property
    def score(self) -> KernelMixtureScore:
        """∇ log p_t, called with x and t; it has x's shape."""
        return KernelMixtureScore(self)

    def log_prob(self, x: State, t: Time | float) -> Tensor:
        """log p_t(x) in nats, shape (batch,)."""
        return torch.logsumexp(self._log_probs(self._states(x), self._law(as_time(t)))[0], 1)

    def sample(
        self,
        n: int,
        t: Time | float,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draw n samples of X_t, shape (n, *event); t is 0-d."""
        source, t = stream(rng, "noised mixture"), as_time(t)
        x0 = self.mixture.sample(n, rng=source.generator(), dtype=dtype, device=device)
        mean = self._kernel.mean(self._data(x0), t)
        return mean + self._kernel.spread(normal_like(mean, source), t)

    def at(self, t: Time | float) -> GaussianMixture:
        """Return the law of X_t, a mixture of the numbers of a state in a row."""
        means, covariances = self._moments(as_time(t))
        return type(self.mixture)(self.mixture.weights, means, covariances=covariances)

    @property
    def _kernel(self) -> GaussianKernel:
        kernel = self.sde.noise_kernel
        assert kernel is not None  # the constructor saw to it
        return kernel

    def _data(self, rows: Tensor) -> State:
        """Return rows of numbers as data."""
        event = self.event_shape[1:] if self.sde.phase_space else self.event_shape
        return rows.reshape(-1, *event)

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means (K, n) and covariances (K, n, n) of the components."""
        mixture, kernel, d = self.mixture, self._kernel, self.mixture.dim
        still = kernel.mean(self._data(torch.zeros(1, d, dtype=torch.float64)), t)
        columns = kernel.mean(self._data(torch.eye(d, dtype=torch.float64)), t) - still
        phi = columns.flatten(1).T
        n = len(phi)
        eye = torch.eye(n, dtype=torch.float64).reshape(n, *self.event_shape)
        root = kernel.spread(eye, t).flatten(1).T
        means = kernel.mean(self._data(mixture.means), t).flatten(1)
        spread = torch.einsum("kij,kj,klj->kil", mixture.axes, mixture.variances, mixture.axes)
        covariances = phi @ spread @ phi.T + root @ root.T
        return means, 0.5 * (covariances + covariances.mT)

    def _law(self, t: Tensor) -> _Law:
        """Return the components at a time, ready to be asked."""
        key = float(t)
        if key not in self._laws:
            means, covariances = self._moments(t.double().cpu())
            root = torch.linalg.cholesky(covariances)
            volume = root.diagonal(dim1=1, dim2=2).log().sum(1)
            eye = torch.eye(root.shape[1], dtype=torch.float64).expand_as(root)
            self._laws[key] = means, torch.linalg.solve_triangular(root, eye, upper=False), volume
        return self._laws[key]

    def _log_probs(self, x: State, law: _Law) -> tuple[Tensor, Tensor, Tensor]:
        """Return log w_k N(x), whitened deviations, and whitening matrices."""
        means, whiten, volume = (part.to(x) for part in law)
        white = torch.einsum("kij,nkj->nki", whiten, x.flatten(1)[:, None] - means)
        constant = 0.5 * means.shape[1] * math.log(2 * math.pi)
        logs = self.mixture.weights.log().to(x) - 0.5 * white.square().sum(2) - volume - constant
        return logs, white, whiten

    def _states(self, x: State) -> State:
        """Return states of its event, or refuse them."""
        x = as_state("x", x)
        if tuple(x.shape[1:]) != self.event_shape:
            sizes = ", ".join(map(str, self.event_shape))
            raise ValueError(
                f"x must have shape (batch, {sizes}), but has shape {tuple(x.shape)}."
            )
        return x


@dataclass(frozen=True)
class KernelMixtureScore:
    """The exact score of a mixture under a kernel, as `KernelMixture.score` returns it.

    Args:
        law: Whose score.
    """

    law: KernelMixture

    def __call__(self, x: State, t: Time | float) -> State:
        """∇ log p_t(x), same shape as x; t of shape () or (batch,)."""
        x, t = self.law._states(x), as_time(t)
        if t.ndim:
            out = torch.zeros_like(x)
            for one in torch.unique(t):
                out[t == one] = self(x[t == one], one)
            return out
        logs, white, whiten = self.law._log_probs(x, self.law._law(t))
        pulled = torch.einsum("nki,kij->nkj", white, whiten)
        return -(torch.softmax(logs, 1)[:, :, None] * pulled).sum(1).reshape(x.shape)

    @property
    def sde(self) -> SDE:
        """The process that it is the score of."""
        return self.law.sde

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return self.law.event_shape
