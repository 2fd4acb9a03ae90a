"""Evidence lower bounds: what noising and denoising say of log p, without a divergence.

Noise a point x up to the prior, and ask at every level how well the model takes the noise back:

    log p(x) ≥ −(L_T + Σ_k L_{k−1} + L_0) = ELBO
    L_T      KL(q(x_N | x) ‖ p(x_N))                               what noise leaves of x
    L_{k−1}  E KL(q(x_{k−1} | x_k, x) ‖ p(x_{k−1} | x_k))          one step back, k = N … 2
    L_0      −E log p(x | x_1)                                     the last step, a density

`elbo` is that of a DDPM chain: p is the law of the chain that is really run, `AncestralChain`, and
every KL is one of two Gaussians. With ε the noise in x_k and C_k its standard deviation given x,
the two means differ by (b_k²/a_k)(score + ε/C_k).

`continuous_elbo` is its limit of fine steps, the bound for the reverse SDE from t_max to t_min,

    Σ_k L_{k−1}  →  ½ ∫ (g²/σ²) E‖σ score + ε‖² dt,      g²/σ² dt = d log(σ²/α²)

for whose steps the variances agree, whatever the score. At t_min the SDE ends and x has not been
reached: a last Gaussian step, the decoder, goes to Tweedie's mean (x_t + σ² score)/α with standard
deviation σ/α, exact where p is flat over that distance. So the bound is for x itself, at t = 0,
and nothing is left out; what a coarse decoder costs is in L_0.

**Which model.** That of a stochastic sampler. With a wrong score it is another law than that of
the probability flow, whose density `log_likelihood` finds; with the exact score all are one.

**Estimates.** Every expectation is a mean over fresh ε, and the times of the integral are
stratified in log σ/α. What the same draws would give for Gaussian data, less its mean, which is
known, is taken away as a control variate; on a mixture in the plane that made the error seven
times smaller. The result has a Monte-Carlo standard error, pooled over levels, and its expectation
is the bound: a single estimate may lie above log p.
"""

import math

import torch
from torch import Tensor

from sdegen.core.noise import Rng, Stream
from sdegen.core.requests import check_function
from sdegen.core.shapes import ScoreFn, State
from sdegen.diffusion import timesteps
from sdegen.diffusion.ddpm import AncestralChain
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.origin import check_origin
from sdegen.likelihood.bound_terms import EvidenceBound, LogProb, Points
from sdegen.likelihood.chain_terms import (
    given_the_start,
    last_step_std,
    noise_weight,
    positive_std,
)
from sdegen.likelihood.score_checks import check_forward


def elbo(
    chain: AncestralChain,
    x: State,
    *,
    samples: int = 2,
    decoder_std: float | None = None,
    prior_log_prob: LogProb | None = None,
    rng: Rng = None,
    differentiable: bool | None = None,
) -> EvidenceBound:
    """Estimate the evidence lower bound of a DDPM chain at its state k = 0, all N terms of it.

        −log p(x) ≤ L_N + Σ_{k ≥ 2} L_{k−1} + L_0
        L_{k−1} = KL(q(x_{k−1} | x_k, x) ‖ p(x_{k−1} | x_k))

    Args:
        chain: What is run: `chain.reverse(score)`, with any of the three variances.
        x: Points, shape (batch, *event), float32 or float64.
        samples: Draws of ε for each x and each k; one draw has no estimate of the error.
        decoder_std: Standard deviation of the last step, p(x | x_1); by default that of the chain,
            which a learned variance has too.
            Where the grid begins at t = 0, variance="posterior" ends without noise and has no
            density: give one. σ_1/α_1 is exact where p is flat.
        prior_log_prob: log p(x_N) in nats of float64 states, (batch, *event) to (batch,); by
            default that of N(0, prior_std² I).
        rng: Seed, generator or None.
        differentiable: Whether gradients flow from the bound to x and to what the score holds,
            such as a network's weights. If None, where x requires grad.

    Returns:
        The bound and its terms. On average over the law of x it is ≤ E log p(x).

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If x is not finite, or the last step has no noise.
        NonFiniteError: If the bound is not finite.

    Reference:
        Ho, Jain and Abbeel 2020, eqs. (5)-(8), arXiv:2006.11239; with a learned variance Nichol
        and Dhariwal 2021, eqs. (4)-(7), arXiv:2102.09672; Sohl-Dickstein et al. 2015, eqs.
        (13)-(14), arXiv:1503.03585.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> score = lambda x, t: -x  # of data N(0, 1)
        >>> chain = sg.DDPM.discretize(path, steps=50).reverse(score, "beta")
        >>> x = torch.special.ndtri((torch.arange(500.0) + 0.5) / 500)[:, None]
        >>> f"{sg.elbo(chain, x, rng=0).log_prob.mean():.2f}"  # E log p = −½ log 2πe = −1.42
        '-1.42'
    """
    if not isinstance(chain, AncestralChain):
        raise TypeError(
            "elbo takes the chain that walks back, chain.reverse(score), but was given a "
            f"{type(chain).__name__}; for an SDE take continuous_elbo(sde, score, x)."
        )
    points = Points(x, samples, rng, "elbo", differentiable)
    forward, learned = chain.chain, chain.variance == "learned"
    stds = forward.b.clone() if learned else chain.stds.clone()
    last_std = last_step_std(chain, decoder_std)
    stds[0] = stds[0] if last_std is None else last_std
    factor, spread = given_the_start(forward.a, forward.b)
    d, terms = points.dimensions, []
    for k in range(forward.steps):  # the step from k + 1 to k
        a, b, std, c = forward.a[k], forward.b[k], stds[k], spread[k + 1]
        t, source = forward.times[k + 1], points.streams.block(k)
        of_state, posterior = learned and (k > 0 or decoder_std is None), b * spread[k] / c
        if float(a) == 0:
            law = factor[k], c, posterior
            terms.append(points.first_step(chain, k, law, None if of_state else std, source))
            continue
        if of_state:
            terms.append(points.learned_step(chain, k, (factor[k + 1], c, posterior), source))
            continue
        square = points.squares(chain.score, t, factor[k + 1], c, source)
        if k == 0:
            constant = d * torch.log(2 * math.pi * std * std)
        else:
            ratio = (b * spread[k] / c / std) ** 2
            constant = d * (ratio - 1 - torch.log(ratio))
        terms.append(0.5 * constant + noise_weight(a, b, std, c) * square)
    last, alpha, sigma = points.streams.block(forward.steps), float(factor[-1]), float(spread[-1])
    prior = points.prior_terms(alpha, sigma, forward.prior_std, prior_log_prob, last)
    return points.bound(prior, terms[1:], terms[0])


