"""The bound by random times: one (t, ε) for each point, as in training.

    continuous   ½ ∫ (g²/σ²) E‖σ score + ε‖² dt            = E_t [½ (g²/σ²)/q(t) ‖σ score + ε‖²]
    T steps      Σ_k ½ (SNR_{k−1}/SNR_k − 1) E‖σ score + ε‖² = T E_k […]

beside the terms of the prior and of the decoder, as `continuous_elbo` has them. That one spreads
its times over all strata of every point and takes away a control variate: it is how a number is
found. This one is how a training sees the bound, and what it tells is the variance of that, which
depends on the clock of the path: see `sdegen.variational.schedule`.

Reference:
    Kingma et al. 2021, eqs. (13), (14) and (17), arXiv:2107.00630.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count, check_flag, check_word
from sdegen.core.noise import Rng
from sdegen.core.requests import check_function
from sdegen.core.shapes import ScoreFn, State
from sdegen.diffusion import timesteps
from sdegen.diffusion.chain_steps import posterior_stds
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.origin import check_origin
from sdegen.likelihood.bound_terms import LowerBound, Points
from sdegen.likelihood.chain_terms import noise_weight, positive_std
from sdegen.likelihood.score_checks import check_forward
from sdegen.score.losses.times import TimeSampler
from sdegen.training.loss import BatchNoise
from sdegen.variational.schedule import noise_errors

Clock = Literal["uniform", "log-snr"]


@dataclass(frozen=True)
class TimedBound(LowerBound):
    """A lower bound for log p(x) by random times, in nats.

        log p(x) ≥ log_prob = −(prior + diffusion + reconstruction)

    Attributes:
        log_prob: The bound, shape (batch,), float64.
        standard_error: Of log_prob over the draws, shape (batch,); infinite for samples=1.
        prior: KL of what noise leaves of x to the prior, shape (batch,).
        diffusion: The integral or sum, shape (batch,).
        reconstruction: −E log p(x | x_{t_min}), shape (batch,).
        estimates: Mean of `diffusion` over the points, of each draw, shape (samples,): what one
            step of a training would see of it.
        dimensions: Numbers in one x.
        nfe: Evaluations of the score for each x.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> path, x = sg.VP(sg.ConstantBeta(20.0)), torch.ones(1, 1)
        >>> bound = sg.timed_bound(path, lambda x, t: -x, x, samples=64, rng=0)
        >>> parts = bound.prior + bound.diffusion + bound.reconstruction
        >>> abs((bound.log_prob + parts).item()) < 1e-12
        True
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    prior: Float[Tensor, " batch"]
    diffusion: Float[Tensor, " batch"]
    reconstruction: Float[Tensor, " batch"]
    estimates: Float[Tensor, " samples"]
    dimensions: int
    nfe: int
    seed: int

    @property
    def variance(self) -> float:
        """Variance of the mean over the points that one draw gives, in nats²."""
        return float(self.estimates.var())


