"""The terms of a chain's bound that are known before a state is drawn.

    x_k | x_0 ~ N(A_k x_0, C_k² I)
    L_{k−1} = ½ (b_k²/(a_k s_k C_k))² E‖ε − ε̂‖² + ½ d (r² − 1 − log r²)
    r = b_k C_{k−1}/(C_k s_k)

of a chain x_k = a_k x_{k−1} + b_k z that walks back with standard deviations s_k, where ε̂ =
−C_k score is the noise that the score stands for.

Reference:
    Ho, Jain and Abbeel 2020, eqs. (6)-(8) and (12), arXiv:2006.11239.
"""

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.diffusion.ddpm import AncestralChain


def noise_weight(a: Tensor, b: Tensor, std: Tensor, spread: Tensor) -> Tensor:
    """Return ½ (b²/(a s C))²: what ‖ε − ε̂‖² of a step counts in its divergence, in nats.

    Args:
        a: a_k of the steps.
        b: b_k.
        std: s_k.
        spread: C_k, the standard deviation of x_k given x_0.
    """
    return 0.5 * (b * b / a / std / spread) ** 2


def last_step_std(chain: AncestralChain, decoder_std: float | None) -> float | None:
    """Return the standard deviation of p(x_0 | x_1) as a density.

    Sampling ends in the mean of it; its density has the chain's variance.

    Args:
        chain: The chain.
        decoder_std: Another one, or None.

    Returns:
        The number; None where the chain has learned it and it depends on x.

    Raises:
        ValueError: If it is not > 0.
    """
    if decoder_std is not None:
        return positive_std(decoder_std)
    if chain.variance == "learned":
        return None
    if not chain.decoder_std > 0:
        forward = chain.chain
        raise ValueError(
            "the last step of this chain, from k = 1 to 0, has no noise and therefore no density: "
            f"pass decoder_std={float(forward.sigmas[1] / forward.a[0]):.3g} (σ_1/α_1), "
            "variance='beta', or a grid that begins at t_min > 0, times=timesteps.log_snr(sde, N)."
        )
    return chain.decoder_std


def given_the_start(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return A_k and C_k of x_k | x_0 ~ N(A_k x_0, C_k² I), k = 0 … N, by recursion."""
    variances = [a.new_zeros(())]
    for a_k, b_k in zip(a, b, strict=True):
        variances.append(a_k * a_k * variances[-1] + b_k * b_k)
    return torch.cat([a.new_ones(1), a.cumprod(0)]), torch.stack(variances).sqrt()


def positive_std(decoder_std: float) -> float:
    """Return a standard deviation; raises if it is not > 0."""
    check_positive("decoder_std", decoder_std)
    return float(decoder_std)
