"""A critic: a classifier of two sets of samples, whose logit learns the ratio of their densities.

    L_D = E_p softplus(−D(x)) + E_q softplus(D(x)) + γ/2 E_p |∇D(x)|²       critic, γ of R1
    L_G = E_q softplus(−D(x))                                               what makes q, "non-
                                                                            saturating"
    D* = log p(x) − log q(x)    at γ = 0

**One step of one optimizer moves both players.** `fit` makes L_D + L_G small, where q's samples
are detached in L_D and the critic's weights in L_G: each term's gradient reaches the weights of
its own player alone, and both are taken at the weights before the step. That is simultaneous
gradient descent, one step of the critic for each of the other; the trainer, its checkpoints and
its bits are those of every other loss. Reversal of one common gradient would give L_G = −L_D,
which saturates where the critic is sure.

Simultaneous descent circles around the equilibrium if nothing damps it. γ > 0 does; so do critics
whose layers are wrapped in `torch.nn.utils.parametrizations.spectral_norm`, with γ = 0. With
momentum it turns too: pass `optimizer=functools.partial(torch.optim.Adam, betas=(0.5, 0.9))`. The
module ends with the moving average of both players' weights, as always.

`max_grad_norm` cuts the gradients of both players at one common length, which Adam's own scale
makes up for, and plain descent does not.

The sum of two players' losses is no measure of how near q is to p, so that a validation would
choose weights by chance: it is refused. `metrics.mmd` and others compare samples.

Reference:
    Goodfellow et al. 2014, eq. (1), proposition 1 and section 3, arXiv:1406.2661; R1: Mescheder,
    Geiger and Nowozin 2018, eq. (9) and theorem 4.1, arXiv:1801.04406; spectral normalisation:
    Miyato et al. 2018, eq. (8), arXiv:1802.05957.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_kind, kind_of
from sdegen.core.shapes import State
from sdegen.variational.networks import ask


def with_fixed_weights(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a network through which gradients reach its input, and not its weights."""
    weights = {name: p.detach() for name, p in network.named_parameters()}

    def call(x: Tensor) -> Tensor:
        output: Tensor = functional_call(network, weights, (x,))
        return output

    return call


def log_odds(critic: Callable[[Tensor], Tensor], x: State, name: str = "critic") -> Tensor:
    """Return the logit of each row, shape (batch,).

    Raises:
        ValueError: If the critic returns another shape than (batch,) or (batch, 1).
    """
    output = ask(name, critic, x)
    if output.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"{name} must return one logit for each row, shape ({len(x)}, 1), but returned "
            f"{kind_of(output)}."
        )
    return output.reshape(len(x))


def critic_loss(critic: nn.Module, real: State, fake: Tensor, r1: float = 0.0) -> Tensor:
    """Return L_D of each row, shape (batch,), with gradients in the critic's weights alone.

    Args:
        critic: x to logits.
        real: Samples of p, shape (batch, *event).
        fake: Samples of q, shape (m batch, *event): m for each row, which are averaged.
        r1: γ ≥ 0.
    """
    real = real.detach().requires_grad_(r1 > 0)
    logits = log_odds(critic, real)
    told = softplus(log_odds(critic, fake.detach())).reshape(-1, len(real)).mean(0)
    loss = softplus(-logits) + told
    if r1 == 0:
        return loss
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return loss + 0.5 * r1 * slope.square().flatten(1).sum(1)


def generator_loss(critic: nn.Module, fake: State) -> Tensor:
    """Return L_G of each row, shape (batch,), with gradients in the samples alone.

    Args:
        critic: x to logits.
        fake: Samples of q, shape (batch, *event).
    """
    return softplus(-log_odds(with_fixed_weights(critic), fake))


@torch.no_grad()
def sample_through(name: str, network: nn.Module, n: int, latents: int, rng: Rng) -> State:
    """Return what a network makes of n standard normals, shape (n, *event).

    Args:
        name: What its user calls it.
        network: z (batch, k) to x, in the dtype of its weights.
        n: How many.
        latents: k.
        rng: Seed, generator or None.
    """
    check_count("n", n)
    like = next(network.parameters(), torch.empty(0))
    source = Streams(seed_of(rng), "adversarial sample").block(0)
    z = source.normal((n, latents), dtype=like.dtype, device=like.device)
    return ask(name, network, z)


def check_network(name: str, network: object) -> None:
    """Refuse what is no network."""
    check_kind(name, network, nn.Module, "a torch.nn.Module, such as torch.nn.Linear(2, 1)")


def refuse_validation(module: nn.Module, loss: object) -> None:
    """Refuse to judge a module by the losses of two players.

    Raises:
        ValueError: If the module is in evaluation mode, as in a validation.
    """
    if not module.training:
        raise ValueError(
            f"{type(loss).__name__} is a sum over two players, which does not say how near "
            "samples are to the data; leave validation out, and compare samples by metrics.mmd or "
            "metrics.energy_distance."
        )