def continuous_elbo(
    sde: GaussianPath,
    score: ScoreFn,
    x: State,
    *,
    strata: int = 64,
    samples: int = 2,
    decoder_std: float | None = None,
    prior_log_prob: LogProb | None = None,
    rng: Rng = None,
    differentiable: bool | None = None,
) -> EvidenceBound:
    """Estimate the evidence lower bound of the reverse SDE, and of a decoder from t_min to 0.

        −log p(x) ≤ KL(q(x_T | x) ‖ p_T) + ½ ∫ (g²/σ²) E‖σ score + ε‖² dt − E log N(x; x̂_0, s² I)

    Args:
        sde: The forward SDE, whose t_min and t_max are the ends.
        score: ∇ log p_t(x), learned or exact; asked with one time for each row.
        x: Points at t = 0, shape (batch, *event), float32 or float64.
        strata: Parts of equal length in log σ/α, in each of which times are drawn: importance
            sampling, since the integrand in that variable is bounded.
        samples: Draws of a time and an ε for each x and each stratum; one draw has no estimate of
            the error.
        decoder_std: s, the standard deviation of the decoder at t_min; by default σ/α at t_min.
        prior_log_prob: log p_T in nats of float64 states, (batch, *event) to (batch,); by default
            that of the SDE's prior.
        rng: Seed, generator or None.
        differentiable: Whether gradients flow from the bound to x and to what the score holds,
            such as a network's weights. If None, where x requires grad.

    Returns:
        The bound and its terms.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the SDE has no Gaussian kernel, or x is not finite.
        NonFiniteError: If the bound is not finite.

    Reference:
        Song, Durkan et al. 2021, theorem 3 and section 4 (decoder), arXiv:2101.09258; Kingma et
        al. 2021, eqs. (11) and (14), arXiv:2107.00630.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> x = torch.special.ndtri((torch.arange(500.0) + 0.5) / 500)[:, None]  # N(0, 1)
        >>> bound = sg.continuous_elbo(path, lambda x, t: -x, x, rng=0)
        >>> f"{bound.log_prob.mean():.2f}"  # E log p = −½ log 2πe = −1.42
        '-1.42'
    """
    check_forward(sde, "continuous_elbo")
    check_function("score", score, "a function (x, t) -> ∇ log p_t(x), such as model.score")
    check_origin(score, sde)
    points = Points(x, samples, rng, "continuous elbo", differentiable)
    nodes = timesteps.log_snr(sde, strata).flip(0)
    x, streams, d = points.x, points.streams, points.dimensions

    def squares(t: Tensor, source: Stream) -> Tensor:
        return points.squares(score, t, sde.alpha(t), sde.sigma(t), source)

    terms = []
    for i in range(strata):
        source, length = streams.block(i), nodes[i + 1] - nodes[i]
        u = torch.rand(samples * len(x), generator=source.generator(), dtype=torch.float64)
        # the time that the score is told, in its own precision, is the time that is meant
        t = (nodes[i] + length * u).to(x.device, x.dtype).to(torch.float64)
        weight = 0.5 * length * sde.diffusion_rate(t).square() / sde.sigma(t).square()
        terms.append(weight * squares(t, source))
    spread = float(sde.sigma(nodes[0]) / sde.alpha(nodes[0]))
    s = spread if decoder_std is None else positive_std(decoder_std)
    off = squares(nodes[0], streams.block(strata))
    reconstruction = 0.5 * ((spread / s) ** 2 * off + d * math.log(2 * math.pi * s * s))
    alpha, sigma = float(sde.alpha(nodes[-1])), float(sde.sigma(nodes[-1]))
    last = streams.block(strata + 1)
    prior = points.prior_terms(alpha, sigma, sde.prior_std, prior_log_prob, last)
    return points.bound(prior, terms, reconstruction)
