"""Mixtures under kernels of modes and matrices: the exact score to judge them by.

p_t = Σ_k w_k N(Φ μ_k + m, Φ Σ_k Φᵀ + L Lᵀ)

as dense matrices of all numbers of a state, in float64: an oracle for tests, not for large fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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

# means, whitening matrices, log-volumes of components, with a first axis of 1 or of rows
_Law = tuple[Tensor, Tensor, Tensor]
_NUMBERS = 2**22  # of the matrices of rows at times of their own, at once


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
        """log p_t(x) in nats, shape (batch,); t of shape () or (batch,)."""
        x, t = self._states(x), as_time(t)
        parts = [torch.logsumexp(self._log_probs(rows, law)[0], 1) for rows, law in self._at(x, t)]
        return torch.cat(parts)

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
        means, covariances = self._moments(as_time(t).reshape(1))
        return type(self.mixture)(self.mixture.weights, means[0], covariances=covariances[0])

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
        """Return the means (T, K, n) and covariances (T, K, n, n) of the components at times."""
        mixture, kernel, d, many = self.mixture, self._kernel, self.mixture.dim, len(t)
        t = t.double().cpu()

        def moved(x0: State) -> Tensor:
            every = x0.repeat(many, *(1,) * (x0.ndim - 1))
            return kernel.mean(every, t.repeat_interleave(len(x0))).reshape(many, len(x0), -1)

        still = moved(self._data(torch.zeros(1, d, dtype=torch.float64)))
        phi = (moved(self._data(torch.eye(d, dtype=torch.float64))) - still).mT
        n = phi.shape[1]
        eye = torch.eye(n, dtype=torch.float64).reshape(n, *self.event_shape)
        every = eye.repeat(many, *(1,) * len(self.event_shape))
        root = kernel.spread(every, t.repeat_interleave(n)).reshape(many, n, n).mT
        means = moved(self._data(mixture.means))
        spread = torch.einsum("kij,kj,klj->kil", mixture.axes, mixture.variances, mixture.axes)
        phi, noise = phi[:, None], root @ root.mT
        covariances = phi @ spread @ phi.mT + noise[:, None]
        return means, 0.5 * (covariances + covariances.mT)

    def _laws_at(self, t: Tensor) -> _Law:
        """Return the components at times (T,), ready to be asked, with a first axis of T."""
        means, covariances = self._moments(t)
        root = torch.linalg.cholesky(covariances)
        volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        eye = torch.eye(root.shape[-1], dtype=torch.float64).expand_as(root)
        return means, torch.linalg.solve_triangular(root, eye, upper=False), volume

    def _at(self, x: State, t: Tensor) -> Iterator[tuple[State, _Law]]:
        """Yield rows of x, in order, and their components: of one time, or of a time each."""
        if not t.ndim:
            key = float(t.detach())
            law = None if t.requires_grad else self._laws.get(key)
            if law is None:
                law = self._laws_at(t.reshape(1))
                if not t.requires_grad:  # what is kept holds no graph
                    self._laws[key] = law
            yield x, law
            return
        size = max(1, _NUMBERS // (self.mixture.weights.numel() * x[0].numel() ** 2))
        for first in range(0, len(x), size):
            rows = slice(first, first + size)
            distinct, which = t[rows].cpu(), torch.arange(len(t[rows]))
            if not t.requires_grad:  # equal times are one law; their gradients would be lost
                distinct, which = torch.unique(distinct, return_inverse=True)
            means, whiten, volume = self._laws_at(distinct)
            yield x[rows], (means[which], whiten[which], volume[which])

    def _log_probs(self, x: State, law: _Law) -> tuple[Tensor, Tensor, Tensor]:
        """Return log w_k N(x), whitened deviations, and whitening matrices."""
        means, whiten, volume = (part.to(x) for part in law)
        white = _times(whiten, x.flatten(1)[:, None] - means)
        constant = 0.5 * means.shape[-1] * math.log(2 * math.pi)
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
        parts = []
        for rows, law in self.law._at(x, t):
            logs, white, whiten = self.law._log_probs(rows, law)
            pulled = _times(whiten.mT, white)
            parts.append(-(torch.softmax(logs, 1)[:, :, None] * pulled).sum(1))
        return torch.cat(parts).reshape(x.shape)

    @property
    def sde(self) -> SDE:
        """The process that it is the score of."""
        return self.law.sde

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return self.law.event_shape


def _times(matrices: Tensor, v: Tensor) -> Tensor:
    """Return matrices (1 or n, K, i, j) times vectors (n, K, j), shape (n, K, i)."""
    if len(matrices) == 1:
        return torch.einsum("kij,nkj->nki", matrices[0], v)
    return (matrices @ v[..., None])[..., 0]
