"""Terms of evidence lower bounds: points, draws of ε for each, and what comes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen import metrics
from sdegen.core.checks import check_count
from sdegen.core.errors import NonFiniteError
from sdegen.core.noise import Rng, Stream, Streams, normal_like, seed_of
from sdegen.core.requests import check_state, first_true
from sdegen.core.shapes import ScoreFn, State, expand
from sdegen.core.shown import Labelled
from sdegen.diffusion.ddpm import AncestralChain
from sdegen.likelihood.score_checks import keeps_graph

LogProb = Callable[[State], Tensor]


class LowerBound(Labelled):
    """A lower bound of log p, in nats, of points of some numbers each."""

    log_prob: Float[Tensor, " batch"]
    dimensions: int

    def bits_per_dim(self, bin_width: float = 1.0) -> Float[Tensor, " batch"]:
        """Return −log_prob/(d ln 2) − log₂ w: an upper bound, shape (batch,).

        Args:
            bin_width: Width w of one integer value in the units of x, for dequantised integers.
        """
        return metrics.bits_per_dim(self.log_prob, self.dimensions, bin_width=bin_width)

    def checked(self) -> Self:
        """Return the bound, or refuse one that is not finite.

        Raises:
            NonFiniteError: With the first point of which it is not; `.result` is the bound.
        """
        log_prob = self.log_prob.detach()
        lost = ~log_prob.isfinite()
        if (i := first_true(lost)) is not None:
            raise NonFiniteError(
                f"the bound is not finite for {int(lost.sum())} of {len(lost)} points; the first "
                f"is row {i}, where it is {float(log_prob[i]):g}.",
                self,
            )
        return self


@dataclass(frozen=True)
class EvidenceBound(LowerBound):
    """A lower bound for log p(x), term by term, in nats.

        log p(x) ≥ log_prob = −(prior + Σ_k diffusion_k + reconstruction)

    Attributes:
        log_prob: The bound, −(prior + Σ diffusion + reconstruction), shape (batch,), float64.
        standard_error: Of log_prob over the draws, shape (batch,); infinite for samples=1.
        prior: L_T, shape (batch,).
        diffusion: L_{k−1} at index k − 2, k = 2 … N, shape (batch, N − 1); of the continuous bound
            the integral over each stratum of log σ/α, little noise first, shape (batch, strata).
        reconstruction: L_0, shape (batch,).
        dimensions: Numbers in one x.
        nfe: Evaluations of the score for each x.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> score = lambda x, t: -x  # of data N(0, 1)
        >>> chain = sg.DDPM.discretize(path, steps=50).reverse(score, "beta")
        >>> bound = sg.elbo(chain, torch.ones(1, 1), rng=0)
        >>> total = bound.prior + bound.diffusion.sum(1) + bound.reconstruction
        >>> abs((bound.log_prob + total).item()) < 1e-12
        True
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    prior: Float[Tensor, " batch"]
    diffusion: Float[Tensor, "batch _terms"]
    reconstruction: Float[Tensor, " batch"]
    dimensions: int
    nfe: int
    seed: int


