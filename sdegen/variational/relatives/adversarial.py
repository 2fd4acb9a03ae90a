"""Generative adversarial networks: a generator whose likelihood is what a critic learns.

    z ~ N(0, I),    x = G(z),    D(x) → log p_data(x) − log p_G(x)

`critics.py` has the losses of both players, and says how one optimizer moves both.

Reference:
    Goodfellow et al. 2014, arXiv:1406.2661.
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
from sdegen.variational.networks import ask, check_like
from sdegen.variational.relatives.critics import (
    check_network,
    critic_loss,
    generator_loss,
    log_odds,
    refuse_validation,
    sample_through,
)


class GAN(nn.Module):
    """A generator and its critic.

        x = G(z),  z ~ N(0, I),     D(x) → log p_data(x) − log p_G(x)

    Args:
        generator: z (batch, k) to x (batch, *event).
        critic: x (batch, *event) to logits (batch, 1); rows must not depend on each other, as they
            do under batch normalisation.
        latents: k.

    Raises:
        TypeError: If a network is no module.
        ValueError: If latents < 1.

    Example:
        >>> gan = sg.GAN(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1), latents=1)
        >>> _ = gan.generator.weight.data.fill_(3.0)
        >>> f"{gan.sample(20_000, rng=0).std():.1f}"  # x = 3 z
        '3.0'
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, latents: int) -> None:
        super().__init__()
        check_network("generator", generator)
        check_network("critic", critic)
        check_count("latents", latents)
        self.generator: nn.Module = generator
        self.critic: nn.Module = critic
        self.latents: int = latents

    def sample(self, n: int, *, rng: Rng = None) -> State:
        """Draw x = G(z), shape (n, *event).

        Args:
            n: How many.
            rng: Seed, generator or None.
        """
        return sample_through("generator", self.generator, n, self.latents, rng)

    @torch.no_grad()
    def log_ratio(self, x: State) -> Tensor:
        """Return D(x), shape (batch,): the best critic's is log p_data(x) − log p_G(x), in nats.

        Args:
            x: Shape (batch, *event).
        """
        return log_odds(self.critic, check_state(x, name="x"))


@dataclass(frozen=True)
class GANLoss(Loss):
    """The losses of both players of a `GAN`, added up, shape (n,).

        L_D = E_p softplus(−D(x)) + E_G softplus(D(x)) + γ/2 E_p |∇D|²
        L_G = E_G softplus(−D(x))

    Args:
        r1: γ ≥ 0, weight of the critic's squared slope at the data, in units of x²; 0 with a
            critic of bounded slope.

    Raises:
        TypeError: If it is asked for a module that is no `GAN`.
        ValueError: If r1 < 0, or it is asked for a validation.

    Example:
        >>> gan = sg.GAN(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), latents=1)
        >>> _ = [p.data.zero_() for p in gan.critic.parameters()]  # it cannot tell
        >>> result = sg.fit(gan, torch.randn(8, 1), sg.GANLoss(), sg.FitConfig(1), rng=0)
        >>> f"{result.logs['critic'].item():.4f}"  # 2 log 2
        '1.3863'
    """

    r1: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative("r1", self.r1)

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no GAN."""
        check_kind("module", module, GAN, "a GAN(generator, critic, latents)")
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of each row, shape (n,), and its two terms."""
        refuse_validation(module, self)
        gan, x = cast(GAN, module), batch.rows
        z = noise.normal_like(x.new_empty(len(x), gan.latents))
        fake = ask("generator", gan.generator, z)
        check_like("generator", fake, x)
        critic = critic_loss(gan.critic, x, fake, self.r1)
        generator = generator_loss(gan.critic, fake)
        return critic + generator, {"critic": critic, "generator": generator}