def timed_bound(
    sde: GaussianPath,
    score: ScoreFn,
    x: State,
    *,
    times: Clock = "uniform",
    stratified: bool = True,
    steps: int | None = None,
    samples: int = 64,
    decoder_std: float | None = None,
    rng: Rng = None,
) -> TimedBound:
    """Estimate the evidence lower bound by one random time for each point and draw.

        log p(x) ≥ −prior − reconstruction − ½ ∫ (g²/σ²) E‖σ score + ε‖² dt

    Args:
        sde: The forward SDE, whose t_min and t_max are the ends; `LearnedSchedule.path()` is one.
        score: ∇ log p_t(x), learned or exact; asked with one time for each row.
        x: Points at t = 0, shape (batch, *event), float32 or float64.
        times: Drawn uniformly in t, or in log SNR, which is importance sampling; of a chain, what
            its steps are equal in.
        stratified: Whether the points of a draw have one time in each n-th of the distribution;
            otherwise they are independent.
        steps: T, for the bound of a chain of so many steps with the posterior's variances; None
            for its limit, the integral.
        samples: Draws of a time and an ε for each point.
        decoder_std: Standard deviation of the decoder at t_min; by default σ/α there.
        rng: Seed, generator or None.

    Returns:
        The bound, its terms, and the variance of a draw.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the SDE has no Gaussian kernel, or x is not finite.
        NonFiniteError: If the bound is not finite.

    Example:
        >>> path, x = sg.VP(sg.ConstantBeta(20.0)), torch.ones(1, 1)
        >>> bound = sg.timed_bound(path, lambda x, t: -x, x, samples=2000, rng=0)  # of N(0, 1)
        >>> away = bound.log_prob - torch.distributions.Normal(0, 1).log_prob(x).sum()
        >>> bool(away.abs() < 4 * bound.standard_error)
        True
    """
    check_forward(sde, "timed_bound")
    check_function("score", score, "a function (x, t) -> ∇ log p_t(x), such as model.score")
    check_origin(score, sde)
    check_word("times", times, get_args(Clock))
    check_flag("stratified", stratified)
    points = Points(x, samples, rng, "timed bound", differentiable=False)
    x, d, batch = points.x, points.dimensions, len(points.x)
    draws = [_draw(points, i, stratified=stratified) for i in range(samples)]
    u, eps = (torch.cat(each) for each in zip(*draws, strict=True))
    t, weight = _continuous(sde, times, u) if steps is None else _discrete(sde, times, u, steps)
    with torch.no_grad():
        rows = x.repeat(samples, *[1] * (x.ndim - 1))
        square = noise_errors(sde, score, rows, eps, t.to(x.device))
    diffusion = (weight.to(square) * square).reshape(samples, batch)
    low, high = (torch.tensor(one, dtype=torch.float64) for one in (sde.t_min, sde.t_max))
    alpha, sigma = sde.alpha(low), sde.sigma(low)
    s = float(sigma / alpha) if decoder_std is None else positive_std(decoder_std)
    off = points.squares(score, low, alpha, sigma, points.streams.block(samples))
    last = 0.5 * ((float(sigma / alpha) / s) ** 2 * off + d * math.log(2 * math.pi * s * s))
    source = points.streams.block(samples + 1)
    ends = float(sde.alpha(high)), float(sde.sigma(high))
    prior = points.prior_terms(*ends, sde.prior_std, None, source).reshape(samples, batch)
    return _result(points, prior, diffusion, last.reshape(samples, batch))


def _draw(points: Points, i: int, *, stratified: bool) -> tuple[Tensor, Tensor]:
    """Return quantiles of times, shape (batch,), and noise of one draw of the points."""
    noise = BatchNoise(points.streams.block(i), len(points.x))
    u = noise.stratified()[noise.permutation()] if stratified else noise.uniform().double()
    return u, noise.normal_like(points.x)


def _continuous(sde: GaussianPath, times: Clock, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return times of quantiles, and ½ (g²/σ²)/q there; shapes of u."""
    sampler = TimeSampler(sde, "likelihood", times)
    t = sampler.quantile(u)
    ratio = sampler.ratio(u, t)
    return t, 0.5 * sampler.total * (torch.ones_like(u) if ratio is None else ratio)


def _discrete(sde: GaussianPath, times: Clock, u: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return times of steps of a chain, and T times what ‖ε − ε̂‖² counts there."""
    check_count("steps", steps)
    if times == "uniform":
        grid = torch.linspace(sde.t_min, sde.t_max, steps + 1, dtype=torch.float64)
    else:
        grid = timesteps.log_snr(sde, steps).flip(0)
    chain = DDPM.discretize(sde, times=grid)
    weights = noise_weight(
        chain.a, chain.b, posterior_stds(chain.b, chain.sigmas), chain.sigmas[1:]
    )
    k = (u * steps).floor().clamp(0, steps - 1).long()
    return chain.times[k + 1], steps * weights[k]


def _result(
    points: Points, prior: Tensor, diffusion: Tensor, reconstruction: Tensor
) -> TimedBound:
    """Return means over the draws, with the error of their sum."""
    samples, total = points.samples, diffusion + reconstruction
    error = torch.full_like(total[0], torch.inf)
    if samples > 1:
        error = total.std(0) / math.sqrt(samples)
    return TimedBound(
        -(prior + total).mean(0),
        error,
        prior.mean(0),
        diffusion.mean(0),
        reconstruction.mean(0),
        diffusion.mean(1),
        points.dimensions,
        2 * samples,
        points.seed,
    ).checked()
