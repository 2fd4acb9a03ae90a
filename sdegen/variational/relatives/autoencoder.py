"""The autoencoder without noise: one latent for each x, and a decoder of the usual likelihoods.

    z = e(x),      p(x | z) as a `VAE` has it

Nothing holds its latents near the prior by itself: a loss that matches the law of all latents to
p(z) does, `MMDLoss` or `AdversarialLoss`, after which `sample` decodes what the prior draws.

Reference:
    Tolstikhin et al. 2018, section 2.2, arXiv:1711.01558.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor, nn

from sdegen.core.noise import Rng
from sdegen.core.requests import kind_of
from sdegen.core.shapes import Numbers, State
from sdegen.training.loss import BatchNoise
from sdegen.variational.likelihoods import Likelihood
from sdegen.variational.networks import ask
from sdegen.variational.vae import VAE, LatentPrior


class Autoencoder(VAE):
    """An autoencoder of any encoder and decoder, whose latents have no noise: z = e(x).

    Args:
        encoder: x (batch, *event) to z (batch, k).
        decoder: z (batch, k) to (batch, *event): means, or logits of Bernoulli pixels.
        latents: k.
        likelihood: "gaussian" or "bernoulli", the law of x given z.
        std: Standard deviation of a Gaussian x given z: a number, or one for each number of an x.
            It is not learned, since where every x is told by its z it would go to 0.
        prior: p(z), with `log_prob` and `sample`; None is N(0, I).

    Raises:
        TypeError: If a network is no module, or the prior no law.
        ValueError: If a number makes no sense.

    Example:
        >>> model = sg.Autoencoder(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), latents=1)
        >>> _ = [p.data.fill_(2.0) for p in model.parameters()]
        >>> z = model.encode(torch.ones(1, 1))  # 2 · 1 + 2
        >>> z.item(), model.decode(z).item()  # 2 · 4 + 2
        (4.0, 10.0)
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latents: int,
        *,
        likelihood: Likelihood = "gaussian",
        std: Numbers = 1.0,
        prior: LatentPrior | None = None,
    ) -> None:
        super().__init__(
            encoder, decoder, latents, likelihood=likelihood, std=std, learn_std=False, prior=prior
        )

    def encode(self, x: State) -> Tensor:
        """Return z = e(x), shape (batch, k).

        Args:
            x: Shape (batch, *event).

        Raises:
            ValueError: If the encoder returns another shape.
        """
        z = ask("encoder", self.encoder, x)
        if z.shape != (len(x), self.latents):
            raise ValueError(
                f"encoder must return shape ({len(x)}, {self.latents}), {self.latents} latents "
                f"without noise, but returned {kind_of(z)}."
            )
        return z

    def posterior(self, x: State) -> NoReturn:
        """Refuse: z given x is one point, which has no density.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "an Autoencoder's latents have no noise, so that there is no density q(z | x), no KL "
            "and no bound; train it by MMDLoss or AdversarialLoss, or take a VAE."
        )


def draw_latents(module: VAE, x: State, noise: BatchNoise) -> Tensor:
    """Return a latent of each x, of q(z | x) or without noise, with gradients; shape (batch, k).

    Args:
        module: A VAE or an Autoencoder.
        x: Shape (batch, *event).
        noise: Random numbers of this call.
    """
    if isinstance(module, Autoencoder):
        return module.encode(x).double()
    q = module.posterior(x)
    return module.draw(q, noise.normal_like(q.mean)[None])[0][0]


@torch.no_grad()
def draw_prior(module: VAE, like: Tensor, noise: BatchNoise) -> Tensor:
    """Return as many latents of p(z), which stays what it is: no gradient reaches it.

    Args:
        module: A VAE or an Autoencoder.
        like: Latents, shape (batch, k).
        noise: Random numbers of this call.
    """
    if module.prior is None:
        return noise.normal_like(like)
    rng: Rng = noise.seed()
    return module.prior.sample(len(like), rng=rng, dtype=like.dtype).to(like)
