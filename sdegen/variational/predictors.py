"""Three predictors, one loss: mean, x0 and ε in the bound of a chain.

    L_{k−1} = ‖μ − μ̂‖²/(2 s_k²) + c_k = ω_k ‖x0 − x̂0‖² + c_k = ω′_k ‖ε − ε̂‖² + c_k

    ω_k  = (A_{k−1} b_k²/C_k²)²/(2 s_k²)
    ω′_k = (b_k²/(a_k C_k))²/(2 s_k²) = ω_k C_k²/A_k²

with x_k = A_k x0 + C_k ε. Where s_k is the posterior's, ω_k = ½ (SNR_{k−1} − SNR_k), SNR = A²/C².
c_k is what the variances alone cost. Any parameterization has such a weight: an error of the
output o is one of ε, times ∂ε/∂o, so that it weighs ω′_k (∂ε/∂o)². One network may be read in each
way and gives one bound; what differs is the size of what it has to put out, and what plain least
squares, with all weights 1, dwells on.

Reference:
    Luo 2022, Understanding Diffusion Models, eqs. (99), (115) and (130), arXiv:2208.11970; Ho,
    Jain and Abbeel 2020, eqs. (8) and (12), arXiv:2006.11239; Kingma et al. 2021, eq. (13),
    arXiv:2107.00630.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_int
from sdegen.core.requests import check_kind, check_state
from sdegen.core.shapes import State, expand
from sdegen.diffusion.ddpm import AncestralChain
from sdegen.likelihood.chain_terms import given_the_start, last_step_std, noise_weight
from sdegen.score.parameterization import EpsPrediction, Parameterization, X0Prediction


@dataclass(frozen=True)
class PredictorTerms:
    """What an error of one step costs, read three ways, in nats.

        ‖μ − μ̂‖²/(2 s²) = ω ‖x0 − x̂0‖² = ω′ ‖ε − ε̂‖²

    Attributes:
        mean: ‖μ − μ̂‖²/(2 s²), shape (batch,), float64.
        x0: ω ‖x0 − x̂0‖².
        eps: ω′ ‖ε − ε̂‖².
        mean_weight: 1/(2 s²).
        x0_weight: ω.
        eps_weight: ω′.

    Example:
        >>> chain = sg.DDPM([0.1, 0.2, 0.3]).reverse(lambda x, t: -x, "beta")
        >>> terms = sg.variational.predictor_terms(chain, torch.ones(1, 1), torch.ones(1, 1), k=2)
        >>> f"{terms.mean.item():.4f} {terms.x0.item():.4f} {terms.eps.item():.4f}"
        '0.0328 0.0328 0.0328'
    """

    mean: Float[Tensor, " batch"]
    x0: Float[Tensor, " batch"]
    eps: Float[Tensor, " batch"]
    mean_weight: float
    x0_weight: float
    eps_weight: float


def predictor_weights(
    chain: AncestralChain,
    parameterization: Parameterization,
    *,
    decoder_std: float | None = None,
) -> Float[Tensor, " steps"]:
    """Return what the squared error of a network's output counts in the bound, k = 1 … N.

    Args:
        chain: The chain that walks back, with a variance that does not depend on x.
        parameterization: How the output is read.
        decoder_std: Standard deviation of the last step, as `elbo` has it.

    Returns:
        ω_k at index k − 1 in nats, shape (N,), float64.

    Raises:
        TypeError: If one of them is of another kind.
        ValueError: If the variance is learned, or the last step has no noise.

    Example:
        >>> chain = sg.DDPM([0.1, 0.2, 0.3]).reverse(lambda x, t: -x, "beta")
        >>> sg.variational.predictor_weights(chain, sg.X0Prediction())[1:]
        tensor([1.1480, 0.4390], dtype=torch.float64)
    """
    _check_chain(chain)
    check_kind("parameterization", parameterization, Parameterization, "such as X0Prediction()")
    forward = chain.chain
    factor, spread = given_the_start(forward.a, forward.b)
    stds = _stds(chain, decoder_std)
    slope = parameterization.d_eps_d_output(factor[1:], spread[1:])
    return noise_weight(forward.a, forward.b, stds, spread[1:]) * slope.square()


def predictor_terms(
    chain: AncestralChain,
    x0: State,
    eps: Tensor,
    k: int,
    *,
    decoder_std: float | None = None,
) -> PredictorTerms:
    """Return L_{k−1} less c_k of given noise, by mean, x0 and ε, from one call of the score.

        ‖μ − μ̂‖²/(2 s²) = ω ‖x0 − x̂0‖² = ω′ ‖ε − ε̂‖²

    Args:
        chain: The chain that walks back, with a variance that does not depend on x.
        x0: Points, shape (batch, *event).
        eps: Their noise, same shape: x_k = A_k x0 + C_k ε.
        k: The step, 1 … N.
        decoder_std: Standard deviation of the last step, k = 1, as `elbo` has it.

    Returns:
        The three, which agree to rounding, and their weights.

    Raises:
        TypeError: If one of them is of another kind.
        ValueError: If k is no step, shapes differ, the variance is learned, or the last step has
            no noise.

    Example:
        >>> chain = sg.DDPM([0.1, 0.2, 0.3]).reverse(lambda x, t: -x, "beta")
        >>> terms = sg.variational.predictor_terms(chain, torch.ones(1, 1), torch.ones(1, 1), k=2)
        >>> f"{terms.eps_weight / terms.x0_weight:.4f}"  # σ²/α² = 0.28/0.72
        '0.3889'
    """
    _check_chain(chain)
    x0, eps = check_state(x0, name="x0").double(), check_state(eps, name="eps").double()
    if x0.shape != eps.shape:
        raise ValueError(
            f"eps must have x0's shape {tuple(x0.shape)}, but has {tuple(eps.shape)}."
        )
    forward = chain.chain
    if not 1 <= check_int("k", k) <= forward.steps:
        raise ValueError(f"k must be a step of the chain, 1 … {forward.steps}, but is {k}.")
    factor, spread = given_the_start(forward.a, forward.b)
    a, b, std = forward.a[k - 1], forward.b[k - 1], _stds(chain, decoder_std)[k - 1]
    before, now = (factor[k - 1], spread[k - 1]), (factor[k], spread[k])
    x_k = expand(now[0], x0) * x0 + now[1] * eps
    with torch.no_grad():
        mean = x_k - chain.drift(x_k, torch.tensor(k))
    # the noise that this mean stands for, and the x0
    predicted_eps = (x_k - a * mean) * now[1] / (b * b)
    predicted_x0 = EpsPrediction().decode(predicted_eps, x_k, *now)[0]
    wanted = (before[0] * b * b * x0 + a * before[1] ** 2 * x_k) / now[1] ** 2
    weights = [1 / (2 * std**2)]
    for how in (X0Prediction(), EpsPrediction()):
        weights.append(noise_weight(a, b, std, now[1]) * how.d_eps_d_output(*now) ** 2)
    errors = (wanted - mean, x0 - predicted_x0, eps - predicted_eps)
    terms = [
        weight * error.square().flatten(1).sum(1)
        for weight, error in zip(weights, errors, strict=True)
    ]
    mean_weight, x0_weight, eps_weight = (float(weight) for weight in weights)
    return PredictorTerms(terms[0], terms[1], terms[2], mean_weight, x0_weight, eps_weight)


def _check_chain(chain: object) -> None:
    """Refuse what is no chain with known variances."""
    check_kind("chain", chain, AncestralChain, "the chain that walks back, chain.reverse(score)")
    if isinstance(chain, AncestralChain) and chain.variance == "learned":
        raise ValueError(
            "a variance that is learned depends on x, and an error has no one weight; take "
            "chain.reverse(score, 'posterior') or 'beta'."
        )
    if isinstance(chain, AncestralChain) and not float(chain.chain.a.min()) > 0:
        raise ValueError(
            "the last level of this chain has no signal, α = 0, where an error of ε is none of "
            "x0; take a chain whose last level has some."
        )


def _stds(chain: AncestralChain, decoder_std: float | None) -> Tensor:
    """Return s_1 … s_N, the first as a density has it."""
    stds, last = chain.stds.clone(), last_step_std(chain, decoder_std)
    stds[0] = stds[0] if last is None else last
    return stds
