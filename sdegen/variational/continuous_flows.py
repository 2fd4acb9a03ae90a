"""Continuous normalizing flows: the update with its noise off, trained by its likelihood.

    dx/dt = F_θ(x, t),   d log p/dt = −∇·F_θ                         x ← x + dt F_θ,  g = 0

A flow is a `ScoreModel` walked with η = 0: of `RectifiedFlow` with `FlowPrediction` its network is
the velocity F itself. There are two ways to train one network, and both have the data's law as
their minimiser:

    by likelihood      −log p_θ(x), through a whole solve: `ContinuousFlowLikelihood`
    by flow matching   E ‖F_θ(x_t, t) − (ε − x0)‖²: train(…, loss="flow-matching")

The first bounds nothing and needs no path from data to noise, but a step costs a solve and its
derivative; the second needs the path, and a small loss of it does not bound the likelihood.

Reference:
    Chen et al. 2018, eq. (8), arXiv:1806.07366; Grathwohl et al. 2019, arXiv:1810.01367; flow
    matching: Lipman et al. 2023, eq. (23), arXiv:2210.02747.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_word
from sdegen.core.requests import check_kind
from sdegen.likelihood.divergence import Divergence
from sdegen.likelihood.flow import log_likelihood
from sdegen.score.model import ScoreModel
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.training.loss import Batch, BatchNoise, Loss

_SOLVER = TorchDiffEq("dopri5", rtol=1e-3, atol=1e-3)


@dataclass(frozen=True)
class ContinuousFlowLikelihood(Loss):
    """The negative log-likelihood of a model's flow, in nats, with gradients through its solve.

        ℓ(x) = −log p(x),     shape (n,)

    Its least value is the entropy of the data, which the steps must not make smaller. Steps of
    known length do: the network grows stiff where they do not look, and with eight of `Heun` the
    loss of a mixture of entropy 0.92 nats fell to −12.8, while the likelihood was 8.5 nats behind.
    With a tolerance it was 0.004 behind. So only a solver that chooses its steps is taken.

    Args:
        solver: Of the flow from t_min to t_max, with its tolerances.
        divergence: "exact", d products with the derivative in each evaluation; for many
            dimensions Hutchinson(1), whose gradients are those of the likelihood on average.

    Raises:
        TypeError: If the solver is no `TorchDiffEq`, or the module no `ScoreModel`.
        ValueError: If the divergence is no word or estimate of `log_likelihood`.

    Example:
        >>> network = sg.MLP(1, width=8, depth=1, rng=0)
        >>> flow = sg.ScoreModel(network, sg.RectifiedFlow(), sg.FlowPrediction())
        >>> config, x = sg.FitConfig(1, batch_size=16), torch.ones(4, 1)
        >>> losses = sg.fit(flow, x, sg.ContinuousFlowLikelihood(), config, rng=0).losses
        >>> f"{losses.item():.3f}"  # untrained, at rest: −log N(1; 0, 1) = ½ log 2π + ½
        '1.419'
    """

    solver: TorchDiffEq = _SOLVER
    divergence: Literal["exact"] | Divergence = "exact"

    def __post_init__(self) -> None:
        known = "TorchDiffEq(rtol=1e-3, atol=1e-3), whose tolerance training cannot make use of"
        check_kind("solver", self.solver, TorchDiffEq, known)
        if not isinstance(self.divergence, Divergence):
            check_word("divergence", self.divergence, ["exact"], " or Hutchinson(probes)")

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what has no flow."""
        check_kind("module", module, ScoreModel, "a ScoreModel(network, RectifiedFlow(), …)")
        return self

    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> Tensor:
        """Return −log p of each row, shape (n,)."""
        model = cast(ScoreModel, module)
        found = log_likelihood(
            model.sde,
            model.score,
            batch.rows,
            solver=self.solver,
            divergence=self.divergence,
            rng=noise.seed(),
            differentiable=torch.is_grad_enabled(),
        )
        return -found.log_prob
