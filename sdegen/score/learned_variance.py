"""LearnedVariance: a network that tells, beside the mean of a reverse step, how wide it is.

    p(x_{k−1} | x_k) = N(μ_θ(x_k), Σ_θ(x_k)),     log Σ_θ = w log b_k² + (1 − w) log b̃_k²

between the two variances that a chain has anyway: b_k², that of the step that noises, and
b̃_k² = b_k² σ_{k−1}²/σ_k², that of the posterior of a point; of DDPM β_k and β̃_k. Both ends are
known beforehand; w, one number for each coordinate, is what is learned. It is the v of Nichol and
Dhariwal, and no velocity. The output o of the network is read as w = (1 + o)/2, as in their code:
a network that puts out zero is in the middle.

The best mean is the same whatever the variance, and best is then Var(x_{k−1} | x_k), which for
data of any law is b̃_k² and the variance of what is not known of x0: with few steps neither b_k²
nor b̃_k² is near it, and sampling in few steps and the bound of `elbo` gain by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from sdegen.core.requests import check_kind
from sdegen.core.shapes import State, Time
from sdegen.score.parameterization import EpsPrediction, Estimates, Parameterization


@dataclass(frozen=True)
class LearnedVariance(Parameterization):
    """The network puts out twice as many numbers: its prediction, and where Σ lies.

    Of events (c, …) it returns shape (batch, 2 c, …): first what `mean` reads, then o, with

        log Σ_θ = w log b² + (1 − w) log b̃²,     w = (1 + o)/2

    `MLP(…, variance=True)` and
    `UNet(…, variance=True)` are such networks; it is trained by `HybridLoss`, sampled by
    chain.reverse(model.score, "learned"), and `elbo` bounds the likelihood of that chain. All else
    that asks the model for a score, such as `ReverseSDE`, is given that of the first half.

    Args:
        mean: How the first half is read.

    Raises:
        TypeError: If mean is no parameterization.
        ValueError: If it has a second half itself.

    Reference:
        Nichol and Dhariwal 2021, eqs. (14)-(16), arXiv:2102.09672.

    Example:
        >>> network = sg.MLP(1, width=8, depth=1, variance=True, rng=0)
        >>> model = sg.ScoreModel(network, sg.VP(sg.ConstantBeta(2.0)), sg.LearnedVariance())
        >>> score, w = model.score.with_fraction(torch.tensor([[1.0]]), 0.5)
        >>> w.item()  # untrained, o = 0: log Σ is half-way between its bounds
        0.5
    """

    outputs: ClassVar[int] = 2

    mean: Parameterization = field(default_factory=EpsPrediction)

    def __post_init__(self) -> None:
        check_kind("mean", self.mean, Parameterization, "one such as EpsPrediction()")
        if self.mean.outputs != 1:
            raise ValueError(
                "mean must read one number for each, but is a LearnedVariance itself; pass what "
                "that one reads the mean by, mean=EpsPrediction()."
            )

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from the first half of an output."""
        return self.mean.decode(output, x_t, alpha, sigma)

    def eps(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return ε from the first half of an output."""
        return self.mean.eps(output, x_t, alpha, sigma)

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return the first half that stands for (x0, ε)."""
        return self.mean.target(x0, eps, alpha, sigma)

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ∂ε/∂output of the first half."""
        return self.mean.d_eps_d_output(alpha, sigma)

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the divisor of x_t of `mean`."""
        return self.mean.scale(alpha, sigma)

    def c_noise(self, t: Time, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the time as `mean` tells it."""
        return self.mean.c_noise(t, alpha, sigma)


def fraction_of(second: State) -> State:
    """Return w = (1 + o)/2 of the second half o of an output, same shape."""
    return 0.5 * (1 + second)
