"""Markovian hierarchies of latent variables: T levels, whose encoders are learned.

    q(x_1 … x_T | x_0) = Π_t q(x_t | x_{t−1})          encoders, each sees the level below alone
    p(x_0 … x_T) = p(x_T) Π_t p(x_{t−1} | x_t)         prior and decoders

x_0 are data. With one level it is a variational autoencoder; with encoders that are fixed, linear
and as wide as the data it is a diffusion model, and `hierarchical_bound` takes either. What a
path of the encoders is worth is the logarithm of the ratio of the two, whose mean is the bound:

    log p(x_0) ≥ E_q [log p(x_0 … x_T) − log q(x_1 … x_T | x_0)]

Reference:
    Luo 2022, Understanding Diffusion Models, eqs. (20)-(30), arXiv:2208.11970; Sohl-Dickstein et
    al. 2015, arXiv:1503.03585; ladders of such levels: Sønderby et al. 2016, arXiv:1602.02282.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_kind, kind_of
from sdegen.core.shapes import State
from sdegen.variational.gaussians import Gaussian
from sdegen.variational.levels import (
    ConditionalLaw,
    Level,
    LinearGaussian,
    NetworkLevel,
    posterior_gain,
)

Draw = Callable[[Tensor], Tensor]  # standard normals like a tensor


@dataclass(frozen=True)
class EncodedPath:
    """One path of the encoders for each row, with the law of each of its steps.

    Attributes:
        states: x_0 … x_T, each of shape (n, k_t), float64.
        laws: q(x_t | x_{t−1}) at index t − 1.
    """

    states: list[Tensor]
    laws: list[ConditionalLaw]


class HierarchicalVAE(nn.Module):
    """A Markovian hierarchical variational autoencoder of T levels.

        p(x_0 … x_T) = p(x_T) Π_t p(x_{t−1} | x_t),     q(x_1 … x_T | x_0) = Π_t q(x_t | x_{t−1})

    Args:
        encoders: q(x_t | x_{t−1}), t = 1 … T: each a `LinearGaussian`, or any module that maps
            (n, k_{t−1}) to (n, 2 k_t), means and logarithms of variances.
        decoders: p(x_{t−1} | x_t), t = 1 … T, the same with the sizes exchanged.
        sizes: k_0 … k_T, the numbers of the data and of each level.
        prior: p(x_T), a `Gaussian` of k_T numbers; None is N(0, I).

    Raises:
        TypeError: If an encoder or decoder is no module, a size no int, or the prior no Gaussian.
        ValueError: If there is no level, or their numbers or sizes do not match.

    Example:
        >>> down = sg.LinearGaussian([[0.6]], 0.64)
        >>> model = sg.HierarchicalVAE([sg.LinearGaussian([[0.6]], 0.64)], [down], sizes=(1, 1))
        >>> f"{model.sample(20_000, rng=0).var():.1f}"  # 0.6² · 1 + 0.64
        '1.0'
    """

    prior_mean: Tensor
    prior_covariance: Tensor

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        sizes: Sequence[int],
        prior: Gaussian | None = None,
    ) -> None:
        super().__init__()
        self.sizes: tuple[int, ...] = _checked_sizes(sizes)
        steps = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        self.encoders: nn.ModuleList = _as_levels("encoders", encoders, steps)
        self.decoders: nn.ModuleList = _as_levels("decoders", decoders, [(m, d) for d, m in steps])
        top = self.sizes[-1]
        if prior is not None:
            check_kind("prior", prior, Gaussian, "a Gaussian(mean, covariance) or None")
            if prior.mean.shape != (top,):
                raise ValueError(
                    f"prior must be one law of {top} numbers, those of the last level, but its "
                    f"mean has shape {tuple(prior.mean.shape)}."
                )
        prior = Gaussian(torch.zeros(top)) if prior is None else prior
        self.register_buffer("prior_mean", prior.mean.detach().clone())
        self.register_buffer("prior_covariance", prior.covariance.detach().clone())

    @property
    def prior(self) -> Gaussian:
        """p(x_T)."""
        return Gaussian(self.prior_mean, self.prior_covariance)

    @property
    def levels(self) -> int:
        """T."""
        return len(self.encoders)

    def check_data(self, x: Tensor, name: str = "x") -> None:
        """Refuse data of another size.

        Raises:
            ValueError: If x does not have shape (n, k_0).
        """
        if x.ndim != 2 or x.shape[1] != self.sizes[0]:
            raise ValueError(
                f"{name} must have shape (n, {self.sizes[0]}), as sizes[0] says, but has shape "
                f"{tuple(x.shape)}."
            )

    def encode(self, x: State, draw: Draw) -> EncodedPath:
        """Return a path x_0 … x_T of the encoders for each row.

        Args:
            x: Data, shape (n, k_0).
            draw: Gives standard normals like a tensor, such as `noise.normal_like` of a loss.
        """
        states, laws = [x.double()], []
        for level in self.encoders:
            law = cast(Level, level).law(states[-1])
            laws.append(law)
            states.append(law.draw(draw(law.mean)))
        return EncodedPath(states, laws)

    def decoded(self, path: EncodedPath) -> list[ConditionalLaw]:
        """Return p(x_{t−1} | x_t) along a path, t = 1 … T."""
        pairs = zip(self.decoders, path.states[1:], strict=True)
        return [cast(Level, level).law(state) for level, state in pairs]

    def top(self, rows: int) -> ConditionalLaw:
        """Return p(x_T), for each of some rows."""
        prior = self.prior
        return ConditionalLaw(prior.mean.expand(rows, -1), _centred(prior))

    def marginals(self, x: State) -> list[ConditionalLaw]:
        """Return q(x_t | x_0), t = 1 … T, where all encoders are linear.

        Args:
            x: Data, shape (n, k_0).

        Raises:
            ValueError: If an encoder is not linear, by its index.
        """
        self.check_linear()
        means, noise, laws = x.double(), None, []
        for level in map(_linear, self.encoders):
            law = level.law(means)
            noise = law.noise if noise is None else _centred(level.push(noise))
            means = law.mean
            laws.append(ConditionalLaw(means, noise))
        return laws

    def posteriors(
        self, path: EncodedPath, marginals: Sequence[ConditionalLaw]
    ) -> list[ConditionalLaw]:
        """Return q(x_{t−1} | x_t, x_0) along a path, t = 2 … T, where all encoders are linear.

        Args:
            path: Of `encode`.
            marginals: Of `marginals`, for the same data.
        """
        laws = []
        for t in range(2, self.levels + 1):
            level, before = _linear(self.encoders[t - 1]), marginals[t - 2]
            gain, spread = posterior_gain(level, before.noise)
            surprise = path.states[t] - marginals[t - 1].mean
            noise = Gaussian(torch.zeros_like(before.noise.mean), spread)
            laws.append(ConditionalLaw(before.mean + surprise @ gain.mT, noise))
        return laws

    def check_linear(self) -> None:
        """Refuse encoders of which q(x_{t−1} | x_t, x_0) is not known.

        Raises:
            ValueError: With the index of the first.
        """
        networks = [
            i for i, one in enumerate(self.encoders) if not isinstance(one, LinearGaussian)
        ]
        if networks:
            raise ValueError(
                "the denoising form needs q(x_{t−1} | x_t, x_0), known where encoders are linear, "
                f"but encoders[{networks[0]}] is a network; take form='consistency', or a "
                "LinearGaussian."
            )

    def sample(self, n: int, *, rng: Rng = None) -> State:
        """Draw from p(x_0): a state of the prior, and down all levels.

        Args:
            n: How many.
            rng: Seed, generator or None.

        Returns:
            Shape (n, k_0), float64.
        """
        check_count("n", n)
        streams = Streams(seed_of(rng), "hierarchy sample")
        with torch.no_grad():
            law = self.top(n)
            for t in range(self.levels, 0, -1):
                x = law.draw(_normal_like(law.mean, streams, t))
                law = cast(Level, self.decoders[t - 1]).law(x)
            return law.draw(_normal_like(law.mean, streams, 0))


def exact_decoders(
    law: Gaussian, encoders: Sequence[LinearGaussian]
) -> tuple[list[LinearGaussian], Gaussian]:
    """Return the decoders and the prior with which a hierarchy is exact for Gaussian data.

        p(x_{t−1} | x_t) = q(x_t | x_{t−1}) q(x_{t−1})/q(x_t),     x_t of shape (n, k_t)

    Args:
        law: The law of the data.
        encoders: q(x_t | x_{t−1}), t = 1 … T.

    Returns:
        q(x_{t−1} | x_t) by Bayes' rule, t = 1 … T, and the law of x_T.

    Raises:
        TypeError: If an encoder is not linear, or the law no Gaussian.
        ValueError: If dimensions differ.

    Example:
        >>> up = sg.LinearGaussian([[0.6]], 0.64)
        >>> decoders, prior = sg.variational.exact_decoders(sg.Gaussian([0.0], 1.0), [up])
        >>> f"{decoders[0].matrix.item():.2f}, {prior.covariance.item():.2f}"  # 0.6, 0.6² + 0.64
        '0.60, 1.00'
    """
    if not isinstance(encoders, Sequence):
        raise TypeError(f"encoders must be a list of LinearGaussian, but is {kind_of(encoders)}.")
    decoders = []
    for level in encoders:
        check_kind("each of encoders", level, LinearGaussian, "a LinearGaussian(matrix, …)")
        decoders.append(level.inverse(law))
        with torch.no_grad():
            law = level.push(law)
    return decoders, law


def _normal_like(x: Tensor, streams: Streams, block: int) -> Tensor:
    """Draw standard normals like a tensor."""
    return streams.block(block).normal(tuple(x.shape), dtype=x.dtype, device=x.device)


def _centred(law: Gaussian) -> Gaussian:
    """Return the law with mean 0."""
    return Gaussian(torch.zeros_like(law.mean), law.covariance)


def _linear(level: nn.Module) -> LinearGaussian:
    """Return a level that was checked to be linear."""
    return cast(LinearGaussian, level)


def _checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return k_0 … k_T, or refuse them."""
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise TypeError(f"sizes must be a list of ints, k_0 … k_T, but is {kind_of(sizes)}.")
    for i, size in enumerate(sizes):
        check_count(f"sizes[{i}]", size)
    if len(sizes) < 2:
        raise ValueError(
            "a hierarchy has at least one level, T ≥ 1, but sizes names "
            f"{len(sizes)} of k_0 … k_T; give (k_0, k_1) or more."
        )
    return tuple(sizes)


def _as_levels(
    name: str, modules: Sequence[nn.Module], steps: Sequence[tuple[int, int]]
) -> nn.ModuleList:
    """Return modules as levels of these sizes, (in, out), or refuse them."""
    if not isinstance(modules, Sequence | nn.ModuleList):
        raise TypeError(f"{name} must be a list of modules, but is {kind_of(modules)}.")
    if len(modules) != len(steps):
        raise ValueError(
            f"{name} must be {len(steps)}, one for each level that sizes names after the data, "
            f"but are {len(modules)}."
        )
    levels = nn.ModuleList()
    for i, (module, (before, after)) in enumerate(zip(modules, steps, strict=True)):
        one = f"{name}[{i}]"
        check_kind(one, module, nn.Module, "a LinearGaussian or another torch.nn.Module")
        if isinstance(module, LinearGaussian) and module.matrix.shape != (after, before):
            raise ValueError(
                f"{one} must take {before} numbers to {after}, as sizes says, but its matrix has "
                f"shape {tuple(module.matrix.shape)}, not {(after, before)}."
            )
        levels.append(module if isinstance(module, Level) else NetworkLevel(module, after, one))
    return levels
