"""A diffusion chain written out as a hierarchy: fixed linear encoders, one network as decoder.

    q(x_k | x_{k−1}) = N(a_k x_{k−1}, b_k² I)
    p(x_{k−1} | x_k) = N((x_k + b_k² score)/a_k, s_k² I)

All levels are as wide as the data. What `elbo` knows in numbers stands here as matrices d × d: for
the forms of the bound that `elbo` does not have, in few dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.diffusion.ddpm import AncestralChain
from sdegen.likelihood.chain_terms import last_step_std
from sdegen.variational.gaussians import Gaussian
from sdegen.variational.hierarchy import HierarchicalVAE
from sdegen.variational.levels import ConditionalLaw, Level, LinearGaussian


class _ChainStep(Level):
    """p(x_{k−1} | x_k) of a chain, as a level.

    Args:
        chain: The chain that walks back.
        k: Where the step starts.
        event: Shape of one state.
        std: Its standard deviation; None asks the chain, whose variance depends on x.
    """

    def __init__(
        self, chain: AncestralChain, k: int, event: tuple[int, ...], std: float | None
    ) -> None:
        super().__init__()
        self.chain, self.event, self.std = chain, event, std
        self.k = torch.tensor(k)

    def law(self, x: Tensor) -> ConditionalLaw:
        """Return the law of x_{k−1}, flat."""
        state = x.reshape(-1, *self.event)
        mean = (state - self.chain.drift(state, self.k)).flatten(1)
        if self.std is not None:
            spread = torch.full_like(mean[0], self.std)
        else:
            spread = self.chain.step_std(state, self.k).flatten(1)
        return ConditionalLaw(mean, Gaussian(torch.zeros_like(spread), spread.square()))


def as_hierarchy(
    chain: AncestralChain, event: tuple[int, ...], decoder_std: float | None = None
) -> HierarchicalVAE:
    """Return a chain as a `HierarchicalVAE` of flat states.

    Args:
        chain: chain.reverse(score).
        event: Shape of one state.
        decoder_std: Standard deviation of the last step; by default that of the chain.

    Raises:
        ValueError: If the last step has no noise.
    """
    forward = chain.chain
    d = torch.Size(event).numel()
    first = last_step_std(chain, decoder_std)
    eye = torch.eye(d, dtype=torch.float64)
    encoders = [
        LinearGaussian(a * eye, float(b) ** 2) for a, b in zip(forward.a, forward.b, strict=True)
    ]
    stds = (
        [None] * forward.steps if chain.variance == "learned" else [float(s) for s in chain.stds]
    )
    decoders = [
        _ChainStep(chain, k + 1, event, first if k == 0 else std) for k, std in enumerate(stds)
    ]
    prior = Gaussian(torch.zeros(d), forward.prior_std**2)
    return HierarchicalVAE(encoders, decoders, (d,) * (forward.steps + 1), prior)
