"""Levels: the Gaussian conditional laws that a hierarchy of latent variables is made of.

    linear      y | x ~ N(A x + b, Σ)              A, b and Σ learned or given
    any other   y | x ~ N(m(x), diag v(x))         a network puts out (m, log v)

A level that is linear keeps Gaussians Gaussian, so that Bayes' rule is in closed form: with
x ~ N(μ, C),

    x | y ~ N(μ + G (y − A μ − b), C − G A C),     G = C Aᵀ (A C Aᵀ + Σ)⁻¹

which is a linear level again, `LinearGaussian.inverse`: the decoder that belongs to an encoder.

Reference:
    Bishop 2006, Pattern Recognition and Machine Learning, eqs. (2.113)-(2.117).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdegen.core.requests import as_numbers, check_kind, kind_of
from sdegen.core.shapes import Numbers
from sdegen.variational.gaussians import Gaussian


@dataclass(frozen=True)
class ConditionalLaw:
    """N(m, C) of each row, C one for all of them or one for each.

    Attributes:
        mean: m, shape (n, d), float64.
        noise: N(0, C), a law without a batch or of batch n.
    """

    mean: Tensor
    noise: Gaussian

    def log_prob(self, y: Tensor) -> Tensor:
        """Return log p(y) in nats, shape (n,); y has shape (n, d)."""
        return self.noise.log_prob(y - self.mean)

    def draw(self, z: Tensor) -> Tensor:
        """Return m + L z, C = L Lᵀ, of standard normals z; all shape (n, d)."""
        if self.noise.is_diagonal:
            return self.mean + self.noise.covariance.sqrt() * z
        root = torch.linalg.cholesky(self.noise.covariance)
        moved: Tensor = (root @ z[..., None])[..., 0]
        return self.mean + moved

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape (n,)."""
        return self.noise.entropy().expand(len(self.mean))

    def kl(self, other: ConditionalLaw) -> Tensor:
        """Return KL(p ‖ q) of each row in nats, shape (n,)."""
        # the part of the means is what log q loses by a shift of its argument
        shift = other.mean - self.mean
        at_rest = other.noise.log_prob(torch.zeros_like(shift))
        return self.noise.kl(other.noise) + at_rest - other.noise.log_prob(shift)


class Level(nn.Module, ABC):
    """A conditional law that knows its own covariance: what `HierarchicalVAE` is made of."""

    @abstractmethod
    def law(self, x: Tensor) -> ConditionalLaw:
        """Return the law of y given x, shape (n, d), float64."""


