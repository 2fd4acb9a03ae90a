"""The variational autoencoder: a latent variable, a posterior that is learned with it, a bound.

    p(x) = ∫ p(x | z) p(z) dz
    log p(x) ≥ E_q log p(x | z) − β KL(q(z | x) ‖ p(z))                         β = 1
    log p(x) ≥ E log (1/K) Σ_k p(x | z_k) p(z_k)/q(z_k | x),   z_k ~ q          importance-weighted

q(z | x) = N(μ(x), diag σ²(x)) is what the encoder puts out, p(x | z) what the decoder does: a
Gaussian of one spread, given or learned, or independent Bernoulli pixels. Gradients pass through
z = μ + σ ε. The first bound's KL is in closed form where the prior is N(0, I), and a mean over the
samples where it is a mixture or a density, or where a flow carries μ + σ ε on; the second rises
with K to log p(x). β other than 1 is no bound below 1, and a looser one above: `VAELoss(beta=4.0)`
is the β-VAE.
`VAELoss` is what `fit` makes small; `VAE.bound` says what a model is worth, with standard errors.

Reference:
    Kingma and Welling 2014, eqs. (3) and (10), arXiv:1312.6114; Rezende, Mohamed and Wierstra
    2014; importance weights: Burda, Grosse and Salakhutdinov 2016, eq. (8), arXiv:1509.00519; β:
    Higgins et al. 2017; a mixture as the prior: Dilokthanakul et al. 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_flag, check_not_negative, check_word
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import as_numbers, check_kind, check_state, kind_of
from sdegen.core.shapes import Numbers, State
from sdegen.likelihood.bound_terms import LowerBound
from sdegen.training.loss import Batch, BatchNoise, Loss
from sdegen.variational.flows import Flow
from sdegen.variational.gaussians import Gaussian
from sdegen.variational.likelihoods import Likelihood, check_pixels, check_spread, log_prob_of
from sdegen.variational.networks import ask

_NETWORK = "a torch.nn.Module, such as torch.nn.Linear(2, 4)"


@runtime_checkable
class LatentPrior(Protocol):
    """A law of latents: `GaussianMixture`, `DensityPrior` of a Boltzmann density, another."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(z) in nats, shape (batch,), of latents (batch, k)."""

    def sample(self, n: int, *, rng: Rng = None, dtype: torch.dtype | None = None) -> Tensor:
        """Draw n latents, shape (n, k)."""


