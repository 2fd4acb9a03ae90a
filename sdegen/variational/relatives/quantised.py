"""Vector quantisation: latents that are entries of a codebook.

    z = e(x),    i = argmin_k |z − c_k|,    p(x | c_i)
    L = −log p(x | z + sg[c_i − z]) + |sg[z] − c_i|² + β |z − sg[c_i]|²

sg stops gradients. The first term teaches the decoder, and the encoder as if c_i were z (straight
through); the second moves each code to the mean of the latents it stands for, as k-means does; the
third holds the latents near their codes. An event may have N latents, each with its code; where
codes have a uniform law, −log p(x) ≤ −log p(x | c_i) + N log K.

Codes that stand for no latent do not move. `spread` begins with codes that are far apart;
`perplexity` says how many are in use.

Reference:
    van den Oord, Vinyals and Kavukcuoglu 2017, eqs. (1)-(3), arXiv:1711.00937; codes far apart:
    Gonzalez 1985, Theor. Comput. Sci. 38, 293, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_not_negative, check_positive, check_word
from sdegen.core.noise import Rng, Streams, seed_of, stream
from sdegen.core.requests import check_kind, check_state, kind_of
from sdegen.core.shapes import State
from sdegen.training.loss import Batch, BatchNoise, Loss
from sdegen.variational.likelihoods import Likelihood, check_pixels, log_prob_of
from sdegen.variational.networks import ask


class VQVAE(nn.Module):
    """An autoencoder whose latents are codes.

        z = e(x),     i = argmin_k |z − c_k|,     p(x | c_i)

    Args:
        encoder: x (batch, *event) to latents (batch, *positions, d).
        decoder: codes (batch, *positions, d) to (batch, *event): means, or logits of Bernoulli
            pixels.
        count: K, codes in the book.
        width: d, numbers in a code.
        positions: Where an event has codes, such as (4, 4); () is one code for each event.
        likelihood: "gaussian" or "bernoulli", the law of x given its codes.
        std: Standard deviation of a Gaussian x given its codes, > 0.
        rng: Seed of the codes, normals to begin with, generator or None.

    Attributes:
        codes: c_k, shape (K, d).

    Raises:
        TypeError: If a network is no module.
        ValueError: If a number makes no sense.

    Example:
        >>> model = sg.VQVAE(torch.nn.Identity(), torch.nn.Identity(), count=2, width=1, rng=0)
        >>> _ = model.codes.data.copy_(torch.tensor([[0.0], [1.0]]))
        >>> x = torch.tensor([[0.8], [0.4], [3.0]])
        >>> model.indices(x), model.reconstruct(x).flatten()
        (tensor([1, 0, 1]), tensor([1., 0., 1.]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        count: int,
        width: int,
        *,
        positions: tuple[int, ...] = (),
        likelihood: Likelihood = "gaussian",
        std: float = 1.0,
        rng: Rng = None,
    ) -> None:
        super().__init__()
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            check_kind(
                name, network, nn.Module, "a torch.nn.Module, such as torch.nn.Linear(2, 4)"
            )
        check_count("count", count)
        check_count("width", width)
        check_kind("positions", positions, tuple, "a tuple of sizes, such as (4, 4)")
        for size in positions:
            check_count("each of positions", size)
        check_word("likelihood", likelihood, get_args(Likelihood))
        check_positive("std", std)
        self.encoder: nn.Module = encoder
        self.decoder: nn.Module = decoder
        self.positions: tuple[int, ...] = positions
        self.likelihood = likelihood
        self.std: float = float(std)
        codes = stream(rng, "codes").normal((count, width), dtype=torch.get_default_dtype())
        self.codes: nn.Parameter = nn.Parameter(codes)

    def encode(self, x: State) -> Tensor:
        """Return z = e(x) before it is quantised, shape (batch, *positions, d).

        Args:
            x: Shape (batch, *event).

        Raises:
            ValueError: If the encoder returns another shape.
        """
        z = ask("encoder", self.encoder, x)
        wanted = (len(x), *self.positions, self.codes.shape[1])
        if z.shape != wanted:
            raise ValueError(
                f"encoder must return shape {wanted}, latents of the codes' width at each "
                f"position, but returned {kind_of(z)}."
            )
        return z

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Return which code is nearest, shape (batch, *positions); z is what `encode` returns."""
        flat = z.reshape(-1, z.shape[-1]).to(self.codes)
        return torch.cdist(flat, self.codes).argmin(1).reshape(z.shape[:-1])

    def indices(self, x: State) -> Tensor:
        """Return the codes of x as integers in 0 … K − 1, shape (batch, *positions)."""
        return self.nearest(self.encode(check_state(x, name="x")))

    @torch.no_grad()
    def decode(self, indices: Tensor) -> State:
        """Return E[x | codes], shape (batch, *event).

        Args:
            indices: Integers, shape (batch, *positions).

        Raises:
            TypeError: If they are no integers.
            ValueError: If one is no code, or their shape is another.
        """
        check_kind("indices", indices, Tensor, "a tensor of integers, such as indices(x)")
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise TypeError(f"indices must be integers, but have dtype {indices.dtype}.")
        if indices.ndim == 0 or tuple(indices.shape[1:]) != self.positions:
            raise ValueError(
                f"indices must have shape (batch, *{self.positions}), but have shape "
                f"{tuple(indices.shape)}."
            )
        if not bool(((indices >= 0) & (indices < len(self.codes))).all()):
            raise ValueError(f"indices must each be in 0 … {len(self.codes) - 1}.")
        output = ask("decoder", self.decoder, self.codes[indices])
        return output.sigmoid() if self.likelihood == "bernoulli" else output

    def reconstruct(self, x: State) -> State:
        """Return E[x | codes of x], shape (batch, *event)."""
        return self.decode(self.indices(x))

    def sample(self, n: int, *, rng: Rng = None) -> State:
        """Decode codes that are drawn uniformly: means of x, shape (n, *event).

        Of data whose codes are not uniform or not independent another law of `indices(x)` is
        drawn from, and given to `decode`.

        Args:
            n: How many.
            rng: Seed, generator or None.
        """
        check_count("n", n)
        generator = Streams(seed_of(rng), "codes").block(0).generator()
        drawn = torch.randint(len(self.codes), (n, *self.positions), generator=generator)
        return self.decode(drawn.to(self.codes.device))

    def perplexity(self, x: State) -> float:
        """Return exp(−Σ f log f), f the share of each code: K where all are used alike.

        Args:
            x: Shape (batch, *event).
        """
        counts = torch.bincount(self.indices(x).flatten(), minlength=len(self.codes)).double()
        return math.exp(float(torch.special.entr(counts / counts.sum()).sum()))

    @torch.no_grad()
    def spread(self, x: State) -> None:
        """Set the codes to latents of x that are far apart, before a training.

        The first is the latent nearest to their mean, and each next one that which is farthest
        from all before it; so clusters whose distances are larger than their diameters have a code
        each, if there are as many codes.

        Args:
            x: Shape (batch, *event).

        Raises:
            ValueError: If there are fewer different latents than codes.
        """
        z = self.encode(check_state(x, name="x")).reshape(-1, self.codes.shape[1])
        chosen = [int((z - z.mean(0)).square().sum(1).argmin())]
        away = (z - z[chosen[0]]).square().sum(1)
        for _ in range(len(self.codes) - 1):
            if not bool((away > 0).any()):
                raise ValueError(
                    f"x has {len(chosen)} different latents, fewer than {len(self.codes)} codes; "
                    "pass more rows, or take fewer codes."
                )
            chosen.append(int(away.argmax()))
            away = torch.minimum(away, (z - z[chosen[-1]]).square().sum(1))
        self.codes.copy_(z[chosen])


@dataclass(frozen=True)
class VQLoss(Loss):
    """Reconstruction, distance of the codes from their latents, and β times that of the latents.

        L = −log p(x | z + sg[c_i − z]) + |sg[z] − c_i|² + β |z − sg[c_i]|²,     shape (n,)

    Args:
        commitment: β ≥ 0.

    Raises:
        TypeError: If it is asked for a module that is no `VQVAE`.
        ValueError: If β < 0.

    Example:
        >>> encoder, decoder = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1)
        >>> model = sg.VQVAE(encoder, decoder, count=2, width=1, rng=0)
        >>> _ = encoder.weight.data.fill_(1.0)  # z = x
        >>> _ = model.codes.data.copy_(torch.tensor([[0.0], [1.0]]))
        >>> result = sg.fit(model, torch.full((4, 1), 0.8), sg.VQLoss(), sg.FitConfig(1), rng=0)
        >>> f"{result.logs['codebook'].item():.2f}"  # (0.8 − 1)²
        '0.04'
    """

    commitment: float = 0.25

    def __post_init__(self) -> None:
        check_not_negative("commitment", self.commitment)

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no VQVAE, and data that its pixels cannot be."""
        check_kind("module", module, VQVAE, "a VQVAE(encoder, decoder, count, width)")
        check_pixels(cast(VQVAE, module).likelihood, batch.rows)
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each row, shape (n,), and its three terms."""
        model, x = cast(VQVAE, module), batch.rows
        z = model.encode(x)
        code = model.codes[model.nearest(z)]
        output = ask("decoder", model.decoder, z + (code - z).detach())
        log_std = torch.tensor(math.log(model.std), dtype=torch.float64, device=x.device)
        reconstruction = -log_prob_of(x, output, model.likelihood, log_std)
        codebook = (z.detach() - code).square().flatten(1).sum(1)
        commitment = (z - code.detach()).square().flatten(1).sum(1)
        terms = {"reconstruction": reconstruction, "codebook": codebook, "commitment": commitment}
        return reconstruction + codebook + self.commitment * commitment, terms