class LinearGaussian(Level):
    """y | x ~ N(A x + b, Σ), all three learned where it is trained.

    Σ = L Lᵀ is held as L with the logarithms of its diagonal, so that it stays positive definite.

    Args:
        matrix: A, shape (m, d).
        covariance: Σ: a number, variances (m,), which stay a diagonal, or a matrix (m, m).
        shift: b, shape (m,) or a number.

    Raises:
        TypeError: If one of them is no array of numbers.
        ValueError: If shapes do not fit, or Σ is not symmetric and positive definite.

    Example:
        >>> level = sg.LinearGaussian([[0.8]], 0.36)
        >>> level.inverse(sg.Gaussian([0.0])).matrix.item()
        0.8
    """

    def __init__(self, matrix: Numbers, covariance: Numbers = 1.0, shift: Numbers = 0.0) -> None:
        super().__init__()
        a = as_numbers("matrix", matrix, expected="a matrix, shape (m, d)").detach()
        if a.ndim != 2 or a.numel() == 0:
            raise ValueError(
                f"matrix must have shape (m, d), such as (2, 3), but has shape {tuple(a.shape)}."
            )
        b = as_numbers("shift", shift, expected="an array, shape (m,), or a number").detach()
        if b.shape not in ((), (len(a),)):
            raise ValueError(
                f"shift must be a number or have shape ({len(a)},), one for each row of matrix, "
                f"but has shape {tuple(b.shape)}."
            )
        noise = Gaussian(a.new_zeros(len(a)), covariance)
        self.matrix: nn.Parameter = nn.Parameter(a.clone())
        self.shift: nn.Parameter = nn.Parameter(b.to(a).expand(len(a)).clone())
        self.log_scales: nn.Parameter
        self.below: nn.Parameter | None
        if noise.is_diagonal:
            self.log_scales = nn.Parameter(0.5 * noise.covariance.detach().log())
            self.below = None
        else:
            root = torch.linalg.cholesky(noise.covariance.detach())
            self.log_scales = nn.Parameter(root.diagonal().log())
            self.below = nn.Parameter(root.tril(-1))

    @property
    def covariance(self) -> Tensor:
        """Σ: variances, shape (m,), or a matrix, shape (m, m)."""
        if self.below is None:
            return torch.exp(2 * self.log_scales)
        root = self.below.tril(-1) + self.log_scales.exp().diag_embed()
        return root @ root.mT

    def law(self, x: Tensor) -> ConditionalLaw:
        """Return the law of y given x, shape (n, d)."""
        noise = Gaussian(torch.zeros_like(self.shift), self.covariance)
        return ConditionalLaw(x @ self.matrix.double().mT + self.shift.double(), noise)

    def push(self, law: Gaussian) -> Gaussian:
        """Return the law of y where x ~ N(μ, C): N(A μ + b, A C Aᵀ + Σ)."""
        return law.transform(self.matrix, self.shift, self.covariance)

    def inverse(self, law: Gaussian) -> LinearGaussian:
        """Return x | y by Bayes' rule, where x ~ N(μ, C), without gradients.

        Args:
            law: N(μ, C), one law.

        Raises:
            TypeError: If it is no Gaussian.
            ValueError: If it is of another dimension, or a batch.
        """
        check_kind("law", law, Gaussian, "a Gaussian(mean, covariance)")
        if law.mean.ndim != 1:
            raise ValueError(
                f"law must be one law, of a mean of shape (d,), but has a batch: its mean has "
                f"shape {tuple(law.mean.shape)}."
            )
        with torch.no_grad():
            gain, spread = posterior_gain(self, law)
            pushed = self.push(law)
            return LinearGaussian(gain, spread, law.mean - gain @ pushed.mean)


class NetworkLevel(Level):
    """y | x ~ N(m(x), diag v(x)) of a network that puts out (m, log v), shape (n, 2 m).

    Args:
        network: Any module of one argument, called in its own dtype.
        size: Numbers in y.
        name: What an error calls it.
    """

    def __init__(self, network: nn.Module, size: int, name: str) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.size: int = size
        self.name: str = name

    def law(self, x: Tensor) -> ConditionalLaw:
        """Return the law of y given x, shape (n, d)."""
        weights = next(self.network.parameters(), x)
        output = self.network(x.to(weights))
        if not isinstance(output, Tensor) or output.shape != (len(x), 2 * self.size):
            raise ValueError(
                f"{self.name} must return shape ({len(x)}, {2 * self.size}), means and logarithms "
                f"of variances of {self.size} numbers, but returned {kind_of(output)}."
            )
        mean, log_variance = output.double().chunk(2, 1)
        return ConditionalLaw(mean, Gaussian(torch.zeros_like(mean), log_variance.exp()))


def posterior_gain(level: LinearGaussian, law: Gaussian) -> tuple[Tensor, Tensor]:
    """Return G and the covariance of x | y ~ N(μ + G (y − A μ − b), C − G A C).

    Args:
        level: y given x.
        law: N(μ, C) of x, one law.
    """
    d, pushed = law.dim, level.push(law)
    cross = level.matrix.double() @ law.matrix()
    rows = torch.cat([law.matrix(), cross.mT], 1), torch.cat([cross, pushed.matrix()], 1)
    zeros = law.mean.new_zeros(d + pushed.dim)
    # the answers to unit vectors are the columns of G, and the law is the same for all of them
    units = torch.eye(pushed.dim, dtype=zeros.dtype, device=zeros.device)
    given = Gaussian(zeros, torch.cat(rows)).condition(range(d, d + pushed.dim), units)
    return given.mean.mT, given.covariance[0]
