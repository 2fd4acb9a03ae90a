"""MeanPrediction: a network that puts out the mean of the step back, as DDPM first tried.

    μ_k(x_k, x0) = E[x_{k−1} | x_k, x0] = (x_k − (b_k²/σ_k) ε)/a_k,       α x0 + σ ε = x_k

Mean, x0 and ε are three readings of one thing: given x_k, each follows from each. What an error
costs in the bound is ‖μ − μ̂‖²/2 s_k² = ω_k ‖x0 − x̂0‖² = ω′_k ‖ε − ε̂‖²
(`sdegen.variational.predictors`).

A parameterization is told α and σ, not k: a_k and b_k²/σ_k² are looked up by log(σ/α), exactly at
the levels of the chain, and between them by straight lines of their logarithms, which are a
parameterization as good as any. Below the first level the step ends at the data: μ = x0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.shapes import State
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.score.parameterization import Estimates, Parameterization


@dataclass(frozen=True)
class MeanPrediction(Parameterization):
    """The network predicts the mean of the step back, E[x_{k−1} | x_k, x0] on a chain.

        ε = (x_k − a μ) σ/b²,     x0 = (x_k − σ ε)/α

    of the chain DDPM.discretize(sde, steps); μ has the shape of x_k, (batch, *event). It is
    trained on the chain's levels by DenoisingLoss(steps=chain), and sampled by
    chain.reverse(model.score). ε is what a small difference x_k − a μ is of a small b²: with short
    steps, an error of a network is as much larger in ε, and ε itself is easier to learn.

    Args:
        sde: The path.
        steps: N, steps of its chain on t_k = k t_max/N.

    Raises:
        TypeError: If sde is no `GaussianPath`, or steps no int.
        ValueError: If steps < 1, or the last level has no signal.

    Reference:
        Ho, Jain and Abbeel 2020, eqs. (7) and (8) and table 2, arXiv:2006.11239.

    Example:
        >>> path = sg.VP(sg.ConstantBeta(2.0))  # α = e^−t; two steps to t = 1: a = e^−½
        >>> x0, eps, t = torch.ones(1, 1), torch.zeros(1, 1), torch.tensor(1.0)
        >>> reads = sg.MeanPrediction(path, steps=2)
        >>> reads.target(x0, eps, path.alpha(t), path.sigma(t))  # α x0/a = e^−½
        tensor([[0.6065]])
    """

    sde: GaussianPath
    steps: int

    def __post_init__(self) -> None:
        check_gaussian_path(self.sde)
        check_count("steps", self.steps)
        chain = DDPM.discretize(self.sde, self.steps)
        if not float(chain.a.min()) > 0:
            raise ValueError(
                "a step that ends without signal, α = 0, has no mean to go back to by; pass an "
                "SDE whose last level has some, or predict x0 or v."
            )
        levels = chain.sigmas[1:].log() - 0.5 * chain.alpha_bars.log()
        shares = 2 * (chain.b / chain.sigmas[1:]).log()  # log b²/σ²
        object.__setattr__(self, "_table", torch.stack([levels, chain.a.log(), shares]))

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from μ."""
        eps = self.eps(output, x_t, alpha, sigma)
        return (x_t - sigma * eps) / alpha, eps

    def eps(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return ε from μ."""
        a, share = self._step(alpha, sigma)
        return (x_t - a * output) / (share * sigma)

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return μ."""
        a, share = self._step(alpha, sigma)
        return (alpha * x0 + sigma * (1 - share) * eps) / a

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return −a σ/b²."""
        a, share = self._step(alpha, sigma)
        return -a / (share * sigma)

    def _step(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b²/σ² of the step that starts at a level, shape of alpha."""
        table: Tensor = self.__dict__["_table"].to(alpha.device)
        levels, logs = table[0], table[1:]
        r = sigma.double().log() - alpha.double().log()
        if len(levels) == 1:
            log_a, log_share = logs[:, 0, None].expand(2, r.numel()).reshape(2, *r.shape)
        else:
            right = torch.searchsorted(levels, r.contiguous()).clamp(1, len(levels) - 1)
            left = right - 1
            part = ((r - levels[left]) / (levels[right] - levels[left])).clamp(0, 1)
            log_a, log_share = torch.lerp(logs[:, left], logs[:, right], part)
        early = r < levels[0]
        a = torch.where(early, alpha.double(), log_a.exp())
        share = torch.where(early, 1.0, log_share.exp())
        return a.to(alpha.dtype), share.to(alpha.dtype)
