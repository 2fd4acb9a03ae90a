"""Weights: what an error of ε at each noise level counts, all of them from one place.

    L = (1/Z) ∫ w(t) E ‖ε̂(x_t, t) − ε‖²/d dt,        Z = ∫ w(t) dt

In the words of the field, with SNR = α²/σ² and λ = log SNR:

    "simple"         w = 1                        Ho et al.'s L_simple
    "likelihood"     w = g²/σ²                    ∫ g² ‖ŝ − s‖² dt, the error of the score in g
    "variational"    w = −½ dλ/dt                 the negative ELBO, in nats: d Z L
    "min-snr"        w = min(1, γ/SNR), γ = 5     Hang et al., min(SNR, γ) on the error of x0
    "edm"            w = N(log σ/α; −1.2, 1.2²) · d log(σ/α)/dt, the error counted in the output
    "flow-matching"  w = 1, the error counted in the output: of `VPrediction` the loss of v

For every Gaussian path g²/σ² = d log(σ²/α²)/dt = −dλ/dt. So "variational" is half of
"likelihood": they are one loss, up to the factor that Z takes out. Only the chain of a DDPM parts
them. There the sums over k = 1 … N have, with b_k² the variance that step k adds,

    "likelihood"     w_k = b_k²/σ_k²
    "variational"    w_k = b_k²/(2 a_k² σ_{k−1}²) = ½ (SNR_{k−1}/SNR_k − 1)

the second being KL(q(x_{k−1} | x_k, x0) ‖ p(x_{k−1} | x_k)) with the variance of the posterior; at
k = 1, where σ_0 = 0, −log p(x_0 | x_1) less a constant with the variance b_1²: w_1 = 1/(2 a_1²).

An error of ε is α/σ times one of x0 and α/√(α² + σ²) times one of v. Weights of these in the
papers, such as min(SNR, γ) of x0 or min(SNR, γ)/(SNR + 1) of v for min-SNR, are w by that.

For kernels of matrices the likelihood's error is that of the score in G, ‖Gᵀ L⁻ᵀ (ε̂ − ε)‖², of
which w(t) = tr(L⁻¹ G Gᵀ L⁻ᵀ)/d is the mean over directions: no number weighs the error, and a
vector does.

Reference:
    Ho et al. 2020, eqs. (12) and (14), arXiv:2006.11239; Song, Durkan et al. 2021, theorem 1,
    arXiv:2101.09258; Kingma et al. 2021, eqs. (14) and (17), arXiv:2107.00630; Hang et al. 2023,
    section 3.4, arXiv:2303.09556; Karras et al. 2022, table 1, arXiv:2206.00364; Lipman et al.
    2023, eq. (23), arXiv:2210.02747.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.channels import transposed_times
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.config import Weighting

WeightFn = Callable[[Tensor], Tensor]  # w(t) of times, float64, shape (n,)

EDM_MEAN, EDM_STD = -1.2, 1.2  # P_mean and P_std of Karras et al.
IN_OUTPUT = ("flow-matching", "edm")
SCORE_WORDS = ("likelihood", "variational")
_GAMMA = 5.0  # of min-SNR
_PROBES = 8  # ±1 vectors by which a trace is estimated


def path_weight(sde: GaussianPath, weighting: Weighting | WeightFn) -> WeightFn:
    """Return w(t) of a Gaussian path, as the table above has it; float64, on the CPU.

    Args:
        sde: The path.
        weighting: A word, or w(t) itself.
    """
    if not isinstance(weighting, str):
        return checked(weighting)

    def w(t: Tensor) -> Tensor:
        if weighting in ("simple", "flow-matching"):
            return torch.ones_like(t)
        alpha, sigma = sde.alpha(t).double(), sde.sigma(t).double()
        if weighting == "min-snr":
            return _min_snr(alpha, sigma)
        rate = (sde.diffusion_rate(t).double() / sigma).square()
        if weighting == "likelihood":
            return rate
        if weighting == "variational":
            return 0.5 * rate
        deviations = ((sigma / alpha).log() - EDM_MEAN) / EDM_STD
        return 0.5 * rate * torch.exp(-0.5 * deviations.square())

    return w


def chain_weights(
    chain: DDPM, alphas: Tensor, weighting: Weighting | WeightFn | Literal["log-snr"]
) -> Tensor:
    """Return w_1 … w_N of the steps of a chain; float64, shape (N,).

    Args:
        chain: The chain.
        alphas: α_1 … α_N.
        weighting: A word, or w(t), which is asked at the continuous times of k = 1 … N.

    Raises:
        ValueError: If the word is that of a method that has no chain.
    """
    if not isinstance(weighting, str):
        return checked(weighting)(chain.times[1:])
    added, sigmas = chain.b.square(), chain.sigmas
    if weighting in ("simple", "flow-matching"):
        return torch.ones_like(added)
    if weighting == "min-snr":
        return _min_snr(alphas, sigmas[1:])
    if weighting in ("likelihood", "log-snr"):
        return added / sigmas[1:].square()
    if weighting == "variational":
        # the step that ends at the data is a decoder of variance b_1²
        spread = torch.where(sigmas[:-1] > 0, sigmas[:-1], chain.b)
        return 0.5 * added / (chain.a * spread).square()
    raise ValueError(
        f"weighting = {weighting!r} is a loss in continuous time, which the steps of a chain do "
        "not have; leave steps out, or take 'simple', 'variational', 'likelihood', 'min-snr' or "
        "'flow-matching'."
    )


def checked(given: WeightFn, name: str = "weighting", *, positive: bool = False) -> WeightFn:
    """Return a weight or density of the user's own, which refuses what is none where it is asked.

    Args:
        given: A function of times, shape (n,), float64.
        name: What its user calls it.
        positive: Whether it must be positive everywhere.

    Raises:
        TypeError: If it returns no tensor.
        ValueError: If it returns another shape, or what is negative or not finite.
    """

    def w(t: Tensor) -> Tensor:
        value = given(t)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}(t) must return a tensor of t's shape, but returned "
                f"{type(value).__name__}; a constant is torch.ones_like(t)."
            )
        if value.shape != t.shape:
            raise ValueError(
                f"{name}(t) must return one number for each time, shape {tuple(t.shape)}, but "
                f"returned {tuple(value.shape)}."
            )
        value = value.detach().double().cpu()
        bad = ~((value > 0) if positive else (value >= 0)) | ~value.isfinite()
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            bound = "> 0" if positive else "≥ 0"
            raise ValueError(
                f"{name}(t) must be finite and {bound}, but is {float(value[i]):g} at "
                f"t = {float(t[i]):.6g}."
            )
        return value

    return w


def noise_of_error(sde: SDE, like: State, error: State, t: Tensor) -> State:
    """Return Gᵀ L⁻ᵀ e, the error of the score in what noise drives; shape (batch, m).

    Args:
        sde: A process with a Gaussian kernel.
        like: States at which G is asked, whose noise is additive, shape (batch, *event).
        error: e = ε̂ − ε, same shape.
        t: Shape (batch,).
    """
    kernel = sde.noise_kernel
    assert kernel is not None
    score = kernel.pull_back(error, t)
    g = sde.diffusion(like, t)
    if sde.channels is not None:
        return transposed_times(g.to(score), score)
    return (g * score).flatten(1)


def trace_weight(sde: SDE, like: State) -> WeightFn:
    """Return w(t) = tr(L⁻¹ G Gᵀ L⁻ᵀ)/d of a Gaussian kernel, by fixed directions of ±1.

    It is exact where L and G are diagonal in the coordinates; else an estimate, which is enough
    for a density of times, since the ratio of weight and density is exact whatever it is.

    Args:
        sde: The process.
        like: A state, shape (1, *event).
    """
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand((_PROBES, *like.shape[1:]), generator=generator, dtype=torch.float64)
    probes = torch.where(draws < 0.5, -1.0, 1.0).double()

    def w(t: Tensor) -> Tensor:
        rows = probes.repeat(len(t), *[1] * (probes.ndim - 1))
        error = noise_of_error(sde, rows, rows, t.repeat_interleave(_PROBES))
        squares = error.square().flatten(1).sum(1) / like[0].numel()
        return squares.reshape(len(t), _PROBES).mean(1)

    return w


def _min_snr(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return min(SNR, γ)/SNR = min(1, γ σ²/α²), shape of α."""
    return (_GAMMA * (sigma / alpha).square()).clamp(max=1.0)
