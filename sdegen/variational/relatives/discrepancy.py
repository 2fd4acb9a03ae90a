"""Matching of all latents to the prior by the maximum mean discrepancy: Wasserstein autoencoders.

    L = E −log p(x | z) + λ MMD²(q(z), p(z)),      q(z) = E_x q(z | x)

The KL of a `VAELoss` asks each q(z | x) to be near the prior, and so forgets x; this term asks it
of their mixture alone. With p(x | z) = N(d(z), std²) the first term is |x − d(z)|²/2std² and a
constant, the cost of optimal transport; λ is in its units, nats. The prior stays what it is, also
where it has weights.

MMD² is the unbiased mean over all pairs of a batch, so it may be below zero, and its error falls
as 1/batch. It is of the whole batch and not of single rows: parts of a step (`accumulate`) and
ranks, which share the rows, are refused.

Reference:
    Tolstikhin et al. 2018, eq. (4) and algorithm 2, arXiv:1711.01558.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from sdegen.core.checks import check_not_negative
from sdegen.core.requests import check_kind
from sdegen.metrics.kernels import Kernel, check_kernel, squared_mmd
from sdegen.training.loss import Batch, BatchNoise, Loss
from sdegen.variational.likelihoods import check_pixels
from sdegen.variational.relatives.autoencoder import draw_latents, draw_prior
from sdegen.variational.vae import VAE


@dataclass(frozen=True)
class MMDLoss(Loss):
    """Reconstruction, and λ MMD² of all latents from the prior.

        L = E −log p(x | z) + λ MMD²(q(z), p(z)),     shape () of a batch

    Args:
        weight: λ ≥ 0.
        kernel: "inverse-multiquadric" or "gaussian", of `metrics.mmd`.
        scale: h of the kernel; None is √k, the size of N(0, I).

    Raises:
        TypeError: If it is asked for a module that is no `VAE` or `Autoencoder`.
        ValueError: If a number is out of range, or a batch has one row.

    Example:
        >>> model = sg.Autoencoder(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), latents=1)
        >>> _ = [p.data.zero_() for p in model.parameters()]  # all latents are 0
        >>> loss = sg.MMDLoss(kernel="gaussian", scale=1.0)
        >>> result = sg.fit(model, torch.zeros(8, 1), loss, sg.FitConfig(1, 1024), rng=0)
        >>> f"{result.logs['discrepancy'].item():.1f}"  # 1 + 1/√3 − 2/√2 = 0.163
        '0.2'
    """

    weight: float = 1.0
    kernel: Kernel = "inverse-multiquadric"
    scale: float | None = None

    def __post_init__(self) -> None:
        check_not_negative("weight", self.weight)
        check_kernel(self.kernel, self.scale)

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no autoencoder, and data that its pixels cannot be."""
        check_autoencoder("module", module, batch)
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the batch, shape (), and its two terms."""
        if len(batch) < 2:
            raise ValueError(
                "the discrepancy is a mean over pairs of a batch, which has one row; take more."
            )
        model = cast(VAE, module)
        z = draw_latents(model, batch.rows, noise)
        reconstruction = -model.log_prob_given(batch.rows, z).mean()
        discrepancy = squared_mmd(z, draw_prior(model, z, noise), self.kernel, self.scale)
        terms = {"reconstruction": reconstruction, "discrepancy": discrepancy}
        return reconstruction + self.weight * discrepancy, terms


def check_autoencoder(name: str, module: object, batch: Batch) -> None:
    """Refuse what is neither a VAE nor an Autoencoder, and data that its pixels cannot be."""
    check_kind(name, module, VAE, "a VAE or an Autoencoder(encoder, decoder, latents)")
    check_pixels(cast(VAE, module).likelihood, batch.rows)
