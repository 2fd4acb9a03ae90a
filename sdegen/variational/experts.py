"""A mixture of experts: the density of y given x, by a gate that says who knows.

    p(y | x) = Σ_k π_k(x) N(y; μ_k(x), s_k²),      π(x) = softmax(gate(x))

Gate and experts are any modules of x. Where one x has several y, their mean is none of them; the
mixture keeps them apart, and the gate says which expert speaks for which x.

Reference:
    Jacobs et al. 1991, Neural Computation 3, 79, eq. (1.3); mixture density networks: Bishop 1994.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_positive
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_kind, kind_of
from sdegen.core.shapes import State
from sdegen.training.loss import Batch, BatchNoise, Loss
from sdegen.variational.networks import ask


class MixtureOfExperts(nn.Module):
    """A mixture of Gaussians whose weights and means depend on x.

        p(y | x) = Σ_k softmax(gate(x))_k N(y; μ_k(x), s_k² I)

    Args:
        gate: x (batch, *event) to logits (batch, K).
        experts: x (batch, *event) to means (batch, K, d).
        count: K.
        std: s_k to begin with, > 0; each is learned.

    Raises:
        TypeError: If one is no module.
        ValueError: If a number makes no sense.

    Example:
        >>> gate = torch.nn.Linear(1, 2)
        >>> experts = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Unflatten(1, (2, 1)))
        >>> model = sg.variational.MixtureOfExperts(gate, experts, count=2)
        >>> _ = [p.data.zero_() for p in (*gate.parameters(), *experts.parameters())]
        >>> y, x = torch.ones(1, 1), torch.zeros(1, 1)
        >>> model.responsibilities(y, x).tolist(), f"{model.log_prob(y, x).item():.4f}"
        ([[0.5, 0.5]], '-1.4189')
    """

    def __init__(
        self, gate: nn.Module, experts: nn.Module, count: int, *, std: float = 1.0
    ) -> None:
        super().__init__()
        for name, network in (("gate", gate), ("experts", experts)):
            check_kind(
                name, network, nn.Module, "a torch.nn.Module, such as torch.nn.Linear(1, 2)"
            )
        check_count("count", count)
        check_positive("std", std)
        self.gate: nn.Module = gate
        self.experts: nn.Module = experts
        self.log_stds: nn.Parameter = nn.Parameter(torch.full((count,), math.log(std)))

    def log_gate(self, x: State) -> Tensor:
        """Return log π_k(x), shape (batch, K).

        Raises:
            ValueError: If the gate returns another shape.
        """
        logits = ask("gate", self.gate, x)
        if logits.shape != (len(x), len(self.log_stds)):
            raise ValueError(
                f"gate must return logits of shape ({len(x)}, {len(self.log_stds)}), one for each "
                f"expert, but returned {kind_of(logits)}."
            )
        return nn.functional.log_softmax(logits, 1)

    def log_prob(self, y: Tensor, x: State) -> Tensor:
        """Return log p(y | x) in nats, shape (batch,).

        Args:
            y: Shape (batch, d).
            x: Shape (batch, *event).

        Raises:
            ValueError: If the experts return another shape than (batch, K, d).
        """
        return torch.logsumexp(self._joint(y, x), 1)

    def responsibilities(self, y: Tensor, x: State) -> Tensor:
        """Return p(k | y, x), shape (batch, K): who has spoken."""
        return torch.softmax(self._joint(y, x), 1)

    def sample(self, x: State, *, rng: Rng = None) -> Tensor:
        """Draw a y for each x, shape (batch, d); rng is a seed, generator or None."""
        streams = Streams(seed_of(rng), "experts")
        with torch.no_grad():
            shares, means = self.log_gate(x).exp(), ask("experts", self.experts, x)
            which = torch.multinomial(shares.cpu(), 1, generator=streams.block(0).generator())[
                :, 0
            ]
            rows = torch.arange(len(x))
            mean: Tensor = means[rows, which]
            z = streams.block(1).normal(tuple(mean.shape), dtype=mean.dtype, device=mean.device)
            return mean + self.log_stds.exp()[which][:, None] * z

    def _joint(self, y: Tensor, x: State) -> Tensor:
        """Return log π_k(x) + log N(y; μ_k(x), s_k²), shape (batch, K)."""
        means = ask("experts", self.experts, x)
        wanted = (len(x), len(self.log_stds), *y.shape[1:])
        if means.shape != wanted:
            raise ValueError(
                f"experts must return means of shape {wanted}, one for each expert, but returned "
                f"{kind_of(means)}."
            )
        white = (y[:, None] - means) * torch.exp(-self.log_stds)[:, None]
        size = y[0].numel() * (self.log_stds + 0.5 * math.log(2 * math.pi))
        joint: Tensor = self.log_gate(x) - 0.5 * white.square().sum(2) - size
        return joint


class ConditionalLikelihood(Loss):
    """The negative log-likelihood of a `MixtureOfExperts`; rows are x, labels y of shape (n, d).

        ℓ = −log p(y | x)

    Raises:
        TypeError: If it is asked for a module that is no `MixtureOfExperts`.
        ValueError: If there are no labels.

    Example:
        >>> experts = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Unflatten(1, (1, 1)))
        >>> model = sg.variational.MixtureOfExperts(torch.nn.Linear(1, 1), experts, count=1)
        >>> _ = [p.data.zero_() for p in experts.parameters()]
        >>> x, loss = torch.ones(4, 1), sg.variational.ConditionalLikelihood()
        >>> losses = sg.fit(model, x, loss, sg.FitConfig(1), labels=x, rng=0).losses
        >>> f"{losses.item():.4f}"  # −log N(1; 0, 1) = ½ log 2π + ½
        '1.4189'
    """

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse another module, and data without y."""
        check_kind("module", module, MixtureOfExperts, "a MixtureOfExperts(gate, experts, count)")
        if batch.labels is None or batch.labels.ndim != 2:
            raise ValueError(
                "the likelihood of y given x needs y, floats of shape (n, d); pass labels=y."
            )
        return self

    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> Tensor:
        """Return −log p(y | x) of each row, shape (n,)."""
        experts = cast(MixtureOfExperts, module)
        return -experts.log_prob(cast(Tensor, batch.labels), batch.rows)
