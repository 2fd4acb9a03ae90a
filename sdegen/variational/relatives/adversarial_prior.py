"""Matching of all latents to the prior by a critic: adversarial autoencoders.

    L = E −log p(x | z) + λ E softplus(−D(z)) + L_D(D; p(z), q(z)),      q(z) = E_x q(z | x)

The critic tells latents of the prior from those of data, and its best logit is log p(z) − log
q(z); the encoder is moved by it, and by the reconstruction. `critics.py` has both players' losses,
and says how one optimizer moves both. Beside `MMDLoss` it needs no kernel, and asks nothing of the
batch: each row has its own loss. The prior stays what it is, also where it has weights;
ranks that train together draw from a prior of yours each for itself, with numbers that one process
would not draw.

Reference:
    Makhzani et al. 2016, section 2, arXiv:1511.05644; with the cost of a Wasserstein autoencoder:
    Tolstikhin et al. 2018, algorithm 1, arXiv:1711.01558.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_not_negative
from sdegen.core.noise import Rng
from sdegen.core.requests import as_state, check_kind
from sdegen.core.shapes import State
from sdegen.training.loss import Batch, BatchNoise, Loss
from sdegen.variational.relatives.autoencoder import draw_latents, draw_prior
from sdegen.variational.relatives.critics import (
    check_network,
    critic_loss,
    generator_loss,
    log_odds,
    refuse_validation,
)
from sdegen.variational.relatives.discrepancy import check_autoencoder
from sdegen.variational.vae import VAE


class AdversarialAutoencoder(nn.Module):
    """An autoencoder and a critic of its latents.

        q(z) = E_x q(z | x),     D(z) → log p(z) − log q(z)

    Args:
        autoencoder: A `VAE` or an `Autoencoder`, whose `prior` is matched.
        critic: z (batch, k) to logits (batch, 1).

    Raises:
        TypeError: If one is of another kind.

    Example:
        >>> decoder = torch.nn.Linear(1, 1, bias=False)
        >>> vae = sg.Autoencoder(torch.nn.Linear(1, 1), decoder, latents=1)
        >>> _ = decoder.weight.data.fill_(3.0)
        >>> model = sg.AdversarialAutoencoder(vae, torch.nn.Linear(1, 1))
        >>> f"{model.sample(40_000, rng=0).var():.0f}"  # x = 3 z + ε
        '10'
    """

    def __init__(self, autoencoder: VAE, critic: nn.Module) -> None:
        super().__init__()
        check_kind(
            "autoencoder", autoencoder, VAE, "a VAE or an Autoencoder(encoder, decoder, latents)"
        )
        check_network("critic", critic)
        self.autoencoder: VAE = autoencoder
        self.critic: nn.Module = critic

    def sample(self, n: int, *, rng: Rng = None) -> State:
        """Draw from p(x), as the autoencoder does: shape (n, *event)."""
        return self.autoencoder.sample(n, rng=rng)

    @torch.no_grad()
    def log_ratio(self, z: Tensor) -> Tensor:
        """Return D(z), shape (batch,): the best critic's is log p(z) − log q(z), in nats.

        Args:
            z: Latents, shape (batch, k).
        """
        return log_odds(self.critic, as_state("z", z))


@dataclass(frozen=True)
class AdversarialLoss(Loss):
    """Reconstruction, and the losses of a critic of latents and of the encoder that it moves.

        L = −log p(x | z) + λ softplus(−D(z)) + L_D(D; p(z), q(z)),     shape (n,)

    Args:
        weight: λ ≥ 0 of the encoder's part.
        r1: γ ≥ 0, weight of the critic's squared slope at latents of the prior.

    Raises:
        TypeError: If it is asked for a module that is no `AdversarialAutoencoder`.
        ValueError: If a number is < 0, or it is asked for a validation.

    Example:
        >>> vae = sg.Autoencoder(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), latents=1)
        >>> model = sg.AdversarialAutoencoder(vae, torch.nn.Linear(1, 1))
        >>> _ = [p.data.zero_() for p in model.parameters()]
        >>> loss, x = sg.AdversarialLoss(), torch.ones(8, 1)
        >>> losses = sg.fit(model, x, loss, sg.FitConfig(1), rng=0).losses
        >>> f"{losses.item():.4f}"  # ½ log 2π + ½ and 3 log 2 of a critic that cannot tell
        '3.4984'
    """

    weight: float = 1.0
    r1: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative("weight", self.weight)
        check_not_negative("r1", self.r1)

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse another module, and data that its pixels cannot be."""
        check_kind(
            "module",
            module,
            AdversarialAutoencoder,
            "an AdversarialAutoencoder(autoencoder, critic)",
        )
        check_autoencoder("autoencoder", cast(AdversarialAutoencoder, module).autoencoder, batch)
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of each row, shape (n,), and its three terms."""
        refuse_validation(module, self)
        model, x = cast(AdversarialAutoencoder, module), batch.rows
        latents = draw_latents(model.autoencoder, x, noise)
        reconstruction = -model.autoencoder.log_prob_given(x, latents)
        z = latents.to(x.dtype)
        critic = critic_loss(model.critic, draw_prior(model.autoencoder, z, noise), z, self.r1)
        encoder = generator_loss(model.critic, z)
        terms = {"reconstruction": reconstruction, "critic": critic, "encoder": encoder}
        return reconstruction + self.weight * encoder + critic, terms
