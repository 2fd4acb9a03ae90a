"""A VAE whose likelihood is learned: it compares what a critic sees in x.

    D(x) = h(f(x))                                   a critic of features f and a head h
    log p(f(x) | z) = log N(f(x); f(d(z)), I)        in place of numbers of x
    L = KL(q(z | x) ‖ p(z)) + ½ |f(x) − f(d(z))|² + λ L_G + L_D

The critic tells data from decoded latents, half of q(z | x) and half of the prior. Its features
say which differences count, but are not moved by them, or they would become blind: f and h learn
from L_D alone, the encoder from the first two terms, the decoder from the second and L_G.
`critics.py` has L_D and L_G, and says how one optimizer moves all of them.

As a law of x it is implicit: there is no log p(x) to bound, and `sample` adds no noise.

Reference:
    Larsen et al. 2016, eqs. (5)-(8) and algorithm 1, arXiv:1512.09300, whose γ is 1/λ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_not_negative
from sdegen.core.noise import Rng
from sdegen.core.requests import check_kind, check_state
from sdegen.core.shapes import State
from sdegen.training.loss import Batch, BatchNoise, Loss
from sdegen.variational.gaussians import Gaussian
from sdegen.variational.networks import ask, check_like
from sdegen.variational.relatives.critics import (
    check_network,
    critic_loss,
    generator_loss,
    log_odds,
    refuse_validation,
    sample_through,
    with_fixed_weights,
)
from sdegen.variational.vae import gaussian_of


class VAEGAN(nn.Module):
    """An encoder, a decoder, and a critic whose features measure how far x is from its decoding.

        D(x) = h(f(x)),     log p(f(x) | z) = log N(f(x); f(d(z)), I)

    Args:
        encoder: x (batch, *event) to (batch, 2 k): means, and logarithms of variances.
        decoder: z (batch, k) to x (batch, *event).
        features: f, x (batch, *event) to what is compared, shape (batch, *features).
        head: h, features to logits (batch, 1).
        latents: k.

    Raises:
        TypeError: If a network is no module.
        ValueError: If latents < 1.

    Example:
        >>> line = torch.nn.Linear(1, 1, bias=False)
        >>> encoder, head = torch.nn.Linear(1, 2), torch.nn.Linear(1, 1)
        >>> model = sg.VAEGAN(encoder, line, torch.nn.Identity(), head, latents=1)
        >>> _ = line.weight.data.fill_(3.0)
        >>> f"{model.sample(20_000, rng=0).std():.1f}"  # x = 3 z, without noise
        '3.0'
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        features: nn.Module,
        head: nn.Module,
        latents: int,
    ) -> None:
        super().__init__()
        parts = {"encoder": encoder, "decoder": decoder, "features": features, "head": head}
        for name, network in parts.items():
            check_network(name, network)
        check_count("latents", latents)
        self.encoder: nn.Module = encoder
        self.decoder: nn.Module = decoder
        self.latents: int = latents
        self.critic: nn.Sequential = nn.Sequential(features, head)

    def posterior(self, x: State) -> Gaussian:
        """Return q(z | x), a law for each row; x has shape (batch, *event).

        Raises:
            ValueError: If the encoder returns another shape than (batch, 2 k).
        """
        return gaussian_of(ask("encoder", self.encoder, x), len(x), self.latents)

    def sample(self, n: int, *, rng: Rng = None) -> State:
        """Draw x = d(z), z ~ N(0, I), shape (n, *event).

        Args:
            n: How many.
            rng: Seed, generator or None.
        """
        return sample_through("decoder", self.decoder, n, self.latents, rng)

    @torch.no_grad()
    def log_ratio(self, x: State) -> Tensor:
        """Return D(x), shape (batch,): log p_data(x) − log p_decoded(x) of the best, in nats.

        Args:
            x: Shape (batch, *event).
        """
        return log_odds(self.critic, check_state(x, name="x"))


@dataclass(frozen=True)
class VAEGANLoss(Loss):
    """KL, distance in features, and the losses of both players of a `VAEGAN`.

        L = KL(q(z | x) ‖ p(z)) + ½ |f(x) − f(d(z))|² + λ L_G + L_D,     shape (n,)

    Args:
        weight: λ ≥ 0 of what the critic says to the decoder.
        r1: γ ≥ 0, weight of the critic's squared slope at the data.

    Raises:
        TypeError: If it is asked for a module that is no `VAEGAN`.
        ValueError: If a number is < 0, or it is asked for a validation.

    Example:
        >>> encoder, decoder, head = (torch.nn.Linear(1, n) for n in (2, 1, 1))
        >>> model = sg.VAEGAN(encoder, decoder, torch.nn.Identity(), head, latents=1)
        >>> _ = [p.data.zero_() for p in model.parameters()]  # q(z | x) = p(z), d(z) = 0
        >>> loss, x = sg.VAEGANLoss(), torch.ones(8, 1)
        >>> losses = sg.fit(model, x, loss, sg.FitConfig(1), rng=0).losses
        >>> f"{losses.item():.4f}"  # 0 + ½ · 1² + log 2 + 2 log 2
        '2.5794'
    """

    weight: float = 1.0
    r1: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative("weight", self.weight)
        check_not_negative("r1", self.r1)

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no VAEGAN."""
        check_kind("module", module, VAEGAN, "a VAEGAN(encoder, decoder, features, head, latents)")
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of each row, shape (n,), and its four terms."""
        refuse_validation(module, self)
        model, x = cast(VAEGAN, module), batch.rows
        q = model.posterior(x)
        z = (q.mean + q.covariance.sqrt() * noise.normal_like(q.mean)).to(x.dtype)
        decoded = ask("decoder", model.decoder, z)
        check_like("decoder", decoded, x)
        seen = with_fixed_weights(model.critic[0])
        apart = ask("features", seen, decoded) - ask("features", seen, x)
        # the critic speaks to the decoder, not to the encoder
        fakes = [
            ask("decoder", model.decoder, latent) for latent in (z.detach(), noise.normal_like(z))
        ]
        said = torch.stack([generator_loss(model.critic, fake) for fake in fakes]).mean(0)
        terms = {
            "kl": q.kl(Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.mean))),
            "reconstruction": 0.5 * apart.square().flatten(1).sum(1),
            "generator": said,
            "critic": critic_loss(model.critic, x, torch.cat(fakes), self.r1),
        }
        players = self.weight * terms["generator"] + terms["critic"]
        return terms["kl"] + terms["reconstruction"] + players, terms