@dataclass(frozen=True)
class VariationalBound(LowerBound):
    """A lower bound for log p(x) in nats: log_prob = −(reconstruction + prior) where K = 1.

    Attributes:
        log_prob: The bound, shape (batch,), float64.
        standard_error: Of log_prob over the draws, shape (batch,); infinite for samples=1.
        reconstruction: −E_q log p(x | z), shape (batch,).
        prior: KL(q(z | x) ‖ p(z)), shape (batch,).
        dimensions: Numbers in one x.
        importance: K: 1 is the ELBO, −(reconstruction + prior); more is above it.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> vae = sg.VAE(torch.nn.Linear(1, 2), torch.nn.Linear(1, 1), latents=1)
        >>> _ = [p.data.zero_() for p in vae.parameters()]  # q(z | x) = p(z), p(x | z) = N(0, 1)
        >>> bound = vae.bound(torch.ones(1, 1), rng=0)
        >>> f"{bound.prior.item():.4f}", f"{bound.reconstruction.item():.4f}"  # 0 and ½ log 2π + ½
        ('0.0000', '1.4189')
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    reconstruction: Float[Tensor, " batch"]
    prior: Float[Tensor, " batch"]
    dimensions: int
    importance: int
    seed: int


class VAE(nn.Module):
    """A variational autoencoder of any encoder and decoder.

        log p(x) ≥ E_q log p(x | z) − KL(q(z | x) ‖ p(z)),     q(z | x) = N(μ(x), diag σ²(x))

    Args:
        encoder: x (batch, *event) to (batch, 2 k): means, and logarithms of variances.
        decoder: z (batch, k) to (batch, *event): means, or logits of Bernoulli pixels.
        latents: k.
        likelihood: "gaussian" or "bernoulli", the law of x given z.
        std: Standard deviation of a Gaussian x given z: a number, or one for each number of an x,
            shape (*event,).
        learn_std: Whether it is learned, from `std`, or stays what it is.
        prior: p(z), with `log_prob` and `sample`, such as a `Flow`, whose weights are then trained
            too; None is N(0, I).
        flow: What carries μ + σ ε on to the latent, a `Flow` of k numbers; with context = 2 k it
            is told what the encoder puts out. None leaves the posterior Gaussian.

    Raises:
        TypeError: If a network is no module, the prior no law, or the flow no Flow.
        ValueError: If a number makes no sense, or the flow has other sizes.

    Example:
        >>> vae = sg.VAE(torch.nn.Linear(1, 2), torch.nn.Linear(1, 1), latents=1)
        >>> _ = [p.data.zero_() for p in vae.parameters()]  # q(z | x) = p(z), p(x | z) = N(0, 1)
        >>> f"{vae.bound(torch.ones(1, 1), rng=0).log_prob.item():.4f}"  # −½ log 2π − ½
        '-1.4189'
    """

    log_std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latents: int,
        *,
        likelihood: Likelihood = "gaussian",
        std: Numbers = 1.0,
        learn_std: bool = True,
        prior: LatentPrior | None = None,
        flow: Flow | None = None,
    ) -> None:
        super().__init__()
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            check_kind(name, network, nn.Module, _NETWORK)
        check_count("latents", latents)
        check_word("likelihood", likelihood, get_args(Likelihood))
        if prior is not None and (isinstance(prior, type) or not isinstance(prior, LatentPrior)):
            raise TypeError(
                "prior must be a law with log_prob(z) and sample(n, rng=…), such as a "
                f"GaussianMixture, or None for N(0, I), but is {kind_of(prior)}."
            )
        self.encoder: nn.Module = encoder
        self.decoder: nn.Module = decoder
        self.latents: int = latents
        self.likelihood: Likelihood = likelihood
        self.prior: LatentPrior | None = prior
        self.flow: Flow | None = _checked_flow(flow, latents)
        check_flag("learn_std", learn_std)
        spread = as_numbers("std", std, expected="a number, or one for each number of an x")
        if not bool(((spread > 0) & spread.isfinite()).all()):
            raise ValueError(
                f"every std must be finite and > 0, but the least is {spread.min():g}."
            )
        log_std = spread.detach().log()
        if learn_std and likelihood == "gaussian":
            self.log_std = nn.Parameter(log_std.to(torch.get_default_dtype()))
        else:
            self.register_buffer("log_std", log_std)

    @property
    def std(self) -> Tensor:
        """Standard deviation of a Gaussian x given z, shape () or (*event,)."""
        return self.log_std.exp()

    def posterior(self, x: State) -> Gaussian:
        """Return q(z | x), a law for each row; of a VAE with a flow, what the flow begins at.

        Args:
            x: Shape (batch, *event).

        Raises:
            ValueError: If the encoder returns another shape than (batch, 2 k).
        """
        return gaussian_of(ask("encoder", self.encoder, x), len(x), self.latents)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats, shape (batch,); z has shape (batch, k)."""
        if self.prior is not None:
            return self.prior.log_prob(z)
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))

    def log_prob_given(self, x: State, z: Tensor) -> Tensor:
        """Return log p(x | z) in nats, shape (batch,), float64.

        Args:
            x: Shape (batch, *event).
            z: Shape (batch, k).

        Raises:
            ValueError: If the decoder returns another shape than that of x, or x is not 0 or 1
                where its pixels are Bernoulli.
        """
        output = ask("decoder", self.decoder, z.to(x.dtype))
        return log_prob_of(x, output, self.likelihood, self.log_std.double())

    def bound(
        self,
        x: State,
        *,
        samples: int = 16,
        importance: int = 1,
        rng: Rng = None,
        differentiable: bool = False,
    ) -> VariationalBound:
        """Estimate a lower bound of log p(x), the ELBO or the importance-weighted one.

        Args:
            x: Points, shape (batch, *event), float32 or float64.
            samples: Independent draws of the bound for each x, whose mean is returned.
            importance: K, latents in each draw; 1 is the ELBO.
            rng: Seed, generator or None.
            differentiable: Whether gradients flow from the bound to the networks and to x.

        Returns:
            The bound and its terms, with a standard error. Its expectation is ≤ log p(x).

        Raises:
            ValueError: If x is not finite, or a count is < 1.
            NonFiniteError: If the bound is not finite.
        """
        x = check_state(x, name="x")
        check_count("samples", samples)
        check_count("importance", importance)
        check_flag("differentiable", differentiable)
        seed = seed_of(rng)
        source = Streams(seed, "variational bound")
        with torch.enable_grad() if differentiable else torch.no_grad():
            q = self.posterior(x)
            draws, terms = [], []
            for i in range(samples):
                shape = (importance, *q.mean.shape)
                eps = source.block(i).normal(shape, dtype=torch.float64, device=x.device)
                log_weights, given, kl = self.weighted(x, q, eps)
                draws.append(torch.logsumexp(log_weights, 0) - math.log(importance))
                terms.append(torch.stack([-given.mean(0), kl]))
        value, (reconstruction, prior) = torch.stack(draws), torch.stack(terms).mean(0)
        log_prob = -(reconstruction + prior) if importance == 1 else value.mean(0)
        if importance == 1:  # the KL in closed form has no error
            value = -torch.stack(terms).sum(1)
        error = (
            value.std(0) / math.sqrt(samples) if samples > 1 else torch.full_like(prior, math.inf)
        )
        return VariationalBound(
            log_prob, error.detach(), reconstruction, prior, x[0].numel(), importance, seed
        ).checked()

    def weighted(self, x: State, q: Gaussian, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what both bounds are made of, with gradients.

        Args:
            x: Shape (batch, *event).
            q: q(z | x), as `posterior` returns it.
            eps: Standard normals, shape (K, batch, k).

        Returns:
            log p(x | z) p(z)/q(z | x) and log p(x | z), shape (K, batch), and KL(q ‖ p), shape
            (batch,): in closed form for N(0, I), else its mean over the K samples.
        """
        z, log_q = self.draw(q, eps)
        flat = z.flatten(0, 1)
        rows = x.repeat(len(eps), *[1] * (x.ndim - 1))
        given = self.log_prob_given(rows, flat).reshape(eps.shape[:2])
        surplus = log_q - self.prior_log_prob(flat).reshape(eps.shape[:2])
        if self.prior is not None or self.flow is not None:
            return given - surplus, given, surplus.mean(0)
        unit = Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.mean))
        return given - surplus, given, q.kl(unit)

    def draw(self, q: Gaussian, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents of the posterior, by the flow if there is one, with gradients.

        Args:
            q: q(z | x), as `posterior` returns it.
            eps: Standard normals, shape (K, batch, k).

        Returns:
            z, shape (K, batch, k), and log q(z | x), shape (K, batch), float64.
        """
        z = q.mean + q.covariance.sqrt() * eps
        if self.flow is None:
            return z, q.log_prob(z)
        told = torch.cat([q.mean, q.covariance.log()], 1).repeat(len(eps), 1)
        flat, volume = self.flow.push(z.flatten(0, 1), told if self.flow.context else None)
        return flat.double().reshape(z.shape), q.log_prob(z) - volume.reshape(eps.shape[:2])

    def sample(self, n: int, *, rng: Rng = None) -> State:
        """Draw from p(x): a latent of the prior, and x given it.

        Args:
            n: How many.
            rng: Seed, generator or None.

        Returns:
            Shape (n, *event), in the decoder's dtype; Bernoulli pixels are 0 or 1.
        """
        check_count("n", n)
        streams = Streams(seed_of(rng), "variational sample")
        like = next(self.decoder.parameters())
        if self.prior is None:
            z = streams.block(0).normal((n, self.latents), dtype=like.dtype, device=like.device)
        else:
            z = self.prior.sample(n, rng=streams.block(0).generator(), dtype=like.dtype)
        with torch.no_grad():
            output = ask("decoder", self.decoder, z.to(like))
            noise = streams.block(1)
            if self.likelihood == "bernoulli":
                u = torch.rand(output.shape, generator=noise.generator()).to(output)
                return (u < output.sigmoid()).to(output)
            check_spread(self.log_std, output)
            shape, dtype = tuple(output.shape), output.dtype
            return output + self.std * noise.normal(shape, dtype=dtype, device=output.device)

    def decode(self, z: Tensor) -> State:
        """Return E[x | z], shape (batch, *event): what is drawn of a latent map.

        Args:
            z: Shape (batch, k).
        """
        with torch.no_grad():
            output = ask("decoder", self.decoder, z)
        return output.sigmoid() if self.likelihood == "bernoulli" else output


@dataclass(frozen=True)
class VAELoss(Loss):
    """The negative bound of a `VAE`, in nats, shape (n,): what `fit` makes small.

        ℓ = −E_q log p(x | z) + β KL(q(z | x) ‖ p(z))

    Args:
        beta: Weight β ≥ 0 of the KL to the prior; 1 is the ELBO.
        importance: K, latents for each row; above 1 the importance-weighted bound.

    Raises:
        TypeError: If it is asked for a module that is no `VAE`.
        ValueError: If β < 0, or K < 1, or β is not 1 where K > 1, whose bound has no KL to weigh.

    Example:
        >>> vae = sg.VAE(torch.nn.Linear(1, 2), torch.nn.Linear(1, 1), latents=1)
        >>> _ = [p.data.zero_() for p in vae.parameters()]  # q(z | x) = p(z), p(x | z) = N(0, 1)
        >>> losses = sg.fit(vae, torch.ones(4, 1), sg.VAELoss(), sg.FitConfig(1), rng=0).losses
        >>> f"{losses.item():.4f}"  # ½ log 2π + ½
        '1.4189'
    """

    beta: float = 1.0
    importance: int = 1

    def __post_init__(self) -> None:
        check_not_negative("beta", self.beta)
        check_count("importance", self.importance)
        if self.importance > 1 and self.beta != 1:
            raise ValueError(
                "beta weighs the KL of the ELBO, which the importance-weighted bound does not "
                "have; leave beta = 1, or importance = 1."
            )

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no VAE, and data that its pixels cannot be."""
        check_kind("module", module, VAE, "a VAE(encoder, decoder, latents)")
        check_pixels(cast(VAE, module).likelihood, batch.rows)
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each row, shape (n,), and its two terms."""
        vae, x = cast(VAE, module), batch.rows
        q = vae.posterior(x)
        like = q.mean[:, None].expand(-1, self.importance, -1)
        log_weights, given, kl = vae.weighted(x, q, noise.normal_like(like).transpose(0, 1))
        terms = {"reconstruction": -given.mean(0), "kl": kl}
        if self.importance > 1:
            return math.log(self.importance) - torch.logsumexp(log_weights, 0), terms
        return terms["reconstruction"] + self.beta * kl, terms


def gaussian_of(output: Tensor, rows: int, latents: int) -> Gaussian:
    """Return the law that an encoder puts out for each row.

    Raises:
        ValueError: If its shape is another than (rows, 2 latents).
    """
    if output.shape != (rows, 2 * latents):
        raise ValueError(
            f"encoder must return shape ({rows}, {2 * latents}), means and logarithms "
            f"of variances of {latents} latents, but returned {kind_of(output)}."
        )
    mean, log_variance = output.chunk(2, 1)
    return Gaussian(mean, log_variance.double().exp())


def _checked_flow(flow: Flow | None, latents: int) -> Flow | None:
    """Return the flow of a posterior, or refuse one of other sizes."""
    if flow is None:
        return None
    check_kind("flow", flow, Flow, 'a Flow("real nvp", latents) or None')
    if flow.dim != latents or flow.context not in (0, 2 * latents):
        raise ValueError(
            f"flow must have dim = {latents}, the latents, and context 0 or {2 * latents}, what "
            f"the encoder puts out, but has dim = {flow.dim} and context = {flow.context}."
        )
    return flow
