"""The Gaussian kernel of a linear SDE, and what a sampler knows of reverse dynamics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.scores import ScoreAt, along
from sdegen.core.shapes import ScoreFn, Time

_HALVINGS = 80  # of an interval of times: past the last bit of a float64


@dataclass(frozen=True)
class Kernel:
    """The Gaussian kernel X_t | X_0 ~ N(α(t) X_0, σ(t)² I) of a linear SDE.

    Attributes:
        alpha: α(t), shape of t.
        sigma: σ(t), shape of t.
    """

    alpha: Callable[[Time], Tensor]
    sigma: Callable[[Time], Tensor]

    def log_ratio(self, t: Tensor) -> Tensor:
        """log(σ/α) = −λ, of the noise-to-signal ratio; shape of t."""
        return torch.log(self.sigma(t)) - torch.log(self.alpha(t))

    def time_of_log_nsr(self, log_ratio: Tensor, low: float, high: float) -> Tensor:
        """Return the times in [low, high] at which log(σ/α) takes these values, by bisection.

        Args:
            log_ratio: Values of log(σ/α), which increases in t; float64, any shape.
            low: Earliest time.
            high: Latest time.
        """
        below, above = torch.full_like(log_ratio, low), torch.full_like(log_ratio, high)
        for _ in range(_HALVINGS):
            middle = 0.5 * (below + above)
            less = self.log_ratio(middle) < log_ratio
            below, above = torch.where(less, middle, below), torch.where(less, above, middle)
        return 0.5 * (below + above)


@dataclass(frozen=True)
class ReverseStructure:
    """What a sampler that looks inside reverse dynamics finds there.

    Attributes:
        score: ∇ log p_t(x).
        eta: η of the family of reverse dynamics: 0 the flow, 1 the reverse SDE.
        kernel: Kernel of the forward SDE, or None where it is not Gaussian.
    """

    score: ScoreFn
    eta: float
    kernel: Kernel | None

    def along(self, nodes: Tensor) -> ScoreAt:
        """Return the score at the nodes of a run, as `along` does."""
        return along(self.score, nodes)