class Points:
    """The points of a bound, `samples` draws of ε for each, and the terms that they make.

    A term has one number for each draw of each point, shape (samples · batch,).
    """

    def __init__(
        self, x: State, samples: int, rng: Rng, purpose: str, differentiable: bool | None
    ) -> None:
        self.x: Tensor = check_state(x, name="x")
        check_count("samples", samples)
        self.samples: int = samples
        self.dimensions: int = self.x[0].numel()
        self.seed: int = seed_of(rng)
        self.streams: Streams = Streams(self.seed, purpose)
        self.graph: bool = keeps_graph(differentiable, self.x)
        self.exact: Tensor = (self.x if self.graph else self.x.detach()).to(torch.float64)

    def squares(
        self, score: ScoreFn, t: Tensor, alpha: Tensor, sigma: Tensor, source: Stream
    ) -> Tensor:
        """Return ‖σ score(α x0 + σ ε) + ε‖², ε drawn for each row and sample.

        The score of N(0, v² I) would have α (α v² ε − σ x0)/(α² v² + σ²) there. The square of
        that, less its mean, is taken away: a control variate, with which unit Gaussian data show
        no error.
        """
        with nullcontext() if self.graph else torch.no_grad():
            rows, eps = _draws(self.exact, self.samples, source)
            alpha, sigma = expand(alpha, rows), expand(sigma, rows)
            state = (alpha * rows + sigma * eps).to(self.x.dtype)
            predicted = score(state, t.to(self.x.dtype) if t.ndim else t)
            if predicted.shape != state.shape:
                raise ValueError(
                    f"score must return x's shape {tuple(state.shape)}, but returned "
                    f"{tuple(predicted.shape)} at times of shape {tuple(t.shape)}."
                )
            control = self._control(rows, eps, alpha, sigma)
            residual = (sigma * predicted.to(torch.float64) + eps).square()
            return (residual - control).flatten(1).sum(1)

    def learned_step(
        self, chain: AncestralChain, k: int, law: tuple[Tensor, Tensor, Tensor], source: Stream
    ) -> Tensor:
        """Return L_k of a step from k + 1 to k whose variance depends on the state.

        Σ_i ½ (log Σ_i/b̃² + (b̃² + m_i²)/Σ_i − 1), m the difference of the means; at k = 0, where
        b̃ = 0, −log p(x_0 | x_1). The control variate is that of `squares` with b² for Σ.

        Args:
            chain: The chain.
            k: Where the step ends.
            law: A and C of x_{k+1} | x_0, and the standard deviation b̃ of the posterior.
            source: What ε is drawn from.
        """
        factor, spread, posterior = law
        a, b = chain.chain.a[k], chain.chain.b[k]
        at = torch.tensor(k + 1)
        with nullcontext() if self.graph else torch.no_grad():
            rows, eps = _draws(self.exact, self.samples, source)
            state = (factor * rows + spread * eps).to(self.x.dtype)
            score, std = (each.to(torch.float64) for each in chain.score_and_std(state, at))
            scale = b * b / a / spread
            change = (scale * (spread * score + eps) / std).square()
            known = change - (scale / b) ** 2 * self._control(rows, eps, factor, spread)
            return 0.5 * (_constant(k, std, posterior) + known).flatten(1).sum(1)

    def first_step(
        self,
        chain: AncestralChain,
        k: int,
        law: tuple[Tensor, Tensor, Tensor],
        std: Tensor | None,
        source: Stream,
    ) -> Tensor:
        """Return L_k of a step from noise alone, in which no signal is left: a_{k+1} = 0.

        The posterior's mean is A_k x, that of the chain α_k x̂0: the noise tells neither.

        Args:
            chain: The chain.
            k: Where the step ends.
            law: A_k of x_k | x_0, C_{k+1}, and the standard deviation b̃ of the posterior.
            std: That of the step; None asks the chain.
            source: What ε is drawn from.
        """
        factor, spread, posterior = law
        at = torch.tensor(k + 1)
        with nullcontext() if self.graph else torch.no_grad():
            rows, eps = _draws(self.exact, self.samples, source)
            state = (spread * eps).to(self.x.dtype)
            mean = (state - chain.drift(state, at)).to(torch.float64)
            std = chain.step_std(state, at).to(torch.float64) if std is None else std
            change = ((factor * rows - mean) / std).square()
            return 0.5 * (_constant(k, std, posterior) + change).flatten(1).sum(1)

    def _control(self, rows: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the square that N(0, v² I) would have, less its mean, shape of the rows."""
        square = self.exact.square().mean()
        scale = alpha / (alpha**2 * square + sigma**2)
        control = (scale * (alpha * square * eps - sigma * rows)).square()
        return control - scale**2 * ((alpha * square) ** 2 + sigma**2 * rows.square())

    def prior_terms(
        self,
        factor: float,
        spread: float,
        prior_std: float,
        prior_log_prob: LogProb | None,
        source: Stream,
    ) -> Tensor:
        """Return KL(N(factor x, spread² I) ‖ p_T), exact or of one draw each."""
        d = self.dimensions
        if prior_log_prob is None:
            ratio = (spread / prior_std) ** 2
            shift = (factor * self.exact / prior_std).flatten(1).square().sum(1)
            return (0.5 * (d * (ratio - 1 - math.log(ratio)) + shift)).repeat(self.samples)
        rows, eps = _draws(self.exact, self.samples, source)
        log_q = -0.5 * eps.flatten(1).square().sum(1) - 0.5 * d * math.log(2 * math.pi * spread**2)
        log_p = prior_log_prob(factor * rows + spread * eps)
        if log_p.shape != rows.shape[:1]:
            raise ValueError(
                f"prior_log_prob must return shape ({len(rows)},), one number for each state, but "
                f"returned {tuple(log_p.shape)}."
            )
        return log_q - log_p

    def bound(
        self, prior: Tensor, diffusion: Sequence[Tensor], reconstruction: Tensor
    ) -> EvidenceBound:
        """Add up the terms."""
        samples, batch = self.samples, len(self.x)
        terms = torch.stack([prior, *diffusion, reconstruction]).reshape(-1, samples, batch)
        means = terms.mean(1)
        error = torch.full_like(means[0], torch.inf)
        if samples > 1:
            # the draws of different terms are independent: their variances add
            error = (terms.var(1).sum(0) / samples).sqrt()
        log_prob, nfe = -means.sum(0), samples * (len(terms) - 1)
        result = EvidenceBound(
            log_prob, error, means[0], means[1:-1].T, means[-1], self.dimensions, nfe, self.seed
        )
        lost = ~torch.isfinite(log_prob)
        if (i := first_true(lost)) is not None:
            where = first_true(~torch.isfinite(means[:, i])) or 0
            name = ("L_T", *(f"term {k} of diffusion" for k in range(len(diffusion))), "L_0")
            raise NonFiniteError(
                f"the bound is not finite for {int(lost.sum())} of {batch} points; the first is "
                f"row {i}, where {name[where]} is {float(means[where, i].detach()):g}.",
                result,
            )
        return result


def _constant(k: int, std: Tensor, posterior: Tensor) -> Tensor:
    """Return what L_k has beside the squares, twice: of a decoder, k = 0, log 2πΣ."""
    if k == 0:
        return torch.log(2 * math.pi * std * std)
    ratio = posterior / std
    return ratio.square() - 1 - 2 * torch.log(ratio)


def _draws(x: State, samples: int, source: Stream) -> tuple[Tensor, Tensor]:
    """Repeat the points once for each sample, and draw an ε for each of them."""
    rows = x.repeat(samples, *[1] * (x.ndim - 1))
    return rows, normal_like(rows, source)
